/* course_model.h: the numbers and pictures of chapters 0 to 9 of docs/course, which are about the model and its training,
   without those of chapters 4 and 5, which course_attention.h has.

   The model is docs/course/tiny_gpt.c, which this file includes. A chapter that trains one uses a made-up language; see
   periodic_data(). tools/course.c has the table of all topics. */
#ifndef TOOLS_COURSE_MODEL_H
#define TOOLS_COURSE_MODEL_H

#define main tiny_gpt_main
#include "../docs/course/tiny_gpt.c"
#undef main
#include "course_svg.h"

/* ------------------------------------------------------------------------------------- a tiny language ---- */

enum { PERIOD = 5, LETTERS = 8, WINDOWS = 400 };

/* Every window of T tokens repeats five random letters of eight, such as ghacbghacbghacb... So nothing tells the first
   five letters, and after them each letter is the one that came five places earlier, four places before the one that
   is read. */
static void periodic_data(void) {
    V = LETTERS, data_count = WINDOWS * T + 1, data = zeros(data_count, 1);
    for (int i = 0; i < data_count; i++) {
        const int window = i / T, t = i % T;
        data[i] = (int)(rng_bits(4 << 16, (uint64_t)(window * PERIOD + t % PERIOD)) % LETTERS);
    }
}

static int *course_tokens; /* (2, N) those of the latest step, and the token that follows each */

static void periodic_model(int with_laser, int layers) {
    L = layers, H = 1, D = 16, A = 16, C = 32, F = 64, T = 20, B = 8, N = B * T;
    steps = 300, warmup = 20, lr = 1e-2, laser = with_laser;
    periodic_data();
    model_create();
    course_tokens = zeros(2, N);
}

/* Into course_tokens: the B sequences that this step of the run reads. */
static void periodic_sequences(int step) {
    for (int b = 0; b < B; b++) data_sample(course_tokens + b * T, course_tokens + N + b * T, step * B + b);
}

/* Trains the model, and prints some of its losses. The activations of the last step stay. */
static void periodic_train(void) {
    for (int step = 0; step < steps; step++) train_step(step, course_tokens, course_tokens + N);
}

/* The root mean square of n numbers. */
static double rms(const float *x, int n) { return sqrt((double)dot(x, x, n) / n); }

/* ----------------------------------------------------------------------------------------- 0. the map ---- */

typedef struct {
    const char *name;
    int times; /* in a layer: L, else 1 */
    double parameters, products;
    int matrix; /* whether it uses a matrix of parameters */
} Part;

/* The parts of the model that `make demo` trains, and what each of them has and does for a token: parameters, and
   multiplications in forward. A key is seen by half of the queries on average. */
static int map_parts(Part *parts) {
    const double c = 256, f = 768, a = 256, t = 256, vocabulary = 2048;
    const Part all[] = {{"embedding: a row of embed", 1, vocabulary * c, 0, 1},
                        {"RMSNorm", 6, c, 2 * c, 0},
                        {"W_q, W_k, W_v", 6, 3 * a * c, 3 * a * c, 1},
                        {"rope", 6, 0, 4 * a, 0},
                        {"attention", 6, 0, 2 * a * t / 2, 0},
                        {"W_o, added to the stream", 6, a * c, a * c, 1},
                        {"RMSNorm", 6, c, 2 * c, 0},
                        {"W_up", 6, f * c, f * c, 1},
                        {"gelu", 6, 0, 0, 0},
                        {"W_down, added to the stream", 6, f * c, f * c, 1},
                        {"RMSNorm", 1, c, 2 * c, 0},
                        {"logits: embed again", 1, 0, vocabulary * c, 1},
                        {"loss: cross-entropy", 1, 0, 0, 0}};
    memcpy(parts, all, sizeof all);
    return sizeof all / sizeof *all;
}

