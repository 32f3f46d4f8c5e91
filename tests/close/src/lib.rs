//! Comparison of floats in tests, over `approx`: every test says how far off a number may be, and a failure says
//! which number was off and by how much.
//!
//! Numbers are compared as `f64`. A NaN is close to nothing; infinities are close to themselves.
//!
//! ```
//! use bigmac_close::{absolute, assert_all_close, assert_close, relative};
//!
//! assert_close(0.1 + 0.2, 0.3, relative(1e-15));
//! assert_all_close(&[1.0f32, 1e-9], &[1.0, 0.0], relative(1e-6).or_absolute(1e-8));
//! assert_close(33.0, 33.0, absolute(0.0));
//! ```

use approx::relative_eq;

/// How far a number may be from the expected one: an absolute difference, or a share of the larger of the two,
/// whichever allows more.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    absolute: f64,
    relative: f64,
}

/// An absolute difference.
pub fn absolute(difference: f64) -> Tolerance {
    Tolerance { absolute: difference, relative: 0.0 }
}

/// A share of the larger of the two magnitudes.
pub fn relative(share: f64) -> Tolerance {
    Tolerance { absolute: 0.0, relative: share }
}

impl Tolerance {
    /// The same, or that absolute difference where it allows more: for values that may be close to zero.
    pub fn or_absolute(self, difference: f64) -> Tolerance {
        Tolerance { absolute: difference, ..self }
    }
}

/// True if `found` is as near to `expected` as `tolerance` asks.
pub fn is_close(found: impl Into<f64>, expected: impl Into<f64>, tolerance: Tolerance) -> bool {
    relative_eq!(
        found.into(),
        expected.into(),
        epsilon = tolerance.absolute,
        max_relative = tolerance.relative
    )
}

/// Panics unless `found` is as near to `expected` as `tolerance` asks.
#[track_caller]
pub fn assert_close(found: impl Into<f64>, expected: impl Into<f64>, tolerance: Tolerance) {
    let (found, expected) = (found.into(), expected.into());
    assert!(
        is_close(found, expected, tolerance),
        "got {found}, expected {expected}: they differ by {}, allowed: {tolerance:?}",
        (found - expected).abs()
    );
}

/// Panics unless both have the same length and every number is as near to the expected one as `tolerance` asks.
#[track_caller]
pub fn assert_all_close<A, B>(found: &[A], expected: &[B], tolerance: Tolerance)
where
    A: Copy + Into<f64>,
    B: Copy + Into<f64>,
{
    assert_eq!(found.len(), expected.len(), "got {} numbers, expected {}", found.len(), expected.len());
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let (found, expected) = (found.into(), expected.into());
        assert!(
            is_close(found, expected, tolerance),
            "at {index}: got {found}, expected {expected}: they differ by {}, allowed: {tolerance:?}",
            (found - expected).abs()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerances_are_absolute_relative_or_both() {
        assert!(is_close(1.5, 1.0, absolute(0.5)) && !is_close(1.5, 1.0, absolute(0.49)));
        assert!(is_close(101.0, 100.0, relative(0.01)) && !is_close(102.0, 100.0, relative(0.01)));
        assert!(
            is_close(1e-9, 0.0, relative(1e-6).or_absolute(1e-8)) && !is_close(1e-9, 0.0, relative(1e-6))
        );
    }

    #[test]
    fn nan_is_close_to_nothing_and_infinities_to_themselves() {
        assert!(!is_close(f64::NAN, f64::NAN, absolute(f64::MAX)));
        assert!(is_close(f64::INFINITY, f64::INFINITY, absolute(0.0)));
        assert!(!is_close(f64::INFINITY, f64::NEG_INFINITY, relative(0.5)));
        assert!(!is_close(f64::INFINITY, 1.0, relative(0.5)));
    }

    #[test]
    #[should_panic(expected = "at 1: got 2, expected 3")]
    fn the_number_that_is_off_is_named() {
        assert_all_close(&[1.0f32, 2.0], &[1.0f32, 3.0], absolute(0.5));
    }
}
