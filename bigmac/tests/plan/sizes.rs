//! Parameters, operations and saved bytes against what is published and against the models of this runtime.

use bigmac::config::Projector;
use bigmac::plan::{Bytes, Counts, Description, Device, Model, PlanError};
use bigmac::sizes::{Encoder, Experts, Generator, Llm, Part};
use bigmac_autograd::Graph;
use bigmac_close::{absolute, assert_close};
use bigmac_models::init::{ParameterSpec, shape_only};
use bigmac_models::llava::{LlavaConfig, VisionEncoder};
use bigmac_models::mmdit::{Grid, Mmdit, MmditConfig, RopeTables};
use bigmac_models::names::is_of_projector;
use bigmac_models::qwen3::{Qwen3, Qwen3Config, Stage};
use bigmac_models::siglip::SiglipVisionConfig;
use bigmac_runtime::{Context, DType, Spec, Tensor};
use bigmac_schedule::ModuleKind;
use std::sync::Arc;

fn shipped(name: &str) -> Model {
    Model::load(name).unwrap()
}

#[track_caller]
fn within(value: f64, wanted: f64, share: f64) {
    assert_close(value / wanted, 1.0, absolute(share));
}

#[test]
fn shipped_models_have_their_published_parameters() {
    let model = shipped("qwen3-30b-a3b-vit-mmdit");
    within(model.parameters(ModuleKind::Llm) as f64, 30.5e9, 0.005);
    within(llm(&model).whole(model.frame()).active as f64, 3.3e9, 0.02);
    within(model.parameters(ModuleKind::Encoder) as f64, 1.3e9, 0.01);
    within(model.parameters(ModuleKind::Generator) as f64, 20.4e9, 0.005);
    // What Qwen/Qwen3-30B-A3B's safetensors index says to the parameter: 61 GB of bfloat16.
    assert_eq!(model.parameters(ModuleKind::Llm), 30_532_122_624);
}

#[test]
fn shipped_models_of_a_billion_parameters_have_them() {
    for (name, parameters) in [
        // The safetensors of Qwen/Qwen3-1.7B and of meta-llama/Llama-3.2-1B say so.
        ("qwen3-1.7b", 1_720_574_976),
        ("llama-1b", 1_235_814_400),
    ] {
        assert_eq!(shipped(name).parameters(ModuleKind::Llm), parameters, "{name}");
    }
    let model = shipped("mmdit-1b");
    within(model.parameters(ModuleKind::Generator) as f64, 1e9, 0.05);
    assert_eq!((model.parameters(ModuleKind::Llm), model.tokens(0)), (0, 8192));
    assert_eq!(model.parameters(ModuleKind::Generator), count(&Mmdit::parameters(&mmdit(&model))));
}

#[test]
fn operations_are_six_per_active_parameter_and_token_beside_attention() {
    let model = shipped("qwen3-30b-a3b-vit");
    let whole = llm(&model).whole(model.frame());
    let tokens = model.sequence as f64;
    let looked_up = (llm(&model).vocabulary * llm(&model).width) as f64;
    let attention = 3.0 * whole.forward.attention;
    within(whole.model_flops - attention, 6.0 * (whole.active as f64 - looked_up) * tokens, 1e-4);
    // Causal scores and weighted sums: 4 operations per pair and channel, half of all pairs, 48 layers of 32 x 128.
    within(attention, 3.0 * 4.0 * tokens * tokens / 2.0 * 4096.0 * 48.0, 2e-4);
    assert_eq!(model.flops(3), 3.0 * model.flops(1));
}

