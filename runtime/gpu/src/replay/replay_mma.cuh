// Matrix products of a warp on the CPU: what `mma` and `ldmatrix` do (PTX ISA, warp-level matrix instructions).

DEV void mma_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    const u64 words[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const u32 turn = replay::meet("mma_bf16", words, 6);
    const u32 lane = replay::block.current->lane;
    auto half = [](u64 word, u32 upper) { return bits_to_float(u32(upper ? word & 0xffff0000u : word << 16)); };
    for (u32 e = 0; e < 4; e++) {
        const u32 row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
        float sum = d[e];
        for (u32 k = 0; k < 16; k++) {
            const u64 x = replay::words_of(row % 8 * 4 + k % 8 / 2, turn)[row / 8 + k / 8 * 2];
            const u64 y = replay::words_of(column * 4 + k % 8 / 2, turn)[4 + k / 8];
            sum += half(x, k & 1) * half(y, k & 1);
        }
        d[e] = sum;
    }
}

template <bool TRANSPOSED>
DEV void replay_ldmatrix(const char* name, u32 (&r)[4], const void* row) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) replay::fail_here("%s: an address is not aligned to 16 bytes", name);
    const u64 word = reinterpret_cast<u64>(row);
    const u32 turn = replay::meet(name, &word, 1);
    const u32 lane = replay::block.current->lane;
    for (u32 m = 0; m < 4; m++) {
        auto element = [&](u32 i, u32 j) { return reinterpret_cast<const u16*>(replay::words_of(m * 8 + i, turn)[0])[j]; };
        const u32 i = lane / 4, j = lane % 4 * 2;
        r[m] = TRANSPOSED ? element(j, i) | u32(element(j + 1, i)) << 16 : element(i, j) | u32(element(i, j + 1)) << 16;
    }
    // No lane overwrites the rows before every lane has read them.
    replay::meet(name, nullptr, 0);
}
DEV void ldmatrix_x4(u32 (&r)[4], const void* row) { replay_ldmatrix<false>("ldmatrix_x4", r, row); }
DEV void ldmatrix_x4_trans(u32 (&r)[4], const void* row) { replay_ldmatrix<true>("ldmatrix_x4_trans", r, row); }
