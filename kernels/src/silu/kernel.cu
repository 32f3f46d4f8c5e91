// The sigmoid linear unit.
#include "activation.cuh"
#include "elementwise.cuh"

/// y = x sigmoid(x).
KERNEL void silu_forward(i64 n, const T* x, T* y) {
    map(n, outputs(y), [](float x) { return x * sigmoid(x); }, x);
}

/// dx = dy silu'(x).
KERNEL void silu_backward(i64 n, const T* x, const T* dy, T* dx) {
    map(n, outputs(dx), [](float x, float dy) {
        float slope;
        silu(x, slope);
        return dy * slope;
    }, x, dy);
}
