/* test_explain.h: tests that the page of ./explain shows the numbers of the model: they are computed here by other means.
   And that the page is well-formed HTML, whatever the prompt is. */
#ifndef TESTS_TEST_EXPLAIN_H
#define TESTS_TEST_EXPLAIN_H

#include <cjson/cJSON.h>
#include "../tools/explain_measure.h"
#include "../tools/explain_page.h"
#include "harness.h"
#include "test_hostile.h"

/* ---- models ---- */

enum { EXPLAIN_T = 17, EXPLAIN_L = 3 };

/* The options of a model: what a page must show rightly whichever are given. */
static const ModelConfig explain_configs[] = {
    {.attn = ATTENTION_STANDARD, .position = POSITION_ROPE},
    {.attn = ATTENTION_LASER, .position = POSITION_LEARNED, .activation = ACTIVATION_SWIGLU},
    {.attn = ATTENTION_LASER,
     .laser_shift = LASER_SHIFT_CLAMP,
     .laser_beta = 0.5,
     .position = POSITION_ROPE,
     .qk_norm = 1,
     .attn_scale = ATTN_SCALE_DIM,
     .norm_place = NORM_PLACE_PERI,
     .logit_softcap = 3,
     .tie = TIE_NO},
    {.attn = ATTENTION_STANDARD,
     .position = POSITION_SINUSOIDAL,
     .norm = NORM_LAYERNORM,
     .bias = BIAS_ALL,
     .embed_scale = 1,
     .attn_softcap = 2},
    {.attn = ATTENTION_LASER,
     .laser_shift = LASER_SHIFT_SEQUENCE,
     .position = POSITION_ROPE,
     .norm = NORM_CRMSNORM,
     .attn_scale = ATTN_SCALE_HEAD},
};
enum { EXPLAIN_CONFIGS = sizeof explain_configs / sizeof *explain_configs };

/* A model with these options and random weights that are larger than at the start of training. */
static Model explain_model(int number, int vocab_size) {
    ModelConfig c = explain_configs[number];
    c.layers = EXPLAIN_L, c.heads = 3, c.head_dim = 6, c.embd = 20, c.mlp_hidden = 27, c.seq_len = EXPLAIN_T;
    c.vocab_size = vocab_size, c.norm_eps = 1e-6, c.rope_theta = 10000, c.attn_grad_scale = 1;
    if (c.laser_beta == 0) c.laser_beta = 1;
    Model model = model_plan(&c, 1);
    model_allocate(&model);
    model_init(&model, 5);
    for (size_t i = 0; i < model.weights.count; i++)
        model.weights.memory[i] =
            7 * model.weights.memory[i] + 0.1f * rng_normal(6, RNG_STREAM_TEST, (uint64_t)i);
    model_repack(&model);
    return model;
}

static void explain_tokens(int32_t tokens[EXPLAIN_T], int V) {
    for (uint64_t t = 0; t < EXPLAIN_T; t++)
        tokens[t] = (int32_t)(rng_bits(8, RNG_STREAM_TEST, t) % (uint64_t)V);
}

/* softmax(logits) in double; p (V). */
static void explain_softmax(double *p, const float *logits, int V) {
    double sum = 0;
    for (int v = 0; v < V; v++) sum += exp((double)logits[v]);
    for (int v = 0; v < V; v++) p[v] = exp((double)logits[v]) / sum;
}

/* ---- the numbers ---- */

/* The weights of a head must be the softmax of the scores of what attention read, and give the output that attention
   had in forward. */
