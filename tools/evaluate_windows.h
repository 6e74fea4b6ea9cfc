/* evaluate_windows.h: the loss of a model on a text or on the validation data, for ./evaluate. Include train_gpt.c before.

     windows_of_text(path, tokenizer)      the tokens of a text file, after the token between documents, if the
                                           vocabulary has one: so each token of the text is predicted
     windows_of_data(dataset)              the tokens of the validation shards of an open dataset
     windows_free(&source)                 frees either; not the dataset
     windows_measure(model, tokenizer, &source, stride, limit, progress)   the loss of each window, at most `limit` of
                                           them (0: all). The caller frees `windows` of the result

   A window has T inputs and the T tokens behind them as targets. Windows begin at multiples of the stride. Where the
   stride is smaller than T they overlap, and of all windows but the first only the last `stride` targets count: each
   token is predicted once, and all but the first T after at least T - stride tokens. In a text the last window may be
   shorter. In shards it is left out then, so that with the stride T the windows are those of the trainer's
   validation. */
#ifndef TOOLS_EVALUATE_WINDOWS_H
#define TOOLS_EVALUATE_WINDOWS_H

#include "evaluate_tasks.h"
#include "../gpt/base/clock.h"
#include "../gpt/base/format.h"
#include "../gpt/base/program.h"

/* ---- progress, on a terminal ---- */

typedef struct {
    const char *name, *unit; /* "2/3" checkpoints; "items" or "windows" */
    int64_t total;
    double began, shown;
} Progress;

static inline Progress progress_begin(const char *name, const char *unit, int64_t total) {
    const double now = seconds_now();
    return (Progress){name, unit, total, now, now};
}

/* Writes the line anew a few times in a second, and removes it when all is done. */
static inline void progress_show(Progress *p, int64_t done) {
    if (!program_on_terminal(stderr)) return;
    const double now = seconds_now(), rate = (double)done / (now - p->began);
    char left[FORMAT_SIZE];
    if (done < p->total && now - p->shown < 0.2) return;
    p->shown = now;
    if (done < p->total)
        fprintf(stderr, "\rmodel %s  %lld/%lld %s  %.1f/s  %s left\033[K", p->name, (long long)done,
                (long long)p->total, p->unit, rate, duration_clock(left, (double)(p->total - done) / rate));
    else
        fprintf(stderr, "\r\033[K");
}

/* ---- tokens ---- */

/* Consecutive tokens, as a shard has them: two bytes each, the lower one first. */
typedef struct {
    const char *path;
    const unsigned char *tokens; /* (2 count) */
    int64_t count;
} WindowPart;

typedef struct {
    WindowPart *parts; /* (n_parts) windows do not reach from one into the next */
    int n_parts;
    bool whole_only;      /* a last window of fewer than T targets is left out */
    unsigned char *owned; /* the tokens of a text; NULL: they are a dataset's */
} WindowSource;

static inline WindowSource windows_of_text(const char *path, const Tokenizer *t) {
    size_t size, used = 0;
    char *text = check_file_read(path, FILE_STREAM, TASK_FILE_LIMIT, &size, "name a text file: --text=FILE");
    task_check_utf8(path, text, size, 1);
    TokenizerCache *cache = tokenizer_cache_new();
    uint16_t *ids = check_calloc((tokenizer_room(t, text, size) + 1) * sizeof *ids);
    if (tokenizer_end_of_text(t) >= 0) ids[used++] = (uint16_t)tokenizer_end_of_text(t);
    const size_t before = used;
    used += tokenizer_encode(t, cache, text, size, ids + used);
    if (used == before || used < 2) die("'%s' has no text to predict: %zu bytes", path, size);
    WindowSource source = {.parts = check_calloc(sizeof *source.parts), .n_parts = 1};
    source.owned = check_calloc(2 * used);
    for (size_t i = 0; i < used; i++)
        source.owned[2 * i] = (unsigned char)ids[i], source.owned[2 * i + 1] = (unsigned char)(ids[i] >> 8);
    source.parts[0] = (WindowPart){path, source.owned, (int64_t)used};
    free(text), free(cache), free(ids);
    return source;
}

