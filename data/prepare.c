/* prepare.c: turns text into shards of tokens, for training and validation.

       ./prepare --out=DIR [--vocab=N | --tokenizer=FILE] INPUT...

   INPUT is a file of plain text or of JSON lines (field "text"), either of them possibly gzipped, a folder of such
   files, or - for standard input. DIR gets tokenizer.json, train_000000.bin, ..., val_000000.bin, ... and the manifest
   shards.json. `--verify` checks such a folder. docs/formats.md has the formats, data/README.md the commands for C4.

   How it works, and where:
     prepare_options.h   the options
     inputs.h            which files are read, and a first look at each
     vocabulary.h        the tokenizer: learned from the text (bpe_learner.h), or given (sentencepiece.h)
     rounds.h            documents are read (documents.h, json_line.h), encoded in parallel and written (output.h).
                         Every document is preceded by the end-of-text token
     output.h            shards, and the state from which a run that was killed is continued
     manifest.h          shards.json, and the fingerprint by which a folder is recognised
     verify.h            --verify
   This file decides what is done with a folder: begun, continued or left as it is. What is written depends on the
   inputs and the options alone, not on the number of threads nor on how often the run was interrupted.

   Build: cc -O3 -march=native -fopenmp data/prepare.c -o prepare -lcjson -lz -lm (with -DHAVE_ZSTD and -lzstd it also
   reads files compressed by zstd) */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "manifest.h"
#include "rounds.h"
#include "verify.h"
#include "vocabulary.h"

/* -----------------------------------------------------------------------------------------------------------
   The inputs */

/* Prints how many files in the input folders are not read, and warns of those that may hold text in another form. */
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

/* The least size in bytes of the pieces that plain text is cut into. A small text is cut into small pieces, so that
   some of them are for validation. */
static size_t piece_bytes(const PrepareRun *run) {
    enum { MOST = 8192, LEAST = 16, PIECES = 32 };
    int64_t bytes = 0, piece;
    if (run->options->document_bytes) return (size_t)run->options->document_bytes;
    for (int s = 0; s < run->in.n_sources; s++)
        if (!run->in.sources[s].jsonl && !run->in.sources[s].validation) bytes += run->in.sources[s].bytes;
    piece = bytes / PIECES;
    return (size_t)(piece > MOST || !bytes ? MOST : piece < LEAST ? LEAST : piece);
}

/* Lists and looks at all inputs, and settles how they are read. */
static void gather_inputs(PrepareRun *run, int count, char **names) {
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
    run->val_hash_end = (uint64_t)below;
    for (int s = 0; s < SLOTS; s++) run->readers[s] = (Reader){.inputs = in, .place = {.job = -1}};
}

/* -----------------------------------------------------------------------------------------------------------
   The end of a run */

/* Removes the state, which nobody needs once the manifest is written. A run that finds a manifest does so too: the run
   that wrote it may have been killed before it removed the state. Small files are written as FILE.part and then renamed
   to FILE (file_write_whole); a run that was killed in between leaves FILE.part, which is removed as well. */
static void remove_state(const PrepareRun *run, const char *state) {
    static const char *const files[] = {"prepare.state.json", "shards.json", "tokenizer.json"};
    unlink(state);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *part = output_path(run->options->out, "%s.part", files[i]);
        unlink(part);
        free(part);
    }
}

/* Removes everything that belongs to the output but tokenizer.json. */
static void clear_output(const PrepareRun *run, const char *manifest, const char *state) {
    unlink(manifest);
    remove_state(run, state);
    remove_shards(&run->writers[TRAIN], 0), remove_shards(&run->writers[VAL], 0);
}

/* Dies when one of the splits has no tokens, with the reason. Its shards are removed, so that the next attempt finds an
   empty folder. */
