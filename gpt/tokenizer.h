/* tokenizer.h: byte-level BPE (GPT-2's): training, encoding, decoding; Hugging Face's tokenizer.json.

   A text is cut into pieces by GPT-2's rule
       's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
   and the bytes of each piece are joined pair by pair: always the neighbours whose merge was learned first,
   the leftmost on a tie. Any bytes can be encoded, decoding gives them back; a byte that is no part of valid
   UTF-8 counts as a character that is neither letter, number nor white space. Special tokens (<|endoftext|>)
   never match inside a text unless asked. A vocabulary has at most 65,536 tokens, so an id is a uint16_t.

   Tokenizer *t = tokenizer_load(path)    tokenizer.json, or vocab.json (merges.txt beside it), or a folder
                                          with either; dies with what is wrong. A vocabulary of another kind
                                          (SentencePiece's) loads for decoding; encoding dies: t->why_not
   tokenizer_save(t, path)                as tokenizer.json, which Hugging Face's `tokenizers` reads
   tokenizer_free(t)
   tokenizer_vocab_size(t)                largest id + 1
   tokenizer_end_of_text(t)               the id that separates documents, -1 when there is none
   tokenizer_decode_token(t, id, &n)      the n raw bytes of a token; owned by t
   tokenizer_encode(t, cache, text, n, ids)           returns how many; ids must have room for n of them
   tokenizer_encode_special(t, cache, text, n, ids)   the same, special tokens in the text matched
   tokenizer_split(t, text, n)            the length of the first piece of the rule above
   tokenizer_cache_new()                  remembers pieces; one per thread, free() it; NULL works, more slowly

   TokenizerTrainer *r = tokenizer_trainer_new(threads)
   tokenizer_trainer_add(r, thread, text, n)    counts the pieces of one document; threads may call at once,
                                                each with its own number
   t = tokenizer_trainer_finish(r, vocab_size)  learns the merges and frees r: ids are the 256 bytes in
                                                GPT-2's order, the merges, <|endoftext|> last. The most
                                                frequent pair first, the smaller (left id, right id) on a tie:
                                                the result does not depend on threads or the order of
                                                documents. Fewer tokens than asked when no pair is left that
                                                occurs twice.
   Learning works on the distinct pieces, not on the text: each merge visits only the pieces its pair is in,
   pair counts are kept up to date, and a heap finds the largest. Hugging Face's trainer learns the same
   merges. 300 MB of text, 32,000 tokens: seconds. */
#ifndef GPT_TOKENIZER_H
#define GPT_TOKENIZER_H

#include <stdbool.h>
#include <sys/stat.h>
#include <cjson/cJSON.h>
#include "check.h"

/* -----------------------------------------------------------------------------------------------------------
   Unicode classes. Runs of code points: length in base 36, then + letter, # number, _ white space, . other;
   Unicode 16, printed by data/unicode_classes.py. */

enum { TOKENIZER_OTHER, TOKENIZER_LETTER, TOKENIZER_NUMBER, TOKENIZER_SPACE };
enum { TOKENIZER_CODE_POINTS = 0x110000, TOKENIZER_MAX_VOCAB = 65536 };

static const char tokenizer_runs[] =
    "9.5_i.1_f.a#7.q+6.q+a.1_q.1_9.1+7.2#1.1+3.1#1+1.3#1.n+1.v+1.cq+4.c+e.5+7.1+1.1+3l.5+1.2+2.4+1.1+6.1+"
    "1.3+1.1+1.k+1.2b+1.3v+8.4m+1.12+2.1+6.15+1z.r+4.4+19.17+l.a#4.2+1.2r+1.1+f.2+7.2+a#3+2.1+g.1+1.u+t.2"
    "h+b.1+e.a#x+9.2+4.1+5.m+4.1+9.1+3.1+n.p+7.b+5.o+1.6+h.16+1m.1i+3.1+i.1+7.a+4.a#1.g+4.8+2.2+2.m+1.7+1"
    ".1+3.4+3.1+g.1+d.2+1.3+4.a#2+2.6#2.1+8.6+4.2+2.m+1.7+1.2+1.2+1.2+v.4+1.1+7.a#2.3+g.9+1.3+1.m+1.7+1.2"
    "+1.5+3.1+i.1+f.2+4.a#9.1+b.8+2.2+2.m+1.7+1.2+1.5+3.1+u.2+1.3+4.a#1.1+6#b.1+1.6+3.3+1.4+3.2+1.1+1.2+3"
    ".2+3.3+3.c+m.1+l.d#i.8+1.3+1.n+1.g+3.1+q.3+2.1+2.2+4.a#8.7#1.1+4.8+1.3+1.n+1.a+1.5+3.1+v.2+1.2+4.a#1"
    ".2+h.9+1.3+1.15+2.1+g.1+5.3+1.7#3+4.j#1.6+5.i+3.o+1.9+1.1+2.7+v.a#h.1c+1.2+c.7+9.a#13.2+1.1+1.5+1.o+"
    "1.1+1.a+1.2+9.1+2.5+1.1+9.a#2.4+w.1+v.k#c.8+1.10+r.5+37.17+k.1+a#6.6+4.4+3.1+3.2+7.3+4.d+c.1+1.a#6.1"
    "2+1.1+5.1+2.17+1.99+1.4+2.7+1.1+1.4+2.15+1.4+2.x+1.4+2.7+1.1+1.4+2.f+1.1l+1.4+2.1v+e.k#3.g+g.2e+2.6+"
    "3.h8+2.h+1_q+5.23+3.3#8+7.i+d.j+e.i+e.d+1.3+f.1g+z.1+4.1+3.a#6.a#m.a#6.2h+7.5+2.y+1.1+5.1y+a.v+13.a#"
    "u+2.5+b.18+4.q+6.b#11.n+9.1h+17.a#6.a#d.1+2l.1b+h.8+3.a#15.u+d.2+a#18+q.10+s.a#3.3+a#10+2.b+5.17+2.3"
    "+15.4+1.6+1.2+3.1+5.5c+1s.7q+2.6+2.12+2.6+2.8+1.1+1.1+1.1+1.v+2.1h+1.7+1.1+3.3+1.7+3.4+2.6+4.d+5.3+1"
    ".7+3.b_t.2_5.1_1b.1_g.1#1+2.6#5.1+a#6.d+2t.1+4.1+2.a+1.1+3.5+6.1+1.1+1.1+1.4+1.b+2.4+5.5+4.1+1.1f#2+"
    "5#k6.1o#26.m#hi.u#vg.6d+6.4+3.2+9.1#2.12+1.1+5.1+2.1k+7.1+g.n+9.7+1.7+1.7+1.7+1.7+1.7+1.7+1.7+28.1+c"
    "w.1_4.2+1#p.9#7.5+2.3#2+4.2e+6.3+1.2i+1.4+5.17+1.2m+3.4#a.w+1c.g+w.a#u.8#1.f#w.a#13.f#8w.534+1s.h3h+"
    "1v.1a+2.7h+3.g+a#2+k.1b+g.v+2.1y+a#13.9+2.2v+2.1v+2.2+1.1+1.8+l.g+1.3+1.4+1.n+d.6#a.1g+e.1e+s.a#o.6+"
    "3.1+1.2+1.a#s+a.n+p.t+7.1b+s.1+a#6.5+1.a+a#5+1.15+n.3+1.8+4.a#6.n+3.1+3.1e+1.1+3.2+2.5+2.1+1.1+o.3+2"
    ".b+7.3+c.6+2.6+2.6+9.7+1.7+1.17+1.e+6.37+d.a#6.8mc+c.n+4.1d+6is.a6+2.2y+12.7+c.5+5.1+1.a+1.d+1.5+1.1"
    "+1.2+1.2+1.30+x.a3+i.1s+2.1i+14.c+38.5+1.3r+j.a#7.q+6.q+b.2h+3.6+2.6+2.6+2.3+z.c+1.q+1.j+1.2+1.f+2.e"
    "+y.3f+c.19#c.1l#h.2#6s.t+3.1d+g.r#4.w+4#9.k+1#8+1#5.12+a.u+2.10+4.8+1.5#16.4e+2.a#6.10+4.10+4.14+8.1"
    "g+c.b+1.f+1.7+1.2+1.b+1.f+1.7+1.2+3.1g+c.8n+9.m+a.8+o.6+1.16+1.9+1x.6+2.1+1.18+1.2+3.1+2.n+2.8#n+2.7"
    "#v+8.9#1c.j+1.2+5.5#m+6#4.q+1y.1k+4.2#2+g#2.1a#1+f.4+1.3+1.t+a.9#n.t+2#1.t+3#w.8+1.s+6.5#g.1i+a.m+2."
    "8#j+5.8#i+n.7#28.21+1j.1f+d.1f+7.6#10+c.a#6.a#s+9.n+62.v#1.16+6.2+g.3+1n.t+a#1+8.m+b.4#r.i+1a.l+7#k."
    "n+c.1h+q.u#1.2+2.1+d.19+w.p+7.a#9.10+f.a#4.1+2.1+8.z+3.1+c.1c+e.4+b.a#1+1.1+4.k#b.i+1.p+j.2+1r.7+1.1"
    "+1.4+1.f+1.a+7.1b+h.a#b.8+2.2+2.m+1.7+1.2+1.5+3.1+i.1+c.5+u.a+1.1+2.1+1.12+1.1+p.1+1.1+18.1h+i.4+5.a"
    "#5.3+u.1c+k.2+1.1+8.a#4m.1b+15.4+10.1c+k.1+b.a#12.17+d.1+7.a#6.k#s.r+l.c#4.7+55.18+38.1s+j#c.8+2.1+2"
    ".8+1.2+1.o+f.1+1.1+e.a#1y.8+2.13+g.1+1.1+s.1+a.14+7.1+l.1+b.1a+j.1+i.21+5j.x+f.a#6.9+1.11+h.1+f.t#5."
    "u+34.7+1.2+1.12+l.1+9.a#6.6+1.2+1.w+e.1+7.a#8m.j+f.1+1.d+1.y+s.a#2e.1+f.l#17.pm+2u.33#h.5g+218.2p+f."
    "ts+h.6+p.32z+5.g7+5a1.u+i.a#1c6.ft+7.v+1.a#6.27+1.a#6.u+i.1c+g.4+c.a#1.7#1.l+5.j+c0.19+3.a#5i.1s+n#2"
    "x.23+5.1+1u.d+1s.2+1.1+s.4qg+8.ye+15.a+6w7.4+1.7+1.2+1.83+f.1+t.3+2.1+e.4+8.b0+1s4.2z+5.d+3.9+7.a+38"
    "6.a#152.k#c.k#30.p#3r.2d+1.1z+1.2+2.1+2.2+2.4+1.c+1.1+1.7+1.1t+1.4+2.8+1.7+1.s+1.4+1.5+1.1+3.7+1.9g+"
    "2.p+1.p+1.v+1.p+1.v+1.p+1.v+1.p+1.v+1.p+1.8+2.1e#1ds.v+6.6+79.1q+42.19+a.7+2.a#4.1+8x.u+i.18+4.a#d2."
    "s+4.a#5y.u+2.1+a#dh.7+1.4+1.2+1.f+1.5h+2.9#1c.1w+7.1+4.a#lz.1n#1.3#1.4#24.19#1.f#5e.4+1.r+1.2+1.1+2."
    "1+1.a+1.4+1.1+1.1+6.1+4.1+1.1+1.1+1.3+1.2+1.1+2.1+1.1+1.1+1.1+1.1+1.2+1.1+2.4+1.7+1.4+1.4+1.1+1.a+1."
    "h+5.3+1.5+1.h+g4.d#25f.a#sm.wyo+w.37e+6.66+2.4g2+e.5rl+f.ha+1wi.f2+15u.3t7+5.38g+";

