// The host's side of hopper.cuh. Everything that runs on its own time does so as late as it may, or, in random order,
// sometimes at once: the TMA through the block's engine, a wgmma when it is waited for. Accumulators that are under way
// hold NaN.
#pragma once

#include <array>

namespace replay {

// ---- barriers -------------------------------------------------------------------------------------------------------

/// An mbarrier, in the 64 bits that the kernel sees: phase, arrivals of a phase, arrivals to come, and bytes to come.
struct Barrier {
    u64 phase : 1, arrivals : 20, pending : 20, bytes : 21, mark : 2;
    static constexpr i64 LIMIT = (1 << 20) - 1;

    i64 to_come() const { return i64(bytes) - LIMIT - 1; }
    void expect(i64 more) {
        const i64 sum = to_come() + more;
        if (sum > LIMIT || sum < -LIMIT) fail("an mbarrier would count %lld bytes, more than the 2^20 - 1 that it can", sum);
        bytes = u64(sum + LIMIT + 1);
    }
    void arrive() {
        if (pending == 0) return fail("more than %u threads arrive at an mbarrier in one phase", u32(arrivals));
        pending = pending - 1;
    }
    void advance() {
        if (pending != 0 || to_come() > 0) return;
        if (to_come() < 0) return fail("%lld bytes more than expected came to an mbarrier", -to_come());
        phase = !phase;
        pending = arrivals;
    }
};

template <class F>
inline void with_barrier(const char* function, u64* at, F&& f) {
    static_assert(sizeof(Barrier) == sizeof(u64), "as the hardware has it");
    Barrier barrier;
    memcpy(&barrier, at, sizeof barrier);
    if (reinterpret_cast<uintptr_t>(at) % 8 != 0 || barrier.mark != 1) return fail("%s: expected an initialised mbarrier", function);
    f(barrier);
    memcpy(at, &barrier, sizeof barrier);
}

// ---- what a thread has under way ------------------------------------------------------------------------------------

/// A store of the TMA: its tile is read first and written later.
struct Transfer {
    bool read, written;
};

/// A product that is issued: a's 16 elements of the thread's two rows when they came in registers, else by descriptor.
struct Wgmma {
    float* d;
    int n;
    u64 a, b;
    float rows[2][16];
    bool from_registers, a_by_m, b_by_n, add;
};

/// Accumulators that belong to the tensor cores, as they stand.
struct Accumulators {
    float* d;
    std::vector<float> values;
    int flying;
};

struct HopperThread : Extension {
    std::vector<std::vector<std::shared_ptr<Transfer>>> stores{{}};
    /// Products by group, the open group last; those before `done` in order of issue are computed.
    std::vector<std::vector<Wgmma>> products{{}};
    std::vector<Accumulators> accumulators;
    size_t issued = 0, computed = 0, retired = 0;
    bool fenced = false;
    /// Of thread 0 of a warpgroup: what each product in turn was issued with, for the others to agree.
    std::vector<std::array<u64, 3>> agreed;

    const char* unfinished() const override {
        for (const auto& group : stores)
            for (const auto& store : group)
                if (!store->read) return "a store of the TMA";
        if (retired != issued) return "a wgmma";
        return nullptr;
    }
};

inline HopperThread& hopper(Fiber& fiber = *block.current) {
    if (!fiber.extension) fiber.extension = std::make_unique<HopperThread>();
    return static_cast<HopperThread&>(*fiber.extension);
}

// ---- tensor maps ----------------------------------------------------------------------------------------------------

/// A tensor map as the replayed driver writes it: word 0 the address; 1 the rank, bytes of an element (from bit 8) and
/// swizzle (from bit 16: none, 32, 64, 128 bytes); 2 to 6 extents; 7 to 10 strides in bytes of all dimensions but the
/// first; 11 to 15 extents of a tile.
struct Map {
    char* base;
    u32 rank, element, swizzle;
    i64 extents[5], strides[5], tile[5];
    size_t bytes;

    Map(const char* function, const TensorMap* map, u32 wanted) {
        const u64* w = map->opaque;
        base = reinterpret_cast<char*>(w[0]);
        rank = w[1] & 0xff;
        element = w[1] >> 8 & 0xff;
        swizzle = u32(w[1] >> 16);
        if (rank != wanted) fail_here("%s: the map has rank %u, the coordinates %u", function, rank, wanted);
        bytes = element;
        for (u32 i = 0; i < 5; i++) {
            extents[i] = i < rank ? i64(w[2 + i]) : 1;
            strides[i] = i == 0 ? i64(element) : i < rank ? i64(w[6 + i]) : 0;
            tile[i] = i < rank ? i64(w[11 + i]) : 1;
            bytes *= size_t(tile[i]);
        }
        if (swizzle && tile[0] * element != 16u << swizzle)
            fail_here("%s: rows of %lld bytes, the swizzle is of %u", function, tile[0] * element, 16u << swizzle);
    }

