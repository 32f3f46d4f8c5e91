//! Microbatches as unlike each other as real data makes them.

use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_schedule::{ItemCost, Load, WorkloadError, check_extent};

/// Shape of the Pareto distribution of items per microbatch: its variance is infinite, which is what "heavy tail" says.
const ALPHA: f64 = 1.5;
/// No microbatch has more than this many times the mean number of items: a microbatch has a limit in tokens.
const CAP: f64 = 8.0;
/// One in this many microbatches is text only.
const TEXT_ONLY: usize = 3;

/// How many items to draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uneven {
    /// Draws with the same seed are the same everywhere.
    pub seed: u64,
    /// Items per microbatch on average, before rounding and the cap; above 0.
    pub mean: f64,
}

/// Replaces the items of equal microbatches by unequal numbers of equal items, so that the work of the whole step stays
/// the same. One microbatch in three (rounded down) has no items; every other one has, for encoder and generator each,
/// n = min(8 mean, x) items rounded, at least 1, where x is Pareto distributed: P(x > t) = (s / t)^1.5 for t >= s, with
/// s = mean / 2 so that all microbatches together have `mean` items on average before the cap. All items cost the same:
/// the step's work divided by its items.
///
/// The draws come from the counter-based generator, keyed by seed and microbatch. Nothing changes where no microbatch
/// has items or there are too few microbatches to be unlike.
///
/// # Errors
/// Where the step would have more items than are possible.
pub fn uneven(loads: &mut [Load], draw: Uneven) -> Result<(), WorkloadError> {
    let mut order: Vec<usize> = (0..loads.len()).collect();
    Philox::new(draw.seed, Purpose::new("uneven.text"), 0, 0).shuffle(&mut order);
    let rest = &order[loads.len() / TEXT_ONLY..];
    for (purpose, items) in [
        ("uneven.encoder", (|load| &mut load.encoder) as fn(&mut Load) -> &mut Vec<ItemCost>),
        ("uneven.generator", |load| &mut load.generator),
    ] {
        let (mut forward, mut backward) = (0.0, 0.0);
        for item in loads.iter_mut().flat_map(|load| items(load).drain(..)) {
            forward += item.forward;
            backward += item.backward;
        }
        if forward + backward == 0.0 {
            continue;
        }
        let counts: Vec<usize> = rest.iter().map(|m| count(draw, Purpose::new(purpose), *m)).collect();
        let total = counts.iter().fold(0, |sum: usize, count| sum.saturating_add(*count));
        check_extent(1, 1, loads.len(), total)?;
        let item = ItemCost { forward: forward / total as f64, backward: backward / total as f64 };
        for (microbatch, count) in rest.iter().zip(counts) {
            *items(&mut loads[*microbatch]) = vec![item; count];
        }
    }
    Ok(())
}

/// How many items a microbatch with items has.
fn count(draw: Uneven, purpose: Purpose, microbatch: usize) -> usize {
    // In (0, 1]: the distribution function is inverted at 0 otherwise.
    let uniform = 1.0 - f64::from(Philox::new(draw.seed, purpose, 0, microbatch as u32).uniform());
    let scale = draw.mean * TEXT_ONLY as f64 / (TEXT_ONLY - 1) as f64 * (ALPHA - 1.0) / ALPHA;
    let items = scale * uniform.powf(-1.0 / ALPHA);
    items.min(CAP * draw.mean).round().max(1.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_close::{absolute, assert_close, relative};
    use bigmac_schedule::{UniformCosts, Workload};

    fn drawn(seed: u64, microbatches: usize, mean: f64) -> Vec<Load> {
        let costs = UniformCosts {
            forward: 1.0,
            encoder_forward: 2.0,
            encoder_backward: 4.0,
            generator_forward: 1.0,
            generator_backward: 3.0,
            ..UniformCosts::default()
        };
        let mut loads = Workload::uniform(4, 1, microbatches, 4, costs, 0.0).unwrap().loads().to_vec();
        uneven(&mut loads, Uneven { seed, mean }).unwrap();
        loads
    }

    #[test]
    fn a_third_is_text_and_the_work_of_the_step_stays() {
        for microbatches in [1, 2, 3, 16, 64] {
            let loads = drawn(7, microbatches, 4.0);
            let text = loads.iter().filter(|load| load.encoder.is_empty());
            assert!(text.clone().all(|load| load.generator.is_empty()));
            assert_eq!(text.count(), microbatches / 3);
            let work: f64 = loads.iter().flat_map(|load| &load.encoder).map(|item| item.forward).sum();
            assert_close(work, 2.0 * microbatches as f64, relative(1e-9));
            let work: f64 = loads.iter().flat_map(|load| &load.generator).map(|item| item.backward).sum();
            assert_close(work, 3.0 * microbatches as f64, relative(1e-9));
        }
    }

    #[test]
    fn numbers_of_items_have_a_heavy_tail_and_repeat() {
        let loads = drawn(1, 3000, 4.0);
        assert_eq!(loads, drawn(1, 3000, 4.0));
        assert_ne!(loads, drawn(2, 3000, 4.0));
        let mut counts: Vec<usize> = loads.iter().map(|load| load.encoder.len()).collect();
        counts.sort_unstable();
        // Of 2000 with items: P(x > t) = (2 / t)^1.5 before the cap at 32.
        let over = |t: usize| counts.iter().filter(|count| **count > t).count() as f64 / 2000.0;
        assert_close(over(8), (2.0f64 / 8.5).powf(1.5), absolute(0.02));
        assert_close(over(16), (2.0f64 / 16.5).powf(1.5), absolute(0.015));
        assert_eq!((counts[999], counts[1000], counts.last().copied()), (0, 2, Some(32)));
    }
}
