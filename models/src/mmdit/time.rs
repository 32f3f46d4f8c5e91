//! Sinusoidal features of a flow's time.

use super::MmditConfig;
use bigmac_kernels::cast::cast;
use bigmac_runtime::{Context, DType, Result, Tensor};

/// The time is stretched by this before its sines are taken: 1 is step 1000 of a diffusion.
const STRETCH: f64 = 1000.0;
const MAX_PERIOD: f64 = 10_000.0;

/// The features `[256]` of `time` in 0..=1, of type `dtype`: feature `i` is `cos(1000 time f_i)` for i < 128, then the
/// same sines, with `f_i = 10000^(-i / 128)` (diffusers' `Timesteps` with `flip_sin_to_cos`, shift 0, scale 1000; Ho et
/// al., arXiv 2006.11239, after Vaswani et al.). They are computed in F64; diffusers' F32 is off by up to 6e-5 at time
/// 1.
///
/// # Errors
/// [`Error::DType`](bigmac_runtime::Error::DType) when `dtype` is not a float type; those of allocation.
pub fn time_features(ctx: &Context, time: f64, dtype: DType) -> Result<Tensor> {
    const HALF: usize = MmditConfig::TIME_FEATURES / 2;
    let angle = |i: usize| STRETCH * time * (-(i as f64) / HALF as f64 * MAX_PERIOD.ln()).exp();
    let cosines = (0..HALF).map(|i| angle(i).cos());
    let features: Vec<f64> = cosines.chain((0..HALF).map(|i| angle(i).sin())).collect();
    let host = ctx.host();
    cast(&host, &Tensor::from_slice(&host, &features, &[MmditConfig::TIME_FEATURES])?, dtype)?.to_device(ctx)
}
