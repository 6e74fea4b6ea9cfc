/* model.cuh: the model on the GPU: its memory, and forward, loss and backward in the order and with the names of
   train_gpt.c. The residual stream, norms, sums and losses are float32. S is the type of the numbers that matrix
   products multiply: bf16 or, with --dtype=fp32, float.

   Shapes: B sequences of T tokens, N = B*T, V vocabulary, C width of the residual stream, L layers, H heads of size D,
   A = H*D, F hidden units of the MLP, U = F or, with swiglu, 2F. All kernels and copies go to one CUDA stream, which
   carries them out one after the other. The host does not wait for them; only model_fetch waits. */
#ifndef CUDA_MODEL_CUH
#define CUDA_MODEL_CUH

#include <vector>
#include "../gpt/dist/device.h"
#include "attention.cuh"
#include "exchange.cuh"
#include "layers.cuh"
#include "loss.cuh"
#include "matmul.cuh"
#include "optimizer.cuh"

enum { GPU_RECOMPUTE_NONE, GPU_RECOMPUTE_ATTENTION, GPU_RECOMPUTE_BLOCK }; /* in the order of options.h */

/* What forward keeps of a layer for backward. With --recompute=attention all layers use the same memory for attn_norm
   to low_bits, with --recompute=block also for mlp_input to hidden, and backward computes these again. */
template <typename S> struct GpuLayer {
    float *input;         /* (N, C) residual stream at the start of the layer */
    S *attn_norm;         /* (N, C) its RMSNorm */
    float *attn_rstd;     /* (N) what RMSNorm multiplied a token by */
    S *qkv;               /* (N, 3A) q and k after rope */
    float *lse;           /* (B, H, T) log of the sum of exp of the scores of a query */
    LaserColumn *columns; /* LASER: statistics of the columns of v (attention_plain.cuh) */
    S *attn_out;          /* (N, A) */
    uint16_t *low_bits;   /* (N, A) LASER in bf16: the bits that rounding removed from attn_out */
    float *mlp_input;     /* (N, C) residual stream between attention and MLP */
    S *mlp_norm;          /* (N, C) its RMSNorm */
    float *mlp_rstd;      /* (N) */
    S *up, *hidden;       /* (N, U), (N, F) before and after the activation */
};

/* The tokens of a micro-step in pinned host memory, from which they are copied to the GPU. There are two of these, so
   that the host prepares one micro-step while the GPU still reads the other. */
struct HostTokens {
    int32_t *tokens, *targets, *place, *first; /* (N), (N), (N), (N + 1); the last two as in TokenBuckets */
    cudaEvent_t copied;                        /* the GPU has read them */
};

/* Divides one allocation among many arrays. With memory nullptr it only counts the bytes, in `used`. */
struct Arena {
    char *memory;
    size_t used;
    template <typename T> T *take(int64_t n) {
        T *piece = memory ? (T *)(void *)(memory + used) : nullptr;
        used += ((size_t)n * sizeof(T) + 255) / 256 * 256;
        return piece;
    }
};

static inline bool is_bf16(const float *) { return false; }
static inline bool is_bf16(const bf16 *) { return true; }

