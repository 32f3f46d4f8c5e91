//! Activations within their budgets.

use super::ValidateError;
use crate::check::budget::{Budget, Limits};
use crate::clock::memory::{peak_bytes, peak_microbatches};
use crate::step::{ModuleKind, Rank, Table, Workload};

pub(super) fn check(table: &Table, workload: &Workload, limits: &Limits) -> Result<(), ValidateError> {
    // Where every unit's size is known, bytes are exact; otherwise a microbatch's stand for all.
    let known = workload.units().all(|unit| workload.saved(unit).is_some());
    let exact = known.then(|| peak_bytes(table, workload, |unit| workload.saved(unit).unwrap_or(0)));
    for (rank, peaks) in peak_microbatches(table, workload).into_iter().enumerate() {
        for module in ModuleKind::ALL {
            let Some(budget) = limits.budget[module] else { continue };
            let microbatches = peaks[module];
            let (peak, over) = match budget {
                Budget::Microbatches(most) => {
                    (Budget::Microbatches(microbatches), microbatches > most + 1e-9)
                }
                Budget::Bytes(most) => {
                    let estimate = limits.microbatch_bytes[module]
                        .map(|size| (microbatches * size as f64).round() as u64);
                    let bytes = exact.as_ref().map(|peaks| peaks[rank][module]).or(estimate);
                    let bytes = bytes.ok_or(ValidateError::NoSize { module, budget })?;
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
