//! What the ranks of one process share: a mailbox per rank, and the first failure.

use crate::error::Result;
use crate::mailbox::{Failure, Letter, Mailbox};
use std::sync::OnceLock;
use std::time::Duration;

/// The shared state of a world of ranks.
pub struct World {
    mailboxes: Vec<Mailbox>,
    failure: OnceLock<Failure>,
}

impl World {
    pub fn new(size: usize, timeout: Duration) -> Self {
        let mailboxes = (0..size).map(|rank| Mailbox::new(rank, size, timeout)).collect();
        World { mailboxes, failure: OnceLock::new() }
    }

    /// How many ranks there are.
    pub fn size(&self) -> usize {
        self.mailboxes.len()
    }

    /// Where things for that rank arrive.
    pub fn mailbox(&self, rank: usize) -> &Mailbox {
        &self.mailboxes[rank]
    }

    /// The first failure, if there was one.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.get()
    }

    /// Records a failure, unless there was one before, and wakes all ranks.
    pub fn fail(&self, rank: usize, reason: &str) {
        if self.failure.set(Failure { rank, reason: reason.to_owned() }).is_ok() {
            for mailbox in &self.mailboxes {
                mailbox.fail(rank, reason);
            }
        }
    }

    /// Records that a rank makes no more calls, and wakes all ranks.
    pub fn end(&self, rank: usize) {
        for mailbox in &self.mailboxes {
            mailbox.end(rank);
        }
    }

    /// Puts something from rank `from` into the mailbox of `to`.
    ///
    /// # Errors
    /// [`Poisoned`](crate::CommError::Poisoned) when some rank has failed or `to` has ended.
    pub fn deliver(&self, from: usize, to: usize, letter: Letter) -> Result<()> {
        let own = self.mailbox(from);
        own.check(to)?;
        // It may have ended since.
        if self.mailbox(to).put(from, letter) { Ok(()) } else { Err(own.ended(to)) }
    }
}
