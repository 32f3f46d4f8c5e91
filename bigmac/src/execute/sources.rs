//! Units run and units planned: their tensors come from other ops and files, or from nowhere.

use super::error::ExecuteError;
use super::inputs::{Drawing, Inputs};
use super::task::StepTask;
use super::unit::Forwarded;
use crate::data::{DrawItem, ImageItem, load_draw_item, load_image_item};
use crate::model::{RankModules, Rotary};
use bigmac_autograd::{Graph, Parameters};
use bigmac_kernels::cast::cast;
use bigmac_models::mmdit::codec::Codec;
use bigmac_models::mmdit::flow::SampleKey;
use bigmac_models::mmdit::{Grid, MmditConfig, RopeTables, time_features};
use bigmac_models::qwen3::Qwen3;
use bigmac_runtime::{Context, Spec, Tensor};
use bigmac_schedule::{Unit, Value, Workload};

impl StepTask<'_> {
    /// Runs the forward of a unit in `ctx`, whose scope its activations are counted under; it is recorded where it
    /// `records` and has a backward. `take` hands over the values that other ops made.
    pub(super) fn forward(
        &self,
        ctx: &Context,
        modules: &RankModules,
        workload: &Workload,
        unit: Unit,
        records: bool,
        take: &mut dyn FnMut(Value) -> Result<Tensor, ExecuteError>,
    ) -> Result<Forwarded, ExecuteError> {
        self.unit(
            ctx,
            modules,
            workload,
            unit,
            &mut Live { task: self, ctx, rotary: &modules.rotary, records, take },
        )
    }

    /// The bytes that the forward of a unit will save for its backward, exactly, without computing it.
    ///
    /// # Errors
    /// Those of the operators' shape checks, and [`ExecuteError::Missing`] for a unit that is not of this step.
    pub fn saved_bytes(
        &self,
        ctx: &Context,
        modules: &RankModules,
        workload: &Workload,
        unit: Unit,
    ) -> Result<usize, ExecuteError> {
        if !workload.has_backward(unit.module.kind(), unit.microbatch()) {
            return Ok(0);
        }
        let forwarded = self.unit(ctx, modules, workload, unit, &mut Planned(self))?;
        Ok(forwarded.recorded.map_or(0, |recorded| recorded.tape.saved_bytes()))
    }
}

/// Inputs of a unit that runs.
struct Live<'a, 't> {
    task: &'a StepTask<'t>,
    ctx: &'a Context,
    rotary: &'a Rotary,
    records: bool,
    take: &'a mut dyn FnMut(Value) -> Result<Tensor, ExecuteError>,
}

impl Inputs for Live<'_, '_> {
    fn value(&mut self, value: Value, _spec: &Spec) -> Result<Tensor, ExecuteError> {
        (self.take)(value)
    }

    fn image(&mut self, item: &ImageItem, spec: &Spec) -> Result<Tensor, ExecuteError> {
        let pixels = Tensor::from_slice(self.ctx, &load_image_item(item)?, &spec.shape)?;
        Ok(cast(self.ctx, &pixels, spec.dtype)?)
    }

    fn drawing(&mut self, item: &DrawItem, latents: &Spec) -> Result<Drawing, ExecuteError> {
        let task = self.task;
        let host = self.ctx.host();
        let picture = Tensor::from_slice(&host, &load_draw_item(item)?, &[3, item.size, item.size])?;
        let clean = task.shape.codec.encode(&host, &picture)?;
        let key = SampleKey { seed: task.seed, step: task.step as u32, sample: item.sample };
        let noised = task.flow.noised(self.ctx, &clean, key, latents.dtype)?;
        let time = time_features(self.ctx, noised.time, latents.dtype)?;
        Ok(Drawing { latents: noised.latents, target: noised.target, time })
    }

    fn text_rope(&self, net: &Qwen3, bounds: &[usize]) -> Result<(Tensor, Tensor), ExecuteError> {
        Ok(net.packed_rope(self.ctx, &self.rotary.text, bounds, self.task.shape.dtype)?)
    }

    fn rope(&self, config: &MmditConfig, grid: Grid, text: usize) -> Result<RopeTables, ExecuteError> {
        let (cache, dtype) = (&self.rotary.drawings, self.task.shape.dtype);
        Ok(RopeTables::cached(self.ctx, cache, config, grid, text, dtype)?)
    }

    fn records(&self) -> bool {
        self.records
    }

    fn graph<'g>(&self, ctx: &'g Context, params: &'g Parameters, recorded: bool) -> Graph<'g> {
        if recorded { Graph::recording(ctx, params) } else { Graph::inference(ctx, params) }
    }
}

/// Inputs of a unit that is planned: shapes.
struct Planned<'a, 't>(&'a StepTask<'t>);

impl Inputs for Planned<'_, '_> {
    fn value(&mut self, _value: Value, spec: &Spec) -> Result<Tensor, ExecuteError> {
        Ok(Tensor::shape_only(spec))
    }

    fn image(&mut self, _item: &ImageItem, spec: &Spec) -> Result<Tensor, ExecuteError> {
        Ok(Tensor::shape_only(spec))
    }

    fn drawing(&mut self, _item: &DrawItem, latents: &Spec) -> Result<Drawing, ExecuteError> {
        let time = Spec::new(&[MmditConfig::TIME_FEATURES], latents.dtype);
        let [latents, target] = [latents, latents].map(Tensor::shape_only);
        Ok(Drawing { latents, target, time: Tensor::shape_only(&time) })
    }

    fn text_rope(&self, net: &Qwen3, bounds: &[usize]) -> Result<(Tensor, Tensor), ExecuteError> {
        Ok(net.planned_rope(bounds.last().copied().unwrap_or(0), self.0.shape.dtype))
    }

    fn rope(&self, config: &MmditConfig, grid: Grid, text: usize) -> Result<RopeTables, ExecuteError> {
        Ok(RopeTables::shape_only(config, grid, text, self.0.shape.dtype))
    }

    fn records(&self) -> bool {
        true
    }

    fn graph<'g>(&self, ctx: &'g Context, params: &'g Parameters, _recorded: bool) -> Graph<'g> {
        Graph::planning(ctx, params)
    }
}
