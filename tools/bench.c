/* bench.c: speed as a share of what the machine can do, beside other libraries: ./bench [--json=FILE] [--filter=TEXT]

   First the limits (float32 multiply-adds, bf16 dot products, memory), then every part against them. The peak is
   measured again before every turn of every row, and contenders take turns, so that they meet the same machine;
   of each the best turn counts. On a machine that others use at the same time
   OMP_WAIT_POLICY=passive ./bench --clock=cpu counts the processor time of all threads, divided by their number, in
   place of the time on the wall: what is left out is waiting, for other programs and for each other.

   The JSON file is a list of objects {"name", "value", "unit"} and, where it applies, "share_of_peak":
       peak/fp32 peak/bf16                 GFLOP/s
       memory/triad                        GB/s
       gemm/PRECISION/NxOCxC               GFLOP/s of out (N, OC) = inp (N, C) . weight (OC, C)^T, as matmul_forward
       gemm_dinp/...  gemm_dweight/...     the two backward products of the same layer
           .../packed                      weights packed beforehand, activations in bf16: what a training step does
           .../openblas  .../onednn        the same product by that library
       attention/PRECISION/T/KIND          GFLOP/s forward, attention_backward/... backward; causal products only count
                                           half; laser_over_standard/... is a ratio of times

   Build: cc -O3 -march=native -fopenmp tools/bench.c -lcjson -lm; with -DHAVE_CBLAS -lopenblas and -DHAVE_DNNL -ldnnl
   the other libraries take part. (OpenBLAS may not know a new processor: OPENBLAS_CORETYPE=SkylakeX helps it.) */
#define TRAIN_GPT_NO_MAIN
#include "../train_gpt.c"
#ifdef HAVE_CBLAS
#include <cblas.h>
#endif
#ifdef HAVE_DNNL
#include <oneapi/dnnl/dnnl.h>
#endif

typedef struct {
    const char *json, *filter;
    int64_t threads;
    int clock; /* 0: wall, 1: cpu */
    bool quick;
} BenchOptions;

static struct {
    BenchOptions options;
    cJSON *list;
    double bursts[2][64]; /* float32, bf16: the latest seconds per operation */
    int burst_count[2];
} bench;

#define ROW(name, type, field, value, min, max, word, help)                                                  \
    { "Options", name, type, offsetof(BenchOptions, field), value, min, max, word, help, false }
static const Option bench_options[] = {
    ROW("json", OPTION_STRING, json, "", 0, 0, "FILE", "also write all figures there"),
    ROW("filter", OPTION_STRING, filter, "", 0, 0, "TEXT",
        "only the parts and rows whose names contain TEXT"),
    ROW("clock", OPTION_CHOICE, clock, "wall", 0, 0, "wall|cpu",
        "time on the wall, or the threads' mean processor time"),
    ROW("quick", OPTION_SWITCH, quick, "false", 0, 0, "",
        "a few turns of each and no large shapes: two minutes"),
    ROW("threads", OPTION_INT, threads, "0", 0, 4096, "", "OpenMP threads; 0: all cores"),
};
#undef ROW

__attribute__((format(printf, 4, 5))) static void report(double value, const char *unit, double share,
                                                         const char *name, ...) {
    char text[128];
    va_list arguments;
    va_start(arguments, name);
    vsnprintf(text, sizeof text, name, arguments);
    va_end(arguments);
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "name", text);
    cJSON_AddNumberToObject(item, "value", value);
    cJSON_AddStringToObject(item, "unit", unit);
    if (share > 0) cJSON_AddNumberToObject(item, "share_of_peak", share);
    cJSON_AddItemToArray(bench.list, item);
}

static bool wanted(const char *name) { return strstr(name, bench.options.filter) != NULL; }

/* ---------------------------------------------------------------------------------------------------- measuring */

typedef struct {
    const char *name; /* NULL: absent here */
    void (*run)(void *context);
    bool lingers; /* its threads stay awake after a call */
    double best;  /* seconds of its good turns */
} Contender;

