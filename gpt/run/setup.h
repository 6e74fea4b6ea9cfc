/* setup.h: the run around the training steps of train_gpt.c: what is settled and printed before it starts, the dry
   run, the run folder, and its checkpoints. The one header here that knows the trainer: train_gpt.c includes it
   between the step and the loop.

   trainer_plan(options, set)   settles the options, plans the model; then for a run, in this order:
   open_data(t)                 maps the shards, loads the tokenizer
   trainer_allocate(t)          all memory there will be
   open_run(t)                  initial weights or those of a checkpoint; the folder with config.json and log.jsonl
   write_summary(t)             RUN/summary.json at the end
   dry_run(t)                   instead of a run: parameters, memory, and the time, estimated from a piece of a step
   trainer_free(t) */
#ifndef GPT_RUN_SETUP_H
#define GPT_RUN_SETUP_H

#include "checkpointing.h"

/* 12.3M for 12300000 */
static const char *units(double x, char text[LOG_CELL_SIZE]) {
    log_units(text, x, 1, 0);
    return text;
}

/* Writes a small JSON file into the folder of the run, whole or not at all, and frees `json`. */
static void write_run_json(const Trainer *t, const char *name, cJSON *json) {
    char path[CHECKPOINT_PATH_SIZE], error[CHECKPOINT_ERROR_SIZE], *text = cJSON_Print(json);
    if (!text) die("no memory to write %s", name);
    if (!file_join(path, t->options->out, name, error) || !file_write_whole(path, text, strlen(text), error))
        die("%s", error);
    cJSON_free(text);
    cJSON_Delete(json);
}

/* ---- what several ranks must agree about ---- */

/* Whether `mine` is the same on every rank; *other becomes a rank that differs from rank 0. */
static bool ranks_agree(uint64_t mine, int *other) {
    const int ranks = parallel_ranks();
    uint64_t *all = check_malloc((size_t)ranks * sizeof *all);
    parallel_collect(all, &mine, sizeof mine);
    for (*other = 0; *other < ranks && all[*other] == all[0];) ++*other;
    free(all);
    return *other == ranks;
}

/* The option of which rank `other` has another value than rank 0: all ranks die, naming it. */
static void die_of_option(const OptionSet *set, const Option *option, int other) {
    enum { SHOWN = 200 };
    char text[64], mine[SHOWN] = "";
    snprintf(mine, sizeof mine, "%s", options_text(set, option, text));
    char(*all)[SHOWN] = check_malloc((size_t)parallel_ranks() * sizeof *all);
    parallel_collect(all, mine, sizeof mine);
    options_fail(
        set, "the ranks do not agree: --%s is %s on rank 0, %s on rank %d; start all with the same options",
        option->name, *all[0] ? all[0] : "empty", *all[other] ? all[other] : "empty", other);
}

/* Ranks with different options would train a model that none of them describes, or wait for each other for ever. One
   sum of all options is compared, and only when it differs each option for itself. */
static void check_options_agree(const OptionSet *set) {
    Sum all = sum_begin();
    int other;
    char text[64];
    for (int pass = 0; pass < 2 && parallel_ranks() > 1; pass++) {
        for (int i = 0; i < set->count; i++) {
            if (set->table[i].flags & OPTION_OWN) continue;
            const char *value = options_text(set, &set->table[i], text);
            Sum own = sum_begin();
            sum_add(pass ? &own : &all, value, strlen(value) + 1);
            if (pass && !ranks_agree(sum_end(&own), &other)) die_of_option(set, &set->table[i], other);
        }
        if (pass == 0 && ranks_agree(sum_end(&all), &other)) return;
    }
}

static void check_data_agree(const Trainer *t) {
    int other;
    if (parallel_ranks() == 1 || ranks_agree(data_print_sum(&t->data), &other)) return;
    die("the ranks do not agree: --data=%s holds other data (or another tokenizer.json) on rank %d than on "
        "rank 0; give all hosts the same files",
        t->options->data, other);
}