static void map_numbers(void) {
    Part parts[16];
    double sums[2] = {0};
    const int count = map_parts(parts);
    printf("%-28s %5s %12s %16s\n", "part", "times", "parameters", "products a token");
    for (int i = 0; i < count; i++) {
        const Part *p = &parts[i];
        printf("%-28s %5d %12.0f %16.0f\n", p->name, p->times, p->parameters, p->products);
        sums[0] += p->times * p->parameters, sums[1] += p->times * p->products;
    }
    printf("%-34s %12.0f %16.0f\n", "all, with their times", sums[0], sums[1]);
}

static void map_picture(void) {
    const double dark = 0.65, light = 0.2, layer = 0.1, top = 64;
    Part parts[16];
    const int count = map_parts(parts);
    svg_begin(560, (int)top + 34 * count + 96);
    svg_text(20, 24, "start", "the model of make demo, from the tokens (above) to the loss (below)");
    svg_text(370, 52, "end", "parameters");
    svg_text(540, 52, "end", "multiplications, one token");
    for (int i = 0, first = 1; i < count; i++) {
        const Part *p = &parts[i];
        const double y = top + 34 * i;
        if (p->times > 1 && first) svg_box(10, y, 540, 34 * 9, blue, layer), first = 0;
        svg_box(20, y + 4, 210, 26, "#fff", 1);
        svg_box(20, y + 4, 210, 26, blue, p->matrix ? dark : light);
        svg_text(30, y + 22, "start", p->name);
        if (p->parameters > 0) svg_text(370, y + 22, "end", label("%.0f", p->parameters));
        if (p->products > 0) svg_text(540, y + 22, "end", label("%.0f", p->products));
        if (i) svg_line(120, y - 4, 120, y + 4, black);
    }
    const double y = top + 34 * count + 28;
    svg_key(20, y, blue, dark, "uses a matrix of parameters (the logits use that of the embedding)");
    svg_key(20, y + 22, blue, light, "uses no matrix");
    svg_key(20, y + 44, blue, layer, "a layer: there are six, one after the other, each with these parts");
}

/* ------------------------------------------------------------------------------------ 1. text to tokens ---- */

enum { MERGES = 14, PIECES = 16, PIECE_TOKENS = 8, TOKEN_SIZE = 16 };
static const char *const sentence =
    "the new show is slower than the old show and the newest show is the slowest";

typedef struct {
    char token[PIECES][PIECE_TOKENS]
              [TOKEN_SIZE]; /* a piece is a word with the space before it; _ stands for a space */
    int length[PIECES], pieces;
} Pieces;

static Pieces tokens_begin(void) {
    Pieces p = {.pieces = 1};
    for (const char *c = sentence; *c; c++) {
        if (*c == ' ') p.pieces++;
        snprintf(p.token[p.pieces - 1][p.length[p.pieces - 1]++], TOKEN_SIZE, "%c", *c == ' ' ? '_' : *c);
    }
    return p;
}

static int tokens_count(const Pieces *p) {
    int sum = 0;
    for (int i = 0; i < p->pieces; i++) sum += p->length[i];
    return sum;
}

/* Merges the pair (left, right) wherever it occurs; returns how often. With `change` 0 it only counts. */
static int tokens_merge(Pieces *p, const char *left, const char *right, int change) {
    int count = 0;
    for (int i = 0; i < p->pieces; i++)
        for (int j = 0; j + 1 < p->length[i]; j++) {
            if (strcmp(p->token[i][j], left) != 0 || strcmp(p->token[i][j + 1], right) != 0) continue;
            count++;
            if (!change) continue;
            strncat(p->token[i][j], p->token[i][j + 1], TOKEN_SIZE - 1 - strlen(left));
            p->length[i]--;
            memmove(p->token[i][j + 1], p->token[i][j + 2], (size_t)(p->length[i] - j - 1) * TOKEN_SIZE);
        }
    return count;
}

/* One step of BPE: merges the pair that occurs most often; of several the first in the sentence. Returns how often it
   occurred, and the pair. */
