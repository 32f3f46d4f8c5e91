//! The decoder LLM: Qwen3 dense (`Qwen3ForCausalLM` in transformers) and, without q/k norm, Llama (`LlamaForCausalLM`).
//!
//! Sequences are packed: `T` tokens of one or more samples lie one after the other, and `bounds` holds where each
//! starts and the last one ends. Attention stays inside a sample; positions start at 0 in each ([`positions`]).
//!
//! Sources: Qwen team, *Qwen3 Technical Report*, arXiv 2505.09388; Touvron et al., *LLaMA*, arXiv 2302.13971.

mod cache;
mod config;
mod layer;

pub use crate::stage::{Stage, split_layers};
pub use cache::KvCache;
pub use config::Qwen3Config;

use crate::init::{Init, ParameterSpec, find};
use crate::names::LLM;
use crate::stage::at_end;
use crate::weights::Checkpoint;
use bigmac_autograd::{Graph, ParamId, Parameters, Var};
use bigmac_kernels::{
    Attention, Concat, Embedding, Linear, LinearCrossEntropy, ReplaceRows, RmsNorm, RopeCache, rope_tables,
};
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};
use layer::Layer;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Name of the embedding table.
const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the output matrix.
const HEAD: &str = "lm_head.weight";
/// Name of the final norm.
const NORM: &str = "model.norm.weight";

/// Columns of logits that the loss holds at a time.
const LOSS_CHUNK: usize = 4096;

/// One stage of the LLM (or all of it): which of a module's parameters are what.
#[derive(Clone, Debug)]
pub struct Qwen3 {
    config: Arc<Qwen3Config>,
    stage: Stage,
    embedding: Option<ParamId>,
    layers: Vec<Layer>,
    norm: Option<ParamId>,
    head: Option<ParamId>,
}

impl Qwen3 {
    /// The parameters of a stage, in the order of transformers.
    ///
    /// With a tied embedding, a last stage that is not the first one holds a copy of the table as its `lm_head.weight`;
    /// it starts from the same values, and [`Qwen3::tied`] says whose gradients must be summed.
    pub fn parameters(config: &Qwen3Config, stage: &Stage) -> Vec<ParameterSpec> {
        let table = [config.vocab_size, config.hidden_size];
        let mut specs = Vec::new();
        if stage.first {
            let init = Init::Normal { std: config.initializer_range };
            specs.push(ParameterSpec::new(EMBEDDING, &table, init));
        }
        specs.extend(stage.layers.clone().flat_map(|i| Layer::parameters(config, i)));
        if stage.last {
            specs.push(ParameterSpec::ones(NORM, &[config.hidden_size]));
            if !config.tie_word_embeddings {
                specs.push(ParameterSpec::matrix(HEAD, config.vocab_size, config.hidden_size));
            } else if !stage.first {
                let init = Init::Normal { std: config.initializer_range };
                specs.push(ParameterSpec::new(HEAD, &table, init).copy_of(EMBEDDING));
            }
        }
        specs
    }

