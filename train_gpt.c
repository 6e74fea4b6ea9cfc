/* train_gpt.c: trains a decoder-only transformer, with standard or LASER attention.

   This file is the transformer and its training. Read it from top to bottom:

       1. the model   its sizes, weights and activations, two tables of tensors, initial values
       2. operations  an op_forward and an op_backward, or one function for both where that is simpler; outputs come
                      first; dx is the gradient of the loss with respect to x
       3. forward, loss and backward through the whole model
       4. sampling    a token, a text
       5. training    a step: forward, loss, backward, reduce the gradients (sum them over all processes), clip and
                      update; and validation
       6. the run     the loop of steps, and main

   The names of sizes are those of the papers: B sequences, T tokens of each, N = B*T tokens, V vocabulary, C width of
   the residual stream (the vector of each token, to which every attention and MLP adds its output), L layers, H heads
   of size D, A = H*D, F hidden units of the MLP, U outputs of the MLP's first matrix: F, or 2F with swiglu, which also
   needs a gate. The tables of tensors also use R rows of logits, P chunks of tokens, and S elements of a learned scale;
   a linear layer by itself has C inputs and OC outputs.

   Everything is float32, except that the numbers of an Array (gpt/math/array.h) are bfloat16 with --dtype=bf16: those of
   the matrices of weights, of most operands of products, and of the MLP's hidden units. Operands that are float32
   otherwise are rounded inside of the product. Every sum has a fixed order, so a run gives the same bits with any number of
   threads. The program train_gptcu does the work of section 3 on a GPU, and there the update of the weights too, unless
   several ranks exchange gradients through the host (--comm=host): the functions of section 3 then call
   gpt/dist/device.h, which train_gpt.cu implements.

   The tests and the tools include this file; what they call is not static.

   Build: make, or by hand: cc -O3 -march=native -fopenmp train_gpt.c -lcjson -lz -lm */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LASER_IMPLEMENTATION
#include "laser.h"
#include "gpt/base/check.h"
#include "gpt/base/clock.h"
#include "gpt/base/memory.h"
#include "gpt/base/peak.h"
#include "gpt/base/processor.h"
#include "gpt/base/profile.h"
#include "gpt/base/program.h"
#include "gpt/base/signals.h"
#include "gpt/base/threads.h"
#include "gpt/dist/device.h"
#include "gpt/dist/hosts.h"
#include "gpt/dist/parallel.h"
#include "gpt/dist/sharded_optimizer.h"
#include "gpt/io/shards.h"
#include "gpt/io/tokenizer.h"
#include "gpt/math/array.h"
#include "gpt/math/attention.h"
#include "gpt/math/attention_ablations.h"
#include "gpt/math/attention_cache.h"
#include "gpt/math/matmul.h"
#include "gpt/math/nonfinite.h"
#include "gpt/math/optimizer.h"
#include "gpt/math/rng.h"
#include "gpt/math/sampling.h"
#include "gpt/math/tensor_table.h"
#include "gpt/math/vector_math.h"
#include "gpt/run/analysis.h"
#include "gpt/run/checkpointing.h"
#include "gpt/run/diagnosis.h"
#include "gpt/run/dry_run.h"
#include "gpt/run/hugging_face.h"
#include "gpt/run/init_from.h"
#include "gpt/run/memory_plan.h"
#include "gpt/run/resume.h"
#include "gpt/run/run_folder.h"
#include "gpt/run/sampled_text.h"
#include "gpt/run/setup.h"

/* ========================================================================================= 1. the model ==== */

typedef struct {
    int layers, heads, head_dim, embd, mlp_hidden, seq_len, vocab_size; /* L H D C F T V */
    /* Choices of the options of these names. */
    int attn, laser_shift, qk_norm, attn_scale, activation, position, norm, norm_place, bias, embed_scale,
        tie;
    double laser_beta, attn_softcap;
    double logit_softcap; /* X of X tanh(logit / X); 0: none */
    double norm_eps, rope_theta;
    /* The other fields change how the model is computed and trained; they are not saved with it. */
    int dtype, recompute, init_weights;
    double attn_grad_scale;
    double z_loss; /* the factor of the square of the logits' log-sum-exp in the loss */
    bool
        forward_only; /* no gradients, and all layers share their activations: for tools that use a trained model */
} ModelConfig;

/* One row for each field that is saved in the config.json of a checkpoint: the option that sets it, its name in
   config.json, the field, the names of its values there (NULL: it is a number), and whether the name is our own. */
static const ConfigField model_fields[] = {
    {"vocab-size", "vocab_size", offsetof(ModelConfig, vocab_size), NULL, false},
    {"embd", "hidden_size", offsetof(ModelConfig, embd), NULL, false},
    {"layers", "num_hidden_layers", offsetof(ModelConfig, layers), NULL, false},
    {"heads", "num_attention_heads", offsetof(ModelConfig, heads), NULL, false},
    {"head-dim", "head_dim", offsetof(ModelConfig, head_dim), NULL, false},
    {"mlp-hidden", "intermediate_size", offsetof(ModelConfig, mlp_hidden), NULL, false},
    {"seq-len", "max_position_embeddings", offsetof(ModelConfig, seq_len), NULL, false},
    {"activation", "hidden_act", offsetof(ModelConfig, activation), "gelu_pytorch_tanh|relu|silu|relu2",
     false},
    {"pos", "position_embedding", offsetof(ModelConfig, position), OPTION_CHOICES(POSITION_CHOICES), true},
    {"rope-theta", "rope_theta", offsetof(ModelConfig, rope_theta), NULL, false},
    {"norm-eps", "rms_norm_eps", offsetof(ModelConfig, norm_eps), NULL, false},
    {"attn", "attention", offsetof(ModelConfig, attn), ATTENTION_CHOICES, true},
    {"laser-shift", "laser_shift", offsetof(ModelConfig, laser_shift), OPTION_CHOICES(LASER_SHIFT_CHOICES),
     true},
    {"qk-norm", "qk_norm", offsetof(ModelConfig, qk_norm), "no|yes", true},
    {"attn-scale", "attention_scale", offsetof(ModelConfig, attn_scale), OPTION_CHOICES(ATTN_SCALE_CHOICES),
     true},
    {"laser-beta", "laser_beta", offsetof(ModelConfig, laser_beta), NULL, true},
    {"attn-softcap", "attn_logit_softcapping", offsetof(ModelConfig, attn_softcap), NULL, true},
    {"norm", "norm", offsetof(ModelConfig, norm), OPTION_CHOICES(NORM_CHOICES), true},
    {"norm-place", "norm_place", offsetof(ModelConfig, norm_place), OPTION_CHOICES(NORM_PLACE_CHOICES), true},
    {"bias", "bias", offsetof(ModelConfig, bias), OPTION_CHOICES(BIAS_CHOICES), true},
    {"embed-scale", "scale_embeddings", offsetof(ModelConfig, embed_scale), "false|true", true},
    {"tie", "tie_word_embeddings", offsetof(ModelConfig, tie), "true|false", false},
    {"logit-softcap", "final_logit_softcapping", offsetof(ModelConfig, logit_softcap), NULL, true},
};

/* The same for the fields that are not saved. */
static const ConfigField training_fields[] = {
    {"dtype", NULL, offsetof(ModelConfig, dtype), NULL, false},
    {"recompute", NULL, offsetof(ModelConfig, recompute), NULL, false},
    {"init-weights", NULL, offsetof(ModelConfig, init_weights), NULL, false},
    {"attn-grad-scale", NULL, offsetof(ModelConfig, attn_grad_scale), NULL, false},
    {"z-loss", NULL, offsetof(ModelConfig, z_loss), NULL, false},
};
enum {
    MODEL_FIELDS = sizeof model_fields / sizeof *model_fields,
    TRAINING_FIELDS = sizeof training_fields / sizeof *training_fields
};

/* Checks the sizes of a model, which may come from options or from a checkpoint. Called before anything is allocated.
   */
static bool model_config_check(const ModelConfig *config, char *error) {
    if (!config_check(model_fields, MODEL_FIELDS, config, error)) return false;
    if (config->position == POSITION_ROPE && config->head_dim % 2)
        return file_fail(error,
                         "head_dim (--head-dim) is %d: rope turns pairs; expected an even size, or "
                         "another --pos",
                         config->head_dim);
    if (config->qk_norm && config->norm_eps != 1e-6)
        return file_fail(error, "rms_norm_eps (--norm-eps) is %g; with --qk-norm only 1e-6 is known",
                         config->norm_eps);
    if (attention_is_diff((AttentionKind)config->attn) && config->heads % 2)
        return file_fail(
            error,
            "num_attention_heads (--heads) is %d: --attn=%s subtracts the second head of each pair "
            "from the first; expected an even number",
            config->heads, attention_name((AttentionKind)config->attn));
    if (config->attn == ATTENTION_DIFF_LASER && config->laser_beta != 1)
        return file_fail(error, "laser_beta (--laser-beta) is %g; with --attn=diff-laser only 1 is known",
                         config->laser_beta);
    if (config->attn == ATTENTION_DIFF_LASER && config->laser_shift == LASER_SHIFT_NONE)
        return file_fail(error,
                         "laser_shift (--laser-shift) is none; with --attn=diff-laser only causal, sequence "
                         "and clamp are known");
    return true;
}

/* The parameters of a layer. Matrices are (outputs, inputs). */
typedef struct {
    float *attn_norm;      /* (C) */
    float *attn_norm_bias; /* (C) this and the other biases: with --bias, else NULL */
    /* (A, C) each. They follow one another in memory, so q also points to a matrix (3A, C), with which one product
       computes q, k and v. */
    float *q, *k, *v;
    float *q_bias, *k_bias, *v_bias; /* (A) each, one after the other */
    float *o, *o_bias;               /* (C, A), (C) */
    float *q_norm, *k_norm;          /* (D) each with --qk-norm, else NULL */
    float *scale;                    /* (H) or (D) with --attn-scale=head or dim, else NULL */
    float *own[5];                   /* the weights that only one kind of attention has, else NULL */
    float *mlp_norm, *mlp_norm_bias; /* (C) each */
    float *gate, *up;                /* (F, C) each, one after the other; gate is NULL without swiglu */
    float *gate_bias, *up_bias;      /* (F) each, one after the other */
    float *down, *down_bias;         /* (C, F), (C) */
    /* (C) each, with --norm-place=peri, else NULL: the norms of what attention and MLP add to the residual stream. */
    float *attn_out_norm, *mlp_out_norm;
} LayerWeights;

/* All parameters of a model, or the gradients of all. */
typedef struct {
    float *embed;    /* (V, C), also the output matrix, except with --tie=no */
    float *position; /* (T, C) with --pos=learned, else NULL */
    LayerWeights *layers;
    float *final_norm, *final_norm_bias; /* (C) each */
    float *output; /* (V, C) the output matrix: with --tie=no a tensor of its own, else it points to embed */
    float *memory; /* all of them in one piece, (count) */
    size_t count;
} Weights;

/* What backward needs of a layer. With --recompute some of these arrays have one memory that all layers use in
   turn, and backward computes their values again for each layer; activation_rows says which. */
typedef struct {
    float *input;     /* (N, C) the residual stream as it enters the layer */
    float *attn_rstd; /* (N) the rstd of norm_forward for each row */
    /* (N, 3A) what attention reads: q and k after rope, and v. With --qk-norm: q, k and v as products gave them */
    float *qkv;
    float *attn_lse;   /* (B, H, T) log-sum-exp of each row of scores */
    float *attn_out;   /* (N, A) */
    float *attn_saved; /* what a kind of attention with weights of its own also keeps, else NULL */
    float *mlp_input;  /* (N, C) the residual stream between attention and MLP */
    float *mlp_rstd;   /* (N) the same for mlp_input */
    Array up;          /* (N, U) before the activation */
    /* (N, C) and (N) each, with --norm-place=peri, else NULL: the outputs of o and down before their norm, and the
       norm's rstd. */
    float *attn_branch, *attn_branch_rstd, *mlp_branch, *mlp_branch_rstd;
} LayerActivations;

