//! What a machine takes for the ops of a configuration: measured once, kept as TOML, and the costs of simulations
//! since.

use crate::config::{Config, Model, first_difference};
use crate::cost::{Effects, Rate, Rates, Spread, UnitRates, UnitTimes};
use crate::data::{PackedMicrobatch, StepPlan};
use crate::toml_file::{TomlError, TomlFile};
use bigmac_runtime::fs::write_atomically;
use bigmac_schedule::{ModuleKind, PerModule, Phase};
use serde::{Deserialize, Serialize};
use std::path::Path;
use thiserror::Error;

/// Measured times of a configuration's ops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// How it was taken.
    pub taken: Taken,
    /// Transfers and what follows the pipeline.
    pub around: Around,
    /// The model that was measured.
    pub model: Model,
    /// A line per module, chunk and phase.
    pub unit: Vec<UnitTimes>,
}

/// Where, when and how a profile was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// Date and time, UTC.
    pub date: String,
    /// Version of this program.
    pub version: String,
    /// The processor, as the system calls it.
    pub processor: String,
    /// Processors that the process could use.
    pub processors: usize,
    /// Ranks, all busy.
    pub ranks: usize,
    /// Threads of each rank.
    pub threads: usize,
    /// LLM chunks on each rank.
    pub chunks: usize,
    /// What was run in turns.
    pub schedules: Vec<String>,
    /// Different steps of the data.
    pub steps: u64,
    /// How often each ran under each schedule, cold rounds left out.
    pub rounds: usize,
    /// True: ranks x threads were more than the processors, so times are those of ops that ran one at a time.
    #[serde(default)]
    pub one_at_a_time: bool,
}

/// Seconds, as medians with their spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Around {
    /// From the send of a value of 4 bytes until its receiver, which waited for it, has it; none on one rank.
    pub latency: Option<Spread>,
    /// The same for a microbatch's hidden states.
    pub hidden: Option<Spread>,
    /// Bytes of these hidden states.
    pub hidden_bytes: usize,
    /// Reduction of gradients, on the slowest rank.
    pub reduce: Spread,
    /// The optimizer's step, on the slowest rank.
    pub optimizer: Spread,
}

