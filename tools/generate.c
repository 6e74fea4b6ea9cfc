/* generate.c: continues texts with a trained model: ./generate [options] CHECKPOINT

   CHECKPOINT is a folder step-00000500 that ./train_gpt wrote, or the folder of a run, whose newest checkpoint is then
   used.

   The prompt goes through the model in one pass. After that each token is one pass over one token: the keys and values of
   the tokens before it are in a cache (gpt/math/attention_cache.h). So a token takes about as long as reading all weights
   from memory once. Tokens are drawn as gpt/math/sampling.h describes. The text is printed as it is made, always up to a
   whole UTF-8 character, and without what could become a text of --stop.

   With --batch=N, N texts are written at the same time: each has keys and values of its own, but their newest tokens go
   through the model together, so that the weights are read once for all of them. A text that has ended leaves, and the
   next prompt takes its place. The texts are printed in the order of the prompts, and each is the one that it would be
   without --batch: a token's numbers do not depend on the others in a product, and each text has random numbers of its
   own, by --seed, the number of its prompt and of its sample.

   The model sees at most T tokens (the --seq-len of its training). When a text has more, the older half of them is
   forgotten and the newer half goes through the model again in one pass. */
#define TRAIN_GPT_NO_MAIN
#include "../train_gpt.c"
#include "load_model.h"

typedef struct {
    const char *prompt, *prompt_file;
    OptionTexts stop;
    int64_t tokens, samples, batch, top_k, seed, threads;
    double temperature, top_p, min_p, repeat_penalty;
    int dtype;
    bool json, lines;
} GenerateOptions;

#define ROW(group, name, type, field, value, min, max, word, help)                                           \
    { group, name, type, offsetof(GenerateOptions, field), value, min, max, word, help, false }
static const Option generate_options[] = {
    ROW("Text", "prompt", OPTION_STRING, prompt, "", 0, 0, "TEXT",
        "how the text begins; none: the text begins as a document does"),
    ROW("Text", "prompt-file", OPTION_STRING, prompt_file, "", 0, 0, "FILE",
        "a file that holds the prompt, without its last line break; -: standard input, each of whose lines "
        "is a prompt"),
    ROW("Text", "lines", OPTION_SWITCH, lines, "no", 0, 0, "",
        "each line of --prompt-file is a prompt of its own, as those of standard input always are"),
    ROW("Text", "batch", OPTION_INT, batch, "1", 1, 1024, "",
        "how many texts to write at the same time; more take longer, but less than one after the other. "
        "Their order "
        "and what they say are the same"),
    ROW("Text", "tokens", OPTION_INT, tokens, "128", 1, 1e6, "",
        "how many tokens to add; fewer are added where the text ends"),
    ROW("Text", "stop", OPTION_TEXTS, stop, "", 0, 0, "TEXT",
        "end where the model has written this; it is not printed. May be given several times: the first that "
        "the model completes ends the text"),
    ROW("Text", "samples", OPTION_INT, samples, "1", 1, 1e6, "",
        "how many texts to write for a prompt, each with its own seed"),
    ROW("Text", "json", OPTION_SWITCH, json, "false", 0, 0, "",
        "print one line for each text: its prompt, text, tokens, tokens_per_s (with the time of the prompt) "
        "and ended_by: "
        "tokens, stop or end of text"),
    ROW("Choice of tokens", "temperature", OPTION_FLOAT, temperature, "0.8", 0, 100, "",
        "0: always the likeliest token; higher values give more varied text"),
    ROW("Choice of tokens", "top-k", OPTION_INT, top_k, "0", 0, 65536, "",
        "choose among this many of the likeliest tokens; 0: among all"),
    ROW("Choice of tokens", "top-p", OPTION_FLOAT, top_p, "1", 0, 1, "",
        "choose among the likeliest tokens that together have this probability; 0 or 1: among all"),
    ROW("Choice of tokens", "min-p", OPTION_FLOAT, min_p, "0", 0, 1, "",
        "choose among tokens with at least this share of the largest probability; 0: among all"),
    ROW("Choice of tokens", "repeat-penalty", OPTION_FLOAT, repeat_penalty, "1", 0.01, 100, "",
        "above 1: tokens that the model sees already become less likely"),
    ROW("Choice of tokens", "seed", OPTION_INT, seed, "1", 0, 1e14, "", "the same seed gives the same text"),
    ROW("Machine", "dtype", OPTION_CHOICE, dtype, "auto", 0, 0, OPTION_CHOICES(DTYPE_CHOICES),
        "numbers of matrix products; auto: as the checkpoint was trained, or fp32 if it does not say"),
    ROW("Machine", "threads", OPTION_INT, threads, "0", 0, 4096, "", "OpenMP threads; 0: all cores"),
};
#undef ROW

