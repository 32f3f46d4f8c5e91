//! Attention over packed sequences.

mod cpu;
#[cfg(test)]
mod tests;

use crate::numeric::Float;
use crate::operator::*;
use crate::product::{rounded, widened};
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};
use std::sync::Arc;

/// `softmax(scale q k^T) v` within each of several packed sequences, without ever holding a matrix of all its scores.
///
/// Inputs: q `[T, Hq, D]`, k and v `[S, Hkv, D]`, where Hq is a multiple of Hkv and query head h reads key head
/// `h / (Hq / Hkv)`; the last dimension should have stride 1, else it is copied. Output `[T, Hq, D]`. Sequence i has the
/// queries `bounds_q[i]..bounds_q[i + 1]` and the keys `bounds_k[i]..bounds_k[i + 1]`.
///
/// With `causal`, query i of n sees the keys `0..=i + m - n` of m: the last query sees the last key, which is what
/// decoding with a cache of keys wants. A query that sees no key gives 0.
///
/// Forward and backward go over blocks of queries and keys with the running maximum and sum of FlashAttention-2 (arXiv
/// 2307.08691, algorithms 1 and 2). Saves q, k, v, the output and the log-sum-exp `[Hq, T]` of each query's scores when
/// any gradient is wanted; the backward computes the probabilities again.
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
}

impl Attention {
    const NAME: &'static str = "attention";

    fn check_bounds(&self, what: &str, bounds: &[usize], tokens: usize) -> Result<()> {
        let rising = bounds.windows(2).all(|w| w[0] <= w[1]);
        if rising && bounds.first() == Some(&0) && bounds.last() == Some(&tokens) {
            return Ok(());
        }
        let message = format!("got bounds {bounds:?} of {what}, wanted them to rise from 0 to {tokens}");
        Err(Error::argument(Self::NAME, message))
    }

    fn problem<'a>(&'a self, q: &Tensor, k: &Tensor) -> cpu::Problem<'a> {
        cpu::Problem {
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

/// The tensor in its accumulator dtype, as a view whose last dimension has stride 1.
fn operand(ctx: &Context, tensor: &Tensor) -> Result<Tensor> {
    if tensor.dtype() == tensor.dtype().accumulator() && tensor.strides()[2] == 1 {
        return Ok(tensor.clone());
    }
    widened(ctx, tensor)
}

fn heads<R: crate::Real>(tensor: &Tensor) -> Result<cpu::Heads<'_, R>> {
    Ok(cpu::Heads {
        data: tensor.as_strided_slice()?,
        token_stride: tensor.strides()[0],
        head_stride: tensor.strides()[1],
        dim: tensor.shape()[2],
    })
}

impl Operator for Attention {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        expect_count(Self::NAME, "inputs", inputs, 3)?;
        expect_count(Self::NAME, "weights", weights, 0)?;
        let dtype = expect_float(Self::NAME, inputs)?;
        let (q, k, v) = (&inputs[0].shape, &inputs[1].shape, &inputs[2].shape);
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
                format!("got {q} bounds of queries and {k} of keys, wanted as many"),
            ));
        }
        let lse = Spec::new(&[q[1], q[0]], dtype.accumulator());
        let saved = [0, 1, 2].map(SavedSpec::Input).into_iter();
        let saved = saved.chain([SavedSpec::Output(0), SavedSpec::New(lse)]);
        Ok(Inferred::one(inputs[0].clone(), saved.take(if need.any() { 5 } else { 0 })))
    }

    fn forward(
        &self,
        ctx: &Context,
        inputs: &[&Tensor],
        _weights: &[&Tensor],
        need: Need<'_>,
    ) -> Result<Forwarded> {
        let [q, k, v] = [0, 1, 2].map(|i| operand(ctx, inputs[i]));
        let (q, k, v) = (q?, k?, v?);
        let problem = self.problem(&q, &k);
        let lse_shape = [q.shape()[1], q.shape()[0]];
        let mut lse = if need.any() { Some(Tensor::empty(ctx, &lse_shape, q.dtype())?) } else { None };
        let out = crate::for_float!(Self::NAME, inputs[0].dtype(), T => {
            type R = <T as Float>::Acc;
            let lse = lse.as_mut().map(|lse| lse.as_mut_slice::<R>()).transpose()?;
            rounded::<T>(ctx, q.shape(), |out| {
                cpu::forward(ctx, &problem, [heads::<R>(&q)?, heads(&k)?, heads(&v)?], out, lse)
            })
        })?;
        let saved = lse.map(|lse| {
            [inputs[0].clone(), inputs[1].clone(), inputs[2].clone(), out.clone(), lse].into_iter()
        });
        Ok(Forwarded::one(out, saved.into_iter().flatten()))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let saved = |i| operand(ctx, backward.saved(Self::NAME, i)?);
        let (q, k, v, out) = (saved(0)?, saved(1)?, saved(2)?, saved(3)?);
        let lse = backward.saved(Self::NAME, 4)?;
        let dy = operand(ctx, backward.grad(Self::NAME)?)?;
        let problem = self.problem(&q, &k);
        let need = |i| backward.need.input(i);
        crate::for_float!(Self::NAME, backward.saved(Self::NAME, 0)?.dtype(), T => {
            type R = <T as Float>::Acc;
            let given = cpu::Given {
                q: heads::<R>(&q)?,
                k: heads(&k)?,
                v: heads(&v)?,
                out: heads(&out)?,
                dy: heads(&dy)?,
                lse: lse.as_slice()?,
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
            wanted(need(0), q.shape(), &mut dq, &mut |mut q| {
                wanted(need(1), k.shape(), &mut dk, &mut |mut k| {
                    wanted(need(2), v.shape(), &mut dv, &mut |v| {
                        cpu::backward(ctx, &problem, &given, [q.as_deref_mut(), k.as_deref_mut(), v])
                    })
                })
            })?;
            Ok([dq, dk, dv].into_iter().collect())
        })
    }
}
