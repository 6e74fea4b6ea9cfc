/* explain_measure.h: what happens inside a model while it reads one prompt, for ./explain. Include train_gpt.c before.

     Explanation e = explanation_of(&model, tokens, n)   all numbers of a prompt of n tokens, n at most T. The model was
                                 loaded with room for one sequence and keeps the activations of every layer. It must
                                 outlive e; explanation_free(&e) when done
     explanation_guess(&e, l, t, i), explanation_truth(&e, l, t)   entries of the arrays of the same names
     explanation_weights(&e, l, h)        the weights of a head

   Letters and layers are those of train_gpt.c. x_l is the residual stream as it enters layer l; x_L leaves the last one.
   "Stage l" below stands for x_l, from 0 (the embedding) to L.

   Two passes are made. The first reads all n tokens. From what it leaves in the activations come:
     guesses    the logit lens (nostalgebraist 2020): final norm and output matrix, applied to x_l as if the layers from
                l on did not exist; the tokens with the largest probabilities. The functions are those of forward, so
                what options change about norm, softcap and tie is in them, and stage L has the model's own predictions
     weights    a_ij of each head, from the q and k that attention read, by attention_measure.h as for ./analyze
     sizes      Euclidean lengths: of x_l, and of what attention and MLP of layer l add to it
   The second is a training step on the prompt: its first n - 1 tokens are the inputs, its last n - 1 the targets, and the
   loss is the mean cross-entropy. It leaves losses and gradients. With n = 1 there is no such step. */
#ifndef TOOLS_EXPLAIN_MEASURE_H
#define TOOLS_EXPLAIN_MEASURE_H

enum { EXPLAIN_GUESSES = 10 };

typedef struct {
    int32_t token;
    double p;
} Guess;

/* The prompt's own next token among the guesses: its probability, and how many tokens are likelier. */
typedef struct {
    double p;
    int likelier;
} Truth;

/* What log and exp change in a head of LASER: its o against the average with the same weights, sum_j a_ij v_jd. */
typedef struct {
    double share;   /* root mean square of the difference / that of the average */
    double largest; /* difference */
} LaserChange;

typedef struct {
    Model *model;
    const int32_t *tokens; /* (n) */
    int n;
    bool has_weights;        /* whether it is known how this kind of attention weighs its tokens */
    Guess *guesses;          /* (L + 1, n, EXPLAIN_GUESSES) the likeliest first */
    Truth *truths;           /* (L + 1, n) p is NaN for the last token, behind which nothing stands */
    double *weights;         /* (L, H, n (n + 1) / 2) row i of a head has i + 1 weights */
    AttentionSums *sums;     /* (L, H) those that need no gradient */
    LaserChange *changes;    /* (L, H) with LASER attention, else NULL */
    double *stream;          /* (L + 1, n) length of x_l */
    double *attention, *mlp; /* (L, n) lengths of what the blocks of a layer add */
    double *losses;          /* (n) of each token, given those before it; NaN for the first one */
    double mean_loss;        /* NaN with n = 1 */
    double *gradients;       /* (model->parameters.count) length of each tensor's gradient; NULL with n = 1 */
} Explanation;

static inline Guess *explanation_guess(const Explanation *e, int l, int t, int i) {
    return &e->guesses[((int64_t)l * e->n + t) * EXPLAIN_GUESSES + i];
}

static inline Truth *explanation_truth(const Explanation *e, int l, int t) {
    return &e->truths[(int64_t)l * e->n + t];
}

static inline double *explanation_weights(const Explanation *e, int l, int h) {
    return e->weights + ((int64_t)l * e->model->config.heads + h) * ((int64_t)e->n * (e->n + 1) / 2);
}

static inline double *explain_numbers(int64_t count) { return check_calloc((size_t)count * sizeof(double)); }

/* ---- the logit lens ---- */

