/* output.h: what ./prepare writes into the output folder: shards (files of tokens, gpt/io/shards.h), and the state from
   which an interrupted run is continued.

   A ShardWriter writes the shards of one split, "train" or "val": tokens are appended to PREFIX_000000.bin.part, which
   is renamed to PREFIX_000000.bin when it is full. From time to time the state, prepare.state.json, is written, after
   everything that it describes has reached the disk. A run that was killed at any moment is therefore continued from
   the last state: the shards are cut back to the tokens that it names, and the readers go to the places that it names.
   A folder is finished when its manifest, shards.json, is there (manifest.h); the state is removed then.

     output_lock(folder)                       keeps any other ./prepare out of the folder until this process ends
     shard_put(&writer, tokens, n)             appends n tokens; begins and finishes shards as needed
     shard_finish(&writer)                     finishes the last shard, which may be short
     shard_resume(&writer)                     cuts the files back to what the writer's records say; false: they do
                                               not fit
     remove_shards(&writer, keep)              removes the shards of the split, but not the first `keep` of them
     split_to_json(&writer)                    the split as state and manifest describe it; the caller frees it
     state_save(writers, &totals, &progress)   writes the state
     state_take(writers, &totals, &progress, &inputs, json)
                                               sets writers, totals and progress to what a state says; false: the state
                                               does not fit the inputs
     output_read(path, is_state)               the JSON of a manifest or a state, NULL when it is damaged; the caller
                                               frees it
   Where it says nothing else, a function ends the program with a sentence when it fails. */
#ifndef DATA_OUTPUT_H
#define DATA_OUTPUT_H

#include <sys/file.h>
#include "../gpt/io/checksum.h"
#include "../gpt/io/files.h"
#include "../gpt/io/json.h"
#include "../gpt/io/shards.h"
#include "documents.h"

typedef struct {
    uint64_t tokens;
    uint32_t crc; /* CRC-32 of the tokens while the shard grows, of the whole file when it is finished */
} ShardRecord;

typedef struct {
    const char *folder, *prefix; /* "train" or "val" */
    uint64_t shard_tokens;       /* tokens of a full shard */
    ShardRecord *shards;         /* (n_shards) in the order written */
    size_t n_shards, room;      /* room: how many elements of `shards` memory is allocated for (check_grow) */
    uint64_t tokens, documents; /* of the split so far */
    bool growing;               /* the last shard is not finished */
    int file;                   /* the last shard's while it grows; -1: none is open */
} ShardWriter;

/* What was read so far. */
typedef struct {
    int64_t lines;      /* documents, including malformed and empty ones; a document may be a JSON line */
    int64_t bad_lines;  /* malformed JSON lines */
    int64_t empty;      /* documents without text */
    int64_t not_utf8;   /* documents that are not valid UTF-8 */
    int64_t half_pairs; /* documents with half of a surrogate pair */
    int64_t text_bytes;
} Totals;

/* What decides the content of the output: "2-OPTIONS-INPUTS-TOKENIZER", the CRC-32 of each. */
typedef struct {
    char text[32];
} Fingerprint;

typedef struct {
    Fingerprint fingerprint;
    const cJSON
        *sources;        /* the list of input files; NULL: there are too many to write them with each state */
    Place places[SLOTS]; /* of the readers */
    int next_job;        /* the first job that no reader has begun */
} Progress;

