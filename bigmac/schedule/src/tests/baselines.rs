//! The baselines against their closed forms, and what a chain of cut modules does.

use super::{build, workload};
use crate::check::validate;
use crate::clock::memory::peak_microbatches;
use crate::clock::{simulate, work_bound};
use crate::registry::schedule;
use crate::{
    ChunkCost, ItemCost, ItemSize, Layers, Limits, Link, Load, MicrobatchSizes, Module, ModuleKind, Options,
    PerModule, Rank, Workload, ideal_time,
};
use bigmac_close::{absolute, assert_close};

const NONE: [f64; 2] = [0.0, 0.0];

/// The schedule's own workload, its table's time and peaks.
fn outcome(name: &str, w: &Workload) -> (Workload, f64, Vec<f64>) {
    let own = schedule(name).unwrap().workload(w, Options::default().llm);
    let table = build(name, &own, &Options::default());
    validate(&table, &own, &Limits::default()).unwrap();
    let time = simulate(&table, &own).unwrap().time();
    let peaks = peak_microbatches(&table, &own).iter().map(|peak| peak.encoder).collect();
    (own, time, peaks)
}

#[test]
fn recompute_takes_another_forward_and_keeps_a_microbatchs_share() {
    for (p, n, [ef, eb]) in [(4, 16, [2.0, 4.0]), (3, 7, [3.0, 1.0]), (2, 2, [1.0, 5.0])] {
        let w = workload(p, n, [1.0, 1.0, 1.0], [ef, eb], NONE, 0.0);
        let (_, time, peaks) = outcome("recompute", &w);
        let ideal = ideal_time(&w, &Options::default()).unwrap();
        assert_close(time, ideal + n as f64 * ef / p as f64, absolute(1e-9));
        peaks.iter().for_each(|peak| assert_close(*peak, 1.0 / p as f64, absolute(1e-9)));
    }
    let w = workload(4, 16, [1.0, 1.0, 1.0], [2.0, 4.0], NONE, 0.0);
    assert_close(outcome("recompute", &w).1, 89.0, absolute(1e-9));
}

#[test]
fn balanced_disaggregation_is_one_long_pipeline() {
    // An encoder as heavy as two stages, a generator as heavy as one.
    for (p, n) in [(4, 16), (2, 9), (3, 5)] {
        let w = workload(p, n, [1.0, 1.0, 1.0], [2.0, 4.0], [1.0, 2.0], 0.0);
        let (own, time, peaks) = outcome("disaggregated", &w);
        let long = p + 3;
        assert_eq!(
            (own.ranks(), own.chunks_of(ModuleKind::Encoder), own.chunks_of(ModuleKind::Generator)),
            (long, 2, 1)
        );
        assert_close(time, (n + long - 1) as f64 * 3.0, absolute(1e-9));
        for (stage, peak) in peaks.iter().enumerate() {
            assert_close(*peak, if stage < 2 { n.min(long - stage) as f64 } else { 0.0 }, absolute(1e-9));
        }
        assert_eq!(own.home(Module::ENCODER), Some(Rank(0)));
        assert_eq!(own.home(Module::GENERATOR), Some(Rank(long - 1)));
    }
}

#[test]
fn an_even_cut_makes_the_monolith_a_plain_pipeline() {
    let (p, n) = (4, 16);
    let w = workload(p, n, [1.0, 1.0, 1.0], [2.0, 4.0], [2.0, 4.0], 0.0);
    let (own, time, _) = outcome("monolithic-balanced", &w);
    // Six of LLM stages' work on four ranks: every stage weighs 24 / 4. Forward and backward are both cut evenly.
    assert_close(time, (n + p - 1) as f64 * 6.0, absolute(1e-9));
    assert_close(work_bound(&own), n as f64 * 6.0, absolute(1e-9));
    assert!(time < outcome("monolithic", &w).1);
}

#[test]
fn known_layers_are_not_cut_through() {
    let layers = Layers { count: PerModule { encoder: 3, llm: 7, generator: 2 }, head: 0.5 };
    let w = workload(3, 6, [5.0, 5.0, 5.0], [6.0, 12.0], [4.0, 8.0], 0.0).with_layers(layers).unwrap();
    for name in ["monolithic-balanced", "disaggregated"] {
        let (own, _, _) = outcome(name, &w);
        let chain = own.chain().unwrap();
        for kind in ModuleKind::ALL {
            let (parts, layers) = (&chain.parts[kind], layers.count[kind]);
            let ranges: Vec<_> = parts.iter().map(|part| part.layers.clone().unwrap()).collect();
            assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end), (0, layers), "{name}: {parts:?}");
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start), "{name}: {parts:?}");
            assert_close(parts.iter().map(|part| part.share).sum::<f64>(), 1.0, absolute(1e-9));
        }
    }
}

