/* run.h: the run around the training steps of train_gpt.c: what is settled and printed before it starts, the dry
   run, the run folder, and its checkpoints. The one header here that knows the trainer: train_gpt.c includes it
   between the step and the loop.

   trainer_plan(options, set)   settles the options, plans the model; then for a run, in this order:
   open_data(t)                 maps the shards, loads the tokenizer
   trainer_allocate(t)          all memory there will be
   open_run(t)                  initial weights or those of a checkpoint; the folder with config.json and log.jsonl
   save_checkpoint(t)           RUN/step-NNNNNNNN: a Hugging Face model folder, the optimizer's state, DONE last
   write_summary(t)             RUN/summary.json at the end
   dry_run(t)                   instead of a run: parameters, memory, and the time of two timed micro-steps
   model_load(folder, B)        a checkpoint's model, for tools
   trainer_free(t) */
#ifndef GPT_RUN_H
#define GPT_RUN_H

/* tokenizer.json of the data, of its first folder when there are several. */
static void tokenizer_file(const Options *o, char path[CHECKPOINT_PATH_SIZE]) {
    char *folder = dataset_first_folder(o->data);
    snprintf(path, CHECKPOINT_PATH_SIZE, "%s/tokenizer.json", folder);
    free(folder);
}

/* ---- checkpoints: a Hugging Face model folder, the optimizer's state, and what resuming must agree on ---- */

/* The model's tensors under "<prefix><name>" for a safetensors file, data in `memory`; free() the result. */
static NamedTensor *named_tensors(const Model *model, const char *prefix, float *memory, NamedTensor *tensors,
                                  char (*names)[96]) {
    for (int i = 0; i < model->parameters.count; i++) {
        const Tensor *t = &model->parameters.tensors[i];
        snprintf(names[i], sizeof names[i], "%s%s", prefix, t->name);
        tensors[i] = (NamedTensor){.name = names[i],
                                   .rank = t->rank,
                                   .shape = {t->shape[0], t->shape[1]},
                                   .data = memory + t->offset};
    }
    return tensors;
}

typedef bool SafetensorsCall(const char *path, NamedTensor *tensors, int count, char *error);
static bool safetensors_put(const char *path, NamedTensor *tensors, int count, char *error) {
    return safetensors_write(path, tensors, count, error);
}

/* Reads or writes model.safetensors, and the optimizer's file when `mean` is given. */
static bool weights_files(const Model *model, float *mean, float *square, const char *folder,
                          SafetensorsCall *call, char *error) {
    const int n = model->parameters.count;
    NamedTensor *tensors = check_malloc(2 * (size_t)n * sizeof *tensors);
    char(*names)[96] = check_malloc(2 * (size_t)n * sizeof *names), path[CHECKPOINT_PATH_SIZE];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    bool ok = call(path, named_tensors(model, "", model->weights.memory, tensors, names), n, error);
    if (ok && mean) {
        snprintf(path, sizeof path, "%s/optimizer-00000-of-00001.safetensors", folder);
        named_tensors(model, "mean.", mean, tensors, names);
        named_tensors(model, "square.", square, tensors + n, names + n);
        ok = call(path, tensors, 2 * n, error);
    }
    free(names);
    free(tensors);
    return ok;
}

