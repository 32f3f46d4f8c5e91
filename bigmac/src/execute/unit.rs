//! One unit of work: a forward as it is put together, and its backward, whatever the module.

use super::error::ExecuteError;
use super::losses::LossPart;
use bigmac_autograd::{Deferred, Gradients, Graph, Mode, Parameters, Tape, Var, VarId};
use bigmac_kernels::fill::fill;
use bigmac_runtime::{Context, Result, Spec, Tensor};
use bigmac_schedule::Value;
use std::collections::HashMap;

/// The values that a unit reads.
pub(super) type Inputs = HashMap<Value, Tensor>;

/// A unit's forward as it is put together.
pub(super) struct UnitForward<'a> {
    /// Applies operators, and records them where the unit has a backward.
    pub graph: Graph<'a>,
    inputs: Inputs,
    ends: Vec<End>,
    starts: Vec<Start>,
    outputs: Vec<(Value, Tensor)>,
    losses: Vec<(LossPart, Tensor)>,
}

/// What a forward computed.
#[derive(Debug)]
pub(super) struct UnitOutput {
    /// Values for other ops, each in a storage of its own.
    pub values: Vec<(Value, Tensor)>,
    /// Parts of the step's loss, as they are: not to be divided any more.
    pub losses: Vec<(LossPart, Tensor)>,
    /// What the backward needs; `None` where there is no backward.
    pub recorded: Option<Recorded>,
}

impl<'a> UnitForward<'a> {
    /// A forward in `graph` that reads `inputs`.
    pub fn new(graph: Graph<'a>, inputs: Inputs) -> Self {
        UnitForward { graph, inputs, ends: vec![], starts: vec![], outputs: vec![], losses: vec![] }
    }

    /// A value that another op made. Where the unit is recorded, its gradient is `grad`; `None` where no op waits for
    /// one.
    pub fn read(&mut self, value: Value, grad: Option<Value>) -> Result<Var, ExecuteError> {
        let tensor = take(&mut self.inputs, value, self.graph.ctx())?;
        let Some(grad) = grad else { return Ok(self.graph.constant(tensor)) };
        let leaf = self.graph.leaf(tensor);
        if let Some(id) = leaf.id() {
            self.starts.push(Start { id, spec: leaf.tensor().spec(), value: grad });
        }
        Ok(leaf)
    }

    /// Makes an output for another op, whose gradient is `grad`.
    pub fn write(&mut self, output: Var, value: Value, grad: Value) {
        self.end(&output, Seed::Value(grad));
        self.outputs.push((value, output.into_tensor()));
    }

    /// Makes an output of each of consecutive parts of `output`: their values, gradients and numbers of rows.
    pub fn write_rows(&mut self, output: &Var, parts: &[(Value, Value, usize)]) -> Result<()> {
        self.end(output, Seed::Rows(parts.iter().map(|(_, grad, rows)| (*grad, *rows)).collect()));
        let mut at = 0;
        for (value, _, rows) in parts {
            let part = output.tensor().narrow(0, at, *rows)?;
            // A copy, so that what an item holds is its own rows and nothing else.
            self.outputs.push((*value, part.copy(self.graph.ctx())?));
            at += rows;
        }
        Ok(())
    }

    /// Counts a part of the step's loss.
    pub fn lose(&mut self, part: LossPart, loss: Var) {
        self.end(&loss, Seed::One);
        self.losses.push((part, loss.into_tensor()));
    }

    fn end(&mut self, var: &Var, seed: Seed) {
        if let Some(id) = var.id() {
            self.ends.push(End { id, spec: var.tensor().spec(), seed });
        }
    }

    /// Ends the forward.
    pub fn finish(self) -> UnitOutput {
        let UnitForward { graph, ends, starts, outputs, losses, .. } = self;
        let recorded = graph.records().then(|| Recorded { tape: graph.finish(), ends, starts });
        UnitOutput { values: outputs, losses, recorded }
    }
}

/// A tape, and how gradients enter and leave it.
#[derive(Debug)]
pub(super) struct Recorded {
    pub tape: Tape,
    ends: Vec<End>,
    starts: Vec<Start>,
}

/// A variable at which gradients enter.
#[derive(Debug)]
struct End {
    id: VarId,
    spec: Spec,
    seed: Seed,
}

/// Where the gradient that enters comes from.
#[derive(Debug)]
enum Seed {
    /// A part of the loss: 1.
    One,
    /// A gradient that another op made.
    Value(Value),
    /// Gradients of consecutive rows, each made by another op, with their numbers of rows.
    Rows(Vec<(Value, usize)>),
}

/// A leaf whose gradient another op waits for.
#[derive(Debug)]
struct Start {
    id: VarId,
    spec: Spec,
    value: Value,
}

/// What a backward computed.
#[derive(Debug)]
pub(super) struct UnitGradients {
    /// Gradients for other ops.
    pub values: Vec<(Value, Tensor)>,
    /// Weight gradients put off.
    pub deferred: Deferred,
}

impl Recorded {
    /// Walks the tape backward, from the gradients that other ops made.
    ///
    /// A leaf that nothing depends on gets a gradient of zeros, since its owner waits for one.
    pub fn backward(
        self,
        ctx: &Context,
        params: &Parameters,
        gradients: &mut Gradients,
        mode: Mode,
        mut inputs: Inputs,
    ) -> Result<UnitGradients, ExecuteError> {
        let ends = self.ends.into_iter().map(|end| Ok((end.id, end.gradient(ctx, &mut inputs)?)));
        let seeds = ends.collect::<Result<Vec<_>, ExecuteError>>()?;
        let mut propagated = self.tape.backward(ctx, params, seeds, gradients, mode)?;
        let mut values = Vec::with_capacity(self.starts.len());
        for start in self.starts {
            let grad = match propagated.take(start.id) {
                Some(grad) => grad,
                None => Tensor::zeros(ctx, &start.spec.shape, start.spec.dtype)?,
            };
            values.push((start.value, grad));
        }
        Ok(UnitGradients { values, deferred: propagated.deferred })
    }
}

impl End {
    fn gradient(&self, ctx: &Context, inputs: &mut Inputs) -> Result<Tensor, ExecuteError> {
        let Spec { shape, dtype } = &self.spec;
        match &self.seed {
            Seed::One => {
                let mut ones = Tensor::empty(ctx, shape, *dtype)?;
                fill(ctx, &mut ones, 1.0)?;
                Ok(ones)
            }
            Seed::Value(value) => take(inputs, *value, ctx),
            Seed::Rows(parts) => {
                let mut grad = Tensor::zeros(ctx, shape, *dtype)?;
                let row = self.spec.len() / shape.first().copied().unwrap_or(1).max(1);
                let mut at = 0;
                for (value, rows) in parts {
                    grad.write(ctx, at, &take(inputs, *value, ctx)?)?;
                    at += rows * row;
                }
                Ok(grad)
            }
        }
    }
}

fn take(inputs: &mut Inputs, value: Value, ctx: &Context) -> Result<Tensor, ExecuteError> {
    inputs.remove(&value).ok_or_else(|| ExecuteError::missing(ctx, format!("{value:?}")))
}
