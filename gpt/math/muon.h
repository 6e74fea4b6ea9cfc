/* muon.h: one update of a matrix of weights by Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural
   networks").

   Muon takes the direction of the momentum and makes it nearly orthogonal: of its singular value decomposition U S V^T
   it keeps about U V^T. All directions of the matrix are then changed equally far, also those in which the gradient is
   small. With g = gradient_scale * gradient (R, C), and the momentum m (R, C), which begins as zeros:

       m = 0.95 m + 0.05 g
       X = 0.05 g + 0.95 m                          Nesterov's momentum
       X = X / |X|                                  the L2 norm over all elements: no singular value exceeds 1
       five times: A = X X^T,  X = 3.4445 X + (-4.7750 A + 2.0315 A^2) X
       parameter = (1 - lr weight_decay) parameter - lr 0.2 sqrt(max(R, C)) X

   The fifth line is the Newton-Schulz iteration. It applies an odd polynomial to the singular values, which moves all
   that are not tiny to between about 0.7 and 1.2. A matrix with more rows than columns is transposed first, so that A
   is the smaller of the two possible ones.

   The factor 0.2 sqrt(max(R, C)) is that of Liu et al. 2025, "Muon is scalable for LLM training": an orthogonal matrix
   has elements of root mean square 1 / sqrt(max(R, C)), so the update has elements of about 0.2 lr, as AdamW's. So
   Muon and the AdamW of the other parameters can share one learning rate and one weight decay, and a rate that was
   found for AdamW is a good one to begin with. Jordan's own factor, sqrt(max(1, R / C)), needs a rate of its own.

   muon_update(parameter, gradient, m, rows, columns, &settings, work)
                   one update of the float32 matrix parameter (rows, columns) and its momentum m. beta1, beta2, eps and
                   step of the settings are not read. work: muon_work_floats(rows, columns) floats
   muon_orthogonalize(x, rows, columns, work)
                   the iteration alone: x (rows, columns), rows <= columns, from its norm to its fifth step.
                   work: muon_work_floats floats, of which x may be the first rows * columns
   The result has the same bits for any number of threads. */
#ifndef GPT_MATH_MUON_H
#define GPT_MATH_MUON_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "matmul.h"
#include "optimizer.h"

enum { MUON_STEPS = 5 };
static const float muon_polynomial[] = {3.4445f, -4.7750f, 2.0315f};

/* Room for X, for the next X, and for A and the polynomial of A. */
static inline size_t muon_work_floats(size_t rows, size_t columns) {
    const size_t small = rows < columns ? rows : columns;
    return 2 * rows * columns + 2 * small * small;
}

static inline void muon_orthogonalize(float *x, int64_t rows, int64_t columns, float *work) {
    const int64_t n = rows * columns, nn = rows * rows;
    const float a = muon_polynomial[0], b = muon_polynomial[1], c = muon_polynomial[2];
    const float scale = (float)(1 / (sqrt(gradient_squares(x, (size_t)n)) + 1e-7));
    float *from = x, *to = work + n, *A = work + 2 * n, *polynomial = A + nn; /* (rows, rows) the last two */
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; i++) x[i] *= scale;
    for (int step = 0; step < MUON_STEPS; step++) {
        matmul_forward(A, NULL, from, from, rows, columns, rows, DTYPE_FP32);
        matmul_forward(polynomial, NULL, A, A, rows, rows, rows,
                       DTYPE_FP32); /* A is symmetric: A A^T = A^2 */
#pragma omp parallel for simd schedule(static)
        for (int64_t i = 0; i < nn; i++) polynomial[i] = b * A[i] + c * polynomial[i];
#pragma omp parallel for simd schedule(static)
        for (int64_t i = 0; i < n; i++) to[i] = a * from[i];
        matmul_backward_input(to, to, polynomial, from, rows, columns, rows, DTYPE_FP32);
        float *swap = from;
        from = to, to = swap;
    }
    if (from != x) memcpy(x, from, (size_t)n * sizeof *x);
}

static inline void muon_update(float *parameter, const float *gradient, float *m, int64_t rows,
                               int64_t columns, const AdamWSettings *s, float *work) {
    const float momentum = 0.95f, rest = 1 - momentum, scale = (float)s->gradient_scale;
    const int64_t larger = rows > columns ? rows : columns, smaller = rows > columns ? columns : rows;
    const float decay = (float)(1 - s->lr * s->weight_decay);
    const float rate = (float)(s->lr * 0.2 * sqrt((double)larger));
    /* Element (i, j) of the matrix is x[i * along_row + j * along_column]: x is the transpose where rows > columns. */
    const int64_t along_row = rows > columns ? 1 : columns, along_column = rows > columns ? rows : 1;
    float *x = work;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            const int64_t at = i * columns + j;
            const float g = gradient[at] * scale;
            m[at] = momentum * m[at] + rest * g;
            x[i * along_row + j * along_column] = rest * g + momentum * m[at];
        }
    muon_orthogonalize(x, smaller, larger, work);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            parameter[i * columns + j] =
                decay * parameter[i * columns + j] - rate * x[i * along_row + j * along_column];
}

#endif
