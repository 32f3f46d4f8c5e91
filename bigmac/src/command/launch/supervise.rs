//! Watching the ranks of this node from their start to the end of the last one.

use super::children::Family;
use super::signals::{Request, Signals};
use super::verdict::{End, Failure, Weight};
use bigmac_comm::control::{LauncherMember, Loss};
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

/// Waits for all ranks to end. Once one fails, or the job has ended without them, the others are asked to end, and then
/// made to. All that they wrote is passed on when this returns.
///
/// # Errors
/// When the system says nothing of its processes; they are killed then.
pub(super) fn supervise(
    mut family: Family,
    signals: &mut Signals,
    patience: Patience,
    job: &LauncherMember,
) -> std::io::Result<End> {
    let mut state = State {
        patience,
        failure: None,
        loss: None,
        sent: Vec::new(),
        term: None,
        kill: None,
        is_interrupted: false,
    };
    loop {
        for (rank, status) in family.ended()? {
            if let Some(failure) = state.ended(rank, status, Instant::now()) {
                job.gone(rank, cause(&failure, family.last_error(rank)), failure.is_input());
            }
        }
        state.lost(job.loss(), Instant::now());
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

/// What other nodes are told of a rank's end.
fn cause(failure: &Failure, error: Option<String>) -> String {
    match error {
        Some(error) => format!("it {} ({error})", failure.ended()),
        None => format!("it {}", failure.ended()),
    }
}

struct State {
    patience: Patience,
    failure: Option<(Weight, Failure)>,
    /// The job's, which no rank of this node has to have noticed.
    loss: Option<Loss>,
    /// Signals that the ranks got.
    sent: Vec<i32>,
    /// When they are to get SIGTERM, and SIGKILL.
    term: Option<Instant>,
    kill: Option<Instant>,
    is_interrupted: bool,
}

impl State {
    /// The failure, where it is the first one and the rank's own affair.
    fn ended(&mut self, rank: usize, status: ExitStatus, now: Instant) -> Option<Failure> {
        if status.success() {
            return None;
        }
        let failure = Failure { rank, status };
        let weight = failure.weight(&self.sent);
        let is_first = self.failure.is_none();
        if is_first && self.loss.is_none() {
            self.term = Some(now + self.patience.own);
        }
        // The first of those that say the most.
        if self.failure.is_none_or(|(known, _)| weight > known) {
            self.failure = Some((weight, failure));
        }
        (is_first && weight == Weight::Own).then_some(failure)
    }

    /// The job has ended: ranks that hang, or are stopped, do not hear of it.
    fn lost(&mut self, loss: Option<Loss>, now: Instant) {
        if let (None, Some(loss)) = (&self.loss, loss) {
            if self.failure.is_none() {
                self.term = Some(now + self.patience.own);
            }
            self.loss = Some(loss);
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

    fn end(self) -> End {
        match (self.failure, self.loss) {
            _ if self.is_interrupted => End::Interrupted,
            (Some((Weight::Signalled, _)), Some(loss)) => End::Lost(loss),
            (Some((_, failure)), _) => End::Failed(failure),
            (None, _) => End::Done,
        }
    }
}
