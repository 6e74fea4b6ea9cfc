/* test_prepare.h: tests of ./prepare as a whole, on text that they write: every document comes out as it went in,
   from every kind of input, with any number of threads, after any number of kills. */
#ifndef TESTS_TEST_PREPARE_H
#define TESTS_TEST_PREPARE_H

#include <time.h>
#include <zlib.h>
#include "harness.h"
#include "test_fetch.h"
#include "test_fuzz.h"
#include "../gpt/io/shards.h"
#include "../gpt/io/tokenizer.h"

/* n documents of a few words to a few hundred, with line breaks, quotes and characters beyond ASCII, but no blank
   lines. The caller frees each and the list. */
static inline char **prepare_documents(int n, uint64_t seed) {
    static const char *const words[] = {"the",     "lamp",   "river",   "carries", "old",    "\"stones\"",
                                        "to",      "a",      "field",   "where",   "nobody", "café",
                                        "sings",   "\\",     "Привет",  "and",     "42",     "don't",
                                        "wait",    "日本語", "softly,", "then",    "it",     "was",
                                        "gone.\n", "Over",   "again;",  "\t",      "why?",   "because"};
    char **documents = check_calloc((size_t)n * sizeof *documents);
    for (int d = 0; d < n; d++) {
        uint64_t count = 5 + rng_bits(seed, RNG_STREAM_TEST, (uint64_t)d) % 200;
        char *at = documents[d] = check_calloc(count * 16 + 64);
        at += sprintf(at, "Document %d", d);
        for (uint64_t w = 0; w < count; w++)
            at += sprintf(at, " %s",
                          words[rng_bits(seed + 1, RNG_STREAM_TEST, (uint64_t)d << 16 | w) %
                                (sizeof words / sizeof *words)]);
    }
    return documents;
}

static inline void prepare_free(char **documents, int n) {
    for (int d = 0; d < n; d++) free(documents[d]);
    free(documents);
}

/* Documents [first, end) as JSON lines, gzipped when the name says so. */
static inline void prepare_write_lines(const char *folder, const char *name, char **documents, int first,
                                       int end) {
    char *path = file_path(folder, name);
    gzFile file = gzopen(path, strstr(name, ".gz") ? "wb1" : "wbT");
    if (!file) die("cannot write '%s'", path);
    for (int d = first; d < end; d++) {
        cJSON *json = cJSON_CreateObject();
        cJSON_AddStringToObject(json, "url", "https://example.org/");
        cJSON_AddStringToObject(json, "text", documents[d]);
        char *text = cJSON_PrintUnformatted(json);
        gzputs(file, text), gzputs(file, "\n");
        cJSON_free(text), cJSON_Delete(json);
    }
    gzclose(file);
    free(path);
}

/* The tokens of all shards of a split, one after the other, and how many. */
static inline uint16_t *prepare_tokens(const char *folder, const char *prefix, size_t *n) {
    Dataset d;
    dataset_open(&d, folder, prefix, 1, 65536);
    uint16_t *tokens = check_calloc((d.n_tokens + 1) * sizeof *tokens);
    *n = 0;
    for (int s = 0; s < d.parts[0].n_shards; s++) {
        const Shard *shard = &d.parts[0].shards[s];
        for (uint64_t i = 0; i < shard->n_tokens; i++) {
            const unsigned char *p = shard->map + SHARD_HEADER_BYTES + 2 * i;
            tokens[(*n)++] = (uint16_t)(p[0] | p[1] << 8);
        }
    }
    dataset_close(&d);
    return tokens;
}

/* The text of a split, every document after a byte 1. */
static inline char *prepare_text(const char *folder, const char *prefix, size_t *n) {
    Tokenizer *t = tokenizer_load(folder);
    size_t count, length;
    uint16_t *tokens = prepare_tokens(folder, prefix, &count);
    char *text = check_calloc(count * 64 + 1), *at = text;
    for (size_t i = 0; i < count; i++) {
        const char *bytes = tokenizer_decode_token(t, tokens[i], &length);
        if (tokens[i] == tokenizer_end_of_text(t)) bytes = "\1", length = 1;
        if (length > 64) die("a token of %zu bytes", length);
        memcpy(at, bytes, length), at += length;
    }
    *n = (size_t)(at - text);
    tokenizer_free(t), free(tokens);
    return text;
}

static inline bool prepare_same_file(const char *one, const char *two, const char *name) {
    char output[256];
    return test_command(output, sizeof output, "cmp '%s/%s' '%s/%s'", one, name, two, name) == 0;
}

