/* layers.cuh: the layers around the matrix products and attention, as in section 1 of train_gpt.c: an op_forward and an
   op_backward each, outputs first, `d` for gradients. The residual stream and every sum are float32; S is the type of
   the operands of products, float or bf16. Every sum has a fixed order, so a run has the same bits each time.

   Sizes: B sequences, T tokens of each, N = B*T, C width, H heads of size D, A = H*D, F hidden units. */
#ifndef CUDA_LAYERS_CUH
#define CUDA_LAYERS_CUH

#include "device.h"

enum { LAYER_THREADS = 256 };

/* ---- embedding ---- */

/* out (N, C) = embed[token] (V, C), plus position (T, C) where the model has one. A block a token. */
template <typename F>
__global__ void embedding_forward_kernel(F *out, const int32_t *tokens, const F *embed, const F *position,
                                         int T, int C) {
    const int64_t n = blockIdx.x;
    const F *row = embed + (int64_t)tokens[n] * C;
    for (int c = (int)threadIdx.x; c < C; c += (int)blockDim.x)
        out[n * C + c] = position ? row[c] + position[n % T * C + c] : row[c];
}

static inline void embedding_forward(float *out, const int32_t *tokens, const float *embed,
                                     const float *position, int64_t N, int T, int C, cudaStream_t stream) {
    LAUNCH(embedding_forward_kernel<float>, dim3((unsigned)N), dim3(LAYER_THREADS), 0, stream, out, tokens,
           embed, position, T, C);
}

/* The tokens of a batch by value: `place` (N) lists where they stand, equal ones together and in order; `first`
   (distinct + 1) where the list of each begins. The host makes it while the GPU is busy. */
struct TokenBuckets {
    int32_t *place, *first; /* (N), (N + 1) */
    int distinct;
};

static inline void token_buckets(TokenBuckets *buckets, const int32_t *tokens, int64_t N, int V,
                                 int32_t *count /* (V) */) {
    for (int v = 0; v < V; v++) count[v] = 0;
    for (int64_t n = 0; n < N; n++) count[tokens[n]]++;
    int32_t used = 0;
    buckets->distinct = 0;
    for (int v = 0; v < V; v++) {
        if (count[v] == 0) continue;
        buckets->first[buckets->distinct++] = used;
        const int32_t begin = used;
        used += count[v];
        count[v] = begin; /* where the next one goes */
    }
    buckets->first[buckets->distinct] = used;
    for (int64_t n = 0; n < N; n++) buckets->place[count[tokens[n]]++] = (int32_t)n;
}

/* dembed (V, C) += the sum of dout (N, C) over the places of each token, in order. A block a token and some columns. */
template <typename F>
__global__ void embedding_backward_kernel(F *dembed, const F *dout, const int32_t *tokens,
                                          const int32_t *place, const int32_t *first, int C) {
    const int32_t begin = first[blockIdx.x], end = first[blockIdx.x + 1];
    const int c = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    if (c >= C) return;
    F sum = 0;
#pragma unroll 8
    for (int32_t i = begin; i < end; i++) sum += dout[(int64_t)place[i] * C + c];
    dembed[(int64_t)tokens[place[begin]] * C + c] += sum;
}

/* dposition (T, C) += the sum of dout (B, T, C) over the sequences. */
template <typename F>
__global__ void position_backward_kernel(F *dposition, const F *dout, int B, int64_t TC) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= TC) return;
    F sum = 0;
    for (int b = 0; b < B; b++) sum += dout[b * TC + i];
    dposition[i] += sum;
}

static inline void embedding_backward(float *dembed, float *dposition, const float *dout,
                                      const int32_t *tokens, const TokenBuckets &buckets, int B, int T, int C,
                                      cudaStream_t stream) {
    enum { COLUMNS = 128 };
    LAUNCH(embedding_backward_kernel<float>, dim3((unsigned)buckets.distinct, blocks_for(C, COLUMNS)),
           dim3(COLUMNS), 0, stream, dembed, dout, tokens, buckets.place, buckets.first, C);
    if (dposition)
        LAUNCH(position_backward_kernel<float>, dim3(blocks_for((int64_t)T * C, LAYER_THREADS)),
               dim3(LAYER_THREADS), 0, stream, dposition, dout, B, (int64_t)T * C);
}

/* ---- RMSNorm ---- */

