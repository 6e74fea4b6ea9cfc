/* evaluate.c: measures trained models on a text or on the questions of a published test set:

     ./evaluate --text=FILE CHECKPOINT...         loss, perplexity and bits per byte of a text (evaluate_windows.h)
     ./evaluate --data=DIR CHECKPOINT...          the same of the validation shards in a folder of tokens
     ./evaluate --task=FILE.jsonl CHECKPOINT...   how often the model finds the right choice the likeliest
                                                  (evaluate_tasks.h, evaluate_score.h)

   CHECKPOINT is a folder step-00000500 that ./train_gpt wrote, or the folder of a run, whose newest checkpoint is then
   used. Several are shown below each other, each but the first with its paired difference to the first.

   Of a task with n items, acc is the share p of those where the right choice has the largest log-probability; acc_norm
   is the same after each log-probability was divided by the number of bytes of its choice. Their standard error is
   sqrt(p (1 - p) / (n - 1)). docs/using.md has examples. */
#define TRAIN_GPT_NO_MAIN
#include "../train_gpt.c"
#include "load_model.h"
#include "validation_data.h"
#include "evaluate_score.h"
#include "evaluate_tasks.h"
#include "evaluate_windows.h"
#include "statistics.h"

typedef struct {
    const char *text, *data, *task, *labels, *shots_file, *json;
    int64_t stride, shots, limit, batch, threads;
    int kind;
} EvaluateOptions;

#define ROW(name, type, field, value, min, max, word, help)                                                  \
    { "Options", name, type, offsetof(EvaluateOptions, field), value, min, max, word, help, false }
static const Option evaluate_options[] = {
    ROW("text", OPTION_STRING, text, "", 0, 0, "FILE", "measure the loss on this UTF-8 text"),
    ROW("data", OPTION_STRING, data, "", 0, 0, "DIR",
        "measure the loss on the shards val_*.bin in this folder"),
    ROW("stride", OPTION_INT, stride, "0", 0, 1e9, "",
        "tokens from the beginning of one window to that of the next; 0: T, windows do not overlap"),
    ROW("task", OPTION_STRING, task, "", 0, 0, "FILE",
        "answer the questions of this test set, a file of JSON lines"),
    ROW("kind", OPTION_CHOICE, kind, "auto", 0, 0, OPTION_CHOICES(TASK_CHOICES),
        "which test set it is; auto: the keys of its first line tell"),
    ROW("labels", OPTION_STRING, labels, "", 0, 0, "FILE",
        "the number of the right choice in each line, where the lines of --task lack it; empty: "
        "NAME-labels.lst beside NAME.jsonl"),
    ROW("shots", OPTION_INT, shots, "0", 0, 1000, "",
        "put this many examples with answers before each question"),
    ROW("shots-file", OPTION_STRING, shots_file, "", 0, 0, "FILE",
        "their file, of the same kind; the first ones of it are taken"),
    ROW("limit", OPTION_INT, limit, "0", 0, 1e9, "", "use only the first N items or windows; 0: all"),
    ROW("batch", OPTION_INT, batch, "4", 1, 4096, "", "sequences that are computed at the same time"),
    ROW("json", OPTION_STRING, json, "", 0, 0, "FILE",
        "write the numbers of each item or window to this file; empty: none"),
    ROW("threads", OPTION_INT, threads, "0", 0, 4096, "", "OpenMP threads; 0: all cores"),
};
#undef ROW

/* What one checkpoint gave. */
typedef struct {
    char folder[CHECKPOINT_PATH_SIZE], number[24]; /* "2": its place among the arguments */
    int T;
    /* with --task */
    Score *scores;          /* (items, TASK_MOST_CHOICES) */
    double *acc, *acc_norm; /* (items) 1: the right choice was found */
    double *loss;           /* (items) -log p of the right choice */
    int cut;                /* items whose context was cut */
    /* with --text and --data */
    WindowResult windows;
} Evaluation;

/* ---- measuring ---- */

/* A model that has diverged has no likeliest choice. */
static void check_finite(double x, const char *folder) {
    if (!isfinite(x))
        die("the loss of '%s' is %g here: the model has diverged, and nothing can be measured; name an "
            "earlier "
            "checkpoint",
            folder, x);
}

static void judge(const Task *task, Evaluation *e) {
    for (int i = 0; i < task->count; i++) {
        const TaskItem *item = &task->items[i];
        const Score *scores = e->scores + (int64_t)i * TASK_MOST_CHOICES;
        e->loss[i] = -scores[item->label].log_probability;
        e->acc[i] = item->count > 1 ? score_best(item, scores, false) == item->label : scores[0].greedy;
        e->acc_norm[i] = score_best(item, scores, true) == item->label;
    }
}

