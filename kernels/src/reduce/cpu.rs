//! Reductions on the CPU.

use super::Reduce;
use crate::numeric::{Float, Real};
use bigmac_runtime::Context;

/// Elements that one thread takes at a time.
pub(super) const BLOCK: usize = 1 << 15;
/// Elements whose accumulators stay in the first-level cache while the inputs' values pass by.
pub(super) const STRIP: usize = 512;

/// Inputs and output are of one length.
pub(super) fn reduce<T: Float>(ctx: &Context, op: Reduce, inputs: &[&[T]], out: &mut [T]) {
    match op {
        Reduce::Sum => combine(ctx, inputs, out, |a, b| a + b),
        // What is not comparable with itself is NaN, and stays.
        #[expect(clippy::eq_op, reason = "the test for NaN that every float type has")]
        Reduce::Max => combine(ctx, inputs, out, |a, b| if b > a || b != b { b } else { a }),
    }
}

fn combine<T: Float>(
    ctx: &Context,
    inputs: &[&[T]],
    out: &mut [T],
    f: impl Fn(T::Acc, T::Acc) -> T::Acc + Sync,
) {
    ctx.threads().chunks_mut(out, BLOCK, |block, out| {
        let mut acc = [T::Acc::ZERO; STRIP];
        for (strip, out) in out.chunks_mut(STRIP).enumerate() {
            let at = block * BLOCK + strip * STRIP;
            let acc = &mut acc[..out.len()];
            for (i, input) in inputs.iter().enumerate() {
                let values = acc.iter_mut().zip(&input[at..at + out.len()]);
                if i == 0 {
                    values.for_each(|(acc, x)| *acc = x.acc());
                } else {
                    values.for_each(|(acc, x)| *acc = f(*acc, x.acc()));
                }
            }
            out.iter_mut().zip(acc).for_each(|(out, acc)| *out = T::from_acc(*acc));
        }
    });
}
