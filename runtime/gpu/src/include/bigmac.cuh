// What every kernel includes first. One source, two worlds: NVRTC compiles it for a GPU, and a host compiler compiles
// it for replay, where each CUDA thread is a fiber on the CPU.
//
// What makes that possible, and has to be kept to:
// - kernels are `KERNEL void name(...)` with plain parameters: pointers, float, i32, u32, i64, TensorMap. The name is
//   written out (no macro) and the text between its parentheses holds no other parentheses: launchers check calls
//   against it;
// - a kernel's element type is `T`, which is `float` or `bf16` as -DELEMENT says; tile sizes and other knobs are macros
//   as well;
// - kernels have names that CUDA's own functions (norm, exp, ..) do not have;
// - warp functions (`shuffle_*`, `warp_*`, `ballot`, `mma_*`, `ldmatrix_*`) are called by all 32 lanes of a warp, block
//   functions by every thread of the block, and no thread returns before a later one of those: the replay calls that a
//   deadlock;
// - nothing relies on the threads of a warp running in step: `__syncwarp()` stands between a write to shared memory and
//   another lane's read of it;
// - shared memory is declared with SHARED or SHARED_DYNAMIC; PTX is in device.cuh alone, in a function that
//   replay.cuh has as well;
// - indices into tensors are i64 wherever a product of extents can pass 2^31.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

/// bfloat16, as bits: the upper half of a float.
struct alignas(2) bf16 {
    u16 bits;
};

/// A descriptor of a tensor in global memory for the tensor memory accelerator; only the driver knows its contents.
struct alignas(64) TensorMap {
    u64 opaque[16];
};

/// `N` consecutive elements that are loaded and stored in one instruction where `N * sizeof(E)` is 2, 4, 8 or 16 bytes.
template <class E, int N>
struct alignas(sizeof(E) * N) Pack {
    E at[N];
};

#ifdef ELEMENT
typedef ELEMENT T;
#endif

#ifdef __CUDACC__
#include "device.cuh"
#else
#include "replay.cuh"
#endif

constexpr int WARP = 32;

// ---- conversions ----------------------------------------------------------------------------------------------------

DEV float to_float(float x) { return x; }
DEV float to_float(bf16 x) { return bits_to_float(u32(x.bits) << 16); }

DEV void round_to(float& to, float x) { to = x; }
DEV void round_to(bf16& to, float x) { to = float_to_bf16(x); }
/// `x` as an element: to bf16 it is rounded to nearest, ties to even.
template <class E>
DEV E from_float(float x) {
    E to;
    round_to(to, x);
    return to;
}

/// Two floats as a pair of bf16 in one word, `low` in the lower half.
DEV u32 pack_bf16(float low, float high) { return u32(float_to_bf16(low).bits) | u32(float_to_bf16(high).bits) << 16; }

// ---- memory ---------------------------------------------------------------------------------------------------------

/// `N` elements from `p`, which is aligned to all of them.
template <int N, class E>
DEV Pack<E, N> load_pack(const E* p) {
    expect_aligned(p, sizeof(Pack<E, N>));
    return *reinterpret_cast<const Pack<E, N>*>(p);
}
template <int N, class E>
DEV void store_pack(E* p, const Pack<E, N>& v) {
    expect_aligned(p, sizeof v);
    *reinterpret_cast<Pack<E, N>*>(p) = v;
}

/// True when `p` is aligned to `bytes`, a power of two.
DEV bool aligned(const void* p, u32 bytes) { return (reinterpret_cast<u64>(p) & (bytes - 1)) == 0; }

// ---- small arithmetic -----------------------------------------------------------------------------------------------

template <class N>
DEV constexpr N ceil_div(N a, N b) { return (a + b - 1) / b; }
template <class N>
DEV constexpr N least(N a, N b) { return a < b ? a : b; }
template <class N>
DEV constexpr N most(N a, N b) { return a < b ? b : a; }

// ---- reductions with a fixed order, so that the same inputs give the same bits --------------------------------------

/// The sum over the warp, in every lane. The order is that of a butterfly, the same for every lane.
DEV float warp_sum(float v) {
    for (int o = WARP / 2; o > 0; o >>= 1) v += shuffle_xor(v, o);
    return v;
}
DEV float warp_max(float v) {
    for (int o = WARP / 2; o > 0; o >>= 1) v = most(v, shuffle_xor(v, o));
    return v;
}

/// The sum over a block of `threads` (a multiple of 32, at most 1024) threads along x, in every thread. `scratch` is
/// shared memory of 32 floats, which may be used again at once.
DEV float block_sum(float v, float* scratch) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    v = warp_sum(v);
    if (lane == 0) scratch[warp] = v;
    __syncthreads();
    v = warp_sum(lane < warps ? scratch[lane] : 0.0f);
    __syncthreads();
    return v;
}
