use super::*;
use crate::check_stages::{self, Part};
use crate::init;
use bigmac_autograd::gradcheck::gradcheck;
use bigmac_autograd::{Gradients, Mode};
use bigmac_kernels::check::{float_tensor, random, to_f64};
use bigmac_runtime::{Context, DType, Tensor};

fn config(num_layers: usize) -> MmditConfig {
    MmditConfig {
        patch_size: 1,
        in_channels: 3,
        out_channels: 3,
        num_layers,
        attention_head_dim: 6,
        num_attention_heads: 2,
        joint_attention_dim: 5,
        axes_dims_rope: [2, 2, 2],
        ..MmditConfig::default()
    }
}

/// Every parameter random: at the zeros that training starts from most gradients vanish.
fn trained(ctx: &Context, config: &MmditConfig, dtype: DType) -> (Mmdit, Parameters) {
    let mut parameters = Parameters::new();
    for (i, spec) in Mmdit::parameters(config).into_iter().enumerate() {
        let scale = if spec.shape.len() > 1 { (spec.shape[1] as f64).powf(-0.5) } else { 0.3 };
        let center = if spec.init == init::Init::Ones { 1.0 } else { 0.0 };
        let values: Vec<f64> = random(&spec.shape, i as u32).iter().map(|x| center + scale * x).collect();
        parameters.add(spec.name, float_tensor(ctx, &values, &spec.shape, dtype).unwrap(), true).unwrap();
    }
    (Mmdit::new(config, &parameters).unwrap(), parameters)
}

/// Latents, time features and text of an item.
fn item(ctx: &Context, config: &MmditConfig, grid: Grid, tokens: usize, dtype: DType) -> [Tensor; 3] {
    let float = |shape: &[usize], stream| float_tensor(ctx, &random(shape, stream), shape, dtype).unwrap();
    [
        float(&[grid.patches(), config.in_channels], 1000),
        time_features(ctx, 0.3, dtype).unwrap(),
        float(&[tokens, config.joint_attention_dim], 1001),
    ]
}

const GRID: Grid = Grid { height: 3, width: 5 };

fn predict(ctx: &Context, model: &Mmdit, parameters: &Parameters, grid: Grid, tokens: usize) -> Tensor {
    let dtype = parameters.iter().next().unwrap().1.tensor().dtype();
    let item = item(ctx, model.config(), grid, tokens, dtype);
    let mut g = Graph::inference(ctx, parameters);
    let [latents, time, cond] = item.map(|t| g.constant(t));
    let rotations = RopeTables::new(ctx, model.config(), grid, tokens, dtype).unwrap().constants(&g);
    model.forward(&mut g, &latents, &time, &cond, &rotations).unwrap().into_tensor()
}

#[test]
fn gradients_match_central_differences() {
    let ctx = Context::cpu(0, 1).unwrap();
    let config = config(2);
    let (model, mut parameters) = trained(&ctx, &config, DType::F64);
    for tokens in [1, 4] {
        let inputs = item(&ctx, &config, GRID, tokens, DType::F64);
        let rope = RopeTables::new(&ctx, &config, GRID, tokens, DType::F64).unwrap();
        gradcheck(&ctx, &mut parameters, &inputs, 1e-7, |g, v| {
            let rotations = rope.constants(g);
            model.forward(g, &v[0], &v[1], &v[2], &rotations)
        })
        .unwrap();
    }
}

#[test]
fn a_plan_predicts_every_byte_that_is_saved() {
    let ctx = Context::cpu(0, 1).unwrap();
    let config = config(3);
    for (grid, tokens) in [(GRID, 1), (Grid { height: 4, width: 4 }, 7)] {
        for (dtype, trainable) in [(DType::F32, true), (DType::BF16, true), (DType::F32, false)] {
            let (model, mut parameters) = trained(&ctx, &config, dtype);
            parameters.set_trainable(trainable);
            let record = |mut g: Graph<'_>, [latents, time, cond]: [Tensor; 3], rope: RopeTables| {
                let (latents, time, cond) = (g.constant(latents), g.constant(time), g.leaf(cond));
                let rotations = rope.constants(&g);
                let prediction = model.forward(&mut g, &latents, &time, &cond, &rotations).unwrap();
                let target = g.constant(latents.tensor().clone());
                Mmdit::loss(&mut g, &prediction, &target, 0.5).unwrap();
                g.finish().saved_bytes()
            };
            let inputs = item(&ctx, &config, grid, tokens, dtype);
            let shapes = inputs.clone().map(|t| Tensor::shape_only(&t.spec()));
            let rope = RopeTables::new(&ctx, &config, grid, tokens, dtype).unwrap();
            let measured = record(Graph::recording(&ctx, &parameters), inputs, rope);
            let planned = parameters.shape_only();
            let rope = RopeTables::shape_only(&config, grid, tokens, dtype);
            let predicted = record(Graph::planning(&ctx, &planned), shapes, rope);
            assert_eq!(predicted, measured, "{grid:?}, {tokens} tokens, {dtype}, trainable {trainable}");
            assert!(measured > 0);
        }
    }
}

