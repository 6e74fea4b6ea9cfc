/* layers.cuh: the layers around the matrix products and attention, as in section 1 of train_gpt.c: an op_forward and an
   op_backward each, outputs first, `d` for gradients. The residual stream and every sum are float32; S is the type of
   the operands of products, float or bf16. Every sum has a fixed order, so a run has the same bits each time.

   Sizes: B sequences, T tokens of each, N = B*T, C width, H heads of size D, A = H*D, F hidden units. */
#ifndef CUDA_LAYERS_CUH
#define CUDA_LAYERS_CUH

#include "device.h"

enum { LAYER_THREADS = 256 };

/* ---- the gradient of the residual stream ---- */

/* An array of float32 numbers in two parts: each number rounded to S, which products read, and what rounding took
   away. So nothing is lost, and a norm's backward writes four bytes for each number, not six (a float32 and a bf16
   copy). `rest` is the bits of the number less the bits of the rounded number, as a signed 16-bit integer. One
   difference does not fit: if a number is exactly half a unit above its rounded number (one number in 131,072), it
   loses its last bit. If S is float there is no rest, and the pointer is NULL. */
template <typename S> struct SplitFloats {
    S *rounded;
    int16_t *rest;
};

/* Returns the rest of x; high: the bits of x after rounding. */
__device__ __forceinline__ uint32_t rest_of(float x, uint32_t high) {
    return (uint32_t)min((int)(float_to_bits(x) - high), 32767) & 0xFFFFu;
}

/* Four neighbouring numbers in registers, in the form that they have in memory, which takes fewer registers than four
   floats. load(packed, ...) reads them from an address, or from position `at` of a SplitFloats; unpack(x, packed)
   converts them to float when they are needed. */
template <typename S> struct Packed4;
template <> struct Packed4<float> { float4 x; };
template <> struct Packed4<bf16> { uint2 x; };
template <> struct Packed4<SplitFloats<float>> { float4 x; };
template <> struct Packed4<SplitFloats<bf16>> { uint2 high, rest; };
template <typename S> __device__ __forceinline__ void load(Packed4<S> &packed, const S *from) {
    packed.x = *(const decltype(packed.x) *)(const void *)from;
}
__device__ __forceinline__ void load(Packed4<SplitFloats<float>> &packed, const SplitFloats<float> &from,
                                     int64_t at) {
    packed.x = *(const float4 *)(const void *)(from.rounded + at);
}
__device__ __forceinline__ void load(Packed4<SplitFloats<bf16>> &packed, const SplitFloats<bf16> &from,
                                     int64_t at) {
    packed.high = *(const uint2 *)(const void *)(from.rounded + at);
    packed.rest = *(const uint2 *)(const void *)(from.rest + at);
}
__device__ __forceinline__ void unpack(float (&x)[4], const float4 &y) {
    x[0] = y.x, x[1] = y.y, x[2] = y.z, x[3] = y.w;
}
template <typename S> __device__ __forceinline__ void unpack(float (&x)[4], const Packed4<S> &packed) {
    unpack(x, packed.x);
}
__device__ __forceinline__ void unpack(float (&x)[4], const Packed4<SplitFloats<bf16>> &packed) {
    const uint2 high = packed.high, rest = packed.rest;
    x[0] = join_split_float(high.x << 16, rest.x),
    x[1] = join_split_float(high.x & 0xFFFF0000u, rest.x >> 16);
    x[2] = join_split_float(high.y << 16, rest.y),
    x[3] = join_split_float(high.y & 0xFFFF0000u, rest.y >> 16);
}

