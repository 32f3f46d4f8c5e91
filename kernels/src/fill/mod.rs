//! One value everywhere.

pub(crate) mod cuda;

use crate::numeric::{Float, Real};
use crate::rows::BLOCK;
use bigmac_runtime::{Context, Result, Tensor};

/// Writes `value`, rounded, to every element of a contiguous, unshared float tensor.
///
/// # Errors
/// [`bigmac_runtime::Error::DType`], [`bigmac_runtime::Error::NotContiguous`], [`bigmac_runtime::Error::Shared`].
pub fn fill(ctx: &Context, x: &mut Tensor, value: f64) -> Result<()> {
    if ctx.is_gpu() {
        let (dtype, len) = (x.dtype(), x.len());
        return cuda::fill(ctx, x.arg_mut()?, dtype, len, value);
    }
    crate::for_float!("fill", x.dtype(), T => {
        let value = T::from_acc(Real::of(value));
        ctx.threads().chunks_mut(x.as_mut_slice::<T>()?, BLOCK, |_, x| x.fill(value));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{gpus, to_f64};
    use bigmac_runtime::DType;

    #[test]
    fn every_float_type_is_filled_and_shared_tensors_are_left_alone() {
        let ctx = Context::cpu(0, 1).unwrap();
        for dtype in [DType::F64, DType::F32, DType::BF16, DType::F16] {
            let mut x = Tensor::zeros(&ctx, &[3, 7], dtype).unwrap();
            fill(&ctx, &mut x, 1.5).unwrap();
            assert_eq!(to_f64(&ctx, &x).unwrap(), [1.5; 21]);
            let _other = x.clone();
            assert!(fill(&ctx, &mut x, 0.0).is_err());
        }
        assert!(fill(&ctx, &mut Tensor::zeros(&ctx, &[2], DType::I32).unwrap(), 0.0).is_err());
    }

    #[test]
    fn a_gpu_fills_tensors_of_every_length() {
        for gpu in gpus().unwrap() {
            let ctx = Context::on_gpu(0, 1, gpu).unwrap();
            for dtype in [DType::F32, DType::BF16] {
                for n in [0, 1, 9, 4097] {
                    let mut x = Tensor::zeros(&ctx, &[n], dtype).unwrap();
                    fill(&ctx, &mut x, 1.5).unwrap();
                    assert_eq!(to_f64(&ctx.host(), &x.to_cpu(&ctx).unwrap()).unwrap(), vec![1.5; n]);
                }
            }
        }
    }
}
