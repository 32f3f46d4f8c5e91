//! Attention over packed sequences.

mod choice;
#[cfg(test)]
mod choice_tests;
mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod tests;
mod variants;

pub use variants::{Form, Tiling, Variant, Warpgroups, variants};

use crate::operator::*;
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};
use std::sync::Arc;

/// `softmax(scale q k^T) v` within each of several packed sequences, without ever holding a matrix of all its scores.
///
/// Inputs: q `[T, Hq, D]`, k and v `[S, Hkv, D]`, where Hq is a multiple of Hkv and query head h reads key head `h /
/// (Hq / Hkv)`; the last dimension should have stride 1, else it is copied. Output `[T, Hq, D]`. Sequence i has the
/// queries `bounds_q[i]..bounds_q[i + 1]` and the keys `bounds_k[i]..bounds_k[i + 1]`.
///
/// With `causal`, query i of n sees the keys `0..=i + m - n` of m: the last query sees the last key, which is what
/// decoding with a cache of keys wants. A query that sees no key gives 0. What a sequence holds has no effect on the
/// results of another, be it infinite or no number.
///
/// Forward and backward go over blocks of queries and keys with the running maximum and sum of FlashAttention-2 (arXiv
/// 2307.08691, algorithms 1 and 2). Saves q, k, v, the output and the log-sum-exp `[Hq, T]` of each query's scores when
/// any gradient is wanted; the backward computes the probabilities again.
///
/// A GPU takes f32 and bf16, and heads of up to 256 columns; those of 64 and 128 columns are the fast ones. In bf16
/// probabilities, and gradients of scores, are rounded to bf16 before they are multiplied with values, keys and
/// queries.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Where each sequence's queries start, and T at the end.
    pub bounds_q: Arc<[usize]>,
    /// Where each sequence's keys start, and S at the end.
    pub bounds_k: Arc<[usize]>,
    /// Whether a query sees only the keys up to its own place.
    pub causal: bool,
    /// Factor of the scores, usually `1 / sqrt(D)`.
    pub scale: f64,
    /// Which of the [`variants`] for the inputs' dtype and head size a GPU runs, for measuring and testing them; `None`
    /// for the one that suits the problem.
    pub variant: Option<usize>,
}

/// Shapes and rules of one call.
#[derive(Debug)]
struct Problem<'a> {
    bounds_q: &'a [usize],
    bounds_k: &'a [usize],
    causal: bool,
    scale: f64,
    heads: usize,
    key_heads: usize,
    dim: usize,
}

/// What a backward is computed from, and which gradients are wanted.
struct Given<'a> {
    /// q, k and v.
    inputs: [&'a Tensor; 3],
    /// The forward's output, contiguous.
    out: &'a Tensor,
    /// Its gradient.
    dout: &'a Tensor,
    /// `[Hq, T]`.
    lse: &'a Tensor,
    /// Of q, k and v.
    need: [bool; 3],
}

impl Variant {
    /// True when the forward can take these q, k and v on the context's device: those by warpgroups want a GPU of
    /// sm_90a, some queries and keys, and rows that start at multiples of 16 bytes. The backward takes any, and so does
    /// a CPU.
    ///
    /// # Errors
    /// When the inputs are none that a GPU takes.
    pub fn takes(&self, ctx: &Context, inputs: [&Tensor; 3]) -> Result<bool> {
        ctx.gpu().map_or(Ok(true), |gpu| cuda::takes(gpu, &self.forward, &inputs))
    }
}

impl Attention {
    const NAME: &'static str = "attention";

    fn check_bounds(&self, what: &str, bounds: &[usize], tokens: usize) -> Result<()> {
        let rising = bounds.windows(2).all(|w| w[0] <= w[1]);
        if rising && bounds.first() == Some(&0) && bounds.last() == Some(&tokens) {
            return Ok(());
        }
        let message = format!("expected bounds of {what} that rise from 0 to {tokens}, got {bounds:?}");
        Err(Error::argument(Self::NAME, message))
    }

