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
    model->caches = (AttentionCache *[]){&cache};
    for (int begin = 0, n; begin < T; begin += n) {
        n = begin == 0 ? prompt : piece;
        n = begin + n < T ? n : T - begin;
        model_forward(model, tokens + begin, 1, n);
        for (int t = 0; t < n; t++)
            memcpy(logits + (size_t)(begin + t) * V, model_logits(model, t), V * sizeof *logits);
    }
    model->caches = NULL;
    attention_cache_free(&cache);
    return logits;
}

/* What a model of the test varies in. */
typedef struct {
    int attn, laser_shift, activation, position, dtype;
    float scale;   /* multiplies V's matrix: above 1 the values of a column are far apart */
    bool all_rows; /* computed as a kind that the cache does not know */
    bool ablated;  /* with the options of docs/ablations.md that change the model */
} GenerateCase;

/* Those of differential attention are pairs. */
static int generate_heads(const GenerateCase *k) { return attention_is_diff((AttentionKind)k->attn) ? 4 : 3; }

static Model generate_model(const GenerateCase *k, bool forward_only) {
    const ModelConfig config = {.layers = 2,
                                .norm_eps = 1e-6,
                                .rope_theta = 10000,
                                .heads = generate_heads(k),
                                .head_dim = 10,
                                .embd = 20,
                                .mlp_hidden = 27,
                                .seq_len = 135,
                                .vocab_size = 61,
                                .attn = k->attn,
                                .laser_shift = k->laser_shift,
                                .activation = k->activation,
                                .position = k->position,
                                .dtype = k->dtype,
                                .qk_norm = k->ablated,
                                .attn_scale = k->ablated ? ATTN_SCALE_DIM : ATTN_SCALE_FIXED,
                                .laser_beta = k->ablated ? 0.5 : 1,
                                .attn_softcap = k->ablated ? 2 : 0,
                                .forward_only = forward_only};
    Model model = model_plan(&config, 1);
    model_allocate(&model);
    model_init(&model, 7);
    for (size_t i = 0; i < model.weights.count;
         i++) /* larger than at the start of training: weights differ */
        model.weights.memory[i] *= 5;
    for (int l = 0; l < config.layers; l++)
        for (int i = 0; i < 10 * config.heads * 20; i++) model.weights.layers[l].v[i] *= k->scale;
    for (int l = 0; l < config.layers && k->ablated; l++)
        for (int d = 0; d < 10; d++) model.weights.layers[l].scale[d] = 0.3f * (float)(d - 5);
    model_repack(&model);
    return model;
}

/* Text that is generated with the cache must be the text of the model that was trained: the logits of every position
   must be those of the full forward, for every kind of model. In bf16 the two round at different places; the logits of
   the full forward itself differ from those in float32 by up to 5e-3. */
