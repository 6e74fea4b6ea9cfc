/* model.h: what a transformer is made of: the sizes of a model, its parameters and activations as two tables of
   tensors, its memory, its initial weights. train_gpt.c computes with it.

   Model m = model_plan(&config, B)   describes a model with room for B sequences, without memory yet
   model_allocate(&m), model_free(&m)
   model_init(&m, seed)               initial weights
   model_repack(&m)          to be called after every change of the weights
   model_matrix_parameters(&m), model_flops_per_token(&m), model_part_operations(&m, part)
                                      for MFU and --profile

   The letters of a shape, as in the papers:  B sequences, T tokens of each, N = B*T tokens, V vocabulary, C width of the
   residual stream, L layers, H heads of size D, A = H*D, F hidden units of the MLP, U = F or with swiglu 2F. */
#ifndef GPT_MODEL_H
#define GPT_MODEL_H

#include <math.h>
#include "dist/device.h"
#include "base/memory.h"
#include "base/threads.h"
#include "math/matmul.h"
#include "run/train_options.h"
#include "base/profile.h"
#include "math/rng.h"
#include "math/tensor_table.h"

enum {
    NORM_CHUNK = 32
}; /* tokens whose norm gradients are summed together; fixed, whatever the threads do */

typedef struct {
    int layers, heads, head_dim, embd, mlp_hidden, seq_len, vocab_size; /* L H D C F T V */
    int attn, laser_shift, activation, position;                        /* as in options.h */
    int dtype, recompute;                                               /* these two change how, not what */
} ModelConfig;

/* The fields of ModelConfig that make a model what it is, all int: the option that bounds each, its name in the config.json
   of a checkpoint (Hugging Face's), and its choices there; NULL: a number. */
static const struct {
    const char *option, *key;
    size_t field;
    const char *choices;
} model_fields[] = {
    {"vocab-size", "vocab_size", offsetof(ModelConfig, vocab_size), NULL},
    {"embd", "hidden_size", offsetof(ModelConfig, embd), NULL},
    {"layers", "num_hidden_layers", offsetof(ModelConfig, layers), NULL},
    {"heads", "num_attention_heads", offsetof(ModelConfig, heads), NULL},
    {"head-dim", "head_dim", offsetof(ModelConfig, head_dim), NULL},
    {"mlp-hidden", "intermediate_size", offsetof(ModelConfig, mlp_hidden), NULL},
    {"seq-len", "max_position_embeddings", offsetof(ModelConfig, seq_len), NULL},
    {"activation", "hidden_act", offsetof(ModelConfig, activation), "gelu_pytorch_tanh|relu|silu"},
    {"pos", "position_embedding", offsetof(ModelConfig, position), "rope|sinusoidal|learned"},
    {"attn", "attention", offsetof(ModelConfig, attn), "standard|laser"},
    {"laser-shift", "laser_shift", offsetof(ModelConfig, laser_shift), "causal|sequence"},
};
enum { MODEL_FIELDS = sizeof model_fields / sizeof *model_fields };

static int *model_field(const ModelConfig *config, int i) {
    return (int *)((uintptr_t)config + model_fields[i].field);
}

/* What a model may be, wherever its sizes come from: within the bounds of the options' table, so that no product of sizes
   leaves the 63 bits of the integers that hold it. To be asked before anything is allocated. */
static bool model_config_is_sound(const ModelConfig *config, char *error) {
    for (int i = 0; i < MODEL_FIELDS; i++) {
        const Option *option = options_find_in(train_options, TRAIN_OPTION_COUNT, model_fields[i].option);
        const int value = *model_field(config, i);
        if (model_fields[i].choices || (value >= option->min && value <= option->max && value > 0)) continue;
        return file_fail(error, "%s (--%s) is %d, expected %.0f to %.0f", model_fields[i].key, option->name,
                         value, fmax(option->min, 1), option->max);
    }
    if (config->position == POSITION_ROPE && config->head_dim % 2)
        return file_fail(error,
                         "head_dim (--head-dim) is %d: rope turns pairs; expected an even size, or "
                         "another --pos",
                         config->head_dim);
    return true;
}

