//! Ranks as processes, which may be on different hosts: tensors travel as frames over a [`Transport`].

mod arrivals;
mod error;
mod frame;
mod transport;

pub(crate) use arrivals::{Arrivals, GRACE, Landing};
pub use error::EngineError;
pub(crate) use frame::{Frame, MAX_HEADER, Malformed, header_length};
pub(crate) use transport::Transport;

use crate::error::Result;
use crate::group::{Group, Hold, Peers};
use crate::mailbox::{Letter, Mailbox};
use std::sync::Arc;
use std::time::Duration;

/// How long the end of a rank waits for its last words to leave, once something has failed.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One rank's end of a group of processes.
///
/// Received tensors and those in flight to this rank are counted under the messages of the context that the engine was
/// given. When the last communicator of a rank is dropped, its peers are told, and the drop waits until everything that
/// was sent has left.
pub type ProcessCommunicator = Group<Process>;

/// A process's place in its world; given up when the last communicator of the rank is dropped.
pub struct Process {
    mailbox: Arc<Mailbox>,
    transport: Box<dyn Transport>,
    size: usize,
}

/// Tells a rank that it cannot go on, from outside its calls: the control plane knows first who died.
#[derive(Clone)]
pub struct Failer(Arc<Mailbox>);

impl Failer {
    /// Makes this rank's pending and later calls return [`Poisoned`](crate::CommError::Poisoned) by rank `rank` with
    /// `reason`. The first reason stays. Other ranks are not told.
    pub fn fail(&self, rank: usize, reason: &str) {
        self.0.fail(rank, reason);
    }
}

impl std::fmt::Debug for Failer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failer").field("rank", &self.0.rank()).finish()
    }
}

impl Process {
    fn others(&self) -> impl Iterator<Item = usize> {
        let own = self.mailbox.rank();
        (0..self.size).filter(move |rank| *rank != own)
    }
}

impl Peers for Process {
    const NAME: &'static str = "ProcessCommunicator";
    const LENDS: bool = false;

    fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    fn deliver(&self, to: usize, letter: Letter, hold: Option<&Hold>) -> Result<()> {
        self.mailbox.check(to)?;
        if to == self.mailbox.rank() {
            self.mailbox.put(to, letter);
        } else {
            self.transport.send(to, Frame::letter(letter, hold)?);
        }
        Ok(())
    }

    fn fail(&self, reason: &str) {
        let rank = self.mailbox.rank();
        if self.mailbox.fail(rank, reason) {
            self.others().for_each(|to| self.transport.send(to, Frame::failed(rank, reason)));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.mailbox.end(self.mailbox.rank());
        let failure = self.mailbox.failure();
        for to in self.others() {
            // The cause goes before the end: a peer that waits for this rank would take the end for it.
            if let Some(failure) = &failure {
                self.transport.send(to, Frame::failed(failure.rank, &failure.reason));
            }
            self.transport.send(to, Frame::goodbye());
        }
        self.transport.close(if failure.is_some() { LAST_WORDS } else { self.mailbox.timeout() });
    }
}

impl ProcessCommunicator {
    /// This rank's end of a world of `size` ranks, which `transport` connects.
    pub(crate) fn over(transport: Box<dyn Transport>, mailbox: Arc<Mailbox>, size: usize) -> Self {
        Group::of_world(Arc::new(Process { mailbox, transport, size }), size)
    }

    /// A handle that makes this rank's calls fail when a peer was lost.
    pub fn failure_handle(&self) -> Failer {
        Failer(self.peers.mailbox.clone())
    }
}
