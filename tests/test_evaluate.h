/* test_evaluate.h: tests of ./evaluate: the layouts of test sets, tokens and scores against direct forward passes,
   windows, and the program. */
#ifndef TESTS_TEST_EVALUATE_H
#define TESTS_TEST_EVALUATE_H

#include "harness.h"
#include "test_model.h"
#include "test_tokenizer.h"
#include "../tools/evaluate_score.h"
#include "../tools/evaluate_tasks.h"
#include "../tools/evaluate_windows.h"

/* ---- layouts ---- */

/* A line of each kind, and what must become of it: the context and the continuation of its first and its last choice,
   written by hand after the templates of lm-evaluation-harness. */
typedef struct {
    const char *line;
    TaskKind kind;
    int count, label;
    const char *context[2], *continuation[2]; /* of the first and of the last choice */
    size_t bytes;                             /* of the last choice */
} EvaluateLayout;

static const EvaluateLayout evaluate_layouts[] = {
    {"{'ind': 1, 'activity_label': 'Roof', 'ctx_a': 'A man sits.', 'ctx_b': 'the Man', 'ctx': 'unused', "
     "'endings': ['sleeps.', 'b', ' waits  there. '], 'label': 2}",
     TASK_HELLASWAG,
     3,
     2,
     {"Roof: A man sits. The man", "Roof: A man sits. The man"},
     {" sleeps.", " waits there."},
     12},
    /* WikiHow: marks in brackets, no ctx_b, the label is a text; a bracket without its pair stays */
    {"{'activity_label': 'Home', 'ctx_a': '[header] How to plan [title] Pick a day. [step] Do [it', 'ctx_b': "
     "'', 'endings': ['[step] One.', 'Two [title] three [substeps]'], 'label': '0'}",
     TASK_HELLASWAG,
     2,
     0,
     {"Home: How to plan. Pick a day. Do [it", "Home: How to plan. Pick a day. Do [it"},
     {"  One.", " Two. three "},
     11},
    {"{'id': 'x', 'question': 'Why?', 'choices': {'text': ['one', 'two', 'three'], 'label': ['A', 'B', "
     "'C']}, "
     "'answerKey': 'B'}",
     TASK_ARC,
     3,
     1,
     {"Question: Why?\nAnswer:", "Question: Why?\nAnswer:"},
     {" one", " three"},
     5},
    {"{'id': 'x', 'question': 'Why?', 'choices': {'text': ['one', 'two'], 'label': ['1', '2']}, 'answerKey': "
     "'2'}",
     TASK_ARC,
     2,
     1,
     {"Question: Why?\nAnswer:", "Question: Why?\nAnswer:"},
     {" one", " two"},
     3},
    {"{'goal': 'To wait,', 'sol1': 'go', 'sol2': 'stay \\u00e9', 'label': 1}",
     TASK_PIQA,
     2,
     1,
     {"Question: To wait,\nAnswer:", "Question: To wait,\nAnswer:"},
     {" go", " stay \303\251"},
     7},
    {"{'sentence': 'The bell fell on the drum as the _ was heavy. ', 'option1': 'bell', 'option2': 'drum', "
     "'answer': '1'}",
     TASK_WINOGRANDE,
     2,
     0,
     {"The bell fell on the drum as the bell", "The bell fell on the drum as the drum"},
     {" was heavy.", " was heavy."},
     4},
    {"{'question': 'is it so', 'title': 'T', 'answer': true, 'passage': 'It is.'}",
     TASK_BOOLQ,
     2,
     1,
     {"It is.\nQuestion: is it so?\nAnswer:", "It is.\nQuestion: is it so?\nAnswer:"},
     {" no", " yes"},
     3},
    {"{'question': 'is it so', 'label': 0, 'passage': 'It is.'}", /* as in SuperGLUE */
     TASK_BOOLQ,
     2,
     0,
     {"It is.\nQuestion: is it so?\nAnswer:", "It is.\nQuestion: is it so?\nAnswer:"},
     {" no", " yes"},
     3},
    {"{'id': 'x', 'question_stem': 'Dogs sleep', 'choices': {'text': ['a', 'bc'], 'label': ['A', 'B']}, "
     "'answerKey': ' A'}",
     TASK_OPENBOOKQA,
     2,
     0,
     {"Dogs sleep", "Dogs sleep"},
     {" a", " bc"},
     2},
    {"{'premise': 'My key fell.', 'choice1': 'The mill was old.', 'choice2': 'I did it.', 'question': "
     "'cause', "
     "'label': 1}",
     TASK_COPA,
     2,
     1,
     {"My key fell because", "My key fell because"},
     {"  the mill was old.", "  i did it."},
     10},
    {"{'premise': 'He waits. ', 'choice1': '\\u00c9lan', 'choice2': 'b', 'question': 'effect', 'label': 0}",
     TASK_COPA,
     2,
     0,
     {"He waits therefore", "He waits therefore"},
     {"  \303\251lan", "  b"},
     2},
    {"{'question': 'Who?', 'distractor3': 'c', 'distractor1': 'a', 'distractor2': 'b', 'correct_answer': "
     "'dd', "
     "'support': ' Text.'}",
     TASK_SCIQ,
     4,
     3,
     {"Text.\nQuestion: Who?\nAnswer:", "Text.\nQuestion: Who?\nAnswer:"},
     {" a", " dd"},
     2},
    {"{'text': 'The key is in the attic'}",
     TASK_LAMBADA,
     1,
     0,
     {"The key is in the", "The key is in the"},
     {" attic", " attic"},
     5},
};
enum { EVALUATE_LAYOUTS = sizeof evaluate_layouts / sizeof *evaluate_layouts };

