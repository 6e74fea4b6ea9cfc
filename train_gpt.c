/* train_gpt.c: trains a decoder-only transformer with standard or LASER attention on the CPU.

   Read it from top to bottom:
       1. layers      each an op_forward and an op_backward, outputs first, `d` for gradients
       2. forward, loss and backward through the whole model; its tables of tensors are in gpt/model.h
       3. sampling text
       4. the trainer one step, and validation
       5. main        the loop of steps; gpt/run/setup.h is what surrounds it: run folder, dry run, and gpt/run/checkpointing.h the checkpoints

   The names of sizes, as in the papers:  B sequences, T tokens of each, N = B*T tokens, V vocabulary,
   C width of the residual stream, L layers, H heads of size D, A = H*D, F hidden units of the MLP.
   The mathematics here is float32. What products multiply is an Array: with --dtype=bf16 it is stored as bfloat16.
   With a GPU (train_gpt.cu) section 2 runs there: gpt/dist/device.h, whose calls without one are nothing.
   Every sum has a fixed order, so a run has the same bits for any number of threads.

   Build: make, or by hand: cc -O3 -march=native -fopenmp train_gpt.c -lcjson -lm */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LASER_IMPLEMENTATION
#include "laser.h"
#include "gpt/base/check.h"
#include "gpt/io/files.h"
#include "gpt/base/program.h"
#include "gpt/run/faults.h"
#include "gpt/math/rng.h"
#include "gpt/base/machine.h"
#include "gpt/base/profile.h"
#include "gpt/run/options.h"
#include "gpt/math/matmul.h"
#include "gpt/model.h"
#include "gpt/io/shards.h"
#include "gpt/io/tokenizer.h"
#include "gpt/math/optimizer.h"
#include "gpt/dist/parallel.h"
#include "gpt/dist/hosts.h"
#include "gpt/dist/device.h"
#include "gpt/io/checkpoint.h"
#include "gpt/io/optimizer_state.h"
#include "gpt/run/trainer_state.h"
#include "gpt/run/log.h"

/* ============================================================================================ 1. layers ==== */

/* e^x to 2 ulp for -87 <= x <= 60, clamped beyond; without branches, so that loops over it become vector code.
   x = n ln2 + r, |r| <= ln2/2; e^r by its Taylor polynomial; 2^n by writing the exponent's bits. No result or its inverse
   is a denormal number, for which some processors take a hundred times as long, even where a compiler only multiplies by
   it to throw the product away. */
static inline float exp_fast(float x) {
    x = x < -87.0f ? -87.0f : x > 60.0f ? 60.0f : x;
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    float n = (x * 1.44269504f + shift) - shift;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln2 in two parts, the first exact in few bits */
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    union {
        uint32_t bits;
        float value;
    } power = {(uint32_t)((int32_t)n + 127) << 23};
    return p * power.value;
}

/* out (N, C) = embed[token] (V, C), plus position (T, C) where the model has one */
void embedding_forward(float *out, const int32_t *tokens, const float *embed, const float *position,
                       int64_t N, int T, int C) {
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < N; n++) {
        const float *row = embed + (int64_t)tokens[n] * C, *place = position ? position + n % T * C : NULL;
        for (int c = 0; c < C; c++) out[n * C + c] = place ? row[c] + place[c] : row[c];
    }
}

/* dembed (V, C) += dout (N, C) at each token; dposition (T, C) likewise, when not NULL.
   A token's row belongs to one part and so to one thread, which looks through all tokens for those of its part, and adds
   them in order. Parts are more than the threads that memory could feed. */
void embedding_backward(float *dembed, float *dposition, const float *dout, const int32_t *tokens, int64_t N,
                        int T, int C) {
    enum { PARTS = 32 };
#pragma omp parallel for schedule(dynamic)
    for (int part = 0; part < PARTS; part++)
        for (int64_t n = 0; n < N; n++) {
            if (tokens[n] % PARTS != part) continue;
            float *row = dembed + (int64_t)tokens[n] * C;
            for (int c = 0; c < C; c++) row[c] += dout[n * C + c];
        }
    if (!dposition) return;
#pragma omp parallel for schedule(static)
    for (int t = 0; t < T; t++)
        for (int64_t n = t; n < N; n += T)
            for (int c = 0; c < C; c++) dposition[(int64_t)t * C + c] += dout[n * C + c];
}

/* out (N, C) = x * rstd * weight, rstd (N) = 1/sqrt(mean(x^2) + eps)    (Zhang & Sennrich 2019; eps 1e-6) */
void rmsnorm_forward(Array out, float *rstd, const float *x, const float *weight, int64_t N, int C) {
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < N; n++) {
        const float *row = x + n * C;
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int c = 0; c < C; c++) squares += row[c] * row[c];
        float r = rstd[n] = 1.0f / sqrtf(squares / (float)C + 1e-6f);
        const Array to = array_from(out, n * C);
        for (int c = 0; c < C; c++) array_put(to, c, row[c] * r * weight[c]);
    }
}

/* The same from the rstd that forward kept: cheaper to do again in backward than to store. */
void rmsnorm_recompute(Array out, const float *rstd, const float *x, const float *weight, int64_t N, int C) {
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < N; n++) {
        const Array to = array_from(out, n * C);
        const float *row = x + n * C, r = rstd[n];
        for (int c = 0; c < C; c++) array_put(to, c, row[c] * r * weight[c]);
    }
}

/* dx (N, C) += ; dweight (C) += ; partial (ceil(N / NORM_CHUNK), C) is scratch.
   forward: out = x * r * w.  With g = dout * w:  dx = r * (g - x * r^2 * mean(g * x)),  dw = sum_n dout * x * r */
