/* tokenizer.h: byte-level BPE (GPT-2's): training, encoding, decoding; Hugging Face's tokenizer.json. SentencePiece's
   vocabularies, as ./prepare writes them: encoding (tokenizer_pieces.h) and decoding.

   A text is cut into pieces by GPT-2's rule
       's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
   and the bytes of each piece are joined pair by pair: always the neighbours whose merge was learned first,
   the leftmost on a tie. Any bytes can be encoded, decoding gives them back; a byte that is no part of valid
   UTF-8 counts as a character that is neither letter, number nor white space. Special tokens (<|endoftext|>)
   never match inside a text unless asked. A vocabulary has at most 65,536 tokens, so an id is a uint16_t.

   Tokenizer *t = tokenizer_load(path)    tokenizer.json, or vocab.json (merges.txt beside it), or a folder
                                          with either; dies with what is wrong. One whose rules are not known
                                          here loads for decoding; encoding dies: t->why_not
   tokenizer_save(t, path)                as tokenizer.json, which Hugging Face's `tokenizers` reads
   tokenizer_free(t)
   tokenizer_vocab_size(t)                largest id + 1
   tokenizer_end_of_text(t)               the id that separates documents, -1 when there is none
   tokenizer_decode_token(t, id, &n)      the n raw bytes of a token; owned by t
   tokenizer_room(t, text, n)             how many ids to make room for: at least as many as the text has tokens
   tokenizer_encode(t, cache, text, n, ids)           returns how many
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
   Hugging Face's trainer learns the same merges. 300 MB of text, 32,000 tokens: seconds. */
#ifndef GPT_IO_TOKENIZER_H
#define GPT_IO_TOKENIZER_H

#include <stdbool.h>
#include <cjson/cJSON.h>
#include "files.h"
#include "tokenizer_pieces.h"
#include "tokenizer_table.h"
#include "tokenizer_unicode.h"

/* -----------------------------------------------------------------------------------------------------------
   Cutting a text into pieces */

enum { TOKENIZER_MAX_VOCAB = 65536 };

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
    TokenizerTable merge_table;  /* from a pair to rank << 16 | id: comparing values compares ranks */
    TokenizerWhole *whole_table; /* (whole_mask + 1), open addressing */
    uint32_t whole_mask;
    TokenizerTrie added; /* the added tokens that are looked for in texts */
    unsigned char
        added_first[256]; /* for the byte such a token begins with: 1 when it is always looked for, 2 when it
                                       is special, 3 both */
    bool has_plain_added; /* added tokens that are not special: always looked for */
    TokenizerPieces *pieces; /* not NULL: a vocabulary of SentencePiece's */
    char why_not[256];       /* not "": encoding is impossible, and why */
} Tokenizer;

