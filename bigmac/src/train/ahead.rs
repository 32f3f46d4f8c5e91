//! Steps that are laid out while the step before them runs: which samples, packed how, under which table, with their
//! pictures on the way. Once for all ranks of the process.

use super::groups::Grid;
use super::lost::{Lost, lost_samples};
use super::{RunLayout, Session, TrainError};
use crate::config::OnError;
use crate::data::{DataError, StepItem, StepPictures, StepPlan};
use crate::execute::Program;
use bigmac_comm::Communicator;
use bigmac_runtime::Context;
use bigmac_schedule::{ModuleKind, Phase, Piece, Unit};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A step, ready to be run.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Its samples, those of all replicas.
    pub plan: StepPlan,
    /// What is done by each replica that has ranks here.
    replicas: BTreeMap<usize, ReplicaStep>,
    /// The pictures of this process's ranks.
    pub pictures: StepPictures,
    /// Why samples were left out of it, where `data.on_error` says that they are.
    pub skipped: Vec<DataError>,
}

/// One replica's share of a step.
#[derive(Debug)]
pub(super) struct ReplicaStep {
    /// Its samples.
    pub plan: StepPlan,
    /// Its table.
    pub program: Program,
}

impl Prepared {
    /// The share of a replica.
    ///
    /// # Errors
    /// [`TrainError::Rank`] for one that has no rank here.
    pub fn replica(&self, replica: usize, rank: usize) -> Result<&ReplicaStep, TrainError> {
        let missing = || format!("replica {replica} was not laid out in this process");
        self.replicas.get(&replica).ok_or_else(|| TrainError::Rank { rank, message: missing() })
    }
}

/// The ranks of this process.
#[derive(Debug)]
pub(super) struct Here<'a> {
    /// All ranks.
    pub grid: Grid,
    /// Those of this process.
    pub ranks: Range<usize>,
    /// How steps are agreed upon with other processes, where there are any: a group for this alone.
    pub others: Option<(&'a Context, Box<dyn Communicator>)>,
}

/// Prepares steps, each when the one before has begun on every rank.
#[derive(Debug)]
pub(super) struct Ahead<'a> {
    session: &'a Session,
    layout: &'a RunLayout,
    here: Here<'a>,
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
    /// An error goes to the first rank that takes it; others of this process find out for themselves.
    prepared: Result<Arc<Prepared>, Option<TrainError>>,
    /// Ranks that have not taken it.
    left: usize,
}

