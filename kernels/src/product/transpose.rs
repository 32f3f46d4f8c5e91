//! Transposed copies.

use super::Matrix;
use super::vector::{Scalar, Vector};

/// Writes the transpose of `from` to `to`, row-major without gaps.
///
/// # Panics
/// When `to` has another number of elements.
pub(crate) fn transpose<R: Scalar>(from: Matrix<'_, R>, to: &mut [R]) {
    let (rows, cols) = (from.rows, from.cols);
    assert!(to.len() == rows * cols, "{from:?} into {}", to.len());
    if from.col_stride != 1 {
        for (j, to) in to.chunks_exact_mut(rows.max(1)).enumerate() {
            for (i, to) in to.iter_mut().enumerate() {
                *to = from.data[i * from.row_stride + j * from.col_stride];
            }
        }
        return;
    }
    let lanes = R::Vector::LANES;
    for j in (0..cols).step_by(lanes) {
        for i in (0..rows).step_by(lanes) {
            let (height, width) = (lanes.min(rows - i), lanes.min(cols - j));
            // SAFETY: rows i.. + height and columns j.. + width lie in `from`, whose view has checked its slice, and
            // their transpose in `to`, whose length was checked above.
            unsafe {
                R::Vector::transpose(
                    (from.data.as_ptr().add(i * from.row_stride + j), from.row_stride),
                    (to.as_mut_ptr().add(j * rows + i), rows),
                    height,
                    width,
                );
            }
        }
    }
}
