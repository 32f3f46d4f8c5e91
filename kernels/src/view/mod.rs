//! Views: other shapes, slices and orders of the same elements. None of them copies in its forward or saves values.

pub(crate) mod cuda;

use crate::operator::*;
use crate::rows::place;
use bigmac_runtime::{Context, Dims, Error, Result, Spec, Tensor};

/// The same elements in another shape; the input must be contiguous. Saves nothing but the input's shape.
#[derive(Clone, Debug)]
pub struct Reshape {
    to: Dims,
}

impl Reshape {
    /// The shape that is wanted.
    pub fn new(to: &[usize]) -> Self {
        Reshape { to: Dims::from_slice(to) }
    }
}

impl Operator for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let ([x], []) = expect_counts(self.name(), inputs, weights)?;
        let to = Spec::new(&self.to, x.dtype);
        if x.len() != to.len() {
            let wanted = format!("as many elements as {:?}", self.to);
            return Err(Error::shape(self.name(), &x.shape, wanted));
        }
        Ok(Inferred::view(to, need.any().then_some(SavedSpec::Shape(0))))
    }

    fn forward(&self, _ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        Ok(Forwarded::one(call.inputs[0].reshape(&self.to)?))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let from = carried_shape(backward.saved(self.name(), 0)?);
        let dy = backward.grad(self.name())?.contiguous(ctx)?;
        Ok(smallvec![Some(dy.reshape(from)?)])
    }
}

/// Dimension `d` of the output is dimension `order[d]` of the input. The output is a strided view.
#[derive(Clone, Debug)]
pub struct Permute {
    order: Dims,
}

impl Permute {
    /// The permutation.
    pub fn new(order: &[usize]) -> Self {
        Permute { order: Dims::from_slice(order) }
    }
}

impl Operator for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], _need: Need<'_>) -> Result<Inferred> {
        let ([x], []) = expect_counts(self.name(), inputs, weights)?;
        let view = Tensor::shape_only(x).permute(&self.order)?;
        Ok(Inferred::view(view.spec(), []))
    }

    fn forward(&self, _ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        Ok(Forwarded::one(call.inputs[0].permute(&self.order)?))
    }

    fn backward_input(&self, _ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let mut inverse = self.order.clone();
        for (to, &from) in self.order.iter().enumerate() {
            inverse[from] = to;
        }
        Ok(smallvec![Some(backward.grad(self.name())?.permute(&inverse)?)])
    }
}

/// The slice `start..start + len` of dimension `dim`, as a view. Saves nothing but the input's shape; the backward
/// writes zeros around the gradient.
#[derive(Clone, Copy, Debug)]
pub struct Narrow {
    /// The dimension.
    pub dim: usize,
    /// Its first index that is kept.
    pub start: usize,
    /// How many are kept.
    pub len: usize,
}

impl Operator for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let ([x], []) = expect_counts(self.name(), inputs, weights)?;
        let view = Tensor::shape_only(x).narrow(self.dim, self.start, self.len)?;
        Ok(Inferred::view(view.spec(), need.any().then_some(SavedSpec::Shape(0))))
    }

    fn forward(&self, _ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        Ok(Forwarded::one(call.inputs[0].narrow(self.dim, self.start, self.len)?))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let from = carried_shape(backward.saved(self.name(), 0)?);
        let dy = backward.grad(self.name())?.contiguous(ctx)?;
        let inner = from[self.dim + 1..].iter().product::<usize>();
        let extents = [self.len, self.start, from[self.dim]].map(|n| n * inner);
        if ctx.is_gpu() {
            let mut dx = Tensor::empty(ctx, from, dy.dtype())?;
            cuda::pad(ctx, &dy, &mut dx, extents)?;
            return Ok(smallvec![Some(dx)]);
        }
        let mut dx = Tensor::zeros(ctx, from, dy.dtype())?;
        place(dy.as_bytes()?, dx.as_mut_bytes()?, extents.map(|n| n * dy.dtype().size()));
        Ok(smallvec![Some(dx)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Check;

    #[test]
    fn slices_of_every_dimension_pass() {
        // Of whole packs, and of rows that end within one; some larger than a block of a GPU takes.
        for (shape, dim, start, len) in [
            (&[2, 5, 3][..], 1, 1, 3),
            (&[70, 96], 1, 16, 40),
            (&[70, 96], 1, 3, 40),
            (&[70, 61], 1, 7, 43),
            (&[9, 8], 0, 2, 5),
            (&[4, 8], 1, 0, 8),
            (&[4, 8], 1, 3, 0),
        ] {
            Check::new(&Narrow { dim, start, len }).input(shape).run().unwrap();
        }
    }

    #[test]
    fn permutations_and_reshapes_pass() {
        Check::new(&Permute::new(&[2, 0, 1])).input(&[2, 3, 5]).run().unwrap();
        Check::new(&Reshape::new(&[2, 6])).input(&[3, 4]).contiguous_only().run().unwrap();
    }
}
