/* shards.h: files of tokens, called shards, in the format of llm.c, and the loader that takes training samples from
   them. (In gpt/dist "shard" means something else: the part of the optimizer's state that one rank keeps.)

   A shard is a header of 256 little-endian int32 (1,024 bytes), then its tokens as little-endian uint16:
       header[0] = 20240520   header[1] = 1   header[2] = number of tokens   the rest is 0
   so a vocabulary has at most 65,536 tokens. The number of tokens is read as unsigned: a file may hold 4,294,967,295 of
   them (8 GiB). A file has exactly 1,024 + 2 * tokens bytes.

   A dataset is a folder with shards train_*.bin and val_*.bin (the names that llm.c uses, fineweb_train_000001.bin and
   tiny_shakespeare_val.bin, are known too), or several such folders with weights: "c4:0.9,books:0.1". The files are
   mapped into memory, so opening them costs no time and all ranks on a machine share one copy. A folder's shards are
   numbered in the order of their names. A window is T + 1 tokens that begin at a multiple of T in a shard: n tokens
   hold (n - 1) / T windows, and what is left over at the end of a shard is not used.

   The loader has no state: the i-th sample of a run depends on the seed, on i and on the list of shards alone. So
   resuming, the number of ranks and the size of the micro-batch cannot change what a model sees.
   - One folder: an epoch is n_windows samples and takes every window once, in a pseudo-random order. Sample i belongs
     to epoch i / n_windows, and each epoch has another order.
   - Several folders: the samples are divided into blocks of 1,024. Of the samples in a block, each folder gives a fixed
     number, in proportion to its weight, in a pseudo-random order. The samples that one folder gives, from all blocks
     together, follow the rule for one folder. So a small folder may be in its third epoch while a large one is in its
     first.

     dataset_open(d, folder, prefix, T, V)      maps every shard whose name begins with prefix, "train_" or "val_", and
                                                checks its header and size; the windows have T + 1 tokens, and the
                                                vocabulary has V
     dataset_close(d)                           unmaps them
     dataset_window(d, w, inputs, targets)      the w-th of d->n_windows windows in the order of the files:
                                                inputs[T], targets[T]
     dataset_sample(d, seed, i, inputs, targets)
                                                the i-th sample of a run, for any i
     dataset_prefetch(d, seed, i)               asks the system to read the i-th sample from the disk and returns at
                                                once; called one step ahead, it saves dataset_sample from waiting
     dataset_manifest(folder)                   the manifest shards.json that ./prepare wrote; NULL: there is none.
                                                The caller frees it with cJSON_Delete
     dataset_manifest_shards(manifest, split)   its list of the shards of "train" or "val": objects with the members
                                                file, tokens and crc32. NULL: it has no such list
     dataset_check_manifest(folder, V, checksums)
                                                dies when a folder's manifest names a larger vocabulary than V, another
                                                tokenizer than the tokenizer.json beside it, or shards of other names or
                                                sizes than those in the folder. With `checksums` it also reads all
                                                shards and dies when their CRC-32 is not that in the manifest. Warns
                                                when there is no manifest
     dataset_first_folder(folder)               the first folder of a dataset, whose tokenizer.json is used; the
                                                caller frees it
     shard_header(header, n)                    fills the header of a shard of n tokens
   All of them end the program with a sentence (the file, what was found, what was expected) when data is missing or
   damaged. Whether the tokens are below V is checked only when a window is read: dataset_window and dataset_sample end
   the program when one is not. Functions on an open dataset change nothing in it and may be called from several threads
   at once. */
#ifndef GPT_IO_SHARDS_H
#define GPT_IO_SHARDS_H

#include <dirent.h>
#include <sys/mman.h>
#include "checksum.h"
#include "files.h"
#include "json.h"
#include "../math/rng.h"

