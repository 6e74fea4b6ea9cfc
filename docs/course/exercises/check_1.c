/* check_1.c: checks exercise_1.c, one step of byte-pair encoding. */
#include <string.h>

#include "check.h"

int bpe_merge(int *tokens, int count, int left, int right, int made);

/* Checks a text whose tokens are letters: with the pair (left, right) merged into a letter it is to become `want`. */
static void check_text(const char *text, char left, char right, char made, const char *want, const char *advice) {
    int tokens[32], count = (int)strlen(text);
    char got[32] = "";
    if (check_problems) return;
    for (int i = 0; i < count; i++) tokens[i] = text[i];
    count = bpe_merge(tokens, count, left, right, made);
    if (count < 0) {
        check_wrong("bpe_merge() writes nothing to tokens yet");
        return;
    }
    for (int i = 0; i < count && i < 31; i++) got[i] = (char)tokens[i];
    if (strcmp(got, want) == 0) return;
    check_wrong("bpe_merge(): '%s', with %c and %c merged to %c, becomes '%s', expected '%s'", text, left, right, made,
                got, want);
    if (*advice) printf("    %s\n", advice);
}

int main(void) {
    check_text("the cat sat", 'a', 't', 'X', "the cX sX", "");
    check_text("the cat sat", 'z', 't', 'X', "the cat sat", "");
    check_text("at", 'a', 't', 'X', "X", "");
    check_text("aaaaa", 'a', 'a', 'X', "XXa", "the second letter of a pair was used again as the first of the next");
    check_text("aXX", 'X', 'X', 'Y', "aY", "");
    return check_finish(1);
}