/* out (N, C) = x * rstd * weight, rstd (N) = 1/sqrt(mean(x^2) + eps); rstd is read when `again`. A warp a token. */
template <typename S, int W>
__global__ void rmsnorm_forward_kernel(S *out, float *rstd, const float *x, const float *weight, int64_t N,
                                       int C, bool again) {
    const int64_t n = (int64_t)blockIdx.x * (blockDim.x / WARP_SIZE) + threadIdx.x / WARP_SIZE;
    const int lane = (int)threadIdx.x % WARP_SIZE;
    if (n >= N) return;
    float squares = 0, row[W], w[W];
    for (int c = lane * W; c < C && !again; c += WARP_SIZE * W) {
        load(row, x + n * C + c);
        for (int i = 0; i < W; i++) squares += row[i] * row[i];
    }
    const float r = again ? rstd[n] : 1.0f / sqrtf(warp_sum(squares) / (float)C + 1e-6f);
    if (lane == 0 && !again) rstd[n] = r;
    for (int c = lane * W; c < C; c += WARP_SIZE * W) {
        load(row, x + n * C + c), load(w, weight + c);
        for (int i = 0; i < W; i++) row[i] = row[i] * r * w[i];
        store(out + n * C + c, row);
    }
}

template <typename S>
void rmsnorm_forward(S *out, float *rstd, const float *x, const float *weight, int64_t N, int C,
                     cudaStream_t stream) {
    LAUNCH_WIDE(C % 4 == 0, rmsnorm_forward_kernel, S, dim3(blocks_for(N, 8)), dim3(8 * WARP_SIZE), 0, stream,
                out, rstd, x, weight, N, C, false);
}

/* The same from the rstd that forward kept: cheaper to do again in backward than to store. */
template <typename S>
void rmsnorm_again(S *out, const float *rstd, const float *x, const float *weight, int64_t N, int C,
                   cudaStream_t stream) {
    LAUNCH_WIDE(C % 4 == 0, rmsnorm_forward_kernel, S, dim3(blocks_for(N, 8)), dim3(8 * WARP_SIZE), 0, stream,
                out, (float *)rstd, x, weight, N, C, true);
}

enum { GPU_NORM_CHUNK = 32 }; /* tokens of a block, whose weight gradients are summed together */

static inline int64_t rmsnorm_chunks(int64_t N) { return (N + GPU_NORM_CHUNK - 1) / GPU_NORM_CHUNK; }

/* forward: out = x * r * w.  With g = dout * w:  dx = r * (g - x * r^2 * mean(g * x)),  dw = sum_n dout * x * r
   dx (N, C) += ; operand (N, C) its new value as S, when not NULL; partial (chunks, C) = dw of a block's tokens. */
template <typename S, int W>
__global__ void rmsnorm_backward_kernel(float *dx, S *operand, float *partial, const S *dout, const float *x,
                                        const float *rstd, const float *weight, int64_t N, int C) {
    float *scratch = shared_memory<float>(), *dw = scratch + WARP_SIZE; /* (C) */
    const int step = (int)blockDim.x * W, first = (int)threadIdx.x * W;
    const int64_t begin = (int64_t)blockIdx.x * GPU_NORM_CHUNK,
                  end = begin + GPU_NORM_CHUNK < N ? begin + GPU_NORM_CHUNK : N;
    float g[W], row[W], w[W], sum[W];
    for (int c = first; c < C; c += step) /* a column is one thread's */
        for (int i = 0; i < W; i++) dw[c + i] = 0;
    for (int64_t n = begin; n < end; n++) {
        const float r = rstd[n];
        float dot = 0;
        for (int c = first; c < C; c += step) {
            load(g, dout + n * C + c), load(row, x + n * C + c), load(w, weight + c);
            for (int i = 0; i < W; i++) dot += g[i] * w[i] * row[i];
        }
        const float pull = block_sum(dot, scratch) * r * r * r / (float)C;
        for (int c = first; c < C; c += step) {
            load(g, dout + n * C + c), load(row, x + n * C + c), load(w, weight + c),
                load(sum, dx + n * C + c);
            for (int i = 0; i < W; i++) {
                sum[i] += g[i] * w[i] * r - row[i] * pull;
                dw[c + i] += g[i] * row[i] * r;
            }
            store(dx + n * C + c, sum);
            if (operand) store(operand + n * C + c, sum);
        }
    }
    for (int c = first; c < C; c += step)
        for (int i = 0; i < W; i++) partial[blockIdx.x * (int64_t)C + c + i] = dw[c + i];
}

