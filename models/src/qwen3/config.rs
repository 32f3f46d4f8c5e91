//! Configuration of the decoder LLM, as Hugging Face's `config.json` has it.

use crate::json::{expect, expect_positive, parse};
use bigmac_runtime::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};

const WHAT: &str = "LLM configuration";

/// Configuration of a Qwen3 dense model, or of a Llama one: the same without q/k norm.
///
/// Field names are those of `Qwen3Config` and `LlamaConfig` in transformers.
#[derive(Clone, Debug, PartialEq)]
pub struct Qwen3Config {
    /// Number of tokens V.
    pub vocab_size: usize,
    /// Width D of the hidden states.
    pub hidden_size: usize,
    /// Inner width of the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; the query heads are a multiple of them.
    pub num_key_value_heads: usize,
    /// Width of a head; even, and independent of `hidden_size`.
    pub head_dim: usize,
    /// Added to the mean square in every RMS norm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// RMS norm of every query and key head before the rotation: Qwen3 has it, Llama doesn't.
    pub qk_norm: bool,
    /// The output matrix is the embedding table.
    pub tie_word_embeddings: bool,
    /// Biases on the q, k, v and o projections.
    pub attention_bias: bool,
    /// Biases in the MLP.
    pub mlp_bias: bool,
    /// Standard deviation of the embedding table at the start.
    pub initializer_range: f64,
    /// Tokens after which generation stops.
    pub eos_tokens: Vec<i32>,
    /// Fields of the JSON file that the computation doesn't need; written back as they were.
    pub extra: Map<String, Value>,
}

