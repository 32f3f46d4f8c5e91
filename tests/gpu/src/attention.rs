//! Every variant of the attention kernels, on packed sequences that no tile divides, against the CPU.

use crate::bench::{Bench, Outcome, close};
use anyhow::ensure;
use bigmac_kernels::attention::{Form, TiledAttention, variants as all};
use bigmac_kernels::check::{float_tensor, to_f64};
use bigmac_kernels::{Attention, Backward, Need, Operator};
use bigmac_runtime::{Context, DType, Tensor};

/// Head sizes: of small models, odd ones, SigLIP so400m's, and the common ones.
const REAL: [usize; 6] = [16, 40, 64, 72, 128, 160];
const SMALL: [usize; 2] = [20, 64];

/// Output, then gradients of q, k and v.
type Results = Vec<(&'static str, Vec<f64>)>;

/// Forward and backward on these values.
fn run(ctx: &Context, operator: &dyn Operator, inputs: &[Tensor], dy: &Tensor) -> anyhow::Result<Results> {
    let need = Need { inputs: &[true; 3], weights: &[] };
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let forwarded = operator.forward(ctx, &inputs, &[], need)?;
    let grads = [Some(dy.clone())];
    let backward = Backward { saved: &forwarded.saved, weights: &[], grads: &grads, need };
    let gradients = operator.backward_input(ctx, &backward)?;
    let mut results = Vec::new();
    for y in &forwarded.outputs {
        results.push(("output", to_f64(ctx, y)?));
    }
    for (name, gradient) in ["dq", "dk", "dv"].into_iter().zip(gradients.iter().flatten()) {
        results.push((name, to_f64(ctx, gradient)?));
    }
    ensure!(results.len() == 4, "wanted an output and three gradients, got {}", results.len());
    Ok(results)
}

/// Every variant for every head size, causal and not, twice.
///
/// # Errors
/// The first result that is wrong.
pub fn variants(bench: &Bench) -> anyhow::Result<Outcome> {
    let (sizes, lengths): (&[usize], &[usize]) =
        if bench.small { (&SMALL, &[19, 0, 1, 37]) } else { (&REAL, &[700, 0, 1, 129, 1030, 64]) };
    let bounds = |lengths: &[usize]| -> Vec<usize> {
        let ends = lengths.iter().scan(0, |end, n| {
            *end += n;
            Some(*end)
        });
        std::iter::once(0).chain(ends).collect()
    };
    let bounds = bounds(lengths);
    let tokens = lengths.iter().sum();
    let mut count = 0;
    for dtype in [DType::BF16, DType::F32] {
        for &dim in sizes {
            let (queries, keys) = ([tokens, 4, dim], [tokens, 2, dim]);
            let inputs = [
                bench.normal(&queries, 1, dtype)?,
                bench.normal(&keys, 2, dtype)?,
                bench.normal(&keys, 3, dtype)?,
            ];
            let dy = bench.normal(&queries, 4, dtype)?;
            let exact = |t: &Tensor| -> anyhow::Result<Tensor> {
                Ok(float_tensor(&bench.cpu, &to_f64(&bench.ctx, t)?, t.shape(), DType::F64)?)
            };
            let exactly = inputs.iter().map(exact).collect::<anyhow::Result<Vec<_>>>()?;
            for causal in [false, true] {
                let attention = Attention {
                    bounds_q: bounds.as_slice().into(),
                    bounds_k: bounds.as_slice().into(),
                    causal,
                    scale: (dim as f64).sqrt().recip(),
                };
                let wanted = run(&bench.cpu, &attention, &exactly, &exact(&dy)?)?;
                for (variant, name) in all(dtype, dim).iter().enumerate() {
                    let tiled = TiledAttention { attention: attention.clone(), variant };
                    // Warpgroups are Hopper's.
                    if matches!(name.forward, Form::Warpgroups(_)) && bench.gpu.driver().target() != "sm_90a"
                    {
                        continue;
                    }
                    let given = run(&bench.ctx, &tiled, &inputs, &dy)?;
                    let allowed = if dtype == DType::BF16 { 1e-2 } else { 2e-5 };
                    for ((part, given), (_, wanted)) in given.iter().zip(&wanted) {
                        close(
                            &format!("{part} ({dtype}, {dim}, causal {causal}, {name})"),
                            given,
                            wanted,
                            allowed,
                        )?;
                    }
                    let again = run(&bench.ctx, &tiled, &inputs, &dy)?;
                    ensure!(given == again, "{dtype}, {dim}, {name}: two runs give different bits");
                    count += 1;
                }
            }
        }
    }
    ensure!(count > 0, "there are no variants");
    Ok(Outcome::Passed(format!("{count} forwards and backwards")))
}
