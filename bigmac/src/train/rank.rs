//! One rank's side of a run: steps, one after the other, in lock-step with its peers.

use super::checkpoint::{self, Checkpoint};
use super::metrics::{MetricsFile, StepReport};
use super::optimizer::{Optimizer, STATE_PARTS};
use super::reduce::reduce;
use super::session::Session;
use super::snapshot::Snapshot;
use super::{Layout, Observer, TrainError, learning_rate, program_on};
use crate::data::StepPlan;
use crate::execute::{Measured, Program, StepTask, run};
use crate::model::RankModules;
use crate::schedule::render::Trace;
use crate::schedule::{ModuleKind, PerModule};
use bigmac_comm::{CommError, Communicator, Tag};
use bigmac_models::mmdit::flow::FlowMatching;
use bigmac_runtime::{Context, DType, Spec, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Tag of rank 0's word that it goes on; below those of reductions, above all others.
const FIRST_IS_BACK: Tag = Tag(u64::MAX - 3);

/// What all ranks of a run share.
pub(super) struct Shared<'a> {
    pub session: &'a Session,
    /// Where the modules live.
    pub layout: Layout,
    /// Where the run goes on from.
    pub resume: Option<&'a Checkpoint>,
    /// Where weights come from that are not random.
    pub weights: Option<&'a Checkpoint>,
    pub folder: &'a Path,
    pub stop: &'a AtomicBool,
    pub observer: &'a dyn Observer,
}

/// How a rank's run ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Steps done.
    pub step: u64,
    /// What was learned; on rank 0 only.
    pub snapshot: Option<Snapshot>,
}

/// A rank of a run.
struct Runner<'a> {
    shared: &'a Shared<'a>,
    ctx: Context,
    comm: &'a dyn Communicator,
    modules: RankModules,
    optimizers: Vec<Optimizer>,
    metrics: Option<MetricsFile>,
}

/// The task of a step: what its units compute.
pub fn step_task<'a>(session: &'a Session, plan: &'a StepPlan, step: u64) -> StepTask<'a> {
    StepTask {
        plan,
        shape: &session.shape,
        seed: session.config.run.seed,
        step,
        drawing_weight: session.config.train.drawing_weight,
        flow: FlowMatching { mean: session.config.train.noise_mean, ..FlowMatching::default() },
    }
}

/// Runs all steps that are left, or until somebody asks to stop.
pub(super) fn run_rank(shared: &Shared<'_>, comm: &dyn Communicator) -> Result<Ended, TrainError> {
    let config = &shared.session.config;
    let ctx = shared.session.context(comm.rank(), config.pipeline.threads)?;
    let mut runner = Runner::new(shared, ctx, comm)?;
    let first = shared.resume.map_or(0, |c| c.state().step);
    let mut step = first;
    while step < config.train.steps {
        let stopped = runner.step(step)?;
        step += 1;
        let every = |n: u64| n > 0 && step.is_multiple_of(n) && step < config.train.steps;
        // Behind the last step everything is saved anyway.
        if (stopped && step < config.train.steps) || every(config.output.checkpoint_every) {
            runner.save(step)?;
            runner.wait_for_first()?;
        }
        if stopped {
            break;
        }
        if every(config.output.sample_every) {
            if let Some(snapshot) = runner.gather(false)? {
                shared.observer.samples(shared.session, &snapshot, step)?;
            }
            runner.wait_for_first()?;
        }
    }
    let snapshot = if step == config.train.steps { runner.save(step)? } else { None };
    Ok(Ended { step, snapshot })
}

impl<'a> Runner<'a> {
    fn new(shared: &'a Shared<'a>, ctx: Context, comm: &'a dyn Communicator) -> Result<Self, TrainError> {
        let session = shared.session;
        let (rank, shape, placement) = (comm.rank(), &session.shape, &shared.layout.placement);
        let modules = match shared.weights {
            None => RankModules::random(&ctx, shape, placement, rank, session.config.run.seed)?,
            Some(checkpoint) => RankModules::new(&ctx, shape, placement, rank, &|ctx, kind, specs| {
                checkpoint.parameters(ctx, kind, specs, shape.dtype)
            })?,
        };
        let optimizers = modules
            .parts()
            .map(|(_, specs, params, _)| {
                let mut optimizer = Optimizer::new(&ctx, params)?;
                for part in STATE_PARTS {
                    let (Some(checkpoint), Some(state)) = (shared.resume, optimizer.part_mut(part)) else {
                        continue;
                    };
                    for (spec, (_, parameter)) in specs.iter().zip(params.iter()) {
                        let stored = checkpoint.optimizer_part(&ctx, part, spec)?;
                        state.write(&ctx, parameter.range().start, &stored)?;
                    }
                }
                Ok(optimizer)
            })
            .collect::<Result<Vec<_>, TrainError>>()?;
        let first = shared.resume.map_or(0, |c| c.state().step);
        let metrics = (rank == 0).then(|| MetricsFile::open(shared.folder, first)).transpose()?;
        Ok(Runner { shared, ctx, comm, modules, optimizers, metrics })
    }

