/* explain_heads.h: the sections of ./explain's page about attention: the weights of every head, and what LASER changes.
   Include train_gpt.c before.

   A head's picture is one SVG path for each of eight strengths of the colour. The strength of a cell is the root of its
   weight, because most weights are small; cells below 1/16 are left out, which are weights below 0.004. In the JSON a
   weight is a code, which is larger for larger weights: 0 if it is below 1e-8, 7201 if it is 1, else
   1 + 900 * (7 - the zeros that follow the point) + (its three digits - 100). A code is two of explain_letters, so the page
   knows three digits of each weight in two bytes. */
#ifndef TOOLS_EXPLAIN_HEADS_H
#define TOOLS_EXPLAIN_HEADS_H

#include "explain_text.h"

/* ---- weights as two characters ---- */

static const char explain_letters[] =
    "!#$%()*+,-./0123456789:;=?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~ ";
enum {
    EXPLAIN_LETTERS = sizeof explain_letters - 1,
    EXPLAIN_ZEROS = 8,
    EXPLAIN_ONE = 900 * EXPLAIN_ZEROS + 1
};
_Static_assert((int)EXPLAIN_ONE < (int)(EXPLAIN_LETTERS * EXPLAIN_LETTERS), "every weight has a code");

/* A weight that is rounded up to 1000 thousandths gets the code of the next power of ten, which is right. */
static inline int weight_code(double a) {
    int zeros = 0;
    for (; a < 0.09995 && zeros < EXPLAIN_ZEROS; zeros++) a *= 10;
    if (zeros == EXPLAIN_ZEROS) return 0;
    return 1 + 900 * (EXPLAIN_ZEROS - 1 - zeros) + (int)lrint(a * 1000) - 100;
}

static inline const char *weight_text(char text[FORMAT_SIZE], int code) {
    const int zeros = EXPLAIN_ZEROS - 1 - (code - 1) / 900, digits = 100 + (code - 1) % 900;
    if (code == 0)
        snprintf(text, FORMAT_SIZE, "<1e-8");
    else if (code == EXPLAIN_ONE)
        snprintf(text, FORMAT_SIZE, "1");
    else if (zeros < 3)
        snprintf(text, FORMAT_SIZE, "0.%.*s%d", zeros, "000", digits);
    else
        snprintf(text, FORMAT_SIZE, "%d.%02de-%d", digits / 100, digits % 100, zeros + 1);
    return text;
}

/* ---- pictures of weights ---- */

enum { EXPLAIN_STRENGTHS = 8, EXPLAIN_CELL = 12, EXPLAIN_LABEL = 110 };

/* The cells of a head as paths in a group: cell (i, j) is 1 x 1 at (j, i). Neighbours of one strength are one line. */
static inline void page_cells(FILE *f, const double *a, int n) {
    for (int strength = 1; strength <= EXPLAIN_STRENGTHS; strength++) {
        int x = 0, y = 0, lines = 0;
        for (int i = 0; i < n; i++)
            for (int j = 0, end; j <= i; j = end) {
                const double *row = a + (int64_t)i * (i + 1) / 2;
                for (end = j; end <= i && lrint(EXPLAIN_STRENGTHS * sqrt(row[end])) == strength;) end++;
                if (end == j) {
                    end++;
                    continue;
                }
                if (lines++ == 0) fprintf(f, "<path class=\"m%d\" d=\"", strength);
                fprintf(f, "m%d %dh%d", j - x, i - y, end - j);
                x = end, y = i;
            }
        if (lines) fputs("\"/>", f);
    }
}

static inline double head_entropy(const AttentionSums *s) { return s->rows > 0 ? s->entropy / s->rows : 0; }

/* Every head as a button with its picture. */
static inline void page_all_heads(FILE *f, const ExplainPage *page) {
    const Explanation *e = page->e;
    const int L = e->model->config.layers, H = e->model->config.heads;
    fputs("<h3>All heads, a row for each layer</h3>\n<div class=\"scroll\"><div "
          "class=\"heads\"><span>layer</span>",
          f);
    for (int h = 0; h < H; h++) fprintf(f, "<span>%d</span>", h);
    for (int l = 0; l < L; l++) {
        fprintf(f, "\n<span>%d</span>", l);
        for (int h = 0; h < H; h++) {
            fprintf(f,
                    "<button type=\"button\" data-h=\"%d\" aria-label=\"layer %d, head %d\"><svg viewBox=\"0 "
                    "0 %d %d\" aria-hidden=\"true\"><g transform=\"translate(0 .5)\">",
                    l * H + h, l, h, e->n, e->n);
            page_cells(f, explanation_weights(e, l, h), e->n), fputs("</g></svg></button>", f);
        }
    }
    fputs("</div></div>\n", f);
}

