/* report_arms.h: groups runs that differ only in their seed. Such a group is called an arm, as in an experiment. The
   report shows an arm as it shows a run, with means for curves and losses, and compares arms in sentences that say no
   more than the intervals do.

   arms_gather(arms, runs, count)   groups the runs; false when no arm has two of them, so that there is nothing to
                                    average, or when there are too many arms to draw. The runs must stay where they are.
                                    arms_free when done
   arms_compare(a, b)               whether two runs belong to the same arm
   arm_figures[], arm_figure_text   the columns of the table of arms, and the text of a cell
   arms_sentences(arms, see, context)   calls see() with each sentence that compares an arm with the first one;
                                    arms_notes does the same with what a reader has to know beside them
   arms_csv(path, arms)             writes a line for each arm

   Which options count: those that a run cannot change when it is resumed (OPTION_FIXED in train_options.h) without the
   seed, and the few others that change what is trained or measured (arm_more_options). An option that config.json does
   not have has its default, as when a run is resumed. An option that the table does not have counts as well.

   An arm holds the runs that are finished, with a final validation loss that is a number, and one for each seed. Every
   other run is left out, and a note says which and why. Two arms are compared by pairs: the runs that have the same seed
   read the same data in the same order. */
#ifndef TOOLS_REPORT_ARMS_H
#define TOOLS_REPORT_ARMS_H

#include "../gpt/run/train_options.h"
#include "report_plot.h"
#include "statistics.h"

enum { ARM_RUNS_MAX = 512, ARM_NOTES_MAX = 12, ARM_TEXT_SIZE = 1024, ARM_LABEL_COLUMNS = 44 };

/* Says whether runs of the same arm must have the same value of an option. */
typedef bool ArmOptionCounts(const Option *option);

typedef struct {
    const Run *runs[ARM_RUNS_MAX]; /* [count], in order of their seeds */
    int count;
    StatSample loss, perplexity,
        bits;                   /* of the finished runs: final validation loss, its exp, bits per byte */
    StatSample difference;      /* of the pairs: this arm's final loss minus the first arm's */
    StatSample bits_difference; /* the same of bits per byte; n is 0 where they are not known */
    double step_seconds;        /* the mean over the runs; NaN: not known */
    /* At which step this arm's mean loss comes down to the first arm's final mean, and the first arm's to this one's;
       NaN: it does not. */
    double reaches_first, first_reaches;
} Arm;

typedef struct {
    Run *
        means; /* [count]: an arm as a run that can be drawn; what its config points to belongs to the arm's first run */
    Arm *arms;   /* [count] */
    Run *firsts; /* [count]: a copy of each arm's first run, for what is shown of one run only */
    int count;
    ArmOptionCounts *counts; /* which options may not differ within an arm, and so name the arms */
    bool same_machine;       /* whether all runs had the same processor, GPU, threads and ranks */
    char *notes[ARM_NOTES_MAX];
    int note_count, notes_left_out;
} Arms;

/* ---- which runs belong together ---- */

/* Options without OPTION_FIXED that change what is trained or what is measured. */
static const char *const arm_more_options[] = {"data", "val-tokens", "skip-spikes", "comm-dtype"};

static inline bool arm_option_counts(const Option *option) {
    if (strcmp(option->name, "seed") == 0) return false;
    for (size_t i = 0; i < sizeof arm_more_options / sizeof *arm_more_options; i++)
        if (strcmp(option->name, arm_more_options[i]) == 0) return true;
    return (option->flags & OPTION_FIXED) != 0;
}

/* The value of an option in a run, its default where the run's config.json does not have it. */
static inline const char *arm_option(const Run *run, const Option *option, char text[FORMAT_SIZE]) {
    const char *value = run_option(run, option->name, text);
    return cJSON_GetObjectItemCaseSensitive(run->options, option->name) ? value : option->value;
}

/* Whether two values are the same text or the same number. */
static inline bool arm_same_value(const char *a, const char *b) {
    char *end_a, *end_b;
    if (strcmp(a, b) == 0) return true;
    const double x = strtod(a, &end_a), y = strtod(b, &end_b);
    return *a && *b && !*end_a && !*end_b && x == y;
}

