//! Activation memory: what is measured is what was predicted, to the byte, after every op; and it is flat under
//! `nested`.

use anyhow::{Context as _, Result, ensure};
use bigmac::config::{Config, Dtype, PerGroup, Pipeline};
use bigmac::data::StepPlan;
use bigmac::execute::{ExecuteError, Program, StepTask, activation_scope, with_sizes};
use bigmac::model::{Placement, RankModules};
use bigmac::train::Session;
use bigmac_close::{absolute, assert_close, is_close};
use bigmac_runtime::Context;
use bigmac_runtime::memory::scopes;
use bigmac_schedule::memory::peak_bytes;
use bigmac_schedule::{ModuleKind, Op, PerModule, Phase, Piece, Unit, Workload};
use bigmac_tests::dataset::SmallSet;
use bigmac_tests::steps::{STEP, StepResult, run_program};
use bigmac_tests::tables::{fitting, layouts, recomputed, rewritten, schedules, split};
use bigmac_tests::tiny::{
    ANSWER, CAPTION, DRAWING, EDIT, LINES, SEVERAL, SHORT_DRAWING, SHORT_TEXT, TEXT, combinations, config,
    freezing, one_or_all, pipeline, recomputing,
};
use std::collections::{BTreeMap, BTreeSet};

const MIXED: [&[usize]; 7] = [
    &[CAPTION, DRAWING],
    &[SEVERAL, TEXT],
    &[EDIT],
    &[TEXT, SHORT_TEXT],
    &[DRAWING, SHORT_DRAWING, EDIT],
    &[ANSWER],
    &[TEXT, ANSWER],
];

/// Runs a step, and checks that every rank held after every op what was predicted, and nothing in the end. Of a unit
/// between its input gradient and its weight gradients, it may be less.
fn exact(session: &Session, plan: &StepPlan, pipeline: &Pipeline) -> Result<StepResult> {
    held_exactly(session, plan, pipeline, &Program::build(plan, &session.costs, pipeline, None)?)
}

fn held_exactly(
    session: &Session,
    plan: &StepPlan,
    pipeline: &Pipeline,
    program: &Program,
) -> Result<StepResult> {
    let step = run_program(session, plan, program, pipeline, &|_, _| Ok(()))?;
    for (rank, result) in step.ranks.iter().enumerate() {
        let ops = &step.program.table.ranks[rank];
        let mut halfway = BTreeSet::new();
        let mut ever = BTreeSet::new();
        ensure!(result.held.len() == ops.len() && result.measured.held.len() == ops.len());
        for (op, (predicted, measured)) in ops.iter().zip(result.held.iter().zip(&result.measured.held)) {
            for unit in op.units() {
                match op {
                    Op::Compute { module, phase: Phase::BackwardInput, .. }
                        if program.workload.has_weight_gradient(module.kind()) =>
                    {
                        halfway.insert(unit)
                    }
                    _ => halfway.remove(&unit),
                };
            }
            for kind in ModuleKind::ALL {
                let (predicted, measured) = (predicted[kind], measured[kind] as u64);
                let less = halfway.iter().any(|unit: &Unit| unit.module.kind() == kind);
                ever.extend(less.then_some(kind));
                ensure!(
                    predicted == measured || less && predicted > measured,
                    "{} on rank {rank}: the {kind} holds {} bytes after {op:?}, predicted {}",
                    pipeline.schedule,
                    measured,
                    predicted
                );
            }
        }
        for kind in ModuleKind::ALL {
            let (predicted, measured) = (result.peak[kind], result.measured.saved[kind] as u64);
            ensure!(
                predicted == measured || ever.contains(&kind) && predicted > measured,
                "rank {rank}: the {kind}'s peak is {measured}, predicted {predicted}"
            );
            ensure!(result.left[activation_scope(kind)] == 0, "rank {rank}: {kind} activations are left");
        }
        let messages = result.left.get(scopes::MESSAGES).copied().unwrap_or(0);
        ensure!(messages == 0, "rank {rank}: {messages} bytes of messages are left");
    }
    Ok(step)
}

