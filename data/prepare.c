/* prepare.c: text to token shards.

       ./prepare --out=DIR [--vocab=N | --tokenizer=FILE] INPUT...

   INPUT is a file of plain text, of JSON lines (field "text"), either of them gzipped, a folder of such
   files, or - for standard input. DIR gets tokenizer.json, train_000000.bin, ..., val_000000.bin, ... and the
   manifest shards.json. `--verify` checks such a folder. data/README.md has the formats and the commands for
   C4.

   How it works: rounds. In a round, up to 16 open inputs each give a block of documents (documents.h),
   documents are encoded in parallel, and the tokens are written in the order of inputs and documents
   (output.h). Three rounds are under way at once: one being read, one being encoded, one being written. What
   comes out depends on the inputs and options alone, not on threads; a state is kept on disk, so a run that
   was killed goes on where it was. Every document is preceded by the end-of-text token. A document goes to
   validation when the hash of its text says so (the same text always goes to the same side), or when its file
   is named as validation.

   Build: cc -O3 -march=native -fopenmp data/prepare.c -o prepare -lcjson -lz -lm */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <time.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#include "../gpt/check.h"
#include "../gpt/options.h"
#include "../gpt/rng.h"
#include "../gpt/tokenizer.h"
#include "documents.h"
#include "output.h"
#include "sentencepiece.h"

typedef struct {
    const char *out, *val, *field, *separator, *tokenizer;
    int format, documents;
    int64_t document_bytes, extra_ids, vocab, tokenizer_text, shard_tokens, threads, save_every, round_bytes;
    double val_fraction, max_bad;
    bool overwrite, verify, quiet;
} PrepareOptions;

#define ROW_OF(group, name, type, field, value, min, max, choices, help)                                     \
    { group, name, type, offsetof(PrepareOptions, field), value, min, max, choices, help, false }

static const Option prepare_options[] = {
    ROW_OF("Input", "format", OPTION_CHOICE, format, "auto", 0, 0, "auto|text|jsonl",
           "auto: by name (.txt .md .json .jsonl .ndjson, each with .gz), else by content"),
    ROW_OF("Input", "field", OPTION_STRING, field, "text", 0, 0, "NAME",
           "field of a JSON line that holds the text"),
    ROW_OF("Input", "documents", OPTION_CHOICE, documents, "auto", 0, 0, "auto|file|cut",
           "plain text: a file is a document, or is cut at blank lines; auto cuts when there are fewer than "
           "64 files"),
    ROW_OF("Input", "document-bytes", OPTION_INT, document_bytes, "8192", 16, 1 << 24, "",
           "least size of the pieces a plain text is cut into"),
    ROW_OF("Input", "separator", OPTION_STRING, separator, "", 0, 0, "LINE",
           "plain text: lines equal to this separate documents"),
    ROW_OF("Input", "max-bad", OPTION_FLOAT, max_bad, "0.01", 0, 100, "",
           "percent of malformed JSON lines above which the run fails"),
    ROW_OF("Tokenizer", "vocab", OPTION_INT, vocab, "0", 0, TOKENIZER_MAX_VOCAB, "",
           "size of the vocabulary to learn, 257 to 65536; 0: by the amount of text"),
    ROW_OF("Tokenizer", "tokenizer", OPTION_STRING, tokenizer, "", 0, 0, "FILE",
           "use this one instead: a tokenizer.json, GPT-2's vocab.json with merges.txt beside it, their "
           "folder, or a SentencePiece *.model (needs spm_encode)"),
    ROW_OF("Tokenizer", "extra-ids", OPTION_INT, extra_ids, "0", 0, 1000, "",
           "sentinels <extra_id_N> added to a SentencePiece vocabulary; T5 has 100"),
    ROW_OF("Tokenizer", "tokenizer-text", OPTION_INT, tokenizer_text, "256", 1, 1 << 20, "",
           "MiB of text to learn the vocabulary from, taken from all inputs"),
    ROW_OF("Output", "out", OPTION_STRING, out, "", 0, 0, "DIR", "folder for the shards; made when missing"),
    ROW_OF("Output", "shard-tokens", OPTION_INT, shard_tokens, "100000000", 16, 4294967295.0, "",
           "tokens in a shard"),
    ROW_OF("Output", "val-fraction", OPTION_FLOAT, val_fraction, "0.05", 0, 0.9, "",
           "share of the documents for validation; unused when there are files for it"),
    ROW_OF("Output", "val", OPTION_STRING, val, "", 0, 0, "PATH",
           "a file or folder for validation; inputs named like c4-validation.00000.json.gz are, too"),
    ROW_OF("Output", "overwrite", OPTION_SWITCH, overwrite, "no", 0, 0, "", "replace what the folder holds"),
    ROW_OF("Output", "verify", OPTION_SWITCH, verify, "no", 0, 0, "",
           "check the folder --out against its manifest, write nothing"),
    ROW_OF("Machine", "threads", OPTION_INT, threads, "0", 0, 4096, "", "0: one per core"),
    ROW_OF("Machine", "save-every", OPTION_INT, save_every, "10", 0, 86400, "",
           "seconds between the points an interrupted run can go on from"),
    ROW_OF("Machine", "round-bytes", OPTION_INT, round_bytes, "16777216", 4096, 1 << 30, "",
           "text under way at once; large inputs are taken in turns of a part of it"),
    ROW_OF("Machine", "quiet", OPTION_SWITCH, quiet, "no", 0, 0, "", "no progress line"),
};
enum { N_OPTIONS = sizeof prepare_options / sizeof *prepare_options };

