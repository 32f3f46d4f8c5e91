//! Tables of the LLM alone in the CSV of torch.distributed.pipelining (`_load_csv` of a schedule, compute only): a row
//! per rank, an action such as `2F0` (stage 2, forward, microbatch 0) per cell, with F, B (whole backward), I, W.

use thiserror::Error;

use super::table::{Chunk, Microbatch, Module, Op, Phase, Table, Work};

/// A table that the CSV cannot say, or a CSV that is no table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CsvError {
    /// An op of another module, or communication.
    #[error(
        "torch's CSV has no way to say `{op}`: it knows forward, backward and its two halves of LLM stages only"
    )]
    Op {
        /// The op.
        op: String,
    },
    /// A cell that is no action.
    #[error(
        "cell {cell} of row {row}, `{text}`, is no action: wanted STAGE, one of F B I W, MICROBATCH, as in 2F0"
    )]
    Cell {
        /// From 1.
        row: usize,
        /// From 1.
        cell: usize,
        /// What it says.
        text: String,
    },
}

/// The table as CSV; optimizer steps, which the CSV leaves to its reader, are left out.
///
/// # Errors
/// Where an op is not a forward, backward or part of one of an LLM chunk.
pub fn write(table: &Table) -> Result<String, CsvError> {
    let mut text = String::new();
    for ops in &table.ranks {
        let cells: Vec<String> =
            ops.iter().filter(|op| **op != Op::Step).map(action).collect::<Result<_, CsvError>>()?;
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    Ok(text)
}

fn action(op: &Op) -> Result<String, CsvError> {
    match op {
        Op::Compute { module: Module::Llm(chunk), phase, work: Work::Microbatch(microbatch) }
            if *phase != Phase::Recompute =>
        {
            Ok(format!("{}{phase}{}", chunk.0, microbatch.0))
        }
        other => Err(CsvError::Op { op: other.to_string() }),
    }
}

/// A CSV as a table, empty cells (torch's idle slots) left out and a step added to every rank.
///
/// # Errors
/// Where a cell is no compute action.
pub fn read(text: &str) -> Result<Table, CsvError> {
    let rows = text.lines().enumerate().map(|(row, line)| {
        let cells = line.split(',').enumerate().filter(|(_, cell)| !cell.trim().is_empty());
        let ops = cells.map(|(cell, text)| {
            let text = text.trim();
            parse(text).ok_or_else(|| CsvError::Cell { row: row + 1, cell: cell + 1, text: text.to_owned() })
        });
        ops.chain([Ok(Op::Step)]).collect()
    });
    Ok(Table { ranks: rows.collect::<Result<_, _>>()? })
}

fn parse(text: &str) -> Option<Op> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (stage, rest) = text.split_at(at);
    let mut letters = rest.chars();
    let phase = Phase::from_letter(letters.next()?).filter(|phase| *phase != Phase::Recompute)?;
    Some(Op::llm(Chunk(stage.parse().ok()?), phase, Microbatch(letters.as_str().parse().ok()?)))
}
