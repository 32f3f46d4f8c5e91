//! A network that is trained, on random data that lies on its device.

use bigmac_autograd::{Gradients, Graph, Observer, Parameters};
use bigmac_runtime::{Context, Result, Tensor};
use std::fmt::Debug;
use std::sync::Arc;

/// What a microbatch is run in.
pub struct Run<'a> {
    pub ctx: &'a Context,
    pub params: &'a Parameters,
    pub gradients: &'a mut Gradients,
    /// Who is told of every operator, if anybody.
    pub observer: Option<&'a Arc<dyn Observer>>,
    /// Called when the first operators are queued.
    pub began: &'a mut dyn FnMut() -> anyhow::Result<()>,
}

impl<'a> Run<'a> {
    /// A graph of this run, recorded.
    pub fn graph(&self) -> Graph<'a> {
        let graph = Graph::recording(self.ctx, self.params);
        match self.observer {
            Some(observer) => graph.observed(Arc::clone(observer)),
            None => graph,
        }
    }
}

/// A network with its data.
pub trait Net: Debug {
    /// Forward and backward of a microbatch. The loss `[1]` is its part in the step's, and stays on the device.
    ///
    /// # Errors
    /// Those of the operators.
    fn run(&self, run: &mut Run<'_>, microbatch: usize) -> anyhow::Result<Tensor>;
}

/// What the gradient of a loss starts from.
///
/// # Errors
/// Those of allocation.
pub fn one(ctx: &Context) -> Result<Tensor> {
    Tensor::from_slice(ctx, &[1.0f32], &[1])
}
