// The GPU's side of hopper.cuh: PTX for sm_90a. Functions in the same order as in hopper_replay.cuh.
#pragma once

// ---- barriers in shared memory --------------------------------------------------------------------------------------

/// A barrier of 8 bytes whose phase ends when `arrivals` threads have arrived and all expected bytes have come. One
/// thread calls this.
DEV void mbarrier_init(u64* barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
/// Makes initialised barriers known to the cluster and to the TMA; a block or cluster barrier has to follow.
DEV void fence_barrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
/// Arrives, and lets the phase wait for `bytes` more from the TMA.
DEV void mbarrier_expect(u64* barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}
DEV void mbarrier_arrive(u64* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
/// Arrives at the barrier that lies at the same place in block `rank` of the cluster, and so hands back to it what this
/// thread's warpgroup has read by wgmma and waited for. Of what the thread itself wrote or read, nothing is ordered for
/// the other block: with `.release.cluster` every arrival would be a fence for the whole GPU (MEMBAR.ALL.GPU), in every
/// step of a product's main loop. Reads that have ended need none: the other block overwrites what was read after it
/// has seen the arrival. (CUTLASS, ClusterBarrier::arrive.)
DEV void mbarrier_arrive_at(u64* barrier, u32 rank) {
    asm volatile("{.reg .b32 remote; mapa.shared::cluster.u32 remote, %0, %1; mbarrier.arrive.shared::cluster.b64 _, [remote];}" ::"r"(
                     shared_address(barrier)), "r"(rank) : "memory");
}
/// Waits until the phase of that parity has ended.
DEV void mbarrier_wait(u64* barrier, u32 parity) {
    u32 done;
    do {
        asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                     : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
    } while (!done);
}
/// Lets the TMA and wgmma see what this thread wrote to shared memory; a barrier with the thread that starts them has
/// to follow.
DEV void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- the tensor memory accelerator ----------------------------------------------------------------------------------

/// Fetches a descriptor ahead of its first use.
DEV void tma_prefetch(const TensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<u64>(map)) : "memory"); }

