//! Layer normalisation.

mod cpu;
pub(crate) mod cuda;

use crate::column_sums::{self, Terms};
use crate::numeric::Real;
use crate::operator::*;
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};

/// `y = (x - mean) / sqrt(variance + eps) * w + b` over the last dimension (variance with `1 / D`), computed in the
/// accumulator type.
///
/// Input x `[.., D]`, weights w `[D]` and b `[D]` of the same float dtype; output like x. Saves x, and mean and
/// reciprocal standard deviation of each row; nothing when only the gradient of b is wanted.
///
/// Source: Ba, Kiros and Hinton, *Layer Normalization*, arXiv 1607.06450; `torch.nn.LayerNorm`.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f64,
}

impl Operator for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let ([x], [w, b]) = expect_counts(self.name(), inputs, weights)?;
        infer(self.name(), x, w, b, need.input(0) || need.weight(0))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        let save = call.need.input(0) || call.need.weight(0);
        forward(self.name(), ctx, call.inputs[0], (0.0, call.weights[0], call.weights[1]), self.eps, save)
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let dx = input_gradient(self.name(), ctx, backward, (0.0, backward.weights[0]))?;
        Ok(smallvec![Some(dx)])
    }

    fn backward_weight(&self, ctx: &Context, backward: &Backward<'_>, mut dw: WeightGrad<'_>) -> Result<()> {
        let (op, width) = (self.name(), backward.weights[0].len());
        let dy = backward.grad(op)?.contiguous(ctx)?;
        if dw.weight == 1 {
            return column_sums::into_grad(ctx, op, &dy, width, Terms::Values, &mut dw);
        }
        let (x, statistics) = (backward.saved(op, 0)?.contiguous(ctx)?, backward.saved(op, 1)?);
        column_sums::into_grad(ctx, op, &dy, width, Terms::Normalised { x: &x, statistics }, &mut dw)
    }
}

/// Checks of a layer normalisation of x `[.., D]` with scale and shift `[D]`; what it saves when `save`.
pub(crate) fn infer(op: &'static str, x: &Spec, w: &Spec, b: &Spec, save: bool) -> Result<Inferred> {
    expect_float(op, [x, w, b])?;
    if w.shape.len() != 1 || w.shape != b.shape || w.shape.last() != x.shape.last() || w.is_empty() {
        let wanted = "x [.., D], scale [D] and shift [D], D at least 1";
        return Err(Error::shape(op, (&x.shape, &w.shape, &b.shape), wanted));
    }
    let statistics = Spec::new(&[x.len() / w.len(), 2], x.dtype.accumulator());
    let saved = [SavedSpec::Input(0), SavedSpec::New(statistics)];
    Ok(Inferred::one(x.clone(), saved.into_iter().filter(|_| save)))
}

/// A layer normalisation scaled by `offset + w` and shifted by `b`. When `save`, its statistics are saved.
pub(crate) fn forward(
    op: &'static str,
    ctx: &Context,
    x: &Tensor,
    (offset, w, b): (f64, &Tensor, &Tensor),
    eps: f64,
    save: bool,
) -> Result<Forwarded> {
    let (rows, w, b) = (x.contiguous(ctx)?, w.contiguous(ctx)?, b.contiguous(ctx)?);
    let mut y = Tensor::empty(ctx, x.shape(), x.dtype())?;
    let mut statistics = Tensor::empty(ctx, &[x.len() / w.len(), 2], x.dtype().accumulator())?;
    if ctx.is_gpu() {
        cuda::forward(ctx, op, &rows, (offset, &w, &b), eps, (&mut y, &mut statistics))?;
    } else {
        crate::for_float!(op, x.dtype(), T => {
            let affine = (Real::of(offset), w.as_slice()?, b.as_slice()?);
            cpu::forward::<T>(ctx, rows.as_slice()?, affine, eps, y.as_mut_slice()?, statistics.as_mut_slice()?);
            Ok(())
        })?;
    }
    Ok(Forwarded::with(y, save.then_some(statistics)))
}

/// The gradient of x, from x and statistics as saved tensors 0 and 1.
pub(crate) fn input_gradient(
    op: &'static str,
    ctx: &Context,
    backward: &Backward<'_>,
    (offset, w): (f64, &Tensor),
) -> Result<Tensor> {
    let x = backward.saved(op, 0)?.contiguous(ctx)?;
    let statistics = backward.saved(op, 1)?;
    let dy = backward.grad(op)?.contiguous(ctx)?;
    let w = w.contiguous(ctx)?;
    let mut dx = Tensor::empty(ctx, x.shape(), x.dtype())?;
    if ctx.is_gpu() {
        cuda::backward_input(ctx, op, &x, (offset, &w), statistics, &dy, &mut dx)?;
    } else {
        crate::for_float!(op, x.dtype(), T => {
            let (x, affine, dy) = (x.as_slice()?, (Real::of(offset), w.as_slice()?), dy.as_slice()?);
            cpu::backward_input::<T>(ctx, x, affine, statistics.as_slice()?, dy, dx.as_mut_slice()?);
            Ok(())
        })?;
    }
    Ok(dx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Check;
    use bigmac_runtime::DType;

    #[test]
    fn every_width_passes() {
        for shape in [&[7, 3][..], &[2, 3, 24], &[33, 96], &[4, 97], &[2, 300], &[0, 4]] {
            let width = &shape[shape.len() - 1..];
            Check::new(&LayerNorm { eps: 1e-5 }).input(shape).weight(width).weight(width).run().unwrap();
        }
    }

    #[test]
    fn widths_around_the_edges_of_teams_pass() {
        for (rows, width) in [(1, 33), (7, 128), (33, 129), (3, 1152), (1, 8195), (2, 16_392)] {
            let check = Check::new(&LayerNorm { eps: 1e-5 }).input(&[rows, width]);
            check.weight(&[width]).weight(&[width]).dtypes(&[DType::F32, DType::BF16]).run().unwrap();
        }
    }

    #[test]
    fn a_mean_far_from_zero_cancels_nothing() {
        let ctx = Context::cpu(0, 1).unwrap();
        let x: Vec<f32> = (0..96).map(|i| 1000.0 + (i % 2) as f32).collect();
        let x = Tensor::from_slice(&ctx, &x, &[1, 96]).unwrap();
        let w = Tensor::from_slice(&ctx, &[1f32; 96], &[96]).unwrap();
        let b = Tensor::zeros(&ctx, &[96], DType::F32).unwrap();
        let y = LayerNorm { eps: 0.0 }.compute(&ctx, &[&x], &[&w, &b]).unwrap();
        let y = y.as_slice::<f32>().unwrap();
        assert!(y.iter().enumerate().all(|(i, y)| *y == if i % 2 == 0 { -1.0 } else { 1.0 }), "{y:?}");
    }

    #[test]
    fn nothing_is_saved_for_the_bias_alone() {
        let need = Need { inputs: &[false], weights: &[false, true] };
        let (x, w) = (Spec::new(&[2, 4], DType::F32), Spec::new(&[4], DType::F32));
        let inferred = LayerNorm { eps: 1e-5 }.infer(&[x], &[w.clone(), w], need).unwrap();
        assert!(inferred.saved.is_empty());
    }
}
