//! Noise of flow matching.

mod cpu;
pub(crate) mod cuda;

use crate::cast::cast;
use bigmac_runtime::rng::Philox;
use bigmac_runtime::{Context, DType, Error, Result, Tensor};

const OP: &str = "noise";

/// `(1 - t) x + t n`, and its derivative by t `n - x`, where n are the first standard normal numbers of `stream`, one
/// for each element of x: two tensors of x's shape, computed in F32 and rounded to `dtype`.
///
/// x is F32, of any shape. On a GPU `dtype` is F32 or BF16, and the numbers are drawn there: those of the CPU, up to a
/// unit in the last place of n where its logarithm or cosine rounds otherwise.
///
/// Source: Liu et al., *Flow Straight and Fast*, arXiv 2209.03003, eq. 1.
///
/// # Errors
/// [`Error::DType`]; [`Error::Argument`] for a stream that numbers were drawn from already; those of allocation.
pub fn add_noise(
    ctx: &Context,
    x: &Tensor,
    t: f32,
    stream: &Philox,
    dtype: DType,
) -> Result<(Tensor, Tensor)> {
    if x.dtype() != DType::F32 {
        return Err(Error::DType {
            op: OP,
            given: x.dtype(),
            wanted: "f32 for what noise is added to".into(),
        });
    }
    if stream.counter()[0] != 0 {
        return Err(Error::argument(
            OP,
            "expected a new stream of random numbers, got one that numbers were drawn from",
        ));
    }
    let x = x.contiguous(ctx)?;
    if ctx.is_gpu() {
        let new = || Tensor::empty(ctx, x.shape(), dtype);
        let (mut latents, mut target) = (new()?, new()?);
        cuda::add_noise(ctx, OP, &x, t, stream, &mut latents, &mut target)?;
        return Ok((latents, target));
    }
    let new = || Tensor::empty(ctx, x.shape(), DType::F32);
    let (mut latents, mut target) = (new()?, new()?);
    cpu::add_noise(x.as_slice()?, t, stream.clone(), latents.as_mut_slice()?, target.as_mut_slice()?);
    Ok((cast(ctx, &latents, dtype)?, cast(ctx, &target, dtype)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{gpus, random, to_f64};
    use bigmac_close::{absolute, is_close};
    use bigmac_runtime::Device;
    use bigmac_runtime::rng::Purpose;

    fn stream() -> Philox {
        Philox::new(0x0123_4567_89ab_cdef, Purpose::new("noise test"), 7, 2)
    }

    #[test]
    fn both_lie_on_the_line_from_x_to_the_numbers_of_the_stream() {
        let ctx = Context::cpu(0, 3).unwrap();
        let values: Vec<f32> = random(&[1001], 1).iter().map(|&x| x as f32).collect();
        let x = Tensor::from_slice(&ctx, &values, &[1001]).unwrap();
        let (latents, target) = add_noise(&ctx, &x, 0.25, &stream(), DType::F32).unwrap();
        let mut numbers = stream();
        for ((x, y), v) in
            values.iter().zip(latents.as_slice::<f32>().unwrap()).zip(target.as_slice::<f32>().unwrap())
        {
            let n = numbers.normal();
            assert_eq!((*y, *v), (0.75 * x + 0.25 * n, n - x));
        }
    }

    #[test]
    fn a_gpu_draws_the_numbers_of_the_cpu() {
        let cpu = Context::cpu(0, 1).unwrap();
        for len in [0, 1, 2, 3, 511, 512, 513, 20_001] {
            let values: Vec<f32> = random(&[len], 1).iter().map(|&x| x as f32).collect();
            let x = Tensor::from_slice(&cpu, &values, &[len]).unwrap();
            for gpu in gpus().unwrap() {
                let ctx = Context::on_gpu(0, 1, gpu).unwrap();
                for (dtype, rounding) in [(DType::F32, 0.0), (DType::BF16, 2f64.powi(-8))] {
                    let (y, v) = add_noise(&cpu, &x, 0.3, &stream(), dtype).unwrap();
                    let there = x.to_device(&ctx).unwrap();
                    let (given_y, given_v) = add_noise(&ctx, &there, 0.3, &stream(), dtype).unwrap();
                    for (given, wanted) in [(given_y, y), (given_v, v)] {
                        let (given, wanted) = (to_f64(&ctx, &given).unwrap(), to_f64(&cpu, &wanted).unwrap());
                        let mut differ = 0;
                        for (i, (a, b)) in given.iter().zip(&wanted).enumerate() {
                            // The last place of n, which is below 8, or of the result.
                            let allowed = absolute(2f64.powi(-21) + rounding * b.abs());
                            assert!(is_close(*a, *b, allowed), "{dtype} {i} of {len}: {a} {b}");
                            differ += usize::from(a != b);
                        }
                        // A replay has the CPU's logarithm and cosine.
                        let most = if ctx.device() == Device::Replay { 0 } else { len / 1000 };
                        assert!(differ <= most, "{differ} of {len} numbers of {dtype} differ");
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let ctx = Context::cpu(0, 1).unwrap();
        let zeros = |dtype| Tensor::zeros(&ctx, &[3], dtype).unwrap();
        let call = |x: &Tensor, stream: &Philox, dtype| add_noise(&ctx, x, 0.5, stream, dtype);
        let mut used = stream();
        used.next_u32();
        assert!(matches!(call(&zeros(DType::BF16), &stream(), DType::F32), Err(Error::DType { .. })));
        assert!(matches!(call(&zeros(DType::F32), &stream(), DType::I32), Err(Error::DType { .. })));
        assert!(matches!(call(&zeros(DType::F32), &used, DType::F32), Err(Error::Argument { .. })));
        assert!(call(&zeros(DType::F32), &stream(), DType::F64).is_ok());
    }
}
