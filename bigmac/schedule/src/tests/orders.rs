//! The orders of the LLM's chunks: published numbers, closed forms, golden lists, and every shape they have to run on.

use crate::check::validate;
use crate::clock::memory::peak_microbatches;
use crate::clock::{Simulation, simulate};
use crate::files::Form;
use crate::registry::{LLM_SCHEDULES, SCHEDULES, llm_schedule, schedule};
use crate::{
    ChunkCost, ItemCost, Limits, LlmOptions, Load, Options, PerModule, ScheduleError, Table, UniformCosts,
    Workload,
};
use bigmac_close::{absolute, assert_close, is_close};

/// The LLM alone, with F, B, W per stage.
fn llm(
    p: usize,
    v: usize,
    n: usize,
    [forward, backward_input, backward_weight]: [f64; 3],
    c: f64,
) -> Workload {
    let costs = UniformCosts { forward, backward_input, backward_weight, ..UniformCosts::default() };
    Workload::uniform(p, v, n, 1, costs, c).unwrap()
}

fn order(name: &str, workload: &Workload) -> Table {
    let options = Options { llm: llm_schedule(name).unwrap(), ..Options::default() };
    let table = schedule("llm").unwrap().build(workload, &options).unwrap();
    validate(&table, workload, &Limits::default()).unwrap();
    table
}

fn run(name: &str, workload: &Workload) -> Simulation {
    simulate(&order(name, workload), workload).unwrap()
}

/// Last end - first start of the rank where it is largest.
fn cost(simulation: &Simulation) -> f64 {
    simulation.active.iter().flatten().map(|span| span.end - span.start).fold(0.0, f64::max)
}

fn peaks(name: &str, workload: &Workload) -> Vec<f64> {
    peak_microbatches(&order(name, workload), workload).iter().map(|peak| peak.llm).collect()
}

/// Bubble rates of 1F1B, ZB-H1 and ZB-H2 for the measured times of Zero Bubble (arXiv 2401.10241), tables 9 and 5.
#[test]
fn zero_bubble_has_its_published_bubble_rates() {
    for (p, n, costs, c, rates) in [
        (8, 24, [18.522, 18.086, 9.337], 0.601, [0.2431, 0.1585, 0.1083]),
        (8, 32, [18.513, 18.086, 9.331], 0.626, [0.1985, 0.1242, 0.0837]),
        (8, 64, [18.546, 18.097, 9.321], 0.762, [0.1240, 0.0674, 0.0444]),
        (8, 24, [29.718, 29.444, 19.927], 0.527, [0.2347, 0.1323, 0.0698]),
        (8, 32, [29.802, 29.428, 19.530], 0.577, [0.1898, 0.1045, 0.0559]),
        (8, 64, [29.935, 29.621, 19.388], 0.535, [0.1091, 0.0554, 0.0294]),
        (16, 48, [11.347, 11.248, 8.132], 0.377, [0.2552, 0.1397, 0.0672]),
        (16, 64, [11.307, 11.254, 8.101], 0.379, [0.2082, 0.1088, 0.0516]),
        (16, 128, [11.325, 11.308, 8.109], 0.378, [0.1251, 0.0576, 0.0266]),
        (32, 96, [10.419, 10.207, 7.715], 0.408, [0.2646, 0.1421, 0.0641]),
        (32, 128, [10.408, 10.204, 7.703], 0.408, [0.2168, 0.1106, 0.0490]),
        (32, 256, [10.402, 10.248, 7.698], 0.460, [0.1352, 0.0594, 0.0257]),
    ] {
        let w = llm(p, 1, n, costs, c);
        for (name, rate) in ["1f1b", "zb-h1", "zb-h2"].into_iter().zip(rates) {
            assert_close(run(name, &w).bubble_rate(), rate, absolute(5e-5));
        }
    }
}

#[test]
fn zero_bubble_orders_take_their_closed_forms_in_their_memory() {
    assert_close(cost(&run("zb-h1", &llm(4, 1, 8, [1.0; 3], 0.0))), 27.0, absolute(0.0));
    assert_close(cost(&run("zb-h1", &llm(8, 1, 24, [1.0; 3], 0.0))), 79.0, absolute(0.0));
    for (p, n) in [(1, 3), (2, 4), (3, 9), (4, 8), (5, 23), (8, 24), (13, 40)] {
        for [f, b, w] in [[1.0, 1.0, 1.0], [4.0, 5.0, 3.0], [2.0, 2.0, 1.0], [5.0, 5.0, 5.0]] {
            let shape = llm(p, 1, n, [f, b, w], 0.0);
            let (work, fill) = (n as f64 * (f + b + w), (p - 1) as f64);
            assert_close(cost(&run("zb-h1", &shape)), work + fill * (f + b - w), absolute(1e-9));
            assert_close(
                cost(&run("zb-h2", &shape)),
                work + fill * f64::max(f + b - 2.0 * w, 0.0),
                absolute(1e-9),
            );
        }
        let shape = llm(p, 1, n, [1.0; 3], 0.0);
        assert_eq!(peaks("zb-h1", &shape), vec![p.min(n) as f64; p]);
        assert_eq!(peaks("zb-h2", &shape), vec![(2 * p - 1).min(n) as f64; p]);
    }
}

