// Rows that are read once and kept in registers: what kernels share that reduce over the last dimension and then write
// it.
//
// Knobs: VEC, elements of a pack: 16 bytes' worth when rows are aligned to that, else 1; TEAM, threads to a row, a
// power of two; PACKS, packs of a row to a thread; ROWS, rows of a team, which are under way together; LOOPED, 1 for
// rows too wide for all that: they are read again for every pass. Teams of up to a warp share blocks of 128 threads and
// add up with shuffles alone; larger teams are blocks, with ROWS = 1.
#pragma once
#include "held.cuh"

constexpr int BLOCK = TEAM > WARP ? TEAM : 128;
/// Columns that a team holds at a time.
constexpr int SPAN = TEAM * PACKS * VEC;
static_assert((TEAM <= WARP || ROWS == 1) && (!LOOPED || ROWS == 1), "only small teams have several rows");

typedef Held<T, VEC> Elements[PACKS];

/// This thread's place in its team.
DEV i32 team_lane() { return threadIdx.x % TEAM; }
/// The first of this team's rows.
DEV i32 team_row() { return (i32(blockIdx.x) * (BLOCK / TEAM) + i32(threadIdx.x) / TEAM) * ROWS; }
/// The first column of pack `p` of this thread in the span from `base`.
DEV i32 pack_column(i32 base, int p) { return base + (p * TEAM + team_lane()) * VEC; }

/// This thread's packs of the span from `base` of one row; zeros beyond `width`.
DEV void load_span(Elements& to, const T* row, i32 base, i32 width) {
    UNROLL
    for (int p = 0; p < PACKS; p++) {
        const i32 column = pack_column(base, p);
        to[p] = column < width ? hold<VEC>(row + column) : Held<T, VEC>{};
    }
}
/// The same of each of the team's rows; zeros for rows beyond `rows`.
DEV void load_rows(Elements (&to)[ROWS], const T* from, i32 rows, i32 base, i32 width) {
    UNROLL
    for (int r = 0; r < ROWS; r++) {
        const i32 row = team_row() + r;
        load_span(to[r], from + i64(row) * width, base, row < rows ? width : 0);
    }
}

/// See `Held::reread`; `width` is that of rows.
DEV void reread(Elements& row, i32 width) {
    UNROLL
    for (int p = 0; p < PACKS; p++) row[p].reread(u32(width >> 31));
}
DEV void reread(Elements (&rows)[ROWS], i32 width) {
    UNROLL
    for (int r = 0; r < ROWS; r++) reread(rows[r], width);
}

/// Writes `f(p, i)` as element `i` of this thread's pack `p` of the span from `base` of that row; nothing beyond `rows`
/// and `width`.
template <class F>
DEV void store_span(T* to, i32 row, i32 rows, i32 base, i32 width, F f) {
    UNROLL
    for (int p = 0; p < PACKS; p++) {
        const i32 column = pack_column(base, p);
        if (row < rows && column < width) store_each<VEC>(to + i64(row) * width + column, [&](int i) { return f(p, i); });
    }
}

/// Calls `visit(base)` for each span of a row, a single time for rows that are held whole.
template <class F>
DEV void each_span(i32 width, F visit) {
    for (i32 base = 0; base < (LOOPED ? width : 1); base += SPAN) visit(base);
}

/// Replaces every number by its sum over the team, in every thread. `scratch` is shared memory, which is used a single
/// time.
template <int N>
DEV void team_sums(float (&v)[N], float (&scratch)[N][WARP]) {
    constexpr int LANES = TEAM < WARP ? TEAM : WARP, WARPS = TEAM / LANES;
    UNROLL
    for (int n = 0; n < N; n++) {
        UNROLL
        for (int o = LANES / 2; o > 0; o >>= 1) v[n] += shuffle_xor(v[n], o);
    }
    if (WARPS == 1) return;
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    UNROLL
    for (int n = 0; n < N; n++)
        if (lane == 0) scratch[n][warp] = v[n];
    __syncthreads();
    UNROLL
    for (int n = 0; n < N; n++) {
        v[n] = scratch[n][lane % WARPS];
        UNROLL
        for (int o = WARPS / 2; o > 0; o >>= 1) v[n] += shuffle_xor(v[n], o);
    }
}
