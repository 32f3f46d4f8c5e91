//! How a step is laid out over devices, and what it then costs: the workload that schedules are built for.

use super::device::Device;
use super::error::PlanError;
use super::model::{Counts, Model};
use crate::cost::Rate;
use crate::model::split_layers;
use crate::sizes::{Llm, Part};
use bigmac_schedule::{
    ChunkCost, ItemCost, ItemSize, Layers, Link, Load, MicrobatchSizes, Module, ModuleKind, PerModule,
    Workload, check_extent, even_ranges,
};
use std::ops::Range;

/// A layout: pipelines of `ranks` devices each, `replicas` of them in parallel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    /// Ranks of a pipeline.
    pub ranks: usize,
    /// LLM chunks on each.
    pub chunks: usize,
    /// Pipelines that share the batch and add up their gradients.
    pub replicas: usize,
    /// Microbatches that each pipeline runs in a step.
    pub microbatches: usize,
    /// Where the LLM is cut.
    pub cut: Cut,
    /// Modules of which only the inputs of layers are saved, and the rest computed again (Chen et al., arXiv
    /// 1604.06174).
    pub recompute: PerModule<bool>,
    /// Encoder and generator whose weights and gradients are split over the devices of a node that run them, and
    /// brought together layer by layer for every item (ZeRO stage 3, arXiv 1910.02054, within a node as hybrid FSDP
    /// does, arXiv 2304.11277).
    pub sharded: PerModule<bool>,
}

/// Where the LLM is cut into chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// Into chunks that differ by at most one layer, as `bigmac train` cuts it.
    #[default]
    Even,
    /// The last chunk gets fewer layers, so that with the output matrix it costs no more than the others.
    Balanced,
}

impl Layout {
    /// Devices that it takes.
    pub fn devices(&self) -> usize {
        self.ranks * self.replicas
    }
}

/// A module on one item, or a chunk on one sequence.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Costed {
    pub parameters: u64,
    /// Those of them that learn, where the module does.
    pub trained: u64,
    pub saved: u64,
    pub forward: f64,
    pub backward_input: f64,
    pub backward_weight: f64,
    /// Both in one op.
    pub backward: f64,
}

impl Costed {
    /// What an item of it costs where its module learns, or does not.
    pub fn item(&self, learns: bool) -> ItemCost {
        let weight = if learns { self.backward_weight } else { 0.0 };
        ItemCost { forward: self.forward, backward: self.backward_input + weight }
    }
}

/// A model with an LLM in a layout on a device.
#[derive(Clone, Debug)]
pub struct Estimate<'a> {
    /// What is trained.
    pub model: &'a Model,
    llm: &'a Llm,
    /// On what.
    pub device: &'a Device,
    /// How it is laid out.
    pub layout: Layout,
    /// Times in seconds, of one pipeline.
    pub workload: Workload,
    chunks: Vec<Costed>,
    items: PerModule<Costed>,
    working: PerModule<u64>,
    apart: PerModule<bool>,
}

impl<'a> Estimate<'a> {
    /// The costs of a layout.
    ///
    /// # Errors
    /// [`PlanError::Shape`] for a model without an LLM, where there are more chunks than layers, or more work than can
    /// be simulated.
    pub fn new(model: &'a Model, device: &'a Device, layout: Layout) -> Result<Self, PlanError> {
        Self::with_links(model, device, layout, PerModule::default())
    }

