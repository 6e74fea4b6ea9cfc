/* bench_gpu.cu: the GPU trainer against the limits of its GPU, measured in the same run. make bench_gpu

   ./bench_gpu [--json=FILE] [--preset=c4-301m] [--batch=B[,B...]] [--steps-only] [--untimed-products] [--quick]

   The program prints a table with these parts:
   1. the peak rates: of a bf16 product of large matrices, and of a copy
   2. attention, forward and backward, by T and head size, standard and LASER, as a share of the product's rate. Because
      of the causal mask only half of the operations of a T x T product are counted. scripts/bench_gpu_pytorch.py
      measures the same with PyTorch
   3. gelu inside the matrix products before and after it, and gelu in kernels of its own
   4. whole steps by micro-batch, standard and LASER: the times of forward, loss, backward and update, and the time of
      the whole step. From the latter follow the tokens a second and the model FLOP utilisation, by the project's
      convention of 6 N + 12 L C T operations a token. Also the memory, and how much longer LASER's step takes
   5. for the first micro-batch, the share of a step's time that each kernel takes
   6. for each shape of product, the algorithm of cuBLASLt that was chosen (cuda/choice.cuh), and the time of the
      algorithm that cuBLASLt lists first

   --batch=B,...        measures steps with these micro-batches only
   --steps-only         leaves parts 2 and 3 out
   --untimed-products   uses cuBLASLt's algorithms without timing them first
   --quick              measures fewer and smaller sizes
   Every line of the table is also written to FILE, as a JSON object in a line of its own. Compiled by any other C++
   compiler than nvcc, the program runs in the emulator with tiny sizes: its table is complete, but its times mean
   nothing. */
#define HAVE_GPU
#include "../cuda/model.cuh"
#include "../gpt/io/files.h"
#include "../gpt/base/program.h"
#include <algorithm>
#include <map>
#include <string>

#ifdef __CUDACC__
enum { SCALE = 1 }; /* all sizes are divided by this */
/* Bytes of memory that must stay free: CUDA loads a kernel when it is first called, and allocations have gaps. */
enum { BENCH_SPARE = 512 << 20 };
#else
enum { SCALE = 64 };
#endif

static cudaStream_t bench_stream;
static FILE *bench_json;
static double bench_peak; /* FLOP/s of the large product of part 1 */

/* Returns the median of five times of `call`, in seconds. A first call is not counted. */
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

/* Returns an array of n different numbers between -size and size. */
template <typename F> static F *bench_numbers(int64_t n, float size) {
    static uint32_t seed;
    F *x = (F *)device_malloc((size_t)n * sizeof(F));
    fill(x, n, size, ++seed, bench_stream);
    return x;
}

/* Part 1. */
static void bench_peaks(void) {
    const int64_t n = 8192 / SCALE, floats = (int64_t)(1 << 28) / SCALE;
    bench_peak = matmul_peak<bf16>(n, bench_stream);
    char *from = (char *)device_malloc((size_t)floats * 8);
    const double copy =
        bench_time([&] { copy_on_device(from, from + floats * 4, (size_t)floats * 4, bench_stream); });
    device_free(from);
    printf("peak: bf16 product of %lld x %lld: %.1f TFLOP/s; copy: %.0f GB/s\n\n", (long long)n, (long long)n,
           bench_peak / 1e12, 8 * (double)floats / copy / 1e9);
    fprintf(bench_json, "{\"what\": \"peak\", \"flops\": %.6g, \"copy_bytes_per_s\": %.6g}\n", bench_peak,
            8 * (double)floats / copy);
}