static inline WindowSource windows_of_data(const Dataset *d) {
    WindowSource source = {.whole_only = true};
    size_t room = 0;
    for (int p = 0; p < d->n_parts; p++)
        for (int s = 0; s < d->parts[p].n_shards; s++) {
            const Shard *shard = &d->parts[p].shards[s];
            source.parts = check_grow(source.parts, &room, (size_t)source.n_parts + 1, sizeof *source.parts);
            source.parts[source.n_parts++] =
                (WindowPart){shard->path, shard->map + SHARD_HEADER_BYTES, (int64_t)shard->n_tokens};
        }
    return source;
}

static inline void windows_free(WindowSource *source) {
    free(source->parts), free(source->owned);
    *source = (WindowSource){0};
}

/* ---- windows ---- */

static inline int64_t windows_count(const WindowPart *part, bool whole_only, int T, int stride) {
    const int64_t targets = part->count - 1, further = targets - T;
    if (further < 0) return !whole_only && targets > 0;
    return 1 + (whole_only ? further : further + stride - 1) / stride;
}

/* One window: what was read of it, and what became of it. */
typedef struct {
    double loss;  /* the sum over the targets that count, in nats */
    double bytes; /* of text, that these targets stand for */
    int tokens;   /* how many they are */
} Window;

typedef struct {
    Window *windows; /* (count) */
    int64_t count;
    double loss, bytes, tokens; /* of all */
} WindowResult;

/* Reads window w of a part: its inputs, and its targets, T of each; behind the end of the part both are 0. Returns how
   many targets there are. */
static inline int window_read(const WindowPart *part, int64_t w, int T, int stride, int V, int32_t *inputs,
                              int32_t *targets) {
    const int64_t begin = w * stride, left = part->count - 1 - begin;
    const int n = left < T ? (int)left : T;
    for (int t = 0; t <= n; t++) {
        const unsigned char *p = part->tokens + 2 * (begin + t);
        const int token = p[0] | p[1] << 8;
        if (token >= V)
            die("token %lld of '%s' is %d, but the vocabulary has %d tokens; use the tokenizer.json the "
                "shards "
                "were made with, or prepare the text again",
                (long long)(begin + t), part->path, token, V);
        if (t < n) inputs[t] = token;
        if (t > 0) targets[t - 1] = token;
    }
    for (int t = n; t < T; t++) inputs[t] = targets[t] = 0;
    return n;
}

static inline WindowResult windows_measure(Model *model, const Tokenizer *t, const WindowSource *source,
                                           int stride, int64_t limit, const char *name) {
    const int B = model->batch, T = model->config.seq_len, V = model->config.vocab_size;
    WindowResult result = {0};
    int64_t total = 0;
    for (int p = 0; p < source->n_parts; p++)
        total += windows_count(&source->parts[p], source->whole_only, T, stride);
    if (limit > 0 && limit < total) total = limit;
    result.windows = check_calloc((size_t)(total + 1) * sizeof *result.windows);
    int32_t *inputs = check_calloc((size_t)(B * T) * sizeof *inputs);
    int32_t *targets = check_calloc((size_t)(B * T) * sizeof *targets);
    int *from = check_calloc((size_t)B * sizeof *from), *to = check_calloc((size_t)B * sizeof *to);
    Progress progress = progress_begin(name, "windows", total);
    int part = 0;
    for (int64_t w = 0; result.count < total;) {
        int b = 0;
        for (; b < B && result.count + b < total; b++, w++) {
            while (w == windows_count(&source->parts[part], source->whole_only, T, stride)) part++, w = 0;
            to[b] = window_read(&source->parts[part], w, T, stride, V, inputs + (int64_t)b * T,
                                targets + (int64_t)b * T);
            from[b] = w == 0 ? 0 : T - stride;
        }
        model_forward(model, inputs, b, T);
        model_loss(model, targets, (int64_t)b * T, 0);
        for (int i = 0; i < b; i++) {
            Window *window = &result.windows[result.count++];
            for (int64_t n = (int64_t)i * T + from[i]; n < (int64_t)i * T + to[i]; n++) {
                window->loss += model->activations.losses[n], window->tokens++;
                if (t) window->bytes += (double)tokenizer_text_bytes(t, targets[n]);
            }
            result.loss += window->loss, result.bytes += window->bytes, result.tokens += window->tokens;
        }
        progress_show(&progress, result.count);
    }
    free(inputs), free(targets), free(from), free(to);
    return result;
}

#endif
