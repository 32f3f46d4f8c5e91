//! Messages and collectives. In a collective ranks give each other views of their tensors, and a call returns once no
//! rank holds what it was lent, and nothing of it is on its way: a caller's tensor can be written again, and its memory
//! scopes are exact, as soon as the call is over.

use super::{Group, Peers};
use crate::communicator::{Communicator, shard};
use crate::error::{CommError, Result};
use crate::mailbox::{Awaited, Content, Letter};
use crate::tag::Tag;
use bigmac_kernels::expect_float;
use bigmac_kernels::reduce::{Reduce, reduce};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Error, Spec, Tensor};
use std::sync::atomic::AtomicU64;
use std::time::Instant;

fn describe(spec: &Spec) -> String {
    format!("{} {:?}", spec.dtype, spec.shape)
}

/// Fails unless there is a first dimension, that of the rows.
fn check_rows(op: &'static str, tensor: &Tensor) -> Result<()> {
    if tensor.shape().is_empty() {
        return Err(Error::shape(op, tensor.shape(), "at least one dimension, that of the rows").into());
    }
    Ok(())
}

impl<P: Peers> Group<P> {
    /// The rows of a contiguous tensor that belong to each rank, as views of it.
    fn cut(&self, tensor: &Tensor) -> Result<Vec<Tensor>> {
        let size = self.size();
        (0..size)
            .map(|rank| {
                let rows = shard(tensor.shape()[0], size, rank);
                Ok(tensor.narrow(0, rows.start, rows.len())?)
            })
            .collect()
    }
}

