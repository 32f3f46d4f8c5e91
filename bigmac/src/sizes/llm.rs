//! The LLM: Qwen3's decoder, dense or with experts, on one sequence.

use super::work::{Frame, Part, STATISTIC, product, sum};
use crate::value::{ValueError, all_counts, divisor, require};
use serde::{Deserialize, Serialize};

/// Sizes of the LLM: Qwen3's (`Qwen3ForCausalLM`), or Llama's, which is the same without q/k norm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Llm {
    /// Width of the hidden states.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of the MLP that every token passes, beside experts where there are any; 0: none.
    #[serde(default)]
    pub mlp: usize,
    /// Base of the rotary embedding.
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
    /// Queries and keys are normalised (Qwen3) or not (Llama).
    #[serde(default = "yes")]
    pub qk_norm: bool,
    /// The embedding is the output projection too.
    #[serde(default)]
    pub tied: bool,
    /// True: its weights stay.
    #[serde(default)]
    pub frozen: bool,
    /// True: its layers save their inputs alone, and are computed again in the backward. A plan says it itself.
    #[serde(default)]
    pub recompute: bool,
    /// Entries of the vocabulary; 0 in a configuration, where the tokenizer says it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vocabulary: usize,
    /// Experts beside the MLP or in its place, in every layer. Plans only, as this runtime has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experts: Option<Experts>,
}

/// Experts of a layer, each a SwiGLU MLP of its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experts {
    /// How many there are.
    pub count: usize,
    /// How many a token passes.
    pub active: usize,
    /// Width of each.
    pub mlp: usize,
}

fn rope_theta() -> f64 {
    10_000.0
}

fn yes() -> bool {
    true
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Default for Llm {
    /// That of the default run.
    fn default() -> Self {
        Llm {
            width: 96,
            layers: 3,
            heads: 4,
            kv_heads: 4,
            head_dim: 24,
            mlp: 256,
            rope_theta: rope_theta(),
            qk_norm: true,
            tied: true,
            frozen: false,
            recompute: false,
            vocabulary: 0,
            experts: None,
        }
    }
}

/// Pairs of a query and a key in causal attention over a sequence of that many tokens.
pub fn causal_pairs(tokens: usize) -> f64 {
    tokens as f64 * (tokens as f64 + 1.0) / 2.0
}

impl Llm {
    /// Checks that the sizes fit each other.
    pub fn check(&self) -> Result<(), ValueError> {
        // Experts may be in the MLP's place.
        let no_mlp = usize::from(self.experts.is_some());
        all_counts("llm", &Llm { mlp: self.mlp.max(no_mlp), ..self.clone() })?;
        divisor("llm.kv_heads", self.kv_heads, "llm.heads", self.heads)?;
        self.experts.map_or(Ok(()), |Experts { count, active, .. }| {
            let most = format!("at most llm.experts.count = {count}");
            require(active <= count, "llm.experts.active", active, most)
        })
    }

    /// One layer on one sequence of that many tokens, with causal attention over all of it.
    pub fn layer(&self, tokens: usize, bytes: usize) -> Part {
        self.packed_layer(tokens, causal_pairs(tokens), bytes)
    }

    /// One layer on sequences of that many tokens together, with attention over `pairs` of a query and a key.
    ///
    /// It saves per token: 4 vectors of the width (input, first norm, second residual, second norm), queries, keys
    /// before and after their norm, values, attention's output, statistics; of an MLP its gate, up and their product;
    /// of experts those for each that is chosen, the rows that are sent to it and that come back, and the router's
    /// scores.
    pub fn packed_layer(&self, tokens: usize, pairs: f64, bytes: usize) -> Part {
        let (queries, keys) = (product([self.heads, self.head_dim]), product([self.kv_heads, self.head_dim]));
        let linear = |inputs, outputs| Part::linear(tokens, inputs, outputs, false, bytes);
        let raw = if self.qk_norm { sum([queries, keys]) } else { 0 };
        let norms = if self.qk_norm { sum([self.heads, self.kv_heads]) } else { 0 };
        let vectors = sum([
            product([4, self.width]),
            raw,
            product([2, queries]),
            product([2, keys]),
            product([3, self.mlp]),
        ]);
        let kept = sum([product([bytes, vectors]), product([STATISTIC, sum([2, norms, self.heads])])]);
        let weights = product([2, sum([self.width, if self.qk_norm { self.head_dim } else { 0 }])]);
        linear(self.width, queries)
            + linear(self.width, keys).times(2)
            + linear(queries, self.width)
            + Part::attention(pairs, queries)
            + linear(self.width, self.mlp).times(2)
            + linear(self.mlp, self.width)
            + self.experts.map_or_else(Part::default, |experts| self.routed(&experts, tokens, bytes))
            + Part::parameters(weights)
            + Part::kept(product([tokens, kept]))
    }

    fn routed(&self, experts: &Experts, tokens: usize, bytes: usize) -> Part {
        let grouped =
            |inputs, outputs| Part::experts(tokens, (experts.count, experts.active), inputs, outputs, bytes);
        let vectors = sum([product([2, self.width]), product([3, experts.mlp])]);
        let scores = product([STATISTIC, experts.count]);
        let kept = sum([product([bytes, experts.active, vectors]), scores]);
        grouped(self.width, experts.mlp).times(2)
            + grouped(experts.mlp, self.width)
            + Part::linear(tokens, self.width, experts.count, false, bytes)
            + Part::kept(product([tokens, kept]))
    }

    /// What comes before the first layer: the embedding, which a product with is a look-up.
    pub fn embedding(&self) -> Part {
        Part::parameters(product([self.vocabulary, self.width]))
    }

    /// What comes after the last layer: norm, output projection, cross-entropy over chunks of the vocabulary. The loss
    /// keeps the normed states and a statistic per token, and computes its logits again in each gradient.
    pub fn head(&self, tokens: usize, bytes: usize) -> Part {
        let mut output = Part::linear(tokens, self.width, self.vocabulary, false, bytes);
        output.backward_input.dense *= 2.0;
        output.backward_weight.dense *= 2.0;
        if self.tied {
            (output.parameters, output.active, output.trained) = (0, 0, 0);
        }
        let kept = sum([product([2, bytes, self.width]), 2 * STATISTIC]);
        output + Part::parameters(self.width) + Part::kept(product([tokens, kept]))
    }

    /// Everything, on one sequence of the model's.
    pub fn whole(&self, frame: Frame) -> Part {
        let (tokens, bytes) = (frame.sequence, frame.value_bytes);
        self.embedding() + self.layer(tokens, bytes).times(self.layers) + self.head(tokens, bytes)
    }

    /// Bytes of the hidden states of a sequence.
    pub fn hidden_bytes(&self, frame: Frame) -> u64 {
        product([frame.sequence, self.width, frame.value_bytes]) as u64
    }
}
