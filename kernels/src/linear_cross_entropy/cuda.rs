//! The fused loss on a GPU: blocks of tokens by chunks of the vocabulary, products by kernels of their own, rows by
//! `kernel.cu`.

use super::LinearCrossEntropy;
use crate::cast::cast;
use crate::operator::WeightGrad;
use crate::product::cuda::{Batch, Epilogue, Factor, Output, multiply};
use crate::sum::cuda::finish;
use bigmac_gpu::{Arg, Launch, Source, Variants};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, DType, Result, Tensor};
use std::ops::Range;

static SOURCE: Source = Source::new("linear_cross_entropy/kernel.cu", include_str!("kernel.cu"));

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![Variants::new(&SOURCE)]
}

const OP: &str = LinearCrossEntropy::NAME;

/// Bytes of logits and their gradients that are held at a time.
const WORKSPACE: usize = 256 << 20;
/// Tokens to a block. Each chunk of words adds to the block's gradient of the hidden states and each block to the
/// chunk's gradient of the weight, both in f32 through memory; that traffic is least where both are about as large.
const TOKENS: usize = 8192;
/// Chunks are a multiple of this, so that tiles of the products are whole and rows begin at 16 bytes.
const WORDS: usize = 128;
/// Logits that a thread of the kernels has under way.
const PER_THREAD: usize = 16;

/// How the matrix of logits is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Tokens to a block.
    pub(super) tokens: usize,
    /// Words to a chunk.
    pub(super) words: usize,
}

impl Plan {
    /// For `tokens` by `words` logits with `bytes` for each, logit and gradient together.
    pub(super) fn new(tokens: usize, words: usize, bytes: usize) -> Self {
        let tokens = tokens.clamp(1, TOKENS);
        let most = (WORKSPACE / (bytes * tokens)).max(WORDS);
        let chunks = words.div_ceil(most).max(1);
        Plan { tokens, words: words.div_ceil(chunks).next_multiple_of(WORDS) }
    }
}

/// What logits are computed from, forward and backward.
#[derive(Debug)]
pub(super) struct Pass {
    hidden: Tensor,
    targets: Tensor,
    w: Tensor,
    plan: Plan,
}

impl Pass {
    /// Of hidden states `[T, D]`, targets `[T]` and the weight `[V, D]`.
    pub(super) fn new(ctx: &Context, hidden: &Tensor, targets: &Tensor, w: &Tensor) -> Result<Self> {
        let bytes = if hidden.dtype() == DType::F32 { 4 } else { 6 };
        let plan = Plan::new(hidden.shape()[0], w.shape()[0], bytes);
        Pass::with_plan(ctx, hidden, targets, w, plan)
    }

    pub(super) fn with_plan(
        ctx: &Context,
        hidden: &Tensor,
        targets: &Tensor,
        w: &Tensor,
        plan: Plan,
    ) -> Result<Self> {
        let (hidden, targets) = (hidden.contiguous(ctx)?, targets.contiguous(ctx)?);
        Ok(Pass { hidden, targets, w: w.contiguous(ctx)?, plan })
    }

    fn tokens(&self) -> usize {
        self.hidden.shape()[0]
    }

    fn words(&self) -> usize {
        self.w.shape()[0]
    }

    fn dim(&self) -> usize {
        self.w.shape()[1]
    }

    /// Elements from one row of logits to the next: rows begin at 16 bytes in either dtype.
    fn stride(&self) -> usize {
        self.plan.words.min(self.words()).next_multiple_of(8)
    }

    /// Blocks of tokens: without any token there is an empty one, whose products write zeros where zeros belong.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        pieces(self.tokens(), self.plan.tokens)
    }

    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        pieces(self.words(), self.plan.words)
    }

    fn space(&self, ctx: &Context, dtype: DType) -> Result<Tensor> {
        let rows = self.tokens().min(self.plan.tokens);
        Tensor::empty(&ctx.in_scope(scopes::WORKSPACE), &[rows * self.stride()], dtype)
    }

    fn hidden(&self, block: &Range<usize>) -> Factor<'_> {
        Factor::new(&self.hidden, block.len(), self.dim()).at(block.start * self.dim())
    }

    fn weight(&self, chunk: &Range<usize>) -> Factor<'_> {
        Factor::new(&self.w, chunk.len(), self.dim()).at(chunk.start * self.dim())
    }

    /// Writes the logits of `block` against `chunk`: f32 whatever the dtype.
    ///
    /// Rounded to bf16 a logit of 20 is off by up to 0.06, and so is its probability, relative to it. With logits
    /// spread by 4 that puts gradients off by 7e-3 of their norm, against 1.3e-3 for f32 logits whose gradients are
    /// rounded; the row kernels read 2 bytes more.
    fn logits(
        &self,
        ctx: &Context,
        block: &Range<usize>,
        chunk: &Range<usize>,
        logits: &mut Tensor,
    ) -> Result<()> {
        let out = Output { tensor: logits, offset: 0, leading: self.stride() };
        let (h, w) = (self.hidden(block), self.weight(chunk).transposed());
        multiply(ctx, OP, h, w, out, Epilogue::default(), Batch::ONE)
    }

    /// A launch over the rows of `block` against `chunk`.
    fn launch(
        &self,
        kernel: &'static str,
        dtype: DType,
        block: &Range<usize>,
        chunk: &Range<usize>,
    ) -> Result<Launch> {
        let threads = chunk.len().div_ceil(PER_THREAD).next_multiple_of(32).clamp(32, 256);
        Ok(Launch::new(&SOURCE, kernel)
            .element(dtype.in_kernels(OP)?)
            .grid([block.len(), 1, 1])
            .block(threads))
    }
}

