//! The linear layer on a GPU: three matrix products and a column sum.

use crate::column_sums::{self, Terms};
use crate::operator::WeightGrad;
use crate::product::cuda::{Batch, Epilogue, Factor, Output, multiply, with_rows};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Result, Tensor};

const NAME: &str = super::Linear::NAME;

/// `y = x w^T (+ b)`, of that shape.
pub(super) fn forward(
    ctx: &Context,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    shape: &[usize],
) -> Result<Tensor> {
    let (w, bias) = (w.contiguous(ctx)?, bias.map(|b| b.contiguous(ctx)).transpose()?);
    let (out, inner) = (w.shape()[0], w.shape()[1]);
    let mut y = Tensor::empty(ctx, shape, x.dtype())?;
    let epilogue = Epilogue { bias: bias.as_ref(), ..Epilogue::default() };
    with_rows(ctx, x, |x| {
        let w = Factor::new(&w, out, inner).transposed();
        multiply(ctx, NAME, x, w, Output::new(&mut y, out), epilogue, Batch::ONE)
    })?;
    Ok(y)
}

/// `dx = dy w`, of that shape.
pub(super) fn backward_input(ctx: &Context, dy: &Tensor, w: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let w = w.contiguous(ctx)?;
    let (out, inner) = (w.shape()[0], w.shape()[1]);
    let mut dx = Tensor::empty(ctx, shape, dy.dtype())?;
    with_rows(ctx, dy, |dy| {
        let w = Factor::new(&w, out, inner);
        multiply(ctx, NAME, dy, w, Output::new(&mut dx, inner), Epilogue::default(), Batch::ONE)
    })?;
    Ok(dx)
}

/// `dw = dy^T x`, written or added to the gradient.
pub(super) fn backward_weight(
    ctx: &Context,
    x: &Tensor,
    dy: &Tensor,
    grad: &mut WeightGrad<'_>,
) -> Result<()> {
    let epilogue = Epilogue { accumulate: grad.accumulate, ..Epilogue::default() };
    with_rows(ctx, x, |x| {
        with_rows(ctx, dy, |dy| {
            let out = Output::gradient(grad, x.cols);
            multiply(ctx, NAME, dy.transposed(), x, out, epilogue, Batch::ONE)
        })
    })
}

/// `db = sum of dy over rows`, written or added to the gradient.
pub(super) fn backward_bias(ctx: &Context, dy: &Tensor, grad: &mut WeightGrad<'_>) -> Result<()> {
    let dy = dy.contiguous(&ctx.in_scope(scopes::WORKSPACE))?;
    column_sums::into_grad(ctx, NAME, &dy, grad.range.len(), Terms::Values, grad)
}
