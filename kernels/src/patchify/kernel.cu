// Cutting an image into patches, and putting it together again.
#include "index.cuh"

/// The element of an image [channels, height, width] that is element `at` of its patches [height / patch * width /
/// patch, channels * patch * patch].
DEV i64 in_image(i64 at, i32 channels, i32 height, i32 width, i32 patch) {
    i32 px, py, channel, column;
    at = divide(at, patch, px);
    at = divide(at, patch, py);
    at = divide(at, channels, channel);
    at = divide(at, width / patch, column);
    return (i64(channel) * height + at * patch + py) * width + column * patch + px;
}

/// patches[i] = image[in_image(i)]; n elements, a thread each.
KERNEL void patchify(i64 n, const T* image, T* patches, i32 channels, i32 height, i32 width, i32 patch) {
    const i64 at = i64(blockIdx.x) * THREADS + threadIdx.x;
    if (at < n) patches[at] = image[in_image(at, channels, height, width, patch)];
}

/// image[in_image(i)] = patches[i]; n elements, a thread each.
KERNEL void unpatchify(i64 n, const T* patches, T* image, i32 channels, i32 height, i32 width, i32 patch) {
    const i64 at = i64(blockIdx.x) * THREADS + threadIdx.x;
    if (at < n) image[in_image(at, channels, height, width, patch)] = patches[at];
}
