/* train_options.h: the options of ./train_gpt: the names that an option may be chosen from, the struct of the values,
   the table of the options, and the presets. --help prints this table. options.h says how such a table works. */
#ifndef GPT_RUN_TRAIN_OPTIONS_H
#define GPT_RUN_TRAIN_OPTIONS_H

#include "../../laser.h"
#include "../math/array.h"
#include "../math/optimizer.h"
#include "../math/attention.h"
#include "options.h"

/* The choices and their enums. */
#define ACTIVATION_CHOICES(X)                                                                                \
    X(ACTIVATION_GELU, "gelu")                                                                               \
    X(ACTIVATION_RELU, "relu") X(ACTIVATION_SWIGLU, "swiglu") X(ACTIVATION_RELU2, "relu2")
#define POSITION_CHOICES(X)                                                                                  \
    X(POSITION_ROPE, "rope") X(POSITION_SINUSOIDAL, "sinusoidal") X(POSITION_LEARNED, "learned")
#define ATTN_SCALE_CHOICES(X) X(ATTN_SCALE_FIXED, "fixed") X(ATTN_SCALE_HEAD, "head") X(ATTN_SCALE_DIM, "dim")
#define RECOMPUTE_CHOICES(X)                                                                                 \
    X(RECOMPUTE_NONE, "none") X(RECOMPUTE_ATTENTION, "attention") X(RECOMPUTE_BLOCK, "block")
#define COMM_CHOICES(X) X(COMM_AUTO, "auto") X(COMM_GPU, "gpu") X(COMM_HOST, "host")
#define COMM_DTYPE_CHOICES(X) X(COMM_FP32, "fp32") X(COMM_BF16, "bf16")
#define RESUME_DATA_CHOICES(X) X(RESUME_DATA_SAME, "same") X(RESUME_DATA_CHANGED, "changed")
#define RESUME_SCHEDULE_CHOICES(X) X(RESUME_SCHEDULE_SAME, "same") X(RESUME_SCHEDULE_CHANGED, "changed")
#define SAVE_DTYPE_CHOICES(X) X(SAVE_DTYPE_FP32, "fp32") X(SAVE_DTYPE_BF16, "bf16")
#define NORM_CHOICES(X) X(NORM_RMSNORM, "rmsnorm") X(NORM_LAYERNORM, "layernorm") X(NORM_CRMSNORM, "crmsnorm")
#define NORM_PLACE_CHOICES(X) X(NORM_PLACE_PRE, "pre") X(NORM_PLACE_PERI, "peri")
enum { OPTION_ENUM(ACTIVATION_CHOICES) };
#define BIAS_CHOICES(X) X(BIAS_NONE, "none") X(BIAS_MLP, "mlp") X(BIAS_ALL, "all")
#define DECAY_CHOICES(X) X(DECAY_MATRICES, "matrices") X(DECAY_ALL, "all")
#define TIE_CHOICES(X) X(TIE_YES, "yes") X(TIE_NO, "no")
#define INIT_WEIGHTS_CHOICES(X) X(INIT_WEIGHTS_GPT, "gpt") X(INIT_WEIGHTS_XAVIER, "xavier")
enum { OPTION_ENUM(BIAS_CHOICES) };
enum { OPTION_ENUM(DECAY_CHOICES) };
enum { OPTION_ENUM(TIE_CHOICES) };
enum { OPTION_ENUM(INIT_WEIGHTS_CHOICES) };
enum { OPTION_ENUM(NORM_CHOICES) };
enum { OPTION_ENUM(NORM_PLACE_CHOICES) };
enum { OPTION_ENUM(POSITION_CHOICES) };
enum { OPTION_ENUM(ATTN_SCALE_CHOICES) };
enum { OPTION_ENUM(RECOMPUTE_CHOICES) };
enum { OPTION_ENUM(COMM_CHOICES) };
enum { OPTION_ENUM(COMM_DTYPE_CHOICES) };
enum { OPTION_ENUM(RESUME_DATA_CHOICES) };
enum { OPTION_ENUM(RESUME_SCHEDULE_CHOICES) };
enum { OPTION_ENUM(SAVE_DTYPE_CHOICES) };

