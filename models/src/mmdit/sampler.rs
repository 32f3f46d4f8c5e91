//! Drawing: the flow's ordinary differential equation from noise to a picture.

use super::flow::{SampleKey, noise};
use super::{Grid, Mmdit, RopeTables, time_features};
use bigmac_autograd::{Graph, Parameters};
use bigmac_kernels::{Operator, add::add, cast::cast, scale::Scale};
use bigmac_runtime::{Context, DType, Error, Result, Tensor};
use serde::{Deserialize, Serialize};

const OP: &str = "euler sampler";

/// Euler's method from t = 1 (noise) to t = 0 (picture).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EulerSampler {
    /// Number of steps.
    pub steps: usize,
    /// Steps are even in `t`, then moved by `t -> s t / (1 + (s - 1) t)` (Esser et al., arXiv 2403.03206, equation 23):
    /// 1 leaves them even, more spends more steps near the noise.
    pub shift: f64,
}

impl Default for EulerSampler {
    fn default() -> Self {
        EulerSampler { steps: 20, shift: 1.0 }
    }
}

impl EulerSampler {
    /// The times of the steps, from 1 to 0: one more than there are steps.
    ///
    /// # Errors
    /// [`Error::Argument`] for no steps, or a shift that is not a positive number.
    pub fn times(&self) -> Result<Vec<f64>> {
        let EulerSampler { steps, shift } = *self;
        if steps == 0 || !shift.is_finite() || shift <= 0.0 {
            let message =
                format!("got {steps} steps and shift {shift}, expected at least 1 step and a positive shift");
            return Err(Error::argument(OP, message));
        }
        let shifted = |t: f64| shift * t / (1.0 + (shift - 1.0) * t);
        Ok((0..=steps).rev().map(|i| shifted(i as f64 / steps as f64)).collect())
    }

