// The rows of the fused loss: chunks of logits become a running maximum and sum, and in the backward gradients.
#include "bigmac.cuh"

constexpr float LOG2E = 1.4426950408889634f;
/// The target of a token without a loss.
constexpr i32 IGNORED = -100;
/// Logits that are loaded in one instruction, and how many such loads a thread has under way.
constexpr int PACK = 4;
constexpr int AHEAD = 4;

/// e^(from - to); 1 where both are minus infinity.
DEV float weight_of(float from, float to) { return from == to ? 1.0f : exp2_fast((from - to) * LOG2E); }

/// Maximum and sum of exponentials relative to it of what was seen of a row (Milakov and Gimelshein, arXiv 1805.02867).
struct Running {
    float max, sum;
};
DEV Running join(Running a, Running b) {
    const float max = most(a.max, b.max);
    return {max, a.sum * weight_of(a.max, max) + b.sum * weight_of(b.max, max)};
}
/// Takes in `N` packs. NaN shows in the sum.
template <int N>
DEV void absorb(Running& r, const Pack<float, PACK> (&x)[N]) {
    float max = r.max;
    UNROLL for (int n = 0; n < N; n++) {
        UNROLL for (int e = 0; e < PACK; e++) max = most(max, x[n].at[e]);
    }
    float sum = r.sum * weight_of(r.max, max);
    UNROLL for (int n = 0; n < N; n++) {
        UNROLL for (int e = 0; e < PACK; e++) sum += exp2_fast((x[n].at[e] - max) * LOG2E);
    }
    r = {max, sum};
}

/// Takes the logits of words start..start+width of each row in, and after the last chunk writes the row's log-sum-exp
/// and its loss.
///
/// logits [rows, width] lie `stride` apart, a multiple of 4, aligned to 16 bytes. What was seen of earlier chunks is in
/// maxima, sums, picked (the target's logit) [rows]; the first chunk does not read them. After the last one lse and
/// terms [rows] hold log-sum-exp and log-sum-exp - target's logit: 0 for a token without a target, whose logits are not
/// read, and NaN for a target outside 0..words. Grid: a block per row, 32 to 256 threads; thread t reads
/// packs t, t + threads, ..
KERNEL __launch_bounds__(256) void cross_entropy_forward(const float* logits, i64 stride, i32 start, i32 width, i32 words,
                                                         const i32* targets, i32 is_first, i32 is_last, float* maxima, float* sums,
                                                         float* picked, float* lse, float* terms) {
    SHARED float max_of[8];
    SHARED float sum_of[8];
    const i64 row = blockIdx.x;
    const i32 target = targets[row];
    if (target == IGNORED) {
        if (is_last && threadIdx.x == 0) lse[row] = terms[row] = 0.0f;
        return;
    }
    const float* x = logits + row * stride;
    // What thread 0 needs after the loop comes while the loop runs.
    Running earlier = {-INFINITY_VALUE, 0.0f};
    float logit = 0.0f;
    if (threadIdx.x == 0) {
        if (!is_first) {
            earlier = {maxima[row], sums[row]};
            logit = picked[row];
        }
        if (target >= start && target - start < width) logit = x[target - start];
    }
    const i32 packs = width / PACK, step = blockDim.x;
    Running r = {-INFINITY_VALUE, 0.0f};
    i32 i = threadIdx.x;
    for (; i + (AHEAD - 1) * step < packs; i += AHEAD * step) {
        Pack<float, PACK> p[AHEAD];
        UNROLL for (int a = 0; a < AHEAD; a++) p[a] = load_pack<PACK>(x + (i + a * step) * PACK);
        absorb(r, p);
    }
    for (; i < packs; i += step) {
        const Pack<float, PACK> p[1] = {load_pack<PACK>(x + i * PACK)};
        absorb(r, p);
    }
    i = packs * PACK + threadIdx.x;
    if (i < width) r = join(r, {x[i], 1.0f});

    for (int o = WARP / 2; o > 0; o >>= 1) {
        const Running other = {shuffle_xor(r.max, o), shuffle_xor(r.sum, o)};
        r = join(r, other);
    }
    if (threadIdx.x % WARP == 0) {
        max_of[threadIdx.x / WARP] = r.max;
        sum_of[threadIdx.x / WARP] = r.sum;
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (u32 w = 1; w < blockDim.x / WARP; w++) r = join(r, {max_of[w], sum_of[w]});
    r = join(earlier, r);
    if (is_last) {
        const float whole = u32(target) < u32(words) ? r.max + logf(r.sum) : NAN_VALUE;
        lse[row] = whole;
        terms[row] = whole - logit;
    } else {
        maxima[row] = r.max;
        sums[row] = r.sum;
        picked[row] = logit;
    }
}

/// gradients = scale grad[0] (e^(logits - lse) - onehot(target)) for words start..start+width of each row: 0 for a
/// token without a target, NaN where lse is.
///
/// logits and gradients [rows, width] lie `stride` apart, a multiple of 4, aligned to 16 bytes, and may be the same
/// memory when T is float. Grid: a block per row, 32 to 256 threads; a thread writes what it read.
KERNEL __launch_bounds__(256) void cross_entropy_backward(const float* logits, T* gradients, i64 stride, i32 start, i32 width,
                                                          const i32* targets, const float* lse, const float* grad, float scale) {
    const i64 row = blockIdx.x;
    const float* x = logits + row * stride;
    T* dx = gradients + row * stride;
    const i32 packs = width / PACK, step = blockDim.x, rest = packs * PACK + threadIdx.x;
    const i32 target = targets[row];
    if (target == IGNORED) {
        Pack<T, PACK> zero;
        UNROLL for (int e = 0; e < PACK; e++) zero.at[e] = from_float<T>(0.0f);
        for (i32 i = threadIdx.x; i < packs; i += step) store_pack(dx + i * PACK, zero);
        if (rest < width) dx[rest] = zero.at[0];
        return;
    }
    const float factor = scale * grad[0], total = lse[row];
    const i32 hit = target - start;
    const auto gradient = [&](float logit, i32 word) {
        return from_float<T>(factor * (exp2_fast((logit - total) * LOG2E) - (word == hit ? 1.0f : 0.0f)));
    };
    for (i32 at = threadIdx.x; at < packs; at += AHEAD * step) {
        Pack<float, PACK> p[AHEAD];
        UNROLL for (int a = 0; a < AHEAD; a++) {
            if (at + a * step < packs) p[a] = load_pack<PACK>(x + (at + a * step) * PACK);
        }
        UNROLL for (int a = 0; a < AHEAD; a++) {
            const i32 i = (at + a * step) * PACK;
            if (i >= packs * PACK) continue;
            Pack<T, PACK> d;
            UNROLL for (int e = 0; e < PACK; e++) d.at[e] = gradient(p[a].at[e], i + e);
            store_pack(dx + i, d);
        }
    }
    if (rest < width) dx[rest] = gradient(x[rest], rest);
}
