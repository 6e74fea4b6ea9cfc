/* tiny_gpt.c: a transformer and its training in one file that needs nothing but the C library: standard and LASER
   attention, forward, loss, backward and AdamW, each as a plain loop over its formula.

       cc -O2 tiny_gpt.c -o tiny_gpt -lm    (-O3 -march=native makes it little faster)
       ./tiny_gpt book.txt                  trains on a text, whose bytes are the tokens, then writes text like it
       ./tiny_gpt --attn=laser book.txt     the same with LASER attention; all options are listed above main
       ./tiny_gpt train_000000.bin          trains on the tokens of a shard, which ./prepare writes

   Read it before train_gpt.c, which has the same functions, made fast and general. With the same options, shard and
   seed both have the same weights, tokens and losses, which a test compares. Element (n, c) of an array (N, C) is
   x[n * C + c]. dx is the gradient of the loss with respect to x: what it changes by, for each unit by which x does. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ========================================================================================= 1. the model ==== */
static int L = 4, H = 4, D = 16, A; /* layers; heads of a layer; size of a head; A = H * D */
static int C = 64, F = 256, V;      /* width of the residual stream; hidden units of the MLP; vocabulary */
static int B = 8, T = 64, N;        /* sequences of a step; tokens of a sequence; N = B * T, fewer in a sample */
static int steps = 2000, warmup = 40, seed = 1, laser;
static double lr = 3e-3, beta1 = 0.9, beta2 = 0.95, adam_eps = 1e-8, weight_decay = 0.1, clip = 1, temperature = 0.8;
enum { MAX_LAYERS = 64 };

typedef struct {                 /* matrices are (outputs, inputs) */
    float *attn_norm, *mlp_norm; /* (C) each */
    float *q, *k, *v;            /* (A, C) each, one after the other: q is also the matrix (3A, C) of all three */
    float *o, *up, *down;        /* (C, A), (F, C), (C, F) */
} LayerWeights;
typedef struct {
    float *embed, *final_norm; /* (V, C), also the output matrix; (C) */
    LayerWeights layers[MAX_LAYERS];
} Weights;
static Weights weights, gradients;
static int parameters; /* the number of all weights */
static float *memory;  /* (5, parameters): weights; gradients; AdamW's m; its v; 1 for matrices, 0 for norms */

