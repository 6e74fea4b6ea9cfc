/* test_report.h: tests that ./report shows the numbers of the runs' files. The logs are small and made here, so that
   every number is known. */
#ifndef TESTS_TEST_REPORT_H
#define TESTS_TEST_REPORT_H

#include <cjson/cJSON.h>
#include <zlib.h>
#include "harness.h"
#include "test_docs.h"

typedef struct {
    const char *name, *attention;
    int steps, validate_every;
    double loss;       /* the loss at the end; at the beginning it is 4 higher */
    bool summary;      /* whether summary.json is written */
    int diverge_after; /* from this step on losses are null; 0: never */
} ReportRun;

static double report_loss(const ReportRun *r, int step) {
    return r->loss + 4.0 * (r->steps - step) * (r->steps - step) / ((double)r->steps * r->steps);
}

static FILE *report_file(const char *folder, const char *run, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s/%s", folder, run, name);
    return check_fopen(path, "w", "");
}

static void report_write_run(const char *folder, const ReportRun *r) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, r->name);
    if (mkdir(path, 0777) != 0) die("cannot create '%s': %s", path, strerror(errno));
    FILE *log = report_file(folder, r->name, "log.jsonl");
    for (int step = 1; step <= r->steps; step++) {
        bool null = r->diverge_after && step >= r->diverge_after;
        char loss[32];
        snprintf(loss, sizeof loss, null ? "null" : "%.6f", report_loss(r, step));
        fprintf(log,
                "{\"step\": %d, \"tokens\": %d, \"loss\": %s, \"lr\": %.6g, \"grad_norm\": 0.5, "
                "\"tokens_per_s\": %d, \"seconds\": %g}\n",
                step, step * 1000, loss, 1e-3 * step / r->steps, 1200 + step % 3, 0.5 * step);
        if (step % r->validate_every == 0) fprintf(log, "{\"step\": %d, \"val_loss\": %s}\n", step, loss);
    }
    fclose(log);
    FILE *config = report_file(folder, r->name, "config.json");
    fprintf(config,
            "{\"options\": {\"attn\": \"%s\", \"layers\": 6, \"prompt\": \"</script><b>&'\\\"\"}, "
            "\"parameters\": "
            "4457728}",
            r->attention);
    fclose(config);
    if (!r->summary) return;
    FILE *summary = report_file(folder, r->name, "summary.json");
    fprintf(
        summary,
        "{\"final_train_loss\": %.4f, \"final_val_loss\": %.4f, \"seconds\": 725, \"tokens_per_s\": 4711.6, "
        "\"peak_memory_bytes\": 432013312, \"parameters\": 4457728}",
        r->loss + 0.01, r->loss);
    fclose(summary);
}

/* The content of a file, with a 0 at its end; free() it. */
static char *report_read(const char *folder, const char *name, size_t *size) {
    char path[512];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = check_fopen(path, "rb", "");
    fstat(fileno(file), &status);
    char *data = check_calloc((size_t)status.st_size + 1);
    *size = fread(data, 1, (size_t)status.st_size, file);
    fclose(file);
    return data;
}

/* Runs ./report in `folder` with arguments and returns its exit code. It is killed when it does not end. */
static int report_run(char *output, size_t size, const char *folder, const char *environment,
                      const char *arguments) {
    char binaries[2048];
    if (!realpath(test_binaries(), binaries)) die("cannot find '%s'", test_binaries());
    return test_command(output, size, "cd '%s' && ulimit -t 60 && env %s '%s/report' %s", folder, environment,
                        binaries, arguments);
}

static const ReportRun report_standard = {"standard", "standard", 200, 20, 3.5, true, 0};
static const ReportRun report_laser = {"laser", "laser", 200, 20, 3.25, false, 0};

