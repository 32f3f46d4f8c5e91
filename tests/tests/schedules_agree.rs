//! Every schedule computes the same step: losses and gradients are those of one process without a pipeline, and the
//! LLM's gradients are the same, bit for bit, whatever the schedule.

use anyhow::{Context as _, Result, ensure};
use bigmac::config::{Config, Dtype, ParameterGroup, PerGroup, Pipeline};
use bigmac::data::StepPlan;
use bigmac::execute::Program;
use bigmac_close::{absolute, is_close};
use bigmac_schedule::{ModuleKind, Op, PerModule, Workload, registry};
use bigmac_tests::dataset::SmallSet;
use bigmac_tests::reference::{Reference, reference};
use bigmac_tests::steps::{
    GradientMap, StepResult, close_gradients, close_totals, run_program, run_step, whole_norm,
};
use bigmac_tests::tables::{fitting, layouts, recomputed, rewritten, schedules, split};
use bigmac_tests::tiny::{
    ANSWER, CAPTION, DRAWING, EDIT, LINES, SEVERAL, SHORT_DRAWING, SHORT_TEXT, TEXT, combinations, config,
    freezing, one_or_all, pipeline, recomputing,
};
use std::collections::BTreeMap;

/// Schedules that leave the order of the LLM's backwards as it is, so that its gradients are added up alike.
const ALIKE: [&str; 5] = ["monolithic", "phased", "recompute", "bubble-fill", "nested"];
const TOLERANCE: f64 = 1e-5;

/// Eight microbatches of every kind, in an order in which no two neighbours have the same items.
const MIXED: [&[usize]; 8] = [
    &[CAPTION, DRAWING],
    &[SEVERAL, TEXT],
    &[EDIT],
    &[TEXT, SHORT_TEXT],
    &[DRAWING, SHORT_DRAWING, EDIT],
    &[ANSWER],
    &[SHORT_DRAWING],
    &[SEVERAL, EDIT, CAPTION],
];

/// Parts of the models that no loss depends on: LLaVA reads the states before the encoder's last norm, and nothing
/// reads what the generator's last block makes of its text.
const UNREAD: [&str; 5] = [
    "vision_model.post_layernorm",
    "transformer_blocks.1.attn.add_q_proj",
    "transformer_blocks.1.attn.norm_added_q",
    "transformer_blocks.1.attn.to_add_out",
    "transformer_blocks.1.txt_mlp",
];

fn check_step(step: &StepResult, wanted: &Reference) -> Result<()> {
    let expected = [wanted.token_loss, wanted.drawing_loss, whole_norm(&wanted.gradients)];
    close_totals(&step.totals, expected, TOLERANCE)?;
    close_gradients(&step.gradients, &wanted.gradients, TOLERANCE)
}

fn of_llm(gradients: &GradientMap) -> GradientMap {
    gradients
        .iter()
        .filter(|((kind, _), _)| *kind == ModuleKind::Llm)
        .map(|(k, g)| (k.clone(), g.clone()))
        .collect()
}

/// Runs a step through every schedule on 1 to 4 ranks, and holds it against the reference.
fn check(
    config: &Config,
    microbatches: &[&[usize]],
    change: impl Fn(Pipeline) -> Pipeline,
) -> Result<Reference> {
    let set = SmallSet::new(&LINES, config)?;
    let plan = set.plan(microbatches)?;
    let wanted = reference(&set.session, &plan)?;
    for ranks in 1..=4 {
        let pipelines = schedules().map(|schedule| change(pipeline(schedule, ranks)));
        agree(&set, &plan, &wanted, pipelines)?;
    }
    Ok(wanted)
}

/// Runs a step as each of the pipelines says, those that fit, and returns how many there were.
fn agree(
    set: &SmallSet,
    plan: &StepPlan,
    wanted: &Reference,
    pipelines: impl Iterator<Item = Pipeline>,
) -> Result<usize> {
    let mut count = 0;
    // By order and chunks, since another order adds gradients up in another order.
    let mut first = BTreeMap::<(String, usize), GradientMap>::new();
    for pipeline in pipelines {
        let what = || {
            let Pipeline { schedule, llm, chunks, ranks, .. } = &pipeline;
            format!("{schedule} over {llm} with {chunks} chunks on each of {ranks} ranks")
        };
        let Some(program) = fitting(&set.session, plan, &pipeline).with_context(what)? else { continue };
        count += 1;
        let step = run_program(&set.session, plan, &program, &pipeline, &|_, _| Ok(())).with_context(what)?;
        check_step(&step, wanted).with_context(what)?;
        if ALIKE.contains(&pipeline.schedule.as_str()) {
            let llm = of_llm(&step.gradients);
            let first = first.entry((pipeline.llm.clone(), pipeline.chunks)).or_insert_with(|| llm.clone());
            ensure!(*first == llm, "{}: the LLM's gradients are not those of other schedules", what());
        }
    }
    Ok(count)
}

