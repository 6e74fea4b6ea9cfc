/* check_11.c: checks exercise_11.c, a matrix product in blocks of tokens. */
#include "check.h"

void linear_blocked(double *out, const double *x, const double *w, int N, int IC, int OC, int block);

enum { N = 7, IC = 5, OC = 4 };

int main(void) {
    double x[N * IC], w[OC * IC], out[N * OC], want[N * OC] = {0};
    check_random(x, N * IC, 1), check_random(w, OC * IC, 1);
    for (int n = 0; n < N; n++)
        for (int o = 0; o < OC; o++)
            for (int c = 0; c < IC; c++) want[n * OC + o] += x[n * IC + c] * w[o * IC + c];
    for (int block = 1; block <= 2 * N && !check_problems; block++) {
        check_unwritten(out, N * OC);
        linear_blocked(out, x, w, N, IC, OC, block);
        if (check_array("linear_blocked", "out", out, want, N * OC)) continue;
        if (out[0] != check_mark) printf("    with blocks of %d tokens, where N is %d\n", block, N);
        if (out[0] != check_mark && out[N * OC - 1] == check_mark)
            printf("    the last block has fewer tokens; they are missing\n");
    }
    return check_finish(11);
}