/* Choices whose enums belong to laser.h with attention.h, optimizer.h and array.h. */
#define LASER_SHIFT_CHOICES(X)                                                                               \
    X(LASER_SHIFT_CAUSAL, "causal")                                                                          \
    X(LASER_SHIFT_SEQUENCE, "sequence") X(LASER_SHIFT_NONE, "none") X(LASER_SHIFT_CLAMP, "clamp")
#define OPTIMIZER_CHOICES(X) X(OPTIMIZER_ADAMW, "adamw") X(OPTIMIZER_LAMB, "lamb") X(OPTIMIZER_MUON, "muon")
#define SCHEDULE_CHOICES(X)                                                                                  \
    X(LR_COSINE, "cosine") X(LR_LINEAR, "linear") X(LR_CONSTANT, "constant") X(LR_WSD, "wsd")
#define DTYPE_CHOICES(X) X(DTYPE_AUTO, "auto") X(DTYPE_FP32, "fp32") X(DTYPE_BF16, "bf16")
OPTION_CHECK_ENUM(LASER_SHIFT_CHOICES)
OPTION_CHECK_ENUM(OPTIMIZER_CHOICES)
OPTION_CHECK_ENUM(SCHEDULE_CHOICES)
OPTION_CHECK_ENUM(DTYPE_CHOICES)

/* The values, one field for each row of the table below. A choice is the value of its enum. */
typedef struct {
    const char *preset, *config;
    /* model */
    int attn, laser_shift, attn_scale, activation, position, norm, norm_place, bias, tie, init_weights;
    bool qk_norm, embed_scale;
    double laser_beta, attn_softcap, attn_grad_scale, logit_softcap, norm_eps, rope_theta;
    int64_t layers, heads, head_dim, embd, mlp_hidden, seq_len, vocab_size;
    /* data and batch */
    const char *data;
    bool verify_data;
    int64_t batch, total_batch, steps, seed;
    /* optimizer */
    int optimizer, schedule, decay;
    int64_t warmup, cooldown;
    double z_loss, lr, lr_min, beta1, beta2, adam_eps, weight_decay, clip, skip_spikes;
    int64_t max_skipped;
    /* evaluation, checkpoints, log */
    int64_t val_every, val_tokens, analyze_every, sample_every, sample_tokens, save_every, keep, keep_every;
    double temperature;
    const char *prompt, *out, *resume, *init_from;
    int resume_data, resume_schedule, save_dtype;
    /* the machine */
    int64_t threads, zero;
    int dtype, recompute, comm, comm_dtype;
    bool profile, comm_thread;
    bool dry_run;
} Options;

#define ROW(group, name, type, field, value, min, max, choices, flags, help)                                 \
    { group, name, type, offsetof(Options, field), value, min, max, choices, help, flags }

