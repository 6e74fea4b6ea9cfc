/* check_14.c: checks exercise_14.c, the interval of paired differences. */
#include "check.h"

void paired_interval(double *low, double *high, const double *a, const double *b, int n, double t);

enum { COUNT = 5 };

static double mean(const double *x) {
    double sum = 0;
    for (int i = 0; i < COUNT; i++) sum += x[i] / COUNT;
    return sum;
}
static double variance(const double *x) {
    double sum = 0;
    for (int i = 0; i < COUNT; i++) sum += (x[i] - mean(x)) * (x[i] - mean(x)) / (COUNT - 1);
    return sum;
}

int main(void) {
    static const double t = 2.776;
    double a[COUNT], b[COUNT], d[COUNT], got[2], want[2], unpaired[2], of_n[2];
    check_random(a, COUNT, 0.2), check_random(d, COUNT, 0.05);
    for (int i = 0; i < COUNT; i++) b[i] = a[i] + d[i];
    const double half = t * sqrt(variance(d) / COUNT), apart = t * sqrt((variance(a) + variance(b)) / COUNT);
    const double smaller = half * sqrt((COUNT - 1.0) / COUNT);
    want[0] = mean(d) - half, want[1] = mean(d) + half;
    unpaired[0] = mean(d) - apart, unpaired[1] = mean(d) + apart;
    of_n[0] = mean(d) - smaller, of_n[1] = mean(d) + smaller;
    check_unwritten(got, 2);
    paired_interval(&got[0], &got[1], a, b, COUNT, t);
    if (!check_array("paired_interval", "(low, high)", got, want, 2)) {
        if (check_same(got, unpaired, 2))
            printf(
                "    this is the interval of two groups that are not paired: take the deviation of the differences\n");
        if (check_same(got, of_n, 2)) printf("    the squares are divided by n; divide them by n - 1\n");
    }
    return check_finish(14);
}