/* Part 2, for one T and one head size D, with bf16 operands: 16,384 tokens, H * D = 2,048 columns. */
static void bench_attention(int T, int D, AttentionKind kind) {
    const int H = SCALE > 1 ? 1 : 2048 / D, B = SCALE > 1 ? 1 : 16384 / T;
    const int64_t N = (int64_t)B * T, A = (int64_t)H * D;
    const AttentionSizes s = {B, T, H, D, 3 * A, A, 1 / sqrtf((float)D), kind, LASER_SHIFT_CAUSAL};
    const char *name = kind == ATTENTION_LASER ? "laser" : "standard";
    if (kind == ATTENTION_LASER && !plain_fits(s)) {
        printf(
            "%-9s T %6d D %4d   is too long for this GPU; --laser-shift=sequence does not have this limit\n",
            name, T, D);
        return;
    }
    bf16 *qkv = bench_numbers<bf16>(N * 3 * A, 1), *dout = bench_numbers<bf16>(N * A, 1);
    bf16 *out = bench_numbers<bf16>(N * A, 1), *dqkv = bench_numbers<bf16>(N * 3 * A, 1);
    float *lse = bench_numbers<float>(N * H, 1);
    uint16_t *low_bits = (uint16_t *)device_malloc((size_t)(N * A) * sizeof(uint16_t));
    LaserColumn *columns = (LaserColumn *)device_malloc(attention_columns(s) * sizeof(LaserColumn));
    void *work = device_malloc(attention_work_size(s));
    const double forward = bench_time([&] {
        attention_forward(out, low_bits, lse, columns, qkv, qkv + A, qkv + 2 * A, work, s, bench_stream);
    });
    const double backward = bench_time([&] {
        attention_backward(dqkv, dqkv + A, dqkv + 2 * A, dout, qkv, qkv + A, qkv + 2 * A, out, low_bits, lse,
                           columns, nullptr, work, s, bench_stream);
    });
    const double flops = 2.0 * (double)N * T * (double)A; /* forward: two products, half of each */
    printf("%-9s T %6d D %4d   forward %9.3f ms %5.1f %%   backward %9.3f ms %5.1f %%\n", name, T, D,
           1e3 * forward, 100 * flops / forward / bench_peak, 1e3 * backward,
           100 * 2.5 * flops / backward / bench_peak);
    fprintf(bench_json,
            "{\"what\": \"attention\", \"kind\": \"%s\", \"T\": %d, \"D\": %d, \"tokens\": %lld, "
            "\"forward_s\": %.6g, "
            "\"backward_s\": %.6g, \"forward_flops\": %.6g, \"backward_flops\": %.6g}\n",
            name, T, D, (long long)N, forward, backward, flops / forward, 2.5 * flops / backward);
    for (void *piece : {(void *)qkv, (void *)dout, (void *)out, (void *)dqkv, (void *)low_bits, (void *)lse,
                        (void *)columns, work})
        device_free(piece);
}

/* Part 3: the MLP of c4-301m on 16,384 tokens. Forward goes from the norm (N, C) to the hidden units (N, F), backward
   from the gradient of the MLP's output (N, C) to that of gelu's argument (N, F); each with gelu in the product and
   apart. */
static void bench_gelu(void) {
    const int64_t N = 16384 / SCALE, C = 1024 / SCALE, F = 2048 / SCALE;
    bf16 *norm = bench_numbers<bf16>(N * C, 1), *up = bench_numbers<bf16>(F * C, 0.1f),
         *down = bench_numbers<bf16>(C * F, 0.1f), *before = bench_numbers<bf16>(N * F, 1),
         *after = bench_numbers<bf16>(N * F, 1);
    const double forward =
        bench_time([&] { matmul_gelu_forward(after, before, norm, up, N, C, F, bench_stream); });
    const double forward_apart = bench_time([&] {
        matmul_forward(before, (const bf16 *)nullptr, norm, up, N, C, F, bench_stream);
        activation_forward(after, before, N, (int)F, GPU_GELU, bench_stream);
    });
    const double backward =
        bench_time([&] { matmul_gelu_backward_input(after, before, norm, down, N, F, C, bench_stream); });
    const double backward_apart = bench_time([&] {
        matmul_backward_input(after, norm, down, N, F, C, bench_stream);
        activation_backward(after, after, before, N, (int)F, GPU_GELU, bench_stream);
    });
    printf("\ngelu in the product: forward %.3f ms, apart %.3f; backward %.3f ms, apart %.3f\n\n",
           1e3 * forward, 1e3 * forward_apart, 1e3 * backward, 1e3 * backward_apart);
    fprintf(bench_json,
            "{\"what\": \"gelu\", \"forward_s\": %.6g, \"forward_apart_s\": %.6g, \"backward_s\": %.6g, "
            "\"backward_apart_s\": %.6g}\n",
            forward, forward_apart, backward, backward_apart);
    for (bf16 *piece : {norm, up, down, before, after}) device_free(piece);
}

/* ---- the time of each kernel ---- */

