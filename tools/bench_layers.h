/* bench_layers.h: measures the layers that do little arithmetic on much memory, as shares of the triad's rate.

   The bytes that are counted are the fewest with which the layer can be computed: each input is read once, each output
   written once. Every call works on a piece of memory that no call has touched since a gigabyte of other memory was used, so
   the data come from memory and not from a cache. In a training step some of the data are still in a cache, and a layer may
   be faster there. The sizes are those of c4-301m with 8 sequences. */
#ifndef TOOLS_BENCH_LAYERS_H
#define TOOLS_BENCH_LAYERS_H

#include "bench_measure.h"

enum {
    LAYER_N = 8192,
    LAYER_T = 1024,
    LAYER_C = 1024,
    LAYER_F = 2048,
    LAYER_H = 8,
    LAYER_D = 128,
    LAYER_V = 32000
};

typedef struct {
    float *pool; /* (size) of which layer_piece gives one piece after the other */
    int64_t size, at;
    float *weight, *rstd, *partial,
        *losses;     /* (C), (N), (N / NORM_CHUNK, C), (N): small, so they stay in a cache */
    float *turn;     /* (T, D) rope's cosines and sines */
    int32_t *tokens; /* (N) */
    double distinct; /* how many different tokens there are */
    double bytes;    /* what the latest call had to read and write */
} Layers;

/* The next piece of the pool, (floats). */
static float *layer_piece(Layers *l, int64_t floats) {
    if (l->at + floats > l->size) l->at = 0;
    l->at += floats;
    return l->pool + l->at - floats;
}

static void layer_triad(void *context) {
    Layers *l = context;
    const int64_t n = l->size / 3;
    float *a = l->pool, *b = a + n, *c = b + n;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) a[i] = b[i] + 0.125f * c[i];
}

static void layer_rmsnorm_forward(void *context) {
    Layers *l = context;
    const int64_t NC = (int64_t)LAYER_N * LAYER_C;
    float *out = layer_piece(l, NC), *x = layer_piece(l, NC);
    norm_forward(array_of_floats(out), l->rstd, x, l->weight, NULL, NORM_RMSNORM, 1e-6f, LAYER_N, LAYER_C);
    l->bytes = 2.0 * 4 * (double)NC;
}

static void layer_rmsnorm_backward(void *context) {
    Layers *l = context;
    const int64_t NC = (int64_t)LAYER_N * LAYER_C;
    float *dx = layer_piece(l, NC), *dout = layer_piece(l, NC), *x = layer_piece(l, NC);
    norm_backward(dx, l->losses, NULL, l->partial, dout, x, l->rstd, l->weight, NORM_RMSNORM, LAYER_N,
                  LAYER_C);
    l->bytes = 4.0 * 4 * (double)NC; /* dx is read and written */
}

static void layer_rope(void *context) {
    Layers *l = context;
    const int64_t A = (int64_t)LAYER_H * LAYER_D;
    float *qkv = layer_piece(l, LAYER_N * 3 * A);
    rope_rotate(array_of_floats(qkv), qkv, l->turn, 1, LAYER_N, LAYER_T, LAYER_H, LAYER_D);
    l->bytes = 2.0 * 4 * LAYER_N * 2 * (double)A; /* q and k, read and written */
}

static void layer_activation_forward(void *context) {
    Layers *l = context;
    const int64_t NF = (int64_t)LAYER_N * LAYER_F;
    float *hidden = layer_piece(l, NF), *up = layer_piece(l, NF);
    activation_forward(array_of_floats(hidden), array_of_floats(up), LAYER_N, LAYER_F, ACTIVATION_GELU);
    l->bytes = 2.0 * 4 * (double)NF;
}

static void layer_activation_backward(void *context) {
    Layers *l = context;
    const int64_t NF = (int64_t)LAYER_N * LAYER_F;
    float *d_up = layer_piece(l, NF), *d_hidden = layer_piece(l, NF), *up = layer_piece(l, NF);
    ActivationBackward backward = {array_of_floats(d_up), array_of_floats(layer_piece(l, NF)),
                                   array_of_floats(up), LAYER_F, ACTIVATION_GELU};
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < LAYER_N; n += 32)
        for (int64_t f = 0; f < LAYER_F; f += 32)
            activation_backward(&backward, &(MatmulTile){d_hidden + n * LAYER_F + f, LAYER_F, n, f, 32, 32});
    l->bytes = 4.0 * 4 * (double)NF;
}

static void layer_embedding_forward(void *context) {
    Layers *l = context;
    float *out = layer_piece(l, (int64_t)LAYER_N * LAYER_C),
          *embed = layer_piece(l, (int64_t)LAYER_V * LAYER_C);
    embedding_forward(out, l->tokens, embed, 1, NULL, LAYER_N, LAYER_T, LAYER_C);
    l->bytes = 4.0 * LAYER_C * (LAYER_N + l->distinct);
}

