/* manifest.h: shards.json, the manifest of a finished folder, and the fingerprint by which a folder is recognised.

   The fingerprint is made of the CRC-32 of the options that decide the output, of the list of inputs and of the
   tokenizer. State and manifest hold it, so that a second call of ./prepare sees whether a folder was made, or begun,
   by the same command from the same inputs.

     make_fingerprint(run, path)            sets run->fingerprint; `path` is tokenizer.json in the folder, read
                                            unless its text is known
     write_manifest(run, path, tokenizer)   writes the manifest; dies when tokenizer.json has changed meanwhile
     die_of_difference(run, json, found, has_manifest)
                                            ends the program: the folder's state or manifest, `json`, has another
                                            fingerprint, `found`; says what differs
     file_crc32(path)                       the CRC-32 of a file; dies when it cannot be read */
#ifndef DATA_MANIFEST_H
#define DATA_MANIFEST_H

#include "rounds.h"

static uint32_t file_crc32(const char *path) {
    size_t n;
    char *text = check_file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, &n, "start over with --overwrite");
    uint32_t crc = checksum_crc32(0, text, n);
    free(text);
    return crc;
}

/* The CRC-32 of a JSON value's text; frees the value. */
static uint32_t json_crc32(cJSON *json) {
    char *text = cJSON_PrintUnformatted(json);
    if (!text) die("out of memory");
    uint32_t crc = checksum_crc32(0, text, strlen(text));
    cJSON_free(text), cJSON_Delete(json);
    return crc;
}

/* A file of the inputs as manifest and fingerprint describe it; the caller frees it. */
static cJSON *source_to_json(const Source *source) {
    char crc[16], modified[48];
    cJSON *json = cJSON_CreateObject();
    checksum_crc32_text(crc, source->crc);
    snprintf(modified, sizeof modified, "%lld.%09lld", (long long)source->modified,
             (long long)source->modified_nano);
    cJSON_AddStringToObject(json, "path", source->path);
    cJSON_AddNumberToObject(json, "bytes", (double)source->bytes);
    cJSON_AddStringToObject(json, source->modified ? "samples_crc32" : "crc32", crc);
    if (source->modified) cJSON_AddStringToObject(json, "modified", modified);
    return json;
}

/* All files of the inputs, as an array that the caller frees. */
static cJSON *sources_to_json(const PrepareRun *run) {
    cJSON *sources = cJSON_CreateArray();
    for (int s = 0; s < run->in.n_sources; s++)
        cJSON_AddItemToArray(sources, source_to_json(&run->in.sources[s]));
    return sources;
}

static void make_fingerprint(PrepareRun *run, const char *tokenizer) {
    cJSON *inputs = cJSON_CreateObject();
    cJSON_AddItemToObject(inputs, "sources", sources_to_json(run));
    if (run->in.n_sources <= 1024 && !run->kept_sources) run->kept_sources = sources_to_json(run);
    cJSON_AddNumberToObject(inputs, "kept", run->in.kept_crc);
    uint32_t crc = run->tokenizer_text ? checksum_crc32(0, run->tokenizer_text, run->tokenizer_bytes)
                                       : file_crc32(tokenizer);
    snprintf(run->fingerprint.text, sizeof run->fingerprint.text, "2-%08x-%08x-%08x",
             json_crc32(deciding_options()), json_crc32(inputs), crc);
}

