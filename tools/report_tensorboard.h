/* report_tensorboard.h: the numbers of runs as TensorBoard reads them.

   tensorboard_write(folder, run)   writes FOLDER/NAME/events.out.tfevents.laser, where NAME is that of the run. A file that
                                    is there is replaced, so the command can be repeated while a run trains

   Every number of log.jsonl becomes a scalar with its key as the tag: loss, val_loss, lr, grad_norm, tokens_per_s,
   val_bits_per_byte and so on, with the step as TensorBoard's step. Numbers that are not finite or not known are left out. So
   are step, tokens and seconds, since seconds are TensorBoard's time: the date in config.json plus the seconds of
   training; without a config.json time begins in 1970, and TensorBoard's relative times are right all the same.

   A file of events is a list of records (the format TFRecord):
       length n (uint64), masked CRC of these 8 bytes (uint32), n bytes of data, masked CRC of the data (uint32)
   all little endian. The CRC is CRC-32C (the polynomial of Castagnoli), and masked means rotated right by 15 bits, plus
   0xa282ead8. The data of a record is an Event, a message of protobuf, which is a list of fields. A field is its
   number * 8 + its type, then its value: type 0 is a whole number in groups of 7 bits, the lowest first, with bit 7 set
   in all but the last; 1 is 8 bytes, 5 is 4 bytes; 2 is a length, written as type 0, and so many bytes. Of the messages
   these fields are used:
       Event    1: wall_time (double), 2: step (int64), 3: file_version (text, in the first record), 5: summary (Summary)
       Summary  1: value (Value), once for each scalar
       Value    1: tag (text), 2: simple_value (float) */
#ifndef TOOLS_REPORT_TENSORBOARD_H
#define TOOLS_REPORT_TENSORBOARD_H

#include <time.h>
#include "report_runs.h"

/* Bytes of a message. An event has a few scalars, and their keys are short. */
typedef struct {
    unsigned char bytes[2048];
    size_t size;
} TensorboardMessage;

static inline void tensorboard_bytes(TensorboardMessage *m, const void *bytes, size_t n) {
    if (m->size + n > sizeof m->bytes)
        die("a line of the log has more numbers than TensorboardMessage has room for");
    memcpy(m->bytes + m->size, bytes, n);
    m->size += n;
}

/* The lowest n bytes of a number, little endian. */
static inline void tensorboard_fixed(TensorboardMessage *m, uint64_t x, int n) {
    unsigned char bytes[8];
    for (int i = 0; i < n; i++) bytes[i] = (unsigned char)(x >> 8 * i);
    tensorboard_bytes(m, bytes, (size_t)n);
}

static inline void tensorboard_varint(TensorboardMessage *m, uint64_t x) {
    for (; x >= 128; x >>= 7) tensorboard_fixed(m, (x & 127) | 128, 1);
    tensorboard_fixed(m, x, 1);
}

/* ---- fields ---- */

enum { TENSORBOARD_VARINT = 0, TENSORBOARD_64 = 1, TENSORBOARD_SIZED = 2, TENSORBOARD_32 = 5 };

static inline void tensorboard_key(TensorboardMessage *m, int field, int type) {
    tensorboard_varint(m, (uint64_t)(field * 8 + type));
}

static inline void tensorboard_sized(TensorboardMessage *m, int field, const void *bytes, size_t n) {
    tensorboard_key(m, field, TENSORBOARD_SIZED);
    tensorboard_varint(m, n);
    tensorboard_bytes(m, bytes, n);
}

static inline void tensorboard_double(TensorboardMessage *m, int field, double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    tensorboard_key(m, field, TENSORBOARD_64);
    tensorboard_fixed(m, bits, 8);
}

static inline void tensorboard_float(TensorboardMessage *m, int field, float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    tensorboard_key(m, field, TENSORBOARD_32);
    tensorboard_fixed(m, bits, 4);
}

/* ---- records ---- */

