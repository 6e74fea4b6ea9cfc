/* analysis.h: the analysis that the LASER paper argues with: attention's weights, its Jacobians, and the gradients of
   its matrices, for each layer and head of a model. docs/analysis.md says what each number means, and
   attention_measure.h has the formulas.

   Analysis a = analysis_create(kind, layers, heads, windows, seq_len)   for that many windows of T tokens;
                                  analysis_free(&a) when done
   analysis_layer(&a, l, q, k, v, dout, &shape)   adds what backward has at hand in layer l: the arrays that it gives to
                                  attention_backward
   analysis_gradients(&a, &parameters, gradients)   takes over the gradients of Wq, Wk, Wv and Wo, after backward of all
                                  windows
   analysis_numbers[]             ONE table of the numbers: its name in JSON, its heading, how it is written, and the
                                  function that computes it from an AnalysisSums
   analysis_of_head, analysis_of_layer, analysis_of_all   the AnalysisSums of a part of the model
   analysis_text(text, number, x) a number as tables show it
   analysis_to_json(&a, heads)    all numbers; with `heads` also those of each head, and the histograms. The caller
                                  frees the object
   analysis_log(&log, step, &a)   writes a line {"step": 40, "analysis": {...}} to log.jsonl, and a line on the screen
   analysis_fits_log(layers, heads)   whether such a line is short enough to be read

   An analysis is of few windows, so that it costs little, and always of the same ones, so that analyses can be
   compared. ds is the gradient of the sum of a window's losses, so it does not depend on the number of windows. The
   gradients of the matrices are those of the mean loss of all tokens, as in training. */
#ifndef GPT_RUN_ANALYSIS_H
#define GPT_RUN_ANALYSIS_H

#include <math.h>
#include <string.h>
#include "../io/json.h"
#include "../math/attention_measure.h"
#include "../math/tensor_table.h"
#include "log.h"

enum { ANALYSIS_WINDOWS = 8 }; /* of --analyze-every, and the default of ./analyze */

/* What the paper reports of its trained model of 2.2 billion parameters: the shares of attention weights below 1e-3 and
   below 1e-7. */
#define ANALYSIS_PAPER_BELOW_1E3 0.8
#define ANALYSIS_PAPER_BELOW_1E7 0.2

/* exp(x) in float32 is a number with all its digits down to this x; it is 0 from about -104 on, and infinite from 88.7
   on. */
#define ANALYSIS_EXP_RANGE 87.3

/* The matrices of attention, as parameters are named: model.layers.N.self_attn.q_proj.weight and so on. */
static const char *const analysis_matrices[] = {"q", "k", "v", "o"};
enum { ANALYSIS_MATRICES = sizeof analysis_matrices / sizeof *analysis_matrices };

/* The sums of a head, a layer or all layers. Those of a head have no gradients. */
typedef struct {
    AttentionSums attention;
    double gradient_squares[ANALYSIS_MATRICES], gradient_counts[ANALYSIS_MATRICES];
} AnalysisSums;

typedef struct {
    AttentionKind kind;
    int layers, heads, windows, seq_len; /* L H, how many windows, T */
    double mean_loss;                    /* of all tokens of the windows */
    AttentionSums *of_heads;             /* (L, H) */
    AnalysisSums *of_layers;             /* (L) only the gradients: attention's sums are those of the heads */
} Analysis;

static inline Analysis analysis_create(AttentionKind kind, int layers, int heads, int windows, int seq_len) {
    Analysis a = {.kind = kind, .layers = layers, .heads = heads, .windows = windows, .seq_len = seq_len};
    const size_t count = (size_t)layers * (size_t)heads;
    a.of_heads = check_calloc(count * sizeof *a.of_heads);
    a.of_layers = check_calloc((size_t)layers * sizeof *a.of_layers);
    for (size_t i = 0; i < count; i++) a.of_heads[i] = attention_sums_empty();
    return a;
}

static inline void analysis_free(Analysis *a) { free(a->of_heads), free(a->of_layers), *a = (Analysis){0}; }

/* What the gradients of the sum of the losses are multiplied with, to be those of the mean loss. */
static inline float analysis_gradient_scale(const Analysis *a) {
    return 1.0f / ((float)a->windows * (float)a->seq_len);
}