/// `0..len` in pieces of `size`, at least one.
fn pieces(len: usize, size: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    (0..len.max(1)).step_by(size.max(1)).map(move |start| start..(start + size).min(len))
}

/// Returns `scale` times the sum of the cross-entropies `[1]`, and each token's log-sum-exp `[T]`.
pub(super) fn forward(ctx: &Context, pass: &Pass, scale: f64) -> Result<(Tensor, Tensor)> {
    let workspace = ctx.in_scope(scopes::WORKSPACE);
    let mut lse = Tensor::empty(ctx, &[pass.tokens()], DType::F32)?;
    let mut terms = Tensor::empty(&workspace, &[pass.tokens()], DType::F32)?;
    let mut logits = pass.space(ctx, DType::F32)?;
    let rows = pass.tokens().min(pass.plan.tokens);
    // Maxima, sums and targets' logits of the chunks so far.
    let mut running = Tensor::empty(&workspace, &[3 * rows], DType::F32)?;
    for block in pass.blocks() {
        for chunk in pass.chunks() {
            pass.logits(ctx, &block, &chunk, &mut logits)?;
            let args = [
                logits.arg()?,
                Arg::i64(pass.stride())?,
                Arg::i32(chunk.start)?,
                Arg::i32(chunk.len())?,
                Arg::i32(pass.words())?,
                pass.targets.arg_at(block.start)?,
                Arg::I32(i32::from(chunk.start == 0)),
                Arg::I32(i32::from(chunk.end == pass.words())),
                running.arg_mut()?,
                running.arg_mut_at(rows)?,
                running.arg_mut_at(2 * rows)?,
                lse.arg_mut_at(block.start)?,
                terms.arg_mut_at(block.start)?,
            ];
            ctx.launch(&pass.launch("cross_entropy_forward", DType::F32, &block, &chunk)?, &args)?;
        }
    }
    let mut loss = Tensor::empty(ctx, &[1], DType::F32)?;
    finish(ctx, OP, &terms, (scale, false), &mut loss)?;
    Ok((loss, lse))
}

/// Returns the gradient of the hidden states if `want_hidden`, and writes or adds that of the weight where it is
/// wanted, from the same recomputed logits. `grad` `[1]` is the gradient of the loss.
pub(super) fn backward(
    ctx: &Context,
    pass: &Pass,
    lse: &Tensor,
    (grad, scale): (&Tensor, f64),
    want_hidden: bool,
    mut dw: Option<WeightGrad<'_>>,
) -> Result<Option<Tensor>> {
    let (dtype, dim) = (pass.hidden.dtype(), pass.dim());
    let mut logits = pass.space(ctx, DType::F32)?;
    let mut halves = if dtype == DType::F32 { None } else { Some(pass.space(ctx, dtype)?) };
    // Where the gradient of the hidden states comes in pieces, they are added up in f32 and rounded once.
    let pieces = dtype != DType::F32 && pass.chunks().count() > 1;
    let mut dh = match (want_hidden, pieces) {
        (false, _) => None,
        (true, false) => Some(Tensor::empty(ctx, pass.hidden.shape(), dtype)?),
        (true, true) => {
            Some(Tensor::empty(&ctx.in_scope(scopes::WORKSPACE), pass.hidden.shape(), DType::F32)?)
        }
    };
    for block in pass.blocks() {
        for chunk in pass.chunks() {
            pass.logits(ctx, &block, &chunk, &mut logits)?;
            let read = logits.arg()?;
            let gradients = halves.as_mut().unwrap_or(&mut logits);
            let args = [
                read,
                gradients.arg_mut()?,
                Arg::i64(pass.stride())?,
                Arg::i32(chunk.start)?,
                Arg::i32(chunk.len())?,
                pass.targets.arg_at(block.start)?,
                lse.arg_at(block.start)?,
                grad.arg()?,
                Arg::f32(scale),
            ];
            ctx.launch(&pass.launch("cross_entropy_backward", dtype, &block, &chunk)?, &args)?;
            let gradients = Factor::new(gradients, block.len(), chunk.len()).leading(pass.stride());
            if let Some(dw) = &mut dw {
                let accumulate = dw.accumulate || block.start > 0;
                let mut out = Output::gradient(dw, dim);
                out.offset += chunk.start * dim;
                let epilogue = Epilogue { accumulate, ..Epilogue::default() };
                multiply(ctx, OP, gradients.transposed(), pass.hidden(&block), out, epilogue, Batch::ONE)?;
            }
            if let Some(dh) = &mut dh {
                let out = Output { tensor: dh, offset: block.start * dim, leading: dim };
                let epilogue = Epilogue { accumulate: chunk.start > 0, ..Epilogue::default() };
                multiply(ctx, OP, gradients, pass.weight(&chunk), out, epilogue, Batch::ONE)?;
            }
        }
    }
    dh.map(|dh| if pieces { cast(ctx, &dh, dtype) } else { Ok(dh) }).transpose()
}

#[cfg(test)]
mod tests;
