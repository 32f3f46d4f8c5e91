//! The product's inner loops: a block of C held in registers while k runs.
//!
//! Neither operand is packed. Rows of B are read as vectors, elements of A as broadcasts, so A may have any strides,
//! and B needs unit column stride. Every element of C is one chain of fused multiply-adds in order of k, whatever the
//! block it falls in, so results do not depend on how C is cut.

use super::vector::{Scalar, Vector};
use super::{Matrix, MatrixMut};

/// Rows of C in registers, and vectors in each: 24 accumulators, 3 vectors of B and a broadcast of 32 registers; half
/// as many where the machine has 16.
const ROWS: usize = if cfg!(target_feature = "avx512f") { 8 } else { 4 };
const VECTORS: usize = if cfg!(target_feature = "avx512f") { 3 } else { 2 };

/// Steps of k to a pass: as many rows of a panel of B as stay in the first two levels of cache between rows of C.
const DEPTH: usize = 384;

/// What a block of C is computed from: pointers to its first elements, strides, and how many lanes of its last vector
/// count.
struct Block<R> {
    depth: usize,
    a: *const R,
    a_row: usize,
    a_col: usize,
    b: *const R,
    b_row: usize,
    c: *mut R,
    c_row: usize,
    last: usize,
    add: bool,
}

/// `c = a b`, or `c += a b` when `add`, in the calling thread.
///
/// # Panics
/// When the shapes do not fit or `b` has a column stride other than 1: both are the caller's to know.
pub(crate) fn multiply<R: Scalar>(a: Matrix<'_, R>, b: Matrix<'_, R>, add: bool, mut c: MatrixMut<'_, R>) {
    assert!(a.rows == c.rows && a.cols == b.rows && b.cols == c.cols, "{a:?} {b:?}");
    assert!(b.col_stride == 1 || b.cols <= 1, "{b:?}");
    if a.cols == 0 && !add {
        c.fill(R::ZERO);
    }
    if c.rows == 0 || c.cols == 0 || a.cols == 0 {
        return;
    }
    let lanes = R::Vector::LANES;
    let vectors = c.cols.div_ceil(lanes);
    // Panels and blocks of rows of equal height, rather than full ones and a thin rest, which would be slower.
    let panels = vectors.div_ceil(VECTORS);
    let blocks = c.rows.div_ceil(ROWS);
    for k in (0..a.cols).step_by(DEPTH) {
        for p in 0..panels {
            let (from, to) = (p * vectors / panels, (p + 1) * vectors / panels);
            let columns = (to * lanes).min(c.cols) - from * lanes;
            let last = columns - (to - from - 1) * lanes;
            for i in 0..blocks {
                let (top, bottom) = (i * c.rows / blocks, (i + 1) * c.rows / blocks);
                // SAFETY: top < c.rows = a.rows, k < a.cols = b.rows, from * lanes < c.cols = b.cols, and each view has
                // checked that all its elements lie in its slice; the block reads and writes rows top..bottom, columns
                // from * lanes.. + columns, and k.. + depth of these views only. c is borrowed mutably.
                unsafe {
                    let block = Block {
                        depth: DEPTH.min(a.cols - k),
                        a: a.data.as_ptr().add(top * a.row_stride + k * a.col_stride),
                        a_row: a.row_stride,
                        a_col: a.col_stride,
                        b: b.data.as_ptr().add(k * b.row_stride + from * lanes),
                        b_row: b.row_stride,
                        c: c.data.as_mut_ptr().add(top * c.row_stride + from * lanes),
                        c_row: c.row_stride,
                        last,
                        add: add || k > 0,
                    };
                    match to - from {
                        1 => by_rows::<R, 1>(bottom - top, &block),
                        2 => by_rows::<R, 2>(bottom - top, &block),
                        _ => by_rows::<R, 3>(bottom - top, &block),
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn by_rows<R: Scalar, const N: usize>(rows: usize, block: &Block<R>) {
    // SAFETY: the caller's.
    unsafe {
        match rows {
            1 => run::<R, 1, N>(block),
            2 => run::<R, 2, N>(block),
            3 => run::<R, 3, N>(block),
            4 => run::<R, 4, N>(block),
            5 => run::<R, 5, N>(block),
            6 => run::<R, 6, N>(block),
            7 => run::<R, 7, N>(block),
            _ => run::<R, 8, N>(block),
        }
    }
}

/// # Safety
/// The block's pointers reach M rows of A and C, `depth` columns of A and rows of B, N - 1 vectors and `last` elements
/// of each row of B and C.
unsafe fn run<R: Scalar, const M: usize, const N: usize>(block: &Block<R>) {
    // SAFETY: the caller's.
    unsafe {
        if block.last == R::Vector::LANES {
            accumulate::<R, M, N, true>(block);
        } else {
            accumulate::<R, M, N, false>(block);
        }
    }
}

/// # Safety
/// As [`run`]; WHOLE says that `last` is a whole vector.
#[inline(always)]
unsafe fn accumulate<R: Scalar, const M: usize, const N: usize, const WHOLE: bool>(block: &Block<R>) {
    let lanes = R::Vector::LANES;
    let count = |j: usize| if WHOLE || j + 1 < N { lanes } else { block.last };
    // SAFETY: i < M, k < depth, and j < N with count(j) lanes: what the caller says the pointers reach.
    unsafe {
        let mut sums = [[R::Vector::splat(R::ZERO); N]; M];
        if block.add {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = R::Vector::load(block.c.add(i * block.c_row + j * lanes), count(j));
                }
            }
        }
        let rows: [*const R; M] = std::array::from_fn(|i| block.a.add(i * block.a_row));
        let (mut b, mut at) = (block.b, 0);
        for _ in 0..block.depth {
            let bs: [R::Vector; N] = std::array::from_fn(|j| R::Vector::load(b.add(j * lanes), count(j)));
            for (row, sums) in rows.iter().zip(&mut sums) {
                let a = R::Vector::splat(*row.add(at));
                for (sum, b) in sums.iter_mut().zip(bs) {
                    *sum = a.mul_add(b, *sum);
                }
            }
            // wrapping: after the last row the pointer may lie past the slice, where it is not read.
            b = b.wrapping_add(block.b_row);
            at += block.a_col;
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                sum.store(block.c.add(i * block.c_row + j * lanes), count(j));
            }
        }
    }
}
