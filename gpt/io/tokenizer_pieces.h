/* tokenizer_pieces.h: encodes text as SentencePiece does, for vocabularies of its two kinds, Unigram and BPE.

   A text is normalised first: characters are replaced as the model's own table says (T5's replaces compatibility forms,
   Llama's replaces nothing), runs of spaces become one, each space becomes U+2581, and one more is put before the text.
   Unigram then takes the pieces whose scores have the largest sum. BPE joins characters, then pieces, two at a time,
   always to the piece that was learned first. What no piece covers becomes the unknown piece, or its bytes when the
   vocabulary has the pieces <0x00> to <0xFF>.

   The ids are exactly those of spm_encode 0.1.97. For that, sums of scores have the type float where SentencePiece's
   have it, and go on from word to word, because rounding decides between pieces whose sums are nearly equal. (Release
   0.2.3 and Hugging Face's `tokenizers` round in another way: in 12 of 986 documents of C4 some Unigram pieces differ
   from these; with BPE none do.)

     pieces_normalize(p, text, n, NULL)   the most bytes that the normalised text takes
     pieces_normalize(p, text, n, out)    writes the normalised text and returns its length
     pieces_encode(p, normal, n, ids)     encodes a normalised text; returns the number of ids, at most n. Dies when
                                          the text has 2 GiB or more
     pieces_free(p)

   tokenizer.h fills a TokenizerPieces from a tokenizer.json. */
#ifndef GPT_IO_TOKENIZER_PIECES_H
#define GPT_IO_TOKENIZER_PIECES_H

#include <float.h>
#include "tokenizer_table.h"
#include "tokenizer_unicode.h"

#define PIECES_SPACE "\xE2\x96\x81" /* U+2581 */

typedef struct {
    /* The pieces found in a text: all but the unknown piece, control pieces and bytes. */
    TokenizerTrie pieces;
    /* Those of them that the user of SentencePiece defined: the normaliser leaves them as they are. */
    TokenizerTrie user;
    bool *is_user;       /* (65536) by id: it is such a piece */
    bool has_user;       /* there are some */
    bool bpe;            /* the kind is BPE; else Unigram */
    float *scores;       /* (65536) by id, Unigram: the logarithm of a piece's probability */
    float best_score;    /* the largest of them, from which the scores of user-defined pieces are made */
    float unknown_score; /* the score of a character that no piece covers */
    uint32_t *ranks; /* (65536) by id, BPE: pieces of smaller rank are joined first; TOKENIZER_NONE: never */
    bool squeeze;    /* the normaliser makes one space of several, and removes those at both ends */
    bool prefix;     /* the normaliser puts a space before the text */
    int unknown;     /* the id of the unknown piece; -1: there is none */
    bool has_bytes;  /* there are pieces for bytes */
    uint16_t byte_id[256];
    /* (n_table bytes) the normaliser's table: an array of n_units little-endian uint32, then strings, each with a zero
       byte behind it; NULL: there is none */
    unsigned char *table;
    size_t n_table, n_units;
} TokenizerPieces;

/* -----------------------------------------------------------------------------------------------------------
   The normaliser */