/* The picture of one head with the tokens at its diagonal: each ends its row, and its column begins there. */
static inline void page_one_head(FILE *f, const ExplainPage *page) {
    const Explanation *e = page->e;
    const int H = e->model->config.heads, n = e->n, side = EXPLAIN_CELL * n;
    fprintf(f,
            "<div class=\"scroll\"><svg id=\"map\" class=\"big\" tabindex=\"0\" role=\"img\" "
            "aria-label=\"attention weights of the chosen head; arrow keys read them out\" viewBox=\"-1 "
            "-1 %d %d\" style=\"min-width:%dpx;max-width:%dpx\"><path class=\"ground\" d=\"M0 0",
            side + EXPLAIN_LABEL, side + 2, 11 * n + 90, 26 * n + 240);
    for (int i = 0; i < n; i++) fprintf(f, "h%dv%d", EXPLAIN_CELL, EXPLAIN_CELL);
    fprintf(f, "H0z\"/>\n<g id=\"cells\" transform=\"scale(%d) translate(0 .5)\">", EXPLAIN_CELL);
    page_cells(f, explanation_weights(e, page->head / H, page->head % H), n), fputs("</g>\n", f);
    for (int t = 0; t < n; t++) {
        fprintf(f, "<text%s x=\"%d\" y=\"%d\" data-t=\"%d\">", t == n - 1 ? " class=\"now\"" : "",
                EXPLAIN_CELL * (t + 1) + 4, EXPLAIN_CELL * t + 9, t);
        page_token(f, page, e->tokens[t]), fputs("</text>", f);
    }
    fprintf(f,
            "<rect id=\"row\" x=\"0\" y=\"%d\" width=\"%d\" height=\"%d\"/><rect id=\"cell\" x=\"0\" y=\"0\" "
            "width=\"%d\" height=\"%d\" visibility=\"hidden\"/></svg></div>\n<p class=\"scale\">weight 0 <i "
            "class=\"full\"></i> 1 (the strength of the colour is the root of the weight)</p>\n<p "
            "class=\"say\" id=\"say\" aria-live=\"polite\"></p>\n",
            side - EXPLAIN_CELL, side, EXPLAIN_CELL, EXPLAIN_CELL, EXPLAIN_CELL);
}

/* Which tokens the last one reads with the page's head. */
static inline void page_reading(FILE *f, const ExplainPage *page) {
    const Explanation *e = page->e;
    const int H = e->model->config.heads, n = e->n;
    const double *row = explanation_weights(e, page->head / H, page->head % H) + (int64_t)n * (n - 1) / 2;
    char text[FORMAT_SIZE];
    bool *taken = check_calloc((size_t)n * sizeof *taken);
    fputs("<h3>What ", f), page_place(f, page, n - 1);
    fputs(" reads</h3>\n<div class=\"tokens\" id=\"reads\">", f);
    for (int t = 0; t < n; t++) {
        fputs("<span class=\"k tint\" style=\"", f), page_share(f, sqrt(row[t]));
        fprintf(f, "\" data-t=\"%d\" title=\"weight ", t);
        html_text(f, weight_text(text, weight_code(row[t]))), fputs("\">", f);
        page_token(f, page, e->tokens[t]), fputs("</span>\n", f);
    }
    fputs("</div>\n<h3>The five largest weights</h3>\n<ol class=\"bars\" id=\"most\">\n", f);
    for (int i = 0; i < 5 && i < n; i++) {
        int best = -1;
        for (int t = 0; t < n; t++)
            if (!taken[t] && (best < 0 || weight_code(row[t]) > weight_code(row[best]))) best = t;
        taken[best] = true;
        page_bar(f, page, best, e->tokens[best], row[best], weight_text(text, weight_code(row[best])));
    }
    fputs("</ol>\n", f);
    free(taken);
}

/* ---- a number of every head ---- */

typedef double HeadNumber(const Explanation *e, int at);

static inline double number_entropy(const Explanation *e, int at) { return head_entropy(&e->sums[at]); }
static inline double number_span(const Explanation *e, int at) { return e->sums[at].v_range; }
static inline double number_change(const Explanation *e, int at) { return 100 * e->changes[at].share; }
static inline double number_largest(const Explanation *e, int at) { return e->changes[at].largest; }

/* A table: a row for each layer, a column for each head. The colour is the number divided by `most`, or by the largest
   of the table if that is 0. */