static void explain_check_head(const Explanation *e, int number, int l, int h, const float *in,
                               const float *out) {
    const ModelConfig *c = &e->model->config;
    const int D = c->head_dim, A = c->heads * D, n = e->n;
    const float *q = in + h * D, *k = q + A, *v = k + A;
    double worst = 0, worst_sum = 0, entropy = 0;
    for (int i = 0; i < n; i++) {
        const double *a = explanation_weights(e, l, h) + i * (i + 1) / 2;
        double s[EXPLAIN_T], sum = 0, total = 0;
        for (int j = 0; j <= i; j++) {
            s[j] = 0;
            for (int d = 0; d < D; d++) s[j] += (double)q[i * 3 * A + d] * k[j * 3 * A + d];
            s[j] /= sqrt(D);
            if (c->attn_softcap > 0) s[j] = c->attn_softcap * tanh(s[j] / c->attn_softcap);
            sum += exp(s[j]);
        }
        for (int j = 0; j <= i; j++) {
            worst = fmax(worst, fabs(a[j] - exp(s[j]) / sum)), total += a[j];
            if (i > 0) entropy -= a[j] * log(a[j]) / (n - 1);
        }
        worst_sum = fmax(worst_sum, fabs(total - 1));
        for (int d = 0; d < D; d++) {
            double o = 0;
            for (int j = 0; j <= i; j++)
                o += a[j] *
                     (c->attn == ATTENTION_LASER ? exp((double)v[j * 3 * A + d]) : (double)v[j * 3 * A + d]);
            if (c->attn == ATTENTION_LASER) o = log(o) / c->laser_beta;
            const double got = (double)out[i * A + h * D + d];
            CHECK(fabs(got - o) < 1e-4 * (1 + fabs(o)),
                  "model %d, head %d.%d, row %d: o is %g, the weights give %g", number, l, h, i, got, o);
        }
    }
    CHECK(worst < 1e-12 && worst_sum < 1e-12, "model %d, head %d.%d: weights differ by %g, their sums by %g",
          number, l, h, worst, worst_sum);
    CHECK(fabs(head_entropy(&e->sums[l * c->heads + h]) - entropy) < 1e-9,
          "model %d, head %d.%d: entropy %g, not %g", number, l, h, head_entropy(&e->sums[l * c->heads + h]),
          entropy);
}

static void test_explain_weights_are_those_of_attention(void) {
    enum { V = 61 };
    int32_t tokens[EXPLAIN_T];
    explain_tokens(tokens, V);
    for (int number = 0; number < EXPLAIN_CONFIGS; number++) {
        Model model = explain_model(number, V);
        Explanation e = explanation_of(&model, tokens, EXPLAIN_T);
        const AttentionShape shape = attention_shape(&model.config, 1, EXPLAIN_T);
        model_forward(&model, tokens, 1, EXPLAIN_T);
        for (int l = 0; l < EXPLAIN_L; l++) {
            const float *in = model.weights.layers[l].q_norm ? attention_inputs(&model, l, &shape)
                                                             : model.activations.layers[l].qkv;
            for (int h = 0; h < model.config.heads; h++)
                explain_check_head(&e, number, l, h, in, model.activations.layers[l].attn_out);
        }
        explanation_free(&e), model_free(&model);
    }
}

/* LASER's change is the difference of its output to the plain average. It is that of the layer's output: with
   --laser-beta, attention's own is divided by beta. */
static void test_explain_tells_what_laser_changes(void) {
    enum { V = 61 };
    int32_t tokens[EXPLAIN_T];
    explain_tokens(tokens, V);
    for (int number = 1; number <= 2; number++) {
        Model model = explain_model(number, V);
        Explanation e = explanation_of(&model, tokens, EXPLAIN_T);
        const ModelConfig *c = &model.config;
        const AttentionShape shape = attention_shape(c, 1, EXPLAIN_T);
        const int l = EXPLAIN_L - 1, h = 1, D = c->head_dim, A = c->heads * D;
        model_forward(&model, tokens, 1, EXPLAIN_T);
        const float *in = model.weights.layers[l].q_norm ? attention_inputs(&model, l, &shape)
                                                         : model.activations.layers[l].qkv;
        double differences = 0, averages = 0, largest = 0, span = 0;
        for (int d = 0; d < D; d++) {
            double least = INFINITY, most = -INFINITY;
            for (int i = 0; i < EXPLAIN_T; i++) {
                const double *a = explanation_weights(&e, l, h) + i * (i + 1) / 2;
                double average = 0;
                for (int j = 0; j <= i; j++)
                    average += a[j] * (double)in[j * 3 * A + 2 * A + h * D + d] / c->laser_beta;
                const double o = (double)model.activations.layers[l].attn_out[i * A + h * D + d];
                differences += (o - average) * (o - average), averages += average * average;
                largest = fmax(largest, o - average);
                least = fmin(least, (double)in[i * 3 * A + 2 * A + h * D + d]);
                most = fmax(most, (double)in[i * 3 * A + 2 * A + h * D + d]);
            }
            span = fmax(span, most - least);
        }
        const LaserChange *change = &e.changes[l * c->heads + h];
        CHECK(largest > 0.01 && fabs(change->largest / largest - 1) < 1e-3,
              "model %d: largest difference %g, not %g", number, change->largest, largest);
        CHECK(fabs(change->share / sqrt(differences / averages) - 1) < 1e-3, "model %d: share %g, not %g",
              number, change->share, sqrt(differences / averages));
        CHECK(fabs(e.sums[l * c->heads + h].v_range - span) < 1e-9, "model %d: span %g, not %g", number,
              e.sums[l * c->heads + h].v_range, span);
        explanation_free(&e), model_free(&model);
    }
}