/* Like load and store of device.h, but from and to position `at` of a SplitFloats. */
__device__ __forceinline__ void load(float (&x)[1], const SplitFloats<float> &from, int64_t at) {
    x[0] = from.rounded[at];
}
__device__ __forceinline__ void load(float (&x)[1], const SplitFloats<bf16> &from, int64_t at) {
    x[0] = join_split_float(float_to_bits(to_float(from.rounded[at])), (uint32_t)from.rest[at]);
}
template <typename S>
__device__ __forceinline__ void load(float (&x)[4], const SplitFloats<S> &from, int64_t at) {
    Packed4<SplitFloats<S>> packed;
    load(packed, from, at), unpack(x, packed);
}
template <int WIDTH>
__device__ __forceinline__ void store(const SplitFloats<float> &to, int64_t at, const float (&x)[WIDTH]) {
    store(to.rounded + at, x);
}
template <int WIDTH>
__device__ __forceinline__ void store(const SplitFloats<bf16> &to, int64_t at, const float (&x)[WIDTH]) {
    if constexpr (WIDTH == 4) {
        const uint2 high = {pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3])};
        *(uint2 *)(void *)(to.rounded + at) = high;
        *(uint2 *)(void *)(to.rest + at) =
            uint2{rest_of(x[0], high.x << 16) | rest_of(x[1], high.x & 0xFFFF0000u) << 16,
                  rest_of(x[2], high.y << 16) | rest_of(x[3], high.y & 0xFFFF0000u) << 16};
    } else {
        const bf16 high = from_float<bf16>(x[0]);
        to.rounded[at] = high;
        to.rest[at] = (int16_t)rest_of(x[0], float_to_bits(to_float(high)));
    }
}

/* ---- embedding ---- */

/* out (N, C) = embed[token], embed (V, C), plus position (T, C) unless it is NULL. A block computes one token. */
template <typename F>
__global__ void embedding_forward_kernel(F *out, const int32_t *tokens, const F *embed, const F *position,
                                         int T, int C) {
    const int64_t n = blockIdx.x;
    const F *row = embed + (int64_t)tokens[n] * C;
    for (int c = (int)threadIdx.x; c < C; c += (int)blockDim.x)
        out[n * C + c] = position ? row[c] + position[n % T * C + c] : row[c];
}

/* out (N, C): see embedding_forward_kernel. */
static inline void embedding_forward(float *out, const int32_t *tokens, const float *embed,
                                     const float *position, int64_t N, int T, int C, cudaStream_t stream) {
    LAUNCH(embedding_forward_kernel<float>, dim3((unsigned)N), dim3(LAYER_THREADS), 0, stream, out, tokens,
           embed, position, T, C);
}

/* The positions of a batch, sorted by token, so that all positions of one token are side by side, in order. The host
   sorts them while the GPU computes. */
struct TokenBuckets {
    int32_t *place; /* (N) the positions, sorted by token */
    int32_t *first; /* (N + 1) where the positions of each different token begin in place; then N */
    int distinct;   /* the number of different tokens */
};

/* Fills the arrays of `buckets` from tokens (N), which are less than V. */
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
        count[v] = begin; /* from here on: where the next position of this token goes */
    }
    buckets->first[buckets->distinct] = used;
    for (int64_t n = 0; n < N; n++) buckets->place[count[tokens[n]]++] = (int32_t)n;
}

/* dembed (V, C) += for each token the sum of dout (N, C) over its positions, in order. A block takes one token and some
   columns. The most frequent token takes longest, so a thread loads AT_ONCE numbers at the same time. */
template <typename S>
__global__ void embedding_backward_kernel(float *dembed, SplitFloats<S> dout, const int32_t *tokens,
                                          const int32_t *place, const int32_t *first, int C) {
    enum { AT_ONCE = 16 };
    const int32_t begin = first[blockIdx.x], end = first[blockIdx.x + 1];
    const int c = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    if (c >= C) return;
    float sum = 0, x[AT_ONCE][1];
    for (int32_t i = begin; i < end; i += AT_ONCE) {
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            x[k][0] = 0;
            if (i + k < end) load(x[k], dout, (int64_t)place[i + k] * C + c);
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) sum += x[k][0];
    }
    dembed[(int64_t)tokens[place[begin]] * C + c] += sum;
}

/* dposition (T, C) = or, with `add`, += the sum of dout (B, T, C) over the sequences. */
template <typename S>
__global__ void position_backward_kernel(float *dposition, SplitFloats<S> dout, int B, int64_t TC, bool add) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= TC) return;
    float sum = 0, x[1];
    for (int b = 0; b < B; b++) {
        load(x, dout, b * TC + i);
        sum += x[0];
    }
    dposition[i] = add ? dposition[i] + sum : sum;
}