enum { TRAIN, VAL };
enum { CHUNK_BYTES = 1 << 16, SPM_CHUNK_BYTES = 1 << 20, CHUNK_BAD = 3, EARLY_LINES = 100000 };

typedef struct {
    int source;
    int64_t line;
    const char *what;
} BadLine;

/* Some documents of a block: what one thread encodes at a time. */
typedef struct {
    const Block *block;
    size_t first, end;   /* documents of the block */
    uint16_t *tokens[2]; /* per split */
    size_t n_tokens[2], room[2];
    int64_t documents[2];
    Totals totals;
    BadLine bad[CHUNK_BAD]; /* the first few */
    uint64_t least_hash;
    char *lines; /* SentencePiece: the documents, a line each, and the split of each */
    unsigned char *splits;
    size_t n_lines, lines_room, n_splits, splits_room;
} Chunk;

typedef struct {
    bool used;
    Block blocks[SLOTS];
    Place places[SLOTS]; /* of the readers after this round */
    int next_job;
    Chunk *chunks;
    size_t n_chunks, room;
} Round;

typedef struct {
    const PrepareOptions *options;
    Inputs in;
    Tokenizer *tokenizer;
    SpmModel *spm;             /* not NULL: spm_encode does the encoding */
    TokenizerTrainer *trainer; /* not NULL: pieces are counted, nothing is written */
    TokenizerCache **caches;   /* (threads) */
    int threads, next_job, rounds_read;
    Reader readers[SLOTS];
    Round rounds[3];
    ShardWriter writers[2];
    Totals totals;
    uint64_t val_below; /* a document whose hash is smaller is for validation */
    int bad_shown;
    char *standard_input; /* where it is kept */
    uint32_t stdin_crc;
    char fingerprint[16];
    double began, saved, shown;
    int64_t began_bytes, began_text;
    uint64_t began_tokens;
} Run;

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int thread_number(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* -----------------------------------------------------------------------------------------------------------
   One document */

/* cJSON ends a string at an escaped zero character; here each one becomes a code point that no text should
   hold (U+FDD0..U+FDEF), one the line does not have. Returns the last byte of that code point's UTF-8, 0 when
   there is nothing to do. */
static unsigned char hide_zeros(char *line, size_t n) {
    if (!memmem(line, n, "\\u0000", 6)) return 0;
    int code = 0xFDD0;
    for (char escape[8], utf8[4]; code < 0xFDF0; code++) {
        snprintf(escape, sizeof escape, "%04x", (unsigned)code);
        snprintf(utf8, sizeof utf8, "\xEF\xB7%c", 0x80 | (code & 0x3F));
        bool used = memmem(line, n, utf8, 3) != NULL;
        for (size_t i = 0; i + 6 <= n && !used; i++)
            used = line[i] == '\\' && strncasecmp(line + i + 2, escape, 4) == 0;
        if (!used) break;
    }
    for (size_t i = 0; i + 6 <= n; i++) {
        if (line[i] != '\\') continue;
        char digits[8];
        snprintf(digits, sizeof digits, "%04x", (unsigned)code);
        if (memcmp(line + i + 1, "u0000", 5) == 0) memcpy(line + i + 2, digits, 4);
        i++; /* what is escaped is no backslash that escapes */
    }
    return (unsigned char)(0x80 | (code & 0x3F));
}

static size_t show_zeros(char *text, size_t n, unsigned char last) {
    size_t to = 0;
    for (size_t i = 0; i < n; to++) {
        bool zero = i + 2 < n && memcmp(text + i, "\xEF\xB7", 2) == 0 && (unsigned char)text[i + 2] == last;
        text[to] = zero ? 0 : text[i];
        i += zero ? 3 : 1;
    }
    return to;
}

/* The text of a JSON line; NULL when it is malformed, and why. The text lives in *json. */
static char *json_text(char *line, size_t n, const char *field, cJSON **json, size_t *length,
                       const char **why) {
    const char *end = line;
    unsigned char hidden = hide_zeros(line, n);
    *json = cJSON_ParseWithLengthOpts(line, n, &end, 0);
    while (*json && end < line + n && strchr(" \t\r", *end) && *end) end++;
    cJSON *item = cJSON_GetObjectItemCaseSensitive(*json, field);
    *why = !*json || end < line + n ? "is not valid JSON"
           : !cJSON_IsObject(*json) ? "is not a JSON object"
           : !item                  ? "has no such field"
           : !cJSON_IsString(item)  ? "holds something else than a text in the field"
                                    : NULL;
    if (*why) return NULL;
    *length = strlen(item->valuestring);
    if (hidden) *length = show_zeros(item->valuestring, *length, hidden);
    return item->valuestring;
}

static bool is_utf8(const char *text, size_t n) {
    const unsigned char *p = (const unsigned char *)text, *end = p + n;
    for (int length; p < end; p += length) {
        uint64_t eight;
        length = 8; /* eight ASCII characters at once */
        if (end - p >= 8 && (memcpy(&eight, p, 8), (eight & 0x8080808080808080u) == 0)) continue;
        if (tokenizer_utf8(p, end, &length) < 0) return false;
    }
    return true;
}

/* SentencePiece: a document becomes a line. */
static void chunk_line(Chunk *chunk, const char *text, size_t n, int split) {
    chunk->lines = check_grow(chunk->lines, &chunk->lines_room, chunk->n_lines + n + 1, 1);
    chunk->splits = check_grow(chunk->splits, &chunk->splits_room, chunk->n_splits + 1, 1);
    for (size_t i = 0; i < n; i++) chunk->lines[chunk->n_lines++] = text[i] == '\n' ? ' ' : text[i];
    chunk->lines[chunk->n_lines++] = '\n';
    chunk->splits[chunk->n_splits++] = (unsigned char)split;
}

/* Encodes the lines and deals out the lines of ids that come back. */
static void chunk_spm(Run *run, Chunk *chunk) {
    if (!chunk->n_splits) return;
    char *ids = spm_encode(run->spm, chunk->lines, chunk->n_lines), *at = ids;
    for (size_t d = 0; d < chunk->n_splits; d++) {
        int split = chunk->splits[d];
        size_t length = strcspn(at, "\n"), *used = &chunk->n_tokens[split];
        if (!at[length]) die("spm_encode returned %zu lines for %zu documents", d, chunk->n_splits);
        chunk->tokens[split] =
            check_grow(chunk->tokens[split], &chunk->room[split], *used + length / 2 + 2, sizeof(uint16_t));
        chunk->tokens[split][(*used)++] = (uint16_t)tokenizer_end_of_text(run->tokenizer);
        for (char *line_end = at + length; at < line_end;) {
            chunk->tokens[split][(*used)++] = (uint16_t)strtoul(at, &at, 10);
            while (*at == ' ') at++;
        }
        at++;
    }
    free(ids);
}

static void chunk_document(Run *run, Chunk *chunk, const Source *source, const char *text, size_t n) {
    uint64_t hash = rng_mix(tokenizer_hash_bytes(text, n));
    int split = source->validation || (!run->in.has_validation && hash < run->val_below) ? VAL : TRAIN,
        thread = thread_number();
    if (hash < chunk->least_hash) chunk->least_hash = hash;
    chunk->documents[split]++;
    chunk->totals.text_bytes += (int64_t)n;
    chunk->totals.not_utf8 += !is_utf8(text, n);
    if (run->trainer) {
        if (split == TRAIN) tokenizer_trainer_add(run->trainer, thread, text, n);
        return;
    }
    if (run->spm) {
        chunk_line(chunk, text, n, split);
        return;
    }
    size_t *used = &chunk->n_tokens[split];
    chunk->tokens[split] =
        check_grow(chunk->tokens[split], &chunk->room[split], *used + n + 1, sizeof(uint16_t));
    chunk->tokens[split][(*used)++] = (uint16_t)tokenizer_end_of_text(run->tokenizer);
    *used += tokenizer_encode(run->tokenizer, run->caches[thread], text, n, chunk->tokens[split] + *used);
}

static void chunk_encode(Run *run, Chunk *chunk) {
    memset(chunk->n_tokens, 0, sizeof chunk->n_tokens);
    memset(chunk->documents, 0, sizeof chunk->documents);
    chunk->totals = (Totals){0};
    chunk->n_lines = chunk->n_splits = 0;
    chunk->least_hash = UINT64_MAX;
    for (size_t d = chunk->first; d < chunk->end; d++) {
        const RawDocument *raw = &chunk->block->documents[d];
        const Source *source = &run->in.sources[raw->source];
        char *text = chunk->block->bytes + raw->start;
        size_t n = raw->length;
        cJSON *json = NULL;
        const char *why = NULL;
        if (source->jsonl) text = json_text(text, n, run->options->field, &json, &n, &why);
        chunk->totals.lines++;
        if (why) {
            if (chunk->totals.bad_lines < CHUNK_BAD)
                chunk->bad[chunk->totals.bad_lines] = (BadLine){raw->source, raw->line, why};
            chunk->totals.bad_lines++;
        } else if (!n) {
            chunk->totals.empty++;
        } else {
            chunk_document(run, chunk, source, text, n);
        }
        cJSON_Delete(json);
    }
    if (run->spm && !run->trainer) chunk_spm(run, chunk);
}

/* -----------------------------------------------------------------------------------------------------------
   Rounds */

/* Gives idle slots the next jobs; false when there is nothing left to read. */
static bool round_begin(Run *run) {
    bool active = false;
    for (int s = 0; s < SLOTS; s++) {
        Reader *reader = &run->readers[s];
        if (reader->place.job < 0 && run->next_job < run->in.n_jobs) {
            int job = run->next_job++;
            reader->place = (Place){.job = job, .source = run->in.jobs[job].first};
        }
        active |= reader->place.job >= 0;
    }
    return active;
}

/* After reading: keeps the readers' places and cuts the blocks into chunks. */
static void round_cut(Run *run, Round *round) {
    round->used = true;
    round->next_job = run->next_job;
    round->n_chunks = 0;
    run->rounds_read++;
    const size_t limit = run->spm ? SPM_CHUNK_BYTES : CHUNK_BYTES; /* a process needs a while to start */
    for (int s = 0; s < SLOTS; s++) {
        const Block *block = &round->blocks[s];
        round->places[s] = run->readers[s].place;
        for (size_t first = 0, end; first < block->n_documents; first = end) {
            size_t bytes = 0;
            for (end = first; end < block->n_documents && bytes < limit; end++)
                bytes += block->documents[end].length;
            round->chunks =
                check_grow(round->chunks, &round->room, round->n_chunks + 1, sizeof *round->chunks);
            Chunk *chunk = &round->chunks[round->n_chunks++];
            chunk->block = block, chunk->first = first, chunk->end = end;
        }
    }
}

static void show_bad(Run *run, const Chunk *chunk) {
    for (int64_t i = 0; i < chunk->totals.bad_lines && i < CHUNK_BAD && run->bad_shown < 10;
         i++, run->bad_shown++) {
        const BadLine *bad = &chunk->bad[i];
        warn("'%s' line %lld %s%s%s%s; it is left out", run->in.sources[bad->source].path,
             (long long)bad->line, bad->what, strstr(bad->what, "field") ? " '" : "",
             strstr(bad->what, "field") ? run->options->field : "", strstr(bad->what, "field") ? "'" : "");
    }
}

static void check_bad(const Run *run, int64_t lines) {
    double percent = 100.0 * (double)run->totals.bad_lines / (double)(lines ? lines : 1);
    if (percent > run->options->max_bad)
        die("%lld of %lld lines are malformed, %.3g %%, more than --max-bad=%g allows; look at the lines "
            "above, "
            "or raise it and run the same command again",
            (long long)run->totals.bad_lines, (long long)lines, percent, run->options->max_bad);
}

static void totals_add(Totals *to, const Totals *from) {
    for (size_t i = 0; i < sizeof totals_table / sizeof *totals_table; i++)
        *(int64_t *)((char *)to + totals_table[i].offset) +=
            *(const int64_t *)((const char *)from + totals_table[i].offset);
}

/* When all the text is one round and no document's hash chose validation, the smallest hash does. */
static void round_choose_validation(Run *run, Round *round) {
    uint64_t least = UINT64_MAX;
    int64_t documents = 0, val = run->in.has_validation;
    for (size_t c = 0; c < round->n_chunks; c++) {
        val += round->chunks[c].documents[VAL], documents += round->chunks[c].documents[TRAIN];
        if (round->chunks[c].least_hash < least) least = round->chunks[c].least_hash;
    }
    if (run->rounds_read > 1 || run->totals.lines || val || documents < 2 || run->options->val_fraction == 0)
        return;
    run->val_below = least + 1;
    for (size_t c = 0; c < round->n_chunks; c++) chunk_encode(run, &round->chunks[c]);
}

/* Keeps the state: everything written so far, and where the readers stood when they had read that much. */
static void run_save(Run *run, const Place places[SLOTS], int next_job) {
    Progress progress = {.next_job = next_job};
    memcpy(progress.places, places, sizeof progress.places);
    memcpy(progress.fingerprint, run->fingerprint, sizeof progress.fingerprint);
    state_save(run->writers, &run->totals, &progress);
    run->saved = seconds_now();
}

static void round_write(Run *run, Round *round) {
    if (!run->trainer) round_choose_validation(run, round);
    for (size_t c = 0; c < round->n_chunks; c++) {
        Chunk *chunk = &round->chunks[c];
        totals_add(&run->totals, &chunk->totals);
        if (run->trainer) continue;
        show_bad(run, chunk);
        for (int split = 0; split < 2; split++) {
            shard_put(&run->writers[split], chunk->tokens[split], chunk->n_tokens[split]);
            run->writers[split].documents += (uint64_t)chunk->documents[split];
        }
    }
    if (run->trainer) return;
    check_bad(run, run->totals.lines > EARLY_LINES ? run->totals.lines : EARLY_LINES);
    if (seconds_now() - run->saved < (double)run->options->save_every) return;
    run_save(run, round->places, round->next_job);
}

/* -----------------------------------------------------------------------------------------------------------
   The progress line */

static const char *amount(double x, const char *unit, char text[32]) {
    static const char *const sizes[] = {"", "k", "M", "G", "T"};
    int size = 0;
    for (; x >= 999.5 && size < 4; size++) x /= 1000;
    snprintf(text, 32,
             x < 9.995 && size   ? "%.2f %s%s"
             : x < 99.95 && size ? "%.1f %s%s"
                                 : "%.0f %s%s",
             x, sizes[size], unit);
    return text;
}

static const char *duration(double seconds, char text[32]) {
    long s = (long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(text, 32, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, 32, "%ld:%02ld", s / 60, s % 60);
    return text;
}

/* 1234567 as 1,234,567. */
static const char *grouped(uint64_t n, char text[32]) {
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n), to = 0;
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) text[to++] = ',';
        text[to++] = digits[i];
    }
    text[to] = 0;
    return text;
}

