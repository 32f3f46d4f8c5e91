//! Signals. The first Ctrl-C asks the run to save and end, the second one ends it at once; where nothing is left to save
//! the first one does. What batch systems send before they take a machine away is a request to save as well.

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static PHASE: AtomicU8 = AtomicU8::new(PREPARING);

/// Nothing was learned yet.
const PREPARING: u8 = 0;
/// What was learned since the last checkpoint would be lost.
const TRAINING: u8 = 1;
/// All that was learned is on disk.
const SAVED: u8 = 2;

/// A program that a signal ended has this and the signal's number as its code, as shells report it.
const ENDED: i32 = super::exit::ENDED as i32;

/// A flag that a signal raises which asks for an end.
///
/// # Errors
/// When the system refuses the handler.
pub fn on_signals() -> anyhow::Result<&'static AtomicBool> {
    let all = [SIGINT, SIGTERM, SIGUSR1, SIGUSR2].into_iter().chain((!is_ignored(SIGHUP)).then_some(SIGHUP));
    let mut signals = Signals::new(all).context("cannot listen for signals")?;
    let listen = move || signals.forever().for_each(take);
    std::thread::Builder::new().name("signals".into()).spawn(listen).context("cannot listen for signals")?;
    Ok(&STOP)
}

/// Whether whoever started this process wants it to go on at a signal, as `nohup` does.
pub(super) fn is_ignored(signal: i32) -> bool {
    // SAFETY: the action is plain data that is valid as zeros; with none to be set, the call only writes it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

fn take(signal: i32) {
    // They say that an end is near: whoever sends them wants the process to end by itself.
    let is_notice = [SIGUSR1, SIGUSR2].contains(&signal);
    let is_first = !STOP.swap(true, Ordering::Relaxed);
    // A batch system may have asked before, and say it again: it is a second Ctrl-C that is impatient.
    let is_impatient = signal == SIGINT && INTERRUPTED.swap(true, Ordering::Relaxed);
    match PHASE.load(Ordering::Relaxed) {
        PREPARING if !is_notice => std::process::exit(ENDED + signal),
        PREPARING => super::note("Stopping after the first step, with a checkpoint."),
        TRAINING if is_impatient => std::process::exit(ENDED + signal),
        TRAINING if is_first => {
            super::note("\nSaving a checkpoint after this step; Ctrl-C again ends at once.")
        }
        SAVED if signal == SIGINT => std::process::exit(ENDED + signal),
        SAVED if is_first => super::note("\nEverything is saved; the run ends after its evaluation."),
        _ => {}
    }
}

/// From here on there is something to save.
pub fn training() {
    PHASE.store(TRAINING, Ordering::Relaxed);
}

/// From here on all that was learned is on disk.
pub fn all_saved() {
    PHASE.store(SAVED, Ordering::Relaxed);
}
