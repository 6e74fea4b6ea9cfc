/* setup.h: prepares a run. The functions before run_free are called before the first step, in this order; run_free at
   the end.

   run_settle(run, options, set)    settles the options that depend on each other, on the data or on other ranks, and
                                    reads the tokenizer. Ends the program when they contradict each other. Options that
                                    default to "auto" or 0 have their values afterwards; options and set stay the
                                    caller's
   print_configuration(run, optimizer)   prints what is going to run; rank 0 calls it, every other function every rank
   open_data(run)                   maps the shards of tokens into memory; dies when they do not fit the options
   run_free(run)                    frees all of it again, at the very end

   Between open_data and the first step: the checkpoint to go on from (resume.h), the run's folder (run_folder.h). */
#ifndef GPT_RUN_SETUP_H
#define GPT_RUN_SETUP_H

#include "../base/format.h"
#include "../base/processor.h"
#include "../base/signals.h"
#include "../dist/hosts.h"
#include "agreement.h"
#include "analysis.h"
#include "checkpointing.h"
#include "run.h"

/* ---- settling the options ---- */

/* If --warmup exceeds --steps: a value from a preset or the default is shortened with a warning; a value that the user
   gave is an error. */
static inline void resolve_warmup(Options *o, const OptionSet *set) {
    if (o->warmup <= o->steps) return;
    if (options_given(set, "warmup"))
        options_fail(set, "--warmup=%lld exceeds --steps=%lld", (long long)o->warmup, (long long)o->steps);
    const int64_t tenth = (o->steps + 9) / 10;
    if (parallel_rank() == 0)
        warn("--warmup=%lld, which you did not choose, exceeds --steps=%lld; %lld, a tenth of the steps, is "
             "used instead",
             (long long)o->warmup, (long long)o->steps, (long long)tenth);
    o->warmup = tenth;
}

/* Reads tokenizer.json of the data, if there is one. It is read only here: checkpoints get what was read, whatever
   becomes of the file while the run trains. */
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

/* Neither the user nor a tokenizer tells the size of the vocabulary: says what is missing. */
__attribute__((noreturn)) static inline void die_without_vocabulary(const Options *o, const OptionSet *set) {
    char path[CHECKPOINT_PATH_SIZE];
    if (!*o->data)
        options_fail(set, "--vocab-size is missing: there is no --data whose tokenizer.json could tell it");
    char *folder = dataset_first_folder(o->data);
    if (access(folder, R_OK | X_OK) != 0)
        options_fail(set, "--data=%s: cannot open the folder %s (%s); ./prepare makes one", o->data, folder,
                     strerror(errno));
    free(folder);
    run_tokenizer_path(o, path);
    options_fail(set, "--vocab-size is missing: there is no %s to tell it", path);
}

/* Takes the size of the vocabulary from the tokenizer of the data, unless the user has given one. The size in a
   preset is that of the data that the preset was made for. */
static inline void resolve_vocabulary(Options *o, const OptionSet *set, const Tokenizer *tokenizer) {
    const bool given = o->vocab_size > 0 && options_given(set, "vocab-size");
    const int size = tokenizer ? tokenizer_vocab_size(tokenizer) : 0;
    if (given && size > o->vocab_size && *o->init_from)
        options_fail(
            set,
            "--init-from=%s: its model has %lld tokens, but the tokenizer.json of --data has tokens up to "
            "number %d; make the data with ./prepare --tokenizer=FILE, the model's tokenizer.json",
            o->init_from, (long long)o->vocab_size, size - 1);
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
    if (o->vocab_size == 0) die_without_vocabulary(o, set);
}

/* --dtype=auto is bf16 when every rank multiplies it faster than float32: all ranks train one model, so all must use
   the same. Every rank calls this whatever its option says, because the ranks ask each other. */
static inline void resolve_dtype(Options *o) {
    const bool some_lack = parallel_any(!device_on() && !processor_prefers_bf16());
    if (o->dtype == DTYPE_AUTO) o->dtype = some_lack ? DTYPE_FP32 : DTYPE_BF16;
}

