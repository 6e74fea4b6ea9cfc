/* vector_math.h: functions of many numbers at once, written so that compilers turn the loops around them into vector code.

   exp_fast(x)       e^x for one x; see there for its range and error
   row_max(x, n)     the largest of x (n), n above 0 */
#ifndef GPT_MATH_VECTOR_MATH_H
#define GPT_MATH_VECTOR_MATH_H

#include <stdint.h>

/* e^x with an error of at most 2 units in the last place for -87 <= x <= 60; x beyond these limits counts as the limit.
   x = n ln2 + r with |r| <= ln2/2; e^r comes from its Taylor polynomial, 2^n from writing the bits of the exponent.
   There are no branches, so loops become vector code. Within the limits neither a result nor its inverse is a denormal
   number; some processors take a hundred times as long for those. */
static inline float exp_fast(float x) {
    x = x < -87.0f ? -87.0f : x > 60.0f ? 60.0f : x;
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    float n = (x * 1.44269504f + shift) - shift;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln2 in two parts, the first exact in few bits */
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    union {
        uint32_t bits;
        float value;
    } power = {(uint32_t)((int32_t)n + 127) << 23};
    return p * power.value;
}

/* The comparisons are made in 16 independent lanes, because a compiler may not reorder comparisons of numbers that
   could be NaN. */
static inline float row_max(const float *x, int n) {
    enum { LANES = 16 };
    float lane[LANES], largest = x[0];
    for (int j = 0; j < LANES; j++) lane[j] = x[0];
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    for (; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    for (int j = 0; j < LANES; j++) largest = lane[j] > largest ? lane[j] : largest;
    return largest;
}

#endif