/* ---- settling the options ---- */

/* A warmup longer than the run is a mistake when it was asked for; one that a preset or the default brings along gives way. */
static void resolve_warmup(Options *o, const OptionSet *set) {
    if (o->warmup <= o->steps) return;
    if (options_given(set, "warmup"))
        options_fail(set, "--warmup=%lld exceeds --steps=%lld", (long long)o->warmup, (long long)o->steps);
    const int64_t tenth = (o->steps + 9) / 10;
    if (parallel_rank() == 0)
        warn("--warmup=%lld, which nobody asked for, exceeds --steps=%lld: %lld, a tenth of the steps, is "
             "taken",
             (long long)o->warmup, (long long)o->steps, (long long)tenth);
    o->warmup = tenth;
}

/* tokenizer.json of the data: read here, once. What the run reads at its start is what its checkpoints hold, whatever
   becomes of the file meanwhile. */
static void read_tokenizer(Trainer *t) {
    const Options *o = t->options;
    char path[CHECKPOINT_PATH_SIZE], error[FILE_ERROR_SIZE];
    if (!*o->data) return;
    tokenizer_file(o, path);
    t->tokenizer_text = file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, &t->tokenizer_size, error);
    if (t->tokenizer_text)
        t->tokenizer = tokenizer_parse(path, t->tokenizer_text, t->tokenizer_size, NULL);
    else if (errno != ENOENT)
        die("%s", error);
}

/* V from the tokenizer of the data, unless the user has given it: a preset's is that of the data it was made for. */
static void resolve_vocabulary(Options *o, const OptionSet *set, const Tokenizer *tokenizer) {
    char path[CHECKPOINT_PATH_SIZE], *folder;
    const bool given = o->vocab_size > 0 && options_given(set, "vocab-size");
    const int size = tokenizer ? tokenizer_vocab_size(tokenizer) : 0;
    if (given && size > o->vocab_size)
        options_fail(
            set, "--vocab-size=%lld: the tokenizer.json of --data has tokens up to number %d; leave it out",
            (long long)o->vocab_size, size - 1);
    if (given) return;
    if (size > 0 && o->vocab_size > 0 && o->vocab_size != size && parallel_rank() == 0)
        printf("vocabulary %d tokens, as the tokenizer.json of --data has; the preset's %lld are for other "
               "data\n",
               size, (long long)o->vocab_size);
    if (size > 0) o->vocab_size = size;
    if (o->vocab_size > 0) return;
    if (!*o->data)
        options_fail(set, "--vocab-size is missing: there is no --data whose tokenizer.json could tell it");
    folder = dataset_first_folder(o->data);
    if (access(folder, R_OK | X_OK) != 0)
        options_fail(set, "--data=%s: cannot open the folder %s (%s); ./prepare makes one", o->data, folder,
                     strerror(errno));
    free(folder);
    tokenizer_file(o, path);
    options_fail(set, "--vocab-size is missing: there is no %s to tell it", path);
}

/* bf16 only where every rank multiplies it faster: one dtype makes one model. All ranks call this, whatever they were given. */
static void resolve_dtype(Options *o) {
    const bool some_lack = parallel_any(!device_on() && !machine_native_bf16());
    if (o->dtype == DTYPE_AUTO) o->dtype = some_lack ? DTYPE_FP32 : DTYPE_BF16;
}

