/* checkpointing.h: the checkpoints of a run: saving beside the training, finding the newest whole one, going on from it. Knows the
   trainer: train_gpt.c includes it after the step.

   A checkpoint RUN/step-NNNNNNNN is a Hugging Face model folder (config.json, model.safetensors, tokenizer.json), the
   optimizer's state in parts (optimizer_state.h), trainer_state.json, and DONE last of all.

   save_checkpoint(t, wait)   begins one of this step; with `wait`, or without memory for a copy, it is written when the call
                              returns. A failure is a warning: training goes on, the older checkpoints stay
   save_continue(t, wait)     brings a save in flight nearer its end; with `wait`, to it. Called between steps
   find_checkpoint(t, folder) what --resume asks for; "" when the run starts from its beginning
   load_checkpoint(t, folder) weights, moments, counters
   model_load(folder, B, dtype)   a checkpoint's model alone, for tools
   checkpoint_load(folder, B, dtype, &tokenizer)   the same with its tokenizer, sums compared
   Every rank calls each of these.

   Saving beside the training: the weights and moments are copied, which takes milliseconds, and a thread of low priority writes
   the copy; rank 0 writes the model, each rank the moments that it holds. The thread only works on files: MPI belongs to
   the main thread, in which the ranks agree, between steps, that every part has reached the disk. Then rank 0's thread
   writes DONE and gives the folder its name. There is at most one save in flight. */
#ifndef GPT_RUN_CHECKPOINTING_H
#define GPT_RUN_CHECKPOINTING_H

#include <pthread.h>
#include <sys/syscall.h>
#include "../io/optimizer_state.h"
#include "trainer_state.h"

/* tokenizer.json of the data, of its first folder when there are several. */
static void tokenizer_file(const Options *o, char path[CHECKPOINT_PATH_SIZE]) {
    char *folder = dataset_first_folder(o->data);
    snprintf(path, CHECKPOINT_PATH_SIZE, "%s/tokenizer.json", folder);
    free(folder);
}

/* ---- the model alone ---- */

/* The model's tensors for a safetensors file, their data in `memory`; free() the result. */
static NamedTensor *named_tensors(const Model *model, const float *memory) {
    NamedTensor *tensors = check_malloc((size_t)model->parameters.count * sizeof *tensors);
    for (int i = 0; i < model->parameters.count; i++) {
        const Tensor *t = &model->parameters.tensors[i];
        tensors[i] = (NamedTensor){.name = t->name,
                                   .rank = t->rank,
                                   .shape = {t->shape[0], t->shape[1]},
                                   .data = (float *)((uintptr_t)memory + t->offset * sizeof(float))};
    }
    return tensors;
}

static bool weights_read(Model *model, const char *folder, char *error) {
    char path[CHECKPOINT_PATH_SIZE];
    NamedTensor *tensors = named_tensors(model, model->weights.memory);
    bool ok = file_join(path, folder, "model.safetensors", error) &&
              safetensors_read(path, tensors, model->parameters.count, error);
    free(tensors);
    if (ok) model_repack(model);
    return ok;
}

static cJSON *read_json(const char *folder, const char *name) {
    char path[CHECKPOINT_PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    size_t length;
    char *text =
        check_file_read(path, FILE_REGULAR, 1 << 20, &length, "a checkpoint folder is expected here");
    cJSON *json = json_parse(text, length);
    if (!cJSON_IsObject(json)) die("'%s' is no JSON object: it is damaged; take another checkpoint", path);
    free(text);
    return json;
}

static cJSON *model_config_to_json(const ModelConfig *config) {
    char text[64];
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "model_type", "laser_gpt");
    for (int i = 0; i < MODEL_FIELDS; i++) {
        int value = *model_field(config, i);
        if (!model_fields[i].choices)
            json_add_number(json, model_fields[i].key, value);
        else
            cJSON_AddStringToObject(json, model_fields[i].key,
                                    options_choice_name(model_fields[i].choices, value, text));
    }
    json_add_number(json, "rms_norm_eps", 1e-6);
    json_add_number(json, "rope_theta", 10000);
    cJSON_AddBoolToObject(json, "tie_word_embeddings", true);
    cJSON_AddStringToObject(json, "torch_dtype", "float32");
    return json;
}

