//! Table look-up.

mod cpu;
pub(crate) mod cuda;

use crate::gather_rows;
use crate::operator::*;
use crate::rows::gather;
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};

/// Row `ids[t]` of a table for each token.
///
/// Input ids I32 `[..]`, weight table `[V, D]` of float dtype; output `[.., D]`. An id outside `0..V` is an error on
/// the CPU; on a GPU, which the host does not wait for, it gives a row of NaN, and the gradient leaves it out. Saves
/// the ids. The gradient of the table is added up in an order that the ids alone decide: on the CPU that of the tokens.
///
/// Reference: `torch.nn.Embedding`.
#[derive(Clone, Copy, Debug)]
pub struct Embedding;

impl Operator for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let ([ids], [table]) = expect_counts(self.name(), inputs, weights)?;
        let dtype = expect_float(self.name(), [table])?;
        if ids.dtype != DType::I32 {
            return Err(Error::DType { op: self.name(), given: ids.dtype, wanted: "i32 ids".into() });
        }
        let [_, width] = table.shape[..] else {
            return Err(Error::shape(self.name(), &table.shape, "a table [V, D]"));
        };
        let mut shape = ids.shape.clone();
        shape.push(width);
        Ok(Inferred::one(Spec { shape, dtype }, need.weight(0).then_some(SavedSpec::Input(0))))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        let (ids, table) = (call.inputs[0].contiguous(ctx)?, call.weights[0].contiguous(ctx)?);
        let (rows, width) = (table.shape()[0], table.shape()[1]);
        let mut shape = call.inputs[0].shape().to_vec();
        shape.push(width);
        let mut y = Tensor::empty(ctx, &shape, table.dtype())?;
        if ctx.is_gpu() {
            gather_rows::cuda::gather(ctx, &table, &ids, &mut y)?;
            return Ok(Forwarded::one(y));
        }
        let ids = ids.as_slice::<i32>()?;
        if let Some(at) = ids.iter().position(|&id| usize::try_from(id).map_or(true, |id| id >= rows)) {
            let message = format!("id {} of token {at} is outside the table of {rows} rows", ids[at]);
            return Err(Error::argument(self.name(), message));
        }
        let row_bytes = width * table.dtype().size();
        gather(ctx, table.as_bytes()?, row_bytes, |t| ids[t] as usize, y.as_mut_bytes()?);
        Ok(Forwarded::one(y))
    }

    fn backward_input(&self, _ctx: &Context, _backward: &Backward<'_>) -> Result<InputGrads> {
        // Ids are integers.
        Ok(smallvec![None])
    }

    fn backward_weight(&self, ctx: &Context, backward: &Backward<'_>, mut dw: WeightGrad<'_>) -> Result<()> {
        let ids = backward.saved(self.name(), 0)?.contiguous(ctx)?;
        let dy = backward.grad(self.name())?.contiguous(ctx)?;
        let table = backward.weights[0].shape();
        if ctx.is_gpu() {
            return cuda::scatter(ctx, &ids, &dy, [table[0], table[1]], &mut dw);
        }
        let (ids, accumulate) = (ids.as_slice::<i32>()?, dw.accumulate);
        crate::for_float!(self.name(), dy.dtype(), T => {
            let to = dw.slice()?;
            if !accumulate {
                to.fill(crate::Real::ZERO);
            }
            cpu::scatter::<T>(ctx, ids, dy.as_slice()?, (table[0], table[1]), to);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
