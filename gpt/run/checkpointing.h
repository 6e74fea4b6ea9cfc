/* checkpointing.h: the checkpoints of a run: they are saved while training goes on, the newest undamaged one is found, and
   a run continues from it.

   A checkpoint RUN/step-NNNNNNNN is a Hugging Face model folder (config.json, model.safetensors, tokenizer.json) that also
   holds the optimizer's state in parts (optimizer_state.h), trainer_state.json, and, written last of all, DONE.

   save_checkpoint(run, optimizer, wait)   begins to save the present step. With `wait`, or without memory for a copy, the
                              checkpoint is complete when the call returns. A failure is a warning: training goes on, and the
                              older checkpoints stay
   save_continue(run, wait)   does what the checkpoint that is being written needs next from all ranks; with `wait` until it is
                              complete. To be called between steps
   check_saved(run)           at the end of a run: dies when its last checkpoint could not be written
   find_checkpoint(options, folder)   the checkpoint that --resume asks for; "" when the run starts from its beginning
   load_checkpoint(run, optimizer, folder)   restores the weights, the moments, and how far the run was
   saver_create(run, optimizer, with_copy), saver_free(saver), saver_copy_floats(run, optimizer)   what saving needs, and the
                              floats that a copy takes
   Every rank calls each of these.

   How a checkpoint is saved while training goes on: the weights and moments are copied, which takes milliseconds, and a
   thread of low priority writes the copy. Rank 0 writes the model, and each rank the moments that it keeps. The thread only
   works on files; messages between ranks are sent by the main thread alone. Between steps the ranks agree that the parts of
   all have reached the disk; then rank 0's thread writes DONE and gives the folder its final name. At most one checkpoint is
   being written at a time. */
#ifndef GPT_RUN_CHECKPOINTING_H
#define GPT_RUN_CHECKPOINTING_H

#include <pthread.h>
#include <sys/syscall.h>
#include "../base/clock.h"
#include "../base/threads.h"
#include "../dist/sharded_optimizer.h"
#include "../io/optimizer_state.h"
#include "../math/nonfinite.h"
#include "model_files.h"
#include "run.h"

/* ---- saving ---- */

/* The moments that this rank keeps, in m and v: the optimizer's own memory, or a copy of it. */
static inline Moments checkpoint_moments(const ShardedOptimizer *o, float *m, float *v) {
    return (Moments){.parameters = &o->parameters,
                     .ranges = o->shard_ranges,
                     .range_count = o->shard_range_count,
                     .m = m,
                     .v = v};
}

static inline cJSON *checkpoint_state(const Run *run, const ShardedOptimizer *o) {
    return run_state_to_json(&(RunState){.step = run->step,
                                         .tokens = run->step * run_tokens_per_step(run),
                                         .optimizer_parts = o->shards,
                                         .seconds = run->seconds,
                                         .data_changes = run->data_changes,
                                         .watch = run->watch,
                                         .data = run->data,
                                         .options = options_to_json(run->option_set)});
}

/* How far the thread is, and what it waits for when its own files are written. */
typedef enum { SAVE_WRITING, SAVE_WRITTEN, SAVE_COMMITTED, SAVE_FAILED } SaveState;
typedef enum { SAVE_NO_ORDER, SAVE_COMMIT, SAVE_ABORT } SaveOrder;

struct Saver {
    bool busy, agreed; /* the thread runs; all ranks' files are written, or one rank's are not */
    float *copy;       /* weights on rank 0, m, v; NULL: training waits while its own memory is written */
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock; /* of state and order */
    pthread_cond_t changed;
    SaveState state;
    SaveOrder order;
    /* what the thread works on */
    Checkpoint checkpoint; /* folder; the rest on rank 0 only */
    const TensorTable *parameters;
    const float *weights; /* NULL but on rank 0 */
    Moments moments;
    int part, parts, keep;
    long keep_every;
    const cJSON *config;
    cJSON *state_json;
    const char *tokenizer; /* tokenizer.json as the run read it at its start; NULL: there is none */
    size_t tokenizer_size;
    Log *log;
    uint64_t sum; /* of this rank's part */
    bool in_background;
    double began, stalled; /* seconds: when, and how long training waited */
    char error[CHECKPOINT_ERROR_SIZE];
};

