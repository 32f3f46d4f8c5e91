#include "bigmac.cuh"
#include "hopper.cuh"

/// One block of 128 threads: what the index arithmetic gives.
KERNEL void layouts(u32* swizzled, u32* rows, u32* columns, i64* descriptors) {
    const u32 thread = threadIdx.x;
    for (u32 i = thread; i < 4096; i += 128) swizzled[i] = swizzle_128(i);
    for (u32 i = 0; i < 128; i++) {
        rows[thread * 128 + i] = accumulator_row(thread, i);
        columns[thread * 128 + i] = accumulator_column(thread, i);
    }
    if (thread == 0) {
        descriptors[0] = i64(matrix_descriptor_at(0x400, 16, 1024));
        descriptors[1] = i64(matrix_descriptor_at(0x38c00, 8192, 1024));
        descriptors[2] = i64(descriptor_advance(matrix_descriptor_at(0x400, 16, 1024), 32));
    }
}

/// Where element (line, k) of an operand of 64 elements of k lies: rows of 64 elements, their pieces of eight permuted
/// by the row.
DEV u32 place(bool by_line, u32 line, u32 k) {
    return by_line ? line / 64 * 8192 + k * 128 + (line % 64 / 8 ^ k % 8) * 16 + line % 8 * 2 : line * 128 + (k / 8 ^ line % 8) * 16 + k % 8 * 2;
}

template <int N, bool A_BY_M, bool B_BY_N, bool REGISTERS>
DEV void multiply(char* shared, const bf16* a, const bf16* b, float* c) {
    const u32 thread = threadIdx.x, lane = thread % WARP;
    char* b_tile = shared + 8192;
    for (u32 i = thread; i < 64 * 64; i += 128) *reinterpret_cast<bf16*>(shared + place(A_BY_M, i / 64, i % 64)) = a[i];
    for (u32 i = thread; i < N * 64; i += 128) *reinterpret_cast<bf16*>(b_tile + place(B_BY_N, i / 64, i % 64)) = b[i];
    fence_async();
    __syncthreads();
    u32 fragments[4][4];
    for (u32 step = 0; step < 4; step++)
        for (u32 i = 0; i < 4; i++) {
            const bf16* pair = a + (thread / WARP * 16 + lane / 4 + i % 2 * 8) * 64 + step * 16 + i / 2 * 8 + lane % 4 * 2;
            fragments[step][i] = u32(pair[0].bits) | u32(pair[1].bits) << 16;
        }
    float sums[N / 2];
    wgmma_fence(sums);
    const u64 a_start = matrix_descriptor(shared, 8192, 1024), b_start = matrix_descriptor(b_tile, 8192, 1024);
    UNROLL for (int step = 0; step < 4; step++) {
        const u64 a_step = descriptor_advance(a_start, step * (A_BY_M ? 2048 : 32));
        const u64 b_step = descriptor_advance(b_start, step * (B_BY_N ? 2048 : 32));
        if (REGISTERS) wgmma<N, B_BY_N>(sums, fragments[step], b_step, step > 0);
        else wgmma<N, A_BY_M, B_BY_N>(sums, a_step, b_step, step > 0);
        wgmma_commit();
    }
    wgmma_wait<0>(sums);
    for (u32 i = 0; i < N / 2; i++) c[accumulator_row(thread, i) * N + accumulator_column(thread, i)] = sums[i];
}

template <int N>
DEV void multiply_as(char* shared, const bf16* a, const bf16* b, float* c, u32 form) {
    if (form == 0) multiply<N, false, false, false>(shared, a, b, c);
    if (form == 1) multiply<N, true, false, false>(shared, a, b, c);
    if (form == 2) multiply<N, false, true, false>(shared, a, b, c);
    if (form == 3) multiply<N, true, true, false>(shared, a, b, c);
    if (form == 4) multiply<N, false, false, true>(shared, a, b, c);
    if (form == 5) multiply<N, false, true, true>(shared, a, b, c);
}

/// One block of 128 threads, 40 KiB: c (64 x n) = a (64 x 64) b, b given as n x 64; `form` says how they lie in shared
/// memory.
KERNEL void one_product(const bf16* a, const bf16* b, float* c, u32 n, u32 form) {
    SHARED_DYNAMIC(char, shared);
    if (n == 64) multiply_as<64>(shared, a, b, c, form);
    if (n == 96) multiply_as<96>(shared, a, b, c, form);
    if (n == 128) multiply_as<128>(shared, a, b, c, form);
    if (n == 192) multiply_as<192>(shared, a, b, c, form);
    if (n == 256) multiply_as<256>(shared, a, b, c, form);
}