    /// The same where the devices that share a sharded module are on different nodes: replicas of one rank, for a
    /// schedule that runs the module on this rank alone.
    pub fn with_links(
        model: &'a Model,
        device: &'a Device,
        layout: Layout,
        apart: PerModule<bool>,
    ) -> Result<Self, PlanError> {
        let Some(llm) = &model.llm else {
            let message =
                "a schedule needs an [llm] to cut into pipeline stages, which the model has none of";
            return Err(PlanError::Shape(message.into()));
        };
        let items = model.images.most().saturating_add(model.drawings.most());
        let units = layout.ranks.saturating_mul(layout.chunks).saturating_add(items);
        let units = units.saturating_mul(layout.microbatches);
        check_extent(layout.ranks, layout.chunks, layout.microbatches, units)?;
        let chunks = chunk_costs(model, llm, device, &layout)?;
        let items = PerModule {
            encoder: item_cost(model, device, &layout, ModuleKind::Encoder, apart.encoder),
            llm: Costed::default(),
            generator: item_cost(model, device, &layout, ModuleKind::Generator, apart.generator),
        };
        let (frozen, learns) = (model.frozen(), model.learns());
        let loads = (0..layout.microbatches).map(|microbatch| Load {
            encoder: vec![items.encoder.item(learns.encoder); model.images.of(microbatch)],
            generator: vec![items.generator.item(learns.generator); model.drawings.of(microbatch)],
            llm: chunks
                .iter()
                .map(|c| ChunkCost {
                    forward: c.forward,
                    backward_input: c.backward_input,
                    backward_weight: c.backward_weight,
                    backward: c.backward,
                })
                .collect(),
        });
        let link = device.link(layout.ranks);
        let workload = Workload::new(layout.ranks, layout.chunks, loads.collect(), learns, 0.0)?
            .with_projector_alone(frozen.projector_alone())
            .with_link(Link {
                latency: link.latency,
                seconds_per_byte: 1.0 / device.bandwidth(link),
                overlapped: true,
            })?
            .with_sizes(sizes(model, llm, &layout, &chunks, &items))?
            .with_layers(layers(model, llm, device))?;
        let working = working(model, &layout);
        Ok(Estimate { model, llm, device, layout, workload, chunks, items, working, apart })
    }

    /// Sharded modules whose devices are on different nodes.
    pub fn apart(&self) -> PerModule<bool> {
        self.apart
    }

    /// Parameters of a module's chunk in this estimate's workload, or in one that a schedule has cut otherwise.
    pub fn parameters(&self, workload: &Workload, module: Module) -> u64 {
        let kind = module.kind();
        let part = workload.chain().and_then(|chain| chain.parts[kind].get(module.chunk().0));
        match (kind, part) {
            (ModuleKind::Llm, Some(part)) => {
                let layers = part.layers.clone().unwrap_or_default();
                llm_parameters(self.model, self.llm, &layers)
            }
            (ModuleKind::Llm, None) => self.chunks.get(module.chunk().0).map_or(0, |chunk| chunk.parameters),
            (_, part) => {
                let share = part.map_or(1.0, |part| part.share);
                (self.items[kind].parameters as f64 * share).round() as u64
            }
        }
    }

    /// Those of [`Estimate::parameters`] that learn.
    pub fn trained(&self, workload: &Workload, module: Module) -> u64 {
        let kind = module.kind();
        match kind {
            _ if !workload.has_weight_gradient(kind) => 0,
            ModuleKind::Llm => self.parameters(workload, module),
            _ => (self.items[kind].trained as f64 * workload.backward_share(module)).round() as u64,
        }
    }

    /// Bytes that a whole microbatch of each module saves on a rank: of the LLM on the rank whose chunks save most, of
    /// encoder and generator where all its items are on one.
    pub fn microbatch_bytes(&self) -> PerModule<Option<u64>> {
        let ranks = self.layout.ranks;
        let stage = |rank| self.chunks.iter().skip(rank).step_by(ranks).map(|chunk| chunk.saved).sum::<u64>();
        let items = |counts: &Counts, item: &Costed| (counts.most() as u64).saturating_mul(item.saved);
        PerModule {
            encoder: Some(items(&self.model.images, &self.items.encoder)),
            llm: (0..ranks).map(stage).max(),
            generator: Some(items(&self.model.drawings, &self.items.generator)),
        }
    }

    /// Bytes beside the saved ones while a layer's backward runs: the gradients of what it kept (at most as much
    /// again), what it computes again, and the sharded weights and gradients of two layers, brought together.
    pub fn working(&self, kind: ModuleKind) -> u64 {
        self.working[kind]
    }
}

