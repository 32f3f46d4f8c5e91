//! The LLM's chunks on microbatches.

use super::StepTask;
use crate::execute::error::ExecuteError;
use crate::execute::losses::LossPart;
use crate::execute::unit::UnitForward;
use crate::model::Rotary;
use bigmac_autograd::Var;
use bigmac_kernels::gather_rows::GatherRows;
use bigmac_models::qwen3::Qwen3;
use bigmac_runtime::Tensor;
use bigmac_schedule::{Chunk, Item, Microbatch, Value};
use std::sync::Arc;

impl StepTask<'_> {
    /// An LLM chunk on a microbatch: tokens and embeddings, or hidden states, to hidden states, or to loss and
    /// conditions. `below`: the encoder waits for the gradients of its embeddings.
    pub(super) fn llm(
        &self,
        forward: &mut UnitForward<'_>,
        net: &Qwen3,
        rotary: &Rotary,
        chunk: Chunk,
        microbatch: Microbatch,
        below: bool,
    ) -> Result<(), ExecuteError> {
        let load = self.load(microbatch)?;
        let ctx = forward.graph.ctx();
        let hidden = if net.stage().first {
            let mut images = Vec::with_capacity(load.images.len());
            for (index, image) in load.images.iter().enumerate() {
                let item = Item { microbatch, index };
                let embeds = forward.read(Value::Embeds(item), below.then_some(Value::EmbedGrad(item)))?;
                images.push((image.rows.clone(), embeds));
            }
            let tokens: Vec<i32> = load.tokens.iter().map(|&t| t as i32).collect();
            let tokens = forward.graph.constant(Tensor::from_slice(ctx, &tokens, &[tokens.len()])?);
            net.embed(&mut forward.graph, &tokens, &images)?
        } else {
            let grad = Value::HiddenGrad { microbatch, chunk: Chunk(chunk.0 - 1) };
            forward.read(Value::Hidden { microbatch, chunk }, Some(grad))?
        };
        let (cos, sin) = if forward.graph.is_planning() {
            net.planned_rope(load.tokens.len(), self.shape.dtype)
        } else {
            net.packed_rope(ctx, &rotary.text, &load.bounds, self.shape.dtype)?
        };
        let (cos, sin) = (forward.graph.constant(cos), forward.graph.constant(sin));
        let bounds: Arc<[usize]> = load.bounds.as_slice().into();
        let hidden = net.layers(&mut forward.graph, &hidden, (&cos, &sin), &bounds)?;
        if net.stage().last {
            return self.finish_llm(forward, net, microbatch, hidden);
        }
        let next = Value::Hidden { microbatch, chunk: Chunk(chunk.0 + 1) };
        forward.write(hidden, next, Value::HiddenGrad { microbatch, chunk });
        Ok(())
    }

    /// The end of the last chunk: the token loss, and the conditions of what is to be drawn.
    fn finish_llm(
        &self,
        forward: &mut UnitForward<'_>,
        net: &Qwen3,
        microbatch: Microbatch,
        hidden: Var,
    ) -> Result<(), ExecuteError> {
        let load = self.load(microbatch)?;
        let graph = &mut forward.graph;
        let normed = net.final_norm(graph, &hidden)?;
        if load.targets.iter().any(|&t| t >= 0) {
            let targets = Tensor::from_slice(graph.ctx(), &load.targets, &[load.targets.len()])?;
            let targets = graph.constant(targets);
            let scale = 1.0 / self.plan.target_tokens.max(1) as f64;
            let loss = net.loss(graph, &normed, &targets, scale)?;
            forward.lose(LossPart::Token, loss);
        }
        if load.draws.is_empty() {
            return Ok(());
        }
        let rows: Arc<[usize]> = load.draws.iter().flat_map(|d| d.cond_rows.clone()).collect();
        let conds = forward.graph.apply(GatherRows { rows }, &[&normed], &[])?;
        let items = load.draws.iter().enumerate().map(|(index, draw)| {
            let item = Item { microbatch, index };
            (Value::Cond(item), Value::CondGrad(item), draw.cond_rows.len())
        });
        Ok(forward.write_rows(&conds, &items.collect::<Vec<_>>())?)
    }
}