typedef struct {                          /* what backward needs of a layer, and so forward keeps */
    float *input, *attn_rstd, *attn_in;   /* (N, C) the residual stream; (N) and (N, C): its RMSNorm */
    float *qkv, *attn_lse, *attn_out;     /* (N, 3A) q and k after rope, v; (N, H) log-sum-exp of scores; (N, A) */
    float *mlp_input, *mlp_rstd, *mlp_in; /* the first three again, for the MLP */
    float *up, *hidden;                   /* (N, F) each: before and after gelu */
} LayerActivations;
static struct {
    float *output, *final_rstd, *norm; /* (N, C) the residual stream after the last layer; its RMSNorm */
    float *logits, *columns;           /* (N, V), which turn into their gradient; a transposed matrix */
    float *d_residual, *d_norm, *d_attn_out, *d_qkv, *d_up; /* (N, C) (N, C) (N, A) (N, 3A) (N, F) */
    LayerActivations layers[MAX_LAYERS];
} acts;
static void fail(int code, const char *what, const char *of) { fprintf(stderr, "error: %s%s\n", what, of), exit(code); }
static void *zeros(int rows, int columns) { /* an array (rows, columns) of floats or ints */
    void *array = calloc((size_t)rows * (size_t)columns, sizeof(float));
    if (!array) fail(1, "there is not enough memory; make the model or --batch smaller", "");
    return array;
}
/* Random numbers without a state: the i-th number of a stream is a function of seed, stream and i (gpt/math/rng.h). */
enum { STREAM_INIT = 1 << 16, STREAM_SHUFFLE = 2 << 16, STREAM_SAMPLE = 3 << 16 };
static uint64_t rng_mix(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}
static uint64_t rng_bits(uint64_t stream, uint64_t i) { return rng_mix(rng_mix(rng_mix((uint64_t)seed) ^ stream) ^ i); }
static float rng_normal(int stream, int i) { /* mean 0, standard deviation 1 */
    const uint64_t bits = rng_bits((uint64_t)stream, (uint64_t)i);
    const double radius = sqrt(-2 * log(((double)(bits >> 32) + 1) * 0x1p-32));
    return (float)(radius * cos(6.283185307179586 * (double)(uint32_t)bits * 0x1p-32));
}
static int rng_permute(int stream, int i, int n) { /* the i-th element of a permutation of 0 ... n - 1 */
    int half = 1;
    while (half < 16 && (INT64_C(1) << 2 * half) < n) half++;
    do {
        uint64_t left = (uint64_t)(i >> half), right = (uint64_t)(i & ((1 << half) - 1)), next;
        for (uint64_t round = 0; round < 6; round++, left = right, right = next)
            next = left ^ (rng_bits((uint64_t)stream + (round << 48), right) & ((UINT64_C(1) << half) - 1));
        i = (int)(left << half | right);
    } while (i >= n);
    return i;
}
/* The next tensor of the memory. It starts with normal random numbers of this deviation; deviation 0: with ones. */
static float *tensor(int count, float deviation) {
    static int stream = STREAM_INIT, used;
    float *values = memory + used, *is_matrix = memory + 4 * parameters + used % parameters;
    for (int j = 0; j < count; j++) is_matrix[j] = deviation > 0;
    for (int j = 0; j < count; j++) values[j] = deviation > 0 ? deviation * rng_normal(stream, j) : 1;
    stream++, used += count;
    return values;
}

/* The outputs of 2L matrices, o and down, are added to the residual stream. They start smaller, by 1/sqrt(2L), so that
   their sum does not grow with L. */
static void weights_create(Weights *w) {
    const float normal = 0.02f, small = 0.02f / sqrtf(2 * (float)L);
    w->embed = tensor(V * C, normal);
    for (LayerWeights *layer = w->layers; layer < w->layers + L; layer++) {
        layer->attn_norm = tensor(C, 0);
        layer->q = tensor(A * C, normal), layer->k = tensor(A * C, normal), layer->v = tensor(A * C, normal);
        layer->o = tensor(C * A, small), layer->mlp_norm = tensor(C, 0);
        layer->up = tensor(F * C, normal), layer->down = tensor(C * F, small);
    }
    w->final_norm = tensor(C, 0);
}
static void model_create(void) {
    parameters = V * C + L * (2 * C + 4 * A * C + 2 * F * C) + C, memory = zeros(5, parameters);
    weights_create(&weights), weights_create(&gradients);
    acts.output = zeros(N, C), acts.final_rstd = zeros(N, 1), acts.norm = zeros(N, C), acts.logits = zeros(N, V);
    acts.d_residual = zeros(N, C), acts.d_norm = zeros(N, C), acts.d_attn_out = zeros(N, A);
    acts.d_qkv = zeros(N, 3 * A), acts.d_up = zeros(N, F), acts.columns = zeros(1, parameters);
    for (int l = 0; l < L; l++)
        acts.layers[l] =
            (LayerActivations){zeros(N, C), zeros(N, 1), zeros(N, C), zeros(N, 3 * A), zeros(N, H), zeros(N, A),
                               zeros(N, C), zeros(N, 1), zeros(N, C), zeros(N, F),     zeros(N, F)};
}

/* ======================================================================================== 2. operations ==== */
static float dot(const float *x, const float *y, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}
static void add_scaled(float *restrict y, float factor, const float *restrict x, int n) { /* y += factor * x */
    for (; n >= 8; n -= 8, x += 8, y += 8) /* eight at a time: -O2 makes vector instructions of such loops only */
        for (int i = 0; i < 8; i++) y[i] += factor * x[i];
    for (int i = 0; i < n; i++) y[i] += factor * x[i];
}

