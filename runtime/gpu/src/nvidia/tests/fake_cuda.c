// A driver without a GPU, for tests: memory is the host's, work is queued and done as late as the driver may do it
// (when something waits for it), and one kernel is known. What it is made with (-D) decides what goes wrong: VERSION
// what cuDriverGetVersion says VERSION_STATUS  what it returns OLD, NEW      leaves out what drivers of CUDA 12.0 do
// not have yet, or what a later one may have no more INIT          what cuInit returns DEVICES       how many GPUs
// there are MAJOR, MINOR  their architecture ROOM          bytes of device memory FAILING       what the work queued by
// a launch ends with REFUSED       what cuLaunchKernelEx returns WITHOUT_POOLS leaves out cuMemAllocFromPoolAsync POOLS
// whether the device says that it has memory pools POOL_CREATE, POOL_ALLOCATE  what making a pool, and taking memory
// from it, returns RUNNING       asking whether an event has passed does one piece of work HANGING       no event ever
// passes
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef VERSION
#define VERSION 13000
#endif
#ifndef VERSION_STATUS
#define VERSION_STATUS 0
#endif
#ifndef INIT
#define INIT 0
#endif
#ifndef DEVICES
#define DEVICES 1
#endif
#ifndef MAJOR
#define MAJOR 9
#endif
#ifndef MINOR
#define MINOR 0
#endif
#ifndef ROOM
#define ROOM (256 << 20)
#endif
#ifndef FAILING
#define FAILING 0
#endif
#ifndef REFUSED
#define REFUSED 0
#endif
#ifndef POOLS
#define POOLS 1
#endif
#ifndef POOL_CREATE
#define POOL_CREATE 0
#endif
#ifndef POOL_ALLOCATE
#define POOL_ALLOCATE 0
#endif
#ifdef RUNNING
#define RUN_ONE run_until(done + 1 < queued ? done + 1 : queued)
#else
#define RUN_ONE 0
#endif
#ifdef HANGING
#define HANGS 1
#else
#define HANGS 0
#endif

// ---- what was called, for the test to read --------------------------------------------------------------------------

static char record[1 << 20];
static size_t recorded;
static pthread_mutex_t recording = PTHREAD_MUTEX_INITIALIZER, queueing = PTHREAD_MUTEX_INITIALIZER;
#define RECORD(...)                                                                              \
    do {                                                                                         \
        pthread_mutex_lock(&recording);                                                          \
        recorded += (size_t)snprintf(record + recorded, sizeof record - recorded, __VA_ARGS__); \
        pthread_mutex_unlock(&recording);                                                        \
    } while (0)
const char *fake_record(void) { return record; }

/// Memory of the device starts behind its own size.
enum { HEADER = 256 };
static size_t *size_of(uint64_t address) { return (size_t *)(address - HEADER); }

// ---- queued work ----------------------------------------------------------------------------------------------------

enum { UPLOAD, DOWNLOAD, COPY, FILL, SCALE, EVENT, FREE };
struct work {
    int kind;
    uint64_t to, from;
    size_t bytes;
    int32_t count;
    float factor;
};
static struct work queue[1 << 16];
static int queued, done;
/// What went wrong for good.
static int lost;
/// The context that is current, 7 when it is the right one.
static _Thread_local uint64_t current;

struct event {
    int recorded;
    int at; // the length of the queue when it was recorded
};

static int run_until(int end) {
    pthread_mutex_lock(&queueing);
    for (; done < end; done++) {
        struct work *w = &queue[done];
        if (lost) continue;
        switch (w->kind) {
        case UPLOAD: case DOWNLOAD: case COPY: memmove((void *)w->to, (void *)w->from, w->bytes); break;
        case FILL: memset((void *)w->to, (int)w->from, w->bytes); break;
        case SCALE:
            for (int32_t i = 0; i < w->count; i++) ((float *)w->to)[i] = ((float *)w->from)[i] * w->factor;
            lost = FAILING;
            break;
        case FREE: free((void *)(w->to - HEADER)); break;
        }
    }
    int status = lost;
    pthread_mutex_unlock(&queueing);
    return status;
}

/// Queues work, and says in `at` how long the queue is with it.
static int push_at(struct work w, int *at) {
    if (current != 7) return 201;
    pthread_mutex_lock(&queueing);
    int status = lost ? lost : queued == sizeof queue / sizeof *queue ? 999 : 0;
    if (!status) queue[queued++] = w;
    *at = queued;
    pthread_mutex_unlock(&queueing);
    return status;
}
static int push(struct work w) {
    int at;
    return push_at(w, &at);
}

// ---- the driver -----------------------------------------------------------------------------------------------------