/* The value of an option that the table does not have; NULL where the table has it. */
static inline const cJSON *arm_unknown_option(const cJSON *item) {
    const bool known = item->string && options_find_in(train_options, TRAIN_OPTION_COUNT, item->string);
    return known || cJSON_IsObject(item) ? NULL : item;
}

/* Whether each option of `a` that the table does not have is the same in `b`. */
static inline bool arm_same_unknown(const Run *a, const Run *b) {
    const cJSON *item;
    cJSON_ArrayForEach(item, a->options) {
        if (!arm_unknown_option(item)) continue;
        if (!cJSON_Compare(item, cJSON_GetObjectItemCaseSensitive(b->options, item->string), true))
            return false;
    }
    return true;
}

static inline bool arms_compare_by(const Run *a, const Run *b, ArmOptionCounts *counts) {
    char x[FORMAT_SIZE], y[FORMAT_SIZE];
    if (a->options == a->config || b->options == b->config) return false; /* their options are not known */
    for (int i = 0; i < TRAIN_OPTION_COUNT; i++)
        if (counts(&train_options[i]) &&
            !arm_same_value(arm_option(a, &train_options[i], x), arm_option(b, &train_options[i], y)))
            return false;
    return arm_same_unknown(a, b) && arm_same_unknown(b, a);
}

static inline bool arms_compare(const Run *a, const Run *b) {
    return arms_compare_by(a, b, arm_option_counts);
}

static inline double arm_seed(const Run *run) {
    char text[FORMAT_SIZE];
    const char *seed = run_option(run, "seed", text);
    return *seed ? strtod(seed, NULL) : 1;
}

/* The step after which a run is finished, and the last one at which it was validated. */
static inline bool arm_run_is_finished(const Run *run) {
    char text[FORMAT_SIZE];
    const Series *losses = &run->curves[CURVE_VALIDATION];
    const double steps = strtod(run_option(run, "steps", text), NULL);
    return losses->count > 0 && losses->x[losses->count - 1] >= steps;
}

/* ---- notes ---- */