/* out (N, C) = x * rstd * weight, rstd (N) = 1/sqrt(mean(x^2) + eps)    (Zhang & Sennrich 2019; eps 1e-6) */
static void rmsnorm_forward(float *out, float *rstd, const float *x, const float *weight) {
    for (int n = 0; n < N; n++, x += C, out += C) {
        rstd[n] = 1 / sqrtf(dot(x, x, C) / (float)C + 1e-6f);
        for (int c = 0; c < C; c++) out[c] = x[c] * rstd[n] * weight[c];
    }
}
/* forward: out = x * r * w.  With g = dout * w:  dx += r * (g - x * r^2 * mean(g * x)),  dw += sum_n dout * x * r */
static void rmsnorm_backward(float *dx, float *dw, const float *dout, const float *x, const float *r, const float *w) {
    for (int n = 0; n < N; n++, x += C, dout += C, dx += C) {
        float mean = 0;
        for (int c = 0; c < C; c++) mean += dout[c] * w[c] * x[c] / (float)C;
        for (int c = 0; c < C; c++) dx[c] += r[n] * (dout[c] * w[c] - x[c] * r[n] * r[n] * mean);
        for (int c = 0; c < C; c++) dw[c] += dout[c] * x[c] * r[n];
    }
}

/* Rotary positions (Su et al. 2021): rotates the pair (d, d + D/2) of each head of q and k by t * 10000^(-2d/D). With
   direction -1 it rotates back. That is backward: the transpose of a rotation, which gradients need, is its inverse. */
static void rope_rotate(float *qkv, int direction) {
    for (int i = 0; i < N * D / 2; i++) { /* pair d of token n */
        const int n = i / (D / 2), d = i % (D / 2);
        const double angle = n % T * pow(10000, -2.0 * d / D);
        const float cosine = (float)cos(angle), sine = (float)direction * (float)sin(angle);
        for (int head = 0; head < 2 * H; head++) { /* the heads of q, then those of k */
            float *x = qkv + n * 3 * A + head * D + d, a = x[0], b = x[D / 2];
            x[0] = a * cosine - b * sine, x[D / 2] = b * cosine + a * sine;
        }
    }
}

/* log sum_j exp(s_j + v_j) over `count` keys; elements of v are `stride` apart; without v: log sum_j exp(s_j). The
   largest term is subtracted before exp and added again after log, so that no exp becomes infinite, and not all 0. */
static float log_sum_exp(const float *s, const float *v, int stride, int count) {
    float maximum = -INFINITY, sum = 0;
    for (int j = 0; j < count; j++) maximum = fmaxf(maximum, s[j] + (v ? v[j * stride] : 0));
    for (int j = 0; j < count; j++) sum += expf(s[j] + (v ? v[j * stride] : 0) - maximum);
    return maximum + logf(sum);
}

/* For query i of a head, over the keys j <= i: the score s_ij = q_i . k_j / sqrt(D), lse_i = log sum_j exp(s_ij), the
   weight a_ij = exp(s_ij - lse_i). out (N, A): standard o_id = sum_j a_ij v_jd; LASER (Duvvuri & Dhillon 2025)
   o_id = log sum_j a_ij exp(v_jd) = log sum_j exp(log a_ij + v_jd). lse (N, H) is kept for backward. */