static cJSON *read_json(const char *folder, const char *name) {
    char path[CHECKPOINT_PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = check_fopen(path, "rb", "a checkpoint folder is expected here");
    enum { LIMIT = 1 << 20 };
    char *text = check_malloc(LIMIT + 1);
    size_t length = fread(text, 1, LIMIT, file);
    fclose(file);
    cJSON *json = cJSON_ParseWithLength(text, length);
    if (!json)
        die("'%s' is not JSON: damaged near '%.20s'; take another checkpoint", path, cJSON_GetErrorPtr());
    free(text);
    return json;
}

/* config.json of a checkpoint in Hugging Face's key names: the fields of ModelConfig, all int. */
static const struct {
    const char *key;
    size_t field;
    const char *choices; /* NULL: a number */
} config_keys[] = {
    {"vocab_size", offsetof(ModelConfig, vocab_size), NULL},
    {"hidden_size", offsetof(ModelConfig, embd), NULL},
    {"num_hidden_layers", offsetof(ModelConfig, layers), NULL},
    {"num_attention_heads", offsetof(ModelConfig, heads), NULL},
    {"head_dim", offsetof(ModelConfig, head_dim), NULL},
    {"intermediate_size", offsetof(ModelConfig, mlp_hidden), NULL},
    {"max_position_embeddings", offsetof(ModelConfig, seq_len), NULL},
    {"hidden_act", offsetof(ModelConfig, activation), "gelu_pytorch_tanh|relu|silu"},
    {"position_embedding", offsetof(ModelConfig, position), "rope|sinusoidal|learned"},
    {"attention", offsetof(ModelConfig, attn), "standard|laser"},
    {"laser_shift", offsetof(ModelConfig, laser_shift), "causal|sequence"},
};
enum { CONFIG_KEYS = sizeof config_keys / sizeof *config_keys };

static cJSON *model_config_to_json(const ModelConfig *config) {
    char text[64];
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "model_type", "laser_gpt");
    for (int i = 0; i < CONFIG_KEYS; i++) {
        int value = *(const int *)((const char *)config + config_keys[i].field);
        if (!config_keys[i].choices)
            cJSON_AddNumberToObject(json, config_keys[i].key, value);
        else
            cJSON_AddStringToObject(json, config_keys[i].key,
                                    options_choice_name(config_keys[i].choices, value, text));
    }
    cJSON_AddNumberToObject(json, "rms_norm_eps", 1e-6);
    cJSON_AddNumberToObject(json, "rope_theta", 10000);
    cJSON_AddBoolToObject(json, "tie_word_embeddings", true);
    cJSON_AddStringToObject(json, "torch_dtype", "float32");
    return json;
}

/* A model with the weights of a checkpoint folder and room for B sequences; dies with what is wrong. */
Model model_load(const char *folder, int B) {
    ModelConfig config = {0};
    char error[CHECKPOINT_ERROR_SIZE];
    cJSON *json = read_json(folder, "config.json");
    for (int i = 0; i < CONFIG_KEYS; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, config_keys[i].key);
        const char *choices = config_keys[i].choices;
        int value = choices && cJSON_IsString(item)    ? options_choice_index(choices, item->valuestring)
                    : !choices && cJSON_IsNumber(item) ? item->valueint
                                                       : -1;
        if (value < (choices ? 0 : 1))
            die("%s/config.json: \"%s\" is missing or wrong; expected %s", folder, config_keys[i].key,
                choices ? choices : "a number above 0");
        *(int *)((char *)&config + config_keys[i].field) = value;
    }
    cJSON_Delete(json);
    Model model = model_plan(&config, B);
    model_allocate(&model);
    if (!weights_files(&model, NULL, NULL, folder, safetensors_read, error)) die("%s", error);
    return model;
}

static cJSON *trainer_state_to_json(const Trainer *t) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "step", (double)t->step);
    cJSON_AddNumberToObject(json, "tokens", (double)(t->step * tokens_per_step(t)));
    cJSON_AddNumberToObject(json, "seconds", t->seconds);
    cJSON_AddItemToObject(json, "watch", loss_watch_to_json(&t->watch));
    cJSON_AddItemToObject(json, "options", options_to_json(t->option_set));
    return json;
}