static inline void analysis_layer(Analysis *a, int layer, const float *q, const float *k, const float *v,
                                  const float *dout, const AttentionShape *shape) {
    AttentionSums *of_layer = a->of_heads + (size_t)layer * (size_t)a->heads;
    attention_measure(of_layer, a->kind, q, k, v, dout, analysis_gradient_scale(a), shape);
}

static inline void analysis_gradients(Analysis *a, const TensorTable *parameters, const float *gradients) {
    for (int i = 0; i < parameters->count; i++) {
        const Tensor *t = &parameters->tensors[i];
        for (int m = 0; m < ANALYSIS_MATRICES; m++) {
            char name[sizeof t->name];
            snprintf(name, sizeof name, "model.layers.%d.self_attn.%s_proj.weight", t->layer,
                     analysis_matrices[m]);
            if (strcmp(t->name, name) != 0) continue;
            AnalysisSums *sums = &a->of_layers[t->layer];
            for (size_t x = t->offset; x < t->offset + t->count; x++)
                sums->gradient_squares[m] += (double)gradients[x] * gradients[x];
            sums->gradient_counts[m] = (double)t->count;
        }
    }
}

/* ---- the sums of a part of the model ---- */

static inline AnalysisSums analysis_of_head(const Analysis *a, int layer, int head) {
    return (AnalysisSums){.attention = a->of_heads[(size_t)layer * (size_t)a->heads + (size_t)head]};
}

static inline void analysis_add(AnalysisSums *to, const AnalysisSums *from) {
    attention_sums_add(&to->attention, &from->attention);
    for (int m = 0; m < ANALYSIS_MATRICES; m++) {
        to->gradient_squares[m] += from->gradient_squares[m];
        to->gradient_counts[m] += from->gradient_counts[m];
    }
}

static inline AnalysisSums analysis_of_layer(const Analysis *a, int layer) {
    AnalysisSums sums = a->of_layers[layer];
    sums.attention = attention_sums_empty();
    for (int h = 0; h < a->heads; h++) {
        const AnalysisSums head = analysis_of_head(a, layer, h);
        analysis_add(&sums, &head);
    }
    return sums;
}

static inline AnalysisSums analysis_of_all(const Analysis *a) {
    AnalysisSums sums = {.attention = attention_sums_empty()};
    for (int l = 0; l < a->layers; l++) {
        const AnalysisSums layer = analysis_of_layer(a, l);
        analysis_add(&sums, &layer);
    }
    return sums;
}

/* ---- the numbers ---- */

/* The share of all weights a_ij that lie below 10^-decade. */
static inline double analysis_below(const AnalysisSums *s, int decade) {
    double below = 0;
    for (int n = decade; n < ATTENTION_BINS; n++) below += s->attention.bins[n];
    return below / s->attention.pairs;
}

/* The root mean square of sqrt(sum_d J_ijd^2) over the pairs of a decade; NaN when it has none. */
static inline double analysis_bin(const AnalysisSums *s, int jacobian, int bin) {
    return sqrt(s->attention.bin_jacobians[jacobian][bin] / s->attention.bins[bin]);
}

static inline double analysis_gradient(const AnalysisSums *s, int matrix) {
    return sqrt(s->gradient_squares[matrix] / s->gradient_counts[matrix]);
}

static inline double analysis_v_deviation(const AnalysisSums *s) {
    const AttentionSums *a = &s->attention;
    const double mean = a->v_sum / a->v_count;
    return sqrt(fmax(0, a->v_squares / a->v_count - mean * mean));
}

#define ANALYSIS_NUMBER(name, expression)                                                                    \
    static inline double name(const AnalysisSums *s) { return expression; }
ANALYSIS_NUMBER(analysis_entropy, s->attention.entropy / s->attention.rows)
ANALYSIS_NUMBER(analysis_entropy_share, s->attention.entropy_share / s->attention.rows)
ANALYSIS_NUMBER(analysis_largest_score, s->attention.largest_score)
ANALYSIS_NUMBER(analysis_below_1e3, analysis_below(s, 3))
ANALYSIS_NUMBER(analysis_below_1e7, analysis_below(s, 7))
ANALYSIS_NUMBER(analysis_score_gradient, sqrt(s->attention.score_gradients / s->attention.pairs))
ANALYSIS_NUMBER(analysis_jacobian_standard, s->attention.jacobians[JACOBIAN_STANDARD] / s->attention.rows)
ANALYSIS_NUMBER(analysis_jacobian_laser, s->attention.jacobians[JACOBIAN_LASER] / s->attention.rows)
ANALYSIS_NUMBER(analysis_jacobian_ratio,
                s->attention.jacobians[JACOBIAN_LASER] / s->attention.jacobians[JACOBIAN_STANDARD])
