/* loss_watch.h: whether the update of a training step is to be made, judged from its loss and gradient norm.

   A loss is compared with the window: the losses of the latest LOSS_WINDOW steps whose update was made.

   loss_watch_judge(&watch, loss, norm, skip_spikes, &z)   called before the update of each step. `norm` is the L2 norm
                                                           of the gradient. z becomes the distance of the loss above the
                                                           mean of the window, in standard deviations. Records the step
                                                           and returns one of:
       STEP_SOUND              make the update
       STEP_SPIKE              make the update, and report the step: z exceeds LOSS_SPIKE
       STEP_SKIPPED_SPIKE      make no update: z exceeds skip_spikes, which is above 0
       STEP_SKIPPED_NONFINITE  make no update: the loss or the norm is NaN or infinite
   When a step is skipped, the weights, AdamW's moments and the window stay as they are; its data is not read again.
   The verdict depends only on the watch, the loss and the norm. These are the same on all ranks (the processes that
   mpirun starts), so all ranks come to the same verdict.
   loss_watch_to_json(&watch), loss_watch_from_json(&watch, json)   for the checkpoint: a resumed run judges as the
                                                           uninterrupted run would */
#ifndef GPT_RUN_LOSS_WATCH_H
#define GPT_RUN_LOSS_WATCH_H

#include <cjson/cJSON.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include "../io/json.h"

/* How many losses the window holds at most; with fewer than LOSS_WINDOW_LEAST in it no loss is called a spike. */
enum { LOSS_WINDOW = 128, LOSS_WINDOW_LEAST = 32 };
/* A loss that lies more than this many standard deviations above the mean of the window is a spike. */
#define LOSS_SPIKE 6.0

typedef struct {
    /* The window, a ring buffer: the loss of the next accepted step goes to losses[accepted % LOSS_WINDOW]. */
    double losses[LOSS_WINDOW];
    int64_t accepted;         /* steps whose update was made */
    int64_t skipped;          /* steps without an update */
    int64_t skipped_in_a_row; /* the latest of them, since the last update */
} LossWatch;

typedef enum { STEP_SOUND, STEP_SPIKE, STEP_SKIPPED_SPIKE, STEP_SKIPPED_NONFINITE } StepVerdict;

/* Whether the step must leave weights and moments as they are. */
static inline bool step_is_skipped(StepVerdict verdict) { return verdict >= STEP_SKIPPED_SPIKE; }

/* How many losses the window holds. */
static inline int loss_watch_count(const LossWatch *watch) {
    return watch->accepted < LOSS_WINDOW ? (int)watch->accepted : LOSS_WINDOW;
}

/* The mean of the window; NaN when it is empty. */
static inline double loss_watch_mean(const LossWatch *watch) {
    const int n = loss_watch_count(watch);
    double sum = 0;
    for (int i = 0; i < n; i++) sum += watch->losses[i];
    return n ? sum / n : NAN;
}

/* The distance of `loss` above the mean of the window, in standard deviations; NaN while the window holds too few
   losses. The standard deviation counts as at least a thousandth of the mean: otherwise, once the losses of a run have
   become almost equal, a small change would be a spike. */
static inline double loss_watch_z(const LossWatch *watch, double loss) {
    const int n = loss_watch_count(watch);
    if (n < LOSS_WINDOW_LEAST || !isfinite(loss)) return NAN;
    double mean = loss_watch_mean(watch), squares = 0;
    for (int i = 0; i < n; i++) squares += (watch->losses[i] - mean) * (watch->losses[i] - mean);
    double deviation = sqrt(squares / n), least = 1e-3 * fabs(mean);
    deviation = deviation > least ? deviation : least;
    return deviation > 0 ? (loss - mean) / deviation : NAN;
}

static inline StepVerdict loss_watch_judge(LossWatch *watch, double loss, double norm, double skip_spikes,
                                           double *z) {
    StepVerdict verdict = STEP_SOUND;
    *z = loss_watch_z(watch, loss);
    if (!isfinite(loss) || !isfinite(norm))
        verdict = STEP_SKIPPED_NONFINITE;
    else if (skip_spikes > 0 && *z > skip_spikes)
        verdict = STEP_SKIPPED_SPIKE;
    else if (*z > LOSS_SPIKE)
        verdict = STEP_SPIKE;
    if (step_is_skipped(verdict)) {
        watch->skipped++, watch->skipped_in_a_row++;
        return verdict;
    }
    watch->losses[watch->accepted++ % LOSS_WINDOW] = loss;
    watch->skipped_in_a_row = 0;
    return verdict;
}

/* The window is written with the oldest loss first. The caller owns the object. */
static inline cJSON *loss_watch_to_json(const LossWatch *watch) {
    cJSON *json = cJSON_CreateObject(), *losses;
    json_add_number(json, "accepted", (double)watch->accepted);
    json_add_number(json, "skipped", (double)watch->skipped);
    json_add_number(json, "skipped_in_a_row", (double)watch->skipped_in_a_row);
    losses = cJSON_AddArrayToObject(json, "losses");
    for (int64_t i = watch->accepted - loss_watch_count(watch); i < watch->accepted; i++) {
        char number[32];
        json_number_text(number, sizeof number, watch->losses[i % LOSS_WINDOW], 17);
        cJSON_AddItemToArray(losses, cJSON_CreateRaw(number));
    }
    return json;
}

/* False when `json` is not what loss_watch_to_json writes. NULL gives an empty watch: checkpoints of older versions
   have none. */
static inline bool loss_watch_from_json(LossWatch *watch, const cJSON *json) {
    *watch = (LossWatch){0};
    if (!json) return true;
    const cJSON *losses = cJSON_GetObjectItemCaseSensitive(json, "losses"), *loss;
    if (!json_whole(cJSON_GetObjectItemCaseSensitive(json, "accepted"), 0x1p53, &watch->accepted) ||
        !json_whole(cJSON_GetObjectItemCaseSensitive(json, "skipped"), 0x1p53, &watch->skipped) ||
        !json_whole(cJSON_GetObjectItemCaseSensitive(json, "skipped_in_a_row"), 0x1p53,
                    &watch->skipped_in_a_row) ||
        cJSON_GetArraySize(losses) != loss_watch_count(watch))
        return false;
    int64_t i = watch->accepted - loss_watch_count(watch);
    cJSON_ArrayForEach(loss, losses) {
        if (!cJSON_IsNumber(loss) || !isfinite(loss->valuedouble)) return false;
        watch->losses[i++ % LOSS_WINDOW] = loss->valuedouble;
    }
    return true;
}

#endif