/// A small model of odd sizes that this runtime has too.
fn small() -> Model {
    Model {
        summary: "small".into(),
        sequence: 37,
        images: Counts::Each(1),
        drawings: Counts::Each(1),
        bytes: Bytes::default(),
        encoder: Some(Encoder {
            width: 24,
            layers: 3,
            heads: 3,
            mlp: 40,
            patch: 5,
            image_size: 20,
            merge: 1,
            output_width: None,
            frozen: false,
            recompute: false,
        }),
        llm: Some(Llm {
            width: 28,
            layers: 5,
            heads: 6,
            kv_heads: 2,
            head_dim: 10,
            vocabulary: 91,
            mlp: 44,
            experts: None,
            rope_theta: 10_000.0,
            qk_norm: true,
            tied: false,
            frozen: false,
            recompute: false,
        }),
        generator: Some(Generator {
            layers: 4,
            heads: 3,
            head_dim: 12,
            channels: 12,
            latents: 12,
            text: 7,
            text_width: None,
            frozen: false,
        }),
        projector: None,
    }
}

fn llm(model: &Model) -> &Llm {
    model.llm.as_ref().unwrap()
}

fn llm_mut(model: &mut Model) -> &mut Llm {
    model.llm.as_mut().unwrap()
}

fn qwen3(model: &Model) -> Qwen3Config {
    let l = llm(model);
    Qwen3Config {
        vocab_size: l.vocabulary,
        hidden_size: l.width,
        intermediate_size: l.mlp,
        num_hidden_layers: l.layers,
        num_attention_heads: l.heads,
        num_key_value_heads: l.kv_heads,
        head_dim: l.head_dim,
        qk_norm: l.qk_norm,
        tie_word_embeddings: l.tied,
        ..Qwen3Config::default()
    }
}

fn llava(model: &Model) -> LlavaConfig {
    let e = model.encoder.as_ref().unwrap();
    let vision = SiglipVisionConfig {
        hidden_size: e.width,
        intermediate_size: e.mlp,
        num_hidden_layers: e.layers,
        num_attention_heads: e.heads,
        image_size: e.image_size,
        patch_size: e.patch,
        vision_use_head: false,
        ..SiglipVisionConfig::default()
    };
    LlavaConfig::new(vision, qwen3(model), 0)
}

fn mmdit(model: &Model) -> MmditConfig {
    let g = model.generator.as_ref().unwrap();
    MmditConfig {
        patch_size: 1,
        in_channels: g.channels,
        out_channels: g.channels,
        num_layers: g.layers,
        attention_head_dim: g.head_dim,
        num_attention_heads: g.heads,
        joint_attention_dim: model.frame().hidden_width,
        axes_dims_rope: [4, 4, 4],
        extra: Default::default(),
    }
}

fn count<'a>(specs: impl IntoIterator<Item = &'a ParameterSpec>) -> u64 {
    specs.into_iter().map(|spec| spec.shape.iter().product::<usize>() as u64).sum()
}

#[test]
fn parameters_are_those_of_the_models() {
    for (qk_norm, tied) in [(true, false), (false, true)] {
        let mut model = small();
        (llm_mut(&mut model).qk_norm, llm_mut(&mut model).tied) = (qk_norm, tied);
        let parameters = Qwen3::parameters(&qwen3(&model), &Stage::whole(llm(&model).layers));
        assert_eq!(model.parameters(ModuleKind::Llm), count(&parameters));
        assert_eq!(
            model.parameters(ModuleKind::Encoder),
            count(&VisionEncoder::parameters(&llava(&model)).unwrap())
        );
        assert_eq!(model.parameters(ModuleKind::Generator), count(&Mmdit::parameters(&mmdit(&model))));
        // What nothing reads is there, and does not learn.
        let trained = |specs: Vec<ParameterSpec>| count(specs.iter().filter(|spec| spec.trainable));
        let (encoder, generator) = (model.encoder.as_ref().unwrap(), model.generator.as_ref().unwrap());
        let [encoder, generator] = [encoder.item(model.frame()), generator.item(model.frame())];
        assert_eq!(encoder.trained, trained(VisionEncoder::parameters(&llava(&model)).unwrap()));
        assert_eq!(generator.trained, trained(Mmdit::parameters(&mmdit(&model))));
        assert!(encoder.trained < encoder.parameters && generator.trained < generator.parameters);
    }
}