/* What a model computes with beside its sizes is fixed here; a file that names something else is another model. */
static void check_config_constants(const cJSON *json, const char *folder) {
    static const struct {
        const char *key;
        double value;
    } constants[] = {{"rms_norm_eps", 1e-6}, {"rope_theta", 10000}};
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, constants[i].key);
        if (item && !(cJSON_IsNumber(item) && item->valuedouble == constants[i].value))
            die("%s/config.json: \"%s\" is not %g, the only value that is known here", folder,
                constants[i].key, constants[i].value);
    }
    if (cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(json, "tie_word_embeddings")))
        die("%s/config.json: \"tie_word_embeddings\" is false; the only models known here are tied", folder);
}

static ModelConfig model_config_read(const char *folder, int dtype) {
    ModelConfig config = {.dtype = dtype};
    char error[CHECKPOINT_ERROR_SIZE];
    cJSON *json = read_json(folder, "config.json");
    for (int i = 0; i < MODEL_FIELDS; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, model_fields[i].key);
        const char *choices = model_fields[i].choices;
        int64_t number = -1;
        if (choices && cJSON_IsString(item)) number = options_choice_index(choices, item->valuestring);
        if (number < 0 && (choices || !json_whole(item, INT_MAX, &number)))
            die("%s/config.json: \"%s\" is missing or wrong; expected %s", folder, model_fields[i].key,
                choices ? choices : "a whole number above 0");
        *model_field(&config, i) = (int)number;
    }
    check_config_constants(json, folder);
    cJSON_Delete(json);
    if (!model_config_is_sound(&config, error)) die("%s/config.json: %s", folder, error);
    return config;
}

/* Dies when this machine cannot hold the model, which a hostile file may say is as large as the bounds allow. */
static void check_model_memory(const Model *model, const char *folder) {
    TensorTable activations = activations_plan(model);
    const double need = 4.0 * (2 * (double)model->parameters.floats + (double)activations.floats);
    const int64_t have = machine_memory_available();
    tensors_free(&activations);
    if (need > (double)have)
        die("the model in %s needs %.1f GiB, this machine has %.1f GiB free", folder, need / 0x1p30,
            (double)have / 0x1p30);
}

/* A model with the weights of a checkpoint folder and room for B sequences; dies with what is wrong. Nothing is allocated
   before the header of the weights has been found to agree with config.json. */
Model model_load(const char *folder, int B, int dtype) {
    const ModelConfig config = model_config_read(folder, dtype);
    char path[CHECKPOINT_PATH_SIZE], error[CHECKPOINT_ERROR_SIZE];
    Model model = model_plan(&config, B);
    NamedTensor *tensors = named_tensors(&model, NULL);
    if (!file_join(path, folder, "model.safetensors", error) ||
        !safetensors_fits(path, tensors, model.parameters.count, error))
        die("%s", error);
    free(tensors);
    check_model_memory(&model, folder);
    model_allocate(&model);
    if (!weights_read(&model, folder, error)) die("%s", error);
    return model;
}

/* An id that the tokenizer knows and the model does not would be looked up behind the model's embeddings. */
static void check_tokenizer_fits(const Tokenizer *tokenizer, int vocab_size, const char *path) {
    if (tokenizer_vocab_size(tokenizer) > vocab_size)
        die("'%s' has tokens up to number %d, but the model only %d tokens; it is another model's", path,
            tokenizer_vocab_size(tokenizer) - 1, vocab_size);
}

/* The files that tools read, compared with their sums in DONE. A run without a tokenizer.json has none in its
   checkpoints; whoever puts one there later has no sum to compare. */
static void check_sums(const char *folder, const char *tokenizer_path) {
    char error[CHECKPOINT_ERROR_SIZE];
    int count;
    CheckpointFile *files = checkpoint_read_done(folder, &count, error);
    const bool has_tokenizer = files && checkpoint_find_file(files, count, "tokenizer.json");
    const char *needed[] = {"config.json", "model.safetensors", has_tokenizer ? "tokenizer.json" : NULL,
                            NULL};
    if (!files || !checkpoint_verify_needed(folder, needed, error)) die("%s", error);
    if (!has_tokenizer && access(tokenizer_path, F_OK) == 0)
        warn("'%s' was not written with the checkpoint: whether it is the right one cannot be told",
             tokenizer_path);
    free(files);
}