static void attention_forward(float *out, float *lse, const float *qkv) {
    float log_a[T];
    for (int n = 0; n < N * H; n++, out += D) { /* a token and a head */
        const int i = n / H % T;
        const float *q = qkv + n / H * 3 * A + n % H * D, *k = q - i * 3 * A + A, *v = k + A;
        for (int j = 0; j <= i; j++) log_a[j] = dot(q, k + j * 3 * A, D) / sqrtf((float)D); /* s_ij */
        lse[n] = log_sum_exp(log_a, NULL, 0, i + 1);
        for (int j = 0; j <= i; j++) log_a[j] -= lse[n];
        for (int d = 0; d < D; d++) out[d] = laser ? log_sum_exp(log_a, v + d, 3 * A, i + 1) : 0;
        for (int j = 0; j <= i && !laser; j++) add_scaled(out, expf(log_a[j]), v + j * 3 * A, D);
    }
}
/* Writes dqkv (N, 3A). Nothing of size T x T was kept: a_ij is computed again from q, k and lse. */
static void attention_backward(float *dqkv, const float *dout, const float *qkv, const float *out, const float *lse) {
    const float scale = 1 / sqrtf((float)D);
    memset(dqkv, 0, (size_t)(N * 3 * A) * sizeof *dqkv);
    for (int n = 0; n < N * H; n++, out += D, dout += D) /* a token and a head */
        for (int j = 0, i = n / H % T; j <= i; j++) {
            const int q = n / H * 3 * A + n % H * D, k = q - (i - j) * 3 * A + A, v = k + A; /* where in qkv */
            const float log_a = dot(qkv + q, qkv + k, D) * scale - lse[n], a = expf(log_a);
            float ds = 0;
            /* standard: o_d = sum_j a_j v_jd.  LASER: o_d = log sum_j exp(log a_j + v_jd).
               p is the derivative of o_d with respect to v_jd; the last factor in ds is that with respect to s_j. */
            for (int d = 0; d < D; d++) {
                const float v_d = qkv[v + d], p = laser ? expf(log_a + v_d - out[d]) : a;
                dqkv[v + d] += dout[d] * p;
                ds += dout[d] * (laser ? p - a : a * (v_d - out[d]));
            }
            /* s_j = scale * q . k_j */
            add_scaled(dqkv + q, scale * ds, qkv + k, D);
            add_scaled(dqkv + k, scale * ds, qkv + q, D);
        }
}

/* gelu in its tanh form, x/2 (1 + tanh(u)) = x s with s = sigmoid(2u) and u = sqrt(2/pi) (x + 0.044715 x^3) */
static float gelu_sigmoid(float x) { return 1 / (1 + expf(-1.59576912f * (x + 0.044715f * x * x * x))); }
static void activation_forward(float *hidden, const float *up, int count) { /* hidden (count) = gelu(up (count)) */
    for (int i = 0; i < count; i++) hidden[i] = up[i] * gelu_sigmoid(up[i]);
}
/* Turns dup (count) from the gradient of hidden into that of up.  forward: hidden = x s;  ds/dx = s (1 - s) 2 du/dx */
static void activation_backward(float *dup, const float *up, int count) {
    for (int i = 0; i < count; i++) {
        const float x = up[i], s = gelu_sigmoid(x);
        dup[i] *= s + x * s * (1 - s) * 1.59576912f * (1 + 0.134145f * x * x);
    }
}

/* out (N, OC) = x (N, IC) . w (OC, IC)^T, plus addend (N, OC) unless it is NULL; by columns of w: chapter 11 */
static void linear(float *out, const float *addend, const float *x, const float *w, int IC, int OC) {
    for (int i = 0; i < OC * IC; i++) acts.columns[i % IC * OC + i / IC] = w[i];
    memset(out, 0, (size_t)(N * OC) * sizeof *out);
    for (int i = 0; i < N * IC; i++) add_scaled(out + i / IC * OC, x[i], acts.columns + i % IC * OC, OC);
    for (int i = 0; i < N * OC && addend; i++) out[i] += addend[i];
}
/* forward: out_no = sum_c x_nc w_oc.  dx (N, IC) = dout (N, OC) . w;  dw (OC, IC) += dout^T . x */
static void linear_backward(float *dx, float *dw, const float *dout, const float *x, const float *w, int IC, int OC) {
    memset(dx, 0, (size_t)(N * IC) * sizeof *dx);
    for (int i = 0; i < N * OC; i++) { /* element (n, o) */
        add_scaled(dx + i / OC * IC, dout[i], w + i % OC * IC, IC);
        add_scaled(dw + i % OC * IC, dout[i], x + i / OC * IC, IC);
    }
}

