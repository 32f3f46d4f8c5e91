//! What an observer is told of graphs and their tapes.

use bigmac_autograd::{Applied, Gradients, Graph, Mode, Observer, ParamId, Parameters, Pass, Var};
use bigmac_kernels::{add::Add, embedding::Embedding, linear::Linear, rms_norm::RmsNorm};
use bigmac_runtime::{Context, DType, Result, Tensor};
use std::sync::{Arc, Mutex};

#[derive(Debug, Default)]
struct Told(Mutex<Vec<Applied>>);

impl Observer for Told {
    fn applied(&self, applied: Applied) {
        self.0.lock().unwrap().push(applied);
    }
}

impl Told {
    fn take(&self) -> Vec<Applied> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

const ROWS: usize = 5;

fn tensor(ctx: &Context, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| 0.1 + (i % 7) as f32).collect();
    Tensor::from_slice(ctx, &values, shape).unwrap()
}

/// Weights `[6, 4]`, `[6]`, `[3, 6]`.
fn parameters(ctx: &Context) -> (Parameters, [ParamId; 3]) {
    let mut parameters = Parameters::new();
    let shapes: [&[usize]; 3] = [&[6, 4], &[6], &[3, 6]];
    let mut number = 0;
    let ids = shapes.map(|shape| {
        number += 1;
        parameters.add(format!("w{number}"), tensor(ctx, shape), true).unwrap()
    });
    (parameters, ids)
}

/// `w3 (norm(w1 x) + w1 x)`: w1's product has two gradients to be added up.
fn network(graph: &mut Graph<'_>, x: &Var, ids: [ParamId; 3]) -> Result<Var> {
    let linear = || Linear { bias: false };
    let y = graph.apply(linear(), &[x], &[ids[0]])?;
    let normed = graph.apply(RmsNorm { eps: 1e-6 }, &[&y], &[ids[1]])?;
    let sum = graph.apply(Add, &[&normed, &y], &[])?;
    graph.apply(linear(), &[&sum], &[ids[2]])
}

fn applied(operator: &'static str, pass: Pass, flops: usize, numbers: usize) -> Applied {
    Applied { operator, pass, flops: flops as f64, bytes: (4 * numbers) as f64 }
}

fn forward() -> Vec<Applied> {
    vec![
        applied("linear", Pass::Forward, 2 * ROWS * 24, ROWS * 4 + 24 + ROWS * 6),
        applied("rms_norm", Pass::Forward, 0, ROWS * 6 + 6 + ROWS * 6 + ROWS),
        applied("add", Pass::Forward, 0, 3 * ROWS * 6),
        applied("linear", Pass::Forward, 2 * ROWS * 18, ROWS * 6 + 18 + ROWS * 3),
    ]
}

/// The backward of [`network`]; a gradient of a weight that is not the first of a step is read too.
fn backward(first: bool) -> Vec<Applied> {
    let times = if first { 1 } else { 2 };
    vec![
        applied("linear", Pass::BackwardWeight, 2 * ROWS * 18, ROWS * 6 + ROWS * 3 + 18 * times),
        applied("linear", Pass::BackwardInput, 2 * ROWS * 18, ROWS * 3 + 18 + ROWS * 6),
        // Both inputs get the gradient as it is.
        applied("add", Pass::BackwardInput, 0, 0),
        applied("rms_norm", Pass::BackwardWeight, 0, ROWS * 6 + ROWS + ROWS * 6 + 6 * times),
        applied("rms_norm", Pass::BackwardInput, 0, ROWS * 6 + ROWS + ROWS * 6 + 6 + ROWS * 6),
        applied("gradient sum", Pass::BackwardInput, 0, 3 * ROWS * 6),
        applied("linear", Pass::BackwardWeight, 2 * ROWS * 24, ROWS * 4 + ROWS * 6 + 24 * times),
        applied("linear", Pass::BackwardInput, 2 * ROWS * 24, ROWS * 6 + 24 + ROWS * 4),
    ]
}