enum {
    SHARD_MAGIC = 20240520,
    SHARD_MAGIC_UINT32 = 20240801, /* llm.c's shards of 4-byte tokens (Llama 3), named in an error */
    SHARD_VERSION = 1,
    SHARD_HEADER_BYTES = 1024,
    SHARD_MAX_VOCAB = 65536,
    DATASET_BLOCK = 1024 /* samples of a block, in which each of several folders has a fixed number */
};

typedef struct {
    char *path;
    const unsigned char *map; /* (bytes) the whole file, mapped into memory */
    size_t bytes;
    uint64_t n_tokens;
    uint64_t first_window; /* the number of windows in the folder's shards before this one */
} Shard;

typedef struct {
    char *folder;
    Shard *shards; /* (n_shards) in the order of their names */
    int n_shards;
    uint64_t n_tokens, n_windows;
    double weight;          /* as given; 1 with a single folder */
    uint64_t block_samples; /* how many samples of each block of DATASET_BLOCK come from here */
} DatasetPart;

typedef struct {
    DatasetPart *parts; /* (n_parts) in the order given */
    int n_parts;
    int seq_len, vocab_size;
    uint64_t n_tokens, n_windows; /* of all parts together */
} Dataset;

static inline uint32_t shard_u32(const unsigned char *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void shard_put_u32(unsigned char *p, uint32_t x) {
    for (int i = 0; i < 4; i++) p[i] = (unsigned char)(x >> 8 * i);
}

static inline void shard_header(unsigned char header[SHARD_HEADER_BYTES], uint64_t n_tokens) {
    memset(header, 0, SHARD_HEADER_BYTES);
    shard_put_u32(header, SHARD_MAGIC);
    shard_put_u32(header + 4, SHARD_VERSION);
    shard_put_u32(header + 8, (uint32_t)n_tokens);
}

/* -----------------------------------------------------------------------------------------------------------
   Opening: every shard is checked by magic, version and exact size before training starts. */

/* Whether a file is a shard of the split with this prefix. With "train_" it is for train_000000.bin and for llm.c's
   fineweb_train_000001.bin and tiny_shakespeare_train.bin. */
static inline bool shard_name_matches(const char *name, const char *prefix) {
    size_t length = strlen(name), n = strlen(prefix);
    if (length < 4 || strcmp(name + length - 4, ".bin") != 0) return false;
    if (strncmp(name, prefix, n) == 0) return true;
    for (const char *at = strchr(name, '_'); at; at = strchr(at + 1, '_')) {
        if (strncmp(at + 1, prefix, n) == 0) return true;
        if (n > 1 && strncmp(at + 1, prefix, n - 1) == 0 && strcmp(at + n, ".bin") == 0) return true;
    }
    return false;
}

static inline int shard_compare(const void *a, const void *b) {
    return strcmp(((const Shard *)a)->path, ((const Shard *)b)->path);
}

static inline void shard_check_header(const Shard *shard) {
    const unsigned char *header = shard->map;
    if (shard_u32(header) == SHARD_MAGIC_UINT32)
        die("'%s' is an llm.c shard of 4-byte tokens (magic %d); only 2-byte shards (magic %d, at most %d "
            "tokens "
            "in the vocabulary) can be read: prepare the text again with another tokenizer",
            shard->path, SHARD_MAGIC_UINT32, SHARD_MAGIC, SHARD_MAX_VOCAB);
    if (shard_u32(header) != SHARD_MAGIC)
        die("'%s' is not a token shard: its first number is %u, expected %d; make shards with ./prepare",
            shard->path, shard_u32(header), SHARD_MAGIC);
    if (shard_u32(header + 4) != SHARD_VERSION)
        die("'%s' is a shard of version %u, expected %d; make it again with ./prepare", shard->path,
            shard_u32(header + 4), SHARD_VERSION);
    uint64_t want = SHARD_HEADER_BYTES + 2 * (uint64_t)shard_u32(header + 8);
    if (shard->bytes != want)
        die("'%s' is %s: its header counts %u tokens, which makes %llu bytes, but the file has %zu; copy it "
            "or "
            "make it again",
            shard->path, shard->bytes < want ? "cut short" : "longer than its header says",
            shard_u32(header + 8), (unsigned long long)want, shard->bytes);
}

/* Maps the file of a shard whose path is set. */
static inline void shard_map(Shard *shard) {
    struct stat status;
    char error[FILE_ERROR_SIZE];
    int file = file_open(shard->path, O_RDONLY, FILE_REGULAR, error);
    if (file < 0) die("a shard cannot be read: %s", error);
    if (fstat(file, &status) != 0) die("cannot read the shard '%s': %s", shard->path, strerror(errno));
    if (status.st_size < SHARD_HEADER_BYTES)
        die("'%s' is %s: expected at least the %d bytes of a shard's header, found %lld; copy it or make it "
            "again",
            shard->path, status.st_size ? "too short" : "empty", SHARD_HEADER_BYTES,
            (long long)status.st_size);
    shard->bytes = (size_t)status.st_size;
    void *map = mmap(NULL, shard->bytes, PROT_READ, MAP_SHARED, file, 0);
    if (map == MAP_FAILED)
        die("cannot map the shard '%s' (%zu bytes): %s", shard->path, shard->bytes, strerror(errno));
    close(file);
    shard->map = map;
    shard_check_header(shard);
    shard->n_tokens = shard_u32(shard->map + 8);
}

/* Lists the paths of the shards in a folder; there may be none. */
static inline void dataset_find_shards(DatasetPart *part, const char *prefix) {
    DIR *folder = opendir(part->folder);
    if (!folder)
        die("cannot open the data folder '%s': %s; make it with ./prepare --out=%s TEXT...", part->folder,
            strerror(errno), part->folder);
    size_t room = 0; /* how many elements of part->shards memory is allocated for */
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (!shard_name_matches(entry->d_name, prefix)) continue;
        part->shards = check_grow(part->shards, &room, (size_t)part->n_shards + 1, sizeof *part->shards);
        part->shards[part->n_shards++].path = file_path(part->folder, entry->d_name);
    }
    closedir(folder);
    if (part->n_shards) qsort(part->shards, (size_t)part->n_shards, sizeof *part->shards, shard_compare);
}