template <typename S> struct GpuModel {
    DeviceModel c;               /* the sizes and options of the model */
    std::vector<DeviceLayer> at; /* (L) where the weights of a layer begin */
    cudaStream_t stream;
    char *memory;       /* one allocation with all arrays below, except slice_sums */
    Exchange *exchange; /* with the GPUs of other ranks; nullptr: there are none, or the hosts do it */
    float *weights, *gradients; /* (count) each */
    /* True: these gradients are zero although their memory was not cleared, and the next function that computes them
       overwrites (=) instead of adding. There are two flags because model_loss already writes the gradient of embed,
       and model_backward writes all others. */
    bool embed_is_zero, others_are_zero;
    float *adam_m, *adam_v; /* (moments) each: AdamW's first and second moment */
    /* (count) the weights as matrix products read them; in fp32 the weights themselves. */
    S *operands;
    float *rope_cos_sin, *fixed_positions; /* (T, D/2, 2) or nullptr, (T, C) or nullptr */
    std::vector<GpuLayer<S>> layers;
    float *output, *final_rstd, *losses;              /* (N, C), (N), (N) */
    S *norm;                                          /* (N, C) RMSNorm of output */
    float *logits;                                    /* (R, V) of R = logits_rows() tokens */
    S *d_logits;                                      /* (R, V) */
    SplitFloats<S> d_residual;                        /* (N, C) products read its rounded part */
    S *d_norm, *d_qkv, *d_attn_out, *d_hidden, *d_up; /* (N, C), (N, 3A), (N, A), (N, F), (N, U) */
    float *norm_partial;                              /* (2, chunks, C) for the two norms of a layer */
    void *attention_work;                             /* work memory of attention.cuh */
    double *sum_partial;                              /* work memory of sum_device */
    double *loss_sum;          /* (1) sum of the losses since the last model_loss_sum */
    double *squares;           /* (1) sum of the squares of the gradients */
    double *slice_sums;        /* with an exchange: the same, one for each of this rank's slices */
    int32_t *tokens, *targets; /* (N) */
    TokenBuckets buckets;      /* the tokens sorted by value, for embedding_backward */
    HostTokens host[2];
    int turn;                   /* which of them was filled last */
    cudaEvent_t fetched;        /* for model_fetch: the stream has reached the copy */
    std::vector<int32_t> count; /* (V) work memory of token_buckets */

    HostTokens *host_tokens() { return &host[turn]; }
    /* N of a full micro-batch. */
    int64_t most() const { return (int64_t)c.batch * c.seq_len; }
    int64_t A() const { return (int64_t)c.heads * c.head_dim; }
    int64_t U() const { return (int64_t)c.mlp_hidden * (c.activation == GPU_SWIGLU ? 2 : 1); }
    /* R, the number of tokens whose logits exist at the same time: a quarter of those of a micro-batch.
       R * V is at least 2^26 (256 MiB of float32), because smaller products are slow, and at most 2^28. Tests set lower
       limits. */
    int64_t logits_least = 1 << 26, logits_most = 1 << 28;
    int64_t logits_rows() const {
        const int64_t N = most(), V = c.vocab_size, quarter = (N + 3) / 4 * V;
        const int64_t held = quarter < logits_least  ? logits_least
                             : quarter > logits_most ? logits_most
                                                     : quarter;
        const int64_t rows = held < 64 * V ? 64 : held / V / 64 * 64;
        return rows < N ? rows : N;
    }
    /* True: gelu is computed inside the matrix products of up and down. False: the activation has its own kernel. */
    bool gelu_in_products() const {
        return is_bf16(operands) && c.activation == GPU_GELU && matmul_has_gelu(c.embd, c.mlp_hidden);
    }
    AttentionSizes attention(int B, int T) const {
        return AttentionSizes{B,
                              T,
                              c.heads,
                              c.head_dim,
                              3 * A(),
                              A(),
                              1 / sqrtf((float)c.head_dim),
                              c.attn,
                              c.sequence_shift ? LASER_SHIFT_SEQUENCE : LASER_SHIFT_CAUSAL};
    }
};

