/* Tests of the whole model and of the training step: PyTorch's numbers (tests/fixtures, made by make_fixtures.py),
   bugs that well-known trainers have had, and the same bits for any number of threads. */
#ifndef TESTS_TEST_MODEL_H
#define TESTS_TEST_MODEL_H

#include "../tools/load_model.h"
#include "harness.h"
#include "trainer_files.h"
#include "test_options.h"

/* ---- PyTorch's numbers ---- */

static const char *const fixture_names[] = {"standard", "laser",      "swiglu", "relu",
                                            "learned",  "sinusoidal", "pax"};

typedef struct {
    Model model;
    NamedTensor *expected;
    int expected_count, B, T;
} Fixture;

static Fixture fixture_open(const char *name, int dtype) {
    char folder[256], path[300], error[CHECKPOINT_ERROR_SIZE];
    snprintf(folder, sizeof folder, "tests/fixtures/%s", name);
    snprintf(path, sizeof path, "%s/expected.safetensors", folder);
    Fixture f = {.T = 0};
    if (!safetensors_load(path, &f.expected, &f.expected_count, error)) die("%s", error);
    const NamedTensor *inputs = safetensors_find(f.expected, f.expected_count, "inputs");
    f.B = (int)inputs->shape[0], f.T = (int)inputs->shape[1];
    f.model = model_load(folder, f.B, dtype);
    return f;
}

static void fixture_close(Fixture *f) {
    model_free(&f->model);
    safetensors_free(f->expected, f->expected_count);
}

static const float *fixture_numbers(const Fixture *f, const char *prefix, const char *name, size_t *count) {
    char full[128];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    const NamedTensor *t = safetensors_find(f->expected, f->expected_count, full);
    if (!t) die("the fixture has no '%s'", full);
    *count = 1;
    for (int i = 0; i < t->dimensions; i++) *count *= (size_t)t->shape[i];
    return t->data;
}

/* Tokens are stored as float32, which represents them exactly. */
static void fixture_tokens(const Fixture *f, const char *name, int batch, int32_t *tokens) {
    size_t count, n = (size_t)f->B * (size_t)f->T;
    const float *numbers = fixture_numbers(f, "", name, &count) + (size_t)batch * n;
    for (size_t i = 0; i < n; i++) tokens[i] = (int32_t)numbers[i];
}

static void check_fixture_tensors(const Fixture *f, const char *fixture, const char *prefix,
                                  const float *memory, double bound) {
    for (int i = 0; i < f->model.parameters.count; i++) {
        const Tensor *t = &f->model.parameters.tensors[i];
        size_t count;
        const float *numbers = fixture_numbers(f, prefix, t->name, &count);
        REQUIRE(count == t->count, "%s %s%s: %zu numbers, expected %zu", fixture, prefix, t->name, count,
                t->count);
        double *want = test_to_double(numbers, count);
        char what[160];
        snprintf(what, sizeof what, "%s %s%s", fixture, prefix, t->name);
        CHECK_NMSE(memory + t->offset, want, count, bound, what);
        free(want);
    }
}

/* Loss and gradients must be PyTorch's for the same weights and tokens: a difference means that another model is
   trained than the one described. */
static void test_model_matches_pytorch(void) {
    for (size_t i = 0; i < sizeof fixture_names / sizeof *fixture_names; i++) {
        Fixture f = fixture_open(fixture_names[i], DTYPE_FP32);
        const ModelConfig *c = &f.model.config;
        const size_t N = (size_t)f.B * (size_t)f.T, V = (size_t)c->vocab_size;
        int32_t inputs[64], targets[64];
        fixture_tokens(&f, "inputs", 0, inputs), fixture_tokens(&f, "targets", 0, targets);
        model_forward(&f.model, inputs, f.B, f.T);
        float *logits = check_calloc(N * V * sizeof *logits);
        for (size_t n = 0; n < N; n++)
            memcpy(logits + n * V, model_logits(&f.model, (int)n), V * sizeof *logits);
        size_t count;
        double *want = test_to_double(fixture_numbers(&f, "", "logits", &count), N * V);
        CHECK_NMSE(logits, want, N * V, 1e-11, fixture_names[i]);
        double loss = model_loss(&f.model, targets, (int64_t)N, 1.0f / (float)N) / (double)N;
        double want_loss = fixture_numbers(&f, "", "loss", &count)[0];
        CHECK(fabs(loss - want_loss) < 1e-6 * want_loss, "%s: loss %.8f, PyTorch's %.8f", fixture_names[i],
              loss, want_loss);
        model_backward(&f.model, inputs, f.B, f.T);
        check_fixture_tensors(&f, fixture_names[i], "grad.", f.model.gradients.memory, 1e-10);
        free(logits), free(want);
        fixture_close(&f);
    }
}

