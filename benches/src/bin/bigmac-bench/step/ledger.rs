//! What a step ran, operator by operator: time, operations and bytes.

use super::clock::{Clock, Moment};
use bigmac_autograd::{Applied, Observer, Pass};
use bigmac_gpu::{DriverError, DriverResult};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Forward,
    InputGradient,
    WeightGradient,
    /// Of inputs and weights, from one computation.
    Gradients,
    Optimizer,
}

impl Phase {
    /// In the order of a step.
    pub const ALL: [Phase; 5] =
        [Phase::Forward, Phase::InputGradient, Phase::WeightGradient, Phase::Gradients, Phase::Optimizer];

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Forward => "forward",
            Phase::InputGradient => "input gradient",
            Phase::WeightGradient => "weight gradient",
            Phase::Gradients => "gradients",
            Phase::Optimizer => "optimizer",
        }
    }
}

impl From<Pass> for Phase {
    fn from(pass: Pass) -> Phase {
        match pass {
            Pass::Forward => Phase::Forward,
            Pass::BackwardInput => Phase::InputGradient,
            Pass::BackwardWeight => Phase::WeightGradient,
            Pass::Backward => Phase::Gradients,
        }
    }
}

/// All applications of an operator in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Line {
    pub operator: &'static str,
    pub phase: Phase,
    pub calls: usize,
    /// On the device, from the end of what was before it to its own: what the device waits for it is in it.
    pub seconds: f64,
    /// Operations by its definition.
    pub flops: f64,
    /// Bytes of its tensors, each read or written once.
    pub bytes: f64,
}

/// A step, observed.
#[derive(Debug)]
pub struct Observed {
    /// By operator and phase.
    pub lines: Vec<Line>,
    /// Seconds of the operators before [`Ledger::begun`].
    pub first: f64,
}

impl Observed {
    /// Sums over all lines.
    pub fn total(&self, of: fn(&Line) -> f64) -> f64 {
        self.lines.iter().map(of).sum()
    }
}

/// Writes down every pass with the moment of its end.
#[derive(Debug)]
pub struct Ledger {
    clock: Clock,
    entries: Mutex<Entries>,
}

#[derive(Debug)]
struct Entries {
    begin: Moment,
    list: Vec<Entry>,
    /// How many of them were there when the step had begun.
    begun: usize,
    failed: Option<DriverError>,
}

#[derive(Debug)]
struct Entry {
    operator: &'static str,
    phase: Phase,
    flops: f64,
    bytes: f64,
    end: Moment,
}

impl Ledger {
    /// A ledger of a step that begins now.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(clock: &Clock) -> DriverResult<Arc<Ledger>> {
        let entries = Entries { begin: clock.now()?, list: Vec::new(), begun: 0, failed: None };
        Ok(Arc::new(Ledger { clock: clock.clone(), entries: Mutex::new(entries) }))
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what was queued.
    pub fn write(&self, operator: &'static str, phase: Phase, flops: f64, bytes: f64) {
        let end = self.clock.now();
        let mut entries = self.entries();
        match end {
            Ok(end) => entries.list.push(Entry { operator, phase, flops, bytes, end }),
            Err(error) => entries.failed = entries.failed.take().or(Some(error)),
        }
    }

    /// The step's first operators have been written down.
    pub fn begun(&self) {
        let mut entries = self.entries();
        entries.begun = entries.list.len();
    }

    /// Adds it all up, when the device is done, and begins again.
    ///
    /// # Errors
    /// The driver's, also those of any moment that could not be taken.
    pub fn close(&self) -> DriverResult<Observed> {
        let mut entries = self.entries();
        if let Some(error) = entries.failed.take() {
            return Err(error);
        }
        let mut lines: BTreeMap<(Phase, &'static str), Line> = BTreeMap::new();
        let (mut first, begun) = (0.0, std::mem::take(&mut entries.begun));
        let now = self.clock.now()?;
        let mut before = std::mem::replace(&mut entries.begin, now);
        let list = std::mem::take(&mut entries.list);
        for (number, Entry { operator, phase, flops, bytes, end }) in list.into_iter().enumerate() {
            let took = self.clock.seconds(&before, &end)?;
            self.clock.forget(std::mem::replace(&mut before, end));
            first += if number < begun { took } else { 0.0 };
            let empty = Line { operator, phase, calls: 0, seconds: 0.0, flops: 0.0, bytes: 0.0 };
            let line = lines.entry((phase, operator)).or_insert(empty);
            line.calls += 1;
            line.seconds += took;
            line.flops += flops;
            line.bytes += bytes;
        }
        self.clock.forget(before);
        let mut lines: Vec<Line> = lines.into_values().collect();
        lines.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        Ok(Observed { lines, first })
    }
}

impl Observer for Ledger {
    fn applied(&self, applied: Applied) {
        self.write(applied.operator, applied.pass.into(), applied.flops, applied.bytes);
    }
}