int cuDriverGetVersion(int *v) { *v = VERSION; return VERSION_STATUS; }
int cuInit(unsigned flags) { return flags ? 1 : INIT; }
int cuGetErrorName(int e, const char **s) {
    *s = e == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : e == 701 ? "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES" : e == 500 ? "CUDA_ERROR_NOT_FOUND" : 0;
    return *s ? 0 : 1;
}
int cuGetErrorString(int e, const char **s) {
    *s = e == 700 ? "an illegal memory access was encountered" : 0;
    return *s ? 0 : 1;
}
int cuDeviceGetCount(int *n) { *n = DEVICES; return 0; }
int cuDeviceGet(int *d, int i) { *d = 40 + i; return 0; }
int cuDeviceGetName(char *name, int length, int d) { snprintf(name, (size_t)length, "Fake %d", d); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int d) { (void)d; *bytes = ROOM; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) {
    if (d < 40 || d >= 40 + DEVICES) return 101;
    switch (a) {
    case 16: *v = 132; return 0;
    case 75: *v = MAJOR; return 0;
    case 76: *v = MINOR; return 0;
    case 97: *v = 232448; return 0;
    case 115: *v = POOLS; return 0;
    }
    return 1;
}
int cuDevicePrimaryCtxRetain(uint64_t *c, int d) { RECORD("retain %d\n", d); *c = 7; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { RECORD("release %d\n", d); return 0; }
int cuCtxSetCurrent(uint64_t c) { current = c; return c == 7 ? 0 : 201; }
int cuStreamCreate(uint64_t *s, unsigned flags) { RECORD("stream flags %u\n", flags); *s = 11; return current == 7 ? 0 : 201; }
int cuStreamSynchronize(uint64_t s) { RECORD("synchronized\n"); return s == 11 ? run_until(queued) : 400; }
int cuStreamDestroy_v2(uint64_t s) { RECORD("stream destroyed\n"); return s == 11 ? 0 : 400; }
int cuEventCreate(struct event **e, unsigned flags) { RECORD("event flags %u\n", flags); *e = calloc(1, sizeof **e); return 0; }
int cuEventRecord(struct event *e, uint64_t s) {
    if (s != 11) return 400;
    e->recorded = 1;
    return push_at((struct work){EVENT, 0, 0, 0, 0, 0}, &e->at);
}
int cuEventQuery(struct event *e) {
    if (HANGS) return 600;
    int status = RUN_ONE;
    return status ? status : lost ? lost : e->recorded && e->at > done ? 600 : 0;
}
int cuEventSynchronize(struct event *e) { return run_until(e->recorded ? e->at : 0); }
static int elapsed(float *ms, struct event *a, struct event *b) {
    if (!a->recorded || !b->recorded) return 400;
    if (a->at > done || b->at > done) return 600;
    *ms = 2.0f * (float)(b->at - a->at); // 2 ms for each piece of work
    return 0;
}
#ifndef NEW
int cuEventElapsedTime(float *ms, struct event *a, struct event *b) { RECORD("elapsed\n"); return elapsed(ms, a, b); }
#endif
#ifndef OLD
int cuEventElapsedTime_v2(float *ms, struct event *a, struct event *b) { RECORD("elapsed v2\n"); return elapsed(ms, a, b); }
#endif
int cuEventDestroy_v2(struct event *e) { free(e); return 0; }

/// Bytes that are in use, those that the driver keeps for the pool, those that were allocated without a pool.
static uint64_t threshold, used, reserved, plain;
static pthread_mutex_t allocating = PTHREAD_MUTEX_INITIALIZER;
static uint64_t take(size_t bytes) {
    char *memory = aligned_alloc(256, HEADER + (bytes + 255) / 256 * 256);
    if (!memory) return 0;
    memset(memory + HEADER, 0xff, bytes);
    *(size_t *)memory = bytes;
    return (uint64_t)memory + HEADER;
}
int cuMemPoolCreate(uint64_t *p, const int *properties) {
    RECORD("pool type %d handles %d location %d %d\n", properties[0], properties[1], properties[2], properties[3]);
    for (int i = 4; i < 22; i++)
        if (properties[i]) return 1;
    *p = 13;
    return POOL_CREATE;
}
int cuMemPoolSetAttribute(uint64_t p, int a, uint64_t *v) { if (p != 13 || a != 4) return 1; threshold = *v; return 0; }
int cuMemPoolGetAttribute(uint64_t p, int a, uint64_t *v) { if (p != 13) return 1; *v = a == 5 ? reserved : a == 7 ? used : 0; return a == 5 || a == 7 ? 0 : 1; }
int cuMemPoolTrimTo(uint64_t p, size_t keep) {
    RECORD("trim to %zu, threshold %llx\n", keep, (unsigned long long)threshold);
    reserved = used > keep ? used : keep;
    return p == 13 ? 0 : 1;
}
int cuMemPoolDestroy(uint64_t p) { RECORD("pool destroyed\n"); return p == 13 ? 0 : 1; }
#ifndef WITHOUT_POOLS
int cuMemAllocFromPoolAsync(uint64_t *a, size_t bytes, uint64_t p, uint64_t s) {
    if (p != 13 || s != 11 || current != 7) return 1;
    if (POOL_ALLOCATE) return POOL_ALLOCATE;
    pthread_mutex_lock(&allocating);
    int fits = used + bytes <= ROOM;
    if (fits) used += bytes;
    if (used > reserved) reserved = used;
    pthread_mutex_unlock(&allocating);
    return fits && (*a = take(bytes)) ? 0 : 2;
}
#endif
int cuMemFreeAsync(uint64_t a, uint64_t s) {
    RECORD("free\n");
    if (s != 11) return 400;
    pthread_mutex_lock(&allocating);
    used -= *size_of(a);
    pthread_mutex_unlock(&allocating);
    return push((struct work){FREE, a, 0, 0, 0, 0});
}
int cuMemAlloc_v2(uint64_t *a, size_t bytes) {
    RECORD("allocate now %zu\n", bytes);
    if (current != 7) return 201;
    pthread_mutex_lock(&allocating);
    int fits = plain + bytes <= ROOM;
    if (fits) plain += bytes;
    pthread_mutex_unlock(&allocating);
    return fits && (*a = take(bytes)) ? 0 : 2;
}
int cuMemFree_v2(uint64_t a) {
    RECORD("free now, %d queued\n", queued - done);
    pthread_mutex_lock(&allocating);
    plain -= *size_of(a);
    pthread_mutex_unlock(&allocating);
    int status = run_until(queued);
    free((void *)(a - HEADER));
    return status;
}
int cuMemGetInfo_v2(size_t *left, size_t *all) { *left = ROOM - reserved - plain; *all = ROOM; return 0; }
int cuMemHostAlloc(void **p, size_t bytes, unsigned flags) { RECORD("pinned %zu flags %u\n", bytes, flags); *p = malloc(bytes); return 0; }
int cuMemFreeHost(void *p) { RECORD("unpinned\n"); free(p); return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, uint64_t s) { return s == 11 ? push((struct work){UPLOAD, to, (uint64_t)from, n, 0, 0}) : 400; }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, uint64_t s) { return s == 11 ? push((struct work){DOWNLOAD, (uint64_t)to, from, n, 0, 0}) : 400; }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n, uint64_t s) { return s == 11 ? push((struct work){COPY, to, from, n, 0, 0}) : 400; }
int cuMemsetD8Async(uint64_t to, unsigned char v, size_t n, uint64_t s) { return s == 11 ? push((struct work){FILL, to, v, n, 0, 0}) : 400; }

