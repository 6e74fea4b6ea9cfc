/* setup.h: what happens around the training steps: options are settled and checked, the run's folder, data and log are
   opened, and what the program says at its start and at its end.

   run_settle(run, options, set)    settles the options of all ranks; reads the tokenizer of the data
   print_configuration(run, optimizer)   what runs, before anything is allocated
   memory_plan(run, optimizer, &model, print, with_copy)   bytes that this rank needs
   open_data(run)                   maps the shards of tokens
   run_resume(run, optimizer)       whether there is a checkpoint to go on from; then it is loaded
   open_run(run, parameters)        makes the run's folder with config.json and log.jsonl
   write_summary(run, parameters)   RUN/summary.json, at the end
   report_stop(run)                 what a run says that a signal has ended
   run_free(run)
   Every rank calls each of these, in this order. */
#ifndef GPT_RUN_SETUP_H
#define GPT_RUN_SETUP_H

#include "../dist/hosts.h"
#include "checkpointing.h"
#include "run.h"

/* 12.3M for 12300000 */
static inline const char *units(double x, char text[LOG_CELL_SIZE]) {
    log_units(text, x, 1, 0);
    return text;
}

/* Writes a small JSON file into the folder of the run, whole or not at all, and frees `json`. */
static inline void write_run_json(const Run *run, const char *name, cJSON *json) {
    char path[CHECKPOINT_PATH_SIZE], error[CHECKPOINT_ERROR_SIZE], *text = cJSON_Print(json);
    if (!text) die("no memory to write %s", name);
    if (!file_join(path, run->options->out, name, error) ||
        !file_write_whole(path, text, strlen(text), error))
        die("%s", error);
    cJSON_free(text);
    cJSON_Delete(json);
}

/* ---- what several ranks must agree about ---- */

/* Whether `mine` is the same on every rank; *other becomes a rank that differs from rank 0. */
static inline bool ranks_agree(uint64_t mine, int *other) {
    const int ranks = parallel_ranks();
    uint64_t *all = check_malloc((size_t)ranks * sizeof *all);
    parallel_collect(all, &mine, sizeof mine);
    for (*other = 0; *other < ranks && all[*other] == all[0];) ++*other;
    free(all);
    return *other == ranks;
}

