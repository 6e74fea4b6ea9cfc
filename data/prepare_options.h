/* prepare_options.h: the options of ./prepare: one table that parsing, --help and the manifest read.

   check_options(o, count)    ends the program when options do not fit together
   deciding_options()         the options that decide what is written, as a JSON object that the caller frees with
                              cJSON_Delete */
#ifndef DATA_PREPARE_OPTIONS_H
#define DATA_PREPARE_OPTIONS_H

#include <stddef.h>
#include "../gpt/io/tokenizer.h"
#include "../gpt/run/options.h"
#include "inputs.h"

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
           "format of the inputs; auto: by name (.txt .md .json .jsonl .ndjson, each with .gz or .zst), else "
           "by content"),
    ROW_OF("Input", "field", OPTION_STRING, field, "text", 0, 0, "NAME",
           "field of a JSON line that holds the text"),
    ROW_OF("Input", "documents", OPTION_CHOICE, documents, "auto", 0, 0, "auto|file|cut",
           "what a document of plain text is: a whole file, or a piece of a file that is cut at blank lines; "
           "auto: cut when there are fewer than 64 files"),
    ROW_OF("Input", "document-bytes", OPTION_INT, document_bytes, "0", 0, 1 << 24, "",
           "least size of the pieces a plain text is cut into, from 16 on; 0: 8192, less when there is "
           "little text"),
    ROW_OF("Input", "max-document", OPTION_INT, max_document, "256", 1, 2047, "",
           "size of the largest document in MiB; a longer JSON line counts as malformed"),
    ROW_OF("Input", "separator", OPTION_STRING, separator, "", 0, 0, "LINE",
           "plain text: lines equal to this separate documents"),
    ROW_OF("Input", "max-bad", OPTION_FLOAT, max_bad, "0.01", 0, 100, "",
           "percent of malformed JSON lines above which the run fails"),
    ROW_OF("Tokenizer", "vocab", OPTION_INT, vocab, "0", 0, TOKENIZER_MAX_VOCAB, "",
           "size of the vocabulary to learn, 257 to 65536; 0: chosen by the amount of text"),
    ROW_OF("Tokenizer", "tokenizer", OPTION_STRING, tokenizer, "", 0, 0, "FILE",
           "use this tokenizer instead of learning one: a tokenizer.json, GPT-2's vocab.json with merges.txt "
           "beside it, their "
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
    ROW_OF("Output", "overwrite", OPTION_SWITCH, overwrite, "no", 0, 0, "",
           "replace what the output folder holds"),
    ROW_OF("Output", "verify", OPTION_SWITCH, verify, "no", 0, 0, "",
           "check the folder --out against its manifest, write nothing"),
    ROW_OF("Machine", "threads", OPTION_INT, threads, "0", 0, 4096, "",
           "threads that read and encode; 0: one for each core"),
    ROW_OF("Machine", "save-every", OPTION_INT, save_every, "10", 0, 86400, "",
           "seconds between the points from which an interrupted run can be continued"),
    ROW_OF("Machine", "round-bytes", OPTION_INT, round_bytes, "16777216", 4096, 1 << 30, "",
           "bytes of text that are read in a round; the inputs that are read at the same time share them"),
    ROW_OF("Machine", "quiet", OPTION_SWITCH, quiet, "no", 0, 0, "", "no progress line"),
};
enum { N_PREPARE_OPTIONS = sizeof prepare_options / sizeof *prepare_options };

static OptionSet prepare_option_set; /* the table with the values given */

/* Ends the program with a sentence about the first option that its bounds allow, but not together with the others.
   `count` is the number of inputs. */
static void check_options(const PrepareOptions *o, int count) {
    if (!*o->out)
        options_fail(&prepare_option_set, "--out is missing; name the folder for the shards with --out=DIR");
    if (!count && !o->verify)
        options_fail(&prepare_option_set, "no input; name files or folders of text, or - for standard input");
    if (o->vocab && o->vocab < 257)
        options_fail(&prepare_option_set, "--vocab=%lld: out of bounds; expected 257 to 65536, or 0",
                     (long long)o->vocab);
    if (o->vocab && *o->tokenizer)
        options_fail(&prepare_option_set,
                     "--vocab=%lld and --tokenizer=%s: a given tokenizer has its own size; leave one out",
                     (long long)o->vocab, o->tokenizer);
    if (o->extra_ids && !ends_with(o->tokenizer, strlen(o->tokenizer), ".model"))
        options_fail(
            &prepare_option_set,
            "--extra-ids=%lld: only a SentencePiece vocabulary (--tokenizer=FILE.model) gets sentinels",
            (long long)o->extra_ids);
    if (o->document_bytes && o->document_bytes < 16)
        options_fail(&prepare_option_set,
                     "--document-bytes=%lld: out of bounds; expected 16 to 16777216, or 0",
                     (long long)o->document_bytes);
}

/* The options that decide the content of the output. The others, such as the number of threads, may differ between two
   runs of which one continues the other. */
static cJSON *deciding_options(void) {
    static const char *const without[] = {"out",       "threads", "save-every", "quiet",
                                          "overwrite", "verify",  "max-bad"};
    cJSON *json = options_to_json(&prepare_option_set);
    for (size_t i = 0; i < sizeof without / sizeof *without; i++)
        cJSON_DeleteItemFromObjectCaseSensitive(json, without[i]);
    return json;
}

#endif