static int tokens_step(Pieces *p, char left[TOKEN_SIZE], char right[TOKEN_SIZE]) {
    int best = 1; /* a pair that occurs once is not merged */
    for (int i = 0; i < p->pieces; i++)
        for (int j = 0; j + 1 < p->length[i]; j++) {
            const int count = tokens_merge(p, p->token[i][j], p->token[i][j + 1], 0);
            if (count <= best) continue;
            best = count;
            memcpy(left, p->token[i][j], TOKEN_SIZE), memcpy(right, p->token[i][j + 1], TOKEN_SIZE);
        }
    if (best > 1) tokens_merge(p, left, right, 1);
    return best;
}

static void tokens_print(const Pieces *p) {
    for (int i = 0; i < p->pieces; i++)
        for (int j = 0; j < p->length[i]; j++) printf("%s%s", i + j ? "|" : "   ", p->token[i][j]);
    printf("\n");
}

static void tokens_numbers(void) {
    Pieces p = tokens_begin();
    char left[TOKEN_SIZE], right[TOKEN_SIZE];
    printf("%d tokens\n", tokens_count(&p));
    tokens_print(&p);
    for (int merge = 1; merge <= MERGES; merge++) {
        const int count = tokens_step(&p, left, right);
        printf("merge %d: %s + %s, which occurs %d times; %d tokens\n", merge, left, right, count,
               tokens_count(&p));
        if (merge <= 4 || merge == MERGES) tokens_print(&p);
    }
}

static void tokens_picture(void) {
    Pieces p = tokens_begin();
    char left[TOKEN_SIZE], right[TOKEN_SIZE];
    svg_begin(770, 60 + 30 * (MERGES / 2 + 1));
    svg_text(10, 24, "start", "the tokens of the sentence after 0, 2, 4, ... merges");
    for (int merge = 0; merge <= MERGES; merge++) {
        if (merge) tokens_step(&p, left, right);
        if (merge % 2) continue;
        double x = 40, y = 46 + 15 * merge;
        svg_text(28, y + 15, "end", label("%d", merge));
        for (int i = 0; i < p.pieces; i++)
            for (int j = 0; j < p.length[i]; j++) {
                const double width = 9.4 * (double)strlen(p.token[i][j]);
                svg_box(x, y, width - 1.5, 22, blue, strlen(p.token[i][j]) > 1 ? 0.35 : 0.12);
                svg_text(x + width / 2 - 1, y + 15, "middle", p.token[i][j]);
                x += width;
            }
    }
}

/* ---------------------------------------------------------------------------------------- 2. positions ---- */

/* q . k / D for a query at position i and a key at position j <= i, whose vectors are all ones before rope turns them. */
static double rope_score(int i, int j, int size) {
    L = 1, H = 1, D = size, A = size, N = i + 1, T = N;
    float *qkv = zeros(N, 3 * A);
    for (int n = 0; n < N * 3 * A; n++) qkv[n] = 1;
    rope_rotate(qkv, 1);
    const double score = (double)dot(qkv + i * 3 * A, qkv + j * 3 * A + A, D) / D;
    free(qkv);
    return score;
}

static void positions_numbers(void) {
    printf("q . k / D after rope, where q and k are ones, D = 64\n\n");
    printf("distance i - j    at i = 20   at i = 200   at i = 2000\n");
    for (int distance = 0; distance <= 16; distance += distance < 4 ? 1 : 4)
        printf("%14d %12.4f %12.4f %13.4f\n", distance, rope_score(20, 20 - distance, 64),
               rope_score(200, 200 - distance, 64), rope_score(2000, 2000 - distance, 64));
}

static void positions_picture(void) {
    chart_begin((Chart){60, 500, 220, {0, 128}, {0, 1}},
                "q . k / D after rope, where q and k are ones, D = 64");
    for (int tick = 0; tick <= 4; tick++) {
        chart_row(1 - 0.25 * tick, grey, label("%.2f", 1 - 0.25 * tick));
        chart_column(32 * tick, label("%d", 32 * tick));
    }
    curve_begin(blue);
    for (int i = 0; i <= 128; i++) curve_point(i, rope_score(200, 200 - i, 64));
    curve_end();
    chart_caption("i - j, the distance between query and key");
}