/* --dtype=bf16 rounds operands to 8 bits of mantissa. The result must be near PyTorch's float64, and must differ
   from float32, or bf16 was not used. */
static void test_bf16_model_is_near_pytorch(void) {
    for (size_t i = 0; i < sizeof fixture_names / sizeof *fixture_names; i++) {
        Fixture f = fixture_open(fixture_names[i], DTYPE_BF16);
        const int64_t N = (int64_t)f.B * f.T;
        int32_t inputs[64], targets[64];
        size_t count;
        fixture_tokens(&f, "inputs", 0, inputs), fixture_tokens(&f, "targets", 0, targets);
        model_forward(&f.model, inputs, f.B, f.T);
        double loss = model_loss(&f.model, targets, N, 1.0f / (float)N) / (double)N;
        double want_loss = fixture_numbers(&f, "", "loss", &count)[0], off = fabs(loss / want_loss - 1);
        CHECK(off < 3e-3 && off > 1e-9, "%s: loss %.8f, PyTorch's %.8f", fixture_names[i], loss, want_loss);
        model_backward(&f.model, inputs, f.B, f.T);
        check_fixture_tensors(&f, fixture_names[i], "grad.", f.model.gradients.memory, 5e-3);
        fixture_close(&f);
    }
}

/* Ten whole steps must follow PyTorch's: this finds errors in clipping, schedule, decay and AdamW together. */
static void test_ten_steps_match_pytorch(void) {
    for (int i = 0; i < 2; i++) { /* standard, laser */
        Fixture f = fixture_open(fixture_names[i], DTYPE_FP32);
        Options o;
        OptionSet set;
        parse_options(&o, &set, "--beta1=0.9 --beta2=0.95 --adam-eps=1e-8 --weight-decay=0.1 --clip=1");
        Trainer t = {.run = {.options = &o, .option_set = &set}, .model = f.model};
        const int64_t N = (int64_t)f.B * f.T;
        t.optimizer = optimizer_plan(&f.model.parameters, OPTIMIZER_ADAMW, true, false);
        optimizer_allocate(&t.optimizer, f.model.weights.memory, f.model.gradients.memory, false, false);
        for (int step = 0; step < 10; step++, t.run.step++) {
            int32_t inputs[64], targets[64];
            size_t count;
            fixture_tokens(&f, "steps.inputs", step, inputs),
                fixture_tokens(&f, "steps.targets", step, targets);
            memset(f.model.gradients.memory, 0, f.model.gradients.count * sizeof(float));
            model_forward(&f.model, inputs, f.B, f.T);
            double loss = model_loss(&f.model, targets, N, 1.0f / (float)N) / (double)N;
            model_backward(&f.model, inputs, f.B, f.T);
            double norm = sqrt(gradient_squares(f.model.gradients.memory, f.model.gradients.count));
            update_weights(&t, fixture_numbers(&f, "steps.", "lr", &count)[step], norm > 1 ? 1 / norm : 1);
            double want_loss = fixture_numbers(&f, "steps.", "loss", &count)[step];
            double want_norm = fixture_numbers(&f, "steps.", "norm", &count)[step];
            CHECK(fabs(loss / want_loss - 1) < 1e-5, "%s step %d: loss %.8f, PyTorch's %.8f",
                  fixture_names[i], step, loss, want_loss);
            CHECK(fabs(norm / want_norm - 1) < 1e-4, "%s step %d: norm %.8f, PyTorch's %.8f",
                  fixture_names[i], step, norm, want_norm);
        }
        check_fixture_tensors(&f, fixture_names[i], "after.", f.model.weights.memory, 1e-8);
        optimizer_free(&t.optimizer);
        fixture_close(&f);
    }
}

/* ---- a trainer on random tokens ---- */

enum { TEST_VOCAB = 61 };

/* A folder with one training and one validation shard of tokens below TEST_VOCAB that follow a pattern with noise. */
static const char *write_test_data(size_t train_tokens) {
    const char *folder = test_folder();
    for (int validation = 0; validation < 2; validation++) {
        size_t n = validation ? 2000 : train_tokens;
        uint16_t *tokens = check_calloc(n * sizeof *tokens);
        for (size_t i = 0; i < n; i++) {
            uint64_t bits = rng_bits(5 + (uint64_t)validation, RNG_STREAM_TEST, i);
            uint64_t next = i ? (tokens[i - 1] * 7u + 3) % TEST_VOCAB : 0;
            tokens[i] = (uint16_t)(bits % 4 ? next : (bits >> 8) % TEST_VOCAB);
        }
        char path[256];
        snprintf(path, sizeof path, "%s/%s_000000.bin", folder, validation ? "val" : "train");
        shard_write(path, tokens, n);
        free(tokens);
    }
    char path[256];
    snprintf(path, sizeof path, "%s/shards.json", folder);
    FILE *file = check_fopen(path, "w", "");
    fprintf(file, "{\"tokenizer\": {\"vocab_size\": %d, \"crc32\": \"00000000\"}}\n", TEST_VOCAB);
    check_fclose(file, path);
    return folder;
}

