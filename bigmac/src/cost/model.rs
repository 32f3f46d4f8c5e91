//! The shape of a step as schedules see it: items, and costs from counted floating-point operations.
//!
//! Times are these counts at given rates, never what a step has just taken, so that every rank, and a resumed run,
//! computes the same table from the same step.

use super::rates::Rates;
use crate::data::{PackedMicrobatch, StepPlan};
use crate::model::{ModelShape, split_layers};
use crate::sizes::{Frame, Generator, Part, causal_pairs};
use bigmac_schedule::{
    ChunkCost, ItemCost, Layers, Link, Load, ModuleKind, PerModule, Workload, WorkloadError,
};
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

/// Billions of operations of an item's forward.
#[derive(Clone, Copy)]
struct Gop {
    all: f64,
    /// Of what gradients of inputs are computed for.
    inputs: f64,
    /// Of what gradients of weights are computed for.
    weights: f64,
    /// Of layers that learn and may be computed again.
    layers: f64,
}

impl Gop {
    fn of(layers: &Part, ends: &Part, learns: bool) -> Gop {
        let (layers, all) = (gop(layers), gop(layers) + gop(ends));
        Gop { all, inputs: all, weights: if learns { all } else { 0.0 }, layers }
    }
}

/// Billions of operations of a part's forward.
fn gop(part: &Part) -> f64 {
    UNIT * part.forward.flops()
}

impl CostModel {
    fn frame(&self) -> Frame {
        Frame { sequence: 0, hidden_width: self.shape.width(), value_bytes: self.shape.dtype.size() }
    }

    /// One encoder item, projector included. A backward ends where nothing below learns: that of a projector which
    /// learns alone has the gradients of its weights and, between its two layers, of one input.
    fn encoder_item(&self) -> Gop {
        let (e, frame, frozen) = (&self.shape.encoder, self.frame(), self.shape.frozen);
        let whole = Gop::of(&e.layer(frame.value_bytes).times(e.layers), &e.ends(frame), true);
        let [first, second] = e.projector(frame).map(|layer| gop(&layer));
        let tower = whole.all - first - second;
        let weights = |frozen: bool, gop: f64| if frozen { 0.0 } else { gop };
        Gop {
            inputs: if frozen.projector_alone() { second } else { whole.inputs },
            weights: weights(frozen.encoder, tower) + weights(frozen.projector, first + second),
            layers: weights(frozen.encoder, whole.layers),
            ..whole
        }
    }

    /// Forward of one LLM layer.
    fn llm_layer(&self, load: &PackedMicrobatch) -> f64 {
        let pairs = load.bounds.windows(2).map(|w| causal_pairs(w[1] - w[0])).sum();
        gop(&self.shape.llm.packed_layer(load.tokens.len(), pairs, self.frame().value_bytes))
    }

    /// Forward of the output projection and the loss.
    fn head(&self, load: &PackedMicrobatch) -> f64 {
        let targets = load.targets.iter().filter(|t| **t >= 0).count();
        gop(&self.shape.llm.head(targets, self.frame().value_bytes))
    }

    /// Forward of one generator item, a square of `size` pixels from `text` tokens.
    fn generator_item(&self, size: usize, text: usize) -> Gop {
        let (g, frame) = (&self.shape.generator, self.frame());
        let generator = Generator {
            layers: g.num_layers,
            heads: g.num_attention_heads,
            head_dim: g.attention_head_dim,
            channels: g.in_channels,
            latents: (size / self.shape.codec.patch.max(1)).pow(2),
            text,
            text_width: None,
            frozen: self.shape.frozen.generator,
        };
        Gop::of(&generator.blocks(frame.value_bytes), &generator.ends(frame), !generator.frozen)
    }

