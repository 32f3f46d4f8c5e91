//! The schedule that fills the LLM's own bubbles: the work bound, its budgets, and shapes of every kind.

use super::properties::{any_loads, any_workload, time};
use super::{build, run, workload};
use crate::check::{lower, validate};
use crate::clock::memory::peak_microbatches;
use crate::clock::{simulate, work_bound};
use crate::schedules::nested_fill::{NESTED_FILL, Planned, Room, planned};
use crate::{
    Budget, Limits, Load, ModuleKind, Options, PerModule, ScheduleError, Table, UniformCosts, UnknownSize,
    Workload, ideal_time, lower_bound,
};
use bigmac_close::{absolute, assert_close};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use std::ops::RangeInclusive;

fn limited(module: ModuleKind, budget: Budget) -> Options {
    let mut limits = Limits::default();
    limits.budget[module] = Some(budget);
    limits.microbatch_bytes[module] = Some(1000);
    Options { limits, ..Options::default() }
}

/// Encoder activations of at most 4 microbatches on every rank, the LLM's of at most p - s + 1 on stage s, one
/// generator item.
#[track_caller]
fn within_usual_memory(table: &Table, w: &Workload) {
    for (stage, peak) in peak_microbatches(table, w).iter().enumerate() {
        assert!(peak.encoder <= 4.0 && peak.generator <= 1.0, "stage {stage}: {peak:?}");
        assert!(peak.llm <= (w.ranks() - stage + 1) as f64, "stage {stage}: {peak:?}");
    }
}

/// The figures of DESIGN.md: no bubble at all where T_ideal is 141 and 165.
#[test]
fn the_llms_own_bubble_is_filled() {
    for (generator, bound) in [([0.0, 0.0], 120.0), ([2.0, 4.0], 144.0), ([3.0, 3.0], 144.0)] {
        let w = workload(8, 32, [1.0; 3], [2.0, 4.0], generator, 0.0);
        assert_close(work_bound(&w), bound, absolute(1e-9));
        let table = build("nested-fill", &w, &Options::default());
        validate(&table, &w, &Limits::default()).unwrap();
        assert_close(simulate(&table, &w).unwrap().time(), bound, absolute(1e-6));
        within_usual_memory(&table, &w);
    }
}

/// Whole costs of stages 1 to 4, of a microbatch's encoder and generator as given in multiples of p, split in p equal
/// items; N from 4p to 6p.
fn random_step(encoder: fn(u32) -> [RangeInclusive<u32>; 2]) -> impl Strategy<Value = Workload> {
    (2usize..=8).prop_flat_map(move |p| {
        let llm = (1u32..=4, 1u32..=4, 1u32..=4);
        let wide = p as u32;
        let generator = prop::option::of((wide..=6 * wide, 0.1..0.9f64));
        (4 * p..=6 * p, llm, encoder(wide), generator).prop_map(move |(n, (f, b, w), encoder, generator)| {
            let generator = generator.map_or([0.0; 2], |(total, part)| {
                let forward = (f64::from(total) * part).round();
                [forward, f64::from(total) - forward]
            });
            workload(p, n, [f, b, w].map(f64::from), encoder.map(f64::from), generator, 0.0)
        })
    })
}

#[test]
fn random_shapes_come_down_to_the_work_bound() {
    let mut runner = TestRunner::deterministic();
    let mut over = Vec::new();
    for _ in 0..200 {
        let w = random_step(|p| [p..=4 * p, p..=6 * p]).new_tree(&mut runner).unwrap().current();
        let table = build("nested-fill", &w, &Options::default());
        validate(&table, &w, &Limits::default()).unwrap();
        within_usual_memory(&table, &w);
        let time = simulate(&table, &w).unwrap().time();
        let nested = run("nested", &w).time();
        assert!(time <= nested + 1e-9, "{time} > nested's {nested}: {w:?}");
        let ideal = ideal_time(&w, &Options::default()).unwrap();
        assert!(time <= ideal + 1e-9, "{time} > the ideal {ideal}: {w:?}");
        over.push(time / work_bound(&w) - 1.0);
    }
    over.sort_by(f64::total_cmp);
    assert!(over[195] <= 1e-9 && over[199] <= 2e-3, "{:?}", &over[190..]);
}

/// With little to fill bubbles with, the bound is that of the chain, and most steps come near it.
#[test]
fn light_encoders_come_near_the_bound() {
    let mut runner = TestRunner::deterministic();
    let mut over: Vec<f64> = (0..60)
        .map(|_| {
            let w = random_step(|p| [1..=p, 1..=2 * p]).new_tree(&mut runner).unwrap().current();
            run("nested-fill", &w).time() / lower_bound(&w, &Limits::default()).unwrap() - 1.0
        })
        .collect();
    over.sort_by(f64::total_cmp);
    let mean = over.iter().sum::<f64>() / 60.0;
    assert!(mean < 0.0095 && over[30] < 0.001 && over[57] < 0.034, "mean {mean}, {over:?}");
}

