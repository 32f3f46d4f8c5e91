//! The tape: gradients of blocks of several operators, sums at forks, split and recomputed backwards, and memory that
//! is given back as the backward passes.

use anyhow::Result;
use bigmac_autograd::gradcheck::gradcheck;
use bigmac_autograd::{Deferred, Gradients, Graph, Mode, ParamId, Parameters, Propagated, Var};
use bigmac_kernels::{
    Backward, Call, Forwarded, Inferred, InputGrads, Need, Operator,
    add::Add,
    check::{float_tensor, random},
    gelu::Gelu,
    linear::Linear,
    rms_norm::RmsNorm,
    scale::Scale,
    swiglu::SwiGlu,
};
use bigmac_runtime::{Context, DType, Error, Spec, Tensor};
use std::sync::{Arc, Mutex};

const WIDTH: usize = 5;
const INNER: usize = 7;
const ROWS: usize = 3;

/// A residual feed-forward block: norm, gate, up and down.
struct Block {
    params: Parameters,
    norm: ParamId,
    gate: ParamId,
    gate_bias: ParamId,
    up: ParamId,
    down: ParamId,
}

impl Block {
    fn new(ctx: &Context, dtype: DType, trainable: bool) -> Result<Block> {
        let mut params = Parameters::new();
        let mut add = |name: &str, shape: &[usize], stream| {
            params.add(name, float_tensor(ctx, &random(shape, stream), shape, dtype)?, trainable)
        };
        Ok(Block {
            norm: add("norm", &[WIDTH], 1)?,
            gate: add("gate", &[INNER, WIDTH], 2)?,
            gate_bias: add("gate_bias", &[INNER], 3)?,
            up: add("up", &[INNER, WIDTH], 4)?,
            down: add("down", &[WIDTH, INNER], 5)?,
            params,
        })
    }

    /// `x + down(swiglu(gate(n), up(n)))` with `n = norm(x)`.
    fn forward(&self, g: &mut Graph<'_>, x: &Var) -> bigmac_runtime::Result<Var> {
        forward(g, x, [self.norm, self.gate, self.gate_bias, self.up, self.down])
    }

    fn ids(&self) -> [ParamId; 5] {
        [self.norm, self.gate, self.gate_bias, self.up, self.down]
    }
}

fn forward(
    g: &mut Graph<'_>,
    x: &Var,
    [norm, gate, gate_bias, up, down]: [ParamId; 5],
) -> bigmac_runtime::Result<Var> {
    let n = g.apply(RmsNorm { eps: 1e-6 }, &[x], &[norm])?;
    let gate = g.apply(Linear { bias: true }, &[&n], &[gate, gate_bias])?;
    let up = g.apply(Linear { bias: false }, &[&n], &[up])?;
    let inner = g.apply(SwiGlu, &[&gate, &up], &[])?;
    let down = g.apply(Linear { bias: false }, &[&inner], &[down])?;
    g.apply(Add, &[x, &down], &[])
}

fn input(ctx: &Context, dtype: DType) -> Result<Tensor> {
    Ok(float_tensor(ctx, &random(&[ROWS, WIDTH], 9), &[ROWS, WIDTH], dtype)?)
}

/// The bytes of every gradient: of the input, and of all parameters.
type Bits = (Option<Vec<u8>>, Vec<u8>);

fn bits(mut propagated: Propagated, x: &Var, gradients: &mut Gradients) -> Result<Bits> {
    gradients.finish_step()?;
    let dx = x.id().and_then(|id| propagated.take(id));
    let dx = dx.map(|t| t.as_bytes().map(<[u8]>::to_vec)).transpose()?;
    Ok((dx, gradients.flat().as_bytes()?.to_vec()))
}

