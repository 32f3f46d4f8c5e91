//! From measured ops to times of a unit: medians with their spread, and how they grow with the work.

use super::{Spread, quantiles};
use crate::toml_file::not_negative;
use bigmac_schedule::{ModuleKind, Op, Phase, Workload};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Times of a module's chunk on one unit (a microbatch, or an encoder or generator item) in a phase. What a unit of
/// `g` billion operations (as [`CostModel`](super::CostModel) counts its forward) takes is
/// `fixed + per_gop * g` seconds, where the rank's op before was of the same module; an op that follows one of another
/// module takes `change` more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitTimes {
    module: ModuleKind,
    chunk: usize,
    #[serde(deserialize_with = "measured")]
    phase: Phase,
    /// Measurements.
    pub count: usize,
    /// Billions of operations of a unit's forward, the median.
    #[serde(deserialize_with = "not_negative")]
    pub gop: f64,
    /// Seconds that do not depend on the number of operations.
    #[serde(deserialize_with = "not_negative")]
    pub fixed: f64,
    /// Seconds per billion operations.
    #[serde(deserialize_with = "not_negative")]
    pub per_gop: f64,
    /// Seconds of a unit.
    pub seconds: Spread,
    /// Seconds that an op takes more where the rank's op before was of another module: its caches are cold.
    #[serde(default, deserialize_with = "not_negative")]
    pub change: f64,
    /// Spread of ops alike, within a step: the standard deviation of the logarithm of their times.
    #[serde(default, deserialize_with = "sigma")]
    pub sigma: f64,
    /// Times with all ranks busy over times alone on the machine; none where only one of them was measured.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "contention")]
    pub contention: Option<f64>,
}

/// A spread beyond which one op would be all of a step.
const MOST_SIGMA: f64 = 3.0;
/// Factors between these are what a machine can do.
const CONTENTION: RangeInclusive<f64> = 0.01..=1000.0;

fn sigma<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(deserializer)?;
    let wrong = || D::Error::custom(format!("got {value}, expected a number from 0 to {MOST_SIGMA}"));
    (0.0..=MOST_SIGMA).contains(&value).then_some(value).ok_or_else(wrong)
}

fn contention<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let value = f64::deserialize(deserializer)?;
    let (least, most) = (CONTENTION.start(), CONTENTION.end());
    let wrong = || D::Error::custom(format!("got {value}, expected a number from {least} to {most}"));
    CONTENTION.contains(&value).then_some(Some(value)).ok_or_else(wrong)
}

/// A phase that has times of its own: a recomputation counts as a forward.
fn measured<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Phase, D::Error> {
    match Phase::deserialize(deserializer)? {
        Phase::Recompute => {
            Err(D::Error::custom("a recomputation has no times of its own: expected 'forward'"))
        }
        phase => Ok(phase),
    }
}

/// A module, a chunk of it, and what is done.
pub(super) type Key = (ModuleKind, usize, Phase);

/// What times of an op are kept under; none for one that does not compute, or whose time is that of two phases.
pub(super) fn key(op: &Op) -> Option<Key> {
    let Op::Compute { module, phase, .. } = op else { return None };
    let phase = if *phase == Phase::Recompute { Phase::Forward } else { *phase };
    Some((module.kind(), module.chunk().0, phase))
}

/// Which of a rank's ops follow one of another module.
pub(super) fn changes(ops: &[Op]) -> impl Iterator<Item = bool> + '_ {
    let mut last = None;
    ops.iter().map(move |op| {
        let kind = op.units().next().map(|unit| unit.module.kind());
        let changes = kind.is_some() && last.is_some() && kind != last;
        last = kind.or(last);
        changes
    })
}

impl UnitTimes {
    /// What was measured.
    pub fn key(&self) -> (ModuleKind, usize, Phase) {
        (self.module, self.chunk, self.phase)
    }

    /// What an op takes that was measured as this sample.
    fn expected(&self, sample: &Sample) -> f64 {
        let change = if sample.changed { self.change } else { 0.0 };
        sample.units * (self.fixed + self.per_gop * sample.gop) + change
    }
}

/// Of one op: billions of operations and seconds, both per unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub gop: f64,
    pub seconds: f64,
    /// How many units it ran.
    pub units: f64,
    /// Whether the rank's op before was of another module.
    pub changed: bool,
    /// Number of the list of ops that it was measured with.
    pub list: usize,
}

/// Measured units by what they are.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    by_key: BTreeMap<Key, Vec<Sample>>,
    /// How many lists of ops were taken in.
    lists: usize,
}

