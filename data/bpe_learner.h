/* bpe_learner.h: learns a vocabulary for byte-level BPE (byte-pair encoding, as in GPT-2) from text.

   Learning starts with the 256 bytes as tokens and repeats one step: the pair of neighbouring tokens that occurs most
   often in the text becomes a new token, and every occurrence of the pair is replaced by it. Pairs do not reach across
   the pieces into which tokenizer.h cuts a text, so the text itself is not kept: it is enough to count how often each
   distinct piece, here called a word, occurs.

     BpeLearner *learner = bpe_learner_new(threads)
     bpe_learner_add(learner, thread, text, n)
                                      counts the pieces of one document of n bytes. Several threads may call it at
                                      the same time, each with a number of its own from 0 to threads - 1
     Tokenizer *t = bpe_learner_finish(learner, vocab_size)
                                      learns the merges and frees the learner. The caller frees the tokenizer
                                      (tokenizer_free). Dies when vocab_size is not 257 to 65,536

   The token ids are the 256 bytes in GPT-2's order, then the merges in the order learned, and <|endoftext|> as the last
   one. Of pairs that occur equally often, the one with the smaller (left id, right id) is merged first, so the result
   depends neither on the number of threads nor on the order of the documents. The vocabulary is smaller than vocab_size
   when no pair is left that occurs at least twice. Hugging Face's trainer learns the same merges. 32,000 tokens from
   300 MB of text take seconds. */
#ifndef DATA_BPE_LEARNER_H
#define DATA_BPE_LEARNER_H

#include "../gpt/io/tokenizer.h"

/* A longer piece is learned from in parts, because each merge costs time proportional to the length of a word. */
enum { BPE_PIECE_BYTES = 4096 };

typedef struct {
    TokenizerWords *words; /* (threads) each thread counts into its own table */
    int threads;
    unsigned char *classes; /* (TOKENIZER_CODE_POINTS) the class of each Unicode character */
} BpeLearner;

static inline BpeLearner *bpe_learner_new(int threads) {
    BpeLearner *learner = check_calloc(sizeof *learner);
    learner->threads = threads;
    learner->words = check_calloc((size_t)threads * sizeof *learner->words);
    learner->classes = tokenizer_classes();
    return learner;
}

static inline void bpe_learner_add(BpeLearner *learner, int thread, const char *text, size_t n) {
    const unsigned char *p = (const unsigned char *)text, *end = p + n;
    while (p < end) {
        const unsigned char *next = tokenizer_piece(learner->classes, p, end);
        if (next - p > BPE_PIECE_BYTES) next = p + BPE_PIECE_BYTES;
        tokenizer_word(&learner->words[thread], (const char *)p, (size_t)(next - p))->count++;
        p = next;
    }
}

/* ---- merging: each merge visits only the words in which its pair was seen ---- */

typedef struct {
    uint32_t pair; /* left id << 16 | right id */
    int64_t count; /* occurrences in the text */
    /* (n_words) words in which the pair was seen; a later merge may have removed it from some of them. */
    uint32_t *words;
    size_t n_words, room;
} BpePair;

typedef struct {
    const TokenizerWords *words;
    /* The token ids of all words; those of a word begin at the index where its bytes begin. */
    uint16_t *symbols;
    uint32_t *lengths; /* (n_words) how many tokens each word has now */
    BpePair *pairs;    /* (n_pairs) every pair that was ever seen */
    size_t n_pairs, pairs_room;
    TokenizerTable table; /* from left id << 16 | right id to the index in pairs */
    /* Finds the pair with the largest count: items are (~count, pair << 32 | index), with the count at the time of the
       push, so that the smallest item is the largest count and, among equal counts, the smallest pair. */
    TokenizerHeap heap;
} BpeMerger;

/* The entry of a pair of ids (left << 16 | right); a new one has count 0. The pointer is valid until the next call. */

static inline BpePair *bpe_pair(BpeMerger *m, uint32_t pair) {
    tokenizer_table_room(&m->table, m->n_pairs + 1);
    uint64_t *place = tokenizer_find(&m->table, pair, NULL);
    if (*place) return &m->pairs[(uint32_t)*place - 1];
    m->pairs = check_grow(m->pairs, &m->pairs_room, m->n_pairs + 1, sizeof *m->pairs);
    m->pairs[m->n_pairs] = (BpePair){.pair = pair};
    *place = (uint64_t)pair << 32 | ++m->n_pairs;
    return &m->pairs[m->n_pairs - 1];
}

/* Adds `change` to the count of a pair and, when it grows, notes that the pair occurs in `word`. */
static inline void bpe_pair_change(BpeMerger *m, uint32_t left, uint32_t right, int64_t change,
                                   uint32_t word) {
    BpePair *pair = bpe_pair(m, left << 16 | right);
    pair->count += change;
    if (change < 0 || (pair->n_words && pair->words[pair->n_words - 1] == word)) return;
    pair->words = check_grow(pair->words, &pair->room, pair->n_words + 1, sizeof *pair->words);
    pair->words[pair->n_words++] = word;
}

/* Pushes a pair with its present count; one that does not occur twice is never merged. */
static inline void bpe_best_push(BpeMerger *m, uint32_t index) {
    const BpePair *pair = &m->pairs[index];
    if (pair->count < 2) return;
    tokenizer_heap_push(&m->heap, ~(uint64_t)pair->count, (uint64_t)pair->pair << 32 | index);
}