typedef struct {
    float *attn_norm; /* (C) */
    float *q, *k, *v; /* (A, C) each, adjacent: q is also the matrix (3A, C) of one product */
    float *o;         /* (C, A) */
    float *mlp_norm;  /* (C) */
    float *gate, *up; /* (F, C) each, adjacent; gate NULL unless swiglu */
    float *down;      /* (C, F) */
} LayerWeights;

/* The products of a layer. q, k and v are one matrix (3A, C); gate and up are one (U, C). */
enum { QKV, ATTENTION_OUT, MLP_UP, MLP_DOWN, LAYER_PRODUCTS };

typedef struct {
    float *embed;    /* (V, C), also the output matrix */
    float *position; /* (T, C) with --pos=learned, else NULL */
    LayerWeights *layers;
    float *final_norm; /* (C) */
    float *memory;     /* all of them in one piece, `count` floats */
    size_t count;
} Weights;

/* What backward needs of a layer. With --recompute=attention or block the layers share the memory of some of them, and
   backward computes them again: see activation_rows. */
typedef struct {
    float *input;     /* (N, C) residual stream as it enters the block */
    float *attn_rstd; /* (N) */
    float *qkv;       /* (N, 3A) q and k after rope */
    float *attn_lse;  /* (B, H, T) log-sum-exp of each row of scores */
    float *attn_out;  /* (N, A) */
    float *mlp_input; /* (N, C) residual stream between attention and MLP */
    float *mlp_rstd;  /* (N) */
    Array up;         /* (N, U) before the activation */
} LayerActivations;

typedef struct {
    LayerActivations *layers;
    float *output;     /* (N, C) residual stream after the last block */
    float *final_rstd; /* (N) */
    float *losses;     /* (N) */
    Array norm;        /* (N, C) the latest RMSNorm's output; done again in backward */
    Array hidden;      /* (N, F) the latest activation's output; done again in backward */
    float *logits;     /* (R, V) a slice of the logits, see loss_slice_rows */
    Array d_logits;    /* (R, V) their gradient, in their place when both are float32 */
    float *d_residual, *d_norm, *d_attn_out;
    float *d_attn_in; /* (N, 3A) of q, k, v as attention takes them */
    Array d_qkv;      /* (N, 3A) before rope; in the same place unless rope writes bfloat16 */
    Array d_up;
    float *norm_partial; /* (ceil(N / NORM_CHUNK), C) */
    float *memory;
} Activations;

/* How a parameter starts, and which models have it. */
enum { INIT_ONES, INIT_NORMAL, INIT_RESIDUAL };
enum { ALWAYS, IF_LEARNED_POSITIONS, IF_SWIGLU };

/* Every parameter there is; the letters of a shape are those above (see tensor_size). Memory
   order, initial values, decay (matrices only), checkpoint names and all printing come from here. Adjacent q, k, v and
   gate, up are multiplied as one matrix. */
static const TensorRow weight_rows[] = {
    {"embed.weight", "VC", offsetof(Weights, embed), INIT_NORMAL, ALWAYS},
    {"position.weight", "TC", offsetof(Weights, position), INIT_NORMAL, IF_LEARNED_POSITIONS},
    {"layers.%d.attn_norm.weight", "C", offsetof(LayerWeights, attn_norm), INIT_ONES, ALWAYS},
    {"layers.%d.attn.q.weight", "AC", offsetof(LayerWeights, q), INIT_NORMAL, ALWAYS},
    {"layers.%d.attn.k.weight", "AC", offsetof(LayerWeights, k), INIT_NORMAL, ALWAYS},
    {"layers.%d.attn.v.weight", "AC", offsetof(LayerWeights, v), INIT_NORMAL, ALWAYS},
    {"layers.%d.attn.o.weight", "CA", offsetof(LayerWeights, o), INIT_RESIDUAL, ALWAYS},
    {"layers.%d.mlp_norm.weight", "C", offsetof(LayerWeights, mlp_norm), INIT_ONES, ALWAYS},
    {"layers.%d.mlp.gate.weight", "FC", offsetof(LayerWeights, gate), INIT_NORMAL, IF_SWIGLU},
    {"layers.%d.mlp.up.weight", "FC", offsetof(LayerWeights, up), INIT_NORMAL, ALWAYS},
    {"layers.%d.mlp.down.weight", "CF", offsetof(LayerWeights, down), INIT_RESIDUAL, ALWAYS},
    {"final_norm.weight", "C", offsetof(Weights, final_norm), INIT_ONES, ALWAYS},
};