fn tensor(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::shape_only(&Spec::new(shape, dtype))
}

/// What a stage of these layers saves, predicted by the operators themselves.
fn llm_saves(model: &Model, layers: std::ops::Range<usize>) -> usize {
    let config = qwen3(model);
    let stage = Stage { layers, first: false, last: false };
    let params = shape_only(&Qwen3::parameters(&config, &stage), DType::BF16).unwrap();
    let net = Qwen3::new(&config, stage, &params).unwrap();
    let ctx = Context::cpu(0, 1).unwrap();
    let mut graph = Graph::planning(&ctx, &params);
    let hidden = graph.leaf(tensor(&[model.sequence, config.hidden_size], DType::BF16));
    let table = graph.constant(tensor(&[model.sequence, config.head_dim / 2], DType::F32));
    let bounds: Arc<[usize]> = [0, model.sequence].into();
    net.layers(&mut graph, &hidden, (&table, &table), &bounds).unwrap();
    graph.finish().saved_bytes()
}

#[test]
fn llm_layers_save_what_the_operators_predict() {
    for qk_norm in [true, false] {
        let mut model = small();
        llm_mut(&mut model).qk_norm = qk_norm;
        let layer = llm(&model).layer(model.sequence, 2).saved as usize;
        // The rotary table is shared by all layers, so it cancels.
        assert_eq!(layer, llm_saves(&model, 0..3) - llm_saves(&model, 0..2), "qk_norm {qk_norm}");
    }
}

#[test]
fn encoder_layers_save_what_the_operators_predict() {
    let saves = |layers: usize| {
        let mut model = small();
        model.encoder.as_mut().unwrap().layers = layers;
        let config = llava(&model);
        let params = shape_only(&VisionEncoder::parameters(&config).unwrap(), DType::BF16).unwrap();
        let net = VisionEncoder::new(&config, &params).unwrap();
        let ctx = Context::cpu(0, 1).unwrap();
        let mut graph = Graph::planning(&ctx, &params);
        let pixels = graph.constant(tensor(&[3, 20, 20], DType::BF16));
        net.forward(&mut graph, &pixels).unwrap();
        (graph.finish().saved_bytes(), model.encoder.as_ref().unwrap().layer(2).saved, model)
    };
    let ((three, layer, model), (two, ..)) = (saves(3), saves(2));
    assert_eq!(layer as usize, three - two);
    within(model.encoder.as_ref().unwrap().item(model.frame()).saved as f64, three as f64, 0.03);
}

#[test]
fn a_projector_alone_saves_and_trains_what_the_runtime_says() {
    let mut model = small();
    model.encoder.as_mut().unwrap().frozen = true;
    assert!(!model.learns().encoder && model.frozen().projector);
    model.projector = Some(Projector { frozen: false });
    assert!(model.learns().encoder && model.frozen().projector_alone());
    let (encoder, frame) = (model.encoder.clone().unwrap(), model.frame());
    let part = encoder.learning(frame, model.frozen());
    let config = llava(&model);
    let frozen = |spec: ParameterSpec| if is_of_projector(&spec.name) { spec } else { spec.frozen() };
    let specs: Vec<_> = VisionEncoder::parameters(&config).unwrap().into_iter().map(frozen).collect();
    assert_eq!(part.trained, count(specs.iter().filter(|spec| spec.trainable)));
    let params = shape_only(&specs, DType::BF16).unwrap();
    let net = VisionEncoder::new(&config, &params).unwrap();
    let ctx = Context::cpu(0, 1).unwrap();
    for recompute in [false, true] {
        let mut graph = Graph::planning(&ctx, &params).recomputing(recompute);
        let pixels = graph.constant(tensor(&[3, 20, 20], DType::BF16));
        net.forward(&mut graph, &pixels).unwrap();
        assert_eq!(graph.finish().saved_bytes(), part.saved as usize, "recompute {recompute}");
    }
    // The gradients of both layers' weights, of the input between them, and of nothing below.
    let (first, second) = (2.0 * 16.0 * 24.0 * 28.0, 2.0 * 16.0 * 28.0 * 28.0);
    assert_eq!((part.backward_weight.flops(), part.backward_input.flops()), (first + second, second));
    assert_eq!(part.forward, encoder.item(frame).forward);
    // Frozen above layers that learn, it passes gradients through.
    model.projector = Some(Projector { frozen: true });
    model.encoder.as_mut().unwrap().frozen = false;
    let (tower, whole) = (encoder.learning(frame, model.frozen()), encoder.item(frame));
    assert_eq!(tower.backward_input, whole.backward_input);
    assert_eq!(whole.backward_weight.flops() - tower.backward_weight.flops(), first + second);
    assert_eq!(whole.trained - tower.trained, part.trained);
    model.encoder = None;
    let error = model.check().unwrap_err().to_string();
    assert!(error.contains("left out without [encoder]") || error.contains("images"), "{error}");
}

