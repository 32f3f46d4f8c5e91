//! Loops over rows and columns that become vector code, with a fixed order of every sum.
//!
//! Sums go into arrays of independent lanes, which the compiler keeps in vector registers: a float sum in one variable
//! cannot be reordered, so it would run at the latency of an addition. Element `i` of a row always goes to the same
//! lane and lanes are folded in the same order, so a result depends on the row alone.

use crate::numeric::{Float, Real};
use bigmac_runtime::{Context, Result, Tensor};
use std::array::from_fn;
use std::ops::Range;

/// Elements to a block of work: 64 KiB of f32, so that a block's operands stay in the second-level cache.
pub(crate) const BLOCK: usize = 16 * 1024;

/// Lanes of the main loops: four registers of 256 bits, enough to hide the latency of an addition.
const WIDE: usize = 32;
/// Lanes of the loops over what is left: one register, so that heads of 24 or 40 need no scalar tail.
const NARROW: usize = 8;

/// Rows of `width` that make a block of work.
pub(crate) fn rows_per_block(width: usize) -> usize {
    (BLOCK / width.max(1)).max(1)
}

/// `L` elements from `at`, as a reference to an array.
#[inline(always)]
pub(crate) fn chunk<T, const L: usize>(x: &[T], at: usize) -> &[T; L] {
    &x[at..at + L].as_chunks::<L>().0[0]
}

#[inline(always)]
fn add_lanes<T: Float, const N: usize, const K: usize, const L: usize>(
    sums: &mut [[T::Acc; L]; K],
    x: [&[T; L]; N],
    f: impl Fn([T::Acc; N]) -> [T::Acc; K],
) {
    let values: [[T::Acc; K]; L] = from_fn(|lane| f(from_fn(|n| x[n][lane].acc())));
    for (k, sums) in sums.iter_mut().enumerate() {
        *sums = from_fn(|lane| sums[lane] + values[lane][k]);
    }
}

/// The sums over all `i` of `f(rows[0][i], rows[1][i], ..)`, for rows of one length.
#[inline(always)]
pub(crate) fn sums<T: Float, const N: usize, const K: usize>(
    rows: [&[T]; N],
    f: impl Fn([T::Acc; N]) -> [T::Acc; K],
) -> [T::Acc; K] {
    let len = rows[0].len();
    let rows = rows.map(|r| &r[..len]);
    let mut narrow = [[T::Acc::ZERO; NARROW]; K];
    let mut at = 0;
    if len >= WIDE {
        let mut wide = [[T::Acc::ZERO; WIDE]; K];
        while at + WIDE <= len {
            add_lanes(&mut wide, rows.map(|r| chunk::<T, WIDE>(r, at)), &f);
            at += WIDE;
        }
        for (narrow, wide) in narrow.iter_mut().zip(&wide) {
            for (lane, sum) in narrow.iter_mut().enumerate() {
                *sum =
                    (wide[lane] + wide[lane + NARROW]) + (wide[lane + 2 * NARROW] + wide[lane + 3 * NARROW]);
            }
        }
    }
    while at + NARROW <= len {
        add_lanes(&mut narrow, rows.map(|r| chunk::<T, NARROW>(r, at)), &f);
        at += NARROW;
    }
    let mut sums: [T::Acc; K] = from_fn(|k| {
        let s = &narrow[k];
        ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
    });
    while at < len {
        let values = f(from_fn(|n| rows[n][at].acc()));
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value;
        }
        at += 1;
    }
    sums
}

/// `y[i] = f(rows[0][i], rows[1][i], ..)` for rows of `y`'s length.
///
/// Each step loads its lanes before it stores any, so short rows need no check whether slices overlap.
#[inline(always)]
pub(crate) fn map<T: Float, const N: usize>(rows: [&[T]; N], y: &mut [T], f: impl Fn([T::Acc; N]) -> T::Acc) {
    let rows = rows.map(|r| &r[..y.len()]);
    let (head, tail) = y.as_chunks_mut::<NARROW>();
    let done = head.len() * NARROW;
    for (c, y) in head.iter_mut().enumerate() {
        let x = rows.map(|r| chunk::<T, NARROW>(r, c * NARROW));
        *y = from_fn(|lane| T::from_acc(f(from_fn(|n| x[n][lane].acc()))));
    }
    for (i, y) in tail.iter_mut().enumerate() {
        *y = T::from_acc(f(from_fn(|n| rows[n][done + i].acc())));
    }
}

