//! Every program that launches can ask for, so that all of them are compiled, and their registers and spills compared with what is
//! recorded, on machines without a GPU (`kernels/tests/resources.rs`).

use bigmac_runtime::gpu::{Variants, copy_variants};

/// The variants of every source, the runtime's own copy among them. An operator with a kernel adds a line here:
/// `crate::gelu::variants()`, where
/// ```text
/// pub(crate) fn variants() -> Variants {
///     Variants::new(&SOURCE).with([("TANH", false)]).with([("TANH", true)])
/// }
/// ```
/// Where knobs follow from shapes, [`Variants::launched`] takes those of a launch.
pub fn programs() -> Vec<Variants> {
    let mut programs = vec![copy_variants()];
    programs.extend(crate::product::cuda::programs());
    programs
}