/// A generator of so many blocks with so many tokens of text, and what the operators predict that it saves.
fn generator_saves(layers: usize, text: usize) -> (usize, Generator) {
    let mut model = small();
    let generator = model.generator.as_mut().unwrap();
    (generator.layers, generator.text) = (layers, text);
    let config = mmdit(&model);
    let params = shape_only(&Mmdit::parameters(&config), DType::BF16).unwrap();
    let net = Mmdit::new(&config, &params).unwrap();
    let ctx = Context::cpu(0, 1).unwrap();
    let mut graph = Graph::planning(&ctx, &params);
    let rope = RopeTables::shape_only(&config, Grid { height: 3, width: 4 }, text, DType::BF16);
    let rotations = rope.constants(&graph);
    let latents = graph.constant(tensor(&[12, config.in_channels], DType::BF16));
    let time = graph.constant(tensor(&[MmditConfig::TIME_FEATURES], DType::BF16));
    let cond = graph.leaf(tensor(&[text, config.joint_attention_dim], DType::BF16));
    net.forward(&mut graph, &latents, &time, &cond, &rotations).unwrap();
    (graph.finish().saved_bytes(), model.generator.unwrap())
}

#[test]
fn generator_blocks_save_what_the_operators_predict() {
    let ((four, generator), (three, _)) = (generator_saves(4, 7), generator_saves(3, 7));
    // Beside a row per token, a block keeps its two modulations: six vectors each.
    assert_eq!(generator.block(2).saved as usize + 2 * 6 * 36 * 2, four - three);
    // One token of text more in the last block, which does not write the text's stream. Beside it there are two rows of
    // the hidden states' width and a statistic for the norm between them, and a row of both rotary tables.
    let ((seven, short), (eight, long)) = (generator_saves(1, 7), generator_saves(1, 8));
    let token = (long.last_block(2).saved - short.last_block(2).saved) as usize;
    assert_eq!(token + (2 * 28 * 2 + 4) + 2 * (12 / 2) * 4, eight - seven);
    assert_eq!(short.last_block(2).parameters, short.block(2).parameters);
}

