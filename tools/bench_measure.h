/* bench_measure.h: how tools/bench.c measures and reports.

   Contenders are what one row compares, for example the same product by two libraries. A burst is a few milliseconds of
   nothing but the machine's fastest instructions; bursts give the peak.

   bench_wanted(format, ...)    whether --filter chooses the row of this name
   bench_report(value, unit, share, format, ...)   a result of this name for the JSON file
   bench_burst(rate)            one burst
   bench_peak(rate)             the GFLOP/s of the bursts since bench_new_peak(rate), of the last 64 at most
   bench_turns(contenders, count, context, rate, seconds)
                                measures contenders in turns, with a burst before each */
#ifndef TOOLS_BENCH_MEASURE_H
#define TOOLS_BENCH_MEASURE_H

#include "../gpt/base/filter.h"

typedef struct {
    const char *json, *filter;
    int64_t threads, batch;
    int clock; /* 0: elapsed time, 1: processor time */
    bool quick, append;
} BenchOptions;

typedef enum { RATE_FP32, RATE_BF16, RATES } Rate;
enum { BURSTS = 64 };

static struct {
    BenchOptions options;
    cJSON *list;
    const char *title, *head;     /* of the part that runs; title is NULL once both are printed */
    double bursts[RATES][BURSTS]; /* the latest seconds per operation */
    int burst_count[RATES];
} bench;

static const char *const dtype_names[] = {"fp32", "bf16"};

/* ---- names ---- */

/* Whether --filter chooses the name. The first row of a part that is chosen prints the part's title and head. */
__attribute__((format(printf, 1, 2))) static bool bench_wanted(const char *format, ...) {
    char name[128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    const bool found = filter_takes(bench.options.filter, name);
    if (found && bench.title) printf("\n%s\n%s", bench.title, bench.head), bench.title = NULL;
    return found;
}

/* Adds a result to the list for the JSON file. share 0: it has none. */
__attribute__((format(printf, 4, 5))) static void bench_report(double value, const char *unit, double share,
                                                               const char *format, ...) {
    char name[128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "name", name);
    cJSON_AddNumberToObject(item, "value", value);
    cJSON_AddStringToObject(item, "unit", unit);
    if (share > 0) cJSON_AddNumberToObject(item, "share_of_peak", share);
    cJSON_AddItemToArray(bench.list, item);
}

/* ---- time ---- */

typedef struct {
    const char *name; /* NULL: this contender is not measured */
    void (*run)(void *context);
    bool lingers; /* its threads do not sleep at once after a call, and would slow down the next one */
    double best;  /* seconds, by bench_good_time */
} Contender;

/* The time by the clock that --clock chooses. */
static double bench_seconds(void) {
    return bench.options.clock == 0 ? seconds_now() : processor_seconds_now() / threads_count();
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The time that counts among those of several turns: the least elapsed time; or the lower quartile of processor times,
   because the kernel measures these too high or too low. Sorts the times. */
static double bench_good_time(double *times, int count) {
    qsort(times, (size_t)count, sizeof *times, compare_doubles);
    return times[bench.options.clock == 0 ? 0 : count / 4];
}

/* Computes for a few milliseconds with the machine's fastest instructions, and records the seconds per operation. */
static void bench_burst(Rate rate) {
    double operations = 0, start = bench_seconds();
    float sink = 0;
#pragma omp parallel reduction(+ : operations, sink)
    operations += peak_loop(rate == RATE_BF16, 1500000, &sink);
    if (sink != 0)
        bench.bursts[rate][bench.burst_count[rate]++ % BURSTS] = (bench_seconds() - start) / operations;
}

static void bench_new_peak(Rate rate) { bench.burst_count[rate] = 0; }

/* GFLOP/s */
static double bench_peak(Rate rate) {
    double sorted[BURSTS];
    const int count = bench.burst_count[rate] < BURSTS ? bench.burst_count[rate] : BURSTS;
    memcpy(sorted, bench.bursts[rate], sizeof sorted);
    return 1e-9 / bench_good_time(sorted, count);
}

/* Waits until the threads of the last call sleep. Those of other libraries wait for work without sleeping, some of them
   for tens of milliseconds. */
static void bench_rest(bool lingers) {
    struct timespec pause = {0, lingers ? 30000000 : 2000000};
    nanosleep(&pause, NULL);
}

/* Runs all contenders in turns until `seconds` are spent, each after a burst, and sets their best times. Returns the peak in
   GFLOP/s that the bursts reached. */
static double bench_turns(Contender *contenders, int count, void *context, Rate rate, double seconds) {
    enum { TURNS = 40, CONTENDERS = 4 };
    double times[CONTENDERS][TURNS], start = seconds_now();
    const int least = bench.options.quick ? 2 : 5;
    int turn = 0;
    if (bench.options.quick) seconds /= 4;
    bench_new_peak(rate);
    for (; turn < least || (turn < TURNS && seconds_now() - start < seconds); turn++)
        for (int i = 0; i < count; i++) {
            if (!contenders[i].name) continue;
            bench_burst(rate);
            const double begin = bench_seconds();
            contenders[i].run(context);
            times[i][turn] = bench_seconds() - begin;
            bench_rest(contenders[i].lingers);
        }
    for (int i = 0; i < count; i++)
        if (contenders[i].name) contenders[i].best = bench_good_time(times[i], turn);
    return bench_peak(rate);
}

/* ---- memory ---- */

/* n floats from -0.5 to 0.5 and, where bf16 is not NULL, the same rounded to bf16. Both are in huge pages, as in the
   trainer. */
static float *random_floats(int64_t n, uint16_t **bf16) {
    float *x = memory_allocate((size_t)n * sizeof *x);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) x[i] = rng_uniform(1, RNG_STREAM_TEST, (uint64_t)i) - 0.5f;
    if (bf16) array_write(array_of_bf16(*bf16 = memory_allocate((size_t)n * sizeof **bf16)), 0, x, n);
    return x;
}

#endif