/* A checkpoint as tools use it: its model and its tokenizer, which agree; files with sums in DONE are compared with them. */
Model checkpoint_load(const char *folder, int B, int dtype, Tokenizer **tokenizer) {
    char path[CHECKPOINT_PATH_SIZE], done[CHECKPOINT_PATH_SIZE], error[CHECKPOINT_ERROR_SIZE];
    if (!file_join(path, folder, "tokenizer.json", error) || !file_join(done, folder, "DONE", error))
        die("%s", error);
    if (access(done, F_OK) == 0) check_sums(folder, path);
    Model model = model_load(folder, B, dtype);
    *tokenizer = tokenizer_load(path);
    check_tokenizer_fits(*tokenizer, model.config.vocab_size, path);
    return model;
}

/* ---- saving ---- */

/* The moments that this rank holds, in `mean` and `square`: the trainer's own or a copy of them. */
static Moments trainer_moments(const Trainer *t, float *mean, float *square) {
    return (Moments){.parameters = &t->model.parameters,
                     .ranges = t->owned,
                     .range_count = t->owned_count,
                     .mean = mean,
                     .square = square};
}

static cJSON *trainer_state_to_json(const Trainer *t) {
    return run_state_to_json(&(RunState){.step = t->step,
                                         .tokens = t->step * tokens_per_step(t),
                                         .optimizer_parts = t->owners,
                                         .seconds = t->seconds,
                                         .data_changes = t->data_changes,
                                         .watch = t->watch,
                                         .data = t->data,
                                         .options = options_to_json(t->option_set)});
}

/* How far the thread is, and what it waits for when its own files are written. */
typedef enum { SAVE_WRITING, SAVE_WRITTEN, SAVE_COMMITTED, SAVE_FAILED } SaveState;
typedef enum { SAVE_NO_ORDER, SAVE_COMMIT, SAVE_ABORT } SaveOrder;

struct Saver {
    bool busy, agreed; /* the thread runs; all ranks' files are written, or one rank's are not */
    float *copy; /* weights on rank 0, mean, square; NULL: training waits while its own memory is written */
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock; /* of state and order */
    pthread_cond_t changed;
    SaveState state;
    SaveOrder order;
    /* what the thread works on */
    Checkpoint checkpoint; /* folder; the rest on rank 0 only */
    const Model *model;
    const float *weights; /* NULL but on rank 0 */
    Moments moments;
    int part, parts, keep;
    long keep_every;
    cJSON *config, *state_json;
    const char *tokenizer; /* tokenizer.json as the run read it at its start; NULL: there is none */
    size_t tokenizer_size;
    Log *log;
    uint64_t sum; /* of this rank's part */
    bool in_background;
    double began, stalled; /* seconds: when, and how long training waited */
    char error[CHECKPOINT_ERROR_SIZE];
};

/* Floats of the copy: 0 where no checkpoint is written while training goes on. */
static size_t saver_copy_floats(const Trainer *t) {
    if (!*t->options->out || t->options->save_every == 0) return 0;
    size_t moments = 2 * ranges_floats(t->owned, t->owned_count);
    if (parallel_rank() == 0) return t->model.parameters.floats + moments;
    return t->owners > 1 ? moments : 0;
}

static Saver *saver_create(const Trainer *t, bool with_copy) {
    Saver *s = check_malloc(sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    if (with_copy && saver_copy_floats(t)) s->copy = check_malloc(saver_copy_floats(t) * sizeof(float));
    return s;
}

static void saver_free(Saver *s) {
    if (!s) return;
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s->copy);
    free(s);
}

