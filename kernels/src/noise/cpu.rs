//! Noise on the CPU.

use bigmac_runtime::rng::Philox;

/// See [`super::add_noise`]: all slices are of one length.
pub(super) fn add_noise(x: &[f32], t: f32, mut stream: Philox, latents: &mut [f32], target: &mut [f32]) {
    for (x, (y, v)) in x.iter().zip(latents.iter_mut().zip(target)) {
        let n = stream.normal();
        *y = (1.0 - t) * x + t * n;
        *v = n - x;
    }
}
