/* sentencepiece.h: turns SentencePiece models (T5's spiece.model, Llama's tokenizer.model) into a tokenizer.json, for
   ./prepare.

     spm_load(path)                  reads the pieces of a model file and whatever else a tokenizer.json needs. The file
                                     is a protocol buffer with the fields of sentencepiece_model.proto. Dies when it is
                                     damaged, and names what a tokenizer.json cannot express
     spm_write(model, file, extra)   writes the tokenizer.json, of type Unigram or BPE, with `extra` tokens <extra_id_N>
                                     after the model's own
     spm_free(model)

   With it gpt/io/tokenizer.h encodes a text to the same ids as SentencePiece's spm_encode. */
#ifndef DATA_SENTENCEPIECE_H
#define DATA_SENTENCEPIECE_H

#include "../gpt/base/check.h"
#include "../gpt/io/shards.h"
#include "../gpt/io/tokenizer.h"

/* Bytes [p, end) of the model file. */
typedef struct {
    const unsigned char *p, *end;
} SpmBytes;

/* The numbers are those of sentencepiece_model.proto: kinds of models, and types of pieces. */
enum { SPM_UNIGRAM = 1, SPM_BPE = 2, SPM_WORD = 3, SPM_CHAR = 4 };
enum { SPM_NORMAL = 1, SPM_UNKNOWN = 2, SPM_CONTROL = 3, SPM_USER = 4, SPM_UNUSED = 5, SPM_BYTE = 6 };
enum { SPM_MAX_BYTES = 4096 }; /* the most bytes of a piece */

typedef struct {
    SpmBytes text;
    float score;
    int type;
} SpmPiece;

typedef struct {
    const char *path; /* owned by the caller of spm_load */
    char *bytes;      /* the file; all SpmBytes point into it */
    SpmPiece *pieces; /* (n_pieces) by id */
    size_t n_pieces, room;
    int kind;
    int unknown;        /* the id of the unknown piece */
    SpmBytes charsmap;  /* the normaliser's table, which Hugging Face's Precompiled takes as it is */
    bool dummy_prefix;  /* a space is put before a text */
    bool squeeze;       /* runs of spaces become one, and those at both ends are removed */
    bool escape;        /* a space is written as U+2581 */
    bool suffix;        /* a space belongs to the word before it */
    bool byte_fallback; /* what no piece covers is encoded as its bytes */
} SpmModel;

__attribute__((noreturn)) static void spm_damaged(const SpmModel *m) {
    die("'%s' is no SentencePiece model, or it is damaged", m->path);
}

/* The next number of a message, of seven bits a byte. */
static uint64_t spm_varint(const SpmModel *m, SpmBytes *b) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (b->p == b->end) break;
        unsigned char byte = *b->p++;
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return value;
    }
    spm_damaged(m);
}

/* The next field of a message: its number, and either its value, when it is a number, or its bytes. False at the end.
   */
static bool spm_field(const SpmModel *m, SpmBytes *b, int *number, uint64_t *value, SpmBytes *bytes) {
    if (b->p == b->end) return false;
    uint64_t key = spm_varint(m, b), n = 0;
    *number = (int)(key >> 3 & 0xFFFFFF);
    *value = 0;
    switch (key & 7) {
    case 0: *value = spm_varint(m, b); break;
    case 1: n = 8; break;
    case 2: n = spm_varint(m, b); break;
    case 5: n = 4; break;
    default: spm_damaged(m);
    }
    if (n > (uint64_t)(b->end - b->p)) spm_damaged(m);
    *bytes = (SpmBytes){b->p, b->p + n};
    b->p += n;
    return true;
}

static void spm_load_piece(SpmModel *m, SpmBytes message) {
    SpmPiece piece = {.type = SPM_NORMAL};
    SpmBytes bytes;
    uint64_t value;
    for (int number; spm_field(m, &message, &number, &value, &bytes);) {
        if (number == 1) piece.text = bytes;
        if (number == 2 && bytes.end - bytes.p == 4) {
            uint32_t bits = shard_u32(bytes.p);
            memcpy(&piece.score, &bits, 4);
        }
        if (number == 3) piece.type = (int)value;
    }
    if (piece.type == SPM_UNKNOWN) m->unknown = (int)m->n_pieces;
    m->byte_fallback |= piece.type == SPM_BYTE;
    m->pieces = check_grow(m->pieces, &m->room, m->n_pieces + 1, sizeof *m->pieces);
    m->pieces[m->n_pieces++] = piece;
}