__attribute__((format(printf, 2, 3))) static inline void arms_note(Arms *arms, const char *format, ...) {
    char text[ARM_TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (arms->note_count == ARM_NOTES_MAX)
        arms->notes_left_out++;
    else
        arms->notes[arms->note_count++] = strcpy(check_calloc(strlen(text) + 1), text);
}

/* Whether a run has a final loss; else a note says that it is left out. */
static inline bool arm_takes(Arms *arms, const Run *run) {
    if (!arm_run_is_finished(run)) {
        arms_note(arms, "%s is left out: it is not finished.", run->name);
        return false;
    }
    if (!isfinite(run->val_loss)) {
        arms_note(arms,
                  "%s is left out: its final validation loss is not a number. The means are those of the "
                  "runs that did "
                  "not diverge.",
                  run->name);
        return false;
    }
    return true;
}

/* Inserts a run at place `at` of an arm. */
static inline void arm_insert(Arm *arm, int at, const Run *run) {
    memmove(&arm->runs[at + 1], &arm->runs[at], (size_t)(arm->count - at) * sizeof *arm->runs);
    arm->runs[at] = run;
    arm->count++;
}

/* Adds a run to an arm, or a note why it is left out. */
static inline void arm_add(Arms *arms, Arm *arm, const Run *run) {
    const double seed = arm_seed(run);
    int at = 0;
    if (!arm_takes(arms, run)) return;
    while (at < arm->count && arm_seed(arm->runs[at]) < seed) at++;
    if (at < arm->count && arm_seed(arm->runs[at]) == seed) {
        arms_note(arms, "%s is left out: it has the options and the seed of %s.", run->name,
                  arm->runs[at]->name);
        return;
    }
    arm_insert(arm, at, run);
}

/* ---- names ---- */

/* Whether the arms have different values of an option. */
static inline bool arms_differ_in(const Arms *arms, const Option *option) {
    char x[FORMAT_SIZE], y[FORMAT_SIZE];
    for (int k = 1; k < arms->count; k++)
        if (!arm_same_value(arm_option(arms->arms[0].runs[0], option, x),
                            arm_option(arms->arms[k].runs[0], option, y)))
            return true;
    return false;
}

/* What the names of an arm's runs begin with, without "seed" and separators at its end. */
static inline void arm_common_name(const Arm *arm, char *label, size_t size) {
    size_t n = strlen(arm->runs[0]->name);
    for (int r = 1; r < arm->count; r++)
        for (size_t i = 0; i < n; i++)
            if (arm->runs[r]->name[i] != arm->runs[0]->name[i]) n = i;
    while (n > 0 && strchr("-_./= ", arm->runs[0]->name[n - 1])) n--;
    if (arm->count > 1 && n > 4 && strncmp(arm->runs[0]->name + n - 4, "seed", 4) == 0) n -= 4;
    while (n > 0 && strchr("-_./= ", arm->runs[0]->name[n - 1])) n--;
    while (n > 0 && (arm->runs[0]->name[n] & 0xC0) == 0x80) n--;
    snprintf(label, size, "%.*s", (int)n, arm->runs[0]->name);
}

/* Names an arm by the options in which the arms differ, such as "laser" or "standard, lr=0.001". The value of a choice
   stands for itself. A name longer than a line could hold becomes what the names of its runs begin with. */
static inline void arm_name(Arms *arms, int k) {
    char label[ARM_TEXT_SIZE] = "", text[FORMAT_SIZE];
    const Run *run = arms->arms[k].runs[0];
    size_t used = 0;
    for (int i = 0; i < TRAIN_OPTION_COUNT; i++) {
        const Option *option = &train_options[i];
        const bool choice = option->type == OPTION_CHOICE;
        if (!arms->counts(option) || !arms_differ_in(arms, option)) continue;
        const char *value = arm_option(run, option, text);
        used += (size_t)snprintf(label + used, sizeof label - used, "%s%s%s%.200s", used ? ", " : "",
                                 choice ? "" : option->name, choice ? "" : "=", value);
        if (used > sizeof label / 2) break;
    }
    if (arms->count == 1)
        snprintf(label, sizeof label, "%s",
                 arm_option(run, options_find_in(train_options, TRAIN_OPTION_COUNT, "attn"), text));
    if (!*label || text_columns(label) > ARM_LABEL_COLUMNS)
        arm_common_name(&arms->arms[k], label, sizeof label);
    if (!*label) snprintf(label, sizeof label, "arm %d", k + 1);
    arms->means[k].name = text_shown(label);
}

/* Equal names get the number of their arm. */
static inline void arms_name(Arms *arms) {
    for (int k = 0; k < arms->count; k++) arm_name(arms, k);
    for (int k = 1; k < arms->count; k++)
        for (int j = 0; j < k; j++) {
            if (strcmp(arms->means[k].name, arms->means[j].name) != 0) continue;
            char *longer = check_calloc(strlen(arms->means[k].name) + 32);
            sprintf(longer, "%s (arm %d)", arms->means[k].name, k + 1);
            free(arms->means[k].name);
            arms->means[k].name = longer, j = -1;
        }
}

/* ---- means of curves ---- */

/* The value of a curve at a step, searched from *at on; NaN when the curve has none there. */
static inline double series_at(const Series *s, double x, int64_t *at) {
    while (*at < s->count && s->x[*at] < x) ++*at;
    return *at < s->count && s->x[*at] == x ? s->y[*at] : NAN;
}

/* The mean of n curves at the steps that the first one has, and `low` and `high` below and above it: by the 95 %
   interval of the mean or by the standard deviation. The mean is NaN where a curve has no finite value. */
static inline void series_mean(const Series *const *curves, int n, bool interval, Series *mean, Series *low,
                               Series *high) {
    int64_t *at = check_calloc((size_t)n * sizeof *at);
    double *values = check_calloc((size_t)n * sizeof *values);
    const double factor = n < 2 ? NAN : interval ? stat_t_quantile(STAT_LEVEL, n - 1) / sqrt(n) : 1;
    for (int64_t i = 0; n && i < curves[0]->count; i++) {
        const double x = curves[0]->x[i];
        for (int r = 0; r < n; r++) values[r] = series_at(curves[r], x, &at[r]);
        const double middle = stat_mean(values, n), half = factor * stat_deviation(values, n);
        series_add(mean, x, middle);
        if (n > 1) series_add(low, x, middle - half), series_add(high, x, middle + half);
    }
    free(at), free(values);
}

/* The curves of an arm's runs. */
static inline void arm_mean_curves(const Arm *arm, Run *mean) {
    const Series *curves[ARM_RUNS_MAX];
    for (int k = 0; k <= CURVE_COUNT; k++) {
        const bool smooth = k == CURVE_COUNT;
        for (int r = 0; r < arm->count; r++)
            curves[r] = smooth ? &arm->runs[r]->smooth : &arm->runs[r]->curves[k];
        if (smooth)
            series_mean(curves, arm->count, false, &mean->smooth, &mean->smooth_low, &mean->smooth_high);
        else
            series_mean(curves, arm->count, false, &mean->curves[k], &mean->low[k], &mean->high[k]);
    }
}

/* The run of an arm with this seed; NULL when there is none. */
static inline const Run *arm_find_seed(const Arm *arm, double seed) {
    for (int r = 0; r < arm->count; r++)
        if (arm_seed(arm->runs[r]) == seed) return arm->runs[r];
    return NULL;
}

/* The mean of a figure over the runs that have it; NaN when none has. */
static inline double arm_mean(const Arm *arm, size_t offset) {
    double values[ARM_RUNS_MAX];
    int n = 0;
    for (int r = 0; r < arm->count; r++) {
        const double value = *(const double *)(const void *)((const char *)arm->runs[r] + offset);
        if (isfinite(value)) values[n++] = value;
    }
    return stat_mean(values, n);
}

/* An arm as a run that can be drawn. */
static inline Run arm_as_run(const Arm *arm) {
    const Run *first = arm->runs[0];
    Run mean = run_unknown(first->folder);
    mean.config = first->config, mean.options = first->options;
    mean.tokens_per_step = first->tokens_per_step, mean.parameters = first->parameters;
    mean.seeds = arm->count;
    mean.train_loss = arm_mean(arm, offsetof(Run, train_loss)), mean.val_loss = arm->loss.mean;
    mean.bits_per_byte = arm->bits.mean, mean.step_seconds = arm->step_seconds;
    arm_mean_curves(arm, &mean);
    return mean;
}

/* ---- comparing ---- */

/* The step at which a curve first comes down to `loss`, between two validations on a straight line; NaN: never. */
static inline double series_reaches(const Series *s, double loss) {
    for (int64_t i = 0; i < s->count; i++) {
        if (!(s->y[i] <= loss)) continue;
        if (i == 0 || !isfinite(s->y[i - 1])) return s->x[i];
        return s->x[i - 1] + (s->x[i] - s->x[i - 1]) * (s->y[i - 1] - loss) / (s->y[i - 1] - s->y[i]);
    }
    return NAN;
}

/* The differences of the pairs: those at the end, and those along the curves. Names the seeds without a partner. */
static inline void arm_compare_with_first(Arms *arms, int k) {
    const Arm *first = &arms->arms[0];
    Arm *arm = &arms->arms[k];
    Run *mean = &arms->means[k];
    double differences[ARM_RUNS_MAX], bits[ARM_RUNS_MAX];
    Series curves[ARM_RUNS_MAX];
    const Series *pointers[ARM_RUNS_MAX];
    char alone[ARM_TEXT_SIZE / 2] = "";
    const bool same_steps = fabs(first->runs[0]->tokens_per_step - arm->runs[0]->tokens_per_step) <
                            0.01 * arm->runs[0]->tokens_per_step;
    int n = 0, unpaired = 0;
    for (int side = 0; side < 2; side++) {
        const Arm *own = side ? first : arm, *other = side ? arm : first;
        for (int r = 0; r < own->count; r++) {
            const size_t used = strlen(alone);
            const Run *partner = arm_find_seed(other, arm_seed(own->runs[r]));
            if (!partner && unpaired++ < 8)
                snprintf(alone + used, sizeof alone - used, "%s%s", used ? ", " : "", own->runs[r]->name);
            if (!partner || side) continue;
            differences[n] = own->runs[r]->val_loss - partner->val_loss;
            bits[n] = own->runs[r]->bits_per_byte - partner->bits_per_byte;
            curves[n] = series_difference(&partner->curves[CURVE_VALIDATION],
                                          &own->runs[r]->curves[CURVE_VALIDATION]);
            pointers[n] = &curves[n], n++;
        }
    }
    if (unpaired && n)
        arms_note(arms,
                  "Without a partner of the same seed, and so not in the difference of %s and %s: %s%s.",
                  mean->name, arms->means[0].name, alone, unpaired > 8 ? " and others" : "");
    arm->difference = stat_sample(differences, n);
    arm->bits_difference = stat_sample(bits, isfinite(stat_mean(bits, n)) ? n : 0);
    mean->pairs = n;
    if (same_steps)
        series_mean(pointers, n, true, &mean->difference, &mean->difference_low, &mean->difference_high);
    for (int i = 0; i < n; i++) series_free(&curves[i]);
    arm->reaches_first = series_reaches(&mean->curves[CURVE_VALIDATION], first->loss.mean);
    arm->first_reaches = series_reaches(&arms->means[0].curves[CURVE_VALIDATION], arm->loss.mean);
}

/* The final losses of an arm. */
static inline void arm_measure(Arm *arm) {
    double loss[ARM_RUNS_MAX], perplexity[ARM_RUNS_MAX], bits[ARM_RUNS_MAX];
    int with_bits = 0;
    for (int r = 0; r < arm->count; r++) {
        loss[r] = arm->runs[r]->val_loss, perplexity[r] = exp(loss[r]);
        if (isfinite(arm->runs[r]->bits_per_byte)) bits[with_bits++] = arm->runs[r]->bits_per_byte;
    }
    arm->loss = stat_sample(loss, arm->count), arm->perplexity = stat_sample(perplexity, arm->count);
    arm->bits = stat_sample(bits, with_bits == arm->count ? with_bits : 0);
    arm->step_seconds = arm_mean(arm, offsetof(Run, step_seconds));
}

/* Whether two runs had the same machine, as far as it decides how long a step takes. */
static inline bool arm_same_machine(const Run *a, const Run *b) {
    static const char *const keys[] = {"processor", "gpu", "threads", "ranks"};
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(a->config, "machine");
    const cJSON *y = cJSON_GetObjectItemCaseSensitive(b->config, "machine");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const cJSON *p = cJSON_GetObjectItemCaseSensitive(x, keys[i]);
        const cJSON *q = cJSON_GetObjectItemCaseSensitive(y, keys[i]);
        if (!p != !q || (p && !cJSON_Compare(p, q, true))) return false;
    }
    return true;
}

