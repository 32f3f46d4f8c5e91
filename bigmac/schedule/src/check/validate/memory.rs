//! Activations within their budgets.

use super::ValidateError;
use crate::check::budget::Limits;
use crate::check::measure::Measures;
use crate::step::{ModuleKind, PerModule, Rank, Table, Workload};

pub(super) fn check(table: &Table, workload: &Workload, limits: &Limits) -> Result<(), ValidateError> {
    if limits.budget == PerModule::default() {
        return Ok(());
    }
    let measures = Measures::new(workload, limits)?;
    for (rank, peaks) in measures.peaks(table).into_iter().enumerate() {
        for module in ModuleKind::ALL {
            let Some(budget) = limits.budget[module] else { continue };
            if peaks[module] > measures.room(module, budget) {
                let peak = measures.budget(module, peaks[module]);
                return Err(ValidateError::Budget { module, rank: Rank(rank), peak, budget });
            }
        }
    }
    Ok(())
}