#define PREPARE(output, ...) test_command(output, sizeof output, __VA_ARGS__)

/* Every document must come out once, in training or in validation, exactly as it went in: a lost or changed document
   would be missed by nobody. */
static void test_prepare_keeps_every_document(void) {
    enum { N = 300 };
    char folder[128], out[160], output[4096];
    snprintf(folder, sizeof folder, "%s", test_folder());
    snprintf(out, sizeof out, "%s/out", folder);
    char **documents = prepare_documents(N, 1);
    prepare_write_lines(folder, "a.jsonl.gz", documents, 0, N);
    int code = PREPARE(output, "%s/prepare --out=%s --vocab=600 --val-fraction=0.1 %s/a.jsonl.gz",
                       test_binaries(), out, folder);
    REQUIRE(code == 0, "code %d: %s", code, output);
    size_t n[2];
    char *text[2] = {prepare_text(out, "train_", &n[0]), prepare_text(out, "val_", &n[1])},
         *at[2] = {text[0], text[1]};
    int count[2] = {0, 0};
    for (int d = 0; d < N; d++) {
        size_t length = strlen(documents[d]);
        int split = at[1] + 1 + length <= text[1] + n[1] && memcmp(at[1] + 1, documents[d], length) == 0;
        REQUIRE(at[split] + 1 + length <= text[split] + n[split] && at[split][0] == 1 &&
                    memcmp(at[split] + 1, documents[d], length) == 0,
                "document %d is missing", d);
        at[split] += 1 + length, count[split]++;
    }
    CHECK(at[0] == text[0] + n[0] && at[1] == text[1] + n[1], "there is more than the documents");
    CHECK(count[1] >= 10 && count[1] <= 60, "%d of %d documents went to validation at 10 %%", count[1], N);
    code = PREPARE(output, "%s/prepare --out=%s --verify", test_binaries(), out);
    CHECK(code == 0, "verify: code %d: %s", code, output);
    free(text[0]), free(text[1]), prepare_free(documents, N);
}

/* The same documents must give the same shards from every kind of input: plain, compressed, several files or one. */
static void test_prepare_inputs_are_equal(void) {
    enum { N = 90 };
    char folder[128], output[4096], name[64];
    const char *run = test_binaries();
    snprintf(folder, sizeof folder, "%s", test_folder());
    char **documents = prepare_documents(N, 2);
    CHECK(PREPARE(output, "mkdir %s/txt %s/parts", folder, folder) == 0, "%s", output);
    prepare_write_lines(folder, "a.jsonl.gz", documents, 0, N);
    prepare_write_lines(folder, "a.jsonl", documents, 0, N);
    prepare_write_lines(folder, "parts/1.json", documents, 0, 33);
    prepare_write_lines(folder, "parts/2.ndjson.gz", documents, 33, N);
    for (int d = 0; d < N; d++) {
        snprintf(name, sizeof name, "txt/%04d.txt", d);
        test_write_bytes(folder, name, documents[d], strlen(documents[d]));
    }
    int code = PREPARE(output, "%s/prepare --out=%s/o0 --vocab=500 %s/a.jsonl.gz", run, folder, folder);
    REQUIRE(code == 0, "code %d: %s", code, output);
    static const char *const inputs[] = {
        "%1$s/a.jsonl",         "%1$s/txt",         "%1$s/parts/1.json %1$s/parts/2.ndjson.gz",
        "- < %1$s/a.jsonl.gz",  "- < %1$s/a.jsonl", "--threads=1 %1$s/a.jsonl",
        "--threads=4 %1$s/txt", "%1$s/parts"};
    for (int i = 0; i < (int)(sizeof inputs / sizeof *inputs); i++) {
        char input[512], out[2][192];
        for (char *to = input, *from = (char *)(uintptr_t)inputs[i];
             ;) { /* %1$s, which not every printf knows */
            if (strncmp(from, "%1$s", 4) == 0)
                to += sprintf(to, "%s", folder), from += 4;
            else if (!(*to++ = *from++))
                break;
        }
        snprintf(out[0], sizeof out[0], "%s/o0", folder),
            snprintf(out[1], sizeof out[1], "%s/o%d", folder, i + 1);
        code = PREPARE(output, "%s/prepare --out=%s --vocab=500 %s", run, out[1], input);
        CHECK(code == 0, "%s: code %d: %s", inputs[i], code, output);
        CHECK(prepare_same_file(out[0], out[1], "tokenizer.json"), "%s: another tokenizer", inputs[i]);
        CHECK(prepare_same_file(out[0], out[1], "train_000000.bin"), "%s: other tokens", inputs[i]);
        CHECK(prepare_same_file(out[0], out[1], "val_000000.bin"), "%s: other validation tokens", inputs[i]);
    }
    prepare_free(documents, N);
}