/* The bytes of text that a token of write_test_tokenizer stands for. The last token is <|endoftext|>, which is no text.
   */
static size_t test_token_bytes(int id) { return id == TEST_VOCAB - 1 ? 0 : 1 + (size_t)id % 3; }

/* Gives the data of write_test_data a tokenizer.json: token i is one to three times the character 'A' + i. */
static void write_test_tokenizer(const char *folder) {
    char path[300];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    FILE *file = check_fopen(path, "w", "");
    fputs("{\"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {", file);
    for (int id = 0; id < TEST_VOCAB - 1; id++) {
        fputs(id ? ", \"" : "\"", file);
        for (size_t i = 0; i < test_token_bytes(id); i++)
            fprintf(file, "%s%c", 'A' + id == '\\' ? "\\" : "", 'A' + id);
        fprintf(file, "\": %d", id);
    }
    fprintf(file,
            "}}, \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, "
            "\"decoder\": {\"type\": \"ByteLevel\"}, \"added_tokens\": [{\"id\": %d, \"content\": "
            "\"<|endoftext|>\", \"special\": true}]}\n",
            TEST_VOCAB - 1);
    check_fclose(file, path);
    snprintf(path, sizeof path, "%s/shards.json", folder); /* it is for data without a tokenizer */
    unlink(path);
}

#define TINY_MODEL "--layers=2 --heads=3 --head-dim=6 --embd=20 --mlp-hidden=27 --seq-len=13 --vocab-size=61 "

typedef struct {
    Options options;
    OptionSet set;
    Trainer trainer;
} TestRun;

static TestRun *test_run_open(const char *data, const char *arguments) {
    TestRun *run = check_calloc(sizeof *run);
    char line[1024];
    snprintf(line, sizeof line, TINY_MODEL "--dtype=fp32 --data=%s %s", data, arguments);
    parse_options(&run->options, &run->set, line);
    run->trainer = trainer_plan(&run->options, &run->set);
    run->trainer.run.peak_flops = 1;
    fflush(stdout);
    dataset_open(&run->trainer.run.train, data, "train_", run->trainer.model.config.seq_len, TEST_VOCAB);
    dataset_open(&run->trainer.run.val, data, "val_", run->trainer.model.config.seq_len, TEST_VOCAB);
    trainer_allocate(&run->trainer);
    model_init(&run->trainer.model, (uint64_t)run->options.seed);
    return run;
}

static void test_run_close(TestRun *run) {
    trainer_free(&run->trainer);
    free(run);
}

static int64_t test_run_memory(const TestRun *run) {
    const ModelMemory memory = model_memory(&run->trainer.model);
    return memory_needed(&run->trainer.run, &run->trainer.optimizer, &memory, false);
}

static double weights_distance(const TestRun *a, const TestRun *b) {
    const Weights *x = &a->trainer.model.weights, *y = &b->trainer.model.weights;
    double *want = test_to_double(y->memory, y->count), distance = test_nmse(x->memory, want, x->count);
    free(want);
    return distance;
}

static bool same_weights(const TestRun *a, const TestRun *b) {
    const Weights *x = &a->trainer.model.weights, *y = &b->trainer.model.weights;
    return memcmp(x->memory, y->memory, x->count * sizeof(float)) == 0;
}

/* Trains three steps with these options in three ways, which differ in --recompute and the number of threads, and compares
   the weights bit by bit. */
static void check_same_bits(const char *data, const char *options) {
    static const char *const ways[] = {"--recompute=none", "--recompute=block", "--recompute=attention"};
    TestRun *runs[3];
    for (int i = 0; i < 3; i++) {
        char arguments[512];
        LogTrain line;
        threads_set(3 - i);
        snprintf(arguments, sizeof arguments, "%s %s", options, ways[i]);
        runs[i] = test_run_open(data, arguments);
        for (int step = 0; step < 3; step++) train_step(&runs[i]->trainer, &line);
        CHECK(same_weights(runs[0], runs[i]), "%s: weights differ by %g", arguments,
              weights_distance(runs[0], runs[i]));
    }
    for (int i = 0; i < 3; i++) test_run_close(runs[i]);
    threads_set(0);
}

