/* check_9.c: checks exercise_9.c, an update by AdamW. */
#include "check.h"

void adamw(double *w, double *m, double *v, const double *g, int n, int t, double lr, double decay);

enum { COUNT = 5, UPDATES = 3 };

/* The naive twin; with `unbiased` false it lacks the divisions that correct the start at 0. */
static void twin(double *w, double *m, double *v, const double *g, int t, double lr, double decay, bool unbiased) {
    for (int i = 0; i < COUNT; i++) {
        m[i] = 0.9 * m[i] + 0.1 * g[i];
        v[i] = 0.95 * v[i] + 0.05 * g[i] * g[i];
        const double mean = unbiased ? m[i] / (1 - pow(0.9, t)) : m[i],
                     square = unbiased ? v[i] / (1 - pow(0.95, t)) : v[i];
        w[i] = (1 - lr * decay) * w[i] - lr * mean / (sqrt(square) + 1e-8);
    }
}

int main(void) {
    double w[COUNT], m[COUNT] = {0}, v[COUNT] = {0}, want_w[COUNT], want_m[COUNT] = {0}, want_v[COUNT] = {0};
    double biased_w[COUNT], biased_m[COUNT] = {0}, biased_v[COUNT] = {0}, g[COUNT], start[COUNT];
    check_random(start, COUNT, 1);
    for (int i = 0; i < COUNT; i++) w[i] = want_w[i] = biased_w[i] = start[i];
    for (int t = 1; t <= UPDATES && !check_problems; t++) {
        check_random(g, COUNT, 1);
        adamw(w, m, v, g, COUNT, t, 0.01, 0.1);
        twin(want_w, want_m, want_v, g, t, 0.01, 0.1, true);
        twin(biased_w, biased_m, biased_v, g, t, 0.01, 0.1, false);
        if (check_same(w, start, COUNT)) {
            check_wrong("adamw() writes nothing to w yet");
        } else {
            check_array("adamw", "m", m, want_m, COUNT), check_array("adamw", "v", v, want_v, COUNT);
            if (!check_array("adamw", "w", w, want_w, COUNT) && check_same(w, biased_w, COUNT))
                printf("    m and v begin at 0, so they are too small at first: divide them by 1 - beta^t\n");
        }
    }
    return check_finish(9);
}