/// Two blocks one after the other, walked backward; `apply` puts a block into the graph.
fn two_blocks(
    mode: Mode,
    apply: impl Fn(&Block, &mut Graph<'_>, &Var) -> Result<Var>,
) -> Result<(Bits, usize, bool)> {
    let ctx = Context::cpu(0, 1)?;
    let block = Block::new(&ctx, DType::F32, true)?;
    let mut gradients = Gradients::new(&ctx, &block.params)?;
    let mut g = Graph::recording(&ctx, &block.params);
    let x = g.leaf(input(&ctx, DType::F32)?);
    // The same parameters twice: the second use adds to the first one's gradient.
    let y = apply(&block, &mut g, &x)?;
    let y = apply(&block, &mut g, &y)?;
    let seed = (y.id().expect("the output depends on what learns"), input(&ctx, DType::F32)?);
    drop(y);
    let tape = g.finish();
    let saved = tape.saved_bytes();
    let mut propagated = tape.backward(&ctx, &block.params, [seed], &mut gradients, mode)?;
    let deferred: Deferred = std::mem::take(&mut propagated.deferred);
    let put_off = !deferred.is_empty();
    assert_eq!(put_off, deferred.held_bytes() > 0);
    deferred.run(&ctx, &block.params, &mut gradients)?;
    Ok((bits(propagated, &x, &mut gradients)?, saved, put_off))
}

fn plain(block: &Block, g: &mut Graph<'_>, x: &Var) -> Result<Var> {
    Ok(block.forward(g, x)?)
}

fn checkpointed(block: &Block, g: &mut Graph<'_>, x: &Var) -> Result<Var> {
    let ids = block.ids();
    let mut outputs = g.checkpoint(&[x], move |g, inputs| Ok(vec![forward(g, &inputs[0], ids)?]))?;
    Ok(outputs.remove(0))
}

#[test]
fn a_block_has_the_gradient_of_central_differences() -> Result<()> {
    let ctx = Context::cpu(0, 2)?;
    let mut block = Block::new(&ctx, DType::F64, true)?;
    let ids = block.ids();
    // Away from zero, where a norm bends so much that differences of this step are the less exact of the two.
    let far: Vec<f64> = random(&[ROWS, WIDTH], 9).iter().map(|x| 4.0 * x).collect();
    let far = Tensor::from_slice(&ctx, &far, &[ROWS, WIDTH])?;
    gradcheck(&ctx, &mut block.params, &[far], 1e-9, |g, x| {
        let y = forward(g, &x[0], ids)?;
        let y = g.apply(Gelu { tanh: true }, &[&y], &[])?;
        let y = g.apply(Add, &[&y, &x[0]], &[])?;
        forward(g, &y, ids)
    })?;
    Ok(())
}

#[test]
fn gradcheck_notices_a_gradient_that_is_slightly_off() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    let x = input(&ctx, DType::F64)?;
    let mut none = Parameters::new();
    let error =
        gradcheck(&ctx, &mut none, &[x], 1e-8, |g, x| g.apply(Probe::bent(1.0 + 1e-6), &[&x[0]], &[]));
    let error = error.expect_err("the gradient is off by a millionth").to_string();
    assert!(error.contains("input 0"), "{error}");
    Ok(())
}

#[test]
fn gradients_add_up_where_paths_meet() -> Result<()> {
    // y = (2x) * silu(x) + (2x) + x: x is read three times, 2x twice.
    let ctx = Context::cpu(0, 1)?;
    let diamond = |g: &mut Graph<'_>, x: &Var| -> bigmac_runtime::Result<Var> {
        let doubled = g.apply(Scale { factor: 2.0 }, &[x], &[])?;
        let product = g.apply(SwiGlu, &[x, &doubled], &[])?;
        let sum = g.apply(Add, &[&product, &doubled], &[])?;
        g.apply(Add, &[&sum, x], &[])
    };
    gradcheck(&ctx, &mut Parameters::new(), &[input(&ctx, DType::F64)?], 1e-9, |g, x| diamond(g, &x[0]))?;
    // And in closed form at x = 0: 2x silu(x) contributes nothing, so the derivative is 3.
    let none = Parameters::new();
    let mut g = Graph::recording(&ctx, &none);
    let x = g.leaf(Tensor::zeros(&ctx, &[4], DType::F64)?);
    let y = diamond(&mut g, &x)?;
    let seed = Tensor::from_slice(&ctx, &[1.0, -2.0, 0.5, 0.0], &[4])?;
    let id = y.id().expect("it depends on a leaf");
    let mut gradients = Gradients::new(&ctx, &none)?;
    let mut propagated = g.finish().backward(&ctx, &none, [(id, seed)], &mut gradients, Mode::Full)?;
    let dx = propagated.take(x.id().expect("a leaf")).expect("y depends on x");
    assert_eq!(dx.as_slice::<f64>()?, [3.0, -6.0, 1.5, 0.0]);
    Ok(())
}