#[test]
fn interleaving_divides_the_bubble_by_the_chunks() {
    for (p, v, rounds) in [(2, 2, 2), (3, 2, 3), (4, 3, 2), (4, 2, 5), (8, 4, 3), (5, 3, 1), (1, 3, 4)] {
        for [f, b, w] in [[1.0, 1.0, 1.0], [1.0, 2.0, 0.0], [3.0, 2.0, 2.0]] {
            let n = p * rounds;
            let shape = llm(p, v, n, [f, b, w], 0.0);
            let (r, p, v, n) = (f + b + w, p as f64, v as f64, n as f64);
            assert_close(run("interleaved", &shape).time(), n * r + (p - 1.0) * r / v, absolute(1e-9));
            for (stage, peak) in peaks("interleaved", &shape).into_iter().enumerate() {
                let live = 2.0 * (p - 1.0 - stage as f64) + (v - 1.0) * p + 1.0;
                assert_close(peak, live.min(n * v) / v, absolute(1e-8));
            }
        }
    }
}

/// Groups of p where they divide the microbatches, else evenly some more: the time is what it would be.
#[test]
fn interleaving_costs_nothing_where_groups_do_not_divide_the_microbatches() {
    for (p, v) in [(2, 2), (3, 3), (4, 2), (5, 2), (8, 3)] {
        for n in p..=4 * p {
            let shape = llm(p, v, n, [1.0, 1.0, 1.0], 0.0);
            let time = n as f64 * 3.0 + (p - 1) as f64 * 3.0 / v as f64;
            assert_close(run("interleaved", &shape).time(), time, absolute(1e-9));
            let largest = n.div_ceil(n / p);
            for (stage, peak) in peaks("interleaved", &shape).into_iter().enumerate() {
                let live = (2 * (p - 1 - stage) + (v - 1) * largest + 1).min(n * v);
                assert_close(peak, live as f64 / v as f64, absolute(1e-8));
            }
        }
    }
}

#[test]
fn gpipe_keeps_every_microbatch() {
    for (p, v, n) in [(1, 1, 3), (4, 1, 8), (4, 2, 8), (3, 3, 5), (6, 1, 2)] {
        let shape = llm(p, v, n, [1.0, 2.0, 1.0], 0.0);
        assert!(peaks("gpipe", &shape).iter().all(|peak| is_close(*peak, n as f64, absolute(1e-8))));
        if n >= p || v == 1 {
            let time = n as f64 * 4.0 + (p - 1) as f64 * 4.0 / v as f64;
            assert_close(run("gpipe", &shape).time(), time, absolute(1e-9));
        }
    }
}

/// The lists of Megatron-LM and of torch.distributed.pipelining's ScheduleInterleaved1F1B for 2 ranks, 2 chunks each,
/// 4 microbatches.
#[test]
fn interleaved_is_megatrons_order() {
    let csv = "0F0,0F1,2F0,2F1,0F2,2B0,0F3,2B1,2F2,0B0,2F3,0B1,2B2,2B3,0B2,0B3\n\
               1F0,1F1,3F0,3B0,3F1,3B1,1F2,1B0,1F3,1B1,3F2,3B2,3F3,3B3,1B2,1B3\n";
    assert_eq!(Form::Csv.write(&order("interleaved", &llm(2, 2, 4, [1.0; 3], 0.0))).unwrap(), csv);
}

/// With groups of at least p microbatches, the last one too, nothing ever has to leave Megatron's rule.
#[test]
fn interleaved_follows_the_rule_wherever_megatron_runs() {
    for (p, v, n, g) in
        [(2, 2, 6, 3), (3, 2, 10, 6), (4, 3, 8, 4), (4, 2, 11, 7), (5, 4, 15, 5), (3, 3, 3, 9)]
    {
        let w = llm(p, v, n, [1.0; 3], 0.0);
        let options = LlmOptions { extra_warmup: 0, group: Some(g) };
        let table = llm_schedule("interleaved").unwrap().build(&w, options).unwrap();
        for (rank, ops) in table.ranks.iter().enumerate() {
            let warmup = (2 * (p - rank - 1) + (v - 1) * g).min(n * v);
            let forwards = "F".repeat(warmup);
            let wanted = forwards + &"FB".repeat(n * v - warmup) + &"B".repeat(warmup);
            let letters: String =
                ops.iter().map(|op| if op.to_string().contains('F') { 'F' } else { 'B' }).collect();
            assert_eq!(letters, wanted, "p={p} v={v} n={n} g={g} rank {rank}");
        }
    }
}

