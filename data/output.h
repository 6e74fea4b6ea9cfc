/* output.h: what prepare.c writes: shards, the manifest, and the state an interrupted run goes on from.

   ShardWriter   a split ("train" or "val"): tokens into PREFIX_000000.bin.part, renamed to .bin when full
   Totals        what was read and written, for the manifest and the progress line
   state_save    writes prepare.state.json: everything before it is on disk, so killed at any moment the run
                 goes on from the last one: shards are cut back to it, readers go to their places
   A folder is finished when shards.json is there; prepare.state.json is gone then. */
#ifndef DATA_OUTPUT_H
#define DATA_OUTPUT_H

#include <cjson/cJSON.h>
#include "../gpt/files.h"
#include "../gpt/shards.h"
#include "documents.h"

typedef struct {
    uint64_t tokens;
    uint32_t crc; /* of the tokens while the shard grows, of the whole file when it is finished */
} ShardRecord;

typedef struct {
    const char *folder, *prefix; /* "train" or "val" */
    uint64_t shard_tokens;       /* tokens of a full shard */
    ShardRecord *shards;         /* (n_shards), the last one growing while file >= 0 */
    size_t n_shards, room;
    uint64_t tokens, documents;
    int file; /* -1: none open */
} ShardWriter;

typedef struct {
    int64_t lines, bad_lines, empty, not_utf8, text_bytes;
} Totals;

typedef struct {
    char fingerprint[16];
    Place places[SLOTS];
    int next_job;
} Progress;

static char *output_path(const char *folder, const char *format, ...) __attribute__((format(printf, 2, 3)));
static char *output_path(const char *folder, const char *format, ...) {
    char name[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    return shard_join(folder, name);
}

static char *shard_path(const ShardWriter *w, size_t shard, const char *ending) {
    return output_path(w->folder, "%s_%06zu.bin%s", w->prefix, shard, ending);
}

static void write_all(int file, const void *from, size_t n, const char *path) {
    for (const char *p = from; n;) {
        ssize_t done = write(file, p, n);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0)
            die("cannot write '%s': %s; free some space or choose another folder, then run the same command "
                "again",
                path, strerror(errno));
        p += done, n -= (size_t)done;
    }
}

static void rename_file(const char *from, const char *to) {
    if (rename(from, to) != 0) die("cannot rename '%s' to '%s': %s", from, to, strerror(errno));
}

/* Writes a small file whole or not at all, and to the disk. */
static void write_file(const char *path, const char *text) {
    char error[FILE_ERROR_SIZE];
    if (!file_write_whole(path, text, strlen(text), error)) die("%s", error);
}

/* -----------------------------------------------------------------------------------------------------------
   Shards */

static void shard_open(ShardWriter *w, bool fresh) {
    if (fresh) {
        w->shards = check_grow(w->shards, &w->room, w->n_shards + 1, sizeof *w->shards);
        w->shards[w->n_shards++] = (ShardRecord){0, 0};
    }
    char *path = shard_path(w, w->n_shards - 1, ".part");
    w->file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (fresh ? O_TRUNC : 0), 0666);
    if (w->file < 0) die("cannot write '%s': %s", path, strerror(errno));
    unsigned char header[SHARD_HEADER_BYTES] = {0}; /* filled in when the shard is finished */
    if (fresh) write_all(w->file, header, sizeof header, path);
    free(path);
}

static void shard_finish(ShardWriter *w) {
    if (w->file < 0) return;
    ShardRecord *shard = &w->shards[w->n_shards - 1];
    char *part = shard_path(w, w->n_shards - 1, ".part"), *path = shard_path(w, w->n_shards - 1, "");
    unsigned char header[SHARD_HEADER_BYTES];
    shard_header(header, shard->tokens);
    shard->crc =
        (uint32_t)crc32_combine(crc32(0, header, sizeof header), shard->crc, (z_off_t)(2 * shard->tokens));
    if (pwrite(w->file, header, sizeof header, 0) != (ssize_t)sizeof header || fsync(w->file) != 0 ||
        close(w->file) != 0)
        die("cannot write '%s': %s; free some space, then run the same command again", part, strerror(errno));
    w->file = -1;
    rename_file(part, path);
    free(part), free(path);
}