/* Writes a line with " in place of '. */
static void evaluate_write(const char *folder, const char *name, const char *line) {
    char *text = task_text("%s\n", line);
    for (char *at = text; *at; at++)
        if (*at == '\'') *at = '"';
    test_write(folder, name, text);
    free(text);
}

/* Prompts that differ by one space from those of other programs give other numbers. */
static void test_evaluate_layouts(void) {
    const char *folder = test_folder();
    for (int i = 0; i < EVALUATE_LAYOUTS; i++) {
        const EvaluateLayout *want = &evaluate_layouts[i];
        char *path = file_path(folder, "line.jsonl");
        evaluate_write(folder, "line.jsonl", want->line);
        Task task = task_read(path, "", TASK_AUTO, 0);
        const TaskItem *item = task.items;
        const int last = want->count - 1;
        CHECK(task.kind == want->kind, "%s is recognised as %s", want->line, task_row(task.kind)->name);
        CHECK(task.count == 1 && item->count == want->count && item->label == want->label && item->line == 1,
              "%s: %d items, %d choices, label %d", want->line, task.count, item->count, item->label);
        if (task.count == 1 && item->count == want->count)
            for (int end = 0; end < 2; end++) {
                const int c = end ? last : 0;
                CHECK(strcmp(item->context[c], want->context[end]) == 0, "context '%s', expected '%s'",
                      item->context[c], want->context[end]);
                CHECK(strcmp(item->continuation[c], want->continuation[end]) == 0,
                      "continuation '%s', expected '%s'", item->continuation[c], want->continuation[end]);
                CHECK(!end || item->bytes[c] == want->bytes, "'%s': %zu bytes, expected %zu",
                      item->continuation[c], item->bytes[c], want->bytes);
            }
        task_free(&task);
        free(path);
    }
}

