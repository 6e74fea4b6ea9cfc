/* bench_gpu.cu: the GPU trainer against the limits of its GPU, measured in the same run. make bench_gpu

   ./bench_gpu [--json=FILE] [--preset=c4-301m] [--quick]

   1. the peaks: a bf16 product of large matrices, and a copy
   2. attention forward and backward by T and head size, standard and LASER, as a share of the product's rate (causal:
      half of the products of a full square are counted)
   3. whole steps by micro-batch, standard and LASER: forward, loss, backward, update, tokens a second, model FLOP
      utilisation by the project's convention (6 N + 12 L C T a token), memory
   Every line of the table is also a line of FILE: one JSON object. Compiled by any other C++ compiler it runs in the
   emulator with tiny sizes, where only the sums are true and no time means anything. */
#define HAVE_GPU
#include "../cuda/model.cuh"

#ifdef __CUDACC__
enum { SCALE = 1 }; /* sizes are divided by it */
#else
enum { SCALE = 64 };
#endif

static cudaStream_t bench_stream;
static FILE *bench_json;
static double bench_peak;

/* The median of five times of `call`, after one that is not counted. */
template <typename Call> static double bench_time(Call call) {
    double times[6];
    for (double &time : times) {
        device_wait(bench_stream);
        const double start = seconds_now();
        call();
        device_wait(bench_stream);
        time = seconds_now() - start;
    }
    for (int i = 1; i < 5; i++)
        for (int j = i + 1; j < 6; j++)
            if (times[j] < times[i]) std::swap(times[i], times[j]);
    return times[3];
}

template <typename F> __global__ void fill_kernel(F *x, int64_t n, float size, uint32_t seed) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    uint32_t bits = (uint32_t)i * 2654435761u + seed;
    bits = (bits ^ (bits >> 15)) * 2246822519u;
    bits ^= bits >> 13;
    x[i] = from_float<F>(size * ((float)(bits >> 8) * 0x1p-23f - 1));
}

/* n numbers of a size, not all alike: a GPU is faster on zeros. */
template <typename F> static F *bench_numbers(int64_t n, float size) {
    static uint32_t seed;
    F *x = (F *)device_malloc((size_t)n * sizeof(F));
    LAUNCH(fill_kernel<F>, dim3(blocks_for(n, 256)), dim3(256), 0, bench_stream, x, n, size, ++seed);
    return x;
}

static void bench_peaks(void) {
    const int64_t n = 8192 / SCALE, floats = (int64_t)(1 << 28) / SCALE;
    bf16 *x = bench_numbers<bf16>(n * n, 1), *w = bench_numbers<bf16>(n * n, 1),
         *y = bench_numbers<bf16>(n * n, 1);
    const double product =
        bench_time([&] { matmul_forward(y, (const bf16 *)nullptr, x, w, n, n, n, bench_stream); });
    bench_peak = 2.0 * (double)n * (double)n * (double)n / product;
    device_free(x), device_free(w), device_free(y);
    char *from = (char *)device_malloc((size_t)floats * 8);
    const double copy =
        bench_time([&] { copy_on_device(from, from + floats * 4, (size_t)floats * 4, bench_stream); });
    device_free(from);
    printf("peak: bf16 product of %lld x %lld: %.1f TFLOP/s; copy: %.0f GB/s\n\n", (long long)n, (long long)n,
           bench_peak / 1e12, 8 * (double)floats / copy / 1e9);
    fprintf(bench_json, "{\"what\": \"peak\", \"flops\": %.6g, \"copy_bytes_per_s\": %.6g}\n", bench_peak,
            8 * (double)floats / copy);
}

