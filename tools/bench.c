/* bench.c: measures speed as a share of what the machine can do, and beside other libraries.

       build/bench [--json=FILE] [--filter=TEXT]

   First the limits of the machine are measured: float32 multiply-adds, bf16 products, memory. Then every part of a
   training step is measured against them. The speed of a machine changes with time, so the limit is measured again
   before every turn of every row, and what is compared takes turns. The best turn of each counts. For LASER / standard
   in a step it is the median of the turns' ratios.

   On a machine that others use at the same time, OMP_WAIT_POLICY=passive build/bench --clock=cpu counts processor time
   instead of elapsed time: the sum over all threads, divided by their number. It leaves out the time in which threads wait
   for other programs or for each other.

   The JSON file is a list of objects with "name", "value", "unit" and, where there is one, "share_of_peak":
       peak/fp32 peak/bf16                 GFLOP/s
       memory/triad                        GB/s
       layer/NAME                          GB/s, and the share of the triad's rate
       gemm/DTYPE/NxOCxC                   GFLOP/s of out (N, OC) = inp (N, C) . weight (OC, C)^T, by matmul_forward
       gemm_dinp/...  gemm_dweight/...     the two backward products of the same layer
           .../packed                      with weights that were packed before and, for bf16, activations in bf16, as in a
                                           training step
           .../openblas  .../onednn        the same product by that library
       attention/DTYPE/T/KIND              GFLOP/s of forward, attention_backward/... of backward. Only the half of the
                                           operations that causal attention needs is counted.
                                           laser_over_standard/attention/... is a ratio of times
       step/MODEL/DTYPE/KIND               tokens/s of whole training steps; the share is the MFU, with 6N + 12LCT
                                           operations a token. laser_over_standard/MODEL/DTYPE is the median ratio
       time/MODEL/DTYPE/KIND/PART          the fraction of a micro-step's time that a part takes; share_of_peak is that of
                                           the part's matrix products
       micro/MODEL/DTYPE/KIND              seconds of one micro-step
       update/MODEL/DTYPE                  seconds of one AdamW update of all parameters
       ablation/OPTIONS/DTYPE              the time of a step of the demo model with these options, as a multiple of the
                                           time without them; of an option of LASER, of the time of LASER without it
       generate/MODEL/DTYPE/KIND           tokens/s of text that is generated, after a context of T/2 tokens; the share is
                                           that of the triad's rate at which weights, keys and values are read
   --filter chooses rows by these names up to the shape, T or DTYPE. The file is written after every part of the
   benchmark; scripts/bench_pytorch.py adds the steps of PyTorch to it.

   Build: cc -O3 -march=native -fopenmp tools/bench.c -lcjson -lz -lm. With -DHAVE_CBLAS -lopenblas and -DHAVE_DNNL -ldnnl
   the other libraries are measured too. (OpenBLAS may not know a new processor; OPENBLAS_CORETYPE=SkylakeX then makes it
   faster.) */
#define TRAIN_GPT_NO_MAIN
#include "../train_gpt.c" /* before system headers: it says which of their parts it needs */
#include <ctype.h>
#include "../gpt/base/filter.h"
#include "bench_measure.h"
#include "bench_layers.h"
#include "bench_gemm.h"
#include "bench_attention.h"
#include "bench_steps.h"
#include "bench_generate.h"
#include "bench_ablations.h"

#define ROW(name, type, field, value, min, max, word, help)                                                  \
    { "Options", name, type, offsetof(BenchOptions, field), value, min, max, word, help, false }
static const Option bench_options[] = {
    ROW("json", OPTION_STRING, json, "", 0, 0, "FILE", "also write all figures there"),
    ROW("append", OPTION_SWITCH, append, "false", 0, 0, "",
        "keep the results that the file has already, except those that are measured again"),
    ROW("filter", OPTION_STRING, filter, "", 0, 0, "TEXT",
        "only rows whose names contain TEXT, or one of several texts separated by commas: step/demo,layer"),
    ROW("clock", OPTION_CHOICE, clock, "wall", 0, 0, "wall|cpu",
        "elapsed time, or the mean processor time of the threads"),
    ROW("quick", OPTION_SWITCH, quick, "false", 0, 0, "",
        "only a few turns of each measurement, and no large shapes"),
    ROW("batch", OPTION_INT, batch, "0", 0, 1024, "",
        "sequences in a micro-step of step/...; 0: demo 16, the others 1"),
    ROW("threads", OPTION_INT, threads, "0", 0, 4096, "", "OpenMP threads; 0: all cores"),
};
#undef ROW

/* The peak rate of arithmetic in both dtypes, and the rate of memory. */
static void bench_limits(void) {
    for (Rate rate = 0; rate < RATES; rate++) {
        if (!bench_wanted("peak/%s", dtype_names[rate])) continue;
        for (int turn = 0; turn < 40; turn++) bench_burst(rate);
        printf("%-34s%9.1f GFLOP/s\n", dtype_names[rate], bench_peak(rate));
        bench_report(bench_peak(rate), "GFLOP/s", 0, "peak/%s", dtype_names[rate]);
    }
    if (!bench_wanted("memory/triad")) return;
    Layers l = {.size = (int64_t)(bench.options.quick ? 64 : 256) << 20};
    l.pool = random_floats(l.size, NULL);
    Contender triad = {"triad", layer_triad, false, 0};
    bench_turns(&triad, 1, &l, RATE_FP32, 1.0);
    const double rate = 4.0 * (double)(l.size / 3 * 3) / triad.best / 1e9;
    printf("%-34s%9.1f GB/s (two floats read, one written)\n", "memory", rate);
    bench_report(rate, "GB/s", 0, "memory/triad");
    free(l.pool);
}

