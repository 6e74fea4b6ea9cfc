/* course_attention.h: the numbers and pictures of chapters 4 and 5 of docs/course, attention and LASER attention. */
#ifndef TOOLS_COURSE_ATTENTION_H
#define TOOLS_COURSE_ATTENTION_H

#include "course_model.h"

/* The weight a_ij of layer 0 in the first sequence, from what forward kept for backward. */
static double attention_weight(int i, int j) {
    const float *q = acts.layers[0].qkv + i * 3 * A, *k = acts.layers[0].qkv + j * 3 * A + A;
    return exp((double)dot(q, k, D) / sqrt(D) - (double)acts.layers[0].attn_lse[i]);
}

/* --------------------------------------------------------------------------------------- 4. attention ---- */

static void attention_numbers(void) {
    periodic_model(0, 1);
    periodic_train();
    printf("\nposition  letter  next  probability    loss   weight of the letter four places before\n");
    for (int i = 0; i < T; i++) {
        /* logits have become (p - (e == target)) / N */
        const double p = 1 + (double)acts.logits[i * V + course_tokens[N + i]] * N;
        printf("%8d  %6c  %4c  %11.3f  %6.3f", i, 'a' + course_tokens[i], 'a' + course_tokens[N + i], p,
               -log(p));
        if (i > 3) printf("   %.3f", attention_weight(i, i - 4));
        printf("\n");
    }
}

static const double attention_cell = 13, attention_empty = 0.06; /* a square's size; opacity of weight 0 */

/* A square that is the darker, the larger the weight is; its place has the colour of weight 0 already. */
static void attention_square(double x, double y, double weight) {
    if (weight > 0.01) svg_box(x, y, attention_cell - 1, attention_cell - 1, blue, weight);
}

/* The weights in the first sequence. */
static void attention_panel(double left, const char *title) {
    const double top = 84, cell = attention_cell;
    svg_text(left, top - 30, "start", title);
    for (int i = 0; i < T; i++) {
        const char letter[2] = {(char)('a' + course_tokens[i]), 0};
        svg_text(left + cell * (i + 0.5), top - 6, "middle", letter);
        svg_text(left - 8, top + cell * (i + 0.85), "middle", letter);
        svg_box(left, top + cell * i, cell * (i + 1) - 1, cell - 1, blue, attention_empty);
        for (int j = 0; j <= i; j++)
            attention_square(left + cell * j, top + cell * i, attention_weight(i, j));
    }
}

static void attention_legend(double left, double y) {
    svg_text(left, y, "start", "row: the token that reads, query i; column: the token that is read, key j");
    svg_text(left, y + 26, "start", "weight a_ij:");
    for (int quarter = 0; quarter <= 4; quarter++) {
        const double x = left + 90 + 62 * quarter;
        svg_box(x, y + 15, attention_cell - 1, attention_cell - 1, blue, attention_empty);
        attention_square(x, y + 15, quarter / 4.0);
        svg_text(x + 18, y + 26, "start", label("%.2f", quarter / 4.0));
    }
    svg_text(left + 410, y + 26, "start", "no square: j > i");
}

/* The same sequence before and after training: the first of those that the last step reads. */
static void attention_picture(void) {
    periodic_model(0, 1);
    svg_begin(620, 400);
    periodic_sequences(steps - 1);
    char letters[32] = "";
    for (int i = 0; i < T; i++) letters[i] = (char)('a' + course_tokens[i]);
    svg_text(30, 24, "start", label("attention weights in the sequence %s", letters));
    model_forward(course_tokens);
    attention_panel(30, "before the first step");
    periodic_train();
    attention_panel(340, "after 300 steps");
    attention_legend(30, 366);
}

/* A row of attention for a pocket calculator: query 2 of a head with D = 2, and the three keys that it sees. */
enum { ROW_KEYS = 3, ROW_D = 2 };
static const float row_q[ROW_D] = {2, 1}, row_dout[ROW_D] = {1, 2};
static const float row_k[ROW_KEYS][ROW_D] = {{0, 1}, {1, 0}, {1, -2}};
static const float row_v[ROW_KEYS][ROW_D] = {{1, 0}, {0, 2}, {4, 1}};

/* What attention_forward and attention_backward make of the row. */
typedef struct {
    double o[ROW_D], lse, a[ROW_KEYS], ds[ROW_KEYS];
    double dq[ROW_D], dk[ROW_KEYS][ROW_D], dv[ROW_KEYS][ROW_D];
} Row;