/* ---- the text ---- */

/* What the model has written for a prompt. */
typedef struct {
    char *bytes; /* (size) */
    size_t size, room, printed;
    int tokens;
    const char *ended_by;
} Text;

typedef struct {
    char *bytes;
    size_t size;
    uint64_t number;            /* of the prompt in the input, from 0 on */
    char where[FILE_PATH_SIZE]; /* for messages, as " in line 3 of standard input" */
} Prompt;

/* A text that is being written, or that waits to be printed. */
typedef struct Sequence {
    struct Sequence *next; /* in the order of the input */
    Prompt prompt;         /* owns its bytes */
    uint64_t seed;
    Text text;
    int32_t *context; /* (T) the tokens that the model sees, of which the cache has the first */
    int used;         /* of them */
    AttentionCache *cache;
    double start, seconds;
    bool shown, done;
} Sequence;

typedef struct {
    const GenerateOptions *options;
    SamplingRule rule;
    Model model;
    Tokenizer *tokenizer;
    int batch;
    AttentionCache *caches, **unused; /* (batch) each; unused: those that no text has */
    Sequence **active; /* (batch) the texts that are being written, in the order of the input */
    int active_count;
    Sequence *first, *last; /* of the texts that are not printed yet */
    FILE *lines;            /* from which prompts are read; NULL: there is one prompt */
    Prompt prompt;          /* the latest that was read */
    int64_t samples;        /* of it that were begun */
    uint64_t prompts;       /* read so far */
    int texts;              /* printed so far */
    bool on_terminal, told_window;
    char waiting[8]; /* of check_print_piece */
} Generator;

static void print_bytes(Generator *g, const char *bytes, size_t n) {
    if (g->options->json || n == 0) return;
    if (g->on_terminal) /* control characters could change the state of a terminal, so they are made visible there */
        check_print_piece(stdout, g->waiting, bytes, n);
    else
        fwrite(bytes, 1, n, stdout);
}

/* Whether the text contains one of --stop; then it ends before it. Only its last `fresh` bytes are new. Of several the one
   that is complete first counts, and of those that end at the same byte the longest, so that it does not matter how the
   text is divided into tokens. */
static bool text_cut_at_stop(Text *text, const OptionTexts *stop, size_t fresh) {
    for (size_t end = text->size - fresh + 1; end <= text->size; end++) {
        size_t longest = 0;
        for (size_t i = 0; i < stop->count; i++) {
            const size_t length = strlen(stop->texts[i]);
            if (length <= longest || length > end) continue;
            if (memcmp(text->bytes + end - length, stop->texts[i], length) == 0) longest = length;
        }
        if (longest) {
            text->size = end - longest;
            return true;
        }
    }
    return false;
}

/* How many of the last bytes of the text are the beginning of `stop`. */
static size_t text_begun_stop(const Text *text, const char *stop) {
    const size_t length = strlen(stop);
    for (size_t n = length < text->size ? length : text->size; n > 0; n--)
        if (memcmp(text->bytes + text->size - n, stop, n) == 0) return n;
    return 0;
}

