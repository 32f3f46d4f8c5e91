//! Norms of gradients.

use crate::rows::total;
use bigmac_runtime::{Context, Result, Tensor};

/// The sum of the squares of a float tensor's elements: fixed blocks in the accumulator type, their sums in f64, so that
/// it is the same for any number of threads.
///
/// # Errors
/// [`bigmac_runtime::Error::DType`]; those of allocation for a strided view.
pub fn sum_of_squares(ctx: &Context, x: &Tensor) -> Result<f64> {
    let x = x.contiguous(ctx)?;
    crate::for_float!("sum_of_squares", x.dtype(), T => Ok(total(ctx, [x.as_slice::<T>()?], |[x]| x * x)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{float_tensor, random, to_f64};
    use bigmac_runtime::DType;

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
                assert!((given - wanted).abs() <= allowed * wanted, "{dtype} {len}: {given} {wanted}");
                assert_eq!(given.to_bits(), sum_of_squares(&three, &x).unwrap().to_bits());
            }
        }
    }
}
