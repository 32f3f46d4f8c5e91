//! Messages and collectives between threads. In a collective ranks lend each other their tensors, read them, and return
//! once no rank holds what it was lent: a caller's tensor can be written again, and its memory scopes are exact, as
//! soon as the call is over.

use super::LocalCommunicator;
use super::world::{Awaited, OtherCall, Part, Round};
use crate::communicator::{Communicator, shard};
use crate::error::{CommError, Result};
use crate::tag::Tag;
use bigmac_kernels::expect_float;
use bigmac_kernels::reduce::{Reduce, reduce};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Error, Spec, Tensor};
use std::iter::repeat_n;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

/// One collective call of a group.
pub(super) struct Call {
    /// How many collectives the group had before.
    pub number: u64,
    /// What was called, with the arguments that must agree.
    pub text: Arc<str>,
    /// When; the time limit is that of the whole call.
    pub began: Instant,
}

fn describe(spec: &Spec) -> String {
    format!("{} {:?}", spec.dtype, spec.shape)
}

/// The extents below the first dimension, and the first.
fn rows<'a>(op: &'static str, tensor: &'a Tensor) -> Result<(usize, &'a [usize])> {
    let shape = tensor.shape();
    let (&rows, rest) = shape
        .split_first()
        .ok_or_else(|| Error::shape(op, shape, "at least one dimension, that of the rows"))?;
    Ok((rows, rest))
}

impl LocalCommunicator {
    /// Gives the ranks of the group, this one included, one of `values` each, and returns what each of them gave to
    /// this one, in rank order.
    pub(super) fn exchange<T: Send + 'static>(
        &self,
        call: &Call,
        round: u8,
        values: impl IntoIterator<Item = T>,
    ) -> Result<Vec<T>> {
        let me = self.seat.rank;
        let (group, members) = (self.group, &*self.members);
        let round = Round { group, members, call: call.number, round, text: &call.text };
        for (&to, value) in members.iter().zip(values) {
            let part = Part { call: call.text.clone(), content: Box::new(value) };
            self.world_ref().deliver(me, to, |inbox| inbox.put_part(round.key(me), part))?;
        }
        let mismatch = |other: OtherCall| CommError::Mismatch {
            rank: me,
            here: call.text.to_string(),
            peer: other.peer,
            there: other.call.to_string(),
        };
        let awaited = Awaited::Parts(round);
        let parts = self
            .world_ref()
            .wait(me, awaited, call.began, |inbox| inbox.take_parts(&round))?
            .map_err(mismatch)?;
        let content = |(part, &peer): (Part, &usize)| {
            let content = part.content.downcast::<T>();
            content.map(|content| *content).map_err(|_| mismatch(OtherCall { peer, call: part.call }))
        };
        parts.into_iter().zip(members).map(content).collect()
    }

    /// Returns when every rank has come this far; as the last round of a call, when every rank has let go of what it
    /// was lent.
    pub(super) fn meet(&self, call: &Call, round: u8) -> Result<()> {
        self.exchange(call, round, repeat_n((), self.size())).map(drop)
    }
}