/* How many bytes of the text can be printed, whatever follows: neither a part of a character, nor of one of --stop. */
static size_t text_settled(const Text *text, const OptionTexts *stop) {
    size_t begun = 0;
    for (size_t i = 0; i < stop->count; i++) {
        const size_t n = text_begun_stop(text, stop->texts[i]);
        if (n > begun) begun = n;
    }
    return check_whole_characters(text->bytes, text->size - begun);
}

static void text_print(Generator *g, Text *text, size_t until) {
    if (until <= text->printed) return;
    print_bytes(g, text->bytes + text->printed, until - text->printed);
    text->printed = until;
    check_flush();
}

/* Adds a token to the text. False when the text ends with it. */
static bool text_add(Generator *g, Text *text, int32_t token) {
    size_t length;
    const char *bytes = tokenizer_decode_token(g->tokenizer, token, &length);
    text->bytes = check_grow(text->bytes, &text->room, text->size + length + 1, 1);
    if (length) memcpy(text->bytes + text->size, bytes, length);
    text->size += length, text->tokens++;
    if (!text_cut_at_stop(text, &g->options->stop, length)) return true;
    text->ended_by = "stop";
    return false;
}

static void print_json(const Sequence *s) {
    const Text *text = &s->text;
    printf("{\"prompt\": ");
    json_print_text(stdout, s->prompt.bytes, s->prompt.size);
    printf(", \"text\": ");
    json_print_text(stdout, text->bytes, text->size);
    printf(", \"tokens\": %d, \"tokens_per_s\": %.6g, \"ended_by\": \"%s\"}\n", text->tokens,
           text->tokens / s->seconds, text->ended_by);
    check_flush();
}

/* Prints what is new of the first text that is not printed yet. */
static void sequence_show(Generator *g, Sequence *s) {
    if (!s->shown) {
        if (!g->options->json && g->texts++) printf("\n"); /* a blank line between texts */
        print_bytes(g, s->prompt.bytes, s->prompt.size);
        s->shown = true;
        check_flush();
    }
    text_print(g, &s->text, s->done ? s->text.size : text_settled(&s->text, &g->options->stop));
    if (!s->done) return;
    if (g->options->json) print_json(s);
    if (g->on_terminal) check_print_piece(stdout, g->waiting, "", 0);
    if (!g->options->json) printf("\n");
    check_flush();
}

static void sequence_free(Sequence *s) {
    free(s->prompt.bytes), free(s->text.bytes), free(s->context), free(s);
}

/* Prints what can be printed: all that have ended up to the first that has not, and that as far as it is. */
static void show_texts(Generator *g) {
    for (Sequence *s; (s = g->first);) {
        sequence_show(g, s);
        if (!s->done) return;
        g->first = s->next;
        sequence_free(s);
    }
}

/* ---- tokens ---- */

static void context_add(Generator *g, Sequence *s, int32_t token) {
    const int T = g->model.config.seq_len;
    if (s->used == T) {
        s->used = T / 2;
        memmove(s->context, s->context + T - s->used, (size_t)s->used * sizeof *s->context);
        s->cache->count = 0;
    }
    s->context[s->used++] = token;
}

static void sequence_end(Sequence *s) {
    s->done = true;
    s->seconds = seconds_now() - s->start;
}

/* Draws the token that follows the context, by its logits (V), and adds it to the text. */
static void sequence_draw(Generator *g, Sequence *s, const float *logits) {
    const int V = g->model.config.vocab_size;
    const size_t wrong = first_nonfinite(logits, (size_t)V);
    if (wrong < (size_t)V)
        die("the model gives token %zu the logit %g, which is no finite number; its training has diverged, "
            "use an earlier "
            "checkpoint",
            wrong, (double)logits[wrong]);
    const uint64_t draw = s->prompt.number << 32 | (uint64_t)s->text.tokens;
    const int32_t token = sample_token(logits, V, &g->rule, s->context, s->used, s->seed, draw);
    if (token == tokenizer_end_of_text(g->tokenizer)) {
        s->text.ended_by = "end of text";
        sequence_end(s);
    } else if (!text_add(g, &s->text, token) || s->text.tokens >= g->options->tokens) {
        sequence_end(s);
    } else
        context_add(g, s, token);
}