typedef struct {
    LayerActivations *layers;
    float *output;     /* (N, C) the residual stream after the last layer */
    float *final_rstd; /* (N) the rstd of norm_forward for each row of output */
    float *losses;     /* (N) */
    Array norm;        /* (N, C) the output of the latest norm; backward computes it again */
    Array hidden;      /* (N, F) the output of the latest activation; backward computes it again */
    float *logits;     /* (R, V) a slice of R rows of the logits, see loss_slice_rows */
    float *cap_slopes; /* (R, V) with --logit-softcap: the derivatives of softcap_forward; else NULL */
    Array
        d_logits; /* (R, V) the gradient of logits: an array of its own with bf16, else it overwrites logits */
    float *d_residual, *d_norm, *d_attn_out; /* (N, C), (N, C), (N, A) */
    float *d_branch; /* (N, C) with --norm-place=peri: the gradient of attn_branch or mlp_branch; else NULL */
    float *attn_in;  /* (N, 3A) with --qk-norm what attention reads; else NULL, and the layer's qkv has it */
    float *d_attn_in; /* (N, 3A) the gradient of q, k and v after rope, which attention_backward writes */
    /* (N, 3A) the gradient of q, k and v before rope: an array of its own with bf16 and --pos=rope, else it points to
       d_attn_in */
    Array d_qkv;
    Array d_up; /* (N, U) */
    /* (ceil(N / NORM_CHUNK), C) the gradient of a norm's weights, a row for each chunk of tokens */
    float *norm_partial;
    float *memory;
} Activations;

/* How a parameter starts. */
enum { INIT_ZEROS, INIT_ONES, INIT_EMBEDDING, INIT_NORMAL, INIT_RESIDUAL, INIT_LAMBDA };

/* Which models have a tensor, see model_has. */
enum {
    ALWAYS,
    IF_LEARNED_POSITIONS,
    IF_SWIGLU,
    IF_UNTIED,
    /* From here on: vectors of ablations, see model_init. */
    IF_PERI,
    IF_QK_NORM,
    IF_SCALE_WEIGHTS,
    IF_DIFF,
    IF_BIAS,      /* of the norms and of the MLP */
    IF_GATE_BIAS, /* of the MLP's gate */
    IF_ATTN_BIAS,
    /* From here on: activations. */
    IF_SOFTCAP,
    IF_BF16,
    IF_BF16_AND_ROPE
};

/* Every parameter there is. A letter of a shape is a size, see tensor_size. Memory order, initial values, weight decay
   (of matrices, unless --decay=all), names in checkpoints, and the printed list of parameters come from this table.
   The names are those of Hugging Face's Llama; where it has no such weight, those of Qwen 3 (q_norm, k_norm), GLM-4 (the
   norms of outputs) and the authors' code of differential attention (lambda_q1 to subln). After the | stands the name in
   older checkpoints, which are read too. */
static const TensorRow weight_rows[] = {
    {"model.embed_tokens.weight|embed.weight", "VC", offsetof(Weights, embed), INIT_EMBEDDING, ALWAYS},
    {"model.embed_positions.weight|position.weight", "TC", offsetof(Weights, position), INIT_NORMAL,
     IF_LEARNED_POSITIONS},
    {"model.layers.%d.input_layernorm.weight|layers.%d.attn_norm.weight", "C",
     offsetof(LayerWeights, attn_norm), INIT_ONES, ALWAYS},
    {"model.layers.%d.input_layernorm.bias", "C", offsetof(LayerWeights, attn_norm_bias), INIT_ZEROS,
     IF_BIAS},
    {"model.layers.%d.self_attn.q_proj.weight|layers.%d.attn.q.weight", "AC", offsetof(LayerWeights, q),
     INIT_NORMAL, ALWAYS},
    {"model.layers.%d.self_attn.k_proj.weight|layers.%d.attn.k.weight", "AC", offsetof(LayerWeights, k),
     INIT_NORMAL, ALWAYS},
    {"model.layers.%d.self_attn.v_proj.weight|layers.%d.attn.v.weight", "AC", offsetof(LayerWeights, v),
     INIT_NORMAL, ALWAYS},
    {"model.layers.%d.self_attn.q_proj.bias", "A", offsetof(LayerWeights, q_bias), INIT_ZEROS, IF_ATTN_BIAS},
    {"model.layers.%d.self_attn.k_proj.bias", "A", offsetof(LayerWeights, k_bias), INIT_ZEROS, IF_ATTN_BIAS},
    {"model.layers.%d.self_attn.v_proj.bias", "A", offsetof(LayerWeights, v_bias), INIT_ZEROS, IF_ATTN_BIAS},
    {"model.layers.%d.self_attn.o_proj.weight|layers.%d.attn.o.weight", "CA", offsetof(LayerWeights, o),
     INIT_RESIDUAL, ALWAYS},
    {"model.layers.%d.self_attn.o_proj.bias", "C", offsetof(LayerWeights, o_bias), INIT_ZEROS, IF_ATTN_BIAS},
    {"model.layers.%d.self_attn.q_norm.weight|layers.%d.attn.q_norm.weight", "D",
     offsetof(LayerWeights, q_norm), INIT_ONES, IF_QK_NORM},
    {"model.layers.%d.self_attn.k_norm.weight|layers.%d.attn.k_norm.weight", "D",
     offsetof(LayerWeights, k_norm), INIT_ONES, IF_QK_NORM},
    {"model.layers.%d.self_attn.scale.weight|layers.%d.attn.scale.weight", "S", offsetof(LayerWeights, scale),
     INIT_ZEROS, IF_SCALE_WEIGHTS},
    {"model.layers.%d.self_attn.lambda_q1", "D", offsetof(LayerWeights, own[0]), INIT_LAMBDA, IF_DIFF},
    {"model.layers.%d.self_attn.lambda_k1", "D", offsetof(LayerWeights, own[1]), INIT_LAMBDA, IF_DIFF},
    {"model.layers.%d.self_attn.lambda_q2", "D", offsetof(LayerWeights, own[2]), INIT_LAMBDA, IF_DIFF},
    {"model.layers.%d.self_attn.lambda_k2", "D", offsetof(LayerWeights, own[3]), INIT_LAMBDA, IF_DIFF},
    {"model.layers.%d.self_attn.subln.weight", "2D", offsetof(LayerWeights, own[4]), INIT_ONES, IF_DIFF},
    {"model.layers.%d.post_attention_layernorm.weight|layers.%d.mlp_norm.weight", "C",
     offsetof(LayerWeights, mlp_norm), INIT_ONES, ALWAYS},
    {"model.layers.%d.post_attention_layernorm.bias", "C", offsetof(LayerWeights, mlp_norm_bias), INIT_ZEROS,
     IF_BIAS},
    {"model.layers.%d.mlp.gate_proj.weight|layers.%d.mlp.gate.weight", "FC", offsetof(LayerWeights, gate),
     INIT_NORMAL, IF_SWIGLU},
    {"model.layers.%d.mlp.up_proj.weight|layers.%d.mlp.up.weight", "FC", offsetof(LayerWeights, up),
     INIT_NORMAL, ALWAYS},
    {"model.layers.%d.mlp.gate_proj.bias", "F", offsetof(LayerWeights, gate_bias), INIT_ZEROS, IF_GATE_BIAS},
    {"model.layers.%d.mlp.up_proj.bias", "F", offsetof(LayerWeights, up_bias), INIT_ZEROS, IF_BIAS},
    {"model.layers.%d.mlp.down_proj.weight|layers.%d.mlp.down.weight", "CF", offsetof(LayerWeights, down),
     INIT_RESIDUAL, ALWAYS},
    {"model.layers.%d.mlp.down_proj.bias", "C", offsetof(LayerWeights, down_bias), INIT_ZEROS, IF_BIAS},
    {"model.layers.%d.post_self_attn_layernorm.weight|layers.%d.attn_out_norm.weight", "C",
     offsetof(LayerWeights, attn_out_norm), INIT_ONES, IF_PERI},
    {"model.layers.%d.post_mlp_layernorm.weight|layers.%d.mlp_out_norm.weight", "C",
     offsetof(LayerWeights, mlp_out_norm), INIT_ONES, IF_PERI},
    {"model.norm.weight|final_norm.weight", "C", offsetof(Weights, final_norm), INIT_ONES, ALWAYS},
    {"model.norm.bias", "C", offsetof(Weights, final_norm_bias), INIT_ZEROS, IF_BIAS},
    {"lm_head.weight|output.weight", "VC", offsetof(Weights, output), INIT_NORMAL, IF_UNTIED},
};

/* How an activation is stored: as floats, or as an Array of the model's dtype. Each layer has its own copy, except with
   --recompute: `attention` computes those of attention again in backward, and `block` those of the MLP too, so that all
   layers use one memory for them. */
enum { FLOATS = 0, ARRAY = 1, RECOMPUTED_WITH_ATTENTION = 2, RECOMPUTED_WITH_BLOCK = 4 };

static const TensorRow activation_rows[] = {
    {"layers.%d.input", "NC", offsetof(LayerActivations, input), FLOATS, ALWAYS},
    {"layers.%d.attn_rstd", "N", offsetof(LayerActivations, attn_rstd), FLOATS | RECOMPUTED_WITH_ATTENTION,
     ALWAYS},
    {"layers.%d.qkv", "N3A", offsetof(LayerActivations, qkv), FLOATS | RECOMPUTED_WITH_ATTENTION, ALWAYS},
    {"layers.%d.attn_lse", "NH", offsetof(LayerActivations, attn_lse), FLOATS | RECOMPUTED_WITH_ATTENTION,
     ALWAYS},
    {"layers.%d.attn_out", "NA", offsetof(LayerActivations, attn_out), FLOATS | RECOMPUTED_WITH_ATTENTION,
     ALWAYS},
    {"layers.%d.attn_saved", "2NA", offsetof(LayerActivations, attn_saved),
     FLOATS | RECOMPUTED_WITH_ATTENTION, IF_DIFF},
    {"layers.%d.mlp_input", "NC", offsetof(LayerActivations, mlp_input), FLOATS | RECOMPUTED_WITH_BLOCK,
     ALWAYS},
    {"layers.%d.mlp_rstd", "N", offsetof(LayerActivations, mlp_rstd), FLOATS | RECOMPUTED_WITH_BLOCK, ALWAYS},
    {"layers.%d.up", "NU", offsetof(LayerActivations, up), ARRAY | RECOMPUTED_WITH_BLOCK, ALWAYS},
    {"layers.%d.attn_branch", "NC", offsetof(LayerActivations, attn_branch), FLOATS, IF_PERI},
    {"layers.%d.attn_branch_rstd", "N", offsetof(LayerActivations, attn_branch_rstd), FLOATS, IF_PERI},
    {"layers.%d.mlp_branch", "NC", offsetof(LayerActivations, mlp_branch), FLOATS, IF_PERI},
    {"layers.%d.mlp_branch_rstd", "N", offsetof(LayerActivations, mlp_branch_rstd), FLOATS, IF_PERI},
    {"output", "NC", offsetof(Activations, output), FLOATS, ALWAYS},
    {"final_rstd", "N", offsetof(Activations, final_rstd), FLOATS, ALWAYS},
    {"losses", "N", offsetof(Activations, losses), FLOATS, ALWAYS},
    {"norm", "NC", offsetof(Activations, norm), ARRAY, ALWAYS},
    {"hidden", "NF", offsetof(Activations, hidden), ARRAY, ALWAYS},
    {"logits", "RV", offsetof(Activations, logits), FLOATS, ALWAYS},
    {"cap_slopes", "RV", offsetof(Activations, cap_slopes), FLOATS, IF_SOFTCAP},
    {"d_logits", "RV", offsetof(Activations, d_logits), ARRAY, IF_BF16},
    {"d_residual", "NC", offsetof(Activations, d_residual), FLOATS, ALWAYS},
    {"d_branch", "NC", offsetof(Activations, d_branch), FLOATS, IF_PERI},
    {"d_norm", "NC", offsetof(Activations, d_norm), FLOATS, ALWAYS},
    {"attn_in", "N3A", offsetof(Activations, attn_in), FLOATS, IF_QK_NORM},
    {"d_attn_in", "N3A", offsetof(Activations, d_attn_in), FLOATS, ALWAYS},
    {"d_qkv", "N3A", offsetof(Activations, d_qkv), ARRAY, IF_BF16_AND_ROPE},
    {"d_attn_out", "NA", offsetof(Activations, d_attn_out), FLOATS, ALWAYS},
    {"d_up", "NU", offsetof(Activations, d_up), ARRAY, ALWAYS},
    {"norm_partial", "PC", offsetof(Activations, norm_partial), FLOATS, ALWAYS},
};
enum {
    WEIGHT_ROWS = sizeof weight_rows / sizeof *weight_rows,
    ACTIVATION_ROWS = sizeof activation_rows / sizeof *activation_rows
};

