//! The reduction over ranks that share a GPU.

use crate::communicator::Reduce;
use bigmac_runtime::gpu::{Arg, Launch, Source};
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};

/// The kernel's source.
pub static SOURCE: Source = Source::new("reduce.cu", include_str!("reduce.cu"));

const THREADS: usize = 256;

/// As [`crate::reduce::reduce`], of tensors on the context's device.
pub(crate) fn reduce(
    ctx: &Context,
    op: Reduce,
    inputs: &[Tensor],
    start: usize,
    out: &mut Tensor,
) -> Result<()> {
    let mut addresses = Vec::with_capacity(8 * inputs.len());
    for input in inputs {
        if start + out.len() > input.len() {
            let wanted = format!("tensors that hold {start}..{}", start + out.len());
            return Err(Error::shape("reduce", input.shape(), wanted));
        }
        if let Arg::Pointer(address) = input.arg()? {
            addresses.extend(address.to_le_bytes());
        }
    }
    let addresses = Tensor::from_bytes(ctx, &addresses, &Spec::new(&[addresses.len()], DType::U8))?;
    let vector = 16 / out.dtype().size();
    let launch = Launch::new(&SOURCE, "reduce_ranks")
        .element("reduce", out.dtype())?
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
