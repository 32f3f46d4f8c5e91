//! Attention on the CPU: what forward and backward share.

mod backward;
mod forward;

use super::{Attention, Given, Problem};
use crate::numeric::{Float, Real};
use crate::product::{Matrix, rounded, widened};
use bigmac_runtime::{Context, Result, Tensor};
use std::marker::PhantomData;
use std::ops::Range;

/// Queries to a block: two tiles of the product; more would compute more scores above a causal diagonal.
const QUERIES: usize = 16;
/// Keys to a block: its scores and probabilities stay in the first-level cache.
const KEYS: usize = 128;

/// The tensor in its accumulator dtype, as a view whose last dimension has stride 1.
fn operand(ctx: &Context, tensor: &Tensor) -> Result<Tensor> {
    if tensor.dtype() == tensor.dtype().accumulator() && tensor.strides()[2] == 1 {
        return Ok(tensor.clone());
    }
    widened(ctx, tensor)
}

/// The output, and the log-sum-exp of each query's scores `[heads, tokens]` when it is wanted.
pub(super) fn forward(
    ctx: &Context,
    problem: &Problem<'_>,
    inputs: [&Tensor; 3],
    keep_lse: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let [q, k, v] = inputs.map(|t| operand(ctx, t));
    let (q, k, v) = (q?, k?, v?);
    let lse_shape = [problem.heads, q.shape()[0]];
    let mut lse = if keep_lse { Some(Tensor::empty(ctx, &lse_shape, q.dtype())?) } else { None };
    let out = crate::for_float!(Attention::NAME, inputs[0].dtype(), T => {
        type R = <T as Float>::Acc;
        let lse = lse.as_mut().map(|lse| lse.as_mut_slice::<R>()).transpose()?;
        rounded::<T>(ctx, q.shape(), |out| {
            forward::forward(ctx, problem, [Heads::<R>::new(&q)?, Heads::new(&k)?, Heads::new(&v)?], out, lse)
        })
    })?;
    Ok((out, lse))
}

/// Gradients of q, k and v, as far as they are wanted.
pub(super) fn backward(
    ctx: &Context,
    problem: &Problem<'_>,
    given: &Given<'_>,
) -> Result<[Option<Tensor>; 3]> {
    let [q, k, v] = given.inputs.map(|t| operand(ctx, t));
    let (q, k, v, out, dout) = (q?, k?, v?, operand(ctx, given.out)?, operand(ctx, given.dout)?);
    crate::for_float!(Attention::NAME, given.inputs[0].dtype(), T => {
        type R = <T as Float>::Acc;
        let operands = backward::Operands {
            q: Heads::<R>::new(&q)?,
            k: Heads::new(&k)?,
            v: Heads::new(&v)?,
            out: Heads::new(&out)?,
            dy: Heads::new(&dout)?,
            lse: given.lse.as_slice()?,
        };
        let (mut dq, mut dk, mut dv) = (None, None, None);
        // One pass gives all three; each is rounded once when it is wanted.
        let wanted = |wanted: bool, shape: &[usize], to: &mut Option<Tensor>, inner: &mut dyn FnMut(Option<&mut [R]>) -> Result<()>| {
            if !wanted {
                return inner(None);
            }
            *to = Some(rounded::<T>(ctx, shape, |to| inner(Some(to)))?);
            Ok(())
        };
        wanted(given.need[0], q.shape(), &mut dq, &mut |mut q| {
            wanted(given.need[1], k.shape(), &mut dk, &mut |mut k| {
                wanted(given.need[2], v.shape(), &mut dv, &mut |v| {
                    backward::backward(ctx, problem, &operands, [q.as_deref_mut(), k.as_deref_mut(), v])
                })
            })
        })?;
        Ok([dq, dk, dv])
    })
}