/* Scores all choices of all items, `batch` of them at a time in the order of the file. */
static void score_task(Model *model, const Tokenizer *tokenizer, const Task *task, const char *shots,
                       Evaluation *e) {
    const int B = model->batch;
    ScoreSequence *sequences = check_calloc((size_t)B * sizeof *sequences);
    Score *scores = check_calloc((size_t)B * sizeof *scores);
    int64_t *place = check_calloc((size_t)B * sizeof *place); /* in e->scores */
    TokenizerCache *cache = tokenizer_cache_new();
    Progress progress = progress_begin(e->number, "items", task->count);
    int waiting = 0;
    for (int i = 0; i < task->count; i++) {
        const TaskItem *item = &task->items[i];
        char *where = task_text("'%s', line %d", task->path, item->line);
        bool cut = false;
        for (int c = 0; c < item->count; c++) {
            char *context = task_text("%s%s", shots, item->context[c]);
            sequences[waiting] =
                score_encode(tokenizer, cache, context, item->continuation[c], model->config.seq_len, where);
            cut = cut || sequences[waiting].cut;
            place[waiting++] = (int64_t)i * TASK_MOST_CHOICES + c;
            free(context);
            if (waiting < B && !(i + 1 == task->count && c + 1 == item->count)) continue;
            score_batch(model, sequences, waiting, scores);
            for (int b = 0; b < waiting; b++) {
                check_finite(scores[b].log_probability, e->folder);
                e->scores[place[b]] = scores[b];
                free(sequences[b].tokens);
            }
            waiting = 0;
            progress_show(&progress, i + 1);
        }
        e->cut += cut;
        free(where);
    }
    free(sequences), free(scores), free(place), free(cache);
}

static void evaluate_task(Model *model, const Tokenizer *tokenizer, const Task *task, const char *shots,
                          Evaluation *e) {
    const size_t n = (size_t)task->count;
    e->scores = check_calloc(n * TASK_MOST_CHOICES * sizeof *e->scores);
    e->acc = check_calloc(n * sizeof *e->acc);
    e->acc_norm = check_calloc(n * sizeof *e->acc_norm);
    e->loss = check_calloc(n * sizeof *e->loss);
    score_task(model, tokenizer, task, shots, e);
    judge(task, e);
}

static void evaluate_windows(Model *model, const Tokenizer *tokenizer, const OptionSet *set,
                             const EvaluateOptions *o, Evaluation *e) {
    const int T = model->config.seq_len;
    Dataset val;
    if (o->stride > T)
        options_fail(set, "--stride=%lld is larger than the %d tokens that '%s' reads; expected 1 to %d",
                     (long long)o->stride, T, e->folder, T);
    if (*o->data) val = open_validation(o->data, e->folder, &model->config);
    WindowSource source = *o->data ? windows_of_data(&val) : windows_of_text(o->text, tokenizer);
    e->windows =
        windows_measure(model, tokenizer, &source, o->stride ? (int)o->stride : T, o->limit, e->number);
    check_finite(e->windows.loss, e->folder);
    windows_free(&source);
    if (*o->data) dataset_close(&val);
}

/* Loads one checkpoint, measures it, and frees it again. Shards can be measured without a tokenizer. */
static void evaluate(const char *name, const OptionSet *set, const EvaluateOptions *o, const Task *task,
                     const char *shots, Evaluation *e) {
    Tokenizer *tokenizer = NULL;
    checkpoint_find(name, e->folder);
    char *path = file_path(e->folder, "tokenizer.json");
    const bool has_tokenizer = access(path, F_OK) == 0;
    if (!has_tokenizer && !*o->data)
        die("there is no '%s', without which no text can be turned into tokens; copy the tokenizer.json of "
            "the "
            "data that the model was trained on there",
            path);
    const ModelConfig how = {.dtype = DTYPE_FP32, .forward_only = true};
    Model model = checkpoint_load_as(e->folder, (int)o->batch, &how, has_tokenizer ? &tokenizer : NULL);
    e->T = model.config.seq_len;
    if (*o->task)
        evaluate_task(&model, tokenizer, task, shots, e);
    else
        evaluate_windows(&model, tokenizer, set, o, e);
    if (tokenizer) tokenizer_free(tokenizer);
    model_free(&model);
    free(path);
}

static void evaluation_free(Evaluation *e) {
    free(e->scores), free(e->acc), free(e->acc_norm), free(e->loss), free(e->windows.windows);
}

