// The gradient of a slice.
#include "index.cuh"

/// dx [rows, whole] = dy [rows, part] in columns `start..start + part`, zeros elsewhere; n elements of dx.
KERNEL void narrow_backward(i64 n, const T* dy, T* dx, i32 part, i32 start, i32 whole) {
    map(n, outputs(dx), Same{}, Padded<T>{dy, {part, start, whole}});
}
