/* verify.h: ./prepare --verify: checks whether a folder is as its manifest, shards.json, describes it; changes nothing.

   Each problem is a line on the standard error stream; all of them are found before the program ends. The verify_
   functions return the number of problems they found.

     verify(options)    returns 0, or dies when there are problems or no manifest */
#ifndef DATA_VERIFY_H
#define DATA_VERIFY_H

#include "manifest.h"

/* Prints a problem, formatted as by printf, and returns 1. */
static int verify_problem(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int verify_problem(const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    check_say("problem", text, "");
    return 1;
}

/* Compares the size, the header and the checksum of a shard with what the manifest says of it, and its tokens with the
   size of the vocabulary. */
static int verify_shard(const char *folder, const cJSON *shard, int vocab_size) {
    const char *name = json_text(shard, "file"), *crc = json_text(shard, "crc32");
    int64_t tokens;
    if (!name || !crc || strchr(name, '/') ||
        !json_whole(cJSON_GetObjectItemCaseSensitive(shard, "tokens"), 4294967295.0, &tokens))
        return verify_problem("the manifest describes a shard badly");
    char *path = file_path(folder, name), found[16];
    struct stat status;
    char error[FILE_ERROR_SIZE];
    int file = file_open(path, O_RDONLY, FILE_REGULAR, error), problems = 0;
    int64_t want = SHARD_HEADER_BYTES + 2 * tokens;
    if (file < 0)
        problems = verify_problem("%s", error);
    else if (fstat(file, &status) != 0 || status.st_size != want)
        problems = verify_problem("'%s' has %lld bytes, expected %lld", path, (long long)status.st_size,
                                  (long long)want);
    unsigned char *map = problems ? MAP_FAILED : mmap(NULL, (size_t)want, PROT_READ, MAP_PRIVATE, file, 0);
    if (!problems && map == MAP_FAILED)
        problems = verify_problem("'%s' cannot be read: %s", path, strerror(errno));
    if (!problems) {
        checksum_crc32_text(found, checksum_crc32(0, map, (size_t)want));
        if (shard_u32(map) != SHARD_MAGIC || shard_u32(map + 4) != SHARD_VERSION ||
            shard_u32(map + 8) != (uint32_t)tokens)
            problems += verify_problem("'%s' has a wrong header: %u, %u, %u", path, shard_u32(map),
                                       shard_u32(map + 4), shard_u32(map + 8));
        if (strcmp(found, crc) != 0)
            problems += verify_problem("'%s' has the CRC-32 %s, expected %s", path, found, crc);
        for (int64_t i = SHARD_HEADER_BYTES; i < want; i += 2)
            if ((map[i] | map[i + 1] << 8) >= vocab_size) {
                problems += verify_problem("'%s': token %lld is %d, the vocabulary has %d", path,
                                           (long long)(i - SHARD_HEADER_BYTES) / 2, map[i] | map[i + 1] << 8,
                                           vocab_size);
                break;
            }
        munmap(map, (size_t)want);
    }
    if (file >= 0) close(file);
    free(path);
    return problems;
}

/* Checks the shards of a split, "train" or "val", and that no others lie in the folder. */
static int verify_split(const PrepareOptions *o, const cJSON *json, const char *prefix, int vocab_size) {
    const cJSON *split = cJSON_GetObjectItemCaseSensitive(json, prefix),
                *shards = dataset_manifest_shards(json, prefix);
    int n = cJSON_GetArraySize(shards), problems = 0, on_disk = 0;
    const cJSON **list = check_calloc((size_t)(n + 1) * sizeof *list), *item;
    double tokens = 0;
    if (!shards) return verify_problem("the manifest has no '%s'", prefix);
    n = 0;
    cJSON_ArrayForEach(item, shards) list[n++] = item, tokens += json_number(item, "tokens");
    if (tokens != json_number(split, "tokens"))
        problems += verify_problem("the %s shards add up to %.0f tokens, the manifest says %.0f", prefix,
                                   tokens, json_number(split, "tokens"));
#pragma omp parallel for schedule(dynamic) reduction(+ : problems)
    for (int i = 0; i < n; i++) problems += verify_shard(o->out, list[i], vocab_size);
    char match[32];
    snprintf(match, sizeof match, "%s_", prefix);
    DIR *folder = opendir(o->out);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        on_disk += shard_name_matches(entry->d_name, match);
    if (folder) closedir(folder);
    if (on_disk != n)
        problems +=
            verify_problem("'%s' holds %d %s shards, the manifest has %d", o->out, on_disk, prefix, n);
    printf("%-9s  %d shards, %.0f tokens\n", prefix, n, tokens);
    free(list);
    return problems;
}

static int verify(const PrepareOptions *o) {
    cJSON *json = dataset_manifest(o->out);
    if (!json)
        die("there is no manifest '%s/shards.json': the folder was not made by ./prepare, or not finished",
            o->out);
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, "tokenizer");
    const char *crc = json_text(item, "crc32");
    int64_t vocab_size;
    int problems = 0;
    if (!crc ||
        !json_whole(cJSON_GetObjectItemCaseSensitive(item, "vocab_size"), TOKENIZER_MAX_VOCAB, &vocab_size) ||
        vocab_size < 1)
        die("the manifest '%s/shards.json' is damaged; prepare the text again", o->out);
    char *tokenizer = file_path(o->out, "tokenizer.json"), found[9];
    checksum_crc32_text(found, file_crc32(tokenizer));
    if (strcmp(found, crc) != 0)
        problems += verify_problem("'%s' has the CRC-32 %s, expected %s", tokenizer, found, crc);
    problems += verify_split(o, json, "train", (int)vocab_size);
    problems += verify_split(o, json, "val", (int)vocab_size);
    if (problems)
        die("'%s' has %d problems; copy the files again, or prepare the text again", o->out, problems);
    printf("%s is as it was made\n", o->out);
    cJSON_Delete(json);
    free(tokenizer);
    return 0;
}

#endif
