//! The operators of BigMac: one folder each, with checks, CPU code, backward and shape inference.

mod elementwise;
mod numeric;
mod operator;
mod product;
mod rows;

pub mod add;
pub mod attention;
pub mod check;
pub mod embedding;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod rms_norm;
pub mod rope;
pub mod silu;
pub mod swiglu;
pub mod view;

pub use add::Add;
pub use attention::Attention;
pub use embedding::Embedding;
pub use gelu::Gelu;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use numeric::{Float, Real};
pub use operator::{
    Backward, Forwarded, Inferred, InputGrads, Need, Operator, OutputSpec, Saved, SavedSpec, WeightGrad,
    expect_count, expect_float,
};
pub use rms_norm::RmsNorm;
pub use rope::{Rope, rope_tables};
pub use silu::Silu;
pub use swiglu::SwiGlu;
pub use view::{Narrow, Permute, Reshape};
