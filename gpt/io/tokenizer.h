/* tokenizer.h: turns text into token ids and back: byte-level BPE (GPT-2's), read from and written as Hugging Face's
   tokenizer.json. Vocabularies of SentencePiece, in the form in which ./prepare writes them, are encoded
   (tokenizer_pieces.h) and decoded as well. data/bpe_learner.h learns a vocabulary.

   Byte-level BPE cuts a text into pieces by GPT-2's rule
       's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
   and starts with one token for each byte of a piece. Then two neighbours are merged into one token, again and again:
   always the pair whose merge was learned first, and its leftmost occurrence. Any bytes can be encoded, and decoding
   gives the same bytes back, if the vocabulary has a token for each byte. Some published ones lack bytes that are rare in
   text or never occur in UTF-8; encoding leaves such bytes out, as Hugging Face's `tokenizers` does. A byte that is not
   part of valid UTF-8 counts as a character that is neither letter, number nor white space. Special tokens such as
   <|endoftext|> are never found in a text, even when it spells their names. A vocabulary has at most 65,536 tokens, so that an id is a uint16_t.

     Tokenizer *t = tokenizer_load(path)        reads a tokenizer.json, a vocab.json with merges.txt beside it, or a
                                                folder that holds either. Dies with a sentence when the file is
                                                missing or wrong. A tokenizer whose rules are not known here is
                                                loaded for decoding only: t->why_not, else "", says why, and encoding
                                                dies with it. tokenizer_free(t) when done
     tokenizer_load_text(path, &text, &n)       the same; also gives the text of the tokenizer.json, n bytes, which
                                                the caller frees, or NULL when the vocabulary came from vocab.json
                                                and merges.txt
     tokenizer_parse(path, text, n, merges)     the same from the text of such a file, n bytes and a zero byte;
                                                `path` is only named in errors; merges: the text of merges.txt for a
                                                vocab.json, else NULL
     tokenizer_text(t, &size)                   the text of the tokenizer's tokenizer.json, which Hugging Face's
                                                `tokenizers` reads; the caller frees it. Not for a SentencePiece
                                                vocabulary
     tokenizer_vocab_size(t)                    the largest id + 1
     tokenizer_end_of_text(t)                   the id of the token between documents; -1: the vocabulary has none
     tokenizer_decode_token(t, id, &n)          the n bytes of a token, which t owns; none for an id without a token
     tokenizer_tokens_bytes(t, tokens, n)       the sum of tokenizer_text_bytes over n tokens; 0 when t is NULL
     tokenizer_text_bytes(t, id)                the bytes of text that a token stands for: as many as it decodes to, but
                                                0 for special tokens, which no text contains, and for an id without a
                                                token. A SentencePiece vocabulary normalises a text before it encodes
                                                it; counted are the bytes of the normalised text, with the space that it
                                                puts before a document, and none for a character that it does not know
     tokenizer_room(t, text, n)                 an upper bound for the number of tokens in a text of n bytes
     tokenizer_encode(t, cache, text, n, ids)   fills ids, which has the room above, and returns the number of tokens
     tokenizer_cache_new()                      memory of pieces that were encoded before, one for each thread that
                                                encodes; the caller frees it with free(). Encoding with NULL instead
                                                gives the same ids, more slowly */
#ifndef GPT_IO_TOKENIZER_H
#define GPT_IO_TOKENIZER_H

#include <stdbool.h>
#include "files.h"
#include "json.h"
#include "tokenizer_pieces.h"
#include "tokenizer_table.h"
#include "tokenizer_unicode.h"

enum { TOKENIZER_MAX_VOCAB = 65536 };

/* -----------------------------------------------------------------------------------------------------------
   The tokenizer and its tables */

typedef struct {
    char *bytes; /* (length), then a zero byte; NULL: no token has this id */
    uint32_t length;
    /* One of the "added_tokens" of tokenizer.json: found in a text as it is spelled, never merged. */
    bool added;
    bool special; /* an added token that is never found in a text */
} Token;

/* A piece of at most 16 bytes that is one token. */
typedef struct {
    uint64_t low, high; /* its bytes as two little-endian numbers (tokenizer_key) */
    uint16_t id;
    uint8_t length; /* in bytes; 0: a free place of the table */
} TokenizerWhole;

