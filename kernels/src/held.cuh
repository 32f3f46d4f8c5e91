// Packs of elements as threads hold them between the passes over a row, or while loads are under way.
#pragma once
#include "bigmac.cuh"

/// `N` elements as floats: `held[i]`. Pairs of bf16 stay one word until then: apart, each would take a register of its
/// own.
template <class E, int N>
struct Held {
    Pack<E, N> pack;
    METHOD float operator[](int i) const { return to_float(pack.at[i]); }
    /// Elements are taken out of their words again from here on: the floats of before, kept for their next use, would
    /// take twice the registers. `zero` is 0, which the compiler must not know.
    METHOD void reread(u32) {}
};
template <>
struct Held<bf16, 8> {
    Pack<u32, 4> pack;
    METHOD float operator[](int i) const {
        const u32 word = pack.at[i / 2];
        return bits_to_float(i % 2 ? word & 0xffff0000u : word << 16);
    }
    METHOD void reread(u32 zero) {
        UNROLL
        for (int i = 0; i < 4; i++) pack.at[i] += zero;
    }
};

/// `N` elements from `p`, which is aligned to all of them.
template <int N, class E>
DEV Held<E, N> hold(const E* p) { return *reinterpret_cast<const Held<E, N>*>(p); }

/// Writes `f(i)` as element `i` of the `N` at `p`, which is aligned to all of them.
template <int N, class E, class F>
DEV void store_each(E* p, F f) {
    Pack<E, N> pack;
    UNROLL
    for (int i = 0; i < N; i++) pack.at[i] = from_float<E>(f(i));
    store_pack(p, pack);
}