/* ------------------------------------------------------------------------------------------ 3. RMSNorm ---- */

/* The root mean square of the residual stream as it enters each layer, and after the last: of the first sequences, before
   training (row 0) and after 40 steps (row 1). */
static void norm_streams(double size[2][MAX_LAYERS + 1]) {
    periodic_model(0, 8);
    for (int trained = 0; trained < 2; trained++) {
        for (int step = 0; step < 40 && trained; step++) train_step(step, course_tokens, course_tokens + N);
        periodic_sequences(0);
        model_forward(course_tokens);
        for (int l = 0; l <= L; l++)
            size[trained][l] = rms(l < L ? acts.layers[l].input : acts.output, N * C);
    }
}

static void norm_numbers(void) {
    double size[2][MAX_LAYERS + 1];
    norm_streams(size);
    printf("\nroot mean square of the residual stream\n\nbefore layer   untrained   after 40 steps   after "
           "RMSNorm\n");
    for (int l = 0; l <= L; l++)
        printf("%12d %11.4f %16.4f %15.4f\n", l, size[0][l], size[1][l],
               rms(l < L ? acts.layers[l].attn_in : acts.norm, N * C));
}

static void norm_picture(void) {
    double size[2][MAX_LAYERS + 1];
    norm_streams(size);
    chart_begin((Chart){60, 440, 240, {0, L}, {-2, 1}}, "root mean square of the residual stream");
    for (int power = -2; power <= 1; power++) chart_row(power, grey, label("%g", pow(10, power)));
    for (int l = 0; l <= L; l++) chart_column(l, label("%d", l));
    for (int trained = 0; trained < 2; trained++) {
        curve_begin(trained ? red : blue);
        for (int l = 0; l <= L; l++) curve_point(l, log10(size[trained][l]));
        curve_end_label(8, trained ? "after 40 steps" : "untrained");
    }
    chart_caption("before layer");
}

/* ---------------------------------------------------------------------------------------------- 6. MLP ---- */

static void gelu_at(double x, double *value, double *slope) {
    float up = (float)x, hidden, dup = 1;
    activation_forward(&hidden, &up, 1);
    activation_backward(&dup, &up, 1);
    *value = (double)hidden, *slope = (double)dup;
}

static void mlp_numbers(void) {
    printf("    x      relu      gelu   slope of gelu   differences\n");
    for (int i = -4; i <= 4; i++) {
        double value, slope, above, below, unused;
        gelu_at(i, &value, &slope);
        gelu_at(i + 1e-2, &above, &unused), gelu_at(i - 1e-2, &below, &unused);
        printf("%5d %9.4f %9.4f %15.4f %13.4f\n", i, fmax(i, 0), value, slope, (above - below) / 2e-2);
    }
}

static void mlp_picture(void) {
    chart = (Chart){60, 480, 240, {-4, 4}, {-1, 3}};
    svg_begin(620, 340);
    svg_text(chart.left, 24, "start", "gelu (blue) and its derivative (red)");
    for (int tick = -1; tick <= 3; tick++) chart_row(tick, tick ? grey : black, label("%d", tick));
    for (int tick = -4; tick <= 4; tick++) chart_column(tick, label("%d", tick));
    for (int slope = 0; slope < 2; slope++) {
        curve_begin(slope ? red : blue);
        for (int i = 0; i <= 96; i++) {
            double y[2];
            const double x = -4 + 7.0 * i / 96;
            gelu_at(x, &y[0], &y[1]);
            curve_point(x, y[slope]);
        }
        curve_end();
    }
}

/* ----------------------------------------------------------------------------------------- 7. the loss ---- */

static void loss_numbers(void) {
    static const double shares[] = {0.999, 0.9, 0.5, 0.1, 0.0743, 0.01, 1e-3, 1.0 / 2048};
    printf("probability p   loss -log p   bits   exp(loss)   gradient p - 1\n");
    for (int i = 0; i < 8; i++)
        printf("%13.5f %13.4f %6.2f %11.1f %16.4f\n", shares[i], -log(shares[i]), -log2(shares[i]),
               1 / shares[i], shares[i] - 1);
}

