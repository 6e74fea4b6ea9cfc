/* check_attention.c: checks every kind of attention in gpt/math/attention.h against finite differences, and more:
   attention_checks.h says what. It is a program of its own because it compiles in a few seconds, so it is what to run
   while writing a new kind (docs/add-an-attention.md):

       cc -O1 -fopenmp tests/check_attention.c -o check_attention -lm && ./check_attention

   A line for each kind; exit code 1 when one of them is wrong. */
#define _GNU_SOURCE
#define LASER_IMPLEMENTATION
#include "../laser.h"
#include "attention_checks.h"

int main(void) {
    char text[ATTENTION_CHECK_TEXT];
    bool right = true;
    for (int kind = 0; kind < ATTENTION_KIND_COUNT; kind++) {
        if (!attention_check((AttentionKind)kind, text)) right = false;
        printf("%s\n", text);
    }
    return right ? 0 : 1;
}
