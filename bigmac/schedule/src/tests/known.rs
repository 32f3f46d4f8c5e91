//! Numbers from the literature and from closed forms.

use super::{build, run, workload};
use crate::clock::memory::{peak_bytes, peak_microbatches, plan_buffers};
use crate::clock::{simulate, work_bound};
use crate::registry::{llm_schedule, schedule};
use crate::{Budget, ChunkCost, ItemCost, Load, ModuleKind, Options, PerModule, Workload, ideal_time};
use bigmac_close::{absolute, assert_close};

const NONE: [f64; 2] = [0.0, 0.0];

#[test]
fn one_f_one_b_takes_n_plus_p_minus_1_rounds() {
    for (p, n, time) in [(2, 4, 15.0), (4, 8, 33.0), (8, 24, 93.0)] {
        assert_close(
            run("llm", &workload(p, n, [1.0, 1.0, 1.0], NONE, NONE, 0.0)).time(),
            time,
            absolute(0.0),
        );
    }
}

#[test]
fn latency_costs_one_f_one_b_what_its_closed_form_says() {
    for (p, n) in [(2, 4), (4, 8), (4, 16), (8, 24), (8, 32)] {
        let c = 0.125;
        let rounds = (n + p - 1) as f64 * 3.0;
        let crossings = 2.0 * (p - 1) as f64 * n as f64 / p as f64 + 2.0 * (p - 2) as f64;
        assert_close(
            run("llm", &workload(p, n, [1.0, 1.0, 1.0], NONE, NONE, c)).time(),
            rounds + c * crossings,
            absolute(1e-9),
        );
    }
}

#[test]
fn baselines_take_their_known_times() {
    let w = workload(4, 16, [1.0, 1.0, 1.0], [2.0, 4.0], NONE, 0.0);
    assert_close(run("monolithic", &w).time(), 144.0, absolute(0.0));
    assert_close(run("phased", &w).time(), 81.0, absolute(0.0));
    assert_close(ideal_time(&w, &Options::default()).unwrap(), 81.0, absolute(1e-9));
    assert_close(work_bound(&w), 72.0, absolute(1e-9));
    assert!(run("nested", &w).time() <= 81.0);
}

#[test]
fn ideal_and_bound_follow_their_formulas() {
    let (p, n) = (8.0, 32.0);
    let w = workload(8, 32, [1.0, 1.0, 1.0], [2.0, 4.0], [2.0, 4.0], 0.0);
    assert_close(
        ideal_time(&w, &Options::default()).unwrap(),
        n * 3.0 + (p - 1.0) * 3.0 + n * 12.0 / p,
        absolute(1e-9),
    );
    assert_close(work_bound(&w), n * 3.0 + n * 12.0 / p, absolute(1e-9));
}

#[test]
fn the_bound_keeps_a_ranks_own_work_on_it() {
    // Rank 1 has 10 of LLM work; the items fit beside rank 0's 2.
    let chunk = |time| ChunkCost::of_parts(time, 0.0, 0.0);
    let load = Load {
        encoder: vec![ItemCost { forward: 1.0, backward: 2.0 }],
        generator: Vec::new(),
        llm: vec![chunk(2.0), chunk(10.0)],
    };
    let w = Workload::new(2, 1, vec![load], PerModule::all(true), 0.0).unwrap();
    assert_close(work_bound(&w), 10.0, absolute(0.0));
    let slow = w.with_slowdown(vec![10.0, 1.0]).unwrap();
    assert_close(work_bound(&slow), 20.0, absolute(0.0));
}

