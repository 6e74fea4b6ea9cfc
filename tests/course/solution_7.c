/* A right solution of docs/course/exercises/exercise_7.c, with which tests/test_course.h tests its check; with
   -DMISTAKE it has a mistake of which the check knows the reason. */
#include <math.h>
#include <stdint.h>
#include <string.h>

double cross_entropy(double *dz, const double *z, int target, int V);

double cross_entropy(double *dz, const double *z, int target, int V) {
    double largest = z[0], sum = 0;
    for (int v = 0; v < V; v++) largest = fmax(largest, z[v]);
    for (int v = 0; v < V; v++) sum += exp(z[v] - largest);
#ifdef MISTAKE
    for (int v = 0; v < V; v++) dz[v] = exp(z[v] - largest) / sum;
#else
    for (int v = 0; v < V; v++) dz[v] = exp(z[v] - largest) / sum - (v == target);
#endif
    return log(sum) + largest - z[target];
}
