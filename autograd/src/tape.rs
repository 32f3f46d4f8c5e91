//! Tapes: what was applied, and the walk backward that consumes it.

use crate::observe::{Watch, WatchedBackward};
use crate::params::{Gradients, ParamId, Parameters};
use bigmac_kernels::{Backward, Flops, InputGrads, Need, Operator, Saved, WeightGrad, WeightGrads, add};
use bigmac_runtime::memory::MemoryScope;
use bigmac_runtime::{Context, Error, Result, Tensor};
use smallvec::SmallVec;
use std::collections::HashSet;

/// What a backward computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Gradients of inputs and weights.
    Full,
    /// Gradients of inputs; matrix products of weight gradients are left for [`Deferred::run`] (Zero Bubble's B and W,
    /// arXiv 2401.10241). Weights of other operators, and of what is computed again, finish here.
    Split,
}

/// Number of a variable on its tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VarId(pub(crate) u32);

/// What a backward is computed in, and where weight gradients go.
pub(crate) struct Walk<'a> {
    pub ctx: &'a Context,
    pub params: &'a Parameters,
    pub gradients: &'a mut Gradients,
    pub watch: &'a Watch,
}

/// A function that is computed again in the backward, from its inputs.
pub(crate) trait Recompute: Send + Sync {
    /// The gradients of `inputs` for which `wanted` says so, given those of the outputs.
    fn backward(
        &self,
        walk: &mut Walk<'_>,
        inputs: Saved,
        wanted: &[bool],
        grads: &[Option<Tensor>],
    ) -> Result<InputGrads>;
}

/// What a node does.
pub(crate) enum Work {
    Operator {
        op: Box<dyn Operator>,
        saved: Saved,
        weights: SmallVec<[ParamId; 2]>,
        need_weights: SmallVec<[bool; 4]>,
        flops: Flops,
    },
    Checkpoint {
        compute: Box<dyn Recompute>,
        saved: Saved,
    },
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Work::Operator { op, .. } => write!(f, "{op:?}"),
            Work::Checkpoint { .. } => f.write_str("Checkpoint"),
        }
    }
}

/// One application of an operator.
#[derive(Debug)]
pub(crate) struct Node {
    pub work: Work,
    pub inputs: SmallVec<[Option<VarId>; 4]>,
    pub outputs: SmallVec<[VarId; 1]>,
}

/// The record of one unit of work, from which its gradients are computed once.
#[derive(Debug, Default)]
pub struct Tape {
    nodes: Vec<Node>,
    vars: u32,
    pub(crate) watch: Watch,
}

/// Gradients by variable, as they are summed up.
struct GradTable(Vec<Option<Tensor>>);

impl GradTable {
    fn add(&mut self, ctx: &Context, id: VarId, grad: Tensor, watch: &Watch) -> Result<()> {
        let slot = &mut self.0[id.0 as usize];
        *slot = Some(match slot.take() {
            None => grad,
            Some(sum) => {
                let sum = add::accumulate(ctx, sum, &grad)?;
                watch.sum(&sum);
                sum
            }
        });
        Ok(())
    }
}

/// What a walk backward leaves.
#[derive(Debug)]
pub struct Propagated {
    grads: Vec<Option<Tensor>>,
    /// The weight gradients that were put off; empty after [`Mode::Full`].
    pub deferred: Deferred,
}

impl Propagated {
    /// The gradient of a leaf; `None` when nothing that was differentiated depends on it.
    pub fn take(&mut self, leaf: VarId) -> Option<Tensor> {
        self.grads.get_mut(leaf.0 as usize)?.take()
    }
}

/// A weight gradient put off.
#[derive(Debug)]
struct DeferredNode {
    op: Box<dyn Operator>,
    saved: Saved,
    weights: SmallVec<[ParamId; 2]>,
    need_weights: SmallVec<[bool; 4]>,
    grads: SmallVec<[Option<Tensor>; 1]>,
    flops: Flops,
    watch: Watch,
}

/// Weight gradients put off by a split backward; it holds their inputs and output gradients.
#[derive(Debug, Default)]
pub struct Deferred {
    nodes: Vec<DeferredNode>,
}

impl Deferred {
    /// True when nothing is left to do.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Everything that is held.
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.nodes.iter().flat_map(|n| n.saved.iter().chain(n.grads.iter().flatten()))
    }

    /// Bytes of the storages held, each counted once.
    pub fn held_bytes(&self) -> usize {
        unique_bytes(self.tensors())
    }

    /// Counts everything that is held under `scope`.
    ///
    /// # Errors
    /// [`Error::Budget`] when that is more than the scope may hold.
    pub fn move_to_scope(&self, scope: &MemoryScope) -> Result<()> {
        self.tensors().try_for_each(|tensor| tensor.move_to_scope(scope))
    }

    /// Computes the weight gradients, in the order in which a full backward would have.
    ///
    /// # Errors
    /// Those of the operators.
    pub fn run(self, ctx: &Context, params: &Parameters, gradients: &mut Gradients) -> Result<()> {
        for node in self.nodes {
            let tensors = weight_tensors(params, &node.weights);
            let need = Need { inputs: &[], weights: &node.need_weights };
            let backward = Backward { saved: &node.saved, weights: &tensors, grads: &node.grads, need };
            let watched = node.watch.backward(&*node.op, node.flops, &backward);
            let mut sinks = Sinks { gradients, weights: &node.weights, watched };
            let none = node.op.backward_all(ctx, &backward, &mut sinks)?;
            sinks.finish(&none);
        }
        Ok(())
    }
}

