/* trainer_state.h: trainer_state.json of a checkpoint: how far the run had come, and a fingerprint of the data it had
   read. By the fingerprint a resumed run notices that --data holds other data than before.

     run_state_to_json(&state)            the caller owns the object, which takes over state.options (a cJSON object)
     run_state_read(json, &state, error)  checks every value; false, with a sentence in `error`, when one is wrong.
                                          state.options points into `json`. run_state_free(&state) when done
     fingerprint_of(&train, &val, tokenizer, size)   the fingerprint of open data and of the text of tokenizer.json;
                                          fingerprint_free(&fingerprint) when done
     fingerprint_difference(&was, &now, text)   true when two fingerprints differ; `text` is then a sentence about the
                                          first difference
     fingerprint_sum(&fingerprint)        a fingerprint as one number, for ranks to compare

   The fingerprint of each split (train, val) of a data folder has the number of tokens; a checksum over the sizes of
   the shards, the first 4,096 bytes of each, and 512 bytes at each of 256 places spread evenly over all tokens; and a
   checksum over the checksums in its manifest (shards.json). The names and places of the files do not count. Reading
   this little takes about as long for a terabyte as for a megabyte. */
#ifndef GPT_RUN_TRAINER_STATE_H
#define GPT_RUN_TRAINER_STATE_H

#include "loss_watch.h"
#include "train_options.h"
#include "../io/safetensors.h"
#include "../io/shards.h"

/* Samples of a split and bytes of each; bytes of the beginning of each shard; folders at most. */
enum { FINGERPRINT_PLACES = 256, FINGERPRINT_BYTES = 512, FINGERPRINT_PAGE = 4096, DATA_MAX_FOLDERS = 1024 };

typedef struct {
    uint64_t tokens;
    uint64_t sum;      /* of the sizes and samples of the shards */
    uint64_t manifest; /* sum of the checksums in shards.json; 0: there is none */
} SplitFingerprint;

typedef struct {
    SplitFingerprint splits[2]; /* train, val */
    uint64_t share; /* samples of each block of DATASET_BLOCK that come from this folder, see shards.h */
} FolderFingerprint;

typedef struct {
    uint64_t tokenizer; /* checksum of tokenizer.json; 0: there is none */
    FolderFingerprint *folders;
    int folder_count; /* 0: the checkpoint has no fingerprint */
} DataFingerprint;

/* What trainer_state.json holds. */
typedef struct {
    int64_t step, tokens, optimizer_parts;
    double seconds;
    int64_t data_changes; /* how often it was resumed with other data, as --resume-data=changed allows */
    LossWatch watch;
    DataFingerprint data;
    cJSON *options;
} RunState;

static const char *const data_splits[2] = {"train", "val"};

static inline void fingerprint_free(DataFingerprint *fingerprint) {
    free(fingerprint->folders), *fingerprint = (DataFingerprint){0};
}

/* ---- the fingerprint of open data ---- */

/* The checksum of the sizes and samples of a folder's shards. */
static inline uint64_t fingerprint_shards(const DatasetPart *part) {
    Checksum sum = checksum_begin();
    int at = 0;
    uint64_t before = 0; /* tokens of the shards before `at` */
    for (int s = 0; s < part->n_shards; s++) {
        const Shard *shard = &part->shards[s];
        checksum_add(&sum, &shard->n_tokens, sizeof shard->n_tokens);
        checksum_add(&sum, shard->map, shard->bytes < FINGERPRINT_PAGE ? shard->bytes : FINGERPRINT_PAGE);
    }
    for (uint64_t i = 0; i < FINGERPRINT_PLACES && part->n_tokens > 0; i++) {
        const uint64_t token = (uint64_t)((double)part->n_tokens / FINGERPRINT_PLACES * (double)i);
        while (token - before >= part->shards[at].n_tokens) before += part->shards[at++].n_tokens;
        const Shard *shard = &part->shards[at];
        const uint64_t begin = SHARD_HEADER_BYTES + 2 * (token - before), left = shard->bytes - begin;
        checksum_add(&sum, shard->map + begin, left < FINGERPRINT_BYTES ? left : FINGERPRINT_BYTES);
    }
    return checksum_end(&sum);
}

/* The checksum of the checksums that the manifest has for the shards of a split; 0: there are none. */
static inline uint64_t fingerprint_manifest(const char *folder, const char *split) {
    cJSON *manifest = dataset_manifest(folder);
    const cJSON *shard;
    Checksum sum = checksum_begin();
    uint64_t count = 0;
    cJSON_ArrayForEach(shard, dataset_manifest_shards(manifest, split)) {
        const char *crc = json_text(shard, "crc32");
        if (crc) checksum_add(&sum, crc, strlen(crc)), count++;
    }
    cJSON_Delete(manifest);
    return count ? checksum_end(&sum) : 0;
}