/* The option of which rank `other` has another value than rank 0: all ranks die, naming it. */
static inline void die_of_option(const OptionSet *set, const Option *option, int other) {
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
static inline void check_options_agree(const OptionSet *set) {
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

static inline void check_data_agree(const Run *run) {
    int other;
    if (parallel_ranks() == 1 || ranks_agree(data_print_sum(&run->data), &other)) return;
    die("the ranks do not agree: --data=%s holds other data (or another tokenizer.json) on rank %d than on "
        "rank 0; give all hosts the same files",
        run->options->data, other);
}

/* ---- settling the options ---- */

/* A warmup longer than the run is a mistake when it was asked for; one that a preset or the default brings along gives way. */
static inline void resolve_warmup(Options *o, const OptionSet *set) {
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
static inline void read_tokenizer(Run *run) {
    const Options *o = run->options;
    char path[CHECKPOINT_PATH_SIZE], error[FILE_ERROR_SIZE];
    if (!*o->data) return;
    run_tokenizer_path(o, path);
    run->tokenizer_text = file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, &run->tokenizer_size, error);
    if (run->tokenizer_text)
        run->tokenizer = tokenizer_parse(path, run->tokenizer_text, run->tokenizer_size, NULL);
    else if (errno != ENOENT)
        die("%s", error);
}

/* V from the tokenizer of the data, unless the user has given it: a preset's is that of the data it was made for. */
static inline void resolve_vocabulary(Options *o, const OptionSet *set, const Tokenizer *tokenizer) {
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
    run_tokenizer_path(o, path);
    options_fail(set, "--vocab-size is missing: there is no %s to tell it", path);
}

/* bf16 only where every rank multiplies it faster: one dtype makes one model. All ranks call this, whatever they were given. */
static inline void resolve_dtype(Options *o) {
    const bool some_lack = parallel_any(!device_on() && !machine_native_bf16());
    if (o->dtype == DTYPE_AUTO) o->dtype = some_lack ? DTYPE_FP32 : DTYPE_BF16;
}

/* Checks what no single option's bounds can; resolves the options that default to "what fits". */
static inline void resolve_options(Options *o, OptionSet *set, const Tokenizer *tokenizer) {
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
}

static inline void run_settle(Run *run, Options *options, OptionSet *set) {
    *run = (Run){.options = options, .option_set = set, .last_val_loss = NAN};
    check_options_agree(set);
    read_tokenizer(run);
    resolve_options(options, set, run->tokenizer);
    check_options_agree(set); /* what each rank made of them: its tokenizer's size, say */
    run->step_sequences = options->total_batch / options->seq_len;
    run->micro_steps = run->step_sequences / (options->batch * parallel_ranks());
}

static inline void run_free(Run *run) {
    saver_free(run->saver);
    cJSON_Delete(run->model_config);
    if (run->train.n_parts) dataset_close(&run->train), dataset_close(&run->val);
    if (run->tokenizer) tokenizer_free(run->tokenizer);
    free(run->tokenizer_text);
    data_print_free(&run->data);
}

/* What runs, before anything is allocated. */
static inline void print_configuration(const Run *run, const ShardedOptimizer *optimizer) {
    const Options *o = run->options;
    const TensorTable *parameters = &optimizer->parameters;
    char cpu[128], gpu[128], a[64], b[64], c[64];
    double matrices = 0, norms = 0;
    for (int i = 0; i < parameters->count; i++)
        *(parameters->tensors[i].rank == 2 ? &matrices : &norms) += (double)parameters->tensors[i].count;
    printf("machine    %s, %d of %d cores in use, %s\n", machine_cpu_name(cpu), machine_threads(),
           machine_cores(), machine_isa());
    hosts_print();
    if (device_on()) printf("GPU        %s\n", device_name(gpu));
    if (device_on() && parallel_ranks() > 1)
        printf("           gradients and weights go from %s\n",
               optimizer->on_gpu ? "GPU to GPU" : "GPU to host to host to GPU (slow)");
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
           (long long)run_tokens_per_step(run), parallel_ranks(), (long long)run->micro_steps,
           (long long)o->batch, (long long)o->seq_len);
    printf("run        %lld steps, %s tokens, seed %lld, %s\n", (long long)o->steps,
           units((double)(o->steps * run_tokens_per_step(run)), a), (long long)o->seed,
           o->dtype == DTYPE_BF16 ? "bf16 operands" : "float32");
    printf("optimizer  AdamW, lr %g, %s after %lld steps of warmup, clip %g\n", o->lr,
           options_choice_name("cosine|linear|constant|wsd", o->schedule, c), (long long)o->warmup, o->clip);
    if (machine_threads() > machine_cores() && !*parallel_host())
        warn("%d threads share %d cores; give --threads=%d", machine_threads(), machine_cores(),
             machine_cores());
}

/* What a model needs beside its parameters, in floats; a part that is on a GPU counts in gpu_bytes alone. */
typedef struct {
    size_t activations_kept,
        activations_scratch; /* kept from forward to backward; used again by every layer */
    size_t packed;           /* the weights as products read them, with bf16 */
    size_t work;             /* of the products and of attention while they compute */
    size_t gpu_bytes;        /* all that the GPU holds; 0: there is none */
} ModelMemory;

/* Bytes that this rank needs, printed by category when `print` says so; `with_copy`: with the copy that a checkpoint is
   written from while training goes on. */
static inline int64_t memory_plan(const Run *run, const ShardedOptimizer *o, const ModelMemory *model,
                                  bool print, bool with_copy) {
    const size_t weights = o->parameters.floats, moments = 2 * optimizer_moments(o);
    const size_t copy = with_copy ? saver_copy_floats(run, o) : 0;
    const size_t buffers = optimizer_buffer_floats(o, run->options->comm_dtype);
    char moments_text[64] = "AdamW's two moments";
    if (o->shards > 1)
        snprintf(moments_text, sizeof moments_text, "AdamW's two moments, one of %d shares (--zero=1)",
                 o->shards);
    const struct {
        const char *what;
        size_t floats;
    } categories[] = {{"parameters", weights},
                      {"gradients", weights},
                      {moments_text, moments},
                      {"copy that checkpoints are written from (--save-every)", copy},
                      {"gradients of other ranks on their way", buffers},
                      {"activations kept for backward", model->activations_kept},
                      {"activations and gradients in work", model->activations_scratch},
                      {"weights packed in bf16", model->packed},
                      {"work of products and attention", model->work}};
    const int count = sizeof categories / sizeof *categories;
    size_t all = 0;
    if (print) printf("\nmemory\n");
    for (int i = 0; i < count; i++) {
        all += categories[i].floats;
        if (print && categories[i].floats)
            printf("%-54s %10.1f MiB\n", categories[i].what, (double)categories[i].floats * 4 / 1048576);
    }
    if (print) printf("%-54s %10.1f MiB\n", "all", (double)all * 4 / 1048576);
    if (print && model->gpu_bytes)
        printf("%-54s %10.1f MiB\n", "on the GPU", (double)model->gpu_bytes / 1048576);
    return (int64_t)all * 4;
}

/* Whether there is memory for the copy that checkpoints are written from; dies when there is none for the run itself. */
static inline bool memory_has_copy(const Run *run, const ShardedOptimizer *o, const ModelMemory *model) {
    const int64_t with_copy = memory_plan(run, o, model, false, true), have = hosts_memory_available();
    const int64_t without = memory_plan(run, o, model, false, false);
    if (with_copy <= have) return true;
    if (without > have)
        die("the run needs %.1f GiB, this machine has %.1f GiB free; lower --batch (or the model's size)",
            (double)without / 0x1p30, (double)have / 0x1p30);
    warn("checkpoints are written while training waits: their copy would make it %.1f GiB, %.1f are free",
         (double)with_copy / 0x1p30, (double)have / 0x1p30);
    return false;
}

/* A shard that another program cuts short while it is read ends the run with its name, not with a bare SIGBUS. */
static inline void watch_shards(const Dataset *d) {
    for (int p = 0; p < d->n_parts; p++)
        for (int i = 0; i < d->parts[p].n_shards; i++) {
            const Shard *shard = &d->parts[p].shards[i];
            faults_watch_file(shard->path, shard->map, shard->bytes);
        }
}

/* The manifest was compared with the tokenizer.json that is there now: that it is still the one that was read. */
static inline void check_tokenizer_unchanged(const Run *run) {
    char path[CHECKPOINT_PATH_SIZE], error[FILE_ERROR_SIZE];
    size_t size = 0;
    if (!run->tokenizer_text) return;
    run_tokenizer_path(run->options, path);
    char *text = file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, &size, error);
    if (!text || size != run->tokenizer_size || memcmp(text, run->tokenizer_text, size) != 0)
        die("'%s' changed while the run was starting; start it again when nothing writes there any more",
            path);
    free(text);
}