static inline void page_head_numbers(FILE *f, const Explanation *e, const char *title, HeadNumber *number,
                                     double most) {
    const int L = e->model->config.layers, H = e->model->config.heads;
    const bool of_largest = most == 0;
    for (int at = 0; at < L * H && of_largest; at++) most = fmax(most, number(e, at));
    fprintf(f,
            "<h3>%s</h3>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"%s\"><table "
            "class=\"heat\"><tr><th>layer</th>",
            title, title);
    for (int h = 0; h < H; h++) fprintf(f, "<th>head %d</th>", h);
    fputs("</tr>\n", f);
    for (int l = 0; l < L; l++) {
        fprintf(f, "<tr><th>%d</th>", l);
        for (int h = 0; h < H; h++) {
            char text[FORMAT_SIZE];
            const double x = number(e, l * H + h);
            fputs("<td style=\"", f), page_share(f, most > 0 ? x / most : 0);
            fprintf(f, "\" data-h=\"%d\">%s</td>", l * H + h, small_text(text, x));
        }
        fputs("</tr>\n", f);
    }
    fputs("</table></div>\n", f);
}

/* ---- the sections ---- */

/* The head whose rows choose most: the one with the least entropy, as a share of what it could be. */
static inline int sharpest_head(const Explanation *e) {
    const int count = e->model->config.layers * e->model->config.heads;
    int best = 0;
    for (int at = 1; at < count && e->sums && e->n > 1; at++)
        if (e->sums[at].entropy_share < e->sums[best].entropy_share) best = at;
    return best;
}

/* Two columns where there is room: all heads, and the chosen one. */
static inline void page_heads(FILE *f, const ExplainPage *page) {
    static const char title[] = "Where each head looks";
    const Explanation *e = page->e;
    const int H = e->model->config.heads;
    if (!e->has_weights) {
        page_section(f, title,
                     "./explain knows how standard attention and LASER weigh their tokens, but not how this "
                     "model's kind of attention does. The other sections are complete.");
        fputs("</section>\n", f);
        return;
    }
    page_section(
        f, title,
        "For each token, a head divides a weight of 1 among the tokens up to itself: it reads their "
        "values in these shares. In a picture, a row is a token that reads, and a column one that is "
        "read. In the large picture a token stands at the end of its row, and its column goes down "
        "from there. Look for a diagonal (a head that reads the token itself, or the one before it), "
        "for upright lines (one token that many read, often the first), and for single cells far "
        "from the diagonal (a head that has found something). <b>Choose a head</b> to see it large.");
    fprintf(f, "<div class=\"two\" style=\"--heads:%d;--tokens:%d\"><div>\n", H, e->n);
    page_all_heads(f, page);
    page_head_numbers(f, e, "Mean entropy of a row, in nats", number_entropy, log(e->n));
    fprintf(f,
            "<p class=\"see\">The entropy of a row of weights a is -Σ&nbsp;a&nbsp;log&nbsp;a. It is 0 (no "
            "colour) if the "
            "token reads one token only, and log m if it reads m tokens alike: at most log %d = %.2f (the "
            "strongest colour).</p>\n</div>\n<div class=\"stay\"><h3 data-say=\"head\">layer %d, head "
            "%d</h3>\n",
            e->n, log(e->n), page->head / H, page->head % H);
    page_one_head(f, page);
    page_reading(f, page);
    fputs("</div></div></section>\n", f);
}

static inline void page_laser(FILE *f, const Explanation *e) {
    if (!e->changes) return;
    page_section(
        f, "What LASER changes",
        "Standard attention returns the average of the values v with the weights above. LASER returns the "
        "logarithm of the average of exp(v), which is never smaller. Where the values of a column of V lie "
        "close together both are nearly the same; with a span well above 1, large values of tokens with "
        "small weights count more. In each table the largest number has the strongest colour.");
    page_head_numbers(f, e, "Largest span of a column of V: its largest minus its smallest value",
                      number_span, 0);
    page_head_numbers(f, e,
                      "How much LASER's output differs from the average, in % of the average (root mean "
                      "squares over tokens and columns)",
                      number_change, 0);
    page_head_numbers(f, e, "Largest difference of one element of the output", number_largest, 0);
    fputs("</section>\n", f);
}

/* For the script: of each head a text with the codes of all its weights, and the letters of the codes. */
static inline void page_json_weights(FILE *f, const Explanation *e) {
    const int L = e->model->config.layers, H = e->model->config.heads;
    const int64_t count = (int64_t)e->n * (e->n + 1) / 2;
    fprintf(f, ",\n\"letters\":\"%s\",\n\"weights\":[", explain_letters);
    for (int at = 0; at < L * H; at++) {
        const double *a = explanation_weights(e, at / H, at % H);
        fputs(at ? ",\n\"" : "\"", f);
        for (int64_t i = 0; i < count; i++) {
            const int code = weight_code(a[i]);
            fputc(explain_letters[code / EXPLAIN_LETTERS], f),
                fputc(explain_letters[code % EXPLAIN_LETTERS], f);
        }
        fputc('"', f);
    }
    fputc(']', f);
}

#endif