/* Writes RUN/step-NNNNNNNN; a failure is a warning, training goes on and the older checkpoints stay. */
void save_checkpoint(Trainer *t) {
    if (!*t->options->out || parallel_rank() != 0 || t->saved_step == t->step) return;
    log_sync(&t->log);
    char error[CHECKPOINT_ERROR_SIZE], tokenizer_path[CHECKPOINT_PATH_SIZE];
    if (!isfinite(largest_magnitude(t->model.weights.memory, t->model.weights.count))) {
        warn("no checkpoint of step %ld: a weight is not finite; the older checkpoints stay", (long)t->step);
        return;
    }
    Checkpoint c;
    cJSON *config = model_config_to_json(&t->model.config), *state = trainer_state_to_json(t);
    tokenizer_file(t->options, tokenizer_path);
    bool begun = checkpoint_begin(&c, t->options->out, (long)t->step, error);
    bool ok = begun && weights_files(&t->model, t->mean, t->square, c.folder, safetensors_put, error) &&
              checkpoint_write_json(&c, "config.json", config, error) &&
              checkpoint_write_json(&c, "trainer_state.json", state, error) &&
              (!t->tokenizer || checkpoint_copy_file(&c, "tokenizer.json", tokenizer_path, error));
    if (begun && !ok) checkpoint_abort(&c);
    if (ok && checkpoint_commit(&c, error)) {
        checkpoint_prune(t->options->out, (long)t->step, (int)t->options->keep, (long)t->options->keep_every);
        t->saved_step = t->step;
        log_message(&t->log, "saved %s/step-%08ld", t->options->out, (long)t->step);
    } else
        warn("no checkpoint of step %ld: %s", (long)t->step, error);
    cJSON_Delete(config);
    cJSON_Delete(state);
}

/* Continues from a checkpoint folder. Options that make the run what it is must be as they were. */
void load_checkpoint(Trainer *t, const char *folder) {
    char error[CHECKPOINT_ERROR_SIZE], now[64], number[64];
    cJSON *state = read_json(folder, "trainer_state.json");
    const cJSON *options = cJSON_GetObjectItemCaseSensitive(state, "options");
    for (int i = 0; i < TRAIN_OPTION_COUNT; i++) {
        const Option *option = &train_options[i];
        const cJSON *saved = cJSON_GetObjectItemCaseSensitive(options, option->name);
        const char *was = saved ? options_json_text(saved, number) : NULL;
        if (!option->fixed || !was || strcmp(was, options_text(t->option_set, option, now)) == 0) continue;
        if (option->type == OPTION_FLOAT &&
            saved->valuedouble == *(double *)((char *)t->options + option->offset))
            continue; /* the same number, spelled otherwise */
        die("--%s is %s, but %s was trained with %s; give the same value, or start anew in another --out",
            option->name, options_text(t->option_set, option, now), folder, was);
    }
    const cJSON *step = cJSON_GetObjectItemCaseSensitive(state, "step");
    const cJSON *seconds = cJSON_GetObjectItemCaseSensitive(state, "seconds");
    if (!cJSON_IsNumber(step) || step->valuedouble < 0) die("%s/trainer_state.json has no step", folder);
    t->step = (int64_t)step->valuedouble;
    t->seconds = cJSON_IsNumber(seconds) ? seconds->valuedouble : 0;
    t->saved_step = t->step;
    if (!loss_watch_from_json(&t->watch, cJSON_GetObjectItemCaseSensitive(state, "watch")))
        die("%s/trainer_state.json: \"watch\" is damaged; resume from another checkpoint", folder);
    cJSON_Delete(state);
    if (!weights_files(&t->model, t->mean, t->square, folder, safetensors_read, error))
        die("cannot resume: %s", error);
}

/* 12.3M for 12300000 */
static const char *units(double x, char text[LOG_CELL_SIZE]) {
    log_units(text, x, 1, 0);
    return text;
}

/* Writes a small JSON file into the folder of the run and frees `json`. */
static void write_run_json(const Trainer *t, const char *name, cJSON *json) {
    char error[CHECKPOINT_ERROR_SIZE];
    Checkpoint run = {.step = -1};
    snprintf(run.folder, sizeof run.folder, "%s", t->options->out);
    if (!checkpoint_write_json(&run, name, json, error)) die("%s", error);
    cJSON_Delete(json);
}