/// One block of 128 threads: loads the tile of 64 x 4 x 2 elements at (x, y, z), shows shared memory in `seen`, adds 1
/// to each element, and stores the tile at (x, y, z) of `to`.
KERNEL void through(const __grid_constant__ TensorMap from, const __grid_constant__ TensorMap to, float* seen, i32 x, i32 y, i32 z) {
    SHARED_DYNAMIC(char, shared);
    constexpr u32 BYTES = 64 * 4 * 2 * sizeof(bf16);
    u64* barrier = reinterpret_cast<u64*>(shared + BYTES);
    if (threadIdx.x == 0) {
        mbarrier_init(barrier, 1);
        fence_barrier_init();
        mbarrier_expect(barrier, BYTES);
        tma_load(shared, &from, barrier, x, y, z);
    }
    __syncthreads();
    mbarrier_wait(barrier, 0);
    for (u32 i = threadIdx.x; i < BYTES / 2; i += 128) {
        bf16* element = reinterpret_cast<bf16*>(shared) + i;
        seen[i] = to_float(*element);
        *element = float_to_bf16(seen[i] + 1.0f);
    }
    fence_async();
    __syncthreads();
    if (threadIdx.x == 0) {
        tma_store(&to, shared, x, y, z);
        tma_commit();
        tma_wait<0>();
    }
}

/// One block of 256 threads, 34 KiB: mistakes, by number; 0 is none. y gets 128 sums of 16 products each.
KERNEL void mistaken(const __grid_constant__ TensorMap map, float* y, u32 mistake) {
    SHARED_DYNAMIC(char, shared);
    u64* barrier = reinterpret_cast<u64*>(shared + 33 * 1024);
    constexpr u32 BYTES = 64 * 64 * sizeof(bf16);
    const bool first = threadIdx.x == 0;
    if (first) {
        if (mistake != 1) mbarrier_init(barrier, 1);
        mbarrier_init(barrier + 1, 4);
    }
    __syncthreads();
    if (threadIdx.x >= 128) {
        if (threadIdx.x == 128) {
            const u32 expected = mistake == 2 ? BYTES - 16 : mistake == 3 ? BYTES + 16 : BYTES;
            mbarrier_expect(barrier, expected);
            tma_load(shared + (mistake == 4 ? 128 : 0), &map, barrier, 0, 0);
            if (mistake == 5) mbarrier_arrive(barrier);
            // With mistake 6 it waits until the tile is there, not until it is read.
            mbarrier_wait(mistake == 6 ? barrier : barrier + 1, 0);
            // Whatever is behind the tile: zeros.
            mbarrier_expect(barrier, BYTES);
            tma_load(shared, &map, barrier, 0, 64);
            mbarrier_wait(barrier, 1);
            if (mistake == 7) {
                tma_store(&map, shared, 0, 0);
                tma_commit();
            }
        }
        return;
    }
    mbarrier_wait(barrier, 0);
    float sums[32];
    if (mistake != 8) wgmma_fence(sums);
    const u32 shift = mistake == 9 && threadIdx.x >= 64 ? 32 : 0;
    const u64 descriptor = matrix_descriptor(shared + shift, 16, 1024);
    wgmma<64, false, false>(sums, descriptor, descriptor, false);
    wgmma_commit();
    if (mistake == 11) sums[3] = 0.0f;
    if (mistake != 12) wgmma_wait<0>(sums);
    y[threadIdx.x] = sums[5];
    if (threadIdx.x % WARP == 0) mbarrier_arrive(barrier + 1);
}

/// One block of 128 threads: half of them hand numbers to the others through a barrier at which they do not wait.
KERNEL void handed(float* y) {
    SHARED_DYNAMIC(float, shared);
    for (u32 i = 0; i < 3; i++) {
        if (threadIdx.x < 64) {
            if (i > 0) barrier_sync(2, 128);
            shared[threadIdx.x] = float(i * 64 + threadIdx.x);
            barrier_arrive(1, 128);
        } else {
            barrier_sync(1, 128);
            y[i * 64 + threadIdx.x - 64] = shared[threadIdx.x - 64];
            if (i < 2) barrier_arrive(2, 128);
        }
    }
}

/// Clusters of two blocks of 32 threads: block r loads rows 8 r to 8 r + 7 of matrix `cluster` for both, and each shows
/// all 16 in y. With `leave` block 1 ends before block 0 has sent it anything.
KERNEL void in_pairs(const __grid_constant__ TensorMap from, float* y, u32 leave) {
    SHARED_DYNAMIC(char, shared);
    u64* full = reinterpret_cast<u64*>(shared + 2048);
    u64* done = full + 1;
    const u32 rank = cluster_rank();
    if (threadIdx.x == 0) {
        mbarrier_init(full, 1);
        mbarrier_init(done, 2);
        fence_barrier_init();
    }
    cluster_sync();
    if (leave && rank == 1) return;
    if (threadIdx.x == 0) {
        mbarrier_expect(full, 2048);
        tma_load_multicast(shared + rank * 1024, &from, full, 3, 0, rank * 8, blockIdx.x / 2);
    }
    mbarrier_wait(full, 0);
    for (u32 i = threadIdx.x; i < 1024; i += 32) y[blockIdx.x * 1024 + i] = to_float(reinterpret_cast<bf16*>(shared)[swizzle_128(i * 2) / 2]);
    __syncwarp();
    if (threadIdx.x < 2) mbarrier_arrive_at(done, threadIdx.x);
    mbarrier_wait(done, 0);
    cluster_sync();
}