/* Bytes on disk read so far, and the files finished. */
static int64_t input_position(const Run *run, int *files) {
    int64_t bytes = 0;
    *files = 0;
    for (int job = 0; job < run->next_job; job++)
        for (int s = run->in.jobs[job].first; s < run->in.jobs[job].end; s++)
            bytes += run->in.sources[s].bytes, ++*files;
    for (int s = 0; s < SLOTS; s++) {
        const Reader *r = &run->readers[s];
        if (r->place.job < 0) continue;
        for (int source = r->place.source; source < run->in.jobs[r->place.job].end; source++)
            bytes -= run->in.sources[source].bytes, --*files;
        if (r->file) bytes += gzoffset(r->file);
    }
    return bytes;
}

static void show_progress(Run *run, bool last) {
    bool terminal = isatty(STDERR_FILENO);
    double now = seconds_now(), passed = now - run->began;
    if (run->options->quiet || (!last && now - run->shown < (terminal ? 0.2 : 10))) return;
    if (last && run->shown == run->began && !terminal) return; /* too short to speak of */
    int files;
    char text[5][32];
    int64_t position = input_position(run, &files);
    uint64_t tokens = run->writers[TRAIN].tokens + run->writers[VAL].tokens;
    double rate = (double)(position - run->began_bytes) / passed;
    fprintf(stderr, "%s%s  %d/%d files  %s  %s", terminal ? "\r" : "",
            run->trainer ? "reading for the tokenizer" : "encoding", files, run->in.n_sources,
            amount((double)run->totals.text_bytes, "B", text[0]),
            amount((double)(run->totals.text_bytes - run->began_text) / passed, "B/s", text[1]));
    if (!run->trainer)
        fprintf(stderr, "  %s", amount((double)(tokens - run->began_tokens) / passed, "tokens/s", text[2]));
    if (!run->trainer && rate > 0)
        fprintf(stderr, "  %s left", duration((double)(run->in.bytes - position) / rate, text[3]));
    fprintf(stderr, "%s%s", terminal ? "\033[K" : "\n", terminal && last ? "\n" : "");
    run->shown = now;
}

