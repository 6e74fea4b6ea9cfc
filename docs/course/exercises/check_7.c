/* check_7.c: checks exercise_7.c, the loss of one token and its gradient. */
#include "check.h"

double cross_entropy(double *dz, const double *z, int target, int V);

enum { V = 7, TARGET = 2 };
static double z[V];

static double twin(void) {
    double sum = 0;
    for (int v = 0; v < V; v++) sum += exp(z[v]);
    return log(sum) - z[TARGET];
}

int main(void) {
    double dz[V], want[V], got[1], loss[1], softmax[V];
    check_random(z, V, 2);
    check_unwritten(dz, V);
    loss[0] = twin(), got[0] = cross_entropy(dz, z, TARGET, V);
    if (got[0] == check_mark)
        check_wrong("cross_entropy() writes nothing to its result yet");
    else if (!check_same(got, loss, 1))
        check_wrong("cross_entropy() returns %.6g, expected %.6g", got[0], loss[0]);
    check_differences(want, z, V, twin);
    for (int v = 0; v < V; v++) softmax[v] = want[v] + (v == TARGET);
    if (!check_array("cross_entropy", "dz", dz, want, V) && check_same(dz, softmax, V))
        printf("    this is softmax(z); the loss also has the term -z[target]\n");
    for (int v = 0; v < V; v++) z[v] += 10000;
    got[0] = cross_entropy(dz, z, TARGET, V);
    if (got[0] != check_mark && !check_same(got, loss, 1))
        check_wrong(
            "cross_entropy(): with 10,000 added to all logits the loss becomes %g instead of %g: subtract the largest "
            "logit before exp",
            got[0], loss[0]);
    return check_finish(7);
}
