/* fuzz.c: gives arbitrary bytes to the code that reads files from elsewhere, under sanitizers.

   Targets: tokenizer (tokenizer.json, vocab.json + merges.txt), shards (headers and tokens), lines (JSON lines and
   the cutting of plain text), safetensors (headers), sentencepiece (models), config (files of options), state
   (trainer_state.json), prepare_state (prepare.state.json), report (log.jsonl, config.json, summary.json). A target
   may end in die(), which is the program's error for its user. It must not crash, hang, or give back other text than
   it was given.

       clang -g -O1 -fsanitize=fuzzer,address,undefined -DFUZZ_TARGET=tokenizer tests/fuzz.c -o fuzz_tokenizer \
           -lcjson -lz -lm
       ./fuzz_tokenizer -close_fd_mask=2 -max_total_time=600 corpus tests/fuzz_seeds/tokenizer
   (`make fuzz` does this.)

   Without -DFUZZ_TARGET it is a program of its own, for any compiler: ./fuzz TARGET ROUNDS SEED-FILE... changes the
   seeds at random that many times, and prints how often a target came to its end and how often it died. `make test`
   runs it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* All memory that the files included below allocate is kept in a list, so that what die() leaves allocated can be
   freed. The macros replace their aligned_alloc and free. */
typedef struct Memory {
    struct Memory *next, *previous;
    char rest[48];
} Memory;
_Static_assert(sizeof(Memory) == 64, "what follows stays aligned to 64 bytes");
static Memory memory_list = {&memory_list, &memory_list, {0}};

static void *memory_get(size_t alignment, size_t bytes) {
    (void)alignment;
    if (bytes > (size_t)1 << 31) return NULL;
    Memory *m = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!m) return NULL;
    m->next = memory_list.next, m->previous = &memory_list;
    m->next->previous = memory_list.next = m;
    return m + 1;
}
static void *memory_get_any(size_t bytes) { return memory_get(64, bytes); }
static void memory_give_back(void *p) {
    if (!p) return;
    Memory *m = (Memory *)p - 1;
    m->next->previous = m->previous, m->previous->next = m->next;
    free(m);
}
#define aligned_alloc memory_get
#define free memory_give_back
#define main prepare_main
#include "../data/prepare.c"
#include "../gpt/io/checkpoint.h"
#include "../gpt/run/log.h"
#include "../gpt/run/trainer_state.h"
#include "trainer_files.h"
#include "../tools/report_analysis.h"
#include "../tools/report_html.h"
#include "../tools/report_terminal.h"
#include "read_log.h"
#undef main

static jmp_buf after_death;
static void die_here(int code) { longjmp(after_death, code + 1); }

/* Ends the program at a wrong result, which no input may cause. (An error of the input is for die().) */
#define MUST(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition)) abort();                                                                           \
    } while (0)

static void round_trip(const Tokenizer *t, const char *text, size_t n) {
    uint16_t *ids = check_calloc((n + 1) * sizeof *ids);
    size_t count = tokenizer_encode(t, NULL, text, n, ids), at = 0, length;
    for (size_t i = 0; i < count; i++) {
        const char *bytes = tokenizer_decode_token(t, ids[i], &length);
        MUST(length <= n - at && memcmp(text + at, bytes, length) == 0);
        at += length;
    }
    MUST(at == n);
    free(ids);
}

/* The pieces of SentencePiece need not give the text back, but there must be no more of them than there is room for,
   and their numbers must be in the vocabulary. */
static void encode_pieces(const Tokenizer *t, const char *text, size_t n) {
    const size_t room = tokenizer_room(t, text, n);
    uint16_t *ids = check_calloc((room + 1) * sizeof *ids);
    const size_t count = tokenizer_encode(t, NULL, text, n, ids);
    MUST(count <= room);
    for (size_t i = 0; i < count; i++) MUST(ids[i] < tokenizer_vocab_size(t));
    free(ids);
}