/* Checks what no single option's bounds can; resolves the options that default to "what fits". */
ModelConfig resolve_options(Options *o, OptionSet *set, const Tokenizer *tokenizer) {
    char error[FILE_ERROR_SIZE];
    resolve_dtype(o);
    if (!*o->data && !o->dry_run) options_fail(set, "--data=DIR is missing: a folder made by ./prepare");
    const bool resumes = strcmp(o->resume, "auto") == 0;
    if (!*o->out && !o->dry_run && (resumes || (o->save_every && options_given(set, "save-every"))))
        options_fail(set, "--%s needs --out=DIR, the folder of the run: without it nothing is saved",
                     resumes ? "resume=auto" : "save-every");
    resolve_warmup(o, set);
    if (o->comm == COMM_GPU && !device_on())
        options_fail(set, "--comm=gpu: this program computes on the CPU; leave it out");
    if (o->comm == COMM_GPU && !device_has_collectives())
        options_fail(set,
                     "--comm=gpu: built without NCCL; install it beside nvcc and make train_gptcu again, or "
                     "leave it out");
    if (o->comm == COMM_AUTO) o->comm = device_has_collectives() ? COMM_GPU : COMM_HOST;
    if (o->comm == COMM_GPU && o->comm_dtype && parallel_ranks() > 1 && parallel_rank() == 0)
        warn("--comm-dtype=bf16 is for --comm=host: from GPU to GPU gradients go in float32");
    int64_t micro = o->batch * o->seq_len * parallel_ranks();
    if (o->total_batch == 0) o->total_batch = micro;
    if (o->total_batch % micro)
        options_fail(
            set, "--total-batch=%lld is no multiple of --batch x --seq-len x ranks = %lld x %lld x %d = %lld",
            (long long)o->total_batch, (long long)o->batch, (long long)o->seq_len, parallel_ranks(),
            (long long)micro);
    resolve_vocabulary(o, set, tokenizer);
    const ModelConfig config = {.layers = (int)o->layers,
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
                                .dtype = o->dtype,
                                .recompute = o->recompute};
    if (!model_config_is_sound(&config, error)) options_fail(set, "%s", error);
    return config;
}

/* The trainer that the options describe: open_data, trainer_allocate and open_run make it ready to run. */
Trainer trainer_plan(Options *options, OptionSet *set) {
    Trainer t = {.options = options, .option_set = set, .last_val_loss = NAN};
    check_options_agree(set);
    read_tokenizer(&t);
    const ModelConfig config = resolve_options(options, set, t.tokenizer);
    check_options_agree(set); /* what each rank made of them: its tokenizer's size, say */
    t.model = model_plan(&config, (int)options->batch);
    divide_parameters(&t);
    if (update_is_on_device(&t)) t.model.device_moments = ranges_floats(t.owned, t.owned_count);
    t.step_sequences = options->total_batch / options->seq_len;
    t.micro_steps = t.step_sequences / (options->batch * parallel_ranks());
    return t;
}

void trainer_free(Trainer *t) {
    model_free(&t->model);
    saver_free(t->saver);
    parallel_close();
    parallel_buckets_free(&t->buckets);
    free(t->mean), free(t->square), free(t->owned), free(t->inputs), free(t->targets);
    if (t->train.n_parts) dataset_close(&t->train), dataset_close(&t->val);
    if (t->tokenizer) tokenizer_free(t->tokenizer);
    free(t->tokenizer_text);
    data_print_free(&t->data);
}

/* What runs, before anything is allocated. */
void print_configuration(const Trainer *t) {
    const Options *o = t->options;
    char cpu[128], gpu[128], a[64], b[64], c[64];
    double matrices = 0, norms = 0;
    for (int i = 0; i < t->model.parameters.count; i++)
        *(t->model.parameters.tensors[i].rank == 2 ? &matrices : &norms) +=
            (double)t->model.parameters.tensors[i].count;
    printf("machine    %s, %d of %d cores in use, %s\n", machine_cpu_name(cpu), machine_threads(),
           machine_cores(), machine_isa());
    hosts_print();
    if (device_on()) printf("GPU        %s\n", device_name(gpu));
    if (device_on() && parallel_ranks() > 1)
        printf("           gradients and weights go from %s\n",
               update_is_on_device(t) ? "GPU to GPU" : "GPU to host to host to GPU (slow)");
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
           o->dtype == DTYPE_BF16 ? "bf16 operands" : "float32");
    printf("optimizer  AdamW, lr %g, %s after %lld steps of warmup, clip %g\n", o->lr,
           options_choice_name("cosine|linear|constant|wsd", o->schedule, c), (long long)o->warmup, o->clip);
    if (machine_threads() > machine_cores() && !*parallel_host())
        warn("%d threads share %d cores; give --threads=%d", machine_threads(), machine_cores(),
             machine_cores());
}