/* Reads all inputs; three rounds are under way at once, each a step further than the next. */
static void run_rounds(Run *run) {
    run->began = run->saved = run->shown = seconds_now();
    run->rounds_read = 0;
#ifdef _OPENMP
#pragma omp parallel num_threads(run->threads)
#pragma omp single
#endif
    for (int step = 0;; step++) {
        Round *reading = &run->rounds[step % 3], *encoding = &run->rounds[(step + 2) % 3];
        Round *writing = &run->rounds[(step + 1) % 3];
        bool more = round_begin(run);
        if (!more && !encoding->used && !writing->used) break;
        for (int s = 0; s < SLOTS; s++) {
            reading->blocks[s].n_documents = 0;
            if (run->readers[s].place.job < 0) continue;
#pragma omp task firstprivate(s, reading)
            reader_next(&run->readers[s], &reading->blocks[s]);
        }
        for (size_t c = 0; encoding->used && c < encoding->n_chunks; c++) {
#pragma omp task firstprivate(c, encoding)
            chunk_encode(run, &encoding->chunks[c]);
        }
        if (writing->used) {
#pragma omp task firstprivate(writing)
            round_write(run, writing);
        }
#pragma omp taskwait
        writing->used = false;
        if (more) round_cut(run, reading);
        show_progress(run, false);
    }
    show_progress(run, true);
}

