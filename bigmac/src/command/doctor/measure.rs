//! Quick measurements: the best of a few runs, as other programs may be running.

use bigmac_kernels::{Operator, linear::Linear};
use bigmac_runtime::{Context, DType, Tensor};
use serde::Serialize;
use std::time::Instant;

/// Extent of the square matrices that are multiplied.
pub(super) const PRODUCT: usize = 512;
/// Elements that are copied: 64 MiB, more than caches hold.
const COPIED: usize = 1 << 24;
/// Elements that one thread copies at a time.
const BLOCK: usize = 1 << 16;
const RUNS: usize = 5;

/// How fast this machine is.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    /// Bytes read and written by a copy of 64 MiB, in 1e9 per second.
    pub copy_gb_per_s: f64,
    /// Floating point operations of an f32 matrix product, in 1e9 per second.
    pub product_gflop_per_s: f64,
}

impl Measured {
    pub(super) fn take(threads: usize) -> anyhow::Result<Measured> {
        let ctx = Context::cpu(0, threads)?;
        Ok(Measured { copy_gb_per_s: copy(&ctx)?, product_gflop_per_s: product(&ctx)? })
    }
}

/// Seconds of the fastest run; one more run before warms up.
fn fastest(mut run: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    run()?;
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let began = Instant::now();
        run()?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn copy(ctx: &Context) -> anyhow::Result<f64> {
    let from = Tensor::zeros(ctx, &[COPIED], DType::F32)?;
    let mut to = Tensor::zeros(ctx, &[COPIED], DType::F32)?;
    let seconds = fastest(|| {
        let from = from.as_slice::<f32>()?;
        ctx.threads().chunks_mut(to.as_mut_slice::<f32>()?, BLOCK, |block, to| {
            to.copy_from_slice(&from[block * BLOCK..][..to.len()]);
        });
        Ok(())
    })?;
    Ok(2.0 * (COPIED * DType::F32.size()) as f64 / seconds / 1e9)
}

fn product(ctx: &Context) -> anyhow::Result<f64> {
    let ones = vec![1.0_f32; PRODUCT * PRODUCT];
    let x = Tensor::from_slice(ctx, &ones, &[PRODUCT, PRODUCT])?;
    let w = Tensor::from_slice(ctx, &ones, &[PRODUCT, PRODUCT])?;
    let linear = Linear { bias: false };
    let seconds = fastest(|| Ok(linear.compute(ctx, &[&x], &[&w]).map(drop)?))?;
    Ok(2.0 * (PRODUCT as f64).powi(3) / seconds / 1e9)
}
