/* optimizer.cuh: the norm of the gradients and AdamW on the GPU, as in gpt/math/optimizer.h. All arrays are in the
   GPU's memory and the caller's.

   sum_device(result, partial, x, n, squares, add, stream)   result (1) = the sum of x (n) or, if `squares`, of its
                                 squares, in double and in a fixed order; if `add`, result += it. partial, of
                                 sum_chunks(n) doubles, is work memory
   adamw_step(settings)          what AdamW computes once for all parameters
   adamw_update(parameter, operand, gradient, m, v, n, step, stream)
                                 one step for n parameters. gradient, first moment m and second moment v (n) each.
                                 operand (n): receives the new parameters as matrix products read them, rounded to the
                                 nearest bf16; nullptr where products read `parameter` itself */
#ifndef CUDA_OPTIMIZER_CUH
#define CUDA_OPTIMIZER_CUH

#include "device.h"
#include "../gpt/math/optimizer.h"

enum { SUM_CHUNK = 1 << 15, SUM_THREADS = 256, SUM_LOADS = 4 };

static inline int64_t sum_chunks(int64_t n) { return (n + SUM_CHUNK - 1) / SUM_CHUNK; }

/* terms = x[i] to x[i + 3], with zeros for elements from n on. Where x is aligned this is one load; the numbers are the
   same. */
template <typename F>
__device__ __forceinline__ void load_terms(F (&terms)[4], const F *x, int64_t i, int64_t n, bool aligned) {
    if constexpr (sizeof(F) == 4)
        if (aligned && i + 4 <= n) return load(terms, x + i);
    for (int k = 0; k < 4; k++) terms[k] = i + k < n ? x[i + k] : F(0);
}

/* Block b sums chunk b of x (n): partial[b] = the sum or, if `add`, += it. Each thread loads 16 numbers before it adds
   them, so that it waits for memory less often. */
template <typename F>
__global__ void __launch_bounds__(SUM_THREADS)
    sum_chunk_kernel(double *partial, const F *x, int64_t n, int64_t chunk, bool squares, bool add) {
    double *scratch = shared_memory<double>(), sum = 0;
    const int64_t begin = (int64_t)blockIdx.x * chunk;
    const bool aligned = (uintptr_t)x % 16 == 0; /* chunks begin at multiples of 16 bytes of x */
    const int64_t rest = n - begin, count = rest < chunk ? rest : chunk;
    x += begin;
    for (int64_t i = threadIdx.x * 4; i < count; i += SUM_LOADS * 4 * SUM_THREADS) {
        F terms[SUM_LOADS][4];
#pragma unroll
        for (int k = 0; k < SUM_LOADS; k++) load_terms(terms[k], x, i + k * 4 * SUM_THREADS, count, aligned);
#pragma unroll
        for (int k = 0; k < SUM_LOADS; k++)
            for (F term : terms[k]) sum += squares ? (double)term * (double)term : (double)term;
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = add ? partial[blockIdx.x] + sum : sum;
}

static inline void sum_device(double *result, double *partial, const float *x, int64_t n, bool squares,
                              bool add, cudaStream_t stream) {
    const int64_t chunks = sum_chunks(n);
    LAUNCH(sum_chunk_kernel<float>, dim3((unsigned)chunks), dim3(SUM_THREADS), WARP_SIZE * sizeof(double),
           stream, partial, x, n, (int64_t)SUM_CHUNK, squares, false);
    LAUNCH(sum_chunk_kernel<double>, dim3(1), dim3(SUM_THREADS), WARP_SIZE * sizeof(double), stream, result,
           (const double *)partial, chunks, chunks, false, add);
}

struct AdamWStep {
    float beta1, beta2, one_minus_beta1, one_minus_beta2, eps, decay, rate, root_unbias, gradient_scale;
};

static inline AdamWStep adamw_step(const AdamWSettings &s) {
    return AdamWStep{(float)s.beta1,
                     (float)s.beta2,
                     (float)(1 - s.beta1),
                     (float)(1 - s.beta2),
                     (float)s.eps,
                     (float)(1 - s.lr * s.weight_decay),
                     (float)(s.lr / (1 - pow(s.beta1, (double)s.step))),
                     (float)(1 / sqrt(1 - pow(s.beta2, (double)s.step))),
                     (float)s.gradient_scale};
}

template <typename S, int W>
__global__ void adamw_kernel(float *parameter, S *operand, const float *gradient, float *adam_m,
                             float *adam_v, int64_t n, AdamWStep s) {
    const int64_t at = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * W;
    if (at >= n) return;
    float p[W], g[W], m[W], v[W];
    load(p, parameter + at), load(g, gradient + at), load(m, adam_m + at), load(v, adam_v + at);
    for (int i = 0; i < W; i++) {
        g[i] *= s.gradient_scale;
        m[i] = s.beta1 * m[i] + s.one_minus_beta1 * g[i];
        v[i] = s.beta2 * v[i] + s.one_minus_beta2 * g[i] * g[i];
        p[i] = s.decay * p[i] - s.rate * m[i] / (sqrtf(v[i]) * s.root_unbias + s.eps);
    }
    store(parameter + at, p), store(adam_m + at, m), store(adam_v + at, v);
    if (operand) store(operand + at, p);
}

/* Four parameters a thread where all arrays are aligned to four elements, else one. operand is aligned where parameter
   is. */
template <typename S>
void adamw_update(float *parameter, S *operand, const float *gradient, float *adam_m, float *adam_v,
                  int64_t n, const AdamWStep &step, cudaStream_t stream) {
    const bool wide =
        n % 4 == 0 &&
        ((uintptr_t)parameter | (uintptr_t)gradient | (uintptr_t)adam_m | (uintptr_t)adam_v) % 16 == 0;
    LAUNCH_WIDE(wide, adamw_kernel, S, dim3(blocks_for(n, wide ? 1024 : 256)), dim3(256), 0, stream,
                parameter, operand, gradient, adam_m, adam_v, n, step);
}

#endif