#[test]
fn encoder_and_llm_share_exactly_the_ranks_that_there_are() {
    let disaggregated = schedule("disaggregated").unwrap();
    // An encoder of a third of the LLM's 12 in all: a quarter of the ranks is what it should have.
    let w = workload(4, 16, [1.0, 1.0, 1.0], [1.0, 3.0], NONE, 0.0);
    assert_eq!(disaggregated.chain_within(&w, 1), Some(None));
    for (ranks, own) in [(2, 1), (3, 1), (4, 1), (6, 2), (8, 2), (12, 3)] {
        let chain = disaggregated.chain_within(&w, ranks).unwrap().unwrap();
        assert_eq!(chain.ranks, ranks);
        assert_eq!((chain.parts.encoder.len(), chain.parts.llm.len()), (own, ranks - own), "{ranks}");
    }
    assert_eq!(schedule("nested").unwrap().chain_within(&w, 4), None);
}

#[test]
fn filling_bubbles_lies_between_the_bounds() {
    for (p, n, [ef, eb]) in
        [(4, 16, [2.0, 4.0]), (8, 32, [2.0, 4.0]), (4, 16, [0.4, 0.8]), (3, 4, [9.0, 3.0])]
    {
        let w = workload(p, n, [1.0, 1.0, 1.0], [ef, eb], NONE, 0.0);
        let (_, time, _) = outcome("bubble-fill", &w);
        let ideal = ideal_time(&w, &Options::default()).unwrap();
        let least = work_bound(&w).max((n + p - 1) as f64 * 3.0);
        assert!(time >= least - 1e-9 && time < ideal - 1e-9, "{least} {time} {ideal}");
    }
}

#[test]
fn a_chain_without_images_or_drawings_is_one_all_the_same() {
    let w = workload(3, 4, [1.0, 1.0, 1.0], NONE, NONE, 0.0);
    for name in ["monolithic-balanced", "disaggregated"] {
        let (own, time, _) = outcome(name, &w);
        assert_eq!(own.ranks(), 3, "{name}");
        assert_close(time, 18.0, absolute(1e-9));
    }
}

/// Two ranks, one microbatch, one image, one drawing; hidden states of 10 bytes, embeddings of 4, conditions of 2.
fn sized(link: Link) -> Workload {
    let chunk = ChunkCost::of_parts(1.0, 1.0, 1.0);
    let item = vec![ItemCost { forward: 1.0, backward: 2.0 }];
    let load = Load { encoder: item.clone(), generator: item, llm: vec![chunk; 2] };
    let size = |value| vec![ItemSize { saved: 100, value, hidden: 0 }];
    let sizes = MicrobatchSizes { encoder: size(4), generator: size(2), llm: vec![30, 50], hidden: 10 };
    let w = Workload::new(2, 1, vec![load], PerModule::all(true), 0.0).unwrap();
    w.with_sizes(vec![sizes]).unwrap().with_link(link).unwrap()
}

#[test]
fn transfers_take_latency_and_bytes() {
    let time = |name, link| outcome(name, &sized(link)).1;
    let link = Link { latency: 0.5, seconds_per_byte: 0.1, overlapped: true };
    // Encoder 3, generator 3, LLM 6, and the hidden states there and back.
    assert_close(time("monolithic", link), 12.0 + 2.0 * 1.5, absolute(1e-9));
    assert_close(time("monolithic", Link { overlapped: false, ..link }), 12.0 + 2.0 * 1.5, absolute(1e-9));
    assert_close(time("monolithic", Link::default()), 12.0, absolute(1e-9));
}

#[test]
fn a_link_that_does_not_overlap_holds_up_its_sender() {
    let link = Link { latency: 2.0, seconds_per_byte: 0.0, overlapped: false };
    let w = workload(2, 3, [1.0, 1.0, 0.0], NONE, NONE, 0.0).with_link(link).unwrap();
    let (_, time, _) = outcome("llm", &w);
    // By hand: rank 0 F0 0-1, sends till 3, F1 3-4, sends till 6; rank 1 F0 3-4 B0 4-5, sends till 7, F1 7-8 B1 8-9,
    // sends till 11; rank 0 B0 7-8, F2 8-9, sends till 11; rank 1 F2 11-12 B2 12-13, sends till 15; rank 0 B1 11-12, B2
    // 15-16.
    assert_close(time, 16.0, absolute(1e-9));
    let table = build("llm", &w, &Options::default());
    let lowered = crate::lower(&table, &w).unwrap();
    assert_close(simulate(&lowered, &w).unwrap().time(), 16.0, absolute(1e-9));
}

#[test]
fn sizes_have_to_be_those_of_the_workload() {
    let w = workload(2, 3, [1.0; 3], [1.0; 2], NONE, 0.0);
    let error = w.clone().with_sizes(vec![MicrobatchSizes::default()]).unwrap_err().to_string();
    assert!(error == "expected 3 sizes of microbatches, got 1", "{error}");
    let error = w.with_sizes(vec![MicrobatchSizes::default(); 3]).unwrap_err().to_string();
    assert!(error.contains("sizes of encoder items in microbatch 0, got 0"), "{error}");
    let unit = |name: &str, kind| {
        let own = schedule(name).unwrap().workload(&sized(Link::default()), Options::default().llm);
        let units = own.units().filter(|unit| unit.module.kind() == kind);
        units.map(|unit| own.saved(unit).unwrap()).sum::<u64>()
    };
    for name in ["monolithic", "monolithic-balanced", "disaggregated"] {
        assert_eq!(ModuleKind::ALL.map(|kind| unit(name, kind)), [100, 80, 100], "{name}");
    }
}
