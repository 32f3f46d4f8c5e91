//! Element types as operators compute with them: stored as [`Float`], computed with as [`Real`] (f32, or f64 for F64).

use bigmac_runtime::Element;
use half::{bf16, f16};
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

/// A type that arithmetic is done in: f32 or f64.
pub trait Real:
    Float<Acc = Self>
    + Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + std::iter::Sum
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Minus infinity.
    const NEG_INFINITY: Self;

    /// From f64, rounded.
    fn of(x: f64) -> Self;
    /// To f64.
    fn f64(self) -> f64;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// e to the power of `self`; for f32 a polynomial without branches, so that loops over it become vector code (error
    /// below 2 ulp).
    fn exp(self) -> Self;
    /// Hyperbolic tangent, by [`Real::exp`] for f32.
    fn tanh(self) -> Self;
    /// The error function; for f32 by a rational approximation without branches (error below 1e-6).
    fn erf(self) -> Self;
    /// The normal distribution function and its density; for f32 without branches (relative error of both below 1e-6
    /// down to -4).
    fn normal(self) -> (Self, Self);
    /// The larger of two numbers.
    fn max(self, other: Self) -> Self;
    /// `self * a + b`, fused where the machine does it.
    fn mul_add(self, a: Self, b: Self) -> Self;

    /// 1 / (1 + exp(-x)).
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::ONE / (Self::ONE + (-self).exp())
    }
}

/// A float type that tensors are stored in.
pub trait Float: Element + Copy {
    /// What it is computed with.
    type Acc: Real;
    /// To the type that is computed with; exact.
    fn acc(self) -> Self::Acc;
    /// From the type that is computed with, rounded to nearest even.
    fn from_acc(x: Self::Acc) -> Self;
}

macro_rules! float {
    ($t:ty, $acc:ty, $to:expr, $from:expr) => {
        impl Float for $t {
            type Acc = $acc;
            #[inline(always)]
            fn acc(self) -> $acc {
                ($to)(self)
            }
            #[inline(always)]
            fn from_acc(x: $acc) -> Self {
                ($from)(x)
            }
        }
    };
}
float!(f64, f64, |x| x, |x| x);
float!(f32, f32, |x| x, |x| x);
float!(bf16, f32, bf16_to_f32, f32_to_bf16);
float!(f16, f32, f16::to_f32, f16::from_f32);

/// bf16 is the upper half of an f32.
#[inline(always)]
fn bf16_to_f32(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// Rounds to nearest even without branches, so that loops become vector code; NaN stays NaN.
#[inline(always)]
fn f32_to_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1));
    let kept = if x.is_nan() { bits | 0x0040_0000 } else { rounded };
    bf16::from_bits((kept >> 16) as u16)
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f64::NEG_INFINITY;
    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn ln(self) -> Self {
        f64::ln(self)
    }
    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }
    #[inline(always)]
    fn tanh(self) -> Self {
        f64::tanh(self)
    }
    fn erf(self) -> Self {
        erf_f64(self)
    }
    fn normal(self) -> (Self, Self) {
        let density = (-0.5 * self * self).exp() / (2.0 * std::f64::consts::PI).sqrt();
        (0.5 + 0.5 * erf_f64(self * std::f64::consts::FRAC_1_SQRT_2), density)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        f64::max(self, other)
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        f64::mul_add(self, a, b)
    }
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f32::NEG_INFINITY;
    #[inline(always)]
    fn of(x: f64) -> Self {
        x as f32
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn ln(self) -> Self {
        f32::ln(self)
    }
    #[inline(always)]
    fn exp(self) -> Self {
        exp_f32(self)
    }
    #[inline(always)]
    fn tanh(self) -> Self {
        // Near 0 the quotient would cancel: there the odd Taylor polynomial is exact to f32.
        let square = self * self;
        let small = self
            * (1.0
                + square
                    * (-1.0 / 3.0
                        + square * (2.0 / 15.0 + square * (-17.0 / 315.0 + square * (62.0 / 2835.0)))));
        let e = exp_f32(-2.0 * self.abs());
        let large = ((1.0 - e) / (1.0 + e)).copysign(self);
        if self.abs() < 0.25 { small } else { large }
    }
    #[inline(always)]
    fn erf(self) -> Self {
        erf_f32(self)
    }
    #[inline(always)]
    fn normal(self) -> (Self, Self) {
        normal_f32(self)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // f32::max treats NaN specially and costs more; here NaN in `other` gives NaN.
        if self > other { self } else { other }
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        f32::mul_add(self, a, b)
    }
}