fn norm_of(gradients: &GradientMap, kind: ModuleKind) -> f64 {
    whole_norm(
        &gradients.iter().filter(|((k, _), _)| *k == kind).map(|(k, g)| (k.clone(), g.clone())).collect(),
    )
}

/// Which modules have gradients at all: a reference without any would agree with everything.
fn learns(reference: &Reference) -> [bool; 3] {
    ModuleKind::ALL.map(|kind| norm_of(&reference.gradients, kind) > 1e-3)
}

#[test]
fn microbatches_of_every_kind() -> Result<()> {
    let reference = check(&config(), &MIXED, |p| p)?;
    assert_eq!(learns(&reference), [true; 3]);
    // Every parameter that is read takes part, so that none can be wrong unnoticed.
    for ((kind, name), gradient) in &reference.gradients {
        let unread = UNREAD.iter().any(|part| name.contains(part));
        assert_eq!(gradient.iter().all(|g| *g == 0.0), unread, "{kind} {name}");
    }
    Ok(())
}

/// Enough layers for two chunks on each of two ranks.
fn deeper() -> Config {
    let mut config = config();
    config.model.llm.layers = 5;
    config
}

#[test]
fn every_order_of_chunks_under_every_schedule() -> Result<()> {
    let set = SmallSet::new(&LINES, &deeper())?;
    let plan = set.plan(&MIXED)?;
    let wanted = reference(&set.session, &plan)?;
    for ranks in 1..=4 {
        let count = agree(&set, &plan, &wanted, layouts(&pipeline("nested", ranks)))?;
        let orders = registry::LLM_SCHEDULES.len();
        assert!(count > orders * schedules().count(), "only {count} layouts fit on {ranks} ranks");
    }
    Ok(())
}

#[test]
fn chains_cut_every_module() -> Result<()> {
    let set = SmallSet::new(&LINES, &deeper())?;
    let plan = set.plan(&MIXED)?;
    let wanted = reference(&set.session, &plan)?;
    // An LLM so light that encoder and generator are what is cut.
    let mut light = deeper();
    (light.model.encoder.layers, light.model.llm.layers, light.model.generator.layers) = (5, 1, 6);
    let lighter = SmallSet::new(&LINES, &light)?;
    let other = lighter.plan(&MIXED)?;
    let others = reference(&lighter.session, &other)?;
    let mut cut = [false; 3];
    for ranks in 2..=4 {
        for schedule in ["monolithic-balanced", "disaggregated"] {
            for (set, plan, wanted) in [(&set, &plan, &wanted), (&lighter, &other, &others)] {
                for llm in ["1f1b", "gpipe", "zb-h1"] {
                    let pipeline = Pipeline { llm: llm.into(), ..pipeline(schedule, ranks) };
                    agree(set, plan, wanted, [pipeline.clone()].into_iter())?;
                    let workload = Program::build(plan, &set.session.costs, &pipeline, None)?.workload;
                    cut[0] |= workload.chunks_of(ModuleKind::Encoder) > 1;
                    cut[1] |= workload.chunks() < workload.ranks() && schedule == "monolithic-balanced";
                    cut[2] |= workload.chunks_of(ModuleKind::Generator) > 1;
                }
            }
        }
    }
    assert_eq!(cut, [true; 3], "encoder in chunks, ranks without the LLM, generator in chunks");
    Ok(())
}

#[test]
fn units_that_are_computed_again_or_go_backward_in_two_parts() -> Result<()> {
    let set = SmallSet::new(&LINES, &deeper())?;
    let plan = set.plan(&MIXED)?;
    let wanted = reference(&set.session, &plan)?;
    let split = |w: &Workload, ops: Vec<Op>| split(w, ops, &ModuleKind::ALL, 3);
    let both = |w: &Workload, ops: Vec<Op>| recomputed(w, split(w, ops));
    for schedule in ["monolithic", "phased", "nested"] {
        for (llm, chunks, ranks) in [("1f1b", 1, 1), ("1f1b", 1, 3), ("interleaved", 2, 2)] {
            let pipeline = Pipeline { llm: llm.into(), chunks, ..pipeline(schedule, ranks) };
            for rewrite in [&recomputed as &dyn Fn(&Workload, Vec<Op>) -> Vec<Op>, &split, &both] {
                let program = rewritten(&set.session, &plan, &pipeline, rewrite)?;
                let step = run_program(&set.session, &plan, &program, &pipeline, &|_, _| Ok(()))?;
                check_step(&step, &wanted).with_context(|| format!("{schedule}, {llm}, {ranks} ranks"))?;
            }
        }
    }
    Ok(())
}

