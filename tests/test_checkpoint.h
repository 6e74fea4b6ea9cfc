/* test_checkpoint.h: tests of safetensors files, good and bad, of checkpoints that survive kill -9 and a full disk,
   and of the optimizer's moments in parts. */
#ifndef TESTS_TEST_CHECKPOINT_H
#define TESTS_TEST_CHECKPOINT_H

#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include "trainer_files.h"
#include "../gpt/io/checkpoint.h"
#include "../gpt/io/optimizer_state.h"
#include <limits.h>
#include "harness.h"

/* folder/name; the string stays valid for four more calls. */
static inline const char *checkpoint_test_path(const char *folder, const char *name) {
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    size_t n = strlen(folder), m = strlen(name);
    if (n + m + 2 > sizeof paths[0]) die("the path '%s/%s' is too long for a test", folder, name);
    memmove(path, folder, n);
    path[n] = '/';
    memmove(path + n + 1, name, m + 1);
    return path;
}

static inline bool checkpoint_test_exists(const char *folder, const char *name) {
    return access(checkpoint_test_path(folder, name), F_OK) == 0;
}

/* The bytes of a file; the caller frees them. */
static inline unsigned char *checkpoint_test_slurp(const char *path, size_t *size) {
    FILE *file = check_fopen(path, "rb", "");
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = check_calloc(*size + 1);
    check_fread(bytes, 1, *size, file, path);
    check_fclose(file, path);
    return bytes;
}

static inline void checkpoint_test_spill(const char *path, const void *bytes, size_t size) {
    FILE *file = check_fopen(path, "wb", "");
    check_fwrite(bytes, 1, size, file, path);
    check_fclose(file, path);
}

/* A safetensors file with this header and `size` bytes of data. */
static inline void checkpoint_test_spill_header(const char *path, const char *header, size_t size) {
    uint64_t length = strlen(header);
    unsigned char *bytes = check_calloc(8 + length + size);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, length);
    checkpoint_test_spill(path, bytes, 8 + length + size);
    free(bytes);
}

/* Keeps the files of this process from growing beyond `bytes`, like a full disk, until the limit is lifted. */
static inline void checkpoint_test_limit(rlim_t bytes) {
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes == RLIM_INFINITY ? limit.rlim_max : bytes;
    signal(SIGXFSZ, bytes == RLIM_INFINITY ? SIG_DFL : SIG_IGN);
    fflush(NULL);
    setrlimit(RLIMIT_FSIZE, &limit);
}

/* ---- safetensors ---- */

/* A checkpoint whose tensors were read back under another name, or with other numbers, would resume as another
   model. */
static void test_safetensors_round_trip(void) {
    const char *path = checkpoint_test_path(test_folder(), "x.safetensors");
    char error[CHECKPOINT_ERROR_SIZE] = "";
    float *matrix = test_normal(15, 1, 1), *cube = test_normal(24, 1, 2), one = -0.0f, back[4][24];
    matrix[0] = NAN, matrix[1] = -INFINITY, matrix[2] = 1e-45f;
    NamedTensor written[] = {
        {.name = "model.layers.0.self_attn.q_proj.weight", .dimensions = 2, .shape = {3, 5}, .data = matrix},
        {.name = "one", .dimensions = 0, .shape = {0}, .data = &one},
        {.name = "a \"quoted\" \xC3\xA9", .dimensions = 4, .shape = {2, 3, 1, 4}, .data = cube},
        {.name = "empty", .dimensions = 2, .shape = {0, 7}, .data = NULL}};
    NamedTensor read[4];
    for (int i = 0; i < 4; i++) read[i] = written[3 - i], read[i].data = back[3 - i]; /* in any order */
    REQUIRE(safetensors_write(path, written, 4, NULL, error), "%s", error);
    REQUIRE(safetensors_read(path, read, 4, error), "%s", error);
    CHECK(memcmp(back[0], matrix, 15 * 4) == 0, "a matrix came back with other bits");
    CHECK(memcmp(back[1], &one, 4) == 0, "-0 came back as %g", back[1][0]);
    CHECK(memcmp(back[2], cube, 24 * 4) == 0, "a rank 4 tensor came back with other bits");

    size_t size;
    unsigned char *bytes = checkpoint_test_slurp(path, &size);
    uint64_t length;
    memcpy(&length, bytes, 8);
    CHECK((8 + length) % 64 == 0, "the data starts at byte %d", (int)(8 + length));
    CHECK(size == 8 + length + 40 * 4, "the file has %zu bytes, header %d", size, (int)length);
    bytes[8 + length] = 0;
    CHECK(strstr((char *)bytes + 8, "\"__metadata__\":{\"format\":\"pt\"}"), "header %s", bytes + 8);
    free(bytes);

    NamedTensor *all;
    int count;
    REQUIRE(safetensors_load(path, &all, &count, error), "%s", error);
    CHECK(count == 4, "%d tensors", count);
    NamedTensor *found = safetensors_find(all, count, "a \"quoted\" \xC3\xA9");
    REQUIRE(found, "the quoted name is lost");
    CHECK(found->dimensions == 4 && found->shape[1] == 3 && memcmp(found->data, cube, 24 * 4) == 0,
          "%d dimensions", found->dimensions);
    CHECK(!safetensors_find(all, count, "none"), "found a tensor that is not there");
    safetensors_free(all, count);
    free(matrix), free(cube);
}