/* A byte 0xFF, which JSON never has, separates vocab.json from merges.txt. A tokenizer that is accepted must encode
   any text. */
static void fuzz_tokenizer(char *data, size_t n) {
    char *merges = memchr(data, 0xFF, n);
    size_t json = merges ? (size_t)(merges - data) : n;
    if (merges) *merges = 0; /* both texts end in a zero byte, like the text of a file that was read */
    Tokenizer *t = tokenizer_parse("fuzz", data, json, merges ? merges + 1 : NULL);
    bool plain = !t->has_added;
    for (int id = 0; id < t->vocab_size; id++)
        plain &= t->tokens[id].bytes == NULL || t->tokens[id].length > 0;
    if (!*t->why_not && t->pieces) encode_pieces(t, data, n < 2000 ? n : 2000);
    if (!*t->why_not && !t->pieces && plain) round_trip(t, data, n < 2000 ? n : 2000);
    tokenizer_free(t);
}

static void fuzz_shards(char *data, size_t n) {
    Shard shard = {.path = (char *)"fuzz", .map = (unsigned char *)data, .bytes = n};
    if (n < SHARD_HEADER_BYTES) return;
    shard_check_header(&shard);
    shard.n_tokens = shard_u32(shard.map + 8);
    int T = 1 + shard.map[12] % 7;
    DatasetPart part = {.folder = (char *)"fuzz",
                        .shards = &shard,
                        .n_shards = 1,
                        .n_tokens = shard.n_tokens,
                        .n_windows = shard.n_tokens ? (shard.n_tokens - 1) / (uint64_t)T : 0};
    Dataset d = {.parts = &part,
                 .n_parts = 1,
                 .seq_len = T,
                 .vocab_size = 1000,
                 .n_tokens = part.n_tokens,
                 .n_windows = part.n_windows};
    int32_t inputs[8], targets[8];
    for (uint64_t w = 0; w < d.n_windows; w++) {
        dataset_window(&d, w, inputs, targets);
        dataset_sample(&d, 1, w, inputs, targets);
        for (int t = 0; t < T; t++) MUST(inputs[t] < 1000 && targets[t] < 1000);
    }
}

static void fuzz_lines(char *data, size_t n) {
    JsonText text = {0};
    for (size_t at = 0, end; at < n; at = end + 1) { /* each line is read as JSON */
        end = find_byte(data, at, n, '\n');
        if (json_line(data + at, end - at, "text", &text) == NULL) {
            MUST(text.length <= end - at && text.replaced <= text.length / 3);
            is_utf8(text.bytes, text.length);
        }
    }
    free(text.buffer);
    /* The text is cut into documents in three ways. */
    for (size_t at = 0, length, next, known = 0; at < n; at += next) {
        size_t searched = 0, half = 0;
        length = cut_length(data + at, n - at, 16, true, &searched);
        MUST(length > 0 && length <= n - at);
        /* How much was searched before must not matter. */
        MUST(cut_length(data + at, n - at, 16, true, &known) == length);
        known = known > length ? known - length : 0;
        size_t early = cut_length(data + at, n - at < 600 ? n - at : 600, 16, false, &half);
        MUST(early == 0 || early == length); /* the cut must be the same when less is read at a time */
        next = length;
    }
    for (size_t at = 0, next; at < n; at += next) {
        size_t searched = 0, half = 0,
               length = separated_length(data + at, n - at, "---", true, &searched, &next);
        MUST(next > 0 && length <= next && next <= n - at);
        size_t early_next,
            early = separated_length(data + at, (n - at) / 2, "---", false, &half, &early_next);
        if (!early_next) early = separated_length(data + at, n - at, "---", true, &half, &early_next);
        MUST(early == length &&
             early_next == next); /* also when the search continues from where it stopped */
    }
    if (n) zeros_say((const unsigned char *)data, n), foreign_content((const unsigned char *)data, n);
}