/* dembed (V, C) += ...: see embedding_backward_kernel. The arrays of `buckets` are on the device. */
template <typename S>
void embedding_backward(float *dembed, SplitFloats<S> dout, const int32_t *tokens,
                        const TokenBuckets &buckets, int C, cudaStream_t stream) {
    enum { COLUMNS = 128 };
    LAUNCH(embedding_backward_kernel<S>, dim3((unsigned)buckets.distinct, blocks_for(C, COLUMNS)),
           dim3(COLUMNS), 0, stream, dembed, dout, tokens, buckets.place, buckets.first, C);
}

/* dposition (T, C): see position_backward_kernel. */
template <typename S>
void position_backward(float *dposition, SplitFloats<S> dout, int B, int T, int C, bool add,
                       cudaStream_t stream) {
    LAUNCH(position_backward_kernel<S>, dim3(blocks_for((int64_t)T * C, LAYER_THREADS)), dim3(LAYER_THREADS),
           0, stream, dposition, dout, B, (int64_t)T * C, add);
}

/* ---- RMSNorm ---- */

/* A row of C columns is held in the registers of a warp: each lane has PIECES times four neighbouring columns, four
   in each 128 columns, so that a warp reads and writes without gaps. The row is read once, by loads that are all
   under way at the same time, since the time of a norm is that of its memory accesses, not of its arithmetic. Rows of
   another C are computed piece by piece by the kernels called _loop. */
enum { ROW_PIECE = 4 * WARP_SIZE, ROW_MOST = 16 * ROW_PIECE };

/* Returns whether rows of C columns fit into the registers of a warp. */
static inline bool row_fits(int C) { return C % 4 == 0 && C <= ROW_MOST; }

/* Launches kernel<S, PIECES> with the smallest PIECES whose pieces hold C columns. */
#define LAUNCH_ROW(C, kernel, S, ...)                                                                        \
    do {                                                                                                     \
        if ((C) <= 4 * ROW_PIECE)                                                                            \
            LAUNCH((kernel<S, 4>), __VA_ARGS__);                                                             \
        else if ((C) <= 8 * ROW_PIECE)                                                                       \
            LAUNCH((kernel<S, 8>), __VA_ARGS__);                                                             \
        else                                                                                                 \
            LAUNCH((kernel<S, 16>), __VA_ARGS__);                                                            \
    } while (0)

/* The column at which the lane's piece i begins. */
__device__ __forceinline__ int row_column(int i) { return i * ROW_PIECE + (int)threadIdx.x % WARP_SIZE * 4; }

/* row = from (C), with zeros past its end. */
template <int PIECES, typename S>
__device__ __forceinline__ void load_row(float (&row)[PIECES][4], const S *from, int C) {
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        for (int k = 0; k < 4; k++) row[i][k] = 0;
        if (row_column(i) < C) load(row[i], from + row_column(i));
    }
}

/* squares: the sum of the squares of a row of C numbers. */
__device__ __forceinline__ float rmsnorm_rstd(float squares, int C) {
    return 1.0f / sqrtf(squares / (float)C + 1e-6f);
}

/* out (N, C) = x * rstd * weight, rstd (N) = 1/sqrt(mean(x^2) + eps). A warp computes one token. */
template <typename S, int PIECES>
__global__ void __launch_bounds__(LAYER_THREADS)
    rmsnorm_forward_kernel(S *out, float *rstd, const float *x, const float *weight, int64_t N, int C) {
    const int64_t n = (int64_t)blockIdx.x * (blockDim.x / WARP_SIZE) + threadIdx.x / WARP_SIZE;
    if (n >= N) return;
    float row[PIECES][4], w[4], squares = 0;
    load_row(row, x + n * C, C);
#pragma unroll
    for (int i = 0; i < PIECES; i++)
        for (int k = 0; k < 4; k++) squares += row[i][k] * row[i][k];
    const float r = rmsnorm_rstd(warp_sum(squares), C);
    if (threadIdx.x % WARP_SIZE == 0) rstd[n] = r;
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        const int c = row_column(i);
        if (c >= C) continue;
        load(w, weight + c);
        for (int k = 0; k < 4; k++) row[i][k] = row[i][k] * r * w[k];
        store(out + n * C + c, row[i]);
    }
}

