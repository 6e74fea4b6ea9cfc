/* A right solution of docs/course/exercises/exercise_10.c, with which tests/test_course.h tests its check; with
   -DMISTAKE it has a mistake of which the check knows the reason. */
#include <math.h>
#include <stdint.h>
#include <string.h>

float round_to_bf16(float x);

float round_to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
#ifndef MISTAKE
    bits += 0x7FFF + (bits >> 16 & 1);
#endif
    bits &= 0xFFFF0000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}
