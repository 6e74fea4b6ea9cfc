/* loss.cuh: cross-entropy over a slice of rows of the logits, which never exist whole (model_loss of train_gpt.c). */
#ifndef CUDA_LOSS_CUH
#define CUDA_LOSS_CUH

#include "device.h"

enum { LOSS_THREADS = 512 };

/* losses (N) = -log softmax(logits)[target]; dlogits (N, V) = the gradient of scale * sum(losses), unless scale is 0. A
   block a row: once over the row for its maximum and its sum, which each thread rescales as the maximum moves; once for
   the gradient. */
template <typename S, int W>
__global__ void cross_entropy_kernel(float *losses, S *dlogits, const float *logits, const int32_t *targets,
                                     float scale, int V) {
    float *scratch = shared_memory<float>();
    const int64_t n = blockIdx.x;
    const float *row = logits + n * V;
    const int target = targets[n], step = (int)blockDim.x * W;
    float largest = -INFINITY, sum = 0, x[W];
    for (int v = (int)threadIdx.x * W; v < V; v += step) {
        load(x, row + v);
        float moved = largest;
        for (int i = 0; i < W; i++) moved = fmaxf(moved, x[i]);
        sum *= expf(largest - moved);
        for (int i = 0; i < W; i++) sum += expf(x[i] - moved);
        largest = moved;
    }
    const float top = block_max(largest, scratch);
    sum = block_sum(largest == -INFINITY ? 0.0f : sum * expf(largest - top), scratch);
    if (threadIdx.x == 0) losses[n] = logf(sum) + top - row[target];
    if (scale == 0) return;
    const float factor = scale / sum;
    for (int v = (int)threadIdx.x * W; v < V; v += step) {
        load(x, row + v);
        for (int i = 0; i < W; i++) x[i] = expf(x[i] - top) * factor - (v + i == target ? scale : 0.0f);
        store(dlogits + n * V + v, x);
    }
}

template <typename S>
void cross_entropy(float *losses, S *dlogits, const float *logits, const int32_t *targets, float scale,
                   int64_t N, int V, cudaStream_t stream) {
    LAUNCH_WIDE(V % 4 == 0, cross_entropy_kernel, S, dim3((unsigned)N), dim3(LOSS_THREADS),
                WARP_SIZE * sizeof(float), stream, losses, dlogits, logits, targets, scale, V);
}

#endif
