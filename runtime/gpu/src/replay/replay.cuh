// The host's side of bigmac.cuh: runs a kernel on the CPU, for tests. Every CUDA thread is a fiber; blocks run one
// after another, and threads in forward, reverse or random order, so that a missing barrier shows as a wrong result in
// one of them. Says nothing about time, nor about races within an order that none of the three meets.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#ifndef __x86_64__
#error "replay switches fibers with code for x86-64"
#endif

#define KERNEL static
#define DEV static inline
#define METHOD inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__
#define SHARED static
#define SHARED_DYNAMIC(E, name) E* name = reinterpret_cast<E*>(replay::shared_of(replay::block.current->rank))
#define UNROLL
#define ROLLED
#define NAN_VALUE __builtin_nanf("")
#define INFINITY_VALUE __builtin_inff()

namespace replay {

struct Dim {
    u32 x, y, z;
};

/// What a launch asks for; the program that launches has the same struct.
struct Launch {
    u32 grid[3];
    u32 block[3];
    u32 shared;
    /// Blocks along x that run together.
    u32 cluster;
    /// 0: in order, 1: in reverse, 2: at random; blocks and threads alike.
    u32 order;
    u32 seed;
    /// Receives the reason when a launch fails.
    char* message;
    u32 message_bytes;
};

/// What a fiber waits for.
enum class Wait { Nothing, Warp, Barrier, Memory, End };

struct Copy {
    void* to;
    const void* from;
    u32 valid, bytes;
};

constexpr int WORDS = 8;

/// What a thread carries along for a part of the GPU that this file does not know.
struct Extension {
    virtual ~Extension() = default;
    /// What the thread should have waited for before it ended; null for nothing.
    virtual const char* unfinished() const = 0;
};

struct Fiber {
    void* stack_pointer;
    Wait wait;
    /// Its block, which is number `rank` of the cluster, and its place and number there.
    Dim block, thread;
    u32 rank, number;
    /// Lane, and number of the warp in the cluster.
    u32 lane, warp;
    /// Name of the warp function waited in, and how many were entered: all lanes must agree.
    const char* function;
    u32 calls;
    /// What the lane shows to the others, alternating so that nothing is overwritten before it is read.
    u64 words[2][WORDS];
    u32 barrier, expected;
    /// Asynchronous copies by group, the open group last.
    std::vector<std::vector<Copy>> copies;
    std::unique_ptr<Extension> extension;
};

/// Blocks of a cluster, and named barriers of a block, at most.
constexpr u32 CLUSTER_MOST = 8, BARRIERS_EACH = 16, CLUSTER_BARRIER = CLUSTER_MOST * BARRIERS_EACH;

/// What runs at a time: a block, or the blocks of a cluster, which share the variables that a kernel declares as
/// SHARED.
struct Block {
    std::vector<Fiber> fibers;
    void* scheduler;
    Fiber* current;
    Dim extent, grid;
    u32 cluster;
    /// Dynamic shared memory of the first block; that of the next is `shared_stride` bytes further.
    char* shared;
    u32 shared_bytes, shared_stride;
    std::function<void()> body;
    std::mt19937 random;
    u32 order;
    /// Threads that have arrived at a barrier without waiting, by barrier, and how many it expects. Barriers of all
    /// blocks are counted through, that of the cluster after them.
    u32 arrived[CLUSTER_BARRIER + 1], arrived_of[CLUSTER_BARRIER + 1];
    /// Work that an engine of the GPU does on its own time: run at some later moment between two threads.
    std::vector<std::function<void()>> engine;
    std::string failure;
};
inline Block block;

/// Dynamic shared memory of block `rank` of the cluster.
inline char* shared_of(u32 rank) { return block.shared + size_t(rank) * block.shared_stride; }

// Saves the registers that a call preserves on one stack and loads them from another (System V, x86-64).
extern "C" void bigmac_replay_switch(void** save, void* load);
asm(R"(.text
.weak bigmac_replay_switch
bigmac_replay_switch:
 pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
 movq %rsp,(%rdi); movq %rsi,%rsp
 popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp; ret
)");

inline void yield(Wait wait) {
    Fiber* self = block.current;
    self->wait = wait;
    bigmac_replay_switch(&self->stack_pointer, block.scheduler);
}

inline void fail(const char* format, ...) {
    if (!block.failure.empty()) return;
    char text[400];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    block.failure = text;
}

/// Ends the launch with that reason; the fiber does not come back.
template <class... A>
inline void fail_here(const char* format, A... a) {
    fail(format, a...);
    for (;;) yield(Wait::End);
}

inline void entry() {
    block.body();
    Fiber* self = block.current;
    for (const auto& group : self->copies)
        if (!group.empty()) {
            fail("thread %u ended with an asynchronous copy that was not waited for", self->thread.x);
            break;
        }
    const char* unfinished = self->extension ? self->extension->unfinished() : nullptr;
    if (unfinished) fail("thread %u ended with %s that was not waited for", self->thread.x, unfinished);
    for (;;) yield(Wait::End);
}

/// All lanes show up to eight words and come here; then each reads what it likes of the others', with `words_of`.
inline u32 meet(const char* function, const u64* words, int count) {
    Fiber* self = block.current;
    const u32 turn = self->calls++ & 1;
    for (int i = 0; i < count; i++) self->words[turn][i] = words[i];
    self->function = function;
    yield(Wait::Warp);
    return turn;
}
inline const u64* words_of(u32 lane, u32 turn) {
    return block.fibers[block.current->warp * 32 + lane].words[turn];
}

constexpr size_t STACK = 128 << 10;
/// Passes over all threads in which none did anything but poll, before that is called a deadlock.
constexpr int PATIENCE = 2000;

inline void start(Fiber& fiber, char* stack) {
    fiber.wait = Wait::Nothing;
    fiber.calls = 0;
    fiber.copies.assign(1, {});
    fiber.extension.reset();
    auto top = (reinterpret_cast<uintptr_t>(stack) + STACK) & ~uintptr_t(15);
    void** p = reinterpret_cast<void**>(top);
    *--p = nullptr;
    *--p = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; i++) *--p = nullptr;
    fiber.stack_pointer = p;
}