/* How an activation is stored, and up to which --recompute (none, attention, block) every layer has its own. */
enum { FLOATS, OPERAND };
enum { KEPT_BY_NONE, KEPT_BY_ATTENTION, KEPT_BY_BLOCK, IF_BF16, IF_BF16_AND_ROPE };

static const TensorRow activation_rows[] = {
    {"layers.%d.input", "NC", offsetof(LayerActivations, input), FLOATS, KEPT_BY_BLOCK},
    {"layers.%d.attn_rstd", "N", offsetof(LayerActivations, attn_rstd), FLOATS, KEPT_BY_NONE},
    {"layers.%d.qkv", "N3A", offsetof(LayerActivations, qkv), FLOATS, KEPT_BY_NONE},
    {"layers.%d.attn_lse", "NH", offsetof(LayerActivations, attn_lse), FLOATS, KEPT_BY_NONE},
    {"layers.%d.attn_out", "NA", offsetof(LayerActivations, attn_out), FLOATS, KEPT_BY_NONE},
    {"layers.%d.mlp_input", "NC", offsetof(LayerActivations, mlp_input), FLOATS, KEPT_BY_ATTENTION},
    {"layers.%d.mlp_rstd", "N", offsetof(LayerActivations, mlp_rstd), FLOATS, KEPT_BY_ATTENTION},
    {"layers.%d.up", "NU", offsetof(LayerActivations, up), OPERAND, KEPT_BY_ATTENTION},
    {"output", "NC", offsetof(Activations, output), FLOATS, KEPT_BY_BLOCK},
    {"final_rstd", "N", offsetof(Activations, final_rstd), FLOATS, KEPT_BY_BLOCK},
    {"losses", "N", offsetof(Activations, losses), FLOATS, KEPT_BY_BLOCK},
    {"norm", "NC", offsetof(Activations, norm), OPERAND, KEPT_BY_BLOCK},
    {"hidden", "NF", offsetof(Activations, hidden), OPERAND, KEPT_BY_BLOCK},
    {"logits", "RV", offsetof(Activations, logits), FLOATS, KEPT_BY_BLOCK},
    {"d_logits", "RV", offsetof(Activations, d_logits), OPERAND, IF_BF16},
    {"d_residual", "NC", offsetof(Activations, d_residual), FLOATS, KEPT_BY_BLOCK},
    {"d_norm", "NC", offsetof(Activations, d_norm), FLOATS, KEPT_BY_BLOCK},
    {"d_attn_in", "N3A", offsetof(Activations, d_attn_in), FLOATS, KEPT_BY_BLOCK},
    {"d_qkv", "N3A", offsetof(Activations, d_qkv), OPERAND, IF_BF16_AND_ROPE},
    {"d_attn_out", "NA", offsetof(Activations, d_attn_out), FLOATS, KEPT_BY_BLOCK},
    {"d_up", "NU", offsetof(Activations, d_up), OPERAND, KEPT_BY_BLOCK},
    {"norm_partial", "PC", offsetof(Activations, norm_partial), FLOATS, KEPT_BY_BLOCK},
};
enum {
    WEIGHT_ROWS = sizeof weight_rows / sizeof *weight_rows,
    ACTIVATION_ROWS = sizeof activation_rows / sizeof *activation_rows
};

typedef struct {
    ModelConfig config;
    int batch;              /* B: the most sequences that fit the activations */
    size_t device_moments;  /* floats of each of AdamW's moments that a GPU keeps beside the model */
    TensorTable parameters; /* what weights, gradients and the optimizer's moments hold, in memory order */
    Weights weights, gradients;
    Linear *
        products; /* (4L + 1) the weights as matmul.h reads them: QKV ... MLP_DOWN of each layer, then (V, C) */
    Activations activations;
    float *rope_cos_sin;    /* (T, D/2, 2) cos, sin; with --pos=rope */
    float *fixed_positions; /* (T, C) with --pos=sinusoidal */
} Model;

/* Rows of logits held at a time, about 128 MiB of them: each slice adds to the whole gradient of the output matrix, so
   few slices save memory traffic. */
static int64_t loss_slice_rows(const ModelConfig *config, int64_t N) {
    int64_t rows = (int64_t)(1 << 25) / config->vocab_size / 64 * 64;
    rows = rows < 64 ? 64 : rows;
    return rows < N ? rows : N;
}

