// Matrix products of float by fused multiply-adds: fp32 throughout, nothing is rounded to TF32.
//
// Knobs: WARPS_M x WARPS_N warps to a block, each of 32 x 64 of the result; BLOCKS to a multiprocessor; A_TRANSPOSED
// when a is stored [k, m], B_TRANSPOSED when b is stored [n, k]; ALIGNED when every row of both starts at a multiple of
// 16 bytes; OUT and ACTIVATION of the epilogue.
#include "bigmac.cuh"
#include "product/epilogue.cuh"
#include "product/raster.cuh"

constexpr int THREADS = WARPS_M * WARPS_N * WARP;
constexpr int TILE_M = 32 * WARPS_M, TILE_N = 64 * WARPS_N, TILE_K = 8;
/// Floats of a 16-byte load.
constexpr int CHUNK = 4;

/// Where element (k, i) of a tile that is EXTENT wide across k lies: row k, whose lower half has its groups of sixteen
/// swapped. So 32 lanes that hold runs along k of 16 neighbouring i write to 32 banks, and groups of four stay whole
/// for those who read.
template <int EXTENT>
DEV int place(int k, int i) { return k * EXTENT + (i ^ k / CHUNK * 16); }

/// Brings tiles of a factor to shared memory, TILE_K by EXTENT, through registers: fetched while the tile before is
/// being used. ALONG_K when k runs along the lines in memory, else across them.
template <int EXTENT, bool ALONG_K>
struct Loader {
    static constexpr int LINES = ALONG_K ? EXTENT : TILE_K, CHUNKS = (ALONG_K ? TILE_K : EXTENT) / CHUNK;
    static constexpr int STEP = THREADS / CHUNKS, PASSES = LINES / STEP;
    static_assert(THREADS % CHUNKS == 0 && LINES % STEP == 0, "a thread keeps its column");

    /// This thread's first chunk of the next tile.
    const float* from;
    i64 leading;
    /// What the matrix has from this thread's first chunk on: lines across k and elements along it, or the other way
    /// round. Along k it is `along` less than the tile has.
    i32 across, along;
    float held[PASSES][CHUNK];

    /// From element (line 0, element 0) of the first tile on, with `extent` lines or elements left in the matrix across
    /// k.
    METHOD Loader(const float* first, i64 leading, i32 extent) : leading(leading) {
        from = first + line() * leading + chunk();
        across = extent - (ALONG_K ? line() : chunk());
        along = ALONG_K ? chunk() : line();
    }

    METHOD static int line() { return threadIdx.x / CHUNKS; }
    METHOD static int chunk() { return threadIdx.x % CHUNKS * CHUNK; }

    /// Loads the next tile, of which the matrix has `left` elements along k, into registers.
    METHOD void fetch(i32 left) {
        const i32 lines = ALONG_K ? across : left - along, elements = ALONG_K ? left - along : across;
        UNROLL for (int pass = 0; pass < PASSES; pass++) {
            const float* p = from + pass * STEP * leading;
            const i32 count = pass * STEP < lines ? elements : 0;
            if (ALIGNED && count >= CHUNK) {
                const Pack<float, CHUNK> pack = load_pack<CHUNK>(p);
                UNROLL for (int e = 0; e < CHUNK; e++) held[pass][e] = pack.at[e];
            } else {
                UNROLL for (int e = 0; e < CHUNK; e++) held[pass][e] = e < count ? p[e] : 0.0f;
            }
        }
        from += ALONG_K ? i64(TILE_K) : TILE_K * leading;
    }

    /// Stores what was fetched last.
    METHOD void put(float* tile) const {
        UNROLL for (int pass = 0; pass < PASSES; pass++) {
            const int at = line() + pass * STEP;
            if (ALONG_K) {
                UNROLL for (int e = 0; e < CHUNK; e++) tile[place<EXTENT>(chunk() + e, at)] = held[pass][e];
            } else {
                Pack<float, CHUNK> pack;
                UNROLL for (int e = 0; e < CHUNK; e++) pack.at[e] = held[pass][e];
                store_pack(tile + place<EXTENT>(at, chunk()), pack);
            }
        }
    }
};

