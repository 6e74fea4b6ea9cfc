/* test_shards.h: tests of shard files and of the loader: a bad file gets a clear error; every window is read once an
   epoch, in a new order each time, the same for any number of ranks; a mixture has the weights that were asked for.
   */
#ifndef TESTS_TEST_SHARDS_H
#define TESTS_TEST_SHARDS_H

#include "harness.h"
#include "trainer_files.h"
#include "../gpt/io/shards.h"

/* A shard whose tokens are first, first + 1, ..., so that a window tells where it is from. */
static inline void shards_count_up(const char *folder, const char *name, int first, int n) {
    uint16_t *tokens = check_calloc((size_t)n * sizeof *tokens);
    char *path = file_path(folder, name);
    for (int i = 0; i < n; i++) tokens[i] = (uint16_t)(first + i);
    shard_write(path, tokens, (uint64_t)n);
    free(tokens), free(path);
}

typedef struct {
    const char *folder, *prefix;
    int seq_len, vocab_size;
} ShardsOpen;

/* Opens a dataset and reads all its windows: what must die does so here, in a child. */
static void shards_open_and_read(void *argument) {
    const ShardsOpen *o = argument;
    Dataset d;
    dataset_open(&d, o->folder, o->prefix, o->seq_len, o->vocab_size);
    int32_t *inputs = check_calloc((size_t)o->seq_len * sizeof *inputs);
    int32_t *targets = check_calloc((size_t)o->seq_len * sizeof *targets);
    for (uint64_t w = 0; w < d.n_windows; w++) dataset_window(&d, w, inputs, targets);
    for (uint64_t i = 0; i < d.n_windows; i++) dataset_sample(&d, 1, i, inputs, targets);
    free(inputs), free(targets);
    dataset_close(&d);
}

/* Expects exit code 1 and one line on stderr that holds each of the words given. */
#define SHARDS_EXPECT_DEATH(folder_, seq_len_, vocab_, ...)                                                  \
    do {                                                                                                     \
        ShardsOpen open_ = {folder_, "train_", seq_len_, vocab_};                                            \
        char output_[4096];                                                                                  \
        int code_ = test_death(shards_open_and_read, &open_, output_, sizeof output_);                       \
        const char *words_[] = {__VA_ARGS__};                                                                \
        CHECK(code_ == 1, "exit code %d, output '%s'", code_, output_);                                      \
        CHECK(strchr(output_, '\n') == output_ + strlen(output_) - 1, "not one line: '%s'", output_);        \
        for (size_t w_ = 0; w_ < sizeof words_ / sizeof *words_; w_++)                                       \
            CHECK(strstr(output_, words_[w_]), "no '%s' in '%s'", words_[w_], output_);                      \
    } while (0)

/* A wrong --data must be named with what is missing, not fail at the first step. */
static void test_shards_folder_errors(void) {
    char missing[256], empty[128];
    snprintf(missing, sizeof missing, "%s/nowhere", test_folder());
    SHARDS_EXPECT_DEATH(missing, 4, 100, "nowhere", "No such file", "./prepare");
    snprintf(empty, sizeof empty, "%s", test_folder());
    SHARDS_EXPECT_DEATH(empty, 4, 100, "no shards 'train_*.bin'", empty);
    shards_count_up(empty, "val_000000.bin", 0, 50); /* a shard of the other split does not count */
    SHARDS_EXPECT_DEATH(empty, 4, 100, "no shards 'train_*.bin'");
}

