// Matrix products of bf16 by mma.sync, with fp32 sums.
//
// Knobs: TILE_M x TILE_N of the result to a block of WARPS_M x WARPS_N warps, TILE_K of the sum to a stage, STAGES
// stages in flight; A_TRANSPOSED when a is stored [k, m], B_TRANSPOSED when b is stored [n, k]; ALIGNED when every row
// of both starts at a multiple of 16 bytes; OUT and ACTIVATION of the epilogue.
#include "bigmac.cuh"
#include "product/epilogue.cuh"
#include "product/raster.cuh"

constexpr int THREADS = WARPS_M * WARPS_N * WARP;
constexpr int WARP_M = TILE_M / WARPS_M, WARP_N = TILE_N / WARPS_N;
constexpr int FRAGMENTS_M = WARP_M / 16, PAIRS_N = WARP_N / 16, STEPS = TILE_K / 16;
static_assert(WARP_M % 16 == 0 && WARP_N % 32 == 0 && TILE_K % 32 == 0 && STAGES >= 2, "shapes of mma.m16n8k16");

/// Elements of one 16-byte chunk, the unit of copies and of ldmatrix.
constexpr int CHUNK = 8;

/// Where chunk `chunk` of line `line` lies in a tile of lines of LENGTH elements. The eight lines that a phase of
/// ldmatrix reads lie in eight different groups of banks, and so do the eight chunks that a phase of stores writes.
template <int LENGTH>
DEV int place(int line, int chunk) {
    constexpr int CHUNKS = LENGTH / CHUNK, SHARING = most(1, 8 / CHUNKS), MASK = least(8, CHUNKS) - 1;
    return line * LENGTH + (chunk ^ (line / SHARING & MASK)) * CHUNK;
}

/// Copies tiles of a factor to shared memory, LINES lines of LENGTH consecutive elements each, one tile after the other
/// along k, which runs along the lines (ALONG_K) or across them. Elements outside the matrix become 0.
template <int LINES, int LENGTH, bool ALONG_K>
struct Loader {
    static constexpr int CHUNKS = LENGTH / CHUNK, STEP = THREADS / CHUNKS, PASSES = ceil_div(LINES, STEP);
    static_assert(THREADS % CHUNKS == 0, "a thread keeps its column");

    /// This thread's first chunk of the next tile.
    const bf16* from;
    i64 leading;
    int line, chunk;
    /// Lines, or elements of this thread's chunk, that the matrix has across k.
    i32 across;

    /// From element (line 0, element 0) of the first tile on, with `extent` lines or elements left in the matrix across
    /// k.
    METHOD Loader(const bf16* first, i64 leading, i32 extent)
        : leading(leading), line(threadIdx.x / CHUNKS), chunk(threadIdx.x % CHUNKS) {
        from = first + line * leading + chunk * CHUNK;
        across = ALONG_K ? extent : extent - chunk * CHUNK;
    }

    /// Starts the copy of the next tile, of which the matrix has `left` elements along k.
    METHOD void load(bf16* tile, i32 left) {
        const i32 lines = ALONG_K ? across : left;
        const i32 valid = most(0, least(CHUNK, ALONG_K ? left - chunk * CHUNK : across));
#if ALIGNED
        UNROLL for (int pass = 0; pass < PASSES; pass++) {
            const int at = line + pass * STEP;
            if (LINES % STEP != 0 && at >= LINES) break;
            copy_async_16(tile + place<LENGTH>(at, chunk), from + pass * STEP * leading, at < lines ? valid * sizeof(bf16) : 0);
        }
#else
        // Copies of 16 bytes need aligned lines. These go through registers, a few at a time.
        ROLLED for (int at = line; at < LINES; at += STEP) {
            const bf16* p = from + (at - line) * leading;
            const i32 elements = at < lines ? valid : 0;
            Pack<bf16, CHUNK> pack;
            UNROLL for (int e = 0; e < CHUNK; e++) pack.at[e] = e < elements ? p[e] : bf16{0};
            store_pack(tile + place<LENGTH>(at, chunk), pack);
        }
#endif
        from += ALONG_K ? LENGTH : LINES * leading;
    }
};

