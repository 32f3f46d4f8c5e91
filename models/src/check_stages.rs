//! Runs a model that is cut into stages, forward and backward, for tests that hold it against the uncut one.

use bigmac_autograd::{Gradients, Graph, Mode, Parameters, Var};
use bigmac_kernels::check::to_f64;
use bigmac_runtime::{Context, Result, Tensor};
use std::collections::BTreeMap;

/// A stage's forward, from what the stage before has made (none for the first).
pub(crate) type Forward<'a> = dyn Fn(&mut Graph<'_>, Option<Var>) -> Result<Var> + 'a;

/// A stage.
pub(crate) struct Part<'a> {
    pub parameters: &'a Parameters,
    pub forward: Box<Forward<'a>>,
}

/// The last stage's output, and the gradient of every parameter by name, for the output's gradient `seed`.
pub(crate) fn run(
    ctx: &Context,
    parts: &[Part<'_>],
    seed: impl Fn(&[usize]) -> Tensor,
) -> Result<(Tensor, BTreeMap<String, Vec<f64>>)> {
    let mut tapes = Vec::new();
    let mut states: Option<Tensor> = None;
    for part in parts {
        let mut graph = Graph::recording(ctx, part.parameters);
        let input = states.take().map(|states| graph.leaf(states));
        let leaf = input.as_ref().and_then(Var::id);
        let output = (part.forward)(&mut graph, input)?;
        let id = output.id().expect("every stage has parameters or a leaf");
        states = Some(output.into_tensor());
        tapes.push((part.parameters, graph.finish(), leaf, id));
    }
    let output = states.expect("there is a stage");
    let mut grad = seed(output.shape());
    let mut gradients = BTreeMap::new();
    for (parameters, tape, leaf, id) in tapes.into_iter().rev() {
        let mut own = Gradients::new(ctx, parameters)?;
        let mut propagated = tape.backward(ctx, parameters, [(id, grad.clone())], &mut own, Mode::Full)?;
        own.finish_step()?;
        for (id, parameter) in parameters.iter() {
            gradients.insert(parameter.name().to_owned(), to_f64(ctx, &own.view(id)?)?);
        }
        if let Some(leaf) = leaf {
            grad = propagated.take(leaf).expect("a stage depends on what it reads");
        }
    }
    Ok((output, gradients))
}