/* A damaged shard must be named before training starts: its tokens would be nonsense. */
static void test_shards_file_errors(void) {
    const char *folder = test_folder();
    char path[256];
    unsigned char header[SHARD_HEADER_BYTES];
    snprintf(path, sizeof path, "%s/train_000000.bin", folder);
#define WRITE_FILE(...)                                                                                      \
    do {                                                                                                     \
        FILE *file_ = check_fopen(path, "wb", "");                                                           \
        __VA_ARGS__;                                                                                         \
        check_fclose(file_, path);                                                                           \
    } while (0)
    WRITE_FILE((void)file_);
    SHARDS_EXPECT_DEATH(folder, 4, 100, "train_000000.bin", "is empty", "1024", "found 0");
    shard_header(header, 0);
    WRITE_FILE(fwrite(header, 1, 1023, file_));
    SHARDS_EXPECT_DEATH(folder, 4, 100, "too short", "1024", "found 1023");
    shard_header(header, 10);
    WRITE_FILE(fwrite(header, 1, 1024, file_); fwrite(header, 1, 19, file_));
    SHARDS_EXPECT_DEATH(folder, 4, 100, "cut short", "10 tokens", "1044", "1043");
    WRITE_FILE(fwrite(header, 1, 1024, file_); fwrite(header, 1, 21, file_));
    SHARDS_EXPECT_DEATH(folder, 4, 100, "longer than its header says", "1044", "1045");
    shard_put_u32(header + 8, 0xFFFFFFFFu); /* a number of tokens whose bytes overflow 32 bits */
    WRITE_FILE(fwrite(header, 1, 1024, file_); fwrite(header, 1, 20, file_));
    SHARDS_EXPECT_DEATH(folder, 4, 100, "cut short", "8589935614");
    shard_header(header, 10);
    shard_put_u32(header, 12345);
    WRITE_FILE(fwrite(header, 1, 1024, file_); fwrite(header, 1, 20, file_));
    SHARDS_EXPECT_DEATH(folder, 4, 100, "not a token shard", "12345", "20240520");
    shard_put_u32(header, SHARD_MAGIC_UINT32);
    WRITE_FILE(fwrite(header, 1, 1024, file_); fwrite(header, 1, 20, file_));
    SHARDS_EXPECT_DEATH(folder, 4, 100, "4-byte tokens");
    shard_header(header, 10);
    shard_put_u32(header + 4, 2);
    WRITE_FILE(fwrite(header, 1, 1024, file_); fwrite(header, 1, 20, file_));
    SHARDS_EXPECT_DEATH(folder, 4, 100, "version 2, expected 1");
    unlink(path);
    mkdir(path, 0777);
    SHARDS_EXPECT_DEATH(folder, 4, 100, "is a folder, expected a regular file");
#undef WRITE_FILE
}

/* A token beyond the vocabulary must be named when it is read: the program would otherwise read outside of the
   embeddings. */
static void test_shards_token_errors(void) {
    char folder[256];
    snprintf(folder, sizeof folder, "%s", test_folder());
    shards_count_up(folder, "train_000000.bin", 0, 100);
    ShardsOpen fits = {folder, "train_", 9, 100};
    char output[512];
    CHECK(test_death(shards_open_and_read, &fits, output, sizeof output) == 0, "%s", output);
    SHARDS_EXPECT_DEATH(folder, 9, 99, "token 99 of", "train_000000.bin", "is 99", "99 tokens");
    SHARDS_EXPECT_DEATH(folder, 9, 57, "token 57 of", "is 57"); /* in the middle of a window */
    SHARDS_EXPECT_DEATH(folder, 100, 100, "100 tokens, too few for one window of 100 + 1", "--seq-len");
    fits.seq_len = 99;
    CHECK(test_death(shards_open_and_read, &fits, output, sizeof output) == 0, "%s", output);
}

/* Validation reads windows in file order; each must begin where the one before ended, or some tokens would count
   twice. */
static void test_shards_windows_in_file_order(void) {
    const char *folder = test_folder();
    Dataset d;
    int32_t inputs[7], targets[7];
    shards_count_up(folder, "train_000001.bin", 1000, 22); /* 3 windows of 7 + 1, exactly */
    shards_count_up(folder, "train_000000.bin", 0, 21);    /* 2 windows, 6 tokens left over */
    shards_count_up(folder, "train_000002.bin", 2000, 5);  /* none */
    shards_count_up(folder, "train_000003.bin", 3000, 8);  /* 1 */
    dataset_open(&d, folder, "train_", 7, 4000);
    REQUIRE(d.n_windows == 6, "%llu windows", (unsigned long long)d.n_windows);
    CHECK(d.n_tokens == 56, "%llu tokens", (unsigned long long)d.n_tokens);
    static const int first[6] = {0, 7, 1000, 1007, 1014, 3000};
    for (uint64_t w = 0; w < 6; w++) {
        dataset_window(&d, w, inputs, targets);
        for (int t = 0; t < 7; t++)
            CHECK(inputs[t] == first[w] + t && targets[t] == first[w] + t + 1, "window %d, token %d: %d, %d",
                  (int)w, t, inputs[t], targets[t]);
    }
    dataset_close(&d);
}

/* Each epoch must read every window once, in another order than the epoch before: a window that is left out is never
   learned from. */