static Row row_of(int with_laser) {
    enum {
        TOKEN = 3 * ROW_D,
        LAST = (ROW_KEYS - 1) * ROW_D
    }; /* q, k, v of a token; where the outputs of the last are */
    float qkv[ROW_KEYS * TOKEN] = {0}, dout[ROW_KEYS * ROW_D] = {0}, out[ROW_KEYS * ROW_D], lse[ROW_KEYS],
                         dqkv[ROW_KEYS * TOKEN];
    Row row;
    L = 1, H = 1, D = ROW_D, A = ROW_D, T = ROW_KEYS, N = ROW_KEYS, laser = with_laser;
    for (int d = 0; d < D; d++) {
        qkv[(T - 1) * TOKEN + d] = row_q[d], dout[LAST + d] = row_dout[d];
        for (int j = 0; j < T; j++)
            qkv[j * TOKEN + D + d] = row_k[j][d], qkv[j * TOKEN + 2 * D + d] = row_v[j][d];
    }
    attention_forward(out, lse, qkv);
    attention_backward(dqkv, dout, qkv, out, lse);
    row.lse = (double)lse[T - 1];
    for (int d = 0; d < D; d++) {
        row.o[d] = (double)out[LAST + d], row.dq[d] = (double)dqkv[(T - 1) * TOKEN + d];
        for (int j = 0; j < T; j++)
            row.dk[j][d] = (double)dqkv[j * TOKEN + D + d],
            row.dv[j][d] = (double)dqkv[j * TOKEN + 2 * D + d];
    }
    for (int j = 0; j < T; j++) {
        row.a[j] = exp((double)dot(row_q, row_k[j], D) / sqrt(D) - row.lse);
        row.ds[j] = row.dk[j][0] * sqrt(D) / (double)row_q[0]; /* dk = ds q / sqrt(D) */
    }
    return row;
}

/* A line of the table: what it is, a number for each key, and what follows from them for the row. */
static void row_line(const char *name, const double *x, const char *text) {
    printf("%-31s", name);
    for (int j = 0; j < ROW_KEYS; j++) printf("%8.4f", x[j] + 0); /* not -0 */
    printf("%s%s\n", *text ? "   " : "", text);
}
static void row_input(const char *name, const float x[ROW_KEYS][ROW_D], int d) {
    printf("%s_j%d%*s", name, d, 27, "");
    for (int j = 0; j < ROW_KEYS; j++) printf("%8.0f", (double)x[j][d]);
    printf("\n");
}

static void row_numbers(void) {
    const Row row = row_of(0);
    double x[ROW_KEYS], z = 0, mu = 0, da[ROW_KEYS];
    printf("q = (2, 1), do = (1, 2), D = 2, sqrt(D) = 1.4142\n\n");
    printf("%-31s%8d%8d%8d   of the row\n", "key j", 0, 1, 2);
    for (int d = 0; d < D; d++) row_input("k", row_k, d);
    for (int d = 0; d < D; d++) row_input("v", row_v, d);
    for (int j = 0; j < T; j++) x[j] = (double)dot(row_q, row_k[j], D);
    row_line("q . k_j", x, "");
    for (int j = 0; j < T; j++) x[j] /= sqrt(D);
    const double m = fmax(fmax(x[0], x[1]), x[2]);
    row_line("s_j = q . k_j / sqrt(D)", x, label("largest: m = %.4f", m));
    for (int j = 0; j < T; j++) z += x[j] = exp(x[j] - m);
    row_line("exp(s_j - m)", x, label("sum: Z = %.4f", z));
    row_line("a_j = exp(s_j - m) / Z", row.a, label("lse = m + log Z = %.4f", row.lse));
    for (int d = 0; d < D; d++) {
        for (int j = 0; j < T; j++) x[j] = row.a[j] * (double)row_v[j][d];
        char name[32];
        snprintf(name, sizeof name, "a_j v_j%d", d);
        row_line(name, x, label("sum: o_%d = %.4f", d, row.o[d]));
    }
    printf("\n");
    for (int d = 0; d < D; d++) {
        for (int j = 0; j < T; j++) x[j] = row.dv[j][d];
        row_line(d ? "dv_j1 = do_1 a_j" : "dv_j0 = do_0 a_j", x, "");
    }
    for (int j = 0; j < T; j++) mu += row.a[j] * (da[j] = (double)dot(row_dout, row_v[j], D));
    row_line("da_j = do_0 v_j0 + do_1 v_j1", da, "");
    for (int j = 0; j < T; j++) x[j] = row.a[j] * da[j];
    row_line("a_j da_j", x, label("sum: mu = %.4f", mu));
    row_line("ds_j = a_j (da_j - mu)", row.ds, "");
    for (int d = 0; d < D; d++) {
        for (int j = 0; j < T; j++) x[j] = row.ds[j] * (double)row_k[j][d] / sqrt(D);
        row_line(d ? "ds_j k_j1 / sqrt(D)" : "ds_j k_j0 / sqrt(D)", x,
                 label("sum: dq_%d = %.4f", d, row.dq[d]));
    }
    for (int d = 0; d < D; d++) {
        for (int j = 0; j < T; j++) x[j] = row.dk[j][d];
        row_line(d ? "dk_j1 = ds_j q_1 / sqrt(D)" : "dk_j0 = ds_j q_0 / sqrt(D)", x, "");
    }
}