/* Those tokens of the context that are not in the cache go through the model in one pass: a prompt, or what is left of
   a context that was full. */
static void sequence_pass(Generator *g, Sequence *s) {
    const int count = s->used - s->cache->count;
    g->model.caches = &s->cache;
    model_forward(&g->model, s->context + s->cache->count, 1, count);
    sequence_draw(g, s, model_logits(&g->model, count - 1));
}

/* The newest tokens of n texts go through the model together. */
static void sequences_step(Generator *g, Sequence **sequences, int n) {
    const ModelConfig *c = &g->model.config;
    const int V = c->vocab_size, slice = (int)loss_slice_rows(c, c->seq_len);
    AttentionCache **caches = check_calloc((size_t)n * sizeof *caches);
    int32_t *tokens = check_calloc((size_t)n * sizeof *tokens);
    for (int i = 0; i < n; i++) {
        caches[i] = sequences[i]->cache;
        tokens[i] = sequences[i]->context[sequences[i]->used - 1];
    }
    g->model.caches = caches;
    model_forward(&g->model, tokens, n, 1);
    for (int first = 0; first < n; first += slice) {
        const int rows = n - first < slice ? n - first : slice;
        const float *logits = model_logits_of(&g->model, first, rows);
        for (int i = 0; i < rows; i++) sequence_draw(g, sequences[first + i], logits + (int64_t)i * V);
    }
    free(caches), free(tokens);
}

/* Adds a token to each of the texts that are being written. Those that have ended leave. */
static void write_tokens(Generator *g) {
    Sequence **ready = check_calloc((size_t)g->batch * sizeof(Sequence *));
    int count = 0, left = 0;
    for (int i = 0; i < g->active_count; i++)
        if (g->active[i]->used - g->active[i]->cache->count == 1) ready[count++] = g->active[i];
    for (int i = 0; i < g->active_count; i++)
        if (g->active[i]->used - g->active[i]->cache->count > 1) sequence_pass(g, g->active[i]);
    if (count == 1) sequence_pass(g, ready[0]);
    if (count > 1) sequences_step(g, ready, count);
    free(ready);
    for (int i = 0; i < g->active_count; i++) {
        Sequence *s = g->active[i];
        if (s->done)
            g->unused[g->batch - g->active_count + i - left] = s->cache;
        else
            g->active[left++] = s;
    }
    g->active_count = left;
}

/* ---- prompts ---- */

/* The context becomes the prompt's tokens, or of an empty prompt the token after which every document begins. */
static void context_begin(Generator *g, Sequence *s) {
    const Prompt *prompt = &s->prompt;
    const int T = g->model.config.seq_len, end_of_text = tokenizer_end_of_text(g->tokenizer);
    uint16_t *ids = check_calloc(tokenizer_room(g->tokenizer, prompt->bytes, prompt->size) * sizeof *ids);
    const size_t count = tokenizer_encode(g->tokenizer, NULL, prompt->bytes, prompt->size, ids);
    if (count > (size_t)T)
        die("the prompt%s has %zu tokens, the model sees at most %d at once (its --seq-len); shorten the "
            "prompt",
            prompt->where, count, T);
    if (count == 0 && end_of_text < 0)
        die("the prompt%s is empty, and the tokenizer has no token with which documents begin; give "
            "--prompt=TEXT",
            prompt->where);
    s->cache->count = 0;
    if (count == 0) context_add(g, s, end_of_text);
    for (size_t i = 0; i < count; i++) context_add(g, s, ids[i]);
    free(ids);
    if (s->used + g->options->tokens - 1 <= T || g->told_window) return;
    fprintf(
        stderr,
        "note: the model sees at most %d tokens at once (its --seq-len); the prompt and --tokens=%lld are "
        "more, so each time it has %d, it goes on from the newest %d\n",
        T, (long long)g->options->tokens, T, T / 2);
    g->told_window = true;
}

