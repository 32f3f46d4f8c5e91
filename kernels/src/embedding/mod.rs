//! Table look-up.

mod cpu;

use crate::operator::*;
use crate::rows::gather;
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};

/// Row `ids[t]` of a table for each token.
///
/// Input ids I32 `[..]`, weight table `[V, D]` of float dtype; output `[.., D]`. An id outside `0..V` is an error. Saves
/// the ids. The gradient of the table is added up in the order of the tokens.
///
/// Reference: `torch.nn.Embedding`.
#[derive(Clone, Copy, Debug)]
pub struct Embedding;

impl Operator for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        expect_count(self.name(), "inputs", inputs, 1)?;
        expect_count(self.name(), "weights", weights, 1)?;
        let (ids, table) = (&inputs[0], &weights[0]);
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

    fn forward(
        &self,
        ctx: &Context,
        inputs: &[&Tensor],
        weights: &[&Tensor],
        need: Need<'_>,
    ) -> Result<Forwarded> {
        let (ids, table) = (inputs[0].contiguous(ctx)?, weights[0].contiguous(ctx)?);
        let (rows, width) = (table.shape()[0], table.shape()[1]);
        let ids = ids.as_slice::<i32>()?;
        if let Some(at) = ids.iter().position(|&id| usize::try_from(id).map_or(true, |id| id >= rows)) {
            let message = format!("id {} of token {at} is outside the table of {rows} rows", ids[at]);
            return Err(Error::argument(self.name(), message));
        }
        let mut shape = inputs[0].shape().to_vec();
        shape.push(width);
        let mut y = Tensor::empty(ctx, &shape, table.dtype())?;
        let row_bytes = width * table.dtype().size();
        gather(ctx, table.as_bytes()?, row_bytes, |t| ids[t] as usize, y.as_mut_bytes()?);
        Ok(Forwarded::one(y, need.weight(0).then(|| inputs[0].clone())))
    }

    fn backward_input(&self, _ctx: &Context, _backward: &Backward<'_>) -> Result<InputGrads> {
        // Ids are integers.
        Ok([None].into_iter().collect())
    }

    fn backward_weight(
        &self,
        ctx: &Context,
        backward: &Backward<'_>,
        _weight: usize,
        mut grad: WeightGrad<'_>,
    ) -> Result<()> {
        let ids = backward.saved(self.name(), 0)?.contiguous(ctx)?;
        let dy = backward.grad(self.name())?.contiguous(ctx)?;
        let table = backward.weights[0].shape();
        let (ids, accumulate) = (ids.as_slice::<i32>()?, grad.accumulate);
        crate::for_float!(self.name(), dy.dtype(), T => {
            let to = grad.slice()?;
            if !accumulate {
                to.fill(crate::Real::ZERO);
            }
            cpu::scatter::<T>(ctx, ids, dy.as_slice()?, (table[0], table[1]), to);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Check;

    #[test]
    fn repeated_and_missing_ids_pass() {
        let ids = vec![3, 0, 3, 6, 3, 0, 1];
        for width in [1, 5, 96] {
            Check::new(&Embedding).input_i32(ids.clone(), &[7]).weight(&[7, width]).run().unwrap();
        }
        Check::new(&Embedding).input_i32(vec![1; 6], &[2, 3]).weight(&[2, 4]).run().unwrap();
        Check::new(&Embedding).input_i32(vec![], &[0]).weight(&[2, 4]).run().unwrap();
    }

    #[test]
    fn ids_outside_the_table_are_refused() {
        let ctx = Context::cpu(0, 1).unwrap();
        let table = Tensor::zeros(&ctx, &[4, 2], DType::F32).unwrap();
        for id in [-1, 4] {
            let ids = Tensor::from_slice(&ctx, &[0, id], &[2]).unwrap();
            let error = Embedding.forward(&ctx, &[&ids], &[&table], Need::NONE).unwrap_err().to_string();
            assert!(error.contains(&format!("id {id} of token 1")), "{error}");
        }
    }
}
