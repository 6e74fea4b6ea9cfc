/* output.h: what prepare.c writes: shards, the manifest, and the state an interrupted run goes on from.

   ShardWriter   a split ("train" or "val"): tokens into PREFIX_000000.bin.part, renamed to .bin when full
   Totals        what was read and written, for the manifest and the progress line
   state_save    writes prepare.state.json: everything before it is on disk, so killed at any moment the run
                 goes on from the last one: shards are cut back to it, readers go to their places
   output_lock   keeps a second ./prepare out of the folder until this one ends
   A folder is finished when shards.json is there; prepare.state.json is gone then. */
#ifndef DATA_OUTPUT_H
#define DATA_OUTPUT_H

#include <sys/file.h>
#include <cjson/cJSON.h>
#include "../gpt/io/files.h"
#include "../gpt/io/json.h"
#include "../gpt/io/shards.h"
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
    bool growing; /* the last shard is not full */
    int file;     /* -1: none open */
} ShardWriter;

typedef struct {
    int64_t lines, bad_lines, empty, not_utf8, half_pairs, text_bytes;
} Totals;

/* What decides the output: "2-OPTIONS-INPUTS-TOKENIZER", checksums of each. */
typedef struct {
    char text[32];
} Fingerprint;

typedef struct {
    Fingerprint fingerprint;
    const cJSON *sources; /* NULL: too many to be written each time */
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
    return file_path(folder, name);
}

static char *shard_path(const ShardWriter *w, size_t shard, const char *ending) {
    return output_path(w->folder, "%s_%06zu.bin%s", w->prefix, shard, ending);
}

static void write_all(int file, const void *from, size_t n, const char *path) {
    char error[FILE_ERROR_SIZE];
    if (!file_write(file, from, n, path, error)) die("%s, then run the same command again", error);
}

static void rename_file(const char *from, const char *to) {
    if (rename(from, to) != 0) die("cannot rename '%s' to '%s': %s", from, to, strerror(errno));
}

/* Writes a small file whole or not at all, and to the disk. */
static void write_file(const char *path, const char *text, size_t n) {
    char error[FILE_ERROR_SIZE];
    if (!file_write_whole(path, text, n, error)) die("%s", error);
}

static char output_lock_path[4096];
static void output_unlock(void) { unlink(output_lock_path); }

/* Of a folder, until the process ends. The file goes away with it; one that a killed process left is nobody's, for the
   system lets go of the lock itself. */
static void output_lock(const char *folder) {
    char holder[256] = "", error[FILE_ERROR_SIZE];
    bool locked;
    snprintf(output_lock_path, sizeof output_lock_path, "%s/prepare.lock", folder);
    const int file = file_open_locked(output_lock_path, O_RDWR | O_CREAT, &locked, error);
    if (file < 0 && (errno == EACCES || errno == EROFS)) return; /* a folder only to be looked at */
    if (file < 0) die("%s", error);
    if (!locked) {
        if (errno == EWOULDBLOCK && pread(file, holder, sizeof holder - 1, 0) >= 0)
            die("another ./prepare (%s) is writing into '%s'; wait for it, or choose another --out",
                *holder ? holder : "it has just begun", folder);
        warn("'%s' cannot be locked: %s; see to it that no second ./prepare writes there", folder,
             strerror(errno));
        return;
    }
    gethostname(holder, sizeof holder - 1);
    if (ftruncate(file, 0) != 0 || dprintf(file, "process %ld on %s", (long)getpid(), holder) < 0) errno = 0;
    atexit(output_unlock);
} /* the file stays open */

/* -----------------------------------------------------------------------------------------------------------
   Shards */

