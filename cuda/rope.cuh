/* rope.cuh: rotary positions. Rope rotates the pair (d, d + D/2) of each head of q and k by an angle that depends on
   the token and on d. Its table `turn` (T, D/2, 2) holds cos and sin of these angles. Forward is in place; backward,
   the rotation by the opposite angle, is part of the kernels that compute the gradients of q and k. */
#ifndef CUDA_ROPE_CUH
#define CUDA_ROPE_CUH

#include "device.h"

/* Rotates W pairs, x[i] and x[i + half], in place; angle points to the table's entry for the token and the first
   pair. */
template <int W, typename S> __device__ __forceinline__ void rope_turn(S *x, int half, const float *angle) {
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
        left[p] = a[p] * cosine - b[p] * sine;
        right[p] = b[p] * cosine + a[p] * sine;
    }
    store(x, left), store(x + half, right);
}

/* q and k (N, H, D), with `row` elements from token to token. A thread takes W pairs; the first row is token `first`
   of its sequence. There are fewer than 2^32 threads, so their numbers are divided in 32 bits. */
template <typename S, int W>
__global__ void rope_kernel(S *q, S *k, const float *turn, int64_t N, int T, int H, int D, int64_t row,
                            uint32_t first) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, half = (uint32_t)D / 2;
    const uint32_t of_head = half / W, of_tensor = (uint32_t)H * of_head,
                   of_token = 2 * of_tensor; /* threads */
    const uint32_t n = i / of_token, within = i - n * of_token;
    if (n >= N) return;
    const uint32_t at = within < of_tensor ? within : within - of_tensor;
    const uint32_t head = at / of_head, d = (at - head * of_head) * W;
    S *x = (within < of_tensor ? q : k) + (int64_t)n * row + (head * (uint32_t)D + d);
    rope_turn<W>(x, (int)half, turn + (int64_t)((n + first) % (uint32_t)T) * D + 2 * d);
}

/* `most`: the largest number of threads of a launch; if the tokens need more, several launches rotate them. */
template <typename S, int W>
void rope_rotate_by(S *q, S *k, const float *turn, int64_t N, int T, int H, int D, int64_t row,
                    cudaStream_t stream, int64_t most = (int64_t)1 << 31) {
    enum { THREADS = 256 };
    const int64_t of_token = (int64_t)H * D / W, tokens = most / of_token;
    for (int64_t n = 0; n < N; n += tokens) {
        const int64_t now = n + tokens < N ? tokens : N - n;
        LAUNCH((rope_kernel<S, W>), dim3(blocks_for(now * of_token, THREADS)), dim3(THREADS), 0, stream,
               q + n * row, k + n * row, turn, now, T, H, D, row, (uint32_t)(n % T));
    }
}

template <typename S>
void rope_rotate(S *q, S *k, const float *turn, int64_t N, int T, int H, int D, int64_t row,
                 cudaStream_t stream) {
    if (D % 16 == 0)
        rope_rotate_by<S, 8>(q, k, turn, N, T, H, D, row, stream);
    else if (D % 8 == 0)
        rope_rotate_by<S, 4>(q, k, turn, N, T, H, D, row, stream);
    else
        rope_rotate_by<S, 1>(q, k, turn, N, T, H, D, row, stream);
}

/* Rope's backward: element d of token t of a gradient whose elements are of(d). Rope has rotated the pair (d, d +
   D/2). */
template <typename Of>
__device__ __forceinline__ float turned_back(Of of, int d, const float *turn, int t, int D) {
    if (!turn) return of(d);
    const int half = D / 2, pair = d % half;
    const float cosine = turn[(int64_t)t * D + 2 * pair], sine = turn[(int64_t)t * D + 2 * pair + 1];
    return d < half ? of(d) * cosine + of(d + half) * sine : of(d) * cosine - of(d - half) * sine;
}

/* The same for two neighbouring pairs in one thread: left[i] is element d + i, right[i] is element d + i + D/2; table
   points to the entry of `turn` for the token and d. */
__device__ __forceinline__ void turn_back(float (&left)[2], float (&right)[2], const float *table) {
    const float4 angle = *(const float4 *)(const void *)table; /* cos, sin, cos, sin */
    const float l0 = left[0], l1 = left[1];
    left[0] = l0 * angle.x + right[0] * angle.y, right[0] = right[0] * angle.x - l0 * angle.y;
    left[1] = l1 * angle.z + right[1] * angle.w, right[1] = right[1] * angle.z - l1 * angle.w;
}

#endif