/* The same for any C. */
template <typename S, int W>
__global__ void rmsnorm_forward_loop_kernel(S *out, float *rstd, const float *x, const float *weight,
                                            int64_t N, int C) {
    const int64_t n = (int64_t)blockIdx.x * (blockDim.x / WARP_SIZE) + threadIdx.x / WARP_SIZE;
    const int lane = (int)threadIdx.x % WARP_SIZE;
    if (n >= N) return;
    float squares = 0, row[W], w[W];
    for (int c = lane * W; c < C; c += WARP_SIZE * W) {
        load(row, x + n * C + c);
        for (int i = 0; i < W; i++) squares += row[i] * row[i];
    }
    const float r = rmsnorm_rstd(warp_sum(squares), C);
    if (lane == 0) rstd[n] = r;
    for (int c = lane * W; c < C; c += WARP_SIZE * W) {
        load(row, x + n * C + c), load(w, weight + c);
        for (int i = 0; i < W; i++) row[i] = row[i] * r * w[i];
        store(out + n * C + c, row);
    }
}

/* out (N, C), rstd (N): see rmsnorm_forward_kernel. */
template <typename S>
void rmsnorm_forward(S *out, float *rstd, const float *x, const float *weight, int64_t N, int C,
                     cudaStream_t stream) {
    const dim3 blocks(blocks_for(N, LAYER_THREADS / WARP_SIZE)), threads(LAYER_THREADS);
    if (row_fits(C))
        LAUNCH_ROW(C, rmsnorm_forward_kernel, S, blocks, threads, 0, stream, out, rstd, x, weight, N, C);
    else
        LAUNCH_WIDE(C % 4 == 0, rmsnorm_forward_loop_kernel, S, blocks, threads, 0, stream, out, rstd, x,
                    weight, N, C);
}

/* The number of backward's blocks, each of which sums the weight gradients of its tokens. It is the same for all N
   above 8192, so that few sums remain to be added, and all blocks run at once on a GPU of 128 multiprocessors. The
   order of the sums depends on N alone. */
enum { NORM_CHUNKS = 512, NORM_WARPS = 4, NORM_THREADS = NORM_WARPS * WARP_SIZE };

/* Returns the number of backward's blocks for N tokens. */
static inline int64_t rmsnorm_chunks(int64_t N) {
    const int64_t chunks = (N + 4 * NORM_WARPS - 1) / (4 * NORM_WARPS);
    return chunks < NORM_CHUNKS ? chunks : (int64_t)NORM_CHUNKS;
}

/* forward: out = x * r * w.  With g = dout * w:  dx = r * (g - x * r^2 * mean(g * x)),  dw = sum_n dout * x * r
   dx (N, C) is written (=) or, with `add`, added to (+=). partial (chunks, C) = the dw of each block's tokens.
   A warp computes one token, without barriers. The weights are in shared memory, and so are each warp's sums of dw, of
   which every number belongs to one lane; so the registers are free for what is loaded from global memory. */
