// The sum of two tensors.
#include "elementwise.cuh"

/// y = a + b; y may be a.
KERNEL void add_forward(i64 n, const T* a, const T* b, T* y) {
    map(n, outputs(y), [](float a, float b) { return a + b; }, a, b);
}