static void fuzz_safetensors(char *data, size_t n) {
    char path[64], error[CHECKPOINT_ERROR_SIZE];
    NamedTensor *tensors;
    int count, file = memfd_create("fuzz", MFD_CLOEXEC);
    MUST(file >= 0 && write(file, data, n) == (ssize_t)n);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (safetensors_load(path, &tensors, &count, error)) safetensors_free(tensors, count);
    close(file);
}

static void fuzz_sentencepiece(char *data, size_t n) {
    char *copy = check_calloc(n + 1);
    memcpy(copy, data, n);
    SpmModel *m = spm_parse("fuzz", copy, n);
    char *json = NULL;
    size_t length = 0;
    static FILE *file; /* one for all inputs, because die() leaves it open */
    if (!file) file = tmpfile();
    rewind(file);
    spm_write(m, file, 3);
    length = (size_t)ftell(file);
    rewind(file);
    json = check_calloc(length + 1);
    check_fread(json, 1, length, file, "fuzz");
    spm_free(m);
    Tokenizer *t = tokenizer_parse("fuzz", json, length, NULL);
    /* A tokenizer that was written and read again must encode any text. */
    if (!*t->why_not) encode_pieces(t, data, n < 3000 ? n : 3000);
    tokenizer_free(t), free(json);
}

/* The state with its checksum. After a byte with which JSON never begins it is read without the checksum, so that its
   values are tried too. */
static void fuzz_prepare_state(char *data, size_t n) {
    Job jobs[3] = {{0, 1}, {1, 2}, {2, 7}};
    Inputs in = {.jobs = jobs, .n_jobs = 3, .n_sources = 7};
    ShardWriter writers[2] = {{.prefix = "train", .shard_tokens = 1000, .file = -1},
                              {.prefix = "val", .shard_tokens = 1000, .file = -1}};
    Totals totals = {0};
    Progress progress = {0};
    cJSON *json = n && *data == '#' ? json_parse(data + 1, n - 1) : state_parse(data, n);
    if (json && state_take(writers, &totals, &progress, &in, json)) {
        for (int s = 0; s < SLOTS; s++) {
            const Place *place = &progress.places[s];
            MUST(place->job == -1 ||
                 (place->job >= 0 && place->job < progress.next_job && place->offset >= 0));
            MUST(place->job == -1 ||
                 (place->source >= jobs[place->job].first && place->source <= jobs[place->job].end));
        }
        for (int split = 0; split < 2; split++)
            for (size_t s = 0; s < writers[split].n_shards; s++)
                MUST(writers[split].shards[s].tokens <= 1000);
        MUST(totals.lines >= 0 && progress.next_job >= 0 && progress.next_job <= 3);
    }
    free(writers[0].shards), free(writers[1].shards);
    cJSON_Delete(json);
}

/* What die() may leave open: the file that is being read or written, and the descriptor of the terminal while another
   file takes its place. */
static struct {
    FILE *stream;
    int terminal; /* 0: it is in its place */
} fuzz_open;

static void fuzz_close(void) {
    if (fuzz_open.stream) fclose(fuzz_open.stream);
    if (fuzz_open.terminal)
        fflush(stdout), dup2(fuzz_open.terminal, STDOUT_FILENO), close(fuzz_open.terminal);
    fuzz_open.stream = NULL, fuzz_open.terminal = 0;
}

/* The text written to a file in memory, ended by a zero. It must contain no control character for a terminal. */
static char *fuzz_plain_text(int file) {
    const off_t size = lseek(file, 0, SEEK_END);
    char *text = check_calloc((size_t)size + 1);
    MUST(pread(file, text, (size_t)size, 0) == size);
    for (off_t i = 0; i < size; i++) MUST((unsigned char)text[i] >= 32 || text[i] == '\n');
    MUST(is_utf8(text, (size_t)size) && !memmem(text, (size_t)size, "\xc2\x9b", 2));
    return text;
}

