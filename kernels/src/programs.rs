//! Every program that launches can ask for, so that all of them are compiled, and their registers and spills compared with what is
//! recorded, on machines without a GPU (`kernels/tests/resources.rs`).

#[cfg(test)]
mod recorder;

#[cfg(test)]
pub(crate) use recorder::Recorder;

use crate::elementwise_cuda::variants;
use crate::gather_rows::cuda::segment_variants;
use crate::*;
use bigmac_gpu::{Source, Variants};
use bigmac_runtime::copy_variants;

/// Maps (`elementwise.cuh`) without knobs of their own.
static MAPS: [&Source; 11] = [
    &add::cuda::SOURCE,
    &add_weight::cuda::SOURCE,
    &concat::cuda::SOURCE,
    &fill::cuda::SOURCE,
    &mul::SOURCE,
    &patchify::cuda::SOURCE,
    &replace_rows::cuda::SOURCE,
    &scale::SOURCE,
    &silu::SOURCE,
    &swiglu::SOURCE,
    &view::cuda::SOURCE,
];

/// Losses, norms and sums: sources without knobs.
static SUMS: [&Source; 4] = [
    &linear_cross_entropy::cuda::SOURCE,
    &mean_squared_error::cuda::SOURCE,
    &norm::cuda::SOURCE,
    &sum::cuda::SOURCE,
];

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
    programs.extend(maps());
    programs.extend(SUMS.map(Variants::new));
    programs.push(adamw::cuda::variants());
    programs.push(finite::cuda::variants());
    programs.push(noise::cuda::variants());
    let rows = [
        crate::column_sums::cuda::variants(),
        crate::gated_add::cuda::variants(),
        crate::layer_norm::cuda::variants(),
        crate::rms_norm::cuda::variants(),
        crate::rope::cuda::variants(),
    ];
    programs.extend(rows.into_iter().flatten());
    programs.extend(crate::attention::programs());
    programs
}

/// The operators that are maps, and those that sum segments.
fn maps() -> Vec<Variants> {
    let mut all: Vec<Variants> = MAPS.iter().map(|source| variants(source, None)).collect();
    all.push(variants(&cast::cuda::SOURCE, None).elements(&["float"]));
    all.push(variants(&gather_rows::cuda::SOURCE, Some(("VEC", &[1]))));
    all.push(variants(&gelu::SOURCE, Some(("TANH", &[0, 1]))));
    all.extend(segment_variants(&embedding::cuda::SOURCE));
    all.extend(segment_variants(&gather_rows::cuda::SOURCE));
    all
}
