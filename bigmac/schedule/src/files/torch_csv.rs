//! Tables of the LLM alone in the CSV of torch.distributed.pipelining (what a schedule's `_dump_csv` writes and its
//! `_load_csv` reads): a row per rank, an action such as `2F0` per cell, for stage 2, forward, microbatch 0. A stage is
//! a chunk; empty cells are idle slots.
//!
//! Computation: F (forward), I (input gradient), W (weight gradient), and the whole backward, which is B today and was
//! BW while B stood for the input gradient. So BW is always whole, and B is the input gradient where its unit has a W
//! and no I. Writing uses F, I, W and B.
//!
//! `(0F7;7B3)OVERLAP_F_B` runs a forward and a backward at once: [`Op::Overlap`].
//!
//! Communication (torch's `compute_comms`): `2SEND_F0` sends what stage 2 made to stage 3, `2SEND_B0` its gradient to
//! stage 1, RECV_F and RECV_B are the other ends. They become [`Op::Send`] and [`Op::Recv`], and their peers follow from
//! where the file computes the stages. UNSHARD, RESHARD and REDUCE_GRAD move a stage's parameters and gradients between
//! replicas of the pipeline. A table has nothing for the first two, and the step at the end of every rank for the third:
//! they are checked to be on their stage's rank, and left out.

use super::FileError;
use super::text::number;
use crate::step::{Chunk, Microbatch, Module, Op, Phase, Rank, Table, Unit, Value, Work};
use std::collections::{HashMap, HashSet};