    /// Pairs of a query and a key that it sees.
    fn pairs(&self) -> f64 {
        let lengths = |bounds: &[usize]| bounds.windows(2).map(|w| w[1] - w[0]).collect::<Vec<usize>>();
        let sequences = lengths(&self.bounds_q).into_iter().zip(lengths(&self.bounds_k));
        let pairs = sequences.map(|(queries, keys)| {
            // The last query sees all keys, the one before it one less; of more queries than keys the first see none.
            let seeing = queries.min(keys);
            if self.causal {
                (seeing * (2 * keys + 1 - seeing)) as f64 / 2.0
            } else {
                (queries * keys) as f64
            }
        });
        pairs.sum()
    }

    fn problem<'a>(&'a self, q: &Tensor, k: &Tensor) -> Problem<'a> {
        Problem {
            bounds_q: &self.bounds_q,
            bounds_k: &self.bounds_k,
            causal: self.causal,
            scale: self.scale,
            heads: q.shape()[1],
            key_heads: k.shape()[1],
            dim: q.shape()[2],
        }
    }
}

impl Operator for Attention {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let ([q, k, v], []) = expect_counts(Self::NAME, inputs, weights)?;
        let dtype = expect_float(Self::NAME, inputs)?;
        let (q, k, v) = (&q.shape, &k.shape, &v.shape);
        let fits = match (q.as_slice(), k.as_slice()) {
            (&[_, hq, d], &[_, hkv, dk]) => k == v && d == dk && hkv > 0 && hq.is_multiple_of(hkv),
            _ => false,
        };
        if !fits {
            let wanted = "q [T, Hq, D], k and v [S, Hkv, D] with Hq a multiple of Hkv";
            return Err(Error::shape(Self::NAME, (q, k, v), wanted));
        }
        self.check_bounds("the queries", &self.bounds_q, q[0])?;
        self.check_bounds("the keys", &self.bounds_k, k[0])?;
        if self.bounds_q.len() != self.bounds_k.len() {
            let (q, k) = (self.bounds_q.len(), self.bounds_k.len());
            return Err(Error::argument(
                Self::NAME,
                format!("expected as many bounds of queries as of keys, got {q} and {k}"),
            ));
        }
        let lse = Spec::new(&[q[1], q[0]], dtype.accumulator());
        let saved = [0, 1, 2].map(SavedSpec::Input).into_iter();
        let saved = saved.chain([SavedSpec::Output(0), SavedSpec::New(lse)]);
        Ok(Inferred::one(inputs[0].clone(), saved.take(if need.any() { 5 } else { 0 })))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        let ([q, k, v], need) = ([0, 1, 2].map(|i| call.inputs[i]), call.need);
        let problem = self.problem(q, k);
        let (out, lse) = if let Some(gpu) = ctx.gpu() {
            cuda::forward(ctx, gpu, &problem, [q, k, v], self.variant, need.any())?
        } else {
            cpu::forward(ctx, &problem, [q, k, v], need.any())?
        };
        Ok(Forwarded::with(out, lse))
    }

    /// Two products of all pairs of a query and a key, and four for the gradients; the scores that the backward
    /// computes again do not count.
    fn flops(&self, inputs: &[Spec], _weights: &[Spec], need: Need<'_>) -> Flops {
        let width = inputs[0].shape[1] * inputs[0].shape[2];
        let forward = 4.0 * self.pairs() * width as f64;
        let backward_input = if need.any() { 2.0 * forward } else { 0.0 };
        Flops { forward, backward_input, backward_weight: 0.0 }
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let saved = |i| backward.saved(Self::NAME, i);
        let given = Given {
            inputs: [saved(0)?, saved(1)?, saved(2)?],
            out: saved(3)?,
            dout: backward.grad(Self::NAME)?,
            lse: saved(4)?,
            need: [0, 1, 2].map(|i| backward.need.input(i)),
        };
        let problem = self.problem(given.inputs[0], given.inputs[1]);
        let grads = if ctx.is_gpu() {
            cuda::backward(ctx, &problem, &given, self.variant)?
        } else {
            cpu::backward(ctx, &problem, &given)?
        };
        Ok(grads.into_iter().collect())
    }
}
