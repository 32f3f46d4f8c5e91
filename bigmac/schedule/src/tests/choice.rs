//! What `nested` chooses by itself.

use super::{build, workload};
use crate::clock::memory::peak_microbatches;
use crate::clock::simulate;
use crate::registry::schedule;
use crate::{
    Budget, ChunkCost, ItemCost, Limits, Load, Options, PerModule, ScheduleError, Workload, ideal_time,
};
use bigmac_close::{absolute, assert_close};
use proptest::prelude::*;

fn time(options: &Options, w: &Workload) -> f64 {
    simulate(&build("nested", w, options), w).unwrap().time()
}

/// `n` microbatches of one image each.
fn one_image_each(p: usize, n: usize) -> Workload {
    let chunk = ChunkCost::of_parts(2.0, 2.0, 2.0);
    let encoder = vec![ItemCost { forward: 1.0, backward: 2.0 }];
    let load = Load { encoder, generator: Vec::new(), llm: vec![chunk; p] };
    Workload::new(p, 1, vec![load; n], PerModule::all(true), 0.0).unwrap()
}

#[test]
fn microbatches_with_few_items_share_a_slot() {
    let w = one_image_each(4, 16);
    let alone = time(&Options { group: Some(1), ..Options::default() }, &w);
    let chosen = time(&Options::default(), &w);
    assert!(chosen <= ideal_time(&w, &Options::default()).unwrap() + 1e-9, "{chosen}");
    assert!(chosen < alone, "{chosen} {alone}");
}

/// How many images and drawings a microbatch has: a third none, others by a law with a heavy tail.
fn heavy_tailed(uniform: f64, text_only: bool) -> usize {
    if text_only { 0 } else { (1.0 - uniform).powf(-1.0 / 1.3).min(32.0) as usize }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the microbatches hold: nearly what a run with unlimited memory takes, in memory that does not grow.
    #[test]
    fn uneven_microbatches_flow_through_the_slots(
        p in 2usize..9,
        draws in prop::collection::vec((0.0..1.0f64, 0u8..3), 24..100),
        encoder in 1u32..5, generator in 0u32..3,
    ) {
        let counts: Vec<usize> = draws.iter().map(|(u, kind)| heavy_tailed(*u, *kind == 0)).collect();
        prop_assume!(counts.iter().any(|count| *count > 0));
        let item = |cost: u32| ItemCost { forward: f64::from(cost), backward: 2.0 * f64::from(cost) };
        let chunk = ChunkCost::of_parts(3.0, 3.0, 3.0);
        let loads = counts.iter().map(|count| Load {
            encoder: vec![item(encoder); *count],
            generator: vec![item(generator); if generator > 0 { *count } else { 0 }],
            llm: vec![chunk; p],
        });
        let w = Workload::new(p, 1, loads.collect(), PerModule::all(true), 0.0).unwrap();
        let options = Options::default();
        let table = build("nested", &w, &options);
        let (time, ideal) = (simulate(&table, &w).unwrap().time(), ideal_time(&w, &options).unwrap());
        // Drawings have to wait for the LLM and the LLM for them: they cannot always be shared out evenly in between.
        let most = if generator == 0 { 1.0 + 1e-9 } else { 1.1 };
        prop_assert!(time <= most * ideal, "{time} > {most} x {ideal}");
        let encoder = peak_microbatches(&table, &w).iter().map(|peak| peak.encoder).fold(0.0, f64::max);
        prop_assert!(generator > 0 || encoder <= 6.0, "{encoder}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// Communication that costs a twentieth of F on every edge.
    #[test]
    fn communication_is_hidden(
        p in 2usize..9, more in 0usize..25, forward in 1u32..9, backward in 1u32..9, weight in 0u32..9,
        encoder in (0u32..12, 0u32..12), generator in (0u32..12, 0u32..12),
    ) {
        let pair = |pair: (u32, u32)| [f64::from(pair.0) * p as f64, f64::from(pair.1) * p as f64];
        let llm = [f64::from(forward), f64::from(backward), f64::from(weight)];
        prop_assume!(2.0 * (llm[1] + llm[2]) >= llm[0] && llm[1] + llm[2] <= 4.0 * llm[0]);
        let w = workload(p, p + more, llm, pair(encoder), pair(generator), 0.05 * llm[0]);
        let options = Options::default();
        let table = build("nested", &w, &options);
        let (time, ideal) = (simulate(&table, &w).unwrap().time(), ideal_time(&w, &options).unwrap());
        prop_assert!(time <= 1.01 * ideal, "{time} > 1.01 x {ideal}");
        for (stage, peak) in peak_microbatches(&table, &w).iter().enumerate() {
            prop_assert!(peak.llm <= (p - stage + 2) as f64, "stage {stage}: {peak:?}");
        }
    }
}

#[test]
fn budgets_are_kept_or_the_least_is_named() {
    let limits =
        |encoder, llm| Limits { budget: PerModule { encoder, llm, generator: None }, ..Limits::default() };
    let w = workload(4, 16, [1.0; 3], [2.0, 4.0], [2.0, 4.0], 0.0);
    let peaks = |options: &Options| {
        let peaks = peak_microbatches(&build("nested", &w, options), &w);
        let most = |of: fn(&PerModule<f64>) -> f64| peaks.iter().map(of).fold(0.0, f64::max);
        (most(|peak| peak.encoder), most(|peak| peak.llm))
    };
    let (encoder, llm) = peaks(&Options::default());
    assert_close(llm, 5.0, absolute(0.0));
    // One microbatch less of the LLM is possible, for more time.
    let tight = Options { limits: limits(None, Some(Budget::Microbatches(4.0))), ..Options::default() };
    assert_close(peaks(&tight).1, 4.0, absolute(0.0));
    assert!(time(&tight, &w) > time(&Options::default(), &w));
    let build = |limits| schedule("nested").unwrap().build(&w, &Options { limits, ..Options::default() });
    let error = build(limits(Some(Budget::Microbatches(0.5)), None)).unwrap_err();
    let ScheduleError::Budget { minimum: Budget::Microbatches(minimum), .. } = &error else {
        panic!("{error}")
    };
    assert!(*minimum <= encoder, "{minimum} {encoder}");
    build(limits(Some(Budget::Microbatches(*minimum)), None)).unwrap();
    assert_eq!(Budget::Microbatches(0.125 - 6e-17).to_string(), "0.125mb");
    let bytes = Limits {
        budget: PerModule { encoder: Some(Budget::Bytes(100)), ..PerModule::default() },
        microbatch_bytes: PerModule { encoder: Some(1000), ..PerModule::default() },
    };
    let text = build(bytes).unwrap_err().to_string();
    assert!(text.contains("within 100B") && text.contains("at least 1"), "{text}");
    let unknown = Limits { microbatch_bytes: PerModule::default(), ..bytes };
    assert!(matches!(build(unknown), Err(ScheduleError::UnknownSize(_))));
}