/// Lets every warp go on whose lanes have all come to the same function.
inline bool release_warps() {
    auto& fibers = block.fibers;
    bool released = false;
    for (size_t w = 0; w < fibers.size(); w += 32) {
        size_t end = std::min(fibers.size(), w + 32), waiting = 0;
        for (size_t i = w; i < end; i++) waiting += fibers[i].wait == Wait::Warp;
        if (waiting != end - w) continue;
        for (size_t i = w; i < end; i++) {
            if (strcmp(fibers[i].function, fibers[w].function) != 0 || fibers[i].calls != fibers[w].calls) {
                fail("lanes 0 and %zu of warp %zu meet in different calls, %s and %s", i - w, w / 32, fibers[w].function,
                     fibers[i].function);
                return false;
            }
        }
        for (size_t i = w; i < end; i++) fibers[i].wait = Wait::Nothing;
        released = true;
    }
    return released;
}

inline bool release_barriers() {
    bool released = false;
    for (u32 id = 0; id <= CLUSTER_BARRIER; id++) {
        if (id == block.cluster * BARRIERS_EACH) id = CLUSTER_BARRIER;
        u32 waiting = 0, expected = block.arrived[id] ? block.arrived_of[id] : 0;
        for (auto& f : block.fibers)
            if (f.wait == Wait::Barrier && f.barrier == id) {
                waiting++;
                if (expected && f.expected != expected) fail("barrier %u is waited at with %u and with %u threads", id % BARRIERS_EACH, expected, f.expected);
                expected = f.expected;
            }
        if (waiting && waiting + block.arrived[id] >= expected) {
            block.arrived[id] = 0;
            for (auto& f : block.fibers)
                if (f.wait == Wait::Barrier && f.barrier == id) f.wait = Wait::Nothing;
            released = true;
        }
    }
    return released;
}