static const Option train_options[] = {
    ROW("Start", "preset", OPTION_STRING, preset, "", 0, 0, "NAME", OPTION_OWN,
        "a named set of options, listed below"),
    ROW("Start", "config", OPTION_STRING, config, "", 0, 0, "FILE", OPTION_OWN,
        "read options from a file: lines name = value, or the config.json of a run"),
    ROW("Start", "init-from", OPTION_STRING, init_from, "", 0, 0, "DIR", OPTION_FIXED,
        "begin a new run with the weights of a trained model: a checkpoint of ./train_gpt, or a Hugging Face "
        "folder "
        "of the kind llama, arcee or gpt2. Options of the model that are not given are those of the folder. "
        "A run "
        "that goes on (--resume) does not read it again"),
    ROW("Start", "dry-run", OPTION_SWITCH, dry_run, "no", 0, 0, "", 0,
        "print configuration, parameters, memory, and the time a step would take, estimated from a second or "
        "two of work; then exit"),

    ROW("Model", "attn", OPTION_CHOICE, attn, "standard", 0, 0, ATTENTION_CHOICES, OPTION_FIXED,
        "attention: softmax(QK')V, or LASER's log(softmax(QK')exp(V)). diff: differential attention, which "
        "subtracts the second head of each pair from the first; diff-laser: the same with LASER in both"),
    ROW("Model", "laser-shift", OPTION_CHOICE, laser_shift, "causal", 0, 0,
        OPTION_CHOICES(LASER_SHIFT_CHOICES), OPTION_FIXED,
        "the shift that LASER subtracts from V before exp(V), so that exp does not overflow, and adds again "
        "after the logarithm. causal: the value of the first key; where other values are far from it, each "
        "query takes the maximum over the keys that it sees. sequence: the maximum over the whole sequence, "
        "as "
        "in the paper; values more than 69 below it are then lost. none: nothing is subtracted, and the run "
        "ends where exp overflows. clamp: nothing, but v is replaced by 15 tanh(v / 15)"),
    ROW("Model", "laser-beta", OPTION_FLOAT, laser_beta, "1", 0.01, 100, "", OPTION_FIXED,
        "LASER of beta V, divided by beta: log(softmax(QK')exp(beta V)) / beta; towards 0 it becomes "
        "standard "
        "attention"),
    ROW("Model", "qk-norm", OPTION_SWITCH, qk_norm, "no", 0, 0, "", OPTION_FIXED,
        "RMSNorm over each head of q and of k before rope, with learned weights"),
    ROW("Model", "attn-scale", OPTION_CHOICE, attn_scale, "fixed", 0, 0, OPTION_CHOICES(ATTN_SCALE_CHOICES),
        OPTION_FIXED,
        "what the scores are multiplied by. fixed: 1 / sqrt(D). head, dim: also by a learned factor "
        "softplus(w) / softplus(0), one for each head, or one for each of the D dimensions of q"),
    ROW("Model", "attn-softcap", OPTION_FLOAT, attn_softcap, "0", 0, 1e6, "", OPTION_FIXED,
        "scores s become X tanh(s / X) before the softmax, so that none is larger than X; 0: they stay as "
        "they "
        "are"),
    ROW("Model", "attn-grad-scale", OPTION_FLOAT, attn_grad_scale, "1", 0, 1e6, "", OPTION_FIXED,
        "backward multiplies the gradient of the attention scores by this, and so those of q and k; the "
        "model "
        "computes the same"),
    ROW("Model", "layers", OPTION_INT, layers, "6", 1, 1024, "", OPTION_FIXED, "transformer blocks, L"),
    ROW("Model", "heads", OPTION_INT, heads, "4", 1, 1024, "", OPTION_FIXED, "attention heads, H"),
    ROW("Model", "head-dim", OPTION_INT, head_dim, "64", 1, 1024, "", OPTION_FIXED, "size of a head, D"),
    ROW("Model", "embd", OPTION_INT, embd, "256", 1, 65536, "", OPTION_FIXED,
        "width of the residual stream, C"),
    ROW("Model", "mlp-hidden", OPTION_INT, mlp_hidden, "768", 1, 262144, "", OPTION_FIXED,
        "hidden units of the MLP, F"),
    ROW("Model", "activation", OPTION_CHOICE, activation, "gelu", 0, 0, OPTION_CHOICES(ACTIVATION_CHOICES),
        OPTION_FIXED,
        "activation function of the MLP; gelu is computed by its tanh formula, relu2 is the square of relu"),
    ROW("Model", "pos", OPTION_CHOICE, position, "rope", 0, 0, OPTION_CHOICES(POSITION_CHOICES), OPTION_FIXED,
        "position encoding"),
    ROW("Model", "rope-theta", OPTION_FLOAT, rope_theta, "10000", 1, 1e12, "", OPTION_FIXED,
        "base of the angles of --pos=rope: pair d of a head of size D turns by theta^(-2d/D) a token"),
    ROW("Model", "norm", OPTION_CHOICE, norm, "rmsnorm", 0, 0, OPTION_CHOICES(NORM_CHOICES), OPTION_FIXED,
        "normalisation; layernorm subtracts the mean of a row first; crmsnorm "
        "is RMSNorm of the row and one more element, which makes its mean 0"),
    ROW("Model", "norm-eps", OPTION_FLOAT, norm_eps, "1e-6", 1e-12, 1, "", OPTION_FIXED,
        "added to the mean square by whose root a norm divides"),
    ROW("Model", "norm-place", OPTION_CHOICE, norm_place, "pre", 0, 0, OPTION_CHOICES(NORM_PLACE_CHOICES),
        OPTION_FIXED,
        "pre: the input of each attention and MLP is normalised; peri: so is their output, before it is "
        "added "
        "to the residual stream"),
    ROW("Model", "bias", OPTION_CHOICE, bias, "none", 0, 0, OPTION_CHOICES(BIAS_CHOICES), OPTION_FIXED,
        "vectors that are added to outputs, 0 at the start. mlp: to those of the norms and of the MLP's "
        "matrices; all: also to those of attention's matrices"),
    ROW("Model", "embed-scale", OPTION_SWITCH, embed_scale, "no", 0, 0, "", OPTION_FIXED,
        "the embedding of a token is multiplied by sqrt(C) where it enters the model, and starts with "
        "deviation 1 / sqrt(C)"),
    ROW("Model", "tie", OPTION_CHOICE, tie, "yes", 0, 0, OPTION_CHOICES(TIE_CHOICES), OPTION_FIXED,
        "yes: the embedding of the tokens is also the output matrix; no: the output has a matrix of its own"),
    ROW("Model", "init-weights", OPTION_CHOICE, init_weights, "gpt", 0, 0,
        OPTION_CHOICES(INIT_WEIGHTS_CHOICES), OPTION_FIXED,
        "initial matrices. gpt: normal with deviation 0.02, and smaller where the output is added to the "
        "residual stream; xavier: those of the layers are uniform in a range that follows from their shape"),
    ROW("Model", "logit-softcap", OPTION_FLOAT, logit_softcap, "0", 0, 1e6, "", OPTION_FIXED,
        "X: each output logit becomes X tanh(logit / X), so that none is larger than X; 0: the logits stay "
        "as "
        "they are"),
    ROW("Model", "seq-len", OPTION_INT, seq_len, "256", 2, 1048576, "", OPTION_FIXED,
        "tokens of a sequence, T"),
    ROW("Model", "vocab-size", OPTION_INT, vocab_size, "0", 0, 65536, "", OPTION_FIXED,
        "number of tokens in the vocabulary, V. If it is not given, it is the size of the tokenizer.json in "
        "--data; if there is no such file, the number of the preset"),

    ROW("Data and batch", "data", OPTION_STRING, data, "", 0, 0, "DIR", OPTION_OWN,
        "folder with train_*.bin, val_*.bin and tokenizer.json, as ./prepare writes it"),
    ROW("Data and batch", "verify-data", OPTION_SWITCH, verify_data, "no", 0, 0, "", 0,
        "before the first step read all shards and compare them with the checksums of their manifest, "
        "shards.json; their names and sizes are compared in any case"),
    ROW("Data and batch", "batch", OPTION_INT, batch, "16", 1, 65536, "", 0,
        "sequences that a rank processes in a micro-step, B (see --total-batch); more need more memory"),
    ROW("Data and batch", "total-batch", OPTION_INT, total_batch, "0", 0, 1e12, "", OPTION_FIXED,
        "tokens per optimizer step, of all ranks together. A step consists of micro-steps, whose gradients "
        "are "
        "added; in a micro-step each rank does one forward and one backward pass over B sequences. 0: one "
        "micro-step"),
    ROW("Data and batch", "steps", OPTION_INT, steps, "300", 1, 1e9, "", OPTION_FIXED,
        "optimizer steps of the whole run"),
    ROW("Data and batch", "seed", OPTION_INT, seed, "1", 0, 1e14, "", OPTION_FIXED,
        "start of all random numbers: initial weights, order of the data, samples"),

    ROW("Optimizer", "optimizer", OPTION_CHOICE, optimizer, "adamw", 0, 0, OPTION_CHOICES(OPTIMIZER_CHOICES),
        OPTION_FIXED,
        "adamw; lamb: AdamW, but the length of a matrix's update is the learning rate times the length of "
        "the "
        "matrix; muon: an orthogonal matrix made of the momentum for each matrix of a layer, AdamW for the "
        "rest. With several ranks muon needs --zero=0"),
    ROW("Optimizer", "lr", OPTION_FLOAT, lr, "3e-3", 0, 10, "", OPTION_FIXED,
        "learning rate at its peak, reached in the last step of --warmup"),
    ROW("Optimizer", "lr-min", OPTION_FLOAT, lr_min, "0", 0, 1, "", OPTION_FIXED,
        "fraction of the peak to which the learning rate falls at the end of the run"),
    ROW("Optimizer", "schedule", OPTION_CHOICE, schedule, "cosine", 0, 0, OPTION_CHOICES(SCHEDULE_CHOICES),
        OPTION_FIXED,
        "course of the learning rate after the warmup. cosine and linear: it falls until the last step of "
        "--steps; constant: it stays at the peak; wsd (warmup, stable, decay): it stays at the peak, and "
        "falls linearly in the last --cooldown steps"),
    ROW("Optimizer", "warmup", OPTION_INT, warmup, "40", 0, 1e9, "", OPTION_FIXED,
        "steps in which the learning rate rises linearly: in step i of N it is i/N of the peak"),
    ROW("Optimizer", "cooldown", OPTION_INT, cooldown, "0", 0, 1e9, "", OPTION_FIXED,
        "with --schedule=wsd: steps at the end of the run in which the learning rate falls; 0: a fifth of "
        "--steps"),
    ROW("Optimizer", "beta1", OPTION_FLOAT, beta1, "0.9", 0, 0.999999, "", OPTION_FIXED,
        "decay of the moving average of the gradient, the first moment"),
    ROW("Optimizer", "beta2", OPTION_FLOAT, beta2, "0.95", 0, 0.999999, "", OPTION_FIXED,
        "decay of the moving average of the squared gradient, the second moment"),
    ROW("Optimizer", "adam-eps", OPTION_FLOAT, adam_eps, "1e-8", 0, 1, "", OPTION_FIXED,
        "added to the square root of the second moment, by which AdamW divides"),
    ROW("Optimizer", "weight-decay", OPTION_FLOAT, weight_decay, "0.1", 0, 10, "", OPTION_FIXED,
        "each step shrinks the matrices by this times the learning rate (decoupled weight decay), but not "
        "the vectors, unless --decay=all"),
    ROW("Optimizer", "decay", OPTION_CHOICE, decay, "matrices", 0, 0, OPTION_CHOICES(DECAY_CHOICES),
        OPTION_FIXED,
        "what --weight-decay shrinks: the matrices, or all tensors, also the weights and biases of norms"),
    ROW("Optimizer", "z-loss", OPTION_FLOAT, z_loss, "0", 0, 1, "", OPTION_FIXED,
        "X: adds X times the mean of (log-sum-exp of a token's logits)^2 to the loss whose gradient is "
        "computed, which keeps the log-sum-exp near 0. The losses that are printed and logged are the "
        "cross-entropy without it; 0: nothing is added"),
    ROW("Optimizer", "clip", OPTION_FLOAT, clip, "1", 0, 1e9, "", OPTION_FIXED,
        "a gradient whose L2 norm over all parameters is larger than this is scaled down to it; 0: no "
        "gradient is scaled down"),
    ROW("Optimizer", "skip-spikes", OPTION_FLOAT, skip_spikes, "0", 0, 1e6, "", 0,
        "make no update in a step whose loss lies more than this many standard deviations above the mean of "
        "the latest 128 losses; 0: make the update whatever the loss. In either case steps more than 6 "
        "standard deviations above the mean are reported"),
    ROW("Optimizer", "max-skipped", OPTION_INT, max_skipped, "5", 1, 1e9, "", 0,
        "after this many steps in a row without an update (because a loss or gradient was NaN or infinite, "
        "or because of --skip-spikes) the run ends with a diagnosis"),

    ROW("Evaluation", "val-every", OPTION_INT, val_every, "40", 0, 1e9, "", 0,
        "steps between validations; 0: only after the last step"),
    ROW("Evaluation", "val-tokens", OPTION_INT, val_tokens, "65536", 0, 1e12, "", 0,
        "tokens of each validation, always the same ones; 0: all validation data"),
    ROW("Evaluation", "analyze-every", OPTION_INT, analyze_every, "0", 0, 1e9, "", 0,
        "steps between analyses of attention and its gradients, which go to log.jsonl and into ./report's "
        "report; 0: none. They change nothing in the training"),
    ROW("Evaluation", "sample-every", OPTION_INT, sample_every, "0", 0, 1e9, "", 0,
        "steps between printed samples; 0: none"),
    ROW("Evaluation", "sample-tokens", OPTION_INT, sample_tokens, "128", 1, 1e6, "", 0, "tokens of a sample"),
    ROW("Evaluation", "temperature", OPTION_FLOAT, temperature, "0.8", 0, 100, "", 0,
        "temperature at which samples are drawn; 0: always the most likely token"),
    ROW("Evaluation", "prompt", OPTION_STRING, prompt, "", 0, 0, "TEXT", 0, "text with which samples begin"),

    ROW("Checkpoints", "out", OPTION_STRING, out, "", 0, 0, "DIR", 0,
        "folder of the run, for config.json, log.jsonl and checkpoints; empty: nothing is written"),
    ROW("Checkpoints", "save-every", OPTION_INT, save_every, "0", 0, 1e9, "", 0,
        "steps between checkpoints; 0: only at the end and when the run is interrupted"),
    ROW("Checkpoints", "keep", OPTION_INT, keep, "2", 0, 1e9, "", 0,
        "how many of the newest checkpoints to keep; 0: all"),
    ROW("Checkpoints", "keep-every", OPTION_INT, keep_every, "0", 0, 1e9, "", 0,
        "also keep the checkpoints of all steps that are divisible by this; 0: none"),
    ROW("Checkpoints", "save-dtype", OPTION_CHOICE, save_dtype, "fp32", 0, 0,
        OPTION_CHOICES(SAVE_DTYPE_CHOICES), 0,
        "number format of model.safetensors. bf16: half the size, for those who use the model; the float32 "
        "weights, from which a run is resumed to the bit, are then in optimizer-weights.safetensors"),
    ROW("Checkpoints", "resume", OPTION_STRING, resume, "no", 0, 0, "auto|no|DIR", 0,
        "auto: go on from the newest complete checkpoint of --out, if there is one; no: begin at step 0; "
        "DIR: go on from this checkpoint"),
    ROW("Checkpoints", "resume-data", OPTION_CHOICE, resume_data, "same", 0, 0,
        OPTION_CHOICES(RESUME_DATA_CHOICES), OPTION_ONCE,
        "whether a resumed run may read data (text, tokenizer, shards, weights of a mixture) that differ "
        "from those its checkpoint was trained on. same: such a run ends with an error; changed: it goes on "
        "with what --data holds now"),
    ROW("Checkpoints", "resume-schedule", OPTION_CHOICE, resume_schedule, "same", 0, 0,
        OPTION_CHOICES(RESUME_SCHEDULE_CHOICES), OPTION_ONCE,
        "whether a resumed run may have other --steps, --lr, --lr-min, --schedule, --warmup or --cooldown "
        "than its "
        "checkpoint. changed: it goes on with those that are given now, as to extend a finished run, or to "
        "let the "
        "rate fall from a checkpoint of a longer run"),

    ROW("Machine", "threads", OPTION_INT, threads, "0", 0, 4096, "", OPTION_OWN,
        "OpenMP threads per rank; 0: as many as the environment variable OMP_NUM_THREADS says; where it is "
        "not "
        "set, one for each core that the rank may use"),
    ROW("Machine", "dtype", OPTION_CHOICE, dtype, "auto", 0, 0, OPTION_CHOICES(DTYPE_CHOICES), OPTION_FIXED,
        "number format of the operands of matrix products; sums, RMSNorm, softmax and weights are always "
        "float32. auto: bf16 if the processors of all ranks multiply it faster, else fp32"),
    ROW("Machine", "recompute", OPTION_CHOICE, recompute, "none", 0, 0, OPTION_CHOICES(RECOMPUTE_CHOICES), 0,
        "what the backward pass computes again instead of keeping it in memory: nothing, attention, or "
        "everything in a block but its input; the results are the same bits"),
    ROW("Machine", "profile", OPTION_SWITCH, profile, "no", 0, 0, "", OPTION_OWN,
        "print at the end how much time each part of the model took"),
    ROW("Several ranks (MPI)", "zero", OPTION_INT, zero, "1", 0, 1, "", 0,
        "1: each rank keeps the optimizer's moments for a share of the parameters (ZeRO stage 1); 0: each "
        "rank keeps "
        "them for all; the result is the same"),
    ROW("Several ranks (MPI)", "comm", OPTION_CHOICE, comm, "auto", 0, 0, OPTION_CHOICES(COMM_CHOICES), 0,
        "how ranks exchange gradients and weights: from GPU to GPU through NCCL (gpu) or from host to host "
        "through MPI (host); auto: gpu where the program has NCCL"),
    ROW("Several ranks (MPI)", "comm-dtype", OPTION_CHOICE, comm_dtype, "fp32", 0, 0,
        OPTION_CHOICES(COMM_DTYPE_CHOICES), 0,
        "number format in which gradients are sent from host to host; they are added in float32"),
    ROW("Several ranks (MPI)", "comm-thread", OPTION_SWITCH, comm_thread, "yes", 0, 0, "", 0,
        "a thread of its own sends gradients and weights from host to host while the step computes; no: they "
        "are sent between the parts of the step"),
};
#undef ROW
enum { TRAIN_OPTION_COUNT = sizeof train_options / sizeof *train_options };
_Static_assert((int)TRAIN_OPTION_COUNT <= (int)OPTIONS_MAX, "raise OPTIONS_MAX");

