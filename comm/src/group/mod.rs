//! One rank's end of a group, whatever connects the ranks: groups, messages, and the rounds of collectives. What
//! differs between threads and processes is behind [`Peers`].

mod collective;

use crate::error::{CommError, Result};
use crate::mailbox::{Awaited, Content, GroupId, Letter, Mailbox, OtherCall, Part, Round};
use crate::tag::Tag;
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Device, Spec, Tensor};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Instant;

/// Held by everything that is on its way out for one collective call; when the caller holds it alone, all of it has
/// left.
pub type Hold = Arc<()>;

/// How a rank reaches its peers. One is shared by all groups of a rank; dropping it ends the rank.
pub trait Peers: Send + Sync + 'static {
    /// The communicator's name.
    const NAME: &'static str;
    /// True when receivers get the sender's own memory, so that it is in use until they let go of it; false when it is
    /// free once it was sent.
    const LENDS: bool;

    /// Where things for this rank arrive.
    fn mailbox(&self) -> &Mailbox;

    /// Hands `letter` to rank `to`, numbered as in the world, without waiting for its receipt; `hold` is dropped when
    /// the letter has left.
    ///
    /// # Errors
    /// [`CommError::Poisoned`] when some rank has failed or `to` has ended; [`CommError::Runtime`] for what cannot be
    /// sent.
    fn deliver(&self, to: usize, letter: Letter, hold: Option<&Hold>) -> Result<()>;

    /// Tells all ranks that this one failed.
    fn fail(&self, reason: &str);
}

/// One rank's end of a group of ranks.
///
/// A rank has ended when all its communicators (that of the world and those split off) are dropped; a peer that still
/// waits for it then gets [`CommError::Poisoned`]. Dropping one while unwinding from a panic poisons the whole world.
pub struct Group<P: Peers> {
    pub(crate) peers: Arc<P>,
    group: GroupId,
    /// The group's ranks, as the world numbers them.
    members: Arc<[usize]>,
    /// This rank's number in the group.
    rank: usize,
    /// Collectives so far.
    calls: AtomicU64,
}

impl<P: Peers> Drop for Group<P> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.peers.fail("it panicked");
        }
    }
}

impl<P: Peers> std::fmt::Debug for Group<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct(P::NAME)
            .field("rank", &self.rank)
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

/// One collective call of a group.
struct Call {
    /// How many collectives the group had before.
    number: u64,
    /// What was called, with the arguments that must agree.
    text: Arc<str>,
    /// When; the time limit is that of the whole call.
    began: Instant,
    /// Held by what this rank lends in the call.
    hold: Hold,
}

