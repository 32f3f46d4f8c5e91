//! Tables in files: the round-trip text form, or the CSV of torch.distributed.pipelining where the name ends in `.csv`.

mod text;
mod torch_csv;

use crate::step::{ChunkPlacement, Module, Op, Table, Workload};
use std::fmt;
use std::path::Path;
use thiserror::Error;

/// How a file holds a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A line per rank, all ops.
    Text,
    /// The CSV of torch.distributed.pipelining, the LLM's ops alone.
    Csv,
}

/// A file that does not hold a table of the step, or a table that the file cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)]
pub enum FileError {
    /// A word or cell that does not belong there; line and column count from 1, columns in characters.
    #[error("line {line}, column {column}: {what}")]
    Text { line: usize, column: usize, what: String },
    #[error("the CSV is empty: expected a row of actions per rank")]
    Empty,
    #[error(
        "torch's CSV cannot hold '{op}': it knows forward, backward and its two halves of LLM stages, and their \
         communication"
    )]
    NotLlm { op: String },
    /// A table of another size than the step.
    #[error("the table is for {table}, but the step has {workload}: make them the same")]
    Misfit { table: Extent, workload: Extent },
}

impl FileError {
    /// What is wrong with a part of a line, the `index`-th from 0.
    fn at(index: usize, line: &str, part: &str, what: String) -> FileError {
        let bytes = (part.as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
        let column = line.get(..bytes).map_or(1, |before| before.chars().count() + 1);
        FileError::Text { line: index + 1, column, what }
    }
}

impl Form {
    /// The form that a file's name says.
    pub fn of(path: &Path) -> Form {
        let csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        if csv { Form::Csv } else { Form::Text }
    }

    /// The table that a file's content says. Where no rank has an optimizer step, as in files that know compute only,
    /// every rank gets one at its end.
    ///
    /// # Errors
    /// Where it is not a table, with line and column.
    pub fn read(self, content: &str) -> Result<Table, FileError> {
        let table: Table = match self {
            Form::Text => content.parse()?,
            Form::Csv => torch_csv::read(content)?,
        };
        let steps = table.iter().any(|(_, op)| *op == Op::Step);
        Ok(if steps { table } else { table.with_step() })
    }

    /// What a file says for a table.
    ///
    /// # Errors
    /// Where the CSV has no way to say an op.
    pub fn write(self, table: &Table) -> Result<String, FileError> {
        match self {
            Form::Text => Ok(table.to_string()),
            Form::Csv => torch_csv::write(table),
        }
    }
}

/// How large a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Ranks.
    pub ranks: usize,
    /// LLM chunks on all ranks together.
    pub chunks: usize,
    /// Microbatches.
    pub microbatches: usize,
}

impl Extent {
    /// As far as a table's ops reach.
    pub fn of(table: &Table) -> Extent {
        let mut extent = Extent { ranks: table.ranks.len(), chunks: 0, microbatches: 0 };
        for unit in table.iter().flat_map(|(_, op)| op.units()) {
            extent.microbatches = extent.microbatches.max(unit.microbatch().0.saturating_add(1));
            if let Module::Llm(chunk) = unit.module {
                extent.chunks = extent.chunks.max(chunk.0.saturating_add(1));
            }
        }
        extent
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Extent { ranks, chunks, microbatches } = self;
        write!(f, "{ranks} ranks, {chunks} LLM chunks and {microbatches} microbatches")
    }
}

/// Where a table has the LLM's chunks: the placement that most of its LLM ops agree with, so that where none is right
/// the error is about the odd ones.
pub fn placement_of(table: &Table) -> ChunkPlacement {
    let agree = |placement: ChunkPlacement| {
        let units = table.iter().flat_map(|(rank, op)| op.units().map(move |unit| (rank, unit.module)));
        let home = |module| match module {
            Module::Llm(chunk) => Some(placement.rank_of(chunk, table.ranks.len())),
            Module::Encoder(_) | Module::Generator(_) => None,
        };
        units.filter(|(rank, module)| home(*module) == Some(*rank)).count()
    };
    let turns = agree(ChunkPlacement::V) > agree(ChunkPlacement::Loop);
    if turns { ChunkPlacement::V } else { ChunkPlacement::Loop }
}

/// Checks that a table is for a step of this size, before [`validate`](crate::validate) looks at its ops.
///
/// # Errors
/// Where it is not.
pub fn fits(table: &Table, workload: &Workload) -> Result<(), FileError> {
    let (ranks, chunks, microbatches) = (workload.ranks(), workload.chunks(), workload.len());
    let (table, workload) = (Extent::of(table), Extent { ranks, chunks, microbatches });
    if table == workload { Ok(()) } else { Err(FileError::Misfit { table, workload }) }
}
