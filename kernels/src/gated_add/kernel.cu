#include "columns.cuh"

/// z = x + gate * y of N rows, GROUPS apart, or gate * y alone where there is no x.
template <int N>
DEV void gate_rows(const T* x, const Held<T, VEC>& gate, const T* y, T* z, i32 row, i32 width, i32 column) {
    Held<T, VEC> xs[N], ys[N];
    load_rows(ys, y, row, width, column);
    if (x) load_rows(xs, x, row, width, column);
    UNROLL
    for (int d = 0; d < N; d++)
        store_each<VEC>(z + i64(row + d * GROUPS) * width + column, [&](int i) { return gate[i] * ys[d][i] + (x ? xs[d][i] : 0.0f); });
}

/// z = x + gate * y for x, y and z [rows, width] and gate [width]; without an x (null) z = gate * y, which is the
/// gradient of y when y is z's.
///
/// Grid: a block per tile of COLUMNS columns and DEPTH * GROUPS rows, tiles of the same rows side by side. A thread
/// reads its gates once.
KERNEL __launch_bounds__(BLOCK) void gated_add(const T* __restrict__ x, const T* __restrict__ gate, const T* __restrict__ y,
                                               T* __restrict__ z, i32 rows, i32 width) {
    const i32 tiles = ceil_div(width, COLUMNS);
    const i32 column = i32(blockIdx.x) % tiles * COLUMNS + i32(threadIdx.x) % LANES * VEC;
    i32 row = i32(blockIdx.x) / tiles * (DEPTH * GROUPS) + i32(threadIdx.x) / LANES;
    if (column >= width) return;
    const Held<T, VEC> gates = hold<VEC>(gate + column);
    if (row + (DEPTH - 1) * GROUPS < rows) return gate_rows<DEPTH>(x, gates, y, z, row, width, column);
    for (; row < rows; row += GROUPS) gate_rows<1>(x, gates, y, z, row, width, column);
}
