// Noise of flow matching, drawn from the stream that the CPU draws from (runtime/src/rng.rs).
#include "bigmac.cuh"

constexpr int BLOCK = 256;

/// A block of random words.
struct Random {
    u32 word[4];
};

/// Ten rounds of Philox4x32.
DEV Random philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1) {
    for (int round = 0; round < 10; round++) {
        const u64 a = u64(0xD2511F53u) * c0, b = u64(0xCD9E8D57u) * c2;
        c0 = u32(b >> 32) ^ c1 ^ k0;
        c1 = u32(b);
        c2 = u32(a >> 32) ^ c3 ^ k1;
        c3 = u32(a);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

/// A standard normal number of two words (Box-Muller, in double as on the CPU).
DEV float normal(u32 radius, u32 angle) {
    constexpr double SCALE = 1.0 / (1u << 24), TURN = 6.28318530717958647692;
    const double r = (double(radius >> 8) + 1.0) * SCALE, a = TURN * double(angle >> 8) * SCALE;
    return float(sqrt(-2.0 * log(r)) * cos(a));
}

/// latents = (1 - t) x + t n and target = n - x, rounded, for `count` elements x and normal numbers n: two to a block
/// of the stream, whose key is (k0, k1) and whose blocks are (number, c1, c2, c3). Grid: a thread per block of the
/// stream, 256 to a block.
KERNEL __launch_bounds__(BLOCK) void noise_add(const float* x, i64 count, float t, u32 k0, u32 k1, u32 c1, u32 c2, u32 c3, T* latents,
                                               T* target) {
    const i64 block = i64(blockIdx.x) * BLOCK + threadIdx.x;
    if (2 * block >= count) return;
    const Random random = philox(u32(block), c1, c2, c3, k0, k1);
    // One after the other in a loop: sine, cosine and logarithm in double are long.
    ROLLED
    for (int i = 0; i < 2; i++) {
        const i64 at = 2 * block + i;
        if (at >= count) return;
        const float n = i == 0 ? normal(random.word[0], random.word[1]) : normal(random.word[2], random.word[3]);
        latents[at] = from_float<T>(multiply(1.0f - t, x[at]) + multiply(t, n));
        target[at] = from_float<T>(n - x[at]);
    }
}
