//! Why there is no plan.

use thiserror::Error;

use crate::profile::ProfileError;
use crate::toml_file::TomlError;
use bigmac_schedule::SimulateError;
use bigmac_schedule::{ScheduleError, WorkloadError};

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// A description that can't be read, or is no TOML, or has keys or types that it can't have.
    #[error("{kind} description: {source}{}", hint(nearest))]
    Toml {
        /// `model` or `device`.
        kind: &'static str,
        /// Where, and what is wrong there.
        source: TomlError,
        /// The known key most like an unknown one.
        nearest: Option<String>,
    },
    /// A name that is neither a description that comes with the program nor a file.
    #[error("there is no {kind} `{given}`{}; there are: {}; or give a file that ends in .toml", hint(nearest), known.join(", "))]
    Unknown {
        /// `model` or `device`.
        kind: &'static str,
        /// What was asked for.
        given: String,
        /// The name most like it.
        nearest: Option<String>,
        /// All names.
        known: Vec<&'static str>,
    },
    /// A value that can't be.
    #[error("{place}: {key} = {given}, but wanted is {wanted}")]
    Value {
        /// The file, the name of a description, or the command line.
        place: String,
        /// Which value.
        key: String,
        /// What was given.
        given: String,
        /// What fits.
        wanted: String,
    },
    /// No way to lay the model out over that many devices.
    #[error("{message}")]
    Shape {
        /// What doesn't fit, and what would.
        message: String,
    },
    /// Layouts exist, but none within the devices' memory.
    #[error(
        "nothing fits: the least that any of {layouts} layouts needs is {needed:.1} GiB on a rank ({layout}: {parts}), \
         but a device has {available:.1} GiB; {advice}"
    )]
    Memory {
        /// How many were tried.
        layouts: usize,
        /// The least that the fullest rank needs, in GiB.
        needed: f64,
        /// What a device has, in GiB.
        available: f64,
        /// The layout that needs it.
        layout: String,
        /// What it is made of.
        parts: String,
        /// What to change.
        advice: String,
    },
    /// A profile that can't be read, or is of something else.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A schedule that doesn't exist or doesn't fit.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Costs that can't be.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// A schedule that doesn't run.
    #[error("the schedule `{schedule}` does not run: {source}")]
    Simulate {
        /// Its name.
        schedule: &'static str,
        /// Where it stops.
        source: SimulateError,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}
