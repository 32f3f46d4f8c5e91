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
            let peak = match (budget, &exact) {
                (Budget::Bytes(_), Some(bytes)) => Budget::Bytes(bytes[rank][module]),
                _ => limits.in_unit_of(budget, module, peaks[module])?,
            };
            if budget.is_exceeded_by(peak) {
                return Err(ValidateError::Budget { module, rank: Rank(rank), peak, budget });
            }
        }
    }
    Ok(())
}