/* Replaces --comm=auto by gpu or host, and refuses --comm=gpu if this program cannot do it. */
static inline void resolve_communication(Options *o, const OptionSet *set) {
    if (o->comm == COMM_GPU && !device_on())
        options_fail(set, "--comm=gpu: this program computes on the CPU; leave it out");
    if (o->comm == COMM_GPU && !device_has_collectives())
        options_fail(set,
                     "--comm=gpu: built without NCCL; install it beside nvcc and make train_gptcu again, or "
                     "leave it out");
    if (o->comm == COMM_AUTO) o->comm = device_has_collectives() ? COMM_GPU : COMM_HOST;
    if (o->comm == COMM_GPU && o->comm_dtype && parallel_ranks() > 1 && parallel_rank() == 0)
        warn("--comm-dtype=bf16 is for --comm=host: from GPU to GPU gradients go in float32");
}

/* The options of docs/ablations.md, and those of their values that a GPU computes: cuda/ has no kernels for others. */
static const struct {
    const char *option, *on_gpu;
} ablation_rows[] = {{"laser-shift", "causal|sequence"},
                     {"qk-norm", "no"},
                     {"attn-scale", "fixed"},
                     {"laser-beta", "1"},
                     {"attn-softcap", "0"},
                     {"attn-grad-scale", "1"},
                     {"activation", "gelu|relu|swiglu"},
                     {"logit-softcap", "0"},
                     {"z-loss", "0"},
                     {"optimizer", "adamw"},
                     {"norm", "rmsnorm"},
                     {"norm-eps", "1e-6"},
                     {"norm-place", "pre"},
                     {"bias", "none"},
                     {"embed-scale", "no"},
                     {"tie", "yes"}};
enum { ABLATION_ROWS = sizeof ablation_rows / sizeof *ablation_rows };

/* Whether the option has one of the values "a|b|c". */
static inline bool option_is_among(const OptionSet *set, const char *name, const char *values) {
    char text[64];
    const Option *option = options_find(set, name);
    return option->type == OPTION_FLOAT ? options_number(option, set->target) == strtod(values, NULL)
                                        : options_choice_index(values, options_text(set, option, text)) >= 0;
}

/* Refuses what a GPU does not compute, before training starts. */
static inline void refuse_on_gpu(const OptionSet *set) {
    for (int i = 0; i < ABLATION_ROWS; i++) {
        char text[64];
        const char *value = options_value(set, ablation_rows[i].option, text);
        if (!option_is_among(set, ablation_rows[i].option, ablation_rows[i].on_gpu))
            options_fail(set,
                         "--%s=%s is not available on a GPU (only %s); train it on the CPU with ./train_gpt",
                         ablation_rows[i].option, value, ablation_rows[i].on_gpu);
    }
}

/* Refuses --analyze-every where it cannot be done. */
static inline void resolve_analysis(const Options *o, const OptionSet *set) {
    if (!o->analyze_every) return;
    if (device_on())
        options_fail(
            set,
            "--analyze-every=%lld needs activations that a GPU does not copy back; leave it out, and "
            "give the checkpoints to ./analyze",
            (long long)o->analyze_every);
    if (!attention_is_measured((AttentionKind)o->attn))
        options_fail(set, "--analyze-every=%lld is not available with --attn=%s (only standard and laser)",
                     (long long)o->analyze_every, attention_name((AttentionKind)o->attn));
    if (!analysis_fits_log(o->layers, o->heads))
        options_fail(set,
                     "--analyze-every=%lld: a line of the log would be too long with %lld layers and %lld "
                     "heads; leave it out, and give the checkpoints to ./analyze",
                     (long long)o->analyze_every, (long long)o->layers, (long long)o->heads);
}

/* Refuses Muon where a rank would have slices of matrices only. */
static inline void resolve_optimizer(const Options *o, const OptionSet *set) {
    if (o->optimizer == OPTIMIZER_MUON && parallel_ranks() > 1 && o->zero)
        options_fail(
            set,
            "--optimizer=muon needs whole matrices, but with --zero=1 each of %d ranks updates slices of "
            "them; give --zero=0",
            parallel_ranks());
}

/* --total-batch, whose default is one micro-step of every rank. */
static inline void resolve_batch(Options *o, const OptionSet *set) {
    int64_t micro = o->batch * o->seq_len * parallel_ranks();
    if (o->total_batch == 0) o->total_batch = micro;
    if (o->total_batch % micro)
        options_fail(
            set, "--total-batch=%lld is no multiple of --batch x --seq-len x ranks = %lld x %lld x %d = %lld",
            (long long)o->total_batch, (long long)o->batch, (long long)o->seq_len, parallel_ranks(),
            (long long)micro);
}