#[test]
fn a_split_backward_is_a_full_one_in_two_parts() -> Result<()> {
    let (full, _, put_off) = two_blocks(Mode::Full, plain)?;
    assert!(!put_off);
    let (split, _, put_off) = two_blocks(Mode::Split, plain)?;
    assert!(put_off, "nothing was put off");
    assert_eq!(full, split);
    Ok(())
}

#[test]
fn a_recomputed_block_has_the_same_gradient_and_saves_less() -> Result<()> {
    let (full, saved, _) = two_blocks(Mode::Full, plain)?;
    for mode in [Mode::Full, Mode::Split] {
        let (again, less, put_off) = two_blocks(mode, checkpointed)?;
        assert_eq!(full, again);
        // Not put off: that would hold what was not saved.
        assert!(!put_off, "{mode:?}");
        // Of each block its input, and nothing else.
        assert_eq!(less, 2 * ROWS * WIDTH * 4);
        assert!(less < saved);
    }
    Ok(())
}

#[test]
fn frozen_parameters_get_no_gradient_and_cost_no_memory() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    let run = |trainable: bool, leaf: bool| -> Result<(Option<Bits>, usize)> {
        let block = Block::new(&ctx, DType::F32, trainable)?;
        let mut gradients = Gradients::new(&ctx, &block.params)?;
        let mut g = Graph::recording(&ctx, &block.params);
        let x = input(&ctx, DType::F32)?;
        let x = if leaf { g.leaf(x) } else { g.constant(x) };
        let y = block.forward(&mut g, &x)?;
        let tape = g.finish();
        let saved = tape.saved_bytes();
        let Some(id) = y.id() else { return Ok((None, saved)) };
        let propagated =
            tape.backward(&ctx, &block.params, [(id, input(&ctx, DType::F32)?)], &mut gradients, Mode::Full)?;
        Ok((Some(bits(propagated, &x, &mut gradients)?), saved))
    };
    let (learned, all) = run(true, true)?;
    let (frozen, some) = run(false, true)?;
    let (learned, frozen) = (learned.expect("it learns"), frozen.expect("the input learns"));
    assert_eq!(learned.0, frozen.0, "the input's gradient does not depend on what learns");
    assert!(learned.1.iter().any(|b| *b != 0) && frozen.1.iter().all(|b| *b == 0));
    // The inputs of the three linear layers, of which two are one, are needed by weight gradients alone.
    assert_eq!(all - some, 4 * ROWS * (WIDTH + INNER));
    // Nothing below learns either: no tape at all.
    assert_eq!(run(false, false)?, (None, 0));
    Ok(())
}

#[test]
fn a_plan_predicts_what_a_recording_saves() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    for dtype in [DType::F32, DType::BF16] {
        for (trainable, leaf) in [(true, true), (true, false), (false, true), (false, false)] {
            let block = Block::new(&ctx, dtype, trainable)?;
            let saved = |mut g: Graph<'_>| -> Result<(usize, usize)> {
                let x = input(&ctx, dtype)?;
                let x = if leaf { g.leaf(x) } else { g.constant(x) };
                let y = block.forward(&mut g, &x)?;
                let y = checkpointed(&block, &mut g, &y)?;
                block.forward(&mut g, &y)?;
                let tape = g.finish();
                Ok((tape.len(), tape.saved_bytes()))
            };
            let recorded = saved(Graph::recording(&ctx, &block.params))?;
            assert_eq!(saved(Graph::planning(&ctx, &block.params))?, recorded);
            let shapes = block.params.shape_only();
            assert_eq!(saved(Graph::planning(&ctx, &shapes))?, recorded, "planning reads no weights");
            assert_eq!(saved(Graph::inference(&ctx, &block.params))?, (0, 0));
        }
    }
    Ok(())
}