/* The model without the layers from `layers` on, with the same weights. */
static Model explain_shorter_model(const Model *model, int layers) {
    ModelConfig c = model->config;
    c.layers = layers;
    Model shorter = model_plan(&c, 1);
    model_allocate(&shorter);
    for (int i = 0; i < shorter.parameters.count; i++) {
        const Tensor *to = &shorter.parameters.tensors[i];
        for (int x = 0; x < model->parameters.count; x++) {
            const Tensor *from = &model->parameters.tensors[x];
            if (strcmp(from->name, to->name) == 0)
                memcpy(shorter.weights.memory + to->offset, model->weights.memory + from->offset,
                       to->count * sizeof(float));
        }
    }
    model_repack(&shorter);
    return shorter;
}

/* A stage of the logit lens is a model that ends there: its predictions must be those of a model with fewer layers, and
   the last stage those of the model. Then the page shows what would be predicted, softcap, norm and tie included. */
static void test_explain_lens_is_that_of_a_shorter_model(void) {
    enum { V = 61 };
    int32_t tokens[EXPLAIN_T];
    explain_tokens(tokens, V);
    for (int number = 0; number < EXPLAIN_CONFIGS; number++) {
        Model model = explain_model(number, V);
        Explanation e = explanation_of(&model, tokens, EXPLAIN_T);
        for (int l = 1; l <= EXPLAIN_L; l++) {
            Model shorter = explain_shorter_model(&model, l);
            double p[V], worst = 0;
            int wrong = 0;
            model_forward(&shorter, tokens, 1, EXPLAIN_T);
            for (int t = 0; t < EXPLAIN_T; t++) {
                explain_softmax(p, model_logits(&shorter, t), V);
                for (int i = 0; i < EXPLAIN_GUESSES; i++) {
                    const Guess *guess = explanation_guess(&e, l, t, i);
                    int likelier = 0;
                    for (int v = 0; v < V; v++)
                        likelier += p[v] > p[guess->token] || (p[v] == p[guess->token] && v < guess->token);
                    wrong += likelier != i;
                    worst = fmax(worst, fabs(guess->p / p[guess->token] - 1));
                }
                const Truth *truth = explanation_truth(&e, l, t);
                if (t + 1 == EXPLAIN_T) {
                    CHECK(isnan(truth->p), "model %d: the last token has a next one", number);
                    continue;
                }
                int likelier = 0;
                for (int v = 0; v < V; v++) likelier += p[v] > p[tokens[t + 1]];
                worst = fmax(worst, fabs(truth->p / p[tokens[t + 1]] - 1));
                wrong += likelier != truth->likelier;
            }
            CHECK(wrong == 0 && worst < 1e-5,
                  "model %d, stage %d: %d tokens at a wrong place, probabilities differ by %g", number, l,
                  wrong, worst);
            model_free(&shorter);
        }
        explanation_free(&e), model_free(&model);
    }
}

/* Losses are -log p of the prompt's own tokens; gradients those of a backward run as training makes it, here of a model
   that computes its layers again (--recompute=block). */
