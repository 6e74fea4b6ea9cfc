/* report.c: compares training runs: a table and loss curves in the terminal, the same as one HTML file, and a picture.

   cc -O2 tools/report.c -o report -lcjson -lm        needs stb_image_write.h (libstb-dev) for --png
   ./report [--out=report.html] [--png=loss.png] [--csv=arms.csv] [--floor=NATS]
            [--mark=STEP:LOSS:LABEL] RUN...
   ./report --tensorboard=DIR RUN...                      also writes the runs into DIR for TensorBoard
   ./report --fit RUN...                                  the loss as a function of the model's size
   ./report --write-expect=FILE RUN...                    a table of expected losses, from finished runs
   ./report --expect=FILE RUN...                          compares runs with such a table

   A RUN is a folder that ./train_gpt --out=DIR wrote. It must have a log.jsonl, of a finished run or of one that is
   still training; config.json and summary.json are used where they exist. A name that is not such a folder is left out
   with a warning, so that the pattern of a shell may match other files too. The curves of all runs are drawn into the
   same plots, in the order of the names; differences are taken to the first run. Runs that differ only in their seed are
   an arm: then the report is about arms, with means, spread and intervals. --floor draws a line that no model can go
   below: the entropy of the text where it is known, as for the text that data/grammar.c generates. --mark draws results
   from elsewhere, such as those of a paper.

   report_runs.h reads the runs, report_arms.h groups them and compares the groups with the formulas of statistics.h,
   report_plot.h chooses the curves and fits the axes; report_terminal.h, report_html.h and report_png.h draw the same
   plots in three ways. report_tensorboard.h writes the numbers of the logs for TensorBoard. report_fit.h and
   report_expect.h are the other two reports; report_analysis.h is the part about attention, of runs that were trained
   with --analyze-every. With arms it is about the first run of each. */
#include "report_analysis.h"
#include "report_arms.h"
#include "report_expect.h"
#include "report_fit.h"
#include "report_html.h"
#include "report_png.h"
#include "report_tensorboard.h"
#include "report_terminal.h"
#include "../gpt/run/options.h"

typedef struct {
    const char *out, *png, *csv, *expect, *write_expect, *mark, *tensorboard;
    double floor;
    bool fit;
} ReportOptions;

static const Option report_options[] = {
    {"Report", "out", OPTION_STRING, offsetof(ReportOptions, out), "report.html", 0, 0, "FILE",
     "the HTML file, which needs no other file; --out= writes none", 0},
    {"Report", "png", OPTION_STRING, offsetof(ReportOptions, png), "", 0, 0, "FILE",
     "a picture of the validation loss, 1200 x 700 pixels; empty: none", 0},
    {"Report", "csv", OPTION_STRING, offsetof(ReportOptions, csv), "", 0, 0, "FILE",
     "a table for other programs: a line for each arm, the runs that differ only in their seed; empty: none",
     0},
    {"Report", "tensorboard", OPTION_STRING, offsetof(ReportOptions, tensorboard), "", 0, 0, "DIR",
     "a folder for TensorBoard, in which each run gets a folder with the numbers of its log; empty: none", 0},
    {"Report", "floor", OPTION_FLOAT, offsetof(ReportOptions, floor), "0", 0, 1e6, "",
     "entropy of the text in nats per token, drawn as a line; 0: not known", 0},
    {"Report", "mark", OPTION_STRING, offsetof(ReportOptions, mark), "", 0, 0, "STEP:LOSS:LABEL,...",
     "results from elsewhere, drawn into the plot of the validation loss; empty: none", 0},
    {"Other reports", "fit", OPTION_SWITCH, offsetof(ReportOptions, fit), "no", 0, 0, "",
     "fit L = a + b N^-c to runs of three or more sizes: how the final validation loss falls with the number "
     "of "
     "parameters; --out, --png and --csv are then about the fit",
     0},
    {"Other reports", "write-expect", OPTION_STRING, offsetof(ReportOptions, write_expect), "", 0, 0, "FILE",
     "write a table of the validation losses that a further run should have, from finished runs that differ "
     "only in "
     "their seed: step, mean and spread",
     0},
    {"Other reports", "expect", OPTION_STRING, offsetof(ReportOptions, expect), "", 0, 0, "FILE",
     "compare each run with such a table; the exit code is 1 when a loss is outside of the spread or was not "
     "measured",
     0},
};

static Run runs[ARM_RUNS_MAX];

/* Reads the runs among the `count` folders into `runs` and returns how many there are. A warning names what was left
   out; dies when there is no run. */
