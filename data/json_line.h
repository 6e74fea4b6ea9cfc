/* json_line.h: finds the text in one field of a JSON line, for ./prepare.

     json_line(line, n, field, text)   looks for the string in that field of a line of n bytes. NULL: it is there, and
                                       text->bytes has its text->length bytes. Otherwise the reason why there is none,
                                       in words that follow "line 7 "

   The line is scanned once, without building a tree of its values. Some things that the JSON standard forbids are
   common in files of text, and their meaning is clear, so they are accepted: NaN, Infinity and -Infinity as Python
   writes them, control characters in strings, and a byte order mark before the line. Half of a surrogate pair, which is
   not a character, becomes U+FFFD, and text->replaced counts how many there were. When a field is there twice the last
   one counts, as in JavaScript and Python. Bytes that are not valid UTF-8 are kept as they are. */
#ifndef DATA_JSON_LINE_H
#define DATA_JSON_LINE_H

#include <stdbool.h>
#include "../gpt/base/check.h"

enum { JSON_DEPTH = 1000 }; /* the most lists and objects inside each other */

typedef struct {
    const char *bytes; /* (length) owned by the line, or by this struct when the text has escapes */
    size_t length;
    size_t replaced; /* halves of surrogate pairs that became U+FFFD */
    char *buffer;    /* (room bytes) kept from line to line; the caller frees it at the end */
    size_t room;
} JsonText;

/* The state of a scan. Each function below reads one thing that must stand at p and moves p behind it; false: it does
   not stand there. */
typedef struct {
    const char *p, *end; /* the next byte to read, and the end of the line */
    bool escapes;        /* the string read last has some */
} JsonScan;

static inline void json_space(JsonScan *s) {
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\r' || *s->p == '\n')) s->p++;
}

static inline bool json_take(JsonScan *s, char c) {
    json_space(s);
    if (s->p == s->end || *s->p != c) return false;
    return s->p++, true;
}

static inline bool json_word(JsonScan *s, const char *word) {
    size_t n = strlen(word);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0) return false;
    return s->p += n, true;
}

static inline bool json_digits(JsonScan *s) {
    const char *first = s->p;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9') s->p++;
    return s->p > first;
}

static inline bool json_number_at(JsonScan *s) {
    if (s->p < s->end && *s->p == '-') s->p++;
    if (json_word(s, "Infinity")) return true;
    bool whole = json_digits(s), part = json_word(s, ".") && json_digits(s);
    if (!whole && !part) return false;
    if (!json_word(s, "e") && !json_word(s, "E")) return true;
    if (!json_word(s, "+")) json_word(s, "-");
    return json_digits(s);
}

