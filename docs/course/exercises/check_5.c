/* check_5.c: checks exercise_5.c, one row of LASER attention, against the naive functions of laser.h. */
#define LASER_STATIC
#define LASER_IMPLEMENTATION
#include "../../../laser.h"

#include "check.h"

void laser_row_forward(double *o, const double *s, const double *v, int count, int D);
void laser_row_backward(double *ds, double *dv, const double *dout, const double *s, const double *v, const double *o,
                        int count, int D);

enum { COUNT = 6, D = 4 };
static double s[COUNT], v[COUNT * D], dout[D], o[D]; /* o: that of the naive twin */

/* The naive twin is the last row of laser.h's attention with COUNT tokens. Its query is (1, 0, 0, 0), the keys are
   (s_j, 0, 0, 0), and the scale is 1, so that the scores are s. Returns the loss sum_d dout_d o_d. */
static double twin(void) {
    const LaserShape shape = {.batch = 1,
                              .seq_len = COUNT,
                              .heads = 1,
                              .head_dim = D,
                              .qkv_strides = {COUNT * D, D, D},
                              .out_strides = {COUNT * D, D, D},
                              .scale = 1,
                              .kind = LASER_KIND_LASER};
    double q[COUNT * D] = {0}, k[COUNT * D] = {0}, out[COUNT * D], loss = 0;
    q[(COUNT - 1) * D] = 1;
    for (int j = 0; j < COUNT; j++) k[j * D] = s[j];
    laser_forward_naive(out, NULL, q, k, v, &shape);
    for (int d = 0; d < D; d++) {
        o[d] = out[(COUNT - 1) * D + d];
        loss += dout[d] * o[d];
    }
    return loss;
}

/* Adds `add` to all of x, and checks that o moves by `moved`, as the formula says. */
static void check_large(double *x, int n, double add, double moved, const char *what, const char *advice) {
    double got[D], want[D];
    for (int i = 0; i < n; i++) x[i] += add;
    for (int d = 0; d < D; d++) want[d] = o[d] + moved;
    laser_row_forward(got, s, v, COUNT, D);
    for (int i = 0; i < n; i++) x[i] -= add;
    if (!check_same(got, want, D))
        check_wrong("laser_row_forward(): with %g added to all %s o[0] becomes %g instead of %g: %s", add, what, got[0],
                    want[0], advice);
}

static void check_forward(void) {
    double got[D];
    check_unwritten(got, D);
    laser_row_forward(got, s, v, COUNT, D);
    if (!check_array("laser_row_forward", "o", got, o, D)) return;
    check_large(s, COUNT, 10000, 0, "scores", "subtract the largest score before exp");
    check_large(v, COUNT * D, 10000, 10000, "values", "subtract a number near the values before exp, add it after log");
    check_large(v, COUNT * D, -10000, -10000, "values", "all exp(v) are 0; subtract a number near the values first");
    /* a key of large value and tiny weight: exp(s - largest) or exp(v - largest) alone is 0 for each of the keys */
    const double s_was = s[1], v_was = v[D];
    s[1] -= 10000, v[D] += 10000 + 50;
    twin();
    laser_row_forward(got, s, v, COUNT, D);
    if (!check_array("laser_row_forward", "o, where key 1 has a score of -10000 and a value of 10050, o", got, o, D) &&
        !isfinite(got[0]))
        printf("    its weight alone is 0, and exp(v - 10050) alone is 0 for all other keys: take exp of their sum, s "
               "+ v\n");
    s[1] = s_was, v[D] = v_was;
    twin();
}

static void check_backward(void) {
    double ds[COUNT], dv[COUNT * D], want_ds[COUNT], want_dv[COUNT * D], standard_ds[COUNT], without_r[COUNT],
        standard_dv[COUNT * D];
    double sum = 0;
    check_unwritten(ds, COUNT), check_unwritten(dv, COUNT * D);
    laser_row_backward(ds, dv, dout, s, v, o, COUNT, D);
    check_differences(want_ds, s, COUNT, twin);
    check_differences(want_dv, v, COUNT * D, twin);
    twin();
    for (int j = 0; j < COUNT; j++) sum += exp(s[j]);
    for (int j = 0; j < COUNT; j++) {
        const double a = exp(s[j]) / sum;
        standard_ds[j] = without_r[j] = 0;
        for (int d = 0; d < D; d++) {
            standard_dv[j * D + d] = a * dout[d];
            without_r[j] += dout[d] * a * exp(v[j * D + d] - o[d]);
            standard_ds[j] += a * dout[d] * (v[j * D + d] - o[d]);
        }
    }
    if (!check_array("laser_row_backward", "dv", dv, want_dv, COUNT * D) && check_same(dv, standard_dv, COUNT * D))
        printf("    this is the gradient of standard attention: the derivative of o_d with respect to v_jd is "
               "p_jd = a_j exp(v_jd - o_d)\n");
    if (check_array("laser_row_backward", "ds", ds, want_ds, COUNT)) return;
    if (check_same(ds, standard_ds, COUNT))
        printf("    this is the gradient of standard attention: ds_j is the sum over d of do_d (p_jd - a_j)\n");
    if (check_same(ds, without_r, COUNT))
        printf(
            "    ds_j is a_j da_j here: subtract mu = sum_d do_d from da_j, because the weights of the row add up to "
            "1\n");
}

int main(void) {
    check_random(s, COUNT, 2), check_random(v, COUNT * D, 2), check_random(dout, D, 1);
    twin();
    check_forward();
    check_backward();
    return check_finish(5);
}
