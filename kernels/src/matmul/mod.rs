//! Batched product of two activations.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use crate::numeric::Float;
use crate::operator::*;
use crate::product::{Matrix, rounded, widened};
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};

/// `y = a b` for each matrix of a batch, as `torch.matmul` without broadcasting: inputs a `[.., m, k]` (stored `[.., k,
/// m]` when `transpose_a`) and b `[.., k, n]` (stored `[.., n, k]` when `transpose_b`), of equal leading extents;
/// output `[.., m, n]`. Strided views are read where they lie in F32 and F64, and on a GPU where each matrix or its
/// transpose has contiguous rows and the matrices are evenly spaced. Sums are kept in the accumulator dtype.
///
/// Backward: `da = dy b^T`, `db = a^T dy`, each transposed back as it was stored. Saves b for the first and a for the
/// second.
#[derive(Clone, Copy, Debug, Default)]
pub struct MatMul {
    /// a is stored transposed.
    pub transpose_a: bool,
    /// b is stored transposed.
    pub transpose_b: bool,
}

/// Extents of the last two dimensions, and the number of matrices.
fn extents(shape: &[usize]) -> Option<(usize, usize, usize)> {
    let (&[rows, cols], batch) = shape.split_last_chunk::<2>().map(|(batch, last)| (last, batch))?;
    Some((rows, cols, batch.iter().product()))
}

/// The tensor in its accumulator dtype, as whatever view it is.
fn operand(ctx: &Context, tensor: &Tensor) -> Result<Tensor> {
    if tensor.dtype() == tensor.dtype().accumulator() { Ok(tensor.clone()) } else { widened(ctx, tensor) }
}

/// The matrices of a batch, transposed if so said.
fn matrices<R: Float + crate::Real>(tensor: &Tensor, transpose: bool) -> Result<Vec<Matrix<'_, R>>> {
    let data = tensor.as_strided_slice::<R>()?;
    let (shape, strides) = (tensor.shape(), tensor.strides());
    let batch = shape.len() - 2;
    let count: usize = shape[..batch].iter().product();
    let matrix = |index: usize| {
        let (mut rest, mut at) = (index, 0);
        for d in (0..batch).rev() {
            at += rest % shape[d] * strides[d];
            rest /= shape[d];
        }
        let (size, strides) = ((shape[batch], shape[batch + 1]), (strides[batch], strides[batch + 1]));
        let matrix = Matrix::new(&data[at.min(data.len())..], size, strides);
        if transpose { matrix.transposed() } else { matrix }
    };
    Ok((0..count).map(matrix).collect())
}

impl MatMul {
    const NAME: &'static str = "matmul";

    /// `op(a) op(b)` in dtype `T` of the given output shape.
    fn multiply<T: Float>(
        ctx: &Context,
        (a, transpose_a): (&Tensor, bool),
        (b, transpose_b): (&Tensor, bool),
        shape: &[usize],
    ) -> Result<Tensor>
    where
        T::Acc: crate::product::Scalar,
    {
        if ctx.is_gpu() {
            return cuda::batched(ctx, (a, transpose_a), (b, transpose_b), shape);
        }
        let (a, b) = (operand(ctx, a)?, operand(ctx, b)?);
        rounded::<T>(ctx, shape, |y| {
            cpu::batched(ctx, &matrices(&a, transpose_a)?, &matrices(&b, transpose_b)?, y)
        })
    }
}