void rmsnorm_backward(float *dx, float *dweight, float *partial, const float *dout, const float *x,
                      const float *rstd, const float *weight, int64_t N, int C) {
    int64_t chunks = (N + NORM_CHUNK - 1) / NORM_CHUNK;
#pragma omp parallel for schedule(static)
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        float *dw = partial + chunk * C;
        memset(dw, 0, (size_t)C * sizeof *dw);
        int64_t end = (chunk + 1) * NORM_CHUNK < N ? (chunk + 1) * NORM_CHUNK : N;
        for (int64_t n = chunk * NORM_CHUNK; n < end; n++) {
            const float *row = x + n * C, *drow = dout + n * C, r = rstd[n];
            float dot = 0;
#pragma omp simd reduction(+ : dot)
            for (int c = 0; c < C; c++) dot += drow[c] * weight[c] * row[c];
            float pull = dot * r * r * r / (float)C;
            for (int c = 0; c < C; c++) {
                dx[n * C + c] += drow[c] * weight[c] * r - row[c] * pull;
                dw[c] += drow[c] * row[c] * r;
            }
        }
    }
#pragma omp parallel for schedule(static)
    for (int c = 0; c < C; c++)
        for (int64_t chunk = 0; chunk < chunks; chunk++) dweight[c] += partial[chunk * C + c];
}

/* Elements that a layer takes out of an Array at a time: they stay in the first-level cache. */
enum { CHUNK = 128 };

/* Rotary positions (Su et al. 2021) on the q and k thirds of qkv (N, 3A): the pair (d, d + D/2) of each head turns by the
   angle t * 10000^(-2d/D), given as turn (T, D/2, 2) = cos, sin. out (N, 3A) = qkv turned; it may be qkv itself.
   direction 1 turns forward; -1 turns gradients back, which is the transpose and so rope's backward. */
void rope_rotate(Array out, const float *qkv, const float *turn, float direction, int64_t N, int T, int H,
                 int D) {
    const int half = D / 2;
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < N; n++) {
        const float *angle = turn + n % T * D;
        for (int head = 0; head < 2 * H; head++) /* the heads of q, then those of k */
            for (int begin = 0; begin < half; begin += CHUNK) {
                const int count = half - begin < CHUNK ? half - begin : CHUNK;
                const int64_t at = (n * 3 * H + head) * D + begin;
                float a[CHUNK], b[CHUNK];
                for (int d = 0; d < count; d++) {
                    const float *x = qkv + at + d, *to = angle + 2 * (begin + d);
                    float cosine = to[0], sine = direction * to[1];
                    a[d] = x[0] * cosine - x[half] * sine;
                    b[d] = x[half] * cosine + x[0] * sine;
                }
                array_write(out, at, a, count);
                array_write(out, at + half, b, count);
            }
        const int64_t v = (n * 3 + 2) * H * D;
        if (out.data != qkv) array_write(out, v, qkv + v, H * D);
    }
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + exp_fast(-x)); }

/* gelu in its tanh form, x/2 (1 + tanh(s)) = x * sigmoid(2s) with s = sqrt(2/pi) (x + 0.044715 x^3) */
static inline float gelu_sigmoid(float x) { return sigmoid(1.59576912f * (x + 0.044715f * x * x * x)); }
static inline float gelu_slope(float x, float s) {
    return s + x * s * (1.0f - s) * 1.59576912f * (1.0f + 0.134145f * x * x);
}

/* s (n) = the sigmoids that act takes of x. Apart from what uses them, because a compiler that sees both in one loop moves
   the use before the clamp of exp_fast and divides once for each of its cases. */
static inline void activation_sigmoids(float *restrict s, const float *restrict x, int n, int kind) {
    if (kind == ACTIVATION_GELU)
        for (int i = 0; i < n; i++) s[i] = gelu_sigmoid(x[i]);
    if (kind == ACTIVATION_SWIGLU)
        for (int i = 0; i < n; i++) s[i] = sigmoid(x[i]);
}

/* hidden (N, F) = act(up (N, F)); with swiglu up is (N, 2F): silu(gate) * up, gate first (Shazeer 2020) */
void activation_forward(Array hidden, Array up, int64_t N, int F, int kind) {
    const int U = F * (kind == ACTIVATION_SWIGLU ? 2 : 1);
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < N; n++)
        for (int begin = 0; begin < F; begin += CHUNK) {
            const int count = F - begin < CHUNK ? F - begin : CHUNK;
            float x[CHUNK], y[CHUNK], s[CHUNK], h[CHUNK];
            array_read(x, up, n * U + begin, count);
            if (kind == ACTIVATION_SWIGLU) array_read(y, up, n * U + F + begin, count);
            activation_sigmoids(s, x, count, kind);
            if (kind == ACTIVATION_GELU)
                for (int i = 0; i < count; i++) h[i] = x[i] * s[i];
            else if (kind == ACTIVATION_RELU)
                for (int i = 0; i < count; i++) h[i] = x[i] > 0 ? x[i] : 0;
            else
                for (int i = 0; i < count; i++) h[i] = x[i] * s[i] * y[i];
            array_write(hidden, n * F + begin, h, count);
        }
}

/* d_up (N, F or 2F) = d_hidden (N, F) through act at up, and hidden once more: cheaper than to have kept it. A
   MatmulFinish: d_hidden comes a tile at a time, straight from the product that makes it, and is never stored. */
typedef struct {
    Array d_up, hidden, up;
    int F, kind;
} ActivationBackward;