/// Why a profile cannot be used.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// The file.
    #[error(transparent)]
    Toml(#[from] TomlError),
    /// Writing it.
    #[error(transparent)]
    Runtime(#[from] bigmac_runtime::Error),
    /// It is of something else.
    #[error(
        "the profile was taken with {what} = {here}, but the configuration has {wanted}: take it again with `bigmac profile`"
    )]
    #[allow(missing_docs)]
    Other { what: String, here: String, wanted: String },
    /// A module was not measured.
    #[error(
        "the profile has no times of the {module}'s {phase}: the steps that it was taken on had none; take it on more \
         with --steps"
    )]
    #[allow(missing_docs)]
    Missing { module: ModuleKind, phase: Phase },
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// [`ProfileError::Toml`] with line and column: no TOML, an unknown or missing key, another type, a time that is
    /// negative or not finite.
    pub fn read(path: &Path) -> Result<Profile, ProfileError> {
        Ok(TomlFile::read(path)?.parse()?)
    }

    /// Writes it: aside, synced, renamed.
    ///
    /// # Errors
    /// [`ProfileError::Runtime`] of the file system.
    pub fn write(&self, path: &Path) -> Result<(), ProfileError> {
        // A profile is made of tables, strings and numbers, all of which TOML has.
        let text = toml::to_string_pretty(self).unwrap_or_default();
        Ok(write_atomically(path, |file| file.write_all(text.as_bytes()))?)
    }

    /// Checks that it was taken with this configuration's model and layout.
    ///
    /// # Errors
    /// [`ProfileError::Other`], naming what differs.
    pub fn check(&self, config: &Config) -> Result<(), ProfileError> {
        let (taken, pipeline) = (&self.taken, &config.pipeline);
        let layout = [
            ("pipeline.ranks", taken.ranks, pipeline.ranks),
            ("pipeline.threads", taken.threads, pipeline.threads),
            ("pipeline.chunks", taken.chunks, pipeline.chunks),
        ];
        let differs = layout.into_iter().find(|(_, here, wanted)| here != wanted);
        let differs = differs.map(|(what, here, wanted)| (what.into(), here.to_string(), wanted.to_string()));
        // Where weights start from takes no time.
        let model = || first_difference(&self.model, &config.model, |key| key != "model.from");
        match differs.or_else(model) {
            Some((what, here, wanted)) => Err(ProfileError::Other { what, here, wanted }),
            None => Ok(()),
        }
    }

    /// What ops take beside their own work.
    pub fn effects(&self) -> Effects {
        Effects::new(&self.unit)
    }

    /// Time with all ranks busy over time alone on the machine, of all that was measured together; none where only one
    /// of the two was.
    pub fn contention(&self) -> Option<f64> {
        let busy = |unit: &UnitTimes| unit.count as f64 * unit.seconds.median;
        let alone = |unit: &UnitTimes| Some(busy(unit) / unit.contention?);
        let alone: f64 = self.unit.iter().map(alone).sum::<Option<f64>>()?;
        (alone > 0.0).then(|| self.unit.iter().map(busy).sum::<f64>() / alone)
    }

    /// How fast work goes. An LLM backward that was measured whole alone has halves of it as its parts, one measured in
    /// parts alone takes both. Encoder and generator backwards are always whole.
    ///
    /// # Errors
    /// [`ProfileError::Missing`] for what `plan` needs and the profile lacks.
    pub fn rates(&self, plan: &StepPlan) -> Result<Rates, ProfileError> {
        let any = |holds: fn(&PackedMicrobatch) -> bool| plan.microbatches.iter().any(holds);
        let wanted = PerModule {
            encoder: any(|load| !load.images.is_empty()),
            llm: true,
            generator: any(|load| !load.draws.is_empty()),
        };
        self.rates_of(wanted)
    }

    /// The same for a step that has work for these modules.
    ///
    /// # Errors
    /// [`ProfileError::Missing`] for a module or phase that was not measured.
    pub fn rates_of(&self, wanted: PerModule<bool>) -> Result<Rates, ProfileError> {
        let mut rates = Rates::default();
        let seconds = |spread: Option<Spread>| spread.map_or(0.0, |spread| spread.median);
        let (empty, hidden) = (seconds(self.around.latency), seconds(self.around.hidden));
        rates.latency = empty;
        rates.per_byte = (hidden - empty).max(0.0) / self.around.hidden_bytes.max(1) as f64;
        for module in ModuleKind::ALL.into_iter().filter(|module| wanted[*module]) {
            let chunks = if module == ModuleKind::Llm {
                self.taken.ranks.saturating_mul(self.taken.chunks)
            } else {
                1
            };
            for chunk in 0..chunks {
                let unit = self.unit_rates(module, chunk)?;
                rates.units.insert((module, chunk), unit);
            }
        }
        Ok(rates)
    }

    fn unit_rates(&self, module: ModuleKind, chunk: usize) -> Result<UnitRates, ProfileError> {
        let rate = |phase: Phase| {
            let of = |unit: &&UnitTimes| unit.key() == (module, chunk, phase);
            self.unit.iter().find(of).map(|unit| Rate { fixed: unit.fixed, per_gop: unit.per_gop })
        };
        let missing = |phase: Phase| ProfileError::Missing { module, phase };
        let none = Rate { fixed: 0.0, per_gop: 0.0 };
        let learns = self.model.frozen().learns();
        // In the order of the data flow: a backward is there where the module or something below it learns.
        let idle = !ModuleKind::ALL.into_iter().filter(|kind| *kind <= module).any(|kind| learns[kind]);
        let frozen = !learns[module];
        let forward = rate(Phase::Forward).ok_or(missing(Phase::Forward))?;
        if idle {
            return Ok(UnitRates::of_parts(forward, none, none));
        }
        let whole = rate(Phase::Backward);
        let (input, weight) = (rate(Phase::BackwardInput), rate(Phase::BackwardWeight));
        if frozen {
            // All of it is gradients of inputs, whatever the op was called.
            return Ok(UnitRates::of_parts(forward, whole.or(input).ok_or(missing(Phase::Backward))?, none));
        }
        match (whole, input, weight) {
            (_, Some(_), None) => Err(missing(Phase::BackwardWeight)),
            (Some(backward), Some(backward_input), Some(backward_weight)) => {
                Ok(UnitRates { forward, backward_input, backward_weight, backward })
            }
            (None, Some(input), Some(weight)) => Ok(UnitRates::of_parts(forward, input, weight)),
            (whole, None, _) => {
                let whole = whole.ok_or(missing(Phase::Backward))?;
                let half = Rate { fixed: whole.fixed / 2.0, per_gop: whole.per_gop / 2.0 };
                Ok(UnitRates::of_parts(forward, half, half))
            }
        }
    }
}

/// The processor as the system calls it; `None` where it does not say.
pub fn processor() -> Option<String> {
    processor_in(&std::fs::read_to_string("/proc/cpuinfo").ok()?)
}

