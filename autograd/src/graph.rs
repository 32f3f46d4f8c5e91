//! Graphs: operators applied to variables, recorded on a tape when a gradient will be wanted.

use crate::observe::{Observer, Watch};
use crate::params::{ParamId, Parameters};
use crate::tape::{Mode, Node, Recompute, Tape, VarId, Walk, Work};
use bigmac_kernels::{Call, Flops, Forwarded, InputGrads, Need, Operator, OutputSpec, Saved, in_turn};
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};
use smallvec::SmallVec;
use std::sync::Arc;

/// A tensor in a graph. It has an [`VarId`] when a gradient flows through it.
#[derive(Clone, Debug)]
pub struct Var {
    tensor: Tensor,
    id: Option<VarId>,
}

impl Var {
    /// The value.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The value alone.
    pub fn into_tensor(self) -> Tensor {
        self.tensor
    }

    /// Extents.
    pub fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    /// Its number on the tape; `None` when no gradient flows through it.
    pub fn id(&self) -> Option<VarId> {
        self.id
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Compute, and record for a backward.
    Record,
    /// Compute only.
    Infer,
    /// Record shapes and what would be saved, without computing.
    Plan,
}

/// Applies operators, and records them.
#[derive(Debug)]
pub struct Graph<'a> {
    ctx: &'a Context,
    params: &'a Parameters,
    purpose: Purpose,
    /// Layers are checkpoints.
    recompute: bool,
    /// Some parameter that was applied learns.
    learns: bool,
    tape: Tape,
}

impl<'a> Graph<'a> {
    fn new(ctx: &'a Context, params: &'a Parameters, purpose: Purpose) -> Self {
        Graph { ctx, params, purpose, recompute: false, learns: false, tape: Tape::default() }
    }

    /// A graph whose tape will be walked backward.
    pub fn recording(ctx: &'a Context, params: &'a Parameters) -> Self {
        Self::new(ctx, params, Purpose::Record)
    }

    /// A graph that computes and saves nothing.
    pub fn inference(ctx: &'a Context, params: &'a Parameters) -> Self {
        Self::new(ctx, params, Purpose::Infer)
    }

    /// A graph that computes nothing: its tensors have shapes only, and its tape tells what a recording would save.
    pub fn planning(ctx: &'a Context, params: &'a Parameters) -> Self {
        Self::new(ctx, params, Purpose::Plan)
    }

    /// The same graph, whose operators and the backward of whose tape `observer` is told of.
    pub fn observed(mut self, observer: Arc<dyn Observer>) -> Self {
        self.tape.watch = Watch::new(observer);
        self
    }

    /// The same graph, whose [`layers`](Graph::layer) are computed again in the backward if `recompute` says so.
    pub fn recomputing(self, recompute: bool) -> Self {
        Graph { recompute, ..self }
    }