/* The class of every code point, (0x110000); free() it. */
static inline unsigned char *tokenizer_classes(void) {
    unsigned char *classes = check_malloc(TOKENIZER_CODE_POINTS), *at = classes;
    for (const char *run = tokenizer_runs; *run;) {
        char *mark;
        long length = strtol(run, &mark, 36);
        int kind = *mark == '+'   ? TOKENIZER_LETTER
                   : *mark == '#' ? TOKENIZER_NUMBER
                   : *mark == '_' ? TOKENIZER_SPACE
                                  : TOKENIZER_OTHER;
        memset(at, kind, (size_t)length);
        at += length, run = mark + 1;
    }
    return classes;
}

/* Reads one code point of strictly valid UTF-8 (no overlong forms, no surrogates) and its length; an invalid
   byte is -1, of length 1. */
static inline int tokenizer_utf8(const unsigned char *p, const unsigned char *end, int *length) {
    *length = 1;
    if (p[0] < 0x80) return p[0];
    int more = p[0] >= 0xF0 ? 3 : p[0] >= 0xE0 ? 2 : 1;
    if (p[0] < 0xC2 || p[0] > 0xF4 || end - p <= more) return -1;
    int code = p[0] & (0x3F >> more);
    for (int i = 1; i <= more; i++) {
        if ((p[i] & 0xC0) != 0x80) return -1;
        code = code << 6 | (p[i] & 0x3F);
    }
    static const int least[4] = {0, 0x80, 0x800, 0x10000};
    if (code < least[more] || code >= TOKENIZER_CODE_POINTS || (code >= 0xD800 && code < 0xE000)) return -1;
    *length = more + 1;
    return code;
}

static inline int tokenizer_class(const unsigned char *classes, const unsigned char *p,
                                  const unsigned char *end, int *length) {
    int code = tokenizer_utf8(p, end, length);
    return code < 0 ? TOKENIZER_OTHER : classes[code];
}

/* The end of the run of characters of one class that begins at p. */
static inline const unsigned char *tokenizer_run(const unsigned char *classes, const unsigned char *p,
                                                 const unsigned char *end, int kind) {
    int length = 1;
    for (; p < end; p += length) {
        length = 1;
        if (*p < 0x80 ? classes[*p] != kind : tokenizer_class(classes, p, end, &length) != kind) break;
    }
    return p;
}

/* A run of white space: all of it at the end of the text, else all but its last character, which goes with
   what follows; a single one stands alone. */
static inline const unsigned char *tokenizer_white(const unsigned char *classes, const unsigned char *p,
                                                   const unsigned char *end) {
    const unsigned char *last = p, *q = p;
    int length;
    while (q < end && tokenizer_class(classes, q, end, &length) == TOKENIZER_SPACE) last = q, q += length;
    return q == end || last == p ? q : last;
}

/* The end of the first piece of a text that is not empty. */
static inline const unsigned char *tokenizer_piece(const unsigned char *classes, const unsigned char *p,
                                                   const unsigned char *end) {
    int length, kind = tokenizer_class(classes, p, end, &length);
    if (*p == ' ' && end - p > 1) { /* the space goes with what follows, unless that is white space too */
        kind = tokenizer_class(classes, p + 1, end, &length);
        if (kind != TOKENIZER_SPACE) return tokenizer_run(classes, p + 1 + length, end, kind);
    }
    if (kind == TOKENIZER_SPACE) return tokenizer_white(classes, p, end);
    if (*p == '\'' && end - p > 1) {
        if (p[1] == 's' || p[1] == 't' || p[1] == 'm' || p[1] == 'd') return p + 2;
        if (end - p > 2 && ((p[1] == 'l' && p[2] == 'l') || ((p[1] == 'r' || p[1] == 'v') && p[2] == 'e')))
            return p + 3;
    }
    return tokenizer_run(classes, p + length, end, kind);
}

/* -----------------------------------------------------------------------------------------------------------
   The tokenizer and its tables */

typedef struct {
    char *bytes; /* NULL: no token has this id */
    uint32_t length;
    bool added;   /* one of tokenizer.json's added tokens: found in a text as it stands, not by merging */
    bool special; /* an added token that is not looked for unless asked */
} Token;

/* A pair of neighbours and what they become. The value is rank << 16 | id, so that comparing values compares
   ranks; TOKENIZER_NONE marks a free place, and a pair that does not merge. */
