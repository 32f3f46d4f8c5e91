// Copies of strided views; elements are only bytes here, and UNIT is the size of one or of several together.
#include "bigmac.cuh"

template <int BYTES>
struct Unit;
template <>
struct Unit<1> { typedef u8 type; };
template <>
struct Unit<2> { typedef u16 type; };
template <>
struct Unit<4> { typedef u32 type; };
template <>
struct Unit<8> { typedef u64 type; };
template <>
struct Unit<16> { typedef Pack<u64, 2> type; };
typedef Unit<UNIT>::type E;

/// to[i] for i in 0..count, in row-major order over the extents e0 (slowest) to e4, from strides s0 to s4, all in
/// units. A thread per unit: neighbours write side by side, and read side by side where the innermost stride is 1.
KERNEL void copy_strided(const E* __restrict__ from, E* __restrict__ to, i64 count, u32 e1, u32 e2, u32 e3, u32 e4, i64 s0, i64 s1,
                         i64 s2, i64 s3, i64 s4) {
    const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= count) return;
    i64 at = 0;
    if (count <= 0xffffffffll) {
        // Most tensors: divisions of 32 bits are several times faster.
        u32 rest = u32(i), next = rest / e4;
        at += (rest - next * e4) * s4;
        rest = next, next = rest / e3;
        at += (rest - next * e3) * s3;
        rest = next, next = rest / e2;
        at += (rest - next * e2) * s2;
        rest = next, next = rest / e1;
        at += (rest - next * e1) * s1 + next * s0;
    } else {
        i64 rest = i, next = rest / e4;
        at += (rest - next * e4) * s4;
        rest = next, next = rest / e3;
        at += (rest - next * e3) * s3;
        rest = next, next = rest / e2;
        at += (rest - next * e2) * s2;
        rest = next, next = rest / e1;
        at += (rest - next * e1) * s1 + next * s0;
    }
    to[i] = from[at];
}