static void test_explain_gradients_are_those_of_a_step(void) {
    enum { V = 61 };
    int32_t tokens[EXPLAIN_T];
    explain_tokens(tokens, V);
    for (int number = 0; number < EXPLAIN_CONFIGS; number++) {
        Model model = explain_model(number, V);
        for (size_t i = 0; i < model.gradients.count; i++)
            model.gradients.memory[i] = 9; /* of an earlier step */
        Explanation e = explanation_of(&model, tokens, EXPLAIN_T);
        ModelConfig c = model.config;
        c.recompute = RECOMPUTE_BLOCK;
        Model other = model_plan(&c, 1);
        model_allocate(&other);
        memcpy(other.weights.memory, model.weights.memory, model.weights.count * sizeof(float));
        model_repack(&other);
        double p[V], sum = 0;
        model_forward(&other, tokens, 1, EXPLAIN_T);
        for (int t = 0; t + 1 < EXPLAIN_T; t++) {
            explain_softmax(p, model_logits(&other, t), V);
            const double loss = -log(p[tokens[t + 1]]);
            sum += loss;
            CHECK(fabs(e.losses[t + 1] - loss) < 1e-4, "model %d: loss %d is %g, not %g", number, t + 1,
                  e.losses[t + 1], loss);
        }
        CHECK(isnan(e.losses[0]) && fabs(e.mean_loss - sum / (EXPLAIN_T - 1)) < 1e-5,
              "model %d: mean loss %g, not %g", number, e.mean_loss, sum / (EXPLAIN_T - 1));
        model_forward(&other, tokens, 1, EXPLAIN_T - 1);
        model_loss(&other, tokens + 1, EXPLAIN_T - 1, 1.0f / (EXPLAIN_T - 1));
        model_backward(&other, tokens, 1, EXPLAIN_T - 1);
        for (int i = 0; i < other.parameters.count; i++) {
            const Tensor *t = &other.parameters.tensors[i];
            const double want = sqrt(gradient_squares(other.gradients.memory + t->offset, t->count));
            CHECK(want > 0 && fabs(e.gradients[i] / want - 1) < 1e-6, "model %d, %s: gradient %g, not %g",
                  number, t->name, e.gradients[i], want);
        }
        explanation_free(&e), model_free(&model), model_free(&other);
    }
}

/* Lengths: what the blocks add must be the difference that forward made; the attention's is computed from its matrix. */
static void test_explain_sizes_are_lengths(void) {
    enum { V = 61 };
    int32_t tokens[EXPLAIN_T];
    explain_tokens(tokens, V);
    Model model = explain_model(0, V);
    Explanation e = explanation_of(&model, tokens, EXPLAIN_T);
    const int C = model.config.embd, A = model.config.heads * model.config.head_dim;
    model_forward(&model, tokens, 1, EXPLAIN_T);
    for (int l = 0; l < EXPLAIN_L; l++)
        for (int t = 0; t < EXPLAIN_T; t++) {
            const LayerActivations *acts = &model.activations.layers[l];
            const float *after =
                l + 1 < EXPLAIN_L ? model.activations.layers[l + 1].input : model.activations.output;
            double squares[3] = {0};
            for (int c = 0; c < C; c++) {
                double added = 0;
                for (int a = 0; a < A; a++)
                    added += (double)model.weights.layers[l].o[c * A + a] * acts->attn_out[t * A + a];
                const double mlp = (double)after[t * C + c] - acts->input[t * C + c] - added;
                squares[0] += (double)after[t * C + c] * after[t * C + c];
                squares[1] += added * added, squares[2] += mlp * mlp;
            }
            const double got[] = {e.stream[(l + 1) * EXPLAIN_T + t], e.attention[l * EXPLAIN_T + t],
                                  e.mlp[l * EXPLAIN_T + t]};
            for (int i = 0; i < 3; i++)
                CHECK(fabs(got[i] / sqrt(squares[i]) - 1) < 1e-4, "layer %d, token %d, length %d: %g, not %g",
                      l, t, i, got[i], sqrt(squares[i]));
        }
    explanation_free(&e), model_free(&model);
}

/* A code holds three digits of a weight, and a larger weight has a larger code. */
static void test_explain_codes_hold_three_digits(void) {
    static const struct {
        double a;
        const char *text;
    } cases[] = {{1, "1"},
                 {0.99951, "1"},
                 {0.9994, "0.999"},
                 {0.1, "0.100"},
                 {0.09996, "0.100"},
                 {0.09994, "0.0999"},
                 {0.0123, "0.0123"},
                 {0.001234, "0.00123"},
                 {0.0001, "1.00e-4"},
                 {1.2345e-7, "1.23e-7"},
                 {1e-8, "1.00e-8"},
                 {9e-9, "<1e-8"},
                 {0, "<1e-8"}};
    char text[FORMAT_SIZE];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK(strcmp(weight_text(text, weight_code(cases[i].a)), cases[i].text) == 0,
              "%g is shown as %s, not %s", cases[i].a, text, cases[i].text);
    int last = 0;
    for (double a = 1e-9; a <= 1; a *= 1.0003) {
        const int code = weight_code(a);
        const double shown = strtod(weight_text(text, code), NULL);
        CHECK(code >= last && (code == 0 || fabs(shown / a - 1) < 0.00501), "%.8g is shown as %s", a, text);
        last = code;
    }
}