/* The table must show the numbers of the runs' files: users copy them into papers. */
static void test_report_table_has_the_numbers(void) {
    char folder[128], output[16384];
    snprintf(folder, sizeof folder, "%s", test_folder());
    report_write_run(folder, &report_standard);
    report_write_run(folder, &report_laser);
    int code = report_run(output, sizeof output, folder, "LC_ALL=C", "--out= standard laser");
    REQUIRE(code == 0, "code %d: %s", code, output);
    const char *standard = strstr(output, "\n* standard"), *laser = strstr(output, "\no laser");
    REQUIRE(standard && laser, "no rows in %s", output);
    const char *of_summary[] = {"4.46M", "3.5100", "3.5000", "12 min 05 s", "4,712", "412 MiB"};
    for (int i = 0; i < 6; i++) {
        const char *at = strstr(standard, of_summary[i]);
        CHECK(at && at < laser, "'%s' is not in the row of standard: %.90s", of_summary[i], standard + 1);
    }
    /* without a summary.json the table has the last validation, the time of the last step, the median speed and no
       memory */
    const char *of_log[] = {"4.46M", "3.2500", "1 min 40 s", "1,201", "-"};
    const char *end = strchr(laser + 1, '\n');
    for (int i = 0; i < 5; i++) {
        const char *at = strstr(laser, of_log[i]);
        CHECK(at && at < end, "'%s' is not in the row of laser: %.90s", of_log[i], laser + 1);
    }
    CHECK(strstr(output, "laser ends 0.2500 nats below standard"), "%s", output);
}

/* The table has the column of bits per byte when a run of it knows them, in the terminal where the names fit beside it;
   for runs of older versions nothing changes. */
static void test_report_shows_bits_per_byte(void) {
    char folder[128], path[256], output[16384];
    snprintf(folder, sizeof folder, "%s", test_folder());
    report_write_run(folder, &report_standard);
    report_write_run(folder, &report_laser);
    int code = report_run(output, sizeof output, folder, "LC_ALL=C", "--out=old.html standard laser");
    CHECK(code == 0 && !strstr(output, "bits/B"), "code %d, or a column that is empty: %s", code, output);
    snprintf(path, sizeof path, "%s/laser/log.jsonl", folder);
    FILE *log = check_fopen(path, "a", "");
    fputs("{\"step\": 200, \"val_loss\": 3.25, \"val_bits_per_byte\": 1.23456, \"val_perplexity\": 25.8}\n",
          log);
    check_fclose(log, path);
    code = report_run(output, sizeof output, folder, "LC_ALL=C", "--out=new.html standard laser");
    CHECK(code == 0 && !strstr(output, "bits/B"), "code %d, or a line of more than 80 columns: %.300s", code,
          output);
    code = report_run(output, sizeof output, folder, "LC_ALL=C", "--out= laser");
    CHECK(code == 0 && strstr(output, "val loss  bits/B ") && strstr(output, "3.2500  1.2346 "), "%.400s",
          output);
    code = test_command(
        output, sizeof output,
        "cd %s && ! grep -q 'bits per byte' old.html && grep -c 'bits per byte.*1.2346<' new.html", folder);
    CHECK(code == 0, "the pages: %s", output);
}

/* A mark beyond the end of the curves widens both axes, and is named in the terminal and in the HTML. What is no mark is
   an error that says how one looks. */
static void test_report_draws_marks(void) {
    static const struct {
        const char *mark, *says;
    } wrong[] = {{"160000", "'160000' is no mark"},
                 {"1:2", "'1:2' is no mark"},
                 {"1:2:x,:", "':' is no mark"},
                 {"-1:2:x", "'-1:2:x' is no mark"},
                 {"1:nan:x", "'1:nan:x' is no mark"},
                 {"1:2:a,1:2:b,1:2:c,1:2:d,1:2:e,1:2:f,1:2:g,1:2:h,1:2:i,1:2:j", "more than 9 marks"}};
    char folder[128], output[16384], arguments[200];
    size_t size;
    snprintf(folder, sizeof folder, "%s", test_folder());
    report_write_run(folder, &report_standard);
    int code = report_run(output, sizeof output, folder, "LC_ALL=C",
                          "--out=r.html --png=r.png '--mark=400:1.5:paper <b>,400:1.25:other' standard");
    REQUIRE(code == 0, "code %d: %s", code, output);
    CHECK(strstr(output, "\n  1  1.500 at step 400: paper <b>\n  2  1.250 at step 400: other\n"), "%s",
          output);
    const char *second =
        strstr(output, "2\n"); /* the digit at the right end of the plot's last row but one */
    CHECK(second && strstr(output, "400 steps"), "no digit at the end of the plot: %s", output);
    char *html = report_read(folder, "r.html", &size);
    CHECK(strstr(html, "1.500 paper &lt;b") && strstr(html, "class=\"mark\" style=\"left:100.00%"),
          "the page has no marks");
    free(html);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(arguments, sizeof arguments, "--out= '--mark=%s' standard", wrong[i].mark);
        code = report_run(output, sizeof output, folder, "LC_ALL=C", arguments);
        CHECK(code == 2 && strstr(output, wrong[i].says), "%s: code %d: %s", wrong[i].mark, code, output);
    }
}

