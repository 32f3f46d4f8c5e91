// Putting other rows into a matrix.
#include "index.cuh"

/// y[t] = x[t] where source[t] is negative, else e[source[t]]; n elements of y. The gradient of x is the same with dy
/// for x and null, which stands for zeros, for e.
KERNEL void replace_rows(i64 n, const T* x, const T* e, const i32* source, T* y, i32 width) {
    map(n, outputs(y), Same{}, EitherRow<T>{x, e, source, width});
}