/* A matrix of weights as products read it, and the part of --profile to which its time belongs. With bf16, products
   read a copy that is rounded to bfloat16 and rearranged for the processor: it is packed (gpt/math/matmul.h). */
typedef struct {
    Linear matrix;
    ProfilePart part;
    float *bias, *dbias; /* (OC) each, with --bias, else NULL */
} ModelLinear;

typedef struct {
    ModelLinear qkv;  /* (3A, C) the matrices q, k and v in one */
    ModelLinear o;    /* (C, A) */
    ModelLinear up;   /* (U, C) gate and up in one */
    ModelLinear down; /* (C, F) */
} LayerLinears;

typedef struct {
    ModelConfig config;
    int batch; /* B: the most sequences that the activations have room for */
    size_t
        device_moments; /* floats of each of the optimizer's two moments that the GPU keeps; 0: the host keeps them */
    TensorTable parameters;       /* what weights, gradients and moments consist of, in memory order */
    TensorTable activation_table; /* what the activations consist of */
    Weights weights, gradients;
    LayerLinears *linears; /* (L) */
    ModelLinear output;    /* (V, C) the output matrix */
    Activations activations;
    float *rope_cos_sin;    /* (T, D/2, 2) with --pos=rope */
    float *fixed_positions; /* (T, C) with --pos=sinusoidal */
    Analysis *analysis;     /* what backward measures of attention, for model_analyze; NULL: nothing */
    /* (B) the keys and values of the tokens before those of model_forward, for each of its sequences; NULL: there are
       none. */
    AttentionCache **caches;
} Model;

/* The gradient of a vector of weights is summed over chunks of this many tokens, then over the chunks. The size is
   fixed, so that the result does not depend on the number of threads. */
enum { NORM_CHUNK = 32 };

/* U: how many outputs the first matrix of the MLP has; swiglu needs a gate beside each of its F hidden units. */
static int up_size(int F, int activation) { return F * (activation == ACTIVATION_SWIGLU ? 2 : 1); }

/* The rows of logits that exist at a time, about 128 MiB. Each slice of them adds to the gradient of the whole output
   matrix, so a few large slices cost less memory traffic than many small ones. */
static int64_t loss_slice_rows(const ModelConfig *config, int64_t N) {
    int64_t rows = (int64_t)(1 << 25) / config->vocab_size / 64 * 64;
    rows = rows < 64 ? 64 : rows;
    return rows < N ? rows : N;
}

/* Whether a model has the tensors with this condition. */
static bool model_has(const ModelConfig *c, int when) {
    switch (when) {
    case ALWAYS: return true;
    case IF_LEARNED_POSITIONS: return c->position == POSITION_LEARNED;
    case IF_SWIGLU: return c->activation == ACTIVATION_SWIGLU;
    case IF_UNTIED: return c->tie == TIE_NO;
    case IF_PERI: return c->norm_place == NORM_PLACE_PERI;
    case IF_QK_NORM: return c->qk_norm;
    case IF_SCALE_WEIGHTS: return c->attn_scale != ATTN_SCALE_FIXED;
    case IF_DIFF: return attention_is_diff((AttentionKind)c->attn);
    case IF_BIAS: return c->bias != BIAS_NONE;
    case IF_GATE_BIAS: return c->bias != BIAS_NONE && c->activation == ACTIVATION_SWIGLU;
    case IF_ATTN_BIAS: return c->bias == BIAS_ALL;
    case IF_SOFTCAP: return c->logit_softcap != 0;
    case IF_BF16: return c->dtype == DTYPE_BF16;
    case IF_BF16_AND_ROPE: return c->dtype == DTYPE_BF16 && c->position == POSITION_ROPE;
    }
    die("no condition has the number %d", when);
}

/* The flags (TENSOR_..., tensor_table.h) of a row of either table: whether this model has its tensor, and how it is
   stored. The context is the Model, here and in tensor_size. */
static int weight_flags(const void *context, const TensorRow *row) {
    return model_has(&((const Model *)context)->config, row->when) ? TENSOR_FLOATS : TENSOR_ABSENT;
}

static int activation_flags(const void *context, const TensorRow *row) {
    const ModelConfig *c = &((const Model *)context)->config;
    const int recompute = c->forward_only ? RECOMPUTE_BLOCK : c->recompute;
    if (!model_has(c, row->when)) return TENSOR_ABSENT;
    int flags = row->kind & ARRAY ? TENSOR_ARRAY : TENSOR_FLOATS;
    if (row->kind & ARRAY && c->dtype == DTYPE_BF16) flags |= TENSOR_BF16;
    if ((row->kind & RECOMPUTED_WITH_ATTENTION && recompute != RECOMPUTE_NONE) ||
        (row->kind & RECOMPUTED_WITH_BLOCK && recompute == RECOMPUTE_BLOCK))
        flags |= TENSOR_SHARED;
    return flags;
}

/* The size that a letter of either table stands for. */
static int64_t tensor_size(const void *context, char letter) {
    const Model *model = context;
    const ModelConfig *c = &model->config;
    const int64_t N = (int64_t)model->batch * c->seq_len;
    switch (letter) {
    case 'V': return c->vocab_size;
    case 'C': return c->embd;
    case 'A': return (int64_t)c->heads * c->head_dim;
    case 'F': return c->mlp_hidden;
    case 'U': return up_size(c->mlp_hidden, c->activation);
    case 'T': return c->seq_len;
    case 'H': return c->heads;
    case 'D': return c->head_dim;
    case 'S': return c->attn_scale == ATTN_SCALE_HEAD ? c->heads : c->head_dim;
    case 'N': return N;
    case 'R': return loss_slice_rows(c, N);
    case 'P': return (N + NORM_CHUNK - 1) / NORM_CHUNK;
    }
    die("no size is called '%c'", letter);
}

static Weights weights_create(const Model *model) {
    Weights w = {.layers = check_calloc((size_t)model->config.layers * sizeof *w.layers)};
    w.count = model->parameters.floats;
    w.memory = memory_allocate(w.count * sizeof(float));
    tensors_point(&model->parameters, w.memory, &w, w.layers, sizeof *w.layers);
    if (!w.output) w.output = w.embed;
    return w;
}

static Activations activations_create(const Model *model) {
    Activations a = {.layers = check_calloc((size_t)model->config.layers * sizeof *a.layers)};
    a.memory = memory_allocate(model->activation_table.floats * sizeof(float));
    tensors_point(&model->activation_table, a.memory, &a, a.layers, sizeof *a.layers);
    if (!a.d_logits.data) a.d_logits = array_of_floats(a.logits);
    if (!a.d_qkv.data) a.d_qkv = array_of_floats(a.d_attn_in);
    return a;
}

static ModelLinear model_linear(int64_t inputs, int64_t outputs, int dtype, ProfilePart part) {
    return (ModelLinear){{.C = inputs, .OC = outputs, .dtype = (Dtype)dtype}, part, NULL, NULL};
}

/* Plans a model for B sequences: fills in its sizes and tables. model_allocate allocates weights and activations. */
Model model_plan(const ModelConfig *config, int B) {
    const ModelConfig *c = config;
    const int C = c->embd, A = c->heads * c->head_dim, F = c->mlp_hidden;
    const int U = up_size(F, c->activation);
    Model model = {.config = *config, .batch = B};
    model.parameters = tensors_plan(weight_rows, WEIGHT_ROWS, c->layers, tensor_size, weight_flags, &model);
    model.activation_table =
        tensors_plan(activation_rows, ACTIVATION_ROWS, c->layers, tensor_size, activation_flags, &model);
    model.linears = check_calloc((size_t)c->layers * sizeof *model.linears);
    for (int l = 0; l < c->layers; l++)
        model.linears[l] = (LayerLinears){.qkv = model_linear(C, 3 * A, c->dtype, PROFILE_QKV),
                                          .o = model_linear(A, C, c->dtype, PROFILE_PROJECTION),
                                          .up = model_linear(C, U, c->dtype, PROFILE_MLP_UP),
                                          .down = model_linear(F, C, c->dtype, PROFILE_MLP_DOWN)};
    model.output = model_linear(C, c->vocab_size, c->dtype, PROFILE_LOGITS);
    return model;
}

/* model_linear_at(model, i) is the i-th matrix of weights: four for each layer, then the output matrix. */
static int model_linear_count(const Model *model) { return 4 * model->config.layers + 1; }
static Linear *model_linear_at(const Model *model, int i) {
    if (i == 4 * model->config.layers) return (Linear *)&model->output.matrix;
    LayerLinears *w = &model->linears[i / 4];
    ModelLinear *const of_layer[] = {&w->qkv, &w->o, &w->up, &w->down};
    return &of_layer[i % 4]->matrix;
}

static void linear_point(ModelLinear *w, float *values, float *bias, float *dbias) {
    w->matrix.values = values;
    w->bias = bias, w->dbias = dbias;
}

static void linears_point(Model *model) {
    for (int l = 0; l < model->config.layers; l++) {
        static const LayerWeights none = {0}; /* a model that is only run forward has no gradients */
        const LayerWeights *w = &model->weights.layers[l];
        const LayerWeights *g = model->gradients.layers ? &model->gradients.layers[l] : &none;
        LayerLinears *linears = &model->linears[l];
        linear_point(&linears->qkv, w->q, w->q_bias, g->q_bias);
        linear_point(&linears->o, w->o, w->o_bias, g->o_bias);
        linear_point(&linears->up, w->gate ? w->gate : w->up, w->gate ? w->gate_bias : w->up_bias,
                     w->gate ? g->gate_bias : g->up_bias);
        linear_point(&linears->down, w->down, w->down_bias, g->down_bias);
    }
    model->output.matrix.values = model->weights.output;
}

/* Packs the weights again for products in bfloat16. To be called after every change of the weights. A model that is
   only run forward has them packed in float32 too: the products of one token are twice as fast with packed weights. */
void model_repack(Model *model) {
    const bool forward_only = model->config.forward_only;
    if (device_on() || (model->config.dtype != DTYPE_BF16 && !forward_only)) return;
    profile(PROFILE_PACK);
    for (int i = 0; i < model_linear_count(model); i++)
        (forward_only ? linear_pack_forward : linear_pack)(model_linear_at(model, i));
    profile(PROFILE_OTHER);
}