/* Fills in the guesses (EXPLAIN_GUESSES) and the truth of one position, whose logits are (V). */
static inline void explain_position(Guess *guesses, Truth *truth, const float *logits, int V, int32_t next) {
    int32_t best[EXPLAIN_GUESSES];
    int count = 0;
    double sum = 0;
    for (int32_t v = 0; v < V; v++) { /* best stays sorted; most tokens are compared with its last one only */
        int at = count;
        while (at > 0 && sampling_before(logits, v, best[at - 1])) at--;
        if (at == EXPLAIN_GUESSES) continue;
        count += count < EXPLAIN_GUESSES;
        for (int i = count - 1; i > at; i--) best[i] = best[i - 1];
        best[at] = v;
    }
    for (int v = 0; v < V; v++) sum += exp((double)logits[v] - logits[best[0]]);
    for (int i = 0; i < EXPLAIN_GUESSES; i++) /* a vocabulary may be smaller than the list */
        guesses[i] = i < count ? (Guess){best[i], exp((double)logits[best[i]] - logits[best[0]]) / sum}
                               : (Guess){-1, 0};
    *truth = (Truth){NAN, 0};
    if (next < 0) return;
    truth->p = exp((double)logits[next] - logits[best[0]]) / sum;
    for (int32_t v = 0; v < V; v++) truth->likelier += sampling_before(logits, v, next);
}

/* The residual stream (n, C) at stage l. */
static inline const float *explain_stream(const Model *model, int l) {
    return l < model->config.layers ? model->activations.layers[l].input : model->activations.output;
}

/* The last stage comes last and leaves in activations.norm what forward left there. */
static inline void explain_lens(Explanation *e) {
    Model *model = e->model;
    const ModelConfig *c = &model->config;
    const Weights *w = &model->weights;
    const Activations *acts = &model->activations;
    const int V = c->vocab_size, slice = (int)loss_slice_rows(c, c->seq_len);
    for (int l = 0; l <= c->layers; l++) {
        norm_forward(acts->norm, acts->final_rstd, explain_stream(model, l), w->final_norm,
                     w->final_norm_bias, c->norm, (float)c->norm_eps, e->n, c->embd);
        for (int first = 0; first < e->n; first += slice) {
            const int rows = e->n - first < slice ? e->n - first : slice;
            const float *logits = model_logits_of(model, first, rows);
            if (l == c->layers &&
                first_nonfinite(logits, (size_t)rows * (size_t)V) < (size_t)rows * (size_t)V)
                die("the model's logits are no finite numbers: its training has diverged; use an earlier "
                    "checkpoint");
#pragma omp parallel for schedule(static)
            for (int row = 0; row < rows; row++) {
                const int t = first + row;
                explain_position(explanation_guess(e, l, t, 0), explanation_truth(e, l, t),
                                 logits + (int64_t)row * V, V, t + 1 < e->n ? e->tokens[t + 1] : -1);
            }
        }
    }
}

/* ---- attention ---- */

/* o (JACOBIANS, n, D), as attention_weights gives it. With --laser-beta attention read beta v, and the layer's o is
   that of attention divided by beta. */
static inline LaserChange explain_change(const double *o, int64_t count, double beta) {
    const double *average = o + JACOBIAN_STANDARD * count, *laser = o + JACOBIAN_LASER * count;
    double differences = 0, averages = 0, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        const double difference = laser[i] - average[i];
        differences += difference * difference, averages += average[i] * average[i];
        largest = fmax(largest, difference);
    }
    return (LaserChange){sqrt(differences / averages), largest / beta};
}

static inline void explain_attention(Explanation *e) {
    Model *model = e->model;
    const ModelConfig *c = &model->config;
    const AttentionShape shape = attention_shape(c, 1, e->n);
    const int64_t A = (int64_t)c->heads * c->head_dim, count = (int64_t)e->n * c->head_dim;
    for (int l = 0; l < c->layers; l++) {
        /* With --qk-norm forward has kept what comes before it, as backward needs it. */
        const float *in = model->weights.layers[l].q_norm ? attention_inputs(model, l, &shape)
                                                          : model->activations.layers[l].qkv;
        const double beta = (double)attention_ablations(model, l).beta;
#pragma omp parallel for schedule(dynamic)
        for (int h = 0; h < c->heads; h++) {
            double *o = explain_numbers(JACOBIANS * count);
            const int64_t at = (int64_t)l * c->heads + h;
            e->sums[at] =
                attention_weights(explanation_weights(e, l, h), o, in, in + A, in + 2 * A, &shape, 0, h);
            if (e->changes) e->changes[at] = explain_change(o, count, beta);
            free(o);
        }
    }
}