static inline uint32_t pieces_unit(const TokenizerPieces *p, size_t unit) {
    const unsigned char *at = p->table + 4 * unit;
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* The length of the longest string at the start of a text that the table replaces, 0: none; and what replaces it. The
   units are those of the library Darts-clone: label in bits 0 to 7, bit 8 when a string ends here (its value is in the
   next unit), the distance to the children above bit 10, shifted by 8 when bit 9 is set. */
static inline size_t pieces_rule(const TokenizerPieces *p, const unsigned char *text, size_t n,
                                 const char **replacement) {
    size_t longest = 0, at = 0;
    uint32_t unit = p->n_units ? pieces_unit(p, 0) : 0;
    at ^= (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
    for (size_t i = 0; p->n_units && i < n; i++) {
        at ^= text[i];
        if (at >= p->n_units || ((unit = pieces_unit(p, at)) & 0x800000FFu) != text[i]) break;
        at ^= (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
        if (!(unit >> 8 & 1) || at >= p->n_units) continue;
        size_t value = 4 * p->n_units + (pieces_unit(p, at) & 0x7FFFFFFFu);
        if (value < p->n_table) longest = i + 1, *replacement = (const char *)p->table + value;
    }
    return longest;
}

/* The length of the longest string of a trie with which a text begins, 0: none. */
static inline size_t pieces_longest(const TokenizerTrie *trie, const unsigned char *text, size_t n) {
    size_t longest = 0;
    uint32_t node = TOKENIZER_ROOT;
    for (size_t i = 0; i < n && (node = tokenizer_child(trie, node, text[i])); i++)
        if (trie->ids[node] != TOKENIZER_NONE) longest = i + 1;
    return longest;
}

/* The length of the first character, replaced string or user-defined piece of a text; *as, of *length bytes, is what
   it becomes. */
static inline size_t pieces_step(const TokenizerPieces *p, const unsigned char *text, size_t n,
                                 const char **as, size_t *length) {
    size_t taken = p->has_user ? pieces_longest(&p->user, text, n) : 0;
    int width;
    *as = (const char *)text;
    if (taken) return *length = taken;
    if ((taken = pieces_rule(p, text, n, as))) return *length = strlen(*as), taken;
    if (tokenizer_utf8(text, text + n, &width) >= 0) return *length = (size_t)width;
    *as = "\xEF\xBF\xBD"; /* U+FFFD for a byte that is not valid UTF-8 */
    return *length = 3, 1;
}

/* The normalised text while it is written. U+2581 counts as a space, also when the text itself has it. */
typedef struct {
    char *to;     /* NULL: its bytes are counted only */
    size_t n;     /* bytes so far */
    size_t solid; /* the same without the spaces at the end */
} PiecesNormal;

static inline void pieces_put(PiecesNormal *normal, const char *bytes, size_t n) {
    for (size_t i = 0; i < n;) {
        bool own = bytes[i] == '\xE2' && n - i >= 3 && memcmp(bytes + i, PIECES_SPACE, 3) == 0;
        bool space = own || bytes[i] == ' ';
        size_t width = space ? 3 : 1;
        if (normal->to) memcpy(normal->to + normal->n, space ? PIECES_SPACE : bytes + i, width);
        normal->n += width;
        if (!space) normal->solid = normal->n;
        i += own ? 3 : 1;
    }
}

static inline size_t pieces_normalize(const TokenizerPieces *p, const char *text, size_t n, char *out) {
    const unsigned char *at = (const unsigned char *)text, *end = at + n;
    PiecesNormal normal = {.to = out};
    size_t length, taken;
    const char *as;
    while (p->squeeze && at < end) { /* spaces before the text */
        taken = pieces_step(p, at, (size_t)(end - at), &as, &length);
        if (length != 1 || *as != ' ') break;
        at += taken;
    }
    if (at == end) return 0;
    if (p->prefix) pieces_put(&normal, " ", 1);
    for (bool after_space = p->squeeze; at < end;) {
        at += pieces_step(p, at, (size_t)(end - at), &as, &length);
        while (after_space && length && *as == ' ') as++, length--;
        pieces_put(&normal, as, length);
        if (length) after_space = p->squeeze && as[length - 1] == ' ';
    }
    /* Spaces at the end are written before they are removed, so the first pass, which counts, includes them. */
    return p->squeeze && out ? normal.solid : normal.n;
}

/* -----------------------------------------------------------------------------------------------------------
   Pieces of a normalised text */

/* The length of the first character of a text, by its first byte alone, as in SentencePiece. */
static inline size_t pieces_character(const char *text, size_t n) {
    static const unsigned char lengths[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4};
    size_t length = lengths[(unsigned char)*text >> 4];
    return length < n ? length : n;
}

/* Appends the id of a piece of n bytes to ids and returns their new number. An unknown piece becomes its bytes or,
   without pieces for bytes, one unknown piece for several in a row. */
static inline size_t pieces_append(const TokenizerPieces *p, const char *text, size_t n, int id,
                                   uint16_t *ids, size_t count, bool after_unknown) {
    bool unknown = id < 0 || id == p->unknown;
    for (size_t i = 0; unknown && p->has_bytes && i < n; i++)
        ids[count++] = p->byte_id[(unsigned char)text[i]];
    if (!unknown) ids[count++] = (uint16_t)id;
    if (unknown && !p->has_bytes && !after_unknown) ids[count++] = (uint16_t)p->unknown;
    return count;
}

/* The best way to cut the text up to some byte into pieces: its last piece, where that begins, and the sum of the
   scores. */
typedef struct {
    int id; /* -1: none yet */
    uint32_t start;
    float score;
} PiecesPath;

static inline void pieces_better(PiecesPath *path, double score, size_t start, int id) {
    if (path->id >= 0 && !(score > (double)path->score)) return;
    *path = (PiecesPath){id, (uint32_t)start, (float)score};
}

/* Extends the best way to byte `start` by every piece that begins there. */
static inline void pieces_extend(const TokenizerPieces *p, const char *text, size_t n, size_t start,
                                 PiecesPath *paths) {
    size_t character = pieces_character(text + start, n - start);
    uint32_t node = TOKENIZER_ROOT;
    float before = paths[start].score;
    bool covered = false;
    for (size_t i = start; i < n && (node = tokenizer_child(&p->pieces, node, (unsigned char)text[i])); i++) {
        if (p->pieces.ids[node] == TOKENIZER_NONE) continue;
        uint32_t id = p->pieces.ids[node];
        size_t length = i + 1 - start;
        double score = p->is_user[id] ? (float)length * p->best_score - 0.1 : (double)p->scores[id];
        pieces_better(&paths[i + 1], score + (double)before, start, (int)id);
        covered |= length == character;
    }
    if (!covered)
        pieces_better(&paths[start + character], (double)(p->unknown_score + before), start, p->unknown);
}

static inline size_t pieces_unigram(const TokenizerPieces *p, const char *text, size_t n, uint16_t *ids) {
    PiecesPath *paths = check_calloc((n + 1) * sizeof *paths);
    size_t count = 0;
    bool unknown = false;
    for (size_t i = 1; i <= n; i++) paths[i].id = -1;
    for (size_t start = 0; start < n; start += pieces_character(text + start, n - start))
        pieces_extend(p, text, n, start, paths);
    for (size_t end = n, next = 0, start; end;
         next = end, end = start) { /* start now leads to the next piece */
        start = paths[end].start;
        paths[end].start = (uint32_t)next;
        if (!start) paths[0].start = (uint32_t)end;
    }
    for (size_t start = 0, end; start < n; start = end) {
        end = paths[start].start;
        count = pieces_append(p, text + start, end - start, paths[end].id, ids, count, unknown);
        unknown = paths[end].id == p->unknown;
    }
    free(paths);
    return count;
}

/* A part of the text, at first one character or user-defined piece, while pairs are joined. */
typedef struct {
    uint32_t start, length; /* of its bytes; length 0: it was joined to the part before */
    uint32_t previous, next;
    uint32_t node; /* of the trie of pieces; 0: no piece begins with these bytes */
    bool user;     /* it is a user-defined piece, which is never joined */
} PiecesPart;

static inline uint32_t pieces_walk(const TokenizerPieces *p, uint32_t node, const char *text, size_t n) {
    for (size_t i = 0; i < n && node; i++) node = tokenizer_child(&p->pieces, node, (unsigned char)text[i]);
    return node;
}

/* Adds the piece that two neighbouring parts make to the heap, if they make one. */
static inline void pieces_push(const TokenizerPieces *p, TokenizerHeap *heap, const char *text,
                               const PiecesPart *parts, uint32_t left, uint32_t right) {
    const PiecesPart *a = &parts[left], *b = &parts[right];
    if (a->user || b->user) return;
    uint32_t node = pieces_walk(p, a->node, text + b->start, b->length);
    uint32_t id = node ? p->pieces.ids[node] : TOKENIZER_NONE;
    if (id == TOKENIZER_NONE || p->ranks[id] == TOKENIZER_NONE) return;
    tokenizer_heap_push(heap, (uint64_t)p->ranks[id] << 32 | left,
                        (uint64_t)right << 32 | (a->length + b->length));
}

static inline uint32_t pieces_cut(const TokenizerPieces *p, const char *text, size_t n, PiecesPart *parts) {
    uint32_t count = 0;
    for (size_t at = 0, length; at < n; at += length, count++) {
        length = p->has_user ? pieces_longest(&p->user, (const unsigned char *)text + at, n - at) : 0;
        bool user = length > 0;
        if (!user) length = pieces_character(text + at, n - at);
        parts[count] = (PiecesPart){.start = (uint32_t)at,
                                    .length = (uint32_t)length,
                                    .previous = count - 1,
                                    .next = count + 1,
                                    .node = pieces_walk(p, TOKENIZER_ROOT, text + at, length),
                                    .user = user};
    }
    return count;
}

static inline size_t pieces_bpe(const TokenizerPieces *p, const char *text, size_t n, uint16_t *ids) {
    PiecesPart *parts = check_calloc(n * sizeof *parts);
    TokenizerHeap heap = {0};
    uint32_t n_parts = pieces_cut(p, text, n, parts);
    for (uint32_t i = 0; i + 1 < n_parts; i++) pieces_push(p, &heap, text, parts, i, i + 1);
    while (heap.n) {
        TokenizerItem top = tokenizer_heap_pop(&heap);
        uint32_t left = (uint32_t)top.first, right = (uint32_t)(top.second >> 32),
                 size = (uint32_t)top.second;
        PiecesPart *a = &parts[left], *b = &parts[right];
        if (!a->length || !b->length || a->length + b->length != size)
            continue; /* a part has changed since */
        a->node = pieces_walk(p, a->node, text + b->start, b->length);
        a->length = size, a->next = b->next, b->length = 0;
        if (a->next < n_parts) {
            parts[a->next].previous = left;
            pieces_push(p, &heap, text, parts, left, a->next);
        }
        if (left > 0) pieces_push(p, &heap, text, parts, a->previous, left);
    }
    size_t count = 0;
    bool unknown = false;
    for (uint32_t i = 0; i < n_parts; i = parts[i].next) {
        uint32_t id = parts[i].node ? p->pieces.ids[parts[i].node] : TOKENIZER_NONE;
        count = pieces_append(p, text + parts[i].start, parts[i].length, (int)id, ids, count, unknown);
        unknown = id == TOKENIZER_NONE;
    }
    free(parts), free(heap.items);
    return count;
}

static inline size_t pieces_encode(const TokenizerPieces *p, const char *normal, size_t n, uint16_t *ids) {
    if (n >= UINT32_MAX / 2) die("a document has %zu bytes; cut it, 2 GiB are too many", n);
    if (!n) return 0;
    return p->bpe ? pieces_bpe(p, normal, n, ids) : pieces_unigram(p, normal, n, ids);
}

static inline void pieces_free(TokenizerPieces *p) {
    if (!p) return;
    tokenizer_trie_free(&p->pieces), tokenizer_trie_free(&p->user);
    free(p->scores), free(p->ranks), free(p->is_user), free(p->table), free(p);
}

#endif
