//! What learns, learns as under `torch.optim`; what does not keeps its bits and costs nothing.

use anyhow::{Context as _, Result, ensure};
use bigmac::config::{Config, Model, ParameterGroup};
use bigmac::data::DataError;
use bigmac::execute::{Program, Ran, StepTask, run};
use bigmac::model::{Placement, RankModules};
use bigmac::train::{
    Checkpoint, Gate, Groups, Observer, RunFolder, Session, Snapshot, StepReport, TrainError, Training,
    Verify, learning_rate, reduce,
};
use bigmac_comm::LocalCommunicator;
use bigmac_kernels::adamw::{self, AdamW};
use bigmac_runtime::Context;
use bigmac_schedule::render::Trace;
use bigmac_schedule::{ModuleKind, Op, Phase, Value};
use bigmac_tests::dataset::SmallSet;
use bigmac_tests::tiny::{CAPTION, LINES, SHORT_TEXT, TEXT, config, pipeline};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tempfile::TempDir;

/// Hears what a run says.
#[derive(Default)]
struct Ear {
    reports: Mutex<Vec<StepReport>>,
}

impl Observer for Ear {
    fn step(&self, report: &StepReport) {
        self.reports.lock().unwrap().push(report.clone());
    }

    fn skipped(&self, _: &[DataError]) {}

    fn saved(&self, _: &Path) {}

    fn samples(&self, _: &Path, _: &Session, _: &Snapshot, _: u64) -> Result<(), TrainError> {
        Ok(())
    }

    fn timeline(&self, _: &Path, _: &Program, _: &[Trace], _: u64) -> Result<(), TrainError> {
        Ok(())
    }
}

/// The bytes of every weight by its name.
type Weights = BTreeMap<String, Vec<u8>>;

/// A run that is over.
struct Run {
    folder: TempDir,
    snapshot: Snapshot,
    ear: Ear,
    notes: Vec<String>,
}

impl Run {
    fn new(lines: &[&str], config: &Config, from: Option<&Checkpoint>) -> Result<Run> {
        let set = SmallSet::new(lines, config)?;
        let (folder, ear) = (tempfile::tempdir()?, Ear::default());
        let training = Training::prepare(&set.session, from, Verify::Everything)?;
        let run = RunFolder::start(folder.path(), config)?;
        let outcome = training.run(&run, &AtomicBool::new(false), &ear)?;
        let notes = training.notes()?;
        Ok(Run { snapshot: outcome.snapshot.context("the run is whole")?, folder, ear, notes })
    }

    fn checkpoint(&self, step: u64) -> Result<Checkpoint> {
        let path = self.folder.path().join(format!("checkpoints/step-{step:08}"));
        Ok(Checkpoint::open(&path, Verify::Everything)?)
    }

    fn weights(&self) -> Weights {
        self.snapshot.weights.iter().map(|(name, t)| (name.clone(), t.as_bytes().unwrap().to_vec())).collect()
    }

    /// How often a parameter was updated; none where it has no state.
    fn updates(&self, parameter: &str) -> Option<u32> {
        self.snapshot.optimizer.get(&format!("step.{parameter}")).map(|t| t.as_slice().unwrap()[0])
    }

    /// Per rank, the most bytes of a memory scope.
    fn peaks(&self, scope: &str) -> Vec<usize> {
        let reports = self.ear.reports.lock().unwrap();
        let peaks = &reports.last().unwrap().peak_bytes;
        peaks.iter().map(|rank| rank.get(scope).copied().unwrap_or(0)).collect()
    }
}

/// The group of a parameter, by its name in checkpoints of all modules.
fn group(name: &str) -> ParameterGroup {
    let kind = match name {
        _ if name.starts_with("vision_model.") || name.starts_with("multi_modal_projector.") => {
            ModuleKind::Encoder
        }
        _ if name.starts_with("model.") || name.starts_with("lm_head.") => ModuleKind::Llm,
        _ => ModuleKind::Generator,
    };
    ParameterGroup::of(kind, name)
}