int cuModuleLoadData(uint64_t *m, const void *image) { RECORD("module\n"); *m = 17; return memcmp(image, "\177ELF", 4) ? 200 : 0; }
int cuModuleGetFunction(uint64_t *f, uint64_t m, const char *name) { *f = 19; return m == 17 && !strcmp(name, "scale") ? 0 : 500; }
int cuModuleUnload(uint64_t m) { RECORD("module unloaded, %d queued\n", queued - done); return m == 17 ? 0 : 1; }
int cuFuncGetAttribute(int *v, int a, uint64_t f) { *v = a == 0 ? 1024 : a == 1 ? 448 : a == 4 ? 40 : -1; return f == 19 ? 0 : 1; }
int cuFuncSetAttribute(uint64_t f, int a, int v) { RECORD("function %d = %d\n", a, v); return f == 19 ? 0 : 1; }

struct attribute { int id; char padding[4]; uint32_t value[16]; };
struct config {
    uint32_t grid[3], block[3], shared;
    uint64_t stream;
    const struct attribute *attributes;
    uint32_t count;
};
/// scale(TensorMap map, const float *x, float *y, i32 n, float factor): y = factor x.
int cuLaunchKernelEx(const struct config *c, uint64_t f, void **arguments, void **extra) {
    if (f != 19 || c->stream != 11 || extra) return 400;
    RECORD("launch grid %u %u %u block %u %u %u shared %u", c->grid[0], c->grid[1], c->grid[2], c->block[0], c->block[1], c->block[2], c->shared);
    for (uint32_t i = 0; i < c->count; i++)
        RECORD(" attribute %d = %u %u %u", c->attributes[i].id, c->attributes[i].value[0], c->attributes[i].value[1], c->attributes[i].value[2]);
    if (REFUSED) return REFUSED;
    uint64_t *map = arguments[0];
    RECORD(" map %llu aligned %d\n", (unsigned long long)map[15], (uint64_t)map % 64 == 0);
    return push((struct work){SCALE, *(uint64_t *)arguments[2], *(uint64_t *)arguments[1], 0, *(int32_t *)arguments[3], *(float *)arguments[4]});
}
int cuTensorMapEncodeTiled(uint64_t *map, int type, uint32_t rank, uint64_t address, const uint64_t *extents, const uint64_t *strides, const uint32_t *tile,
                           const uint32_t *steps, int interleave, int swizzle, int promotion, int fill) {
    if ((uint64_t)map % 128) return 1;
    RECORD("map type %d rank %u address %llx interleave %d swizzle %d promotion %d fill %d", type, rank, (unsigned long long)address, interleave, swizzle, promotion, fill);
    for (uint32_t i = 0; i < rank; i++) RECORD(" [%llu by %u step %u]", (unsigned long long)extents[i], tile[i], steps[i]);
    for (uint32_t i = 0; i + 1 < rank; i++) RECORD(" stride %llu", (unsigned long long)strides[i]);
    RECORD("\n");
    for (int i = 0; i < 16; i++) map[i] = (uint64_t)i + 100;
    return 0;
}
