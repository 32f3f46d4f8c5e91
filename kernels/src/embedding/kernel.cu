// The gradient of a table. Its look-up is that of gather_rows.
#include "segments.cuh"

constexpr int SORT_THREADS = 1024;
constexpr int WARPS = SORT_THREADS / WARP;
/// Bits that a pass sorts by, at most.
constexpr int DIGIT_BITS = 8;
constexpr int DIGITS = 1 << DIGIT_BITS;
/// Keys that a lane asks for at a time.
constexpr int AHEAD = 4;

/// The live lanes whose digit is this lane's.
DEV u32 same_digit(u32 digit, bool live, i32 bits) {
    u32 same = ballot(live);
    for (i32 b = 0; b < bits; b++) {
        const bool set = (digit >> b & 1) != 0;
        const u32 vote = ballot(set);
        same &= set ? vote : ~vote;
    }
    return same;
}

/// Sorts the tokens by id, tokens of one id staying in their order: keys = the ids, `limit` for one outside 0..limit;
/// order = the tokens. Radix sort from the lowest digit up, `passes` passes over digits of `bits` bits, which hold
/// `limit`. keys and order have room for 2 n, and the result is in the first half after an odd number of passes, else
/// in the second. One block: a warp sorts a part of the tokens.
KERNEL __launch_bounds__(SORT_THREADS) void sort_tokens(const i32* ids, i32* keys, i32* order, i32 n, i32 limit, i32 passes, i32 bits) {
    // How many tokens of each digit a warp has; then where it puts the next one, counted from where the digit starts.
    SHARED u32 counts[WARPS][DIGITS];
    SHARED u32 starts[2][DIGITS];
    const i32 thread = i32(threadIdx.x), lane = thread % WARP, warp = thread / WARP;
    const i32 part = ceil_div(n, i32(WARPS * WARP)) * WARP;
    const i32 from = warp * part, end = least(from + part, n);
    for (i32 pass = 0; pass < passes; pass++) {
        const i32* key_in = pass == 0 ? ids : keys + (pass + 1) % 2 * i64(n);
        const i32* order_in = pass == 0 ? nullptr : order + (pass + 1) % 2 * i64(n);
        i32* key_out = keys + pass % 2 * i64(n);
        i32* order_out = order + pass % 2 * i64(n);
        for (i32 i = thread; i < WARPS * DIGITS; i += SORT_THREADS) counts[i / DIGITS][i % DIGITS] = 0;
        __syncthreads();
        for (i32 placing = 0; placing < 2; placing++) {
            for (i32 base = from; base < end; base += AHEAD * WARP) {
                i32 key[AHEAD], token[AHEAD];
                UNROLL
                for (int a = 0; a < AHEAD; a++) {
                    const i32 at = base + a * WARP + lane;
                    key[a] = at < end ? key_in[at] : 0;
                    token[a] = at < end && order_in != nullptr && placing ? order_in[at] : at;
                    if (u32(key[a]) >= u32(limit)) key[a] = limit;
                }
                UNROLL
                for (int a = 0; a < AHEAD; a++) {
                    const bool live = base + a * WARP + lane < end;
                    const u32 digit = u32(key[a]) >> (pass * bits) & ((1u << bits) - 1);
                    const u32 same = same_digit(digit, live, bits), before = count_bits(same & ((1u << lane) - 1));
                    if (live && placing) {
                        const u32 to = starts[0][digit] + counts[warp][digit] + before;
                        key_out[to] = key[a];
                        order_out[to] = token[a];
                    }
                    __syncwarp();
                    if (live && before == 0) counts[warp][digit] += count_bits(same);
                    __syncwarp();
                }
            }
            __syncthreads();
            if (placing) continue;
            // Counts become sums over the warps before, and those over all warps sums over the digits before.
            u32 total = 0;
            if (thread < DIGITS) {
                for (int w = 0; w < WARPS; w++) {
                    const u32 count = counts[w][thread];
                    counts[w][thread] = total;
                    total += count;
                }
                starts[0][thread] = total;
            }
            __syncthreads();
            for (int step = 1, in = 0; step < DIGITS; step *= 2, in ^= 1) {
                if (thread < DIGITS) starts[in ^ 1][thread] = starts[in][thread] + (thread >= step ? starts[in][thread - step] : 0);
                __syncthreads();
            }
            // After DIGIT_BITS, an even number of steps, the sums are in starts[0], each with its own digit's.
            if (thread < DIGITS) starts[0][thread] -= total;
            __syncthreads();
        }
    }
}

/// table[keys[q]] (+)= the sum of dy[order[q]] over the q of one key, in order; a block per q. Rows of the table
/// without a key are left as they are.
KERNEL __launch_bounds__(THREADS, 8) void embedding_backward(const i32* keys, const i32* order, const T* dy, float* table, i32 n, i32 width, i32 limit, i32 accumulate) {
    segment_sums(keys, order, dy, table, n, width, limit, accumulate != 0);
}
