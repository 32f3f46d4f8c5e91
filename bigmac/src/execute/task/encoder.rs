//! Encoder items: pixels to embeddings.

use super::StepTask;
use crate::execute::error::ExecuteError;
use crate::execute::unit::UnitForward;
use bigmac_autograd::Graph;
use bigmac_kernels::cast::cast;
use bigmac_models::llava::VisionEncoder;
use bigmac_runtime::{Spec, Tensor};
use bigmac_schedule::{Chunk, Item, Value};

impl StepTask<'_> {
    /// A chunk of the encoder on one item. `below`: the chunk before it waits for the gradients of its states.
    pub(super) fn encoder(
        &self,
        forward: &mut UnitForward<'_>,
        net: &VisionEncoder,
        chunk: Chunk,
        item: Item,
        below: bool,
    ) -> Result<(), ExecuteError> {
        let states = if net.stage().first {
            let pixels = self.pixels(&forward.graph, item)?;
            let pixels = forward.graph.constant(pixels);
            net.embed(&mut forward.graph, &pixels)?
        } else {
            let grad = Value::EncoderHiddenGrad { item, chunk: Chunk(chunk.0 - 1) };
            forward.read(Value::EncoderHidden { item, chunk }, below.then_some(grad))?
        };
        let output = net.layers(&mut forward.graph, states)?;
        if net.stage().last {
            forward.write(output, Value::Embeds(item), Value::EmbedGrad(item));
        } else {
            let next = Value::EncoderHidden { item, chunk: Chunk(chunk.0 + 1) };
            forward.write(output, next, Value::EncoderHiddenGrad { item, chunk });
        }
        Ok(())
    }

    /// Pixels of an image, [3, side, side].
    fn pixels(&self, graph: &Graph<'_>, item: Item) -> Result<Tensor, ExecuteError> {
        let image = self.image(item)?;
        let shape = [3, image.size, image.size];
        if graph.is_planning() {
            return Ok(Tensor::shape_only(&Spec::new(&shape, self.shape.dtype)));
        }
        let pixels = Tensor::from_slice(graph.ctx(), &self.pictures()?.image(image)?, &shape)?;
        Ok(cast(graph.ctx(), &pixels, self.shape.dtype)?)
    }
}
