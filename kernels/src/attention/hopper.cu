// Attention, forward, on Hopper: FlashAttention-3 (arXiv 2407.08608, algorithm 2 and section 3.1) in bf16. Tiles come
// by TMA, products are the warpgroups' own (wgmma).
//
// Knobs: HEAD, the head size, 64 or 128; OTHERS, keys of a tile; CONSUMERS, warpgroups that compute, each 64 queries of
// a tile; STAGES, tiles of keys, and of values, in flight or in use; REGISTERS, of a computing thread, and SPARE, of a
// loading one.
#include "bigmac.cuh"
#include "hopper.cuh"
#include "attention/tile.cuh"

constexpr int GROUP = 128, THREADS = GROUP * (1 + CONSUMERS), ROWS = 64 * CONSUMERS;
/// A tile lies in panels of 64 columns, rows of 128 bytes in the 128-byte swizzle.
constexpr int PANELS = HEAD / 64, Q_PANEL = ROWS * 128, KV_PANEL = OTHERS * 128, Q_BYTES = PANELS * Q_PANEL, KV_BYTES = PANELS * KV_PANEL;
constexpr int BARRIERS = Q_BYTES + 2 * STAGES * KV_BYTES;
constexpr int NT = OTHERS / 8, DT = HEAD / 8;

#if HOPPER

/// Which stage a tile takes that is number `i` of its kind, and the parity of the phase in which it is there.
DEV u32 stage_of(u32 i) { return i % STAGES; }
DEV u32 parity_of(u32 i) { return i / STAGES & 1; }

/// Starts loading `ROWS_` rows from `token` on under a head.
template <int ROWS_>
DEV void load_panels(char* tile, const TensorMap* map, u64* full, i32 token, i32 head) {
    mbarrier_expect(full, PANELS * ROWS_ * 128);
    UNROLL for (int panel = 0; panel < PANELS; panel++) tma_load(tile + panel * ROWS_ * 128, map, full, panel * 64, token, head);
}

/// Issues s = q k^T of the warpgroup's 64 queries and a tile of keys.
DEV void issue_scores(float (&s)[OTHERS / 2], const char* queries, const char* keys) {
    UNROLL for (int k = 0; k < HEAD / 16; k++) {
        const u64 a = matrix_descriptor(queries + k / 4 * Q_PANEL, 16, 1024), b = matrix_descriptor(keys + k / 4 * KV_PANEL, 16, 1024);
        wgmma<OTHERS, false, false>(s, descriptor_advance(a, k % 4 * 32), descriptor_advance(b, k % 4 * 32), k > 0);
    }
    wgmma_commit();
}

/// Issues o += p v, or o = p v when it is not to `add`.
DEV void issue_output(float (&o)[HEAD / 2], const u32 (&p)[OTHERS / 16][4], const char* values, bool add) {
    const u64 b = matrix_descriptor(values, KV_PANEL, 1024);
    UNROLL for (int k = 0; k < OTHERS / 16; k++) wgmma<HEAD, true>(o, p[k], descriptor_advance(b, k * 2048), add || k > 0);
    wgmma_commit();
}

/// What is known of a thread's two rows: largest score, and sum of exponentials of the thread's own columns.
struct Rows {
    float maximum[2], sum[2];
};