/// One sample a step, so that some steps have no image and some nothing to draw.
fn one_by_one(steps: u64) -> Config {
    let mut config = config();
    (config.train.batch, config.train.microbatches, config.train.steps) = (1, 1, steps);
    (config.train.warmup, config.train.lr, config.train.clip) = (1, 1e-2, 0.5);
    config.pipeline.ranks = 1;
    (config.output.checkpoint_every, config.output.sample_every) = (0, 0);
    config
}

fn freeze(model: &mut Model, frozen: [bool; 4]) {
    [model.encoder.frozen, model.projector.frozen, model.llm.frozen, model.generator.frozen] = frozen;
}

/// State and number of steps of a parameter, as `torch.optim.AdamW` keeps them.
#[derive(Default)]
struct TorchState {
    step: u64,
    exp_avg: Vec<f32>,
    exp_avg_sq: Vec<f32>,
}

/// The loop that everybody writes with `torch.optim`: parameters whose gradient is `None` are passed over, and
/// `state['step']` counts the others.
fn torch_run(config: &Config) -> Result<(Weights, BTreeMap<String, u64>)> {
    let set = SmallSet::new(&LINES, config)?;
    let (session, train) = (&set.session, &config.train);
    let ctx = Context::cpu(0, 1)?;
    let placement = Placement::whole(&session.shape)?;
    let mut modules = RankModules::random(&ctx, &session.shape, &placement, 0, config.run.seed)?;
    let comm = LocalCommunicator::world(1, Duration::from_secs(60)).pop().context("a rank")?;
    let mut states = BTreeMap::<String, TorchState>::new();
    for step in 0..train.steps {
        let plan = session.planner.step(step);
        let program = Program::build(&plan, &session.costs, &session.config.pipeline, None)?;
        let pictures = session.prefetcher.step(&plan);
        let task = StepTask::new(config, &session.shape, &plan, step).with_pictures(&pictures);
        let Ran { losses, .. } = run(&ctx, &comm, &program, &task, &mut modules)?;
        let reduced =
            reduce(&ctx, &Groups::single(&comm), &mut modules, losses, &mut Gate::new(&ctx)?, false)?;
        let norm = reduced.numbers.read(&ctx)?.grad_norm;
        let grad_scale = if norm > train.clip { train.clip / norm } else { 1.0 };
        let (images, drawings) = plan.microbatches.iter().fold((0, 0), |(images, drawings), load| {
            (images + load.images.len(), drawings + load.draws.len())
        });
        for (kind, params, gradients) in modules.parts_mut() {
            let has_grad = match kind {
                ModuleKind::Encoder => images > 0,
                ModuleKind::Llm => true,
                ModuleKind::Generator => drawings > 0,
            };
            let flat = gradients.flat().as_slice::<f32>()?;
            for parameter in params.iter_mut().filter(|p| p.trainable() && has_grad) {
                let (name, len) = (parameter.name().to_owned(), parameter.tensor().len());
                let state = states.entry(name.clone()).or_insert_with(|| TorchState {
                    step: 0,
                    exp_avg: vec![0.0; len],
                    exp_avg_sq: vec![0.0; len],
                });
                state.step += 1;
                let embedding = ["embed_tokens.weight", "position_embedding.weight"];
                let decays =
                    parameter.tensor().shape().len() > 1 && !embedding.iter().any(|e| name.ends_with(e));
                let adamw = AdamW {
                    lr: learning_rate(train, step) * train.lr_scale[ParameterGroup::of(kind, &name)],
                    betas: [train.beta1, train.beta2],
                    eps: train.epsilon,
                    weight_decay: if decays { train.weight_decay } else { 0.0 },
                    step: state.step,
                    grad_scale,
                };
                let gradient = &flat[parameter.range()];
                let (m, v) = (&mut state.exp_avg, &mut state.exp_avg_sq);
                adamw::step(&ctx, adamw, parameter.tensor_mut(), None, gradient, m, v)?;
            }
        }
    }
    let mut weights = BTreeMap::new();
    for (_, _, params, _) in modules.parts() {
        for (_, parameter) in params.iter() {
            weights.insert(parameter.name().to_owned(), parameter.tensor().as_bytes()?.to_vec());
        }
    }
    Ok((weights, states.into_iter().map(|(name, state)| (name, state.step)).collect()))
}