/// Time of a part, forward and both gradients; `again` where the forward runs once more before them. By the device's
/// rates for this module and chunk where they have been measured.
fn costed(
    device: &Device,
    (kind, chunk): (ModuleKind, usize),
    part: &Part,
    saved: u64,
    again: Option<&Part>,
) -> Costed {
    let [forward, backward_input, backward_weight, backward, again] = match &device.measured {
        Some(measured) => {
            let rates = measured.rates.of(kind, chunk);
            // Whatever is done, profiles count the operations of the forward.
            let gops = |part: &Part| part.forward.flops() * 1e-9;
            let time = |rate: Rate| rate.time(gops(part));
            let again = again.map_or(0.0, |part| rates.forward.time(gops(part)));
            let [input, weight] = [time(rates.backward_input), time(rates.backward_weight)];
            [time(rates.forward), input, weight, time(rates.backward), again]
        }
        None => {
            let works = [&part.forward, &part.backward_input, &part.backward_weight];
            let [forward, input, weight] = works.map(|work| device.seconds(work));
            let again = again.map_or(0.0, |part| device.seconds(&part.forward));
            [forward, input, weight, input + weight, again]
        }
    };
    let (backward_input, backward) = (backward_input + again, backward + again);
    let (parameters, trained) = (part.parameters, part.trained);
    Costed { parameters, trained, saved, forward, backward_input, backward_weight, backward }
}

/// The LLM's layers of a range, with what comes before the first and after the last.
fn llm_part(model: &Model, llm: &Llm, range: &Range<usize>) -> (Part, Part) {
    let (tokens, bytes) = (model.sequence, model.bytes.value);
    let first = if range.start == 0 { llm.embedding() } else { Part::default() };
    let last = if range.end == llm.layers { llm.head(tokens, bytes) } else { Part::default() };
    (llm.layer(tokens, bytes).times(range.len()), first + last)
}

/// A tied output projection apart from its embedding holds a copy of it.
fn llm_parameters(model: &Model, llm: &Llm, range: &Range<usize>) -> u64 {
    let (layers, ends) = llm_part(model, llm, range);
    let apart = range.end == llm.layers && range.start > 0;
    let copy = if llm.tied && apart { llm.embedding().parameters } else { 0 };
    layers.parameters + ends.parameters + copy
}

fn chunk_costs(model: &Model, llm: &Llm, device: &Device, layout: &Layout) -> Result<Vec<Costed>, PlanError> {
    let all = layout.ranks.saturating_mul(layout.chunks);
    if all > llm.layers {
        return Err(PlanError::Shape(format!(
            "{} layers cannot be cut into {} ranks x {} chunks = {all} parts: take at most {} parts",
            llm.layers, layout.ranks, layout.chunks, llm.layers
        )));
    }
    let ranges = match layout.cut {
        Cut::Even => split_layers(llm.layers, all).map_err(|error| PlanError::Shape(error.to_string()))?,
        Cut::Balanced => balanced(llm.layers, all, layers(model, llm, device).head),
    };
    let chunk = |(index, range): (usize, &Range<usize>)| {
        let (layers, ends) = llm_part(model, llm, range);
        let again = layout.recompute.llm.then_some(&layers);
        let inputs = llm.hidden_bytes(model.frame()) * range.len() as u64;
        let saved = if layout.recompute.llm { inputs } else { layers.saved } + ends.saved;
        let costed = costed(device, (ModuleKind::Llm, index), &(layers + ends), saved, again);
        Costed { parameters: llm_parameters(model, llm, range), ..costed }
    };
    Ok(ranges.iter().enumerate().map(chunk).collect())
}

/// Ranges of whole layers of which the costliest is cheapest, where the last one costs as much as `head` layers more.
fn balanced(layers: usize, chunks: usize, head: f64) -> Vec<Range<usize>> {
    if chunks <= 1 {
        return std::iter::once(0..layers).collect();
    }
    let costliest = |last: &usize| {
        let others = (layers - last).div_ceil(chunks - 1) as f64;
        others.max(*last as f64 + head)
    };
    // Every chunk has a layer. Of lasts that are as good, the one that spares the others most.
    let lasts = (1..=layers / chunks).rev();
    let last = lasts.min_by(|a, b| costliest(a).total_cmp(&costliest(b))).unwrap_or(1);
    let mut ranges = even_ranges(layers - last, chunks - 1);
    ranges.push(layers - last..layers);
    ranges
}