/* TENSOR_... of a row of either table. */
static int weight_flags(const ModelConfig *c, const TensorRow *row) {
    const bool there = row->when == ALWAYS ||
                       (row->when == IF_LEARNED_POSITIONS && c->position == POSITION_LEARNED) ||
                       (row->when == IF_SWIGLU && c->activation == ACTIVATION_SWIGLU);
    return there ? TENSOR_FLOATS : TENSOR_ABSENT;
}

static int activation_flags(const ModelConfig *c, const TensorRow *row) {
    if (row->when >= IF_BF16 && c->dtype != DTYPE_BF16) return TENSOR_ABSENT;
    if (row->when == IF_BF16_AND_ROPE && c->position != POSITION_ROPE) return TENSOR_ABSENT;
    const int storage = row->kind == FLOATS      ? TENSOR_FLOATS
                        : c->dtype == DTYPE_BF16 ? TENSOR_ARRAY | TENSOR_BF16
                                                 : TENSOR_ARRAY;
    return row->when < c->recompute ? storage | TENSOR_SHARED : storage;
}

/* The TensorSize of both tables; the context is a Model with its config and batch. */
static int64_t tensor_size(const void *context, const TensorRow *row, char letter) {
    const Model *model = context;
    const ModelConfig *c = &model->config;
    const int64_t N = (int64_t)model->batch * c->seq_len;
    switch (letter) {
    case 0:
        return row >= weight_rows && row < weight_rows + WEIGHT_ROWS ? weight_flags(c, row)
                                                                     : activation_flags(c, row);
    case 'V': return c->vocab_size;
    case 'C': return c->embd;
    case 'A': return (int64_t)c->heads * c->head_dim;
    case 'F': return c->mlp_hidden;
    case 'U': return (int64_t)c->mlp_hidden * (c->activation == ACTIVATION_SWIGLU ? 2 : 1);
    case 'T': return c->seq_len;
    case 'H': return c->heads;
    case 'N': return N;
    case 'R': return loss_slice_rows(c, N);             /* rows of a slice of logits */
    case 'P': return (N + NORM_CHUNK - 1) / NORM_CHUNK; /* partial sums of norm gradients */
    }
    die("no size is called '%c'", letter);
}

static TensorTable activations_plan(const Model *model) {
    return tensors_plan(activation_rows, ACTIVATION_ROWS, model->config.layers, tensor_size, model);
}

static Weights weights_create(const Model *model) {
    Weights w = {.layers = check_calloc((size_t)model->config.layers * sizeof *w.layers)};
    w.count = model->parameters.floats;
    w.memory = memory_allocate(w.count * sizeof(float));
    tensors_point(&model->parameters, w.memory, &w, w.layers, sizeof *w.layers);
    return w;
}

static Activations activations_create(const Model *model) {
    Activations a = {.layers = check_calloc((size_t)model->config.layers * sizeof *a.layers)};
    TensorTable table = activations_plan(model);
    a.memory = memory_allocate(table.floats * sizeof(float));
    tensors_point(&table, a.memory, &a, a.layers, sizeof *a.layers);
    if (!a.d_logits.data) a.d_logits = array_of_floats(a.logits);
    if (!a.d_qkv.data) a.d_qkv = array_of_floats(a.d_attn_in);
    tensors_free(&table);
    return a;
}

static int product_count(const Model *model) { return model->config.layers * LAYER_PRODUCTS + 1; }
static const Linear *layer_products(const Model *model, int l) {
    return model->products + l * LAYER_PRODUCTS;
}
static const Linear *output_product(const Model *model) {
    return layer_products(model, model->config.layers);
}

/* The matrices that products multiply with; their values come with the weights. */
static Linear *products_plan(const ModelConfig *c) {
    const int C = c->embd, A = c->heads * c->head_dim, F = c->mlp_hidden;
    const int U = F * (c->activation == ACTIVATION_SWIGLU ? 2 : 1);
    const Dtype dtype = (Dtype)c->dtype;
    Linear *products = check_calloc((size_t)(c->layers * LAYER_PRODUCTS + 1) * sizeof *products),
           *w = products;
    for (int l = 0; l < c->layers; l++, w += LAYER_PRODUCTS) {
        w[QKV] = (Linear){.C = C, .OC = 3 * A, .dtype = dtype};
        w[ATTENTION_OUT] = (Linear){.C = A, .OC = C, .dtype = dtype};
        w[MLP_UP] = (Linear){.C = C, .OC = U, .dtype = dtype};
        w[MLP_DOWN] = (Linear){.C = F, .OC = C, .dtype = dtype};
    }
    *w = (Linear){.C = C, .OC = c->vocab_size, .dtype = dtype};
    return products;
}

