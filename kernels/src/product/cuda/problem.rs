//! A product whose parts have been found to fit each other.

use super::{Batch, Epilogue, Factor, Output, Variant, launch, variants};
use bigmac_gpu::Arg;
use bigmac_runtime::{Context, DType, Error, Result, Tensor};

/// Extents that kernels take: tiles may reach past the last element without a 32-bit index overflowing.
const LARGEST: usize = i32::MAX as usize - 4096;

/// A checked product `c = epilogue(a b)`.
#[derive(Debug)]
pub struct Problem<'a> {
    /// In whose name errors are told.
    pub op: &'static str,
    /// m x k.
    pub a: Factor<'a>,
    /// k x n.
    pub b: Factor<'a>,
    /// Where it goes.
    pub out: Output<'a>,
    /// What happens on the way.
    pub epilogue: Epilogue<'a>,
    /// How often.
    pub batch: Batch,
    /// Rows of the product.
    pub m: usize,
    /// Columns of the product; those of c are [`Activation::columns`](super::Activation::columns) of it.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
}

impl<'a> Problem<'a> {
    /// Checks that the parts fit.
    ///
    /// # Errors
    /// As [`multiply`](super::multiply).
    pub fn new(
        op: &'static str,
        a: Factor<'a>,
        b: Factor<'a>,
        out: Output<'a>,
        epilogue: Epilogue<'a>,
        batch: Batch,
    ) -> Result<Self> {
        let problem = Problem { op, m: a.rows, n: b.cols, k: a.cols, a, b, out, epilogue, batch };
        problem.check_dtypes()?;
        problem.check_extents()?;
        Ok(problem)
    }

    /// Computes it by the given kernel, with the sum over k split in at most `splits` parts.
    ///
    /// # Errors
    /// As [`multiply`](super::multiply); [`Error::Argument`] when that kernel does not take such a problem.
    pub fn run_with(mut self, ctx: &Context, variant: &Variant, splits: usize) -> Result<()> {
        variants::check(ctx, variant, &self)?;
        if self.is_empty() { Ok(()) } else { launch::launch(ctx, variant, splits, &mut self) }
    }

    /// True when c has no elements.
    pub fn is_empty(&self) -> bool {
        self.m == 0 || self.n == 0 || self.batch.count == 0
    }

    /// Dtype of both factors.
    pub fn dtype(&self) -> DType {
        self.a.tensor.dtype()
    }

    /// Columns of c.
    pub fn columns(&self) -> usize {
        self.epilogue.activation.columns(self.n)
    }

