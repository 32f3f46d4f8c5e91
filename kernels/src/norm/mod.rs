//! Norms of gradients.

pub(crate) mod cuda;

use crate::rows::total;
use bigmac_runtime::{Context, DType, Error, Result, Tensor};

/// The sum of the squares of a float tensor's elements: fixed blocks in the accumulator type, their sums in f64 (on a
/// GPU in f32), so that it is the same for any number of threads and any GPU.
///
/// On a GPU this waits for the device; [`add_sum_of_squares`] does not.
///
/// # Errors
/// [`Error::DType`]; those of allocation for a strided view.
pub fn sum_of_squares(ctx: &Context, x: &Tensor) -> Result<f64> {
    const OP: &str = "sum_of_squares";
    let x = x.contiguous(ctx)?;
    if ctx.is_gpu() {
        let mut sum = Tensor::empty(ctx, &[1], DType::F32)?;
        cuda::squares(ctx, OP, &x, false, &mut sum)?;
        return Ok(sum.to_vec::<f32>(ctx)?.into_iter().map(f64::from).sum());
    }
    crate::for_float!(OP, x.dtype(), T => Ok(total(ctx, [x.as_slice::<T>()?], |[x]| x * x)))
}

/// `to[0] += sum of the squares of x`, without waiting for the device. `to` is F32 `[1]`: start from zeros.
///
/// # Errors
/// [`Error::Shape`], [`Error::DType`]; [`Error::Shared`] when another tensor holds `to`'s storage; those of allocation
/// for a strided view.
pub fn add_sum_of_squares(ctx: &Context, x: &Tensor, to: &mut Tensor) -> Result<()> {
    const OP: &str = "add_sum_of_squares";
    if to.shape() != [1] {
        return Err(Error::shape(OP, to.shape(), "a sum of one element"));
    }
    if to.dtype() != DType::F32 {
        return Err(Error::DType { op: OP, given: to.dtype(), wanted: "f32 for the sum".into() });
    }
    if ctx.is_gpu() {
        return cuda::squares(ctx, OP, &x.contiguous(ctx)?, true, to);
    }
    let squares = sum_of_squares(ctx, x)?;
    to.as_mut_slice::<f32>()?.iter_mut().for_each(|to| *to = (f64::from(*to) + squares) as f32);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{float_tensor, gpus, random, to_f64};
    use bigmac_close::{absolute, assert_close, is_close};

    #[test]
    fn agrees_with_f64_for_any_number_of_threads() {
        let (one, three) = (Context::cpu(0, 1).unwrap(), Context::cpu(0, 3).unwrap());
        for len in [0, 1, 31, 1000, 100_003] {
            let values = random(&[len], 1);
            for (dtype, allowed) in
                [(DType::F64, 1e-13), (DType::F32, 1e-6), (DType::BF16, 1e-6), (DType::F16, 1e-6)]
            {
                let x = float_tensor(&one, &values, &[len], dtype).unwrap();
                let wanted: f64 = to_f64(&one, &x).unwrap().iter().map(|x| x * x).sum();
                let given = sum_of_squares(&one, &x).unwrap();
                assert!(
                    is_close(given, wanted, absolute(allowed * wanted)),
                    "{dtype} {len}: {given} {wanted}"
                );
                assert_eq!(given.to_bits(), sum_of_squares(&three, &x).unwrap().to_bits());
            }
        }
    }

    #[test]
    fn squares_are_added_to_a_tensor_wherever_the_view_begins() {
        let cpu = Context::cpu(0, 1).unwrap();
        let gpus: Vec<Context> =
            gpus().unwrap().iter().map(|gpu| Context::on_gpu(0, 1, gpu).unwrap()).collect();
        // Around a pack, a block, and a block whose threads have all their chains at work.
        for len in [0, 1, 3, 4, 8, 9, 1023, 2049, 4096, 4097, 8200, 33_000] {
            let values = random(&[len + 1], 2);
            for dtype in [DType::F32, DType::BF16] {
                let rounded = float_tensor(&cpu, &values, &[len + 1], dtype).unwrap();
                let squares: Vec<f64> =
                    to_f64(&cpu, &rounded).unwrap().iter().skip(1).map(|x| x * x).collect();
                let wanted = 2.5 + squares.iter().sum::<f64>();
                let mut bits = None;
                for ctx in [&cpu].into_iter().chain(&gpus) {
                    let x = float_tensor(ctx, &values, &[len + 1], dtype).unwrap();
                    let view = x.narrow(0, 1, len).unwrap();
                    let add = |x: &Tensor| {
                        let mut sum = Tensor::from_slice(ctx, &[2.5f32], &[1]).unwrap();
                        add_sum_of_squares(ctx, x, &mut sum).unwrap();
                        sum.to_vec::<f32>(ctx).unwrap()[0]
                    };
                    let given = add(&view);
                    let allowed = absolute(wanted * if ctx.is_gpu() { 3e-7 } else { 2e-6 });
                    assert!(is_close(given, wanted, allowed), "{dtype} {len}: {given} {wanted}");
                    // Aligned or not, in any order, the same bits.
                    assert_eq!(given.to_bits(), add(&view.copy(ctx).unwrap()).to_bits());
                    if ctx.is_gpu() {
                        assert_eq!(*bits.get_or_insert(given.to_bits()), given.to_bits());
                        let alone = sum_of_squares(ctx, &view).unwrap();
                        assert_close(alone + 2.5, wanted, allowed);
                    }
                }
            }
        }
    }

    #[test]
    fn sums_that_cannot_be_added_to_are_refused() {
        let ctx = Context::cpu(0, 1).unwrap();
        let x = Tensor::zeros(&ctx, &[4], DType::F32).unwrap();
        let call = |shape: &[usize], dtype| {
            add_sum_of_squares(&ctx, &x, &mut Tensor::zeros(&ctx, shape, dtype).unwrap())
        };
        assert!(matches!(call(&[2], DType::F32), Err(Error::Shape { .. })));
        assert!(matches!(call(&[1], DType::F64), Err(Error::DType { .. })));
        assert!(call(&[1], DType::F32).is_ok());
    }
}
