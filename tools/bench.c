/* bench.c: speed as a share of what the machine can do, beside other libraries: ./bench [--json=FILE] [--filter=TEXT]

   First the limits (float32 multiply-adds, bf16 products, memory), then every part against them. The limit is
   measured again before every turn of every row, and contenders take turns, so that they meet the same machine;
   of each the best turn counts; LASER over standard in a step is the median of the turns' ratios. On a machine that
   others use at the same time OMP_WAIT_POLICY=passive ./bench --clock=cpu counts the processor time of all threads,
   divided by their number, in place of the time on the wall: what is left out is waiting, for other programs and for
   each other.

   The JSON file is a list of objects {"name", "value", "unit"} and, where it applies, "share_of_peak":
       peak/fp32 peak/bf16                 GFLOP/s
       memory/triad                        GB/s
       layer/NAME                          GB/s, share of the triad
       gemm/DTYPE/NxOCxC                   GFLOP/s of out (N, OC) = inp (N, C) . weight (OC, C)^T, as matmul_forward
       gemm_dinp/...  gemm_dweight/...     the two backward products of the same layer
           .../packed                      weights packed beforehand, and for bf16 activations in bf16, as in its steps
           .../openblas  .../onednn        the same product by that library
       attention/DTYPE/T/KIND              GFLOP/s forward, attention_backward/... backward; causal products only count
                                           half; laser_over_standard/attention/... is a ratio of times
       step/MODEL/DTYPE/KIND               tokens/s of whole training steps; the share is the MFU (6N + 12LCT operations
                                           a token); laser_over_standard/MODEL/DTYPE the median ratio
       time/MODEL/DTYPE/KIND/PART          share of a micro-step's time; share_of_peak of the part's products
       micro/MODEL/DTYPE/KIND              seconds of one micro-step
       update/MODEL/DTYPE                  seconds of one AdamW update of all parameters
   --filter takes rows by these names up to the shape, T or DTYPE. The file is written after every part of the bench;
   scripts/bench_pytorch.py adds PyTorch's steps to it.

   Build: cc -O3 -march=native -fopenmp tools/bench.c -lcjson -lz -lm; with -DHAVE_CBLAS -lopenblas and -DHAVE_DNNL -ldnnl
   the other libraries take part. (OpenBLAS may not know a new processor: OPENBLAS_CORETYPE=SkylakeX helps it.) */
#define TRAIN_GPT_NO_MAIN
#include "../train_gpt.c" /* before system headers: it says which of their parts it needs */
#include <ctype.h>
#include "../gpt/base/filter.h"
#include "bench_measure.h"
#include "bench_layers.h"
#include "bench_gemm.h"
#include "bench_attention.h"
#include "bench_steps.h"

#define ROW(name, type, field, value, min, max, word, help)                                                  \
    { "Options", name, type, offsetof(BenchOptions, field), value, min, max, word, help, false }
static const Option bench_options[] = {
    ROW("json", OPTION_STRING, json, "", 0, 0, "FILE", "also write all figures there"),
    ROW("append", OPTION_SWITCH, append, "false", 0, 0, "",
        "keep what the file has already under other names: for a table in several sittings"),
    ROW("filter", OPTION_STRING, filter, "", 0, 0, "TEXT",
        "only rows whose names contain TEXT, or one of several with commas between: step/demo,layer"),
    ROW("clock", OPTION_CHOICE, clock, "wall", 0, 0, "wall|cpu",
        "time on the wall, or the threads' mean processor time"),
    ROW("quick", OPTION_SWITCH, quick, "false", 0, 0, "", "a few turns of each and no large shapes"),
    ROW("batch", OPTION_INT, batch, "0", 0, 1024, "",
        "sequences of a micro-step in step/...; 0: demo 16, the others 1"),
    ROW("threads", OPTION_INT, threads, "0", 0, 4096, "", "OpenMP threads; 0: all cores"),
};
#undef ROW

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
    {"The machine's limits", "", bench_limits},
    {"Layers at memory speed, c4-301m's at 8 sequences; share of the triad",
     "layer                       MB moved        ms     GB/s   share\n", bench_layers},
    {"Matrix products: N x OC x C, out (N, OC) = inp (N, C) . weight (OC, C)^T; GFLOP/s and share of peak",
     "                                       float32 ours         packed       OpenBLAS         oneDNN  |    "
     "  bf16 ours"
     "         packed         oneDNN\n",
     bench_products},
    {"Attention, causal, 8 heads of 128: GFLOP/s, share of peak; ratio: time of LASER over standard",
     "             T forward standard          LASER   ratio backward std.          LASER   ratio\n",
     bench_attention},
    {"Whole training steps: tokens/s, MFU; ratio: time of LASER over standard",
     "model/dtype          B x    T x micro standard     MFU         LASER     MFU    ratio micro ms update "
     "ms\n",
     bench_steps},
};

/* The figures that the file has already; NULL: it is not there, or empty. */
static cJSON *read_figures(const char *path) {
    size_t size = 0;
    char *text = check_file_read_if(path, FILE_JSON_LIMIT, &size, "");
    cJSON *figures = size ? json_parse(text, size) : NULL, *figure;
    bool named = !size || cJSON_IsArray(figures);
    cJSON_ArrayForEach(figure, figures) named = named && cJSON_IsString(cJSON_GetObjectItem(figure, "name"));
    if (!named) die("%s is no list of figures: choose another --json, or leave out --append", path);
    free(text);
    return figures;
}

static bool has_figure(const cJSON *figures, const char *name) {
    const cJSON *figure;
    cJSON_ArrayForEach(figure, figures) if (strcmp(cJSON_GetObjectItem(figure, "name")->valuestring, name) ==
                                            0) return true;
    return false;
}

/* One object a line: what is kept and not measured again, then this run's. */
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
    threads_configure(argv); /* as the trainer does, and this */
    memory_keep_freed();
    OptionSet set = options_begin("bench", "./bench [options]", bench_options,
                                  sizeof bench_options / sizeof *bench_options, &bench.options, NULL);
    if (options_parse(&set, argc, argv) > 0) options_fail(&set, "'%s' is not an option", argv[0]);
    threads_set((int)bench.options.threads);
    const char *const json = bench.options.json, *const filter = bench.options.filter;
    if (bench.options.append && !*json)
        options_fail(&set, "--append keeps what --json=FILE has: name the file");
    bench.list = cJSON_CreateArray();
    cJSON *kept = bench.options.append ? read_figures(json) : NULL;
    if (*json) { /* an error now, not after a quarter of an hour */
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
        options_fail(
            &set, "--filter=%s takes no row; names are like step/c4-301m/bf16, gemm/fp32/1024x, layer/rope",
            filter);
    cJSON_Delete(bench.list), cJSON_Delete(kept);
    return 0;
}
