/* attention.cuh: causal multi-head attention on the GPU, forward and backward. The kinds that a GPU computes are the
   rows of one table at the end of this file, attention_kernels; docs/add-an-attention.md says how one is added.
   Standard and LASER attention compute what laser.h computes; the formulas and their derivation are in the manual at
   its top.

   attention_forward(out, low_bits, lse, columns, q, k, v, work, sizes, stream)
   attention_backward(dq, dk, dv, dout, q, k, v, out, low_bits, lse, columns, rope_cos_sin, work, sizes, stream)
   attention_columns(sizes)         how many Columns a forward call writes for its backward call (0 unless LASER)
   attention_keeps_low_bits<S>(kind) whether forward writes low_bits for backward
   attention_work_size(sizes)       the bytes of one call's scratch memory `work`, which is not needed after the call
   attention_is_available(kind)     whether the table has a row for this kind

   q, k, v, dq, dk, dv: element (b, t, h, d) is at ((b * T + t) * qkv_row + h * D + d); out, dout and low_bits
   likewise with out_row. So q, k, v may be the thirds of one packed buffer. lse is (B, H, T). Gradients are written
   (=), not added. Rows begin at multiples of 16 bytes. low_bits (LASER with bf16): the bits that rounding cut off
   from out; see attention_plain.cuh. rope_cos_sin: rope's table (T, D/2, 2) = cos, sin, if rope has rotated q and k:
   dq and dk are then the gradients of q and k before the rotation. Without rope it is NULL.

   Which kernels compute standard and LASER attention: for heads of 64 and 128 on compute capability 9.x those of
   attention_hopper.cuh; else for heads of 32, 64 and 128 those of attention_mma.cuh; for other heads, and for
   float32, those of attention_plain.cuh, which are plain and slow. */
#ifndef CUDA_ATTENTION_CUH
#define CUDA_ATTENTION_CUH

#include "attention_hopper.cuh"
#include "attention_mma.cuh"

/* Returns whether heads of this size have kernels for tensor cores. */
static inline bool attention_has_tensor_cores(int D) { return D == 32 || D == 64 || D == 128; }

/* Forward with bf16 on tensor cores, by the kernels of attention_hopper.cuh or of attention_mma.cuh. */
template <int D, bool LASER>
void attention_forward_fast(bf16 *out, uint16_t *low_bits, float *lse, LaserColumn *columns, const bf16 *q,
                            const bf16 *k, const bf16 *v, const AttentionWork &w, const AttentionSizes &s,
                            cudaStream_t stream) {
    if constexpr (D >= 64)
        if (attention_uses_hopper(s))
            return attention_forward_hopper<D, LASER>(out, low_bits, lse, columns, q, k, v, w, s, stream);
    attention_forward_mma<D, LASER>(out, low_bits, lse, columns, q, k, v, w, s, stream);
}

/* Backward with bf16 on tensor cores. The kernels of attention_plain.cuh then add the rows in which LASER's values are
   out of range. */
template <int D, bool LASER>
void attention_backward_fast(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const bf16 *q, const bf16 *k,
                             const bf16 *v, const bf16 *out, const uint16_t *low_bits, const float *lse,
                             const LaserColumn *columns, const float *rope_cos_sin, const AttentionWork &w,
                             const AttentionSizes &s, cudaStream_t stream) {
    attention_backward_rows<D, LASER>(w, dout, out, low_bits, v, lse, columns, s, stream);
    bool done = false;
    if constexpr (D >= 64)
        if (attention_uses_hopper(s)) {
            attention_backward_hopper<D, LASER>(dq, dk, dv, dout, q, k, v, rope_cos_sin, w, s, stream);
            done = true;
        }
    if (!done)
        attention_backward_mma<D, LASER>(dq, dk, dv, dout, q, k, v, columns, rope_cos_sin, w, s, stream);
    if (LASER && s.shift == LASER_SHIFT_CAUSAL)
        attention_plain_backward(dq, dk, dv, dout, q, k, v, out, low_bits, lse, columns, rope_cos_sin, true,
                                 s, stream);
}

/* ---- standard and LASER attention: the same kernels; those of LASER also compute exp(V) and the logarithm ---- */

/* bf16: on tensor cores if heads of this size have kernels for them. The arguments are those of attention_forward and
   attention_backward. */
template <bool LASER>
void softmax_attention_forward(bf16 *out, uint16_t *low_bits, float *lse, LaserColumn *columns, const bf16 *q,
                               const bf16 *k, const bf16 *v, void *work, const AttentionSizes &s,
                               cudaStream_t stream) {
    if (attention_has_tensor_cores(s.D)) {
        auto *run = s.D == 32   ? attention_forward_fast<32, LASER>
                    : s.D == 64 ? attention_forward_fast<64, LASER>
                                : attention_forward_fast<128, LASER>;
        return run(out, low_bits, lse, columns, q, k, v, attention_work(work, s, nullptr), s, stream);
    }
    if (LASER) laser_find_columns(columns, v, s, stream);
    attention_plain_forward(out, low_bits, lse, q, k, v, (const LaserColumn *)columns, s, stream);
}