/// The stages of a model with `trained` parameters, each with its own.
fn stages(
    ctx: &Context,
    whole: &Parameters,
    config: &MmditConfig,
    cuts: &[usize],
) -> Vec<(Mmdit, Parameters)> {
    let bounds: Vec<usize> = [0].iter().chain(cuts).chain(&[config.num_layers]).copied().collect();
    let stage = |(i, range): (usize, &[usize])| {
        let (first, last) = (i == 0, i == cuts.len());
        let stage = Stage { layers: range[0]..range[1], first, last };
        let mut parameters = Parameters::new();
        for spec in Mmdit::stage_parameters(config, &stage) {
            let value = whole.get(whole.find(&spec.name).unwrap()).copy(ctx).unwrap();
            parameters.add(spec.name, value, true).unwrap();
        }
        (Mmdit::of_stage(config, stage, &parameters).unwrap(), parameters)
    };
    bounds.windows(2).enumerate().map(stage).collect()
}

#[test]
fn stages_give_the_outputs_and_gradients_of_the_whole() {
    let ctx = Context::cpu(0, 1).unwrap();
    let config = config(3);
    let tokens = 2;
    let (model, parameters) = trained(&ctx, &config, DType::F32);
    let rope = RopeTables::new(&ctx, &config, GRID, tokens, DType::F32).unwrap();
    let run = |stages: &[(Mmdit, Parameters)]| {
        let parts: Vec<Part<'_>> = stages
            .iter()
            .map(|(model, parameters)| {
                let (ctx, config, rope) = (&ctx, &config, &rope);
                let forward = move |g: &mut Graph<'_>, packed: Option<Var>| {
                    let rotations = rope.constants(g);
                    let streams = match packed {
                        Some(packed) => Streams::unpack(g, &packed, tokens)?,
                        None => {
                            let item = item(ctx, config, GRID, tokens, DType::F32);
                            let [latents, time, cond] = item.map(|t| g.constant(t));
                            model.embed(g, &latents, &time, &cond)?
                        }
                    };
                    let streams = model.run_blocks(g, streams, &rotations)?;
                    if model.stage().last { model.predict(g, &streams) } else { streams.pack(g) }
                };
                Part { parameters, forward: Box::new(forward) }
            })
            .collect();
        let seed = |shape: &[usize]| float_tensor(&ctx, &random(shape, 77), shape, DType::F32).unwrap();
        check_stages::run(&ctx, &parts, seed).unwrap()
    };
    let (output, gradients) = run(&[(model, parameters.clone())]);
    assert_eq!(
        output.as_bytes().unwrap(),
        predict(&ctx, &Mmdit::new(&config, &parameters).unwrap(), &parameters, GRID, tokens)
            .as_bytes()
            .unwrap()
    );
    // Also stages without blocks, at either end and in between.
    for cuts in [&[1][..], &[2], &[0, 3], &[1, 1, 2], &[0, 0, 1, 2, 3]] {
        let (cut, own) = run(&stages(&ctx, &parameters, &config, cuts));
        assert_eq!(cut.as_bytes().unwrap(), output.as_bytes().unwrap(), "cut at {cuts:?}");
        assert_eq!(own, gradients, "cut at {cuts:?}");
    }
}

#[test]
fn only_the_ends_embed_and_predict() {
    let ctx = Context::cpu(0, 1).unwrap();
    let config = config(2);
    let (_, parameters) = trained(&ctx, &config, DType::F32);
    let stages = stages(&ctx, &parameters, &config, &[1]);
    let mut g = Graph::inference(&ctx, &stages[0].1);
    let [latents, time, cond] = item(&ctx, &config, GRID, 2, DType::F32).map(|t| g.constant(t));
    let streams = stages[0].0.embed(&mut g, &latents, &time, &cond).unwrap();
    let error = stages[0].0.predict(&mut g, &streams).unwrap_err().to_string();
    assert!(error.contains("last stage") && error.contains("0..1"), "{error}");
    let error = stages[1].0.embed(&mut g, &latents, &time, &cond).unwrap_err().to_string();
    assert!(error.contains("first stage") && error.contains("1..2"), "{error}");
    let packed = streams.pack(&mut g).unwrap();
    assert_eq!(packed.shape(), [2 + GRID.patches() + 1, config.inner_dim()]);
    let error = Streams::unpack(&mut g, &packed, GRID.patches() + 2).unwrap_err().to_string();
    assert!(error.contains("at least one patch"), "{error}");
}