/// Makes scores exponentials relative to the largest so far, and gives the factor by which what was there becomes
/// relative to it too. Of row h the columns from `left[h]` on are masked where `edge`.
DEV void soften(float (&s)[OTHERS / 2], Rows& rows, float (&shrink)[2], float factor, bool edge, const i32 (&left)[2]) {
    UNROLL for (int h = 0; h < 2; h++) {
        if (edge) {
            UNROLL for (int j = 0; j < NT * 2; j++)
                if (j / 2 * 8 + j % 2 >= left[h]) s[j / 2 * 4 + h * 2 + j % 2] = -INFINITY_VALUE;
        }
        float top = rows.maximum[h];
        UNROLL for (int j = 0; j < NT * 2; j++) top = fmaxf(top, s[j / 2 * 4 + h * 2 + j % 2]);
        top = fmaxf(top, shuffle_xor(top, 1));
        top = fmaxf(top, shuffle_xor(top, 2));
        // Without a key so far, all is relative to 0: minus infinity less minus infinity is no number.
        const float base = top == -INFINITY_VALUE ? 0.0f : top * factor;
        shrink[h] = exp2_fast(rows.maximum[h] * factor - base);
        rows.maximum[h] = top;
        float total = rows.sum[h] * shrink[h];
        UNROLL for (int j = 0; j < NT * 2; j++) {
            float& x = s[j / 2 * 4 + h * 2 + j % 2];
            x = exp2_fast(x * factor - base);
            total += x;
        }
        rows.sum[h] = total;
    }
}

