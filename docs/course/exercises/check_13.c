/* check_13.c: checks exercise_13.c, a reduce-scatter. */
#include "check.h"

int slice_begin(int P, int n, int rank);
void reduce_scatter(double *x, int P, int n);

enum { MOST_RANKS = 5, MOST = 13 };

static void check_slices(int P, int n) {
    int smallest = P, largest = 0;
    for (int rank = 0; rank < n; rank++) {
        const int size = slice_begin(P, n, rank + 1) - slice_begin(P, n, rank);
        smallest = size < smallest ? size : smallest, largest = size > largest ? size : largest;
    }
    if (slice_begin(P, n, 0) < 0) {
        check_wrong("slice_begin() writes nothing to its result yet");
        return;
    }
    if (slice_begin(P, n, 0) == 0 && slice_begin(P, n, n) == P && largest - smallest <= 1 && smallest >= 0) return;
    check_wrong("slice_begin(): %d numbers among %d ranks: the slices reach from %d to %d and have %d to %d numbers", P,
                n, slice_begin(P, n, 0), slice_begin(P, n, n), smallest, largest);
    if (slice_begin(P, n, n) != P) printf("    P is not divisible by n: the last numbers belong to no slice\n");
}

static void check_sums(int P, int n) {
    double x[MOST_RANKS * MOST], got[MOST_RANKS * MOST], want[MOST_RANKS * MOST];
    check_random(x, n * P, 1);
    for (int i = 0; i < n * P; i++) got[i] = want[i] = x[i];
    for (int rank = 0; rank < n; rank++)
        for (int i = slice_begin(P, n, rank); i < slice_begin(P, n, rank + 1); i++) {
            want[rank * P + i] = x[i];
            for (int other = 1; other < n; other++) want[rank * P + i] += x[other * P + i];
        }
    reduce_scatter(got, P, n);
    if (n > 1 && check_same(got, x, n * P))
        check_wrong("reduce_scatter() writes nothing to x yet");
    else
        check_array("reduce_scatter", "x", got, want, n * P);
}

int main(void) {
    for (int n = 1; n <= MOST_RANKS; n++) {
        for (int P = n; P <= MOST && !check_problems; P++) check_slices(P, n);
        for (int P = n; P <= MOST && !check_problems; P++) check_sums(P, n);
    }
    return check_finish(13);
}