/* One large text is cut at blank lines. The pieces joined must be the text, or the model would learn from text with
   gaps. */
static void test_prepare_cuts_large_texts(void) {
    enum { N = 60 };
    char folder[128], out[160], output[4096];
    snprintf(folder, sizeof folder, "%s", test_folder());
    snprintf(out, sizeof out, "%s/out", folder);
    char **documents = prepare_documents(N, 3);
    size_t used = 0, n[2];
    char *book = check_calloc(N * 4096);
    for (int d = 0; d < N; d++)
        used += (size_t)sprintf(book + used, "%s\n%s", documents[d], d % 3 ? " \r\n\n" : "\n");
    test_write_bytes(folder, "book.txt", book, used);
    int code = PREPARE(output,
                       "%s/prepare --out=%s --vocab=400 --document-bytes=2000 --val-fraction=0.2 %s/book.txt",
                       test_binaries(), out, folder);
    REQUIRE(code == 0, "code %d: %s", code, output);
    char *text[2] = {prepare_text(out, "train_", &n[0]), prepare_text(out, "val_", &n[1])},
         *at[2] = {text[0], text[1]};
    int pieces = 0;
    for (size_t done = 0; done < used;
         pieces++) { /* each piece of the text must come next in one of the two splits */
        size_t length[2], split = 2;
        for (size_t s = 0; s < 2; s++) {
            char *end = memchr(at[s] + 1, 1, (size_t)(text[s] + n[s] - at[s] - (at[s] < text[s] + n[s])));
            length[s] = (size_t)((end ? end : text[s] + n[s]) - at[s]);
            if (length[s] > 1 && length[s] - 1 <= used - done &&
                memcmp(at[s] + 1, book + done, length[s] - 1) == 0)
                split = s;
        }
        REQUIRE(split < 2, "no document begins at byte %zu of %zu", done, used);
        done += length[split] - 1, at[split] += length[split];
        CHECK(done == used || (length[split] > 2000 && book[done - 1] == '\n' && book[done] == 'D'),
              "a piece ends at byte %zu", done);
    }
    CHECK(at[0] == text[0] + n[0] && at[1] == text[1] + n[1], "there is more than the text");
    CHECK(pieces >= 10, "%d pieces", pieces);
    free(text[0]), free(text[1]);
    code = PREPARE(output, "%s/prepare --out=%s/line --vocab=400 --separator='***' --val-fraction=0 %s/s.txt",
                   test_binaries(), folder, folder);
    CHECK(code == 1, "an input that is not there: code %d: %s", code, output);
    static const char separated[] = "one\n***\ntwo *** two\n\nmore\n***\r\n***\nthree";
    test_write_bytes(folder, "s.txt", separated, sizeof separated - 1);
    code = PREPARE(output, "%s/prepare --out=%s/line --vocab=257 --separator='***' --val-fraction=0 %s/s.txt",
                   test_binaries(), folder, folder);
    CHECK(code == 0, "code %d: %s", code, output);
    snprintf(out, sizeof out, "%s/line", folder);
    text[0] = prepare_text(out, "train_", &n[0]);
    text[0][n[0]] = 0;
    CHECK(strcmp(text[0], "\1one\n\1two *** two\n\nmore\n\1three") == 0, "'%s'", text[0]);
    free(text[0]), free(book), prepare_free(documents, N);
}

/* A token that is lost or doubled where one shard ends and the next begins would shift all that follows. */
static void test_prepare_shards_are_cut_exactly(void) {
    enum { N = 120 };
    char folder[128], one[160], many[160], output[4096];
    snprintf(folder, sizeof folder, "%s", test_folder());
    snprintf(one, sizeof one, "%s/one", folder), snprintf(many, sizeof many, "%s/many", folder);
    char **documents = prepare_documents(N, 4);
    prepare_write_lines(folder, "a.jsonl", documents, 0, N);
    int code = PREPARE(output,
                       "%s/prepare --out=%s --vocab=300 %s/a.jsonl && %s/prepare --out=%s --vocab=300 "
                       "--shard-tokens=1000 %s/a.jsonl",
                       test_binaries(), one, folder, test_binaries(), many, folder);
    REQUIRE(code == 0, "code %d: %s", code, output);
    size_t n[2];
    uint16_t *tokens[2] = {prepare_tokens(one, "train_", &n[0]), prepare_tokens(many, "train_", &n[1])};
    CHECK(n[0] == n[1] && memcmp(tokens[0], tokens[1], n[0] * sizeof **tokens) == 0,
          "%zu and %zu tokens differ", n[0], n[1]);
    Dataset d;
    dataset_open(&d, many, "train_", 1, 300);
    REQUIRE(d.parts[0].n_shards > 10, "%d shards", d.parts[0].n_shards);
    for (int s = 0; s + 1 < d.parts[0].n_shards; s++)
        CHECK(d.parts[0].shards[s].n_tokens == 1000, "shard %d has %d tokens", s,
              (int)d.parts[0].shards[s].n_tokens);
    dataset_close(&d);
    code = PREPARE(output, "%s/prepare --out=%s --verify", test_binaries(), many);
    CHECK(code == 0, "verify: code %d: %s", code, output);
    free(tokens[0]), free(tokens[1]), prepare_free(documents, N);
}