/* AI2's own files of ARC and OpenBookQA have the same keys, so that the user must tell. */
static void test_evaluate_nested_questions(void) {
    const char *folder = test_folder();
    char *path = file_path(folder, "ai2.jsonl");
    evaluate_write(folder, "ai2.jsonl",
                   "{'id': 'x', 'question': {'stem': 'Why?', 'choices': [{'text': 'one', 'label': 'A'}, "
                   "{'text': 'two', 'label': 'B'}]}, 'answerKey': 'B'}");
    Task arc = task_read(path, "", TASK_ARC, 0), open = task_read(path, "", TASK_OPENBOOKQA, 0);
    CHECK(strcmp(arc.items->context[0], "Question: Why?\nAnswer:") == 0, "'%s'", arc.items->context[0]);
    CHECK(strcmp(open.items->context[0], "Why?") == 0, "'%s'", open.items->context[0]);
    CHECK(arc.items->label == 1 && open.items->count == 2, "label %d, %d choices", arc.items->label,
          open.items->count);
    task_free(&arc), task_free(&open);
    free(path);
}

/* The examples before a question must be laid out as the question is, each with its right answer. */
static void test_evaluate_shots(void) {
    const char *folder = test_folder();
    char *path = file_path(folder, "train.jsonl");
    evaluate_write(folder, "train.jsonl",
                   "{'goal': 'A', 'sol1': 'b', 'sol2': 'c'}\n\n{'goal': 'D', 'sol1': 'e', 'sol2': 'f'}");
    test_write(folder, "train-labels.lst", "1\n\n0\n"); /* found by its name */
    Task piqa = task_read(path, "", TASK_AUTO, 0);
    char *shots = task_shots(&piqa, 2);
    CHECK(strcmp(shots, "Question: A\nAnswer: c\n\nQuestion: D\nAnswer: e\n\n") == 0, "'%s'", shots);
    CHECK(piqa.items[1].line == 3, "line %d", piqa.items[1].line);
    free(shots), task_free(&piqa);
    evaluate_write(folder, "train.jsonl",
                   "{'sentence': 'X said _ left.', 'option1': 'A', 'option2': 'B', 'answer': '2'}");
    Task winogrande = task_read(path, "", TASK_AUTO, 0);
    shots = task_shots(&winogrande, 1);
    CHECK(strcmp(shots, "X said B left.\n\n") == 0, "'%s'", shots);
    free(shots), task_free(&winogrande), free(path);
}

/* ---- scores ---- */

/* A tokenizer of 300 tokens that were learned from a few words, and a small model with them. */
static Tokenizer *evaluate_tokenizer(void) {
    static const char text[] = "the key the bell the river the mill a key by the river a bell in the attic "
                               "the key the bell by the mill the dogs sleep and the kings wait ";
    BpeLearner *learner = bpe_learner_new(1);
    bpe_learner_add(learner, 0, text, sizeof text - 1);
    return bpe_learner_finish(learner, 300);
}

static Model evaluate_model(int B, int vocab_size, double logit_softcap) {
    const ModelConfig config = {.layers = 2,
                                .norm_eps = 1e-6,
                                .rope_theta = 10000,
                                .heads = 2,
                                .head_dim = 6,
                                .embd = 20,
                                .mlp_hidden = 24,
                                .seq_len = 13,
                                .vocab_size = vocab_size,
                                .logit_softcap = logit_softcap,
                                .dtype = DTYPE_FP32};
    Model model = model_plan(&config, B);
    model_allocate(&model);
    model_init(&model, 3);
    for (size_t i = 0; i < model.weights.count; i++) model.weights.memory[i] *= 8; /* not all tokens alike */
    return model;
}

/* log p of the token behind tokens (count), from one forward pass over them alone and a product in double. */
static double evaluate_direct(Model *model, const int32_t *tokens, int count, int target, bool *likeliest) {
    const int C = model->config.embd, V = model->config.vocab_size;
    double sum = 0, of_target = 0, most = -INFINITY;
    model_forward(model, tokens, 1, count);
    for (int v = 0; v < V; v++) {
        double logit = 0;
        for (int c = 0; c < C; c++)
            logit += (double)((float *)model->activations.norm.data)[(count - 1) * C + c] *
                     model->weights.embed[v * C + c];
        if (model->config.logit_softcap > 0)
            logit = model->config.logit_softcap * tanh(logit / model->config.logit_softcap);
        sum += exp(logit), most = fmax(most, logit);
        if (v == target) of_target = logit;
    }
    *likeliest = *likeliest && of_target == most;
    return of_target - log(sum);
}