/// The table as CSV; optimizer steps, which the CSV leaves to its reader, are left out.
///
/// # Errors
/// Where an op is not a forward, backward or part of one of an LLM chunk, or communication between such.
pub fn write(table: &Table) -> Result<String, FileError> {
    let mut text = String::new();
    for ops in &table.ranks {
        let cells: Vec<String> =
            ops.iter().filter(|op| **op != Op::Step).map(cell).collect::<Result<_, FileError>>()?;
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    Ok(text)
}

fn cell(op: &Op) -> Result<String, FileError> {
    let transfer =
        |stage: usize, name: &str, microbatch: &Microbatch| format!("{stage}{name}{}", microbatch.0);
    let text = match op {
        Op::Compute { module: Module::Llm(chunk), phase, work: Work::Microbatch(microbatch) }
            if *phase != Phase::Recompute =>
        {
            Some(format!("{}{}{}", chunk.0, phase.letter(), microbatch.0))
        }
        Op::Overlap { forward, backward, phase } => {
            let halves = [(forward, &Phase::Forward), (backward, phase)];
            let halves = halves.map(|(unit, phase)| cell(&unit.op(*phase)));
            let [forward, backward] = halves;
            Some(format!("({};{}){OVERLAP}", forward?, backward?))
        }
        // A value names the chunk that reads it, or that it is the gradient for; torch's sends the stage that made it.
        Op::Send { value: Value::Hidden { microbatch, chunk }, .. } => {
            chunk.0.checked_sub(1).map(|stage| transfer(stage, "SEND_F", microbatch))
        }
        Op::Recv { value: Value::Hidden { microbatch, chunk }, .. } => {
            Some(transfer(chunk.0, "RECV_F", microbatch))
        }
        Op::Send { value: Value::HiddenGrad { microbatch, chunk }, .. } => {
            chunk.0.checked_add(1).map(|stage| transfer(stage, "SEND_B", microbatch))
        }
        Op::Recv { value: Value::HiddenGrad { microbatch, chunk }, .. } => {
            Some(transfer(chunk.0, "RECV_B", microbatch))
        }
        _ => None,
    };
    text.ok_or_else(|| FileError::NotLlm { op: op.to_string() })
}

/// A CSV as a table: empty cells left out, a step added to every rank. Empty lines at the end are not ranks.
///
/// # Errors
/// For a file without rows, a cell that is not an action, or communication with a stage that no row computes; with line
/// and column.
pub fn read(text: &str) -> Result<Table, FileError> {
    let text = text.trim_end();
    if text.is_empty() {
        return Err(FileError::Empty);
    }
    let mut rows = Vec::new();
    let mut stages = Stages::default();
    for (index, line) in text.lines().enumerate() {
        let mut cells = Vec::new();
        for cell in line.split(',').map(str::trim).filter(|cell| !cell.is_empty()) {
            let action = parse(cell).map_err(|what| FileError::at(index, line, cell, what))?;
            stages.note(index, &action);
            cells.push((cell, action));
        }
        rows.push(Row { line, cells });
    }
    let ops = |(rank, row): (usize, &Row<'_>)| {
        let mut ops = Vec::with_capacity(row.cells.len() + 1);
        for (cell, action) in &row.cells {
            let op = stages.op(rank, cell, action);
            ops.extend(op.map_err(|what| FileError::at(rank, row.line, cell, what))?);
        }
        ops.push(Op::Step);
        Ok(ops)
    };
    Ok(Table { ranks: rows.iter().enumerate().map(ops).collect::<Result<_, FileError>>()? })
}

/// A line with its cells that are not empty.
struct Row<'a> {
    line: &'a str,
    cells: Vec<(&'a str, Action)>,
}

/// What follows the two computations that run at once.
const OVERLAP: &str = "OVERLAP_F_B";

/// What a cell says.
enum Action {
    Compute(Compute),
    /// A forward and a backward.
    Overlap(Compute, Compute),
    Transfer {
        stage: usize,
        way: Way,
        microbatch: usize,
    },
    Parameters {
        stage: usize,
    },
}

/// A computation of a stage on a microbatch.
#[derive(Clone, Copy)]
struct Compute {
    stage: usize,
    what: What,
    microbatch: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Forward,
    InputGradient,
    WeightGradient,
    /// B: whole, or the input gradient, as the rest of the file says.
    Backward,
    /// BW.
    WholeBackward,
}

#[derive(Clone, Copy)]
enum Way {
    SendForward,
    ReceiveForward,
    SendBackward,
    ReceiveBackward,
}

/// Torch's actions that move a stage's parameters or gradients between replicas.
const PARAMETERS: [&str; 3] = ["UNSHARD", "RESHARD", "REDUCE_GRAD"];

/// What is wrong with a cell: a sentence that names it.
type CellError = String;

fn parse(cell: &str) -> Result<Action, CellError> {
    action(cell).ok_or_else(|| {
        format!(
            "'{cell}' is not a valid action: expected STAGE, one of F I W B BW SEND_F RECV_F SEND_B RECV_B, \
             MICROBATCH, as in 2F0; or (FORWARD;BACKWARD){OVERLAP}, as in (0F7;7B3){OVERLAP}; or STAGE and one of {}",
            PARAMETERS.join(" ")
        )
    })
}

/// A cell's stage, name and, where it has one, microbatch.
fn parts(cell: &str) -> Option<(usize, &str, Option<usize>)> {
    let (stage, rest) = cell.split_at(cell.find(|c: char| !c.is_ascii_digit())?);
    let (name, microbatch) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
    let microbatch = match microbatch {
        "" => None,
        digits => Some(number(digits)?),
    };
    Some((number(stage)?, name, microbatch))
}

fn action(cell: &str) -> Option<Action> {
    if let Some(pair) = cell.strip_prefix('(') {
        return overlap(pair.strip_suffix(OVERLAP)?.strip_suffix(')')?);
    }
    let (stage, name, microbatch) = parts(cell)?;
    // Of all actions, only those on parameters go without a microbatch.
    if PARAMETERS.contains(&name) {
        return Some(Action::Parameters { stage });
    }
    let way = match name {
        "SEND_F" => Some(Way::SendForward),
        "RECV_F" => Some(Way::ReceiveForward),
        "SEND_B" => Some(Way::SendBackward),
        "RECV_B" => Some(Way::ReceiveBackward),
        _ => None,
    };
    match way {
        Some(way) => Some(Action::Transfer { stage, way, microbatch: microbatch? }),
        None => compute(cell).map(Action::Compute),
    }
}

fn overlap(pair: &str) -> Option<Action> {
    let (one, other) = pair.split_once(';')?;
    let (one, other) = (compute(one.trim())?, compute(other.trim())?);
    let is_backward = |what| matches!(what, What::Backward | What::WholeBackward | What::InputGradient);
    match (one.what, other.what) {
        (What::Forward, what) if is_backward(what) => Some(Action::Overlap(one, other)),
        (what, What::Forward) if is_backward(what) => Some(Action::Overlap(other, one)),
        _ => None,
    }
}

fn compute(cell: &str) -> Option<Compute> {
    let (stage, name, microbatch) = parts(cell)?;
    let what = match name {
        "F" => What::Forward,
        "I" => What::InputGradient,
        "W" => What::WeightGradient,
        "B" => What::Backward,
        "BW" => What::WholeBackward,
        _ => return None,
    };
    Some(Compute { stage, what, microbatch: microbatch? })
}

/// What the cells of a file say together.
#[derive(Default)]
struct Stages {
    /// The rank of the first row that computes a stage.
    homes: HashMap<usize, usize>,
    /// Stage and microbatch of every weight gradient.
    weights: HashSet<(usize, usize)>,
    /// Stage and microbatch of every I.
    inputs: HashSet<(usize, usize)>,
}

impl Stages {
    fn note(&mut self, rank: usize, action: &Action) {
        let computes = match action {
            Action::Compute(compute) => [Some(compute), None],
            Action::Overlap(forward, backward) => [Some(forward), Some(backward)],
            Action::Transfer { .. } | Action::Parameters { .. } => [None; 2],
        };
        for compute in computes.into_iter().flatten() {
            self.homes.entry(compute.stage).or_insert(rank);
            match compute.what {
                What::WeightGradient => self.weights.insert((compute.stage, compute.microbatch)),
                What::InputGradient => self.inputs.insert((compute.stage, compute.microbatch)),
                What::Forward | What::Backward | What::WholeBackward => false,
            };
        }
    }

    fn phase(&self, compute: Compute) -> Phase {
        let unit = (compute.stage, compute.microbatch);
        match compute.what {
            What::Forward => Phase::Forward,
            What::InputGradient => Phase::BackwardInput,
            What::WeightGradient => Phase::BackwardWeight,
            What::Backward if self.weights.contains(&unit) && !self.inputs.contains(&unit) => {
                Phase::BackwardInput
            }
            What::Backward | What::WholeBackward => Phase::Backward,
        }
    }

    /// The op of a cell of a rank's row; none where a table has nothing for it.
    fn op(&self, rank: usize, cell: &str, action: &Action) -> Result<Option<Op>, CellError> {
        match *action {
            Action::Compute(compute) => {
                let phase = self.phase(compute);
                Ok(Some(Op::llm(Chunk(compute.stage), phase, Microbatch(compute.microbatch))))
            }
            Action::Overlap(forward, backward) => {
                let unit = |one: Compute| Unit::llm(Chunk(one.stage), Microbatch(one.microbatch));
                let phase = self.phase(backward);
                Ok(Some(Op::Overlap { forward: unit(forward), backward: unit(backward), phase }))
            }
            Action::Transfer { stage, way, microbatch } => {
                self.transfer(cell, stage, way, Microbatch(microbatch)).map(Some)
            }
            Action::Parameters { stage } if self.homes.get(&stage) == Some(&rank) => Ok(None),
            Action::Parameters { stage } => Err(format!(
                "'{cell}' moves parameters of stage {stage}, which this row does not compute: put it on the stage's \
                 own rank, or leave it out"
            )),
        }
    }

    fn transfer(&self, cell: &str, stage: usize, way: Way, microbatch: Microbatch) -> Result<Op, CellError> {
        let after =
            || stage.checked_add(1).ok_or_else(|| format!("'{cell}' names a stage that is too large"));
        let before =
            || stage.checked_sub(1).ok_or_else(|| format!("'{cell}' communicates before the first stage"));
        let peer = |other: usize| {
            let home = self.homes.get(&other).copied().map(Rank);
            home.ok_or_else(|| format!("'{cell}' communicates with stage {other}, which no row computes"))
        };
        Ok(match way {
            Way::SendForward => {
                let value = Value::Hidden { microbatch, chunk: Chunk(after()?) };
                Op::Send { value, to: peer(after()?)? }
            }
            Way::ReceiveForward => {
                let value = Value::Hidden { microbatch, chunk: Chunk(stage) };
                Op::Recv { value, from: peer(before()?)? }
            }
            Way::SendBackward => {
                let value = Value::HiddenGrad { microbatch, chunk: Chunk(before()?) };
                Op::Send { value, to: peer(before()?)? }
            }
            Way::ReceiveBackward => {
                let value = Value::HiddenGrad { microbatch, chunk: Chunk(stage) };
                Op::Recv { value, from: peer(after()?)? }
            }
        })
    }
}
