//! Reductions over ranks: for each element the values of rank 0, 1, 2, ... in this order.

use crate::communicator::Reduce;
use bigmac_runtime::{Context, DType, Element, Error, Result, Tensor};
use half::{bf16, f16};

/// Elements that one thread takes at a time.
const BLOCK: usize = 1 << 15;
/// Elements whose accumulators stay in the first-level cache while the ranks' values pass by.
const STRIP: usize = 512;

/// An element type that is reduced, and the type its accumulator has.
trait Value: Element {
    type Acc: Copy + Default + PartialOrd + std::ops::Add<Output = Self::Acc>;
    fn load(self) -> Self::Acc;
    fn store(acc: Self::Acc) -> Self;
}

macro_rules! values {
    ($($t:ty, $acc:ty, $load:expr, $store:expr;)*) => {$(
        impl Value for $t {
            type Acc = $acc;
            #[inline(always)]
            fn load(self) -> $acc {
                $load(self)
            }
            #[inline(always)]
            fn store(acc: $acc) -> Self {
                $store(acc)
            }
        }
    )*};
}
values! {
    f64, f64, std::convert::identity, std::convert::identity;
    f32, f32, std::convert::identity, std::convert::identity;
    bf16, f32, bf16::to_f32, bf16::from_f32;
    f16, f32, f16::to_f32, f16::from_f32;
}

/// Fails unless `dtype` can be reduced.
pub(crate) fn check_dtype(op: &'static str, dtype: DType) -> Result<()> {
    if dtype.is_float() {
        return Ok(());
    }
    Err(Error::DType { op, given: dtype, wanted: "f64, f32, bf16 or f16".into() })
}

/// Writes to `out` the reduction of as many elements of each input from element `start` on. `inputs` are contiguous, one
/// per rank, in rank order, at least one.
pub(crate) fn reduce(
    ctx: &Context,
    op: Reduce,
    inputs: &[Tensor],
    start: usize,
    out: &mut Tensor,
) -> Result<()> {
    if ctx.is_gpu() {
        return crate::reduce_cuda::reduce(ctx, op, inputs, start, out);
    }
    match out.dtype() {
        DType::F64 => with_op::<f64>(ctx, op, inputs, start, out),
        DType::F32 => with_op::<f32>(ctx, op, inputs, start, out),
        DType::BF16 => with_op::<bf16>(ctx, op, inputs, start, out),
        DType::F16 => with_op::<f16>(ctx, op, inputs, start, out),
        other => check_dtype("reduce", other),
    }
}

fn with_op<T: Value>(
    ctx: &Context,
    op: Reduce,
    inputs: &[Tensor],
    start: usize,
    out: &mut Tensor,
) -> Result<()> {
    match op {
        Reduce::Sum => combine::<T>(ctx, inputs, start, out, |a, b| a + b),
        // What isn't comparable with itself is NaN, and stays.
        #[expect(clippy::eq_op, reason = "the test for NaN that every float type has")]
        Reduce::Max => combine::<T>(ctx, inputs, start, out, |a, b| if b > a || b != b { b } else { a }),
    }
}

fn combine<T: Value>(
    ctx: &Context,
    inputs: &[Tensor],
    start: usize,
    out: &mut Tensor,
    f: impl Fn(T::Acc, T::Acc) -> T::Acc + Sync,
) -> Result<()> {
    let len = out.len();
    let inputs = inputs
        .iter()
        .map(|tensor| Ok(&tensor.as_slice::<T>()?[start..start + len]))
        .collect::<Result<Vec<&[T]>>>()?;
    ctx.threads().chunks_mut(out.as_mut_slice::<T>()?, BLOCK, |block, out| {
        let mut acc = [T::Acc::default(); STRIP];
        for (strip, out) in out.chunks_mut(STRIP).enumerate() {
            let at = block * BLOCK + strip * STRIP;
            let acc = &mut acc[..out.len()];
            for (rank, input) in inputs.iter().enumerate() {
                let values = acc.iter_mut().zip(&input[at..at + out.len()]);
                if rank == 0 {
                    values.for_each(|(acc, x)| *acc = x.load());
                } else {
                    values.for_each(|(acc, x)| *acc = f(*acc, x.load()));
                }
            }
            out.iter_mut().zip(acc).for_each(|(out, acc)| *out = T::store(*acc));
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of rank `r` whose sum depends on the order it is taken in.
    fn value(rank: usize, i: usize) -> f32 {
        [1.0e8, 1.0, -1.0e8, 0.5][rank % 4] * (1.0 + i as f32 / 7.0)
    }

    #[test]
    fn sums_are_taken_in_rank_order_for_any_number_of_threads() {
        let len = BLOCK * 2 + STRIP + 3;
        let start = 5;
        let expected: Vec<u32> = (start..len)
            .map(|i| (1..5).fold(value(0, i), |sum, rank| sum + value(rank, i)).to_bits())
            .collect();
        for threads in [1, 2, 3] {
            let ctx = Context::cpu(0, threads).unwrap();
            let inputs: Vec<Tensor> = (0..5)
                .map(|rank| (0..len).map(|i| value(rank, i)).collect::<Vec<_>>())
                .map(|values| Tensor::from_slice(&ctx, &values, &[len]).unwrap())
                .collect();
            let mut out = Tensor::empty(&ctx, &[len - start], DType::F32).unwrap();
            reduce(&ctx, Reduce::Sum, &inputs, start, &mut out).unwrap();
            let bits: Vec<u32> = out.as_slice::<f32>().unwrap().iter().map(|x| x.to_bits()).collect();
            assert_eq!(bits, expected);
        }
    }

    #[test]
    fn bf16_rounds_once_and_max_keeps_nan() {
        let ctx = Context::cpu(0, 1).unwrap();
        let bf = |x: f32| Tensor::from_slice(&ctx, &[bf16::from_f32(x)], &[1]).unwrap();
        let mut out = Tensor::empty(&ctx, &[1], DType::BF16).unwrap();
        // Each 0.5 alone would be lost in 256: its neighbour in bf16 is 258.
        reduce(&ctx, Reduce::Sum, &[bf(256.0), bf(0.5), bf(0.5), bf(0.5)], 0, &mut out).unwrap();
        assert_eq!(out.as_slice::<bf16>().unwrap()[0].to_f32(), 258.0);
        for (values, max) in [([3.0, -1.0, 7.0], 7.0), ([-3.0, -1.0, -7.0], -1.0)] {
            reduce(&ctx, Reduce::Max, &values.map(bf), 0, &mut out).unwrap();
            assert_eq!(out.as_slice::<bf16>().unwrap()[0].to_f32(), max);
        }
        for at in 0..3 {
            let mut values = [1.0, 2.0, 3.0];
            values[at] = f32::NAN;
            reduce(&ctx, Reduce::Max, &values.map(bf), 0, &mut out).unwrap();
            assert!(out.as_slice::<bf16>().unwrap()[0].is_nan(), "{values:?}");
        }
    }

    #[test]
    fn integers_are_refused_by_name() {
        let error = check_dtype("all_reduce", DType::U8).unwrap_err().to_string();
        assert!(error.contains("all_reduce") && error.contains("u8") && error.contains("bf16"), "{error}");
    }
}
