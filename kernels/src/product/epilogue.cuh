// What happens to the sums of a product on their way to memory, the same in every kernel of this folder.
//
// Knobs: OUT, the result's type (float or bf16), and ACTIVATION.
#pragma once

typedef OUT Out;

constexpr int NO_ACTIVATION = 0, GELU_TANH = 1, GELU_EXACT = 2, SILU_GATE = 3;
constexpr u32 HAS_BIAS = 1, HAS_RESIDUAL = 2, ACCUMULATE = 4;

/// `c = act(alpha * sums + bias) + residual (+ c)`, for one matrix of a batch.
struct Epilogue {
    Out* c;
    i64 leading;
    /// Over the columns of the product.
    const T* bias;
    /// Like c, without gaps.
    const Out* residual;
    /// Columns of the product; c has half as many after SILU_GATE.
    i32 columns;
    float alpha;
    u32 flags;
};

/// The first `count` of `N` elements at `p` as floats; the others are 0.
template <int N, class E>
DEV void load_run(float (&v)[N], const E* p, i32 count) {
    constexpr int WIDTH = least(N, int(16 / sizeof(E)));
    if (count >= N && aligned(p, WIDTH * sizeof(E))) {
        UNROLL for (int i = 0; i < N; i += WIDTH) {
            const Pack<E, WIDTH> pack = load_pack<WIDTH>(p + i);
            UNROLL for (int e = 0; e < WIDTH; e++) v[i + e] = to_float(pack.at[e]);
        }
    } else {
        UNROLL for (int i = 0; i < N; i++) v[i] = i < count ? to_float(p[i]) : 0.0f;
    }
}

/// Rounds the first `count` of `N` floats to `p`.
template <int N, class E>
DEV void store_run(E* p, const float (&v)[N], i32 count) {
    constexpr int WIDTH = least(N, int(16 / sizeof(E)));
    if (count >= N && aligned(p, WIDTH * sizeof(E))) {
        UNROLL for (int i = 0; i < N; i += WIDTH) {
            Pack<E, WIDTH> pack;
            UNROLL for (int e = 0; e < WIDTH; e++) pack.at[e] = from_float<E>(v[i + e]);
            store_pack(p + i, pack);
        }
    } else {
        UNROLL for (int i = 0; i < N; i++)
            if (i < count) p[i] = from_float<E>(v[i]);
    }
}

/// To a few ulp. The exact functions cost ten times as much, which would show beside tensor cores.
DEV float sigmoid(float x) { return reciprocal_fast(1.0f + exp2_fast(-1.4426950409f * x)); }

/// As the operators gelu and silu have them.
template <int KIND>
DEV float activated(float x) {
    if (KIND == GELU_TANH) return x * sigmoid(1.5957691216f * x * (1.0f + 0.044715f * x * x));
    if (KIND == GELU_EXACT) return 0.5f * x * erfcf(-0.7071067812f * x);
    return x;
}

/// Adds what belongs to `N` elements of c from `column` of `row` on, and stores them.
template <int N>
DEV void finish_run(const Epilogue& to, float (&v)[N], i64 row, i32 column, i32 columns) {
    const i32 count = columns - column;
    if (to.flags & HAS_RESIDUAL) {
        float r[N];
        load_run(r, to.residual + row * columns + column, count);
        UNROLL for (int i = 0; i < N; i++) v[i] += r[i];
    }
    Out* c = to.c + row * to.leading + column;
    if (to.flags & ACCUMULATE) {
        float old[N];
        load_run(old, c, count);
        UNROLL for (int i = 0; i < N; i++) v[i] += old[i];
    }
    store_run(c, v, count);
}

/// The sums of `N` consecutive columns of the product, the first being `column` (a multiple of N, below to.columns), to
/// their place.
template <int N>
DEV void finish(const Epilogue& to, float (&v)[N], i64 row, i32 column) {
    UNROLL for (int i = 0; i < N; i++) v[i] *= to.alpha;
    if (to.flags & HAS_BIAS) {
        float bias[N];
        load_run(bias, to.bias + column, to.columns - column);
        UNROLL for (int i = 0; i < N; i++) v[i] += bias[i];
    }
    if (ACTIVATION == SILU_GATE) {
        float gated[N / 2];
        UNROLL for (int i = 0; i < N / 2; i++) gated[i] = v[2 * i] * sigmoid(v[2 * i]) * v[2 * i + 1];
        finish_run(to, gated, row, column / 2, to.columns / 2);
    } else {
        UNROLL for (int i = 0; i < N; i++) v[i] = activated<ACTIVATION>(v[i]);
        finish_run(to, v, row, column, to.columns);
    }
}
