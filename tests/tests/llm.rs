//! The LLM and the encoder: cut and uncut, planned and run, with and without a cache, differentiated and by
//! differences.

use anyhow::{Context as _, Result, ensure};
use bigmac_autograd::gradcheck::gradcheck;
use bigmac_autograd::{Graph, Mode};
use bigmac_kernels::check::{float_tensor, random, to_f64};
use bigmac_models::generate::{Options, Prompt, Sampling, generate};
use bigmac_models::init;
use bigmac_models::json::OneOrMany;
use bigmac_models::llava::{LlavaConfig, VisionEncoder};
use bigmac_models::qwen3::{Qwen3, Qwen3Config, Stage, positions};
use bigmac_models::siglip::SiglipVisionConfig;
use bigmac_runtime::{Context, DType, Tensor};
use bigmac_tests::llm::{Batch, StageModule, plan, stages, step};
use bigmac_tests::parity::close;
use std::sync::Arc;

fn config(tied: bool) -> Qwen3Config {
    Qwen3Config {
        vocab_size: 37,
        hidden_size: 12,
        intermediate_size: 20,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        tie_word_embeddings: tied,
        initializer_range: 0.3,
        ..Qwen3Config::default()
    }
}

fn cut(ctx: &Context, config: &Qwen3Config, count: usize, dtype: DType) -> Result<Vec<StageModule>> {
    stages(ctx, config, count, |stage| init::random(ctx, &Qwen3::parameters(config, stage), dtype, 7))
}

fn batch(ctx: &Context, config: &Qwen3Config, dtype: DType) -> Result<Batch> {
    let tokens: Vec<i32> = (0..15).map(|i| (i * 11 + 5) % config.vocab_size as i32).collect();
    let mut targets: Vec<i32> = tokens[1..].iter().copied().chain([-100]).collect();
    targets[8] = -100;
    let shape = [3, config.hidden_size];
    let image = |stream| float_tensor(ctx, &random(&shape, stream), &shape, dtype);
    let images = vec![(1..4, image(1)?), (10..13, image(2)?)];
    Ok(Batch { tokens, targets, bounds: vec![0, 9, 15], images })
}

