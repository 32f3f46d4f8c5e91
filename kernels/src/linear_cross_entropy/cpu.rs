//! The fused loss on the CPU: blocks of tokens by chunks of the vocabulary.

use crate::product::{Matrix, Scalar, product, widened};
use crate::softmax::{Running, probabilities};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Result, Tensor};
use std::ops::Range;

/// Tokens whose logits against one chunk are held at a time.
const TOKENS: usize = 256;
/// Rows of logits to a block of work.
const ROWS: usize = 16;

/// A token with a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) token: usize,
    pub(super) target: usize,
}

/// What logits are computed from, forward and backward.
#[derive(Debug)]
pub(super) struct Pass<'a, R> {
    rows: &'a [Row],
    /// The hidden states of those tokens, one after the other; `None` where they are all that there are.
    gathered: Option<Tensor>,
    hidden: &'a [R],
    w: &'a Tensor,
    chunk: usize,
}

impl<'a, R: Scalar> Pass<'a, R> {
    pub(super) fn new(
        ctx: &Context,
        hidden: &'a [R],
        w: &'a Tensor,
        rows: &'a [Row],
        chunk: usize,
    ) -> Result<Self> {
        let dim = w.shape()[1];
        let mut gathered = None;
        if rows.len() * dim != hidden.len() {
            let mut to = Tensor::empty(&ctx.in_scope(scopes::WORKSPACE), &[rows.len(), dim], R::DTYPE)?;
            for (to, row) in to.as_mut_slice::<R>()?.chunks_exact_mut(dim.max(1)).zip(rows) {
                to.copy_from_slice(&hidden[row.token * dim..][..dim]);
            }
            gathered = Some(to);
        }
        Ok(Pass { rows, gathered, hidden, w, chunk })
    }

    fn dim(&self) -> usize {
        self.w.shape()[1]
    }

    /// The hidden states of rows `range`.
    fn hidden(&self, range: &Range<usize>) -> Result<Matrix<'_, R>> {
        let hidden = self.gathered.as_ref().map_or(Ok(self.hidden), |g| g.as_slice())?;
        let dim = self.dim();
        Ok(Matrix::row_major(&hidden[range.start * dim..range.end * dim], range.len(), dim))
    }

    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<R> {
        let count = self.rows.len();
        (0..count).step_by(TOKENS).map(move |start| start..(start + TOKENS).min(count))
    }

    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<R> {
        let (count, chunk) = (self.w.shape()[0], self.chunk);
        (0..count).step_by(chunk).map(move |start| start..(start + chunk).min(count))
    }

    /// The weight of a chunk in the accumulator dtype.
    fn words(&self, ctx: &Context, chunk: &Range<usize>) -> Result<Tensor> {
        widened(ctx, &self.w.narrow(0, chunk.start, chunk.len())?)
    }

    /// Workspace for the logits of a block of rows against a chunk.
    fn logits_space(&self, ctx: &Context) -> Result<Tensor> {
        let len = self.rows.len().min(TOKENS) * self.w.shape()[0].min(self.chunk);
        Tensor::empty(&ctx.in_scope(scopes::WORKSPACE), &[len], R::DTYPE)
    }

    /// Writes the logits of `block` against `chunk`, whose weight is `words`.
    fn logits(
        &self,
        ctx: &Context,
        block: &Range<usize>,
        chunk: &Range<usize>,
        words: &[R],
        logits: &mut [R],
    ) -> Result<()> {
        let words = Matrix::row_major(words, chunk.len(), self.dim());
        product(ctx, self.hidden(block)?, words.transposed(), false, logits)
    }

    /// Writes the gradient of the loss by those logits: `factor * (p - onehot)`.
    fn logit_gradients(
        &self,
        ctx: &Context,
        (block, chunk): (&Range<usize>, &Range<usize>),
        words: &[R],
        (lse, factor): (&[R], R),
        logits: &mut [R],
    ) -> Result<()> {
        self.logits(ctx, block, chunk, words, logits)?;
        let rows = &self.rows[block.clone()];
        ctx.threads().chunks_mut(logits, ROWS * chunk.len(), |i, logits| {
            for (logits, row) in logits.chunks_exact_mut(chunk.len()).zip(&rows[i * ROWS..]) {
                probabilities(logits, lse[row.token]);
                if chunk.contains(&row.target) {
                    logits[row.target - chunk.start] -= R::ONE;
                }
                logits.iter_mut().for_each(|x| *x *= factor);
            }
        });
        Ok(())
    }
}

