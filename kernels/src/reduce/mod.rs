//! Reductions of several tensors, such as those of all ranks, into one.

mod cpu;
pub(crate) mod cuda;

use bigmac_runtime::{Context, Error, Result, Tensor};

/// How the values of several tensors become one. They are taken in the order of the tensors, so that the result is the
/// same, bit for bit, for any number of threads and in every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// Sum, kept in F32 for BF16 and F16 and rounded once at the end.
    Sum,
    /// Maximum; NaN when any value is NaN.
    Max,
}

impl std::fmt::Display for Reduce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reduce::Sum => "sum",
            Reduce::Max => "max",
        })
    }
}

/// Writes to `out` the reduction of as many elements of each input from element `start` on. All are contiguous and of
/// one float dtype (on a GPU F32 or BF16); there is at least one input.
///
/// # Errors
/// [`Error::Shape`] for an input that is too short, [`Error::DType`], [`Error::Shared`].
pub fn reduce(ctx: &Context, op: Reduce, inputs: &[Tensor], start: usize, out: &mut Tensor) -> Result<()> {
    let end = start + out.len();
    if let Some(short) = inputs.iter().find(|input| input.len() < end) {
        return Err(Error::shape(
            "reduce",
            short.shape(),
            format!("tensors that hold elements {start}..{end}"),
        ));
    }
    if ctx.is_gpu() {
        return cuda::reduce(ctx, op, inputs, start, out);
    }
    crate::for_float!("reduce", out.dtype(), T => {
        let inputs = inputs.iter().map(|input| Ok(&input.as_slice::<T>()?[start..end])).collect::<Result<Vec<_>>>()?;
        cpu::reduce(ctx, op, &inputs, out.as_mut_slice::<T>()?);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::cpu::{BLOCK, STRIP};
    use super::*;
    use bigmac_runtime::DType;
    use half::bf16;

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
}
