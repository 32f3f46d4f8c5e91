//! How the ranks of a node ended, and which of them is the cause.

use super::super::exit::{BAD_INPUT, ENDED, INTERRUPTED, START_AGAIN};
use bigmac_comm::control::Loss;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// How one start of all ranks ended.
#[derive(Debug)]
pub(super) enum End {
    /// All are done.
    Done,
    /// One of them is the cause.
    Failed(Failure),
    /// The job has ended without them: they ended by signals from here.
    Lost(Loss),
    /// A second Ctrl-C.
    Interrupted,
}

/// A rank that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub rank: usize,
    pub status: ExitStatus,
}

/// What says the most about why all of them ended: the more, the later here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// It ended by a signal that it got from here.
    Signalled,
    /// It lost another one.
    Lost,
    /// Its own affair.
    Own,
}

/// A panic of Rust.
const PANIC: u8 = 101;
const FAILED: u8 = 1;

impl Failure {
    /// The code that it ends with, as shells count them.
    pub fn code(&self) -> u8 {
        let code =
            self.status.code().or_else(|| self.status.signal().map(|signal| i32::from(ENDED) + signal));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
    }

    /// How much it says of the cause, after these signals were sent to it.
    pub fn weight(&self, sent: &[i32]) -> Weight {
        let code = i32::from(self.code());
        if sent.iter().any(|signal| code == i32::from(ENDED) + signal) {
            Weight::Signalled
        } else if code == i32::from(START_AGAIN) {
            Weight::Lost
        } else {
            Weight::Own
        }
    }

    /// Whether the next start may go better.
    pub fn is_worth_a_restart(&self) -> bool {
        let again = [FAILED, START_AGAIN, PANIC];
        let never = [0, BAD_INPUT, INTERRUPTED];
        let is_killed = self.status.signal().is_some();
        !never.contains(&self.code()) && (is_killed || again.contains(&self.code()))
    }

    /// Whether the same start would fail again.
    pub fn is_input(&self) -> bool {
        self.code() == BAD_INPUT
    }

    /// How it ended.
    pub fn ended(&self) -> String {
        match (self.status.signal(), self.status.code()) {
            (Some(signal), _) => format!("was ended by signal {signal}{}", name(signal)),
            (None, Some(code)) => format!("ended with exit code {code}"),
            (None, None) => "ended without an exit code".into(),
        }
    }

    /// It, and what the control plane knows of it, in a sentence.
    pub fn said(&self, loss: Option<&Loss>) -> String {
        let rank = self.rank;
        let ended = format!("rank {rank} {}", self.ended());
        match loss {
            Some(loss) => format!("{ended} ({loss})"),
            None => format!("{ended}; its own messages, marked [r{rank}], are above"),
        }
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        libc::SIGKILL => " (SIGKILL: by somebody, or by the system for want of memory)",
        libc::SIGTERM => " (SIGTERM)",
        libc::SIGINT => " (SIGINT)",
        libc::SIGABRT => " (SIGABRT)",
        libc::SIGSEGV => " (SIGSEGV: a fault in a driver or in this program)",
        libc::SIGBUS => " (SIGBUS: a mapped file was cut short, or shared memory is full)",
        _ => "",
    }
}