typedef struct {
    uint32_t pair; /* left << 16 | right */
    uint32_t value;
} TokenizerMerge;

/* A piece of at most 16 bytes that is one token, its bytes as two little-endian numbers. */
typedef struct {
    uint64_t low, high;
    uint16_t id;
    uint8_t length; /* 0: a free place */
} TokenizerWhole;

typedef struct {
    Token *tokens; /* (vocab_size) */
    int vocab_size, end_of_text;
    uint32_t *merges; /* (n_merges) left << 16 | right, in the order learned */
    int n_merges;
    uint16_t byte_id[256];
    unsigned char *classes;      /* (0x110000) */
    TokenizerMerge *merge_table; /* (merge_mask + 1), open addressing */
    TokenizerWhole *whole_table; /* (whole_mask + 1), open addressing */
    uint32_t merge_mask, whole_mask;
    bool has_plain_added; /* added tokens that are not special: always looked for */
    char why_not[256];    /* not "": encoding is impossible, and why */
} Tokenizer;

#define TOKENIZER_NONE UINT32_MAX

static inline uint64_t tokenizer_hash(uint64_t low, uint64_t high) {
    uint64_t h = (low ^ (high * 0x9E3779B97F4A7C15u)) * 0xBF58476D1CE4E5B9u;
    return h ^ h >> 32;
}

static inline uint32_t tokenizer_merge(const Tokenizer *t, uint32_t left, uint32_t right) {
    uint32_t pair = left << 16 | right;
    uint32_t at = (uint32_t)tokenizer_hash(pair, 0) & t->merge_mask;
    while (t->merge_table[at].value != TOKENIZER_NONE && t->merge_table[at].pair != pair)
        at = (at + 1) & t->merge_mask;
    return t->merge_table[at].value;
}

/* Up to 16 bytes as two numbers, the rest zero; `readable` bytes may be touched. */
static inline void tokenizer_key(const unsigned char *p, size_t n, size_t readable, uint64_t key[2]) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (readable >= 16) { /* no loop over bytes where most of the time goes */
        memcpy(key, p, 16);
        if (n <= 8)
            key[0] &= UINT64_MAX >> (64 - 8 * n), key[1] = 0;
        else
            key[1] &= UINT64_MAX >> (128 - 8 * n);
        return;
    }
#else
    (void)readable;
#endif
    key[0] = key[1] = 0;
    for (size_t i = 0; i < n; i++) key[i / 8] |= (uint64_t)p[i] << 8 * (i % 8);
}

static inline uint64_t tokenizer_hash_bytes(const char *bytes, size_t n) {
    uint64_t key[2], hash = n;
    for (size_t i = 0; i < n; i += 16) {
        tokenizer_key((const unsigned char *)bytes + i, n - i < 16 ? n - i : 16, n - i, key);
        hash = tokenizer_hash(hash ^ key[0], key[1]);
    }
    return hash;
}

static inline int tokenizer_vocab_size(const Tokenizer *t) { return t->vocab_size; }
static inline int tokenizer_end_of_text(const Tokenizer *t) { return t->end_of_text; }

static inline const char *tokenizer_decode_token(const Tokenizer *t, int id, size_t *length) {
    if (id < 0 || id >= t->vocab_size || !t->tokens[id].bytes) return *length = 0, "";
    *length = t->tokens[id].length;
    return t->tokens[id].bytes;
}

static inline size_t tokenizer_split(const Tokenizer *t, const char *text, size_t n) {
    const unsigned char *p = (const unsigned char *)text;
    return n ? (size_t)(tokenizer_piece(t->classes, p, p + n) - p) : 0;
}

/* -----------------------------------------------------------------------------------------------------------
   Encoding */

enum {
    TOKENIZER_SHORT = 128,
    TOKENIZER_CACHE_BYTES = 62,
    TOKENIZER_CACHE_IDS = 32,
    TOKENIZER_CACHE = 1 << 14
};

typedef struct {
    uint8_t length, n_ids; /* length 0: a free place */
    unsigned char bytes[TOKENIZER_CACHE_BYTES];
    uint16_t ids[TOKENIZER_CACHE_IDS];
} TokenizerCache;

static inline TokenizerCache *tokenizer_cache_new(void) {
    return check_malloc(TOKENIZER_CACHE * sizeof(TokenizerCache));
}

/* Merges a piece of at most TOKENIZER_SHORT bytes: looking at all pairs each time is fastest for so few. */
static inline size_t tokenizer_merge_short(const Tokenizer *t, const unsigned char *p, size_t n,
                                           uint16_t *ids) {
    uint32_t value[TOKENIZER_SHORT]; /* of the pair (i, i+1) */
    for (size_t i = 0; i < n; i++) ids[i] = t->byte_id[p[i]];
    for (size_t i = 0; i + 1 < n; i++) value[i] = tokenizer_merge(t, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) best = value[i] < value[best] ? i : best;
        if (value[best] == TOKENIZER_NONE) break;
        ids[best] = (uint16_t)value[best];
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        memmove(value + best, value + best + 1, (n - best - 1) * sizeof *value);
        if (best > 0) value[best - 1] = tokenizer_merge(t, ids[best - 1], ids[best]);
        if (best + 1 < n) value[best] = tokenizer_merge(t, ids[best], ids[best + 1]);
    }
    return n;
}

/* A heap of numbers, the smallest on top. */
static inline void tokenizer_heap_push(uint64_t *heap, size_t *n, uint64_t item) {
    size_t at = (*n)++;
    for (; at && heap[(at - 1) / 2] > item; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = item;
}

static inline uint64_t tokenizer_heap_pop(uint64_t *heap, size_t *n) {
    uint64_t top = heap[0], item = heap[--*n];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < *n) {
        if (child + 1 < *n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= item) break;
        heap[at] = heap[child], at = child;
    }
    heap[at] = item;
    return top;
}

/* The same for a piece of any length (a megabyte of one letter is one piece): a heap of (value, position) and
   links over joined places. ids[i] is meaningful where i is still the start of a symbol. */
static inline size_t tokenizer_merge_long(const Tokenizer *t, const unsigned char *p, size_t n,
                                          uint16_t *ids) {
    if (n >= UINT32_MAX) die("a piece of text without a break has %zu bytes; cut it, 4 GiB are too many", n);
    uint32_t *next = check_malloc(n * sizeof *next), *previous = check_malloc(n * sizeof *previous);
    uint64_t *heap = check_malloc(3 * n * sizeof *heap); /* n - 1 at first, at most 2 new ones per join */
    size_t in_heap = 0, count = 0;
    for (size_t i = 0; i < n; i++)
        ids[i] = t->byte_id[p[i]], next[i] = (uint32_t)i + 1, previous[i] = (uint32_t)i - 1;
    for (size_t i = 0; i + 1 < n; i++) {
        uint32_t value = tokenizer_merge(t, ids[i], ids[i + 1]);
        if (value != TOKENIZER_NONE) tokenizer_heap_push(heap, &in_heap, (uint64_t)value << 32 | i);
    }
    while (in_heap) {
        uint64_t top = tokenizer_heap_pop(heap, &in_heap);
        uint32_t value = (uint32_t)(top >> 32), i = (uint32_t)top, right = next[i];
        if (right == 0 || right >= n || tokenizer_merge(t, ids[i], ids[right]) != value)
            continue; /* outdated */
        ids[i] = (uint16_t)value;
        next[i] = next[right];
        next[right] = 0; /* no symbol starts here any more */
        if (next[i] < n) {
            previous[next[i]] = i;
            value = tokenizer_merge(t, ids[i], ids[next[i]]);
            if (value != TOKENIZER_NONE) tokenizer_heap_push(heap, &in_heap, (uint64_t)value << 32 | i);
        }
        if (i > 0) {
            value = tokenizer_merge(t, ids[previous[i]], ids[i]);
            if (value != TOKENIZER_NONE)
                tokenizer_heap_push(heap, &in_heap, (uint64_t)value << 32 | previous[i]);
        }
    }
    for (size_t i = 0; i < n; i = next[i]) ids[count++] = ids[i];
    free(next), free(previous), free(heap);
    return count;
}