/* Lists the paths of the shards in a folder; dies when there are none. */
static inline void dataset_list(DatasetPart *part, const char *prefix) {
    dataset_find_shards(part, prefix);
    if (!part->n_shards && strcmp(prefix, "val_") == 0)
        die("no shards 'val_*.bin' in '%s': nothing to validate with; prepare the text again without "
            "--val-fraction=0, or with --val=FILE",
            part->folder);
    if (!part->n_shards)
        die("no shards '%s*.bin' in '%s'; make them with ./prepare --out=%s TEXT...", prefix, part->folder,
            part->folder);
}

static inline void dataset_open_part(Dataset *d, DatasetPart *part, const char *prefix) {
    dataset_list(part, prefix);
    for (int s = 0; s < part->n_shards; s++) {
        Shard *shard = &part->shards[s];
        shard_map(shard);
        shard->first_window = part->n_windows;
        part->n_tokens += shard->n_tokens;
        part->n_windows += shard->n_tokens ? (shard->n_tokens - 1) / (uint64_t)d->seq_len : 0;
    }
    if (!part->n_windows)
        die("the %d shards '%s*.bin' in '%s' hold %llu tokens, too few for one window of %d + 1; prepare "
            "more "
            "text or use a smaller --seq-len",
            part->n_shards, prefix, part->folder, (unsigned long long)part->n_tokens, d->seq_len);
    /* Windows are read in random order. By default the system also reads what follows in the file. When the data is
       larger than half of the memory, that only costs time: the additional pages would be dropped from memory before
       their windows are read. */
    double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (2.0 * (double)part->n_tokens > memory / 2)
        for (int s = 0; s < part->n_shards; s++)
            madvise((void *)(uintptr_t)part->shards[s].map, part->shards[s].bytes, MADV_RANDOM);
}

