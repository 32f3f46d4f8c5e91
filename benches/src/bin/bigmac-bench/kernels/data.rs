//! Random data on a device. Never zeros: a GPU runs them faster than anything else.

use bigmac_kernels::cast::cast;
use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_runtime::{Context, DType, Tensor};
use std::cell::Cell;

/// Distinct random numbers; longer tensors repeat them. A prime, so that rows of a tensor do not repeat each other.
const PERIOD: usize = 999_983;
/// Buffers are rotated over as many bytes as no cache of a GPU holds.
const ROTATED: f64 = (256 << 20) as f64;
const MOST_SETS: usize = 64;

/// A source of random tensors.
#[derive(Debug)]
pub struct Noise {
    /// On the CPU, F32.
    normals: Tensor,
    cpu: Context,
    made: Cell<u32>,
    sets: Option<usize>,
}

impl Noise {
    /// A source; with `sets`, every case has as many sets of buffers, whatever it moves.
    ///
    /// # Errors
    /// Those of allocation.
    pub fn new(cpu: &Context, sets: Option<usize>) -> anyhow::Result<Noise> {
        let mut rng = Philox::new(23, Purpose::new("kernel lab"), 0, 0);
        let normals: Vec<f32> = (0..PERIOD).map(|_| rng.normal()).collect();
        let normals = Tensor::from_slice(cpu, &normals, &[PERIOD])?;
        Ok(Noise { normals, cpu: cpu.clone(), made: Cell::new(0), sets })
    }

    /// How many sets of buffers a case needs whose runs move so many bytes each.
    pub fn sets(&self, bytes: f64) -> usize {
        self.sets.unwrap_or(((ROTATED / bytes.max(1.0)).ceil() as usize).clamp(1, MOST_SETS))
    }

    /// A tensor of normal numbers times `factor`, each with numbers of its own.
    ///
    /// # Errors
    /// Those of allocation and of copying.
    pub fn tensor(
        &self,
        ctx: &Context,
        shape: &[usize],
        dtype: DType,
        factor: f32,
    ) -> anyhow::Result<Tensor> {
        self.filled(ctx, shape, dtype, |normal| factor * normal)
    }

    /// A tensor of squares of normal numbers times `factor`, F32.
    ///
    /// # Errors
    /// As [`Noise::tensor`].
    pub fn squares(&self, ctx: &Context, shape: &[usize], factor: f32) -> anyhow::Result<Tensor> {
        self.filled(ctx, shape, DType::F32, |normal| factor * normal * normal)
    }

    fn filled(
        &self,
        ctx: &Context,
        shape: &[usize],
        dtype: DType,
        of: impl Fn(f32) -> f32,
    ) -> anyhow::Result<Tensor> {
        let start = self.next() as usize * 104_729 % PERIOD;
        let len: usize = shape.iter().product();
        let normals = self.normals.as_slice::<f32>()?;
        let period: Vec<f32> = (0..len.min(PERIOD)).map(|i| of(normals[(start + i) % PERIOD])).collect();
        let period = Tensor::from_slice(&self.cpu, &period, &[period.len()])?;
        let period = cast(&self.cpu, &period, dtype)?.to_device(ctx)?;
        let mut tensor = Tensor::empty(ctx, &[len], dtype)?;
        for at in (0..len).step_by(PERIOD) {
            tensor.write(ctx, at, &period.narrow(0, 0, PERIOD.min(len - at))?)?;
        }
        Ok(tensor.reshape(shape)?)
    }

    /// A tensor of whole numbers below `below`, I32.
    ///
    /// # Errors
    /// Those of allocation and of copying.
    pub fn integers(&self, ctx: &Context, shape: &[usize], below: u32) -> anyhow::Result<Tensor> {
        let mut rng = Philox::new(23, Purpose::new("kernel lab"), 1, self.next());
        let len: usize = shape.iter().product();
        let values: Vec<i32> = (0..len).map(|_| rng.below(below) as i32).collect();
        Ok(Tensor::from_slice(ctx, &values, shape)?)
    }

    /// Counts from 1.
    fn next(&self) -> u32 {
        self.made.set(self.made.get().wrapping_add(1));
        self.made.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_full_of_different_normal_numbers() {
        let cpu = Context::cpu(0, 1).unwrap();
        let noise = Noise::new(&cpu, None).unwrap();
        let len = 2 * PERIOD + 5;
        let [a, b] = [1.0, 2.0].map(|factor| {
            let tensor = noise.tensor(&cpu, &[len], DType::F32, factor).unwrap();
            tensor.to_vec::<f32>(&cpu).unwrap()
        });
        assert!(a.iter().zip(&b).filter(|(a, b)| a == b).count() < len / 100);
        for (values, deviation) in [(&a, 1.0), (&b, 2.0)] {
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / len as f64;
            let square = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / len as f64;
            assert!(mean.abs() < 0.01 && (square.sqrt() / deviation - 1.0).abs() < 0.01, "{mean} {square}");
        }
        assert_eq!((noise.sets(1e12), noise.sets((64 << 20) as f64), noise.sets(1.0)), (1, 4, MOST_SETS));
    }
}
