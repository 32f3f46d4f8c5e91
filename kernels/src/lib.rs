//! The operators of BigMac: one folder each, with checks, CPU code, backward and shape inference.

mod numeric;
mod operator;
mod product;

pub mod add;
pub mod check;
pub mod linear;
pub mod view;

pub use add::Add;
pub use linear::Linear;
pub use numeric::{Float, Real};
pub use operator::{
    Backward, Forwarded, Inferred, InputGrads, Need, Operator, OutputSpec, Saved, SavedSpec, WeightGrad,
    expect_count, expect_float,
};
pub use view::{Narrow, Permute, Reshape};
