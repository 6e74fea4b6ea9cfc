/* head_norm.h: RMSNorm of the D numbers x that a head, or a pair of heads, has for a token: y = x * r * w with
   r = 1 / sqrt(mean(x^2) + eps) and the weight w (D).

   head_norm_rstd(x, eps, D)                              r
   head_norm_backward(dx, dweight, x, weight, eps, D)     dx, at first the gradient of y, becomes that of x (=); the
                                                          gradient of w is added to dweight (+=) */
#ifndef GPT_MATH_HEAD_NORM_H
#define GPT_MATH_HEAD_NORM_H

#include <math.h>

static inline float head_norm_rstd(const float *x, float eps, int D) {
    float squares = 0;
    for (int d = 0; d < D; d++) squares += x[d] * x[d];
    return 1 / sqrtf(squares / (float)D + eps);
}

/* forward: y = x * r * w.  With g = dy * w:  dx = r * (g - x * r^2 * mean(g * x)),  dw = dy * x * r */
static inline void head_norm_backward(float *dx, float *dweight, const float *x, const float *weight,
                                      float eps, int D) {
    const float r = head_norm_rstd(x, eps, D);
    float dot = 0;
    for (int d = 0; d < D; d++) dot += dx[d] * weight[d] * x[d];
    const float pull = dot * r * r * r / (float)D;
    for (int d = 0; d < D; d++) {
        dweight[d] += dx[d] * x[d] * r;
        dx[d] = dx[d] * weight[d] * r - x[d] * pull;
    }
}

#endif
