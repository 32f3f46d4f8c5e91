//! Random steps, each through one random schedule over one random order of the LLM's chunks, and what has to hold for
//! all of them. The test command runs thousands, the benchmark `properties` a hundred thousand; a case is named by
//! (seed, number) and the same everywhere.

mod draw;
mod hold;

use bigmac_schedule::{Options, Schedule, Table, Workload};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

pub use draw::{any, even};
pub use hold::{claims, hold};

/// How alike the work of a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evenness {
    /// Equal stages, p equal items in every microbatch, free communication, everything learns.
    Even,
    /// The same, but with other lists of items in every microbatch.
    Items,
    /// Anything: unequal chunks and microbatches, some of no cost, slow ranks and links, frozen modules.
    Any,
}

impl Evenness {
    /// All three.
    pub const ALL: [Evenness; 3] = [Evenness::Even, Evenness::Items, Evenness::Any];

    /// In reports.
    pub fn name(self) -> &'static str {
        match self {
            Evenness::Even => "even",
            Evenness::Items => "uneven items",
            Evenness::Any => "uneven all over",
        }
    }
}

/// A step and its schedule.
#[derive(Debug)]
pub struct Case {
    /// Of the step.
    pub evenness: Evenness,
    /// Of the whole step.
    pub schedule: &'static Schedule,
    /// What it was built with, the order of the LLM's chunks included.
    pub options: Options,
    /// The step as drawn.
    pub shape: Workload,
    /// The step as the schedule runs it.
    pub workload: Workload,
    /// What was built, without communication.
    pub table: Table,
}

impl Case {
    /// In half a line: what is needed to recognise the case.
    pub fn describe(&self) -> String {
        let Options { llm, llm_group, group, .. } = self.options;
        format!(
            "{} on {}, {}, p={} v={} N={} group={group:?} llm_group={llm_group:?}",
            self.schedule.name(),
            llm.name(),
            self.evenness.name(),
            self.shape.ranks(),
            self.shape.chunks_per_rank(),
            self.shape.len()
        )
    }
}

/// What a case that holds measured.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Of the step.
    pub evenness: Evenness,
    /// Of the whole step.
    pub schedule: &'static str,
    /// Of the LLM's chunks.
    pub llm: &'static str,
    /// Its time over T_ideal; none for the LLM alone and where nothing takes time.
    pub ratio: Option<f64>,
}

/// A case that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// Its number.
    pub number: u32,
    /// What is wrong.
    pub what: String,
}

/// Checks the cases of these numbers on several threads; a panic is a failure like others.
pub fn each<T: Send>(
    numbers: std::ops::Range<u32>,
    threads: usize,
    check: impl Fn(u32) -> Result<T, String> + Sync,
) -> (Vec<T>, Vec<Failure>) {
    let next = AtomicU32::new(numbers.start);
    let results = Mutex::new((Vec::new(), Vec::new()));
    let work = || {
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end {
                break;
            }
            match catch_unwind(AssertUnwindSafe(|| check(number))) {
                Ok(Ok(one)) => found.push(one),
                Ok(Err(what)) => failures.push(Failure { number, what }),
                Err(_) => failures.push(Failure { number, what: "panicked".to_owned() }),
            }
        }
        if let Ok(mut results) = results.lock() {
            results.0.extend(found);
            results.1.extend(failures);
        }
    };
    std::thread::scope(|scope| (0..threads.max(1)).for_each(|_| drop(scope.spawn(work))));
    let (found, mut failures) = results.into_inner().unwrap_or_default();
    failures.sort();
    (found, failures)
}
