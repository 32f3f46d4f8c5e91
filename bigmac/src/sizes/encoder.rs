//! The encoder: a ViT as SigLIP's with a projector of two layers, on one image or tile.

use super::work::{Frame, Part, STATISTIC, Work, product, sum};
use crate::config::PerGroup;
use crate::value::{ValueError, all_counts, divisor};
use serde::{Deserialize, Serialize};

/// Sizes of the encoder: SigLIP's vision model (`SiglipVisionModel`) and LLaVA's projector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encoder {
    /// Width of the hidden states.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the MLP.
    pub mlp: usize,
    /// Side of an image, or of a tile of one, in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// True: its weights stay.
    #[serde(default)]
    pub frozen: bool,
    /// True: its layers save their inputs alone, and are computed again in the backward. A plan says it itself.
    #[serde(default)]
    pub recompute: bool,
    /// Side of the square of patches that becomes one token of the LLM. Plans only, as this runtime has 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub merge: usize,
    /// Width of the embeddings that it makes, without an LLM that says it. Plans only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_width: Option<usize>,
}

fn one() -> usize {
    1
}

fn is_one(count: &usize) -> bool {
    *count == 1
}

impl Default for Encoder {
    /// That of the default run.
    fn default() -> Self {
        Encoder {
            width: 96,
            layers: 3,
            heads: 4,
            mlp: 384,
            image_size: 32,
            patch: 8,
            frozen: false,
            recompute: false,
            merge: 1,
            output_width: None,
        }
    }
}

impl Encoder {
    /// Checks that the sizes fit each other.
    pub fn check(&self) -> Result<(), ValueError> {
        all_counts("encoder", self)?;
        divisor("encoder.heads", self.heads, "encoder.width", self.width)?;
        divisor("encoder.patch", self.patch, "encoder.image_size", self.image_size)?;
        divisor("encoder.merge", self.merge, "the patches of a side", self.image_size / self.patch)
    }

    /// Patches of an image.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch).saturating_pow(2)
    }

    /// Tokens of the LLM's sequence that an image takes.
    pub fn tokens(&self) -> usize {
        self.patches() / self.merge.saturating_pow(2)
    }

    /// One layer. It saves, as Korthikanti et al. (arXiv 2205.05198, section 4.1) count it with fused attention and
    /// without dropout: per patch 8 vectors of the width (input, first norm, q, k, v, attention's output, second
    /// residual, second norm), 2 of the MLP's (before and after its activation), statistics of two norms and one
    /// softmax.
    pub fn layer(&self, bytes: usize) -> Part {
        let (rows, width, mlp) = (self.patches(), self.width, self.mlp);
        let vectors = product([bytes, sum([product([8, width]), product([2, mlp])])]);
        let kept = sum([vectors, product([STATISTIC, sum([2 * 2, self.heads])])]);
        Part::linear(rows, width, width, true, bytes).times(4)
            + Part::linear(rows, width, mlp, true, bytes)
            + Part::linear(rows, mlp, width, true, bytes)
            + Part::attention(rows as f64 * rows as f64, width)
            + Part::parameters(product([4, width]))
            + Part::kept(product([rows, kept]))
    }

    /// Patch and position embedding, last norm, and the projector.
    pub fn ends(&self, frame: Frame) -> Part {
        let (bytes, out) = (frame.value_bytes, frame.hidden_width);
        let (rows, tokens) = (self.patches(), self.tokens());
        let pixels = product([3, self.patch, self.patch]);
        let [first, second] = self.projector(frame);
        let of_patches = product([rows, sum([pixels, self.width])]);
        let kept = product([bytes, sum([of_patches, product([tokens, 2, out])])]);
        Part::linear(rows, pixels, self.width, true, bytes).of_data()
            + Part::parameters(product([rows, self.width]))
            // LLaVA reads the states before the last norm.
            + Part::parameters(product([2, self.width])).unused()
            + first
            + second
            + Part::kept(kept)
    }

    /// The projector's two layers, without what they keep.
    pub fn projector(&self, frame: Frame) -> [Part; 2] {
        let (bytes, out) = (frame.value_bytes, frame.hidden_width);
        let merged = product([self.width, self.merge, self.merge]);
        [merged, out].map(|inputs| Part::linear(self.tokens(), inputs, out, true, bytes))
    }

    /// The projector on one item over layers that are frozen: it keeps its input, and what comes before and after its
    /// activation; the gradient of the one input between its layers is computed, and none below.
    pub fn projector_alone(&self, frame: Frame) -> Part {
        let (bytes, out) = (frame.value_bytes, frame.hidden_width);
        let [first, second] = self.projector(frame);
        let (read, made) = (product([self.patches(), self.width]), product([self.tokens(), 2, out]));
        let kept = product([bytes, sum([read, made])]);
        first.of_data() + second + Part::kept(kept)
    }

    /// Everything, on one item.
    pub fn item(&self, frame: Frame) -> Part {
        self.layer(frame.value_bytes).times(self.layers) + self.ends(frame)
    }

    /// The same with the gradients that are left where parts of it are frozen. Those of inputs pass a frozen projector.
    pub fn learning(&self, frame: Frame, frozen: PerGroup<bool>) -> Part {
        let whole = self.item(frame);
        let [first, second] = self.projector(frame);
        let left = match (frozen.encoder, frozen.projector) {
            (false, false) => return whole,
            (true, false) => self.projector_alone(frame),
            (false, true) => {
                let (all, projector) = (whole.backward_weight, (first + second).backward_weight);
                let backward_weight = Work {
                    dense: all.dense - projector.dense,
                    weight_bytes: all.weight_bytes - projector.weight_bytes,
                    ..all
                };
                let trained = whole.trained.saturating_sub(first.trained).saturating_sub(second.trained);
                Part { backward_weight, trained, ..whole }
            }
            (true, true) => Part { backward_weight: Work::default(), trained: 0, ..whole },
        };
        let Part { backward_input, backward_weight, saved, trained, .. } = left;
        Part { backward_input, backward_weight, saved, trained, ..whole }
    }

    /// What is saved of one item when only the inputs of layers are, to compute the rest again.
    pub fn saved_inputs(&self, frame: Frame) -> u64 {
        (self.layers as u64).saturating_mul(self.hidden_bytes(frame)).saturating_add(self.ends(frame).saved)
    }

    /// Bytes of what one layer hands to the next, for one item.
    pub fn hidden_bytes(&self, frame: Frame) -> u64 {
        product([self.patches(), self.width, frame.value_bytes]) as u64
    }

    /// Bytes of the embeddings that an item sends to the LLM.
    pub fn output_bytes(&self, frame: Frame) -> u64 {
        product([self.tokens(), frame.hidden_width, frame.value_bytes]) as u64
    }
}
