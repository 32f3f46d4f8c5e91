// Attention, backward: the gradients of keys and values. Knobs and method: backward.cuh.
#include "attention/backward.cuh"

/// dk = scale ds^T q and dv = p^T dout for the tokens of `tiles` (of keys) under all heads of keys, with p = exp(scale
/// q k^T - lse) and ds = p (dout v^T - rows): summed over the queries that see a key, under each of the `group` heads
/// that read it, in this order.
///
/// Strides and shapes as in attention_forward, dk and dv contiguous, `rows` as attention_rows leaves it. Grid: tiles x
/// heads of keys x PARTS. A block holds ROWS keys and values in shared memory and passes over the queries; a warp has
/// 16 MT rows of keys, so that p^T and ds^T are the left sides of the products that follow without leaving their
/// registers.
KERNEL __launch_bounds__(THREADS, BLOCKS) void attention_backward_keys(
    const i32* __restrict__ tiles, const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
    const T* __restrict__ dout, const float* __restrict__ rows, T* __restrict__ dk, T* __restrict__ dv, i64 q_token, i64 q_head,
    i64 k_token, i64 k_head, i64 v_token, i64 v_head, i64 dout_token, i64 dout_head, i32 heads, i32 group, i32 dim, i32 tokens, float scale) {
    SHARED_DYNAMIC(T, shared);
    T* keys = shared;
    T* values = keys + ROWS * ROW;
    T* passing = values + ROWS * ROW;
    float* pairs = reinterpret_cast<float*>(passing + STAGES * 2 * TILE);
    T* scratch = reinterpret_cast<T*>(pairs + STAGES * OTHERS * 2);
    const i32 key_heads = heads / group, key_head = blockIdx.x / PARTS % key_heads, part = first_chunk();
    const Tile tile = read_tile(tiles, blockIdx.x / PARTS / key_heads);
    const i32 lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const i32 row = threadIdx.x / WARP * WARP_ROWS;

    // From the first query that sees a key of the block.
    const i32 start = most(0, tile.bound), steps = ceil_div(most(0, tile.count - start), OTHERS), total = steps * group;
    const auto load = [&](i32 i) {
        if (i < total) {
            const i32 head = key_head * group + i / steps, first = start + i % steps * OTHERS;
            const i32 token = tile.other + first, left = tile.count - first, slot = i % STAGES;
            load_tile<OTHERS>(passing + slot * 2 * TILE, q + token * q_token + head * q_head, q_token, dim, left);
            load_tile<OTHERS>(passing + (slot * 2 + 1) * TILE, dout + token * dout_token + head * dout_head, dout_token, dim, left);
            const float* from = rows + (i64(head) * tokens + token) * 2;
            for (i32 j = threadIdx.x; j < OTHERS; j += THREADS)
                copy_async_8(pairs + (slot * OTHERS + j) * 2, from + j * 2, j < left ? 8 : 0);
        }
        copy_async_commit();
    };
    if (total > 0) {
        load_tile<ROWS>(keys, k + tile.first * k_token + key_head * k_head, k_token, dim, tile.rows);
        load_tile<ROWS>(values, v + tile.first * v_token + key_head * v_head, v_token, dim, tile.rows);
    }
    UNROLL
    for (i32 i = 0; i < STAGES - 1; i++) load(i);

    float x[MT][DT][4], y[MT][DT][4];
    clear(x);
    clear(y);
    for (i32 i = 0; i < total; i++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        load(i + STAGES - 1);
        const i32 first = start + i % steps * OTHERS;
        // Keys that are not there gather what is not stored; queries that are not there are zeros, and add nothing.
        if (row >= tile.rows || first + OTHERS <= tile.bound + row) continue;
        const T* of_q = passing + i % STAGES * 2 * TILE;
        const T* of_dout = of_q + TILE;
        const float* pair = pairs + (i % STAGES * OTHERS + 2 * t) * 2;
        float p[MT][NT][4], ds[MT][NT][4];
        scores(p, keys + row * ROW, of_q);
        scores(ds, values + row * ROW, of_dout);
        // Of the queries of this tile, row r is seen by those from `unseen + r` on.
        const i32 unseen = tile.bound + row - first;
        const bool edge = unseen + WARP_ROWS > 1;
        UNROLL
        for (i32 j = 0; j < NT; j++) {
            const auto two = load_pack<4>(pair + j * 16);
            UNROLL
            for (i32 m = 0; m < MT; m++) UNROLL
                for (i32 e = 0; e < 4; e++) {
                    float& s = p[m][j][e];
                    s = exp2_fast(s * (scale * LOG2_E) - two.at[e % 2 * 2]);
                    if (edge && j * 8 + e % 2 - m * 16 - e / 2 * 8 < unseen + g - 2 * t) s = 0.0f;
                    ds[m][j][e] = s * (ds[m][j][e] - two.at[e % 2 * 2 + 1]);
                }
        }
        accumulate(y, p, of_dout, part, scratch);
        accumulate(x, ds, of_q, part, scratch);
    }
    // The last barrier lies before the last use of keys and values, but a warp overwrites only rows that it alone
    // reads.
    __syncwarp();
    float factor[MT][2], one[MT][2];
    UNROLL
    for (i32 i = 0; i < MT * 2; i++) factor[i / 2][i % 2] = scale, one[i / 2][i % 2] = 1.0f;
    const i64 to = (i64(tile.first + row) * key_heads + key_head) * dim, stride = i64(key_heads) * dim;
    store_rows(dk + to, stride, dim, tile.rows - row, keys + row * ROW, part, x, factor);
    store_rows(dv + to, stride, dim, tile.rows - row, values + row * ROW, part, y, one);
}
