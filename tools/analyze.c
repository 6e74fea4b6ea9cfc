/* analyze.c: measures the attention of a trained model on validation windows: ./analyze [--data=DIR] CHECKPOINT

   CHECKPOINT is a folder step-00000500 that ./train_gpt wrote, or the folder of a run, whose newest checkpoint is then
   used. One forward and one backward pass over each window give the attention weights, the Jacobians of standard
   attention and of LASER, and the gradients of Wq, Wk, Wv and Wo. docs/analysis.md says what each number means;
   gpt/math/attention_measure.h has the formulas. --json=FILE writes all numbers, those of each head included. */
#define TRAIN_GPT_NO_MAIN
#include "../train_gpt.c"
#include "load_model.h"
#include "validation_data.h"

typedef struct {
    const char *data, *json;
    int64_t sequences, threads;
    bool heads;
} AnalyzeOptions;

#define ROW(name, type, field, value, min, max, word, help)                                                  \
    { "Options", name, type, offsetof(AnalyzeOptions, field), value, min, max, word, help, false }
static const Option analyze_options[] = {
    ROW("data", OPTION_STRING, data, "", 0, 0, "DIR",
        "the folder of tokens; none: the one that the model was trained on"),
    ROW("sequences", OPTION_INT, sequences, "8", 1, 1e6, "",
        "how many validation windows to use, from the first on"),
    ROW("heads", OPTION_SWITCH, heads, "no", 0, 0, "", "print a row for each head too"),
    ROW("json", OPTION_STRING, json, "", 0, 0, "FILE", "write all numbers to this file; empty: none"),
    ROW("threads", OPTION_INT, threads, "0", 0, 4096, "", "OpenMP threads; 0: all cores"),
};
#undef ROW
_Static_assert((int)ANALYSIS_WINDOWS == 8, "the default of --sequences is that of --analyze-every");

/* ---- the data ---- */

/* The --data with which the model of a checkpoint was trained; free() it. Dies when the checkpoint does not tell it. */
static char *data_of_training(const char *folder) {
    char *path = file_path(folder, "trainer_state.json"), error[FILE_ERROR_SIZE];
    size_t size = 0;
    char *text = file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, &size, error);
    cJSON *json = text ? json_parse(text, size) : NULL;
    const char *data = json_text(cJSON_GetObjectItemCaseSensitive(json, "options"), "data");
    if (!data || !*data)
        die("'%s' does not tell which data the model was trained on; name a folder with val_*.bin: "
            "--data=DIR",
            path);
    char *copy = memcpy(check_calloc(strlen(data) + 1), data, strlen(data));
    cJSON_Delete(json);
    free(text), free(path);
    return copy;
}

/* ---- the terminal ---- */

static void print_heading(const Analysis *a, const Model *model, const char *folder, const char *data) {
    const ModelConfig *c = &model->config;
    char name[CHECK_TEXT_SIZE], parameters[FORMAT_SIZE];
    printf("model   %s\n", check_shown(name, folder));
    printf("        %s attention, %s parameters, %d layers, %d heads of %d, T %d\n", attention_name(a->kind),
           count_short(parameters, (double)model->parameters.floats), c->layers, c->heads, c->head_dim,
           c->seq_len);
    printf("data    %s: %d validation window%s of %d tokens, mean loss %.4f\n", check_shown(name, data),
           a->windows, a->windows == 1 ? "" : "s", a->seq_len, a->mean_loss);
}

