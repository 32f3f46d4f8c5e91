//! The shape of a step as schedules see it: items, and costs from counted floating-point operations.
//!
//! Times are these counts at given rates, never what a step has just taken, so that every rank, and a resumed run, computes
//! the same table from the same step.

use super::error::ExecuteError;
use super::rates::Rates;
use crate::config::{Encoder, Generator, Llm};
use crate::data::{PackedMicrobatch, StepPlan};
use crate::model::split_layers;
use crate::schedule::{ChunkCost, ItemCost, Learns, Load, ModuleKind, Workload};

/// What costs depend on.
#[derive(Clone, Debug)]
pub struct CostModel {
    /// The encoder.
    pub encoder: Encoder,
    /// The LLM.
    pub llm: Llm,
    /// The generator.
    pub generator: Generator,
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// Bytes of an element of the values that cross ranks.
    pub element: usize,
    /// How fast operations and transfers go.
    pub rates: Rates,
}

/// Billions of operations: numbers of a size that reads well.
const UNIT: f64 = 1e-9;

/// A product of `[rows, inner]` and `[inner, columns]`.
fn product(rows: usize, inner: usize, columns: usize) -> f64 {
    2.0 * rows as f64 * inner as f64 * columns as f64
}

impl CostModel {
    /// Forward of one encoder item, projector included.
    fn encoder_item(&self) -> f64 {
        let e = &self.encoder;
        let tokens = (e.image_size / e.patch).pow(2);
        let layer = 4.0 * product(tokens, e.width, e.width)
            + 2.0 * product(tokens, e.width, e.mlp)
            + 2.0 * product(tokens, tokens, e.width);
        let ends = product(tokens, 3 * e.patch * e.patch, e.width)
            + product(tokens, e.width, self.llm.width)
            + product(tokens, self.llm.width, self.llm.width);
        UNIT * (e.layers as f64 * layer + ends)
    }

    /// Forward of one LLM layer.
    fn llm_layer(&self, load: &PackedMicrobatch) -> f64 {
        let l = &self.llm;
        let tokens = load.tokens.len();
        let (queries, keys) = (l.heads * l.head_dim, l.kv_heads * l.head_dim);
        let pairs: f64 = load.bounds.windows(2).map(|w| ((w[1] - w[0]) as f64).powi(2) / 2.0).sum();
        UNIT * (2.0 * product(tokens, l.width, queries)
            + 2.0 * product(tokens, l.width, keys)
            + 3.0 * product(tokens, l.width, l.mlp)
            + 4.0 * pairs * queries as f64)
    }

    /// Forward of the output projection and the loss.
    fn head(&self, load: &PackedMicrobatch) -> f64 {
        let targets = load.targets.iter().filter(|t| **t >= 0).count();
        UNIT * product(targets, self.llm.width, self.vocabulary)
    }

    /// Forward of one generator item with `text` tokens.
    fn generator_item(&self, text: usize) -> f64 {
        let g = &self.generator;
        let (width, patches) = (g.heads * g.head_dim, (g.image_size / g.patch).pow(2));
        let tokens = patches + text;
        let block = 12.0 * product(tokens, width, width)
            + 2.0 * product(tokens, tokens, width)
            + 2.0 * product(1, width, 6 * width);
        let ends =
            2.0 * product(patches, 3 * g.patch * g.patch, width) + product(text, self.llm.width, width);
        UNIT * (g.layers as f64 * block + ends)
    }

    /// Bytes of a microbatch's hidden states, on average: what crosses ranks most.
    fn hidden_bytes(&self, plan: &StepPlan) -> f64 {
        let tokens: usize = plan.microbatches.iter().map(|load| load.tokens.len()).sum();
        (tokens * self.llm.width * self.element) as f64 / plan.microbatches.len().max(1) as f64
    }

    /// The workload of a step on `ranks` ranks with `chunks` LLM chunks each.
    ///
    /// # Errors
    /// [`ExecuteError::Workload`] for a step without microbatches.
    pub fn workload(&self, plan: &StepPlan, ranks: usize, chunks: usize) -> Result<Workload, ExecuteError> {
        let all = (ranks * chunks).max(1);
        let layers = split_layers(self.llm.layers, all)?;
        let last = all - 1;
        // Gradients of inputs, and those of weights, each take as many operations as the forward.
        let item = |kind: ModuleKind, gop: f64, frozen: bool| {
            let rates = self.rates.of(kind, 0);
            let weight = if frozen { 0.0 } else { rates.backward_weight.time(gop) };
            ItemCost { forward: rates.forward.time(gop), backward: rates.backward_input.time(gop) + weight }
        };
        let image = item(ModuleKind::Encoder, self.encoder_item(), self.encoder.frozen);
        let drawing = |text| item(ModuleKind::Generator, self.generator_item(text), self.generator.frozen);
        let loads = plan.microbatches.iter().map(|load| {
            let layer = self.llm_layer(load);
            let chunk = |(c, range): (usize, &std::ops::Range<usize>)| {
                let head = if c == last { self.head(load) } else { 0.0 };
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
                generator: load.draws.iter().map(|d| drawing(d.cond_rows.len())).collect(),
                llm: layers.iter().enumerate().map(chunk).collect(),
            }
        });
        let learns = Learns {
            encoder: !self.encoder.frozen,
            llm: !self.llm.frozen,
            generator: !self.generator.frozen,
        };
        let p2p = self.rates.transfer(self.hidden_bytes(plan));
        Ok(Workload::new(ranks, chunks, loads.collect(), learns, p2p)?)
    }
}
