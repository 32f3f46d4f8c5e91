// Sum of squares of all elements.
#include "total.cuh"

/// partials[b] = the share of block b in the sum of squares of x [length].
/// Grid: as many blocks as there are partials; 256 threads.
KERNEL __launch_bounds__(256) void squares_partial(const T* x, i64 length, float* partials) {
    const float sum = block_total(length, aligned(x, 16), [&](i64 first, bool whole) {
        const Pack<T, PACK> p = pack_at(x, first, length, whole);
        float s = 0.0f;
        UNROLL for (int e = 0; e < PACK; e++) s += to_float(p.at[e]) * to_float(p.at[e]);
        return s;
    });
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}
