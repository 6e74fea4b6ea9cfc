/* trainer_state.h: trainer_state.json of a checkpoint: how far the run was, and what it read. Written from what the trainer has,
   read with every value checked; and the print of the data, by which a resumed run finds out that --data holds other data.

     RunState s = {.step = ...}; cJSON *json = run_state_to_json(&s)   takes s.options (a cJSON object) over
     run_state_read(json, &s, error)      false with a sentence; s.options points into json. run_state_free(&s) when done
     data_print_of(&train, &val, tokenizer, size)   the print of open data; data_print_free(&print) when done
     data_print_difference(&was, &now, text)        true when they differ, and a sentence about the first difference

   The print of a folder's split: its tokens, a sum over the sizes of its shards, the first page of each and 256 places
   spread over all, and a sum over the checksums of its manifest (shards.json). Where data lies and what its files are
   called does not matter. All of it costs a few hundred pages, whatever the size of the data. */
#ifndef GPT_RUN_TRAINER_STATE_H
#define GPT_RUN_TRAINER_STATE_H

#include "faults.h"
#include "options.h"
#include "../io/safetensors.h"
#include "../io/shards.h"

enum { DATA_PRINT_PLACES = 256, DATA_PRINT_BYTES = 512, DATA_PRINT_PAGE = 4096, DATA_MAX_FOLDERS = 1024 };

typedef struct {
    uint64_t tokens, sum, manifest; /* manifest 0: there is none */
} SplitPrint;

typedef struct {
    SplitPrint splits[2]; /* train, val */
    uint64_t share;       /* of each block of samples, see shards.h */
} FolderPrint;

typedef struct {
    uint64_t tokenizer; /* sum of tokenizer.json; 0: there is none */
    FolderPrint *folders;
    int folder_count; /* 0: not known */
} DataPrint;

typedef struct {
    int64_t step, tokens, optimizer_parts;
    double seconds;
    int64_t data_changes; /* how often the run went on with other data, as --resume-data=changed allows */
    LossWatch watch;
    DataPrint data;
    cJSON *options;
} RunState;

static const char *const data_splits[2] = {"train", "val"};

static inline void data_print_free(DataPrint *print) { free(print->folders), *print = (DataPrint){0}; }

/* ---- the print of open data ---- */

/* Of the shards of a folder: their sizes, the first page of each, and places spread over all their tokens. */
static inline uint64_t data_print_shards(const DatasetPart *part) {
    Checksum sum = checksum_begin();
    int at = 0;
    uint64_t before = 0; /* tokens of the shards before `at` */
    for (int s = 0; s < part->n_shards; s++) {
        const Shard *shard = &part->shards[s];
        checksum_add(&sum, &shard->n_tokens, sizeof shard->n_tokens);
        checksum_add(&sum, shard->map, shard->bytes < DATA_PRINT_PAGE ? shard->bytes : DATA_PRINT_PAGE);
    }
    for (uint64_t i = 0; i < DATA_PRINT_PLACES && part->n_tokens > 0; i++) {
        const uint64_t token = (uint64_t)((double)part->n_tokens / DATA_PRINT_PLACES * (double)i);
        while (token - before >= part->shards[at].n_tokens) before += part->shards[at++].n_tokens;
        const Shard *shard = &part->shards[at];
        const uint64_t begin = SHARD_HEADER_BYTES + 2 * (token - before), left = shard->bytes - begin;
        checksum_add(&sum, shard->map + begin, left < DATA_PRINT_BYTES ? left : DATA_PRINT_BYTES);
    }
    return checksum_end(&sum);
}