/* ---- numbers ---- */

/* The differences of pairs, x - first. */
static StatSample paired(const double *x, const double *first, int n) {
    double *difference = check_calloc((size_t)n * sizeof *difference);
    for (int i = 0; i < n; i++) difference[i] = x[i] - first[i];
    const StatSample sample = stat_sample(difference, n);
    free(difference);
    return sample;
}

/* The differences of the loss a token, window by window. A window counts by its tokens: the mean of the values is the
   difference of the losses a token of all. False when the windows of both are not of the same text, because the models
   have other tokenizers or another T. */
static bool paired_windows(const WindowResult *x, const WindowResult *first, StatSample *sample) {
    if (x->count != first->count) return false;
    double *losses[2] = {check_calloc((size_t)x->count * sizeof **losses),
                         check_calloc((size_t)x->count * sizeof **losses)};
    bool same = true;
    for (int64_t w = 0; w < x->count; w++) {
        const Window *a = &x->windows[w], *b = &first->windows[w];
        same = same && a->tokens == b->tokens && a->bytes == b->bytes;
        losses[0][w] = a->loss * (double)x->count / x->tokens;
        losses[1][w] = b->loss * (double)x->count / x->tokens;
    }
    *sample = paired(losses[0], losses[1], (int)x->count);
    free(losses[0]), free(losses[1]);
    return same;
}

/* ---- the terminal ---- */

/* "0.2917 +- 0.0948" */
static const char *share_text(char text[FORMAT_SIZE], const double *right, int n) {
    const double p = stat_mean(right, n), error = score_error(p, n);
    snprintf(text, FORMAT_SIZE, isfinite(error) ? "%.4f +- %.4f" : "%.4f", p, error);
    return text;
}

/* "+0.0417 (-0.0445 to 0.1279)" */
static const char *difference_text(char text[FORMAT_SIZE], StatSample s) {
    snprintf(text, FORMAT_SIZE, isfinite(s.low) ? "%+.4f (%.4f to %.4f)" : "%+.4f", s.mean, s.low, s.high);
    return text;
}

/* The same of the logarithms of two perplexities: their ratio. */
static const char *ratio_text(char text[FORMAT_SIZE], StatSample s) {
    snprintf(text, FORMAT_SIZE, isfinite(s.low) ? "x %.4f (%.4f to %.4f)" : "x %.4f", exp(s.mean), exp(s.low),
             exp(s.high));
    return text;
}

static void print_models(const Evaluation *e, int count) {
    char shown[CHECK_TEXT_SIZE];
    for (int k = 0; k < count; k++) printf("model %s %s\n", e[k].number, check_shown(shown, e[k].folder));
}

static const char in_brackets[] =
    "In brackets: the 95 %% interval of the difference, from pairs of the same %s.\n";

static void print_task(const Task *task, const EvaluateOptions *o, const Evaluation *e, int count) {
    const TaskRow *row = task_row(task->kind);
    const int n = task->count;
    char shown[CHECK_TEXT_SIZE], acc[FORMAT_SIZE], second[FORMAT_SIZE], cut[FORMAT_SIZE];
    const bool perplexity = task->kind == TASK_LAMBADA;
    printf("task    %s%s, %lld shot%s, %d item%s of %s\n", row->name,
           o->kind == TASK_AUTO ? " (by its keys)" : "", (long long)o->shots, o->shots == 1 ? "" : "s", n,
           n == 1 ? "" : "s", check_shown(shown, task->path));
    print_models(e, count);
    printf("\n%-7s %-29s %-29s %9s\n", "model", "acc",
           row->has_norm ? "acc_norm"
           : perplexity  ? "perplexity"
                         : "",
           "items cut");
    for (int k = 0; k < count; k++) {
        *second = 0;
        if (row->has_norm) share_text(second, e[k].acc_norm, n);
        if (perplexity) snprintf(second, sizeof second, "%.4g", exp(stat_mean(e[k].loss, n)));
        snprintf(cut, sizeof cut, "%d", e[k].cut);
        printf("%-7s  %-28s  %-28s %9s\n", e[k].number, share_text(acc, e[k].acc, n), second, cut);
    }
    for (int k = 1; k < count; k++) {
        char name[sizeof e->number + 8];
        *second = 0;
        if (row->has_norm) difference_text(second, paired(e[k].acc_norm, e->acc_norm, n));
        if (perplexity) ratio_text(second, paired(e[k].loss, e->loss, n));
        snprintf(name, sizeof name, "%s - 1", e[k].number);
        difference_text(acc, paired(e[k].acc, e->acc, n));
        printf(*second ? "%-7s %-29s %s\n" : "%-7s %s\n", name, acc, second);
    }
    printf("\n+- is the standard error.\n");
    if (count > 1 && perplexity) printf("x: the ratio of the perplexities.\n");
    if (count > 1) printf(in_brackets, "item");
    for (int k = 0; k < count; k++)
        if (e[k].cut)
            printf("Model %s reads at most %d tokens: the prompts of %d item%s were cut on the left.\n",
                   e[k].number, e[k].T, e[k].cut, e[k].cut == 1 ? "" : "s");
}

