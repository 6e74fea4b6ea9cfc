/* check_4.c: checks exercise_4.c, one row of standard attention. */
#include "check.h"

void attention_row_forward(double *o, double *a, const double *s, const double *v, int count, int D);
void attention_row_backward(double *ds, double *dv, const double *dout, const double *a, const double *v,
                            const double *o, int count, int D);

enum { COUNT = 6, D = 4 };
static double s[COUNT], v[COUNT * D], dout[D], a[COUNT], o[D]; /* a, o: those of the naive twin */

/* The naive twin. It returns the loss sum_d dout_d o_d, whose gradient with respect to o is dout. */
static double twin(void) {
    double sum = 0, loss = 0;
    for (int j = 0; j < COUNT; j++) sum += exp(s[j]);
    for (int j = 0; j < COUNT; j++) a[j] = exp(s[j]) / sum;
    for (int d = 0; d < D; d++) {
        o[d] = 0;
        for (int j = 0; j < COUNT; j++) o[d] += a[j] * v[j * D + d];
        loss += dout[d] * o[d];
    }
    return loss;
}

static void check_forward(void) {
    double got_a[COUNT], got_o[D], large[COUNT];
    check_unwritten(got_a, COUNT), check_unwritten(got_o, D);
    attention_row_forward(got_o, got_a, s, v, COUNT, D);
    if (!check_array("attention_row_forward", "a", got_a, a, COUNT) |
        !check_array("attention_row_forward", "o", got_o, o, D))
        return;
    for (int j = 0; j < COUNT; j++) large[j] = s[j] + 10000;
    attention_row_forward(got_o, got_a, large, v, COUNT, D);
    if (!check_same(got_a, a, COUNT))
        check_wrong(
            "attention_row_forward(): with 10,000 added to all scores a[0] becomes %g instead of %g. exp(10000) "
            "is infinite: subtract the largest score before exp",
            got_a[0], a[0]);
}

static void check_backward(void) {
    double ds[COUNT], dv[COUNT * D], want_ds[COUNT], want_dv[COUNT * D], without_r[COUNT];
    check_unwritten(ds, COUNT), check_unwritten(dv, COUNT * D);
    attention_row_backward(ds, dv, dout, a, v, o, COUNT, D);
    check_differences(want_ds, s, COUNT, twin);
    check_differences(want_dv, v, COUNT * D, twin);
    twin();
    if (!check_array("attention_row_backward", "dv", dv, want_dv, COUNT * D) && dv[0] != check_mark)
        printf("    the derivative of o_d with respect to v_jd is a_j\n");
    for (int j = 0; j < COUNT; j++) {
        double da = 0;
        for (int d = 0; d < D; d++) da += dout[d] * v[j * D + d];
        without_r[j] = a[j] * da;
    }
    if (!check_array("attention_row_backward", "ds", ds, want_ds, COUNT) && check_same(ds, without_r, COUNT))
        printf("    ds_j is a_j da_j here: a larger s_j also makes every other weight smaller; subtract "
               "mu = sum_d do_d o_d from da_j\n");
}

int main(void) {
    check_random(s, COUNT, 2), check_random(v, COUNT * D, 1), check_random(dout, D, 1);
    twin();
    check_forward();
    check_backward();
    return check_finish(4);
}