/* What a reader must know before comparing losses and times. */
static inline void arms_note_conditions(Arms *arms) {
    static const char *const measured[] = {"data", "val-tokens", "vocab-size", "seq-len"};
    arms->same_machine = true;
    for (int k = 0; k < arms->count; k++)
        for (int r = 0; r < arms->arms[k].count; r++)
            arms->same_machine =
                arms->same_machine && arm_same_machine(arms->arms[0].runs[0], arms->arms[k].runs[r]);
    if (!arms->same_machine)
        arms_note(
            arms,
            "The runs had different processors, threads or ranks: the cost of a step cannot be compared.");
    for (size_t i = 0; i < sizeof measured / sizeof *measured; i++)
        if (arms_differ_in(arms, options_find_in(train_options, TRAIN_OPTION_COUNT, measured[i])))
            arms_note(arms,
                      "The arms have different --%s: their validation losses are means over different "
                      "predictions, so "
                      "that a difference may come from that.",
                      measured[i]);
}

static inline void arms_free(Arms *arms) {
    for (int k = 0; k < arms->count; k++)
        arms->means[k].config = NULL, run_free(&arms->means[k]); /* its config belongs to a run */
    for (int i = 0; i < arms->note_count; i++) free(arms->notes[i]);
    free(arms->means), free(arms->firsts), free(arms->arms);
    *arms = (Arms){0};
}