/* Bytes this rank will take, by category, printed when asked; allocation follows the same tables. */
int64_t memory_plan(const Trainer *t, bool print, bool with_copy) {
    TensorTable table = activations_plan(&t->model);
    size_t weights = t->model.parameters.floats, kept = 0,
           moments = 2 * ranges_floats(t->owned, t->owned_count);
    size_t copy = with_copy ? saver_copy_floats(t) : 0;
    if (device_on()) table.floats = 0, table.count = 0; /* they are on the GPU */
    size_t buffers = update_is_on_device(t) ? 0 : parallel_buffer_floats(&t->buckets, t->options->comm_dtype);
    for (int i = 0; i < table.count; i++)
        if (table.tensors[i].per_layer && !(table.tensors[i].flags & TENSOR_SHARED))
            kept += table.tensors[i].floats;
    const AttentionShape shape = attention_shape(&t->model.config, t->model.batch, t->model.config.seq_len);
    const size_t packed = device_on() ? 0 : (size_t)model_packed_bytes(&t->model) / sizeof(float);
    const size_t work = device_on() ? 0
                                    : attention_memory(&shape, 1) / sizeof(float) + MATMUL_SHARED_FLOATS +
                                          (size_t)machine_threads() * MATMUL_PRIVATE_FLOATS;
    char moments_text[64] = "AdamW's two moments";
    if (t->owners > 1)
        snprintf(moments_text, sizeof moments_text, "AdamW's two moments, one of %d shares (--zero=1)",
                 t->owners);
    const struct {
        const char *what;
        size_t floats;
    } categories[] = {{"parameters", weights},
                      {"gradients", weights},
                      {moments_text, moments},
                      {"copy that checkpoints are written from (--save-every)", copy},
                      {"gradients of other ranks on their way", buffers},
                      {"activations kept for backward", kept},
                      {"activations and gradients in work", table.floats - kept},
                      {"weights packed in bf16", packed},
                      {"work of products and attention", work},
                      {"all", 2 * weights + moments + copy + buffers + table.floats + packed + work}};
    const int count = sizeof categories / sizeof *categories;
    if (print) printf("\nmemory\n");
    for (int i = 0; i < count && print; i++)
        if (categories[i].floats)
            printf("%-54s %10.1f MiB\n", categories[i].what, (double)categories[i].floats * 4 / 1048576);
    if (print && device_on()) {
        DeviceModel model = device_model(&t->model);
        printf("%-54s %10.1f MiB\n", "on the GPU", (double)device_memory_needed(&model) / 1048576);
        free((void *)model.at);
    }
    tensors_free(&table);
    return (int64_t)categories[count - 1].floats * 4;
}

/* Where the time went since profile_reset, in which `micro_steps` micro-steps were done. */
void print_profile(const Trainer *t, double micro_steps) {
    double operations[PROFILE_PARTS];
    for (int i = 0; i < PROFILE_PARTS; i++) operations[i] = micro_steps * model_part_operations(&t->model, i);
    profile_print(operations, t->peak_flops);
}

