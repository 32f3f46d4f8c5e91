// Tiles of attention: how they lie in shared memory, how they come and go, and the two products of a warp that forward
// and backward are made of. Each is there for bf16 (tensor cores) and for float (fused multiply-adds) with the same
// layout of results, so that the kernels are written once.
//
// Knobs: HEAD, the columns of a tile: the head size, padded with zeros to a multiple of 16; EXACT, whether it is the
// head size; ALIGNED, whether all inputs can be read 16 bytes at a time; WARPS, warps of a block; MT, how many times 16
// rows a warp owns.
#pragma once

#include "attention/tile.cuh"
#include "bigmac.cuh"

/// Elements of a chunk of 16 bytes, and chunks of a row.
constexpr int PER = 16 / sizeof(T), CHUNKS = HEAD / PER;
/// Chunks from a row to the next. Eight rows at the same column have to lie in different banks: where a row is a
/// multiple of all banks its chunks are permuted by the row's number, else an odd pitch does it.
constexpr bool PERMUTED = CHUNKS % 8 == 0;
constexpr int PITCH = PERMUTED ? CHUNKS : CHUNKS | 1;
/// Elements of a tile's row in shared memory.
constexpr int ROW = PITCH * PER;
constexpr int THREADS = WARPS * WARP;
/// Rows that a warp owns, and those of its block.
constexpr int WARP_ROWS = 16 * MT, ROWS = WARPS * WARP_ROWS;

/// The place of a chunk in a tile.
template <class E>
DEV E* at(E* tile, i32 row, i32 chunk) { return tile + row * ROW + (PERMUTED ? chunk ^ (row & 7) : chunk) * PER; }

/// One chunk of a row of `dim` columns: zeros where the row is not `there`, and past the last column.
DEV void load_chunk(T* to, const T* from, i32 dim, i32 chunk, bool there) {
    if constexpr (ALIGNED) {
        const i32 bytes = EXACT ? 16 : most(0, least(16, (dim - chunk * PER) * i32(sizeof(T))));
        copy_async_16(to, from, there ? bytes : 0);
    } else {
        Pack<T, PER> pack;
        UNROLL
        for (i32 e = 0; e < PER; e++) pack.at[e] = there && chunk * PER + e < dim ? from[e] : from_float<T>(0.0f);
        store_pack(to, pack);
    }
}

/// Starts loading `N` rows of `dim` columns, of which `rows` are there, by all threads of the block.
template <int N>
DEV void load_tile(T* tile, const T* from, i64 stride, i32 dim, i32 rows) {
    const i32 thread = threadIdx.x;
    if constexpr (THREADS % CHUNKS == 0) {
        // A thread keeps its column: only the row moves on.
        constexpr i32 STEP = THREADS / CHUNKS;
        const i32 chunk = thread % CHUNKS;
        const T* p = from + thread / CHUNKS * stride + chunk * PER;
        UNROLL
        for (i32 i = 0; i < N; i += STEP) {
            const i32 row = i + thread / CHUNKS;
            if (N % STEP == 0 || row < N) load_chunk(at(tile, row, chunk), p, dim, chunk, row < rows);
            p += STEP * stride;
        }
    } else {
        for (i32 i = thread; i < N * CHUNKS; i += THREADS) {
            const i32 row = i / CHUNKS, chunk = i % CHUNKS;
            load_chunk(at(tile, row, chunk), from + row * stride + chunk * PER, dim, chunk, row < rows);
        }
    }
}

// ---- products of a warp ---------------------------------------------------------------------------------------------
//
// Sums of a warp are `float x[MT][N / 8][4]`: with g = lane / 4 and t = lane % 4, x[i][j][2 h + e] is row 16 i + g + 8
// h, column 8 j + 2 t + e.

template <int NT>
DEV void clear(float (&x)[MT][NT][4]) {
    UNROLL
    for (i32 i = 0; i < MT; i++) UNROLL
        for (i32 j = 0; j < NT; j++) UNROLL
            for (i32 e = 0; e < 4; e++) x[i][j][e] = 0.0f;
}

