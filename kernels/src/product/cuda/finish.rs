//! What becomes of a product's sums, and where they go; the headers that kernels share for it.

use super::Problem;
use bigmac_gpu::Arg;
use bigmac_runtime::{DType, Result, Tensor};

/// What every source of a product includes.
pub(super) const INCLUDES: &[(&str, &str)] = &[
    ("product/epilogue.cuh", include_str!("../epilogue.cuh")),
    ("product/raster.cuh", include_str!("../raster.cuh")),
];
/// What the epilogue of a kernel is told, other than where to write.
pub(super) struct Finish {
    pub(super) bias: Arg,
    pub(super) residual: Arg,
    pub(super) alpha: Arg,
    pub(super) flags: Arg,
}

/// Where a product, or the parts of one, go.
pub(super) struct Target {
    pub(super) c: Arg,
    pub(super) dtype: DType,
    pub(super) columns: usize,
    /// Elements from row to row, and from matrix to matrix.
    pub(super) leading: usize,
    pub(super) stride: usize,
    /// Parts of the sum over k, each of so many elements and with its own matrices after those of the part before.
    pub(super) splits: usize,
    pub(super) per_split: usize,
}

impl Finish {
    /// What the problem asks for.
    pub(super) fn of(problem: &Problem<'_>) -> Result<Finish> {
        let epilogue = &problem.epilogue;
        let address = |tensor: Option<&Tensor>| tensor.map_or(Ok(Arg::NULL), Tensor::arg);
        let flags = [epilogue.bias.is_some(), epilogue.residual.is_some(), epilogue.accumulate];
        Ok(Finish {
            bias: address(epilogue.bias)?,
            residual: address(epilogue.residual)?,
            alpha: Arg::F32(epilogue.alpha),
            flags: Arg::U32(flags.iter().zip([1, 2, 4]).map(|(&set, bit)| u32::from(set) * bit).sum()),
        })
    }

    /// The sums as they are, in fp32.
    pub(super) fn partial() -> Finish {
        Finish { bias: Arg::NULL, residual: Arg::NULL, alpha: Arg::F32(1.0), flags: Arg::U32(0) }
    }
}