/* Sizes have three digits, and the rows of a table are comparable by eye as long as they need no exponent. */
static void test_explain_shows_three_digits(void) {
    static const struct {
        double x;
        const char *size, *small;
    } cases[] = {{0, "0.00", "0"},
                 {0.00012345, "0.00", "1.2e-04"},
                 {0.00099949, "0.00", "1.0e-03"},
                 {0.0009996, "0.00", "0.00100"},
                 {0.0050349, "0.01", "0.00503"},
                 {0.099949, "0.10", "0.0999"},
                 {0.09996, "0.10", "0.100"},
                 {9.9949, "9.99", "9.99"},
                 {9.996, "10.0", "10.0"},
                 {4803.2, "4803", "4803"},
                 {123456, "1.2e+05", "1.2e+05"},
                 {INFINITY, "-", "-"},
                 {NAN, "-", "-"}};
    char text[FORMAT_SIZE];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK(strcmp(size_text(text, cases[i].x), cases[i].size) == 0, "size %g is shown as %s, not %s",
              cases[i].x, text, cases[i].size);
        CHECK(strcmp(small_text(text, cases[i].x), cases[i].small) == 0, "%g is shown as %s, not %s",
              cases[i].x, text, cases[i].small);
    }
}

static void test_explain_names_tensors_in_words(void) {
    static const char *const cases[][2] = {
        {"model.layers.%d.self_attn.q_proj.weight|layers.%d.attn.q.weight", "q"},
        {"model.layers.%d.mlp.up_proj.bias", "up bias"},
        {"model.layers.%d.input_layernorm.weight", "attention norm"},
        {"model.layers.%d.post_attention_layernorm.bias", "MLP norm bias"},
        {"model.layers.%d.post_self_attn_layernorm.weight", "attention output norm"},
        {"model.layers.%d.post_mlp_layernorm.weight", "MLP output norm"},
        {"model.norm.weight|final_norm.weight", "final norm"},
        {"model.embed_tokens.weight", "embed tokens"},
        {"lm_head.weight", "output"}};
    char text[64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const TensorRow row = {.name = cases[i][0]};
        const Tensor tensor = {.row = &row};
        CHECK(strcmp(tensor_short(text, &tensor), cases[i][1]) == 0, "%s is '%s', not '%s'", cases[i][0],
              text, cases[i][1]);
    }
}

/* ---- the page ---- */

/* Whether every element of a page ends, in the right order. Scripts and styles hold no elements. */
static void explain_check_elements(const char *html, const char *what) {
    static const char *const never_end[] = {"meta", "br", "!doctype"};
    char open[32][16];
    int depth = 0;
    for (const char *at = html; (at = strchr(at, '<'));) {
        char name[16] = "";
        const bool ends = at[1] == '/';
        size_t length = strcspn(at + 1 + ends, " >/\n"), whole;
        bool quoted = false;
        for (whole = 1; at[whole] && (quoted || at[whole] != '>'); whole++) {
            if (at[whole] == '"') quoted = !quoted;
            REQUIRE(at[whole] != '<', "%s: a < in the element %.60s", what, at);
        }
        REQUIRE(at[whole] == '>' && length > 0 && length < sizeof name, "%s: no element: %.60s", what, at);
        memcpy(name, at + 1 + ends, length), name[length] = 0;
        bool single = at[whole - 1] == '/';
        for (size_t i = 0; i < sizeof never_end / sizeof *never_end; i++)
            single |= strcmp(name, never_end[i]) == 0;
        if (ends) {
            REQUIRE(depth > 0 && strcmp(open[depth - 1], name) == 0, "%s: </%s> ends <%s>", what, name,
                    depth ? open[depth - 1] : "nothing");
            depth--;
        } else if (!single) {
            REQUIRE(depth < 32, "%s: elements are nested too deep at %.60s", what, at);
            strcpy(open[depth++], name);
        }
        at += whole;
        if (strcmp(name, "script") == 0 || strcmp(name, "style") == 0)
            at = ends ? at : strstr(at, name[1] == 'c' ? "</script>" : "</style>");
        REQUIRE(at, "%s: <%s> does not end", what, name);
    }
    CHECK(depth == 0, "%s: <%s> does not end", what, depth ? open[depth - 1] : "");
}

