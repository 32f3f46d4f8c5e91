//! Joining tensors along a dimension.

pub(crate) mod cuda;

use crate::operator::*;
use crate::rows::place;
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};

/// The inputs one after the other along dimension `dim`: any number of inputs (at least one) of one float dtype whose
/// shapes agree in every other dimension. Saves nothing but shapes; the gradients are views of the output's.
///
/// Reference: `torch.cat`.
#[derive(Clone, Copy, Debug)]
pub struct Concat {
    /// The dimension.
    pub dim: usize,
}

impl Operator for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        // Any number of inputs.
        expect_counts::<0, 0>(self.name(), &[], weights)?;
        expect_float(self.name(), inputs)?;
        let mut joined = inputs[0].clone();
        let without = |spec: &Spec| {
            let mut shape = spec.shape.clone();
            (self.dim < shape.len()).then(|| shape.remove(self.dim)).map(|_| shape)
        };
        let rest = without(&joined);
        if rest.is_none() || inputs.iter().any(|x| without(x) != rest) {
            let shapes: Vec<_> = inputs.iter().map(|x| &x.shape).collect();
            let wanted = format!("shapes that have a dimension {} and agree in all others", self.dim);
            return Err(Error::shape(self.name(), shapes, wanted));
        }
        joined.shape[self.dim] = inputs.iter().map(|x| x.shape[self.dim]).sum();
        let saved = (0..inputs.len()).filter(|_| need.any()).map(SavedSpec::Shape);
        Ok(Inferred::one(joined, saved))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        let inputs = call.inputs;
        let mut shape = inputs[0].shape().to_vec();
        shape[self.dim] = inputs.iter().map(|x| x.shape()[self.dim]).sum();
        let mut y = Tensor::empty(ctx, &shape, inputs[0].dtype())?;
        let inner = shape[self.dim + 1..].iter().product::<usize>();
        let whole = shape[self.dim] * inner;
        let mut start = 0;
        for x in inputs {
            let part = x.shape()[self.dim] * inner;
            let x = x.contiguous(ctx)?;
            if ctx.is_gpu() {
                cuda::place(ctx, &x, &mut y, [part, start, whole])?;
            } else {
                place(x.as_bytes()?, y.as_mut_bytes()?, [part, start, whole].map(|n| n * x.dtype().size()));
            }
            start += part;
        }
        Ok(Forwarded::one(y))
    }

    fn backward_input(&self, _ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let dy = backward.grad(self.name())?;
        let mut start = 0;
        let part = |(i, saved): (usize, &Tensor)| {
            let len = carried_shape(saved)[self.dim];
            let part = backward.need.input(i).then(|| dy.narrow(self.dim, start, len)).transpose();
            start += len;
            part
        };
        backward.saved.iter().enumerate().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, random};

    #[test]
    fn every_dimension_passes() {
        for dim in 0..3 {
            let shape = |extent| {
                let mut shape = [3, 4, 5];
                shape[dim] = extent;
                shape
            };
            let op = Concat { dim };
            Check::new(&op).input(&shape(2)).run().unwrap();
            let check = Check::new(&op).input(&shape(1)).input(&shape(0));
            check.input_values(random(&shape(3), 8), &shape(3), false).input(&shape(7)).run().unwrap();
        }
        // Whole packs to a GPU's thread, and more of them than a block takes; then parts that end, and that begin,
        // within a pack.
        for widths in [[64, 24, 8], [60, 27, 1], [4, 64, 4]] {
            let [a, b, c] = widths.map(|width| [70, width]);
            Check::new(&Concat { dim: 1 }).input(&a).input(&b).input(&c).run().unwrap();
        }
    }

    #[test]
    fn parts_follow_each_other() {
        let ctx = Context::cpu(0, 1).unwrap();
        let a = Tensor::from_slice(&ctx, &[1f32, 2.0], &[2, 1]).unwrap();
        let b = Tensor::from_slice(&ctx, &[3f32, 4.0, 5.0, 6.0], &[2, 2]).unwrap();
        let y = Concat { dim: 1 }.compute(&ctx, &[&a, &b], &[]).unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap(), [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let spec = |shape: &[usize]| Spec::new(shape, bigmac_runtime::DType::F32);
        let infer = |dim, inputs: &[Spec]| Concat { dim }.infer(inputs, &[], Need::NONE);
        assert!(infer(0, &[spec(&[2, 3]), spec(&[2, 4])]).is_err());
        assert!(infer(2, &[spec(&[2, 3])]).is_err());
        assert!(infer(0, &[]).is_err());
    }
}
