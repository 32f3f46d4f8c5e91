//! Every unit of work once, in all its phases, in order, on one rank.

use super::{Place, ValidateError};
use crate::step::{Module, Op, Phase, Piece, Rank, Table, Unit, Work, Workload};

/// Rank and index of the op that runs a unit in each phase, by `phase as usize`.
type Places = [Option<(u32, u32)>; Phase::ALL.len()];

pub(super) fn check(table: &Table, workload: &Workload) -> Result<(), ValidateError> {
    let mut done: Vec<Places> = vec![[None; Phase::ALL.len()]; workload.unit_count()];
    for (rank, ops) in table.ranks.iter().enumerate() {
        steps(Rank(rank), ops)?;
        for (index, op) in ops.iter().enumerate() {
            record(table, workload, (rank, index), op, &mut done)?;
        }
    }
    for unit in workload.units() {
        if let Some(places) = workload.unit_index(unit).map(|index| &done[index]) {
            phases(table, workload, unit, places)?;
        }
    }
    Ok(())
}

fn steps(rank: Rank, ops: &[Op]) -> Result<(), ValidateError> {
    let count = ops.iter().filter(|op| **op == Op::Step).count();
    if count == 1 && ops.last() == Some(&Op::Step) {
        Ok(())
    } else {
        Err(ValidateError::Step { rank, count })
    }
}

fn record(
    table: &Table,
    workload: &Workload,
    at: (usize, usize),
    op: &Op,
    done: &mut [Places],
) -> Result<(), ValidateError> {
    let wrong = |why: String| Err(ValidateError::Op { place: Place::of(table, at), why });
    if let Some(why) = malformed(op) {
        return wrong(format!("makes no sense: {why}"));
    }
    for (unit, phase) in op.runs() {
        let Some(index) = workload.unit_index(unit) else {
            return wrong(format!("runs {unit}, which the workload does not have"));
        };
        if let Some(home) = workload.home(unit.module).filter(|home| home.0 != at.0) {
            return wrong(format!("is on the wrong rank: its weights are on {home}"));
        }
        let slot = &mut done[index][phase as usize];
        if let Some((rank, index)) = slot {
            let first = Place::of(table, (*rank as usize, *index as usize));
            return wrong(format!("repeats the work of {first}"));
        }
        *slot = Some((at.0 as u32, at.1 as u32));
    }
    Ok(())
}

/// Why an op cannot be run in any workload.
fn malformed(op: &Op) -> Option<&'static str> {
    match op {
        Op::Compute { module: Module::Llm(_), work: Work::Items(_), .. } => {
            Some("the LLM works on microbatches")
        }
        Op::Compute {
            module: Module::Encoder(_) | Module::Generator(_), work: Work::Microbatch(_), ..
        } => Some("encoder and generator work on items"),
        Op::Compute { work: Work::Items(items), .. } if items.is_empty() => Some("it has no items"),
        Op::Overlap { phase, .. } if !matches!(phase, Phase::Backward | Phase::BackwardInput) => {
            Some("a forward overlaps with a backward or an input gradient")
        }
        Op::Overlap { forward, backward, .. } => {
            let is_llm =
                |unit: &Unit| matches!((unit.module, unit.piece), (Module::Llm(_), Piece::Microbatch(_)));
            let both = is_llm(forward) && is_llm(backward);
            (!both).then_some("only chunks of the LLM overlap, each on a microbatch")
        }
        Op::Compute { .. } | Op::Send { .. } | Op::Recv { .. } | Op::Step => None,
    }
}

fn phases(table: &Table, workload: &Workload, unit: Unit, places: &Places) -> Result<(), ValidateError> {
    let at = |phase: Phase| places[phase as usize].map(|(rank, index)| (rank as usize, index as usize));
    let needless = |phase: Phase, why: &str| match at(phase) {
        Some(found) => {
            Err(ValidateError::Op { place: Place::of(table, found), why: format!("is needless: {why}") })
        }
        None => Ok(()),
    };
    let missing =
        |phase: Phase| if at(phase).is_none() { Err(ValidateError::Missing { unit, phase }) } else { Ok(()) };
    missing(Phase::Forward)?;
    let kind = unit.module.kind();
    if !workload.goes_backward(unit.module, unit.microbatch()) {
        for phase in &Phase::ALL[1..] {
            needless(*phase, "neither this module nor anything below it learns")?;
        }
    } else if at(Phase::BackwardInput).is_some() {
        needless(Phase::Backward, "the unit has an input gradient of its own")?;
        if workload.has_weight_gradient(kind) {
            missing(Phase::BackwardWeight)?;
        } else {
            needless(Phase::BackwardWeight, "the module is frozen")?;
        }
    } else {
        missing(Phase::Backward)?;
        needless(Phase::BackwardWeight, "the unit's whole backward has its weight gradient in it")?;
    }
    let mut before = None;
    for now in Phase::ALL.iter().filter_map(|phase| at(*phase)) {
        if let Some(earlier) = before.filter(|(rank, index)| *rank != now.0 || *index >= now.1) {
            let (earlier, later) = (Place::of(table, earlier), Place::of(table, now));
            return Err(ValidateError::Order { earlier, later });
        }
        before = Some(now);
    }
    Ok(())
}