/* Files of the Python package (safetensors.numpy.save) have sorted names and a header padded to 8 bytes. If they
   could not be read, no model from elsewhere could be used. */
static void test_safetensors_of_the_python_package(void) {
    static const char bytes[] =
        "\xa0\x00\x00\x00\x00\x00\x00\x00"
        "{\"__metadata__\":{\"format\":\"np\"},"
        "\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2,2,1],\"data_offsets\":[0,16]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[1,3],\"data_offsets\":[16,28]}}      "
        "\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00@\x00\x00@@\x00\x00\xc0?\x00\x00\x00\xc0\x00\x00P@";
    const char *path = checkpoint_test_path(test_folder(), "python.safetensors");
    char error[CHECKPOINT_ERROR_SIZE] = "";
    float a[4], b[3];
    NamedTensor tensors[] = {{.name = "b", .dimensions = 2, .shape = {1, 3}, .data = b},
                             {.name = "a.weight", .dimensions = 3, .shape = {2, 2, 1}, .data = a}};
    checkpoint_test_spill(path, bytes, sizeof bytes - 1);
    REQUIRE(safetensors_read(path, tensors, 2, error), "%s", error);
    CHECK(a[0] == 0 && a[1] == 1 && a[2] == 2 && a[3] == 3, "%g %g %g %g", a[0], a[1], a[2], a[3]);
    CHECK(b[0] == 1.5f && b[1] == -2 && b[2] == 3.25f, "%g %g %g", b[0], b[1], b[2]);
}

#define F32_ENTRY(name, shape, begin, end)                                                                   \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

/* A file whose header does not fit its data would make the program read outside of it. */
static void test_safetensors_refuses_bad_headers(void) {
    /* Each is read as a file with the tensors a (2) and b (3), which have 20 bytes of data. */
    static const struct {
        const char *header;
        size_t data;
        const char *error;
    } cases[] = {
        {"", 20, "is not JSON"},
        {"{", 20, "is not JSON"},
        {"[]", 20, "is not JSON"},
        {"{} x", 0, "is not JSON"},
        {"{\"a\":1,", 20, "is not JSON"},
        {"{\"a\":1}", 20, "lacks dtype, shape or data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 20, "lacks dtype, shape or data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 20, "lacks dtype, shape"},
        {"{\"a\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
         "has dtype F64, expected F32, BF16 or F16"},
        {"{" F32_ENTRY("a", "[-2]", "0", "8") "}", 8, "whole numbers"},
        {"{" F32_ENTRY("a", "[1.5]", "0", "8") "}", 8, "whole numbers"},
        {"{" F32_ENTRY("a", "[\"2\"]", "0", "8") "}", 8, "whole numbers"},
        {"{" F32_ENTRY("a", "[1,1,1,1,2]", "0", "8") "}", 8, "0 to 4 whole numbers"},
        {"{" F32_ENTRY("a", "[2]", "0", "8.5") "}", 8, "lies outside"},
        {"{" F32_ENTRY("a", "[2]", "8", "0") "}", 8, "lies outside"},
        {"{" F32_ENTRY("a", "[2]", "-8", "0") "}", 8, "lies outside"},
        {"{" F32_ENTRY("a", "[2]", "0", "1e300") "}", 8, "lies outside"},
        {"{" F32_ENTRY("a", "[2]", "4", "12") "}", 8, "lies outside the 8 bytes"},
        {"{" F32_ENTRY("a", "[2]", "0", "12") "}", 12, "shape (2) has 12 bytes"},
        {"{" F32_ENTRY("a", "[9007199254740992,9007199254740992]", "0", "8") "}", 8, "has 8 bytes"},
        {"{" F32_ENTRY("a", "[2]", "0", "8") "," F32_ENTRY("b", "[3]", "4", "16") "}", 16, "tensors overlap"},
        {"{" F32_ENTRY("a", "[2]", "0", "8") "," F32_ENTRY("b", "[3]", "12", "24") "}", 24, "a gap"},
        {"{" F32_ENTRY("a", "[2]", "0", "8") "," F32_ENTRY("b", "[3]", "8", "20") "}", 22,
         "has 2 bytes after"},
        {"{" F32_ENTRY("a", "[2]", "0", "8") "," F32_ENTRY("a", "[3]", "8", "20") "}", 20, "'a' twice"},
        {"{" F32_ENTRY("a", "[2]", "0", "8") "}", 8, "has no tensor 'b'"},
        {"{}", 0, "has no tensor 'a'"},
        {"{" F32_ENTRY("a", "[2]", "0", "8") "," F32_ENTRY("b", "[3,1]", "8", "20") "}", 20,
         "'b' has shape (3, 1), expected (3)"},
        {"{" F32_ENTRY("a", "[]", "0", "4") "," F32_ENTRY("b", "[3]", "4", "16") "}", 16,
         "'a' has shape (), expected (2)"},
        {"{" F32_ENTRY("a", "[2]", "0", "8") "," F32_ENTRY("b", "[3]", "8",
                                                           "20") "," F32_ENTRY("c", "[0]", "20", "20") "}",
         20, "holds tensor 'c', which this model does not have"},
    };
    const char *path = checkpoint_test_path(test_folder(), "bad.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float a[2], b[3];
        NamedTensor tensors[] = {{.name = "a", .dimensions = 1, .shape = {2}, .data = a},
                                 {.name = "b", .dimensions = 1, .shape = {3}, .data = b}};
        char error[CHECKPOINT_ERROR_SIZE] = "no error";
        checkpoint_test_spill_header(path, cases[i].header, cases[i].data);
        bool ok = safetensors_read(path, tensors, 2, error);
        CHECK(!ok && strstr(error, cases[i].error) && strstr(error, path),
              "header %s: '%s' should name the file and say '%s'", cases[i].header, error, cases[i].error);
    }
    char error[CHECKPOINT_ERROR_SIZE] = "no error";
    CHECK(!safetensors_read("/nowhere/x", NULL, 0, error) && strstr(error, "No such file"), "'%s'", error);
    CHECK(!safetensors_read("/", NULL, 0, error) && strstr(error, "is a folder, expected a regular file"),
          "'%s'", error);
}