void activation_backward(void *context, const MatmulTile *tile) {
    const ActivationBackward *a = context;
    const int F = a->F, kind = a->kind, U = F * (kind == ACTIVATION_SWIGLU ? 2 : 1);
    const int rows = tile->rows, columns = tile->columns, count = rows * columns;
    const int64_t in_up = tile->row * U + tile->column, in_hidden = tile->row * F + tile->column;
    float x[MATMUL_TILE], y[MATMUL_TILE], s[MATMUL_TILE], h[MATMUL_TILE];
    float dx[MATMUL_TILE], dy[MATMUL_TILE], dh[MATMUL_TILE];
    array_read_tile(dh, array_of_floats(tile->values), 0, tile->stride, rows, columns);
    array_read_tile(x, a->up, in_up, U, rows, columns);
    if (kind == ACTIVATION_SWIGLU) array_read_tile(y, a->up, in_up + F, U, rows, columns);
    activation_sigmoids(s, x, count, kind);
    if (kind == ACTIVATION_GELU)
        for (int i = 0; i < count; i++) {
            h[i] = x[i] * s[i];
            dx[i] = dh[i] * gelu_slope(x[i], s[i]);
        }
    else if (kind == ACTIVATION_RELU)
        for (int i = 0; i < count; i++) {
            h[i] = x[i] > 0 ? x[i] : 0;
            dx[i] = x[i] > 0 ? dh[i] : 0;
        }
    else
        for (int i = 0; i < count; i++) { /* h = x s(x) y, s the sigmoid */
            h[i] = x[i] * s[i] * y[i];
            dx[i] = dh[i] * y[i] * s[i] * (1.0f + x[i] * (1.0f - s[i]));
            dy[i] = dh[i] * x[i] * s[i];
        }
    array_write_tile(a->hidden, in_hidden, F, h, rows, columns);
    array_write_tile(a->d_up, in_up, U, dx, rows, columns);
    if (kind == ACTIVATION_SWIGLU) array_write_tile(a->d_up, in_up + F, U, dy, rows, columns);
}

/* In lanes, because compilers may not reorder comparisons with a possible NaN by themselves. */
static inline float row_max(const float *x, int n) {
    enum { LANES = 16 };
    float lane[LANES], largest = x[0];
    for (int j = 0; j < LANES; j++) lane[j] = x[0];
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    for (; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    for (int j = 0; j < LANES; j++) largest = lane[j] > largest ? lane[j] : largest;
    return largest;
}

/* losses (N) = -log softmax(logits)[target]; d_logits (N, V) = the gradient of scale * sum(losses). logits (N, V) are
   used up; d_logits may lie in the same place. */
void cross_entropy_forward_backward(float *losses, Array d_logits, float *logits, const int32_t *targets,
                                    float scale, int64_t N, int V) {
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < N; n++) {
        float *row = logits + n * V, largest = row_max(row, V), sum = 0;
        float target_logit = row[targets[n]];
#pragma omp simd reduction(+ : sum)
        for (int v = 0; v < V; v++) sum += row[v] = exp_fast(row[v] - largest);
        losses[n] = logf(sum) + largest - target_logit;
        const Array d = array_from(d_logits, n * V);
        const float factor = scale / sum, at_target = row[targets[n]] * factor - scale;
        for (int v = 0; v < V; v++) array_put(d, v, row[v] * factor);
        array_put(d, targets[n], at_target);
    }
}

/* ======================================================================== 2. forward, loss and backward ==== */

static AttentionShape attention_shape(const ModelConfig *c, int B, int T) {
    const ptrdiff_t A = (ptrdiff_t)c->heads * c->head_dim;
    return (AttentionShape){
        .batch = B,
        .seq_len = T,
        .heads = c->heads,
        .head_dim = c->head_dim,
        .qkv_strides = {3 * A * T, 3 * A, c->head_dim},
        .out_strides = {A * T, A, c->head_dim},
        .kind = c->attn ? ATTENTION_LASER : ATTENTION_STANDARD,
        .shift = c->laser_shift ? LASER_SHIFT_SEQUENCE : LASER_SHIFT_CAUSAL,
        .precision = c->dtype == DTYPE_BF16 ? ATTENTION_BF16 : ATTENTION_FP32,
    };
}

/* The two halves of a block. Each computes what backward needs of it and, unless out is NULL, its output (N, C); so
   that backward can do them again, to the same bits, for what --recompute did not keep. */

/* out = input + attention(rmsnorm(input)) . o^T */
static void attention_block(Model *model, int l, int B, int T, float *out) {
    const ModelConfig *c = &model->config;
    const Linear *w = layer_products(model, l);
    const LayerActivations *a = &model->activations.layers[l];
    const Array norm = model->activations.norm;
    const AttentionShape shape = attention_shape(c, B, T);
    const int A = c->heads * c->head_dim;
    const int64_t N = (int64_t)B * T;

    profile(PROFILE_NORM);
    rmsnorm_forward(norm, a->attn_rstd, a->input, model->weights.layers[l].attn_norm, N, c->embd);
    profile(PROFILE_QKV);
    linear_forward((MatmulOutput){.out = array_of_floats(a->qkv)}, norm, &w[QKV], N);
    profile(PROFILE_ROPE);
    if (model->rope_cos_sin)
        rope_rotate(array_of_floats(a->qkv), a->qkv, model->rope_cos_sin, 1, N, T, c->heads, c->head_dim);
    profile(PROFILE_ATTENTION);
    attention_forward(a->attn_out, a->attn_lse, a->qkv, a->qkv + A, a->qkv + 2 * A, &shape);
    if (!out) return;
    profile(PROFILE_PROJECTION);
    linear_forward((MatmulOutput){.out = array_of_floats(out), .addend = a->input},
                   array_of_floats(a->attn_out), &w[ATTENTION_OUT], N);
}

/* out = mlp_input + activation(rmsnorm(mlp_input) . up^T) . down^T */
static void mlp_block(Model *model, int l, int64_t N, float *out) {
    const ModelConfig *c = &model->config;
    const Linear *w = layer_products(model, l);
    const LayerActivations *a = &model->activations.layers[l];
    const Array norm = model->activations.norm, hidden = model->activations.hidden;

    profile(PROFILE_NORM);
    rmsnorm_forward(norm, a->mlp_rstd, a->mlp_input, model->weights.layers[l].mlp_norm, N, c->embd);
    profile(PROFILE_MLP_UP);
    linear_forward((MatmulOutput){.out = a->up}, norm, &w[MLP_UP], N);
    if (!out) return;
    profile(PROFILE_ACTIVATION);
    activation_forward(hidden, a->up, N, c->mlp_hidden, c->activation);
    profile(PROFILE_MLP_DOWN);
    linear_forward((MatmulOutput){.out = array_of_floats(out), .addend = a->mlp_input}, hidden, &w[MLP_DOWN],
                   N);
}