/* The slope of the loss along the gradient, by differences of the whole model's float32 loss: a check that does not
   rely on PyTorch. */
static void test_model_gradient_is_the_slope(void) {
    const char *kinds[] = {"--attn=standard",
                           "--attn=laser",
                           "--attn=laser --laser-shift=sequence --activation=swiglu",
                           "--attn=laser --pos=learned --activation=relu",
                           "--activation=relu2",
                           "--logit-softcap=2",
                           "--norm=layernorm --norm-place=peri",
                           "--attn=laser --laser-shift=clamp --laser-beta=3 --attn-softcap=0.5",
                           "--attn=laser --qk-norm=yes --attn-scale=head --pos=learned",
                           "--attn=standard --qk-norm=yes --attn-scale=dim"};
    const char *data = write_test_data(3000);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        TestRun *run = test_run_open(data, kinds[k]);
        Trainer *t = &run->trainer;
        Weights *w = &t->model.weights, *g = &t->model.gradients;
        const int B = t->model.batch, T = t->model.config.seq_len;
        /* Far from the initial weights, where the loss hardly changes. */
        for (size_t i = 0; i < w->count; i++) w->memory[i] *= 4;
        for (int b = 0; b < B; b++)
            dataset_sample(&t->run.train, 1, (uint64_t)b, t->inputs + b * T, t->targets + b * T);
        model_forward(&t->model, t->inputs, B, T);
        model_loss(&t->model, t->targets, (int64_t)B * T, 1.0f / (float)(B * T));
        model_backward(&t->model, t->inputs, B, T);
        double norm = sqrt(gradient_squares(g->memory, g->count)), losses[2], h = 1e-3 / norm;
        for (int side = 0; side < 2; side++) {
            for (size_t i = 0; i < w->count; i++)
                w->memory[i] += (float)((side ? -2 : 1) * h / norm) * g->memory[i];
            model_forward(&t->model, t->inputs, B, T);
            losses[side] = model_loss(&t->model, t->targets, (int64_t)B * T, 0) / (B * T);
        }
        double slope = (losses[0] - losses[1]) / (2 * h);
        CHECK(fabs(slope / norm - 1) < 5e-3, "%s: slope %.6g, gradient %.6g", kinds[k], slope, norm);
        test_run_close(run);
    }
}

/* The loss when tensor t is moved by h along `direction` (t->count). */
static double loss_beside(Trainer *t, const Tensor *tensor, const float *direction, double h) {
    const int B = t->model.batch, T = t->model.config.seq_len;
    float *x = t->model.weights.memory + tensor->offset;
    float *was = check_calloc(tensor->count * sizeof *was);
    memcpy(was, x, tensor->count * sizeof *was);
    for (size_t i = 0; i < tensor->count; i++) x[i] += (float)h * direction[i];
    model_forward(&t->model, t->inputs, B, T);
    const double loss = model_loss(&t->model, t->targets, (int64_t)B * T, 0) / (B * T);
    memcpy(x, was, tensor->count * sizeof *was);
    free(was);
    return loss;
}

/* The gradient of every tensor by itself, along a random direction: the slope above would not show that one tensor's
   gradient is missing. */
static void test_gradient_of_each_tensor(void) {
    static const char *const kinds[] = {"",
                                        "--norm=layernorm",
                                        "--norm=crmsnorm",
                                        "--norm-place=peri --attn=laser",
                                        "--norm=layernorm --norm-place=peri --activation=swiglu",
                                        "--tie=no --pos=learned",
                                        "--bias=mlp --activation=swiglu --norm-place=peri",
                                        "--bias=all --attn=laser --norm=layernorm --embed-scale=yes",
                                        "--attn=diff --heads=4 --norm-place=peri",
                                        "--attn=diff-laser --heads=4 --laser-shift=clamp"};
    const char *data = write_test_data(3000);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        TestRun *run = test_run_open(data, kinds[k]);
        Trainer *t = &run->trainer;
        const int B = t->model.batch, T = t->model.config.seq_len;
        for (int i = 0; i < t->model.parameters.count; i++) { /* lambda near 1 makes the loss bend sharply */
            const Tensor *tensor = &t->model.parameters.tensors[i];
            float *weight = t->model.weights.memory + tensor->offset;
            for (size_t j = 0; j < tensor->count && tensor->row->kind != INIT_LAMBDA; j++) weight[j] *= 4;
        }
        for (int b = 0; b < B; b++)
            dataset_sample(&t->run.train, 1, (uint64_t)b, t->inputs + b * T, t->targets + b * T);
        model_forward(&t->model, t->inputs, B, T);
        model_loss(&t->model, t->targets, (int64_t)B * T, 1.0f / (float)(B * T));
        model_backward(&t->model, t->inputs, B, T);
        for (int i = 0; i < t->model.parameters.count; i++) {
            const Tensor *tensor = &t->model.parameters.tensors[i];
            const float *g = t->model.gradients.memory + tensor->offset;
            const double norm = sqrt(gradient_squares(g, tensor->count));
            float *direction = test_normal(tensor->count, 1, (uint64_t)i);
            double expected = 0;
            /* Half along the gradient, half at random, so that the slope is not near 0. */
            for (size_t j = 0; j < tensor->count; j++) {
                direction[j] = direction[j] / sqrtf((float)tensor->count) + (float)(g[j] / norm);
                expected += (double)direction[j] * g[j];
            }
            const double h = fmin(1e-3 / expected, 0.03); /* where a gradient is small, no large step */
            const double slope =
                (loss_beside(t, tensor, direction, h) - loss_beside(t, tensor, direction, -h)) / (2 * h);
            CHECK(norm > 0 && fabs(slope / expected - 1) < 1e-2,
                  "%s: %s has slope %.6g, by its gradient %.6g", kinds[k], tensor->name, slope, expected);
            free(direction);
        }
        test_run_close(run);
    }
}

