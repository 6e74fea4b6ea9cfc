/* generate.c: continues a text with a trained model: ./generate [--prompt=TEXT] [--tokens=N] CHECKPOINT

   CHECKPOINT is a folder step-00000500 that ./train_gpt wrote, or the folder of a run, whose newest checkpoint is then
   used. */
#define TRAIN_GPT_NO_MAIN
#include "../train_gpt.c"
#include "load_model.h"

typedef struct {
    const char *prompt;
    int64_t tokens, samples, seed, threads;
    double temperature;
} GenerateOptions;

#define ROW(name, type, field, value, min, max, word, help)                                                  \
    { "Options", name, type, offsetof(GenerateOptions, field), value, min, max, word, help, false }
static const Option generate_options[] = {
    ROW("prompt", OPTION_STRING, prompt, "", 0, 0, "TEXT",
        "how the text begins; none: the text begins as a document does"),
    ROW("tokens", OPTION_INT, tokens, "128", 1, 1e6, "", "how many tokens to add"),
    ROW("samples", OPTION_INT, samples, "1", 1, 1e6, "", "how many texts to write, each with its own seed"),
    ROW("temperature", OPTION_FLOAT, temperature, "0.8", 0, 100, "",
        "0: always the likeliest token; higher values give more varied text"),
    ROW("seed", OPTION_INT, seed, "1", 0, 1e14, "", "the same seed gives the same text"),
    ROW("threads", OPTION_INT, threads, "0", 0, 4096, "", "OpenMP threads; 0: all cores"),
};
#undef ROW

int main(int argc, char **argv) {
    program_begin();
    threads_configure(argv);
    static GenerateOptions options;
    const int count = sizeof generate_options / sizeof *generate_options;
    OptionSet set =
        options_begin("generate", "./generate [options] CHECKPOINT", generate_options, count, &options, NULL);
    if (options_parse(&set, argc, argv) != 1)
        options_fail(&set, "give one checkpoint: a folder step-NNNNNNNN, or the folder of a run");
    threads_set((int)options.threads);
    char folder[CHECKPOINT_PATH_SIZE];
    checkpoint_find(argv[0], folder);
    Tokenizer *tokenizer;
    Model model = checkpoint_load(folder, 1, DTYPE_FP32, &tokenizer);
    for (int64_t i = 0; i < options.samples; i++)
        model_print_sample(&model, tokenizer, options.prompt, (int)options.tokens, options.temperature,
                           (uint64_t)(options.seed + i));
    tokenizer_free(tokenizer);
    model_free(&model);
    return 0;
}