/* Checks conditions that involve several options, and replaces defaults such as --dtype=auto and --total-batch=0 by the
   values that are used. */
static inline void resolve_options(Options *o, OptionSet *set, const Tokenizer *tokenizer) {
    resolve_dtype(o);
    if (!*o->data && !o->dry_run) options_fail(set, "--data=DIR is missing: a folder made by ./prepare");
    const bool resumes = strcmp(o->resume, "auto") == 0;
    if (!*o->out && !o->dry_run && (resumes || (o->save_every && options_given(set, "save-every"))))
        options_fail(set, "--%s needs --out=DIR, the folder of the run: without it nothing is saved",
                     resumes ? "resume=auto" : "save-every");
    resolve_warmup(o, set);
    if (device_on() && !device_has_attention(o->attn))
        options_fail(
            set,
            "--attn=%s is not available on a GPU; train it on the CPU with ./train_gpt, or add its kernels "
            "to cuda/attention.cuh",
            attention_name(o->attn));
    if (device_on()) refuse_on_gpu(set);
    resolve_analysis(o, set);
    resolve_communication(o, set);
    resolve_optimizer(o, set);
    resolve_batch(o, set);
    resolve_vocabulary(o, set, tokenizer);
}

static inline void run_settle(Run *run, Options *options, OptionSet *set) {
    *run = (Run){.options = options, .option_set = set, .last_validation = log_validation_of(0, NAN, NAN)};
    check_options_agree(set);
    read_tokenizer(run);
    resolve_options(options, set, run->tokenizer);
    /* The options are compared a second time: values such as the size of the vocabulary come from files, which may
       differ between hosts. */
    check_options_agree(set);
    run->step_sequences = options->total_batch / options->seq_len;
    run->micro_steps = run->step_sequences / (options->batch * parallel_ranks());
}

static inline void run_free(Run *run) {
    saver_free(run->saver);
    cJSON_Delete(run->model_config);
    if (run->train.n_parts) dataset_close(&run->train), dataset_close(&run->val);
    if (run->tokenizer) tokenizer_free(run->tokenizer);
    free(run->tokenizer_text);
    fingerprint_free(&run->data);
}

/* ---- what is going to run ---- */

static inline void print_machine(const ShardedOptimizer *optimizer) {
    char cpu[128], gpu[128];
    printf("machine    %s, %d of %d cores in use, %s\n", processor_name(cpu), threads_count(),
           cores_available(), processor_isa());
    hosts_print();
    if (device_on()) printf("GPU        %s\n", device_name(gpu));
    if (device_on() && parallel_ranks() > 1)
        printf("           gradients and weights go from %s\n",
               optimizer->on_gpu ? "GPU to GPU" : "GPU to host to host to GPU (slow)");
}

/* A line that names the options of docs/ablations.md that do not have their default; none when all have it. */
static inline void print_ablations(const OptionSet *set) {
    char text[64];
    int count = 0;
    for (int i = 0; i < ABLATION_ROWS; i++) {
        const char *value = options_value(set, ablation_rows[i].option, text);
        if (option_is_among(set, ablation_rows[i].option, options_find(set, ablation_rows[i].option)->value))
            continue;
        printf("%s --%s=%s", count++ ? "" : "ablations ", ablation_rows[i].option, value);
    }
    if (count) printf("\n");
}

static inline void print_model(const Run *run, const TensorTable *parameters) {
    const Options *o = run->options;
    const OptionSet *set = run->option_set;
    const bool laser = attention_is_laser((AttentionKind)o->attn);
    char shift[64], position[64], activation[64], matrices_text[FORMAT_SIZE], norms_text[FORMAT_SIZE];
    double matrices = 0, norms = 0;
    for (int i = 0; i < parameters->count; i++)
        *(parameters->tensors[i].dimensions == 2 ? &matrices : &norms) +=
            (double)parameters->tensors[i].count;
    printf("model      %s attention%s%s, %s positions, %s\n", attention_name(o->attn),
           laser ? ", shift " : "", laser ? options_value(set, "laser-shift", shift) : "",
           options_value(set, "pos", position), options_value(set, "activation", activation));
    printf("           %lld layers, %lld heads of %lld, width %lld, MLP %lld, T %lld, V %lld\n",
           (long long)o->layers, (long long)o->heads, (long long)o->head_dim, (long long)o->embd,
           (long long)o->mlp_hidden, (long long)o->seq_len, (long long)o->vocab_size);
    print_ablations(set);
    char vectors_decay[32] = "none";
    if (o->decay == DECAY_ALL) snprintf(vectors_decay, sizeof vectors_decay, "%g", o->weight_decay);
    printf("parameters %s in matrices (weight decay %g), %s in vectors (%s)\n",
           count_fixed(matrices_text, matrices, 1, 0), o->weight_decay, count_fixed(norms_text, norms, 1, 0),
           vectors_decay);
}