/* -----------------------------------------------------------------------------------------------------------
   The tokenizer */

static void learn_tokenizer(Run *run, const char *path) {
    double budget = (double)run->options->tokenizer_text * 1048576, began = seconds_now();
    char text[32], number[32];
    run->trainer = tokenizer_trainer_new(run->threads);
    for (int s = 0; s < SLOTS; s++)
        run->readers[s].fraction = budget / (double)(run->in.bytes ? run->in.bytes : 1);
    run_rounds(run);
    int64_t bytes = run->totals.text_bytes, vocab = run->options->vocab;
    if (!vocab) vocab = bytes >= 100000000 ? 32000 : bytes >= 10000000 ? 8192 : bytes >= 500000 ? 2048 : 512;
    bool terminal = isatty(STDERR_FILENO) && !run->options->quiet;
    if (terminal) fprintf(stderr, "learning the vocabulary\r");
    run->tokenizer = tokenizer_trainer_finish(run->trainer, (int)vocab);
    if (terminal) fprintf(stderr, "\033[K");
    run->trainer = NULL;
    tokenizer_save(run->tokenizer, path);
    int size = tokenizer_vocab_size(run->tokenizer);
    printf("tokenizer  %d tokens learned from %s of text in %s%s\n", size, amount((double)bytes, "B", text),
           duration(seconds_now() - began, number), run->options->vocab ? "" : " (another size: --vocab=N)");
    if (size < vocab)
        warn("the vocabulary has %d tokens, not %lld: no other pair occurs twice in the text", size,
             (long long)vocab);
    run->next_job = 0;
    run->totals = (Totals){0};
    for (int s = 0; s < SLOTS; s++) {
        Reader *r = &run->readers[s];
        r->fraction = 0;
    }
}

/* A SentencePiece model is written as a tokenizer.json, from which generation decodes. */
static void convert_spm(Run *run, const char *path) {
    spm_write(run->spm, path, (int)run->options->extra_ids);
    run->tokenizer = tokenizer_load(path);
    if (tokenizer_end_of_text(run->tokenizer) < 0)
        die("the model '%s' has no piece </s> to put between documents", run->spm->path);
    printf("tokenizer  %d tokens from %s\n", tokenizer_vocab_size(run->tokenizer), run->spm->path);
}

/* A given tokenizer.json is kept as it is; another form is written as one. */
static void copy_tokenizer(Run *run, const char *path) {
    struct stat status;
    if (run->spm) {
        convert_spm(run, path);
        return;
    }
    char *inside = shard_join(run->options->tokenizer, "tokenizer.json");
    const char *from = stat(inside, &status) == 0 ? inside : run->options->tokenizer;
    run->tokenizer = tokenizer_load(from);
    if (*run->tokenizer->why_not)
        die("the tokenizer '%s' cannot encode text: %s", from, run->tokenizer->why_not);
    if (tokenizer_end_of_text(run->tokenizer) < 0)
        die("the tokenizer '%s' has no token between documents (<|endoftext|>, </s>, <|end_of_text|> or "
            "<eos>)",
            from);
    if (stat(from, &status) == 0 && S_ISREG(status.st_mode) &&
        strcmp(check_basename(from), "vocab.json") != 0) {
        size_t n;
        char *text = check_file_read(from, FILE_REGULAR, FILE_JSON_LIMIT, &n, "name a tokenizer.json");
        write_file(path, text);
        free(text);
    } else {
        tokenizer_save(run->tokenizer, path);
    }
    printf("tokenizer  %d tokens from %s\n", tokenizer_vocab_size(run->tokenizer), from);
    free(inside);
}

static uint32_t file_crc(const char *path) {
    size_t n;
    char *text = check_file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, &n, "start over with --overwrite");
    uint32_t crc = (uint32_t)crc32_z(0, (unsigned char *)text, n);
    free(text);
    return crc;
}

