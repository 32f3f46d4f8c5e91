//! What the choice of a kernel goes by.

use super::form::Form;
use super::{Activation, Problem};
use bigmac_gpu::Arg;
use bigmac_runtime::{Context, DType, Result};

/// A device, as far as the choice goes by it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chip<'a> {
    /// What kernels are compiled for, such as `sm_90a`; `replay`, or nothing in a context on the CPU.
    pub(super) target: &'a str,
    /// Multiprocessors, at least one.
    pub(super) processors: usize,
}

impl<'a> Chip<'a> {
    /// That of a context.
    pub(super) fn of(ctx: &'a Context) -> Self {
        let of_gpu = |gpu: &'a bigmac_gpu::Gpu| (gpu.driver().target(), gpu.driver().processors());
        let (target, processors) = ctx.gpu().map_or(("", 1), of_gpu);
        Chip { target, processors: processors.max(1) }
    }
}

/// A problem, as far as the choice goes by it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Rows and columns of the product, terms of each sum.
    pub(super) extents: [usize; 3],
    /// Products of the batch.
    pub(super) count: usize,
    /// Of both factors.
    pub(super) dtype: DType,
    /// What a kernel is compiled for.
    pub(super) form: Form,
    /// The tensor memory accelerator can address what it would load and store.
    pub(super) addressable: bool,
}

impl Facts {
    /// Those of a problem.
    ///
    /// # Errors
    /// As [`Tensor::arg`](bigmac_runtime::Tensor::arg), of a factor.
    pub(super) fn of(problem: &Problem<'_>) -> Result<Facts> {
        Ok(Facts {
            extents: [problem.m, problem.n, problem.k],
            count: problem.batch.count,
            dtype: problem.dtype(),
            form: Form::of(problem)?,
            addressable: addressable(problem),
        })
    }
}

/// True when the tensor memory accelerator can address the matrices of a batch and c, and the epilogue can read pairs
/// of what it adds. That factors are aligned is for [`Problem::is_aligned`].
fn addressable(problem: &Problem<'_>) -> bool {
    let Problem { m, batch, ref epilogue, ref out, .. } = *problem;
    let size = out.tensor.dtype().size();
    let gated = epilogue.activation == Activation::SiluGate;
    let at = |arg: Result<Arg>, bytes: usize| match arg {
        Ok(Arg::Pointer(address)) => address.is_multiple_of(bytes as u64),
        _ => false,
    };
    let apart = |stride: usize, count: usize| count <= 1 || stride > 0 && (stride * size).is_multiple_of(16);
    (batch.count <= 1 || batch.a > 0 && batch.b > 0)
        && apart(out.leading, m)
        && apart(batch.c, batch.count)
        && at(out.tensor.arg_at(out.offset), 16)
        && epilogue.bias.is_none_or(|bias| at(bias.arg(), 4))
        && epilogue.residual.is_none_or(|residual| !gated && at(residual.arg(), 2 * size))
}
