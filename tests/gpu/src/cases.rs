//! The tests there are, and those that are asked for.

use crate::bench::{Bench, Outcome};
use crate::{attention, command, compile, memory, product, step};
use anyhow::bail;

/// What a test runs.
type Test = Box<dyn Fn(&Bench) -> anyhow::Result<Outcome>>;

/// A test.
pub struct Case {
    /// Its name: its family, and after a '-' what it is in there.
    pub name: String,
    /// What runs.
    pub test: Test,
}

impl Case {
    /// A test that runs `test`.
    pub fn new(name: impl Into<String>, test: impl Fn(&Bench) -> anyhow::Result<Outcome> + 'static) -> Case {
        Case { name: name.into(), test: Box::new(test) }
    }

    /// The part of the name before the first '-'.
    pub fn family(&self) -> &str {
        self.name.split('-').next().unwrap_or_default()
    }
}

/// Every test, in the order in which a device that has run nothing yet should see them.
fn all() -> Vec<Case> {
    let mut all =
        vec![Case::new("kernel-broken", compile::broken), Case::new("memory-budget", memory::budget)];
    all.extend(product::cases());
    all.extend(attention::cases());
    all.extend([
        Case::new("step-text", step::text),
        Case::new("step-pictures", step::pictures),
        Case::new("step-drawings", step::drawings),
        Case::new("kernel-changed", compile::changed),
        Case::new("command-train", command::train),
        // The worst neighbour for anything beside it.
        Case::new("memory-exhausted", memory::exhausted),
    ]);
    all
}

/// The tests of those names and families, in the order of [`all`]; every test where none is named.
///
/// # Errors
/// A name that no test and no family has.
pub fn select(only: &[String]) -> anyhow::Result<Vec<Case>> {
    let all = all();
    let is = |case: &Case, name: &str| case.name == name || case.family() == name;
    if let Some(unknown) = only.iter().find(|name| !all.iter().any(|case| is(case, name))) {
        let names: Vec<&str> = all.iter().map(|case| case.name.as_str()).collect();
        bail!("no test or family is called '{unknown}'; the tests are {}", names.join(", "));
    }
    Ok(all.into_iter().filter(|case| only.is_empty() || only.iter().any(|name| is(case, name))).collect())
}
