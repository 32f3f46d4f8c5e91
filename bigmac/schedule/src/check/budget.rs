//! Limits on activation memory, always with a unit: microbatches (`2mb`) or bytes (`512MiB`).

use crate::names::UnknownName;
use crate::step::{ModuleKind, PerModule};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The most activations that a module may hold on a rank.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Budget {
    /// In microbatches, parts of one included.
    Microbatches(f64),
    /// In bytes.
    Bytes(u64),
}

/// Text that is not a budget.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)]
pub enum BudgetError {
    #[error(
        "'{given}' is not a valid budget: expected a number and its unit, microbatches as in '2mb' or bytes as in \
         '512MiB' (B, KiB, MiB, GiB)"
    )]
    Size { given: String },
    #[error("expected MODULE=SIZE, such as encoder=2mb or llm=512MiB, got '{given}'")]
    NoModule { given: String },
    #[error(transparent)]
    Module(#[from] UnknownName),
    #[error("{module} is given twice")]
    Twice { module: ModuleKind },
}

/// A budget in bytes of a module whose size is not known.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[error(
    "the {module} budget of {budget} is in bytes, but what a microbatch of the {module} saves is not known: give the \
     budget in microbatches (as in '2mb'), or the bytes of a microbatch"
)]
#[allow(missing_docs)]
pub struct UnknownSize {
    pub module: ModuleKind,
    pub budget: Budget,
}

/// A module's budget, written as in `encoder=2mb`.
///
/// # Errors
/// Where it is written otherwise.
pub fn module_budget(text: &str) -> Result<(ModuleKind, Budget), BudgetError> {
    let missing = || BudgetError::NoModule { given: text.to_owned() };
    let (name, size) = text.split_once('=').ok_or_else(missing)?;
    Ok((name.trim().parse()?, size.trim().parse()?))
}

/// Budgets of several modules, written as in `encoder=2mb,llm=512MiB`; none where the text is empty.
///
/// # Errors
/// Where one is written otherwise, or a module has two.
pub fn module_budgets(text: &str) -> Result<PerModule<Option<Budget>>, BudgetError> {
    let mut budgets = PerModule::<Option<Budget>>::default();
    for part in text.split(',').filter(|_| !text.trim().is_empty()) {
        let (module, budget) = module_budget(part)?;
        if budgets[module].replace(budget).is_some() {
            return Err(BudgetError::Twice { module });
        }
    }
    Ok(budgets)
}

const BYTES: [(&str, f64); 4] = [("GiB", 1073741824.0), ("MiB", 1048576.0), ("KiB", 1024.0), ("B", 1.0)];

impl FromStr for Budget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Budget, BudgetError> {
        let wrong = || BudgetError::Size { given: text.to_owned() };
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
            // Sums of shares are a hair off: what is printed is what one would type.
            Budget::Microbatches(count) => write!(f, "{}mb", (count * 1e9).round() / 1e9),
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
    /// Bytes that the largest microbatch of each module saves on a rank where it is all there: of the encoder and the
    /// generator the one with the longest forward, of which every item takes in proportion to its own; of the LLM any
    /// microbatch, on all chunks of a stage. Budgets in bytes need it where the workload's own sizes are not known.
    pub microbatch_bytes: PerModule<Option<u64>>,
}
