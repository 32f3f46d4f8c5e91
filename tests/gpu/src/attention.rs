//! Every variant of the attention kernels, on packed sequences that no tile divides, against the CPU.

use crate::bench::{Bench, Faults, Outcome};
use crate::cases::Case;
use anyhow::{anyhow, ensure};
use bigmac_gpu::{DriverError, GpuError};
use bigmac_kernels::{
    Backward, Call, Need, Operator,
    attention::{Attention, variants as all},
    check::{float_tensor, to_f64},
};
use bigmac_runtime::{Context, DType, Error, Tensor};

/// Head sizes beside 128 and 64: SigLIP so400m's, those of small models, sizes that fill no tile, and wide ones.
const REAL: [usize; 8] = [72, 96, 16, 32, 48, 40, 160, 256];
const SMALL: [usize; 3] = [16, 20, 72];

/// Output, then gradients of q, k and v.
type Results = Vec<(&'static str, Vec<f64>)>;

/// Forward and backward on these values.
fn run(ctx: &Context, operator: &dyn Operator, inputs: &[Tensor], dy: &Tensor) -> anyhow::Result<Results> {
    let need = Need { inputs: &[true; 3], weights: &[] };
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let (outputs, saved) = operator.record(ctx, &Call { inputs: &inputs, weights: &[], need })?;
    let grads = [Some(dy.clone())];
    let backward = Backward { saved: &saved, weights: &[], grads: &grads, need };
    let gradients = operator.backward_input(ctx, &backward)?;
    let mut results = Vec::new();
    for y in &outputs {
        results.push(("output", to_f64(ctx, y)?));
    }
    for (name, gradient) in ["dq", "dk", "dv"].into_iter().zip(gradients.iter().flatten()) {
        results.push((name, to_f64(ctx, gradient)?));
    }
    ensure!(results.len() == 4, "expected an output and three gradients, got {}", results.len());
    Ok(results)
}

/// The common head sizes, each on its own, and then the others.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("attention-128", |bench| check(bench, &[128])),
        Case::new("attention-64", |bench| check(bench, &[64])),
        Case::new("attention-heads", |bench| check(bench, if bench.small { &SMALL } else { &REAL })),
    ]
}