    /// The workload of a step on `ranks` ranks with `chunks` LLM chunks each. Sizes are not in it: see
    /// [`with_sizes`](crate::execute::with_sizes).
    ///
    /// # Errors
    /// For a step without microbatches, ranks or chunks.
    pub fn workload(&self, plan: &StepPlan, ranks: usize, chunks: usize) -> Result<Workload, WorkloadError> {
        let loads = self.loads(plan, (ranks * chunks).max(1));
        let frozen = self.shape.frozen;
        let link =
            Link { latency: self.rates.latency, seconds_per_byte: self.rates.per_byte, overlapped: true };
        let workload = Workload::new(ranks, chunks, loads, frozen.learns(), 0.0)?;
        workload
            .with_projector_alone(frozen.projector_alone())
            .with_link(link)?
            .with_layers(self.layers(plan))
    }

    fn loads(&self, plan: &StepPlan, chunks: usize) -> Vec<Load> {
        // Fails for no chunks at all, and there is at least one.
        let layers = split_layers(self.shape.layers(ModuleKind::Llm), chunks).unwrap_or_default();
        let image = self.item(ModuleKind::Encoder, self.encoder_item());
        let drawing = |size, text| self.item(ModuleKind::Generator, self.generator_item(size, text));
        let loads = plan.microbatches.iter().map(|load| {
            let layer = self.llm_layer(load);
            let chunk = |(c, range): (usize, &Range<usize>)| {
                let head = if c + 1 == chunks { self.head(load) } else { 0.0 };
                let layers = layer * range.len() as f64;
                let gop = layers + head;
                let rates = self.rates.of(ModuleKind::Llm, c);
                let again = self.again(ModuleKind::Llm, layers);
                // Weight gradients of layers that are computed again are not put off.
                let at_once = if self.shape.frozen.llm { 0.0 } else { again };
                let parts = ChunkCost::of_parts(
                    rates.forward.time(gop),
                    rates.backward_input.time(gop) + again + at_once,
                    rates.backward_weight.time(gop) - at_once,
                );
                if self.rates.are_counts() {
                    parts
                } else {
                    ChunkCost { backward: rates.backward.time(gop), ..parts }
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

    /// Gradients of inputs, and those of weights, each take as many operations as the forward of what they are for.
    fn item(&self, kind: ModuleKind, gop: Gop) -> ItemCost {
        let rates = self.rates.of(kind, 0);
        let backward = if self.rates.are_counts() {
            gop.inputs + self.again(kind, gop.layers) + gop.weights
        } else {
            // Whatever was measured in a backward, its times are by the operations of the whole forward.
            rates.backward.time(gop.all)
        };
        ItemCost { forward: rates.forward.time(gop.all), backward }
    }

    /// What layers that are computed again take of the time of input gradients: their forward. Rates that were measured
    /// have it in them.
    fn again(&self, kind: ModuleKind, layers: f64) -> f64 {
        if self.shape.recompute[kind] && self.rates.are_counts() { layers } else { 0.0 }
    }

    fn layers(&self, plan: &StepPlan) -> Layers {
        let sum = |of: &dyn Fn(&PackedMicrobatch) -> f64| plan.microbatches.iter().map(of).sum::<f64>();
        let (head, layer) = (sum(&|load| self.head(load)), sum(&|load| self.llm_layer(load)));
        Layers {
            count: PerModule::from_fn(|kind| self.shape.layers(kind)),
            head: if layer > 0.0 { head / layer } else { 0.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Model;
    use crate::cost::{Rate, UnitRates};
    use crate::data::{DrawItem, ImageItem, PictureRef, Tile, Tokenizer};
    use bigmac_close::{assert_close, relative};
    use bigmac_schedule::{Chunk, Module, Phase, Unit};
    use std::path::Path;

    /// A microbatch of a text, an image and a drawing.
    fn plan() -> StepPlan {
        let picture = PictureRef::new(Path::new("a.png"));
        let image =
            ImageItem { picture: picture.clone(), tile: Tile::Whole, size: 32, rows: 0..16, sample: 0 };
        let draw = DrawItem { picture, size: 32, cond_rows: 16..24, sample: 0 };
        let load = PackedMicrobatch {
            tokens: vec![0; 40],
            targets: vec![1; 40],
            bounds: vec![0, 40],
            images: vec![image],
            draws: vec![draw],
            ..PackedMicrobatch::default()
        };
        StepPlan { microbatches: vec![load], ..StepPlan::default() }
    }

    fn workload(model: &Model, rates: Rates) -> Workload {
        let shape = ModelShape::new(model, &Tokenizer::bytes()).unwrap();
        CostModel { shape, rates }.workload(&plan(), 2, 1).unwrap()
    }

    #[test]
    fn a_backward_that_computes_layers_again_takes_a_forward_more() {
        let plain = workload(&Model::default(), Rates::default());
        let mut model = Model::default();
        (model.encoder.recompute, model.llm.recompute, model.generator.recompute) = (true, true, true);
        let again = workload(&model, Rates::default());
        let cost = |workload: &Workload, unit: Unit, phase| workload.unit_cost(unit, phase);
        for unit in plain.units() {
            let (forward, backward) =
                (cost(&plain, unit, Phase::Forward), cost(&plain, unit, Phase::Backward));
            assert_eq!(cost(&again, unit, Phase::Forward), forward, "{unit:?}");
            let more = cost(&again, unit, Phase::Backward) - backward;
            // Embeddings, projections and the loss are not computed again.
            assert!(more > 0.5 * forward && more <= forward * (1.0 + 1e-12), "{unit:?}: {more} of {forward}");
            let parts = cost(&again, unit, Phase::BackwardInput) + cost(&again, unit, Phase::BackwardWeight);
            assert_close(parts, backward + more, relative(1e-12));
        }
        // Weight gradients of layers are not put off.
        let first = plain.units().find(|unit| unit.module == Module::Llm(Chunk(0)));
        assert_eq!(cost(&again, first.unwrap(), Phase::BackwardWeight), 0.0);
    }

    #[test]
    fn a_projector_alone_goes_backward_alone() {
        let mut model = Model::default();
        let item = |model: &Model, rates| workload(model, rates).loads()[0].encoder[0];
        let all = item(&model, Rates::default());
        let (e, l) = (&model.encoder, &model.llm);
        let linear = |inputs: usize| 2e-9 * (16 * inputs * l.width) as f64;
        let projector = linear(e.width) + linear(l.width);
        // Frozen, it passes gradients through.
        model.projector.frozen = true;
        let tower = item(&model, Rates::default());
        assert_close(tower.backward, all.backward - projector, relative(1e-12));
        // Alone, it has the gradients of its weights and of its second layer's input; nothing is computed again.
        (model.encoder.frozen, model.projector.frozen, model.encoder.recompute) = (true, false, true);
        let alone = item(&model, Rates::default());
        assert_eq!(alone.forward, all.forward);
        assert_close(alone.backward, projector + linear(l.width), relative(1e-12));
        // What was measured was measured so.
        let rate = Rate { fixed: 1.0, per_gop: 2.0 };
        let rates = UnitRates::of_parts(rate, rate, rate);
        let rates =
            Rates { units: ModuleKind::ALL.map(|kind| ((kind, 0), rates)).into(), ..Rates::default() };
        assert_close(item(&model, rates).backward, 2.0 * rate.time(all.forward), relative(1e-12));
    }

    #[test]
    fn measured_backwards_have_it_in_them() {
        let measured = || {
            let rate = Rate { fixed: 1.0, per_gop: 2.0 };
            let rates = UnitRates::of_parts(rate, rate, rate);
            Rates { units: ModuleKind::ALL.map(|kind| ((kind, 0), rates)).into(), ..Rates::default() }
        };
        let mut model = Model::default();
        model.llm.recompute = true;
        assert_eq!(workload(&model, measured()), workload(&Model::default(), measured()));
    }
}