static inline size_t tokenizer_merge_piece(const Tokenizer *t, const unsigned char *p, size_t n,
                                           uint16_t *ids) {
    return n <= TOKENIZER_SHORT ? tokenizer_merge_short(t, p, n, ids) : tokenizer_merge_long(t, p, n, ids);
}

/* A piece that is not one token: what was done before is remembered. */
static inline size_t tokenizer_encode_piece(const Tokenizer *t, TokenizerCache *cache, const unsigned char *p,
                                            size_t n, uint16_t *ids) {
    if (!cache || n > TOKENIZER_CACHE_BYTES) return tokenizer_merge_piece(t, p, n, ids);
    TokenizerCache *entry = &cache[tokenizer_hash_bytes((const char *)p, n) % TOKENIZER_CACHE];
    if (entry->length == n && memcmp(entry->bytes, p, n) == 0) {
        memcpy(ids, entry->ids, entry->n_ids * sizeof *ids);
        return entry->n_ids;
    }
    size_t count = tokenizer_merge_piece(t, p, n, ids);
    if (count <= TOKENIZER_CACHE_IDS) {
        entry->length = (uint8_t)n, entry->n_ids = (uint8_t)count;
        memcpy(entry->bytes, p, n);
        memcpy(entry->ids, ids, count * sizeof *ids);
    }
    return count;
}

/* A text without added tokens in it. */
static inline size_t tokenizer_encode_plain(const Tokenizer *t, TokenizerCache *cache, const unsigned char *p,
                                            size_t n, uint16_t *ids) {
    const unsigned char *end = p + n;
    uint16_t *out = ids;
    while (p < end) {
        const unsigned char *next = tokenizer_piece(t->classes, p, end);
        size_t length = (size_t)(next - p);
        if (length <= 16) {
            uint64_t key[2];
            tokenizer_key(p, length, (size_t)(end - p), key);
            const TokenizerWhole *whole;
            for (uint64_t at = tokenizer_hash(key[0], key[1]);; at++) {
                whole = &t->whole_table[at & t->whole_mask];
                if ((whole->low == key[0] && whole->high == key[1] && whole->length == length) ||
                    !whole->length)
                    break;
            }
            if (whole->length)
                *out++ = whole->id;
            else
                out += tokenizer_encode_piece(t, cache, p, length, out);
        } else
            out += tokenizer_encode_piece(t, cache, p, length, out);
        p = next;
    }
    return (size_t)(out - ids);
}

/* The first added token in a text, the longest of those that begin there; its id, or -1. */
static inline int tokenizer_find_added(const Tokenizer *t, const char *text, size_t n, bool special,
                                       size_t *at) {
    int found = -1;
    for (int id = 0; id < t->vocab_size; id++) {
        const Token *token = &t->tokens[id];
        if (!token->added || (token->special && !special) || !token->length) continue;
        const char *end = text + n, *p = text;
        while ((p = memchr(p, token->bytes[0], (size_t)(end - p)))) {
            if ((size_t)(end - p) >= token->length && memcmp(p, token->bytes, token->length) == 0) break;
            if (++p == end) break;
        }
        if (!p || p == end) continue;
        size_t here = (size_t)(p - text);
        if (found < 0 || here < *at || (here == *at && token->length > t->tokens[found].length))
            found = id, *at = here;
    }
    return found;
}

static inline size_t tokenizer_encode_added(const Tokenizer *t, TokenizerCache *cache, const char *text,
                                            size_t n, bool special, uint16_t *ids) {
    size_t count = 0;
    if (n && *t->why_not) die("this tokenizer cannot encode text: %s", t->why_not);
    while (n) {
        size_t at = n;
        int id = special || t->has_plain_added ? tokenizer_find_added(t, text, n, special, &at) : -1;
        count += tokenizer_encode_plain(t, cache, (const unsigned char *)text, at, ids + count);
        if (id < 0) break;
        ids[count++] = (uint16_t)id;
        text += at + t->tokens[id].length, n -= at + t->tokens[id].length;
    }
    return count;
}

static inline size_t tokenizer_encode(const Tokenizer *t, TokenizerCache *cache, const char *text, size_t n,
                                      uint16_t *ids) {
    return tokenizer_encode_added(t, cache, text, n, false, ids);
}

static inline size_t tokenizer_encode_special(const Tokenizer *t, TokenizerCache *cache, const char *text,
                                              size_t n, uint16_t *ids) {
    return tokenizer_encode_added(t, cache, text, n, true, ids);
}

/* -----------------------------------------------------------------------------------------------------------
   Building: from tokens and merges to the tables that encoding reads */

static inline void tokenizer_free(Tokenizer *t) {
    if (!t) return;
    for (int id = 0; t->tokens && id < t->vocab_size; id++) free(t->tokens[id].bytes);
    free(t->tokens), free(t->merges), free(t->classes), free(t->merge_table), free(t->whole_table);
    free(t);
}

static inline void tokenizer_set(Tokenizer *t, int id, const char *bytes, size_t length) {
    t->tokens[id].bytes = check_malloc(length + 1);
    memcpy(t->tokens[id].bytes, bytes, length);
    t->tokens[id].length = (uint32_t)length;
}

/* GPT-2 writes bytes as printable characters: these stand for themselves, the other 68 are U+0100 and on. */
static inline bool tokenizer_printable(int byte) {
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
}

/* The character of each byte, and (as ids of a new vocabulary) the bytes in the order of their characters. */
static inline void tokenizer_byte_characters(int character[256], int order[256]) {
    int n = 0, rest = 256;
    for (int byte = 0; byte < 256; byte++)
        if (tokenizer_printable(byte)) character[byte] = byte, order[n++] = byte;
    for (int byte = 0; byte < 256; byte++)
        if (!tokenizer_printable(byte)) character[byte] = rest++, order[n++] = byte;
}

static inline void tokenizer_build_merges(Tokenizer *t, const uint32_t *results) {
    uint32_t size = 1024;
    while (size < 4 * (uint32_t)t->n_merges) size *= 2;
    t->merge_mask = size - 1;
    t->merge_table = check_malloc(size * sizeof *t->merge_table);
    for (uint32_t i = 0; i < size; i++) t->merge_table[i].value = TOKENIZER_NONE;
    for (int rank = 0; rank < t->n_merges; rank++) {
        uint32_t at = (uint32_t)tokenizer_hash(t->merges[rank], 0) & t->merge_mask;
        while (t->merge_table[at].value != TOKENIZER_NONE && t->merge_table[at].pair != t->merges[rank])
            at = (at + 1) & t->merge_mask;
        t->merge_table[at] = (TokenizerMerge){t->merges[rank], (uint32_t)rank << 16 | results[rank]};
    }
}

/* Every short token that its own bytes merge into: found by one look instead of merging. */
static inline void tokenizer_build_whole(Tokenizer *t) {
    uint16_t ids[16];
    uint32_t size = 1024;
    while (size < 2 * (uint32_t)t->vocab_size) size *= 2;
    t->whole_mask = size - 1;
    t->whole_table = check_malloc(size * sizeof *t->whole_table);
    for (int id = 0; id < t->vocab_size; id++) {
        const Token *token = &t->tokens[id];
        const unsigned char *bytes = (const unsigned char *)token->bytes;
        if (!bytes || token->added || token->length < 1 || token->length > 16) continue;
        if (tokenizer_merge_short(t, bytes, token->length, ids) != 1 || ids[0] != id) continue;
        uint64_t key[2];
        tokenizer_key(bytes, token->length, 0, key);
        uint64_t at = tokenizer_hash(key[0], key[1]);
        while (t->whole_table[at & t->whole_mask].length) at++;
        t->whole_table[at & t->whole_mask] =
            (TokenizerWhole){key[0], key[1], (uint16_t)id, (uint8_t)token->length};
    }
}

