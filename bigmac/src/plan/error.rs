//! Why there is no plan.

use crate::profile::ProfileError;
use crate::toml_file::TomlError;
use crate::value::ValueError;
use bigmac_schedule::SimulateError;
use bigmac_schedule::names::UnknownName;
use bigmac_schedule::{ScheduleError, WorkloadError};

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PlanError {
    /// A description that cannot be read, is not TOML, or has keys or types that it cannot have.
    #[error("{kind} description: {source}")]
    Toml { kind: &'static str, source: TomlError },
    /// A name that is neither a description that comes with the program nor a file.
    #[error("{0}; or give a file that ends in .toml")]
    Unknown(#[from] UnknownName),
    /// A value that does not fit; `place` is the file, the name of a description, or the command line.
    #[error("{place}: {source}")]
    Value { place: String, source: ValueError },
    /// The model cannot be laid out over that many devices.
    #[error("{0}")]
    Shape(String),
    /// Layouts exist, but none within the devices' memory. Bytes are in GiB: what the fullest rank of the leanest
    /// layout needs, and what a device has.
    #[error(
        "nothing fits: the least that any of {layouts} layouts needs is {needed:.1} GiB on a rank ({layout}: {parts}), \
         but a device has {available:.1} GiB; {advice}"
    )]
    Memory {
        layouts: usize,
        needed: f64,
        available: f64,
        layout: String,
        parts: String,
        advice: &'static str,
    },
    /// A profile that cannot be read, or is of something else.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A schedule that does not exist or does not fit.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Costs that are not possible.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// A schedule that does not run.
    #[error("the schedule '{schedule}' does not run: {source}")]
    Simulate { schedule: &'static str, source: SimulateError },
}

impl PlanError {
    /// What makes an error of a value's, given the place where it stands.
    pub fn at(place: &str) -> impl Fn(ValueError) -> PlanError + '_ {
        move |source| PlanError::Value { place: place.to_owned(), source }
    }
}
