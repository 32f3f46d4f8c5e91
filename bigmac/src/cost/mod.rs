//! What work costs: operations that are counted, rates that turn them into times, and rates fitted to measured times.

mod effects;
mod fit;
mod model;
mod rates;
mod spread;

pub use effects::{Clocked, Effects, spread};
pub(crate) use fit::Samples;
pub use fit::UnitTimes;
pub use model::CostModel;
pub use rates::{Rate, Rates, UnitRates};
pub use spread::{Spread, quantiles};
