/* run.h: a run: everything that surrounds the training of a model and knows nothing of the model itself. setup.h fills a Run
   in, checkpointing.h saves and restores it, train_gpt.c advances it step by step. */
#ifndef GPT_RUN_RUN_H
#define GPT_RUN_RUN_H

#include "../io/shards.h"
#include "../io/tokenizer.h"
#include "faults.h"
#include "log.h"
#include "options.h"
#include "trainer_state.h"

typedef struct Saver Saver; /* checkpointing.h */

typedef struct {
    Options *options;
    OptionSet *option_set;
    cJSON *model_config; /* the config.json of a checkpoint: the model that is trained */

    Dataset train, val;
    Tokenizer *tokenizer; /* NULL when the data has none */
    char *
        tokenizer_text; /* its tokenizer.json as it was at the start, (tokenizer_size) bytes: what checkpoints get */
    size_t tokenizer_size;
    DataPrint data;       /* a fingerprint of all that is read, see trainer_state.h */
    int64_t data_changes; /* how often a resumed run went on with other data */

    int64_t step;           /* optimizer steps done */
    int64_t saved_step;     /* optimizer steps in the newest checkpoint; 0: there is none */
    int64_t step_sequences; /* sequences of a step, of all ranks together */
    int64_t micro_steps;    /* micro-steps of each rank in a step */
    LossWatch watch;        /* the latest losses, and how many steps were skipped */

    double peak_flops; /* of this machine, measured at the start */
    double seconds;    /* spent in training steps since the run began, over all its resumes */
    double last_val_loss;
    Log log;
    Saver *saver;
} Run;

/* Tokens of an optimizer step, of all ranks together. */
static inline int64_t run_tokens_per_step(const Run *run) {
    return run->step_sequences * run->options->seq_len;
}

/* The number of the first sequence that this rank trains on in step `step`: a step's sequences are numbered in a row, and
   each rank takes its contiguous part of them. */
static inline int64_t run_first_sequence(const Run *run, int64_t step, int rank, int ranks) {
    return step * run->step_sequences + rank * (run->step_sequences / ranks);
}

/* path = that of the tokenizer.json of the data; of its first folder when there are several. */
static inline void run_tokenizer_path(const Options *o, char path[CHECKPOINT_PATH_SIZE]) {
    char *folder = dataset_first_folder(o->data);
    snprintf(path, CHECKPOINT_PATH_SIZE, "%s/tokenizer.json", folder);
    free(folder);
}

#endif
