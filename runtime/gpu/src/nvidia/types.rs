//! Types and constants of `cuda.h`, as CUDA 12.0 and 13.0 have them.

use std::ffi::{c_int, c_uint, c_void};

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(transparent)]
        pub(super) struct $name(pub *mut c_void);

        impl $name {
            /// What a call that makes one writes over.
            pub const NULL: $name = $name(std::ptr::null_mut());
        }

        // SAFETY: the driver takes its handles from any thread, at the same time too.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}
    )*};
}

handles! {
    /// `CUcontext`.
    ContextHandle
    /// `CUstream`.
    StreamHandle
    /// `CUevent`.
    EventHandle
    /// `CUmemoryPool`.
    PoolHandle
    /// `CUmodule`.
    ModuleHandle
    /// `CUfunction`.
    FunctionHandle
}

/// `CUresult`.
pub(super) mod status {
    use std::ffi::c_int;

    pub const SUCCESS: c_int = 0;
    pub const OUT_OF_MEMORY: c_int = 2;
    pub const NO_DEVICE: c_int = 100;
    pub const INVALID_IMAGE: c_int = 200;
    pub const NO_BINARY_FOR_GPU: c_int = 209;
    pub const ECC_UNCORRECTABLE: c_int = 214;
    pub const OPERATING_SYSTEM: c_int = 304;
    pub const NOT_READY: c_int = 600;
    pub const ILLEGAL_ADDRESS: c_int = 700;
    pub const LAUNCH_TIMEOUT: c_int = 702;
    pub const ASSERT: c_int = 710;
    pub const HARDWARE_STACK_ERROR: c_int = 714;
    pub const LAUNCH_FAILED: c_int = 719;
    pub const NOT_PERMITTED: c_int = 800;
    pub const NOT_SUPPORTED: c_int = 801;
    pub const SYSTEM_DRIVER_MISMATCH: c_int = 803;

    /// After these nothing works in the context any more: memory was corrupted, or a kernel was stopped midway.
    pub fn loses_the_context(status: c_int) -> bool {
        matches!(status, ECC_UNCORRECTABLE | ILLEGAL_ADDRESS | LAUNCH_TIMEOUT | ASSERT)
            || (HARDWARE_STACK_ERROR..=LAUNCH_FAILED).contains(&status)
    }

    /// What a device answers that doesn't have what was asked for, or has a layer above it that refuses it.
    pub fn is_refusal(status: c_int) -> bool {
        matches!(status, OPERATING_SYSTEM | NOT_PERMITTED | NOT_SUPPORTED)
    }
}

/// `CUdevice_attribute`.
pub(super) mod attribute {
    use std::ffi::c_int;

    pub const PROCESSORS: c_int = 16;
    pub const CAPABILITY_MAJOR: c_int = 75;
    pub const CAPABILITY_MINOR: c_int = 76;
    pub const SHARED_PER_BLOCK: c_int = 97;
    pub const MEMORY_POOLS: c_int = 115;
}

/// `CUfunction_attribute`.
pub(super) mod function_attribute {
    use std::ffi::c_int;

    pub const MOST_THREADS: c_int = 0;
    pub const STATIC_SHARED: c_int = 1;
    pub const REGISTERS: c_int = 4;
    pub const MOST_DYNAMIC_SHARED: c_int = 8;
    pub const SHARED_CARVEOUT: c_int = 9;
    pub const NON_PORTABLE_CLUSTER: c_int = 14;
}

/// `CUmemPool_attribute`.
pub(super) mod pool_attribute {
    use std::ffi::c_int;

    pub const RELEASE_THRESHOLD: c_int = 4;
    pub const RESERVED: c_int = 5;
    pub const USED: c_int = 7;
}

/// `CU_STREAM_NON_BLOCKING`: no waiting for the default stream, which other libraries may use.
pub(super) const STREAM_NON_BLOCKING: c_uint = 1;
/// `CU_EVENT_DEFAULT`: with a time.
pub(super) const EVENT_TIMED: c_uint = 0;
/// `CU_EVENT_DISABLE_TIMING`.
pub(super) const EVENT_UNTIMED: c_uint = 2;
/// `CU_MEMHOSTALLOC_PORTABLE`: pinned for every context.
pub(super) const HOST_PORTABLE: c_uint = 1;

