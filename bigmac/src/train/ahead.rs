//! Steps that are laid out while the step before them runs: which samples, packed how, under which table, with their
//! pictures on the way. Once for all ranks of the process.

use super::{RunLayout, Session, TrainError};
use crate::config::OnError;
use crate::data::{DataError, StepPictures, StepPlan};
use crate::execute::Program;
use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A step, ready to be run.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Its samples.
    pub plan: StepPlan,
    /// Its table.
    pub program: Program,
    /// Its pictures.
    pub pictures: StepPictures,
    /// Why samples were left out of it, where `data.on_error` says that they are.
    pub skipped: Vec<DataError>,
}

/// Prepares steps, each when the one before has begun on every rank.
#[derive(Debug)]
pub(super) struct Ahead<'a> {
    session: &'a Session,
    layout: &'a RunLayout,
    /// Ranks that take each step.
    ranks: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The step that is next, once it is prepared.
    next: Option<Next>,
    /// Whether nothing more will be prepared.
    is_over: bool,
}

#[derive(Debug)]
struct Next {
    step: u64,
    /// None when it could not be prepared: then each rank finds out for itself why.
    prepared: Option<Arc<Prepared>>,
    /// Ranks that have not taken it.
    left: usize,
}

impl<'a> Ahead<'a> {
    pub fn new(session: &'a Session, layout: &'a RunLayout, ranks: usize) -> Self {
        Ahead { session, layout, ranks, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Prepares steps from `first` on, one after the other, until the last or until [`Ahead::close`]. For a thread of its
    /// own.
    pub fn run(&self, first: u64) {
        // Also when a step panics: ranks then prepare for themselves what they wait for.
        let _over = Over(self);
        for step in first..self.session.config.train.steps {
            let mut state = self.lock();
            while state.next.is_some() && !state.is_over {
                state = self.wait(state);
            }
            if state.is_over {
                return;
            }
            drop(state);
            let prepared = self.prepare(step).ok().map(Arc::new);
            self.lock().next = Some(Next { step, prepared, left: self.ranks });
            self.changed.notify_all();
        }
    }

    /// Ends [`Ahead::run`].
    pub fn close(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
    }

    /// A step, for one rank; waits until it is prepared.
    ///
    /// # Errors
    /// When it cannot be: a table that does not fit, or no sample that can be used.
    pub fn take(&self, step: u64) -> Result<Arc<Prepared>, TrainError> {
        let mut state = self.lock();
        let prepared = loop {
            let is_over = state.is_over;
            match &mut state.next {
                Some(next) if next.step == step => {
                    next.left -= 1;
                    let prepared = next.prepared.clone();
                    if next.left == 0 {
                        state.next = None;
                        self.changed.notify_all();
                    }
                    break prepared;
                }
                _ if is_over => break None,
                _ => state = self.wait(state),
            }
        };
        drop(state);
        prepared.map_or_else(|| self.prepare(step).map(Arc::new), Ok)
    }

    fn prepare(&self, step: u64) -> Result<Prepared, TrainError> {
        let Session { config, planner, prefetcher, .. } = self.session;
        let mut plan = planner.step(step);
        let pictures = prefetcher.step(&plan);
        let mut skipped = Vec::new();
        if config.data.on_error == OnError::Skip {
            let (pictures_lost, errors): (Vec<_>, Vec<_>) = pictures.failures().into_iter().unzip();
            let mut lost = BTreeSet::new();
            for load in &plan.microbatches {
                let images = load.images.iter().map(|item| (&item.picture, item.sample));
                let items = images.chain(load.draws.iter().map(|item| (&item.picture, item.sample)));
                lost.extend(items.filter(|(p, _)| pictures_lost.contains(p)).map(|(_, sample)| sample));
            }
            skipped = errors;
            if !lost.is_empty() {
                plan = planner.step_without(step, &lost);
            }
            if plan.microbatches.is_empty() {
                let first = skipped.first().map(DataError::to_string).unwrap_or_default();
                let message = format!("step {step} has no sample left that can be used; the first: {first}");
                return Err(DataError::Value(message).into());
            }
        }
        let (costs, chain) = (&self.layout.costs, self.layout.chain.as_ref());
        let program = Program::build(&plan, costs, &config.pipeline, chain)?;
        Ok(Prepared { plan, program, pictures, skipped })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

struct Over<'a>(&'a Ahead<'a>);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