#[test]
fn a_new_model_predicts_zero_and_learns() {
    let ctx = Context::cpu(0, 1).unwrap();
    let config = config(2);
    let parameters = init::random(&ctx, &Mmdit::parameters(&config), DType::F32, 5).unwrap();
    let model = Mmdit::new(&config, &parameters).unwrap();
    assert!(to_f64(&ctx, &predict(&ctx, &model, &parameters, GRID, 3)).unwrap().iter().all(|&x| x == 0.0));

    let mut g = Graph::recording(&ctx, &parameters);
    let [latents, time, cond] = item(&ctx, &config, GRID, 3, DType::F32).map(|t| g.constant(t));
    let rotations = RopeTables::new(&ctx, &config, GRID, 3, DType::F32).unwrap().constants(&g);
    let prediction = model.forward(&mut g, &latents, &time, &cond, &rotations).unwrap();
    let loss = Mmdit::loss(&mut g, &prediction, &latents, 1.0).unwrap();
    let seed = (loss.id().unwrap(), Tensor::from_slice(&ctx, &[1.0f32], &[1]).unwrap());
    let mut gradients = Gradients::new(&ctx, &parameters).unwrap();
    g.finish().backward(&ctx, &parameters, [seed], &mut gradients, Mode::Full).unwrap();
    gradients.finish_step().unwrap();
    let id = parameters.find("proj_out.weight").unwrap();
    assert!(to_f64(&ctx, &gradients.view(id).unwrap()).unwrap().iter().any(|&x| x != 0.0));
}

#[test]
fn results_do_not_depend_on_threads_and_half_types_stay_close() {
    let ctx = Context::cpu(0, 1).unwrap();
    let config = config(2);
    let exact = trained(&ctx, &config, DType::F64);
    let exact = to_f64(&ctx, &predict(&ctx, &exact.0, &exact.1, GRID, 3)).unwrap();
    let norm = exact.iter().map(|x| x * x).sum::<f64>().sqrt();
    for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::BF16, 3e-2), (DType::F16, 4e-3)] {
        let (model, parameters) = trained(&ctx, &config, dtype);
        let one = predict(&ctx, &model, &parameters, GRID, 3);
        let three = predict(&Context::cpu(1, 3).unwrap(), &model, &parameters, GRID, 3);
        assert_eq!(one.as_bytes().unwrap(), three.as_bytes().unwrap(), "{dtype}");
        let given = to_f64(&ctx, &one).unwrap();
        let error = given.iter().zip(&exact).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt() / norm;
        assert!(error < tolerance, "{dtype} is off by {error:.1e}, allowed {tolerance:.1e}");
    }
}

#[test]
fn wrong_inputs_and_weights_are_named() {
    let ctx = Context::cpu(0, 1).unwrap();
    let config = config(1);
    let (model, parameters) = trained(&ctx, &config, DType::F32);
    let zeros = |shape: &[usize]| Tensor::zeros(&ctx, shape, DType::F32).unwrap();
    let mut g = Graph::inference(&ctx, &parameters);
    let time = g.constant(zeros(&[256]));
    for (latents, cond) in [([0, 3], [1, 5]), ([4, 3], [0, 5]), ([4, 3], [1, 6]), ([4, 4], [1, 5])] {
        let (latents, cond) = (g.constant(zeros(&latents)), g.constant(zeros(&cond)));
        let error = model.embed(&mut g, &latents, &time, &cond).unwrap_err().to_string();
        assert!(error.contains("[patches, 3]") && error.contains("[tokens, 5]"), "{error}");
    }
    let wider = MmditConfig { joint_attention_dim: 7, ..config.clone() };
    let error = Mmdit::new(&wider, &parameters).unwrap_err().to_string();
    assert!(error.contains("txt_norm.weight") && error.contains("[7]"), "{error}");
    let deeper = MmditConfig { num_layers: 2, ..config };
    let error = Mmdit::new(&deeper, &parameters).unwrap_err().to_string();
    assert!(error.contains("transformer_blocks.1."), "{error}");
}

/// What diffusers gives to the constructor of `QwenImageTransformer2DModel`, and nothing that it does not take.
#[test]
fn a_directory_has_the_keys_of_diffusers() {
    /// The constructor's parameters.
    const TAKEN: [&str; 9] = [
        "patch_size",
        "in_channels",
        "out_channels",
        "num_layers",
        "attention_head_dim",
        "num_attention_heads",
        "joint_attention_dim",
        "guidance_embeds",
        "axes_dims_rope",
    ];
    let ctx = Context::cpu(0, 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    // Directories that were written before name the dtype: they are read, and not written so again.
    let mut config = config(1);
    config.extra.insert("dtype".into(), "float32".into());
    let (_, parameters) = trained(&ctx, &config, DType::F32);
    let specs = Mmdit::parameters(&config);
    let part = crate::weights::Part { specs: &specs, parameters: &parameters };
    crate::weights::write_directory(dir.path(), config.to_json(), DIFFUSERS, &[part], &specs).unwrap();
    let mut written = crate::json::read_object(&path).unwrap();
    let keys: Vec<&str> = written.keys().map(String::as_str).collect();
    let mut wanted: Vec<&str> =
        TAKEN.into_iter().filter(|key| *key != "guidance_embeds").chain(["_class_name"]).collect();
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
    let read = |object: &serde_json::Map<String, serde_json::Value>| {
        crate::json::write_object(&path, object).unwrap();
        let checkpoint = crate::weights::Checkpoint::open(dir.path(), DIFFUSERS).unwrap();
        MmditConfig { extra: Default::default(), ..checkpoint.config(MmditConfig::from_json).unwrap() }
    };
    let without = read(&written);
    written.insert("dtype".into(), "float32".into());
    written.insert("guidance_embeds".into(), false.into());
    assert_eq!(read(&written), without);
}