/// Starts the load of the tile at (x, y), x counting neighbours, to shared memory (aligned to 1024); its bytes count at
/// `barrier`. What lies outside the tensor is zero, and counts.
DEV void tma_load(void* tile, const TensorMap* map, u64* barrier, i32 x, i32 y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
                     shared_address(tile)), "l"(reinterpret_cast<u64>(map)), "r"(shared_address(barrier)), "r"(x), "r"(y) : "memory");
}
DEV void tma_load(void* tile, const TensorMap* map, u64* barrier, i32 x, i32 y, i32 z) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(
                     shared_address(tile)), "l"(reinterpret_cast<u64>(map)), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z) : "memory");
}
/// As tma_load, to the same place in every block of the cluster whose bit is set in `blocks`, and counted at each one's
/// own barrier.
DEV void tma_load_multicast(void* tile, const TensorMap* map, u64* barrier, u16 blocks, i32 x, i32 y, i32 z) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%4, %5, %6}], [%2], %3;" ::"r"(
            shared_address(tile)), "l"(reinterpret_cast<u64>(map)), "r"(shared_address(barrier)), "h"(blocks), "r"(x), "r"(y), "r"(z) : "memory");
}
/// Starts the store of a tile; what lies outside the tensor is left out. The thread commits it to a group and waits for
/// that.
DEV void tma_store(const TensorMap* map, const void* tile, i32 x, i32 y) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(reinterpret_cast<u64>(map)),
                 "r"(shared_address(tile)), "r"(x), "r"(y) : "memory");
}
DEV void tma_store(const TensorMap* map, const void* tile, i32 x, i32 y, i32 z) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(reinterpret_cast<u64>(map)),
                 "r"(shared_address(tile)), "r"(x), "r"(y), "r"(z) : "memory");
}
/// As tma_store, but adds to what is there, fp32 alone.
DEV void tma_add(const TensorMap* map, const void* tile, i32 x, i32 y, i32 z) {
    asm volatile("cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(
                     reinterpret_cast<u64>(map)), "r"(shared_address(tile)), "r"(x), "r"(y), "r"(z) : "memory");
}
/// Ends a group of the stores that this thread started since the last one.
DEV void tma_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/// Waits until all but the youngest `N` groups of this thread have read their tiles, which may be overwritten then.
template <int N>
DEV void tma_wait_read() { asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory"); }
/// Waits until all but the youngest `N` groups of this thread are written.
template <int N>
DEV void tma_wait() { asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory"); }

/// The reverse of ldmatrix_x4: lane l gives the address of row l % 8 of matrix l / 8.
DEV void stmatrix_x4(void* row, const u32 (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(shared_address(row)), "r"(r[0]), "r"(r[1]), "r"(r[2]),
                 "r"(r[3]) : "memory");
}

// ---- matrix products of a warpgroup ---------------------------------------------------------------------------------

/// Keeps the compiler from moving accesses to these registers past this point.
template <int R>
DEV void pin_registers(float (&d)[R]) {
    UNROLL for (int i = 0; i < R; i++) asm volatile("" : "+f"(d[i])::"memory");
}
template <int P, int R>
DEV void pin_registers(float (&d)[P][R]) {
    UNROLL for (int i = 0; i < P; i++) pin_registers(d[i]);
}
/// Stands before the first product, and before one whose accumulators or registers of A were touched since: those that
/// hold something are passed to the form below. In a loop the compiler wants it before each group.
DEV void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
template <class D>
DEV void wgmma_fence(D& d) {
    pin_registers(d);
    wgmma_fence();
}
/// Ends a group of the products since the last one.
DEV void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until all but the youngest `N` groups are done. Says nothing to the compiler about accumulators: those that
/// become free are passed to the form below, or several to pin_registers after it; never wait for one, pin it, and wait
/// again for another that is done by then: the compiler takes that for an access in between, and serialises the
/// products.
template <int N>
DEV void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }
template <int N, class D>
DEV void wgmma_wait(D& d) {
    wgmma_wait<N>();
    pin_registers(d);
}

#define WGMMA_OUT(d, i)                                                                                                            \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7]),    \
        "+f"(d[i + 8]), "+f"(d[i + 9]), "+f"(d[i + 10]), "+f"(d[i + 11]), "+f"(d[i + 12]), "+f"(d[i + 13]), "+f"(d[i + 14]),       \
        "+f"(d[i + 15])
#define WGMMA_LIST_0 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define WGMMA_LIST_1 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define WGMMA_LIST_2 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define WGMMA_LIST_3 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define WGMMA_LIST_4 "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define WGMMA_LIST_5 "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define WGMMA_LIST_6 "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"
#define WGMMA_LIST_7 "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define WGMMA_LIST_32 WGMMA_LIST_0 "," WGMMA_LIST_1
#define WGMMA_LIST_64 WGMMA_LIST_32 "," WGMMA_LIST_2 "," WGMMA_LIST_3
#define WGMMA_LIST_96 WGMMA_LIST_64 "," WGMMA_LIST_4 "," WGMMA_LIST_5
#define WGMMA_LIST_48 WGMMA_LIST_32 "," WGMMA_LIST_2
#define WGMMA_LIST_128 WGMMA_LIST_96 "," WGMMA_LIST_6 "," WGMMA_LIST_7
#define WGMMA_OUT_32(d) WGMMA_OUT(d, 0), WGMMA_OUT(d, 16)
#define WGMMA_OUT_48(d) WGMMA_OUT_32(d), WGMMA_OUT(d, 32)
#define WGMMA_OUT_64(d) WGMMA_OUT_48(d), WGMMA_OUT(d, 48)
#define WGMMA_OUT_96(d) WGMMA_OUT_64(d), WGMMA_OUT(d, 64), WGMMA_OUT(d, 80)
#define WGMMA_OUT_128(d) WGMMA_OUT_96(d), WGMMA_OUT(d, 96), WGMMA_OUT(d, 112)

// One product of n columns and R = n / 2 accumulators; the operands after them are numbered from R.
#define WGMMA_SHARED(n, R, A, B, P, TA, TB)                                                                                        \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " P ", 0; wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" WGMMA_LIST_##R \
                 "}, " A ", " B ", p, 1, 1, " TA ", " TB ";}"                                                                      \
                 : WGMMA_OUT_##R(d) : "l"(a), "l"(b), "r"(u32(add)), "n"(int(A_BY_M)), "n"(int(B_BY_N)))
#define WGMMA_REGISTERS(n, R, A0, A1, A2, A3, B, P, TB)                                                                            \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " P ", 0; wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" WGMMA_LIST_##R \
                 "}, {" A0 ", " A1 ", " A2 ", " A3 "}, " B ", p, 1, 1, " TB ";}"                                                   \
                 : WGMMA_OUT_##R(d) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(u32(add)), "n"(int(B_BY_N)))

/// Starts d (64xN) = a (64x16) b (16xN), plus d with `add`; bf16 with fp32 sums, all 128 threads of a warpgroup with
/// the same descriptors. N is 64, 96, 128, 192 or 256. A_BY_M: elements of a along m are neighbours, B_BY_N: those of b
/// along n; else those along k.
template <int N, bool A_BY_M, bool B_BY_N>
DEV void wgmma(float (&d)[N / 2], u64 a, u64 b, bool add) {
    static_assert(N == 64 || N == 96 || N == 128 || N == 192 || N == 256, "N is 64, 96, 128, 192 or 256");
    if constexpr (N == 64) WGMMA_SHARED(64, 32, "%32", "%33", "%34", "%35", "%36");
    if constexpr (N == 96) WGMMA_SHARED(96, 48, "%48", "%49", "%50", "%51", "%52");
    if constexpr (N == 128) WGMMA_SHARED(128, 64, "%64", "%65", "%66", "%67", "%68");
    if constexpr (N == 192) WGMMA_SHARED(192, 96, "%96", "%97", "%98", "%99", "%100");
    if constexpr (N == 256) WGMMA_SHARED(256, 128, "%128", "%129", "%130", "%131", "%132");
}
/// The same with a in registers, laid out for each warp's 16 rows as mma_bf16's. They are left alone until the product
/// is waited for.
template <int N, bool B_BY_N>
DEV void wgmma(float (&d)[N / 2], const u32 (&a)[4], u64 b, bool add) {
    static_assert(N == 64 || N == 96 || N == 128 || N == 192 || N == 256, "N is 64, 96, 128, 192 or 256");
    if constexpr (N == 64) WGMMA_REGISTERS(64, 32, "%32", "%33", "%34", "%35", "%36", "%37", "%38");
    if constexpr (N == 96) WGMMA_REGISTERS(96, 48, "%48", "%49", "%50", "%51", "%52", "%53", "%54");
    if constexpr (N == 128) WGMMA_REGISTERS(128, 64, "%64", "%65", "%66", "%67", "%68", "%69", "%70");
    if constexpr (N == 192) WGMMA_REGISTERS(192, 96, "%96", "%97", "%98", "%99", "%100", "%101", "%102");
    if constexpr (N == 256) WGMMA_REGISTERS(256, 128, "%128", "%129", "%130", "%131", "%132", "%133", "%134");
}

// ---- warpgroups and clusters ----------------------------------------------------------------------------------------

/// Lets every thread of the warpgroup have `N` registers (a multiple of 8), waiting until others have given up enough.
template <int N>
DEV void registers_grow() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
/// Gives registers up, down to `N` per thread.
template <int N>
DEV void registers_shrink() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
/// This block's number in its cluster.
DEV u32 cluster_rank() {
    u32 rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
/// A barrier of all threads of the cluster.
DEV void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