static inline bool arms_gather(Arms *arms, const Run *runs, int count) {
    int arm_of[ARM_RUNS_MAX], first_of[ARM_RUNS_MAX], groups = 0, kept = 0;
    bool several = false;
    *arms = (Arms){.counts = arm_option_counts,
                   .arms = check_calloc((size_t)count * sizeof *arms->arms),
                   .means = check_calloc((size_t)count * sizeof *arms->means)};
    for (int r = 0; r < count; r++) {
        int k = 0;
        while (k < groups && !arms_compare(&runs[first_of[k]], &runs[r])) k++;
        if (k == groups) first_of[groups++] = r;
        arm_of[r] = k;
    }
    for (int k = 0; k < groups; k++) {
        Arm *arm = &arms->arms[kept];
        for (int r = 0; r < count; r++)
            if (arm_of[r] == k) arm_add(arms, arm, &runs[r]);
        several = several || arm->count > 1;
        kept += arm->count > 0;
    }
    arms->count = kept;
    arms->firsts = check_calloc((size_t)count * sizeof *arms->firsts);
    for (int k = 0; k < kept; k++) {
        arm_measure(&arms->arms[k]);
        arms->means[k] = arm_as_run(&arms->arms[k]), arms->firsts[k] = *arms->arms[k].runs[0];
    }
    arms_name(arms);
    for (int k = 1; k < kept; k++) arm_compare_with_first(arms, k);
    if (kept) arms_note_conditions(arms);
    return several && kept <= PLOT_RUNS_MAX;
}

