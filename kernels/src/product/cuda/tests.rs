//! Kernels on the replay against f64, with everything that can be asked of them.

mod choice;
mod hopper;

use super::*;
use crate::check::{float_tensor, gpus, random, to_f64};
use bigmac_close::{absolute, assert_close, is_close};
use bigmac_runtime::{DType, Error};

/// A product to be checked.
#[derive(Clone, Debug)]
struct Case {
    extents: [usize; 3],
    transposed: [bool; 2],
    dtype: DType,
    out: DType,
    /// Elements between the end of a line and the next, for a, b and c; and before the first.
    gap: usize,
    count: usize,
    /// All products of the batch have one b.
    one_b: bool,
    variant: Option<u32>,
    splits: usize,
    alpha: f32,
    bias: bool,
    residual: bool,
    accumulate: bool,
    activation: Activation,
}

impl Case {
    fn new(m: usize, n: usize, k: usize) -> Self {
        Case {
            extents: [m, n, k],
            transposed: [false, true],
            dtype: DType::BF16,
            out: DType::F32,
            gap: 0,
            count: 1,
            one_b: false,
            variant: None,
            splits: 1,
            alpha: 1.0,
            bias: false,
            residual: false,
            accumulate: false,
            activation: Activation::None,
        }
    }

    fn variant(self, number: u32) -> Self {
        Case { variant: Some(number), ..self }
    }

    fn stored(self, a: bool, b: bool) -> Self {
        Case { transposed: [a, b], ..self }
    }

    fn gap(self, gap: usize) -> Self {
        Case { gap, ..self }
    }

    /// Lengths of a line of a, b and c, and elements from each matrix to the next.
    fn layout(&self) -> ([usize; 3], [usize; 3]) {
        let [m, n, k] = self.extents;
        let columns = self.activation.columns(n);
        let [a, b] = self.transposed;
        let lines = [if a { k } else { m }, if b { n } else { k }, m];
        let leading = [if a { m } else { k }, if b { k } else { n }, columns].map(|len| len + self.gap);
        (leading, std::array::from_fn(|i| lines[i] * leading[i]))
    }

    /// Values that are exact in the case's dtypes: a, b, c as it was, the bias and the residual.
    fn values(&self) -> [Vec<f64>; 5] {
        let [m, n, _] = self.extents;
        let (_, strides) = self.layout();
        let columns = self.activation.columns(n);
        let lens = [
            self.gap + strides[0] * self.count,
            self.gap + strides[1] * if self.one_b { 1 } else { self.count },
            self.gap + strides[2] * self.count,
            n,
            self.count * m * columns,
        ];
        let rounded = |i: usize| {
            let keep = |v: f64| {
                if self.dtype == DType::BF16 { half::bf16::from_f64(v).to_f64() } else { f64::from(v as f32) }
            };
            random(&[lens[i]], i as u32).into_iter().map(keep).collect()
        };
        std::array::from_fn(rounded)
    }

