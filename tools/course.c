/* course.c: the numbers and pictures of docs/course, computed by the code that the chapters explain.

     build/course TOPIC          prints the numbers of a chapter: one of the names in the table at the end
     build/course TOPIC FILE     draws them into an SVG file; `make course` draws all pictures of docs/course again

   The model is docs/course/tiny_gpt.c, which this file includes. A chapter that trains one here uses a made-up language
   (see periodic_data), so no file is needed but docs/study_runs.csv, and a topic takes about a second. The program is
   compiled without -march=native and without fused multiply-add, so that every machine gets the same numbers. */
#define main tiny_gpt_main
#include "../docs/course/tiny_gpt.c"
#undef main

/* -------------------------------------------------------------------------------------------- drawing ---- */

static FILE *svg; /* the picture; NULL: numbers are printed */

static void svg_begin(int width, int height) {
    fprintf(svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" "
            "font-size=\"13\" fill=\"#222\">\n<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n",
            width, height, width, height);
}

/* anchor: start, middle or end of the text is at (x, y). */
static void svg_text(double x, double y, const char *anchor, const char *text) {
    fprintf(svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, text);
}

static void svg_line(double x1, double y1, double x2, double y2, const char *colour) {
    fprintf(svg, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2,
            colour);
}

static void svg_box(double x, double y, double width, double height, const char *colour, double opacity) {
    fprintf(
        svg,
        "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\" fill-opacity=\"%.3f\"/>\n", x,
        y, width, height, colour, opacity);
}

/* A curve through n points (xs[i], ys[i]). */
static void svg_curve(const double *xs, const double *ys, int n, const char *colour) {
    fprintf(svg, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour);
    for (int i = 0; i < n; i++) fprintf(svg, "%s%.1f,%.1f", i ? " " : "", xs[i], ys[i]);
    fprintf(svg, "\"/>\n");
}

