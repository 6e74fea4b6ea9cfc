/* bench_steps.h: measures whole training steps: micro-steps of forward, loss and backward, then the norm of the gradient
   and AdamW.

   Standard and LASER attention take turns, micro-step by micro-step, so that changes of the machine affect both alike, and
   each turn also times an update. The time of a step is computed: the best time of a micro-step, times the number of
   micro-steps that have the tokens of the table below, plus the time of one update. LASER / standard is the median of the
   turns' ratios, because what disturbs a machine usually lasts for seconds and affects both micro-steps of a turn. The
   weights are initial ones and the tokens are random; the time depends on neither. */
#ifndef TOOLS_BENCH_STEPS_H
#define TOOLS_BENCH_STEPS_H

#include <ctype.h>
#include "bench_measure.h"

typedef struct {
    const char *name;
    int vocab_size, batch; /* V, and B: sequences of a micro-step */
    int64_t step_tokens;
} StepModel;

static const StepModel step_models[] = {
    {"demo", 2048, 16, 4096},       /* as `make demo` trains: an update after every micro-step */
    {"gpt2-124m", 50257, 1, 65536}, /* about a tenth of GPT-3's 0.5M tokens, which suits a few cores */
    {"c4-301m", 32000, 1, 65536},
};

/* A trainer with weights and activations, and with random tokens instead of data. more: further options of it, as in
   "attn=laser bias=all". */
static Trainer step_trainer(const StepModel *model, int dtype, const char *more, Options *options,
                            OptionSet *set) {
    char text[32];
    *set = options_begin("bench", "", train_options, TRAIN_OPTION_COUNT, options, train_presets);
    const int batch = bench.options.batch ? (int)bench.options.batch : model->batch;
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"batch", batch}, {"vocab-size", model->vocab_size}, {"total-batch", 0}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(text, sizeof text, "%lld", (long long)numbers[i].value);
        options_set(set, numbers[i].name, text, OPTION_FROM_COMMAND, "");
    }
    options_set(set, "dtype", dtype_names[dtype], OPTION_FROM_COMMAND, "");
    options_set_words(set, more, OPTION_FROM_COMMAND, "");
    options_set(set, "dry-run", "yes", OPTION_FROM_COMMAND, ""); /* so that it asks for no data */
    options_apply_preset(set, model->name);
    Trainer t = trainer_plan(options, set);
    trainer_allocate(&t);
    model_init(&t.model, 1);
    memset(t.optimizer.m, 0, t.model.weights.count * sizeof(float));
    memset(t.optimizer.v, 0, t.model.weights.count * sizeof(float));
    const uint64_t N = (uint64_t)(t.model.batch * t.model.config.seq_len), V = (uint64_t)model->vocab_size;
    for (uint64_t i = 0; i < N; i++) {
        t.inputs[i] = (int32_t)(rng_bits(1, RNG_STREAM_TEST, i) % V);
        t.targets[i] = (int32_t)(rng_bits(2, RNG_STREAM_TEST, i) % V);
    }
    return t;
}

/* One micro-step: forward, loss and backward. */
static void step_micro(Trainer *t) {
    const int B = t->model.batch, T = t->model.config.seq_len;
    model_forward(&t->model, t->inputs, B, T);
    model_loss(&t->model, t->targets, (int64_t)B * T, 1.0f / ((float)B * (float)T));
    model_backward(&t->model, t->inputs, B, T);
}

/* The rest of a step: the norm of the gradient, clipping to 1, AdamW. */
static void step_update(Trainer *t) {
    Weights *gradients = &t->model.gradients;
    const double norm = sqrt(gradient_squares(gradients->memory, gradients->count));
    update_weights(t, 1e-5, norm > 1 ? 1 / norm : 1);
    t->run.step++;
    memset(gradients->memory, 0, gradients->count * sizeof(float));
}

#define STEP_PART_NAME(part, text) #part,
static const char *const step_part_names[PROFILE_PARTS] = {PROFILE_EACH(STEP_PART_NAME)};

enum { STEP_TURNS = 40, STEP_TURNS_LEAST = 7 };
static const AttentionKind step_kinds[2] = {ATTENTION_STANDARD,
                                            ATTENTION_LASER}; /* index 0 and 1 in the arrays below */

typedef struct {
    double micro[2], update;        /* seconds: standard, LASER */
    double ratio;                   /* of LASER's micro-step over standard's */
    double parts[2][PROFILE_PARTS]; /* seconds of each part of the fastest micro-step */
    double peak;                    /* GFLOP/s of the bursts before the micro-steps */
} StepTimes;

/* Measures for so many seconds. The order within a turn alternates: standard, LASER, update, LASER, standard, update, ...,
   so that it is not always the same kind that follows the update. */
