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
pub mod noise;
pub mod norm;
pub mod patchify;
pub mod product;
pub mod programs;
pub mod reduce;
pub mod replace_rows;
pub mod rms_norm;
pub mod rope;
pub mod scale;
pub mod silu;
pub mod sum;
pub mod swiglu;
pub mod view;

pub use numeric::{Float, Real};
pub use operator::{
    Backward, Call, Flops, Forwarded, Inferred, InputGrads, Need, Operator, OutputSpec, Saved, SavedSpec,
    WeightGrad, WeightGrads, carried_shape, expect_counts, expect_float, in_turn,
};

/// What [`for_float`] names, so that a crate that uses it need not depend on the crates that these are from.
#[doc(hidden)]
pub mod types {
    pub use crate::operator::FLOATS;
    pub use bigmac_runtime::{DType, Error};
    pub use half::{bf16, f16};
}

/// What the guides have their readers write, as `build.rs` copied it: it compiles, and its tests pass.
#[cfg(test)]
mod guides {
    /// docs/add-an-operator.md.
    mod operator {
        include!(concat!(env!("OUT_DIR"), "/operator/0.rs"));
    }

    /// docs/add-a-kernel.md.
    mod kernel {
        include!(concat!(env!("OUT_DIR"), "/kernel/0.rs"));
    }

    /// Its launch of a kernel that is not a formula.
    #[expect(dead_code, reason = "it is shown, and compiled here")]
    mod fill {
        include!(concat!(env!("OUT_DIR"), "/kernel/3.rs"));
    }

    #[test]
    fn kernels_are_listed() {
        let sources = kernel::programs().into_iter().chain(fill::programs()).map(|of| of.source().file);
        assert!(sources.eq(["relu_squared/kernel.cu", "fill/kernel.cu"]));
    }

    /// Lines that are to be added beside those of another operator are such lines.
    #[test]
    fn lines_beside_others_are_like_them() {
        let like_silu =
            |block: &str| block.trim().replace("relu_squared", "silu").replace("ReluSquared", "Silu");
        let has = |text: &str, block: &str| text.lines().any(|line| line.trim() == like_silu(block));
        let lib = include_str!("lib.rs");
        assert!(
            has(lib, include_str!(concat!(env!("OUT_DIR"), "/operator/1.rs")))
                && has(lib, include_str!(concat!(env!("OUT_DIR"), "/kernel/1.rs")))
        );
        let lab = include_str!("../../benches/src/bin/bigmac-bench/kernels/families/elementwise.rs");
        assert!(has(lab, include_str!(concat!(env!("OUT_DIR"), "/kernel/2.rs"))));
    }
}
