/* attention.h: the kinds of attention that the trainer knows, in one table.

   A kind is one row of ATTENTION_KINDS below. From these rows come the enum AttentionKind, the values of --attn, the
   values of "attention" in a checkpoint's config.json, the name in messages, and the functions that are called. So
   these cannot disagree, and a kind that is not in the table stops the program. docs/add-an-attention.md adds one, step
   by step. On a GPU the kinds are the rows of the table in cuda/attention.cuh, which may be fewer.

   attention_forward(kind, out, lse, q, k, v, &shape)
   attention_backward(kind, dq, dk, dv, dout, q, k, v, out, lse, &shape)
                              backward writes the gradients (=), it does not add to them
   attention_memory(kind, &shape)   the bytes of work memory that a call of either allocates and frees
   attention_name(kind)             "standard", "laser" and so on
   attention_is_laser(kind)         whether the options apply that begin with --laser-
   attention_is_diff(kind)          whether it is one of the two kinds of attention_diff.h
   attention_has_weights(kind)      whether the kind has weights of its own, which a model of another kind lacks

   The arrays and their shapes are described in attention_shape.h. Forward writes out and lse, backward reads both.
   Row t of a head may depend on keys and values 0 .. t only. A kind must give the same bits for any number of
   threads. */
#ifndef GPT_MATH_ATTENTION_H
#define GPT_MATH_ATTENTION_H

/* The list calls the macro X once for each kind; what X is decides what the list becomes. The arguments are the name
   in the enum, the name that users type, and the beginning of the names of the three functions: laser_attention stands
   for laser_attention_forward, laser_attention_backward and laser_attention_memory. Files hold names and not numbers,
   so a row may be inserted anywhere. */
#define ATTENTION_KINDS(X)                                                                                   \
    X(STANDARD, "standard", standard_attention)                                                              \
    X(LASER, "laser", laser_attention)                                                                       \
    X(DIFF, "diff", diff_attention)                                                                          \
    X(DIFF_LASER, "diff-laser", diff_laser_attention)

#define ATTENTION_ENUM(NAME, name, functions) ATTENTION_##NAME,
typedef enum { ATTENTION_KINDS(ATTENTION_ENUM) ATTENTION_KIND_COUNT } AttentionKind;
#undef ATTENTION_ENUM

/* "standard|laser|...": the choices of --attn and of config.json. The first | of "|standard|laser|..." is left out. */
#define ATTENTION_CHOICE(NAME, name, functions) "|" name
#define ATTENTION_CHOICES (&(ATTENTION_KINDS(ATTENTION_CHOICE))[1])

#ifndef __cplusplus /* the GPU's side is C++ and needs no more than the kinds */
#include <stdbool.h>
#include "../../laser.h"
#include "../base/check.h"
#include "attention_diff.h"
#include "attention_shape.h"
#include "laser_shape.h"

/* ---- standard attention and LASER, which laser.h computes: it has kinds, strides and precisions of its own ---- */

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

/* ---- the table ---- */

typedef struct {
    const char *name;
    void (*forward)(float *out, float *lse, const float *q, const float *k, const float *v,
                    const AttentionShape *shape);
    void (*backward)(float *dq, float *dk, float *dv, const float *dout, const float *q, const float *k,
                     const float *v, const float *out, const float *lse, const AttentionShape *shape);
    size_t (*memory)(const AttentionShape *shape);
} AttentionRow;

#define ATTENTION_NAME_IS_NOT_EMPTY(NAME, name, functions)                                                   \
    _Static_assert(sizeof(name) > 1, "ATTENTION_" #NAME " has no name");
ATTENTION_KINDS(ATTENTION_NAME_IS_NOT_EMPTY)
#undef ATTENTION_NAME_IS_NOT_EMPTY

/* The table is a variable of this function and not a global one, so that a program that uses only the macros above does
   not need the compiled functions of laser.h. */
static inline const AttentionRow *attention_row(AttentionKind kind) {
#define ATTENTION_ROW(NAME, name, functions)                                                                 \
    [ATTENTION_##NAME] = {name, functions##_forward, functions##_backward, functions##_memory},
    static const AttentionRow rows[] = {ATTENTION_KINDS(ATTENTION_ROW)};
#undef ATTENTION_ROW
    _Static_assert(sizeof rows / sizeof *rows == ATTENTION_KIND_COUNT, "one row for each kind of attention");
    if ((int)kind < 0 || kind >= ATTENTION_KIND_COUNT)
        die("there is no kind of attention with number %d; the kinds are %s", (int)kind, ATTENTION_CHOICES);
    return &rows[kind];
}

static inline bool attention_is_laser(AttentionKind kind) {
    return kind == ATTENTION_LASER || kind == ATTENTION_DIFF_LASER;
}

static inline bool attention_is_diff(AttentionKind kind) {
    return kind == ATTENTION_DIFF || kind == ATTENTION_DIFF_LASER;
}

static inline bool attention_has_weights(AttentionKind kind) { return attention_is_diff(kind); }

static inline const char *attention_name(AttentionKind kind) { return attention_row(kind)->name; }

static inline void attention_forward(AttentionKind kind, float *out, float *lse, const float *q,
                                     const float *k, const float *v, const AttentionShape *shape) {
    attention_row(kind)->forward(out, lse, q, k, v, shape);
}

static inline void attention_backward(AttentionKind kind, float *dq, float *dk, float *dv, const float *dout,
                                      const float *q, const float *k, const float *v, const float *out,
                                      const float *lse, const AttentionShape *shape) {
    attention_row(kind)->backward(dq, dk, dv, dout, q, k, v, out, lse, shape);
}

static inline size_t attention_memory(AttentionKind kind, const AttentionShape *shape) {
    return attention_row(kind)->memory(shape);
}
#endif
#endif