static int load_runs(char **folders, int count) {
    const char *left_out = NULL, *why = NULL;
    int loaded = 0;
    for (int i = 0; i < count; i++) {
        if (loaded == ARM_RUNS_MAX)
            die("there are more than %d runs among the %d names given; name fewer", ARM_RUNS_MAX, count);
        const char *reason = run_load(&runs[loaded], folders[i]);
        if (!reason)
            loaded++;
        else if (!left_out)
            left_out = folders[i], why = reason;
    }
    const int others = count - loaded - 1;
    if (loaded == 0)
        die("'%s' %s%s; name the folder of a run, which ./train_gpt --out=DIR wrote", left_out, why,
            others ? ", and none of the others is a run" : "");
    if (others >= 0) {
        char more[64] = "";
        if (others) snprintf(more, sizeof more, ", and so %s %d more", others > 1 ? "are" : "is", others);
        warn("'%s' %s and is left out%s", left_out, why, more);
    }
    return loaded;
}

/* The report: about arms where runs differ only in their seed, else about runs. */
static void report_runs(const ReportOptions *o, int count, double floor) {
    Arms gathered;
    const Arms *arms = arms_gather(&gathered, runs, count) ? &gathered : NULL;
    if (!arms && count > PLOT_RUNS_MAX)
        die("%d runs are too many for one report; name at most %d", count, PLOT_RUNS_MAX);
    const Run *drawn = arms ? arms->means : runs;
    const int drawn_count = arms ? arms->count : count;
    Terminal terminal = terminal_of(stdout);
    terminal_show(&terminal, runs, count, arms, floor);
    terminal_analysis(&terminal, arms ? arms->firsts : runs, drawn_count);
    if (*o->out || *o->png || *o->csv || *o->tensorboard) printf("\n");
    if (*o->out) html_write(o->out, runs, count, arms, floor, html_analysis), printf("  %s\n", o->out);
    if (*o->png) png_write(o->png, drawn, drawn_count, floor), printf("  %s\n", o->png);
    if (*o->csv) arms_csv(o->csv, &gathered), printf("  %s\n", o->csv);
    arms_free(&gathered);
}

/* --fit: the loss as a function of the size. */
static void report_fit(const ReportOptions *o, int count) {
    Fits fits;
    fits_of(&fits, runs, count);
    Terminal terminal = terminal_of(stdout);
    fits_terminal(&terminal, &fits);
    if (*o->out || *o->png || *o->csv) printf("\n");
    if (*o->out) fits_html(o->out, &fits), printf("  %s\n", o->out);
    if (*o->png) png_write_plot(o->png, &fits.plot, "fit of L = a + b N^-c"), printf("  %s\n", o->png);
    if (*o->csv) fits_csv(o->csv, &fits), printf("  %s\n", o->csv);
    fits_free(&fits);
}

/* --write-expect. */
static void report_write_expect(const ReportOptions *o, int count) {
    Arms arms;
    arms_gather(&arms, runs, count);
    expect_write(o->write_expect, &arms);
    for (int i = 0; i < arms.note_count; i++) warn("%s", arms.notes[i]);
    printf("  %s\n", o->write_expect);
    arms_free(&arms);
}

int main(int argc, char **argv) {
    program_begin();
    static ReportOptions options;
    OptionSet set = options_begin("report", "./report [options] RUN...", report_options,
                                  sizeof report_options / sizeof *report_options, &options, NULL);
    int named = options_parse(&set, argc, argv);
    if (named == 0) options_fail(&set, "name at least one run, such as runs/demo/laser");
    if (options.fit + (*options.expect != 0) + (*options.write_expect != 0) > 1)
        options_fail(&set, "--fit, --expect and --write-expect are reports of their own; give one of them");
    double floor = options.floor > 0 ? options.floor : NAN;
    char error[MARKS_ERROR_SIZE];
    if (!marks_read(options.mark, error)) options_fail(&set, "--mark: %s", error);
    const int count = load_runs(argv, named);
    runs_name(runs, count);
    bool as_expected = true;
    for (int r = 0; r < count && *options.tensorboard; r++) tensorboard_write(options.tensorboard, &runs[r]);
    if (options.fit)
        report_fit(&options, count);
    else if (*options.write_expect)
        report_write_expect(&options, count);
    else if (*options.expect)
        as_expected = expect_compare(options.expect, runs, count);
    else
        report_runs(&options, count, floor);
    if (*options.tensorboard)
        printf("  %s (tensorboard --logdir=%s)\n", options.tensorboard, options.tensorboard);
    for (int r = 0; r < count; r++) run_free(&runs[r]);
    marks_free();
    return as_expected ? 0 : 1;
}
