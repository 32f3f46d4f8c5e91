//! Parameter names in checkpoints of the encoder, the LLM and both together.
//!
//! A module's own names are those of the published checkpoints: `vision_model.`... for SigLIP,
//! `multi_modal_projector.`..., `model.`... and `lm_head.weight` for the LLM. In a LLaVA checkpoint the encoder's have
//! the prefix `vision_tower.` and the LLM's `language_model.`: that layout is written, since transformers 4 and 5 both
//! read it. Read are also the layouts of transformers 5's own modules (`model.vision_tower.`...,
//! `model.language_model.`..., `lm_head.weight`) and files (`vision_tower.` or nothing in place of `vision_model.`).

use crate::weights::{Format, TRANSFORMERS};

/// Prefix of every parameter of the encoder.
pub(crate) const ENCODER: &str = "vision_model.";
/// Prefix of every parameter of the projector.
pub(crate) const PROJECTOR: &str = "multi_modal_projector.";

/// True for a parameter of the projector, by its name in the encoder's module.
pub fn is_of_projector(parameter: &str) -> bool {
    parameter.starts_with(PROJECTOR)
}

/// Buffers that old checkpoints hold beside the parameters; they follow from the configuration.
const BUFFERS: [&str; 2] = ["embeddings.position_ids", "rotary_emb.inv_freq"];

/// Names of `LlavaForConditionalGeneration`.
pub const LLAVA: Format = Format { file: TRANSFORMERS, read: read_llava, write: write_llava };
/// Names of `Qwen3ForCausalLM` and `LlamaForCausalLM`.
pub const LLM: Format = Format { file: TRANSFORMERS, read: read_llm, write: str::to_owned };
/// Names of `SiglipVisionModel`, and of the vision half of `SiglipModel`.
pub const SIGLIP: Format = Format { file: TRANSFORMERS, read: read_siglip, write: str::to_owned };

fn is_buffer(name: &str) -> bool {
    BUFFERS.iter().any(|buffer| name.ends_with(buffer))
}

fn read_llm(name: &str) -> Option<String> {
    (!is_buffer(name)).then(|| name.to_owned())
}

fn read_siglip(name: &str) -> Option<String> {
    let other_half = ["text_model.", "logit_scale", "logit_bias"].iter().any(|p| name.starts_with(p));
    let bare = name.strip_prefix(ENCODER).unwrap_or(name);
    (!other_half && !is_buffer(name)).then(|| format!("{}{bare}", ENCODER))
}

fn read_llava(name: &str) -> Option<String> {
    if is_buffer(name) {
        return None;
    }
    let part = name.strip_prefix("model.").unwrap_or(name);
    if let Some(vision) = part.strip_prefix("vision_tower.") {
        return read_siglip(vision);
    }
    if let Some(text) = part.strip_prefix("language_model.") {
        let own = text.starts_with("model.") || text.starts_with("lm_head.");
        return Some(if own { text.to_owned() } else { format!("model.{text}") });
    }
    Some(if part.starts_with(PROJECTOR) { part } else { name }.to_owned())
}

fn write_llava(name: &str) -> String {
    if name.starts_with(ENCODER) {
        format!("vision_tower.{name}")
    } else if name.starts_with(PROJECTOR) {
        name.to_owned()
    } else {
        format!("language_model.{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_of_a_llava_checkpoint_is_read() {
        let own = [
            "vision_model.encoder.layers.0.mlp.fc1.weight",
            "multi_modal_projector.linear_1.bias",
            "model.layers.1.mlp.up_proj.weight",
            "lm_head.weight",
        ];
        let layouts = [
            own.map(write_llava),
            [
                "model.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
                "model.multi_modal_projector.linear_1.bias",
                "model.language_model.layers.1.mlp.up_proj.weight",
                "lm_head.weight",
            ]
            .map(str::to_owned),
            [
                "vision_tower.encoder.layers.0.mlp.fc1.weight",
                "multi_modal_projector.linear_1.bias",
                "language_model.model.layers.1.mlp.up_proj.weight",
                "language_model.lm_head.weight",
            ]
            .map(str::to_owned),
        ];
        for layout in layouts {
            assert_eq!(layout.each_ref().map(|n| read_llava(n).unwrap()), own, "{layout:?}");
        }
        assert_eq!(read_llava("vision_tower.vision_model.embeddings.position_ids"), None);
        assert_eq!(read_llava("model.unknown.weight").unwrap(), "model.unknown.weight");
    }

    #[test]
    fn siglip_is_read_with_and_without_its_prefix_and_its_text_half_is_left() {
        for name in ["vision_model.post_layernorm.bias", "post_layernorm.bias"] {
            assert_eq!(read_siglip(name).unwrap(), "vision_model.post_layernorm.bias");
        }
        assert_eq!(read_siglip("text_model.head.bias"), None);
        assert_eq!(read_siglip("logit_scale"), None);
    }
}