/// A 16x16 fragment of a in the layout of mma_bf16, from row `m` and column `k` of the tile on.
DEV void load_a(u32 (&r)[4], const bf16* tile, int m, int k) {
    const int lane = threadIdx.x % WARP;
#if A_TRANSPOSED
    ldmatrix_x4_trans(r, tile + place<TILE_M>(k + lane / 16 * 8 + lane % 8, m / CHUNK + lane / 8 % 2));
#else
    ldmatrix_x4(r, tile + place<TILE_K>(m + lane % 16, k / CHUNK + lane / 16));
#endif
}

/// Two 16x8 fragments of b, side by side: r[0], r[1] and r[2], r[3].
DEV void load_b(u32 (&r)[4], const bf16* tile, int k, int n) {
    const int lane = threadIdx.x % WARP;
#if B_TRANSPOSED
    ldmatrix_x4(r, tile + place<TILE_K>(n + lane / 16 * 8 + lane % 8, k / CHUNK + lane / 8 % 2));
#else
    ldmatrix_x4_trans(r, tile + place<TILE_N>(k + lane % 16, n / CHUNK + lane / 16));
#endif
}

/// Where a warp lays out 16 rows of sums, to store them by whole runs. Rows are 8 words longer than they need: the four
/// rows that half a warp writes at a time are in different banks. Bit 2 of a column turns with bit 5: so are the eight
/// runs that it reads.
constexpr int SLAB_ROW = WARP_N + 8;
DEV int slab_place(int row, int column) { return row * SLAB_ROW + (column ^ (column >> 5 & 1) << 2); }

