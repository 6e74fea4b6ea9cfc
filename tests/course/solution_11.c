/* A right solution of docs/course/exercises/exercise_11.c, with which tests/test_course.h tests its check; with
   -DMISTAKE it has a mistake of which the check knows the reason. */
#include <math.h>
#include <stdint.h>
#include <string.h>

void linear_blocked(double *out, const double *x, const double *w, int N, int IC, int OC, int block);

void linear_blocked(double *out, const double *x, const double *w, int N, int IC, int OC, int block) {
    for (int begin = 0; begin < N; begin += block) {
#ifdef MISTAKE
        const int end = begin + block;
        if (end > N) break;
#else
        const int end = begin + block < N ? begin + block : N;
#endif
        for (int o = 0; o < OC; o++)
            for (int n = begin; n < end; n++) {
                out[n * OC + o] = 0;
                for (int c = 0; c < IC; c++) out[n * OC + o] += x[n * IC + c] * w[o * IC + c];
            }
    }
}
