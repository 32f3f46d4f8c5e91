//! Where the tensors that enter a unit come from.

use super::error::ExecuteError;
use crate::data::{DrawItem, ImageItem};
use bigmac_autograd::{Graph, Parameters};
use bigmac_models::mmdit::{Grid, MmditConfig, RopeTables};
use bigmac_models::qwen3::Qwen3;
use bigmac_runtime::{Context, Spec, Tensor};
use bigmac_schedule::Value;

/// The source of a unit's tensors.
pub(super) trait Inputs {
    /// A value that another op made.
    fn value(&mut self, value: Value, spec: &Spec) -> Result<Tensor, ExecuteError>;
    /// Pixels of an image, [3, side, side].
    fn image(&mut self, item: &ImageItem, spec: &Spec) -> Result<Tensor, ExecuteError>;
    /// Noised latents and the velocity to be learned, [patches, channels] both, and features of the time.
    fn drawing(&mut self, item: &DrawItem, latents: &Spec) -> Result<Drawing, ExecuteError>;
    /// Rotary tables cos and sin of the LLM for packed tokens whose samples begin at `bounds`.
    fn text_rope(&self, net: &Qwen3, bounds: &[usize]) -> Result<(Tensor, Tensor), ExecuteError>;
    /// Rotary tables of the generator for that grid and as many tokens of text.
    fn rope(&self, config: &MmditConfig, grid: Grid, text: usize) -> Result<RopeTables, ExecuteError>;
    /// Whether the unit is recorded for a backward, where it has one.
    fn records(&self) -> bool;
    /// A graph for a unit that is recorded, or isn't.
    fn graph<'g>(&self, ctx: &'g Context, params: &'g Parameters, recorded: bool) -> Graph<'g>;
}

/// What a picture to be drawn becomes.
pub(super) struct Drawing {
    /// Noised latents, [patches, channels].
    pub latents: Tensor,
    /// The velocity to be learned, alike.
    pub target: Tensor,
    /// Features of the time of the noise.
    pub time: Tensor,
}
