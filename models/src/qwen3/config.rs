//! Configuration of the decoder LLM, as Hugging Face's `config.json` has it.

use crate::json::{Configuration, Fields, OneOrMany, one_of};
use bigmac_runtime::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Configuration of a Qwen3 dense model, or of a Llama one: the same without q/k norm.
///
/// Field names are those of `Qwen3Config` and `LlamaConfig` in transformers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Qwen3Config {
    /// Fields of the JSON file that the computation does not need; written back as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
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
    /// RMS norm of every query and key head before the rotation: Qwen3 has it, Llama does not.
    #[serde(skip)]
    pub qk_norm: bool,
    /// The output matrix is the embedding table.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Biases on the q, k, v and o projections.
    #[serde(default)]
    pub attention_bias: bool,
    /// Biases in the MLP.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Standard deviation of the embedding table at the start.
    pub initializer_range: f64,
    /// Tokens after which generation stops.
    pub eos_token_id: Option<OneOrMany<i32>>,
}

impl Default for Qwen3Config {
    /// A small model: four layers of width 128.
    fn default() -> Self {
        Qwen3Config {
            extra: Map::new(),
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
            eos_token_id: None,
        }
    }
}

impl Configuration for Qwen3Config {
    const WHAT: &'static str = "LLM configuration";

    fn extra(&mut self) -> &mut Map<String, Value> {
        &mut self.extra
    }
}

impl Qwen3Config {
    /// From the fields of a `config.json`, with transformers' defaults for those that are missing.
    ///
    /// # Errors
    /// [`Error::Argument`](bigmac_runtime::Error::Argument) for a missing or ill-typed field, or a model that this code
    /// does not compute (another activation, scaled rotary frequencies, sliding windows).
    pub fn from_json(object: &Map<String, Value>) -> Result<Self> {
        let mut fields = Fields::new(object);
        let kind = fields.one_of::<Self>("model_type", &[json!("qwen3"), json!("llama")])?;
        let qk_norm = kind == "qwen3";
        fields.only::<Self>("hidden_act", "silu")?;
        fields.only::<Self>("use_sliding_window", false)?;
        let rope = fields.take("rope_parameters").unwrap_or_default();
        for rope in [&rope, &fields.take("rope_scaling").unwrap_or_default()] {
            let kind = rope.get("rope_type").or(rope.get("type"));
            one_of::<Self>("rope_type", kind.unwrap_or(&json!("default")), &[json!("default")])?;
        }
        if let Some(theta) = rope.get("rope_theta") {
            fields.take("rope_theta");
            fields.default("rope_theta", theta.clone());
        }
        let heads = fields.count("num_attention_heads");
        let head_dim = if qk_norm { 128 } else { fields.count("hidden_size") / heads.max(1) };
        fields.default("num_key_value_heads", heads);
        fields.default("head_dim", head_dim);
        fields.default("rms_norm_eps", 1e-6);
        fields.default("rope_theta", 10_000.0);
        fields.default("initializer_range", 0.02);
        let config = Qwen3Config { qk_norm, ..fields.parse()? };
        config.validate()?;
        Ok(config)
    }

    /// The fields of a `config.json` that transformers 4 and 5 read as `Qwen3ForCausalLM` or `LlamaForCausalLM`.
    pub fn to_json(&self) -> Map<String, Value> {
        let (kind, class) =
            if self.qk_norm { ("qwen3", "Qwen3ForCausalLM") } else { ("llama", "LlamaForCausalLM") };
        let mut object = self.fields([
            ("architectures", json!([class])),
            ("model_type", json!(kind)),
            ("hidden_act", json!("silu")),
            // transformers 5 reads this one, transformers 4 the field of its own.
            ("rope_parameters", json!({"rope_type": "default", "rope_theta": self.rope_theta})),
        ]);
        if self.qk_norm {
            object.remove("mlp_bias");
        }
        object
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// [`Error::Argument`](bigmac_runtime::Error::Argument) that names the field.
    pub fn validate(&self) -> Result<()> {
        Self::expect_positive(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
        ])?;
        Self::expect_multiple(
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
        )?;
        if !self.head_dim.is_multiple_of(2) {
            return Err(Self::wrong(format!(
                "head_dim is {}, expected an even number, since channels rotate in pairs",
                self.head_dim
            )));
        }
        if self.qk_norm && self.mlp_bias {
            return Err(Self::wrong("Qwen3 has no biases in its MLP; set mlp_bias to false"));
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
        assert_eq!(
            (config.rope_theta, config.head_dim, config.eos_token_id.clone()),
            (5e5, 8, Some(OneOrMany::Many(vec![3, 4])))
        );
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