static void test_shards_epochs_are_permutations(void) {
    const char *folder = test_folder();
    Dataset d;
    int32_t inputs[3], targets[3];
    shards_count_up(folder, "train_a.bin", 0, 3 * 40 + 1);
    shards_count_up(folder, "train_b.bin", 120, 3 * 57 + 2);
    dataset_open(&d, folder, "train_", 3, 65536);
    REQUIRE(d.n_windows == 97, "%llu windows", (unsigned long long)d.n_windows);
    int order[4][97], same_place[4] = {0}, follows = 0;
    for (int epoch = 0; epoch < 4; epoch++) { /* the last with another seed */
        bool seen[97] = {false};
        for (int i = 0; i < 97; i++) {
            dataset_sample(&d, epoch == 3 ? 8 : 7, (uint64_t)(epoch == 3 ? 0 : epoch * 97) + (uint64_t)i,
                           inputs, targets);
            int w =
                inputs[0] /
                3; /* the tokens of both shards are numbered consecutively, so they tell the window's number */
            CHECK(inputs[0] % 3 == 0 && targets[2] == inputs[0] + 3, "no window begins at %d", inputs[0]);
            CHECK(w < 97 && !seen[w], "epoch %d has window %d twice", epoch, w);
            if (w < 97) seen[w] = true;
            order[epoch][i] = w;
            if (epoch) same_place[epoch] += w == order[0][i];
            if (i && !epoch) follows += w == order[0][i - 1] + 1;
        }
    }
    for (int epoch = 1; epoch < 4; epoch++) /* a random order leaves one in its place on average */
        CHECK(same_place[epoch] < 10, "%d of 97 windows are at the same place in order %d", same_place[epoch],
              epoch);
    CHECK(follows < 10, "%d of 97 windows follow the one before them", follows);
    dataset_close(&d);
}

/* Step s of S sequences reads the samples [s S, (s+1) S), whatever rank reads which of them and in whatever pieces:
   with another number of ranks the same run must see the same data. */
static void test_shards_order_is_independent_of_ranks(void) {
    const char *folder = test_folder();
    Dataset d, again;
    int32_t inputs[5], targets[5];
    enum { STEPS = 6, S = 12 };
    int first[STEPS * S];
    shards_count_up(folder, "train_0.bin", 0, 5 * 50 + 1);
    dataset_open(&d, folder, "train_", 5, 65536);
    for (uint64_t i = 0; i < STEPS * S; i++) dataset_sample(&d, 3, i, inputs, targets), first[i] = inputs[0];
    /* Opened again, as a resumed rank does. */
    for (int ranks = 1; ranks <= 4; ranks++)
        for (int rank = ranks - 1; rank >= 0; rank--) {
            dataset_open(&again, folder, "train_", 5, 65536);
            for (int step = STEPS - 1; step >= 0; step--)
                for (int b = 0; b < S / ranks; b++) {
                    int i = step * S + rank * (S / ranks) + b;
                    dataset_prefetch(&again, 3, (uint64_t)i);
                    dataset_sample(&again, 3, (uint64_t)i, inputs, targets);
                    CHECK(inputs[0] == first[i], "rank %d of %d, step %d: %d instead of %d", rank, ranks,
                          step, inputs[0], first[i]);
                }
            dataset_close(&again);
        }
    dataset_close(&d);
}

