//! Noise on a GPU.

use bigmac_gpu::{Arg, Launch, Source, Variants};
use bigmac_runtime::rng::Philox;
use bigmac_runtime::{Context, Result, Tensor};

static SOURCE: Source = Source::new("noise/kernel.cu", include_str!("kernel.cu"));

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![Variants::new(&SOURCE)]
}

/// See [`super::add_noise`]; `x` is contiguous, the outputs are new and as long.
pub(super) fn add_noise(
    ctx: &Context,
    op: &'static str,
    x: &Tensor,
    t: f32,
    stream: &Philox,
    latents: &mut Tensor,
    target: &mut Tensor,
) -> Result<()> {
    const BLOCK: usize = 256;
    let ([k0, k1], [_, c1, c2, c3]) = (stream.key(), stream.counter());
    let launch = Launch::new(&SOURCE, "noise_add")
        .element(latents.dtype().in_kernels(op)?)
        .grid([x.len().div_ceil(2 * BLOCK), 1, 1])
        .block(BLOCK);
    let words = [k0, k1, c1, c2, c3].map(Arg::U32);
    let mut args = vec![x.arg()?, Arg::i64(x.len())?, Arg::F32(t)];
    args.extend(words);
    args.extend([latents.arg_mut()?, target.arg_mut()?]);
    ctx.launch(&launch, &args)
}
