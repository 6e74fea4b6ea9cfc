/* check_12.c: checks exercise_12.c, a product in tiles. */
#include "check.h"

long product_in_tiles(double *out, const double *x, const double *w, int M, int N, int K, int R, int S);

enum { M = 7, N = 10, K = 3 };

int main(void) {
    double x[M * K], w[N * K], out[M * N], want[M * N] = {0};
    check_random(x, M * K, 1), check_random(w, N * K, 1);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++)
            for (int k = 0; k < K; k++) want[i * N + j] += x[i * K + k] * w[j * K + k];
    for (int size = 1; size <= 8 && !check_problems; size++) {
        const int R = size, S = size + 1, across = (N + S - 1) / S, down = (M + R - 1) / R;
        const long right = (long)K * (across * M + down * N); /* each row is loaded for each tile beside it */
        check_unwritten(out, M * N);
        const long loads = product_in_tiles(out, x, w, M, N, K, R, S);
        if (!check_array("product_in_tiles", "out", out, want, M * N)) continue;
        if (loads == right) continue;
        check_wrong("product_in_tiles() returns %ld for tiles of %d x %d, expected %ld", loads, R, S, right);
        if (loads == 2L * M * N * K)
            printf("    every use of a number is counted as a load: load it once for a tile\n");
    }
    return check_finish(12);
}
