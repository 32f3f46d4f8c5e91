// Maps: kernels that compute each element of their outputs from the same element of their inputs. An operator's kernel
// is its formula:
//
//     KERNEL void mul_forward(i64 n, const T* a, const T* b, T* y) {
//         map(n, outputs(y), [](float a, float b) { return a * b; }, a, b);
//     }
//
// Formulas compute in float. Elements move in packs of 16 bytes where every tensor is aligned to that, and one by one
// where one is not and at the ragged end. An output may be one of the inputs: what a thread writes it has read before,
// and no other thread reads it.
//
// Knobs: THREADS to a block; PACKS that a thread has under way, all of which it asks for before it uses the first. With
// 2 packs of one input an SM full of threads has 64 KiB in flight, with 2 of three inputs one that is half full 96 KiB:
// enough to cover the latency of memory.
#pragma once
#include "bigmac.cuh"

// ---- elements under way ---------------------------------------------------------------------------------------------

/// `L` elements as the words that they were loaded in. Taken apart only when they are used: a thread that takes bf16
/// out of their words at once waits for each load before it asks for the next.
template <class E, int L>
struct Words {
    static constexpr int COUNT = ceil_div(L * int(sizeof(E)), 4);
    u32 word[COUNT];
};

template <int L>
DEV float element(const Words<float, L>& w, int l) { return bits_to_float(w.word[l]); }
template <int L>
DEV float element(const Words<bf16, L>& w, int l) { return bits_to_float(l % 2 ? w.word[l / 2] & 0xffff0000u : w.word[l / 2] << 16); }

/// `L` elements from `p`, which is aligned to all of them.
template <int L, class E>
DEV Words<E, L> load_words(const E* p) {
    Words<E, L> w;
    if constexpr (L * sizeof(E) < 4) {
        w.word[0] = *reinterpret_cast<const u16*>(p);
    } else {
        const auto pack = load_pack<Words<E, L>::COUNT>(reinterpret_cast<const u32*>(p));
        UNROLL
        for (int i = 0; i < Words<E, L>::COUNT; i++) w.word[i] = pack.at[i];
    }
    return w;
}

/// `L` times `x`, float or bf16.
template <class E, int L>
DEV Words<E, L> words_of(float x) {
    Words<E, L> w;
    UNROLL
    for (int i = 0; i < Words<E, L>::COUNT; i++) w.word[i] = sizeof(E) == 4 ? float_to_bits(x) : pack_bf16(x, x);
    return w;
}

// ---- what a map reads -----------------------------------------------------------------------------------------------
//
// An input is an index: a struct that says where an element lies, with
// - `Element`, the type of what it finds;
// - `const Element* find(i64 at) const`: where element `at` lies, null when there is none;
// - `bool packs(int l) const`: whether every `l` elements from a multiple of `l` on follow each other, aligned, or are
//   missing together;
// - `float missing() const`: what stands for an element that there is not.

/// A tensor as it lies; zeros without one.
template <class E>
struct Flat {
    typedef E Element;
    const E* x;
    METHOD const E* find(i64 at) const { return x == nullptr ? nullptr : x + at; }
    METHOD bool packs(int l) const { return aligned(x, l * sizeof(E)); }
    METHOD float missing() const { return 0.0f; }
};
template <class E>
DEV Flat<E> as_index(const E* x) { return {x}; }
template <class E>
DEV Flat<E> as_index(E* x) { return {x}; }
template <class S>
DEV S as_index(const S& index) { return index; }

// ---- what a map writes ----------------------------------------------------------------------------------------------

/// The results of a formula for one element.
template <int M>
struct Values {
    float at[M];
};
template <class... V>
DEV Values<sizeof...(V)> values(V... v) { return {{v...}}; }
DEV Values<1> as_values(float v) { return {{v}}; }
template <int M>
DEV Values<M> as_values(const Values<M>& v) { return v; }

/// Writes result `m` of `L` elements to `y`, which is aligned to all of them.
template <class E, int M, int L>
DEV void store_results(E* y, const Values<M> (&v)[L], int m) {
    Pack<E, L> pack;
    UNROLL
    for (int l = 0; l < L; l++) pack.at[l] = from_float<E>(v[l].at[m]);
    store_pack(y, pack);
}

