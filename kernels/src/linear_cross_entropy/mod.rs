//! The output layer and its loss in one.

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::numeric::{Float, Real};
use crate::operator::*;
use crate::product::{Scalar, rounded, widened};
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};

/// The target of a token without a loss, as in PyTorch and Hugging Face.
const IGNORED: i32 = -100;

/// `scale * sum over tokens of (logsumexp(w h) - (w h)[target])`: the cross-entropy of `w h` against the targets,
/// without a tensor of all logits.
///
/// Inputs: hidden `[T, D]` and targets I32 `[T]`, -100 where a token has no loss; weight w `[V, D]`. Output: the loss
/// `[1]` in the accumulator dtype. Logits are computed for `chunk` words and a few hundred tokens at a time under a
/// running maximum and sum, for the tokens with a target only, and computed again in the backward, as in Liger Kernel's
/// fused linear cross-entropy (arXiv 2410.10989) and Cut Cross-Entropy (arXiv 2411.09009). With p = softmax(w h), `dh =
/// g scale (p - onehot) w` and `dw = g scale (p - onehot)^T h`.
///
/// Saves hidden, targets and each token's log-sum-exp `[T]` when any gradient is wanted.
///
/// A target that is neither -100 nor a word, 0..V, is an [`Error::Argument`] on the CPU. On a GPU, where nothing waits
/// to look, it makes the loss and the gradients NaN.
///
/// On a GPU a chunk is as many words as 256 MiB hold of logits and their gradients, for up to 8192 tokens at a time.
#[derive(Clone, Copy, Debug)]
pub struct LinearCrossEntropy {
    /// Factor of the sum, such as 1 / (target tokens of the whole step).
    pub scale: f64,
    /// Words of the vocabulary to a chunk on the CPU.
    pub chunk: usize,
}

impl LinearCrossEntropy {
    const NAME: &'static str = "linear cross-entropy";

    /// The tokens that have a target.
    fn rows(targets: &[i32], words: usize) -> Result<Vec<cpu::Row>> {
        let mut rows = Vec::with_capacity(targets.len());
        for (token, &target) in targets.iter().enumerate() {
            match usize::try_from(target) {
                Ok(target) if target < words => rows.push(cpu::Row { token, target }),
                _ if target == IGNORED => {}
                _ => {
                    return Err(Error::argument(
                        Self::NAME,
                        format!("expected target {IGNORED} or 0..{words} at token {token}, got {target}"),
                    ));
                }
            }
        }
        Ok(rows)
    }

    /// The loss, and each token's log-sum-exp where it is wanted.
    fn forward_on_cpu(
        &self,
        ctx: &Context,
        hidden: &Tensor,
        targets: &Tensor,
        w: &Tensor,
        want_lse: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let targets = targets.contiguous(ctx)?;
        let rows = Self::rows(targets.as_slice()?, w.shape()[0])?;
        let wide = hidden.dtype().accumulator();
        let mut lse = if want_lse { Some(Tensor::zeros(ctx, targets.shape(), wide)?) } else { None };
        let mut loss = Tensor::empty(ctx, &[1], wide)?;
        let h = widened(ctx, hidden)?;
        crate::for_float!(Self::NAME, hidden.dtype(), T => {
            type R = <T as Float>::Acc;
            let pass = cpu::Pass::<R>::new(ctx, h.as_slice()?, w, &rows, self.chunk)?;
            let lse = lse.as_mut().map(|lse| lse.as_mut_slice()).transpose()?;
            loss.as_mut_slice::<R>()?[0] = R::of(cpu::forward(ctx, &pass, lse)? * self.scale);
            Ok(())
        })?;
        Ok((loss, lse))
    }

    /// The gradients on a GPU, from one recomputation of the logits: of the hidden states if they are wanted, and of
    /// the weight.
    fn backward_on_gpu(
        &self,
        ctx: &Context,
        backward: &Backward<'_>,
        want_hidden: bool,
        dw: Option<WeightGrad<'_>>,
    ) -> Result<Option<Tensor>> {
        let (hidden, targets) = (backward.saved(Self::NAME, 0)?, backward.saved(Self::NAME, 1)?);
        let pass = cuda::Pass::new(ctx, hidden, targets, backward.weights[0])?;
        let grad = (backward.grad(Self::NAME)?, self.scale);
        cuda::backward(ctx, &pass, backward.saved(Self::NAME, 2)?, grad, want_hidden, dw)
    }

