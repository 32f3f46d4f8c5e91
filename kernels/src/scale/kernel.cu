// Multiplication with a number.
#include "elementwise.cuh"

/// y = factor x.
KERNEL void scale_forward(i64 n, const T* x, T* y, float factor) {
    map(n, outputs(y), [factor](float x) { return factor * x; }, x);
}

/// dx = factor dy. x is null: the gradient does not read it.
KERNEL void scale_backward(i64 n, const T* x, const T* dy, T* dx, float factor) {
    map(n, outputs(dx), [factor](float dy) { return factor * dy; }, dy);
}