/* Xavier's matrices must have the range and variance that follow from their shapes, and everything else must start as
   without the option; --tie=no must add the output matrix and change no other initial value. */
static void test_initial_weights(void) {
    const char *data = write_test_data(3000);
    TestRun *gpt = test_run_open(data, ""), *xavier = test_run_open(data, "--init-weights=xavier --embd=200");
    TestRun *untied = test_run_open(data, "--tie=no");
    const Model *a = &gpt->trainer.model, *b = &xavier->trainer.model, *c = &untied->trainer.model;
    for (int i = 0; i < b->parameters.count; i++) {
        const Tensor *t = &b->parameters.tensors[i];
        const float *x = b->weights.memory + t->offset;
        const bool matrix = t->per_layer && t->dimensions == 2;
        const double bound = sqrt(6.0 / (double)(t->shape[0] + t->shape[1]));
        const double want = matrix ? bound * bound / 3 : t->dimensions == 2 ? 4e-4 : 1;
        const double square = gradient_squares(x, t->count) / (double)t->count;
        CHECK(fabs(square / want - 1) < 0.1, "%s: mean square %g, expected %g", t->name, square, want);
        for (size_t j = 0; matrix && j < t->count; j++)
            CHECK(fabs(x[j]) <= bound * 1.0001, "%s: %g is outside of +-%g", t->name, x[j], bound);
    }
    CHECK(c->parameters.count == a->parameters.count + 1 &&
              memcmp(a->weights.memory, c->weights.memory, a->weights.count * sizeof(float)) == 0,
          "--tie=no: %d tensors instead of %d, or other initial values", c->parameters.count,
          a->parameters.count);
    CHECK(c->weights.output != c->weights.embed && a->weights.output == a->weights.embed, "tied wrongly");
    CHECK(model_matrix_parameters(a) == model_matrix_parameters(c), "the products are the same");
    test_run_close(gpt), test_run_close(xavier), test_run_close(untied);
}

/* An untrained model knows nothing, so its loss is about ln V. Another value shows wrong initial weights or a wrong
   loss. */
static void test_model_first_loss_is_ln_vocabulary(void) {
    const char *data = write_test_data(3000);
    for (int attn = 0; attn < 2; attn++) {
        TestRun *run = test_run_open(data, attn ? "--attn=laser --batch=16" : "--attn=standard --batch=16");
        double loss = validate(&run->trainer).val_loss;
        CHECK(fabs(loss / log(TEST_VOCAB) - 1) < 0.02, "first loss %.4f, ln V is %.4f", loss,
              log(TEST_VOCAB));
        test_run_close(run);
    }
}

/* Tokens after t must not change the loss at t, also when T is shorter than the model's: a model that sees the
   future has a low training loss and is useless. */
