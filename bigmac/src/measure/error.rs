//! What can go wrong in a measurement.

use crate::train::TrainError;
use thiserror::Error;

/// Why something is not measured.
#[derive(Debug, Error)]
pub enum MeasureError {
    /// A run, or a schedule that does not exist for the step, does not keep to a budget, or cannot run.
    #[error(transparent)]
    Train(Box<TrainError>),
    /// A schedule that needs another number of ranks.
    #[error("with ranks of its own for encoder and generator it cannot use exactly {ranks}: give more ranks")]
    #[allow(missing_docs)]
    Ranks { ranks: usize },
    /// Nothing was measured.
    #[error("a profile needs at least one {what}, but 0 were asked for")]
    #[allow(missing_docs)]
    Nothing { what: &'static str },
}

impl<E: Into<TrainError>> From<E> for MeasureError {
    fn from(error: E) -> Self {
        MeasureError::Train(Box::new(error.into()))
    }
}