impl<P: Peers> Communicator for Group<P> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.members.len()
    }

    fn split(&self, color: u64, key: i64) -> Result<Box<dyn Communicator>> {
        let call = self.begin("split".into());
        let wish = || Content::Wish { color, key };
        let contents = self.exchange(&call, 0, self.members.iter().map(|_| wish()))?;
        self.sent(&call)?;
        let mut ranks: Vec<(i64, usize)> = (contents.iter().enumerate())
            .filter_map(|(rank, content)| match *content {
                Content::Wish { color: theirs, key } if theirs == color => Some((key, rank)),
                _ => None,
            })
            .collect();
        ranks.sort_unstable();
        let rank = ranks.iter().take_while(|(_, rank)| *rank != self.rank).count();
        Ok(Box::new(Group {
            peers: self.peers.clone(),
            group: super::child(self.group, call.number, color),
            members: ranks.iter().map(|&(_, rank)| self.members[rank]).collect(),
            rank,
            calls: AtomicU64::new(0),
        }))
    }

    fn send(&self, ctx: &Context, tensor: Tensor, to: usize, tag: Tag) -> Result<()> {
        let to = self.member("send", to)?;
        let tensor = Ok(Self::in_flight(ctx, tensor)?);
        self.peers.deliver(to, Letter::Message { group: self.group, tag, tensor }, None)
    }

    fn recv(&self, ctx: &Context, from: usize, tag: Tag, spec: &Spec) -> Result<Tensor> {
        let from = self.member("recv", from)?;
        let key = (self.group, from, tag);
        let mailbox = self.peers.mailbox();
        let tensor = mailbox.wait(Awaited::Message(key), Instant::now(), |inbox| inbox.take_message(key))?;
        self.accept(ctx, tensor?, from, Some(tag), spec)
    }

    fn all_reduce(&self, ctx: &Context, tensor: &mut Tensor, op: Reduce) -> Result<()> {
        expect_float("all_reduce", [&tensor.spec()])?;
        tensor.check_writable("all_reduce")?;
        let call = self.begin(format!("all_reduce ({op}) of {}", describe(&tensor.spec())));
        let shards = self.cut(&tensor.reshape(&[tensor.len()])?)?;
        let lent = self.deal(ctx, &call, 0, shards)?;
        let own = shard(tensor.len(), self.size(), self.rank());
        let mut reduced = Tensor::empty(&ctx.in_scope(scopes::MESSAGES), &[own.len()], tensor.dtype())?;
        reduce(ctx, op, &lent, 0, &mut reduced)?;
        // Before the next round, so that a rank with all its answers owns its tensor alone again.
        drop(lent);
        let shards = self.share(ctx, &call, 1, reduced)?;
        self.sent(&call)?;
        concatenate(ctx, &shards, tensor)?;
        drop(shards);
        self.returned(&call, 2)
    }

    fn reduce_scatter(&self, ctx: &Context, tensor: &Tensor, op: Reduce) -> Result<Tensor> {
        expect_float("reduce_scatter", [&tensor.spec()])?;
        check_rows("reduce_scatter", tensor)?;
        let call = self.begin(format!("reduce_scatter ({op}) of {}", describe(&tensor.spec())));
        let shards = self.cut(&tensor.contiguous(ctx)?)?;
        let lent = self.deal(ctx, &call, 0, shards)?;
        let mut shape = tensor.spec().shape;
        shape[0] = shard(shape[0], self.size(), self.rank()).len();
        let mut out = Tensor::empty(ctx, &shape, tensor.dtype())?;
        reduce(ctx, op, &lent, 0, &mut out)?;
        drop(lent);
        self.returned(&call, 1)?;
        Ok(out)
    }

    fn all_gather(&self, ctx: &Context, tensor: &Tensor) -> Result<Tensor> {
        check_rows("all_gather", tensor)?;
        let call = self.begin(format!("all_gather of {} rows of {:?}", tensor.dtype(), &tensor.shape()[1..]));
        let lent = self.share(ctx, &call, 0, tensor.contiguous(ctx)?)?;
        let mut shape = tensor.spec().shape;
        shape[0] = lent.iter().map(|tensor| tensor.shape()[0]).sum();
        let mut out = Tensor::empty(ctx, &shape, tensor.dtype())?;
        concatenate(ctx, &lent, &mut out)?;
        drop(lent);
        self.returned(&call, 1)?;
        Ok(out)
    }

    fn broadcast(&self, ctx: &Context, tensor: &mut Tensor, root: usize) -> Result<()> {
        let source = self.member("broadcast", root)?;
        tensor.check_writable("broadcast")?;
        let call = self.begin(format!("broadcast from rank {source} of {}", describe(&tensor.spec())));
        let lent = if self.rank() == root { Some(Self::outbound(ctx, tensor.clone())?) } else { None };
        let content = |to: usize| match &lent {
            Some(tensor) if to != root => Content::Tensor(Ok(tensor.clone())),
            _ => Content::Nothing,
        };
        let mut arrived = self.exchange(&call, 0, (0..self.size()).map(content))?;
        drop(lent);
        if self.rank() != root {
            let source = self.inbound(ctx, &call, root, arrived.swap_remove(root))?;
            tensor.write(ctx, 0, &source)?;
        }
        drop(arrived);
        self.returned(&call, 1)
    }

    fn all_to_all_v(&self, ctx: &Context, tensors: Vec<Tensor>, specs: &[Spec]) -> Result<Vec<Tensor>> {
        let size = self.size();
        for (what, given) in [("tensors", tensors.len()), ("specs", specs.len())] {
            if given != size {
                return Err(CommError::Count { op: "all_to_all_v", what, given, size });
            }
        }
        let call = self.begin("all_to_all_v".into());
        let contents = tensors
            .into_iter()
            .map(|tensor| Ok(Content::Tensor(Ok(Self::in_flight(ctx, tensor)?))))
            .collect::<Result<Vec<_>>>()?;
        let arrived = self.exchange(&call, 0, contents)?;
        let accepted = (arrived.into_iter().zip(specs).enumerate())
            .map(|(from, (content, spec))| {
                let tensor = self.taken(&call, from, content)?;
                self.accept(ctx, tensor, self.members[from], None, spec)
            })
            .collect::<Result<Vec<Tensor>>>()?;
        self.returned(&call, 1)?;
        Ok(accepted)
    }

    fn barrier(&self) -> Result<()> {
        self.meet(&self.begin("barrier".into()), 0)
    }

    fn abort(&self, reason: &str) {
        self.peers.fail(reason);
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