/* A row for each decade of a_ij: a bar for its share of all, and the size of both Jacobians there. */
static void print_histogram(const AnalysisSums *sums) {
    enum { BAR = 34 };
    const AttentionSums *s = &sums->attention;
    char size[2][FORMAT_SIZE];
    double most = 0;
    for (int n = 0; n < ATTENTION_BINS; n++) most = fmax(most, s->bins[n]);
    printf("\nAttention weights a_ij of the visible keys (j <= i), all layers and heads\n\n");
    printf("%-15s %-*s %8s %8s %8s\n", "  a_ij", BAR, "share", "", "J std.", "J laser");
    for (int n = 0; n < ATTENTION_BINS; n++) {
        char range[40];
        snprintf(range, sizeof range, n == 0 ? "1e-1 to 1" : "1e-%d to 1e-%d", n + 1, n);
        if (n == ATTENTION_DECADES) snprintf(range, sizeof range, "below 1e-%d", n);
        for (int j = 0; j < JACOBIANS; j++)
            analysis_text(size[j], &analysis_numbers[ANALYSIS_SCORE_GRADIENT], analysis_bin(sums, j, n));
        const int bar = s->bins[n] > 0 ? (int)ceil(BAR * s->bins[n] / most) : 0;
        printf("%15s %.*s%*s %7.2f%% %8s %8s\n", range, bar, "########################################",
               BAR - bar, "", 100 * s->bins[n] / s->pairs, size[0], size[1]);
    }
}

/* The shares that the paper reports, beside those of this model. */
static void print_paper(const AnalysisSums *sums) {
    static const struct {
        const char *range;
        AnalysisKey a, p;
        double paper;
    } rows[] = {{"below 1e-3", ANALYSIS_BELOW_1E3, ANALYSIS_P_BELOW_1E3, ANALYSIS_PAPER_BELOW_1E3},
                {"below 1e-7", ANALYSIS_BELOW_1E7, ANALYSIS_P_BELOW_1E7, ANALYSIS_PAPER_BELOW_1E7}};
    char a[FORMAT_SIZE], p[FORMAT_SIZE];
    printf("\n%15s  %10s  %31s  %14s\n", "share", "a_ij here", "     a_ij of the paper's model",
           "p_ijd here");
    for (int i = 0; i < 2; i++)
        printf("%15s  %10s  %27s %.0f%%  %14s\n", rows[i].range,
               analysis_text(a, &analysis_numbers[rows[i].a], analysis_numbers[rows[i].a].value(sums)),
               "about", 100 * rows[i].paper,
               analysis_text(p, &analysis_numbers[rows[i].p], analysis_numbers[rows[i].p].value(sums)));
}

static void print_row(const char *name, const AnalysisSums *sums, const AnalysisKey *keys, int count) {
    char text[FORMAT_SIZE];
    printf("%-7s", name);
    for (int i = 0; i < count; i++)
        printf(" %8s",
               analysis_text(text, &analysis_numbers[keys[i]], analysis_numbers[keys[i]].value(sums)));
    printf("\n");
}

/* A table: a column for each of the keys; a row for each layer, with `heads` for each head as 0.0, and for all. */
static void print_table(const Analysis *a, const AnalysisKey *keys, int count, bool heads) {
    char name[32];
    printf("\n%-7s", heads ? "head" : "layer");
    for (int i = 0; i < count; i++) printf(" %8s", analysis_numbers[keys[i]].heading);
    printf("\n");
    for (int l = 0; l < a->layers; l++) {
        for (int h = 0; h < a->heads && heads; h++) {
            const AnalysisSums head = analysis_of_head(a, l, h);
            snprintf(name, sizeof name, " %d.%d", l, h);
            print_row(name, &head, keys, count);
        }
        const AnalysisSums layer = analysis_of_layer(a, l);
        snprintf(name, sizeof name, "%d", l);
        print_row(name, &layer, keys, count);
    }
    const AnalysisSums all = analysis_of_all(a);
    print_row("all", &all, keys, count);
}

/* How near exp(v) comes to the ends of float32. */
static void print_v_range(const AnalysisSums *sums) {
    const double range = sums->attention.v_range;
    printf("\nThe values of a column of V span up to %.1f. exp(v - largest) in float32 has all\n"
           "its digits for spans up to %.1f, and is 0 beyond 104%s.\n",
           range, ANALYSIS_EXP_RANGE, range > ANALYSIS_EXP_RANGE ? ": here digits are lost" : "");
}