static void fuzz_report_terminal(const Run *runs, int count, const Arms *arms) {
    const int file = memfd_create("fuzz", MFD_CLOEXEC);
    fflush(stdout);
    fuzz_open.terminal = dup(STDOUT_FILENO);
    MUST(file >= 0 && fuzz_open.terminal > 0 && dup2(file, STDOUT_FILENO) == STDOUT_FILENO);
    terminal_show(&(Terminal){.utf8 = true}, runs, count, arms, NAN);
    fuzz_close();
    free(fuzz_plain_text(file));
    close(file);
}

/* The HtmlSection of the page. Its numbers come from here, because these runs have no folder. */
static RunAnalysis fuzz_analyses[2];
static void fuzz_analysis(FILE *f, const Run *runs, int count, int64_t points) {
    html_analysis_section(f, runs, fuzz_analyses, count, points);
}

/* The data of the page must be JSON without nan and inf, and nothing in it may end the page's script or begin another
   one. */
static void fuzz_report_page(const Run *runs, int count, const Arms *arms) {
    const int file = memfd_create("fuzz", MFD_CLOEXEC);
    fuzz_open.stream = fdopen(dup(file), "w");
    MUST(file >= 0 && fuzz_open.stream);
    html_page(fuzz_open.stream, runs, count, arms, 1.5, fuzz_analysis);
    fuzz_close();
    char *page = fuzz_plain_text(file);
    const char *begin = strstr(page, "id=\"data\">"), *end;
    MUST(begin);
    cJSON *data = cJSON_ParseWithOpts(begin + strlen("id=\"data\">"), &end, false);
    MUST(data && strncmp(end + strspn(end, "\n"), "</script>", 9) == 0);
    int scripts = 0;
    for (const char *at = page; (at = strcasestr(at, "<script")); at++) scripts++;
    for (const char *at = page; (at = strcasestr(at, "</script")); at++) scripts += 10;
    MUST(scripts == 22);
    cJSON_Delete(data);
    free(page);
    close(file);
}

/* What a resumed run keeps of a log must be a log. */
static void fuzz_log_keep(const char *text, size_t n) {
    char error[LOG_ERROR_SIZE], *kept = check_calloc(n + 2);
    Log log = {.best.step = -1, .last.step = -1};
    memcpy(kept, text, n);
    const size_t size = log_keep(&log, kept, n, 100);
    LogData data = {0};
    if (size && (fuzz_open.stream = fmemopen(kept, size, "rb")))
        MUST(log_each(fuzz_open.stream, "fuzz", log_collect, &data, error));
    fuzz_close();
    log_free(&data);
    free(kept);
}

/* log.jsonl, config.json and summary.json of two runs, and the name of the second, with a byte 0xFF between them. */
static void fuzz_report(char *data, size_t n) {
    char *parts[6] = {0};
    size_t sizes[6] = {0};
    for (int i = 0; i < 6 && data; i++) {
        char *end = i < 5 ? memchr(data, 0xFF, n) : NULL;
        parts[i] = data, sizes[i] = end ? (size_t)(end - data) : n;
        n -= end ? sizes[i] + 1 : n;
        data = end ? end + 1 : NULL;
        if (end) *end = 0;
    }
    Run runs[2];
    int count = 0;
    memset(fuzz_analyses, 0, sizeof fuzz_analyses); /* after a die() their memory is freed already */
    fuzz_log_keep(parts[0], sizes[0]);
    for (int r = 0; r < 2; r++) {
        Run *run = &runs[count];
        *run = run_unknown(r && parts[5] ? parts[5] : "runs/fuzz");
        if (!parts[3 * r] || !(fuzz_open.stream = fmemopen(parts[3 * r], sizes[3 * r], "rb"))) continue;
        run_read_log(run, fuzz_open.stream, "fuzz");
        fuzz_close();
        run_analysis_free(&fuzz_analyses[count]); /* of a run that had no losses */
        if ((fuzz_open.stream = fmemopen(parts[3 * r], sizes[3 * r], "rb")))
            fuzz_analyses[count] = run_analysis_of(fuzz_open.stream);
        fuzz_close();
        if (run->curves[CURVE_TRAINING].count + run->curves[CURVE_VALIDATION].count == 0) continue;
        run_take_settings(run, run_parse_json("fuzz", parts[r ? 4 : 1]),
                          r ? NULL : run_parse_json("fuzz", parts[2]));
        count++;
    }
    if (count) {
        runs_name(runs, count);
        Arms arms;
        const bool grouped = arms_gather(&arms, runs, count);
        fuzz_report_terminal(runs, count, grouped ? &arms : NULL);
        fuzz_report_page(runs, count, grouped ? &arms : NULL);
        arms_free(&arms);
    }
    for (int r = 0; r < count; r++) run_free(&runs[r]);
    for (int r = 0; r < 2; r++) run_analysis_free(&fuzz_analyses[r]);
}