#[test]
fn interleaved_runs_for_every_size_of_group() {
    let interleaved = llm_schedule("interleaved").unwrap();
    for p in 1..=7 {
        for v in 1..=3 {
            for n in 1..=15 {
                let w = llm(p, v, n, [1.0; 3], 0.0);
                for group in (1..=8).map(Some).chain([None]) {
                    for extra_warmup in [0, 1, 5] {
                        let options = LlmOptions { extra_warmup, group };
                        let table = interleaved.build(&w, options).unwrap();
                        let simulation = simulate(&table, &w);
                        assert!(simulation.is_ok(), "p={p} v={v} n={n} g={group:?}: {simulation:?}");
                        assert_eq!(table.len(), 2 * p * v * n);
                    }
                }
            }
        }
    }
    let refused =
        interleaved.build(&llm(2, 2, 2, [1.0; 3], 0.0), LlmOptions { extra_warmup: 0, group: Some(0) });
    assert_eq!(refused, Err(ScheduleError::Group { of: "LLM " }));
}

#[test]
fn extra_warmup_runs_that_many_more_forwards_first() {
    for (name, v) in [("1f1b", 1), ("interleaved", 1), ("interleaved", 2), ("zb-h1", 1), ("zb-h2", 1)] {
        let w = llm(3, v, 12, [1.0; 3], 0.0);
        let ahead = |extra_warmup| -> Vec<usize> {
            let options = LlmOptions { extra_warmup, group: None };
            let table = llm_schedule(name).unwrap().build(&w, options).unwrap();
            simulate(&table, &w).unwrap();
            let forwards =
                |ops: &Vec<_>| ops.iter().take_while(|op: &&crate::Op| op.to_string().contains('F')).count();
            table.ranks.iter().map(forwards).collect()
        };
        let wanted: Vec<usize> = ahead(0).iter().map(|forwards| forwards + 2).collect();
        assert_eq!(ahead(2), wanted, "{name}");
    }
}

#[test]
fn orders_of_one_chunk_refuse_several() {
    let w = llm(2, 2, 4, [1.0; 3], 0.0);
    for name in ["1f1b", "zb-h1", "zb-h2"] {
        let options = Options { llm: llm_schedule(name).unwrap(), ..Options::default() };
        let error = schedule("nested").unwrap().build(&w, &options).unwrap_err();
        assert_eq!(error, ScheduleError::Chunks { schedule: name, wanted: 1, chunks: 2 });
    }
}

/// Every schedule over every order: several chunks, few microbatches, nothing to encode or draw, anything frozen.
#[test]
fn every_schedule_runs_over_every_order() {
    let item = ItemCost { forward: 1.0, backward: 2.0 };
    let counts = [(2, 1), (0, 0), (1, 0), (0, 2), (5, 3)];
    for (p, v, n) in [(1, 1, 2), (1, 2, 3), (2, 2, 5), (3, 1, 7), (3, 3, 4), (4, 2, 9), (4, 1, 3), (5, 2, 3)]
    {
        let chunk = |c: usize| ChunkCost::of_parts(1.0 + (c % 2) as f64, 1.0, (c % 3) as f64);
        let load = |m: usize| Load {
            encoder: vec![item; counts[m % 5].0],
            generator: vec![item; counts[m % 5].1],
            llm: (0..p * v).map(chunk).collect(),
        };
        for learns in 0..8u8 {
            let learns =
                PerModule { encoder: learns & 1 > 0, llm: learns & 2 > 0, generator: learns & 4 > 0 };
            let w = Workload::new(p, v, (0..n).map(load).collect(), learns, 0.5).unwrap();
            for llm in LLM_SCHEDULES {
                let options = Options { llm, ..Options::default() };
                for schedule in SCHEDULES {
                    let w = schedule.workload(&w, llm);
                    let name =
                        format!("{} over {} p={p} v={v} n={n} {learns:?}", schedule.name(), llm.name());
                    let table = match schedule.build(&w, &options) {
                        Err(error) if error.is_about_the_layout() => continue,
                        table => table.unwrap_or_else(|error| panic!("{name}: {error}")),
                    };
                    validate(&table, &w, &Limits::default())
                        .unwrap_or_else(|error| panic!("{name}: {error}"));
                }
            }
        }
    }
}
