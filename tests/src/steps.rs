//! One step of a pipeline, run for real on threads, and everything that it left.

use crate::parity::close;
use anyhow::{Context as _, Result, ensure};
use bigmac::config::Pipeline;
use bigmac::data::StepPlan;
use bigmac::execute::{ExecuteError, Measured, Program, Ran, StepTask, run};
use bigmac::model::{Placement, RankModules};
use bigmac::train::{Gate, Grid, Groups, Session, Totals, TrainError, reduce};
use bigmac_autograd::Parameters;
use bigmac_close::{absolute, is_close};
use bigmac_comm::{Communicator, run_ranks};
use bigmac_models::init::{self, Init, ParameterSpec};
use bigmac_runtime::{Context, DType};
use bigmac_schedule::memory::{Change, peak_bytes, walk};
use bigmac_schedule::{ModuleKind, PerModule, registry};
use std::collections::BTreeMap;
use std::time::Duration;

/// The number of the step that is run: it keys the noise, so it is not 0.
pub const STEP: u64 = 3;

/// Gradients by module and parameter, after they were reduced over ranks.
pub type GradientMap = BTreeMap<(ModuleKind, String), Vec<f32>>;

/// Random weights among which none are zero. As a model starts, layers of zeros at its ends hide most gradients.
///
/// # Errors
/// Those of allocation.
pub fn lively_weights(
    ctx: &Context,
    specs: &[ParameterSpec],
    dtype: DType,
) -> bigmac_runtime::Result<Parameters> {
    let lively = |spec: &ParameterSpec| match spec.init {
        Init::Zeros => ParameterSpec { init: Init::Normal { std: 0.2 }, ..spec.clone() },
        _ => spec.clone(),
    };
    init::random(ctx, &specs.iter().map(lively).collect::<Vec<_>>(), dtype, 7)
}

/// What a rank left.
#[derive(Clone, Debug)]
pub struct RankResult {
    /// What the executor measured.
    pub measured: Measured,
    /// After each op, the bytes that each module's live activations were predicted to hold.
    pub held: Vec<PerModule<u64>>,
    /// The most bytes of live activations that the table's analysis predicted.
    pub peak: PerModule<u64>,
    /// Bytes still counted under each memory scope when all ranks were done.
    pub left: BTreeMap<String, usize>,
}

/// What a step left.
#[derive(Clone, Debug)]
pub struct StepResult {
    /// Losses and norm.
    pub totals: Totals,
    /// Gradients: of replicas once, of the tied embedding once.
    pub gradients: GradientMap,
    /// Per rank.
    pub ranks: Vec<RankResult>,
    /// What was run.
    pub program: Program,
}

/// Looks at a rank, or changes it, before its step runs.
pub type Prepare<'a> = dyn Fn(&Context, &mut RankModules) -> Result<(), TrainError> + Sync + 'a;

/// Plans and runs a step with [`lively_weights`]. Its gradients are checked to be the same wherever there are copies.
///
/// # Errors
/// [`bigmac_comm::RankError`] of [`TrainError`] from the ranks; differing copies.
pub fn run_step(session: &Session, plan: &StepPlan, pipeline: &Pipeline) -> Result<StepResult> {
    run_prepared(session, plan, pipeline, &|_, _| Ok(()))
}

/// As [`run_step`]; `prepare` is called on every rank in between.
///
/// # Errors
/// As [`run_step`], and those of `prepare`.
pub fn run_prepared(
    session: &Session,
    plan: &StepPlan,
    pipeline: &Pipeline,
    prepare: &Prepare<'_>,
) -> Result<StepResult> {
    run_program(session, plan, &Program::build(plan, &session.costs, pipeline, None)?, pipeline, prepare)
}

/// As [`run_prepared`] with a program that is given, on as many ranks as it is for.
///
/// # Errors
/// As [`run_prepared`].
pub fn run_program(
    session: &Session,
    plan: &StepPlan,
    program: &Program,
    pipeline: &Pipeline,
    prepare: &Prepare<'_>,
) -> Result<StepResult> {
    let grid = Grid::single(program.workload.ranks());
    run_on(session, &[(plan, program)], grid, pipeline, prepare)
}

