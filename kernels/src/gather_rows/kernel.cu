// Rows of a matrix.
#include "index.cuh"
#include "segments.cuh"

/// y[i] = x[rows[i]], a row of NaN where `rows[i]` is not in 0..limit; x [limit, width], n elements of y.
KERNEL void gather_rows(i64 n, const T* x, const i32* rows, T* y, i32 width, i32 limit) {
    map(n, outputs(y), Same{}, Rows<T>{x, rows, width, limit});
}

/// dx[keys[q]] = the sum of dy[order[q]] over the q of one key, in order; a block per q. Rows of dx without a key are
/// left as they are.
KERNEL __launch_bounds__(THREADS, 8) void gather_rows_backward(const i32* keys, const i32* order, const T* dy, T* dx, i32 n, i32 width, i32 limit) {
    segment_sums(keys, order, dy, dx, n, width, limit, false);
}