/* Takes the memory of what layer l keeps from the arena, or uses that of layer 0 (--recompute). */
template <typename S> void layer_carve(GpuModel<S> *m, size_t l, Arena *arena) {
    const DeviceModel &c = m->c;
    const int64_t N = m->most(), C = c.embd, A = m->A(), U = m->U(), F = c.mlp_hidden;
    GpuLayer<S> &a = m->layers[l];
    a = m->layers[0];
    a.input = arena->take<float>(N * C);
    if (l == 0 || c.recompute == GPU_RECOMPUTE_NONE) {
        a.attn_norm = arena->take<S>(N * C), a.attn_rstd = arena->take<float>(N);
        a.qkv = arena->take<S>(N * 3 * A), a.lse = arena->take<float>(N * c.heads);
        a.columns = arena->take<LaserColumn>((int64_t)attention_columns(m->attention(c.batch, c.seq_len)));
        a.attn_out = arena->take<S>(N * A),
        a.low_bits = attention_keeps_low_bits<S>(c.attn) ? arena->take<uint16_t>(N * A) : nullptr;
    }
    if (l == 0 || c.recompute != GPU_RECOMPUTE_BLOCK)
        a.mlp_input = arena->take<float>(N * C), a.mlp_norm = arena->take<S>(N * C),
        a.mlp_rstd = arena->take<float>(N), a.up = arena->take<S>(N * U), a.hidden = arena->take<S>(N * F);
}

/* Takes the memory of everything from the arena. */
template <typename S> void model_carve(GpuModel<S> *m, Arena *arena) {
    const DeviceModel &c = m->c;
    const int64_t N = m->most(), C = c.embd, A = m->A(), U = m->U(), F = c.mlp_hidden, R = m->logits_rows(),
                  V = c.vocab_size;
    const bool rounded = is_bf16(m->operands);
    m->weights = arena->take<float>(c.count), m->gradients = arena->take<float>(c.count);
    m->adam_m = arena->take<float>(c.moments), m->adam_v = arena->take<float>(c.moments);
    m->operands = rounded ? arena->take<S>(c.count) : (S *)(void *)m->weights;
    m->rope_cos_sin = c.rope_cos_sin ? arena->take<float>((int64_t)c.seq_len * c.head_dim) : nullptr;
    m->fixed_positions = c.fixed_positions ? arena->take<float>(c.seq_len * C) : nullptr;
    for (size_t l = 0; l < m->layers.size(); l++) layer_carve(m, l, arena);
    m->output = arena->take<float>(N * C), m->final_rstd = arena->take<float>(N),
    m->losses = arena->take<float>(N);
    m->norm = arena->take<S>(N * C);
    m->logits = arena->take<float>(R * V), m->d_logits = arena->take<S>(R * V);
    m->d_residual.rounded = arena->take<S>(N * C),
    m->d_residual.rest = rounded ? arena->take<int16_t>(N * C) : nullptr;
    m->d_norm = arena->take<S>(N * C), m->d_qkv = arena->take<S>(N * 3 * A),
    m->d_attn_out = arena->take<S>(N * A);
    m->d_hidden = m->gelu_in_products() ? nullptr : arena->take<S>(N * F), m->d_up = arena->take<S>(N * U);
    m->norm_partial = arena->take<float>(2 * rmsnorm_chunks(N) * C);
    m->attention_work = arena->take<char>((int64_t)attention_work_size(m->attention(c.batch, c.seq_len)));
    m->sum_partial = arena->take<double>(sum_chunks(c.count > N ? c.count : N)),
    m->loss_sum = arena->take<double>(1), m->squares = arena->take<double>(1);
    m->tokens = arena->take<int32_t>(N), m->targets = arena->take<int32_t>(N);
    m->buckets.place = arena->take<int32_t>(N), m->buckets.first = arena->take<int32_t>(N + 1);
}

/* The bytes of GPU memory that model_open allocates. */
template <typename S> size_t model_bytes(const DeviceModel &c) {
    GpuModel<S> m = GpuModel<S>();
    Arena arena = {nullptr, 0};
    m.c = c;
    m.layers.resize((size_t)c.layers);
    model_carve(&m, &arena);
    return arena.used;
}

/* Allocates for N tokens; tokens is the start of all four arrays. */
static inline void host_tokens_open(HostTokens *h, int64_t N) {
    h->tokens = (int32_t *)pinned_malloc((size_t)(4 * N + 1) * sizeof(int32_t));
    h->targets = h->tokens + N, h->place = h->targets + N, h->first = h->place + N;
    h->copied = event_create();
}