static inline void print_training(const Run *run) {
    static const char *const names[] = {"AdamW", "LAMB", "Muon"}; /* in the order of OptimizerKind */
    const Options *o = run->options;
    char tokens[FORMAT_SIZE], schedule[64];
    printf("batch      %lld tokens: %d ranks x %lld micro-steps x %lld sequences of %lld\n",
           (long long)run_tokens_per_step(run), parallel_ranks(), (long long)run->micro_steps,
           (long long)o->batch, (long long)o->seq_len);
    printf("run        %lld steps, %s tokens, seed %lld, %s\n", (long long)o->steps,
           count_fixed(tokens, (double)(o->steps * run_tokens_per_step(run)), 1, 0), (long long)o->seed,
           o->dtype == DTYPE_BF16 ? "bf16 operands" : "float32");
    printf("optimizer  %s, lr %g, %s after %lld steps of warmup, clip %g\n", names[o->optimizer], o->lr,
           options_value(run->option_set, "schedule", schedule), (long long)o->warmup, o->clip);
}

static inline void print_configuration(const Run *run, const ShardedOptimizer *optimizer) {
    print_machine(optimizer);
    print_model(run, &optimizer->parameters);
    print_training(run);
    if (threads_count() > cores_available() && !*parallel_host())
        warn("%d threads share %d cores; give --threads=%d", threads_count(), cores_available(),
             cores_available());
}

/* ---- the data ---- */

/* When another program shortens a shard while it is read, the system kills this one with SIGBUS. This makes it end
   with an error that names the shard instead. */
static inline void watch_shards(const Dataset *d) {
    for (int p = 0; p < d->n_parts; p++)
        for (int i = 0; i < d->parts[p].n_shards; i++) {
            const Shard *shard = &d->parts[p].shards[i];
            signals_watch_file(shard->path, shard->map, shard->bytes);
        }
}

/* open_data has compared the manifest with the tokenizer.json that is there now. Dies unless it is still the one that
   read_tokenizer read. */
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

/* Compares the shards with their manifest: names and sizes, with --verify-data every byte. */
static inline void verify_data(const Run *run) {
    const Options *o = run->options;
    const bool checksums = o->verify_data && parallel_rank() == 0;
    char name[CHECK_TEXT_SIZE];
    if (checksums)
        printf("verify     %s: every byte of %.1f GB of shards\n", check_shown(name, o->data),
               2e-9 * (double)(run->train.n_tokens + run->val.n_tokens));
    dataset_check_manifest(o->data, (int)o->vocab_size, checksums);
    check_tokenizer_unchanged(run);
}

static inline void print_data(const Run *run) {
    const Options *o = run->options;
    char train[FORMAT_SIZE], val[FORMAT_SIZE], name[CHECK_TEXT_SIZE];
    printf("data       %s: %s training and %s validation tokens, %.2f epochs\n", check_shown(name, o->data),
           count_fixed(train, (double)run->train.n_tokens, 1, 0),
           count_fixed(val, (double)run->val.n_tokens, 1, 0),
           (double)(o->steps * run_tokens_per_step(run)) / (double)run->train.n_tokens);
}

static inline void open_data(Run *run) {
    const Options *o = run->options;
    dataset_open(&run->train, o->data, "train_", (int)o->seq_len, (int)o->vocab_size);
    dataset_open(&run->val, o->data, "val_", (int)o->seq_len, (int)o->vocab_size);
    watch_shards(&run->train), watch_shards(&run->val);
    verify_data(run);
    run->data = fingerprint_of(&run->train, &run->val, run->tokenizer_text, run->tokenizer_size);
    check_data_agree(run);
    if (!run->tokenizer && o->sample_every) warn("no samples: there is no tokenizer.json in %s", o->data);
    if (run->tokenizer && o->sample_every && *o->prompt && *run->tokenizer->why_not)
        die("--prompt cannot be encoded: %s; leave it out", run->tokenizer->why_not);
    if (parallel_rank() == 0) print_data(run);
}

#endif