static void test_model_is_causal(void) {
    const char *data = write_test_data(3000);
    for (int kind = 0; kind < ATTENTION_KIND_COUNT; kind++) {
        char arguments[64];
        snprintf(arguments, sizeof arguments, "--attn=%s --heads=4 --batch=1",
                 attention_name((AttentionKind)kind));
        TestRun *run = test_run_open(data, arguments);
        Model *model = &run->trainer.model;
        const int T = model->config.seq_len, C = model->config.embd;
        int32_t tokens[13];
        for (int t = 0; t < T; t++) tokens[t] = t * 5 % TEST_VOCAB;
        for (size_t i = 0; i < model->weights.count; i++) model->weights.memory[i] *= 8;
        model_forward(model, tokens, 1, T);
        double *before = test_to_double(((float *)model->activations.norm.data), (size_t)(T * C));
        tokens[T - 1] = 7;
        model_forward(model, tokens, 1, T);
        CHECK_NMSE(((float *)model->activations.norm.data), before, (size_t)((T - 1) * C), 1e-11,
                   "rows before the changed token");
        double changed =
            test_nmse(((float *)model->activations.norm.data) + (T - 1) * C, before + (T - 1) * C, (size_t)C);
        CHECK(changed > 1e-4, "the row of the changed token moved by %g only", changed);
        model_forward(model, tokens, 1, 5);
        CHECK_NMSE(((float *)model->activations.norm.data), before, (size_t)(5 * C), 1e-11,
                   "a sequence cut to 5 tokens");
        free(before);
        test_run_close(run);
    }
}

/* 8 sequences at once, or 2 in each of 4 micro-steps, must give the same loss, the same norm before clipping and the
   same update: a user with less memory must get the same model. */
static void test_accumulation_equals_large_batch(void) {
    const char *data = write_test_data(3000);
    TestRun *large =
        test_run_open(data, "--batch=8 --total-batch=104 --clip=0.3 --warmup=2 --steps=50 --lr=1e-2");
    TestRun *small =
        test_run_open(data, "--batch=2 --total-batch=104 --clip=0.3 --warmup=2 --steps=50 --lr=1e-2");
    CHECK(small->trainer.run.micro_steps == 4, "%ld micro-steps", (long)small->trainer.run.micro_steps);
    for (int step = 0; step < 20; step++) {
        LogTrain a, b;
        train_step(&large->trainer, &a), train_step(&small->trainer, &b);
        CHECK(fabs(a.loss / b.loss - 1) < 1e-5 && fabs(a.grad_norm / b.grad_norm - 1) < 1e-4,
              "step %d: loss %.7f and %.7f, norm %.7f and %.7f", step, a.loss, b.loss, a.grad_norm,
              b.grad_norm);
        CHECK(a.grad_norm > 0.3, "the norm %g was not clipped, so this tests nothing", a.grad_norm);
    }
    double distance = weights_distance(large, small);
    CHECK(distance < 1e-8, "weights differ by %g", distance);
    test_run_close(large), test_run_close(small);
}

/* Training must give the same bits whatever --val-every is: validation may change nothing that training reads. */
static void test_validation_does_not_disturb_training(void) {
    const char *data = write_test_data(3000);
    TestRun *plain = test_run_open(data, "--warmup=2 --steps=50"),
            *looked = test_run_open(data, "--warmup=2 --steps=50");
    for (int step = 0; step < 5; step++) {
        LogTrain a, b;
        double first = validate(&looked->trainer).val_loss, second = validate(&looked->trainer).val_loss;
        CHECK(first == second, "two validations of the same weights: %.9g and %.9g", first, second);
        model_sample(&looked->trainer.model, (int32_t[]){1, 2, 3}, 3, 1, 1, (uint64_t)step);
        train_step(&plain->trainer, &a), train_step(&looked->trainer, &b);
        CHECK(a.loss == b.loss, "step %d: loss %.9g and, with validation, %.9g", step, a.loss, b.loss);
    }
    CHECK(same_weights(plain, looked), "weights differ");
    test_run_close(plain), test_run_close(looked);
}

/* With --z-loss another gradient must be trained on, but the losses in the log must be the cross-entropy alone. */
static void test_z_loss_is_not_in_the_logged_loss(void) {
    const char *data = write_test_data(3000);
    TestRun *plain = test_run_open(data, "--warmup=0 --clip=0"),
            *with = test_run_open(data, "--warmup=0 --clip=0 --z-loss=0.5");
    LogTrain a, b;
    CHECK(validate(&plain->trainer).val_loss == validate(&with->trainer).val_loss,
          "the validation losses differ");
    train_step(&plain->trainer, &a), train_step(&with->trainer, &b);
    CHECK(a.loss == b.loss, "loss %.9g and, with --z-loss, %.9g", a.loss, b.loss);
    CHECK(a.grad_norm != b.grad_norm && !same_weights(plain, with), "--z-loss changes nothing");
    test_run_close(plain), test_run_close(with);
}

/* The mean over all windows must not depend on how many are computed together, the smaller last batch included: runs
   with different --batch could otherwise not be compared. */
static void test_validation_is_independent_of_batch(void) {
    const char *data = write_test_data(3000);
    TestRun *one = test_run_open(data, "--batch=1 --val-tokens=0"),
            *many = test_run_open(data, "--batch=16 --val-tokens=0");
    double a = validate(&one->trainer).val_loss, b = validate(&many->trainer).val_loss;
    CHECK(fabs(a / b - 1) < 1e-6, "%.9g with --batch=1, %.9g with --batch=16", a, b);
    test_run_close(one), test_run_close(many);
}