/* results: (n_merges) what each merge makes. */
static inline void tokenizer_build(Tokenizer *t, const uint32_t *results) {
    static const char *const separators[] = {"<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>"};
    t->end_of_text = -1;
    for (size_t name = 0; name < sizeof separators / sizeof *separators && t->end_of_text < 0; name++)
        for (int id = 0; id < t->vocab_size; id++)
            if (t->tokens[id].bytes && strcmp(t->tokens[id].bytes, separators[name]) == 0)
                t->end_of_text = id;
    for (int id = 0; id < t->vocab_size; id++)
        t->has_plain_added |= t->tokens[id].added && !t->tokens[id].special;
    t->classes = tokenizer_classes();
    tokenizer_build_merges(t, results);
    if (!*t->why_not) tokenizer_build_whole(t);
}

/* -----------------------------------------------------------------------------------------------------------
   Training. First the pieces are counted: a table of distinct pieces ("words") and how often each occurs. */

typedef struct {
    size_t start;
    uint64_t hash;
    uint32_t length;
    int64_t count;
} TokenizerWord;

typedef struct {
    TokenizerWord *words; /* (n_words) */
    size_t n_words, words_room;
    char *bytes; /* of all words, one after the other */
    size_t n_bytes, bytes_room;
    uint32_t *table; /* (table_size) index + 1 of a word; 0: free */
    size_t table_size;
} TokenizerWords;

typedef struct {
    TokenizerWords *words; /* (threads) */
    int threads;
    unsigned char *classes;
} TokenizerTrainer;

/* Makes room for `need` items, at least doubling; what is there stays. */
static inline void *tokenizer_grow(void *items, size_t *room, size_t need, size_t item_size) {
    if (need <= *room) return items;
    size_t larger = need > 2 * *room ? need : 2 * *room;
    void *fresh = check_malloc(larger * item_size);
    if (items) memcpy(fresh, items, *room * item_size);
    free(items);
    *room = larger;
    return fresh;
}

static inline void tokenizer_words_rehash(TokenizerWords *w) {
    free(w->table);
    w->table_size = w->table_size ? 2 * w->table_size : 1 << 14;
    w->table = check_malloc(w->table_size * sizeof *w->table);
    for (size_t i = 0; i < w->n_words; i++) {
        size_t at = w->words[i].hash & (w->table_size - 1);
        while (w->table[at]) at = (at + 1) & (w->table_size - 1);
        w->table[at] = (uint32_t)i + 1;
    }
}

/* The word with these bytes; a new one has count 0. */
static inline TokenizerWord *tokenizer_word(TokenizerWords *w, const char *bytes, size_t length) {
    uint64_t hash = tokenizer_hash_bytes(bytes, length);
    if (2 * w->n_words >= w->table_size) tokenizer_words_rehash(w);
    size_t at = hash & (w->table_size - 1);
    for (; w->table[at]; at = (at + 1) & (w->table_size - 1)) {
        TokenizerWord *word = &w->words[w->table[at] - 1];
        if (word->hash == hash && word->length == length && !memcmp(w->bytes + word->start, bytes, length))
            return word;
    }
    w->words = tokenizer_grow(w->words, &w->words_room, w->n_words + 1, sizeof *w->words);
    w->bytes = tokenizer_grow(w->bytes, &w->bytes_room, w->n_bytes + length + 1, 1); /* never NULL */
    memcpy(w->bytes + w->n_bytes, bytes, length);
    w->words[w->n_words] = (TokenizerWord){w->n_bytes, hash, (uint32_t)length, 0};
    w->n_bytes += length;
    w->table[at] = (uint32_t)++w->n_words;
    return &w->words[w->n_words - 1];
}

static inline void tokenizer_words_free(TokenizerWords *w) {
    free(w->words), free(w->bytes), free(w->table);
    memset(w, 0, sizeof *w);
}

static inline TokenizerTrainer *tokenizer_trainer_new(int threads) {
    TokenizerTrainer *trainer = check_malloc(sizeof *trainer);
    trainer->threads = threads;
    trainer->words = check_malloc((size_t)threads * sizeof *trainer->words);
    trainer->classes = tokenizer_classes();
    return trainer;
}

static inline void tokenizer_trainer_add(TokenizerTrainer *trainer, int thread, const char *text, size_t n) {
    const unsigned char *p = (const unsigned char *)text, *end = p + n;
    while (p < end) {
        const unsigned char *next = tokenizer_piece(trainer->classes, p, end);
        /* a piece beyond any use for a vocabulary (a file without white space) would only cost memory */
        if (next - p <= 4096)
            tokenizer_word(&trainer->words[thread], (const char *)p, (size_t)(next - p))->count++;
        p = next;
    }
}

/* Then merges are learned on the words. A pair keeps its count and the words it was seen in (some of which it
   may have left since). */
typedef struct {
    uint32_t pair; /* left << 16 | right */
    int64_t count;
    uint32_t *words; /* (n_words) */
    size_t n_words, room;
} TokenizerPair;

typedef struct {
    int64_t count; /* when it was pushed; out of date when the pair's count is another */
    uint32_t pair, index;
} TokenizerBest;

typedef struct {
    const TokenizerWords *words;
    uint16_t *symbols; /* of all words, where their bytes are */
    uint32_t *lengths; /* (n_words) in symbols */
    TokenizerPair *pairs;
    size_t n_pairs, pairs_room;
    uint32_t *table; /* (table_size) index + 1 of a pair; 0: free */
    size_t table_size;
    TokenizerBest *heap;
    size_t in_heap, heap_room;
} TokenizerMerger;

static inline TokenizerPair *tokenizer_pair(TokenizerMerger *m, uint32_t pair) {
    if (2 * m->n_pairs >= m->table_size) {
        free(m->table);
        m->table_size = m->table_size ? 2 * m->table_size : 1 << 16;
        m->table = check_malloc(m->table_size * sizeof *m->table);
        for (size_t i = 0; i < m->n_pairs; i++) {
            size_t at = tokenizer_hash(m->pairs[i].pair, 0) & (m->table_size - 1);
            while (m->table[at]) at = (at + 1) & (m->table_size - 1);
            m->table[at] = (uint32_t)i + 1;
        }
    }
    size_t at = tokenizer_hash(pair, 0) & (m->table_size - 1);
    for (; m->table[at]; at = (at + 1) & (m->table_size - 1))
        if (m->pairs[m->table[at] - 1].pair == pair) return &m->pairs[m->table[at] - 1];
    m->pairs = tokenizer_grow(m->pairs, &m->pairs_room, m->n_pairs + 1, sizeof *m->pairs);
    m->pairs[m->n_pairs] = (TokenizerPair){.pair = pair};
    m->table[at] = (uint32_t)++m->n_pairs;
    return &m->pairs[m->n_pairs - 1];
}

static inline void tokenizer_pair_change(TokenizerMerger *m, uint32_t left, uint32_t right, int64_t change,
                                         uint32_t word) {
    TokenizerPair *pair = tokenizer_pair(m, left << 16 | right);
    pair->count += change;
    if (change < 0 || (pair->n_words && pair->words[pair->n_words - 1] == word)) return;
    pair->words = tokenizer_grow(pair->words, &pair->room, pair->n_words + 1, sizeof *pair->words);
    pair->words[pair->n_words++] = word;
}

static inline bool tokenizer_better(TokenizerBest a, TokenizerBest b) {
    return a.count != b.count ? a.count > b.count : a.pair < b.pair;
}

static inline void tokenizer_best_push(TokenizerMerger *m, uint32_t index) {
    TokenizerBest item = {m->pairs[index].count, m->pairs[index].pair, index};
    if (item.count < 2) return;
    m->heap = tokenizer_grow(m->heap, &m->heap_room, m->in_heap + 1, sizeof *m->heap);
    size_t at = m->in_heap++;
    for (; at && tokenizer_better(item, m->heap[(at - 1) / 2]); at = (at - 1) / 2)
        m->heap[at] = m->heap[(at - 1) / 2];
    m->heap[at] = item;
}

/* The most frequent pair; NULL when none occurs twice. Counts that fell since a pair was pushed are put right
   here. */