/// As [`run_step`] on several replicas of the pipeline, as many as it says.
///
/// # Errors
/// As [`run_step`].
pub fn run_replicas(session: &Session, plan: &StepPlan, pipeline: &Pipeline) -> Result<StepResult> {
    // A chain is cut alike for all replicas.
    let workload = session.costs.workload(plan, pipeline.ranks, pipeline.chunks)?;
    let llm = registry::llm_schedule(&pipeline.llm)?;
    let chain = registry::schedule(&pipeline.schedule)?.workload(&workload, llm).chain().cloned();
    let mut shares = Vec::new();
    for replica in 0..pipeline.dp {
        let plan = plan.of_replica(replica, pipeline.dp);
        let program = Program::build(&plan, &session.costs, pipeline, chain.as_ref())?;
        shares.push((plan, program));
    }
    let shares: Vec<_> = shares.iter().map(|(plan, program)| (plan, program)).collect();
    let grid = Grid::new(pipeline.dp, shares[0].1.workload.ranks(), pipeline.order, 1);
    run_on(session, &shares, grid, pipeline, &|_, _| Ok(()))
}

/// Runs each replica's plan and program. The result's program is the first replica's.
fn run_on(
    session: &Session,
    shares: &[(&StepPlan, &Program)],
    grid: Grid,
    pipeline: &Pipeline,
    prepare: &Prepare<'_>,
) -> Result<StepResult> {
    let timeout = Duration::from_secs_f64(pipeline.timeout);
    let left = run_ranks(grid.ranks(), timeout, |comm| {
        let (plan, program) = shares[grid.replica(comm.rank())];
        run_rank(session, plan, program, pipeline.threads, &Groups::of(&comm, grid)?, prepare)
    })?;
    let totals = left.first().context("a pipeline has a rank")?.0;
    ensure!(left.iter().all(|(t, ..)| *t == totals), "ranks disagree about the step's totals");
    let mut gradients = GradientMap::new();
    let mut copies = Vec::new();
    for (spec, kind, gradient) in left.iter().flat_map(|(_, gradients, _)| gradients) {
        let key = (*kind, spec.source.clone());
        if spec.is_copy() {
            copies.push((key, gradient));
        } else if let Some(before) = gradients.insert(key, gradient.clone()) {
            ensure!(before == *gradient, "two ranks' gradients of {} differ", spec.name);
        }
    }
    for (key, gradient) in copies {
        ensure!(gradients.get(&key) == Some(gradient), "the copy's gradient of {} differs", key.1);
    }
    let ranks = left.into_iter().map(|(.., rank)| rank).collect();
    Ok(StepResult { totals, gradients, ranks, program: shares[0].1.clone() })
}

type Gradient = (ParameterSpec, ModuleKind, Vec<f32>);

fn run_rank(
    session: &Session,
    plan: &StepPlan,
    program: &Program,
    threads: usize,
    groups: &Groups<'_>,
    prepare: &Prepare<'_>,
) -> Result<(Totals, Vec<Gradient>, RankResult), TrainError> {
    let comm = groups.pipeline();
    let ctx = session.context(groups.world().rank(), threads)?;
    let (shape, dtype) = (&session.shape, session.shape.dtype);
    let placement = Placement::of(shape, &program.workload)?;
    let mut modules = RankModules::new(&ctx, shape, &placement, comm.rank(), &|ctx, _, specs| {
        lively_weights(ctx, specs, dtype)
    })?;
    prepare(&ctx, &mut modules)?;
    let pictures = session.prefetcher.step(plan);
    let task = StepTask::new(&session.config, shape, plan, STEP).with_pictures(&pictures);
    let Ran { losses, record } = run(&ctx, comm, program, &task, &mut modules)?;
    let reduced = reduce(&ctx, groups, &mut modules, losses, &mut Gate::new(&ctx)?, false)?;
    let totals = reduced.numbers.read(&ctx)?;
    let measured = record.read()?;
    groups.world().barrier()?;
    let left = ctx.memory().all_scopes().iter().map(|s| (s.name().to_owned(), s.current())).collect();
    let mut gradients = Vec::new();
    for (kind, specs, params, grads) in modules.parts() {
        for (spec, (id, _)) in specs.iter().zip(params.iter()) {
            gradients.push((spec.clone(), kind, grads.view(id)?.to_vec::<f32>(&ctx)?));
        }
    }
    let (held, peak) = predict(&ctx, &task, &modules, program, comm.rank())?;
    Ok((totals, gradients, RankResult { measured, held, peak, left }))
}

