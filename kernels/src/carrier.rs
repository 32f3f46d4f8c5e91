//! An empty tensor that carries a shape and a dtype to a backward which needs no values.

use bigmac_runtime::{Context, Dims, Result, Spec, Tensor};

/// The spec of [`carrier`]: of a leading extent 0, so that it takes no bytes.
pub(crate) fn carrier_spec(x: &Spec) -> Spec {
    let shape: Dims = std::iter::once(0).chain(x.shape.iter().copied()).collect();
    Spec { shape, dtype: x.dtype }
}

/// An empty tensor that carries the shape and dtype of `x`.
pub(crate) fn carrier(ctx: &Context, x: &Tensor) -> Result<Tensor> {
    Tensor::empty(ctx, &carrier_spec(&x.spec()).shape, x.dtype())
}

/// The shape that a [`carrier`] carries.
pub(crate) fn carried_shape(carrier: &Tensor) -> &[usize] {
    carrier.shape().get(1..).unwrap_or_default()
}
