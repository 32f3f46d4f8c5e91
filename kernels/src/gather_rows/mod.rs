//! Some rows of a matrix.

mod cpu;
pub(crate) mod cuda;

use crate::operator::*;
use crate::rows::gather;
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};
use std::sync::Arc;

/// `y[i] = x[rows[i]]`: input x `[T, D]` of float dtype, output `[rows.len(), D]`. Saves nothing but x's shape. Rows
/// may repeat; the gradients of a repeated row are added up in the accumulator type, in an order that `rows` alone
/// decides.
///
/// Reference: `torch.index_select` of dimension 0.
#[derive(Clone, Debug)]
pub struct GatherRows {
    /// The rows, each below T.
    pub rows: Arc<[usize]>,
}

impl Operator for GatherRows {
    fn name(&self) -> &'static str {
        "gather_rows"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let ([x], []) = expect_counts(self.name(), inputs, weights)?;
        let dtype = expect_float(self.name(), inputs)?;
        let [tokens, width] = x.shape[..] else {
            return Err(Error::shape(self.name(), &x.shape, "x [T, D]"));
        };
        expect_rows(self.name(), &self.rows, tokens)?;
        let saved = need.any().then_some(SavedSpec::Shape(0));
        Ok(Inferred::one(Spec::new(&[self.rows.len(), width], dtype), saved))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        Ok(Forwarded::one(gather_rows(ctx, call.inputs[0], &self.rows)?))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let shape = carried_shape(backward.saved(self.name(), 0)?);
        let dy = backward.grad(self.name())?.contiguous(ctx)?;
        let mut dx = Tensor::zeros(ctx, shape, dy.dtype())?;
        if ctx.is_gpu() {
            cuda::scatter(ctx, &self.rows, &dy, &mut dx)?;
        } else {
            crate::for_float!(self.name(), dy.dtype(), T => {
                cpu::scatter::<T>(&self.rows, dy.as_slice()?, shape[1], dx.as_mut_slice()?);
                Ok(())
            })?;
        }
        Ok(smallvec![Some(dx)])
    }
}

/// Rows of `x` `[T, D]`, which were checked, in a tensor of their own.
pub(crate) fn gather_rows(ctx: &Context, x: &Tensor, rows: &[usize]) -> Result<Tensor> {
    let x = x.contiguous(ctx)?;
    let mut y = Tensor::empty(ctx, &[rows.len(), x.shape()[1]], x.dtype())?;
    if ctx.is_gpu() {
        cuda::gather(ctx, &x, &cuda::upload(ctx, rows.iter().copied())?, &mut y)?;
        return Ok(y);
    }
    let row_bytes = x.shape()[1] * x.dtype().size();
    gather(ctx, x.as_bytes()?, row_bytes, |i| rows[i], y.as_mut_bytes()?);
    Ok(y)
}

/// The same rows of two matrices of one shape and dtype, which were checked, each in a tensor of its own.
pub(crate) fn gather_both(
    ctx: &Context,
    (a, b): (&Tensor, &Tensor),
    rows: &[usize],
) -> Result<(Tensor, Tensor)> {
    if !ctx.is_gpu() {
        return Ok((gather_rows(ctx, a, rows)?, gather_rows(ctx, b, rows)?));
    }
    // One upload for both.
    let rows = cuda::upload(&ctx.in_scope(scopes::WORKSPACE), rows.iter().copied())?;
    let gather = |x: &Tensor| -> Result<Tensor> {
        let mut y = Tensor::empty(ctx, &[rows.len(), x.shape()[1]], x.dtype())?;
        cuda::gather(ctx, &x.contiguous(ctx)?, &rows, &mut y)?;
        Ok(y)
    };
    Ok((gather(a)?, gather(b)?))
}

/// Checks that rows lie below `tokens`.
pub(crate) fn expect_rows(op: &'static str, rows: &[usize], tokens: usize) -> Result<()> {
    match rows.iter().find(|&&row| row >= tokens) {
        Some(row) => Err(Error::argument(op, format!("row {row} is outside x, which has {tokens} rows"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Check;

    #[test]
    fn rows_in_any_order_pass() {
        for rows in [&[0, 2, 5][..], &[4, 1], &[], &[3, 3, 0, 3, 5, 0]] {
            for width in [1, 7, 96, 1032] {
                Check::new(&GatherRows { rows: rows.into() }).input(&[6, width]).run().unwrap();
            }
        }
    }

    #[test]
    fn rows_outside_x_are_refused() {
        let x = Spec::new(&[3, 2], bigmac_runtime::DType::F32);
        let error = GatherRows { rows: [0, 3].into() }.infer(&[x], &[], Need::NONE).unwrap_err().to_string();
        assert!(error.contains("row 3"), "{error}");
    }

    #[test]
    fn many_gradients_of_one_row_are_summed() {
        // More than a block of a GPU has threads, so that its blocks share the columns.
        let rows: Vec<usize> = (0..150).map(|i| if i % 9 == 0 { i % 4 } else { 5 }).collect();
        for width in [3, 40] {
            Check::new(&GatherRows { rows: rows[..].into() }).input(&[6, width]).run().unwrap();
        }
    }
}