/* Lines that cannot be read must be counted, and too many of them must end the program: the input is then probably
   not what the user thinks. */
static void test_prepare_bad_lines(void) {
    char folder[128], out[160], output[4096];
    snprintf(folder, sizeof folder, "%s", test_folder());
    snprintf(out, sizeof out, "%s/out", folder);
    static const char lines[] = "{\"text\": \"first\"}\n"
                                "{\"text\": \"cut sho\n"
                                "\n"
                                "{\"text\": 5}\n"
                                "{\"other\": \"x\"}\n"
                                "{\"text\": \"trailing\"} x\n"
                                "[1, 2]\n"
                                "{\"text\": \"\"}\n"
                                "{\"text\": \"zero \\u0000 \\\\u0000 byte\", \"n\": \"\\ufdd0\"} \r\n"
                                "{\"text\": \"\\ud83d\\ude00\\u00e9\"}\n"
                                "{\"text\": \"last, no newline\"}";
    test_write_bytes(folder, "bad.jsonl", lines, sizeof lines - 1);
    int code = PREPARE(output, "%s/prepare --out=%s --vocab=257 --val-fraction=0 %s/bad.jsonl",
                       test_binaries(), out, folder);
    CHECK(code == 1 && strstr(output, "5 of 10 lines are malformed, 50 %"), "code %d: %s", code, output);
    code = PREPARE(output,
                   "%s/prepare --out=%s --vocab=257 --val-fraction=0 --overwrite --max-bad=60 %s/bad.jsonl",
                   test_binaries(), out, folder);
    CHECK(code == 0, "code %d: %s", code, output);
    static const char *const said[] = {"bad.jsonl' line 2 is not valid JSON", "line 4 holds something else",
                                       "line 5 has no such field 'text'",
                                       "5 malformed lines of 10 were left out"};
    for (int i = 0; i < 4; i++) CHECK(strstr(output, said[i]), "no '%s' in: %s", said[i], output);
    size_t n;
    char *text = prepare_text(out, "train_", &n);
    static const char want[] = "\1first\1zero \0 \\u0000 byte\1\xF0\x9F\x98\x80é\1last, no newline";
    CHECK(n == sizeof want - 1 && memcmp(text, want, n) == 0, "%zu bytes: '%s'", n, text);
    free(text);
}

