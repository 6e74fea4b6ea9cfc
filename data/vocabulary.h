/* vocabulary.h: the tokenizer of ./prepare: learned from the inputs, or the one that --tokenizer names.

   Both functions set run->tokenizer and run->tokenizer_text, the text of its tokenizer.json, and write no file; they
   end the program with a sentence when there is no text or no usable tokenizer.

     learn_tokenizer(run)    reads the inputs once, as much of them as --tokenizer-text says, and learns a vocabulary
     given_tokenizer(run)    reads the one that --tokenizer names: a tokenizer.json, GPT-2's vocab.json with merges.txt,
                             or a SentencePiece model */
#ifndef DATA_VOCABULARY_H
#define DATA_VOCABULARY_H

#include "rounds.h"
#include "sentencepiece.h"

/* Afterwards the readers are at the beginning of the inputs again, so that run_rounds reads them for the tokens. */
static void learn_tokenizer(PrepareRun *run) {
    double budget = (double)run->options->tokenizer_text * 1048576, began = seconds_now();
    char text[32], took[FORMAT_SIZE];
    run->learner = bpe_learner_new(run->threads);
    for (int s = 0; s < SLOTS; s++)
        run->readers[s].fraction = budget / (double)(run->in.bytes ? run->in.bytes : 1);
    run_rounds(run);
    check_bad(run, run->totals.text_bytes ? EARLY_LINES : run->totals.lines);
    if (!run->totals.text_bytes) die("the inputs hold no text");
    int64_t bytes = run->totals.text_bytes, vocab = run->options->vocab;
    if (!vocab) vocab = bytes >= 100000000 ? 32000 : bytes >= 10000000 ? 8192 : bytes >= 500000 ? 2048 : 512;
    bool terminal = program_on_terminal(stderr) && !run->options->quiet;
    if (terminal) fprintf(stderr, "learning the vocabulary\r");
    run->tokenizer = bpe_learner_finish(run->learner, (int)vocab);
    if (terminal) fprintf(stderr, "\033[K");
    run->learner = NULL;
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
    for (int s = 0; s < SLOTS; s++) run->readers[s].fraction = 0;
}

/* Turns the SentencePiece model that --tokenizer names into a tokenizer.json. */
static void given_model(PrepareRun *run) {
    const char *path = run->options->tokenizer;
    SpmModel *model = spm_load(path);
    FILE *file = open_memstream(&run->tokenizer_text, &run->tokenizer_bytes);
    if (!file) die("out of memory");
    spm_write(model, file, (int)run->options->extra_ids);
    if (fclose(file) != 0) die("out of memory");
    run->tokenizer = tokenizer_parse(path, run->tokenizer_text, run->tokenizer_bytes, NULL);
    spm_free(model);
}

/* Says which bytes the tokenizer would leave out of a text; those that no UTF-8 text contains are of no interest. */
static void warn_of_lacking_bytes(const Tokenizer *t) {
    char list[512] = "";
    for (int byte = 0, n = 0; byte < 256; byte++) {
        const bool in_utf8 = byte < 0xc0 || (byte > 0xc1 && byte < 0xf5);
        if (t->lacks[byte] && in_utf8 && n < 500)
            n += snprintf(list + n, sizeof list - (size_t)n, "%s0x%02x", n ? " " : "", byte);
    }
    if (*list) warn("the tokenizer has no token for these bytes, and leaves them out of a text: %s", list);
}

/* The text of a tokenizer.json stays as it is; another form is turned into one. */
static void given_tokenizer(PrepareRun *run) {
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
    warn_of_lacking_bytes(run->tokenizer);
    free(inside);
}

#endif
