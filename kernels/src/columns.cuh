// Tiles of row-major matrices for kernels that treat a column's elements alike: a thread keeps VEC columns and walks
// down rows.
//
// Knobs: VEC, elements of a pack: 16 bytes' worth when rows are aligned to that, else 1; LANES, a power of two up to
// 32, packs side by side in a tile. A block of BLOCK threads is GROUPS rows of LANES threads.
#pragma once
#include "held.cuh"

constexpr int BLOCK = 256;
constexpr int GROUPS = BLOCK / LANES;
/// Columns of a tile.
constexpr int COLUMNS = LANES * VEC;
/// Rows that a thread has under way at a time: enough bytes in flight to cover the latency of memory at half occupancy.
constexpr int DEPTH = 4;

/// Row `row` and each GROUPS further of the VEC columns from `column`.
template <int N>
DEV void load_rows(Held<T, VEC> (&to)[N], const T* from, i32 row, i32 width, i32 column) {
    UNROLL
    for (int d = 0; d < N; d++) to[d] = hold<VEC>(from + i64(row + d * GROUPS) * width + column);
}
