//! Encoder, LLM and their composition against transformers: see tests/parity/make_llm.py, which wrote the fixtures in
//! f64.

use anyhow::{Context as _, Result, ensure};
use bigmac_autograd::{Gradients, Graph, Mode, Parameters};
use bigmac_kernels::check::to_f64;
use bigmac_models::generate::{Options, Prompt, Sampling, generate, score};
use bigmac_models::llava::{LlavaCheckpoint, VisionEncoder};
use bigmac_models::names::{LLAVA, LLM, SIGLIP};
use bigmac_models::qwen3::{self, Qwen3, Stage};
use bigmac_models::siglip::{self, Features, SiglipVisionModel};
use bigmac_models::weights::Format;
use bigmac_runtime::{Context, DType};
use bigmac_tests::llm::{Batch, StageModule, stages, step};
use bigmac_tests::parity::{Fixture, close, fixture_dir};
use std::collections::BTreeMap;

/// Relative to the reference, which is exact to f64.
const TOLERANCES: [(DType, f64); 2] = [(DType::F64, 1e-11), (DType::F32, 5e-6)];

/// Gradients by parameter; `None` for a frozen one.
type ByName = BTreeMap<String, Option<Vec<f64>>>;

fn add_module(ctx: &Context, to: &mut ByName, parameters: &Parameters, gradients: &Gradients) -> Result<()> {
    for (id, parameter) in parameters.iter() {
        let values = parameter.trainable().then(|| to_f64(ctx, &gradients.view(id)?)).transpose()?;
        ensure!(to.insert(parameter.name().to_owned(), values).is_none(), "two {}", parameter.name());
    }
    Ok(())
}

/// The stages' gradients, those of a tied table and its copy summed as a trainer does.
fn add_stages(ctx: &Context, to: &mut ByName, stages: &[StageModule]) -> Result<()> {
    for stage in stages {
        add_module(ctx, to, &stage.parameters, &stage.gradients)?;
    }
    if let [first, .., last] = stages
        && let (Some(table), Some(copy)) = (first.model.tied(), last.model.tied())
    {
        let copied = to.remove(last.parameters.parameter(copy).name()).flatten().context("a copy")?;
        let table = to.get_mut(first.parameters.parameter(table).name()).context("a table")?;
        table.iter_mut().flatten().zip(copied).for_each(|(sum, other)| *sum += other);
    }
    Ok(())
}

/// Every gradient of the fixture against the model's; frozen parameters must have none.
fn check_gradients(case: &Fixture, format: Format, given: &ByName, tolerance: f64) -> Result<()> {
    let mut found = 0;
    let mut compared = Vec::new();
    for name in case.names() {
        let Some(stored) = name.strip_prefix("grad.") else { continue };
        let own = (format.read)(stored).with_context(|| format!("{stored} is passed over"))?;
        let wanted = case.values(name)?;
        found += 1;
        match given.get(&own).with_context(|| format!("the model has no {own}"))? {
            None => ensure!(wanted.iter().all(|&w| w == 0.0), "{own} is frozen and has a gradient"),
            Some(given) => {
                ensure!(given.len() == wanted.len(), "{own}: {} instead of {}", given.len(), wanted.len());
                let error: f64 = given.iter().zip(&wanted).map(|(g, w)| (g - w).powi(2)).sum();
                compared.push((own, error.sqrt(), wanted.iter().map(|w| w * w).sum::<f64>().sqrt()));
            }
        }
    }
    ensure!(found == given.len(), "{found} gradients in the fixture, {} in the model", given.len());
    // The gradient of a key bias is zero but for rounding: what counts there is the size of the other gradients.
    let floor = 1e-2 * compared.iter().map(|(_, _, norm)| norm * norm).sum::<f64>().sqrt();
    for (name, error, norm) in compared {
        let relative = error / norm.max(floor);
        ensure!(relative <= tolerance, "gradient of {name}: off by {relative:.2e}, allowed {tolerance:.1e}");
    }
    Ok(())
}

fn batch(case: &Fixture) -> Result<Batch> {
    Ok(Batch {
        tokens: case.integers("tokens")?,
        targets: case.integers("targets")?,
        bounds: case.integers("bounds")?.iter().map(|&b| b as usize).collect(),
        images: Vec::new(),
    })
}

#[test]
fn siglip_matches() -> Result<()> {
    let ctx = Context::cpu(0, 2)?;
    let case = Fixture::open(&ctx, "siglip", "expected.safetensors")?;
    let (config, checkpoint) = siglip::open(&fixture_dir("siglip"))?;
    for (dtype, tolerance) in TOLERANCES {
        let specs = SiglipVisionModel::parameters(&config, &Features::Last);
        let parameters = checkpoint.load(&ctx, &specs, dtype)?;
        let model = SiglipVisionModel::new(&config, Features::Last, &parameters)?;
        let mut g = Graph::recording(&ctx, &parameters);
        let pixels = g.constant(case.tensor_as("pixels", dtype)?);
        let output = model.forward(&mut g, &pixels)?;
        case.check("output", output.tensor(), tolerance)?;
        let seed = (output.id().context("no gradient")?, case.tensor_as("weights", dtype)?);
        let mut gradients = Gradients::new(&ctx, &parameters)?;
        g.finish().backward(&ctx, &parameters, [seed], &mut gradients, Mode::Full)?;
        gradients.finish_step()?;
        let mut given = ByName::new();
        add_module(&ctx, &mut given, &parameters, &gradients)?;
        check_gradients(&case, SIGLIP, &given, tolerance)?;
    }
    Ok(())
}