    /// What a checkpoint may hold beside the parameters of the uncut model: the output matrix of a tied one.
    pub fn redundant(config: &Qwen3Config) -> &'static [&'static str] {
        if config.tie_word_embeddings { &[HEAD] } else { &[] }
    }

    /// The stage over parameters that hold at least those of [`Qwen3::parameters`].
    ///
    /// # Errors
    /// [`Error::Argument`] when the configuration or the stage's range does not fit, or a parameter is missing.
    pub fn new(config: &Qwen3Config, stage: Stage, parameters: &Parameters) -> Result<Self> {
        config.validate()?;
        if stage.layers.start > stage.layers.end || stage.layers.end > config.num_hidden_layers {
            let message =
                format!("got a stage with layers {:?} of {}", stage.layers, config.num_hidden_layers);
            return Err(Error::argument("LLM stage", message));
        }
        let named = |wanted: bool, name| wanted.then(|| find(parameters, name)).transpose();
        let head = if config.tie_word_embeddings && stage.first { EMBEDDING } else { HEAD };
        Ok(Qwen3 {
            embedding: named(stage.first, EMBEDDING)?,
            layers: stage.layers.clone().map(|i| Layer::new(config, i, parameters)).collect::<Result<_>>()?,
            norm: named(stage.last, NORM)?,
            head: named(stage.last, head)?,
            config: Arc::new(config.clone()),
            stage,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Qwen3Config {
        &self.config
    }

    /// The stage.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// This stage's copy of the tied embedding table, when another stage holds the other one. The gradients of the two
    /// must be summed before each optimizer step, so that they stay equal.
    pub fn tied(&self) -> Option<ParamId> {
        let ends = self.stage.first != self.stage.last;
        if self.config.tie_word_embeddings && ends { self.embedding.or(self.head) } else { None }
    }

    fn part(&self, part: Option<ParamId>, end: &'static str) -> Result<ParamId> {
        at_end(part, "LLM stage", end, &self.stage)
    }

    /// Embeds tokens I32 `[T]` into hidden states `[T, width]` (first stage).
    ///
    /// Each of `images` replaces a range of rows by an image's embeddings `[rows, width]`, as LLaVA's masked scatter;
    /// what tokens stand there does not matter as long as they are in the vocabulary.
    ///
    /// # Errors
    /// [`Error::Argument`] on another stage; the operators' for tokens out of range or ranges that do not fit.
    pub fn embed(&self, g: &mut Graph<'_>, tokens: &Var, images: &[(Range<usize>, Var)]) -> Result<Var> {
        let hidden = g.apply(Embedding, &[tokens], &[self.part(self.embedding, "first")?])?;
        if images.is_empty() {
            return Ok(hidden);
        }
        if let Some((range, image)) =
            images.iter().find(|(range, image)| image.shape().first() != Some(&range.len()))
        {
            let wanted = format!("{} rows, for tokens {range:?}", range.len());
            return Err(Error::shape("LLM embed", image.shape(), wanted));
        }
        let rows: Arc<[usize]> = images.iter().flat_map(|(range, _)| range.clone()).collect();
        match images {
            [(_, image)] => g.apply(ReplaceRows { rows }, &[&hidden, image], &[]),
            _ => {
                let parts: Vec<&Var> = images.iter().map(|(_, image)| image).collect();
                let together = g.apply(Concat { dim: 0 }, &parts, &[])?;
                g.apply(ReplaceRows { rows }, &[&hidden, &together], &[])
            }
        }
    }

    /// The stage's layers: hidden states `[T, width]` to hidden states `[T, width]`.
    ///
    /// `rope` are the tables of [`Qwen3::rope`] for the tokens' positions; `bounds` the starts of the packed samples,
    /// and `T`.
    pub fn layers(
        &self,
        g: &mut Graph<'_>,
        hidden: &Var,
        rope: (&Var, &Var),
        bounds: &Arc<[usize]>,
    ) -> Result<Var> {
        let mut states = vec![hidden.clone()];
        for layer in &self.layers {
            let (layer, config) = (layer.clone(), self.config.clone());
            let attention = self.attention(bounds.clone(), bounds.clone());
            let forward = move |g: &mut Graph<'_>, inputs: &[Var]| {
                let rope = (&inputs[1], &inputs[2]);
                let mut attend = |g: &mut Graph<'_>, q, k, v| g.apply(attention.clone(), &[&q, &k, &v], &[]);
                Ok(vec![layer.forward(g, &config, &inputs[0], rope, &mut attend)?])
            };
            states = g.layer(&[&states[0], rope.0, rope.1], forward)?;
        }
        Ok(states.swap_remove(0))
    }

    /// As [`Qwen3::layers`] for tokens that come after those in `cache`, which takes up their keys and values. `bounds`
    /// are those of the new tokens, one range per sequence of the cache.
    ///
    /// # Errors
    /// The operators'; [`Error::Argument`] for a cache of another number of layers or sequences.
    pub fn layers_cached(
        &self,
        g: &mut Graph<'_>,
        hidden: &Var,
        rope: (&Var, &Var),
        bounds: &Arc<[usize]>,
        cache: &mut KvCache,
    ) -> Result<Var> {
        let bounds_k = cache.extend_bounds(bounds, self.layers.len())?;
        let mut hidden = hidden.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            let attention = self.attention(bounds.clone(), bounds_k.clone());
            hidden = layer.forward(g, &self.config, &hidden, rope, &mut |g, q, k, v| {
                let (k, v) = cache.append(g, index, &k, &v, bounds)?;
                g.apply(attention.clone(), &[&q, &k, &v], &[])
            })?;
        }
        cache.set_bounds(bounds_k);
        Ok(hidden)
    }

    fn attention(&self, bounds_q: Arc<[usize]>, bounds_k: Arc<[usize]>) -> Attention {
        let scale = (self.config.head_dim as f64).powf(-0.5);
        Attention { bounds_q, bounds_k, causal: true, scale }
    }

    /// The final norm: hidden states `[T, width]` to the states that the output matrix and the generator read (last
    /// stage).
    ///
    /// # Errors
    /// [`Error::Argument`] on another stage.
    pub fn final_norm(&self, g: &mut Graph<'_>, hidden: &Var) -> Result<Var> {
        let norm = self.part(self.norm, "last")?;
        g.apply(RmsNorm { eps: self.config.rms_norm_eps }, &[hidden], &[norm])
    }

    /// `scale` times the sum of the cross-entropies of targets I32 `[T]` (-100: none) given normed states `[T, width]`,
    /// as `[1]` in the accumulator dtype (last stage). Logits are never held as a whole.
    ///
    /// # Errors
    /// [`Error::Argument`] on another stage; the operator's for targets out of range.
    pub fn loss(&self, g: &mut Graph<'_>, normed: &Var, targets: &Var, scale: f64) -> Result<Var> {
        let head = self.part(self.head, "last")?;
        g.apply(LinearCrossEntropy { scale, chunk: LOSS_CHUNK }, &[normed, targets], &[head])
    }

    /// Logits `[T, vocabulary]` of normed states `[T, width]` (last stage).
    ///
    /// # Errors
    /// [`Error::Argument`] on another stage.
    pub fn logits(&self, g: &mut Graph<'_>, normed: &Var) -> Result<Var> {
        let head = self.part(self.head, "last")?;
        g.apply(Linear { bias: false }, &[normed], &[head])
    }

    /// The rotary tables cos and sin, each `[T, head_dim / 2]`, of tokens at these positions, for hidden states of
    /// `dtype`.
    pub fn rope(&self, ctx: &Context, positions: &[f64], dtype: DType) -> Result<(Tensor, Tensor)> {
        let (dim, theta) = (self.config.head_dim, self.config.rope_theta);
        rope_tables(ctx, &[positions], &[dim], theta, dtype.accumulator())
    }

    /// As [`Qwen3::rope`], of packed tokens (each sample counts from 0; `bounds` are the samples' starts, and the
    /// number of tokens), from tables that are computed once.
    pub fn packed_rope(
        &self,
        ctx: &Context,
        cache: &RopeCache,
        bounds: &[usize],
        dtype: DType,
    ) -> Result<(Tensor, Tensor)> {
        let positions: Vec<usize> = bounds.windows(2).flat_map(|w| 0..w[1].saturating_sub(w[0])).collect();
        let (dim, theta) = (self.config.head_dim, self.config.rope_theta);
        cache.gather(ctx, &positions, (&[dim], theta), dtype.accumulator())
    }

    /// The tables of [`Qwen3::rope`] for that many tokens without values, for planning.
    pub fn planned_rope(&self, tokens: usize, dtype: DType) -> (Tensor, Tensor) {
        let spec = Spec::new(&[tokens, self.config.head_dim / 2], dtype.accumulator());
        (Tensor::shape_only(&spec), Tensor::shape_only(&spec))
    }
}

/// Opens a directory of the LLM alone and checks that it holds every parameter of its configuration, and no other;
/// load stages from it with [`Qwen3::parameters`].
///
/// # Errors
/// [`Error::Io`], [`Error::Format`].
pub fn open(directory: &Path) -> Result<(Qwen3Config, Checkpoint)> {
    let checkpoint = Checkpoint::open(directory, LLM)?;
    let config = checkpoint.config(Qwen3Config::from_json)?;
    let whole = Qwen3::parameters(&config, &Stage::whole(config.num_hidden_layers));
    checkpoint.expect(&whole, Qwen3::redundant(&config))?;
    Ok((config, checkpoint))
}

/// The positions of packed tokens: each sample counts from 0. `bounds` are the samples' starts, and the number of
/// tokens.
pub fn positions(bounds: &[usize]) -> Vec<f64> {
    bounds.windows(2).flat_map(|w| (0..w[1].saturating_sub(w[0])).map(|p| p as f64)).collect()
}