/* Of a mixture each folder must get its share of the samples: a wrong share makes another model. */
static void test_shards_weights(void) {
    char one[128], two[128], spec[512], output[1024];
    Dataset d;
    int32_t inputs[2], targets[2];
    snprintf(one, sizeof one, "%s", test_folder());
    snprintf(two, sizeof two, "%s", test_folder());
    shards_count_up(one, "train_0.bin", 0, 2 * 3000 + 1);
    shards_count_up(two, "train_0.bin", 10000, 2 * 77 + 1);
    snprintf(spec, sizeof spec, "%s:0.75,%s:.25", one, two);
    dataset_open(&d, spec, "train_", 2, 65536);
    CHECK(d.n_parts == 2 && d.n_windows == 3077, "%d parts, %llu windows", d.n_parts,
          (unsigned long long)d.n_windows);
    int count[77] = {0}, from_one = 0, switches = 0;
    bool seen[3000] = {false}, before = false;
    for (uint64_t i = 0; i < 3 * DATASET_BLOCK; i++) {
        dataset_sample(&d, 5, i, inputs, targets);
        bool is_one = inputs[0] < 10000;
        from_one += is_one, switches += is_one != before, before = is_one;
        if (is_one) {
            CHECK(!seen[inputs[0] / 2], "window %d twice in its first epoch", inputs[0] / 2);
            seen[inputs[0] / 2] = true;
        } else {
            count[(inputs[0] - 10000) / 2]++;
        }
    }
    CHECK(from_one == 3 * DATASET_BLOCK * 3 / 4, "%d of %d samples", from_one, 3 * DATASET_BLOCK);
    CHECK(switches > 500, "the two alternate %d times only", switches);
    for (int w = 0; w < 77; w++) /* 768 samples of 77 windows: 9 whole epochs and a part of the tenth */
        CHECK(count[w] == 9 || count[w] == 10, "window %d was seen %d times", w, count[w]);
    dataset_window(&d, 3000, inputs, targets);
    CHECK(inputs[0] == 10000, "window 3000 begins with %d", inputs[0]);
    dataset_close(&d);
    snprintf(spec, sizeof spec, "%s:x,%s:1", one, two);
    ShardsOpen bad = {spec, "train_", 2, 65536};
    CHECK(test_death(shards_open_and_read, &bad, output, sizeof output) == 1 && strstr(output, "weight 'x'"),
          "%s", output);
    snprintf(spec, sizeof spec, "%s:1,%s:-1", one, two);
    CHECK(test_death(shards_open_and_read, &bad, output, sizeof output) == 1 && strstr(output, "weight '-1'"),
          "%s", output);
    snprintf(spec, sizeof spec, "%s:1,%s:0.0001", one, two);
    CHECK(test_death(shards_open_and_read, &bad, output, sizeof output) == 1 && strstr(output, "1/1024"),
          "%s", output);
}

/* Shards of ./prepare and of llm.c must be recognised by their names, and no other file may be read as tokens. */
static void test_shards_names(void) {
    CHECK(shard_name_matches("train_000000.bin", "train_"), "ours");
    CHECK(shard_name_matches("fineweb_train_000001.bin", "train_"), "llm.c's fineweb");
    CHECK(shard_name_matches("tiny_shakespeare_train.bin", "train_"), "llm.c's tiny shakespeare");
    CHECK(!shard_name_matches("val_000000.bin", "train_"), "the other split");
    CHECK(!shard_name_matches("train_000000.bin.part", "train_"), "an unfinished shard");
    CHECK(!shard_name_matches("constrain_1.bin", "train_"), "part of a word");
    CHECK(!shard_name_matches("train_000000.txt", "train_"), "no shard");
}

/* A shard beyond 2 GiB and 2^31 tokens must be read to its end; offsets of 32 bits would wrap. The file is sparse,
   so it takes no room. */
static void test_shards_beyond_2_gib(void) {
    const char *folder = test_folder();
    char path[256];
    const uint64_t n = (UINT64_C(1) << 31) + 100001;
    unsigned char header[SHARD_HEADER_BYTES], last[6] = {1, 2, 3, 4, 5, 6};
    Dataset d;
    int32_t inputs[2], targets[2];
    snprintf(path, sizeof path, "%s/train_000000.bin", folder);
    shard_header(header, n);
    FILE *file = check_fopen(path, "wb", "");
    check_fwrite(header, 1, sizeof header, file, path);
    REQUIRE(fseeko(file, (off_t)(SHARD_HEADER_BYTES + 2 * n - 6), SEEK_SET) == 0, "%s", strerror(errno));
    check_fwrite(last, 1, 6, file, path);
    check_fclose(file, path);
    dataset_open(&d, folder, "train_", 2, 65536);
    CHECK(d.n_windows == (n - 1) / 2, "%llu windows", (unsigned long long)d.n_windows);
    dataset_window(&d, d.n_windows - 1, inputs, targets);
    CHECK(inputs[0] == 0x201 && inputs[1] == 0x403 && targets[1] == 0x605, "%x %x %x", inputs[0], inputs[1],
          targets[1]);
    dataset_close(&d);
    unlink(path);
}