/* Checks what no single option's bounds can; resolves the options that default to "what fits". */
ModelConfig resolve_options(Options *o, OptionSet *set) {
    if (!*o->data && !o->dry_run) options_fail(set, "--data=DIR is missing: a folder made by ./prepare");
    if (o->position == POSITION_ROPE && o->head_dim % 2)
        options_fail(set, "--head-dim=%d: rope turns pairs; give an even size or another --pos",
                     (int)o->head_dim);
    if (o->warmup > o->steps)
        options_fail(set, "--warmup=%lld exceeds --steps=%lld", (long long)o->warmup, (long long)o->steps);
    int64_t micro = o->batch * o->seq_len * parallel_ranks();
    if (o->total_batch == 0) o->total_batch = micro;
    if (o->total_batch % micro)
        options_fail(
            set, "--total-batch=%lld is no multiple of --batch x --seq-len x ranks = %lld x %lld x %d = %lld",
            (long long)o->total_batch, (long long)o->batch, (long long)o->seq_len, parallel_ranks(),
            (long long)micro);
    if (o->vocab_size == 0 && !*o->data)
        options_fail(set, "--vocab-size is missing: there is no --data whose tokenizer.json could tell it");
    if (o->vocab_size == 0) {
        char path[CHECKPOINT_PATH_SIZE];
        tokenizer_file(o, path);
        if (access(path, R_OK) != 0)
            options_fail(set, "--vocab-size is missing: %s cannot be read to tell it (%s)", path,
                         strerror(errno));
        Tokenizer *tokenizer = tokenizer_load(path);
        o->vocab_size = tokenizer_vocab_size(tokenizer);
        tokenizer_free(tokenizer);
    }
    return (ModelConfig){.layers = (int)o->layers,
                         .heads = (int)o->heads,
                         .head_dim = (int)o->head_dim,
                         .embd = (int)o->embd,
                         .mlp_hidden = (int)o->mlp_hidden,
                         .seq_len = (int)o->seq_len,
                         .vocab_size = (int)o->vocab_size,
                         .attn = o->attn,
                         .laser_shift = o->laser_shift,
                         .activation = o->activation,
                         .position = o->position,
                         .dtype = o->dtype};
}

/* The trainer that the options describe: open_data, trainer_allocate and open_run make it ready to run. */
Trainer trainer_plan(Options *options, OptionSet *set) {
    ModelConfig config = resolve_options(options, set);
    Trainer t = {.options = options, .option_set = set, .last_val_loss = NAN};
    t.model = model_plan(&config, (int)options->batch);
    t.step_sequences = options->total_batch / options->seq_len;
    t.micro_steps = t.step_sequences / (options->batch * parallel_ranks());
    return t;
}

void trainer_free(Trainer *t) {
    model_free(&t->model);
    free(t->mean), free(t->square), free(t->inputs), free(t->targets);
    if (t->train.n_parts) dataset_close(&t->train), dataset_close(&t->val);
    if (t->tokenizer) tokenizer_free(t->tokenizer);
}

/* What runs, before anything is allocated. */
void print_configuration(const Trainer *t) {
    const Options *o = t->options;
    char cpu[128], a[64], b[64], c[64];
    double matrices = 0, norms = 0;
    for (int i = 0; i < t->model.parameters.count; i++)
        *(t->model.parameters.tensors[i].rank == 2 ? &matrices : &norms) +=
            (double)t->model.parameters.tensors[i].count;
    printf("machine    %s, %d of %d cores in use, %s%s", machine_cpu_name(cpu), machine_threads(),
           machine_cores(), machine_isa(), parallel_ranks() > 1 ? "" : "\n");
    if (parallel_ranks() > 1) printf(", %d ranks\n", parallel_ranks());
    printf("model      %s attention%s%s, %s positions, %s\n", o->attn ? "LASER" : "standard",
           o->attn ? ", shift " : "",
           o->attn ? options_choice_name("causal|sequence", o->laser_shift, a) : "",
           options_choice_name("rope|sinusoidal|learned", o->position, b),
           options_choice_name("gelu|relu|swiglu", o->activation, c));
    printf("           %lld layers, %lld heads of %lld, width %lld, MLP %lld, T %lld, V %lld\n",
           (long long)o->layers, (long long)o->heads, (long long)o->head_dim, (long long)o->embd,
           (long long)o->mlp_hidden, (long long)o->seq_len, (long long)o->vocab_size);
    printf("parameters %s in matrices (weight decay %g), %s in norms (none)\n", units(matrices, a),
           o->weight_decay, units(norms, b));
    printf("batch      %lld tokens: %d ranks x %lld micro-steps x %lld sequences of %lld\n",
           (long long)tokens_per_step(t), parallel_ranks(), (long long)t->micro_steps, (long long)o->batch,
           (long long)o->seq_len);
    printf("run        %lld steps, %s tokens, seed %lld, %s\n", (long long)o->steps,
           units((double)(o->steps * tokens_per_step(t)), a), (long long)o->seed,
           o->dtype ? "bf16 operands" : "float32");
    printf("optimizer  AdamW, lr %g, %s after %lld steps of warmup, clip %g\n", o->lr,
           options_choice_name("cosine|linear|constant|wsd", o->schedule, c), (long long)o->warmup, o->clip);
    if (machine_threads() > machine_cores())
        warn("%d threads share %d cores; give --threads=%d, or let the launcher bind more cores to a rank "
             "(mpirun --bind-to none)",
             machine_threads(), machine_cores(), machine_cores());
}