static void test_generate_cache_gives_the_logits_of_the_full_forward(void) {
    enum { T = 135, V = 61 };
    int32_t tokens[T];
    for (uint64_t t = 0; t < T; t++) tokens[t] = (int32_t)(rng_bits(3, RNG_STREAM_TEST, t) % V);
    static const GenerateCase cases[] = {
        {0, 0, 0, POSITION_ROPE, DTYPE_FP32, 1, false, false},
        {0, 0, ACTIVATION_SWIGLU, POSITION_LEARNED, DTYPE_FP32, 1, false, false},
        {0, 0, ACTIVATION_RELU, POSITION_SINUSOIDAL, DTYPE_FP32, 1, true, false},
        {0, 0, ACTIVATION_SWIGLU, POSITION_ROPE, DTYPE_BF16, 1, false, false},
        {ATTENTION_LASER, 0, 0, POSITION_ROPE, DTYPE_FP32, 1, false, false},
        {ATTENTION_LASER, 0, 0, POSITION_ROPE, DTYPE_FP32, 1e-4f, false, false},
        {ATTENTION_LASER, 0, ACTIVATION_SWIGLU, POSITION_SINUSOIDAL, DTYPE_FP32, 10, false, false},
        {ATTENTION_LASER, 0, 0, POSITION_LEARNED, DTYPE_FP32, 300, false, false},
        {ATTENTION_LASER, 1, 0, POSITION_ROPE, DTYPE_FP32, 1, false, false},
        {ATTENTION_LASER, 0, ACTIVATION_SWIGLU, POSITION_LEARNED, DTYPE_FP32, 1, true, false},
        {ATTENTION_LASER, 0, 0, POSITION_ROPE, DTYPE_BF16, 1, false, false},
        {ATTENTION_LASER, 0, ACTIVATION_SWIGLU, POSITION_SINUSOIDAL, DTYPE_BF16, 10, false, false},
        {0, 0, 0, POSITION_ROPE, DTYPE_FP32, 1, false, true},
        {ATTENTION_LASER, LASER_SHIFT_CLAMP, 0, POSITION_ROPE, DTYPE_FP32, 300, false, true},
        {ATTENTION_LASER, LASER_SHIFT_NONE, 0, POSITION_ROPE, DTYPE_FP32, 1, true, true},
        {ATTENTION_DIFF, 0, 0, POSITION_ROPE, DTYPE_FP32, 1, false, false},
        {ATTENTION_DIFF, 0, ACTIVATION_SWIGLU, POSITION_LEARNED, DTYPE_FP32, 1, true, true},
        {ATTENTION_DIFF_LASER, 0, 0, POSITION_SINUSOIDAL, DTYPE_FP32, 10, false, false},
        {ATTENTION_DIFF_LASER, 1, 0, POSITION_ROPE, DTYPE_FP32, 1, true, false},
        {ATTENTION_DIFF_LASER, 0, 0, POSITION_ROPE, DTYPE_BF16, 1, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const GenerateCase *k = &cases[i];
        char what[160];
        const double bound = k->dtype == DTYPE_BF16 ? 2e-3 : 1e-10;
        Model model = generate_model(k, false), forward_only = generate_model(k, true);
        float *full = generate_full_logits(&model, tokens, T);
        double *want = test_to_double(full, (size_t)T * V);
        float *of_other = generate_full_logits(&forward_only, tokens, T);
        CHECK(memcmp(of_other, full, (size_t)T * V * sizeof *full) == 0,
              "case %zu: a model that only runs forward has other logits", i);
        static const int pieces[][2] = {{1, 1}, {131, 3}};
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
        free(full), free(want), free(of_other);
        model_free(&model), model_free(&forward_only);
    }
}

/* The same command gives the same text, however many threads it has. */
static void test_generate_cache_gives_the_same_bits_for_any_number_of_threads(void) {
    enum { T = 60, V = 61 };
    int32_t tokens[T];
    for (uint64_t t = 0; t < T; t++) tokens[t] = (int32_t)(rng_bits(4, RNG_STREAM_TEST, t) % V);
    const int before = threads_count();
    for (int attn = 0; attn < ATTENTION_KIND_COUNT; attn++) {
        const GenerateCase k = {attn, 0, ACTIVATION_SWIGLU, POSITION_ROPE, DTYPE_BF16, 1, false, false};
        Model model = generate_model(&k, true);
        threads_set(1);
        float *one = generate_cached_logits(&model, tokens, T, 20, 1, false);
        threads_set(3);
        float *three = generate_cached_logits(&model, tokens, T, 20, 1, false);
        threads_set(before);
        CHECK(memcmp(one, three, sizeof(float) * T * V) == 0, "attention %d: other bits with 3 threads",
              attn);
        free(one), free(three);
        model_free(&model);
    }
}

/* ---- drawing tokens ---- */

/* How often each of five tokens is drawn, whose weights at temperature 1 are 1, 8, 2, 4 and 1. A rule that is applied
   wrongly would only make text a little worse, and nobody would see it. The counts are exact: the numbers drawn depend
   only on the seed. Case 2: of two equal tokens the first stays. Cases 5 and 6: --top-p is a share of the three tokens
   that --top-k leaves. Case 9: --min-p compares weights at this temperature. */
static void test_sampling_draws_with_the_probabilities_of_the_rule(void) {
    enum { V = 5, DRAWS = 16000 };
    static const struct {
        SamplingRule rule;
        int32_t seen;     /* a token that was seen before */
        double weight[V]; /* what the rule makes of the weights */
        int count[V];
    } cases[] = {
        {{.temperature = 1}, 0, {1, 8, 2, 4, 1}, {979, 8032, 1982, 3981, 1026}},
        {{.temperature = 1, .top_k = 2}, 0, {0, 8, 0, 4, 0}, {0, 10649, 0, 5351, 0}},
        {{.temperature = 1, .top_k = 4}, 0, {1, 8, 2, 4, 0}, {1050, 8545, 2117, 4288, 0}},
        {{.temperature = 1, .top_p = 0.74}, 0, {0, 8, 0, 4, 0}, {0, 10649, 0, 5351, 0}},
        {{.temperature = 1, .top_p = 0.76}, 0, {0, 8, 2, 4, 0}, {0, 9150, 2270, 4580, 0}},
        {{.temperature = 1, .top_p = 0.85, .top_k = 3}, 0, {0, 8, 0, 4, 0}, {0, 10649, 0, 5351, 0}},
        {{.temperature = 1, .top_p = 0.86, .top_k = 3}, 0, {0, 8, 2, 4, 0}, {0, 9150, 2270, 4580, 0}},
        {{.temperature = 1, .min_p = 0.2}, 0, {0, 8, 2, 4, 0}, {0, 9150, 2270, 4580, 0}},
        {{.temperature = 0.5}, 0, {1, 64, 4, 16, 1}, {184, 11896, 723, 3004, 193}},
        {{.temperature = 0.5, .min_p = 0.2}, 0, {0, 64, 0, 16, 0}, {0, 12770, 0, 3230, 0}},
        {{.temperature = 1, .repeat_penalty = 3}, 1, {1, 2, 2, 4, 1}, {1564, 3143, 3200, 6477, 1616}},
        {{.temperature = 0}, 0, {0, 1, 0, 0, 0}, {0, 16000, 0, 0, 0}},
    };
    const float logits[V] = {0, logf(8), logf(2), logf(4), 0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int count[V] = {0};
        double sum = 0;
        for (int v = 0; v < V; v++) sum += cases[i].weight[v];
        for (uint64_t draw = 0; draw < DRAWS; draw++)
            count[sample_token(logits, V, &cases[i].rule, &cases[i].seen, 1, 5, draw)]++;
        for (int v = 0; v < V; v++) {
            const double p = cases[i].weight[v] / sum, deviation = sqrt(DRAWS * p * (1 - p));
            CHECK(fabs(count[v] - DRAWS * p) <= 4 * deviation,
                  "case %zu, token %d: drawn %d times, expected %.0f", i, v, count[v], DRAWS * p);
            CHECK(count[v] == cases[i].count[v], "case %zu, token %d: drawn %d times instead of %d", i, v,
                  count[v], cases[i].count[v]);
        }
    }
    const float negative[2] = {-1, -1}; /* the penalty makes negative logits smaller, too */
    int count[2] = {0};
    for (uint64_t draw = 0; draw < 1000; draw++)
        count[sample_token(negative, 2, &(SamplingRule){.temperature = 1, .repeat_penalty = 100},
                           (int32_t[]){1}, 1, 1, draw)]++;
    CHECK(count[1] == 0, "a token with a penalty of 100 was drawn %d times in 1000", count[1]);
}

/* The token that sampling.h describes, by sorting all tokens. */
static int32_t sampling_naive(const float *logits, int V, const SamplingRule *rule, double uniform) {
    int32_t order[64];
    double weights[64], total = 0, sum = 0, passed = 0;
    bool stays[64] = {false};
    for (int v = 0; v < V; v++) {
        int at = v;
        for (; at > 0 && logits[v] > logits[order[at - 1]]; at--) order[at] = order[at - 1];
        order[at] = v;
    }
    const int most = rule->top_k ? (int)fmin((double)rule->top_k, V) : V;
    for (int v = 0; v < V; v++) weights[v] = exp((logits[v] - logits[order[0]]) / rule->temperature);
    for (int i = 0; i < most; i++) total += weights[order[i]];
    for (int i = 0; i < most; i++) {
        stays[order[i]] = (rule->top_p == 0 || sum < rule->top_p * total) && weights[order[i]] >= rule->min_p;
        sum += weights[order[i]];
    }
    for (int v = sum = 0; v < V; v++) sum += stays[v] ? weights[v] : 0;
    for (int v = 0; v < V; v++)
        if (stays[v] && (passed += weights[v]) > uniform * sum) return v;
    return order[0];
}

static void test_sampling_takes_the_tokens_of_a_sorted_list(void) {
    enum { V = 61 };
    for (uint64_t i = 0; i < 3000; i++) {
        float logits[V];
        for (uint64_t v = 0; v < V; v++) /* halves, so that some are equal */
            logits[v] = roundf(4 * rng_normal(i, RNG_STREAM_TEST, v)) / 2;
        const uint64_t bits = rng_bits(i, RNG_STREAM_TEST, V);
        const SamplingRule rule = {.temperature = 0.5 + (double)(bits % 4),
                                   .top_k = (int64_t)(bits >> 8) % 3 ? 0 : 1 + (int64_t)(bits >> 16) % 80,
                                   .top_p = (bits >> 24) % 2 ? 0 : 0.013 + (double)((bits >> 32) % 97) / 100,
                                   .min_p = (bits >> 40) % 2 ? 0 : (double)((bits >> 48) % 100) / 101};
        const int32_t got = sample_token(logits, V, &rule, NULL, 0, 9, i);
        const int32_t want = sampling_naive(logits, V, &rule, rng_uniform(9, RNG_STREAM_SAMPLE, i));
        CHECK(got == want, "%d, a sorted list gives %d: temperature %g, top-k %lld, top-p %g, min-p %g", got,
              want, rule.temperature, (long long)rule.top_k, rule.top_p, rule.min_p);
    }
}

/* ---- ./generate ---- */

/* A piece that is printed must not end within a character, or a terminal shows it wrongly until the next one comes. */
static void test_characters_are_not_cut(void) {
    static const char text[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z"; /* of 1, 2, 3, 4 and 1 bytes */
    static const size_t whole[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11};
    for (size_t n = 0; n < sizeof text; n++)
        CHECK(check_whole_characters(text, n) == whole[n], "%zu bytes: %zu, expected %zu", n,
              check_whole_characters(text, n), whole[n]);
    static const char *const not_utf8[] = {"\xFF", "a\x80\x80\x80", "\xC3\x28",
                                           "\xED\xA0\x80"}; /* not held back */
    for (size_t i = 0; i < sizeof not_utf8 / sizeof *not_utf8; i++) {
        const size_t n = strlen(not_utf8[i]);
        CHECK(check_whole_characters(not_utf8[i], n) == n, "case %zu", i);
    }
}

/* A model may write any bytes, and a line of JSON must be JSON nevertheless. */
static void test_json_holds_any_bytes(void) {
    char bytes[256 + 6], *printed = NULL;
    size_t size = 0;
    for (int i = 0; i < 256; i++) bytes[i] = (char)(i ? i : ' ');
    memcpy(bytes + 256, "\xE2\x82\xAC\"\\\n", 6);
    FILE *memory = open_memstream(&printed, &size);
    json_print_text(memory, bytes, sizeof bytes);
    fclose(memory);
    cJSON *text = json_parse(printed, size);
    REQUIRE(cJSON_IsString(text), "not JSON: %s", printed);
    const char *end = text->valuestring + strlen(text->valuestring);
    CHECK(memcmp(text->valuestring, bytes, 0x80) == 0, "ASCII is changed: %s", printed);
    CHECK(strncmp(text->valuestring + 0x80, "\xEF\xBF\xBD", 3) == 0, "%s", printed);
    CHECK(strcmp(end - 6, "\xE2\x82\xAC\"\\\n") == 0, "%s", printed);
    CHECK(check_whole_characters(printed, size) == size && !strchr(printed, '\n'), "%s", printed);
    cJSON_Delete(text), free(printed);
}

static int generate_run(const char *folder, const char *arguments, char *output, size_t size) {
    return test_command(output, size, "G=$(cd %s && pwd)/generate; cd %s && %s", test_binaries(), folder,
                        arguments);
}

/* What is wrong is said before a token is made. */
static void test_generate_refuses_wrong_input(void) {
    static const struct {
        const char *command;
        int code;
        const char *says;
    } cases[] = {
        {"$G --prompt=a --prompt-file=b .", 2, "--prompt and --prompt-file are both given"},
        {"$G --stop=a --stop= .", 2, "--stop is empty"},
        {"$G --lines .", 2, "--lines needs --prompt-file"},
        {"$G --batch=0 .", 2, "--batch=0"},
        {": > empty; $G --lines --prompt-file=empty .", 1, "'empty' is empty; write a prompt in every line"},
        {"$G --lines --prompt-file=gone .", 1, "gone"},
        {"printf 'a\\n\\nb\\n' > lines; $G --lines --batch=4 --prompt-file=lines .", 1,
         "in line 2 of 'lines' is empty"},
        {"$G --prompt-file= .", 2, "--prompt-file is empty"},
        {"$G --stopp=x .", 2, "--stop"},
        {"$G --top-p=1.5 .", 2, "--top-p"},
        {"$G --min-p=-1 .", 2, "--min-p"},
        {"$G --top-k=many .", 2, "--top-k"},
        {"$G --prompt-file=gone .", 1, "gone"},
        {": > empty; $G --prompt-file=empty .", 1, "the prompt in 'empty' is empty"},
        {"$G --prompt-file=- . < /dev/null", 1, "standard input is empty"},
        {"printf 'a\\n\\nb\\n' | $G --prompt-file=- .", 1, "the prompt in line 2 of standard input is empty"},
        {"$G --prompt='zqzqzqzqzqzqzq' .", 1, "has 14 tokens, the model sees at most 13"},
        {"printf 'zqzqzqzqzqzqzq' | $G --prompt-file=- .", 1, "in line 1 of standard input has 14 tokens"},
        {"mkdir nothing; $G nothing", 1, "'nothing' holds no checkpoint"},
        {"$G", 2, "give one checkpoint"},
        {"printf '{\"a\": 1}' > config.json; $G .", 1, "config.json"},
    };
    char folder[256], output[4096];
    snprintf(folder, sizeof folder, "%s", test_folder());
    hostile_write_good(folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int code = generate_run(folder, cases[i].command, output, sizeof output);
        CHECK(code == cases[i].code && strstr(output, cases[i].says), "%s: exit %d: %s", cases[i].command,
              code, output);
    }
}

/* The members of a line of --json. */
typedef struct {
    char prompt[256], text[1024], ended_by[32];
    double tokens;
} GenerateLine;

static GenerateLine generate_line(const char *output) {
    GenerateLine line = {.tokens = -1};
    const size_t size = strcspn(output, "\n");
    char *text = check_calloc(size + 1);
    memcpy(text, output, size);
    cJSON *json = json_parse(text, size);
    const char *const members[] = {json_text(json, "prompt"), json_text(json, "text"),
                                   json_text(json, "ended_by")};
    if (members[0] && members[1] && members[2] && json_number(json, "tokens_per_s") > 0) {
        snprintf(line.prompt, sizeof line.prompt, "%s", members[0]);
        snprintf(line.text, sizeof line.text, "%s", members[1]);
        snprintf(line.ended_by, sizeof line.ended_by, "%s", members[2]);
        line.tokens = json_number(json, "tokens");
    }
    cJSON_Delete(json), free(text);
    return line;
}

/* Prompts, --json and the end of the context do what the page of the program says. */
static void test_generate_writes_what_was_asked_for(void) {
    char folder[256], output[8192], again[8192];
    snprintf(folder, sizeof folder, "%s", test_folder());
    hostile_write_good(folder);
    int code = generate_run(
        folder, "printf 'the cat\nand\nthe cat' | $G --json --tokens=5 --temperature=0 --prompt-file=- .",
        output, sizeof output);
    REQUIRE(code == 0 && hostile_lines(output) == 3, "exit %d: %s", code, output);
    const char *second = strchr(output, '\n') + 1, *third = strchr(second, '\n') + 1;
    const GenerateLine first = generate_line(output), other = generate_line(second),
                       same = generate_line(third);
    CHECK(strcmp(first.prompt, "the cat") == 0 && strcmp(other.prompt, "and") == 0, "%s", output);
    CHECK(first.tokens == 5 && strcmp(first.ended_by, "tokens") == 0, "%s", output);
    CHECK(strcmp(first.text, same.text) == 0 && strcmp(first.text, other.text) != 0, "%s", output);

    /* A prompt from a file, without its last line break, gives the text of the same prompt as an option. */
    generate_run(folder, "printf 'the cat\n' > prompt; $G --tokens=5 --prompt-file=prompt .", output,
                 sizeof output);
    code = generate_run(folder, "$G --tokens=5 --prompt='the cat' --threads=1 .", again, sizeof again);
    CHECK(code == 0 && strcmp(output, again) == 0 && strncmp(output, "the cat", 7) == 0, "%s and %s", output,
          again);
    /* Another seed gives another text, and --samples counts the seed up. */
    generate_run(folder, "$G --tokens=5 --prompt='the cat' --seed=2 .", output, sizeof output);
    code = generate_run(folder, "$G --tokens=5 --prompt='the cat' --samples=2 .", again, sizeof again);
    CHECK(code == 0 && strstr(again, output) > again, "the second sample is not that of seed 2: %s, %s",
          again, output);

    /* More tokens than the model sees at once: it says so, once, and goes on. */
    code = generate_run(folder, "$G --json --tokens=40 --samples=2 --seed=2 --prompt='the cat' .", output,
                        sizeof output);
    CHECK(code == 0 && hostile_lines(output) == 3 &&
              strncmp(output, "note: the model sees at most 13 tokens", 38) == 0 &&
              strstr(output, "\"tokens\": 40"),
          "exit %d: %s", code, output);
}

/* How much of the text stays with these two stops: a step at a time, as a user reads it. */
static size_t generate_stopped(const char *text, const char *const stops[2]) {
    for (size_t end = 1; text[end - 1]; end++) {
        size_t longest = 0;
        for (int i = 0; i < 2; i++) {
            const size_t length = strlen(stops[i]);
            if (length <= end && length > longest && strncmp(text + end - length, stops[i], length) == 0)
                longest = length;
        }
        if (longest) return end - longest;
    }
    return strlen(text);
}

/* Each --stop must end the text where it is complete for the first time, whatever the tokens are and in whatever order
   the options stand. A part of one that was printed could not be taken back: without --json, and in a batch, the text
   must be the same. */
static void test_generate_ends_at_the_first_of_several_stops(void) {
    char folder[256], output[8192], command[512];
    snprintf(folder, sizeof folder, "%s", test_folder());
    hostile_write_good(folder);
    const char *const how = "--top-k=3 --tokens=12 --prompt=the";
    snprintf(command, sizeof command, "$G %s . 2> notes", how);
    int code = generate_run(folder, command, output, sizeof output);
    const int size = (int)strlen(output) - 4; /* without the prompt and the line break */
    REQUIRE(code == 0 && size >= 12, "exit %d: %s", code, output);
    char *whole = check_calloc((size_t)size + 1);
    memcpy(whole, output + 3, (size_t)size);
    for (int n = 0; n < size && n < 10; n++) {
        /* A piece of the text, and one that may begin or end before it, be in it, or be missing. */
        char stops[2][8];
        snprintf(stops[0], sizeof stops[0], "%.*s", 1 + n % 3, whole + n);
        snprintf(stops[1], sizeof stops[1], n % 4 ? "%.*s" : "%.*s#", 1 + n % 4, whole + (size - n) / 2);
        const char *const both[2] = {stops[0], stops[1]};
        if (strpbrk(stops[0], "'\n") || strpbrk(stops[1], "'\n")) continue;
        const size_t want = generate_stopped(whole, both);
        for (int order = 0; order < 2; order++) {
            const char *const one = stops[order], *const other = stops[!order];
            snprintf(command, sizeof command,
                     "$G %s --stop='%s' --stop '%s' --batch=%d --samples=2 . 2> notes", how, one, other,
                     1 + order);
            code = generate_run(folder, command, output, sizeof output);
            CHECK(code == 0 && strncmp(output, "the", 3) == 0 && strncmp(output + 3, whole, want) == 0 &&
                      strncmp(output + 3 + want, "\n\nthe", 5) == 0,
                  "--stop='%s' --stop='%s' of '%s': exit %d: %s", one, other, whole, code, output);
            snprintf(command, sizeof command, "$G --json %s --stop='%s' --stop='%s' . 2> notes", how, one,
                     other);
            code = generate_run(folder, command, output, sizeof output);
            CHECK(code == 0 && strcmp(generate_line(output).ended_by, "stop") == 0, "exit %d: %s", code,
                  output);
        }
    }
    free(whole);
}

/* The texts of a batch must be those that the same prompts have one at a time, greedy or drawn, whatever their lengths and
   ends are and also where a context is full; in the order of the prompts. */
static void test_generate_batches_write_the_same_texts(void) {
    static const char *const options[] = {"--temperature=0 --tokens=6", "--tokens=40 --samples=3 --top-k=20",
                                          "--tokens=9 --stop=e --stop=an --seed=5 --repeat-penalty=1.3",
                                          "--tokens=8 --dtype=bf16"};
    char folder[256], one[16384], output[16384], command[512];
    snprintf(folder, sizeof folder, "%s", test_folder());
    hostile_write_good(folder);
    generate_run(folder, "printf 'the cat\na\nand the\nthe\nthe cat\nan\n' > prompts", output, sizeof output);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        /* The rate differs from run to run; without --json it is not printed. */
        snprintf(command, sizeof command, "$G --prompt-file=- %s . < prompts 2> notes", options[i]);
        int code = generate_run(folder, command, one, sizeof one);
        REQUIRE(code == 0 && hostile_lines(one) >= 11, "%s: exit %d: %s", options[i], code, one);
        for (int batch = 2; batch <= 8; batch += 3) {
            snprintf(command, sizeof command,
                     "$G --lines --prompt-file=prompts --batch=%d --threads=%d %s . 2> notes", batch,
                     batch % 3, options[i]);
            code = generate_run(folder, command, output, sizeof output);
            CHECK(code == 0 && strcmp(one, output) == 0, "%s, --batch=%d: exit %d: %s, expected %s",
                  options[i], batch, code, output, one);
        }
    }
    int code =
        generate_run(folder, "$G --lines --prompt-file=prompts --batch=4 --json --temperature=0 --tokens=3 .",
                     output, sizeof output);
    CHECK(code == 0 && hostile_lines(output) == 6 && strcmp(generate_line(output).prompt, "the cat") == 0,
          "exit %d: %s", code, output);
    code = generate_run(folder, "printf 'the cat\nthe cat\n' | $G --prompt-file=- --tokens=12 .", output,
                        sizeof output);
    const char *second = strstr(output, "\n\n");
    CHECK(code == 0 && second && strncmp(output, second + 2, (size_t)(second - output)) != 0,
          "two equal prompts got the same drawn text: %s", output);
}

#define GENERATE_TESTS(TEST)                                                                                 \
    TEST(generate_cache_gives_the_logits_of_the_full_forward)                                                \
    TEST(generate_cache_gives_the_same_bits_for_any_number_of_threads)                                       \
    TEST(sampling_draws_with_the_probabilities_of_the_rule)                                                  \
    TEST(sampling_takes_the_tokens_of_a_sorted_list)                                                         \
    TEST(characters_are_not_cut)                                                                             \
    TEST(json_holds_any_bytes)                                                                               \
    TEST(generate_refuses_wrong_input)                                                                       \
    TEST(generate_writes_what_was_asked_for)                                                                 \
    TEST(generate_ends_at_the_first_of_several_stops)                                                        \
    TEST(generate_batches_write_the_same_texts)

#endif