static const char *const blue = "#1f66b0", *const red = "#c0392b", *const grey = "#bbb";

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
    char text[128];
    const int count = map_parts(parts);
    svg_begin(560, 34 * count + 70);
    svg_text(20, 24, "start", "tokens (N), one line a part; in the frame: six layers");
    svg_box(10, 40 + 34, 540, 34 * 9, blue, 0.08);
    for (int i = 0; i < count; i++) {
        const double y = 40 + 34 * i;
        svg_box(20, y + 4, 200, 26, blue, 0.15 + 0.5 * (parts[i].parameters > 1000));
        svg_text(30, y + 22, "start", parts[i].name);
        snprintf(text, sizeof text, "%.0f parameters", parts[i].parameters);
        if (parts[i].parameters > 0) svg_text(370, y + 22, "end", text);
        snprintf(text, sizeof text, "%.0f products", parts[i].products);
        if (parts[i].products > 0) svg_text(540, y + 22, "end", text);
        if (i) svg_line(120, y - 4, 120, y + 4, "#222");
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
    char left[TOKEN_SIZE], right[TOKEN_SIZE], text[64];
    svg_begin(770, 60 + 30 * (MERGES / 2 + 1));
    svg_text(10, 24, "start", "the tokens of the sentence after 0, 2, 4, ... merges");
    for (int merge = 0; merge <= MERGES; merge++) {
        if (merge) tokens_step(&p, left, right);
        if (merge % 2) continue;
        double x = 40, y = 46 + 15 * merge;
        snprintf(text, sizeof text, "%d", merge);
        svg_text(28, y + 15, "end", text);
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
    enum { LEFT = 60, TOP = 40, WIDTH = 500, HEIGHT = 220, POINTS = 129 };
    char text[32];
    double xs[POINTS], ys[POINTS];
    svg_begin(620, TOP + HEIGHT + 70);
    svg_text(LEFT, 24, "start", "q . k / D after rope, where q and k are ones, D = 64");
    for (int tick = 0; tick <= 4; tick++) {
        const double y = TOP + HEIGHT * tick / 4.0;
        snprintf(text, sizeof text, "%.2f", 1 - 0.25 * tick);
        svg_line(LEFT, y, LEFT + WIDTH, y, grey), svg_text(LEFT - 8, y + 4, "end", text);
        snprintf(text, sizeof text, "%d", 32 * tick);
        svg_text(LEFT + WIDTH * tick / 4.0, TOP + HEIGHT + 20, "middle", text);
    }
    for (int i = 0; i < POINTS; i++)
        xs[i] = LEFT + WIDTH * (double)i / (POINTS - 1),
        ys[i] = TOP + HEIGHT * (1 - rope_score(200, 200 - i, 64));
    svg_curve(xs, ys, POINTS, blue);
    svg_text(LEFT + WIDTH / 2, TOP + HEIGHT + 44, "middle", "i - j, the distance between query and key");
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
    enum { LEFT = 60, TOP = 40, WIDTH = 440, HEIGHT = 240 };
    double size[2][MAX_LAYERS + 1], xs[MAX_LAYERS + 1], ys[MAX_LAYERS + 1];
    char text[32];
    norm_streams(size);
    svg_begin(620, TOP + HEIGHT + 70);
    svg_text(LEFT, 24, "start", "root mean square of the residual stream");
    for (int power = 0; power < 4; power++) {
        const double y = TOP + HEIGHT - HEIGHT * power / 3.0;
        snprintf(text, sizeof text, "%g", pow(10, power - 2));
        svg_line(LEFT, y, LEFT + WIDTH, y, grey), svg_text(LEFT - 8, y + 4, "end", text);
    }
    for (int trained = 0; trained < 2; trained++) {
        for (int l = 0; l <= L; l++) {
            xs[l] = LEFT + WIDTH * (double)l / L,
            ys[l] = TOP + HEIGHT - HEIGHT * (log10(size[trained][l]) + 2) / 3;
            snprintf(text, sizeof text, "%d", l);
            if (!trained) svg_text(xs[l], TOP + HEIGHT + 20, "middle", text);
        }
        svg_curve(xs, ys, L + 1, trained ? red : blue);
        svg_text(xs[L] + 8, ys[L] + 4, "start", trained ? "after 40 steps" : "untrained");
    }
    svg_text(LEFT + WIDTH / 2, TOP + HEIGHT + 44, "middle", "before layer");
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
    enum { POINTS = 121, LEFT = 70, TOP = 40, WIDTH = 480, HEIGHT = 300 };
    char text[64];
    double xs[POINTS], ys[POINTS];
    svg_begin(620, 400);
    svg_text(LEFT, 24, "start", "|derivative of o with respect to the score of a key|");
    for (int power = -6; power <= 0; power++) {
        const double y = TOP - HEIGHT / 6.0 * power, x = LEFT + WIDTH * (power + 6) / 6.0;
        snprintf(text, sizeof text, power ? "1e%d" : "1", power);
        svg_line(LEFT, y, LEFT + WIDTH, y, grey), svg_text(LEFT - 8, y + 4, "end", text);
        svg_text(x, TOP + HEIGHT + 20, "middle", text);
    }
    svg_text(LEFT + WIDTH / 2, TOP + HEIGHT + 42, "middle",
             "a, the weight of the key; its value is 4 above the other's");
    for (int kind = 0; kind < 2; kind++) {
        for (int i = 0; i < POINTS; i++) {
            const double log_a = -6 + 5.96 * i / (POINTS - 1);
            const double j = log10(fabs(two_key_jacobian(pow(10, log_a), 4, kind)));
            xs[i] = LEFT + WIDTH * (log_a + 6) / 6, ys[i] = TOP - HEIGHT / 6.0 * j;
        }
        svg_curve(xs, ys, POINTS, kind ? red : blue);
        svg_text(LEFT + 130, TOP + (kind ? 95 : 245), "middle", kind ? "LASER" : "standard");
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
    enum { LEFT = 60, TOP = 40, WIDTH = 480, UNIT = 60, POINTS = 97 };
    double xs[POINTS], values[POINTS], slopes[POINTS];
    char text[32];
    svg_begin(620, TOP + 4 * UNIT + 60);
    svg_text(LEFT, 24, "start", "gelu (blue) and its derivative (red)");
    for (int y = -1; y <= 3; y++) {
        snprintf(text, sizeof text, "%d", y);
        svg_line(LEFT, TOP + UNIT * (3 - y), LEFT + WIDTH, TOP + UNIT * (3 - y), y ? grey : "#222");
        svg_text(LEFT - 8, TOP + UNIT * (3 - y) + 4, "end", text);
    }
    for (int x = -4; x <= 4; x++) {
        snprintf(text, sizeof text, "%d", x);
        svg_text(LEFT + WIDTH * (x + 4) / 8.0, TOP + 4 * UNIT + 20, "middle", text);
    }
    for (int i = 0; i < POINTS; i++) {
        const double x = -4 + 7.0 * i / (POINTS - 1);
        gelu_at(x, &values[i], &slopes[i]);
        xs[i] = LEFT + WIDTH * (x + 4) / 8;
        values[i] = TOP + UNIT * (3 - values[i]), slopes[i] = TOP + UNIT * (3 - slopes[i]);
    }
    svg_curve(xs, values, POINTS, blue);
    svg_curve(xs, slopes, POINTS, red);
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
    enum { LEFT = 60, TOP = 40, WIDTH = 500, HEIGHT = 240, POINTS = 200 };
    double xs[POINTS], ys[POINTS];
    char text[32];
    svg_begin(620, TOP + HEIGHT + 70);
    svg_text(LEFT, 24, "start", "the loss of a token, in nats");
    for (int tick = 0; tick <= 8; tick++) {
        const double y = TOP + HEIGHT * (1 - tick / 8.0), x = LEFT + WIDTH * tick / 8.0;
        snprintf(text, sizeof text, "%d", tick);
        svg_line(LEFT, y, LEFT + WIDTH, y, grey), svg_text(LEFT - 8, y + 4, "end", text);
        snprintf(text, sizeof text, "%.3f", tick / 8.0);
        svg_text(x, TOP + HEIGHT + 20, "middle", text);
    }
    for (int i = 0; i < POINTS; i++) {
        const double loss = 7.62 * i / (POINTS - 1); /* up to that of a guess among 2,048 tokens */
        xs[i] = LEFT + WIDTH * exp(-loss), ys[i] = TOP + HEIGHT * (1 - loss / 8);
    }
    svg_curve(xs, ys, POINTS, blue);
    svg_text(LEFT + WIDTH / 2, TOP + HEIGHT + 44, "middle",
             "p, the probability that the model gave to the token");
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
    enum { LEFT = 70, TOP = 40, WIDTH = 430, DECADE = 60, DECADES = 4 };
    static const char *const labels[BACKWARD_TENSORS] = {"down, o", "up, v", "mlp_norm", "",
                                                         "q, k",    "",      "",         "attn_norm"};
    char text[32];
    backward_step();
    svg_begin(620, TOP + DECADES * DECADE + 70);
    svg_text(LEFT, 24, "start", "root mean square of the gradient of each tensor");
    for (int power = 0; power <= DECADES; power++) {
        snprintf(text, sizeof text, "1e-%d", 2 + power);
        svg_line(LEFT, TOP + DECADE * power, LEFT + WIDTH, TOP + DECADE * power, grey);
        svg_text(LEFT - 8, TOP + DECADE * power + 4, "end", text);
    }
    for (int i = 0; i < BACKWARD_TENSORS; i++) {
        double xs[MAX_LAYERS], ys[MAX_LAYERS];
        for (int n = 0; n < L; n++) { /* from the last layer to the first, as backward goes */
            xs[n] = LEFT + WIDTH * (double)n / (L - 1);
            ys[n] =
                TOP - DECADE * (log10(rms(backward_tensor(&gradients, L - 1 - n, i), backward_size(i))) + 2);
            snprintf(text, sizeof text, "%d", L - 1 - n);
            if (i == 0) svg_text(xs[n], TOP + DECADES * DECADE + 20, "middle", text);
        }
        svg_curve(xs, ys, L, i == 4 || i == 5 ? red : blue);
        svg_text(LEFT + WIDTH + 10, ys[L - 1] + 4, "start", labels[i]);
    }
    svg_text(LEFT + WIDTH / 2, TOP + DECADES * DECADE + 44, "middle",
             "layer; backward goes from left to right");
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
    enum { LEFT = 70, TOP = 40, WIDTH = 490, HEIGHT = 220, POINTS = 300 };
    double xs[POINTS], ys[POINTS];
    char text[32];
    steps = POINTS, warmup = 40, lr = 3e-3;
    svg_begin(620, TOP + HEIGHT + 70);
    svg_text(LEFT, 24, "start", "learning rate of each step: 40 steps of warmup, then a cosine");
    for (int tick = 0; tick <= 3; tick++) {
        snprintf(text, sizeof text, "%.3f", 1e-3 * tick);
        svg_line(LEFT, TOP + HEIGHT * (3 - tick) / 3.0, LEFT + WIDTH, TOP + HEIGHT * (3 - tick) / 3.0, grey);
        svg_text(LEFT - 8, TOP + HEIGHT * (3 - tick) / 3.0 + 4, "end", text);
        snprintf(text, sizeof text, "%d", 100 * tick);
        svg_text(LEFT + WIDTH * tick / 3.0, TOP + HEIGHT + 20, "middle", text);
    }
    for (int step = 0; step < POINTS; step++)
        xs[step] = LEFT + WIDTH * (step + 1.0) / POINTS,
        ys[step] = TOP + HEIGHT * (1 - learning_rate(step) / 3e-3);
    svg_curve(xs, ys, POINTS, blue);
    svg_text(LEFT + WIDTH / 2, TOP + HEIGHT + 44, "middle", "step");
}

/* ---------------------------------------------------------------------------------------- 10. numbers ---- */

/* The error of the central difference of sin at 1 with step h, in float32 or in double. */
static double difference_error(double h, int in_double) {
    const double exact = cos(1);
    if (in_double) return fabs((sin(1 + h) - sin(1 - h)) / (2 * h) - exact);
    const float above = (float)sin((double)(1 + (float)h)), below = (float)sin((double)(1 - (float)h));
    return fabs((double)((above - below) / (2 * (float)h)) - exact);
}

static void numbers_numbers(void) {
    float sum = 0;
    double error = 0;
    for (int i = 0; i < 10000000; i++) sum += 0.1f;
    printf("0.1 added 10,000,000 times, in float32: %.1f\n\n", (double)sum);
    printf("h          error of (sin(1 + h) - sin(1 - h)) / 2h: float32     double\n");
    for (int power = 1; power <= 6; power++) {
        error = difference_error(pow(10, -power), 0);
        printf("1e-%d %50.1e %10.1e\n", power, error, difference_error(pow(10, -power), 1));
    }
}

static void numbers_picture(void) {
    enum { LEFT = 70, TOP = 40, WIDTH = 460, HEIGHT = 300, POINTS = 61 };
    double xs[POINTS], ys[POINTS];
    char text[32];
    svg_begin(620, TOP + HEIGHT + 70);
    svg_text(LEFT, 24, "start", "error of the derivative of sin at 1, by central differences");
    for (int power = 0; power <= 6; power++) {
        snprintf(text, sizeof text, "1e-%d", 2 * power);
        svg_line(LEFT, TOP + HEIGHT * power / 6.0, LEFT + WIDTH, TOP + HEIGHT * power / 6.0, grey);
        svg_text(LEFT - 8, TOP + HEIGHT * power / 6.0 + 4, "end", text);
        snprintf(text, sizeof text, "1e-%d", 6 - power);
        svg_text(LEFT + WIDTH * power / 6.0, TOP + HEIGHT + 20, "middle", text);
    }
    for (int in_double = 0; in_double < 2; in_double++) {
        for (int i = 0; i < POINTS; i++) {
            /* the mean of a few steps near h: the error of a single one is 0 by chance now and then */
            double h = pow(10, -6 + 6.0 * i / (POINTS - 1)), error = 0;
            for (int near = 0; near < 16; near++)
                error += difference_error(h * (1 + 0.01 * near), in_double) / 16;
            xs[i] = LEFT + WIDTH * (double)i / (POINTS - 1);
            ys[i] = TOP + HEIGHT * fmin(-log10(error + 1e-13) / 12, 1);
        }
        svg_curve(xs, ys, POINTS, in_double ? red : blue);
        svg_text(LEFT + WIDTH * 0.2, in_double ? ys[12] - 10 : ys[12] - 10, "middle",
                 in_double ? "double" : "float32");
    }
    svg_text(LEFT + WIDTH / 2, TOP + HEIGHT + 44, "middle", "h");
}

/* ------------------------------------------------------------------------------------------ 11. speed ---- */

/* A first-level cache of 32 KiB: 64 sets of 8 lines of 64 bytes. Of a full set the line is replaced that was used the
   longest time ago. */
enum { CACHE_SETS = 64, CACHE_WAYS = 8, CACHE_LINE = 64 };
typedef struct {
    long line[CACHE_SETS][CACHE_WAYS], used[CACHE_SETS][CACHE_WAYS], clock, misses;
} Cache;

static void cache_read(Cache *cache, long address) {
    const long line = address / CACHE_LINE + 1; /* 0: an empty place */
    long *const lines = cache->line[line % CACHE_SETS], *const used = cache->used[line % CACHE_SETS];
    int place = 0;
    for (int way = 0; way < CACHE_WAYS; way++) {
        if (lines[way] == line) {
            used[way] = ++cache->clock;
            return;
        }
        if (used[way] < used[place]) place = way;
    }
    lines[place] = line, used[place] = ++cache->clock, cache->misses++;
}

enum { SPEED_N = 256, SPEED_C = 256, SPEED_OC = 256, SPEED_BLOCKS = 9 };

/* How many lines the product out (N, OC) = x (N, C) . w (OC, C)^T loads into the cache, when it goes through the tokens
   in blocks, and in each block through all rows of w. */
static long speed_misses(int block) {
    static Cache cache;
    memset(&cache, 0, sizeof cache);
    const long x = 0, w = (long)SPEED_N * SPEED_C * 4, row = (long)SPEED_C * 4;
    for (int begin = 0; begin < SPEED_N; begin += block)
        for (int o = 0; o < SPEED_OC; o++)
            for (int n = begin; n < begin + block; n++)
                for (long at = 0; at < row; at += CACHE_LINE) {
                    cache_read(&cache, x + n * row + at);
                    cache_read(&cache, w + o * row + at);
                }
    return cache.misses;
}

static void speed_numbers(void) {
    const double products = (double)SPEED_N * SPEED_C * SPEED_OC;
    printf("256 tokens times a matrix of 256 x 256; a cache of 32 KiB\n\n");
    printf("tokens of a block   lines loaded   operations for each byte loaded\n");
    for (int i = 0; i < SPEED_BLOCKS; i++) {
        const long misses = speed_misses(1 << i);
        printf("%17d %14ld %33.1f\n", 1 << i, misses, 2 * products / ((double)misses * CACHE_LINE));
    }
}

static void speed_picture(void) {
    enum { LEFT = 70, TOP = 40, WIDTH = 480, HEIGHT = 220 };
    double xs[SPEED_BLOCKS], ys[SPEED_BLOCKS];
    char text[32];
    svg_begin(620, TOP + HEIGHT + 70);
    svg_text(LEFT, 24, "start", "operations for each byte that is loaded into the cache");
    for (int tick = 0; tick <= 4; tick++) {
        const double y = TOP + HEIGHT * (1 - tick / 4.0);
        snprintf(text, sizeof text, "%d", 4 * tick);
        svg_line(LEFT, y, LEFT + WIDTH, y, grey), svg_text(LEFT - 8, y + 4, "end", text);
    }
    for (int i = 0; i < SPEED_BLOCKS; i++) {
        xs[i] = LEFT + WIDTH * (double)i / (SPEED_BLOCKS - 1);
        ys[i] = TOP + HEIGHT * (1 - 2.0 * SPEED_N * SPEED_C * SPEED_OC /
                                        ((double)speed_misses(1 << i) * CACHE_LINE) / 16);
        snprintf(text, sizeof text, "%d", 1 << i);
        svg_text(xs[i], TOP + HEIGHT + 20, "middle", text);
    }
    svg_curve(xs, ys, SPEED_BLOCKS, blue);
    svg_text(LEFT + WIDTH / 2, TOP + HEIGHT + 44, "middle", "tokens of a block");
}

/* ------------------------------------------------------------------------------------------- 12. a GPU ---- */

/* An H200, docs/gpu.md: the measured rates of bf16 products and of copies. */
static const double gpu_peak = 782e12, gpu_bandwidth = 4.1e12;

/* The operations for each byte that a product with bf16 operands loads, when a block of threads computes a tile of
   rows x columns of the output: for each k it loads rows + columns numbers and does rows * columns multiply-adds. */
static double gpu_intensity(int rows, int columns) { return 2.0 * rows * columns / (2.0 * (rows + columns)); }

static double gpu_share(int rows, int columns) { /* of the peak, if every load came from memory */
    return fmin(1, gpu_intensity(rows, columns) * gpu_bandwidth / gpu_peak);
}

static void gpu_numbers(void) {
    printf("an H200: %.0f TFLOP/s, %.1f TB/s, so at least %.0f operations a byte are needed\n\n",
           gpu_peak / 1e12, gpu_bandwidth / 1e12, gpu_peak / gpu_bandwidth);
    printf("tile        operations a byte   most of the peak   KiB for 64 columns of k\n");
    for (int size = 16; size <= 512; size *= 2)
        printf("%3d x %-3d %20.0f %16.0f %% %25.0f\n", size, size, gpu_intensity(size, size),
               100 * gpu_share(size, size), 2.0 * 64 * 2 * size / 1024);
}

static void gpu_picture(void) {
    enum { LEFT = 60, TOP = 40, WIDTH = 480, HEIGHT = 220, POINTS = 61 };
    double xs[POINTS], ys[POINTS];
    char text[32];
    svg_begin(620, TOP + HEIGHT + 70);
    svg_text(LEFT, 24, "start", "most of the peak that a product can reach, if every load comes from memory");
    for (int tick = 0; tick <= 4; tick++) {
        const double y = TOP + HEIGHT * tick / 4.0;
        snprintf(text, sizeof text, "%d %%", 100 - 25 * tick);
        svg_line(LEFT, y, LEFT + WIDTH, y, grey), svg_text(LEFT - 8, y + 4, "end", text);
    }
    for (int i = 0; i <= 5; i++) {
        snprintf(text, sizeof text, "%d", 16 << i);
        svg_text(LEFT + WIDTH * i / 5.0, TOP + HEIGHT + 20, "middle", text);
    }
    for (int i = 0; i < POINTS; i++) {
        const int size = (int)(16 * pow(2, 5.0 * i / (POINTS - 1)));
        xs[i] = LEFT + WIDTH * (double)i / (POINTS - 1), ys[i] = TOP + HEIGHT * (1 - gpu_share(size, size));
    }
    svg_curve(xs, ys, POINTS, blue);
    svg_text(LEFT + WIDTH / 2, TOP + HEIGHT + 44, "middle", "rows and columns of a tile");
}

/* ------------------------------------------------------------------------------------- 13. many ranks ---- */

static const double ranks_parameters = 301203456, ranks_tokens = 1048576; /* c4-301m, and a step of it */
static const double ranks_rate = 10000; /* tokens a second of a rank: assumed, as in docs/scaling.md */

/* Gigabytes of weights, gradients and moments on each of n ranks; with zero the moments are divided among them. */
static double ranks_memory(int n, int zero) {
    return ranks_parameters * (4 + 4 + 8.0 / (zero ? n : 1)) / 1e9;
}

/* The seconds that a rank needs to send (n - 1) / n of `bytes` through a link of so many gigabits, used to 80 %. */
static double ranks_exchange(int n, double bytes, double gigabits) {
    return bytes * (n - 1) / n / (0.8 * gigabits * 1e9 / 8);
}

/* The share of a step in which a rank computes. Gradients and weights are exchanged, 4 bytes for each parameter; with
   `hidden`, the gradients while the rank computes. */
static double ranks_efficiency(int n, double gigabits, int hidden) {
    const double compute = ranks_tokens / n / ranks_rate,
                 exchange = ranks_exchange(n, 4 * ranks_parameters, gigabits);
    return compute / (compute + (hidden ? 1 : 2) * exchange);
}

static void ranks_numbers(void) {
    printf("c4-301m, 1,048,576 tokens a step, 10,000 tokens/s a rank, 100 Gbit/s\n\n");
    printf("ranks   GB each, zero 0   zero 1   compute s   exchange s   efficiency   gradients hidden\n");
    for (int n = 1; n <= 256; n *= 2)
        printf("%5d %17.2f %8.2f %11.3f %12.3f %10.0f %% %16.0f %%\n", n, ranks_memory(n, 0),
               ranks_memory(n, 1), ranks_tokens / n / ranks_rate,
               2 * ranks_exchange(n, 4 * ranks_parameters, 100), 100 * ranks_efficiency(n, 100, 0),
               100 * ranks_efficiency(n, 100, 1));
}

static void ranks_picture(void) {
    enum { LEFT = 60, TOP = 40, WIDTH = 440, HEIGHT = 220, POINTS = 11 };
    static const double links[] = {10, 100, 400};
    double xs[POINTS], ys[POINTS];
    char text[32];
    svg_begin(620, TOP + HEIGHT + 70);
    svg_text(LEFT, 24, "start", "share of a step in which a rank computes (nothing hidden)");
    for (int tick = 0; tick <= 4; tick++) {
        const double y = TOP + HEIGHT * tick / 4.0;
        snprintf(text, sizeof text, "%d %%", 100 - 25 * tick);
        svg_line(LEFT, y, LEFT + WIDTH, y, grey), svg_text(LEFT - 8, y + 4, "end", text);
    }
    for (int link = 0; link < 3; link++) {
        for (int i = 0; i < POINTS; i++) {
            xs[i] = LEFT + WIDTH * (double)i / (POINTS - 1);
            ys[i] = TOP + HEIGHT * (1 - ranks_efficiency(1 << i, links[link], 0));
            snprintf(text, sizeof text, "%d", 1 << i);
            if (link == 0) svg_text(xs[i], TOP + HEIGHT + 20, "middle", text);
        }
        svg_curve(xs, ys, POINTS, blue);
        snprintf(text, sizeof text, "%.0f Gbit/s", links[link]);
        svg_text(LEFT + WIDTH + 10, ys[POINTS - 1] + 4, "start", text);
    }
    svg_text(LEFT + WIDTH / 2, TOP + HEIGHT + 44, "middle", "ranks");
}

/* -------------------------------------------------------------------------------------- 14. experiment ---- */

/* The quantile 0.975 of Student's t distribution with 1 ... 8 degrees of freedom. */
static const double student[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306};

typedef struct {
    const char *size, *standard_lr, *laser_lr; /* of the runs in docs/study_runs.csv that are compared */
    int pairs;                                 /* seeds 1 ... pairs */
    double standard[8], with_laser[8];         /* final validation losses, by seed */
    double mean, half, half_unpaired; /* of LASER minus standard, and half the width of its 95 % intervals */
} Comparison;

static Comparison comparisons[] = {
    {.size = "A", .standard_lr = "0.004", .laser_lr = "0.008", .pairs = 5},
    {.size = "B", .standard_lr = "0.002", .laser_lr = "0.004", .pairs = 3},
    {.size = "C", .standard_lr = "0.002", .laser_lr = "0.002", .pairs = 3},
};

static double mean_of(const double *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] / n;
    return sum;
}
static double variance_of(const double *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (x[i] - mean_of(x, n)) * (x[i] - mean_of(x, n)) / (n - 1);
    return sum;
}

static void compare(Comparison *c) {
    double difference[8];
    const int n = c->pairs;
    for (int i = 0; i < n; i++) difference[i] = c->with_laser[i] - c->standard[i];
    c->mean = mean_of(difference, n);
    c->half = student[n - 2] * sqrt(variance_of(difference, n) / n);
    c->half_unpaired =
        student[2 * n - 3] * sqrt((variance_of(c->standard, n) + variance_of(c->with_laser, n)) / n);
}

static void read_study(void) {
    char line[256], size[8], kind[16], rate[16];
    int run_seed;
    double loss;
    FILE *file = fopen("docs/study_runs.csv", "r");
    if (!file) fail(1, "cannot read docs/study_runs.csv; run this in the folder of the repository", "");
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%7[^,],%15[^,],%15[^,],%d,%*d,%*d,%lf", size, kind, rate, &run_seed, &loss) != 5)
            continue;
        for (int i = 0; i < 3; i++) {
            Comparison *c = &comparisons[i];
            const int is_laser = strcmp(kind, "laser") == 0;
            if (strcmp(size, c->size) != 0 || run_seed < 1 || run_seed > c->pairs ||
                strcmp(rate, is_laser ? c->laser_lr : c->standard_lr) != 0)
                continue;
            (is_laser ? c->with_laser : c->standard)[run_seed - 1] = loss;
        }
    }
    fclose(file);
    for (int i = 0; i < 3; i++) compare(&comparisons[i]);
}