#[test]
fn a_run_is_that_of_torch_optim_to_the_bit() -> Result<()> {
    for frozen in [[false; 4], [true, false, false, true], [false, true, true, false]] {
        let mut config = one_by_one(12);
        freeze(&mut config.model, frozen);
        let scale = &mut config.train.lr_scale;
        (scale.encoder, scale.projector, scale.llm, scale.generator) = (0.5, 3.0, 1.0, 2.0);
        let (weights, steps) = torch_run(&config)?;
        let run = Run::new(&LINES, &config, None)?;
        ensure!(run.weights() == weights, "{frozen:?}: the weights are not those of the loop");
        let mut counts = BTreeMap::<ParameterGroup, Vec<u32>>::new();
        for name in run.snapshot.weights.keys() {
            let updates = run.updates(name);
            ensure!(updates.map(u64::from) == steps.get(name).copied(), "{frozen:?} {name}: {updates:?}");
            counts.entry(group(name)).or_default().extend(updates);
        }
        for (group, counts) in &counts {
            // Of 12 samples of 8 kinds some have no image, and some no drawing.
            let all = counts.iter().all(|count| (*count == 12) == (*group == ParameterGroup::Llm));
            ensure!(all && counts.iter().all(|count| *count > 0), "{group:?}: {counts:?}");
        }
        let learning = [ParameterGroup::Encoder, ParameterGroup::Projector].map(|g| !counts[&g].is_empty());
        ensure!(learning == [!frozen[0], !frozen[1]], "{counts:?}");
    }
    Ok(())
}

/// The same on a GPU, which is replayed: there the optimizer is queued before the host knows any number of the step.
#[test]
fn a_run_on_a_gpu_updates_as_often() -> Result<()> {
    let mut config = one_by_one(5);
    config.pipeline.timeout = 300.0;
    freeze(&mut config.model, [true, false, true, false]);
    let cpu = Run::new(&LINES, &config, None)?;
    config.pipeline.device = "replay".into();
    let gpu = Run::new(&LINES, &config, None)?;
    for (name, weight) in &cpu.snapshot.weights {
        ensure!(cpu.updates(name) == gpu.updates(name), "{name}");
        let same = gpu.snapshot.weights[name].as_bytes()? == weight.as_bytes()?;
        ensure!(same || gpu.updates(name).is_some(), "{name} is frozen and changed");
    }
    let losses = |run: &Run| run.ear.reports.lock().unwrap().iter().map(|r| r.loss).collect::<Vec<_>>();
    for (given, wanted) in losses(&gpu).into_iter().zip(losses(&cpu)) {
        ensure!((given - wanted).abs() < 1e-2 * wanted.abs(), "expected {wanted}, got {given}");
    }
    Ok(())
}

#[test]
fn a_resumed_run_counts_on() -> Result<()> {
    let mut config = one_by_one(7);
    config.output.checkpoint_every = 4;
    let whole = Run::new(&LINES, &config, None)?;
    let rest = Run::new(&LINES, &config, Some(&whole.checkpoint(4)?))?;
    ensure!(rest.notes.is_empty(), "everything has learned before");
    ensure!(rest.weights() == whole.weights());
    for (name, state) in &whole.snapshot.optimizer {
        let other = rest.snapshot.optimizer.get(name).context("as many states")?;
        ensure!(state.as_bytes()? == other.as_bytes()?, "{name} differs");
    }
    Ok(())
}

