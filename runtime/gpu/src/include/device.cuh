// The GPU's side of bigmac.cuh: qualifiers, and every piece of PTX in a named function. Functions in the same order as
// in replay.cuh.
#pragma once

#define KERNEL extern "C" __global__
#define DEV __device__ __forceinline__
/// As DEV, for members of a struct.
#define METHOD __device__ __forceinline__
#define SHARED __shared__
/// Dynamic shared memory as an array of E, aligned to 1024 bytes as swizzled tiles want it. One per kernel.
#define SHARED_DYNAMIC(E, name)                                 \
    extern __shared__ __align__(1024) unsigned char name##_raw[]; \
    E* name = reinterpret_cast<E*>(name##_raw)
#define UNROLL _Pragma("unroll")
/// Keeps a loop a loop, where registers are scarce and its speed matters less.
#define ROLLED _Pragma("unroll 1")
#define NAN_VALUE __int_as_float(0x7fffffff)
#define INFINITY_VALUE __int_as_float(0x7f800000)

/// An address that `bytes` bytes are read from or written to in one instruction. The GPU faults when it is not aligned
/// to them, and the replay fails.
DEV void expect_aligned(const void*, u32) {}

DEV float bits_to_float(u32 bits) { return __uint_as_float(bits); }
DEV u32 float_to_bits(float x) { return __float_as_uint(x); }
DEV bf16 float_to_bf16(float x) {
    bf16 r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
    return r;
}

// ---- warps ----------------------------------------------------------------------------------------------------------

DEV float shuffle_xor(float v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
DEV u32 shuffle_xor(u32 v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
DEV i32 shuffle_xor(i32 v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
DEV float shuffle(float v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
DEV u32 shuffle(u32 v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
DEV i32 shuffle(i32 v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
/// A bit per lane: which of them say yes.
DEV u32 ballot(bool yes) { return __ballot_sync(0xffffffffu, yes); }
/// How many bits are set.
DEV u32 count_bits(u32 bits) { return __popc(bits); }
/// Waits for `threads` threads (a multiple of 32) at barrier `id`, 1 to 15; 0 is that of __syncthreads.
DEV void barrier_sync(u32 id, u32 threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
/// Arrives at a barrier without waiting for it: others of its `threads` do.
DEV void barrier_arrive(u32 id, u32 threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

// ---- arithmetic that the hardware approximates ----------------------------------------------------------------------

/// a b, rounded: never fused with an addition.
DEV float multiply(float a, float b) { return __fmul_rn(a, b); }
/// 2^x to 2 ulp; results below 2^-126 are 0.
DEV float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/// 1 / x to 1 ulp; 0 for infinities and for results below 2^-126, infinite for x below that.
DEV float reciprocal_fast(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// ---- matrix products of a warp --------------------------------------------------------------------------------------

/// d (16x8) += a (16x16, row-major) b (16x8, column-major), bf16 with fp32 sums. Fragments as PTX's mma.m16n8k16 lays
/// them out: with g = lane / 4 and t = lane % 4, d = {(g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1)}, a = {(g, 2t..),
/// (g+8, 2t..), (g, 2t+8..), (g+8, 2t+8..)}, b = {(2t.., g), (2t+8.., g)}, each word of a and b a pair along k, the
/// first in the lower half.
DEV void mma_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DEV u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

/// Four 8x8 matrices of 16-bit elements: lane l gives the address (aligned to 16 bytes, shared memory) of row l % 8 of
/// matrix l / 8, and gets the elements (lane / 4, 2 (lane % 4)) and its right neighbour of each.
DEV void ldmatrix_x4(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)) : "memory");
}
/// As ldmatrix_x4, each matrix transposed: a lane gets (2 (lane % 4), lane / 4) and its lower neighbour.
DEV void ldmatrix_x4_trans(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)) : "memory");
}

// ---- asynchronous copies --------------------------------------------------------------------------------------------

/// Starts a copy of 16 bytes to shared memory, both aligned to 16: the first `valid` (0 to 16) from global memory,
/// zeros for the rest. With `valid` 0 nothing is read.
DEV void copy_async_16(void* shared, const void* global, u32 valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid) : "memory");
}
/// As copy_async_16, of 8 bytes: both aligned to 8, `valid` is 0 or 8.
DEV void copy_async_8(void* shared, const void* global, u32 valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid) : "memory");
}
/// Ends a group of the copies started since the last one.
DEV void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most the youngest `N` groups of this thread are under way. Other threads see the data after a
/// barrier.
template <int N>
DEV void copy_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