static void write_manifest(PrepareRun *run, const char *path, const char *tokenizer) {
    cJSON *json = cJSON_CreateObject(), *item = cJSON_CreateObject();
    char crc[16];
    checksum_crc32_text(crc, file_crc32(tokenizer));
    if (strcmp(crc, strrchr(run->fingerprint.text, '-') + 1) != 0)
        die("'%s' changed while the shards were written; start over with --overwrite", tokenizer);
    cJSON_AddStringToObject(json, "format",
                            "llm.c shards, version 1: 256 int32 of header, then uint16 tokens");
    cJSON_AddStringToObject(json, "fingerprint", run->fingerprint.text);
    cJSON_AddItemToObject(json, "tokenizer", item);
    cJSON_AddStringToObject(item, "file", "tokenizer.json");
    cJSON_AddStringToObject(item, "crc32", crc);
    cJSON_AddNumberToObject(item, "vocab_size", tokenizer_vocab_size(run->tokenizer));
    cJSON_AddNumberToObject(item, "end_of_text", tokenizer_end_of_text(run->tokenizer));
    for (int split = 0; split < 2; split++)
        cJSON_AddItemToObject(json, run->writers[split].prefix, split_to_json(&run->writers[split]));
    totals_to_json(&run->totals, json);
    cJSON_AddItemToObject(json, "sources", sources_to_json(run));
    cJSON_AddItemToObject(json, "options", deciding_options());
    char *text = cJSON_Print(json);
    if (!text) die("out of memory");
    write_file(path, text, strlen(text));
    cJSON_free(text);
    cJSON_Delete(json);
}

/* Writes to `text` the first difference between the inputs and the list `was`, which a manifest or state holds, in
   words that follow "from other inputs". */
static void source_difference(const PrepareRun *run, const cJSON *was, char *text, size_t size) {
    const cJSON *now;
    cJSON *all = sources_to_json(run);
    *text = 0;
    if (cJSON_GetArraySize(was) != cJSON_GetArraySize(all))
        snprintf(text, size, " (%d files, not %d)", cJSON_GetArraySize(was), cJSON_GetArraySize(all));
    const cJSON *then = was ? was->child : NULL;
    for (now = all->child; now && then && !*text; now = now->next, then = then->next) {
        const char *path = json_text(now, "path"), *other = json_text(then, "path");
        const char *modified = json_text(then, "modified");
        if (cJSON_Compare(now, then, true)) continue;
        const char *sum = json_text(now, modified ? "samples_crc32" : "crc32");
        const char *other_sum = json_text(then, modified ? "samples_crc32" : "crc32");
        if (!other || strcmp(path, other) != 0)
            snprintf(text, size, " ('%.200s', not '%.200s')", other ? other : "?", path);
        else if (json_number(now, "bytes") != json_number(then, "bytes"))
            snprintf(text, size, " ('%.200s' had %.0f bytes, now %.0f)", path, json_number(then, "bytes"),
                     json_number(now, "bytes"));
        else if (!sum || !other_sum || strcmp(sum, other_sum) != 0)
            snprintf(text, size, " (the content of '%.200s' has changed)", path);
        else
            snprintf(text, size,
                     " ('%.200s' has its size and, where it was looked at, its content, but was changed at "
                     "another time; if "
                     "you know that it is the same: touch -d @%.40s FILE)",
                     path, modified ? modified : "?");
    }
    cJSON_Delete(all);
}

__attribute__((noreturn)) static void die_of_difference(const PrepareRun *run, const cJSON *json,
                                                        const char *found, bool has_manifest) {
    char text[1024] = "";
    const char *want = run->fingerprint.text;
    const bool known = found && strlen(found) == strlen(want) && strncmp(found, "2-", 2) == 0;
    const bool options = known && strncmp(found + 2, want + 2, 8) != 0,
               inputs = known && strncmp(found + 11, want + 11, 8) != 0;
    if (inputs) source_difference(run, cJSON_GetObjectItemCaseSensitive(json, "sources"), text, sizeof text);
    die("'%s' holds %s %s%s; choose another --out, or add --overwrite", run->options->out,
        has_manifest ? "shards made" : "the unfinished shards of a run",
        !known    ? "by another version of ./prepare, or its manifest is damaged"
        : options ? inputs ? "with other options and from other inputs" : "with other options"
        : inputs  ? "from other inputs"
                  : "with another tokenizer",
        text);
}

#endif