/* Allocates a model with weights, gradients and moments 0. model_close frees it. `stream` stays the caller's. */
template <typename S> GpuModel<S> *model_open(const DeviceModel &c, cudaStream_t stream) {
    GpuModel<S> *m = new GpuModel<S>();
    m->c = c, m->stream = stream;
    m->at.assign(c.at, c.at + c.layers);
    m->layers.resize((size_t)c.layers);
    m->memory = (char *)device_malloc(model_bytes<S>(c));
    Arena arena = {m->memory, 0};
    model_carve(m, &arena);
    for (HostTokens &h : m->host) host_tokens_open(&h, m->most());
    m->count.resize((size_t)c.vocab_size);
    m->fetched = event_create();
    const size_t weights = (size_t)c.count * sizeof(float), moments = (size_t)c.moments * sizeof(float);
    device_zero(m->weights, weights, stream), device_zero(m->gradients, weights, stream);
    device_zero(m->adam_m, moments, stream), device_zero(m->adam_v, moments, stream);
    device_zero(m->loss_sum, sizeof *m->loss_sum, stream);
    if (c.rope_cos_sin)
        copy_to_device(m->rope_cos_sin, c.rope_cos_sin, (size_t)c.seq_len * c.head_dim * sizeof(float),
                       stream);
    if (c.fixed_positions)
        copy_to_device(m->fixed_positions, c.fixed_positions, (size_t)c.seq_len * c.embd * sizeof(float),
                       stream);
    return m;
}

template <typename S> void model_close(GpuModel<S> *m) {
    exchange_close(m->exchange);
    device_wait(m->stream);
    device_free(m->slice_sums);
    device_free(m->memory);
    for (const HostTokens &h : m->host) pinned_free(h.tokens), event_destroy(h.copied);
    event_destroy(m->fetched);
    delete m;
}

/* Connects to the GPUs of the other ranks, if there are any. Called once. */
template <typename S> void model_join(GpuModel<S> *m, const DeviceJob &job) {
    m->exchange = exchange_open(job);
    if (m->exchange) m->slice_sums = (double *)device_malloc(m->exchange->slices.size() * sizeof(double));
}

/* Copies `bytes` bytes from the GPU to the host, after all that the stream has been given; the host waits for it. */
template <typename S> void model_fetch(GpuModel<S> *m, void *to, const void *from, size_t bytes) {
    event_record(m->fetched, m->stream);
    exchange_watch(m->exchange, m->fetched);
    copy_to_host(to, from, bytes, m->stream);
}

/* Called after something else than model_update has changed the weights: rounds them to operands. */
template <typename S> void model_round_weights(GpuModel<S> *m) {
    if (is_bf16(m->operands)) cast(m->operands, m->weights, m->c.count, m->stream);
}

/* All gradients count as zero from now on; their memory is not set before it is read. */
template <typename S> void model_zero_gradients(GpuModel<S> *m) {
    m->embed_is_zero = m->others_are_zero = true;
}

/* To be called before the whole array of gradients is read: clears the gradients that no function has written since
   model_zero_gradients. */
template <typename S> void model_settle_gradients(GpuModel<S> *m) {
    const int64_t embed = m->c.embed, after = embed + (int64_t)m->c.vocab_size * m->c.embd;
    float *g = m->gradients;
    if (m->embed_is_zero) device_zero(g + embed, (size_t)(after - embed) * sizeof(float), m->stream);
    if (m->others_are_zero) {
        device_zero(g, (size_t)embed * sizeof(float), m->stream);
        device_zero(g + after, (size_t)(m->c.count - after) * sizeof(float), m->stream);
    }
    m->embed_is_zero = m->others_are_zero = false;
}

/* The attention block and the MLP block of a layer. Each computes what backward needs and, unless out is nullptr, its
   output (N, C). With --recompute, backward calls them again and gets the same bits. */