/* How many columns a line of UTF-8 takes. */
static int report_columns(const char *line, size_t n) {
    int columns = 0;
    for (size_t i = 0; i < n; i++) columns += (line[i] & 0xC0) != 0x80;
    return columns;
}

/* A table or plot that is wider than the terminal would be broken into unreadable lines. */
static void test_report_fits_the_terminal(void) {
    char folder[128], output[32768];
    snprintf(folder, sizeof folder, "%s", test_folder());
    ReportRun longer = report_laser;
    longer.name = "a-name-that-is-much-longer-than-any-column-of-the-table-and-goes-on-and-on-and-on";
    ReportRun labelled = report_standard;
    labelled.name = "standard-1";
    report_write_run(folder, &report_standard);
    report_write_run(folder, &labelled);
    report_write_run(folder, &longer);
    int code = report_run(output, sizeof output, folder, "LC_ALL=C", "--out= standard standard-1");
    CHECK(code == 0 && strstr(output, " 3.500 standard-1\n"), "no whole name beside the curve: %s", output);
    /* a name that is longer than a line is printed on two lines, in the table and in the legend of each plot */
    code = report_run(output, sizeof output, folder, "LC_ALL=C", "--out= standard a-*");
    const char *at = strstr(output, "that-is"), *next = at ? strchr(at, '\n') : NULL;
    CHECK(code == 0 && next && strncmp(next, "\n  ", 3) == 0, "code %d: %s", code, output);
    for (int places = 0; places < 3; places++, at = at ? strstr(at + 1, "that-is") : NULL)
        CHECK(at && (strncmp(at - 7, "a-name-", 7) == 0), "place %d: %s", places, at ? at - 7 : output);
    CHECK(!strstr(output, "3.250 a-name"), "the beginning of a name is no label: %s", output);
    const char *locales[] = {"LC_ALL=C", "LC_ALL=en_US.UTF-8"};
    for (int utf8 = 0; utf8 < 2; utf8++) {
        code = report_run(output, sizeof output, folder, locales[utf8], "--out= --floor=3 standard a-*");
        REQUIRE(code == 0, "code %d: %s", code, output);
        bool ascii = true;
        for (const char *line = output, *end; *line; line = end + (*end == '\n')) {
            end = line + strcspn(line, "\n");
            int columns = report_columns(line, (size_t)(end - line));
            bool sentence = strstr(line, "nats below") != NULL && strstr(line, "nats below") < end;
            CHECK(columns <= 80 || sentence, "%d columns: %.*s", columns, (int)(end - line), line);
            for (const char *c = line; c < end; c++) ascii = ascii && *c >= ' ' && *c < 127;
        }
        CHECK(ascii == !utf8, "%s: ascii is %d", locales[utf8], ascii);
        CHECK(!strchr(output, '\033'), "colours in what is no terminal");
        CHECK(strstr(output, "floor") && strstr(output, "Validation loss") && strstr(output, "Training loss"),
              "%s", output);
    }
}