/* What a pair of neighbours becomes, or TOKENIZER_NONE. */
static inline uint32_t tokenizer_merge(const Tokenizer *t, uint32_t left, uint32_t right) {
    return (uint32_t)*tokenizer_find(&t->merge_table, left << 16 | right, NULL) - 1;
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

/* Where the token of up to 16 bytes is; a free place when they are none. */
static inline TokenizerWhole *tokenizer_whole(const Tokenizer *t, const uint64_t key[2], size_t n) {
    for (uint64_t at = tokenizer_hash(key[0], key[1]);; at++) {
        TokenizerWhole *whole = &t->whole_table[at & t->whole_mask];
        if (!whole->length || (whole->low == key[0] && whole->high == key[1] && whole->length == n))
            return whole;
    }
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

enum { TOKENIZER_SHORT = 128 };        /* bytes of a piece, at most */
enum { TOKENIZER_LEARN_BYTES = 4096 }; /* the same, where pieces are learned from */
enum { TOKENIZER_CACHE_BYTES = 62, TOKENIZER_CACHE_IDS = 32, TOKENIZER_CACHE = 1 << 14 };

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

/* Remembers that the symbols at i and right merge, when they do. */
static inline void tokenizer_push_pair(const Tokenizer *t, TokenizerHeap *heap, const uint16_t *ids,
                                       uint32_t i, uint32_t right) {
    uint32_t value = tokenizer_merge(t, ids[i], ids[right]);
    if (value != TOKENIZER_NONE) tokenizer_heap_push(heap, value, i);
}

/* The same for a piece of any length (a megabyte of one letter is one piece): a heap of (value, position) and
   links over joined places. ids[i] is meaningful where i is still the start of a symbol. */
static inline size_t tokenizer_merge_long(const Tokenizer *t, const unsigned char *p, size_t n,
                                          uint16_t *ids) {
    if (n >= UINT32_MAX) die("a piece of text without a break has %zu bytes; cut it, 4 GiB are too many", n);
    uint32_t *next = check_malloc(n * sizeof *next), *previous = check_malloc(n * sizeof *previous);
    TokenizerHeap heap = {0};
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        ids[i] = t->byte_id[p[i]], next[i] = (uint32_t)i + 1, previous[i] = (uint32_t)i - 1;
    for (uint32_t i = 0; i + 1 < n; i++) tokenizer_push_pair(t, &heap, ids, i, i + 1);
    while (heap.n) {
        TokenizerItem top = tokenizer_heap_pop(&heap);
        uint32_t value = (uint32_t)top.first, i = (uint32_t)top.second, right = next[i];
        if (right == 0 || right >= n || tokenizer_merge(t, ids[i], ids[right]) != value)
            continue; /* outdated */
        ids[i] = (uint16_t)value;
        next[i] = next[right];
        next[right] = 0; /* no symbol starts here any more */
        if (next[i] < n) {
            previous[next[i]] = i;
            tokenizer_push_pair(t, &heap, ids, i, next[i]);
        }
        if (i > 0) tokenizer_push_pair(t, &heap, ids, previous[i], i);
    }
    for (size_t i = 0; i < n; i = next[i]) ids[count++] = ids[i];
    free(next), free(previous), free(heap.items);
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
        const TokenizerWhole *whole = NULL;
        if (length <= 16) {
            uint64_t key[2];
            tokenizer_key(p, length, (size_t)(end - p), key);
            whole = tokenizer_whole(t, key, length);
        }
        if (whole && whole->length)
            *out++ = whole->id;
        else
            out += tokenizer_encode_piece(t, cache, p, length, out);
        p = next;
    }
    return (size_t)(out - ids);
}

/* The first added token in a text, the longest of those that begin there; its id, or -1. */
static inline int tokenizer_find_added(const Tokenizer *t, const char *text, size_t n, bool special,
                                       size_t *at) {
    const unsigned char *p = (const unsigned char *)text, wanted = special ? 3 : 1;
    for (size_t i = 0; i < n; i++) {
        if (!(t->added_first[p[i]] & wanted)) continue;
        int found = -1;
        uint32_t node = TOKENIZER_ROOT;
        for (size_t j = i; j < n && (node = tokenizer_child(&t->added, node, p[j])); j++) {
            uint32_t id = t->added.ids[node];
            if (id != TOKENIZER_NONE && (special || !t->tokens[id].special)) found = (int)id;
        }
        if (found >= 0) return *at = i, found;
    }
    return -1;
}

/* A text of a SentencePiece vocabulary. */
static inline size_t tokenizer_encode_pieces(const Tokenizer *t, const char *text, size_t n, uint16_t *ids) {
    char *normal = check_malloc(pieces_normalize(t->pieces, text, n, NULL) + 1);
    size_t count = pieces_encode(t->pieces, normal, pieces_normalize(t->pieces, text, n, normal), ids);
    free(normal);
    return count;
}

static inline size_t tokenizer_room(const Tokenizer *t, const char *text, size_t n) {
    return t->pieces ? pieces_normalize(t->pieces, text, n, NULL) : n;
}

static inline size_t tokenizer_encode_added(const Tokenizer *t, TokenizerCache *cache, const char *text,
                                            size_t n, bool special, uint16_t *ids) {
    size_t count = 0;
    if (n && *t->why_not)
        die("this tokenizer cannot encode text, only decode (leave a prompt out): %s", t->why_not);
    while (n) {
        size_t at = n;
        int id = special || t->has_plain_added ? tokenizer_find_added(t, text, n, special, &at) : -1;
        count += t->pieces ? tokenizer_encode_pieces(t, text, at, ids + count)
                           : tokenizer_encode_plain(t, cache, (const unsigned char *)text, at, ids + count);
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
   Building: from tokens and merges to what encoding reads */

/* With room for all that can be: the tables of a vocabulary are small beside what is done with it. */
static inline Tokenizer *tokenizer_new(void) {
    Tokenizer *t = check_malloc(sizeof *t);
    t->tokens = check_malloc(TOKENIZER_MAX_VOCAB * sizeof *t->tokens);
    t->merges = check_malloc(TOKENIZER_MAX_VOCAB * sizeof *t->merges);
    tokenizer_table_room(&t->merge_table, 0);
    return t;
}

static inline void tokenizer_free(Tokenizer *t) {
    if (!t) return;
    for (int id = 0; id < t->vocab_size; id++) free(t->tokens[id].bytes);
    free(t->tokens), free(t->merges), free(t->classes), free(t->merge_table.places), free(t->whole_table);
    tokenizer_trie_free(&t->added), pieces_free(t->pieces);
    free(t);
}

/* Left and right as one, with a zero behind; free() it. */
static inline char *tokenizer_join(const char *left, size_t n_left, const char *right, size_t n_right) {
    char *joined = check_malloc(n_left + n_right + 1);
    memcpy(joined, left, n_left);
    memcpy(joined + n_left, right, n_right);
    return joined;
}

static inline void tokenizer_set(Tokenizer *t, int id, const char *bytes, size_t length) {
    t->tokens[id] = (Token){.bytes = tokenizer_join(bytes, length, "", 0), .length = (uint32_t)length};
}

/* Appends the merge of two ids to a third. Twice the room needed: most pairs looked up are not there. */
static inline void tokenizer_add_merge(Tokenizer *t, uint32_t left, uint32_t right, uint32_t made) {
    uint32_t pair = left << 16 | right, value = (uint32_t)t->n_merges << 16 | made;
    t->merges[t->n_merges++] = pair;
    tokenizer_table_room(&t->merge_table, 2 * (size_t)t->n_merges);
    *tokenizer_find(&t->merge_table, pair, NULL) = (uint64_t)pair << 32 | (value + 1);
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
        *tokenizer_whole(t, key, token->length) =
            (TokenizerWhole){key[0], key[1], (uint16_t)id, (uint8_t)token->length};
    }
}

static inline void tokenizer_build(Tokenizer *t) {
    static const char *const separators[] = {"<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>"};
    t->end_of_text = -1;
    for (size_t name = 0; name < sizeof separators / sizeof *separators && t->end_of_text < 0; name++)
        for (int id = 0; id < t->vocab_size; id++)
            if (t->tokens[id].bytes && strcmp(t->tokens[id].bytes, separators[name]) == 0)
                t->end_of_text = id;
    tokenizer_trie_begin(&t->added);
    for (int id = 0; id < t->vocab_size; id++) {
        const Token *token = &t->tokens[id];
        if (!token->added || !token->length || (t->pieces && !token->special)) continue;
        tokenizer_trie_add(&t->added, token->bytes, token->length, (uint32_t)id);
        t->added_first[(unsigned char)*token->bytes] |= token->special ? 2 : 1;
        t->has_plain_added |= !token->special;
    }
    t->classes = tokenizer_classes();
    if (!*t->why_not && !t->pieces) tokenizer_build_whole(t);
}

/* -----------------------------------------------------------------------------------------------------------
   Training. First the pieces are counted: a table of distinct pieces ("words") and how often each occurs. */

typedef struct {
    size_t start;
    uint32_t length;
    int64_t count;
} TokenizerWord;

typedef struct {
    TokenizerWord *words; /* (n_words) */
    size_t n_words, words_room;
    char *bytes; /* of all words, one after the other */
    size_t n_bytes, bytes_room;
    TokenizerTable table; /* from half a word's hash to its index */
} TokenizerWords;

typedef struct {
    TokenizerWords *words; /* (threads) */
    int threads;
    unsigned char *classes;
} TokenizerTrainer;

/* The word with these bytes; a new one has count 0. */
static inline TokenizerWord *tokenizer_word(TokenizerWords *w, const char *bytes, size_t length) {
    uint32_t key = (uint32_t)tokenizer_hash_bytes(bytes, length);
    tokenizer_table_room(&w->table, w->n_words + 1);
    uint64_t *place = NULL;
    while (*(place = tokenizer_find(&w->table, key, place))) {
        TokenizerWord *word = &w->words[(uint32_t)*place - 1];
        if (word->length == length && !memcmp(w->bytes + word->start, bytes, length)) return word;
    }
    w->words = check_grow(w->words, &w->words_room, w->n_words + 1, sizeof *w->words);
    w->bytes = check_grow(w->bytes, &w->bytes_room, w->n_bytes + length + 1, 1); /* never NULL */
    memcpy(w->bytes + w->n_bytes, bytes, length);
    w->words[w->n_words] = (TokenizerWord){w->n_bytes, (uint32_t)length, 0};
    w->n_bytes += length;
    *place = (uint64_t)key << 32 | ++w->n_words;
    return &w->words[w->n_words - 1];
}

static inline void tokenizer_words_free(TokenizerWords *w) {
    free(w->words), free(w->bytes), free(w->table.places);
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
        /* a longer piece (a text without white space) is learned from in parts: each merge costs its whole length */
        if (next - p > TOKENIZER_LEARN_BYTES) next = p + TOKENIZER_LEARN_BYTES;
        tokenizer_word(&trainer->words[thread], (const char *)p, (size_t)(next - p))->count++;
        p = next;
    }
}

/* Then merges are learned on the words, not on the text: each visits only the words its pair was seen in
   (some of which it may have left since), pair counts are kept up to date, and a heap finds the largest. */
typedef struct {
    uint32_t pair; /* left << 16 | right */
    int64_t count;
    uint32_t *words; /* (n_words) */
    size_t n_words, room;
} TokenizerPair;

typedef struct {
    const TokenizerWords *words;
    uint16_t *symbols; /* of all words, where their bytes are */
    uint32_t *lengths; /* (n_words) in symbols */
    TokenizerPair *pairs;
    size_t n_pairs, pairs_room;
    TokenizerTable table; /* from a pair to its index */
    TokenizerHeap heap;   /* (the complement of its count, pair << 32 | index) when it was pushed */
} TokenizerMerger;

static inline TokenizerPair *tokenizer_pair(TokenizerMerger *m, uint32_t pair) {
    tokenizer_table_room(&m->table, m->n_pairs + 1);
    uint64_t *place = tokenizer_find(&m->table, pair, NULL);
    if (*place) return &m->pairs[(uint32_t)*place - 1];
    m->pairs = check_grow(m->pairs, &m->pairs_room, m->n_pairs + 1, sizeof *m->pairs);
    m->pairs[m->n_pairs] = (TokenizerPair){.pair = pair};
    *place = (uint64_t)pair << 32 | ++m->n_pairs;
    return &m->pairs[m->n_pairs - 1];
}

static inline void tokenizer_pair_change(TokenizerMerger *m, uint32_t left, uint32_t right, int64_t change,
                                         uint32_t word) {
    TokenizerPair *pair = tokenizer_pair(m, left << 16 | right);
    pair->count += change;
    if (change < 0 || (pair->n_words && pair->words[pair->n_words - 1] == word)) return;
    pair->words = check_grow(pair->words, &pair->room, pair->n_words + 1, sizeof *pair->words);
    pair->words[pair->n_words++] = word;
}

static inline void tokenizer_best_push(TokenizerMerger *m, uint32_t index) {
    const TokenizerPair *pair = &m->pairs[index];
    if (pair->count < 2) return;
    tokenizer_heap_push(&m->heap, ~(uint64_t)pair->count, (uint64_t)pair->pair << 32 | index);
}

/* The most frequent pair; NULL when none occurs twice. Counts that fell since a pair was pushed are put right
   here. */
static inline TokenizerPair *tokenizer_best_pop(TokenizerMerger *m) {
    while (m->heap.n) {
        TokenizerItem top = tokenizer_heap_pop(&m->heap);
        TokenizerPair *pair = &m->pairs[(uint32_t)top.second];
        if (~(uint64_t)pair->count == top.first) return pair;
        tokenizer_best_push(m, (uint32_t)top.second);
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

static inline void tokenizer_merger_begin(TokenizerMerger *m, const Tokenizer *t) {
    const TokenizerWords *words = m->words;
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
    free(m->symbols), free(m->lengths), free(m->pairs), free(m->table.places), free(m->heap.items);
}

/* Learns merges until the vocabulary is full. */
static inline void tokenizer_learn(Tokenizer *t, const TokenizerWords *words, int n_merges) {
    TokenizerMerger m = {.words = words};
    tokenizer_merger_begin(&m, t);
    while (t->n_merges < n_merges) {
        TokenizerPair *best = tokenizer_best_pop(&m);
        if (!best) break;
        uint32_t left = best->pair >> 16, right = best->pair & 0xFFFF, made = 256 + (uint32_t)t->n_merges;
        uint32_t *in = best->words;
        size_t n = best->n_words, first_new = m.n_pairs;
        best->words = NULL, best->n_words = best->room = 0;
        tokenizer_add_merge(t, left, right, made);
        for (size_t i = 0; i < n; i++) tokenizer_merge_word(&m, in[i], left, right, made);
        free(in);
        tokenizer_pair(&m, left << 16 | right)->count = 0;
        for (size_t i = first_new; i < m.n_pairs; i++) tokenizer_best_push(&m, (uint32_t)i);
        const Token *a = &t->tokens[left], *b = &t->tokens[right];
        t->tokens[made] = (Token){.bytes = tokenizer_join(a->bytes, a->length, b->bytes, b->length),
                                  .length = a->length + b->length};
    }
    tokenizer_merger_end(&m);
}

static inline Tokenizer *tokenizer_trainer_finish(TokenizerTrainer *trainer, int vocab_size) {
    int character[256], order[256];
    if (vocab_size < 257 || vocab_size > TOKENIZER_MAX_VOCAB)
        die("a vocabulary of %d tokens was asked for; it needs 257 (the bytes and <|endoftext|>) to %d",
            vocab_size, TOKENIZER_MAX_VOCAB);
    Tokenizer *t = tokenizer_new();
    tokenizer_byte_characters(character, order);
    for (int id = 0; id < 256; id++) {
        t->byte_id[order[id]] = (uint16_t)id;
        tokenizer_set(t, id, &(char){(char)order[id]}, 1);
    }
    TokenizerWords *words = trainer->words; /* the others are added to the first */
    for (int thread = 1; thread < trainer->threads; thread++) {
        TokenizerWords *other = &trainer->words[thread];
        for (size_t i = 0; i < other->n_words; i++)
            tokenizer_word(words, other->bytes + other->words[i].start, other->words[i].length)->count +=
                other->words[i].count;
        tokenizer_words_free(other);
    }
    tokenizer_learn(t, words, vocab_size - 257);
    t->vocab_size = 257 + t->n_merges;
    tokenizer_set(t, t->vocab_size - 1, "<|endoftext|>", 13);
    t->tokens[t->vocab_size - 1].added = t->tokens[t->vocab_size - 1].special = true;
    tokenizer_build(t);
    tokenizer_words_free(words);
    free(trainer->words), free(trainer->classes), free(trainer);
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
    fprintf(file, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n"
                  "  \"added_tokens\": [");
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
    fprintf(file,
            "\n  ],\n  \"normalizer\": null,\n  \"pre_tokenizer\": %s,\n  \"post_processor\": null,\n"
            "  \"decoder\": %s,\n  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n"
            "    \"unk_token\": null,\n    \"continuing_subword_prefix\": \"\",\n"
            "    \"end_of_word_suffix\": \"\",\n    \"fuse_unk\": false,\n    \"vocab\": {",
            level, level);
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

/* The text of its tokenizer.json; free() it. */
static inline char *tokenizer_text(const Tokenizer *t, size_t *size) {
    char *text = NULL;
    FILE *memory = open_memstream(&text, size);
    if (memory) tokenizer_write(t, memory);
    if (!memory || fclose(memory) != 0) die("no memory for a tokenizer.json: %s", strerror(errno));
    return text;
}

static inline void tokenizer_save(const Tokenizer *t, const char *path) {
    char error[FILE_ERROR_SIZE];
    size_t size;
    if (*t->why_not || t->pieces)
        die("this tokenizer cannot be written as '%s': %s", path,
            *t->why_not ? t->why_not : "it is a SentencePiece vocabulary");
    char *text = tokenizer_text(t, &size);
    if (!file_write_whole(path, text, size, error)) die("%s", error);
    free(text);
}

/* What loading needs besides the tokenizer: where from, and the ids of all spellings. */
typedef struct {
    const char *path;
    Tokenizer *t;
    TokenizerWords spellings; /* count is id + 1 */
    bool is_pieces;           /* spelled as SentencePiece does, not in GPT-2's byte alphabet */
} TokenizerLoad;

static inline int tokenizer_spelling(TokenizerLoad *load, const char *text, size_t n) {
    return (int)tokenizer_word(&load->spellings, text, n)->count - 1;
}

static inline void tokenizer_load_token(TokenizerLoad *load, const char *text, double number) {
    Tokenizer *t = load->t;
    int id = number >= 0 && number < TOKENIZER_MAX_VOCAB ? (int)number : -1;
    if (id < 0 || id != number)
        die("'%s': the token '%s' has the id %g; ids are whole numbers from 0 to %d (shards store 16 bits)",
            load->path, text, number, TOKENIZER_MAX_VOCAB - 1);
    TokenizerWord *word = tokenizer_word(&load->spellings, text, strlen(text));
    if (word->count && word->count != id + 1)
        die("'%s': the token '%s' has two ids, %d and %d", load->path, text, (int)word->count - 1, id);
    if (word->count) return;
    if (t->tokens[id].bytes)
        die("'%s': two tokens have the id %d: '%s' and '%s'", load->path, id, t->tokens[id].bytes, text);
    tokenizer_set(t, id, text, strlen(text));
    word->count = id + 1;
    if (id >= t->vocab_size) t->vocab_size = id + 1;
}

static inline void tokenizer_load_merge(TokenizerLoad *load, const char *left, size_t n_left,
                                        const char *right, size_t n_right) {
    char *joined = tokenizer_join(left, n_left, right, n_right);
    int a = tokenizer_spelling(load, left, n_left), b = tokenizer_spelling(load, right, n_right);
    int made = tokenizer_spelling(load, joined, n_left + n_right), rank = load->t->n_merges;
    if (a < 0 || b < 0 || made < 0)
        die("'%s': merge %d joins '%.*s' and '%.*s' to '%s', which are not all in the vocabulary", load->path,
            rank, (int)n_left, left, (int)n_right, right, joined);
    if (rank >= TOKENIZER_MAX_VOCAB - 1) /* each makes a token, and the first begins with one */
        die("'%s' has more than %d merges; no vocabulary of 16-bit ids needs more", load->path, rank);
    tokenizer_add_merge(load->t, (uint32_t)a, (uint32_t)b, (uint32_t)made);
    free(joined);
}

/* An object of tokens and ids, or Unigram's list of [piece, score], whose places are the ids. */
static inline void tokenizer_load_vocab(TokenizerLoad *load, const cJSON *vocab, bool unigram) {
    const cJSON *item;
    double place = 0;
    if (!(unigram ? cJSON_IsArray(vocab) : cJSON_IsObject(vocab)))
        die("'%s' has no vocabulary: expected %s", load->path,
            unigram ? "a list of pieces and scores" : "an object of tokens and ids");
    cJSON_ArrayForEach(item, vocab) {
        const char *text = unigram ? cJSON_GetStringValue(cJSON_GetArrayItem(item, 0)) : item->string;
        double id = unigram ? place++ : cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (!text) die("'%s': entry %g of its vocabulary is not a pair of piece and score", load->path, id);
        tokenizer_load_token(load, text, id);
    }
}

typedef struct {
    const char *left, *right; /* right ends in a zero */
    size_t n_left;
} TokenizerPairText;

/* A merge is "left right", or ["left", "right"] as newer files have it. */
static inline TokenizerPairText tokenizer_pair_text(const TokenizerLoad *load, const cJSON *item, int merge) {
    const char *text = cJSON_GetStringValue(item), *space = text ? strchr(text, ' ') : NULL;
    const char *left = text ? text : cJSON_GetStringValue(cJSON_GetArrayItem(item, 0));
    const char *right = space ? space + 1 : cJSON_GetStringValue(cJSON_GetArrayItem(item, 1));
    if (!left || !right) die("'%s': merge %d is not a pair of tokens", load->path, merge);
    return (TokenizerPairText){left, right, space ? (size_t)(space - left) : strlen(left)};
}

static inline void tokenizer_load_merges(TokenizerLoad *load, const cJSON *merges) {
    const cJSON *item;
    cJSON_ArrayForEach(item, merges) {
        TokenizerPairText pair = tokenizer_pair_text(load, item, load->t->n_merges);
        tokenizer_load_merge(load, pair.left, pair.n_left, pair.right, strlen(pair.right));
    }
}

static inline const char *tokenizer_json_string(const cJSON *object, const char *name) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static inline void tokenizer_load_added(TokenizerLoad *load, const cJSON *added) {
    const cJSON *item;
    cJSON_ArrayForEach(item, added) {
        const char *content = tokenizer_json_string(item, "content");
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

/* Why a text cannot be encoded; the first reason stays. */
__attribute__((format(printf, 2, 3))) static inline void tokenizer_why_not(Tokenizer *t, const char *format,
                                                                           ...) {
    va_list arguments;
    if (*t->why_not) return;
    va_start(arguments, format);
    vsnprintf(t->why_not, sizeof t->why_not, format, arguments);
    va_end(arguments);
}

/* The normaliser's table, which JSON holds in base 64. */
static inline void tokenizer_load_charsmap(Tokenizer *t, const char *text) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    TokenizerPieces *p = t->pieces;
    uint32_t bits = 0;
    size_t n = 0, bytes = text ? strlen(text) / 4 * 3 : 0;
    unsigned char *blob = check_malloc(bytes + 4);
    for (size_t i = 0; text && text[i] && text[i] != '='; i++) {
        const char *digit = strchr(digits, text[i]);
        if (!digit) break;
        bits = bits << 6 | (uint32_t)(digit - digits);
        if (i % 4 && n < bytes) blob[n++] = (unsigned char)(bits >> (6 - 2 * (i % 4)));
    }
    uint32_t units =
        (uint32_t)blob[0] | (uint32_t)blob[1] << 8 | (uint32_t)blob[2] << 16 | (uint32_t)blob[3] << 24;
    if (n < 4 || units % 4 || units > n - 4) {
        tokenizer_why_not(t, "the table of its normalizer is damaged");
    } else { /* a size, the double array of that size, strings that end in zeros */
        p->n_units = units / 4, p->n_table = n - 4;
        p->table = check_malloc(p->n_table + 1);
        memcpy(p->table, blob + 4, p->n_table);
    }
    free(blob);
}

/* One step of the normaliser: those that ./prepare writes are known. */
static inline void tokenizer_load_step(Tokenizer *t, const cJSON *step, bool *strips) {
    const char *type = tokenizer_json_string(step, "type"), *content = tokenizer_json_string(step, "content");
    const char *regex = tokenizer_json_string(cJSON_GetObjectItemCaseSensitive(step, "pattern"), "Regex");
    const cJSON *left = cJSON_GetObjectItemCaseSensitive(step, "strip_left"),
                *right = cJSON_GetObjectItemCaseSensitive(step, "strip_right");
    if (type && strcmp(type, "Precompiled") == 0 && !t->pieces->table)
        tokenizer_load_charsmap(t, tokenizer_json_string(step, "precompiled_charsmap"));
    else if (type && strcmp(type, "Strip") == 0 && cJSON_IsTrue(left) && cJSON_IsTrue(right))
        *strips = true;
    else if (type && strcmp(type, "Replace") == 0 && regex && strcmp(regex, " {2,}") == 0 && content &&
             strcmp(content, " ") == 0)
        t->pieces->squeeze = true;
    else
        tokenizer_why_not(t, "its normalizer has the step '%.40s' in a form that is not known",
                          type ? type : "?");
}

static inline void tokenizer_load_piece_rules(Tokenizer *t, const cJSON *root) {
    const cJSON *normalizer = cJSON_GetObjectItemCaseSensitive(root, "normalizer"), *step;
    const cJSON *pre = cJSON_GetObjectItemCaseSensitive(root, "pre_tokenizer");
    const char *type = tokenizer_json_string(normalizer, "type"), *cuts = tokenizer_json_string(pre, "type");
    const char *mark = tokenizer_json_string(pre, "replacement");
    const char *prepend = tokenizer_json_string(pre, "prepend_scheme");
    bool strips = false;
    if (type && strcmp(type, "Sequence") == 0)
        cJSON_ArrayForEach(step, cJSON_GetObjectItemCaseSensitive(normalizer, "normalizers"))
            tokenizer_load_step(t, step, &strips);
    else if (normalizer && !cJSON_IsNull(normalizer))
        tokenizer_load_step(t, normalizer, &strips);
    if (strips != t->pieces->squeeze)
        tokenizer_why_not(t, "its normalizer strips spaces or shrinks runs of them, but not both");
    if (!cuts || strcmp(cuts, "Metaspace") != 0 || !mark || strcmp(mark, PIECES_SPACE) != 0 || !prepend ||
        !cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(pre, "split")))
        tokenizer_why_not(
            t,
            "its pre_tokenizer is '%.40s'; known are 'ByteLevel' (GPT-2's) and 'Metaspace' as ./prepare "
            "writes it (give ./prepare the *.model file of a SentencePiece vocabulary)",
            cuts ? cuts : "none");
    else if (strcmp(prepend, "always") != 0 && strcmp(prepend, "never") != 0)
        tokenizer_why_not(t, "its pre_tokenizer has the prepend_scheme '%.40s'", prepend);
    else
        t->pieces->prefix = strcmp(prepend, "always") == 0;
}

/* The byte that a piece <0x0A> stands for, or -1. */
static inline int tokenizer_byte_piece(const Token *token) {
    static const char digits[] = "0123456789ABCDEF";
    const char *s = token->bytes, *high, *low;
    if (token->length != 6 || strncmp(s, "<0x", 3) != 0 || s[5] != '>') return -1;
    high = strchr(digits, s[3]), low = strchr(digits, s[4]);
    return high && low ? (int)(high - digits) * 16 + (int)(low - digits) : -1;
}

/* From the spelling of a piece to the bytes it decodes to. */
static inline void tokenizer_load_piece_bytes(Token *token) {
    uint32_t n = 0;
    if (!token->bytes || token->added) return;
    int byte = tokenizer_byte_piece(token);
    if (byte >= 0) token->bytes[n++] = (char)byte;
    for (uint32_t i = 0; byte < 0 && i < token->length; n++) {
        bool space = strncmp(token->bytes + i, PIECES_SPACE, 3) == 0;
        token->bytes[n] = space ? ' ' : token->bytes[i];
        i += space ? 3 : 1;
    }
    token->bytes[n] = 0, token->length = n;
}

/* What is looked for in a text: neither special tokens, the unknown piece nor the pieces of bytes. */
static inline void tokenizer_load_trie(Tokenizer *t) {
    TokenizerPieces *p = t->pieces;
    float least = FLT_MAX;
    int bytes = 0;
    p->best_score = FLT_MIN; /* as SentencePiece has it */
    tokenizer_trie_begin(&p->pieces), tokenizer_trie_begin(&p->user);
    for (int id = 0; id < t->vocab_size; id++) {
        const Token *token = &t->tokens[id];
        int byte = p->has_bytes && token->bytes ? tokenizer_byte_piece(token) : -1;
        if (byte >= 0) p->byte_id[byte] = (uint16_t)id, bytes++;
        if (!token->length || byte >= 0 || id == p->unknown || (token->added && token->special)) continue;
        tokenizer_trie_add(&p->pieces, token->bytes, token->length, (uint32_t)id);
        if ((p->is_user[id] = token->added)) {
            tokenizer_trie_add(&p->user, token->bytes, token->length, (uint32_t)id);
            p->has_user = true;
            continue;
        }
        least = p->scores[id] < least ? p->scores[id] : least;
        p->best_score = p->scores[id] > p->best_score ? p->scores[id] : p->best_score;
    }
    p->unknown_score = least - 10.0f;
    if (p->has_bytes && bytes < 256)
        tokenizer_why_not(t, "it falls back to bytes, but has pieces for %d of 256", bytes);
    if (!p->has_bytes && p->unknown < 0)
        tokenizer_why_not(t, "it has neither an unknown piece nor pieces for bytes");
}

/* The place of the first merge that makes a piece is its rank. */
static inline void tokenizer_load_ranks(TokenizerLoad *load, const cJSON *merges) {
    const cJSON *item;
    uint32_t rank = 0;
    uint32_t *ranks = load->t->pieces->ranks;
    cJSON_ArrayForEach(item, merges) {
        TokenizerPairText pair = tokenizer_pair_text(load, item, (int)rank);
        char *joined = tokenizer_join(pair.left, pair.n_left, pair.right, strlen(pair.right));
        int made = tokenizer_spelling(load, joined, strlen(joined));
        if (made < 0)
            die("'%s': merge %u makes '%s', which is not in the vocabulary", load->path, rank, joined);
        if (ranks[made] == TOKENIZER_NONE) ranks[made] = rank;
        free(joined), rank++;
    }
}

/* A SentencePiece vocabulary: all that encoding needs; then from the spelling of tokens to their bytes: U+2581 is a
   space, <0x41> a byte. */
static inline void tokenizer_load_pieces(TokenizerLoad *load, const cJSON *root, bool unigram) {
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(root, "model"), *item;
    const cJSON *unknown = cJSON_GetObjectItemCaseSensitive(model, "unk_id");
    const char *unknown_token = tokenizer_json_string(model, "unk_token");
    Tokenizer *t = load->t;
    TokenizerPieces *p = t->pieces = check_malloc(sizeof *p);
    p->bpe = !unigram;
    p->scores = check_malloc(TOKENIZER_MAX_VOCAB * sizeof *p->scores);
    p->ranks = check_malloc(TOKENIZER_MAX_VOCAB * sizeof *p->ranks);
    p->is_user = check_malloc(TOKENIZER_MAX_VOCAB * sizeof *p->is_user);
    memset(p->ranks, 0xFF, TOKENIZER_MAX_VOCAB * sizeof *p->ranks);
    p->has_bytes = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(model, "byte_fallback"));
    p->unknown = unknown_token ? tokenizer_spelling(load, unknown_token, strlen(unknown_token)) : -1;
    if (unigram && cJSON_IsNumber(unknown) && unknown->valuedouble >= 0 &&
        unknown->valuedouble < t->vocab_size)
        p->unknown = unknown->valueint;
    int id = 0;
    if (unigram) cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(model, "vocab")) {
            double score = cJSON_GetNumberValue(cJSON_GetArrayItem(item, 1));
            if (!(score >= -1e30 && score <= 1e30)) tokenizer_why_not(t, "its piece %d has no score", id);
            p->scores[id++] = (float)score;
        }
    tokenizer_load_piece_rules(t, root);
    tokenizer_load_trie(t);
    if (!unigram) tokenizer_load_ranks(load, cJSON_GetObjectItemCaseSensitive(model, "merges"));
    for (id = 0; id < t->vocab_size; id++) tokenizer_load_piece_bytes(&t->tokens[id]);
}

/* What decides how a text is cut: only GPT-2's rule is known here. */
static inline void tokenizer_load_rules(TokenizerLoad *load, const cJSON *root) {
    const cJSON *pre = cJSON_GetObjectItemCaseSensitive(root, "pre_tokenizer");
    const char *type = tokenizer_json_string(pre, "type");
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
    const char *type = tokenizer_json_string(model, "type");
    const char *decode = tokenizer_json_string(cJSON_GetObjectItemCaseSensitive(root, "decoder"), "type");
    bool unigram = type && strcmp(type, "Unigram") == 0;
    if (!cJSON_IsObject(model)) { /* GPT-2's vocab.json, where <|endoftext|> is one of the tokens */
        tokenizer_load_vocab(load, root, false);
        int id = tokenizer_spelling(load, "<|endoftext|>", 13);
        if (id >= 0) load->t->tokens[id].added = load->t->tokens[id].special = true;
        return;
    }
    if (!type || (strcmp(type, "BPE") != 0 && !unigram))
        die("'%s' holds a tokenizer of the type '%s'; BPE and Unigram are known", load->path,
            type ? type : "none");
    load->is_pieces = unigram || !decode || strcmp(decode, "ByteLevel") != 0;
    tokenizer_load_vocab(load, cJSON_GetObjectItemCaseSensitive(model, "vocab"), unigram);
    tokenizer_load_added(load, cJSON_GetObjectItemCaseSensitive(root, "added_tokens"));
    if (load->is_pieces) {
        tokenizer_load_pieces(load, root, unigram);
        return;
    }
    if (!*load->t->why_not) tokenizer_load_rules(load, root);
    if (!*load->t->why_not) tokenizer_load_merges(load, cJSON_GetObjectItemCaseSensitive(model, "merges"));
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

/* The text of a tokenizer.json or vocab.json and, with the latter, of its merges.txt (else NULL). */
static inline Tokenizer *tokenizer_parse(const char *path, const char *text, size_t n, const char *merges) {
    TokenizerLoad load = {.path = path, .t = tokenizer_new()};
    cJSON *root = cJSON_ParseWithLength(text, n);
    if (!root) {
        const char *at = cJSON_GetErrorPtr();
        die("'%s' is not valid JSON (at byte %zu of %zu); it may be cut short", path,
            at >= text && at <= text + n ? (size_t)(at - text) : 0, n);
    }
    tokenizer_load_json(&load, root);
    bool gpt2 = !cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(root, "model"));
    if (gpt2 && merges) tokenizer_load_merges_text(&load, merges);
    if (gpt2 && !merges) die("'%s' is no tokenizer.json: it has no model", path);
    if (!load.t->vocab_size) die("'%s' has an empty vocabulary", path);
    if (!load.is_pieces) tokenizer_load_bytes(&load);
    tokenizer_build(load.t);
    cJSON_Delete(root);
    tokenizer_words_free(&load.spellings);
    return load.t;
}

/* As tokenizer_load; *text (*n bytes, free() it) becomes the tokenizer.json itself, or NULL when there are merges beside. */
static inline Tokenizer *tokenizer_load_text(const char *path, char **text, size_t *n) {
    static const char hint[] = "name a tokenizer.json, a vocab.json with merges.txt, or their folder";
    struct stat status;
    size_t n_merges, room = strlen(path) + 32;
    char *name = check_malloc(room), *beside = check_malloc(room), *merges = NULL;
    snprintf(name, room, "%s", path);
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        snprintf(name, room, "%s/tokenizer.json", path);
        if (stat(name, &status) != 0) snprintf(name, room, "%s/vocab.json", path);
    }
    char *slash = strrchr(name, '/');
    *text = check_file_read(name, FILE_REGULAR, FILE_JSON_LIMIT, n, hint);
    snprintf(beside, room, "%.*smerges.txt", slash ? (int)(slash + 1 - name) : 0, name);
    if (strcmp(check_basename(name), "tokenizer.json") != 0 && stat(beside, &status) == 0)
        merges = check_file_read(beside, FILE_REGULAR, FILE_JSON_LIMIT, &n_merges, hint);
    Tokenizer *t = tokenizer_parse(name, *text, *n, merges);
    if (merges) free(*text), *text = NULL;
    free(name), free(beside), free(merges);
    return t;
}

static inline Tokenizer *tokenizer_load(const char *path) {
    char *text;
    size_t n;
    Tokenizer *t = tokenizer_load_text(path, &text, &n);
    free(text);
    return t;
}

#endif