/* Returns mean(-log softmax(logits)[target]); logits (N, V) turn into its gradient (softmax(logits) - (v == target)) / N */
static double cross_entropy_forward_backward(float *logits, const int *targets) {
    double sum = 0;
    for (int n = 0; n < N; n++, logits += V) {
        const float lse = log_sum_exp(logits, NULL, 0, V);
        sum += lse - logits[targets[n]];
        for (int v = 0; v < V; v++) logits[v] = (expf(logits[v] - lse) - (float)(v == targets[n])) / (float)N;
    }
    return sum / N;
}

/* ======================================================================== 3. forward, loss and backward ==== */
/* tokens (N) -> acts.logits (N, V) */
static void model_forward(const int *tokens) {
    for (int n = 0; n < N; n++) /* layers[0].input = embed[token] */
        memcpy(acts.layers[0].input + n * C, weights.embed + tokens[n] * C, (size_t)C * sizeof(float));
    for (int l = 0; l < L; l++) {
        const LayerWeights *w = &weights.layers[l];
        const LayerActivations *a = &acts.layers[l];
        rmsnorm_forward(a->attn_in, a->attn_rstd, a->input, w->attn_norm);
        linear(a->qkv, NULL, a->attn_in, w->q, C, 3 * A);
        rope_rotate(a->qkv, 1);
        attention_forward(a->attn_out, a->attn_lse, a->qkv);
        linear(a->mlp_input, a->input, a->attn_out, w->o, A, C);
        rmsnorm_forward(a->mlp_in, a->mlp_rstd, a->mlp_input, w->mlp_norm);
        linear(a->up, NULL, a->mlp_in, w->up, C, F);
        activation_forward(a->hidden, a->up, N * F);
        linear(l + 1 < L ? a[1].input : acts.output, a->mlp_input, a->hidden, w->down, F, C);
    }
    rmsnorm_forward(acts.norm, acts.final_rstd, acts.output, weights.final_norm);
    linear(acts.logits, NULL, acts.norm, weights.embed, C, V);
}

/* After cross_entropy_forward_backward: adds to all gradients. The lines of model_forward come in reverse, each quoted
   above its backward. d_residual is the gradient of the residual stream at the place that backward has reached. Where
   forward computes x + f(x), the gradient of the sum is also that of x, and what f's backward finds is added to it. */
static void model_backward(const int *tokens) {
    float *d_residual = acts.d_residual, *d_norm = acts.d_norm;
    /* logits = norm . embed^T,  norm = rmsnorm(output) */
    linear_backward(d_norm, gradients.embed, acts.logits, acts.norm, weights.embed, C, V);
    memset(d_residual, 0, (size_t)(N * C) * sizeof *d_residual);
    rmsnorm_backward(d_residual, gradients.final_norm, d_norm, acts.output, acts.final_rstd, weights.final_norm);
    for (int l = L - 1; l >= 0; l--) {
        const LayerWeights *w = &weights.layers[l], *g = &gradients.layers[l];
        const LayerActivations *a = &acts.layers[l];
        /* output = mlp_input + hidden . down^T,  hidden = gelu(up) */
        linear_backward(acts.d_up, g->down, d_residual, a->hidden, w->down, F, C);
        activation_backward(acts.d_up, a->up, N * F);
        /* up = mlp_in . up^T,  mlp_in = rmsnorm(mlp_input) */
        linear_backward(d_norm, g->up, acts.d_up, a->mlp_in, w->up, C, F);
        rmsnorm_backward(d_residual, g->mlp_norm, d_norm, a->mlp_input, a->mlp_rstd, w->mlp_norm);
        /* mlp_input = input + attn_out . o^T,  attn_out = attention(qkv) */
        linear_backward(acts.d_attn_out, g->o, d_residual, a->attn_out, w->o, A, C);
        attention_backward(acts.d_qkv, acts.d_attn_out, a->qkv, a->attn_out, a->attn_lse);
        /* qkv = rope(attn_in . q^T),  attn_in = rmsnorm(input) */
        rope_rotate(acts.d_qkv, -1);
        linear_backward(d_norm, g->q, acts.d_qkv, a->attn_in, w->q, C, 3 * A);
        rmsnorm_backward(d_residual, g->attn_norm, d_norm, a->input, a->attn_rstd, w->attn_norm);
    }
    /* layers[0].input = embed[token]: several tokens may add to the same row */
    for (int n = 0; n < N; n++) add_scaled(gradients.embed + tokens[n] * C, 1, d_residual + n * C, C);
}