/* Reads the next prompt into g->prompt. False when there is none. */
static bool read_prompt(Generator *g) {
    Prompt *prompt = &g->prompt;
    const char *path = g->options->prompt_file;
    const bool standard_input = strcmp(path, "-") == 0;
    if (!g->lines) return g->prompts++ == 0; /* generator_open has set the only prompt */
    size_t room = 0;
    free(prompt->bytes), prompt->bytes = NULL;
    const ssize_t size = getline(&prompt->bytes, &room, g->lines);
    char name[FILE_PATH_SIZE];
    snprintf(name, sizeof name, standard_input ? "standard input" : "'%.4000s'", path);
    if (ferror(g->lines)) die("cannot read %s: %s", name, strerror(errno));
    if (size <= 0 && g->prompts == 0) die("%s is empty; write a prompt in every line", name);
    if (size <= 0) return false;
    prompt->size = (size_t)(prompt->bytes[size - 1] == '\n' ? size - 1 : size);
    prompt->number = g->prompts++;
    snprintf(prompt->where, sizeof prompt->where, " in line %llu of %.4000s", (unsigned long long)g->prompts,
             name);
    if (prompt->size == 0) die("the prompt%s is empty; write a prompt in every line", prompt->where);
    return true;
}

/* Begins the next text, of the latest prompt or of a new one. False when there is none. */
static bool begin_text(Generator *g) {
    if (g->samples == 0 && !read_prompt(g)) return false;
    Sequence *s = check_calloc(sizeof *s);
    s->prompt = g->prompt;
    s->prompt.bytes = memcpy(check_calloc(g->prompt.size + 1), g->prompt.bytes, g->prompt.size);
    s->seed = (uint64_t)(g->options->seed + g->samples);
    s->context = check_calloc((size_t)g->model.config.seq_len * sizeof *s->context);
    s->cache = g->unused[g->batch - g->active_count - 1];
    s->text.ended_by = "tokens";
    s->start = seconds_now();
    context_begin(g, s);
    *(g->first ? &g->last->next : &g->first) = s;
    g->last = g->active[g->active_count++] = s;
    g->samples = (g->samples + 1) % g->options->samples;
    return true;
}

/* Writes the texts of all prompts. */
static void write_texts(Generator *g) {
    bool more = true;
    while (!check_lost) {
        while (more && g->active_count < g->batch) more = begin_text(g);
        if (g->active_count == 0) break;
        show_texts(g); /* the prompt, while the model reads it */
        write_tokens(g);
        show_texts(g);
    }
}

/* ---- the program ---- */

/* How the checkpoint was trained, by its trainer_state.json; fp32 if it has none, as a model of another program. */
static int dtype_of(const char *folder) {
    char path[CHECKPOINT_PATH_SIZE], error[FILE_ERROR_SIZE];
    if (!file_join(path, folder, "trainer_state.json", error) || access(path, F_OK) != 0) return DTYPE_FP32;
    cJSON *state = checkpoint_read_json(folder, "trainer_state.json");
    const char *dtype = json_text(cJSON_GetObjectItemCaseSensitive(state, "options"), "dtype");
    const bool bf16 = dtype && strcmp(dtype, "bf16") == 0;
    cJSON_Delete(state);
    return bf16 ? DTYPE_BF16 : DTYPE_FP32;
}

static void check_options(const OptionSet *set, const GenerateOptions *o) {
    if (options_given(set, "prompt") && options_given(set, "prompt-file"))
        options_fail(set, "--prompt and --prompt-file are both given: leave out one of them");
    if (options_given(set, "prompt-file") && !*o->prompt_file)
        options_fail(set, "--prompt-file is empty: expected the name of a file, or - for standard input");
    if (o->lines && !*o->prompt_file)
        options_fail(set, "--lines needs --prompt-file: the file whose lines are prompts");
    for (size_t i = 0; i < o->stop.count; i++)
        if (!*o->stop.texts[i]) options_fail(set, "--stop is empty: expected the text at which to end");
}

