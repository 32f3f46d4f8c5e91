//! Every kernel that multiplies matrices, at sizes that its tiles do not divide, against products in f64.

use crate::bench::{Bench, Faults, Outcome, close};
use crate::cases::Case;
use anyhow::ensure;
use bigmac_kernels::{
    Operator,
    check::{float_tensor, to_f64},
    matmul::MatMul,
    product::cuda::{Batch, Epilogue, Factor, Family, Output, Problem, Variant, variants as all},
};
use bigmac_runtime::{DType, Tensor};

/// m, n and k: not a multiple of any tile, lines of odd lengths, few rows, a long sum.
const REAL: [[usize; 3]; 4] = [[1000, 1032, 520], [257, 131, 1031], [8, 1040, 2048], [200, 136, 9000]];
const SMALL: [[usize; 3]; 2] = [[33, 72, 40], [8, 35, 50]];

/// Which factors are transposed in memory.
const LAYOUTS: [[bool; 2]; 3] = [[false, true], [false, false], [true, false]];

/// A product's factors, and what is wanted.
struct Example {
    extents: [usize; 3],
    layout: [bool; 2],
    a: Tensor,
    b: Tensor,
    wanted: Vec<f64>,
}

impl Example {
    fn new(bench: &Bench, extents: [usize; 3], layout: [bool; 2], dtype: DType) -> anyhow::Result<Example> {
        let [m, n, k] = extents;
        let shape = |transposed, rows, cols| if transposed { [cols, rows] } else { [rows, cols] };
        let a = bench.normal(&shape(layout[0], m, k), 1, dtype)?;
        let b = bench.normal(&shape(layout[1], k, n), 2, dtype)?;
        let exact = |t: &Tensor| -> anyhow::Result<Tensor> {
            Ok(float_tensor(&bench.cpu, &to_f64(&bench.ctx, t)?, t.shape(), DType::F64)?)
        };
        let product = MatMul { transpose_a: layout[0], transpose_b: layout[1] };
        let wanted = to_f64(&bench.cpu, &product.compute(&bench.cpu, &[&exact(&a)?, &exact(&b)?], &[])?)?;
        Ok(Example { extents, layout, a, b, wanted })
    }

    fn factors(&self) -> [Factor<'_>; 2] {
        let [m, n, k] = self.extents;
        let factor = |tensor, transposed, rows, cols| {
            if transposed {
                Factor::new(tensor, cols, rows).transposed()
            } else {
                Factor::new(tensor, rows, cols)
            }
        };
        [factor(&self.a, self.layout[0], m, k), factor(&self.b, self.layout[1], k, n)]
    }

    fn takes(&self, bench: &Bench, variant: &Variant) -> anyhow::Result<bool> {
        let [m, n, _] = self.extents;
        let mut c = Tensor::empty(&bench.ctx, &[m, n], self.a.dtype())?;
        let ([a, b], out) = (self.factors(), Output::new(&mut c, n));
        let problem = Problem::new("gpu-tests", a, b, out, Epilogue::default(), Batch::ONE)?;
        Ok(variant.takes(&bench.ctx, &problem))
    }

    /// A product by `variant`, twice: what is wrong with it.
    fn compare(&self, bench: &Bench, variant: &Variant, splits: usize, name: &str) -> anyhow::Result<()> {
        let given = self.multiply(bench, variant, splits)?;
        // Factors are exact in both, and so are products: what is left are sums in fp32, which tensor cores truncate.
        close(name, &given, &self.wanted, 2e-5)?;
        let again = self.multiply(bench, variant, splits)?;
        ensure!(given == again, "{name}: two runs give different bits");
        Ok(())
    }

    fn multiply(&self, bench: &Bench, variant: &Variant, splits: usize) -> anyhow::Result<Vec<f64>> {
        let [m, n, _] = self.extents;
        let mut c = Tensor::zeros(&bench.ctx, &[m, n], DType::F32)?;
        let ([a, b], out) = (self.factors(), Output::new(&mut c, n));
        let problem = Problem::new("gpu-tests", a, b, out, Epilogue::default(), Batch::ONE)?;
        problem.run_with(&bench.ctx, variant, splits)?;
        Ok(to_f64(&bench.ctx, &c)?)
    }
}

/// A case for the kernels that run on any GPU, and one for each of Hopper's: those without clusters first.
pub fn cases() -> Vec<Case> {
    let mut hopper: Vec<&'static Variant> = all().iter().filter(|v| v.family == Family::Hopper).collect();
    let cluster =
        |variant: &Variant| variant.knobs.iter().find(|(name, _)| *name == "CLUSTER").map_or(1, |k| k.1);
    hopper.sort_by_key(|v| (cluster(v), v.tile[0] * v.tile[1]));
    let anywhere = || all().iter().filter(|v| v.family != Family::Hopper).collect::<Vec<_>>();
    let mut cases = vec![Case::new("product-anywhere", move |bench| check(bench, &anywhere()))];
    cases.extend(hopper.into_iter().map(|variant| {
        Case::new(format!("product-{}", variant.number), move |bench| check(bench, &[variant]))
    }));
    cases
}

/// Each of the variants on every product that it takes, with sums whole and split, twice.
///
/// # Errors
/// Every product that is wrong, up to a number that can be read.
fn check(bench: &Bench, variants: &[&Variant]) -> anyhow::Result<Outcome> {
    let sizes: &[[usize; 3]] = if bench.small { &SMALL } else { &REAL };
    let mut counts = vec![0; variants.len()];
    let mut faults = Faults::default();
    for dtype in [DType::BF16, DType::F32] {
        for (&extents, layout) in sizes.iter().flat_map(|e| LAYOUTS.map(|layout| (e, layout))) {
            let mut example = None;
            for (variant, count) in variants.iter().zip(&mut counts) {
                if (variant.family == Family::Hopper) && dtype != DType::BF16 {
                    continue;
                }
                let example = match &mut example {
                    Some(example) => example,
                    none => none.insert(Example::new(bench, extents, layout, dtype)?),
                };
                if !example.takes(bench, variant)? {
                    continue;
                }
                for splits in [1, 3] {
                    let name = format!("{} ({dtype}, {extents:?}, {layout:?}, {splits} parts)", variant.name);
                    faults.take(example.compare(bench, variant, splits, &name))?;
                    *count += 1;
                }
            }
        }
    }
    faults.end()?;
    let untried: Vec<&str> =
        variants.iter().zip(&counts).filter(|(_, c)| **c == 0).map(|(v, _)| v.name).collect();
    let count = counts.iter().sum::<usize>();
    let on_hopper = bench.gpu.driver().target() == "sm_90a";
    if on_hopper && !untried.is_empty() {
        anyhow::bail!("no product was one for {}; add a size that is", untried.join(", "));
    }
    if count == 0 {
        return Ok(Outcome::Skipped(format!("not for this device: {}", untried.join(", "))));
    }
    let note = if untried.is_empty() {
        String::new()
    } else {
        format!("; not for this device: {}", untried.join(", "))
    };
    Ok(Outcome::Passed(format!("{count} products by {} kernels{note}", variants.len() - untried.len())))
}
