/* test_inputs.h: tests of what people give to ./prepare: lines that are not quite JSON, files that are not text,
   folders, pipes, and files that change; and of an output folder that exists already. */
#ifndef TESTS_TEST_INPUTS_H
#define TESTS_TEST_INPUTS_H

#include <fcntl.h>
#include <zlib.h>
#include "harness.h"
#include "test_prepare.h"
#include "../data/json_line.h"

/* Runs commands in a folder; in them, `prepare` is the program under test. */
static inline int inputs_run(char output[4096], const char *folder, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static inline int inputs_run(char output[4096], const char *folder, const char *format, ...) {
    char commands[3000], here[FILE_PATH_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(commands, sizeof commands, format, arguments);
    va_end(arguments);
    if (!realpath(test_binaries(), here)) die("no folder '%s'", test_binaries());
    return test_command(output, 4096, "prepare() { '%s/prepare' --quiet \"$@\"; }; cd '%s' || exit 99; %s",
                        here, folder, commands);
}

/* Lines that are not quite JSON must be counted and left out, and escapes must be decoded; otherwise the model would
   learn from broken text. */
static void test_inputs_json_lines(void) {
    static const struct {
        const char *line, *text, *why; /* One of the two. An N in the text stands for a zero byte. */
    } cases[] = {
        {"{\"text\": \"a\"}", "a", NULL},
        {"\xEF\xBB\xBF {\"x\":[{},[],\"\",-1.5e+3,true,false,null],\"text\":\"b\"} \t\r", "b", NULL},
        {"{\"text\":\"\\u0041\\n\\/\\\"\\\\\\u00e9\\ud83d\\uDE00\"}", "A\n/\"\\é\xF0\x9F\x98\x80", NULL},
        {"{\"text\":\"a\\u0000b\"}", "aNb", NULL},
        {"{\"text\":\"\\ud800\"}", "\xEF\xBF\xBD", NULL}, /* halves of surrogate pairs */
        {"{\"text\":\"a\\udc00b\\ud83dc\\ud83d\\ud83d\\ude00\"}",
         "a\xEF\xBF\xBD"
         "b\xEF\xBF\xBD"
         "c\xEF\xBF\xBD\xF0\x9F\x98\x80",
         NULL},
        {"{\"score\":NaN,\"text\":\"x\",\"y\":[Infinity,-Infinity]}", "x", NULL},
        {"{\"text\":\"first\",\"text\":\"last\"}", "last", NULL},
        {"{\"te\\u0078t\":\"key\"}", "key", NULL},
        {"{\"text\":\"tab\there \x01 \xFF\"}", "tab\there \x01 \xFF", NULL},
        {"{\"text\":\"\"}", "", NULL},
        {"{\"a\":{\"text\":\"inner\"}}", NULL, "has no such field"},
        {"{}", NULL, "has no such field"},
        {"{\"text\":\"a\",\"text\":5}", NULL, "holds something else"},
        {"[\"text\"]", NULL, "is not a JSON object"},
        {"\"text\"", NULL, "is not a JSON object"},
        {"", NULL, "is not valid JSON"},
        {"{\"text\":\"a\"", NULL, "is not valid JSON"},
        {"{\"text\":\"a\"} x", NULL, "is not valid JSON"},
        {"{\"text\":\"a\",}", NULL, "is not valid JSON"},
        {"{\"text\":\"a\" \"b\":1}", NULL, "is not valid JSON"},
        {"{\"text\":\"\\x41\"}", NULL, "is not valid JSON"},
        {"{\"text\":\"\\u00g1\"}", NULL, "is not valid JSON"},
        {"{\"text\":\"\\", NULL, "is not valid JSON"},
        {"{\"a\":[1,],\"text\":\"b\"}", NULL, "is not valid JSON"},
        {"{\"a\":[1}],\"text\":\"b\"}", NULL, "is not valid JSON"},
        {"{\"a\":nan,\"text\":\"b\"}", NULL, "is not valid JSON"},
        {"{\"a\":1e,\"text\":\"b\"}", NULL, "is not valid JSON"}};
    JsonText text = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t n = strlen(cases[i].line), want = cases[i].text ? strlen(cases[i].text) : 0;
        char *line = check_calloc(n),
             copy[64]; /* memory of exactly its size, so that sanitizers find reading beyond it */
        memcpy(line, cases[i].line, n);
        const char *why = json_line(line, n, "text", &text);
        CHECK((why == NULL) == (cases[i].why == NULL) && (!why || strstr(why, cases[i].why)), "%s: %s",
              cases[i].line, why ? why : "read");
        if (!why && cases[i].text) {
            CHECK(text.length == want, "%s: %zu bytes, expected %zu", cases[i].line, text.length, want);
            memcpy(copy, text.bytes, text.length < 63 ? text.length : 63);
            for (size_t b = 0; b < want && b < text.length; b++)
                CHECK(copy[b] == cases[i].text[b] || (!copy[b] && cases[i].text[b] == 'N'),
                      "%s: byte %zu is %02x", cases[i].line, b, copy[b]);
        }
        free(line);
    }
    char deep[3000]; /* JSON nests a thousand times, no deeper */
    for (int depth = 999; depth <= 1001; depth++) {
        int n = sprintf(deep, "{\"a\":%s%s", depth % 2 ? "[" : "", "");
        memset(deep + n, '[', (size_t)depth - depth % 2);
        memset(deep + n + depth - depth % 2, ']', (size_t)depth);
        n += 2 * depth - depth % 2;
        n += sprintf(deep + n, ",\"text\":\"x\"}");
        CHECK((json_line(deep, (size_t)n, "text", &text) == NULL) == (depth <= 1000), "%d deep", depth);
    }
    free(text.buffer);
}

/* Blank lines do not count as documents, halves of surrogate pairs are reported, and the share of bad lines is that
   of all lines read: the user decides by these numbers whether the data is good. */
static void test_inputs_lines_are_counted(void) {
    char folder[128], output[4096];
    snprintf(folder, sizeof folder, "%s", test_folder());
    int code = inputs_run(
        output, folder,
        "printf '{\"text\":\"one \\\\ud800\",\"n\":NaN}\\n \\t \\r\\n\\n{\"text\":\"two\"}\\n' > a.jsonl; "
        "prepare --vocab=257 --max-bad=0 --out=o a.jsonl && cat o/shards.json");
    CHECK(code == 0 && strstr(output, "1 documents have half of a surrogate pair") &&
              strstr(output, "\"lines\":\t2") && strstr(output, "\"bad_lines\":\t0"),
          "code %d: %s", code, output);
    code = inputs_run(
        output, folder,
        "for i in $(seq 40); do echo '{\"text\":5}'; done > b.jsonl; echo '{\"text\":\"x\"}' >> b.jsonl; "
        "prepare --vocab=257 --out=p b.jsonl");
    CHECK(code == 1 && strstr(output, "40 of 41 lines read so far are malformed, 97.6 %") &&
              !strstr(output, "0.04"),
          "code %d: %s", code, output);
    CHECK(strstr(output, "line 1 holds") && strstr(output, "line 3 holds"), "no lines named: %s", output);
    code = inputs_run(output, folder, "echo '{\"text\":5}' > c.jsonl; prepare --vocab=257 --out=q c.jsonl");
    CHECK(code == 1 && strstr(output, "1 of 1 lines are malformed, 100 %"), "code %d: %s", code, output);
}

/* A line beyond --max-document must be left out and counted without damage to its neighbours; a line without an end
   must not fill the memory. */
static void test_inputs_long_lines(void) {
    enum { MIB = 1 << 20 };
    char folder[128], output[4096], path[256];
    snprintf(folder, sizeof folder, "%s", test_folder());
    snprintf(path, sizeof path, "%s/a.jsonl.gz", folder);
    char *letters = check_calloc(MIB + 1);
    memset(letters, 'a', MIB);
    gzFile file = gzopen(path, "wb1");
    gzprintf(file, "{\"text\":\"before\"}\n{\"text\":\"");
    for (int i = 0; i < 3; i++) gzwrite(file, letters, MIB);
    gzprintf(file, "\"}\n{\"text\":\"");
    gzwrite(file, letters, MIB - 11); /* the longest that is read */
    gzprintf(file, "\"}\n{\"text\":\"");
    gzwrite(file, letters, MIB - 10); /* one byte more */
    gzprintf(file, "\"}\n{\"text\":\"after\"}\n{\"text\":\"");
    for (int i = 0; i < 2; i++) gzwrite(file, letters, MIB); /* and the line has no end */
    gzclose(file);
    int code =
        inputs_run(output, folder,
                   "prepare --vocab=257 --max-document=1 --max-bad=60 --val-fraction=0 --out=o a.jsonl.gz && "
                   "cat o/shards.json");
    CHECK(code == 0 && strstr(output, "line 2 is longer than --max-document") &&
              strstr(output, "line 4 is longer") && strstr(output, "line 6 is longer") &&
              strstr(output, "\"lines\":\t6") && strstr(output, "\"bad_lines\":\t3") &&
              strstr(output, "\"text_bytes\":\t1048576,"),
          "code %d: %s", code, output);
    snprintf(path, sizeof path, "%s/b.jsonl.gz", folder);
    file = gzopen(path, "wb1");
    for (int i = 0; i < 40; i++) gzwrite(file, letters, MIB);
    gzclose(file);
    code = inputs_run(output, folder, "prepare --max-document=1 --max-bad=100 --out=p b.jsonl.gz");
    CHECK(code == 1 && strstr(output, "line 1 of 'b.jsonl.gz' goes on for more than 16 times --max-document"),
          "code %d: %s", code, output);
    code = inputs_run(output, folder,
                      "mv b.jsonl.gz b.txt.gz; prepare --max-document=1 --documents=file --out=p b.txt.gz");
    CHECK(code == 1 && strstr(output, "holds a document of more than --max-document=1 MiB"), "code %d: %s",
          code, output);
    free(letters);
}

/* Compressed or binary files must be recognised by their content and named before anything is written: otherwise the
   model would learn from binary data. */
static void test_inputs_that_are_no_text(void) {
    char folder[128], output[4096], command[256];
    snprintf(folder, sizeof folder, "%s", test_folder());
    char wide[4][4000] = {{0}}, binary[4000], stray[4000]; /* a text in UTF-16 and UTF-32, both byte orders */
    for (int i = 0; i < 1000; i++) {
        const char letter = "some words "[i % 11];
        wide[0][2 * i] = wide[1][2 * i + 1] = wide[2][4 * i] = wide[3][4 * i + 3] = letter;
    }
    for (int i = 0; i < 4000; i++)
        binary[i] = (char)rng_bits(3, RNG_STREAM_TEST, (uint64_t)i), stray[i] = "some words "[i % 11];
    stray[2000] = 0;
    const struct {
        const char *name, *bytes;
        size_t n;
        const char *words; /* NULL: it is text */
    } cases[] = {
        {"a.txt", wide[0], 2000, "is UTF-16 text without a mark; convert it to UTF-8 (iconv -f UTF-16LE"},
        {"b.txt", wide[1], 2000, "is UTF-16 text without a mark; convert it to UTF-8 (iconv -f UTF-16BE"},
        {"c.txt", wide[2], 4000, "is UTF-32 text without a mark; convert it to UTF-8 (iconv -f UTF-32LE"},
        {"d.txt", wide[3], 4000, "is UTF-32 text without a mark; convert it to UTF-8 (iconv -f UTF-32BE"},
        {"e.txt", "\xFF\xFE\0\0a\0\0\0", 8, "is UTF-32 text;"},
        {"f.txt", "\0\0\xFE\xFF\0\0\0a", 8, "is UTF-32 text;"},
        {"g.jsonl", "\xFE\xFF\0{", 4, "is UTF-16 text;"},
        {"h.txt", binary, 4000, "is no text: it is full of zero bytes"},
        {"i.txt",
         "\xFD"
         "7zXZ\0abc",
         9, "is compressed by xz"},
        {"j.jsonl", "PAR1abc", 7, "is a parquet file"},
        {"k.txt", "PK\3\4abc", 7, "is a zip archive"},
        {"l.json", " [\n{\"text\":\"a\"},\n{\"text\":\"b\"}]", 30, "is one JSON list, not an object a line"},
        {"m.pdf", "%PDF-1.7 abc", 12, "is a PDF"},
        {"n.txt", stray, 4000, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_write_bytes(folder, cases[i].name, cases[i].bytes, cases[i].n);
        snprintf(command, sizeof command, "prepare --vocab=257 --out=o %s", cases[i].name);
        int code = inputs_run(output, folder, "%s", command);
        CHECK(code == (cases[i].words != NULL) && (!cases[i].words || strstr(output, cases[i].words)),
              "%s: code %d, no '%s' in: %s", cases[i].name, code, cases[i].words ? cases[i].words : "",
              output);
    }
    /* control characters of names reach no terminal */
    int code = inputs_run(output, folder, "prepare --out=o \"$(printf 'x\\033[2Jy')\"");
    CHECK(code == 1 && strstr(output, "x\\x1b[2Jy") && !strchr(output, 27), "code %d: %s", code, output);
}

/* Of a folder, files that are passed over must be counted, links in a circle must not end the program, what
   ./prepare wrote itself must not be read again, and a file for validation must not be trained on. */
static void test_inputs_folders(void) {
    char folder[128], output[4096];
    snprintf(folder, sizeof folder, "%s", test_folder());
    char **documents = prepare_documents(60, 21);
    prepare_write_lines(folder, "v.jsonl", documents, 0, 20);
    prepare_write_lines(folder, "t.jsonl", documents, 20, 60);
    prepare_free(documents, 60);
    int code = inputs_run(
        output, folder,
        "mkdir d && mv t.jsonl v.jsonl d/ && ln -s ../nowhere/jquery.js d/jquery.js && ln -s . d/loop && "
        "touch d/a.parquet d/b.parquet d/notes.xyz && mkfifo d/pipe.log && "
        "prepare --vocab=300 --out=d/o --val=d/v.jsonl d && cat d/o/shards.json");
    CHECK(code == 0 && strstr(output, "2 files like 'd/a.parquet' are not read") &&
              strstr(output, "passed over  5 files whose names say no text: 2 .parquet, 1 .js") &&
              strstr(output, "1 .xyz") && strstr(output, "\"documents\":\t40") &&
              strstr(output, "\"documents\":\t20") && strstr(output, "\"lines\":\t60,"),
          "code %d: %s", code, output);
    code = inputs_run(output, folder, "prepare --vocab=300 --out=d/o --val=d/v.jsonl d");
    CHECK(code == 0 && strstr(output, "already prepared"), "its own shards.json is no input: code %d: %s",
          code, output);
    code = inputs_run(output, folder, "prepare --vocab=300 --out=p --val-fraction=0 d/t.jsonl d/t.jsonl");
    CHECK(code == 0 && strstr(output, "1 of the 2 input files is named twice"), "code %d: %s", code, output);
    code = inputs_run(output, folder, "ln -s nowhere.txt d/gone.txt; prepare --vocab=300 --out=q d");
    CHECK(code == 1 && strstr(output, "gone.txt': No such file") && strstr(output, "leads nowhere"),
          "code %d: %s", code, output);
    code = inputs_run(output, folder, "rm d/gone.txt; mkfifo d/pipe.txt; prepare --out=q d");
    CHECK(code == 1 && strstr(output, "d/pipe.txt' is a pipe (FIFO)"), "code %d: %s", code, output);
}

/* A pipe must be read to its end and give the same data as the file with the same content. */
static void test_inputs_pipes(void) {
    char folder[128], output[4096];
    snprintf(folder, sizeof folder, "%s", test_folder());
    char **documents = prepare_documents(90, 22);
    prepare_write_lines(folder, "a.jsonl", documents, 0, 90);
    prepare_free(documents, 90);
    int code = inputs_run(
        output, folder,
        "prepare --vocab=300 --out=file a.jsonl && cat a.jsonl | prepare --vocab=300 --out=pipe /dev/stdin "
        "&& "
        "cat a.jsonl | prepare --vocab=300 --out=minus - && mkfifo f && { cat a.jsonl > f & } && prepare "
        "--vocab=300 --out=fifo f && wait && for d in pipe minus fifo; do for f in tokenizer.json "
        "train_000000.bin val_000000.bin; do cmp file/$f $d/$f || exit 3; done; ls $d; done");
    CHECK(code == 0 && !strstr(output, ".part"), "code %d: %s", code, output);
    code = inputs_run(output, folder, "cat a.jsonl | prepare --vocab=300 --out=pipe /dev/stdin");
    CHECK(code == 0 && strstr(output, "already prepared"), "code %d: %s", code, output);
    code = inputs_run(output, folder, "sed s/the/The/ a.jsonl | prepare --vocab=300 --out=pipe /dev/stdin");
    CHECK(code == 1 && strstr(output, "holds shards made from other inputs"), "another text: code %d: %s",
          code, output);
}

/* Text compressed by zstd, in one frame or in several, must be read completely; a file that is cut short must be an
   error, not a smaller data set. */
static void test_inputs_zstd(void) {
    char folder[128], output[4096];
    snprintf(folder, sizeof folder, "%s", test_folder());
    char **documents = prepare_documents(300, 23);
    prepare_write_lines(folder, "a.jsonl", documents, 0, 300);
    prepare_free(documents, 300);
    if (inputs_run(
            output, folder,
            "zstd -q a.jsonl && head -n 100 a.jsonl | zstd -q > b.zst && tail -n +101 a.jsonl | zstd -q "
            ">> b.zst && head -c 9000 a.jsonl.zst > cut.jsonl.zst") != 0) {
        test_not_run("there is no program zstd");
        return;
    }
    int code = inputs_run(output, folder, "prepare --vocab=300 --out=z a.jsonl.zst");
    if (code == 1 && strstr(output, "which this ./prepare was built without")) {
        test_not_run("./prepare was built without libzstd");
        return;
    }
    CHECK(code == 0, "code %d: %s", code, output);
    code = inputs_run(
        output, folder,
        "prepare --vocab=300 --out=a a.jsonl && prepare --vocab=300 --out=b b.zst && mkdir d && cp "
        "a.jsonl.zst d && prepare --vocab=300 --out=c d && for o in z b c; do for f in "
        "tokenizer.json train_000000.bin val_000000.bin; do cmp a/$f $o/$f || exit 3; done; done");
    CHECK(code == 0, "code %d: %s", code, output);
    code = inputs_run(output, folder, "prepare --vocab=300 --out=e cut.jsonl.zst");
    CHECK(code == 1 && strstr(output, "ends in the middle of its compressed data"), "code %d: %s", code,
          output);
    /* the program is resumed in the middle of a document */
    code = inputs_run(output, folder,
                      "run='prepare --tokenizer=a --round-bytes=40000 --save-every=0 --max-bad=0'; cat "
                      "a.jsonl > g.jsonl; echo x "
                      ">> g.jsonl; zstd -q g.jsonl; $run --out=g g.jsonl.zst; test -e g/prepare.state.json "
                      "&& $run --max-bad=1 "
                      "--out=g g.jsonl.zst && $run --max-bad=1 --out=h g.jsonl && cmp g/train_000000.bin "
                      "h/train_000000.bin");
    CHECK(code == 0 && strstr(output, "continuing after"), "code %d: %s", code, output);
}

/* However short it is, a text without blank lines must be divided into training and validation: without either,
   training cannot start. */
static void test_inputs_short_texts(void) {
    char folder[128], output[4096];
    snprintf(folder, sizeof folder, "%s", test_folder());
    int code = inputs_run(
        output, folder,
        "for n in 12 150 1000 2000; do seq -f 'line %%g of a text without blank lines' $n > $n.txt; prepare "
        "--vocab=257 --out=o$n $n.txt || exit 4; cat $n.txt | tr '\\n' ' ' > s$n.txt; prepare --vocab=257 "
        "--out=s$n s$n.txt || exit 5; ls o$n/val_000000.bin s$n/val_000000.bin || exit 6; done");
    CHECK(code == 0, "code %d: %s", code, output);
    code = inputs_run(output, folder, "prepare --vocab=257 --documents=file --out=p 12.txt; ls -A p");
    CHECK(code == 0 && strstr(output, "the text is one document") && strstr(output, "--documents=cut") &&
              !strstr(output, "train_") && !strstr(output, "state"),
          "code %d: %s", code, output);
    code = inputs_run(output, folder, "prepare --vocab=257 --out=p 12.txt");
    CHECK(code == 0, "the same folder with other options, as was advised: code %d: %s", code, output);
    code = inputs_run(output, folder, "prepare --vocab=257 --val-fraction=0 --out=q 12.txt");
    CHECK(code == 0 && strstr(output, "without which ./train_gpt does not train"), "code %d: %s", code,
          output);
}

/* A folder that exists already must be kept until nothing but the text can be wrong. It must not be taken for
   finished when inputs, options or tokenizer are others, and two programs must not write it at once: each would lose
   or mix the user's data. */
static void test_inputs_existing_folders(void) {
    char folder[128], output[4096];
    snprintf(folder, sizeof folder, "%s", test_folder());
    char **documents = prepare_documents(90, 24);
    prepare_write_lines(folder, "a.jsonl", documents, 0, 60);
    prepare_write_lines(folder, "b.jsonl", documents, 60, 90);
    prepare_free(documents, 90);
    int code = inputs_run(
        output, folder,
        "prepare --vocab=300 --out=t a.jsonl && prepare --vocab=310 --out=u a.jsonl && prepare --tokenizer=t "
        "--out=o a.jsonl && cp -r o kept");
    REQUIRE(code == 0, "code %d: %s", code, output);
    static const struct {
        const char *commands, *words;
    } cases[] = {
        {"prepare --overwrite --tokenizer=typo.json --out=o a.jsonl", "typo.json': No such file"},
        {"prepare --overwrite --tokenizer=t --out=o a.jsonl typo.jsonl", "typo.jsonl': No such file"},
        {"prepare --overwrite --tokenizer=t --val=typo --out=o a.jsonl", "typo': No such file"},
        {"printf 'no json\\n' > bad.jsonl; prepare --overwrite --out=o bad.jsonl",
         "1 of 1 lines are malformed"},
        {"sed s/the/The/ a.jsonl > c.jsonl && prepare --tokenizer=t --out=o c.jsonl",
         "('a.jsonl', not 'c.jsonl')"},
        {"prepare --tokenizer=t --out=o a.jsonl b.jsonl", "(1 files, not 2)"},
        {"prepare --tokenizer=u --out=o a.jsonl", "with other options"},
        {"cp a.jsonl keep.jsonl; sed -i s/the/The/ a.jsonl; prepare --tokenizer=t --out=o a.jsonl; code=$?; "
         "mv "
         "keep.jsonl a.jsonl; exit $code",
         "(the content of 'a.jsonl' has changed)"},
        {"cp -r t w && cp u/tokenizer.json t/ && prepare --tokenizer=t --out=o a.jsonl; code=$?; rm -r t; mv "
         "w t; exit $code",
         "with another tokenizer"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        code = inputs_run(output, folder, "%s", cases[i].commands);
        CHECK(code == 1 && strstr(output, cases[i].words), "%s: code %d, no '%s' in: %s", cases[i].commands,
              code, cases[i].words, output);
        code = inputs_run(output, folder, "diff -r kept o");
        CHECK(code == 0, "%s: it is no longer what it was: %s", cases[i].commands, output);
    }
    code = inputs_run(output, folder, "touch a.jsonl; prepare --tokenizer=t --out=o a.jsonl");
    CHECK(code == 0 && strstr(output, "already prepared"), "a small file touched: code %d: %s", code, output);
    code = inputs_run(
        output, folder,
        "seq 300000 > large.txt; prepare --tokenizer=t --out=l large.txt && touch -d 2001-01-01 large.txt && "
        "prepare "
        "--tokenizer=t --out=l large.txt; touch -d @$(sed -n 's/.*\"modified\":.*\"\\(.*\\)\".*/\\1/p' "
        "l/shards.json) large.txt && prepare --tokenizer=t --out=l large.txt");
    CHECK(code == 0 && strstr(output, "was changed at another time") && strstr(output, "touch -d @") &&
              strstr(output, "already prepared"),
          "a large one touched: code %d: %s", code, output);
    /* a second ./prepare while the first waits for its input */
    code = inputs_run(output, folder,
                      "mkfifo f; prepare --tokenizer=t --out=m - < f > first.log 2>&1 & first=$!; exec 3> f; "
                      "for i in $(seq 500); do "
                      "grep -q process m/prepare.lock 2> /dev/null && break; sleep 0.02; done; prepare "
                      "--overwrite --tokenizer=u "
                      "--out=m b.jsonl; second=$?; cat a.jsonl >&3; exec 3>&-; wait $first && prepare "
                      "--out=m --verify && ls -A m; "
                      "exit $second");
    CHECK(code == 1 && strstr(output, "another ./prepare (process ") &&
              strstr(output, "m is as it was made") && !strstr(output, "prepare.lock"),
          "code %d: %s", code, output);
}

/* Any changed byte in the state of an unfinished run must be found, also where the rest is still valid JSON, and so
   must shards that differ from what the state says: otherwise the data would have gaps. */
static void test_inputs_damaged_states(void) {
    enum { FLIPS = 12 };
    char folder[128], output[4096], path[256];
    snprintf(folder, sizeof folder, "%s", test_folder());
    char **documents = prepare_documents(120, 25);
    prepare_write_lines(folder, "a.jsonl", documents, 0, 120);
    prepare_free(documents, 120);
    static const char run[] = "prepare --tokenizer=t --shard-tokens=4000 --round-bytes=20000 --save-every=0";
    int code = inputs_run(output, folder,
                          "prepare --vocab=300 --out=t a.jsonl > t.log; echo x >> a.jsonl; %s --max-bad=0 "
                          "--out=o a.jsonl; mkdir k; cp "
                          "o/* k; test -e k/prepare.state.json",
                          run);
    REQUIRE(code == 0, "code %d: %s", code, output);
    size_t n;
    snprintf(path, sizeof path, "%s/k/prepare.state.json", folder);
    char *state = check_file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, &n, "");
    for (int i = 0; i < FLIPS; i++) {
        const size_t bit = rng_bits(25, RNG_STREAM_TEST, (uint64_t)i) % (8 * n);
        state[bit / 8] = (char)(state[bit / 8] ^ 1 << bit % 8);
        snprintf(path, sizeof path, "%s/o", folder);
        test_write_bytes(path, "prepare.state.json", state, n);
        state[bit / 8] = (char)(state[bit / 8] ^ 1 << bit % 8);
        code = inputs_run(output, folder, "%s --max-bad=1 --out=o a.jsonl", run);
        CHECK(code == 1 && strstr(output, "prepare.state.json' is damaged"), "bit %zu: code %d: %s", bit,
              code, output);
    }
    static const char *const damages[] = {
        "printf 'a\\001' | dd of=o/train_%s.bin.part bs=1 seek=1500 conv=notrunc 2> /dev/null",
        "truncate -s 1400 o/train_%s.bin.part", "rm o/train_%s.bin.part"};
    for (size_t i = 0; i < 3; i++) {
        char damage[256];
        snprintf(damage, sizeof damage, damages[i], "$last");
        code = inputs_run(output, folder,
                          "rm -r o; cp -r k o; last=$(ls o/train_*.part | sed "
                          "'s/.*train_\\([0-9]*\\).*/\\1/'); %s; %s --max-bad=1 "
                          "--out=o a.jsonl",
                          damage, run);
        CHECK(code == 1 && strstr(output, "unfinished shards in 'o' are damaged"), "%s: code %d: %s", damage,
              code, output);
    }
    code =
        inputs_run(output, folder,
                   "rm -r o; cp -r k o; printf ' ' >> o/tokenizer.json; %s --max-bad=1 --out=o a.jsonl", run);
    CHECK(code == 1 && strstr(output, "tokenizer.json' is damaged"), "code %d: %s", code, output);
    code =
        inputs_run(output, folder,
                   "rm -r o; cp -r k o; %s --max-bad=1 --out=o a.jsonl && %s --max-bad=1 --out=w a.jsonl && "
                   "diff -r o w",
                   run, run);
    CHECK(code == 0 && strstr(output, "continuing after"), "undamaged: code %d: %s", code, output);
    free(state);
}

#define INPUTS_TESTS(TEST)                                                                                   \
    TEST(inputs_json_lines)                                                                                  \
    TEST(inputs_lines_are_counted)                                                                           \
    TEST(inputs_long_lines)                                                                                  \
    TEST(inputs_that_are_no_text)                                                                            \
    TEST(inputs_folders)                                                                                     \
    TEST(inputs_pipes)                                                                                       \
    TEST(inputs_zstd)                                                                                        \
    TEST(inputs_short_texts)                                                                                 \
    TEST(inputs_existing_folders)                                                                            \
    TEST(inputs_damaged_states)

#endif