    /// Calls `f` with each element's offset in the tile's shared memory, and its address, null outside the tensor.
    template <class F>
    void each(const i64 (&at)[5], F&& f) const {
        const u32 mask = swizzle ? (1u << swizzle) - 1 : 0;
        i64 i[5] = {};
        for (u32 e = 0; e < bytes / element; e++) {
            bool inside = true;
            char* address = base;
            for (u32 d = 0; d < rank; d++) {
                const i64 x = at[d] + i[d];
                inside &= x >= 0 && x < extents[d];
                address += x * strides[d];
            }
            const u32 offset = e * element;
            f(offset ^ (offset >> 7 & mask) << 4, inside ? address : nullptr);
            for (u32 d = 0; d < rank && ++i[d] == tile[d]; d++) i[d] = 0;
        }
    }

    void check(const char* function, const void* at) const {
        const char* p = static_cast<const char*>(at);
        const char* shared = shared_of(block.current->rank);
        const uintptr_t unit = swizzle == 3 ? 1024 : 128;
        if ((p - shared) % unit != 0) fail_here("%s: the tile is not aligned to %zu bytes", function, size_t(unit));
        if (p < shared || p + bytes > shared + block.shared_bytes) fail_here("%s: the tile is not in dynamic shared memory", function);
    }
};

/// Where what lies at `p` in this block lies in block `rank` of the cluster. Not on the GPU, when that one has ended.
template <class E>
inline E* in_block(E* p, u32 rank) {
    return reinterpret_cast<E*>(reinterpret_cast<char*>(p) + (i64(rank) - i64(block.current->rank)) * block.shared_stride);
}
inline bool has_ended(u32 rank) {
    for (auto& f : block.fibers)
        if (f.rank == rank && f.wait != Wait::End) return false;
    return true;
}

inline void load(const char* function, const TensorMap* map, void* tile, u64* barrier, u32 blocks, u32 rank, i64 x, i64 y, i64 z) {
    const Map m(function, map, rank);
    m.check(function, tile);
    if (blocks == 0 || blocks >> block.cluster) fail_here("%s: to blocks %x of a cluster of %u", function, blocks, block.cluster);
    for (u32 r = 0; r < block.cluster; r++) {
        if (!(blocks >> r & 1)) continue;
        char* to = static_cast<char*>(in_block(tile, r));
        u64* counts = in_block(barrier, r);
        // Each block gets its own in its own time.
        block.engine.push_back([=] {
            if (has_ended(r)) return fail("%s: block %u of the cluster has ended", function, r);
            const i64 at[5] = {x, y, z, 0, 0};
            m.each(at, [&](u32 offset, const char* from) {
                if (from) memcpy(to + offset, from, m.element);
                else memset(to + offset, 0, m.element);
            });
            with_barrier(function, counts, [&](Barrier& b) {
                b.expect(-i64(m.bytes));
                b.advance();
            });
        });
    }
}

inline void store(const char* function, bool add, const TensorMap* map, const void* tile, u32 rank, i64 x, i64 y, i64 z) {
    const Map m(function, map, rank);
    m.check(function, tile);
    if (add && m.element != 4) fail_here("%s: expected elements of 4 bytes (fp32), got %u", function, m.element);
    auto transfer = std::make_shared<Transfer>();
    hopper().stores.back().push_back(transfer);
    block.engine.push_back([=] {
        std::vector<char> bytes(static_cast<const char*>(tile), static_cast<const char*>(tile) + m.bytes);
        transfer->read = true;
        block.engine.push_back([=] {
            const i64 at[5] = {x, y, z, 0, 0};
            m.each(at, [&](u32 offset, char* to) {
                if (!to) return;
                if (!add) {
                    memcpy(to, &bytes[offset], m.element);
                    return;
                }
                float old, more;
                memcpy(&old, to, 4);
                memcpy(&more, &bytes[offset], 4);
                old += more;
                memcpy(to, &old, 4);
            });
            transfer->written = true;
        });
    });
}

inline void wait_stores(size_t youngest, bool Transfer::*state) {
    auto& stores = hopper().stores;
    for (size_t g = 0; g + 1 + youngest < stores.size(); g++)
        for (const auto& transfer : stores[g])
            while (!((*transfer).*state)) yield(Wait::Memory);
}

}  // namespace replay

DEV u32 shared_address(const void* p) {
    const i64 at = static_cast<const char*>(p) - replay::shared_of(replay::block.current->rank);
    if (at < 0 || at >= replay::block.shared_bytes) replay::fail_here("shared_address: %p is not in dynamic shared memory", p);
    return u32(at);
}