/* The prompt of --prompt or, without --lines, of a file. */
static void only_prompt(Generator *g) {
    const char *path = g->options->prompt_file;
    Prompt *prompt = &g->prompt;
    if (!*path) {
        prompt->size = strlen(g->options->prompt);
        prompt->bytes = memcpy(check_calloc(prompt->size + 1), g->options->prompt, prompt->size);
        return;
    }
    prompt->bytes = check_file_read(path, FILE_STREAM, (size_t)1 << 26, &prompt->size,
                                    "--prompt-file is the name of a file");
    if (prompt->size && prompt->bytes[prompt->size - 1] == '\n') prompt->size--;
    snprintf(prompt->where, sizeof prompt->where, " in '%.4000s'", path);
    if (prompt->size == 0)
        die("the prompt%s is empty; without --prompt-file the text begins as a document does", prompt->where);
}

/* The caches of all texts that are written at the same time. */
static void create_caches(Generator *g) {
    const ModelConfig *c = &g->model.config;
    const AttentionShape shape = attention_shape(c, 1, c->seq_len);
    const double bytes = (double)attention_cache_bytes((AttentionKind)c->attn, c->layers, &shape);
    const int64_t have = memory_available();
    if (bytes * g->batch > (double)have)
        die("the keys and values of --batch=%d texts need %.1f GiB, this machine has %.1f GiB free; give a "
            "smaller "
            "--batch",
            g->batch, bytes * g->batch / 0x1p30, (double)have / 0x1p30);
    g->caches = check_calloc((size_t)g->batch * sizeof *g->caches);
    g->unused = check_calloc((size_t)g->batch * sizeof(AttentionCache *));
    g->active = check_calloc((size_t)g->batch * sizeof(Sequence *));
    for (int i = 0; i < g->batch; i++) {
        g->caches[i] = attention_cache_create((AttentionKind)c->attn, c->layers, &shape);
        g->unused[i] = &g->caches[i];
    }
}

static Generator generator_open(const GenerateOptions *o, const char *name) {
    Generator g = {.options = o, .on_terminal = program_on_terminal(stdout) && !o->json};
    char folder[CHECKPOINT_PATH_SIZE];
    checkpoint_find(name, folder);
    const ModelConfig how = {.dtype = o->dtype == DTYPE_AUTO ? dtype_of(folder) : o->dtype,
                             .forward_only = true};
    g.rule = (SamplingRule){o->temperature, o->top_k, o->top_p, o->min_p, o->repeat_penalty};
    g.model = checkpoint_load_as(folder, 1, &how, &g.tokenizer);
    /* The activations have room for T tokens, so for one of each of T texts. */
    g.batch = o->batch < g.model.config.seq_len ? (int)o->batch : g.model.config.seq_len;
    if (strcmp(o->prompt_file, "-") == 0)
        g.lines = stdin;
    else if (o->lines)
        g.lines = check_fopen(o->prompt_file, "r", "--prompt-file is the name of a file");
    else
        only_prompt(&g);
    create_caches(&g);
    return g;
}

static void generator_close(Generator *g) {
    for (Sequence *s; (s = g->first);) g->first = s->next, sequence_free(s);
    for (int i = 0; i < g->batch; i++) attention_cache_free(&g->caches[i]);
    free(g->caches), free(g->unused), free(g->active), free(g->prompt.bytes);
    if (g->lines && g->lines != stdin) fclose(g->lines);
    tokenizer_free(g->tokenizer);
    model_free(&g->model);
}

int main(int argc, char **argv) {
    program_begin();
    threads_configure(argv);
    memory_keep_freed();
    static GenerateOptions options;
    const int count = sizeof generate_options / sizeof *generate_options;
    OptionSet set =
        options_begin("generate", "./generate [options] CHECKPOINT", generate_options, count, &options, NULL);
    if (options_parse(&set, argc, argv) != 1)
        options_fail(&set, "give one checkpoint: a folder step-NNNNNNNN, or the folder of a run");
    check_options(&set, &options);
    threads_set((int)options.threads);
    Generator g = generator_open(&options, argv[0]);
    write_texts(&g);
    generator_close(&g);
    return 0;
}