/* out = input + attention(rmsnorm(input)) . o^T */
template <typename S> void attention_block(GpuModel<S> *m, int l, int B, int T, float *out) {
    const DeviceModel &c = m->c;
    const int C = c.embd, A = (int)m->A();
    const int64_t N = (int64_t)B * T;
    const DeviceLayer &w = m->at[(size_t)l];
    const GpuLayer<S> &a = m->layers[(size_t)l];
    cudaStream_t stream = m->stream;

    rmsnorm_forward(a.attn_norm, a.attn_rstd, a.input, m->weights + w.attn_norm, N, C, stream);
    matmul_forward(a.qkv, (const S *)nullptr, a.attn_norm, m->operands + w.qkv, N, C, 3 * A, stream);
    if (m->rope_cos_sin) rope_rotate(a.qkv, m->rope_cos_sin, 1, N, T, c.heads, c.head_dim, stream);
    attention_forward(a.attn_out, a.low_bits, a.lse, a.columns, a.qkv, a.qkv + A, a.qkv + 2 * A,
                      m->attention_work, m->attention(B, T), stream);
    if (out) matmul_forward(out, (const float *)a.input, a.attn_out, m->operands + w.o, N, A, C, stream);
}

/* out = mlp_input + activation(rmsnorm(mlp_input) . up^T) . down^T */
template <typename S> void mlp_block(GpuModel<S> *m, int l, int64_t N, float *out) {
    const DeviceModel &c = m->c;
    const int C = c.embd, F = c.mlp_hidden, U = (int)m->U();
    const DeviceLayer &w = m->at[(size_t)l];
    const GpuLayer<S> &a = m->layers[(size_t)l];
    cudaStream_t stream = m->stream;

    rmsnorm_forward(a.mlp_norm, a.mlp_rstd, a.mlp_input, m->weights + w.mlp_norm, N, C, stream);
    if (m->gelu_in_products()) {
        matmul_gelu_forward(a.hidden, a.up, a.mlp_norm, m->operands + w.up, N, C, F, stream);
    } else {
        matmul_forward(a.up, (const S *)nullptr, a.mlp_norm, m->operands + w.up, N, C, U, stream);
        activation_forward(a.hidden, a.up, N, F, c.activation, stream);
    }
    if (out) matmul_forward(out, (const float *)a.mlp_input, a.hidden, m->operands + w.down, N, F, C, stream);
}

/* Sends a micro-step's tokens (N) to the GPU. There are two buffers, used in turn: first waits until the GPU has copied
   the tokens that this buffer held two micro-steps ago. */
template <typename S> void model_send_tokens(GpuModel<S> *m, const int32_t *tokens, int64_t N) {
    m->turn = !m->turn;
    HostTokens *h = m->host_tokens();
    exchange_watch(m->exchange, h->copied);
    memcpy(h->tokens, tokens, (size_t)N * sizeof(int32_t));
    copy_to_device(m->tokens, h->tokens, (size_t)N * sizeof(int32_t), m->stream);
    event_record(h->copied, m->stream);
}

/* Sends the places at which each token value stands, which embedding_backward needs. The host sorts them after it has
   launched the forward pass. */
template <typename S> void model_send_buckets(GpuModel<S> *m, int64_t N) {
    HostTokens *h = m->host_tokens();
    TokenBuckets sorted = {h->place, h->first, 0};
    token_buckets(&sorted, h->tokens, N, m->c.vocab_size, m->count.data());
    m->buckets.distinct = sorted.distinct;
    copy_to_device(m->buckets.place, h->place, (size_t)N * sizeof(int32_t), m->stream);
    copy_to_device(m->buckets.first, h->first, (size_t)(sorted.distinct + 1) * sizeof(int32_t), m->stream);
    event_record(h->copied, m->stream);
}