static void products_point(Model *model) {
    Linear *w = model->products;
    for (int l = 0; l < model->config.layers; l++, w += LAYER_PRODUCTS) {
        const LayerWeights *weights = &model->weights.layers[l];
        w[QKV].values = weights->q;
        w[ATTENTION_OUT].values = weights->o;
        w[MLP_UP].values = weights->gate ? weights->gate : weights->up;
        w[MLP_DOWN].values = weights->down;
    }
    w->values = model->weights.embed;
}

/* To be called after every change of the weights: products in bfloat16 read copies of them, packed. */
void model_repack(Model *model) {
    if (device_on()) return;
    profile(PROFILE_PACK);
    for (int i = 0; i < product_count(model) && model->config.dtype == DTYPE_BF16; i++)
        linear_pack(&model->products[i]);
    profile(PROFILE_OTHER);
}

/* Bytes of those copies. */
int64_t model_packed_bytes(const Model *model) {
    int64_t bytes = 0;
    for (int i = 0; i < product_count(model) && model->config.dtype == DTYPE_BF16; i++) {
        const Linear *w = &model->products[i];
        bytes += linear_packed_bytes(w->C, w->OC, w->dtype);
    }
    return bytes;
}

/* Angles of rope, or the fixed sinusoidal positions (Vaswani et al. 2017), each in double and rounded once. */
static void positions_create(Model *model) {
    const int T = model->config.seq_len, C = model->config.embd, D = model->config.head_dim;
    if (model->config.position == POSITION_ROPE) {
        model->rope_cos_sin = check_calloc((size_t)T * (size_t)D * sizeof(float));
        for (int t = 0; t < T; t++)
            for (int d = 0; d < D / 2; d++) {
                double angle = t * pow(10000.0, -2.0 * d / D);
                model->rope_cos_sin[(size_t)t * D + 2 * d] = (float)cos(angle);
                model->rope_cos_sin[(size_t)t * D + 2 * d + 1] = (float)sin(angle);
            }
    } else if (model->config.position == POSITION_SINUSOIDAL) {
        model->fixed_positions = check_calloc((size_t)T * (size_t)C * sizeof(float));
        for (int t = 0; t < T; t++)
            for (int c = 0; c < C; c++) {
                double angle = t * pow(10000.0, -(double)(c / 2 * 2) / C);
                model->fixed_positions[(size_t)t * C + c] = (float)(c % 2 ? cos(angle) : sin(angle));
            }
    }
}

/* A model with room for B sequences: model_plan describes it, model_allocate gives it memory (all weights zero),
   model_free releases both. */
Model model_plan(const ModelConfig *config, int B) {
    Model model = {.config = *config, .batch = B};
    model.parameters = tensors_plan(weight_rows, WEIGHT_ROWS, config->layers, tensor_size, &model);
    model.products = products_plan(config);
    return model;
}

/* The model as the GPU wants it told: sizes, and where each tensor begins; free() `at`. */
static DeviceModel device_model(const Model *model) {
    const ModelConfig *c = &model->config;
    const Weights *w = &model->weights;
    DeviceLayer *at = check_calloc((size_t)c->layers * sizeof *at);
    for (int l = 0; l < c->layers && w->layers; l++) {
        const LayerWeights *layer = &w->layers[l];
        at[l] = (DeviceLayer){.attn_norm = layer->attn_norm - w->memory,
                              .qkv = layer->q - w->memory,
                              .o = layer->o - w->memory,
                              .mlp_norm = layer->mlp_norm - w->memory,
                              .up = (layer->gate ? layer->gate : layer->up) - w->memory,
                              .down = layer->down - w->memory};
    }
    return (DeviceModel){.layers = c->layers,
                         .heads = c->heads,
                         .head_dim = c->head_dim,
                         .embd = c->embd,
                         .mlp_hidden = c->mlp_hidden,
                         .seq_len = c->seq_len,
                         .vocab_size = c->vocab_size,
                         .batch = model->batch,
                         .activation = c->activation,
                         .recompute = c->recompute,
                         .laser = c->attn != 0,
                         .sequence_shift = c->laser_shift != 0,
                         .bf16 = c->dtype == DTYPE_BF16,
                         .embed = w->layers ? w->embed - w->memory : 0,
                         .position = w->position ? w->position - w->memory : -1,
                         .final_norm = w->layers ? w->final_norm - w->memory : 0,
                         .count = (int64_t)model->parameters.floats,
                         .moments = (int64_t)model->device_moments,
                         .at = at,
                         .rope_cos_sin = model->rope_cos_sin,
                         .fixed_positions = model->fixed_positions};
}