static void experiment_numbers(void) {
    read_study();
    for (int i = 0; i < 3; i++) {
        const Comparison *c = &comparisons[i];
        printf("size %s, learning rates %s and %s\n", c->size, c->standard_lr, c->laser_lr);
        printf("   seed   standard      LASER   difference\n");
        for (int n = 0; n < c->pairs; n++)
            printf("%7d %10.4f %10.4f %12.4f\n", n + 1, c->standard[n], c->with_laser[n],
                   c->with_laser[n] - c->standard[n]);
        printf(
            "   mean difference %.4f; 95 %% interval as pairs: %.4f to %.4f; without pairing: %.4f to %.4f\n",
            c->mean, c->mean - c->half, c->mean + c->half, c->mean - c->half_unpaired,
            c->mean + c->half_unpaired);
    }
}

static void experiment_picture(void) {
    enum { LEFT = 130, TOP = 50, ZERO = 420, SCALE = 1500, ROW = 70 };
    char text[64];
    read_study();
    svg_begin(640, TOP + 3 * ROW + 60);
    svg_text(20, 24, "start", "LASER minus standard, validation loss: each pair, and 95 % intervals");
    for (int tick = -4; tick <= 1; tick++) {
        const double x = ZERO + SCALE * tick * 0.05;
        snprintf(text, sizeof text, "%.2f", tick * 0.05);
        svg_line(x, TOP - 10, x, TOP + 3 * ROW, tick ? grey : "#222");
        svg_text(x, TOP + 3 * ROW + 20, "middle", text);
    }
    for (int i = 0; i < 3; i++) {
        const Comparison *c = &comparisons[i];
        const double y = TOP + ROW * i;
        snprintf(text, sizeof text, i == 1 ? "%s (wrong rate)" : "%s", c->size);
        svg_text(10, y + 24, "start", text);
        svg_box(ZERO + SCALE * (c->mean - c->half), y + 6, SCALE * 2 * c->half, 16, blue, 0.5);
        svg_box(ZERO + SCALE * (c->mean - c->half_unpaired), y + 30, SCALE * 2 * c->half_unpaired, 8, "#666",
                0.4);
        for (int n = 0; n < c->pairs; n++)
            svg_box(ZERO + SCALE * (c->with_laser[n] - c->standard[n]) - 2, y + 8, 4, 12, red, 0.9);
    }
    svg_text(20, TOP + 3 * ROW + 46, "start",
             "red: a pair; blue: the interval of pairs; grey: without pairing");
}