/* The page must load nothing from elsewhere: it must still open on a machine without network, and in ten years. */
static void test_report_html_is_self_contained(void) {
    char folder[128], output[8192];
    size_t size;
    snprintf(folder, sizeof folder, "%s", test_folder());
    ReportRun odd = report_laser;
    odd.name = "<i>&'odd\033[31m\xc2\x9b\xff";
    odd.attention = "\\u001b]0;laser\\u0007\\u202e";
    report_write_run(folder, &report_standard);
    report_write_run(folder, &odd);
    int code = report_run(output, sizeof output, folder, "LC_ALL=en_US.UTF-8", "--out=r.html *");
    REQUIRE(code == 0, "code %d: %s", code, output);
    char *html = report_read(folder, "r.html", &size);
    const char *texts[] = {output, html};
    for (int i = 0; i < 2;
         i++) { /* no character reaches the terminal that it obeys or that changes the direction of writing */
        for (const char *c = texts[i]; *c; c++)
            if ((unsigned char)*c < 32 && *c != '\n') CHECK(0, "byte %d in %s", *c, i ? "the page" : output);
        CHECK(!strstr(texts[i], "\xc2\x9b") && !strstr(texts[i], "\xff") && !strstr(texts[i], "\xe2\x80\xae"),
              "raw bytes in %s", i ? "the page" : output);
        CHECK(strstr(texts[i], "odd\\x1b[31m\\xc2\\x9b\\xff"), "the name is not written out in %s",
              i ? "the page" : output);
    }
    const char *forbidden[] = {"http:",   "https:", "//",   "src=", "href=",       "url(",
                               "@import", "<link",  "<img", "<i>&", "</script><b>"};
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
        CHECK(!strstr(html, forbidden[i]), "'%s' at: %.60s", forbidden[i], strstr(html, forbidden[i]));
    CHECK(strstr(html, "&lt;i&gt;&amp;&#39;odd"), "the name is not there, escaped");
    CHECK(strstr(html, "&lt;/script&gt;&lt;b&gt;&amp;&#39;&quot;"), "the option is not there, escaped");
    CHECK(strstr(html, "prefers-color-scheme:dark"), "no dark colours");
    /* on a narrow screen each figure has its title beside it; a row of all figures would be too wide */
    CHECK(strstr(html, "<td data-title=\"validation loss\"") && strstr(html, "content:attr(data-title)"),
          "the table has one form for all widths");
    const char *panels[] = {"Validation loss", "Training loss", "Gradient norm", "Learning rate"};
    for (int i = 0; i < 4; i++) CHECK(strstr(html, panels[i]), "no panel '%s'", panels[i]);
    free(html);
}

/* The values that the page shows at the pointer must be those of the log. */
static void test_report_html_holds_the_curves(void) {
    char folder[128], output[8192];
    size_t size;
    snprintf(folder, sizeof folder, "%s", test_folder());
    report_write_run(folder, &report_standard);
    report_write_run(folder, &report_laser);
    int code = report_run(output, sizeof output, folder, "LC_ALL=C", "--out=r.html standard laser");
    REQUIRE(code == 0, "code %d: %s", code, output);
    char *html = report_read(folder, "r.html", &size), *start = strstr(html, "id=\"data\">");
    cJSON *data = start ? cJSON_Parse(start + strlen("id=\"data\">")) : NULL;
    const cJSON *plots = cJSON_GetObjectItem(data, "plots"), *plot = cJSON_GetArrayItem(plots, 0);
    const cJSON *run = cJSON_GetArrayItem(cJSON_GetObjectItem(plot, "runs"), 1);
    const cJSON *x = cJSON_GetObjectItem(run, "x"), *y = cJSON_GetObjectItem(run, "y");
    CHECK(cJSON_GetArraySize(x) == 10 && cJSON_GetArraySize(y) == 10, "%d and %d points",
          cJSON_GetArraySize(x), cJSON_GetArraySize(y));
    for (int i = 0; i < cJSON_GetArraySize(x) && i < cJSON_GetArraySize(y); i++) {
        int step = 20 * (i + 1);
        double got = cJSON_GetArrayItem(y, i)->valuedouble, want = report_loss(&report_laser, step);
        CHECK(cJSON_GetArrayItem(x, i)->valuedouble == step, "point %d at %g", i,
              cJSON_GetArrayItem(x, i)->valuedouble);
        CHECK(fabs(got - want) < 1e-5 * want, "step %d: %g, in the log %g", step, got, want);
    }
    run = cJSON_GetArrayItem(cJSON_GetObjectItem(cJSON_GetArrayItem(plots, 1), "runs"), 0);
    const cJSON *raw = cJSON_GetArrayItem(cJSON_GetObjectItem(run, "raw"), 99);
    double want = report_loss(&report_standard, 100);
    CHECK(raw && fabs(raw->valuedouble - want) < 1e-5 * want,
          "raw training loss of step 100: %g, in the log %g", raw ? raw->valuedouble : NAN, want);
    cJSON_Delete(data);
    free(html);
}