/// exp by range reduction to [-ln2/2, ln2/2] and the degree-6 polynomial of Cephes' expf; 0 below -87.3, infinity
/// above 88.7, NaN stays NaN.
#[inline(always)]
fn exp_f32(x: f32) -> f32 {
    const LOG2E: f32 = std::f32::consts::LOG2_E;
    const LN2_HIGH: f32 = 0.693_359_375;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // 1.5 * 2^23: adding and subtracting it rounds to the nearest integer, which the low bits then hold.
    const MAGIC: f32 = 12_582_912.0;
    let shifted = x.mul_add(LOG2E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_2e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 5.000_000_1e-1);
    let y = p.mul_add(r * r, r + 1.0);
    let exponent = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32).wrapping_add(127);
    // Two factors, so that results up to f32::MAX do not pass through an infinite power of two.
    let scale = f32::from_bits((exponent.wrapping_sub(1).clamp(0, 254) as u32) << 23);
    let result = y * scale * 2.0;
    let result = if x > 88.722_83 { f32::INFINITY } else { result };
    let result = if x < -87.336_54 { 0.0 } else { result };
    if x.is_nan() { x } else { result }
}

/// Abramowitz and Stegun 7.1.26 carried to f32 by a higher-order fit would still cancel near 0, so two ranges: the
/// Maclaurin series below 0.5, and 1 - t exp(-x^2 + P(t)) above (Numerical Recipes, erfc Chebyshev fit, error 1.2e-7).
#[inline(always)]
fn erf_f32(x: f32) -> f32 {
    let a = x.abs();
    let s = x * x;
    let series = x
        * std::f32::consts::FRAC_2_SQRT_PI
        * (1.0
            + s * (-1.0 / 3.0
                + s * (1.0 / 10.0
                    + s * (-1.0 / 42.0 + s * (1.0 / 216.0 + s * (-1.0 / 1320.0 + s * (1.0 / 9360.0)))))));
    let t = 1.0 / 0.5f32.mul_add(a, 1.0);
    let mut p = 0.170_872_77f32;
    for c in [
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
    ] {
        p = p.mul_add(t, c);
    }
    let tail = t * exp_f32(-s - 1.265_512_23 + t * p);
    let large = (1.0 - tail).copysign(x);
    if a < 0.5 { series } else { large }
}

/// Distribution function and density of the normal distribution.
///
/// Below 0 the distribution is `t exp(-x^2 / 2) P(t)` with `t = 1 / (1 + 0.27 |x|)`, the form of Abramowitz and Stegun
/// 7.1.26; P interpolates it at the 9 Chebyshev nodes of |x| <= 14, to a relative error of 3e-8. One exponential serves
/// both.
#[inline(always)]
fn normal_f32(x: f32) -> (f32, f32) {
    const INVERSE_ROOT_TWO_PI: f32 = 0.398_942_28;
    let e = exp_f32(-0.5 * x * x);
    let t = 1.0 / 0.27f32.mul_add(x.abs(), 1.0);
    let mut p = 0.029_107_028_2f32;
    for c in [
        -0.127_242_119_8,
        0.171_444_687_3,
        -0.071_213_916_9,
        0.109_277_206_4,
        0.071_406_062_6,
        0.101_980_367_0,
        0.107_518_603_3,
        0.107_722_093_1,
    ] {
        p = p.mul_add(t, c);
    }
    let tail = t * e * p;
    (if x < 0.0 { tail } else { 1.0 - tail }, e * INVERSE_ROOT_TWO_PI)
}

