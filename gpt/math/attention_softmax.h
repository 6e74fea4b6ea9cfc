/* attention_softmax.h: standard and LASER attention for the table of attention.h. Both are computed by laser.h, which
   has kinds, strides and precisions of its own; this header only translates. Two of the choices of --laser-shift are
   not in laser.h: they are the function of its causal shift, and attention_ablations.h does what is special in them. */
#ifndef GPT_MATH_ATTENTION_SOFTMAX_H
#define GPT_MATH_ATTENTION_SOFTMAX_H

#include "../../laser.h"
#include "attention_shape.h"

enum { LASER_SHIFT_NONE = LASER_SHIFT_SEQUENCE + 1, LASER_SHIFT_CLAMP };

static inline LaserShape laser_shape(const AttentionShape *s, LaserKind kind) {
    return (LaserShape){.batch = s->B,
                        .seq_len = s->T,
                        .heads = s->H,
                        .head_dim = s->D,
                        .qkv_strides = {s->T * s->qkv_row, s->qkv_row, s->D},
                        .out_strides = {s->T * s->out_row, s->out_row, s->D},
                        .kind = kind,
                        .softcap = s->softcap,
                        .shift = s->laser_shift == LASER_SHIFT_SEQUENCE ? LASER_SHIFT_SEQUENCE
                                                                        : LASER_SHIFT_CAUSAL,
                        .precision = s->dtype == DTYPE_BF16 ? LASER_BF16 : LASER_FP32};
}

static inline void standard_attention_forward(float *out, float *lse, const float *q, const float *k,
                                              const float *v, const AttentionShape *s) {
    const LaserShape shape = laser_shape(s, LASER_KIND_STANDARD);
    laser_forward(out, lse, q, k, v, &shape);
}

static inline void standard_attention_backward(float *dq, float *dk, float *dv, const float *dout,
                                               const float *q, const float *k, const float *v,
                                               const float *out, const float *lse, const AttentionShape *s) {
    const LaserShape shape = laser_shape(s, LASER_KIND_STANDARD);
    laser_backward(dq, dk, dv, dout, q, k, v, out, lse, &shape);
}

static inline size_t standard_attention_memory(const AttentionShape *s) {
    const LaserShape shape = laser_shape(s, LASER_KIND_STANDARD);
    return laser_memory(&shape, 1);
}

static inline void laser_attention_forward(float *out, float *lse, const float *q, const float *k,
                                           const float *v, const AttentionShape *s) {
    const LaserShape shape = laser_shape(s, LASER_KIND_LASER);
    laser_forward(out, lse, q, k, v, &shape);
}

static inline void laser_attention_backward(float *dq, float *dk, float *dv, const float *dout,
                                            const float *q, const float *k, const float *v, const float *out,
                                            const float *lse, const AttentionShape *s) {
    const LaserShape shape = laser_shape(s, LASER_KIND_LASER);
    laser_backward(dq, dk, dv, dout, q, k, v, out, lse, &shape);
}

static inline size_t laser_attention_memory(const AttentionShape *s) {
    const LaserShape shape = laser_shape(s, LASER_KIND_LASER);
    return laser_memory(&shape, 1);
}

#endif