/* What the user did wrong must be said in one line, before hours of work begin. */
static void test_prepare_errors(void) {
    char folder[128], output[4096];
    const char *run = test_binaries();
    snprintf(folder, sizeof folder, "%s", test_folder());
    char **documents = prepare_documents(50, 5);
    prepare_write_lines(folder, "a.jsonl.gz", documents, 0, 50);
    prepare_write_lines(folder, "b.jsonl", documents, 0, 50);
    test_write_bytes(folder, "utf16.txt", "\xFF\xFEh\0i\0", 6);
    test_write_bytes(folder, "tokenizer.json", "{}", 2);
    CHECK(
        PREPARE(
            output,
            "mkdir %s/empty && head -c 900 %s/a.jsonl.gz > %s/cut.jsonl.gz && printf PAR1xyz > %s/x.parquet",
            folder, folder, folder, folder) == 0,
        "%s", output);
    static const struct {
        const char *arguments; /* @ stands for the folder */
        int code;
        const char *words;
    } cases[] = {{"", 2, "--out is missing"},
                 {"--out=@/o", 2, "no input"},
                 {"--out=@/o --vocab=100 @/b.jsonl", 2, "--vocab=100"},
                 {"--out=@/o --vocab=70000 @/b.jsonl", 2, "65536"},
                 {"--out=@/o --val-fractoin=0.1 @/b.jsonl", 2, "did you mean --val-fraction?"},
                 {"--out=@/o --format=xml @/b.jsonl", 2, "auto|text|jsonl"},
                 {"--out=@/o --document-bytes=15 @/b.jsonl", 2, "--document-bytes=15"},
                 {"--out=@/o --vocab=300 --tokenizer=@ @/b.jsonl", 2, "has its own size"},
                 {"--out=@/o --extra-ids=100 @/b.jsonl", 2, "--extra-ids=100"},
                 {"--out=@/o @/nowhere.txt", 1, "nowhere.txt': No such file"},
                 {"--out=@/o @/empty", 1, "in the folder"},
                 {"--out=@/o @/x.parquet", 1, "x.parquet' is a parquet file; convert it"},
                 {"--out=@/o1 @/cut.jsonl.gz", 1, "cut.jsonl.gz' ends in the middle of its compressed data"},
                 {"--out=@/o2 @/utf16.txt", 1, "UTF-16"},
                 {"--out=@/o3 --tokenizer=@/tokenizer.json @/b.jsonl", 1, "no model"},
                 {"--out=@/o3 --tokenizer=@/nowhere @/b.jsonl", 1, "nowhere"},
                 {"--out=@/b.jsonl/deep @/b.jsonl", 1, "cannot create the folder"},
                 {"--out=@/empty --verify", 1, "no manifest"},
                 {"--out=@/o4 --vocab=300 @/b.jsonl", 0, "train"},
                 {"--out=@/o4 --vocab=300 @/b.jsonl", 0, "already prepared"},
                 {"--out=@/o4 --vocab=301 @/b.jsonl", 1, "made with other options"},
                 {"--out=@/o4 --vocab=301 --overwrite @/b.jsonl", 0, "train"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char command[2048], *to = command + sprintf(command, "%s/prepare ", run);
        for (const char *from = cases[i].arguments; *from; from++)
            if (*from == '@')
                to += sprintf(to, "%s", folder);
            else
                *to++ = *from;
        *to = 0;
        int code = PREPARE(output, "%s", command);
        CHECK(code == cases[i].code && strstr(output, cases[i].words), "prepare %s: code %d, no '%s' in: %s",
              cases[i].arguments, code, cases[i].words, output);
    }
    CHECK(PREPARE(output, "mkdir %s/foreign && cp %s/o4/train_000000.bin %s/foreign/fineweb_train_000001.bin",
                  folder, folder, folder) == 0,
          "%s", output);
    int code = PREPARE(output, "%s/prepare --out=%s/foreign %s/b.jsonl", run, folder, folder);
    CHECK(code == 1 && strstr(output, "fineweb_train_000001.bin"), "shards of somebody else: code %d: %s",
          code, output);
    prepare_free(documents, 50);
}

/* --verify must find each kind of damage, and nothing in a copy that is complete: users copy data between machines
   and rely on it. */
static void test_prepare_verify_finds_damage(void) {
    char folder[128], output[4096];
    snprintf(folder, sizeof folder, "%s", test_folder());
    char **documents = prepare_documents(120, 6);
    prepare_write_lines(folder, "a.jsonl", documents, 0, 120);
    prepare_free(documents, 120);
    int code = PREPARE(output, "%s/prepare --out=%s/o --vocab=300 --shard-tokens=2000 %s/a.jsonl",
                       test_binaries(), folder, folder);
    REQUIRE(code == 0, "code %d: %s", code, output);
    static const struct {
        const char *damage, *words;
    } cases[] = {{"true", "is as it was made"},
                 {"printf 'a\\001b' | dd of=o/train_000001.bin bs=1 seek=2000 conv=notrunc 2>/dev/null",
                  "train_000001.bin' has the CRC-32"},
                 {"printf '\\001\\002' | dd of=o/val_000000.bin bs=1 seek=1024 conv=notrunc 2>/dev/null",
                  "token 0 is 513, the vocabulary has 300"},
                 {"truncate -s -2 o/train_000000.bin", "has 5022 bytes, expected 5024"},
                 {"rm o/train_000002.bin", "train_000002.bin': No such file"},
                 {"cp o/train_000000.bin o/train_000099.bin", "train shards, the manifest has"},
                 {"echo >> o/tokenizer.json", "tokenizer.json' has the CRC-32"},
                 {"printf '{' > o/shards.json", "damaged"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        code = PREPARE(output,
                       "cd %s && rm -rf copy && cp -r o copy && mv o keep && mv copy o && { %s; }; cd - "
                       ">/dev/null; %s/prepare --out=%s/o --verify; "
                       "code=$?; rm -rf %s/o && mv %s/keep %s/o; exit $code",
                       folder, cases[i].damage, test_binaries(), folder, folder, folder, folder);
        CHECK(code == (i > 0) && strstr(output, cases[i].words), "%s: code %d, no '%s' in: %s",
              cases[i].damage, code, cases[i].words, output);
    }
}

/* Files that are called validation must be used for validation, and for nothing else: a model that trained on them
   would look better than it is. */
static void test_prepare_validation_files(void) {
    char folder[128], out[160], output[4096];
    snprintf(folder, sizeof folder, "%s", test_folder());
    snprintf(out, sizeof out, "%s/out", folder);
    char **documents = prepare_documents(60, 7);
    prepare_write_lines(folder, "c4-train.00000-of-00002.json.gz", documents, 0, 20);
    prepare_write_lines(folder, "c4-train.00001-of-00002.json.gz", documents, 20, 40);
    prepare_write_lines(folder, "c4-validation.00000-of-00001.json.gz", documents, 40, 60);
    int code = PREPARE(output, "%s/prepare --out=%s --vocab=400 %s", test_binaries(), out, folder);
    REQUIRE(code == 0, "code %d: %s", code, output);
    size_t n, at = 0;
    char *text = prepare_text(out, "val_", &n);
    for (int d = 40; d < 60; d++) {
        size_t length = strlen(documents[d]);
        REQUIRE(at + 1 + length <= n && memcmp(text + at + 1, documents[d], length) == 0,
                "validation lacks document %d", d);
        at += 1 + length;
    }
    CHECK(at == n, "validation has %zu bytes, not %zu", n, at);
    free(text);
    code = PREPARE(output,
                   "mv %s/c4-validation* %s/v.jsonl.gz && %s/prepare --out=%s --overwrite --vocab=400 "
                   "--val=%s/v.jsonl.gz %s/c4-train*",
                   folder, folder, test_binaries(), out, folder, folder);
    CHECK(code == 0 && strstr(output, "in 20 documents"), "code %d: %s", code, output);
    prepare_free(documents, 60);
}

/* Of few documents the hash may choose none for validation; then the smallest is taken, because training needs one. */
static void test_prepare_small_texts_have_validation(void) {
    char folder[128], output[4096];
    snprintf(folder, sizeof folder, "%s", test_folder());
    char **documents = prepare_documents(3, 8);
    prepare_write_lines(folder, "a.jsonl", documents, 0, 3);
    int code = PREPARE(output, "%s/prepare --out=%s/o --vocab=260 --val-fraction=0.001 %s/a.jsonl",
                       test_binaries(), folder, folder);
    CHECK(code == 0 && strstr(output, "in 1 documents"), "code %d: %s", code, output);
    prepare_write_lines(folder, "b.jsonl", documents, 0, 1);
    code = PREPARE(output, "%s/prepare --out=%s/p --vocab=260 %s/b.jsonl", test_binaries(), folder, folder);
    CHECK(code == 1 && strstr(output, "one document") && strstr(output, "--val=FILE"), "code %d: %s", code,
          output);
    prepare_free(documents, 3);
}

/* The program is killed at random moments and started again, with other numbers of threads, until it ends. It must
   write the same files as without kills. Several inputs are read in turns, in small rounds, with a state after each
   round or only at the beginning. */
static void test_prepare_survives_kills(void) {
    enum { N = 600, KILLS = 20 };
    char folder[128], output[4096], name[64], whole[160], killed[160], command[1024];
    snprintf(folder, sizeof folder, "%s", test_folder());
    snprintf(whole, sizeof whole, "%s/whole", folder), snprintf(killed, sizeof killed, "%s/killed", folder);
    char **documents = prepare_documents(N, 9);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "%d.jsonl%s", i, i % 2 ? ".gz" : "");
        prepare_write_lines(folder, name, documents, i * N / 5, (i + 1) * N / 5);
    }
    prepare_free(documents, N);
    int code =
        PREPARE(output, "%s/prepare --vocab=400 %s/?.json* --out=%s/first", test_binaries(), folder, folder);
    REQUIRE(code == 0, "code %d: %s", code, output);
    int length = snprintf(command, sizeof command,
                          "%s/prepare --tokenizer=%s/first --shard-tokens=12000 --round-bytes=16000 "
                          "--save-every=0 %s/?.json* --out=",
                          test_binaries(), folder, folder);
    double began = seconds_now();
    int kills = 0, finishes = 0;
    code = PREPARE(output, "%s%s", command, whole);
    double took = seconds_now() - began;
    REQUIRE(code == 0 && length < (int)sizeof command, "code %d: %s", code, output);
    for (int attempt = 0; attempt < 200 && kills < KILLS; attempt++) {
        double after = took * 0.8 * rng_uniform(9, RNG_STREAM_TEST, (uint64_t)attempt);
        code = PREPARE(output, "timeout -s KILL %.3f %s%s --threads=%d --save-every=%d", after + 0.001,
                       command, killed, 1 + attempt % 4, attempt % 3 ? 0 : 10);
        REQUIRE(code == 137 || code == 0, "code %d: %s", code, output);
        kills += code == 137, finishes += code == 0;
        if (code == 0) { /* The kill came after the end: compare the files, then begin again. */
            CHECK(PREPARE(output, "diff -r %s %s", whole, killed) == 0, "finished after %d kills: %s", kills,
                  output);
            CHECK(PREPARE(output, "rm -r %s", killed) == 0, "%s", output);
        }
    }
    CHECK(kills == KILLS, "only %d kills", kills);
    code = PREPARE(output, "%s%s", command, killed);
    CHECK(code == 0, "code %d: %s", code, output);
    CHECK(PREPARE(output, "diff -r %s %s", whole, killed) == 0, "after %d kills and %d finishes: %s", kills,
          finishes, output);
    /* as if killed when everything was written, but the files of an unfinished run not yet removed */
    code = PREPARE(
        output, "cd %s && touch prepare.state.json prepare.state.json.part shards.json.part && cd - && %s%s",
        killed, command, killed);
    CHECK(code == 0 && strstr(output, "already prepared"), "code %d: %s", code, output);
    CHECK(PREPARE(output, "diff -r %s %s", whole, killed) == 0, "after the last kill: %s", output);
}

