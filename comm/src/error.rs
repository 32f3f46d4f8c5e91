//! What can go wrong between ranks. Ranks in errors are numbered as in the world, also in a group that was split off.

use crate::tag::Tag;
use bigmac_runtime::Spec;

/// Result with [`CommError`].
pub type Result<T, E = CommError> = std::result::Result<T, E>;

/// Everything that can go wrong between ranks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommError {
    /// A peer failed, panicked or ended, so this rank cannot go on.
    #[error("rank {rank} stopped because of rank {by}: {reason}")]
    Poisoned {
        /// The rank whose call returned this.
        rank: usize,
        /// The rank that is the cause.
        by: usize,
        /// What happened there.
        reason: String,
    },
    /// A peer did not come within the time limit.
    #[error(
        "rank {rank} waited {seconds} s for {what}; if the peer is only slow, raise the time limit; otherwise the ranks run \
         different plans"
    )]
    Timeout {
        /// The rank that waited.
        rank: usize,
        /// What it waited for, and from whom.
        what: String,
        /// How long it waited.
        seconds: f64,
    },
    /// A message came whose shape or dtype is not what the receiver wanted.
    #[error(
        "rank {rank} expected {} {:?} from rank {from} {}, got {} {:?}; both ranks must run the same plan",
        wanted.dtype, wanted.shape, tag.map_or("in all_to_all_v".into(), |tag| format!("under tag {tag}")), got.dtype,
        got.shape
    )]
    Spec {
        /// The receiver.
        rank: usize,
        /// The sender.
        from: usize,
        /// The message's tag; `None` in [`Communicator::all_to_all_v`](crate::Communicator::all_to_all_v).
        tag: Option<Tag>,
        /// What the receiver wanted.
        wanted: Box<Spec>,
        /// What the sender sent.
        got: Box<Spec>,
    },
    /// Two ranks of a group made different collective calls.
    #[error(
        "rank {rank} called {here}, and rank {peer} called {there}; all ranks of a group make the same collective calls \
         in the same order"
    )]
    Mismatch {
        /// The rank whose call returned this.
        rank: usize,
        /// Its call.
        here: String,
        /// The rank that differs.
        peer: usize,
        /// That rank's call.
        there: String,
    },
    /// A rank that the group does not have.
    #[error("{op}: expected a rank below {size}, the size of the group, got {given}")]
    NoSuchRank {
        /// The call.
        op: &'static str,
        /// The rank it was given.
        given: usize,
        /// The group's size.
        size: usize,
    },
    /// Not one argument per rank.
    #[error("{op}: expected {size} {what}, one per rank of the group, got {given}")]
    Count {
        /// The call.
        op: &'static str,
        /// What is counted.
        what: &'static str,
        /// How many there were.
        given: usize,
        /// The group's size.
        size: usize,
    },
    /// A call that waits was made on a worker of a thread pool, where waiting could stop the work that is waited for.
    #[error(
        "rank {rank} would wait for {what} on a worker of a thread pool; communicate from the rank's own thread"
    )]
    InsidePool {
        /// The rank that called.
        rank: usize,
        /// What it would have waited for.
        what: String,
    },
    /// An error of the runtime: shapes, dtypes, memory.
    #[error(transparent)]
    Runtime(#[from] bigmac_runtime::Error),
}