/* A file that is cut short anywhere must be refused. With any byte of the header changed it may be refused or read,
   but the program must not crash. */
static void test_safetensors_survives_damage(void) {
    const char *path = checkpoint_test_path(test_folder(), "x.safetensors");
    char error[CHECKPOINT_ERROR_SIZE] = "";
    float a[6] = {1, 2, 3, 4, 5, 6}, b[2] = {7, 8};
    NamedTensor tensors[] = {{.name = "a", .dimensions = 2, .shape = {2, 3}, .data = a},
                             {.name = "b", .dimensions = 1, .shape = {2}, .data = b}};
    REQUIRE(safetensors_write(path, tensors, 2, NULL, error), "%s", error);
    size_t size;
    unsigned char *bytes = checkpoint_test_slurp(path, &size);
    for (size_t n = 0; n < size; n++) {
        checkpoint_test_spill(path, bytes, n);
        CHECK(!safetensors_read(path, tensors, 2, error), "a file cut to %zu of %zu bytes was read", n, size);
    }
    uint64_t header;
    memcpy(&header, bytes, 8);
    int refused = 0;
    for (size_t i = 0; i < 8 + header; i++) {
        unsigned char was = bytes[i];
        bytes[i] ^= (unsigned char)(1 << i % 8);
        checkpoint_test_spill(path, bytes, size);
        refused += !safetensors_read(path, tensors, 2, error);
        bytes[i] = was;
    }
    CHECK(refused > 100, "only %d of %d changed bytes of the header were refused", refused, (int)header + 8);
    free(bytes);
}

/* A file that did not fit on the disk must be reported, not taken for complete. */
static void test_safetensors_full_disk(void) {
    const char *folder = test_folder(), *path = checkpoint_test_path(folder, "x.safetensors");
    char error[CHECKPOINT_ERROR_SIZE] = "", device_error[CHECKPOINT_ERROR_SIZE] = "";
    float *data = test_normal(100000, 1, 1);
    NamedTensor tensor = {.name = "a", .dimensions = 1, .shape = {100000}, .data = data};
    checkpoint_test_limit(65536);
    bool written = safetensors_write(path, &tensor, 1, NULL, error);
    checkpoint_test_limit(RLIM_INFINITY);
    CHECK(!written && strstr(error, path), "'%s' should name the file", error);
    CHECK(!checkpoint_test_exists(folder, "x.safetensors"), "half a file stayed");
    if (access("/dev/full", W_OK) == 0) {
        CHECK(!safetensors_write("/dev/full", &tensor, 1, NULL, device_error) &&
                  strstr(device_error, "No space left"),
              "'%s' should say that no space is left", device_error);
        CHECK(access("/dev/full", F_OK) == 0, "the device was removed");
    }
    free(data);
}