static double seconds_now(void) {
    if (bench.options.clock == 0) return machine_seconds();
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return ((double)now.tv_sec + 1e-9 * (double)now.tv_nsec) / machine_threads();
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The seconds that count: the least on the wall; the lower quartile of processor times, since the kernel's account of
   them errs both ways. Sorts them. */
static double good_time(double *times, int count) {
    qsort(times, (size_t)count, sizeof *times, compare_doubles);
    return times[bench.options.clock == 0 ? 0 : count / 4];
}

/* A few milliseconds of nothing but multiply-adds, for the peak. */
static void burst(bool bf16) {
    const int slots = sizeof bench.bursts[0] / sizeof bench.bursts[0][0];
    double operations = 0, start = seconds_now();
    float sink = 0;
#pragma omp parallel reduction(+ : operations, sink)
    operations += machine_peak_loop(bf16, 1500000, &sink);
    if (sink != 0)
        bench.bursts[bf16][bench.burst_count[bf16]++ % slots] = (seconds_now() - start) / operations;
}

/* GFLOP/s of the latest bursts. */
static double peak_now(bool bf16) {
    double sorted[64];
    const int slots = sizeof sorted / sizeof *sorted;
    const int count = bench.burst_count[bf16] < slots ? bench.burst_count[bf16] : slots;
    memcpy(sorted, bench.bursts[bf16], sizeof sorted);
    return 1e-9 / good_time(sorted, count);
}

/* Threads of other libraries wait for work without sleeping, some for tens of milliseconds. */
static void rest(bool lingers) {
    struct timespec pause = {0, lingers ? 30000000 : 2000000};
    nanosleep(&pause, NULL);
}

/* All contenders in turns until `seconds` are spent, the peak in between; returns the peak in GFLOP/s. */
static double take_turns(Contender *contenders, int count, void *context, bool bf16, double seconds) {
    enum { TURNS = 40, CONTENDERS = 4 };
    double times[CONTENDERS][TURNS], start = machine_seconds();
    const int least = bench.options.quick ? 2 : 5;
    int turn = 0;
    if (bench.options.quick) seconds /= 4;
    for (; turn < least || (turn < TURNS && machine_seconds() - start < seconds); turn++)
        for (int i = 0; i < count; i++) {
            if (!contenders[i].name) continue;
            burst(bf16);
            const double begin = seconds_now();
            contenders[i].run(context);
            times[i][turn] = seconds_now() - begin;
            rest(contenders[i].lingers);
        }
    for (int i = 0; i < count; i++)
        if (contenders[i].name) contenders[i].best = good_time(times[i], turn);
    return peak_now(bf16);
}

/* ------------------------------------------------------------------------------------------------------- limits */

static void bench_limits(void) {
    for (int bf16 = 0; bf16 < 2; bf16++) {
        for (int turn = 0; turn < 40; turn++) burst(bf16);
        printf("%-34s%8.1f GFLOP/s\n", bf16 ? "bf16 dot products" : "float32 multiply-adds", peak_now(bf16));
    }
    const int64_t n = (bench.options.quick ? 16 : 64) << 20;
    float *a = check_malloc((size_t)n * sizeof *a), *b = check_malloc((size_t)n * sizeof *b);
    float *c = check_malloc((size_t)n * sizeof *c);
    double best = 1e30;
    for (int turn = 0; turn < 6; turn++) {
        const double start = seconds_now();
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < n; i++) a[i] = b[i] + 3 * c[i];
        const double time = seconds_now() - start;
        if (time < best) best = time;
    }
    report(12 * (double)n / best / 1e9, "GB/s", 0, "memory/triad");
    printf("%-34s%8.1f GB/s (two floats read, one written)\n", "memory", 12 * (double)n / best / 1e9);
    free(a), free(b), free(c);
}

/* ----------------------------------------------------------------------------------------------------- products */

typedef enum { FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT } Product;

typedef struct {
    Product product;
    int64_t N, C, OC;
    float *inp, *weight, *dout;  /* (N, C), (OC, C), (N, OC) */
    float *out, *dinp, *dweight; /* (N, OC), (N, C), (OC, C) */
    uint16_t *inp_bf16, *weight_bf16, *dout_bf16;
    MatmulWeight packed;
    MatmulPrecision precision;
#ifdef HAVE_DNNL
    struct Onednn *onednn;
#endif
} Gemm;

static void gemm_ours(void *context) {
    Gemm *g = context;
    if (g->product == FORWARD)
        matmul_forward(g->out, NULL, g->inp, g->weight, g->N, g->C, g->OC, g->precision);
    if (g->product == INPUT_GRADIENT)
        matmul_backward_input(g->dinp, NULL, g->dout, g->weight, g->N, g->C, g->OC, g->precision);
    if (g->product == WEIGHT_GRADIENT)
        matmul_backward_weight(g->dweight, g->dout, g->inp, g->N, g->C, g->OC, g->precision);
}