template <typename S, int PIECES>
__global__ void __launch_bounds__(NORM_THREADS, PIECES > 8 ? 2 : 4)
    rmsnorm_backward_kernel(SplitFloats<S> dx, float *partial, const S *dout, const float *x,
                            const float *rstd, const float *weight, int64_t N, int C, bool add) {
    const int warp = (int)threadIdx.x / WARP_SIZE;
    float *weights = shared_memory<float>(), *sums = weights + C, *dw = sums + warp * C; /* C, (WARPS, C) */
    for (int c = (int)threadIdx.x; c < C; c += NORM_THREADS) weights[c] = weight[c];
    const float zeros[4] = {};
#pragma unroll
    for (int i = 0; i < PIECES; i++)
        if (row_column(i) < C) store(dw + row_column(i), zeros);
    __syncthreads();
#pragma unroll 1
    for (int64_t n = (int64_t)blockIdx.x * NORM_WARPS + warp; n < N; n += (int64_t)gridDim.x * NORM_WARPS) {
        Packed4<S> of_dout[PIECES];
        Packed4<float> of_x[PIECES];
        Packed4<SplitFloats<S>> of_dx[PIECES];
        const int64_t at = n * C + row_column(0);
        const float r = rstd[n];
#pragma unroll
        for (int i = 0; i < PIECES; i++)
            if (row_column(i) < C) load(of_dout[i], dout + at + i * ROW_PIECE);
#pragma unroll
        for (int i = 0; i < PIECES; i++)
            if (row_column(i) < C) load(of_x[i], x + at + i * ROW_PIECE);
#pragma unroll
        for (int i = 0; i < PIECES; i++)
            if (row_column(i) < C && add) load(of_dx[i], dx, at + i * ROW_PIECE);
        float g[4], row[4], sum[4], w[4], d[4], dot = 0;
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            if (row_column(i) >= C) continue;
            unpack(g, of_dout[i]), unpack(row, of_x[i]), load(w, weights + row_column(i));
            for (int k = 0; k < 4; k++) dot += g[k] * w[k] * row[k];
        }
        const float correction = warp_sum(dot) * r * r * r / (float)C;
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            const int c = row_column(i);
            if (c >= C) continue;
            unpack(g, of_dout[i]), unpack(row, of_x[i]), load(w, weights + c), load(d, dw + c);
            for (int k = 0; k < 4; k++) sum[k] = 0;
            if (add) unpack(sum, of_dx[i]);
            for (int k = 0; k < 4; k++) {
                sum[k] += g[k] * w[k] * r - row[k] * correction;
                d[k] += g[k] * row[k] * r;
            }
            store(dw + c, d), store(dx, at + i * ROW_PIECE, sum);
        }
    }
    __syncthreads();
    for (int c = (int)threadIdx.x; c < C; c += NORM_THREADS) {
        float sum = 0;
        for (int i = 0; i < NORM_WARPS; i++) sum += sums[i * C + c];
        partial[(int64_t)blockIdx.x * C + c] = sum;
    }
}

/* The same for any C: a block computes one token and reads its row twice. */
template <typename S, int W>
__global__ void rmsnorm_backward_loop_kernel(SplitFloats<S> dx, float *partial, const S *dout, const float *x,
                                             const float *rstd, const float *weight, int64_t N, int C,
                                             bool add) {
    float *scratch = shared_memory<float>(), *dw = scratch + WARP_SIZE; /* (C) */
    const int step = (int)blockDim.x * W, first = (int)threadIdx.x * W;
    float g[W], row[W], w[W], sum[W];
    for (int c = first; c < C; c += step) /* each column belongs to one thread */
        for (int i = 0; i < W; i++) dw[c + i] = 0;
    for (int64_t n = blockIdx.x; n < N; n += gridDim.x) {
        const float r = rstd[n];
        float dot = 0;
        for (int c = first; c < C; c += step) {
            load(g, dout + n * C + c), load(row, x + n * C + c), load(w, weight + c);
            for (int i = 0; i < W; i++) dot += g[i] * w[i] * row[i];
        }
        const float correction = block_sum(dot, scratch) * r * r * r / (float)C;
        for (int c = first; c < C; c += step) {
            load(g, dout + n * C + c), load(row, x + n * C + c), load(w, weight + c);
            for (int i = 0; i < W; i++) sum[i] = 0;
            if (add) load(sum, dx, n * C + c);
            for (int i = 0; i < W; i++) {
                sum[i] += g[i] * w[i] * r - row[i] * correction;
                dw[c + i] += g[i] * row[i] * r;
            }
            store(dx, n * C + c, sum);
        }
    }
    for (int c = first; c < C; c += step)
        for (int i = 0; i < W; i++) partial[blockIdx.x * (int64_t)C + c + i] = dw[c + i];
}

/* dx as above; partial (rmsnorm_chunks(N), C) = what rmsnorm_backward_weight sums. */
template <typename S>
void rmsnorm_backward(SplitFloats<S> dx, float *partial, const S *dout, const float *x, const float *rstd,
                      const float *weight, int64_t N, int C, bool add, cudaStream_t stream) {
    const dim3 blocks((unsigned)rmsnorm_chunks(N));
    if (row_fits(C))
        LAUNCH_ROW(C, rmsnorm_backward_kernel, S, blocks, dim3(NORM_THREADS),
                   (size_t)C * (NORM_WARPS + 1) * sizeof(float), stream, dx, partial, dout, x, rstd, weight,
                   N, C, add);
    else
        LAUNCH_WIDE(C % 4 == 0, rmsnorm_backward_loop_kernel, S, blocks, dim3(LAYER_THREADS),
                    ((size_t)C + WARP_SIZE) * sizeof(float), stream, dx, partial, dout, x, rstd, weight, N, C,
                    add);
}

