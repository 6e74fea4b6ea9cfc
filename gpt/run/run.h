/* run.h: a Run holds the state of a training run except the model and the optimizer: its options, its data, its log,
   and how far it has come. setup.h fills it in, checkpointing.h saves it,
   resume.h restores it, train_gpt.c advances it. */
#ifndef GPT_RUN_RUN_H
#define GPT_RUN_RUN_H

#include "../io/shards.h"
#include "../io/tokenizer.h"
#include "log.h"
#include "loss_watch.h"
#include "train_options.h"
#include "trainer_state.h"

typedef struct Saver Saver; /* checkpointing.h */

/* run_free (setup.h) frees what a Run owns: everything but options and option_set, which belong to the caller. */
typedef struct {
    Options *options;
    OptionSet *option_set;
    cJSON *model_config; /* describes the model; a checkpoint's config.json */

    Dataset train, val;
    Tokenizer *tokenizer; /* NULL: the data has no tokenizer.json */
    /* The text of tokenizer.json as it was at the start, (tokenizer_size) bytes: every checkpoint gets a copy. */
    char *tokenizer_text;
    size_t tokenizer_size;
    DataFingerprint data; /* identifies the data that is read, see trainer_state.h */
    int64_t data_changes; /* how many times the run was resumed with other data */

    int64_t step; /* optimizer steps done */
    int64_t
        resumed_step;   /* the step of the checkpoint from which this process went on; 0: it began the run */
    int64_t saved_step; /* on rank 0: the step of the newest checkpoint in --out; 0: there is none */
    int64_t step_sequences; /* sequences of one step, all ranks together */
    int64_t micro_steps;    /* micro-steps of one step, on each rank */
    LossWatch watch;        /* the latest losses, and how many steps were skipped */

    double
        flops_per_token, /* floating-point operations of training on a token, by the convention of model_flops_per_token */
        peak_flops; /* floating-point operations per second that this machine can do, measured at the start */
    double seconds; /* spent in training steps since step 0, by all processes that continued the run */
    LogValidation last_validation; /* its numbers are NaN before the first validation */
    Log log;
    Saver *saver;
} Run;

/* Tokens of an optimizer step, all ranks together. */
static inline int64_t run_tokens_per_step(const Run *run) {
    return run->step_sequences * run->options->seq_len;
}

/* The number of the first sequence that a rank trains on in step `step` (from 0). The sequences of all steps are
   numbered consecutively, and each rank takes a contiguous part of a step's. */
static inline int64_t run_first_sequence(const Run *run, int64_t step, int rank, int ranks) {
    return step * run->step_sequences + rank * (run->step_sequences / ranks);
}

/* Writes the path of the data's tokenizer.json to `path`. When --data names several folders, the first has it. */
static inline void run_tokenizer_path(const Options *o, char path[CHECKPOINT_PATH_SIZE]) {
    char *folder = dataset_first_folder(o->data);
    snprintf(path, CHECKPOINT_PATH_SIZE, "%s/tokenizer.json", folder);
    free(folder);
}

/* The options with which the user's command continues this run, for messages. A run that was resumed from a checkpoint
   elsewhere (--resume=OLD --out=NEW) and has saved nothing in NEW yet must start from OLD again, because --resume=auto
   searches only NEW. Elsewhere --resume=auto is right. `has_saved`: --out has a checkpoint. */
static inline const char *run_continue_command(const Run *run, bool has_saved) {
    return run->resumed_step > 0 && !has_saved ? "the same command" : "the same command with --resume=auto";
}

#endif