#[test]
fn every_pass_is_told_with_its_operations_and_bytes() {
    let ctx = Context::cpu(0, 1).unwrap();
    let (params, ids) = parameters(&ctx);
    let mut gradients = Gradients::new(&ctx, &params).unwrap();
    let told = Arc::new(Told::default());
    for first in [true, false] {
        let mut graph = Graph::recording(&ctx, &params).observed(told.clone());
        let x = graph.leaf(tensor(&ctx, &[ROWS, 4]));
        let y = network(&mut graph, &x, ids).unwrap();
        assert_eq!(told.take(), forward());
        let seed = (y.id().unwrap(), tensor(&ctx, &[ROWS, 3]));
        graph.finish().backward(&ctx, &params, [seed], &mut gradients, Mode::Full).unwrap();
        assert_eq!(told.take(), backward(first), "first {first}");
    }
}

#[test]
fn products_that_are_put_off_are_told_when_they_are_computed() {
    let ctx = Context::cpu(0, 1).unwrap();
    let (params, ids) = parameters(&ctx);
    let mut gradients = Gradients::new(&ctx, &params).unwrap();
    let told = Arc::new(Told::default());
    let mut graph = Graph::recording(&ctx, &params).observed(told.clone());
    let x = graph.leaf(tensor(&ctx, &[ROWS, 4]));
    let y = network(&mut graph, &x, ids).unwrap();
    told.take();
    let seed = (y.id().unwrap(), tensor(&ctx, &[ROWS, 3]));
    let propagated = graph.finish().backward(&ctx, &params, [seed], &mut gradients, Mode::Split).unwrap();
    let is_put_off = |applied: &Applied| applied.operator == "linear" && applied.pass == Pass::BackwardWeight;
    let (later, now): (Vec<Applied>, Vec<Applied>) = backward(true).into_iter().partition(is_put_off);
    assert_eq!(told.take(), now);
    propagated.deferred.run(&ctx, &params, &mut gradients).unwrap();
    assert_eq!(told.take(), later);
}

#[test]
fn what_is_computed_again_moves_bytes_and_counts_no_operations() {
    let ctx = Context::cpu(0, 1).unwrap();
    let (params, ids) = parameters(&ctx);
    let mut gradients = Gradients::new(&ctx, &params).unwrap();
    let told = Arc::new(Told::default());
    let mut graph = Graph::recording(&ctx, &params).observed(told.clone());
    let x = graph.leaf(tensor(&ctx, &[ROWS, 4]));
    let outputs = graph.checkpoint(&[&x], move |g, inputs| Ok(vec![network(g, &inputs[0], ids)?])).unwrap();
    // Nothing is saved for a backward the first time: no statistic of the norm.
    let once: Vec<Applied> =
        forward()
            .into_iter()
            .map(|a| {
                if a.operator == "rms_norm" { Applied { bytes: a.bytes - 4.0 * ROWS as f64, ..a } } else { a }
            })
            .collect();
    assert_eq!(told.take(), once);
    let seed = (outputs[0].id().unwrap(), tensor(&ctx, &[ROWS, 3]));
    graph.finish().backward(&ctx, &params, [seed], &mut gradients, Mode::Full).unwrap();
    let again = forward().into_iter().map(|applied| Applied { flops: 0.0, ..applied });
    assert_eq!(told.take(), again.chain(backward(true)).collect::<Vec<_>>());
}

#[test]
fn an_embedding_moves_the_rows_that_are_looked_up() {
    let ctx = Context::cpu(0, 1).unwrap();
    let mut params = Parameters::new();
    let table = params.add("table", tensor(&ctx, &[1000, 8]), true).unwrap();
    let mut gradients = Gradients::new(&ctx, &params).unwrap();
    let told = Arc::new(Told::default());
    let (ids, rows) = (3, 3 * 8);
    // The first gradient of a step writes the whole table; the next adds to rows.
    for written in [1000 * 8, 2 * rows] {
        let mut graph = Graph::recording(&ctx, &params).observed(told.clone());
        let tokens = graph.constant(Tensor::from_slice(&ctx, &[5i32, 7, 5], &[ids]).unwrap());
        let y = graph.apply(Embedding, &[&tokens], &[table]).unwrap();
        let seed = (y.id().unwrap(), Tensor::zeros(&ctx, &[ids, 8], DType::F32).unwrap());
        graph.finish().backward(&ctx, &params, [seed], &mut gradients, Mode::Full).unwrap();
        let expected = [
            applied("embedding", Pass::Forward, 0, ids + 2 * rows),
            applied("embedding", Pass::BackwardWeight, 0, ids + rows + written),
        ];
        assert_eq!(told.take(), expected);
    }
}
