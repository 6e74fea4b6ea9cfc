/* array.h: matrices that products multiply, stored as float32, or as bfloat16 under --dtype=bf16.

   A layer's mathematics is float32 whatever the storage. Its inner loops take elements out and put them in; over a
   row's own Array, whose storage is the same for all of it, they become vector code for either:

       const Array to = array_from(out, n * C), from = array_from(x, n * C);
       for (int c = 0; c < C; c++) array_put(to, c, 2 * array_get(from, c));

   array_of_floats(x), array_of_bf16(x)   an Array over memory of the caller's
   array_from(x, at)                    the Array that begins at element `at`
   array_get(x, i), array_put(x, i, value)    one element; rounded to nearest, ties to even
   array_read(to, x, at, n), array_write(x, at, from, n)    n elements from element `at` on
   array_read_tile(to, x, at, stride, rows, columns), array_write_tile(x, at, stride, from, rows, columns)
                                          a part of a matrix whose rows are `stride` apart, from and to a small dense one.
                                          Read all of a tile before writing any: rows often lie a multiple of 4,096 bytes
                                          apart, and a processor takes a load for one of a store to such a neighbour.
   bf16_from_float, float_from_bf16       one value; infinities stay, a NaN stays a NaN */
#ifndef GPT_MATH_ARRAY_H
#define GPT_MATH_ARRAY_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* How numbers are stored; the choices of --dtype, in this order. DTYPE_AUTO is for options alone: it is settled before
   anything is computed. */
typedef enum { DTYPE_AUTO, DTYPE_FP32, DTYPE_BF16 } Dtype;

typedef struct {
    void *data; /* float, or uint16_t holding bfloat16 */
    Dtype dtype;
} Array;

static inline Array array_of_floats(const float *data) { return (Array){(void *)data, DTYPE_FP32}; }
static inline Array array_of_bf16(const uint16_t *data) { return (Array){(void *)data, DTYPE_BF16}; }
static inline Array array_from(Array x, int64_t at) {
    return (Array){(char *)x.data + at * (x.dtype == DTYPE_BF16 ? 2 : 4), x.dtype};
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

/* x as a product in this dtype sees it. */
static inline float array_rounded(float x, Dtype dtype) {
    return dtype == DTYPE_BF16 ? float_from_bf16(bf16_from_float(x)) : x;
}

static inline float array_get(Array x, int64_t i) {
    return x.dtype == DTYPE_BF16 ? float_from_bf16(((const uint16_t *)x.data)[i])
                                 : ((const float *)x.data)[i];
}

static inline void array_put(Array x, int64_t i, float value) {
    if (x.dtype == DTYPE_BF16)
        ((uint16_t *)x.data)[i] = bf16_from_float(value);
    else
        ((float *)x.data)[i] = value;
}

static inline void array_read(float *restrict to, Array x, int64_t at, int64_t n) {
    const Array from = array_from(x, at);
    for (int64_t i = 0; i < n; i++) to[i] = array_get(from, i);
}

static inline void array_write(Array x, int64_t at, const float *restrict from, int64_t n) {
    const Array to = array_from(x, at);
    for (int64_t i = 0; i < n; i++) array_put(to, i, from[i]);
}

static inline void array_read_tile(float *restrict to, Array x, int64_t at, int64_t stride, int rows,
                                   int columns) {
    for (int i = 0; i < rows; i++) array_read(to + i * columns, x, at + i * stride, columns);
}

static inline void array_write_tile(Array x, int64_t at, int64_t stride, const float *restrict from, int rows,
                                    int columns) {
    for (int i = 0; i < rows; i++) array_write(x, at + i * stride, from + i * columns, columns);
}

#endif
