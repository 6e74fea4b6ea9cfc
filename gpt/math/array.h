/* array.h: arrays of numbers that are stored as float32 or, under --dtype=bf16, as bfloat16 (bf16).

   bf16 is the upper half of a float32: the same exponent, 8 instead of 24 significant bits. Numbers are stored in it to
   save memory and to multiply faster; a layer computes in float32 whatever the storage. An Array is a pointer to such
   numbers together with their type. A loop that reads and writes elements of Arrays becomes vector code for either
   type, when each Array is a local variable that does not change inside the loop:

       const Array to = array_from(out, n * C), from = array_from(x, n * C);
       for (int c = 0; c < C; c++) array_put(to, c, 2 * array_get(from, c));

   The memory of an Array always belongs to the caller.

   array_of_floats(x), array_of_bf16(x)                     the Array of this memory
   array_from(x, at)                                        the Array that begins at element `at` of x
   array_get(x, i), array_put(x, i, value)                  read or write one element
   array_read(to, x, at, n), array_write(x, at, from, n)    copy n elements, from element `at` on, to or from floats
   array_read_tile(to, x, at, stride, rows, columns), array_write_tile(x, at, stride, from, rows, columns)
       The same for a tile, a rectangular part of a matrix. It begins at element `at`, and its rows are `stride`
       elements apart; `to` and `from` have the shape (rows, columns), without gaps. A function that changes a matrix
       should read a whole tile, then write a whole tile, rather than read and write row by row. Before
       a read, a processor checks whether a write to the same address is still under way. Many compare only the lowest
       12 bits of the addresses, so a write that is 4,096, 8,192, ... bytes away delays the read without need; and the
       rows of a matrix are often such a distance apart.

   bf16_from_float(x), float_from_bf16(x)                   one value
   array_rounded(x, dtype)                                  x after it was stored in this dtype
       A number is rounded to the nearest bf16, and when two are equally near, to the one whose last bit is 0.
       Infinities stay. Of a NaN the upper 16 bits are kept and the bit that makes it a quiet NaN (0x40) is set, as
       AVX-512 does. The vectorised conversions in matmul_isa.h and laser.h give the same bits. A GPU turns every NaN
       into 0x7fff, and so does its emulator (cuda/device.h). */
#ifndef GPT_MATH_ARRAY_H
#define GPT_MATH_ARRAY_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* How numbers are stored: the choices of --dtype, in this order. No Array has DTYPE_AUTO: the set-up of a run replaces
   it by one of the others. */
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