impl Default for Qwen3Config {
    /// A small model: four layers of width 128.
    fn default() -> Self {
        Qwen3Config {
            vocab_size: 256,
            hidden_size: 128,
            intermediate_size: 384,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            num_key_value_heads: 4,
            head_dim: 32,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            qk_norm: true,
            tie_word_embeddings: true,
            attention_bias: false,
            mlp_bias: false,
            initializer_range: 0.02,
            eos_tokens: Vec::new(),
            extra: Map::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Tokens {
    One(i32),
    Many(Vec<i32>),
}

#[derive(Deserialize)]
struct RopeParameters {
    rope_type: Option<String>,
    #[serde(rename = "type")]
    old_type: Option<String>,
    rope_theta: Option<f64>,
}

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_parameters: Option<RopeParameters>,
    rope_scaling: Option<RopeParameters>,
    hidden_act: Option<String>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    initializer_range: Option<f64>,
    use_sliding_window: Option<bool>,
    eos_token_id: Option<Tokens>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl Qwen3Config {
    /// From the fields of a `config.json`, with transformers' defaults for those that are missing.
    ///
    /// # Errors
    /// [`Error::Argument`] for a missing or ill-typed field, or a model that this code doesn't compute (another
    /// activation, scaled rotary frequencies, sliding windows).
    pub fn from_json(object: &Map<String, Value>) -> Result<Self> {
        let raw: Raw = parse(WHAT, object)?;
        expect(WHAT, "model_type", &raw.model_type.as_str(), &["qwen3", "llama"])?;
        let qk_norm = raw.model_type == "qwen3";
        expect(WHAT, "hidden_act", &raw.hidden_act.as_deref().unwrap_or("silu"), &["silu"])?;
        expect(WHAT, "use_sliding_window", &raw.use_sliding_window.unwrap_or(false), &[false])?;
        for rope in raw.rope_parameters.iter().chain(&raw.rope_scaling) {
            let kind = rope.rope_type.as_deref().or(rope.old_type.as_deref()).unwrap_or("default");
            expect(WHAT, "rope_type", &kind, &["default"])?;
        }
        let head_dim = match raw.head_dim {
            Some(dim) => dim,
            None if qk_norm => 128,
            None => raw.hidden_size / raw.num_attention_heads.max(1),
        };
        let config = Qwen3Config {
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            num_hidden_layers: raw.num_hidden_layers,
            num_attention_heads: raw.num_attention_heads,
            num_key_value_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim,
            rms_norm_eps: raw.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: raw
                .rope_parameters
                .and_then(|rope| rope.rope_theta)
                .or(raw.rope_theta)
                .unwrap_or(10_000.0),
            qk_norm,
            tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(false),
            attention_bias: raw.attention_bias.unwrap_or(false),
            mlp_bias: raw.mlp_bias.unwrap_or(false),
            initializer_range: raw.initializer_range.unwrap_or(0.02),
            eos_tokens: match raw.eos_token_id {
                None => Vec::new(),
                Some(Tokens::One(token)) => vec![token],
                Some(Tokens::Many(tokens)) => tokens,
            },
            extra: raw.extra,
        };
        config.validate()?;
        Ok(config)
    }

    /// The fields of a `config.json` that transformers 4 and 5 read as `Qwen3ForCausalLM` or `LlamaForCausalLM`.
    pub fn to_json(&self) -> Map<String, Value> {
        let (kind, class) =
            if self.qk_norm { ("qwen3", "Qwen3ForCausalLM") } else { ("llama", "LlamaForCausalLM") };
        let eos = match self.eos_tokens[..] {
            [] => Value::Null,
            [one] => json!(one),
            _ => json!(self.eos_tokens),
        };
        let mut object = self.extra.clone();
        let fields = [
            ("architectures", json!([class])),
            ("model_type", json!(kind)),
            ("vocab_size", json!(self.vocab_size)),
            ("hidden_size", json!(self.hidden_size)),
            ("intermediate_size", json!(self.intermediate_size)),
            ("num_hidden_layers", json!(self.num_hidden_layers)),
            ("num_attention_heads", json!(self.num_attention_heads)),
            ("num_key_value_heads", json!(self.num_key_value_heads)),
            ("head_dim", json!(self.head_dim)),
            ("hidden_act", json!("silu")),
            ("rms_norm_eps", json!(self.rms_norm_eps)),
            // transformers 4 reads the first, transformers 5 the second.
            ("rope_theta", json!(self.rope_theta)),
            ("rope_parameters", json!({"rope_type": "default", "rope_theta": self.rope_theta})),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
            ("attention_bias", json!(self.attention_bias)),
            ("initializer_range", json!(self.initializer_range)),
            ("eos_token_id", eos),
        ];
        object.extend(fields.map(|(name, value)| (name.to_owned(), value)));
        if !self.qk_norm {
            object.insert("mlp_bias".to_owned(), json!(self.mlp_bias));
        }
        object
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the field.
    pub fn validate(&self) -> Result<()> {
        expect_positive(
            WHAT,
            &[
                ("vocab_size", self.vocab_size),
                ("hidden_size", self.hidden_size),
                ("intermediate_size", self.intermediate_size),
                ("num_attention_heads", self.num_attention_heads),
                ("num_key_value_heads", self.num_key_value_heads),
                ("head_dim", self.head_dim),
            ],
        )?;
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let message = format!(
                "num_attention_heads is {}, wanted a multiple of num_key_value_heads, which is {}",
                self.num_attention_heads, self.num_key_value_heads
            );
            return Err(Error::argument(WHAT, message));
        }
        if !self.head_dim.is_multiple_of(2) {
            let message = format!("head_dim is {}, wanted an even number: rotary pairs", self.head_dim);
            return Err(Error::argument(WHAT, message));
        }
        if self.qk_norm && self.mlp_bias {
            return Err(Error::argument(WHAT, "Qwen3 has no biases in its MLP; set mlp_bias to false"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn qwen3() -> Map<String, Value> {
        object(json!({
            "model_type": "qwen3", "vocab_size": 50, "hidden_size": 16, "intermediate_size": 20,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
            "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "eos_token_id": [3, 4],
            "tie_word_embeddings": true, "max_position_embeddings": 512
        }))
    }

    #[test]
    fn fields_are_read_and_unknown_ones_survive() {
        let config = Qwen3Config::from_json(&qwen3()).unwrap();
        assert!(config.qk_norm && config.tie_word_embeddings);
        assert_eq!((config.rope_theta, config.head_dim, &config.eos_tokens[..]), (5e5, 8, &[3, 4][..]));
        let written = config.to_json();
        assert_eq!(written["max_position_embeddings"], 512);
        assert_eq!(Qwen3Config::from_json(&written).unwrap().to_json(), written);
    }

    #[test]
    fn llama_has_no_qk_norm_and_derives_its_head() {
        let mut fields = qwen3();
        fields.insert("model_type".into(), json!("llama"));
        fields.remove("head_dim");
        fields.remove("rope_parameters");
        fields.insert("rope_theta".into(), json!(2e4));
        let config = Qwen3Config::from_json(&fields).unwrap();
        assert!(!config.qk_norm);
        assert_eq!((config.head_dim, config.rope_theta), (4, 2e4));
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        let cases = [
            ("model_type", json!("mamba"), "mamba"),
            ("hidden_act", json!("gelu"), "gelu"),
            ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0}), "yarn"),
            ("rope_scaling", json!({"type": "linear", "factor": 4.0}), "linear"),
            ("use_sliding_window", json!(true), "use_sliding_window"),
            ("num_key_value_heads", json!(3), "multiple"),
            ("head_dim", json!(7), "even"),
            ("hidden_size", json!(0), "hidden_size"),
            ("vocab_size", json!("many"), "many"),
        ];
        for (field, value, wanted) in cases {
            let mut fields = qwen3();
            fields.insert(field.into(), value);
            let error = Qwen3Config::from_json(&fields).unwrap_err().to_string();
            assert!(error.contains(wanted), "{field}: {error}");
        }
        let mut fields = qwen3();
        fields.remove("hidden_size");
        assert!(Qwen3Config::from_json(&fields).unwrap_err().to_string().contains("hidden_size"));
    }
}
