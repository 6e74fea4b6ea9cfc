/* course_machine.h: the numbers and pictures of chapters 10 to 13 of docs/course, which are about the machines that
   compute: rounding, caches, a GPU, several processes. tools/course.c has the table of all topics. */
#ifndef TOOLS_COURSE_MACHINE_H
#define TOOLS_COURSE_MACHINE_H

#include <math.h>
#include <string.h>
#include "course_svg.h"

/* ---------------------------------------------------------------------------------------- 10. numbers ---- */

/* The error of the central difference of sin at 1 with step h, in float32 or in double. */
static double difference_error(double h, int in_double) {
    const double exact = cos(1);
    if (in_double) return fabs((sin(1 + h) - sin(1 - h)) / (2 * h) - exact);
    const float above = (float)sin((double)(1 + (float)h)), below = (float)sin((double)(1 - (float)h));
    return fabs((double)((above - below) / (2 * (float)h)) - exact);
}

static void numbers_numbers(void) {
    float sum = 0;
    double error = 0;
    for (int i = 0; i < 10000000; i++) sum += 0.1f;
    printf("0.1 added 10,000,000 times, in float32: %.1f\n\n", (double)sum);
    printf("h          error of (sin(1 + h) - sin(1 - h)) / 2h: float32     double\n");
    for (int power = 1; power <= 6; power++) {
        error = difference_error(pow(10, -power), 0);
        printf("1e-%d %50.1e %10.1e\n", power, error, difference_error(pow(10, -power), 1));
    }
}

static void numbers_picture(void) {
    chart_begin((Chart){70, 460, 300, {-6, 0}, {-12, 0}},
                "error of the derivative of sin at 1, by central differences");
    for (int power = 0; power <= 6; power++) {
        chart_row(-2 * power, grey, label("1e-%d", 2 * power));
        chart_column(power - 6, label("1e-%d", 6 - power));
    }
    for (int in_double = 0; in_double < 2; in_double++) {
        double name_y = 0;
        curve_begin(in_double ? red : blue);
        for (int i = 0; i <= 60; i++) {
            /* the mean of a few steps near h: the error of a single one is 0 by chance now and then */
            double log_h = -6 + i / 10.0, error = 0;
            for (int near = 0; near < 16; near++)
                error += difference_error(pow(10, log_h) * (1 + 0.01 * near), in_double) / 16;
            curve_point(log_h, fmax(log10(error + 1e-13), -12));
            if (i == 12) name_y = curve.last[1] - 10;
        }
        curve_end();
        svg_text(chart_x(-4.8), name_y, "middle", in_double ? "double" : "float32");
    }
    chart_caption("h");
}

/* ------------------------------------------------------------------------------------------ 11. speed ---- */

/* A first-level cache of 32 KiB: 64 sets of 8 lines of 64 bytes. Of a full set the line is replaced that was used the
   longest time ago. */
enum { CACHE_SETS = 64, CACHE_WAYS = 8, CACHE_LINE = 64 };
typedef struct {
    long line[CACHE_SETS][CACHE_WAYS], used[CACHE_SETS][CACHE_WAYS], clock, misses;
} Cache;

static void cache_read(Cache *cache, long address) {
    const long line = address / CACHE_LINE + 1; /* 0: an empty place */
    long *const lines = cache->line[line % CACHE_SETS], *const used = cache->used[line % CACHE_SETS];
    int place = 0;
    for (int way = 0; way < CACHE_WAYS; way++) {
        if (lines[way] == line) {
            used[way] = ++cache->clock;
            return;
        }
        if (used[way] < used[place]) place = way;
    }
    lines[place] = line, used[place] = ++cache->clock, cache->misses++;
}

enum { SPEED_N = 256, SPEED_C = 256, SPEED_OC = 256, SPEED_BLOCKS = 9 };

/* How many lines the product out (N, OC) = x (N, C) . w (OC, C)^T loads into the cache, when it goes through the tokens
   in blocks, and in each block through all rows of w. */
static long speed_misses(int block) {
    static Cache cache;
    memset(&cache, 0, sizeof cache);
    const long x = 0, w = (long)SPEED_N * SPEED_C * 4, row = (long)SPEED_C * 4;
    for (int begin = 0; begin < SPEED_N; begin += block)
        for (int o = 0; o < SPEED_OC; o++)
            for (int n = begin; n < begin + block; n++)
                for (long at = 0; at < row; at += CACHE_LINE) {
                    cache_read(&cache, x + n * row + at);
                    cache_read(&cache, w + o * row + at);
                }
    return cache.misses;
}

static double speed_intensity(int block) { /* operations for each byte that is loaded */
    return 2.0 * SPEED_N * SPEED_C * SPEED_OC / ((double)speed_misses(block) * CACHE_LINE);
}

static void speed_numbers(void) {
    printf("256 tokens times a matrix of 256 x 256; a cache of 32 KiB\n\n");
    printf("tokens of a block   lines loaded   operations for each byte loaded\n");
    for (int i = 0; i < SPEED_BLOCKS; i++)
        printf("%17d %14ld %33.1f\n", 1 << i, speed_misses(1 << i), speed_intensity(1 << i));
}