/* Sends the targets (N) of a micro-step. */
template <typename S> void model_send_targets(GpuModel<S> *m, const int32_t *targets, int64_t N) {
    HostTokens *h = m->host_tokens();
    memcpy(h->targets, targets, (size_t)N * sizeof(int32_t));
    copy_to_device(m->targets, h->targets, (size_t)N * sizeof(int32_t), m->stream);
    event_record(h->copied, m->stream);
}

/* From tokens (B, T) in host memory computes output (N, C), the residual stream after the last layer, and norm, its
   RMSNorm. */
template <typename S> void model_forward(GpuModel<S> *m, const int32_t *tokens, int B, int T) {
    const DeviceModel &c = m->c;
    const int C = c.embd;
    const int64_t N = (int64_t)B * T;
    cudaStream_t stream = m->stream;

    /* matmul.cuh times several algorithms for each shape of product and keeps the fastest. It does so only for the full
       N of training: sampling has another N for each token, and so has the last batch of a validation. */
    matmul_tuning.wanted = N == m->most();
    model_send_tokens(m, tokens, N);
    const float *position = c.position >= 0 ? m->weights + c.position : m->fixed_positions;
    embedding_forward(m->layers[0].input, m->tokens, m->weights + c.embed, position, N, T, C, stream);
    for (int l = 0; l < c.layers; l++) {
        attention_block(m, l, B, T, m->layers[(size_t)l].mlp_input);
        mlp_block(m, l, N, l + 1 < c.layers ? m->layers[(size_t)l + 1].input : m->output);
    }
    rmsnorm_forward(m->norm, m->final_rstd, m->output, m->weights + c.final_norm, N, C, stream);
    model_send_buckets(m, N);
}

/* Called after model_forward: adds the losses of the N tokens to loss_sum. If gradient_scale is not 0, it also computes
   the gradients of gradient_scale * (sum of these losses): writes d_norm (N, C), and adds to the gradient of embed. The
   logits of at most logits_rows() tokens exist at the same time. */
template <typename S>
void model_loss(GpuModel<S> *m, const int32_t *targets, int64_t N, float gradient_scale) {
    const DeviceModel &c = m->c;
    const int C = c.embd, V = c.vocab_size;
    const int64_t most_rows = m->logits_rows();
    model_send_targets(m, targets, N);
    for (int64_t begin = 0; begin < N; begin += most_rows) {
        const int64_t rows = begin + most_rows < N ? most_rows : N - begin;
        const S *norm = m->norm + begin * C, *embed = m->operands + c.embed;
        matmul_forward(m->logits, (const float *)nullptr, norm, embed, rows, C, V, m->stream);
        cross_entropy(m->losses + begin, m->d_logits, (const float *)m->logits, m->targets + begin,
                      gradient_scale, rows, V, m->stream);
        if (gradient_scale == 0) continue;
        matmul_backward_input(m->d_norm + begin * C, (const S *)m->d_logits, embed, rows, C, V, m->stream);
        matmul_backward_weight(m->gradients + c.embed, (const S *)m->d_logits, norm, rows, C, V,
                               !m->embed_is_zero, m->stream);
        m->embed_is_zero = false;
    }
    sum_device(m->loss_sum, m->sum_partial, m->losses, N, false, true, m->stream);
}

/* The sum of all losses since the last call. Waits for the GPU. */
template <typename S> double model_loss_sum(GpuModel<S> *m) {
    double sum;
    model_fetch(m, &sum, m->loss_sum, sizeof sum);
    device_zero(m->loss_sum, sizeof sum, m->stream);
    return sum;
}

/* Backward of one layer: d_residual (N, C) is the gradient of the layer's output before the call and of its input
   after it. */
