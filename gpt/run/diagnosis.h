/* diagnosis.h: tells the user of unusual losses, and ends a run that cannot go on, because step after step was skipped for
   losses or gradients that are not finite or far too large.

   report_verdict(run, verdict, line)   prints what is unusual about the loss of the step that `line` describes, and
                whether the step was skipped; nothing when it is sound. Every rank calls it; rank 0 prints
   diagnose_and_die(run, &model, line, faulty, micro)   prints which tensor is the first that is not finite, a table of
                the largest magnitudes by layer, and what can be done; then ends the job. The trainer has computed the
                latest step, whose line of the log is `line`, once more, and stopped at micro-step number `micro` (from
                0): the first whose loss or gradient is not finite (then `faulty` is true), else the last. `model` has
                the numbers of that micro-step. Every rank calls it; the first rank that is `faulty` prints, or rank 0
                when none is */
#ifndef GPT_RUN_DIAGNOSIS_H
#define GPT_RUN_DIAGNOSIS_H

#include "run.h"
#include "../dist/parallel.h"
#include "../math/nonfinite.h"
#include "../math/tensor_table.h"

static inline void report_verdict(Run *run, StepVerdict verdict, const LogTrain *line) {
    const LossWatch *watch = &run->watch;
    if (verdict == STEP_SOUND || parallel_rank() != 0) return;
    char skipped[96] = "";
    if (step_is_skipped(verdict))
        snprintf(skipped, sizeof skipped, "; the step is skipped (%lld in a row, the run stops at %lld)",
                 (long long)watch->skipped_in_a_row, (long long)run->options->max_skipped);
    if (verdict == STEP_SKIPPED_NONFINITE)
        log_message(&run->log, "step %ld: loss %g, gradient norm %g%s", line->step, line->loss,
                    line->grad_norm, skipped);
    else
        log_message(&run->log, "step %ld: loss %.4f is a spike, %.1f deviations above the latest mean %.4f%s",
                    line->step, line->loss, line->loss_z, loss_watch_mean(watch), skipped);
}

/* The numbers of a model: two tables of tensors, and the memory that each describes. activation_memory is NULL where
   a GPU has the activations. Nothing here is changed or freed. */
typedef struct {
    const TensorTable *parameters, *activations;
    const float *weights, *gradients; /* (parameters->floats) */
    const float *activation_memory;   /* (activations->floats) */
    int layers;
} ModelNumbers;

typedef struct {
    const char *where;    /* "weights", "activations" or "gradients"; NULL: every number is finite */
    const Tensor *tensor; /* the first tensor that is not finite */
    size_t at;            /* index of its first NaN or infinity */
    float value;
} NonFinite;

/* Whether an activation still has the values that forward gave it. Backward has overwritten the others. */
static inline bool is_kept_activation(const Tensor *t) {
    return (t->per_layer && !(t->flags & TENSOR_SHARED)) || strcmp(t->name, "output") == 0 ||
           strcmp(t->name, "losses") == 0;
}

/* The first tensor of a table that has a NaN or an infinity, in the order in which the step computes them: gradients
   from the end of the table to its beginning, the others from its beginning. */
static inline NonFinite find_nonfinite(const TensorTable *table, const float *memory, const char *where) {
    const bool gradients = strcmp(where, "gradients") == 0, activations = strcmp(where, "activations") == 0;
    for (int i = 0; i < table->count; i++) {
        const Tensor *t = &table->tensors[gradients ? table->count - 1 - i : i];
        if (!memory || (activations && !is_kept_activation(t))) continue;
        float *copy;
        const float *x = tensor_values(t, memory, &copy);
        const bool sound = isfinite(largest_magnitude(x, t->count));
        const size_t at = sound ? 0 : first_nonfinite(x, t->count);
        const float value = x[at];
        free(copy);
        if (!sound) return (NonFinite){.where = where, .tensor = t, .at = at, .value = value};
    }
    return (NonFinite){0};
}

/* The first in all of the model: what is computed earlier is searched first. */
static inline NonFinite find_first_nonfinite(const ModelNumbers *model) {
    NonFinite found = find_nonfinite(model->parameters, model->weights, "weights");
    if (!found.where) found = find_nonfinite(model->activations, model->activation_memory, "activations");
    if (!found.where) found = find_nonfinite(model->parameters, model->gradients, "gradients");
    return found;
}

/* The largest magnitude in those tensors of a layer whose names contain `part`. A NaN counts as larger than all. */
static inline float layer_largest(const TensorTable *table, const float *memory, int layer,
                                  const char *part) {
    float largest = 0;
    for (int i = 0; i < table->count; i++) {
        const Tensor *t = &table->tensors[i];
        if (!t->per_layer || t->layer != layer || !strstr(t->name, part)) continue;
        float *copy, x = largest_magnitude(tensor_values(t, memory, &copy), t->count);
        free(copy);
        if (isnan(x)) return x;
        if (x > largest) largest = x;
    }
    return largest;
}

