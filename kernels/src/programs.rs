//! Every program that launches can ask for, so that all of them are compiled, and their registers and spills compared
//! with what is recorded, on machines without a GPU (`kernels/tests/resources.rs`).

#[cfg(test)]
mod recorder;

#[cfg(test)]
pub(crate) use recorder::Recorder;

use bigmac_gpu::Variants;
use bigmac_runtime::copy_variants;

/// `programs` of each folder with kernels, as the build script found them.
static FOLDERS: &[fn() -> Vec<Variants>] = include!(concat!(env!("OUT_DIR"), "/programs.rs"));

/// The variants of every source, the runtime's own copy among them. A folder with kernels lists its own in `cuda.rs`:
/// ```text
/// pub(crate) fn programs() -> Vec<Variants> {
///     vec![Variants::new(&SOURCE).with([("TANH", false)]).with([("TANH", true)])]
/// }
/// ```
/// Where knobs follow from shapes, [`Variants::launched`] takes those of a launch.
pub fn programs() -> Vec<Variants> {
    std::iter::once(copy_variants()).chain(FOLDERS.iter().flat_map(|programs| programs())).collect()
}
