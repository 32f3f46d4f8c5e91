//! Descriptors for the tensor memory accelerator.

/// The opaque descriptor that kernels take by value: 128 bytes, aligned to 64.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct TensorMap(pub [u64; 16]);

/// How tiles lie in shared memory: their rows of so many bytes, `16 << swizzle`, are permuted against bank conflicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swizzle {
    /// As they are.
    None = 0,
    /// In rows of 32 bytes.
    Bytes32 = 1,
    /// In rows of 64 bytes.
    Bytes64 = 2,
    /// In rows of 128 bytes.
    Bytes128 = 3,
}

/// A tensor of bf16 or f32 elements, and the tiles it is copied in. Dimension 0 is the one whose elements are
/// neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMapShape {
    /// Bytes of an element: 2 (bf16) or 4 (f32).
    pub element: u32,
    /// Extents, 1 to 5.
    pub extents: Vec<u64>,
    /// Bytes from one index to the next of every dimension but the first: multiples of 16.
    pub strides: Vec<u64>,
    /// Extents of a tile, each at most 256.
    pub tile: Vec<u32>,
    /// How tiles lie in shared memory.
    pub swizzle: Swizzle,
}

impl TensorMapShape {
    /// Dimensions, at most.
    pub const MOST_DIMENSIONS: usize = 5;

    /// Whether the hardware can copy tiles of such a tensor at `address`.
    ///
    /// # Errors
    /// Says which rule is broken, what it expects and what it got. The rules are those of `cuTensorMapEncodeTiled`.
    pub fn check(&self, address: u64) -> Result<(), String> {
        const EXTENTS: std::ops::RangeInclusive<u64> = 1..=1 << 32;
        let rank = self.extents.len();
        let rule = |kept: bool, wanted: &str| {
            if kept { Ok(()) } else { Err(format!("expected {wanted}, got {self:?} at {address:#x}")) }
        };
        rule(matches!(self.element, 2 | 4), "elements of 2 or 4 bytes")?;
        rule((1..=Self::MOST_DIMENSIONS).contains(&rank), "1 to 5 dimensions")?;
        rule(self.strides.len() + 1 == rank, "a stride for every dimension but the first")?;
        rule(self.tile.len() == rank, "a tile extent for every dimension")?;
        rule(address.is_multiple_of(16), "an address that is a multiple of 16")?;
        rule(self.extents.iter().all(|extent| EXTENTS.contains(extent)), "extents of 1 to 2^32")?;
        rule(
            self.strides.iter().all(|stride| stride.is_multiple_of(16) && *stride < 1 << 40),
            "strides that are multiples of 16 bytes below 2^40",
        )?;
        rule(self.tile.iter().all(|extent| (1..=256).contains(extent)), "tile extents of 1 to 256")?;
        let row = self.tile[0] * self.element;
        rule(row.is_multiple_of(16), "rows of a tile of a multiple of 16 bytes")?;
        let fits = self.swizzle == Swizzle::None || row <= 16 << self.swizzle as u32;
        rule(fits, "rows of a tile no longer than what the swizzle permutes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_the_hardware_is_kept_to() {
        let good = TensorMapShape {
            element: 2,
            extents: vec![100, 7],
            strides: vec![208],
            tile: vec![64, 256],
            swizzle: Swizzle::Bytes128,
        };
        good.check(0x1000).unwrap();
        assert!(good.check(0x1008).unwrap_err().contains("address"));
        type Break = fn(&mut TensorMapShape);
        let broken: [(&str, Break); 10] = [
            ("elements of 2 or 4", |shape| shape.element = 8),
            ("1 to 5 dimensions", |shape| shape.extents.clear()),
            ("a stride for every", |shape| shape.strides.push(16)),
            ("a tile extent for every", |shape| shape.tile.push(1)),
            ("extents of 1", |shape| shape.extents[1] = 0),
            ("strides that are", |shape| shape.strides[0] = 200),
            ("below 2^40", |shape| shape.strides[0] = 1 << 40),
            ("tile extents", |shape| shape.tile[1] = 257),
            ("multiple of 16 bytes", |shape| shape.tile[0] = 4),
            ("no longer than", |shape| shape.tile[0] = 72),
        ];
        for (wanted, break_it) in broken {
            let mut shape = good.clone();
            break_it(&mut shape);
            let error = shape.check(0x1000).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
