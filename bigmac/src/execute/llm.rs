//! The LLM's chunks on microbatches.

use super::error::ExecuteError;
use super::inputs::Inputs;
use super::task::{Flow, StepTask};
use super::unit::{End, Forwarded, LossPart, Recorded, Start};
use crate::model::Replica;
use bigmac_autograd::{Graph, Var};
use bigmac_kernels::gather_rows::GatherRows;
use bigmac_models::qwen3::Qwen3;
use bigmac_runtime::{Context, Tensor};
use bigmac_schedule::{Chunk, Item, Microbatch, Value};
use std::sync::Arc;

impl StepTask<'_> {
    /// An LLM chunk on a microbatch: tokens and embeddings, or hidden states, to hidden states, or to loss and conditions.
    pub(super) fn read(
        &self,
        ctx: &Context,
        stage: &Replica<Qwen3>,
        chunk: Chunk,
        microbatch: Microbatch,
        flow: Flow,
        inputs: &mut impl Inputs,
    ) -> Result<Forwarded, ExecuteError> {
        let load = self.load(microbatch)?;
        let mut graph = inputs.graph(ctx, &stage.params, flow.learns);
        let mut starts = Vec::new();
        let hidden = if chunk.0 == 0 {
            let mut images = Vec::with_capacity(load.images.len());
            for (index, image) in load.images.iter().enumerate() {
                let item = Item { microbatch, index };
                let embeds = inputs.value(Value::Embeds(item), &self.value_spec(Value::Embeds(item))?)?;
                let embeds = if flow.below { graph.leaf(embeds) } else { graph.constant(embeds) };
                starts.extend(Start::new(&embeds, Value::EmbedGrad(item)));
                images.push((image.rows.clone(), embeds));
            }
            let tokens: Vec<i32> = load.tokens.iter().map(|&t| t as i32).collect();
            let tokens = graph.constant(Tensor::from_slice(ctx, &tokens, &[tokens.len()])?);
            stage.net.embed(&mut graph, &tokens, &images)?
        } else {
            let value = Value::Hidden { microbatch, chunk };
            let hidden = inputs.value(value, &self.value_spec(value)?)?;
            let hidden = if flow.learns { graph.leaf(hidden) } else { graph.constant(hidden) };
            starts.extend(Start::new(&hidden, Value::HiddenGrad { microbatch, chunk: Chunk(chunk.0 - 1) }));
            hidden
        };
        let (cos, sin) = inputs.text_rope(&stage.net, &load.bounds)?;
        let (cos, sin) = (graph.constant(cos), graph.constant(sin));
        let bounds: Arc<[usize]> = load.bounds.as_slice().into();
        let hidden = stage.net.layers(&mut graph, &hidden, (&cos, &sin), &bounds)?;
        let mut forwarded = Forwarded::default();
        let mut ends = Vec::new();
        if flow.last {
            self.finish(ctx, stage, microbatch, &mut graph, hidden, &mut forwarded, &mut ends)?;
        } else {
            ends.extend(End::value(&hidden, Value::HiddenGrad { microbatch, chunk }));
            let next = Value::Hidden { microbatch, chunk: Chunk(chunk.0 + 1) };
            forwarded.outputs.push((next, hidden.into_tensor()));
        }
        if flow.learns {
            forwarded.recorded = Some(Recorded { tape: graph.finish(), starts, ends });
        }
        Ok(forwarded)
    }

    /// The end of the last chunk: the token loss, and the conditions of what is to be drawn.
    fn finish(
        &self,
        ctx: &Context,
        stage: &Replica<Qwen3>,
        microbatch: Microbatch,
        graph: &mut Graph<'_>,
        hidden: Var,
        forwarded: &mut Forwarded,
        ends: &mut Vec<End>,
    ) -> Result<(), ExecuteError> {
        let load = self.load(microbatch)?;
        let normed = stage.net.final_norm(graph, &hidden)?;
        if load.targets.iter().any(|&t| t >= 0) {
            let targets = graph.constant(Tensor::from_slice(ctx, &load.targets, &[load.targets.len()])?);
            let scale = 1.0 / self.plan.target_tokens.max(1) as f64;
            let loss = stage.net.loss(graph, &normed, &targets, scale)?;
            ends.extend(End::loss(&loss));
            forwarded.losses.push((LossPart::Token, loss.into_tensor()));
        }
        if load.draws.is_empty() {
            return Ok(());
        }
        let rows: Arc<[usize]> = load.draws.iter().flat_map(|d| d.cond_rows.clone()).collect();
        let conds = graph.apply(GatherRows { rows }, &[&normed], &[])?;
        let items =
            load.draws.iter().enumerate().map(|(index, d)| (Item { microbatch, index }, d.cond_rows.len()));
        ends.extend(End::rows(&conds, items.clone().map(|(item, n)| (Value::CondGrad(item), n)).collect()));
        let mut at = 0;
        for (item, rows) in items {
            let cond = conds.tensor().narrow(0, at, rows)?;
            // A copy, so that what an item holds is its own rows and nothing else.
            forwarded.outputs.push((Value::Cond(item), cond.copy(ctx)?));
            at += rows;
        }
        Ok(())
    }
}
