/* operand.h: matrices that products multiply, stored as float32, or as bfloat16 under --dtype=bf16.

   A layer's mathematics is float32 whatever the storage. Its inner loops take elements out and put them in; over a
   row's own Operand, whose storage is the same for all of it, they become vector code for either:

       const Operand to = operand_from(out, n * C), from = operand_from(x, n * C);
       for (int c = 0; c < C; c++) operand_put(to, c, 2 * operand_get(from, c));

   operand_floats(x), operand_halves(x)   an Operand over memory of the caller's
   operand_from(x, at)                    the Operand that begins at element `at`
   operand_get(x, i), operand_put(x, i, value)    one element; rounded to nearest, ties to even
   operand_read(to, x, at, n), operand_write(x, at, from, n)    n elements from element `at` on
   operand_read_tile(to, x, at, stride, rows, columns), operand_write_tile(x, at, stride, from, rows, columns)
                                          a part of a matrix whose rows are `stride` apart, from and to a small dense one.
                                          Read all of a tile before writing any: rows often lie a multiple of 4,096 bytes
                                          apart, and a processor takes a load for one of a store to such a neighbour.
   bf16_from_float, float_from_bf16       one value; infinities stay, a NaN stays a NaN */
#ifndef GPT_MATH_OPERAND_H
#define GPT_MATH_OPERAND_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    void *data; /* float, or uint16_t holding bfloat16 */
    bool is_bf16;
} Operand;

static inline Operand operand_floats(const float *data) { return (Operand){(void *)data, false}; }
static inline Operand operand_halves(const uint16_t *data) { return (Operand){(void *)data, true}; }
static inline Operand operand_from(Operand x, int64_t at) {
    return (Operand){(char *)x.data + at * (x.is_bf16 ? 2 : 4), x.is_bf16};
}

static inline uint16_t bf16_from_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded);
}

static inline float float_from_bf16(uint16_t x) {
    const uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float operand_get(Operand x, int64_t i) {
    return x.is_bf16 ? float_from_bf16(((const uint16_t *)x.data)[i]) : ((const float *)x.data)[i];
}

static inline void operand_put(Operand x, int64_t i, float value) {
    if (x.is_bf16)
        ((uint16_t *)x.data)[i] = bf16_from_float(value);
    else
        ((float *)x.data)[i] = value;
}

static inline void operand_read(float *restrict to, Operand x, int64_t at, int64_t n) {
    const Operand from = operand_from(x, at);
    for (int64_t i = 0; i < n; i++) to[i] = operand_get(from, i);
}

static inline void operand_write(Operand x, int64_t at, const float *restrict from, int64_t n) {
    const Operand to = operand_from(x, at);
    for (int64_t i = 0; i < n; i++) operand_put(to, i, from[i]);
}

static inline void operand_read_tile(float *restrict to, Operand x, int64_t at, int64_t stride, int rows,
                                     int columns) {
    for (int i = 0; i < rows; i++) operand_read(to + i * columns, x, at + i * stride, columns);
}

static inline void operand_write_tile(Operand x, int64_t at, int64_t stride, const float *restrict from,
                                      int rows, int columns) {
    for (int i = 0; i < rows; i++) operand_write(x, at + i * stride, from + i * columns, columns);
}

#endif
