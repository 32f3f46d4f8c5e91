#include "rows.cuh"

/// y = x rstd w per row of x [rows, width], and rstd = 1 / sqrt(mean(x^2) + eps) [rows]; inverse = 1 / width. Grid:
/// teams of ROWS rows; x is read once.
KERNEL __launch_bounds__(BLOCK) void rms_norm_forward(const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ y,
                                                      float* __restrict__ rstd, i32 rows, i32 width, float inverse, float eps) {
    SHARED float scratch[ROWS][WARP];
    Elements xs[ROWS], ws;
    if (!LOOPED) {
        load_rows(xs, x, rows, 0, width);
        load_span(ws, w, 0, width);
    }
    float square[ROWS] = {};
    each_span(width, [&](i32 base) {
        if (LOOPED) load_rows(xs, x, rows, base, width);
        UNROLL
        for (int r = 0; r < ROWS; r++)
            UNROLL
            for (int p = 0; p < PACKS; p++)
                UNROLL
                for (int i = 0; i < VEC; i++) {
                    const float v = xs[r][p][i];
                    square[r] += v * v;
                }
    });
    team_sums(square, scratch);
    reread(xs, width);
    reread(ws, width);
    float scale[ROWS];
    UNROLL
    for (int r = 0; r < ROWS; r++) {
        scale[r] = rsqrtf(square[r] * inverse + eps);
        if (team_lane() == 0 && team_row() + r < rows) rstd[team_row() + r] = scale[r];
    }
    each_span(width, [&](i32 base) {
        if (LOOPED) {
            load_rows(xs, x, rows, base, width);
            load_span(ws, w, base, width);
        }
        UNROLL
        for (int r = 0; r < ROWS; r++)
            store_span(y, team_row() + r, rows, base, width, [&](int p, int i) {
                return xs[r][p][i] * scale[r] * ws[p][i];
            });
    });
}

/// dx = rstd (w dy - x rstd^2 mean(x w dy)) per row. Grid: teams of ROWS rows; x and dy are read once.
KERNEL __launch_bounds__(BLOCK) void rms_norm_backward(const T* __restrict__ x, const T* __restrict__ w,
                                                       const float* __restrict__ rstd, const T* __restrict__ dy,
                                                       T* __restrict__ dx, i32 rows, i32 width, float inverse) {
    SHARED float scratch[ROWS][WARP];
    Elements xs[ROWS], dys[ROWS], ws;
    auto load = [&](i32 base) {
        load_rows(xs, x, rows, base, width);
        load_rows(dys, dy, rows, base, width);
        load_span(ws, w, base, width);
    };
    float scale[ROWS], dot[ROWS] = {};
    UNROLL
    for (int r = 0; r < ROWS; r++) scale[r] = team_row() + r < rows ? rstd[team_row() + r] : 0.0f;
    if (!LOOPED) load(0);
    each_span(width, [&](i32 base) {
        if (LOOPED) load(base);
        UNROLL
        for (int r = 0; r < ROWS; r++)
            UNROLL
            for (int p = 0; p < PACKS; p++)
                UNROLL
                for (int i = 0; i < VEC; i++)
                    dot[r] += xs[r][p][i] * ws[p][i] * dys[r][p][i];
    });
    team_sums(dot, scratch);
    reread(xs, width);
    reread(dys, width);
    reread(ws, width);
    each_span(width, [&](i32 base) {
        if (LOOPED) load(base);
        UNROLL
        for (int r = 0; r < ROWS; r++) {
            const float s = scale[r], c = dot[r] * inverse * s * s * s;
            store_span(dx, team_row() + r, rows, base, width, [&](int p, int i) {
                return s * (ws[p][i] * dys[r][p][i]) - xs[r][p][i] * c;
            });
        }
    });
}
