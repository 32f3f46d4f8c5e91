//! How many tries ended how, by kind; and what went wrong, by cause.

use crate::process::End;
use std::collections::BTreeMap;
use std::fmt::Write;

/// A try that went wrong.
pub struct Failure {
    pub index: u64,
    pub kind: &'static str,
    pub wrong: String,
    pub command: String,
}

/// Counts of a whole run.
#[derive(Default)]
pub struct Counts {
    ends: BTreeMap<&'static str, BTreeMap<String, u64>>,
    slowest: f64,
    pub failures: Vec<Failure>,
}

impl Counts {
    /// Counts how a try ended.
    pub fn count(&mut self, kind: &'static str, end: End, seconds: f64) {
        let name = match end {
            End::Code(code) => format!("exit {code}"),
            End::Signal(signal) => format!("signal {signal}"),
            End::Hang => "hang".into(),
            End::Stopped(_) => "long".into(),
        };
        *self.ends.entry(kind).or_default().entry(name).or_default() += 1;
        if matches!(end, End::Code(_)) {
            self.slowest = self.slowest.max(seconds);
        }
    }

    /// A table of kinds and ends in Markdown, then every failure with the command that repeats it, by cause.
    pub fn report(&self, seed: u64) -> String {
        let mut names: Vec<&String> = self.ends.values().flat_map(BTreeMap::keys).collect();
        names.sort();
        names.dedup();
        let mut out = String::from("\n| kind | tries |");
        let mut rule = String::from("|---|--:|");
        for name in &names {
            let _ = write!(out, " {name} |");
            rule.push_str("--:|");
        }
        let _ = writeln!(out, "\n{rule}");
        let mut sums = BTreeMap::new();
        for (kind, ends) in &self.ends {
            let _ = write!(out, "| {kind} | {} |", ends.values().sum::<u64>());
            for name in &names {
                let count = ends.get(*name).copied().unwrap_or(0);
                *sums.entry(*name).or_insert(0) += count;
                let _ = write!(out, " {count} |");
            }
            out.push('\n');
        }
        let _ = write!(out, "| all | {} |", sums.values().sum::<u64>());
        for name in &names {
            let _ = write!(out, " {} |", sums[name]);
        }
        let _ = writeln!(
            out,
            "\n\nSeed {seed}; {} failed; the slowest took {:.1} s.",
            self.failures.len(),
            self.slowest
        );
        let mut causes: BTreeMap<String, Vec<&Failure>> = BTreeMap::new();
        for failure in &self.failures {
            causes.entry(cause(failure)).or_default().push(failure);
        }
        for (cause, failures) in causes {
            let _ = writeln!(out, "\n{} x {cause}", failures.len());
            for failure in failures.iter().take(5) {
                let Failure { index, kind, wrong, command } = failure;
                let wrong: String = wrong.chars().take(500).collect();
                let command: String = command.chars().take(900).collect();
                let _ = writeln!(out, "  HOSTILE_ONLY={seed}:{index} ({kind}) {command}\n    {wrong}");
            }
        }
        out
    }
}

/// A complaint without its numbers and names, so that the same ones count together.
fn cause(failure: &Failure) -> String {
    let wrong = &failure.wrong;
    if wrong.starts_with("hang") || wrong.starts_with("signal") {
        return format!("{wrong} ({})", failure.kind);
    }
    if let Some(place) = wrong.split(" panicked at ").nth(1) {
        return format!("panic at {place}");
    }
    if wrong.contains("but it said") {
        return "exit 0: but it said an error".into();
    }
    if wrong.ends_with("characters") {
        return "message: too long".into();
    }
    let mut cause = wrong.clone();
    while let Some((start, end)) = cause
        .find('\'')
        .and_then(|start| cause[start + 1..].find('\'').map(|length| (start, start + 1 + length)))
    {
        cause.replace_range(start..=end, "…");
    }
    cause.chars().take(120).collect()
}
