/* checkpointing.h: saves the checkpoints of a run while training goes on. resume.h finds and reads them.

   A checkpoint RUN/step-NNNNNNNN is a Hugging Face model folder (config.json, model.safetensors, tokenizer.json) that
   also holds the optimizer's moments in parts (optimizer_state.h), trainer_state.json, and, written last of all, DONE.

   saver_create(run, optimizer, with_copy), saver_free(saver)   what saving needs; with memory for a copy or without
   saver_copy_floats(run, optimizer)   the floats that this copy takes on this rank
   save_checkpoint(run, optimizer, wait)   begins to save the present step. With `wait`, or without memory for a copy,
                              the checkpoint is complete when the call returns. A failure is a warning: training goes
                              on, and the older checkpoints stay
   save_continue(run, wait)   between steps, if a checkpoint is being written: asks whether all ranks have written their
                              files, and if so lets rank 0 complete it. With `wait` it returns only when the checkpoint
                              is complete
   check_saved(run)           at the end of a run: dies when its last checkpoint could not be written
   Every rank calls each of these.

   How it works. The weights and moments are copied, which takes milliseconds, and a thread of low priority writes the
   copy. Rank 0 writes the model, and each rank the moments that it keeps. The thread only works on files; messages
   between ranks are sent by the main thread alone. Between steps the ranks agree that the files of all of them have
   reached the disk; then rank 0's thread writes DONE and gives the folder its final name. At most one checkpoint is
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
#include "hugging_face.h"
#include "model_files.h"
#include "run.h"

/* ---- what is saved, and how far it is ---- */

/* The moments that this rank keeps, in m and v: the optimizer's own memory, or a copy of it. */
static inline Moments checkpoint_moments(const ShardedOptimizer *o, float *m, float *v) {
    return (Moments){.parameters = &o->parameters,
                     .ranges = o->shard_ranges,
                     .range_count = o->shard_range_count,
                     .m = m,
                     .v = v};
}

/* The object of trainer_state.json; the caller deletes it. */
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

/* The progress of the saving thread. Each rank's thread writes that rank's files; the thread of rank 0 then waits for
   a SaveOrder. */
typedef enum { SAVE_WRITING, SAVE_WRITTEN, SAVE_COMMITTED, SAVE_FAILED } SaveState;
/* What rank 0's thread is to do once its files are written: nothing yet, give the checkpoint its name, or remove it. */
typedef enum { SAVE_NO_ORDER, SAVE_COMMIT, SAVE_ABORT } SaveOrder;

struct Saver {
    /* Room for weights (on rank 0 only), m and v, one after the other; NULL: training waits for every checkpoint. */
    float *copy;
    bool busy;   /* a checkpoint is being written */
    bool agreed; /* the ranks know whether the files of all of them are written */
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;   /* guards state and order, which both threads use */
    pthread_cond_t changed; /* one of the two has a new value */
    SaveState state;
    SaveOrder order;

    /* What the thread reads. The Saver does not own these arrays: they belong to the Run, to the optimizer or to
       `copy`. Only state_json belongs to the Saver, which frees it when the checkpoint is complete. */
    Checkpoint checkpoint; /* on ranks other than 0 only its folder and step */
    const TensorTable *parameters;
    const float *weights; /* (parameters->floats); NULL on ranks other than 0 */
    Moments moments;
    int part, parts; /* this rank writes part `part` of the moments' `parts`; nothing when part >= parts */
    int keep;        /* --keep, --keep-every: which older checkpoints stay */
    long keep_every;
    const cJSON *config;
    bool bf16; /* --save-dtype=bf16 */
    cJSON *state_json;
    const Tokenizer *tokenizer;
    const char *tokenizer_text; /* (tokenizer_size) the text of tokenizer.json; NULL: there is none */
    size_t tokenizer_size;
    Log *log;

    uint64_t sum; /* result: the checksum of this rank's part of the moments */
    bool in_background;
    double began;   /* when saving began, by seconds_now */
    double stalled; /* seconds that training has waited for it */
    char error[CHECKPOINT_ERROR_SIZE];
};

/* 0 when no checkpoint will be written before the end of the run, or when this rank writes none of its files. */
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

/* ---- the thread ---- */

