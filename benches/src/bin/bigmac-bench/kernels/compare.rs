//! How far results are from their references.

use bigmac_kernels::cast::cast;
use bigmac_runtime::{Context, DType, Tensor};

/// Results with their names. Sampled results hold the sampled elements only.
pub type Values = Vec<(String, Vec<f32>)>;

/// How far results may be from their references.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance(
    /// The norm of the error over the norm of the reference; and a single element's error over its magnitude plus
    /// eight times the root mean square of all.
    pub f64,
);

impl Tolerance {
    /// For results that are rounded to `dtype` once, of sums that are kept in fp32.
    pub fn of(dtype: DType) -> Tolerance {
        Tolerance(if dtype == DType::BF16 { 4e-3 } else { 2e-5 })
    }
}

/// The largest error of any result, relative to its norm.
///
/// # Errors
/// A sentence that says which result is wrong, and how.
pub fn compare(given: &Values, wanted: &Values, allowed: Tolerance) -> Result<f64, String> {
    if given.len() != wanted.len() {
        return Err(format!("{} results, expected {}", given.len(), wanted.len()));
    }
    let mut largest: f64 = 0.0;
    for ((name, given), (_, wanted)) in given.iter().zip(wanted) {
        largest = largest.max(error(name, given, wanted, allowed.0)?);
    }
    Ok(largest)
}

fn error(name: &str, given: &[f32], wanted: &[f32], allowed: f64) -> Result<f64, String> {
    if given.len() != wanted.len() {
        return Err(format!("{name} has {} elements, expected {}", given.len(), wanted.len()));
    }
    let norm = wanted.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
    let off = given.iter().zip(wanted).map(|(&g, &w)| (f64::from(g) - f64::from(w)).powi(2)).sum::<f64>();
    let relative = if off == 0.0 { 0.0 } else { off.sqrt() / norm.max(1e-30) };
    if relative.is_nan() || relative > allowed {
        return Err(format!("{name} is off by {relative:.1e} of its norm, allowed {allowed:.1e}"));
    }
    // The norm alone would let a few elements of many be anything.
    let usual = norm / (wanted.len().max(1) as f64).sqrt();
    let far = given.iter().zip(wanted).position(|(&g, &w)| {
        let (g, w) = (f64::from(g), f64::from(w));
        (g - w).abs() > allowed * (w.abs() + 8.0 * usual)
    });
    match far {
        Some(at) => Err(format!("{name}[{at}] is {}, expected {}", given[at], wanted[at])),
        None => Ok(relative),
    }
}

/// The first result that is not the same in every bit.
pub fn first_difference(a: &Values, b: &Values) -> Option<String> {
    a.iter().zip(b).find_map(|((name, a), (_, b))| {
        let at = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits())?;
        Some(format!("{name}[{at}] is {} in one run and {} in another", a[at], b[at]))
    })
}

/// The values of a float tensor, wherever it lies.
///
/// # Errors
/// Those of copying; a tensor of integers.
pub fn values(ctx: &Context, tensor: &Tensor) -> anyhow::Result<Vec<f32>> {
    let tensor = widened(ctx, tensor)?;
    Ok(tensor.as_slice::<f32>()?.to_vec())
}

/// A float tensor in F32 on the CPU.
///
/// # Errors
/// As [`values`].
pub fn widened(ctx: &Context, tensor: &Tensor) -> anyhow::Result<Tensor> {
    Ok(cast(&ctx.host(), &tensor.to_cpu(ctx)?, DType::F32)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(values: &[f32]) -> Values {
        vec![("y".into(), values.to_vec())]
    }

    #[test]
    fn one_wrong_element_of_many_is_found() {
        let wanted = vec![1.0; 1_000_000];
        let mut given = wanted.clone();
        assert_eq!(compare(&named(&given), &named(&wanted), Tolerance(4e-3)), Ok(0.0));
        given[123_456] = 1.1;
        let error = compare(&named(&given), &named(&wanted), Tolerance(4e-3)).unwrap_err();
        assert!(error.contains("y[123456] is 1.1, expected 1"), "{error}");
        given[123_456] = f32::NAN;
        assert!(compare(&named(&given), &named(&wanted), Tolerance(4e-3)).is_err());
    }

    #[test]
    fn errors_of_the_dtype_are_allowed_and_larger_ones_are_not() {
        let wanted: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.7).sin()).collect();
        let off = |by: f32| named(&wanted.iter().map(|w| w * (1.0 + by)).collect::<Vec<_>>());
        assert!(compare(&off(2e-3), &named(&wanted), Tolerance::of(DType::BF16)).is_ok());
        assert!(compare(&off(2e-3), &named(&wanted), Tolerance::of(DType::F32)).is_err());
        assert!(compare(&off(2e-2), &named(&wanted), Tolerance::of(DType::BF16)).is_err());
        assert!(compare(&named(&wanted[1..]), &named(&wanted), Tolerance::of(DType::BF16)).is_err());
        assert!(compare(&Vec::new(), &named(&wanted), Tolerance::of(DType::BF16)).is_err());
    }

    #[test]
    fn two_runs_are_told_apart_by_one_bit() {
        let (a, b) = (named(&[1.0, 2.0]), named(&[1.0, f32::from_bits(2f32.to_bits() + 1)]));
        assert_eq!(first_difference(&a, &a), None);
        assert!(first_difference(&a, &b).is_some_and(|text| text.starts_with("y[1]")));
    }
}