/* Bytes the run will take, by category, printed when asked; allocation follows the same tables. */
int64_t memory_plan(const Model *model, bool print) {
    TensorTable table = activations_plan(model);
    size_t weights = model->parameters.floats, kept = 0;
    for (int i = 0; i < table.count; i++) kept += table.tensors[i].per_layer ? table.tensors[i].count : 0;
    const struct {
        const char *what;
        size_t floats;
    } categories[] = {{"parameters", weights},
                      {"gradients", weights},
                      {"AdamW's two moments", 2 * weights},
                      {"activations kept for backward", kept},
                      {"activations and gradients in work", table.floats - kept},
                      {"all", 4 * weights + table.floats}};
    const int count = sizeof categories / sizeof *categories;
    for (int i = 0; i < count && print; i++)
        printf("%s%-54s %10.1f MiB\n", i ? "" : "\nmemory\n", categories[i].what,
               categories[i].floats * 4 / 1048576.0);
    tensors_free(&table);
    return (int64_t)categories[count - 1].floats * 4;
}

void trainer_allocate(Trainer *t) {
    int64_t need = memory_plan(&t->model, false), have = machine_memory_available();
    if (need > have)
        die("the run needs %.1f GiB, this machine has %.1f GiB free; lower --batch (or the model's size)",
            (double)need / 0x1p30, (double)have / 0x1p30);
    model_allocate(&t->model);
    const size_t floats = t->model.weights.count * sizeof(float);
    t->mean = check_malloc(floats);
    t->square = check_malloc(floats);
    const size_t tokens = (size_t)t->model.batch * (size_t)t->model.config.seq_len * sizeof *t->inputs;
    t->inputs = check_malloc(tokens);
    t->targets = check_malloc(tokens);
}