enum { SUM_ROWS_WARPS = 16, SUM_ROWS_THREADS = SUM_ROWS_WARPS * WARP_SIZE };

/* sums (C) += partial (rows, C). A block 32 columns, a warp of it every sixteenth row; then warp after warp. */
template <typename F> __global__ void sum_rows_kernel(F *sums, const F *partial, int64_t rows, int C) {
    F *of_warps = shared_memory<F>(), sum = 0; /* (SUM_ROWS_WARPS, WARP_SIZE) */
    const int lane = (int)threadIdx.x % WARP_SIZE, warp = (int)threadIdx.x / WARP_SIZE;
    const int c = (int)blockIdx.x * WARP_SIZE + lane;
    if (c >= C) rows = 0;
#pragma unroll 8
    for (int64_t i = warp; i < rows; i += SUM_ROWS_WARPS) sum += partial[i * C + c];
    of_warps[threadIdx.x] = sum;
    __syncthreads();
    if (warp > 0 || c >= C) return;
    sum = sums[c];
    for (int w = 0; w < SUM_ROWS_WARPS; w++) sum += of_warps[w * WARP_SIZE + lane];
    sums[c] = sum;
}

/* dx += , dweight (C) += ; partial (rmsnorm_chunks(N), C) is scratch. */
template <typename S>
void rmsnorm_backward(float *dx, S *operand, float *dweight, float *partial, const S *dout, const float *x,
                      const float *rstd, const float *weight, int64_t N, int C, cudaStream_t stream) {
    const int64_t chunks = rmsnorm_chunks(N);
    LAUNCH_WIDE(C % 4 == 0, rmsnorm_backward_kernel, S, dim3((unsigned)chunks), dim3(LAYER_THREADS),
                ((size_t)C + WARP_SIZE) * sizeof(float), stream, dx, operand, partial, dout, x, rstd, weight,
                N, C);
    LAUNCH(sum_rows_kernel<float>, dim3(blocks_for(C, WARP_SIZE)), dim3(SUM_ROWS_THREADS),
           SUM_ROWS_THREADS * sizeof(float), stream, dweight, (const float *)partial, chunks, C);
}

/* ---- rope ---- */

/* In place on the q and k thirds of qkv (N, 3A): the pair (d, d + D/2) of each head turns by the angle given as turn
   (T, D/2, 2) = cos, sin. direction 1 forward, -1 back: its transpose, and so rope's backward. A thread W pairs. */
template <typename S, int W>
__global__ void rope_kernel(S *qkv, const float *turn, float direction, int64_t N, int T, int H, int D) {
    const int half = D / 2;
    const int64_t pairs = 2 * (int64_t)H * half, i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * W;
    if (i >= N * pairs) return;
    const int64_t n = i / pairs;
    const int head = (int)(i % pairs / half), d = (int)(i % half); /* the heads of q, then those of k */
    S *x = qkv + n * 3 * H * D + head * D + d;
    const float *angle = turn + n % T * D + 2 * d;
    float a[W], b[W], left[W], right[W];
    load(a, x), load(b, x + half);
    for (int p = 0; p < W; p++) {
        const float cosine = angle[2 * p], sine = direction * angle[2 * p + 1];
        left[p] = a[p] * cosine - b[p] * sine;
        right[p] = b[p] * cosine + a[p] * sine;
    }
    store(x, left), store(x + half, right);
}

template <typename S>
void rope_rotate(S *qkv, const float *turn, float direction, int64_t N, int T, int H, int D,
                 cudaStream_t stream) {
    const bool wide = D % 8 == 0;
    LAUNCH_WIDE(wide, rope_kernel, S, dim3(blocks_for(N * 2 * H * (D / 2), LAYER_THREADS * (wide ? 4 : 1))),
                dim3(LAYER_THREADS), 0, stream, qkv, turn, direction, N, T, H, D);
}

/* ---- activations ---- */

enum { GPU_GELU, GPU_RELU, GPU_SWIGLU }; /* in the order of options.h */

