//! One rank's side of a run: steps, one after the other, in lock-step with its peers.

use super::ahead::{Ahead, Prepared};
use super::checkpoint::{self, Checkpoint, DataState, Saved};
use super::collect::{collect_memory, collect_traces};
use super::learning::gets_gradient;
use super::metrics::{MetricsFile, StepReport};
use super::numbers::{Gate, Numbers, Reduced, Totals};
use super::optimizer::{Optimizer, Update};
use super::reduce::reduce;
use super::session::Session;
use super::snapshot::Snapshot;
use super::stopwatch::{Lap, Stopwatch};
use super::{Observer, Outcome, RunLayout, TrainError, learning_rate};
use crate::data::StepPlan;
use crate::execute::{Measured, Program, Ran, StepTask, run, with_sizes};
use crate::model::RankModules;
use bigmac_comm::{CommError, Communicator, Tag};
use bigmac_runtime::{Context, DType, Spec, Tensor};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tag of rank 0's word that it goes on; below those of reductions, above all others.
const FIRST_IS_BACK: Tag = Tag(u64::MAX - 3);

/// The step that is drawn, if there are as many: one after the first steps' noise is over.
const DRAWN_STEP: u64 = 20;

/// What all ranks of a run share.
pub(super) struct Shared<'a> {
    pub session: &'a Session,
    /// Where the modules live.
    pub layout: &'a RunLayout,
    /// The samples.
    pub data: &'a DataState,
    /// The steps to come.
    pub ahead: &'a Ahead<'a>,
    /// Where the run goes on from.
    pub resume: Option<&'a Checkpoint>,
    /// Where weights come from that are not random.
    pub weights: Option<&'a Checkpoint>,
    pub folder: &'a Path,
    pub stop: &'a AtomicBool,
    pub observer: &'a dyn Observer,
}

/// A rank of a run.
struct Runner<'a> {
    shared: &'a Shared<'a>,
    ctx: &'a Context,
    comm: &'a dyn Communicator,
    modules: RankModules,
    optimizers: Vec<Optimizer>,
    metrics: Option<MetricsFile>,
    gate: Gate,
    stopwatch: Stopwatch,
    /// The step whose numbers the device may still have.
    unread: Option<Unread>,
}

/// A step that was queued.
#[derive(Debug)]
struct Unread {
    /// What the host knows of it.
    report: StepReport,
    numbers: Numbers,
    lap: Lap,
}

/// Runs all steps that are left, or until a stop is asked for. Only rank 0 has what was learned.
pub(super) fn run_rank(
    shared: &Shared<'_>,
    ctx: &Context,
    comm: &dyn Communicator,
) -> Result<Outcome, TrainError> {
    let config = &shared.session.config;
    let mut runner = Runner::new(shared, ctx, comm)?;
    let first = shared.resume.map_or(0, |c| c.state().step);
    let mut step = first;
    while step < config.train.steps {
        let stopped = match runner.step(step) {
            Ok(stopped) => stopped,
            Err(error) => return Err(runner.read_alone().err().unwrap_or(error)),
        };
        step += 1;
        let every = |n: u64| n > 0 && step.is_multiple_of(n) && step < config.train.steps;
        if stopped
            || step == config.train.steps
            || every(config.output.checkpoint_every)
            || every(config.output.sample_every)
        {
            runner.read()?;
        }
        // After the last step everything is saved anyway.
        if (stopped && step < config.train.steps) || every(config.output.checkpoint_every) {
            runner.save(step)?;
            runner.wait_for_first()?;
        }
        if stopped {
            break;
        }
        if every(config.output.sample_every) {
            if let Some(snapshot) = runner.gather(false)? {
                shared.observer.samples(shared.folder, shared.session, &snapshot, step)?;
            }
            runner.wait_for_first()?;
        }
    }
    let is_saved = shared.resume.is_some() && step == first;
    let snapshot = match step == config.train.steps {
        // What the run began with is not written again.
        true if is_saved => runner.gather(false)?,
        true => runner.save(step)?,
        false => None,
    };
    Ok(Outcome { step, snapshot })
}