impl Samples {
    /// Takes in what a rank spent on each of its ops in a step. `gops` is the step's workload at one unit of time per
    /// billion operations.
    pub fn take(&mut self, ops: &[Op], durations: &[f64], gops: &Workload) {
        for ((op, seconds), changed) in ops.iter().zip(durations).zip(changes(ops)) {
            // An overlap's time is that of two phases: it says nothing of either.
            let Some(key) = key(op) else { continue };
            let units = op.units().count().max(1) as f64;
            let gop: f64 = op.units().map(|unit| gops.unit_cost(unit, Phase::Forward)).sum();
            let (gop, seconds) = (gop / units, seconds.max(0.0) / units);
            let sample = Sample { gop, seconds, units, changed, list: self.lists };
            self.by_key.entry(key).or_default().push(sample);
        }
        self.lists += 1;
    }

    /// One line per module, chunk and phase.
    pub fn fit(&self) -> Vec<UnitTimes> {
        let mut times: Vec<UnitTimes> =
            self.by_key.iter().filter_map(|(key, samples)| fit(*key, samples)).collect();
        let speeds = self.speeds(&times);
        for times in &mut times {
            let Some(samples) = self.by_key.get(&times.key()) else { continue };
            let residual = |sample: &Sample| Some(off(times, sample)? - speeds.get(sample.list)?);
            let quartiles = quantiles(samples.iter().filter_map(residual), [0.25, 0.75]);
            times.sigma = quartiles
                .map_or(0.0, |[lower, upper]| ((upper - lower) / QUARTILES_OF_NORMAL).min(MOST_SIGMA));
        }
        times
    }

    /// By list: the median of how far its ops are from `times`, as a logarithm. A machine that is slower for a whole
    /// step does not make ranks wait for each other.
    fn speeds(&self, times: &[UnitTimes]) -> Vec<f64> {
        let mut lists: Vec<Vec<f64>> = vec![Vec::new(); self.lists];
        for times in times {
            for sample in self.by_key.get(&times.key()).into_iter().flatten() {
                lists[sample.list].extend(off(times, sample));
            }
        }
        lists.into_iter().map(|list| quantiles(list, [0.5]).map_or(0.0, |[median]| median)).collect()
    }

    /// Where these samples were taken of ops alone on the machine and `times` with all ranks busy: adds to `times` how
    /// much longer ops took.
    pub fn add_contention(&self, times: &mut [UnitTimes]) {
        for times in times {
            let samples = self.by_key.get(&times.key()).into_iter().flatten();
            let logs = quantiles(samples.filter_map(|sample| off(times, sample)), [0.5]);
            times.contention = logs.map(|[log]| (-log).exp().clamp(*CONTENTION.start(), *CONTENTION.end()));
        }
    }
}

/// The distance between the quartiles of the standard normal distribution.
const QUARTILES_OF_NORMAL: f64 = 1.349;

/// How far a sample is from what is expected, as a logarithm; none where either takes no time.
fn off(times: &UnitTimes, sample: &Sample) -> Option<f64> {
    let (seconds, expected) = (sample.units * sample.seconds, times.expected(sample));
    (seconds > 0.0 && expected > 0.0).then(|| (seconds / expected).ln())
}

/// Fewer ops than these after one of the same module are not looked at by themselves.
const ENOUGH: usize = 8;

/// Sizes nearer than this share of their middle are one size: no line goes through them.
const SAME_SIZE: f64 = 0.05;

fn fit((module, chunk, phase): Key, samples: &[Sample]) -> Option<UnitTimes> {
    let warm: Vec<Sample> = samples.iter().copied().filter(|sample| !sample.changed).collect();
    let enough = warm.len() >= ENOUGH;
    let (fixed, per_gop) = line(if enough { &warm } else { samples })?;
    let count = samples.len();
    let seconds = Spread::of(samples.iter().map(|sample| sample.seconds))?;
    let [gop] = quantiles(samples.iter().map(|sample| sample.gop), [0.5])?;
    let mut times = UnitTimes {
        module,
        chunk,
        phase,
        count,
        gop,
        fixed,
        per_gop,
        seconds,
        change: 0.0,
        sigma: 0.0,
        contention: None,
    };
    if enough {
        let cold = samples.iter().filter(|sample| sample.changed);
        let more = cold.map(|sample| {
            sample.units * sample.seconds - times.expected(&Sample { changed: false, ..*sample })
        });
        times.change = quantiles(more, [0.5]).map_or(0.0, |[more]| more.max(0.0));
    }
    Some(times)
}

