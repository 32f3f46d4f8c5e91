//! From measured ops to times of a unit: medians with their spread, and how they grow with the work.

use super::Spread;
use crate::toml_file::not_negative;
use bigmac_schedule::{ModuleKind, Op, Phase, Workload};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// Times of a module's chunk on one unit (a microbatch, or an encoder or generator item) in a phase. What a unit of
/// `g` billion operations (as [`CostModel`](super::CostModel) counts its forward) takes is
/// `fixed + per_gop * g` seconds.
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

impl UnitTimes {
    /// What was measured.
    pub fn key(&self) -> (ModuleKind, usize, Phase) {
        (self.module, self.chunk, self.phase)
    }
}

/// Of one op, per unit: billions of operations, seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub gop: f64,
    pub seconds: f64,
}

/// Measured units by what they are.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<Key, Vec<Sample>>);

impl Samples {
    /// Takes in what a rank measured in a step: of each of its ops start and end, and for how long it waited. `gops` is
    /// the step's workload at one unit of time per billion operations.
    pub fn take(&mut self, ops: &[Op], spans: &[(f64, f64)], waits: &[f64], gops: &Workload) {
        let is_compute = |op: &&Op| matches!(op, Op::Compute { .. });
        let mut timed = ops.iter().zip(spans.iter().zip(waits));
        let mut next = timed.find(|(op, _)| is_compute(op));
        while let Some((op, ((start, end), waited))) = next {
            next = timed.find(|(op, _)| is_compute(op));
            // Up to the next op that computes: sends, and what the executor itself does, take the rank's time too.
            let end = next.map_or(end, |(_, ((start, _), _))| start);
            self.add(op, end - start - waited, gops);
        }
    }

    fn add(&mut self, op: &Op, seconds: f64, gops: &Workload) {
        let Op::Compute { module, phase, .. } = op else { return };
        let units = op.units().count().max(1) as f64;
        let gop: f64 = op.units().map(|unit| gops.unit_cost(unit, Phase::Forward)).sum();
        let phase = if *phase == Phase::Recompute { Phase::Forward } else { *phase };
        let key = (module.kind(), module.chunk().0, phase);
        self.0.entry(key).or_default().push(Sample { gop: gop / units, seconds: seconds.max(0.0) / units });
    }

    /// One line per module, chunk and phase.
    pub fn fit(&self) -> Vec<UnitTimes> {
        self.0.iter().filter_map(|(key, samples)| fit(*key, samples)).collect()
    }
}

/// Sizes nearer than this share of their middle are one size: no line goes through them.
const SAME_SIZE: f64 = 0.05;

/// Tukey's resistant line (*Exploratory Data Analysis*, 1977): through the medians of the outer thirds, its height the
/// median of what is left. Through the origin where all units are of one size, or where the line would have a part that
/// no time has.
fn fit((module, chunk, phase): Key, samples: &[Sample]) -> Option<UnitTimes> {
    let median = |values: &mut dyn Iterator<Item = f64>| Spread::of(values).map(|spread| spread.median);
    let seconds = Spread::of(samples.iter().map(|sample| sample.seconds))?;
    let gop = median(&mut samples.iter().map(|sample| sample.gop))?;
    let ratios = &mut samples.iter().filter(|sample| sample.gop > 0.0).map(|one| one.seconds / one.gop);
    let through_origin = median(ratios).map_or((seconds.median, 0.0), |per_gop| (0.0, per_gop));
    let mut sorted = samples.to_vec();
    sorted.sort_by(|a, b| a.gop.total_cmp(&b.gop));
    let third = sorted.len().div_ceil(3);
    let middle = |part: &[Sample]| {
        Some((median(&mut part.iter().map(|s| s.gop))?, median(&mut part.iter().map(|s| s.seconds))?))
    };
    let (low, high) = (middle(&sorted[..third])?, middle(&sorted[sorted.len() - third..])?);
    let line = (high.0 - low.0 > SAME_SIZE * gop).then(|| (high.1 - low.1) / (high.0 - low.0));
    let line = line.and_then(|slope| {
        Some((median(&mut samples.iter().map(|one| one.seconds - slope * one.gop))?, slope))
    });
    let (fixed, per_gop) =
        line.filter(|(fixed, slope)| *fixed >= 0.0 && *slope >= 0.0).unwrap_or(through_origin);
    Some(UnitTimes { module, chunk, phase, count: samples.len(), gop, fixed, per_gop, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_close::{absolute, assert_close};
    use bigmac_schedule::{Options, UniformCosts, lower, registry};

    const KEY: Key = (ModuleKind::Llm, 1, Phase::Backward);

    fn samples(points: impl IntoIterator<Item = (f64, f64)>) -> Vec<Sample> {
        points.into_iter().map(|(gop, seconds)| Sample { gop, seconds }).collect()
    }

    /// Ranks that wait, send and run several items in one op: every second is counted once, at the op that took it.
    #[test]
    fn an_ops_time_is_without_waiting_up_to_the_next_op() {
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
        for (rank, ops) in lower(&table, &gops).unwrap().ranks.iter().enumerate() {
            // Op i runs from 10 i to 10 i + 8; ops that compute wait for 1 of it.
            let spans: Vec<_> = (0..ops.len()).map(|i| (10.0 * i as f64, 10.0 * i as f64 + 8.0)).collect();
            let computes = |op: &Op| matches!(op, Op::Compute { .. });
            let waits: Vec<f64> = ops.iter().map(|op| f64::from(u8::from(computes(op)))).collect();
            let places: Vec<usize> = (0..ops.len()).filter(|i| computes(&ops[*i])).collect();
            let mut samples = Samples::default();
            samples.take(ops, &spans, &waits, &gops);
            let whole =
                |key: &Key, one: &Sample| one.seconds * if key.0 == ModuleKind::Encoder { 2.0 } else { 1.0 };
            let total: f64 =
                samples.0.iter().flat_map(|(key, all)| all.iter().map(|one| whole(key, one))).sum();
            let (first, last) = (places[0], places[places.len() - 1]);
            let wanted = 10.0 * (last - first) as f64 + 8.0 - places.len() as f64;
            assert_close(total, wanted, absolute(1e-9));
            assert!(ops.len() > places.len() + 2, "nothing is sent");
            // Two of a microbatch's four items: one op, each item one billion operations of the microbatch's four.
            let encoder = &samples.0[&(ModuleKind::Encoder, 0, Phase::Forward)];
            assert!(encoder.iter().all(|one| one.gop == 1.0), "{encoder:?}");
            assert!(samples.0[&(ModuleKind::Llm, rank, Phase::Backward)].iter().all(|one| one.gop == 3.0));
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