/* -----------------------------------------------------------------------------------------------------------
   Beginning and end */

static OptionSet option_set;

/* The options that decide the output; the others (threads, folder, ...) would make equal folders
   differ. */
static cJSON *deciding_options(void) {
    static const char *const without[] = {"out",       "threads", "save-every", "quiet",
                                          "overwrite", "verify",  "max-bad"};
    cJSON *json = options_to_json(&option_set);
    for (size_t i = 0; i < sizeof without / sizeof *without; i++)
        cJSON_DeleteItemFromObjectCaseSensitive(json, without[i]);
    return json;
}

/* Options, inputs and tokenizer: a state or a finished folder with another fingerprint is no use. */
static void make_fingerprint(Run *run, const char *tokenizer) {
    cJSON *json = deciding_options();
    for (int s = 0; s < run->in.n_sources; s++)
        cJSON_AddNumberToObject(json, run->in.sources[s].path, (double)run->in.sources[s].bytes);
    cJSON_AddNumberToObject(json, "stdin", run->stdin_crc);
    cJSON_AddNumberToObject(json, "tokenizer.json", file_crc(tokenizer));
    char *text = cJSON_PrintUnformatted(json);
    snprintf(run->fingerprint, sizeof run->fingerprint, "1-%08x",
             (unsigned)crc32_z(0, (unsigned char *)text, strlen(text)));
    cJSON_free(text);
    cJSON_Delete(json);
}

static void write_manifest(Run *run, const char *path, const char *tokenizer) {
    cJSON *json = cJSON_CreateObject(), *item = cJSON_CreateObject(), *sources = cJSON_CreateArray();
    char crc[16];
    snprintf(crc, sizeof crc, "%08x", file_crc(tokenizer));
    cJSON_AddStringToObject(json, "format",
                            "llm.c shards, version 1: 256 int32 of header, then uint16 tokens");
    cJSON_AddStringToObject(json, "fingerprint", run->fingerprint);
    cJSON_AddItemToObject(json, "tokenizer", item);
    cJSON_AddStringToObject(item, "file", "tokenizer.json");
    cJSON_AddStringToObject(item, "crc32", crc);
    cJSON_AddNumberToObject(item, "vocab_size", tokenizer_vocab_size(run->tokenizer));
    cJSON_AddNumberToObject(item, "end_of_text", tokenizer_end_of_text(run->tokenizer));
    for (int split = 0; split < 2; split++)
        cJSON_AddItemToObject(json, run->writers[split].prefix, split_to_json(&run->writers[split]));
    totals_to_json(&run->totals, json);
    cJSON_AddItemToObject(json, "sources", sources);
    for (int s = 0; s < run->in.n_sources; s++) {
        cJSON_AddItemToArray(sources, item = cJSON_CreateObject());
        cJSON_AddStringToObject(item, "path", run->in.sources[s].path);
        cJSON_AddNumberToObject(item, "bytes", (double)run->in.sources[s].bytes);
    }
    cJSON_AddItemToObject(json, "options", deciding_options());
    char *text = cJSON_Print(json);
    write_file(path, text);
    cJSON_free(text);
    cJSON_Delete(json);
}

/* After the manifest is there; and again by who finds it, since the run that wrote it may have been killed in between. */
static void remove_state(const Run *run, const char *state) {
    char *unfinished =
        output_path(run->options->out, "prepare.state.json.part"); /* of a save that was killed */
    unlink(state), unlink(unfinished);
    free(unfinished);
}

static void finish(Run *run, const char *manifest, const char *state, const char *tokenizer) {
    char text[3][32];
    check_bad(run, run->totals.lines);
    for (int split = 0; split < 2; split++) shard_finish(&run->writers[split]);
    if (!run->writers[TRAIN].tokens)
        die("the inputs hold no text for training: %lld documents, all for validation",
            (long long)run->totals.lines);
    if (!run->writers[VAL].tokens && run->options->val_fraction > 0)
        die("none of %llu documents went to validation; raise --val-fraction, or name a file with --val",
            (unsigned long long)run->writers[TRAIN].documents);
    write_manifest(run, manifest, tokenizer);
    remove_state(run, state);
    for (int split = 0; split < 2; split++) {
        const ShardWriter *w = &run->writers[split];
        printf("%-9s  %s tokens in %s documents, %zu shard%s\n", w->prefix, grouped(w->tokens, text[0]),
               grouped(w->documents, text[1]), w->n_shards, w->n_shards == 1 ? "" : "s");
    }
    if (run->totals.bad_lines)
        warn("%lld malformed lines of %lld were left out", (long long)run->totals.bad_lines,
             (long long)run->totals.lines);
    if (run->totals.not_utf8)
        warn("%lld documents are not valid UTF-8; their bytes are kept as they are",
             (long long)run->totals.not_utf8);
    printf("%s of text in %s, %s; %.3g bytes a token\n", amount((double)run->totals.text_bytes, "B", text[0]),
           duration(seconds_now() - run->began, text[1]), run->options->out,
           (double)run->totals.text_bytes / (double)(run->writers[TRAIN].tokens + run->writers[VAL].tokens));
}

