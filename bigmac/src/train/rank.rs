//! One rank's side of a run: steps, one after the other, in lock-step with its peers.

use super::ahead::{Ahead, Prepared, ReplicaStep};
use super::checkpoint::{self, Checkpoint, DataState, Saved};
use super::collect::{collect_memory, collect_traces};
use super::groups::{Grid, Groups};
use super::learning::gets_gradient;
use super::metrics::{MetricsFile, StepReport};
use super::numbers::{Gate, Numbers, Reduced, Totals};
use super::optimizer::{Optimizer, Update};
use super::patient::receive;
use super::reduce::reduce;
use super::session::Session;
use super::snapshot::Snapshot;
use super::stopwatch::{Lap, Stopwatch};
use super::{Observer, Outcome, RunLayout, TrainError, learning_rate};
use crate::data::StepPlan;
use crate::execute::{Measured, Ran, StepTask, run, with_sizes};
use crate::model::RankModules;
use bigmac_comm::control::Position;
use bigmac_comm::{Communicator, Tag};
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
    /// The replicas of that.
    pub grid: Grid,
    pub files: Files<'a>,
    /// The steps to come.
    pub ahead: &'a Ahead<'a>,
    /// Where other processes learn what this one is doing.
    pub position: Option<&'a Position>,
    pub stop: &'a AtomicBool,
    pub observer: &'a dyn Observer,
}

/// What a run reads and writes.
pub(super) struct Files<'a> {
    /// The samples.
    pub data: &'a DataState,
    /// Where the run goes on from.
    pub resume: Option<&'a Checkpoint>,
    /// Where weights come from that are not random.
    pub weights: Option<&'a Checkpoint>,
    pub folder: &'a Path,
}

impl Files<'_> {
    /// The step that the run begins with.
    fn first_step(&self) -> u64 {
        self.resume.map_or(0, |checkpoint| checkpoint.state().step)
    }
}