static void gemm_ours_packed(void *context) {
    Gemm *g = context;
    const MatmulInput inp = matmul_halves(g->inp_bf16), dout = matmul_halves(g->dout_bf16);
    if (g->product == FORWARD)
        matmul_forward_packed((MatmulOutput){g->out, NULL, NULL, NULL}, inp, &g->packed, g->N);
    if (g->product == INPUT_GRADIENT)
        matmul_backward_input_packed((MatmulOutput){g->dinp, NULL, NULL, NULL}, dout, &g->packed, g->N);
    if (g->product == WEIGHT_GRADIENT)
        matmul_backward_weight_from(g->dweight, dout, inp, g->N, g->C, g->OC, g->precision);
}

#ifdef HAVE_CBLAS
static void gemm_openblas(void *context) {
    Gemm *g = context;
    const blasint N = (blasint)g->N, C = (blasint)g->C, OC = (blasint)g->OC;
    if (g->product == FORWARD)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, N, OC, C, 1, g->inp, C, g->weight, C, 0, g->out,
                    OC);
    if (g->product == INPUT_GRADIENT)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, N, C, OC, 1, g->dout, OC, g->weight, C, 0,
                    g->dinp, C);
    if (g->product == WEIGHT_GRADIENT)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, OC, C, N, 1, g->dout, OC, g->inp, C, 1,
                    g->dweight, C);
}
#endif

#ifdef HAVE_DNNL
static void gemm_onednn(void *context) {
    Gemm *g = context;
    if (g->product == FORWARD)
        dnnl_sgemm('N', 'T', g->N, g->OC, g->C, 1, g->inp, g->C, g->weight, g->C, 0, g->out, g->OC);
    if (g->product == INPUT_GRADIENT)
        dnnl_sgemm('N', 'N', g->N, g->C, g->OC, 1, g->dout, g->OC, g->weight, g->C, 0, g->dinp, g->C);
    if (g->product == WEIGHT_GRADIENT)
        dnnl_sgemm('T', 'N', g->OC, g->C, g->N, 1, g->dout, g->OC, g->inp, g->C, 1, g->dweight, g->C);
}

#if DNNL_VERSION_MAJOR == 2
#define HAVE_DNNL_BF16
/* A bf16 product with float32 result, as a oneDNN primitive. */
struct Onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_memory_t memory[3]; /* src (M, K), weights (K, N), dst (M, N) */
};

static void onednn_check(dnnl_status_t status) {
    if (status != dnnl_success) die("oneDNN refused a bf16 product: status %d", (int)status);
}

static void gemm_onednn_bf16(void *context) {
    struct Onednn *o = ((Gemm *)context)->onednn;
    const dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_SRC, o->memory[0]}, {DNNL_ARG_WEIGHTS, o->memory[1]}, {DNNL_ARG_DST, o->memory[2]}};
    onednn_check(dnnl_primitive_execute(o->primitive, o->stream, 3, arguments));
    onednn_check(dnnl_stream_wait(o->stream));
}

