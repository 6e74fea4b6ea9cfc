/* profile.h: where the time of a step goes, by part of the model.

   profile(PROFILE_NORM)      from here on time belongs to the norms; a heading that measures. Called by the thread that
                              runs the step, between parallel loops: some 20 ns a call.
   profile_reset()            forgets what was measured so far
   profile_print(flops, peak) a table of the parts: seconds, share of the time, and, where `flops` (PROFILE_PARTS) knows
                              the operations a part did since profile_reset, the share of `peak` it reached */
#ifndef GPT_BASE_PROFILE_H
#define GPT_BASE_PROFILE_H

#include <stdio.h>
#include <string.h>
#include "clock.h"

/* Each part once: its name in the code and in the table. */
#define PROFILE_EACH(X)                                                                                      \
    X(OTHER, "everything else")                                                                              \
    X(DATA, "reading tokens")                                                                                \
    X(EMBEDDING, "embedding")                                                                                \
    X(NORM, "RMSNorm")                                                                                       \
    X(QKV, "q, k, v products")                                                                               \
    X(ROPE, "rope")                                                                                          \
    X(ATTENTION, "attention")                                                                                \
    X(PROJECTION, "attention's output product")                                                              \
    X(MLP_UP, "MLP up products")                                                                             \
    X(ACTIVATION, "activation")                                                                              \
    X(MLP_DOWN, "MLP down products")                                                                         \
    X(LOGITS, "output products")                                                                             \
    X(CROSS_ENTROPY, "cross-entropy")                                                                        \
    X(REDUCE, "summing gradients over ranks")                                                                \
    X(UPDATE, "norm of the gradient, AdamW")                                                                 \
    X(PACK, "packing weights")

#define PROFILE_ENUM(part, text) PROFILE_##part,
#define PROFILE_TEXT(part, text) text,
typedef enum { PROFILE_EACH(PROFILE_ENUM) PROFILE_PARTS } ProfilePart;
static const char *const profile_names[PROFILE_PARTS] = {PROFILE_EACH(PROFILE_TEXT)};

static void (*profile_between)(
    void); /* when set, called at every heading: what wants a moment now and then */

static struct {
    ProfilePart now;
    double since, seconds[PROFILE_PARTS];
} profile_state;

static inline void profile(ProfilePart part) {
    const double now = seconds_now();
    profile_state.seconds[profile_state.now] += now - profile_state.since;
    profile_state.since = now;
    profile_state.now = part;
    if (profile_between) profile_between();
}

static inline void profile_reset(void) {
    memset(&profile_state, 0, sizeof profile_state);
    profile_state.since = seconds_now();
}

static inline void profile_print(const double *flops, double peak) {
    double sum = 0;
    profile(PROFILE_OTHER);
    for (int i = 0; i < PROFILE_PARTS; i++) sum += profile_state.seconds[i];
    printf("\n%-32s %10s %8s %8s\n", "part of the step", "seconds", "share", "of peak");
    for (int i = 0; i < PROFILE_PARTS; i++) {
        const double seconds = profile_state.seconds[i];
        if (seconds == 0) continue;
        printf("%-32s %10.3f %6.1f %%", profile_names[i], seconds, 100 * seconds / sum);
        if (flops[i] > 0) printf(" %6.1f %%", 100 * flops[i] / (seconds * peak));
        printf("\n");
    }
    printf("%-32s %10.3f\n", "all", sum);
}

#endif