void trainer_allocate(Trainer *t) {
    int64_t need = memory_plan(t, false, true), have = hosts_memory_available();
    bool with_copy = need <= have;
    if (!with_copy && memory_plan(t, false, false) <= have) {
        warn("checkpoints are written while training waits: their copy would make it %.1f GiB, %.1f are free",
             (double)need / 0x1p30, (double)have / 0x1p30);
    } else if (!with_copy)
        die("the run needs %.1f GiB, this machine has %.1f GiB free; lower --batch (or the model's size)",
            (double)memory_plan(t, false, false) / 0x1p30, (double)have / 0x1p30);
    model_allocate(&t->model);
    const size_t owned = ranges_floats(t->owned, t->owned_count) * sizeof(float);
    if (update_is_on_device(t))
        device_join(&(DeviceJob){parallel_rank(), parallel_ranks(), t->buckets.ranges, t->buckets.count,
                                 parallel_collect});
    else
        parallel_open(&t->buckets, t->options->comm_dtype, t->options->comm_thread);
    if (!t->options->comm_thread) profile_between = parallel_progress;
    log_several_ranks = parallel_ranks() > 1;
    t->mean = machine_allocate(owned);
    t->square = machine_allocate(owned);
    t->saver = saver_create(t, with_copy);
    const size_t tokens = (size_t)t->model.batch * (size_t)t->model.config.seq_len * sizeof *t->inputs;
    t->inputs = check_malloc(tokens);
    t->targets = check_malloc(tokens);
}

/* ---- the dry run ---- */

#define DRY_RUN_SECONDS 0.5 /* about, of a micro-step that is timed */
enum { DRY_RUN_STEPS = 3 }; /* of which the fastest counts */

/* Operations of a micro-step of the model with the layers, length and sequences that the options say. */
static double piece_operations(const Trainer *t, const Options *o) {
    ModelConfig config = t->model.config;
    config.layers = (int)o->layers, config.seq_len = (int)o->seq_len;
    Model model = model_plan(&config, (int)o->batch);
    const double operations = model_flops_per_token(&model) * (double)(o->batch * o->seq_len);
    model_free(&model);
    return operations;
}

/* The same model with fewer sequences, layers and, when that is not enough, shorter ones, so that a micro-step takes
   about DRY_RUN_SECONDS. Widths and vocabulary stay: they decide how fast the products are. */
static Options dry_run_piece(const Trainer *t) {
    Options piece = *t->options;
    const double most = 0.6 * t->peak_flops * DRY_RUN_SECONDS;
    piece.total_batch = 0;
    while (piece.batch > 1 && piece_operations(t, &piece) > most) piece.batch = piece.batch / 2;
    while (piece.layers > 1 && piece_operations(t, &piece) > most) piece.layers = piece.layers / 2;
    while (piece.seq_len > 64 && piece_operations(t, &piece) > most) piece.seq_len = piece.seq_len / 2;
    return piece;
}

/* What is done once a step, however many micro-steps it has; its work goes with the parameters. */
static bool is_once_a_step(ProfilePart part) {
    return part == PROFILE_UPDATE || part == PROFILE_REDUCE || part == PROFILE_PACK;
}

/* How often the work of a part of the piece's micro-step is in one of the whole. */
static double dry_run_factor(const Trainer *t, const Trainer *piece, ProfilePart part) {
    const double operations = model_part_operations(&piece->model, part);
    const ModelConfig *whole = &t->model.config, *small = &piece->model.config;
    if (operations > 0) return model_part_operations(&t->model, part) / operations;
    if (is_once_a_step(part))
        return (double)t->model.parameters.floats / (double)piece->model.parameters.floats;
    double factor = (double)whole->layers / small->layers;
    if (part == PROFILE_CROSS_ENTROPY || part == PROFILE_EMBEDDING || part == PROFILE_DATA) factor = 1;
    return factor * t->model.batch * whole->seq_len / ((double)piece->model.batch * small->seq_len);
}

/* One micro-step and an update of the piece, on random tokens; leaves the seconds of each part in profile_state and
   returns the loss. */
static double dry_run_step(Trainer *piece) {
    const int T = piece->model.config.seq_len, B = piece->model.batch;
    profile_reset();
    model_forward(&piece->model, piece->inputs, B, T);
    double loss = model_loss(&piece->model, piece->targets, (int64_t)B * T, 1.0f / ((float)B * (float)T));
    model_backward(&piece->model, piece->inputs, B, T);
    loss = (loss + device_loss_sum()) / ((double)B * T); /* waits for a GPU */
    profile(PROFILE_UPDATE);
    update_weights(piece, piece->options->lr, 1);
    device_loss_sum();
    profile(PROFILE_OTHER);
    return loss;
}