    /// The context.
    pub fn ctx(&self) -> &'a Context {
        self.ctx
    }

    /// The module's parameters.
    pub fn params(&self) -> &'a Parameters {
        self.params
    }

    /// True when tensors have shapes only.
    pub fn is_planning(&self) -> bool {
        self.purpose == Purpose::Plan
    }

    /// True when operators are recorded, with their values or with shapes only.
    pub fn records(&self) -> bool {
        self.purpose != Purpose::Infer
    }

    /// A value without a gradient. A planning graph keeps its shape only.
    pub fn constant(&self, tensor: Tensor) -> Var {
        let tensor = if self.is_planning() && !tensor.is_shape_only() {
            Tensor::shape_only(&tensor.spec())
        } else {
            tensor
        };
        Var { tensor, id: None }
    }

    /// A value whose gradient [`Tape::backward`] returns.
    pub fn leaf(&mut self, tensor: Tensor) -> Var {
        let var = self.constant(tensor);
        if self.records() { Var { id: Some(self.tape.new_var()), ..var } } else { var }
    }

    /// Applies an operator with one output.
    ///
    /// # Errors
    /// Those of [`Graph::apply_all`].
    pub fn apply(
        &mut self,
        op: impl Operator + 'static,
        inputs: &[&Var],
        weights: &[ParamId],
    ) -> Result<Var> {
        let name = op.name();
        let outputs = self.apply_all(op, inputs, weights)?;
        outputs.into_iter().next().ok_or_else(|| Error::argument(name, "the operator has no output"))
    }

    /// Applies an operator to activations and to parameters of the module.
    ///
    /// # Errors
    /// The operator's own; [`Error::NoBackward`] when a gradient is wanted through an operator that has none.
    pub fn apply_all(
        &mut self,
        op: impl Operator + 'static,
        inputs: &[&Var],
        weights: &[ParamId],
    ) -> Result<SmallVec<[Var; 1]>> {
        let records = self.records();
        let need_inputs: SmallVec<[bool; 4]> = inputs.iter().map(|v| v.id.is_some()).collect();
        let need_weights: SmallVec<[bool; 4]> =
            weights.iter().map(|&w| records && self.params.parameter(w).trainable()).collect();
        self.learns |= weights.iter().any(|&w| self.params.parameter(w).trainable());
        let need = Need { inputs: &need_inputs, weights: &need_weights };
        let recorded = records && need.any();
        if recorded && !op.differentiable() {
            return Err(Error::NoBackward { op: op.name() });
        }
        let input_tensors: SmallVec<[&Tensor; 4]> = inputs.iter().map(|v| &v.tensor).collect();
        let weight_tensors: SmallVec<[&Tensor; 4]> = weights.iter().map(|&w| self.params.get(w)).collect();
        let call = Call { inputs: &input_tensors, weights: &weight_tensors, need };
        let (outputs, saved, flops) = self.compute(&op, &call)?;
        if !recorded {
            return Ok(outputs.into_iter().map(|tensor| Var { tensor, id: None }).collect());
        }
        let outputs: SmallVec<[Var; 1]> =
            outputs.into_iter().map(|tensor| Var { tensor, id: Some(self.tape.new_var()) }).collect();
        self.tape.push(Node {
            work: Work::Operator {
                op: Box::new(op),
                saved,
                weights: weights.iter().copied().collect(),
                need_weights,
                flops,
            },
            inputs: inputs.iter().map(|v| v.id).collect(),
            outputs: outputs.iter().filter_map(|v| v.id).collect(),
        });
        Ok(outputs)
    }

    /// Outputs and saved tensors, computed or predicted; and operations, where they are watched.
    fn compute(&self, op: &dyn Operator, call: &Call<'_>) -> Result<(SmallVec<[Tensor; 1]>, Saved, Flops)> {
        let specs = |tensors: &[&Tensor]| tensors.iter().map(|t| t.spec()).collect::<SmallVec<[Spec; 4]>>();
        let (inputs, weights) = (specs(call.inputs), specs(call.weights));
        let inferred = op.infer(&inputs, &weights, call.need)?;
        if self.purpose != Purpose::Plan {
            let Forwarded { outputs, new } = op.forward(self.ctx, call)?;
            let saved = inferred.saved(call.inputs, &outputs, in_turn(op.name(), new))?;
            let flops = self.tape.watch.forward(op, &inputs, &weights, call.need, &inferred);
            return Ok((outputs, saved, flops));
        }
        let outputs: SmallVec<[Tensor; 1]> = inferred
            .outputs
            .iter()
            .map(|o| match o {
                OutputSpec::New(spec) => Ok(Tensor::shape_only(spec)),
                OutputSpec::View { input, spec } => call.inputs[*input].shape_only_view(spec),
            })
            .collect::<Result<_>>()?;
        let saved = inferred.saved(call.inputs, &outputs, |spec| Ok(Tensor::shape_only(spec)))?;
        Ok((outputs, saved, Flops::default()))
    }

    /// Applies a layer, `f`, as it is; in a [recomputing](Graph::recomputing) graph that records, as a
    /// [checkpoint](Graph::checkpoint).
    ///
    /// # Errors
    /// Those of `f`.
    pub fn layer<F>(&mut self, inputs: &[&Var], f: F) -> Result<Vec<Var>>
    where
        F: Fn(&mut Graph<'_>, &[Var]) -> Result<Vec<Var>> + Send + Sync + 'static,
    {
        if self.recompute && self.records() {
            return self.checkpoint(inputs, f);
        }
        let inputs: SmallVec<[Var; 6]> = inputs.iter().map(|&v| v.clone()).collect();
        f(self, &inputs)
    }

    /// Computes `f` without saving what is inside; the backward computes it again from its inputs.
    ///
    /// `f` must be a pure function of its inputs and the module's parameters. Its weight gradients are never put off:
    /// to hold what they read would undo the recomputation.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn checkpoint<F>(&mut self, inputs: &[&Var], f: F) -> Result<Vec<Var>>
    where
        F: Fn(&mut Graph<'_>, &[Var]) -> Result<Vec<Var>> + Send + Sync + 'static,
    {
        let detached: Vec<Var> = inputs.iter().map(|v| Var { tensor: v.tensor.clone(), id: None }).collect();
        let purpose = if self.purpose == Purpose::Record { Purpose::Infer } else { self.purpose };
        let mut inner = Graph::new(self.ctx, self.params, purpose);
        inner.tape.watch = self.tape.watch.clone();
        let outputs = f(&mut inner, &detached)?;
        self.learns |= inner.learns;
        // A module may learn in part: what is frozen of it, above nothing that learns, has no backward.
        let learns = inputs.iter().any(|v| v.id.is_some()) || inner.learns;
        if self.purpose == Purpose::Infer || !learns {
            return Ok(outputs);
        }
        let outputs: Vec<Var> =
            outputs.into_iter().map(|v| Var { tensor: v.tensor, id: Some(self.tape.new_var()) }).collect();
        self.tape.push(Node {
            work: Work::Checkpoint {
                compute: Box::new(f),
                saved: detached.into_iter().map(Var::into_tensor).collect(),
            },
            inputs: inputs.iter().map(|v| v.id).collect(),
            outputs: outputs.iter().filter_map(|v| v.id).collect(),
        });
        Ok(outputs)
    }

    /// Ends the graph; the tape is empty for an inference graph.
    pub fn finish(self) -> Tape {
        self.tape
    }
}

/// Runs the function once more, this time recorded, and walks it backward.
impl<F> Recompute for F
where
    F: Fn(&mut Graph<'_>, &[Var]) -> Result<Vec<Var>> + Send + Sync,
{
    fn backward(
        &self,
        walk: &mut Walk<'_>,
        inputs: Saved,
        wanted: &[bool],
        grads: &[Option<Tensor>],
    ) -> Result<InputGrads> {
        let mut graph = Graph::recording(walk.ctx, walk.params);
        graph.tape.watch = walk.watch.again();
        let leaves: Vec<Var> = inputs
            .into_iter()
            .zip(wanted)
            .map(|(tensor, &wanted)| if wanted { graph.leaf(tensor) } else { graph.constant(tensor) })
            .collect();
        let outputs = self(&mut graph, &leaves)?;
        if outputs.len() != grads.len() {
            let message = "the function gave another number of outputs when it was run again";
            return Err(Error::argument("checkpoint", message));
        }
        let seeds: Vec<_> =
            outputs.iter().zip(grads).filter_map(|(v, g)| Some((v.id()?, g.clone()?))).collect();
        // What the tape does not hold is free before the walk.
        drop(outputs);
        let ids: SmallVec<[Option<VarId>; 4]> = leaves.iter().map(Var::id).collect();
        drop(leaves);
        let tape = graph.finish();
        let mut propagated = tape.backward(walk.ctx, walk.params, seeds, walk.gradients, Mode::Full)?;
        Ok(ids.into_iter().map(|id| id.and_then(|id| propagated.take(id))).collect())
    }
}