/* A batch pads its sequences and computes logits only where they are needed: each score must nevertheless be the sum of
   the log-probabilities that one forward pass for each token gives. */
static void check_evaluate_scores(double logit_softcap) {
    static const char *const texts[][2] = {{"the key", " by the river"},
                                           {"the dogs sleep and the kings wait by the", " mill"},
                                           {"a", " bell in the attic"},
                                           {"", "the river"}};
    enum { COUNT = 4 };
    Tokenizer *t = evaluate_tokenizer();
    Model model = evaluate_model(COUNT, tokenizer_vocab_size(t), logit_softcap);
    ScoreSequence sequences[COUNT];
    Score scores[COUNT];
    int greedy = 0;
    for (int i = 0; i < COUNT; i++)
        sequences[i] =
            score_encode(t, NULL, texts[i][0], texts[i][1], model.config.seq_len, "'file', line 1");
    /* one that the model itself continues */
    for (int n = 0; n < 4; n++)
        sequences[2].tokens[n + 1] = model_sample(&model, sequences[2].tokens, n + 1, 0, 1, 0);
    sequences[2].length = 5, sequences[2].context = 1;
    score_batch(&model, sequences, COUNT, scores);
    for (int i = 0; i < COUNT; i++) {
        const ScoreSequence *s = &sequences[i];
        double want = 0;
        bool likeliest = true;
        for (int n = s->context; n < s->length; n++)
            want += evaluate_direct(&model, s->tokens, n, s->tokens[n], &likeliest);
        CHECK(fabs(scores[i].log_probability - want) < 1e-4,
              "'%s%s', --logit-softcap=%g: %.7f, a direct pass gives %.7f", texts[i][0], texts[i][1],
              logit_softcap, scores[i].log_probability, want);
        CHECK(scores[i].greedy == likeliest, "'%s%s': greedy is %d", texts[i][0], texts[i][1],
              scores[i].greedy);
        greedy += likeliest;
        free(sequences[i].tokens);
    }
    CHECK(greedy == 1, "%d of the continuations are the model's own", greedy);
    model_free(&model);
    tokenizer_free(t);
}

static void test_evaluate_scores_match_direct_forward(void) {
    check_evaluate_scores(0);
    check_evaluate_scores(3);
}

/* The context and the continuation must be split where lm-evaluation-harness splits them. */
static void test_evaluate_encodes_as_the_harness(void) {
    Tokenizer *t = evaluate_tokenizer();
    enum { LONG = 40 };
    uint16_t whole[64], before[64];
    static const char text[] = "the key \n by the river";
    /* spaces at the end of the context go to the continuation, "\n by": its tokens are those of the whole text */
    ScoreSequence s = score_encode(t, NULL, "the key \n", " by the river", LONG, "");
    const size_t all = tokenizer_encode(t, NULL, text, strlen(text), whole);
    const size_t context = tokenizer_encode(t, NULL, "the key", 7, before);
    CHECK(s.length == (int)all && s.context == (int)context && !s.cut, "%d tokens, %d of context", s.length,
          s.context);
    for (int i = 0; i < s.length && s.length == (int)all; i++)
        CHECK(s.tokens[i] == whole[i], "token %d is %d, expected %d", i, s.tokens[i], whole[i]);
    free(s.tokens);
    /* with at most 3 inputs, the last 4 tokens are left, of which the last is only predicted */
    ScoreSequence cut = score_encode(t, NULL, "the key the key the key", " by", 3, "");
    CHECK(cut.cut && cut.length == 4 && cut.context == 3, "%d tokens, %d of context", cut.length,
          cut.context);
    CHECK(cut.tokens[3] == whole[all - 3] || cut.length != 4, "the last token is %d", cut.tokens[3]);
    free(cut.tokens);
    /* without a context, the token between documents */
    ScoreSequence none = score_encode(t, NULL, "", "the key", LONG, "");
    CHECK(none.context == 1 && none.tokens[0] == tokenizer_end_of_text(t) && none.tokens[1] == whole[0],
          "%d of context, first token %d", none.context, none.tokens[0]);
    free(none.tokens);
    tokenizer_free(t);
}

