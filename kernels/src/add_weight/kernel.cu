// Adding a weight, such as a position embedding.
#include "index.cuh"

/// y = x + w, with w, of `period` elements, again and again; n elements of y.
KERNEL void add_weight_forward(i64 n, const T* x, const T* w, T* y, i32 period) {
    map(n, outputs(y), [](float x, float w) { return x + w; }, x, Repeated<T>{w, period});
}
