/* bench_generate.h: measures how fast ./generate writes: one token after a context of half the model's T tokens, whose keys
   and values are in the cache.

   A token needs all weights and all keys and values of its context once, so the limit is the rate of memory. The bytes
   that have to be read, divided by the time, are compared with the rate of the triad, which is measured in the same turns.
   The weights are initial ones and the tokens are random; the time depends on neither. */
#ifndef TOOLS_BENCH_GENERATE_H
#define TOOLS_BENCH_GENERATE_H

#include "bench_layers.h"
#include "bench_measure.h"
#include "bench_steps.h"

enum { GENERATE_TOKENS = 8 }; /* of a turn */

typedef struct {
    Model model;
    AttentionCache cache, *caches[1]; /* caches: that of the only sequence */
    int context;                      /* tokens in the cache */
    Layers triad;
} GenerateRow;

static void generate_tokens(void *context) {
    GenerateRow *row = context;
    const int32_t token = 1;
    for (int i = 0; i < GENERATE_TOKENS; i++) {
        model_forward(&row->model, &token, 1, 1);
        model_logits(&row->model, 0);
    }
    row->cache.count = row->context;
}

static void generate_triad(void *context) { layer_triad(&((GenerateRow *)context)->triad); }

/* The weights as products read them, and the keys and values of the context. */
static double generate_bytes(const GenerateRow *row) {
    const ModelConfig *c = &row->model.config;
    double bytes = 2.0 * c->layers * c->heads * c->head_dim * row->context * (c->dtype == DTYPE_BF16 ? 2 : 4);
    const bool pairs = matmul_kernel_for((Dtype)c->dtype)->format == MATMUL_BF16_PAIRS;
    for (int i = 0; i < model_linear_count(&row->model); i++) {
        const Linear *w = model_linear_at(&row->model, i);
        bytes += (double)(w->C * w->OC) * (pairs ? 2 : 4);
    }
    return bytes;
}

static GenerateRow generate_open(const StepModel *model, int dtype, AttentionKind kind) {
    static Options options;
    char size[32];
    OptionSet set = options_begin("bench", "", train_options, TRAIN_OPTION_COUNT, &options, train_presets);
    snprintf(size, sizeof size, "%d", model->vocab_size);
    options_set(&set, "vocab-size", size, OPTION_FROM_COMMAND, "");
    options_apply_preset(&set, model->name);
    ModelConfig config = model_config(&options, &set);
    config.dtype = dtype == 0 ? DTYPE_FP32 : DTYPE_BF16;
    config.attn = (int)kind;
    config.forward_only = true;
    GenerateRow row = {.model = model_plan(&config, 1), .context = config.seq_len / 2};
    const AttentionShape shape = attention_shape(&config, 1, config.seq_len);
    model_allocate(&row.model);
    model_init(&row.model, 1);
    row.cache = attention_cache_create(kind, config.layers, &shape);
    int32_t *tokens = check_calloc((size_t)row.context * sizeof *tokens);
    for (int i = 0; i < row.context; i++)
        tokens[i] = (int32_t)(rng_bits(1, RNG_STREAM_TEST, (uint64_t)i) % (uint64_t)model->vocab_size);
    /* The caller sets model.caches when the row has its final address; here the tokens go through this copy. */
    row.caches[0] = &row.cache, row.model.caches = row.caches;
    model_forward(&row.model, tokens, 1, row.context);
    free(tokens);
    row.triad = (Layers){.size = (int64_t)(bench.options.quick ? 16 : 64) << 20};
    row.triad.pool = random_floats(row.triad.size, NULL);
    return row;
}

static void bench_generate_row(const StepModel *model, int dtype, AttentionKind kind) {
    GenerateRow row = generate_open(model, dtype, kind);
    row.caches[0] = &row.cache, row.model.caches = row.caches;
    Contender contenders[] = {{"triad", generate_triad, false, 0}, {"tokens", generate_tokens, false, 0}};
    bench_turns(contenders, 2, &row, dtype == 0 ? RATE_FP32 : RATE_BF16, 4.0);
    const double triad = 4.0 * (double)(row.triad.size / 3 * 3) / contenders[0].best;
    const double rate = GENERATE_TOKENS / contenders[1].best, share = rate * generate_bytes(&row) / triad;
    char name[64];
    snprintf(name, sizeof name, "%s/%s/%s", model->name, dtype_names[dtype], attention_name(kind));
    printf("%-28s%8d %12.1f %10.1f %8.1f %5.1f %%\n", name, row.context, rate, generate_bytes(&row) / 1e6,
           rate * generate_bytes(&row) / 1e9, 100 * share);
    fflush(stdout);
    bench_report(rate, "tokens/s", share, "generate/%s", name);
    attention_cache_free(&row.cache);
    model_free(&row.model);
    free(row.triad.pool);
}

static void bench_generate(void) {
    for (size_t i = 0; i < sizeof step_models / sizeof *step_models; i++)
        for (int dtype = 0; dtype < 2; dtype++)
            for (int kind = 0; kind < 2; kind++)
                if (bench_wanted("generate/%s/%s/%s", step_models[i].name, dtype_names[dtype],
                                 attention_name(step_kinds[kind])))
                    bench_generate_row(&step_models[i], dtype, step_kinds[kind]);
}

#endif