/* acc takes the largest sum, acc_norm the largest sum a byte; they differ where a long choice is likelier a byte. */
static void test_evaluate_acc_and_acc_norm(void) {
    const TaskItem item = {.count = 3, .bytes = {2, 20, 4}};
    const Score scores[] = {{-4, false}, {-10, false}, {-4, false}};
    CHECK(score_best(&item, scores, false) == 0, "acc chooses %d", score_best(&item, scores, false));
    CHECK(score_best(&item, scores, true) == 1, "acc_norm chooses %d", score_best(&item, scores, true));
    CHECK(fabs(score_error(0.25, 13) - 0.125) < 1e-15, "standard error %g", score_error(0.25, 13));
    CHECK(isnan(score_error(1, 1)), "of one item: %g", score_error(1, 1));
}

/* ---- windows ---- */

/* With every stride each token must be predicted once, after as many tokens as the manual says. The last window of a text
   is shorter here, and that of shards is left out. */
static void test_evaluate_windows_match_direct_forward(void) {
    enum { COUNT = 45, V = 61 };
    Model model = evaluate_model(3, V, 0);
    const int T = model.config.seq_len;
    unsigned char bytes[2 * COUNT] = {0};
    int32_t tokens[COUNT];
    for (int i = 0; i < COUNT; i++) bytes[2 * i] = (unsigned char)(tokens[i] = (i * 17 + i / 7) % V);
    WindowPart part = {"tokens", bytes, COUNT};
    for (int shards = 0; shards < 2; shards++)
        for (int stride = 5; stride <= T; stride += 8) {
            const WindowSource source = {.parts = &part, .n_parts = 1, .whole_only = shards};
            WindowResult got = windows_measure(&model, NULL, &source, stride, 0, "1");
            double want = 0;
            int predicted = 0;
            for (int target = 1; target < COUNT; target++) {
                const int window = target <= T ? 0 : (target - T + stride - 1) / stride;
                if (shards && window * stride + T >= COUNT) break;
                bool likeliest = true;
                want -= evaluate_direct(&model, tokens + window * stride, target - window * stride,
                                        tokens[target], &likeliest);
                predicted++;
            }
            CHECK(got.tokens == predicted, "stride %d: %g tokens predicted, expected %d", stride, got.tokens,
                  predicted);
            CHECK(fabs(got.loss / want - 1) < 1e-5, "stride %d: loss %.7f, direct passes give %.7f", stride,
                  got.loss, want);
            free(got.windows);
            WindowResult one = windows_measure(&model, NULL, &source, stride, 1, "1");
            CHECK(one.count == 1 && one.tokens == T, "limit 1: %g tokens", one.tokens);
            free(one.windows);
        }
    model_free(&model);
}

/* ---- the program ---- */

/* A folder with two runs `run` and `other` on the tokens in `text`, a text and a test set. */
static void evaluate_begin(char folder[256]) {
    static char output[8192];
    snprintf(folder, 256, "%s", test_folder());
    const int code = test_command(
        output, sizeof output,
        "B=$(cd %s && pwd); cd %s && $B/grammar --bytes=20000 --out=stories.txt && grep -v endoftext "
        "stories.txt | "
        "head -c 3000 > text.txt && $B/prepare --quiet --vocab=300 --threads=1 --out=text "
        "--separator='<|endoftext|>' stories.txt && for attn in laser standard; do $B/train_gpt --data=text "
        "--layers=1 --heads=1 --head-dim=8 --embd=8 --mlp-hidden=8 --seq-len=32 --batch=4 --steps=20 "
        "--warmup=1 "
        "--lr=0.01 --val-tokens=0 --threads=1 --dtype=fp32 --attn=$attn --out=$attn || exit 1; done",
        test_binaries(), folder);
    if (code != 0) die("no folder to test with: %s", output);
    evaluate_write(folder, "arc.jsonl",
                   "{'question': 'Where?', 'choices': {'text': ['by the river', 'in', 'no'], 'label': ['A', "
                   "'B', 'C']}, 'answerKey': 'A'}\n"
                   "{'question': 'Which of them waits by the river until the bell is found in the mill?', "
                   "'choices': {'text': ['a king', 'dogs sleep'], 'label': ['1', '2']}, 'answerKey': '1'}\n"
                   "{'question': 'Who?', 'choices': {'text': ['x', 'the miller'], 'label': ['A', 'B']}, "
                   "'answerKey': 'B'}");
}

