// Sum of all elements.
#include "total.cuh"

/// partials[b] = the share of block b in the sum of x [length].
/// Grid: as many blocks as there are partials; 256 threads.
KERNEL __launch_bounds__(256) void sum_partial(const T* x, i64 length, float* partials) {
    const float sum = block_total(length, aligned(x, 16), [&](i64 first, bool whole) {
        const Pack<T, PACK> p = pack_at(x, first, length, whole);
        float s = 0.0f;
        UNROLL for (int e = 0; e < PACK; e++) s += to_float(p.at[e]);
        return s;
    });
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

/// y[0] = factor * sum of partials [count], or that much more than it was when `add` is 1.
/// Grid: 1 block of 1024 threads; thread t takes every 1024th from t.
KERNEL __launch_bounds__(1024) void sum_finish(const float* partials, i64 count, float factor, i32 add, float* y) {
    SHARED float scratch[32];
    float sum = 0.0f;
    for (i64 i = threadIdx.x; i < count; i += blockDim.x) sum += partials[i];
    sum = factor * block_sum(sum, scratch);
    if (threadIdx.x == 0) y[0] = add ? y[0] + sum : sum;
}

/// dx [length] = dy[0] everywhere; dx is aligned to 16 bytes. Grid: a thread per pack, 256 to a block.
KERNEL __launch_bounds__(256) void sum_backward(const float* dy, i64 length, T* dx) {
    const i64 first = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * PACK;
    const T value = from_float<T>(dy[0]);
    if (first + PACK <= length) {
        Pack<T, PACK> p;
        UNROLL for (int e = 0; e < PACK; e++) p.at[e] = value;
        store_pack(dx + first, p);
    } else {
        for (i64 i = first; i < length; i++) dx[i] = value;
    }
}
