/* tokenizer_pieces.h: SentencePiece's way from a text to pieces, for vocabularies of its two kinds, Unigram and BPE.

   A text is normalised first: characters are replaced by the model's own table (T5's folds compatibility forms, Llama's
   replaces nothing), runs of spaces shrink to one, and each space becomes U+2581, one of them in front of the text.
   Unigram then takes the pieces whose scores add up to the most, BPE joins characters pair by pair, always to the piece
   learned first. What no piece covers is the unknown piece, or its bytes where the vocabulary has pieces <0x00> to
   <0xFF>.

   The ids are those of spm_encode 0.1.97, to the last one: sums of scores are of type float where SentencePiece's are,
   and are not reset between words, because rounding decides between pieces of nearly equal sums. (Release 0.2.3 and
   Hugging Face's `tokenizers` round otherwise: in 12 of 986 documents of C4 some Unigram pieces differ from these; none
   of BPE.)

   pieces_normalize(p, text, n, NULL)    how many bytes the normalised text takes at most pieces_normalize(p, text, n,
   out)     writes it and returns its length pieces_encode(p, normal, n, ids)      its pieces; at most n of them

   tokenizer.h fills a TokenizerPieces from a tokenizer.json. */
#ifndef GPT_IO_TOKENIZER_PIECES_H
#define GPT_IO_TOKENIZER_PIECES_H

#include <float.h>
#include "tokenizer_table.h"
#include "tokenizer_unicode.h"

#define PIECES_SPACE "\xE2\x96\x81" /* U+2581 */

typedef struct {
    TokenizerTrie pieces; /* those found in a text: not the unknown piece, control pieces and bytes */
    TokenizerTrie
        user;      /* of them the ones that the user defined: the normaliser keeps them as they are, too */
    bool *is_user; /* (65536) */
    bool has_user;
    bool bpe;
    float *scores;                   /* (65536) Unigram: the logarithm of a piece's probability */
    float best_score, unknown_score; /* of a byte of a user's piece; of a character that no piece covers */
    uint32_t *ranks;      /* (65536) BPE: pieces of a smaller rank are joined first; TOKENIZER_NONE: never */
    bool squeeze, prefix; /* the normaliser shrinks runs of spaces; puts one before the text */
    int unknown;          /* its id */
    bool has_bytes;
    uint16_t byte_id[256];
    unsigned char *
        table; /* the normaliser's: a double array of n_units little-endian uint32, then strings; NULL: none */
    size_t n_table, n_units;
} TokenizerPieces;

/* -----------------------------------------------------------------------------------------------------------
   The normaliser */

