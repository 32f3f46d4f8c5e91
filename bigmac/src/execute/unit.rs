//! One unit of work: a forward recorded on a tape, and its backward, whatever the module.

use bigmac_autograd::{Deferred, Gradients, Mode, Parameters, Tape, Var, VarId};
use bigmac_kernels::fill::fill;
use bigmac_runtime::{Context, Result, Spec, Tensor};
use bigmac_schedule::Value;

/// What a forward computed.
#[derive(Debug, Default)]
pub(super) struct Forwarded {
    /// Values for other ops, each in a storage of its own.
    pub outputs: Vec<(Value, Tensor)>,
    /// Parts of the step's loss, as they are: not to be divided any more.
    pub losses: Vec<(LossPart, Tensor)>,
    /// What the backward needs; `None` where there is no backward.
    pub recorded: Option<Recorded>,
}

/// Which part of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossPart {
    /// Cross-entropy of tokens.
    Token,
    /// Squared error of the drawing's velocity.
    Drawing,
}

impl LossPart {
    /// The name in errors and metrics.
    pub fn name(self) -> &'static str {
        match self {
            LossPart::Token => "token",
            LossPart::Drawing => "drawing",
        }
    }
}

/// A tape, and how gradients enter and leave it.
#[derive(Debug)]
pub(super) struct Recorded {
    pub tape: Tape,
    pub ends: Vec<End>,
    pub starts: Vec<Start>,
}

/// A variable at which gradients enter.
#[derive(Debug)]
pub(super) struct End {
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
pub(super) struct Start {
    id: VarId,
    spec: Spec,
    value: Value,
}

impl End {
    /// A part of the loss; nothing when no gradient flows through it.
    pub fn loss(var: &Var) -> Option<End> {
        Some(End { id: var.id()?, spec: var.tensor().spec(), seed: Seed::One })
    }

    /// An output whose gradient is `value`.
    pub fn value(var: &Var, value: Value) -> Option<End> {
        Some(End { id: var.id()?, spec: var.tensor().spec(), seed: Seed::Value(value) })
    }

    /// An output whose consecutive rows have the gradients `values`.
    pub fn rows(var: &Var, values: Vec<(Value, usize)>) -> Option<End> {
        Some(End { id: var.id()?, spec: var.tensor().spec(), seed: Seed::Rows(values) })
    }
}

impl Start {
    /// A leaf whose gradient is `value`; nothing when no gradient is wanted of it.
    pub fn new(leaf: &Var, value: Value) -> Option<Start> {
        Some(Start { id: leaf.id()?, spec: leaf.tensor().spec(), value })
    }
}

/// What a backward computed.
#[derive(Debug)]
pub(super) struct Propagated {
    /// Gradients for other ops.
    pub outputs: Vec<(Value, Tensor)>,
    /// Weight gradients put off.
    pub deferred: Deferred,
}

impl Recorded {
    /// Walks the tape backward. `take` hands over a gradient that another op made.
    ///
    /// A leaf that nothing depends on gets a gradient of zeros, since its owner waits for one.
    pub fn backward<E: From<bigmac_runtime::Error>>(
        self,
        ctx: &Context,
        params: &Parameters,
        gradients: &mut Gradients,
        mode: Mode,
        mut take: impl FnMut(Value) -> Result<Tensor, E>,
    ) -> Result<Propagated, E> {
        let mut seeds = Vec::with_capacity(self.ends.len());
        for end in self.ends {
            let grad = match end.seed {
                Seed::One => ones(ctx, &end.spec)?,
                Seed::Value(value) => take(value)?,
                Seed::Rows(parts) => {
                    let mut grad = Tensor::zeros(ctx, &end.spec.shape, end.spec.dtype)?;
                    let row = end.spec.len() / end.spec.shape.first().copied().unwrap_or(1).max(1);
                    let mut at = 0;
                    for (value, rows) in parts {
                        grad.write(ctx, at, &take(value)?)?;
                        at += rows * row;
                    }
                    grad
                }
            };
            seeds.push((end.id, grad));
        }
        let mut propagated = self.tape.backward(ctx, params, seeds, gradients, mode)?;
        let mut outputs = Vec::with_capacity(self.starts.len());
        for start in self.starts {
            let grad = match propagated.take(start.id) {
                Some(grad) => grad,
                None => Tensor::zeros(ctx, &start.spec.shape, start.spec.dtype)?,
            };
            outputs.push((start.value, grad));
        }
        Ok(Propagated { outputs, deferred: propagated.deferred })
    }
}

fn ones(ctx: &Context, spec: &Spec) -> Result<Tensor> {
    let mut ones = Tensor::empty(ctx, &spec.shape, spec.dtype)?;
    fill(ctx, &mut ones, 1.0)?;
    Ok(ones)
}
