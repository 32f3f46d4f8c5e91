//! Flow matching: noised pictures and the velocities to be learned from them.
//!
//! Lipman et al., *Flow Matching for Generative Modeling*, arXiv 2210.02747, with the straight paths of rectified flow
//! (Liu et al., arXiv 2209.03003) and times as in Esser et al., arXiv 2403.03206, section 3.1.

use bigmac_kernels::cast::cast;
use bigmac_kernels::noise::add_noise;
use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_runtime::{Context, DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};

const TIME: Purpose = Purpose::new("flow time");
const NOISE: Purpose = Purpose::new("flow noise");

/// How times are drawn: `t = sigmoid(mean + deviation * normal)`; t = 1 is noise, t = 0 the picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowMatching {
    /// Mean of the time's logit: above 0 draws more noise than picture.
    pub mean: f64,
    /// Standard deviation of the time's logit.
    pub deviation: f64,
}

impl Default for FlowMatching {
    fn default() -> Self {
        FlowMatching { mean: 0.8, deviation: 1.0 }
    }
}

/// What the random numbers of one sample depend on, and nothing else: not the rank, not the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SampleKey {
    /// The run's seed.
    pub seed: u64,
    /// The step.
    pub step: u32,
    /// The sample's number in the step.
    pub sample: u32,
}

impl SampleKey {
    fn stream(&self, purpose: Purpose) -> Philox {
        Philox::new(self.seed, purpose, self.step, self.sample)
    }
}

/// A picture on its way to noise.
#[derive(Clone, Debug)]
pub struct Noised {
    /// t in 0..1.
    pub time: f64,
    /// `(1 - t) picture + t noise`, of the picture's shape.
    pub latents: Tensor,
    /// `noise - picture`: the derivative of `latents` by t, which the model learns.
    pub target: Tensor,
}

impl FlowMatching {
    /// The time of a sample.
    pub fn time(&self, key: SampleKey) -> f64 {
        let logit = self.mean + self.deviation * f64::from(key.stream(TIME).normal());
        1.0 / (1.0 + (-logit).exp())
    }

    /// The picture `clean` (its latents, any shape, here or on the CPU) noised for a sample, as tensors of type
    /// `dtype`; computed in F32, where `ctx` runs.
    ///
    /// # Errors
    /// [`Error::DType`](bigmac_runtime::Error::DType) when `clean` or `dtype` is not a float type; those of allocation.
    pub fn noised(&self, ctx: &Context, clean: &Tensor, key: SampleKey, dtype: DType) -> Result<Noised> {
        let time = self.time(key);
        let clean = match clean.device() {
            Device::Cpu => cast(&ctx.host(), clean, DType::F32)?.to_device(ctx)?,
            _ => cast(ctx, clean, DType::F32)?,
        };
        let (latents, target) = add_noise(ctx, &clean, time as f32, &key.stream(NOISE), dtype)?;
        Ok(Noised { time, latents, target })
    }
}

/// `len` standard normal numbers for a sample.
pub(super) fn noise(key: SampleKey, len: usize) -> Vec<f32> {
    let mut stream = key.stream(NOISE);
    (0..len).map(|_| stream.normal()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_close::{absolute, assert_close};

    const KEY: SampleKey = SampleKey { seed: 3, step: 7, sample: 2 };

    fn noised(ctx: &Context, key: SampleKey) -> Noised {
        let clean = Tensor::from_slice(ctx, &[0.5f32, -1.0, 0.25, 1.0, 0.0, -0.75], &[2, 3]).unwrap();
        FlowMatching::default().noised(ctx, &clean, key, DType::F32).unwrap()
    }

    #[test]
    fn latents_lie_on_the_line_from_picture_to_noise() {
        let ctx = Context::cpu(0, 1).unwrap();
        let Noised { time, latents, target } = noised(&ctx, KEY);
        let noise = noise(KEY, 6);
        let clean = [0.5f32, -1.0, 0.25, 1.0, 0.0, -0.75];
        assert!(time > 0.0 && time < 1.0);
        for i in 0..6 {
            let (x, v) = (latents.as_slice::<f32>().unwrap()[i], target.as_slice::<f32>().unwrap()[i]);
            assert_eq!(v, noise[i] - clean[i]);
            // From any point of the line, going its velocity for the rest of the time ends in picture and noise.
            assert_close(x - time as f32 * v, clean[i], absolute(1e-6));
            assert_close(x + (1.0 - time as f32) * v, noise[i], absolute(1e-6));
        }
    }

    #[test]
    fn random_numbers_depend_on_the_sample_and_not_on_the_rank() {
        let here = noised(&Context::cpu(0, 1).unwrap(), KEY);
        let there = noised(&Context::cpu(5, 3).unwrap(), KEY);
        assert_eq!(here.time, there.time);
        assert_eq!(here.latents.as_bytes().unwrap(), there.latents.as_bytes().unwrap());
        for other in
            [SampleKey { seed: 4, ..KEY }, SampleKey { step: 8, ..KEY }, SampleKey { sample: 3, ..KEY }]
        {
            let other = noised(&Context::cpu(0, 1).unwrap(), other);
            assert_ne!(here.time, other.time);
            assert_ne!(here.target.as_bytes().unwrap(), other.target.as_bytes().unwrap());
        }
    }

    #[test]
    fn times_have_the_distribution_that_was_asked_for() {
        let flow = FlowMatching { mean: -0.5, deviation: 0.7 };
        let count = 20_000;
        let logits: Vec<f64> = (0..count)
            .map(|sample| flow.time(SampleKey { sample, ..KEY }))
            .map(|t| (t / (1.0 - t)).ln())
            .collect();
        let mean = logits.iter().sum::<f64>() / f64::from(count);
        let variance = logits.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(count);
        assert_close(mean, -0.5, absolute(0.02));
        assert_close(variance.sqrt(), 0.7, absolute(0.02));
    }
}