/* Splits "c4:0.9,books:0.1" into parts. If there is a file or folder whose path is the whole text, with its commas and
   colons, the text is one part. */
static inline void dataset_parse(Dataset *d, const char *spec) {
    struct stat status;
    int n = 1;
    bool whole = stat(spec, &status) == 0 || !strpbrk(spec, ",:");
    for (const char *c = spec; !whole && *c; c++) n += *c == ',';
    d->parts = check_calloc((size_t)n * sizeof *d->parts);
    d->n_parts = n;
    for (int p = 0; p < n; p++) {
        DatasetPart *part = &d->parts[p];
        size_t length = whole ? strlen(spec) : strcspn(spec, ",");
        part->folder = check_calloc(length + 1);
        memcpy(part->folder, spec, length);
        part->weight = 1;
        char *colon = whole ? NULL : strrchr(part->folder, ':'), *end = NULL;
        if (colon) {
            *colon = 0;
            part->weight = strtod(colon + 1, &end);
            if (end == colon + 1 || *end || !(part->weight > 0 && part->weight < 1e9))
                die("the weight '%s' of the data folder '%s' is not a number above 0; write "
                    "--data=one:0.9,two:0.1",
                    colon + 1, part->folder);
        }
        if (!*part->folder) die("--data='%s' names an empty folder; write --data=one:0.9,two:0.1", spec);
        spec += length + (p < n - 1);
    }
}

/* Turns the weights into whole numbers of samples per block that add up to DATASET_BLOCK: each is rounded down, then
   the samples that are missing go to the parts with the largest remainders. */
static inline void dataset_share_blocks(Dataset *d) {
    double total = 0;
    uint64_t given = 0;
    for (int p = 0; p < d->n_parts; p++) total += d->parts[p].weight;
    for (int p = 0; p < d->n_parts; p++) {
        d->parts[p].block_samples = (uint64_t)(d->parts[p].weight / total * DATASET_BLOCK);
        given += d->parts[p].block_samples;
    }
    while (given < DATASET_BLOCK) {
        int best = 0;
        double most = -2;
        for (int p = 0; p < d->n_parts; p++) {
            double missing = d->parts[p].weight / total * DATASET_BLOCK - (double)d->parts[p].block_samples;
            if (missing > most) most = missing, best = p;
        }
        d->parts[best].block_samples++, given++;
    }
    for (int p = 0; p < d->n_parts; p++)
        if (!d->parts[p].block_samples)
            die("the weight of the data folder '%s' is below 1/%d of the whole; raise it or leave the folder "
                "out",
                d->parts[p].folder, DATASET_BLOCK);
}

static inline void dataset_open(Dataset *d, const char *folder, const char *prefix, int seq_len,
                                int vocab_size) {
    memset(d, 0, sizeof *d);
    d->seq_len = seq_len, d->vocab_size = vocab_size;
    if (seq_len < 1) die("windows of %d tokens were asked for; --seq-len must be at least 1", seq_len);
    dataset_parse(d, folder);
    for (int p = 0; p < d->n_parts; p++) {
        dataset_open_part(d, &d->parts[p], prefix);
        d->n_tokens += d->parts[p].n_tokens;
        d->n_windows += d->parts[p].n_windows;
    }
    dataset_share_blocks(d);
}

static inline void dataset_close(Dataset *d) {
    for (int p = 0; p < d->n_parts; p++) {
        for (int s = 0; s < d->parts[p].n_shards; s++) {
            munmap((void *)(uintptr_t)d->parts[p].shards[s].map, d->parts[p].shards[s].bytes);
            free(d->parts[p].shards[s].path);
        }
        free(d->parts[p].shards);
        free(d->parts[p].folder);
    }
    free(d->parts);
    memset(d, 0, sizeof *d);
}

