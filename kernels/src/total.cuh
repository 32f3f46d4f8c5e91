// Sums over whole tensors, in an order that depends on their length alone: each block of a grid that the length fixes
// adds up its share, and one block adds up the blocks' sums (sum_finish of sum/kernel.cu).
#pragma once
#include "bigmac.cuh"

/// Elements that are loaded in one instruction.
constexpr int PACK = 16 / sizeof(T);
/// Packs that a thread has under way at once, each with a chain of additions of its own.
constexpr int CHAINS = 4;

/// The pack that begins at element `first` of x [length]. `whole`: it ends within x, and is aligned; else elements come
/// one by one, zeros behind the end.
DEV Pack<T, PACK> pack_at(const T* x, i64 first, i64 length, bool whole) {
    if (whole) return load_pack<PACK>(x + first);
    Pack<T, PACK> p;
    UNROLL for (int e = 0; e < PACK; e++) p.at[e] = first + e < length ? x[first + e] : from_float<T>(0.0f);
    return p;
}

/// The sum over this block's share of `length` elements, in every thread. `term(first, whole)` is the sum of the terms
/// of the pack that begins at element `first`, loaded with pack_at; `packs_aligned` says that packs are. Packs go round
/// all threads of the grid.
template <class F>
DEV float block_total(i64 length, bool packs_aligned, F term) {
    SHARED float scratch[32];
    const i64 full = length / PACK, step = i64(gridDim.x) * blockDim.x;
    i64 pack = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    float sums[CHAINS] = {};
    for (; pack + (CHAINS - 1) * step < full; pack += CHAINS * step) {
        if (packs_aligned) {
            UNROLL for (int c = 0; c < CHAINS; c++) sums[c] += term((pack + c * step) * PACK, true);
        } else {
            UNROLL for (int c = 0; c < CHAINS; c++) sums[c] += term((pack + c * step) * PACK, false);
        }
    }
    for (; pack < full; pack += step) sums[0] += term(pack * PACK, packs_aligned);
    if (pack == full && full * PACK < length) sums[0] += term(pack * PACK, false);
    return block_sum((sums[0] + sums[1]) + (sums[2] + sums[3]), scratch);
}
