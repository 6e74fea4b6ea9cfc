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

   Build: cc -O3 -march=native -fopenmp data/prepare.c -o prepare -lcjson -lz -lm
   (with -DHAVE_ZSTD and -lzstd it reads zstd's files, too) */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <time.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#include "../gpt/base/check.h"
#include "../gpt/base/format.h"
#include "../gpt/base/clock.h"
#include "../gpt/base/threads.h"
#include "../gpt/run/options.h"
#include "../gpt/base/program.h"
#include "../gpt/math/rng.h"
#include "../gpt/io/tokenizer.h"
#include "documents.h"
#include "json_line.h"
#include "output.h"
#include "sentencepiece.h"

typedef struct {
    const char *out, *val, *field, *separator, *tokenizer;
    int format, documents;
    int64_t document_bytes, max_document, extra_ids, vocab, tokenizer_text, shard_tokens, threads, save_every,
        round_bytes;
    double val_fraction, max_bad;
    bool overwrite, verify, quiet;
} PrepareOptions;

#define ROW_OF(group, name, type, field, value, min, max, choices, help)                                     \
    { group, name, type, offsetof(PrepareOptions, field), value, min, max, choices, help, false }

static const Option prepare_options[] = {
    ROW_OF("Input", "format", OPTION_CHOICE, format, "auto", 0, 0, "auto|text|jsonl",
           "auto: by name (.txt .md .json .jsonl .ndjson, each with .gz or .zst), else by content"),
    ROW_OF("Input", "field", OPTION_STRING, field, "text", 0, 0, "NAME",
           "field of a JSON line that holds the text"),
    ROW_OF("Input", "documents", OPTION_CHOICE, documents, "auto", 0, 0, "auto|file|cut",
           "plain text: a file is a document, or is cut at blank lines; auto cuts when there are fewer than "
           "64 files"),
    ROW_OF("Input", "document-bytes", OPTION_INT, document_bytes, "0", 0, 1 << 24, "",
           "least size of the pieces a plain text is cut into, from 16 on; 0: 8192, less when there is "
           "little text"),
    ROW_OF("Input", "max-document", OPTION_INT, max_document, "256", 1, 2047, "",
           "MiB of the largest document; a longer JSON line counts as malformed"),
    ROW_OF("Input", "separator", OPTION_STRING, separator, "", 0, 0, "LINE",
           "plain text: lines equal to this separate documents"),
    ROW_OF("Input", "max-bad", OPTION_FLOAT, max_bad, "0.01", 0, 100, "",
           "percent of malformed JSON lines above which the run fails"),
    ROW_OF("Tokenizer", "vocab", OPTION_INT, vocab, "0", 0, TOKENIZER_MAX_VOCAB, "",
           "size of the vocabulary to learn, 257 to 65536; 0: by the amount of text"),
    ROW_OF("Tokenizer", "tokenizer", OPTION_STRING, tokenizer, "", 0, 0, "FILE",
           "use this one instead: a tokenizer.json, GPT-2's vocab.json with merges.txt beside it, their "
           "folder, or a SentencePiece *.model"),
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
enum { CHUNK_BYTES = 1 << 16, CHUNK_BAD = 3, SHOWN_BAD = 10, EARLY_LINES = 100000 };

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
    JsonText text;          /* of the last line */
    uint64_t least_hash;
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
    TokenizerTrainer *trainer; /* not NULL: pieces are counted, nothing is written */
    TokenizerCache **caches;   /* (threads) */
    int threads, next_job, rounds_read;
    Reader readers[SLOTS];
    Round rounds[3];
    ShardWriter writers[2];
    Totals totals;
    uint64_t val_below;     /* a document whose hash is smaller is for validation */
    BadLine bad[SHOWN_BAD]; /* (bad_shown) */
    int bad_shown;
    char *
        tokenizer_text; /* (tokenizer_bytes) of tokenizer.json; NULL: it is in the folder already, or to be learned */
    size_t tokenizer_bytes;
    Fingerprint fingerprint;
    cJSON *kept_sources; /* for the state, when there are not too many */
    double began, saved, shown;
    int64_t began_bytes, began_text;
    uint64_t began_tokens;
} Run;

static int thread_number(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* -----------------------------------------------------------------------------------------------------------
   One document */

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
    size_t *used = &chunk->n_tokens[split], room = tokenizer_room(run->tokenizer, text, n);
    chunk->tokens[split] =
        check_grow(chunk->tokens[split], &chunk->room[split], *used + room + 1, sizeof(uint16_t));
    chunk->tokens[split][(*used)++] = (uint16_t)tokenizer_end_of_text(run->tokenizer);
    *used += tokenizer_encode(run->tokenizer, run->caches[thread], text, n, chunk->tokens[split] + *used);
}

static void chunk_encode(Run *run, Chunk *chunk) {
    memset(chunk->n_tokens, 0, sizeof chunk->n_tokens);
    memset(chunk->documents, 0, sizeof chunk->documents);
    chunk->totals = (Totals){0};
    chunk->least_hash = UINT64_MAX;
    for (size_t d = chunk->first; d < chunk->end; d++) {
        const RawDocument *raw = &chunk->block->documents[d];
        const Source *source = &run->in.sources[raw->source];
        const char *text = chunk->block->bytes + raw->start;
        size_t n = raw->length;
        const char *why = raw->too_long ? "is longer than --max-document" : NULL;
        if (source->jsonl && !why) {
            why = json_line(text, n, run->options->field, &chunk->text);
            text = chunk->text.bytes, n = chunk->text.length;
            if (!why) chunk->totals.half_pairs += chunk->text.replaced > 0;
        }
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
    }
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
    for (int s = 0; s < SLOTS; s++) {
        const Block *block = &round->blocks[s];
        round->places[s] = run->readers[s].place;
        for (size_t first = 0, end; first < block->n_documents; first = end) {
            size_t bytes = 0;
            for (end = first; end < block->n_documents && bytes < CHUNK_BYTES; end++)
                bytes += block->documents[end].length;
            round->chunks =
                check_grow(round->chunks, &round->room, round->n_chunks + 1, sizeof *round->chunks);
            Chunk *chunk = &round->chunks[round->n_chunks++];
            chunk->block = block, chunk->first = first, chunk->end = end;
        }
    }
}

/* The first few, once: they are met again when the vocabulary has been learned. */
static void show_bad(Run *run, const Chunk *chunk) {
    for (int64_t i = 0; i < chunk->totals.bad_lines && i < CHUNK_BAD && run->bad_shown < SHOWN_BAD; i++) {
        const BadLine *bad = &chunk->bad[i];
        bool shown = false, field = strstr(bad->what, "field");
        for (int b = 0; b < run->bad_shown; b++)
            shown |= run->bad[b].source == bad->source && run->bad[b].line == bad->line;
        if (shown) continue;
        run->bad[run->bad_shown++] = *bad;
        warn("'%s' line %lld %s%s%s%s; it is left out", run->in.sources[bad->source].path,
             (long long)bad->line, bad->what, field ? " '" : "", field ? run->options->field : "",
             field ? "'" : "");
    }
}

/* `lines`: of how many the share counts. */
static void check_bad(const Run *run, int64_t lines) {
    const double bad = (double)run->totals.bad_lines,
                 read = (double)(run->totals.lines ? run->totals.lines : 1);
    if (100 * bad / (double)(lines ? lines : 1) > run->options->max_bad)
        die("%lld of %lld lines%s are malformed, %.3g %%, more than --max-bad=%g allows; look at the lines "
            "above, or raise it and run the same command again",
            (long long)run->totals.bad_lines, (long long)run->totals.lines,
            lines > run->totals.lines ? " read so far" : "", 100 * bad / read, run->options->max_bad);
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
    progress.fingerprint = run->fingerprint;
    progress.sources = run->kept_sources;
    state_save(run->writers, &run->totals, &progress);
    run->saved = seconds_now();
}

static void round_write(Run *run, Round *round) {
    if (!run->trainer) round_choose_validation(run, round);
    for (size_t c = 0; c < round->n_chunks; c++) {
        Chunk *chunk = &round->chunks[c];
        totals_add(&run->totals, &chunk->totals);
        show_bad(run, chunk);
        if (run->trainer) continue;
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
        if (r->file) bytes += text_position(r->file);
    }
    return bytes;
}

static void show_progress(Run *run, bool last) {
    bool terminal = program_on_terminal(stderr);
    double now = seconds_now(), passed = now - run->began;
    if (run->options->quiet || (!last && now - run->shown < (terminal ? 0.2 : 10))) return;
    if (last && run->shown == run->began && !terminal) return; /* too short to speak of */
    int files;
    char text[3][32], left[FORMAT_SIZE];
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
        fprintf(stderr, "  %s left", duration_clock(left, (double)(run->in.bytes - position) / rate));
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

static void learn_tokenizer(Run *run) {
    double budget = (double)run->options->tokenizer_text * 1048576, began = seconds_now();
    char text[32], took[FORMAT_SIZE];
    run->trainer = tokenizer_trainer_new(run->threads);
    for (int s = 0; s < SLOTS; s++)
        run->readers[s].fraction = budget / (double)(run->in.bytes ? run->in.bytes : 1);
    run_rounds(run);
    check_bad(run, run->totals.text_bytes ? EARLY_LINES : run->totals.lines);
    if (!run->totals.text_bytes) die("the inputs hold no text");
    int64_t bytes = run->totals.text_bytes, vocab = run->options->vocab;
    if (!vocab) vocab = bytes >= 100000000 ? 32000 : bytes >= 10000000 ? 8192 : bytes >= 500000 ? 2048 : 512;
    bool terminal = program_on_terminal(stderr) && !run->options->quiet;
    if (terminal) fprintf(stderr, "learning the vocabulary\r");
    run->tokenizer = tokenizer_trainer_finish(run->trainer, (int)vocab);
    if (terminal) fprintf(stderr, "\033[K");
    run->trainer = NULL;
    run->tokenizer_text = tokenizer_text(run->tokenizer, &run->tokenizer_bytes);
    int size = tokenizer_vocab_size(run->tokenizer);
    printf("tokenizer  %d tokens learned from %s of text in %s%s\n", size, amount((double)bytes, "B", text),
           duration_clock(took, seconds_now() - began),
           run->options->vocab ? "" : " (another size: --vocab=N)");
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

/* A SentencePiece model as a tokenizer.json. */
static void given_model(Run *run) {
    const char *path = run->options->tokenizer;
    SpmModel *model = spm_load(path);
    FILE *file = open_memstream(&run->tokenizer_text, &run->tokenizer_bytes);
    if (!file) die("out of memory");
    spm_write(model, file, (int)run->options->extra_ids);
    if (fclose(file) != 0) die("out of memory");
    run->tokenizer = tokenizer_parse(path, run->tokenizer_text, run->tokenizer_bytes, NULL);
    spm_free(model);
}

/* The tokenizer of --tokenizer: a tokenizer.json stays as it is, another form is written as one. Nothing is
   written yet. */
static void given_tokenizer(Run *run) {
    struct stat status;
    char *inside = file_path(run->options->tokenizer, "tokenizer.json");
    const char *from = stat(inside, &status) == 0 ? inside : run->options->tokenizer;
    if (ends_with(from, strlen(from), ".model"))
        given_model(run);
    else
        run->tokenizer = tokenizer_load_text(from, &run->tokenizer_text, &run->tokenizer_bytes);
    if (*run->tokenizer->why_not)
        die("the tokenizer '%s' cannot encode text: %s", from, run->tokenizer->why_not);
    if (tokenizer_end_of_text(run->tokenizer) < 0)
        die("the tokenizer '%s' has no token between documents (<|endoftext|>, </s>, <|end_of_text|> or "
            "<eos>)",
            from);
    if (!run->tokenizer_text) run->tokenizer_text = tokenizer_text(run->tokenizer, &run->tokenizer_bytes);
    char shown[CHECK_TEXT_SIZE];
    printf("tokenizer  %d tokens from %s\n", tokenizer_vocab_size(run->tokenizer), check_shown(shown, from));
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

static uint32_t json_crc(cJSON *json) {
    char *text = cJSON_PrintUnformatted(json);
    if (!text) die("out of memory");
    uint32_t crc = (uint32_t)crc32_z(0, (unsigned char *)text, strlen(text));
    cJSON_free(text), cJSON_Delete(json);
    return crc;
}

/* A source as the manifest and the fingerprint have it. */
static cJSON *source_to_json(const Source *source) {
    char crc[16], modified[48];
    cJSON *json = cJSON_CreateObject();
    snprintf(crc, sizeof crc, "%08x", source->crc);
    snprintf(modified, sizeof modified, "%lld.%09lld", (long long)source->modified,
             (long long)source->modified_nano);
    cJSON_AddStringToObject(json, "path", source->path);
    cJSON_AddNumberToObject(json, "bytes", (double)source->bytes);
    cJSON_AddStringToObject(json, source->modified ? "samples_crc32" : "crc32", crc);
    if (source->modified) cJSON_AddStringToObject(json, "modified", modified);
    return json;
}

static cJSON *sources_to_json(const Run *run) {
    cJSON *sources = cJSON_CreateArray();
    for (int s = 0; s < run->in.n_sources; s++)
        cJSON_AddItemToArray(sources, source_to_json(&run->in.sources[s]));
    return sources;
}

/* Options, inputs and tokenizer: a state or a finished folder with another fingerprint is no use. */
static void make_fingerprint(Run *run, const char *tokenizer) {
    cJSON *inputs = cJSON_CreateObject();
    cJSON_AddItemToObject(inputs, "sources", sources_to_json(run));
    if (run->in.n_sources <= 1024 && !run->kept_sources) run->kept_sources = sources_to_json(run);
    cJSON_AddNumberToObject(inputs, "kept", run->in.kept_crc);
    uint32_t crc = run->tokenizer_text
                       ? (uint32_t)crc32_z(0, (unsigned char *)run->tokenizer_text, run->tokenizer_bytes)
                       : file_crc(tokenizer);
    snprintf(run->fingerprint.text, sizeof run->fingerprint.text, "2-%08x-%08x-%08x",
             json_crc(deciding_options()), json_crc(inputs), crc);
}

static void write_manifest(Run *run, const char *path, const char *tokenizer) {
    cJSON *json = cJSON_CreateObject(), *item = cJSON_CreateObject();
    char crc[16];
    snprintf(crc, sizeof crc, "%08x", file_crc(tokenizer));
    if (strcmp(crc, strrchr(run->fingerprint.text, '-') + 1) != 0)
        die("'%s' changed while the shards were written; start over with --overwrite", tokenizer);
    cJSON_AddStringToObject(json, "format",
                            "llm.c shards, version 1: 256 int32 of header, then uint16 tokens");
    cJSON_AddStringToObject(json, "fingerprint", run->fingerprint.text);
    cJSON_AddItemToObject(json, "tokenizer", item);
    cJSON_AddStringToObject(item, "file", "tokenizer.json");
    cJSON_AddStringToObject(item, "crc32", crc);
    cJSON_AddNumberToObject(item, "vocab_size", tokenizer_vocab_size(run->tokenizer));
    cJSON_AddNumberToObject(item, "end_of_text", tokenizer_end_of_text(run->tokenizer));
    for (int split = 0; split < 2; split++)
        cJSON_AddItemToObject(json, run->writers[split].prefix, split_to_json(&run->writers[split]));
    totals_to_json(&run->totals, json);
    cJSON_AddItemToObject(json, "sources", sources_to_json(run));
    cJSON_AddItemToObject(json, "options", deciding_options());
    char *text = cJSON_Print(json);
    if (!text) die("out of memory");
    write_file(path, text, strlen(text));
    cJSON_free(text);
    cJSON_Delete(json);
}

/* After the manifest is there; and again by who finds it, since the run that wrote it may have been killed in between. */
static void remove_state(const Run *run, const char *state) {
    static const char *const halves[] = {"prepare.state.json", "shards.json", "tokenizer.json"};
    unlink(state);
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) { /* of a write that was killed */
        char *half = output_path(run->options->out, "%s.part", halves[i]);
        unlink(half);
        free(half);
    }
}

/* Removes what belongs to the output, but for the tokenizer. */
static void clear_output(const Run *run, const char *manifest, const char *state) {
    unlink(manifest);
    remove_state(run, state);
    remove_shards(&run->writers[TRAIN], 0), remove_shards(&run->writers[VAL], 0);
}

/* The shards of one split only are of no use: they go, so that the next attempt finds an empty folder. */
static void check_splits(const Run *run, const char *manifest, const char *state) {
    const bool train = run->writers[TRAIN].tokens > 0, val = run->writers[VAL].tokens > 0;
    const long long documents = (long long)(run->writers[TRAIN].documents + run->writers[VAL].documents);
    if (train && (val || run->options->val_fraction == 0)) return;
    clear_output(run, manifest, state);
    if (!documents) die("the inputs hold no text");
    if (!train)
        die("all of %lld documents went to validation, none is left for training; lower --val-fraction, or "
            "name a text "
            "for validation with --val=FILE (equal texts always go to the same side)",
            documents);
    if (run->in.has_validation) die("the files for validation hold no text");
    if (documents > 1)
        die("none of %lld documents went to validation; raise --val-fraction, or name a text for it with "
            "--val=FILE",
            documents);
    die("the text is one document, so there is none for validation; name a text for it with --val=FILE, or "
        "let plain "
        "text be cut (--documents=cut, a smaller --document-bytes)");
}

static void show_result(const Run *run) {
    char text[2][32], took[FORMAT_SIZE], shown[CHECK_TEXT_SIZE];
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
    if (run->totals.half_pairs)
        warn("%lld documents have half of a surrogate pair, which is no character; U+FFFD stands for it",
             (long long)run->totals.half_pairs);
    if (!run->writers[VAL].tokens)
        warn("there is no text for validation, without which ./train_gpt does not train: name some with "
             "--val=FILE");
    printf("%s of text in %s, %s; %.3g bytes a token\n", amount((double)run->totals.text_bytes, "B", text[0]),
           duration_clock(took, seconds_now() - run->began), check_shown(shown, run->options->out),
           (double)run->totals.text_bytes / (double)(run->writers[TRAIN].tokens + run->writers[VAL].tokens));
}

static void finish(Run *run, const char *manifest, const char *state, const char *tokenizer) {
    check_bad(run, run->totals.lines);
    for (int split = 0; split < 2; split++) shard_finish(&run->writers[split]);
    check_splits(run, manifest, state);
    write_manifest(run, manifest, tokenizer);
    remove_state(run, state);
    show_result(run);
}

/* Says what of the folders was not read; louder when it holds text that could be. */
static void show_passed_over(const Inputs *in) {
    static const char *const text[] = {".zst", ".parquet", ".xz",  ".bz2",  ".zip",
                                       ".csv", ".tsv",     ".pdf", ".html", ".tar"};
    char shown[CHECK_TEXT_SIZE];
    int count = 0;
    for (size_t i = 0; i < in->n_passed_over; i++) {
        const PassedOver *p = &in->passed_over[i];
        count += p->count;
        for (size_t t = 0; t < sizeof text / sizeof *text; t++)
            if (strcmp(p->ending, text[t]) == 0)
                warn("%d file%s like '%s' %s not read: %s is neither text nor JSON lines; unpack or convert "
                     "%s",
                     p->count, p->count == 1 ? "" : "s", p->first, p->count == 1 ? "is" : "are", p->ending,
                     p->count == 1 ? "it" : "them");
    }
    if (!count) return;
    printf("passed over  %d file%s whose names say no text:", count, count == 1 ? "" : "s");
    for (size_t i = 0; i < in->n_passed_over && i < 8; i++)
        printf("%s %d %s", i ? "," : "", in->passed_over[i].count,
               *in->passed_over[i].ending ? check_shown(shown, in->passed_over[i].ending) : "without ending");
    printf("%s\n", in->n_passed_over > 8 ? ", ..." : "");
}

/* The pieces of a plain text: little text is cut small, so that there is some for validation. */
static size_t piece_bytes(const Run *run) {
    enum { MOST = 8192, LEAST = 16, PIECES = 32 };
    int64_t bytes = 0, piece;
    if (run->options->document_bytes) return (size_t)run->options->document_bytes;
    for (int s = 0; s < run->in.n_sources; s++)
        if (!run->in.sources[s].jsonl && !run->in.sources[s].validation) bytes += run->in.sources[s].bytes;
    piece = bytes / PIECES;
    return (size_t)(piece > MOST || !bytes ? MOST : piece < LEAST ? LEAST : piece);
}

static void gather_inputs(Run *run, int count, char **names) {
    const PrepareOptions *o = run->options;
    Inputs *in = &run->in;
    struct stat out;
    if (stat(o->out, &out) == 0) in->out_device = (uint64_t)out.st_dev, in->out_inode = (uint64_t)out.st_ino;
    in->largest = (size_t)o->max_document << 20;
    in->out = o->out;
    in->threads = run->threads;
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], "-") == 0)
            keep_stream(in, STDIN_FILENO, "standard input", (Format)o->format, false);
        else
            add_path(in, names[i], (Format)o->format, false);
    }
    if (*o->val) add_path(in, o->val, (Format)o->format, true);
    inputs_look(in);
    show_passed_over(in);
    int texts = 0;
    for (int s = 0; s < in->n_sources; s++) texts += !in->sources[s].jsonl;
    in->document_bytes = piece_bytes(run);
    in->separator = o->separator;
    in->rule = o->documents ? (DocumentRule)o->documents : texts < FEW_FILES ? DOCUMENTS_CUT : DOCUMENTS_FILE;
    if (texts && !*o->separator && !o->documents && in->rule == DOCUMENTS_CUT)
        printf("documents  plain text is cut at blank lines into documents of %zu bytes or more "
               "(--documents=file: whole files)\n",
               in->document_bytes);
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

