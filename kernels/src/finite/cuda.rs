//! Whether numbers are finite, on a GPU.

use bigmac_gpu::{Arg, Launch, Source, Variants};
use bigmac_runtime::{Context, Result, Tensor};

static SOURCE: Source = Source::new("finite/kernel.cu", include_str!("kernel.cu"));

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![Variants::new(&SOURCE).elements(&[])]
}

/// See [`super::admit`]; `values` are contiguous.
pub(super) fn admit(ctx: &Context, values: &Tensor, to: &mut Tensor) -> Result<()> {
    let launch = Launch::new(&SOURCE, "finite_admit");
    ctx.launch(&launch, &[values.arg()?, Arg::i32(values.len())?, to.arg_mut()?])
}
