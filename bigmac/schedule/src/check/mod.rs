//! What must hold of a table: complete, free of deadlock, within memory; and communication that keeps it so.

mod budget;
mod lower;
mod validate;

pub use budget::{Budget, BudgetError, Limits, module_budget, module_budgets};
pub use lower::lower;
pub use validate::{Place, TransferFault, ValidateError, validate};
