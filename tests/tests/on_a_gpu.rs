//! A training step of the whole model on a GPU against the one-process result on the CPU: losses and every gradient, on
//! one rank and on several that share the device. The GPU is replayed, unless `BIGMAC_CHECK_DEVICE` names a real one.

use anyhow::{Result, ensure};
use bigmac::config::{Config, Dtype, PerGroup};
use bigmac_kernels::check::{CHECK_DEVICE, gpus};
use bigmac_schedule::ModuleKind;
use bigmac_tests::dataset::SmallSet;
use bigmac_tests::reference::reference;
use bigmac_tests::steps::{StepResult, close_gradients, close_totals, run_step, whole_norm};
use bigmac_tests::tiny::{
    CAPTION, DRAWING, EDIT, LINES, SEVERAL, SHORT_TEXT, TEXT, config, freezing, pipeline,
};

/// Pictures to read, to draw, both and neither.
const MIXED: [&[usize]; 3] = [&[CAPTION, DRAWING], &[SEVERAL, TEXT, SHORT_TEXT], &[EDIT]];

/// The configuration on the device; `None` where there is none, which has been said.
fn on_device(dtype: Dtype) -> Result<Option<Config>> {
    if gpus()?.is_empty() {
        return Ok(None);
    }
    let mut config = config();
    config.model.dtype = dtype;
    config.pipeline.device = std::env::var(CHECK_DEVICE).unwrap_or_else(|_| "replay".into());
    Ok(Some(config))
}

/// Nothing is left in any scope but what lives as long as the model or longer, and what forwards saved is what was
/// predicted.
fn check_memory(step: &StepResult) -> Result<()> {
    for rank in &step.ranks {
        for (scope, bytes) in &rank.left {
            let stays = ["parameters", "gradients", "tables"].contains(&scope.as_str());
            ensure!(stays || *bytes == 0, "{bytes} bytes are left in {scope}");
        }
        for (measured, predicted) in rank.measured.held.iter().zip(&rank.held) {
            for kind in ModuleKind::ALL {
                // Between its input gradient and its weight gradients a unit may hold less.
                let (measured, predicted) = (measured[kind] as u64, predicted[kind]);
                let fits = measured == predicted || step.program.is_split() && measured < predicted;
                ensure!(fits, "{kind} holds {measured} bytes, {predicted} were predicted");
            }
        }
    }
    Ok(())
}

#[test]
fn a_step_in_fp32_is_that_of_the_cpu_on_any_number_of_ranks() -> Result<()> {
    let Some(device) = on_device(Dtype::F32)? else { return Ok(()) };
    let cpu = SmallSet::new(&LINES, &config())?;
    let wanted = reference(&cpu.session, &cpu.plan(&MIXED)?)?;
    let set = SmallSet::new(&LINES, &device)?;
    let plan = set.plan(&MIXED)?;
    for (schedule, ranks) in [("monolithic", 1), ("nested", 2), ("nested-fill", 3)] {
        let step = run_step(&set.session, &plan, &pipeline(schedule, ranks))?;
        let norm = whole_norm(&wanted.gradients);
        close_totals(&step.totals, [wanted.token_loss, wanted.drawing_loss, norm], 2e-6)?;
        close_gradients(&step.gradients, &wanted.gradients, 1e-5)?;
        check_memory(&step)?;
        let again = run_step(&set.session, &plan, &pipeline(schedule, ranks))?;
        ensure!(
            again.gradients == step.gradients,
            "{schedule} on {ranks} ranks gives other bits the second time"
        );
    }
    Ok(())
}

#[test]
fn a_step_in_bf16_is_that_of_the_cpu_up_to_rounding() -> Result<()> {
    let Some(device) = on_device(Dtype::Bf16)? else { return Ok(()) };
    let mut config = config();
    config.model.dtype = Dtype::Bf16;
    let cpu = SmallSet::new(&LINES, &config)?;
    let wanted = run_step(&cpu.session, &cpu.plan(&MIXED)?, &pipeline("nested", 2))?;
    let set = SmallSet::new(&LINES, &device)?;
    let step = run_step(&set.session, &set.plan(&MIXED)?, &pipeline("nested", 2))?;
    let totals = wanted.totals;
    close_totals(&step.totals, [totals.token_loss, totals.drawing_loss, totals.grad_norm], 5e-3)?;
    // Both round; the device rounds probabilities and their gradients as well, which products take in bf16.
    close_gradients(&step.gradients, &wanted.gradients, 5e-2)?;
    check_memory(&step)
}

#[test]
fn frozen_modules_and_split_backwards_run_there_as_well() -> Result<()> {
    let Some(device) = on_device(Dtype::F32)? else { return Ok(()) };
    let encoder = PerGroup { encoder: true, projector: true, llm: false, generator: false };
    let all_but_projector = PerGroup { encoder: true, projector: false, llm: true, generator: true };
    for frozen in [encoder, all_but_projector] {
        let cpu = SmallSet::new(&LINES, &freezing(config(), frozen))?;
        let wanted = reference(&cpu.session, &cpu.plan(&MIXED)?)?;
        let set = SmallSet::new(&LINES, &freezing(device.clone(), frozen))?;
        let split = bigmac::config::Pipeline { llm: "zb-h1".into(), ..pipeline("nested", 2) };
        let step = run_step(&set.session, &set.plan(&MIXED)?, &split)?;
        close_gradients(&step.gradients, &wanted.gradients, 1e-5)?;
        check_memory(&step)?;
    }
    Ok(())
}
