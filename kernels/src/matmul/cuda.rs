//! Batched products on a GPU.

use crate::product::cuda::{Batch, Epilogue, Factor, Output, multiply, with_matrices};
use bigmac_runtime::{Context, Result, Tensor};

fn oriented(factor: Factor<'_>, transpose: bool) -> Factor<'_> {
    if transpose { factor.transposed() } else { factor }
}

/// `op(a) op(b)` for each matrix of a batch, as a tensor of that shape `[.., m, n]`; a factor is transposed where its
/// flag says so.
pub(super) fn batched(
    ctx: &Context,
    (a, transpose_a): (&Tensor, bool),
    (b, transpose_b): (&Tensor, bool),
    shape: &[usize],
) -> Result<Tensor> {
    let mut y = Tensor::empty(ctx, shape, a.dtype())?;
    let (count, cols) = (shape[..shape.len() - 2].iter().product(), shape[shape.len() - 1]);
    with_matrices(ctx, a, |a, a_stride| {
        with_matrices(ctx, b, |b, b_stride| {
            let (a, b) = (oriented(a, transpose_a), oriented(b, transpose_b));
            let batch = Batch { count, a: a_stride, b: b_stride, c: a.rows * cols };
            multiply(ctx, super::MatMul::NAME, a, b, Output::new(&mut y, cols), Epilogue::default(), batch)
        })
    })?;
    Ok(y)
}