#[test]
fn what_begins_to_learn_starts_from_zero_and_what_is_frozen_now_is_passed_over() -> Result<()> {
    let mut config = one_by_one(8);
    config.output.checkpoint_every = 4;
    freeze(&mut config.model, [true, false, false, true]);
    let first = Run::new(&LINES, &config, None)?;
    ensure!(!first.snapshot.optimizer.keys().any(|name| name.contains("vision_model")), "frozen, with state");
    freeze(&mut config.model, [false, false, true, true]);
    let second = Run::new(&LINES, &config, Some(&first.checkpoint(4)?))?;
    let notes = second.notes.clone();
    // Two layers of 16, patches of 2 and positions; not the last norm, which nothing reads.
    ensure!(
        notes.len() == 1 && notes[0].starts_with("35 parameters begin to learn of the encoder:"),
        "{notes:?}"
    );
    let tower = second.updates("vision_model.embeddings.patch_embedding.weight").context("it learns")?;
    let projector = second.updates("multi_modal_projector.linear_1.weight").context("it learns")?;
    let before = first.checkpoint(4)?;
    ensure!(tower > 0 && tower < projector, "{tower} {projector}");
    ensure!(second.updates("model.norm.weight").is_none(), "the LLM is frozen now");
    let start = Run::new(
        &LINES,
        &Config { train: bigmac::config::Train { steps: 4, ..config.train }, ..config },
        Some(&before),
    )?;
    for (name, bytes) in second.weights() {
        let same = bytes == start.weights()[&name];
        match group(&name) {
            ParameterGroup::Llm | ParameterGroup::Generator => ensure!(same, "{name} is frozen and changed"),
            _ if name.contains("post_layernorm") => ensure!(same, "nothing reads {name}"),
            _ => ensure!(!same, "{name} did not change"),
        }
    }
    Ok(())
}

#[test]
fn text_alone_leaves_encoder_projector_and_generator_as_they_are() -> Result<()> {
    let lines = [LINES[TEXT], LINES[SHORT_TEXT]];
    for (schedule, ranks) in [("nested", 2), ("monolithic", 1), ("disaggregated", 2)] {
        let mut config = one_by_one(6);
        config.pipeline = pipeline(schedule, ranks);
        let trained = Run::new(&lines, &config, None)?.weights();
        config.train.steps = 0;
        let start = Run::new(&lines, &config, None)?.weights();
        for (name, bytes) in &trained {
            let same = *bytes == start[name];
            let is_llm = group(name) == ParameterGroup::Llm;
            ensure!(same != is_llm, "{schedule}: {name} {}", if same { "did not move" } else { "moved" });
        }
    }
    Ok(())
}

/// Elements of flat buffers over what learns of the groups, and of the parameters in them.
fn elements(config: &Config, groups: &[ParameterGroup]) -> Result<(usize, usize)> {
    let set = SmallSet::new(&LINES, config)?;
    let ctx = Context::cpu(0, 1)?;
    let modules = RankModules::planned(&ctx, &set.session.shape, &Placement::whole(&set.session.shape)?)?;
    let (mut flat, mut own) = (0, 0);
    for (kind, specs, params, _) in modules.parts() {
        flat += params.elements();
        for spec in specs.iter().filter(|spec| spec.trainable) {
            ensure!(groups.contains(&ParameterGroup::of(kind, &spec.name)), "{} learns", spec.name);
            own += spec.shape.iter().product::<usize>();
        }
    }
    Ok((flat, own))
}

#[test]
fn frozen_modules_have_no_gradients_and_no_optimizer_state() -> Result<()> {
    let encoder = [ParameterGroup::Encoder, ParameterGroup::Projector];
    for (frozen, groups) in
        [([false, false, true, true], &encoder[..]), ([true, false, true, true], &encoder[1..])]
    {
        let mut config = one_by_one(2);
        freeze(&mut config.model, frozen);
        for (schedule, ranks) in [("nested", 1), ("nested", 2)] {
            config.pipeline = pipeline(schedule, ranks);
            let run = Run::new(&LINES, &config, None)?;
            let (flat, own) = elements(&config, groups)?;
            ensure!(run.peaks("gradients") == vec![4 * flat; ranks], "{:?}", run.peaks("gradients"));
            ensure!(run.peaks("optimizer") == vec![8 * flat; ranks], "{:?}", run.peaks("optimizer"));
            // What a plan of the same sizes says, but for the zeros that align parameters.
            let shape = SmallSet::new(&LINES, &config)?.session.shape;
            let frame = bigmac::sizes::Frame { sequence: 0, hidden_width: shape.width(), value_bytes: 4 };
            let planned = shape.encoder.learning(frame, shape.frozen).trained as usize;
            ensure!(planned == own && flat >= own && flat < own + 64 * 64, "{planned} {own} {flat}");
            ensure!(run.snapshot.optimizer.len() % 3 == 0, "first, second, step");
        }
    }
    Ok(())
}