/* What is not as a finished folder's manifest or a state has it, as words for the user. */
static void source_difference(const Run *run, const cJSON *was, char *text, size_t size) {
    const cJSON *now;
    cJSON *all = sources_to_json(run);
    *text = 0;
    if (cJSON_GetArraySize(was) != cJSON_GetArraySize(all))
        snprintf(text, size, " (%d files, not %d)", cJSON_GetArraySize(was), cJSON_GetArraySize(all));
    const cJSON *then = was ? was->child : NULL;
    for (now = all->child; now && then && !*text; now = now->next, then = then->next) {
        const char *path = tokenizer_json_string(now, "path"), *other = tokenizer_json_string(then, "path");
        const char *modified = tokenizer_json_string(then, "modified");
        if (cJSON_Compare(now, then, true)) continue;
        const char *sum = tokenizer_json_string(now, modified ? "samples_crc32" : "crc32");
        const char *other_sum = tokenizer_json_string(then, modified ? "samples_crc32" : "crc32");
        if (!other || strcmp(path, other) != 0)
            snprintf(text, size, " ('%.200s', not '%.200s')", other ? other : "?", path);
        else if (json_number(now, "bytes") != json_number(then, "bytes"))
            snprintf(text, size, " ('%.200s' had %.0f bytes, now %.0f)", path, json_number(then, "bytes"),
                     json_number(now, "bytes"));
        else if (!sum || !other_sum || strcmp(sum, other_sum) != 0)
            snprintf(text, size, " (the content of '%.200s' has changed)", path);
        else
            snprintf(text, size,
                     " ('%.200s' has its size and, where it was looked at, its content, but was changed at "
                     "another time; if "
                     "you know that it is the same: touch -d @%.40s FILE)",
                     path, modified ? modified : "?");
    }
    cJSON_Delete(all);
}