/* ---- the table of arms ---- */

typedef enum {
    ARM_NAME,
    ARM_RUNS,
    ARM_LOSS,
    ARM_LOSS_DEVIATION,
    ARM_PERPLEXITY,
    ARM_BITS,
    ARM_BITS_DEVIATION,
    ARM_STEP,
    ARM_COST,
    ARM_FIGURES
} ArmFigure;

/* Titles of the columns in the terminal and in the HTML. */
static const struct {
    const char *title, *full_title;
} arm_figures[] = {
    [ARM_NAME] = {"arm", "arm"},
    [ARM_RUNS] = {"seeds", "seeds"},
    [ARM_LOSS] = {"val loss", "validation loss"},
    [ARM_LOSS_DEVIATION] = {"sd", "deviation"},
    [ARM_PERPLEXITY] = {"perpl.", "perplexity"},
    [ARM_BITS] = {"bits/B", "bits per byte"},
    [ARM_BITS_DEVIATION] = {"sd", "deviation"},
    [ARM_STEP] = {"step", "time of a step"},
    [ARM_COST] = {"cost", "cost of a step"},
};
_Static_assert(sizeof arm_figures / sizeof *arm_figures == ARM_FIGURES, "a title for each figure");

/* Whether a column has something to show. */
static inline bool arm_figure_shown(const Arms *arms, ArmFigure figure) {
    if (figure == ARM_COST && !arms->same_machine) return false;
    if (figure != ARM_BITS && figure != ARM_BITS_DEVIATION) return true;
    for (int k = 0; k < arms->count; k++)
        if (isfinite(arms->arms[k].bits.mean)) return true;
    return false;
}

/* A number, or "-" when it is not known. */
static inline const char *arm_number(char text[FORMAT_SIZE], const char *format, double x) {
    if (!isfinite(x)) return strcpy(text, "-");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, FORMAT_SIZE, format, x);
#pragma GCC diagnostic pop
    return text;
}

/* A time below ten seconds with three digits, else in words. */
static inline const char *arm_duration(char text[FORMAT_SIZE], double seconds) {
    if (!(seconds >= 0)) return strcpy(text, "-");
    if (seconds >= 9.95) return duration_words(text, seconds);
    snprintf(text, FORMAT_SIZE, seconds < 1 ? "%.3g ms" : "%.3g s", seconds < 1 ? 1e3 * seconds : seconds);
    return text;
}

/* Returns `text` or the name of the arm. */
static inline const char *arm_figure_text(const Arms *arms, int k, ArmFigure figure, char text[FORMAT_SIZE]) {
    const Arm *arm = &arms->arms[k];
    switch (figure) {
    case ARM_NAME: return arms->means[k].name;
    case ARM_RUNS: snprintf(text, FORMAT_SIZE, "%d", arm->count); return text;
    case ARM_LOSS: return text_loss(arm->loss.mean, text);
    case ARM_LOSS_DEVIATION: return arm_number(text, "%.4f", arm->loss.deviation);
    case ARM_PERPLEXITY:
        return arm_number(text, arm->perplexity.mean < 1e5 ? "%.2f" : "%.3g", arm->perplexity.mean);
    case ARM_BITS: return arm_number(text, "%.4f", arm->bits.mean);
    case ARM_BITS_DEVIATION: return arm_number(text, "%.4f", arm->bits.deviation);
    case ARM_STEP: return arm_duration(text, arm->step_seconds);
    case ARM_COST: return arm_number(text, "%.2f", arm->step_seconds / arms->arms[0].step_seconds);
    case ARM_FIGURES: break;
    }
    return "-";
}

/* ---- sentences ---- */

