//! What a step over many parameters is given.

use super::OP;
use bigmac_runtime::{Error, Result, Tensor};
use std::ops::Range;

/// A parameter of a step.
#[derive(Debug)]
pub struct Member<'a> {
    /// The weight: contiguous, unshared; F32 or BF16, on the CPU also F16.
    pub weight: &'a mut Tensor,
    /// Where its elements lie in the flat buffers.
    pub range: Range<usize>,
    /// Whether [`weight_decay`](super::AdamW::weight_decay) applies to it.
    pub decays: bool,
}

/// Flat buffers over a module's parameters: F32, as long as its flat gradients.
#[derive(Debug)]
pub struct State<'a> {
    /// First moments.
    pub first: &'a mut Tensor,
    /// Second moments.
    pub second: &'a mut Tensor,
    /// Copies of the weights, which are those rounded.
    pub master: Option<&'a mut Tensor>,
}

/// Clipping by a norm that only the device knows: gradients are multiplied with `max_norm / norm` where the norm is
/// larger.
///
/// A norm that is not finite changes nothing, neither weights nor moments, so that a later check finds everything as it
/// was before the step.
#[derive(Clone, Copy, Debug)]
pub struct Clip<'a> {
    /// `[1]` in F32: the sum of the squares of all gradients, of all modules and ranks.
    pub squares: &'a Tensor,
    /// The largest norm that is left as it is; infinity leaves every finite one.
    pub max_norm: f64,
}

impl Member<'_> {
    /// Checks that it lies in buffers of `len` elements, from `end` on.
    pub(super) fn check(&self, end: usize, len: usize) -> Result<()> {
        let Range { start, end: last } = self.range;
        if start >= end && last <= len && last.checked_sub(start) == Some(self.weight.len()) {
            return Ok(());
        }
        let message = format!(
            "got elements {:?} for a weight of {}; expected as many, from {end} on and within {len}",
            self.range,
            self.weight.len()
        );
        Err(Error::argument(OP, message))
    }
}
