//! Configuration of the composed model, as Hugging Face's `config.json` has it.

use crate::json::parse;
use crate::qwen3::Qwen3Config;
use crate::siglip::{Features, SiglipVisionConfig, gelu_is_tanh, gelu_name};
use bigmac_runtime::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

const WHAT: &str = "LLaVA configuration";

/// Which hidden states of the encoder the projector reads: one, or several side by side. Negative numbers count from the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FeatureLayers {
    /// One.
    One(i64),
    /// Several.
    Many(Vec<i64>),
}

/// What the projector reads of the encoder's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SelectStrategy {
    /// All but the first one, which is the class token in CLIP.
    Default,
    /// All: right for SigLIP, which has no class token.
    Full,
}

/// Configuration of encoder, projector and LLM; field names are those of transformers' `LlavaConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct LlavaConfig {
    /// The encoder's.
    pub vision: SiglipVisionConfig,
    /// The LLM's.
    pub text: Qwen3Config,
    /// The token that stands where an image's embeddings go.
    pub image_token_index: i32,
    /// The projector's activation is GELU by tanh, or the exact one (LLaVA's).
    pub projector_gelu_tanh: bool,
    /// The hidden states that the projector reads.
    pub vision_feature_layer: FeatureLayers,
    /// The tokens that the projector reads.
    pub vision_feature_select_strategy: SelectStrategy,
    /// Whether the projector has biases.
    pub multimodal_projector_bias: bool,
    /// Fields of the JSON file that the computation doesn't need; written back as they were.
    pub extra: Map<String, Value>,
}

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    vision_config: Map<String, Value>,
    text_config: Map<String, Value>,
    #[serde(alias = "image_token_id")]
    image_token_index: Option<i32>,
    projector_hidden_act: Option<String>,
    vision_feature_layer: Option<FeatureLayers>,
    vision_feature_select_strategy: Option<SelectStrategy>,
    multimodal_projector_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl LlavaConfig {
    /// An encoder and an LLM put together as LLaVA does for SigLIP: the projector reads all tokens behind the last layer.
    pub fn new(vision: SiglipVisionConfig, text: Qwen3Config, image_token_index: i32) -> Self {
        LlavaConfig {
            vision,
            text,
            image_token_index,
            projector_gelu_tanh: false,
            vision_feature_layer: FeatureLayers::One(-1),
            vision_feature_select_strategy: SelectStrategy::Full,
            multimodal_projector_bias: true,
            extra: Map::new(),
        }
    }

    /// From the fields of a `config.json`, with transformers' defaults for those that are missing.
    ///
    /// # Errors
    /// [`Error::Argument`] for a missing or ill-typed field, or a model that this code doesn't compute.
    pub fn from_json(object: &Map<String, Value>) -> Result<Self> {
        let raw: Raw = parse(WHAT, object)?;
        crate::json::expect(WHAT, "model_type", &raw.model_type.as_str(), &["llava"])?;
        let mut text = Qwen3Config::from_json(&raw.text_config)?;
        // transformers reads the flag from either place.
        text.tie_word_embeddings |= raw.tie_word_embeddings.unwrap_or(false);
        let activation = raw.projector_hidden_act.as_deref().unwrap_or("gelu");
        let config = LlavaConfig {
            vision: SiglipVisionConfig::from_json(&raw.vision_config)?,
            text,
            image_token_index: raw.image_token_index.unwrap_or(32_000),
            projector_gelu_tanh: gelu_is_tanh(WHAT, "projector_hidden_act", activation)?,
            vision_feature_layer: raw.vision_feature_layer.unwrap_or(FeatureLayers::One(-2)),
            vision_feature_select_strategy: raw
                .vision_feature_select_strategy
                .unwrap_or(SelectStrategy::Default),
            multimodal_projector_bias: raw.multimodal_projector_bias.unwrap_or(true),
            extra: raw.extra,
        };
        config.validate()?;
        Ok(config)
    }

    /// The fields of a `config.json` that transformers 4 and 5 read as `LlavaForConditionalGeneration`.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut object = self.extra.clone();
        let fields = [
            ("architectures", json!(["LlavaForConditionalGeneration"])),
            ("model_type", json!("llava")),
            ("vision_config", Value::Object(self.vision.to_json())),
            ("text_config", Value::Object(self.text.to_json())),
            ("image_token_index", json!(self.image_token_index)),
            ("image_seq_length", json!(self.image_tokens())),
            ("projector_hidden_act", json!(gelu_name(self.projector_gelu_tanh))),
            ("vision_feature_layer", json!(self.vision_feature_layer)),
            ("vision_feature_select_strategy", json!(self.vision_feature_select_strategy)),
            ("multimodal_projector_bias", json!(self.multimodal_projector_bias)),
            ("tie_word_embeddings", json!(self.text.tie_word_embeddings)),
        ];
        object.extend(fields.map(|(name, value)| (name.to_owned(), value)));
        object
    }

    /// Checks both parts and what joins them.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the field.
    pub fn validate(&self) -> Result<()> {
        self.vision.validate()?;
        self.text.validate()?;
        self.features()?;
        if self.image_tokens() == 0 {
            let message =
                "an image has one token, and vision_feature_select_strategy 'default' drops it; use 'full'";
            return Err(Error::argument(WHAT, message));
        }
        Ok(())
    }

    /// Embeddings that one image (or tile) becomes in the LLM's sequence.
    pub fn image_tokens(&self) -> usize {
        let dropped = usize::from(self.vision_feature_select_strategy == SelectStrategy::Default);
        self.vision.tokens().saturating_sub(dropped)
    }

    /// The encoder's states that the projector reads.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no such layer.
    pub fn features(&self) -> Result<Features> {
        let states = self.vision.num_hidden_layers as i64 + 1;
        let numbers = match &self.vision_feature_layer {
            FeatureLayers::One(one) => std::slice::from_ref(one),
            FeatureLayers::Many(many) => many,
        };
        let absolute = |&number: &i64| {
            let index = if number < 0 { number + states } else { number };
            usize::try_from(index).ok().filter(|_| index < states)
        };
        let layers: Option<Vec<usize>> = numbers.iter().map(absolute).collect();
        layers.filter(|layers| !layers.is_empty()).map(Features::Hidden).ok_or_else(|| {
            let message = format!(
                "vision_feature_layer is {numbers:?}, wanted numbers in {}..{states} for an encoder of {} layers",
                -states, self.vision.num_hidden_layers
            );
            Error::argument(WHAT, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> LlavaConfig {
        LlavaConfig::new(SiglipVisionConfig::default(), Qwen3Config::default(), 255)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut config = small();
        config.vision_feature_layer = FeatureLayers::Many(vec![-2, 1]);
        config.extra.insert("torch_dtype".into(), json!("bfloat16"));
        let written = config.to_json();
        assert_eq!(written["image_seq_length"], 16);
        assert_eq!(LlavaConfig::from_json(&written).unwrap().to_json(), written);
        assert_eq!(config.features().unwrap(), Features::Hidden(vec![2, 1]));
    }

    #[test]
    fn missing_fields_have_the_defaults_of_transformers() {
        let mut written = small().to_json();
        for field in ["vision_feature_layer", "vision_feature_select_strategy", "projector_hidden_act"] {
            written.remove(field);
        }
        let config = LlavaConfig::from_json(&written).unwrap();
        assert_eq!(config.features().unwrap(), Features::Hidden(vec![2]));
        assert_eq!(config.image_tokens(), 15);
        assert!(!config.projector_gelu_tanh);
    }

    #[test]
    fn layers_that_do_not_exist_are_errors() {
        for bad in [FeatureLayers::One(4), FeatureLayers::One(-5), FeatureLayers::Many(vec![])] {
            let config = LlavaConfig { vision_feature_layer: bad, ..small() };
            assert!(config.validate().unwrap_err().to_string().contains("vision_feature_layer"));
        }
    }
}
