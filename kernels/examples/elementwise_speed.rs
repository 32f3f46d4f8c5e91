//! Times the operators that move memory rather than multiply, on one thread: nanoseconds per element and GB/s, beside a
//! plain copy of the same tensor.
//!
//! `cargo run --release -p bigmac-kernels --example elementwise_speed`

use bigmac_kernels::adamw::{self, AdamW};
use bigmac_kernels::check::{float_tensor, random};
use bigmac_kernels::*;
use bigmac_runtime::{Context, DType, Result, Tensor};
use std::time::Instant;

/// The best time of one call, in seconds.
fn best(mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..300 {
        let start = Instant::now();
        f()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Prints a time; `moved` is how many tensors of `elements` are read and written.
fn print(name: &str, seconds: f64, elements: usize, dtype: DType, moved: usize) {
    let bytes = elements * dtype.size() * moved;
    println!(
        "{name:40} {:8.2} us {:7.3} ns/element {:7.1} GB/s",
        seconds * 1e6,
        seconds * 1e9 / elements as f64,
        bytes as f64 / seconds / 1e9
    );
}

/// Times forward and backward of an operator on inputs and weights of those shapes.
fn time(ctx: &Context, name: &str, op: &dyn Operator, dtype: DType, shapes: [&[&[usize]]; 2]) -> Result<()> {
    let make = |shapes: &[&[usize]], stream: u32| {
        let tensors = shapes.iter().enumerate();
        tensors
            .map(|(i, s)| float_tensor(ctx, &random(s, stream + i as u32), s, dtype))
            .collect::<Result<Vec<_>>>()
    };
    let (inputs, weights) = (make(shapes[0], 0)?, make(shapes[1], 10)?);
    let (inputs, weights): (Vec<&Tensor>, Vec<&Tensor>) = (inputs.iter().collect(), weights.iter().collect());
    let wanted = [true; 8];
    let inputs_wanted: &[bool] =
        if name.starts_with("rope") { &[true, false, false] } else { &wanted[..inputs.len()] };
    let need = Need { inputs: inputs_wanted, weights: &wanted[..weights.len()] };
    let elements = inputs[0].len();
    let forward = best(|| op.forward(ctx, &inputs, &weights, need).map(drop))?;
    print(&format!("{name} {dtype} forward"), forward, elements, dtype, inputs.len() + 1);
    let forwarded = op.forward(ctx, &inputs, &weights, need)?;
    let y = &forwarded.outputs[0];
    let grads = [Some(float_tensor(ctx, &random(y.shape(), 20), y.shape(), y.dtype())?)];
    let backward = Backward { saved: &forwarded.saved, weights: &weights, grads: &grads, need };
    let input = best(|| op.backward_input(ctx, &backward).map(drop))?;
    print(&format!("{name} {dtype} backward of inputs"), input, elements, dtype, 2 * inputs.len() + 1);
    for (i, w) in weights.iter().enumerate() {
        let mut buffer = Tensor::zeros(ctx, &[w.len()], dtype.accumulator())?;
        let seconds = best(|| {
            let grad = WeightGrad { buffer: &mut buffer, range: 0..w.len(), accumulate: true };
            op.backward_weight(ctx, &backward, i, grad)
        })?;
        print(&format!("{name} {dtype} backward of weight {i}"), seconds, elements, dtype, 2);
    }
    Ok(())
}

fn main() -> Result<()> {
    let ctx = &Context::cpu(0, 1)?;
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let x = Tensor::zeros(ctx, &[700, 96], dtype)?;
        print(&format!("copy {dtype}"), best(|| x.copy(ctx).map(drop))?, x.len(), dtype, 2);
        let wide: &[usize] = &[700, 96];
        let heads: &[usize] = &[700, 4, 24];
        let table: &[usize] = &[700, 12];
        time(ctx, "rms_norm [700, 96]", &RmsNorm { eps: 1e-6 }, dtype, [&[wide], &[&[96]]])?;
        time(ctx, "rms_norm [2800, 24]", &RmsNorm { eps: 1e-6 }, dtype, [&[heads], &[&[24]]])?;
        time(ctx, "layer_norm", &LayerNorm { eps: 1e-6 }, dtype, [&[wide], &[&[96], &[96]]])?;
        time(ctx, "ada_layer_norm", &AdaLayerNorm { eps: 1e-6 }, dtype, [&[wide, &[96], &[96]], &[]])?;
        time(ctx, "gated_add", &GatedAdd, dtype, [&[wide, &[96], wide], &[]])?;
        time(ctx, "gelu tanh", &Gelu { tanh: true }, dtype, [&[wide], &[]])?;
        time(ctx, "gelu", &Gelu { tanh: false }, dtype, [&[wide], &[]])?;
        time(ctx, "silu", &Silu, dtype, [&[wide], &[]])?;
        time(ctx, "swiglu", &SwiGlu, dtype, [&[wide, wide], &[]])?;
        if dtype == DType::F32 {
            time(ctx, "rope halves", &Rope { interleaved: false }, dtype, [&[heads, table, table], &[]])?;
            time(ctx, "rope pairs", &Rope { interleaved: true }, dtype, [&[heads, table, table], &[]])?;
        }
        time(ctx, "mul", &Mul, dtype, [&[wide, wide], &[]])?;
        time(ctx, "add", &Add, dtype, [&[wide, wide], &[]])?;
        let mut param = Tensor::zeros(ctx, wide, dtype)?;
        let (grad, mut m, mut v) = (vec![0.5f32; x.len()], vec![0.0f32; x.len()], vec![0.0f32; x.len()]);
        let step =
            AdamW { lr: 1e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, step: 3, grad_scale: 1.0 };
        let seconds = best(|| adamw::step(ctx, step, &mut param, None, &grad, &mut m, &mut v))?;
        print(&format!("adamw {dtype}"), seconds, x.len(), DType::F32, 7);
        let mut sum = 0.0;
        let seconds = best(|| norm::sum_of_squares(ctx, &x).map(|s| sum += s))?;
        print(&format!("sum_of_squares {dtype}"), seconds, x.len(), dtype, 1);
    }
    Ok(())
}
