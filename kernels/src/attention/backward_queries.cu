// Attention, backward: the gradient of queries, and what both kernels of the backward need of each query. Knobs and
// method: backward.cuh.
#include "attention/backward.cuh"

/// Lanes that a row of chunks keeps busy: a power of two.
constexpr int LANES = CHUNKS > 16 ? 32 : CHUNKS > 8 ? 16 : CHUNKS > 4 ? 8 : CHUNKS > 2 ? 4 : 2;

/// rows[head, token] = (lse log2(e), sum(dout out)), what every later use of a query needs. (A query without a key has
/// an lse of minus infinity; it has no score that is not masked.)
///
/// out [tokens, heads, dim] contiguous, dout the same with strides. LANES of a warp take one token under one head;
/// grid: all of them. The order of the sum does not depend on how the rows can be read.
KERNEL __launch_bounds__(256) void attention_rows(const T* __restrict__ out, const T* __restrict__ dout, const float* __restrict__ lse,
                                                  float* __restrict__ rows, i64 dout_token, i64 dout_head, i32 heads, i32 dim, i32 tokens) {
    const i64 index = i64(blockIdx.x) * (256 / LANES) + threadIdx.x / LANES;
    const bool there = index < i64(tokens) * heads;
    const i32 token = i32(index / heads), head = i32(index % heads), lane = threadIdx.x % LANES;
    float sum = 0.0f;
    if (there) {
        const T* a = out + index * dim;
        const T* b = dout + token * dout_token + head * dout_head;
        for (i32 c = lane * PER; c < dim; c += LANES * PER) {
            if (ALIGNED && (EXACT || dim % PER == 0)) {
                const auto x = load_pack<PER>(a + c), y = load_pack<PER>(b + c);
                UNROLL
                for (i32 e = 0; e < PER; e++) sum += to_float(x.at[e]) * to_float(y.at[e]);
            } else {
                for (i32 e = c; e < least(c + PER, dim); e++) sum += to_float(a[e]) * to_float(b[e]);
            }
        }
    }
    UNROLL
    for (i32 o = LANES / 2; o > 0; o /= 2) sum += shuffle_xor(sum, o);
    if (!there || lane != 0) return;
    const i64 at = i64(head) * tokens + token;
    store_pack(rows + at * 2, Pack<float, 2>{{lse[at] * LOG2_E, sum}});
}

/// dq = scale ds k for the tokens of `tiles` (of queries) under all heads, with ds as in attention_backward_keys.
///
/// Grid: tiles x heads x PARTS. A block holds ROWS queries and their rows of dout in shared memory and passes over the
/// keys that they see.
KERNEL __launch_bounds__(THREADS, BLOCKS) void attention_backward_queries(
    const i32* __restrict__ tiles, const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
    const T* __restrict__ dout, const float* __restrict__ rows, T* __restrict__ dq, i64 q_token, i64 q_head, i64 k_token, i64 k_head,
    i64 v_token, i64 v_head, i64 dout_token, i64 dout_head, i32 heads, i32 group, i32 dim, i32 tokens, float scale) {
    SHARED_DYNAMIC(T, shared);
    T* queries = shared;
    T* douts = queries + ROWS * ROW;
    T* passing = douts + ROWS * ROW;
    T* scratch = passing + STAGES * 2 * TILE;
    const i32 head = blockIdx.x / PARTS % heads, part = first_chunk();
    const Tile tile = read_tile(tiles, blockIdx.x / PARTS / heads);
    const T* of_k = k + head / group * k_head + tile.other * k_token;
    const T* of_v = v + head / group * v_head + tile.other * v_token;
    const i32 lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const i32 row = threadIdx.x / WARP * WARP_ROWS;

    const auto seen = [&](i32 row) { return least(tile.count, tile.bound + row); };
    const i32 steps = ceil_div(most(0, seen(tile.rows - 1)), OTHERS);
    const i32 warp_seen = row < tile.rows ? seen(least(row + WARP_ROWS, tile.rows) - 1) : 0;
    const auto load = [&](i32 i) {
        if (i < steps) {
            T* to = passing + i % STAGES * 2 * TILE;
            load_tile<OTHERS>(to, of_k + i * OTHERS * k_token, k_token, dim, tile.count - i * OTHERS);
            load_tile<OTHERS>(to + TILE, of_v + i * OTHERS * v_token, v_token, dim, tile.count - i * OTHERS);
        }
        copy_async_commit();
    };
    if (steps > 0) {
        load_tile<ROWS>(queries, q + tile.first * q_token + head * q_head, q_token, dim, tile.rows);
        load_tile<ROWS>(douts, dout + tile.first * dout_token + head * dout_head, dout_token, dim, tile.rows);
    }
    UNROLL
    for (i32 i = 0; i < STAGES - 1; i++) load(i);

    Pack<float, 2> pair[MT][2];
    UNROLL
    for (i32 i = 0; i < MT * 2; i++) {
        const i32 at = least(row + i * 8 + g, tile.rows - 1);
        pair[i / 2][i % 2] = load_pack<2>(rows + (i64(head) * tokens + tile.first + at) * 2);
    }
    float x[MT][DT][4];
    clear(x);
    for (i32 i = 0; i < steps; i++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        load(i + STAGES - 1);
        const i32 first = i * OTHERS;
        if (first >= warp_seen) continue;
        const T* k_tile = passing + i % STAGES * 2 * TILE;
        float p[MT][NT][4], ds[MT][NT][4];
        scores(p, queries + row * ROW, k_tile);
        scores(ds, douts + row * ROW, k_tile + TILE);
        const bool edge = first + OTHERS > seen(row);
        UNROLL
        for (i32 m = 0; m < MT * 2; m++) {
            const auto [l, sum] = pair[m / 2][m % 2].at;
            const i32 left = seen(row + m * 8 + g) - first - 2 * t;
            UNROLL
            for (i32 j = 0; j < NT * 2; j++) {
                float& to = ds[m / 2][j / 2][m % 2 * 2 + j % 2];
                float s = exp2_fast(p[m / 2][j / 2][m % 2 * 2 + j % 2] * (scale * LOG2_E) - l);
                if (edge && j / 2 * 8 + j % 2 >= left) s = 0.0f;
                to = s * (to - sum);
            }
        }
        accumulate(x, ds, k_tile, part, scratch);
    }
    __syncwarp();
    float factor[MT][2];
    UNROLL
    for (i32 i = 0; i < MT * 2; i++) factor[i / 2][i % 2] = scale;
    T* to = dq + (i64(tile.first + row) * heads + head) * dim;
    store_rows(to, i64(heads) * dim, dim, tile.rows - row, queries + row * ROW, part, x, factor);
}