/* The loss on the shards must be the one that the trainer logged, and both models must be compared by the same
   windows. */
static void test_evaluate_program_on_text(void) {
    char output[16384], folder[256];
    evaluate_begin(folder);
    int code =
        test_command(output, sizeof output,
                     "B=$(cd %s && pwd); cd %s; $B/evaluate --data=text --json=a.json laser standard && "
                     "tail -n 1 laser/log.jsonl > last.json",
                     test_binaries(), folder);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    for (char *line = strtok(output, "\n"); line; line = strtok(NULL, "\n"))
        CHECK(strlen(line) <= 80, "%zu columns: %s", strlen(line), line);
    cJSON *json = checkpoint_read_json(folder, "a.json"), *last = checkpoint_read_json(folder, "last.json");
    const cJSON *models = cJSON_GetObjectItem(json, "models"), *first = cJSON_GetArrayItem(models, 0);
    CHECK(cJSON_GetArraySize(models) == 2, "%d models", cJSON_GetArraySize(models));
    static const char *const names[][2] = {{"loss", "val_loss"}, {"bits_per_byte", "val_bits_per_byte"}};
    for (int i = 0; i < 2; i++) {
        const double got = json_number(first, names[i][0]), want = json_number(last, names[i][1]);
        CHECK(fabs(got / want - 1) < 1e-6, "%s %.9g, the trainer logged %.9g", names[i][0], got, want);
    }
    cJSON_Delete(json), cJSON_Delete(last);
    code =
        test_command(output, sizeof output,
                     "B=$(cd %s && pwd); cd %s; $B/evaluate --text=text.txt --stride=8 --json=a.json laser",
                     test_binaries(), folder);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    json = checkpoint_read_json(folder, "a.json");
    first = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "models"), 0);
    CHECK(json_number(first, "bytes") == 3000, "%g bytes of 3000 were predicted",
          json_number(first, "bytes"));
    cJSON_Delete(json);
}