impl<'a> Runner<'a> {
    fn new(shared: &'a Shared<'a>, ctx: &'a Context, comm: &'a dyn Communicator) -> Result<Self, TrainError> {
        let session = shared.session;
        let (rank, shape, placement) = (comm.rank(), &session.shape, &shared.layout.placement);
        let modules = match shared.weights {
            None => RankModules::random(ctx, shape, placement, rank, session.config.run.seed)?,
            Some(checkpoint) => RankModules::new(ctx, shape, placement, rank, &|ctx, kind, specs| {
                checkpoint.parameters(ctx, kind, specs, shape.dtype)
            })?,
        };
        let mut optimizers = Vec::new();
        for (kind, specs, params, _) in modules.parts() {
            optimizers.push(match shared.resume {
                Some(checkpoint) => {
                    let stored =
                        |ctx: &Context, part: &str, spec: &_| checkpoint.optimizer_part(ctx, part, spec);
                    Optimizer::resume(ctx, kind, specs, params, &stored)?
                }
                None => Optimizer::new(ctx, kind, params)?,
            });
        }
        let first = shared.resume.map_or(0, |c| c.state().step);
        let metrics = (rank == 0).then(|| MetricsFile::open(shared.folder, first)).transpose()?;
        let gate = Gate::new(ctx)?;
        let stopwatch = Stopwatch::default();
        Ok(Runner { shared, ctx, comm, modules, optimizers, metrics, gate, stopwatch, unread: None })
    }

    /// One step; true when a stop was asked for. On a GPU it is queued, and the numbers of the step before are read.
    fn step(&mut self, step: u64) -> Result<bool, TrainError> {
        self.stopwatch.begin(self.ctx)?;
        let session = self.shared.session;
        let config = &session.config;
        self.ctx.memory().all_scopes().iter().for_each(|s| s.reset_peak());
        let prepared = self.shared.ahead.take(step)?;
        let Prepared { plan, program, pictures, skipped } = &*prepared;
        if self.comm.rank() == 0 && !skipped.is_empty() {
            self.shared.observer.skipped(skipped);
        }
        let task = StepTask::new(config, &session.shape, plan, step).with_pictures(pictures);
        let Ran { losses, record } = run(self.ctx, self.comm, program, &task, &mut self.modules)?;
        // Only rank 0 listens for the wish to stop; the sum tells every rank.
        let wish = self.comm.rank() == 0 && self.shared.stop.load(Ordering::Relaxed);
        let Reduced { numbers, stop } =
            reduce(self.ctx, self.comm, &mut self.modules, losses, &mut self.gate, wish)?;
        let scale = numbers.scale(step, config.train.clip)?;
        let lr = learning_rate(&config.train, step);
        let clip = self.gate.clip(config.train.clip);
        let update = Update { train: &config.train, lr, grad_scale: scale, clip };
        let present = gets_gradient(plan);
        for (optimizer, (kind, params, gradients)) in self.optimizers.iter_mut().zip(self.modules.parts_mut())
        {
            if present[kind] {
                optimizer.step(self.ctx, params, gradients, &update)?;
            }
        }
        let lap = self.stopwatch.end(self.ctx)?;
        let mut report = StepReport { step, lr, skipped: skipped.len(), ..counts(plan) };
        collect_memory(self.ctx, self.comm, record.saved(), &mut report)?;
        let before = self.unread.replace(Unread { report, numbers, lap });
        before.map_or(Ok(()), |before| self.report(before))?;
        if step == DRAWN_STEP.min(config.train.steps.saturating_sub(1)) {
            self.draw_timeline(step, plan, program.clone(), &record.read()?)?;
            self.read()?;
        }
        if !self.ctx.is_gpu() {
            self.read()?;
        }
        Ok(stop)
    }

    /// Draws a measured step beside its simulation.
    fn draw_timeline(
        &self,
        step: u64,
        plan: &StepPlan,
        mut program: Program,
        measured: &Measured,
    ) -> Result<(), TrainError> {
        let traces = collect_traces(self.ctx, self.comm, measured)?;
        if self.comm.rank() == 0 {
            program.workload = with_sizes(&self.shared.session.shape, plan, program.workload)?;
            self.shared.observer.timeline(self.shared.folder, &program, &traces, step)?;
        }
        Ok(())
    }