/* ------------------------------------------------------------------------------------------- 5. LASER ---- */

/* The derivative of the first output of a row with respect to the score of key 0, as attention_backward computes it. The
   row sees two keys: key 0 has weight a and value delta, key 1 the value 0. */
static double two_key_jacobian(double a, double delta, int with_laser) {
    L = 1, H = 1, D = 2, A = 2, T = 2, N = 2, laser = with_laser;
    const float score =
        (float)((log(a) - log1p(-a)) * sqrt(2)); /* q . k / sqrt(D) is the logarithm of a / (1 - a) */
    /* rows of q, k, v for token 0 and token 1; the query is that of token 1 */
    const float qkv[12] = {0, 0, score, 0, (float)delta, 0, 1, 0, 0, 0, 0, 0}, dout[4] = {0, 0, 1, 0};
    float out[4], lse[2], dqkv[12];
    attention_forward(out, lse, qkv);
    attention_backward(dqkv, dout, qkv, out, lse);
    return (double)dqkv[2] * sqrt(2); /* dk = ds * q / sqrt(D), and q is 1 */
}

static void laser_numbers(void) {
    static const double values[] = {0.1, 1, 4, -4}, powers[] = {0.3010299957, 1, 2, 3, 4, 5, 6};
    printf("derivative of o with respect to the score of a key of weight a, whose value is delta above "
           "the other's\n");
    for (int x = 0; x < 4; x++) {
        printf("\ndelta = %4.1f   %-9s %12s %12s %8s\n", values[x], "a", "standard", "LASER", "ratio");
        for (int i = 0; i < 7; i++) {
            const double a = pow(10, -powers[i]), standard = two_key_jacobian(a, values[x], 0),
                         with_laser = two_key_jacobian(a, values[x], 1);
            printf("               %-9.1e %12.3e %12.3e %8.3f\n", a, standard, with_laser,
                   with_laser / standard);
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

static void laser_row_numbers(void) {
    const Row standard = row_of(0), row = row_of(1);
    double x[ROW_KEYS], dv[ROW_D][ROW_KEYS];
    char name[64];
    printf("%-31s%8d%8d%8d   of the row\n", "key j", 0, 1, 2);
    row_line("a_j", row.a, "");
    for (int d = 0; d < D; d++) {
        double m = 0, sum = 0;
        row_input("v", row_v, d);
        for (int j = 0; j < T; j++) m = fmax(m, (double)row_v[j][d]);
        for (int j = 0; j < T; j++) x[j] = exp((double)row_v[j][d] - m);
        snprintf(name, sizeof name, "exp(v_j%d - m_%d)", d, d);
        row_line(name, x, label("m_%d = %.0f, the largest v_j%d", d, m, d));
        for (int j = 0; j < T; j++) sum += x[j] *= row.a[j];
        snprintf(name, sizeof name, "a_j exp(v_j%d - m_%d)", d, d);
        row_line(name, x, label("sum: %.4f, so o_%d = %.4f", sum, d, row.o[d]));
        for (int j = 0; j < T; j++) dv[d][j] = row.dv[j][d], x[j] /= sum;
        snprintf(name, sizeof name, "p_j%d = a_j exp(v_j%d - o_%d)", d, d, d);
        row_line(name, x, label("sum: %.4f", x[0] + x[1] + x[2]));
    }
    printf("\n");
    for (int d = 0; d < D; d++)
        row_line(d ? "dv_j1 = do_1 p_j1" : "dv_j0 = do_0 p_j0", dv[d],
                 label("sum: do_%d = %.4f", d, dv[d][0] + dv[d][1] + dv[d][2]));
    row_line("ds_j = sum_d do_d (p_jd - a_j)", row.ds, "");
    row_line("ds_j of standard attention", standard.ds, "");
}

#endif