/* The angles of rope, or the fixed sinusoidal positions (Vaswani et al. 2017); computed in double and rounded once. */
static void positions_create(Model *model) {
    const int T = model->config.seq_len, C = model->config.embd, D = model->config.head_dim;
    if (model->config.position == POSITION_ROPE) {
        model->rope_cos_sin = check_calloc((size_t)T * (size_t)D * sizeof(float));
        for (int t = 0; t < T; t++)
            for (int d = 0; d < D / 2; d++) {
                double angle = t * pow(model->config.rope_theta, -2.0 * d / D);
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

/* Describes the model for device_open(): its sizes, and where each tensor begins in the weights. The caller frees
   `at`. */
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
                         .attn = (AttentionKind)c->attn,
                         .sequence_shift = c->laser_shift == LASER_SHIFT_SEQUENCE,
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

/* Gives the model its memory; all weights are zero. With a GPU, the activations are allocated in its memory. */
void model_allocate(Model *model) {
    model->weights = weights_create(model);
    if (!model->config.forward_only) model->gradients = weights_create(model);
    positions_create(model);
    if (!device_on()) {
        model->activations = activations_create(model);
        linears_point(model);
        return;
    }
    DeviceModel description = device_model(model);
    device_open(&description);
    free((void *)description.at);
    model->activations.logits =
        check_calloc((size_t)model->config.vocab_size * sizeof(float)); /* of one token, for sampling */
}

void model_free(Model *model) {
    device_close();
    if (device_on()) free(model->activations.logits);
    for (int i = 0; i < model_linear_count(model); i++) linear_free(model_linear_at(model, i));
    void *pieces[] = {model->weights.memory,   model->weights.layers,     model->gradients.memory,
                      model->gradients.layers, model->activations.memory, model->activations.layers,
                      model->rope_cos_sin,     model->fixed_positions,    model->linears};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) free(pieces[i]);
    tensors_free(&model->parameters), tensors_free(&model->activation_table);
}

/* Element j of a tensor's initial values, from random numbers of this stream. */
static float initial_value(const ModelConfig *c, const Tensor *t, uint64_t seed, uint64_t stream,
                           uint64_t j) {
    if (t->row->kind == INIT_ZEROS) return 0;
    if (t->row->kind == INIT_ONES) return 1;
    if (t->row->kind == INIT_LAMBDA) return 0.1f * rng_normal(seed, stream, j);
    if (c->init_weights == INIT_WEIGHTS_XAVIER && t->per_layer)
        return sqrtf(6.0f / (float)(t->shape[0] + t->shape[1])) * (2 * rng_uniform(seed, stream, j) - 1);
    float deviation = 0.02f;
    if (t->row->kind == INIT_RESIDUAL) deviation /= sqrtf(2.0f * (float)c->layers);
    if (t->row->kind == INIT_EMBEDDING && c->embed_scale) deviation = 1 / sqrtf((float)c->embd);
    return deviation * rng_normal(seed, stream, j);
}

/* Initial weights. Matrices are normal random numbers with mean 0 and standard deviation 0.02; those whose outputs are
   added to the residual stream (o and down) have 0.02 / sqrt(2L), and with --embed-scale the embedding has 1 / sqrt(C).
   The weights of norms are 1, those of --attn-scale and biases 0, and the vectors of --attn=diff have 0.1.
   With --init-weights=xavier the matrices of the layers are uniform between -b and b, b = sqrt(6 / (rows + columns)),
   by which a signal keeps its variance forward and backward (Glorot & Bengio 2010). Each tensor has its own stream of
   random numbers. Vectors that only ablations have take none of these, so that the same seed gives all other weights the
   same values with and without an ablation. */
void model_init(Model *model, uint64_t seed) {
    uint64_t stream = RNG_STREAM_INIT, of_ablations = RNG_STREAM_INIT_VECTORS;
    for (int i = 0; i < model->parameters.count; i++) {
        const Tensor *t = &model->parameters.tensors[i];
        float *x = model->weights.memory + t->offset;
        uint64_t *from = t->row->when < IF_PERI ? &stream : &of_ablations;
#pragma omp parallel for schedule(static)
        for (size_t j = 0; j < t->count; j++) x[j] = initial_value(&model->config, t, seed, *from, j);
        *from += t->row->when < IF_PERI || t->row->kind > INIT_ONES;
    }
    model_repack(model);
}

/* ======================================================================================== 2. operations ==== */

/* The loops over N rows that generating a text needs have the clause `if (N > 1)`: to wake threads for a single row
   would cost more time than the row. */

/* Most operations begin with this: the time from here on belongs to `part` of --profile. With --comm-thread=no it also
   calls MPI, which transfers messages between ranks (the processes that mpirun has started) only during its calls. */
static inline void begin_part(ProfilePart part) {
    profile(part);
    exchange_progress();
}

/* out (N, C) = scale * embed[token] (V, C), plus position (T, C) where the model has one */
void embedding_forward(float *out, const int32_t *tokens, const float *embed, float scale,
                       const float *position, int64_t N, int T, int C) {
    begin_part(PROFILE_EMBEDDING);
#pragma omp parallel for schedule(static) if (N > 1)
    for (int64_t n = 0; n < N; n++) {
        const float *row = embed + (int64_t)tokens[n] * C, *place = position ? position + n % T * C : NULL;
        for (int c = 0; c < C; c++) out[n * C + c] = place ? row[c] * scale + place[c] : row[c] * scale;
    }
}

/* dembed (V, C) += scale * dout (N, C) at each token; dposition (T, C) likewise, when not NULL. Several tokens may add
   to the same row of dembed. So the rows are divided into parts; one thread takes a part, goes through all tokens, and
   adds those whose row is in it, in order. 32 parts are enough, because fewer threads already use all of the memory's
   bandwidth. */
void embedding_backward(float *dembed, float *dposition, const float *dout, const int32_t *tokens,
                        float scale, int64_t N, int T, int C) {
    enum { PARTS = 32 };
    begin_part(PROFILE_EMBEDDING);
#pragma omp parallel for schedule(dynamic)
    for (int part = 0; part < PARTS; part++)
        for (int64_t n = 0; n < N; n++) {
            if (tokens[n] % PARTS != part) continue;
            float *row = dembed + (int64_t)tokens[n] * C;
            for (int c = 0; c < C; c++) row[c] += dout[n * C + c] * scale;
        }
    if (!dposition) return;
#pragma omp parallel for schedule(static)
    for (int t = 0; t < T; t++)
        for (int64_t n = t; n < N; n += T)
            for (int c = 0; c < C; c++) dposition[(int64_t)t * C + c] += dout[n * C + c];
}

/* The number of elements that an operation reads from an Array at a time; they fit the first-level cache. */
enum { CHUNK = 128 };

/* out (N, C) += bias (C) */
void bias_forward(Array out, const float *bias, int64_t N, int C) {
#pragma omp parallel for schedule(static) if (N > 1)
    for (int64_t n = 0; n < N; n++)
        for (int begin = 0; begin < C; begin += CHUNK) {
            const int count = C - begin < CHUNK ? C - begin : CHUNK;
            float x[CHUNK];
            array_read(x, out, n * C + begin, count);
            for (int i = 0; i < count; i++) x[i] += bias[begin + i];
            array_write(out, n * C + begin, x, count);
        }
}

/* dbias (C) += the sum of dout (N, C) over the tokens, in their order */
void bias_backward(float *dbias, Array dout, int64_t N, int C) {
#pragma omp parallel for schedule(static)
    for (int begin = 0; begin < C; begin += CHUNK) {
        const int count = C - begin < CHUNK ? C - begin : CHUNK;
        float x[CHUNK];
        double sum[CHUNK] = {0};
        for (int64_t n = 0; n < N; n++) {
            array_read(x, dout, n * C + begin, count);
            for (int i = 0; i < count; i++) sum[i] += x[i];
        }
        for (int i = 0; i < count; i++) dbias[begin + i] += (float)sum[i];
    }
}

/* A row x (C) of --norm: out = (x - mean) * rstd * weight with rstd = 1/sqrt(squares / size + eps), eps: --norm-eps.

       rmsnorm    mean 0, squares = sum(x^2), size C    (Zhang & Sennrich 2019)
       layernorm  mean = sum(x) / C, squares = sum((x - mean)^2), size C    (Ba et al. 2016)
       crmsnorm   RMSNorm of x and one more element -sum(x), which makes their mean 0 and is not part of out: mean 0,
                  squares = sum(x^2) + sum(x)^2, size C + 1    (Jiang et al. 2023)

   centre: the derivative of squares / 2 with respect to x_c is x_c - centre. */
typedef struct {
    float mean, centre, size;
} NormRow;

/* Never inlined: then forward and backward add in the same order and get the same bits. */
__attribute__((noinline)) static NormRow norm_row(const float *row, int C, int kind) {
    float sum = 0;
    if (kind == NORM_RMSNORM) return (NormRow){0, 0, (float)C};
#pragma omp simd reduction(+ : sum)
    for (int c = 0; c < C; c++) sum += row[c];
    if (kind == NORM_CRMSNORM) return (NormRow){0, -sum, (float)C + 1};
    return (NormRow){sum / (float)C, sum / (float)C, (float)C};
}

static inline void norm_write(Array out, const float *row, float mean, float r, const float *weight,
                              const float *bias, int C) {
    if (bias)
        for (int c = 0; c < C; c++) array_put(out, c, (row[c] - mean) * r * weight[c] + bias[c]);
    else
        for (int c = 0; c < C; c++) array_put(out, c, (row[c] - mean) * r * weight[c]);
}

/* out (N, C) = (x - mean) * rstd * weight, plus bias (C) unless it is NULL, and rstd (N), see NormRow; kind: the choice
   of --norm */
void norm_forward(Array out, float *rstd, const float *x, const float *weight, const float *bias, int kind,
                  float eps, int64_t N, int C) {
    begin_part(PROFILE_NORM);
#pragma omp parallel for schedule(static) if (N > 1)
    for (int64_t n = 0; n < N; n++) {
        const float *row = x + n * C;
        const NormRow norm = norm_row(row, C, kind);
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int c = 0; c < C; c++) squares += (row[c] - norm.mean) * (row[c] - norm.mean);
        if (kind == NORM_CRMSNORM) squares += norm.centre * norm.centre;
        rstd[n] = 1.0f / sqrtf(squares / norm.size + eps);
        norm_write(array_from(out, n * C), row, norm.mean, rstd[n], weight, bias, C);
    }
}

/* The same out, computed again by backward from the rstd that forward kept: this costs less than to store the array
   out. */
void norm_recompute(Array out, const float *rstd, const float *x, const float *weight, const float *bias,
                    int kind, int64_t N, int C) {
    begin_part(PROFILE_NORM);
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < N; n++) {
        const float *row = x + n * C;
        norm_write(array_from(out, n * C), row, norm_row(row, C, kind).mean, rstd[n], weight, bias, C);
    }
}

/* Adds to dx (N, C), to dweight (C), and unless it is NULL to dbias (C); partial (ceil(N / NORM_CHUNK), C) is scratch.
   forward: out = (x - mean) * r * w.  With g = dout * w:
   dx = r * (g - (x - centre) * r^2 * sum(g * (x - mean)) / size), minus r * mean(g) with layernorm
   dw = sum_n dout * (x - mean) * r */
void norm_backward(float *dx, float *dweight, float *dbias, float *partial, float *dout, const float *x,
                   const float *rstd, const float *weight, int kind, int64_t N, int C) {
    const int64_t chunks = (N + NORM_CHUNK - 1) / NORM_CHUNK;
    begin_part(PROFILE_NORM);
#pragma omp parallel for schedule(static)
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        float *dw = partial + chunk * C;
        memset(dw, 0, (size_t)C * sizeof *dw);
        const int64_t end = (chunk + 1) * NORM_CHUNK < N ? (chunk + 1) * NORM_CHUNK : N;
        for (int64_t n = chunk * NORM_CHUNK; n < end; n++) {
            const float *row = x + n * C, *drow = dout + n * C, r = rstd[n];
            const NormRow norm = norm_row(row, C, kind);
            float sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
            for (int c = 0; c < C; c++) {
                const float g = drow[c] * weight[c];
                sum += g, dot += g * (row[c] - norm.mean);
            }
            const float shift = kind == NORM_LAYERNORM ? sum * r / (float)C : 0;
            const float pull = dot * r * r * r / norm.size;
            for (int c = 0; c < C; c++) {
                dx[n * C + c] += drow[c] * weight[c] * r - ((row[c] - norm.centre) * pull + shift);
                dw[c] += drow[c] * (row[c] - norm.mean) * r;
            }
        }
    }
    if (dbias) bias_backward(dbias, array_of_floats(dout), N, C);
        /* dweight += the sums of the chunks, in order */
#pragma omp parallel for schedule(static)
    for (int c = 0; c < C; c++)
        for (int64_t chunk = 0; chunk < chunks; chunk++) dweight[c] += partial[chunk * C + c];
}

/* Rotary positions (Su et al. 2021) on the q and k thirds of qkv (N, 3A): the pair (d, d + D/2) of each head is
   rotated by the angle t * theta^(-2d/D), whose cosine and sine are in cos_sin (T, D/2, 2). out (N, 3A) = qkv with q
   and k rotated; it may be qkv itself. direction is 1 in forward. With -1 the rotation is
   reversed: the inverse of a rotation is its transpose, by which backward multiplies gradients. */
