//! Copies of strided views on a device.

use crate::error::{Error, Result};
use crate::layout::Layout;
use bigmac_gpu::{Arg, Gpu, Launch, Source, Variants};
use smallvec::SmallVec;

static SOURCE: Source = Source::new("copy.cu", include_str!("copy.cu"));

/// The runtime's own kernel, in every way in which it is compiled.
pub fn variants() -> Variants {
    let units = [1, 2, 4, 8, 16].map(|bytes| [("UNIT", bytes)]);
    units.into_iter().fold(Variants::new(&SOURCE).elements(&[]), Variants::with)
}

/// Dimensions that the kernel takes.
const RANK: usize = 5;
const THREADS: usize = 256;

/// Copies the elements of `size` bytes that `layout` describes, counted from the storage's beginning at address `from`,
/// to a contiguous tensor at address `to`.
pub(crate) fn copy_strided(gpu: &Gpu, layout: &Layout, size: usize, from: u64, to: u64) -> Result<()> {
    if layout.is_empty() {
        return Ok(());
    }
    let from = from + (layout.offset() * size) as u64;
    let bytes = layout.len() * size;
    let mut dims = merged(layout);
    if dims.iter().all(|&(_, stride)| stride == 1) && dims.len() <= 1 {
        return gpu.driver().copy(to, from, bytes).map_err(|e| gpu.error("copy", e).into());
    }
    let unit = widen(&mut dims, size, from);
    if dims.len() > RANK {
        let message =
            format!("expected a strided view of at most {RANK} separate dimensions, got {}", dims.len());
        return Err(Error::argument("copy", message));
    }
    let count = bytes / unit;
    let missing = RANK - dims.len();
    let all: SmallVec<[(usize, usize); RANK]> = std::iter::repeat_n((1, 0), missing).chain(dims).collect();
    let launch = Launch::new(&SOURCE, "copy_strided")
        .knob("UNIT", unit as i64)
        .grid([count.div_ceil(THREADS), 1, 1])
        .block(THREADS);
    let mut args = vec![Arg::Pointer(from), Arg::Pointer(to), Arg::i64(count)?];
    for &(extent, _) in &all[1..] {
        args.push(Arg::u32(extent)?);
    }
    for &(_, stride) in &all {
        args.push(Arg::i64(stride)?);
    }
    Ok(gpu.launch(&launch, &args)?)
}

/// Extents and strides without extents of 1, neighbours merged where one runs on into the other.
fn merged(layout: &Layout) -> SmallVec<[(usize, usize); RANK]> {
    let mut dims: SmallVec<[(usize, usize); RANK]> = SmallVec::new();
    for (&extent, &stride) in layout.shape().iter().zip(layout.strides()).filter(|(e, _)| **e != 1) {
        match dims.last_mut() {
            Some((outer, step)) if *step == stride * extent => {
                *outer *= extent;
                *step = stride;
            }
            _ => dims.push((extent, stride)),
        }
    }
    dims
}

/// Makes units of as many bytes as the innermost run, every stride and the address allow; returns their size.
fn widen(dims: &mut [(usize, usize)], size: usize, from: u64) -> usize {
    let mut unit = size;
    let Some((&mut (ref mut run, 1), outer)) = dims.split_last_mut() else { return unit };
    while unit < 16
        && run.is_multiple_of(2)
        && outer.iter().all(|(_, stride)| stride.is_multiple_of(2))
        && from.is_multiple_of(2 * unit as u64)
    {
        unit *= 2;
        *run /= 2;
        for (_, stride) in &mut *outer {
            *stride /= 2;
        }
    }
    unit
}
