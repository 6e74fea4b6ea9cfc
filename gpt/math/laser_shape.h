/* laser_shape.h: the shape of a call of laser.h for an AttentionShape, for the kinds of attention that laser.h computes.

   laser_shape(&shape, kind)   all heads; a caller that needs some of them changes `heads` and the strides */
#ifndef GPT_MATH_LASER_SHAPE_H
#define GPT_MATH_LASER_SHAPE_H

#include "../../laser.h"
#include "attention_shape.h"

/* Two of the choices of --laser-shift are not in laser.h: they are the function of its causal shift, and
   attention_ablations.h does what is special in them. */
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

#endif
