/* rounds.h: the work of ./prepare: reads all inputs, encodes their documents and writes the tokens, in rounds.

   In a round, up to 16 readers (documents.h) each give a block of documents. The blocks are cut into chunks, which
   threads encode in parallel; then the tokens are written in the order of inputs and documents (output.h). A reader
   works on one job at a time: a large input file, or several small ones (inputs.h). The place of a reader (documents.h)
   says how far it has come in its job. Three rounds are under way at once: one is read while the one before it is
   encoded and the one before that is written. What is written depends on the inputs and options alone, not on the
   number of threads.

   A document goes to validation when the hash of its text says so, so that equal texts go to the same split, or when
   its file is one for validation. While a vocabulary is learned (run->learner is not NULL), the same rounds only count
   pieces of text.

     run_rounds(run)                   reads everything from the readers' places on; dies when an input is damaged,
                                       when too many of its lines are malformed, or when the output cannot be written
     run_save(run, places, next_job)   writes the state from which an interrupted run is continued
     check_bad(run, lines)             dies when too many of `lines` lines were malformed
     input_position(run, &files)       bytes on disk read so far, and the number of files read to their end
     amount(x, unit, text)             a number in three digits and its unit: 12.3 MB */
#ifndef DATA_ROUNDS_H
#define DATA_ROUNDS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#ifdef _OPENMP
#include <omp.h>
#endif
#include "../gpt/base/clock.h"
#include "../gpt/base/format.h"
#include "../gpt/base/threads.h"
#include "../gpt/base/program.h"
#include "../gpt/math/rng.h"
#include "bpe_learner.h"
#include "documents.h"
#include "json_line.h"
#include "output.h"
#include "prepare_options.h"

enum { TRAIN, VAL };
enum {
    CHUNK_BYTES = 1 << 16, /* a chunk ends with the document that reaches so many bytes of text */
    CHUNK_BAD = 3,         /* malformed lines of a chunk that are remembered, to be shown */
    SHOWN_BAD = 10,        /* malformed lines that are shown */
    /* The share of malformed lines is computed as if at least so many lines had been read. Otherwise a few malformed
       lines near the beginning of the inputs would end the program, although they are few among all lines. */
    EARLY_LINES = 100000
};

/* A malformed line. */
typedef struct {
    int source;         /* its file, an index of Inputs.sources */
    int64_t line;       /* its number in the file, from 1 */
    const char *reason; /* why it is malformed, in words that follow "line 7 " */
} BadLine;

/* Consecutive documents of a block, which one thread encodes at a time. Index 0 or 1 of an array is the split. */
typedef struct {
    const Block *block;
    size_t first, end;   /* documents [first, end) of the block */
    uint16_t *tokens[2]; /* (n_tokens) */
    size_t n_tokens[2];
    size_t room[2]; /* how many tokens memory is allocated for (check_grow) */
    int64_t documents[2];
    Totals totals;
    BadLine bad[CHUNK_BAD]; /* the first malformed lines */
    JsonText text;          /* the text of the JSON line read last */
    uint64_t least_hash;    /* the smallest hash of a document in the chunk */
} Chunk;

typedef struct {
    bool used; /* it was read, and not yet written */
    Block blocks[SLOTS];
    Place places[SLOTS]; /* of the readers after this round */
    int next_job;        /* the first job that no reader had begun after this round */
    Chunk *chunks;       /* (n_chunks) */
    size_t n_chunks;
    size_t room; /* how many chunks memory is allocated for */
} Round;

typedef struct {
    const PrepareOptions *options;
    Inputs in;
    Tokenizer *tokenizer;
    BpeLearner *learner;     /* not NULL: pieces of text are counted, nothing is written */
    TokenizerCache **caches; /* (threads) */
    int threads;
    int next_job;    /* the first job that no reader has begun */
    int rounds_read; /* by run_rounds so far */
    Reader readers[SLOTS];
    Round rounds[3];
    ShardWriter writers[2];
    Totals totals;
    uint64_t val_hash_end;  /* documents with a smaller hash go to validation; 2^64 times --val-fraction */
    BadLine bad[SHOWN_BAD]; /* (bad_shown) */
    int bad_shown;
    /* (tokenizer_bytes) the text of tokenizer.json; NULL: it lies in the output folder already, or is yet to be learned
       */
    char *tokenizer_text;
    size_t tokenizer_bytes;
    Fingerprint fingerprint;
    /* The list of input files for the state; NULL: too many files, the state has no list. */
    cJSON *kept_sources;
    double began; /* seconds_now() when the rounds began */
    double saved; /* seconds_now() when the state was last written */
    double shown; /* seconds_now() when the progress line was last shown */
    /* What an interrupted run had done before this run continued it; 0 in a new run. */
    int64_t began_bytes, began_text; /* bytes on disk, and bytes of text, that it had read */
    uint64_t began_tokens;           /* tokens that it had written */
} PrepareRun;