/* A model whose weights are all zero gives each of V tokens the probability 1/V. So its loss is ln V and its perplexity
   V, and its bits per byte are log2 V times the tokens, by the bytes, which this counts in the file. */
static void test_validation_counts_bits_per_byte(void) {
    enum { TOKENS = 221, HEADER = 1024 }; /* 17 windows of 13 tokens, the first that hold --val-tokens=210 */
    static uint16_t shard[HEADER / 2 + 2000];
    char path[256];
    snprintf(path, sizeof path, "%s", write_test_data(3000));
    write_test_tokenizer(path);
    TestRun *run = test_run_open(path, "--batch=5 --val-tokens=210");
    LogValidation plain, v = validate(&run->trainer);
    REQUIRE(run->trainer.run.tokenizer && v.val_bits_per_byte > 0, "the tokenizer was not used");
    Tokenizer *tokenizer = run->trainer.run.tokenizer;
    run->trainer.run.tokenizer = NULL; /* as with data of llm.c */
    plain = validate(&run->trainer);
    CHECK(plain.val_loss == v.val_loss && isnan(plain.val_bits_per_byte) && isnan(plain.val_perplexity),
          "without a tokenizer: loss %.17g, with one %.17g; %g bits, perplexity %g", plain.val_loss,
          v.val_loss, plain.val_bits_per_byte, plain.val_perplexity);
    run->trainer.run.tokenizer = tokenizer;
    memset(run->trainer.model.weights.memory, 0, run->trainer.model.weights.count * sizeof(float));
    v = validate(&run->trainer);

    strcat(path, "/val_000000.bin");
    FILE *file = check_fopen(path, "rb", "");
    check_fread(shard, 1, sizeof shard, file, path), fclose(file);
    double bytes = 0, ends = 0;
    for (int i = 1; i <= TOKENS; i++) /* the first token is an input only */
        bytes += (double)test_token_bytes(shard[HEADER / 2 + i]),
            ends += shard[HEADER / 2 + i] == TEST_VOCAB - 1;
    CHECK(ends > 0, "no end of text is among the tokens, so this tests less");
    CHECK(test_token_bytes(shard[HEADER / 2]) != test_token_bytes(shard[HEADER / 2 + TOKENS]),
          "the inputs have as many bytes as the predicted tokens, so this tests less");
    const double want = TOKENS * log2(TEST_VOCAB) / bytes;
    CHECK(fabs(v.val_loss / log(TEST_VOCAB) - 1) < 1e-6 && fabs(v.val_perplexity / TEST_VOCAB - 1) < 1e-5,
          "loss %.8f, perplexity %.6f", v.val_loss, v.val_perplexity);
    CHECK(fabs(v.val_bits_per_byte / want - 1) < 1e-6, "%.8f bits per byte, expected %.8f",
          v.val_bits_per_byte, want);
    test_run_close(run);
}

/* The same run with another number of threads must give the same bits, or no result could be reproduced on another
   machine. */
static void test_same_bits_for_any_threads(void) {
#ifdef _OPENMP
    const char *data = write_test_data(3000);
    const int threads = omp_get_max_threads();
    static const char *const models[] = {"--warmup=2",
                                         "--attn=laser --warmup=2",
                                         "--attn=laser --dtype=bf16 --warmup=2",
                                         "--optimizer=lamb --warmup=2",
                                         "--optimizer=muon --logit-softcap=3 --warmup=2",
                                         "--norm=layernorm --norm-place=peri --warmup=2",
                                         "--tie=no --init-weights=xavier --warmup=2",
                                         "--bias=all --embed-scale --decay=all --norm=crmsnorm --warmup=2"};
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        TestRun *runs[3];
        for (int i = 0; i < 3; i++) {
            omp_set_num_threads(i + 1);
            runs[i] = test_run_open(data, models[m]);
            LogTrain line;
            for (int step = 0; step < 3; step++) train_step(&runs[i]->trainer, &line);
            CHECK(same_weights(runs[0], runs[i]), "1 and %d threads: weights differ by %g", i + 1,
                  weights_distance(runs[0], runs[i]));
        }
        for (int i = 0; i < 3; i++) test_run_close(runs[i]);
    }
    omp_set_num_threads(threads);
#endif
}

