// Matrix products of bf16 on Hopper: tiles come by TMA, products are the warpgroups' own (wgmma), fp32 sums.
//
// Knobs: TILE_M x TILE_N of the result to a tile, STAGES tiles of a and b in flight; CLUSTER_M x CLUSTER_N blocks to a
// cluster, a single one or several in a line: those one above the other (CLUSTER_M) load each tile of b together, those
// side by side (CLUSTER_N) each tile of a; A_TRANSPOSED when a is stored [k, m], B_TRANSPOSED when b is stored [n, k];
// OUT and ACTIVATION of the epilogue, BAND of the order of tiles.
#include "bigmac.cuh"
#include "hopper.cuh"
#include "product/epilogue.cuh"
#include "product/raster.cuh"

/// Elements of k to a stage: a row of the 128-byte swizzle.
constexpr int TILE_K = 64;
/// Blocks to a cluster, which share one of the factors.
constexpr int CLUSTER = CLUSTER_M * CLUSTER_N;
static_assert(CLUSTER_M == 1 || CLUSTER_N == 1, "a block's rank says which share of the one factor it loads for all");
/// A warpgroup loads, the others each compute as many rows of the tile.
constexpr int GROUP = 128, CONSUMERS = 2, THREADS = GROUP * (1 + CONSUMERS);
/// Products of 64 rows to a consumer.
constexpr int PARTS = TILE_M / CONSUMERS / 64;
constexpr int A_BYTES = TILE_M * TILE_K * 2, B_BYTES = TILE_N * TILE_K * 2, STAGE_BYTES = A_BYTES + B_BYTES;
/// Columns of c that 128 bytes hold, and those of the product before the activation: what a consumer stores at a time,
/// 64 rows high.
constexpr int STORE_COLUMNS = 128 / sizeof(Out), STORE_SUMS = STORE_COLUMNS * (ACTIVATION == SILU_GATE ? 2 : 1), STORE_BYTES = 64 * 128;
/// Tiles on their way out, per consumer.
constexpr int STORES = 2;
constexpr int BARRIERS = STAGES * STAGE_BYTES + CONSUMERS * STORES * STORE_BYTES;
static_assert(TILE_M % (CONSUMERS * 64) == 0 && TILE_N % STORE_SUMS == 0, "whole products and stores");
static_assert(TILE_M % (64 * CLUSTER_N) == 0 && TILE_N % (64 * CLUSTER_M) == 0, "whole loads");

/// A tile of c: its matrix, and of c's matrices the one that takes it; first row, column and element of k; stages that
/// its sums take.
struct Place {
    i32 matrix, target, row, column, k, steps;
};

/// The tiles that a cluster computes one after the other.
struct Walk {
    u32 rows, columns, matrices, count;
    i32 k, per_split;

    METHOD Walk(i32 m, i32 n, i32 k, i32 matrices, i32 splits, i32 per_split)
        : rows(ceil_div(m, TILE_M * CLUSTER_M)), columns(ceil_div(n, TILE_N * CLUSTER_N)), matrices(matrices),
          count(rows * columns * matrices * splits), k(k), per_split(per_split) {}

    /// Number `index` of all, for block `rank` of the cluster.
    METHOD Place at(u32 index, u32 rank) const {
        const u32 target = index / (rows * columns);
        const Tile tile = tile_at(index % (rows * columns), rows, columns);
        const i32 start = i32(target / matrices) * per_split;
        const i32 row = tile.row * CLUSTER_M + (CLUSTER_M > 1 ? i32(rank) : 0), column = tile.column * CLUSTER_N + (CLUSTER_N > 1 ? i32(rank) : 0);
        return {i32(target % matrices), i32(target), row * TILE_M, column * TILE_N, start, ceil_div(least(per_split, k - start), TILE_K)};
    }
};

/// A stage of the ring, and the parity of the phase that its barriers are in.
struct Ring {
    u32 stage = 0, parity = 0;