/// x = a b^T of the warp's rows of `a` (from its first on) and the 8 NT rows of `b`, over all columns.
template <int NT>
DEV void scores(float (&x)[MT][NT][4], const bf16* a, const bf16* b) {
    static_assert(NT % 2 == 0, "fragments of b come in pairs");
    const i32 lane = threadIdx.x % WARP;
    clear(x);
    UNROLL
    for (i32 k = 0; k < HEAD / 16; k++) {
        u32 fa[MT][4];
        UNROLL
        for (i32 i = 0; i < MT; i++) ldmatrix_x4(fa[i], at(a, i * 16 + lane % 16, k * 2 + lane / 16));
        UNROLL
        for (i32 j = 0; j < NT; j += 2) {
            u32 fb[4];
            ldmatrix_x4(fb, at(b, j * 8 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
            const u32 left[2] = {fb[0], fb[1]}, right[2] = {fb[2], fb[3]};
            UNROLL
            for (i32 i = 0; i < MT; i++) {
                mma_bf16(x[i][j], fa[i], left);
                mma_bf16(x[i][j + 1], fa[i], right);
            }
        }
    }
}

/// x += p b of the warp's [16 MT, 8 NT] sums `p`, rounded to bf16, and 8 DT columns of `b` from chunk `first` on. No
/// scratch is needed: sums of one product lie as the next one's left side does.
template <int DT, int NT>
DEV void accumulate(float (&x)[MT][DT][4], const float (&p)[MT][NT][4], const bf16* b, i32 first, bf16*) {
    static_assert(DT % 2 == 0, "fragments of b come in pairs");
    const i32 lane = threadIdx.x % WARP;
    UNROLL
    for (i32 k = 0; k < NT / 2; k++) {
        u32 fa[MT][4];
        UNROLL
        for (i32 i = 0; i < MT; i++) UNROLL
            for (i32 h = 0; h < 4; h++) fa[i][h] = pack_bf16(p[i][2 * k + h / 2][h % 2 * 2], p[i][2 * k + h / 2][h % 2 * 2 + 1]);
        UNROLL
        for (i32 j = 0; j < DT; j += 2) {
            u32 fb[4];
            ldmatrix_x4_trans(fb, at(b, k * 16 + lane % 16, first + j + lane / 16));
            const u32 left[2] = {fb[0], fb[1]}, right[2] = {fb[2], fb[3]};
            UNROLL
            for (i32 i = 0; i < MT; i++) {
                mma_bf16(x[i][j], fa[i], left);
                mma_bf16(x[i][j + 1], fa[i], right);
            }
        }
    }
}

template <int NT>
DEV void scores(float (&x)[MT][NT][4], const float* a, const float* b) {
    const i32 lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    clear(x);
    ROLLED
    for (i32 c = 0; c < CHUNKS; c++) {
        Pack<float, 4> rows[MT][2];
        UNROLL
        for (i32 i = 0; i < MT * 2; i++) rows[i / 2][i % 2] = load_pack<4>(at(a, i * 8 + g, c));
        UNROLL
        for (i32 j = 0; j < NT * 2; j++) {
            const auto column = load_pack<4>(at(b, j / 2 * 8 + 2 * t + j % 2, c));
            UNROLL
            for (i32 i = 0; i < MT * 2; i++) UNROLL
                for (i32 e = 0; e < 4; e++) x[i / 2][j / 2][i % 2 * 2 + j % 2] += rows[i / 2][i % 2].at[e] * column.at[e];
        }
    }
}

/// Floats of scratch that `accumulate` wants from each row of the block, for 8 NT columns of p.
template <int NT>
constexpr int SCRATCH = sizeof(T) == 4 ? NT * 8 + 4 : 0;

/// The warp's rows of p go through `scratch`, [ROWS, SCRATCH], where other lanes find them.
template <int DT, int NT>
DEV void accumulate(float (&x)[MT][DT][4], const float (&p)[MT][NT][4], const float* b, i32 first, float* scratch) {
    const i32 lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    float* mine = scratch + threadIdx.x / WARP * WARP_ROWS * SCRATCH<NT>;
    __syncwarp();
    UNROLL
    for (i32 i = 0; i < MT * 2; i++) UNROLL
        for (i32 j = 0; j < NT; j++) {
            const float* from = p[i / 2][j] + i % 2 * 2;
            store_pack(mine + (i * 8 + g) * SCRATCH<NT> + j * 8 + 2 * t, Pack<float, 2>{{from[0], from[1]}});
        }
    __syncwarp();
    // Many columns leave few registers for rows of b that are loaded ahead.
    constexpr i32 STEP = MT * DT > 16 ? 2 : 4;
    ROLLED
    for (i32 k = 0; k < NT * 8; k += STEP) {
        Pack<float, STEP> rows[MT * 2];
        UNROLL
        for (i32 i = 0; i < MT * 2; i++) rows[i] = load_pack<STEP>(mine + (i * 8 + g) * SCRATCH<NT> + k);
        UNROLL
        for (i32 e = 0; e < STEP; e++) UNROLL
            for (i32 j = 0; j < DT; j++) {
                const auto pair = load_pack<2>(at(b, k + e, first + j * 2 + t / 2) + t % 2 * 2);
                UNROLL
                for (i32 i = 0; i < MT * 2; i++) {
                    x[i / 2][j][i % 2 * 2] += rows[i].at[e] * pair.at[0];
                    x[i / 2][j][i % 2 * 2 + 1] += rows[i].at[e] * pair.at[1];
                }
            }
    }
}

// ---- the way out ----------------------------------------------------------------------------------------------------

DEV void put_pair(bf16* to, float a, float b) { *reinterpret_cast<u32*>(to) = pack_bf16(a, b); }
DEV void put_pair(float* to, float a, float b) { store_pack(to, Pack<float, 2>{{a, b}}); }

/// Writes the warp's sums, times a factor per row, to `rows` rows of `dim` columns from `to` on, columns from chunk
/// `first` on. They go through `tile`, the warp's own rows of a tile that is not read any more, so that whole chunks
/// are stored.
template <int DT>
DEV void store_rows(T* to, i64 stride, i32 dim, i32 rows, T* tile, i32 first, const float (&x)[MT][DT][4],
                    const float (&factor)[MT][2]) {
    const i32 lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    UNROLL
    for (i32 i = 0; i < MT; i++) UNROLL
        for (i32 j = 0; j < DT; j++) UNROLL
            for (i32 h = 0; h < 2; h++) {
                const i32 column = j * 8 + 2 * t;
                T* place = at(tile, i * 16 + h * 8 + g, first + column / PER) + column % PER;
                put_pair(place, x[i][j][2 * h] * factor[i][h], x[i][j][2 * h + 1] * factor[i][h]);
            }
    __syncwarp();
    constexpr i32 WIDTH = DT * 8 / PER;
    for (i32 i = lane; i < WARP_ROWS * WIDTH; i += WARP) {
        const i32 row = i / WIDTH, chunk = first + i % WIDTH;
        if (row >= rows) break;
        const auto pack = load_pack<PER>(at(tile, row, chunk));
        T* place = to + row * stride + chunk * PER;
        if (EXACT || dim % PER == 0) {
            if (EXACT || chunk * PER < dim) store_pack(place, pack);
        } else {
            UNROLL
            for (i32 e = 0; e < PER; e++)
                if (chunk * PER + e < dim) place[e] = pack.at[e];
        }
    }
}