inline void describe_deadlock() {
    size_t count[5] = {};
    for (auto& f : block.fibers) count[int(f.wait)]++;
    const char* function = "";
    for (auto& f : block.fibers)
        if (f.wait == Wait::Warp) function = f.function;
    const Dim at = block.fibers[0].block;
    fail("deadlock in block (%u, %u, %u): of %zu threads %zu wait at a barrier, %zu in a warp function (%s), %zu for an mbarrier, %zu have ended",
         at.x, at.y, at.z, block.fibers.size(), count[int(Wait::Barrier)], count[int(Wait::Warp)], function,
         count[int(Wait::Memory)], count[int(Wait::End)]);
}

inline void run_engine(bool all) {
    auto& engine = block.engine;
    while (!engine.empty() && (all || block.order != 2 || block.random() % 4 == 0)) {
        auto work = std::move(engine.front());
        engine.erase(engine.begin());
        work();
    }
}

/// What lags behind in random order: a warp, and where several blocks run together, one of them or none; another ones
/// after a while. Without, all threads would come along nearly in step.
struct Laggards {
    u32 warp = 0, rank = 0, left = 0;

    void choose() {
        if (left-- > 0) return;
        left = 64;
        warp = u32(block.random() % ((block.fibers.size() + 31) / 32));
        rank = block.cluster > 1 ? u32(block.random() % (block.cluster + 1)) : 1;
    }
    bool lags(const Fiber& fiber) const { return (fiber.warp == warp || fiber.rank == rank) && block.random() % 8 != 0; }
};

inline void run_block(char* stacks) {
    auto& fibers = block.fibers;
    Laggards laggards;
    for (size_t i = 0; i < fibers.size(); i++) start(fibers[i], stacks + i * STACK);
    memset(block.shared, 0xff, size_t(block.shared_stride) * block.cluster);
    memset(block.arrived, 0, sizeof block.arrived);
    std::vector<u32> turn(fibers.size());
    for (size_t i = 0; i < turn.size(); i++) turn[i] = u32(block.order == 1 ? turn.size() - 1 - i : i);
    int idle = 0;
    while (block.failure.empty()) {
        if (block.order == 2) {
            std::shuffle(turn.begin(), turn.end(), block.random);
            laggards.choose();
        }
        bool progress = !block.engine.empty();
        for (u32 i : turn) {
            Fiber& fiber = fibers[i];
            if (fiber.wait != Wait::Nothing && fiber.wait != Wait::Memory) continue;
            if (block.order == 2 && laggards.lags(fiber)) {
                progress |= fiber.wait == Wait::Nothing;
                continue;
            }
            const bool polled = fiber.wait == Wait::Memory;
            block.current = &fiber;
            fiber.wait = Wait::Nothing;
            bigmac_replay_switch(&block.scheduler, fiber.stack_pointer);
            progress |= !(polled && fiber.wait == Wait::Memory);
        }
        size_t ended = 0;
        for (auto& f : fibers) ended += f.wait == Wait::End;
        run_engine(ended == fibers.size());
        if (ended == fibers.size()) return;
        progress |= release_warps();
        progress |= release_barriers();
        idle = progress ? 0 : idle + 1;
        bool polls = false;
        for (auto& f : fibers) polls |= f.wait == Wait::Memory;
        if (idle > (polls ? PATIENCE : 0)) describe_deadlock();
    }
}

template <class... A, size_t... I>
inline void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    (void)arguments;
    kernel(*static_cast<A*>(arguments[I])...);
}

/// One launch at a time: shared memory that a kernel declares is a variable of its library.
inline std::mutex one_launch;

