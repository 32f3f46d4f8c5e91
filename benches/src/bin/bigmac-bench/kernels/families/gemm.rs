//! Bare products, by every kernel that takes them.

use super::super::case::{Case, Ready, Subject, Variant};
use super::super::compare::{Values, values};
use super::super::data::Noise;
use super::Family;
use anyhow::Context as _;
use bigmac_kernels::product::cuda::{Batch, Epilogue, Factor, Output, Problem, multiply, variants};
use bigmac_runtime::{Context, DType, Error, Tensor};
use serde_json::json;

pub(super) const FAMILY: Family = Family {
    name: "gemm",
    dims: &["m", "n", "k"],
    real: &[
        ("square", &[8192, 8192, 8192]),
        ("square", &[4096, 4096, 4096]),
        ("square", &[1024, 1024, 1024]),
        ("Qwen3-1.7B gate, up", &[8192, 6144, 2048]),
        ("Qwen3-8B gate, up", &[8192, 12_288, 4096]),
        ("Qwen3-8B down", &[8192, 4096, 12_288]),
        ("SigLIP so400m fc1", &[11_664, 4304, 1152]),
        ("MMDiT 20B mlp", &[4608, 12_288, 3072]),
        ("decoding", &[8, 12_288, 4096]),
    ],
    small: &[&[5, 40, 24], &[130, 136, 72]],
    cases,
};

/// How factors lie in memory: `t` is transposed there. `nt` is a layer's forward, `nn` its gradient of the input, and
/// `tn`, whose product is in F32, that of the weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Nt,
    Nn,
    Tn,
}

impl Layout {
    fn name(self) -> &'static str {
        match self {
            Layout::Nt => "nt",
            Layout::Nn => "nn",
            Layout::Tn => "tn",
        }
    }
}

fn cases(extents: &[usize], dtype: DType) -> anyhow::Result<Vec<Case>> {
    let &[m, n, k] = extents else { return Ok(Vec::new()) };
    let case = |layout: Layout| {
        let subject = Product { extents: [m, n, k], layout, dtype };
        let flops = 2.0 * (m * n) as f64 * k as f64;
        let peer = Some(json!({ "layout": layout.name() }));
        Case { peer, ..Case::new("gemm", layout.name(), dtype, subject).flops(flops) }
    };
    Ok([Layout::Nt, Layout::Nn, Layout::Tn].map(case).into())
}

struct Product {
    extents: [usize; 3],
    layout: Layout,
    dtype: DType,
}

/// Factors and product.
struct Set {
    a: Tensor,
    b: Tensor,
    c: Tensor,
}

struct ProductReady<'a> {
    subject: &'a Product,
    ctx: &'a Context,
    sets: Vec<Set>,
}

impl Product {
    fn set(&self, ctx: &Context, noise: &Noise) -> anyhow::Result<Set> {
        let [m, n, k] = self.extents;
        let shape = |transposed, rows, cols| if transposed { [cols, rows] } else { [rows, cols] };
        let factor = (k as f32).sqrt().recip();
        let out = if self.layout == Layout::Tn { DType::F32 } else { self.dtype };
        Ok(Set {
            a: noise.tensor(ctx, &shape(self.layout == Layout::Tn, m, k), self.dtype, 1.0)?,
            b: noise.tensor(ctx, &shape(self.layout == Layout::Nt, k, n), self.dtype, factor)?,
            c: Tensor::zeros(ctx, &[m, n], out)?,
        })
    }

    fn bytes(&self) -> f64 {
        let [m, n, k] = self.extents;
        let out = if self.layout == Layout::Tn { 2 * DType::F32.size() } else { self.dtype.size() };
        ((m + n) * k * self.dtype.size() + m * n * out) as f64
    }

    fn factors<'t>(&self, a: &'t Tensor, b: &'t Tensor) -> [Factor<'t>; 2] {
        let [m, n, k] = self.extents;
        let factor = |tensor, transposed, rows, cols| {
            if transposed {
                Factor::new(tensor, cols, rows).transposed()
            } else {
                Factor::new(tensor, rows, cols)
            }
        };
        [factor(a, self.layout == Layout::Tn, m, k), factor(b, self.layout == Layout::Nt, k, n)]
    }
}