/// The sum over all `i` of `f(x[0][i], x[1][i], ..)`: blocks are summed in the accumulator type, their sums in f64.
#[inline(always)]
pub(crate) fn total<T: Float, const N: usize>(
    ctx: &Context,
    x: [&[T]; N],
    f: impl Fn([T::Acc; N]) -> T::Acc + Sync,
) -> f64 {
    let blocks = ctx.threads().map_blocks(x[0].len(), BLOCK, |_, range| {
        let [sum] = sums(x.map(|x| &x[range.clone()]), |x| [f(x)]);
        sum.f64()
    });
    blocks.into_iter().sum()
}

/// Row `i` of `y` is row `index(i)` of `table`; rows of `row_bytes` bytes, whatever they hold.
pub(crate) fn gather(
    ctx: &Context,
    table: &[u8],
    row_bytes: usize,
    index: impl Fn(usize) -> usize + Sync,
    y: &mut [u8],
) {
    if row_bytes == 0 {
        return;
    }
    let rows = (4 * BLOCK / row_bytes).max(1);
    ctx.threads().chunks_mut(y, rows * row_bytes, |block, y| {
        for (i, y) in y.chunks_exact_mut(row_bytes).enumerate() {
            y.copy_from_slice(&table[index(block * rows + i) * row_bytes..][..row_bytes]);
        }
    });
}

/// Writes the rows of `part` bytes of `x` from byte `start` on into the rows of `whole` bytes of `y`.
pub(crate) fn place(x: &[u8], y: &mut [u8], [part, start, whole]: [usize; 3]) {
    for (to, from) in y.chunks_exact_mut(whole.max(1)).zip(x.chunks_exact(part.max(1))) {
        to[start..start + part].copy_from_slice(from);
    }
}

/// Adds `x` to `sums`, element by element.
pub(crate) fn accumulate<T: Float>(sums: &mut [T::Acc], x: &[T]) {
    for (sum, x) in sums.iter_mut().zip(x) {
        *sum += x.acc();
    }
}

/// The sums over rows of `f(parameters(row), [matrix[row][column] of each matrix])`, for every column of row-major
/// matrices of one shape `[rows, width]`.
///
/// Blocks of rows, fixed by `width` alone, are summed apart and their sums added in order.
pub(crate) fn column_sums<T: Float, P: Copy, const N: usize, const K: usize>(
    ctx: &Context,
    matrices: [&[T]; N],
    width: usize,
    parameters: impl Fn(usize) -> P + Sync,
    f: impl Fn(P, [T::Acc; N]) -> [T::Acc; K] + Sync,
) -> [Vec<T::Acc>; K] {
    /// Enough rows that the sums of a block cost little beside the block, however wide rows are.
    const ROWS: usize = 64;
    let rows = matrices[0].len() / width.max(1);
    let block = (4 * BLOCK / width.max(1)).max(ROWS);
    let parts = ctx.threads().map_blocks(rows, block, |_, rows| {
        let mut sums: [Vec<T::Acc>; K] = from_fn(|_| vec![T::Acc::ZERO; width]);
        let mut at = 0;
        while at + WIDE <= width {
            strip::<T, P, N, K, WIDE, 1>(matrices, width, at, rows.clone(), &parameters, &f, &mut sums);
            at += WIDE;
        }
        while at + NARROW <= width {
            strip::<T, P, N, K, NARROW, 4>(matrices, width, at, rows.clone(), &parameters, &f, &mut sums);
            at += NARROW;
        }
        while at < width {
            strip::<T, P, N, K, 1, 4>(matrices, width, at, rows.clone(), &parameters, &f, &mut sums);
            at += 1;
        }
        sums
    });
    let mut parts = parts.into_iter();
    let mut total = parts.next().unwrap_or_else(|| from_fn(|_| vec![T::Acc::ZERO; width]));
    for part in parts {
        for (total, part) in total.iter_mut().zip(&part) {
            accumulate(total, part);
        }
    }
    total
}

