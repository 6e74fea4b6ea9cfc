/* explain_text.h: the page of ./explain as data, and tokens, numbers and headings as its sections write them. Include
   train_gpt.c before. */
#ifndef TOOLS_EXPLAIN_TEXT_H
#define TOOLS_EXPLAIN_TEXT_H

#include "explain_measure.h"
#include "html_page.h"
#include "explain_style.h"

typedef struct {
    const Explanation *e;
    const Tokenizer *tokenizer;
    const char *prompt; /* its text, up to its first zero byte */
    const char *folder; /* of the checkpoint */
    int head;           /* that the page shows first: its number in (L, H) */
} ExplainPage;

/* ---- texts ---- */

enum { EXPLAIN_SHOWN = 512, EXPLAIN_CHARACTERS = 28 };

/* Adds a token to `shown`: its first characters, with signs for space, line break and tab. */
static inline const char *token_shown(char shown[EXPLAIN_SHOWN], const Tokenizer *tokenizer, int id) {
    size_t size, used = 0;
    const char *bytes = tokenizer_decode_token(tokenizer, id, &size);
    int characters = 0;
    if (size == 0) snprintf(shown, EXPLAIN_SHOWN, "(no text)");
    for (size_t at = 0, length; at < size; at += length) {
        uint32_t code;
        length = check_character(bytes + at, size - at, &code);
        if (length == 0) length = 1;
        const char byte = bytes[at];
        const char *sign = byte == ' ' ? "·" : byte == '\n' ? "↵" : byte == '\t' ? "→" : NULL;
        if (characters++ == EXPLAIN_CHARACTERS) sign = "…", length = size - at;
        if (sign)
            used += (size_t)snprintf(shown + used, EXPLAIN_SHOWN - used, "%s", sign);
        else
            used += check_printable(shown + used, EXPLAIN_SHOWN - used, bytes + at, length, false);
    }
    return shown;
}

static inline void page_token(FILE *f, const ExplainPage *page, int id) {
    char shown[EXPLAIN_SHOWN];
    html_text(f, token_shown(shown, page->tokenizer, id));
}

/* The number of a token in the prompt, and its text. */
static inline void page_place(FILE *f, const ExplainPage *page, int t) {
    fprintf(f, "<span class=\"k\" data-say=\"token\">%d ", t), page_token(f, page, page->e->tokens[t]);
    fputs("</span>", f);
}

static inline const char *percent_text(char text[FORMAT_SIZE], double p) {
    if (!isfinite(p))
        snprintf(text, FORMAT_SIZE, "-");
    else
        snprintf(text, FORMAT_SIZE, p < 0.0005 ? "<0.1%%" : "%.1f%%", 100 * p);
    return text;
}

static inline void page_percent(FILE *f, double p) {
    char text[FORMAT_SIZE];
    html_text(f, percent_text(text, p));
}

static inline const char *size_text(char text[FORMAT_SIZE], double x) {
    if (!isfinite(x))
        snprintf(text, FORMAT_SIZE, "-");
    else
        snprintf(text, FORMAT_SIZE, x < 1e5 ? "%.*f" : "%.*e",
                 x < 9.995               ? 2
                 : x < 99.95 || x >= 1e5 ? 1
                                         : 0,
                 x);
    return text;
}

/* A size that may be small: three digits from 0.001 on, below that two and an exponent. */
static inline const char *small_text(char text[FORMAT_SIZE], double x) {
    const bool plain = x == 0 || (x >= 0.0009995 && x < 1e5);
    int decimals = x == 0 ? 0 : 5;
    for (double limit = 0.009995; decimals > 0 && x >= limit; limit *= 10) decimals--;
    if (!isfinite(x))
        snprintf(text, FORMAT_SIZE, "-");
    else
        snprintf(text, FORMAT_SIZE, plain ? "%.*f" : "%.*e", plain ? decimals : 1, x);
    return text;
}

/* A share from 0 to 1, as the variable --w of an element. */
static inline void page_share(FILE *f, double w) {
    fprintf(f, "--w:%.3g", isfinite(w) ? fmax(0, fmin(1, w)) : 0);
}

static inline void page_section(FILE *f, const char *title, const char *see) {
    fprintf(f, "<section class=\"card\"><h2>%s</h2>\n<p class=\"see\">%s</p>\n", title, see);
}

/* A row of a list with bars: a token, after its number in the prompt if place is not -1, a bar, and a value. */
static inline void page_bar(FILE *f, const ExplainPage *page, int place, int id, double w,
                            const char *value) {
    fputs("<li style=\"", f), page_share(f, w), fputs("\"><span class=\"k\">", f);
    if (place >= 0) fprintf(f, "%d ", place);
    page_token(f, page, id), fputs("</span><i></i><b>", f);
    html_text(f, value), fputs("</b></li>\n", f);
}

#endif
