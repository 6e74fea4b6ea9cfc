/* check_10.c: checks exercise_10.c, rounding to bfloat16. */
#include <string.h>
#include "check.h"

float round_to_bf16(float x);

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The naive twin compares the two neighbours of x in bfloat16. */
static float twin(float x) {
    const float below = float_of(bits_of(x) & 0xFFFF0000u), above = float_of((bits_of(x) & 0xFFFF0000u) + 0x10000u);
    const double to_below = fabs((double)x - (double)below), to_above = fabs((double)above - (double)x);
    if (to_below != to_above) return to_below < to_above ? below : above;
    return bits_of(below) & 0x10000u ? above : below;
}

int main(void) {
    static const float numbers[] = {1,           0,           -1,    3.1415927f, 0.1f,    -0.3f,
                                    1.00390625f, 1.01171875f, 65535, 1e-30f,     -7.7e20f};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && !check_problems; i++) {
        const float x = numbers[i], got = round_to_bf16(x), want = twin(x);
        if (got == want) continue;
        if (got == (float)check_mark)
            check_wrong("round_to_bf16() writes nothing to its result yet");
        else
            check_wrong("round_to_bf16(%.9g) is %.9g, expected %.9g", (double)x, (double)got, (double)want);
        if (bits_of(got) == (bits_of(x) & 0xFFFF0000u))
            printf("    the lower half was cut off: this always rounds towards 0\n");
    }
    return check_finish(10);
}