/* folder/NAME, where the name is formatted as by printf; the caller frees it. */
static char *output_path(const char *folder, const char *format, ...) __attribute__((format(printf, 2, 3)));
static char *output_path(const char *folder, const char *format, ...) {
    char name[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    return file_path(folder, name);
}

/* The path of a shard, with `ending` behind .bin; the caller frees it. */
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

/* Locks the folder's file prepare.lock until the process ends, which removes it. The file of a process that was killed
   is no obstacle, because the system releases the lock of a process that is gone. */
static void output_lock(const char *folder) {
    char holder[256] = "", error[FILE_ERROR_SIZE];
    bool locked;
    snprintf(output_lock_path, sizeof output_lock_path, "%s/prepare.lock", folder);
    const int file = file_open_locked(output_lock_path, O_RDWR | O_CREAT, &locked, error);
    if (file < 0 && (errno == EACCES || errno == EROFS))
        return; /* a folder that cannot be written: it can still be checked */
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
} /* the file stays open, and therefore locked */

/* -----------------------------------------------------------------------------------------------------------
   Shards */

/* Opens the last shard's file to append to it, after adding a new shard if `fresh`. */
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

/* Writes the header of the growing shard, if there is one, brings it to the disk and gives it its final name. */
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

/* On a big-endian machine the bytes of the tokens (n) are swapped in place first. */
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
        shard->crc = checksum_crc32(shard->crc, tokens, 2 * part);
        shard->tokens += part;
        tokens += part, n -= part;
        if (shard->tokens == w->shard_tokens) shard_finish(w);
    }
}

/* Removes finished and unfinished ones. */
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

/* Whether the file of the growing shard begins with the tokens that the state describes. */
static bool shard_is(const char *path, const ShardRecord *shard) {
    static unsigned char bytes[1 << 16];
    char error[FILE_ERROR_SIZE];
    uint32_t crc = 0;
    uint64_t left = 2 * shard->tokens;
    int file = file_open(path, O_RDONLY, FILE_REGULAR, error);
    if (file < 0 || lseek(file, SHARD_HEADER_BYTES, SEEK_SET) < 0) return false;
    for (int64_t n; left; left -= (uint64_t)n) {
        n = file_read_bytes(file, bytes, left < sizeof bytes ? (size_t)left : sizeof bytes);
        if (n <= 0) break;
        crc = checksum_crc32(crc, bytes, (size_t)n);
    }
    close(file);
    return !left && crc == shard->crc;
}

/* Brings the files back to what the state describes; false when that is not possible. Of full shards only the sizes are
   looked at; --verify reads them. */
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
        checksum_crc32_text(crc, w->shards[s].crc);
        cJSON_AddStringToObject(shard, "file", name);
        cJSON_AddNumberToObject(shard, "tokens", (double)w->shards[s].tokens);
        cJSON_AddStringToObject(shard, "crc32", crc);
        cJSON_AddItemToArray(shards, shard);
    }
    return json;
}

#define STATE_MOST 0x1p53 /* whole numbers up to here are exact in JSON */

/* Sets the writer's counts and shards to those in a state; false when this writer cannot have made such shards. */
static bool split_from_json(ShardWriter *w, const cJSON *json) {
    const cJSON *shards = cJSON_GetObjectItemCaseSensitive(json, "shards"), *shard;
    int64_t tokens, documents, n;
    if (!json_whole(cJSON_GetObjectItemCaseSensitive(json, "tokens"), STATE_MOST, &tokens) ||
        !json_whole(cJSON_GetObjectItemCaseSensitive(json, "documents"), STATE_MOST, &documents) ||
        !cJSON_IsArray(shards))
        return false;
    w->growing = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "growing"));
    uint64_t sum = 0;
    cJSON_ArrayForEach(shard, shards) {
        const char *crc = json_text(shard, "crc32");
        const bool full = shard->next || !w->growing;
        if (!crc || strlen(crc) != 8 ||
            !json_whole(cJSON_GetObjectItemCaseSensitive(shard, "tokens"), (double)w->shard_tokens, &n) ||
            (full && (uint64_t)n != w->shard_tokens))
            return false;
        w->shards = check_grow(w->shards, &w->room, w->n_shards + 1, sizeof *w->shards);
        w->shards[w->n_shards++] = (ShardRecord){(uint64_t)n, (uint32_t)strtoul(crc, NULL, 16)};
        sum += (uint64_t)n;
    }
    w->tokens = sum, w->documents = (uint64_t)documents;
    return sum == (uint64_t)tokens && (!w->growing || w->n_shards);
}

