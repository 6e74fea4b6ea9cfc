/* tokenizer_table.h: the data structures of tokenizers. Each starts as a zeroed struct and grows by itself; no function
   fails except for lack of memory, which ends the program.

     TokenizerTable   a hash table from 32-bit keys to 32-bit values; the caller frees `places`
     TokenizerWords   a set of distinct byte strings with a number each; freed by tokenizer_words_free
     TokenizerTrie    a tree of byte strings with an id each, walked byte by byte from TOKENIZER_ROOT, so that all
                      strings with which a text begins are found in one pass; freed by tokenizer_trie_free
     TokenizerHeap    a priority queue of pairs of numbers, the smallest pair first; the caller frees `items` */
#ifndef GPT_IO_TOKENIZER_TABLE_H
#define GPT_IO_TOKENIZER_TABLE_H

#include <stdbool.h>
#include "../base/check.h"

/* A hash table with open addressing: an array of places, each of which is free or holds one entry, as key << 32 |
   (value + 1). So 0 marks a free place, and the value read from a free place is 0 - 1, which is TOKENIZER_NONE. */
#define TOKENIZER_NONE UINT32_MAX

typedef struct {
    uint64_t *places; /* (size), a power of two */
    size_t size;
} TokenizerTable;

static inline uint64_t tokenizer_hash(uint64_t low, uint64_t high) {
    uint64_t h = (low ^ (high * 0x9E3779B97F4A7C15u)) * 0xBF58476D1CE4E5B9u;
    return h ^ h >> 32;
}

/* The place of a key, or the free place that it would take. Several places may have the same key: with `after`, a place
   of the key that was found before, the search goes on behind it. */
static inline uint64_t *tokenizer_find(const TokenizerTable *table, uint32_t key, const uint64_t *after) {
    size_t at = after ? (size_t)(after - table->places) + 1 : tokenizer_hash(key, 0);
    for (;; at++) {
        uint64_t *place = &table->places[at & (table->size - 1)];
        if (!*place || *place >> 32 == key) return place;
    }
}

/* At least doubles the table and moves every entry to its new place. */
static inline void tokenizer_table_grow(TokenizerTable *table, size_t need) {
    TokenizerTable old = *table;
    table->size = old.size ? 2 * old.size : 1024;
    while (table->size < 2 * need) table->size *= 2;
    table->places = check_calloc(table->size * sizeof *table->places);
    for (size_t i = 0; i < old.size; i++) {
        if (!old.places[i]) continue;
        size_t at = tokenizer_hash(old.places[i] >> 32, 0);
        while (table->places[at & (table->size - 1)]) at++;
        table->places[at & (table->size - 1)] = old.places[i];
    }
    free(old.places);
}

/* Makes room for `need` entries, so that at most half of the places are ever taken. */
static inline void tokenizer_table_room(TokenizerTable *table, size_t need) {
    if (!table->size || 2 * need > table->size) tokenizer_table_grow(table, need);
}

/* ---- words ---- */

/* The first n <= 16 bytes at p as two little-endian numbers, padded with zeros. The function may read up to `readable`
   bytes at p (at least n), because reading 16 at once is faster. */
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

/* A hash of n bytes. ./prepare also chooses the documents for validation by it, so its values must not change. */
static inline uint64_t tokenizer_hash_bytes(const char *bytes, size_t n) {
    uint64_t key[2], hash = n;
    for (size_t i = 0; i < n; i += 16) {
        tokenizer_key((const unsigned char *)bytes + i, n - i < 16 ? n - i : 16, n - i, key);
        hash = tokenizer_hash(hash ^ key[0], key[1]);
    }
    return hash;
}

typedef struct {
    size_t start;    /* of its bytes in TokenizerWords.bytes */
    uint32_t length; /* in bytes */
    int64_t count;   /* the number kept for it: how often a piece of text occurs, or the id of a token + 1 */
} TokenizerWord;

typedef struct {
    TokenizerWord *words; /* (n_words) in the order in which they were first seen */
    size_t n_words, words_room;
    char *bytes; /* (n_bytes) of all words, one after the other */
    size_t n_bytes, bytes_room;
    TokenizerTable table; /* from the lower 32 bits of a word's hash to its index in words */
} TokenizerWords;