__attribute__((noreturn)) static void die_of_difference(const Run *run, const cJSON *json, const char *found,
                                                        bool has_manifest) {
    char text[1024] = "";
    const char *want = run->fingerprint.text;
    const bool known = found && strlen(found) == strlen(want) && strncmp(found, "2-", 2) == 0;
    const bool options = known && strncmp(found + 2, want + 2, 8) != 0,
               inputs = known && strncmp(found + 11, want + 11, 8) != 0;
    if (inputs) source_difference(run, cJSON_GetObjectItemCaseSensitive(json, "sources"), text, sizeof text);
    die("'%s' holds %s %s%s; choose another --out, or add --overwrite", run->options->out,
        has_manifest ? "shards made" : "the unfinished shards of a run",
        !known    ? "by another version of ./prepare, or its manifest is damaged"
        : options ? inputs ? "with other options and from other inputs" : "with other options"
        : inputs  ? "from other inputs"
                  : "with another tokenizer",
        text);
}

/* The folder as an interrupted run of the same command left it. */
static void continue_output(Run *run, const cJSON *state, const char *tokenizer) {
    Progress progress = {.fingerprint = run->fingerprint};
    if (!state_take(run->writers, &run->totals, &progress, &run->in, state) ||
        !shard_resume(&run->writers[TRAIN]) || !shard_resume(&run->writers[VAL]))
        die("the unfinished shards in '%s' are damaged; start over with --overwrite", run->options->out);
    for (int s = 0; s < SLOTS; s++) run->readers[s].place = progress.places[s];
    run->next_job = progress.next_job;
    /* With --tokenizer the fingerprint is that of the file which was named, not of the folder's copy. */
    const uint32_t crc =
        run->tokenizer_text ? (uint32_t)crc32_z(0, (unsigned char *)run->tokenizer_text, run->tokenizer_bytes)
                            : 0;
    if (run->tokenizer_text && file_crc(tokenizer) != crc)
        die("'%s' is damaged: it is not the tokenizer that --tokenizer names; start over with --overwrite",
            tokenizer);
    if (!run->tokenizer) run->tokenizer = tokenizer_load(tokenizer);
}

