// Which tile of the result a block computes.
#pragma once

/// Rows of tiles to a band.
#ifndef BAND
#define BAND 8
#endif

struct Tile {
    i32 row, column;
};

/// Tile number `index` of `rows` x `columns`: bands of BAND rows of tiles, each walked down first, then to the right.
/// Blocks that run at the same time then share few rows of a and few columns of b, which the L2 cache holds.
DEV Tile tile_at(u32 index, u32 rows, u32 columns) {
    const u32 first = index / (BAND * columns) * BAND, within = index % (BAND * columns);
    const u32 height = least(rows - first, u32(BAND));
    return {i32(first + within % height), i32(within / height)};
}