static void speed_picture(void) {
    chart_begin((Chart){70, 480, 220, {0, SPEED_BLOCKS - 1}, {0, 16}},
                "operations for each byte that is loaded into the cache");
    for (int tick = 0; tick <= 4; tick++) chart_row(4 * tick, grey, label("%d", 4 * tick));
    for (int i = 0; i < SPEED_BLOCKS; i++) chart_column(i, label("%d", 1 << i));
    curve_begin(blue);
    for (int i = 0; i < SPEED_BLOCKS; i++) curve_point(i, speed_intensity(1 << i));
    curve_end();
    chart_caption("tokens of a block");
}

/* ------------------------------------------------------------------------------------------- 12. a GPU ---- */

/* An H200, docs/gpu.md: the measured rates of bf16 products and of copies. */
static const double gpu_peak = 782e12, gpu_bandwidth = 4.1e12;

/* The operations for each byte that a product with bf16 operands loads, when a block of threads computes a tile of
   rows x columns of the output: for each k it loads rows + columns numbers and does rows * columns multiply-adds. */
static double gpu_intensity(int rows, int columns) { return 2.0 * rows * columns / (2.0 * (rows + columns)); }

static double gpu_share(int rows, int columns) { /* of the peak, if every load came from memory */
    return fmin(1, gpu_intensity(rows, columns) * gpu_bandwidth / gpu_peak);
}

static void gpu_numbers(void) {
    printf("an H200: %.0f TFLOP/s, %.1f TB/s, so at least %.0f operations a byte are needed\n\n",
           gpu_peak / 1e12, gpu_bandwidth / 1e12, gpu_peak / gpu_bandwidth);
    printf("tile        operations a byte   most of the peak   KiB for 64 columns of k\n");
    for (int size = 16; size <= 512; size *= 2)
        printf("%3d x %-3d %20.0f %16.0f %% %25.0f\n", size, size, gpu_intensity(size, size),
               100 * gpu_share(size, size), 2.0 * 64 * 2 * size / 1024);
}

static void gpu_picture(void) {
    chart_begin((Chart){60, 480, 220, {4, 9}, {0, 1}},
                "most of the peak that a product can reach, if every load comes from memory");
    for (int percent = 100; percent >= 0; percent -= 25)
        chart_row(percent / 100.0, grey, label("%d %%", percent));
    for (int power = 4; power <= 9; power++) chart_column(power, label("%d", 1 << power));
    curve_begin(blue);
    for (int i = 0; i <= 60; i++) {
        const double power = 4 + i / 12.0;
        const int size = (int)pow(2, power);
        curve_point(power, gpu_share(size, size));
    }
    curve_end();
    chart_caption("rows and columns of a tile");
}

/* ------------------------------------------------------------------------------------- 13. many ranks ---- */

static const double ranks_parameters = 301203456, ranks_tokens = 1048576; /* c4-301m, and a step of it */
static const double ranks_rate = 10000; /* tokens a second of a rank: assumed, as in docs/scaling.md */

/* Gigabytes of weights, gradients and moments on each of n ranks; with zero the moments are divided among them. */
static double ranks_memory(int n, int zero) {
    return ranks_parameters * (4 + 4 + 8.0 / (zero ? n : 1)) / 1e9;
}

/* The seconds that a rank needs to send (n - 1) / n of `bytes` through a link of so many gigabits, used to 80 %. */
static double ranks_exchange(int n, double bytes, double gigabits) {
    return bytes * (n - 1) / n / (0.8 * gigabits * 1e9 / 8);
}

/* The share of a step in which a rank computes. Gradients and weights are exchanged, 4 bytes for each parameter; with
   `hidden`, the gradients while the rank computes. */
static double ranks_efficiency(int n, double gigabits, int hidden) {
    const double compute = ranks_tokens / n / ranks_rate,
                 exchange = ranks_exchange(n, 4 * ranks_parameters, gigabits);
    return compute / (compute + (hidden ? 1 : 2) * exchange);
}

static void ranks_numbers(void) {
    printf("c4-301m, 1,048,576 tokens a step, 10,000 tokens/s a rank, 100 Gbit/s\n\n");
    printf("ranks   GB each, zero 0   zero 1   compute s   exchange s   efficiency   gradients hidden\n");
    for (int n = 1; n <= 256; n *= 2)
        printf("%5d %17.2f %8.2f %11.3f %12.3f %10.0f %% %16.0f %%\n", n, ranks_memory(n, 0),
               ranks_memory(n, 1), ranks_tokens / n / ranks_rate,
               2 * ranks_exchange(n, 4 * ranks_parameters, 100), 100 * ranks_efficiency(n, 100, 0),
               100 * ranks_efficiency(n, 100, 1));
}

static void ranks_picture(void) {
    static const double links[] = {10, 100, 400};
    chart_begin((Chart){60, 440, 220, {0, 10}, {0, 1}},
                "share of a step in which a rank computes (nothing hidden)");
    for (int percent = 100; percent >= 0; percent -= 25)
        chart_row(percent / 100.0, grey, label("%d %%", percent));
    for (int power = 0; power <= 10; power++) chart_column(power, label("%d", 1 << power));
    for (int link = 0; link < 3; link++) {
        curve_begin(blue);
        for (int power = 0; power <= 10; power++)
            curve_point(power, ranks_efficiency(1 << power, links[link], 0));
        curve_end_label(10, label("%.0f Gbit/s", links[link]));
    }
    chart_caption("ranks");
}

#endif