static inline void open_data(Run *run) {
    const Options *o = run->options;
    char a[LOG_CELL_SIZE], b[LOG_CELL_SIZE], name[CHECK_TEXT_SIZE];
    dataset_open(&run->train, o->data, "train_", (int)o->seq_len, (int)o->vocab_size);
    dataset_open(&run->val, o->data, "val_", (int)o->seq_len, (int)o->vocab_size);
    watch_shards(&run->train), watch_shards(&run->val);
    const bool sums = o->verify_data && parallel_rank() == 0;
    if (sums)
        printf("verify     %s: every byte of %.1f GB of shards\n", check_shown(name, o->data),
               2e-9 * (double)(run->train.n_tokens + run->val.n_tokens));
    dataset_check_manifest(o->data, (int)o->vocab_size, sums);
    check_tokenizer_unchanged(run);
    run->data = data_print_of(&run->train, &run->val, run->tokenizer_text, run->tokenizer_size);
    check_data_agree(run);
    if (!run->tokenizer && o->sample_every) warn("no samples: there is no tokenizer.json in %s", o->data);
    if (run->tokenizer && o->sample_every && *o->prompt && *run->tokenizer->why_not)
        die("--prompt cannot be encoded: %s; leave it out", run->tokenizer->why_not);
    if (parallel_rank() == 0)
        printf("data       %s: %s training and %s validation tokens, %.2f epochs\n",
               check_shown(name, o->data), units((double)run->train.n_tokens, a),
               units((double)run->val.n_tokens, b),
               (double)(o->steps * run_tokens_per_step(run)) / (double)run->train.n_tokens);
}

/* Which program wrote it, when and where. */
static inline void add_provenance(cJSON *json) {
    char text[256] = "";
    const time_t now = time(NULL);
    struct tm utc;
    cJSON_AddStringToObject(json, "commit", BUILD_COMMIT);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    cJSON_AddStringToObject(json, "date", text);
    gethostname(text, sizeof text - 1);
    cJSON_AddStringToObject(json, "host", text);
}