/* The numbers of the table must follow from those of the items. */
static void test_evaluate_program_on_a_task(void) {
    char output[16384], folder[256], want[128];
    evaluate_begin(folder);
    int code =
        test_command(output, sizeof output,
                     "B=$(cd %s && pwd); cd %s; $B/evaluate --task=arc.jsonl --batch=3 --json=a.json laser "
                     "standard laser",
                     test_binaries(), folder);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    CHECK(strstr(output, "task    arc (by its keys), 0 shots, 3 items of arc.jsonl"), "%s", output);
    CHECK(strstr(output, "3 - 1   +0.0000 (0.0000 to 0.0000)    +0.0000 (0.0000 to 0.0000)"), "%s", output);
    CHECK(strstr(output, "Model 2 reads at most 32 tokens: the prompts of 1 item were cut"), "%s", output);
    cJSON *json = checkpoint_read_json(folder, "a.json");
    const cJSON *models = cJSON_GetObjectItem(json, "models"), *item;
    double right[2][3];
    for (int k = 0; k < 2; k++) {
        const cJSON *model = cJSON_GetArrayItem(models, k);
        int n = 0;
        cJSON_ArrayForEach(item, cJSON_GetObjectItem(model, "items")) {
            const cJSON *sums = cJSON_GetObjectItem(item, "log_probabilities");
            const int label = cJSON_GetObjectItem(item, "label")->valueint;
            int best = 0;
            for (int c = 1; c < cJSON_GetArraySize(sums); c++)
                if (cJSON_GetArrayItem(sums, c)->valuedouble > cJSON_GetArrayItem(sums, best)->valuedouble)
                    best = c;
            CHECK(cJSON_IsTrue(cJSON_GetObjectItem(item, "acc")) == (best == label), "model %d, item %d", k,
                  n);
            right[k][n < 3 ? n++ : 2] = best == label;
        }
        CHECK(n == 3, "%d items", n);
        const double p = (right[k][0] + right[k][1] + right[k][2]) / 3;
        snprintf(want, sizeof want, "\n%d        %.4f +- %.4f ", k + 1, p, sqrt(p * (1 - p) / 2));
        CHECK(strstr(output, want), "'%s' is not in: %s", want, output);
        CHECK(fabs(json_number(model, "acc") - p) < 1e-15, "acc %g", json_number(model, "acc"));
    }
    cJSON_Delete(json);
    /* the same scores one by one, and whatever else is in the batch */
    code = test_command(
        output, sizeof output,
        "B=$(cd %s && pwd); cd %s; $B/evaluate --task=arc.jsonl --batch=1 --limit=2 --json=b.json "
        "laser",
        test_binaries(), folder);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    cJSON *three = checkpoint_read_json(folder, "a.json"), *one = checkpoint_read_json(folder, "b.json");
    const cJSON *lists[2] = {three, one};
    for (int k = 0; k < 2; k++)
        lists[k] =
            cJSON_GetObjectItem(cJSON_GetArrayItem(cJSON_GetObjectItem(lists[k], "models"), 0), "items");
    CHECK(cJSON_GetArraySize(lists[1]) == 2, "%d items", cJSON_GetArraySize(lists[1]));
    for (int i = 0; i < 2; i++)
        for (int c = 0; c < 2; c++) {
            double x[2];
            for (int k = 0; k < 2; k++)
                x[k] = cJSON_GetArrayItem(
                           cJSON_GetObjectItem(cJSON_GetArrayItem(lists[k], i), "log_probabilities"), c)
                           ->valuedouble;
            CHECK(fabs(x[0] - x[1]) < 1e-4, "item %d, choice %d: %.7f in batches of 3, %.7f alone", i, c,
                  x[0], x[1]);
        }
    cJSON_Delete(three), cJSON_Delete(one);
}