/* ---- checkpoints ---- */

/* Saves a checkpoint in which every number is the step: 1000 + 7 numbers in two files, and two small files. */
static inline bool checkpoint_test_save(const char *run, long step, char *error) {
    static float a[1000], b[7];
    Checkpoint c;
    for (int i = 0; i < 1000; i++) a[i] = (float)step;
    for (int i = 0; i < 7; i++) b[i] = (float)step;
    NamedTensor model = {.name = "a", .dimensions = 1, .shape = {1000}, .data = a},
                optimizer = {.name = "b", .dimensions = 1, .shape = {7}, .data = b};
    cJSON *state = cJSON_CreateObject();
    cJSON_AddNumberToObject(state, "step", (double)step);
    bool ok =
        checkpoint_begin(&c, run, step, error) &&
        safetensors_write(checkpoint_test_path(c.folder, "model.safetensors"), &model, 1, NULL, error) &&
        safetensors_write(checkpoint_test_path(c.folder, "optimizer-00000-of-00001.safetensors"), &optimizer,
                          1, NULL, error) &&
        checkpoint_write_bytes(&c, "tokenizer.json", "{}", 2, error) &&
        checkpoint_write_json(&c, "trainer_state.json", state, error);
    cJSON_Delete(state);
    if (!ok) return checkpoint_abort(&c), false;
    return checkpoint_commit(&c, error);
}

/* Whether the folder holds what checkpoint_test_save(step) wrote. */
static inline bool checkpoint_test_check(const char *folder, long step, char *error) {
    float a[1000], b[7];
    NamedTensor model = {.name = "a", .dimensions = 1, .shape = {1000}, .data = a},
                optimizer = {.name = "b", .dimensions = 1, .shape = {7}, .data = b};
    if (!checkpoint_verify(folder, NULL, error) ||
        !safetensors_read(checkpoint_test_path(folder, "model.safetensors"), &model, 1, error) ||
        !safetensors_read(checkpoint_test_path(folder, "optimizer-00000-of-00001.safetensors"), &optimizer, 1,
                          error))
        return false;
    for (int i = 0; i < 1000; i++)
        if (a[i] != (float)step || b[i % 7] != (float)step)
            return file_fail(error, "number %d of step %ld is %g", i, step, a[i]);
    return true;
}

/* A run folder. */
static inline const char *checkpoint_test_run(void) {
    static char run[256];
    const char *folder = test_folder();
    snprintf(run, sizeof run, "%s/run", folder);
    if (mkdir(run, 0777) != 0) die("cannot create '%s'", run);
    return run;
}

static inline long checkpoint_test_latest(const char *run, long before) {
    char path[512];
    long step = -7;
    return checkpoint_latest(run, before, path, sizeof path, &step) ? step : -1;
}

/* A checkpoint that has DONE must have all of its files, under its final name. */
static void test_checkpoint_commit(void) {
    const char *run = checkpoint_test_run();
    char error[CHECKPOINT_ERROR_SIZE] = "", path[512];
    long step;
    CHECK(checkpoint_test_latest(run, -1) == -1, "a checkpoint in an empty folder");
    REQUIRE(checkpoint_test_save(run, 500, error), "%s", error);
    REQUIRE(checkpoint_test_save(run, 1500, error), "%s", error);
    REQUIRE(checkpoint_test_save(run, 1000, error), "%s", error);
    REQUIRE(checkpoint_latest(run, -1, path, sizeof path, &step), "no checkpoint after three");
    CHECK(step == 1500 && strstr(path, "/run/step-00001500"), "step %ld at '%s'", step, path);
    CHECK(checkpoint_test_check(path, 1500, error), "%s", error);
    CHECK(checkpoint_test_latest(run, 1500) == 1000, "before 1500: %ld", checkpoint_test_latest(run, 1500));
    CHECK(checkpoint_test_latest(run, 500) == -1, "before 500: %ld", checkpoint_test_latest(run, 500));
    CHECK(!checkpoint_latest(run, -1, path, 8, &step), "a path cut to 8 bytes was returned");

    struct dirent **names;
    int count = scandir(run, &names, checkpoint_is_file_name, alphasort);
    CHECK(count == 3, "%d entries in the run folder, expected the three checkpoints", count);
    for (int i = 0; i < count; i++) free(names[i]);
    free(names);
    CHECK(!checkpoint_begin(&(Checkpoint){0}, checkpoint_test_path(run, "none"), 1, error) &&
              strstr(error, "/run/none"),
          "'%s' should name the folder", error);
}

/* xxhsum 0.8 printed these sums for the bytes (7 i + 3) mod 251. With other sums `xxhsum -c DONE` would call good
   checkpoints damaged. */
