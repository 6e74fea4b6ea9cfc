/* sentencepiece.h: SentencePiece models (T5's spiece.model) for prepare.c, through the program spm_encode.

   spm_load(path)                 reads the pieces and what a tokenizer.json needs out of the model file (a
                                  protocol buffer; the fields are those of sentencepiece_model.proto)
   spm_write(model, path, extra)  the model as a Unigram tokenizer.json, `extra` sentinels <extra_id_N> after it
   spm_encode(model, text, n)     one document a line in, a line of ids each out, by a process of its own;
                                  free() it

   A line cannot hold a line break, so line breaks inside a document are written as spaces: what the
   normaliser of T5's model (nmt_nfkc) makes of them anyway. */
#ifndef DATA_SENTENCEPIECE_H
#define DATA_SENTENCEPIECE_H

#include <spawn.h>
#include <sys/wait.h>
#include "../gpt/check.h"
#include "../gpt/tokenizer.h"
#include "documents.h"

extern char **environ;

typedef struct {
    const unsigned char *p, *end;
} SpmBytes;

typedef struct {
    SpmBytes text;
    float score;
    int type;
} SpmPiece;

enum { SPM_NORMAL = 1, SPM_UNKNOWN = 2, SPM_CONTROL = 3, SPM_USER = 4, SPM_UNUSED = 5, SPM_BYTE = 6 };

typedef struct {
    const char *path;
    char *bytes; /* of the file; the pieces point into it */
    SpmPiece *pieces;
    size_t n_pieces, room;
    int unknown;       /* its id */
    SpmBytes charsmap; /* the normaliser's table, as Hugging Face's Precompiled takes it */
    bool dummy_prefix, squeeze, byte_fallback;
} SpmModel;

__attribute__((noreturn)) static void spm_damaged(const SpmModel *m) {
    die("'%s' is no SentencePiece model, or it is damaged", m->path);
}

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

/* The next field of a message: its number, its value (varint) or bytes; false at the end. */
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
    }
}

/* Takes the bytes over. */
static SpmModel *spm_parse(const char *path, char *data, size_t n) {
    SpmModel *m = check_malloc(sizeof *m);
    *m = (SpmModel){.path = path, .bytes = data, .unknown = -1, .dummy_prefix = true, .squeeze = true};
    SpmBytes message = {(unsigned char *)data, (unsigned char *)data + n}, bytes;
    uint64_t value;
    for (int number; spm_field(m, &message, &number, &value, &bytes);) {
        if (number == 1) spm_load_piece(m, bytes);
        if (number == 3) spm_load_normalizer(m, bytes);
    }
    if (!m->n_pieces || m->unknown < 0) spm_damaged(m);
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

static void spm_write_string(FILE *file, SpmBytes text) {
    fputc('"', file);
    for (const unsigned char *p = text.p; p < text.end; p++)
        if (*p < 0x20)
            fprintf(file, "\\u%04x", *p);
        else if (*p == '"' || *p == '\\')
            fprintf(file, "\\%c", *p);
        else
            fputc(*p, file);
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

static void spm_write(const SpmModel *m, const char *path, int extra) {
    const char *prepend = m->dummy_prefix ? "always" : "never";
    FILE *file = check_fopen(path, "wb", "choose a folder that can be written");
    fprintf(
        file,
        "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [");
    spm_write_added(file, m, extra);
    fprintf(file, "\n  ],\n  \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [");
    if (m->charsmap.p < m->charsmap.end) {
        fprintf(file, "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"");
        spm_write_base64(file, m->charsmap);
        fprintf(file, "\"}%s", m->squeeze ? ", " : "");
    }
    if (m->squeeze)
        fprintf(file, "{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": true}, "
                      "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \" {2,}\"}, \"content\": \" \"}");
    fprintf(file, "]},\n");
    for (int i = 0; i < 2; i++)
        fprintf(file,
                "  \"%s\": {\"type\": \"Metaspace\", \"replacement\": \"\xE2\x96\x81\", \"prepend_scheme\": "
                "\"%s\", \"split\": %s},\n",
                i ? "decoder" : "pre_tokenizer", prepend, i ? "true" : "false");
    fprintf(file,
            "  \"post_processor\": null,\n  \"model\": {\n    \"type\": \"Unigram\",\n    \"unk_id\": %d,\n  "
            "  \"byte_fallback\": %s,\n    \"vocab\": [",
            m->unknown, m->byte_fallback ? "true" : "false");
    for (size_t id = 0; id < m->n_pieces; id++) {
        fprintf(file, "%s\n      [", id ? "," : "");
        spm_write_string(file, m->pieces[id].text);
        fprintf(file, ", %.9g]", (double)m->pieces[id].score);
    }
    fprintf(file, "\n    ]\n  }\n}\n");
    check_fclose(file, path);
}

/* -----------------------------------------------------------------------------------------------------------
   Encoding by spm_encode */

static pid_t spm_start(const SpmModel *m, int input, int output[2]) {
    char model[4096];
    posix_spawn_file_actions_t actions;
    pid_t child;
    snprintf(model, sizeof model, "--model=%s", m->path);
    char *arguments[] = {(char *)(uintptr_t) "spm_encode", model, (char *)(uintptr_t) "--output_format=id",
                         NULL};
    if (pipe2(output, O_CLOEXEC) != 0) die("cannot make a pipe: %s", strerror(errno));
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);
    int error = posix_spawnp(&child, "spm_encode", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error)
        die("cannot run spm_encode: %s; it comes with the package 'sentencepiece' of your distribution",
            strerror(error));
    close(output[1]);
    return child;
}

static char *spm_encode(const SpmModel *m, const char *text, size_t n) {
    FILE *input = tmpfile(); /* not a pipe: nobody would read the output while the input is written */
    int output[2], status;
    char *ids = NULL;
    size_t room = 0, used = 0;
    if (!input || fwrite(text, 1, n, input) != n || fflush(input) != 0 || fseek(input, 0, SEEK_SET) != 0)
        die("cannot write a temporary file for spm_encode: %s; set TMPDIR to a folder with space",
            strerror(errno));
    pid_t child = spm_start(m, fileno(input), output);
    for (ssize_t got = 1; got != 0;) {
        ids = check_grow(ids, &room, used + 65536, 1);
        got = read(output[0], ids + used, 65535);
        if (got < 0 && errno != EINTR) die("cannot read from spm_encode: %s", strerror(errno));
        if (got > 0) used += (size_t)got;
    }
    close(output[0]), fclose(input);
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        die("spm_encode failed on '%s'; its own words are above", m->path);
    ids[used] = 0;
    return ids;
}

#endif
