/* profile.h: how the time of a training step is divided among the parts of the model.

   profile(PROFILE_NORM)      the time from here to the next call counts as that of RMSNorm. Only the thread that runs
                              the step calls it, outside of parallel loops. A call takes about 20 ns
   profile_reset()            sets all times to 0
   profile_print(flops, peak) prints a table of the parts: seconds, share of all time, and which share of `peak`, a rate
                              in floating-point operations a second, the part reached. flops[PROFILE_PARTS] are the
                              operations of each part since profile_reset; 0: not known */
#ifndef GPT_BASE_PROFILE_H
#define GPT_BASE_PROFILE_H

#include <stdio.h>
#include <string.h>
#include "clock.h"

/* The parts: the name of each in the code, and in the table that profile_print prints. */
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

static struct {
    ProfilePart now;               /* the part whose time is running */
    double since;                  /* seconds_now() when it began */
    double seconds[PROFILE_PARTS]; /* of each part so far */
} profile_state;

static inline void profile(ProfilePart part) {
    const double now = seconds_now();
    profile_state.seconds[profile_state.now] += now - profile_state.since;
    profile_state.since = now;
    profile_state.now = part;
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
