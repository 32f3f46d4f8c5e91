//! The generator on random latents and hidden states, with the loss of flow matching.

use super::SEED;
use super::net::{Net, Run, one};
use super::sizes::Sizes;
use anyhow::Context as _;
use bigmac::sizes::Generator;
use bigmac_autograd::{Mode, Parameters};
use bigmac_kernels::cast::cast;
use bigmac_models::init;
use bigmac_models::mmdit::flow::{FlowMatching, SampleKey};
use bigmac_models::mmdit::{Grid, Mmdit, MmditConfig, RopeTables, time_features};
use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_runtime::{Context, DType, Tensor};

#[derive(Debug)]
pub struct GeneratorNet {
    net: Mmdit,
    rope: RopeTables,
    /// The drawings of each microbatch.
    data: Vec<Vec<Drawing>>,
    scale: f64,
    one: Tensor,
}

#[derive(Debug)]
struct Drawing {
    /// Noised.
    latents: Tensor,
    /// Features of the noise's time.
    time: Tensor,
    /// The hidden states that it is drawn from.
    cond: Tensor,
    /// The flow's velocity.
    target: Tensor,
}

/// The generator and its parameters.
///
/// # Errors
/// Those of the model and of allocation.
pub fn build(
    ctx: &Context,
    sizes: &Sizes,
    generator: &Generator,
    dtype: DType,
) -> anyhow::Result<(GeneratorNet, Parameters)> {
    let axes = generator.rope_axes();
    let config = MmditConfig {
        patch_size: 1,
        in_channels: generator.channels,
        out_channels: generator.channels,
        num_layers: generator.layers,
        attention_head_dim: generator.head_dim,
        num_attention_heads: generator.heads,
        joint_attention_dim: sizes.model.frame().hidden_width,
        axes_dims_rope: axes.with_context(|| format!("heads of {} do not rotate", generator.head_dim))?,
        extra: Default::default(),
    };
    let params = init::random(ctx, &Mmdit::parameters(&config), dtype, SEED)?;
    let [height, width] = Sizes::grid(generator.latents)?;
    let rope = RopeTables::new(ctx, &config, Grid { height, width }, generator.text, dtype)?;
    let count = sizes.sequences();
    let drawing = |sample: usize| drawing(ctx, &config, generator, sample as u32, dtype);
    let data = (0..sizes.microbatches).map(|m| (m * count..(m + 1) * count).map(drawing).collect());
    let elements = sizes.microbatches * count * generator.latents * generator.channels;
    let net = GeneratorNet {
        net: Mmdit::new(&config, &params)?,
        rope,
        data: data.collect::<anyhow::Result<_>>()?,
        scale: 1.0 / elements as f64,
        one: one(ctx)?,
    };
    Ok((net, params))
}

fn drawing(
    ctx: &Context,
    config: &MmditConfig,
    generator: &Generator,
    sample: u32,
    dtype: DType,
) -> anyhow::Result<Drawing> {
    let host = &ctx.host();
    let normal = |purpose, shape: [usize; 2]| {
        let mut random = Philox::new(SEED, Purpose::new(purpose), 0, sample);
        let numbers: Vec<f32> = (0..shape[0] * shape[1]).map(|_| random.normal()).collect();
        Tensor::from_slice(host, &numbers, &shape)
    };
    let clean = normal("step latents", [generator.latents, generator.channels])?;
    let noised =
        FlowMatching::default().noised(ctx, &clean, SampleKey { seed: SEED, step: 0, sample }, dtype)?;
    let cond = normal("step conditions", [generator.text, config.joint_attention_dim])?;
    Ok(Drawing {
        time: time_features(ctx, noised.time, dtype)?,
        latents: noised.latents,
        target: noised.target,
        cond: cast(host, &cond, dtype)?.to_device(ctx)?,
    })
}

impl Net for GeneratorNet {
    fn run(&self, run: &mut Run<'_>, microbatch: usize) -> anyhow::Result<Tensor> {
        let mut losses = Vec::with_capacity(self.data[microbatch].len());
        for drawing in &self.data[microbatch] {
            let mut graph = run.graph();
            let rotations = self.rope.constants(&graph);
            let constant = |tensor: &Tensor| graph.constant(tensor.clone());
            let (latents, time) = (constant(&drawing.latents), constant(&drawing.time));
            let (cond, target) = (constant(&drawing.cond), constant(&drawing.target));
            let mut streams = self.net.embed(&mut graph, &latents, &time, &cond)?;
            if losses.is_empty() {
                (run.began)()?;
            }
            streams = self.net.run_blocks(&mut graph, streams, &rotations)?;
            let velocity = self.net.predict(&mut graph, &streams)?;
            drop(streams);
            let loss = Mmdit::loss(&mut graph, &velocity, &target, self.scale)?;
            drop(velocity);
            let seed = loss.id().map(|id| (id, self.one.clone()));
            let seed = seed.context("nothing that the loss depends on learns")?;
            graph.finish().backward(run.ctx, run.params, [seed], run.gradients, Mode::Full)?;
            losses.push(loss.into_tensor());
        }
        let mut losses = losses.into_iter();
        let first = losses.next().context("a microbatch without drawings")?;
        losses.try_fold(first, |sum, loss| Ok(bigmac_kernels::add::accumulate(run.ctx, sum, &loss)?))
    }
}
