/* bench_gemm.h: measures the three products of a linear layer (gpt/math/matmul.h), and the same products by OpenBLAS and
   oneDNN where the program was compiled with them. */
#ifndef TOOLS_BENCH_GEMM_H
#define TOOLS_BENCH_GEMM_H

#include "bench_measure.h"

#ifdef HAVE_CBLAS
#include <cblas.h>
#endif
#ifdef HAVE_DNNL
#include <oneapi/dnnl/dnnl.h>
#endif

typedef enum { FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT } Product;

typedef struct {
    Product product;
    int64_t N, C, OC;
    float *inp, *weight, *dout;  /* (N, C), (OC, C), (N, OC) */
    float *out, *dinp, *dweight; /* (N, OC), (N, C), (OC, C) */
    uint16_t *inp_bf16, *weight_bf16, *dout_bf16;
    Linear packed;
    Dtype dtype;
#ifdef HAVE_DNNL
    struct Onednn *onednn;
#endif
} Gemm;

static void gemm_ours(void *context) {
    Gemm *g = context;
    if (g->product == FORWARD) matmul_forward(g->out, NULL, g->inp, g->weight, g->N, g->C, g->OC, g->dtype);
    if (g->product == INPUT_GRADIENT)
        matmul_backward_input(g->dinp, NULL, g->dout, g->weight, g->N, g->C, g->OC, g->dtype);
    if (g->product == WEIGHT_GRADIENT)
        matmul_backward_weight(g->dweight, g->dout, g->inp, g->N, g->C, g->OC, g->dtype);
}

/* As in a training step: the weight is packed, and with bf16 the activations are bf16 too. */
static void gemm_ours_packed(void *context) {
    Gemm *g = context;
    const bool bf16 = g->dtype == DTYPE_BF16;
    const Array inp = bf16 ? array_of_bf16(g->inp_bf16) : array_of_floats(g->inp);
    const Array dout = bf16 ? array_of_bf16(g->dout_bf16) : array_of_floats(g->dout);
    if (g->product == FORWARD)
        linear_forward((MatmulOutput){.out = array_of_floats(g->out)}, inp, &g->packed, g->N);
    if (g->product == INPUT_GRADIENT)
        linear_backward_input((MatmulOutput){.out = array_of_floats(g->dinp)}, dout, &g->packed, g->N);
    if (g->product == WEIGHT_GRADIENT) linear_backward_weight(g->dweight, dout, inp, &g->packed, g->N);
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
/* A product of bf16 matrices with a float32 result, as a oneDNN primitive. */
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

/* Describes the product to oneDNN: matrices, which may be transposed, and = or +=. */
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

/* Measures one product in one dtype with each library that has it, prints their columns of the row, and reports the
   rates. */
static void bench_product(Gemm *g, const char *name) {
    enum { OURS, PACKED, OPENBLAS, ONEDNN, ALL };
    const bool bf16 = g->dtype == DTYPE_BF16;
    const double operations = 2.0 * (double)g->N * (double)g->C * (double)g->OC;
    Contender contenders[ALL] = {
        [OURS] = {"", gemm_ours, false, 0}, [PACKED] = {"/packed", gemm_ours_packed, false, 0}};
#ifdef HAVE_CBLAS
    if (!bf16) contenders[OPENBLAS] = (Contender){"/openblas", gemm_openblas, true, 0};
#endif
#ifdef HAVE_DNNL
    if (!bf16) contenders[ONEDNN] = (Contender){"/onednn", gemm_onednn, true, 0};
#endif
#ifdef HAVE_DNNL_BF16
    struct Onednn onednn;
    if (bf16) {
        contenders[ONEDNN] = (Contender){"/onednn", gemm_onednn_bf16, true, 0};
        onednn_open(&onednn, g);
        g->onednn = &onednn;
    }
#endif
    const double peak = bench_turns(contenders, ALL, g, bf16 ? RATE_BF16 : RATE_FP32, 1.0);
    for (int i = 0; i < ALL; i++) {
        if (i == OPENBLAS && bf16) continue;
        if (!contenders[i].name) {
            printf("%15s", "-");
            continue;
        }
        const double rate = operations / contenders[i].best / 1e9;
        printf("%8.0f %4.1f %%", rate, 100 * rate / peak);
        bench_report(rate, "GFLOP/s", rate / peak, "%s%s", name, contenders[i].name);
    }
    fflush(stdout);
#ifdef HAVE_DNNL_BF16
    if (bf16) onednn_close(&onednn);
#endif
}

static const char *const gemm_kinds[] = {"gemm", "gemm_dinp", "gemm_dweight"};

/* Allocates the matrices of a layer and fills them with random numbers. */
static void gemm_fill(Gemm *g) {
    g->inp = random_floats(g->N * g->C, &g->inp_bf16);
    g->weight = random_floats(g->OC * g->C, &g->weight_bf16);
    g->dout = random_floats(g->N * g->OC, &g->dout_bf16);
    g->out = random_floats(g->N * g->OC, NULL), g->dinp = random_floats(g->N * g->C, NULL);
    g->dweight = random_floats(g->OC * g->C, NULL);
}

static void gemm_free(Gemm *g) {
    void *pieces[] = {g->inp,     g->weight,   g->dout,        g->out,      g->dinp,
                      g->dweight, g->inp_bf16, g->weight_bf16, g->dout_bf16};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) free(pieces[i]);
}