/* ---------------------------------------------------------------------------------- 15. scaling laws ---- */

static const double scaling_sizes[] = {1311872, 3443136, 11146560};

/* The mean final losses of the study at its three sizes, of the best learning rate of each kind. */
static void scaling_losses(double losses[3], int of_laser) {
    read_study();
    for (int i = 0; i < 3; i++) {
        const Comparison *c = &comparisons[i];
        losses[i] = mean_of(of_laser ? c->with_laser : c->standard, c->pairs);
    }
    if (!of_laser) losses[1] = 3.055498204130345; /* of the one run with the better rate, see chapter 14 */
}

/* L = a + b N^-c through three points (N, L). (L0 - L1) / (L1 - L2) does not depend on a and b, which gives c. */
typedef struct {
    double a, b, c;
} PowerLaw;

static PowerLaw scaling_fit(const double losses[3]) {
    const double want = (losses[0] - losses[1]) / (losses[1] - losses[2]), *n = scaling_sizes;
    double low = 1e-3, high = 5;
    for (int i = 0; i < 100; i++) { /* the quotient grows with c */
        const double c = (low + high) / 2;
        const double quotient = (pow(n[0], -c) - pow(n[1], -c)) / (pow(n[1], -c) - pow(n[2], -c));
        if (quotient < want)
            low = c;
        else
            high = c;
    }
    PowerLaw law = {.c = low};
    law.b = (losses[0] - losses[2]) / (pow(n[0], -law.c) - pow(n[2], -law.c));
    law.a = losses[2] - law.b * pow(n[2], -law.c);
    return law;
}

