//! The orders over chunks that are placed as a V: golden lists, times and peaks, and every shape they have to run on.

use super::properties::{any_loads, time};
use super::torch::artifact;
use crate::check::{lower, validate};
use crate::clock::memory::peak_microbatches;
use crate::clock::{Simulation, simulate, work_bound};
use crate::files::Form;
use crate::registry::{SCHEDULES, llm_schedule, schedule};
use crate::{
    ChunkPlacement, Limits, LlmOptions, ModuleKind, Op, Options, PerModule, Phase, ScheduleError, Table,
    UniformCosts, Workload, ideal_time,
};
use bigmac_close::{absolute, assert_close};
use proptest::prelude::*;

/// The LLM alone, in a V, with F, B, W of one chunk.
fn llm(p: usize, n: usize, [f, b, w]: [f64; 3]) -> Workload {
    let costs = UniformCosts {
        forward: 2.0 * f,
        backward_input: 2.0 * b,
        backward_weight: 2.0 * w,
        ..UniformCosts::default()
    };
    Workload::uniform(p, 2, n, 1, costs, 0.0).unwrap().with_placement(ChunkPlacement::V)
}

fn build(name: &str, w: &Workload, extra_warmup: usize) -> Table {
    let options = LlmOptions { extra_warmup, group: None };
    llm_schedule(name).unwrap().build(w, options).unwrap()
}