/// The number of the group that ranks of one `color` become when collective `call` cuts `parent`: well mixed, so that
/// two groups never share one in practice, and never that of the world.
fn child(parent: GroupId, call: u64, color: u64) -> GroupId {
    let mut mixed = 0x9e37_79b9_7f4a_7c15_u64;
    for word in [parent, call, color] {
        // The finalizer of SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators").
        mixed = (mixed ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
    }
    mixed.max(1)
}

impl<P: Peers> Group<P> {
    /// This rank's end of a new world of `size` ranks.
    pub(crate) fn of_world(peers: Arc<P>, size: usize) -> Self {
        let rank = peers.mailbox().rank();
        Group { peers, group: 0, members: (0..size).collect(), rank, calls: AtomicU64::new(0) }
    }

    /// The world's number of this rank.
    fn in_world(&self) -> usize {
        self.peers.mailbox().rank()
    }

    /// The world's number of a rank of this group.
    fn member(&self, op: &'static str, rank: usize) -> Result<usize> {
        let size = self.members.len();
        self.members.get(rank).copied().ok_or(CommError::NoSuchRank { op, given: rank, size })
    }

    /// What is sent for `tensor`: itself when nothing else sees its storage, else a copy; counted as in flight. Between
    /// processes it lies on the CPU.
    fn in_flight(ctx: &Context, tensor: Tensor) -> Result<Tensor> {
        let messages = ctx.in_scope(scopes::MESSAGES);
        let tensor = if P::LENDS || tensor.device() == Device::Cpu { tensor } else { tensor.to_cpu(ctx)? };
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
            return Err(CommError::Spec { rank: self.in_world(), from, tag, wanted, got });
        }
        if !P::LENDS && ctx.is_gpu() && !tensor.is_shape_only() {
            return Ok(tensor.to_device(ctx)?);
        }
        tensor.move_to_scope(ctx.scope())?;
        Ok(tensor)
    }

    /// Numbers a collective call. `text` is what every rank's call must be, word by word.
    fn begin(&self, text: String) -> Call {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        Call { number, text: text.into(), began: Instant::now(), hold: Hold::default() }
    }

    /// Gives the ranks of the group, this one included, one of `contents` each, and returns what each of them gave to
    /// this one, in rank order.
    fn exchange(
        &self,
        call: &Call,
        round: u8,
        contents: impl IntoIterator<Item = Content>,
    ) -> Result<Vec<Content>> {
        let group = self.group;
        for (&to, content) in self.members.iter().zip(contents) {
            let part = Part { call: call.text.clone(), content };
            let letter = Letter::Part { group, call: call.number, round, part };
            self.peers.deliver(to, letter, Some(&call.hold))?;
        }
        let round = Round { group, members: &self.members, call: call.number, round, text: &call.text };
        let parts = self
            .peers
            .mailbox()
            .wait(Awaited::Parts(round), call.began, |inbox| inbox.take_parts(&round))?
            .map_err(|other| self.mismatch(call, other))?;
        Ok(parts.into_iter().map(|part| part.content).collect())
    }

    fn mismatch(&self, call: &Call, other: OtherCall) -> CommError {
        CommError::Mismatch {
            rank: self.in_world(),
            here: call.text.to_string(),
            peer: other.peer,
            there: other.call.to_string(),
        }
    }

    /// Gives each rank one of `tensors`, and returns what each gave to this one, where `ctx` runs. Between processes it
    /// travels through the CPU's memory.
    fn deal(&self, ctx: &Context, call: &Call, round: u8, tensors: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let contents = tensors
            .into_iter()
            .map(|tensor| Ok(Content::Tensor(Ok(Self::outbound(ctx, tensor)?))))
            .collect::<Result<Vec<_>>>()?;
        let arrived = self.exchange(call, round, contents)?;
        arrived
            .into_iter()
            .enumerate()
            .map(|(from, content)| self.inbound(ctx, call, from, content))
            .collect()
    }

    /// As [`Group::deal`], the same tensor to each.
    fn share(&self, ctx: &Context, call: &Call, round: u8, tensor: Tensor) -> Result<Vec<Tensor>> {
        // Taken from the device once, not once per rank.
        let tensor = Self::outbound(ctx, tensor)?;
        self.deal(ctx, call, round, vec![tensor; self.members.len()])
    }

    fn outbound(ctx: &Context, tensor: Tensor) -> Result<Tensor> {
        if P::LENDS || tensor.device() == Device::Cpu {
            return Ok(tensor);
        }
        Ok(tensor.to_cpu(ctx)?)
    }

    /// The tensor that came from rank `from` of the group.
    fn taken(&self, call: &Call, from: usize, content: Content) -> Result<Tensor> {
        match content {
            Content::Tensor(tensor) => Ok(tensor?),
            _ => Err(self.mismatch(call, OtherCall { peer: self.members[from], call: call.text.clone() })),
        }
    }

    /// The same, where `ctx` runs.
    fn inbound(&self, ctx: &Context, call: &Call, from: usize, content: Content) -> Result<Tensor> {
        let tensor = self.taken(call, from, content)?;
        if P::LENDS || !ctx.is_gpu() {
            return Ok(tensor);
        }
        Ok(tensor.to_device(&ctx.in_scope(scopes::MESSAGES))?)
    }

    /// Returns when what this rank gave away in the call has left it; at once where it was lent.
    fn sent(&self, call: &Call) -> Result<()> {
        if P::LENDS {
            return Ok(());
        }
        let all_sent = |_: &mut _| (Arc::strong_count(&call.hold) == 1).then_some(());
        self.peers.mailbox().wait(Awaited::Sent(&call.text), call.began, all_sent)?;
        // Pairs with the release of the last hold: the tensors that were dropped before it are seen as dropped.
        fence(Ordering::Acquire);
        Ok(())
    }

    /// The last round of a call that lent: returns when no rank holds what this one lent.
    fn returned(&self, call: &Call, round: u8) -> Result<()> {
        if P::LENDS { self.meet(call, round) } else { self.sent(call) }
    }

    /// Returns when every rank has come this far.
    fn meet(&self, call: &Call, round: u8) -> Result<()> {
        self.exchange(call, round, self.members.iter().map(|_| Content::Nothing))?;
        self.sent(call)
    }
}

#[cfg(test)]
mod tests {
    use super::child;
    use std::collections::HashSet;

    #[test]
    fn groups_get_numbers_of_their_own() {
        let mut seen = HashSet::from([0]);
        for parent in [0, 1, child(0, 0, 0)] {
            for call in 0..40 {
                for color in (0..40).chain([u64::MAX]) {
                    assert!(seen.insert(child(parent, call, color)), "{parent} {call} {color}");
                }
            }
        }
    }
}