    /// Reads the numbers of the last step, if they have not been; waits for the device.
    fn read(&mut self) -> Result<(), TrainError> {
        self.stopwatch.pause();
        self.unread.take().map_or(Ok(()), |unread| self.report(unread))
    }

    /// As [`Runner::read`] after an error, without peers, who may be gone: a step that went well is written down, and
    /// the first loss of this rank that is not finite is the cause of what came later.
    fn read_alone(&mut self) -> Result<(), TrainError> {
        let Some(Unread { report, numbers, lap }) = self.unread.take() else { return Ok(()) };
        let totals = numbers.read(self.ctx)?;
        if totals.are_finite() { self.write(report, &totals, &lap) } else { Ok(()) }
    }

    /// Writes down a step, once its numbers are there and finite.
    fn report(&mut self, unread: Unread) -> Result<(), TrainError> {
        let Unread { report, numbers, lap } = unread;
        let totals = numbers.read(self.ctx).map_err(TrainError::from);
        let totals = totals.and_then(|totals| totals.check(self.comm, report.step).map(|()| totals));
        let totals = totals.inspect_err(|_| {
            // What was queued after a step that failed has learned nothing, and is not reported.
            self.unread = None;
        })?;
        self.write(report, &totals, &lap)
    }

    fn write(&mut self, mut report: StepReport, totals: &Totals, lap: &Lap) -> Result<(), TrainError> {
        if let Some(metrics) = &mut self.metrics {
            report.finish(totals, lap.seconds()?);
            metrics.write(&report)?;
            self.shared.observer.step(&report);
        }
        Ok(())
    }

    fn gather(&self, with_optimizer: bool) -> Result<Option<Snapshot>, TrainError> {
        let optimizers = with_optimizer.then_some(&self.optimizers[..]);
        Snapshot::gather(self.ctx, self.comm, &self.modules, optimizers, &self.shared.session.shape)
    }

    /// Waits, however long it takes, until rank 0 has done what it does alone (files, samples). The time limit is for
    /// peers that do not come; rank 0 is at work, and if it fails, every rank is told at once.
    fn wait_for_first(&self) -> Result<(), TrainError> {
        let (ctx, spec) = (self.ctx.host(), Spec::new(&[1], DType::U8));
        if self.comm.rank() == 0 {
            for peer in 1..self.comm.size() {
                let word = Tensor::zeros(&ctx, &spec.shape, spec.dtype)?;
                self.comm.send(&ctx, word, peer, FIRST_IS_BACK)?;
            }
            return Ok(());
        }
        loop {
            match self.comm.recv(&ctx, 0, FIRST_IS_BACK, &spec) {
                Err(CommError::Timeout { .. }) => {}
                other => return other.map(drop).map_err(TrainError::from),
            }
        }
    }

    /// Writes a checkpoint; rank 0 gets what is in it.
    fn save(&self, step: u64) -> Result<Option<Snapshot>, TrainError> {
        let Some(snapshot) = self.gather(true)? else { return Ok(None) };
        let Session { shape, config, .. } = self.shared.session;
        // A checkpoint without the lines before it would lack them for ever.
        self.metrics.as_ref().map_or(Ok(()), MetricsFile::sync)?;
        let saved = Saved { shape, config, data: self.shared.data, step };
        let path = checkpoint::save(&self.ctx.host(), self.shared.folder, &snapshot, &saved)?;
        self.shared.observer.saved(&path);
        Ok(Some(snapshot))
    }
}

/// What a step holds.
fn counts(plan: &StepPlan) -> StepReport {
    let loads = &plan.microbatches;
    StepReport {
        samples: loads.iter().map(|l| l.samples.len()).sum(),
        tokens: loads.iter().map(|l| l.tokens.len()).sum(),
        images: loads.iter().map(|l| l.images.len() + l.draws.len()).sum(),
        ..StepReport::default()
    }
}