/// Where the `M` results go, each to a tensor of its own; one that is null is not written.
template <class E, int M>
struct Outputs {
    typedef E Element;
    E* to[M];
    METHOD bool packs(int l) const {
        bool all = true;
        UNROLL
        for (int m = 0; m < M; m++) all &= aligned(to[m], l * sizeof(E));
        return all;
    }
    template <int L>
    METHOD void store(const Values<M> (&v)[L], i64 at) const {
        UNROLL
        for (int m = 0; m < M; m++)
            if (to[m] != nullptr) store_results(to[m] + at, v, m);
    }
};
template <class E, class... R>
DEV Outputs<E, 1 + sizeof...(R)> outputs(E* first, R*... rest) { return {{first, rest...}}; }

// ---- the map --------------------------------------------------------------------------------------------------------

/// Where a thread's pack `p` of `L` elements begins, of those from `begin` on.
template <int L>
DEV i32 start_of(i32 begin, int p) { return begin + (p * THREADS + i32(threadIdx.x)) * L; }

/// What a thread has under way of one input: `P` packs of `L` elements.
template <class E, int L, int P>
struct Tile {
    Words<E, L> pack[P];
};

template <int L, int P, class S>
DEV Tile<typename S::Element, L, P> load_tile(const S& x, i64 base, i32 begin, i32 end) {
    typedef typename S::Element E;
    Tile<E, L, P> tile;
    UNROLL
    for (int p = 0; p < P; p++) {
        const i32 at = start_of<L>(begin, p);
        tile.pack[p] = words_of<E, L>(x.missing());
        const E* from = at < end ? x.find(base + at) : nullptr;
        if (from != nullptr) tile.pack[p] = load_words<L>(from);
    }
    return tile;
}

template <int L, int P, class Out, class F, class... X>
DEV void store_tile(const Out& y, i64 base, i32 begin, i32 end, const F& f, const Tile<X, L, P>&... x) {
    UNROLL
    for (int p = 0; p < P; p++) {
        const i32 at = start_of<L>(begin, p);
        if (at >= end) continue;
        decltype(as_values(f(element(x.pack[0], 0)...))) v[L];
        UNROLL
        for (int l = 0; l < L; l++) v[l] = as_values(f(element(x.pack[p], l)...));
        y.template store<L>(v, base + at);
    }
}

/// The largest of some sizes.
template <int N>
DEV constexpr int widest(const int (&sizes)[N]) {
    int size = sizes[0];
    for (int i = 1; i < N; i++) size = most(size, sizes[i]);
    return size;
}

template <class Out, class F, class... X>
DEV void map_indices(i64 n, const Out& y, const F& f, const X&... x) {
    constexpr int SIZES[] = {int(sizeof(typename Out::Element)), int(sizeof(typename X::Element))...};
    constexpr int L = 16 / widest(SIZES);
    constexpr i32 TILE = THREADS * PACKS * L;
    // Elements that a thread has under way where they move one by one.
    constexpr int SINGLES = 8;
    const bool packs = (y.packs(L) && ... && x.packs(L));
    for (i64 base = i64(blockIdx.x) * TILE; base < n; base += i64(gridDim.x) * TILE) {
        const i32 end = i32(least(n - base, i64(TILE)));
        i32 begin = 0;
        if (packs) {
            begin = end / L * L;
            store_tile<L, PACKS>(y, base, 0, begin, f, load_tile<L, PACKS>(x, base, 0, begin)...);
        }
        for (; begin < end; begin += THREADS * SINGLES)
            store_tile<1, SINGLES>(y, base, begin, end, f, load_tile<1, SINGLES>(x, base, begin, end)...);
    }
}

/// y = f(x...) for each of `n` elements. `f` takes a float for each input and returns one for each output, several as
/// `values(..)`; an input is a pointer or an index. Blocks take tiles of THREADS * PACKS packs in turn, so that any
/// grid is right, and one block per tile is best.
template <class Out, class F, class... X>
DEV void map(i64 n, const Out& y, const F& f, const X&... x) { map_indices(n, y, f, as_index(x)...); }