/* This rank's files. */
static bool save_files(Saver *s) {
    Checkpoint *c = &s->checkpoint;
    char path[CHECKPOINT_PATH_SIZE], name[64];
    bool ok = true;
    if (s->part < s->parts) ok = moments_write(c->folder, s->part, s->parts, &s->moments, &s->sum, s->error);
    if (!ok || !s->weights) return ok;
    uint64_t sum = 0;
    NamedTensor *tensors = named_tensors(s->model, s->weights);
    ok = file_join(path, c->folder, "model.safetensors", s->error) &&
         safetensors_write(path, tensors, s->model->parameters.count, &sum, s->error) &&
         checkpoint_write_json(c, "config.json", s->config, s->error) &&
         checkpoint_write_json(c, "trainer_state.json", s->state_json, s->error) &&
         (!s->tokenizer ||
          checkpoint_write_bytes(c, "tokenizer.json", s->tokenizer, s->tokenizer_size, s->error));
    free(tensors);
    moments_part_name(name, s->part, s->parts);
    checkpoint_add_sum(c, name, s->sum);
    checkpoint_add_sum(c, "model.safetensors", sum);
    log_sync(s->log); /* the lines up to this step: a resumed run keeps them */
    return ok;
}

static void save_set(Saver *s, SaveState state) {
    pthread_mutex_lock(&s->lock);
    s->state = state;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void save_order(Saver *s, SaveOrder order) {
    pthread_mutex_lock(&s->lock);
    s->order = order;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static SaveState save_state(Saver *s, bool wait) {
    pthread_mutex_lock(&s->lock);
    while (wait && s->state == SAVE_WRITING) pthread_cond_wait(&s->changed, &s->lock);
    SaveState state = s->state;
    pthread_mutex_unlock(&s->lock);
    return state;
}

static SaveOrder save_await_order(Saver *s) {
    pthread_mutex_lock(&s->lock);
    while (s->order == SAVE_NO_ORDER) pthread_cond_wait(&s->changed, &s->lock);
    SaveOrder order = s->order;
    pthread_mutex_unlock(&s->lock);
    return order;
}

/* The thread: this rank's files, then on rank 0, when all ranks' are written, DONE and the folder's name. */
static void *save_thread(void *argument) {
    Saver *s = argument;
    machine_unpin_thread();
#ifdef __linux__
    if (s->in_background) setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 10); /* training comes first */
#endif
    bool ok = save_files(s);
    save_set(s, ok ? SAVE_WRITTEN : SAVE_FAILED);
    if (!s->weights) return NULL;
    bool commit = save_await_order(s) == SAVE_COMMIT && ok;
    if (!commit)
        checkpoint_abort(&s->checkpoint);
    else if (checkpoint_commit(&s->checkpoint, s->error)) {
        checkpoint_prune(s->checkpoint.run_folder, s->checkpoint.step, s->keep, s->keep_every);
        save_set(s, SAVE_COMMITTED);
    } else
        save_set(s, SAVE_FAILED);
    return NULL;
}

/* All signals stay with the main thread. */
static bool save_start_thread(Saver *s) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int cause = pthread_create(&s->thread, NULL, save_thread, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return cause == 0 || file_fail(s->error, "no thread can be started: %s", strerror(cause));
}

static void copy_floats(float *to, const float *from, size_t n) {
    const size_t chunk = 1 << 18;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i += chunk)
        memcpy(to + i, from + i, (n - i < chunk ? n - i : chunk) * sizeof *to);
}

/* On the ranks whose files are written, after the others agreed: who failed says why, once; rank 0 learns the sums. */
static bool save_agree(Saver *s, bool ok) {
    const int ranks = parallel_ranks();
    int failed = 0;
    if (!parallel_any(!ok)) {
        for (int part = 1; part < s->parts; part++) { /* halves: a double holds 53 bits */
            bool mine = part == s->part;
            double high = parallel_sum_double(mine ? (double)(s->sum >> 32) : 0);
            double low = parallel_sum_double(mine ? (double)(s->sum & 0xffffffff) : 0);
            char name[64];
            moments_part_name(name, part, s->parts);
            if (parallel_rank() == 0)
                checkpoint_add_sum(&s->checkpoint, name, (uint64_t)high << 32 | (uint64_t)low);
        }
        return true;
    }
    while (failed < ranks && !parallel_any(!ok && parallel_rank() == failed)) failed++;
    if (parallel_rank() == failed) warn("no checkpoint of step %ld: %s", s->checkpoint.step, s->error);
    return false;
}