static double loss_of(const WindowResult *r) { return r->loss / r->tokens; }
static double bits_of(const WindowResult *r) { return r->bytes > 0 ? r->loss / log(2) / r->bytes : NAN; }

static void print_windows(const EvaluateOptions *o, const Evaluation *e, int count) {
    char shown[CHECK_TEXT_SIZE], text[FORMAT_SIZE];
    bool all_paired = true;
    if (*o->text)
        printf("text    %s\n", check_shown(shown, o->text));
    else
        printf("data    %s, its validation shards\n", check_shown(shown, o->data));
    print_models(e, count);
    printf("\n%-7s %6s %8s %10s %10s %8s %10s %9s\n", "model", "T", "windows", "tokens", "bytes", "loss",
           "perplexity", "bits/byte");
    for (int k = 0; k < count; k++) {
        const WindowResult *r = &e[k].windows;
        snprintf(text, sizeof text, isfinite(bits_of(r)) ? "%.4f" : "-", bits_of(r));
        printf("%-7s %6d %8lld %10.0f %10.0f %8.4f %10.4g %9s\n", e[k].number, e[k].T, (long long)r->count,
               r->tokens, r->bytes, loss_of(r), exp(loss_of(r)), text);
    }
    for (int k = 1; k < count; k++) {
        StatSample s;
        if (paired_windows(&e[k].windows, &e->windows, &s))
            printf("%s - 1   loss %s\n", e[k].number, difference_text(text, s));
        else
            all_paired = false;
    }
    printf("\nThe loss is in nats a token.\n");
    if (count > 1 && all_paired) printf(in_brackets, "window");
    if (!all_paired)
        printf("Models with another tokenizer or T than model 1 have no difference to it; compare their bits "
               "per "
               "byte.\n");
}

/* ---- the file ---- */

static void add_share(cJSON *json, const char *name, const double *right, int n) {
    char *error = task_text("%s_stderr", name);
    json_add_number(json, name, stat_mean(right, n));
    json_add_number(json, error, score_error(stat_mean(right, n), n));
    free(error);
}

static cJSON *item_to_json(const TaskItem *item, const Score *scores) {
    cJSON *json = cJSON_CreateObject();
    cJSON *sums = cJSON_AddArrayToObject(json, "log_probabilities");
    cJSON *bytes = cJSON_AddArrayToObject(json, "bytes");
    cJSON *greedy = cJSON_AddArrayToObject(json, "greedy");
    char text[32];
    cJSON_AddNumberToObject(json, "line", item->line);
    cJSON_AddNumberToObject(json, "label", item->label);
    for (int c = 0; c < item->count; c++) {
        json_number_text(text, sizeof text, scores[c].log_probability, 17);
        cJSON_AddItemToArray(sums, cJSON_CreateRaw(text));
        cJSON_AddItemToArray(bytes, cJSON_CreateNumber((double)item->bytes[c]));
        cJSON_AddItemToArray(greedy, cJSON_CreateBool(scores[c].greedy));
    }
    return json;
}

static void add_items(cJSON *json, const Task *task, const Evaluation *e) {
    add_share(json, "acc", e->acc, task->count);
    if (task_row(task->kind)->has_norm) add_share(json, "acc_norm", e->acc_norm, task->count);
    if (task->kind == TASK_LAMBADA) json_add_number(json, "perplexity", exp(stat_mean(e->loss, task->count)));
    cJSON_AddNumberToObject(json, "cut", e->cut);
    cJSON *items = cJSON_AddArrayToObject(json, "items");
    for (int i = 0; i < task->count; i++) {
        cJSON *item = item_to_json(&task->items[i], e->scores + (int64_t)i * TASK_MOST_CHOICES);
        cJSON_AddBoolToObject(item, "acc", e->acc[i] != 0);
        if (task_row(task->kind)->has_norm) cJSON_AddBoolToObject(item, "acc_norm", e->acc_norm[i] != 0);
        cJSON_AddItemToArray(items, item);
    }
}

