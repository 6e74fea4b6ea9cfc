/* Tests of generating text: the cache of keys and values gives the logits of the full forward, tokens are drawn with the
   probabilities that the rule says, and ./generate streams whole characters and refuses wrong input. */
#ifndef TESTS_TEST_GENERATE_H
#define TESTS_TEST_GENERATE_H

#include "harness.h"
#include "test_hostile.h"

/* ---- the cache ---- */

/* The logits (T, V) of every position, by one pass over all tokens. */
static float *generate_full_logits(Model *model, const int32_t *tokens, int T) {
    const size_t V = (size_t)model->config.vocab_size;
    float *logits = check_calloc((size_t)T * V * sizeof *logits);
    model_forward(model, tokens, 1, T);
    for (int t = 0; t < T; t++) memcpy(logits + (size_t)t * V, model_logits(model, t), V * sizeof *logits);
    return logits;
}

/* The same, where the first `prompt` tokens are computed in one pass, the rest `piece` at a time. */
static float *generate_cached_logits(Model *model, const int32_t *tokens, int T, int prompt, int piece,
                                     bool all_rows) {
    const ModelConfig *c = &model->config;
    const size_t V = (size_t)c->vocab_size;
    float *logits = check_calloc((size_t)T * V * sizeof *logits);
    const AttentionShape shape = attention_shape(c, 1, c->seq_len);
    const AttentionKind kind = (AttentionKind)c->attn;
    AttentionCache cache = attention_cache_create_as(
        kind, all_rows ? CACHE_ALL_ROWS : attention_cache_kinds[kind], c->layers, &shape);
    model->cache = &cache;
    for (int begin = 0, n; begin < T; begin += n) {
        n = begin == 0 ? prompt : piece;
        n = begin + n < T ? n : T - begin;
        model_forward(model, tokens + begin, 1, n);
        for (int t = 0; t < n; t++)
            memcpy(logits + (size_t)(begin + t) * V, model_logits(model, t), V * sizeof *logits);
    }
    model->cache = NULL;
    attention_cache_free(&cache);
    return logits;
}

/* What a model of the test varies in. */
typedef struct {
    int attn, laser_shift, activation, position, dtype;
    float scale;   /* multiplies V's matrix: above 1 the values of a column are far apart */
    bool all_rows; /* computed as a kind that the cache does not know */
} GenerateCase;

static Model generate_model(const GenerateCase *k, bool forward_only) {
    const ModelConfig config = {.layers = 2,
                                .heads = 3,
                                .head_dim = 10,
                                .embd = 20,
                                .mlp_hidden = 27,
                                .seq_len = 150,
                                .vocab_size = 61,
                                .attn = k->attn,
                                .laser_shift = k->laser_shift,
                                .activation = k->activation,
                                .position = k->position,
                                .dtype = k->dtype,
                                .forward_only = forward_only};
    Model model = model_plan(&config, 1);
    model_allocate(&model);
    model_init(&model, 7);
    for (size_t i = 0; i < model.weights.count;
         i++) /* larger than at the start of training: weights differ */
        model.weights.memory[i] *= 5;
    for (int l = 0; l < config.layers; l++)
        for (int i = 0; i < 30 * 20; i++) model.weights.layers[l].v[i] *= k->scale;
    model_repack(&model);
    return model;
}

/* Text that is generated with the cache must be the text of the model that was trained: the logits of every position
   must be those of the full forward, for every kind of model. */