/* One shape of attention with bf16 operands: 16,384 tokens, 2,048 columns. */
static void bench_attention(int T, int D, AttentionKind kind) {
    const int tokens = 16384 / SCALE, H = SCALE > 1 ? 1 : 2048 / D, B = tokens / T > 0 ? tokens / T : 1;
    const int64_t N = (int64_t)B * T, A = (int64_t)H * D;
    const AttentionSizes s = {B, T, H, D, 3 * A, A, 1 / sqrtf((float)D), kind, LASER_SHIFT_CAUSAL};
    bf16 *qkv = bench_numbers<bf16>(N * 3 * A, 1), *dout = bench_numbers<bf16>(N * A, 1);
    bf16 *out = bench_numbers<bf16>(N * A, 1), *dqkv = bench_numbers<bf16>(N * 3 * A, 1);
    float *exact = bench_numbers<float>(N * A, 1), *lse = bench_numbers<float>(N * H, 1);
    Column *columns = (Column *)device_malloc(attention_columns(s) * sizeof(Column));
    void *work = device_malloc(attention_work_bytes(s));
    const double forward = bench_time([&] {
        attention_forward(out, exact, lse, columns, qkv, qkv + A, qkv + 2 * A, work, s, bench_stream);
    });
    const double backward = bench_time([&] {
        attention_backward(dqkv, dqkv + A, dqkv + 2 * A, dout, qkv, qkv + A, qkv + 2 * A, out, exact, lse,
                           columns, work, s, bench_stream);
    });
    const double flops = 2.0 * (double)N * T * (double)A; /* of two products, half of each */
    const char *name = kind == ATTENTION_LASER ? "laser" : "standard";
    printf("%-9s T %6d D %4d   forward %9.3f ms %5.1f %%   backward %9.3f ms %5.1f %%\n", name, T, D,
           1e3 * forward, 100 * flops / forward / bench_peak, 1e3 * backward,
           100 * 2.5 * flops / backward / bench_peak);
    fprintf(bench_json,
            "{\"what\": \"attention\", \"kind\": \"%s\", \"T\": %d, \"D\": %d, \"tokens\": %lld, "
            "\"forward_s\": %.6g, "
            "\"backward_s\": %.6g, \"forward_flops\": %.6g, \"backward_flops\": %.6g}\n",
            name, T, D, (long long)N, forward, backward, flops / forward, 2.5 * flops / backward);
    for (void *piece : {(void *)qkv, (void *)dout, (void *)out, (void *)dqkv, (void *)exact, (void *)lse,
                        (void *)columns, work})
        device_free(piece);
}

struct BenchPreset {
    const char *name;
    int layers, heads, head_dim, embd, mlp_hidden, seq_len, vocab_size;
};
static const BenchPreset bench_presets[] = {{"c4-301m", 32, 8, 128, 1024, 2048, 1024, 32000},
                                            {"gpt2-124m", 12, 12, 64, 768, 3072, 1024, 50304}};

/* Where the tensors of a model lie, one after the other. */
static DeviceModel bench_model(const BenchPreset &p, int batch, bool laser, std::vector<DeviceLayer> &at) {
    DeviceModel c = DeviceModel();
    c.layers = p.layers, c.heads = p.heads, c.head_dim = p.head_dim, c.embd = p.embd,
    c.mlp_hidden = p.mlp_hidden;
    c.seq_len = p.seq_len, c.vocab_size = p.vocab_size, c.batch = batch, c.laser = laser, c.bf16 = true,
    c.position = -1;
    const int64_t C = p.embd, A = (int64_t)p.heads * p.head_dim, F = p.mlp_hidden;
    int64_t used = (int64_t)p.vocab_size * C;
    auto take = [&](int64_t n) {
        used += n;
        return used - n;
    };
    at.clear();
    for (int l = 0; l < p.layers; l++) {
        DeviceLayer layer;
        layer.attn_norm = take(C), layer.qkv = take(3 * A * C), layer.o = take(A * C);
        layer.mlp_norm = take(C), layer.up = take(F * C), layer.down = take(F * C);
        at.push_back(layer);
    }
    c.final_norm = take(C), c.count = c.moments = used, c.at = at.data();
    return c;
}