static void layer_embedding_backward(void *context) {
    Layers *l = context;
    float *dembed = layer_piece(l, (int64_t)LAYER_V * LAYER_C),
          *dout = layer_piece(l, (int64_t)LAYER_N * LAYER_C);
    embedding_backward(dembed, NULL, dout, l->tokens, 1, LAYER_N, LAYER_T, LAYER_C);
    l->bytes = 4.0 * LAYER_C * (LAYER_N + 2 * l->distinct);
}

static void layer_cross_entropy(void *context) {
    Layers *l = context;
    enum { ROWS = LAYER_N / 32 };
    float *logits = layer_piece(l, (int64_t)ROWS * LAYER_V);
    cross_entropy_forward_backward(l->losses, array_of_floats(logits), logits, NULL, l->tokens, 1.0f / ROWS,
                                   0, ROWS, LAYER_V);
    l->bytes = 2.0 * 4 * ROWS * LAYER_V;
}

static void layer_gradient_norm(void *context) {
    Layers *l = context;
    const int64_t n = 1 << 26;
    l->losses[0] = (float)sqrt(gradient_squares(layer_piece(l, n), (size_t)n));
    l->bytes = 4.0 * (double)n;
}

static void layer_adamw(void *context) {
    Layers *l = context;
    const int64_t n = 1 << 26;
    float *parameter = layer_piece(l, n), *gradient = layer_piece(l, n);
    float *mean = layer_piece(l, n), *square = layer_piece(l, n);
    const AdamWSettings settings = {.lr = 1e-4,
                                    .beta1 = 0.9,
                                    .beta2 = 0.99,
                                    .eps = 1e-6,
                                    .weight_decay = 0.1,
                                    .gradient_scale = 1,
                                    .step = 10};
    adamw_update(parameter, gradient, mean, square, (size_t)n, &settings);
    l->bytes = 7.0 * 4 * (double)n; /* four read, three written */
}

static const struct {
    const char *name;
    void (*run)(void *context);
} layer_rows[] = {
    {"rmsnorm_forward", layer_rmsnorm_forward},
    {"rmsnorm_backward", layer_rmsnorm_backward},
    {"rope", layer_rope},
    {"activation_forward", layer_activation_forward},
    {"activation_backward", layer_activation_backward},
    {"embedding_forward", layer_embedding_forward},
    {"embedding_backward", layer_embedding_backward},
    {"cross_entropy", layer_cross_entropy},
    {"gradient_norm", layer_gradient_norm},
    {"adamw", layer_adamw},
};

static Layers layers_create(void) {
    const int64_t chunks = (LAYER_N + NORM_CHUNK - 1) / NORM_CHUNK;
    Layers l = {.size = (int64_t)1 << 28};
    l.pool = memory_allocate((size_t)l.size * sizeof *l.pool);
    l.weight = random_floats(LAYER_C, NULL), l.rstd = random_floats(LAYER_N, NULL);
    l.partial = random_floats(chunks * LAYER_C, NULL), l.losses = random_floats(LAYER_N, NULL);
    l.turn = random_floats((int64_t)LAYER_T * LAYER_D, NULL);
    l.tokens = check_calloc(LAYER_N * sizeof *l.tokens);
    unsigned char seen[LAYER_V] = {0};
    for (uint64_t i = 0; i < LAYER_N; i++) {
        l.tokens[i] = (int32_t)(rng_bits(1, RNG_STREAM_TEST, i) % LAYER_V);
        l.distinct += !seen[l.tokens[i]], seen[l.tokens[i]] = 1;
    }
    return l;
}

static void layers_free(Layers *l) {
    void *pieces[] = {l->pool, l->weight, l->rstd, l->partial, l->losses, l->turn, l->tokens};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) free(pieces[i]);
}

/* Fills the pool with values in (0, 1]. AdamW takes a piece as the mean of squares, which must not be negative. */
static void layers_refill(Layers *l) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < l->size; i++) l->pool[i] = (float)(i % 4093 + 1) / 4093;
}

static void bench_layers(void) {
    Layers l = {0};
    for (size_t i = 0; i < sizeof layer_rows / sizeof *layer_rows; i++) {
        if (!bench_wanted("layer/%s", layer_rows[i].name)) continue;
        if (!l.pool) l = layers_create();
        layers_refill(&l);
        Contender contenders[] = {{"triad", layer_triad, false, 0},
                                  {layer_rows[i].name, layer_rows[i].run, false, 0}};
        bench_turns(contenders, 2, &l, RATE_FP32, 1.0);
        const double triad = 4.0 * (double)(l.size / 3 * 3) / contenders[0].best / 1e9;
        const double rate = l.bytes / contenders[1].best / 1e9;
        printf("%-24s%9.1f %9.3f %8.1f %5.1f %%\n", layer_rows[i].name, l.bytes / 1e6,
               1e3 * contenders[1].best, rate, 100 * rate / triad);
        fflush(stdout);
        bench_report(rate, "GB/s", rate / triad, "layer/%s", layer_rows[i].name);
    }
    layers_free(&l);
}

#endif