/* Wrong input must be named in one line, with its file and line, that says what to do. */
static void test_evaluate_refuses_wrong_input(void) {
    static const struct {
        const char *prepare, *arguments;
        int code;
        const char *says;
    } cases[] = {
        {"", "run", 2, "give one of --text=FILE, --data=DIR and --task=FILE"},
        {"", "--text=text.txt --task=arc.jsonl laser", 2, "give one of --text=FILE"},
        {"", "--task=arc.jsonl", 2, "give one checkpoint or several"},
        {"", "--task=arc.jsonl --kind=arcs laser", 2, "did you mean arc?"},
        {"", "--text=text.txt --kind=arc laser", 2, "--kind is for --task=FILE"},
        {"", "--task=arc.jsonl --stride=3 laser", 2, "--stride is for --text=FILE"},
        {"", "--text=text.txt --stride=33 laser", 2,
         "is larger than the 32 tokens that 'laser/step-00000020'"},
        {"", "--task=arc.jsonl --shots=1 laser", 2, "--shots=N and --shots-file=FILE need each other"},
        {"", "--task=arc.jsonl --shots=1 --shots-file=arc.jsonl laser", 2, "would be among the questions"},
        {"cp arc.jsonl b.jsonl", "--task=arc.jsonl --shots=4 --shots-file=b.jsonl laser", 1,
         "'b.jsonl' has 3 items, but --shots=4"},
        {"", "--task=arc.jsonl nowhere", 1, "'nowhere' holds no checkpoint"},
        {"", "--task=nowhere laser", 1, "cannot open 'nowhere'"},
        {"", "--text=nowhere laser", 1, "cannot open 'nowhere'"},
        {"", "--task=arc.jsonl --kind=piqa laser", 1, "'arc.jsonl', line 1: there is no \"goal\""},
        {"(cat arc.jsonl; echo; echo '{\"a\": 1, b}') > b.jsonl", "--task=b.jsonl laser", 1,
         "'b.jsonl', line 5: it is not JSON from byte 11 on"},
        {"echo '[{\"a\": 1}]' > b.jsonl", "--task=b.jsonl laser", 1, "'b.jsonl', line 1: it is a list"},
        {"echo '{\"a\": 1}' > b.jsonl", "--task=b.jsonl laser", 1,
         "'b.jsonl', line 1: no kind of task has these keys: a"},
        {"sed '2s/answerKey/answer/' arc.jsonl > b.jsonl", "--task=b.jsonl laser", 1,
         "'b.jsonl', line 2: there is no \"answerKey\""},
        {"sed '2s/\"answerKey\": \"1\"/\"answerKey\": \"A\"/' arc.jsonl > b.jsonl", "--task=b.jsonl laser", 1,
         "'b.jsonl', line 2: \"answerKey\" is \"A\", which is no label"},
        {"echo '{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\"}' > b.jsonl", "--task=b.jsonl laser", 1,
         "there is no \"label\", and no file of labels"},
        {"echo 2 > b-labels.lst", "--task=b.jsonl laser", 1, "is \"2\", expected 0 to 1"},
        {"echo '{\"id\": 1, \"question\": {\"stem\": \"a\"}, \"answerKey\": \"A\"}' > b.jsonl",
         "--task=b.jsonl laser", 1, "add --kind=arc or --kind=openbookqa"},
        {"echo > b.jsonl", "--task=b.jsonl laser", 1, "'b.jsonl' has no item"},
        {"printf 'a\\nb \\351\\n' > b.txt", "--text=b.txt laser", 1,
         "'b.txt', line 2: byte 3 of it (0xE9) is not UTF-8"},
        {"printf '{\"text\": \"\\351 b\"}' > b.jsonl", "--task=b.jsonl laser", 1,
         "'b.jsonl', line 1: byte 11 of it (0xE9) is not UTF-8"},
        {": > b.txt", "--text=b.txt laser", 1, "'b.txt' has no text"},
        {"cp -r laser/step-00000020 c; rm c/DONE c/tokenizer.json", "--text=text.txt c", 1,
         "there is no 'c/tokenizer.json'"},
        {"", "--task=arc.jsonl --json=nowhere/a.json laser", 1,
         "name a file in a folder that exists: --json"},
    };
    char output[16384], folder[256];
    evaluate_begin(folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int code = test_command(output, sizeof output, "B=$(cd %s && pwd); cd %s; %s\n$B/evaluate %s",
                                      test_binaries(), folder, cases[i].prepare, cases[i].arguments);
        CHECK(code == cases[i].code && strstr(output, cases[i].says), "%s: exit %d, expected %d and '%s': %s",
              cases[i].arguments, code, cases[i].code, cases[i].says, output);
    }
}

#define EVALUATE_TESTS(TEST)                                                                                 \
    TEST(evaluate_layouts)                                                                                   \
    TEST(evaluate_nested_questions)                                                                          \
    TEST(evaluate_shots)                                                                                     \
    TEST(evaluate_scores_match_direct_forward)                                                               \
    TEST(evaluate_encodes_as_the_harness)                                                                    \
    TEST(evaluate_acc_and_acc_norm)                                                                          \
    TEST(evaluate_windows_match_direct_forward)                                                              \
    TEST(evaluate_program_on_text)                                                                           \
    TEST(evaluate_program_on_a_task)                                                                         \
    TEST(evaluate_refuses_wrong_input)

#endif
