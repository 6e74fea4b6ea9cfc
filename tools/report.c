/* report.c: what runs did: a table, loss curves in the terminal, one HTML file, a PNG.

   cc -O2 tools/report.c -o report -lcjson -lm        needs stb_image_write.h (libstb-dev) for --png
   ./report [--out=report.html] [--png=loss.png] [--floor=NATS] RUN...

   A RUN is a folder that ./train_gpt --out=DIR wrote: log.jsonl must be there, finished or not; config.json and
   summary.json add what they know. What is no run is left out, so that a pattern may name all that a folder of runs
   holds. Runs are drawn over one another, in the order given; the first is the one
   others are measured against. --floor draws a line no model can go below, for text whose entropy is known
   (data/grammar.c).

   The parts: report_runs.h reads runs, report_plot.h has axes and ticks, report_terminal.h, report_html.h and
   report_png.h are three views of the same plots. */
#include "report_html.h"
#include "report_png.h"
#include "report_terminal.h"
#include "../gpt/run/options.h"

typedef struct {
    const char *out, *png;
    double floor;
} ReportOptions;

static const Option report_options[] = {
    {"Report", "out", OPTION_STRING, offsetof(ReportOptions, out), "report.html", 0, 0, "FILE",
     "the HTML file, self-contained; --out= writes none", false},
    {"Report", "png", OPTION_STRING, offsetof(ReportOptions, png), "", 0, 0, "FILE",
     "a picture of the validation loss, 1200 x 700; none when not given", false},
    {"Report", "floor", OPTION_FLOAT, offsetof(ReportOptions, floor), "0", 0, 1e6, "",
     "entropy of the text in nats per token, drawn as a line; 0: not known", false},
};

/* The runs among the folders named; one line says what was left out. Dies when that was all. */
static int load_runs(Run *runs, char **folders, int count) {
    const char *left_out = NULL, *why = NULL;
    int loaded = 0;
    for (int i = 0; i < count; i++) {
        if (loaded == PLOT_RUNS_MAX)
            die("there are more than %d runs among the %d names given; name fewer", PLOT_RUNS_MAX, count);
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

int main(int argc, char **argv) {
    program_begin();
    static ReportOptions options;
    static Run runs[PLOT_RUNS_MAX];
    OptionSet set = options_begin("report", "./report [options] RUN...", report_options,
                                  sizeof report_options / sizeof *report_options, &options, NULL);
    int named = options_parse(&set, argc, argv);
    if (named == 0) options_fail(&set, "name at least one run, such as runs/demo/laser");
    double floor = options.floor > 0 ? options.floor : NAN;
    const int count = load_runs(runs, argv, named);
    runs_name(runs, count);

    Terminal terminal = terminal_of(stdout);
    terminal_show(&terminal, runs, count, floor);
    if (*options.out || *options.png) printf("\n");
    if (*options.out) html_write(options.out, runs, count, floor), printf("  %s\n", options.out);
    if (*options.png) png_write(options.png, runs, count, floor), printf("  %s\n", options.png);
    for (int r = 0; r < count; r++) run_free(&runs[r]);
    return 0;
}