/* The checksum of a text; 0 when it is NULL. */
static inline uint64_t fingerprint_text(const char *text, size_t size) {
    Checksum sum = checksum_begin();
    if (!text) return 0;
    checksum_add(&sum, text, size);
    return checksum_end(&sum);
}

static inline DataFingerprint fingerprint_of(const Dataset *train, const Dataset *val, const char *tokenizer,
                                             size_t size) {
    DataFingerprint fingerprint = {.tokenizer = fingerprint_text(tokenizer, size),
                                   .folder_count = train->n_parts};
    fingerprint.folders = check_calloc((size_t)fingerprint.folder_count * sizeof *fingerprint.folders);
    for (int f = 0; f < fingerprint.folder_count; f++) {
        const DatasetPart *parts[2] = {&train->parts[f], &val->parts[f]};
        fingerprint.folders[f].share = parts[0]->block_samples;
        for (int s = 0; s < 2; s++)
            fingerprint.folders[f].splits[s] =
                (SplitFingerprint){parts[s]->n_tokens, fingerprint_shards(parts[s]),
                                   fingerprint_manifest(parts[s]->folder, data_splits[s])};
    }
    return fingerprint;
}

/* Equal fingerprints have equal sums. Manifests are left out, since a folder need not have one. */
static inline uint64_t fingerprint_sum(const DataFingerprint *fingerprint) {
    Checksum sum = checksum_begin();
    checksum_add(&sum, &fingerprint->tokenizer, sizeof fingerprint->tokenizer);
    for (int f = 0; f < fingerprint->folder_count; f++) {
        const FolderFingerprint *folder = &fingerprint->folders[f];
        const uint64_t numbers[] = {folder->share, folder->splits[0].tokens, folder->splits[0].sum,
                                    folder->splits[1].tokens, folder->splits[1].sum};
        checksum_add(&sum, numbers, sizeof numbers);
    }
    return checksum_end(&sum);
}

/* ---- comparing ---- */

/* Whether a split differs, and a sentence about how. */
static inline bool fingerprint_split_differs(const SplitFingerprint *was, const SplitFingerprint *now,
                                             int folder, int split, char text[256]) {
    const bool manifests = was->manifest && now->manifest && was->manifest != now->manifest;
    if (was->tokens != now->tokens)
        snprintf(text, 256, "folder %d of --data has %" PRIu64 " %s tokens, it had %" PRIu64, folder + 1,
                 now->tokens, split ? "validation" : "training", was->tokens);
    else if (was->sum != now->sum || manifests)
        snprintf(text, 256,
                 "folder %d of --data has other %s tokens than it had, as many as before (%" PRIu64 ")",
                 folder + 1, split ? "validation" : "training", now->tokens);
    else
        return false;
    return true;
}

static inline bool fingerprint_difference(const DataFingerprint *was, const DataFingerprint *now,
                                          char text[256]) {
    if (was->folder_count != now->folder_count)
        return snprintf(text, 256, "--data names %d folders, it named %d", now->folder_count,
                        was->folder_count),
               true;
    if (was->tokenizer != now->tokenizer)
        return snprintf(text, 256,
                        "its tokenizer.json is another one (sum %016" PRIx64 ", it was %016" PRIx64 ")",
                        now->tokenizer, was->tokenizer),
               true;
    for (int f = 0; f < now->folder_count; f++) {
        const FolderFingerprint *a = &was->folders[f], *b = &now->folders[f];
        for (int s = 0; s < 2; s++)
            if (fingerprint_split_differs(&a->splits[s], &b->splits[s], f, s, text)) return true;
        if (a->share != b->share)
            return snprintf(text, 256,
                            "folder %d of --data gives %" PRIu64 " of %d samples, it gave %" PRIu64, f + 1,
                            b->share, DATASET_BLOCK, a->share),
                   true;
    }
    return false;
}

/* ---- in JSON ---- */

static inline cJSON *fingerprint_to_json(const DataFingerprint *fingerprint) {
    cJSON *json = cJSON_CreateObject(), *folders;
    json_add_sum(json, "tokenizer", fingerprint->tokenizer);
    folders = cJSON_AddArrayToObject(json, "folders");
    for (int f = 0; f < fingerprint->folder_count; f++) {
        cJSON *folder = cJSON_CreateObject();
        json_add_number(folder, "samples_of_1024", (double)fingerprint->folders[f].share);
        for (int s = 0; s < 2; s++) {
            const SplitFingerprint *from = &fingerprint->folders[f].splits[s];
            cJSON *split = cJSON_AddObjectToObject(folder, data_splits[s]);
            json_add_number(split, "tokens", (double)from->tokens);
            json_add_sum(split, "sum", from->sum);
            if (from->manifest) json_add_sum(split, "manifest", from->manifest);
        }
        cJSON_AddItemToArray(folders, folder);
    }
    return json;
}

