/* course_model.h: the numbers and pictures of chapters 0 to 9 of docs/course, which are about the model and its training.

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

/* The first `count` sequences of the run into course_tokens. */
static void periodic_sequences(int count) {
    for (int b = 0; b < count; b++) data_sample(course_tokens + b * T, course_tokens + N + b * T, b);
}

/* Trains the model, and prints some of its losses. The activations of the last step stay. */
static void periodic_train(void) {
    for (int step = 0; step < steps; step++) train_step(step, course_tokens, course_tokens + N);
}

/* The weight a_ij of layer 0 in the first sequence, from what forward kept for backward. */
static double attention_weight(int i, int j) {
    const float *q = acts.layers[0].qkv + i * 3 * A, *k = acts.layers[0].qkv + j * 3 * A + A;
    return exp((double)dot(q, k, D) / sqrt(D) - (double)acts.layers[0].attn_lse[i]);
}

/* The root mean square of n numbers. */
static double rms(const float *x, int n) { return sqrt((double)dot(x, x, n) / n); }

/* ----------------------------------------------------------------------------------------- 0. the map ---- */

typedef struct {
    const char *name;
    int times; /* in a layer: L, else 1 */
    double parameters, products;
} Part;

/* The parts of the model that `make demo` trains, and what each of them has and does for a token: parameters, and
   multiplications in forward. A key is seen by half of the queries on average. */