/* Every window of many shards of different sizes must be found in the right shard. */
static void test_shards_by_the_hundred(void) {
    enum { N = 300 };
    const char *folder = test_folder();
    char name[64];
    Dataset d;
    int32_t inputs[4], targets[4];
    uint64_t w = 0;
    for (int s = 0; s < N; s++) {
        snprintf(name, sizeof name, "train_%06d.bin", s);
        shards_count_up(folder, name, s, s % 14);
    }
    dataset_open(&d, folder, "train_", 4, 65536);
    for (int s = 0; s < N; s++)
        for (int first = 0; first + 4 < s % 14; first += 4, w++) {
            REQUIRE(w < d.n_windows, "only %llu windows", (unsigned long long)d.n_windows);
            dataset_window(&d, w, inputs, targets);
            CHECK(inputs[0] == s + first, "window %d begins with %d, not with %d", (int)w, inputs[0],
                  s + first);
        }
    CHECK(w == d.n_windows, "%llu windows, expected %llu", (unsigned long long)d.n_windows,
          (unsigned long long)w);
    dataset_close(&d);
}

/* This is the check value with which the CRC-32 of zlib and gzip is published. With another one every manifest would
   be called damaged. */
static void test_shards_crc32(void) {
    char text[9];
    CHECK(checksum_crc32(0, "123456789", 9) == 0xCBF43926u, "%08x", checksum_crc32(0, "123456789", 9));
    CHECK(checksum_crc32(checksum_crc32(0, "1234", 4), "56789", 5) == 0xCBF43926u, "in two parts");
    CHECK(strcmp(checksum_crc32_text(text, 0x1F), "0000001f") == 0, "'%s'", text);
}

typedef struct {
    const char *folder;
    int vocab_size;
    bool sums;
} ShardsManifest;

static void shards_check_manifest(void *argument) {
    const ShardsManifest *m = argument;
    dataset_check_manifest(m->folder, m->vocab_size, m->sums);
}

static inline void shards_write_text(const char *folder, const char *name, const char *text) {
    char *path = file_path(folder, name);
    FILE *file = check_fopen(path, "wb", "");
    check_fwrite(text, 1, strlen(text), file, path);
    check_fclose(file, path);
    free(path);
}

/* A vocabulary or tokenizer that does not belong to the shards must be refused: each token would mean another word. */
static void test_shards_manifest(void) {
    const char *folder = test_folder();
    ShardsManifest m = {folder, 300, false};
    char output[1024];
    int code = test_death(shards_check_manifest, &m, output, sizeof output);
    CHECK(code == 0 && strstr(output, "warning: no manifest"), "code %d: %s", code, output);
    shards_write_text(
        folder, "shards.json",
        "{\"tokenizer\": {\"vocab_size\": 300, \"crc32\": \"cbf43926\"}, \"train\": {\"shards\": []}, "
        "\"val\": {\"shards\": []}}");
    code = test_death(shards_check_manifest, &m, output, sizeof output);
    CHECK(code == 0 && !*output, "code %d: %s", code, output);
    m.vocab_size = 299;
    code = test_death(shards_check_manifest, &m, output, sizeof output);
    CHECK(code == 1 && strstr(output, "vocabulary of 300") && strstr(output, "has 299"), "code %d: %s", code,
          output);
    m.vocab_size = 304; /* a vocabulary padded to a multiple of 16 for speed fits */
    shards_write_text(folder, "tokenizer.json", "123456789");
    code = test_death(shards_check_manifest, &m, output, sizeof output);
    CHECK(code == 0 && !*output, "code %d: %s", code, output);
    shards_write_text(folder, "tokenizer.json", "12345678");
    code = test_death(shards_check_manifest, &m, output, sizeof output);
    CHECK(code == 1 && strstr(output, "9ae0daaf") && strstr(output, "cbf43926"), "code %d: %s", code, output);
    char other[128], spec[512], *first;
    shards_write_text(folder, "tokenizer.json", "123456789");
    snprintf(spec, sizeof spec, "%s", folder);
    folder = spec; /* test_folder() reuses its memory */
    snprintf(other, sizeof other, "%s", test_folder());
    shards_write_text(
        other, "shards.json",
        "{\"tokenizer\": {\"vocab_size\": 300, \"crc32\": \"00000000\"}, \"train\": {\"shards\": []}, "
        "\"val\": {\"shards\": []}}");
    char both[1024];
    snprintf(both, sizeof both, "%.200s:0.5,%s:0.5", spec, other);
    m.folder = both;
    code = test_death(shards_check_manifest, &m, output, sizeof output);
    CHECK(code == 1 && strstr(output, "different tokenizers"), "code %d: %s", code, output);
    CHECK(strcmp(first = dataset_first_folder(both), spec) == 0, "the first folder is '%s'", first);
    free(first);
    CHECK(strcmp(first = dataset_first_folder(spec), spec) == 0, "the first folder is '%s'", first);
    free(first);
    m.folder = spec;
    shards_write_text(folder, "shards.json", "{\"tokenizer\": ");
    code = test_death(shards_check_manifest, &m, output, sizeof output);
    CHECK(code == 1 && strstr(output, "damaged"), "code %d: %s", code, output);
}