/* The thread has ended: what came of it. */
static void save_end(Trainer *t, double waiting_since) {
    Saver *s = t->saver;
    if (s->has_thread)
        pthread_join(s->thread, NULL);
    else if (s->weights)
        checkpoint_abort(&s->checkpoint);
    cJSON_Delete(s->config), cJSON_Delete(s->state_json);
    s->busy = false;
    s->stalled += machine_seconds() - waiting_since;
    if (parallel_rank() != 0) return;
    if (s->state == SAVE_COMMITTED) {
        t->saved_step = s->checkpoint.step;
        log_message(&t->log, "saved %s/step-%08ld in %.2f s, training waited %.2f s", t->options->out,
                    s->checkpoint.step, machine_seconds() - s->began, s->stalled);
    } else if (s->order == SAVE_COMMIT)
        warn("no checkpoint of step %ld: %s", s->checkpoint.step, s->error);
}

void save_continue(Trainer *t, bool wait) {
    Saver *s = t->saver;
    if (!s || !s->busy) return;
    const double start = machine_seconds();
    if (!s->agreed) {
        SaveState state = save_state(s, wait);
        if (parallel_any(state == SAVE_WRITING)) return;
        s->agreed = true;
        save_order(s, save_agree(s, state != SAVE_FAILED) ? SAVE_COMMIT : SAVE_ABORT);
    }
    if (wait || parallel_rank() != 0 || s->order == SAVE_ABORT || save_state(s, false) != SAVE_WRITTEN)
        save_end(t, start);
}

/* What the thread is to write: the trainer's own memory, or, when training goes on, a copy of it. */
static void save_snapshot(Trainer *t, bool copy) {
    Saver *s = t->saver;
    float *mean = t->mean, *square = t->square;
    const size_t weights = t->model.weights.count, owned = ranges_floats(t->owned, t->owned_count);
    s->model = &t->model;
    s->weights = parallel_rank() == 0 ? t->model.weights.memory : NULL;
    if (copy && s->copy) {
        float *at = s->copy;
        if (s->weights) copy_floats(at, s->weights, weights), s->weights = at, at += weights;
        copy_floats(at, t->mean, owned), mean = at, at += owned;
        copy_floats(at, t->square, owned), square = at;
    }
    s->moments = trainer_moments(t, mean, square);
}

static bool trainer_is_finite(const Trainer *t) {
    const size_t owned = ranges_floats(t->owned, t->owned_count);
    return isfinite(largest_magnitude(t->model.weights.memory, t->model.weights.count)) &&
           isfinite(largest_magnitude(t->mean, owned)) && isfinite(largest_magnitude(t->square, owned));
}

void save_checkpoint(Trainer *t, bool wait) {
    const Options *o = t->options;
    save_continue(t, true);
    if (!*o->out || parallel_any(parallel_rank() == 0 && t->saved_step == t->step)) return;
    fetch_from_device(t);
    Saver *s = t->saver;
    const double start = machine_seconds();
    const bool leads = parallel_rank() == 0;
    char name[64];
    bool ok = trainer_is_finite(t) ||
              file_fail(s->error, "a weight or a moment is not finite; the older checkpoints stay");
    s->checkpoint.step = (long)t->step;
    if (leads && ok) ok = checkpoint_begin(&s->checkpoint, o->out, (long)t->step, s->error);
    if (!leads) {
        checkpoint_name(name, (long)t->step, CHECKPOINT_TEMPORARY);
        ok = ok && file_join(s->checkpoint.folder, o->out, name, s->error);
    }
    wait = wait || parallel_any(!s->copy && saver_copy_floats(t));
    s->parts = t->owners, s->part = parallel_rank();
    s->keep = (int)o->keep, s->keep_every = (long)o->keep_every;
    s->log = &t->log;
    s->tokenizer = t->tokenizer_text, s->tokenizer_size = t->tokenizer_size;
    s->state = SAVE_WRITING, s->order = parallel_ranks() == 1 ? SAVE_COMMIT : SAVE_NO_ORDER;
    s->in_background = !wait;
    if (parallel_any(!ok)) {
        save_agree(s, ok);
        if (leads) checkpoint_abort(&s->checkpoint);
        return;
    }
    save_snapshot(t, !wait);
    s->config = model_config_to_json(&t->model.config), s->state_json = trainer_state_to_json(t);
    s->busy = true, s->agreed = false;
    s->has_thread = save_start_thread(s);
    if (!s->has_thread) s->state = SAVE_FAILED;
    s->began = start, s->stalled = machine_seconds() - start;
    if (wait) save_continue(t, true);
}

