//! Gradients of whole blocks and models against central differences in F64.

use crate::graph::{Graph, Var};
use crate::params::{Gradients, Parameters};
use crate::tape::Mode;
use bigmac_kernels::check::{against_differences, random, to_f64};
use bigmac_runtime::{Context, DType, Error, Result, Tensor};

/// Elements of each tensor that are tried: enough to hit every row and column of small ones, few enough to be quick.
const PROBES: usize = 24;

/// Compares gradients of `f` with central differences of fourth order, for every trainable parameter and every float
/// input.
///
/// `params` and float `inputs` are of dtype F64. `f` returns one variable of any shape; the loss is its sum weighted by
/// fixed random numbers. `tolerance` is the largest allowed norm of the error over the norm of the gradient; 1e-7 is
/// what smooth functions of moderate values reach.
///
/// # Errors
/// [`Error::Argument`] that names the parameter or input that is off, and by how much; the operators' own errors.
pub fn gradcheck<F>(
    ctx: &Context,
    params: &mut Parameters,
    inputs: &[Tensor],
    tolerance: f64,
    f: F,
) -> Result<()>
where
    F: Fn(&mut Graph<'_>, &[Var]) -> Result<Var>,
{
    let mut graph = Graph::recording(ctx, params);
    let vars: Vec<Var> = inputs
        .iter()
        .map(|t| if t.dtype().is_float() { graph.leaf(t.clone()) } else { graph.constant(t.clone()) })
        .collect();
    let output = f(&mut graph, &vars)?;
    let id = output
        .id()
        .ok_or_else(|| Error::argument("gradcheck", "the function depends on nothing that learns"))?;
    let weights = random(output.shape(), 0);
    let seed = Tensor::from_slice(ctx, &weights, output.shape())?;
    let mut gradients = Gradients::new(ctx, params)?;
    let mut propagated = graph.finish().backward(ctx, params, [(id, seed)], &mut gradients, Mode::Full)?;
    gradients.finish_step()?;

    let loss = |params: &Parameters, inputs: &[Tensor]| -> Result<f64> {
        let mut graph = Graph::inference(ctx, params);
        let vars: Vec<Var> = inputs.iter().map(|t| graph.constant(t.clone())).collect();
        let output = f(&mut graph, &vars)?;
        Ok(to_f64(ctx, output.tensor())?.iter().zip(&weights).map(|(y, w)| y * w).sum())
    };

    let ids: Vec<_> =
        params.iter().filter(|(_, p)| p.trainable()).map(|(id, p)| (id, p.name().to_owned())).collect();
    for (id, name) in ids {
        let analytic = to_f64(ctx, &gradients.view(id)?)?;
        against_differences("gradcheck", &name, &analytic, (PROBES, tolerance), |i, by| {
            let old = nudge(params.get_mut(id), i, by)?;
            let loss = loss(params, inputs);
            set(params.get_mut(id), i, old)?;
            loss
        })?;
    }
    let mut inputs: Vec<Tensor> = inputs.iter().map(|t| t.copy(ctx)).collect::<Result<_>>()?;
    for (n, var) in vars.iter().enumerate() {
        let Some(id) = var.id() else { continue };
        let analytic = match propagated.take(id) {
            Some(grad) => to_f64(ctx, &grad)?,
            None => vec![0.0; inputs[n].len()],
        };
        against_differences("gradcheck", &format!("input {n}"), &analytic, (PROBES, tolerance), |i, by| {
            let old = nudge(&mut inputs[n], i, by)?;
            let loss = loss(params, &inputs);
            set(&mut inputs[n], i, old)?;
            loss
        })?;
    }
    Ok(())
}

/// Adds to one element of an F64 tensor and returns what it was.
fn nudge(tensor: &mut Tensor, i: usize, by: f64) -> Result<f64> {
    if tensor.dtype() != DType::F64 {
        return Err(Error::DType { op: "gradcheck", given: tensor.dtype(), wanted: "f64".into() });
    }
    let value = &mut tensor.as_mut_slice::<f64>()?[i];
    let old = *value;
    *value += by;
    Ok(old)
}

fn set(tensor: &mut Tensor, i: usize, value: f64) -> Result<()> {
    tensor.as_mut_slice::<f64>()?[i] = value;
    Ok(())
}
