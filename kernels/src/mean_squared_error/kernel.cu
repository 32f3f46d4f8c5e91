// Sum of squared differences, and its gradient.
#include "total.cuh"

/// partials[b] = the share of block b in the sum of (p - t)^2, both [length].
/// Grid: as many blocks as there are partials; 256 threads.
KERNEL __launch_bounds__(256) void squared_error_partial(const T* p, const T* t, i64 length, float* partials) {
    const bool packs = aligned(p, 16) && aligned(t, 16);
    const float sum = block_total(length, packs, [&](i64 first, bool whole) {
        const Pack<T, PACK> a = pack_at(p, first, length, whole), b = pack_at(t, first, length, whole);
        float s = 0.0f;
        UNROLL for (int e = 0; e < PACK; e++) {
            const float d = to_float(a.at[e]) - to_float(b.at[e]);
            s += d * d;
        }
        return s;
    });
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

/// dp = factor dy[0] (p - t), all [length]; dp is aligned to 16 bytes. Grid: a thread per pack, 256 to a block.
KERNEL __launch_bounds__(256) void squared_error_backward(const T* p, const T* t, i64 length, const float* dy, float factor, T* dp) {
    const i64 first = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * PACK;
    if (first >= length) return;
    const bool whole = first + PACK <= length && aligned(p, 16) && aligned(t, 16);
    const Pack<T, PACK> a = pack_at(p, first, length, whole), b = pack_at(t, first, length, whole);
    const float slope = factor * dy[0];
    Pack<T, PACK> d;
    UNROLL for (int e = 0; e < PACK; e++) d.at[e] = from_float<T>((to_float(a.at[e]) - to_float(b.at[e])) * slope);
    if (first + PACK <= length) {
        store_pack(dp + first, d);
    } else {
        UNROLL for (int e = 0; e < PACK; e++) {
            if (first + e < length) dp[first + e] = d.at[e];
        }
    }
}