/* Of a manifest and its shards, what is missing, of another size, not in the manifest or, with --verify-data,
   changed must be named: the run would train on other data than the user thinks. */
static void test_shards_against_their_manifest(void) {
    static const uint16_t tokens[3] = {1, 2, 3};
    unsigned char bytes[SHARD_HEADER_BYTES + 6];
    char folder[128], path[256], text[1024], output[1024];
    snprintf(folder, sizeof folder, "%s", test_folder());
    snprintf(path, sizeof path, "%s/train_000000.bin", folder);
    shard_write(path, tokens, 3);
    FILE *file = check_fopen(path, "rb", "");
    check_fread(bytes, 1, sizeof bytes, file, path);
    fclose(file);
    snprintf(text, sizeof text,
             "{\"tokenizer\": {\"vocab_size\": 300, \"crc32\": \"0\"}, \"train\": {\"shards\": [{\"file\": "
             "\"train_000000.bin\", \"tokens\": 3, \"crc32\": \"%08x\"}]}, \"val\": {\"shards\": []}}",
             checksum_crc32(0, bytes, sizeof bytes));
    shards_write_text(folder, "shards.json", text);
    ShardsManifest m = {folder, 300, true};
    int code = test_death(shards_check_manifest, &m, output, sizeof output);
    CHECK(code == 0 && !*output, "code %d: %s", code, output);
    static const struct {
        const char *damage, *words;
        bool sums;
    } cases[] = {
        {"printf '\\5' | dd of=train_000000.bin bs=1 seek=1026 conv=notrunc 2> /dev/null",
         "is damaged: its CRC-32", true},
        {"printf '\\5' | dd of=train_000000.bin bs=1 seek=1026 conv=notrunc 2> /dev/null", NULL, false},
        {"truncate -s -2 train_000000.bin", "has 1028 bytes, the manifest beside it says 1030", false},
        {"rm train_000000.bin", "holds 0 train shards, its manifest has 1", false},
        {"cp train_000000.bin train_000001.bin", "holds 2 train shards, its manifest has 1", false},
        {"mv train_000000.bin train_000001.bin", "the shard 'train_000000.bin' is missing", false},
        {"cp train_000000.bin train_.bin", "is not in the manifest", false},
        {"cp train_000000.bin val_000000.bin", "holds 1 val shards, its manifest has 0", false},
        {"sed -i s/val/vax/ shards.json", "has no val shards", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        code = test_command(output, sizeof output, "cd %s && rm -rf ../keep && cp -r . ../keep && { %s; }",
                            folder, cases[i].damage);
        REQUIRE(code == 0, "%s: %s", cases[i].damage, output);
        m.sums = cases[i].sums;
        code = test_death(shards_check_manifest, &m, output, sizeof output);
        CHECK(code == (cases[i].words != NULL) && (!cases[i].words || strstr(output, cases[i].words)),
              "%s: code %d, no '%s' in: %s", cases[i].damage, code, cases[i].words, output);
        code = test_command(output, sizeof output, "cd %s && rm -f ./* && cp -r ../keep/. . && rm -r ../keep",
                            folder);
        REQUIRE(code == 0, "%s", output);
    }
}

#define SHARDS_TESTS(TEST)                                                                                   \
    TEST(shards_folder_errors)                                                                               \
    TEST(shards_file_errors)                                                                                 \
    TEST(shards_token_errors)                                                                                \
    TEST(shards_windows_in_file_order)                                                                       \
    TEST(shards_epochs_are_permutations)                                                                     \
    TEST(shards_order_is_independent_of_ranks)                                                               \
    TEST(shards_weights)                                                                                     \
    TEST(shards_names)                                                                                       \
    TEST(shards_beyond_2_gib)                                                                                \
    TEST(shards_by_the_hundred)                                                                              \
    TEST(shards_crc32)                                                                                       \
    TEST(shards_manifest)                                                                                    \
    TEST(shards_against_their_manifest)

#endif