#[test]
fn monolithic_peaks_p_on_stage_0_and_costs_its_closed_form() {
    for (p, n, [f, b, w], [ef, eb]) in [
        (4, 16, [1.0, 1.0, 1.0], [2.0, 4.0]),
        (3, 9, [2.0, 3.0, 1.0], [1.0, 1.0]),
        (5, 7, [1.0, 2.0, 1.0], [9.0, 1.0]),
    ] {
        let shape = workload(p, n, [f, b, w], [ef, eb], NONE, 0.0);
        let (r, f0, b0): (f64, f64, f64) = (f + b + w, f + ef, b + w + eb);
        let time = (n - p + 1) as f64 * (f0 + b0) + (p - 1) as f64 * (f0.max(r) + b0.max(r));
        assert_close(run("monolithic", &shape).time(), time, absolute(1e-9));
        let peaks = peak_microbatches(&build("monolithic", &shape, &Options::default()), &shape);
        assert_close(peaks[0].encoder, p as f64, absolute(0.0));
        assert!(peaks[1..].iter().all(|peak| peak.encoder == 0.0));
    }
}

#[test]
fn peaks_are_those_of_the_orders() {
    let (p, n) = (4, 16);
    let peaks = |name, w: &Workload| peak_microbatches(&build(name, w, &Options::default()), w);
    let w = workload(p, n, [1.0, 1.0, 1.0], [2.0, 4.0], NONE, 0.0);
    for (stage, peak) in peaks("nested", &w).iter().enumerate() {
        assert_eq!(peak.llm, (p - stage) as f64);
        assert!(peak.encoder <= 2.0 && peak.generator == 0.0, "{peak:?}");
    }
    assert!(peaks("phased", &w).iter().all(|peak| peak.encoder == (n / p) as f64));
    let w = workload(p, n, [1.0, 1.0, 1.0], [2.0, 4.0], [2.0, 4.0], 0.0);
    for (stage, peak) in peaks("nested", &w).iter().enumerate() {
        assert_eq!(peak.llm, (p - stage + 1) as f64);
        assert!(peak.encoder <= 2.0 && peak.generator <= 1.0, "{peak:?}");
    }
    let phased = peaks("phased", &w);
    assert!(phased.iter().all(|peak| peak.llm == n as f64 && peak.generator == 0.25), "{phased:?}");
}

#[test]
fn nested_beats_the_ideal_where_a_slot_has_one_item() {
    // One image per microbatch: slots are as long as it, but ranks take turns.
    let chunk = ChunkCost::of_parts(1.0, 1.0, 1.0);
    let load = Load {
        encoder: vec![ItemCost { forward: 1.0, backward: 2.0 }],
        generator: Vec::new(),
        llm: vec![chunk; 4],
    };
    let w = Workload::new(4, 1, vec![load; 16], PerModule::all(true), 0.0).unwrap();
    let table = build("nested", &w, &Options::default());
    let per_rank = |ops: &Vec<_>| ops.iter().flat_map(crate::Op::units).count();
    let counts: Vec<usize> = table.ranks.iter().map(per_rank).collect();
    assert_eq!(counts, vec![40; 4]);
    let grouped = Options { group: Some(4), ..Options::default() };
    let time = simulate(&build("nested", &w, &grouped), &w).unwrap().time();
    assert!(time <= ideal_time(&w, &grouped).unwrap() + 1e-9);
    let single = Options { group: Some(1), ..Options::default() };
    assert!(ideal_time(&w, &grouped).unwrap() < ideal_time(&w, &single).unwrap());
    assert!(ideal_time(&w, &Options::default()).unwrap() <= ideal_time(&w, &grouped).unwrap() + 1e-9);
}

#[test]
fn buffers_and_bytes_are_planned_from_the_order() {
    let w = workload(4, 16, [1.0, 1.0, 1.0], [2.0, 4.0], [1.0, 2.0], 0.0);
    let table = build("nested", &w, &Options::default());
    let plan = plan_buffers(&table, &w);
    let bytes = peak_bytes(&table, &w, |unit| if unit.module.kind() == ModuleKind::Encoder { 7 } else { 3 });
    for ((slots, peak), bytes) in plan.slots.iter().zip(peak_microbatches(&table, &w)).zip(bytes) {
        assert_eq!(slots.encoder as f64, peak.encoder * 4.0);
        assert_eq!(slots.llm as f64, peak.llm);
        assert_eq!((bytes.encoder, bytes.llm), (7 * slots.encoder as u64, 3 * slots.llm as u64));
        assert_eq!(slots.generator, 1);
    }
    assert!(plan.slot_of.iter().all(Option::is_some));
    let frozen = w.with_learns(PerModule { encoder: false, llm: true, generator: true });
    let table = build("nested", &frozen, &Options::default());
    assert!(plan_buffers(&table, &frozen).slots.iter().all(|slots| slots.encoder == 0));
}