static void shard_open(ShardWriter *w, bool fresh) {
    if (fresh) {
        w->shards = check_grow(w->shards, &w->room, w->n_shards + 1, sizeof *w->shards);
        w->shards[w->n_shards++] = (ShardRecord){0, 0};
        w->growing = true;
    }
    char *path = shard_path(w, w->n_shards - 1, ".part");
    char error[FILE_ERROR_SIZE];
    w->file = file_open(path, O_WRONLY | O_CREAT | (fresh ? O_TRUNC : 0), FILE_REGULAR, error);
    if (w->file < 0) die("%s", error);
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
    w->growing = false;
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

/* The growing shard has the tokens that the state says it has. */
static bool shard_is(const char *path, const ShardRecord *shard) {
    static unsigned char bytes[1 << 16];
    char error[FILE_ERROR_SIZE];
    uint32_t crc = 0;
    uint64_t left = 2 * shard->tokens;
    int file = file_open(path, O_RDONLY, FILE_REGULAR, error);
    if (file < 0 || lseek(file, SHARD_HEADER_BYTES, SEEK_SET) < 0) return false;
    for (ssize_t n; left; left -= (uint64_t)n) {
        n = read(file, bytes, left < sizeof bytes ? (size_t)left : sizeof bytes);
        if (n <= 0) break;
        crc = (uint32_t)crc32_z(crc, bytes, (size_t)n);
    }
    close(file);
    return !left && crc == shard->crc;
}

/* Puts the files back to what the state says; false when that is not possible. Full shards are told by their sizes:
   --verify reads them. */
static bool shard_resume(ShardWriter *w) {
    remove_shards(w, w->n_shards);
    for (size_t s = 0; s < w->n_shards; s++) {
        struct stat status;
        bool last = w->growing && s + 1 == w->n_shards;
        char *path = shard_path(w, s, ""), *part = shard_path(w, s, ".part");
        if (last && stat(part, &status) != 0 && stat(path, &status) == 0) rename_file(path, part);
        int64_t want = SHARD_HEADER_BYTES + 2 * (int64_t)w->shards[s].tokens;
        bool good = stat(last ? part : path, &status) == 0 &&
                    (last ? status.st_size >= want : status.st_size == want);
        if (good && last) good = truncate(part, want) == 0 && shard_is(part, &w->shards[s]);
        free(path), free(part);
        if (!good) return false;
    }
    if (w->growing) {
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

/* A whole number from 0 to `most`, or -1. */
static int64_t json_count(const cJSON *item, double most) {
    int64_t x;
    return json_whole(item, most, &x) ? x : -1;
}

#define STATE_MOST 9007199254740992.0 /* 2^53: what a number of JSON holds exactly */

/* False when the shards are not such as this writer makes. */
static bool split_from_json(ShardWriter *w, const cJSON *json) {
    const cJSON *shards = cJSON_GetObjectItemCaseSensitive(json, "shards"), *shard;
    const int64_t tokens = json_count(cJSON_GetObjectItemCaseSensitive(json, "tokens"), STATE_MOST);
    const int64_t documents = json_count(cJSON_GetObjectItemCaseSensitive(json, "documents"), STATE_MOST);
    if (tokens < 0 || documents < 0 || !cJSON_IsArray(shards)) return false;
    w->growing = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "growing"));
    uint64_t sum = 0;
    cJSON_ArrayForEach(shard, shards) {
        const char *crc = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(shard, "crc32"));
        const int64_t n =
            json_count(cJSON_GetObjectItemCaseSensitive(shard, "tokens"), (double)w->shard_tokens);
        const bool full = shard->next || !w->growing;
        if (!crc || strlen(crc) != 8 || n < 0 || (full && (uint64_t)n != w->shard_tokens)) return false;
        w->shards = check_grow(w->shards, &w->room, w->n_shards + 1, sizeof *w->shards);
        w->shards[w->n_shards++] = (ShardRecord){(uint64_t)n, (uint32_t)strtoul(crc, NULL, 16)};
        sum += (uint64_t)n;
    }
    w->tokens = sum, w->documents = (uint64_t)documents;
    return sum == (uint64_t)tokens && (!w->growing || w->n_shards);
}

static const struct {
    const char *name;
    size_t offset;
} totals_table[] = {{"lines", offsetof(Totals, lines)},
                    {"bad_lines", offsetof(Totals, bad_lines)},
                    {"empty_documents", offsetof(Totals, empty)},
                    {"not_utf8_documents", offsetof(Totals, not_utf8)},
                    {"half_pair_documents", offsetof(Totals, half_pairs)},
                    {"text_bytes", offsetof(Totals, text_bytes)}};

static void totals_to_json(const Totals *totals, cJSON *json) {
    for (size_t i = 0; i < sizeof totals_table / sizeof *totals_table; i++)
        cJSON_AddNumberToObject(json, totals_table[i].name,
                                (double)*(const int64_t *)((const char *)totals + totals_table[i].offset));
}

/* A line with the checksum of the next, which is the state. */
static const char state_head[] = "{\"crc32\": \"%08x\", \"state\":\n";

static void state_write(const char *path, const cJSON *json) {
    char *text = cJSON_PrintUnformatted(json), *whole = NULL;
    size_t n = 0;
    FILE *file = open_memstream(&whole, &n);
    if (!text || !file) die("out of memory");
    fprintf(file, state_head, (uint32_t)crc32_z(0, (unsigned char *)text, strlen(text)));
    fprintf(file, "%s}\n", text);
    if (fclose(file) != 0) die("out of memory");
    write_file(path, whole, n);
    free(whole), cJSON_free(text);
}