fn llm_matches(folder: &str) -> Result<()> {
    let ctx = Context::cpu(0, 2)?;
    let case = Fixture::open(&ctx, folder, "expected.safetensors")?;
    let (config, checkpoint) = qwen3::open(&fixture_dir(folder))?;
    let batch = batch(&case)?;
    for (dtype, tolerance) in TOLERANCES {
        let load = |stage: &Stage| checkpoint.load(&ctx, &Qwen3::parameters(&config, stage), dtype);
        let mut whole = stages(&ctx, &config, 1, load)?;
        let outcome = step(&ctx, &mut whole, &batch, dtype, Mode::Full)?;
        case.check("logits", &outcome.logits, tolerance)?;
        close("loss", &[outcome.loss], &case.values("loss")?, tolerance)?;
        let mut given = ByName::new();
        add_stages(&ctx, &mut given, &whole)?;
        check_gradients(&case, LLM, &given, tolerance)?;
    }
    Ok(())
}

#[test]
fn qwen3_matches() -> Result<()> {
    llm_matches("qwen3")
}

#[test]
fn llama_matches() -> Result<()> {
    llm_matches("qwen3_llama")
}

fn llava_matches(folder: &str) -> Result<()> {
    let ctx = Context::cpu(0, 2)?;
    let case = Fixture::open(&ctx, folder, "expected.safetensors")?;
    let checkpoint = LlavaCheckpoint::open(&fixture_dir(folder))?;
    let config = checkpoint.config();
    let starts = case.integers("images")?;
    for (dtype, tolerance) in TOLERANCES {
        let parameters = checkpoint.encoder(&ctx, dtype)?;
        let encoder = VisionEncoder::new(config, &parameters)?;
        let pixels = case.tensor_as("pixels", dtype)?;
        let mut batch = batch(&case)?;
        let mut tapes = Vec::new();
        for (item, &start) in starts.iter().enumerate() {
            let mut g = Graph::recording(&ctx, &parameters);
            let item = g.constant(pixels.narrow(0, item, 1)?.reshape(&pixels.shape()[1..])?);
            let embeds = encoder.forward(&mut g, &item)?;
            let start = start as usize;
            batch.images.push((start..start + config.image_tokens(), embeds.tensor().clone()));
            tapes.push((g.finish(), embeds.id().context("no gradient")?));
        }
        let mut llm = stages(&ctx, &config.text, 2, |stage| checkpoint.llm(&ctx, stage, dtype))?;
        let outcome = step(&ctx, &mut llm, &batch, dtype, Mode::Split)?;
        case.check("logits", &outcome.logits, tolerance)?;
        close("loss", &[outcome.loss], &case.values("loss")?, tolerance)?;
        let mut gradients = Gradients::new(&ctx, &parameters)?;
        for ((tape, id), grad) in tapes.into_iter().zip(outcome.image_grads) {
            tape.backward(&ctx, &parameters, [(id, grad)], &mut gradients, Mode::Full)?;
        }
        gradients.finish_step()?;
        let mut given = ByName::new();
        add_module(&ctx, &mut given, &parameters, &gradients)?;
        add_stages(&ctx, &mut given, &llm)?;
        check_gradients(&case, LLAVA, &given, tolerance)?;
    }
    Ok(())
}

#[test]
fn llava_matches_in_two_stages_with_a_tied_table() -> Result<()> {
    llava_matches("llava")
}

#[test]
fn llava_matches_with_two_feature_layers_and_a_dropped_token() -> Result<()> {
    llava_matches("llava_multi")
}

#[test]
fn greedy_generation_and_scores_match() -> Result<()> {
    let ctx = Context::cpu(0, 2)?;
    for folder in ["qwen3", "qwen3_llama"] {
        let case = Fixture::open(&ctx, folder, "expected.safetensors")?;
        let (config, checkpoint) = qwen3::open(&fixture_dir(folder))?;
        let stage = Stage::whole(config.num_hidden_layers);
        let parameters = checkpoint.load(&ctx, &Qwen3::parameters(&config, &stage), DType::F64)?;
        let model = Qwen3::new(&config, stage, &parameters)?;
        let batch = batch(&case)?;
        let prompt = Prompt { tokens: batch.tokens[batch.bounds[1]..].to_vec(), images: Vec::new() };
        let wanted = case.integers("generated")?;
        let options = Options { max_tokens: wanted.len(), stop: Vec::new(), sampling: Sampling::Greedy };
        let given = generate(&ctx, &model, &parameters, std::slice::from_ref(&prompt), &options)?;
        ensure!(given == [wanted.clone()], "{folder}: {given:?} instead of {wanted:?}");

        let logits = case.tensor("logits")?.narrow(0, batch.bounds[1], prompt.tokens.len())?;
        let logits = to_f64(&ctx, &logits)?;
        let log_probability = |row: usize| {
            let row_logits = &logits[row * config.vocab_size..][..config.vocab_size];
            let sum: f64 = row_logits.iter().map(|x| x.exp()).sum();
            row_logits[prompt.tokens[row + 1] as usize] - sum.ln()
        };
        let wanted: Vec<f64> = (2..prompt.tokens.len() - 1).map(log_probability).collect();
        close("scores", &score(&ctx, &model, &parameters, &prompt, 3)?, &wanted, 1e-11)?;
    }
    Ok(())
}