static inline TokenizerPair *tokenizer_best_pop(TokenizerMerger *m) {
    while (m->in_heap) {
        TokenizerBest top = m->heap[0], item = m->heap[--m->in_heap];
        size_t at = 0, child;
        while ((child = 2 * at + 1) < m->in_heap) {
            if (child + 1 < m->in_heap && tokenizer_better(m->heap[child + 1], m->heap[child])) child++;
            if (!tokenizer_better(m->heap[child], item)) break;
            m->heap[at] = m->heap[child], at = child;
        }
        m->heap[at] = item;
        if (m->pairs[top.index].count == top.count) return &m->pairs[top.index];
        tokenizer_best_push(m, top.index);
    }
    return NULL;
}

/* Joins left and right to `made` in one word; the counts of the pairs around each place change with it. */
static inline void tokenizer_merge_word(TokenizerMerger *m, uint32_t word, uint32_t left, uint32_t right,
                                        uint32_t made) {
    uint16_t *symbols = m->symbols + m->words->words[word].start;
    uint32_t n = m->lengths[word], to = 0;
    int64_t count = m->words->words[word].count;
    for (uint32_t i = 0; i < n; i++) {
        if (i + 1 == n || symbols[i] != left || symbols[i + 1] != right) {
            symbols[to++] = symbols[i];
            continue;
        }
        if (to) {
            tokenizer_pair_change(m, symbols[to - 1], left, -count, word);
            tokenizer_pair_change(m, symbols[to - 1], made, count, word);
        }
        if (i + 2 < n) {
            tokenizer_pair_change(m, right, symbols[i + 2], -count, word);
            tokenizer_pair_change(m, made, symbols[i + 2], count, word);
        }
        symbols[to++] = (uint16_t)made;
        i++;
    }
    m->lengths[word] = to;
}

static inline void tokenizer_merger_begin(TokenizerMerger *m, const TokenizerWords *words,
                                          const Tokenizer *t) {
    memset(m, 0, sizeof *m);
    m->words = words;
    m->symbols = check_malloc(words->n_bytes * sizeof *m->symbols);
    m->lengths = check_malloc(words->n_words * sizeof *m->lengths);
    for (size_t i = 0; i < words->n_bytes; i++) m->symbols[i] = t->byte_id[(unsigned char)words->bytes[i]];
    for (size_t w = 0; w < words->n_words; w++) {
        const uint16_t *symbols = m->symbols + words->words[w].start;
        m->lengths[w] = words->words[w].length;
        for (uint32_t i = 0; i + 1 < m->lengths[w]; i++)
            tokenizer_pair_change(m, symbols[i], symbols[i + 1], words->words[w].count, (uint32_t)w);
    }
    for (size_t i = 0; i < m->n_pairs; i++) tokenizer_best_push(m, (uint32_t)i);
}

static inline void tokenizer_merger_end(TokenizerMerger *m) {
    for (size_t i = 0; i < m->n_pairs; i++) free(m->pairs[i].words);
    free(m->symbols), free(m->lengths), free(m->pairs), free(m->table), free(m->heap);
}

/* Learns merges until the vocabulary is full; results[i] is what merge i makes. */
static inline void tokenizer_learn(Tokenizer *t, const TokenizerWords *words, int n_merges,
                                   uint32_t *results) {
    TokenizerMerger m;
    tokenizer_merger_begin(&m, words, t);
    while (t->n_merges < n_merges) {
        TokenizerPair *best = tokenizer_best_pop(&m);
        if (!best) break;
        uint32_t left = best->pair >> 16, right = best->pair & 0xFFFF, made = 256 + (uint32_t)t->n_merges;
        uint32_t *in = best->words;
        size_t n = best->n_words, first_new = m.n_pairs;
        best->words = NULL, best->n_words = best->room = 0;
        t->merges[t->n_merges] = best->pair, results[t->n_merges++] = made;
        for (size_t i = 0; i < n; i++) tokenizer_merge_word(&m, in[i], left, right, made);
        free(in);
        tokenizer_pair(&m, left << 16 | right)->count = 0;
        for (size_t i = first_new; i < m.n_pairs; i++) tokenizer_best_push(&m, (uint32_t)i);
        const Token *a = &t->tokens[left], *b = &t->tokens[right];
        Token *token = &t->tokens[made];
        token->length = a->length + b->length;
        token->bytes = check_malloc(token->length + 1);
        memcpy(token->bytes, a->bytes, a->length);
        memcpy(token->bytes + a->length, b->bytes, b->length);
    }
    tokenizer_merger_end(&m);
}

static inline Tokenizer *tokenizer_trainer_finish(TokenizerTrainer *trainer, int vocab_size) {
    Tokenizer *t = check_malloc(sizeof *t);
    int character[256], order[256];
    if (vocab_size < 257 || vocab_size > TOKENIZER_MAX_VOCAB)
        die("a vocabulary of %d tokens was asked for; it needs 257 (the bytes and <|endoftext|>) to %d",
            vocab_size, TOKENIZER_MAX_VOCAB);
    t->tokens = check_malloc((size_t)vocab_size * sizeof *t->tokens);
    t->merges = check_malloc((size_t)vocab_size * sizeof *t->merges);
    uint32_t *results = check_malloc((size_t)vocab_size * sizeof *results);
    tokenizer_byte_characters(character, order);
    for (int id = 0; id < 256; id++) {
        char byte = (char)order[id];
        t->byte_id[order[id]] = (uint16_t)id;
        tokenizer_set(t, id, &byte, 1);
    }
    TokenizerWords *words = trainer->words; /* the others are added to the first */
    for (int thread = 1; thread < trainer->threads; thread++) {
        TokenizerWords *other = &trainer->words[thread];
        for (size_t i = 0; i < other->n_words; i++)
            tokenizer_word(words, other->bytes + other->words[i].start, other->words[i].length)->count +=
                other->words[i].count;
        tokenizer_words_free(other);
    }
    tokenizer_learn(t, words, vocab_size - 257, results);
    t->vocab_size = 257 + t->n_merges;
    tokenizer_set(t, t->vocab_size - 1, "<|endoftext|>", 13);
    t->tokens[t->vocab_size - 1].added = t->tokens[t->vocab_size - 1].special = true;
    tokenizer_build(t, results);
    tokenizer_words_free(words);
    free(trainer->words), free(trainer->classes), free(trainer), free(results);
    return t;
}

/* -----------------------------------------------------------------------------------------------------------
   Files */

/* The token as JSON spells it, without the quotation marks. */
static inline void tokenizer_write_text(FILE *file, const Token *token, const int character[256]) {
    for (uint32_t i = 0; i < token->length; i++) {
        unsigned char byte = (unsigned char)token->bytes[i];
        int c = token->added ? byte : character[byte];
        if (token->added && byte < 0x20)
            fprintf(file, "\\u%04x", byte);
        else if (c == '"' || c == '\\')
            fprintf(file, "\\%c", c);
        else if (c < 0x80 || token->added)
            fputc(c, file);
        else
            fputc(0xC0 | c >> 6, file), fputc(0x80 | (c & 0x3F), file);
    }
}

static inline void tokenizer_write(const Tokenizer *t, FILE *file) {
    static const char level[] =
        "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "
        "\"use_regex\": true}";
    int character[256], order[256];
    const char *comma = "";
    tokenizer_byte_characters(character, order);
    fprintf(
        file,
        "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [");
    for (int id = 0; id < t->vocab_size; id++) {
        if (!t->tokens[id].added) continue;
        fprintf(file, "%s\n    {\"id\": %d, \"content\": \"", comma, id);
        tokenizer_write_text(file, &t->tokens[id], character);
        fprintf(file,
                "\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, "
                "\"special\": %s}",
                t->tokens[id].special ? "true" : "false");
        comma = ",";
    }
    fprintf(file, "\n  ],\n  \"normalizer\": null,\n  \"pre_tokenizer\": %s,\n  \"post_processor\": null,\n",
            level);
    fprintf(file, "  \"decoder\": %s,\n  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n",
            level);
    fprintf(file, "    \"unk_token\": null,\n    \"continuing_subword_prefix\": \"\",\n");
    fprintf(file, "    \"end_of_word_suffix\": \"\",\n    \"fuse_unk\": false,\n    \"vocab\": {");
    comma = "";
    for (int id = 0; id < t->vocab_size; id++) {
        if (!t->tokens[id].bytes) continue;
        fprintf(file, "%s\n      \"", comma);
        tokenizer_write_text(file, &t->tokens[id], character);
        fprintf(file, "\": %d", id);
        comma = ",";
    }
    fprintf(file, "\n    },\n    \"merges\": [");
    for (int i = 0; i < t->n_merges; i++) {
        fprintf(file, "%s\n      \"", i ? "," : "");
        tokenizer_write_text(file, &t->tokens[t->merges[i] >> 16], character);
        fputc(' ', file);
        tokenizer_write_text(file, &t->tokens[t->merges[i] & 0xFFFF], character);
        fputc('"', file);
    }
    fprintf(file, "\n    ]\n  }\n}\n");
}

