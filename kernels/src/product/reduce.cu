// The second half of a product whose sum over k was split.
//
// Knobs: OUT and ACTIVATION of the epilogue.
#include "bigmac.cuh"
#include "product/epilogue.cuh"

/// `c = epilogue(sum of partial sums)` for each of a batch: partial [splits, batch, m, n], added from the first split
/// to the last. grid and block in one dimension: a thread has a run of four columns.
KERNEL void product_reduce(const float* __restrict__ partial, Out* c, const T* bias, const Out* residual, i32 splits, i32 batch, i32 m,
                           i32 n, i64 c_leading, i64 c_stride, float alpha, u32 flags) {
    constexpr int RUN = 4;
    const i64 runs = ceil_div(n, RUN), index = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    const i64 row = index / runs, matrix = row / m;
    if (matrix >= batch) return;
    const i32 column = i32(index % runs) * RUN;
    const i64 split_stride = i64(batch) * m * n;
    const float* from = partial + row * n + column;
    float v[RUN] = {};
    for (i32 s = 0; s < splits; s++) {
        float part[RUN];
        load_run(part, from + s * split_stride, n - column);
        UNROLL for (int i = 0; i < RUN; i++) v[i] += part[i];
    }
    const i64 c_columns = ACTIVATION == SILU_GATE ? n / 2 : n;
    const Epilogue to = {c + matrix * c_stride, c_leading, bias, residual + matrix * m * c_columns, n, alpha, flags};
    finish(to, v, row % m, column);
}
