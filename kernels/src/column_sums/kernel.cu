#include "columns.cuh"

// Knobs beside those of the tiles: TERMS, what is summed, as in mod.rs; OUT, the type of the sums as they are written.
constexpr int VALUES = 0, PRODUCTS = 1, SCALED = 2, NORMALISED = 3;

/// What a row multiplies x by, and subtracts from it before.
struct RowTerms {
    float scale, mean;
};

DEV RowTerms row_terms(const float* statistics, i32 row) {
    if (TERMS == SCALED) return {statistics[row], 0.0f};
    if (TERMS == NORMALISED) {
        const Pack<float, 2> both = load_pack<2>(statistics + 2 * i64(row));
        return {both.at[1], both.at[0]};
    }
    return {1.0f, 0.0f};
}

DEV float term(float dy, float x, RowTerms row) {
    if (TERMS == VALUES) return dy;
    if (TERMS == PRODUCTS) return dy * x;
    return dy * ((x - row.mean) * row.scale);
}

DEV void put(float* to, float sum, bool accumulate) { *to = accumulate ? *to + sum : sum; }
DEV void put(bf16* to, float sum, bool) { *to = from_float<bf16>(sum); }

/// Adds the terms of row `row` and each GROUPS further.
template <int N>
DEV void add_rows(Pack<float, VEC>& sum, const T* dy, const T* x, const float* statistics, i32 row, i32 width, i32 column) {
    Held<T, VEC> dys[N], xs[N];
    RowTerms terms[N];
    load_rows(dys, dy, row, width, column);
    if (TERMS != VALUES) load_rows(xs, x, row, width, column);
    UNROLL
    for (int d = 0; d < N; d++) terms[d] = row_terms(statistics, row + d * GROUPS);
    UNROLL
    for (int d = 0; d < N; d++)
        UNROLL
        for (int i = 0; i < VEC; i++) sum.at[i] += term(dys[d][i], TERMS == VALUES ? 0.0f : xs[d][i], terms[d]);
}

/// Sums over strips of `strip` rows of dy [rows, width], or of its products with x: row `s` of `to` gets (or, with
/// `accumulate`, to a float is added) the sums over strip `s`. The sums of all rows are those of one strip, or, with
/// another launch, of the strips' sums.
///
/// Grid: (tiles of COLUMNS columns, strips). Thread (group, lane) sums rows group, group + GROUPS, .. of its strip; the
/// groups' sums are added in order. So the order of a sum depends on the shape alone. x and statistics are not read
/// where TERMS has no use for them.
KERNEL __launch_bounds__(BLOCK) void column_sums(const T* __restrict__ dy, const T* __restrict__ x,
                                                 const float* __restrict__ statistics, OUT* to, i32 rows, i32 width, i32 strip,
                                                 i32 accumulate) {
    SHARED Pack<float, VEC> sums[GROUPS][LANES];
    const i32 lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
    const i32 left = blockIdx.x * COLUMNS, column = left + lane * VEC;
    const i32 first = blockIdx.y * strip, end = least(rows - first, strip) + first;
    Pack<float, VEC> sum{};
    if (column < width) {
        i32 row = first + group;
        for (; row + (DEPTH - 1) * GROUPS < end; row += DEPTH * GROUPS) add_rows<DEPTH>(sum, dy, x, statistics, row, width, column);
        for (; row < end; row += GROUPS) add_rows<1>(sum, dy, x, statistics, row, width, column);
    }
    sums[group][lane] = sum;
    __syncthreads();
    for (i32 c = threadIdx.x; c < least(COLUMNS, width - left); c += BLOCK) {
        float total = 0.0f;
        UNROLL
        for (int g = 0; g < GROUPS; g++) total += sums[g][c / VEC].at[c % VEC];
        put(to + i64(blockIdx.y) * width + left + c, total, accumulate);
    }
}