void model_allocate(Model *model) {
    model->weights = weights_create(model);
    model->gradients = weights_create(model);
    positions_create(model);
    if (!device_on()) {
        model->activations = activations_create(model);
        products_point(model);
        return;
    }
    DeviceModel description =
        device_model(model); /* activations are on the GPU; sampling brings logits here */
    device_open(&description);
    free((void *)description.at);
    model->activations.logits = check_calloc((size_t)model->config.vocab_size * sizeof(float));
}

void model_free(Model *model) {
    device_close();
    if (device_on()) free(model->activations.logits);
    for (int i = 0; i < product_count(model); i++) linear_free(&model->products[i]);
    void *pieces[] = {model->weights.memory,   model->weights.layers,     model->gradients.memory,
                      model->gradients.layers, model->activations.memory, model->activations.layers,
                      model->rope_cos_sin,     model->fixed_positions,    model->products};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) free(pieces[i]);
    tensors_free(&model->parameters);
}

/* N(0, 0.02) for matrices, those that write into the residual stream scaled by 1/sqrt(2L); ones for norms. */
void model_init(Model *model, uint64_t seed) {
    for (int i = 0; i < model->parameters.count; i++) {
        const Tensor *t = &model->parameters.tensors[i];
        float *x = model->weights.memory + t->offset;
        float deviation =
            t->row->kind == INIT_RESIDUAL ? 0.02f / sqrtf(2.0f * (float)model->config.layers) : 0.02f;
#pragma omp parallel for schedule(static)
        for (size_t j = 0; j < t->count; j++)
            x[j] = t->row->kind == INIT_ONES ? 1.0f
                                             : deviation * rng_normal(seed, RNG_STREAM_INIT + (uint64_t)i, j);
    }
    model_repack(model);
}

/* Parameters that take part in a matrix product, the tied embedding once: N of the convention 6N + 12LCT. */
int64_t model_matrix_parameters(const Model *model) {
    int64_t sum = 0;
    for (int i = 0; i < model->parameters.count; i++)
        if (model->parameters.tensors[i].rank == 2 &&
            strcmp(model->parameters.tensors[i].name, "position.weight") != 0)
            sum += (int64_t)model->parameters.tensors[i].count;
    return sum;
}

double model_flops_per_token(const Model *model) {
    const ModelConfig *c = &model->config;
    return 6.0 * (double)model_matrix_parameters(model) +
           12.0 * c->layers * c->heads * c->head_dim * c->seq_len;
}

/* Operations of a part in a micro-step, forward and backward, 0 where they are not what takes its time; of attention as
   many as causality leaves. */
double model_part_operations(const Model *model, ProfilePart part) {
    const ModelConfig *c = &model->config;
    const double A = c->heads * c->head_dim, C = c->embd, F = c->mlp_hidden, L = c->layers, T = c->seq_len;
    const double U = F * (c->activation == ACTIVATION_SWIGLU ? 2 : 1), N = model->batch * T;
    switch (part) {
    case PROFILE_QKV: return 6 * N * L * C * 3 * A;
    case PROFILE_ATTENTION: return 7 * N * L * A * T;
    case PROFILE_PROJECTION: return 6 * N * L * A * C;
    case PROFILE_MLP_UP: return 6 * N * L * C * U;
    case PROFILE_MLP_DOWN: return 6 * N * L * F * C;
    case PROFILE_LOGITS: return 6 * N * C * c->vocab_size;
    default: return 0;
    }
}

#endif