/* The parts of the fastest of several, in profile_state: the first one touches the memory and wakes the threads, and
   other programs come and go. Returns the first loss. */
static double dry_run_steps(Trainer *piece) {
    double best[PROFILE_PARTS], least = INFINITY, first = 0;
    for (int step = 0; step < DRY_RUN_STEPS; step++) {
        double loss = dry_run_step(piece), sum = 0;
        if (step == 0) first = loss;
        for (int part = 0; part < PROFILE_PARTS; part++) sum += profile_state.seconds[part];
        if (sum < least) least = sum, memcpy(best, profile_state.seconds, sizeof best);
    }
    profile_reset();
    memcpy(profile_state.seconds, best, sizeof best);
    return first;
}

static void dry_run_tokens(Trainer *piece) {
    const uint64_t V = (uint64_t)piece->options->vocab_size;
    for (int64_t i = 0; i < (int64_t)piece->model.batch * piece->model.config.seq_len; i++) {
        piece->inputs[i] = (int32_t)(rng_bits(1, RNG_STREAM_TEST, (uint64_t)i) % V);
        piece->targets[i] = (int32_t)(rng_bits(2, RNG_STREAM_TEST, (uint64_t)i) % V);
    }
}

/* The time of a step, from that of a piece of it. */
static void dry_run_time(const Trainer *t, Trainer *piece) {
    char step_text[DURATION_SIZE], run_text[DURATION_SIZE];
    double micro = 0, update = 0;
    trainer_allocate(piece);
    model_init(&piece->model, (uint64_t)piece->options->seed);
    send_to_device(piece);
    dry_run_tokens(piece);
    const double loss = dry_run_steps(piece);
    for (int part = 0; part < PROFILE_PARTS; part++) {
        double *seconds = &profile_state.seconds[part];
        *seconds *= dry_run_factor(t, piece, (ProfilePart)part);
        *(is_once_a_step((ProfilePart)part) ? &update : &micro) += *seconds;
    }
    const double step = micro * (double)t->micro_steps + update, rate = (double)tokens_per_step(t) / step;
    printf("first loss %.3f (ln V = %.3f)\n", loss, log(t->model.config.vocab_size));
    printf("%.1f tokens/s, %.1f %% of the measured peak of %.0f GFLOP/s\n", rate,
           100 * rate * model_flops_per_token(&t->model) / (t->peak_flops * parallel_ranks()),
           t->peak_flops / 1e9);
    printf("a step would take %s, the run %s\n", duration_words(step_text, step),
           duration_words(run_text, step * (double)t->options->steps));
    print_profile(t, 1);
}

/* Prints what a run would be and what it would take. */
void dry_run(Trainer *t) {
    if (parallel_rank() != 0 && !freopen("/dev/null", "w", stdout)) return; /* rank 0 prints for all */
    const int64_t matrix = model_matrix_parameters(&t->model), have = hosts_memory_available();
    char sharing[32] = "";
    if (hosts_sharing() > 1) snprintf(sharing, sizeof sharing, " for each of %d ranks", hosts_sharing());
    printf("\n");
    tensors_print(&t->model.parameters, t->model.config.layers);
    printf("matrix parameters %lld (%.1fM), %.4g floating-point operations a token\n", (long long)matrix,
           (double)matrix / 1e6, model_flops_per_token(&t->model));
    if (memory_plan(t, true, true) > have && memory_plan(t, false, false) > have)
        printf("\nIt does not fit: %.1f GiB are free here%s; lower --batch (or the model's size).\n",
               (double)have / 0x1p30, sharing);
    t->peak_flops =
        parallel_sum_double(t->peak_flops) / parallel_ranks(); /* all must choose the same piece */
    Options options = dry_run_piece(t);
    Trainer piece = trainer_plan(&options, t->option_set);
    piece.peak_flops = t->peak_flops;
    const ModelConfig *c = &piece.model.config;
    if (parallel_any(memory_plan(&piece, false, false) > hosts_memory_available())) {
        printf("No step was timed: not even a small piece of one fits.\n");
        trainer_free(&piece);
        return;
    }
    if (piece.model.batch == t->model.batch && c->layers == t->model.config.layers &&
        c->seq_len == t->model.config.seq_len)
        printf("\nestimated from one micro-step and one update\n");
    else
        printf("\nestimated from a micro-step of %d sequence%s of %d tokens through %d layer%s, each part "
               "times\n"
               "its operations in the whole\n",
               piece.model.batch, piece.model.batch > 1 ? "s" : "", c->seq_len, c->layers,
               c->layers > 1 ? "s" : "");
    fflush(stdout);
    dry_run_time(t, &piece);
    trainer_free(&piece);
}