/* Prints what a run would be and what it would take; times two micro-steps and an update on random tokens. */
void dry_run(Trainer *t) {
    int64_t matrix = model_matrix_parameters(&t->model);
    printf("\n");
    tensors_print(&t->model.parameters, t->model.config.layers);
    printf("matrix parameters %lld (%.1fM), %.4g floating-point operations a token\n", (long long)matrix,
           (double)matrix / 1e6, model_flops_per_token(&t->model));
    int64_t need = memory_plan(&t->model, true);
    if (need > machine_memory_available()) {
        printf("\nThis machine has %.1f GiB free, too little: no step was timed.\n",
               (double)machine_memory_available() / 0x1p30);
        return;
    }
    printf("\ntiming two micro-steps and an update...\n");
    fflush(stdout);
    trainer_allocate(t);
    const int T = t->model.config.seq_len, B = t->model.batch;
    model_init(&t->model, (uint64_t)t->options->seed);
    for (int64_t i = 0; i < (int64_t)B * T; i++) {
        t->inputs[i] =
            (int32_t)(rng_bits(1, RNG_STREAM_TEST, (uint64_t)i) % (uint64_t)t->options->vocab_size);
        t->targets[i] =
            (int32_t)(rng_bits(2, RNG_STREAM_TEST, (uint64_t)i) % (uint64_t)t->options->vocab_size);
    }
    double micro = INFINITY, start, loss = 0, flops[PROFILE_PARTS] = {0};
    for (int repeat = 0; repeat < 2; repeat++) {
        profile_reset();
        start = machine_seconds();
        model_forward(&t->model, t->inputs, B, T);
        loss =
            model_loss(&t->model, t->targets, (int64_t)B * T, 1.0f / ((float)B * (float)T)) / ((double)B * T);
        model_backward(&t->model, t->inputs, B, T);
        micro = fmin(micro, machine_seconds() - start);
    }
    profile(PROFILE_UPDATE);
    start = machine_seconds();
    update_weights(t, t->options->lr, 1);
    double update = machine_seconds() - start, step = micro * (double)t->micro_steps + update;
    double rate = (double)tokens_per_step(t) / step;
    char step_text[LOG_CELL_SIZE], run_text[LOG_CELL_SIZE];
    log_duration(step_text, step);
    log_duration(run_text, step * (double)t->options->steps);
    printf("first loss %.3f (ln V = %.3f)\n", loss, log(t->model.config.vocab_size));
    printf("%.1f tokens/s, %.1f %% of the measured peak of %.0f GFLOP/s\n", rate,
           100 * rate * model_flops_per_token(&t->model) / (t->peak_flops * parallel_ranks()),
           t->peak_flops / 1e9);
    printf("a step would take %s (%.2f s), the run %s\n", step_text, step, run_text);
    profile_print(flops, t->peak_flops);
    printf("largest resident memory: %.1f MiB\n", (double)machine_peak_rss() / 1048576);
}

void open_data(Trainer *t) {
    const Options *o = t->options;
    char path[CHECKPOINT_PATH_SIZE];
    dataset_open(&t->train, o->data, "train_", (int)o->seq_len, (int)o->vocab_size);
    dataset_open(&t->val, o->data, "val_", (int)o->seq_len, (int)o->vocab_size);
    dataset_check_manifest(o->data, (int)o->vocab_size);
    tokenizer_file(o, path);
    if (access(path, R_OK) == 0)
        t->tokenizer = tokenizer_load(path);
    else if (o->sample_every)
        warn("no samples: %s cannot be read (%s)", path, strerror(errno));
    if (t->tokenizer && o->sample_every && *o->prompt && *t->tokenizer->why_not)
        die("--prompt cannot be encoded: %s; leave it out", t->tokenizer->why_not);
    char a[LOG_CELL_SIZE], b[LOG_CELL_SIZE];
    if (parallel_rank() == 0)
        printf("data       %s: %s training and %s validation tokens, %.2f epochs\n", o->data,
               units((double)t->train.n_tokens, a), units((double)t->val.n_tokens, b),
               (double)(o->steps * tokens_per_step(t)) / (double)t->train.n_tokens);
}

/* Finds the checkpoint that --resume asks for; "" when the run starts from its beginning. A damaged one is named and
   passed over for the next older. */
static void find_checkpoint(const Options *o, char folder[CHECKPOINT_PATH_SIZE]) {
    char error[CHECKPOINT_ERROR_SIZE];
    long step = -1, newest = -1;
    folder[0] = 0;
    bool any = *o->out && checkpoint_latest(o->out, -1, folder, CHECKPOINT_PATH_SIZE, &newest);
    if (strcmp(o->resume, "no") == 0 && any)
        die("%s holds a run already (%s); --resume=auto goes on with it, or choose another --out", o->out,
            folder);
    if (strcmp(o->resume, "no") == 0) return;
    if (strcmp(o->resume, "auto") != 0) {
        snprintf(folder, CHECKPOINT_PATH_SIZE, "%s", o->resume);
        if (!checkpoint_verify(folder, error)) die("cannot resume: %s", error);
        return;
    }
    for (step = newest; any; any = checkpoint_latest(o->out, step, folder, CHECKPOINT_PATH_SIZE, &step)) {
        if (checkpoint_verify(folder, error)) return;
        warn("%s is passed over for an older checkpoint: %s", folder, error);
    }
    if (newest >= 0) die("no checkpoint in %s is whole; choose another --out to start anew", o->out);
}

