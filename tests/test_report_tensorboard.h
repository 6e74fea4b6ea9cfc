/* test_report_tensorboard.h: ./report --tensorboard writes files that follow the formats TFRecord and protobuf. They are
   read here by a reader of its own, which knows nothing of tools/report_tensorboard.h. */
#ifndef TESTS_TEST_REPORT_TENSORBOARD_H
#define TESTS_TEST_REPORT_TENSORBOARD_H

#include "test_report.h"

/* CRC-32C by its definition: the remainder of a division of polynomials, bit by bit. */
static uint32_t tfevents_crc(const unsigned char *bytes, size_t n) {
    uint32_t crc = 0xffffffffu;
    for (size_t bit = 0; bit < 8 * n; bit++) {
        const uint32_t top = (crc ^ (uint32_t)(bytes[bit / 8] >> bit % 8)) & 1;
        crc = crc >> 1 ^ (top ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static uint64_t tfevents_number(const unsigned char *bytes, int n) {
    uint64_t x = 0;
    for (int i = 0; i < n; i++) x |= (uint64_t)bytes[i] << 8 * i;
    return x;
}

/* Whether the four bytes at `at` are the masked CRC of n bytes. */
static bool tfevents_crc_is(const unsigned char *at, const unsigned char *bytes, size_t n) {
    const uint32_t rotated = (uint32_t)tfevents_number(at, 4) - 0xa282ead8u;
    return (rotated << 15 | rotated >> 17) == tfevents_crc(bytes, n);
}

/* A field of a message of protobuf. */
typedef struct {
    int number;
    uint64_t value;             /* of types 0, 1 and 5 */
    const unsigned char *bytes; /* (size) of type 2 */
    size_t size;
} TfField;

static bool tfevents_varint(const unsigned char **at, const unsigned char *end, uint64_t *x) {
    *x = 0;
    for (int shift = 0; *at < end && shift < 64; shift += 7) {
        const unsigned char byte = *(*at)++;
        *x |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return true;
    }
    return false;
}

/* Reads the field at *at; false at the end, and where the bytes are no field. */
static bool tfevents_field(const unsigned char **at, const unsigned char *end, TfField *field) {
    uint64_t key;
    *field = (TfField){0};
    if (*at == end || !tfevents_varint(at, end, &key)) return false;
    field->number = (int)(key >> 3);
    const int type = (int)(key & 7);
    if (type == 0) return tfevents_varint(at, end, &field->value);
    if (type == 2) {
        if (!tfevents_varint(at, end, &field->value) || field->value > (uint64_t)(end - *at)) return false;
        field->bytes = *at, field->size = (size_t)field->value;
    } else if ((type == 1 && end - *at >= 8) || (type == 5 && end - *at >= 4)) {
        field->size = type == 1 ? 8 : 4;
        field->value = tfevents_number(*at, (int)field->size);
    } else
        return false;
    *at += field->size;
    return true;
}

/* What a file of events holds: the scalar of each tag at one step, and counts. */
typedef struct {
    long step; /* at which scalars are looked for */
    int records, scalars;
    bool version; /* the first record names the version of the format */
    double time;  /* of the events of that step */
    struct {
        const char *tag;
        double value; /* NaN: not found */
    } found[4];
} TfEvents;

static void tfevents_value(TfEvents *events, const unsigned char *at, const unsigned char *end, long step) {
    char tag[64] = "";
    float x = NAN;
    TfField field;
    while (tfevents_field(&at, end, &field)) {
        if (field.number == 1) snprintf(tag, sizeof tag, "%.*s", (int)field.size, (const char *)field.bytes);
        if (field.number == 2) memcpy(&x, &(uint32_t){(uint32_t)field.value}, sizeof x);
    }
    CHECK(at == end && *tag && isfinite(x), "a value of step %ld: tag '%s', %g", step, tag, x);
    events->scalars++;
    for (size_t i = 0; i < sizeof events->found / sizeof *events->found && step == events->step; i++)
        if (events->found[i].tag && strcmp(events->found[i].tag, tag) == 0) events->found[i].value = x;
}

static void tfevents_event(TfEvents *events, const unsigned char *at, size_t size) {
    const unsigned char *end = at + size;
    double time = NAN;
    long step = 0;
    TfField field, value;
    while (tfevents_field(&at, end, &field)) {
        if (field.number == 1) memcpy(&time, &field.value, sizeof time);
        if (field.number == 2) step = (long)field.value;
        if (field.number == 3 && events->records == 0)
            events->version = field.size == 13 && memcmp(field.bytes, "brain.Event:2", 13) == 0;
        if (field.number != 5) continue;
        const unsigned char *in = field.bytes, *summary_end = in + field.size;
        while (tfevents_field(&in, summary_end, &value))
            tfevents_value(events, value.bytes, value.bytes + value.size, step);
        CHECK(in == summary_end, "record %d: the summary is damaged", events->records);
        if (step == events->step) events->time = time;
    }
    CHECK(at == end && isfinite(time), "record %d is no event", events->records);
    events->records++;
}

static void tfevents_read(TfEvents *events, const char *folder, const char *name) {
    size_t size;
    char *text = report_read(folder, name, &size);
    const unsigned char *at = (unsigned char *)text, *end = at + size;
    while (end - at >= 16) {
        const uint64_t n = tfevents_number(at, 8);
        if (!tfevents_crc_is(at + 8, at, 8) || n > (uint64_t)(end - at) - 16 ||
            !tfevents_crc_is(at + 12 + n, at + 12, n))
            break;
        tfevents_event(events, at + 12, n);
        at += 16 + n;
    }
    CHECK(at == end, "%s: record %d, of %zu bytes, is damaged", name, events->records, (size_t)(end - at));
    free(text);
}

/* TensorBoard shows nothing of a file whose checksums, framing or messages are wrong, and says nothing about it. */
static void test_report_writes_for_tensorboard(void) {
    CHECK(tfevents_crc((const unsigned char *)"123456789", 9) == 0xe3069283u,
          "the CRC of the reader is wrong");
    const ReportRun standard = {"standard", "standard", 200, 20, 3.5, false, 190};
    char folder[128], output[16384];
    snprintf(folder, sizeof folder, "%s", test_folder());
    report_write_run(folder, &standard);
    report_write_run(folder, &report_laser);
    test_write(folder, "standard/config.json", "{\"date\": \"2026-01-31T12:00:00Z\"}");
    for (int again = 0; again < 2; again++) { /* a second call replaces the files of the first */
        int code =
            report_run(output, sizeof output, folder, "LC_ALL=C", "--out= --tensorboard=a/b standard laser");
        CHECK(code == 0 && strstr(output, "a/b (tensorboard --logdir=a/b)"), "code %d: %s", code, output);
    }
    TfEvents at_step = {.step = 100,
                        .found = {{"loss", NAN}, {"val_loss", NAN}, {"lr", NAN}, {"tokens_per_s", NAN}}};
    tfevents_read(&at_step, folder, "a/b/standard/events.out.tfevents.laser");
    const double want[] = {report_loss(&standard, 100), report_loss(&standard, 100), 5e-4, 1201};
    for (int i = 0; i < 4; i++)
        CHECK(fabs(at_step.found[i].value - want[i]) <= 1e-6 * want[i], "%s is %g, expected %g",
              at_step.found[i].tag, at_step.found[i].value, want[i]);
    /* 200 steps with lr, norm, speed and skipped; 189 losses and 9 validations before the losses are null */
    CHECK(at_step.version && at_step.records == 1 + 200 + 9 && at_step.scalars == 200 * 4 + 189 + 9,
          "version %d, %d records, %d scalars", at_step.version, at_step.records, at_step.scalars);
    CHECK(at_step.time == 1769860800.0 + 50, "the time of step 100 is %.3f", at_step.time);

    TfEvents other = {.step = 200, .found = {{"val_loss", NAN}}};
    tfevents_read(&other, folder, "a/b/laser/events.out.tfevents.laser");
    CHECK(other.found[0].value == 3.25 && other.time == 100, "val_loss %g, time %g", other.found[0].value,
          other.time);
    test_write(folder, "file", "");
    int code = report_run(output, sizeof output, folder, "LC_ALL=C", "--out= --tensorboard=file laser");
    CHECK(code == 1 && strstr(output, "error: --tensorboard: ") && strstr(output, "file"), "code %d: %s",
          code, output);
}

#define REPORT_TENSORBOARD_TESTS(TEST) TEST(report_writes_for_tensorboard)

#endif