/* A shard that another program cuts short while it is read ends the run with its name, not with a bare SIGBUS. */
static void watch_shards(const Dataset *d) {
    for (int p = 0; p < d->n_parts; p++)
        for (int i = 0; i < d->parts[p].n_shards; i++) {
            const Shard *shard = &d->parts[p].shards[i];
            faults_watch_file(shard->path, shard->map, shard->bytes);
        }
}

/* The manifest was compared with the tokenizer.json that is there now: that it is still the one that was read. */
static void check_tokenizer_unchanged(const Trainer *t) {
    char path[CHECKPOINT_PATH_SIZE], error[FILE_ERROR_SIZE];
    size_t size = 0;
    if (!t->tokenizer_text) return;
    tokenizer_file(t->options, path);
    char *text = file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, &size, error);
    if (!text || size != t->tokenizer_size || memcmp(text, t->tokenizer_text, size) != 0)
        die("'%s' changed while the run was starting; start it again when nothing writes there any more",
            path);
    free(text);
}

void open_data(Trainer *t) {
    const Options *o = t->options;
    char a[LOG_CELL_SIZE], b[LOG_CELL_SIZE], name[CHECK_TEXT_SIZE];
    dataset_open(&t->train, o->data, "train_", (int)o->seq_len, (int)o->vocab_size);
    dataset_open(&t->val, o->data, "val_", (int)o->seq_len, (int)o->vocab_size);
    watch_shards(&t->train), watch_shards(&t->val);
    const bool sums = o->verify_data && parallel_rank() == 0;
    if (sums)
        printf("verify     %s: every byte of %.1f GB of shards\n", check_shown(name, o->data),
               2e-9 * (double)(t->train.n_tokens + t->val.n_tokens));
    dataset_check_manifest(o->data, (int)o->vocab_size, sums);
    check_tokenizer_unchanged(t);
    t->data = data_print_of(&t->train, &t->val, t->tokenizer_text, t->tokenizer_size);
    check_data_agree(t);
    if (!t->tokenizer && o->sample_every) warn("no samples: there is no tokenizer.json in %s", o->data);
    if (t->tokenizer && o->sample_every && *o->prompt && *t->tokenizer->why_not)
        die("--prompt cannot be encoded: %s; leave it out", t->tokenizer->why_not);
    if (parallel_rank() == 0)
        printf("data       %s: %s training and %s validation tokens, %.2f epochs\n",
               check_shown(name, o->data), units((double)t->train.n_tokens, a),
               units((double)t->val.n_tokens, b),
               (double)(o->steps * tokens_per_step(t)) / (double)t->train.n_tokens);
}

/* Which program wrote it, when and where. */
static void add_provenance(cJSON *json) {
    char text[256] = "";
    const time_t now = time(NULL);
    struct tm utc;
    cJSON_AddStringToObject(json, "commit", BUILD_COMMIT);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    cJSON_AddStringToObject(json, "date", text);
    gethostname(text, sizeof text - 1);
    cJSON_AddStringToObject(json, "host", text);
}