/* Writes all weights to a file. */
static inline bool save_weights(Saver *s, const char *name, SafetensorsDtype dtype) {
    char path[CHECKPOINT_PATH_SIZE];
    uint64_t sum = 0;
    NamedTensor *tensors = named_tensors(s->parameters, s->weights);
    for (int i = 0; i < s->parameters->count; i++) tensors[i].dtype = dtype;
    const bool ok = file_join(path, s->checkpoint.folder, name, s->error) &&
                    safetensors_write(path, tensors, s->parameters->count, &sum, s->error);
    free(tensors);
    checkpoint_add_sum(&s->checkpoint, name, sum);
    return ok;
}

/* Writes this rank's files. False: s->error says why not. */
static inline bool save_files(Saver *s) {
    Checkpoint *c = &s->checkpoint;
    char name[64];
    bool ok = true;
    if (s->part < s->parts) ok = moments_write(c->folder, s->part, s->parts, &s->moments, &s->sum, s->error);
    if (!ok || !s->weights) return ok;
    const HuggingFaceModel model = {s->config, s->tokenizer, s->parameters};
    ok = save_weights(s, "model.safetensors", s->bf16 ? SAFETENSORS_BF16 : SAFETENSORS_F32) &&
         (!s->bf16 || save_weights(s, EXACT_WEIGHTS_NAME, SAFETENSORS_F32)) &&
         checkpoint_write_json(c, "config.json", s->config, s->error) &&
         hugging_face_write(c, &model, s->error) &&
         checkpoint_write_json(c, "trainer_state.json", s->state_json, s->error) &&
         (!s->tokenizer_text ||
          checkpoint_write_bytes(c, "tokenizer.json", s->tokenizer_text, s->tokenizer_size, s->error));
    moments_part_name(name, s->part, s->parts);
    checkpoint_add_sum(c, name, s->sum);
    log_sync(s->log); /* the lines up to this step: a resumed run keeps them */
    return ok;
}

static inline void save_set_state(Saver *s, SaveState state) {
    pthread_mutex_lock(&s->lock);
    s->state = state;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static inline void save_give_order(Saver *s, SaveOrder order) {
    pthread_mutex_lock(&s->lock);
    s->order = order;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* The state of the thread; with `wait` the one after SAVE_WRITING. */
static inline SaveState save_get_state(Saver *s, bool wait) {
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

/* The body of the thread: writes this rank's files. On rank 0 it then waits until the files of all ranks are written,
   and completes the checkpoint with DONE and its name. */
static void *save_thread(void *argument) {
    Saver *s = argument;
    thread_unpin();
#ifdef __linux__
    if (s->in_background) setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 10); /* training comes first */
#endif
    bool ok = save_files(s);
    save_set_state(s, ok ? SAVE_WRITTEN : SAVE_FAILED);
    if (!s->weights) return NULL;
    bool commit = save_await_order(s) == SAVE_COMMIT && ok;
    if (!commit)
        checkpoint_abort(&s->checkpoint);
    else if (checkpoint_commit(&s->checkpoint, s->error)) {
        checkpoint_prune(s->checkpoint.run_folder, s->checkpoint.step, s->keep, s->keep_every);
        save_set_state(s, SAVE_COMMITTED);
    } else
        save_set_state(s, SAVE_FAILED);
    return NULL;
}

/* Starts it with all signals blocked, so that the main thread gets them. */
static inline bool save_start_thread(Saver *s) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int cause = pthread_create(&s->thread, NULL, save_thread, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return cause == 0 || file_fail(s->error, "no thread can be started: %s", strerror(cause));
}

/* ---- the ranks together ---- */

static inline void copy_floats(float *to, const float *from, size_t n) {
    const size_t chunk = 1 << 18;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i += chunk)
        memcpy(to + i, from + i, (n - i < chunk ? n - i : chunk) * sizeof *to);
}

/* Tells rank 0 the checksums of all parts of the moments, for DONE. parallel_sum_double is exact up to 53 bits, so each
   checksum is sent in two halves. */
static inline void save_collect_sums(Saver *s) {
    char name[64];
    for (int part = 1; part < s->parts; part++) {
        const bool mine = part == s->part;
        const double high = parallel_sum_double(mine ? (double)(s->sum >> 32) : 0);
        const double low = parallel_sum_double(mine ? (double)(s->sum & 0xffffffff) : 0);
        moments_part_name(name, part, s->parts);
        if (parallel_rank() == 0)
            checkpoint_add_sum(&s->checkpoint, name, (uint64_t)high << 32 | (uint64_t)low);
    }
}

/* Whether all ranks have written their files; `ok`: this one has. When one has failed, the first such rank says why. */
static inline bool save_agree(Saver *s, bool ok) {
    const int ranks = parallel_ranks();
    int failed = 0;
    if (!parallel_any(!ok)) {
        save_collect_sums(s);
        return true;
    }
    while (failed < ranks && !parallel_any(!ok && parallel_rank() == failed)) failed++;
    if (parallel_rank() == failed) warn("no checkpoint of step %ld: %s", s->checkpoint.step, s->error);
    return false;
}

/* Joins the thread, which is about to end by itself, and logs whether the checkpoint was saved. `waiting_since`: the
   time (seconds_now) at which training began to wait for it. */
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
        SaveState state = save_get_state(s, wait);
        if (parallel_any(state == SAVE_WRITING)) return;
        s->agreed = true;
        save_give_order(s, save_agree(s, state != SAVE_FAILED) ? SAVE_COMMIT : SAVE_ABORT);
    }
    if (wait || parallel_rank() != 0 || s->order == SAVE_ABORT || save_get_state(s, false) != SAVE_WRITTEN)
        save_end(run, start);
}

