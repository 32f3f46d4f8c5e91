//! What operators that work element by element share: their checks, and their loops over contiguous data.

use crate::numeric::{Float, Real};
use crate::operator::{Inferred, SavedSpec, expect_counts, expect_float};
use crate::rows::{BLOCK, chunk};
use bigmac_runtime::{Context, Error, Result, Spec};
use std::array::from_fn;

/// Elements to a step of [`map_to_two`]: two registers of 256 bits.
const LANES: usize = 16;

/// Checks that there are `N` float inputs of one shape and dtype and no weights, and predicts one output like them.
pub(crate) fn infer_like_inputs<const N: usize>(
    op: &'static str,
    inputs: &[Spec],
    weights: &[Spec],
    saved: impl IntoIterator<Item = SavedSpec>,
) -> Result<Inferred> {
    expect_counts::<N, 0>(op, inputs, weights)?;
    expect_float(op, inputs)?;
    if inputs.iter().any(|i| i.shape != inputs[0].shape) {
        let shapes: Vec<_> = inputs.iter().map(|i| &i.shape).collect();
        return Err(Error::shape(op, shapes, format!("{N} equal shapes")));
    }
    Ok(Inferred::one(inputs[0].clone(), saved))
}

/// `y[i] = f(x[0][i], x[1][i], ..)`.
#[inline(always)]
pub(crate) fn map<T: Float, const N: usize>(
    ctx: &Context,
    x: [&[T]; N],
    y: &mut [T],
    f: impl Fn([T::Acc; N]) -> T::Acc + Sync + Copy,
) {
    ctx.threads().chunks_mut(y, BLOCK, |block, y| {
        // A copy of its own: what the formula holds is then known not to change, and branches on it leave the loop.
        let formula = f;
        let x = x.map(|x| &x[block * BLOCK..][..y.len()]);
        for (i, y) in y.iter_mut().enumerate() {
            *y = T::from_acc(formula(from_fn(|n| x[n][i].acc())));
        }
    });
}

/// `(y[i], z[i]) = f(x[0][i], x[1][i], ..)`.
#[inline(always)]
pub(crate) fn map_to_two<T: Float, const N: usize>(
    ctx: &Context,
    x: [&[T]; N],
    y: &mut [T],
    z: &mut [T],
    f: impl Fn([T::Acc; N]) -> [T::Acc; 2] + Sync + Copy,
) {
    ctx.threads().chunks2_mut((y, BLOCK), (z, BLOCK), |block, y, z| {
        let formula = f;
        let x = x.map(|x| &x[block * BLOCK..][..y.len()]);
        // In steps that load before they store: with two outputs the compiler gives up on proving that none overlap.
        let mut at = 0;
        let (y, z) = (y.as_chunks_mut::<LANES>(), z.as_chunks_mut::<LANES>());
        for (y, z) in y.0.iter_mut().zip(z.0) {
            let x = x.map(|x| chunk::<T, LANES>(x, at));
            // Apart, and not as pairs: those lie in memory side by side, and taking them apart again is what is not
            // vectorised.
            let (mut a, mut b) = ([T::Acc::ZERO; LANES], [T::Acc::ZERO; LANES]);
            for lane in 0..LANES {
                [a[lane], b[lane]] = formula(from_fn(|n| x[n][lane].acc()));
            }
            *y = a.map(T::from_acc);
            *z = b.map(T::from_acc);
            at += LANES;
        }
        for (i, (y, z)) in y.1.iter_mut().zip(z.1).enumerate() {
            let [a, b] = formula(from_fn(|n| x[n][at + i].acc()));
            (*y, *z) = (T::from_acc(a), T::from_acc(b));
        }
    });
}