/// Tukey's resistant line (*Exploratory Data Analysis*, 1977) of seconds over billions of operations, as its height at
/// none and its slope: through the medians of the outer thirds, its height the median of what is left. Through the origin
/// where all units are of one size, or where the line would have a part that no time has.
fn line(samples: &[Sample]) -> Option<(f64, f64)> {
    let median = |values: &mut dyn Iterator<Item = f64>| quantiles(values, [0.5]).map(|[median]| median);
    let seconds = median(&mut samples.iter().map(|sample| sample.seconds))?;
    let gop = median(&mut samples.iter().map(|sample| sample.gop))?;
    let ratios = &mut samples.iter().filter(|sample| sample.gop > 0.0).map(|one| one.seconds / one.gop);
    let through_origin = median(ratios).map_or((seconds, 0.0), |per_gop| (0.0, per_gop));
    let mut sorted = samples.to_vec();
    sorted.sort_by(|a, b| a.gop.total_cmp(&b.gop));
    let third = sorted.len().div_ceil(3);
    let middle = |part: &[Sample]| {
        Some((median(&mut part.iter().map(|s| s.gop))?, median(&mut part.iter().map(|s| s.seconds))?))
    };
    let (low, high) = (middle(&sorted[..third])?, middle(&sorted[sorted.len() - third..])?);
    let slope = (high.0 - low.0 > SAME_SIZE * gop).then(|| (high.1 - low.1) / (high.0 - low.0));
    let line = slope.and_then(|slope| {
        Some((median(&mut samples.iter().map(|one| one.seconds - slope * one.gop))?, slope))
    });
    Some(line.filter(|(fixed, slope)| *fixed >= 0.0 && *slope >= 0.0).unwrap_or(through_origin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_close::{absolute, assert_close};
    use bigmac_schedule::{Options, UniformCosts, registry};

    const KEY: Key = (ModuleKind::Llm, 1, Phase::Backward);

    fn samples(points: impl IntoIterator<Item = (f64, f64)>) -> Vec<Sample> {
        let sample = |(gop, seconds)| Sample { gop, seconds, units: 1.0, changed: false, list: 0 };
        points.into_iter().map(sample).collect()
    }

    /// Several items in one op: each has its part of the op's time and work.
    #[test]
    fn an_ops_time_is_its_units() {
        let costs = UniformCosts {
            forward: 3.0,
            backward_input: 2.0,
            backward_weight: 2.0,
            encoder_forward: 4.0,
            encoder_backward: 8.0,
            ..UniformCosts::default()
        };
        let gops = Workload::uniform(2, 1, 3, 4, costs, 0.0).unwrap();
        let table = registry::schedule("nested").unwrap().build(&gops, &Options::default()).unwrap();
        for (rank, ops) in table.ranks.iter().enumerate() {
            let durations: Vec<f64> = (0..ops.len()).map(|i| i as f64).collect();
            let mut samples = Samples::default();
            samples.take(ops, &durations, &gops);
            // Two of a microbatch's four items: one op, each item one billion operations of the microbatch's four.
            let encoder = &samples.by_key[&(ModuleKind::Encoder, 0, Phase::Forward)];
            assert!(encoder.iter().all(|one| one.gop == 1.0), "{encoder:?}");
            assert!(
                samples.by_key[&(ModuleKind::Llm, rank, Phase::Backward)].iter().all(|one| one.gop == 3.0)
            );
            let whole =
                |key: &Key, one: &Sample| one.seconds * if key.0 == ModuleKind::Encoder { 2.0 } else { 1.0 };
            let total: f64 =
                samples.by_key.iter().flat_map(|(key, all)| all.iter().map(|one| whole(key, one))).sum();
            // The optimizer's step at the end belongs to no unit.
            assert_close(total, durations[..ops.len() - 1].iter().sum::<f64>(), absolute(1e-9));
        }
    }

    #[test]
    fn a_line_is_found_again_among_outliers() {
        let points = (0..30).map(|i| {
            let gop = 1.0 + f64::from(i) / 10.0;
            let hiccup = if i % 10 == 3 { 5.0 } else { 0.0 };
            (gop, 0.25 + 2.0 * gop + hiccup)
        });
        let fitted = fit(KEY, &samples(points)).unwrap();
        assert_close(fitted.per_gop, 2.0, absolute(1e-9));
        assert_close(fitted.fixed, 0.25, absolute(1e-9));
        assert_eq!((fitted.key(), fitted.count), (KEY, 30));
    }

    #[test]
    fn equal_sizes_and_lines_that_no_time_has_go_through_the_origin() {
        let equal = fit(KEY, &samples([(2.0, 3.0), (2.0, 5.0), (2.0, 4.0), (2.01, 4.02)])).unwrap();
        assert_eq!((equal.fixed, equal.per_gop, equal.seconds.median), (0.0, 2.0, 4.01));
        let falling = fit(KEY, &samples([(1.0, 4.0), (2.0, 4.0), (4.0, 4.0), (4.0, 3.0)])).unwrap();
        assert!(falling.fixed == 0.0 && falling.per_gop > 0.0, "{falling:?}");
        let nothing = fit(KEY, &samples([(0.0, 3.0)])).unwrap();
        assert_eq!((nothing.fixed, nothing.per_gop), (3.0, 0.0));
        assert!(fit(KEY, &[]).is_none());
    }
}