/* A table with a row for each layer: the largest magnitudes of its weights, activations and gradients. */
static inline void print_magnitudes(FILE *out, const ModelNumbers *model) {
    const struct {
        const char *heading;
        const TensorTable *table;
        const float *memory;
        const char *part; /* of the names of the tensors that the column is about */
    } columns[] = {{"weights", model->parameters, model->weights, ""},
                   {"input", model->activations, model->activation_memory, ".input"},
                   {"q, k, v", model->activations, model->activation_memory, ".qkv"},
                   {"attended", model->activations, model->activation_memory, ".attn_out"},
                   {"between", model->activations, model->activation_memory, ".mlp_input"},
                   {"MLP up", model->activations, model->activation_memory, ".up"},
                   {"d attn", model->parameters, model->gradients, ".attn"},
                   {"d MLP", model->parameters, model->gradients, ".mlp"}};
    const size_t count = sizeof columns / sizeof *columns;
    fprintf(out, "largest magnitudes by layer\n%5s", "");
    for (size_t c = 0; c < count; c++)
        if (columns[c].memory) fprintf(out, " %8s", columns[c].heading);
    for (int layer = 0; layer < model->layers; layer++) {
        fprintf(out, "\n%5d", layer);
        for (size_t c = 0; c < count; c++) {
            if (!columns[c].memory) continue; /* on the GPU */
            fprintf(out, " %8.2g",
                    (double)layer_largest(columns[c].table, columns[c].memory, layer, columns[c].part));
        }
    }
    fprintf(out, "\n");
    const Tensor *embed = &model->parameters->tensors[0]; /* the first tensor of every model */
    fprintf(out, "embedding %.2g, its gradient %.2g\n",
            (double)largest_magnitude(model->weights + embed->offset, embed->count),
            (double)largest_magnitude(model->gradients + embed->offset, embed->count));
}

/* What went wrong, in one or two sentences. `first` is the first number that is not finite, if there is one. */
static inline void print_cause(FILE *out, const Run *run, const NonFinite *first, const LogTrain *line,
                               bool faulty, int64_t micro) {
    fprintf(
        out,
        "\n%lld steps in a row were skipped, %lld in all. The last, step %ld: loss %g, gradient norm %g.\n",
        (long long)run->watch.skipped_in_a_row, (long long)run->watch.skipped, line->step, line->loss,
        line->grad_norm);
    if (first->where)
        fprintf(out, "First not finite: %s, %s, element %zu is %g (micro-step %lld of %lld on rank %d).\n",
                first->where, first->tensor->name, first->at,
                isnan(first->value) ? NAN : (double)first->value, (long long)micro + 1,
                (long long)run->micro_steps, parallel_rank());
    else if (!isfinite(line->loss) || !isfinite(line->grad_norm))
        fprintf(out, "Each micro-step by itself is finite%s; the sum of their gradients is not.\n",
                faulty ? " on second computation" : "");
    else
        fprintf(out,
                "Every number is finite; the loss stays far above the mean %.4f of the %d accepted before.\n",
                loss_watch_mean(&run->watch), loss_watch_count(&run->watch));
}

/* What the user can do. `has_saved`: there is a checkpoint in --out. */
static inline void print_advice(FILE *out, const Run *run, const NonFinite *first, bool has_saved) {
    const char *command = run_continue_command(run, has_saved);
    const char *from = has_saved           ? "the newest checkpoint of --out"
                       : run->resumed_step ? "the checkpoint that this run was resumed from"
                                           : "step 0 (there is no checkpoint)";
    if (first->where && strcmp(first->where, "weights") == 0)
        fprintf(out,
                "An update cannot have put such a number into the weights: this program skips updates that\n"
                "would. Suspect the memory of this machine or an edited checkpoint.\n");
    if (*run->options->out)
        fprintf(out,
                "Nothing was saved since. To go on from %s:\n"
                "%s, for a fault that passes by itself; with --skip-spikes=6 too, in case\n"
                "the update before the first skipped step has damaged the weights.\n",
                from, command);
    fprintf(out,
            "When it happens again: a new --out with a lower --lr, a longer --warmup or a lower --clip.\n\n");
}

__attribute__((noreturn)) static inline void
diagnose_and_die(Run *run, const ModelNumbers *model, const LogTrain *line, bool faulty, int64_t micro) {
    const int ranks = parallel_ranks();
    const bool has_saved = parallel_any(run->saved_step > 0); /* only rank 0 knows */
    int printer = 0;
    if (parallel_rank() == 0) log_close(&run->log);
    while (printer < ranks && !parallel_any(faulty && parallel_rank() == printer)) printer++;
    /* The other ranks wait here until the death of the one that prints ends the whole job. */
    if (parallel_rank() != printer % ranks) parallel_barrier();
    const NonFinite first = find_first_nonfinite(model);
    print_cause(stderr, run, &first, line, faulty, micro);
    print_magnitudes(stderr, model);
    print_advice(stderr, run, &first, has_saved);
    die("step %ld: the run has diverged: %lld steps in a row were skipped (--max-skipped); what to do stands "
        "above",
        line->step, (long long)run->watch.skipped_in_a_row);
}

#endif
