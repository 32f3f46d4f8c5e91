// Tiles of the work, as the host lists them for all kernels of attention.
#pragma once

#include "bigmac.cuh"

constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

/// `rows` tokens from `first` on, which meet the `count` tokens from `other` on. Rows are queries and see the others
/// before `bound + row`, or are keys and are seen by the others from `bound + row` on.
struct Tile {
    i32 first, rows, other, count, bound;
};

DEV Tile read_tile(const i32* tiles, u32 i) {
    const i32* t = tiles + i * 5;
    return {t[0], t[1], t[2], t[3], t[4]};
}
