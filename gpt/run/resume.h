/* resume.h: finds the checkpoint from which a run goes on, checks it against the options and the data, and restores
   the run.

   run_resume(run, optimizer)   loads the checkpoint that --resume asks for; false when the run starts from its
                                beginning
   find_checkpoint(options, folder)   only finds it: `folder` becomes its path, "" when the run starts from its
                                      beginning
   load_checkpoint(run, optimizer, folder)   only loads it: the weights, AdamW's moments, and how far the run had
                       come. The number of ranks that saved it may have been another
   report_stop(run)    tells the user of a run that a signal has ended how to go on
   With --resume=auto a damaged checkpoint is passed over for an older one. If none is whole, or if one belongs to
   another run, the program ends with the reason and what can be done.
   Every rank calls each of these. */
#ifndef GPT_RUN_RESUME_H
#define GPT_RUN_RESUME_H

#include "checkpointing.h"

/* ---- whether a checkpoint belongs to this run ---- */

/* The options of the learning rate, which --resume-schedule=changed allows to differ. */
static const char resume_schedule_options[] = "steps|lr|lr-min|schedule|warmup|cooldown";

/* The options of OPTION_FIXED must have the values with which the checkpoint was trained. If the checkpoint does not
   record an option, the option was added to the program later, and the run is taken to have used its present default.
   */
static inline void check_fixed_options(const Run *run, const cJSON *options, const char *folder) {
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
            continue; /* the same number, written in another way */
        const bool schedule = options_choice_index(resume_schedule_options, option->name) >= 0;
        if (schedule && run->options->resume_schedule == RESUME_SCHEDULE_CHANGED) {
            if (parallel_rank() == 0)
                printf("changed    --%s is now %s, it was %s\n", option->name,
                       options_text(run->option_set, option, now), was);
            continue;
        }
        die("--%s is %s, but %s was trained with %s; give the same value%s, or start anew in another --out",
            option->name, options_text(run->option_set, option, now), folder, was,
            schedule ? " or --resume-schedule=changed" : "");
    }
}

/* A run that goes on with other data than before has another loss curve. So this is an error, unless the user asks
   for it. */
static inline void check_same_data(Run *run, const DataFingerprint *was, const char *folder) {
    char difference[256];
    if (was->folder_count == 0 && parallel_rank() == 0)
        warn("%s was written by an older version, which did not record its data: whether --data is still the "
             "same cannot be checked",
             folder);
    if (was->folder_count == 0 || !fingerprint_difference(was, &run->data, difference)) return;
    if (!run->options->resume_data)
        die("%s was trained on other data: %s; put the data back, or go on with what is there: "
            "--resume-data=changed",
            folder, difference);
    run->data_changes++;
    if (parallel_rank() == 0) warn("the run goes on with other data (--resume-data=changed): %s", difference);
}

/* The step in trainer_state.json must be that of the folder's name, if the folder is called like a checkpoint, and it
   must be a step of this run. */
static inline void check_saved_step(const Run *run, const RunState *state, const char *folder) {
    long named;
    char name[64];
    snprintf(name, sizeof name, "%.63s", check_basename(folder));
    const CheckpointKind kind = checkpoint_kind(name, &named);
    if ((kind == CHECKPOINT_FINAL || kind == CHECKPOINT_OLD) && named != state->step)
        die("%s/trainer_state.json says step %lld, the folder's name says %ld; resume from another "
            "checkpoint",
            folder, (long long)state->step, named);
    if (state->step > run->options->steps ||
        (state->tokens && state->tokens != state->step * run_tokens_per_step(run)))
        die("%s/trainer_state.json says step %lld and %lld tokens; a run of %lld steps of %lld tokens "
            "has no such state; resume from another checkpoint",
            folder, (long long)state->step, (long long)state->tokens, (long long)run->options->steps,
            (long long)run_tokens_per_step(run));
}

/* ---- loading ---- */

/* The file of a checkpoint that has the weights in float32. */
static inline const char *exact_weights_name(const char *folder) {
    cJSON *config = checkpoint_read_json(folder, "config.json");
    const char *dtype = json_text(config, "torch_dtype");
    const bool rounded = dtype && strcmp(dtype, "float32") != 0;
    cJSON_Delete(config);
    return rounded ? EXACT_WEIGHTS_NAME : "model.safetensors";
}

/* verify_checkpoint has checked only the files that DONE lists. This function dies if the file of weights or one of the
   `parts` files of moments, which load_checkpoint is about to read, is not listed there. */