static void loss_picture(void) {
    chart_begin((Chart){60, 500, 240, {0, 1}, {0, 8}}, "the loss of a token, in nats");
    for (int tick = 0; tick <= 8; tick++) {
        chart_row(tick, grey, label("%d", tick));
        chart_column(tick / 8.0, label("%.3f", tick / 8.0));
    }
    curve_begin(blue);
    for (int i = 0; i < 200; i++) {
        const double loss = 7.62 * i / 199; /* up to that of a guess among 2,048 tokens */
        curve_point(exp(-loss), loss);
    }
    curve_end();
    chart_caption("p, the probability that the model gave to the token");
}

/* ---------------------------------------------------------------------------------------- 8. backward ---- */

static double backward_loss(void) {
    model_forward(course_tokens);
    return cross_entropy_forward_backward(acts.logits, course_tokens + N);
}

/* One step of a model of eight layers that is not trained: forward, loss and backward. */
static void backward_step(void) {
    periodic_model(0, 8);
    periodic_sequences(0);
    memset(gradients.embed, 0, (size_t)parameters * sizeof(float));
    backward_loss();
    model_backward(course_tokens);
}

enum { BACKWARD_TENSORS = 8 };

/* The tensors of a layer, in the order in which backward comes to them. */
static float *backward_tensor(const Weights *w, int l, int i) {
    const LayerWeights *layer = &w->layers[l];
    float *const all[BACKWARD_TENSORS] = {layer->down, layer->up, layer->mlp_norm, layer->o,
                                          layer->q,    layer->k,  layer->v,        layer->attn_norm};
    return all[i];
}
static const char *const backward_names[BACKWARD_TENSORS] = {"W_down", "W_up", "mlp_norm", "W_o",
                                                             "W_q",    "W_k",  "W_v",      "attn_norm"};
static int backward_size(int i) {
    const int sizes[BACKWARD_TENSORS] = {C * F, F * C, C, C * A, A * C, A * C, A * C, C};
    return sizes[i];
}

/* For one element of each tensor: backward's gradient beside that of central differences. */
static void backward_numbers(void) {
    backward_step();
    printf("layer 0    elements   root mean square   element 7: backward   differences\n");
    for (int i = 0; i < BACKWARD_TENSORS; i++) {
        float *w = backward_tensor(&weights, 0, i) + 7, *g = backward_tensor(&gradients, 0, i);
        const float was = *w, h = 1e-2f;
        *w = was + h;
        const double above = backward_loss();
        *w = was - h;
        const double below = backward_loss();
        *w = was;
        printf("%-10s %8d %18.2e %21.6f %13.6f\n", backward_names[i], backward_size(i),
               rms(g, backward_size(i)), (double)g[7], (above - below) / (2 * (double)h));
    }
}

static void backward_picture(void) {
    static const char *const labels[BACKWARD_TENSORS] = {"W_down, W_o", "W_up, W_v", "mlp_norm", "",
                                                         "W_q, W_k",    "",          "",         "attn_norm"};
    backward_step();
    chart_begin((Chart){70, 430, 240, {0, L - 1}, {-6, -2}},
                "root mean square of the gradient of each tensor");
    for (int power = -2; power >= -6; power--) chart_row(power, grey, label("1e%d", power));
    for (int l = L - 1; l >= 0; l--) chart_column(L - 1 - l, label("%d", l));
    for (int i = 0; i < BACKWARD_TENSORS; i++) {
        curve_begin(i == 4 || i == 5 ? red : blue);
        for (int l = L - 1; l >= 0; l--) /* from the last layer to the first, as backward goes */
            curve_point(L - 1 - l, log10(rms(backward_tensor(&gradients, l, i), backward_size(i))));
        curve_end_label(10, labels[i]);
    }
    chart_caption("layer; backward goes from left to right");
}