/// `CUmemPoolProps`. `maxSize` and `usage` of CUDA 13 lie in what CUDA 12.0 reserves, and mean the default when they are 0.
#[repr(C)]
pub(super) struct PoolProperties {
    pub allocation: c_int,
    pub handles: c_int,
    pub location: c_int,
    pub device: c_int,
    pub security: *mut c_void,
    pub reserved: [u8; 64],
}

impl PoolProperties {
    /// Memory of a device that no other process sees.
    pub fn on(device: c_int) -> Self {
        const PINNED: c_int = 1;
        const ON_DEVICE: c_int = 1;
        PoolProperties {
            allocation: PINNED,
            handles: 0,
            location: ON_DEVICE,
            device,
            security: std::ptr::null_mut(),
            reserved: [0; 64],
        }
    }
}

/// `CUlaunchConfig`.
#[repr(C)]
pub(super) struct LaunchConfig {
    pub grid: [c_uint; 3],
    pub block: [c_uint; 3],
    pub shared: c_uint,
    pub stream: StreamHandle,
    pub attributes: *const LaunchAttribute,
    pub attribute_count: c_uint,
}

/// `CUlaunchAttribute` with the value of a cluster's extents.
#[repr(C)]
pub(super) struct LaunchAttribute {
    id: c_int,
    padding: [u8; 4],
    cluster: [c_uint; 3],
    rest: [u8; 52],
}

impl LaunchAttribute {
    pub fn cluster(extents: [u32; 3]) -> Self {
        const CLUSTER_DIMENSION: c_int = 4;
        LaunchAttribute { id: CLUSTER_DIMENSION, padding: [0; 4], cluster: extents, rest: [0; 52] }
    }
}

/// `CUtensorMap`, with the alignment that CUDA 13 gives it.
#[repr(C, align(128))]
pub(super) struct EncodedMap(pub [u64; 16]);

/// Arguments of `cuTensorMapEncodeTiled`.
pub(super) mod tensor_map {
    use std::ffi::c_int;

    pub const FLOAT32: c_int = 7;
    pub const BFLOAT16: c_int = 9;
    pub const INTERLEAVE_NONE: c_int = 0;
    pub const SWIZZLE_NONE: c_int = 0;
    pub const SWIZZLE_32: c_int = 1;
    pub const SWIZZLE_64: c_int = 2;
    pub const SWIZZLE_128: c_int = 3;
    /// Tiles are whole lines of the L2 cache, and their neighbours are read soon.
    pub const L2_256: c_int = 3;
    /// Elements outside are zeros.
    pub const FILL_ZERO: c_int = 0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{align_of, offset_of, size_of};

    /// The numbers are what a C compiler says of the structures in `cuda.h` of CUDA 12.0 and 13.0, on 64-bit Linux.
    #[test]
    fn structures_lie_in_memory_as_the_driver_reads_them() {
        assert_eq!(size_of::<LaunchConfig>(), 56);
        assert_eq!(
            [
                offset_of!(LaunchConfig, grid),
                offset_of!(LaunchConfig, block),
                offset_of!(LaunchConfig, shared),
                offset_of!(LaunchConfig, stream),
                offset_of!(LaunchConfig, attributes),
                offset_of!(LaunchConfig, attribute_count),
            ],
            [0, 12, 24, 32, 40, 48]
        );
        assert_eq!(size_of::<LaunchAttribute>(), 72);
        assert_eq!([offset_of!(LaunchAttribute, id), offset_of!(LaunchAttribute, cluster)], [0, 8]);
        assert_eq!(size_of::<PoolProperties>(), 88);
        assert_eq!(
            [
                offset_of!(PoolProperties, allocation),
                offset_of!(PoolProperties, handles),
                offset_of!(PoolProperties, location),
                offset_of!(PoolProperties, device),
                offset_of!(PoolProperties, security),
            ],
            [0, 4, 8, 12, 16]
        );
        assert_eq!((size_of::<EncodedMap>(), align_of::<EncodedMap>()), (128, 128));
    }
}