static inline void check_parts_named(const char *folder, const char *weights, int parts) {
    char name[64], error[CHECKPOINT_ERROR_SIZE];
    const char *needed[] = {name, weights, NULL};
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

static inline void load_checkpoint(Run *run, ShardedOptimizer *o, const char *folder) {
    char error[CHECKPOINT_ERROR_SIZE];
    RunState state;
    cJSON *json = checkpoint_read_json(folder, "trainer_state.json");
    if (!run_state_read(json, &state, error))
        die("%s/trainer_state.json: %s; resume from another checkpoint", folder, error);
    check_fixed_options(run, state.options, folder);
    check_saved_step(run, &state, folder);
    run->step = run->resumed_step = state.step, run->seconds = state.seconds, run->watch = state.watch;
    run->data_changes = state.data_changes;
    check_same_data(run, &state.data, folder);
    const Moments moments = checkpoint_moments(o, o->m, o->v);
    const int parts = (int)state.optimizer_parts;
    const char *weights = exact_weights_name(folder);
    check_parts_named(folder, weights, parts);
    run_state_free(&state);
    cJSON_Delete(json);
    if (!weights_read(&o->parameters, o->weights, folder, weights, error) ||
        !moments_read(folder, parts, &moments, error))
        die("cannot resume: %s", error);
}

/* ---- finding ---- */

/* Whether every file of the checkpoint has its checksum. The ranks divide the files among them; one that finds damage
   names the file and says what follows: `consequence`, after the folder's name. */
static inline bool verify_checkpoint(const char *folder, const char *consequence) {
    static const char *const needed[] = {"config.json", "model.safetensors", "trainer_state.json", NULL};
    char error[CHECKPOINT_ERROR_SIZE];
    bool ok = checkpoint_verify_share(folder, needed, parallel_rank(), parallel_ranks(), error);
    if (!ok) warn("%s%s: %s", folder, consequence, error);
    return !parallel_any(!ok);
}

/* A checkpoint without DONE is not used. When it is newer than the newest that has one (`newest`), the user is
   warned; when there is no other (`any` is false), the run must not begin at step 0 as if nothing had been lost. */
static inline void check_checkpoint_without_done(const char *out, bool any, long newest) {
    char name[64];
    const long without_done = checkpoint_newest_torn(out, name);
    if (without_done < 0 || without_done < newest) return;
    if (any && parallel_rank() == 0)
        warn("%s/%s has no DONE: it is passed over for an older checkpoint", out, name);
    if (!any)
        die("%s/%s has no DONE, and no other checkpoint is there: its files may be damaged; bring its DONE "
            "back, or choose another --out to start anew",
            out, name);
}

/* Finds the newest checkpoint of a step below `before`, or of any step if `before` is -1. Returns false if there is
   none. Dies when another rank sees another one: then the ranks do not share the folder. */
static inline bool latest_checkpoint(const char *out, long before, char folder[CHECKPOINT_PATH_SIZE],
                                     long *step) {
    *step = -1;
    bool any = checkpoint_latest(out, before, folder, CHECKPOINT_PATH_SIZE, step);
    if (parallel_any(*step != (long)parallel_sum_double(parallel_rank() == 0 ? (double)*step : 0)))
        die("the ranks see different checkpoints in %s (this one: %ld); all hosts must share the run folder",
            out, *step);
    return any;
}

/* --resume=auto takes the newest checkpoint that is not damaged. --resume=no dies when --out has a run already. */
static inline void find_checkpoint(const Options *o, char folder[CHECKPOINT_PATH_SIZE]) {
    long step = -1;
    char without_done[64];
    folder[0] = 0;
    bool any = *o->out && latest_checkpoint(o->out, -1, folder, &step), found = any;
    if (strcmp(o->resume, "no") == 0 &&
        (any || (*o->out && checkpoint_newest_torn(o->out, without_done) >= 0)))
        die("%s holds a run already (%s); --resume=auto goes on with it, or choose another --out", o->out,
            any ? folder : without_done);
    if (strcmp(o->resume, "no") == 0) return;
    if (strcmp(o->resume, "auto") != 0) {
        snprintf(folder, CHECKPOINT_PATH_SIZE, "%s", o->resume);
        if (!verify_checkpoint(folder, " cannot be resumed from"))
            die("no whole checkpoint is in '%s'; give another one, or --resume=auto", folder);
        return;
    }
    check_checkpoint_without_done(o->out, any, step);
    for (; any; any = latest_checkpoint(o->out, step, folder, &step))
        if (verify_checkpoint(folder, " is passed over for an older checkpoint")) return;
    if (found) die("no checkpoint in %s is whole; choose another --out to start anew", o->out);
}

/* ---- a run that goes on ---- */

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

/* A sentence for people, and a line for the scripts of batch systems. */
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

#endif
