/* dry_run.h: --dry-run prints what a run would be, the memory that it would take, and how long it would take.

   The time is estimated from a piece of a step that is really computed: the same model with fewer sequences, fewer
   layers and, when that is not enough, shorter sequences, so that it takes a second or two. The time of each part of
   the piece is multiplied by the ratio of that part's work in the whole step to its work in the piece. Width and
   vocabulary of the piece are those of the run, because they decide how fast the products are.

   dry_run(run, optimizer, memory, work, measure)   does all of this. `memory` is what the model needs (memory_plan.h);
                                                    `work` and `measure` are functions of the trainer, see below. Every
                                                    rank calls it; rank 0 prints */
#ifndef GPT_RUN_DRY_RUN_H
#define GPT_RUN_DRY_RUN_H

#include "../base/format.h"
#include "../base/profile.h"
#include "memory_plan.h"

#define DRY_RUN_SECONDS 0.5 /* about what a micro-step of the piece should take */

/* The work of a micro-step of a model. */
typedef struct {
    int layers, seq_len, batch;
    double parameters;        /* how many the model has */
    double matrix_parameters; /* how many of them take part in matrix products */
    double operations;        /* floating-point operations of forward and backward */
    /* Those of each part of --profile; 0 where they do not decide how long the part takes. */
    double part_operations[PROFILE_PARTS];
} DryRunWork;

/* Returns the work of a micro-step with these options; the trainer knows the model. */
typedef DryRunWork DryRunWorkOf(const Run *run, const Options *options);
/* Computes a few steps with these options on random tokens. Sets seconds (PROFILE_PARTS) to the time of each part in
   the fastest of them, and *loss to the loss of the first. False, on every rank, when one rank lacks the memory. */
typedef bool DryRunMeasure(const Run *run, Options *options, double *seconds, double *loss);

/* The options of the piece: those of the run with as much work as fits DRY_RUN_SECONDS, at 60 % of the measured peak.
   */
static inline Options dry_run_piece(const Run *run, DryRunWorkOf *work) {
    Options piece = *run->options;
    const double most = 0.6 * run->peak_flops * DRY_RUN_SECONDS;
    piece.total_batch = 0;
    while (piece.batch > 1 && work(run, &piece).operations > most) piece.batch = piece.batch / 2;
    while (piece.layers > 1 && work(run, &piece).operations > most) piece.layers = piece.layers / 2;
    while (piece.seq_len > 64 && work(run, &piece).operations > most) piece.seq_len = piece.seq_len / 2;
    return piece;
}

/* Whether a part is done once a step, not once a micro-step. The work of such a part is proportional to the
   parameters. */
static inline bool is_once_a_step(ProfilePart part) {
    return part == PROFILE_UPDATE || part == PROFILE_REDUCE || part == PROFILE_PACK;
}

/* By what the time of a part of the piece is multiplied: the ratio of its work in the run's micro-step to that in the
   piece's. Where operations do not decide, the work is proportional to tokens and, for parts inside layers, to
   layers. */
static inline double dry_run_factor(const DryRunWork *whole, const DryRunWork *piece, ProfilePart part) {
    if (piece->part_operations[part] > 0) return whole->part_operations[part] / piece->part_operations[part];
    if (is_once_a_step(part)) return whole->parameters / piece->parameters;
    double factor = (double)whole->layers / piece->layers;
    if (part == PROFILE_CROSS_ENTROPY || part == PROFILE_EMBEDDING || part == PROFILE_DATA) factor = 1;
    return factor * whole->batch * whole->seq_len / ((double)piece->batch * piece->seq_len);
}

