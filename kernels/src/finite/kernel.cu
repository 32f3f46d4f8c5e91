// A number that is handed on while all numbers so far were finite.
#include "bigmac.cuh"

/// to[0] = values[count - 1] if that and all values before it are finite, and to[0] was not NaN; else NaN, which stays.
/// Grid: one warp, whose first thread does it all: for a few numbers.
KERNEL void finite_admit(const float* values, i32 count, float* to) {
    if (threadIdx.x != 0) return;
    bool good = to[0] == to[0];
    for (i32 i = 0; i < count; i++) good = good && fabsf(values[i]) < INFINITY_VALUE;
    to[0] = good ? values[count - 1] : NAN_VALUE;
}
