//! Encoder items: pixels to embeddings.

use super::error::ExecuteError;
use super::inputs::Inputs;
use super::task::{Flow, StepTask};
use super::unit::{End, Forwarded, Recorded, Start};
use crate::model::Replica;
use bigmac_models::llava::VisionEncoder;
use bigmac_runtime::{Context, Spec};
use bigmac_schedule::{Chunk, Item, Value};

impl StepTask<'_> {
    /// A chunk of the encoder on one item.
    pub(super) fn encode(
        &self,
        ctx: &Context,
        encoder: &Replica<VisionEncoder>,
        chunk: Chunk,
        item: Item,
        flow: Flow,
        inputs: &mut impl Inputs,
    ) -> Result<Forwarded, ExecuteError> {
        let mut graph = inputs.graph(ctx, &encoder.params, flow.learns);
        let mut start = None;
        let states = if chunk.0 == 0 {
            let image = self.image(item)?;
            let pixels = inputs.image(image, &Spec::new(&[3, image.size, image.size], self.shape.dtype))?;
            let pixels = graph.constant(pixels);
            encoder.net.embed(&mut graph, &pixels)?
        } else {
            let value = Value::EncoderHidden { item, chunk };
            let states = inputs.value(value, &self.value_spec(value)?)?;
            let states = if flow.learns { graph.leaf(states) } else { graph.constant(states) };
            start = Start::new(&states, Value::EncoderHiddenGrad { item, chunk: Chunk(chunk.0 - 1) });
            states
        };
        let output = encoder.net.layers(&mut graph, states)?;
        let (value, grad) = if flow.last {
            (Value::Embeds(item), Value::EmbedGrad(item))
        } else {
            let next = Chunk(chunk.0 + 1);
            (Value::EncoderHidden { item, chunk: next }, Value::EncoderHiddenGrad { item, chunk })
        };
        let end = End::value(&output, grad);
        let mut forwarded = Forwarded::default();
        forwarded.outputs.push((value, output.into_tensor()));
        if flow.learns {
            let (starts, ends) = (start.into_iter().collect(), end.into_iter().collect());
            forwarded.recorded = Some(Recorded { tape: graph.finish(), starts, ends });
        }
        Ok(forwarded)
    }
}