/* False when a value is missing or wrong. */
static inline bool fingerprint_folder(const cJSON *json, FolderFingerprint *folder) {
    int64_t number;
    if (!json_whole(cJSON_GetObjectItemCaseSensitive(json, "samples_of_1024"), DATASET_BLOCK, &number))
        return false;
    folder->share = (uint64_t)number;
    for (int s = 0; s < 2; s++) {
        const cJSON *split = cJSON_GetObjectItemCaseSensitive(json, data_splits[s]);
        const cJSON *manifest = cJSON_GetObjectItemCaseSensitive(split, "manifest");
        SplitFingerprint *to = &folder->splits[s];
        if (!json_whole(cJSON_GetObjectItemCaseSensitive(split, "tokens"), 0x1p53, &number) ||
            !json_sum(cJSON_GetObjectItemCaseSensitive(split, "sum"), &to->sum) ||
            (manifest && !json_sum(manifest, &to->manifest)))
            return false;
        to->tokens = (uint64_t)number;
    }
    return true;
}

/* False when a value is missing or wrong. NULL gives a fingerprint without folders: checkpoints of older versions have
   none. */
static inline bool fingerprint_from_json(DataFingerprint *fingerprint, const cJSON *json) {
    *fingerprint = (DataFingerprint){0};
    if (!json) return true;
    const cJSON *folders = cJSON_GetObjectItemCaseSensitive(json, "folders"), *folder;
    const int count = cJSON_IsArray(folders) ? cJSON_GetArraySize(folders) : 0;
    if (!json_sum(cJSON_GetObjectItemCaseSensitive(json, "tokenizer"), &fingerprint->tokenizer) ||
        count < 1 || count > DATA_MAX_FOLDERS)
        return false;
    fingerprint->folders = check_calloc((size_t)count * sizeof *fingerprint->folders);
    cJSON_ArrayForEach(folder, folders) {
        if (fingerprint_folder(folder, &fingerprint->folders[fingerprint->folder_count++])) continue;
        fingerprint_free(fingerprint);
        return false;
    }
    return true;
}

static inline cJSON *run_state_to_json(const RunState *state) {
    cJSON *json = cJSON_CreateObject();
    json_add_number(json, "step", (double)state->step);
    json_add_number(json, "tokens", (double)state->tokens);
    json_add_number(json, "seconds", state->seconds);
    json_add_number(json, "optimizer_parts", (double)state->optimizer_parts);
    json_add_number(json, "data_changes", (double)state->data_changes);
    cJSON_AddItemToObject(json, "watch", loss_watch_to_json(&state->watch));
    if (state->data.folder_count) cJSON_AddItemToObject(json, "data", fingerprint_to_json(&state->data));
    cJSON_AddItemToObject(json, "options", state->options);
    return json;
}

static inline void run_state_free(RunState *state) { fingerprint_free(&state->data); }

/* Reads a whole number from 0 to `most`. A missing one is `otherwise`, as in checkpoints of older versions; with
   `otherwise` below 0 it must be there. */
static inline bool run_state_number(const cJSON *json, const char *key, double most, int64_t otherwise,
                                    int64_t *x, char *error) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    if (!item && otherwise >= 0) return *x = otherwise, true;
    if (json_whole(item, most, x)) return true;
    return file_fail(error, "\"%s\" is missing or wrong: expected a whole number from 0 to %.0f", key, most);
}

static inline bool run_state_read(const cJSON *json, RunState *state, char *error) {
    const cJSON *seconds = cJSON_GetObjectItemCaseSensitive(json, "seconds");
    const double most_steps = options_find_in(train_options, TRAIN_OPTION_COUNT, "steps")->max;
    *state = (RunState){.seconds = cJSON_IsNumber(seconds) ? seconds->valuedouble : 0};
    if (!run_state_number(json, "step", most_steps, -1, &state->step, error) ||
        !run_state_number(json, "tokens", 0x1p53, 0, &state->tokens, error) ||
        !run_state_number(json, "optimizer_parts", 65536, 1, &state->optimizer_parts, error) ||
        !run_state_number(json, "data_changes", most_steps, 0, &state->data_changes, error))
        return false;
    if (!(state->seconds >= 0 && state->seconds < 1e12)) return file_fail(error, "\"seconds\" is wrong");
    state->options = cJSON_GetObjectItemCaseSensitive(json, "options");
    if (!cJSON_IsObject(state->options))
        return file_fail(error, "\"options\" is missing: expected an object");
    if (!loss_watch_from_json(&state->watch, cJSON_GetObjectItemCaseSensitive(json, "watch")))
        return file_fail(error, "\"watch\" is damaged");
    if (!fingerprint_from_json(&state->data, cJSON_GetObjectItemCaseSensitive(json, "data")))
        return file_fail(error, "\"data\" is damaged");
    return true;
}

#endif