/* Takes the most frequent pair from the heap; NULL when no pair occurs twice. An item whose count has changed since it
   was pushed goes back with the present count. */
static inline BpePair *bpe_best_pop(BpeMerger *m) {
    while (m->heap.n) {
        TokenizerItem top = tokenizer_heap_pop(&m->heap);
        BpePair *pair = &m->pairs[(uint32_t)top.second];
        if (~(uint64_t)pair->count == top.first) return pair;
        bpe_best_push(m, (uint32_t)top.second);
    }
    return NULL;
}

/* Replaces each occurrence of (left, right) in one word by the token `made`. Its neighbours then form other pairs than
   before: the counts of the old ones fall by the word's count, those of the new ones rise by it. */
static inline void bpe_merge_word(BpeMerger *m, uint32_t word, uint32_t left, uint32_t right, uint32_t made) {
    uint16_t *symbols = m->symbols + m->words->words[word].start;
    uint32_t n = m->lengths[word], to = 0;
    int64_t count = m->words->words[word].count;
    for (uint32_t i = 0; i < n; i++) {
        if (i + 1 == n || symbols[i] != left || symbols[i + 1] != right) {
            symbols[to++] = symbols[i];
            continue;
        }
        if (to) {
            bpe_pair_change(m, symbols[to - 1], left, -count, word);
            bpe_pair_change(m, symbols[to - 1], made, count, word);
        }
        if (i + 2 < n) {
            bpe_pair_change(m, right, symbols[i + 2], -count, word);
            bpe_pair_change(m, made, symbols[i + 2], count, word);
        }
        symbols[to++] = (uint16_t)made;
        i++;
    }
    m->lengths[word] = to;
}

/* Every word as its bytes' tokens, and the counts of all pairs in them. */
static inline void bpe_merger_begin(BpeMerger *m, const Tokenizer *t) {
    const TokenizerWords *words = m->words;
    m->symbols = check_calloc(words->n_bytes * sizeof *m->symbols);
    m->lengths = check_calloc(words->n_words * sizeof *m->lengths);
    for (size_t i = 0; i < words->n_bytes; i++) m->symbols[i] = t->byte_id[(unsigned char)words->bytes[i]];
    for (size_t w = 0; w < words->n_words; w++) {
        const uint16_t *symbols = m->symbols + words->words[w].start;
        m->lengths[w] = words->words[w].length;
        for (uint32_t i = 0; i + 1 < m->lengths[w]; i++)
            bpe_pair_change(m, symbols[i], symbols[i + 1], words->words[w].count, (uint32_t)w);
    }
    for (size_t i = 0; i < m->n_pairs; i++) bpe_best_push(m, (uint32_t)i);
}

static inline void bpe_merger_end(BpeMerger *m) {
    for (size_t i = 0; i < m->n_pairs; i++) free(m->pairs[i].words);
    free(m->symbols), free(m->lengths), free(m->pairs), free(m->table.places), free(m->heap.items);
}

/* Learns up to n_merges merges from the words and adds them, and the tokens they make, to the tokenizer. */
static inline void bpe_learn_merges(Tokenizer *t, const TokenizerWords *words, int n_merges) {
    BpeMerger m = {.words = words};
    bpe_merger_begin(&m, t);
    while (t->n_merges < n_merges) {
        BpePair *best = bpe_best_pop(&m);
        if (!best) break;
        uint32_t left = best->pair >> 16, right = best->pair & 0xFFFF, made = 256 + (uint32_t)t->n_merges;
        uint32_t *in = best->words;
        size_t n = best->n_words, first_new = m.n_pairs;
        best->words = NULL, best->n_words = best->room = 0;
        tokenizer_add_merge(t, left, right, made);
        for (size_t i = 0; i < n; i++) bpe_merge_word(&m, in[i], left, right, made);
        free(in);
        bpe_pair(&m, left << 16 | right)->count = 0;
        for (size_t i = first_new; i < m.n_pairs; i++) bpe_best_push(&m, (uint32_t)i);
        const Token *a = &t->tokens[left], *b = &t->tokens[right];
        t->tokens[made] = (Token){.bytes = tokenizer_join(a->bytes, a->length, b->bytes, b->length),
                                  .length = a->length + b->length};
    }
    bpe_merger_end(&m);
}

/* Adds the counts of all threads to the first thread's table, which is returned; the others are emptied. */
static inline TokenizerWords *bpe_learner_join(BpeLearner *learner) {
    TokenizerWords *words = learner->words;
    for (int thread = 1; thread < learner->threads; thread++) {
        TokenizerWords *other = &learner->words[thread];
        for (size_t i = 0; i < other->n_words; i++)
            tokenizer_word(words, other->bytes + other->words[i].start, other->words[i].length)->count +=
                other->words[i].count;
        tokenizer_words_free(other);
    }
    return words;
}

static inline Tokenizer *bpe_learner_finish(BpeLearner *learner, int vocab_size) {
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
    TokenizerWords *words = bpe_learner_join(learner);
    bpe_learn_merges(t, words, vocab_size - 257);
    t->vocab_size = 257 + t->n_merges;
    tokenizer_set(t, t->vocab_size - 1, "<|endoftext|>", 13);
    t->tokens[t->vocab_size - 1].added = t->tokens[t->vocab_size - 1].special = true;
    tokenizer_build(t);
    tokenizer_words_free(words);
    free(learner->words), free(learner->classes), free(learner);
    return t;
}

#endif
