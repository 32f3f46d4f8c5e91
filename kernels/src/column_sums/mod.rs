//! Sums over the rows of matrices: what gradients of biases, norms' weights, gates, scales and shifts are.
//!
//! The order of every sum is fixed by the shape: rows are cut in blocks, which are summed apart, and the blocks' sums
//! added in order.

mod cpu;
pub(crate) mod cuda;

use crate::operator::WeightGrad;
use crate::rows;
use bigmac_runtime::{Context, Error, Result, Tensor};

/// What is summed over the rows of dy `[.., width]`, per column. Tensors are contiguous, x is as dy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Terms<'a> {
    /// `dy`.
    Values,
    /// `dy x`.
    Products(&'a Tensor),
    /// `dy x rstd`, with one rstd per row: `[rows]`, in the accumulator dtype.
    Scaled { x: &'a Tensor, rstd: &'a Tensor },
    /// `dy (x - mean) rstd`, with mean and rstd of each row: `[rows, 2]`, in the accumulator dtype.
    Normalised { x: &'a Tensor, statistics: &'a Tensor },
}

/// Writes the sums over the rows of the contiguous dy to a weight's gradient, or adds them.
///
/// # Errors
/// [`Error::Shape`] when the gradient does not have `width` elements; those of tensors and launches.
pub(crate) fn into_grad(
    ctx: &Context,
    op: &'static str,
    dy: &Tensor,
    width: usize,
    terms: Terms<'_>,
    grad: &mut WeightGrad<'_>,
) -> Result<()> {
    if grad.range.len() != width {
        return Err(Error::shape(op, [grad.range.len()], format!("a gradient of {width} elements")));
    }
    if ctx.is_gpu() {
        let (dtype, accumulate) = (grad.buffer.dtype(), grad.accumulate);
        let to = cuda::To { address: grad.arg_mut()?, dtype, accumulate };
        return cuda::sum(ctx, op, dy, width, terms, to);
    }
    crate::for_float!(op, dy.dtype(), T => grad.put(&cpu::sum::<T>(ctx, dy.as_slice()?, width, terms)?))
}

/// The sums over the rows of the contiguous dy as a tensor `[width]` of dy's dtype.
///
/// # Errors
/// Those of tensors and launches.
pub(crate) fn rounded(
    ctx: &Context,
    op: &'static str,
    dy: &Tensor,
    width: usize,
    terms: Terms<'_>,
) -> Result<Tensor> {
    if ctx.is_gpu() {
        let mut sums = Tensor::empty(ctx, &[width], dy.dtype())?;
        let to = cuda::To { address: sums.arg_mut()?, dtype: dy.dtype(), accumulate: false };
        cuda::sum(ctx, op, dy, width, terms, to)?;
        return Ok(sums);
    }
    crate::for_float!(op, dy.dtype(), T => rows::rounded::<T>(ctx, &cpu::sum::<T>(ctx, dy.as_slice()?, width, terms)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{float_tensor, gpus, random, to_f64};
    use bigmac_close::{absolute, is_close};
    use bigmac_runtime::DType;

    /// Dy, x and per-row factors of a shape, on one device.
    struct Case {
        dy: Tensor,
        x: Tensor,
        rstd: Tensor,
        statistics: Tensor,
    }

    impl Case {
        /// `shift` elements lie before dy in its storage: a shift of 1 leaves no row aligned.
        fn new(ctx: &Context, [rows, width]: [usize; 2], dtype: DType, shift: usize) -> Self {
            let make =
                |len: usize, stream| float_tensor(ctx, &random(&[len], stream), &[len], dtype).unwrap();
            let dy = make(rows * width + shift, 1).narrow(0, shift, rows * width).unwrap();
            let factors = |columns: usize, stream| {
                let values = random(&[rows, columns], stream);
                float_tensor(ctx, &values, &[rows, columns], DType::F32).unwrap()
            };
            Case {
                dy: dy.reshape(&[rows, width]).unwrap(),
                x: make(rows * width, 2).reshape(&[rows, width]).unwrap(),
                rstd: factors(1, 3),
                statistics: factors(2, 4),
            }
        }

        fn terms(&self) -> [Terms<'_>; 4] {
            let (x, rstd, statistics) = (&self.x, &self.rstd, &self.statistics);
            [
                Terms::Values,
                Terms::Products(x),
                Terms::Scaled { x, rstd },
                Terms::Normalised { x, statistics },
            ]
        }

        /// The sums of each kind of term, added to ones and rounded.
        fn sums(&self, ctx: &Context, kinds: &[usize]) -> Vec<Vec<f64>> {
            let width = self.dy.shape()[1];
            let mut all = Vec::new();
            for &kind in kinds {
                let mut buffer = float_tensor(ctx, &vec![1.0; width + 2], &[width + 2], DType::F32).unwrap();
                let mut grad =
                    WeightGrad { weight: 0, buffer: &mut buffer, range: 1..1 + width, accumulate: true };
                into_grad(ctx, "test", &self.dy, width, self.terms()[kind], &mut grad).unwrap();
                all.push(to_f64(ctx, &buffer).unwrap());
                let sums = rounded(ctx, "test", &self.dy, width, self.terms()[kind]).unwrap();
                all.push(to_f64(ctx, &sums).unwrap());
            }
            all
        }
    }

    fn check(shape: [usize; 2], dtype: DType, shift: usize, kinds: &[usize]) {
        let cpu = Context::cpu(0, 1).unwrap();
        let wanted = Case::new(&cpu, shape, dtype, shift).sums(&cpu, kinds);
        let mut first: Option<Vec<Vec<f64>>> = None;
        for gpu in gpus().unwrap() {
            let ctx = Context::on_gpu(0, 1, gpu).unwrap();
            let given = Case::new(&ctx, shape, dtype, shift).sums(&ctx, kinds);
            for (i, (given, wanted)) in given.iter().zip(&wanted).enumerate() {
                // Sums are rounded to the dtype in every other vector: to one more or less where they come close to a
                // middle.
                let allowed = if i % 2 == 1 && dtype == DType::BF16 { 8e-3 } else { 2e-6 };
                let scale = (shape[0] as f64).sqrt().max(1.0);
                for (given, wanted) in given.iter().zip(wanted) {
                    let allowed = absolute(allowed * (scale + wanted.abs()));
                    assert!(
                        is_close(*given, *wanted, allowed),
                        "{shape:?} {dtype} {shift} {i}: {given} instead of {wanted}"
                    );
                }
            }
            assert_eq!(
                first.get_or_insert_with(|| given.clone()),
                &given,
                "{shape:?} in another order of threads"
            );
        }
    }

    #[test]
    fn any_shape_agrees_with_the_cpu() {
        let shapes =
            [[0, 3], [1, 1], [7, 41], [31, 96], [33, 256], [130, 300], [129, 128], [1500, 24], [300, 264]];
        for shape in shapes {
            for dtype in [DType::F32, DType::BF16] {
                check(shape, dtype, 0, &[0]);
            }
        }
    }

    #[test]
    fn every_kind_of_term_agrees_with_the_cpu() {
        for dtype in [DType::F32, DType::BF16] {
            for shape in [[70, 256], [301, 33]] {
                check(shape, dtype, 0, &[0, 1, 2, 3]);
            }
        }
    }

    #[test]
    fn rows_that_are_not_aligned_agree_with_the_cpu() {
        for dtype in [DType::F32, DType::BF16] {
            check([40, 256], dtype, 1, &[0, 1]);
        }
    }
}