static int map_parts(Part *parts) {
    const double c = 256, f = 768, a = 256, t = 256, vocabulary = 2048;
    const Part all[] = {{"embedding: a row of embed", 1, vocabulary * c, 0},
                        {"RMSNorm", 6, c, 2 * c},
                        {"q, k, v", 6, 3 * a * c, 3 * a * c},
                        {"rope", 6, 0, 4 * a},
                        {"attention", 6, 0, 2 * a * t / 2},
                        {"o, added to the stream", 6, a * c, a * c},
                        {"RMSNorm", 6, c, 2 * c},
                        {"up", 6, f * c, f * c},
                        {"gelu", 6, 0, 0},
                        {"down, added to the stream", 6, f * c, f * c},
                        {"RMSNorm", 1, c, 2 * c},
                        {"logits: embed again", 1, 0, vocabulary * c},
                        {"loss: cross-entropy", 1, 0, 0}};
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
    Part parts[16];
    const int count = map_parts(parts);
    svg_begin(560, 34 * count + 70);
    svg_text(20, 24, "start", "tokens (N), one line a part; in the frame: six layers");
    svg_box(10, 40 + 34, 540, 34 * 9, blue, 0.08);
    for (int i = 0; i < count; i++) {
        const Part *p = &parts[i];
        const double y = 40 + 34 * i;
        svg_box(20, y + 4, 200, 26, blue, 0.15 + 0.5 * (p->parameters > 1000));
        svg_text(30, y + 22, "start", p->name);
        if (p->parameters > 0) svg_text(370, y + 22, "end", label("%.0f parameters", p->parameters));
        if (p->products > 0) svg_text(540, y + 22, "end", label("%.0f products", p->products));
        if (i) svg_line(120, y - 4, 120, y + 4, black);
    }
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
        periodic_sequences(B);
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

/* --------------------------------------------------------------------------------------- 4. attention ---- */

static void attention_numbers(void) {
    periodic_model(0, 1);
    periodic_train();
    printf("\nposition  letter  next    loss   weight of the letter four places before\n");
    for (int i = 0; i < T; i++) {
        double loss = 0;
        for (int n = i; n < N; n += T) /* logits have become (softmax(logits) - (v == target)) / N */
            loss -= log(1 + (double)acts.logits[n * V + course_tokens[N + n]] * N) / B;
        printf("%8d  %6c  %4c  %6.3f", i, 'a' + course_tokens[i], 'a' + course_tokens[N + i], loss);
        if (i > 3) printf("   %.3f", attention_weight(i, i - 4));
        printf("\n");
    }
}

/* The weights in the first sequence, as squares that are the darker, the larger the weight is. */
static void attention_panel(double left, const char *title) {
    const double top = 56, cell = 13;
    svg_text(left, 24, "start", title);
    for (int i = 0; i < T; i++) {
        const char letter[2] = {(char)('a' + course_tokens[i]), 0};
        svg_text(left + cell * (i + 0.5), top - 6, "middle", letter);
        svg_text(left - 8, top + cell * (i + 0.85), "middle", letter);
        svg_box(left, top + cell * i, cell * (i + 1) - 1, cell - 1, blue,
                0.06); /* the keys that the query sees */
        for (int j = 0; j <= i; j++)
            if (attention_weight(i, j) > 0.01)
                svg_box(left + cell * j, top + cell * i, cell - 1, cell - 1, blue, attention_weight(i, j));
    }
    svg_text(left, top + cell * T + 22, "start", "a row is a query i, a column a key j");
}

static void attention_picture(void) {
    periodic_model(0, 1);
    svg_begin(620, 350);
    periodic_sequences(B);
    model_forward(course_tokens);
    attention_panel(30, "before the first step");
    periodic_train();
    attention_panel(340, "after 300 steps");
}

/* ------------------------------------------------------------------------------------------- 5. LASER ---- */

/* The derivative of the first output of a row with respect to the score of key 0, as attention_backward computes it. The
   row sees two keys: key 0 has weight a and value x, key 1 the value 0. */
static double two_key_jacobian(double a, double x, int with_laser) {
    L = 1, H = 1, D = 2, A = 2, T = 2, N = 2, laser = with_laser;
    const float score =
        (float)((log(a) - log1p(-a)) * sqrt(2)); /* q . k / sqrt(D) is the logarithm of a / (1 - a) */
    /* rows of q, k, v for token 0 and token 1; the query is that of token 1 */
    const float qkv[12] = {0, 0, score, 0, (float)x, 0, 1, 0, 0, 0, 0, 0}, dout[4] = {0, 0, 1, 0};
    float out[4], lse[2], dqkv[12];
    attention_forward(out, lse, qkv);
    attention_backward(dqkv, dout, qkv, out, lse);
    return (double)dqkv[2] * sqrt(2); /* dk = ds * q / sqrt(D), and q is 1 */
}

static void laser_numbers(void) {
    static const double values[] = {0.1, 1, 4, -4}, powers[] = {0.3010299957, 1, 2, 3, 4, 5, 6};
    printf("derivative of o with respect to the score of a key of weight a, whose value is x above the "
           "other's\n");
    for (int x = 0; x < 4; x++) {
        printf("\nx = %4.1f   %-9s %12s %12s %8s\n", values[x], "a", "standard", "LASER", "ratio");
        for (int i = 0; i < 7; i++) {
            const double a = pow(10, -powers[i]), standard = two_key_jacobian(a, values[x], 0),
                         with_laser = two_key_jacobian(a, values[x], 1);
            printf("           %-9.1e %12.3e %12.3e %8.3f\n", a, standard, with_laser, with_laser / standard);
        }
    }
}

static void laser_picture(void) {
    chart = (Chart){70, 480, 300, {-6, 0}, {-6, 0}};
    svg_begin(620, 400);
    svg_text(chart.left, 24, "start", "|derivative of o with respect to the score of a key|");
    for (int power = -6; power <= 0; power++) {
        const char *const text = power ? label("1e%d", power) : "1";
        chart_row(power, grey, text);
        chart_column(power, text);
    }
    svg_text(chart_x(-3), 382, "middle", "a, the weight of the key; its value is 4 above the other's");
    for (int kind = 0; kind < 2; kind++) {
        curve_begin(kind ? red : blue);
        for (int i = 0; i <= 120; i++) {
            const double log_a = -6 + 5.96 * i / 120;
            curve_point(log_a, log10(fabs(two_key_jacobian(pow(10, log_a), 4, kind))));
        }
        curve_end();
        svg_text(200, kind ? 135 : 285, "middle", kind ? "LASER" : "standard");
    }
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
    periodic_sequences(B);
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
static const char *const backward_names[BACKWARD_TENSORS] = {"down", "up", "mlp_norm", "o",
                                                             "q",    "k",  "v",        "attn_norm"};
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
    static const char *const labels[BACKWARD_TENSORS] = {"down, o", "up, v", "mlp_norm", "",
                                                         "q, k",    "",      "",         "attn_norm"};
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