/// Several chunks per rank: near the bound in usual memory, and no standstill where there is room for two microbatches
/// alone.
#[test]
fn chunks_run_close_together() {
    let costs = UniformCosts {
        forward: 2.0,
        backward_input: 2.0,
        backward_weight: 2.0,
        encoder_forward: 4.0,
        encoder_backward: 8.0,
        ..UniformCosts::default()
    };
    let w = Workload::uniform(4, 3, 16, 4, costs, 0.0).unwrap();
    assert_close(run("nested-fill", &w).time(), work_bound(&w), absolute(1e-6));
    let options = limited(ModuleKind::Llm, Budget::Microbatches(2.0));
    let time = simulate(&build("nested-fill", &w, &options), &w).unwrap().time();
    // Without room kept for the earliest microbatch, all that runs is one after the other, in 157.
    assert!(time < 153.0, "{time}");
}

/// Any shape with several LLM chunks on each rank.
fn chunked_workload() -> impl Strategy<Value = Workload> {
    (1usize..5, 1usize..4).prop_flat_map(|(p, v)| {
        let learns = any::<(bool, bool, bool)>();
        (any_loads(p * v), learns, time()).prop_map(move |(loads, (encoder, llm, generator), p2p)| {
            Workload::new(p, v, loads, PerModule { encoder, llm, generator }, p2p).unwrap()
        })
    })
}

/// Builds with the least budgets and up to 2 microbatches more: valid within them, lowered too, and no slower than
/// planned.
fn keeps_budgets(w: &Workload, more: PerModule<f64>) -> Result<(), TestCaseError> {
    let mut options = Options::default();
    for module in ModuleKind::ALL {
        // Asking for nothing says what is needed.
        let least = match NESTED_FILL.build(w, &limited(module, Budget::Microbatches(0.0))) {
            Err(ScheduleError::Budget { minimum: Budget::Microbatches(least), .. }) => least,
            other => {
                prop_assert!(other.is_ok(), "{:?}", other);
                0.0
            }
        };
        options.limits.budget[module] = Some(Budget::Microbatches(least + more[module]));
    }
    let room = Room::new(w, &options.limits, "nested-fill").unwrap();
    let Planned { table, time, bound } = planned(w, &room);
    prop_assert!(bound <= lower_bound(w, &options.limits).unwrap());
    prop_assert!(simulate(&table, w).unwrap().time() <= time * (1.0 + 1e-8));
    let table = build("nested-fill", w, &options);
    validate(&table, w, &options.limits).unwrap();
    let least = lower_bound(w, &options.limits).unwrap() * (1.0 - 1e-9);
    prop_assert!(simulate(&table, w).unwrap().time() >= least, "the bound {} is none", least);
    let lowered = lower(&table, w).unwrap();
    validate(&lowered, w, &options.limits).unwrap();
    prop_assert!(simulate(&lowered, w).unwrap().time() <= time * (1.0 + 1e-8));
    prop_assert_eq!(build("nested-fill", w, &options), table);
    Ok(())
}

/// Often none more than the least.
fn more() -> impl Strategy<Value = PerModule<f64>> {
    let part = || (0u32..9).prop_map(|eighths| f64::from(eighths.saturating_sub(2)) / 4.0);
    (part(), part(), part()).prop_map(|(encoder, llm, generator)| PerModule { encoder, llm, generator })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_keeps_its_budgets(w in any_workload(), more in more()) {
        keeps_budgets(&w, more)?;
    }

    #[test]
    fn chunks_keep_their_budgets(w in chunked_workload(), more in more()) {
        keeps_budgets(&w, more)?;
    }

    /// With usual memory it is never slower than `nested` is within it.
    #[test]
    fn it_is_never_slower_than_nested(w in any_workload()) {
        let (filled, nested) = (run("nested-fill", &w).time(), run("nested", &w).time());
        let room = peak_microbatches(&build("nested", &w, &Options::default()), &w);
        let fits = |(stage, peak): (usize, &PerModule<f64>)| {
            peak.encoder <= 4.0 && peak.llm <= (w.ranks() - stage + 1) as f64
        };
        prop_assert!(filled <= nested || !room.iter().enumerate().all(fits), "{} > {}", filled, nested);
    }
}

/// No order is below the bound, whoever made it: those that keep to the memory of `nested-fill` are not below its own.
#[test]
fn no_order_within_the_memory_is_below_the_bound() {
    let mut runner = TestRunner::deterministic();
    let mut seen = 0;
    for _ in 0..300 {
        let w = any_workload().new_tree(&mut runner).unwrap().current();
        for name in ["monolithic", "phased", "nested", "bubble-fill"] {
            let table = build(name, &w, &Options::default());
            let mut limits = Limits::default();
            for module in ModuleKind::ALL {
                let most = peak_microbatches(&table, &w).iter().map(|peak| peak[module]).fold(0.0, f64::max);
                limits.budget[module] = Some(Budget::Microbatches(most));
            }
            let Ok(least) = lower_bound(&w, &limits) else { continue };
            let time = simulate(&table, &w).unwrap().time();
            assert!(time >= least * (1.0 - 1e-9), "{name}: {time} < {least}: {w:?}");
            seen += 1;
        }
    }
    assert!(seen > 1000, "{seen}");
}