    /// c as it should be, with how far each element may be off.
    fn wanted(&self, values: &[Vec<f64>; 5]) -> Vec<(f64, f64)> {
        let [a, b, c, bias, residual] = values;
        let [m, n, k] = self.extents;
        let (leading, strides) = self.layout();
        let columns = self.activation.columns(n);
        let at = |which: usize, i: usize, j: usize| {
            if self.transposed[which] { j * leading[which] + i } else { i * leading[which] + j }
        };
        // Elements that belong to no product stay.
        let mut wanted: Vec<(f64, f64)> = c.iter().map(|&c| (c, 0.0)).collect();
        for z in 0..self.count {
            let (a, b) = (
                &a[self.gap + z * strides[0]..],
                &b[self.gap + if self.one_b { 0 } else { z * strides[1] }..],
            );
            let before = |i: usize, j: usize| {
                let terms = (0..k).map(|l| a[at(0, i, l)] * b[at(1, l, j)]);
                let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + f64::abs(t)));
                let bias = if self.bias { bias[j] } else { 0.0 };
                (f64::from(self.alpha) * sum + bias, size + bias.abs())
            };
            for i in 0..m {
                for j in 0..columns {
                    let (mut value, mut size) = match self.activation {
                        Activation::SiluGate => {
                            let ((gate, x), (up, y)) = (before(i, 2 * j), before(i, 2 * j + 1));
                            (gate / (1.0 + (-gate).exp()) * up, x * (1.0 + up.abs()) + y * (1.0 + gate.abs()))
                        }
                        other => {
                            let (x, size) = before(i, j);
                            (gelu(other, x), size)
                        }
                    };
                    let place = self.gap + z * strides[2] + i * leading[2] + j;
                    for (added, by) in [
                        (self.residual, residual.get((z * m + i) * columns + j)),
                        (self.accumulate, c.get(place)),
                    ] {
                        let by = by.copied().filter(|_| added).unwrap_or(0.0);
                        (value, size) = (value + by, size + by.abs());
                    }
                    let rounding = if self.out == DType::BF16 { value.abs() / 256.0 * 1.001 } else { 0.0 };
                    wanted[place] = (value, rounding + 4e-7 * size + 1e-30);
                }
            }
        }
        wanted
    }

    /// What the kernels make of it, on that device.
    fn given(&self, ctx: &Context, values: &[Vec<f64>; 5]) -> Result<Vec<f64>> {
        let [m, n, k] = self.extents;
        let (leading, strides) = self.layout();
        let tensor = |i: usize, dtype| float_tensor(ctx, &values[i], &[values[i].len()], dtype);
        let (a, b) = (tensor(0, self.dtype)?, tensor(1, self.dtype)?);
        let (mut c, bias, residual) = (tensor(2, self.out)?, tensor(3, self.dtype)?, tensor(4, self.out)?);
        let factor = |tensor, rows, cols, i: usize| Factor {
            tensor,
            offset: self.gap,
            rows,
            cols,
            leading: leading[i],
            transposed: self.transposed[i],
        };
        let (a, b) = (factor(&a, m, k, 0), factor(&b, k, n, 1));
        let out = Output { tensor: &mut c, offset: self.gap, leading: leading[2] };
        let epilogue = Epilogue {
            alpha: self.alpha,
            bias: self.bias.then_some(&bias),
            activation: self.activation,
            residual: self.residual.then_some(&residual),
            accumulate: self.accumulate,
        };
        let batch = Batch {
            count: self.count,
            a: strides[0],
            b: if self.one_b { 0 } else { strides[1] },
            c: strides[2],
        };
        match self.variant {
            None => multiply(ctx, "test", a, b, out, epilogue, batch)?,
            Some(number) => {
                Problem::new("test", a, b, out, epilogue, batch)?.run_with(
                    ctx,
                    numbered(number),
                    self.splits,
                )?;
            }
        }
        to_f64(ctx, &c)
    }

    /// Checks the result in every order of threads, and returns it.
    fn check(&self) -> Vec<f64> {
        let values = self.values();
        let wanted = self.wanted(&values);
        let mut first: Option<Vec<f64>> = None;
        for gpu in gpus().unwrap() {
            let ctx = Context::on_gpu(0, 1, gpu).unwrap();
            let given = self.given(&ctx, &values).unwrap_or_else(|e| panic!("{self:?}: {e}"));
            for (i, (given, (wanted, allowed))) in given.iter().zip(&wanted).enumerate() {
                assert!(
                    is_close(*given, *wanted, absolute(*allowed)),
                    "{self:?}: element {i} is {given}, wanted {wanted} to {allowed:.1e}"
                );
            }
            match &first {
                Some(first) => assert!(first == &given, "{self:?}: other bits in another order"),
                None => first = Some(given),
            }
        }
        first.unwrap_or_default()
    }
}

fn gelu(activation: Activation, x: f64) -> f64 {
    use crate::Real;
    match activation {
        Activation::GeluTanh => {
            x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
        Activation::GeluExact => x * x.normal().0,
        _ => x,
    }
}

fn numbered(number: u32) -> &'static Variant {
    variants().iter().find(|v| v.number == number).unwrap()
}

const STORED: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

fn of_family(family: Family) -> impl Iterator<Item = &'static Variant> {
    variants().iter().filter(move |v| v.family == family)
}

#[test]
fn every_tile_is_right_at_its_edges() {
    for (i, variant) in of_family(Family::Mma).chain(of_family(Family::Ffma)).enumerate() {
        let [m, n, k] = variant.tile;
        let (a, b) = STORED[i % 4];
        let dtype = if variant.family == Family::Mma { DType::BF16 } else { DType::F32 };
        for (m, n, k) in [(m, n, k), (m + 8, n + 8, 2 * k + 8), (m - 8, n - 8, 5 * k - 8)] {
            let case = Case::new(m, n, k).stored(a, b).variant(variant.number);
            Case { dtype, ..case }.check();
        }
    }
}