/* Loads the checkpoint that --resume asks for; false when the run starts from its beginning. */
static inline bool run_resume(Run *run, ShardedOptimizer *optimizer) {
    const Options *o = run->options;
    char folder[CHECKPOINT_PATH_SIZE], newer[CHECKPOINT_PATH_SIZE], name[CHECK_TEXT_SIZE];
    long newest;
    const bool automatic = strcmp(o->resume, "auto") == 0;
    find_checkpoint(o, folder);
    if (!*folder) return false;
    load_checkpoint(run, optimizer, folder);
    if (automatic) run->saved_step = run->step;
    if (!automatic && *o->out && checkpoint_latest(o->out, -1, newer, sizeof newer, &newest) &&
        newest > run->step)
        die("%s is newer than %s, from which this run would go on; move it away or choose another --out",
            newer, folder);
    if (parallel_rank() == 0) printf("resumed    %s\n", check_shown(name, folder));
    return true;
}

/* RUN/config.json: the options, the machine and the program. */
static inline void write_config(const Run *run, const TensorTable *parameters) {
    char text[128];
    cJSON *json = cJSON_CreateObject(), *machine = cJSON_AddObjectToObject(json, "machine");
    cJSON_AddItemToObject(json, "options", options_to_json(run->option_set));
    cJSON_AddStringToObject(machine, "processor", machine_cpu_name(text));
    if (device_on()) cJSON_AddStringToObject(machine, "gpu", device_name(text));
    cJSON_AddStringToObject(machine, "instruction_set", machine_isa());
    json_add_number(machine, "threads", machine_threads());
    json_add_number(machine, "ranks", parallel_ranks());
    json_add_number(machine, "peak_flops", run->peak_flops);
    cJSON_AddStringToObject(json, "compiler", BUILD_COMPILER);
    add_provenance(json);
    json_add_number(json, "parameters", (double)parameters->floats);
    write_run_json(run, "config.json", json);
}

/* The log takes the lock of the folder, so that a second trainer dies before it changes anything there. */
static inline void open_run(Run *run, const TensorTable *parameters) {
    const char *out = run->options->out;
    char error[FILE_ERROR_SIZE];
    log_several_ranks = parallel_ranks() > 1;
    if (parallel_rank() != 0) return;
    if (*out && !file_make_folders(out, error)) die("--out: %s", error);
    log_open(&run->log, *out ? out : NULL, (long)run->step, (long)run->options->steps, false);
    if (!*out) {
        warn("nothing of this run will be kept, neither weights nor losses: there is no --out=DIR");
        return;
    }
    if (!checkpoint_clean(out, error)) die("%s", error); /* what a killed run left half written or removed */
    write_config(run, parameters);
}

/* Whether the run's summary was written: a file that a full disk or a crash left empty is none. */
static inline bool has_summary(const Run *run) {
    char path[CHECKPOINT_PATH_SIZE], error[FILE_ERROR_SIZE];
    size_t size;
    char *text = NULL;
    if (parallel_rank() == 0 && file_join(path, run->options->out, "summary.json", error))
        text = file_read(path, FILE_REGULAR, 1 << 20, &size, error);
    cJSON *json = text ? json_parse(text, size) : NULL;
    const bool has = cJSON_HasObjectItem(json, "final_val_loss");
    cJSON_Delete(json);
    free(text);
    return parallel_any(has);
}

/* What a run says that a signal ended: a sentence for people, a line for job scripts. */
static inline void report_stop(Run *run) {
    const Options *o = run->options;
    if (parallel_rank() != 0) return;
    log_message(&run->log, "stopped after %lld of %lld steps%s", (long long)run->step, (long long)o->steps,
                *o->out ? "; the same command with --resume=auto goes on"
                        : ", nothing was saved: there is no --out");
    if (*o->out)
        log_message(&run->log, "RESUME: %s step %lld of %lld", o->out, (long long)run->step,
                    (long long)o->steps);
}

/* RUN/summary.json: what a table of results needs. */
static inline void write_summary(const Run *run, const TensorTable *parameters) {
    if (!*run->options->out || parallel_rank() != 0) return;
    LogSmooth smooth = run->log.smooth;
    cJSON *json = cJSON_CreateObject();
    json_add_number(json, "final_train_loss", log_smooth(&smooth, NAN));
    json_add_number(json, "final_val_loss", run->last_val_loss);
    json_add_number(json, "seconds", run->seconds);
    json_add_number(json, "tokens_per_s", (double)(run->step * run_tokens_per_step(run)) / run->seconds);
    json_add_number(json, "peak_memory_bytes", (double)machine_peak_rss());
    json_add_number(json, "parameters", (double)parameters->floats);
    char error[FILE_ERROR_SIZE];
    if (!checkpoint_clean(run->options->out, error)) warn("%s", error);
    write_run_json(run, "summary.json", json);
}

#endif
