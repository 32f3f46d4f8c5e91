// The product of two tensors, element by element.
#include "elementwise.cuh"

/// y = a b.
KERNEL void mul_forward(i64 n, const T* a, const T* b, T* y) {
    map(n, outputs(y), [](float a, float b) { return a * b; }, a, b);
}

/// da = dy b, db = dy a. A gradient that isn't wanted is null, and so is the factor that it alone reads.
KERNEL void mul_backward(i64 n, const T* a, const T* b, const T* dy, T* da, T* db) {
    map(n, outputs(da, db), [](float a, float b, float dy) { return values(dy * b, dy * a); }, a, b, dy);
}
