/* nonfinite.h: finds NaNs and infinities in arrays of float32.

   largest_magnitude(x, n)   the largest |x[i]|; NaN when some x[i] is NaN, else INFINITY when some x[i] is infinite
   first_nonfinite(x, n)     the index of the first NaN or infinity; n when there is none */
#ifndef GPT_MATH_NONFINITE_H
#define GPT_MATH_NONFINITE_H

#include <math.h>
#include <stddef.h>

/* One pass in all threads tells only whether some value is not finite; which of the two it is takes a second one. */
static inline float largest_magnitude(const float *x, size_t n) {
    float largest = 0, poison = 0; /* sum of x * 0, which is NaN for a NaN and for infinities */
#pragma omp parallel for schedule(static) reduction(max : largest) reduction(+ : poison)
    for (size_t i = 0; i < n; i++) {
        float magnitude = fabsf(x[i]);
        largest = magnitude > largest ? magnitude : largest;
        poison += x[i] * 0.0f;
    }
    if (!isnan(poison)) return largest;
    for (size_t i = 0; i < n; i++)
        if (isnan(x[i])) return NAN;
    return INFINITY;
}

static inline size_t first_nonfinite(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return i;
    return n;
}

#endif