/// Exponentials as the left side of the product with the values: sums of one product lie as the next one's left side
/// does.
DEV void pack_rows(u32 (&p)[OTHERS / 16][4], const float (&s)[OTHERS / 2]) {
    UNROLL for (int k = 0; k < OTHERS / 16; k++) UNROLL for (int i = 0; i < 4; i++) p[k][i] = pack_bf16(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
}

/// Clears the rows of a tile of values from `rows` on, by all threads of a warpgroup: their probabilities are 0, but 0
/// times an infinity is NaN, and so no value of the sequence after this one may be multiplied. Other warpgroups
/// read the tile as well, and clear it for themselves when they come to it: what they write then is what is there.
DEV void clear_rows(char* tile, i32 rows, i32 thread) {
    // A row is permuted within its own 128 bytes.
    for (i32 at = rows * 128 + thread * 16; at < KV_PANEL; at += GROUP * 16) {
        UNROLL for (int panel = 0; panel < PANELS; panel++)
            store_pack(reinterpret_cast<bf16*>(tile + panel * KV_PANEL + at), Pack<bf16, 8>{});
    }
}

#endif

/// What attention_forward computes. The maps describe q, k and v as (column, token, head), in tiles of 64 by ROWS
/// (OTHERS) by 1, swizzled by 128 bytes; out and lse as there. A tile reads past the end of its sequence: scores of
/// what it finds there are masked, and values cleared.
///
/// Grid: at most tiles x heads blocks, each of which takes every gridDim-th. One thread loads; each consumer passes
/// over the keys with 64 queries: it starts the scores of a tile and the output of the one before, and computes
/// exponentials of the first while the second is under way. Consumers start their products in turn, so that one's
/// exponentials are computed during the other's products. One block to a multiprocessor, so that the registers at entry
/// are known, which registers_grow and registers_shrink count from.
KERNEL __launch_bounds__(THREADS, 1) void attention_forward_hopper(const __grid_constant__ TensorMap q_map, const __grid_constant__ TensorMap k_map,
                                                                   const __grid_constant__ TensorMap v_map, const i32* __restrict__ tiles,
                                                                   bf16* __restrict__ out, float* __restrict__ lse, i32 count, i32 heads,
                                                                   i32 group, i32 tokens, float scale) {
#if HOPPER
    SHARED_DYNAMIC(char, shared);
    char* keys = shared + Q_BYTES;
    char* values = keys + STAGES * KV_BYTES;
    // Of the queries, of each stage of keys, and of each of values: when it is there, and when all warps have done with
    // it.
    u64* q_full = reinterpret_cast<u64*>(shared + BARRIERS);
    u64 *q_empty = q_full + 1, *k_full = q_full + 2, *k_empty = k_full + STAGES, *v_full = k_empty + STAGES, *v_empty = v_full + STAGES;
    if (threadIdx.x == 0) {
        constexpr u32 WARPS_ALL = CONSUMERS * GROUP / WARP;
        mbarrier_init(q_full, 1);
        mbarrier_init(q_empty, WARPS_ALL);
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(k_full + s, 1);
            mbarrier_init(v_full + s, 1);
            mbarrier_init(k_empty + s, WARPS_ALL);
            mbarrier_init(v_empty + s, WARPS_ALL);
        }
        fence_barrier_init();
        tma_prefetch(&q_map);
        tma_prefetch(&k_map);
        tma_prefetch(&v_map);
    }
    __syncthreads();
    const auto steps_of = [](const Tile& tile) { return ceil_div(most(0, least(tile.count, tile.bound + tile.rows - 1)), OTHERS); };
    // Tiles of keys (and as many of values) and of queries so far.
    u32 passed = 0, turns = 0;

    if (threadIdx.x < GROUP) {
        registers_shrink<SPARE>();
        if (threadIdx.x == 0) {
            for (i32 index = blockIdx.x; index < count; index += gridDim.x) {
                const Tile tile = read_tile(tiles, index / heads);
                const i32 head = index % heads, steps = steps_of(tile);
                for (i32 step = 0; step < steps; step++, passed++) {
                    const u32 stage = stage_of(passed), parity = parity_of(passed) ^ 1;
                    const i32 token = tile.other + step * OTHERS;
                    mbarrier_wait(k_empty + stage, parity);
                    load_panels<OTHERS>(keys + stage * KV_BYTES, &k_map, k_full + stage, token, head / group);
                    if (step == 0) {
                        mbarrier_wait(q_empty, turns++ & 1 ^ 1);
                        load_panels<ROWS>(shared, &q_map, q_full, tile.first, head);
                    }
                    mbarrier_wait(v_empty + stage, parity);
                    load_panels<OTHERS>(values + stage * KV_BYTES, &v_map, v_full + stage, token, head / group);
                }
            }
        }
        __syncwarp();
        return;
    }

    registers_grow<REGISTERS>();
    const i32 consumer = threadIdx.x / GROUP - 1, thread = threadIdx.x % GROUP, lane = thread % WARP, g = lane / 4, t = lane % 4;
    const i32 row = consumer * 64 + thread / WARP * 16;
    char* queries = shared + consumer * 64 * 128;
    const bool falling = !(scale > 0.0f);
    const float factor = falling ? LOG2_E : scale * LOG2_E;
    const auto release = [&](u64* barrier) {
        if (lane == 0) mbarrier_arrive(barrier);
    };
    // A consumer waits for its turn at its own barrier, where the one before it arrives; the first turn is given by the
    // last.
    const auto take_turn = [&] { barrier_sync(1 + consumer, 2 * GROUP); };
    const auto pass_turn = [&] { barrier_arrive(1 + (consumer + 1) % CONSUMERS, 2 * GROUP); };
    if (consumer == CONSUMERS - 1) pass_turn();

    float s[OTHERS / 2], o[HEAD / 2];
    u32 p[OTHERS / 16][4];
    for (i32 index = blockIdx.x; index < count; index += gridDim.x) {
        const Tile tile = read_tile(tiles, index / heads);
        const i32 head = index % heads, steps = steps_of(tile);
        const auto seen = [&](i32 r) { return least(tile.count, tile.bound + r); };
        Rows rows = {{-INFINITY_VALUE, -INFINITY_VALUE}, {0.0f, 0.0f}};
        float shrink[2];
        const auto soften_step = [&](i32 step) {
            const i32 first = step * OTHERS;
            if (falling) {
                UNROLL for (int i = 0; i < OTHERS / 2; i++) s[i] *= scale;
            }
            const i32 left[2] = {seen(row + g) - first - 2 * t, seen(row + g + 8) - first - 2 * t};
            soften(s, rows, shrink, factor, first + OTHERS > seen(row), left);
        };
        UNROLL for (int i = 0; i < HEAD / 2; i++) o[i] = 0.0f;

        if (steps > 0) {
            mbarrier_wait(q_full, turns++ & 1);
            mbarrier_wait(k_full + stage_of(passed), parity_of(passed));
            take_turn();
            wgmma_fence(s);
            issue_scores(s, queries, keys + stage_of(passed) * KV_BYTES);
            pass_turn();
            wgmma_wait<0>(s);
            release(k_empty + stage_of(passed));
            soften_step(0);
            pack_rows(p, s);
            for (i32 step = 1; step < steps; step++, passed++) {
                const u32 v_stage = stage_of(passed), k_stage = stage_of(passed + 1);
                mbarrier_wait(k_full + k_stage, parity_of(passed + 1));
                take_turn();
                wgmma_fence(s);
                issue_scores(s, queries, keys + k_stage * KV_BYTES);
                mbarrier_wait(v_full + v_stage, parity_of(passed));
                wgmma_fence(o);
                issue_output(o, p, values + v_stage * KV_BYTES, true);
                pass_turn();
                wgmma_wait<1>(s);
                release(k_empty + k_stage);
                soften_step(step);
                wgmma_wait<0>(o);
                release(v_empty + v_stage);
                UNROLL for (int i = 0; i < HEAD / 2; i++) o[i] *= shrink[i / 2 % 2];
                pack_rows(p, s);
            }
            char* last = values + stage_of(passed) * KV_BYTES;
            mbarrier_wait(v_full + stage_of(passed), parity_of(passed));
            if (const i32 there = tile.count - (steps - 1) * OTHERS; there < OTHERS) {
                clear_rows(last, there, thread);
                fence_async();
                barrier_sync(1 + CONSUMERS + consumer, GROUP);
            }
            wgmma_fence(o);
            issue_output(o, p, last, true);
            wgmma_wait<0>(o);
            release(v_empty + stage_of(passed));
            passed++;
            // The whole warpgroup has read its queries, whose place the output takes.
            barrier_sync(1 + CONSUMERS + consumer, GROUP);
        }

        float inverse[2];
        UNROLL for (int h = 0; h < 2; h++) {
            float total = rows.sum[h];
            total += shuffle_xor(total, 1);
            total += shuffle_xor(total, 2);
            inverse[h] = total > 0.0f ? 1.0f / total : 0.0f;
            const i32 at = row + g + 8 * h;
            if (t == 0 && at < tile.rows)
                lse[i64(head) * tokens + tile.first + at] = total > 0.0f ? rows.maximum[h] * (factor * LN_2) + logf(total) : -INFINITY_VALUE;
        }
        // Each warp stores its own 16 rows, in whole pieces of 16 bytes.
        bf16* to = out + i64(head) * HEAD;
        if (steps > 0) {
            UNROLL for (int i = 0; i < HEAD / 2; i += 2) {
                const i32 column = i / 4 * 8 + 2 * t, h = i / 2 % 2;
                const u32 at = swizzle_128((thread / WARP * 16 + g + 8 * h) * 128 + column % 64 * 2);
                *reinterpret_cast<u32*>(queries + column / 64 * Q_PANEL + at) = pack_bf16(o[i] * inverse[h], o[i + 1] * inverse[h]);
            }
            __syncwarp();
        }
        for (i32 i = lane; i < 16 * DT; i += WARP) {
            const i32 r = i / DT, chunk = i % DT;
            if (row + r >= tile.rows) break;
            Pack<bf16, 8> pack = {};
            if (steps > 0)
                pack = load_pack<8>(reinterpret_cast<const bf16*>(queries + chunk / 8 * Q_PANEL +
                                                                  swizzle_128((thread / WARP * 16 + r) * 128 + chunk % 8 * 16)));
            store_pack(to + i64(tile.first + row + r) * heads * HEAD + chunk * 8, pack);
        }
        if (steps > 0) {
            // The next queries come by TMA, which has to find these writes done.
            fence_async();
            __syncwarp();
            release(q_empty);
        }
    }
    if (consumer == 0) take_turn();
#endif
}