/// The model in the text of `/proc/cpuinfo`.
fn processor_in(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{PackedMicrobatch, StepPlan};

    const SPREAD: Spread = Spread { median: 1e-3, lower: 1e-3, upper: 1e-3, least: 1e-3, most: 1e-3 };

    /// An LLM of two chunks on two ranks, and nothing else.
    fn profile() -> Profile {
        #[derive(Deserialize)]
        struct Units {
            unit: Vec<UnitTimes>,
        }
        let mut text = String::new();
        for chunk in 0..2 {
            for (phase, fixed, per_gop) in [
                ("forward", 1.0, 2.0),
                ("backward", 2.0, 6.0),
                ("backward-input", 1.5, 4.0),
                ("backward-weight", 0.75, 3.0 + chunk as f64),
            ] {
                text += &format!(
                    "[[unit]]\nmodule = 'llm'\nchunk = {chunk}\nphase = '{phase}'\ncount = 1\ngop = 1\nfixed = {fixed}\n\
                     per_gop = {per_gop}\nseconds = {{ median = 1, lower = 1, upper = 1, least = 1, most = 1 }}\n"
                );
            }
        }
        Profile {
            taken: Taken {
                date: String::new(),
                version: String::new(),
                processor: String::new(),
                processors: 2,
                ranks: 2,
                threads: 1,
                chunks: 1,
                schedules: Vec::new(),
                steps: 1,
                rounds: 1,
                one_at_a_time: false,
            },
            around: Around {
                latency: Some(SPREAD),
                hidden: Some(Spread { median: 3e-3, ..SPREAD }),
                hidden_bytes: 1000,
                reduce: SPREAD,
                optimizer: SPREAD,
            },
            model: Model::default(),
            unit: toml::from_str::<Units>(&text).unwrap().unit,
        }
    }

    fn plan() -> StepPlan {
        StepPlan { microbatches: vec![PackedMicrobatch::default()], ..StepPlan::default() }
    }

    fn llm(profile: &Profile, chunk: usize) -> UnitRates {
        profile.rates(&plan()).unwrap().of(ModuleKind::Llm, chunk)
    }

    /// Forward, input gradient, weight gradient, whole backward of two billion operations.
    fn times(rates: UnitRates) -> [f64; 4] {
        [rates.forward, rates.backward_input, rates.backward_weight, rates.backward]
            .map(|rate| rate.time(2.0))
    }

    #[test]
    fn whole_and_split_backwards_have_their_own_rates() {
        let mut profile = profile();
        assert_eq!(times(llm(&profile, 0)), [5.0, 9.5, 6.75, 14.0]);
        assert_eq!(times(llm(&profile, 1)), [5.0, 9.5, 8.75, 14.0]);
        let rates = profile.rates(&plan()).unwrap();
        assert_eq!((rates.latency, rates.per_byte), (1e-3, 2e-6));
        // Measured in parts alone, or as a whole alone.
        let all = profile.unit.clone();
        profile.unit.retain(|unit| unit.key().2 != Phase::Backward);
        assert_eq!(times(llm(&profile, 1)), [5.0, 9.5, 8.75, 18.25]);
        profile.unit = all;
        profile.unit.retain(|unit| matches!(unit.key().2, Phase::Forward | Phase::Backward));
        assert_eq!(times(llm(&profile, 1)), [5.0, 7.0, 7.0, 14.0]);
    }

    #[test]
    fn what_is_frozen_has_no_weight_gradients() {
        let mut profile = profile();
        profile.model.llm.frozen = true;
        // The whole backward of a frozen module is that of its inputs.
        assert_eq!(times(llm(&profile, 0)), [5.0, 14.0, 0.0, 14.0]);
        profile.model.encoder.frozen = true;
        // The projector learns below.
        assert_eq!(times(llm(&profile, 0)), [5.0, 14.0, 0.0, 14.0]);
        let mut apart = profile.clone();
        apart.unit.retain(|unit| unit.key().2 != Phase::Backward);
        assert_eq!(times(llm(&apart, 0)), [5.0, 9.5, 0.0, 9.5]);
        profile.model.projector.frozen = true;
        profile.unit.retain(|unit| unit.key().2 == Phase::Forward);
        assert_eq!(times(llm(&profile, 0)), [5.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn what_was_not_measured_is_named() {
        let without = |phases: &[Phase]| {
            let mut profile = profile();
            profile.unit.retain(|unit| !(unit.key().1 == 1 && phases.contains(&unit.key().2)));
            profile.rates(&plan()).unwrap_err().to_string()
        };
        let error = without(&[Phase::Backward, Phase::BackwardInput, Phase::BackwardWeight]);
        assert!(error.contains("no times of the llm's backward:"), "{error}");
        let error = without(&[Phase::BackwardWeight]);
        assert!(error.contains("no times of the llm's backward-weight:"), "{error}");
        let error = without(&[Phase::Forward]);
        assert!(error.contains("no times of the llm's forward:"), "{error}");
    }

    #[test]
    fn the_processor_is_named() {
        let text = "processor\t: 0\nmodel name\t: Some Processor: 3 GHz\nprocessor\t: 1\n";
        assert_eq!(processor_in(text).as_deref(), Some("Some Processor: 3 GHz"));
        assert_eq!(processor_in(""), None);
    }
}
