//! The generator against diffusers' `QwenImageTransformer2DModel`: see tests/parity/make_mmdit.py.

use anyhow::{Context as _, Result, ensure};
use bigmac_autograd::{Gradients, Graph, Mode, Parameters};
use bigmac_kernels::check::to_f64;
use bigmac_models::mmdit::{DIFFUSERS, FORMAT, Grid, Mmdit, MmditConfig, RopeTables, time_features};
use bigmac_models::weights::{Checkpoint, Part, write_directory};
use bigmac_runtime::{Context, DType, Tensor};
use bigmac_tests::parity::{Fixture, close, fixture_dir};

const FOLDER: &str = "mmdit";
/// Relative to a norm; both sides compute in F32.
const TOLERANCE: f64 = 3e-6;

fn load(ctx: &Context) -> Result<(Mmdit, Parameters)> {
    let checkpoint = Checkpoint::open(&fixture_dir(FOLDER), FORMAT)?;
    let config = checkpoint.config(MmditConfig::from_json)?;
    let specs = Mmdit::parameters(&config);
    checkpoint.expect(&specs, &[])?;
    let parameters = checkpoint.load(ctx, &specs, DType::F32)?;
    Ok((Mmdit::new(&config, &parameters)?, parameters))
}

struct Results {
    prediction: Tensor,
    loss: f64,
    latents_grad: Tensor,
    cond_grad: Tensor,
    gradients: Gradients,
}

fn run(ctx: &Context, model: &Mmdit, parameters: &Parameters, case: &Fixture) -> Result<Results> {
    let grid = case.integers("grid")?;
    let grid = Grid { height: grid[0] as usize, width: grid[1] as usize };
    let tokens = case.tensor("cond")?.shape()[0];
    let rope = RopeTables::new(ctx, model.config(), grid, tokens, DType::F32)?;

    let mut g = Graph::recording(ctx, parameters);
    let (latents, cond) = (g.leaf(case.tensor("latents")?), g.leaf(case.tensor("cond")?));
    let time = g.constant(case.tensor("time_features")?);
    let target = g.constant(case.tensor("target")?);
    let rotations = rope.constants(&g);
    let prediction = model.forward(&mut g, &latents, &time, &cond, &rotations)?;
    let loss = Mmdit::loss(&mut g, &prediction, &target, case.number("loss_scale")?)?;
    let seed = (loss.id().context("the loss has no gradient")?, Tensor::from_slice(ctx, &[1.0f32], &[1])?);

    let mut gradients = Gradients::new(ctx, parameters)?;
    let mut leaves = g.finish().backward(ctx, parameters, [seed], &mut gradients, Mode::Full)?;
    gradients.finish_step()?;
    let mut take =
        |v: &bigmac_autograd::Var| v.id().and_then(|id| leaves.take(id)).context("a leaf without gradient");
    Ok(Results {
        loss: to_f64(ctx, loss.tensor())?[0],
        latents_grad: take(&latents)?,
        cond_grad: take(&cond)?,
        prediction: prediction.into_tensor(),
        gradients,
    })
}

fn check_case(results: &Results, case: &Fixture) -> Result<()> {
    case.check("prediction", &results.prediction, TOLERANCE)?;
    close("loss", &[results.loss], &case.values("loss")?, TOLERANCE)?;
    case.check("latents_grad", &results.latents_grad, TOLERANCE)?;
    case.check("cond_grad", &results.cond_grad, TOLERANCE)
}

#[test]
fn output_loss_and_every_gradient_match() -> Result<()> {
    let ctx = Context::cpu(0, 2)?;
    let (model, parameters) = load(&ctx)?;
    let case = Fixture::open(&ctx, FOLDER, "wide.safetensors")?;
    let results = run(&ctx, &model, &parameters, &case)?;
    check_case(&results, &case)?;
    let mut without = Vec::new();
    for (id, parameter) in parameters.iter() {
        let gradient = to_f64(&ctx, &results.gradients.view(id)?)?;
        let name = format!("grad.{}", parameter.name());
        if !parameter.trainable() {
            // Nothing reads it: PyTorch has no gradient either, or zeros.
            let zeros = !case.contains(&name) || case.values(&name)?.iter().all(|&wanted| wanted == 0.0);
            ensure!(zeros && gradient.is_empty(), "{name}");
            without.extend((!case.contains(&name)).then_some(parameter.name()));
        } else if case.contains(&name) {
            close(&name, &gradient, &case.values(&name)?, TOLERANCE)?;
        } else {
            anyhow::bail!("{name} is not in the fixture, and learns");
        }
    }
    // PyTorch leaves no gradient where the last block's text would come out: nothing reads it.
    let unread = ["attn.to_add_out.", "txt_mlp."].map(|part| format!("transformer_blocks.1.{part}"));
    ensure!(
        without.len() == 6 && without.iter().all(|n| unread.iter().any(|u| n.starts_with(u))),
        "{without:?}"
    );
    Ok(())
}

#[test]
fn a_single_token_of_text_matches() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    let (model, parameters) = load(&ctx)?;
    let case = Fixture::open(&ctx, FOLDER, "single.safetensors")?;
    check_case(&run(&ctx, &model, &parameters, &case)?, &case)
}

#[test]
fn time_features_and_rotations_match() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    let times = Fixture::open(&ctx, FOLDER, "time.safetensors")?;
    for (time, wanted) in times.values("times")?.into_iter().zip(times.values("features")?.chunks(256)) {
        let given = to_f64(&ctx, &time_features(&ctx, time, DType::F64)?)?;
        let error = given.iter().zip(wanted).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max);
        // An F32 angle of `1000 time` radians is exact to half a unit in its last place, and so is each of its two
        // factors.
        let allowed = 1e-7 + 1.5 * f64::from(f32::EPSILON) * 1000.0 * time;
        ensure!(error <= allowed, "time {time}: off by {error:.1e}, allowed {allowed:.1e}");
    }

    let (model, _) = load(&ctx)?;
    let rotations = Fixture::open(&ctx, FOLDER, "rope.safetensors")?;
    for (height, width, text) in [(3, 5, 4), (4, 3, 1), (1, 1, 2)] {
        let tables = RopeTables::new(&ctx, model.config(), Grid { height, width }, text, DType::F32)?;
        rotations.check(&format!("{height}.{width}.{text}.cos"), &tables.cos, 2e-7)?;
        rotations.check(&format!("{height}.{width}.{text}.sin"), &tables.sin, 2e-7)?;
    }
    Ok(())
}

#[test]
fn a_written_directory_reads_again_for_us_and_for_diffusers() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    let (model, parameters) = load(&ctx)?;
    let specs = Mmdit::parameters(model.config());
    let parts = [Part { specs: &specs, parameters: &parameters }];
    for format in [FORMAT, DIFFUSERS] {
        let dir = tempfile::tempdir()?;
        write_directory(dir.path(), model.config().to_json(), format, &parts, &specs)?;
        ensure!(dir.path().join(format.file).exists(), "no {}", format.file);
        let checkpoint = Checkpoint::open(dir.path(), format)?;
        let config = checkpoint.config(MmditConfig::from_json)?;
        ensure!(MmditConfig { extra: model.config().extra.clone(), ..config } == *model.config());
        let again = checkpoint.load(&ctx, &specs, DType::F32)?;
        for ((_, one), (_, two)) in parameters.iter().zip(again.iter()) {
            ensure!(one.tensor().as_bytes()? == two.tensor().as_bytes()?, "{} changed", one.name());
        }
    }
    Ok(())
}