/* The totals as state and manifest name them. */
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

/* The first line of the file: the CRC-32 of the JSON on the second line. */
static const char state_head[] = "{\"crc32\": \"%08x\", \"state\":\n";

static void state_write(const char *path, const cJSON *json) {
    char *text = cJSON_PrintUnformatted(json), *whole = NULL;
    size_t n = 0;
    FILE *file = open_memstream(&whole, &n);
    if (!text || !file) die("out of memory");
    fprintf(file, state_head, checksum_crc32(0, text, strlen(text)));
    fprintf(file, "%s}\n", text);
    if (fclose(file) != 0) die("out of memory");
    write_file(path, whole, n);
    free(whole), cJSON_free(text);
}

/* The state in the text of a file, text[n] being 0; NULL when any byte is not as it was written. The caller frees it.
   */
static cJSON *state_parse(const char *text, size_t n) {
    char head[64];
    const char *line = memchr(text, '\n', n);
    const size_t begin = line ? (size_t)(line + 1 - text) : n;
    if (n < begin + 2 || memcmp(text + n - 2, "}\n", 2) != 0) return NULL;
    const uint32_t crc = checksum_crc32(0, text + begin, n - 2 - begin);
    const int length = snprintf(head, sizeof head, state_head, crc);
    if ((size_t)length != begin || memcmp(head, text, begin) != 0) return NULL;
    return cJSON_ParseWithLength(text + begin, n - 2 - begin); /* the rest of the file follows it */
}

static cJSON *output_read(const char *path, bool is_state) {
    size_t n;
    char *text = check_file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, &n, "start over with --overwrite");
    cJSON *json = is_state ? state_parse(text, n) : json_parse(text, n);
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
    /* The names of new and renamed shards must reach the disk too. */
    int folder = open(writers->folder, O_RDONLY | O_CLOEXEC);
    if (folder >= 0) fsync(folder), close(folder);
    char *path = output_path(writers->folder, "prepare.state.json");
    state_write(path, json);
    free(path);
    cJSON_Delete(json);
}

/* The place of a reader from a state; false when the inputs have no such place. */
static bool place_from_json(Place *place, const Inputs *in, const cJSON *json) {
    const cJSON *item = json ? json->child : NULL;
    int64_t at[4];
    if (cJSON_GetArraySize(json) != 4) return false;
    if (cJSON_IsNumber(item) && item->valuedouble == -1) {
        *place = (Place){.job = -1};
        return true;
    }
    for (int i = 0; i < 4; i++, item = item->next)
        if (!json_whole(item, i < 2 ? INT32_MAX : STATE_MOST, &at[i])) return false;
    if (at[0] >= in->n_jobs) return false;
    *place = (Place){(int)at[0], (int)at[1], at[2], at[3]};
    return at[1] >= in->jobs[at[0]].first && at[1] <= in->jobs[at[0]].end;
}

/* The writers, totals and places that a state holds; false when it contradicts the inputs or itself. */
static bool state_take(ShardWriter writers[2], Totals *totals, Progress *progress, const Inputs *in,
                       const cJSON *json) {
    const cJSON *places = cJSON_GetObjectItemCaseSensitive(json, "places"), *place;
    int64_t next;
    int s = 0;
    if (!json_whole(cJSON_GetObjectItemCaseSensitive(json, "next_job"), in->n_jobs, &next) ||
        cJSON_GetArraySize(places) != SLOTS)
        return false;
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
        int64_t total;
        if (!json_whole(cJSON_GetObjectItemCaseSensitive(json, totals_table[i].name), STATE_MOST, &total))
            return false;
        *(int64_t *)((char *)totals + totals_table[i].offset) = total;
    }
    for (int split = 0; split < 2; split++)
        if (!split_from_json(&writers[split], cJSON_GetObjectItemCaseSensitive(json, writers[split].prefix)))
            return false;
    return true;
}

#endif
