// Change of float dtype.
#include "elementwise.cuh"

/// y = x, rounded to nearest even.
KERNEL void cast_to_bf16(i64 n, const float* x, bf16* y) { map(n, outputs(y), [](float x) { return x; }, x); }

/// y = x, exactly.
KERNEL void cast_to_float(i64 n, const bf16* x, float* y) { map(n, outputs(y), [](float x) { return x; }, x); }
