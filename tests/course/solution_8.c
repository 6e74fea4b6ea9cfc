/* A right solution of docs/course/exercises/exercise_8.c, with which tests/test_course.h tests its check; with
   -DMISTAKE it has a mistake of which the check knows the reason. */
void mlp_backward(double *dx, double *dU, double *dW, const double *dout, const double *x, const double *up,
                  const double *U, const double *W, int C, int F);

void mlp_backward(double *dx, double *dU, double *dW, const double *dout, const double *x, const double *up,
                  const double *U, const double *W, int C, int F) {
#ifdef MISTAKE
    for (int c = 0; c < C; c++) dx[c] = 0;
#else
    for (int c = 0; c < C; c++) dx[c] = dout[c];
#endif
    for (int f = 0; f < F; f++) {
        double dhidden = 0;
        for (int c = 0; c < C; c++) {
            dhidden += dout[c] * W[c * F + f];
            dW[c * F + f] += dout[c] * (up[f] > 0 ? up[f] : 0);
        }
        const double dup = up[f] > 0 ? dhidden : 0;
        for (int c = 0; c < C; c++) {
            dx[c] += dup * U[f * C + c];
            dU[f * C + c] += dup * x[c];
        }
    }
}