/* The page of an explanation, and its data for the script; free() the one and cJSON_Delete the other. */
static char *explain_page_text(const Explanation *e, const Tokenizer *tokenizer, const char *prompt,
                               cJSON **data) {
    char *html = NULL;
    size_t size = 0;
    const ExplainPage page = {e, tokenizer, prompt, "runs/<first>", sharpest_head(e)};
    FILE *f = open_memstream(&html, &size);
    explain_write_page(f, &page);
    fclose(f);
    const char *start = strstr(html, "id=\"data\">"), *end = start ? strstr(start, "</script>") : NULL;
    *data = end ? cJSON_ParseWithLength(start + 10, (size_t)(end - start - 10)) : NULL;
    return html;
}

static double explain_number(const cJSON *json, int i) { return cJSON_GetArrayItem(json, i)->valuedouble; }

/* The numbers that the script shows must be those of the explanation. */
static void explain_check_data(const Explanation *e, const cJSON *data, int number) {
    const ModelConfig *c = &e->model->config;
    const cJSON *lens = cJSON_GetObjectItem(data, "lens"), *next = cJSON_GetObjectItem(data, "next");
    const cJSON *stream = cJSON_GetObjectItem(cJSON_GetObjectItem(data, "stream"), "lengths");
    const cJSON *truth = cJSON_GetObjectItem(data, "truth");
    const cJSON *weights = cJSON_GetObjectItem(data, "weights"), *words = cJSON_GetObjectItem(data, "words");
    const char *letters = json_text(data, "letters");
    REQUIRE(cJSON_GetArraySize(lens) == c->layers + 1 && cJSON_GetArraySize(next) == e->n, "model %d: sizes",
            number);
    for (int t = 0; t < e->n; t++) {
        const cJSON *row = cJSON_GetArrayItem(next, t);
        for (int i = 0; i < EXPLAIN_GUESSES; i++) {
            const Guess *guess = explanation_guess(e, c->layers, t, i);
            char id[16];
            snprintf(id, sizeof id, "%d", guess->token);
            CHECK(explain_number(row, 2 * i) == guess->token &&
                      fabs(explain_number(row, 2 * i + 1) - guess->p) < 1e-3 * guess->p,
                  "model %d: guess %d of token %d", number, i, t);
            CHECK(cJSON_IsString(cJSON_GetObjectItem(words, id)), "model %d: token %s has no text", number,
                  id);
        }
    }
    for (int l = 0; l <= c->layers; l++)
        for (int t = 0; t < e->n; t++) {
            const cJSON *row = cJSON_GetArrayItem(cJSON_GetArrayItem(lens, l), t);
            const cJSON *real = cJSON_GetArrayItem(cJSON_GetArrayItem(truth, l), t);
            const double length = explain_number(cJSON_GetArrayItem(stream, l), t);
            CHECK(cJSON_GetArraySize(row) == 10 &&
                      explain_number(row, 0) == explanation_guess(e, l, t, 0)->token,
                  "model %d: stage %d of token %d", number, l, t);
            CHECK(explain_number(real, 1) == explanation_truth(e, l, t)->likelier,
                  "model %d: rank at stage %d of token %d", number, l, t);
            CHECK(fabs(length / e->stream[l * e->n + t] - 1) < 1e-4, "model %d: length %g", number, length);
        }
    for (int at = 0; at < c->layers * c->heads && e->has_weights; at++) {
        const char *codes = cJSON_GetStringValue(cJSON_GetArrayItem(weights, at));
        REQUIRE(letters && codes && strlen(codes) == (size_t)(e->n * (e->n + 1)),
                "model %d: codes of head %d", number, at);
        for (int i = 0; i < e->n * (e->n + 1) / 2; i++) {
            const int code = (int)(strchr(letters, codes[2 * i]) - letters) * (int)strlen(letters) +
                             (int)(strchr(letters, codes[2 * i + 1]) - letters);
            const double a = explanation_weights(e, at / c->heads, at % c->heads)[i];
            CHECK(code == weight_code(a), "model %d, head %d: weight %d, %g, has the code %d", number, at, i,
                  a, code);
        }
    }
}