/// The sum over the rows of `x` `[rows, width]`.
pub(crate) fn sum_rows<T: Float>(ctx: &Context, x: &[T], width: usize) -> Vec<T::Acc> {
    let [sums] = column_sums(ctx, [x], width, |_| (), |(), [x]| [x]);
    sums
}

/// A vector of sums as a tensor of `T`'s dtype.
pub(crate) fn rounded<T: Float>(ctx: &Context, sums: &[T::Acc]) -> Result<Tensor> {
    let mut y = Tensor::empty(ctx, &[sums.len()], T::DTYPE)?;
    for (y, sum) in y.as_mut_slice::<T>()?.iter_mut().zip(sums) {
        *y = T::from_acc(*sum);
    }
    Ok(y)
}

/// [`column_sums`] of `L` columns from `at`: every `R`th row goes to the same lanes.
#[inline(always)]
fn strip<T: Float, P: Copy, const N: usize, const K: usize, const L: usize, const R: usize>(
    matrices: [&[T]; N],
    width: usize,
    at: usize,
    rows: Range<usize>,
    parameters: impl Fn(usize) -> P,
    f: impl Fn(P, [T::Acc; N]) -> [T::Acc; K],
    sums: &mut [Vec<T::Acc>; K],
) {
    let mut lanes = [[[T::Acc::ZERO; L]; K]; R];
    let add = |lanes: &mut [[T::Acc; L]; K], row: usize| {
        let p = parameters(row);
        add_lanes(lanes, matrices.map(|m| chunk::<T, L>(m, row * width + at)), |x| f(p, x));
    };
    let mut row = rows.start;
    while row + R <= rows.end {
        for (r, lanes) in lanes.iter_mut().enumerate() {
            add(lanes, row + r);
        }
        row += R;
    }
    for row in row..rows.end {
        add(&mut lanes[0], row);
    }
    for (k, sums) in sums.iter_mut().enumerate() {
        for (lane, sum) in sums[at..at + L].iter_mut().enumerate() {
            *sum = lanes.iter().map(|lanes| lanes[k][lane]).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_maps_of_every_length_agree_with_plain_loops() {
        for len in 0..140usize {
            let x: Vec<f64> = (0..len).map(|i| (i * i % 17) as f64 - 3.0).collect();
            let z: Vec<f64> = (0..len).map(|i| (i % 5) as f64).collect();
            let [product, sum] = sums([&x, &z], |[x, z]| [x * z, x]);
            // Small integers: every order of addition is exact.
            assert_eq!(product, x.iter().zip(&z).map(|(x, z)| x * z).sum::<f64>());
            assert_eq!(sum, x.iter().sum::<f64>());
            let mut y = vec![0.0; len];
            map([&x, &z], &mut y, |[x, z]| x - 2.0 * z);
            assert!(y.iter().zip(x.iter().zip(&z)).all(|(y, (x, z))| *y == x - 2.0 * z));
        }
    }

    #[test]
    fn column_sums_of_every_width_agree_with_plain_loops_for_any_number_of_threads() {
        for threads in [1, 3] {
            let ctx = Context::cpu(0, threads).unwrap();
            for (rows, width) in [(0, 3), (1, 1), (7, 41), (70, 33), (131, 8), (9000, 17), (200, 2000)] {
                let x: Vec<f32> = (0..rows * width).map(|i| (i * 31 % 13) as f32).collect();
                let [sums, weighted] =
                    column_sums(&ctx, [&x], width, |row| (row % 4) as f32, |p, [x]| [x, p * x]);
                for column in 0..width {
                    let of = |row: usize| x[row * width + column];
                    assert_eq!(sums[column], (0..rows).map(of).sum::<f32>());
                    let wanted = (0..rows).map(|row| (row % 4) as f32 * of(row)).sum::<f32>();
                    assert_eq!(weighted[column], wanted);
                }
            }
        }
    }
}