#[test]
fn memory_over_time_peaks_where_the_order_says() {
    let w = workload(4, 8, [1.0, 1.0, 1.0], [2.0, 4.0], [1.0, 2.0], 0.0);
    let table = build("nested", &w, &Options::default());
    let over_time = simulate(&table, &w).unwrap().memory(&table, &w);
    for (points, peak) in over_time.iter().zip(peak_microbatches(&table, &w)) {
        assert!(points.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        assert_eq!(points.last().unwrap().1, crate::PerModule::default());
        let highest = |of: fn(&crate::PerModule<f64>) -> f64| {
            points.iter().map(|point| of(&point.1)).fold(0.0, f64::max)
        };
        assert_close(highest(|live| live.llm), peak.llm, absolute(1e-9));
        assert_close(highest(|live| live.encoder), peak.encoder, absolute(1e-9));
    }
}

#[test]
fn unknown_names_bring_the_nearest_and_all() {
    let message = schedule("nestd").unwrap_err().to_string();
    assert!(message.contains("did you mean 'nested'") && message.contains("phased"), "{message}");
    let message = llm_schedule("1f1").unwrap_err().to_string();
    assert!(message.contains("did you mean '1f1b'"), "{message}");
    let message = schedule("xyz").unwrap_err().to_string();
    assert!(!message.contains("did you mean"), "{message}");
}

#[test]
fn impossible_workloads_are_refused() {
    let refused = |p, n, f| workload_error(p, n, f).to_string();
    assert!(refused(0, 1, 1.0).contains("the number of ranks is 0: it must be at least 1"));
    assert!(refused(1, 0, 1.0).contains("the number of microbatches is 0: it must be at least 1"));
    assert!(refused(1, 1, -1.0).contains("F of LLM chunk 0 on microbatch 0 is -1"));
    assert!(refused(1, 1, f64::NAN).contains("NaN"));
    // Nothing is made for a step that no table could hold.
    assert!(refused(1, usize::MAX / 2, 1.0).contains("too large"));
    let w = workload(2, 1, [1.0; 3], NONE, NONE, 0.0);
    assert!(w.clone().with_slowdown(vec![1.0]).is_err());
    assert!(w.with_slowdown(vec![1.0, 0.0]).is_err());
}

fn workload_error(p: usize, n: usize, forward: f64) -> crate::WorkloadError {
    let costs = crate::UniformCosts { forward, ..Default::default() };
    Workload::uniform(p, 1, n, 1, costs, 0.0).unwrap_err()
}

#[test]
fn budgets_carry_their_unit() {
    assert_eq!("2mb".parse(), Ok(Budget::Microbatches(2.0)));
    assert_eq!("0.5mb".parse(), Ok(Budget::Microbatches(0.5)));
    assert_eq!("512MiB".parse(), Ok(Budget::Bytes(512 << 20)));
    assert_eq!("1.5KiB".parse(), Ok(Budget::Bytes(1536)));
    assert_eq!("10B".parse(), Ok(Budget::Bytes(10)));
    for text in ["2", "2MB", "mb", "-1mb", "inf mb", "2 apples"] {
        assert!(text.parse::<Budget>().is_err(), "{text}");
    }
    assert_eq!(Budget::Bytes(512 << 20).to_string(), "512MiB");
    assert_eq!(Budget::Bytes(1537).to_string(), "1537B");
}
