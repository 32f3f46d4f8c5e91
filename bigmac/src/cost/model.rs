//! The shape of a step as schedules see it: items, and costs from counted floating-point operations.
//!
//! Times are these counts at given rates, never what a step has just taken, so that every rank, and a resumed run, computes
//! the same table from the same step.

use super::rates::Rates;
use crate::data::{PackedMicrobatch, StepPlan};
use crate::model::{ModelShape, split_layers};
use crate::sizes::{Frame, Part};
use bigmac_schedule::{ChunkCost, ItemCost, Layers, Link, Load, ModuleKind, Workload, WorkloadError};
use std::ops::Range;

/// What costs depend on.
#[derive(Clone, Debug)]
pub struct CostModel {
    /// The model, and what of it learns.
    pub shape: ModelShape,
    /// How fast operations and transfers go.
    pub rates: Rates,
}

/// Billions of operations: numbers of a size that reads well.
const UNIT: f64 = 1e-9;

/// A product of `[rows, inner]` and `[inner, columns]`.
fn product(rows: usize, inner: usize, columns: usize) -> f64 {
    2.0 * rows as f64 * inner as f64 * columns as f64
}

/// Billions of operations of a part's forward.
fn gop(part: &Part) -> f64 {
    UNIT * part.forward.flops()
}

impl CostModel {
    fn frame(&self) -> Frame {
        Frame { sequence: 0, hidden_width: self.shape.width(), value_bytes: self.shape.dtype.size() }
    }

    /// Forward of one LLM layer.
    fn llm_layer(&self, load: &PackedMicrobatch) -> f64 {
        let pairs = load.bounds.windows(2).map(|w| ((w[1] - w[0]) as f64).powi(2) / 2.0).sum();
        gop(&self.shape.llm.packed_layer(load.tokens.len(), pairs, self.frame().value_bytes))
    }

    /// Forward of the output projection and the loss.
    fn head(&self, load: &PackedMicrobatch) -> f64 {
        let targets = load.targets.iter().filter(|t| **t >= 0).count();
        gop(&self.shape.llm.head(targets, self.frame().value_bytes))
    }

    /// Forward of one generator item, a square of `size` pixels from `text` tokens.
    fn generator_item(&self, size: usize, text: usize) -> f64 {
        let g = &self.shape.generator;
        let (width, patches) = (g.inner_dim(), (size / self.shape.codec.patch.max(1)).pow(2));
        let tokens = patches + text;
        let block = 12.0 * product(tokens, width, width)
            + 2.0 * product(tokens, tokens, width)
            + 2.0 * product(1, width, 6 * width);
        let ends = 2.0 * product(patches, g.in_channels, width) + product(text, self.shape.width(), width);
        UNIT * (g.num_layers as f64 * block + ends)
    }

    /// The workload of a step on `ranks` ranks with `chunks` LLM chunks each. Sizes are not in it: see
    /// [`with_sizes`](crate::execute::with_sizes).
    ///
    /// # Errors
    /// For a step without microbatches, ranks or chunks.
    pub fn workload(&self, plan: &StepPlan, ranks: usize, chunks: usize) -> Result<Workload, WorkloadError> {
        let loads = self.loads(plan, (ranks * chunks).max(1));
        let learns = self.shape.frozen.map(|frozen| !frozen);
        let link =
            Link { latency: self.rates.latency, seconds_per_byte: self.rates.per_byte, overlapped: true };
        let workload = Workload::new(ranks, chunks, loads, learns, 0.0)?;
        workload.with_link(link)?.with_layers(self.layers(plan))
    }

    fn loads(&self, plan: &StepPlan, chunks: usize) -> Vec<Load> {
        // Fails for no chunks at all, and there is at least one.
        let layers = split_layers(self.shape.layers(ModuleKind::Llm), chunks).unwrap_or_default();
        let image = self.item(ModuleKind::Encoder, gop(&self.shape.encoder.item(self.frame())));
        let drawing = |size, text| self.item(ModuleKind::Generator, self.generator_item(size, text));
        let loads = plan.microbatches.iter().map(|load| {
            let layer = self.llm_layer(load);
            let chunk = |(c, range): (usize, &Range<usize>)| {
                let head = if c + 1 == chunks { self.head(load) } else { 0.0 };
                let gop = layer * range.len() as f64 + head;
                let rates = self.rates.of(ModuleKind::Llm, c);
                ChunkCost {
                    forward: rates.forward.time(gop),
                    backward_input: rates.backward_input.time(gop),
                    backward_weight: rates.backward_weight.time(gop),
                }
            };
            Load {
                encoder: load.images.iter().map(|_| image).collect(),
                generator: load.draws.iter().map(|d| drawing(d.size, d.cond_rows.len())).collect(),
                llm: layers.iter().enumerate().map(chunk).collect(),
            }
        });
        loads.collect()
    }

    /// Gradients of inputs, and those of weights, each take as many operations as the forward.
    fn item(&self, kind: ModuleKind, gop: f64) -> ItemCost {
        let rates = self.rates.of(kind, 0);
        let weight = if self.shape.frozen[kind] { 0.0 } else { rates.backward_weight.time(gop) };
        ItemCost { forward: rates.forward.time(gop), backward: rates.backward_input.time(gop) + weight }
    }

    fn layers(&self, plan: &StepPlan) -> Layers {
        let sum = |of: &dyn Fn(&PackedMicrobatch) -> f64| plan.microbatches.iter().map(of).sum::<f64>();
        let (head, layer) = (sum(&|load| self.head(load)), sum(&|load| self.llm_layer(load)));
        Layers {
            encoder: self.shape.layers(ModuleKind::Encoder),
            llm: self.shape.layers(ModuleKind::Llm),
            generator: self.shape.layers(ModuleKind::Generator),
            head: if layer > 0.0 { head / layer } else { 0.0 },
        }
    }
}