enum { SUM_ROWS_WARPS = 32, SUM_ROWS_THREADS = SUM_ROWS_WARPS * WARP_SIZE };

/* sums (C) = or += the sum of partial (rows, C) over its rows; the blocks with y = 1 do the same for `second` and the
   rows that follow. A block takes 32 columns, and each of its warps every 32nd row, with 16 loads under way at once.
   Then one warp adds the warps' sums in order. */
template <typename F>
__global__ void __launch_bounds__(SUM_ROWS_THREADS)
    sum_rows_kernel(F *sums, F *second, const F *partial, int rows, int C, bool add) {
    F *of_warps = shared_memory<F>(), sum = 0; /* (SUM_ROWS_WARPS, WARP_SIZE) */
    const int lane = (int)threadIdx.x % WARP_SIZE, warp = (int)threadIdx.x / WARP_SIZE;
    const int c = (int)blockIdx.x * WARP_SIZE + lane;
    F *to = blockIdx.y ? second : sums;
    partial += (int64_t)blockIdx.y * rows * C + c;
#pragma unroll 16
    for (int i = warp; i < (c < C ? rows : 0); i += SUM_ROWS_WARPS) sum += partial[(int64_t)i * C];
    of_warps[threadIdx.x] = sum;
    __syncthreads();
    if (warp > 0 || c >= C) return;
    sum = add ? to[c] : 0;
    for (int w = 0; w < SUM_ROWS_WARPS; w++) sum += of_warps[w * WARP_SIZE + lane];
    to[c] = sum;
}

/* dweight (C) = or, with `add`, += the sum over all tokens, from what rmsnorm_backward has written to `partial`
   (rmsnorm_chunks(N), C). If `second` is not NULL, the same for the dweight of another norm, whose partial sums
   follow those of the first. */
static inline void rmsnorm_backward_weight(float *dweight, float *second, const float *partial, int64_t N,
                                           int C, bool add, cudaStream_t stream) {
    LAUNCH(sum_rows_kernel<float>, dim3(blocks_for(C, WARP_SIZE), second ? 2 : 1), dim3(SUM_ROWS_THREADS),
           SUM_ROWS_THREADS * sizeof(float), stream, dweight, second, partial, (int)rmsnorm_chunks(N), C,
           add);
}

/* ---- rope ---- */

/* In place on the q and k thirds of qkv (N, 3A): the pair (d, d + D/2) of each head is rotated by the angle given as
   rope_cos_sin (T, D/2, 2) = cos, sin. direction 1 is forward; -1 is the transpose, which is rope's backward. A
   thread takes W pairs; the first row is token `first` of its sequence. There are fewer than 2^32 threads, so their
   numbers are divided in 32 bits. */
template <typename S, int W>
__global__ void rope_kernel(S *qkv, const float *rope_cos_sin, float direction, int64_t N, int T, int H,
                            int D, uint32_t first) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, half = (uint32_t)D / 2;
    const uint32_t of_head = half / W, of_token = 2 * (uint32_t)H * of_head; /* threads */
    const uint32_t n = i / of_token, within = i - n * of_token;
    if (n >= N) return;
    const uint32_t head = within / of_head, d = (within - head * of_head) * W; /* the heads of q, then of k */
    S *x = qkv + (int64_t)n * 3 * H * D + (head * (uint32_t)D + d);
    const float *angle = rope_cos_sin + (int64_t)((n + first) % (uint32_t)T) * D + 2 * d;
    float a[W], b[W], left[W], right[W], cosine_sine[W == 1 ? 1 : 4];
    load(a, x), load(b, x + half);