static OptionSet fuzz_options(Options *options, char *text, size_t n) {
    OptionSet set = options_begin("fuzz", "", train_options, TRAIN_OPTION_COUNT, options, train_presets);
    options_apply_text(&set, text, n, "fuzz");
    if (*options->preset) options_apply_preset(&set, options->preset);
    return set;
}

/* Frees the values of OPTION_STRING, of which the program keeps every one until it ends. */
static void fuzz_forget_texts(void) {
    for (struct OptionText *next; options_texts; options_texts = next) {
        next = options_texts->next;
        free(options_texts);
    }
}

/* Options from a file must be the same after they were written as the config.json of a run and read back. */
static void fuzz_config(char *data, size_t n) {
    static Options options, again;
    char was[64], now[64];
    options_texts = NULL; /* already freed, if the last input died */
    OptionSet set = fuzz_options(&options, data, n);
    cJSON *json = options_to_json(&set);
    char *text = cJSON_Print(json);
    OptionSet second = fuzz_options(&again, text, strlen(text));
    for (int i = 0; i < TRAIN_OPTION_COUNT; i++)
        MUST(strcmp(train_options[i].name, "config") == 0 || train_options[i].flags & OPTION_ONCE ||
             strcmp(options_text(&set, &train_options[i], was),
                    options_text(&second, &train_options[i], now)) == 0);
    cJSON_free(text), cJSON_Delete(json);
    fuzz_forget_texts();
}

/* A state that is accepted must be the same after it was written and read again. */
static void fuzz_state(char *data, size_t n) {
    char error[FILE_ERROR_SIZE], difference[256];
    RunState state, again;
    cJSON *json = json_parse(data, n);
    if (run_state_read(json, &state, error)) {
        state.options = cJSON_Duplicate(state.options, true);
        cJSON *out = run_state_to_json(&state);
        char *text = cJSON_Print(out);
        cJSON *in = json_parse(text, strlen(text));
        MUST(run_state_read(in, &again, error));
        MUST(again.step == state.step && again.tokens == state.tokens && again.seconds == state.seconds &&
             again.optimizer_parts == state.optimizer_parts && again.data_changes == state.data_changes);
        MUST(memcmp(&again.watch, &state.watch, sizeof state.watch) == 0);
        MUST(!fingerprint_difference(&state.data, &again.data, difference));
        cJSON_Delete(in), cJSON_free(text), cJSON_Delete(out);
        run_state_free(&again);
    }
    run_state_free(&state);
    cJSON_Delete(json);
}

static const struct {
    const char *name;
    void (*function)(char *data, size_t n);
} targets[] = {{"tokenizer", fuzz_tokenizer},
               {"shards", fuzz_shards},
               {"lines", fuzz_lines},
               {"safetensors", fuzz_safetensors},
               {"sentencepiece", fuzz_sentencepiece},
               {"config", fuzz_config},
               {"state", fuzz_state},
               {"prepare_state", fuzz_prepare_state},
               {"report", fuzz_report}};