fn everywhere(config: &Config, microbatches: &[&[usize]]) -> Result<()> {
    let set = SmallSet::new(&LINES, config)?;
    let plan = set.plan(microbatches)?;
    for ranks in 1..=4 {
        for schedule in schedules() {
            let pipeline = pipeline(schedule, ranks);
            if let Some(program) = fitting(&set.session, &plan, &pipeline)? {
                held_exactly(&set.session, &plan, &pipeline, &program)?;
            }
        }
    }
    Ok(())
}

#[test]
fn also_under_every_order_of_chunks() -> Result<()> {
    let mut config = config();
    config.model.llm.layers = 5;
    under_every_order(&config)?;
    under_every_order(&recomputing(config, PerModule::all(true)))
}

fn under_every_order(config: &Config) -> Result<()> {
    let set = SmallSet::new(&LINES, config)?;
    let plan = set.plan(&MIXED)?;
    for ranks in [1, 2, 3] {
        for pipeline in layouts(&pipeline("nested", ranks)) {
            if let Some(program) = fitting(&set.session, &plan, &pipeline)? {
                held_exactly(&set.session, &plan, &pipeline, &program)
                    .with_context(|| format!("{} over {}", pipeline.schedule, pipeline.llm))?;
            }
        }
    }
    Ok(())
}

#[test]
fn sizes_without_a_run_are_those_of_the_run() -> Result<()> {
    sizes_are_those_of_the_run(&config())?;
    sizes_are_those_of_the_run(&recomputing(config(), PerModule::all(true)))
}

fn sizes_are_those_of_the_run(config: &Config) -> Result<()> {
    let set = SmallSet::new(&LINES, config)?;
    let plan = set.plan(&MIXED)?;
    for (llm, ranks, chunks) in [("1f1b", 1, 1), ("1f1b", 3, 1), ("interleaved", 2, 2)] {
        let pipeline = Pipeline { llm: llm.into(), chunks, ..pipeline("phased", ranks) };
        let step = exact(&set.session, &plan, &pipeline)?;
        let sized = with_sizes(&set.session.shape, &plan, step.program.workload.clone())?;
        let table = &step.program.table;
        let peaks = peak_bytes(table, &sized, |unit| sized.saved(unit).unwrap_or(u64::MAX));
        for (predicted, rank) in peaks.iter().zip(&step.ranks) {
            for kind in ModuleKind::ALL {
                assert_eq!(predicted[kind], rank.measured.saved[kind] as u64, "{llm} {ranks} {kind}");
            }
        }
        let task = StepTask::new(&set.session.config, &set.session.shape, &plan, STEP);
        for value in table.iter().flat_map(|(_, op)| op.produces(&sized)) {
            let spec = task.value_spec(value)?;
            assert_eq!(sized.value_bytes(value), Some(spec.bytes() as u64), "{value}");
        }
    }
    Ok(())
}

#[test]
fn sizes_of_a_chain_add_up_to_those_of_the_run() -> Result<()> {
    let set = SmallSet::new(&LINES, &config())?;
    let plan = set.plan(&MIXED)?;
    let step = exact(&set.session, &plan, &pipeline("monolithic-balanced", 3))?;
    let workload = step.program.workload;
    let sized = with_sizes(&set.session.shape, &plan, workload.clone())?;
    let ctx = Context::cpu(0, 1)?;
    let placement = Placement::of(&set.session.shape, &workload)?;
    let modules = RankModules::planned(&ctx, &set.session.shape, &placement)?;
    let task = StepTask::new(&set.session.config, &set.session.shape, &plan, STEP);
    let mut sums = BTreeMap::<(ModuleKind, Piece), [i64; 2]>::new();
    for unit in workload.units() {
        let saved = task.saved_bytes(&ctx, &modules, &workload, unit)?;
        let sum = sums.entry((unit.module.kind(), unit.piece)).or_default();
        let given = sized.saved(unit).context("every unit has a size")?;
        *sum = [sum[0] + given as i64, sum[1] + saved as i64];
    }
    for (what, [given, saved]) in sums {
        // Each chunk's share is rounded to a byte.
        assert!((given - saved).abs() <= 2, "{what:?}: {given}, saved {saved}");
    }
    Ok(())
}