static void check_splits(const PrepareRun *run, const char *manifest, const char *state) {
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

/* Prints what was made, and warns of what was left out. */
static void show_result(const PrepareRun *run) {
    char text[2][FORMAT_SIZE], took[FORMAT_SIZE], shown[CHECK_TEXT_SIZE];
    for (int split = 0; split < 2; split++) {
        const ShardWriter *w = &run->writers[split];
        printf("%-9s  %s tokens in %s documents, %zu shard%s\n", w->prefix,
               count_grouped(text[0], (double)w->tokens), count_grouped(text[1], (double)w->documents),
               w->n_shards, w->n_shards == 1 ? "" : "s");
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

/* After everything was read: finishes the shards and writes the manifest. */
static void finish(PrepareRun *run, const char *manifest, const char *state, const char *tokenizer) {
    check_bad(run, run->totals.lines);
    for (int split = 0; split < 2; split++) shard_finish(&run->writers[split]);
    check_splits(run, manifest, state);
    write_manifest(run, manifest, tokenizer);
    remove_state(run, state);
    show_result(run);
}

/* -----------------------------------------------------------------------------------------------------------
   The beginning of a run */

/* Continues the output of an interrupted run of the same command: sets `run` to what its state says. */
static void continue_output(PrepareRun *run, const cJSON *state, const char *tokenizer) {
    Progress progress = {.fingerprint = run->fingerprint};
    if (!state_take(run->writers, &run->totals, &progress, &run->in, state) ||
        !shard_resume(&run->writers[TRAIN]) || !shard_resume(&run->writers[VAL]))
        die("the unfinished shards in '%s' are damaged; start over with --overwrite", run->options->out);
    for (int s = 0; s < SLOTS; s++) run->readers[s].place = progress.places[s];
    run->next_job = progress.next_job;
    /* With --tokenizer the fingerprint has the checksum of the file that was named, not of the copy in the folder. */
    const uint32_t crc =
        run->tokenizer_text ? checksum_crc32(0, run->tokenizer_text, run->tokenizer_bytes) : 0;
    if (run->tokenizer_text && file_crc32(tokenizer) != crc)
        die("'%s' is damaged: it is not the tokenizer that --tokenizer names; start over with --overwrite",
            tokenizer);
    if (!run->tokenizer) run->tokenizer = tokenizer_load(tokenizer);
}

typedef enum { OUTPUT_FRESH, OUTPUT_CONTINUED, OUTPUT_DONE } OutputState;

/* Finds out what the output folder holds: nothing that must be kept (OUTPUT_FRESH); the output of an interrupted run of
   the same command, which continue_output then takes over (OUTPUT_CONTINUED); or the finished output (OUTPUT_DONE).
   Dies when it holds anything else. Removes nothing. */
static OutputState begin_output(PrepareRun *run, const char *manifest, const char *state,
                                const char *tokenizer) {
    const PrepareOptions *o = run->options;
    struct stat status;
    if (o->overwrite) return OUTPUT_FRESH;
    bool has_manifest = stat(manifest, &status) == 0, has_state = stat(state, &status) == 0;
    if (stat(tokenizer, &status) == 0 && (has_manifest || has_state)) {
        cJSON *json = output_read(has_manifest ? manifest : state, !has_manifest);
        const char *found = json_text(json, "fingerprint");
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

/* Begins a new output. Learns a tokenizer, if none was given; then removes what the folder holds, and writes
   tokenizer.json and the state of a run that has read nothing, by which a later call recognises its folder. The old
   content is removed that late so that it is not lost when an option or the tokenizer turns out to be wrong. */
static void start_output(PrepareRun *run, const char *manifest, const char *state, const char *tokenizer) {
    Place idle[SLOTS];
    if (!run->tokenizer) learn_tokenizer(run);
    make_fingerprint(run, tokenizer);
    clear_output(run, manifest, state);
    write_file(tokenizer, run->tokenizer_text, run->tokenizer_bytes);
    for (int i = 0; i < SLOTS; i++) idle[i] = (Place){.job = -1};
    run_save(run, idle, 0);
}

static int prepare(PrepareRun *run, int count, char **names) {
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
            printf("continuing after %s tokens\n",
                   count_grouped((char[FORMAT_SIZE]){0}, (double)run->writers[TRAIN].tokens));
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

int main(int argc, char **argv) {
    program_begin();
    static PrepareOptions options;
    static PrepareRun run = {.options = &options};
    prepare_option_set =
        options_begin("prepare", "./prepare --out=DIR [--vocab=N | --tokenizer=FILE] INPUT...",
                      prepare_options, N_PREPARE_OPTIONS, &options, NULL);
    int count = options_parse(&prepare_option_set, argc, argv);
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
