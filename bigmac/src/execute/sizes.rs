//! Bytes of a step: what units will save, and how big the values are that cross ranks.

use super::error::ExecuteError;
use super::task::StepTask;
use crate::data::StepPlan;
use crate::model::{ModelShape, Placement, RankModules};
use bigmac_models::mmdit::flow::FlowMatching;
use bigmac_runtime::Context;
use bigmac_schedule::{
    Chunk, Item, ItemSize, Microbatch, MicrobatchSizes, Module, ModuleKind, Piece, Unit, Value, Workload,
};
use std::collections::HashMap;

/// Predicts sizes without computing anything.
struct Sizer<'a> {
    ctx: Context,
    task: StepTask<'a>,
    modules: RankModules,
    workload: &'a Workload,
    /// Items that look the same save the same: by kind, side, rows, and whether anything below has a backward.
    seen: HashMap<(ModuleKind, (usize, usize), bool), u64>,
}

/// A workload of `plan` with its sizes. They are exact, except that a chunk of an encoder or a generator that is cut
/// counts for its share of what the whole module saves.
///
/// # Errors
/// Those of the operators' shape checks.
pub fn with_sizes(shape: &ModelShape, plan: &StepPlan, workload: Workload) -> Result<Workload, ExecuteError> {
    let ctx = Context::cpu(0, 1)?;
    let placement = Placement::of(shape, &workload)?;
    let modules = RankModules::planned(&ctx, shape, &placement)?;
    let flow = FlowMatching::default();
    let task =
        StepTask { plan, shape, seed: 0, step: 0, drawing_weight: 1.0, flow, pictures: None, position: None };
    let mut sizer = Sizer { ctx, task, modules, workload: &workload, seen: HashMap::new() };
    let sizes = workload.microbatches().map(|m| sizer.microbatch(m)).collect::<Result<Vec<_>, _>>()?;
    Ok(workload.with_sizes(sizes)?)
}

impl Sizer<'_> {
    fn microbatch(&mut self, microbatch: Microbatch) -> Result<MicrobatchSizes, ExecuteError> {
        let chunks = (0..self.workload.chunks()).map(Chunk);
        let llm = chunks.map(|chunk| self.saved(Module::Llm(chunk), Piece::Microbatch(microbatch)));
        let llm = llm.collect::<Result<_, _>>()?;
        let mut items = |kind| {
            let items = self.workload.items(kind, microbatch);
            items.map(|item| self.item(kind, item)).collect::<Result<_, _>>()
        };
        let (encoder, generator) = (items(ModuleKind::Encoder)?, items(ModuleKind::Generator)?);
        let hidden = self.bytes(Value::Hidden { microbatch, chunk: Chunk(1) })?;
        Ok(MicrobatchSizes { encoder, generator, llm, hidden })
    }

    fn item(&mut self, kind: ModuleKind, item: Item) -> Result<ItemSize, ExecuteError> {
        let chunk = Chunk(1);
        let (module, looks, value, hidden): (fn(Chunk) -> Module, _, _, _) = if kind == ModuleKind::Encoder {
            let (image, hidden) = (self.task.image(item)?, Value::EncoderHidden { item, chunk });
            (Module::Encoder, (image.size, image.rows.len()), Value::Embeds(item), hidden)
        } else {
            let (draw, hidden) = (self.task.draw(item)?, Value::GeneratorHidden { item, chunk });
            (Module::Generator, (draw.size, draw.cond_rows.len()), Value::Cond(item), hidden)
        };
        let key = (kind, looks, self.workload.has_backward(ModuleKind::Llm, item.microbatch));
        let saved = match self.seen.get(&key) {
            Some(saved) => *saved,
            None => {
                let chunks = self.modules.placement().chunks(kind).iter().map(|placed| module(placed.chunk));
                chunks.map(|module| self.saved(module, Piece::Item(item))).sum::<Result<u64, _>>()?
            }
        };
        self.seen.insert(key, saved);
        Ok(ItemSize { saved, value: self.bytes(value)?, hidden: self.bytes(hidden)? })
    }

    fn saved(&self, module: Module, piece: Piece) -> Result<u64, ExecuteError> {
        let unit = Unit { module, piece };
        Ok(self.task.saved_bytes(&self.ctx, &self.modules, self.workload, unit)? as u64)
    }

    fn bytes(&self, value: Value) -> Result<u64, ExecuteError> {
        Ok(self.task.value_spec(value)?.bytes() as u64)
    }
}