template <bool LASER>
void softmax_attention_backward(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const bf16 *q, const bf16 *k,
                                const bf16 *v, const bf16 *out, const uint16_t *low_bits, const float *lse,
                                const LaserColumn *columns, const float *rope_cos_sin, void *work,
                                const AttentionSizes &s, cudaStream_t stream) {
    if (attention_has_tensor_cores(s.D)) {
        auto *run = s.D == 32   ? attention_backward_fast<32, LASER>
                    : s.D == 64 ? attention_backward_fast<64, LASER>
                                : attention_backward_fast<128, LASER>;
        return run(dq, dk, dv, dout, q, k, v, out, low_bits, lse, columns, rope_cos_sin,
                   attention_work(work, s, nullptr), s, stream);
    }
    attention_plain_backward(dq, dk, dv, dout, q, k, v, out, low_bits, lse, columns, rope_cos_sin, false, s,
                             stream);
}

/* float32: out is exact, and low_bits is not used. */
template <bool LASER>
void softmax_attention_forward(float *out, uint16_t *low_bits, float *lse, LaserColumn *columns,
                               const float *q, const float *k, const float *v, void *,
                               const AttentionSizes &s, cudaStream_t stream) {
    if (LASER) laser_find_columns(columns, v, s, stream);
    attention_plain_forward(out, low_bits, lse, q, k, v, (const LaserColumn *)columns, s, stream);
}

template <bool LASER>
void softmax_attention_backward(float *dq, float *dk, float *dv, const float *dout, const float *q,
                                const float *k, const float *v, const float *out, const uint16_t *low_bits,
                                const float *lse, const LaserColumn *columns, const float *rope_cos_sin,
                                void *, const AttentionSizes &s, cudaStream_t stream) {
    attention_plain_backward(dq, dk, dv, dout, q, k, v, out, low_bits, lse, columns, rope_cos_sin, false, s,
                             stream);
}

/* ---- the kinds of attention that a GPU computes ---- */

/* S: float or bf16. */
template <typename S> struct AttentionKernels {
    AttentionKind kind;
    void (*forward)(S *out, uint16_t *low_bits, float *lse, LaserColumn *columns, const S *q, const S *k,
                    const S *v, void *work, const AttentionSizes &s, cudaStream_t stream);
    void (*backward)(S *dq, S *dk, S *dv, const S *dout, const S *q, const S *k, const S *v, const S *out,
                     const uint16_t *low_bits, const float *lse, const LaserColumn *columns,
                     const float *rope_cos_sin, void *work, const AttentionSizes &s, cudaStream_t stream);
    size_t (*work_bytes)(const AttentionSizes &s);
    bool keeps_columns;  /* forward writes columns, which backward reads; else they are NULL */
    bool keeps_low_bits; /* with bf16, forward writes low_bits, which backward reads; else they are NULL */
};

/* One row for each kind. A kind of gpt/math/attention.h that has no row here trains on the CPU only: the trainer
   refuses it at its start. */
template <typename S>
static const AttentionKernels<S> attention_kernels[] = {
    {ATTENTION_STANDARD, softmax_attention_forward<false>, softmax_attention_backward<false>,
     attention_work_bytes, false, false},
    {ATTENTION_LASER, softmax_attention_forward<true>, softmax_attention_backward<true>, attention_work_bytes,
     true, true},
};

/* Returns the row of this kind; NULL if the table has none. */
template <typename S> static const AttentionKernels<S> *attention_find(AttentionKind kind) {
    for (const AttentionKernels<S> &row : attention_kernels<S>)
        if (row.kind == kind) return &row;
    return nullptr;
}

/* Returns the row of this kind; ends the program if the table has none. */
template <typename S> static const AttentionKernels<S> &attention_kernels_of(AttentionKind kind) {
    const AttentionKernels<S> *row = attention_find<S>(kind);
    if (!row) die("attention of kind %d has no row in cuda/attention.cuh", (int)kind);
    return *row;
}

static inline bool attention_is_available(AttentionKind kind) {
    return attention_find<bf16>(kind) != nullptr;
}

static inline size_t attention_work_size(const AttentionSizes &s) {
    return attention_kernels_of<bf16>(s.kind).work_bytes(s);
}

static inline size_t attention_columns(const AttentionSizes &s) {
    return attention_kernels_of<bf16>(s.kind).keeps_columns ? (size_t)s.B * (size_t)s.H * (size_t)s.D : 0;
}

template <typename S> static bool attention_keeps_low_bits(AttentionKind kind) {
    return sizeof(S) == 2 && attention_kernels_of<S>(kind).keeps_low_bits;
}

template <typename S>
void attention_forward(S *out, uint16_t *low_bits, float *lse, LaserColumn *columns, const S *q, const S *k,
                       const S *v, void *work, const AttentionSizes &s, cudaStream_t stream) {
    attention_kernels_of<S>(s.kind).forward(out, low_bits, lse, columns, q, k, v, work, s, stream);
}

template <typename S>
void attention_backward(S *dq, S *dk, S *dv, const S *dout, const S *q, const S *k, const S *v, const S *out,
                        const uint16_t *low_bits, const float *lse, const LaserColumn *columns,
                        const float *rope_cos_sin, void *work, const AttentionSizes &s, cudaStream_t stream) {
    attention_kernels_of<S>(s.kind).backward(dq, dk, dv, dout, q, k, v, out, low_bits, lse, columns,
                                             rope_cos_sin, work, s, stream);
}

#endif
