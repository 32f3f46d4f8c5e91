//! Our side: a training run that pauses for the other side's turns.

use bigmac::data::DataError;
use bigmac::execute::Program;
use bigmac::train::{self, Observer, Session, Snapshot, StepReport, TrainError};
use bigmac_models::stage::Stage;
use bigmac_schedule::ModuleKind;
use bigmac_schedule::render::Trace;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// What all turns took.
#[derive(Debug, Default)]
pub struct Turns {
    /// Per turn, seconds of each of our steps.
    pub ours: Vec<Vec<f64>>,
    /// Per turn, seconds of each of theirs.
    pub theirs: Vec<Vec<f64>>,
    /// Our loss at the first step.
    pub loss: f64,
}

impl Turns {
    /// Trains in a folder that is thrown away; behind every `length` steps calls `other` with the first of them, for
    /// the other side's turn on the same steps.
    ///
    /// # Errors
    /// Those of training and of `other`.
    pub fn run(
        session: &Session,
        length: u64,
        other: impl FnMut(u64) -> anyhow::Result<Option<Vec<f64>>> + Send,
    ) -> anyhow::Result<Turns> {
        let folder = tempfile::tempdir()?;
        let stop = AtomicBool::new(false);
        let state = State { turns: Turns::default(), running: Vec::new(), other, error: None };
        let pauses = Pauses { length, stop: &stop, state: Mutex::new(state) };
        train::train(session, folder.path(), None, &stop, &pauses)?;
        let state = pauses.state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.error.map_or(Ok(state.turns), Err)
    }
}

/// Trainable parameters of the model.
///
/// # Errors
/// None for a session that opened.
pub fn trainable(session: &Session) -> anyhow::Result<usize> {
    let shape = &session.shape;
    let mut trainable = 0;
    for kind in ModuleKind::ALL {
        let specs = shape.specs(kind, &Stage::whole(shape.layers(kind)))?;
        let learned = specs.iter().filter(|spec| spec.trainable);
        trainable += learned.map(|spec| spec.shape.iter().product::<usize>()).sum::<usize>();
    }
    Ok(trainable)
}

struct State<F> {
    turns: Turns,
    running: Vec<f64>,
    other: F,
    error: Option<anyhow::Error>,
}

/// Counts our steps, and gives the other side its turns.
struct Pauses<'a, F> {
    length: u64,
    stop: &'a AtomicBool,
    state: Mutex<State<F>>,
}

impl<F: FnMut(u64) -> anyhow::Result<Option<Vec<f64>>> + Send> Observer for Pauses<'_, F> {
    fn step(&self, report: &StepReport) {
        let mut guard = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let state = &mut *guard;
        state.running.push(report.seconds);
        if report.step == 0 {
            state.turns.loss = report.loss;
        }
        let done = report.step + 1;
        if !done.is_multiple_of(self.length) {
            return;
        }
        state.turns.ours.push(std::mem::take(&mut state.running));
        match (state.other)(done - self.length) {
            Ok(seconds) => state.turns.theirs.extend(seconds),
            Err(error) => {
                state.error = Some(error);
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    fn note(&self, _: &str) {}

    fn skipped(&self, _errors: &[DataError]) {}

    fn saved(&self, _path: &Path) {}

    fn samples(&self, _session: &Session, _snapshot: &Snapshot, _step: u64) -> Result<(), TrainError> {
        Ok(())
    }

    fn timeline(
        &self,
        _folder: &Path,
        _program: &Program,
        _traces: &[Trace],
        _step: u64,
    ) -> Result<(), TrainError> {
        Ok(())
    }
}
