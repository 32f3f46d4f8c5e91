//! Gradients against central differences.

use bigmac_runtime::{Error, Result};

/// Compares a gradient with central differences of fourth order of a loss, at up to `probes` elements: `loss_at(i, by)`
/// is the loss with element `i` that much larger. `tolerance` is the largest allowed norm of the error over the norm of
/// the gradient.
///
/// # Errors
/// Those of `loss_at`; [`Error::Argument`] in the name of `op` when `name`'s gradient is off, and by how much.
pub fn against_differences(
    op: &'static str,
    name: &str,
    gradient: &[f64],
    (probes, tolerance): (usize, f64),
    mut loss_at: impl FnMut(usize, f64) -> Result<f64>,
) -> Result<()> {
    const STEP: f64 = 1e-3;
    let stride = gradient.len().div_ceil(probes).max(1);
    // An offset, so that a stride that divides the rows does not look at one column only.
    let probes = (0..gradient.len()).step_by(stride).map(|i| i + (i / stride) % stride);
    let (mut error, mut norm) = (0.0, 0.0);
    for i in probes.filter(|&i| i < gradient.len()) {
        let near = loss_at(i, STEP)? - loss_at(i, -STEP)?;
        let far = loss_at(i, 2.0 * STEP)? - loss_at(i, -2.0 * STEP)?;
        let difference = (8.0 * near - far) / (12.0 * STEP);
        error += (difference - gradient[i]).powi(2);
        norm += difference.powi(2);
    }
    let relative = error.sqrt() / norm.sqrt().max(1e-3);
    if relative.is_nan() || relative > tolerance {
        let message = format!(
            "the gradient of {name} differs from central differences by {relative:.2e}, allowed {tolerance:.1e}"
        );
        return Err(Error::argument(op, message));
    }
    Ok(())
}
