//! What must hold of a table: complete, free of deadlock, within memory; and communication that keeps it so.

mod budget;
mod lower;
mod measure;
mod validate;

pub use budget::{Budget, BudgetError, Limits, UnknownSize, module_budget, module_budgets};
pub use lower::lower;
pub(crate) use measure::Measures;
pub use measure::peak_budget_bytes;
pub use validate::{Place, TransferFault, ValidateError, validate};
