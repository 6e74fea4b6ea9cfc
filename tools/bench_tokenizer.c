/* bench_tokenizer.c: how fast tokenizer.h encodes and learns on one core, for scripts/bench_tokenizer.py.

       ./bench_tokenizer TOKENIZER DOCUMENTS [VOCAB]

   DOCUMENTS holds each document after its length in bytes (4 bytes, little endian). Prints the best of
   several passes: bytes of text, tokens, seconds to encode all documents, and (with VOCAB) seconds to learn
   that vocabulary.

   Build: cc -O3 -march=native tools/bench_tokenizer.c -o bench_tokenizer -lcjson -lm */
#include "../gpt/base/clock.h"
#include "../gpt/base/threads.h"
#include "../gpt/run/options.h"
#include "../gpt/base/program.h"
#include "../gpt/io/tokenizer.h"
#include "../data/bpe_learner.h"

enum { PASSES = 5 };

/* The next document, or NULL after the last. */
static const char *next_document(const char **at, const char *end, size_t *length) {
    if (end - *at < 4) return NULL;
    const unsigned char *p = (const unsigned char *)*at;
    *length = (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
    if (*length > (size_t)(end - *at - 4)) die("the file of documents is cut short");
    const char *text = *at + 4;
    *at = text + *length;
    return text;
}

int main(int argc, char **argv) {
    program_begin();
    OptionSet set =
        options_begin("bench_tokenizer", "bench_tokenizer TOKENIZER DOCUMENTS [VOCAB]", NULL, 0, NULL, NULL);
    const int count = options_parse(&set, argc, argv);
    if (count < 2 || count > 3)
        options_fail(&set, "give a tokenizer, a file of documents, and perhaps VOCAB");
    size_t n, length, bytes = 0, tokens = 0;
    Tokenizer *t = tokenizer_load(argv[0]);
    char *documents = check_file_read(argv[1], FILE_REGULAR, FILE_NO_LIMIT, &n, "");
    uint16_t *ids = check_calloc((tokenizer_room(t, documents, n) + 64) * sizeof *ids);
    double best = 1e30;
    for (int pass = 0; pass < PASSES; pass++) { /* each with an empty cache, as a run of prepare begins */
        TokenizerCache *cache = tokenizer_cache_new();
        const char *at = documents, *text;
        double began = seconds_now();
        for (bytes = tokens = 0; (text = next_document(&at, documents + n, &length)); bytes += length)
            tokens += tokenizer_encode(t, cache, text, length, ids);
        double took = seconds_now() - began;
        if (took < best) best = took;
        free(cache);
    }
    printf("%zu %zu %.6f", bytes, tokens, best);
    if (count > 2) {
        const char *at = documents, *text;
        double began = seconds_now();
        BpeLearner *learner = bpe_learner_new(1);
        while ((text = next_document(&at, documents + n, &length))) bpe_learner_add(learner, 0, text, length);
        tokenizer_free(bpe_learner_finish(learner, atoi(argv[2])));
        printf(" %.3f", seconds_now() - began);
    }
    printf("\n");
    tokenizer_free(t);
    free(documents), free(ids);
    return 0;
}