static void test_explain_page_shows_the_numbers(void) {
    static const char *const forbidden[] = {"http:",   "https:", "//",   "src=",    "href=", "url(",
                                            "@import", "<link",  "<img", "<b>bold", "nan",   "runs/<"};
    Tokenizer *tokenizer = hostile_tokenizer();
    int32_t tokens[EXPLAIN_T];
    explain_tokens(tokens, tokenizer_vocab_size(tokenizer));
    tokens[1] = '<', tokens[2] = '&', tokens[3] = '"',
    tokens[4] = '\n'; /* the first tokens are the bytes, in an order */
    for (int number = 0; number < EXPLAIN_CONFIGS + 2; number++) {
        Model model = explain_model(number % EXPLAIN_CONFIGS, tokenizer_vocab_size(tokenizer));
        Explanation e = explanation_of(&model, tokens, number == EXPLAIN_CONFIGS + 1 ? 1 : EXPLAIN_T);
        cJSON *data;
        char what[32];
        snprintf(what, sizeof what, "model %d", number);
        if (number == EXPLAIN_CONFIGS)
            e.has_weights = false; /* as of a kind of attention that is not known */
        char *html = explain_page_text(&e, tokenizer, "</h1><b>bold & \"x\"\n\x1b[31m\xff", &data);
        explain_check_elements(html, what);
        char *json = strstr(html, "id=\"data\">"); /* in which weights are any letters */
        REQUIRE(json && data, "%s: the data is not JSON", what);
        *json = 0;
        for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
            CHECK(!strstr(html, forbidden[i]), "%s: '%s' at %.60s", what, forbidden[i],
                  strstr(html, forbidden[i]));
        CHECK(strstr(html, "<h1>&lt;/h1&gt;&lt;b&gt;bold &amp; &quot;x&quot; \\x1b[31m\\xff</h1>"),
              "%s: heading: %.80s", what, strstr(html, "<h1>"));
        CHECK(!strstr(html, "but not how this model's kind of attention") == (number != EXPLAIN_CONFIGS),
              "%s: weights that are not known", what);
        CHECK(!strstr(html, "What LASER changes") == (model.config.attn != ATTENTION_LASER),
              "%s: LASER's section", what);
        explain_check_data(&e, data, number);
        free(html), cJSON_Delete(data), explanation_free(&e), model_free(&model);
    }
    tokenizer_free(tokenizer);
}

/* A page must stay small enough to be mailed, also of a model of GPT-2's size and the longest prompt that is allowed without
   an option. Its weights are as untrained ones, all alike, which takes little room; here every head has others. */
static void test_explain_page_is_bounded(void) {
    Tokenizer *tokenizer = hostile_tokenizer();
    const ModelConfig c = {.layers = 12,
                           .heads = 12,
                           .head_dim = 4,
                           .embd = 48,
                           .mlp_hidden = 16,
                           .seq_len = 64,
                           .vocab_size = tokenizer_vocab_size(tokenizer),
                           .norm_eps = 1e-6,
                           .rope_theta = 10000,
                           .laser_beta = 1,
                           .attn_grad_scale = 1,
                           .attn = ATTENTION_LASER};
    Model model = model_plan(&c, 1);
    model_allocate(&model);
    model_init(&model, 1);
    for (size_t i = 0; i < model.weights.count; i++) model.weights.memory[i] *= 12;
    model_repack(&model);
    int32_t tokens[64];
    for (uint64_t t = 0; t < 64; t++) tokens[t] = (int32_t)(rng_bits(8, RNG_STREAM_TEST, t) % 262);
    Explanation e = explanation_of(&model, tokens, 64);
    cJSON *data;
    char *html = explain_page_text(&e, tokenizer, "a prompt", &data);
    CHECK(strlen(html) < 3 << 20, "the page has %zu bytes", strlen(html));
    CHECK(data, "the data is not JSON");
    free(html), cJSON_Delete(data), explanation_free(&e), model_free(&model), tokenizer_free(tokenizer);
}

/* ---- the program ---- */

static int explain_run(const char *folder, const char *command, char *output, size_t size) {
    return test_command(output, size, "E=$(cd %s && pwd)/explain; cd %s && %s", test_binaries(), folder,
                        command);
}