/// A rank of a run.
struct Runner<'a> {
    shared: &'a Shared<'a>,
    ctx: &'a Context,
    groups: Groups<'a>,
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
    let first = shared.files.first_step();
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
                shared.observer.samples(shared.files.folder, shared.session, &snapshot, step)?;
            }
            runner.wait_for_first()?;
        }
    }
    let is_saved = shared.files.resume.is_some() && step == first;
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
        let (stage, shape, placement) =
            (shared.grid.stage(comm.rank()).0, &session.shape, &shared.layout.placement);
        let modules = match shared.files.weights {
            None => RankModules::random(ctx, shape, placement, stage, session.config.run.seed)?,
            Some(checkpoint) => RankModules::new(ctx, shape, placement, stage, &|ctx, kind, specs| {
                checkpoint.parameters(ctx, kind, specs, shape.dtype)
            })?,
        };
        let mut optimizers = Vec::new();
        for (kind, specs, params, _) in modules.parts() {
            optimizers.push(match shared.files.resume {
                Some(checkpoint) => {
                    let stored =
                        |ctx: &Context, part: &str, spec: &_| checkpoint.optimizer_part(ctx, part, spec);
                    Optimizer::resume(ctx, kind, specs, params, &stored)?
                }
                None => Optimizer::new(ctx, kind, params)?,
            });
        }
        let (folder, first) = (shared.files.folder, shared.files.first_step());
        let metrics = (comm.rank() == 0).then(|| MetricsFile::open(folder, first)).transpose()?;
        let gate = Gate::new(ctx)?;
        let stopwatch = Stopwatch::default();
        let groups = Groups::of(comm, shared.grid)?;
        Ok(Runner { shared, ctx, groups, modules, optimizers, metrics, gate, stopwatch, unread: None })
    }

    /// Tells other processes what this rank is doing beside the ops of a step.
    fn at(&self, step: u64, doing: &str) {
        if let Some(position) = self.shared.position {
            position.set(step, 0, doing);
        }
    }

    /// Rank 0 alone writes files and speaks.
    fn is_first(&self) -> bool {
        self.groups.world().rank() == 0
    }

    /// One step; true when a stop was asked for. On a GPU it is queued, and the numbers of the step before are read.
    fn step(&mut self, step: u64) -> Result<bool, TrainError> {
        self.stopwatch.begin(self.ctx)?;
        let session = self.shared.session;
        let config = &session.config;
        self.ctx.memory().all_scopes().iter().for_each(|s| s.reset_peak());
        let prepared = self.shared.ahead.take(step)?;
        let Prepared { plan, pictures, skipped, .. } = &*prepared;
        let share = prepared.replica(self.groups.replica(), self.groups.world().rank())?;
        if self.is_first() && !skipped.is_empty() {
            self.shared.observer.skipped(skipped);
        }
        let mut task = StepTask::new(config, &session.shape, &share.plan, step).with_pictures(pictures);
        task.position = self.shared.position;
        let pipeline = self.groups.pipeline();
        let Ran { losses, record } = run(self.ctx, pipeline, &share.program, &task, &mut self.modules)?;
        // A signal may come to any process; the sum tells every rank.
        let wish = self.shared.stop.load(Ordering::Relaxed);
        self.at(step, "reduction");
        let Reduced { numbers, stop } =
            reduce(self.ctx, &self.groups, &mut self.modules, losses, &mut self.gate, wish)?;
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
        collect_memory(self.ctx, self.groups.world(), record.saved(), &mut report)?;
        let before = self.unread.replace(Unread { report, numbers, lap });
        before.map_or(Ok(()), |before| self.report(before))?;
        if step == DRAWN_STEP.min(config.train.steps.saturating_sub(1)) {
            self.draw_timeline(step, share, &record.read()?)?;
            self.read()?;
        }
        if !self.ctx.is_gpu() {
            self.read()?;
        }
        Ok(stop)
    }

    /// Draws the first replica's part of a measured step beside its simulation.
    fn draw_timeline(&self, step: u64, share: &ReplicaStep, measured: &Measured) -> Result<(), TrainError> {
        if self.groups.replica() != 0 {
            return Ok(());
        }
        let traces = collect_traces(self.ctx, self.groups.pipeline(), measured)?;
        if self.is_first() {
            let mut program = share.program.clone();
            program.workload = with_sizes(&self.shared.session.shape, &share.plan, program.workload)?;
            self.shared.observer.timeline(self.shared.files.folder, &program, &traces, step)?;
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
        let totals =
            totals.and_then(|totals| totals.check(self.groups.world(), report.step).map(|()| totals));
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

    /// What the first replica's ranks hold, on rank 0; other replicas hold the same.
    fn gather(&self, with_optimizer: bool) -> Result<Option<Snapshot>, TrainError> {
        if self.groups.replica() != 0 {
            return Ok(None);
        }
        let optimizers = with_optimizer.then_some(&self.optimizers[..]);
        let pipeline = self.groups.pipeline();
        Snapshot::gather(self.ctx, pipeline, &self.modules, optimizers, &self.shared.session.shape)
    }

    /// Waits, however long it takes, until rank 0 has done what it does alone (files, samples).
    fn wait_for_first(&self) -> Result<(), TrainError> {
        let (ctx, comm, spec) = (self.ctx.host(), self.groups.world(), Spec::new(&[1], DType::U8));
        if comm.rank() != 0 {
            return Ok(receive(&ctx, comm, 0, FIRST_IS_BACK, &spec).map(drop)?);
        }
        for peer in 1..comm.size() {
            let word = Tensor::zeros(&ctx, &spec.shape, spec.dtype)?;
            comm.send(&ctx, word, peer, FIRST_IS_BACK)?;
        }
        Ok(())
    }

    /// Writes a checkpoint; rank 0 gets what is in it.
    fn save(&self, step: u64) -> Result<Option<Snapshot>, TrainError> {
        self.at(step, "checkpoint");
        let Some(snapshot) = self.gather(true)? else { return Ok(None) };
        let files = &self.shared.files;
        let Session { shape, config, .. } = self.shared.session;
        // A checkpoint without the lines before it would lack them for ever.
        self.metrics.as_ref().map_or(Ok(()), MetricsFile::sync)?;
        let saved = Saved { shape, config, data: files.data, step };
        let path = checkpoint::save(&self.ctx.host(), files.folder, &snapshot, &saved)?;
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