/* ==================================================================================== 4. data and samples ==== */
static int *data, data_count, is_text; /* (data_count) the tokens of the file */
/* A shard is 256 int32, the first of them 20240520, then tokens of two bytes. The bytes of other files are tokens. */
static void data_read(const char *path) {
    static unsigned char bytes[1 << 28]; /* at most so much of a file is read */
    FILE *file = fopen(path, "rb");
    if (!file) fail(1, "cannot read ", path);
    const int size = (int)fread(bytes, 1, sizeof bytes, file), given = V;
    is_text = memcmp(bytes, "\x88\xd8\x34\x01", 4) != 0, data_count = is_text ? size : (size - 1024) / 2;
    if (data_count <= T) fail(1, "there are too few tokens for one sequence of --seq-len in ", path);
    data = zeros(data_count, 1);
    for (int i = 0; i < data_count; i++) {
        data[i] = is_text ? bytes[i] : bytes[1024 + 2 * i] | bytes[1025 + 2 * i] << 8;
        if (data[i] >= V) V = data[i] + 1;
    }
    if (fclose(file) != 0 || (given && V > given)) fail(1, "a token is not below --vocab-size in ", path);
}

/* The i-th sequence of the run: T tokens of the file, inputs, and the token that follows each, targets. The file is cut
   into windows of T tokens; an epoch takes each of them once, in a random order. */
static void data_sample(int *inputs, int *targets, int i) {
    const int windows = (data_count - 1) / T;
    const int *window = data + rng_permute(STREAM_SHUFFLE + i / windows, i % windows, windows) * T;
    memcpy(inputs, window, (size_t)T * sizeof *data), memcpy(targets, window + 1, (size_t)T * sizeof *data);
}

/* Writes `count` bytes, drawn from softmax(logits / temperature). At T tokens, the context's older half is removed. */
static void print_sample(int count, int *context) {
    for (int i = 0, used = 1, token = context[0] = data[0]; i < count; i++, context[used++] = token) {
        N = used, model_forward(context);
        float *s = acts.logits + (used - 1) * V, left = (float)(rng_bits(STREAM_SAMPLE, (uint64_t)i) >> 40) * 0x1p-24f;
        for (int v = 0; v < V; v++) s[v] /= (float)temperature;
        const float lse = log_sum_exp(s, NULL, 0, V);
        for (token = 0; token < V - 1 && (left -= expf(s[token] - lse)) >= 0;) token++;
        putchar(token == '\n' || token >= ' ' ? token : '?');
        if (used == T) memmove(context, context + T / 2, (size_t)(used = T - T / 2) * sizeof *context);
    }
    putchar('\n');
}

/* ========================================================================================= 5. training ==== */
/* Rises in a line to lr during the warmup, then falls to 0 along half a period of a cosine. */
static double learning_rate(int step) {
    const double progress = (double)(step - warmup) / (steps - warmup);
    return step < warmup ? lr * (step + 1) / warmup : lr * 0.5 * (1 + cos(3.141592653589793 * progress));
}

