//! Speed of the linear layer at the sizes that training uses, beside the `gemm` crate on the same shapes.
//!
//! `cargo run --release -p bigmac-kernels --example products [ROUNDS]`
//!
//! One thread, random data, all cases once a round, the best of the rounds: other load on the machine then costs rounds,
//! not truth. Each line gives GFLOP/s; `peak` is the `gemm` crate's own best on 1024 x 1024 x 1024.

use bigmac_kernels::check::{float_tensor, random};
use bigmac_kernels::{Backward, Linear, Need, Operator, WeightGrad};
use bigmac_runtime::{Context, DType, Result, Tensor};
use std::time::Instant;

/// One shape and what it is measured with.
struct Case {
    shape: [usize; 3],
    x: Tensor,
    w: Tensor,
    dy: [Option<Tensor>; 1],
    buffer: Tensor,
    y: Vec<f32>,
    best: [f64; 4],
}

const NEED: Need<'static> = Need { inputs: &[true], weights: &[true] };

impl Case {
    fn new(ctx: &Context, [rows, inner, out]: [usize; 3]) -> Result<Self> {
        let tensor = |shape: &[usize], stream| float_tensor(ctx, &random(shape, stream), shape, DType::F32);
        Ok(Case {
            shape: [rows, inner, out],
            x: tensor(&[rows, inner], 1)?,
            w: tensor(&[out, inner], 2)?,
            dy: [Some(tensor(&[rows, out], 3)?)],
            buffer: Tensor::zeros(ctx, &[out * inner], DType::F32)?,
            y: vec![0.0; rows * out],
            best: [0.0; 4],
        })
    }

    fn round(&mut self, ctx: &Context) -> Result<()> {
        let flops = 2.0 * self.shape.iter().product::<usize>() as f64;
        let repeats = ((2e8 / flops) as usize).clamp(1, 2000);
        let op = Linear { bias: false };
        let [rows, inner, out] = self.shape;
        let saved = [self.x.clone()];
        let weights = [&self.w];
        let backward = Backward { saved: &saved, weights: &weights, grads: &self.dy, need: NEED };
        for what in 0..4 {
            let start = Instant::now();
            for _ in 0..repeats {
                match what {
                    0 => drop(op.forward(ctx, &[&self.x], &weights, NEED)?),
                    1 => drop(op.backward_input(ctx, &backward)?),
                    2 => {
                        let range = 0..out * inner;
                        let grad = WeightGrad { buffer: &mut self.buffer, range, accumulate: true };
                        op.backward_weight(ctx, &backward, 0, grad)?;
                    }
                    _ => plain(self.x.as_slice()?, self.w.as_slice()?, &mut self.y, (rows, inner, out)),
                }
            }
            let rate = flops * repeats as f64 / start.elapsed().as_secs_f64() / 1e9;
            self.best[what] = self.best[what].max(rate);
        }
        Ok(())
    }
}

/// `y = x w^T` by the `gemm` crate.
fn plain(x: &[f32], w: &[f32], y: &mut [f32], (rows, inner, out): (usize, usize, usize)) {
    assert!(x.len() == rows * inner && w.len() == out * inner && y.len() == rows * out);
    let (k, n) = (inner as isize, out as isize);
    // SAFETY: the three slices hold matrices of these sizes and strides.
    unsafe {
        gemm::gemm(
            rows,
            out,
            inner,
            y.as_mut_ptr(),
            1,
            n,
            false,
            x.as_ptr(),
            1,
            k,
            w.as_ptr(),
            k,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).and_then(|r| r.parse().ok()).unwrap_or(5);
    let ctx = Context::cpu(0, 1)?;
    let mut shapes = vec![[1024, 1024, 1024]];
    for rows in [1, 4, 16, 104, 300, 700] {
        shapes.extend([[rows, 96, 96], [rows, 96, 384], [rows, 384, 96], [rows, 96, 256], [rows, 256, 96]]);
    }
    shapes.extend([[600, 96, 264], [512, 512, 2048], [2048, 768, 768]]);
    let mut cases = shapes.into_iter().map(|s| Case::new(&ctx, s)).collect::<Result<Vec<_>>>()?;
    for _ in 0..rounds {
        for case in &mut cases {
            case.round(&ctx)?;
        }
    }
    println!("{:>18} {:>8} {:>8} {:>8} {:>8}", "rows x in x out", "y", "dx", "dw", "y, gemm");
    for case in &cases {
        let [rows, inner, out] = case.shape;
        let rates: String = case.best.iter().map(|b| format!(" {b:8.1}")).collect();
        println!("{:>18}{rates}", format!("{rows} x {inner} x {out}"));
    }
    println!("peak {:.1}", cases[0].best[3]);
    Ok(())
}
