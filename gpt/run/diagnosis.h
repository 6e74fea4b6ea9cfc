/* diagnosis.h: what a user is told whose run cannot go on, because step after step was skipped for losses or gradients that
   are not finite or far too large.

   diagnose_and_die(run, &model, line, faulty, micro)   prints which tensor is not finite first, a table of the largest
                               magnitudes by layer, and what can be done; ends the job. `model` holds the weights, activations
                               and gradients of a micro-step of the latest step that was done again: number `micro`, the
                               first that by itself gives a loss or gradient that is not finite (`faulty`), or the last.
                               Every rank calls it; the first rank that has found a fault prints */
#ifndef GPT_RUN_DIAGNOSIS_H
#define GPT_RUN_DIAGNOSIS_H

#include "run.h"
#include "../dist/parallel.h"
#include "../math/tensor_table.h"

/* The numbers of a model: two tables of tensors, and the memory of each; NULL where it is on a GPU. */
typedef struct {
    const TensorTable *parameters, *activations;
    const float *weights, *gradients, *activation_memory;
    int layers;
} ModelNumbers;

typedef struct {
    const char *where;    /* "weights", "activations", "gradients"; NULL: every tensor is finite */
    const Tensor *tensor; /* the first that is not */
    size_t at;            /* its first such element */
    float value;
} NonFinite;

/* Of the activations: what forward keeps of each layer, then its end. The rest is scratch that backward uses again. */
static inline bool is_kept(const Tensor *t) {
    return (t->per_layer && !(t->flags & TENSOR_SHARED)) || strcmp(t->name, "output") == 0 ||
           strcmp(t->name, "losses") == 0;
}

/* The first tensor with a NaN or infinity, from the table's begin or, for gradients, from its end: the order in which they
   are made. */
static inline NonFinite find_nonfinite(const TensorTable *table, const float *memory, const char *where) {
    const bool gradients = strcmp(where, "gradients") == 0, activations = strcmp(where, "activations") == 0;
    for (int i = 0; i < table->count; i++) {
        const Tensor *t = &table->tensors[gradients ? table->count - 1 - i : i];
        if (!memory || (activations && !is_kept(t))) continue;
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

static inline NonFinite find_first_fault(const ModelNumbers *model) {
    NonFinite found = find_nonfinite(model->parameters, model->weights, "weights");
    if (!found.where) found = find_nonfinite(model->activations, model->activation_memory, "activations");
    if (!found.where) found = find_nonfinite(model->parameters, model->gradients, "gradients");
    return found;
}

static inline float layer_largest(const TensorTable *table, const float *memory, int layer,
                                  const char *part) {
    float largest = 0;
    for (int i = 0; i < table->count; i++) {
        const Tensor *t = &table->tensors[i];
        if (!t->per_layer || t->layer != layer || !strstr(t->name, part)) continue;
        float *copy, x = largest_magnitude(tensor_values(t, memory, &copy), t->count);
        free(copy);
        if (!(x <= largest)) largest = x; /* a NaN wins, and stays: nothing is below it */
        if (isnan(x)) return x;
    }
    return largest;
}

/* A row a layer: the largest magnitudes of weights, of what forward kept, of gradients. */
static inline void print_magnitudes(FILE *out, const ModelNumbers *model) {
    const struct {
        const char *heading;
        const TensorTable *table;
        const float *memory;
        const char *part; /* of the names of its tensors */
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
    const Tensor *embed = &model->parameters->tensors[0]; /* the first of a model */
    fprintf(out, "embedding %.2g, its gradient %.2g\n",
            (double)largest_magnitude(model->weights + embed->offset, embed->count),
            (double)largest_magnitude(model->gradients + embed->offset, embed->count));
}

static inline void print_fault(FILE *out, const Run *run, const ModelNumbers *model, const LogTrain *line,
                               bool faulty, int64_t micro) {
    NonFinite first = find_first_fault(model);
    fprintf(
        out,
        "\n%lld steps in a row were skipped, %lld in all. The last, step %ld: loss %g, gradient norm %g.\n",
        (long long)run->watch.skipped_in_a_row, (long long)run->watch.skipped, line->step, line->loss,
        line->grad_norm);
    if (first.where)
        fprintf(out, "First not finite: %s, %s, element %zu is %g (micro-step %lld of %lld on rank %d).\n",
                first.where, first.tensor->name, first.at, isnan(first.value) ? NAN : (double)first.value,
                (long long)micro + 1, (long long)run->micro_steps, parallel_rank());
    else if (!isfinite(line->loss) || !isfinite(line->grad_norm))
        fprintf(out, "Each micro-step by itself is finite%s; the sum of their gradients is not.\n",
                faulty ? " on second computation" : "");
    else
        fprintf(out,
                "Every number is finite; the loss stays far above the mean %.4f of the %d accepted before.\n",
                loss_watch_mean(&run->watch), loss_watch_count(&run->watch));
    print_magnitudes(out, model);
    if (first.where && strcmp(first.where, "weights") == 0)
        fprintf(
            out,
            "Weights do not come to hold such a number by an update: this program skips those. Suspect the\n"
            "memory of this machine or an edited checkpoint.\n");
    if (*run->options->out)
        fprintf(
            out,
            "Nothing was saved since. To go on from the newest checkpoint of %s: the same command with\n"
            "--resume=auto (a passing fault), or with --skip-spikes=6 too (the step before had spoilt it).\n",
            run->options->out);
    fprintf(out,
            "When it comes back: a new --out with a lower --lr, a longer --warmup or a lower --clip.\n\n");
}

__attribute__((noreturn)) static inline void
diagnose_and_die(Run *run, const ModelNumbers *model, const LogTrain *line, bool faulty, int64_t micro) {
    const int ranks = parallel_ranks();
    int teller = 0; /* the rank that prints */
    if (parallel_rank() == 0) log_close(&run->log);
    while (teller < ranks && !parallel_any(faulty && parallel_rank() == teller)) teller++;
    if (parallel_rank() != teller % ranks) parallel_barrier(); /* the other rank's death ends the wait */
    print_fault(stderr, run, model, line, faulty, micro);
    die("step %ld: the run has diverged: %lld steps in a row were skipped (--max-skipped); what to do stands "
        "above",
        line->step, (long long)run->watch.skipped_in_a_row);
}

#endif