/// Bytes that units save, and of the values between them.
fn sizes(
    model: &Model,
    llm: &Llm,
    layout: &Layout,
    chunks: &[Costed],
    items: &PerModule<Costed>,
) -> Vec<MicrobatchSizes> {
    let encoder = model.encoder.as_ref().map_or_else(ItemSize::default, |encoder| ItemSize {
        saved: items.encoder.saved,
        value: encoder.output_bytes(model.frame()),
        hidden: encoder.hidden_bytes(model.frame()),
    });
    let generator = model.generator.as_ref().map_or_else(ItemSize::default, |generator| ItemSize {
        saved: items.generator.saved,
        value: generator.input_bytes(model.frame()),
        hidden: generator.hidden_bytes(model.frame()),
    });
    let sizes = (0..layout.microbatches).map(|microbatch| MicrobatchSizes {
        encoder: vec![encoder; model.images.of(microbatch)],
        generator: vec![generator; model.drawings.of(microbatch)],
        llm: chunks.iter().map(|chunk| chunk.saved).collect(),
        hidden: llm.hidden_bytes(model.frame()),
    });
    sizes.collect()
}

/// Where the modules may be cut by schedules that make one chain of them.
fn layers(model: &Model, llm: &Llm, device: &Device) -> Layers {
    let (tokens, bytes) = (model.sequence, model.bytes.value);
    let seconds = |part: &Part| {
        device.seconds(&part.forward)
            + device.seconds(&part.backward_input)
            + device.seconds(&part.backward_weight)
    };
    Layers {
        count: PerModule {
            encoder: model.encoder.as_ref().map_or(0, |encoder| encoder.layers),
            llm: llm.layers,
            generator: model.generator.as_ref().map_or(0, |generator| generator.layers),
        },
        head: seconds(&llm.head(tokens, bytes)) / seconds(&llm.layer(tokens, bytes)),
    }
}

/// An encoder or generator on one item; nothing for the LLM, which has none, and for a module that is not there.
pub(super) fn item_cost(
    model: &Model,
    device: &Device,
    layout: &Layout,
    kind: ModuleKind,
    apart: bool,
) -> Costed {
    let (frame, frozen) = (model.frame(), model.frozen());
    let (part, inputs) = match kind {
        ModuleKind::Encoder => match &model.encoder {
            Some(encoder) => (encoder.learning(frame, frozen), encoder.saved_inputs(frame)),
            None => return Costed::default(),
        },
        ModuleKind::Generator => match &model.generator {
            Some(generator) => (generator.item(frame), generator.saved_inputs(frame)),
            None => return Costed::default(),
        },
        ModuleKind::Llm => return Costed::default(),
    };
    // Nothing of layers below a projector that learns alone is saved, or computed again.
    let alone = kind == ModuleKind::Encoder && frozen.projector_alone();
    let recompute = layout.recompute[kind] && !alone;
    let saved = if recompute { inputs } else { part.saved };
    let mut costed = costed(device, (kind, 0), &part, saved, recompute.then_some(&part));
    if layout.sharded[kind] {
        // Weights are brought together under the computation of the layer before, gradients spread under that of the
        // layer after: what is slower decides.
        let devices = layout.devices().min(device.devices_per_node);
        let share = (devices - 1) as f64 / devices as f64;
        let link = device.link(if apart { layout.devices() } else { devices });
        let bandwidth = device.bandwidth(link);
        let seconds = |bytes: usize| (part.parameters * bytes as u64) as f64 * share / bandwidth;
        costed.forward = costed.forward.max(seconds(model.bytes.value));
        costed.backward_input = costed.backward_input.max(seconds(model.bytes.value));
        costed.backward_weight = costed.backward_weight.max(seconds(model.bytes.gradient));
    }
    costed
}

/// What [`Estimate::working`] says, of all modules.
pub(super) fn working(model: &Model, layout: &Layout) -> PerModule<u64> {
    let bytes = model.bytes.value;
    let layers = PerModule {
        encoder: model.encoder.as_ref().map(|encoder| encoder.layer(bytes)),
        llm: model.llm.as_ref().map(|llm| llm.layer(model.sequence, bytes)),
        generator: model.generator.as_ref().map(|generator| generator.block(bytes)),
    };
    let mut working = PerModule::default();
    for kind in ModuleKind::ALL {
        let Some(layer) = &layers[kind] else { continue };
        let again = if layout.recompute[kind] { layer.saved } else { 0 };
        let alone = kind == ModuleKind::Encoder && model.frozen().projector_alone();
        let ends = model.encoder.as_ref().filter(|_| alone).map(|e| e.projector_alone(model.frame()));
        let together = 2 * layer.parameters * (model.bytes.value + model.bytes.gradient) as u64;
        let saved = ends.map_or(layer.saved + again, |projector| projector.saved);
        working[kind] = saved + if layout.sharded[kind] { together } else { 0 };
    }
    working
}