static void spm_load_normalizer(SpmModel *m, SpmBytes message) {
    SpmBytes bytes;
    uint64_t value;
    for (int number; spm_field(m, &message, &number, &value, &bytes);) {
        if (number == 2) m->charsmap = bytes;
        if (number == 3) m->dummy_prefix = value;
        if (number == 4) m->squeeze = value;
        if (number == 5) m->escape = value;
    }
}

static void spm_load_trainer(SpmModel *m, SpmBytes message) {
    SpmBytes bytes;
    uint64_t value;
    for (int number; spm_field(m, &message, &number, &value, &bytes);) {
        if (number == 3) m->kind = (int)value;
        if (number == 24) m->suffix = value;
    }
}

/* Ends the program: the model cannot be expressed as a tokenizer.json. */
__attribute__((noreturn, format(printf, 2, 3))) static void spm_refuse(const SpmModel *m, const char *format,
                                                                       ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    die("the SentencePiece model '%s' %s; a tokenizer.json cannot say that: take another model", m->path,
        text);
}

/* Dies when the model has something that a tokenizer.json cannot express. */
static void spm_check(const SpmModel *m) {
    if (m->kind != SPM_UNIGRAM && m->kind != SPM_BPE)
        spm_refuse(m, "is of the kind '%s', not unigram or bpe",
                   m->kind == SPM_WORD   ? "word"
                   : m->kind == SPM_CHAR ? "char"
                                         : "unknown");
    if (!m->escape) spm_refuse(m, "does not write spaces as U+2581 (escape_whitespaces)");
    if (m->suffix) spm_refuse(m, "puts spaces behind words (treat_whitespace_as_suffix)");
    for (size_t id = 0; id < m->n_pieces; id++) {
        const SpmPiece *piece = &m->pieces[id];
        int width = (int)(piece->text.end - piece->text.p);
        if (width > SPM_MAX_BYTES) spm_refuse(m, "has a piece of %d bytes, number %zu", width, id);
        if (!width || memchr(piece->text.p, 0, (size_t)width))
            spm_refuse(m, "has an empty piece, number %zu", id);
        if (piece->type == SPM_UNUSED)
            spm_refuse(m, "has a piece marked unused, '%.*s'", width, (const char *)piece->text.p);
        if (m->kind == SPM_BPE && memchr(piece->text.p, ' ', (size_t)width))
            spm_refuse(m, "has a space in the piece '%.*s'", width, (const char *)piece->text.p);
    }
}

/* The model in n bytes of a file, which the model then owns. */
static SpmModel *spm_parse(const char *path, char *data, size_t n) {
    SpmModel *m = check_calloc(sizeof *m);
    *m = (SpmModel){.path = path,
                    .bytes = data,
                    .kind = SPM_UNIGRAM,
                    .unknown = -1,
                    .dummy_prefix = true,
                    .squeeze = true,
                    .escape = true};
    SpmBytes message = {(unsigned char *)data, (unsigned char *)data + n}, bytes;
    uint64_t value;
    for (int number; spm_field(m, &message, &number, &value, &bytes);) {
        if (number == 1) spm_load_piece(m, bytes);
        if (number == 2) spm_load_trainer(m, bytes);
        if (number == 3) spm_load_normalizer(m, bytes);
    }
    if (!m->n_pieces || m->unknown < 0) spm_damaged(m);
    spm_check(m);
    return m;
}

static SpmModel *spm_load(const char *path) {
    size_t n;
    char *data = check_file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, &n, "name a SentencePiece model");
    return spm_parse(path, data, n);
}

static void spm_free(SpmModel *m) { free(m->bytes), free(m->pieces), free(m); }

/* -----------------------------------------------------------------------------------------------------------
   tokenizer.json */

