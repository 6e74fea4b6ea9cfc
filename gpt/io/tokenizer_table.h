/* tokenizer_table.h: what tokenizers look things up in: a hash table, a tree of byte strings, a heap.

   TokenizerTable   from 32 bits to 32 bits
   TokenizerTrie    byte strings, each with an id: walked byte by byte from TOKENIZER_ROOT, so that all strings a text
                    begins with are found in one pass
   TokenizerHeap    the smallest of pairs of numbers first */
#ifndef GPT_IO_TOKENIZER_TABLE_H
#define GPT_IO_TOKENIZER_TABLE_H

#include <stdbool.h>
#include "../base/check.h"

/* An open-addressed hash table from 32 bits to 32 bits. A place is key << 32 | value + 1, so that 0 is free
   and the value of a free place is TOKENIZER_NONE. */
#define TOKENIZER_NONE UINT32_MAX

typedef struct {
    uint64_t *places; /* (size), a power of two */
    size_t size;
} TokenizerTable;

static inline uint64_t tokenizer_hash(uint64_t low, uint64_t high) {
    uint64_t h = (low ^ (high * 0x9E3779B97F4A7C15u)) * 0xBF58476D1CE4E5B9u;
    return h ^ h >> 32;
}

/* The place of a key, or the free one it would take. With `after`, the next place of the same key. */
static inline uint64_t *tokenizer_find(const TokenizerTable *table, uint32_t key, const uint64_t *after) {
    size_t at = after ? (size_t)(after - table->places) + 1 : tokenizer_hash(key, 0);
    for (;; at++) {
        uint64_t *place = &table->places[at & (table->size - 1)];
        if (!*place || *place >> 32 == key) return place;
    }
}

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

/* Makes room for `need` keys: at most half of the places are ever taken. */
static inline void tokenizer_table_room(TokenizerTable *table, size_t need) {
    if (!table->size || 2 * need > table->size) tokenizer_table_grow(table, need);
}

/* Nodes are numbered from 1 on; the children of a node are in a table from (node << 8 | byte) to the child. */
typedef struct {
    TokenizerTable children;
    uint32_t *ids; /* (n_nodes + 1) of the string that ends at a node, TOKENIZER_NONE: none does */
    size_t n_nodes, room;
} TokenizerTrie;

enum { TOKENIZER_ROOT = 1, TOKENIZER_MAX_NODES = (1 << 24) - 1 };

/* The child by a byte; 0 when there is none. */
static inline uint32_t tokenizer_child(const TokenizerTrie *trie, uint32_t node, unsigned char byte) {
    return (uint32_t)*tokenizer_find(&trie->children, node << 8 | byte, NULL);
}

static inline uint32_t tokenizer_trie_node(TokenizerTrie *trie) {
    trie->ids = check_grow(trie->ids, &trie->room, trie->n_nodes + 2, sizeof *trie->ids);
    trie->ids[++trie->n_nodes] = TOKENIZER_NONE;
    return (uint32_t)trie->n_nodes;
}

/* Before anything is added or walked. */
static inline void tokenizer_trie_begin(TokenizerTrie *trie) {
    tokenizer_table_room(&trie->children, 1);
    tokenizer_trie_node(trie);
}

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

/* A heap, the smallest (first, second) on top. */
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