/* Points the thread at what it is to write: with `copy` at a copy, since training goes on, otherwise at the memory
   that is trained. */
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

/* ---- a checkpoint from its beginning ---- */

/* Makes the checkpoint's temporary folder on rank 0; the other ranks work out its name. False, with a reason in
   s->error, when that fails, or when this rank's numbers must not be saved. */
static inline bool save_begin_folder(Saver *s, const Run *run, const ShardedOptimizer *o) {
    const long step = (long)run->step;
    char name[64];
    bool ok = optimizer_is_finite(o) ||
              file_fail(s->error, "a weight or a moment is not finite; the older checkpoints stay");
    s->checkpoint.step = step;
    if (parallel_rank() == 0)
        return ok && checkpoint_begin(&s->checkpoint, run->options->out, step, s->error);
    checkpoint_name(name, step, CHECKPOINT_TEMPORARY);
    return ok && file_join(s->checkpoint.folder, run->options->out, name, s->error);
}

/* Describes the checkpoint to the thread. */
static inline void save_describe(Saver *s, Run *run, const ShardedOptimizer *o, bool wait) {
    s->parts = o->shards, s->part = parallel_rank();
    s->keep = (int)run->options->keep, s->keep_every = (long)run->options->keep_every;
    s->log = &run->log;
    s->tokenizer = run->tokenizer;
    s->tokenizer_text = run->tokenizer_text, s->tokenizer_size = run->tokenizer_size;
    s->bf16 = run->options->save_dtype == SAVE_DTYPE_BF16;
    s->config = run->model_config, s->state_json = checkpoint_state(run, o);
    /* A single rank need not ask others whether they have written theirs. */
    s->state = SAVE_WRITING, s->order = parallel_ranks() == 1 ? SAVE_COMMIT : SAVE_NO_ORDER;
    s->in_background = !wait;
    save_snapshot(s, o, !wait);
}

static inline void save_checkpoint(Run *run, ShardedOptimizer *o, bool wait) {
    Saver *s = run->saver;
    save_continue(run, true); /* completes the one before */
    if (!*run->options->out || parallel_any(parallel_rank() == 0 && run->saved_step == run->step)) return;
    optimizer_fetch_from_gpu(o);
    const double start = seconds_now();
    const bool ok = save_begin_folder(s, run, o);
    wait = wait || parallel_any(!s->copy && saver_copy_floats(run, o));
    if (parallel_any(!ok)) {
        save_agree(s, ok); /* a rank that has failed says why */
        if (parallel_rank() == 0) checkpoint_abort(&s->checkpoint);
        return;
    }
    save_describe(s, run, o, wait);
    s->busy = true, s->agreed = false;
    s->has_thread = save_start_thread(s);
    if (!s->has_thread) s->state = SAVE_FAILED;
    s->began = start, s->stalled = seconds_now() - start;
    if (wait) save_continue(run, true);
}

/* A run whose last checkpoint is missing must not end like one that has succeeded. */
static inline void check_saved(const Run *run) {
    if (parallel_rank() != 0 || !*run->options->out || run->saved_step == run->step) return;
    const int64_t kept = run->saved_step > run->resumed_step ? run->saved_step : run->resumed_step;
    die("the steps from %lld to %lld are lost: their checkpoint could not be written, see above; free some "
        "space, then %s does them again",
        (long long)kept + 1, (long long)run->step, run_continue_command(run, run->saved_step > 0));
}

#endif