/// Runs the same tables with the layers of these modules computed again, and without: not one bit may differ, but for
/// the order of sums under a split backward.
fn again_change_no_bit(
    dtype: Dtype,
    modules: impl Iterator<Item = PerModule<bool>>,
    pipelines: impl Iterator<Item = Pipeline>,
) -> Result<()> {
    let mut config = deeper();
    config.model.dtype = dtype;
    let plain = SmallSet::new(&LINES, &config)?;
    let plan = plain.plan(&MIXED)?;
    let again = modules.map(|modules| SmallSet::new(&LINES, &recomputing(config.clone(), modules)));
    let again = again.collect::<Result<Vec<_>>>()?;
    for pipeline in pipelines {
        // Costs are others, and with them tables: both run the one without.
        let Some(program) = fitting(&plain.session, &plan, &pipeline)? else { continue };
        let run = |set: &SmallSet| run_program(&set.session, &plan, &program, &pipeline, &|_, _| Ok(()));
        let wanted = run(&plain)?;
        for set in &again {
            let (given, Pipeline { schedule, llm, chunks, .. }) = (run(set)?, &pipeline);
            let modules = set.session.shape.recompute;
            if program.is_split() {
                // Weight gradients of layers that are computed again are not put off, so they are added in another order.
                close_gradients(&given.gradients, &wanted.gradients, TOLERANCE)?;
                continue;
            }
            let same = given.totals == wanted.totals && given.gradients == wanted.gradients;
            ensure!(same, "{dtype:?}, {schedule} over {llm}, {chunks} chunks, {modules:?}");
        }
    }
    Ok(())
}

#[test]
fn layers_that_are_computed_again_change_no_bit_under_any_schedule() -> Result<()> {
    let chains = ["monolithic-balanced", "disaggregated"].map(|schedule| pipeline(schedule, 3));
    let all = std::iter::once(PerModule::all(true));
    again_change_no_bit(Dtype::F32, all, layouts(&pipeline("nested", 2)).chain(chains))
}

#[test]
fn layers_of_one_module_that_are_computed_again_change_no_bit() -> Result<()> {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let pipelines = ["monolithic-balanced", "disaggregated", "recompute", "nested"];
        again_change_no_bit(dtype, one_or_all(), pipelines.into_iter().map(|name| pipeline(name, 2)))?;
    }
    Ok(())
}

#[test]
fn frozen_modules_are_computed_again_too() -> Result<()> {
    for frozen in combinations() {
        let config = freezing(recomputing(config(), PerModule::all(true)), frozen);
        check(&config, &MIXED[..6], |p| p).with_context(|| format!("frozen: {}", frozen.listed()))?;
    }
    Ok(())
}

#[test]
fn fewer_microbatches_than_ranks() -> Result<()> {
    check(&config(), &MIXED[..1], |p| p)?;
    check(&config(), &MIXED[1..4], |p| p)?;
    Ok(())
}

#[test]
fn a_number_of_microbatches_that_ranks_do_not_divide() -> Result<()> {
    check(&config(), &MIXED[1..], |p| p)?;
    check(&config(), &MIXED[..5], |p| p)?;
    Ok(())
}

#[test]
fn microbatches_without_images_or_without_drawings() -> Result<()> {
    let no_images: [&[usize]; 4] = [&[DRAWING], &[TEXT], &[SHORT_DRAWING, DRAWING], &[SHORT_TEXT]];
    let no_drawings: [&[usize]; 4] = [&[SEVERAL], &[CAPTION, ANSWER], &[TEXT], &[ANSWER]];
    assert_eq!(learns(&check(&config(), &no_images, |p| p)?), [false, true, true]);
    assert_eq!(learns(&check(&config(), &no_drawings, |p| p)?), [true, true, false]);
    Ok(())
}

#[test]
fn text_only() -> Result<()> {
    let text: [&[usize]; 5] = [&[TEXT], &[SHORT_TEXT], &[TEXT, SHORT_TEXT], &[TEXT], &[SHORT_TEXT]];
    assert_eq!(learns(&check(&config(), &text, |p| p)?), [false, true, false]);
    Ok(())
}

