//! Root mean square layer normalisation.

mod cpu;
pub(crate) mod cuda;

use crate::column_sums::{self, Terms};
use crate::operator::*;
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};

/// `y = x / sqrt(mean(x^2) + eps) * w` over the last dimension, computed in the accumulator type.
///
/// Input x `[.., D]`, weight w `[D]` of the same float dtype; output like x. Saves x and one reciprocal root mean
/// square per row.
///
/// Source: Zhang and Sennrich, *Root Mean Square Layer Normalization*, arXiv 1910.07467, eq. 4; `Qwen3RMSNorm`.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm {
    /// Added to the mean square.
    pub eps: f64,
}

impl Operator for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let ([x], [w]) = expect_counts(self.name(), inputs, weights)?;
        expect_float(self.name(), [x, w])?;
        if w.shape.len() != 1 || w.shape.last() != x.shape.last() || w.is_empty() {
            return Err(Error::shape(self.name(), (&x.shape, &w.shape), "x [.., D] and w [D], D at least 1"));
        }
        let rstd = Spec::new(&[x.len() / w.len()], x.dtype.accumulator());
        let saved = [SavedSpec::Input(0), SavedSpec::New(rstd)];
        Ok(Inferred::one(x.clone(), saved.into_iter().filter(|_| need.any())))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        let (x, w) = (call.inputs[0].contiguous(ctx)?, call.weights[0].contiguous(ctx)?);
        let mut y = Tensor::empty(ctx, x.shape(), x.dtype())?;
        let mut rstd = Tensor::empty(ctx, &[x.len() / w.len()], x.dtype().accumulator())?;
        if ctx.is_gpu() {
            cuda::forward(ctx, self.name(), (&x, &w), self.eps, (&mut y, &mut rstd))?;
        } else {
            crate::for_float!(self.name(), x.dtype(), T => {
                cpu::forward::<T>(ctx, x.as_slice()?, w.as_slice()?, self.eps, y.as_mut_slice()?, rstd.as_mut_slice()?);
                Ok(())
            })?;
        }
        Ok(Forwarded::with(y, call.need.any().then_some(rstd)))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let x = backward.saved(self.name(), 0)?.contiguous(ctx)?;
        let rstd = backward.saved(self.name(), 1)?;
        let dy = backward.grad(self.name())?.contiguous(ctx)?;
        let w = backward.weights[0].contiguous(ctx)?;
        let mut dx = Tensor::empty(ctx, x.shape(), x.dtype())?;
        if ctx.is_gpu() {
            cuda::backward_input(ctx, self.name(), (&x, &w), rstd, &dy, &mut dx)?;
        } else {
            crate::for_float!(self.name(), x.dtype(), T => {
                let (x, w, dy) = (x.as_slice()?, w.as_slice()?, dy.as_slice()?);
                cpu::backward_input::<T>(ctx, x, w, rstd.as_slice()?, dy, dx.as_mut_slice()?);
                Ok(())
            })?;
        }
        Ok(smallvec![Some(dx)])
    }

    fn backward_weight(&self, ctx: &Context, backward: &Backward<'_>, mut dw: WeightGrad<'_>) -> Result<()> {
        let x = backward.saved(self.name(), 0)?.contiguous(ctx)?;
        let rstd = backward.saved(self.name(), 1)?;
        let dy = backward.grad(self.name())?.contiguous(ctx)?;
        let width = backward.weights[0].len();
        column_sums::into_grad(ctx, self.name(), &dy, width, Terms::Scaled { x: &x, rstd }, &mut dw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Check;
    use bigmac_close::{absolute, assert_all_close};
    use bigmac_runtime::DType;

    #[test]
    fn every_width_passes() {
        for shape in [&[5, 1][..], &[7, 3], &[2, 3, 24], &[33, 96], &[4, 97], &[2, 300], &[0, 4]] {
            let width = &shape[shape.len() - 1..];
            // A row of one element is normalised to its sign unless eps counts: its gradient would be all rounding.
            let eps = if width[0] == 1 { 0.5 } else { 1e-6 };
            Check::new(&RmsNorm { eps }).input(shape).weight(width).run().unwrap();
        }
    }

    #[test]
    fn widths_around_the_edges_of_teams_pass() {
        // Teams of 8, 16 and 32 threads, of 64 to 512, and rows too wide to be held; one below, at and one above.
        for (rows, width) in
            [(1, 31), (7, 33), (5, 63), (9, 64), (3, 65), (40, 127), (35, 128), (2, 129), (3, 512)]
        {
            Check::new(&RmsNorm { eps: 1e-6 }).input(&[rows, width]).weight(&[width]).run().unwrap();
        }
        for (rows, width) in [(5, 1024), (3, 1152), (2, 4099), (1, 8195), (2, 8200), (1, 16_384), (2, 16_392)]
        {
            Check::new(&RmsNorm { eps: 1e-6 })
                .input(&[rows, width])
                .weight(&[width])
                .dtypes(&[DType::F32, DType::BF16])
                .run()
                .unwrap();
        }
    }

    #[test]
    fn many_short_rows_pass() {
        Check::new(&RmsNorm { eps: 1e-6 }).input(&[6000, 24]).weight(&[24]).run().unwrap();
    }

    #[test]
    fn agrees_with_values_worked_out_by_hand() {
        let ctx = Context::cpu(0, 1).unwrap();
        let x = Tensor::from_slice(&ctx, &[3f64, 4.0, 0.0, 0.0], &[2, 2]).unwrap();
        let w = Tensor::from_slice(&ctx, &[2f64, 0.5], &[2]).unwrap();
        let y = RmsNorm { eps: 0.5 }.compute(&ctx, &[&x], &[&w]).unwrap();
        let r = 1.0 / 13f64.sqrt();
        let wanted = [6.0 * r, 2.0 * r, 0.0, 0.0];
        assert_all_close(y.as_slice::<f64>().unwrap(), &wanted, absolute(1e-15));
    }

    #[test]
    fn a_weight_of_another_width_is_refused() {
        let (x, w) =
            (Spec::new(&[2, 4], bigmac_runtime::DType::F32), Spec::new(&[3], bigmac_runtime::DType::F32));
        let error = RmsNorm { eps: 1e-6 }.infer(&[x], &[w], Need::NONE).unwrap_err().to_string();
        assert!(error.contains("rms_norm") && error.contains("[3]"), "{error}");
    }
}