static int thread_number(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* -----------------------------------------------------------------------------------------------------------
   One document */

/* Whether n bytes are valid UTF-8. */
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

/* Appends an end-of-text token and the tokens of one document of n bytes to the chunk. While a vocabulary is learned,
   it counts the pieces of the document instead. */
static void chunk_document(PrepareRun *run, Chunk *chunk, const Source *source, const char *text, size_t n) {
    uint64_t hash = rng_mix(tokenizer_hash_bytes(text, n));
    int split = source->validation || (!run->in.has_validation && hash < run->val_hash_end) ? VAL : TRAIN,
        thread = thread_number();
    if (hash < chunk->least_hash) chunk->least_hash = hash;
    chunk->documents[split]++;
    chunk->totals.text_bytes += (int64_t)n;
    chunk->totals.not_utf8 += !is_utf8(text, n);
    if (run->learner) {
        if (split == TRAIN) bpe_learner_add(run->learner, thread, text, n);
        return;
    }
    size_t *used = &chunk->n_tokens[split], room = tokenizer_room(run->tokenizer, text, n);
    chunk->tokens[split] =
        check_grow(chunk->tokens[split], &chunk->room[split], *used + room + 1, sizeof(uint16_t));
    chunk->tokens[split][(*used)++] = (uint16_t)tokenizer_end_of_text(run->tokenizer);
    *used += tokenizer_encode(run->tokenizer, run->caches[thread], text, n, chunk->tokens[split] + *used);
}

/* Encodes the documents of a chunk, afresh each time it is called. */
static void chunk_encode(PrepareRun *run, Chunk *chunk) {
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

/* Gives readers without a job the next ones; false when nothing is left to read. */
static bool round_begin(PrepareRun *run) {
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

/* After a round was read: notes the places of the readers and cuts the blocks into chunks. */
static void round_cut(PrepareRun *run, Round *round) {
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

/* Warns of the malformed lines of a chunk, until SHOWN_BAD lines have been shown. Each line is shown once, although all
   lines are read twice when a vocabulary is learned first. */
static void show_bad(PrepareRun *run, const Chunk *chunk) {
    for (int64_t i = 0; i < chunk->totals.bad_lines && i < CHUNK_BAD && run->bad_shown < SHOWN_BAD; i++) {
        const BadLine *bad = &chunk->bad[i];
        bool shown = false, field = strstr(bad->reason, "field");
        for (int b = 0; b < run->bad_shown; b++)
            shown |= run->bad[b].source == bad->source && run->bad[b].line == bad->line;
        if (shown) continue;
        run->bad[run->bad_shown++] = *bad;
        warn("'%s' line %lld %s%s%s%s; it is left out", run->in.sources[bad->source].path,
             (long long)bad->line, bad->reason, field ? " '" : "", field ? run->options->field : "",
             field ? "'" : "");
    }
}

/* Dies when the malformed lines read so far are more than --max-bad percent of `lines`. */
static void check_bad(const PrepareRun *run, int64_t lines) {
    const double bad = (double)run->totals.bad_lines,
                 read = (double)(run->totals.lines ? run->totals.lines : 1);
    if (100 * bad / (double)(lines ? lines : 1) > run->options->max_bad)
        die("%lld of %lld lines%s are malformed, %.3g %%, more than --max-bad=%g allows; look at the lines "
            "above, or raise it and run the same command again",
            (long long)run->totals.bad_lines, (long long)run->totals.lines,
            lines > run->totals.lines ? " read so far" : "", 100 * bad / read, run->options->max_bad);
}

/* to += from, member by member. */
static void totals_add(Totals *to, const Totals *from) {
    for (size_t i = 0; i < sizeof totals_table / sizeof *totals_table; i++)
        *(int64_t *)((char *)to + totals_table[i].offset) +=
            *(const int64_t *)((const char *)from + totals_table[i].offset);
}

/* In a small text there may be no document whose hash sends it to validation. When the whole text is one round, the
   document with the smallest hash goes to validation, and the chunks are encoded again. */
static void round_choose_validation(PrepareRun *run, Round *round) {
    uint64_t least = UINT64_MAX;
    int64_t documents = 0, val = run->in.has_validation;
    for (size_t c = 0; c < round->n_chunks; c++) {
        val += round->chunks[c].documents[VAL], documents += round->chunks[c].documents[TRAIN];
        if (round->chunks[c].least_hash < least) least = round->chunks[c].least_hash;
    }
    if (run->rounds_read > 1 || run->totals.lines || val || documents < 2 || run->options->val_fraction == 0)
        return;
    run->val_hash_end = least + 1;
    for (size_t c = 0; c < round->n_chunks; c++) chunk_encode(run, &round->chunks[c]);
}

/* Writes the state: how much is written so far, and the places at which the readers had read exactly that much. */
static void run_save(PrepareRun *run, const Place places[SLOTS], int next_job) {
    Progress progress = {.next_job = next_job};
    memcpy(progress.places, places, sizeof progress.places);
    progress.fingerprint = run->fingerprint;
    progress.sources = run->kept_sources;
    state_save(run->writers, &run->totals, &progress);
    run->saved = seconds_now();
}

/* Writes the tokens of a round in the order of its documents and, when it is time, the state. */
static void round_write(PrepareRun *run, Round *round) {
    if (!run->learner) round_choose_validation(run, round);
    for (size_t c = 0; c < round->n_chunks; c++) {
        Chunk *chunk = &round->chunks[c];
        totals_add(&run->totals, &chunk->totals);
        show_bad(run, chunk);
        if (run->learner) continue;
        for (int split = 0; split < 2; split++) {
            shard_put(&run->writers[split], chunk->tokens[split], chunk->n_tokens[split]);
            run->writers[split].documents += (uint64_t)chunk->documents[split];
        }
    }
    if (run->learner) return;
    check_bad(run, run->totals.lines > EARLY_LINES ? run->totals.lines : EARLY_LINES);
    if (seconds_now() - run->saved < (double)run->options->save_every) return;
    run_save(run, round->places, round->next_job);
}

/* -----------------------------------------------------------------------------------------------------------
   The progress line */

/* x and its unit in `text`, which is returned: 950 B, 12.3 MB. */
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

/* Bytes on disk read so far; *files: how many files were read to their end. */
static int64_t input_position(const PrepareRun *run, int *files) {
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

/* Writes the progress line if the latest one is old enough, and always if `last`: when nothing is left to read. */
static void show_progress(PrepareRun *run, bool last) {
    bool terminal = program_on_terminal(stderr);
    double now = seconds_now(), passed = now - run->began;
    if (run->options->quiet || (!last && now - run->shown < (terminal ? 0.2 : 10))) return;
    if (last && run->shown == run->began && !terminal) return; /* it took less than ten seconds */
    int files;
    char text[3][32], left[FORMAT_SIZE];
    int64_t position = input_position(run, &files);
    uint64_t tokens = run->writers[TRAIN].tokens + run->writers[VAL].tokens;
    double rate = (double)(position - run->began_bytes) / passed;
    fprintf(stderr, "%s%s  %d/%d files  %s  %s", terminal ? "\r" : "",
            run->learner ? "reading for the tokenizer" : "encoding", files, run->in.n_sources,
            amount((double)run->totals.text_bytes, "B", text[0]),
            amount((double)(run->totals.text_bytes - run->began_text) / passed, "B/s", text[1]));
    if (!run->learner)
        fprintf(stderr, "  %s", amount((double)(tokens - run->began_tokens) / passed, "tokens/s", text[2]));
    if (!run->learner && rate > 0)
        fprintf(stderr, "  %s left", duration_clock(left, (double)(run->in.bytes - position) / rate));
    fprintf(stderr, "%s%s", terminal ? "\033[K" : "\n", terminal && last ? "\n" : "");
    run->shown = now;
}

/* Reads all inputs. In each step of the loop three rounds are worked on at the same time: one is read, one encoded and
   one written. */
static void run_rounds(PrepareRun *run) {
    run->began = run->saved = run->shown = seconds_now();
    run->rounds_read = 0;
#ifdef _OPENMP
#pragma omp parallel num_threads(run->threads)
#pragma omp single
#endif
    for (int step = 0;; step++) {
        /* Modulo 3, step + 2 equals step - 1, and step + 1 equals step - 2. So the round that was read one step ago is
           encoded, and the round that was read two steps ago is written. */
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

#endif