typedef enum { OUTPUT_FRESH, OUTPUT_CONTINUED, OUTPUT_DONE } OutputState;

/* What the folder holds: nothing, or nothing that counts; what an interrupted run left, taken up; or all that is
   wanted. Removes nothing. */
static OutputState begin_output(Run *run, const char *manifest, const char *state, const char *tokenizer) {
    const PrepareOptions *o = run->options;
    struct stat status;
    if (o->overwrite) return OUTPUT_FRESH;
    bool has_manifest = stat(manifest, &status) == 0, has_state = stat(state, &status) == 0;
    if (stat(tokenizer, &status) == 0 && (has_manifest || has_state)) {
        cJSON *json = output_read(has_manifest ? manifest : state, !has_manifest);
        const char *found = tokenizer_json_string(json, "fingerprint");
        if (!json) die("'%s' is damaged; start over with --overwrite", has_manifest ? manifest : state);
        make_fingerprint(run, tokenizer);
        if (!found || strcmp(found, run->fingerprint.text) != 0)
            die_of_difference(run, json, found, has_manifest);
        if (!has_manifest) continue_output(run, json, tokenizer);
        cJSON_Delete(json);
        return has_manifest ? OUTPUT_DONE : OUTPUT_CONTINUED;
    }
    DIR *folder = opendir(o->out);
    if (!folder) die("cannot open the folder '%s': %s", o->out, strerror(errno));
    for (struct dirent *entry; (entry = readdir(folder));)
        if (!has_state &&
            (shard_name_matches(entry->d_name, "train_") || shard_name_matches(entry->d_name, "val_")))
            die("'%s' already holds shards ('%s') that were not made by this command; choose another --out, "
                "or add --overwrite",
                o->out, entry->d_name);
    closedir(folder);
    return OUTPUT_FRESH;
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
    const int64_t tokens = json_count(cJSON_GetObjectItemCaseSensitive(shard, "tokens"), 4294967295.0);
    if (!name || !crc || tokens < 0 || strchr(name, '/'))
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
    const cJSON **list = check_calloc((size_t)(n + 1) * sizeof *list), *item;
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
    char *path = file_path(o->out, "shards.json"), *text, found[16];
    text = check_file_read_if(path, FILE_JSON_LIMIT, &n, "prepare the text again");
    char *tokenizer = file_path(o->out, "tokenizer.json");
    if (!text) die("there is no manifest '%s': the folder was not made by ./prepare, or not finished", path);
    cJSON *json = cJSON_ParseWithLength(text, n);
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, "tokenizer");
    const char *crc = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "crc32"));
    int vocab_size =
            (int)json_count(cJSON_GetObjectItemCaseSensitive(item, "vocab_size"), TOKENIZER_MAX_VOCAB),
        problems = 0;
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