impl Subject for Product {
    fn variants(&self, ctx: &Context) -> Vec<Variant> {
        // What a kernel takes depends on addresses and dtypes, so it is asked about a product of one element.
        let taken = || -> bigmac_runtime::Result<Vec<Variant>> {
            let [m, n, k] = self.extents;
            let a = Tensor::empty(ctx, &[m, k], self.dtype)?;
            let b = Tensor::empty(ctx, &[k, n], self.dtype)?;
            let mut c = Tensor::empty(ctx, &[m, n], self.dtype)?;
            let [a, b] = self.factors(&a, &b);
            let problem =
                Problem::new("gemm", a, b, Output::new(&mut c, n), Epilogue::default(), Batch::ONE)?;
            let variants = variants().iter().filter(|v| v.takes(ctx, &problem));
            Ok(variants.map(|v| Variant { number: v.number, name: v.name.to_owned() }).collect())
        };
        // Where that fails, so does preparing, which says why.
        taken().unwrap_or_default()
    }

    fn prepare<'a>(&'a self, ctx: &'a Context, noise: &'a Noise) -> anyhow::Result<Box<dyn Ready + 'a>> {
        let sets = (0..noise.sets(self.bytes())).map(|_| self.set(ctx, noise));
        Ok(Box::new(ProductReady { subject: self, ctx, sets: sets.collect::<anyhow::Result<_>>()? }))
    }
}

impl ProductReady<'_> {
    fn multiply(&mut self, number: Option<u32>, set: usize, accumulate: bool) -> anyhow::Result<()> {
        let set = self.sets.get_mut(set).context("no such set of buffers")?;
        let [a, b] = self.subject.factors(&set.a, &set.b);
        let epilogue = Epilogue { accumulate, ..Epilogue::default() };
        let out = Output::new(&mut set.c, self.subject.extents[1]);
        let Some(number) = number else {
            return Ok(multiply(self.ctx, "gemm", a, b, out, epilogue, Batch::ONE)?);
        };
        let variant = variants().iter().find(|v| v.number == number);
        let variant =
            variant.ok_or_else(|| Error::Argument { op: "gemm", message: format!("no variant {number}") })?;
        Ok(Problem::new("gemm", a, b, out, epilogue, Batch::ONE)?.run_with(self.ctx, variant, 1)?)
    }

    /// Rows and columns of the product whose crossings are compared, first and last ones among them.
    fn sampled(&self) -> [Vec<usize>; 2] {
        const LINES: usize = 24;
        let [m, n, _] = self.subject.extents;
        [m, n].map(|extent| {
            let count = extent.min(LINES);
            (0..count).map(|i| if count == 1 { 0 } else { i * (extent - 1) / (count - 1) }).collect()
        })
    }

    /// Those lines of a matrix along dimension `dim`, each by itself: nothing else is downloaded.
    fn lines(&self, matrix: &Tensor, dim: usize, numbers: &[usize]) -> anyhow::Result<Vec<Vec<f32>>> {
        let line = |&number: &usize| values(self.ctx, &matrix.narrow(dim, number, 1)?);
        numbers.iter().map(line).collect()
    }
}

impl Ready for ProductReady<'_> {
    fn reference(&mut self, _cpu: &Context) -> anyhow::Result<Values> {
        let layout = self.subject.layout;
        let set = self.sets.first().context("no buffers")?;
        let [rows, columns] = self.sampled();
        let rows = self.lines(&set.a, usize::from(layout == Layout::Tn), &rows)?;
        let columns = self.lines(&set.b, usize::from(layout != Layout::Nt), &columns)?;
        let dot = |row: &[f32], column: &[f32]| {
            row.iter().zip(column).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
        };
        let elements = rows.iter().flat_map(|row| columns.iter().map(|column| dot(row, column))).collect();
        Ok(vec![("c, in sampled rows and columns,".into(), elements)])
    }

    fn check(&mut self, variant: Option<u32>) -> anyhow::Result<Values> {
        self.multiply(variant, 0, false)?;
        let set = self.sets.first().context("no buffers")?;
        let [rows, columns] = self.sampled();
        let rows = self.lines(&set.c, 0, &rows)?;
        let elements = rows.iter().flat_map(|row| columns.iter().map(|&column| row[column])).collect();
        Ok(vec![("c, in sampled rows and columns,".into(), elements)])
    }

    fn run(&mut self, variant: Option<u32>, set: usize) -> anyhow::Result<()> {
        self.multiply(variant, set, self.subject.layout == Layout::Tn)
    }

    fn sets(&self) -> usize {
        self.sets.len()
    }

    fn bytes(&self) -> f64 {
        self.subject.bytes()
    }
}
