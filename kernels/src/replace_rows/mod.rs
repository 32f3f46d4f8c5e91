//! Putting other rows into a matrix.

pub(crate) mod cuda;

use crate::gather_rows::{expect_rows, gather_rows};
use crate::operator::*;
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};
use std::sync::Arc;

/// `y = x` with `y[rows[i]] = e[i]`: inputs x `[T, D]` and e `[rows.len(), D]` of one float dtype, output like x. Saves
/// nothing. A row may stand in `rows` once.
///
/// Reference: the `masked_scatter` of image features into text embeddings in `LlavaForConditionalGeneration`.
#[derive(Clone, Debug)]
pub struct ReplaceRows {
    /// The rows that are replaced, each below T.
    pub rows: Arc<[usize]>,
}

impl ReplaceRows {
    /// Checks that each row is there once.
    fn expect_unique(&self) -> Result<()> {
        if self.rows.is_sorted_by(|a, b| a < b) {
            return Ok(());
        }
        let mut sorted = self.rows.to_vec();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => {
                Err(Error::argument(self.name(), format!("row {} is to be replaced twice", pair[0])))
            }
            None => Ok(()),
        }
    }

    /// `x` with the rows of `e`, or zeros, in the rows that are replaced.
    fn on_gpu(&self, ctx: &Context, x: &Tensor, e: Option<&Tensor>) -> Result<Tensor> {
        let x = x.contiguous(ctx)?;
        let mut y = Tensor::empty(ctx, x.shape(), x.dtype())?;
        cuda::replace(ctx, &x, e, &self.rows, &mut y)?;
        Ok(y)
    }
}

impl Operator for ReplaceRows {
    fn name(&self) -> &'static str {
        "replace_rows"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], _need: Need<'_>) -> Result<Inferred> {
        let ([x, e], []) = expect_counts(self.name(), inputs, weights)?;
        expect_float(self.name(), inputs)?;
        if x.shape.len() != 2 || e.shape[..] != [self.rows.len(), x.shape[1]] {
            let wanted = format!("x [T, D] and e [{}, D]", self.rows.len());
            return Err(Error::shape(self.name(), (&x.shape, &e.shape), wanted));
        }
        expect_rows(self.name(), &self.rows, x.shape[0])?;
        self.expect_unique()?;
        Ok(Inferred::one(x.clone(), []))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        let e = call.inputs[1].contiguous(ctx)?;
        if ctx.is_gpu() {
            return Ok(Forwarded::one(self.on_gpu(ctx, call.inputs[0], Some(&e))?));
        }
        let mut y = call.inputs[0].copy(ctx)?;
        let row_bytes = y.shape()[1] * y.dtype().size();
        let (to, from) = (y.as_mut_bytes()?, e.as_bytes()?);
        for (i, &row) in self.rows.iter().enumerate() {
            to[row * row_bytes..][..row_bytes].copy_from_slice(&from[i * row_bytes..][..row_bytes]);
        }
        Ok(Forwarded::one(y))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let dy = backward.grad(self.name())?;
        let mut grads = InputGrads::new();
        grads.push(match backward.need.input(0) {
            true if ctx.is_gpu() => Some(self.on_gpu(ctx, dy, None)?),
            true => {
                let mut dx = dy.copy(ctx)?;
                let row_bytes = dx.shape()[1] * dx.dtype().size();
                let bytes = dx.as_mut_bytes()?;
                for &row in self.rows.iter() {
                    bytes[row * row_bytes..][..row_bytes].fill(0);
                }
                Some(dx)
            }
            false => None,
        });
        grads.push(match backward.need.input(1) {
            true => Some(gather_rows(ctx, dy, &self.rows)?),
            false => None,
        });
        Ok(grads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, random};

    #[test]
    fn rows_in_any_order_pass() {
        for rows in [&[0, 2, 5][..], &[4, 1], &[], &[0, 1, 2, 3, 4, 5]] {
            for width in [1, 7, 96, 1032] {
                let op = ReplaceRows { rows: rows.into() };
                let e = [rows.len(), width];
                Check::new(&op).input(&[6, width]).input(&e).run().unwrap();
                let frozen = random(&[6, width], 3);
                Check::new(&op).input_values(frozen, &[6, width], false).input(&e).run().unwrap();
            }
        }
    }

    #[test]
    fn rows_outside_x_and_repeated_ones_are_refused() {
        let spec = |shape: &[usize]| Spec::new(shape, bigmac_runtime::DType::F32);
        for (rows, wanted) in [([0, 3], "row 3 is outside"), ([2, 2], "row 2 is to be replaced twice")] {
            let op = ReplaceRows { rows: rows.into() };
            let error = op.infer(&[spec(&[3, 2]), spec(&[2, 2])], &[], Need::NONE).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
