//! Running one closure per rank, each on a thread of its own.

use super::LocalCommunicator;
use super::world::World;
use std::any::Any;
use std::fmt::{Debug, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// What a rank failed with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RankFailure<E> {
    /// Its closure returned an error.
    #[error("{0:#}")]
    Failed(E),
    /// Its closure panicked, with this message.
    #[error("panicked: {0}")]
    Panicked(String),
    /// It called [`Communicator::abort`](crate::Communicator::abort) and then ended without an error.
    #[error("aborted: {0}")]
    Aborted(String),
    /// Messages to it were left when all ranks had ended.
    #[error("ended without receiving {0}")]
    Unreceived(String),
    /// The system refused the thread.
    #[error("cannot start its thread: {0}; run fewer ranks")]
    NotStarted(std::io::Error),
}

/// The first rank that failed, and why: the failures that followed from it are left out.
#[derive(Debug, thiserror::Error)]
#[error("rank {rank}: {cause}")]
pub struct RankError<E> {
    /// The rank.
    pub rank: usize,
    /// Why.
    pub cause: RankFailure<E>,
}

/// Runs `f` once per rank of a new world, each on a thread named `rank-N`, and returns what they returned, in rank
/// order. A call that waits longer than `timeout` for a peer fails.
///
/// # Errors
/// The first cause: when a rank's closure returns an error or panics, the others' pending and later calls fail, and all
/// of them are waited for; what is returned is the error of the rank that began it. Messages that were not received are
/// an error of their receiver.
pub fn run_ranks<R, E, F>(size: usize, timeout: Duration, f: F) -> Result<Vec<R>, RankError<E>>
where
    R: Send,
    E: Debug + Display + Send,
    F: Fn(LocalCommunicator) -> Result<R, E> + Sync,
{
    let world = Arc::new(World::new(size, timeout));
    let outcomes: Vec<Result<R, RankFailure<E>>> = std::thread::scope(|scope| {
        let start = |(rank, comm): (usize, LocalCommunicator)| {
            let (world, f) = (&world, &f);
            std::thread::Builder::new()
                .name(format!("rank-{rank}"))
                .spawn_scoped(scope, move || run_rank(world, rank, comm, f))
                .map_err(|error| {
                    world.fail(rank, &format!("its thread could not be started: {error}"));
                    RankFailure::NotStarted(error)
                })
        };
        let threads: Vec<_> = LocalCommunicator::seats(&world).into_iter().enumerate().map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread?.join().unwrap_or_else(|panic| Err(RankFailure::Panicked(message(&*panic)))))
            .collect()
    });
    if let Some(failure) = world.failure() {
        let cause = outcomes.into_iter().nth(failure.rank).and_then(Result::err);
        let cause = cause.unwrap_or_else(|| RankFailure::Aborted(failure.reason.clone()));
        return Err(RankError { rank: failure.rank, cause });
    }
    let left = (0..size).find_map(|rank| Some((rank, world.mailbox(rank).unreceived()?)));
    if let Some((rank, messages)) = left {
        return Err(RankError { rank, cause: RankFailure::Unreceived(messages) });
    }
    outcomes
        .into_iter()
        .enumerate()
        .map(|(rank, outcome)| outcome.map_err(|cause| RankError { rank, cause }))
        .collect()
}

fn run_rank<R, E: Display>(
    world: &World,
    rank: usize,
    comm: LocalCommunicator,
    f: impl Fn(LocalCommunicator) -> Result<R, E>,
) -> Result<R, RankFailure<E>> {
    // The rank ends only once its failure is known: else a peer that waits for it would take the end for the cause.
    let _seat = comm.peers.clone();
    // A panic ends here: the rank's state is dropped here, and the world refuses every later call.
    match catch_unwind(AssertUnwindSafe(|| f(comm))) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            world.fail(rank, &format!("{error:#}"));
            Err(RankFailure::Failed(error))
        }
        Err(panic) => {
            world.fail(rank, "it panicked");
            Err(RankFailure::Panicked(message(&*panic)))
        }
    }
}

/// The message of a panic, which is nearly always text.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}