    /// Follows `velocity(t, x)` from `start` at t = 1 to t = 0. `start` and the velocities are F32 and of one shape.
    ///
    /// # Errors
    /// [`Error::Shape`] when a velocity has another shape; [`Error::DType`]; those of `velocity`.
    pub fn integrate(
        &self,
        ctx: &Context,
        start: &Tensor,
        mut velocity: impl FnMut(f64, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut x = start.contiguous(ctx)?;
        for step in self.times()?.windows(2) {
            let v = velocity(step[0], &x)?;
            if v.shape() != x.shape() {
                return Err(Error::shape(OP, v.shape(), format!("a velocity of shape {:?}", x.shape())));
            }
            let by = Scale { factor: step[1] - step[0] };
            x = add(ctx, &x, &by.compute(ctx, &[&v], &[])?)?;
        }
        Ok(x)
    }

    /// Draws one picture: latents [patches, in_channels] in F32, from noise that depends on `key` alone.
    ///
    /// `cond` [tokens, joint_attention_dim] is of the parameters' type, as the LLM's hidden states come.
    ///
    /// # Errors
    /// [`Error::Shape`] when the model's prediction is not as wide as its input; those of the model.
    pub fn draw(
        &self,
        ctx: &Context,
        model: &Mmdit,
        parameters: &Parameters,
        cond: &Tensor,
        grid: Grid,
        key: SampleKey,
    ) -> Result<Tensor> {
        let config = model.config();
        let (channels, dtype) = (config.in_channels, cond.dtype());
        let tokens = cond.shape().first().copied().unwrap_or(0);
        let rope = RopeTables::new(ctx, config, grid, tokens, dtype)?;
        let shape = [grid.patches(), channels];
        let start = Tensor::from_slice(ctx, &noise(key, grid.patches() * channels), &shape)?;
        self.integrate(ctx, &start, |t, x| {
            let mut g = Graph::inference(ctx, parameters);
            let latents = g.constant(cast(ctx, x, dtype)?);
            let time = g.constant(time_features(ctx, t, dtype)?);
            let (cond, rotations) = (g.constant(cond.clone()), rope.constants(&g));
            let velocity = model.forward(&mut g, &latents, &time, &cond, &rotations)?;
            cast(ctx, velocity.tensor(), DType::F32)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::MmditConfig;
    use super::*;
    use crate::init;

    /// The velocity of the flow between N(mean, deviation^2) and noise, known in closed form.
    fn gaussian(ctx: &Context, t: f64, x: &Tensor, mean: f64, deviation: f64) -> Result<Tensor> {
        let variance = (1.0 - t).powi(2) * deviation.powi(2) + t * t;
        let velocity = |x: f32| {
            let centered = f64::from(x) - (1.0 - t) * mean;
            let noise = t * centered / variance;
            let picture = mean + (1.0 - t) * deviation.powi(2) * centered / variance;
            (noise - picture) as f32
        };
        let values: Vec<f32> = x.as_slice::<f32>()?.iter().map(|&x| velocity(x)).collect();
        Tensor::from_slice(ctx, &values, x.shape())
    }

    #[test]
    fn euler_converges_to_the_flow_of_a_gaussian() {
        let ctx = Context::cpu(0, 1).unwrap();
        let (mean, deviation) = (0.7, 0.4);
        let start = Tensor::from_slice(&ctx, &[-1.5f32, -0.2, 0.0, 0.9, 2.1], &[5]).unwrap();
        let error = |steps, shift| {
            let sampler = EulerSampler { steps, shift };
            let end = sampler.integrate(&ctx, &start, |t, x| gaussian(&ctx, t, x, mean, deviation)).unwrap();
            let (start, end) = (start.as_slice::<f32>().unwrap(), end.as_slice::<f32>().unwrap());
            let exact = start.iter().map(|&x| mean + deviation * f64::from(x));
            end.iter().zip(exact).map(|(&x, e)| (f64::from(x) - e).abs()).fold(0.0, f64::max)
        };
        for shift in [1.0, 3.0] {
            let errors = [error(50, shift), error(100, shift), error(200, shift)];
            assert!(errors[2] < 2e-2, "shift {shift}: {errors:?}");
            for pair in errors.windows(2) {
                let ratio = pair[0] / pair[1];
                assert!(
                    (1.8..2.2).contains(&ratio),
                    "first order halves the error; shift {shift}: {errors:?}"
                );
            }
        }
    }

    #[test]
    fn times_run_from_one_to_zero() {
        let times = EulerSampler { steps: 4, shift: 3.0 }.times().unwrap();
        assert_eq!(times, [1.0, 0.9, 0.75, 0.5, 0.0]);
        assert_eq!(EulerSampler { steps: 2, shift: 1.0 }.times().unwrap(), [1.0, 0.5, 0.0]);
        for wrong in [(0, 1.0), (4, 0.0), (4, -1.0), (4, f64::NAN), (4, f64::INFINITY)] {
            assert!(EulerSampler { steps: wrong.0, shift: wrong.1 }.times().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_new_model_draws_its_noise_and_a_wrong_velocity_is_an_error() {
        let ctx = Context::cpu(0, 1).unwrap();
        let config = MmditConfig {
            patch_size: 1,
            in_channels: 3,
            out_channels: 3,
            num_layers: 1,
            attention_head_dim: 6,
            num_attention_heads: 1,
            joint_attention_dim: 4,
            axes_dims_rope: [2, 2, 2],
            ..MmditConfig::default()
        };
        let sampler = EulerSampler { steps: 3, shift: 1.0 };
        let key = SampleKey { seed: 1, step: 0, sample: 4 };
        let cond = Tensor::zeros(&ctx, &[2, 4], DType::F32).unwrap();
        let draw = |config: &MmditConfig| {
            let parameters = init::random(&ctx, &Mmdit::parameters(config), DType::F32, 1).unwrap();
            let model = Mmdit::new(config, &parameters).unwrap();
            sampler.draw(&ctx, &model, &parameters, &cond, Grid { height: 2, width: 3 }, key)
        };
        // The prediction starts at zero, so nothing moves.
        let drawn = draw(&config).unwrap();
        assert_eq!(drawn.shape(), [6, 3]);
        assert_eq!(drawn.as_slice::<f32>().unwrap(), noise(key, 18));
        let error = draw(&MmditConfig { out_channels: 2, ..config }).unwrap_err().to_string();
        assert!(error.contains("[6, 2]") && error.contains("[6, 3]"), "{error}");
    }
}