static StepTimes step_measure(Trainer *t, Rate rate, double seconds) {
    double micro[2][STEP_TURNS], ratio[STEP_TURNS], update[STEP_TURNS], begin;
    const int least = bench.options.quick ? 2 : STEP_TURNS_LEAST;
    int turn = 0;
    StepTimes times = {0};
    step_micro(t), step_update(t); /* not timed: memory is touched for the first time, threads start */
    bench_new_peak(rate);
    const double start = seconds_now();
    for (; turn < least || (turn < STEP_TURNS && seconds_now() - start < seconds); turn++) {
        for (int i = 0; i < 2; i++) {
            const int kind = (i + turn) % 2;
            t->model.config.attn = step_kinds[kind];
            for (int repeat = 0; repeat < 3; repeat++) bench_burst(rate);
            profile_reset();
            begin = bench_seconds();
            step_micro(t);
            micro[kind][turn] = bench_seconds() - begin;
            profile(PROFILE_OTHER);
            if (turn == 0 || micro[kind][turn] < times.micro[kind]) { /* the fastest so far */
                times.micro[kind] = micro[kind][turn];
                memcpy(times.parts[kind], profile_state.seconds, sizeof times.parts[kind]);
            }
        }
        ratio[turn] = micro[1][turn] / micro[0][turn];
        begin = bench_seconds();
        step_update(t);
        update[turn] = bench_seconds() - begin;
    }
    times.peak = bench_peak(rate);
    for (int kind = 0; kind < 2; kind++) times.micro[kind] = bench_good_time(micro[kind], turn);
    times.update = bench_good_time(update, turn);
    qsort(ratio, (size_t)turn, sizeof *ratio, compare_doubles);
    times.ratio = (ratio[turn / 2] + ratio[(turn - 1) / 2]) / 2;
    return times;
}

/* Prints and reports for each part of a micro-step its milliseconds, its share of the time, and its share of the peak. */
static void step_report_parts(const char *name, const Model *model, const StepTimes *times) {
    for (int i = 0; i < PROFILE_PARTS; i++) {
        char part[32];
        snprintf(part, sizeof part, "%s", step_part_names[i]);
        for (char *letter = part; *letter; letter++) *letter = (char)tolower((unsigned char)*letter);
        if (times->parts[0][i] < 1e-3 * times->micro[0]) continue;
        printf("  %-28s", profile_names[i]);
        for (int kind = 0; kind < 2; kind++) {
            double all = 0;
            for (int j = 0; j < PROFILE_PARTS; j++) all += times->parts[kind][j];
            const double seconds = times->parts[kind][i], share = seconds / all;
            const double of_peak = model_part_operations(model, i) / (seconds * 1e9 * times->peak);
            printf("%10.1f ms %5.1f %%", 1e3 * seconds, 100 * share);
            of_peak > 0 ? printf("%6.1f %%", 100 * of_peak) : printf("%8s", "");
            bench_report(share, "share of time", of_peak, "time/%s/%s/%s", name,
                         attention_name(step_kinds[kind]), part);
        }
        printf("\n");
    }
}

/* Measures and prints one row: one model, one dtype. */
static void bench_step(const StepModel *model, int dtype) {
    static Options options;
    OptionSet set;
    char name[64];
    Trainer t = step_trainer(model, dtype, "", &options, &set);
    const int64_t N = (int64_t)t.model.batch * t.model.config.seq_len;
    const double micro_steps = fmax(1, (double)model->step_tokens / (double)N);
    const StepTimes times = step_measure(&t, dtype ? RATE_BF16 : RATE_FP32, bench.options.quick ? 5 : 30);
    double step[2], ratio;
    snprintf(name, sizeof name, "%s/%s", model->name, dtype_names[dtype]);
    printf("%-16s%3d x%5d x%4.0f", name, t.model.batch, t.model.config.seq_len, micro_steps);
    for (int kind = 0; kind < 2; kind++) {
        step[kind] = micro_steps * times.micro[kind] + times.update;
        const double rate = micro_steps * (double)N / step[kind];
        const double share = rate * model_flops_per_token(&t.model) / (1e9 * times.peak);
        printf("%12.1f %5.1f %%", rate, 100 * share);
        bench_report(rate, "tokens/s", share, "step/%s/%s", name, attention_name(step_kinds[kind]));
        bench_report(times.micro[kind], "s", 0, "micro/%s/%s", name, attention_name(step_kinds[kind]));
    }
    ratio = (micro_steps * times.micro[0] * times.ratio + times.update) / step[0];
    printf("%9.3f%9.1f%9.1f\n", ratio, 1e3 * times.micro[0], 1e3 * times.update);
    if (bench.options.clock == 0)
        step_report_parts(name, &t.model, &times); /* the parts are measured in elapsed time */
    fflush(stdout);
    bench_report(ratio, "ratio", 0, "laser_over_standard/%s", name);
    bench_report(times.update, "s", 0, "update/%s", name);
    trainer_free(&t);
}

static void bench_steps(void) {
    for (size_t i = 0; i < sizeof step_models / sizeof *step_models; i++)
        for (int dtype = 0; dtype < 2; dtype++)
            if (bench_wanted("step/%s/%s", step_models[i].name, dtype_names[dtype]))
                bench_step(&step_models[i], dtype);
}

#endif
