// Indices for maps (elementwise.cuh) whose elements lie elsewhere in their input than in their output, or are missing
// there.
#pragma once
#include "elementwise.cuh"

/// `at / by`, and the remainder. Division of 64 bits is slow, and hardly a tensor has more elements than 32 can count.
DEV i64 divide(i64 at, i32 by, i32& rest) {
    if (at <= 0xffffffffll) {
        const u32 quotient = u32(at) / u32(by);
        rest = i32(u32(at) - quotient * u32(by));
        return quotient;
    }
    const i64 quotient = at / by;
    rest = i32(at - quotient * by);
    return quotient;
}

/// `x`, of `period` elements, again and again.
template <class E>
struct Repeated {
    typedef E Element;
    const E* x;
    i32 period;
    METHOD const E* find(i64 at) const {
        i32 rest;
        divide(at, period, rest);
        return x + rest;
    }
    METHOD bool packs(int l) const { return period % l == 0 && aligned(x, l * sizeof(E)); }
    METHOD float missing() const { return 0.0f; }
};

/// Row `rows[i]` of `x` [limit, width] as row i; a row of NaN where there is no such row.
template <class E>
struct Rows {
    typedef E Element;
    const E* x;
    const i32* rows;
    i32 width, limit;
    METHOD const E* find(i64 at) const {
        i32 column;
        const i32 row = rows[divide(at, width, column)];
        return u32(row) < u32(limit) ? x + i64(row) * width + column : nullptr;
    }
    METHOD bool packs(int l) const { return width % l == 0 && aligned(x, l * sizeof(E)); }
    METHOD float missing() const { return NAN_VALUE; }
};

/// Row i of `x` where `source[i]` is negative, else row `source[i]` of `e`; rows of `width`. Without e, zeros for its
/// rows.
template <class E>
struct EitherRow {
    typedef E Element;
    const E *x, *e;
    const i32* source;
    i32 width;
    METHOD const E* find(i64 at) const {
        i32 column;
        const i64 row = divide(at, width, column);
        const i32 other = source[row];
        if (other < 0) return x + row * width + column;
        return e == nullptr ? nullptr : e + i64(other) * width + column;
    }
    METHOD bool packs(int l) const { return width % l == 0 && aligned(x, l * sizeof(E)) && aligned(e, l * sizeof(E)); }
    METHOD float missing() const { return 0.0f; }
};

/// A row of `part` elements as elements `start..start + part` of a row of `whole`.
struct Inset {
    i32 part, start, whole;
    METHOD bool packs(int l) const { return part % l == 0 && start % l == 0 && whole % l == 0; }
};

/// Rows of `whole` elements: those of `x` [.., part] where the inset says, zeros around them.
template <class E>
struct Padded {
    typedef E Element;
    const E* x;
    Inset inset;
    METHOD const E* find(i64 at) const {
        i32 column;
        const i64 row = divide(at, inset.whole, column);
        const i32 inside = column - inset.start;
        return u32(inside) < u32(inset.part) ? x + row * inset.part + inside : nullptr;
    }
    METHOD bool packs(int l) const { return inset.packs(l) && aligned(x, l * sizeof(E)); }
    METHOD float missing() const { return 0.0f; }
};

/// An output: rows of `part` elements, each written where the inset says in a row of `y` [.., whole]. The rest of y is
/// left as it is.
template <class E>
struct Placed {
    typedef E Element;
    E* y;
    Inset inset;
    METHOD bool packs(int l) const { return inset.packs(l) && aligned(y, l * sizeof(E)); }
    template <int L>
    METHOD void store(const Values<1> (&v)[L], i64 at) const {
        i32 column;
        const i64 row = divide(at, inset.part, column);
        store_results(y + row * inset.whole + inset.start + column, v, 0);
    }
};

/// The formula of a copy.
struct Same {
    METHOD float operator()(float x) const { return x; }
};