/* SentencePiece models of both kinds: the shards hold the ids that spm_encode gave for the same lines
   (tests/fixtures/ sentencepiece: normalisation rules, bytes, digits split, a piece of the user's, lines that are no
   UTF-8), and what the folder's tokenizer.json encodes, a prompt for example, are these ids, too. */
static void prepare_check_pieces(const char *folder, const char *kind, const char *models,
                                 const char *lines_path) {
    char output[4096], path[512];
    size_t n_tokens, n_ids, n_lines, length, at = 0;
    char *lines = check_file_read(lines_path, FILE_REGULAR, FILE_JSON_LIMIT, &n_lines, "");
    char *json = check_calloc(16 * n_lines + 64), *to = json;
    for (const char *c = lines; *c; c++) { /* each line is a document */
        if (c == lines || c[-1] == '\n') to += sprintf(to, "{\"text\":\"");
        if (*c == '"' || *c == '\\') *to++ = '\\';
        if (*c == '\n')
            to += sprintf(to, "\"}\n");
        else
            *to++ = *c;
    }
    test_write_bytes(folder, "lines.jsonl", json, (size_t)(to - json));
    int code = PREPARE(output,
                       "%s/prepare --quiet --out=%s/%s --tokenizer=%s/%s.model --val-fraction=0 "
                       "--extra-ids=3 %s/lines.jsonl",
                       test_binaries(), folder, kind, models, kind, folder);
    REQUIRE(code == 0, "code %d: %s", code, output);
    snprintf(path, sizeof path, "%s/%s", folder, kind);
    uint16_t *tokens = prepare_tokens(path, "train_", &n_tokens);
    Tokenizer *t = tokenizer_load(path);
    snprintf(path, sizeof path, "%s/%s.ids", models, kind);
    char *ids = check_file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, &n_ids, ""), *p = ids;
    CHECK(!*t->why_not, "%s", t->why_not);
    CHECK(strcmp(tokenizer_decode_token(t, tokenizer_vocab_size(t) - 1, &length), "<extra_id_0>") == 0,
          "'%s'", tokenizer_decode_token(t, tokenizer_vocab_size(t) - 1, &length));
    int line = 1;
    for (char *text = lines, *end; *p; text = end + 1, p++, line++) {
        static uint16_t got[8192];
        end = strchr(text, '\n');
        REQUIRE(tokenizer_room(t, text, (size_t)(end - text)) <= 8192, "line %d is too long", line);
        size_t count = tokenizer_encode(t, NULL, text, (size_t)(end - text), got), i = 0;
        if (end > text)
            CHECK(at < n_tokens && tokens[at++] == tokenizer_end_of_text(t),
                  "%s, line %d: no document begins", kind, line);
        for (; *p != '\n'; i++) {
            const long id = strtol(p, &p, 10);
            CHECK(i < count && got[i] == id, "%s, line %d: piece %zu is %d, spm_encode says %ld", kind, line,
                  i, i < count ? got[i] : -1, id);
            CHECK(at < n_tokens && tokens[at] == id, "%s, line %d: the shard has %d, spm_encode says %ld",
                  kind, line, at < n_tokens ? tokens[at] : -1, id);
            at++;
        }
        CHECK(i == count, "%s, line %d: %zu pieces, spm_encode has %zu", kind, line, count, i);
    }
    CHECK(at == n_tokens && line > 40, "%zu of %zu tokens, %d lines", at, n_tokens, line);
    free(tokens), free(ids), free(lines), free(json), tokenizer_free(t);
}