/* -----------------------------------------------------------------------------------------------------------
   Reading */

/* The shard that holds window *w of a part; *w becomes the number of the window in that shard. */
static inline const Shard *dataset_find(const DatasetPart *part, uint64_t *w) {
    int low = 0, high = part->n_shards - 1; /* the last shard with first_window <= w */
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (part->shards[middle].first_window <= *w)
            low = middle;
        else
            high = middle - 1;
    }
    *w -= part->shards[low].first_window;
    return &part->shards[low];
}

/* Window w of a part: inputs[T], and targets[T] one token later. Dies when a token is not in the vocabulary. */
static inline void dataset_read(const Dataset *d, const DatasetPart *part, uint64_t w, int32_t *inputs,
                                int32_t *targets) {
    const Shard *shard = dataset_find(part, &w);
    const unsigned char *bytes = shard->map + SHARD_HEADER_BYTES + 2 * w * (uint64_t)d->seq_len;
    int32_t largest = 0, token = bytes[0] | bytes[1] << 8;
    for (int t = 0; t < d->seq_len; t++) {
        inputs[t] = token;
        largest = token > largest ? token : largest;
        token = bytes[2 * t + 2] | bytes[2 * t + 3] << 8;
        targets[t] = token;
    }
    largest = token > largest ? token : largest;
    if (largest < d->vocab_size) return;
    int t = 0;
    while ((bytes[2 * t] | bytes[2 * t + 1] << 8) < d->vocab_size) t++;
    die("token %llu of '%s' is %d, but the vocabulary has %d tokens; use the tokenizer.json the shards were "
        "made "
        "with, or prepare the text again",
        (unsigned long long)(w * (uint64_t)d->seq_len) + (unsigned)t, shard->path,
        bytes[2 * t] | bytes[2 * t + 1] << 8, d->vocab_size);
}

static inline void dataset_window(const Dataset *d, uint64_t w, int32_t *inputs, int32_t *targets) {
    const DatasetPart *part = d->parts;
    if (w >= d->n_windows)
        die("window %llu was asked for, but there are only %llu", (unsigned long long)w,
            (unsigned long long)d->n_windows);
    while (w >= part->n_windows) w -= part++->n_windows;
    dataset_read(d, part, w, inputs, targets);
}

/* The part from which the i-th sample of a run is taken, and *w, which of the part's windows it is. */
static inline const DatasetPart *dataset_locate(const Dataset *d, uint64_t seed, uint64_t i, uint64_t *w) {
    int p = 0;
    if (d->n_parts > 1) {
        /* rng_permute gives independent orders for different stream numbers. Here they begin at RNG_STREAM_SHUFFLE <<
           20; for the windows, at the end of this function, they are RNG_STREAM_SHUFFLE plus the epoch. The epoch is
           never large enough for the two to meet. */
        uint64_t block = i / DATASET_BLOCK;
        uint64_t at =
            rng_permute(seed, ((uint64_t)RNG_STREAM_SHUFFLE << 20) + block, i % DATASET_BLOCK, DATASET_BLOCK);
        while (at >= d->parts[p].block_samples) at -= d->parts[p++].block_samples;
        i = block * d->parts[p].block_samples + at; /* the i-th sample of this part */
    }
    const DatasetPart *part = &d->parts[p];
    /* Each part has a seed of its own. The factor, 2^64 divided by the golden ratio, only spreads these seeds. */
    uint64_t epoch = i / part->n_windows, part_seed = seed + (uint64_t)p * 0x9E3779B97F4A7C15u;
    *w = rng_permute(part_seed, RNG_STREAM_SHUFFLE + epoch, i % part->n_windows, part->n_windows);
    return part;
}

static inline void dataset_sample(const Dataset *d, uint64_t seed, uint64_t i, int32_t *inputs,
                                  int32_t *targets) {
    uint64_t w;
    const DatasetPart *part = dataset_locate(d, seed, i, &w);
    dataset_read(d, part, w, inputs, targets);
}