static void test_generate_cache_gives_the_logits_of_the_full_forward(void) {
    enum { T = 150, V = 61 };
    int32_t tokens[T];
    for (uint64_t t = 0; t < T; t++) tokens[t] = (int32_t)(rng_bits(3, RNG_STREAM_TEST, t) % V);
    static const GenerateCase cases[] = {
        {0, 0, 0, POSITION_ROPE, DTYPE_FP32, 1, false},
        {0, 0, ACTIVATION_SWIGLU, POSITION_LEARNED, DTYPE_FP32, 1, false},
        {0, 0, ACTIVATION_RELU, POSITION_SINUSOIDAL, DTYPE_FP32, 1, true},
        {0, 0, ACTIVATION_SWIGLU, POSITION_ROPE, DTYPE_BF16, 1, false},
        {ATTENTION_LASER, 0, 0, POSITION_ROPE, DTYPE_FP32, 1, false},
        {ATTENTION_LASER, 0, 0, POSITION_ROPE, DTYPE_FP32, 1e-4f, false},
        {ATTENTION_LASER, 0, ACTIVATION_SWIGLU, POSITION_SINUSOIDAL, DTYPE_FP32, 10, false},
        {ATTENTION_LASER, 0, 0, POSITION_LEARNED, DTYPE_FP32, 300, false},
        {ATTENTION_LASER, 1, 0, POSITION_ROPE, DTYPE_FP32, 1, false},
        {ATTENTION_LASER, 0, ACTIVATION_SWIGLU, POSITION_LEARNED, DTYPE_FP32, 1, true},
        {ATTENTION_LASER, 0, 0, POSITION_ROPE, DTYPE_BF16, 1, false},
        {ATTENTION_LASER, 0, ACTIVATION_SWIGLU, POSITION_SINUSOIDAL, DTYPE_BF16, 10, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const GenerateCase *k = &cases[i];
        char what[160];
        const double bound = k->dtype == DTYPE_BF16 ? 1e-4 : 1e-10;
        Model model = generate_model(k, false), forward_only = generate_model(k, true);
        float *full = generate_full_logits(&model, tokens, T);
        double *want = test_to_double(full, (size_t)T * V);
        float *of_other = generate_full_logits(&forward_only, tokens, T);
        CHECK(memcmp(of_other, full, (size_t)T * V * sizeof *full) == 0,
              "case %zu: a model that only runs forward has other logits", i);
        static const int pieces[][2] = {{1, 1}, {37, 1}, {140, 3}};
        for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
            float *got =
                generate_cached_logits(&forward_only, tokens, T, pieces[p][0], pieces[p][1], k->all_rows);
            for (int t = 0; t < T; t++) {
                snprintf(what, sizeof what, "case %zu, %d tokens at once, then %d: position %d", i,
                         pieces[p][0], pieces[p][1], t);
                CHECK_NMSE(got + t * V, want + t * V, V, bound, what);
            }
            free(got);
        }
        if (getenv("SHOW")) {
            GenerateCase k32 = *k;
            k32.dtype = DTYPE_FP32;
            Model m32 = generate_model(&k32, true);
            float *f32 = generate_full_logits(&m32, tokens, T);
            double *w32 = test_to_double(f32, T * V), worst[4] = {0};
            float *got = generate_cached_logits(&forward_only, tokens, T, 1, 1, k->all_rows);
            for (int t = 0; t < T; t++) {
                double e[3] = {test_nmse(full + t * V, w32 + t * V, V),
                               test_nmse(got + t * V, w32 + t * V, V),
                               test_nmse(got + t * V, want + t * V, V)};
                for (int q = 0; q < 3; q++) worst[q] = fmax(worst[q], e[q]);
            }
            printf("case %zu: full-fp32 %.3g (all %.3g) cached-fp32 %.3g (all %.3g) cached-full %.3g (all "
                   "%.3g)\n",
                   i, worst[0], test_nmse(full, w32, T * V), worst[1], test_nmse(got, w32, T * V), worst[2],
                   test_nmse(got, want, T * V));
            free(got), free(f32), free(w32);
            model_free(&m32);
        }
        free(full), free(want), free(of_other);
        model_free(&model), model_free(&forward_only);
    }
}

#define GENERATE_TESTS(TEST) TEST(generate_cache_gives_the_logits_of_the_full_forward)

#endif