/* --recompute must save memory, and must not change one bit of the result. */
static void test_recompute_gives_the_same_bits(void) {
    static const char *const models[] = {"--dtype=fp32 --attn=laser", "--dtype=bf16 --activation=swiglu",
                                         "--dtype=bf16 --attn=laser --activation=relu",
                                         "--norm=layernorm --norm-place=peri",
                                         "--norm=layernorm --bias=all --activation=swiglu --dtype=bf16"};
    static const char *const ways[] = {"none", "attention", "block"};
    const char *data = write_test_data(3000);
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        TestRun *runs[3];
        for (int way = 0; way < 3; way++) {
            char arguments[128];
            LogTrain line;
            snprintf(arguments, sizeof arguments, "%s --warmup=2 --recompute=%s --layers=3", models[m],
                     ways[way]);
            runs[way] = test_run_open(data, arguments);
            for (int step = 0; step < 4; step++) train_step(&runs[way]->trainer, &line);
            validate(&runs[way]->trainer);
            train_step(&runs[way]->trainer, &line);
            CHECK(same_weights(runs[0], runs[way]), "%s --recompute=%s: weights differ by %g", models[m],
                  ways[way], weights_distance(runs[0], runs[way]));
            const int64_t needed = test_run_memory(runs[way]);
            const int64_t before = test_run_memory(runs[way ? way - 1 : 0]);
            CHECK(way == 0 || needed < before, "--recompute=%s needs %lld bytes, --recompute=%s %lld",
                  ways[way], (long long)needed, ways[way - 1], (long long)before);
        }
        for (int way = 0; way < 3; way++) test_run_close(runs[way]);
    }
}

/* Weight decay must shrink the matrices and leave the norms alone, because decayed norms make a worse model; but with
   --decay=all it must shrink all tensors. */
static void check_decay(const char *options, bool of_vectors) {
    TestRun *run = test_run_open(write_test_data(3000), options);
    Trainer *t = &run->trainer;
    float *before = check_calloc(t->model.weights.count * sizeof(float));
    memcpy(before, t->model.weights.memory, t->model.weights.count * sizeof(float));
    update_weights(t, 0.1, 1); /* gradients are zero, so decay is all that happens */
    for (int i = 0; i < t->model.parameters.count; i++) {
        const Tensor *p = &t->model.parameters.tensors[i];
        float was = before[p->offset], is = t->model.weights.memory[p->offset],
              keep = p->dimensions == 2 || of_vectors ? 0.95f : 1.0f;
        CHECK(fabsf(is - keep * was) <= 1e-7f, "%s went from %g to %g, expected a factor %g", p->name, was,
              is, keep);
    }
    free(before);
    test_run_close(run);
}

static void test_decay_spares_the_norms(void) {
    check_decay("--weight-decay=0.5 --lr=0.1 --warmup=0", false);
    check_decay("--weight-decay=0.5 --lr=0.1 --warmup=0 --decay=all --bias=all", true);
}

/* Training must find the pattern in the data. Nothing but learning gets the loss down to its lowest possible value. */
static void test_training_learns_the_pattern(void) {
    const char *data = write_test_data(60000);
    for (int attn = 0; attn < 2; attn++) {
        TestRun *run =
            test_run_open(data, attn ? "--attn=laser --batch=16 --steps=150 --warmup=10 --lr=1e-2"
                                     : "--attn=standard --batch=16 --steps=150 --warmup=10 --lr=1e-2");
        LogTrain line;
        for (int step = 0; step < 150; step++) train_step(&run->trainer, &line);
        double loss = validate(&run->trainer).val_loss;
        /* three quarters of the tokens follow from the one before: 1/4 ln 61 + entropy of the choice = 1.6 nats */
        CHECK(loss < 2.2, "validation loss %.3f after 150 steps; the source has 1.6, no learning 4.1", loss);
        test_run_close(run);
    }
}

#define MODEL_TESTS(TEST)                                                                                    \
    TEST(model_matches_pytorch)                                                                              \
    TEST(bf16_model_is_near_pytorch)                                                                         \
    TEST(ten_steps_match_pytorch)                                                                            \
    TEST(model_gradient_is_the_slope)                                                                        \
    TEST(gradient_of_each_tensor)                                                                            \
    TEST(initial_weights)                                                                                    \
    TEST(model_first_loss_is_ln_vocabulary)                                                                  \
    TEST(model_is_causal)                                                                                    \
    TEST(accumulation_equals_large_batch)                                                                    \
    TEST(validation_does_not_disturb_training)                                                               \
    TEST(z_loss_is_not_in_the_logged_loss)                                                                   \
    TEST(validation_is_independent_of_batch)                                                                 \
    TEST(validation_counts_bits_per_byte)                                                                    \
    TEST(same_bits_for_any_threads)                                                                          \
    TEST(recompute_gives_the_same_bits)                                                                      \
    TEST(decay_spares_the_norms)                                                                             \
    TEST(training_learns_the_pattern)

#endif
