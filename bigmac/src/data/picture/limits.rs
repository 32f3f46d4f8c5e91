//! What a picture may take.

use super::super::error::PictureProblem;
use crate::config::Data;

/// What a picture may take to decode, checked against its header before it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureLimits {
    /// Most pixels.
    pub pixels: u64,
    /// Most bytes of memory.
    pub bytes: u64,
}

impl PictureLimits {
    /// Those of a configuration.
    pub fn of(data: &Data) -> Self {
        PictureLimits { pixels: data.max_pixels, bytes: data.prefetch.0 }
    }

    pub(in crate::data) fn check_bytes(&self, needed: u64) -> Result<(), PictureProblem> {
        if needed <= self.bytes {
            return Ok(());
        }
        let (needed, most) = (needed.div_ceil(1 << 20), self.bytes >> 20);
        Err(PictureProblem(format!(
            "takes {needed} MiB of memory to decode, and data.prefetch is {most} MiB; make the picture smaller, or raise the key"
        )))
    }
}

/// The pixels above which Pillow warns of a decompression bomb, twice, and 512 MiB.
impl Default for PictureLimits {
    fn default() -> Self {
        PictureLimits { pixels: 178_956_970, bytes: 512 << 20 }
    }
}