#[test]
fn a_budget_in_bytes_is_kept_to_the_byte() -> Result<()> {
    let set = SmallSet::new(&LINES, &config())?;
    let plan = set.plan(&MIXED)?;
    let within = |budget: String| {
        let pipeline = Pipeline { budget, ..pipeline("phased", 2) };
        Program::build(&plan, &set.session.costs, &pipeline, None)
    };
    let step = exact(&set.session, &plan, &pipeline("phased", 2))?;
    let most = peak(&step);
    within(format!("encoder={}B,llm={}B,generator={}B", most.encoder, most.llm, most.generator))?;
    for kind in ModuleKind::ALL {
        let error = within(format!("{kind}={}B", most[kind] - 1)).map(drop).unwrap_err();
        assert!(
            matches!(&error, ExecuteError::Table(_)) && error.to_string().contains(kind.name()),
            "{error}"
        );
    }
    Ok(())
}

#[test]
fn at_most_of_backwards_in_two_parts() -> Result<()> {
    let mut half = config();
    half.model.dtype = Dtype::Bf16;
    let mut plain = config();
    (plain.model.llm.qk_norm, plain.model.llm.tied, plain.model.llm.kv_heads) = (false, false, 4);
    let (mut wide, mut narrow) = (config(), config());
    (wide.model.llm.mlp, narrow.model.llm.mlp) = (160, 8);
    let again = recomputing(config(), PerModule::all(true));
    for config in [config(), half, plain, wide, narrow, again] {
        let set = SmallSet::new(&LINES, &config)?;
        let plan = set.plan(&MIXED)?;
        for ranks in [1, 3] {
            let pipeline = pipeline("nested", ranks);
            let llm = |w: &Workload, ops| split(w, ops, &[ModuleKind::Llm], 3);
            let program = rewritten(&set.session, &plan, &pipeline, llm)?;
            held_exactly(&set.session, &plan, &pipeline, &program)
                .with_context(|| format!("{:?}", config.model.llm))?;
        }
    }
    Ok(())
}

#[test]
fn also_of_units_that_are_computed_again() -> Result<()> {
    let set = SmallSet::new(&LINES, &config())?;
    let plan = set.plan(&MIXED)?;
    for schedule in ["monolithic", "phased", "nested"] {
        for ranks in [1, 3] {
            let pipeline = pipeline(schedule, ranks);
            let program = rewritten(&set.session, &plan, &pipeline, recomputed)?;
            held_exactly(&set.session, &plan, &pipeline, &program)?;
        }
    }
    Ok(())
}

#[test]
fn every_unit_saves_what_was_predicted() -> Result<()> {
    everywhere(&config(), &MIXED)
}

#[test]
fn also_with_layers_that_are_computed_again() -> Result<()> {
    one_or_all().try_for_each(|modules| everywhere(&recomputing(config(), modules), &MIXED))
}

/// Of a layer that is computed again, its inputs are held and nothing else.
#[test]
fn layers_that_are_computed_again_hold_less() -> Result<()> {
    let set = SmallSet::new(&LINES, &config())?;
    let plan = set.plan(&MIXED)?;
    let all = peak(&exact(&set.session, &plan, &pipeline("phased", 2))?);
    for modules in one_or_all() {
        let set = SmallSet::new(&LINES, &recomputing(config(), modules))?;
        let less = peak(&exact(&set.session, &plan, &pipeline("phased", 2))?);
        for kind in ModuleKind::ALL {
            let fits = if modules[kind] { less[kind] < all[kind] } else { less[kind] == all[kind] };
            assert!(fits, "{modules:?}: the {kind} holds {} bytes instead of {}", less[kind], all[kind]);
        }
    }
    Ok(())
}

#[test]
fn also_in_half_precision() -> Result<()> {
    let mut config = config();
    config.model.dtype = Dtype::Bf16;
    everywhere(&config, &MIXED)
}

#[test]
fn also_with_frozen_modules() -> Result<()> {
    for frozen in combinations() {
        everywhere(&freezing(config(), frozen), &MIXED)?;
        if frozen.projector_alone() {
            // Nothing of layers below is taped, whether they would be computed again or not.
            everywhere(&recomputing(freezing(config(), frozen), PerModule::all(true)), &MIXED)?;
        }
    }
    Ok(())
}

