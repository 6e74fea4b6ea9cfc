/* Exercise 10: rounding to bfloat16. Complete the function, then run

       make exercise-10 */
#include <math.h>

float round_to_bf16(float x);

/* The number nearest to x that bfloat16 can hold; if two are equally near, the one whose last bit is 0. bfloat16 is the upper
   half of a float32: the same exponent, and the upper 7 of its 23 bits after the point. x is finite. */
float round_to_bf16(float x) {
    /* your lines go here */
    (void)x;
    return (float)12345.678; /* says that nothing is written yet */
}