/* tokens (B, T) -> activations.output (N, C), the residual stream after the last block, and its norm.
   T may be shorter than the model's, B smaller than its batch. */
void model_forward(Model *model, const int32_t *tokens, int B, int T) {
    if (device_on()) {
        device_forward(tokens, B, T);
        return;
    }
    const ModelConfig *c = &model->config;
    const int64_t N = (int64_t)B * T;
    const Weights *weights = &model->weights;
    Activations *acts = &model->activations;

    profile(PROFILE_EMBEDDING);
    const float *position = weights->position ? weights->position : model->fixed_positions;
    embedding_forward(acts->layers[0].input, tokens, weights->embed, position, N, T, c->embd);
    for (int l = 0; l < c->layers; l++) {
        attention_block(model, l, B, T, acts->layers[l].mlp_input);
        mlp_block(model, l, N, l + 1 < c->layers ? acts->layers[l + 1].input : acts->output);
    }
    profile(PROFILE_NORM);
    rmsnorm_forward(acts->norm, acts->final_rstd, acts->output, weights->final_norm, N, c->embd);
    profile(PROFILE_OTHER);
}

/* After model_forward: the sum of the losses of the N tokens. Logits (N, V) never exist whole: a slice of rows is
   computed, turned into losses and into their gradients, and used up at once. With gradient_scale not 0 it leaves
   d_norm (N, C) and adds to the gradient of embed, as the gradient of gradient_scale * sum. With a GPU it returns 0 at
   once, and device_loss_sum() tells later. */
double model_loss(Model *model, const int32_t *targets, int64_t N, float gradient_scale) {
    if (device_on()) {
        device_loss(targets, N, gradient_scale);
        return 0;
    }
    const ModelConfig *c = &model->config;
    const int C = c->embd, V = c->vocab_size;
    const Linear *w = output_product(model);
    Activations *acts = &model->activations;
    const int64_t slice = loss_slice_rows(c, N);
    double sum = 0;
    for (int64_t begin = 0; begin < N; begin += slice) {
        int64_t rows = begin + slice < N ? slice : N - begin;
        const Array norm = array_from(acts->norm, begin * C);
        profile(PROFILE_LOGITS);
        linear_forward((MatmulOutput){.out = array_of_floats(acts->logits)}, norm, w, rows);
        profile(PROFILE_CROSS_ENTROPY);
        cross_entropy_forward_backward(acts->losses + begin, acts->d_logits, acts->logits, targets + begin,
                                       gradient_scale, rows, V);
        if (gradient_scale == 0) continue;
        profile(PROFILE_LOGITS);
        const MatmulOutput d_norm = {.out = array_of_floats(acts->d_norm + begin * C)};
        linear_backward_input(d_norm, acts->d_logits, w, rows);
        linear_backward_weight(model->gradients.embed, acts->d_logits, norm, w, rows);
    }
    profile(PROFILE_OTHER);
    for (int64_t n = 0; n < N; n++) sum += acts->losses[n];
    return sum;
}

/* d_residual (N, C): from the gradient of the block's output to that of mlp_input; the lines of mlp_block in reverse,
   each quoted where its backward stands. Gradients of weights are added to `g`. */
static void mlp_block_backward(Model *model, int l, int64_t N) {
    const ModelConfig *c = &model->config;
    const Linear *w = layer_products(model, l);
    const LayerWeights *weights = &model->weights.layers[l], *g = &model->gradients.layers[l];
    const LayerActivations *a = &model->activations.layers[l];
    Activations *acts = &model->activations;
    const Array d_out = array_of_floats(acts->d_residual);

    /* out = mlp_input + hidden . down^T,  hidden = activation(up) */
    profile(PROFILE_MLP_DOWN);
    ActivationBackward activation = {acts->d_up, acts->hidden, a->up, c->mlp_hidden, c->activation};
    linear_backward_input((MatmulOutput){.finish = activation_backward, .context = &activation}, d_out,
                          &w[MLP_DOWN], N);
    linear_backward_weight(g->down, d_out, acts->hidden, &w[MLP_DOWN], N);
    /* up = norm . up^T */
    profile(PROFILE_NORM);
    rmsnorm_recompute(acts->norm, a->mlp_rstd, a->mlp_input, weights->mlp_norm, N, c->embd);
    profile(PROFILE_MLP_UP);
    linear_backward_weight(g->gate ? g->gate : g->up, acts->d_up, acts->norm, &w[MLP_UP], N);
    linear_backward_input((MatmulOutput){.out = array_of_floats(acts->d_norm)}, acts->d_up, &w[MLP_UP], N);
    /* norm = rmsnorm(mlp_input) * mlp_norm */
    profile(PROFILE_NORM);
    rmsnorm_backward(acts->d_residual, g->mlp_norm, acts->norm_partial, acts->d_norm, a->mlp_input,
                     a->mlp_rstd, weights->mlp_norm, N, c->embd);
}

