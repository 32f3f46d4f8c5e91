//! Descriptors for the tensor memory accelerator.

/// The opaque descriptor that kernels take by value: 128 bytes, aligned to 64.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct TensorMap(pub [u64; 16]);

/// How tiles lie in shared memory: their rows of so many bytes are permuted against bank conflicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swizzle {
    /// As they are.
    None,
    /// In rows of 32 bytes.
    Bytes32,
    /// In rows of 64 bytes.
    Bytes64,
    /// In rows of 128 bytes.
    Bytes128,
}

/// A tensor of bf16 or f32 elements, and the tiles it is copied in. Dimension 0 is the one whose elements are neighbours.
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