/* Of the checksums that the manifest gives a split's shards; 0: there is none. */
static inline uint64_t data_print_manifest(const char *folder, const char *split) {
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

static inline uint64_t data_print_text(const char *text, size_t size) {
    Checksum sum = checksum_begin();
    if (!text) return 0;
    checksum_add(&sum, text, size);
    return checksum_end(&sum);
}

static inline DataPrint data_print_of(const Dataset *train, const Dataset *val, const char *tokenizer,
                                      size_t size) {
    DataPrint print = {.tokenizer = data_print_text(tokenizer, size), .folder_count = train->n_parts};
    print.folders = check_malloc((size_t)print.folder_count * sizeof *print.folders);
    for (int f = 0; f < print.folder_count; f++) {
        const DatasetPart *parts[2] = {&train->parts[f], &val->parts[f]};
        print.folders[f].share = parts[0]->block_samples;
        for (int s = 0; s < 2; s++)
            print.folders[f].splits[s] = (SplitPrint){parts[s]->n_tokens, data_print_shards(parts[s]),
                                                      data_print_manifest(parts[s]->folder, data_splits[s])};
    }
    return print;
}

/* One number that two prints share only when they are the same; manifests apart. */
static inline uint64_t data_print_sum(const DataPrint *print) {
    Checksum sum = checksum_begin();
    checksum_add(&sum, &print->tokenizer, sizeof print->tokenizer);
    for (int f = 0; f < print->folder_count; f++) {
        const FolderPrint *folder = &print->folders[f];
        const uint64_t numbers[] = {folder->share, folder->splits[0].tokens, folder->splits[0].sum,
                                    folder->splits[1].tokens, folder->splits[1].sum};
        checksum_add(&sum, numbers, sizeof numbers);
    }
    return checksum_end(&sum);
}

/* ---- comparing ---- */

static inline bool data_print_split_differs(const SplitPrint *was, const SplitPrint *now, int folder,
                                            int split, char text[256]) {
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

static inline bool data_print_difference(const DataPrint *was, const DataPrint *now, char text[256]) {
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
        const FolderPrint *a = &was->folders[f], *b = &now->folders[f];
        for (int s = 0; s < 2; s++)
            if (data_print_split_differs(&a->splits[s], &b->splits[s], f, s, text)) return true;
        if (a->share != b->share)
            return snprintf(text, 256,
                            "folder %d of --data gives %" PRIu64 " of %d samples, it gave %" PRIu64, f + 1,
                            b->share, DATASET_BLOCK, a->share),
                   true;
    }
    return false;
}

/* ---- in JSON ---- */

static inline cJSON *data_print_to_json(const DataPrint *print) {
    cJSON *json = cJSON_CreateObject(), *folders;
    json_add_sum(json, "tokenizer", print->tokenizer);
    folders = cJSON_AddArrayToObject(json, "folders");
    for (int f = 0; f < print->folder_count; f++) {
        cJSON *folder = cJSON_CreateObject();
        json_add_number(folder, "samples_of_1024", (double)print->folders[f].share);
        for (int s = 0; s < 2; s++) {
            const SplitPrint *from = &print->folders[f].splits[s];
            cJSON *split = cJSON_AddObjectToObject(folder, data_splits[s]);
            json_add_number(split, "tokens", (double)from->tokens);
            json_add_sum(split, "sum", from->sum);
            if (from->manifest) json_add_sum(split, "manifest", from->manifest);
        }
        cJSON_AddItemToArray(folders, folder);
    }
    return json;
}

static inline bool data_print_folder(const cJSON *json, FolderPrint *folder) {
    int64_t number;
    if (!json_whole(cJSON_GetObjectItemCaseSensitive(json, "samples_of_1024"), DATASET_BLOCK, &number))
        return false;
    folder->share = (uint64_t)number;
    for (int s = 0; s < 2; s++) {
        const cJSON *split = cJSON_GetObjectItemCaseSensitive(json, data_splits[s]);
        const cJSON *manifest = cJSON_GetObjectItemCaseSensitive(split, "manifest");
        SplitPrint *to = &folder->splits[s];
        if (!json_whole(cJSON_GetObjectItemCaseSensitive(split, "tokens"), 0x1p53, &number) ||
            !json_sum(cJSON_GetObjectItemCaseSensitive(split, "sum"), &to->sum) ||
            (manifest && !json_sum(manifest, &to->manifest)))
            return false;
        to->tokens = (uint64_t)number;
    }
    return true;
}

/* NULL, a state from before there were prints, is a print that nothing is known of. */
static inline bool data_print_from_json(DataPrint *print, const cJSON *json) {
    *print = (DataPrint){0};
    if (!json) return true;
    const cJSON *folders = cJSON_GetObjectItemCaseSensitive(json, "folders"), *folder;
    const int count = cJSON_IsArray(folders) ? cJSON_GetArraySize(folders) : 0;
    if (!json_sum(cJSON_GetObjectItemCaseSensitive(json, "tokenizer"), &print->tokenizer) || count < 1 ||
        count > DATA_MAX_FOLDERS)
        return false;
    print->folders = check_malloc((size_t)count * sizeof *print->folders);
    cJSON_ArrayForEach(folder, folders) {
        if (data_print_folder(folder, &print->folders[print->folder_count++])) continue;
        data_print_free(print);
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
    if (state->data.folder_count) cJSON_AddItemToObject(json, "data", data_print_to_json(&state->data));
    cJSON_AddItemToObject(json, "options", state->options);
    return json;
}

static inline void run_state_free(RunState *state) { data_print_free(&state->data); }

/* A whole number of the state; one that an older trainer did not write is `otherwise` (below 0: it must be there). */
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
    if (!data_print_from_json(&state->data, cJSON_GetObjectItemCaseSensitive(json, "data")))
        return file_fail(error, "\"data\" is damaged");
    return true;
}

#endif
