/* log_fields.h: ONE table of the numbers that a run records for each training step. log_fields has a row for each: its
   key in log.jsonl, the heading of its column, where it lies in LogRow, and how it is written. log.h writes lines and
   the progress line from it, log_read.h reads lines with it, tools/report takes its columns from it. A second, smaller
   table, log_validation_fields, has the numbers of a validation.

   A validation is given in three units, all of the same mean over the tokens that were predicted:
     val_loss            nats a token: the mean of -ln p(token)
     val_perplexity      exp(val_loss)
     val_bits_per_byte   (the sum of the losses / ln 2) / (the UTF-8 bytes that the predicted tokens stand for). The
                         other two depend on how much text a token stands for, so they compare only models that have the
                         same vocabulary; bits per byte compare any two models on the same text. The loss of a special
                         token, such as the one between documents, counts, but it stands for 0 bytes
                         (tokenizer_text_bytes)
   Without a tokenizer.json the bytes of a token are not known, and a validation has val_loss alone.

   log_number(field, &train)     the value of a field as a double; NaN for the fields `smooth` and `left`, which are
                                 computed from several steps
   log_cell(text, field, &row, total_steps)   the value as text, as the progress line shows it
   log_validation_of(step, val_loss, bytes_per_token)   a validation in all three units; bytes_per_token is a mean over
                                 the predicted tokens, and NaN when it is not known
   log_validation_number(field, &validation)   a pointer to the value of a field
   log_smooth(&smooth, x)        adds the next loss to a smoothed curve, and returns the curve's next value */
#ifndef GPT_RUN_LOG_FIELDS_H
#define GPT_RUN_LOG_FIELDS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "../base/format.h"
#include "../io/files.h"

enum { LOG_ERROR_SIZE = FILE_ERROR_SIZE, LOG_TEXT_SIZE = 512, LOG_CELL_SIZE = FORMAT_SIZE };
#define LOG_SMOOTHING 0.95 /* weight of the past in the smoothed loss */

/* A line of a training step. */
typedef struct {
    /* The number of optimizer steps done, this one included. So the first step of a run is step 1 of the log, and the
       log's step 500 is the step that the trainer, which counts from 0, numbers 499. */
    long step;
    int64_t tokens; /* trained on since the beginning of the run */
    double loss, lr;
    double grad_norm; /* L2 norm of the gradient of all parameters, before clipping */
    double seconds;   /* of training so far, those of earlier starts of the run included */
    double tokens_per_s;
    double mfu;    /* model FLOPs utilisation, 0 to 1; NaN: not known */
    double loss_z; /* standard deviations above the mean of the latest losses; NaN: too few of them */
    long skipped;  /* 1: the step made no update, see loss_watch.h */
    /* 0 to 1: of the time in which ranks communicated, the share in which the step went on computing; NaN: there was no
       communication */
    double comm_overlap;
} LogTrain;

/* A line of a validation. */
typedef struct {
    long step;
    double val_loss;
    double val_bits_per_byte, val_perplexity; /* NaN: not known */
} LogValidation;

/* A training step, and the values that are computed from it and the steps before it. */
typedef struct {
    LogTrain train;
    double smoothed; /* the loss, see log_smooth */
    double left;     /* estimated seconds until the run ends; NaN: not known yet */
} LogRow;

typedef enum { LOG_LONG, LOG_INT64, LOG_DOUBLE } LogType;
/* How a number is shown on the screen and in the report. */
typedef enum {
    LOG_STYLE_STEP,     /* 500/2000 */
    LOG_STYLE_FIXED,    /* 3.1234 */
    LOG_STYLE_EXPONENT, /* 6.0e-04 */
    LOG_STYLE_UNITS,    /* 12.3k */
    LOG_STYLE_PERCENT,  /* 45.2%, for the number 0.452 */
    LOG_STYLE_DURATION  /* 1:02:03 */
} LogStyle;

typedef struct {
    const char *key;     /* in log.jsonl; NULL: not stored, because the lines of all steps give it */
    const char *heading; /* of its column */
    LogType type;
    size_t offset; /* in LogRow */
    int digits;    /* in log.jsonl, at most: 17 restore every bit of a double, 9 of a float */
    LogStyle style;
    int decimals; /* on the screen, where they fit */
    int width;    /* of its column in the progress line; 0: not shown there */
    bool ranks;   /* written and shown only in runs with several ranks, the processes that mpirun starts */
    /* The key that older versions wrote instead, which is still read; NULL: none. */
    const char *old_key;
} LogField;

