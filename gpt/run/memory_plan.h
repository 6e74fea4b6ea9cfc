/* memory_plan.h: how much memory a run needs, known before any of it is allocated.

   memory_needed(run, optimizer, &model, with_copy)   bytes that this rank needs on the host
   memory_print(run, optimizer, &model)   prints them by category, with the copy
   memory_has_copy(run, optimizer, &model)   whether the host has room for the copy; dies when it has no room for the
                      run itself

   `model` is what the trainer says its model needs. The copy is the one of weights and moments from which a checkpoint
   is written while training goes on (checkpointing.h); without it training waits for the checkpoint. */
#ifndef GPT_RUN_MEMORY_PLAN_H
#define GPT_RUN_MEMORY_PLAN_H

#include "../dist/hosts.h"
#include "checkpointing.h"

/* What a model needs beside its parameters. The first four are numbers of floats on the host; they are 0 where a GPU
   holds the model. */
typedef struct {
    size_t activations_kept;    /* what forward keeps of every layer for backward */
    size_t activations_scratch; /* activations and gradients in memory that every layer uses again */
    size_t packed;              /* with bf16 a second copy of the weights, as matrix products read them */
    size_t work;                /* of matrix products and attention while they compute */
    size_t gpu_bytes;           /* all that the GPU holds, in bytes; 0: there is no GPU */
} ModelMemory;

enum { MEMORY_CATEGORIES = 10 };
typedef struct {
    char name[64];
    size_t floats;
} MemoryCategory;

/* Fills in all categories. */
static inline void memory_categories(const Run *run, const ShardedOptimizer *o, const ModelMemory *model,
                                     bool with_copy, MemoryCategory categories[MEMORY_CATEGORIES]) {
    const MemoryCategory all[MEMORY_CATEGORIES] = {
        {"parameters", o->parameters.floats},
        {"gradients", o->parameters.floats},
        {"the optimizer's moments", 2 * optimizer_moments(o)},
        {"work of Muon", optimizer_work_floats(o)},
        {"copy that checkpoints are written from (--save-every)", with_copy ? saver_copy_floats(run, o) : 0},
        {"gradients of other ranks on their way", optimizer_buffer_floats(o, run->options->comm_dtype)},
        {"activations kept for backward", model->activations_kept},
        {"activations and gradients in work", model->activations_scratch},
        {"weights packed in bf16", model->packed},
        {"work of products and attention", model->work}};
    memcpy(categories, all, sizeof all);
    if (o->shards > 1)
        snprintf(categories[2].name, sizeof categories[2].name,
                 "the optimizer's moments, one of %d shares (--zero=1)", o->shards);
}

static inline int64_t memory_needed(const Run *run, const ShardedOptimizer *o, const ModelMemory *model,
                                    bool with_copy) {
    MemoryCategory categories[MEMORY_CATEGORIES];
    size_t floats = 0;
    memory_categories(run, o, model, with_copy, categories);
    for (int i = 0; i < MEMORY_CATEGORIES; i++) floats += categories[i].floats;
    return (int64_t)(floats * sizeof(float));
}

static inline void memory_print_line(const char *name, double bytes) {
    printf("%-54s %10.1f MiB\n", name, bytes / 0x1p20);
}

static inline void memory_print(const Run *run, const ShardedOptimizer *o, const ModelMemory *model) {
    MemoryCategory categories[MEMORY_CATEGORIES];
    memory_categories(run, o, model, true, categories);
    printf("\nmemory\n");
    for (int i = 0; i < MEMORY_CATEGORIES; i++)
        if (categories[i].floats)
            memory_print_line(categories[i].name, (double)categories[i].floats * sizeof(float));
    memory_print_line("all", (double)memory_needed(run, o, model, true));
    if (model->gpu_bytes) memory_print_line("on the GPU", (double)model->gpu_bytes);
}

static inline bool memory_has_copy(const Run *run, const ShardedOptimizer *o, const ModelMemory *model) {
    const int64_t with_copy = memory_needed(run, o, model, true);
    const int64_t without = memory_needed(run, o, model, false), have = hosts_memory_available();
    if (with_copy <= have) return true;
    if (without > have)
        die("the run needs %.1f GiB, this machine has %.1f GiB free; lower --batch (or the model's size)",
            (double)without / 0x1p30, (double)have / 0x1p30);
    warn("training will wait while a checkpoint is written: the copy that would avoid it needs %.1f GiB in "
         "all, %.1f are free",
         (double)with_copy / 0x1p30, (double)have / 0x1p30);
    return false;
}

#endif