void rope_rotate(Array out, const float *qkv, const float *cos_sin, float direction, int64_t N, int T, int H,
                 int D) {
    const int half = D / 2;
    begin_part(PROFILE_ROPE);
#pragma omp parallel for schedule(static) if (N > 1)
    for (int64_t n = 0; n < N; n++) {
        const float *angle = cos_sin + n % T * D;
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

/* s (n) = the sigmoids that the activation `kind` needs of x (n). These loops compute sigmoids only: exp_fast has a
   branch for large |x|, and a compiler would copy everything that follows in the loop, once for each branch. */
static inline void activation_sigmoids(float *restrict s, const float *restrict x, int n, int kind) {
    if (kind == ACTIVATION_GELU)
        for (int i = 0; i < n; i++) s[i] = gelu_sigmoid(x[i]);
    if (kind == ACTIVATION_SWIGLU)
        for (int i = 0; i < n; i++) s[i] = sigmoid(x[i]);
}

/* hidden (N, F) = act(up (N, F)); relu2 is relu squared (So et al. 2021); with swiglu up is (N, 2F): silu(gate) * up,
   gate first (Shazeer 2020) */
void activation_forward(Array hidden, Array up, int64_t N, int F, int kind) {
    const int U = up_size(F, kind);
    begin_part(PROFILE_ACTIVATION);
#pragma omp parallel for schedule(static) if (N > 1)
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
            else if (kind == ACTIVATION_RELU2)
                for (int i = 0; i < count; i++) h[i] = x[i] > 0 ? x[i] * x[i] : 0;
            else
                for (int i = 0; i < count; i++) h[i] = x[i] * s[i] * y[i];
            array_write(hidden, n * F + begin, h, count);
        }
}

/* The arguments of activation_backward. */
typedef struct {
    Array d_up, hidden, up; /* (N, U), (N, F), (N, U) */
    int F, kind;
} ActivationBackward;

/* Computes d_up (N, U), the gradient of up, from d_hidden (N, F) and up. It also computes hidden (N, F) a second time,
   which is cheaper than keeping it since forward. This function is a MatmulFinish (matmul.h): the product that computes
   d_hidden calls it for each finished tile of d_hidden, so that d_hidden is never stored. */
void activation_backward(void *context, const MatmulTile *tile) {
    const ActivationBackward *a = context;
    const int F = a->F, kind = a->kind, U = up_size(F, kind);
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
    else if (kind == ACTIVATION_RELU2)
        for (int i = 0; i < count; i++) {
            h[i] = x[i] > 0 ? x[i] * x[i] : 0;
            dx[i] = x[i] > 0 ? 2.0f * x[i] * dh[i] : 0;
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

/* logits (N, V) = X tanh(logits / X); cap_slopes (N, V) = its derivatives 1 - tanh(logits / X)^2, unless NULL. The
   backward of this is a product with cap_slopes, which cross_entropy_forward_backward computes. */
void softcap_forward(float *logits, float *cap_slopes, float X, int64_t N, int V) {
    begin_part(PROFILE_CROSS_ENTROPY);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < N * V; i++) {
        const float t = tanhf(logits[i] / X);
        logits[i] = X * t;
        if (cap_slopes) cap_slopes[i] = 1.0f - t * t;
    }
}

/* losses (N) = -log softmax(logits)[target]. d_logits (N, V) = the gradient of scale * sum(losses + z_loss * z^2) with
   z = log(sum(exp(logits))), the log-sum-exp of a row:

       scale * ((1 + 2 z_loss z) softmax(logits)[v] - (v == target)) * cap_slopes[v]

   The factor cap_slopes (N, V) of softcap_forward makes it the gradient of the logits before the softcap; NULL: there
   was none. logits (N, V) are overwritten; d_logits may lie in the same memory. */
void cross_entropy_forward_backward(float *losses, Array d_logits, float *logits, const float *cap_slopes,
                                    const int32_t *targets, float scale, float z_loss, int64_t N, int V) {
    begin_part(PROFILE_CROSS_ENTROPY);
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < N; n++) {
        float *row = logits + n * V, largest = row_max(row, V), sum = 0;
        float target_logit = row[targets[n]];
#pragma omp simd reduction(+ : sum)
        for (int v = 0; v < V; v++) sum += row[v] = exp_fast(row[v] - largest);
        const float z = logf(sum) + largest;
        losses[n] = z - target_logit;
        const Array d = array_from(d_logits, n * V);
        const float factor = scale / sum * (1.0f + 2.0f * z_loss * z);
        float at_target = row[targets[n]] * factor - scale;
        if (cap_slopes) {
            const float *slope = cap_slopes + n * V;
            for (int v = 0; v < V; v++) row[v] *= slope[v];
            at_target *= slope[targets[n]];
        }
        for (int v = 0; v < V; v++) array_put(d, v, row[v] * factor);
        array_put(d, targets[n], at_target);
    }
}

/* Called at the start of every matrix product: from here on, time counts for w->part of --profile. C and OC must be the
   sizes of w. Callers pass them so that the shape can be read in the call; a wrong size ends the program. */
static void begin_linear(const ModelLinear *w, int C, int OC) {
    if (w->matrix.C != C || w->matrix.OC != OC) die("a linear layer has other sizes than its caller expects");
    begin_part(w->part);
}

/* out (N, OC) = x (N, C) . weight (OC, C)^T, plus addend (N, OC) unless it is NULL, plus the bias (OC) of w if it has
   one. */
static void linear(Array out, const float *addend, Array x, const ModelLinear *w, int64_t N, int C, int OC) {
    begin_linear(w, C, OC);
    linear_forward((MatmulOutput){.out = out, .addend = addend}, x, &w->matrix, N);
    if (w->bias) bias_forward(out, w->bias, N, OC);
}

/* forward: out = x . weight^T.  Computes dout (N, OC) . weight (OC, C), the gradient (N, C) of x. The argument dx says
   where it goes: into an array, or tile by tile to a function (MatmulOutput in matmul.h). Then adds dout^T . x to
   dweight (OC, C), and the gradient of the bias to that of w. */
static void linear_backward(MatmulOutput dx, float *dweight, Array dout, Array x, const ModelLinear *w,
                            int64_t N, int C, int OC) {
    begin_linear(w, C, OC);
    linear_backward_input(dx, dout, &w->matrix, N);
    linear_backward_weight(dweight, dout, x, &w->matrix, N);
    if (w->bias) bias_backward(w->dbias, dout, N, OC);
}
static MatmulOutput into(float *out) { return (MatmulOutput){.out = array_of_floats(out)}; }

/* ======================================================================== 3. forward, loss and backward ==== */

static AttentionShape attention_shape(const ModelConfig *c, int B, int T) {
    const ptrdiff_t A = (ptrdiff_t)c->heads * c->head_dim;
    return (AttentionShape){
        .B = B,
        .T = T,
        .H = c->heads,
        .D = c->head_dim,
        .qkv_row = 3 * A,
        .out_row = A,
        .dtype = (Dtype)c->dtype,
        .laser_shift = c->laser_shift,
        .softcap = (float)c->attn_softcap,
    };
}

/* The same for layer l, with what a kind with weights of its own needs of it. */
static AttentionShape layer_attention_shape(const Model *model, int l, int B, int T) {
    const LayerWeights *gradients = model->gradients.layers; /* NULL if the model is only run forward */
    AttentionShape shape = attention_shape(&model->config, B, T);
    shape.own = (AttentionOwn){.layer = l,
                               .weights = model->weights.layers[l].own[0],
                               .dweights = gradients ? gradients[l].own[0] : NULL,
                               .saved = model->activations.layers[l].attn_saved};
    return shape;
}

/* The factor of the tokens' embeddings. */
static float embedding_scale(const ModelConfig *c) { return c->embed_scale ? sqrtf((float)c->embd) : 1; }

/* The position of the first token of sequence b in model_forward: 0, unless a cache has tokens before it. */
static int first_position(const Model *model, int b) { return model->caches ? model->caches[b]->count : 0; }
/* How many sequences begin at the same position, as operations that know one position need it: all B, or with caches
   one. */
static int sequences_at_a_time(const Model *model, int B) { return model->caches ? 1 : B; }

/* What the options of docs/ablations.md change around attention. Those that begin with --laser- change nothing in
   standard attention. */
static AttentionAblations attention_ablations(const Model *model, int l) {
    const ModelConfig *c = &model->config;
    const bool laser = attention_is_laser((AttentionKind)c->attn);
    return (AttentionAblations){.scale = model->weights.layers[l].scale,
                                .scale_of_dimensions = c->attn_scale == ATTN_SCALE_DIM,
                                .grad_scale = (float)c->attn_grad_scale,
                                .beta = laser ? (float)c->laser_beta : 1,
                                .clamped = laser && c->laser_shift == LASER_SHIFT_CLAMP,
                                .unshifted = laser && c->laser_shift == LASER_SHIFT_NONE};
}

/* Turns the products q, k and v in the layer's qkv into what attention reads, and returns where that is: in the same
   array, or with --qk-norm, whose backward needs the products, in an array that all layers use in turn. Then backward
   calls this again, unless --recompute has just done so. */
static float *attention_inputs(Model *model, int l, const AttentionShape *shape) {
    const ModelConfig *c = &model->config;
    const LayerWeights *weights = &model->weights.layers[l];
    const AttentionAblations ablations = attention_ablations(model, l);
    float *qkv = model->activations.layers[l].qkv, *in = weights->q_norm ? model->activations.attn_in : qkv;

    if (weights->q_norm) {
        begin_part(PROFILE_NORM);
        qk_norm_forward(in, qkv, weights->q_norm, weights->k_norm, shape);
    }
    const int step = sequences_at_a_time(model, shape->B);
    for (int b = 0; model->rope_cos_sin && b < shape->B; b += step) {
        float *rows = in + b * shape->T * shape->qkv_row;
        rope_rotate(array_of_floats(rows), rows,
                    model->rope_cos_sin + (int64_t)first_position(model, b) * c->head_dim, 1,
                    (int64_t)step * shape->T, shape->T, c->heads, c->head_dim);
    }
    begin_part(PROFILE_ATTENTION);
    ablations_before(&ablations, in, shape);
    return in;
}

/* out (N, C) = residual (N, C) + x (N, IC) . w^T: the end of a block. With --norm-place=peri (Kim et al. 2025), where
   branch (N, C) is not NULL, out = residual + norm(branch) with branch = x . w^T. */
static void block_output(const Model *model, float *out, const float *residual, float *branch, float *rstd,
                         const float *weight, Array x, const ModelLinear *w, int64_t N, int IC) {
    const int C = model->config.embd;
    linear(array_of_floats(branch ? branch : out), branch ? NULL : residual, x, w, N, IC, C);
    if (!branch) return;
    norm_forward(array_of_floats(out), rstd, branch, weight, NULL, model->config.norm,
                 (float)model->config.norm_eps, N, C);
#pragma omp parallel for schedule(static) if (N > 1)
    for (int64_t i = 0; i < N * C; i++) out[i] += residual[i];
}

/* Returns the gradient of x . w^T, from d_residual, the gradient of block_output's out, which is left as it is: it is
   also the gradient of residual. Adds to dweight. */
static Array block_output_backward(Model *model, const float *branch, const float *rstd, const float *weight,
                                   float *dweight, int64_t N) {
    Activations *acts = &model->activations;
    const int C = model->config.embd;
    if (!branch) return array_of_floats(acts->d_residual);
    memset(acts->d_branch, 0, (size_t)(N * C) * sizeof *acts->d_branch);
    norm_backward(acts->d_branch, dweight, NULL, acts->norm_partial, acts->d_residual, branch, rstd, weight,
                  model->config.norm, N, C);
    return array_of_floats(acts->d_branch);
}

/* A layer is two blocks, attention and MLP. Each computes what backward needs of it and, unless out is NULL, its
   output out (N, C). Backward calls them again for what --recompute did not keep, and gets the same bits. */

/* out = input + attention(norm(input)) . o^T */
static void attention_block(Model *model, int l, int B, int T, float *out) {
    const ModelConfig *c = &model->config;
    const LayerWeights *weights = &model->weights.layers[l];
    const LayerLinears *w = &model->linears[l];
    const LayerActivations *a = &model->activations.layers[l];
    const Array norm = model->activations.norm;
    const AttentionShape shape = layer_attention_shape(model, l, B, T);
    const AttentionAblations ablations = attention_ablations(model, l);
    const int C = c->embd, A = c->heads * c->head_dim;
    const int64_t N = (int64_t)B * T;

    norm_forward(norm, a->attn_rstd, a->input, weights->attn_norm, weights->attn_norm_bias, c->norm,
                 (float)c->norm_eps, N, C);
    linear(array_of_floats(a->qkv), NULL, norm, &w->qkv, N, C, 3 * A);
    float *in = attention_inputs(model, l, &shape);
    if (model->caches)
        attention_cache_forward(model->caches, l, a->attn_out, a->attn_lse, in, &shape);
    else
        attention_forward(c->attn, a->attn_out, a->attn_lse, in, in + A, in + 2 * A, &shape);
    ablations_after(&ablations, l, a->attn_out, in, &shape);
    if (out)
        block_output(model, out, a->input, a->attn_branch, a->attn_branch_rstd, weights->attn_out_norm,
                     array_of_floats(a->attn_out), &w->o, N, A);
}

/* out = mlp_input + activation(norm(mlp_input) . up^T) . down^T */
static void mlp_block(Model *model, int l, int64_t N, float *out) {
    const ModelConfig *c = &model->config;
    const LayerWeights *weights = &model->weights.layers[l];
    const LayerLinears *w = &model->linears[l];
    const LayerActivations *a = &model->activations.layers[l];
    const Array norm = model->activations.norm, hidden = model->activations.hidden;
    const int C = c->embd, F = c->mlp_hidden, U = up_size(F, c->activation);

    norm_forward(norm, a->mlp_rstd, a->mlp_input, weights->mlp_norm, weights->mlp_norm_bias, c->norm,
                 (float)c->norm_eps, N, C);
    linear(a->up, NULL, norm, &w->up, N, C, U);
    if (!out) return;
    activation_forward(hidden, a->up, N, F, c->activation);
    block_output(model, out, a->mlp_input, a->mlp_branch, a->mlp_branch_rstd, weights->mlp_out_norm, hidden,
                 &w->down, N, F);
}

/* tokens (B, T) -> activations.output (N, C), the residual stream after the last layer, and activations.norm, its
   norm. T may be shorter than the model's, B smaller than its batch. With caches, the tokens of sequence b follow those
   whose keys and values are in caches[b], and theirs are added to it. */
void model_forward(Model *model, const int32_t *tokens, int B, int T) {
    if (device_on()) {
        device_forward(tokens, B, T);
        return;
    }
    const ModelConfig *c = &model->config;
    const int64_t N = (int64_t)B * T;
    const Weights *weights = &model->weights;
    Activations *acts = &model->activations;
    const float *position = weights->position ? weights->position : model->fixed_positions;

    for (int b = 0, step = sequences_at_a_time(model, B); b < B; b += step) {
        const float *first = position ? position + (int64_t)first_position(model, b) * c->embd : NULL;
        embedding_forward(acts->layers[0].input + (int64_t)b * T * c->embd, tokens + (int64_t)b * T,
                          weights->embed, embedding_scale(c), first, (int64_t)step * T, T, c->embd);
    }
    for (int l = 0; l < c->layers; l++) {
        attention_block(model, l, B, T, acts->layers[l].mlp_input);
        mlp_block(model, l, N, l + 1 < c->layers ? acts->layers[l + 1].input : acts->output);
    }
    norm_forward(acts->norm, acts->final_rstd, acts->output, weights->final_norm, weights->final_norm_bias,
                 c->norm, (float)c->norm_eps, N, c->embd);
    for (int b = 0; b < B && model->caches; b++) model->caches[b]->count += T;
    begin_part(PROFILE_OTHER);
}

/* activations.logits (rows, V) of norm (rows, C), after the softcap where the model has one; cap_slopes as in
   softcap_forward. */
static void output_logits(Model *model, Array norm, float *cap_slopes, int64_t rows) {
    const ModelConfig *c = &model->config;
    float *logits = model->activations.logits;
    linear(array_of_floats(logits), NULL, norm, &model->output, rows, c->embd, c->vocab_size);
    if (c->logit_softcap > 0)
        softcap_forward(logits, cap_slopes, (float)c->logit_softcap, rows, c->vocab_size);
}

/* After model_forward: the logits (rows, V) of the tokens that follow its tokens from number `first` on, in the order of
   model_forward's N tokens. The next call, or model_loss, overwrites them. There is room for those of at least 64. */
float *model_logits_of(Model *model, int first, int rows) {
    output_logits(model, array_from(model->activations.norm, (int64_t)first * model->config.embd), NULL,
                  rows);
    return model->activations.logits;
}

/* The same for one token; on a GPU too. */
float *model_logits(Model *model, int row) {
    if (!device_on()) return model_logits_of(model, row, 1);
    device_logits(model->activations.logits, row);
    return model->activations.logits;
}

/* After model_forward: returns the sum of the losses of the N tokens. The logits (N, V) never exist as a whole: a
   slice of their rows is computed and turned into losses and gradients, then the next slice takes its memory. Unless
   gradient_scale is 0, this also computes d_norm (N, C) and adds to the gradient of the output matrix. Both are
   gradients of gradient_scale * (the sum + what --z-loss adds); the sum that is returned is without the z-loss. With a
   GPU it returns 0 without waiting, and device_loss_sum() gives the sum later. */
double model_loss(Model *model, const int32_t *targets, int64_t N, float gradient_scale) {
    if (device_on()) {
        device_loss(targets, N, gradient_scale);
        return 0;
    }
    const ModelConfig *c = &model->config;
    const int C = c->embd, V = c->vocab_size;
    Activations *acts = &model->activations;
    const int64_t slice = loss_slice_rows(c, N);
    float *const slopes = gradient_scale == 0 ? NULL : acts->cap_slopes;
    double sum = 0;
    for (int64_t begin = 0; begin < N; begin += slice) {
        const int64_t rows = begin + slice < N ? slice : N - begin;
        const Array norm = array_from(acts->norm, begin * C);
        output_logits(model, norm, slopes, rows);
        cross_entropy_forward_backward(acts->losses + begin, acts->d_logits, acts->logits, slopes,
                                       targets + begin, gradient_scale, (float)c->z_loss, rows, V);
        if (gradient_scale == 0) continue;
        linear_backward(into(acts->d_norm + begin * C), model->gradients.output, acts->d_logits, norm,
                        &model->output, rows, C, V);
    }
    begin_part(PROFILE_OTHER);
    for (int64_t n = 0; n < N; n++) sum += acts->losses[n];
    return sum;
}

/* Turns d_residual (N, C) from the gradient of mlp_block's output into that of mlp_input. The lines of mlp_block come
   in reverse, each quoted above its backward. Gradients of weights are added to `g`. */
static void mlp_block_backward(Model *model, int l, int64_t N) {
    const ModelConfig *c = &model->config;
    const LayerLinears *w = &model->linears[l];
    const LayerWeights *weights = &model->weights.layers[l], *g = &model->gradients.layers[l];
    const LayerActivations *a = &model->activations.layers[l];
    Activations *acts = &model->activations;
    const int C = c->embd, F = c->mlp_hidden, U = up_size(F, c->activation);

    /* out = mlp_input + hidden . down^T,  hidden = activation(up) */
    const Array d_out = block_output_backward(model, a->mlp_branch, a->mlp_branch_rstd, weights->mlp_out_norm,
                                              g->mlp_out_norm, N);
    ActivationBackward through = {acts->d_up, acts->hidden, a->up, F, c->activation};
    linear_backward((MatmulOutput){.finish = activation_backward, .context = &through}, g->down, d_out,
                    acts->hidden, &w->down, N, F, C);
    /* up = norm . up^T, with the activation a->up on the left and the weights w->up on the right */
    norm_recompute(acts->norm, a->mlp_rstd, a->mlp_input, weights->mlp_norm, weights->mlp_norm_bias, c->norm,
                   N, C);
    linear_backward(into(acts->d_norm), g->gate ? g->gate : g->up, acts->d_up, acts->norm, &w->up, N, C, U);
    /* norm = norm(mlp_input) */
    norm_backward(acts->d_residual, g->mlp_norm, g->mlp_norm_bias, acts->norm_partial, acts->d_norm,
                  a->mlp_input, a->mlp_rstd, weights->mlp_norm, c->norm, N, C);
}

/* The same for attention_block: d_residual becomes the gradient of input. */
static void attention_block_backward(Model *model, int l, int B, int T) {
    const ModelConfig *c = &model->config;
    const LayerLinears *w = &model->linears[l];
    const LayerWeights *weights = &model->weights.layers[l], *g = &model->gradients.layers[l];
    const LayerActivations *a = &model->activations.layers[l];
    Activations *acts = &model->activations;
    const AttentionShape shape = layer_attention_shape(model, l, B, T);
    const AttentionAblations ablations = attention_ablations(model, l);
    const int C = c->embd, A = c->heads * c->head_dim;
    const int64_t N = (int64_t)B * T;
    const float *in = a->qkv;
    if (weights->q_norm)
        in = c->recompute == RECOMPUTE_NONE ? attention_inputs(model, l, &shape) : acts->attn_in;
    float *d_in = acts->d_attn_in;

    /* out = input + attn_out . o^T */
    const Array d_out = block_output_backward(model, a->attn_branch, a->attn_branch_rstd,
                                              weights->attn_out_norm, g->attn_out_norm, N);
    linear_backward(into(acts->d_attn_out), g->o, d_out, array_of_floats(a->attn_out), &w->o, N, A, C);
    /* attn_out = attention(q, k, v) */
    begin_part(PROFILE_ATTENTION);
    ablations_after_backward(&ablations, acts->d_attn_out, a->attn_out, &shape);
    attention_backward(c->attn, d_in, d_in + A, d_in + 2 * A, acts->d_attn_out, in, in + A, in + 2 * A,
                       a->attn_out, a->attn_lse, &shape);
    if (model->analysis) analysis_layer(model->analysis, l, in, in + A, in + 2 * A, acts->d_attn_out, &shape);
    /* q, k, v = ablations(q, k, v) */
    ablations_before_backward(&ablations, d_in, g->scale, in, &shape);
    /* q, k = rope(q, k) */
    if (model->rope_cos_sin)
        rope_rotate(weights->q_norm ? array_of_floats(d_in) : acts->d_qkv, d_in, model->rope_cos_sin, -1, N,
                    T, c->heads, c->head_dim);
    /* q, k = qk_norm(q, k) */
    if (weights->q_norm) {
        begin_part(PROFILE_NORM);
        qk_norm_backward(acts->d_qkv, d_in, g->q_norm, g->k_norm, a->qkv, weights->q_norm, weights->k_norm,
                         &shape);
    }
    /* qkv = norm . qkv^T, where the matrix w->qkv is q, k and v, one below the other */
    norm_recompute(acts->norm, a->attn_rstd, a->input, weights->attn_norm, weights->attn_norm_bias, c->norm,
                   N, C);
    linear_backward(into(acts->d_norm), g->q, acts->d_qkv, acts->norm, &w->qkv, N, C, 3 * A);
    /* norm = norm(input) */
    norm_backward(acts->d_residual, g->attn_norm, g->attn_norm_bias, acts->norm_partial, acts->d_norm,
                  a->input, a->attn_rstd, weights->attn_norm, c->norm, N, C);
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

    /* norm = norm(output) */
    begin_part(PROFILE_NORM);
    memset(acts->d_residual, 0, (size_t)(N * c->embd) * sizeof *acts->d_residual);
    norm_backward(acts->d_residual, gradients->final_norm, gradients->final_norm_bias, acts->norm_partial,
                  acts->d_norm, acts->output, acts->final_rstd, model->weights.final_norm, c->norm, N,
                  c->embd);
    for (int l = c->layers - 1; l >= 0; l--) {
        const bool whole = c->recompute == RECOMPUTE_BLOCK;
        if (c->recompute != RECOMPUTE_NONE)
            attention_block(model, l, B, T, whole ? acts->layers[l].mlp_input : NULL);
        if (whole) mlp_block(model, l, N, NULL);
        mlp_block_backward(model, l, N);
        attention_block_backward(model, l, B, T);
        /* The gradients of this layer are complete; with several ranks they can be sent. */
        reduce_scatter_ready((size_t)(gradients->layers[l].attn_norm - gradients->memory));
    }
    /* layers[0].input = scale * embed[token] + position */
    embedding_backward(gradients->embed, gradients->position, acts->d_residual, tokens, embedding_scale(c), N,
                       T, c->embd);
    begin_part(PROFILE_OTHER);
}

/* ============================================================================================ 4. sampling ==== */

/* The next token after tokens (count <= T), as gpt/math/sampling.h draws it. draw: how many tokens were drawn with this
   seed before. The whole context is computed for every token; tools/generate.c keeps keys and values instead. */
int32_t model_sample(Model *model, const int32_t *tokens, int count, double temperature, uint64_t seed,
                     uint64_t draw) {
    const SamplingRule rule = {.temperature = temperature};
    model_forward(model, tokens, 1, count);
    return sample_token(model_logits(model, count - 1), model->config.vocab_size, &rule, tokens, count, seed,
                        draw);
}

/* Prints the prompt and `count` sampled tokens. */
void model_print_sample(Model *model, const Tokenizer *tokenizer, const char *prompt, int count,
                        double temperature, uint64_t seed) {
    SampledText text = sampled_text_begin(tokenizer, prompt, model->config.seq_len);
    for (int i = 0; i < count; i++)
        sampled_text_add(&text, model_sample(model, text.tokens, text.count, temperature, seed, (uint64_t)i));
    sampled_text_end(&text);
}

/* ========================================================================================== 5. training ==== */

typedef struct {
    Run run; /* options, data, log, and how far the run is: gpt/run/run.h */
    Model model;
    ShardedOptimizer optimizer; /* over all ranks: gpt/dist/sharded_optimizer.h */
    int32_t *inputs, *targets;  /* (B, T) the tokens of a micro-step, and the token that follows each */
} Trainer;

/* Forward, loss and backward for B sequences, from number first_sequence of the run on. Adds to model.gradients, and
   returns the sum of the losses as model_loss does. */
static double micro_step(Trainer *t, int64_t first_sequence) {
    const int B = t->model.batch, T = t->model.config.seq_len;
    const uint64_t seed = (uint64_t)t->run.options->seed;
    begin_part(PROFILE_DATA);
    for (int b = 0; b < B; b++) {
        const uint64_t sequence = (uint64_t)(first_sequence + b);
        dataset_sample(&t->run.train, seed, sequence, t->inputs + (int64_t)b * T,
                       t->targets + (int64_t)b * T);
        dataset_prefetch(&t->run.train, seed,
                         sequence + (uint64_t)t->run.step_sequences); /* of the next step */
    }
    begin_part(PROFILE_OTHER);
    model_forward(&t->model, t->inputs, B, T);
    double loss =
        model_loss(&t->model, t->targets, (int64_t)B * T, 1.0f / (float)run_tokens_per_step(&t->run));
    model_backward(&t->model, t->inputs, B, T);
    return loss;
}

/* Updates the weights with the chosen optimizer; gradient_scale multiplies the gradients first, for clipping. */
void update_weights(Trainer *t, double lr, double gradient_scale) {
    const Options *o = t->run.options;
    const AdamWSettings settings = {.lr = lr,
                                    .beta1 = o->beta1,
                                    .beta2 = o->beta2,
                                    .eps = o->adam_eps,
                                    .weight_decay = o->weight_decay,
                                    .decay_vectors = o->decay == DECAY_ALL,
                                    .gradient_scale = gradient_scale,
                                    .step = t->run.step + 1 -
                                            t->run.watch.skipped}; /* the number of this update */
    optimizer_update(&t->optimizer, &settings);
    model_repack(&t->model);
}

/* The learning rate of a step. The first step is number 0; the log calls it step 1. */
static double step_learning_rate(const Options *o, int64_t step) {
    const LearningRate schedule = {.kind = (LearningRateKind)o->schedule,
                                   .peak = o->lr,
                                   .floor_fraction = o->lr_min,
                                   .warmup = o->warmup,
                                   .steps = o->steps,
                                   .cooldown = o->cooldown};
    return learning_rate(&schedule, step);
}

/* Counts the step and fills in its line of the log. `start` is the time at which it began. */
static LogTrain step_line(Trainer *t, double start, double loss, double loss_z, double lr, double norm,
                          bool skipped) {
    Run *run = &t->run;
    const double tokens = (double)run_tokens_per_step(run), seconds = seconds_now() - start;
    const double rate = tokens / seconds, peak = run->peak_flops * parallel_ranks();
    run->step++;
    run->seconds += seconds;
    return (LogTrain){.step = (long)run->step,
                      .tokens = run->step * run_tokens_per_step(run),
                      .loss = loss,
                      .lr = lr,
                      .grad_norm = norm,
                      .loss_z = loss_z,
                      .skipped = skipped,
                      .seconds = run->seconds,
                      .tokens_per_s = rate,
                      .comm_overlap = optimizer_comm_overlap(&t->optimizer),
                      .mfu = rate * run->flops_per_token / peak};
}

/* Whether to stop what is being computed: a signal asks for it on one of the ranks. Also gives the log's file
   the present time, by which scripts/run_resilient.sh sees that the run makes progress. All ranks call it before every
   micro-step and before every batch of a validation. */
static bool stop_is_requested(Trainer *t) {
    if (parallel_any(stop_requested)) return true;
    if (parallel_rank() == 0) log_touch(&t->run.log);
    return false;
}

/* One optimizer step, of which `line` becomes the line of the log. A step whose loss or gradient is not finite, or with
   --skip-spikes is far above the mean of the latest losses, changes no weight. False when a stop was requested
   meanwhile: then it is as if the step had never begun. */
bool train_step(Trainer *t, LogTrain *line) {
    Run *run = &t->run;
    const Options *o = run->options;
    const double start = seconds_now();
    int64_t sequence = run_first_sequence(run, run->step, parallel_rank(), parallel_ranks());
    double loss = 0, loss_z;

    gradients_clear(&t->optimizer);
    for (int64_t micro = 0; micro < run->micro_steps; micro++, sequence += t->model.batch) {
        if (stop_is_requested(t)) return false;
        if (micro == run->micro_steps - 1) gradients_reduce_begin(&t->optimizer);
        loss += micro_step(t, sequence); /* forward, loss, backward */
    }
    const double norm = gradients_reduce(&t->optimizer), lr = step_learning_rate(o, run->step);
    loss = parallel_sum_double(loss + device_loss_sum()) / (double)run_tokens_per_step(run);

    const StepVerdict verdict = loss_watch_judge(&run->watch, loss, norm, o->skip_spikes, &loss_z);
    const bool clips = o->clip > 0 && norm > o->clip;
    if (!step_is_skipped(verdict)) update_weights(t, lr, clips ? o->clip / norm : 1);

    *line = step_line(t, start, loss, loss_z, lr, norm, step_is_skipped(verdict));
    report_verdict(run, verdict, line);
    return true;
}

/* The mean loss over the first val_tokens tokens of the validation shards (0: over all): always the same windows (T +
   1 consecutive tokens, gpt/io/shards.h) in file order, divided over the ranks. Changes nothing that training reads.
   The loss is NaN when a stop was requested meanwhile. */
LogValidation validate(Trainer *t) {
    const int B = t->model.batch, T = t->model.config.seq_len, ranks = parallel_ranks();
    const int64_t val_tokens = t->run.options->val_tokens, wanted = (val_tokens + T - 1) / T;
    int64_t windows = (int64_t)t->run.val.n_windows;
    if (val_tokens > 0 && wanted < windows) windows = wanted;
    const int64_t begin = windows * parallel_rank() / ranks, end = windows * (parallel_rank() + 1) / ranks;
    const int64_t rounds =
        ((windows + ranks - 1) / ranks + B - 1) / B; /* of the rank that has the most windows */
    double sum = 0, bytes = 0; /* bytes: those that the predicted tokens, the targets, stand for */
    for (int64_t round = 0; round < rounds; round++) {
        int64_t w = begin + round * B;
        int count = (int)(end - w < B ? end - w : B);
        if (stop_is_requested(t)) return log_validation_of((long)t->run.step, NAN, NAN);
        if (count <= 0)
            continue; /* this rank is done, but all ranks must ask stop_is_requested equally often */
        for (int b = 0; b < count; b++)
            dataset_window(&t->run.val, (uint64_t)(w + b), t->inputs + (int64_t)b * T,
                           t->targets + (int64_t)b * T);
        model_forward(&t->model, t->inputs, count, T);
        sum += model_loss(&t->model, t->targets, (int64_t)count * T, 0);
        bytes += (double)tokenizer_tokens_bytes(t->run.tokenizer, t->targets, (int64_t)count * T);
    }
    const double tokens = (double)windows * T, loss = parallel_sum_double(sum + device_loss_sum()) / tokens;
    bytes = parallel_sum_double(bytes);
    return log_validation_of((long)t->run.step, loss, t->run.tokenizer ? bytes / tokens : NAN);
}

/* Analyses the model on the first windows of the validation data, `windows` of them or as many as there are: the loss,
   attention, and the gradients, which it overwrites. inputs and targets (B, T) are work memory. Ends early when a stop
   was requested meanwhile. The caller frees the result. */
Analysis model_analyze(Model *model, const Dataset *val, int windows, int32_t *inputs, int32_t *targets) {
    const ModelConfig *c = &model->config;
    const int B = model->batch, T = c->seq_len;
    if ((uint64_t)windows > val->n_windows) windows = (int)val->n_windows;
    Analysis analysis = analysis_create((AttentionKind)c->attn, c->layers, c->heads, windows, T);
    memset(model->gradients.memory, 0, model->gradients.count * sizeof(float));
    model->analysis = &analysis;
    for (int w = 0; w < windows && !stop_requested; w += B) {
        const int count = windows - w < B ? windows - w : B;
        for (int b = 0; b < count; b++)
            dataset_window(val, (uint64_t)(w + b), inputs + (int64_t)b * T, targets + (int64_t)b * T);
        model_forward(model, inputs, count, T);
        analysis.mean_loss +=
            model_loss(model, targets, (int64_t)count * T, analysis_gradient_scale(&analysis)) /
            ((double)windows * T);
        model_backward(model, inputs, count, T); /* calls analysis_layer for each layer */
    }
    model->analysis = NULL;
    analysis_gradients(&analysis, &model->parameters, model->gradients.memory);
    return analysis;
}

/* =========================================================================================== 6. the run ==== */

/* The number P of parameters that take part in matrix products. embed is also the output matrix, but counts once; with
   --tie=no it is in no product. By convention, training on a token takes 6P + 12LAT floating-point operations, 18LAT in
   place of 12LAT with differential attention, whose values are twice as wide as its queries and keys. */
int64_t model_matrix_parameters(const Model *model) {
    int64_t sum = (int64_t)model->config.vocab_size * model->config.embd; /* the output matrix */
    for (int i = 0; i < model->parameters.count; i++)
        if (model->parameters.tensors[i].per_layer && model->parameters.tensors[i].dimensions == 2)
            sum += (int64_t)model->parameters.tensors[i].count;
    return sum;
}

double model_flops_per_token(const Model *model) {
    const ModelConfig *c = &model->config;
    return 6.0 * (double)model_matrix_parameters(model) +
           (attention_is_diff((AttentionKind)c->attn) ? 18.0 : 12.0) * c->layers * c->heads * c->head_dim *
               c->seq_len;
}

/* The operations of a part of a micro-step, forward and backward; 0 for parts whose time depends on memory traffic
   rather than arithmetic. Attention uses only the keys j <= i, half of all pairs, so each of its seven products (two
   forward, five backward) has N*A*T operations instead of 2*N*A*T. Differential attention computes each product twice,
   with both halves of its values (gpt/math/attention_diff.h). */
double model_part_operations(const Model *model, ProfilePart part) {
    const ModelConfig *c = &model->config;
    const double A = c->heads * c->head_dim, C = c->embd, F = c->mlp_hidden, L = c->layers, T = c->seq_len;
    const double U = up_size(c->mlp_hidden, c->activation), N = model->batch * T;
    switch (part) {
    case PROFILE_QKV: return 6 * N * L * C * 3 * A;
    case PROFILE_ATTENTION: return (attention_is_diff((AttentionKind)c->attn) ? 14 : 7) * N * L * A * T;
    case PROFILE_PROJECTION: return 6 * N * L * A * C;
    case PROFILE_MLP_UP: return 6 * N * L * C * U;
    case PROFILE_MLP_DOWN: return 6 * N * L * F * C;
    case PROFILE_LOGITS: return 6 * N * C * c->vocab_size;
    default: return 0;
    }
}

/* The model that the options describe; exits with what is wrong about them. */
static ModelConfig model_config(const Options *options, const OptionSet *set) {
    ModelConfig config = {0};
    char error[FILE_ERROR_SIZE];
    config_from_options(model_fields, MODEL_FIELDS, options, &config);
    config_from_options(training_fields, TRAINING_FIELDS, options, &config);
    if (!model_config_check(&config, error)) options_fail(set, "%s", error);
    return config;
}

/* What the model needs beside its parameters; model_allocate allocates by the same tables. */
static ModelMemory model_memory(const Model *model) {
    const ModelConfig *c = &model->config;
    const AttentionShape shape = attention_shape(c, model->batch, c->seq_len);
    ModelMemory memory = {0};
    if (device_on()) {
        DeviceModel description = device_model(model);
        memory.gpu_bytes = device_memory_needed(&description);
        free((void *)description.at);
        return memory;
    }
    for (int i = 0; i < model->activation_table.count; i++) {
        const Tensor *tensor = &model->activation_table.tensors[i];
        if (tensor->per_layer && !(tensor->flags & TENSOR_SHARED)) memory.activations_kept += tensor->floats;
    }
    memory.activations_scratch = model->activation_table.floats - memory.activations_kept;
    for (int i = 0; i < model_linear_count(model) && c->dtype == DTYPE_BF16; i++) {
        const Linear *w = model_linear_at(model, i);
        memory.packed += (size_t)linear_packed_bytes(w->C, w->OC, w->dtype);
    }
    memory.packed /= sizeof(float);
    memory.work = attention_memory(c->attn, &shape) / sizeof(float) + MATMUL_SHARED_FLOATS +
                  (size_t)threads_count() * MATMUL_PRIVATE_FLOATS;
    return memory;
}

/* Plans the trainer that the options describe; trainer_allocate allocates its memory. */
Trainer trainer_plan(Options *options, OptionSet *set) {
    Trainer t = {0};
    ModelConfig trained;
    if (*options->init_from) init_from_options(options, set, model_fields, MODEL_FIELDS, &trained);
    run_settle(&t.run, options, set);
    const ModelConfig config = model_config(options, set);
    t.model = model_plan(&config, (int)options->batch);
    t.run.flops_per_token = model_flops_per_token(&t.model);
    t.run.model_config = hugging_face_config(model_fields, MODEL_FIELDS, &config, t.run.tokenizer,
                                             options->save_dtype == SAVE_DTYPE_BF16);
    /* The GPU updates the weights if there is one rank or --comm=gpu; else the CPU sums the gradients over the ranks
       and updates the weights. */
    const bool on_gpu = device_on() && (parallel_ranks() == 1 || options->comm == COMM_GPU);
    t.optimizer =
        optimizer_plan(&t.model.parameters, (OptimizerKind)options->optimizer, options->zero, on_gpu);
    if (on_gpu) t.model.device_moments = optimizer_moments(&t.optimizer);
    return t;
}

/* Gives the trainer all the memory that it will use; dies when the machine does not have it. */
void trainer_allocate(Trainer *t) {
    const Options *o = t->run.options;
    const ModelMemory memory = model_memory(&t->model);
    const bool with_copy = memory_has_copy(&t->run, &t->optimizer, &memory);
    const size_t tokens = (size_t)t->model.batch * (size_t)t->model.config.seq_len;
    model_allocate(&t->model);
    optimizer_allocate(&t->optimizer, t->model.weights.memory, t->model.gradients.memory, o->comm_dtype,
                       o->comm_thread);
    t->run.saver = saver_create(&t->run, &t->optimizer, with_copy);
    t->inputs = check_calloc(tokens * sizeof *t->inputs);
    t->targets = check_calloc(tokens * sizeof *t->targets);
}

void trainer_free(Trainer *t) {
    model_free(&t->model);
    optimizer_free(&t->optimizer);
    run_free(&t->run);
    free(t->inputs), free(t->targets);
}

/* Initial weights, those of --init-from, or those of the checkpoint from which the run goes on. */
void trainer_start(Trainer *t) {
    const Options *o = t->run.options;
    bool trained = run_resume(&t->run, &t->optimizer);
    if (!trained && *o->init_from) {
        init_from_weights(&t->run, &t->model.parameters, t->model.weights.memory);
        trained = true;
    }
    if (trained)
        model_repack(&t->model);
    else
        model_init(&t->model, (uint64_t)o->seed);
    optimizer_send_to_gpu(&t->optimizer);
}

/* The two functions that dry_run() calls; gpt/run/dry_run.h says what they do. */
DryRunWork dry_run_work(const Run *run, const Options *o) {
    const ModelConfig config = model_config(o, run->option_set);
    Model model = model_plan(&config, (int)o->batch);
    DryRunWork work = {config.layers, config.seq_len, model.batch,
                       .parameters = (double)model.parameters.floats};
    work.matrix_parameters = (double)model_matrix_parameters(&model);
    work.operations = model_flops_per_token(&model) * (double)(o->batch * o->seq_len);
    for (int i = 0; i < PROFILE_PARTS; i++)
        work.part_operations[i] = model_part_operations(&model, (ProfilePart)i);
    model_free(&model);
    return work;
}

bool dry_run_measure(const Run *run, Options *options, double *seconds, double *first_loss) {
    enum { STEPS = 3 }; /* the first is slower: memory pages and threads are set up in it */
    Trainer t = trainer_plan(options, run->option_set);
    const int B = t.model.batch, T = t.model.config.seq_len;
    const ModelMemory memory = model_memory(&t.model);
    const int64_t needed = memory_needed(&t.run, &t.optimizer, &memory, false);
    const bool fits = !parallel_any(needed > hosts_memory_available());
    double least = INFINITY;
    if (fits) {
        trainer_allocate(&t);
        model_init(&t.model, (uint64_t)options->seed);
        optimizer_send_to_gpu(&t.optimizer);
        for (int64_t i = 0; i < (int64_t)B * T; i++) {
            t.inputs[i] =
                (int32_t)(rng_bits(1, RNG_STREAM_TEST, (uint64_t)i) % (uint64_t)options->vocab_size);
            t.targets[i] =
                (int32_t)(rng_bits(2, RNG_STREAM_TEST, (uint64_t)i) % (uint64_t)options->vocab_size);
        }
    }
    for (int step = 0; step < STEPS && fits; step++) {
        double sum = 0;
        profile_reset();
        model_forward(&t.model, t.inputs, B, T);
        double loss = model_loss(&t.model, t.targets, (int64_t)B * T, 1.0f / ((float)B * (float)T));
        model_backward(&t.model, t.inputs, B, T);
        loss = (loss + device_loss_sum()) / ((double)B * T); /* waits for a GPU */
        profile(PROFILE_UPDATE);
        update_weights(&t, options->lr, 1);
        device_loss_sum();
        profile(PROFILE_OTHER);
        if (step == 0) *first_loss = loss;
        for (int part = 0; part < PROFILE_PARTS; part++) sum += profile_state.seconds[part];
        if (sum < least) least = sum, memcpy(seconds, profile_state.seconds, sizeof profile_state.seconds);
    }
    trainer_free(&t);
    return fits;
}

/* Too many steps in a row were skipped: computes the micro-steps of the latest one again, each with gradients of its
   own, up to the first whose loss or gradient is not finite, and tells the user what is wrong. */
__attribute__((noreturn)) static void diagnose(Trainer *t, const LogTrain *line) {
    Run *run = &t->run;
    Model *model = &t->model;
    int64_t sequence = run_first_sequence(run, run->step - 1, parallel_rank(), parallel_ranks()), micro = 0;
    bool faulty = false;
    for (; micro < run->micro_steps && !faulty; micro++, sequence += model->batch) {
        gradients_clear(&t->optimizer);
        const double loss = micro_step(t, sequence) + device_loss_sum();
        if (device_on()) device_get(DEVICE_GRADIENTS, model->gradients.memory);
        optimizer_fetch_from_gpu(&t->optimizer);
        faulty =
            !isfinite(loss) || !isfinite(largest_magnitude(model->gradients.memory, model->gradients.count));
    }
    const ModelNumbers numbers = {&model->parameters,      &model->activation_table,  model->weights.memory,
                                  model->gradients.memory, model->activations.memory, model->config.layers};
    diagnose_and_die(run, &numbers, line, faulty, micro - 1);
}

/* Validates and writes the result to the log, unless the log already has that of this step. False when a stop was
   requested meanwhile. */
static bool validate_and_log(Trainer *t) {
    Run *run = &t->run;
    const bool known = parallel_rank() == 0 && run->log.last.step == run->step;
    if (known) run->last_validation = run->log.last;
    if (parallel_any(known)) return true; /* the run goes on from this step's checkpoint */
    run->last_validation = validate(t);
    if (parallel_any(stop_requested)) return false;
    if (parallel_rank() == 0) log_validation(&run->log, &run->last_validation);
    return true;
}

/* Writes an analysis to the log, unless the log already has that of this step. Rank 0 makes it alone, and the others
   wait. False when a stop was requested meanwhile. */
static bool analyze_and_log(Trainer *t) {
    Run *run = &t->run;
    if (parallel_rank() == 0 && run->log.analysed_step != run->step) {
        Analysis analysis = model_analyze(&t->model, &run->val, ANALYSIS_WINDOWS, t->inputs, t->targets);
        if (!stop_requested) analysis_log(&run->log, (long)run->step, &analysis);
        analysis_free(&analysis);
    }
    return !parallel_any(stop_requested);
}

/* Validates, analyses, samples and begins to save at the steps that --val-every, --analyze-every, --sample-every and
   --save-every name. After the last step it always validates, and analyses if it ever does; train() then saves. False
   when a stop was requested meanwhile. */
static bool between_steps(Trainer *t) {
    Run *run = &t->run;
    const Options *o = run->options;
    const bool last = run->step >= o->steps, saved = run->step == run->saved_step;
    if ((last || (o->val_every && run->step % o->val_every == 0)) && !validate_and_log(t)) return false;
    if (o->analyze_every && (last || run->step % o->analyze_every == 0) && !analyze_and_log(t)) return false;
    /* The step of the checkpoint from which a run goes on was sampled before it was saved; step 0 is the untrained model. */
    if (o->sample_every && run->step % o->sample_every == 0 && run->tokenizer && !saved &&
        parallel_rank() == 0) {
        log_message(&run->log, "sample after %lld steps:", (long long)run->step);
        log_clear(&run->log);
        model_print_sample(&t->model, run->tokenizer, o->prompt, (int)o->sample_tokens, o->temperature,
                           (uint64_t)(o->seed + run->step));
    }
    /* While steps are skipped the weights do not change; because of --keep, one more checkpoint of the same weights
       would only delete an older one. */
    if (o->save_every && run->step % o->save_every == 0 && !last && !run->watch.skipped_in_a_row)
        save_checkpoint(run, &t->optimizer, false);
    save_continue(run, false);
    return true;
}

/* The loop: all steps and what comes between them, until the last step or a signal. */
void train(Trainer *t) {
    Run *run = &t->run;
    const Options *o = run->options;
    const bool resumed_at_end = run->step >= o->steps;
    char name[CHECK_TEXT_SIZE], note[160];
    if (resumed_at_end && parallel_rank() == 0)
        printf("%s has done all of its %lld steps already\n", check_shown(name, o->out), (long long)o->steps);
    if (resumed_at_end && run_folder_has_summary(run)) return;
    LogTrain line;
    /* Before the first step of a new run this call validates the untrained model, whose loss is about ln V. In a
       resumed run it validates if the run was stopped after the checkpoint's step but before the validation of that
       step. */
    bool going = between_steps(t);
    while (going && run->step < o->steps) {
        if (!(going = train_step(t, &line))) break;
        if (parallel_rank() == 0 && *device_note(note)) log_message(&run->log, "%s", note);
        if (parallel_rank() == 0) log_train(&run->log, &line);
        if (run->watch.skipped_in_a_row >= o->max_skipped) {
            save_continue(run, true);
            diagnose(t, &line);
        }
        going = between_steps(t);
    }
    if (!resumed_at_end) save_checkpoint(run, &t->optimizer, true), check_saved(run);
    if (going)
        run_folder_write_summary(run, &t->model.parameters);
    else
        report_stop(run);
}

#ifndef TRAIN_GPT_NO_MAIN /* the tests and the tools include this file and have a main of their own */

static void print_profile(const Trainer *t, double micro_steps) {
    double operations[PROFILE_PARTS];
    for (int i = 0; i < PROFILE_PARTS; i++)
        operations[i] = micro_steps * model_part_operations(&t->model, (ProfilePart)i);
    profile_print(operations, t->run.peak_flops);
}

int main(int argc, char **argv) {
    program_begin();
    threads_configure(argv);
    memory_keep_freed();
    parallel_start(&argc, &argv);
    static Options options;
    OptionSet set = options_begin("train_gpt", "./train_gpt --data=DIR [--out=DIR] [--attn=laser] [options]",
                                  train_options, TRAIN_OPTION_COUNT, &options, train_presets);
    if (options_parse(&set, argc, argv) > 0) options_fail(&set, "'%s' is not an option", argv[0]);
    hosts_set_threads((int)options.threads);
    device_choose(hosts_local_rank());
    Trainer trainer = trainer_plan(&options, &set);
    Run *run = &trainer.run;
    if (parallel_rank() == 0) print_configuration(run, &trainer.optimizer);
    const bool bf16 = options.dtype == DTYPE_BF16;
    run->peak_flops = device_on() ? device_peak_flops(bf16) : processor_peak_flops(bf16);
    if (options.dry_run) {
        const ModelMemory memory = model_memory(&trainer.model);
        dry_run(run, &trainer.optimizer, &memory, dry_run_work, dry_run_measure);
    } else {
        signals_catch();
        open_data(run);
        trainer_allocate(&trainer);
        trainer_start(&trainer);
        run_folder_open(run, &trainer.model.parameters);
        profile_reset();
        const int64_t begun = run->step;
        train(&trainer);
        if (options.profile && parallel_rank() == 0)
            print_profile(&trainer, (double)((run->step - begun) * run->micro_steps));
        if (parallel_rank() == 0) log_close(&run->log);
    }
    trainer_free(&trainer);
    parallel_finish();
    return 0;
}
#endif