static void shard_put(ShardWriter *w, uint16_t *tokens, size_t n) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    for (size_t i = 0; i < n; i++) tokens[i] = (uint16_t)(tokens[i] << 8 | tokens[i] >> 8);
#endif
    w->tokens += n;
    while (n) {
        if (w->file < 0) shard_open(w, true);
        ShardRecord *shard = &w->shards[w->n_shards - 1];
        uint64_t room = w->shard_tokens - shard->tokens;
        size_t part = n < room ? n : (size_t)room;
        char *path = shard_path(w, w->n_shards - 1, ".part");
        write_all(w->file, tokens, 2 * part, path);
        free(path);
        shard->crc = (uint32_t)crc32_z(shard->crc, (const unsigned char *)tokens, 2 * part);
        shard->tokens += part;
        tokens += part, n -= part;
        if (shard->tokens == w->shard_tokens) shard_finish(w);
    }
}

/* Removes what lies beyond the first `keep` shards of a split, finished or not. */
static void remove_shards(const ShardWriter *w, size_t keep) {
    DIR *folder = opendir(w->folder);
    if (!folder) die("cannot open the folder '%s': %s", w->folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(folder));) {
        size_t shard, n = strlen(w->prefix);
        char ending[8];
        if (strncmp(entry->d_name, w->prefix, n) != 0 ||
            sscanf(entry->d_name + n, "_%6zu.%7s", &shard, ending) != 2)
            continue;
        if (shard < keep || strncmp(ending, "bin", 3) != 0) continue;
        char *path = output_path(w->folder, "%s", entry->d_name);
        if (unlink(path) != 0) die("cannot remove '%s': %s", path, strerror(errno));
        free(path);
    }
    closedir(folder);
}

/* Puts the files back to what the state says; false when that is not possible. */
static bool shard_resume(ShardWriter *w, bool growing) {
    remove_shards(w, w->n_shards);
    for (size_t s = 0; s < w->n_shards; s++) {
        struct stat status;
        bool last = growing && s + 1 == w->n_shards;
        char *path = shard_path(w, s, ""), *part = shard_path(w, s, ".part");
        if (last && stat(part, &status) != 0 && stat(path, &status) == 0) rename_file(path, part);
        int64_t want = SHARD_HEADER_BYTES + 2 * (int64_t)w->shards[s].tokens;
        bool good = stat(last ? part : path, &status) == 0 &&
                    (last ? status.st_size >= want : status.st_size == want);
        if (good && last) good = truncate(part, want) == 0;
        free(path), free(part);
        if (!good) return false;
    }
    if (growing) {
        shard_open(w, false);
        if (lseek(w->file, 0, SEEK_END) < 0) return false;
    }
    return true;
}

/* -----------------------------------------------------------------------------------------------------------
   The state of a run that is not finished, and the manifest of one that is */

static cJSON *split_to_json(const ShardWriter *w) {
    cJSON *json = cJSON_CreateObject(), *shards = cJSON_CreateArray();
    cJSON_AddNumberToObject(json, "tokens", (double)w->tokens);
    cJSON_AddNumberToObject(json, "documents", (double)w->documents);
    cJSON_AddItemToObject(json, "shards", shards);
    for (size_t s = 0; s < w->n_shards; s++) {
        char name[64], crc[16];
        cJSON *shard = cJSON_CreateObject();
        snprintf(name, sizeof name, "%s_%06zu.bin", w->prefix, s);
        snprintf(crc, sizeof crc, "%08x", w->shards[s].crc);
        cJSON_AddStringToObject(shard, "file", name);
        cJSON_AddNumberToObject(shard, "tokens", (double)w->shards[s].tokens);
        cJSON_AddStringToObject(shard, "crc32", crc);
        cJSON_AddItemToArray(shards, shard);
    }
    return json;
}

static double json_number(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) ? item->valuedouble : -1;
}

static bool split_from_json(ShardWriter *w, const cJSON *json) {
    const cJSON *shard;
    if (!cJSON_IsObject(json)) return false;
    w->tokens = (uint64_t)json_number(json, "tokens");
    w->documents = (uint64_t)json_number(json, "documents");
    cJSON_ArrayForEach(shard, cJSON_GetObjectItemCaseSensitive(json, "shards")) {
        const char *crc = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(shard, "crc32"));
        double tokens = json_number(shard, "tokens");
        if (!crc || tokens < 0) return false;
        w->shards = check_grow(w->shards, &w->room, w->n_shards + 1, sizeof *w->shards);
        w->shards[w->n_shards++] = (ShardRecord){(uint64_t)tokens, (uint32_t)strtoul(crc, NULL, 16)};
    }
    return shard_resume(w, cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "growing")));
}

