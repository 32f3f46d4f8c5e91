//! Reductions on a GPU.

use super::Reduce;
use bigmac_gpu::{Arg, Launch, Source, Variants};
use bigmac_runtime::{Context, DType, Result, Spec, Tensor};

static SOURCE: Source = Source::new("reduce/kernel.cu", include_str!("kernel.cu"));

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![Variants::new(&SOURCE)]
}

const THREADS: usize = 256;

/// See [`super::reduce`].
pub(super) fn reduce(
    ctx: &Context,
    op: Reduce,
    inputs: &[Tensor],
    start: usize,
    out: &mut Tensor,
) -> Result<()> {
    let mut addresses = Vec::with_capacity(8 * inputs.len());
    for input in inputs {
        if let Arg::Pointer(address) = input.arg()? {
            addresses.extend(address.to_le_bytes());
        }
    }
    let addresses = Tensor::from_bytes(ctx, &addresses, &Spec::new(&[addresses.len()], DType::U8))?;
    let vector = 16 / out.dtype().size();
    let launch = Launch::new(&SOURCE, "reduce_tensors")
        .element(out.dtype().in_kernels("reduce")?)
        .grid([out.len().div_ceil(vector * THREADS), 1, 1])
        .block(THREADS);
    let args = [
        addresses.arg()?,
        Arg::i32(inputs.len())?,
        Arg::i64(start)?,
        out.arg_mut()?,
        Arg::i64(out.len())?,
        Arg::I32(i32::from(op == Reduce::Max)),
    ];
    ctx.launch(&launch, &args)
}