/* To record another number, add a member to LogTrain and a row here. */
static const LogField log_fields[] = {
    {"step", "step", LOG_LONG, offsetof(LogRow, train.step), 0, LOG_STYLE_STEP, 0, 4, false, NULL},
    {"tokens", "tokens", LOG_INT64, offsetof(LogRow, train.tokens), 0, LOG_STYLE_UNITS, 1, 0, false, NULL},
    {"loss", "loss", LOG_DOUBLE, offsetof(LogRow, train.loss), 17, LOG_STYLE_FIXED, 4, 6, false, NULL},
    {NULL, "smooth", LOG_DOUBLE, offsetof(LogRow, smoothed), 17, LOG_STYLE_FIXED, 4, 6, false, NULL},
    {"lr", "lr", LOG_DOUBLE, offsetof(LogRow, train.lr), 17, LOG_STYLE_EXPONENT, 1, 7, false, NULL},
    {"grad_norm", "norm", LOG_DOUBLE, offsetof(LogRow, train.grad_norm), 17, LOG_STYLE_FIXED, 3, 6, false,
     NULL},
    {"loss_z", "z", LOG_DOUBLE, offsetof(LogRow, train.loss_z), 9, LOG_STYLE_FIXED, 1, 0, false, NULL},
    {"skipped", "skipped", LOG_LONG, offsetof(LogRow, train.skipped), 0, LOG_STYLE_UNITS, 0, 0, false, NULL},
    {"tokens_per_s", "tok/s", LOG_DOUBLE, offsetof(LogRow, train.tokens_per_s), 9, LOG_STYLE_UNITS, 1, 6,
     false, NULL},
    {"mfu", "MFU", LOG_DOUBLE, offsetof(LogRow, train.mfu), 9, LOG_STYLE_PERCENT, 1, 5, false, NULL},
    {"comm_overlap", "overlap", LOG_DOUBLE, offsetof(LogRow, train.comm_overlap), 9, LOG_STYLE_PERCENT, 0, 7,
     true, "comm_hidden"},
    {"seconds", "elapsed", LOG_DOUBLE, offsetof(LogRow, train.seconds), 9, LOG_STYLE_DURATION, 0, 7, false,
     NULL},
    {NULL, "left", LOG_DOUBLE, offsetof(LogRow, left), 9, LOG_STYLE_DURATION, 0, 7, false, NULL},
};
enum { LOG_FIELDS = sizeof log_fields / sizeof *log_fields };

/* A number of a validation, beside its step. summary.json has those of the last one, under the key with "final_" before
   it. */
typedef struct {
    const char *key;
    size_t offset; /* in LogValidation */
    bool optional; /* it is left out where it is not known */
    /* The text on the screen, of which log.h shows as much as fits: "before", the number, "after". */
    const char *before, *after;
    int decimals, width; /* as in LogField */
} LogValidationField;

static const LogValidationField log_validation_fields[] = {
    {"val_loss", offsetof(LogValidation, val_loss), false, "validation loss ", "", 4, 0},
    {"val_bits_per_byte", offsetof(LogValidation, val_bits_per_byte), true, ", ", " bits/byte", 4, 6},
    {"val_perplexity", offsetof(LogValidation, val_perplexity), true, ", perplexity ", "", 2, 7},
};
enum { LOG_VALIDATION_FIELDS = sizeof log_validation_fields / sizeof *log_validation_fields };

static inline double *log_validation_number(const LogValidationField *field, LogValidation *v) {
    return (double *)(void *)((char *)v + field->offset);
}

static inline LogValidation log_validation_of(long step, double val_loss, double bytes_per_token) {
    const bool known = bytes_per_token > 0;
    return (LogValidation){.step = step,
                           .val_loss = val_loss,
                           .val_bits_per_byte = known ? val_loss / log(2) / bytes_per_token : NAN,
                           .val_perplexity = isfinite(bytes_per_token) ? exp(val_loss) : NAN};
}

/* The state of a smoothed curve; {0} at its beginning. */
typedef struct {
    double sum, weight;
} LogSmooth;

/* An exponential moving average, which a value that is not finite leaves as it was. Dividing by the sum of the weights
   corrects its bias at the beginning: the first smoothed value is the first value itself, not a twentieth of it. */
static inline double log_smooth(LogSmooth *s, double x) {
    if (isfinite(x)) {
        s->sum = LOG_SMOOTHING * s->sum + (1 - LOG_SMOOTHING) * x;
        s->weight = LOG_SMOOTHING * s->weight + (1 - LOG_SMOOTHING);
    }
    return s->weight > 0 ? s->sum / s->weight : NAN;
}

/* The value of a field as a double. */
static inline double log_row_number(const LogField *field, const LogRow *row) {
    const char *at = (const char *)row + field->offset;
    switch (field->type) {
    case LOG_LONG: return (double)*(const long *)(const void *)at;
    case LOG_INT64: return (double)*(const int64_t *)(const void *)at;
    case LOG_DOUBLE: return *(const double *)(const void *)at;
    }
    return NAN;
}

static inline double log_number(const LogField *field, const LogTrain *train) {
    LogRow row = {.train = *train, .smoothed = NAN, .left = NAN};
    return log_row_number(field, &row);
}

static inline void log_cell(char text[LOG_CELL_SIZE], const LogField *field, const LogRow *row,
                            long total_steps) {
    double x = log_row_number(field, row);
    if (!isfinite(x)) {
        snprintf(text, LOG_CELL_SIZE, "%s",
                 field->style == LOG_STYLE_FIXED ? (isnan(x) ? "nan" : "inf") : "-");
        return;
    }
    switch (field->style) {
    case LOG_STYLE_STEP:
        if (total_steps > 0)
            snprintf(text, LOG_CELL_SIZE, "%ld/%ld", row->train.step, total_steps);
        else
            snprintf(text, LOG_CELL_SIZE, "%ld", row->train.step);
        break;
    case LOG_STYLE_FIXED: number_fixed(text, x, field->decimals, field->width, ""); break;
    case LOG_STYLE_EXPONENT: snprintf(text, LOG_CELL_SIZE, "%.*e", field->decimals, x); break;
    case LOG_STYLE_UNITS: count_fixed(text, x, field->decimals, field->width); break;
    case LOG_STYLE_PERCENT: number_fixed(text, 100 * x, field->decimals, field->width, "%"); break;
    case LOG_STYLE_DURATION: duration_clock(text, x > 0 ? x : 0); break;
    }
}

#endif