#[test]
fn every_storage_is_read_aligned_and_unaligned() {
    for (a, b) in STORED {
        for (number, dtype) in [(6, DType::BF16), (8, DType::BF16), (42, DType::F32)] {
            let case = Case { dtype, count: 2, ..Case::new(72, 136, 88).stored(a, b).variant(number) };
            case.clone().gap(8).check();
            for (m, n, k) in [(65, 63, 67), (1, 1, 1), (63, 129, 31), (7, 3, 129)] {
                Case { extents: [m, n, k], ..case.clone() }.gap(1).check();
            }
        }
    }
}

#[test]
fn extents_that_end_inside_a_chunk_of_aligned_lines() {
    for (a, b) in STORED {
        for (number, dtype, gap) in [(6, DType::BF16, 3), (42, DType::F32, 3)] {
            // Lines of 13 + 3 and 29 + 3 elements start at multiples of 16 bytes.
            let case = Case { dtype, ..Case::new(13, 29, 13).stored(a, b).variant(number) };
            let mut ragged = case.gap(gap);
            ragged.extents = [13, 13, 29];
            ragged.check();
            ragged.extents = [29, 61, 13];
            ragged.check();
        }
    }
}

#[test]
fn few_rows_are_right() {
    for dtype in [DType::BF16, DType::F32] {
        for (m, n, k) in [(1, 1, 1), (1, 37, 1032), (2, 5, 24), (3, 8, 2050), (5, 21, 600), (8, 12, 264)] {
            let case = Case { dtype, count: 2, ..Case::new(m, n, k).variant(60) };
            case.clone().gap(if k % 8 == 0 { 8 } else { 1 }).check();
            Case { bias: true, residual: true, accumulate: true, ..case }.check();
        }
    }
    let gated =
        Case { activation: Activation::SiluGate, bias: true, out: DType::BF16, ..Case::new(3, 22, 40) };
    gated.variant(60).check();
}

#[test]
fn every_epilogue_is_right() {
    let all = [Activation::None, Activation::GeluTanh, Activation::GeluExact, Activation::SiluGate];
    for activation in all {
        for (number, dtype, out) in
            [(6, DType::BF16, DType::BF16), (6, DType::BF16, DType::F32), (42, DType::F32, DType::F32)]
        {
            for (i, (n, gap)) in [(64, 8), (70, 1), (18, 0)].into_iter().enumerate() {
                let case =
                    Case { dtype, out, activation, alpha: 0.25, gap, ..Case::new(67, n, 40).variant(number) };
                let accumulate = out == DType::F32 && i != 1;
                let case = Case { bias: i != 2, residual: i != 0, accumulate, count: 2, ..case };
                case.check();
                // The same after a split sum.
                Case { splits: 3, extents: [9, n, 200], ..case }.check();
            }
        }
    }
}

#[test]
fn split_sums_and_tiles_give_the_bits_that_the_problem_says() {
    for (dtype, family) in
        [(DType::BF16, Family::Mma), (DType::BF16, Family::Hopper), (DType::F32, Family::Ffma)]
    {
        let case = Case { dtype, bias: true, ..Case::new(40, 72, 456) };
        for splits in [1, 2, 3, 100] {
            let mut bits: Vec<Vec<f64>> = of_family(family)
                .map(|v| Case { splits, ..case.clone() }.variant(v.number).check())
                .collect();
            bits.dedup();
            assert_eq!(bits.len(), 1, "{dtype} in {splits} parts");
        }
    }
}

#[test]
fn a_batch_shares_a_factor_and_weaves_its_products() {
    for dtype in [DType::BF16, DType::F32] {
        Case { dtype, count: 3, one_b: true, ..Case::new(33, 17, 48) }.check();
        Case { dtype, count: 3, one_b: true, ..Case::new(4, 17, 48).stored(true, false) }.check();
    }
    // Two heads side by side in the rows of c, each with its own matrices.
    let (m, n, k) = (5, 6, 7);
    let values = [random(&[2, m, k], 0), random(&[2, k, n], 1)];
    for gpu in gpus().unwrap() {
        let ctx = Context::on_gpu(0, 1, gpu).unwrap();
        let [a, b] = [0, 1].map(|i| float_tensor(&ctx, &values[i], &[values[i].len()], DType::F32).unwrap());
        let mut c = Tensor::zeros(&ctx, &[m, 2 * n], DType::F32).unwrap();
        let batch = Batch { count: 2, a: m * k, b: k * n, c: n };
        let (a, b, out) = (Factor::new(&a, m, k), Factor::new(&b, k, n), Output::new(&mut c, 2 * n));
        multiply(&ctx, "test", a, b, out, Epilogue::default(), batch).unwrap();
        for (i, given) in to_f64(&ctx, &c).unwrap().into_iter().enumerate() {
            let (row, head, column) = (i / (2 * n), i / n % 2, i % n);
            let terms =
                (0..k).map(|l| values[0][(head * m + row) * k + l] * values[1][(head * k + l) * n + column]);
            assert_close(given, terms.sum::<f64>(), absolute(1e-5));
        }
    }
}

