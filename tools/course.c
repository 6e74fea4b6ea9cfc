/* course.c: the numbers and pictures of docs/course, computed by the code that the chapters explain.

     build/course TOPIC          prints the numbers of a chapter: one of the names in the table at the end
     build/course TOPIC FILE     draws them into an SVG file; `make course` draws all pictures of docs/course again

   The model is docs/course/tiny_gpt.c, which this file includes; a chapter that trains one here uses a made-up language
   (see periodic_data), so the program needs no file and takes less than a second. It is compiled without -march=native
   and without fused multiply-add, so that every machine gets the same numbers. */
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

/* ------------------------------------------------------------------------------------------------ main ---- */

static const struct {
    const char *name;
    void (*numbers)(void), (*picture)(void);
} topics[] = {{"map", map_numbers, map_picture},
              {"attention", attention_numbers, attention_picture},
              {"laser", laser_numbers, laser_picture},
              {"backward", backward_numbers, backward_picture}};
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