static void onednn_open(struct Onednn *o, Gemm *g) {
    const Product p = g->product;
    const int64_t M = p == WEIGHT_GRADIENT ? g->OC : g->N, N = p == FORWARD ? g->OC : g->C;
    const int64_t K = p == FORWARD ? g->C : p == INPUT_GRADIENT ? g->OC : g->N;
    void *data[3] = {p == FORWARD ? g->inp_bf16 : g->dout_bf16,
                     p == WEIGHT_GRADIENT ? g->inp_bf16 : g->weight_bf16,
                     p == FORWARD          ? g->out
                     : p == INPUT_GRADIENT ? g->dinp
                                           : g->dweight};
    const dnnl_dims_t dims[3] = {{M, K}, {K, N}, {M, N}};
    const dnnl_dims_t strides[3] = {{p == WEIGHT_GRADIENT ? 1 : K, p == WEIGHT_GRADIENT ? M : 1},
                                    {p == FORWARD ? 1 : N, p == FORWARD ? K : 1},
                                    {N, 1}};
    dnnl_memory_desc_t shapes[3];
    onednn_check(dnnl_engine_create(&o->engine, dnnl_cpu, 0));
    onednn_check(dnnl_stream_create(&o->stream, o->engine, dnnl_stream_default_flags));
    for (int i = 0; i < 3; i++) {
        onednn_check(dnnl_memory_desc_init_by_strides(&shapes[i], 2, dims[i], i == 2 ? dnnl_f32 : dnnl_bf16,
                                                      strides[i]));
        onednn_check(dnnl_memory_create(&o->memory[i], &shapes[i], o->engine, data[i]));
    }
    dnnl_matmul_desc_t product;
    dnnl_primitive_desc_t description;
    dnnl_primitive_attr_t attributes;
    dnnl_post_ops_t after;
    onednn_check(dnnl_matmul_desc_init(&product, &shapes[0], &shapes[1], NULL, &shapes[2]));
    onednn_check(dnnl_primitive_attr_create(&attributes));
    onednn_check(dnnl_post_ops_create(&after));
    if (p == WEIGHT_GRADIENT) onednn_check(dnnl_post_ops_append_sum(after, 1)); /* += */
    onednn_check(dnnl_primitive_attr_set_post_ops(attributes, after));
    onednn_check(dnnl_primitive_desc_create(&description, &product, attributes, o->engine, NULL));
    onednn_check(dnnl_primitive_create(&o->primitive, description));
    dnnl_primitive_desc_destroy(description);
    dnnl_primitive_attr_destroy(attributes);
    dnnl_post_ops_destroy(after);
}

static void onednn_close(struct Onednn *o) {
    dnnl_primitive_destroy(o->primitive);
    for (int i = 0; i < 3; i++) dnnl_memory_destroy(o->memory[i]);
    dnnl_stream_destroy(o->stream);
    dnnl_engine_destroy(o->engine);
}
#endif
#endif

/* n floats of mixed sign and size, and the same in bf16. */
static float *random_floats(int64_t n, uint16_t **bf16) {
    float *x = check_malloc((size_t)n * sizeof *x);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) x[i] = rng_uniform(1, RNG_STREAM_TEST, (uint64_t)i) - 0.5f;
    if (bf16) matmul_to_bf16(*bf16 = check_malloc((size_t)n * sizeof **bf16), x, n);
    return x;
}

/* One product in one precision by everyone: prints its three columns, reports them. */
static void bench_product(Gemm *g, const char *kind) {
    const bool bf16 = g->precision == MATMUL_BF16;
    const double operations = 2.0 * (double)g->N * (double)g->C * (double)g->OC;
    Contender contenders[3] = {{"", gemm_ours, false, 0}};
    if (bf16) contenders[1] = (Contender){"/packed", gemm_ours_packed, false, 0};
#ifdef HAVE_CBLAS
    if (!bf16) contenders[1] = (Contender){"/openblas", gemm_openblas, true, 0};
#endif
#ifdef HAVE_DNNL
    if (!bf16) contenders[2] = (Contender){"/onednn", gemm_onednn, true, 0};
#endif
#ifdef HAVE_DNNL_BF16
    struct Onednn onednn;
    if (bf16) {
        contenders[2] = (Contender){"/onednn", gemm_onednn_bf16, true, 0};
        onednn_open(&onednn, g);
        g->onednn = &onednn;
    }
#endif
    const double peak = take_turns(contenders, 3, g, bf16, 1.0);
    for (int i = 0; i < 3; i++) {
        if (!contenders[i].name) {
            printf("%15s", "-");
            continue;
        }
        const double rate = operations / contenders[i].best / 1e9;
        printf("%8.1f %4.1f %%", rate, 100 * rate / peak);
        report(rate, "GFLOP/s", rate / peak, "%s/%s/%dx%dx%d%s", kind, bf16 ? "bf16" : "fp32", (int)g->N,
               (int)g->OC, (int)g->C, contenders[i].name);
    }
    fflush(stdout);
#ifdef HAVE_DNNL_BF16
    if (bf16) onednn_close(&onednn);
#endif
}