/* The folder of the run: made, its config.json written, the checkpoint to go on from loaded. */
void open_run(Trainer *t) {
    const Options *o = t->options;
    char folder[CHECKPOINT_PATH_SIZE], newer[CHECKPOINT_PATH_SIZE], error[FILE_ERROR_SIZE], cpu[128],
        name[CHECK_TEXT_SIZE];
    long newest;
    find_checkpoint(o, folder);
    if (*folder) {
        load_checkpoint(t, folder);
        if (strcmp(o->resume, "auto") == 0) t->saved_step = t->step;
        if (*o->out && checkpoint_latest(o->out, -1, newer, sizeof newer, &newest) && newest > t->step &&
            strcmp(o->resume, "auto") != 0)
            die("%s is newer than %s, from which this run would go on; move it away or choose another --out",
                newer, folder);
        if (parallel_rank() == 0) printf("resumed    %s\n", check_shown(name, folder));
    } else
        model_init(&t->model, (uint64_t)o->seed);
    send_to_device(t);
    if (parallel_rank() != 0) return;
    if (*o->out) {
        if (!file_make_folders(o->out, error)) die("--out: %s", error);
    }
    /* takes the lock of the folder, so that a second trainer dies before it changes anything */
    log_open(&t->log, *o->out ? o->out : NULL, (long)t->step, (long)o->steps, false);
    if (!*o->out) warn("nothing of this run will be kept, neither weights nor losses: there is no --out=DIR");
    if (*o->out) {
        if (!checkpoint_clean(o->out, error))
            die("%s", error); /* what a killed run left half written or removed */
        cJSON *json = cJSON_CreateObject(), *machine = cJSON_AddObjectToObject(json, "machine");
        cJSON_AddItemToObject(json, "options", options_to_json(t->option_set));
        cJSON_AddStringToObject(machine, "processor", machine_cpu_name(cpu));
        if (device_on()) cJSON_AddStringToObject(machine, "gpu", device_name(cpu));
        cJSON_AddStringToObject(machine, "instruction_set", machine_isa());
        json_add_number(machine, "threads", machine_threads());
        json_add_number(machine, "ranks", parallel_ranks());
        json_add_number(machine, "peak_flops", t->peak_flops);
        cJSON_AddStringToObject(json, "compiler", BUILD_COMPILER);
        add_provenance(json);
        json_add_number(json, "parameters", (double)t->model.weights.count);
        write_run_json(t, "config.json", json);
    }
}

/* Whether the run's summary was written: a file that a full disk or a crash left empty is none. */
static bool has_summary(const Trainer *t) {
    char path[CHECKPOINT_PATH_SIZE], error[FILE_ERROR_SIZE];
    size_t size;
    char *text = NULL;
    if (parallel_rank() == 0 && file_join(path, t->options->out, "summary.json", error))
        text = file_read(path, FILE_REGULAR, 1 << 20, &size, error);
    cJSON *json = text ? json_parse(text, size) : NULL;
    const bool has = cJSON_HasObjectItem(json, "final_val_loss");
    cJSON_Delete(json);
    free(text);
    return parallel_any(has);
}

/* The last checkpoint of a run could not be written: that must not look like success. */
void check_saved(const Trainer *t) {
    if (parallel_rank() != 0 || !*t->options->out || t->saved_step == t->step) return;
    die("the steps from %lld to %lld are lost: their checkpoint could not be written, see above; free some "
        "space, then "
        "the same command with --resume=auto does them again",
        (long long)t->saved_step + 1, (long long)t->step);
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
    json_add_number(json, "final_train_loss", log_smooth(&smooth, NAN));
    json_add_number(json, "final_val_loss", t->last_val_loss);
    json_add_number(json, "seconds", t->seconds);
    json_add_number(json, "tokens_per_s", (double)(t->step * tokens_per_step(t)) / t->seconds);
    json_add_number(json, "peak_memory_bytes", (double)machine_peak_rss());
    json_add_number(json, "parameters", (double)t->model.weights.count);
    char error[FILE_ERROR_SIZE];
    if (!checkpoint_clean(t->options->out, error)) warn("%s", error);
    write_run_json(t, "summary.json", json);
}

#endif