ANALYSIS_NUMBER(analysis_p_below_1e3, s->attention.p_below_1e3 / s->attention.p_count)
ANALYSIS_NUMBER(analysis_p_below_1e7, s->attention.p_below_1e7 / s->attention.p_count)
ANALYSIS_NUMBER(analysis_gradient_q, analysis_gradient(s, 0))
ANALYSIS_NUMBER(analysis_gradient_k, analysis_gradient(s, 1))
ANALYSIS_NUMBER(analysis_gradient_v, analysis_gradient(s, 2))
ANALYSIS_NUMBER(analysis_gradient_o, analysis_gradient(s, 3))
ANALYSIS_NUMBER(analysis_v_min, s->attention.v_min)
ANALYSIS_NUMBER(analysis_v_max, s->attention.v_max)
ANALYSIS_NUMBER(analysis_v_range, s->attention.v_range)
#undef ANALYSIS_NUMBER

typedef enum { ANALYSIS_FIXED, ANALYSIS_EXPONENT, ANALYSIS_PERCENT } AnalysisStyle;

typedef struct {
    const char *key;     /* in JSON */
    const char *heading; /* of its column */
    const char *title;   /* in words */
    AnalysisStyle style; /* 1.234, 1.2e-03 or 12.3 % */
    double (*value)(const AnalysisSums *sums);
} AnalysisNumber;

typedef enum {
    ANALYSIS_ENTROPY,
    ANALYSIS_ENTROPY_SHARE,
    ANALYSIS_LARGEST_SCORE,
    ANALYSIS_BELOW_1E3,
    ANALYSIS_BELOW_1E7,
    ANALYSIS_SCORE_GRADIENT,
    ANALYSIS_JACOBIAN_STANDARD,
    ANALYSIS_JACOBIAN_LASER,
    ANALYSIS_JACOBIAN_RATIO,
    ANALYSIS_P_BELOW_1E3,
    ANALYSIS_P_BELOW_1E7,
    ANALYSIS_GRADIENT_Q,
    ANALYSIS_GRADIENT_K,
    ANALYSIS_GRADIENT_V,
    ANALYSIS_GRADIENT_O,
    ANALYSIS_V_MIN,
    ANALYSIS_V_MAX,
    ANALYSIS_V_DEVIATION,
    ANALYSIS_V_RANGE,
    ANALYSIS_NUMBERS
} AnalysisKey;

