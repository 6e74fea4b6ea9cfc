/* evaluate_score.h: log-probabilities that a model gives to a text after another text, for ./evaluate. Include
   train_gpt.c before.

     score_encode(t, cache, context, continuation, T, where)   the tokens of both, for a model that reads at most T. free()
                                      its tokens. `where` is for errors: "'FILE', line 7"
     score_batch(model, sequences, count, scores)   the score of each; count is at most the B of the model
     score_best(item, scores, norm)   the choice with the largest score
     score_error(p, n)                the standard error of a share p of n items

   As in EleutherAI's lm-evaluation-harness, the context and the continuation are encoded together, and the text is split
   behind as many tokens as the context alone has. White space at the end of the context is moved to the beginning of
   the continuation before, because the tokens of words begin with a space. A continuation without context follows the
   token between documents. A text of more than T + 1 tokens (the last one is not read, only predicted) is cut at its
   beginning.

   Sequences of a batch are padded at their ends, which changes nothing: no token reads a later one. */
#ifndef TOOLS_EVALUATE_SCORE_H
#define TOOLS_EVALUATE_SCORE_H

#include "evaluate_tasks.h"

typedef struct {
    int32_t *tokens;     /* (length) */
    int length, context; /* tokens of all, and of the context, which come first */
    bool cut;            /* the context was longer */
} ScoreSequence;

typedef struct {
    double log_probability; /* the sum over the tokens of the continuation, in nats */
    bool greedy;            /* each of these tokens was the likeliest one */
} Score;

static inline ScoreSequence score_encode(const Tokenizer *t, TokenizerCache *cache, const char *context,
                                         const char *continuation, int T, const char *where) {
    const size_t before = task_space_end(context, strlen(context));
    char *whole = task_text("%s%s", context, continuation);
    const size_t size = strlen(whole), room = tokenizer_room(t, whole, size);
    uint16_t *ids = check_calloc((room + 1) * sizeof *ids);
    size_t in_context = tokenizer_encode(t, cache, whole, before, ids), all = 0;
    all = tokenizer_encode(t, cache, whole, size, ids);
    const int prefix = tokenizer_end_of_text(t);
    const bool prefixed = in_context == 0 && all > 0 && ids[0] != prefix;
    if (in_context == 0) in_context = 1;
    if (prefixed && prefix < 0)
        die("%s: the prompt is empty, and the tokenizer has no token between documents that could stand "
            "before the choice",
            where);
    ScoreSequence s = {.context = (int)in_context, .length = (int)all + prefixed};
    if (s.length <= s.context)
        die("%s: '%.60s' has no token of its own after the prompt; it cannot be scored", where, continuation);
    if (s.length - s.context > T)
        die("%s: '%.60s' has %d tokens, but the model reads at most %d; it cannot be scored", where,
            continuation, s.length - s.context, T);
    const int drop = s.length > T + 1 ? s.length - T - 1 : 0;
    s.cut = drop > 0, s.length -= drop, s.context -= drop;
    s.tokens = check_calloc((size_t)s.length * sizeof *s.tokens);
    for (int i = 0; i < s.length; i++) {
        const int from = i + drop - prefixed;
        s.tokens[i] = from < 0 ? prefix : ids[from];
    }
    free(ids), free(whole);
    return s;
}

/* log softmax(logits)[target]. Several logits may be the largest; the first of them counts as the likeliest. */
static inline Score score_row(const float *logits, int V, int target) {
    int best = 0;
    double sum = 0;
    for (int v = 1; v < V; v++)
        if (logits[v] > logits[best]) best = v;
    for (int v = 0; v < V; v++) sum += exp((double)logits[v] - logits[best]);
    return (Score){(double)logits[target] - logits[best] - log(sum), target == best};
}

/* Logits are computed of those tokens only that come before one of the continuation: rows `first` and on, `rows` of
   them, of the output of the latest forward pass. */
static inline Score score_rows(Model *model, int64_t first, const int32_t *targets, int rows) {
    const ModelConfig *c = &model->config;
    const int C = c->embd, V = c->vocab_size;
    const int64_t slice = loss_slice_rows(c, (int64_t)model->batch * c->seq_len);
    float *logits = model->activations.logits; /* (slice, V) */
    Score sum = {0, true}, *each = check_calloc((size_t)rows * sizeof *each);
    for (int64_t begin = 0; begin < rows; begin += slice) {
        const int64_t n = begin + slice < rows ? slice : rows - begin;
        output_logits(model, array_from(model->activations.norm, (first + begin) * C), NULL, n);
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < n; i++) each[begin + i] = score_row(logits + i * V, V, targets[begin + i]);
    }
    for (int i = 0; i < rows; i++) {
        sum.log_probability += each[i].log_probability;
        sum.greedy = sum.greedy && each[i].greedy;
    }
    free(each);
    return sum;
}

static inline void score_batch(Model *model, const ScoreSequence *sequences, int count, Score *scores) {
    int T = 1;
    for (int i = 0; i < count; i++) T = sequences[i].length - 1 > T ? sequences[i].length - 1 : T;
    int32_t *inputs = check_calloc((size_t)(count * T) * sizeof *inputs); /* (count, T) */
    for (int i = 0; i < count; i++)
        memcpy(inputs + (int64_t)i * T, sequences[i].tokens,
               (size_t)(sequences[i].length - 1) * sizeof *inputs);
    model_forward(model, inputs, count, T);
    for (int i = 0; i < count; i++) {
        const ScoreSequence *s = &sequences[i];
        scores[i] = score_rows(model, (int64_t)i * T + s->context - 1, s->tokens + s->context,
                               s->length - s->context);
    }
    free(inputs);
}

/* The choice with the largest score, the first of several; divided by the bytes of each choice with `norm`. */
static inline int score_best(const TaskItem *item, const Score *scores, bool norm) {
    int best = 0;
    double most = -INFINITY;
    for (int c = 0; c < item->count; c++) {
        const double score = scores[c].log_probability / (norm ? (double)item->bytes[c] : 1);
        if (score > most) most = score, best = c;
    }
    return best;
}

/* The standard error of a share p of n items. */
static inline double score_error(double p, int n) { return n > 1 ? sqrt(p * (1 - p) / (n - 1)) : NAN; }

#endif