static double scaling_loss(const PowerLaw *law, double n) { return law->a + law->b * pow(n, -law->c); }

static void scaling_numbers(void) {
    printf("kind       loss of C        a          b       c   predicted for 33 million   for 100 million\n");
    for (int kind = 0; kind < 2; kind++)
        for (int shift = -1; shift <= 1; shift++) {
            double losses[3];
            scaling_losses(losses, kind);
            losses[2] += 0.02 * shift;
            const PowerLaw law = scaling_fit(losses);
            printf("%-9s %10.4f %8.3f %10.3g %7.3f %26.3f %17.3f\n", kind ? "LASER" : "standard", losses[2],
                   law.a, law.b, law.c, scaling_loss(&law, 33e6), scaling_loss(&law, 100e6));
        }
}

static void scaling_picture(void) {
    enum { LEFT = 60, TOP = 40, WIDTH = 440, HEIGHT = 260, POINTS = 61 };
    char text[32];
    double xs[POINTS], ys[POINTS], losses[3];
    svg_begin(620, TOP + HEIGHT + 70);
    svg_text(LEFT, 24, "start",
             "final validation loss; the curve through it, and the curves if the last point moves by 0.02");
    for (int tick = 0; tick <= 4; tick++) {
        const double y = TOP + HEIGHT * tick / 4.0;
        snprintf(text, sizeof text, "%.1f", 4 - 0.5 * tick);
        svg_line(LEFT, y, LEFT + WIDTH, y, grey), svg_text(LEFT - 8, y + 4, "end", text);
    }
    for (int power = 6; power <= 9; power++) {
        snprintf(text, sizeof text, "1e%d", power);
        svg_text(LEFT + WIDTH * (power - 6) / 3.0, TOP + HEIGHT + 20, "middle", text);
    }
    for (int shift = -1; shift <= 1; shift++) {
        scaling_losses(losses, 0);
        losses[2] += 0.02 * shift;
        const PowerLaw law = scaling_fit(losses);
        for (int i = 0; i < POINTS; i++) {
            const double power = 6.1 + 2.9 * i / (POINTS - 1);
            xs[i] = LEFT + WIDTH * (power - 6) / 3;
            ys[i] = TOP + HEIGHT * (4 - scaling_loss(&law, pow(10, power))) / 2;
        }
        svg_curve(xs, ys, POINTS, shift ? grey : blue);
    }
    scaling_losses(losses, 0);
    for (int i = 0; i < 3; i++)
        svg_box(LEFT + WIDTH * (log10(scaling_sizes[i]) - 6) / 3 - 4, TOP + HEIGHT * (4 - losses[i]) / 2 - 4,
                8, 8, red, 1);
    svg_text(LEFT + WIDTH / 2, TOP + HEIGHT + 44, "middle", "parameters (standard attention)");
}