/* ---- the gradient of the stream ---- */

/* Root mean squares in each layer: of the stream's gradient behind the layer, between its blocks and before it, and of
   what each block adds to that gradient. */
typedef struct {
    double behind, mlp, between, attention, before;
} StreamLayer;

/* Into to (N, C): the gradient of the stream before layer l, or before its MLP block. model_backward leaves it in
   d_residual if it is given only the layers from l on; and if W_o of layer l is 0, nothing comes out of attention. */
static void stream_gradient(float *to, int l, int before_mlp) {
    static Weights all;
    static LayerActivations activations[MAX_LAYERS];
    const int layers = L;
    float *zero = zeros(C, A);
    all = weights, L = layers - l;
    memcpy(activations, acts.layers, sizeof activations);
    memmove(weights.layers, all.layers + l, (size_t)L * sizeof *all.layers);
    memmove(acts.layers, activations + l, (size_t)L * sizeof *activations);
    if (before_mlp) weights.layers[0].o = zero;
    model_backward(course_tokens);
    memcpy(to, acts.d_residual, (size_t)(N * C) * sizeof *to);
    memcpy(acts.layers, activations, sizeof activations);
    weights = all, L = layers;
    free(zero);
}

/* After forward and loss. */
static void stream_layers(StreamLayer *layers) {
    float *behind = zeros(N, C), *between = zeros(N, C), *before = zeros(N, C);
    stream_gradient(behind, L, 0);
    for (int l = L - 1; l >= 0; l--) {
        stream_gradient(between, l, 1), stream_gradient(before, l, 0);
        layers[l] = (StreamLayer){rms(behind, N * C), 0, rms(between, N * C), 0, rms(before, N * C)};
        add_scaled(behind, -1, between, N * C); /* what the MLP has added, with the other sign */
        layers[l].mlp = rms(behind, N * C);
        add_scaled(between, -1, before, N * C);
        layers[l].attention = rms(between, N * C);
        memcpy(behind, before, (size_t)(N * C) * sizeof *behind);
    }
    free(behind), free(between), free(before);
}

static void stream_numbers(void) {
    StreamLayer untrained[MAX_LAYERS], trained[MAX_LAYERS];
    periodic_model(0, 8);
    periodic_sequences(0);
    backward_loss();
    stream_layers(untrained);
    for (int step = 0; step < 40; step++) train_step(step, course_tokens, course_tokens + N);
    periodic_sequences(0);
    backward_loss();
    stream_layers(trained);
    printf("\ngradient of the residual stream: root mean square, in thousandths\n\n");
    printf("%-8s   %-33s   after 40 steps\n", "", "untrained");
    printf("%-8s", "layer");
    for (int i = 0; i < 2; i++) printf("   %9s %8s %14s", "behind it", "MLP adds", "attention adds");
    printf("\n");
    for (int l = L - 1; l >= 0; l--) {
        printf("%-8d", l);
        for (int i = 0; i < 2; i++) {
            const StreamLayer *layer = i ? &trained[l] : &untrained[l];
            printf("   %9.3f %8.3f %14.3f", 1e3 * layer->behind, 1e3 * layer->mlp, 1e3 * layer->attention);
        }
        printf("\n");
    }
    printf("before 0   %9.3f %35.3f\n", 1e3 * untrained[0].before, 1e3 * trained[0].before);
}

/* A block beside the stream: forward on its left, where its result is added below, and the gradient on its right, where
   what comes out of the block is added above. */
static const double stream_forward = 46, stream_backward = 236;

static void stream_block(double y, const char *what) {
    const double left = stream_forward + 36, right = stream_backward - 36;
    svg_box(left, y, right - left, 54, grey, 0.35);
    svg_text((left + right) / 2, y + 31, "middle", what);
    svg_arrow(stream_forward, y + 12, left, y + 12, blue);
    svg_arrow(left, y + 42, stream_forward, y + 42, blue);
    svg_text(stream_forward - 6, y + 46, "end", "+");
    svg_arrow(stream_backward, y + 42, right, y + 42, red);
    svg_arrow(right, y + 12, stream_backward, y + 12, red);
    svg_text(stream_backward + 6, y + 16, "start", "+");
    svg_text(stream_backward + 6, y + 46, "start", "copied");
}

