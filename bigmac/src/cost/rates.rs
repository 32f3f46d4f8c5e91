//! How fast work goes: what makes times of operations that were counted.

use bigmac_schedule::ModuleKind;
use std::collections::BTreeMap;

/// Time of a unit's phase: `fixed + per_gop` x billions of operations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Seconds that it takes however little there is to do.
    pub fixed: f64,
    /// Seconds per billion operations.
    pub per_gop: f64,
}

impl Default for Rate {
    /// Operations as they are counted: a billion of them takes 1.
    fn default() -> Self {
        Rate { fixed: 0.0, per_gop: 1.0 }
    }
}

impl Rate {
    /// The time of that many billions of operations.
    pub fn time(&self, gop: f64) -> f64 {
        self.fixed + self.per_gop * gop
    }
}

/// Rates of one chunk of a module on one unit of work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnitRates {
    /// The forward, or a recomputation.
    pub forward: Rate,
    /// Gradients of inputs.
    pub backward_input: Rate,
    /// Gradients of weights.
    pub backward_weight: Rate,
    /// Both in one op.
    pub backward: Rate,
}

impl Default for UnitRates {
    /// Operations as they are counted: gradients of inputs and of weights each take as many as the forward.
    fn default() -> Self {
        UnitRates::of_parts(Rate::default(), Rate::default(), Rate::default())
    }
}

impl UnitRates {
    /// Rates where a whole backward takes as long as its parts.
    pub fn of_parts(forward: Rate, backward_input: Rate, backward_weight: Rate) -> Self {
        let backward = Rate {
            fixed: backward_input.fixed + backward_weight.fixed,
            per_gop: backward_input.per_gop + backward_weight.per_gop,
        };
        UnitRates { forward, backward_input, backward_weight, backward }
    }
}

/// Rates of all modules, and of what crosses ranks. By default costs are billions of operations, and values cross at
/// once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    /// By module and number of the chunk; a chunk without its own has those of the module's chunk before it.
    pub units: BTreeMap<(ModuleKind, usize), UnitRates>,
    /// Seconds until a value of no bytes is on another rank.
    pub latency: f64,
    /// Seconds that each byte of a value takes on top.
    pub per_byte: f64,
}

impl Rates {
    /// True where nothing was measured: work takes as long as its operations are many.
    pub fn are_counts(&self) -> bool {
        self.units.is_empty()
    }

    /// Those of a chunk.
    pub fn of(&self, kind: ModuleKind, chunk: usize) -> UnitRates {
        let nearest = self.units.range((kind, 0)..=(kind, chunk)).next_back();
        nearest.map(|(_, rates)| *rates).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_without_rates_has_those_before_it() {
        let slow = UnitRates { forward: Rate { fixed: 1.0, per_gop: 2.0 }, ..UnitRates::default() };
        let rates = Rates { units: [((ModuleKind::Llm, 1), slow)].into(), ..Rates::default() };
        assert_eq!(rates.of(ModuleKind::Llm, 0), UnitRates::default());
        assert_eq!(rates.of(ModuleKind::Llm, 1), slow);
        assert_eq!(rates.of(ModuleKind::Llm, 7).forward.time(3.0), 7.0);
        assert_eq!(rates.of(ModuleKind::Generator, 7), UnitRates::default());
    }
}
