/* A right solution of docs/course/exercises/exercise_1.c, with which tests/test_course.h tests its check; with
   -DMISTAKE it has a mistake of which the check knows the reason. */
#include <math.h>
#include <stdint.h>
#include <string.h>

int bpe_merge(int *tokens, int count, int left, int right, int made);

int bpe_merge(int *tokens, int count, int left, int right, int made) {
    int kept = 0;
    for (int i = 0; i < count; i++) {
        if (i + 1 < count && tokens[i] == left && tokens[i + 1] == right) {
            tokens[kept++] = made;
#ifdef MISTAKE
            if (i + 2 < count && tokens[i + 2] == right) continue;
#endif
            i++;
        } else {
            tokens[kept++] = tokens[i];
        }
    }
    return kept;
}
