#include "bigmac.cuh"

/// y[i] = factor * x[i] + SHIFT, through shared memory from the block's other end.
KERNEL void reversed(const T* x, T* y, i32 n, float factor) {
    SHARED T tile[64];
    const i32 i = i32(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) tile[threadIdx.x] = x[i];
    __syncthreads();
    const i32 from = blockDim.x - 1 - threadIdx.x;
    const i32 at = i32(blockIdx.x * blockDim.x) + from;
    if (at < n) y[at] = from_float<T>(to_float(tile[from]) * factor + SHIFT);
}

/// As `reversed`, without the barrier.
KERNEL void racing(const T* x, T* y, i32 n, float factor) {
    SHARED T tile[64];
    const i32 i = i32(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) tile[threadIdx.x] = x[i];
    const i32 from = blockDim.x - 1 - threadIdx.x;
    const i32 at = i32(blockIdx.x * blockDim.x) + from;
    if (at < n) y[at] = from_float<T>(to_float(tile[from]) * factor + SHIFT);
}

/// Half of the threads wait where the others do not come.
KERNEL void stuck(float* y) {
    if (threadIdx.x < 32) __syncthreads();
    y[threadIdx.x] = 1.0f;
}

/// Reads one element behind the end.
KERNEL void beyond(const T* x, T* y, i32 n) { y[threadIdx.x] = x[n]; }

/// Reads asynchronously copied data with and without waiting for it.
KERNEL void copied(const float* x, float* y, u32 wait, i64 stride) {
    SHARED_DYNAMIC(float, tile);
    copy_async_16(tile + 4 * threadIdx.x, x + 4 * threadIdx.x, 16);
    copy_async_commit();
    if (wait) copy_async_wait<0>();
    const float first = tile[4 * threadIdx.x];
    if (!wait) copy_async_wait<0>();
    y[threadIdx.x * stride] = first;
}