/* The word with these bytes, added with count 0 when it is new. The pointer is valid until the next call. */
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

/* ---- trie ---- */

/* Nodes are numbered from 1. The table leads from node << 8 | byte to the child that the byte leads to. */
typedef struct {
    TokenizerTable children;
    uint32_t *ids; /* (n_nodes + 1) the id of the string that ends at a node; TOKENIZER_NONE: none does */
    size_t n_nodes, room;
} TokenizerTrie;

enum { TOKENIZER_ROOT = 1, TOKENIZER_MAX_NODES = (1 << 24) - 1 };

/* The child of a node to which a byte leads; 0 when there is none. */
static inline uint32_t tokenizer_child(const TokenizerTrie *trie, uint32_t node, unsigned char byte) {
    return (uint32_t)*tokenizer_find(&trie->children, node << 8 | byte, NULL);
}

/* Appends a node at which no string ends, and returns its number. */
static inline uint32_t tokenizer_trie_node(TokenizerTrie *trie) {
    trie->ids = check_grow(trie->ids, &trie->room, trie->n_nodes + 2, sizeof *trie->ids);
    trie->ids[++trie->n_nodes] = TOKENIZER_NONE;
    return (uint32_t)trie->n_nodes;
}

/* Creates the root. Must be called before strings are added or looked up. */
static inline void tokenizer_trie_begin(TokenizerTrie *trie) {
    tokenizer_table_room(&trie->children, 1);
    tokenizer_trie_node(trie);
}

/* Adds a string of n bytes, or gives one that is there another id. Dies when the strings have too many bytes together.
   */
static inline void tokenizer_trie_add(TokenizerTrie *trie, const char *bytes, size_t n, uint32_t id) {
    uint32_t node = TOKENIZER_ROOT;
    if (trie->n_nodes + n > TOKENIZER_MAX_NODES)
        die("the tokens of a vocabulary have more than %d bytes together; no vocabulary needs as many",
            TOKENIZER_MAX_NODES);
    for (size_t i = 0; i < n; i++) {
        tokenizer_table_room(&trie->children, trie->n_nodes + 1);
        uint32_t key = node << 8 | (unsigned char)bytes[i];
        uint64_t *place = tokenizer_find(&trie->children, key, NULL);
        if (!*place) *place = (uint64_t)key << 32 | tokenizer_trie_node(trie);
        node = (uint32_t)*place;
    }
    trie->ids[node] = id;
}

static inline void tokenizer_trie_free(TokenizerTrie *trie) { free(trie->children.places), free(trie->ids); }

/* ---- heap ---- */

/* Items are compared by `first`, those with equal `first` by `second`. */
typedef struct {
    uint64_t first, second;
} TokenizerItem;

typedef struct {
    TokenizerItem *items; /* (n) */
    size_t n, room;
} TokenizerHeap;

static inline bool tokenizer_before(TokenizerItem a, TokenizerItem b) {
    return a.first != b.first ? a.first < b.first : a.second < b.second;
}

static inline void tokenizer_heap_push(TokenizerHeap *heap, uint64_t first, uint64_t second) {
    heap->items = check_grow(heap->items, &heap->room, heap->n + 1, sizeof *heap->items);
    TokenizerItem item = {first, second}, *items = heap->items;
    size_t at = heap->n++;
    for (; at && tokenizer_before(item, items[(at - 1) / 2]); at = (at - 1) / 2)
        items[at] = items[(at - 1) / 2];
    items[at] = item;
}

/* Removes and returns the smallest item of a heap that is not empty. */
static inline TokenizerItem tokenizer_heap_pop(TokenizerHeap *heap) {
    TokenizerItem *items = heap->items, top = items[0], item = items[--heap->n];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < heap->n) {
        if (child + 1 < heap->n && tokenizer_before(items[child + 1], items[child])) child++;
        if (!tokenizer_before(items[child], item)) break;
        items[at] = items[child], at = child;
    }
    items[at] = item;
    return top;
}

#endif
