// Sums over rows that go to the same place, in a fixed order: the gradient of a look-up.
//
// Places are given sorted: keys[q] is where row order[q] of `dy` [n, width] goes, and rows of one key stand in the
// order in which they are added. There is a block of THREADS threads to each q. The blocks of one key share its
// columns, whichever rows they come from, so that a key with thousands of rows (the id of padding, or of an image's
// tokens) occupies as many blocks as it has tiles of columns.
//
// Knobs: THREADS to a block; VEC, elements of a pack: 16 bytes' worth where the rows of both sides are aligned to that,
// else 1.
#pragma once
#include "elementwise.cuh"

/// From so many rows on a key's rows are spread over the threads of a block, below that its columns are.
constexpr i32 MANY = 32;
/// With many rows: threads side by side in a row, which read 64 bytes of it; rows side by side; rows that a thread has
/// under way.
constexpr int ABREAST = VEC == 1 ? 32 : 4;
constexpr int GROUPS = THREADS / ABREAST;
constexpr int DEEP = 4;
/// With few rows: rows that a thread has under way.
constexpr int DEPTH = 4;

/// The pack from `column` on of row `row`; zeros where row is negative or column beyond the row.
DEV Words<T, VEC> load_row(const T* dy, i32 row, i32 width, i32 column) {
    Words<T, VEC> w = words_of<T, VEC>(0.0f);
    if (row >= 0 && column < width) w = load_words<VEC>(dy + i64(row) * width + column);
    return w;
}

DEV void add_to(float (&sum)[VEC], const Words<T, VEC>& w) {
    UNROLL
    for (int l = 0; l < VEC; l++) sum[l] += element(w, l);
}

/// Writes sums, or adds them to what is there.
template <class To>
DEV void put(To* to, const float (&sum)[VEC], bool accumulate) {
    constexpr int STEP = least(VEC, 16 / int(sizeof(To)));
    UNROLL
    for (int h = 0; h < VEC; h += STEP) {
        Words<To, STEP> old = words_of<To, STEP>(0.0f);
        if (accumulate) old = load_words<STEP>(to + h);
        Pack<To, STEP> v;
        UNROLL
        for (int l = 0; l < STEP; l++) v.at[l] = from_float<To>(element(old, l) + sum[h + l]);
        store_pack(to + h, v);
    }
}

/// The rows of `key` at q, q + GROUPS, ..; -1 where they have ended.
DEV void next_rows(i32 (&row)[DEEP], const i32* keys, const i32* order, i32 n, i32 key, i32 q) {
    UNROLL
    for (int d = 0; d < DEEP; d++) {
        const i32 at = q + d * GROUPS;
        row[d] = at < n && keys[at] == key ? order[at] : -1;
    }
}

/// to[keys[q]] (+)= dy[order[q]] for q in 0..n; keys of `limit` and above are left out. Places without a row are left
/// as they are.
template <class To>
DEV void segment_sums(const i32* keys, const i32* order, const T* dy, To* to, i32 n, i32 width, i32 limit, bool accumulate) {
    SHARED u32 counts[2][THREADS / WARP];
    SHARED float partial[GROUPS][ABREAST * VEC];
    const i32 q = i32(blockIdx.x), thread = i32(threadIdx.x);
    const i32 key = keys[q];
    if (u32(key) >= u32(limit)) return;
    // How many of the THREADS places before, and of those behind, have the same key.
    const i32 low = q - 1 - thread, high = q + 1 + thread;
    const u32 same_before = ballot(low >= 0 && keys[most(low, 0)] == key);
    const u32 same_behind = ballot(high < n && keys[least(high, n - 1)] == key);
    if (thread % WARP == 0) {
        counts[0][thread / WARP] = count_bits(same_before);
        counts[1][thread / WARP] = count_bits(same_behind);
    }
    __syncthreads();
    i32 before = 0, behind = 0;
    UNROLL
    for (int w = 0; w < THREADS / WARP; w++) {
        before += i32(counts[0][w]);
        behind += i32(counts[1][w]);
    }
    // Enough others share the columns.
    if (before == THREADS) return;
    const i32 shares = least(before + 1 + behind, THREADS), first = q - before;
    to += i64(key) * width;

    if (shares < MANY) {
        for (i32 column = (before * THREADS + thread) * VEC; column < width; column += shares * THREADS * VEC) {
            float sum[VEC] = {};
            for (i32 at = first; at < first + shares; at += DEPTH) {
                i32 row[DEPTH];
                Words<T, VEC> v[DEPTH];
                UNROLL
                for (int d = 0; d < DEPTH; d++) row[d] = at + d < first + shares ? order[at + d] : -1;
                UNROLL
                for (int d = 0; d < DEPTH; d++) v[d] = load_row(dy, row[d], width, column);
                UNROLL
                for (int d = 0; d < DEPTH; d++) add_to(sum, v[d]);
            }
            put(to + column, sum, accumulate);
        }
        return;
    }
    constexpr i32 TILE = ABREAST * VEC;
    const i32 group = thread / ABREAST, lane = thread % ABREAST;
    for (i32 tile = before; tile * TILE < width; tile += shares) {
        const i32 column = tile * TILE + lane * VEC;
        float sum[VEC] = {};
        i32 row[DEEP];
        i32 at = first + group;
        next_rows(row, keys, order, n, key, at);
        while (row[0] >= 0) {
            Words<T, VEC> v[DEEP];
            UNROLL
            for (int d = 0; d < DEEP; d++) v[d] = load_row(dy, row[d], width, column);
            // While they are on their way, where the next ones lie.
            at += DEEP * GROUPS;
            next_rows(row, keys, order, n, key, at);
            UNROLL
            for (int d = 0; d < DEEP; d++) add_to(sum, v[d]);
        }
        UNROLL
        for (int l = 0; l < VEC; l++) partial[group][lane * VEC + l] = sum[l];
        __syncthreads();
        const i32 mine = tile * TILE + thread;
        if (thread < TILE && mine < width) {
            float total = accumulate ? to_float(to[mine]) : 0.0f;
            for (int g = 0; g < GROUPS; g++) total += partial[g][thread];
            to[mine] = from_float<To>(total);
        }
        __syncthreads();
    }
}
