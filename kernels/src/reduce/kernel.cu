// The reduction of several tensors into one.
#include "bigmac.cuh"

/// Elements that a thread reduces: 16 bytes of every tensor.
constexpr int V = 16 / sizeof(T);

/// The larger; NaN when either is.
DEV float larger(float a, float b) { return b > a || b != b ? b : a; }

/// out[i] = the reduction over r of tensor r's element start + i, for i in 0..n; sums are kept in fp32 and rounded
/// once. `tensors` holds the tensors' addresses. Every element is reduced in their order, so that all ranks get the
/// same bits.
KERNEL void reduce_tensors(const u64* __restrict__ tensors, i32 count, i64 start, T* __restrict__ out, i64 n, i32 largest) {
    const i64 first = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * V;
    if (first >= n) return;
    const i32 here = i32(least(i64(V), n - first));
    float sum[V];
    for (i32 r = 0; r < count; r++) {
        const T* x = reinterpret_cast<const T*>(tensors[r]) + start + first;
        Pack<T, V> values;
        if (here == V && aligned(x, 16)) {
            values = load_pack<V>(x);
        } else {
            UNROLL
            for (i32 i = 0; i < V; i++)
                if (i < here) values.at[i] = x[i];
        }
        UNROLL
        for (i32 i = 0; i < V; i++) {
            const float v = to_float(values.at[i]);
            sum[i] = r == 0 ? v : largest ? larger(sum[i], v) : sum[i] + v;
        }
    }
    UNROLL
    for (i32 i = 0; i < V; i++)
        if (i < here) out[first + i] = from_float<T>(sum[i]);
}