/* CRC-32C, the least significant bit first. */
static inline uint32_t tensorboard_crc(const void *bytes, size_t n) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= ((const unsigned char *)bytes)[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static inline uint32_t tensorboard_masked_crc(const void *bytes, size_t n) {
    const uint32_t crc = tensorboard_crc(bytes, n);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static inline void tensorboard_record(FILE *file, const TensorboardMessage *event) {
    TensorboardMessage head = {0}, tail = {0};
    tensorboard_fixed(&head, event->size, 8);
    tensorboard_fixed(&head, tensorboard_masked_crc(head.bytes, 8), 4);
    tensorboard_fixed(&tail, tensorboard_masked_crc(event->bytes, event->size), 4);
    fwrite(head.bytes, 1, head.size, file);
    fwrite(event->bytes, 1, event->size, file);
    fwrite(tail.bytes, 1, tail.size, file);
}

/* ---- events ---- */

/* Adds a scalar to a Summary. */
static inline void tensorboard_scalar(TensorboardMessage *summary, const char *tag, double x) {
    TensorboardMessage value = {0};
    if (!isfinite(x)) return;
    tensorboard_sized(&value, 1, tag, strlen(tag));
    tensorboard_float(&value, 2, (float)x);
    tensorboard_sized(summary, 1, value.bytes, value.size);
}

static inline void tensorboard_event(FILE *file, double time, long step, const TensorboardMessage *summary) {
    TensorboardMessage event = {0};
    if (summary->size == 0) return;
    tensorboard_double(&event, 1, time);
    tensorboard_key(&event, 2, TENSORBOARD_VARINT);
    tensorboard_varint(&event, (uint64_t)step);
    tensorboard_sized(&event, 5, summary->bytes, summary->size);
    tensorboard_record(file, &event);
}

/* What is known while log.jsonl is read. */
typedef struct {
    FILE *file;
    double begin, seconds; /* since 1970: the beginning of the run; of training, up to the latest step */
} TensorboardLog;

/* Whether a field is the axis of a curve, and no curve. */
static inline bool tensorboard_is_axis(const LogField *field) {
    return !field->key || strcmp(field->key, "step") == 0 || strcmp(field->key, "tokens") == 0 ||
           strcmp(field->key, "seconds") == 0;
}

/* The LogSee of tensorboard_write. */
static inline void tensorboard_see_line(void *context, LogLine kind, const LogTrain *train,
                                        const LogValidation *v) {
    TensorboardLog *log = context;
    TensorboardMessage summary = {0};
    if (kind == LOG_LINE_TRAIN) {
        if (isfinite(train->seconds)) log->seconds = train->seconds;
        for (int i = 0; i < LOG_FIELDS; i++)
            if (!tensorboard_is_axis(&log_fields[i]))
                tensorboard_scalar(&summary, log_fields[i].key, log_number(&log_fields[i], train));
        tensorboard_event(log->file, log->begin + log->seconds, train->step, &summary);
    } else if (kind == LOG_LINE_VALIDATION) {
        LogValidation numbers = *v;
        for (int i = 0; i < LOG_VALIDATION_FIELDS; i++)
            tensorboard_scalar(&summary, log_validation_fields[i].key,
                               *log_validation_number(&log_validation_fields[i], &numbers));
        tensorboard_event(log->file, log->begin + log->seconds, v->step, &summary);
    }
}

/* The date in a run's config.json as seconds since 1970; 0 when it is not known. */
static inline double tensorboard_begin(const Run *run) {
    const char *date = json_text(run->config, "date");
    struct tm utc = {0};
    if (!date || sscanf(date, "%4d-%2d-%2dT%2d:%2d:%2dZ", &utc.tm_year, &utc.tm_mon, &utc.tm_mday,
                        &utc.tm_hour, &utc.tm_min, &utc.tm_sec) != 6)
        return 0;
    utc.tm_year -= 1900, utc.tm_mon -= 1;
    return (double)timegm(&utc);
}

/* Dies when the file cannot be written. */
static inline void tensorboard_write(const char *folder, const Run *run) {
    char to[FILE_PATH_SIZE], path[FILE_PATH_SIZE], error[FILE_ERROR_SIZE], *text = NULL;
    size_t size = 0;
    TensorboardLog log = {.file = open_memstream(&text, &size), .begin = tensorboard_begin(run)};
    TensorboardMessage first = {0};
    char *from = file_path(run->folder, "log.jsonl");
    FILE *lines = log_open_read(from, error);
    if (!log.file) die("no memory for the events of '%s'", run->folder);
    if (!lines) die("%s", error);
    tensorboard_double(&first, 1, log.begin);
    tensorboard_sized(&first, 3, "brain.Event:2", 13);
    tensorboard_record(log.file, &first);
    if (!log_each(lines, from, tensorboard_see_line, &log, error)) die("%s", error);
    fclose(lines), free(from);
    if (fclose(log.file) != 0) die("no memory for the events of '%s'", run->folder);
    if (!file_join(to, folder, run->name, error) || !file_make_folders(to, error) ||
        !file_join(path, to, "events.out.tfevents.laser", error) ||
        !file_write_whole(path, text, size, error))
        die("--tensorboard: %s", error);
    free(text);
}

#endif
