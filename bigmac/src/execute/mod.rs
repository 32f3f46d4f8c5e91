//! Execution: one executor runs every schedule for real, with explicit activation buffers.

mod buffers;
mod clock;
mod cost;
mod encoder;
mod error;
mod generator;
mod inputs;
mod llm;
mod losses;
mod rates;
mod run;
mod sizes;
mod sources;
mod task;
mod unit;

pub use buffers::ActivationBuffers;
pub use cost::CostModel;
pub use error::ExecuteError;
pub use losses::{LossSums, Losses, QueuedLosses};
pub use rates::{Rate, Rates, UnitRates};
pub use run::{Measured, Program, Ran, Record, activation_scope, run};
pub use task::StepTask;
pub use unit::LossPart;