impl Communicator for LocalCommunicator {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.members.len()
    }

    fn split(&self, color: u64, key: i64) -> Result<Box<dyn Communicator>> {
        let call = self.begin("split".into());
        let wishes = self.exchange(&call, 0, repeat_n((color, key), self.size()))?;
        let mut ranks: Vec<usize> = (0..self.size()).filter(|&rank| wishes[rank].0 == color).collect();
        ranks.sort_by_key(|&rank| (wishes[rank].1, rank));
        let rank = ranks.iter().take_while(|&&rank| rank != self.rank).count();
        Ok(Box::new(LocalCommunicator {
            seat: self.seat.clone(),
            group: self.world_ref().group(self.group, call.number, color),
            members: ranks.iter().map(|&rank| self.members[rank]).collect(),
            rank,
            calls: AtomicU64::new(0),
        }))
    }

    fn send(&self, ctx: &Context, tensor: Tensor, to: usize, tag: Tag) -> Result<()> {
        let to = self.member("send", to)?;
        let rank = self.seat.rank;
        let tensor = Self::in_flight(ctx, tensor)?;
        self.world_ref().deliver(rank, to, |inbox| inbox.put_message((self.group, rank, tag), tensor))
    }

    fn recv(&self, ctx: &Context, from: usize, tag: Tag, spec: &Spec) -> Result<Tensor> {
        let from = self.member("recv", from)?;
        let awaited = Awaited::Message((self.group, from, tag));
        let tensor = self.world_ref().wait(self.seat.rank, awaited, Instant::now(), |inbox| {
            inbox.take_message((self.group, from, tag))
        })?;
        self.accept(ctx, tensor, from, Some(tag), spec)
    }

    fn all_reduce(&self, ctx: &Context, tensor: &mut Tensor, op: Reduce) -> Result<()> {
        expect_float("all_reduce", [&tensor.spec()])?;
        tensor.check_writable("all_reduce")?;
        let call = self.begin(format!("all_reduce ({op}) of {}", describe(&tensor.spec())));
        let lent = self.exchange(&call, 0, repeat_n(tensor.clone(), self.size()))?;
        let own = shard(tensor.len(), self.size(), self.rank());
        let mut reduced = Tensor::empty(&ctx.in_scope(scopes::MESSAGES), &[own.len()], tensor.dtype())?;
        reduce(ctx, op, &lent, own.start, &mut reduced)?;
        // Before the next round, so that a rank with all its answers owns its tensor alone again.
        drop(lent);
        let shards = self.exchange(&call, 1, repeat_n(reduced, self.size()))?;
        concatenate(ctx, &shards, tensor)?;
        drop(shards);
        self.meet(&call, 2)
    }

    fn reduce_scatter(&self, ctx: &Context, tensor: &Tensor, op: Reduce) -> Result<Tensor> {
        expect_float("reduce_scatter", [&tensor.spec()])?;
        let (count, rest) = rows("reduce_scatter", tensor)?;
        let call = self.begin(format!("reduce_scatter ({op}) of {}", describe(&tensor.spec())));
        let contiguous = tensor.contiguous(ctx)?;
        let lent = self.exchange(&call, 0, repeat_n(contiguous, self.size()))?;
        let own = shard(count, self.size(), self.rank());
        let mut shape = tensor.spec().shape;
        shape[0] = own.len();
        let mut out = Tensor::empty(ctx, &shape, tensor.dtype())?;
        reduce(ctx, op, &lent, own.start * rest.iter().product::<usize>(), &mut out)?;
        drop(lent);
        self.meet(&call, 1)?;
        Ok(out)
    }

    fn all_gather(&self, ctx: &Context, tensor: &Tensor) -> Result<Tensor> {
        let (_, rest) = rows("all_gather", tensor)?;
        let call = self.begin(format!("all_gather of {} rows of {rest:?}", tensor.dtype()));
        let contiguous = tensor.contiguous(ctx)?;
        let lent = self.exchange(&call, 0, repeat_n(contiguous, self.size()))?;
        let mut shape = tensor.spec().shape;
        shape[0] = lent.iter().map(|tensor| tensor.shape()[0]).sum();
        let mut out = Tensor::empty(ctx, &shape, tensor.dtype())?;
        concatenate(ctx, &lent, &mut out)?;
        drop(lent);
        self.meet(&call, 1)?;
        Ok(out)
    }

    fn broadcast(&self, ctx: &Context, tensor: &mut Tensor, root: usize) -> Result<()> {
        let source = self.member("broadcast", root)?;
        tensor.check_writable("broadcast")?;
        let call = self.begin(format!("broadcast from rank {source} of {}", describe(&tensor.spec())));
        let is_root = self.rank() == root;
        let mut lent = self.exchange(
            &call,
            0,
            (0..self.size()).map(|to| (is_root && to != root).then(|| tensor.clone())),
        )?;
        if let Some(source) = lent[root].take() {
            tensor.write(ctx, 0, &source)?;
        }
        self.meet(&call, 1)
    }

    fn all_to_all_v(&self, ctx: &Context, tensors: Vec<Tensor>, specs: &[Spec]) -> Result<Vec<Tensor>> {
        let size = self.size();
        for (what, given) in [("tensors", tensors.len()), ("specs", specs.len())] {
            if given != size {
                return Err(CommError::Count { op: "all_to_all_v", what, given, size });
            }
        }
        let call = self.begin("all_to_all_v".into());
        let tensors =
            tensors.into_iter().map(|tensor| Self::in_flight(ctx, tensor)).collect::<Result<Vec<_>>>()?;
        let arrived = self.exchange(&call, 0, tensors)?;
        let accepted = (self.members.iter().zip(arrived).zip(specs))
            .map(|((&from, tensor), spec)| self.accept(ctx, tensor, from, None, spec))
            .collect::<Result<Vec<Tensor>>>()?;
        self.meet(&call, 1)?;
        Ok(accepted)
    }

    fn barrier(&self) -> Result<()> {
        self.meet(&self.begin("barrier".into()), 0)
    }

    fn abort(&self, reason: &str) {
        self.seat.world.fail(self.seat.rank, reason);
    }
}

/// Writes the `parts` into `out` one after the other; together they are as long as it.
fn concatenate(ctx: &Context, parts: &[Tensor], out: &mut Tensor) -> Result<()> {
    let mut at = 0;
    for part in parts {
        out.write(ctx, at, part)?;
        at += part.len();
    }
    Ok(())
}