/* What is known about the sign of a difference. */
static inline const char *arm_sign(const StatSample *d) {
    if (d->n < 2) return "one pair of runs cannot tell such a difference from that of two seeds";
    if (d->low == 0 && d->high == 0) return "there is no difference";
    return d->high < 0 ? "lower" : d->low > 0 ? "higher" : "the sign is not certain";
}

static inline bool arm_sign_is_certain(const StatSample *d) {
    return d->n > 1 && (d->high < 0 || d->low > 0);
}

typedef void ArmSee(void *context, const char *sentence);

/* "laser minus standard: -0.0099 nats a token (95 % interval -0.0260 to +0.0062, 3 pairs): the sign is not certain." */
static inline void arm_difference_sentence(const Arms *arms, int k, char text[ARM_TEXT_SIZE]) {
    const StatSample *d = &arms->arms[k].difference;
    const char *name = arms->means[k].name, *first = arms->means[0].name;
    char interval[128] = "";
    if (d->n == 0) {
        snprintf(text, ARM_TEXT_SIZE, "%s and %s have no seed in common, so there is no difference of pairs.",
                 name, first);
        return;
    }
    if (d->n > 1) snprintf(interval, sizeof interval, "95 %% interval %+.4f to %+.4f, ", d->low, d->high);
    const bool certain = arm_sign_is_certain(d);
    snprintf(text, ARM_TEXT_SIZE, "%s minus %s: %+.4f nats a token (%s%d pair%s): %s%s%s.", name, first,
             d->mean, interval, d->n, d->n == 1 ? "" : "s", certain ? name : "", certain ? " is " : "",
             arm_sign(d));
}

/* "Differences by seed: 1: -0.0020, 2: -0.0110." */
static inline void arm_seeds_sentence(const Arms *arms, int k, char text[ARM_TEXT_SIZE]) {
    enum { SHOWN = 20 };
    const Arm *arm = &arms->arms[k];
    int n = 0, used = snprintf(text, ARM_TEXT_SIZE, "Differences by seed: ");
    for (int r = 0; r < arm->count; r++) {
        const Run *partner = arm_find_seed(&arms->arms[0], arm_seed(arm->runs[r]));
        if (!partner || n++ >= SHOWN) continue;
        used += snprintf(text + used, (size_t)(ARM_TEXT_SIZE - used), "%s%.0f: %+.4f", n > 1 ? ", " : "",
                         arm_seed(arm->runs[r]), arm->runs[r]->val_loss - partner->val_loss);
    }
    if (n > SHOWN) used += snprintf(text + used, (size_t)(ARM_TEXT_SIZE - used), " and %d more", n - SHOWN);
    snprintf(text + used, (size_t)(ARM_TEXT_SIZE - used), ".");
}

static inline void arm_bits_sentence(const Arms *arms, int k, char text[ARM_TEXT_SIZE]) {
    const StatSample *d = &arms->arms[k].bits_difference;
    snprintf(text, ARM_TEXT_SIZE, "In bits per byte the difference is %+.4f (95 %% interval %+.4f to %+.4f).",
             d->mean, d->low, d->high);
}

static inline void arm_detectable_sentence(const Arms *arms, int k, char text[ARM_TEXT_SIZE]) {
    const StatSample *d = &arms->arms[k].difference;
    snprintf(text, ARM_TEXT_SIZE,
             "Smallest difference that %d pairs could have shown, in 80 of 100 repetitions (two-sided, 5 "
             "%%): %.4f nats, "
             "which is (t(0.975, %d) + t(0.8, %d)) s / sqrt(%d) with s = %.4f, the standard deviation of the "
             "differences.",
             d->n, stat_detectable(d->deviation, d->n), d->n - 1, d->n - 1, d->n, d->deviation);
}