/* ------------------------------------------------------------------------------------------------ main ---- */

static const struct {
    const char *name;
    void (*numbers)(void), (*picture)(void);
} topics[] = {{"map", map_numbers, map_picture},
              {"tokens", tokens_numbers, tokens_picture},
              {"positions", positions_numbers, positions_picture},
              {"norm", norm_numbers, norm_picture},
              {"attention", attention_numbers, attention_picture},
              {"laser", laser_numbers, laser_picture},
              {"mlp", mlp_numbers, mlp_picture},
              {"loss", loss_numbers, loss_picture},
              {"backward", backward_numbers, backward_picture},
              {"optimizer", optimizer_numbers, optimizer_picture},
              {"numbers", numbers_numbers, numbers_picture},
              {"speed", speed_numbers, speed_picture},
              {"gpu", gpu_numbers, gpu_picture},
              {"ranks", ranks_numbers, ranks_picture},
              {"experiment", experiment_numbers, experiment_picture},
              {"scaling", scaling_numbers, scaling_picture}};
enum { TOPICS = sizeof topics / sizeof *topics };

int main(int argc, char **argv) {
    int topic = 0;
    while (topic < TOPICS && (argc < 2 || strcmp(argv[1], topics[topic].name) != 0)) topic++;
    if (topic == TOPICS || argc > 3) {
        fprintf(stderr, "error: expected build/course TOPIC [FILE.svg], with one of these topics:");
        for (int i = 0; i < TOPICS; i++) fprintf(stderr, " %s", topics[i].name);
        fprintf(stderr, "\n");
        return 2;
    }
    if (argc == 3 && !(svg = fopen(argv[2], "w"))) fail(1, "cannot write ", argv[2]);
    if (svg) {
        topics[topic].picture();
        fprintf(svg, "</svg>\n");
        if (fclose(svg) != 0) fail(1, "cannot write ", argv[2]);
    } else {
        topics[topic].numbers();
    }
    free(data), free(course_tokens);
    return 0;
}