/// The bytes of live activations on a rank: after each op, and at their peaks.
///
/// # Errors
/// Those of the operators' shape inference.
pub fn predict(
    ctx: &Context,
    task: &StepTask<'_>,
    modules: &RankModules,
    program: &Program,
    rank: usize,
) -> Result<(Vec<PerModule<u64>>, PerModule<u64>), ExecuteError> {
    let (ops, workload) = (&program.table.ranks[rank], &program.workload);
    let mut changes = Vec::new();
    walk(ops, workload, |op, unit, change| changes.push((op, unit, change)));
    let saved = program.predict_saved(ctx, task, modules, rank)?;
    let mut changes = changes.into_iter().peekable();
    let mut now = PerModule::<u64>::default();
    let held = (0..ops.len()).map(|op| {
        while let Some((_, unit, change)) = changes.next_if(|(at, ..)| *at == op) {
            let held = &mut now[unit.module.kind()];
            match change {
                Change::Acquire => *held += saved[&unit],
                Change::Release => *held -= saved[&unit],
            }
        }
        now
    });
    let held = held.collect();
    let peaks = peak_bytes(&program.table, workload, |unit| saved.get(&unit).copied().unwrap_or(0));
    Ok((held, peaks[rank]))
}

/// Checks that every gradient is within `tolerance` of the wanted one, measured by the larger of its norm and a
/// thousandth of the norm of its module's whole gradient. A gradient that should be zero has to be zero.
///
/// # Errors
/// For the first parameter that is further off, or on one side only.
pub fn close_gradients(given: &GradientMap, wanted: &GradientMap, tolerance: f64) -> Result<()> {
    let mut modules = BTreeMap::<ModuleKind, f64>::new();
    for ((kind, _), gradient) in wanted {
        *modules.entry(*kind).or_default() += squares(gradient);
    }
    ensure!(given.keys().eq(wanted.keys()), "the parameters are not the same");
    for ((key, given), wanted) in given.iter().zip(wanted.values()) {
        let norm = squares(wanted).sqrt();
        let floor = 1e-3 * modules[&key.0].sqrt();
        let raised = if norm > 0.0 { tolerance * norm.max(floor) / norm } else { 0.0 };
        let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        close(&format!("{} {}", key.0, key.1), &wide(given), &wide(wanted), raised)?;
    }
    Ok(())
}

/// Checks that the token loss, the drawing loss and the gradient's norm differ from the expected ones by at most that
/// share.
///
/// # Errors
/// For the first that is further off.
pub fn close_totals(totals: &Totals, expected: [f64; 3], share: f64) -> Result<()> {
    let found = [totals.token_loss, totals.drawing_loss, totals.grad_norm];
    for (what, (found, expected)) in
        ["token loss", "drawing loss", "gradient's norm"].into_iter().zip(found.into_iter().zip(expected))
    {
        let near = is_close(found, expected, absolute(share * expected.abs()));
        ensure!(near, "{what}: expected {expected}, got {found}");
    }
    Ok(())
}

/// The norm of all gradients together.
pub fn whole_norm(gradients: &GradientMap) -> f64 {
    gradients.values().map(|g| squares(g)).sum::<f64>().sqrt()
}

fn squares(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x).powi(2)).sum()
}