/// Runs the whole grid; 0, or 1 with the reason in the launch's message.
template <class... A>
inline int launch(const Launch& ask, void (*kernel)(A...), void** arguments) {
    std::lock_guard<std::mutex> guard(one_launch);
    const size_t threads = size_t(ask.block[0]) * ask.block[1] * ask.block[2];
    block.extent = {ask.block[0], ask.block[1], ask.block[2]};
    block.grid = {ask.grid[0], ask.grid[1], ask.grid[2]};
    block.order = ask.order;
    block.random.seed(ask.seed);
    block.failure.clear();
    block.engine.clear();
    block.fibers.clear();
    block.cluster = ask.cluster;
    block.fibers.resize(threads * ask.cluster);
    for (size_t n = 0; n < block.fibers.size(); n++) {
        Fiber& f = block.fibers[n];
        const size_t i = n % threads;
        f.thread = {u32(i % ask.block[0]), u32(i / ask.block[0] % ask.block[1]), u32(i / ask.block[0] / ask.block[1])};
        f.rank = u32(n / threads);
        f.number = u32(i);
        f.lane = i % 32;
        f.warp = u32(n / 32);
    }
    block.shared_bytes = ask.shared;
    // A gap after each block's memory, so that what overruns it is not in the next one's.
    block.shared_stride = (ask.shared + 2047) / 1024 * 1024;
    char* shared = static_cast<char*>(malloc(size_t(block.shared_stride) * ask.cluster + 1024));
    block.shared = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(shared) + 1023) & ~uintptr_t(1023));
    char* stacks = static_cast<char*>(malloc(block.fibers.size() * STACK));
    block.body = [&] { call(kernel, arguments, std::index_sequence_for<A...>{}); };
    const u32 width = ask.grid[0] / ask.cluster;
    const size_t clusters = size_t(width) * ask.grid[1] * ask.grid[2];
    std::vector<size_t> turn(clusters);
    for (size_t i = 0; i < clusters; i++) turn[i] = ask.order == 1 ? clusters - 1 - i : i;
    if (ask.order == 2) std::shuffle(turn.begin(), turn.end(), block.random);
    for (size_t i : turn) {
        for (auto& f : block.fibers)
            f.block = {u32(i % width) * ask.cluster + f.rank, u32(i / width % ask.grid[1]), u32(i / width / ask.grid[1])};
        run_block(stacks);
        if (!block.failure.empty()) break;
    }
    free(stacks);
    free(shared);
    if (block.failure.empty()) return 0;
    snprintf(ask.message, ask.message_bytes, "%s", block.failure.c_str());
    return 1;
}

}  // namespace replay

#define threadIdx (replay::block.current->thread)
#define blockIdx (replay::block.current->block)
#define blockDim (replay::block.extent)
#define gridDim (replay::block.grid)

DEV void expect_aligned(const void* p, u32 bytes) {
    if (reinterpret_cast<uintptr_t>(p) % bytes != 0) replay::fail_here("%u bytes are moved at once at %p, which is not aligned to them", bytes, p);
}