/// Where each of some packed sequences starts, and the end of the last.
fn bounds(lengths: &[usize]) -> Vec<usize> {
    let ends = lengths.iter().scan(0, |end, n| {
        *end += n;
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

/// Inputs under heads of one size, and what is wanted.
struct Example {
    attention: Attention,
    inputs: [Tensor; 3],
    dy: Tensor,
    wanted: Results,
}

impl Example {
    fn new(bench: &Bench, dim: usize, dtype: DType, causal: bool) -> anyhow::Result<Example> {
        let lengths: &[usize] = if bench.small { &[19, 0, 1, 37] } else { &[700, 0, 1, 129, 1030, 64] };
        let bounds = bounds(lengths);
        let tokens = lengths.iter().sum();
        let (queries, keys) = ([tokens, 4, dim], [tokens, 2, dim]);
        let [q, k, v, dy] = [
            bench.normal(&queries, 1, dtype)?,
            bench.normal(&keys, 2, dtype)?,
            bench.normal(&keys, 3, dtype)?,
            bench.normal(&queries, 4, dtype)?,
        ];
        let inputs = [q, k, v];
        let exact = |t: &Tensor| -> anyhow::Result<Tensor> {
            Ok(float_tensor(&bench.cpu, &to_f64(&bench.ctx, t)?, t.shape(), DType::F64)?)
        };
        let exactly = inputs.iter().map(exact).collect::<anyhow::Result<Vec<_>>>()?;
        let attention = Attention {
            bounds_q: bounds.as_slice().into(),
            bounds_k: bounds.as_slice().into(),
            causal,
            scale: (dim as f64).sqrt().recip(),
            variant: None,
        };
        let wanted = run(&bench.cpu, &attention, &exactly, &exact(&dy)?)?;
        Ok(Example { attention, inputs, dy, wanted })
    }

    /// Runs `operator` twice: all that is wrong with its results, in one line.
    fn compare(
        &self,
        bench: &Bench,
        operator: &dyn Operator,
        name: &str,
        faults: &mut Faults,
    ) -> anyhow::Result<()> {
        let given = match run(&bench.ctx, operator, &self.inputs, &self.dy) {
            Ok(given) => given,
            // The device is as it was.
            Err(error) if is_of_compiler(&error) => return faults.take(Err(anyhow!("{name}: {error:#}"))),
            Err(error) => return faults.take(Err(error.context(format!("{name} does not run")))),
        };
        let allowed = if self.dy.dtype() == DType::BF16 { 1e-2 } else { 2e-5 };
        let parts = given.iter().zip(&self.wanted);
        let wrong: Vec<String> = parts
            .filter_map(|((part, given), (_, wanted))| near(part, given, wanted, allowed).err())
            .map(|error| error.to_string())
            .collect();
        if !wrong.is_empty() {
            faults.take(Err(anyhow!("{name}: {}", wrong.join(" | "))))?;
        }
        let again = run(&bench.ctx, operator, &self.inputs, &self.dy)?;
        let same = given
            .iter()
            .zip(&again)
            .all(|((_, a), (_, b))| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()));
        faults.take(if same { Ok(()) } else { Err(anyhow!("{name}: two runs give different bits")) })
    }
}

fn is_of_compiler(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(Error::Gpu(GpuError::Driver { source: DriverError::Compile { .. }, .. }))
    )
}

/// Checks what [`close`](crate::bench::close) does: the norm of the error, and its largest element. Says both as
/// parts of what is wanted, as a tolerance that is a little too tight is not a wrong kernel.
fn near(name: &str, given: &[f64], wanted: &[f64], allowed: f64) -> anyhow::Result<()> {
    ensure!(given.len() == wanted.len(), "{name}: {} elements, expected {}", given.len(), wanted.len());
    let infinite = given.iter().filter(|g| !g.is_finite()).count();
    ensure!(infinite == 0, "{name}: {infinite} of {} elements are not finite", given.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let whole = norm(&mut wanted.iter().copied());
    let error = norm(&mut given.iter().zip(wanted).map(|(g, w)| g - w)) / whole.max(f64::MIN_POSITIVE);
    let usual = whole / (wanted.len().max(1) as f64).sqrt();
    let part = |at: usize| (given[at] - wanted[at]).abs() / (wanted[at].abs() + usual).max(f64::MIN_POSITIVE);
    let worst = (0..given.len()).max_by(|&a, &b| part(a).total_cmp(&part(b))).unwrap_or_default();
    let worst_error = if given.is_empty() { 0.0 } else { part(worst) };
    ensure!(
        error <= allowed && worst_error <= 8.0 * allowed,
        "{name}: error {error:.2e}, allowed {allowed:.1e}; worst element [{worst}] {worst_error:.2e}, allowed {:.1e}",
        8.0 * allowed
    );
    Ok(())
}

/// What the device chooses, and every variant that takes the inputs, for every head size, causal and not.
///
/// # Errors
/// Every result that is wrong, up to a number that can be read.
fn check(bench: &Bench, sizes: &[usize]) -> anyhow::Result<Outcome> {
    let (mut count, mut refused) = (0, Vec::new());
    let mut faults = Faults::default();
    let calls = sizes.iter().flat_map(|&dim| {
        [DType::BF16, DType::F32].into_iter().flat_map(move |dtype| [(dim, dtype, false), (dim, dtype, true)])
    });
    for (dim, dtype, causal) in calls {
        let example = Example::new(bench, dim, dtype, causal)?;
        let call = format!("{dtype}, {dim} columns, {}", if causal { "causal" } else { "not causal" });
        example.compare(bench, &example.attention, &format!("{call}, the device's choice"), &mut faults)?;
        count += 1;
        for (variant, of) in all(dtype, dim).iter().enumerate() {
            let name = format!("{call}, variant {variant} ({of})");
            if !of.takes(&bench.ctx, example.inputs.each_ref())? {
                refused.push(name);
                continue;
            }
            let tiled = Attention { variant: Some(variant), ..example.attention.clone() };
            example.compare(bench, &tiled, &name, &mut faults)?;
            count += 1;
        }
    }
    faults.end()?;
    let note = if refused.is_empty() {
        String::new()
    } else {
        format!("; not for this device: {}", refused.join("; "))
    };
    // All inputs are such that a Hopper takes them.
    ensure!(refused.is_empty() || bench.gpu.driver().target() != "sm_90a", "refused{note}");
    Ok(Outcome::Passed(format!("{count} forwards and backwards{note}")))
}
