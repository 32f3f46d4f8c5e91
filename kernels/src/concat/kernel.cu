// Joining tensors along a dimension.
#include "index.cuh"

/// Writes x [rows, part] into columns `start..start + part` of y [rows, whole]; n elements of x. A launch per input of
/// the operator.
KERNEL void concat_part(i64 n, const T* x, T* y, i32 part, i32 start, i32 whole) {
    map(n, Placed<T>{y, {part, start, whole}}, Same{}, x);
}
