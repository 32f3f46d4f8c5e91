//! Matrix products on a GPU: bf16 by tensor cores, fp32 by fused multiply-adds.
//!
//! [`multiply`] picks a kernel by the problem's shape; [`Problem::run_with`] takes one of [`variants`]. Sums are kept
//! in fp32 and rounded once. How a sum over k is split depends on the problem alone, never on the device or on the
//! tile, and all kernels of a family add in the same order: which bits come out depends on the problem and the
//! family. Hopper has a family of its own, whose tensor cores add in theirs.

mod facts;
mod finish;
mod form;
mod hopper;
mod launch;
mod problem;
mod programs;
#[cfg(test)]
mod tests;
mod variant;
mod variants;
mod views;

pub use problem::Problem;
pub(crate) use programs::programs;
pub use variant::{Family, Variant};
pub use variants::variants;
pub use views::{with_matrices, with_rows};

use crate::operator::WeightGrad;
use bigmac_runtime::{Context, Result, Tensor};

/// One factor op(A) of a product, as it lies in a tensor: element (i, j) at `offset + i * leading + j`, or at `offset +
/// j * leading + i` when `transposed`.
#[derive(Clone, Copy, Debug)]
pub struct Factor<'a> {
    /// Where the elements lie, F32 or BF16.
    pub tensor: &'a Tensor,
    /// Elements from the view's first one to (0, 0).
    pub offset: usize,
    /// Rows of op(A), that is after the transposition.
    pub rows: usize,
    /// Columns of op(A).
    pub cols: usize,
    /// Elements from one line in memory, a row or with `transposed` a column of op(A), to the next.
    pub leading: usize,
    /// The lines in memory are columns of op(A).
    pub transposed: bool,
}

impl<'a> Factor<'a> {
    /// `rows` x `cols` elements from the tensor's first on, row-major without gaps.
    pub fn new(tensor: &'a Tensor, rows: usize, cols: usize) -> Self {
        Factor { tensor, offset: 0, rows, cols, leading: cols, transposed: false }
    }

    /// The transposed factor, in the same place.
    pub fn transposed(self) -> Self {
        Factor { rows: self.cols, cols: self.rows, transposed: !self.transposed, ..self }
    }

    /// The same, from element `offset` of the view on.
    pub fn at(self, offset: usize) -> Self {
        Factor { offset, ..self }
    }

    /// The same, with `leading` elements from line to line.
    pub fn leading(self, leading: usize) -> Self {
        Factor { leading, ..self }
    }
}

/// Where a product goes: element (i, j) at `offset + i * leading + j`, of the factors' dtype or F32.
#[derive(Debug)]
pub struct Output<'a> {
    /// Contiguous, in a storage of its own; elements between the rows are left as they are.
    pub tensor: &'a mut Tensor,
    /// Elements from the view's first one to (0, 0).
    pub offset: usize,
    /// Elements from one row to the next.
    pub leading: usize,
}

impl<'a> Output<'a> {
    /// Rows of `cols` columns from the tensor's first element on.
    pub fn new(tensor: &'a mut Tensor, cols: usize) -> Self {
        Output { tensor, offset: 0, leading: cols }
    }

    /// The range of a gradient buffer that belongs to a weight of `cols` columns. Whether to add is for
    /// [`Epilogue::accumulate`].
    pub fn gradient(grad: &'a mut WeightGrad<'_>, cols: usize) -> Self {
        Output { offset: grad.range.start, tensor: grad.buffer, leading: cols }
    }
}

/// What is done to each element of a product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// GELU by tanh, as [`Gelu`](crate::gelu::Gelu) with `tanh`.
    GeluTanh,
    /// GELU by the error function, as [`Gelu`](crate::gelu::Gelu) without.
    GeluExact,
    /// Columns 2j and 2j + 1 of the product are a gate and what it lets through: `c[i, j] = silu(p[i, 2j]) p[i, 2j +
    /// 1]`, so c has half as many columns. Interleaved, since both then lie in one thread's registers.
    SiluGate,
}

impl Activation {
    /// Columns of c for `n` columns of the product.
    pub fn columns(self, n: usize) -> usize {
        if self == Activation::SiluGate { n / 2 } else { n }
    }

    /// As the kernels number them.
    fn number(self) -> i64 {
        match self {
            Activation::None => 0,
            Activation::GeluTanh => 1,
            Activation::GeluExact => 2,
            Activation::SiluGate => 3,
        }
    }
}

/// What happens to the sums on their way to memory: `c = act(alpha * a b + bias) + residual (+ c)`, in fp32, rounded
/// once.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// Factor of the product.
    pub alpha: f32,
    /// `[n]`, one per column of the product, of the factors' dtype, contiguous.
    pub bias: Option<&'a Tensor>,
    /// What follows.
    pub activation: Activation,
    /// Added after the activation: `[count, m, columns of c]` without gaps, of c's dtype, contiguous.
    pub residual: Option<&'a Tensor>,
    /// Adds to what c holds, which has to be F32, instead of writing it.
    pub accumulate: bool,
}

impl Default for Epilogue<'_> {
    /// The product itself.
    fn default() -> Self {
        Epilogue { alpha: 1.0, bias: None, activation: Activation::None, residual: None, accumulate: false }
    }
}

/// Products of the same extents that have nothing to do with each other: elements from each matrix to the next.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// How many products.
    pub count: usize,
    /// Elements between two a; 0 when all share one.
    pub a: usize,
    /// Elements between two b.
    pub b: usize,
    /// Elements between two c.
    pub c: usize,
}

impl Batch {
    /// One product.
    pub const ONE: Batch = Batch { count: 1, a: 0, b: 0, c: 0 };
}

/// `c = epilogue(a b)`, for every product of the batch.
///
/// With k = 0 the product is 0; with m, n or the batch's count 0 nothing happens. A rule names the kernel.
///
/// # Errors
/// In the name of `op`: [`Error::Shape`](bigmac_runtime::Error::Shape) for factors that do not fit each other or their
/// tensors, [`Error::DType`](bigmac_runtime::Error::DType) for other dtypes than said above, those of allocating
/// workspace and of launching.
pub fn multiply(
    ctx: &Context,
    op: &'static str,
    a: Factor<'_>,
    b: Factor<'_>,
    out: Output<'_>,
    epilogue: Epilogue<'_>,
    batch: Batch,
) -> Result<()> {
    let mut problem = Problem::new(op, a, b, out, epilogue, batch)?;
    if problem.is_empty() {
        return Ok(());
    }
    let splits = variants::splits(&problem);
    let variant = variants::choose(ctx, &problem, splits)?;
    launch::launch(ctx, variant, splits, &mut problem)
}
