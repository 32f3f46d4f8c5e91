//! Backwards that run whole where others run in parts: what they cost, and which `nested-fill` chooses.

use super::properties::any_workload;
use super::{build, run, workload};
use crate::check::validate;
use crate::clock::{simulate, work_bound};
use crate::schedules::nested_fill::{Room, planned};
use crate::{
    ChunkCost, Limits, Load, Module, Op, Options, PerModule, Phase, Table, Work, Workload, lower_bound,
};
use bigmac_close::{absolute, assert_close};
use proptest::prelude::*;

/// The same step where a whole backward takes this share of B + W.
fn with_wholes(w: &Workload, share: f64) -> Workload {
    let chunk = |c: &ChunkCost| ChunkCost { backward: share * (c.backward_input + c.backward_weight), ..*c };
    let load = |load: &Load| Load { llm: load.llm.iter().map(chunk).collect(), ..load.clone() };
    let loads = w.loads().iter().map(load).collect();
    Workload::new(w.ranks(), w.chunks_per_rank(), loads, w.learns(), w.link().latency).unwrap()
}

/// The microbatches of LLM ops of a phase.
fn microbatches(table: &Table, of: Phase) -> Vec<usize> {
    let llm = |op: &Op| match op {
        Op::Compute { module: Module::Llm(_), phase, work: Work::Microbatch(m) } if *phase == of => Some(m.0),
        _ => None,
    };
    table.iter().filter_map(|(_, op)| llm(op)).collect()
}

#[test]
fn orders_of_whole_backwards_pay_for_whole_ones() {
    let w = workload(4, 8, [1.0; 3], [0.0; 2], [0.0; 2], 0.0);
    for (share, round) in [(1.0, 3.0), (0.75, 2.5)] {
        let w = with_wholes(&w, share);
        assert_close(run("nested", &w).time(), (8.0 + 3.0) * round, absolute(1e-9));
        assert_close(work_bound(&w), 8.0 * round, absolute(1e-9));
        // Parts cost what they did.
        let split = Options { llm: crate::registry::llm_schedule("zb-h1").unwrap(), ..Options::default() };
        assert_close(simulate(&build("nested", &w, &split), &w).unwrap().time(), 27.0, absolute(1e-9));
    }
    // A frozen LLM has no other backward than B.
    let frozen = PerModule { encoder: true, llm: false, generator: true };
    let load =
        Load { encoder: vec![crate::ItemCost { forward: 1.0, backward: 1.0 }], ..w.loads()[0].clone() };
    let frozen = Workload::new(4, 1, vec![load; 8], frozen, 0.0).unwrap();
    assert_eq!(run("monolithic", &frozen), run("monolithic", &with_wholes(&frozen, 0.75)));
    // What takes longer in one op is counted in parts.
    assert_close(work_bound(&with_wholes(&w, 2.0)), 24.0, absolute(1e-9));
}

/// Enough to fill all bubbles with, and no backward is in parts; less, and the last ones are.
#[test]
fn parts_are_for_the_end_of_the_step() {
    let heavy = with_wholes(&workload(4, 16, [2.0; 3], [12.0, 24.0], [0.0; 2], 0.0), 0.9);
    let table = build("nested-fill", &heavy, &Options::default());
    assert_eq!(microbatches(&table, Phase::BackwardWeight), [0; 0]);
    assert_close(simulate(&table, &heavy).unwrap().time(), work_bound(&heavy), absolute(1e-9));
    let light = with_wholes(&workload(4, 16, [3.0; 3], [4.0, 4.0], [0.0; 2], 0.0), 0.9);
    let table = build("nested-fill", &light, &Options::default());
    let parts = microbatches(&table, Phase::BackwardWeight);
    assert!(!parts.is_empty() && parts.iter().all(|m| *m >= 12), "{parts:?}");
    assert_eq!(microbatches(&table, Phase::Backward).len() + parts.len(), 4 * 16);
}

/// Where whole backwards gain nothing they are preferred all the same: fewer ops that free activations earlier.
#[test]
fn backwards_are_whole_where_it_costs_nothing() {
    let w = workload(8, 40, [3.0, 2.0, 4.0], [24.0, 44.0], [0.0; 2], 0.0);
    let table = build("nested-fill", &w, &Options::default());
    assert_close(simulate(&table, &w).unwrap().time(), work_bound(&w), absolute(1e-9));
    // With all of them in parts it takes as long, with 320 of them.
    assert_eq!(microbatches(&table, Phase::BackwardWeight), [0; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Shorter wholes make hardly a step longer (as greedy plans can get), and none less than the bound; what is planned
    /// is what runs.
    #[test]
    fn shorter_wholes_make_steps_no_longer(w in any_workload()) {
        let limits = Limits::default();
        let time = |share: f64| {
            let w = with_wholes(&w, share);
            let planned = planned(&w, &Room::new(&w, &limits, "nested-fill").unwrap());
            validate(&planned.table, &w, &limits).unwrap();
            let time = simulate(&planned.table, &w).unwrap().time();
            assert!(time <= planned.time * (1.0 + 1e-8), "{time} {}", planned.time);
            assert!(time >= lower_bound(&w, &limits).unwrap() * (1.0 - 1e-9));
            time
        };
        let (parts, wholes) = (time(1.0), time(0.9));
        prop_assert!(wholes <= parts * 1.02, "{} {}", wholes, parts);
    }
}

/// The mean of 24 steps above the work bound of whole backwards, a tenth shorter than their parts: 1.020, where it is
/// 1.046 with all of them in parts, and 1.044 where these are only joined again.
#[test]
fn steps_gain_most_of_what_whole_backwards_save() {
    let mut over = Vec::new();
    for (p, n, llm, encoder) in [
        (2, 5, [2.0, 2.0, 2.0], [7.0, 9.0]),
        (2, 9, [4.0, 3.0, 4.0], [2.0, 1.0]),
        (4, 10, [3.0, 4.0, 3.0], [15.0, 24.0]),
        (4, 19, [3.0, 2.0, 3.0], [4.0, 3.0]),
        (4, 9, [4.0, 2.0, 4.0], [14.0, 19.0]),
        (8, 34, [3.0, 3.0, 3.0], [11.0, 12.0]),
        (8, 40, [4.0, 2.0, 2.0], [8.0, 2.0]),
        (8, 40, [3.0, 2.0, 4.0], [24.0, 44.0]),
    ] {
        let w = with_wholes(&workload(p, n, llm, encoder, [0.0; 2], 0.0), 0.9);
        let time = run("nested-fill", &w).time();
        let nested = run("nested", &w).time();
        assert!(time <= nested, "{time} > nested's {nested}: p={p} N={n} {llm:?} {encoder:?}");
        over.push(time / work_bound(&w) - 1.0);
    }
    let mean = over.iter().sum::<f64>() / over.len() as f64;
    assert!(mean < 0.01, "mean {mean}: {over:?}");
}