/// Maclaurin series below 2.5, continued fraction of erfc above: exact to about 1e-15.
fn erf_f64(x: f64) -> f64 {
    let a = x.abs();
    if a < 2.5 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 * sum.abs() && n < 200.0 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let mut fraction = a;
    for k in (1..=120).rev() {
        fraction = a + f64::from(k) / 2.0 / fraction;
    }
    (1.0 - (-a * a).exp() / (std::f64::consts::PI.sqrt() * fraction)).copysign(x)
}

/// Runs `$body` with `$t` bound to the Rust type of a float [`DType`](bigmac_runtime::DType); any other dtype is an
/// error.
#[macro_export]
macro_rules! for_float {
    ($op:expr, $dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            $crate::types::DType::F64 => {
                type $t = f64;
                $body
            }
            $crate::types::DType::F32 => {
                type $t = f32;
                $body
            }
            $crate::types::DType::BF16 => {
                type $t = $crate::types::bf16;
                $body
            }
            $crate::types::DType::F16 => {
                type $t = $crate::types::f16;
                $body
            }
            given => {
                Err($crate::types::Error::DType { op: $op, given, wanted: $crate::types::FLOATS.into() })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_close::{absolute, assert_close};

    fn worst(f: impl Fn(f32) -> f32, reference: impl Fn(f64) -> f64, range: std::ops::Range<f32>) -> f64 {
        let steps = 200_000;
        (0..=steps)
            .map(|i| range.start + (range.end - range.start) * i as f32 / steps as f32)
            .map(|x| {
                (f64::from(f(x)) - reference(f64::from(x))).abs() / reference(f64::from(x)).abs().max(1e-30)
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn exp_is_exact_to_two_ulp() {
        assert!(worst(Real::exp, f64::exp, -87.0..88.7) < 2.4e-7);
        assert_eq!(Real::exp(-1000.0f32), 0.0);
        assert_eq!(Real::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(Real::exp(1000.0f32), f32::INFINITY);
        assert!(Real::exp(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_and_sigmoid_are_exact_to_a_few_ulp() {
        assert!(worst(Real::tanh, f64::tanh, -20.0..20.0) < 5e-7);
        assert!(worst(Real::sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -80.0..80.0) < 5e-7);
    }

    #[test]
    fn erf_agrees_with_published_values() {
        // DLMF table 7.23 / Abramowitz and Stegun table 7.1.
        for (x, y) in [
            (0.1f64, 0.112_462_916_018_284_9),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.0, 0.999_977_909_503_001_4),
        ] {
            assert_close(Real::erf(x), y, absolute(1e-14));
            assert_close(Real::erf(-x), -y, absolute(1e-14));
        }
        assert!(worst(Real::erf, Real::erf, -5.0..-1e-3) < 1e-6);
        assert!(worst(Real::erf, Real::erf, 1e-3..5.0) < 1e-6);
    }

    #[test]
    fn normal_is_exact_to_a_few_ulp() {
        assert!(worst(|x| x.normal().0, |x| x.normal().0, -4.0..8.0) < 1e-6);
        assert!(worst(|x| x.normal().1, |x| x.normal().1, -4.0..4.0) < 1e-6);
        assert_eq!(Real::normal(-100.0f32), (0.0, 0.0));
        assert_eq!(Real::normal(f32::INFINITY), (1.0, 0.0));
        assert!(Real::normal(f32::NAN).0.is_nan());
    }

    #[test]
    fn bf16_rounds_as_the_half_crate() {
        for i in 0..2_000_000u32 {
            let x = f32::from_bits(i.wrapping_mul(2_654_435_761));
            let (ours, theirs) = (f32_to_bf16(x), bf16::from_f32(x));
            assert!(ours.to_bits() == theirs.to_bits() || x.is_nan() && ours.is_nan(), "{x}");
        }
    }
}