/* Wrong input is named in one line that says what to do, and no page is left behind. */
static void test_explain_refuses_wrong_input(void) {
    static const struct {
        const char *command;
        int code;
        const char *says;
    } cases[] = {
        {"$E .", 2, "there is no prompt: give --prompt=TEXT or --prompt-file=FILE"},
        {"$E --prompt=a", 2, "give one checkpoint"},
        {"$E --prompt= .", 2, "--prompt is empty"},
        {"$E --prompt=a --prompt-file=b .", 2, "--prompt and --prompt-file are both given"},
        {"$E --prompt-file= .", 2, "--prompt-file is empty"},
        {"$E --prompt-file=gone .", 1, "gone"},
        {"echo > empty; $E --prompt-file=empty .", 1, "'empty' has no text"},
        {"$E --prompt-file=- . < /dev/null", 1, "has no text"},
        {"$E --promt=a .", 2, "--prompt"},
        {"$E --prompt=a --tokens-limit=0 .", 2, "--tokens-limit=0"},
        {"$E --prompt=zqzqzqzqzqzqzq .", 1, "has 14 tokens, the model sees at most 13"},
        {"$E --prompt=zqzqzq --tokens-limit=5 .", 1, "has 6 tokens, the page shows at most 5"},
        {"mkdir nothing; $E --prompt=a nothing", 1, "'nothing' holds no checkpoint"},
        {"$E --prompt=a --out=gone/x.html .", 1, "name a file in a folder that exists: --out=FILE"},
        {"mkdir folder.html; $E --prompt=a --out=folder.html .", 1, "folder.html"},
        {"mv tokenizer.json t; $E --prompt=a .; code=$?; mv t tokenizer.json; exit $code", 1,
         "tokenizer.json"},
        {"printf '{\"a\": 1}' > config.json; $E --prompt=a .", 1, "config.json"},
    };
    char folder[256], output[4096], path[300];
    snprintf(folder, sizeof folder, "%s", test_folder());
    hostile_write_good(folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int code = explain_run(folder, cases[i].command, output, sizeof output);
        const char *error = strstr(output, "error: ");
        CHECK(code == cases[i].code && error && strstr(error, cases[i].says), "%s: exit %d: %s",
              cases[i].command, code, output);
    }
    snprintf(path, sizeof path, "%s/explain.html", folder);
    CHECK(access(path, F_OK) != 0, "a refused prompt has left a page");
}

/* The same command writes the same bytes, with any number of threads; any bytes may be a prompt; and the summary tells the
   size of the page. */
static void test_explain_writes_the_same_page(void) {
    char folder[256], output[8192], path[300];
    snprintf(folder, sizeof folder, "%s", test_folder());
    hostile_write_good(folder);
    int code = explain_run(folder,
                           "$E --prompt='<script>x' --threads=1 . && $E --prompt='<script>x' --threads=3 "
                           "--out=again.html . && cmp explain.html again.html",
                           output, sizeof output);
    CHECK(code == 0 && strstr(output, "prompt  9 tokens, mean loss ") &&
              strstr(output, "page    explain.html, "),
          "exit %d: %s", code, output);
    snprintf(path, sizeof path, "%s/explain.html", folder);
    size_t size;
    char *html = check_file_read(path, FILE_REGULAR, 1 << 24, &size, "");
    CHECK(!strstr(html, "<script>x") && strstr(html, "<h1>&lt;script&gt;x</h1>"),
          "the prompt is not escaped");
    explain_check_elements(html, "explain.html");
    free(html);
    code = explain_run(folder, "printf '\\377\\0\\033[\\303' > bytes; $E --prompt-file=bytes --out= .",
                       output, sizeof output);
    CHECK(code == 0 && strstr(output, "prompt  5 tokens") && !strstr(output, "page "), "exit %d: %s", code,
          output);
    code = explain_run(folder,
                       "$E --prompt=' ' . && grep -c '<title>(spaces only): inside the model' explain.html",
                       output, sizeof output);
    CHECK(code == 0 && strstr(output, "\n1\n"), "exit %d: %s", code, output);
    code = explain_run(folder, "printf 'a' | $E --prompt-file=- .", output, sizeof output);
    CHECK(code == 0 && strstr(output, "prompt  1 token\n"), "exit %d: %s", code, output);
}

#define EXPLAIN_TESTS(TEST)                                                                                  \
    TEST(explain_weights_are_those_of_attention)                                                             \
    TEST(explain_tells_what_laser_changes)                                                                   \
    TEST(explain_lens_is_that_of_a_shorter_model)                                                            \
    TEST(explain_gradients_are_those_of_a_step)                                                              \
    TEST(explain_sizes_are_lengths)                                                                          \
    TEST(explain_codes_hold_three_digits)                                                                    \
    TEST(explain_shows_three_digits)                                                                         \
    TEST(explain_names_tensors_in_words)                                                                     \
    TEST(explain_page_shows_the_numbers)                                                                     \
    TEST(explain_page_is_bounded)                                                                            \
    TEST(explain_refuses_wrong_input)                                                                        \
    TEST(explain_writes_the_same_page)

#endif
