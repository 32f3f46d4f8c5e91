// Products of very few rows, as in decoding: b is read once, and everything waits for that.
//
// Knobs: ROWS (1, 2, 4 or 8), at least those of the product; ALIGNED when every row of a and b starts at a multiple of
// 16 bytes; OUT and ACTIVATION of the epilogue.
#include "bigmac.cuh"
#include "product/epilogue.cuh"

constexpr int WARPS = 4, COLUMNS = 4;
/// Elements of a 16-byte load.
constexpr int CHUNK = 16 / sizeof(T);

/// The elements `at` to `at + CHUNK` of a row of `k`, zeros past its end.
DEV void load_chunk(float (&v)[CHUNK], const T* row, i32 at, i32 k) {
    if (ALIGNED && at + CHUNK <= k) {
        const Pack<T, CHUNK> pack = load_pack<CHUNK>(row + at);
        UNROLL for (int e = 0; e < CHUNK; e++) v[e] = to_float(pack.at[e]);
    } else {
        UNROLL for (int e = 0; e < CHUNK; e++) v[e] = at + e < k ? to_float(row[at + e]) : 0.0f;
    }
}

/// `c = epilogue(a b)` for each of a batch: a m x k with m <= ROWS, b k x n stored [n, k]. grid (runs of COLUMNS
/// columns times batch), block WARPS x 32. The warps of a block share k: each lane takes every WARPS x 32nd chunk of
/// all the block's columns and of all rows of a.
KERNEL __launch_bounds__(WARPS* WARP) void product_few_rows(const T* __restrict__ a, const T* __restrict__ b, Out* c, const T* bias,
                                                            const Out* residual, i32 m, i32 n, i32 k, i64 a_leading, i64 b_leading,
                                                            i64 c_leading, i64 a_stride, i64 b_stride, i64 c_stride, float alpha,
                                                            u32 flags) {
    SHARED float partial[WARPS][ROWS * COLUMNS];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const u32 runs = ceil_div(n, COLUMNS);
    const i32 column = blockIdx.x % runs * COLUMNS;
    const i64 matrix = blockIdx.x / runs;
    // Rows and columns past the end repeat the last one, and are not stored.
    const T *rows[ROWS], *columns[COLUMNS];
    UNROLL for (int i = 0; i < ROWS; i++) rows[i] = a + matrix * a_stride + least(i, m - 1) * a_leading;
    UNROLL for (int j = 0; j < COLUMNS; j++) columns[j] = b + matrix * b_stride + least(column + j, n - 1) * b_leading;

    float sums[ROWS][COLUMNS] = {};
    for (i32 at = threadIdx.x * CHUNK; at < k; at += WARPS * WARP * CHUNK) {
        float y[COLUMNS][CHUNK];
        UNROLL for (int j = 0; j < COLUMNS; j++) load_chunk(y[j], columns[j], at, k);
        UNROLL for (int i = 0; i < ROWS; i++) {
            float x[CHUNK];
            load_chunk(x, rows[i], at, k);
            UNROLL for (int j = 0; j < COLUMNS; j++) UNROLL for (int e = 0; e < CHUNK; e++) sums[i][j] += x[e] * y[j][e];
        }
    }
    UNROLL for (int i = 0; i < ROWS; i++) {
        UNROLL for (int j = 0; j < COLUMNS; j++) {
            const float sum = warp_sum(sums[i][j]);
            if (lane == 0) partial[warp][i * COLUMNS + j] = sum;
        }
    }
    __syncthreads();

    const i32 row = threadIdx.x;
    if (row >= least(m, ROWS)) return;
    const i64 c_columns = ACTIVATION == SILU_GATE ? n / 2 : n;
    const Epilogue to = {c + matrix * c_stride, c_leading, bias, residual + matrix * m * c_columns, n, alpha, flags};
    float v[COLUMNS];
    UNROLL for (int j = 0; j < COLUMNS; j++) {
        v[j] = 0.0f;
        UNROLL for (int w = 0; w < WARPS; w++) v[j] += partial[w][row * COLUMNS + j];
    }
    finish(to, v, row, column);
}