static uint32_t report_big_endian(const unsigned char *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The pixels of a PNG of 8-bit RGB, which the caller frees; NULL when the file is damaged. This decoder, written for
   the test, checks chunks, checksums and filters. */
static unsigned char *report_decode(const unsigned char *png, size_t size, int *width, int *height) {
    if (size < 57 || memcmp(png, "\x89PNG\r\n\x1a\n", 8) != 0) return NULL;
    *width = (int)report_big_endian(png + 16), *height = (int)report_big_endian(png + 20);
    if (png[24] != 8 || png[25] != 2 || png[28] != 0) return NULL;
    size_t stride = 3 * (size_t)*width, packed_size = 0, row = stride + 1;
    unsigned char *packed = check_calloc(size), *rows = check_calloc(row * (size_t)*height);
    unsigned char *pixels = check_calloc(stride * (size_t)*height);
    bool ok = true;
    for (size_t at = 8; ok && at + 12 <= size;) {
        size_t n = report_big_endian(png + at);
        ok = at + 12 + n <= size &&
             crc32(0, png + at + 4, (uInt)(n + 4)) == report_big_endian(png + at + 8 + n);
        if (ok && memcmp(png + at + 4, "IDAT", 4) == 0)
            memcpy(packed + packed_size, png + at + 8, n), packed_size += n;
        at += 12 + n;
    }
    uLongf length = (uLongf)(row * (size_t)*height);
    ok = ok && uncompress(rows, &length, packed, (uLong)packed_size) == Z_OK &&
         length == row * (size_t)*height;
    for (int y = 0; ok && y < *height; y++)
        for (size_t i = 0; i < stride; i++) {
            unsigned char *out = pixels + (size_t)y * stride + i, filter = rows[(size_t)y * row];
            int a = i >= 3 ? out[-3] : 0, b = y ? out[-(ptrdiff_t)stride] : 0;
            int c = i >= 3 && y ? out[-(ptrdiff_t)stride - 3] : 0, p = a + b - c;
            int pa = abs(p - a), pb = abs(p - b), pc = abs(p - c);
            int paeth = pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
            const int predicted[] = {0, a, b, (a + b) / 2, paeth};
            ok = ok && filter <= 4;
            *out = (unsigned char)(rows[(size_t)y * row + 1 + i] + (ok ? predicted[filter] : 0));
        }
    free(packed), free(rows);
    if (ok) return pixels;
    free(pixels);
    return NULL;
}

/* A picture that viewers refuse, or with a curve at the wrong height, would be noticed only after it was sent. */
static void test_report_png_decodes(void) {
    char folder[128], output[8192];
    snprintf(folder, sizeof folder, "%s", test_folder());
    report_write_run(folder, &report_standard);
    report_write_run(folder, &report_laser);
    int code = report_run(output, sizeof output, folder, "LC_ALL=C", "--out= --png=l.png standard laser");
    /* libstb-dev is not installed: only the message can be tested. */
    if (strstr(output, "built without stb")) return;
    REQUIRE(code == 0, "code %d: %s", code, output);
    size_t size;
    int width = 0, height = 0;
    char *png = report_read(folder, "l.png", &size);
    unsigned char *pixels = report_decode((unsigned char *)png, size, &width, &height);
    free(png);
    REQUIRE(pixels, "%zu bytes are no PNG", size);
    CHECK(width == 1200 && height == 700, "%d x %d", width, height);
    const unsigned char colors[][3] = {{255, 255, 255}, {0x25, 0x63, 0xeb}, {0xe0, 0x59, 0x0b}};
    int counts[3] = {0};
    for (int i = 0; i < width * height; i++)
        for (int c = 0; c < 3; c++) counts[c] += memcmp(pixels + 3 * i, colors[c], 3) == 0;
    CHECK(counts[0] > width * height / 2, "%d white pixels", counts[0]);
    CHECK(counts[1] > 1000 && counts[2] > 1000, "%d blue and %d orange pixels: a curve is missing", counts[1],
          counts[2]);
    free(pixels);

    /* the lower plot has the same x axis as the upper one: the difference to a run half as long ends in its middle */
    const ReportRun half = {"half", "laser", 100, 10, 3.25, true, 0};
    report_write_run(folder, &half);
    code = report_run(output, sizeof output, folder, "LC_ALL=C", "--out= --png=h.png standard half");
    REQUIRE(code == 0, "code %d: %s", code, output);
    png = report_read(folder, "h.png", &size);
    pixels = report_decode((unsigned char *)png, size, &width, &height);
    free(png);
    REQUIRE(pixels && width == 1200 && height == 700, "%d x %d", width, height);
    int last = 0;
    for (int y = 544; y < 644; y++) /* the lower plot without its labels */
        for (int x = 84; x < 1010; x++)
            if (memcmp(pixels + 3 * (y * width + x), colors[2], 3) == 0 && x > last) last = x;
    CHECK(last > 500 && last < 560, "the difference ends at pixel %d, the axis goes from 84 to 1010", last);
    free(pixels);
}

/* Logs of killed, empty or diverged runs must not keep the user from seeing the other runs. */
static void test_report_survives_odd_logs(void) {
    static const ReportRun odd[] = {{"one", "laser", 1, 1, 7, true, 0},
                                    {"diverged", "laser", 100, 10, 3, false, 60},
                                    {"never", "laser", 20, 50, 3, false, 0},
                                    {"nothing", "laser", 20, 5, 3, false, 1}};
    char folder[128], output[32768];
    snprintf(folder, sizeof folder, "%s", test_folder());
    for (int i = 0; i < 4; i++) {
        report_write_run(folder, &odd[i]);
        char arguments[256];
        snprintf(arguments, sizeof arguments, "--png=l.png --out=r.html %s", odd[i].name);
        int code = report_run(output, sizeof output, folder, "LC_ALL=C", arguments);
        CHECK(code == 0 || strstr(output, "built without stb"), "%s: code %d: %s", odd[i].name, code, output);
        CHECK((strstr(output, " nan ") != NULL) == (odd[i].diverge_after > 0), "%s: %.300s", odd[i].name,
              output);
    }
    test_command(output, sizeof output,
                 "cd '%s' && rm one/config.json one/summary.json && printf '{\"step' >> "
                 "one/log.jsonl",
                 folder); /* of a run that was killed while it wrote a line */
    int code =
        report_run(output, sizeof output, folder, "LC_ALL=C", "--out=r.html one/ diverged never nothing");
    CHECK(code == 0, "all together: code %d: %s", code, output);
    CHECK(strstr(output, "config.json"), "nothing is said of the missing config.json: %.300s", output);
}

static const cJSON *report_plot(const cJSON *data, int plot, const char *member, int run) {
    const cJSON *plots = cJSON_GetObjectItem(data, "plots");
    const cJSON *runs = cJSON_GetObjectItem(cJSON_GetArrayItem(plots, plot), "runs");
    return cJSON_GetObjectItem(cJSON_GetArrayItem(runs, run), member);
}

/* With very large, very small and missing numbers the data of the page must still be JSON, its axes finite, and its
   values those that were logged. */
static void test_report_takes_odd_numbers(void) {
    static const struct {
        const char *log;
        const char *said[3]; /* in the terminal */
        int plot, points;    /* some curve of the page has so many points... */
        double x, y;         /* ...and this is the last of them; NaN: null */
    } cases[] = {
        {"{\"step\": 0, \"val_loss\": 5.7106}\n", {"5.7106"}, 0, 1, 0, 5.7106},
        {"{\"step\": 7, \"loss\": 3}\n", {"3.0000"}, 1, 1, 7, 3},
        {"{\"step\": 7, \"loss\": 0, \"lr\": 0, \"grad_norm\": 0}\n", {"0.0000"}, 4, 1, 7, 0},
        {"{\"step\": 1, \"loss\": null}\n", {"nan"}, 1, 1, 1, NAN},
        {"{\"step\": 1, \"val_loss\": 5}\n{\"step\": 2, \"val_loss\": 5.000000000000001}\n",
         {"5.0000"},
         0,
         2,
         2,
         5},
        {"{\"step\": 1, \"val_loss\": -3}\n{\"step\": 2, \"val_loss\": -3.5}\n",
         {"-3.5000", "-3.500"},
         0,
         2,
         2,
         -3.5},
        {"{\"step\": 1, \"val_loss\": 1e300}\n{\"step\": 2, \"val_loss\": -1e300}\n", {"nan"}, 0, 2, 2, NAN},
        {"{\"step\": 1, \"loss\": 1e38}\n{\"step\": 2, \"loss\": -1e38}\n", {"-1e+38"}, 1, 2, 2, -1e38},
        {"{\"step\": 1, \"loss\": 1, \"grad_norm\": 1e-320}\n{\"step\": 2, \"loss\": 1, \"grad_norm\": "
         "1e38}\n",
         {"1.0000"},
         3,
         2,
         2,
         1e38},
        {"{\"step\": 1234567, \"loss\": 12345.6789, \"seconds\": 1e300, \"tokens_per_s\": 1e300}\n",
         {"12345.6789", "9999 years"},
         1,
         1,
         1234567,
         12345.6789},
        {"{\"step\": 9007199254740992, \"loss\": 2, \"seconds\": -5, \"tokens_per_s\": -1234}\n",
         {"-1,234"},
         1,
         1,
         9007199254740992,
         2},
    };
    char folder[128], output[16384], path[256];
    snprintf(folder, sizeof folder, "%s", test_folder());
    snprintf(path, sizeof path, "%s/run", folder);
    mkdir(path, 0777);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FILE *log = report_file(folder, "run", "log.jsonl");
        fputs(cases[i].log, log), fclose(log);
        int code = report_run(output, sizeof output, folder, "LC_ALL=C", "--out=r.html run");
        REQUIRE(code == 0, "case %zu: code %d: %s", i, code, output);
        for (int k = 0; k < 3 && cases[i].said[k]; k++)
            CHECK(strstr(output, cases[i].said[k]), "case %zu: no '%s' in %s", i, cases[i].said[k], output);
        size_t size;
        char *html = report_read(folder, "r.html", &size), *start = strstr(html, "id=\"data\">");
        const char *ended;
        cJSON *data = start ? cJSON_ParseWithOpts(start + strlen("id=\"data\">"), &ended, false) : NULL;
        CHECK(data && strncmp(ended + strspn(ended, "\n"), "</script>", 9) == 0,
              "case %zu: the data is no JSON: %.300s", i, start);
        const cJSON *x = report_plot(data, cases[i].plot, "x", 0),
                    *y = report_plot(data, cases[i].plot, "y", 0);
        CHECK(cJSON_GetArraySize(x) == cases[i].points && cJSON_GetArraySize(y) == cases[i].points,
              "case %zu: %d points", i, cJSON_GetArraySize(x));
        const cJSON *x_end = cJSON_GetArrayItem(x, cases[i].points - 1),
                    *y_end = cJSON_GetArrayItem(y, cases[i].points - 1);
        CHECK(x_end && x_end->valuedouble == cases[i].x, "case %zu: at %.17g", i,
              x_end ? x_end->valuedouble : NAN);
        CHECK(y_end && (isnan(cases[i].y) ? cJSON_IsNull(y_end)
                                          : fabs(y_end->valuedouble - cases[i].y) <= 1e-8 * fabs(cases[i].y)),
              "case %zu: %.17g", i, y_end ? y_end->valuedouble : NAN);
        cJSON_Delete(data);
        free(html);
    }
}

