//! Attention on the CPU: what forward and backward share.

mod backward;
mod forward;

pub(super) use backward::{Given, backward};
pub(super) use forward::forward;

use crate::numeric::Real;
use crate::product::Matrix;
use std::marker::PhantomData;
use std::ops::Range;

/// Queries to a block: two tiles of the product; more would compute more scores above a causal diagonal.
const QUERIES: usize = 16;
/// Keys to a block: its scores and probabilities stay in the first-level cache.
const KEYS: usize = 128;

/// Shapes and rules of one call.
#[derive(Debug)]
pub(super) struct Problem<'a> {
    pub(super) bounds_q: &'a [usize],
    pub(super) bounds_k: &'a [usize],
    pub(super) causal: bool,
    pub(super) scale: f64,
    pub(super) heads: usize,
    pub(super) key_heads: usize,
    pub(super) dim: usize,
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

    /// Units to a block of work, which shares one workspace. Units don't depend on each other, so neither do results.
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
pub(super) struct Heads<'a, R> {
    pub(super) data: &'a [R],
    pub(super) token_stride: usize,
    pub(super) head_stride: usize,
    pub(super) dim: usize,
}

impl<'a, R: Real> Heads<'a, R> {
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
    #[allow(clippy::mut_from_ref)] // the caller's promise stands in for the exclusive borrow
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