fn weight_tensors<'a>(params: &'a Parameters, weights: &[ParamId]) -> SmallVec<[&'a Tensor; 4]> {
    weights.iter().map(|&w| params.get(w)).collect()
}

/// Where the gradients of one operator's weights go.
struct Sinks<'a> {
    gradients: &'a mut Gradients,
    weights: &'a [ParamId],
    watched: Option<WatchedBackward<'a>>,
}

impl WeightGrads for Sinks<'_> {
    fn of(&mut self, weight: usize) -> WeightGrad<'_> {
        let grad = self.gradients.sink(self.weights[weight], weight);
        if let Some(watched) = &mut self.watched {
            watched.weight(&grad);
        }
        grad
    }

    fn written(&mut self) {
        if let Some(watched) = &mut self.watched {
            watched.written();
        }
    }
}

impl Sinks<'_> {
    /// The backward is done.
    fn finish(self, inputs: &InputGrads) {
        if let Some(watched) = self.watched {
            watched.finish(inputs);
        }
    }
}

fn unique_bytes<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> usize {
    let mut seen = HashSet::new();
    tensors.filter(|t| seen.insert(t.storage_id())).map(Tensor::storage_bytes).sum()
}

impl Tape {
    pub(crate) fn new_var(&mut self) -> VarId {
        self.vars += 1;
        VarId(self.vars - 1)
    }

    pub(crate) fn push(&mut self, node: Node) {
        self.nodes.push(node);
    }

    /// Number of recorded applications.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True when nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Bytes of the storages that the tape holds, each counted once: measured for a recording graph, predicted by a
    /// planning one.
    pub fn saved_bytes(&self) -> usize {
        self.bytes_with(&[])
    }

    /// As [`Tape::saved_bytes`], with further tensors that are held beside the tape.
    pub fn bytes_with(&self, others: &[&Tensor]) -> usize {
        let saved = self.nodes.iter().flat_map(|n| match &n.work {
            Work::Operator { saved, .. } | Work::Checkpoint { saved, .. } => saved.iter(),
        });
        unique_bytes(saved.chain(others.iter().copied()))
    }

    /// Walks backward from `seeds`, the gradients of some variables (each of its variable's shape and dtype), and frees
    /// what each node saved as soon as it has been used. Weight gradients go to `gradients`.
    ///
    /// # Errors
    /// Those of the operators; [`Error::Argument`] for a seed that is not on this tape.
    pub fn backward(
        mut self,
        ctx: &Context,
        params: &Parameters,
        seeds: impl IntoIterator<Item = (VarId, Tensor)>,
        gradients: &mut Gradients,
        mode: Mode,
    ) -> Result<Propagated> {
        let mut table = GradTable(vec![None; self.vars as usize]);
        for (id, grad) in seeds {
            if id.0 >= self.vars {
                return Err(Error::argument("backward", "the seed is for a variable of another tape"));
            }
            table.add(ctx, id, grad, &self.watch)?;
        }
        let mut deferred = Deferred::default();
        while let Some(node) = self.nodes.pop() {
            let grads: SmallVec<[Option<Tensor>; 1]> =
                node.outputs.iter().map(|id| table.0[id.0 as usize].take()).collect();
            if grads.iter().all(Option::is_none) {
                continue;
            }
            let input_grads = match node.work {
                Work::Operator { op, saved, weights, need_weights, flops } => {
                    let watch = self.watch.clone();
                    let operator = DeferredNode { op, saved, weights, need_weights, grads, flops, watch };
                    operator.backward(ctx, params, &node.inputs, gradients, mode, &mut deferred)?
                }
                Work::Checkpoint { compute, saved } => {
                    let wanted: SmallVec<[bool; 4]> = node.inputs.iter().map(Option::is_some).collect();
                    let mut walk = Walk { ctx, params, gradients: &mut *gradients, watch: &self.watch };
                    compute.backward(&mut walk, saved, &wanted, &grads)?
                }
            };
            for (id, grad) in node.inputs.iter().zip(input_grads) {
                if let (Some(id), Some(grad)) = (id, grad) {
                    table.add(ctx, *id, grad, &self.watch)?;
                }
            }
        }
        Ok(Propagated { grads: table.0, deferred })
    }
}

impl DeferredNode {
    /// The backward of one operator: weights now or later, then inputs.
    fn backward(
        self,
        ctx: &Context,
        params: &Parameters,
        inputs: &[Option<VarId>],
        gradients: &mut Gradients,
        mode: Mode,
        deferred: &mut Deferred,
    ) -> Result<InputGrads> {
        let need_inputs: SmallVec<[bool; 4]> = inputs.iter().map(Option::is_some).collect();
        let learns = self.need_weights.iter().any(|&n| n);
        let defers = learns && mode == Mode::Split && self.op.defers_weight();
        let tensors = weight_tensors(params, &self.weights);
        let need = Need { inputs: &need_inputs, weights: &self.need_weights };
        let backward = Backward { saved: &self.saved, weights: &tensors, grads: &self.grads, need };
        let watched = self.watch.backward(&*self.op, self.flops, &backward);
        if !defers {
            let mut sinks = Sinks { gradients, weights: &self.weights, watched };
            let grads = self.op.backward_all(ctx, &backward, &mut sinks)?;
            sinks.finish(&grads);
            return Ok(grads);
        }
        let grads = if need_inputs.contains(&true) {
            let grads = self.op.backward_input(ctx, &backward)?;
            if let Some(watched) = watched {
                watched.finish(&grads);
            }
            grads
        } else {
            InputGrads::new()
        };
        deferred.nodes.push(self);
        Ok(grads)
    }
}
