/* explain.c: shows what happens inside a trained model while it reads a prompt, as one page of HTML:
   ./explain --prompt=TEXT [--out=explain.html] CHECKPOINT

   CHECKPOINT is a folder step-00000500 that ./train_gpt wrote, or the folder of a run, whose newest checkpoint is then
   used. The page needs no other file and no network. It has the tokens and the loss of each, the weights of every
   attention head, what each layer would predict, how much each layer adds to the residual stream, and the gradients of
   one training step on the prompt; for LASER also what exp and log change. explain_measure.h computes these numbers,
   with the functions of train_gpt.c, in float32; explain_page.h and explain_heads.h write the page. The same command
   writes the same bytes. */
#define TRAIN_GPT_NO_MAIN
#include "../train_gpt.c"
#include "load_model.h"
#include "explain_measure.h"
#include "explain_page.h"

typedef struct {
    const char *prompt, *prompt_file, *out;
    int64_t tokens_limit, threads;
} ExplainOptions;

#define ROW(name, type, field, value, min, max, word, help)                                                  \
    { "Options", name, type, offsetof(ExplainOptions, field), value, min, max, word, help, false }
static const Option explain_options[] = {
    ROW("prompt", OPTION_STRING, prompt, "", 0, 0, "TEXT", "the text that the model reads"),
    ROW("prompt-file", OPTION_STRING, prompt_file, "", 0, 0, "FILE",
        "a file that holds the prompt, without its last line break; -: standard input"),
    ROW("out", OPTION_STRING, out, "explain.html", 0, 0, "FILE",
        "the HTML file, which needs no other file; --out= writes none"),
    ROW("tokens-limit", OPTION_INT, tokens_limit, "64", 1, 256, "",
        "a longer prompt is an error: the page grows with the square of its tokens"),
    ROW("threads", OPTION_INT, threads, "0", 0, 4096, "", "OpenMP threads; 0: all cores"),
};
#undef ROW

/* ---- the prompt ---- */

/* The text of --prompt or --prompt-file; free() it. */
static char *read_prompt(const OptionSet *set, const ExplainOptions *o, size_t *size) {
    const bool text = options_given(set, "prompt"), file = options_given(set, "prompt-file");
    if (text == file)
        options_fail(set, text ? "--prompt and --prompt-file are both given: leave out one of them"
                               : "there is no prompt: give --prompt=TEXT or --prompt-file=FILE");
    if (text && !*o->prompt) options_fail(set, "--prompt is empty: expected the text that the model reads");
    if (file && !*o->prompt_file)
        options_fail(set, "--prompt-file is empty: expected the name of a file, or - for standard input");
    if (text) {
        *size = strlen(o->prompt);
        return memcpy(check_calloc(*size + 1), o->prompt, *size);
    }
    const char *path = strcmp(o->prompt_file, "-") == 0 ? "/dev/stdin" : o->prompt_file;
    char *prompt =
        check_file_read(path, FILE_STREAM, (size_t)1 << 20, size, "--prompt-file is the name of a file");
    if (*size && prompt[*size - 1] == '\n') prompt[--*size] = 0;
    if (*size == 0) die("'%s' has no text: write a prompt into it", path);
    return prompt;
}

/* The tokens of the prompt, of which there are *n; free() them. */
static int32_t *prompt_tokens(const Tokenizer *tokenizer, const char *prompt, size_t size, int T, int limit,
                              int *n) {
    uint16_t *ids = check_calloc(tokenizer_room(tokenizer, prompt, size) * sizeof *ids);
    const size_t count = tokenizer_encode(tokenizer, NULL, prompt, size, ids);
    if (count > (size_t)T)
        die("the prompt has %zu tokens, the model sees at most %d at once (its --seq-len); shorten the "
            "prompt",
            count, T);
    if (count > (size_t)limit)
        die("the prompt has %zu tokens, the page shows at most %d (--tokens-limit, up to 256); shorten the "
            "prompt, or raise the limit",
            count, limit);
    if (count == 0) die("the prompt has no tokens; give another text");
    int32_t *tokens = check_calloc(count * sizeof *tokens);
    for (size_t i = 0; i < count; i++) tokens[i] = ids[i];
    free(ids);
    *n = (int)count;
    return tokens;
}

/* ---- what is written ---- */

static void print_summary(const ExplainPage *page) {
    enum { SHOWN = 5 };
    const Explanation *e = page->e;
    const ModelConfig *c = &e->model->config;
    char name[CHECK_TEXT_SIZE], token[EXPLAIN_SHOWN], text[FORMAT_SIZE];
    printf("model   %s\n", check_shown(name, page->folder));
    printf("        %s attention, %s parameters, %d layers, %d heads of %d, T %d\n",
           attention_name((AttentionKind)c->attn), count_short(text, (double)e->model->parameters.floats),
           c->layers, c->heads, c->head_dim, c->seq_len);
    printf("prompt  %d token%s", e->n, e->n == 1 ? "" : "s");
    if (e->n > 1) printf(", mean loss %.4f, perplexity %.4g", e->mean_loss, exp(e->mean_loss));
    printf("\n");
    for (int i = 0; i < SHOWN; i++) {
        const Guess *guess = explanation_guess(e, c->layers, e->n - 1, i);
        if (guess->token < 0) break;
        printf("%s  %6s  %s\n", i ? "      " : "next  ", percent_text(text, guess->p),
               token_shown(token, page->tokenizer, guess->token));
    }
}

static void write_page(const char *path, const ExplainPage *page) {
    char *text = NULL, error[FILE_ERROR_SIZE], name[CHECK_TEXT_SIZE];
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f) die("no memory to write '%s'", path);
    explain_write_page(f, page);
    check_fclose(f, path);
    if (!file_write_output(path, text, size, error))
        die("%s; name a file in a folder that exists: --out=FILE", error);
    printf("page    %s, %.0f KiB\n", check_shown(name, path), ceil((double)size / 1024));
    free(text);
}

int main(int argc, char **argv) {
    program_begin();
    threads_configure(argv);
    static ExplainOptions options;
    const int count = sizeof explain_options / sizeof *explain_options;
    OptionSet set = options_begin("explain", "./explain --prompt=TEXT [options] CHECKPOINT", explain_options,
                                  count, &options, NULL);
    if (options_parse(&set, argc, argv) != 1)
        options_fail(&set, "give one checkpoint: a folder step-NNNNNNNN, or the folder of a run");
    size_t size;
    char *prompt = read_prompt(&set, &options, &size), folder[CHECKPOINT_PATH_SIZE];
    threads_set((int)options.threads);

    checkpoint_find(argv[0], folder);
    Tokenizer *tokenizer;
    Model model = checkpoint_load(folder, 1, DTYPE_FP32, &tokenizer);
    int n;
    int32_t *tokens =
        prompt_tokens(tokenizer, prompt, size, model.config.seq_len, (int)options.tokens_limit, &n);
    Explanation e = explanation_of(&model, tokens, n);
    const ExplainPage page = {&e, tokenizer, prompt, folder, sharpest_head(&e)};
    print_summary(&page);
    if (*options.out) write_page(options.out, &page);

    explanation_free(&e);
    tokenizer_free(tokenizer);
    model_free(&model);
    free(tokens), free(prompt);
    return 0;
}
