//! The trait that every way of connecting ranks implements.

use crate::error::Result;
use crate::tag::Tag;
use bigmac_kernels::reduce::Reduce;
use bigmac_runtime::{Context, Spec, Tensor};
use std::ops::Range;

/// The rows that `rank` of `size` owns when `len` rows are cut as evenly as they allow: consecutive, in rank order, the
/// longer shards first. This is how [`Communicator::reduce_scatter`] cuts.
///
/// ```
/// assert_eq!([0, 1, 2].map(|rank| bigmac_comm::shard(7, 3, rank)), [0..3, 3..5, 5..7]);
/// ```
pub fn shard(len: usize, size: usize, rank: usize) -> Range<usize> {
    let size = size.max(1);
    let (each, longer) = (len / size, len % size);
    let start = |rank: usize| rank * each + rank.min(longer);
    start(rank)..start(rank + 1)
}

/// One rank's end of a group of ranks.
///
/// Messages and collectives do not disturb each other. Every rank of a group makes the same collective calls in the
/// same order; a difference is a [`CommError::Mismatch`](crate::CommError::Mismatch). Two threads of one rank that make
/// collectives at once need a group each ([`Communicator::split`]).
///
/// Every call fails, instead of waiting on, when a peer cannot do its part: with
/// [`CommError::Poisoned`](crate::CommError::Poisoned) at once when a peer failed, panicked or ended, with
/// [`CommError::Timeout`](crate::CommError::Timeout) when nothing came within the group's time limit. After an error of
/// a collective the contents of what it was to write are unspecified, and the group cannot be used any more. Calls that
/// wait refuse to run on a worker of a thread pool ([`CommError::InsidePool`](crate::CommError::InsidePool)).
pub trait Communicator: Send + Sync + std::fmt::Debug {
    /// This rank's number in the group, from 0.
    fn rank(&self) -> usize;

    /// How many ranks the group has.
    fn size(&self) -> usize;

    /// A collective that cuts the group: ranks that give the same `color` form a new group, ordered by `key`, then by
    /// their rank here. Tags of different groups are different.
    ///
    /// # Errors
    /// As every collective.
    fn split(&self, color: u64, key: i64) -> Result<Box<dyn Communicator>>;

    /// Sends a tensor to rank `to`, without waiting for it to be received. Messages with the same tag arrive in the
    /// order they were sent; messages with different tags can be received in any order.
    ///
    /// A tensor that is whole ([`Tensor::is_whole`]) and not shared is handed over as it is; of any other a whole copy
    /// is sent. So what was sent cannot change any more, and the receiver can write to what it got. While in flight the
    /// bytes are counted under [`MESSAGES`](bigmac_runtime::memory::scopes::MESSAGES): of this rank until the receiver
    /// takes them; between processes of this rank until they are sent, and of the receiver from when they arrive. What
    /// the receiver's budget has no room for then is an error of its receive.
    ///
    /// # Errors
    /// [`Runtime`](crate::CommError::Runtime) when the scope's budget or the memory does not allow it;
    /// [`NoSuchRank`](crate::CommError::NoSuchRank); [`Poisoned`](crate::CommError::Poisoned), also when `to` has
    /// ended.
    fn send(&self, ctx: &Context, tensor: Tensor, to: usize, tag: Tag) -> Result<()>;

    /// The next message of that tag from rank `from`; waits for it. It is counted under `ctx.scope()` from now on.
    ///
    /// # Errors
    /// [`Spec`](crate::CommError::Spec) when shape or dtype is not that of `spec` (the message is gone then);
    /// [`Runtime`](crate::CommError::Runtime) when the scope's budget has no room;
    /// [`NoSuchRank`](crate::CommError::NoSuchRank), [`Poisoned`](crate::CommError::Poisoned),
    /// [`Timeout`](crate::CommError::Timeout).
    fn recv(&self, ctx: &Context, from: usize, tag: Tag, spec: &Spec) -> Result<Tensor>;

    /// Reduces `tensor` over all ranks, in place: any shape, the same on every rank; F64, F32, BF16 or F16; contiguous
    /// and not shared. In flight are 1/size of its bytes; between processes up to twice its bytes.
    ///
    /// # Errors
    /// [`Runtime`](crate::CommError::Runtime) for another dtype or a tensor that cannot be written; as every
    /// collective.
    fn all_reduce(&self, ctx: &Context, tensor: &mut Tensor, op: Reduce) -> Result<()>;

    /// Reduces `[rows, ...]`, the same shape on every rank, and returns the rows that [`shard`] gives this rank, in
    /// `ctx.scope()`. The bits are those of [`Communicator::all_reduce`].
    ///
    /// # Errors
    /// [`Runtime`](crate::CommError::Runtime) for a tensor without dimensions or of another dtype; as every collective.
    fn reduce_scatter(&self, ctx: &Context, tensor: &Tensor, op: Reduce) -> Result<Tensor>;

    /// The `[rows, ...]` of all ranks below each other, in rank order, in `ctx.scope()`. The number of rows may differ
    /// from rank to rank (so it undoes [`Communicator::reduce_scatter`]'s cut); everything else is the same. Any dtype.
    ///
    /// # Errors
    /// [`Runtime`](crate::CommError::Runtime) for a tensor without dimensions; as every collective.
    fn all_gather(&self, ctx: &Context, tensor: &Tensor) -> Result<Tensor>;

    /// Overwrites `tensor` with that of rank `root`: any shape and dtype, the same on every rank; contiguous and not
    /// shared.
    ///
    /// # Errors
    /// [`Runtime`](crate::CommError::Runtime) for a tensor that cannot be written;
    /// [`NoSuchRank`](crate::CommError::NoSuchRank); as every collective.
    fn broadcast(&self, ctx: &Context, tensor: &mut Tensor, root: usize) -> Result<()>;

    /// Sends `tensors[r]` to each rank `r` and returns what each rank sent here, in rank order; `specs[r]` is what is
    /// wanted from rank `r`. Shapes may all differ. Tensors are handed over and counted as by [`Communicator::send`]
    /// and [`Communicator::recv`].
    ///
    /// # Errors
    /// [`Count`](crate::CommError::Count) when there is not one tensor and one spec per rank;
    /// [`Spec`](crate::CommError::Spec); as every collective.
    fn all_to_all_v(&self, ctx: &Context, tensors: Vec<Tensor>, specs: &[Spec]) -> Result<Vec<Tensor>>;

    /// Returns once every rank has called it.
    ///
    /// # Errors
    /// As every collective.
    fn barrier(&self) -> Result<()>;

    /// Tells all ranks that this one failed: their pending and later calls return
    /// [`Poisoned`](crate::CommError::Poisoned) with `reason`. The first reason stays.
    fn abort(&self, reason: &str);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cover_everything_once_and_differ_by_at_most_one() {
        for len in 0..40 {
            for size in 1..9 {
                let shards: Vec<_> = (0..size).map(|rank| shard(len, size, rank)).collect();
                assert_eq!(shards.concat_ranges(), (0..len).collect::<Vec<_>>());
                let lengths = shards.iter().map(|s| s.len());
                assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 1);
            }
        }
    }

    trait ConcatRanges {
        fn concat_ranges(&self) -> Vec<usize>;
    }

    impl ConcatRanges for Vec<Range<usize>> {
        fn concat_ranges(&self) -> Vec<usize> {
            self.iter().cloned().flatten().collect()
        }
    }
}
