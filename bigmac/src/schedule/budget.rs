//! Limits on activation memory, always with a unit: microbatches (`2mb`) or bytes (`512MiB`).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::memory::PerModule;

/// The most activations that a module may hold on a rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// In microbatches, parts of one included.
    Microbatches(f64),
    /// In bytes.
    Bytes(u64),
}

/// Text that is no budget.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{given}` is no budget: write a number and its unit, microbatches as in `2mb` or bytes as in `512MiB` (B, KiB, MiB, GiB)"
)]
pub struct BudgetError {
    /// What was given.
    pub given: String,
}

const BYTES: [(&str, f64); 4] = [("GiB", 1073741824.0), ("MiB", 1048576.0), ("KiB", 1024.0), ("B", 1.0)];

impl FromStr for Budget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Budget, BudgetError> {
        let wrong = || BudgetError { given: text.to_owned() };
        let number = |digits: &str| {
            let number = digits.trim().parse::<f64>().ok();
            number.filter(|number| number.is_finite() && *number >= 0.0).ok_or_else(wrong)
        };
        if let Some(digits) = text.strip_suffix("mb") {
            return Ok(Budget::Microbatches(number(digits)?));
        }
        let unit = BYTES.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)));
        let (digits, size) = unit.ok_or_else(wrong)?;
        Ok(Budget::Bytes((number(digits)? * size).round() as u64))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Budget::Microbatches(count) => write!(f, "{count}mb"),
            Budget::Bytes(bytes) => {
                let exact = BYTES.iter().find(|(_, size)| *bytes > 0 && bytes % (*size as u64) == 0);
                let (unit, size) = exact.copied().unwrap_or(("B", 1.0));
                write!(f, "{}{unit}", bytes / size as u64)
            }
        }
    }
}

/// What activations may take on every rank, and what is needed to compare it with what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// The most of each module; `None` is unlimited.
    pub budget: PerModule<Option<Budget>>,
    /// Bytes that one whole microbatch of each module saves on a rank (of the LLM: of all chunks of a stage). Budgets
    /// in bytes need it.
    pub microbatch_bytes: PerModule<Option<u64>>,
}
