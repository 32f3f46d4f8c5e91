//! The generator's configuration, as `config.json` of diffusers' `QwenImageTransformer2DModel` holds it.

use crate::json::{Configuration, Fields};
use bigmac_runtime::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

const CLASS: &str = "QwenImageTransformer2DModel";

/// Shape of a `QwenImageTransformer2DModel`; the field names are diffusers'.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MmditConfig {
    /// Fields of the JSON file that the computation does not need; written back as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
    /// Side of the square of latent pixels that one token stands for.
    pub patch_size: usize,
    /// Channels of a token that goes in: latent planes x `patch_size`^2.
    pub in_channels: usize,
    /// Latent planes of the prediction: a token that comes out has `out_channels` x `patch_size`^2 channels.
    pub out_channels: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Width of a head.
    pub attention_head_dim: usize,
    /// Heads; the model's width is heads x width of a head.
    pub num_attention_heads: usize,
    /// Width of the text embeddings that condition it: the LLM's hidden size.
    pub joint_attention_dim: usize,
    /// How many channels of a head turn with frame, row and column; even, and together the width of a head.
    pub axes_dims_rope: [usize; 3],
}

impl Default for MmditConfig {
    /// diffusers' defaults, which are Qwen-Image's: 20 billion parameters.
    fn default() -> Self {
        MmditConfig {
            extra: Map::new(),
            patch_size: 2,
            in_channels: 64,
            out_channels: 16,
            num_layers: 60,
            attention_head_dim: 128,
            num_attention_heads: 24,
            joint_attention_dim: 3584,
            axes_dims_rope: [16, 56, 56],
        }
    }
}

impl Configuration for MmditConfig {
    const WHAT: &'static str = "generator configuration";

    fn extra(&mut self) -> &mut Map<String, Value> {
        &mut self.extra
    }
}

impl MmditConfig {
    /// Epsilon of every norm.
    pub const EPS: f64 = 1e-6;
    /// Base of the rotary frequencies.
    pub const ROPE_THETA: f64 = 10_000.0;
    /// Length of the sinusoidal features of a time.
    pub const TIME_FEATURES: usize = 256;

    /// Width of the residual streams.
    pub fn inner_dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Width of the blocks' hidden layers.
    pub fn mlp_dim(&self) -> usize {
        4 * self.inner_dim()
    }

    /// Channels of a token that comes out.
    pub fn prediction_dim(&self) -> usize {
        self.patch_size * self.patch_size * self.out_channels
    }

    /// From the fields of a `config.json`, with diffusers' defaults for those that are missing.
    ///
    /// # Errors
    /// [`Error::Argument`](bigmac_runtime::Error::Argument) for an ill-typed field, or a variant that this code does
    /// not compute (`zero_cond_t`, `use_additional_t_cond`, `use_layer3d_rope`, `guidance_embeds`).
    pub fn from_json(object: &Map<String, Value>) -> Result<Self> {
        let mut fields = Fields::new(object);
        fields.only::<Self>("_class_name", CLASS)?;
        for variant in ["zero_cond_t", "use_additional_t_cond", "use_layer3d_rope", "guidance_embeds"] {
            fields.only::<Self>(variant, false)?;
        }
        // In diffusers null planes mean as many as channels go in.
        if object.get("out_channels") == Some(&Value::Null) {
            let channels = object.get("in_channels").cloned();
            fields.default("out_channels", channels.unwrap_or(json!(Self::default().in_channels)));
        }
        let config: Self = fields.parse()?;
        config.validate()?;
        Ok(config)
    }

    /// The fields of a `config.json` that diffusers reads as `QwenImageTransformer2DModel`.
    pub fn to_json(&self) -> Map<String, Value> {
        self.fields([("_class_name", json!(CLASS))])
    }

    /// Checks what [`Mmdit`](super::Mmdit) relies on.
    ///
    /// # Errors
    /// [`Error::Argument`](bigmac_runtime::Error::Argument) that names the field.
    pub fn validate(&self) -> Result<()> {
        Self::expect_positive(&[
            ("patch_size", self.patch_size),
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("num_layers", self.num_layers),
            ("attention_head_dim", self.attention_head_dim),
            ("num_attention_heads", self.num_attention_heads),
            ("joint_attention_dim", self.joint_attention_dim),
        ])?;
        let axes = self.axes_dims_rope;
        if axes.iter().any(|d| d % 2 != 0) || axes.iter().sum::<usize>() != self.attention_head_dim {
            let wanted =
                format!("three even numbers that add up to attention_head_dim {}", self.attention_head_dim);
            return Err(Self::wrong(format!("axes_dims_rope is {axes:?}, expected {wanted}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<MmditConfig> {
        MmditConfig::from_json(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn the_published_configuration_reads_and_round_trips() {
        // Qwen/Qwen-Image, transformer/config.json.
        let json = r#"{"_class_name": "QwenImageTransformer2DModel", "_diffusers_version": "0.34.0.dev0",
            "attention_head_dim": 128, "axes_dims_rope": [16, 56, 56], "guidance_embeds": false, "in_channels": 64,
            "joint_attention_dim": 3584, "num_attention_heads": 24, "num_layers": 60, "out_channels": 16,
            "patch_size": 2, "pooled_projection_dim": 768}"#;
        let config = read(json).unwrap();
        assert_eq!((config.inner_dim(), config.mlp_dim(), config.prediction_dim()), (3072, 12_288, 64));
        assert_eq!(Value::Object(config.to_json()), serde_json::from_str::<Value>(json).unwrap());
        assert_eq!(MmditConfig { extra: Map::new(), ..config }, MmditConfig::default());
        assert_eq!(read("{}").unwrap(), MmditConfig::default());
        assert_eq!(read(r#"{"in_channels": 48, "out_channels": null}"#).unwrap().out_channels, 48);
    }

    #[test]
    fn what_the_model_does_not_have_is_named() {
        let error = |json: &str| read(json).unwrap_err().to_string();
        assert!(error(r#"{"zero_cond_t": true}"#).contains("zero_cond_t"));
        assert!(error(r#"{"_class_name": "FluxTransformer2DModel"}"#).contains("FluxTransformer2DModel"));
        assert!(error(r#"{"axes_dims_rope": [16, 55, 57]}"#).contains("even"));
        assert!(error(r#"{"attention_head_dim": 64}"#).contains("add up to attention_head_dim 64"));
        assert!(error(r#"{"num_layers": 0}"#).contains("num_layers"));
        assert!(error(r#"{"in_channels": "64"}"#).contains("64"));
    }
}