static inline void tokenizer_save(const Tokenizer *t, const char *path) {
    size_t size = strlen(path) + 6;
    char *part = check_malloc(size); /* renamed at the end: the file is whole or not there */
    snprintf(part, size, "%s.part", path);
    FILE *file = check_fopen(part, "wb", "choose a folder that can be written");
    if (*t->why_not) die("this tokenizer cannot be written as '%s': %s", path, t->why_not);
    tokenizer_write(t, file);
    if (ferror(file))
        die("cannot write '%s': %s; free some space or choose another folder", part, strerror(errno));
    check_fclose(file, part);
    if (rename(part, path) != 0) die("cannot rename '%s' to '%s': %s", part, path, strerror(errno));
    free(part);
}

/* What loading needs besides the tokenizer: where from, and the ids of all spellings. */
typedef struct {
    const char *path;
    Tokenizer *t;
    TokenizerWords spellings; /* count is id + 1 */
    uint32_t *results;        /* (merges) what each makes */
    size_t results_room, merges_room;
    bool is_pieces; /* spelled as SentencePiece does, not in GPT-2's byte alphabet */
} TokenizerLoad;

static inline int tokenizer_spelling(TokenizerLoad *load, const char *text, size_t n) {
    return (int)tokenizer_word(&load->spellings, text, n)->count - 1;
}

static inline void tokenizer_load_token(TokenizerLoad *load, const char *text, double id) {
    Tokenizer *t = load->t;
    if (!(id >= 0 && id < TOKENIZER_MAX_VOCAB) || id != (int)id)
        die("'%s': the token '%s' has the id %g; ids are whole numbers from 0 to %d (shards store 16 bits)",
            load->path, text, id, TOKENIZER_MAX_VOCAB - 1);
    TokenizerWord *word = tokenizer_word(&load->spellings, text, strlen(text));
    if (word->count && word->count != (int)id + 1)
        die("'%s': the token '%s' has two ids, %d and %d", load->path, text, (int)word->count - 1, (int)id);
    if (!word->count && t->tokens[(int)id].bytes)
        die("'%s': two tokens have the id %d: '%s' and '%s'", load->path, (int)id, t->tokens[(int)id].bytes,
            text);
    if (!word->count) tokenizer_set(t, (int)id, text, strlen(text));
    word->count = (int)id + 1;
    if ((int)id >= t->vocab_size) t->vocab_size = (int)id + 1;
}

static inline void tokenizer_load_merge(TokenizerLoad *load, const char *left, size_t n_left,
                                        const char *right, size_t n_right) {
    Tokenizer *t = load->t;
    size_t rank = (size_t)t->n_merges, n = n_left + n_right;
    char *joined = check_malloc(n + 1);
    memcpy(joined, left, n_left);
    memcpy(joined + n_left, right, n_right);
    int a = tokenizer_spelling(load, left, n_left), b = tokenizer_spelling(load, right, n_right);
    int made = tokenizer_spelling(load, joined, n);
    if (a < 0 || b < 0 || made < 0)
        die("'%s': merge %zu joins '%.*s' and '%.*s' to '%s', which are not all in the vocabulary",
            load->path, rank, (int)n_left, left, (int)n_right, right, joined);
    if (rank >= TOKENIZER_MAX_VOCAB) die("'%s' has more than %d merges", load->path, TOKENIZER_MAX_VOCAB);
    t->merges = tokenizer_grow(t->merges, &load->merges_room, rank + 1, sizeof *t->merges);
    load->results = tokenizer_grow(load->results, &load->results_room, rank + 1, sizeof *load->results);
    t->merges[rank] = (uint32_t)a << 16 | (uint32_t)b;
    load->results[rank] = (uint32_t)made;
    t->n_merges++;
    free(joined);
}

static inline void tokenizer_load_vocab(TokenizerLoad *load, const cJSON *vocab) {
    const cJSON *item;
    if (!cJSON_IsObject(vocab))
        die("'%s' has no vocabulary: expected an object of tokens and ids", load->path);
    cJSON_ArrayForEach(item, vocab)
        tokenizer_load_token(load, item->string, cJSON_IsNumber(item) ? item->valuedouble : -1);
}

static inline void tokenizer_load_merges(TokenizerLoad *load, const cJSON *merges) {
    const cJSON *item;
    cJSON_ArrayForEach(item, merges) {
        const char *left = cJSON_GetStringValue(item), *right = left ? strchr(left, ' ') : NULL;
        if (right) tokenizer_load_merge(load, left, (size_t)(right - left), right + 1, strlen(right + 1));
        if (right) continue;
        left = cJSON_GetStringValue(cJSON_GetArrayItem(item, 0));
        right = cJSON_GetStringValue(cJSON_GetArrayItem(item, 1));
        if (!left || !right) die("'%s': merge %d is not a pair of tokens", load->path, load->t->n_merges);
        tokenizer_load_merge(load, left, strlen(left), right, strlen(right));
    }
}

static inline void tokenizer_load_added(TokenizerLoad *load, const cJSON *added) {
    const cJSON *item;
    cJSON_ArrayForEach(item, added) {
        const char *content = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "content"));
        const cJSON *id = cJSON_GetObjectItemCaseSensitive(item, "id");
        if (!content || !cJSON_IsNumber(id)) die("'%s': an added token has no content or no id", load->path);
        tokenizer_load_token(load, content, id->valuedouble);
        Token *token = &load->t->tokens[(int)id->valuedouble];
        token->added = true;
        token->special = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "special"));
        static const char *const flags[] = {"single_word", "lstrip", "rstrip"};
        for (int f = 0; f < 3; f++)
            if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, flags[f])))
                snprintf(load->t->why_not, sizeof load->t->why_not, "its added token '%.60s' uses %s",
                         content, flags[f]);
    }
}

/* From the spelling of tokens to their bytes: GPT-2's printable characters back to bytes. */
static inline void tokenizer_load_bytes(TokenizerLoad *load) {
    Tokenizer *t = load->t;
    int character[256], order[256], byte_of[512];
    tokenizer_byte_characters(character, order);
    for (int i = 0; i < 512; i++) byte_of[i] = -1;
    for (int byte = 0; byte < 256; byte++) byte_of[character[byte]] = byte;
    bool have[256] = {false};
    for (int id = 0; id < t->vocab_size; id++) {
        Token *token = &t->tokens[id];
        if (!token->bytes || token->added) continue;
        const unsigned char *p = (const unsigned char *)token->bytes, *end = p + token->length;
        uint32_t n = 0;
        for (int length; p < end; p += length) {
            int code = tokenizer_utf8(p, end, &length);
            if (code < 0 || code >= 512 || byte_of[code] < 0)
                die("'%s': the token '%s' (id %d) is not spelled in GPT-2's byte alphabet", load->path,
                    token->bytes, id);
            token->bytes[n++] = (char)byte_of[code];
        }
        token->bytes[n] = 0, token->length = n;
        if (n != 1) continue;
        have[(unsigned char)token->bytes[0]] = true;
        t->byte_id[(unsigned char)token->bytes[0]] = (uint16_t)id;
    }
    for (int byte = 0; byte < 256 && !*t->why_not; byte++)
        if (!have[byte]) snprintf(t->why_not, sizeof t->why_not, "no token stands for the byte 0x%02x", byte);
}

