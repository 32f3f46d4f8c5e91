//! The end of a rank whose job has ended without it.

use super::JobError;
use bigmac_comm::{EngineError, MpiEngine};
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long MPI may take to start: on many hosts it looks for networks.
const START: Duration = Duration::from_secs(300);

/// How long others may take to leave.
pub(super) const PATIENCE: Duration = Duration::from_secs(3600 * 24);

/// How long a rank has to stop by itself once the job has ended: an engine or a device may hold it.
const GRACE: Duration = Duration::from_secs(5);

/// `EX_TEMPFAIL` of sysexits.h.
const START_AGAIN: i32 = 75;

/// Set once somebody has said why this rank stops.
static SAID: AtomicBool = AtomicBool::new(false);

/// Set from the start of MPI until it is finalized.
static MPI_IS_OPEN: AtomicBool = AtomicBool::new(false);

/// Starts MPI; until it is over, [`exit`] ends the process at once.
pub(super) fn start_mpi() -> Result<MpiEngine, EngineError> {
    MPI_IS_OPEN.store(true, Ordering::SeqCst);
    MpiEngine::start(START)
}

/// MPI is finalized.
pub(super) fn mpi_is_over() {
    MPI_IS_OPEN.store(false, Ordering::SeqCst);
}

/// Ends the process with a code: at once where MPI could not be finalized, whose exit handlers wait for ranks that are
/// gone. Whatever is to be written has been written.
pub fn exit(code: u8) -> ExitCode {
    if MPI_IS_OPEN.load(Ordering::SeqCst) {
        // SAFETY: it ends the process at once, without destructors or handlers.
        unsafe { libc::_exit(i32::from(code)) }
    }
    ExitCode::from(code)
}

/// Whoever gets true is to say why this rank stops.
pub(super) fn may_speak() -> bool {
    !SAID.swap(true, Ordering::SeqCst)
}

/// Ends this process after a while, unless it has done so by then.
pub(super) fn end_soon(why: JobError) {
    let end = move || {
        std::thread::sleep(GRACE);
        if may_speak() {
            let _ = writeln!(std::io::stderr(), "error: {why}");
        }
        // SAFETY: it ends the process at once, without destructors or handlers that could wait for what is lost.
        unsafe { libc::_exit(START_AGAIN) }
    };
    // Where there is no thread to be had, the rank has to stop by itself.
    let _ = std::thread::Builder::new().name("last words".into()).spawn(end);
}