static inline uint32_t pieces_unit(const TokenizerPieces *p, size_t unit) {
    const unsigned char *at = p->table + 4 * unit;
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* The longest replaced string that the text begins with, 0: none; and what replaces it. The units are those of the
   library Darts-clone: label in bits 0 to 7, bit 8 when a string ends here (its value is in the next unit), the
   distance to the children above bit 10, shifted by 8 when bit 9 is set. */
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

/* The longest string of a tree that the text begins with, 0: none. */
static inline size_t pieces_longest(const TokenizerTrie *trie, const unsigned char *text, size_t n) {
    size_t longest = 0;
    uint32_t node = TOKENIZER_ROOT;
    for (size_t i = 0; i < n && (node = tokenizer_child(trie, node, text[i])); i++)
        if (trie->ids[node] != TOKENIZER_NONE) longest = i + 1;
    return longest;
}

/* The bytes of the first character or replaced string of a text; *as, of *length bytes, is what it becomes. */
static inline size_t pieces_step(const TokenizerPieces *p, const unsigned char *text, size_t n,
                                 const char **as, size_t *length) {
    size_t taken = p->has_user ? pieces_longest(&p->user, text, n) : 0;
    int width;
    *as = (const char *)text;
    if (taken) return *length = taken;
    if ((taken = pieces_rule(p, text, n, as))) return *length = strlen(*as), taken;
    if (tokenizer_utf8(text, text + n, &width) >= 0) return *length = (size_t)width;
    *as = "\xEF\xBF\xBD"; /* U+FFFD for a byte that is no UTF-8 */
    return *length = 3, 1;
}

/* The normalised text as it grows; U+2581 stands for a space, also where it is the text's own. */
typedef struct {
    char *to;     /* NULL: only counted */
    size_t n;     /* bytes */
    size_t solid; /* without the spaces at the end */
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
    /* Without spaces at the end, but for the first pass, which tells how much is written. */
    return p->squeeze && out ? normal.solid : normal.n;
}

/* -----------------------------------------------------------------------------------------------------------
   Pieces of a normalised text */

/* Of the character that begins with a byte, as SentencePiece tells it: by that byte alone. */
static inline size_t pieces_character(const char *text, size_t n) {
    static const unsigned char lengths[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4};
    size_t length = lengths[(unsigned char)*text >> 4];
    return length < n ? length : n;
}

/* Appends a piece, or what stands for one that is unknown: its bytes, or one unknown piece for a run of them. */
static inline size_t pieces_append(const TokenizerPieces *p, const char *text, size_t n, int id,
                                   uint16_t *ids, size_t count, bool after_unknown) {
    bool unknown = id < 0 || id == p->unknown;
    for (size_t i = 0; unknown && p->has_bytes && i < n; i++)
        ids[count++] = p->byte_id[(unsigned char)text[i]];
    if (!unknown) ids[count++] = (uint16_t)id;
    if (unknown && !p->has_bytes && !after_unknown) ids[count++] = (uint16_t)p->unknown;
    return count;
}

/* The best way to the end of a prefix: its last piece, where that begins, and the sum of scores. */
typedef struct {
    int id; /* -1: none yet */
    uint32_t start;
    float score;
} PiecesPath;

static inline void pieces_better(PiecesPath *path, double score, size_t start, int id) {
    if (path->id >= 0 && !(score > (double)path->score)) return;
    *path = (PiecesPath){id, (uint32_t)start, (float)score};
}

/* All pieces that begin at `start` lengthen the best way to there. */
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
    PiecesPath *paths = check_malloc((n + 1) * sizeof *paths);
    size_t count = 0;
    bool unknown = false;
    for (size_t i = 1; i <= n; i++) paths[i].id = -1;
    for (size_t start = 0; start < n; start += pieces_character(text + start, n - start))
        pieces_extend(p, text, n, start, paths);
    for (size_t end = n, next = 0, start; end; next = end, end = start) { /* turns the links forward */
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

/* A part of the text while pairs are joined: a character at first. */
typedef struct {
    uint32_t start, length; /* length 0: joined to the one before */
    uint32_t previous, next;
    uint32_t node; /* of the tree of pieces; 0: no piece begins so */
    bool user;     /* as the user defined it, not to be joined */
} PiecesPart;

static inline uint32_t pieces_walk(const TokenizerPieces *p, uint32_t node, const char *text, size_t n) {
    for (size_t i = 0; i < n && node; i++) node = tokenizer_child(&p->pieces, node, (unsigned char)text[i]);
    return node;
}

/* Remembers that two parts make a piece, when they do. */
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
    PiecesPart *parts = check_malloc(n * sizeof *parts);
    TokenizerHeap heap = {0};
    uint32_t n_parts = pieces_cut(p, text, n, parts);
    for (uint32_t i = 0; i + 1 < n_parts; i++) pieces_push(p, &heap, text, parts, i, i + 1);
    while (heap.n) {
        TokenizerItem top = tokenizer_heap_pop(&heap);
        uint32_t left = (uint32_t)top.first, right = (uint32_t)(top.second >> 32),
                 size = (uint32_t)top.second;
        PiecesPart *a = &parts[left], *b = &parts[right];
        if (!a->length || !b->length || a->length + b->length != size) continue; /* outdated */
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