/* The runs on C4 in the LASER paper (arXiv:2411.03493).
   Published: 32 layers, 8 heads of size 128, C = 1024, an MLP without gate and with 2048 hidden units, T = 1024, input
   and output embedding tied, 1024 sequences a step, 160,000 steps, AdamW, linear warmup, cosine to zero. There is also
   a model of 16 layers, and the smallest model has 234 million parameters.
   Inferred: the model of 16 layers is that smallest one. With a hidden size of 4096 it has 234,094,592 parameters in
   matrices; with 2048 it would have 167 million.
   Defaults of the authors' framework for C4: gelu, V = 32000, betas 0.9/0.99, eps 1e-6.
   Not published, chosen here: rope, peak learning rate 1e-3, weight decay 0.1, clip 1, warmup of 2,000 steps. */
#define PRESET_C4                                                                                            \
    "heads=8 head-dim=128 embd=1024 activation=gelu pos=rope seq-len=1024 vocab-size=32000 "                 \
    "batch=8 total-batch=1048576 steps=160000 lr=1e-3 lr-min=0 schedule=cosine warmup=2000 beta1=0.9 "       \
    "beta2=0.99 adam-eps=1e-6 weight-decay=0.1 clip=1 val-every=500 val-tokens=1048576 save-every=500"