/// A thread's eight rows or columns of the tile: four from `first`, and four `apart` after them.
template <int EXTENT>
DEV void load_eight(float (&v)[8], const float* tile, int k, int first, int apart) {
    UNROLL for (int half = 0; half < 2; half++) {
        const Pack<float, 4> pack = load_pack<4>(tile + place<EXTENT>(k, first + half * apart));
        UNROLL for (int e = 0; e < 4; e++) v[half * 4 + e] = pack.at[e];
    }
}

/// `c = epilogue(a b)` for each of a batch, or one of `gridDim.y` partial sums of it; parameters, grid and splits as
/// those of product_mma. block THREADS: a thread has 8 x 8 sums, those of a warp 4 x 8 threads.
KERNEL __launch_bounds__(THREADS, BLOCKS) void product_ffma(const float* __restrict__ a, const float* __restrict__ b, Out* c, const float* bias,
                                                    const Out* residual, i32 m, i32 n, i32 k, i64 a_leading, i64 b_leading,
                                                    i64 c_leading, i64 a_stride, i64 b_stride, i64 c_stride, i32 per_split,
                                                    i64 split_stride, float alpha, u32 flags) {
    SHARED float a_tiles[2][TILE_K * TILE_M];
    SHARED float b_tiles[2][TILE_K * TILE_N];
    const u32 tile_rows = ceil_div(m, TILE_M), tile_columns = ceil_div(n, TILE_N);
    const u32 matrix = blockIdx.x / (tile_rows * tile_columns);
    const Tile tile = tile_at(blockIdx.x % (tile_rows * tile_columns), tile_rows, tile_columns);
    const i32 row = tile.row * TILE_M, column = tile.column * TILE_N;
    const i32 start = blockIdx.y * per_split, end = least(k, start + per_split);
    const int tiles = most(0, ceil_div(end - start, TILE_K));

    const float* a_first = a + matrix * a_stride + (A_TRANSPOSED ? start * a_leading + row : row * a_leading + start);
    const float* b_first = b + matrix * b_stride + (B_TRANSPOSED ? column * b_leading + start : start * b_leading + column);
    Loader<TILE_M, !A_TRANSPOSED> a_loader(a_first, a_leading, m - row);
    Loader<TILE_N, B_TRANSPOSED> b_loader(b_first, b_leading, n - column);

    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int thread_row = warp / WARPS_N * 32 + lane / 8 * 4, thread_column = warp % WARPS_N * 64 + lane % 8 * 4;
    float sums[8][8] = {};
    if (tiles > 0) {
        a_loader.fetch(end - start);
        b_loader.fetch(end - start);
        a_loader.put(a_tiles[0]);
        b_loader.put(b_tiles[0]);
        __syncthreads();
    }
    for (int t = 0; t < tiles; t++) {
        const bool more = t + 1 < tiles;
        if (more) {
            a_loader.fetch(end - start - (t + 1) * TILE_K);
            b_loader.fetch(end - start - (t + 1) * TILE_K);
        }
        UNROLL for (int step = 0; step < TILE_K; step++) {
            float x[8], y[8];
            load_eight<TILE_M>(x, a_tiles[t % 2], step, thread_row, 16);
            load_eight<TILE_N>(y, b_tiles[t % 2], step, thread_column, 32);
            UNROLL for (int i = 0; i < 8; i++) UNROLL for (int j = 0; j < 8; j++) sums[i][j] += x[i] * y[j];
        }
        // No thread reads the other buffer any more: all have passed the barrier after the tile before.
        if (more) {
            a_loader.put(a_tiles[(t + 1) % 2]);
            b_loader.put(b_tiles[(t + 1) % 2]);
            __syncthreads();
        }
    }

    const i64 c_columns = ACTIVATION == SILU_GATE ? n / 2 : n;
    const Epilogue to = {c + matrix * c_stride + blockIdx.y * split_stride, c_leading, bias, residual + i64(matrix) * m * c_columns, n, alpha, flags};
    UNROLL for (int i = 0; i < 8; i++) {
        const i32 c_row = row + thread_row + i / 4 * 16 + i % 4;
        if (c_row >= m) continue;
        UNROLL for (int half = 0; half < 2; half++) {
            const i32 c_column = column + thread_column + half * 32;
            float v[4];
            UNROLL for (int e = 0; e < 4; e++) v[e] = sums[i][half * 4 + e];
            if (c_column < n) finish(to, v, c_row, c_column);
        }
    }
}
