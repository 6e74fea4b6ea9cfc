/* dry_run.h: --dry-run: prints what a run would be, the memory that it would take, and how long it would take. The time is
   estimated from a small piece of a step that is really computed: the same model with fewer sequences, fewer layers and, when
   that is not enough, shorter sequences, so that it takes a second or two. The time of each part of the piece is multiplied by
   the ratio of the part's work in the whole step to its work in the piece. Widths and vocabulary stay, because they decide how
   fast the products are.

   dry_run(run, optimizer, memory, work, measure)   `work` and `measure` are the trainer's, see below. Every rank calls it */
#ifndef GPT_RUN_DRY_RUN_H
#define GPT_RUN_DRY_RUN_H

#include "setup.h"

#define DRY_RUN_SECONDS 0.5 /* that a micro-step of the piece should take, about */

/* The work of a micro-step of a model. */
typedef struct {
    int layers, seq_len, batch;
    double parameters, matrix_parameters; /* all; those that take part in products of matrices */
    double operations;                    /* floating-point operations in all */
    double part_operations
        [PROFILE_PARTS]; /* of a part, forward and backward; 0 where they do not decide its time */
} DryRunWork;

/* The work of a micro-step with these options. */
typedef DryRunWork DryRunWorkOf(const Run *run, const Options *options);
/* Computes steps with these options on random tokens. Sets seconds (PROFILE_PARTS) to the time of each part in the fastest of
   them, and *loss to the first loss. False, on every rank, when one rank lacks the memory. */
typedef bool DryRunMeasure(const Run *run, Options *options, double *seconds, double *loss);

static inline Options dry_run_piece(const Run *run, DryRunWorkOf *work) {
    Options piece = *run->options;
    const double most = 0.6 * run->peak_flops * DRY_RUN_SECONDS;
    piece.total_batch = 0;
    while (piece.batch > 1 && work(run, &piece).operations > most) piece.batch = piece.batch / 2;
    while (piece.layers > 1 && work(run, &piece).operations > most) piece.layers = piece.layers / 2;
    while (piece.seq_len > 64 && work(run, &piece).operations > most) piece.seq_len = piece.seq_len / 2;
    return piece;
}

/* Whether a part is done once a step, however many micro-steps the step has; its work goes with the parameters. */
static inline bool is_once_a_step(ProfilePart part) {
    return part == PROFILE_UPDATE || part == PROFILE_REDUCE || part == PROFILE_PACK;
}

/* The ratio of a part's work in a micro-step of the whole to its work in one of the piece. */
static inline double dry_run_factor(const DryRunWork *whole, const DryRunWork *piece, ProfilePart part) {
    if (piece->part_operations[part] > 0) return whole->part_operations[part] / piece->part_operations[part];
    if (is_once_a_step(part)) return whole->parameters / piece->parameters;
    double factor = (double)whole->layers / piece->layers;
    if (part == PROFILE_CROSS_ENTROPY || part == PROFILE_EMBEDDING || part == PROFILE_DATA) factor = 1;
    return factor * whole->batch * whole->seq_len / ((double)piece->batch * piece->seq_len);
}

/* Prints the time of a step; seconds (PROFILE_PARTS) are those of the piece. */
static inline void dry_run_print_time(const Run *run, const DryRunWork *whole, const DryRunWork *piece,
                                      const double *seconds, double loss) {
    char step_text[FORMAT_SIZE], run_text[FORMAT_SIZE];
    const double tokens = (double)run_tokens_per_step(run);
    const double operations = whole->operations / ((double)whole->batch * whole->seq_len); /* a token's */
    double micro = 0, update = 0;
    profile_reset();
    for (int part = 0; part < PROFILE_PARTS; part++) {
        profile_state.seconds[part] = seconds[part] * dry_run_factor(whole, piece, (ProfilePart)part);
        *(is_once_a_step((ProfilePart)part) ? &update : &micro) += profile_state.seconds[part];
    }
    const double step = micro * (double)run->micro_steps + update, rate = tokens / step;
    printf("first loss %.3f (ln V = %.3f)\n", loss, log((double)run->options->vocab_size));
    printf("%.1f tokens/s, %.1f %% of the measured peak of %.0f GFLOP/s\n", rate,
           100 * rate * operations / (run->peak_flops * parallel_ranks()), run->peak_flops / 1e9);
    printf("a step would take %s, the run %s\n", duration_words(step_text, step),
           duration_words(run_text, step * (double)run->options->steps));
    profile_print(whole->part_operations, run->peak_flops);
}

static inline void dry_run(Run *run, const ShardedOptimizer *optimizer, const ModelMemory *memory,
                           DryRunWorkOf *work_of, DryRunMeasure *measure) {
    if (parallel_rank() != 0 && !freopen("/dev/null", "w", stdout)) return; /* rank 0 prints for all */
    const DryRunWork whole = work_of(run, run->options);
    const TensorTable *parameters = &optimizer->parameters;
    const int64_t have = hosts_memory_available();
    double seconds[PROFILE_PARTS], loss;
    char sharing[32] = "";
    if (hosts_local_ranks() > 1)
        snprintf(sharing, sizeof sharing, " for each of %d ranks", hosts_local_ranks());
    printf("\n");
    tensors_print(parameters, whole.layers);
    printf("matrix parameters %.0f (%.1fM), %.4g floating-point operations a token\n",
           whole.matrix_parameters, whole.matrix_parameters / 1e6,
           whole.operations / ((double)whole.batch * whole.seq_len));
    if (memory_plan(run, optimizer, memory, true, true) > have &&
        memory_plan(run, optimizer, memory, false, false) > have)
        printf("\nIt does not fit: %.1f GiB are free here%s; lower --batch (or the model's size).\n",
               (double)have / 0x1p30, sharing);
    /* All ranks must choose the same piece. */
    run->peak_flops = parallel_sum_double(run->peak_flops) / parallel_ranks();
    Options options = dry_run_piece(run, work_of);
    const DryRunWork piece = work_of(run, &options);
    fflush(stdout);
    if (!measure(run, &options, seconds, &loss)) {
        printf("No step was timed: not even a small piece of one fits.\n");
        return;
    }
    if (piece.batch == whole.batch && piece.layers == whole.layers && piece.seq_len == whole.seq_len)
        printf("\nestimated from one micro-step and one update\n");
    else
        printf("\nestimated from a micro-step of %d sequence%s of %d tokens through %d layer%s, each part "
               "times\nits operations in the whole\n",
               piece.batch, piece.batch > 1 ? "s" : "", piece.seq_len, piece.layers,
               piece.layers > 1 ? "s" : "");
    dry_run_print_time(run, &whole, &piece, seconds, loss);
}

#endif