#[test]
fn frozen_modules() -> Result<()> {
    for frozen in combinations() {
        let reference = check(&freezing(config(), frozen), &MIXED[..6], |p| p)
            .with_context(|| format!("frozen: {}", frozen.listed()))?;
        let wanted = frozen.learns();
        assert_eq!(learns(&reference), ModuleKind::ALL.map(|kind| wanted[kind]));
        for ((kind, name), gradient) in &reference.gradients {
            let group = ParameterGroup::of(*kind, name);
            assert!(!frozen[group] || gradient.is_empty(), "{name} is frozen and has a gradient");
        }
    }
    Ok(())
}

/// An encoder that is cut, frozen below its projector.
#[test]
fn chains_whose_projector_learns_alone() -> Result<()> {
    let alone = PerGroup { encoder: true, projector: false, llm: true, generator: true };
    let mut cut = 0;
    for frozen in [alone, PerGroup { llm: false, ..alone }, PerGroup { generator: false, ..alone }] {
        let mut config = freezing(config(), frozen);
        (config.model.encoder.layers, config.model.llm.layers) = (6, 1);
        for config in [config.clone(), recomputing(config, PerModule::all(true))] {
            let set = SmallSet::new(&LINES, &config)?;
            let plan = set.plan(&MIXED)?;
            let wanted = reference(&set.session, &plan)?;
            for ranks in 1..=4 {
                for schedule in ["monolithic-balanced", "disaggregated"] {
                    for llm in ["1f1b", "gpipe", "zb-h1"] {
                        let pipeline = Pipeline { llm: llm.into(), ..pipeline(schedule, ranks) };
                        agree(&set, &plan, &wanted, [pipeline.clone()].into_iter())
                            .with_context(|| format!("frozen: {}", frozen.listed()))?;
                        let workload = Program::build(&plan, &set.session.costs, &pipeline, None)?.workload;
                        cut = cut.max(workload.chunks_of(ModuleKind::Encoder));
                    }
                }
            }
        }
    }
    assert!(cut > 1, "the encoder is never cut");
    Ok(())
}

#[test]
fn groups_of_microbatches_share_slots() -> Result<()> {
    for group in [2, 3] {
        check(&config(), &MIXED, |p| Pipeline { group, ..p })?;
        check(&config(), &MIXED[..5], |p| Pipeline { group, ..p })?;
    }
    Ok(())
}

#[test]
fn an_output_matrix_of_its_own() -> Result<()> {
    let mut config = config();
    config.model.llm.tied = false;
    let reference = check(&config, &MIXED, |p| p)?;
    let names: Vec<&str> = reference.gradients.keys().map(|(_, name)| name.as_str()).collect();
    assert!(names.contains(&"lm_head.weight"));
    Ok(())
}

#[test]
fn threads_change_no_bit() -> Result<()> {
    let set = SmallSet::new(&LINES, &config())?;
    let plan = set.plan(&MIXED)?;
    for schedule in ALIKE {
        let [one, two] = [1, 2]
            .map(|threads| run_step(&set.session, &plan, &Pipeline { threads, ..pipeline(schedule, 2) }));
        let (one, two) = (one?, two?);
        assert!(one.gradients == two.gradients, "{schedule}: gradients depend on the number of threads");
        assert_eq!(one.totals, two.totals, "{schedule}");
    }
    Ok(())
}

#[test]
fn half_precision_rounds_alike_under_every_schedule() -> Result<()> {
    let full = SmallSet::new(&LINES, &config())?;
    let wanted = reference(&full.session, &full.plan(&MIXED)?)?;
    let mut config = config();
    config.model.dtype = Dtype::Bf16;
    let set = SmallSet::new(&LINES, &config)?;
    let plan = set.plan(&MIXED)?;
    for ranks in 1..=3 {
        let mut first: Option<StepResult> = None;
        for schedule in ALIKE {
            let step = run_step(&set.session, &plan, &pipeline(schedule, ranks))?;
            // A bfloat16 holds 8 bits: the losses of a few layers are within one of the last of them.
            for (given, wanted) in
                [(step.totals.token_loss, wanted.token_loss), (step.totals.drawing_loss, wanted.drawing_loss)]
            {
                assert!(
                    is_close(given, wanted, absolute(wanted.abs() / 128.0)) && given != wanted,
                    "{schedule} on {ranks} ranks: expected {wanted} or nearly so, got {given}"
                );
            }
            let first = first.get_or_insert_with(|| step.clone());
            assert!(of_llm(&first.gradients) == of_llm(&step.gradients), "{schedule} on {ranks} ranks");
        }
    }
    Ok(())
}
