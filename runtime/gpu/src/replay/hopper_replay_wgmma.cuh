// The host's side of hopper.cuh, continued: wgmma. Operands are found as the descriptor's bits and PTX's canonical
// layouts say.
#pragma once

namespace replay {

/// The bf16 element (mn, k) of an operand, as PTX's matrix descriptor and its canonical layouts say.
inline float operand(u64 descriptor, bool by_mn, u32 mn, u32 k) {
    const u32 start = u32(descriptor & 0x3fff) << 4, leading = u32(descriptor >> 16 & 0x3fff) << 4, stride = u32(descriptor >> 32 & 0x3fff) << 4;
    if (descriptor & 0x3fffc000c000c000ull) fail_here("wgmma: the descriptor %016llx has bits that mean nothing here", descriptor);
    // Rows of so many pieces of 16 bytes; without a swizzle of one, and the two offsets change places.
    constexpr u32 PIECES[4] = {1, 8, 4, 2};
    const u32 mode = u32(descriptor >> 62), row = PIECES[mode] * 16;
    u32 at = start;
    if (by_mn) {
        const u32 piece = mn / 8 % PIECES[mode], block = mn / 8 / PIECES[mode];
        at += mn % 8 * 2 + piece * 16 + block * (mode ? leading : stride) + k % 8 * row + k / 8 * (mode ? stride : leading);
    } else {
        at += mn % 8 * row + mn / 8 * stride + k % 8 * 2 + k / 8 * (mode ? 16 : leading);
    }
    at ^= (at >> 7 & (PIECES[mode] - 1)) << 4;
    if (at + 2 > block.shared_bytes) fail_here("wgmma: an operand ends at byte %u of %u of shared memory", at + 2, block.shared_bytes);
    u16 bits;
    memcpy(&bits, shared_of(block.current->rank) + at, 2);
    return bits_to_float(u32(bits) << 16);
}

inline Accumulators& accumulators(HopperThread& self, const float* d) {
    for (auto& a : self.accumulators)
        if (a.d == d) return a;
    fail_here("wgmma: unknown accumulators");
    return self.accumulators.front();
}

/// The thread's share of a product.
inline void compute(HopperThread& self, const Wgmma& w) {
    const u32 thread = block.current->number % 128;
    float a[2][16];
    for (u32 r = 0; r < 2; r++)
        for (u32 k = 0; k < 16; k++)
            a[r][k] = w.from_registers ? w.rows[r][k] : operand(w.a, w.a_by_m, accumulator_row(thread, 2 * r), k);
    auto& values = accumulators(self, w.d).values;
    for (u32 i = 0; i < u32(w.n / 2); i += 4)
        for (u32 e = 0; e < 2; e++) {
            float b[16];
            for (u32 k = 0; k < 16; k++) b[k] = operand(w.b, w.b_by_n, accumulator_column(thread, i + e), k);
            for (u32 r = 0; r < 2; r++) {
                float sum = w.add ? values[i + 2 * r + e] : 0.0f;
                for (u32 k = 0; k < 16; k++) sum += a[r][k] * b[k];
                values[i + 2 * r + e] = sum;
            }
        }
}

/// Computes products in the order of their issue, until `count` are.
inline void compute_until(HopperThread& self, size_t count) {
    size_t index = self.retired;
    for (const auto& group : self.products)
        for (const auto& w : group) {
            if (index >= self.computed && index < count) compute(self, w);
            index++;
        }
    self.computed = std::max(self.computed, count);
}

constexpr u32 POISON = 0xffffffffu;

inline void issue(const Wgmma& w, u64 flags) {
    HopperThread& self = hopper();
    const u32 number = block.current->number;
    auto& agreed = hopper(*(block.current - number % 128)).agreed;
    const std::array<u64, 3> mine = {w.a, w.b, flags};
    if (number / 128 * 128 + 128 > block.fibers.size() / block.cluster) fail_here("wgmma: a warpgroup has 128 threads");
    if (agreed.size() == self.issued) agreed.push_back(mine);
    else if (agreed[self.issued] != mine) fail_here("wgmma: the threads of a warpgroup disagree on product %zu", self.issued);
    bool known = false;
    for (auto& a : self.accumulators)
        if (a.d == w.d) {
            known = true;
            a.flying++;
        }
    if (!known) {
        if (!self.fenced) fail_here("wgmma: there is no wgmma_fence since the accumulators belonged to the thread");
        self.accumulators.push_back({w.d, std::vector<float>(w.d, w.d + w.n / 2), 1});
        for (int i = 0; i < w.n / 2; i++) w.d[i] = bits_to_float(POISON);
    }
    self.products.back().push_back(w);
    self.issued++;
    if (block.order == 2 && block.random() % 2) compute_until(self, self.issued);
}

inline void retire(HopperThread& self, const Wgmma& w) {
    Accumulators& a = accumulators(self, w.d);
    self.retired++;
    if (--a.flying > 0) return;
    for (size_t i = 0; i < a.values.size(); i++) {
        if (float_to_bits(a.d[i]) != POISON) fail_here("wgmma: accumulator %zu was written while a product was under way", i);
        a.d[i] = a.values[i];
    }
    self.accumulators.erase(self.accumulators.begin() + (&a - self.accumulators.data()));
    self.fenced = false;
}

inline void wait_products(size_t youngest) {
    meet("wgmma_wait", nullptr, 0);
    HopperThread& self = hopper();
    while (self.products.size() > youngest + 1) {
        const auto group = self.products.front();
        compute_until(self, self.retired + group.size());
        self.products.erase(self.products.begin());
        for (const auto& w : group) retire(self, w);
    }
    // The lanes of a warp go on together: what one of them tells others holds for all.
    meet("wgmma_wait", nullptr, 0);
}

}  // namespace replay