// ---- barriers in shared memory --------------------------------------------------------------------------------------

DEV void mbarrier_init(u64* barrier, u32 arrivals) {
    if (arrivals == 0 || arrivals > replay::Barrier::LIMIT) replay::fail_here("mbarrier_init: %u arrivals", arrivals);
    replay::Barrier b = {};
    b.arrivals = b.pending = arrivals;
    b.mark = 1;
    b.bytes = replay::Barrier::LIMIT + 1;
    memcpy(barrier, &b, sizeof b);
}
DEV void fence_barrier_init() {}
DEV void mbarrier_expect(u64* barrier, u32 bytes) {
    replay::with_barrier("mbarrier_expect", barrier, [&](replay::Barrier& b) {
        b.expect(bytes);
        b.arrive();
        b.advance();
    });
}
DEV void mbarrier_arrive(u64* barrier) {
    replay::with_barrier("mbarrier_arrive", barrier, [&](replay::Barrier& b) {
        b.arrive();
        b.advance();
    });
}
DEV void mbarrier_arrive_at(u64* barrier, u32 rank) {
    if (rank >= replay::block.cluster) replay::fail_here("mbarrier_arrive_at: block %u of a cluster of %u", rank, replay::block.cluster);
    if (replay::has_ended(rank)) replay::fail_here("mbarrier_arrive_at: block %u of the cluster has ended", rank);
    mbarrier_arrive(replay::in_block(barrier, rank));
}
DEV void mbarrier_wait(u64* barrier, u32 parity) {
    for (;;) {
        bool done = false;
        replay::with_barrier("mbarrier_wait", barrier, [&](replay::Barrier& b) { done = b.phase != (parity & 1); });
        if (done) return;
        replay::yield(replay::Wait::Memory);
    }
}
DEV void fence_async() {}

// ---- the tensor memory accelerator ----------------------------------------------------------------------------------

DEV void tma_prefetch(const TensorMap*) {}
DEV void tma_load(void* tile, const TensorMap* map, u64* barrier, i32 x, i32 y) {
    replay::load("tma_load", map, tile, barrier, 1u << replay::block.current->rank, 2, x, y, 0);
}
DEV void tma_load(void* tile, const TensorMap* map, u64* barrier, i32 x, i32 y, i32 z) {
    replay::load("tma_load", map, tile, barrier, 1u << replay::block.current->rank, 3, x, y, z);
}
DEV void tma_load_multicast(void* tile, const TensorMap* map, u64* barrier, u16 blocks, i32 x, i32 y, i32 z) {
    replay::load("tma_load_multicast", map, tile, barrier, blocks, 3, x, y, z);
}
DEV void tma_store(const TensorMap* map, const void* tile, i32 x, i32 y) { replay::store("tma_store", false, map, tile, 2, x, y, 0); }
DEV void tma_store(const TensorMap* map, const void* tile, i32 x, i32 y, i32 z) { replay::store("tma_store", false, map, tile, 3, x, y, z); }
DEV void tma_add(const TensorMap* map, const void* tile, i32 x, i32 y, i32 z) { replay::store("tma_add", true, map, tile, 3, x, y, z); }
DEV void tma_commit() { replay::hopper().stores.push_back({}); }
template <int N>
DEV void tma_wait_read() { replay::wait_stores(N, &replay::Transfer::read); }
template <int N>
DEV void tma_wait() { replay::wait_stores(N, &replay::Transfer::written); }

DEV void stmatrix_x4(void* row, const u32 (&r)[4]) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) replay::fail_here("stmatrix_x4: an address is not aligned to 16 bytes");
    const u64 words[5] = {reinterpret_cast<u64>(row), r[0], r[1], r[2], r[3]};
    const u32 turn = replay::meet("stmatrix_x4", words, 5);
    const u32 lane = replay::block.current->lane;
    for (u32 m = 0; m < 4; m++) memcpy(reinterpret_cast<char*>(replay::words_of(m * 8 + lane / 4, turn)[0]) + lane % 4 * 4, &r[m], 4);
}

// ---- warpgroups and clusters ----------------------------------------------------------------------------------------

template <int N>
DEV void registers_grow() {
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "24 to 256 registers, a multiple of 8");
    replay::meet("registers_grow", nullptr, 0);
}
template <int N>
DEV void registers_shrink() {
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "24 to 256 registers, a multiple of 8");
    replay::meet("registers_shrink", nullptr, 0);
}
DEV u32 cluster_rank() { return replay::block.current->rank; }
DEV void cluster_sync() {
    replay::block.current->barrier = replay::CLUSTER_BARRIER;
    replay::block.current->expected = u32(replay::block.fibers.size());
    replay::yield(replay::Wait::Barrier);
}

#include "hopper_replay_wgmma.cuh"
