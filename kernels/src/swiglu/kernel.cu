// The gated unit of SwiGLU feed-forward layers.
#include "activation.cuh"
#include "elementwise.cuh"

/// y = silu(gate) up.
KERNEL void swiglu_forward(i64 n, const T* gate, const T* up, T* y) {
    map(n, outputs(y), [](float gate, float up) { return gate * sigmoid(gate) * up; }, gate, up);
}

/// dgate = dy up silu'(gate), dup = dy silu(gate). A gradient that is not wanted is null, and so is up when dgate is.
KERNEL void swiglu_backward(i64 n, const T* gate, const T* up, const T* dy, T* dgate, T* dup) {
    map(n, outputs(dgate, dup), [](float gate, float up, float dy) {
        float slope;
        const float y = silu(gate, slope);
        return values(dy * up * slope, dy * y);
    }, gate, up, dy);
}
