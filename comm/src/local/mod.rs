//! Ranks as plain threads of one process: tensors change hands without being copied.

mod ranks;
mod world;

pub use ranks::{RankError, RankFailure, run_ranks};

use crate::error::Result;
use crate::group::{Group, Hold, Peers};
use crate::mailbox::{Letter, Mailbox};
use std::sync::Arc;
use std::time::Duration;
use world::World;

/// One rank's end of a group of threads.
pub type LocalCommunicator = Group<Seat>;

/// A rank's place in its world; given up when the last communicator of the rank is dropped.
pub struct Seat {
    world: Arc<World>,
    rank: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.world.end(self.rank);
    }
}

impl Peers for Seat {
    const NAME: &'static str = "LocalCommunicator";
    const LENDS: bool = true;

    fn mailbox(&self) -> &Mailbox {
        self.world.mailbox(self.rank)
    }

    fn deliver(&self, to: usize, letter: Letter, _: Option<&Hold>) -> Result<()> {
        self.world.deliver(self.rank, to, letter)
    }

    fn fail(&self, reason: &str) {
        self.world.fail(self.rank, reason);
    }
}

impl LocalCommunicator {
    /// The communicators of a new world of `size` ranks, one for each rank's thread. A call that waits longer than
    /// `timeout` for a peer fails. [`run_ranks`] also makes the threads.
    pub fn world(size: usize, timeout: Duration) -> Vec<LocalCommunicator> {
        Self::seats(&Arc::new(World::new(size, timeout)))
    }

    fn seats(world: &Arc<World>) -> Vec<LocalCommunicator> {
        let seat = |rank| Arc::new(Seat { world: world.clone(), rank });
        (0..world.size()).map(|rank| Group::of_world(seat(rank), world.size())).collect()
    }
}