/* ---- the file ---- */

static void write_json(const char *path, const Analysis *a, const Model *model, const char *folder,
                       const char *data) {
    cJSON *json = cJSON_CreateObject(), *paper = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "checkpoint", folder);
    cJSON_AddStringToObject(json, "data", data);
    json_add_number(json, "parameters", (double)model->parameters.floats);
    cJSON_AddItemToObject(json, "model", config_to_json(model_fields, MODEL_FIELDS, &model->config));
    cJSON_AddItemToObject(json, "analysis", analysis_to_json(a, true));
    json_add_number(paper, analysis_numbers[ANALYSIS_BELOW_1E3].key, ANALYSIS_PAPER_BELOW_1E3);
    json_add_number(paper, analysis_numbers[ANALYSIS_BELOW_1E7].key, ANALYSIS_PAPER_BELOW_1E7);
    cJSON_AddItemToObject(json, "paper", paper);
    json_option_write(path, json);
}

int main(int argc, char **argv) {
    program_begin();
    threads_configure(argv);
    static AnalyzeOptions options;
    const int count = sizeof analyze_options / sizeof *analyze_options;
    OptionSet set =
        options_begin("analyze", "./analyze [options] CHECKPOINT", analyze_options, count, &options, NULL);
    if (options_parse(&set, argc, argv) != 1)
        options_fail(&set, "give one checkpoint: a folder step-NNNNNNNN, or the folder of a run");
    threads_set((int)options.threads);

    char folder[CHECKPOINT_PATH_SIZE];
    checkpoint_find(argv[0], folder);
    char *trained_on = *options.data ? NULL : data_of_training(folder);
    const char *data = trained_on ? trained_on : options.data;
    Model model = checkpoint_load(folder, 1, DTYPE_FP32, NULL);
    if (!attention_is_measured((AttentionKind)model.config.attn))
        die("'%s' has %s attention, and only standard and laser attention can be analyzed", folder,
            attention_name((AttentionKind)model.config.attn));
    Dataset val = open_validation(data, folder, &model.config);
    int32_t *inputs = check_calloc((size_t)val.seq_len * sizeof *inputs);
    int32_t *targets = check_calloc((size_t)val.seq_len * sizeof *targets);

    Analysis analysis = model_analyze(&model, &val, (int)options.sequences, inputs, targets);
    if (!isfinite(analysis.mean_loss))
        die("the loss of '%s' on these windows is %g: the model has diverged, and nothing can be measured; "
            "name an earlier checkpoint",
            folder, analysis.mean_loss);

    static const AnalysisKey of_weights[] = {
        ANALYSIS_ENTROPY,   ANALYSIS_ENTROPY_SHARE,     ANALYSIS_LARGEST_SCORE,  ANALYSIS_BELOW_1E3,
        ANALYSIS_BELOW_1E7, ANALYSIS_JACOBIAN_STANDARD, ANALYSIS_JACOBIAN_LASER, ANALYSIS_JACOBIAN_RATIO};
    static const AnalysisKey of_gradients[] = {
        ANALYSIS_SCORE_GRADIENT, ANALYSIS_GRADIENT_Q,  ANALYSIS_GRADIENT_K, ANALYSIS_GRADIENT_V,
        ANALYSIS_GRADIENT_O,     ANALYSIS_V_DEVIATION, ANALYSIS_V_MIN,      ANALYSIS_V_MAX};
    const AnalysisSums all = analysis_of_all(&analysis);
    print_heading(&analysis, &model, folder, data);
    print_histogram(&all);
    print_paper(&all);
    print_table(&analysis, of_weights, 8, options.heads);
    print_table(&analysis, of_gradients, 8, options.heads);
    print_v_range(&all);
    if (*options.json) write_json(options.json, &analysis, &model, folder, data);

    analysis_free(&analysis);
    dataset_close(&val);
    model_free(&model);
    free(inputs), free(targets), free(trained_on);
    return 0;
}
