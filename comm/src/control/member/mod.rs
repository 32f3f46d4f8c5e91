//! A rank's end of the control plane.

mod join;
mod launcher;
mod link;

pub use launcher::LauncherMember;

use super::Limits;
use super::error::ControlError;
use super::loss::{Loss, Peer};
use super::position::Position;
use super::token::Token;
use super::wire::{LARGEST, Role, ToHub};
use link::Link;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a rank says of itself when it joins; a launcher, of the first of its ranks.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Its number, below `world`.
    pub rank: usize,
    /// The number of ranks it was started for.
    pub world: usize,
    /// How often the job was started again before.
    pub restart: u32,
    /// The name of its host.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// The version of the program.
    pub version: String,
    /// The secret of the job.
    pub token: Token,
    /// What must be the same on all ranks, such as every key of the configuration: the first difference is named.
    pub facts: BTreeMap<String, String>,
}

/// How long a farewell, or the news of a failure, may take to reach the hub.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A rank of a job. Dropping one without [`Member::leave`] is a loss for all others, at once.
pub struct Member {
    link: Arc<Link>,
    peers: Vec<Peer>,
    /// The gathers so far.
    gathers: Mutex<u64>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("peers", &self.peers).finish_non_exhaustive()
    }
}

impl Member {
    /// Joins the job whose hub listens at `address`, `host:port`. As long as no one listens there, or the hub is one of
    /// an earlier start, it is tried again until `limits.join` has passed; then all ranks are waited for.
    ///
    /// # Errors
    /// [`ControlError::Refused`], the same on every rank, when they do not agree; [`ControlError::Lost`] when a rank
    /// was lost or did not come; [`ControlError::Unreachable`], [`ControlError::NotControl`],
    /// [`ControlError::Protocol`], [`ControlError::System`].
    pub fn join(address: &str, hello: Hello, limits: Limits) -> Result<Member, ControlError> {
        let link = join::connect(address, Role::Rank, &hello, limits)?;
        // From here on dropping it closes the connection.
        let mut member = Member { link, peers: Vec::new(), gathers: Mutex::new(0) };
        member.peers = member.link.wait_for_all()?;
        Ok(member)
    }

    /// All ranks, in their order.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// This rank's own address on the connection to the hub: from other hosts of the job, it is reached there too.
    ///
    /// # Errors
    /// [`ControlError::System`].
    pub fn local_address(&self) -> Result<IpAddr, ControlError> {
        self.link.local_address()
    }

    /// Every rank's bytes, in rank order: a barrier, too. All ranks must gather the same `what`, in the same order. It
    /// waits as long as all of them live.
    ///
    /// # Errors
    /// [`ControlError::Lost`]; [`ControlError::TooLarge`] for more than 16 MiB.
    pub fn gather(&self, what: &str, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, ControlError> {
        if mine.len() > LARGEST {
            return Err(ControlError::TooLarge { what: what.into(), given: mine.len(), most: LARGEST });
        }
        // Held to the end: gathers of two threads have an order.
        let mut number = self.gathers.lock().unwrap_or_else(PoisonError::into_inner);
        *number += 1;
        self.link.say(&ToHub::Gather { number: *number, what: what.into() }, &mine);
        self.link.wait_for_parts(*number)
    }

    /// Where this rank is, to be set as it works: every beat carries it.
    pub fn position(&self) -> Position {
        self.link.position.clone()
    }

    /// Calls `told` once, on a thread of the control plane, at the first loss; at once where it has happened already.
    /// What this rank itself reports by [`Member::fail`] is no news to it.
    pub fn watch(&self, told: impl Fn(&Loss) + Send + Sync + 'static) {
        self.link.watch(Box::new(told));
    }

    /// Tells all ranks that this one failed, and waits up to two seconds for it to be known: this process may end
    /// right after.
    pub fn fail(&self, reason: &str) {
        self.link.fail(reason, LAST_WORDS);
    }

    /// An orderly end: that this rank is not heard any more is not a loss.
    pub fn leave(self) {
        self.link.leave(LAST_WORDS);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.link.fail("it panicked", LAST_WORDS);
        }
        self.link.close();
    }
}
