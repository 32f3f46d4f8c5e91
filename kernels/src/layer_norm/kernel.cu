#include "rows.cuh"

/// y = (x - mean) rstd (offset + w) + b per row of x [rows, width], with rstd = 1 / sqrt(variance + eps) and statistics
/// [rows, 2] = mean and rstd; inverse = 1 / width. The variance is that of the row minus its mean, so that a mean far
/// from 0 cancels nothing. Grid: teams of ROWS rows; x is read once.
KERNEL __launch_bounds__(BLOCK) void layer_norm_forward(const T* __restrict__ x, const T* __restrict__ w,
                                                        const T* __restrict__ b, float offset, T* __restrict__ y,
                                                        float* __restrict__ statistics, i32 rows, i32 width, float inverse, float eps) {
    SHARED float scratch[2][ROWS][WARP];
    Elements xs[ROWS], ws, bs;
    if (!LOOPED) {
        load_rows(xs, x, rows, 0, width);
        load_span(ws, w, 0, width);
        load_span(bs, b, 0, width);
    }
    float mean[ROWS] = {}, square[ROWS] = {}, scale[ROWS];
    each_span(width, [&](i32 base) {
        if (LOOPED) load_rows(xs, x, rows, base, width);
        UNROLL
        for (int r = 0; r < ROWS; r++)
            UNROLL
            for (int p = 0; p < PACKS; p++)
                UNROLL
                for (int i = 0; i < VEC; i++) mean[r] += xs[r][p][i];
    });
    team_sums(mean, scratch[0]);
    reread(xs, width);
    UNROLL
    for (int r = 0; r < ROWS; r++) mean[r] *= inverse;
    each_span(width, [&](i32 base) {
        if (LOOPED) load_rows(xs, x, rows, base, width);
        UNROLL
        for (int p = 0; p < PACKS; p++) {
            // The zeros beyond a row's end are as far from its mean as any element.
            if (pack_column(base, p) >= width) continue;
            UNROLL
            for (int r = 0; r < ROWS; r++)
                UNROLL
                for (int i = 0; i < VEC; i++) {
                    const float d = xs[r][p][i] - mean[r];
                    square[r] += d * d;
                }
        }
    });
    team_sums(square, scratch[1]);
    reread(xs, width);
    reread(ws, width);
    reread(bs, width);
    UNROLL
    for (int r = 0; r < ROWS; r++) {
        const i32 row = team_row() + r;
        scale[r] = rsqrtf(square[r] * inverse + eps);
        if (team_lane() == 0 && row < rows) store_pack(statistics + 2 * i64(row), Pack<float, 2>{mean[r], scale[r]});
    }
    each_span(width, [&](i32 base) {
        if (LOOPED) {
            load_rows(xs, x, rows, base, width);
            load_span(ws, w, base, width);
            load_span(bs, b, base, width);
        }
        UNROLL
        for (int r = 0; r < ROWS; r++)
            store_span(y, team_row() + r, rows, base, width, [&](int p, int i) {
                return (xs[r][p][i] - mean[r]) * scale[r] * (offset + ws[p][i]) + bs[p][i];
            });
    });
}

/// dx = rstd (g - mean(g) - n mean(g n)) per row, with n = (x - mean) rstd and g = (offset + w) dy. Grid: teams of ROWS
/// rows; x and dy are read once.
KERNEL __launch_bounds__(BLOCK) void layer_norm_backward(const T* __restrict__ x, const T* __restrict__ w, float offset,
                                                         const float* __restrict__ statistics, const T* __restrict__ dy,
                                                         T* __restrict__ dx, i32 rows, i32 width, float inverse) {
    SHARED float scratch[2 * ROWS][WARP];
    Elements xs[ROWS], dys[ROWS], ws;
    auto load = [&](i32 base) {
        load_rows(xs, x, rows, base, width);
        load_rows(dys, dy, rows, base, width);
        load_span(ws, w, base, width);
    };
    Pack<float, 2> of_row[ROWS];
    UNROLL
    for (int r = 0; r < ROWS; r++)
        of_row[r] = team_row() + r < rows ? load_pack<2>(statistics + 2 * i64(team_row() + r)) : Pack<float, 2>{};
    if (!LOOPED) load(0);
    // Of each row the sum of g, then that of g (x - mean).
    float sums[2 * ROWS] = {};
    each_span(width, [&](i32 base) {
        if (LOOPED) load(base);
        UNROLL
        for (int r = 0; r < ROWS; r++)
            UNROLL
            for (int p = 0; p < PACKS; p++)
                UNROLL
                for (int i = 0; i < VEC; i++) {
                    const float g = (offset + ws[p][i]) * dys[r][p][i];
                    sums[2 * r] += g;
                    sums[2 * r + 1] += g * (xs[r][p][i] - of_row[r].at[0]);
                }
    });
    team_sums(sums, scratch);
    reread(xs, width);
    reread(dys, width);
    reread(ws, width);
    each_span(width, [&](i32 base) {
        if (LOOPED) load(base);
        UNROLL
        for (int r = 0; r < ROWS; r++) {
            const float mean = of_row[r].at[0], s = of_row[r].at[1];
            const float g_mean = sums[2 * r] * inverse, dot = sums[2 * r + 1] * inverse * s * s;
            store_span(dx, team_row() + r, rows, base, width, [&](int p, int i) {
                const float g = (offset + ws[p][i]) * dys[r][p][i];
                return s * (g - g_mean - (xs[r][p][i] - mean) * dot);
            });
        }
    });
}