static const struct {
    const char *title, *head; /* printed before its first row */
    void (*run)(void);
} parts[] = {
    {"The limits of the machine", "", bench_limits},
    {"Layers that memory limits, those of c4-301m with 8 sequences; share of the triad's rate",
     "layer                       MB moved        ms     GB/s   share\n", bench_layers},
    {"Matrix products: N x OC x C, out (N, OC) = inp (N, C) . weight (OC, C)^T; GFLOP/s and share of peak",
     "                                       float32 ours         packed       OpenBLAS         oneDNN  |    "
     "  bf16 ours"
     "         packed         oneDNN\n",
     bench_products},
    {"Attention, causal, 8 heads of size 128: GFLOP/s, share of peak; ratio: time of LASER / standard",
     "             T forward standard          LASER   ratio backward std.          LASER   ratio\n",
     bench_attention},
    {"Whole training steps: tokens/s, MFU; ratio: time of LASER / standard",
     "model/dtype          B x    T x micro standard     MFU         LASER     MFU    ratio micro ms update "
     "ms\n",
     bench_steps},
    {"What the options of docs/ablations.md cost: a step of the demo model, in turns with one without the "
     "option",
     "with                              beside      dtype   step, ms    ratio   its middle half\n",
     bench_ablations},
    {"Generating text, one sequence; share of the triad's rate",
     "model/dtype/kind             context     tokens/s   MB/token     GB/s   share\n", bench_generate},
};

/* The results that the file has already; NULL: there is no file, or it is empty. */
static cJSON *read_figures(const char *path) {
    size_t size = 0;
    char *text = check_file_read_if(path, FILE_JSON_LIMIT, &size, "");
    cJSON *figures = size ? json_parse(text, size) : NULL, *figure;
    bool named = !size || cJSON_IsArray(figures);
    cJSON_ArrayForEach(figure, figures) named = named && cJSON_IsString(cJSON_GetObjectItem(figure, "name"));
    if (!named) die("%s is not a list of results: choose another --json, or leave out --append", path);
    free(text);
    return figures;
}

/* Whether one of the results has this name. */
static bool has_figure(const cJSON *figures, const char *name) {
    const cJSON *figure;
    cJSON_ArrayForEach(figure, figures) if (strcmp(cJSON_GetObjectItem(figure, "name")->valuestring, name) ==
                                            0) return true;
    return false;
}

/* Writes one object a line: the kept results that were not measured again, then those of this run. */
static void write_figures(const char *path, const cJSON *kept) {
    FILE *file = check_fopen(path, "w", "choose a folder that exists and can be written");
    const cJSON *const lists[] = {kept, bench.list}, *figure;
    const char *before = "[\n";
    for (int i = 0; i < 2; i++) cJSON_ArrayForEach(figure, lists[i]) {
            if (i == 0 && has_figure(bench.list, cJSON_GetObjectItem(figure, "name")->valuestring)) continue;
            char *text = cJSON_PrintUnformatted(figure);
            fprintf(file, "%s%s", before, text);
            free(text);
            before = ",\n";
        }
    fprintf(file, "\n]\n");
    check_fclose(file, path);
}

int main(int argc, char **argv) {
    program_begin();
    threads_configure(argv); /* the next line too: as the trainer does */
    memory_keep_freed();
    OptionSet set = options_begin("bench", "build/bench [options]", bench_options,
                                  sizeof bench_options / sizeof *bench_options, &bench.options, NULL);
    if (options_parse(&set, argc, argv) > 0) options_fail(&set, "'%s' is not an option", argv[0]);
    threads_set((int)bench.options.threads);
    const char *const json = bench.options.json, *const filter = bench.options.filter;
    if (bench.options.append && !*json)
        options_fail(&set, "--append keeps the results in --json=FILE: name the file");
    bench.list = cJSON_CreateArray();
    cJSON *kept = bench.options.append ? read_figures(json) : NULL;
    if (*json) { /* a file that cannot be written is an error now, not after a quarter of an hour */
        FILE *file = check_fopen(json, "a", "choose a folder that exists and can be written");
        check_fclose(file, json);
    }
    char cpu[128];
    printf("%s, %d threads on %d cores, compiled for %s\n", processor_name(cpu), threads_count(),
           cores_available(), processor_isa());
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        bench.title = parts[i].title, bench.head = parts[i].head;
        parts[i].run();
        if (*json && bench.list->child) write_figures(json, kept);
    }
    if (!bench.list->child)
        options_fail(&set,
                     "--filter=%s is part of no row's name; names are like step/c4-301m/bf16, "
                     "gemm/fp32/1024x, layer/rope",
                     filter);
    cJSON_Delete(bench.list), cJSON_Delete(kept);
    return 0;
}
