// The Gaussian error linear unit. TANH: 1 for the approximation by tanh, 0 for the exact form.
#include "activation.cuh"
#include "elementwise.cuh"

// 2 sqrt(2 / pi): (1 + tanh(u)) / 2 is sigmoid(2 u), which takes one exponential and cancels nowhere.
constexpr float TWICE_ROOT = 1.5957691216f;
constexpr float CUBIC = 0.044715f;

/// y = x Phi(x).
KERNEL void gelu_forward(i64 n, const T* x, T* y) {
    map(n, outputs(y), [](float x) {
        if (TANH) return x * sigmoid(TWICE_ROOT * x * (CUBIC * x * x + 1.0f));
        float density;
        return x * normal(x, density);
    }, x);
}

/// dx = dy (Phi(x) + x Phi'(x)).
KERNEL void gelu_backward(i64 n, const T* x, const T* dy, T* dx) {
    map(n, outputs(dx), [](float x, float dy) {
        if (TANH) {
            const float square = x * x;
            const float s = sigmoid(TWICE_ROOT * x * (CUBIC * square + 1.0f));
            return dy * (x * s * (1.0f - s) * (TWICE_ROOT * (3.0f * CUBIC * square + 1.0f)) + s);
        }
        float density;
        const float distribution = normal(x, density);
        return dy * (x * density + distribution);
    }, x, dy);
}