static void add_windows(cJSON *json, const WindowResult *r) {
    json_add_number(json, "loss", loss_of(r));
    json_add_number(json, "perplexity", exp(loss_of(r)));
    json_add_number(json, "bits_per_byte", bits_of(r));
    json_add_number(json, "tokens", r->tokens);
    json_add_number(json, "bytes", r->bytes);
    cJSON *windows = cJSON_AddArrayToObject(json, "windows");
    for (int64_t w = 0; w < r->count; w++) {
        cJSON *window = cJSON_CreateObject();
        json_add_number(window, "loss_sum", r->windows[w].loss);
        json_add_number(window, "tokens", r->windows[w].tokens);
        json_add_number(window, "bytes", r->windows[w].bytes);
        cJSON_AddItemToArray(windows, window);
    }
}

static void write_json(const OptionSet *set, const EvaluateOptions *o, const Task *task, const Evaluation *e,
                       int count) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddItemToObject(json, "options", options_to_json(set));
    if (*o->task) cJSON_AddStringToObject(json, "task", task_row(task->kind)->name);
    cJSON *models = cJSON_AddArrayToObject(json, "models");
    for (int k = 0; k < count; k++) {
        cJSON *model = cJSON_CreateObject();
        cJSON_AddStringToObject(model, "checkpoint", e[k].folder);
        cJSON_AddNumberToObject(model, "seq_len", e[k].T);
        if (*o->task)
            add_items(model, task, &e[k]);
        else
            add_windows(model, &e[k].windows);
        cJSON_AddItemToArray(models, model);
    }
    json_option_write(o->json, json);
}

/* ---- options ---- */

static void check_options(const OptionSet *set, const EvaluateOptions *o, int checkpoints) {
    const int what = (*o->text != 0) + (*o->data != 0) + (*o->task != 0);
    if (what != 1) options_fail(set, "give one of --text=FILE, --data=DIR and --task=FILE");
    if (checkpoints < 1)
        options_fail(set, "give one checkpoint or several: a folder step-NNNNNNNN, or the folder of a run");
    static const char *const of_tasks[] = {"kind", "labels", "shots", "shots-file"};
    for (size_t i = 0; i < sizeof of_tasks / sizeof *of_tasks && !*o->task; i++)
        if (options_given(set, of_tasks[i])) options_fail(set, "--%s is for --task=FILE", of_tasks[i]);
    if (*o->task && options_given(set, "stride"))
        options_fail(set, "--stride is for --text=FILE and --data=DIR");
    if ((o->shots > 0) != (*o->shots_file != 0))
        options_fail(set, "--shots=N and --shots-file=FILE need each other");
    if (o->shots > 0 && strcmp(o->shots_file, o->task) == 0)
        options_fail(set,
                     "--shots-file is the file of --task: the examples would be among the questions; name "
                     "the training set");
}

int main(int argc, char **argv) {
    program_begin();
    threads_configure(argv);
    static EvaluateOptions options;
    const EvaluateOptions *o = &options;
    const int rows = sizeof evaluate_options / sizeof *evaluate_options;
    OptionSet set =
        options_begin("evaluate", "./evaluate --text=FILE|--data=DIR|--task=FILE [options] CHECKPOINT...",
                      evaluate_options, rows, &options, NULL);
    const int count = options_parse(&set, argc, argv);
    check_options(&set, o, count);
    threads_set((int)o->threads);

    Task task = {0};
    char *shots = NULL;
    if (*o->task) {
        task = task_read(o->task, o->labels, (TaskKind)o->kind, (int)o->limit);
        Task examples = {0};
        if (o->shots > 0) examples = task_read(o->shots_file, "", task.kind, (int)o->shots);
        shots = task_shots(&examples, (int)o->shots);
        task_free(&examples);
    }
    Evaluation *evaluations = check_calloc((size_t)count * sizeof *evaluations);
    for (int k = 0; k < count; k++) {
        snprintf(evaluations[k].number, sizeof evaluations[k].number, "%d", k + 1);
        evaluate(argv[k], &set, o, &task, shots, &evaluations[k]);
    }
    if (*o->task)
        print_task(&task, o, evaluations, count);
    else
        print_windows(o, evaluations, count);
    if (*o->json) write_json(&set, o, &task, evaluations, count);

    for (int k = 0; k < count; k++) evaluation_free(&evaluations[k]);
    task_free(&task);
    free(evaluations), free(shots);
    return 0;
}
