//! Configuration of the composed model, as Hugging Face's `config.json` has it.

use crate::json::{Configuration, Fields, OneOrMany};
use crate::qwen3::Qwen3Config;
use crate::siglip::{Activation, Features, SiglipVisionConfig};
use bigmac_runtime::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LlavaConfig {
    /// Fields of the JSON file that the computation does not need; written back as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
    /// The encoder's, `vision_config` in the file.
    #[serde(skip)]
    pub vision: SiglipVisionConfig,
    /// The LLM's, `text_config` in the file.
    #[serde(skip)]
    pub text: Qwen3Config,
    /// The token that stands where an image's embeddings go.
    pub image_token_index: i32,
    /// The projector's activation.
    pub projector_hidden_act: Activation,
    /// The hidden states that the projector reads: one, or several side by side. Negative numbers count from the last.
    pub vision_feature_layer: OneOrMany<i64>,
    /// The tokens that the projector reads.
    pub vision_feature_select_strategy: SelectStrategy,
    /// Whether the projector has biases.
    pub multimodal_projector_bias: bool,
}

impl Configuration for LlavaConfig {
    const WHAT: &'static str = "LLaVA configuration";

    fn extra(&mut self) -> &mut Map<String, Value> {
        &mut self.extra
    }
}

impl LlavaConfig {
    /// An encoder and an LLM put together as LLaVA does for SigLIP: the projector reads all tokens after the last
    /// layer.
    pub fn new(vision: SiglipVisionConfig, text: Qwen3Config, image_token_index: i32) -> Self {
        LlavaConfig {
            extra: Map::new(),
            vision,
            text,
            image_token_index,
            projector_hidden_act: Activation::Exact,
            vision_feature_layer: OneOrMany::One(-1),
            vision_feature_select_strategy: SelectStrategy::Full,
            multimodal_projector_bias: true,
        }
    }

    /// From the fields of a `config.json`, with transformers' defaults for those that are missing.
    ///
    /// # Errors
    /// [`Error::Argument`](bigmac_runtime::Error::Argument) for a missing or ill-typed field, or a model that this code
    /// does not compute.
    pub fn from_json(object: &Map<String, Value>) -> Result<Self> {
        let mut fields = Fields::new(object);
        fields.one_of::<Self>("model_type", &[json!("llava")])?;
        let mut part = |field: &str| match fields.take(field) {
            Some(Value::Object(part)) => Ok(part),
            _ => Err(Self::wrong(format!("expected an object in the field '{field}'"))),
        };
        let vision = SiglipVisionConfig::from_json(&part("vision_config")?)?;
        let mut text = Qwen3Config::from_json(&part("text_config")?)?;
        // transformers reads the flag from either place.
        text.tie_word_embeddings |= fields.take("tie_word_embeddings").is_some_and(|tied| tied == true);
        let image_token = fields.take("image_token_id").unwrap_or(json!(32_000));
        fields.default("image_token_index", image_token);
        fields.default("projector_hidden_act", "gelu");
        fields.default("vision_feature_layer", -2);
        fields.default("vision_feature_select_strategy", "default");
        fields.default("multimodal_projector_bias", true);
        let config = LlavaConfig { vision, text, ..fields.parse()? };
        config.validate()?;
        Ok(config)
    }

    /// The fields of a `config.json` that transformers 4 and 5 read as `LlavaForConditionalGeneration`.
    pub fn to_json(&self) -> Map<String, Value> {
        self.fields([
            ("architectures", json!(["LlavaForConditionalGeneration"])),
            ("model_type", json!("llava")),
            ("vision_config", Value::Object(self.vision.to_json())),
            ("text_config", Value::Object(self.text.to_json())),
            ("image_seq_length", json!(self.image_tokens())),
            ("tie_word_embeddings", json!(self.text.tie_word_embeddings)),
        ])
    }

    /// Checks both parts and what joins them.
    ///
    /// # Errors
    /// [`Error::Argument`](bigmac_runtime::Error::Argument) that names the field.
    pub fn validate(&self) -> Result<()> {
        self.vision.validate()?;
        self.text.validate()?;
        self.features()?;
        if self.image_tokens() == 0 {
            let message =
                "an image has one token, and vision_feature_select_strategy 'default' drops it; use 'full'";
            return Err(Self::wrong(message));
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
    /// [`Error::Argument`](bigmac_runtime::Error::Argument) for a layer that the encoder does not have.
    pub fn features(&self) -> Result<Features> {
        let states = self.vision.num_hidden_layers as i64 + 1;
        let numbers = match &self.vision_feature_layer {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        };
        let absolute = |&number: &i64| {
            let index = if number < 0 { number + states } else { number };
            usize::try_from(index).ok().filter(|_| index < states)
        };
        let layers: Option<Vec<usize>> = numbers.iter().map(absolute).collect();
        layers.filter(|layers| !layers.is_empty()).map(Features::Hidden).ok_or_else(|| {
            let message = format!(
                "vision_feature_layer is {numbers:?}, expected numbers in {}..{states} for an encoder of {} layers",
                -states, self.vision.num_hidden_layers
            );
            Self::wrong(message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> LlavaConfig {
        let vision = SiglipVisionConfig {
            hidden_size: 96,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            image_size: 32,
            patch_size: 8,
            ..SiglipVisionConfig::default()
        };
        LlavaConfig::new(vision, Qwen3Config::default(), 255)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut config = small();
        config.vision_feature_layer = OneOrMany::Many(vec![-2, 1]);
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
        assert!(config.projector_hidden_act == Activation::Exact);
    }

    #[test]
    fn layers_that_do_not_exist_are_errors() {
        for bad in [OneOrMany::One(4), OneOrMany::One(-5), OneOrMany::Many(vec![])] {
            let config = LlavaConfig { vision_feature_layer: bad, ..small() };
            assert!(config.validate().unwrap_err().to_string().contains("vision_feature_layer"));
        }
    }
}
