//! One rank's view of the others: what has arrived from them, who has ended, and the failure that stops everything.
//! Ranks that are threads and ranks that are processes wait here alike.

mod inbox;

pub use inbox::{Arrived, Awaited, Content, GroupId, Inbox, Letter, OtherCall, Part, Round};

use crate::error::{CommError, Result};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The first failure that a rank learnt of.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The rank that is the cause.
    pub rank: usize,
    pub reason: String,
}

struct State {
    inbox: Inbox,
    failure: Option<Failure>,
    /// Which ranks make no more calls, the owner included.
    ended: Vec<bool>,
}

/// What a rank has received and knows of its peers, and where its calls wait.
pub struct Mailbox {
    rank: usize,
    timeout: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

impl Mailbox {
    /// The mailbox of rank `rank` in a world of `size`; a wait fails after `timeout`.
    pub fn new(rank: usize, size: usize, timeout: Duration) -> Self {
        let state = State { inbox: Inbox::default(), failure: None, ended: vec![false; size] };
        Mailbox { rank, timeout, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The owner.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How long a call waits.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Every critical section leaves the state whole, so a panic elsewhere does not matter.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files what came from `from`; false, and nothing happens, when the owner has ended.
    pub fn put(&self, from: usize, letter: Letter) -> bool {
        let mut state = self.lock();
        if state.ended[self.rank] {
            return false;
        }
        state.inbox.put(from, letter);
        self.changed.notify_all();
        true
    }

    /// Records a failure and wakes the owner; false, and nothing happens, when there was one before.
    pub fn fail(&self, rank: usize, reason: &str) -> bool {
        let mut state = self.lock();
        if state.failure.is_some() {
            return false;
        }
        state.failure = Some(Failure { rank, reason: reason.to_owned() });
        self.changed.notify_all();
        true
    }

    /// Records that a rank makes no more calls. What it sent before must have been put in before.
    pub fn end(&self, rank: usize) {
        let mut state = self.lock();
        if let Some(ended) = state.ended.get_mut(rank) {
            *ended = true;
        }
        self.changed.notify_all();
    }

    /// The first failure, if there was one.
    pub fn failure(&self) -> Option<Failure> {
        self.lock().failure.clone()
    }

    /// Lets waits look again: something outside the mailbox has changed.
    pub fn nudge(&self) {
        // A wait that has looked holds the lock until it sleeps: taking the lock means that it does not miss this.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// In words, the messages that were never received.
    pub fn unreceived(&self) -> Option<String> {
        self.lock().inbox.unreceived()
    }

    /// Fails when something may not be sent to rank `to` any more.
    ///
    /// # Errors
    /// [`CommError::Poisoned`] when some rank has failed or `to` has ended.
    pub fn check(&self, to: usize) -> Result<()> {
        let state = self.lock();
        self.check_failure(&state)?;
        if state.ended[to] { Err(self.ended(to)) } else { Ok(()) }
    }

    /// The error for sending to a rank that has ended.
    pub fn ended(&self, to: usize) -> CommError {
        let reason = format!("it ended before it received everything that rank {} had for it", self.rank);
        CommError::Poisoned { rank: self.rank, by: to, reason }
    }

    fn check_failure(&self, state: &State) -> Result<()> {
        match &state.failure {
            None => Ok(()),
            Some(f) => Err(CommError::Poisoned { rank: self.rank, by: f.rank, reason: f.reason.clone() }),
        }
    }

    /// Waits, at most for `limit`, until there is a failure or every rank of `ranks` has ended; whether that is so.
    pub fn settled(&self, ranks: impl Fn(usize) -> bool, limit: Duration) -> bool {
        let settled = |state: &State| {
            let mut ended = state.ended.iter().enumerate();
            state.failure.is_some() || ended.all(|(rank, ended)| *ended || !ranks(rank))
        };
        let outcome = self.changed.wait_timeout_while(self.lock(), limit, |state| !settled(state));
        settled(&outcome.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Takes out of the inbox what is awaited, once `take` finds it there; the time limit counts from `began`.
    ///
    /// # Errors
    /// [`CommError::Poisoned`] when some rank has failed, or one has ended and its message or part is not there;
    /// [`CommError::Timeout`]; [`CommError::InsidePool`].
    pub fn wait<T>(
        &self,
        awaited: Awaited<'_>,
        began: Instant,
        mut take: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> Result<T> {
        let rank = self.rank;
        if rayon::current_thread_index().is_some() {
            return Err(CommError::InsidePool { rank, what: awaited.describe(&[]) });
        }
        let mut state = self.lock();
        loop {
            self.check_failure(&state)?;
            if let Some(found) = take(&mut state.inbox) {
                return Ok(found);
            }
            let missing = awaited.missing(&state.inbox);
            // What a rank sends before it ends lies in the inbox before its end shows, so this comes second.
            if let Some(&by) = missing.iter().find(|from| state.ended[**from]) {
                let reason = format!("it ended while rank {rank} waited for {}", awaited.describe(&[by]));
                return Err(CommError::Poisoned { rank, by, reason });
            }
            let left = self.timeout.saturating_sub(began.elapsed());
            if left.is_zero() {
                let what = awaited.describe(&missing) + &awaited.hint(&state.inbox);
                return Err(CommError::Timeout { rank, what, seconds: self.timeout.as_secs_f64() });
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