static void spm_write_text(FILE *file, SpmBytes text) {
    for (const unsigned char *p = text.p; p < text.end; p++)
        if (*p < 0x20)
            fprintf(file, "\\u%04x", *p);
        else if (*p == '"' || *p == '\\')
            fprintf(file, "\\%c", *p);
        else
            fputc(*p, file);
}

static void spm_write_string(FILE *file, SpmBytes text) {
    fputc('"', file), spm_write_text(file, text), fputc('"', file);
}

static void spm_write_pair(FILE *file, SpmBytes left, SpmBytes right) {
    fputc('"', file), spm_write_text(file, left), fputc(' ', file), spm_write_text(file, right),
        fputc('"', file);
}

static void spm_write_base64(FILE *file, SpmBytes b) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (const unsigned char *p = b.p; p < b.end; p += 3) {
        ptrdiff_t left = b.end - p;
        uint32_t three = (uint32_t)p[0] << 16 | (left > 1 ? (uint32_t)p[1] << 8 : 0) | (left > 2 ? p[2] : 0);
        for (int i = 0; i < 4; i++) fputc(i <= left ? digits[three >> (18 - 6 * i) & 63] : '=', file);
    }
}

static void spm_write_added(FILE *file, const SpmModel *m, int extra) {
    const char *comma = "";
    for (size_t id = 0; id < m->n_pieces; id++) {
        int type = m->pieces[id].type;
        if (type != SPM_CONTROL && type != SPM_USER && type != SPM_UNKNOWN) continue;
        fprintf(file, "%s\n    {\"id\": %zu, \"content\": ", comma, id);
        spm_write_string(file, m->pieces[id].text);
        fprintf(file,
                ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, "
                "\"special\": %s}",
                type == SPM_USER ? "false" : "true");
        comma = ",";
    }
    for (int i = 0; i < extra; i++, comma = ",") /* T5 counts them down */
        fprintf(file,
                "%s\n    {\"id\": %zu, \"content\": \"<extra_id_%d>\", \"single_word\": false, \"lstrip\": "
                "false, "
                "\"rstrip\": false, \"normalized\": false, \"special\": true}",
                comma, m->n_pieces + (size_t)i, extra - 1 - i);
}

static void spm_write_rules(FILE *file, const SpmModel *m) {
    const char *prepend = m->dummy_prefix ? "always" : "never";
    fprintf(file, "\n  ],\n  \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [");
    if (m->charsmap.p < m->charsmap.end) {
        fprintf(file, "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"");
        spm_write_base64(file, m->charsmap);
        fprintf(file, "\"}%s", m->squeeze ? ", " : "");
    }
    if (m->squeeze)
        fprintf(file, "{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": true}, "
                      "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \" {2,}\"}, \"content\": \" \"}");
    fprintf(file,
            "]},\n  \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"" PIECES_SPACE
            "\", \"prepend_scheme\": \"%s\", \"split\": false},\n  \"post_processor\": null,\n",
            prepend);
    if (!m->byte_fallback)
        fprintf(file,
                "  \"decoder\": {\"type\": \"Metaspace\", \"replacement\": \"" PIECES_SPACE
                "\", \"prepend_scheme\": \"%s\", \"split\": true},\n",
                prepend);
    else
        fprintf(file,
                "  \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": "
                "{\"String\": \"" PIECES_SPACE "\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, "
                "{\"type\": \"Fuse\"}%s]},\n",
                m->dummy_prefix ? ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}"
                                : "");
}

static void spm_write_unigram(FILE *file, const SpmModel *m) {
    fprintf(file,
            "  \"model\": {\n    \"type\": \"Unigram\",\n    \"unk_id\": %d,\n    \"byte_fallback\": %s,\n"
            "    \"vocab\": [",
            m->unknown, m->byte_fallback ? "true" : "false");
    for (size_t id = 0; id < m->n_pieces; id++) {
        fprintf(file, "%s\n      [", id ? "," : "");
        spm_write_string(file, m->pieces[id].text);
        fprintf(file, ", %.9g]", (double)m->pieces[id].score);
    }
    fprintf(file, "\n    ]\n  }\n}\n");
}

/* A piece that is made by merging. The pieces are sorted by score: the one with the highest score is merged first. */
typedef struct {
    float score;
    uint32_t id;
} SpmRank;