/* Standard input is read twice (the vocabulary, the tokens): it is kept in a file first. */
static void add_standard_input(Run *run, const char *path) {
    static char bytes[1 << 16];
    struct stat status;
    ssize_t n;
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0) die("cannot write '%s': %s", path, strerror(errno));
    while ((n = read(STDIN_FILENO, bytes, sizeof bytes)) != 0) {
        if (n < 0 && errno != EINTR) die("cannot read standard input: %s", strerror(errno));
        if (n > 0) write_all(file, bytes, (size_t)n, path);
        if (n > 0) run->stdin_crc = (uint32_t)crc32_z(run->stdin_crc, (unsigned char *)bytes, (size_t)n);
    }
    if (close(file) != 0 || stat(path, &status) != 0) die("cannot write '%s': %s", path, strerror(errno));
    add_source(&run->in, path, status.st_size, (Format)run->options->format, false);
}

static void gather_inputs(Run *run, int count, char **names) {
    const PrepareOptions *o = run->options;
    Inputs *in = &run->in;
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], "-") == 0)
            add_standard_input(run, run->standard_input);
        else
            add_path(in, names[i], (Format)o->format, false);
    }
    if (*o->val) add_path(in, o->val, (Format)o->format, true);
    int texts = 0;
    for (int s = 0; s < in->n_sources; s++) texts += !in->sources[s].jsonl;
    in->document_bytes = (size_t)o->document_bytes;
    in->separator = o->separator;
    in->rule = o->documents ? (DocumentRule)o->documents : texts < FEW_FILES ? DOCUMENTS_CUT : DOCUMENTS_FILE;
    if (texts && !*o->separator && !o->documents && in->rule == DOCUMENTS_CUT)
        printf("documents  plain text is cut at blank lines into documents of %lld bytes or more "
               "(--documents=file: whole files)\n",
               (long long)o->document_bytes);
    int val_files = 0;
    for (int s = 0; s < in->n_sources; s++) val_files += in->sources[s].validation;
    if (val_files)
        printf("validation  %d file%s of %d, by name\n", val_files, val_files == 1 ? "" : "s", in->n_sources);
    in->round_bytes = (size_t)o->round_bytes;
    make_jobs(in);
    double below = o->val_fraction * 18446744073709551616.0;
    run->val_below = (uint64_t)below;
    for (int s = 0; s < SLOTS; s++) run->readers[s] = (Reader){.inputs = in, .place = {.job = -1}};
}

/* Clears the folder, or takes up what an interrupted run left; true when there is nothing to do at all. */
static bool begin_output(Run *run, const char *manifest, const char *state, const char *tokenizer) {
    const PrepareOptions *o = run->options;
    struct stat status;
    if (mkdir(o->out, 0777) != 0 && errno != EEXIST)
        die("cannot make the folder '%s': %s", o->out, strerror(errno));
    bool has_manifest = stat(manifest, &status) == 0, has_state = stat(state, &status) == 0;
    bool has_tokenizer = stat(tokenizer, &status) == 0;
    if (has_tokenizer && !o->overwrite && (has_manifest || has_state)) {
        size_t n;
        const char *file = has_manifest ? manifest : state;
        char *text = check_file_read(file, FILE_REGULAR, FILE_JSON_LIMIT, &n, "start over with --overwrite");
        cJSON *json = cJSON_ParseWithLength(text, n);
        const char *found = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "fingerprint"));
        make_fingerprint(run, tokenizer);
        bool same = found && strcmp(found, run->fingerprint) == 0;
        cJSON_Delete(json), free(text);
        if (!same)
            die("'%s' holds %s other inputs or options; choose another --out, or add --overwrite", o->out,
                has_manifest ? "shards made from" : "the unfinished shards of a run with");
        if (has_manifest) {
            remove_state(run, state);
            return printf("%s is already prepared from these inputs with these options\n", o->out), true;
        }
        Progress progress = {0};
        memcpy(progress.fingerprint, run->fingerprint, sizeof progress.fingerprint);
        if (!state_load(run->writers, &run->totals, &progress))
            die("the unfinished shards in '%s' are damaged; start over with --overwrite", o->out);
        for (int s = 0; s < SLOTS; s++) run->readers[s].place = progress.places[s];
        run->next_job = progress.next_job;
        run->tokenizer = tokenizer_load(tokenizer);
        return false;
    }
    DIR *folder = opendir(o->out);
    if (!folder) die("cannot open the folder '%s': %s", o->out, strerror(errno));
    for (struct dirent *entry; !o->overwrite && (entry = readdir(folder));)
        if (!has_state &&
            (shard_name_matches(entry->d_name, "train_") || shard_name_matches(entry->d_name, "val_")))
            die("'%s' already holds shards ('%s') that were not made by this command; choose another --out, "
                "or add --overwrite",
                o->out, entry->d_name);
    closedir(folder);
    unlink(manifest), unlink(state);
    remove_shards(&run->writers[TRAIN], 0), remove_shards(&run->writers[VAL], 0);
    return false;
}

/* -----------------------------------------------------------------------------------------------------------
   --verify: every problem is a line; nothing is changed */

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

