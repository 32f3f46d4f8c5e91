//! Watching the ranks of this node from their start to the end of the last one.

use super::children::Family;
use super::signals::{Request, Signals};
use super::verdict::{End, Failure, Weight};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// How long others are given when one rank has failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// To end by themselves, as the control plane has told them: they say why.
    pub own: Duration,
    /// From SIGTERM to SIGKILL.
    pub term: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { own: Duration::from_secs(1), term: Duration::from_secs(15) }
    }
}

/// Looked at this often even without a signal.
const LOOK: Duration = Duration::from_secs(1);

/// Waits for all ranks to end. Once one fails, the others are asked to end, and then made to. All that they wrote is
/// passed on when this returns.
///
/// # Errors
/// When the system says nothing of its processes; they are killed then.
pub(super) fn supervise(
    mut family: Family,
    signals: &mut Signals,
    patience: Patience,
) -> std::io::Result<End> {
    let mut state =
        State { patience, failure: None, sent: Vec::new(), term: None, kill: None, is_interrupted: false };
    loop {
        for (rank, status) in family.ended()? {
            state.ended(rank, status, Instant::now());
        }
        if family.is_over() {
            family.drain();
            return Ok(state.end());
        }
        for signal in state.due(Instant::now()) {
            family.signal(signal);
            // It would hear of no other signal.
            if family.kill_stopped() {
                state.sent.push(libc::SIGKILL);
            }
        }
        match signals.next(state.next(Instant::now())) {
            Some(Request::Stop(signal)) => {
                state.sent.push(signal);
                family.signal(signal);
            }
            Some(Request::End) => {
                state.is_interrupted = true;
                family.signal(libc::SIGKILL);
            }
            None => {}
        }
    }
}

struct State {
    patience: Patience,
    failure: Option<(Weight, Failure)>,
    /// Signals that the ranks got.
    sent: Vec<i32>,
    /// When they are to get SIGTERM, and SIGKILL.
    term: Option<Instant>,
    kill: Option<Instant>,
    is_interrupted: bool,
}

impl State {
    fn ended(&mut self, rank: usize, status: ExitStatus, now: Instant) {
        if status.success() {
            return;
        }
        let failure = Failure { rank, status };
        let weight = failure.weight(&self.sent);
        if self.failure.is_none() {
            self.term = Some(now + self.patience.own);
        }
        // The first of those that say the most.
        if self.failure.is_none_or(|(known, _)| weight > known) {
            self.failure = Some((weight, failure));
        }
    }

    /// The signals whose time has come.
    fn due(&mut self, now: Instant) -> Vec<i32> {
        let mut due = Vec::new();
        if self.term.take_if(|at| *at <= now).is_some() {
            self.kill = Some(now + self.patience.term);
            due.push(libc::SIGTERM);
        }
        if self.kill.take_if(|at| *at <= now).is_some() {
            due.push(libc::SIGKILL);
        }
        self.sent.extend(&due);
        due
    }

    /// How long nothing is due.
    fn next(&self, now: Instant) -> Duration {
        let times = [self.term, self.kill].into_iter().flatten();
        times.map(|at| at.saturating_duration_since(now)).min().map_or(LOOK, |left| left.min(LOOK))
    }

    fn end(&self) -> End {
        match self.failure {
            _ if self.is_interrupted => End::Interrupted,
            Some((_, failure)) => End::Failed(failure),
            None => End::Done,
        }
    }
}