static const AnalysisNumber analysis_numbers[] = {
    [ANALYSIS_ENTROPY] = {"entropy", "entropy", "Entropy of a row, in nats", ANALYSIS_FIXED,
                          analysis_entropy},
    [ANALYSIS_ENTROPY_SHARE] = {"entropy_share", "of max", "Entropy, as a share of the largest",
                                ANALYSIS_PERCENT, analysis_entropy_share},
    [ANALYSIS_LARGEST_SCORE] = {"largest_score", "score", "Largest score", ANALYSIS_FIXED,
                                analysis_largest_score},
    [ANALYSIS_BELOW_1E3] = {"below_1e-3", "a<1e-3", "Attention weights below 1e-3", ANALYSIS_PERCENT,
                            analysis_below_1e3},
    [ANALYSIS_BELOW_1E7] = {"below_1e-7", "a<1e-7", "Attention weights below 1e-7", ANALYSIS_PERCENT,
                            analysis_below_1e7},
    [ANALYSIS_SCORE_GRADIENT] = {"score_gradient", "ds", "Gradient of the scores, root mean square",
                                 ANALYSIS_EXPONENT, analysis_score_gradient},
    [ANALYSIS_JACOBIAN_STANDARD] = {"jacobian_standard", "J std.", "Size of standard attention's Jacobian",
                                    ANALYSIS_FIXED, analysis_jacobian_standard},
    [ANALYSIS_JACOBIAN_LASER] = {"jacobian_laser", "J laser", "Size of LASER's Jacobian", ANALYSIS_FIXED,
                                 analysis_jacobian_laser},
    [ANALYSIS_JACOBIAN_RATIO] = {"jacobian_ratio", "J ratio", "LASER's Jacobian / standard attention's",
                                 ANALYSIS_FIXED, analysis_jacobian_ratio},
    [ANALYSIS_P_BELOW_1E3] = {"p_below_1e-3", "p<1e-3", "LASER's p below 1e-3", ANALYSIS_PERCENT,
                              analysis_p_below_1e3},
    [ANALYSIS_P_BELOW_1E7] = {"p_below_1e-7", "p<1e-7", "LASER's p below 1e-7", ANALYSIS_PERCENT,
                              analysis_p_below_1e7},
    [ANALYSIS_GRADIENT_Q] = {"gradient_q", "d Wq", "Gradient of Wq, root mean square", ANALYSIS_EXPONENT,
                             analysis_gradient_q},
    [ANALYSIS_GRADIENT_K] = {"gradient_k", "d Wk", "Gradient of Wk, root mean square", ANALYSIS_EXPONENT,
                             analysis_gradient_k},
    [ANALYSIS_GRADIENT_V] = {"gradient_v", "d Wv", "Gradient of Wv, root mean square", ANALYSIS_EXPONENT,
                             analysis_gradient_v},
    [ANALYSIS_GRADIENT_O] = {"gradient_o", "d Wo", "Gradient of Wo, root mean square", ANALYSIS_EXPONENT,
                             analysis_gradient_o},
    [ANALYSIS_V_MIN] = {"v_min", "v min", "Smallest v", ANALYSIS_FIXED, analysis_v_min},
    [ANALYSIS_V_MAX] = {"v_max", "v max", "Largest v", ANALYSIS_FIXED, analysis_v_max},
    [ANALYSIS_V_DEVIATION] = {"v_deviation", "v dev.", "Standard deviation of v", ANALYSIS_FIXED,
                              analysis_v_deviation},
    [ANALYSIS_V_RANGE] = {"v_range", "v range", "Largest range of v in a column", ANALYSIS_FIXED,
                          analysis_v_range},
};
_Static_assert(sizeof analysis_numbers / sizeof *analysis_numbers == ANALYSIS_NUMBERS,
               "a row for each number");

static inline const char *analysis_text(char text[FORMAT_SIZE], const AnalysisNumber *number, double x) {
    if (!isfinite(x))
        snprintf(text, FORMAT_SIZE, "-");
    else if (number->style == ANALYSIS_PERCENT)
        snprintf(text, FORMAT_SIZE, "%.1f%%", 100 * x);
    else if (number->style == ANALYSIS_EXPONENT)
        snprintf(text, FORMAT_SIZE, "%.1e", x);
    else
        snprintf(text, FORMAT_SIZE, fabs(x) < 1e4 ? "%.*f" : "%.*e",
                 fabs(x) < 10    ? 3
                 : fabs(x) < 100 ? 2
                                 : 1,
                 x);
    return text;
}

/* ---- in JSON ---- */

/* Five digits are more than such numbers are good for, and keep the lines of the log short. */
static inline cJSON *analysis_json_number(double x) {
    char text[32];
    snprintf(text, sizeof text, isfinite(x) ? "%.5g" : "null", x);
    return cJSON_CreateRaw(text);
}

/* An array over the layers; with `heads` each is an array over the heads. */
static inline cJSON *analysis_json_layers(const Analysis *a, const AnalysisNumber *number, bool heads) {
    cJSON *layers = cJSON_CreateArray();
    for (int l = 0; l < a->layers; l++) {
        const AnalysisSums layer = analysis_of_layer(a, l);
        cJSON *item = heads ? cJSON_CreateArray() : analysis_json_number(number->value(&layer));
        for (int h = 0; h < a->heads && heads; h++) {
            const AnalysisSums head = analysis_of_head(a, l, h);
            cJSON_AddItemToArray(item, analysis_json_number(number->value(&head)));
        }
        cJSON_AddItemToArray(layers, item);
    }
    return layers;
}