/* ---- resuming ---- */

/* Options that make the run what it is must be as they were. One that the checkpoint does not know came later: its default
   is what the run did. */
static void check_options(const Trainer *t, const cJSON *options, const char *folder) {
    char now[64], number[64];
    for (int i = 0; i < TRAIN_OPTION_COUNT; i++) {
        const Option *option = &train_options[i];
        const cJSON *saved = cJSON_GetObjectItemCaseSensitive(options, option->name);
        const char *was = saved ? options_json_text(saved, number) : option->value;
        if (!was) die("%s/trainer_state.json: the option \"%s\" is damaged", folder, option->name);
        if (!(option->flags & OPTION_FIXED) || strcmp(was, options_text(t->option_set, option, now)) == 0)
            continue;
        if (option->type == OPTION_FLOAT &&
            strtod(was, NULL) == *(double *)((char *)t->options + option->offset))
            continue; /* the same number, spelled otherwise */
        die("--%s is %s, but %s was trained with %s; give the same value, or start anew in another --out",
            option->name, options_text(t->option_set, option, now), folder, was);
    }
}

/* Other data than the checkpoint's changes the curve: refused, unless it is asked for. */
static void check_data(Trainer *t, const DataPrint *was, const char *folder) {
    char difference[256];
    if (was->folder_count == 0 && parallel_rank() == 0)
        warn("%s was written by an older version, which did not note its data: whether --data is still the "
             "same is not known",
             folder);
    if (was->folder_count == 0 || !data_print_difference(was, &t->data, difference)) return;
    if (!t->options->resume_data)
        die("%s was trained on other data: %s; put the data back, or go on with what is there: "
            "--resume-data=changed",
            folder, difference);
    t->data_changes++;
    if (parallel_rank() == 0) warn("the run goes on with other data (--resume-data=changed): %s", difference);
}

/* The step that the state of the checkpoint tells must be that of its folder's name, when that has the form of one. */
static void check_step(const Trainer *t, const RunState *state, const char *folder) {
    long named;
    char name[64];
    snprintf(name, sizeof name, "%.63s", check_basename(folder));
    const CheckpointKind kind = checkpoint_kind(name, &named);
    if ((kind == CHECKPOINT_FINAL || kind == CHECKPOINT_OLD) && named != state->step)
        die("%s/trainer_state.json tells of step %lld, the folder's name of %ld; resume from another "
            "checkpoint",
            folder, (long long)state->step, named);
    if (state->step > t->options->steps ||
        (state->tokens && state->tokens != state->step * tokens_per_step(t)))
        die("%s/trainer_state.json tells of step %lld and %lld tokens; a run of %lld steps of %lld tokens "
            "has no such state; resume from another checkpoint",
            folder, (long long)state->step, (long long)state->tokens, (long long)t->options->steps,
            (long long)tokens_per_step(t));
}

/* The parts that are going to be read were compared with their sums only if DONE names them. */
static void check_parts_named(const char *folder, int parts) {
    char name[64], error[CHECKPOINT_ERROR_SIZE];
    const char *needed[] = {name, NULL};
    int count;
    CheckpointFile *files = checkpoint_read_done(folder, &count, error);
    bool ok = files != NULL;
    for (int part = 0; ok && part < parts; part++) {
        moments_part_name(name, part, parts);
        ok = checkpoint_verify_names(folder, files, count, needed, error);
    }
    free(files);
    if (!ok) die("cannot resume: %s", error);
}

