//! The LLM on packed sequences of random tokens, each with a random target.

use super::SEED;
use super::net::{Net, Run, one};
use super::sizes::Sizes;
use anyhow::Context as _;
use bigmac::sizes::Llm;
use bigmac_autograd::{Mode, Parameters};
use bigmac_models::init;
use bigmac_models::qwen3::{Qwen3, Qwen3Config, Stage, positions};
use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_runtime::{Context, DType, Tensor};
use std::sync::Arc;

#[derive(Debug)]
pub struct LlmNet {
    net: Qwen3,
    bounds: Arc<[usize]>,
    /// Cosines and sines.
    rope: [Tensor; 2],
    /// Tokens and targets of each microbatch.
    data: Vec<[Tensor; 2]>,
    scale: f64,
    one: Tensor,
}

/// The LLM and its parameters.
///
/// # Errors
/// Those of the model and of allocation.
pub fn build(ctx: &Context, sizes: &Sizes, llm: &Llm, dtype: DType) -> anyhow::Result<(LlmNet, Parameters)> {
    let config = Qwen3Config {
        vocab_size: llm.vocabulary,
        hidden_size: llm.width,
        intermediate_size: llm.mlp,
        num_hidden_layers: llm.layers,
        num_attention_heads: llm.heads,
        num_key_value_heads: llm.kv_heads,
        head_dim: llm.head_dim,
        qk_norm: llm.qk_norm,
        tie_word_embeddings: llm.tied,
        ..Qwen3Config::default()
    };
    let stage = Stage::whole(llm.layers);
    let params = init::random(ctx, &Qwen3::parameters(&config, &stage), dtype, SEED)?;
    let net = Qwen3::new(&config, stage, &params)?;
    let bounds: Vec<usize> = (0..=sizes.tokens).step_by(sizes.sequence).collect();
    let (cos, sin) = net.rope(ctx, &positions(&bounds), dtype)?;
    let words = u32::try_from(llm.vocabulary)?;
    let ids = |microbatch: usize, purpose| {
        let mut random = Philox::new(SEED, Purpose::new(purpose), 0, microbatch as u32);
        let ids: Vec<i32> = (0..sizes.tokens).map(|_| random.below(words) as i32).collect();
        Tensor::from_slice(ctx, &ids, &[sizes.tokens])
    };
    let data = |m| Ok([ids(m, "step tokens")?, ids(m, "step targets")?]);
    let net = LlmNet {
        net,
        bounds: bounds.into(),
        rope: [cos, sin],
        data: (0..sizes.microbatches).map(data).collect::<anyhow::Result<_>>()?,
        scale: 1.0 / sizes.step_tokens() as f64,
        one: one(ctx)?,
    };
    Ok((net, params))
}

impl Net for LlmNet {
    fn run(&self, run: &mut Run<'_>, microbatch: usize) -> anyhow::Result<Tensor> {
        let mut graph = run.graph();
        let [tokens, targets] = self.data[microbatch].each_ref().map(|ids| graph.constant(ids.clone()));
        let [cos, sin] = self.rope.each_ref().map(|table| graph.constant(table.clone()));
        let mut hidden = self.net.embed(&mut graph, &tokens, &[])?;
        (run.began)()?;
        // Assigned, not shadowed: what only the tape needs is the tape's to free.
        hidden = self.net.layers(&mut graph, &hidden, (&cos, &sin), &self.bounds)?;
        hidden = self.net.final_norm(&mut graph, &hidden)?;
        let loss = self.net.loss(&mut graph, &hidden, &targets, self.scale)?;
        drop(hidden);
        let seed = loss.id().map(|id| (id, self.one.clone()));
        let seed = seed.context("nothing that the loss depends on learns")?;
        graph.finish().backward(run.ctx, run.params, [seed], run.gradients, Mode::Full)?;
        Ok(loss.into_tensor())
    }
}
