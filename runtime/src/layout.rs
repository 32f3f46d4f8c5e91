//! Shape, strides and offset of a view.

use smallvec::SmallVec;

/// Extents or strides, without an allocation up to five dimensions.
pub type Dims = SmallVec<[usize; 5]>;

/// How a view lies in its storage: element `i` is at `offset + sum(i[d] * strides[d])`, in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub(crate) shape: Dims,
    pub(crate) strides: Dims,
    pub(crate) offset: usize,
}

impl Layout {
    /// Row-major, from offset 0.
    pub fn contiguous(shape: &[usize]) -> Self {
        let mut strides = Dims::from_elem(1, shape.len());
        for d in (1..shape.len()).rev() {
            strides[d - 1] = strides[d] * shape[d];
        }
        Layout { shape: Dims::from_slice(shape), strides, offset: 0 }
    }

    /// Extents.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Strides in elements.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Elements before the first one.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True when the elements lie in row-major order without gaps (extents of 1 may have any stride).
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().filter(|(extent, _)| **extent != 1).all(
            |(extent, stride)| {
                let follows = *stride == expected;
                expected *= extent;
                follows
            },
        )
    }

    /// Calls `f(offset of the run's first element)` for each run along the last dimension, in row-major order.
    pub(crate) fn for_each_row(&self, mut f: impl FnMut(usize)) {
        if self.is_empty() {
            return;
        }
        let outer = self.shape.len().saturating_sub(1);
        let mut index = Dims::from_elem(0, outer);
        let mut at = self.offset;
        loop {
            f(at);
            let mut d = outer;
            loop {
                if d == 0 {
                    return;
                }
                d -= 1;
                index[d] += 1;
                at += self.strides[d];
                if index[d] < self.shape[d] {
                    break;
                }
                at -= self.strides[d] * self.shape[d];
                index[d] = 0;
            }
        }
    }
}
