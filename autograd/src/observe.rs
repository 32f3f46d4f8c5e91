//! Watching what a graph applies and a tape differentiates, for measuring: what was run, how many operations that is
//! and how many bytes.

use bigmac_kernels::{
    Backward, Flops, Inferred, InputGrads, Need, Operator, OutputSpec, SavedSpec, WeightGrad,
};
use bigmac_runtime::{Spec, Tensor};
use std::fmt::Debug;
use std::sync::Arc;

/// A pass of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    /// Outputs.
    Forward,
    /// Gradients of inputs.
    BackwardInput,
    /// Gradients of weights.
    BackwardWeight,
    /// Gradients of both, from one computation.
    Backward,
}

/// A pass that was computed, or queued after a device's work so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Applied {
    /// The operator's name; `gradient sum` for gradients of one variable that are added up.
    pub operator: &'static str,
    /// Which of its passes.
    pub pass: Pass,
    /// Operations by the operator's definition ([`Flops`]); 0 for a forward that is computed again.
    pub flops: f64,
    /// Bytes that the pass reads and writes at least: each of its tensors once, whatever its kernels do. Views move
    /// nothing.
    pub bytes: f64,
}

/// Is told of every pass as soon as it is done or, on a GPU, queued after the work so far.
pub trait Observer: Debug + Send + Sync {
    /// That pass comes after all that were told before it.
    fn applied(&self, applied: Applied);
}

/// Who is told, if there is an observer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    observer: Option<Arc<dyn Observer>>,
    again: bool,
}

fn bytes<'a>(specs: impl IntoIterator<Item = &'a Spec>) -> f64 {
    specs.into_iter().map(|spec| spec.bytes() as f64).sum()
}

fn tensor_bytes<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> f64 {
    tensors.into_iter().map(|tensor| tensor.spec().bytes() as f64).sum()
}

/// Bytes of weights that an operator reads for `others`, what is computed from them: one that has no products looks up
/// a weight for each number, as an embedding does, and not its whole table.
fn read(weights: f64, flops: f64, others: f64) -> f64 {
    if flops > 0.0 { weights } else { weights.min(others) }
}

impl Watch {
    pub fn new(observer: Arc<dyn Observer>) -> Watch {
        Watch { observer: Some(observer), again: false }
    }

    /// The same for a forward that is computed again.
    pub fn again(&self) -> Watch {
        Watch { again: true, ..self.clone() }
    }

    /// Tells of a forward; the operations of all passes.
    pub fn forward(
        &self,
        op: &dyn Operator,
        inputs: &[Spec],
        weights: &[Spec],
        need: Need<'_>,
        inferred: &Inferred,
    ) -> Flops {
        let Some(observer) = &self.observer else { return Flops::default() };
        let flops = op.flops(inputs, weights, need);
        let outputs = inferred.outputs.iter().filter_map(|output| match output {
            OutputSpec::New(spec) => Some(spec),
            OutputSpec::View { .. } => None,
        });
        let saved = inferred.saved.iter().filter_map(|saved| match saved {
            SavedSpec::New(spec) => Some(spec),
            _ => None,
        });
        let written = bytes(outputs.chain(saved));
        let moved = bytes(inputs) + read(bytes(weights), flops.forward, written) + written;
        observer.applied(Applied {
            operator: op.name(),
            pass: Pass::Forward,
            flops: if self.again { 0.0 } else { flops.forward },
            bytes: if written > 0.0 { moved } else { 0.0 },
        });
        flops
    }

    /// Tells of a gradient that was added to another of its variable.
    pub fn sum(&self, gradient: &Tensor) {
        if let Some(observer) = &self.observer {
            let bytes = 3.0 * gradient.spec().bytes() as f64;
            observer.applied(Applied {
                operator: "gradient sum",
                pass: Pass::BackwardInput,
                flops: 0.0,
                bytes,
            });
        }
    }

    /// Tells the observer, if there is one, that a backward is about to be computed.
    pub fn backward<'a>(
        &'a self,
        op: &'a dyn Operator,
        flops: Flops,
        backward: &Backward<'a>,
    ) -> Option<WatchedBackward<'a>> {
        let observer = self.observer.as_deref()?;
        Some(WatchedBackward {
            observer,
            op,
            flops,
            saved: tensor_bytes(backward.saved),
            weights: tensor_bytes(backward.weights.iter().copied()),
            grads: backward.grads,
            weight_grads: None,
        })
    }
}

/// A backward of one operator that is watched.
#[derive(Debug)]
pub(crate) struct WatchedBackward<'a> {
    observer: &'a dyn Observer,
    op: &'a dyn Operator,
    flops: Flops,
    /// Bytes.
    saved: f64,
    /// Bytes.
    weights: f64,
    grads: &'a [Option<Tensor>],
    /// Bytes of gradients of weights that were asked for and not told of.
    weight_grads: Option<f64>,
}

impl WatchedBackward<'_> {
    fn tell(&self, pass: Pass, flops: f64, bytes: f64) {
        self.observer.applied(Applied { operator: self.op.name(), pass, flops, bytes });
    }

    fn given(&self) -> f64 {
        tensor_bytes(self.grads.iter().flatten())
    }

    /// A gradient of a weight is asked for.
    pub fn weight(&mut self, grad: &WeightGrad<'_>) {
        let size = (grad.range.len() * grad.buffer.dtype().size()) as f64;
        let bytes = if grad.accumulate {
            let numbers = self.grads.iter().flatten().map(Tensor::len).sum::<usize>();
            let touched = (numbers * grad.buffer.dtype().size()) as f64;
            2.0 * read(size, self.flops.backward_weight, touched)
        } else {
            size
        };
        *self.weight_grads.get_or_insert(0.0) += bytes;
    }

    /// The gradients of weights are there.
    pub fn written(&mut self) {
        if let Some(written) = self.weight_grads.take() {
            self.tell(Pass::BackwardWeight, self.flops.backward_weight, self.saved + self.given() + written);
        }
    }

    /// The gradients of inputs are there too, where any are wanted.
    pub fn finish(mut self, inputs: &InputGrads) {
        if inputs.iter().all(Option::is_none) {
            return self.written();
        }
        // A gradient that is handed on, whole or as a view, is not written.
        let is_given = |tensor: &Tensor| {
            self.grads.iter().flatten().any(|given| given.storage_id() == tensor.storage_id())
        };
        let made = tensor_bytes(inputs.iter().flatten().filter(|tensor| !is_given(tensor)));
        let weights = read(self.weights, self.flops.backward_input, made);
        let both = self.given() + weights + made;
        match self.weight_grads {
            Some(written) => {
                let flops = self.flops.backward_input + self.flops.backward_weight;
                self.tell(Pass::Backward, flops, self.saved + both + written);
            }
            None if made == 0.0 => self.tell(Pass::BackwardInput, self.flops.backward_input, 0.0),
            // What a product saves is for the gradient of its weight.
            None => {
                let saved = if self.op.defers_weight() { 0.0 } else { self.saved };
                self.tell(Pass::BackwardInput, self.flops.backward_input, saved + both);
            }
        }
    }
}