/* The folder of the run: made, its config.json written, the checkpoint to go on from loaded. */
void open_run(Trainer *t) {
    const Options *o = t->options;
    char folder[CHECKPOINT_PATH_SIZE], newer[CHECKPOINT_PATH_SIZE], cpu[128];
    long newest;
    find_checkpoint(o, folder);
    if (*folder) {
        load_checkpoint(t, folder);
        if (*o->out && checkpoint_latest(o->out, -1, newer, sizeof newer, &newest) && newest > t->step &&
            strcmp(o->resume, "auto") != 0)
            die("%s is newer than %s, from which this run would go on; move it away or choose another --out",
                newer, folder);
        if (parallel_rank() == 0) printf("resumed    %s\n", folder);
    } else
        model_init(&t->model, (uint64_t)o->seed);
    if (parallel_rank() != 0) return;
    if (*o->out) {
        if (mkdir(o->out, 0777) != 0 && errno != EEXIST)
            die("cannot create the run folder '%s': %s; create its parent, or choose another --out", o->out,
                strerror(errno));
    }
    /* takes the lock of the folder, so that a second trainer dies before it changes anything */
    log_open(&t->log, *o->out ? o->out : NULL, (long)t->step, (long)o->steps, false);
    if (*o->out) {
        cJSON *json = cJSON_CreateObject(), *machine = cJSON_AddObjectToObject(json, "machine");
        cJSON_AddItemToObject(json, "options", options_to_json(t->option_set));
        cJSON_AddStringToObject(machine, "processor", machine_cpu_name(cpu));
        cJSON_AddStringToObject(machine, "instruction_set", machine_isa());
        cJSON_AddNumberToObject(machine, "threads", machine_threads());
        cJSON_AddNumberToObject(machine, "ranks", parallel_ranks());
        cJSON_AddNumberToObject(machine, "peak_flops", t->peak_flops);
        cJSON_AddStringToObject(json, "compiler", __VERSION__);
        cJSON_AddNumberToObject(json, "parameters", (double)t->model.weights.count);
        write_run_json(t, "config.json", json);
    }
}

static bool has_summary(const Trainer *t) {
    char path[CHECKPOINT_PATH_SIZE];
    snprintf(path, sizeof path, "%s/summary.json", t->options->out);
    return parallel_any(parallel_rank() == 0 && access(path, R_OK) == 0);
}

/* What a run says that a signal ended: a sentence for people, a line for job scripts. */
void report_stop(Trainer *t) {
    const Options *o = t->options;
    if (parallel_rank() != 0) return;
    log_message(&t->log, "stopped after %lld of %lld steps%s", (long long)t->step, (long long)o->steps,
                *o->out ? "; the same command with --resume=auto goes on"
                        : ", nothing was saved: there is no --out");
    if (*o->out)
        log_message(&t->log, "RESUME: %s step %lld of %lld", o->out, (long long)t->step, (long long)o->steps);
}

/* RUN/summary.json: what a table of results needs. */
void write_summary(const Trainer *t) {
    if (!*t->options->out || parallel_rank() != 0) return;
    LogSmooth smooth = t->log.smooth;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "final_train_loss", log_smooth(&smooth, NAN));
    cJSON_AddNumberToObject(json, "final_val_loss", t->last_val_loss);
    cJSON_AddNumberToObject(json, "seconds", t->seconds);
    cJSON_AddNumberToObject(json, "tokens_per_s", (double)(t->step * tokens_per_step(t)) / t->seconds);
    cJSON_AddNumberToObject(json, "peak_memory_bytes", (double)machine_peak_rss());
    cJSON_AddNumberToObject(json, "parameters", (double)t->model.weights.count);
    write_run_json(t, "summary.json", json);
}

#endif
