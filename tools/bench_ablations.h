/* bench_ablations.h: measures what each option of docs/ablations.md costs: the time of a step of the demo model with the
   option, as a multiple of the time without it. Both models take turns, step by step, and the median of the turns'
   ratios counts, for the reasons that bench_steps.h gives. */
#ifndef TOOLS_BENCH_ABLATIONS_H
#define TOOLS_BENCH_ABLATIONS_H

#include "bench_steps.h"

/* The options of the model that is measured, and those of the one beside it. */
static const struct {
    const char *options, *beside;
} ablation_costs[] = {
    {"attn=laser", ""},
    {"attn=laser laser-shift=sequence", "attn=laser"},
    {"attn=laser laser-shift=none", "attn=laser"},
    {"attn=laser laser-shift=clamp", "attn=laser"},
    {"attn=laser laser-beta=0.5", "attn=laser"},
    {"attn=laser laser-beta=2", "attn=laser"},
    {"attn=laser qk-norm=yes", "attn=laser"},
    {"attn=laser attn-scale=dim", "attn=laser"},
    {"attn=laser attn-grad-scale=0.5", "attn=laser"},
    {"attn=diff", ""},
    {"attn=diff-laser", "attn=diff"},
    {"qk-norm=yes", ""},
    {"attn-scale=head", ""},
    {"attn-scale=dim", ""},
    {"attn-softcap=50", ""},
    {"attn-grad-scale=2", ""},
    {"attn-grad-scale=4", ""},
    {"activation=relu", ""},
    {"activation=relu2", ""},
    {"activation=swiglu", ""},
    {"logit-softcap=30", ""},
    {"z-loss=1e-4", ""},
    {"optimizer=lamb", ""},
    {"optimizer=muon", ""},
    {"norm=layernorm", ""},
    {"norm=crmsnorm", ""},
    {"norm-place=peri", ""},
    {"bias=mlp", ""},
    {"bias=all", ""},
    {"init-weights=xavier", ""},
    {"embed-scale=yes", ""},
    {"tie=no", ""},
    {"decay=all", ""},
};

static double ablation_step(Trainer *t) {
    const double begin = bench_seconds();
    step_micro(t), step_update(t);
    return bench_seconds() - begin;
}

/* Measures one row in one dtype: prints and reports the ratio. */
static void bench_ablation(const char *with, const char *beside, int dtype) {
    enum { TURNS = 9 };
    static Options options[2];
    OptionSet sets[2];
    Trainer t[2];
    double seconds[2][TURNS], ratio[TURNS];
    const int turns = bench.options.quick ? 3 : TURNS;
    for (int i = 0; i < 2; i++) {
        t[i] = step_trainer(&step_models[0], dtype, i ? with : beside, &options[i], &sets[i]);
        ablation_step(&t[i]); /* memory is touched for the first time, threads start */
    }
    for (int turn = 0; turn < turns; turn++) {
        for (int i = 0; i < 2; i++)
            seconds[(i + turn) % 2][turn] = ablation_step(&t[(i + turn) % 2]); /* the order alternates */
        ratio[turn] = seconds[1][turn] / seconds[0][turn];
    }
    qsort(ratio, (size_t)turns, sizeof *ratio, compare_doubles);
    printf("%-34s%-12s%6s%12.1f%9.3f   %.3f to %.3f\n", with, beside, dtype_names[dtype],
           1e3 * bench_good_time(seconds[1], turns), ratio[turns / 2], ratio[turns / 4],
           ratio[turns * 3 / 4]);
    fflush(stdout);
    bench_report(ratio[turns / 2], "ratio", 0, "ablation/%s/%s", with, dtype_names[dtype]);
    for (int i = 0; i < 2; i++) trainer_free(&t[i]);
}

static void bench_ablations(void) {
    for (size_t i = 0; i < sizeof ablation_costs / sizeof *ablation_costs; i++)
        for (int dtype = 0; dtype < 2; dtype++)
            if (bench_wanted("ablation/%s/%s", ablation_costs[i].options, dtype_names[dtype]))
                bench_ablation(ablation_costs[i].options, ablation_costs[i].beside, dtype);
}

#endif