/* A tokenizer, then a folder that holds it and the state of a run that has read nothing: from now on it is known as
   this run's. Only now, when nothing but the text itself can be wrong, is what lay there removed. */
static void start_output(Run *run, const char *manifest, const char *state, const char *tokenizer) {
    Place idle[SLOTS];
    if (!run->tokenizer) learn_tokenizer(run);
    make_fingerprint(run, tokenizer);
    clear_output(run, manifest, state);
    write_file(tokenizer, run->tokenizer_text, run->tokenizer_bytes);
    for (int i = 0; i < SLOTS; i++) idle[i] = (Place){.job = -1};
    run_save(run, idle, 0);
}

static int prepare(Run *run, int count, char **names) {
    const PrepareOptions *o = run->options;
    char *manifest = file_path(o->out, "shards.json"), *state = file_path(o->out, "prepare.state.json");
    char *tokenizer = file_path(o->out, "tokenizer.json"), shown[CHECK_TEXT_SIZE];
    char error[FILE_ERROR_SIZE];
    if (!file_make_folders(o->out, error)) die("%s", error);
    output_lock(o->out);
    gather_inputs(run, count, names);
    if (*o->tokenizer) given_tokenizer(run);
    OutputState found = begin_output(run, manifest, state, tokenizer);
    if (found == OUTPUT_DONE) {
        remove_state(run, state);
        printf("%s is already prepared from these inputs with these options\n", check_shown(shown, o->out));
    } else {
        int files;
        if (found == OUTPUT_FRESH)
            start_output(run, manifest, state, tokenizer);
        else
            printf("continuing after %s tokens\n", grouped(run->writers[TRAIN].tokens, (char[32]){0}));
        run->began_bytes = input_position(run, &files);
        run->began_text = run->totals.text_bytes;
        run->began_tokens = run->writers[TRAIN].tokens + run->writers[VAL].tokens;
        run_rounds(run);
        finish(run, manifest, state, tokenizer);
    }
    for (int s = 0; s < run->in.n_sources; s++)
        if (run->in.sources[s].kept) unlink(run->in.sources[s].path);
    free(manifest), free(state), free(tokenizer);
    return 0;
}