static inline void dataset_prefetch(const Dataset *d, uint64_t seed, uint64_t i) {
    uint64_t w, page = (uint64_t)sysconf(_SC_PAGESIZE);
    const DatasetPart *part = dataset_locate(d, seed, i, &w);
    const Shard *shard = dataset_find(part, &w);
    uint64_t first = (SHARD_HEADER_BYTES + 2 * w * (uint64_t)d->seq_len) / page * page;
    uint64_t last = SHARD_HEADER_BYTES + 2 * (w + 1) * (uint64_t)d->seq_len + 2;
    madvise((void *)(uintptr_t)(shard->map + first), last - first, MADV_WILLNEED);
}

/* -----------------------------------------------------------------------------------------------------------
   The manifest */

static inline cJSON *dataset_manifest(const char *folder) {
    size_t length;
    char *path = file_path(folder, "shards.json");
    char *text = check_file_read_if(path, FILE_JSON_LIMIT, &length, "run ./prepare again");
    cJSON *manifest = text ? json_parse(text, length) : NULL;
    if (text && !manifest) die("the manifest '%s' is damaged: it is not JSON; run ./prepare again", path);
    free(text), free(path);
    return manifest;
}

static inline const cJSON *dataset_manifest_shards(const cJSON *manifest, const char *split) {
    const cJSON *shards =
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(manifest, split), "shards");
    return cJSON_IsArray(shards) ? shards : NULL;
}

/* Dies when the shard at `path` is not the one that an item of the manifest's list describes: by its name and size and,
   with `checksums`, its content. */
static inline void dataset_check_shard(const char *path, const cJSON *item, bool checksums) {
    const double tokens = json_number(item, "tokens");
    const char *name = json_text(item, "file"), *crc = json_text(item, "crc32");
    struct stat status;
    char found[9];
    if (!name || !crc || isnan(tokens))
        die("the manifest beside '%s' is damaged: it describes a shard badly; run ./prepare again", path);
    /* The caller walks through the folder and the manifest side by side, both in the order of the names. So of two
       different names, the one that comes first is missing in the other list. */
    const int order = strcmp(check_basename(path), name);
    if (order > 0)
        die("the shard '%s' is missing: the manifest beside '%s' names it; copy the folder again", name,
            path);
    if (order < 0) die("'%s' is not in the manifest beside it; remove it or copy the folder again", path);
    if (stat(path, &status) != 0) die("cannot read the shard '%s': %s", path, strerror(errno));
    const double want = SHARD_HEADER_BYTES + 2 * tokens;
    if ((double)status.st_size != want)
        die("'%s' has %lld bytes, the manifest beside it says %.0f; copy the folder again, or prepare the "
            "text again",
            path, (long long)status.st_size, want);
    if (!checksums) return;
    Shard shard = {.path = (char *)(uintptr_t)path};
    shard_map(&shard);
    checksum_crc32_text(found, checksum_crc32(0, shard.map, shard.bytes));
    munmap((void *)(uintptr_t)shard.map, shard.bytes);
    if (strcmp(found, crc) != 0)
        die("'%s' is damaged: its CRC-32 is %s, the manifest says %s; copy the folder again, or prepare the "
            "text again",
            path, found, crc);
}

/* Dies when the shards of a split in the folder are not those of its manifest. */
static inline void dataset_check_split(const char *folder, const cJSON *manifest, const char *split,
                                       bool checksums) {
    const cJSON *shards = dataset_manifest_shards(manifest, split);
    DatasetPart part = {.folder = (char *)(uintptr_t)folder};
    char prefix[16];
    snprintf(prefix, sizeof prefix, "%s_", split);
    dataset_find_shards(&part, prefix);
    if (!shards)
        die("the manifest '%s/shards.json' is damaged: it has no %s shards; run ./prepare again", folder,
            split);
    const cJSON *item = shards->child;
    for (int s = 0; s < part.n_shards && item; s++, item = item->next)
        dataset_check_shard(part.shards[s].path, item, checksums);
    if (part.n_shards != cJSON_GetArraySize(shards))
        die("'%s' holds %d %s shards, its manifest has %d; copy the folder again, or remove what does not "
            "belong to it",
            folder, part.n_shards, split, cJSON_GetArraySize(shards));
    for (int s = 0; s < part.n_shards; s++) free(part.shards[s].path);
    free(part.shards);
}