/* When the arm with the lower mean is where the other one ends. */
static inline void arm_reach_sentence(const Arms *arms, int k, char text[ARM_TEXT_SIZE]) {
    const Arm *arm = &arms->arms[k], *first = &arms->arms[0];
    const bool own = arm->loss.mean <= first->loss.mean;
    const int fast = own ? k : 0, slow = own ? 0 : k;
    const double step = own ? arm->reaches_first : arm->first_reaches;
    const Run *f = &arms->means[fast], *s = &arms->means[slow];
    const Series *f_losses = &f->curves[CURVE_VALIDATION], *s_losses = &s->curves[CURVE_VALIDATION];
    char count[FORMAT_SIZE], all[FORMAT_SIZE], time[FORMAT_SIZE], other[FORMAT_SIZE],
        times[3 * FORMAT_SIZE] = "";
    text[0] = 0;
    if (!isfinite(step) || f_losses->count == 0 || s_losses->count == 0) return;
    const double s_end = s_losses->x[s_losses->count - 1];
    if (isfinite(f->step_seconds) && isfinite(s->step_seconds) && arms->same_machine)
        snprintf(times, sizeof times, ", after %s of training steps instead of %s",
                 arm_duration(time, step * f->step_seconds), arm_duration(other, s_end * s->step_seconds));
    snprintf(text, ARM_TEXT_SIZE, "%s ends at %.4f after %s steps; the mean of %s is there at step %s%s.%s",
             s->name, s->val_loss, count_grouped(all, s_end), f->name, count_grouped(count, ceil(step)),
             times,
             arm_sign_is_certain(&arm->difference) ? "" : " As the sign is not certain, this may be chance.");
}

/* What follows the sentence about the difference. */
static inline void arm_details(const Arms *arms, int k, ArmSee *see, void *context) {
    char text[ARM_TEXT_SIZE];
    if (arms->arms[k].difference.n > 1) arm_seeds_sentence(arms, k, text), see(context, text);
    if (arms->arms[k].bits_difference.n > 1) arm_bits_sentence(arms, k, text), see(context, text);
    if (arms->arms[k].difference.n > 1) arm_detectable_sentence(arms, k, text), see(context, text);
    arm_reach_sentence(arms, k, text);
    if (*text) see(context, text);
}

/* All sentences about the arms. */
static inline void arms_sentences(const Arms *arms, ArmSee *see, void *context) {
    char text[ARM_TEXT_SIZE];
    for (int k = 1; k < arms->count; k++) {
        arm_difference_sentence(arms, k, text), see(context, text);
        arm_details(arms, k, see, context);
    }
}

static inline void arms_notes(const Arms *arms, ArmSee *see, void *context) {
    char text[64];
    for (int i = 0; i < arms->note_count; i++) see(context, arms->notes[i]);
    if (!arms->notes_left_out) return;
    snprintf(text, sizeof text, "%d more remarks are left out.", arms->notes_left_out);
    see(context, text);
}

/* ---- a file for other programs ---- */

/* A text as a field of a CSV file (RFC 4180). */
static inline void csv_text(FILE *f, const char *text) {
    fputc('"', f);
    for (; *text; text++) {
        if (*text == '"') fputc('"', f);
        fputc(*text, f);
    }
    fputc('"', f);
}

static inline void arms_csv(const char *path, const Arms *arms) {
    FILE *f = check_fopen(path, "w", "name a file in a folder that exists: --csv=FILE");
    fprintf(f, "arm,seeds,val_loss,val_loss_sd,perplexity,perplexity_sd,bits_per_byte,bits_per_byte_sd,pairs,"
               "difference,"
               "difference_low,difference_high,detectable,steps_to_first,first_steps_to_this,step_seconds,"
               "step_cost\n");
    for (int k = 0; k < arms->count; k++) {
        const Arm *a = &arms->arms[k];
        const bool first = k == 0;
        const double values[] = {a->loss.mean,
                                 a->loss.deviation,
                                 a->perplexity.mean,
                                 a->perplexity.deviation,
                                 a->bits.mean,
                                 a->bits.deviation,
                                 first ? NAN : a->difference.n,
                                 first ? NAN : a->difference.mean,
                                 first ? NAN : a->difference.low,
                                 first ? NAN : a->difference.high,
                                 first ? NAN : stat_detectable(a->difference.deviation, a->difference.n),
                                 first ? NAN : a->reaches_first,
                                 first ? NAN : a->first_reaches,
                                 a->step_seconds,
                                 arms->same_machine ? a->step_seconds / arms->arms[0].step_seconds : NAN};
        csv_text(f, arms->means[k].name);
        fprintf(f, ",%d", a->count);
        for (size_t i = 0; i < sizeof values / sizeof *values; i++)
            fprintf(f, isfinite(values[i]) ? ",%.10g" : ",", values[i]);
        fputc('\n', f);
    }
    check_fclose(f, path);
}

#endif
