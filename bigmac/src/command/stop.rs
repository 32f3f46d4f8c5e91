//! Ctrl-C: the first one asks the run to save and end, the second one ends it at once.

use anyhow::Context;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// A flag that the first Ctrl-C (or SIGTERM) raises.
///
/// # Errors
/// When the system refuses the handler.
pub fn on_interrupt() -> anyhow::Result<&'static AtomicBool> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            // 128 + SIGINT, as shells report a program that was interrupted.
            std::process::exit(130);
        }
        eprintln!("\nSaving a checkpoint behind this step; Ctrl-C again ends at once.");
    })
    .context("can't listen for Ctrl-C")?;
    Ok(&STOP)
}