static void bench_layer(int64_t N, int64_t OC, int64_t C) {
    static const char *const kinds[] = {"gemm", "gemm_dinp", "gemm_dweight"};
    static const char *const titles[] = {"forward", "input gradient", "weight gradient"};
    Gemm g = {.N = N, .C = C, .OC = OC};
    g.inp = random_floats(N * C, &g.inp_bf16);
    g.weight = random_floats(OC * C, &g.weight_bf16);
    g.dout = random_floats(N * OC, &g.dout_bf16);
    g.out = random_floats(N * OC, NULL), g.dinp = random_floats(N * C, NULL),
    g.dweight = random_floats(OC * C, NULL);
    matmul_pack_weight(&g.packed, g.weight, C, OC, MATMUL_BF16);
    for (g.product = FORWARD; g.product <= WEIGHT_GRADIENT; g.product++) {
        char shape[64], name[96];
        snprintf(shape, sizeof shape, "%d x %d x %d", (int)N, (int)OC, (int)C);
        snprintf(name, sizeof name, "%s/%dx%dx%d", kinds[g.product], (int)N, (int)OC, (int)C);
        if (!wanted(name) && !wanted("gemm")) continue;
        printf("%-19s%-16s", g.product == FORWARD ? shape : "", titles[g.product]);
        for (int bf16 = 0; bf16 < 2; bf16++) {
            g.precision = bf16 ? MATMUL_BF16 : MATMUL_FP32;
            if (bf16) printf("  |");
            bench_product(&g, kinds[g.product]);
        }
        printf("\n");
    }
    matmul_free_weight(&g.packed);
    free(g.inp), free(g.weight), free(g.dout), free(g.out), free(g.dinp), free(g.dweight);
    free(g.inp_bf16), free(g.weight_bf16), free(g.dout_bf16);
}

static void bench_products(void) {
    static const int shapes[][3] = {
        /* N, OC, C: c4-301m, GPT-2 124M, the demo */
        {1024, 1024, 1024},  {1024, 3072, 1024}, {1024, 2048, 1024}, {1024, 1024, 2048},
        {1024, 32000, 1024}, {8192, 1024, 1024}, {8192, 3072, 1024}, {8192, 2048, 1024},
        {8192, 1024, 2048},  {1024, 2304, 768},  {1024, 50257, 768}, {4096, 768, 256},
        {4096, 1024, 256},   {4096, 2048, 256},  {256, 768, 256},    {1, 3072, 1024}};
#ifdef HAVE_CBLAS
    openblas_set_num_threads(machine_threads());
    printf("OpenBLAS: %s\n", openblas_get_config());
#endif
#ifdef HAVE_DNNL
    printf("oneDNN: %d.%d.%d\n", dnnl_version()->major, dnnl_version()->minor, dnnl_version()->patch);
#endif
    printf("GFLOP/s and share of peak\n%35s%15s%15s%15s  |%15s%15s%15s\n", "", "float32 ours", "OpenBLAS",
           "oneDNN", "bf16 ours", "packed", "oneDNN");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (bench.options.quick && shapes[i][0] == 8192) continue;
        bench_layer(shapes[i][0], shapes[i][1], shapes[i][2]);
    }
}

/* ---------------------------------------------------------------------------------------------------- attention */

typedef struct {
    AttentionShape shape;
    float *qkv, *dqkv;             /* (B, T, 3, H, D) */
    float *out[2], *lse[2], *dout; /* (B, T, H, D), (B, H, T); out and lse of each kind */
} Attention;

static void attention_run(Attention *a, AttentionKind kind, bool backward) {
    const int64_t width = (int64_t)a->shape.heads * a->shape.head_dim;
    const float *q = a->qkv, *k = a->qkv + width, *v = a->qkv + 2 * width;
    a->shape.kind = kind;
    if (backward)
        attention_backward(a->dqkv, a->dqkv + width, a->dqkv + 2 * width, a->dout, q, k, v, a->out[kind],
                           a->lse[kind], &a->shape);
    else
        attention_forward(a->out[kind], a->lse[kind], q, k, v, &a->shape);
}
static void standard_forward(void *context) { attention_run(context, ATTENTION_STANDARD, false); }
static void laser_forward(void *context) { attention_run(context, ATTENTION_LASER, false); }
static void standard_backward(void *context) { attention_run(context, ATTENTION_STANDARD, true); }
static void laser_backward(void *context) { attention_run(context, ATTENTION_LASER, true); }

