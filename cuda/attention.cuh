/* attention.cuh: causal multi-head attention on the GPU, standard and LASER, forward and backward. It computes what
   laser.h computes; the formulas and their derivation stand in its manual.

   attention_forward(out, low_bits, lse, columns, q, k, v, work, sizes, stream)
   attention_backward(dq, dk, dv, dout, q, k, v, out, low_bits, lse, columns, turn, work, sizes, stream)
   attention_columns(sizes)         how many Columns a forward call writes for its backward call (0 without LASER)
   attention_work_bytes(sizes)      the size of one call's scratch memory `work`, which is not needed after the call

   q, k, v, dq, dk, dv: element (b, t, h, d) lies at ((b * T + t) * qkv_row + h * D + d); out, dout and low_bits
   likewise with out_row. So q, k, v may be the thirds of one packed buffer. lse is (B, H, T). Gradients are written
   (=), not added. Rows begin at multiples of 16 bytes. low_bits (LASER with bf16): the bits that rounding cut off
   from out; see attention_plain.cuh. turn: rope's table (T, D/2, 2) = cos, sin, if rope has rotated q and k: dq and
   dk are then the gradients of q and k before the rotation. Without rope it is NULL.

   Which kernels compute it: for heads of 64 and 128 on compute capability 9.x those of attention_hopper.cuh; else for
   heads of 32, 64 and 128 those of attention_mma.cuh; for other heads, and for float32, those of attention_plain.cuh,
   which are plain and slow. */
#ifndef CUDA_ATTENTION_CUH
#define CUDA_ATTENTION_CUH

#include "attention_hopper.cuh"
#include "attention_mma.cuh"

static inline size_t attention_columns(const AttentionSizes &s) {
    return s.kind == ATTENTION_LASER ? (size_t)s.B * (size_t)s.H * (size_t)s.D : 0;
}

static inline bool attention_has_tensor_cores(int D) { return D == 32 || D == 64 || D == 128; }

template <int D, bool LASER>
void attention_forward_fast(bf16 *out, uint16_t *low_bits, float *lse, Column *columns, const bf16 *q,
                            const bf16 *k, const bf16 *v, const AttentionWork &w, const AttentionSizes &s,
                            cudaStream_t stream) {
    if constexpr (D >= 64)
        if (attention_takes_hopper(s))
            return attention_forward_hopper<D, LASER>(out, low_bits, lse, columns, q, k, v, w, s, stream);
    attention_forward_mma<D, LASER>(out, low_bits, lse, columns, q, k, v, w, s, stream);
}

template <int D, bool LASER>
void attention_backward_fast(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const bf16 *q, const bf16 *k,
                             const bf16 *v, const bf16 *out, const uint16_t *low_bits, const float *lse,
                             const Column *columns, const float *turn, const AttentionWork &w,
                             const AttentionSizes &s, cudaStream_t stream) {
    attention_rows<D, LASER>(w, dout, out, low_bits, v, lse, columns, s, stream);
    bool done = false;
    if constexpr (D >= 64)
        if (attention_takes_hopper(s)) {
            attention_backward_hopper<D, LASER>(dq, dk, dv, dout, q, k, v, turn, w, s, stream);
            done = true;
        }
    if (!done) attention_backward_mma<D, LASER>(dq, dk, dv, dout, q, k, v, columns, turn, w, s, stream);
    if (LASER && s.shift == LASER_SHIFT_CAUSAL)
        attention_plain_backward(dq, dk, dv, dout, q, k, v, out, low_bits, lse, columns, turn, true, s,
                                 stream);
}

static inline void attention_forward(bf16 *out, uint16_t *low_bits, float *lse, Column *columns,
                                     const bf16 *q, const bf16 *k, const bf16 *v, void *work,
                                     const AttentionSizes &s, cudaStream_t stream) {
    const AttentionWork w = attention_work(work, s, nullptr);
    const bool laser = s.kind == ATTENTION_LASER;
    if (attention_has_tensor_cores(s.D)) {
        auto *run = s.D == 32 ? (laser ? attention_forward_fast<32, true> : attention_forward_fast<32, false>)
                    : s.D == 64
                        ? (laser ? attention_forward_fast<64, true> : attention_forward_fast<64, false>)
                        : (laser ? attention_forward_fast<128, true> : attention_forward_fast<128, false>);
        return run(out, low_bits, lse, columns, q, k, v, w, s, stream);
    }
    if (laser) laser_find_columns(columns, v, s, stream);
    attention_plain_forward(out, low_bits, lse, q, k, v, (const Column *)columns, s, stream);
}

static inline void attention_backward(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const bf16 *q,
                                      const bf16 *k, const bf16 *v, const bf16 *out, const uint16_t *low_bits,
                                      const float *lse, const Column *columns, const float *turn, void *work,
                                      const AttentionSizes &s, cudaStream_t stream) {
    const AttentionWork w = attention_work(work, s, nullptr);
    const bool laser = s.kind == ATTENTION_LASER;
    if (attention_has_tensor_cores(s.D)) {
        auto *run =
            s.D == 32   ? (laser ? attention_backward_fast<32, true> : attention_backward_fast<32, false>)
            : s.D == 64 ? (laser ? attention_backward_fast<64, true> : attention_backward_fast<64, false>)
                        : (laser ? attention_backward_fast<128, true> : attention_backward_fast<128, false>);
        return run(dq, dk, dv, dout, q, k, v, out, low_bits, lse, columns, turn, w, s, stream);
    }
    attention_plain_backward(dq, dk, dv, dout, q, k, v, out, low_bits, lse, columns, turn, false, s, stream);
}

/* float32: out is exact, and low_bits is not used. */
static inline void attention_forward(float *out, uint16_t *low_bits, float *lse, Column *columns,
                                     const float *q, const float *k, const float *v, void *,
                                     const AttentionSizes &s, cudaStream_t stream) {
    if (s.kind == ATTENTION_LASER) laser_find_columns(columns, v, s, stream);
    attention_plain_forward(out, low_bits, lse, q, k, v, (const Column *)columns, s, stream);
}

static inline void attention_backward(float *dq, float *dk, float *dv, const float *dout, const float *q,
                                      const float *k, const float *v, const float *out,
                                      const uint16_t *low_bits, const float *lse, const Column *columns,
                                      const float *turn, void *, const AttentionSizes &s,
                                      cudaStream_t stream) {
    attention_plain_backward(dq, dk, dv, dout, q, k, v, out, low_bits, lse, columns, turn, false, s, stream);
}

#endif
