/* trainer_files.h: reading and writing the trainer's files in ways that only tests need.

     safetensors_load(path, &tensors, &count, error)
                                                all tensors of a file, in the order of the data, with names and data
                                                that safetensors_free(tensors, count) frees; false with a sentence in
                                                error
     safetensors_find(tensors, count, name)     one of them, or NULL
     checkpoint_verify(folder, needed, error)   checkpoint_verify_share as one process alone calls it
     shard_write(path, tokens, n)               writes a shard of n tokens at once
     tokenizer_save(t, path)                    writes a tokenizer.json
     tokenizer_split(t, text, n)                the length in bytes of a text's first piece; 0 for an empty text */
#ifndef TESTS_TRAINER_FILES_H
#define TESTS_TRAINER_FILES_H

#include "../gpt/io/checkpoint.h"
#include "../gpt/io/safetensors.h"
#include "../gpt/io/shards.h"
#include "../gpt/io/tokenizer.h"

static inline void safetensors_free(NamedTensor *tensors, int count) {
    for (int i = 0; tensors && i < count; i++) {
        free((char *)(uintptr_t)tensors[i].name);
        free(tensors[i].data);
    }
    free(tensors);
}

static inline bool safetensors_load(const char *path, NamedTensor **tensors, int *count, char *error) {
    SafetensorsFile f;
    bool ok = safetensors_open(&f, path, error);
    *tensors = NULL, *count = 0;
    if (ok) *tensors = check_calloc((size_t)f.count * sizeof **tensors);
    for (int i = 0; ok && i < f.count; i++) {
        const SafetensorsEntry *e = &f.entries[i];
        NamedTensor *t = &(*tensors)[(*count)++];
        size_t name = strlen(e->name) + 1;
        *t = (NamedTensor){.name = memcpy(check_calloc(name), e->name, name), .dimensions = e->dimensions};
        memcpy(t->shape, e->shape, sizeof t->shape);
        t->dtype = e->dtype;
        t->data =
            check_calloc((size_t)((e->end - e->begin) / safetensors_dtypes[e->dtype].bytes) * sizeof(float));
        ok = safetensors_read_data(&f, e, t->data, error);
    }
    safetensors_close(&f);
    if (!ok) safetensors_free(*tensors, *count), *tensors = NULL, *count = 0;
    return ok;
}

static inline NamedTensor *safetensors_find(NamedTensor *tensors, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (strcmp(tensors[i].name, name) == 0) return &tensors[i];
    return NULL;
}

static inline bool checkpoint_verify(const char *folder, const char *const *needed, char *error) {
    return checkpoint_verify_share(folder, needed, 0, 1, error);
}

static inline void shard_write(const char *path, const uint16_t *tokens, uint64_t n_tokens) {
    unsigned char header[SHARD_HEADER_BYTES], pair[2];
    FILE *file = check_fopen(path, "wb", "choose a folder that can be written");
    shard_header(header, n_tokens);
    check_fwrite(header, 1, sizeof header, file, path);
    for (uint64_t i = 0; i < n_tokens; i++) {
        pair[0] = (unsigned char)tokens[i], pair[1] = (unsigned char)(tokens[i] >> 8);
        check_fwrite(pair, 1, 2, file, path);
    }
    check_fclose(file, path);
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

static inline size_t tokenizer_split(const Tokenizer *t, const char *text, size_t n) {
    const unsigned char *p = (const unsigned char *)text;
    return n ? (size_t)(tokenizer_piece(t->classes, p, p + n) - p) : 0;
}

#endif
