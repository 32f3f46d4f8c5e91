//! Repeated measurements as a median and how far they spread.

use crate::toml_file::not_negative;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The median of several measurements, with the quartiles, the least and the largest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// Median.
    #[serde(deserialize_with = "not_negative")]
    pub median: f64,
    /// A quarter of the measurements are below.
    #[serde(deserialize_with = "not_negative")]
    pub lower: f64,
    /// A quarter of the measurements are above.
    #[serde(deserialize_with = "not_negative")]
    pub upper: f64,
    /// Smallest.
    #[serde(deserialize_with = "not_negative")]
    pub least: f64,
    /// Largest.
    #[serde(deserialize_with = "not_negative")]
    pub most: f64,
}

impl Spread {
    /// Of at least one measurement. Between two measurements it is interpolated, as `numpy.quantile` does.
    ///
    /// ```
    /// let spread = bigmac::cost::Spread::of([3.0, 1.0, 2.0, 10.0]).unwrap();
    /// assert_eq!((spread.median, spread.least, spread.most), (2.5, 1.0, 10.0));
    /// assert_eq!((spread.lower, spread.upper), (1.75, 4.75));
    /// assert!(bigmac::cost::Spread::of([]).is_none());
    /// ```
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let [least, lower, median, upper, most] = quantiles(values, [0.0, 0.25, 0.5, 0.75, 1.0])?;
        Some(Spread { median, lower, upper, least, most })
    }
}

/// The values below which these shares (from 0 to 1) of the measurements are; none without measurements. Between two
/// measurements it is interpolated, as `numpy.quantile` does.
///
/// ```
/// assert_eq!(bigmac::cost::quantiles([3.0, 1.0, 2.0], [0.0, 0.75, 1.0]), Some([1.0, 2.5, 3.0]));
/// ```
pub fn quantiles<const K: usize>(
    values: impl IntoIterator<Item = f64>,
    shares: [f64; K],
) -> Option<[f64; K]> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some(shares.map(|share| {
        let place = share.clamp(0.0, 1.0) * last as f64;
        let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        below + (above - below) * place.fract()
    }))
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { median, lower, upper, least, most } = self;
        write!(f, "{median:.4} (quartiles {lower:.4} to {upper:.4}, range {least:.4} to {most:.4})")
    }
}