template <class D>
DEV void pin_registers(D&) {}
DEV void wgmma_fence() {
    replay::meet("wgmma_fence", nullptr, 0);
    replay::hopper().fenced = true;
}
template <class D>
DEV void wgmma_fence(D&) { wgmma_fence(); }
DEV void wgmma_commit() {
    replay::meet("wgmma_commit", nullptr, 0);
    replay::hopper().products.push_back({});
}
template <int N>
DEV void wgmma_wait() { replay::wait_products(N); }
template <int N, class D>
DEV void wgmma_wait(D&) { replay::wait_products(N); }

template <int N, bool A_BY_M, bool B_BY_N>
DEV void wgmma(float (&d)[N / 2], u64 a, u64 b, bool add) {
    static_assert(N == 64 || N == 96 || N == 128 || N == 192 || N == 256, "N is 64, 96, 128, 192 or 256");
    replay::meet("wgmma", nullptr, 0);
    replay::issue({d, N, a, b, {}, false, A_BY_M, B_BY_N, add}, u64(N) << 3 | u64(A_BY_M) << 2 | u64(B_BY_N) << 1 | u64(add));
}
template <int N, bool B_BY_N>
DEV void wgmma(float (&d)[N / 2], const u32 (&a)[4], u64 b, bool add) {
    static_assert(N == 64 || N == 96 || N == 128 || N == 192 || N == 256, "N is 64, 96, 128, 192 or 256");
    const u64 words[4] = {a[0], a[1], a[2], a[3]};
    const u32 turn = replay::meet("wgmma", words, 4);
    replay::Wgmma w = {d, N, 0, b, {}, true, false, B_BY_N, add};
    for (u32 r = 0; r < 2; r++)
        for (u32 k = 0; k < 16; k++) {
            const u64 pair = replay::words_of(replay::block.current->lane / 4 * 4 + k % 8 / 2, turn)[r + k / 8 * 2];
            w.rows[r][k] = bits_to_float(u32(k % 2 ? pair & 0xffff0000u : pair << 16));
        }
    replay::issue(w, u64(1) << 32 | u64(N) << 3 | u64(B_BY_N) << 1 | u64(add));
}