/// One sequence under one head of keys.
#[derive(Clone, Debug)]
struct Unit {
    /// Its queries among all tokens.
    queries: Range<usize>,
    /// Its keys among all tokens.
    keys: Range<usize>,
    key_head: usize,
    /// The heads of queries that read this head of keys.
    heads: Range<usize>,
}

impl Problem<'_> {
    fn units(&self) -> usize {
        (self.bounds_q.len() - 1) * self.key_heads
    }

    /// Units to a block of work, which shares one workspace. Units do not depend on each other, so neither do results.
    fn units_to_block(&self) -> usize {
        self.units().div_ceil(32)
    }

    fn unit(&self, index: usize) -> Unit {
        let (sequence, key_head) = (index / self.key_heads, index % self.key_heads);
        let group = self.heads / self.key_heads;
        Unit {
            queries: self.bounds_q[sequence]..self.bounds_q[sequence + 1],
            keys: self.bounds_k[sequence]..self.bounds_k[sequence + 1],
            key_head,
            heads: key_head * group..(key_head + 1) * group,
        }
    }

    /// How many of the unit's keys its query number `i` sees.
    fn visible(&self, unit: &Unit, i: usize) -> usize {
        let (queries, keys) = (unit.queries.len(), unit.keys.len());
        if self.causal { (i + 1 + keys).saturating_sub(queries).min(keys) } else { keys }
    }

    /// The most keys of a sequence.
    fn longest(&self) -> usize {
        self.bounds_k.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0)
    }
}

/// A `[tokens, heads, dim]` view whose last dimension has stride 1.
#[derive(Clone, Copy, Debug)]
struct Heads<'a, R> {
    data: &'a [R],
    token_stride: usize,
    head_stride: usize,
    dim: usize,
}

impl<'a, R: Real> Heads<'a, R> {
    fn new(tensor: &'a Tensor) -> Result<Self> {
        Ok(Heads {
            data: tensor.as_strided_slice()?,
            token_stride: tensor.strides()[0],
            head_stride: tensor.strides()[1],
            dim: tensor.shape()[2],
        })
    }

    /// The rows of one head at some tokens.
    fn matrix(&self, tokens: Range<usize>, head: usize) -> Matrix<'a, R> {
        let from = (tokens.start * self.token_stride + head * self.head_stride).min(self.data.len());
        Matrix::new(&self.data[from..], (tokens.len(), self.dim), (self.token_stride, 1))
    }

    /// One row.
    fn row(&self, token: usize, head: usize) -> &'a [R] {
        &self.data[token * self.token_stride + head * self.head_stride..][..self.dim]
    }
}

/// A slice that several units write to at once, each to places of its own.
struct Places<'a, R> {
    data: *mut R,
    len: usize,
    borrowed: PhantomData<&'a mut [R]>,
}

// SAFETY: a Places only gives access through `get`, whose callers see to it that no two threads have the same place.
unsafe impl<R: Send> Sync for Places<'_, R> {}

impl<'a, R> Places<'a, R> {
    fn new(data: &'a mut [R]) -> Self {
        Places { data: data.as_mut_ptr(), len: data.len(), borrowed: PhantomData }
    }

    /// The elements `start..start + len`.
    ///
    /// # Safety
    /// Nobody else holds one of them.
    #[expect(clippy::mut_from_ref, reason = "the caller's promise stands in for the exclusive borrow")]
    unsafe fn get(&self, start: usize, len: usize) -> &mut [R] {
        assert!(start + len <= self.len, "{start} + {len} of {}", self.len);
        // SAFETY: in bounds by the assertion, unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}

/// Copies the query rows of a block, times the scale.
fn scaled<R: Real>(rows: impl Iterator<Item = impl AsRef<[R]>>, scale: R, to: &mut [R], dim: usize) {
    for (to, from) in to.chunks_exact_mut(dim.max(1)).zip(rows) {
        for (to, &from) in to.iter_mut().zip(from.as_ref()) {
            *to = from * scale;
        }
    }
}