/* What no single option's bounds say. */
static void check_options(const PrepareOptions *o, int count) {
    if (!*o->out)
        options_fail(&option_set, "--out is missing; name the folder for the shards with --out=DIR");
    if (!count && !o->verify)
        options_fail(&option_set, "no input; name files or folders of text, or - for standard input");
    if (o->vocab && o->vocab < 257)
        options_fail(&option_set, "--vocab=%lld: out of bounds; expected 257 to 65536, or 0",
                     (long long)o->vocab);
    if (o->vocab && *o->tokenizer)
        options_fail(&option_set,
                     "--vocab=%lld and --tokenizer=%s: a given tokenizer has its own size; leave one out",
                     (long long)o->vocab, o->tokenizer);
    if (o->extra_ids && !ends_with(o->tokenizer, strlen(o->tokenizer), ".model"))
        options_fail(
            &option_set,
            "--extra-ids=%lld: only a SentencePiece vocabulary (--tokenizer=FILE.model) gets sentinels",
            (long long)o->extra_ids);
    if (o->document_bytes && o->document_bytes < 16)
        options_fail(&option_set, "--document-bytes=%lld: out of bounds; expected 16 to 16777216, or 0",
                     (long long)o->document_bytes);
}

int main(int argc, char **argv) {
    program_begin();
    static PrepareOptions options;
    static Run run = {.options = &options};
    option_set = options_begin("prepare", "./prepare --out=DIR [--vocab=N | --tokenizer=FILE] INPUT...",
                               prepare_options, N_OPTIONS, &options, NULL);
    int count = options_parse(&option_set, argc, argv);
    check_options(&options, count);
    run.threads = (int)options.threads;
#ifdef _OPENMP
    if (!run.threads) run.threads = cores_available();
#else
    run.threads = 1;
#endif
    run.caches = check_calloc((size_t)run.threads * sizeof *run.caches);
    for (int i = 0; i < run.threads; i++) run.caches[i] = tokenizer_cache_new();
    for (int split = 0; split < 2; split++)
        run.writers[split] = (ShardWriter){.folder = options.out,
                                           .prefix = split ? "val" : "train",
                                           .shard_tokens = (uint64_t)options.shard_tokens,
                                           .file = -1};
    return options.verify ? verify(&options) : prepare(&run, count, argv);
}
