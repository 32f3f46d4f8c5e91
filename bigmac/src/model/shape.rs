//! From a run's configuration to the configurations of the models.

use crate::config::{Dtype, Model, ParameterGroup, PerGroup};
use crate::data::{Layout, PictureLimits, Tokenizer};
use crate::sizes::{Encoder, Llm};
use bigmac_models::init::ParameterSpec;
use bigmac_models::json::OneOrMany;
use bigmac_models::llava::{LlavaConfig, VisionEncoder};
use bigmac_models::mmdit::codec::{Codec, PixelCodec};
use bigmac_models::mmdit::{Grid, Mmdit, MmditConfig};
use bigmac_models::qwen3::{Qwen3, Qwen3Config};
use bigmac_models::siglip::SiglipVisionConfig;
use bigmac_models::stage::Stage;
use bigmac_runtime::{DType, Result};
use bigmac_schedule::{ModuleKind, PerModule};

/// Everything that defines the parameters of a model, and the type that is computed with.
#[derive(Clone, Debug)]
pub struct ModelShape {
    /// Encoder, projector and LLM.
    pub llava: LlavaConfig,
    /// Generator.
    pub generator: MmditConfig,
    /// Between pictures and the generator's latents.
    pub codec: PixelCodec,
    /// Side of a drawn picture in pixels.
    pub draw_size: usize,
    /// Sizes of the encoder.
    pub encoder: Encoder,
    /// Sizes of the LLM, with the vocabulary of the tokenizer.
    pub llm: Llm,
    /// The type that is computed with.
    pub dtype: DType,
    /// Which groups of parameters keep their weights.
    pub frozen: PerGroup<bool>,
    /// Which modules compute their layers again in the backward instead of saving what is inside.
    pub recompute: PerModule<bool>,
}

impl ModelShape {
    /// The shape that `model` describes, for the tokens of `tokenizer`.
    ///
    /// # Errors
    /// [`bigmac_runtime::Error::Argument`] where parts do not fit each other.
    pub fn new(model: &Model, tokenizer: &Tokenizer) -> Result<Self> {
        let (e, l, g) = (&model.encoder, &model.llm, &model.generator);
        let vision = SiglipVisionConfig {
            hidden_size: e.width,
            intermediate_size: e.mlp,
            num_hidden_layers: e.layers,
            num_attention_heads: e.heads,
            image_size: e.image_size,
            patch_size: e.patch,
            vision_use_head: false,
            ..SiglipVisionConfig::default()
        };
        let specials = tokenizer.specials();
        let text = Qwen3Config {
            vocab_size: tokenizer.vocab_size(),
            hidden_size: l.width,
            intermediate_size: l.mlp,
            num_hidden_layers: l.layers,
            num_attention_heads: l.heads,
            num_key_value_heads: l.kv_heads,
            head_dim: l.head_dim,
            rope_theta: l.rope_theta,
            qk_norm: l.qk_norm,
            tie_word_embeddings: l.tied,
            eos_token_id: Some(OneOrMany::One(specials.eos as i32)),
            ..Qwen3Config::default()
        };
        let codec = PixelCodec { patch: g.patch };
        let generator = MmditConfig {
            patch_size: 1,
            in_channels: codec.channels(),
            out_channels: codec.channels(),
            num_layers: g.layers,
            attention_head_dim: g.head_dim,
            num_attention_heads: g.heads,
            joint_attention_dim: l.width,
            axes_dims_rope: g.rope_axes,
            extra: Default::default(),
        };
        codec.check(&generator)?;
        Ok(ModelShape {
            llava: LlavaConfig::new(vision, text, specials.image as i32),
            generator,
            codec,
            draw_size: g.image_size,
            encoder: e.clone(),
            llm: Llm { vocabulary: tokenizer.vocab_size(), ..l.clone() },
            dtype: match model.dtype {
                Dtype::F32 => DType::F32,
                Dtype::Bf16 => DType::BF16,
            },
            frozen: model.frozen(),
            recompute: PerModule { encoder: e.recompute, llm: l.recompute, generator: g.recompute },
        })
    }

    /// How samples become tokens and pixels for this model.
    pub fn layout(&self, tokens_per_microbatch: usize, max_tiles: usize, limits: PictureLimits) -> Layout {
        Layout {
            image_size: self.llava.vision.image_size,
            tokens_per_tile: self.llava.image_tokens(),
            max_tiles,
            draw_size: self.draw_size,
            tokens_per_microbatch,
            limits,
        }
    }

    /// How many layers a module has.
    pub fn layers(&self, kind: ModuleKind) -> usize {
        match kind {
            ModuleKind::Encoder => self.llava.vision.num_hidden_layers,
            ModuleKind::Llm => self.llava.text.num_hidden_layers,
            ModuleKind::Generator => self.generator.num_layers,
        }
    }

    /// The parameters of a stage of a module; those of frozen groups are out of training.
    pub fn specs(&self, kind: ModuleKind, stage: &Stage) -> Result<Vec<ParameterSpec>> {
        let specs = match kind {
            ModuleKind::Encoder => VisionEncoder::stage_parameters(&self.llava, stage)?,
            ModuleKind::Llm => Qwen3::parameters(&self.llava.text, stage),
            ModuleKind::Generator => Mmdit::stage_parameters(&self.generator, stage),
        };
        let frozen = |spec: &ParameterSpec| self.frozen[ParameterGroup::of(kind, &spec.name)];
        Ok(specs.into_iter().map(|spec| if frozen(&spec) { spec.frozen() } else { spec }).collect())
    }

    /// Patches of a drawn picture.
    pub fn draw_grid(&self) -> Result<Grid> {
        self.codec.grid(self.draw_size, self.draw_size)
    }

    /// Width of the LLM's hidden states.
    pub fn width(&self) -> usize {
        self.llava.text.hidden_size
    }
}