/* Whole micro-steps and an update; false when the memory does not hold them. */
static bool bench_step(const BenchPreset &p, int batch, bool laser) {
    std::vector<DeviceLayer> at;
    const DeviceModel c = bench_model(p, batch, laser, at);
    const size_t bytes = model_bytes<bf16>(c);
#ifdef __CUDACC__
    size_t free_bytes, all_bytes;
    cuda_check(cudaMemGetInfo(&free_bytes, &all_bytes));
    if (bytes > free_bytes) return false;
#endif
    GpuModel<bf16> *m = model_open<bf16>(c, bench_stream);
    LAUNCH(fill_kernel<float>, dim3(blocks_for(c.count, 256)), dim3(256), 0, bench_stream, m->weights,
           c.count, 0.04f, 7u);
    model_round_weights(m);
    const int T = c.seq_len;
    const int64_t N = (int64_t)batch * T;
    std::vector<int32_t> tokens((size_t)N);
    for (size_t i = 0; i < tokens.size(); i++)
        tokens[i] = (int32_t)(i * 2654435761u % (unsigned)c.vocab_size);
    double seconds[4]; /* forward, loss, backward, update */
    seconds[0] = bench_time([&] { model_forward(m, tokens.data(), batch, T); });
    seconds[1] = bench_time([&] { model_loss(m, tokens.data(), N, 1.0f / (float)N); });
    seconds[2] = bench_time([&] { model_backward(m, batch, T); });
    const AdamWStep step = adamw_step(1e-4, 0.9, 0.95, 1e-8, 0.1, 1, 1);
    seconds[3] = bench_time([&] { model_update(m, 0, 0, c.count, step); });
    model_close(m);
    const double micro = seconds[0] + seconds[1] + seconds[2], rate = (double)N / (micro + seconds[3]);
    const double matrices = (double)c.count - (2 * c.layers + 1) * (double)c.embd;
    const double flops = 6 * matrices + 12.0 * c.layers * c.heads * c.head_dim * T;
    const char *name = laser ? "laser" : "standard";
    printf("%-10s %-9s B %3d   forward %8.2f loss %7.2f backward %8.2f update %6.2f ms   %9.0f tokens/s  MFU "
           "%4.1f %%  "
           "%5.1f GiB\n",
           p.name, name, batch, 1e3 * seconds[0], 1e3 * seconds[1], 1e3 * seconds[2], 1e3 * seconds[3], rate,
           100 * rate * flops / bench_peak, (double)bytes / 0x1p30);
    fprintf(
        bench_json,
        "{\"what\": \"step\", \"preset\": \"%s\", \"kind\": \"%s\", \"batch\": %d, \"forward_s\": %.6g, "
        "\"loss_s\": %.6g, "
        "\"backward_s\": %.6g, \"update_s\": %.6g, \"tokens_per_s\": %.6g, \"mfu\": %.6g, \"bytes\": %zu}\n",
        p.name, name, batch, seconds[0], seconds[1], seconds[2], seconds[3], rate, rate * flops / bench_peak,
        bytes);
    return true;
}

int main(int argc, char **argv) {
    const char *json = "bench_gpu.json", *only = "";
    bool quick = false;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--json=", 7) == 0)
            json = argv[i] + 7;
        else if (strncmp(argv[i], "--preset=", 9) == 0)
            only = argv[i] + 9;
        else if (strcmp(argv[i], "--quick") == 0)
            quick = true;
        else {
            fprintf(stderr, "error: unknown option '%s'; expected --json=FILE, --preset=NAME or --quick\n",
                    argv[i]);
            return 2;
        }
    }
    bench_json = check_fopen(json, "w", "choose another --json");
#ifdef __CUDACC__
    struct cudaDeviceProp properties;
    cuda_check(cudaGetDeviceProperties(&properties, 0));
    cuda_check(cudaStreamCreateWithFlags(&bench_stream, cudaStreamNonBlocking));
    printf("%s\n", properties.name);
    fprintf(bench_json, "{\"what\": \"machine\", \"gpu\": \"%s\"}\n", properties.name);
#else
    printf("emulated: no time below means anything\n");
#endif
    bench_peaks();
    for (int D = 64; D <= 128; D *= 2)
        for (int T = 512; T <= (quick ? 1024 : 16384); T *= 2)
            for (int kind = 0; kind < 2; kind++)
                if (T == 512 || SCALE == 1) bench_attention(T / SCALE, D, (AttentionKind)kind);
    printf("\n");
    for (BenchPreset p : bench_presets) {
        if (*only && strcmp(only, p.name) != 0) continue;
        if (SCALE > 1)
            p.layers = 1, p.heads = 1, p.embd = 32, p.mlp_hidden = 32, p.seq_len = 16, p.vocab_size = 64;
        for (int batch = SCALE > 1 ? 1 : 8; batch <= (quick || SCALE > 1 ? 8 : 128);
             batch *= SCALE > 1 ? 16 : 2)
            for (int laser = 0; laser < 2; laser++)
                if (!bench_step(p, batch, laser != 0))
                    printf("%-10s B %3d does not fit the memory\n", p.name, batch);
    }
    check_fclose(bench_json, json);
    return 0;
}
