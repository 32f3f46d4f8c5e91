//! Strided matrices over slices.

use crate::numeric::Real;

/// A strided matrix over a slice: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, R> {
    pub(super) data: &'a [R],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<R> std::fmt::Debug for Matrix<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{} x {}, strides {} {}]", self.rows, self.cols, self.row_stride, self.col_stride)
    }
}

impl<'a, R: Real> Matrix<'a, R> {
    /// A view of `data`.
    ///
    /// # Panics
    /// When an element would lie outside `data`: the unchecked accesses of the inner loops rest on this.
    pub(crate) fn new(
        data: &'a [R],
        (rows, cols): (usize, usize),
        (row_stride, col_stride): (usize, usize),
    ) -> Self {
        let matrix = Matrix { data, rows, cols, row_stride, col_stride };
        if rows > 0 && cols > 0 {
            let last = (rows - 1) * row_stride + (cols - 1) * col_stride;
            assert!(last < data.len(), "{matrix:?} in {} elements", data.len());
        }
        matrix
    }

    /// Rows one after the other.
    pub(crate) fn row_major(data: &'a [R], rows: usize, cols: usize) -> Self {
        Self::new(data, (rows, cols), (cols, 1))
    }

    /// The transposed view.
    pub(crate) fn transposed(self) -> Self {
        Matrix {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// `count` rows from `start`.
    pub(crate) fn rows(self, start: usize, count: usize) -> Self {
        let from = (start * self.row_stride).min(self.data.len());
        Self::new(&self.data[from..], (count, self.cols), (self.row_stride, self.col_stride))
    }

    /// `count` columns from `start`.
    pub(crate) fn cols(self, start: usize, count: usize) -> Self {
        self.transposed().rows(start, count).transposed()
    }
}

/// A matrix to be written, whose rows are contiguous.
#[derive(Debug)]
pub(crate) struct MatrixMut<'a, R> {
    pub(super) data: &'a mut [R],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
}

impl<'a, R: Real> MatrixMut<'a, R> {
    /// A view of `data`.
    ///
    /// # Panics
    /// As [`Matrix::new`], and when rows would overlap.
    pub(crate) fn new(data: &'a mut [R], rows: usize, cols: usize, row_stride: usize) -> Self {
        if rows > 0 && cols > 0 {
            let end = (rows - 1) * row_stride + cols;
            let len = data.len();
            assert!(
                end <= len && (rows == 1 || cols <= row_stride),
                "{rows} x {cols} by {row_stride} in {len}"
            );
        }
        MatrixMut { data, rows, cols, row_stride }
    }

    /// Rows one after the other.
    pub(crate) fn row_major(data: &'a mut [R], rows: usize, cols: usize) -> Self {
        Self::new(data, rows, cols, cols)
    }

    /// Every element `x`.
    pub(super) fn fill(&mut self, x: R) {
        for row in self.data.chunks_mut(self.row_stride.max(1)).take(self.rows) {
            row[..self.cols].fill(x);
        }
    }
}