typedef struct {
    Token *tokens; /* (vocab_size) by id */
    int vocab_size, end_of_text;
    /* (n_merges) left id << 16 | right id, in the order learned. The index of a merge is called its rank. */
    uint32_t *merges;
    int n_merges;
    uint16_t byte_id[256];  /* the token of each byte */
    bool lacks[256];        /* the bytes that have no token */
    int n_lacking;          /* how many these are; encoding leaves them out of a text */
    unsigned char *classes; /* (TOKENIZER_CODE_POINTS) letter, number, white space or other */
    /* From left id << 16 | right id to rank << 16 | id, so that comparing values compares ranks. */
    TokenizerTable merge_table;
    TokenizerWhole *whole_table; /* (whole_mask + 1) a hash table with open addressing */
    uint32_t whole_mask;
    TokenizerTrie added;     /* the added tokens that are found in texts */
    bool has_added;          /* there are some */
    bool added_first[256];   /* whether one of them begins with the byte */
    TokenizerPieces *pieces; /* NULL, but for a SentencePiece vocabulary: all that its encoding needs */
    char why_not[256];       /* why texts cannot be encoded; "": they can */
} Tokenizer;

/* rank << 16 | id of the merge of two ids; TOKENIZER_NONE, which is larger than any, when they do not merge. */
static inline uint32_t tokenizer_merge(const Tokenizer *t, uint32_t left, uint32_t right) {
    return (uint32_t)*tokenizer_find(&t->merge_table, left << 16 | right, NULL) - 1;
}

/* The place of the token that has these n <= 16 bytes; a free place when there is no such token. */
static inline TokenizerWhole *tokenizer_whole(const Tokenizer *t, const uint64_t key[2], size_t n) {
    for (uint64_t at = tokenizer_hash(key[0], key[1]);; at++) {
        TokenizerWhole *whole = &t->whole_table[at & t->whole_mask];
        if (!whole->length || (whole->low == key[0] && whole->high == key[1] && whole->length == n))
            return whole;
    }
}

static inline int tokenizer_vocab_size(const Tokenizer *t) { return t->vocab_size; }
static inline int tokenizer_end_of_text(const Tokenizer *t) { return t->end_of_text; }

static inline const char *tokenizer_decode_token(const Tokenizer *t, int id, size_t *length) {
    if (id < 0 || id >= t->vocab_size || !t->tokens[id].bytes) return *length = 0, "";
    *length = t->tokens[id].length;
    return t->tokens[id].bytes;
}

static inline size_t tokenizer_text_bytes(const Tokenizer *t, int id) {
    size_t length;
    tokenizer_decode_token(t, id, &length);
    return length > 0 && !t->tokens[id].special && id != t->end_of_text ? length : 0;
}

static inline int64_t tokenizer_tokens_bytes(const Tokenizer *t, const int32_t *tokens, int64_t n) {
    int64_t bytes = 0;
    for (int64_t i = 0; t && i < n; i++) bytes += (int64_t)tokenizer_text_bytes(t, tokens[i]);
    return bytes;
}

/* -----------------------------------------------------------------------------------------------------------
   Encoding */

enum {
    TOKENIZER_SHORT = 128,      /* the most bytes of a piece that tokenizer_merge_short encodes */
    TOKENIZER_CACHE = 1 << 14,  /* places of a cache, found by the hash of a piece */
    TOKENIZER_CACHE_BYTES = 62, /* the longest piece that is remembered */
    TOKENIZER_CACHE_IDS = 32    /* the most tokens of such a piece */
};

typedef struct {
    uint8_t length, n_ids; /* length 0: a free place */
    unsigned char bytes[TOKENIZER_CACHE_BYTES];
    uint16_t ids[TOKENIZER_CACHE_IDS];
} TokenizerCache;

static inline TokenizerCache *tokenizer_cache_new(void) {
    return check_calloc(TOKENIZER_CACHE * sizeof(TokenizerCache));
}

