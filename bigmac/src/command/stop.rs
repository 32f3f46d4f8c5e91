//! Ctrl-C: the first one asks the run to save and end, the second one ends it at once. Where nothing is left to save
//! the first one does.

use anyhow::Context;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);
static SAVED: AtomicBool = AtomicBool::new(false);

/// 128 + SIGINT, as shells report a program that was interrupted.
const INTERRUPTED: i32 = 130;

/// A flag that the first Ctrl-C (or SIGTERM) raises.
///
/// # Errors
/// When the system refuses the handler.
pub fn on_interrupt() -> anyhow::Result<&'static AtomicBool> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) || SAVED.load(Ordering::Relaxed) {
            std::process::exit(INTERRUPTED);
        }
        super::note("\nSaving a checkpoint after this step; Ctrl-C again ends at once.");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(&STOP)
}

/// From here on all that was learned is on disk: Ctrl-C ends at once.
pub fn all_saved() {
    SAVED.store(true, Ordering::Relaxed);
}
