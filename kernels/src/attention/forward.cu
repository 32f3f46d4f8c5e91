// Attention, forward: FlashAttention-2 (arXiv 2307.08691, algorithm 1) on mma.sync, or on fused multiply-adds for
// float.
//
// Knobs beside those of tiles.cuh: OTHERS, keys of a tile; STAGES, tiles of keys (and of values) in flight or in use;
// BLOCKS, blocks that an SM should hold.
#include "attention/tiles.cuh"

constexpr int NT = OTHERS / 8, DT = HEAD / 8;

/// out = softmax(scale q k^T) v and lse = log(sum exp(scale q k^T)), for the tokens of `tiles` ([*, 5], see Tile) and
/// all heads.
///
/// q [tokens, heads, dim], k and v [.., heads / group, dim] with strides of tokens and heads; out [tokens, heads, dim]
/// and lse [heads, tokens] contiguous. A query without a key gets 0 and minus infinity.
///
/// Grid: tiles x heads, heads first, so that the tiles which the host lists first start first under all heads. A block
/// holds ROWS queries in shared memory, passes over the keys that they see, and a warp keeps maximum, sum and output of
/// its 16 MT queries in registers.
KERNEL __launch_bounds__(THREADS, BLOCKS) void attention_forward(
    const i32* __restrict__ tiles, const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
    T* __restrict__ out, float* __restrict__ lse, i64 q_token, i64 q_head, i64 k_token, i64 k_head, i64 v_token, i64 v_head,
    i32 heads, i32 group, i32 dim, i32 tokens, float scale) {
    SHARED_DYNAMIC(T, shared);
    T* queries = shared;
    T* keys = queries + ROWS * ROW;
    T* values = keys + STAGES * OTHERS * ROW;
    T* scratch = values + STAGES * OTHERS * ROW;
    const i32 head = blockIdx.x % heads;
    const Tile tile = read_tile(tiles, blockIdx.x / heads);
    const T* of_k = k + head / group * k_head + tile.other * k_token;
    const T* of_v = v + head / group * v_head + tile.other * v_token;
    const i32 lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const i32 row = threadIdx.x / WARP * WARP_ROWS;
    // A score has to grow with what is compared for the maximum: scores of a scale that is not positive are multiplied
    // first.
    const bool falling = !(scale > 0.0f);
    const float factor = falling ? LOG2_E : scale * LOG2_E;

    const auto seen = [&](i32 row) { return least(tile.count, tile.bound + row); };
    const i32 steps = ceil_div(most(0, seen(tile.rows - 1)), OTHERS);
    const i32 warp_seen = row < tile.rows ? seen(least(row + WARP_ROWS, tile.rows) - 1) : 0;

    // Tiles come in the order key 0, value 0, key 1, .. Each is waited for, then the barrier says that all threads are
    // done with the one before, whose place the load takes that is 2 STAGES - 1 ahead.
    const auto load = [&](i32 i) {
        const i32 step = i / 2, first = step * OTHERS;
        if (step < steps) {
            const i32 slot = step % STAGES * OTHERS * ROW, left = tile.count - first;
            if (i % 2)
                load_tile<OTHERS>(values + slot, of_v + first * v_token, v_token, dim, left);
            else
                load_tile<OTHERS>(keys + slot, of_k + first * k_token, k_token, dim, left);
        }
        copy_async_commit();
    };
    const auto arrive = [&](i32 i) {
        copy_async_wait<2 * STAGES - 2>();
        __syncthreads();
        load(i + 2 * STAGES - 1);
    };
    if (steps > 0) load_tile<ROWS>(queries, q + tile.first * q_token + head * q_head, q_token, dim, tile.rows);
    UNROLL
    for (i32 i = 0; i < 2 * STAGES - 1; i++) load(i);

    float o[MT][DT][4], maximum[MT][2], sum[MT][2];
    clear(o);
    UNROLL
    for (i32 i = 0; i < MT * 2; i++) maximum[i / 2][i % 2] = -INFINITY_VALUE, sum[i / 2][i % 2] = 0.0f;

    for (i32 step = 0; step < steps; step++) {
        float s[MT][NT][4];
        const i32 first = step * OTHERS;
        arrive(2 * step);
        if (first < warp_seen) {
            scores(s, queries + row * ROW, keys + step % STAGES * OTHERS * ROW);
            if (falling) {
                UNROLL
                for (i32 i = 0; i < MT * NT * 4; i++) s[i / 4 / NT][i / 4 % NT][i % 4] *= scale;
            }
            if (first + OTHERS > seen(row)) {
                UNROLL
                for (i32 i = 0; i < MT * 2; i++) {
                    const i32 left = seen(row + i * 8 + g) - first - 2 * t;
                    UNROLL
                    for (i32 j = 0; j < NT * 2; j++)
                        if (j / 2 * 8 + j % 2 >= left) s[i / 2][j / 2][i % 2 * 2 + j % 2] = -INFINITY_VALUE;
                }
            }
            UNROLL
            for (i32 i = 0; i < MT * 2; i++) {
                float& m = maximum[i / 2][i % 2];
                float top = m;
                UNROLL
                for (i32 j = 0; j < NT * 2; j++) top = fmaxf(top, s[i / 2][j / 2][i % 2 * 2 + j % 2]);
                top = fmaxf(top, shuffle_xor(top, 1));
                top = fmaxf(top, shuffle_xor(top, 2));
                // Without a key so far, all is relative to 0: minus infinity less minus infinity is no number.
                const float base = top == -INFINITY_VALUE ? 0.0f : top * factor;
                const float shrink = exp2_fast(m * factor - base);
                m = top;
                // Each lane sums its own columns; the four that share a row meet at the end.
                float total = sum[i / 2][i % 2] * shrink;
                UNROLL
                for (i32 j = 0; j < NT * 2; j++) {
                    float& x = s[i / 2][j / 2][i % 2 * 2 + j % 2];
                    x = exp2_fast(x * factor - base);
                    total += x;
                }
                sum[i / 2][i % 2] = total;
                UNROLL
                for (i32 j = 0; j < DT * 2; j++) o[i / 2][j / 2][i % 2 * 2 + j % 2] *= shrink;
            }
        }
        arrive(2 * step + 1);
        if (first < warp_seen) accumulate(o, s, values + step % STAGES * OTHERS * ROW, 0, scratch);
    }

    float inverse[MT][2];
    UNROLL
    for (i32 i = 0; i < MT * 2; i++) {
        float total = sum[i / 2][i % 2];
        total += shuffle_xor(total, 1);
        total += shuffle_xor(total, 2);
        inverse[i / 2][i % 2] = total > 0.0f ? 1.0f / total : 0.0f;
        const i32 at = row + i * 8 + g;
        if (t == 0 && at < tile.rows)
            lse[i64(head) * tokens + tile.first + at] = total > 0.0f ? maximum[i / 2][i % 2] * (factor * LN_2) + logf(total) : -INFINITY_VALUE;
    }
    T* to = out + (i64(tile.first + row) * heads + head) * dim;
    store_rows(to, i64(heads) * dim, dim, tile.rows - row, queries + row * ROW, 0, o, inverse);
}
