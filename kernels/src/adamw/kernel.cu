// One AdamW step of all parameters of a module.
#include "bigmac.cuh"

// MASTER: 1 when fp32 copies of the weights are updated, and the weights are those rounded.

/// A piece of one parameter; the host writes them (24 bytes each).
struct Chunk {
    T* weight;
    /// Where its elements begin in the flat buffers.
    i64 offset;
    i32 length;
    /// 1 when the weight decays.
    i32 decays;
};

/// What is the same for all elements.
struct Step {
    float scale, rest1, rest2, beta2, inverse_root, eps, keep, rate;
};

/// The new weight; the moments are updated. Every rounding is written out, so that an element's result does not depend
/// on the loop that it is in, and is that of the CPU.
DEV float moved(const Step& s, float weight, float grad, float& m, float& v) {
    const float g = multiply(grad, s.scale);
    m = fmaf(g - m, s.rest1, m);
    v = fmaf(multiply(s.rest2, g), g, multiply(s.beta2, v));
    const float step = multiply(s.rate, m) / fmaf(sqrtf(v), s.inverse_root, s.eps);
    return fmaf(weight, s.keep, -step);
}

/// Updates `length` elements, a multiple of N, with N to an access. A thread loads AHEAD packs of everything before it
/// stores any.
template <int N, int AHEAD>
DEV void update(const Step& s, i32 length, T* weight, const float* grad, float* first, float* second, float* master) {
    const i32 packs = length / N, step = blockDim.x;
    for (i32 at = threadIdx.x; at < packs; at += AHEAD * step) {
        Pack<float, N> g[AHEAD], m[AHEAD], v[AHEAD], w[AHEAD];
        UNROLL for (int a = 0; a < AHEAD; a++) {
            const i32 i = (at + a * step) * N;
            if (i >= length) continue;
            g[a] = load_pack<N>(grad + i);
            m[a] = load_pack<N>(first + i);
            v[a] = load_pack<N>(second + i);
            if (MASTER) {
                w[a] = load_pack<N>(master + i);
            } else {
                const Pack<T, N> p = load_pack<N>(weight + i);
                UNROLL for (int e = 0; e < N; e++) w[a].at[e] = to_float(p.at[e]);
            }
        }
        UNROLL for (int a = 0; a < AHEAD; a++) {
            const i32 i = (at + a * step) * N;
            if (i >= length) continue;
            Pack<T, N> p;
            UNROLL for (int e = 0; e < N; e++) {
                w[a].at[e] = moved(s, w[a].at[e], g[a].at[e], m[a].at[e], v[a].at[e]);
                p.at[e] = from_float<T>(w[a].at[e]);
            }
            store_pack(first + i, m[a]);
            store_pack(second + i, v[a]);
            if (MASTER) store_pack(master + i, w[a]);
            store_pack(weight + i, p);
        }
    }
}

/// Updates the chunks: weights, the flat moments and, with MASTER, the flat masters, from the flat gradients.
///
/// Gradients are multiplied by `grad_scale`, and where `squares` points to the sum of squares of all gradients, also by
/// what brings its root down to `max_norm`. A sum of squares that is not finite changes nothing. Grid: a block of 256
/// threads per chunk. Chunks of one parameter begin at multiples of 4 elements from its first.
KERNEL __launch_bounds__(256) void adamw_step(const Chunk* chunks, const float* grads, float* first, float* second, float* masters,
                                              const float* squares, float max_norm, float grad_scale, float rest1, float rest2, float beta2,
                                              float inverse_root, float eps, float keep, float rate) {
    const Chunk c = chunks[blockIdx.x];
    float scale = grad_scale;
    if (squares) {
        const float norm = sqrtf(squares[0]);
        if (!(norm < INFINITY_VALUE)) return;
        if (norm > max_norm) scale *= max_norm / norm;
    }
    const Step s = {scale, rest1, rest2, beta2, inverse_root, eps, c.decays ? keep : 1.0f, rate};
    const float* g = grads + c.offset;
    float *m = first + c.offset, *v = second + c.offset, *w = MASTER ? masters + c.offset : nullptr;
    const bool whole = aligned(g, 16) && aligned(m, 16) && aligned(v, 16) && aligned(w, 16) && aligned(c.weight, 4 * sizeof(T));
    // Where a parameter of odd length has put the flat buffers out of step with the weights, elements go one by one.
    const i32 packed = whole ? c.length / 4 * 4 : 0;
    update<4, 2>(s, packed, c.weight, g, m, v, w);
    update<1, 4>(s, c.length - packed, c.weight + packed, g + packed, m + packed, v + packed, MASTER ? w + packed : nullptr);
}