/* An event is recorded after every launch. The time of a kernel is that between its event and the one before. */

struct BenchMoment {
    const char *kernel;
    cudaEvent_t event;
};
static std::vector<BenchMoment> bench_moments;

/* The launch_hook: records an event after the launch of this kernel. */
static void bench_moment(const char *kernel, cudaStream_t stream) {
    bench_moments.push_back({kernel, event_create()});
    event_record(bench_moments.back().event, stream);
}

/* Returns the name of a kernel without template arguments and "_kernel": "adamw" for "(adamw_kernel<S, 4>)". */
static std::string bench_kernel_name(const char *launched) {
    std::string name = launched[0] == '(' ? launched + 1 : launched;
    name = name.substr(0, name.find('<'));
    const size_t end = name.rfind("_kernel");
    return end == std::string::npos ? name : name.substr(0, end);
}

struct BenchKernel {
    std::string name;
    int calls;
    double seconds;
};

/* Returns the kernels that `call` launches, those that take longest first. */
template <typename Call> static std::vector<BenchKernel> bench_kernels(Call call) {
    device_wait(bench_stream);
    bench_moment("", bench_stream);
    launch_hook = bench_moment;
    call();
    launch_hook = nullptr;
    device_wait(bench_stream);
    std::map<std::string, BenchKernel> by_name;
    for (size_t i = 1; i < bench_moments.size(); i++) {
        const std::string name = bench_kernel_name(bench_moments[i].kernel);
        BenchKernel &kernel = by_name[name];
        kernel.name = name, kernel.calls++;
        kernel.seconds += event_seconds(bench_moments[i - 1].event, bench_moments[i].event);
    }
    for (const BenchMoment &moment : bench_moments) event_destroy(moment.event);
    bench_moments.clear();
    std::vector<BenchKernel> kernels;
    for (const auto &entry : by_name) kernels.push_back(entry.second);
    std::sort(kernels.begin(), kernels.end(),
              [](const BenchKernel &a, const BenchKernel &b) { return a.seconds > b.seconds; });
    return kernels;
}

struct BenchPreset {
    const char *name;
    int layers, heads, head_dim, embd, mlp_hidden, seq_len, vocab_size;
    bool learned; /* learned positions, else rope */
};
static const BenchPreset bench_presets[] = {{"c4-301m", 32, 8, 128, 1024, 2048, 1024, 32000, false},
                                            {"gpt2-124m", 12, 12, 64, 768, 3072, 1024, 50304, true}};

/* The step that a line of the table describes. */
struct BenchCase {
    const char *preset, *kind;
    int batch;
};

/* Part 5. */
static void bench_shares(const BenchCase &which, const std::vector<BenchKernel> &kernels) {
    double sum = 0;
    for (const BenchKernel &kernel : kernels) sum += kernel.seconds;
    for (const BenchKernel &kernel : kernels) {
        printf("    %-28s %5d calls %9.3f ms %5.1f %%\n", kernel.name.c_str(), kernel.calls,
               1e3 * kernel.seconds, 100 * kernel.seconds / sum);
        fprintf(
            bench_json,
            "{\"what\": \"kernel\", \"preset\": \"%s\", \"kind\": \"%s\", \"batch\": %d, \"kernel\": \"%s\", "
            "\"calls\": %d, \"seconds\": %.6g, \"share\": %.6g}\n",
            which.preset, which.kind, which.batch, kernel.name.c_str(), kernel.calls, kernel.seconds,
            kernel.seconds / sum);
    }
}

/* Returns the description of a model whose tensors lie one after the other. Its pointers point to `at`, with an
   element for each layer, and to rope_cos_sin. */