impl<'a> Ahead<'a> {
    pub fn new(session: &'a Session, layout: &'a RunLayout, here: Here<'a>) -> Self {
        Ahead { session, layout, here, state: Mutex::default(), changed: Condvar::new() }
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
            let prepared = self.prepare(step).map(Arc::new).map_err(Some);
            let is_failed = prepared.is_err();
            self.lock().next = Some(Next { step, prepared, left: self.here.ranks.len() });
            self.changed.notify_all();
            if is_failed {
                return;
            }
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
                    let prepared = match &mut next.prepared {
                        Ok(prepared) => Ok(Arc::clone(prepared)),
                        Err(error) => Err(error.take()),
                    };
                    if next.left == 0 {
                        state.next = None;
                        self.changed.notify_all();
                    }
                    break prepared;
                }
                _ if is_over => break Err(None),
                _ => state = self.wait(state),
            }
        };
        drop(state);
        match prepared {
            Ok(prepared) => Ok(prepared),
            Err(Some(error)) => Err(error),
            Err(None) => self.prepare(step).map(Arc::new),
        }
    }

    fn prepare(&self, step: u64) -> Result<Prepared, TrainError> {
        let plan = self.session.planner.step(step);
        let replicas = self.replicas(&plan)?;
        let pictures = self.pictures(&replicas);
        let prepared = Prepared { plan, replicas, pictures, skipped: Vec::new() };
        if self.session.config.data.on_error == OnError::Skip {
            return self.without_lost(step, prepared);
        }
        Ok(prepared)
    }

    /// The step without samples whose pictures cannot be used; every process leaves out the same.
    fn without_lost(&self, step: u64, prepared: Prepared) -> Result<Prepared, TrainError> {
        let here = Lost::of(&prepared.pictures, &prepared.plan);
        let Lost { samples, errors } = match &self.here.others {
            Some((ctx, comm)) => lost_samples(ctx, &**comm, here)?,
            None => here,
        };
        let skipped: Vec<DataError> = errors.into_iter().map(|(_, error)| error).collect();
        if samples.is_empty() {
            return Ok(Prepared { skipped, ..prepared });
        }
        let plan = self.session.planner.step_without(step, &samples);
        let (left, dp) = (plan.microbatches.len(), self.here.grid.replicas);
        if left < dp {
            let first = skipped.first().map(DataError::to_string).unwrap_or_default();
            let needed = if dp > 1 { format!(", and needs {dp}, one a replica") } else { String::new() };
            let left =
                if left == 0 { "no sample".to_owned() } else { format!("microbatches for {left} only") };
            let message =
                format!("step {step} has {left} left that can be used{needed}; the first error: {first}");
            return Err(DataError::Value(message).into());
        }
        let replicas = self.replicas(&plan)?;
        let pictures = self.pictures(&replicas);
        Ok(Prepared { plan, replicas, pictures, skipped })
    }

    /// The shares of the replicas that have ranks here.
    fn replicas(&self, plan: &StepPlan) -> Result<BTreeMap<usize, ReplicaStep>, TrainError> {
        let grid = self.here.grid;
        let here: BTreeSet<usize> = self.here.ranks.clone().map(|rank| grid.replica(rank)).collect();
        let (costs, chain) = (&self.layout.costs, self.layout.chain.as_ref());
        let share = |replica: usize| {
            let plan = plan.of_replica(replica, grid.replicas);
            let program = Program::build(&plan, costs, &self.session.config.pipeline, chain)?;
            Ok((replica, ReplicaStep { plan, program }))
        };
        here.into_iter().map(share).collect()
    }

    /// Queues the pictures that ranks of this process need, each rank's in the order of its ops.
    fn pictures(&self, replicas: &BTreeMap<usize, ReplicaStep>) -> StepPictures {
        let grid = self.here.grid;
        let ops = self.here.ranks.clone().filter_map(|rank| {
            let share = replicas.get(&grid.replica(rank))?;
            Some((share, share.program.table.ranks.get(grid.stage(rank).0)?))
        });
        // Ranks run side by side: what each needs first comes first.
        let mut lists: Vec<_> = ops.map(|(share, ops)| items(share, ops)).collect();
        lists.iter_mut().for_each(|list| list.reverse());
        let mut items = Vec::new();
        while lists.iter().any(|list| !list.is_empty()) {
            items.extend(lists.iter_mut().filter_map(Vec::pop));
        }
        self.session.prefetcher.items(items)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has a picture among the forwards of a rank's ops, in their order. Of a chain only the encoder's first chunk looks
/// at images; chunks of the generator all count as looking, though those in the middle don't.
fn items<'p>(share: &'p ReplicaStep, ops: &[bigmac_schedule::Op]) -> Vec<StepItem<'p>> {
    let of = |unit: Unit| {
        let Piece::Item(item) = unit.piece else { return None };
        let load = share.plan.microbatches.get(item.microbatch.0)?;
        match unit.module.kind() {
            ModuleKind::Encoder if unit.module.chunk().0 > 0 => None,
            ModuleKind::Encoder => load.images.get(item.index).map(StepItem::Image),
            ModuleKind::Llm => None,
            ModuleKind::Generator => load.draws.get(item.index).map(StepItem::Draw),
        }
    };
    let forwards = ops.iter().flat_map(|op| op.runs()).filter(|(_, phase)| *phase == Phase::Forward);
    forwards.filter_map(|(unit, _)| of(unit)).collect()
}

struct Over<'a>(&'a Ahead<'a>);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
