//! Configuration of the vision encoder, as Hugging Face's `config.json` has it.

use crate::json::{expect, expect_positive, parse};
use bigmac_runtime::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};

const WHAT: &str = "vision configuration";

/// Configuration of a SigLIP vision model; field names are those of transformers' `SiglipVisionConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct SiglipVisionConfig {
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
    /// The activation is GELU by tanh (SigLIP's), or the exact one.
    pub gelu_tanh: bool,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f64,
    /// The checkpoint has an attention-pooling head. Nothing here reads it; it is kept and written back.
    pub vision_use_head: bool,
    /// Fields of the JSON file that the computation doesn't need; written back as they were.
    pub extra: Map<String, Value>,
}

impl Default for SiglipVisionConfig {
    /// A small model: three layers of width 96 over pictures of 32 by 32, in patches of 8.
    fn default() -> Self {
        SiglipVisionConfig {
            hidden_size: 96,
            intermediate_size: 384,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            num_channels: 3,
            image_size: 32,
            patch_size: 8,
            gelu_tanh: true,
            layer_norm_eps: 1e-6,
            vision_use_head: false,
            extra: Map::new(),
        }
    }
}

#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_channels: Option<usize>,
    image_size: Option<usize>,
    patch_size: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    vision_use_head: Option<bool>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl SiglipVisionConfig {
    /// From the fields of a `config.json` of a SigLIP vision model, or of a whole SigLIP model, whose `vision_config`
    /// is read. Missing fields have transformers' defaults (those of the base model), as checkpoints leave them out.
    ///
    /// # Errors
    /// [`Error::Argument`] for an ill-typed field or a model that this code doesn't compute.
    pub fn from_json(object: &Map<String, Value>) -> Result<Self> {
        if let Some(Value::Object(vision)) = object.get("vision_config") {
            return Self::from_json(vision);
        }
        let raw: Raw = parse(WHAT, object)?;
        let kind = raw.model_type.as_deref().unwrap_or("siglip_vision_model");
        expect(WHAT, "model_type", &kind, &["siglip_vision_model"])?;
        let activation = raw.hidden_act.as_deref().unwrap_or("gelu_pytorch_tanh");
        let config = SiglipVisionConfig {
            hidden_size: raw.hidden_size.unwrap_or(768),
            intermediate_size: raw.intermediate_size.unwrap_or(3072),
            num_hidden_layers: raw.num_hidden_layers.unwrap_or(12),
            num_attention_heads: raw.num_attention_heads.unwrap_or(12),
            num_channels: raw.num_channels.unwrap_or(3),
            image_size: raw.image_size.unwrap_or(224),
            patch_size: raw.patch_size.unwrap_or(16),
            gelu_tanh: gelu_is_tanh(WHAT, "hidden_act", activation)?,
            layer_norm_eps: raw.layer_norm_eps.unwrap_or(1e-6),
            vision_use_head: raw.vision_use_head.unwrap_or(true),
            extra: raw.extra,
        };
        config.validate()?;
        Ok(config)
    }

    /// The fields of a `config.json` that transformers reads as `SiglipVisionModel`.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut object = self.extra.clone();
        let fields = [
            ("architectures", json!(["SiglipVisionModel"])),
            ("model_type", json!("siglip_vision_model")),
            ("hidden_size", json!(self.hidden_size)),
            ("intermediate_size", json!(self.intermediate_size)),
            ("num_hidden_layers", json!(self.num_hidden_layers)),
            ("num_attention_heads", json!(self.num_attention_heads)),
            ("num_channels", json!(self.num_channels)),
            ("image_size", json!(self.image_size)),
            ("patch_size", json!(self.patch_size)),
            ("hidden_act", json!(gelu_name(self.gelu_tanh))),
            ("layer_norm_eps", json!(self.layer_norm_eps)),
            ("vision_use_head", json!(self.vision_use_head)),
        ];
        object.extend(fields.map(|(name, value)| (name.to_owned(), value)));
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
                ("hidden_size", self.hidden_size),
                ("intermediate_size", self.intermediate_size),
                ("num_attention_heads", self.num_attention_heads),
                ("num_channels", self.num_channels),
                ("image_size", self.image_size),
                ("patch_size", self.patch_size),
            ],
        )?;
        for (what, whole, part) in [
            (
                "hidden_size is {}, wanted a multiple of num_attention_heads",
                self.hidden_size,
                self.num_attention_heads,
            ),
            ("image_size is {}, wanted a multiple of patch_size", self.image_size, self.patch_size),
        ] {
            if !whole.is_multiple_of(part) {
                let message = format!("{}, which is {part}", what.replace("{}", &whole.to_string()));
                return Err(Error::argument(WHAT, message));
            }
        }
        Ok(())
    }

    /// Tokens of one picture: one per patch.
    pub fn tokens(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }
}

/// Whether an activation named as in transformers is GELU by tanh or the exact one.
pub(crate) fn gelu_is_tanh(what: &'static str, field: &str, name: &str) -> Result<bool> {
    expect(what, field, &name, &["gelu_pytorch_tanh", "gelu"])?;
    Ok(name == "gelu_pytorch_tanh")
}

/// The inverse of [`gelu_is_tanh`].
pub(crate) fn gelu_name(tanh: bool) -> &'static str {
    if tanh { "gelu_pytorch_tanh" } else { "gelu" }
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
        assert!(config.vision_use_head && config.gelu_tanh);
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