/* Of the weights a_ij in each decade, the largest first: their share of all, and the size of either Jacobian. */
static inline cJSON *analysis_json_histogram(const AnalysisSums *sums) {
    cJSON *histogram = cJSON_CreateObject(), *shares = cJSON_AddArrayToObject(histogram, "share");
    cJSON *standard = cJSON_AddArrayToObject(histogram, analysis_numbers[ANALYSIS_JACOBIAN_STANDARD].key);
    cJSON *laser = cJSON_AddArrayToObject(histogram, analysis_numbers[ANALYSIS_JACOBIAN_LASER].key);
    for (int n = 0; n < ATTENTION_BINS; n++) {
        cJSON_AddItemToArray(shares, analysis_json_number(sums->attention.bins[n] / sums->attention.pairs));
        cJSON_AddItemToArray(standard, analysis_json_number(analysis_bin(sums, JACOBIAN_STANDARD, n)));
        cJSON_AddItemToArray(laser, analysis_json_number(analysis_bin(sums, JACOBIAN_LASER, n)));
    }
    return histogram;
}

static inline cJSON *analysis_to_json(const Analysis *a, bool heads) {
    cJSON *json = cJSON_CreateObject();
    const AnalysisSums sums = analysis_of_all(a);
    json_add_number(json, "windows", a->windows);
    json_add_number(json, "seq_len", a->seq_len);
    cJSON_AddItemToObject(json, "mean_loss", analysis_json_number(a->mean_loss));
    cJSON *all = cJSON_AddObjectToObject(json, "all"), *layers = cJSON_AddObjectToObject(json, "layers");
    cJSON *of_heads = cJSON_AddObjectToObject(json, "heads");
    for (int n = 0; n < ANALYSIS_NUMBERS; n++) {
        const AnalysisNumber *number = &analysis_numbers[n];
        cJSON_AddItemToObject(all, number->key, analysis_json_number(number->value(&sums)));
        cJSON_AddItemToObject(layers, number->key, analysis_json_layers(a, number, false));
        const bool of_matrix = n >= ANALYSIS_GRADIENT_Q && n <= ANALYSIS_GRADIENT_O;
        if (n == ANALYSIS_ENTROPY || (heads && !of_matrix))
            cJSON_AddItemToObject(of_heads, number->key, analysis_json_layers(a, number, true));
    }
    if (!heads) return json;
    cJSON_AddItemToObject(json, "histogram", analysis_json_histogram(&sums));
    cJSON *histograms = cJSON_AddArrayToObject(json, "layer_histograms");
    for (int l = 0; l < a->layers; l++) {
        const AnalysisSums layer = analysis_of_layer(a, l);
        cJSON_AddItemToArray(histograms, analysis_json_histogram(&layer));
    }
    return json;
}

/* ---- in the log ---- */

/* A number of a layer takes at most 12 characters with its comma. */
static inline bool analysis_fits_log(int64_t layers, int64_t heads) {
    return 12 * layers * (ANALYSIS_NUMBERS + heads) < LOG_LINE_MAX - 4096;
}

static inline void analysis_log(Log *log, long step, const Analysis *a) {
    char text[3][FORMAT_SIZE], cell[LOG_CELL_SIZE];
    const AnalysisSums sums = analysis_of_all(a);
    cJSON *json = analysis_to_json(a, false);
    char *object = cJSON_PrintUnformatted(json);
    if (!object) die("no memory to write the analysis of step %ld", step);
    const size_t size = strlen(object) + 64;
    char *line = check_calloc(size);
    log_append(log, line, snprintf(line, size, "{\"step\": %ld, \"analysis\": %s}\n", step, object));
    log->analysed_step = step;
    static const AnalysisKey shown[] = {ANALYSIS_BELOW_1E3, ANALYSIS_BELOW_1E7, ANALYSIS_ENTROPY};
    for (int i = 0; i < 3; i++) {
        const AnalysisNumber *number = &analysis_numbers[shown[i]];
        analysis_text(text[i], number, number->value(&sums));
    }
    const LogRow row = {.train.step = step};
    log_cell(cell, &log_fields[0], &row, log->total_steps);
    log_message(log, "%*s  attention weights %s below 1e-3, %s below 1e-7; entropy %s",
                log_width(&log_fields[0], log->total_steps), cell, text[0], text[1], text[2]);
    free(line), cJSON_free(object), cJSON_Delete(json);
}

#endif