/* Measures the three products of one layer in both dtypes and prints a row for each. */
static void bench_layer_products(int64_t N, int64_t OC, int64_t C) {
    static const char *const titles[] = {"forward", "input gradient", "weight gradient"};
    Gemm g = {.N = N, .C = C, .OC = OC};
    for (g.product = FORWARD; g.product <= WEIGHT_GRADIENT; g.product++) {
        char shape[64], names[2][96];
        snprintf(shape, sizeof shape, "%d x %d x %d", (int)N, (int)OC, (int)C);
        for (int bf16 = 0; bf16 < 2; bf16++)
            snprintf(names[bf16], sizeof names[bf16], "%s/%s/%dx%dx%d", gemm_kinds[g.product],
                     dtype_names[bf16], (int)N, (int)OC, (int)C);
        const bool wanted[] = {bench_wanted("%s", names[0]), bench_wanted("%s", names[1])};
        if (!wanted[0] && !wanted[1]) continue;
        if (!g.inp) gemm_fill(&g);
        printf("%-19s%-16s", shape, titles[g.product]);
        for (int bf16 = 0; bf16 < 2; bf16++) {
            g.dtype = bf16 ? DTYPE_BF16 : DTYPE_FP32;
            if (bf16) printf("  |");
            if (!wanted[bf16]) {
                printf("%*s", bf16 ? 45 : 60, "");
                continue;
            }
            g.packed = (Linear){.values = g.weight, .C = C, .OC = OC, .dtype = g.dtype};
            linear_pack(&g.packed);
            bench_product(&g, names[bf16]);
            linear_free(&g.packed);
        }
        printf("\n");
    }
    gemm_free(&g);
}

static void bench_products(void) {
    static const int shapes[][3] = {
        /* N, OC, C: of c4-301m with one sequence and with eight, of GPT-2 124M, of the demo, and with one token */
        {1024, 1024, 1024}, {1024, 3072, 1024}, {1024, 2048, 1024}, {1024, 1024, 2048}, {1024, 32000, 1024},
        {8192, 1024, 1024}, {8192, 3072, 1024}, {8192, 2048, 1024}, {8192, 1024, 2048}, {1024, 2304, 768},
        {1024, 50257, 768}, {4096, 768, 256},   {4096, 1024, 256},  {4096, 2048, 256},  {1, 3072, 1024}};
#ifdef HAVE_CBLAS
    openblas_set_num_threads(threads_count());
#endif
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (!bench.options.quick || shapes[i][0] != 8192)
            bench_layer_products(shapes[i][0], shapes[i][1], shapes[i][2]);
}

#endif