static void test_checkpoint_sums_are_xxh64(void) {
    static const struct {
        int size;
        uint64_t sum;
    } cases[] = {{0, 0xef46db3751d8e999},  {1, 0x1f25c8d0bc1f4bb6},   {31, 0xa2aa5f33cc4a6119},
                 {32, 0x23c3c17ef790fd97}, {100, 0x778e26df8290f456}, {(1 << 20) + 5, 0x9d3706378e3348ed}};
    const char *path = checkpoint_test_path(test_folder(), "x");
    unsigned char *bytes = check_calloc((1 << 20) + 5);
    for (int i = 0; i < (1 << 20) + 5; i++) bytes[i] = (unsigned char)((i * 7 + 3) % 251);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char error[CHECKPOINT_ERROR_SIZE] = "";
        uint64_t sum = 0;
        checkpoint_test_spill(path, bytes, (size_t)cases[i].size);
        CHECK(checksum_file(path, false, &sum, error) && sum == cases[i].sum,
              "%d bytes: %016" PRIx64 ", expected %016" PRIx64 " %s", cases[i].size, sum, cases[i].sum,
              error);
    }
    free(bytes);
}

/* A checkpoint with a changed byte must not be loaded: the model would be wrong without an error. */
static void test_checkpoint_verify_finds_damage(void) {
    static const char *const files[] = {"DONE", "model.safetensors", "tokenizer.json", "trainer_state.json"};
    const char *run = checkpoint_test_run();
    char error[CHECKPOINT_ERROR_SIZE] = "", folder[256];
    REQUIRE(checkpoint_test_save(run, 7, error), "%s", error);
    snprintf(folder, sizeof folder, "%.200s/step-00000007", run);
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        size_t size;
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, files[f]);
        unsigned char *bytes = checkpoint_test_slurp(path, &size);
        for (size_t i = 0; i<size; i += size> 1000 ? 37 : 1) {
            unsigned char was = bytes[i];
            bytes[i] ^= (unsigned char)(1 << i % 8);
            checkpoint_test_spill(path, bytes, size);
            CHECK(!checkpoint_verify(folder, NULL, error) && strstr(error, folder),
                  "byte %zu of %s changed, not noticed: %s", i, files[f], error);
            bytes[i] = was;
            checkpoint_test_spill(path, bytes, i);
            CHECK(!checkpoint_verify(folder, NULL, error), "%s cut to %zu bytes, not noticed", files[f], i);
        }
        unlink(path);
        CHECK(!checkpoint_verify(folder, NULL, error) && strstr(error, files[f]), "'%s' should name %s",
              error, files[f]);
        checkpoint_test_spill(path, bytes, size);
        CHECK(checkpoint_test_check(folder, 7, error), "restored, but %s", error);
        free(bytes);
    }
}

/* Only complete checkpoints count. What a killed run left must be removed when the next checkpoint begins, and
   nothing else: otherwise a run would resume from half a checkpoint, or lose a good one. */
static void test_checkpoint_leftovers(void) {
    static const char *const kept[] = {"step-00000300", "step-5", "step-00000020.tmpx", "log.jsonl.tmp"};
    static const char *const gone[] = {"step-00000900.tmp", "step-00000950.tmp"};
    const char *run = checkpoint_test_run();
    char error[CHECKPOINT_ERROR_SIZE] = "", path[512], old[512];
    long step = -1;
    REQUIRE(checkpoint_test_save(run, 100, error) && checkpoint_test_save(run, 200, error), "%s", error);
    for (size_t i = 0; i < 4; i++) mkdir(checkpoint_test_path(run, kept[i]), 0777);
    for (size_t i = 0; i < 2; i++) {
        mkdir(checkpoint_test_path(run, gone[i]), 0777);
        mkdir(checkpoint_test_path(checkpoint_test_path(run, gone[i]), "deep"), 0777);
        checkpoint_test_spill(checkpoint_test_path(checkpoint_test_path(run, gone[i]), "DONE"), "", 0);
    }
    /* A kill between the two renames of a replacement leaves only the old checkpoint of step 200. */
    snprintf(path, sizeof path, "%s/step-00000200", run);
    snprintf(old, sizeof old, "%s/step-00000200.old", run);
    rename(path, old);
    CHECK(checkpoint_latest(run, -1, path, sizeof path, &step) && step == 200 && strcmp(path, old) == 0,
          "step %ld at '%s', expected '%s'", step, path, old);
    CHECK(checkpoint_test_check(path, 200, error), "%s", error);

    REQUIRE(checkpoint_test_save(run, 1000, error), "%s", error);
    for (size_t i = 0; i < 4; i++) CHECK(checkpoint_test_exists(run, kept[i]), "'%s' was removed", kept[i]);
    for (size_t i = 0; i < 2; i++)
        CHECK(!checkpoint_test_exists(run, gone[i]), "'%s' is still there", gone[i]);
    CHECK(checkpoint_test_exists(run, "step-00000200/DONE"), "the old checkpoint did not come back");
    CHECK(!checkpoint_test_exists(run, "step-00000200.old"), "the old name is still there");
    CHECK(checkpoint_test_latest(run, 1000) == 200, "before 1000: %ld", checkpoint_test_latest(run, 1000));

    REQUIRE(checkpoint_test_save(run, 200, error), "the same step again: %s", error);
    CHECK(!checkpoint_test_exists(run, "step-00000200.old"), "a replaced checkpoint stayed");
    CHECK(checkpoint_test_check(checkpoint_test_path(run, "step-00000200"), 200, error), "%s", error);
}

