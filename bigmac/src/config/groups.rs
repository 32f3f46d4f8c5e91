//! What can be frozen by itself and learns at a rate of its own.

use bigmac_models::names::is_of_projector;
use bigmac_schedule::{ModuleKind, PerModule};
use serde::{Deserialize, Serialize};
use std::ops::Index;

/// Parameters that are treated alike: those of a module, but the projector's apart from the rest of the encoder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ParameterGroup {
    /// The encoder without its projector.
    Encoder,
    /// The projector, which runs in the encoder's ops.
    Projector,
    /// The LLM.
    Llm,
    /// The generator.
    Generator,
}

impl ParameterGroup {
    /// All of them, in the order of the data.
    pub const ALL: [ParameterGroup; 4] =
        [ParameterGroup::Encoder, ParameterGroup::Projector, ParameterGroup::Llm, ParameterGroup::Generator];

    /// The group of a module's parameter.
    pub fn of(module: ModuleKind, parameter: &str) -> ParameterGroup {
        match module {
            ModuleKind::Encoder if is_of_projector(parameter) => ParameterGroup::Projector,
            ModuleKind::Encoder => ParameterGroup::Encoder,
            ModuleKind::Llm => ParameterGroup::Llm,
            ModuleKind::Generator => ParameterGroup::Generator,
        }
    }

    /// Its name, as in `model.NAME.frozen` and `train.lr_scale.NAME`.
    pub fn name(self) -> &'static str {
        match self {
            ParameterGroup::Encoder => "encoder",
            ParameterGroup::Projector => "projector",
            ParameterGroup::Llm => "llm",
            ParameterGroup::Generator => "generator",
        }
    }
}

/// One of something per group of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerGroup<T> {
    /// The encoder's, without its projector.
    pub encoder: T,
    /// The projector's.
    pub projector: T,
    /// The LLM's.
    pub llm: T,
    /// The generator's.
    pub generator: T,
}

impl<T: Copy> PerGroup<T> {
    /// The same for each.
    pub fn all(value: T) -> PerGroup<T> {
        PerGroup { encoder: value, projector: value, llm: value, generator: value }
    }
}

impl<T> Index<ParameterGroup> for PerGroup<T> {
    type Output = T;

    fn index(&self, group: ParameterGroup) -> &T {
        match group {
            ParameterGroup::Encoder => &self.encoder,
            ParameterGroup::Projector => &self.projector,
            ParameterGroup::Llm => &self.llm,
            ParameterGroup::Generator => &self.generator,
        }
    }
}

/// Flags that say which groups are frozen.
impl PerGroup<bool> {
    /// The modules of which something learns.
    pub fn learns(self) -> PerModule<bool> {
        PerModule { encoder: !(self.encoder && self.projector), llm: !self.llm, generator: !self.generator }
    }

    /// True where of the encoder's module the projector learns and nothing before it.
    pub fn projector_alone(self) -> bool {
        self.encoder && !self.projector
    }

    /// Those that are frozen, as a list in words: `encoder, projector and llm`.
    pub fn listed(self) -> String {
        let names: Vec<&str> =
            ParameterGroup::ALL.into_iter().filter(|group| self[*group]).map(ParameterGroup::name).collect();
        match &names[..] {
            [] => "nothing".to_owned(),
            [one] => (*one).to_owned(),
            [first @ .., last] => format!("{} and {last}", first.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_projector_is_a_group_of_the_encoders_module() {
        let of = |name| ParameterGroup::of(ModuleKind::Encoder, name);
        assert_eq!(of("multi_modal_projector.linear_1.weight"), ParameterGroup::Projector);
        assert_eq!(of("vision_model.encoder.layers.0.mlp.fc1.weight"), ParameterGroup::Encoder);
        assert_eq!(ParameterGroup::of(ModuleKind::Llm, "lm_head.weight"), ParameterGroup::Llm);
    }

    #[test]
    fn a_module_learns_where_one_of_its_groups_does() {
        let frozen = PerGroup { encoder: true, projector: false, llm: true, generator: true };
        assert_eq!(frozen.learns(), PerModule { encoder: true, llm: false, generator: false });
        assert!(frozen.projector_alone() && !PerGroup::all(true).projector_alone());
        assert_eq!(PerGroup::all(true).learns(), PerModule::all(false));
        assert_eq!(frozen.listed(), "encoder, llm and generator");
        assert_eq!(PerGroup::all(false).listed(), "nothing");
    }
}