/* AdamW (Loshchilov & Hutter 2019), update t = 1, 2, ... The divisions by unbias correct that m and v begin at 0. */
static void adamw_update(double rate, double gradient_scale, int t) {
    const double unbias1 = 1 - pow(beta1, t), unbias2 = 1 - pow(beta2, t);
    float *w = memory, *gradient = w + parameters, *m = w + 2 * parameters, *v = w + 3 * parameters;
    for (int i = 0; i < parameters; i++) {
        const double g = gradient_scale * gradient[i], decay = rate * weight_decay * memory[4 * parameters + i];
        m[i] = (float)(beta1 * m[i] + (1 - beta1) * g);
        v[i] = (float)(beta2 * v[i] + (1 - beta2) * g * g);
        w[i] = (float)((1 - decay) * w[i] - rate * m[i] / unbias1 / (sqrt(v[i] / unbias2) + adam_eps));
    }
}

/* Data, forward, loss, backward, clipping of the gradient's norm, update. */
static void train_step(int step, int *inputs, int *targets) {
    float *const all = memory + parameters; /* the gradients */
    double squares = 0;
    for (int b = 0; b < B; b++) data_sample(inputs + b * T, targets + b * T, step * B + b);
    memset(all, 0, (size_t)parameters * sizeof *all);
    model_forward(inputs);
    const double loss = cross_entropy_forward_backward(acts.logits, targets), rate = learning_rate(step);
    model_backward(inputs);
    for (int i = 0; i < parameters; i++) squares += (double)all[i] * all[i];
    const double norm = sqrt(squares);
    adamw_update(rate, norm > clip ? clip / norm : 1, step + 1);
    if (step > 0 && (step + 1) % (steps < 40 ? 1 : steps / 20)) return;
    printf("step %5d   loss %.6f   gradient norm %.4f   learning rate %.2e\n", step + 1, loss, norm, rate);
}

static char attn[16] = "standard", *file;
static const char *const formats[] = {"--attn=%15s",  "--layers=%d",       "--heads=%d",      "--head-dim=%d",
                                      "--embd=%d",    "--mlp-hidden=%d",   "--vocab-size=%d", "--batch=%d",
                                      "--seq-len=%d", "--temperature=%lf", "--steps=%d",      "--warmup=%d",
                                      "--lr=%lf",     "--beta1=%lf",       "--beta2=%lf",     "--weight-decay=%lf",
                                      "--clip=%lf",   "--adam-eps=%lf",    "--seed=%d"};
static void *const variables[] = {attn,  &L,           &H,     &D,      &C,  &F,     &V,     &B,
                                  &T,    &temperature, &steps, &warmup, &lr, &beta1, &beta2, &weight_decay,
                                  &clip, &adam_eps,    &seed};

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        int found = argv[i][0] != '-' && (file = argv[i]) != NULL;
        for (size_t o = 0; o < sizeof formats / sizeof *formats; o++)
            found += sscanf(argv[i], formats[o], variables[o]) == 1;
        if (!found) fail(2, "not an option, or its value is not a number: ", argv[i]);
    }
    A = H * D, N = B * T, laser = strcmp(attn, "laser") == 0;
    if (!file || L > MAX_LAYERS || D % 2 || temperature <= 0 || (!laser && strcmp(attn, "standard") != 0))
        fail(2, "expected ./tiny_gpt [--attn=standard|laser] [--layers=N ...] FILE, even head-dim, temperature > 0",
             "");
    data_read(file), model_create();
    printf("%d parameters, %d tokens, V = %d, %s attention\n", parameters, data_count, V, attn);
    int *tokens = zeros(2, N);
    for (int step = 0; step < steps; step++) train_step(step, tokens, tokens + N);
    if (is_text) print_sample(400, tokens);
    return free(tokens), 0;
}
