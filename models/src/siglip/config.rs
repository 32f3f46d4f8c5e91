//! Configuration of the vision encoder, as Hugging Face's `config.json` has it.

use crate::json::{Configuration, Fields};
use bigmac_kernels::gelu::Gelu;
use bigmac_runtime::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

const MODEL_TYPE: &str = "siglip_vision_model";

/// Configuration of a SigLIP vision model; field names are those of transformers' `SiglipVisionConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SiglipVisionConfig {
    /// Fields of the JSON file that the computation does not need; written back as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
    /// Width D of the tokens.
    pub hidden_size: usize,
    /// Inner width of the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads; they divide the width.
    pub num_attention_heads: usize,
    /// Colour channels C.
    pub num_channels: usize,
    /// Height and width of a picture, in pixels.
    pub image_size: usize,
    /// Height and width of a patch, in pixels; it divides the image size.
    pub patch_size: usize,
    /// The MLP's activation.
    pub hidden_act: Activation,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f64,
    /// The checkpoint has an attention-pooling head. Nothing here reads it; it is kept and written back.
    pub vision_use_head: bool,
}

/// GELU in its two forms, under their names in transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// Approximated by tanh.
    #[serde(rename = "gelu_pytorch_tanh")]
    Tanh,
    /// The exact one.
    #[serde(rename = "gelu")]
    Exact,
}

impl Activation {
    /// Its operator.
    pub fn gelu(self) -> Gelu {
        Gelu { tanh: self == Activation::Tanh }
    }
}

impl Default for SiglipVisionConfig {
    /// transformers' defaults, which are those of the base model.
    fn default() -> Self {
        SiglipVisionConfig {
            extra: Map::new(),
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 16,
            hidden_act: Activation::Tanh,
            layer_norm_eps: 1e-6,
            vision_use_head: true,
        }
    }
}

impl Configuration for SiglipVisionConfig {
    const WHAT: &'static str = "vision configuration";

    fn extra(&mut self) -> &mut Map<String, Value> {
        &mut self.extra
    }
}

impl SiglipVisionConfig {
    /// From the fields of a `config.json` of a SigLIP vision model, or of a whole SigLIP model, whose `vision_config`
    /// is read. Missing fields have transformers' defaults (those of the base model), as checkpoints leave them out.
    ///
    /// # Errors
    /// [`Error::Argument`](bigmac_runtime::Error::Argument) for an ill-typed field or a model that this code does not
    /// compute.
    pub fn from_json(object: &Map<String, Value>) -> Result<Self> {
        if let Some(Value::Object(vision)) = object.get("vision_config") {
            return Self::from_json(vision);
        }
        let fields = Fields::new(object);
        fields.only::<Self>("model_type", MODEL_TYPE)?;
        let config: Self = fields.parse()?;
        config.validate()?;
        Ok(config)
    }

    /// The fields of a `config.json` that transformers reads as `SiglipVisionModel`.
    pub fn to_json(&self) -> Map<String, Value> {
        self.fields([("architectures", json!(["SiglipVisionModel"])), ("model_type", json!(MODEL_TYPE))])
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// [`Error::Argument`](bigmac_runtime::Error::Argument) that names the field.
    pub fn validate(&self) -> Result<()> {
        Self::expect_positive(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_channels", self.num_channels),
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
        ])?;
        Self::expect_multiple(
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
        )?;
        Self::expect_multiple(("image_size", self.image_size), ("patch_size", self.patch_size))
    }

    /// Tokens of one picture: one per patch.
    pub fn tokens(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_with_defaults_and_written_back() {
        let fields = json!({
            "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
            "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
            "attention_dropout": 0.0
        });
        let error = SiglipVisionConfig::from_json(fields.as_object().unwrap()).unwrap_err().to_string();
        assert!(error.contains("image_size is 384") && error.contains("14"), "{error}");
        let mut fields = fields.as_object().unwrap().clone();
        fields.insert("image_size".into(), json!(378));
        let config = SiglipVisionConfig::from_json(&fields).unwrap();
        assert!(config.vision_use_head && config.hidden_act == Activation::Tanh);
        assert_eq!((config.num_channels, config.tokens()), (3, 729));
        let written = config.to_json();
        assert_eq!(written["attention_dropout"], 0.0);
        assert_eq!(SiglipVisionConfig::from_json(&written).unwrap().to_json(), written);
        let whole = json!({"model_type": "siglip", "vision_config": written, "text_config": {}});
        assert_eq!(SiglipVisionConfig::from_json(whole.as_object().unwrap()).unwrap().image_size, 378);
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (field, value, wanted) in [
            ("model_type", json!("clip_vision_model"), "clip_vision_model"),
            ("hidden_act", json!("quick_gelu"), "quick_gelu"),
            ("num_attention_heads", json!(7), "num_attention_heads"),
            ("patch_size", json!(0), "patch_size"),
        ] {
            let fields = json!({field: value});
            let error = SiglipVisionConfig::from_json(fields.as_object().unwrap()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