#[test]
fn nothing_is_a_product_too() {
    for dtype in [DType::BF16, DType::F32] {
        let case = Case { dtype, bias: true, count: 2, ..Case::new(3, 5, 0) };
        case.check();
        Case { accumulate: true, ..case.clone() }.stored(true, false).check();
        for extents in [[0, 5, 4], [3, 0, 4], [0, 0, 0]] {
            Case { extents, ..case.clone() }.check();
        }
        Case { count: 0, ..case }.check();
    }
}

#[test]
fn what_does_not_fit_is_told() {
    let Some(gpu) = gpus().unwrap().first() else { return };
    let ctx = Context::on_gpu(0, 1, gpu).unwrap();
    let tensor = |len: usize, dtype| Tensor::zeros(&ctx, &[len], dtype).unwrap();
    let (a, b) = (tensor(12, DType::BF16), tensor(20, DType::BF16));
    let run = |a: Factor<'_>, b: Factor<'_>, c: DType, epilogue: Epilogue<'_>, batch: Batch| {
        let mut c = tensor(15, c);
        multiply(&ctx, "test", a, b, Output::new(&mut c, 5), epilogue, batch)
    };
    let (x, y, plain) = (Factor::new(&a, 3, 4), Factor::new(&b, 4, 5), Epilogue::default());
    run(x, y, DType::BF16, plain, Batch::ONE).unwrap();
    run(x, y, DType::F32, Epilogue { accumulate: true, ..plain }, Batch::ONE).unwrap();
    let shape = |r: Result<()>| assert!(matches!(r, Err(Error::Shape { op: "test", .. })), "{r:?}");
    let dtype = |r: Result<()>| assert!(matches!(r, Err(Error::DType { op: "test", .. })), "{r:?}");
    shape(run(x.transposed(), y, DType::BF16, plain, Batch::ONE));
    shape(run(x.at(1), y, DType::BF16, plain, Batch::ONE));
    shape(run(x.leading(5), y, DType::BF16, plain, Batch::ONE));
    shape(run(x, y.leading(6), DType::BF16, plain, Batch::ONE));
    shape(run(x, y, DType::BF16, plain, Batch { count: 2, a: 0, b: 0, c: 15 }));
    shape(run(x, y, DType::BF16, plain, Batch { count: 2, a: 1, b: 0, c: 0 }));
    shape(run(x, y, DType::BF16, Epilogue { activation: Activation::SiluGate, ..plain }, Batch::ONE));
    shape(run(x, y, DType::BF16, Epilogue { bias: Some(&b), ..plain }, Batch::ONE));
    shape(run(x, y, DType::BF16, Epilogue { residual: Some(&b), ..plain }, Batch::ONE));
    dtype(run(x, y, DType::BF16, Epilogue { accumulate: true, ..plain }, Batch::ONE));
    let wide = tensor(20, DType::F32);
    dtype(run(x, Factor::new(&wide, 4, 5), DType::F32, plain, Batch::ONE));
    dtype(run(x, y, DType::BF16, Epilogue { bias: Some(&wide), ..plain }, Batch::ONE));
    let mut c = tensor(15, DType::BF16);
    let out = Output::new(&mut c, 5);
    let problem = Problem::new("test", x, y, out, plain, Batch::ONE).unwrap();
    let error = problem.run_with(&ctx, numbered(42), 1).unwrap_err();
    assert!(error.to_string().contains("ffma 64x64x8"), "{error}");
    let overlapping = Output { leading: 4, ..Output::new(&mut c, 5) };
    shape(multiply(&ctx, "test", x, y, overlapping, plain, Batch::ONE));
}

#[test]
fn numbers_name_one_kernel_each() {
    let mut numbers: Vec<u32> = variants().iter().map(|v| v.number).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), variants().len());
    assert!(numbers.is_sorted());
    // What an A100 and a Hopper give a block at most.
    let most = |v: &Variant| if v.family == Family::Hopper { 227 << 10 } else { 163 << 10 };
    assert!(variants().iter().all(|v| v.shared * v.resident <= most(v)));
}