/// `c = epilogue(a b)` for each of a batch, or one of `gridDim.y` partial sums of it. a is m x k and b is k x n, stored
/// as the knobs say. grid (tiles of the result times matrices of the batch, splits of k), block THREADS. Block (x, y)
/// sums elements y per_split (a multiple of TILE_K) up to (y + 1) per_split of k, and with split_stride puts them that
/// many elements after those of block (x, y - 1).
///
/// Tiles of a and b come to shared memory STAGES - 1 stages ahead; fragments come to registers one step of 16 ahead.
KERNEL __launch_bounds__(THREADS) void product_mma(const bf16* __restrict__ a, const bf16* __restrict__ b, Out* c, const bf16* bias,
                                                   const Out* residual, i32 m, i32 n, i32 k, i64 a_leading, i64 b_leading,
                                                   i64 c_leading, i64 a_stride, i64 b_stride, i64 c_stride, i32 per_split,
                                                   i64 split_stride, float alpha, u32 flags) {
    SHARED_DYNAMIC(bf16, shared);
    constexpr int A_TILE = TILE_M * TILE_K, STAGE = (TILE_M + TILE_N) * TILE_K;
    const u32 tile_rows = ceil_div(m, TILE_M), tile_columns = ceil_div(n, TILE_N);
    const u32 matrix = blockIdx.x / (tile_rows * tile_columns);
    const Tile tile = tile_at(blockIdx.x % (tile_rows * tile_columns), tile_rows, tile_columns);
    const i32 row = tile.row * TILE_M, column = tile.column * TILE_N;
    const i32 start = blockIdx.y * per_split, end = least(k, start + per_split);
    const int tiles = most(0, ceil_div(end - start, TILE_K));

    const bf16* a_first = a + matrix * a_stride + (A_TRANSPOSED ? start * a_leading + row : row * a_leading + start);
    const bf16* b_first = b + matrix * b_stride + (B_TRANSPOSED ? column * b_leading + start : start * b_leading + column);
    Loader<A_TRANSPOSED ? TILE_K : TILE_M, A_TRANSPOSED ? TILE_M : TILE_K, !A_TRANSPOSED> a_loader(a_first, a_leading, m - row);
    Loader<B_TRANSPOSED ? TILE_N : TILE_K, B_TRANSPOSED ? TILE_K : TILE_N, B_TRANSPOSED> b_loader(b_first, b_leading, n - column);
    auto load_stage = [&](int t) {
        if (t < tiles) {
            bf16* stage = shared + t % STAGES * STAGE;
            a_loader.load(stage, end - start - t * TILE_K);
            b_loader.load(stage + A_TILE, end - start - t * TILE_K);
        }
        // Also without a copy: the waits below count groups.
        copy_async_commit();
    };

    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int warp_row = warp / WARPS_N * WARP_M, warp_column = warp % WARPS_N * WARP_N;
    u32 a_fragments[2][FRAGMENTS_M][4], b_fragments[2][PAIRS_N][4];
    auto load_fragments = [&](int buffer, int t, int step) {
        const bf16* stage = shared + t % STAGES * STAGE;
        UNROLL for (int i = 0; i < FRAGMENTS_M; i++) load_a(a_fragments[buffer][i], stage, warp_row + i * 16, step * 16);
        UNROLL for (int j = 0; j < PAIRS_N; j++) load_b(b_fragments[buffer][j], stage + A_TILE, step * 16, warp_column + j * 16);
    };

    float sums[FRAGMENTS_M][2 * PAIRS_N][4] = {};
    UNROLL for (int t = 0; t < STAGES - 1; t++) load_stage(t);
    if (tiles > 0) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        load_fragments(0, 0, 0);
    }
    for (int t = 0; t < tiles; t++) {
        UNROLL for (int step = 0; step < STEPS; step++) {
            if (step + 1 < STEPS) {
                load_fragments((step + 1) % 2, t, step + 1);
            } else if (t + 1 < tiles) {
                // The next tile is there, and no thread reads the stage any more that the copy below writes.
                copy_async_wait<STAGES - 2>();
                __syncthreads();
                load_fragments(0, t + 1, 0);
            }
            if (step == 0) load_stage(t + STAGES - 1);
            UNROLL for (int i = 0; i < FRAGMENTS_M; i++)
                UNROLL for (int j = 0; j < 2 * PAIRS_N; j++) {
                    const u32 (&pair)[4] = b_fragments[step % 2][j / 2];
                    const u32 half[2] = {pair[j % 2 * 2], pair[j % 2 * 2 + 1]};
                    mma_bf16(sums[i][j], a_fragments[step % 2][i], half);
                }
        }
    }

    // The stages become the warps' slabs: all copies have landed, and every warp has read its fragments.
    copy_async_wait<0>();
    __syncthreads();
    float* slab = reinterpret_cast<float*>(shared) + warp * 16 * SLAB_ROW;
    const i64 c_columns = ACTIVATION == SILU_GATE ? n / 2 : n;
    const Epilogue to = {c + matrix * c_stride + blockIdx.y * split_stride, c_leading, bias, residual + i64(matrix) * m * c_columns, n, alpha, flags};
    constexpr int RUN = 8, RUNS = WARP_N / RUN, ROWS = WARP / RUNS;
    UNROLL for (int i = 0; i < FRAGMENTS_M; i++) {
        UNROLL for (int j = 0; j < 2 * PAIRS_N; j++) {
            UNROLL for (int half = 0; half < 2; half++) {
                Pack<float, 2> pair = {{sums[i][j][2 * half], sums[i][j][2 * half + 1]}};
                store_pack(slab + slab_place(half * 8 + lane / 4, j * 8 + lane % 4 * 2), pair);
            }
        }
        __syncwarp();
        for (int r = lane / RUNS; r < 16; r += ROWS) {
            const i64 c_row = row + warp_row + i * 16 + r;
            const i32 c_column = column + warp_column + lane % RUNS * RUN;
            if (c_row >= m || c_column >= n) continue;
            float v[RUN];
            UNROLL for (int e = 0; e < RUN; e += 4) {
                const Pack<float, 4> part = load_pack<4>(slab + slab_place(r, lane % RUNS * RUN + e));
                UNROLL for (int f = 0; f < 4; f++) v[e + f] = part.at[f];
            }
            finish(to, v, c_row, c_column);
        }
        __syncwarp();
    }
}