/* The state in a file's text, NULL when a byte of it is not as it was written. */
static cJSON *state_parse(const char *text, size_t n) {
    char head[64];
    const char *line = memchr(text, '\n', n);
    const size_t begin = line ? (size_t)(line + 1 - text) : n;
    if (n < begin + 2 || memcmp(text + n - 2, "}\n", 2) != 0) return NULL;
    const uint32_t crc = (uint32_t)crc32_z(0, (const unsigned char *)text + begin, n - 2 - begin);
    const int length = snprintf(head, sizeof head, state_head, crc);
    if ((size_t)length != begin || memcmp(head, text, begin) != 0) return NULL;
    return cJSON_ParseWithLength(text + begin, n - 2 - begin);
}

/* NULL when it is damaged. */
static cJSON *output_read(const char *path, bool is_state) {
    size_t n;
    char *text = check_file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, &n, "start over with --overwrite");
    cJSON *json = is_state ? state_parse(text, n) : cJSON_ParseWithLength(text, n);
    free(text);
    return json;
}

static void state_save(const ShardWriter writers[2], const Totals *totals, const Progress *progress) {
    cJSON *json = cJSON_CreateObject(), *places = cJSON_CreateArray();
    cJSON_AddStringToObject(json, "fingerprint", progress->fingerprint.text);
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
        cJSON_AddBoolToObject(item, "growing", writers[split].growing);
        cJSON_AddItemToObject(json, writers[split].prefix, item);
    }
    if (progress->sources) cJSON_AddItemToObject(json, "sources", cJSON_Duplicate(progress->sources, true));
    int folder =
        open(writers->folder, O_RDONLY | O_CLOEXEC); /* new and renamed shards must be found again, too */
    if (folder >= 0) fsync(folder), close(folder);
    char *path = output_path(writers->folder, "prepare.state.json");
    state_write(path, json);
    free(path);
    cJSON_Delete(json);
}

/* Where a reader stood; false when the inputs have no such place. */
static bool place_from_json(Place *place, const Inputs *in, const cJSON *json) {
    const cJSON *item = json ? json->child : NULL;
    int64_t at[4];
    if (cJSON_GetArraySize(json) != 4) return false;
    if (cJSON_IsNumber(item) && item->valuedouble == -1) {
        *place = (Place){.job = -1};
        return true;
    }
    for (int i = 0; i < 4; i++, item = item->next) at[i] = json_count(item, i < 2 ? INT32_MAX : STATE_MOST);
    if (at[0] < 0 || at[0] >= in->n_jobs || at[2] < 0 || at[3] < 0) return false;
    *place = (Place){(int)at[0], (int)at[1], at[2], at[3]};
    return at[1] >= in->jobs[at[0]].first && at[1] <= in->jobs[at[0]].end;
}

/* The writers, totals and places that a state holds; false when it does not fit the inputs or itself. */
static bool state_take(ShardWriter writers[2], Totals *totals, Progress *progress, const Inputs *in,
                       const cJSON *json) {
    const cJSON *places = cJSON_GetObjectItemCaseSensitive(json, "places"), *place;
    const int64_t next = json_count(cJSON_GetObjectItemCaseSensitive(json, "next_job"), in->n_jobs);
    int s = 0;
    if (next < 0 || cJSON_GetArraySize(places) != SLOTS) return false;
    progress->next_job = (int)next;
    cJSON_ArrayForEach(place, places) {
        if (!place_from_json(&progress->places[s], in, place) || progress->places[s].job >= next)
            return false;
        for (int other = 0; other < s; other++) /* a job has one reader */
            if (progress->places[s].job >= 0 && progress->places[other].job == progress->places[s].job)
                return false;
        s++;
    }
    for (size_t i = 0; i < sizeof totals_table / sizeof *totals_table; i++) {
        int64_t total = json_count(cJSON_GetObjectItemCaseSensitive(json, totals_table[i].name), STATE_MOST);
        if (total < 0) return false;
        *(int64_t *)((char *)totals + totals_table[i].offset) = total;
    }
    for (int split = 0; split < 2; split++)
        if (!split_from_json(&writers[split], cJSON_GetObjectItemCaseSensitive(json, writers[split].prefix)))
            return false;
    return true;
}

#endif
