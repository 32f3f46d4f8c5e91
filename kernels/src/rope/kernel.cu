#include "held.cuh"

// Knobs: INTERLEAVED, whether elements 2 i and 2 i + 1 are a pair, or i and i + half; VEC, pairs to a thread and head,
// and elements of a pack: 16 bytes' worth where half a head is a multiple of that and heads are aligned to it, else 1;
// HEADS, heads to a thread, a divisor of their number.
constexpr int BLOCK = 256;
/// A thread has two packs of a head, VEC elements from its front half and as many from its back half. A pair is one
/// element of each, or, interleaved, lies in one of them; only single elements are then neighbours.
constexpr bool WITHIN = INTERLEAVED && VEC > 1, NEIGHBOURS = INTERLEAVED && VEC == 1;

/// The angles of this thread's pairs, in the order of its packs: pairs within packs are half a table apart.
DEV void load_angles(float (&to)[VEC], const float* table, i32 p, i32 half) {
    constexpr int N = VEC == 1 ? 1 : VEC / 2;
    UNROLL
    for (int j = 0; j < VEC / N; j++) {
        const Pack<float, N> angles = load_pack<N>(table + (WITHIN ? p * N + j * (half / 2) : p * VEC + j * N));
        UNROLL
        for (int i = 0; i < N; i++) to[j * N + i] = angles.at[i];
    }
}

/// (a, b) -> (a cos - b sin, b cos + a sin) for every pair of each head of x [tokens, heads, 2 half], a token's
/// elements `x_token` apart and a head's `x_head`; y is contiguous, cosines and sines are [tokens, half]. `sign` -1
/// turns back.
///
/// Grid: a thread per token, HEADS heads and pack of pairs, `threads` in all, packs side by side; a thread reads its
/// angles once.
KERNEL __launch_bounds__(BLOCK) void rope_rotate(const T* __restrict__ x, const float* __restrict__ cosines,
                                                 const float* __restrict__ sines, T* __restrict__ y, u32 threads, i32 heads,
                                                 i32 half, i64 x_token, i64 x_head, float sign) {
    const u32 index = blockIdx.x * BLOCK + threadIdx.x;
    if (index >= threads) return;
    // A thread's heads lie `groups` apart, so that neighbouring threads have neighbouring heads.
    const u32 packs = half / VEC, groups = heads / HEADS;
    const i32 p = index % packs, head = index / packs % groups, token = index / packs / groups;
    const i32 front = NEIGHBOURS ? 2 * p : p * VEC, back = NEIGHBOURS ? front + 1 : half + front;
    float c[VEC], s[VEC];
    load_angles(c, cosines + i64(token) * half, p, half);
    load_angles(s, sines + i64(token) * half, p, half);
    UNROLL
    for (int i = 0; i < VEC; i++) s[i] *= sign;
    Held<T, VEC> fronts[HEADS], backs[HEADS];
    UNROLL
    for (int h = 0; h < HEADS; h++) {
        const T* from = x + token * x_token + (head + h * i32(groups)) * x_head;
        fronts[h] = hold<VEC>(from + front);
        backs[h] = hold<VEC>(from + back);
    }
    UNROLL
    for (int h = 0; h < HEADS; h++) {
        const Held<T, VEC>&f = fronts[h], &b = backs[h];
        T* to = y + (i64(token) * heads + head + h * i32(groups)) * (2 * half);
        /// Element `i` of a pack whose pairs lie within it and turn by angles from `at`.
        auto within = [&](const Held<T, VEC>& pack, int at, int i) {
            const int pair = at + i / 2;
            return i % 2 ? pack[i] * c[pair] + pack[i - 1] * s[pair] : pack[i] * c[pair] - pack[(i + 1) % VEC] * s[pair];
        };
        store_each<VEC>(to + front, [&](int i) { return WITHIN ? within(f, 0, i) : f[i] * c[i] - b[i] * s[i]; });
        store_each<VEC>(to + back, [&](int i) { return WITHIN ? within(b, VEC / 2, i) : b[i] * c[i] + f[i] * s[i]; });
    }
}