/* The same for attention_block: d_residual from the gradient of mlp_input to that of input. */
static void attention_block_backward(Model *model, int l, int B, int T) {
    const ModelConfig *c = &model->config;
    const Linear *w = layer_products(model, l);
    const LayerWeights *weights = &model->weights.layers[l], *g = &model->gradients.layers[l];
    const LayerActivations *a = &model->activations.layers[l];
    Activations *acts = &model->activations;
    const AttentionShape shape = attention_shape(c, B, T);
    const int A = c->heads * c->head_dim;
    const int64_t N = (int64_t)B * T;
    const Array d_out = array_of_floats(acts->d_residual);
    float *d_in = acts->d_attn_in;

    /* out = input + attn_out . o^T */
    profile(PROFILE_PROJECTION);
    linear_backward_weight(g->o, d_out, array_of_floats(a->attn_out), &w[ATTENTION_OUT], N);
    linear_backward_input((MatmulOutput){.out = array_of_floats(acts->d_attn_out)}, d_out, &w[ATTENTION_OUT],
                          N);
    /* attn_out = attention(q, k, v) */
    profile(PROFILE_ATTENTION);
    attention_backward(d_in, d_in + A, d_in + 2 * A, acts->d_attn_out, a->qkv, a->qkv + A, a->qkv + 2 * A,
                       a->attn_out, a->attn_lse, &shape);
    /* q, k = rope(q, k) */
    profile(PROFILE_ROPE);
    if (model->rope_cos_sin)
        rope_rotate(acts->d_qkv, d_in, model->rope_cos_sin, -1, N, T, c->heads, c->head_dim);
    /* qkv = norm . q^T */
    profile(PROFILE_NORM);
    rmsnorm_recompute(acts->norm, a->attn_rstd, a->input, weights->attn_norm, N, c->embd);
    profile(PROFILE_QKV);
    linear_backward_weight(g->q, acts->d_qkv, acts->norm, &w[QKV], N);
    linear_backward_input((MatmulOutput){.out = array_of_floats(acts->d_norm)}, acts->d_qkv, &w[QKV], N);
    /* norm = rmsnorm(input) * attn_norm */
    profile(PROFILE_NORM);
    rmsnorm_backward(acts->d_residual, g->attn_norm, acts->norm_partial, acts->d_norm, a->input, a->attn_rstd,
                     weights->attn_norm, N, c->embd);
}

/* After model_loss: adds the gradients of all parameters to model->gradients. */
void model_backward(Model *model, const int32_t *tokens, int B, int T) {
    if (device_on()) {
        device_backward(B, T);
        return;
    }
    const ModelConfig *c = &model->config;
    const int64_t N = (int64_t)B * T;
    const Weights *gradients = &model->gradients;
    Activations *acts = &model->activations;

    profile(PROFILE_NORM);
    memset(acts->d_residual, 0, (size_t)(N * c->embd) * sizeof *acts->d_residual);
    /* norm = rmsnorm(output) * final_norm */
    rmsnorm_backward(acts->d_residual, gradients->final_norm, acts->norm_partial, acts->d_norm, acts->output,
                     acts->final_rstd, model->weights.final_norm, N, c->embd);
    for (int l = c->layers - 1; l >= 0; l--) {
        const bool again = c->recompute == RECOMPUTE_BLOCK;
        if (c->recompute != RECOMPUTE_NONE)
            attention_block(model, l, B, T, again ? acts->layers[l].mlp_input : NULL);
        if (again) mlp_block(model, l, N, NULL);
        mlp_block_backward(model, l, N);
        attention_block_backward(model, l, B, T);
        parallel_final((size_t)(gradients->layers[l].attn_norm - gradients->memory)); /* see parallel.h */
    }
    /* layers[0].input = embed[token] + position */
    profile(PROFILE_EMBEDDING);
    embedding_backward(gradients->embed, gradients->position, acts->d_residual, tokens, N, T, c->embd);
    profile(PROFILE_OTHER);
}

/* ============================================================================================ 3. sampling ==== */

/* The next token after tokens (count <= T), drawn from softmax(logits / temperature); 0 takes the likeliest.
   `draw` numbers the draws of a seed. */
int32_t model_sample(Model *model, const int32_t *tokens, int count, double temperature, uint64_t seed,
                     uint64_t draw) {
    const ModelConfig *c = &model->config;
    float *logits = model->activations.logits;
    model_forward(model, tokens, 1, count);
    if (device_on())
        device_logits(logits, count - 1);
    else
        linear_forward((MatmulOutput){.out = array_of_floats(logits)},
                       array_from(model->activations.norm, (int64_t)(count - 1) * c->embd),
                       output_product(model), 1);
    int best = 0;
    double sum = 0, passed = 0;
    for (int v = 1; v < c->vocab_size; v++)
        if (logits[v] > logits[best]) best = v;
    if (temperature == 0) return best;
    for (int v = 0; v < c->vocab_size; v++) sum += exp((logits[v] - logits[best]) / temperature);
    double goal = rng_uniform(seed, RNG_STREAM_SAMPLE, draw) * sum;
    for (int v = 0; v < c->vocab_size; v++)
        if ((passed += exp((logits[v] - logits[best]) / temperature)) > goal) return v;
    return best;
}

/* Prints the prompt and `count` sampled tokens. Past T the oldest half of the context is forgotten. */
void model_print_sample(Model *model, const Tokenizer *tokenizer, const char *prompt, int count,
                        double temperature, uint64_t seed) {
    const int T = model->config.seq_len, end_of_text = tokenizer_end_of_text(tokenizer);
    int32_t *context = check_malloc((size_t)T * sizeof *context);
    size_t prompt_size = strlen(prompt);
    uint16_t *ids = check_malloc(tokenizer_room(tokenizer, prompt, prompt_size) * sizeof *ids);
    size_t prompt_count = tokenizer_encode(tokenizer, NULL, prompt, prompt_size, ids);
    int used = 0;
    if (prompt_count == 0 && end_of_text >= 0)
        context[used++] = end_of_text; /* what every document follows */
    for (size_t i = prompt_count >= (size_t)T ? prompt_count - (size_t)T + 1 : 0; i < prompt_count; i++)
        context[used++] = ids[i];
    if (used == 0) context[used++] = 0;
    const bool shown =
        program_on_terminal(stdout); /* a terminal obeys some bytes; a file or a pipe gets them as they are */
    char waiting[8] = "";
    if (shown)
        check_print_piece(stdout, waiting, prompt, prompt_size);
    else
        fwrite(prompt, 1, prompt_size, stdout);
    for (int i = 0; i < count; i++) {
        if (used == T) {
            memmove(context, context + T / 2, (size_t)(T - T / 2) * sizeof *context);
            used = T - T / 2;
        }
        int32_t token = model_sample(model, context, used, temperature, seed, (uint64_t)i);
        context[used++] = token;
        size_t length;
        const char *bytes = tokenizer_decode_token(tokenizer, token, &length);
        if (token == end_of_text)
            printf("\n\n");
        else if (shown)
            check_print_piece(stdout, waiting, bytes, length);
        else
            fwrite(bytes, 1, length, stdout);
    }
    if (shown) check_print_piece(stdout, waiting, "", 0);
    printf("\n");
    free(ids);
    free(context);
}

