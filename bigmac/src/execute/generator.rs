//! Generator items: hidden states and noised latents to the drawing's loss.

use super::error::ExecuteError;
use super::inputs::Inputs;
use super::task::{Flow, StepTask};
use super::unit::{End, Forwarded, LossPart, Recorded, Start};
use crate::model::Replica;
use bigmac_models::mmdit::codec::Codec;
use bigmac_models::mmdit::{Mmdit, Streams};
use bigmac_runtime::{Context, Spec};
use bigmac_schedule::{Chunk, Item, Value};

impl StepTask<'_> {
    /// A chunk of the generator on one item. The first and the last chunk each look at the picture: noise is a function of
    /// its sample, so they see the same.
    pub(super) fn generate(
        &self,
        ctx: &Context,
        generator: &Replica<Mmdit>,
        chunk: Chunk,
        item: Item,
        flow: Flow,
        inputs: &mut impl Inputs,
    ) -> Result<Forwarded, ExecuteError> {
        let draw = self.draw(item)?;
        let (net, codec, text) = (&generator.net, self.shape.codec, draw.cond_rows.len());
        let grid = codec.grid(draw.size, draw.size)?;
        let first = chunk.0 == 0;
        let spec = Spec::new(&[grid.patches(), codec.channels()], self.shape.dtype);
        let drawing = if first || flow.last { Some(inputs.drawing(draw, &spec)?) } else { None };
        let (latents, target) = drawing
            .map_or((None, None), |d| (first.then_some((d.latents, d.time)), flow.last.then_some(d.target)));
        let mut graph = inputs.graph(ctx, &generator.params, flow.learns);
        let rotations = inputs.rope(net.config(), grid, text)?.constants(&graph);
        let (value, grad, learns) = if first {
            (Value::Cond(item), Value::CondGrad(item), flow.below)
        } else {
            let before = Chunk(chunk.0 - 1);
            let grad = Value::GeneratorHiddenGrad { item, chunk: before };
            (Value::GeneratorHidden { item, chunk }, grad, flow.learns)
        };
        let read = inputs.value(value, &self.value_spec(value)?)?;
        let read = if learns { graph.leaf(read) } else { graph.constant(read) };
        let start = Start::new(&read, grad);
        let streams = match latents {
            Some((latents, time)) => {
                let (latents, time) = (graph.constant(latents), graph.constant(time));
                net.embed(&mut graph, &latents, &time, &read)?
            }
            None => Streams::unpack(&mut graph, &read, text)?,
        };
        drop(read);
        let streams = net.run_blocks(&mut graph, streams, &rotations)?;
        let mut forwarded = Forwarded::default();
        let end = match target {
            Some(target) => {
                let velocity = net.predict(&mut graph, &streams)?;
                let target = graph.constant(target);
                let scale = self.drawing_weight / self.plan.drawn_elements.max(1) as f64;
                let loss = Mmdit::loss(&mut graph, &velocity, &target, scale)?;
                let end = End::loss(&loss);
                forwarded.losses.push((LossPart::Drawing, loss.into_tensor()));
                end
            }
            None => {
                let packed = streams.pack(&mut graph)?;
                let end = End::value(&packed, Value::GeneratorHiddenGrad { item, chunk });
                let next = Value::GeneratorHidden { item, chunk: Chunk(chunk.0 + 1) };
                forwarded.outputs.push((next, packed.into_tensor()));
                end
            }
        };
        if flow.learns {
            let (starts, ends) = (start.into_iter().collect(), end.into_iter().collect());
            forwarded.recorded = Some(Recorded { tape: graph.finish(), starts, ends });
        }
        Ok(forwarded)
    }
}
