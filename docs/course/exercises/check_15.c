/* check_15.c: checks exercise_15.c, the best division of a budget. */
#include "check.h"

double best_parameters(double A, double alpha, double B, double beta, double K);

static double A, alpha, B, beta, K;

static double loss(double N) { return A / pow(N, alpha) + B / pow(K / (6 * N), beta); }

/* The naive twin: tries sizes, in ever smaller steps. */
static double twin(void) {
    double best = 1e6, factor = 10;
    for (int round = 0; round < 60; round++, factor = sqrt(factor))
        while (loss(best * factor) < loss(best) || loss(best / factor) < loss(best))
            best = loss(best * factor) < loss(best) ? best * factor : best / factor;
    return best;
}

int main(void) {
    static const double cases[][5] = {
        {406, 0.34, 411, 0.28, 1e20}, {100, 0.5, 300, 0.5, 1e18}, {50, 0.3, 1000, 0.4, 1e21}};
    for (int i = 0; i < 3 && !check_problems; i++) {
        A = cases[i][0], alpha = cases[i][1], B = cases[i][2], beta = cases[i][3], K = cases[i][4];
        const double want = twin(), got = best_parameters(A, alpha, B, beta, K);
        if (fabs(got / want - 1) < 1e-4) continue;
        if (got == check_mark)
            check_wrong("best_parameters() writes nothing to its result yet");
        else
            check_wrong("best_parameters(%g, %g, %g, %g, %g) is %.4g, expected %.4g", A, alpha, B, beta, K, got, want);
        if (fabs(got / want - pow(beta / alpha, 1 / (alpha + beta))) < 1e-4)
            printf("    the exponents alpha and beta also come in as factors when N^-alpha and N^beta are "
                   "differentiated\n");
    }
    return check_finish(15);
}
