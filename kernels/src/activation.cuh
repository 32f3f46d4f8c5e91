// Functions that the formulas of several operators share; those of numeric.rs, with the hardware's exponential and
// reciprocal.
#pragma once
#include "bigmac.cuh"

constexpr float LOG2_E = 1.44269504f;

/// 1 / (1 + exp(-x)).
DEV float sigmoid(float x) { return reciprocal_fast(1.0f + exp2_fast(-LOG2_E * x)); }

/// x sigmoid(x), and its derivative in `slope`.
DEV float silu(float x, float& slope) {
    const float s = sigmoid(x), y = x * s;
    slope = y * (1.0f - s) + s;
    return y;
}

/// Distribution function of the normal distribution, and its density: t exp(-x^2 / 2) P(t) below 0, with t = 1 / (1 +
/// 0.27 |x|), the form of Abramowitz and Stegun 7.1.26 with the polynomial of numeric.rs (relative error of 3e-8). One
/// exponential serves both.
DEV float normal(float x, float& density) {
    const float e = exp2_fast(-0.5f * LOG2_E * x * x);
    const float t = reciprocal_fast(0.27f * fabsf(x) + 1.0f);
    float p = 0.0291070282f;
    p = p * t - 0.1272421198f;
    p = p * t + 0.1714446873f;
    p = p * t - 0.0712139169f;
    p = p * t + 0.1092772064f;
    p = p * t + 0.0714060626f;
    p = p * t + 0.1019803670f;
    p = p * t + 0.1075186033f;
    p = p * t + 0.1077220931f;
    density = 0.398942280f * e;
    const float tail = t * e * p;
    return x < 0.0f ? tail : 1.0f - tail;
}
