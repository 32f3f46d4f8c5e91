//! Bytes of a step: what units will save, and how big the values are that cross ranks.

use super::error::ExecuteError;
use super::program::Program;
use super::task::StepTask;
use crate::data::StepPlan;
use crate::model::{ModelShape, Placement, RankModules};
use bigmac_models::mmdit::flow::FlowMatching;
use bigmac_runtime::Context;
use bigmac_schedule::check::memory::{Change, walk};
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
    /// Items that look alike save alike: by kind, side, rows, and whether anything below has a backward.
    seen: HashMap<(ModuleKind, usize, usize, bool), u64>,
}

/// A workload of `plan` with its sizes. They are exact, except that a chunk of an encoder or a generator that is cut counts
/// for its share of what the whole module saves.
///
/// # Errors
/// Those of the operators' shape checks.
pub fn with_sizes(shape: &ModelShape, plan: &StepPlan, workload: Workload) -> Result<Workload, ExecuteError> {
    let ctx = Context::cpu(0, 1)?;
    let placement = Placement::of(shape, &workload)?;
    let modules = RankModules::planned(&ctx, shape, &placement)?;
    let flow = FlowMatching::default();
    let task = StepTask { plan, shape, seed: 0, step: 0, drawing_weight: 1.0, flow };
    let mut sizer = Sizer { ctx, task, modules, workload: &workload, seen: HashMap::new() };
    let sizes = workload.microbatches().map(|m| sizer.microbatch(m)).collect::<Result<Vec<_>, _>>()?;
    Ok(workload.with_sizes(sizes)?)
}

/// What units of a rank's ops save for their backwards, where they are held between ops.
///
/// # Errors
/// Those of the operators' shape checks.
pub fn predict_saved(
    ctx: &Context,
    task: &StepTask<'_>,
    modules: &RankModules,
    program: &Program,
    rank: usize,
) -> Result<HashMap<Unit, u64>, ExecuteError> {
    let mut units = Vec::new();
    walk(&program.table.ranks[rank], &program.workload, |_, unit, change| {
        units.extend((change == Change::Acquire).then_some(unit));
    });
    let bytes = |unit| Ok((unit, task.saved_bytes(ctx, modules, &program.workload, unit)? as u64));
    units.into_iter().map(bytes).collect()
}

impl Sizer<'_> {
    fn microbatch(&mut self, microbatch: Microbatch) -> Result<MicrobatchSizes, ExecuteError> {
        let items = |kind| self.workload.items(kind, microbatch).collect::<Vec<Item>>();
        let (images, drawings) = (items(ModuleKind::Encoder), items(ModuleKind::Generator));
        let llm = (0..self.workload.chunks())
            .map(|chunk| self.saved(Module::Llm(Chunk(chunk)), Piece::Microbatch(microbatch)))
            .collect::<Result<_, _>>()?;
        Ok(MicrobatchSizes {
            encoder: images.into_iter().map(|item| self.image(item)).collect::<Result<_, _>>()?,
            generator: drawings.into_iter().map(|item| self.drawing(item)).collect::<Result<_, _>>()?,
            llm,
            hidden: self.bytes(Value::Hidden { microbatch, chunk: Chunk(1) })?,
        })
    }

    fn image(&mut self, item: Item) -> Result<ItemSize, ExecuteError> {
        let image = self.task.image(item)?;
        let key = (ModuleKind::Encoder, image.size, image.rows.len(), false);
        Ok(ItemSize {
            saved: self.item(key, Module::Encoder, self.workload.encoder_chunks(), item)?,
            value: self.bytes(Value::Embeds(item))?,
            hidden: self.bytes(Value::EncoderHidden { item, chunk: Chunk(1) })?,
        })
    }

    fn drawing(&mut self, item: Item) -> Result<ItemSize, ExecuteError> {
        let draw = self.task.draw(item)?;
        let below = self.workload.has_backward(ModuleKind::Llm, item.microbatch);
        let key = (ModuleKind::Generator, draw.size, draw.cond_rows.len(), below);
        Ok(ItemSize {
            saved: self.item(key, Module::Generator, self.workload.generator_chunks(), item)?,
            value: self.bytes(Value::Cond(item))?,
            hidden: self.bytes(Value::GeneratorHidden { item, chunk: Chunk(1) })?,
        })
    }

    fn item(
        &mut self,
        key: (ModuleKind, usize, usize, bool),
        module: fn(Chunk) -> Module,
        chunks: usize,
        item: Item,
    ) -> Result<u64, ExecuteError> {
        if let Some(saved) = self.seen.get(&key) {
            return Ok(*saved);
        }
        let all = (0..chunks).map(|chunk| self.saved(module(Chunk(chunk)), Piece::Item(item)));
        let saved = all.sum::<Result<u64, _>>()?;
        self.seen.insert(key, saved);
        Ok(saved)
    }

    fn saved(&self, module: Module, piece: Piece) -> Result<u64, ExecuteError> {
        let unit = Unit { module, piece };
        Ok(self.task.saved_bytes(&self.ctx, &self.modules, self.workload, unit)? as u64)
    }

    fn bytes(&self, value: Value) -> Result<u64, ExecuteError> {
        Ok(self.task.value_spec(value)?.bytes() as u64)
    }
}