/// Returns the sum of the cross-entropies, and writes each token's log-sum-exp where it is wanted.
pub(super) fn forward<R: Scalar>(
    ctx: &Context,
    pass: &Pass<'_, R>,
    mut lse: Option<&mut [R]>,
) -> Result<f64> {
    let mut space = pass.logits_space(ctx)?;
    let mut loss = 0.0;
    for block in pass.blocks() {
        let rows = &pass.rows[block.clone()];
        let mut states = vec![(Running::NOTHING, R::ZERO); rows.len()];
        for chunk in pass.chunks() {
            let words = pass.words(ctx, &chunk)?;
            let logits = &mut space.as_mut_slice::<R>()?[..rows.len() * chunk.len()];
            pass.logits(ctx, &block, &chunk, words.as_slice()?, logits)?;
            ctx.threads().chunks2_mut(
                (logits, ROWS * chunk.len()),
                (&mut states, ROWS),
                |i, logits, states| {
                    let rows = rows[i * ROWS..].iter().zip(states);
                    for (logits, (row, (running, logit))) in logits.chunks_exact_mut(chunk.len()).zip(rows) {
                        if chunk.contains(&row.target) {
                            *logit = logits[row.target - chunk.start];
                        }
                        running.absorb(logits);
                    }
                },
            );
        }
        for (row, (running, logit)) in rows.iter().zip(states) {
            let log_sum_exp = running.log_sum_exp();
            loss += (log_sum_exp - logit).f64();
            if let Some(lse) = lse.as_deref_mut() {
                lse[row.token] = log_sum_exp;
            }
        }
    }
    Ok(loss)
}

/// Writes the gradient of the hidden states `[T, D]`: 0 for tokens without a target.
pub(super) fn backward_hidden<R: Scalar>(
    ctx: &Context,
    pass: &Pass<'_, R>,
    lse: &[R],
    factor: R,
    dh: &mut [R],
) -> Result<()> {
    let dim = pass.dim();
    let mut space = pass.logits_space(ctx)?;
    let mut sums =
        Tensor::empty(&ctx.in_scope(scopes::WORKSPACE), &[pass.rows.len().min(TOKENS), dim], R::DTYPE)?;
    dh.fill(R::ZERO);
    for block in pass.blocks() {
        let sums = &mut sums.as_mut_slice::<R>()?[..block.len() * dim];
        for chunk in pass.chunks() {
            let words = pass.words(ctx, &chunk)?;
            let words = words.as_slice()?;
            let logits = &mut space.as_mut_slice::<R>()?[..block.len() * chunk.len()];
            pass.logit_gradients(ctx, (&block, &chunk), words, (lse, factor), logits)?;
            let logits = Matrix::row_major(logits, block.len(), chunk.len());
            product(ctx, logits, Matrix::row_major(words, chunk.len(), dim), chunk.start > 0, sums)?;
        }
        for (row, sums) in pass.rows[block].iter().zip(sums.chunks_exact(dim.max(1))) {
            dh[row.token * dim..][..dim].copy_from_slice(sums);
        }
    }
    Ok(())
}

/// Writes the gradient of the weight `[V, D]`, or adds it.
pub(super) fn backward_weight<R: Scalar>(
    ctx: &Context,
    pass: &Pass<'_, R>,
    lse: &[R],
    factor: R,
    add: bool,
    dw: &mut [R],
) -> Result<()> {
    let dim = pass.dim();
    let mut space = pass.logits_space(ctx)?;
    if pass.rows.is_empty() && !add {
        dw.fill(R::ZERO);
    }
    for chunk in pass.chunks() {
        let words = pass.words(ctx, &chunk)?;
        let dw = &mut dw[chunk.start * dim..chunk.end * dim];
        for block in pass.blocks() {
            let logits = &mut space.as_mut_slice::<R>()?[..block.len() * chunk.len()];
            pass.logit_gradients(ctx, (&block, &chunk), words.as_slice()?, (lse, factor), logits)?;
            let logits = Matrix::row_major(logits, block.len(), chunk.len());
            product(ctx, logits.transposed(), pass.hidden(&block)?, add || block.start > 0, dw)?;
        }
    }
    Ok(())
}
