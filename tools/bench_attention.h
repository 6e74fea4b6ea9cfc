/* bench_attention.h: measures standard and LASER attention, forward and backward, at several lengths of the sequence. */
#ifndef TOOLS_BENCH_ATTENTION_H
#define TOOLS_BENCH_ATTENTION_H

#include "bench_measure.h"

typedef struct {
    LaserShape shape;
    float *qkv, *dqkv; /* (B, T, 3, H, D) */
    float *out[2], *lse[2],
        *dout; /* (B, T, H, D), (B, H, T), (B, T, H, D); out and lse are those of standard and LASER */
} Attention;

static void attention_run(Attention *a, LaserKind kind, bool backward) {
    const int64_t width = (int64_t)a->shape.heads * a->shape.head_dim;
    const float *q = a->qkv, *k = a->qkv + width, *v = a->qkv + 2 * width;
    a->shape.kind = kind;
    if (backward)
        laser_backward(a->dqkv, a->dqkv + width, a->dqkv + 2 * width, a->dout, q, k, v, a->out[kind],
                       a->lse[kind], &a->shape);
    else
        laser_forward(a->out[kind], a->lse[kind], q, k, v, &a->shape);
}
static void run_standard_forward(void *context) { attention_run(context, LASER_KIND_STANDARD, false); }
static void run_laser_forward(void *context) { attention_run(context, LASER_KIND_LASER, false); }
static void run_standard_backward(void *context) { attention_run(context, LASER_KIND_STANDARD, true); }
static void run_laser_backward(void *context) { attention_run(context, LASER_KIND_LASER, true); }

/* Measures and prints one row: one length, one dtype. */
static void bench_attention_at(int T, bool bf16) {
    const int H = 8, D = 128, B = T >= 2048 ? 1 : 2048 / T;
    const int64_t tokens = (int64_t)B * T, width = H * D;
    Attention a = {.shape = {.batch = B,
                             .seq_len = T,
                             .heads = H,
                             .head_dim = D,
                             .qkv_strides = {3 * width * T, 3 * width, D},
                             .out_strides = {width * T, width, D},
                             .precision = bf16 ? LASER_BF16 : LASER_FP32}};
    a.qkv = random_floats(3 * tokens * width, NULL), a.dqkv = random_floats(3 * tokens * width, NULL);
    a.dout = random_floats(tokens * width, NULL);
    for (int kind = 0; kind < 2; kind++)
        a.out[kind] = random_floats(tokens * width, NULL), a.lse[kind] = random_floats(tokens * H, NULL);
    Contender contenders[] = {{"standard", run_standard_forward, false, 0},
                              {"laser", run_laser_forward, false, 0},
                              {"standard", run_standard_backward, false, 0},
                              {"laser", run_laser_backward, false, 0}};
    const double peak = bench_turns(contenders, 4, &a, bf16 ? RATE_BF16 : RATE_FP32, 1.5);
    printf("%-8s%6d ", bf16 ? "bf16" : "float32", T);
    for (
        int i = 0; i < 4;
        i++) { /* for each head two products of T x T x D in forward, five in backward; causal attention needs half of each */
        const bool backward = i >= 2;
        const double operations = (backward ? 5.0 : 2.0) * (double)tokens * T * (double)width;
        const double rate = operations / contenders[i].best / 1e9;
        const char *direction = backward ? "attention_backward" : "attention";
        printf("%9.0f %4.1f %%", rate, 100 * rate / peak);
        bench_report(rate, "GFLOP/s", rate / peak, "%s/%s/%d/%s", direction, dtype_names[bf16], T,
                     contenders[i].name);
        if (i % 2 == 0) continue;
        const double ratio = contenders[i].best / contenders[i - 1].best;
        printf("%8.3f", ratio);
        bench_report(ratio, "ratio", 0, "laser_over_standard/%s/%s/%d", direction, dtype_names[bf16], T);
    }
    printf("\n");
    fflush(stdout);
    free(a.qkv), free(a.dqkv), free(a.dout);
    for (int kind = 0; kind < 2; kind++) free(a.out[kind]), free(a.lse[kind]);
}

static void bench_attention(void) {
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (int T = 256; T <= (bench.options.quick ? 1024 : 8192); T *= 2)
            if (bench_wanted("attention/%s/%d/", dtype_names[bf16], T)) bench_attention_at(T, bf16);
}

#endif
