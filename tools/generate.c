/* generate.c: continues texts with a trained model: ./generate [options] CHECKPOINT

   CHECKPOINT is a folder step-00000500 that ./train_gpt wrote, or the folder of a run, whose newest checkpoint is then
   used.

   The prompt goes through the model in one pass. After that each token is one pass over one token: the keys and values of
   the tokens before it are in a cache (gpt/math/attention_cache.h). So a token takes about as long as reading all weights
   from memory once. Tokens are drawn as gpt/math/sampling.h describes. The text is printed as it is made, always up to a
   whole UTF-8 character, and without what could become the text of --stop.

   The model sees at most T tokens (the --seq-len of its training). When a text has more, the older half of them is
   forgotten and the newer half goes through the model again in one pass. */
#define TRAIN_GPT_NO_MAIN
#include "../train_gpt.c"
#include "load_model.h"

typedef struct {
    const char *prompt, *prompt_file, *stop;
    int64_t tokens, samples, top_k, seed, threads;
    double temperature, top_p, min_p, repeat_penalty;
    int dtype;
    bool json;
} GenerateOptions;

#define ROW(group, name, type, field, value, min, max, word, help)                                           \
    { group, name, type, offsetof(GenerateOptions, field), value, min, max, word, help, false }
static const Option generate_options[] = {
    ROW("Text", "prompt", OPTION_STRING, prompt, "", 0, 0, "TEXT",
        "how the text begins; none: the text begins as a document does"),
    ROW("Text", "prompt-file", OPTION_STRING, prompt_file, "", 0, 0, "FILE",
        "a file that holds the prompt, without its last line break; -: standard input, each of whose lines "
        "is a prompt"),
    ROW("Text", "tokens", OPTION_INT, tokens, "128", 1, 1e6, "",
        "how many tokens to add; fewer are added where the text ends"),
    ROW("Text", "stop", OPTION_STRING, stop, "", 0, 0, "TEXT",
        "end where the model has written this; it is not printed"),
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
    const GenerateOptions *options;
    SamplingRule rule;
    Model model;
    Tokenizer *tokenizer;
    AttentionCache cache;
    int32_t *context; /* (T) the tokens that the model sees, of which the cache has the first */
    int used;         /* of them */
    int texts;        /* written so far */
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

/* Whether the text contains --stop; then it ends before it. Only its last `fresh` bytes are new. */
static bool text_cut_at_stop(Text *text, const char *stop, size_t fresh) {
    const size_t length = strlen(stop), before = text->size - fresh;
    for (size_t at = before < length ? 0 : before - length + 1; length && at + length <= text->size; at++)
        if (memcmp(text->bytes + at, stop, length) == 0) {
            text->size = at;
            return true;
        }
    return false;
}

/* How many bytes of the text can be printed, whatever follows: neither a part of a character, nor of --stop. */
static size_t text_settled(const Text *text, const char *stop) {
    size_t size = text->size, length = strlen(stop);
    for (size_t n = length < size ? length : size; n > 0; n--)
        if (memcmp(text->bytes + text->size - n, stop, n) == 0) {
            size = text->size - n;
            break;
        }
    return check_whole_characters(text->bytes, size);
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
    if (text_cut_at_stop(text, g->options->stop, length)) {
        text->ended_by = "stop";
        return false;
    }
    text_print(g, text, text_settled(text, g->options->stop));
    return true;
}

/* ---- tokens ---- */

/* Draws the token that follows the context. Those tokens of the context that are not in the cache yet go through the model
   in one pass: all of a prompt, or the one that was drawn last. */
static int32_t next_token(Generator *g, uint64_t seed, uint64_t draw) {
    const int count = g->used - g->cache.count, V = g->model.config.vocab_size;
    model_forward(&g->model, g->context + g->cache.count, 1, count);
    const float *logits = model_logits(&g->model, count - 1);
    const size_t wrong = first_nonfinite(logits, (size_t)V);
    if (wrong < (size_t)V)
        die("the model gives token %zu the logit %g, which is no finite number; its training has diverged, "
            "use an earlier "
            "checkpoint",
            wrong, (double)logits[wrong]);
    return sample_token(logits, V, &g->rule, g->context, g->used, seed, draw);
}

static void context_add(Generator *g, int32_t token) {
    const int T = g->model.config.seq_len;
    if (g->used == T) {
        g->used = T / 2;
        memmove(g->context, g->context + T - g->used, (size_t)g->used * sizeof *g->context);
        g->cache.count = 0;
    }
    g->context[g->used++] = token;
}

static void write_tokens(Generator *g, Text *text, uint64_t seed) {
    const int end_of_text = tokenizer_end_of_text(g->tokenizer);
    text->ended_by = "tokens";
    for (int64_t i = 0; i < g->options->tokens && !check_lost; i++) {
        const int32_t token = next_token(g, seed, (uint64_t)i);
        if (token == end_of_text) {
            text->ended_by = "end of text";
            break;
        }
        if (!text_add(g, text, token)) break;
        context_add(g, token);
    }
    text_print(g, text, text->size);
}

/* ---- prompts ---- */

typedef struct {
    const char *bytes;
    size_t size;
    char where[FILE_PATH_SIZE]; /* for messages, as " in line 3 of standard input" */
} Prompt;

static void print_json(const Prompt *prompt, const Text *text, double seconds) {
    printf("{\"prompt\": ");
    json_print_text(stdout, prompt->bytes, prompt->size);
    printf(", \"text\": ");
    json_print_text(stdout, text->bytes, text->size);
    printf(", \"tokens\": %d, \"tokens_per_s\": %.6g, \"ended_by\": \"%s\"}\n", text->tokens,
           text->tokens / seconds, text->ended_by);
    check_flush();
}

/* The context becomes the prompt's tokens, or of an empty prompt the token after which every document begins. */
static void context_begin(Generator *g, const Prompt *prompt) {
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
    g->used = 0, g->cache.count = 0;
    if (count == 0) context_add(g, end_of_text);
    for (size_t i = 0; i < count; i++) context_add(g, ids[i]);
    free(ids);
    if (g->used + g->options->tokens - 1 <= T || g->told_window) return;
    fprintf(
        stderr,
        "note: the model sees at most %d tokens at once (its --seq-len); the prompt and --tokens=%lld are "
        "more, so each time it has %d, it goes on from the newest %d\n",
        T, (long long)g->options->tokens, T, T / 2);
    g->told_window = true;
}

static void continue_prompt(Generator *g, const Prompt *prompt) {
    for (int64_t i = 0; i < g->options->samples && !check_lost; i++) {
        Text text = {.size = 0};
        context_begin(g, prompt);
        if (!g->options->json && g->texts++) printf("\n"); /* a blank line between texts */
        print_bytes(g, prompt->bytes, prompt->size);
        check_flush();
        const double start = seconds_now();
        write_tokens(g, &text, (uint64_t)(g->options->seed + i));
        if (g->options->json) print_json(prompt, &text, seconds_now() - start);
        if (g->on_terminal) check_print_piece(stdout, g->waiting, "", 0);
        if (!g->options->json) printf("\n");
        free(text.bytes);
    }
}

static void continue_lines(Generator *g) {
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    int number = 0;
    while ((size = getline(&line, &room, stdin)) > 0 && !check_lost) {
        Prompt prompt = {line, (size_t)(line[size - 1] == '\n' ? size - 1 : size), ""};
        snprintf(prompt.where, sizeof prompt.where, " in line %d of standard input", ++number);
        if (prompt.size == 0) die("the prompt%s is empty; write a prompt in every line", prompt.where);
        continue_prompt(g, &prompt);
    }
    if (ferror(stdin)) die("cannot read standard input: %s", strerror(errno));
    if (number == 0) die("standard input is empty; write a prompt in every line");
    free(line);
}

static void continue_file(Generator *g, const char *path) {
    Prompt prompt = {.size = 0};
    char *bytes = check_file_read(path, FILE_STREAM, (size_t)1 << 26, &prompt.size,
                                  "--prompt-file is the name of a file");
    if (prompt.size && bytes[prompt.size - 1] == '\n') prompt.size--;
    snprintf(prompt.where, sizeof prompt.where, " in '%.4000s'", path);
    if (prompt.size == 0)
        die("the prompt%s is empty; without --prompt-file the text begins as a document does", prompt.where);
    prompt.bytes = bytes;
    continue_prompt(g, &prompt);
    free(bytes);
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
    if (options_given(set, "stop") && !*o->stop)
        options_fail(set, "--stop is empty: expected the text at which to end");
}

static Generator generator_open(const GenerateOptions *o, const char *name) {
    Generator g = {.options = o, .on_terminal = program_on_terminal(stdout) && !o->json};
    char folder[CHECKPOINT_PATH_SIZE];
    checkpoint_find(name, folder);
    const ModelConfig how = {.dtype = o->dtype == DTYPE_AUTO ? dtype_of(folder) : o->dtype,
                             .forward_only = true};
    g.rule = (SamplingRule){o->temperature, o->top_k, o->top_p, o->min_p, o->repeat_penalty};
    g.model = checkpoint_load_as(folder, 1, &how, &g.tokenizer);
    const ModelConfig *c = &g.model.config;
    const AttentionShape shape = attention_shape(c, 1, c->seq_len);
    g.cache = attention_cache_create((AttentionKind)c->attn, c->layers, &shape);
    g.context = check_calloc((size_t)c->seq_len * sizeof *g.context);
    return g;
}

static void generator_close(Generator *g) {
    attention_cache_free(&g->cache);
    tokenizer_free(g->tokenizer);
    model_free(&g->model);
    free(g->context);
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
    g.model.cache = &g.cache;
    if (strcmp(options.prompt_file, "-") == 0) {
        continue_lines(&g);
    } else if (*options.prompt_file) {
        continue_file(&g, options.prompt_file);
    } else {
        const Prompt prompt = {options.prompt, strlen(options.prompt), ""};
        continue_prompt(&g, &prompt);
    }
    generator_close(&g);
    return 0;
}