static void bench_attention_at(int T, bool bf16) {
    const int H = 8, D = 128, B = T >= 2048 ? 1 : 2048 / T;
    const int64_t tokens = (int64_t)B * T, width = H * D;
    Attention a = {.shape = {.batch = B,
                             .seq_len = T,
                             .heads = H,
                             .head_dim = D,
                             .qkv_strides = {3 * width * T, 3 * width, D},
                             .out_strides = {width * T, width, D},
                             .precision = bf16 ? ATTENTION_BF16 : ATTENTION_FP32}};
    a.qkv = random_floats(3 * tokens * width, NULL), a.dqkv = random_floats(3 * tokens * width, NULL);
    a.dout = random_floats(tokens * width, NULL);
    for (int kind = 0; kind < 2; kind++)
        a.out[kind] = random_floats(tokens * width, NULL), a.lse[kind] = random_floats(tokens * H, NULL);
    Contender contenders[] = {{"standard", standard_forward, false, 0},
                              {"laser", laser_forward, false, 0},
                              {"standard", standard_backward, false, 0},
                              {"laser", laser_backward, false, 0}};
    const double peak = take_turns(contenders, 4, &a, bf16, 1.5);
    printf("%-8s%6d  ", bf16 ? "bf16" : "float32", T);
    for (int i = 0; i < 4; i++) { /* forward: two products of T x T x D, half of it visible; backward: five */
        const bool backward = i >= 2;
        const double operations = (backward ? 5.0 : 2.0) * (double)tokens * T * (double)width;
        const double rate = operations / contenders[i].best / 1e9;
        const char *direction = backward ? "attention_backward" : "attention",
                   *dtype = bf16 ? "bf16" : "fp32";
        printf("%9.1f %4.1f %%", rate, 100 * rate / peak);
        report(rate, "GFLOP/s", rate / peak, "%s/%s/%d/%s", direction, dtype, T, contenders[i].name);
        if (i % 2 == 0) continue;
        const double ratio = contenders[i].best / contenders[i - 1].best;
        printf("%8.3f", ratio);
        report(ratio, "ratio", 0, "laser_over_standard/%s/%s/%d", direction, dtype, T);
    }
    printf("\n");
    fflush(stdout);
    free(a.qkv), free(a.dqkv), free(a.dout);
    for (int kind = 0; kind < 2; kind++) free(a.out[kind]), free(a.lse[kind]);
}

static void bench_attention(void) {
    printf("causal, 8 heads of 128, GFLOP/s and share of peak; ratio: time of LASER over standard\n");
    printf("%8s%6s  %16s%16s%8s%16s%16s%8s\n", "", "T", "forward standard", "LASER", "ratio",
           "backward standard", "LASER", "ratio");
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (int T = 256; T <= (bench.options.quick ? 1024 : 8192); T *= 2) bench_attention_at(T, bf16);
}

/* -------------------------------------------------------------------------------------------------- the program */

static const struct {
    const char *name, *title;
    void (*run)(void);
} parts[] = {
    {"peak memory", "The machine's limits", bench_limits},
    {"gemm", "Matrix products: N x OC x C, out (N, OC) = inp (N, C) . weight (OC, C)^T", bench_products},
    {"attention laser_over_standard", "Attention", bench_attention},
};

/* One object a line. */
static void write_json(const char *path) {
    FILE *file = check_fopen(path, "w", "choose a folder that exists and can be written");
    const char *before = "[\n";
    for (const cJSON *item = bench.list->child; item; item = item->next, before = ",\n") {
        char *text = cJSON_PrintUnformatted(item);
        fprintf(file, "%s%s", before, text);
        free(text);
    }
    fprintf(file, "\n]\n");
    check_fclose(file, path);
}

int main(int argc, char **argv) {
    OptionSet set = options_begin("bench", "./bench [options]", bench_options,
                                  sizeof bench_options / sizeof *bench_options, &bench.options, NULL);
    if (options_parse(&set, argc, argv) > 0) options_fail(&set, "'%s' is not an option", argv[0]);
#ifdef _OPENMP
    if (bench.options.threads > 0) omp_set_num_threads((int)bench.options.threads);
#endif
    bench.list = cJSON_CreateArray();
    char cpu[128];
    printf("%s, %d threads on %d cores, compiled for %s\n", machine_cpu_name(cpu), machine_threads(),
           machine_cores(), machine_isa());
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!wanted(parts[i].name) && !(i == 1 && strstr(bench.options.filter, "gemm"))) continue;
        printf("\n%s\n", parts[i].title);
        parts[i].run();
    }
    if (*bench.options.json) write_json(bench.options.json);
    cJSON_Delete(bench.list);
    return 0;
}