static const struct {
    const char *name;
    size_t offset;
} totals_table[] = {{"lines", offsetof(Totals, lines)},
                    {"bad_lines", offsetof(Totals, bad_lines)},
                    {"empty_documents", offsetof(Totals, empty)},
                    {"not_utf8_documents", offsetof(Totals, not_utf8)},
                    {"text_bytes", offsetof(Totals, text_bytes)}};

static void totals_to_json(const Totals *totals, cJSON *json) {
    for (size_t i = 0; i < sizeof totals_table / sizeof *totals_table; i++)
        cJSON_AddNumberToObject(json, totals_table[i].name,
                                (double)*(const int64_t *)((const char *)totals + totals_table[i].offset));
}

static void state_save(const ShardWriter writers[2], const Totals *totals, const Progress *progress) {
    cJSON *json = cJSON_CreateObject(), *places = cJSON_CreateArray();
    cJSON_AddStringToObject(json, "fingerprint", progress->fingerprint);
    cJSON_AddNumberToObject(json, "next_job", progress->next_job);
    for (int s = 0; s < SLOTS; s++) {
        const Place *place = &progress->places[s];
        double numbers[4] = {place->job, place->source, (double)place->offset, (double)place->line};
        cJSON_AddItemToArray(places, cJSON_CreateDoubleArray(numbers, 4));
    }
    cJSON_AddItemToObject(json, "places", places);
    totals_to_json(totals, json);
    for (int split = 0; split < 2; split++) {
        if (writers[split].file >= 0) fdatasync(writers[split].file);
        cJSON *item = split_to_json(&writers[split]);
        cJSON_AddBoolToObject(item, "growing", writers[split].file >= 0);
        cJSON_AddItemToObject(json, writers[split].prefix, item);
    }
    int folder =
        open(writers->folder, O_RDONLY | O_CLOEXEC); /* new and renamed shards must be found again, too */
    if (folder >= 0) fsync(folder), close(folder);
    char *text = cJSON_PrintUnformatted(json), *path = output_path(writers->folder, "prepare.state.json");
    if (!text) die("out of memory");
    write_file(path, text);
    free(path), cJSON_free(text);
    cJSON_Delete(json);
}

/* True when the folder holds a state with this fingerprint and its files fit it; the writers then stand
   there. */
static bool state_load(ShardWriter writers[2], Totals *totals, Progress *progress) {
    size_t n;
    char *path = output_path(writers->folder, "prepare.state.json"), *text;
    text = check_file_read_if(path, FILE_JSON_LIMIT, &n, "start over with --overwrite");
    free(path);
    if (!text) return false;
    cJSON *json = cJSON_ParseWithLength(text, n);
    const char *found = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "fingerprint"));
    const cJSON *places = cJSON_GetObjectItemCaseSensitive(json, "places"), *place;
    bool good = found && strcmp(found, progress->fingerprint) == 0 && cJSON_GetArraySize(places) == SLOTS;
    int s = 0;
    if (good) progress->next_job = (int)json_number(json, "next_job");
    if (good) cJSON_ArrayForEach(place, places) {
            double at[4];
            for (int i = 0; i < 4; i++) at[i] = cJSON_GetNumberValue(cJSON_GetArrayItem(place, i));
            progress->places[s++] = (Place){(int)at[0], (int)at[1], (int64_t)at[2], (int64_t)at[3]};
        }
    for (size_t i = 0; i < sizeof totals_table / sizeof *totals_table && good; i++)
        *(int64_t *)((char *)totals + totals_table[i].offset) =
            (int64_t)json_number(json, totals_table[i].name);
    for (int split = 0; split < 2 && good; split++)
        good =
            split_from_json(&writers[split], cJSON_GetObjectItemCaseSensitive(json, writers[split].prefix));
    cJSON_Delete(json);
    free(text);
    return good;
}

#endif