/* Dies when tokenizer.json of a folder, where there is one, has another checksum than `want`. */
static inline void dataset_check_tokenizer(const char *folder, const char *want) {
    size_t length;
    char *path = file_path(folder, "tokenizer.json"), found[9];
    char *text = check_file_read_if(path, FILE_JSON_LIMIT, &length, "run ./prepare again");
    if (text && strcmp(checksum_crc32_text(found, checksum_crc32(0, text, length)), want) != 0)
        die("'%s' is not the tokenizer the shards beside it were made with: its CRC-32 is %s, the manifest "
            "says %s; put the right one back or prepare the text again",
            path, found, want);
    free(text), free(path);
}

/* Checks one folder. `tokenizer` gets the checksum of the tokenizer that its manifest names; "" without a manifest. */
static inline void dataset_check_manifest_part(const char *folder, int vocab_size, bool checksums,
                                               char tokenizer[16]) {
    cJSON *manifest = dataset_manifest(folder);
    *tokenizer = 0;
    if (!manifest) {
        warn("no manifest '%s/shards.json': cannot tell whether the shards fit the tokenizer (shards of "
             "./prepare have one)",
             folder);
        return;
    }
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(manifest, "tokenizer");
    const cJSON *size = cJSON_GetObjectItemCaseSensitive(item, "vocab_size");
    const char *crc = json_text(item, "crc32");
    if (!cJSON_IsNumber(size) || !crc)
        die("the manifest '%s/shards.json' is damaged: no vocabulary size or checksum in it; run ./prepare "
            "again",
            folder);
    if (size->valueint > vocab_size)
        die("the shards in '%s' were made with a vocabulary of %d tokens, but the model has %d; use the "
            "tokenizer.json of that folder, or prepare the text again",
            folder, size->valueint, vocab_size);
    snprintf(tokenizer, 16, "%s", crc);
    dataset_check_tokenizer(folder, tokenizer);
    if (cJSON_HasObjectItem(manifest, "train") || cJSON_HasObjectItem(manifest, "val")) {
        dataset_check_split(folder, manifest, "train", checksums);
        dataset_check_split(folder, manifest, "val", checksums);
    } else {
        warn("the manifest '%s/shards.json' lists no shards: cannot tell whether they are those that were "
             "made",
             folder);
    }
    cJSON_Delete(manifest);
}

static inline void dataset_check_manifest(const char *folder, int vocab_size, bool checksums) {
    Dataset d = {0};
    char first[16] = "", tokenizer[16];
    dataset_parse(&d, folder);
    for (int p = 0; p < d.n_parts; p++) {
        dataset_check_manifest_part(d.parts[p].folder, vocab_size, checksums, tokenizer);
        if (*first && *tokenizer && strcmp(first, tokenizer) != 0)
            die("the shards in '%s' and '%s' were made with different tokenizers; prepare one again with "
                "--tokenizer=%s/tokenizer.json",
                d.parts[0].folder, d.parts[p].folder, d.parts[0].folder);
        if (!*first) memcpy(first, tokenizer, sizeof first);
    }
    dataset_close(&d);
}

static inline char *dataset_first_folder(const char *folder) {
    Dataset d = {0};
    dataset_parse(&d, folder);
    char *first = file_path(d.parts[0].folder, "");
    first[strlen(first) - 1] = 0; /* the slash */
    dataset_close(&d);
    return first;
}

#endif