#[test]
fn without_an_llm_the_modules_say_the_width_and_microbatches_are_their_items() {
    let with = |change: &dyn Fn(&mut Model)| {
        let mut model = shipped("mmdit-1b");
        change(&mut model);
        model.check().map_err(|error| PlanError::at("m.toml")(error).to_string())
    };
    assert_eq!(with(&|_| ()), Ok(()));
    let text_width = |model: &mut Model, width| model.generator.as_mut().unwrap().text_width = width;
    type Change<'a> = &'a dyn Fn(&mut Model);
    let cases: [(Change<'_>, &str); 8] = [
        (&|m| text_width(m, None), "generator.text_width = none, expected a width"),
        (&|m| text_width(m, Some(0)), "generator.text_width = 0, expected at least 1"),
        (&|m| m.drawings = Counts::Each(0), "drawings = 0, expected at least 1 without an [llm]"),
        (&|m| m.images = Counts::Each(1), "images = 1, expected 0 without [encoder]"),
        (&|m| m.sequence = 5, "sequence = 5, expected none without an [llm]"),
        (&|m| m.generator = None, "expected at least one of [llm], [encoder] and [generator]"),
        (&|m| m.encoder = small().encoder, "an [llm] between [encoder] and [generator]"),
        (&|m| (m.llm, m.sequence) = (small().llm, 37), "expected llm.width = 28, or left out"),
    ];
    for (change, wanted) in cases {
        let said = with(change).unwrap_err();
        assert!(said.starts_with("m.toml: ") && said.contains(wanted), "{said} lacks {wanted}");
    }
    let frozen = with(&|m| m.generator.as_mut().unwrap().frozen = true).unwrap_err();
    assert!(frozen.contains("something that learns"), "{frozen}");
    // An encoder alone is as good.
    let mut encoder = small();
    (encoder.llm, encoder.generator, encoder.sequence) = (None, None, 0);
    (encoder.images, encoder.drawings) = (Counts::Each(3), Counts::Each(0));
    encoder.encoder.as_mut().unwrap().output_width = Some(28);
    encoder.check().unwrap();
    assert_eq!((encoder.frame().hidden_width, encoder.tokens(0)), (28, 3 * 16));
    assert_eq!(encoder.parameters(ModuleKind::Encoder), small().parameters(ModuleKind::Encoder));
}

#[test]
fn experts_cost_what_is_chosen_and_weigh_what_there_is() {
    let mut model = small();
    llm_mut(&mut model).mlp = 0;
    llm_mut(&mut model).experts = Some(Experts { count: 6, active: 2, mlp: 22 });
    let (sparse, dense) = (llm(&model).layer(37, 2), llm(&small()).layer(37, 2));
    let router = 28 * 6;
    assert_eq!(sparse.parameters, dense.parameters + 3 * 28 * (6 * 22 - 44) + router);
    // Two experts of half the width are the dense MLP, and the router.
    assert_eq!(sparse.active, dense.active + router);
    // Beside what the MLP keeps: rows sent to two experts and come back, and a score for each of six.
    assert_eq!(sparse.saved, dense.saved + 37 * (2 * 2 * 2 * 28 + 4 * 6));
    assert_eq!(sparse.forward.flops(), dense.forward.flops() + 2.0 * 37.0 * router as f64);
}

#[test]
fn attention_backward_is_five_products_for_two_and_counts_as_four() {
    let attention = Part::attention(10.0, 3);
    assert_eq!((attention.forward.attention, attention.backward_input.attention), (120.0, 300.0));
    assert_eq!((attention.backward_weight.attention, attention.model_flops), (0.0, 360.0));
    let product = Part::linear(5, 3, 7, true, 2);
    assert_eq!((product.parameters, product.forward.dense, product.model_flops), (28, 210.0, 630.0));
    assert_eq!((product.forward.weight_bytes, product.backward_weight.weight_bytes), (42.0, 168.0));
}

#[test]
fn time_is_operations_over_what_is_reached_of_the_peak() {
    let device = Device::load("h100").unwrap();
    let layer = llm(&shipped("qwen3-30b-a3b-vit")).layer(8192, 2);
    let work = layer.forward;
    let reached = |flops: f64, share: f64| flops / (989.4e12 * share);
    let wanted = reached(work.dense, 0.7)
        + reached(work.expert, 0.5)
        + reached(work.attention, 0.5)
        + work.moved_bytes / (3.35e12 * 0.8);
    within(device.seconds(&work), wanted, 1e-12);
    // One row reads all weights for next to no arithmetic.
    let row = llm(&shipped("qwen3-30b-a3b-vit")).layer(1, 2).forward;
    assert!(device.seconds(&row) >= row.weight_bytes / (3.35e12 * 0.8));
}
