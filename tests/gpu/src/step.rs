//! One training step of each model on the device against the same step on the CPU: losses and every gradient.

use crate::bench::{Bench, Outcome};
use anyhow::ensure;
use bigmac::config::{Config, Dtype, Generator, Model, Train};
use bigmac::sizes::{Encoder, Llm};
use bigmac_tests::dataset::SmallSet;
use bigmac_tests::steps::{GradientMap, StepResult, close_gradients, run_step};
use bigmac_tests::tiny::{self, CAPTION, DRAWING, EDIT, LINES, SEVERAL, SHORT_DRAWING, SHORT_TEXT, TEXT};

/// Tokens alone: the LLM.
///
/// # Errors
/// A loss or gradient that is off.
pub fn text(bench: &Bench) -> anyhow::Result<Outcome> {
    both(bench, &[&[TEXT, SHORT_TEXT], &[TEXT]])
}

/// Pictures to read: the encoder, its projector and the LLM.
///
/// # Errors
/// As [`text`].
pub fn pictures(bench: &Bench) -> anyhow::Result<Outcome> {
    both(bench, &[&[CAPTION, SEVERAL], &[SEVERAL]])
}

/// Pictures to draw, some from others: all modules.
///
/// # Errors
/// As [`text`].
pub fn drawings(bench: &Bench) -> anyhow::Result<Outcome> {
    both(bench, &[&[DRAWING, SHORT_DRAWING], &[EDIT]])
}

/// Layers as wide as small models have them, few enough for a CPU.
fn config(bench: &Bench) -> Config {
    let tiny = tiny::config();
    if bench.small {
        return tiny;
    }
    Config {
        model: Model {
            encoder: Encoder {
                width: 576,
                layers: 3,
                heads: 8,
                mlp: 2152,
                image_size: 224,
                patch: 14,
                ..tiny.model.encoder
            },
            llm: Llm {
                width: 1024,
                layers: 3,
                heads: 16,
                kv_heads: 8,
                head_dim: 128,
                mlp: 3072,
                ..tiny.model.llm
            },
            generator: Generator {
                layers: 3,
                heads: 12,
                head_dim: 64,
                image_size: 128,
                patch: 4,
                rope_axes: [16, 24, 24],
                ..tiny.model.generator
            },
            ..tiny.model
        },
        train: Train { tokens_per_microbatch: 4096, ..tiny.train },
        ..tiny
    }
}

fn both(bench: &Bench, microbatches: &[&[usize]]) -> anyhow::Result<Outcome> {
    let mut said = Vec::new();
    // In fp32 only the order of sums differs; in bf16 every result of an operator is rounded, and roundings fall to
    // different sides.
    for (dtype, name, loss, gradient) in [(Dtype::F32, "f32", 1e-5, 1e-4), (Dtype::Bf16, "bf16", 1e-2, 5e-2)]
    {
        let mut config = config(bench);
        config.model.dtype = dtype;
        let here = run(&config, "cpu", microbatches)?;
        let there = bench.gpu.device().to_string();
        let [one, two] = [run(&config, &there, microbatches)?, run(&config, &there, microbatches)?];
        let pairs = |step: &StepResult| {
            [
                ("token loss", step.totals.token_loss),
                ("drawing loss", step.totals.drawing_loss),
                ("norm of the gradient", step.totals.grad_norm),
            ]
        };
        for ((part, given), (_, wanted)) in pairs(&one).into_iter().zip(pairs(&here)) {
            let off = (given - wanted).abs();
            ensure!(off <= loss * wanted.abs(), "{name}, {part}: {given}, expected {wanted}");
        }
        let [given, wanted] = [&one, &here].map(|step| compared(step, dtype));
        close_gradients(&given, &wanted, gradient)?;
        ensure!(one.gradients == two.gradients, "{name}: two runs give different gradients");
        said.push(format!("{name} {:.4} (the CPU {:.4})", one.totals.token_loss, here.totals.token_loss));
    }
    Ok(Outcome::Passed(format!("token loss {}", said.join(", "))))
}

/// The gradients that can be compared. That of a key's bias is zero but for rounding: a softmax does not see what all
/// its scores have in common. In fp32 what is left of it is small enough not to matter.
fn compared(step: &StepResult, dtype: Dtype) -> GradientMap {
    let kept = |name: &str| dtype == Dtype::F32 || !name.ends_with("k_proj.bias");
    let gradients = step.gradients.iter().filter(|((_, name), _)| kept(name));
    gradients.map(|(key, gradient)| (key.clone(), gradient.clone())).collect()
}

fn run(config: &Config, device: &str, microbatches: &[&[usize]]) -> anyhow::Result<StepResult> {
    let mut config = config.clone();
    config.pipeline.device = device.into();
    config.pipeline.timeout = 600.0;
    let set = SmallSet::new(&LINES, &config)?;
    run_step(&set.session, &set.plan(microbatches)?, &config.pipeline)
}