/* Names that are not runs must be left out with one line for each, and the largest possible configuration must be
   shown: users give all names in a folder, whatever they are. */
static void test_report_takes_what_a_folder_holds(void) {
    char folder[128], output[16384];
    size_t size;
    snprintf(folder, sizeof folder, "%s", test_folder());
    report_write_run(folder, &report_standard);
    report_write_run(folder, &report_laser);
    test_command(
        output, sizeof output,
        "cd '%s' && touch finished report.html standard.settings && mkdir empty later && "
        "touch later/log.jsonl && ln -s nowhere broken && : > laser/config.json && : > standard/summary.json",
        folder);
    int code = report_run(output, sizeof output, folder, "LC_ALL=C", "--out=r.html *");
    CHECK(code == 0 && strstr(output, "\n* laser") && strstr(output, "\no standard"), "code %d: %s", code,
          output);
    const char *skipped = strstr(output, "'broken' is no folder and is left out, and so are 5 more");
    CHECK(skipped && !strstr(strchr(skipped, '\n'), "left out"), "%s", output);
    CHECK(strstr(output, "'laser/config.json' is damaged") &&
              strstr(output, "'standard/summary.json' is damaged"),
          "%s", output);
    code = report_run(output, sizeof output, folder, "LC_ALL=C", "--out= standard later");
    CHECK(code == 0 && strstr(output, "'later' has no loss in its log.jsonl yet and is left out"),
          "code %d: %s", code, output);
    code = report_run(output, sizeof output, folder, "LC_ALL=C", "--out= finished empty");
    CHECK(code == 1 && strstr(output, "'finished' is no folder, and none of the others is a run"),
          "code %d: %s", code, output);
    enum { KEYS = 60000 };
    FILE *config = report_file(folder, "laser", "config.json");
    fprintf(config, "{\"options\": {\"attn\": \"laser\", \"%0201d\": 1", 0);
    for (int i = 0; i < KEYS; i++) fprintf(config, ", \"k%d\": %d", i, i);
    fprintf(config, "}}");
    fclose(config);
    char binaries[2048];
    if (!realpath(test_binaries(), binaries)) die("cannot find '%s'", test_binaries());
    /* a search through all keys for each key would take at least twice this limit; sorting takes a twentieth of it */
    code = test_command(output, sizeof output,
                        "cd '%s' && ulimit -t 5 && '%s/report' --out=r.html laser > /dev/null", folder,
                        binaries);
    CHECK(code == 0, "code %d: %s", code, output);
    char *html = report_read(folder, "r.html", &size);
    size_t rows = 0;
    for (const char *at = html; (at = memchr(at, '\n', size - (size_t)(at - html))); at++)
        rows += strncmp(at, "\n<tr><td>k", 10) == 0;
    CHECK(rows == KEYS && strstr(html, "<td>k59999</td><td>59999</td>"), "%zu rows", rows);
    CHECK(strstr(output, "not shown: 1 option"), "%s", output);
    free(html);
}