    /// One step; true when somebody asked to stop.
    fn step(&mut self, step: u64) -> Result<bool, TrainError> {
        let began = Instant::now();
        let session = self.shared.session;
        let config = &session.config;
        self.ctx.memory().all_scopes().iter().for_each(|s| s.reset_peak());
        let plan = session.planner.step(step);
        let layout = &self.shared.layout;
        let program = program_on(&plan, &layout.costs, &config.pipeline, layout.chain.as_ref())?;
        let task = step_task(session, &plan, step);
        let measured = run(&self.ctx, self.comm, &program, &task, &mut self.modules)?;
        // Only rank 0 listens for the wish to stop; the sum tells everybody.
        let wish = self.comm.rank() == 0 && self.shared.stop.load(Ordering::Relaxed);
        let totals = reduce(&self.ctx, self.comm, &mut self.modules, &measured, wish)?;
        if !totals.grad_norm.is_finite() {
            return Err(TrainError::Gradient { step, norm: totals.grad_norm });
        }
        let clip = config.train.clip;
        let scale = if clip > 0.0 && totals.grad_norm > clip { clip / totals.grad_norm } else { 1.0 };
        let lr = learning_rate(&config.train, step);
        for (optimizer, (_, params, gradients)) in self.optimizers.iter_mut().zip(self.modules.parts_mut()) {
            optimizer.step(&self.ctx, params, gradients, &config.train, lr, step, scale, None)?;
        }
        let mut report = StepReport {
            step,
            loss: totals.token_loss + totals.drawing_loss,
            token_loss: totals.token_loss,
            drawing_loss: totals.drawing_loss,
            lr,
            grad_norm: totals.grad_norm,
            ..counts(&plan)
        };
        self.collect_memory(&measured, &mut report)?;
        self.collect_timeline(step, &plan, program, &measured)?;
        report.seconds = began.elapsed().as_secs_f64();
        report.tokens_per_second = report.tokens as f64 / report.seconds;
        report.images_per_second = report.images as f64 / report.seconds;
        if let Some(metrics) = &mut self.metrics {
            metrics.write(&report)?;
            self.shared.observer.step(&report);
        }
        Ok(totals.stop)
    }

    /// Peaks of all ranks, brought to every rank.
    fn collect_memory(&self, measured: &Measured, report: &mut StepReport) -> Result<(), TrainError> {
        let scopes = self.ctx.memory().all_scopes();
        let mine: BTreeMap<String, usize> = scopes.iter().map(|s| (s.name().to_owned(), s.peak())).collect();
        let saved: Vec<usize> = ModuleKind::ALL.iter().map(|&kind| measured.saved[kind]).collect();
        let text = serde_json::to_vec(&(mine, saved)).unwrap_or_default();
        for text in self.gather_bytes(&text)? {
            let (peaks, saved): (BTreeMap<String, usize>, [usize; 3]) =
                serde_json::from_slice(&text).unwrap_or_default();
            let [encoder, llm, generator] = saved;
            report.add_saved(PerModule { encoder, llm, generator });
            report.peak_bytes.push(peaks);
        }
        Ok(())
    }

    /// The bytes of every rank, in rank order.
    fn gather_bytes(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, TrainError> {
        let ctx = &self.ctx.host();
        let length = Tensor::from_slice(ctx, &[mine.len() as u32], &[1])?;
        let lengths = self.comm.all_gather(ctx, &length)?;
        let all = self.comm.all_gather(ctx, &Tensor::from_slice(ctx, mine, &[mine.len()])?)?;
        let mut rest = all.as_slice::<u8>()?;
        let mut parts = Vec::with_capacity(self.comm.size());
        for &length in lengths.as_slice::<u32>()? {
            let (part, behind) = rest.split_at(length as usize);
            parts.push(part.to_vec());
            rest = behind;
        }
        Ok(parts)
    }

    /// Draws the measured step beside its simulation, once the first steps' noise is over.
    fn collect_timeline(
        &self,
        step: u64,
        plan: &StepPlan,
        mut program: Program,
        measured: &Measured,
    ) -> Result<(), TrainError> {
        const MEASURED_STEP: u64 = 20;
        let last = self.shared.session.config.train.steps.saturating_sub(1);
        if step != MEASURED_STEP.min(last) {
            return Ok(());
        }
        let rank = self.comm.rank();
        let failed = |error| TrainError::Rank { rank, message: format!("lost the measured step: {error}") };
        let trace = measured.trace();
        let traces = self.gather_bytes(&serde_json::to_vec(&trace).map_err(failed)?)?;
        if rank == 0 {
            let read = |bytes: &Vec<u8>| serde_json::from_slice(bytes).map_err(failed);
            let traces: Vec<Trace> = traces.iter().map(read).collect::<Result<_, _>>()?;
            program.workload = self.shared.layout.costs.with_sizes(plan, program.workload)?;
            self.shared.observer.timeline(self.shared.folder, &program, &traces, step)?;
        }
        Ok(())
    }

    fn gather(&self, with_optimizer: bool) -> Result<Option<Snapshot>, TrainError> {
        let optimizers = with_optimizer.then_some(&self.optimizers[..]);
        Snapshot::gather(&self.ctx, self.comm, &self.modules, optimizers, &self.shared.session.shape)
    }

    /// Waits, however long it takes, until rank 0 has done what it does alone (files, samples). The time limit is for peers
    /// that don't come; rank 0 is at work, and if it fails, everybody is told at once.
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
        let session = self.shared.session;
        let folder = self.shared.folder.join(checkpoint::FOLDER);
        let path =
            checkpoint::save(&self.ctx.host(), &folder, &snapshot, &session.shape, &session.config, step)?;
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