/* ========================================================================================= 4. the trainer ==== */

typedef struct Saver Saver;

typedef struct {
    Options *options;
    OptionSet *option_set;
    Model model;
    ParallelBuckets buckets; /* of the parameters, see parallel.h */
    int owner, owners;       /* moments and their parts on disk: of so many ranks; 0 of 1: all */
    FloatRange *owned;       /* (owned_count) parts of the vector of parameters whose moments are here */
    int owned_count;
    float *mean, *square;     /* AdamW's moments of the owned parameters, one range after the other */
    int64_t step, saved_step; /* optimizer steps done; those in the newest checkpoint, 0: none */
    int64_t step_sequences, micro_steps; /* sequences of a step over all ranks; micro-steps of each rank */
    Dataset train, val;
    Tokenizer *tokenizer; /* NULL when the data has none */
    char *tokenizer_text; /* its tokenizer.json as it was at the start: what checkpoints get */
    size_t tokenizer_size;
    DataPrint data;            /* what is read, see trainer_state.h */
    int64_t data_changes;      /* how often a resumed run went on with other data */
    int32_t *inputs, *targets; /* (B, T) */
    double peak_flops;         /* of this machine, measured at the start */
    double seconds;            /* spent in training steps since the run began, over all its resumes */
    double last_val_loss;
    Saver *saver;    /* writes checkpoints beside the training, see checkpointing.h */
    LossWatch watch; /* the latest losses, and what was skipped */
    Log log;
} Trainer;

static int64_t tokens_per_step(const Trainer *t) { return t->step_sequences * t->model.config.seq_len; }

/* One micro-step: adds the gradients of B sequences to model.gradients, returns the sum of their losses as model_loss
   does. */
static double micro_step(Trainer *t, int64_t first_sample) {
    const int B = t->model.batch, T = t->model.config.seq_len;
    const uint64_t seed = (uint64_t)t->options->seed;
    profile(PROFILE_DATA);
    for (int b = 0; b < B; b++) {
        const uint64_t sample = (uint64_t)(first_sample + b);
        dataset_sample(&t->train, seed, sample, t->inputs + (int64_t)b * T, t->targets + (int64_t)b * T);
        dataset_prefetch(&t->train, seed, sample + (uint64_t)t->step_sequences); /* for the next step */
    }
    profile(PROFILE_OTHER);
    model_forward(&t->model, t->inputs, B, T);
    double loss = model_loss(&t->model, t->targets, (int64_t)B * T, 1.0f / (float)tokens_per_step(t));
    model_backward(&t->model, t->inputs, B, T);
    return loss;
}

/* A GPU updates the weights, unless its gradients and those of other ranks meet on the hosts: then they do. */
static bool update_is_on_device(const Trainer *t) {
    return device_on() && (parallel_ranks() == 1 || t->options->comm == COMM_GPU);
}

/* After the host's weights, or moments, have come from elsewhere. */
static void send_to_device(Trainer *t) {
    if (device_on()) device_put(DEVICE_WEIGHTS, t->model.weights.memory);
    if (update_is_on_device(t)) device_put(DEVICE_MEAN, t->mean), device_put(DEVICE_SQUARE, t->square);
}

/* Before the host reads them. */
static void fetch_from_device(Trainer *t) {
    if (!update_is_on_device(t)) return;
    device_get(DEVICE_WEIGHTS, t->model.weights.memory);
    device_get(DEVICE_MEAN, t->mean), device_get(DEVICE_SQUARE, t->square);
}

static void clear_gradients(Trainer *t) {
    Weights *gradients = &t->model.gradients;
    if (device_on())
        device_zero_gradients();
    else
        memset(gradients->memory, 0, gradients->count * sizeof(float));
}

/* Where gradients become final together, see model_backward: the embedding's last, after all layers'. */
static ParallelBuckets model_buckets(const Model *model) {
    const TensorTable *table = &model->parameters;
    size_t *starts = check_malloc((size_t)(model->config.layers + 1) * sizeof *starts);
    int count = 1;
    for (int i = 1; i < table->count; i++)
        if (table->tensors[i].per_layer &&
            (!table->tensors[i - 1].per_layer || table->tensors[i - 1].layer != table->tensors[i].layer))
            starts[count++] = table->tensors[i].offset;
    ParallelBuckets buckets = parallel_buckets(starts, count, table->floats);
    free(starts);
    return buckets;
}

/* AdamW on the parameters `range`, whose moments begin at `moments` of the trainer's. */
static void update_range(Trainer *t, FloatRange range, size_t moments, const AdamWSettings *settings) {
    for (int i = 0; i < t->model.parameters.count; i++) {
        const Tensor *tensor = &t->model.parameters.tensors[i];
        const FloatRange both = range_meet(tensor_range(tensor), range);
        if (both.begin == both.end) continue;
        AdamWSettings own = *settings;
        if (tensor->rank != 2) own.weight_decay = 0;
        const size_t at = moments + both.begin - range.begin;
        if (update_is_on_device(t)) {
            device_update((int64_t)both.begin, (int64_t)at, (int64_t)(both.end - both.begin), &own);
            continue;
        }
        adamw_update(t->model.weights.memory + both.begin, t->model.gradients.memory + both.begin,
                     t->mean + at, t->square + at, both.end - both.begin, &own);
    }
}

/* Which parameters this rank keeps the moments of (--zero), once model and options are known. */
void divide_parameters(Trainer *t) {
    t->buckets = model_buckets(&t->model);
    t->owners = t->options->zero ? parallel_ranks() : 1;
    t->owner = t->owners > 1 ? parallel_rank() : 0;
    t->owned = parallel_owned(&t->buckets, t->owner, t->owners, &t->owned_count);
}