/* --keep and --keep-every must remove neither the checkpoints that they are to keep nor fewer than they should,
   which would fill the disk. */
static void test_checkpoint_prune(void) {
    const char *run = checkpoint_test_run();
    char error[CHECKPOINT_ERROR_SIZE] = "", name[64];
    for (long step = 100; step <= 1000; step += 100)
        REQUIRE(checkpoint_test_save(run, step, error), "%s", error);
    checkpoint_prune(run, LONG_MAX, 0, 0);
    CHECK(checkpoint_test_exists(run, "step-00000100"), "keep=0 keeps all, yet one is gone");
    mkdir(checkpoint_test_path(run, "step-00002000"), 0777); /* has no DONE: neither counted nor removed */
    checkpoint_prune(run, LONG_MAX, 3, 400);
    for (long step = 100; step <= 1000; step += 100) {
        checkpoint_name(name, step, CHECKPOINT_FINAL);
        bool expected = step >= 800 || step % 400 == 0;
        CHECK(checkpoint_test_exists(run, name) == expected, "%s should %s", name, expected ? "stay" : "go");
    }
    CHECK(checkpoint_test_exists(run, "step-00002000"), "a folder without DONE was removed");
    CHECK(!checkpoint_test_exists(run, "step-00000100.tmp"), "a removed checkpoint's temporary name stayed");
    checkpoint_prune(
        run, 900, 1,
        0); /* the run passed over step 1000, which is damaged: 900 must stay, and 1000 is not touched */
    CHECK(checkpoint_test_exists(run, "step-00000900") && checkpoint_test_exists(run, "step-00001000") &&
              !checkpoint_test_exists(run, "step-00000800"),
          "a later checkpoint counts among those to keep");
    checkpoint_prune(run, LONG_MAX, 1, 0);
    CHECK(checkpoint_test_latest(run, -1) == 1000 && checkpoint_test_latest(run, 1000) == -1,
          "left: %ld, %ld", checkpoint_test_latest(run, -1), checkpoint_test_latest(run, 1000));
}

/* When the disk is full, the error must say so, and the older checkpoints must stay. */
static void test_checkpoint_full_disk(void) {
    const char *run = checkpoint_test_run();
    char error[CHECKPOINT_ERROR_SIZE] = "", later[CHECKPOINT_ERROR_SIZE] = "";
    REQUIRE(checkpoint_test_save(run, 10, error), "%s", error);
    checkpoint_test_limit(2048); /* the model has 4,000 bytes */
    bool first = checkpoint_test_save(run, 20, error);
    checkpoint_test_limit(16); /* so small that even DONE and JSON files do not fit */
    Checkpoint c;
    bool begun = checkpoint_begin(&c, run, 10, later);
    bool second =
        begun && checkpoint_write_bytes(&c, "tokenizer.json", "{}", 2, later) && checkpoint_commit(&c, later);
    checkpoint_test_limit(RLIM_INFINITY);
    CHECK(!first && strstr(error, "step-00000020.tmp/model.safetensors"), "'%s' should name the file", error);
    CHECK(begun && !second && strstr(later, "step-00000010.tmp/DONE"), "'%s' should name DONE", later);
    CHECK(!checkpoint_test_exists(run, "step-00000020.tmp") &&
              !checkpoint_test_exists(run, "step-00000010.tmp"),
          "a temporary folder stayed");
    CHECK(checkpoint_test_latest(run, -1) == 10, "latest is %ld", checkpoint_test_latest(run, -1));
    CHECK(checkpoint_test_check(checkpoint_test_path(run, "step-00000010"), 10, error), "%s", error);
    REQUIRE(checkpoint_test_save(run, 30, error), "with space again: %s", error);
}

/* Checks that every checkpoint that has DONE is complete, and that the newest is of step `least` or later. Returns
   its step. */