/* Encodes a piece of n <= TOKENIZER_SHORT bytes. For so few, looking at all pairs before each merge is fastest. */
static inline size_t tokenizer_merge_short(const Tokenizer *t, const unsigned char *p, size_t n,
                                           uint16_t *ids) {
    uint32_t value[TOKENIZER_SHORT]; /* of tokens i and i+1: rank << 16 | id of their merge */
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

/* Adds the merge of the tokens at i and right to the heap, if there is one. */
static inline void tokenizer_push_pair(const Tokenizer *t, TokenizerHeap *heap, const uint16_t *ids,
                                       uint32_t i, uint32_t right) {
    uint32_t value = tokenizer_merge(t, ids[i], ids[right]);
    if (value != TOKENIZER_NONE) tokenizer_heap_push(heap, value, i);
}

/* Encodes a piece of any length (a megabyte of one letter is one piece) in time n log n: a heap holds (rank << 16 | id,
   position) of all possible merges, and linked lists lead from each token to its neighbours. ids[i] has a meaning only
   where a token begins at byte i; next[i] = 0 marks where none does. */
static inline size_t tokenizer_merge_long(const Tokenizer *t, const unsigned char *p, size_t n,
                                          uint16_t *ids) {
    if (n >= UINT32_MAX) die("a piece of text without a break has %zu bytes; cut it, 4 GiB are too many", n);
    uint32_t *next = check_calloc(n * sizeof *next), *previous = check_calloc(n * sizeof *previous);
    TokenizerHeap heap = {0};
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        ids[i] = t->byte_id[p[i]], next[i] = (uint32_t)i + 1, previous[i] = (uint32_t)i - 1;
    for (uint32_t i = 0; i + 1 < n; i++) tokenizer_push_pair(t, &heap, ids, i, i + 1);
    while (heap.n) {
        TokenizerItem top = tokenizer_heap_pop(&heap);
        uint32_t value = (uint32_t)top.first, i = (uint32_t)top.second, right = next[i];
        if (right == 0 || right >= n || tokenizer_merge(t, ids[i], ids[right]) != value)
            continue; /* one of the two tokens was merged otherwise since this was pushed */
        ids[i] = (uint16_t)value;
        next[i] = next[right];
        next[right] = 0; /* no token begins here any more */
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

static inline size_t tokenizer_merge_known(const Tokenizer *t, const unsigned char *p, size_t n,
                                           uint16_t *ids) {
    return n <= TOKENIZER_SHORT ? tokenizer_merge_short(t, p, n, ids) : tokenizer_merge_long(t, p, n, ids);
}

/* Encodes a piece of n bytes, without the bytes that have no token. */
static inline size_t tokenizer_merge_piece(const Tokenizer *t, const unsigned char *p, size_t n,
                                           uint16_t *ids) {
    size_t known = 0;
    for (size_t i = 0; i < n && t->n_lacking; i++) known += !t->lacks[p[i]];
    if (!t->n_lacking || known == n) return tokenizer_merge_known(t, p, n, ids);
    unsigned char *kept = check_calloc(known + 1);
    known = 0;
    for (size_t i = 0; i < n; i++)
        if (!t->lacks[p[i]]) kept[known++] = p[i];
    const size_t count = tokenizer_merge_known(t, kept, known, ids);
    free(kept);
    return count;
}

/* Encodes a piece that is not one token, or takes its ids from the cache, where each piece replaces the one before it
   in its place. */
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

/* Encodes a text in which no added token is looked for. */
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

/* The id of the first added token in a text, and of several that begin at the same byte the longest; -1 when there is
   none. *at is where it begins. */
static inline int tokenizer_find_added(const Tokenizer *t, const char *text, size_t n, size_t *at) {
    const unsigned char *p = (const unsigned char *)text;
    for (size_t i = 0; i < n; i++) {
        if (!t->added_first[p[i]]) continue;
        int found = -1;
        uint32_t node = TOKENIZER_ROOT;
        for (size_t j = i; j < n && (node = tokenizer_child(&t->added, node, p[j])); j++)
            if (t->added.ids[node] != TOKENIZER_NONE) found = (int)t->added.ids[node];
        if (found >= 0) return *at = i, found;
    }
    return -1;
}

/* Encodes a text with a SentencePiece vocabulary. */
static inline size_t tokenizer_encode_pieces(const Tokenizer *t, const char *text, size_t n, uint16_t *ids) {
    char *normal = check_calloc(pieces_normalize(t->pieces, text, n, NULL) + 1);
    size_t count = pieces_encode(t->pieces, normal, pieces_normalize(t->pieces, text, n, normal), ids);
    free(normal);
    return count;
}

static inline size_t tokenizer_room(const Tokenizer *t, const char *text, size_t n) {
    return t->pieces ? pieces_normalize(t->pieces, text, n, NULL) : n;
}

static inline size_t tokenizer_encode(const Tokenizer *t, TokenizerCache *cache, const char *text, size_t n,
                                      uint16_t *ids) {
    size_t count = 0;
    if (n && *t->why_not)
        die("this tokenizer cannot encode text, only decode (leave a prompt out): %s", t->why_not);
    while (n) {
        size_t at = n;
        int id = t->has_added ? tokenizer_find_added(t, text, n, &at) : -1;
        count += t->pieces ? tokenizer_encode_pieces(t, text, at, ids + count)
                           : tokenizer_encode_plain(t, cache, (const unsigned char *)text, at, ids + count);
        if (id < 0) break;
        ids[count++] = (uint16_t)id;
        text += at + t->tokens[id].length, n -= at + t->tokens[id].length;
    }
    return count;
}

/* -----------------------------------------------------------------------------------------------------------
   Building: from tokens and merges to the tables that encoding reads */

/* A tokenizer without tokens. The arrays of tokens and merges have room for the largest vocabulary, which is little
   memory. */
static inline Tokenizer *tokenizer_new(void) {
    Tokenizer *t = check_calloc(sizeof *t);
    t->tokens = check_calloc(TOKENIZER_MAX_VOCAB * sizeof *t->tokens);
    t->merges = check_calloc(TOKENIZER_MAX_VOCAB * sizeof *t->merges);
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

/* The bytes of left, then those of right, then a zero byte; the caller frees them. */
static inline char *tokenizer_join(const char *left, size_t n_left, const char *right, size_t n_right) {
    char *joined = check_calloc(n_left + n_right + 1);
    memcpy(joined, left, n_left);
    memcpy(joined + n_left, right, n_right);
    return joined;
}

/* Gives an id its bytes, which are copied. */
static inline void tokenizer_set(Tokenizer *t, int id, const char *bytes, size_t length) {
    t->tokens[id] = (Token){.bytes = tokenizer_join(bytes, length, "", 0), .length = (uint32_t)length};
}

/* Appends the merge of two ids to a third. The table gets twice the room it needs, since most pairs that are looked up
   are not in it, and a free place ends such a search. */
static inline void tokenizer_add_merge(Tokenizer *t, uint32_t left, uint32_t right, uint32_t made) {
    uint32_t pair = left << 16 | right, value = (uint32_t)t->n_merges << 16 | made;
    t->merges[t->n_merges++] = pair;
    tokenizer_table_room(&t->merge_table, 2 * (size_t)t->n_merges);
    *tokenizer_find(&t->merge_table, pair, NULL) = (uint64_t)pair << 32 | (value + 1);
}

/* GPT-2 spells a token with one printable character for each byte. Whether a byte is spelled as the character of the
   same number; the other 68 bytes are spelled as U+0100 and the characters after it. */
static inline bool tokenizer_printable(int byte) {
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
}

/* The character that spells each byte, and the bytes in the order of these characters, which is the order of their ids
   in a new vocabulary. */
static inline void tokenizer_byte_characters(int character[256], int order[256]) {
    int n = 0, rest = 256;
    for (int byte = 0; byte < 256; byte++)
        if (tokenizer_printable(byte)) character[byte] = byte, order[n++] = byte;
    for (int byte = 0; byte < 256; byte++)
        if (!tokenizer_printable(byte)) character[byte] = rest++, order[n++] = byte;
}

/* Fills the table of the tokens of at most 16 bytes that encoding makes of their own bytes: a piece that equals one of
   them is found by one look instead of by merging. */
static inline void tokenizer_build_whole(Tokenizer *t) {
    uint16_t ids[16];
    uint32_t size = 1024;
    while (size < 2 * (uint32_t)t->vocab_size) size *= 2;
    t->whole_mask = size - 1;
    t->whole_table = check_calloc(size * sizeof *t->whole_table);
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

/* After all tokens and merges are there: finds the token between documents and fills the tables for encoding. */
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
        if (!token->added || token->special || !token->length || t->pieces) continue;
        tokenizer_trie_add(&t->added, token->bytes, token->length, (uint32_t)id);
        t->added_first[(unsigned char)*token->bytes] = t->has_added = true;
    }
    t->classes = tokenizer_classes();
    if (!*t->why_not && !t->pieces) tokenizer_build_whole(t);
}

/* -----------------------------------------------------------------------------------------------------------
   Files */

/* A token as tokenizer.json spells it, without the quotation marks: an added token as it is, any other with one
   character of GPT-2's alphabet for each byte. */
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

/* Writes tokenizer.json. */
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

static inline char *tokenizer_text(const Tokenizer *t, size_t *size) {
    char *text = NULL;
    FILE *memory = open_memstream(&text, size);
    if (memory) tokenizer_write(t, memory);
    if (!memory || fclose(memory) != 0) die("no memory for a tokenizer.json: %s", strerror(errno));
    return text;
}

/* While a tokenizer is loaded. Tokens keep their spelling in the file until all merges are read; only then it is
   replaced by the bytes that it stands for. */
typedef struct {
    const char *path; /* of the file, for errors */
    Tokenizer *t;
    TokenizerWords spellings; /* of all tokens; the count of each is its id + 1 */
    bool is_pieces;           /* tokens are spelled as SentencePiece's, not in GPT-2's alphabet */
} TokenizerLoad;

/* The id of the token with this spelling; -1: there is none. */
static inline int tokenizer_spelling(TokenizerLoad *load, const char *text, size_t n) {
    return (int)tokenizer_word(&load->spellings, text, n)->count - 1;
}

/* Adds a token. `number` is its id as it stands in the file; dies when it is no id, or is taken. */
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

/* Adds the merge of two tokens, which are given by their spelling. */
static inline void tokenizer_load_merge(TokenizerLoad *load, const char *left, size_t n_left,
                                        const char *right, size_t n_right) {
    char *joined = tokenizer_join(left, n_left, right, n_right);
    int a = tokenizer_spelling(load, left, n_left), b = tokenizer_spelling(load, right, n_right);
    int made = tokenizer_spelling(load, joined, n_left + n_right), rank = load->t->n_merges;
    if (a < 0 || b < 0 || made < 0)
        die("'%s': merge %d joins '%.*s' and '%.*s' to '%s', which are not all in the vocabulary", load->path,
            rank, (int)n_left, left, (int)n_right, right, joined);
    if (rank >=
        TOKENIZER_MAX_VOCAB - 1) /* each merge makes another token, and at least one token is not made so */
        die("'%s' has more than %d merges; no vocabulary of 16-bit ids needs more", load->path, rank);
    tokenizer_add_merge(load->t, (uint32_t)a, (uint32_t)b, (uint32_t)made);
    free(joined);
}

/* Adds the tokens of a vocabulary: an object of spellings and ids or, with `unigram`, a list of [spelling, score],
   where the index is the id. */
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
    const char *left, *right; /* spellings; right ends in a zero byte, left has n_left bytes */
    size_t n_left;
} TokenizerPairText;

/* The two tokens of a merge, which is written as "left right" or, in newer files, as ["left", "right"]. */
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

/* Adds the tokens of the member "added_tokens". */
static inline void tokenizer_load_added(TokenizerLoad *load, const cJSON *added) {
    const cJSON *item;
    cJSON_ArrayForEach(item, added) {
        const char *content = json_text(item, "content");
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

/* Replaces the spelling of each token in GPT-2's alphabet by the bytes that it stands for. */
static inline void tokenizer_load_bytes(TokenizerLoad *load) {
    Tokenizer *t = load->t;
    int character[256], order[256], byte_of[512];
    tokenizer_byte_characters(character, order);
    for (int i = 0; i < 512; i++) byte_of[i] = -1;
    for (int byte = 0; byte < 256; byte++) byte_of[character[byte]] = byte;
    memset(t->lacks, true, sizeof t->lacks);
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
        t->lacks[(unsigned char)token->bytes[0]] = false;
        t->byte_id[(unsigned char)token->bytes[0]] = (uint16_t)id;
    }
    for (int byte = 0; byte < 256; byte++) {
        t->n_lacking += t->lacks[byte];
        const bool common = (byte >= ' ' && byte <= '~') || byte == '\n';
        if (t->lacks[byte] && common && !*t->why_not)
            snprintf(t->why_not, sizeof t->why_not, "no token stands for the byte 0x%02x", byte);
    }
}

/* Notes why texts cannot be encoded, in a sentence formatted as by printf. The first reason stays. */
__attribute__((format(printf, 2, 3))) static inline void tokenizer_why_not(Tokenizer *t, const char *format,
                                                                           ...) {
    va_list arguments;
    if (*t->why_not) return;
    va_start(arguments, format);
    vsnprintf(t->why_not, sizeof t->why_not, format, arguments);
    va_end(arguments);
}

/* Reads the table of the normaliser (tokenizer_pieces.h) from base 64. */
static inline void tokenizer_load_charsmap(Tokenizer *t, const char *text) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    TokenizerPieces *p = t->pieces;
    uint32_t bits = 0;
    size_t n = 0, bytes = text ? strlen(text) / 4 * 3 : 0;
    unsigned char *blob = check_calloc(bytes + 4);
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
    } else { /* the size of an array in bytes, the array, then strings that end in zero bytes */
        p->n_units = units / 4, p->n_table = n - 4;
        p->table = check_calloc(p->n_table + 1);
        memcpy(p->table, blob + 4, p->n_table);
    }
    free(blob);
}

/* Reads one step of the normaliser; known are the steps that ./prepare writes. *strips: it is the one that strips
   spaces. */
static inline void tokenizer_load_step(Tokenizer *t, const cJSON *step, bool *strips) {
    const char *type = json_text(step, "type"), *content = json_text(step, "content");
    const char *regex = json_text(cJSON_GetObjectItemCaseSensitive(step, "pattern"), "Regex");
    const cJSON *left = cJSON_GetObjectItemCaseSensitive(step, "strip_left"),
                *right = cJSON_GetObjectItemCaseSensitive(step, "strip_right");
    if (type && strcmp(type, "Precompiled") == 0 && !t->pieces->table)
        tokenizer_load_charsmap(t, json_text(step, "precompiled_charsmap"));
    else if (type && strcmp(type, "Strip") == 0 && cJSON_IsTrue(left) && cJSON_IsTrue(right))
        *strips = true;
    else if (type && strcmp(type, "Replace") == 0 && regex && strcmp(regex, " {2,}") == 0 && content &&
             strcmp(content, " ") == 0)
        t->pieces->squeeze = true;
    else
        tokenizer_why_not(t, "its normalizer has the step '%.40s' in a form that is not known",
                          type ? type : "?");
}

/* Reads how a text is normalised and cut for a SentencePiece vocabulary. */
static inline void tokenizer_load_piece_rules(Tokenizer *t, const cJSON *root) {
    const cJSON *normalizer = cJSON_GetObjectItemCaseSensitive(root, "normalizer"), *step;
    const cJSON *pre = cJSON_GetObjectItemCaseSensitive(root, "pre_tokenizer");
    const char *type = json_text(normalizer, "type"), *cuts = json_text(pre, "type");
    const char *mark = json_text(pre, "replacement");
    const char *prepend = json_text(pre, "prepend_scheme");
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

/* The byte that a token spelled like <0x0A> stands for; -1: it is spelled otherwise. */
static inline int tokenizer_byte_piece(const Token *token) {
    static const char digits[] = "0123456789ABCDEF";
    const char *s = token->bytes, *high, *low;
    if (token->length != 6 || strncmp(s, "<0x", 3) != 0 || s[5] != '>') return -1;
    high = strchr(digits, s[3]), low = strchr(digits, s[4]);
    return high && low ? (int)(high - digits) * 16 + (int)(low - digits) : -1;
}

/* Replaces the spelling of a SentencePiece token by the bytes that it stands for: U+2581 is a space, <0x41> a byte. */
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

/* Fills the tries of the pieces that are found in a text. Special tokens, the unknown piece and the pieces of bytes are
   not. */
static inline void tokenizer_load_trie(Tokenizer *t) {
    TokenizerPieces *p = t->pieces;
    float least = FLT_MAX;
    int bytes = 0;
    p->best_score = FLT_MIN; /* the least positive float, as in SentencePiece */
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

/* The rank of a piece is the index of the first merge that makes it. */
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

/* Sets everything that a SentencePiece vocabulary needs for encoding, then replaces the spelling of its tokens by their
   bytes. */
static inline void tokenizer_load_pieces(TokenizerLoad *load, const cJSON *root, bool unigram) {
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(root, "model"), *item;
    const cJSON *unknown = cJSON_GetObjectItemCaseSensitive(model, "unk_id");
    const char *unknown_token = json_text(model, "unk_token");
    Tokenizer *t = load->t;
    TokenizerPieces *p = t->pieces = check_calloc(sizeof *p);
    p->bpe = !unigram;
    p->scores = check_calloc(TOKENIZER_MAX_VOCAB * sizeof *p->scores);
    p->ranks = check_calloc(TOKENIZER_MAX_VOCAB * sizeof *p->ranks);
    p->is_user = check_calloc(TOKENIZER_MAX_VOCAB * sizeof *p->is_user);
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

/* Notes when a byte-level tokenizer cuts texts by another rule than GPT-2's, which is the only one known here. */
static inline void tokenizer_load_rules(TokenizerLoad *load, const cJSON *root) {
    const cJSON *pre = cJSON_GetObjectItemCaseSensitive(root, "pre_tokenizer");
    const char *type = json_text(pre, "type");
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

/* Reads all of a tokenizer.json; of a vocab.json everything but the merges. */
static inline void tokenizer_load_json(TokenizerLoad *load, const cJSON *root) {
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(root, "model");
    const char *type = json_text(model, "type");
    const char *decode = json_text(cJSON_GetObjectItemCaseSensitive(root, "decoder"), "type");
    bool unigram = type && strcmp(type, "Unigram") == 0;
    if (!cJSON_IsObject(model)) { /* GPT-2's vocab.json, which does not say that <|endoftext|> is special */
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

/* Reads GPT-2's merges.txt: a line "#version", then a line "left right" for each merge. */
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

static inline Tokenizer *tokenizer_parse(const char *path, const char *text, size_t n, const char *merges) {
    TokenizerLoad load = {.path = path, .t = tokenizer_new()};
    size_t stop;
    cJSON *root = json_parse_at(text, n, &stop);
    if (!root) die("'%s' is not valid JSON (at byte %zu of %zu); it may be cut short", path, stop, n);
    tokenizer_load_json(&load, root);
    bool gpt2 = !cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(root, "model"));
    if (gpt2 && merges) tokenizer_load_merges_text(&load, merges);
    if (gpt2 && !merges) die("'%s' is no tokenizer.json: it has no model", path);
    if (!load.t->vocab_size) die("'%s' has an empty vocabulary", path);
    if (!load.is_pieces) tokenizer_load_bytes(&load);
    const char *unknown = json_text(cJSON_GetObjectItemCaseSensitive(root, "model"), "unk_token");
    if (load.t->n_lacking && unknown)
        tokenizer_why_not(load.t, "it replaces bytes that have no token by '%.60s'", unknown);
    tokenizer_build(load.t);
    cJSON_Delete(root);
    tokenizer_words_free(&load.spellings);
    return load.t;
}

/* The text of the merges.txt beside a vocabulary's file, which the caller frees; NULL: there is none, or the file is a
   tokenizer.json, which needs none. */
static inline char *tokenizer_read_merges(const char *path, const char *hint) {
    size_t length,
        folder = (size_t)(check_basename(path) - path); /* bytes of the path up to and with the last slash */
    if (strcmp(path + folder, "tokenizer.json") == 0) return NULL;
    char *beside = tokenizer_join(path, folder, "merges.txt", strlen("merges.txt"));
    char *merges = check_file_read_if(beside, FILE_JSON_LIMIT, &length, hint);
    free(beside);
    return merges;
}

static inline Tokenizer *tokenizer_load_text(const char *path, char **text, size_t *n) {
    static const char hint[] = "name a tokenizer.json, a vocab.json with merges.txt, or their folder";
    struct stat status;
    char *name = NULL;
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        name = file_path(path, "tokenizer.json");
        if (stat(name, &status) != 0) free(name), name = file_path(path, "vocab.json");
        path = name;
    }
    *text = check_file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, n, hint);
    char *merges = tokenizer_read_merges(path, hint);
    Tokenizer *t = tokenizer_parse(path, *text, *n, merges);
    if (merges) free(*text), *text = NULL;
    free(name), free(merges);
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
