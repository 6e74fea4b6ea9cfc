/* Exercise 8: backward through a block with a residual connection. Complete the function, then run

       make exercise-8

   The block is an MLP for one token, with relu, max(up, 0), instead of gelu and without a norm:

       up = U x        hidden = max(up, 0)        out = x + W hidden

   x, out (C); up, hidden (F); U (F, C) with U[f * C + c]; W (C, F) with W[c * F + f]. The function gets up, from which you
   can compute hidden. No up is exactly 0. */

void mlp_backward(double *dx, double *dU, double *dW, const double *dout, const double *x, const double *up,
                  const double *U, const double *W, int C, int F);

/* dx (C) = the gradient of x, from dout (C), that of out. dU (F, C) and dW (C, F) += the gradients of U and W: they
   already hold those of another token. */
void mlp_backward(double *dx, double *dU, double *dW, const double *dout, const double *x, const double *up,
                  const double *U, const double *W, int C, int F) {
    /* Your lines go here. Go through the three formulas from the last to the first. */
    (void)dx, (void)dU, (void)dW, (void)dout, (void)x, (void)up, (void)U, (void)W, (void)C, (void)F;
}