static inline long checkpoint_test_all_whole(const char *run, long least, int round) {
    char error[CHECKPOINT_ERROR_SIZE] = "", path[512];
    long newest = -1, step;
    for (long before = -1; checkpoint_latest(run, before, path, sizeof path, &step); before = step) {
        CHECK(checkpoint_test_check(path, step, error), "round %d: %s", round, error);
        if (newest < 0) newest = step;
    }
    CHECK(newest >= least, "round %d: the newest is %ld, %ld had been committed", round, newest, least);
    return newest;
}

/* A child saves each step twice, the second time over the first, and removes all older ones; it is killed at any
   moment, many times. A complete checkpoint must be there after every kill, or the user would lose the run. */
static void test_checkpoint_survives_kill(void) {
    const char *run = checkpoint_test_run();
    char error[CHECKPOINT_ERROR_SIZE] = "";
    long newest = 1, torn = 0;
    volatile long *committed =
        mmap(NULL, sizeof *committed, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(committed != MAP_FAILED, "mmap: %s", strerror(errno));
    const double begin = seconds_now();
    REQUIRE(checkpoint_test_save(run, *committed = 1, error), "%s", error);
    const double save_time = seconds_now() - begin;
    /* A child lives for a few saves, however slow the disk is. */
    double longest = fmin(10 * save_time + 0.01, 0.2);
    for (int round = 0; round < 60; round++) {
        fflush(NULL);
        pid_t child = fork();
        REQUIRE(child >= 0, "fork: %s", strerror(errno));
        if (child == 0) {
            for (long save = 2 * newest + 1;; save++) {
                if (!checkpoint_test_save(run, save / 2, error)) _exit(1);
                *committed = save / 2;
                checkpoint_prune(run, LONG_MAX, 1, 0);
            }
        }
        struct timespec moment = {0,
                                  (long)(1e9 * longest * rng_uniform(1, RNG_STREAM_TEST, (uint64_t)round))};
        nanosleep(&moment, NULL);
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        REQUIRE(WIFSIGNALED(status), "the child ended by itself, code %d", WEXITSTATUS(status));
        newest = checkpoint_test_all_whole(run, *committed, round);
        REQUIRE(newest > 0, "round %d: no checkpoint is left", round);
        struct dirent **names;
        int count = scandir(run, &names, checkpoint_is_file_name, alphasort);
        for (int i = 0; i < count; i++) torn += strstr(names[i]->d_name, ".tmp") != NULL, free(names[i]);
        free(names);
    }
    munmap((void *)(uintptr_t)committed, sizeof *committed);
    CHECK(newest > 3, "only %ld checkpoints were written", newest);
    CHECK(torn > 0, "no kill fell into the writing of a checkpoint");
    REQUIRE(checkpoint_test_save(run, newest + 1, error), "%s", error);
}

/* ---- the optimizer's state in parts ---- */

/* A table like that of a small model: matrices and vectors in turns. */
static TensorTable moments_test_table(Tensor tensors[4]) {
    static const int64_t shapes[4][2] = {{7, 5}, {11, 0}, {3, 3}, {1, 0}};
    TensorTable table = {.tensors = tensors, .count = 4};
    for (int i = 0; i < 4; i++) {
        tensors[i] = (Tensor){.dimensions = shapes[i][1] ? 2 : 1,
                              .shape = {shapes[i][0], shapes[i][1]},
                              .offset = table.floats};
        tensors[i].count = (size_t)shapes[i][0] * (size_t)(shapes[i][1] ? shapes[i][1] : 1);
        snprintf(tensors[i].name, sizeof tensors[i].name, "layers.%d.weight", i);
        table.floats += tensors[i].count;
    }
    return table;
}

/* The ranges of part `part` of `parts` when every bucket of 16 floats is divided among all parts. */
static int moments_test_ranges(FloatRange ranges[8], size_t floats, int part, int parts) {
    int count = 0;
    for (size_t bucket = 0; bucket < floats; bucket += 16) {
        size_t size = floats - bucket < 16 ? floats - bucket : 16;
        FloatRange r = {bucket + size * (size_t)part / (size_t)parts,
                        bucket + size * (size_t)(part + 1) / (size_t)parts};
        if (r.begin < r.end) ranges[count++] = r;
    }
    return count;
}

/* Moments that several ranks wrote must be read correctly by any other number of ranks: a run that resumes on
   another number of machines would otherwise get the moments of other parameters. */
static void test_moments_reshard(void) {
    Tensor tensors[4];
    const TensorTable table = moments_test_table(tensors);
    const size_t n = table.floats;
    float *mean = test_normal(n, 1, 1), *square = test_normal(n, 1, 2), part_mean[64], part_square[64];
    char error[CHECKPOINT_ERROR_SIZE] = "", folder[256];
    uint64_t sum, again;
    FloatRange ranges[8];
    for (int parts = 1; parts <= 5; parts++) {
        snprintf(folder, sizeof folder, "%s", test_folder());
        for (int part = 0; part < parts; part++) { /* as each rank writes the moments that it keeps */
            Moments m = {&table, ranges, moments_test_ranges(ranges, n, part, parts), part_mean, part_square};
            size_t held = 0;
            for (int r = 0; r < m.range_count; r++)
                for (size_t i = ranges[r].begin; i < ranges[r].end; i++, held++)
                    part_mean[held] = mean[i], part_square[held] = square[i];
            REQUIRE(moments_write(folder, part, parts, &m, &sum, error), "%s", error);
            char name[64];
            moments_part_name(name, part, parts);
            CHECK(checksum_file(checkpoint_test_path(folder, name), false, &again, error) && sum == again,
                  "the sum while writing is not the file's");
        }
        for (int readers = 1; readers <= 5; readers++)
            for (int reader = 0; reader < readers; reader++) {
                Moments m = {&table, ranges, moments_test_ranges(ranges, n, reader, readers), part_mean,
                             part_square};
                memset(part_mean, 0, sizeof part_mean), memset(part_square, 0, sizeof part_square);
                REQUIRE(moments_read(folder, parts, &m, error), "%s", error);
                size_t held = 0, wrong = 0;
                for (int r = 0; r < m.range_count; r++)
                    for (size_t i = ranges[r].begin; i < ranges[r].end; i++, held++)
                        wrong += part_mean[held] != mean[i] || part_square[held] != square[i];
                CHECK(wrong == 0, "%d parts, reader %d of %d: %zu of %zu numbers differ", parts, reader,
                      readers, wrong, held);
            }
    }
    free(mean), free(square);
}

/* Parts that leave a gap or overlap, and moments of another model, must be refused: AdamW would go on with the
   moments of other parameters. */
static void test_moments_refuse_what_does_not_fit(void) {
    Tensor tensors[4];
    TensorTable table = moments_test_table(tensors);
    const size_t n = table.floats;
    float memory[64] = {0}, other[64] = {0};
    const char *folder = test_folder();
    char error[CHECKPOINT_ERROR_SIZE] = "";
    uint64_t sum;
    const FloatRange all = {0, n}, first = {0, 20}, second = {20, n}, late = {21, n}, early = {19, n};
    const struct {
        FloatRange range; /* of the second part */
        const char *says;
    } cases[] = {{late, "number 20 of 56 of 'mean' is missing"},
                 {early, "number 20 of 56 of 'mean' is there twice"}};
    Moments wanted = {&table, &all, 1, memory, other}, part = {&table, &first, 1, memory, other};
    REQUIRE(moments_write(folder, 0, 2, &part, &sum, error), "%s", error);
    CHECK(!moments_read(folder, 2, &wanted, error) && strstr(error, "optimizer-00001-of-00002.safetensors"),
          "'%s' should name the missing part", error);
    for (size_t i = 0; i < 2; i++) {
        part.ranges = &cases[i].range;
        REQUIRE(moments_write(folder, 1, 2, &part, &sum, error), "%s", error);
        CHECK(!moments_read(folder, 2, &wanted, error) && strstr(error, cases[i].says),
              "'%s' should say '%s'", error, cases[i].says);
    }
    part.ranges = &second;
    REQUIRE(moments_write(folder, 1, 2, &part, &sum, error), "%s", error);
    CHECK(moments_read(folder, 2, &wanted, error), "%s", error);
    tensors[2].shape[0] = 9, tensors[2].shape[1] = 1; /* another model with as many numbers */
    CHECK(!moments_read(folder, 2, &wanted, error) &&
              strstr(error, "layers.2.weight' has shape (3, 3), the model's"),
          "'%s'", error);
    snprintf(tensors[2].name, sizeof tensors[2].name, "other");
    CHECK(!moments_read(folder, 2, &wanted, error) && strstr(error, "which this model does not have"), "'%s'",
          error);
}

#define CHECKPOINT_TESTS(TEST)                                                                               \
    TEST(safetensors_round_trip)                                                                             \
    TEST(safetensors_of_the_python_package)                                                                  \
    TEST(safetensors_refuses_bad_headers)                                                                    \
    TEST(safetensors_survives_damage)                                                                        \
    TEST(safetensors_full_disk)                                                                              \
    TEST(checkpoint_commit)                                                                                  \
    TEST(checkpoint_sums_are_xxh64)                                                                          \
    TEST(checkpoint_verify_finds_damage)                                                                     \
    TEST(checkpoint_leftovers)                                                                               \
    TEST(checkpoint_prune)                                                                                   \
    TEST(checkpoint_full_disk)                                                                               \
    TEST(checkpoint_survives_kill)                                                                           \
    TEST(moments_reshard)                                                                                    \
    TEST(moments_refuse_what_does_not_fit)

#endif