    METHOD void next() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

#if HOPPER

/// Loads TILE_LINES x 64 elements of a factor: in one piece when those along k are neighbours, else in pieces of 64
/// across k. Of a factor that SHARERS blocks have in common, each loads its share for all.
template <int TILE_LINES, bool BY_K, int SHARERS>
DEV void load_factor(char* tile, const TensorMap* map, u64* full, i32 across, i32 k, i32 matrix, u32 rank) {
    constexpr int LINES = TILE_LINES / SHARERS, PIECE = BY_K ? LINES : 64;
    UNROLL for (int line = 0; line < LINES; line += PIECE) {
        const int at = (SHARERS > 1 ? i32(rank) * LINES : 0) + line;
        char* to = tile + at * TILE_K * 2;
        const i32 x = BY_K ? k : across + at, y = BY_K ? across + at : k;
        if (SHARERS > 1) {
            tma_load_multicast(to, map, full, (1 << SHARERS) - 1, x, y, matrix);
        } else {
            tma_load(to, map, full, x, y, matrix);
        }
    }
}

/// Descriptor of a factor's tile from line `line` on, and how far 16 elements along k are.
template <bool BY_K>
DEV u64 factor_descriptor(const char* tile, int line) {
    // A row holds 64 elements: of k, eight rows after each other; or of m or n, one row for each k.
    return BY_K ? matrix_descriptor(tile + line * 128, 16, 1024) : matrix_descriptor(tile + line / 64 * TILE_K * 128, TILE_K * 128, 1024);
}
template <bool BY_K>
constexpr int K_STEP = BY_K ? 16 * 2 : 16 * 128;

/// What becomes of the sums of one matrix. Columns are even in number, so that a pair lies on one side of the edge.
struct Result {
    const bf16* bias;
    /// Like c, without gaps; there is none with SILU_GATE.
    const Out* residual;
    i32 rows, columns;
    float alpha;
    u32 flags;
};

/// Turns a thread's sums, the part of them that is stored at once, into elements of c: with SILU_GATE the first of
/// every pair. `row` and `column` are those of sums[0] in the product.
DEV void finish_sums(float* sums, const Result& to, i32 row, i32 column) {
    UNROLL for (int i = 0; i < STORE_SUMS / 2; i++) sums[i] *= to.alpha;
    if (to.flags & HAS_BIAS) {
        UNROLL for (int i = 0; i < STORE_SUMS / 2; i += 4) {
            Pack<bf16, 2> bias = {};
            if (column + i * 2 < to.columns) bias = load_pack<2>(to.bias + column + i * 2);
            UNROLL for (int e = 0; e < 4; e++) sums[i + e] += to_float(bias.at[e % 2]);
        }
    }
    constexpr bool GATED = ACTIVATION == SILU_GATE;
    UNROLL for (int i = 0; i < STORE_SUMS / 2; i += 2) {
        if (GATED) {
            sums[i] = sums[i] * sigmoid(sums[i]) * sums[i + 1];
        } else {
            sums[i] = activated<ACTIVATION>(sums[i]);
            sums[i + 1] = activated<ACTIVATION>(sums[i + 1]);
        }
    }
    if (!GATED && (to.flags & HAS_RESIDUAL)) {
        UNROLL for (int i = 0; i < STORE_SUMS / 2; i += 2) {
            const i32 at = column + i / 4 * 8, line = row + i / 2 % 2 * 8;
            if (at >= to.columns || line >= to.rows) continue;
            const Pack<Out, 2> old = load_pack<2>(to.residual + i64(line) * to.columns + at);
            UNROLL for (int e = 0; e < 2; e++) sums[i + e] += to_float(old.at[e]);
        }
    }
}

/// Writes a thread's elements of c to a tile of 64 rows of 128 bytes, swizzled; without bank conflicts.
DEV void stage_sums(char* tile, const float* sums) {
    const u32 thread = threadIdx.x % GROUP, row = accumulator_row(thread, 0), pair = thread % 4;
    auto at = [&](u32 r, u32 byte) { return tile + swizzle_128(r * 128 + byte); };
    if constexpr (ACTIVATION == SILU_GATE) {
        UNROLL for (int i = 0; i < STORE_SUMS / 2; i += 2)
            *reinterpret_cast<Out*>(at(row + i / 2 % 2 * 8, (i / 4 * 4 + pair) * sizeof(Out))) = from_float<Out>(sums[i]);
    } else if constexpr (sizeof(Out) == 2) {
        const u32 lane = thread % WARP;
        UNROLL for (int i = 0; i < STORE_SUMS / 2; i += 8) {
            u32 words[4];
            UNROLL for (int e = 0; e < 4; e++) words[e] = pack_bf16(sums[i + 2 * e], sums[i + 2 * e + 1]);
            stmatrix_x4(at(thread / WARP * 16 + lane % 16, i * 4 + lane / 16 * 16), words);
        }
    } else {
        // Of 16 lanes that write at a time, those in odd rows take another of the four blocks of eight columns: they
        // would meet the even ones.
        const bool odd = row % 2;
        UNROLL for (int i = 0; i < STORE_SUMS / 4; i += 2) {
            const int other = i + STORE_SUMS / 4;
            const u32 first = i / 4 * 32 + (odd ? 64 : 0);
            Pack<float, 2> one = {{odd ? sums[other] : sums[i], odd ? sums[other + 1] : sums[i + 1]}};
            Pack<float, 2> two = {{odd ? sums[i] : sums[other], odd ? sums[i + 1] : sums[other + 1]}};
            const u32 r = row + i / 2 % 2 * 8;
            store_pack(reinterpret_cast<float*>(at(r, first + pair * 8)), one);
            store_pack(reinterpret_cast<float*>(at(r, (first ^ 64) + pair * 8)), two);
        }
    }
}

/// Sends a consumer's 64 x TILE_N sums on their way, to `row` and `column` of matrix `target`. `turn` counts its
/// stores.
DEV void store_sums(float (&sums)[TILE_N / 2], const Result& to, const TensorMap* map, char* tiles, u32 consumer, u32& turn, i32 target,
                    i32 row, i32 column) {
    const u32 thread = threadIdx.x % GROUP;
    UNROLL for (int part = 0; part < TILE_N / STORE_SUMS; part++) {
        float* mine = sums + part * STORE_SUMS / 2;
        const i32 first = column + part * STORE_SUMS;
        char* tile = tiles + turn++ % STORES * STORE_BYTES;
        finish_sums(mine, to, row + accumulator_row(thread, 0), first + accumulator_column(thread, 0));
        // The store that used this tile last has read it.
        if (thread == 0) tma_wait_read<STORES - 1>();
        barrier_sync(1 + consumer, GROUP);
        stage_sums(tile, mine);
        fence_async();
        barrier_sync(1 + consumer, GROUP);
        if (thread == 0) {
            const i32 x = ACTIVATION == SILU_GATE ? first / 2 : first;
            if (sizeof(Out) == 4 && (to.flags & ACCUMULATE)) {
                tma_add(map, tile, x, row, target);
            } else {
                tma_store(map, tile, x, row, target);
            }
            tma_commit();
        }
    }
}

#endif

/// `c = epilogue(a b)` for each of `matrices`; a is m x k and b is k x n, both with k > 0, as the maps describe them,
/// in tiles of 64 elements by TILE_M / CLUSTER_N or TILE_N / CLUSTER_M lines along k, or 64 along m or n by TILE_K; c
/// in tiles of 128 bytes by 64 rows. With several `splits`, split s sums elements s per_split (a multiple of TILE_K) up
/// to (s + 1) per_split of k, and its matrices follow those of s - 1. grid any number of clusters, block THREADS,
/// shared memory BARRIERS + 16 STAGES bytes.
///
/// One thread of the first warpgroup loads tile after tile, STAGES of them ahead of the other two warpgroups, each of
/// which computes half the rows of every tile of c; so the loads of the next tile of c are under way while this one is
/// stored. One block to a multiprocessor, so that the registers at entry are known, which registers_grow and
/// registers_shrink count from.
KERNEL __launch_bounds__(THREADS, 1) void product_hopper(const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap b_map,
                                                         const __grid_constant__ TensorMap c_map, const bf16* bias, const Out* residual,
                                                         i32 m, i32 n, i32 k, i32 matrices, i32 splits, i32 per_split, float alpha,
                                                         u32 flags) {
#if HOPPER
    SHARED_DYNAMIC(char, shared);
    char* stores = shared + STAGES * STAGE_BYTES;
    // `full` counts the bytes of a stage; `empty` the warps, in the whole cluster, that have read it.
    u64* full = reinterpret_cast<u64*>(shared + BARRIERS);
    u64* empty = full + STAGES;
    const u32 rank = CLUSTER > 1 ? cluster_rank() : 0;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(full + s, 1);
            mbarrier_init(empty + s, CLUSTER * CONSUMERS * GROUP / WARP);
        }
        fence_barrier_init();
        tma_prefetch(&a_map);
        tma_prefetch(&b_map);
        tma_prefetch(&c_map);
    }
    if (CLUSTER > 1) {
        cluster_sync();
    } else {
        __syncthreads();
    }

    const Walk walk(m, n, k, matrices, splits, per_split);
    Ring ring;
    if (threadIdx.x < GROUP) {
        registers_shrink<56>();
        if (threadIdx.x == 0) {
            for (u32 index = blockIdx.x / CLUSTER; index < walk.count; index += gridDim.x / CLUSTER) {
                const Place place = walk.at(index, rank);
                for (i32 step = 0; step < place.steps; step++, ring.next()) {
                    const i32 at = place.k + step * TILE_K;
                    char* stage = shared + ring.stage * STAGE_BYTES;
                    mbarrier_wait(empty + ring.stage, ring.parity ^ 1);
                    mbarrier_expect(full + ring.stage, STAGE_BYTES);
                    load_factor<TILE_M, !A_TRANSPOSED, CLUSTER_N>(stage, &a_map, full + ring.stage, place.row, at, place.matrix, rank);
                    load_factor<TILE_N, B_TRANSPOSED, CLUSTER_M>(stage + A_BYTES, &b_map, full + ring.stage, place.column, at,
                                                               place.matrix, rank);
                }
            }
        }
        __syncwarp();
    } else {
        registers_grow<224>();
        const u32 consumer = threadIdx.x / GROUP - 1, lane = threadIdx.x % WARP;
        const int first = consumer * PARTS * 64;
        char* tiles = stores + consumer * STORES * STORE_BYTES;
        u32 turn = 0;
        auto release = [&](u32 stage) {
            if (CLUSTER > 1) {
                if (lane < CLUSTER) mbarrier_arrive_at(empty + stage, lane);
            } else if (lane == 0) {
                mbarrier_arrive(empty + stage);
            }
        };
        for (u32 index = blockIdx.x / CLUSTER; index < walk.count; index += gridDim.x / CLUSTER) {
            const Place place = walk.at(index, rank);
            float sums[PARTS][TILE_N / 2];
            u32 before = 0;
            wgmma_fence(sums);
            for (i32 step = 0; step < place.steps; step++, ring.next()) {
                const char* stage = shared + ring.stage * STAGE_BYTES;
                mbarrier_wait(full + ring.stage, ring.parity);
                wgmma_fence();
                const u64 b = factor_descriptor<B_TRANSPOSED>(stage + A_BYTES, 0);
                UNROLL for (int i = 0; i < TILE_K / 16; i++)
                    UNROLL for (int part = 0; part < PARTS; part++) {
                        const u64 a = factor_descriptor<!A_TRANSPOSED>(stage, first + part * 64);
                        wgmma<TILE_N, A_TRANSPOSED, !B_TRANSPOSED>(sums[part], descriptor_advance(a, i * K_STEP<!A_TRANSPOSED>),
                                                                   descriptor_advance(b, i * K_STEP<B_TRANSPOSED>), step + i > 0);
                    }
                wgmma_commit();
                // The tensor cores go on with this stage while the one before is handed back.
                wgmma_wait<1>();
                if (step > 0) release(before);
                before = ring.stage;
            }
            wgmma_wait<0>(sums);
            release(before);
            const Result to = {bias, residual + i64(place.matrix) * m * n, m, n, alpha, flags};
            UNROLL for (int part = 0; part < PARTS; part++)
                store_sums(sums[part], to, &c_map, tiles, consumer, turn, place.target, place.row + first + part * 64, place.column);
        }
        if (threadIdx.x % GROUP == 0) tma_wait_read<0>();
    }
    // Nobody leaves while another block may still write to its shared memory.
    if (CLUSTER > 1) cluster_sync();
#endif
}
