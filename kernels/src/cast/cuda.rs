//! Change of float dtype on a GPU.

use crate::elementwise_cuda::{over, source, variants};
use bigmac_gpu::{Arg, Source, Variants};
use bigmac_runtime::{Context, DType, Error, Result, Tensor};

static SOURCE: Source = source("cast/kernel.cu", include_str!("kernel.cu"));

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![variants(&SOURCE, None).elements(&["float"])]
}

/// Writes `x` to `y`, which has another dtype.
pub(super) fn cast(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let kernel = match (x.dtype(), y.dtype()) {
        (DType::F32, DType::BF16) => "cast_to_bf16",
        (DType::BF16, DType::F32) => "cast_to_float",
        (DType::F32 | DType::BF16, given) | (given, _) => {
            return Err(Error::DType { op: "cast", given, wanted: "f32 or bf16 on a GPU".into() });
        }
    };
    let launch = over("cast", &SOURCE, kernel, DType::F32, x.len())?;
    ctx.launch(&launch, &[Arg::i64(x.len())?, x.arg()?, y.arg_mut()?])
}