fn order(name: &str, w: &Workload) -> Table {
    let options = Options { llm: llm_schedule(name).unwrap(), ..Options::default() };
    let table = schedule("llm").unwrap().build(w, &options).unwrap();
    validate(&table, w, &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
    table
}

/// Last end - first start of each rank.
fn costs(simulation: &Simulation) -> Vec<f64> {
    simulation.active.iter().flatten().map(|span| span.end - span.start).collect()
}

/// Most chunks of the LLM whose activations are live, by rank.
fn peaks(table: &Table, w: &Workload) -> Vec<f64> {
    peak_microbatches(table, w).iter().map(|peak| 2.0 * peak.llm).collect()
}

#[test]
fn dualpipe_v_is_torchs_order() {
    let Some(csv) = artifact("dualpipev_4rank_10mb.csv") else { return };
    let table = order("dualpipe-v", &llm(4, 10, [1.0; 3]));
    assert_eq!(Form::Csv.write(&table).unwrap(), csv.replace('\r', ""));
}

/// The lists of torch.distributed.pipelining's ScheduleZBVZeroBubble for 2 ranks and 4 microbatches, and for fewer than
/// fill the pipeline.
#[test]
fn zb_v_is_torchs_order() {
    let full = "0F0,0F1,0F2,3F0,3I0,3W0,3F1,3I1,3W1,0F3,0I0,0W0,3F2,3I2,3W2,0I1,0W1,3F3,3I3,3W3,0I2,0W2,0I3,0W3\n\
                1F0,2F0,1F1,2F1,2I0,2W0,1F2,1I0,1W0,2F2,2I1,2W1,1F3,1I1,1W1,2F3,2I2,2W2,1I2,2I3,1I3,1W2,2W3,1W3\n";
    assert_eq!(Form::Csv.write(&order("zb-v", &llm(2, 4, [1.0; 3]))).unwrap(), full);
    let one = "0F0,3F0,3I0,3W0,0I0,0W0\n1F0,2F0,2I0,2W0,1I0,1W0\n";
    assert_eq!(Form::Csv.write(&order("zb-v", &llm(2, 1, [1.0; 3]))).unwrap(), one);
}

#[test]
fn zb_v_has_no_bubble_in_the_memory_of_1f1b() {
    for p in 1..=9 {
        for n in (2 * p..2 * p + 5).chain([5 * p]) {
            let w = llm(p, n, [1.0; 3]);
            let table = order("zb-v", &w);
            let simulation = simulate(&table, &w).unwrap();
            for cost in costs(&simulation) {
                assert_close(cost, 6.0 * n as f64, absolute(1e-9));
            }
            assert_close(simulation.time(), 6.0 * n as f64 + (p - 1) as f64, absolute(1e-9));
            assert_eq!(peaks(&table, &w), vec![2.0 * p as f64; p], "p={p} n={n}");
        }
    }
}

/// (PP / 2 - 1)(F&B + B - 3 W) with PP = 2 p stages, F&B the time of an overlapped pair and B that of a whole backward:
/// how long the rank that works least is idle. Ranks nearer to the V's bottom have more pairs, so less to do.
#[test]
fn dualpipe_v_has_its_published_bubble_and_peak() {
    for p in 2..=8 {
        for n in [2 * p, 2 * p + 1, 3 * p + 2, 6 * p] {
            for (overlap, [f, b, w]) in
                [(0.0, [1.0; 3]), (1.0, [1.0; 3]), (0.5, [2.0, 2.0, 1.0]), (1.0, [4.0, 4.0, 3.0])]
            {
                let shape = llm(p, n, [f, b, w]).with_overlap(overlap).unwrap();
                let table = order("dualpipe-v", &shape);
                let simulation = simulate(&table, &shape).unwrap();
                let pair = f.max(b + w) + (1.0 - overlap) * f.min(b + w);
                let least = simulation.busy.iter().copied().fold(f64::INFINITY, f64::min);
                let bubble = (p - 1) as f64 * (pair + b + w - 3.0 * w);
                assert_close(simulation.time() - least, bubble, absolute(1e-9));
                assert!(simulation.time() >= work_bound(&shape) - 1e-9);
                assert_eq!(peaks(&table, &shape), vec![(2 * p + 1) as f64; p], "p={p} n={n}");
            }
        }
    }
}

#[test]
fn v_orders_refuse_what_they_are_not_for() {
    for name in ["zb-v", "dualpipe-v"] {
        let schedule = llm_schedule(name).unwrap();
        for chunks in [1, 3] {
            let w = Workload::uniform(2, chunks, 8, 1, UniformCosts::default(), 0.0).unwrap();
            let w = w.with_placement(ChunkPlacement::V);
            let error = schedule.build(&w, LlmOptions::default()).unwrap_err();
            assert_eq!(error, ScheduleError::Chunks { schedule: name, wanted: 2, chunks });
            assert!(
                error.to_string().contains("runs 2 LLM chunks per rank, but the workload has"),
                "{error}"
            );
        }
        let looped = Workload::uniform(2, 2, 8, 1, UniformCosts::default(), 0.0).unwrap();
        let error = schedule.build(&looped, LlmOptions::default()).unwrap_err().to_string();
        assert!(error.contains("placed as V"), "{error}");
    }
    let error = schedule("llm").unwrap().build(&llm(2, 4, [1.0; 3]), &Options::default()).unwrap_err();
    assert!(matches!(error, ScheduleError::Chunks { wanted: 1, .. }), "{error}");
    let interleaved = llm_schedule("interleaved").unwrap();
    let error = interleaved.build(&llm(2, 4, [1.0; 3]), LlmOptions::default()).unwrap_err().to_string();
    assert!(error.contains("placed as Loop"), "{error}");
    let error = llm_schedule("dualpipe-v").unwrap().build(&llm(4, 7, [1.0; 3]), LlmOptions::default());
    assert_eq!(
        error.unwrap_err().to_string(),
        "the LLM schedule 'dualpipe-v' needs at least 8 microbatches on 4 ranks, but the step has 7"
    );
}

/// Any number of ranks and microbatches, any extra warm-up, anything frozen: every table is complete and runs.
#[test]
fn v_orders_run_on_every_shape() {
    for p in 1..=6 {
        for n in 1..=3 * p + 2 {
            for (llm_learns, encoder_learns) in [(true, true), (false, true), (false, false)] {
                let learns = PerModule { llm: llm_learns, encoder: encoder_learns, generator: true };
                let w = mixed(p, n).with_learns(learns);
                for name in ["zb-v", "dualpipe-v"] {
                    if name == "dualpipe-v" && n < 2 * p {
                        continue;
                    }
                    for extra in [0, 1, 2, 3, 7, 2 * n] {
                        let table = build(name, &w, extra).with_step();
                        let alone = w.llm_only();
                        let what = format!("{name} p={p} n={n} {learns:?} extra={extra}");
                        // A text-only microbatch has no backward where the LLM is frozen, so not all units are alike.
                        let backwards = table.iter().flat_map(|(_, op)| op.runs()).filter(|(unit, phase)| {
                            assert!(
                                w.goes_backward(unit.module, unit.microbatch()) || *phase == Phase::Forward
                            );
                            matches!(phase, Phase::Backward | Phase::BackwardInput)
                        });
                        let wanted = w.microbatches().filter(|m| w.has_backward(ModuleKind::Llm, *m)).count();
                        assert_eq!(backwards.count(), 2 * p * wanted, "{what}");
                        let simulation = simulate(&table, &alone);
                        assert!(simulation.is_ok(), "{what}: {}", simulation.unwrap_err());
                    }
                    order(name, &w.llm_only());
                }
            }
        }
    }
}

/// Every other microbatch has an image.
fn mixed(p: usize, n: usize) -> Workload {
    let costs = UniformCosts {
        forward: 2.0,
        backward_input: 3.0,
        backward_weight: 1.0,
        encoder_forward: 1.0,
        ..UniformCosts::default()
    };
    let w = Workload::uniform(p, 2, n, 1, costs, 0.5).unwrap();
    let mut loads = w.loads().to_vec();
    loads.iter_mut().skip(1).step_by(2).for_each(|load| load.encoder.clear());
    let w = Workload::new(p, 2, loads, PerModule::all(true), 0.5).unwrap();
    w.with_placement(ChunkPlacement::V)
}

#[test]
fn extra_warmup_runs_that_many_more_forwards_before_the_first_backward() {
    for name in ["zb-v", "dualpipe-v"] {
        let w = llm(3, 12, [1.0; 3]);
        let ahead = |extra| -> Vec<usize> {
            let is_forward = |op: &&Op| op.runs().all(|(_, phase)| phase == Phase::Forward);
            build(name, &w, extra).ranks.iter().map(|ops| ops.iter().take_while(is_forward).count()).collect()
        };
        let wanted: Vec<usize> = ahead(0).iter().map(|forwards| forwards + 2).collect();
        assert_eq!(ahead(2), wanted, "{name}");
        let overlaps =
            |extra| build(name, &w, extra).iter().filter(|(_, op)| matches!(op, Op::Overlap { .. })).count();
        assert!(overlaps(2) > 0 || name == "zb-v", "{}", build(name, &w, 2));
    }
}

/// Slots go into these orders as into any: without drawings nested takes no longer than T_ideal. With them it needs more
/// warm-up, which costs these orders up to p forwards of a chunk, and the overlaps that it takes apart.
#[test]
fn encoder_and_generator_nest_in_a_v() {
    for (p, n) in [(1, 3), (2, 4), (2, 7), (3, 6), (4, 8), (4, 13), (6, 24)] {
        for (drawn, overlap) in [(0.0, 0.0), (0.0, 0.6), (1.0, 0.0), (1.0, 0.6)] {
            let each = p as f64;
            let costs = UniformCosts {
                backward: None,
                forward: 2.0,
                backward_input: 2.0,
                backward_weight: 2.0,
                encoder_forward: each,
                encoder_backward: 2.0 * each,
                generator_forward: drawn * each,
                generator_backward: drawn * 2.0 * each,
            };
            let w = Workload::uniform(p, 2, n, p, costs, 0.0).unwrap().with_overlap(overlap).unwrap();
            for name in ["zb-v", "dualpipe-v"] {
                let options = Options { llm: llm_schedule(name).unwrap(), ..Options::default() };
                let ideal = ideal_time(&w, &options).unwrap();
                let time = |whole: &str| {
                    let whole = schedule(whole).unwrap();
                    let w = whole.workload(&w, options.llm);
                    simulate(&whole.build(&w, &options).unwrap(), &w).unwrap().time()
                };
                let (nested, phased) = (time("nested"), time("phased"));
                let what = format!("{name} p={p} n={n} drawn={drawn} overlap={overlap}: {nested}, {ideal}");
                if drawn == 0.0 {
                    assert_close(phased, ideal, absolute(1e-9));
                    assert!(nested <= ideal + 1e-9, "{what}");
                } else if overlap == 0.0 {
                    assert!(nested <= ideal + each + 1e-9, "{what}");
                }
                assert!(time("nested-fill") <= nested + 1e-9, "{what}");
            }
        }
    }
}

/// Any costs in a V, any microbatches, frozen modules, communication that is not free, ranks of unequal speed.
fn any_v() -> impl Strategy<Value = Workload> {
    let speeds = |p| prop::collection::vec((1u32..5).prop_map(|half| f64::from(half) / 2.0), p);
    (1usize..5).prop_flat_map(move |p| {
        let learns = any::<(bool, bool, bool)>();
        (any_loads(2 * p), learns, time(), speeds(p), 0u32..=4).prop_map(
            move |(loads, (encoder, llm, generator), p2p, speeds, overlap)| {
                let w = Workload::new(p, 2, loads, PerModule { encoder, llm, generator }, p2p).unwrap();
                w.with_slowdown(speeds).unwrap().with_overlap(f64::from(overlap) / 4.0).unwrap()
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_schedule_is_valid_and_runs_lowered_in_a_v(given in any_v(), group in 1usize..5) {
        for name in ["zb-v", "dualpipe-v"] {
            let llm = llm_schedule(name).unwrap();
            let options = Options { llm, group: Some(group), ..Options::default() };
            for whole in SCHEDULES {
                let w = whole.workload(&given, llm);
                let table = match whole.build(&w, &options) {
                    Err(error) if error.is_about_the_layout() => continue,
                    table => table.unwrap(),
                };
                validate(&table, &w, &Limits::default()).unwrap();
                let lowered = lower(&table, &w).unwrap();
                validate(&lowered, &w, &Limits::default()).unwrap();
                let (plain, with_sends) = (simulate(&table, &w).unwrap(), simulate(&lowered, &w).unwrap());
                prop_assert_eq!(plain.time(), with_sends.time());
                prop_assert!(plain.time() >= work_bound(&w) - 1e-9, "{} over {name}", whole.name());
                prop_assert_eq!(lowered.to_string().parse::<Table>().unwrap(), lowered);
                // As an executor with one stream runs it.
                let apart = table.without_overlaps();
                validate(&apart, &w, &Limits::default()).unwrap();
                validate(&lower(&apart, &w).unwrap(), &w, &Limits::default()).unwrap();
            }
        }
    }
}