/* gelu in its tanh form is x * sigmoid(2s), s = sqrt(2/pi) (x + 0.044715 x^3) */
__device__ __forceinline__ float gelu_sigmoid(float x) {
    return 1.0f / (1.0f + expf(-1.59576912f * (x + 0.044715f * x * x * x)));
}
__device__ __forceinline__ float gelu_slope(float x, float sigmoid) {
    return sigmoid + x * sigmoid * (1.0f - sigmoid) * 1.59576912f * (1.0f + 0.134145f * x * x);
}
__device__ __forceinline__ float silu_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/* hidden (N, F) = act(up (N, F)); with swiglu up is (N, 2F): silu(gate) * up, gate first. A thread W elements. */
template <typename S, int W>
__global__ void activation_forward_kernel(S *hidden, const S *up, int64_t N, int F, int kind) {
    const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * W;
    if (i >= N * F) return;
    const S *from = up + (kind == GPU_SWIGLU ? i / F * 2 * F + i % F : i);
    float x[W], u[W] = {};
    load(x, from);
    if (kind == GPU_SWIGLU) load(u, from + F);
    for (int p = 0; p < W; p++)
        x[p] = kind == GPU_GELU   ? x[p] * gelu_sigmoid(x[p])
               : kind == GPU_RELU ? fmaxf(x[p], 0.0f)
                                  : x[p] * silu_sigmoid(x[p]) * u[p];
    store(hidden + i, x);
}

/* dup (N, F or 2F) = dhidden (N, F) through act at up. */
template <typename S, int W>
__global__ void activation_backward_kernel(S *dup, const S *dhidden, const S *up, int64_t N, int F,
                                           int kind) {
    const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * W;
    if (i >= N * F) return;
    const int64_t at = kind == GPU_SWIGLU ? i / F * 2 * F + i % F : i;
    float x[W], u[W] = {}, dh[W], dx[W], du[W];
    load(x, up + at), load(dh, dhidden + i);
    if (kind == GPU_SWIGLU) load(u, up + at + F);
    for (int p = 0; p < W; p++) {
        if (kind == GPU_GELU) {
            dx[p] = dh[p] * gelu_slope(x[p], gelu_sigmoid(x[p]));
        } else if (kind == GPU_RELU) {
            dx[p] = x[p] > 0 ? dh[p] : 0.0f;
        } else { /* h = g s(g) u, s the sigmoid */
            const float s = silu_sigmoid(x[p]);
            dx[p] = dh[p] * u[p] * s * (1.0f + x[p] * (1.0f - s));
            du[p] = dh[p] * x[p] * s;
        }
    }
    store(dup + at, dx);
    if (kind == GPU_SWIGLU) store(dup + at + F, du);
}

template <typename S>
void activation_forward(S *hidden, const S *up, int64_t N, int F, int kind, cudaStream_t stream) {
    const bool wide = F % 4 == 0;
    LAUNCH_WIDE(wide, activation_forward_kernel, S, dim3(blocks_for(N * F, LAYER_THREADS * (wide ? 4 : 1))),
                dim3(LAYER_THREADS), 0, stream, hidden, up, N, F, kind);
}
template <typename S>
void activation_backward(S *dup, const S *dhidden, const S *up, int64_t N, int F, int kind,
                         cudaStream_t stream) {
    const bool wide = F % 4 == 0;
    LAUNCH_WIDE(wide, activation_backward_kernel, S, dim3(blocks_for(N * F, LAYER_THREADS * (wide ? 4 : 1))),
                dim3(LAYER_THREADS), 0, stream, dup, dhidden, up, N, F, kind);
}

/* ---- casts, and numbers to measure with ---- */

template <typename S> __global__ void cast_kernel(S *to, const float *from, int64_t n) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) to[i] = from_float<S>(from[i]);
}

template <typename S> void cast(S *to, const float *from, int64_t n, cudaStream_t stream) {
    LAUNCH(cast_kernel<S>, dim3(blocks_for(n, LAYER_THREADS)), dim3(LAYER_THREADS), 0, stream, to, from, n);
}

template <typename F> __global__ void fill_kernel(F *x, int64_t n, float size, uint32_t seed) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    uint32_t bits = (uint32_t)i * 2654435761u + seed;
    bits = (bits ^ (bits >> 15)) * 2246822519u;
    bits ^= bits >> 13;
    x[i] = from_float<F>(size * ((float)(bits >> 8) * 0x1p-23f - 1));
}

/* x (n) = numbers between -size and size, not all alike: a GPU multiplies zeros faster, as that takes less power. */
template <typename F> void fill(F *x, int64_t n, float size, uint32_t seed, cudaStream_t stream) {
    LAUNCH(fill_kernel<F>, dim3(blocks_for(n, LAYER_THREADS)), dim3(LAYER_THREADS), 0, stream, x, n, size,
           seed);
}

#endif