/* Prints the time of a step of the run, estimated from seconds (PROFILE_PARTS), those of the piece. */
static inline void dry_run_print_time(const Run *run, const DryRunWork *whole, const DryRunWork *piece,
                                      const double *seconds, double loss) {
    char step_text[FORMAT_SIZE], run_text[FORMAT_SIZE];
    const double tokens = (double)run_tokens_per_step(run);
    const double operations_per_token = whole->operations / ((double)whole->batch * whole->seq_len);
    double micro = 0, update = 0;
    profile_reset();
    for (int part = 0; part < PROFILE_PARTS; part++) {
        profile_state.seconds[part] = seconds[part] * dry_run_factor(whole, piece, (ProfilePart)part);
        *(is_once_a_step((ProfilePart)part) ? &update : &micro) += profile_state.seconds[part];
    }
    const double step = micro * (double)run->micro_steps + update, rate = tokens / step;
    printf("first loss %.3f (ln V = %.3f)\n", loss, log((double)run->options->vocab_size));
    printf("%.1f tokens/s, %.1f %% of the measured peak of %.0f GFLOP/s\n", rate,
           100 * rate * operations_per_token / (run->peak_flops * parallel_ranks()), run->peak_flops / 1e9);
    printf("a step would take %s, the run %s\n", duration_words(step_text, step),
           duration_words(run_text, step * (double)run->options->steps));
    profile_print(whole->part_operations, run->peak_flops);
}

/* Prints the model's parameters and the memory of the run, and whether that fits into this machine. */
static inline void dry_run_print_memory(const Run *run, const ShardedOptimizer *optimizer,
                                        const ModelMemory *memory, const DryRunWork *whole) {
    const int64_t have = hosts_memory_available();
    char sharing[32] = "";
    if (hosts_local_ranks() > 1)
        snprintf(sharing, sizeof sharing, " for each of %d ranks", hosts_local_ranks());
    printf("\n");
    tensors_print(&optimizer->parameters, whole->layers);
    printf("matrix parameters %.0f (%.1fM), %.4g floating-point operations a token\n",
           whole->matrix_parameters, whole->matrix_parameters / 1e6,
           whole->operations / ((double)whole->batch * whole->seq_len));
    memory_print(run, optimizer, memory);
    if (memory_needed(run, optimizer, memory, false) > have)
        printf("\nIt does not fit: %.1f GiB are free here%s; lower --batch (or the model's size).\n",
               (double)have / 0x1p30, sharing);
}

/* Computes the piece and prints the estimate. */
static inline void dry_run_estimate(Run *run, const DryRunWork *whole, DryRunWorkOf *work_of,
                                    DryRunMeasure *measure) {
    double seconds[PROFILE_PARTS], loss;
    /* The mean of the measured peaks, so that all ranks choose the same piece. */
    run->peak_flops = parallel_sum_double(run->peak_flops) / parallel_ranks();
    Options options = dry_run_piece(run, work_of);
    const DryRunWork piece = work_of(run, &options);
    fflush(stdout);
    if (!measure(run, &options, seconds, &loss)) {
        printf("No step was timed: not even a small piece of one fits.\n");
        return;
    }
    if (piece.batch == whole->batch && piece.layers == whole->layers && piece.seq_len == whole->seq_len)
        printf("\nestimated from one micro-step and one update\n");
    else
        printf("\nestimated from a micro-step of %d sequence%s of %d tokens through %d layer%s, each part "
               "times\nits operations in the whole\n",
               piece.batch, piece.batch > 1 ? "s" : "", piece.seq_len, piece.layers,
               piece.layers > 1 ? "s" : "");
    dry_run_print_time(run, whole, &piece, seconds, loss);
}

static inline void dry_run(Run *run, const ShardedOptimizer *optimizer, const ModelMemory *memory,
                           DryRunWorkOf *work_of, DryRunMeasure *measure) {
    if (parallel_rank() != 0 && !freopen("/dev/null", "w", stdout)) return; /* rank 0 prints for all */
    const DryRunWork whole = work_of(run, run->options);
    dry_run_print_memory(run, optimizer, memory, &whole);
    dry_run_estimate(run, &whole, work_of, measure);
}

#endif