DEV float bits_to_float(u32 bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
DEV u32 float_to_bits(float x) {
    u32 bits;
    memcpy(&bits, &x, 4);
    return bits;
}
DEV bf16 float_to_bf16(float x) {
    u32 bits = float_to_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return bf16{0x7fff};
    return bf16{u16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

// ---- warps ----------------------------------------------------------------------------------------------------------

DEV u32 replay_shuffle(const char* name, u32 v, u32 lane) {
    const u64 word = v;
    const u32 turn = replay::meet(name, &word, 1);
    return u32(replay::words_of(lane, turn)[0]);
}
DEV u32 shuffle_xor(u32 v, int mask) { return replay_shuffle("shuffle_xor", v, replay::block.current->lane ^ u32(mask)); }
DEV u32 shuffle(u32 v, int lane) { return replay_shuffle("shuffle", v, u32(lane & 31)); }
DEV float shuffle_xor(float v, int mask) { return bits_to_float(shuffle_xor(float_to_bits(v), mask)); }
DEV i32 shuffle_xor(i32 v, int mask) { return i32(shuffle_xor(u32(v), mask)); }
DEV float shuffle(float v, int lane) { return bits_to_float(shuffle(float_to_bits(v), lane)); }
DEV i32 shuffle(i32 v, int lane) { return i32(shuffle(u32(v), lane)); }
DEV u32 ballot(bool yes) {
    const u64 word = yes;
    const u32 turn = replay::meet("ballot", &word, 1);
    u32 all = 0;
    for (u32 lane = 0; lane < 32; lane++) all |= u32(replay::words_of(lane, turn)[0]) << lane;
    return all;
}
DEV u32 count_bits(u32 bits) { return u32(__builtin_popcount(bits)); }
DEV void __syncwarp() { replay::meet("__syncwarp", nullptr, 0); }
DEV void barrier_sync(u32 id, u32 threads) {
    replay::block.current->barrier = replay::block.current->rank * replay::BARRIERS_EACH + id;
    replay::block.current->expected = threads;
    replay::yield(replay::Wait::Barrier);
}
DEV void barrier_arrive(u32 id, u32 threads) {
    replay::Block& block = replay::block;
    const u32 at = block.current->rank * replay::BARRIERS_EACH + id;
    if (block.arrived[at] && block.arrived_of[at] != threads)
        replay::fail_here("barrier %u is arrived at with %u and with %u threads", id, block.arrived_of[at], threads);
    block.arrived_of[at] = threads;
    if (++block.arrived[at] > threads) replay::fail_here("more than %u threads arrive at barrier %u", threads, id);
}
DEV void __syncthreads() { barrier_sync(0, blockDim.x * blockDim.y * blockDim.z); }

// ---- arithmetic that the hardware approximates ----------------------------------------------------------------------

DEV float multiply(float a, float b) { return a * b; }
DEV float exp2_fast(float x) { return x < -126.0f ? 0.0f : exp2f(x); }
DEV float reciprocal_fast(float x) {
    constexpr float SMALLEST = 0x1p-126f;
    const float y = 1.0f / (fabsf(x) < SMALLEST ? copysignf(0.0f, x) : x);
    return fabsf(y) < SMALLEST ? copysignf(0.0f, y) : y;
}
DEV float rsqrtf(float x) { return 1.0f / sqrtf(x); }

#include "replay_mma.cuh"

// ---- asynchronous copies --------------------------------------------------------------------------------------------

DEV void replay_copy_async(void* shared, const void* global, u32 valid, u32 bytes) {
    if (valid > bytes || reinterpret_cast<uintptr_t>(shared) % bytes != 0 || (valid && reinterpret_cast<uintptr_t>(global) % bytes != 0))
        replay::fail_here("copy_async_%u: expected at most %u bytes and addresses aligned to it, got %u from %p to %p", bytes, bytes, valid, global,
                           shared);
    replay::block.current->copies.back().push_back({shared, global, valid, bytes});
}
DEV void copy_async_16(void* shared, const void* global, u32 valid) { replay_copy_async(shared, global, valid, 16); }
DEV void copy_async_8(void* shared, const void* global, u32 valid) { replay_copy_async(shared, global, valid, 8); }
DEV void copy_async_commit() { replay::block.current->copies.push_back({}); }
// Copies happen as late as they may: who reads without waiting reads what was there before.
template <int N>
DEV void copy_async_wait() {
    auto& copies = replay::block.current->copies;
    while (copies.size() > N + 1) {
        for (const auto& c : copies.front()) {
            char bytes[16] = {};
            if (c.valid) memcpy(bytes, c.from, c.valid);
            memcpy(c.to, bytes, c.bytes);
        }
        copies.erase(copies.begin());
    }
}