/* The exchange between ranks, see parallel.h: from GPU to GPU where the update is there. */
static void begin_sums(Trainer *t) {
    if (update_is_on_device(t))
        device_sum_begin();
    else
        parallel_sum_begin(t->model.gradients.memory);
}

static void share_bucket(Trainer *t, int what, int bucket) {
    const Weights *x = what == DEVICE_WEIGHTS ? &t->model.weights : &t->model.gradients;
    if (update_is_on_device(t))
        device_share(what, bucket);
    else
        parallel_share(x->memory, bucket);
}

static void wait_for_shares(Trainer *t) {
    if (update_is_on_device(t))
        device_share_wait();
    else
        parallel_wait();
}

/* Waits until the gradients of all ranks are summed, each slice on its owner; returns the norm of the whole. */
static double reduce_gradients(Trainer *t) {
    float *gradients = t->model.gradients.memory;
    double squares = 0;
    if (update_is_on_device(t)) return sqrt(parallel_sum_double(device_gradient_squares()));
    profile(PROFILE_REDUCE);
    if (device_on()) device_get(DEVICE_GRADIENTS, gradients);
    parallel_final(0);
    parallel_wait();
    profile(PROFILE_UPDATE);
    for (int i = 0; i < t->buckets.count; i++) {
        FloatRange own = parallel_slice(t->buckets.ranges[i], parallel_rank(), parallel_ranks());
        squares += gradient_squares(gradients + own.begin, own.end - own.begin);
    }
    return sqrt(parallel_sum_double(squares));
}

/* One AdamW update: each rank of the parameters it owns, then all ranks have all of them. */
void update_weights(Trainer *t, double lr, double gradient_scale) {
    const Options *o = t->options;
    const AdamWSettings settings = {.lr = lr,
                                    .beta1 = o->beta1,
                                    .beta2 = o->beta2,
                                    .eps = o->adam_eps,
                                    .weight_decay = o->weight_decay,
                                    .gradient_scale = gradient_scale,
                                    .step = t->step + 1 - t->watch.skipped}; /* updates there have been */
    size_t moments = 0;
    for (int i = 0; i < t->buckets.count && t->owners < parallel_ranks(); i++)
        share_bucket(t, DEVICE_GRADIENTS, i); /* each rank has its sums, and needs all */
    wait_for_shares(t);
    for (int i = 0; i < t->owned_count; i++) {
        update_range(t, t->owned[i], moments, &settings);
        if (t->owners > 1) share_bucket(t, DEVICE_WEIGHTS, i);
        moments += t->owned[i].end - t->owned[i].begin;
    }
    wait_for_shares(t);
    if (device_on() && !update_is_on_device(t)) device_put(DEVICE_WEIGHTS, t->model.weights.memory);
    model_repack(&t->model);
}

/* Reports what is odd about the loss of the step that `line` tells of. */
static void report_verdict(Trainer *t, StepVerdict verdict, const LogTrain *line) {
    if (verdict == STEP_SOUND || parallel_rank() != 0) return;
    char skipped[96] = "";
    if (step_is_skipped(verdict))
        snprintf(skipped, sizeof skipped, "; the step is skipped (%lld in a row, the run stops at %lld)",
                 (long long)t->watch.skipped_in_a_row, (long long)t->options->max_skipped);
    if (verdict == STEP_SKIPPED_NONFINITE)
        log_message(&t->log, "step %ld: loss %g, gradient norm %g%s", line->step, line->loss, line->grad_norm,
                    skipped);
    else
        log_message(&t->log, "step %ld: loss %.4f is a spike, %.1f deviations above the latest mean %.4f%s",
                    line->step, line->loss, line->loss_z, loss_watch_mean(&t->watch), skipped);
}

/* One optimizer step: gradients of micro-steps, summed over ranks, clipped, applied, or skipped when the loss says so.
   Fills the step's line of the log. False when a stop was requested meanwhile: then nothing has changed, the step is as
   if never begun. */
bool train_step(Trainer *t, LogTrain *line) {
    const Options *o = t->options;
    const double start = machine_seconds();
    clear_gradients(t);
    int64_t share = t->step_sequences / parallel_ranks();
    int64_t sample = t->step * t->step_sequences + parallel_rank() * share;
    double loss = 0, loss_z;
    for (int64_t micro = 0; micro < t->micro_steps; micro++, sample += t->model.batch) {
        if (parallel_any(stop_requested)) return false;
        if (parallel_rank() == 0) log_touch(&t->log);
        if (micro == t->micro_steps - 1) begin_sums(t);
        loss += micro_step(t, sample);
    }
    double norm = reduce_gradients(t);
    loss = parallel_sum_double(loss + device_loss_sum()) / (double)tokens_per_step(t);
    LearningRate schedule = {.kind = (LearningRateKind)o->schedule,
                             .peak = o->lr,
                             .floor_fraction = o->lr_min,
                             .warmup = o->warmup,
                             .steps = o->steps,
                             .cooldown = o->cooldown};
    double lr = learning_rate(&schedule, t->step);
    StepVerdict verdict = loss_watch_judge(&t->watch, loss, norm, o->skip_spikes, &loss_z);
    if (!step_is_skipped(verdict)) update_weights(t, lr, o->clip > 0 && norm > o->clip ? o->clip / norm : 1);
    t->step++;

    double seconds = machine_seconds() - start, rate = (double)tokens_per_step(t) / seconds;
    t->seconds += seconds;
    *line = (LogTrain){.step = (long)t->step,
                       .tokens = t->step * tokens_per_step(t),
                       .loss = loss,
                       .lr = lr,
                       .grad_norm = norm,
                       .loss_z = loss_z,
                       .skipped = step_is_skipped(verdict),
                       .seconds = t->seconds,
                       .tokens_per_s = rate,
                       .comm_hidden = update_is_on_device(t) ? device_hidden() : parallel_hidden(),
                       .mfu = rate * model_flops_per_token(&t->model) / (t->peak_flops * parallel_ranks())};
    report_verdict(t, verdict, line);
    return true;
}

/* Mean loss over the first val_tokens (0: all) of the validation shards: always the same windows in file order,
   divided over the ranks. Touches nothing that training reads. NaN when a stop was requested meanwhile. */
