//! Whether numbers are finite, asked on the device that has them.

pub(crate) mod cuda;

use bigmac_runtime::{Context, DType, Error, Result, Tensor};

const OP: &str = "admit";

/// `to[0] =` the last of some `values` if all of them are finite and `to[0]` is not NaN; else NaN.
///
/// Once `to[0]` is NaN it stays that: whatever depends on it (see [`Clip`](crate::adamw::Clip)) stops at the first call
/// with a value that is not finite, although the host learns of it later. Nothing waits for the device. `values` are
/// F32, a few, at least one; `to` is F32 `[1]`: start from zeros.
///
/// # Errors
/// [`Error::Shape`], [`Error::DType`], [`Error::NotContiguous`]; [`Error::Shared`] when another tensor holds `to`'s
/// storage.
pub fn admit(ctx: &Context, values: &Tensor, to: &mut Tensor) -> Result<()> {
    if values.is_empty() || to.shape() != [1] {
        return Err(Error::shape(OP, (values.shape(), to.shape()), "at least one value, and a result [1]"));
    }
    for tensor in [values, &*to] {
        if tensor.dtype() != DType::F32 {
            return Err(Error::DType { op: OP, given: tensor.dtype(), wanted: "f32".into() });
        }
    }
    if !values.is_contiguous() {
        let (shape, strides) = (values.shape().to_vec(), values.strides().to_vec());
        return Err(Error::NotContiguous { op: OP, shape, strides });
    }
    if ctx.is_gpu() {
        return cuda::admit(ctx, values, to);
    }
    let (values, to) = (values.as_slice::<f32>()?, to.as_mut_slice::<f32>()?);
    let good = !to[0].is_nan() && values.iter().all(|value| value.is_finite());
    to[0] = if good { values[values.len() - 1] } else { f32::NAN };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::gpus;

    /// The CPU, and the GPUs that there are.
    fn contexts() -> Vec<Context> {
        let gpus = gpus().unwrap().iter().map(|gpu| Context::on_gpu(0, 1, gpu).unwrap());
        std::iter::once(Context::cpu(0, 1).unwrap()).chain(gpus).collect()
    }

    #[test]
    fn the_last_is_handed_on_until_one_is_not_finite_and_never_again() {
        for ctx in contexts() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for place in 0..3 {
                    let mut to = Tensor::zeros(&ctx, &[1], DType::F32).unwrap();
                    let mut call = |values: &[f32]| {
                        let values = Tensor::from_slice(&ctx, values, &[values.len()]).unwrap();
                        admit(&ctx, &values, &mut to).unwrap();
                        to.to_vec::<f32>(&ctx).unwrap()[0]
                    };
                    assert_eq!(call(&[7.0]), 7.0);
                    assert_eq!(call(&[-1.0, f32::MAX, 0.5]), 0.5);
                    let mut values = [1.0, 2.0, 3.0];
                    values[place] = bad;
                    assert!(call(&values).is_nan(), "{bad} at {place}");
                    assert!(call(&[1.0, 2.0, 3.0]).is_nan());
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for ctx in contexts() {
            let zeros = |shape: &[usize], dtype| Tensor::zeros(&ctx, shape, dtype).unwrap();
            let call = |values: &Tensor, mut to: Tensor| admit(&ctx, values, &mut to);
            let (three, one) = (zeros(&[3], DType::F32), || zeros(&[1], DType::F32));
            assert!(call(&three, one()).is_ok());
            assert!(matches!(call(&zeros(&[0], DType::F32), one()), Err(Error::Shape { .. })));
            assert!(matches!(call(&three, zeros(&[2], DType::F32)), Err(Error::Shape { .. })));
            assert!(matches!(call(&zeros(&[3], DType::BF16), one()), Err(Error::DType { .. })));
            assert!(matches!(call(&three, zeros(&[1], DType::I32)), Err(Error::DType { .. })));
            let column = zeros(&[3, 2], DType::F32).narrow(1, 0, 1).unwrap();
            assert!(matches!(call(&column, one()), Err(Error::NotContiguous { .. })));
            let to = one();
            let _other = to.clone();
            assert!(matches!(call(&three, to), Err(Error::Shared { .. })));
        }
    }
}
