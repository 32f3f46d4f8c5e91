//! Where the tensors that enter a unit come from: other ops and files when it runs, nowhere when it is planned.

use super::error::ExecuteError;
use super::task::StepTask;
use crate::data::{DrawItem, ImageItem, load_draw_item, load_image_item};
use crate::schedule::Value;
use bigmac_autograd::{Graph, Parameters};
use bigmac_kernels::cast::cast;
use bigmac_models::mmdit::codec::Codec;
use bigmac_models::mmdit::flow::SampleKey;
use bigmac_models::mmdit::{Grid, MmditConfig, RopeTables, time_features};
use bigmac_runtime::{Context, Spec, Tensor};

/// The source of a unit's tensors.
pub(super) trait Inputs {
    /// A value that another op made.
    fn value(&mut self, value: Value, spec: &Spec) -> Result<Tensor, ExecuteError>;
    /// Pixels of an image, [3, side, side].
    fn image(&mut self, item: &ImageItem, spec: &Spec) -> Result<Tensor, ExecuteError>;
    /// Noised latents and the velocity to be learned, [patches, channels] both, and features of the time.
    fn drawing(&mut self, item: &DrawItem, latents: &Spec) -> Result<Drawing, ExecuteError>;
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

/// Inputs of a unit that runs.
pub(super) struct Live<'a, 't> {
    pub task: &'a StepTask<'t>,
    pub ctx: &'a Context,
    pub records: bool,
    pub take: &'a mut dyn FnMut(Value) -> Result<Tensor, ExecuteError>,
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
        let picture = Tensor::from_slice(self.ctx, &load_draw_item(item)?, &[3, item.size, item.size])?;
        let clean = task.shape.codec.encode(self.ctx, &picture)?;
        let key = SampleKey { seed: task.seed, step: task.step as u32, sample: item.sample };
        let noised = task.flow.noised(self.ctx, &clean, key, latents.dtype)?;
        let time = time_features(self.ctx, noised.time, latents.dtype)?;
        Ok(Drawing { latents: noised.latents, target: noised.target, time })
    }

    fn rope(&self, config: &MmditConfig, grid: Grid, text: usize) -> Result<RopeTables, ExecuteError> {
        Ok(RopeTables::new(self.ctx, config, grid, text, self.task.shape.dtype)?)
    }

    fn records(&self) -> bool {
        self.records
    }

    fn graph<'g>(&self, ctx: &'g Context, params: &'g Parameters, recorded: bool) -> Graph<'g> {
        if recorded { Graph::recording(ctx, params) } else { Graph::inference(ctx, params) }
    }
}

/// Inputs of a unit that is planned: shapes.
pub(super) struct Planned<'a, 't>(pub &'a StepTask<'t>);

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
