//! The generator: an MMDiT as Qwen-Image's, on one image to be drawn.

use super::work::{Frame, Part, STATISTIC, product, sum};
use crate::value::{ValueError, all_counts};
use serde::{Deserialize, Serialize};

/// Sizes of the generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// Blocks, each with a stream for the image and one for the text.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of a head; heads x head_dim is the width of both streams.
    pub head_dim: usize,
    /// Numbers of one latent token.
    pub channels: usize,
    /// Latent tokens of an image.
    pub latents: usize,
    /// Hidden states of the LLM that an image is drawn from.
    pub text: usize,
    /// Width of these hidden states, where there is no LLM that says it.
    pub text_width: Option<usize>,
    /// True: its weights stay.
    #[serde(default)]
    pub frozen: bool,
}

/// Sinusoidal features of the time.
const TIME_FEATURES: usize = 256;

impl Generator {
    /// Checks that the sizes are possible.
    pub fn check(&self) -> Result<(), ValueError> {
        all_counts("generator", self)
    }

    /// Width of both streams.
    pub fn width(&self) -> usize {
        self.heads.saturating_mul(self.head_dim)
    }

    /// Parts of a head that rotate with frame, row and column: even, together the head, the first of them some eighth
    /// of it as Qwen-Image divides 128 into 16, 56, 56. None for a head that cannot be divided so.
    pub fn rope_axes(&self) -> Option<[usize; 3]> {
        let head = self.head_dim;
        let frames = (2..head).step_by(2).filter(|frame| (head - frame).is_multiple_of(4));
        let frame = frames.min_by_key(|frame| frame.abs_diff(head / 8))?;
        Some([frame, (head - frame) / 2, (head - frame) / 2])
    }

    /// Tokens of both streams.
    pub fn tokens(&self) -> usize {
        self.latents.saturating_add(self.text)
    }

    /// One block: per stream a modulation from the time (one row), attention's four projections, an MLP of four widths;
    /// attention of all tokens to all. It saves per token 12 vectors of the width (input, modulated, q and k before and
    /// after their norm and rotation, v, attention's output, its projection for the gate, second residual, modulated,
    /// the MLP's output for its gate), 2 of the MLP's, and statistics.
    pub fn block(&self, bytes: usize) -> Part {
        let tokens = self.tokens();
        let stream = |rows| self.read(rows, bytes) + self.written(rows, bytes);
        stream(self.latents)
            + stream(self.text)
            + Part::attention(tokens as f64 * tokens as f64, self.width())
            + Part::kept(product([tokens, self.kept(bytes)]))
    }

    /// The last block: nothing reads the text's stream after it, so of the text only keys and values are computed. It
    /// saves 5 vectors of it (input, modulated, k before and after its norm and rotation, v).
    pub fn last_block(&self, bytes: usize) -> Part {
        let text = sum([product([bytes, 5, self.width()]), product([STATISTIC, sum([2, self.heads])])]);
        self.read(self.latents, bytes)
            + self.written(self.latents, bytes)
            + self.read(self.text, bytes)
            + self.written(self.text, bytes).unused()
            + Part::attention(self.latents as f64 * self.tokens() as f64, self.width())
            + Part::kept(sum([product([self.latents, self.kept(bytes)]), product([self.text, text])]))
    }

    /// What attention needs of a stream's tokens for others to read them: modulation, keys and values.
    fn read(&self, rows: usize, bytes: usize) -> Part {
        let width = self.width();
        Part::linear(1, width, product([6, width]), true, bytes)
            + Part::linear(rows, width, width, true, bytes).times(2)
            + Part::parameters(self.head_dim)
    }

    /// What the next block needs of a stream: queries, attention's output projection, the MLP.
    fn written(&self, rows: usize, bytes: usize) -> Part {
        let (width, wide) = (self.width(), product([4, self.width()]));
        Part::linear(rows, width, width, true, bytes).times(2)
            + Part::linear(rows, width, wide, true, bytes)
            + Part::linear(rows, wide, width, true, bytes)
            + Part::parameters(self.head_dim)
    }

    /// Bytes that a block keeps of a token.
    fn kept(&self, bytes: usize) -> usize {
        let statistics = product([STATISTIC, sum([2 * 2, product([3, self.heads])])]);
        sum([product([bytes, 12 + 2 * 4, self.width()]), statistics])
    }

    /// Embeddings of latents, text and time, the last modulation and projection, the loss.
    pub fn ends(&self, frame: Frame) -> Part {
        let (bytes, width, cond) = (frame.value_bytes, self.width(), frame.hidden_width);
        let linear = |rows, inputs, outputs| Part::linear(rows, inputs, outputs, true, bytes);
        let of_latents = product([self.latents, sum([product([2, width]), product([3, self.channels])])]);
        let kept = product([bytes, sum([of_latents, product([self.text, 2, cond])])]);
        linear(self.latents, self.channels, width).of_data()
            + Part::parameters(cond)
            + linear(self.text, cond, width)
            + linear(1, TIME_FEATURES, width).of_data()
            + linear(1, width, width)
            + linear(1, width, product([2, width]))
            + linear(self.latents, width, self.channels)
            + Part::kept(kept)
    }

    /// All blocks.
    pub fn blocks(&self, bytes: usize) -> Part {
        self.block(bytes).times(self.layers.saturating_sub(1)) + self.last_block(bytes)
    }

    /// Everything, on one item.
    pub fn item(&self, frame: Frame) -> Part {
        self.blocks(frame.value_bytes) + self.ends(frame)
    }

    /// What is saved of one item when only the inputs of blocks are, to compute the rest again.
    pub fn saved_inputs(&self, frame: Frame) -> u64 {
        (self.layers as u64).saturating_mul(self.hidden_bytes(frame)).saturating_add(self.ends(frame).saved)
    }

    /// Bytes of what one block hands to the next, for one item.
    pub fn hidden_bytes(&self, frame: Frame) -> u64 {
        product([self.tokens(), self.width(), frame.value_bytes]) as u64
    }

    /// Bytes of the hidden states that an item reads from the LLM.
    pub fn input_bytes(&self, frame: Frame) -> u64 {
        product([self.text, frame.hidden_width, frame.value_bytes]) as u64
    }
}
