//! Layer normalisation whose scale and shift are activations.

use crate::column_sums::{self, Terms};
use crate::layer_norm;
use crate::operator::*;
use bigmac_runtime::{Context, Result, Spec};

/// `y = (x - mean) / sqrt(variance + eps) * (1 + scale) + shift` over the last dimension.
///
/// Inputs x `[T, D]`, shift `[D]` and scale `[D]` of one float dtype; output like x. Saves x, mean and reciprocal
/// standard deviation of each row, and the scale when x's gradient is wanted; nothing when only the shift's is.
///
/// Source: Peebles and Xie, *Scalable Diffusion Models with Transformers*, arXiv 2212.09748, section 3.2 (adaLN).
#[derive(Clone, Copy, Debug)]
pub struct AdaLayerNorm {
    /// Added to the variance.
    pub eps: f64,
}

impl Operator for AdaLayerNorm {
    fn name(&self) -> &'static str {
        "ada_layer_norm"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let ([x, shift, scale], []) = expect_counts(self.name(), inputs, weights)?;
        let save = need.input(0) || need.input(2);
        let mut inferred = layer_norm::infer(self.name(), x, scale, shift, save)?;
        inferred.saved.extend(need.input(0).then_some(SavedSpec::Input(2)));
        Ok(inferred)
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        let save = call.need.input(0) || call.need.input(2);
        let affine = (1.0, call.inputs[2], call.inputs[1]);
        layer_norm::forward(self.name(), ctx, call.inputs[0], affine, self.eps, save)
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let (op, need) = (self.name(), backward.need);
        let dy = backward.grad(op)?.contiguous(ctx)?;
        let width = dy.shape().last().copied().unwrap_or(0);
        let mut grads = InputGrads::from_iter([None, None, None]);
        if need.input(0) {
            let affine = (1.0, backward.saved(op, 2)?);
            grads[0] = Some(layer_norm::input_gradient(op, ctx, backward, affine)?);
        }
        if need.input(1) {
            grads[1] = Some(column_sums::rounded(ctx, op, &dy, width, Terms::Values)?);
        }
        if need.input(2) {
            let (x, statistics) = (backward.saved(op, 0)?.contiguous(ctx)?, backward.saved(op, 1)?);
            let terms = Terms::Normalised { x: &x, statistics };
            grads[2] = Some(column_sums::rounded(ctx, op, &dy, width, terms)?);
        }
        Ok(grads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, random};
    use bigmac_runtime::Tensor;

    #[test]
    fn every_width_passes() {
        for [t, d] in [[7, 3], [6, 24], [33, 96], [4, 97], [2, 300], [0, 4]] {
            Check::new(&AdaLayerNorm { eps: 1e-6 }).input(&[t, d]).input(&[d]).input(&[d]).run().unwrap();
        }
    }

    #[test]
    fn any_of_the_inputs_may_be_frozen() {
        for wanted in 1..7 {
            let mut check = Check::new(&AdaLayerNorm { eps: 1e-6 });
            let wants = |i: u32| wanted >> i & 1 == 1;
            check = check.input_values(random(&[5, 9], 1), &[5, 9], wants(0));
            check = check.input_values(random(&[9], 2), &[9], wants(1));
            check.input_values(random(&[9], 3), &[9], wants(2)).run().unwrap();
        }
    }

    #[test]
    fn scale_and_shift_do_what_they_say() {
        let ctx = Context::cpu(0, 1).unwrap();
        let tensor = |values: &[f64], shape: &[usize]| Tensor::from_slice(&ctx, values, shape).unwrap();
        let (x, shift, scale) =
            (tensor(&[1.0, 3.0], &[1, 2]), tensor(&[10.0, 20.0], &[2]), tensor(&[0.5, -3.0], &[2]));
        let y = AdaLayerNorm { eps: 0.0 }.compute(&ctx, &[&x, &shift, &scale], &[]).unwrap();
        assert_eq!(y.as_slice::<f64>().unwrap(), [10.0 - 1.5, 20.0 - 2.0]);
    }
}