/* What c4-301m-pax changes, in the order of the options.
   Published in the paper: what PRESET_C4 has as published.
   Defaults of PAX for C4 (its C4 experiments and the layers of praxis): LayerNorm before each block, with a bias;
   sinusoidal positions; biases in the MLP, none in attention; a learned scale for each dimension of q; caps of 50 on
   scores and 30 on logits; embeddings N(0, 1/sqrt(C)), multiplied by sqrt(C); Xavier's initial matrices; weight decay
   1e-3 on all tensors; clip 5; warmup of 4,000 steps; peak learning rate 1e-3; betas 0.9/0.99, eps 1e-6.
   Guessed here: that the authors changed none of these, and that the learning rate falls to zero by a cosine.
   Not done here: PAX also has a bias at the output, limits the update of each tensor, stores the weight of a norm as
   its difference from 1, which decay then pulls to 1 and not to 0, and spaces the frequencies of the sinusoids a
   little wider (C/2 - 1 steps from 1 to 10,000, not C/2). */
#define PRESET_PAX                                                                                           \
    "attn-scale=dim attn-softcap=50 pos=sinusoidal norm=layernorm bias=mlp embed-scale=yes "                 \
    "init-weights=xavier logit-softcap=30 warmup=4000 decay=all weight-decay=1e-3 clip=5"

static const OptionPreset train_presets[] = {
    {"demo", "", "the defaults: 4.5 million parameters, minutes on two cores"},
    {"c4-301m", "layers=32 mlp-hidden=2048 " PRESET_C4,
     "the main model of the LASER paper, 301 million parameters"},
    {"c4-16l", "layers=16 mlp-hidden=4096 " PRESET_C4,
     "the 16-layer model of the LASER paper, 234 million parameters"},
    {"c4-301m-pax", "layers=32 mlp-hidden=2048 " PRESET_C4 " " PRESET_PAX,
     "the same model in the form that the published C4 configuration of the authors' framework, PAX, has"},
    {"gpt2-124m",
     "layers=12 heads=12 head-dim=64 embd=768 mlp-hidden=3072 activation=gelu pos=learned seq-len=1024 "
     "vocab-size=50257 batch=4 total-batch=524288 steps=19073 lr=6e-4 lr-min=0.1 warmup=700 beta2=0.95 "
     "weight-decay=0.1 val-every=250 val-tokens=1048576 save-every=500",
     "the shape of GPT-2 124M (without biases), 10B tokens"},
    {NULL, NULL, NULL},
};

#endif