template <typename S> void layer_backward(GpuModel<S> *m, int l, int B, int T) {
    const DeviceModel &c = m->c;
    const int C = c.embd, A = (int)m->A(), F = c.mlp_hidden, U = (int)m->U();
    const int64_t N = (int64_t)B * T;
    const DeviceLayer &w = m->at[(size_t)l];
    const GpuLayer<S> &a = m->layers[(size_t)l];
    const S *d_operand = m->d_residual.rounded;
    const bool add = !m->others_are_zero; /* gradients of weights: += or, where they are zero, = */
    float *g = m->gradients, *attn_partial = m->norm_partial,
          *mlp_partial = attn_partial + rmsnorm_chunks(N) * C;
    cudaStream_t stream = m->stream;

    /* next_input = mlp_input + hidden . down^T,  hidden = activation(up) */
    matmul_backward_weight(g + w.down, d_operand, (const S *)a.hidden, N, F, C, add, stream);
    if (m->gelu_in_products()) {
        matmul_gelu_backward_input(m->d_up, (const S *)a.up, d_operand, (const S *)(m->operands + w.down), N,
                                   F, C, stream);
    } else {
        matmul_backward_input(m->d_hidden, d_operand, (const S *)(m->operands + w.down), N, F, C, stream);
        activation_backward(m->d_up, (const S *)m->d_hidden, (const S *)a.up, N, F, c.activation, stream);
    }
    /* up = mlp_norm . up^T,  mlp_norm = rmsnorm(mlp_input) * weight */
    matmul_backward_input(m->d_norm, (const S *)m->d_up, (const S *)(m->operands + w.up), N, C, U, stream);
    rmsnorm_backward(m->d_residual, mlp_partial, (const S *)m->d_norm, a.mlp_input, a.mlp_rstd,
                     m->weights + w.mlp_norm, N, C, true, stream);
    matmul_backward_weight(g + w.up, (const S *)m->d_up, (const S *)a.mlp_norm, N, C, U, add, stream);

    /* mlp_input = input + attn_out . o^T */
    matmul_backward_weight(g + w.o, d_operand, (const S *)a.attn_out, N, A, C, add, stream);
    matmul_backward_input(m->d_attn_out, d_operand, (const S *)(m->operands + w.o), N, A, C, stream);
    /* attn_out = attention(rope(q), rope(k), v) */
    attention_backward(m->d_qkv, m->d_qkv + A, m->d_qkv + 2 * A, m->d_attn_out, a.qkv, a.qkv + A,
                       a.qkv + 2 * A, a.attn_out, a.low_bits, a.lse, a.columns, m->rope_cos_sin,
                       m->attention_work, m->attention(B, T), stream);
    /* qkv = attn_norm . qkv^T,  attn_norm = rmsnorm(input) * weight */
    matmul_backward_input(m->d_norm, (const S *)m->d_qkv, (const S *)(m->operands + w.qkv), N, C, 3 * A,
                          stream);
    rmsnorm_backward(m->d_residual, attn_partial, (const S *)m->d_norm, a.input, a.attn_rstd,
                     m->weights + w.attn_norm, N, C, true, stream);
    matmul_backward_weight(g + w.qkv, (const S *)m->d_qkv, (const S *)a.attn_norm, N, C, 3 * A, add, stream);
    rmsnorm_backward_weight(g + w.attn_norm, g + w.mlp_norm, attn_partial, N, C, add, stream);
}

