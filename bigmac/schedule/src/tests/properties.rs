//! What holds for every schedule on every shape.

use super::{build, names, workload};
use crate::check::{lower, validate};
use crate::clock::memory::peak_microbatches;
use crate::clock::{simulate, work_bound};
use crate::registry::schedule;
use crate::{ChunkCost, ItemCost, Limits, Load, Options, PerModule, Table, Workload, ideal_time};
use proptest::prelude::*;

/// A time that may be 0, is often like others, and is a whole number of quarters.
pub(super) fn time() -> impl Strategy<Value = f64> {
    (0u32..24).prop_map(|quarters| f64::from(quarters) / 4.0)
}

fn item() -> impl Strategy<Value = ItemCost> {
    (time(), time()).prop_map(|(forward, backward)| ItemCost { forward, backward })
}

fn chunk() -> impl Strategy<Value = ChunkCost> {
    // A whole backward as long as its parts, or a bit less.
    let times = (time(), time(), time(), 0u32..4);
    times.prop_map(|(forward, input, weight, less)| {
        let parts = ChunkCost::of_parts(forward, input, weight);
        ChunkCost { backward: parts.backward * (1.0 - 0.125 * f64::from(less / 2)), ..parts }
    })
}

/// Some microbatches with any items, and costs for that many LLM chunks.
pub(super) fn any_loads(chunks: usize) -> impl Strategy<Value = Vec<Load>> {
    let items = || prop::collection::vec(item(), 0..5);
    let load = (items(), items(), prop::collection::vec(chunk(), chunks));
    let load = load.prop_map(|(encoder, generator, llm)| Load { encoder, generator, llm });
    prop::collection::vec(load, 1..10)
}

/// Any shape: microbatches without images, without drawings, with neither; N below, above and not a multiple of p;
/// anything frozen; costs of 0; communication that is not free; ranks of unequal speed.
pub(crate) fn any_workload() -> impl Strategy<Value = Workload> {
    let speeds = |p| prop::collection::vec((1u32..5).prop_map(|half| f64::from(half) / 2.0), p);
    (1usize..6).prop_flat_map(move |p| {
        let learns = any::<(bool, bool, bool)>();
        (any_loads(p), learns, time(), speeds(p)).prop_map(
            move |(loads, (encoder, llm, generator), p2p, speeds)| {
                let learns = PerModule { encoder, llm, generator };
                Workload::new(p, 1, loads, learns, p2p).unwrap().with_slowdown(speeds).unwrap()
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_schedule_is_valid_and_runs_lowered(w in any_workload(), group in 1usize..5) {
        let options = Options { group: Some(group), ..Options::default() };
        for name in names() {
            let w = schedule(name).unwrap().workload(&w, Options::default().llm);
            let table = build(name, &w, &options);
            validate(&table, &w, &Limits::default()).unwrap();
            let lowered = lower(&table, &w).unwrap();
            validate(&lowered, &w, &Limits::default()).unwrap();
            let (plain, with_sends) = (simulate(&table, &w).unwrap(), simulate(&lowered, &w).unwrap());
            prop_assert_eq!(plain.time(), with_sends.time());
            prop_assert_eq!(&plain.active, &with_sends.active);
            prop_assert!(plain.time() >= work_bound(&w) - 1e-9);
            prop_assert_eq!(lowered.to_string().parse::<Table>().unwrap(), lowered);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The claims of the nested schedule, for equal items, free communication and N >= p.
    #[test]
    fn nested_is_no_slower_than_the_ideal_in_constant_memory(
        p in 1usize..9,
        more in 0usize..20,
        forward in 1u32..9,
        ratio in 0.0..1.0f64,
        split in 0.0..1.0f64,
        encoder in (0u32..20, 0u32..20),
        generator in (0u32..20, 0u32..20),
    ) {
        let n = p + more;
        // Whole B + W from F / 2 to 4 F.
        let (least, most) = (forward.div_ceil(2), 4 * forward);
        let backward = least + (ratio * f64::from(most - least)).round() as u32;
        let input = (split * f64::from(backward)).round();
        let llm = [f64::from(forward), input, f64::from(backward) - input];
        let pair = |pair: (u32, u32)| [f64::from(pair.0) * p as f64, f64::from(pair.1) * p as f64];
        let w = workload(p, n, llm, pair(encoder), pair(generator), 0.0);
        let options = Options::default();
        let table = build("nested", &w, &options);
        let (time, ideal) = (simulate(&table, &w).unwrap().time(), ideal_time(&w, &options).unwrap());
        prop_assert!(time <= ideal + 1e-9, "{time} > {ideal}");
        let draws = usize::from(generator != (0, 0));
        for (stage, peak) in peak_microbatches(&table, &w).iter().enumerate() {
            prop_assert!(peak.encoder <= 2.0 && peak.generator <= 1.0, "stage {stage}: {peak:?}");
            prop_assert!(peak.llm <= n.min(p - stage + draws) as f64, "stage {stage}: {peak:?}");
        }
    }

    /// Groups keep the claims: slots of g microbatches, g more of the LLM.
    #[test]
    fn groups_cost_memory_in_proportion(
        p in 1usize..7, n in 1usize..25, group in 1usize..6, items in 1usize..4, drawn in any::<bool>(),
    ) {
        let chunk = ChunkCost::of_parts(2.0, 2.0, 2.0);
        let encoder = vec![ItemCost { forward: 1.0, backward: 2.0 }; items];
        let generator = if drawn { encoder.clone() } else { Vec::new() };
        let load = Load { encoder, generator, llm: vec![chunk; p] };
        let w = Workload::new(p, 1, vec![load; n], PerModule::all(true), 0.0).unwrap();
        let options = Options { group: Some(group), ..Options::default() };
        let table = build("nested", &w, &options);
        let (time, ideal) = (simulate(&table, &w).unwrap().time(), ideal_time(&w, &options).unwrap());
        prop_assert!(time <= ideal + 1e-9, "{time} > {ideal}");
        for (stage, peak) in peak_microbatches(&table, &w).iter().enumerate() {
            let extra = if drawn { group } else { 0 };
            prop_assert!(peak.llm <= n.min(p - stage + extra) as f64, "stage {stage}: {peak:?}");
        }
    }
}

/// Round trips of words that no schedule writes.
#[test]
fn every_kind_of_op_round_trips() {
    let text = "rank 0: E3R[12.0,3.4] E0I[0.0] G1W[0.1] L7R12 L0I3 L0W3 send:embeds(1.2)>3 recv:embed_grad(1.2)<3 \
                send:cond(0.1)>2 recv:cond_grad(0.1)<2 send:hidden(1,2)>0 recv:hidden_grad(1,2)<0 step\nrank 1:\n";
    assert_eq!(text.parse::<Table>().unwrap().to_string(), text);
}
