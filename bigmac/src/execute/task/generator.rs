//! Generator items: hidden states and noised latents to the drawing's loss.

use super::StepTask;
use crate::data::DrawItem;
use crate::execute::error::ExecuteError;
use crate::execute::losses::LossPart;
use crate::execute::unit::UnitForward;
use crate::model::Rotary;
use bigmac_autograd::Graph;
use bigmac_models::mmdit::codec::Codec;
use bigmac_models::mmdit::flow::SampleKey;
use bigmac_models::mmdit::{Grid, Mmdit, MmditConfig, RopeTables, Streams, time_features};
use bigmac_runtime::{Spec, Tensor};
use bigmac_schedule::{Chunk, Item, Value};

/// What a picture to be drawn becomes.
struct Drawing {
    /// Noised latents, [patches, channels].
    latents: Tensor,
    /// The velocity to be learned, alike.
    target: Tensor,
    /// Features of the time of the noise.
    time: Tensor,
}

impl StepTask<'_> {
    /// A chunk of the generator on one item. The first and the last chunk each look at the picture: noise is a function
    /// of its sample, so they see the same. `below`: the LLM waits for the gradients of the conditions.
    pub(super) fn generator(
        &self,
        forward: &mut UnitForward<'_>,
        net: &Mmdit,
        rotary: &Rotary,
        chunk: Chunk,
        item: Item,
        below: bool,
    ) -> Result<(), ExecuteError> {
        let (draw, stage) = (self.draw(item)?, net.stage());
        let (text, dtype, ctx) = (draw.cond_rows.len(), self.shape.dtype, forward.graph.ctx());
        let grid = self.shape.codec.grid(draw.size, draw.size)?;
        let ends = stage.first || stage.last;
        let drawing = ends.then(|| self.drawing(&forward.graph, draw, grid)).transpose()?;
        let rope = if forward.graph.is_planning() {
            RopeTables::shape_only(net.config(), grid, text, dtype)
        } else {
            RopeTables::cached(ctx, &rotary.drawings, net.config(), grid, text, dtype)?
        };
        let rotations = rope.constants(&forward.graph);
        let (streams, target) = match drawing {
            Some(Drawing { latents, time, target }) if stage.first => {
                let cond = forward.read(Value::Cond(item), below.then_some(Value::CondGrad(item)))?;
                let (latents, time) = (forward.graph.constant(latents), forward.graph.constant(time));
                (net.embed(&mut forward.graph, &latents, &time, &cond)?, Some(target))
            }
            drawing => {
                let grad = Value::GeneratorHiddenGrad { item, chunk: Chunk(chunk.0 - 1) };
                let packed = forward.read(Value::GeneratorHidden { item, chunk }, Some(grad))?;
                let streams = Streams::unpack(&mut forward.graph, &packed, text)?;
                (streams, drawing.map(|drawing| drawing.target))
            }
        };
        let streams = net.run_blocks(&mut forward.graph, streams, &rotations)?;
        match target.filter(|_| stage.last) {
            Some(target) => {
                let velocity = net.predict(&mut forward.graph, &streams)?;
                let target = forward.graph.constant(target);
                let scale = self.drawing_weight / self.plan.drawn_elements.max(1) as f64;
                let loss = Mmdit::loss(&mut forward.graph, &velocity, &target, scale)?;
                forward.lose(LossPart::Drawing, loss);
            }
            None => {
                let packed = streams.pack(&mut forward.graph)?;
                let next = Value::GeneratorHidden { item, chunk: Chunk(chunk.0 + 1) };
                forward.write(packed, next, Value::GeneratorHiddenGrad { item, chunk });
            }
        }
        Ok(())
    }

    fn drawing(&self, graph: &Graph<'_>, draw: &DrawItem, grid: Grid) -> Result<Drawing, ExecuteError> {
        let (codec, dtype) = (self.shape.codec, self.shape.dtype);
        if graph.is_planning() {
            let planned = |shape: &[usize]| Tensor::shape_only(&Spec::new(shape, dtype));
            let latents = [grid.patches(), codec.channels()];
            let time = planned(&[MmditConfig::TIME_FEATURES]);
            return Ok(Drawing { latents: planned(&latents), target: planned(&latents), time });
        }
        let host = graph.ctx().host();
        let picture = Tensor::from_slice(&host, &self.pictures()?.draw(draw)?, &[3, draw.size, draw.size])?;
        let clean = codec.encode(&host, &picture)?;
        let key = SampleKey { seed: self.seed, step: self.step as u32, sample: draw.sample };
        let noised = self.flow.noised(graph.ctx(), &clean, key, dtype)?;
        let time = time_features(graph.ctx(), noised.time, dtype)?;
        Ok(Drawing { latents: noised.latents, target: noised.target, time })
    }
}
