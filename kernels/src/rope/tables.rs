//! Tables of angles.

use crate::check::float_tensor;
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, DType, Error, Result, Tensor};

/// The tables cos and sin, each `[T, D / 2]` in `dtype` (F32, or F64 for F64), of T tokens at positions along one or
/// more axes.
///
/// `positions` holds one slice of T positions per axis, `dims` the even number of elements of a head that turn with
/// that axis; `D` is their sum. Pair `i` of axis `a` turns by `position * theta^(-2 i / dims[a])`. One axis is the
/// usual embedding of text; two or three are the axial embedding of images (FLUX, MMDiT). Angles are computed in f64.
///
/// # Errors
/// [`Error::Argument`] when the lists do not fit each other; those of allocation.
pub fn rope_tables(
    ctx: &Context,
    positions: &[&[f64]],
    dims: &[usize],
    theta: f64,
    dtype: DType,
) -> Result<(Tensor, Tensor)> {
    const OP: &str = "rope_tables";
    if positions.is_empty() || positions.len() != dims.len() {
        let message = format!(
            "expected as many axes of positions as of dims, got {} and {}",
            positions.len(),
            dims.len()
        );
        return Err(Error::argument(OP, message));
    }
    if let Some(odd) = dims.iter().find(|d| **d % 2 == 1) {
        return Err(Error::argument(OP, format!("expected even dims, got {dims:?}: {odd} is odd")));
    }
    let tokens = positions[0].len();
    if let Some(other) = positions.iter().find(|p| p.len() != tokens) {
        let message = format!(
            "expected axes of as many positions, got one of {tokens} and one of {} positions",
            other.len()
        );
        return Err(Error::argument(OP, message));
    }
    if theta.is_nan() || theta <= 0.0 {
        return Err(Error::argument(OP, format!("expected a positive theta, got {theta}")));
    }
    let frequencies: Vec<(usize, f64)> = dims
        .iter()
        .enumerate()
        .flat_map(|(axis, &dim)| (0..dim / 2).map(move |i| (axis, theta.powf(-2.0 * i as f64 / dim as f64))))
        .collect();
    // As long as the longest sequence: they may be more than there is memory for.
    let scope = ctx.memory().scope(scopes::TABLES);
    let room = || ctx.memory().room_for::<f64>(tokens.saturating_mul(frequencies.len()), &scope);
    let mut angles = room()?;
    angles.extend(
        (0..tokens)
            .flat_map(|t| frequencies.iter().map(move |&(axis, frequency)| positions[axis][t] * frequency)),
    );
    let table = |f: fn(f64) -> f64| {
        let mut values = room()?;
        values.extend(angles.iter().map(|&angle| f(angle)));
        float_tensor(ctx, &values, &[tokens, frequencies.len()], dtype)
    };
    Ok((table(f64::cos)?, table(f64::sin)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_close::{absolute, assert_close};

    #[test]
    fn axes_lie_side_by_side() {
        let ctx = Context::cpu(0, 1).unwrap();
        let (cos, sin) =
            rope_tables(&ctx, &[&[0.0, 3.0], &[2.0, 5.0]], &[4, 2], 10_000.0, DType::F64).unwrap();
        assert_eq!(cos.shape(), [2, 3]);
        let wanted = [0.0, 0.0, 2.0, 3.0, 0.03, 5.0];
        for (i, angle) in wanted.into_iter().enumerate() {
            assert_close(cos.as_slice::<f64>().unwrap()[i], f64::cos(angle), absolute(1e-15));
            assert_close(sin.as_slice::<f64>().unwrap()[i], f64::sin(angle), absolute(1e-15));
        }
    }

    #[test]
    fn lists_that_do_not_fit_are_refused() {
        let ctx = Context::cpu(0, 1).unwrap();
        let message = |positions: &[&[f64]], dims: &[usize], theta| {
            rope_tables(&ctx, positions, dims, theta, DType::F32).unwrap_err().to_string()
        };
        assert!(message(&[&[0.0]], &[3], 1e4).contains("odd"));
        assert!(message(&[&[0.0]], &[2, 2], 1e4).contains("got 1 and 2"));
        assert!(message(&[&[0.0], &[]], &[2, 2], 1e4).contains("of 0 positions"));
        assert!(message(&[&[0.0]], &[2], f64::NAN).contains("theta"));
    }
}