static DeviceModel bench_model(const BenchPreset &p, int batch, bool laser, std::vector<DeviceLayer> &at,
                               std::vector<float> &rope_cos_sin) {
    DeviceModel c = DeviceModel();
    c.layers = p.layers, c.heads = p.heads, c.head_dim = p.head_dim, c.embd = p.embd,
    c.mlp_hidden = p.mlp_hidden;
    c.seq_len = p.seq_len, c.vocab_size = p.vocab_size, c.batch = batch,
    c.attn = laser ? ATTENTION_LASER : ATTENTION_STANDARD, c.bf16 = true, c.position = -1;
    const int64_t C = p.embd, A = (int64_t)p.heads * p.head_dim, F = p.mlp_hidden;
    int64_t used = (int64_t)p.vocab_size * C;
    auto take = [&](int64_t n) {
        used += n;
        return used - n;
    };
    if (p.learned) c.position = take((int64_t)p.seq_len * C);
    rope_cos_sin.resize(p.learned ? 0 : (size_t)p.seq_len * (size_t)p.head_dim);
    for (size_t i = 0; i < rope_cos_sin.size(); i++)
        rope_cos_sin[i] = i % 2 ? sinf((float)i) : cosf((float)(i + 1));
    c.rope_cos_sin = p.learned ? nullptr : rope_cos_sin.data();
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

enum BenchPart { BENCH_FORWARD, BENCH_LOSS, BENCH_BACKWARD, BENCH_UPDATE, BENCH_PARTS };

/* A model on the GPU, and the tokens of a micro-step. */
struct BenchModel {
    BenchCase which;
    DeviceModel c;
    std::vector<DeviceLayer> at;
    std::vector<float> rope_cos_sin;
    std::vector<int32_t> tokens;
    size_t bytes;
    GpuModel<bf16> *m;

    void run(int part) const {
        const int64_t N = (int64_t)tokens.size();
        const AdamWStep adamw = adamw_step({1e-4, 0.9, 0.95, 1e-8, 0.1, 1, 1, false});
        if (part == BENCH_FORWARD) model_forward(m, tokens.data(), c.batch, c.seq_len);
        if (part == BENCH_LOSS) model_loss(m, tokens.data(), N, 1.0f / (float)N);
        if (part == BENCH_BACKWARD) model_backward(m, c.batch, c.seq_len);
        if (part == BENCH_UPDATE) model_update(m, 0, 0, c.count, adamw);
    }
    void step()
        const { /* of one micro-step, which writes the gradients as the first micro-step of the trainer does */
        model_zero_gradients(m);
        for (int part = 0; part < BENCH_PARTS; part++) run(part);
    }
};

/* Opens a model and computes a first step, in which kernels are loaded and products are timed. Returns false if the
   memory is too small. */
static bool bench_open(BenchModel *b, const BenchPreset &p, int batch, bool laser) {
    b->which = {p.name, laser ? "laser" : "standard", batch};
    b->c = bench_model(p, batch, laser, b->at, b->rope_cos_sin);
    b->bytes = model_bytes<bf16>(b->c);
#ifdef __CUDACC__
    size_t free_bytes, all_bytes;
    cuda_check(cudaMemGetInfo(&free_bytes, &all_bytes));
    if (b->bytes + BENCH_SPARE > free_bytes) return false;
#endif
    b->m = model_open<bf16>(b->c, bench_stream);
    fill(b->m->weights, b->c.count, 0.04f, 7, bench_stream);
    model_round_weights(b->m);
    b->tokens.resize((size_t)batch * (size_t)p.seq_len);
    for (size_t i = 0; i < b->tokens.size(); i++)
        b->tokens[i] = (int32_t)(i * 2654435761u % (unsigned)p.vocab_size);
    b->step();
    device_wait(bench_stream);
    return true;
}

/* Part 4, for one model: prints the times of a step, which is one micro-step and an update, and returns the seconds
   of the whole. The parts of a step are also timed separately. Their sum is larger than the whole, in which the host
   already launches the kernels of a part before the part before it has ended. */
static double bench_step(const BenchPreset &p, const BenchModel &b, bool shares) {
    double seconds[BENCH_PARTS];
    for (int part = 0; part < BENCH_PARTS; part++) seconds[part] = bench_time([&] { b.run(part); });
    const double step = bench_time([&] { b.step(); }), rate = (double)b.tokens.size() / step;
    const double matrices = (double)b.c.count - (2 * p.layers + 1) * (double)p.embd -
                            (p.learned ? (double)p.seq_len * (double)p.embd : 0);
    const double flops = 6 * matrices + 12.0 * p.layers * p.heads * p.head_dim * p.seq_len;
    printf("%-10s %-9s B %3d   forward %8.2f loss %7.2f backward %8.2f update %6.2f, step %8.2f ms   %9.0f "
           "tokens/s  MFU %4.1f %%  %5.1f GiB\n",
           p.name, b.which.kind, b.which.batch, 1e3 * seconds[0], 1e3 * seconds[1], 1e3 * seconds[2],
           1e3 * seconds[3], 1e3 * step, rate, 100 * rate * flops / bench_peak, (double)b.bytes / 0x1p30);
    fprintf(bench_json,
            "{\"what\": \"step\", \"preset\": \"%s\", \"kind\": \"%s\", \"batch\": %d, \"forward_s\": %.6g, "
            "\"loss_s\": %.6g, \"backward_s\": %.6g, \"update_s\": %.6g, \"step_s\": %.6g, "
            "\"tokens_per_s\": %.6g, \"mfu\": %.6g, \"bytes\": %zu}\n",
            p.name, b.which.kind, b.which.batch, seconds[0], seconds[1], seconds[2], seconds[3], step, rate,
            rate * flops / bench_peak, b.bytes);
    if (shares) bench_shares(b.which, bench_kernels([&] { b.step(); }));
    return step;
}

/* Returns the median of the ratio of a step of `second` to a step of `first`. The two steps of a pair are timed one
   directly after the other, since the clock rate of a GPU changes from second to second. */
static double bench_ratio(const BenchModel &first, const BenchModel &second) {
    enum { PAIRS = 7 };
    double ratios[PAIRS];
    for (int pair = 0; pair < PAIRS; pair++) {
        double seconds[2];
        for (int i = 0; i < 2; i++) {
            const int which = (i + pair) % 2;
            const double start = seconds_now();
            (which ? second : first).step();
            device_wait(bench_stream);
            seconds[which] = seconds_now() - start;
        }
        ratios[pair] = seconds[1] / seconds[0];
    }
    std::sort(ratios, ratios + PAIRS);
    return ratios[PAIRS / 2];
}

/* Part 4, for one micro-batch: steps with both kinds of attention. Both models are in memory at the same time if it
   is large enough. Returns false if the memory is too small even for one. */
static bool bench_steps(const BenchPreset &p, int batch, bool shares) {
    BenchModel standard, laser;
    if (!bench_open(&standard, p, batch, false)) return false;
    const double standard_step = bench_step(p, standard, shares);
    const bool pairs = bench_open(&laser, p, batch, true);
    if (!pairs) {
        model_close(standard.m);
        if (!bench_open(&laser, p, batch, true)) return false;
    }
    const double laser_step = bench_step(p, laser, shares),
                 ratio = pairs ? bench_ratio(standard, laser) : laser_step / standard_step;
    model_close(laser.m);
    if (pairs) model_close(standard.m);
    printf("%-10s LASER     B %3d   %.3f of standard attention's step (%s)\n", p.name, batch, ratio,
           pairs ? "steps in turn" : "one after the other");
    fprintf(bench_json,
            "{\"what\": \"ratio\", \"preset\": \"%s\", \"batch\": %d, \"laser_over_standard\": %.6g, "
            "\"in_turn\": %s}\n",
            p.name, batch, ratio, pairs ? "true" : "false");
    return true;
}

/* Part 6: the choice for every product so far. `first` is the algorithm that cuBLASLt lists first, even if its
   results have other bits than the reference. */
static void bench_products(void) {
    const ProductTimings timings = matmul_timings();
    char note[160];
    if (timings.products.empty()) return; /* the emulator times no products */
    printf("\n%s\n", timings_note(note, timings));
    for (const ProductTiming &p : timings.products) {
        const double flops = 2.0 * (double)p.m * (double)p.n * (double)p.k, rate = flops / p.choice.seconds;
        printf("%-27s %-5s %6lld x %6lld x %6lld   #%-2d (of %2d, %2d with its bits, k in %d) %8.3f ms %6.1f "
               "TFLOP/s %5.1f %%   first %8.3f ms   %6lld calls\n",
               p.name, p.epilogue, (long long)p.m, (long long)p.n, (long long)p.k, p.choice.candidate,
               p.candidates, p.choice.equal, p.splits, 1e3 * p.choice.seconds, rate / 1e12,
               100 * rate / bench_peak, 1e3 * p.choice.first_seconds, (long long)p.calls);
        fprintf(bench_json,
                "{\"what\": \"product\", \"name\": \"%s\", \"epilogue\": \"%s\", \"m\": %lld, \"n\": %lld, "
                "\"k\": %lld, \"candidate\": %d, \"candidates\": %d, \"equal\": %d, \"splits\": %d, ",
                p.name, p.epilogue, (long long)p.m, (long long)p.n, (long long)p.k, p.choice.candidate,
                p.candidates, p.choice.equal, p.splits);
        /* A time that was not measured is NaN, which JSON does not have: it is left out. */
        for (const auto &time :
             {std::make_pair("seconds", p.choice.seconds), std::make_pair("first_s", p.choice.first_seconds)})
            if (time.second > 0) fprintf(bench_json, "\"%s\": %.6g, ", time.first, time.second);
        fprintf(bench_json, "\"calls\": %lld}\n", (long long)p.calls);
    }
}

/* Adds the numbers of a list such as "8,32" to `batches`; returns false if the text is not a list of batches. */
static bool bench_batches(const char *text, std::vector<int> *batches) {
    for (char *end;; text = end + 1) {
        const long batch = strtol(text, &end, 10);
        if (end == text || (*end && *end != ',') || batch < 1 || batch > 1 << 20) return false;
        batches->push_back((int)batch);
        if (!*end) return true;
    }
}

#define BENCH_GPU_OPTIONS                                                                                    \
    "--json=FILE, --preset=NAME, --batch=B[,B...], --steps-only, --untimed-products, --quick, --help (-h) "  \
    "or --version"

int main(int argc, char **argv) {
    program_begin();
    const char *json = "bench_gpu.json", *only = "";
    bool quick = false, steps_only = false;
    std::vector<int> batches;
    for (int i = 1; i < argc; i++) {
        bool known = true;
        if (strncmp(argv[i], "--json=", 7) == 0)
            json = argv[i] + 7;
        else if (strncmp(argv[i], "--preset=", 9) == 0)
            only = argv[i] + 9;
        else if (strncmp(argv[i], "--batch=", 8) == 0)
            known = bench_batches(argv[i] + 8, &batches);
        else if (strcmp(argv[i], "--steps-only") == 0)
            steps_only = true;
        else if (strcmp(argv[i], "--quick") == 0)
            quick = true;
        else if (strcmp(argv[i], "--untimed-products") == 0)
            matmul_tuning.least_flops = INFINITY;
        else if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0)
            return printf("options: " BENCH_GPU_OPTIONS "\n"), 0;
        else if (strcmp(argv[i], "--version") == 0)
            return program_version("bench_gpu"), 0;
        else
            known = false;
        if (!known) {
            fprintf(stderr, "error: unknown option '%s'; expected " BENCH_GPU_OPTIONS "\n", argv[i]);
            return 2;
        }
    }
    if (batches.empty())
        for (int batch = SCALE > 1 ? 1 : 8; batch <= (SCALE > 1 ? 1 : quick ? 8 : 128); batch *= 2)
            batches.push_back(batch);
    bench_json = check_fopen(json, "w", "choose another --json");
#ifdef __CUDACC__
    struct cudaDeviceProp properties;
    cuda_check(cudaGetDeviceProperties(&properties, 0));
    cuda_check(cudaStreamCreateWithFlags(&bench_stream, cudaStreamNonBlocking));
    printf("%s\n", properties.name);
    fprintf(bench_json, "{\"what\": \"machine\", \"gpu\": \"%s\"}\n", properties.name);
#else
    printf("emulated: the times below mean nothing\n");
#endif
    bench_peaks();
    for (int D = 64; D <= 128 && !steps_only; D *= 2)
        for (int T = 512; T <= (quick ? 1024 : 16384); T *= 2)
            for (int kind = 0; kind < 2; kind++)
                if (T == 512 || SCALE == 1) bench_attention(T / SCALE, D, (AttentionKind)kind);
    if (!steps_only) bench_gelu();
    for (BenchPreset p : bench_presets) {
        if (*only && strcmp(only, p.name) != 0) continue;
        if (SCALE > 1)
            p.layers = 1, p.heads = 1, p.embd = 32, p.mlp_hidden = 32, p.seq_len = 16, p.vocab_size = 64;
        for (int batch : batches)
            if (!bench_steps(p, batch, batch == batches[0]))
                printf("%-10s B %3d does not fit into the memory\n", p.name, batch);
    }
    bench_products();
    check_fclose(bench_json, json);
    return 0;
}
