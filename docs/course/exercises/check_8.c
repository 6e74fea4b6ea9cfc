/* check_8.c: checks exercise_8.c, backward through a block with a residual connection. */
#include "check.h"

void mlp_backward(double *dx, double *dU, double *dW, const double *dout, const double *x, const double *up,
                  const double *U, const double *W, int C, int F);

enum { C = 4, F = 6 };
static const double of_another_token = 0.5;             /* what each element of dU and dW holds before */
static double x[C], U[F * C], W[C * F], dout[C], up[F]; /* up: that of the naive twin */

/* The naive twin. Returns the loss sum_c dout_c out_c. */
static double twin(void) {
    double loss = 0;
    for (int f = 0; f < F; f++) {
        up[f] = 0;
        for (int c = 0; c < C; c++) up[f] += U[f * C + c] * x[c];
    }
    for (int c = 0; c < C; c++) {
        double out = x[c];
        for (int f = 0; f < F; f++) out += W[c * F + f] * fmax(up[f], 0);
        loss += dout[c] * out;
    }
    return loss;
}

int main(void) {
    double dx[C], dU[F * C], dW[C * F], want_dx[C], want_dU[F * C], want_dW[C * F], without_residual[C];
    check_random(x, C, 1), check_random(U, F * C, 1), check_random(W, C * F, 1), check_random(dout, C, 1);
    twin();
    check_unwritten(dx, C);
    for (int i = 0; i < F * C; i++) dU[i] = dW[i] = of_another_token;
    mlp_backward(dx, dU, dW, dout, x, up, U, W, C, F);
    check_differences(want_dx, x, C, twin);
    check_differences(want_dU, U, F * C, twin);
    check_differences(want_dW, W, C * F, twin);
    for (int c = 0; c < C; c++) without_residual[c] = want_dx[c] - dout[c];
    if (!check_array("mlp_backward", "dx", dx, want_dx, C) && check_same(dx, without_residual, C))
        printf("    dx lacks dout: out = x + ..., so x also reaches out directly\n");
    const bool wrote_dW = check_same(dW, want_dW, C * F), wrote_dU = check_same(dU, want_dU, F * C);
    /* gradients are added to what the arrays hold */
    for (int i = 0; i < F * C; i++) want_dU[i] += of_another_token, want_dW[i] += of_another_token;
    if (!check_array("mlp_backward", "dW", dW, want_dW, C * F) && wrote_dW)
        printf("    dW is overwritten, so the gradient of the other token is lost: use += instead of =\n");
    if (!check_array("mlp_backward", "dU", dU, want_dU, F * C) && wrote_dU)
        printf("    dU is overwritten, so the gradient of the other token is lost: use += instead of =\n");
    return check_finish(8);
}