/* ---- sizes ---- */

/* The length of x (C), or of x - less if less is not NULL. */
static inline double explain_length(const float *x, const float *less, int C) {
    double squares = 0;
    for (int i = 0; i < C; i++) {
        const double value = less ? (double)x[i] - less[i] : (double)x[i];
        squares += value * value;
    }
    return sqrt(squares);
}

static inline void explain_sizes(Explanation *e) {
    const Model *model = e->model;
    const int C = model->config.embd, L = model->config.layers, n = e->n;
    for (int l = 0; l <= L; l++)
        for (int t = 0; t < n; t++) {
            const int64_t row = (int64_t)t * C, at = (int64_t)l * n + t;
            e->stream[at] = explain_length(explain_stream(model, l) + row, NULL, C);
            if (l == L) continue;
            const float *between = model->activations.layers[l].mlp_input + row;
            e->attention[at] = explain_length(between, explain_stream(model, l) + row, C);
            e->mlp[at] = explain_length(explain_stream(model, l + 1) + row, between, C);
        }
}

/* ---- a training step ---- */

static inline void explain_step(Explanation *e) {
    Model *model = e->model;
    const int n = e->n - 1;
    e->mean_loss = e->losses[0] = NAN;
    if (n == 0) return;
    memset(model->gradients.memory, 0, model->gradients.count * sizeof(float));
    model_forward(model, e->tokens, 1, n);
    e->mean_loss = model_loss(model, e->tokens + 1, n, 1.0f / (float)n) / n;
    for (int t = 0; t < n; t++) e->losses[t + 1] = (double)model->activations.losses[t];
    model_backward(model, e->tokens, 1, n);
    e->gradients = explain_numbers(model->parameters.count);
    for (int i = 0; i < model->parameters.count; i++) {
        const Tensor *t = &model->parameters.tensors[i];
        e->gradients[i] = sqrt(gradient_squares(model->gradients.memory + t->offset, t->count));
    }
}

/* ---- all of it ---- */

static inline Explanation explanation_of(Model *model, const int32_t *tokens, int n) {
    const ModelConfig *c = &model->config;
    const int64_t L = c->layers, heads = L * c->heads, stages = (L + 1) * n;
    Explanation e = {.model = model, .tokens = tokens, .n = n};
    e.has_weights = c->attn == ATTENTION_STANDARD || c->attn == ATTENTION_LASER;
    e.guesses = check_calloc((size_t)stages * EXPLAIN_GUESSES * sizeof *e.guesses);
    e.truths = check_calloc((size_t)stages * sizeof *e.truths);
    e.stream = explain_numbers(stages), e.attention = explain_numbers(stages),
    e.mlp = explain_numbers(stages);
    e.losses = explain_numbers(n);
    if (e.has_weights) {
        e.weights = explain_numbers(heads * ((int64_t)n * (n + 1) / 2));
        e.sums = check_calloc((size_t)heads * sizeof *e.sums);
    }
    if (c->attn == ATTENTION_LASER) e.changes = check_calloc((size_t)heads * sizeof *e.changes);
    model_forward(model, tokens, 1, n);
    explain_lens(&e);
    if (e.has_weights) explain_attention(&e);
    explain_sizes(&e);
    explain_step(&e);
    return e;
}

static inline void explanation_free(Explanation *e) {
    free(e->guesses), free(e->truths), free(e->weights), free(e->sums), free(e->changes);
    free(e->stream), free(e->attention), free(e->mlp), free(e->losses), free(e->gradients);
}

#endif