static int spm_compare_ranks(const void *a, const void *b) {
    const SpmRank *x = a, *y = b;
    return x->score != y->score ? (x->score > y->score ? -1 : 1) : x->id < y->id ? -1 : x->id > y->id;
}

/* The id of the piece with the bytes [p, end); TOKENIZER_NONE: there is none. */
static uint32_t spm_find(const TokenizerTrie *trie, const unsigned char *p, const unsigned char *end) {
    uint32_t node = TOKENIZER_ROOT;
    while (p < end && node) node = tokenizer_child(trie, node, *p++);
    return node ? trie->ids[node] : TOKENIZER_NONE;
}

/* Writes a merge for each way in which a piece is two other pieces, one after the other. */
static void spm_write_merge(FILE *file, const SpmModel *m, const TokenizerTrie *trie, uint32_t id,
                            const char **comma) {
    SpmBytes text = m->pieces[id].text;
    for (const unsigned char *at = text.p, *next; at < text.end; at = next) {
        next = at + pieces_character((const char *)at, (size_t)(text.end - at));
        /* spm_encode would make the piece even from a character that is no piece itself; merges cannot. */
        if (spm_find(trie, at, next) == TOKENIZER_NONE)
            spm_refuse(m, "has the piece '%.*s' but not each of its characters", (int)(text.end - text.p),
                       (const char *)text.p);
        uint32_t left = spm_find(trie, text.p, next), right = spm_find(trie, next, text.end);
        if (left == TOKENIZER_NONE || right == TOKENIZER_NONE) continue;
        fprintf(file, "%s\n      ", *comma), *comma = ",";
        spm_write_pair(file, m->pieces[left].text, m->pieces[right].text);
    }
}

static void spm_write_merges(FILE *file, const SpmModel *m) {
    TokenizerTrie trie = {0};
    SpmRank *ranks = check_calloc(m->n_pieces * sizeof *ranks);
    size_t n = 0;
    const char *comma = "";
    tokenizer_trie_begin(&trie);
    for (uint32_t id = 0; id < m->n_pieces; id++) {
        SpmBytes text = m->pieces[id].text;
        size_t width = (size_t)(text.end - text.p);
        if (m->pieces[id].type != SPM_NORMAL && m->pieces[id].type != SPM_USER) continue;
        tokenizer_trie_add(&trie, (const char *)text.p, width, id);
        if (m->pieces[id].type == SPM_NORMAL && width > pieces_character((const char *)text.p, width))
            ranks[n++] = (SpmRank){m->pieces[id].score, id};
    }
    if (n) qsort(ranks, n, sizeof *ranks, spm_compare_ranks);
    for (size_t i = 0; i < n; i++) {
        if (i && ranks[i].score == ranks[i - 1].score)
            spm_refuse(m, "has two pieces of the same score, %u and %u", ranks[i - 1].id, ranks[i].id);
        spm_write_merge(file, m, &trie, ranks[i].id, &comma);
    }
    tokenizer_trie_free(&trie), free(ranks);
}

static void spm_write_bpe(FILE *file, const SpmModel *m) {
    fprintf(file, "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": ");
    spm_write_string(file, m->pieces[m->unknown].text);
    fprintf(file,
            ",\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    "
            "\"fuse_unk\": true,\n"
            "    \"byte_fallback\": %s,\n    \"vocab\": {",
            m->byte_fallback ? "true" : "false");
    for (size_t id = 0; id < m->n_pieces; id++) {
        fprintf(file, "%s\n      ", id ? "," : "");
        spm_write_string(file, m->pieces[id].text);
        fprintf(file, ": %zu", id);
    }
    fprintf(file, "\n    },\n    \"merges\": [");
    spm_write_merges(file, m);
    fprintf(file, "\n    ]\n  }\n}\n");
}

static void spm_write(const SpmModel *m, FILE *file, int extra) {
    fprintf(
        file,
        "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [");
    spm_write_added(file, m, extra);
    spm_write_rules(file, m);
    if (m->kind == SPM_BPE)
        spm_write_bpe(file, m);
    else
        spm_write_unigram(file, m);
}

#endif
