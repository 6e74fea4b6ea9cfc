/* A right solution of docs/course/exercises/exercise_12.c, with which tests/test_course.h tests its check; with
   -DMISTAKE it has a mistake of which the check knows the reason. */
#include <math.h>
#include <stdint.h>
#include <string.h>

long product_in_tiles(double *out, const double *x, const double *w, int M, int N, int K, int R, int S);

long product_in_tiles(double *out, const double *x, const double *w, int M, int N, int K, int R, int S) {
    long loads = 0;
    for (int row = 0; row < M; row += R)
        for (int column = 0; column < N; column += S) {
            const int rows = row + R < M ? R : M - row, columns = column + S < N ? S : N - column;
            for (int i = row; i < row + rows; i++)
                for (int j = column; j < column + columns; j++) out[i * N + j] = 0;
            for (int k = 0; k < K; k++) {
#ifdef MISTAKE
                loads += 2L * rows * columns;
#else
                loads += rows + columns;
#endif
                for (int i = row; i < row + rows; i++)
                    for (int j = column; j < column + columns; j++)
                        out[i * N + j] += x[i * K + k] * w[j * K + k];
            }
        }
    return loads;
}
