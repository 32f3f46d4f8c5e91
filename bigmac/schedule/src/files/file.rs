//! Tables in files: the [text form](crate::files::text), or [torch's CSV](crate::files::torch_csv) where the name ends in `.csv`.

use std::fmt;
use std::path::Path;

use thiserror::Error;

use crate::api::with_step;
use crate::files::text::TextError;
use crate::files::torch_csv::{self, CsvError};
use crate::step::table::{Module, Op, Table};
use crate::step::workload::Workload;

/// How a file holds a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A line per rank, all ops.
    Text,
    /// The CSV of torch.distributed.pipelining, the LLM's ops alone.
    Csv,
}

/// A file that holds no table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// Text that is none.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A CSV that is none.
    #[error(transparent)]
    Csv(#[from] CsvError),
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
    /// Where it is no table, with line and column.
    pub fn read(self, content: &str) -> Result<Table, ReadError> {
        let table: Table = match self {
            Form::Text => content.parse()?,
            Form::Csv => torch_csv::read(content)?,
        };
        let steps = table.iter().any(|(_, op)| *op == Op::Step);
        Ok(if steps { table } else { with_step(table) })
    }

    /// What a file says for a table.
    ///
    /// # Errors
    /// Where the CSV has no way to say an op.
    pub fn write(self, table: &Table) -> Result<String, CsvError> {
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
            extent.microbatches = extent.microbatches.max(unit.microbatch().0 + 1);
            if let Module::Llm(chunk) = unit.module {
                extent.chunks = extent.chunks.max(chunk.0 + 1);
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

/// A table of another size than the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the table is for {table}, but the step has {workload}: make them the same")]
pub struct Misfit {
    /// What the table is for.
    pub table: Extent,
    /// What it was to be run as.
    pub workload: Extent,
}

/// Checks that a table is for a step of this size, before [`validate`](crate::check::validate::validate) looks at its ops.
///
/// # Errors
/// Where it is not.
pub fn fits(table: &Table, workload: &Workload) -> Result<(), Misfit> {
    let (ranks, chunks, microbatches) = (workload.ranks(), workload.chunks(), workload.len());
    let (table, workload) = (Extent::of(table), Extent { ranks, chunks, microbatches });
    if table == workload { Ok(()) } else { Err(Misfit { table, workload }) }
}