/* Floats of the copy: 0 where no checkpoint is written while training goes on. */
static inline size_t saver_copy_floats(const Run *run, const ShardedOptimizer *o) {
    if (!*run->options->out || run->options->save_every == 0) return 0;
    const size_t moments = 2 * optimizer_moments(o);
    if (parallel_rank() == 0) return o->parameters.floats + moments;
    return o->shards > 1 ? moments : 0;
}

static inline Saver *saver_create(const Run *run, const ShardedOptimizer *o, bool with_copy) {
    Saver *s = check_calloc(sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    if (with_copy && saver_copy_floats(run, o))
        s->copy = check_calloc(saver_copy_floats(run, o) * sizeof(float));
    return s;
}

static inline void saver_free(Saver *s) {
    if (!s) return;
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s->copy);
    free(s);
}

/* This rank's files. */
static inline bool save_files(Saver *s) {
    Checkpoint *c = &s->checkpoint;
    char path[CHECKPOINT_PATH_SIZE], name[64];
    bool ok = true;
    if (s->part < s->parts) ok = moments_write(c->folder, s->part, s->parts, &s->moments, &s->sum, s->error);
    if (!ok || !s->weights) return ok;
    uint64_t sum = 0;
    NamedTensor *tensors = named_tensors(s->parameters, s->weights);
    ok = file_join(path, c->folder, "model.safetensors", s->error) &&
         safetensors_write(path, tensors, s->parameters->count, &sum, s->error) &&
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

static inline void save_set(Saver *s, SaveState state) {
    pthread_mutex_lock(&s->lock);
    s->state = state;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static inline void save_order(Saver *s, SaveOrder order) {
    pthread_mutex_lock(&s->lock);
    s->order = order;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static inline SaveState save_state(Saver *s, bool wait) {
    pthread_mutex_lock(&s->lock);
    while (wait && s->state == SAVE_WRITING) pthread_cond_wait(&s->changed, &s->lock);
    SaveState state = s->state;
    pthread_mutex_unlock(&s->lock);
    return state;
}

static inline SaveOrder save_await_order(Saver *s) {
    pthread_mutex_lock(&s->lock);
    while (s->order == SAVE_NO_ORDER) pthread_cond_wait(&s->changed, &s->lock);
    SaveOrder order = s->order;
    pthread_mutex_unlock(&s->lock);
    return order;
}

/* The thread: this rank's files, then on rank 0, when all ranks' are written, DONE and the folder's name. */
static void *save_thread(void *argument) {
    Saver *s = argument;
    thread_unpin();
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
static inline bool save_start_thread(Saver *s) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int cause = pthread_create(&s->thread, NULL, save_thread, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return cause == 0 || file_fail(s->error, "no thread can be started: %s", strerror(cause));
}

static inline void copy_floats(float *to, const float *from, size_t n) {
    const size_t chunk = 1 << 18;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i += chunk)
        memcpy(to + i, from + i, (n - i < chunk ? n - i : chunk) * sizeof *to);
}

/* On the ranks whose files are written, after the others agreed: who failed says why, once; rank 0 learns the sums. */
static inline bool save_agree(Saver *s, bool ok) {
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
static inline void save_end(Run *run, double waiting_since) {
    Saver *s = run->saver;
    if (s->has_thread)
        pthread_join(s->thread, NULL);
    else if (s->weights)
        checkpoint_abort(&s->checkpoint);
    cJSON_Delete(s->state_json);
    s->busy = false;
    s->stalled += seconds_now() - waiting_since;
    if (parallel_rank() != 0) return;
    if (s->state == SAVE_COMMITTED) {
        run->saved_step = s->checkpoint.step;
        log_message(&run->log, "saved %s/step-%08ld in %.2f s, training waited %.2f s", run->options->out,
                    s->checkpoint.step, seconds_now() - s->began, s->stalled);
    } else if (s->order == SAVE_COMMIT)
        warn("no checkpoint of step %ld: %s", s->checkpoint.step, s->error);
}

static inline void save_continue(Run *run, bool wait) {
    Saver *s = run->saver;
    if (!s || !s->busy) return;
    const double start = seconds_now();
    if (!s->agreed) {
        SaveState state = save_state(s, wait);
        if (parallel_any(state == SAVE_WRITING)) return;
        s->agreed = true;
        save_order(s, save_agree(s, state != SAVE_FAILED) ? SAVE_COMMIT : SAVE_ABORT);
    }
    if (wait || parallel_rank() != 0 || s->order == SAVE_ABORT || save_state(s, false) != SAVE_WRITTEN)
        save_end(run, start);
}

/* What the thread is to write: the memory that is trained, or, when training goes on, a copy of it. */
static inline void save_snapshot(Saver *s, const ShardedOptimizer *o, bool copy) {
    float *m = o->m, *v = o->v;
    const size_t weights = o->parameters.floats, owned = optimizer_moments(o);
    s->parameters = &o->parameters;
    s->weights = parallel_rank() == 0 ? o->weights : NULL;
    if (copy && s->copy) {
        float *at = s->copy;
        if (s->weights) copy_floats(at, s->weights, weights), s->weights = at, at += weights;
        copy_floats(at, o->m, owned), m = at, at += owned;
        copy_floats(at, o->v, owned), v = at;
    }
    s->moments = checkpoint_moments(o, m, v);
}

static inline bool optimizer_is_finite(const ShardedOptimizer *o) {
    const size_t owned = optimizer_moments(o);
    return isfinite(largest_magnitude(o->weights, o->parameters.floats)) &&
           isfinite(largest_magnitude(o->m, owned)) && isfinite(largest_magnitude(o->v, owned));
}

static inline void save_checkpoint(Run *run, ShardedOptimizer *o, bool wait) {
    const Options *options = run->options;
    save_continue(run, true);
    if (!*options->out || parallel_any(parallel_rank() == 0 && run->saved_step == run->step)) return;
    optimizer_fetch_from_gpu(o);
    Saver *s = run->saver;
    const double start = seconds_now();
    const bool leads = parallel_rank() == 0;
    char name[64];
    bool ok = optimizer_is_finite(o) ||
              file_fail(s->error, "a weight or a moment is not finite; the older checkpoints stay");
    s->checkpoint.step = (long)run->step;
    if (leads && ok) ok = checkpoint_begin(&s->checkpoint, options->out, (long)run->step, s->error);
    if (!leads) {
        checkpoint_name(name, (long)run->step, CHECKPOINT_TEMPORARY);
        ok = ok && file_join(s->checkpoint.folder, options->out, name, s->error);
    }
    wait = wait || parallel_any(!s->copy && saver_copy_floats(run, o));
    s->parts = o->shards, s->part = parallel_rank();
    s->keep = (int)options->keep, s->keep_every = (long)options->keep_every;
    s->log = &run->log;
    s->tokenizer = run->tokenizer_text, s->tokenizer_size = run->tokenizer_size;
    s->state = SAVE_WRITING, s->order = parallel_ranks() == 1 ? SAVE_COMMIT : SAVE_NO_ORDER;
    s->in_background = !wait;
    if (parallel_any(!ok)) {
        save_agree(s, ok);
        if (leads) checkpoint_abort(&s->checkpoint);
        return;
    }
    save_snapshot(s, o, !wait);
    s->config = run->model_config, s->state_json = checkpoint_state(run, o);
    s->busy = true, s->agreed = false;
    s->has_thread = save_start_thread(s);
    if (!s->has_thread) s->state = SAVE_FAILED;
    s->began = start, s->stalled = seconds_now() - start;
    if (wait) save_continue(run, true);
}

/* The last checkpoint of a run could not be written: that must not look like success. */
static inline void check_saved(const Run *run) {
    if (parallel_rank() != 0 || !*run->options->out || run->saved_step == run->step) return;
    die("the steps from %lld to %lld are lost: their checkpoint could not be written, see above; free some "
        "space, then the same command with --resume=auto does them again",
        (long long)run->saved_step + 1, (long long)run->step);
}

/* ---- resuming ---- */

/* Options that make the run what it is must be as they were. One that the checkpoint does not know came later: its default
   is what the run did. */
static inline void check_options(const Run *run, const cJSON *options, const char *folder) {
    char now[64], number[64];
    for (int i = 0; i < TRAIN_OPTION_COUNT; i++) {
        const Option *option = &train_options[i];
        const cJSON *saved = cJSON_GetObjectItemCaseSensitive(options, option->name);
        const char *was = saved ? options_json_text(saved, number) : option->value;
        if (!was) die("%s/trainer_state.json: the option \"%s\" is damaged", folder, option->name);
        if (!(option->flags & OPTION_FIXED) || strcmp(was, options_text(run->option_set, option, now)) == 0)
            continue;
        if (option->type == OPTION_FLOAT &&
            strtod(was, NULL) == *(double *)((char *)run->options + option->offset))
            continue; /* the same number, spelled otherwise */
        die("--%s is %s, but %s was trained with %s; give the same value, or start anew in another --out",
            option->name, options_text(run->option_set, option, now), folder, was);
    }
}

/* Other data than the checkpoint's changes the curve: refused, unless it is asked for. */
static inline void check_data(Run *run, const DataFingerprint *was, const char *folder) {
    char difference[256];
    if (was->folder_count == 0 && parallel_rank() == 0)
        warn("%s was written by an older version, which did not note its data: whether --data is still the "
             "same is not known",
             folder);
    if (was->folder_count == 0 || !fingerprint_difference(was, &run->data, difference)) return;
    if (!run->options->resume_data)
        die("%s was trained on other data: %s; put the data back, or go on with what is there: "
            "--resume-data=changed",
            folder, difference);
    run->data_changes++;
    if (parallel_rank() == 0) warn("the run goes on with other data (--resume-data=changed): %s", difference);
}

/* The step that the state of the checkpoint tells must be that of its folder's name, when that has the form of one. */
static inline void check_step(const Run *run, const RunState *state, const char *folder) {
    long named;
    char name[64];
    snprintf(name, sizeof name, "%.63s", check_basename(folder));
    const CheckpointKind kind = checkpoint_kind(name, &named);
    if ((kind == CHECKPOINT_FINAL || kind == CHECKPOINT_OLD) && named != state->step)
        die("%s/trainer_state.json tells of step %lld, the folder's name of %ld; resume from another "
            "checkpoint",
            folder, (long long)state->step, named);
    if (state->step > run->options->steps ||
        (state->tokens && state->tokens != state->step * run_tokens_per_step(run)))
        die("%s/trainer_state.json tells of step %lld and %lld tokens; a run of %lld steps of %lld tokens "
            "has no such state; resume from another checkpoint",
            folder, (long long)state->step, (long long)state->tokens, (long long)run->options->steps,
            (long long)run_tokens_per_step(run));
}

/* The parts that are going to be read were compared with their sums only if DONE names them. */
static inline void check_parts_named(const char *folder, int parts) {
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
static inline void load_checkpoint(Run *run, ShardedOptimizer *o, const char *folder) {
    char error[CHECKPOINT_ERROR_SIZE];
    RunState state;
    cJSON *json = checkpoint_read_json(folder, "trainer_state.json");
    if (!run_state_read(json, &state, error))
        die("%s/trainer_state.json: %s; resume from another checkpoint", folder, error);
    check_options(run, state.options, folder);
    check_step(run, &state, folder);
    run->step = state.step, run->seconds = state.seconds, run->watch = state.watch;
    run->data_changes = state.data_changes;
    check_data(run, &state.data, folder);
    const Moments moments = checkpoint_moments(o, o->m, o->v);
    const int parts = (int)state.optimizer_parts;
    check_parts_named(folder, parts);
    run_state_free(&state);
    cJSON_Delete(json);
    if (!weights_read(&o->parameters, o->weights, folder, error) ||
        !moments_read(folder, parts, &moments, error))
        die("cannot resume: %s", error);
}

/* Every file of the checkpoint against its sum: the ranks share the reading, who finds damage names it. */
static inline bool verify_checkpoint(const char *folder, const char *otherwise) {
    static const char *const needed[] = {"config.json", "model.safetensors", "trainer_state.json", NULL};
    char error[CHECKPOINT_ERROR_SIZE];
    bool ok = checkpoint_verify_share(folder, needed, parallel_rank(), parallel_ranks(), error);
    if (!ok) warn("%s%s: %s", folder, otherwise, error);
    return !parallel_any(!ok);
}

/* A checkpoint whose DONE is gone is no checkpoint; beginning anew in its place, or going on from an older one, must
   not happen without a word. */
static inline void tell_of_torn(const char *out, bool any, long newest) {
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
static inline bool latest_checkpoint(const char *out, long before, char folder[CHECKPOINT_PATH_SIZE],
                                     long *step) {
    *step = -1;
    bool any = checkpoint_latest(out, before, folder, CHECKPOINT_PATH_SIZE, step);
    if (parallel_any(*step != (long)parallel_sum_double(parallel_rank() == 0 ? (double)*step : 0)))
        die("the ranks see different checkpoints in %s (this one: %ld); all hosts must share the run folder",
            out, *step);
    return any;
}

/* What --resume asks for; "" when the run starts from its beginning. A damaged one is named and passed over for the
   next older. */
static inline void find_checkpoint(const Options *o, char folder[CHECKPOINT_PATH_SIZE]) {
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