/* The value of four hexadecimal digits, or -1. */
static inline int json_hex(const char *p, const char *end) {
    int value = 0;
    if (end - p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int c = (unsigned char)p[i], digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
        if (digit < 0 || digit > 15 || (c < 'A' && digit > 9)) return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* The rest of a string, behind its first quotation mark. */
static inline bool json_string(JsonScan *s) {
    s->escapes = false;
    while (s->p < s->end) {
        char c = *s->p++;
        if (c == '"') return true;
        if (c != '\\') continue;
        s->escapes = true;
        if (s->p == s->end) return false;
        c = *s->p++;
        if (c == 'u' && json_hex(s->p, s->end) < 0) return false;
        if (c != 'u' && !(c && strchr("\"\\/bfnrt", c))) return false;
    }
    return false;
}

/* A value that is neither a list nor an object. */
static inline bool json_plain(JsonScan *s) {
    if (json_word(s, "\"")) return json_string(s);
    return json_word(s, "true") || json_word(s, "false") || json_word(s, "null") || json_word(s, "NaN") ||
           json_number_at(s);
}

static inline bool json_key(JsonScan *s) { return json_take(s, '"') && json_string(s) && json_take(s, ':'); }

/* Any value. The lists and objects that have begun are remembered by their closing brackets. */
static inline bool json_value(JsonScan *s) {
    char open[JSON_DEPTH];
    int depth = 0;
    for (;;) {
        json_space(s);
        bool object = json_word(s, "{");
        if (object || json_word(s, "[")) {
            if (depth == JSON_DEPTH) return false;
            open[depth] = object ? '}' : ']';
            if (!json_take(s, open[depth])) { /* its first value */
                if (object && !json_key(s)) return false;
                depth++;
                continue;
            }
        } else if (!json_plain(s)) {
            return false;
        }
        while (depth && json_take(s, open[depth - 1])) depth--;
        if (!depth) return true;
        if (!json_take(s, ',') || (open[depth - 1] == '}' && !json_key(s))) return false;
    }
}

static inline size_t json_put_utf8(char *to, int code) {
    if (code < 0x80) return to[0] = (char)code, 1;
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const int lead[4] = {0, 0xC0, 0xE0, 0xF0};
    for (int i = more; i; i--, code >>= 6) to[i] = (char)(0x80 | (code & 0x3F));
    to[0] = (char)(lead[more] | code);
    return (size_t)more + 1;
}

/* Sets *code to the character of an escape \uXXXX, or of two escapes that are a surrogate pair; p is behind the first
   u. Returns a pointer to the first byte after the escapes. */
static inline const char *json_escape_u(const char *p, const char *end, int *code, size_t *replaced) {
    *code = json_hex(p, end), p += 4;
    if (*code < 0xD800 || *code > 0xDFFF) return p;
    int low = *code < 0xDC00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u' ? json_hex(p + 2, end) : -1;
    if (low >= 0xDC00 && low <= 0xDFFF)
        return *code = 0x10000 + (*code - 0xD800) * 0x400 + (low - 0xDC00), p + 6;
    return *code = 0xFFFD, ++*replaced, p;
}

/* Replaces the escapes of a valid string [p, end), without its quotation marks. `to` has room for as many bytes;
   returns how many were written. */
static inline size_t json_unescape(const char *p, const char *end, char *to, size_t *replaced) {
    static const char from[] = "bfnrt", into[] = "\b\f\n\r\t";
    char *at = to;
    while (p < end) {
        const char *escape = memchr(p, '\\', (size_t)(end - p));
        size_t n = (size_t)((escape ? escape : end) - p);
        memcpy(at, p, n), at += n, p += n;
        if (!escape) break;
        const char *known = strchr(from, p[1]);
        int code;
        p += 2;
        if (p[-1] == 'u')
            p = json_escape_u(p, end, &code, replaced), at += json_put_utf8(at, code);
        else
            *at++ = known ? into[known - from] : p[-1];
    }
    return (size_t)(at - to);
}

/* Whether a key of n bytes is the name of the field. */
static inline bool json_is_field(const char *key, size_t n, bool escapes, const char *field, JsonText *text) {
    size_t replaced = 0;
    if (escapes) {
        text->buffer = check_grow(text->buffer, &text->room, n, 1);
        n = json_unescape(key, key + n, text->buffer, &replaced);
        key = text->buffer;
    }
    return n == strlen(field) && memcmp(key, field, n) == 0;
}

static inline const char *json_line(const char *line, size_t n, const char *field, JsonText *text) {
    static const char invalid[] = "is not valid JSON";
    JsonScan s = {line, line + n, false};
    const char *found = NULL, *found_end = NULL;
    bool there = false, escapes = false;
    json_word(&s, "\xEF\xBB\xBF");
    json_space(&s);
    bool object = s.p < s.end && *s.p == '{';
    if (!object) {
        if (!json_value(&s)) return invalid;
    } else if (s.p++, !json_take(&s, '}')) {
        do {
            const char *key = (json_space(&s), s.p + 1), *value;
            if (!json_take(&s, '"') || !json_string(&s)) return invalid;
            bool is_field = json_is_field(key, (size_t)(s.p - 1 - key), s.escapes, field, text);
            if (!json_take(&s, ':')) return invalid;
            json_space(&s);
            value = s.p;
            if (!json_value(&s)) return invalid;
            if (!is_field) continue;
            there = true, escapes = s.escapes;
            found = *value == '"' ? value + 1 : NULL, found_end = s.p - 1;
        } while (json_take(&s, ','));
        if (!json_take(&s, '}')) return invalid;
    }
    json_space(&s);
    if (s.p < s.end) return invalid;
    if (!object) return "is not a JSON object";
    if (!there) return "has no such field";
    if (!found) return "holds something else than a text in the field";
    text->bytes = found, text->length = (size_t)(found_end - found), text->replaced = 0;
    if (!escapes) return NULL;
    text->buffer = check_grow(text->buffer, &text->room, text->length, 1);
    text->length = json_unescape(found, found_end, text->buffer, &text->replaced);
    text->bytes = text->buffer;
    return NULL;
}

#endif
