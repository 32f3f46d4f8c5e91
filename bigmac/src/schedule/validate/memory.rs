//! Activations within their budgets.

use super::ValidateError;
use crate::schedule::budget::{Budget, Limits};
use crate::schedule::memory::peak_microbatches;
use crate::schedule::table::{ModuleKind, Rank, Table};
use crate::schedule::workload::Workload;

pub(super) fn check(table: &Table, workload: &Workload, limits: &Limits) -> Result<(), ValidateError> {
    for (rank, peaks) in peak_microbatches(table, workload).into_iter().enumerate() {
        for module in ModuleKind::ALL {
            let Some(budget) = limits.budget[module] else { continue };
            let microbatches = peaks[module];
            let (peak, over) = match budget {
                Budget::Microbatches(most) => {
                    (Budget::Microbatches(microbatches), microbatches > most + 1e-9)
                }
                Budget::Bytes(most) => {
                    let size =
                        limits.microbatch_bytes[module].ok_or(ValidateError::NoSize { module, budget })?;
                    let bytes = (microbatches * size as f64).round() as u64;
                    (Budget::Bytes(bytes), bytes > most)
                }
            };
            if over {
                return Err(ValidateError::Budget { module, rank: Rank(rank), peak, budget });
            }
        }
    }
    Ok(())
}
