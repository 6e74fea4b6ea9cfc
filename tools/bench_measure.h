/* bench_measure.h: how tools/bench.c measures and reports.

   bench_wanted(format, ...)    whether a row of this name was asked for (--filter); its part's title goes first
   bench_report(value, unit, share, format, ...)   a figure for the JSON file; share 0: none
   bench_burst(rate), bench_peak(rate)   a few milliseconds of nothing but the machine's fastest instructions; the
                                         GFLOP/s of the bursts since bench_new_peak(rate), of the latest 64 at most
   bench_turns(contenders, count, context, rate, seconds)   contenders in turns, a burst before each */
#ifndef TOOLS_BENCH_MEASURE_H
#define TOOLS_BENCH_MEASURE_H

#include "../gpt/base/filter.h"

typedef struct {
    const char *json, *filter;
    int64_t threads, batch;
    int clock; /* 0: wall, 1: cpu */
    bool quick, append;
} BenchOptions;

typedef enum { RATE_FP32, RATE_BF16, RATES } Rate;
enum { BURSTS = 64 };

static struct {
    BenchOptions options;
    cJSON *list;
    const char *title, *head;     /* of the part that runs; NULL once printed */
    double bursts[RATES][BURSTS]; /* the latest seconds per operation */
    int burst_count[RATES];
} bench;

static const char *const dtype_names[] = {"fp32", "bf16"};

/* ---- names ---- */

/* Whether --filter takes the name. */
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
    const char *name; /* NULL: absent here */
    void (*run)(void *context);
    bool lingers; /* its threads stay awake after a call */
    double best;  /* seconds of its good turns */
} Contender;

static double bench_seconds(void) {
    return bench.options.clock == 0 ? seconds_now() : processor_seconds_now() / threads_count();
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The seconds that count: the least on the wall; the lower quartile of processor times, since the kernel's account of
   them errs both ways. Sorts them. */
static double bench_good_time(double *times, int count) {
    qsort(times, (size_t)count, sizeof *times, compare_doubles);
    return times[bench.options.clock == 0 ? 0 : count / 4];
}

static void bench_burst(Rate rate) {
    double operations = 0, start = bench_seconds();
    float sink = 0;
#pragma omp parallel reduction(+ : operations, sink)
    operations += peak_loop(rate == RATE_BF16, 1500000, &sink);
    if (sink != 0)
        bench.bursts[rate][bench.burst_count[rate]++ % BURSTS] = (bench_seconds() - start) / operations;
}

static void bench_new_peak(Rate rate) { bench.burst_count[rate] = 0; }

static double bench_peak(Rate rate) {
    double sorted[BURSTS];
    const int count = bench.burst_count[rate] < BURSTS ? bench.burst_count[rate] : BURSTS;
    memcpy(sorted, bench.bursts[rate], sizeof sorted);
    return 1e-9 / bench_good_time(sorted, count);
}

/* Threads of other libraries wait for work without sleeping, some for tens of milliseconds. */
static void bench_rest(bool lingers) {
    struct timespec pause = {0, lingers ? 30000000 : 2000000};
    nanosleep(&pause, NULL);
}

/* All contenders in turns until `seconds` are spent; returns the peak in GFLOP/s. */
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

/* n floats of mixed sign and size, and the same in bf16 where asked for; in huge pages, as the trainer's are. */
static float *random_floats(int64_t n, uint16_t **bf16) {
    float *x = memory_allocate((size_t)n * sizeof *x);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) x[i] = rng_uniform(1, RNG_STREAM_TEST, (uint64_t)i) - 0.5f;
    if (bf16) array_write(array_of_bf16(*bf16 = memory_allocate((size_t)n * sizeof **bf16)), 0, x, n);
    return x;
}

#endif
