//! Ops, times and sizes in words.

use super::{MemoryUnit, TimeUnit};
use crate::step::{Module, Op, Phase, Piece};
use std::collections::BTreeSet;

/// What an op does, in words: `LLM chunk 1 forward · microbatch 3`.
pub(super) fn describe(op: &Op) -> String {
    match op {
        Op::Compute { .. } | Op::Overlap { .. } => format!("{} · {}", operation(op), work_of(op)),
        Op::Send { .. } | Op::Recv { .. } | Op::Step => op.to_string(),
    }
}

/// What an op computes, without saying on what: `LLM chunk 1 forward`, or two of them at once.
pub(super) fn operation(op: &Op) -> String {
    match op {
        Op::Compute { module, phase, .. } => computation(*module, *phase),
        Op::Overlap { forward, backward, phase } => format!(
            "{} at once with {}",
            computation(forward.module, Phase::Forward),
            computation(backward.module, *phase)
        ),
        Op::Send { .. } | Op::Recv { .. } | Op::Step => String::new(),
    }
}

fn computation(module: Module, phase: Phase) -> String {
    let module = match module {
        Module::Llm(chunk) => format!("LLM chunk {}", chunk.0),
        Module::Encoder(chunk) | Module::Generator(chunk) if chunk.0 > 0 => {
            format!("{} chunk {}", module.kind().words(), chunk.0)
        }
        Module::Encoder(_) | Module::Generator(_) => module.kind().words().to_owned(),
    };
    format!("{module} {}", phase.words())
}

/// What an op works on: `microbatch 3`, `microbatches 7, 3`, or items by microbatch and position in it, `items 0.1, 2.0`.
pub(super) fn work_of(op: &Op) -> String {
    let (mut wholes, mut items) = (Vec::new(), Vec::new());
    for unit in op.units() {
        match unit.piece {
            Piece::Microbatch(whole) => wholes.push(whole.0.to_string()),
            Piece::Item(item) => items.push(item.to_string()),
        }
    }
    match (&wholes[..], &items[..]) {
        ([whole], []) => format!("microbatch {whole}"),
        (_, []) => format!("microbatches {}", wholes.join(", ")),
        (_, [item]) => format!("item {item}"),
        (..) => format!("items {}", items.join(", ")),
    }
}

/// The microbatches that an op works for, in order.
pub(super) fn microbatches(op: &Op) -> BTreeSet<usize> {
    op.units().map(|unit| unit.microbatch().0).collect()
}

/// A time in words.
pub(super) fn duration(time: f64, unit: TimeUnit) -> String {
    match unit {
        TimeUnit::Cost => number(time),
        TimeUnit::Seconds if time < 1.0 => format!("{} ms", number(time * 1e3)),
        TimeUnit::Seconds => format!("{} s", number(time)),
    }
}

/// An amount of activations in words.
pub(super) fn amount(amount: f64, unit: MemoryUnit) -> String {
    match unit {
        MemoryUnit::Microbatches => format!("{} {}", number(amount), unit.name()),
        MemoryUnit::Bytes => bytes(amount),
    }
}

/// A number of bytes with its unit, at most two decimals.
fn bytes(count: f64) -> String {
    const UNITS: [(&str, f64); 4] =
        [("TiB", 1_099_511_627_776.0), ("GiB", 1_073_741_824.0), ("MiB", 1_048_576.0), ("KiB", 1024.0)];
    match UNITS.into_iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => format!("{} {unit}", number((count / size * 100.0).round() / 100.0)),
        None => format!("{} B", number(count.round())),
    }
}

/// A number with at most three decimals, without trailing zeros.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
