//! Ranks as plain threads of one process: tensors change hands without being copied.

mod collective;
mod ranks;
mod world;

pub use ranks::{RankError, RankFailure, run_ranks};

use crate::error::{CommError, Result};
use crate::tag::Tag;
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Spec, Tensor};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use world::{GroupId, World};

/// A rank's place in its world; given up when the last communicator of the rank is dropped.
struct Seat {
    world: Arc<World>,
    rank: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.world.end(self.rank);
    }
}

/// One rank's end of a group of threads.
///
/// A rank has ended when all its communicators (that of the world and those split off) are dropped; a peer that still
/// waits for it then gets [`CommError::Poisoned`]. Dropping one while unwinding from a panic poisons the whole world.
pub struct LocalCommunicator {
    seat: Arc<Seat>,
    group: GroupId,
    /// The group's ranks, as the world numbers them.
    members: Arc<[usize]>,
    /// This rank's number in the group.
    rank: usize,
    /// Collectives so far.
    calls: AtomicU64,
}

impl Drop for LocalCommunicator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.seat.world.fail(self.seat.rank, "it panicked");
        }
    }
}

impl std::fmt::Debug for LocalCommunicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalCommunicator")
            .field("rank", &self.rank)
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

impl LocalCommunicator {
    /// The communicators of a new world of `size` ranks, one for each rank's thread. A call that waits longer than
    /// `timeout` for a peer fails. [`run_ranks`] also makes the threads.
    pub fn world(size: usize, timeout: Duration) -> Vec<LocalCommunicator> {
        Self::seats(&Arc::new(World::new(size, timeout)), size)
    }

    fn seats(world: &Arc<World>, size: usize) -> Vec<LocalCommunicator> {
        let members: Arc<[usize]> = (0..size).collect();
        (0..size)
            .map(|rank| LocalCommunicator {
                seat: Arc::new(Seat { world: world.clone(), rank }),
                group: 0,
                members: members.clone(),
                rank,
                calls: AtomicU64::new(0),
            })
            .collect()
    }

    fn world_ref(&self) -> &World {
        &self.seat.world
    }

    /// The world's number of a rank of this group.
    fn member(&self, op: &'static str, rank: usize) -> Result<usize> {
        let size = self.members.len();
        self.members.get(rank).copied().ok_or(CommError::NoSuchRank { op, given: rank, size })
    }

    /// What is sent for `tensor`: itself when nothing else sees its storage, else a copy; counted as in flight.
    fn in_flight(ctx: &Context, tensor: Tensor) -> Result<Tensor> {
        let messages = ctx.in_scope(scopes::MESSAGES);
        if !(tensor.is_whole() && tensor.is_unshared()) {
            return Ok(tensor.copy(&messages)?);
        }
        tensor.move_to_scope(messages.scope())?;
        Ok(tensor)
    }

    /// Counts a message that has arrived under `ctx.scope()`, once it is what was wanted.
    fn accept(
        &self,
        ctx: &Context,
        tensor: Tensor,
        from: usize,
        tag: Option<Tag>,
        wanted: &Spec,
    ) -> Result<Tensor> {
        let got = tensor.spec();
        if got != *wanted {
            let (wanted, got) = (Box::new(wanted.clone()), Box::new(got));
            return Err(CommError::Spec { rank: self.seat.rank, from, tag, wanted, got });
        }
        tensor.move_to_scope(ctx.scope())?;
        Ok(tensor)
    }

    /// Numbers a collective call. `text` is what every rank's call must be, word by word.
    fn begin(&self, text: String) -> collective::Call {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        collective::Call { number, text: text.into(), began: Instant::now() }
    }
}