/* SentencePiece models of both kinds: the shards must hold the ids that spm_encode gave for the same lines
   (tests/fixtures/sentencepiece: normalisation rules, bytes, split digits, a piece of the user's, lines that are not
   UTF-8), and the folder's tokenizer.json must give the text back; other ids would not fit a model that was trained
   elsewhere. */
static void test_prepare_sentencepiece(void) {
    static const char models[] = "tests/fixtures/sentencepiece",
                      lines[] = "tests/fixtures/sentencepiece/lines.txt";
    char folder[128];
    snprintf(folder, sizeof folder, "%s", test_folder());
    prepare_check_pieces(folder, "unigram", models, lines),
        prepare_check_pieces(folder, "bpe", models, lines);
}

/* The same with what spm_train and spm_encode make here, where they are installed: a larger vocabulary, and the
   rules of Unicode's NFKC that T5 has. */
static void test_prepare_sentencepiece_here(void) {
    enum { N = 200 };
    char folder[128], output[4096], models[160];
    snprintf(folder, sizeof folder, "%s", test_folder());
    if (PREPARE(output, "command -v spm_train spm_encode") != 0) {
        test_not_run("spm_train and spm_encode are missing (Debian: sentencepiece)");
        return;
    }
    char **documents = prepare_documents(N, 11), *text = check_calloc(N * 4096), *at = text;
    for (int d = 0; d < N; d++, *at++ = '\n')
        for (const char *c = documents[d]; *c; c++) *at++ = *c == '\n' ? ' ' : *c;
    test_write_bytes(folder, "lines", text, (size_t)(at - text));
    snprintf(models, sizeof models, "%s/models", folder);
    int code = PREPARE(output,
                       "cd %s && mkdir models && for k in unigram bpe; "
                       "do spm_train --input=lines --model_prefix=models/$k --model_type=$k --vocab_size=450 "
                       "--hard_vocab_limit=false --byte_fallback=$([ $k = bpe ] && echo true || echo false) "
                       "--pad_id=0 --eos_id=1 "
                       "--unk_id=2 --bos_id=-1 > log 2>&1 && spm_encode --model=models/$k.model "
                       "--output_format=id < lines > "
                       "models/$k.ids || exit 1; done",
                       folder);
    REQUIRE(code == 0, "code %d: %s", code, output);
    char lines[160];
    snprintf(lines, sizeof lines, "%s/lines", folder);
    prepare_check_pieces(folder, "unigram", models, lines),
        prepare_check_pieces(folder, "bpe", models, lines);
    code = PREPARE(output,
                   "cd %s && spm_train --input=lines --model_prefix=c --model_type=char --vocab_size=60 > "
                   "log 2>&1; cd - > "
                   "/dev/null; %s/prepare --out=%s/c --tokenizer=%s/c.model %s/lines",
                   folder, test_binaries(), folder, folder, folder);
    CHECK(code == 1 && strstr(output, "is of the kind 'char', not unigram or bpe"), "code %d: %s", code,
          output);
    free(text), prepare_free(documents, N);
}

#define PREPARE_TESTS(TEST)                                                                                  \
    TEST(prepare_keeps_every_document)                                                                       \
    TEST(prepare_inputs_are_equal)                                                                           \
    TEST(prepare_cuts_large_texts)                                                                           \
    TEST(prepare_shards_are_cut_exactly)                                                                     \
    TEST(prepare_bad_lines)                                                                                  \
    TEST(prepare_errors)                                                                                     \
    TEST(prepare_verify_finds_damage)                                                                        \
    TEST(prepare_validation_files)                                                                           \
    TEST(prepare_small_texts_have_validation)                                                                \
    TEST(prepare_survives_kills)                                                                             \
    TEST(prepare_sentencepiece)                                                                              \
    TEST(prepare_sentencepiece_here)                                                                         \
    FETCH_TESTS(TEST)                                                                                        \
    FUZZ_TESTS(TEST)

#endif