/* A wrong name or option must be reported with what to do, not with an empty page. */
static void test_report_refuses_clearly(void) {
    static const struct {
        const char *arguments;
        int code;
        const char *said;
    } cases[] = {{"", 2, "name at least one run"},
                 {"nowhere", 1, "nowhere"},
                 {"file", 1, "'file' is no folder"},
                 {"empty", 1, "'empty' has no log.jsonl"},
                 {"silent", 1, "has no loss in its log.jsonl yet"},
                 {"junk", 1, "junk/log.jsonl:2"},
                 {"--flor=3 x", 2, "did you mean --floor"},
                 {"--out=no/r.html good", 1, "no/r.html"}};
    char folder[128], output[8192];
    snprintf(folder, sizeof folder, "%s", test_folder());
    const ReportRun good = {"good", "laser", 10, 5, 3, true, 0};
    report_write_run(folder, &good);
    test_command(
        output, sizeof output,
        "cd '%s' && touch file && mkdir empty silent junk && touch silent/log.jsonl && "
        "printf '{\"step\": 1, \"loss\": 2}\\nwhat?\\n{\"step\": 2, \"loss\": 2}\\n' > junk/log.jsonl",
        folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code = report_run(output, sizeof output, folder, "LC_ALL=C", cases[i].arguments);
        CHECK(code == cases[i].code && strstr(output, cases[i].said), "'%s': code %d: %s", cases[i].arguments,
              code, output);
    }
}

