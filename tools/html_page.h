/* html_page.h: what all pages of HTML have in common that the tools write: their look, and how text gets into them. A page
   is one file that loads no other one, so it can be mailed and opened without a network.

   html_page_begin(f)                        the beginning of a page. After it the caller writes the title
   html_page_heading(f, what, style, lines)  ends the title with ": what", adds style (lines) to the look that all pages
                                             have, and writes the page up to its heading, above which stands `what`
   html_text(f, text)                        text outside of scripts
   html_json_text(f, text)                   a JSON string inside a script element
   html_lines(f, lines, count)               lines of a style or a script
   text_shown(text)                          text from a file or the command line as a terminal and a page can show it

   All text from files, models and the command line goes through html_text or html_json_text, so that none of it can
   become part of the page's code. */
#ifndef TOOLS_HTML_PAGE_H
#define TOOLS_HTML_PAGE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../gpt/base/check.h"

/* Colours, for light and dark screens, letters, cards and tables. */
static const char *const html_style_of_all[] = {
    ":root{color-scheme:light dark;--page:#f6f6f3;--card:#fff;--ink:#1d1f24;--soft:#6a6f7b;--line:#e7e7e2;",
    "--edge:#c9cac6;--mark:#fff6d6;--c0:#2563eb;--c1:#e0590b;--c2:#0f9d6b;--c3:#8b3fd9;--c4:#d12f83;",
    "--c5:#0a8fb0;--c6:#a97f00;--c7:#64707f}",
    "@media(prefers-color-scheme:dark){:root{--page:#101216;--card:#181b21;--ink:#e7e8eb;--soft:#969ca8;",
    "--line:#292d35;--edge:#464b55;--mark:#3a3320;--c0:#6aa2ff;--c1:#ff9a4d;--c2:#3fd39b;--c3:#c18cff;",
    "--c4:#ff7fbd;--c5:#45cdea;--c6:#e6c04a;--c7:#a2adba}}",
    "*{box-sizing:border-box}",
    "body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',",
    "Roboto,Helvetica,Arial,sans-serif;font-variant-numeric:tabular-nums}",
    "main{max-width:1180px;margin:0 auto;padding:36px 24px 64px}",
    ".eyebrow{color:var(--soft);font-size:13px;margin-bottom:4px}",
    "h1,h2,p,.legend{overflow-wrap:anywhere}",
    "h1{font-size:27px;line-height:1.2;letter-spacing:-.015em;margin:0 0 6px;font-weight:680}",
    "h2{font-size:15px;margin:0;font-weight:640}p{margin:0}",
    ".facts,.note{color:var(--soft)}.note{font-size:13px}",
    ".verdict{font-size:18px;margin:22px 0 0;max-width:62em}.verdict b{font-weight:680}",
    ".card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;",
    "margin-top:20px;min-width:0}",
    ".scroll{overflow-x:auto}",
    "table{border-collapse:collapse;width:100%}",
    "th,td{text-align:right;padding:7px 14px;white-space:nowrap;border-top:1px solid var(--line)}",
    "th{color:var(--soft);font-weight:500;font-size:13px;border-top:0;padding-top:0}",
    "th:first-child,td:first-child{text-align:left;padding-left:0}",
    "th:last-child,td:last-child{padding-right:0}",
    "[hidden]{display:none}summary{cursor:pointer;font-weight:640}details .scroll{margin-top:12px}",
    "@media(max-width:560px){main{padding:22px 14px 40px}.card{padding:14px}h1{font-size:23px}}",
    "@media print{.card{break-inside:avoid}}",
};

/* Returns a copy in which control characters are written as \xNN; free() it. */
static inline char *text_shown(const char *text) {
    const size_t n = strlen(text), room = 4 * n + 1;
    char *shown = check_calloc(room);
    check_printable(shown, room, text, n, false);
    return shown;
}

/* ---- text ---- */

/* Text outside of scripts. */
static inline void html_text(FILE *f, const char *text) {
    char *shown = text_shown(text);
    for (const char *c = shown; *c; c++) switch (*c) {
        case '&': fputs("&amp;", f); break;
        case '<': fputs("&lt;", f); break;
        case '>': fputs("&gt;", f); break;
        case '"': fputs("&quot;", f); break;
        case '\'': fputs("&#39;", f); break;
        default: fputc(*c, f);
        }
    free(shown);
}

/* A JSON string inside a script element. < > & are written as \u00xx, so that no text can end the element. */
static inline void html_json_text(FILE *f, const char *text) {
    char *shown = text_shown(text);
    fputc('"', f);
    for (const char *c = shown; *c; c++)
        if (strchr("\"\\<>&'", *c))
            fprintf(f, "\\u%04x", (unsigned char)*c);
        else
            fputc(*c, f);
    fputc('"', f);
    free(shown);
}

/* ---- the page ---- */

static inline void html_lines(FILE *f, const char *const *lines, size_t count) {
    for (size_t i = 0; i < count; i++) fprintf(f, "%s\n", lines[i]);
}

static inline void html_page_begin(FILE *f) {
    fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>",
          f);
}

static inline void html_page_heading(FILE *f, const char *what, const char *const *style, size_t lines) {
    fprintf(f, ": %s</title>\n<style>\n", what);
    html_lines(f, html_style_of_all, sizeof html_style_of_all / sizeof *html_style_of_all);
    html_lines(f, style, lines);
    fprintf(f, "</style>\n</head>\n<body>\n<main>\n<p class=\"eyebrow\">%c%s</p>\n<h1>", *what - 'a' + 'A',
            what + 1);
}

#endif