/* A SentencePiece vocabulary decodes only: U+2581 is a space, <0x41> a byte. */
static inline void tokenizer_load_pieces(TokenizerLoad *load) {
    Tokenizer *t = load->t;
    for (int id = 0; id < t->vocab_size; id++) {
        Token *token = &t->tokens[id];
        unsigned byte;
        uint32_t n = 0;
        if (!token->bytes || token->added) continue;
        if (token->length == 6 && sscanf(token->bytes, "<0x%2X>", &byte) == 1) {
            token->bytes[0] = (char)byte, token->bytes[1] = 0, token->length = 1;
            continue;
        }
        for (uint32_t i = 0; i < token->length; n++) {
            bool space = strncmp(token->bytes + i, "\xE2\x96\x81", 3) == 0;
            token->bytes[n] = space ? ' ' : token->bytes[i];
            i += space ? 3 : 1;
        }
        token->bytes[n] = 0, token->length = n;
    }
}

static inline void tokenizer_load_unigram(TokenizerLoad *load, const cJSON *vocab) {
    const cJSON *item;
    double id = 0;
    cJSON_ArrayForEach(item, vocab) {
        const char *piece = cJSON_GetStringValue(cJSON_GetArrayItem(item, 0));
        if (!piece) die("'%s': entry %g of its vocabulary is not a pair of piece and score", load->path, id);
        tokenizer_load_token(load, piece, id++);
    }
    snprintf(load->t->why_not, sizeof load->t->why_not,
             "it is a SentencePiece vocabulary; encode with ./prepare, which runs spm_encode");
}

/* What decides how a text is cut: only GPT-2's rule is known here. */
static inline void tokenizer_load_rules(TokenizerLoad *load, const cJSON *root) {
    const cJSON *pre = cJSON_GetObjectItemCaseSensitive(root, "pre_tokenizer");
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(pre, "type"));
    const cJSON *normalizer = cJSON_GetObjectItemCaseSensitive(root, "normalizer");
    Tokenizer *t = load->t;
    if (!type || strcmp(type, "ByteLevel") != 0)
        snprintf(t->why_not, sizeof t->why_not,
                 "its pre_tokenizer is '%.40s', only 'ByteLevel' (GPT-2's) is known", type ? type : "none");
    else if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(pre, "add_prefix_space")))
        snprintf(t->why_not, sizeof t->why_not, "its pre_tokenizer adds a space before a text");
    else if (cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(pre, "use_regex")))
        snprintf(t->why_not, sizeof t->why_not, "its pre_tokenizer does not use GPT-2's rule");
    else if (normalizer && !cJSON_IsNull(normalizer))
        snprintf(t->why_not, sizeof t->why_not, "it has a normalizer, which would change the text");
}

static inline void tokenizer_load_json(TokenizerLoad *load, const cJSON *root) {
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(root, "model");
    const cJSON *vocab = cJSON_GetObjectItemCaseSensitive(model, "vocab");
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(model, "type"));
    const cJSON *decoder = cJSON_GetObjectItemCaseSensitive(root, "decoder");
    const char *decode = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(decoder, "type"));
    if (!cJSON_IsObject(model)) { /* GPT-2's vocab.json, where <|endoftext|> is one of the tokens */
        tokenizer_load_vocab(load, root);
        int id = tokenizer_spelling(load, "<|endoftext|>", 13);
        if (id >= 0) load->t->tokens[id].added = load->t->tokens[id].special = true;
        return;
    }
    if (!type || (strcmp(type, "BPE") != 0 && strcmp(type, "Unigram") != 0))
        die("'%s' holds a tokenizer of the type '%s'; BPE and Unigram are known", load->path,
            type ? type : "none");
    if (strcmp(type, "Unigram") == 0)
        tokenizer_load_unigram(load, vocab);
    else
        tokenizer_load_vocab(load, vocab);
    tokenizer_load_added(load, cJSON_GetObjectItemCaseSensitive(root, "added_tokens"));
    if (!*load->t->why_not) tokenizer_load_rules(load, root);
    if (!*load->t->why_not) tokenizer_load_merges(load, cJSON_GetObjectItemCaseSensitive(model, "merges"));
    if (decode && strcmp(decode, "ByteLevel") == 0) return;
    tokenizer_load_pieces(load);
    load->is_pieces = true;
    if (!*load->t->why_not)
        snprintf(load->t->why_not, sizeof load->t->why_not,
                 "its decoder is '%.40s', only 'ByteLevel' (GPT-2's) is known", decode ? decode : "none");
}

/* GPT-2's merges.txt: a line "left right" for each merge, after a line "#version". */
static inline void tokenizer_load_merges_text(TokenizerLoad *load, const char *text) {
    if (strncmp(text, "#version", 8) == 0) text += strcspn(text, "\n");
    while (*(text += strspn(text, "\r\n"))) {
        size_t line = strcspn(text, "\r\n"), left = strcspn(text, " \r\n");
        if (left == line)
            die("'%s': merge %d, '%.*s', is not two tokens with a space between", load->path,
                load->t->n_merges, (int)line, text);
        tokenizer_load_merge(load, text, left, text + left + 1, line - left - 1);
        text += line;
    }
}

/* A whole file, ended by a zero; free() it. */
static inline char *tokenizer_read(const char *path, size_t *n) {
    struct stat status;
    FILE *file =
        check_fopen(path, "rb", "name a tokenizer.json, a vocab.json with merges.txt, or their folder");
    if (fstat(fileno(file), &status) != 0 || !S_ISREG(status.st_mode)) die("'%s' is not a file", path);
    *n = (size_t)status.st_size;
    char *text = check_malloc(*n + 1);
    check_fread(text, 1, *n, file, path);
    fclose(file);
    return text;
}

/* The text of a tokenizer.json or vocab.json and, with the latter, of its merges.txt (else NULL). */
static inline Tokenizer *tokenizer_parse(const char *path, const char *text, size_t n, const char *merges) {
    TokenizerLoad load = {.path = path, .t = check_malloc(sizeof(Tokenizer))};
    cJSON *root = cJSON_ParseWithLength(text, n);
    if (!root) {
        const char *at = cJSON_GetErrorPtr();
        die("'%s' is not valid JSON (at byte %zu of %zu); it may be cut short", path,
            at >= text && at <= text + n ? (size_t)(at - text) : 0, n);
    }
    load.t->tokens = check_malloc(TOKENIZER_MAX_VOCAB * sizeof *load.t->tokens);
    tokenizer_load_json(&load, root);
    bool gpt2 = !cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(root, "model"));
    if (gpt2 && !merges) die("'%s' is no tokenizer.json: it has no model", path);
    if (gpt2) tokenizer_load_merges_text(&load, merges);
    if (!load.t->vocab_size) die("'%s' has an empty vocabulary", path);
    if (!load.is_pieces) tokenizer_load_bytes(&load);
    tokenizer_build(load.t, load.results);
    cJSON_Delete(root);
    tokenizer_words_free(&load.spellings);
    free(load.results);
    return load.t;
}

static inline Tokenizer *tokenizer_load(const char *path) {
    struct stat status;
    size_t n, room = strlen(path) + 32;
    char *name = check_malloc(room), *beside = check_malloc(room), *merges = NULL;
    snprintf(name, room, "%s", path);
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        snprintf(name, room, "%s/tokenizer.json", path);
        if (stat(name, &status) != 0) snprintf(name, room, "%s/vocab.json", path);
    }
    char *text = tokenizer_read(name, &n), *slash = strrchr(name, '/');
    snprintf(beside, room, "%.*smerges.txt", slash ? (int)(slash + 1 - name) : 0, name);
    if (strcmp(check_basename(name), "tokenizer.json") != 0 && stat(beside, &status) == 0) {
        size_t n_merges;
        merges = tokenizer_read(beside, &n_merges);
    }
    Tokenizer *t = tokenizer_parse(name, text, n, merges);
    free(name), free(beside), free(text), free(merges);
    return t;
}

#endif
