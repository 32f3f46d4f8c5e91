//! A launcher's end of the control plane.

use super::link::Link;
use super::{Hello, LAST_WORDS, join};
use crate::control::Limits;
use crate::control::error::ControlError;
use crate::control::loss::Loss;
use crate::control::outgoing::spawn;
use crate::control::wire::{Role, ToHub};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Default)]
struct State {
    /// None until the hub has welcomed it, which it may never do.
    link: Option<Arc<Link>>,
    /// What is said once it has.
    waiting: Vec<ToHub>,
    /// Something was said, so that an answer may come.
    has_spoken: bool,
    is_over: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    connected: Condvar,
}

impl Shared {
    /// Every critical section leaves the state whole, so a panic elsewhere does not matter.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A launcher, which is no rank: it learns when the job has ended, and says which of its ranks ended before they joined.
pub struct LauncherMember {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for LauncherMember {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LauncherMember").finish_non_exhaustive()
    }
}

impl LauncherMember {
    /// Connects to the hub on a thread of its own, as [`super::Member::join`] does. Where it cannot, neither can the
    /// ranks, which say so.
    ///
    /// # Errors
    /// [`ControlError::System`] where there is no thread to be had.
    pub fn start(address: &str, hello: Hello, limits: Limits) -> Result<LauncherMember, ControlError> {
        let shared = Arc::new(Shared::default());
        let (theirs, address) = (shared.clone(), address.to_owned());
        let connect = move || {
            let Ok(link) = join::connect(&address, Role::Launcher, &hello, limits) else { return };
            let mut state = theirs.lock();
            if state.is_over {
                return link.close();
            }
            state.waiting.drain(..).for_each(|message| link.say(&message, &[]));
            state.link = Some(link);
            theirs.connected.notify_all();
        };
        spawn("control-launcher", connect).map_err(ControlError::system("a thread"))?;
        Ok(LauncherMember { shared })
    }

    /// The job's first loss, once it is known here.
    pub fn loss(&self) -> Option<Loss> {
        self.shared.lock().link.as_ref().and_then(|link| link.loss_so_far())
    }

    /// Tells all ranks that the process that was to be `rank` has ended, and why: they would wait for it in vain. Of a
    /// rank that has joined they know already. `is_input`: it would end the same way again.
    pub fn gone(&self, rank: usize, cause: String, is_input: bool) {
        let mut state = self.shared.lock();
        state.has_spoken = true;
        let message = ToHub::Gone { rank, cause, is_input };
        match &state.link {
            Some(link) => link.say(&message, &[]),
            None => state.waiting.push(message),
        }
    }

    /// Closes the connection; what was said before is heard first, for which it waits up to two seconds.
    pub fn end(self) {
        let until = Instant::now() + LAST_WORDS;
        let mut state = self.shared.lock();
        while state.has_spoken && state.link.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.shared.connected.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let (link, has_spoken) = (state.link.clone(), state.has_spoken);
        drop(state);
        if let (Some(link), true) = (link, has_spoken) {
            link.wait_for_end(until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
        }
    }
}

impl Drop for LauncherMember {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        if let Some(link) = state.link.take() {
            link.close();
        }
    }
}
