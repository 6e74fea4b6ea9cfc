/* diagnosis.h: what to tell a user whose run cannot go on because step after step was skipped. Knows the trainer:
   train_gpt.c includes it after the step.

   diagnose_and_die(t, line)   does the latest step's micro-steps again, one by one, until one misbehaves by itself; prints
                               which tensor is non-finite first, a table of the largest magnitudes by layer, and
                               what can be done; ends the job. Every rank calls it; the first that finds a fault speaks. */
#ifndef GPT_RUN_DIAGNOSIS_H
#define GPT_RUN_DIAGNOSIS_H

typedef struct {
    const char *where;    /* "weights", "activations", "gradients"; NULL: every tensor is finite */
    const Tensor *tensor; /* the first that is not */
    size_t at;            /* its first such element */
    float value;
} NonFinite;

/* Of the activations: what forward keeps of each layer, then its end. The rest is scratch that backward uses again. */
static bool is_kept(const Tensor *t) {
    return (t->per_layer && !(t->flags & TENSOR_SHARED)) || strcmp(t->name, "output") == 0 ||
           strcmp(t->name, "losses") == 0;
}

/* The first tensor with a NaN or infinity, from the table's begin or, for gradients, from its end: the order in which they
   are made. */
static NonFinite find_nonfinite(const TensorTable *table, const float *memory, const char *where) {
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

static NonFinite find_first_fault(const Model *model, const TensorTable *activations) {
    NonFinite found = find_nonfinite(&model->parameters, model->weights.memory, "weights");
    if (!found.where) found = find_nonfinite(activations, model->activations.memory, "activations");
    if (!found.where) found = find_nonfinite(&model->parameters, model->gradients.memory, "gradients");
    return found;
}

static float layer_largest(const TensorTable *table, const float *memory, int layer, const char *part) {
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
static void print_magnitudes(FILE *out, const Model *model, const TensorTable *activations) {
    const struct {
        const char *heading;
        const TensorTable *table;
        const float *memory;
        const char *part; /* of the names of its tensors */
    } columns[] = {{"weights", &model->parameters, model->weights.memory, ""},
                   {"input", activations, model->activations.memory, ".input"},
                   {"q, k, v", activations, model->activations.memory, ".qkv"},
                   {"attended", activations, model->activations.memory, ".attn_out"},
                   {"between", activations, model->activations.memory, ".mlp_input"},
                   {"MLP up", activations, model->activations.memory, ".up"},
                   {"d attn", &model->parameters, model->gradients.memory, ".attn"},
                   {"d MLP", &model->parameters, model->gradients.memory, ".mlp"}};
    const size_t count = sizeof columns / sizeof *columns;
    fprintf(out, "largest magnitudes by layer\n%5s", "");
    for (size_t c = 0; c < count; c++)
        if (columns[c].memory) fprintf(out, " %8s", columns[c].heading);
    for (int layer = 0; layer < model->config.layers; layer++) {
        fprintf(out, "\n%5d", layer);
        for (size_t c = 0; c < count; c++) {
            if (!columns[c].memory) continue; /* on the GPU */
            fprintf(out, " %8.2g",
                    (double)layer_largest(columns[c].table, columns[c].memory, layer, columns[c].part));
        }
    }
    fprintf(out, "\n");
    const int V = model->config.vocab_size, C = model->config.embd;
    fprintf(out, "embedding %.2g, its gradient %.2g\n",
            (double)largest_magnitude(model->weights.embed, (size_t)V * (size_t)C),
            (double)largest_magnitude(model->gradients.embed, (size_t)V * (size_t)C));
}

/* Repeats this rank's micro-steps of the latest step, each with gradients of its own, up to the first whose loss or gradient
   is not finite; true when there is one, else the last one's numbers stay in memory. */
static bool repeat_until_fault(Trainer *t, int64_t *micro) {
    const int B = t->model.batch;
    const int64_t share = t->step_sequences / parallel_ranks();
    const int64_t first = (t->step - 1) * t->step_sequences + parallel_rank() * share;
    for (*micro = 0; *micro < t->micro_steps; ++*micro) {
        Weights *g = &t->model.gradients;
        clear_gradients(t);
        double loss = micro_step(t, first + *micro * B) + device_loss_sum();
        if (device_on()) device_get(DEVICE_GRADIENTS, g->memory), fetch_from_device(t);
        if (!isfinite(loss) || !isfinite(largest_magnitude(g->memory, g->count))) return true;
    }
    --*micro;
    return false;
}

static void print_fault(FILE *out, const Trainer *t, const LogTrain *line, const TensorTable *activations,
                        bool faulty, int64_t micro) {
    NonFinite first = find_first_fault(&t->model, activations);
    fprintf(
        out,
        "\n%lld steps in a row were skipped, %lld in all. The last, step %ld: loss %g, gradient norm %g.\n",
        (long long)t->watch.skipped_in_a_row, (long long)t->watch.skipped, line->step, line->loss,
        line->grad_norm);
    if (first.where)
        fprintf(out, "First not finite: %s, %s, element %zu is %g (micro-step %lld of %lld on rank %d).\n",
                first.where, first.tensor->name, first.at, isnan(first.value) ? NAN : (double)first.value,
                (long long)micro + 1, (long long)t->micro_steps, parallel_rank());
    else if (!isfinite(line->loss) || !isfinite(line->grad_norm))
        fprintf(out, "Each micro-step by itself is finite%s; the sum of their gradients is not.\n",
                faulty ? " on second computation" : "");
    else
        fprintf(out,
                "Every number is finite; the loss stays far above the mean %.4f of the %d accepted before.\n",
                loss_watch_mean(&t->watch), loss_watch_count(&t->watch));
    print_magnitudes(out, &t->model, activations);
    if (first.where && strcmp(first.where, "weights") == 0)
        fprintf(
            out,
            "Weights do not come to hold such a number by an update: this program skips those. Suspect the\n"
            "memory of this machine or an edited checkpoint.\n");
    if (*t->options->out)
        fprintf(
            out,
            "Nothing was saved since. To go on from the newest checkpoint of %s: the same command with\n"
            "--resume=auto (a passing fault), or with --skip-spikes=6 too (the step before had spoilt it).\n",
            t->options->out);
    fprintf(out,
            "When it comes back: a new --out with a lower --lr, a longer --warmup or a lower --clip.\n\n");
}

__attribute__((noreturn)) void diagnose_and_die(Trainer *t, const LogTrain *line) {
    TensorTable activations = activations_plan(&t->model);
    int64_t micro;
    int speaker = 0;
    if (parallel_rank() == 0) log_close(&t->log);
    bool faulty = repeat_until_fault(t, &micro);
    while (speaker < parallel_ranks() && !parallel_any(faulty && parallel_rank() == speaker)) speaker++;
    if (parallel_rank() != speaker % parallel_ranks()) parallel_barrier(); /* the speaker's death ends it */
    print_fault(stderr, t, line, &activations, faulty, micro);
    die("step %ld: the run has diverged: %lld steps in a row were skipped (--max-skipped); what to do stands "
        "above",
        line->step, (long long)t->watch.skipped_in_a_row);
}

#endif
