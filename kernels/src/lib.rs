//! The operators of BigMac: one folder each, with checks, CPU code, backward and shape inference.

mod column_sums;
mod elementwise;
mod elementwise_cuda;
mod elementwise_operator;
mod numeric;
mod operator;
mod rows;
mod softmax;
mod tiling;

pub mod ada_layer_norm;
pub mod adamw;
pub mod add;
pub mod add_weight;
pub mod attention;
pub mod cast;
pub mod check;
pub mod concat;
pub mod embedding;
pub mod fill;
pub mod finite;
pub mod gated_add;
pub mod gather_rows;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod linear_cross_entropy;
pub mod matmul;
pub mod mean_squared_error;
pub mod mul;
pub mod noise;
pub mod norm;
pub mod patchify;
pub mod product;
pub mod programs;
pub mod replace_rows;
pub mod rms_norm;
pub mod rope;
pub mod scale;
pub mod silu;
pub mod sum;
pub mod swiglu;
pub mod view;

pub use ada_layer_norm::AdaLayerNorm;
pub use adamw::AdamW;
pub use add::Add;
pub use add_weight::AddWeight;
pub use attention::{Attention, TiledAttention};
pub use cast::Cast;
pub use concat::Concat;
pub use embedding::Embedding;
pub use gated_add::GatedAdd;
pub use gather_rows::GatherRows;
pub use gelu::Gelu;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use linear_cross_entropy::LinearCrossEntropy;
pub use matmul::MatMul;
pub use mean_squared_error::MeanSquaredError;
pub use mul::Mul;
pub use numeric::{Float, Real};
pub use operator::{
    Backward, Call, Flops, Forwarded, Inferred, InputGrads, Need, Operator, OutputSpec, Saved, SavedSpec,
    WeightGrad, WeightGrads, carried_shape, expect_counts, expect_float, in_turn,
};
pub use patchify::{Patchify, unpatchify};
pub use replace_rows::ReplaceRows;
pub use rms_norm::RmsNorm;
pub use rope::{Rope, RopeCache, rope_tables};
pub use scale::Scale;
pub use silu::Silu;
pub use sum::Sum;
pub use swiglu::SwiGlu;
pub use view::{Narrow, Permute, Reshape};
