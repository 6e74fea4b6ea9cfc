/* attention_shape.h: the sizes that every kind of attention receives, and where its arrays lie in memory.

   B sequences of T tokens are attended to by H heads of size D; A = H*D. The trainer keeps q, k and v of a token side
   by side, so that one matrix product makes all three:
       q, k, v, dq, dk, dv   element (b, t, h, d) is at (b*T + t) * qkv_row + h*D + d, where qkv_row = 3A
       out, dout             element (b, t, h, d) is at (b*T + t) * out_row + h*D + d, where out_row = A
       lse                   (B, H, T) without gaps: one number for each row, which forward leaves for backward.
                             Standard and LASER attention leave the log-sum-exp of the row's scores; another kind may
                             use it for what it needs, or not at all

   A kind with weights of its own also receives an AttentionOwn; other kinds do not read it.

   attention_tokens(&shape)             B*T
   attention_q_row(&shape, b, t, h)     where q_t of a head begins in q; in k, v and their gradients it is the same
   attention_out_row(&shape, b, t, h)   where o_t of a head begins in out, and its gradient in dout
   attention_lse_row(&shape, b, t, h)   where the number of row t of a head is in lse */
#ifndef GPT_MATH_ATTENTION_SHAPE_H
#define GPT_MATH_ATTENTION_SHAPE_H

#include <stddef.h>
#include <stdint.h>
#include "array.h"

/* What a kind with weights of its own needs of the layer that it computes. */
typedef struct {
    int layer;            /* 0 to L - 1 */
    const float *weights; /* the kind's weights in this layer, one tensor after the other */
    float *dweights;      /* their gradients, to which backward adds (+=) */
    float *saved;         /* what forward leaves for backward, besides out and lse */
} AttentionOwn;

typedef struct {
    int B, T, H, D;
    ptrdiff_t qkv_row, out_row; /* elements from one token to the next */
    Dtype dtype;                /* DTYPE_BF16: the operands of matrix products may be rounded to bfloat16 */
    int laser_shift;            /* as in --laser-shift; only LASER reads it */
    float softcap;              /* as in --attn-softcap; standard and LASER attention read it; 0: none */
    AttentionOwn own;
} AttentionShape;

static inline int64_t attention_tokens(const AttentionShape *s) { return (int64_t)s->B * s->T; }
static inline ptrdiff_t attention_q_row(const AttentionShape *s, int b, int t, int h) {
    return ((ptrdiff_t)b * s->T + t) * s->qkv_row + (ptrdiff_t)h * s->D;
}
static inline ptrdiff_t attention_out_row(const AttentionShape *s, int b, int t, int h) {
    return ((ptrdiff_t)b * s->T + t) * s->out_row + (ptrdiff_t)h * s->D;
}
static inline ptrdiff_t attention_lse_row(const AttentionShape *s, int b, int t, int h) {
    return ((ptrdiff_t)b * s->H + h) * s->T + t;
}

#endif
