//! Tables of the LLM alone in the CSV of torch.distributed.pipelining (what a schedule's `_dump_csv` writes and its
//! `_load_csv` reads): a row per rank, an action such as `2F0` per cell, for stage 2, forward, microbatch 0. A stage is
//! a chunk: with v chunks per rank, rank r holds stages r, r + p, and so on. Actions are F, B (the whole backward), I
//! (input gradient) and W (weight gradient); an empty cell is an idle slot.
//!
//! Torch's other form (`compute_comms`) also has cells for communication (`2SEND_F0`, `2RECV_B0`, `2UNSHARD`, ...).
//! Reading leaves them out: who sends what to whom follows from the compute actions, and
//! [`lower`](crate::lower) adds it. Writing gives the compute actions alone (`compute_only`).

use super::FileError;
use super::text::phase;
use crate::step::{Chunk, Microbatch, Module, Op, Phase, Table, Work};

/// Torch's actions that move activations, parameters or gradients.
const COMMUNICATION: [&str; 7] =
    ["SEND_F", "RECV_F", "SEND_B", "RECV_B", "UNSHARD", "RESHARD", "REDUCE_GRAD"];

/// The table as CSV; optimizer steps, which the CSV leaves to its reader, are left out.
///
/// # Errors
/// Where an op is not a forward, backward or part of one of an LLM chunk.
pub fn write(table: &Table) -> Result<String, FileError> {
    let mut text = String::new();
    for ops in &table.ranks {
        let cells: Vec<String> =
            ops.iter().filter(|op| **op != Op::Step).map(action).collect::<Result<_, FileError>>()?;
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    Ok(text)
}

fn action(op: &Op) -> Result<String, FileError> {
    match op {
        Op::Compute { module: Module::Llm(chunk), phase, work: Work::Microbatch(microbatch) }
            if *phase != Phase::Recompute =>
        {
            Ok(format!("{}{}{}", chunk.0, phase.letter(), microbatch.0))
        }
        other => Err(FileError::NotLlm { op: other.to_string() }),
    }
}

/// A CSV as a table: empty cells and communication left out, a step added to every rank. Empty lines at the end are not
/// ranks.
///
/// # Errors
/// For a file without rows, or a cell that is not an action; with line and column.
pub fn read(text: &str) -> Result<Table, FileError> {
    let text = text.trim_end();
    if text.is_empty() {
        return Err(FileError::Empty);
    }
    let ranks = text.lines().enumerate().map(|(index, line)| {
        let cells = line.split(',').map(str::trim).filter(|cell| !cell.is_empty());
        let ops = cells.filter_map(|cell| match parse(cell) {
            Some(Cell::Compute(op)) => Some(Ok(op)),
            Some(Cell::Communication) => None,
            None => {
                let what = format!(
                    "'{cell}' is not a valid action: expected STAGE, one of F B I W, MICROBATCH, as in 2F0"
                );
                Some(Err(FileError::at(index, line, cell, what)))
            }
        });
        ops.chain([Ok(Op::Step)]).collect()
    });
    Ok(Table { ranks: ranks.collect::<Result<_, _>>()? })
}

enum Cell {
    Compute(Op),
    Communication,
}

fn parse(text: &str) -> Option<Cell> {
    let digits_end = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (stage, rest) = text.split_at(digits_end(text));
    let (name, microbatch) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
    let stage: usize = stage.parse().ok()?;
    // Of all actions, only those on parameters go without a microbatch.
    let number = microbatch.parse::<usize>().ok();
    if COMMUNICATION.contains(&name) && (number.is_some() || microbatch.is_empty()) {
        return Some(Cell::Communication);
    }
    let mut letters = name.chars();
    let phase = letters.next().and_then(phase).filter(|phase| *phase != Phase::Recompute)?;
    let whole = letters.as_str().is_empty();
    whole.then_some(Cell::Compute(Op::llm(Chunk(stage), phase, Microbatch(number?))))
}