/* True when the target came to its end, false when it ended in die(). */
static bool fuzz_one(void (*function)(char *, size_t), const unsigned char *bytes, size_t n) {
    static bool ready;
    if (n > (size_t)1 << 30) return false;
    if (!ready) cJSON_InitHooks(&(cJSON_Hooks){memory_get_any, memory_give_back});
    ready = true;
    check_hooks.end_job = die_here;
    bool lived = false;
    char *data = check_calloc(n + 1); /* ended by a zero, like the content of a file that was read */
    memcpy(data, bytes, n);
    if (setjmp(after_death) == 0) {
        function(data, n);
        lived = true;
        free(data);
        MUST(memory_list.next == &memory_list); /* all memory was freed */
    }
    fuzz_close();
    while (memory_list.next != &memory_list) memory_give_back(memory_list.next + 1);
    return lived;
}

#ifdef FUZZ_TARGET
#define FUZZ_JOIN(name) fuzz_##name
#define FUZZ_FUNCTION(name) FUZZ_JOIN(name)
int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n);
int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n) {
    (void)targets;
    fuzz_one(FUZZ_FUNCTION(FUZZ_TARGET), bytes, n);
    return 0;
}
#else
/* Changes, removes, doubles or moves some bytes. Returns the new length, at most `room`. */
static size_t mutate(unsigned char *bytes, size_t n, size_t room, uint64_t seed) {
    static const char *const words[] = {"\"",      "{",    "}",  "[",     "]",     ":",    ",",    "\\u0000",
                                        "\\ud800", "null", "-1", "1e999", "65536", "\xFF", "\n\n", " "};
    uint64_t count = 1 + rng_bits(seed, 0, 0) % 4;
    for (uint64_t i = 1; i <= count && n > 0; i++) {
        size_t at = rng_bits(seed, i, 0) % n, from = rng_bits(seed, i, 1) % n,
               length = 1 + rng_bits(seed, i, 2) % 16;
        const char *word = words[rng_bits(seed, i, 3) % (sizeof words / sizeof *words)];
        if (length > n - at) length = n - at;
        switch (rng_bits(seed, i, 4) % 6) {
        case 0: bytes[at] = (unsigned char)rng_bits(seed, i, 5); break;
        case 1: bytes[at] ^= (unsigned char)(1u << rng_bits(seed, i, 5) % 8); break;
        case 2: memmove(bytes + at, bytes + at + length, n - at - length), n -= length; break;
        case 3:
            if (length <= n - from) memmove(bytes + at, bytes + from, length);
            break;
        case 4:
            if (n + strlen(word) > room) break;
            memmove(bytes + at + strlen(word), bytes + at, n - at);
            memcpy(bytes + at, word, strlen(word)), n += strlen(word);
            break;
        default:
            if (rng_bits(seed, i, 5) % 8 == 0) n = at;
        }
    }
    return n;
}

int main(int argc, char **argv) {
    if (argc < 4) return fprintf(stderr, "usage: fuzz TARGET ROUNDS SEED-FILE...\n"), 2;
    int target = 0, n_targets = (int)(sizeof targets / sizeof *targets), rounds = atoi(argv[2]), lived = 0,
        died = 0;
    while (target < n_targets && strcmp(targets[target].name, argv[1]) != 0) target++;
    if (target == n_targets) return fprintf(stderr, "unknown target '%s'\n", argv[1]), 2;
    if (!freopen("/dev/null", "w", stderr)) return 2; /* every die() prints a line */
    enum { ROOM = 1 << 20 };
    static unsigned char seed[ROOM], bytes[ROOM];
    for (int i = 3; i < argc; i++) {
        FILE *file = check_fopen(argv[i], "rb", "");
        size_t n = fread(seed, 1, ROOM / 2, file);
        fclose(file);
        for (int round = 0; round <= rounds; round++) { /* the first round takes the seed unchanged */
            memcpy(bytes, seed, n);
            size_t now = round ? mutate(bytes, n, ROOM, (uint64_t)round << 8 | (unsigned)i) : n;
            if (fuzz_one(targets[target].function, bytes, now))
                lived++;
            else
                died++;
        }
    }
    printf("%s: %d came to the end, %d died as they may\n", argv[1], lived, died);
    return 0;
}
#endif
