// What Hopper (sm_90a) adds: barriers in shared memory that count arrivals and bytes, the tensor memory accelerator
// (TMA), matrix products of a warpgroup (wgmma) and clusters. Included after bigmac.cuh by the kernels that use it.
//
// HOPPER is 1 where these functions exist: on an sm_90a GPU, and in replay. Other GPUs compile such a kernel to
// nothing.
//
// How the pieces fit together, for a tile that comes in by TMA and goes into a wgmma:
// - the barrier is initialised by one thread, `fence_barrier_init` and a block (cluster) barrier make it known to all;
// - one thread says how many bytes will come (`mbarrier_expect`), starts the loads, and all threads wait with
//   `mbarrier_wait`;
// - `wgmma_fence`, the products, `wgmma_commit`; the accumulators belong to the tensor cores until `wgmma_wait` gives
//   them back;
// - whoever has read a stage arrives at a second barrier, for which the loading thread waits before it overwrites it.
//
// A phase is waited for by its parity: 0 for the first, 1 for the second, 0 for the third. Waiting for parity 1 of a
// fresh barrier returns at once.
#pragma once

#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER 1
#else
#define HOPPER 0
#endif

#if HOPPER

// ---- how tiles lie in shared memory ---------------------------------------------------------------------------------

/// Where byte `offset` of a tile with rows of 128 bytes lies in the 128-byte swizzle: the index of the 16-byte piece in
/// its row (bits 4 to 6) is xor-ed with the row (bits 7 to 9). Its inverse is itself. The tile starts at a multiple of
/// 1024. (PTX ISA, "Swizzling modes" of tensors; CUTLASS writes it Swizzle<3,4,3>.)
DEV u32 swizzle_128(u32 offset) { return offset ^ (offset >> 3 & 0x70); }

/// The descriptor by which wgmma finds an operand in shared memory, for the 128-byte swizzle (PTX ISA, "Matrix
/// descriptor" of wgmma): bits 0 to 13 the address, 16 to 29 the leading byte offset, 32 to 45 the stride byte offset,
/// each divided by 16, and 1 in bits 62 and 63 for the swizzle. What the two offsets mean:
/// - K-major (elements along k are neighbours): rows of 64 elements of k; `stride` is from 8 rows to the next 8;
///   `leading` is not used;
/// - MN-major (elements along m or n are neighbours): rows of 64 elements of m or n, one per k; `leading` is from 64
///   elements of m or n to the next 64, `stride` from 8 of k to the next 8.
DEV u64 matrix_descriptor_at(u32 address, u32 leading, u32 stride) {
    return u64((address & 0x3ffff) >> 4) | u64(leading >> 4) << 16 | u64(stride >> 4) << 32 | u64(1) << 62;
}
/// A descriptor moved on by `bytes`, a multiple of 16. Within a K-major row, 16 elements of k are 32 bytes.
DEV u64 descriptor_advance(u64 descriptor, u32 bytes) { return descriptor + (bytes >> 4); }

/// Row and column of accumulator `i` of a thread (0 to 127 in its warpgroup) of a 64 x N product; neighbours in pairs.
/// (PTX ISA, "Register fragments" of wgmma.m64nNk16, accumulator D.)
DEV u32 accumulator_row(u32 thread, u32 i) { return thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8; }
DEV u32 accumulator_column(u32 thread, u32 i) { return i / 4 * 8 + thread % 4 * 2 + i % 2; }

#ifdef __CUDACC__
#include "hopper_device.cuh"
#else
#include "hopper_replay.cuh"
#endif

/// The descriptor of an operand that starts at `tile`.
DEV u64 matrix_descriptor(const void* tile, u32 leading, u32 stride) { return matrix_descriptor_at(shared_address(tile), leading, stride); }

#endif  // HOPPER