/// The identity, which notes how many bytes a memory scope holds when its backward runs, and may bend its gradient.
#[derive(Debug, Clone)]
struct Probe {
    scope: &'static str,
    held: Arc<Mutex<Vec<usize>>>,
    factor: f64,
    differentiable: bool,
}

impl Probe {
    fn of(scope: &'static str) -> Probe {
        Probe { scope, held: Arc::default(), factor: 1.0, differentiable: true }
    }

    fn bent(factor: f64) -> Probe {
        Probe { factor, ..Probe::of("none") }
    }
}

impl Operator for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn infer(&self, inputs: &[Spec], _weights: &[Spec], _need: Need<'_>) -> bigmac_runtime::Result<Inferred> {
        Ok(Inferred::one(inputs[0].clone(), []))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> bigmac_runtime::Result<Forwarded> {
        Ok(Forwarded::one(call.inputs[0].copy(ctx)?))
    }

    fn differentiable(&self) -> bool {
        self.differentiable
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> bigmac_runtime::Result<InputGrads> {
        let held = ctx.memory().scope(self.scope).current();
        self.held.lock().unwrap_or_else(|e| e.into_inner()).push(held);
        let scale = Scale { factor: self.factor };
        let dx = scale.compute(ctx, &[backward.grad("probe")?], &[])?;
        Ok([Some(dx)].into_iter().collect())
    }
}

#[test]
fn an_operator_without_a_backward_is_an_error_when_the_graph_is_built() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    let none = Parameters::new();
    let op = Probe { differentiable: false, ..Probe::of("none") };
    for mut g in [Graph::recording(&ctx, &none), Graph::planning(&ctx, &none)] {
        let constant = g.constant(input(&ctx, DType::F32)?);
        g.apply(op.clone(), &[&constant], &[])?;
        let leaf = g.leaf(input(&ctx, DType::F32)?);
        assert!(matches!(g.apply(op.clone(), &[&leaf], &[]), Err(Error::NoBackward { op: "probe" })));
    }
    let mut g = Graph::inference(&ctx, &none);
    let leaf = g.leaf(input(&ctx, DType::F32)?);
    g.apply(op, &[&leaf], &[])?;
    Ok(())
}

#[test]
fn saved_memory_is_given_back_as_the_backward_passes() -> Result<()> {
    const SCOPE: &str = "activations.test";
    const BLOCKS: usize = 4;
    let ctx = Context::cpu(0, 1)?;
    let block = Block::new(&ctx, DType::F32, true)?;
    let mut gradients = Gradients::new(&ctx, &block.params)?;
    let forward_ctx = ctx.in_scope(SCOPE);
    let probe = Probe::of(SCOPE);
    let mut g = Graph::recording(&forward_ctx, &block.params);
    let mut x = g.leaf(input(&forward_ctx, DType::F32)?);
    for _ in 0..BLOCKS {
        x = g.apply(probe.clone(), &[&x], &[])?;
        x = block.forward(&mut g, &x)?;
    }
    let id = x.id().expect("it learns");
    drop(x);
    let tape = g.finish();
    let saved = tape.saved_bytes();
    assert_eq!(ctx.memory().scope(SCOPE).current(), saved, "the tape holds all that is counted");
    tape.backward(&ctx, &block.params, [(id, input(&ctx, DType::F32)?)], &mut gradients, Mode::Full)?;
    // Equal blocks, each freed after the other: the probe in front of block i sees i blocks' worth.
    let held = probe.held.lock().unwrap_or_else(|e| e.into_inner()).clone();
    let wanted: Vec<usize> = (0..BLOCKS).rev().map(|below| below * saved / BLOCKS).collect();
    assert_eq!(held, wanted);
    assert_eq!(ctx.memory().scope(SCOPE).current(), 0);
    Ok(())
}