/* One shard against its line of the manifest: size, header, checksum, tokens inside the vocabulary. */
static int verify_shard(const char *folder, const cJSON *shard, int vocab_size) {
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(shard, "file"));
    const char *crc = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(shard, "crc32"));
    double tokens = json_number(shard, "tokens");
    if (!name || !crc || tokens < 0 || strchr(name, '/'))
        return verify_problem("the manifest describes a shard badly");
    char *path = shard_join(folder, name), found[16];
    struct stat status;
    char error[FILE_ERROR_SIZE];
    int file = file_open(path, O_RDONLY, FILE_REGULAR, error), problems = 0;
    int64_t want = SHARD_HEADER_BYTES + 2 * (int64_t)tokens;
    if (file < 0)
        problems = verify_problem("%s", error);
    else if (fstat(file, &status) != 0 || status.st_size != want)
        problems = verify_problem("'%s' has %lld bytes, expected %lld", path, (long long)status.st_size,
                                  (long long)want);
    unsigned char *map = problems ? MAP_FAILED : mmap(NULL, (size_t)want, PROT_READ, MAP_PRIVATE, file, 0);
    if (!problems && map == MAP_FAILED)
        problems = verify_problem("'%s' cannot be read: %s", path, strerror(errno));
    if (!problems) {
        snprintf(found, sizeof found, "%08x", (unsigned)crc32_z(0, map, (size_t)want));
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

/* A split: its shards, and shards on the disk that the manifest does not know. */
static int verify_split(const PrepareOptions *o, const cJSON *json, const char *prefix, int vocab_size) {
    const cJSON *split = cJSON_GetObjectItemCaseSensitive(json, prefix),
                *shards = cJSON_GetObjectItemCaseSensitive(split, "shards");
    int n = cJSON_GetArraySize(shards), problems = 0, on_disk = 0;
    const cJSON **list = check_malloc((size_t)(n + 1) * sizeof *list), *item;
    double tokens = 0;
    if (!split || !shards) return verify_problem("the manifest has no '%s'", prefix);
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
    size_t n;
    char *path = shard_join(o->out, "shards.json"), *text, found[16];
    text = check_file_read_if(path, FILE_JSON_LIMIT, &n, "prepare the text again");
    char *tokenizer = shard_join(o->out, "tokenizer.json");
    if (!text) die("there is no manifest '%s': the folder was not made by ./prepare, or not finished", path);
    cJSON *json = cJSON_ParseWithLength(text, n);
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, "tokenizer");
    const char *crc = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "crc32"));
    int vocab_size = (int)json_number(item, "vocab_size"), problems = 0;
    if (!crc || vocab_size < 1) die("the manifest '%s' is damaged; prepare the text again", path);
    snprintf(found, sizeof found, "%08x", (unsigned)file_crc(tokenizer));
    if (strcmp(found, crc) != 0)
        problems += verify_problem("'%s' has the CRC-32 %s, expected %s", tokenizer, found, crc);
    problems += verify_split(o, json, "train", vocab_size);
    problems += verify_split(o, json, "val", vocab_size);
    if (problems)
        die("'%s' has %d problems; copy the files again, or prepare the text again", o->out, problems);
    printf("%s is as it was made\n", o->out);
    cJSON_Delete(json);
    free(path), free(text), free(tokenizer);
    return 0;
}

static int prepare(Run *run, int count, char **names) {
    const PrepareOptions *o = run->options;
    char *manifest = shard_join(o->out, "shards.json"), *state = shard_join(o->out, "prepare.state.json");
    char *tokenizer = shard_join(o->out, "tokenizer.json");
    run->standard_input = shard_join(o->out, "stdin.part");
    if (mkdir(o->out, 0777) != 0 && errno != EEXIST)
        die("cannot make the folder '%s': %s", o->out, strerror(errno));
    gather_inputs(run, count, names);
    if (ends_with(o->tokenizer, strlen(o->tokenizer), ".model")) run->spm = spm_load(o->tokenizer);
    if (!begin_output(run, manifest, state, tokenizer)) {
        bool continued = run->tokenizer != NULL;
        if (continued)
            printf("continuing after %s tokens\n", grouped(run->writers[TRAIN].tokens, (char[32]){0}));
        else if (*o->tokenizer)
            copy_tokenizer(run, tokenizer);
        else
            learn_tokenizer(run, tokenizer);
        make_fingerprint(run, tokenizer);
        if (!continued) { /* from now on the folder is known as this run's */
            Place idle[SLOTS];
            for (int i = 0; i < SLOTS; i++) idle[i] = (Place){.job = -1};
            run_save(run, idle, 0);
        }
        int files;
        run->began_bytes = input_position(run, &files);
        run->began_text = run->totals.text_bytes;
        run->began_tokens = run->writers[TRAIN].tokens + run->writers[VAL].tokens;
        run_rounds(run);
        finish(run, manifest, state, tokenizer);
    }
    unlink(run->standard_input);
    if (run->spm) spm_free(run->spm);
    free(manifest), free(state), free(tokenizer), free(run->standard_input);
    return 0;
}

int main(int argc, char **argv) {
    static PrepareOptions options;
    static Run run = {.options = &options};
    option_set = options_begin("prepare", "./prepare --out=DIR [--vocab=N | --tokenizer=FILE] INPUT...",
                               prepare_options, N_OPTIONS, &options, NULL);
    int count = options_parse(&option_set, argc, argv);
    if (!*options.out)
        options_fail(&option_set, "--out is missing; name the folder for the shards with --out=DIR");
    if (!count && !options.verify)
        options_fail(&option_set, "no input; name files or folders of text, or - for standard input");
    if (options.vocab && options.vocab < 257)
        options_fail(&option_set, "--vocab=%lld: out of bounds; expected 257 to 65536, or 0",
                     (long long)options.vocab);
    run.threads = (int)options.threads;
#ifdef _OPENMP
    if (!run.threads) run.threads = omp_get_num_procs();
#else
    run.threads = 1;
#endif
    run.caches = check_malloc((size_t)run.threads * sizeof *run.caches);
    for (int i = 0; i < run.threads; i++) run.caches[i] = tokenizer_cache_new();
    for (int split = 0; split < 2; split++)
        run.writers[split] = (ShardWriter){.folder = options.out,
                                           .prefix = split ? "val" : "train",
                                           .shard_tokens = (uint64_t)options.shard_tokens,
                                           .file = -1};
    return options.verify ? verify(&options) : prepare(&run, count, argv);
}