/// With next to nothing to fill bubbles with, the chain is the bound: p - 1 forwards until the last stage starts, all
/// its work but the 2 weight gradients that memory lets wait, p - 1 input gradients and stage 0's weight gradient.
#[test]
fn the_chain_bounds_light_encoders_and_is_reached() {
    let w = workload(7, 33, [3.0; 3], [1.0, 1.0], [0.0; 2], 0.0);
    let chain = 1.0 / 7.0 + 6.0 * 3.0 + (33.0 * 9.0 - 2.0 * 3.0) + 6.0 * 3.0 + 3.0;
    assert_close(lower_bound(&w, &Limits::default()).unwrap(), chain, absolute(1e-9));
    assert_close(run("nested-fill", &w).time(), chain, absolute(1e-6));
}

/// Half the memory takes longer, but no longer than it has to.
#[test]
fn a_tight_budget_costs_time_and_not_the_bound() {
    let w = workload(8, 32, [1.0; 3], [2.0, 4.0], [0.0; 2], 0.0);
    let time = |budget: f64| {
        let options = limited(ModuleKind::Encoder, Budget::Microbatches(budget));
        let table = build("nested-fill", &w, &options);
        let peaks = peak_microbatches(&table, &w);
        assert!(peaks.iter().all(|peak| peak.encoder <= budget), "{peaks:?}");
        simulate(&table, &w).unwrap().time()
    };
    let times = [0.125, 0.5, 1.0, 2.0, 4.0].map(time);
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    // One item per rank: one microbatch after the other through all stages and back.
    assert!(times[0] > 500.0 && times[3] < 141.0, "{times:?}");
}

#[test]
fn a_budget_below_the_least_says_what_the_least_is() {
    let w = workload(4, 8, [1.0; 3], [2.0, 4.0], [3.0, 3.0], 0.0);
    let least = PerModule { encoder: 0.25, llm: 1.0, generator: 0.25 };
    for module in ModuleKind::ALL {
        let asked = Budget::Microbatches(least[module] * 0.9);
        let minimum = Budget::Microbatches(least[module]);
        let wanted = ScheduleError::Budget { schedule: "nested-fill", module, asked, minimum };
        assert_eq!(NESTED_FILL.build(&w, &limited(module, asked)), Err(wanted));
        NESTED_FILL.build(&w, &limited(module, minimum)).unwrap();

        let (asked, minimum) = (Budget::Bytes(200), Budget::Bytes((1000.0 * least[module]) as u64));
        let wanted = ScheduleError::Budget { schedule: "nested-fill", module, asked, minimum };
        assert_eq!(NESTED_FILL.build(&w, &limited(module, asked)), Err(wanted));
        let options = limited(module, minimum);
        let table = NESTED_FILL.build(&w, &options).unwrap();
        validate(&table, &w, &options.limits).unwrap();

        let mut unknown = limited(module, asked);
        unknown.limits.microbatch_bytes[module] = None;
        let wanted = ScheduleError::UnknownSize(UnknownSize { module, budget: asked });
        assert_eq!(NESTED_FILL.build(&w, &unknown), Err(wanted));
    }
}

/// More memory for the LLM than is usual hides more of its own bubble where there is next to nothing to fill it with.
#[test]
fn an_llm_budget_above_the_usual_is_used() {
    let w = workload(8, 24, [1.0; 3], [0.0; 2], [0.0; 2], 0.0);
    let options = limited(ModuleKind::Llm, Budget::Microbatches(15.0));
    let table = build("nested-fill", &w, &options);
    let (more, usual) = (simulate(&table, &w).unwrap().time(), run("nested-fill", &w).time());
    assert!(more < usual, "{more} {usual}");
}

/// Microbatches of unequal items, some without any, on ranks of unequal speed: still little above the bound.
#[test]
fn unequal_items_and_ranks_are_balanced() {
    let mut runner = TestRunner::deterministic();
    let mut over = Vec::new();
    for _ in 0..60 {
        let loads = prop::collection::vec(uneven_load(4), 24);
        let w = loads.new_tree(&mut runner).unwrap().current();
        let w = Workload::new(4, 1, w, PerModule::all(true), 0.0).unwrap();
        let w = w.with_slowdown(vec![1.0, 1.25, 1.0, 0.75]).unwrap();
        let time = run("nested-fill", &w).time();
        over.push(time / work_bound(&w) - 1.0);
    }
    over.sort_by(f64::total_cmp);
    assert!(over[30] < 0.01 && over[57] < 0.05, "{over:?}");
}

fn uneven_load(p: usize) -> impl Strategy<Value = Load> {
    let item = (1u32..9).prop_map(f64::from);
    let items = prop::collection::vec(item, 0..8);
    items.prop_map(move |costs| {
        let encoder = costs.iter().map(|cost| crate::ItemCost { forward: *cost, backward: 2.0 * cost });
        let chunk = crate::ChunkCost::of_parts(2.0, 2.0, 2.0);
        Load { encoder: encoder.collect(), generator: Vec::new(), llm: vec![chunk; p] }
    })
}