impl Operator for MatMul {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let ([a, b], []) = expect_counts(Self::NAME, inputs, weights)?;
        let dtype = expect_float(Self::NAME, inputs)?;
        let (a, b) = (&a.shape, &b.shape);
        let wanted = || {
            let stored = |t: bool, x: &str, y: &str| {
                if t { format!("[.., {y}, {x}]") } else { format!("[.., {x}, {y}]") }
            };
            let (a, b) = (stored(self.transpose_a, "m", "k"), stored(self.transpose_b, "k", "n"));
            format!("{a} and {b} with equal leading extents")
        };
        let oriented = |shape: &[usize], transposed: bool| {
            extents(shape).map(|(rows, cols, _)| if transposed { (cols, rows) } else { (rows, cols) })
        };
        let (Some((m, k)), Some((inner, n))) = (oriented(a, self.transpose_a), oriented(b, self.transpose_b))
        else {
            return Err(Error::shape(Self::NAME, (a, b), wanted()));
        };
        let batch = a.len() - 2;
        if k != inner || b.len() != a.len() || a[..batch] != b[..batch] {
            return Err(Error::shape(Self::NAME, (a, b), wanted()));
        }
        let mut shape = a.clone();
        (shape[batch], shape[batch + 1]) = (m, n);
        let saved = [(1, need.input(0)), (0, need.input(1))];
        let saved = saved.into_iter().filter_map(|(i, need)| need.then_some(SavedSpec::Input(i)));
        Ok(Inferred::one(Spec { shape, dtype }, saved))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        let (a, b) = (call.inputs[0], call.inputs[1]);
        let batch = a.shape().len() - 2;
        let mut shape = a.shape().to_vec();
        shape[batch] = a.shape()[batch + usize::from(self.transpose_a)];
        shape[batch + 1] = b.shape()[batch + usize::from(!self.transpose_b)];
        let (a_given, b_given) = ((a, self.transpose_a), (b, self.transpose_b));
        let y = crate::for_float!(Self::NAME, a.dtype(), T => Self::multiply::<T>(ctx, a_given, b_given, &shape))?;
        Ok(Forwarded::one(y))
    }

    fn flops(&self, inputs: &[Spec], _weights: &[Spec], need: Need<'_>) -> Flops {
        let (a, b) = (&inputs[0], &inputs[1].shape);
        let columns = b[b.len() - if self.transpose_b { 2 } else { 1 }];
        let product = 2.0 * a.len() as f64 * columns as f64;
        let wanted = [0, 1].into_iter().filter(|&input| need.input(input)).count();
        Flops { forward: product, backward_input: product * wanted as f64, backward_weight: 0.0 }
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let dy = backward.grad(Self::NAME)?;
        let need = backward.need;
        // The gradient of a needs b, that of b needs a, and each has the other dimensions' extents from dy.
        let grad = |wanted: bool, other: usize, of_a: bool| -> Result<Option<Tensor>> {
            if !wanted {
                return Ok(None);
            }
            let other = backward.saved(Self::NAME, other)?;
            let batch = dy.shape().len() - 2;
            let (dy_side, other_side) = if of_a {
                (dy.shape()[batch], self.transpose_b)
            } else {
                (dy.shape()[batch + 1], self.transpose_a)
            };
            // k, which dy does not know, is the other factor's first or second extent.
            let inner = other.shape()[batch + usize::from(of_a == other_side)];
            let stored = if of_a { self.transpose_a } else { !self.transpose_b };
            let mut shape = dy.shape().to_vec();
            (shape[batch], shape[batch + 1]) = if stored { (inner, dy_side) } else { (dy_side, inner) };
            crate::for_float!(Self::NAME, dy.dtype(), T => match (of_a, self.transpose_a, self.transpose_b) {
                (true, false, t) => Self::multiply::<T>(ctx, (dy, false), (other, !t), &shape),
                (true, true, t) => Self::multiply::<T>(ctx, (other, t), (dy, true), &shape),
                (false, t, false) => Self::multiply::<T>(ctx, (other, !t), (dy, false), &shape),
                (false, t, true) => Self::multiply::<T>(ctx, (dy, true), (other, t), &shape),
            })
            .map(Some)
        };
        let da = grad(need.input(0), 0, true)?;
        let db = grad(need.input(1), usize::from(need.input(0)), false)?;
        Ok(smallvec![da, db])
    }
}