/* Called after model_loss: adds the gradients of all parameters to m->gradients. B and T are those of model_forward. */
template <typename S> void model_backward(GpuModel<S> *m, int B, int T) {
    const DeviceModel &c = m->c;
    const int64_t N = (int64_t)B * T;
    const bool add = !m->others_are_zero;
    /* norm = rmsnorm(output) * final_norm. This writes d_residual; the functions after it add to it. */
    rmsnorm_backward(m->d_residual, m->norm_partial, (const S *)m->d_norm, m->output, m->final_rstd,
                     m->weights + c.final_norm, N, c.embd, false, m->stream);
    rmsnorm_backward_weight(m->gradients + c.final_norm, nullptr, m->norm_partial, N, c.embd, add, m->stream);
    for (int l = c.layers - 1; l >= 0; l--) {
        const bool again = c.recompute == GPU_RECOMPUTE_BLOCK;
        if (c.recompute != GPU_RECOMPUTE_NONE)
            attention_block(m, l, B, T, again ? m->layers[(size_t)l].mlp_input : nullptr);
        if (again) mlp_block(m, l, N, nullptr);
        layer_backward(m, l, B, T);
        exchange_reduce_scatter_ready(m->exchange, m->gradients, m->at[(size_t)l].attn_norm, m->stream);
    }
    /* layers[0].input = embed[token] + position */
    embedding_backward(m->gradients + c.embed, m->d_residual, m->tokens, m->buckets, c.embd, m->stream);
    if (c.position >= 0) {
        float *g = m->gradients + c.position;
        position_backward(g, m->d_residual, B, T, c.embd, add, m->stream);
        if (!add && T < c.seq_len)
            device_zero(g + (int64_t)T * c.embd, (size_t)(c.seq_len - T) * c.embd * sizeof(float), m->stream);
    }
    m->others_are_zero = false;
    exchange_reduce_scatter_ready(m->exchange, m->gradients, 0, m->stream);
}

/* Copies the logits (V) of token n of the latest model_forward to the host, and waits for them. */
template <typename S> void model_logits(GpuModel<S> *m, float *logits, int64_t n) {
    matmul_forward(m->logits, (const float *)nullptr, m->norm + n * m->c.embd, m->operands + m->c.embed, 1,
                   m->c.embd, m->c.vocab_size, m->stream);
    model_fetch(m, logits, m->logits, (size_t)m->c.vocab_size * sizeof(float));
}

/* The sum of the squares of the gradients, for which the host waits. With an exchange it first waits until the
   gradients are summed over the ranks, and takes only this rank's slices. */
template <typename S> double model_gradient_squares(GpuModel<S> *m) {
    model_settle_gradients(m);
    if (!m->exchange) {
        double squares;
        sum_device(m->squares, m->sum_partial, m->gradients, m->c.count, true, false, m->stream);
        model_fetch(m, &squares, m->squares, sizeof squares);
        return squares;
    }
    const std::vector<FloatRange> &slices = m->exchange->slices;
    std::vector<double> sums(slices.size());
    exchange_wait(m->exchange, m->stream);
    for (size_t i = 0; i < slices.size(); i++)
        sum_device(m->slice_sums + i, m->sum_partial, m->gradients + slices[i].begin,
                   (int64_t)(slices[i].end - slices[i].begin), true, false, m->stream);
    model_fetch(m, sums.data(), m->slice_sums, sums.size() * sizeof(double));
    exchange_measure(m->exchange);
    double squares = 0;
    for (double sum : sums) squares += sum;
    return squares;
}

/* AdamW on `count` weights from element `begin` on; their moments are elements `moments` and following of adam_m,
   adam_v. */
template <typename S>
void model_update(GpuModel<S> *m, int64_t begin, int64_t moments, int64_t count, const AdamWStep &step) {
    model_settle_gradients(m);
    adamw_update(m->weights + begin, is_bf16(m->operands) ? m->operands + begin : nullptr,
                 m->gradients + begin, m->adam_m + moments, m->adam_v + moments, count, step, m->stream);
}

/* Starts to all-gather a bucket of the weights or, if not `weights`, of the gradients. Also rounds the bucket's new
   weights to operands. */
template <typename S> void model_all_gather(GpuModel<S> *m, bool weights, int bucket) {
    Exchange *e = m->exchange;
    if (!e) return;
    if (!weights) model_settle_gradients(m);
    exchange_all_gather(e, weights ? m->weights : m->gradients, bucket, m->stream);
    const FloatRange all = e->buckets[(size_t)bucket];
    if (weights && is_bf16(m->operands))
        cast(m->operands + all.begin, m->weights + all.begin, (int64_t)(all.end - all.begin), e->stream);
}

#endif