/* Continues from a checkpoint folder, written by any number of ranks. */
void load_checkpoint(Trainer *t, const char *folder) {
    char error[CHECKPOINT_ERROR_SIZE];
    RunState state;
    cJSON *json = read_json(folder, "trainer_state.json");
    if (!run_state_read(json, &state, error))
        die("%s/trainer_state.json: %s; resume from another checkpoint", folder, error);
    check_options(t, state.options, folder);
    check_step(t, &state, folder);
    t->step = state.step, t->seconds = state.seconds, t->watch = state.watch;
    t->data_changes = state.data_changes;
    check_data(t, &state.data, folder);
    const Moments moments = trainer_moments(t, t->mean, t->square);
    const int parts = (int)state.optimizer_parts;
    check_parts_named(folder, parts);
    run_state_free(&state);
    cJSON_Delete(json);
    if (!weights_read(&t->model, folder, error) || !moments_read(folder, parts, &moments, error))
        die("cannot resume: %s", error);
}

/* Every file of the checkpoint against its sum: the ranks share the reading, who finds damage names it. */
static bool verify_checkpoint(const char *folder, const char *otherwise) {
    static const char *const needed[] = {"config.json", "model.safetensors", "trainer_state.json", NULL};
    char error[CHECKPOINT_ERROR_SIZE];
    bool ok = checkpoint_verify_share(folder, needed, parallel_rank(), parallel_ranks(), error);
    if (!ok) warn("%s%s: %s", folder, otherwise, error);
    return !parallel_any(!ok);
}

/* A checkpoint whose DONE is gone is no checkpoint; beginning anew in its place, or going on from an older one, must
   not happen without a word. */
static void tell_of_torn(const char *out, bool any, long newest) {
    char name[64];
    const long torn = checkpoint_newest_torn(out, name);
    if (torn < 0 || torn < newest) return;
    if (any && parallel_rank() == 0)
        warn("%s/%s has no DONE: it is passed over for an older checkpoint", out, name);
    if (!any)
        die("%s/%s has no DONE, and no other checkpoint is there: its files may be damaged; bring its DONE "
            "back, or choose another --out to start anew",
            out, name);
}

/* The newest checkpoint before the step `before` (-1: of all), which every rank must see. */
static bool latest_checkpoint(const char *out, long before, char folder[CHECKPOINT_PATH_SIZE], long *step) {
    *step = -1;
    bool any = checkpoint_latest(out, before, folder, CHECKPOINT_PATH_SIZE, step);
    if (parallel_any(*step != (long)parallel_sum_double(parallel_rank() == 0 ? (double)*step : 0)))
        die("the ranks see different checkpoints in %s (this one: %ld); all hosts must share the run folder",
            out, *step);
    return any;
}

/* What --resume asks for; "" when the run starts from its beginning. A damaged one is named and passed over for the
   next older. */
static void find_checkpoint(const Options *o, char folder[CHECKPOINT_PATH_SIZE]) {
    long step = -1;
    char torn[64];
    folder[0] = 0;
    bool any = *o->out && latest_checkpoint(o->out, -1, folder, &step), found = any;
    if (strcmp(o->resume, "no") == 0 && (any || (*o->out && checkpoint_newest_torn(o->out, torn) >= 0)))
        die("%s holds a run already (%s); --resume=auto goes on with it, or choose another --out", o->out,
            any ? folder : torn);
    if (strcmp(o->resume, "no") == 0) return;
    if (strcmp(o->resume, "auto") != 0) {
        snprintf(folder, CHECKPOINT_PATH_SIZE, "%s", o->resume);
        if (!verify_checkpoint(folder, " cannot be resumed from"))
            die("no whole checkpoint is in '%s'; give another one, or --resume=auto", folder);
        return;
    }
    tell_of_torn(o->out, any, step);
    for (; any; any = latest_checkpoint(o->out, step, folder, &step))
        if (verify_checkpoint(folder, " is passed over for an older checkpoint")) return;
    if (found) die("no checkpoint in %s is whole; choose another --out to start anew", o->out);
}

#endif
