//! What a device can do at best, as far as that can be measured or is known.

use super::clock::{Clock, SAMPLE};
use bigmac_gpu::Gpu;
use bigmac_runtime::{Context, DType, Tensor};
use serde::Serialize;

const SAMPLES: usize = 9;

/// The ceilings that shares are of.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ceilings {
    /// Bytes read and written by a copy on the device, per second.
    pub bytes: Option<f64>,
    /// Floating point operations of bf16 products, per second.
    pub bf16: Option<Flops>,
    /// The same of f32 products.
    pub f32: Option<Flops>,
}

/// A rate, and where it is from.
#[derive(Clone, Debug, Serialize)]
pub struct Flops {
    /// Floating point operations per second.
    pub rate: f64,
    /// `cuBLAS` or `data sheet`.
    pub source: &'static str,
}

impl Ceilings {
    /// Measures a copy of so many bytes; products are those of the data sheet, where the device is one that is known.
    ///
    /// # Errors
    /// Those of allocation and of the driver.
    pub fn measure(ctx: &Context, gpu: &Gpu, bytes: usize) -> anyhow::Result<Ceilings> {
        let from = Tensor::empty(ctx, &[bytes], DType::U8)?;
        let mut to = Tensor::empty(ctx, &[bytes], DType::U8)?;
        let clock = Clock::new(gpu, SAMPLE);
        let mut copy = |_: usize| Ok(to.write(ctx, 0, &from)?);
        let runs = clock.runs(&mut copy)?;
        let mut best: f64 = 0.0;
        for _ in 0..SAMPLES {
            best = best.max(2.0 * bytes as f64 / clock.take(runs, &mut copy)?.seconds);
        }
        let sheet = |rate| Flops { rate, source: "data sheet" };
        let (bf16, f32) = dense_peak(gpu.driver().target())
            .map_or((None, None), |[bf16, f32]| (Some(sheet(bf16)), Some(sheet(f32))));
        Ok(Ceilings { bytes: Some(best), bf16, f32 })
    }

    /// The ceiling of products in that dtype.
    pub fn flops(&self, dtype: DType) -> Option<&Flops> {
        match dtype {
            DType::BF16 => self.bf16.as_ref(),
            DType::F32 => self.f32.as_ref(),
            _ => None,
        }
    }
}

/// Dense bf16 products on tensor cores and f32 ones beside them, per second, of the data centre part of an
/// architecture: H100 SXM and H200, and A100, by NVIDIA's data sheets.
fn dense_peak(target: &str) -> Option<[f64; 2]> {
    match target {
        "sm_90" | "sm_90a" => Some([989.4e12, 66.9e12]),
        "sm_80" => Some([312e12, 19.5e12]),
        _ => None,
    }
}