/* With logs as long as those of the paper's runs, the page must stay small enough to be opened and mailed. */
static void test_report_takes_long_logs(void) {
    char folder[128], output[16384];
    size_t size;
    snprintf(folder, sizeof folder, "%s", test_folder());
    const ReportRun run = {"long", "laser", 160000, 500, 2.6, true, 0};
    report_write_run(folder, &run);
    int code = report_run(output, sizeof output, folder, "LC_ALL=C", "--out=r.html long long long long");
    REQUIRE(code == 0, "code %d: %s", code, output);
    free(report_read(folder, "r.html", &size));
    CHECK(size > 50000 && size < 1000000, "%zu bytes of HTML", size);
}

#define REPORT_TESTS(TEST)                                                                                   \
    TEST(report_table_has_the_numbers)                                                                       \
    TEST(report_shows_bits_per_byte)                                                                         \
    TEST(report_draws_marks)                                                                                 \
    TEST(report_fits_the_terminal)                                                                           \
    TEST(report_html_is_self_contained)                                                                      \
    TEST(report_html_holds_the_curves)                                                                       \
    TEST(report_png_decodes)                                                                                 \
    TEST(report_survives_odd_logs)                                                                           \
    TEST(report_takes_odd_numbers)                                                                           \
    TEST(report_takes_what_a_folder_holds)                                                                   \
    TEST(report_refuses_clearly)                                                                             \
    TEST(report_takes_long_logs)                                                                             \
    DOCS_TESTS(TEST)

#endif
