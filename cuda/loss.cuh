/* loss.cuh: cross-entropy of a slice of the logits. The logits of all tokens never exist at the same time, since they
   would take too much memory (model_loss of train_gpt.c). */
#ifndef CUDA_LOSS_CUH
#define CUDA_LOSS_CUH

#include "device.h"

/* Both kernels compute losses (N) = -log softmax(logits)[target] from logits (N, V) and targets (N), and dlogits (N,
   V) = the gradient of scale * sum(losses), unless scale is 0.

   For vocabularies up to 32768 that are multiples of 4: a block has as many threads as fit into a multiprocessor's
   registers and holds a whole row in them, 32 numbers a thread, so it reads the row once. No other block shares the
   multiprocessor, so between two rows it would wait for memory. Therefore a block computes LOSS_ROWS rows, and as
   soon as it has stored the gradient of four numbers it loads those of the next row into the same registers. */
enum { LOSS_ROW_THREADS = 1024, LOSS_ROW_PIECE = 4 * LOSS_ROW_THREADS, LOSS_ROW_PIECES = 8, LOSS_ROWS = 4 };

/* A row shorter than one piece would leave some threads without work, and smaller blocks are faster for it. */
static inline bool loss_row_fits(int V) {
    return V % 4 == 0 && V > LOSS_ROW_PIECE && V <= LOSS_ROW_PIECES * LOSS_ROW_PIECE;
}

/* x = four numbers of the row, from column v on; minus infinity past its end. */
__device__ __forceinline__ void load_logits(float (&x)[4], const float *row, int v, int V) {
    for (int i = 0; i < 4; i++) x[i] = -INFINITY;
    if (v < V) load(x, row + v);
}

template <typename S>
__global__ void __launch_bounds__(LOSS_ROW_THREADS)
    cross_entropy_row_kernel(float *losses, S *dlogits, const float *logits, const int32_t *targets,
                             float scale, int64_t N, int V) {
    float2 *of_warps = shared_memory<
        float2>(); /* (2, warps) maximum and sum of each warp. Two neighbouring rows use different halves, so
                                    that one barrier for each row is enough */
    const int lane = (int)threadIdx.x % WARP_SIZE, warp = (int)threadIdx.x / WARP_SIZE;
    const int first = (int)threadIdx.x * 4;
    const int64_t begin = (int64_t)blockIdx.x * LOSS_ROWS,
                  end = begin + LOSS_ROWS < N ? begin + LOSS_ROWS : N;
    int target = targets[begin];
    float x[LOSS_ROW_PIECES][4], y[4];
#pragma unroll
    for (int k = 0; k < LOSS_ROW_PIECES; k++)
        load_logits(x[k], logits + begin * V, first + k * LOSS_ROW_PIECE, V);
#pragma unroll 1
    for (int64_t n = begin; n < end; n++) {
        const float of_target = threadIdx.x == 0 ? logits[n * V + target] : 0;
        float largest = -INFINITY, sum = 0;
#pragma unroll
        for (int k = 0; k < LOSS_ROW_PIECES; k++)
            for (int i = 0; i < 4; i++) largest = fmaxf(largest, x[k][i]);
#pragma unroll
        for (int k = 0; k < LOSS_ROW_PIECES; k++)
            for (int i = 0; i < 4; i++) sum += x[k][i] = expf(x[k][i] - largest);
        const float of_warp = warp_max(largest);
        sum = warp_sum(sum * expf(largest - of_warp));
        float2 *of_row = of_warps + n % 2 * WARP_SIZE;
        if (lane == 0) of_row[warp] = float2{of_warp, sum};
        const int next_target = targets[n + 1 < end ? n + 1 : n];
        __syncthreads();
        const float2 mine = of_row[lane]; /* there are as many warps as lanes */
        const float top = warp_max(mine.x);
        sum = warp_sum(mine.y * expf(mine.x - top));
        if (threadIdx.x == 0) losses[n] = logf(sum) + top - of_target;
        const float factor = expf(largest - top) * (scale / sum);
#pragma unroll
        for (int k = 0; k < LOSS_ROW_PIECES; k++) {
            const int v = first + k * LOSS_ROW_PIECE;
            for (int i = 0; i < 4; i++) y[i] = x[k][i] * factor;
            if (v == target / 4 * 4)
                for (int i = 0; i < 4; i++) y[i] -= i == target % 4 ? scale : 0.0f;
            if (v < V && scale != 0) store(dlogits + n * V + v, y);
            if (n + 1 < end) load_logits(x[k], logits + (n + 1) * V, v, V);
        }
        target = next_target;
    }
}

enum { LOSS_THREADS = 512 };

/* For any V. A block takes a row and reads it twice: first for its maximum and its sum, which each thread rescales
   when its running maximum grows; then for the gradient. */
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

/* losses (N), dlogits (N, V): see above. */
template <typename S>
void cross_entropy(float *losses, S *dlogits, const float *logits, const int32_t *targets, float scale,
                   int64_t N, int V, cudaStream_t stream) {
    if (loss_row_fits(V))
        LAUNCH(cross_entropy_row_kernel<S>, dim3(blocks_for(N, LOSS_ROWS)), dim3(LOSS_ROW_THREADS),
               2 * WARP_SIZE * sizeof(float2), stream, losses, dlogits, logits, targets, scale, N, V);
    else
        LAUNCH_WIDE(V % 4 == 0, cross_entropy_kernel, S, dim3((unsigned)N), dim3(LOSS_THREADS),
                    WARP_SIZE * sizeof(float), stream, losses, dlogits, logits, targets, scale, V);
}

#endif