static void stream_row(double y, const char *what, double first, const StreamLayer *layers, int field) {
    svg_text(first - 44, y + 4, "end", what);
    for (int l = 0; l < L; l++) {
        const double values[] = {layers[l].before, layers[l].attention, layers[l].between, layers[l].mlp,
                                 layers[l].behind};
        svg_text(first + 42 * l, y + 4, "end", label("%.2f", 1e3 * values[field]));
    }
}

static void stream_picture(void) {
    static const char *const rows[] = {"before it", "attention adds", "between", "MLP adds", "behind it"};
    static const double heights[] = {96, 126, 188, 216, 278}, first = 394;
    StreamLayer layers[MAX_LAYERS];
    backward_step();
    stream_layers(layers);
    svg_begin(710, 384);
    svg_text(20, 24, "start", "one layer: the residual stream and its gradient");
    svg_text(first + 42 * 7, 24, "end", "root mean square of dx before training, in thousandths");
    svg_text(first - 44, 60, "end", "layer");
    for (int l = 0; l < L; l++) svg_text(first + 42 * l, 60, "end", label("%d", l));
    svg_text(stream_forward, 60, "middle", "x");
    svg_text(stream_backward, 60, "middle", "dx");
    svg_arrow(stream_forward, 70, stream_forward, 296, blue);
    svg_arrow(stream_backward, 296, stream_backward, 70, red);
    stream_block(114, "attention");
    stream_block(204, "MLP");
    for (int i = 0; i < 5; i++) stream_row(heights[i], rows[i], first, layers, i);
    svg_arrow(20, 322, 48, 322, blue);
    svg_text(56, 326, "start", "forward: each block reads x, and its result is added below (+)");
    svg_arrow(48, 344, 20, 344, red);
    svg_text(56, 348, "start",
             "backward: dx is copied into each block, and what comes out is added above (+)");
    svg_text(
        56, 370, "start",
        "Backward begins behind layer 7. Before layer 7 is the same place as behind layer 6, and so on.");
}

/* ---------------------------------------------------------------------------------------- 9. optimizer ---- */

static void optimizer_numbers(void) {
    static const double gradient[] = {0.5, 0.4, -0.1, 0.5, 0.02, 0.6};
    static float all[5];
    parameters = 1, memory = all, weight_decay = 0, lr = 1e-2; /* (w, gradient, m, v, 1 for matrices) */
    printf("a parameter that starts at 0; learning rate 0.01, beta1 0.9, beta2 0.95\n\n");
    printf("step   gradient         m         v   m unbiased   root of v unbiased   change of w\n");
    for (int t = 1; t <= 6; t++) {
        const double was = (double)all[0];
        all[1] = (float)gradient[t - 1];
        adamw_update(lr, 1, t);
        printf("%4d %10.3f %9.4f %9.5f %12.4f %20.4f %13.5f\n", t, gradient[t - 1], (double)all[2],
               (double)all[3], (double)all[2] / (1 - pow(beta1, t)),
               sqrt((double)all[3] / (1 - pow(beta2, t))), (double)all[0] - was);
    }
}

static void optimizer_picture(void) {
    steps = 300, warmup = 40, lr = 3e-3;
    chart_begin((Chart){70, 490, 220, {0, steps}, {0, lr}},
                "learning rate of each step: 40 steps of warmup, then a cosine");
    for (int tick = 0; tick <= 3; tick++) {
        chart_row(1e-3 * tick, grey, label("%.3f", 1e-3 * tick));
        chart_column(100 * tick, label("%d", 100 * tick));
    }
    curve_begin(blue);
    for (int step = 0; step < steps; step++) curve_point(step + 1, learning_rate(step));
    curve_end();
    chart_caption("step");
}

#endif
