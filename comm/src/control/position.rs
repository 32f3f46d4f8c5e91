//! Where a rank is in its work: set at every op, sent with every beat.

use super::loss::At;
use std::fmt::{Display, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Where this rank is. Clones set the same position.
#[derive(Clone, Debug, Default)]
pub struct Position(Arc<Mutex<Option<At>>>);

impl Position {
    /// Sets it. Cheap enough for every op: the text's memory is used again.
    pub fn set(&self, step: u64, op: usize, text: impl Display) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = held.get_or_insert_default();
        (at.step, at.op) = (step, op);
        at.text.clear();
        // A text that cannot be written is left as far as it came.
        let _ = write!(at.text, "{text}");
    }

    /// What was set last.
    pub fn get(&self) -> Option<At> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