#[test]
fn a_projector_that_learns_alone_changes_alone() -> Result<()> {
    // An encoder that is cut into chunks where modules are on ranks of their own.
    let mut config = one_by_one(6);
    (config.model.encoder.layers, config.model.llm.layers) = (5, 2);
    freeze(&mut config.model, [true, false, true, true]);
    let start = Run::new(
        &LINES,
        &Config { train: bigmac::config::Train { steps: 0, ..config.train.clone() }, ..config.clone() },
        None,
    )?;
    let start = start.weights();
    let mut all = Vec::new();
    for recompute in [false, true] {
        config.model.encoder.recompute = recompute;
        for (schedule, ranks) in [("nested", 1), ("nested", 2), ("disaggregated", 1), ("disaggregated", 2)] {
            config.pipeline = pipeline(schedule, ranks);
            let run = Run::new(&LINES, &config, None)?;
            for (name, bytes) in run.weights() {
                let changed = bytes != start[&name];
                let projector = group(&name) == ParameterGroup::Projector;
                ensure!(changed == projector, "{schedule}: {name}, changed: {changed}");
            }
            ensure!(run.snapshot.optimizer.keys().all(|name| name.contains("multi_modal_projector")));
            all.push(
                run.snapshot.weights["multi_modal_projector.linear_2.weight"].as_slice::<f32>()?.to_vec(),
            );
        }
    }
    for other in &all {
        let apart = all[0].iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        ensure!(apart < 1e-3, "{apart}");
    }
    Ok(())
}

#[test]
fn chunks_below_a_projector_that_learns_alone_have_no_backward_and_no_messages() -> Result<()> {
    let mut config = config();
    (config.model.encoder.layers, config.model.llm.layers) = (6, 1);
    freeze(&mut config.model, [true, false, true, true]);
    let set = SmallSet::new(&LINES, &config)?;
    let plan = set.plan(&[&[CAPTION], &[CAPTION, TEXT], &[TEXT]])?;
    let images = plan.microbatches.iter().map(|load| load.images.len()).sum::<usize>();
    let mut cut = 0;
    for schedule in ["disaggregated", "monolithic-balanced"] {
        for ranks in 2..=4 {
            let program = Program::build(&plan, &set.session.costs, &pipeline(schedule, ranks), None)?;
            let chunks = program.workload.chunks_of(ModuleKind::Encoder);
            cut = cut.max(chunks);
            let mut backwards = 0;
            for (_, op) in program.table.iter() {
                match op {
                    Op::Compute { module, phase: Phase::Backward, .. }
                        if module.kind() == ModuleKind::Encoder =>
                    {
                        ensure!(module.chunk().0 + 1 == chunks, "{op:?}");
                        backwards += op.units().count();
                    }
                    Op::Send { value, .. } | Op::Recv { value, .. } => {
                        ensure!(!matches!(value, Value::EncoderHiddenGrad { .. }), "{op:?}");
                    }
                    _ => {}
                }
            }
            ensure!(backwards == images, "{schedule}: {backwards} backwards of {images} images");
        }
    }
    ensure!(cut > 1, "the encoder is never cut");
    Ok(())
}

#[test]
fn a_run_in_which_nothing_can_learn_is_refused() -> Result<()> {
    let text = [LINES[TEXT], LINES[SHORT_TEXT]];
    let caption = [LINES[CAPTION], LINES[TEXT]];
    for (frozen, lines, wanted) in [
        ([true, true, true, false], caption, "encoder, projector and llm are frozen, and no sample of"),
        ([true, true, true, false], caption, "has a picture to draw"),
        ([false, false, true, true], text, "has an image;"),
        ([true, false, true, false], text, "has an image or a picture to draw;"),
    ] {
        let mut config = one_by_one(2);
        freeze(&mut config.model, frozen);
        let set = SmallSet::new(&lines, &config)?;
        let error = Training::prepare(&set.session, None, Verify::Everything).err().context("it ran")?;
        ensure!(matches!(error, TrainError::NothingLearns { .. }), "{error}");
        let error = error.to_string();
        ensure!(error.starts_with("nothing can learn: ") && error.contains(wanted), "{error} lacks {wanted}");
    }
    let mut config = one_by_one(1);
    freeze(&mut config.model, [true, false, true, true]);
    Run::new(&caption, &config, None)?;
    Ok(())
}