double validate(Trainer *t) {
    const int B = t->model.batch, T = t->model.config.seq_len, ranks = parallel_ranks();
    int64_t windows = (int64_t)t->val.n_windows, wanted = (t->options->val_tokens + T - 1) / T;
    if (t->options->val_tokens > 0 && wanted < windows) windows = wanted;
    const int64_t begin = windows * parallel_rank() / ranks, end = windows * (parallel_rank() + 1) / ranks;
    const int64_t rounds = ((windows + ranks - 1) / ranks + B - 1) / B; /* of the rank that has the most */
    double sum = 0;
    for (int64_t round = 0; round < rounds; round++) {
        int64_t w = begin + round * B;
        int count = (int)(end - w < B ? end - w : B);
        if (parallel_any(stop_requested)) return NAN;
        if (parallel_rank() == 0) log_touch(&t->log);
        if (count <= 0) continue; /* the others have one more */
        for (int b = 0; b < count; b++)
            dataset_window(&t->val, (uint64_t)(w + b), t->inputs + (int64_t)b * T,
                           t->targets + (int64_t)b * T);
        model_forward(&t->model, t->inputs, count, T);
        sum += model_loss(&t->model, t->targets, (int64_t)count * T, 0);
    }
    return parallel_sum_double(sum + device_loss_sum()) / ((double)windows * T);
}

#include "gpt/run/diagnosis.h" /* of a run that cannot go on */
#include "gpt/run/setup.h"     /* settles the options, opens data and run, saves and loads checkpoints */

/* ============================================================================================== 5. main ==== */

/* Validates and logs it, unless the log has it already. False when a stop was requested meanwhile. */
static bool validate_and_log(Trainer *t) {
    bool known = parallel_rank() == 0 && t->log.last.step == t->step;
    t->last_val_loss = known ? t->log.last.val_loss : NAN;
    if (parallel_any(known)) return true; /* resumed from this step's checkpoint */
    t->last_val_loss = validate(t);
    if (parallel_any(stop_requested)) return false;
    if (parallel_rank() == 0) log_validation(&t->log, (long)t->step, t->last_val_loss);
    return true;
}

/* Validates, samples and saves when their steps have come; the last step's always have. False when a stop was requested
   meanwhile. */
static bool between_steps(Trainer *t) {
    const Options *o = t->options;
    const bool last = t->step >= o->steps, saved = t->step == t->saved_step;
    if ((last || (o->val_every && t->step % o->val_every == 0)) && !validate_and_log(t)) return false;
    if (o->sample_every && t->step % o->sample_every == 0 && t->tokenizer && !saved && parallel_rank() == 0) {
        log_message(&t->log, "sample after %lld steps:", (long long)t->step);
        log_clear(&t->log);
        model_print_sample(&t->model, t->tokenizer, o->prompt, (int)o->sample_tokens, o->temperature,
                           (uint64_t)(o->seed + t->step));
    }
    /* While steps are skipped nothing changes, and the checkpoints from before the trouble must not make room for it. */
    if (o->save_every && t->step % o->save_every == 0 && !last && !t->watch.skipped_in_a_row)
        save_checkpoint(t, false);
    save_continue(t, false);
    return true;
}

/* The loop: every step, and what comes between steps, until the last one or a signal. */
void train(Trainer *t) {
    const Options *o = t->options;
    const bool resumed_at_end = t->step >= o->steps;
    char name[CHECK_TEXT_SIZE];
    if (resumed_at_end && parallel_rank() == 0)
        printf("%s has done all of its %lld steps already\n", check_shown(name, o->out), (long long)o->steps);
    if (resumed_at_end && has_summary(t)) return;
    LogTrain line;
    char note[160];
    bool going =
        between_steps(t); /* the loss before any training: ln V; resumed: what a stop had cut short */
    while (going && t->step < o->steps) {
        if (!(going = train_step(t, &line))) break;
        if (parallel_rank() == 0 && *device_note(note)) log_message(&t->log, "%s", note);
        if (parallel_rank() == 0) log_train(&t->log, &line);
        if (t->watch.skipped_in_a_row >= o->max_skipped) {
            save_continue(t, true);
            diagnose_and_die(t, &line);
        }
        going = between_steps(t);
    }
    if (!resumed_at_end) save_checkpoint(t, true), check_saved(t);
    if (going)
        write_summary(t);
    else
        report_stop(t);
}

#ifndef TRAIN_GPT_NO_MAIN /* the tests and the tools include this file for the rest */

int main(int argc, char **argv) {
    program_begin();
    machine_settle_threads(argv);
    machine_keep_freed_memory();
    parallel_start(&argc, &argv);
    static Options options;
    OptionSet set = options_begin("train_gpt", "./train_gpt --data=DIR [--out=DIR] [--attn=laser] [options]",
                                  train_options, TRAIN_OPTION_COUNT, &options, train_presets);
    if (options_parse(&set, argc, argv) > 0) options_fail(&set, "'%s' is not an option", argv[0]);
    hosts_settle((int)options.threads);
    device_choose(hosts_local_rank());
    Trainer trainer = trainer_plan(&options, &set);
    if (parallel_rank() == 0) print_configuration(&trainer);
    trainer.peak_flops = device_on() ? device_peak_flops(options.dtype == DTYPE_BF16)
                                     : machine_peak_flops(options.dtype == DTYPE_BF16);
    if (options.dry_run) {
        dry_run(&trainer);
    } else {
        faults_catch_signals();
        open_data(&trainer);
        trainer_allocate(&trainer);
        open_run(&trainer);
        profile_reset();
        const int64_t begun = trainer.step;
        train(&trainer);
        if (options.profile && parallel_rank() == 0)
            print_profile(&trainer, (double)((trainer.step - begun) * trainer.micro_steps));
        if (parallel_rank() == 0) log_close(&trainer.log);
    }
    trainer_free(&trainer);
    parallel_finish();
    return 0;
}
#endif
