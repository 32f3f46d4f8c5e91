//! Execution: one executor runs every schedule for real, with explicit activation buffers.

mod buffers;
mod cost;
mod error;
mod rates;
mod run;
mod task;
mod unit;

pub use buffers::ActivationBuffers;
pub use cost::CostModel;
pub use error::ExecuteError;
pub use rates::{Rate, Rates, UnitRates};
pub use run::{Measured, Program, activation_scope, run};
pub use task::StepTask;
pub use unit::LossPart;