    /// True when every line of both factors starts at a multiple of 16 bytes.
    ///
    /// # Errors
    /// As [`Tensor::arg`].
    pub fn is_aligned(&self) -> Result<bool> {
        let aligned = |factor: &Factor<'_>, stride: usize| -> Result<bool> {
            let bytes = factor.tensor.dtype().size();
            let lines = if factor.transposed { factor.cols } else { factor.rows };
            let Arg::Pointer(address) = factor.tensor.arg_at(factor.offset)? else { return Ok(false) };
            let strides = [(factor.leading, lines), (stride, self.batch.count)];
            Ok(address.is_multiple_of(16)
                && strides.iter().all(|&(stride, count)| count <= 1 || (stride * bytes).is_multiple_of(16)))
        };
        Ok(aligned(&self.a, self.batch.a)? && aligned(&self.b, self.batch.b)?)
    }

    fn check_dtypes(&self) -> Result<()> {
        let expect = |given: DType, wanted: &[DType], what: &str| {
            if wanted.contains(&given) {
                return Ok(());
            }
            let names: Vec<String> = wanted.iter().map(DType::to_string).collect();
            Err(Error::DType { op: self.op, given, wanted: format!("{} for {what}", names.join(" or ")) })
        };
        let dtype = self.dtype();
        expect(dtype, &[DType::F32, DType::BF16], "the factors of a product on a GPU")?;
        expect(self.b.tensor.dtype(), &[dtype], "the second factor")?;
        let out = self.out.tensor.dtype();
        expect(out, &[dtype, DType::F32], "the product")?;
        if self.epilogue.accumulate {
            expect(out, &[DType::F32], "a product that is added to")?;
        }
        if let Some(bias) = self.epilogue.bias {
            expect(bias.dtype(), &[dtype], "the bias")?;
        }
        if let Some(residual) = self.epilogue.residual {
            expect(residual.dtype(), &[out], "the residual")?;
        }
        Ok(())
    }

    fn check_extents(&self) -> Result<()> {
        let Problem { op, m, n, k, batch, .. } = *self;
        if self.b.rows != k {
            return Err(Error::shape(op, ([m, k], [self.b.rows, n]), format!("a second factor of {k} rows")));
        }
        if let Some(&large) = [m, n, k].iter().find(|&&extent| extent > LARGEST) {
            return Err(Error::shape(op, large, format!("extents up to {LARGEST}")));
        }
        let gated = self.epilogue.activation == super::Activation::SiluGate;
        if gated && !n.is_multiple_of(2) {
            return Err(Error::shape(
                op,
                [m, n],
                "an even number of columns, gates and what they let through",
            ));
        }
        for (what, factor, stride) in [("first", &self.a, batch.a), ("second", &self.b, batch.b)] {
            let (rows, cols) = (factor.rows, factor.cols);
            let lines = if factor.transposed { (cols, rows) } else { (rows, cols) };
            let needed = reach(factor.offset, lines, factor.leading, (batch.count, stride));
            self.check_reach(&format!("the {what} factor"), factor.tensor, needed)?;
        }
        let columns = self.columns();
        let needed = reach(self.out.offset, (m, columns), self.out.leading, (batch.count, batch.c));
        self.check_reach("the product", self.out.tensor, needed)?;
        // Either matrices follow each other, or their rows are woven into one another.
        let leading = self.out.leading;
        let matrix = m.saturating_sub(1) * leading + columns;
        let woven = batch.count.saturating_sub(1) * batch.c + columns;
        let apart = (m <= 1 || leading >= columns) && (batch.count <= 1 || batch.c >= matrix)
            || leading >= woven && batch.c >= columns;
        if !apart && !self.is_empty() {
            let given = format!("rows {leading} and products {} elements apart", batch.c);
            return Err(Error::shape(op, given, format!("{columns} columns that do not overlap")));
        }
        let whole = |what: &str, tensor: Option<&Tensor>, len: usize| match tensor {
            Some(tensor) if !tensor.is_contiguous() || tensor.len() != len => {
                Err(Error::shape(op, tensor.shape(), format!("a contiguous {what} of {len} elements")))
            }
            _ => Ok(()),
        };
        whole("bias", self.epilogue.bias, n)?;
        whole("residual", self.epilogue.residual, batch.count * m * columns)
    }

    fn check_reach(&self, what: &str, tensor: &Tensor, needed: usize) -> Result<()> {
        let lengths = tensor.shape().iter().zip(tensor.strides());
        let span = if tensor.is_empty() {
            0
        } else {
            1 + lengths.map(|(n, stride)| (n - 1) * stride).sum::<usize>()
        };
        if needed <= span {
            return Ok(());
        }
        Err(Error::shape(self.op, tensor.shape(), format!("{needed} elements for {what}, not {span}")))
    }
}

/// Elements from a view's first to the last that `count` matrices of `lines` lines of `length` elements touch; 0 for
/// none.
fn reach(
    offset: usize,
    (lines, length): (usize, usize),
    leading: usize,
    (count, stride): (usize, usize),
) -> usize {
    if lines == 0 || length == 0 || count == 0 {
        return 0;
    }
    offset + (count - 1) * stride + (lines - 1) * leading + length
}
