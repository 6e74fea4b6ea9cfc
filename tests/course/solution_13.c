/* A right solution of docs/course/exercises/exercise_13.c, with which tests/test_course.h tests its check; with
   -DMISTAKE it has a mistake of which the check knows the reason. */
#include <math.h>
#include <stdint.h>
#include <string.h>

int slice_begin(int P, int n, int rank);
void reduce_scatter(double *x, int P, int n);

int slice_begin(int P, int n, int rank) {
#ifdef MISTAKE
    return P / n * rank;
#else
    return (int)((int64_t)P * rank / n);
#endif
}

void reduce_scatter(double *x, int P, int n) {
    for (int rank = 0; rank < n; rank++)
        for (int i = slice_begin(P, n, rank); i < slice_begin(P, n, rank + 1); i++) {
            double sum = 0;
            for (int other = 0; other < n; other++) sum += x[other * P + i];
            x[rank * P + i] = sum;
        }
}
