//! Every way in which a source is compiled, so that registers and spills of all of them are checked without a GPU.

use super::Launch;
use super::source::{Knob, Source};

/// The knobs of a program.
pub type Knobs = Vec<(&'static str, Knob)>;

/// A source, and every set of knobs that launches compile it with.
#[derive(Clone, Debug)]
pub struct Variants {
    source: &'static Source,
    elements: &'static [&'static str],
    sets: Vec<Knobs>,
    targets: &'static [&'static str],
}

impl Variants {
    /// A source that is compiled with `T` as `float` and as `bf16`, for every architecture, with the sets of knobs that
    /// are added; without any when none is.
    pub fn new(source: &'static Source) -> Self {
        Variants { source, elements: &["float", "bf16"], sets: Vec::new(), targets: &["sm_80", "sm_90a"] }
    }

    /// Compiled with those as `ELEMENT` alone; with none when the source does not use it.
    pub fn elements(self, elements: &'static [&'static str]) -> Self {
        Variants { elements, ..self }
    }

    /// Compiled for those architectures alone.
    pub fn targets(self, targets: &'static [&'static str]) -> Self {
        Variants { targets, ..self }
    }

    /// Adds a set of knobs beside `ELEMENT`.
    pub fn with<const N: usize>(mut self, knobs: [(&'static str, impl Into<Knob>); N]) -> Self {
        self.sets.push(knobs.map(|(name, value)| (name, value.into())).into());
        self
    }

    /// Adds the knobs of a launch, `ELEMENT` left out.
    pub fn launched(mut self, launch: &Launch) -> Self {
        self.sets.push(launch.knobs().iter().copied().filter(|(name, _)| *name != "ELEMENT").collect());
        self
    }

    /// The source.
    pub fn source(&self) -> &'static Source {
        self.source
    }

    /// The architectures.
    pub fn architectures(&self) -> &'static [&'static str] {
        self.targets
    }

    /// The knobs of each program, each once, `ELEMENT` first and the others by name.
    pub fn programs(&self) -> Vec<Knobs> {
        let elements: Vec<Option<&'static str>> = match self.elements {
            [] => vec![None],
            some => some.iter().copied().map(Some).collect(),
        };
        let sets = if self.sets.is_empty() { vec![Vec::new()] } else { self.sets.clone() };
        let mut programs: Vec<Knobs> = Vec::new();
        for element in elements {
            for set in &sets {
                let mut knobs = set.clone();
                knobs.sort_by_key(|(name, _)| *name);
                knobs.splice(0..0, element.map(|element| ("ELEMENT", Knob::Word(element))));
                if !programs.contains(&knobs) {
                    programs.push(knobs);
                }
            }
        }
        programs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_goes_with_every_set_once() {
        static SOURCE: Source = Source::new("x.cu", "");
        let launch = Launch::new(&SOURCE, "k").knob("B", 2).element("float").knob("A", 1);
        let variants = Variants::new(&SOURCE).with([("A", 1), ("B", 2)]).launched(&launch).with([("A", 3)]);
        let element = |name| ("ELEMENT", Knob::Word(name));
        let both = |name| vec![element(name), ("A", Knob::Int(1)), ("B", Knob::Int(2))];
        let one = |name| vec![element(name), ("A", Knob::Int(3))];
        assert_eq!(variants.programs(), [both("float"), one("float"), both("bf16"), one("bf16")]);
        assert_eq!(Variants::new(&SOURCE).elements(&[]).programs(), [Knobs::new()]);
    }
}
