//! Matrix products on slices, shared by the operators that need one.

mod convert;

pub(crate) use convert::{rounded, widened};

use crate::numeric::Real;
use bigmac_runtime::Context;

/// Rows of C to a block of work.
const BLOCK_ROWS: usize = 64;

/// A strided matrix over a slice: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a, R> {
    data: &'a [R],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, R: Real> Matrix<'a, R> {
    /// A view of `data`.
    ///
    /// # Panics
    /// When an element would lie outside `data`: every unchecked access below rests on this.
    pub(crate) fn new(
        data: &'a [R],
        (rows, cols): (usize, usize),
        (row_stride, col_stride): (usize, usize),
    ) -> Self {
        if rows > 0 && cols > 0 {
            let last = (rows - 1) * row_stride + (cols - 1) * col_stride;
            assert!(
                last < data.len(),
                "{rows} x {cols} at strides {row_stride}, {col_stride} in {}",
                data.len()
            );
        }
        Matrix { data, rows, cols, row_stride, col_stride }
    }

    /// Rows one behind the other.
    pub(crate) fn row_major(data: &'a [R], rows: usize, cols: usize) -> Self {
        Self::new(data, (rows, cols), (cols, 1))
    }

    /// The transposed view.
    pub(crate) fn transposed(self) -> Self {
        Matrix {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// The rows from `start`, `count` of them.
    fn rows(self, start: usize, count: usize) -> Self {
        let from = (start * self.row_stride).min(self.data.len());
        Self::new(&self.data[from..], (count, self.cols), (self.row_stride, self.col_stride))
    }
}

/// `c = a b`, or `c += a b` when `add`; `c` is row-major without gaps. Its rows are shared among the threads.
pub(crate) fn product<R: Real>(ctx: &Context, a: Matrix<'_, R>, b: Matrix<'_, R>, add: bool, c: &mut [R]) {
    ctx.threads().chunks_mut(c, BLOCK_ROWS * b.cols, |i, c| {
        let rows = c.len() / b.cols.max(1);
        product_serial(a.rows(i * BLOCK_ROWS, rows), b, add, c);
    });
}

/// As [`product`], in the calling thread.
pub(crate) fn product_serial<R: Real>(a: Matrix<'_, R>, b: Matrix<'_, R>, add: bool, c: &mut [R]) {
    assert!(a.cols == b.rows && c.len() == a.rows * b.cols, "{a:?} {b:?}");
    if a.cols == 0 && !add {
        c.fill(R::ZERO);
    }
    if c.is_empty() || a.cols == 0 {
        return;
    }
    // SAFETY: Matrix::new has checked that every element of a and b lies in its slice, the assertion that c holds all
    // rows; c is borrowed mutably, so it overlaps neither; strides are below isize::MAX as offsets into slices.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            c.as_mut_ptr(),
            1,
            b.cols as isize,
            add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            R::ONE,
            R::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
