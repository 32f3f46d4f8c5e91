//! Launches of maps (`elementwise.cuh`) on a GPU.

use bigmac_gpu::{Launch, Source, Variants};
use bigmac_runtime::{DType, Result};

/// Threads to a block: with a few of them on an SM, blocks that start and end leave none of its time unused.
pub(crate) const THREADS: usize = 256;
/// Packs of 16 bytes that a thread has under way per input; `elementwise.cuh` says why.
const PACKS: usize = 2;
/// Every map's knobs.
const KNOBS: [(&str, i64); 2] = [("PACKS", PACKS as i64), ("THREADS", THREADS as i64)];

/// The source of an operator that is a map: `file` with the headers that maps are written with.
pub(crate) const fn source(file: &'static str, text: &'static str) -> Source {
    Source {
        file,
        text,
        includes: &[
            ("activation.cuh", include_str!("activation.cuh")),
            ("elementwise.cuh", include_str!("elementwise.cuh")),
            ("index.cuh", include_str!("index.cuh")),
            ("segments.cuh", include_str!("segments.cuh")),
        ],
    }
}

/// A launch of `kernel`, a map over `n` elements of `dtype`.
///
/// # Errors
/// [`bigmac_runtime::Error::DType`] in the name of `op` unless `dtype` is F32 or BF16.
pub(crate) fn over(
    op: &'static str,
    source: &'static Source,
    kernel: &'static str,
    dtype: DType,
    n: usize,
) -> Result<Launch> {
    let tile = THREADS * PACKS * (16 / dtype.size());
    let launch = Launch::new(source, kernel).element(dtype.in_kernels(op)?);
    let launch = KNOBS.into_iter().fold(launch, |launch, (name, value)| launch.knob(name, value));
    Ok(launch.grid([n.div_ceil(tile), 1, 1]).block(THREADS))
}

/// The programs that launches of [`over`] ask for, with each of some values of one more knob.
pub(crate) fn variants(source: &'static Source, knob: Option<(&'static str, &[i64])>) -> Variants {
    let all = Variants::new(source);
    match knob {
        None => all.with(KNOBS),
        Some((name, values)) => {
            values.iter().fold(all, |all, &value| all.with([KNOBS[0], KNOBS[1], (name, value)]))
        }
    }
}