    /// Calls `f` with what a backward recomputes the logits from, each token's log-sum-exp, and the gradient of a
    /// token's cross-entropy.
    fn with_pass<R: Scalar, Output>(
        &self,
        ctx: &Context,
        backward: &Backward<'_>,
        f: impl FnOnce(&cpu::Pass<'_, R>, &[R], R) -> Result<Output>,
    ) -> Result<Output> {
        let h = widened(ctx, backward.saved(Self::NAME, 0)?)?;
        let targets = backward.saved(Self::NAME, 1)?.contiguous(ctx)?;
        let w = backward.weights[0];
        let rows = Self::rows(targets.as_slice()?, w.shape()[0])?;
        let pass = cpu::Pass::new(ctx, h.as_slice()?, w, &rows, self.chunk)?;
        let grad = backward.grad(Self::NAME)?.contiguous(ctx)?;
        let factor = grad.as_slice::<R>()?[0] * R::of(self.scale);
        f(&pass, backward.saved(Self::NAME, 2)?.as_slice()?, factor)
    }
}

impl Operator for LinearCrossEntropy {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let ([hidden, targets], [w]) = expect_counts(Self::NAME, inputs, weights)?;
        let dtype = expect_float(Self::NAME, [hidden, w])?;
        if targets.dtype != DType::I32 {
            return Err(Error::DType { op: Self::NAME, given: targets.dtype, wanted: "i32 targets".into() });
        }
        let (h, t, w) = (&hidden.shape, &targets.shape, &w.shape);
        let fits = matches!((h.as_slice(), t.as_slice(), w.as_slice()), (&[a, d], &[b], &[_, e]) if a == b && d == e);
        if !fits {
            let wanted = "hidden [T, D], targets [T] and a weight [V, D]";
            return Err(Error::shape(Self::NAME, (h, t, w), wanted));
        }
        if w[0] == 0 {
            return Err(Error::shape(Self::NAME, (h, t, w), "a weight of at least one word"));
        }
        if self.chunk == 0 {
            return Err(Error::argument(Self::NAME, "expected chunks of at least 1 word, got 0"));
        }
        let wide = dtype.accumulator();
        let saved = [SavedSpec::Input(0), SavedSpec::Input(1), SavedSpec::New(Spec::new(t, wide))];
        let saved = saved.into_iter().take(if need.any() { 3 } else { 0 });
        Ok(Inferred::one(Spec::new(&[1], wide), saved))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        let (hidden, targets, w) = (call.inputs[0], call.inputs[1], call.weights[0]);
        let (loss, lse) = if ctx.is_gpu() {
            let (loss, lse) = cuda::forward(ctx, &cuda::Pass::new(ctx, hidden, targets, w)?, self.scale)?;
            (loss, call.need.any().then_some(lse))
        } else {
            self.forward_on_cpu(ctx, hidden, targets, w, call.need.any())?
        };
        Ok(Forwarded::with(loss, lse))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        if !backward.need.input(0) {
            return Ok(smallvec![None, None]);
        }
        if ctx.is_gpu() {
            let dh = self.backward_on_gpu(ctx, backward, true, None)?;
            return Ok(smallvec![dh, None]);
        }
        let hidden = backward.saved(Self::NAME, 0)?;
        let dh = crate::for_float!(Self::NAME, hidden.dtype(), T => {
            type R = <T as Float>::Acc;
            self.with_pass::<R, _>(ctx, backward, |pass, lse, factor| {
                rounded::<T>(ctx, hidden.shape(), |dh| cpu::backward_hidden(ctx, pass, lse, factor, dh))
            })
        })?;
        Ok(smallvec![Some(dh), None])
    }

    fn backward_weight(&self, ctx: &Context, backward: &Backward<'_>, mut dw: WeightGrad<'_>) -> Result<()> {
        if dw.weight != 0 {
            return Err(Error::argument(Self::NAME, format!("expected weight 0, got {}", dw.weight)));
        }
        if ctx.is_gpu() {
            return self.backward_on_gpu(ctx, backward, false, Some(dw)).map(drop);
        }
        let add = dw.accumulate;
        crate::for_float!(Self::NAME, backward.saved(Self::NAME, 0)?.dtype(), T => {
            type R = <T as Float>::Acc;
            let dw = dw.slice::<R>()?;
            self.with_pass::<R, _>(ctx, backward, |pass, lse, factor| {
                cpu::backward_weight(ctx, pass, lse, factor, add, dw)
            })
        })
    }

    /// As if every token had a target.
    fn flops(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Flops {
        Flops::weighted(2.0 * inputs[1].len() as f64 * weights[0].len() as f64, need)
    }

    fn backward_all(
        &self,
        ctx: &Context,
        backward: &Backward<'_>,
        weights: &mut dyn WeightGrads,
    ) -> Result<InputGrads> {
        if ctx.is_gpu() && backward.need.input(0) && backward.need.weight(0) {
            let dh = self.backward_on_gpu(ctx, backward, true, Some(weights.of(0)))?;
            return Ok(smallvec![dh, None]);
        }
        one_by_one(self, ctx, backward, weights)
    }
}