/// A projector that learns alone keeps its input, and what comes before and after its activation.
#[test]
fn a_projector_alone_saves_three_tensors() -> Result<()> {
    let frozen = PerGroup { encoder: true, projector: false, llm: true, generator: true };
    let config = freezing(config(), frozen);
    let set = SmallSet::new(&LINES, &config)?;
    let plan = set.plan(&[&[CAPTION]])?;
    let step = exact(&set.session, &plan, &pipeline("phased", 1))?;
    let (patches, width, out) = (4, config.model.encoder.width, config.model.llm.width);
    let image = 4 * patches * (width + 2 * out);
    assert_eq!(peak(&step).encoder, plan.microbatches[0].images.len() * image);
    let sized = with_sizes(&set.session.shape, &plan, step.program.workload.clone())?;
    let unit = sized.units().find(|unit| unit.module.kind() == ModuleKind::Encoder).context("an image")?;
    assert_eq!(sized.saved(unit), Some(image as u64));
    Ok(())
}

#[test]
fn also_with_other_layers() -> Result<()> {
    let mut config = config();
    config.model.llm.tied = false;
    config.model.llm.qk_norm = false;
    config.model.llm.kv_heads = 4;
    everywhere(&config, &MIXED)
}

/// The largest peak of any rank.
fn peak(step: &StepResult) -> PerModule<usize> {
    let mut peak = PerModule::default();
    for kind in ModuleKind::ALL {
        peak[kind] = step.ranks.iter().map(|r| r.measured.saved[kind]).max().unwrap_or(0);
    }
    peak
}

/// Peaks for 4 and for 16 equal microbatches per rank, on two ranks.
fn small_and_large(schedule: &str, microbatch: &[usize]) -> Result<[PerModule<usize>; 2]> {
    let set = SmallSet::new(&LINES, &config())?;
    let ranks = 2;
    let run = |count: usize| -> Result<PerModule<usize>> {
        let plan = set.plan(&vec![microbatch; count])?;
        Ok(peak(&exact(&set.session, &plan, &pipeline(schedule, ranks))?))
    };
    Ok([run(4 * ranks)?, run(16 * ranks)?])
}

fn growth([small, large]: [PerModule<usize>; 2], kind: ModuleKind) -> f64 {
    large[kind] as f64 / small[kind] as f64
}

#[test]
fn nested_is_flat_in_the_batch() -> Result<()> {
    let peaks = small_and_large("nested", &[CAPTION, CAPTION, DRAWING, DRAWING])?;
    for kind in ModuleKind::ALL {
        let growth = growth(peaks, kind);
        assert!(is_close(growth, 1.0, absolute(0.05)), "the {kind} grew {growth}-fold");
    }
    Ok(())
}

#[test]
fn phased_grows_with_the_batch() -> Result<()> {
    let peaks = small_and_large("phased", &[CAPTION, CAPTION, DRAWING, DRAWING])?;
    for (kind, wanted) in [(ModuleKind::Encoder, 4.0), (ModuleKind::Llm, 4.0), (ModuleKind::Generator, 1.0)] {
        let growth = growth(peaks, kind);
        let near = is_close(growth / wanted, 1.0, absolute(0.05));
        assert!(near, "the {kind} grew {growth}-fold, expected {wanted}");
    }
    // Without drawings the LLM runs as under any other schedule.
    let peaks = small_and_large("phased", &[CAPTION, CAPTION])?;
    assert_close(growth(peaks, ModuleKind::Encoder) / 4.0, 1.0, absolute(0.05));
    assert_close(growth(peaks, ModuleKind::Llm), 1.0, absolute(0.05));
    Ok(())
}

#[test]
fn nested_holds_less_of_the_encoder_than_any_other() -> Result<()> {
    let held = |schedule| small_and_large(schedule, &[CAPTION, CAPTION]).map(|[_, large]| large.encoder);
    let [monolithic, phased, nested] = ["monolithic", "phased", "nested"].map(held);
    let nested = nested?;
    assert!(nested < monolithic? && nested * 4 < phased?);
    Ok(())
}