#pragma unroll
    for (int p = 0; p < W; p++) {
        float cosine, sine;
        if constexpr (W == 1) {
            cosine = angle[0], sine = angle[1];
        } else { /* four numbers belong to two pairs */
            if (p % 2 == 0) load(cosine_sine, angle + 2 * p);
            cosine = cosine_sine[p % 2 * 2], sine = cosine_sine[p % 2 * 2 + 1];
        }
        sine *= direction;
        left[p] = a[p] * cosine - b[p] * sine;
        right[p] = b[p] * cosine + a[p] * sine;
    }
    store(x, left), store(x + half, right);
}

/* Rotates with W pairs a thread. most: the largest number of threads of a launch; if the tokens need more, there are
   several launches. */
template <typename S, int W>
void rope_rotate_by(S *qkv, const float *rope_cos_sin, float direction, int64_t N, int T, int H, int D,
                    cudaStream_t stream, int64_t most = (int64_t)1 << 31) {
    const int64_t of_token = (int64_t)H * D / W, tokens = most / of_token;
    for (int64_t n = 0; n < N; n += tokens) {
        const int64_t now = n + tokens < N ? tokens : N - n;
        LAUNCH((rope_kernel<S, W>), dim3(blocks_for(now * of_token, LAYER_THREADS)), dim3(LAYER_THREADS), 0,
               stream, qkv + n * 3 * H * D, rope_cos_sin, direction, now, T, H, D, (uint32_t)(n % T));
    }
}

/* Rotates q and k in place: see rope_kernel. */
template <typename S>
void rope_rotate(S *qkv, const float *rope_cos_sin, float direction, int64_t N, int T, int H, int D,
                 cudaStream_t stream) {
    if (D % 16 == 0)
        rope_rotate_by<S, 8>(qkv, rope_cos_sin, direction, N, T, H, D, stream);
    else if (D % 8 == 0)
        rope_rotate_by<S, 4>(qkv, rope_cos_sin, direction, N, T, H, D, stream);
    else
        rope_rotate_by<S, 1>(qkv, rope_cos_sin, direction, N, T, H, D, stream);
}

/* ---- activations ---- */

enum { GPU_GELU, GPU_RELU, GPU_SWIGLU }; /* in the order of the choices of --activation */

/* gelu in its tanh form is x * sigmoid(2s), s = sqrt(2/pi) (x + 0.044715 x^3) */
__device__ __forceinline__ float gelu_sigmoid(float x) {
    return 1.0f / (1.0f + expf(-1.59576912f * (x + 0.044715f * x * x * x)));
}
/* The derivative of gelu at x; sigmoid: gelu_sigmoid(x). */
__device__ __forceinline__ float gelu_slope(float x, float sigmoid) {
    return sigmoid + x * sigmoid * (1.0f - sigmoid) * 1.59576912f * (1.0f + 0.134145f * x * x);
}
__device__ __forceinline__ float silu_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/* hidden (N, F) = act(up (N, F)); with swiglu up is (N, 2F): silu(gate) * up, where the first F columns are the
   gate. A thread computes W elements. */
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

/* dup (N, F or 2F) = the gradient of up, from dhidden (N, F), the gradient of hidden. */
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
        } else { /* forward: h = g s(g) u, where s is the sigmoid */
            const float s = silu_sigmoid(x[p]);
            dx[p] = dh[p] * u[p] * s * (1.0f + x[p] * (1.0f - s));
            du[p] = dh[p] * x[p] * s;
        }
    }
    store(dup + at, dx);
    if (kind == GPU_SWIGLU) store(dup + at + F, du);
}

/* Launch the kernels above. */
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

/* ---- conversion to S, and numbers for measurements ---- */

template <typename S> __global__ void cast_kernel(S *to, const float *from, int64_t n) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) to[i] = from_float<S>(from[i]);
}

/* to (n) = from (n), rounded to S. */
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

/* x (n) = different numbers between -size and size, for measurements: with zeros a GPU would need less power and be
   faster than it is in training. */
template <typename F> void fill(F *x, int64_t n, float size, uint32_t seed, cudaStream_t stream) {
    LAUNCH(fill_kernel<F>, dim3(blocks_for(n, LAYER_THREADS)), dim3(LAYER_THREADS), 0, stream, x, n, size,
           seed);
}

#endif
