// Attention, backward: the probabilities are computed again from the saved log-sum-exps (FlashAttention-2, arXiv
// 2307.08691, algorithm 2).
//
// Algorithm 2 adds each key tile's share of dq to memory atomically, in whatever order blocks come. Here one kernel
// (backward_keys.cu) owns tiles of keys and gives dk and dv, another (backward_queries.cu) owns tiles of queries and
// gives dq: seven products instead of five, but every sum has one owner and one order, nothing is added in memory, and
// no fp32 copy of dq is cleared, filled and converted. Partial sums of dq per tile of keys would take keys / ROWS times
// dq's size, and handing one copy from block to block in order would make them wait for each other.
//
// Knobs beside those of tiles.cuh: OTHERS, rows of a passing tile; STAGES, passing tiles in flight or in use; BLOCKS,
// blocks that an SM should hold; PARTS, blocks that share the columns of a gradient where the registers of one cannot
// hold all.
#pragma once

#include "attention/tiles.cuh"

constexpr int NT = OTHERS / 8, COLUMNS = HEAD / PARTS, DT = COLUMNS / 8;
/// Elements of a passing tile; a stage is two of them.
constexpr int TILE = OTHERS * ROW;

/// The first of the block's columns, in chunks.
DEV i32 first_chunk() { return PARTS == 1 ? 0 : i32(blockIdx.x % PARTS) * (COLUMNS / PER); }