#[test]
fn stages_compute_what_the_uncut_model_does() -> Result<()> {
    let ctx = Context::cpu(0, 2)?;
    for (tied, dtype) in [(true, DType::F64), (false, DType::F32), (true, DType::BF16)] {
        let config = config(tied);
        let batch = batch(&ctx, &config, dtype)?;
        let mut whole = cut(&ctx, &config, 1, dtype)?;
        let wanted = step(&ctx, &mut whole, &batch, dtype, Mode::Full)?;
        for count in 1..=5 {
            let mut parts = cut(&ctx, &config, count, dtype)?;
            let mode = if count % 2 == 0 { Mode::Split } else { Mode::Full };
            let given = step(&ctx, &mut parts, &batch, dtype, mode)?;
            ensure!(given.loss == wanted.loss, "{count} stages: loss {} not {}", given.loss, wanted.loss);
            ensure!(given.logits.as_bytes()? == wanted.logits.as_bytes()?, "{count} stages: other logits");
            for (a, b) in given.image_grads.iter().zip(&wanted.image_grads) {
                ensure!(a.as_bytes()? == b.as_bytes()?, "{count} stages: other gradients of images");
            }
            for part in &parts {
                for (id, parameter) in part.parameters.iter().filter(|(id, _)| part.model.tied() != Some(*id))
                {
                    let same =
                        whole[0].parameters.find(parameter.name()).context(parameter.name().to_owned())?;
                    let (a, b) = (part.gradients.view(id)?, whole[0].gradients.view(same)?);
                    ensure!(
                        a.as_bytes()? == b.as_bytes()?,
                        "{count} stages: gradient of {}",
                        parameter.name()
                    );
                }
            }
            let (first, last) = (&parts[0], &parts[count - 1]);
            ensure!(first.model.tied().is_some() == (tied && count > 1), "{count} stages: who is tied?");
            if let (Some(table), Some(copy)) = (first.model.tied(), last.model.tied()) {
                let (a, b) = (first.parameters.get(table), last.parameters.get(copy));
                ensure!(a.as_bytes()? == b.as_bytes()?, "the copies of the tied table start differently");
                let (a, b) = (first.gradients.view(table)?, last.gradients.view(copy)?);
                let sum: Vec<f64> =
                    to_f64(&ctx, &a)?.iter().zip(to_f64(&ctx, &b)?).map(|(a, b)| a + b).collect();
                let id = whole[0].parameters.find("model.embed_tokens.weight").context("table")?;
                let tolerance = if dtype == DType::F64 { 1e-14 } else { 1e-6 };
                close("tied table", &sum, &to_f64(&ctx, &whole[0].gradients.view(id)?)?, tolerance)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_planning_pass_predicts_what_the_tapes_hold() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    for dtype in [DType::F32, DType::BF16] {
        let config = config(true);
        let batch = batch(&ctx, &config, dtype)?;
        for count in [1, 2, 4] {
            let mut parts = cut(&ctx, &config, count, dtype)?;
            let planned = plan(&ctx, &parts, &batch, dtype)?;
            let measured = step(&ctx, &mut parts, &batch, dtype, Mode::Full)?.saved;
            ensure!(planned == measured, "{count} stages: planned {planned:?}, measured {measured:?}");
        }
    }
    Ok(())
}

#[test]
fn another_stage_s_part_is_an_error_that_names_the_stage() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    let parts = cut(&ctx, &config(true), 2, DType::F32)?;
    let mut g = Graph::inference(&ctx, &parts[1].parameters);
    let tokens = g.constant(Tensor::from_slice(&ctx, &[1i32], &[1])?);
    let error = parts[1].model.embed(&mut g, &tokens, &[]).err().context("embedded")?.to_string();
    ensure!(error.contains("first") && error.contains("2..3"), "{error}");
    Ok(())
}

#[test]
fn the_cache_changes_nothing() -> Result<()> {
    let ctx = Context::cpu(0, 2)?;
    let config = config(false);
    let whole = cut(&ctx, &config, 1, DType::F64)?;
    let StageModule { model, parameters, .. } = &whole[0];
    let shape = [2, config.hidden_size];
    let image = float_tensor(&ctx, &random(&shape, 3), &shape, DType::F64)?;
    let prompts = [
        Prompt { tokens: vec![3, 9, 9, 4, 30], images: vec![(1..3, image)] },
        Prompt { tokens: vec![17], images: Vec::new() },
        Prompt { tokens: vec![5, 6, 7, 8, 1, 2, 3], images: Vec::new() },
    ];
    let greedy = |stop: Vec<i32>| Options { max_tokens: 9, stop, sampling: Sampling::Greedy };
    let together = generate(&ctx, model, parameters, &prompts, &greedy(Vec::new()))?;
    for (prompt, answer) in prompts.iter().zip(&together) {
        let alone = generate(&ctx, model, parameters, std::slice::from_ref(prompt), &greedy(Vec::new()))?;
        ensure!(alone == [answer.clone()], "{alone:?} alone, {answer:?} among others");
        // Without a cache: the whole text is read again for each token.
        let mut text = prompt.clone();
        for _ in 0..9 {
            let once = Options { max_tokens: 1, ..greedy(Vec::new()) };
            text.tokens.push(generate(&ctx, model, parameters, std::slice::from_ref(&text), &once)?[0][0]);
        }
        ensure!(text.tokens[prompt.tokens.len()..] == answer[..], "{:?} without a cache", text.tokens);
    }
    // One text ends early; the others go on as if it had never been there.
    let stop = together[1][2];
    let stopped = generate(&ctx, model, parameters, &prompts, &greedy(vec![stop]))?;
    for (short, long) in stopped.iter().zip(&together) {
        let wanted: Vec<i32> = long.iter().copied().take_while(|t| *t != stop).collect();
        ensure!(*short == wanted, "{short:?} instead of {wanted:?}");
    }
    let sampling = Sampling::Random { temperature: 1.5, top_k: 10, seed: 4 };
    let random = Options { max_tokens: 12, stop: Vec::new(), sampling };
    let draws = generate(&ctx, model, parameters, &prompts, &random)?;
    ensure!(draws == generate(&ctx, model, parameters, &prompts, &random)?, "sampling is not repeatable");
    ensure!(draws[0] != together[0], "sampling at temperature 1.5 is greedy");
    Ok(())
}

#[test]
fn prompts_that_can_not_be_continued_are_errors() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    let whole = cut(&ctx, &config(true), 1, DType::F32)?;
    let StageModule { model, parameters, .. } = &whole[0];
    let options = Options { max_tokens: 1, stop: Vec::new(), sampling: Sampling::Greedy };
    for tokens in [vec![], vec![37], vec![-1]] {
        let prompt = Prompt { tokens, images: Vec::new() };
        ensure!(generate(&ctx, model, parameters, &[prompt], &options).is_err());
    }
    let prompt = Prompt { tokens: vec![1], images: Vec::new() };
    let cold = Sampling::Random { temperature: 0.0, top_k: 0, seed: 0 };
    ensure!(generate(&ctx, model, parameters, &[prompt], &Options { sampling: cold, ..options }).is_err());
    Ok(())
}

#[test]
fn gradients_of_the_decoder_pass_against_differences() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    for qk_norm in [true, false] {
        let config = Qwen3Config { num_hidden_layers: 1, qk_norm, attention_bias: true, ..config(true) };
        let stage = Stage::whole(1);
        let mut parameters = init::random(&ctx, &Qwen3::parameters(&config, &stage), DType::F64, 3)?;
        let model = Qwen3::new(&config, stage, &parameters)?;
        let bounds: Arc<[usize]> = [0, 3, 7].into();
        let (cos, sin) = model.rope(&ctx, &positions(&bounds), DType::F64)?;
        let shape = [2, config.hidden_size];
        let image = float_tensor(&ctx, &random(&shape, 5), &shape, DType::F64)?;
        let tokens = Tensor::from_slice(&ctx, &[4, 1, 36, 0, 4, 9, 22], &[7])?;
        let targets = Tensor::from_slice(&ctx, &[1, 36, -100, 4, 9, 22, -100], &[7])?;
        gradcheck(&ctx, &mut parameters, &[image], 1e-7, |g, inputs| {
            let (tokens, targets) = (g.constant(tokens.clone()), g.constant(targets.clone()));
            let (cos, sin) = (g.constant(cos.clone()), g.constant(sin.clone()));
            let hidden = model.embed(g, &tokens, &[(4..6, inputs[0].clone())])?;
            let hidden = model.layers(g, &hidden, (&cos, &sin), &bounds)?;
            let normed = model.final_norm(g, &hidden)?;
            model.loss(g, &normed, &targets, 0.2)
        })?;
    }
    Ok(())
}

#[test]
fn gradients_of_the_encoder_pass_against_differences() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    let vision = SiglipVisionConfig {
        hidden_size: 10,
        intermediate_size: 14,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        image_size: 6,
        patch_size: 3,
        ..SiglipVisionConfig::default()
    };
    let mut config = LlavaConfig::new(vision, config(true), 36);
    config.vision_feature_layer = OneOrMany::Many(vec![-1, 0]);
    let mut parameters = init::random(&ctx, &VisionEncoder::parameters(&config)?, DType::F64, 3)?;
    let encoder = VisionEncoder::new(&config, &parameters)?;
    let shape = [3, 6, 6];
    let pixels = float_tensor(&ctx, &random(&shape, 1), &shape, DType::F64)?;
    gradcheck(&ctx, &mut parameters, &[pixels], 1e-7, |g, inputs| encoder.forward(g, &inputs[0]))?;
    let wrong = Tensor::zeros(&ctx, &[3, 6, 9], DType::F64)?;
    let mut g = Graph::inference(&ctx, &parameters);
    let wrong = g.constant(wrong);
    ensure!(encoder.forward(&mut g, &wrong).err().context("accepted")?.to_string().contains("[3, 6, 6]"));
    Ok(())
}
