/* train_gpt.cu: the trainer on a GPU. The program is train_gpt.c, compiled with -DHAVE_GPU, together with this file,
   which implements gpt/dist/device.h. So options, data, checkpoints and log are those of the CPU's program, and a run
   may move between CPU and GPU. The kernels and the model are in cuda/. Read cuda/model.cuh first: its functions are
   named as those of train_gpt.c.

   To build it: make train_gptcu. When another C++ compiler than nvcc compiles this file (c++ -x c++ train_gpt.cu), the
   CPU executes the kernels in an emulator, cuda/emulate.h. It is for tests, on models of a few thousand parameters. */
#ifndef HAVE_GPU
#define HAVE_GPU
#endif
#include "cuda/model.cuh"

/* The open model; one of the two pointers is not NULL. */
static GpuModel<float> *model_fp32;
static GpuModel<bf16> *model_bf16;
static cudaStream_t device_stream;

/* Calls `call` with the open model. */
template <typename Call> static void with_model(Call call) {
    if (model_bf16) return call(model_bf16);
    if (model_fp32) return call(model_fp32);
    die("the GPU was asked to compute before device_open");
}

#ifdef __CUDACC__
enum { PEAK_SIZE = 8192 }; /* rows and columns of the product that measures the peak */

void device_choose(int local_rank) {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0)
        die("no GPU can be used: %s; see nvidia-smi, or train on the CPU with ./train_gpt",
            cudaGetErrorString(error));
    cuda_check(cudaSetDevice(local_rank % count));
    struct cudaDeviceProp properties;
    cuda_check(cudaGetDeviceProperties(&properties, local_rank % count));
    if (properties.major < 8)
        die("%s has compute capability %d.%d; bf16 tensor cores begin with 8.0", properties.name,
            properties.major, properties.minor);
    cuda_check(cudaStreamCreateWithFlags(&device_stream, cudaStreamNonBlocking));
}

const char *device_name(char text[128]) {
    int device;
    struct cudaDeviceProp properties;
    cuda_check(cudaGetDevice(&device));
    cuda_check(cudaGetDeviceProperties(&properties, device));
    snprintf(text, 128, "%.80s, %.0f GiB", properties.name, (double)properties.totalGlobalMem / 0x1p30);
    return text;
}
#else
enum { PEAK_SIZE = 64 };
void device_choose(int local_rank) { (void)local_rank; }
const char *device_name(char text[128]) {
    snprintf(text, 128, "no GPU: kernels are emulated");
    return text;
}
#endif

double device_peak_flops(bool bf16_operands) {
    return bf16_operands ? matmul_peak<bf16>(PEAK_SIZE, device_stream)
                         : matmul_peak<float>(PEAK_SIZE, device_stream);
}

bool device_has_attention(AttentionKind kind) { return attention_is_available(kind); }

size_t device_memory_needed(const DeviceModel *model) {
    return model->bf16 ? model_bytes<bf16>(*model) : model_bytes<float>(*model);
}

void device_open(const DeviceModel *model) {
    if (model->bf16)
        model_bf16 = model_open<bf16>(*model, device_stream);
    else
        model_fp32 = model_open<float>(*model, device_stream);
    matmul_count_calls(); /* only the model's, not those that measured the peak */
}

void device_close(void) {
    if (model_bf16) model_close(model_bf16);
    if (model_fp32) model_close(model_fp32);
    model_bf16 = nullptr, model_fp32 = nullptr;
}

/* An array of the model, and its size in bytes. */
template <typename S> static float *device_floats(const GpuModel<S> *m, DeviceArray array, size_t *bytes) {
    float *const floats[] = {m->weights, m->gradients, m->adam_m, m->adam_v};
    const bool moments = array == DEVICE_ADAM_M || array == DEVICE_ADAM_V;
    *bytes = (size_t)(moments ? m->c.moments : m->c.count) * sizeof(float);
    return floats[array];
}

void device_put(DeviceArray array, const float *from) {
    with_model([&](auto *m) {
        size_t bytes;
        float *to = device_floats(m, array, &bytes);
        if (array == DEVICE_GRADIENTS) model_settle_gradients(m); /* else they would still count as zero */
        copy_to_device(to, from, bytes, m->stream);
        if (array == DEVICE_WEIGHTS) model_round_weights(m);
        device_wait(m->stream);
    });
}

void device_get(DeviceArray array, float *to) {
    with_model([&](auto *m) {
        size_t bytes;
        const float *from = device_floats(m, array, &bytes);
        if (array == DEVICE_GRADIENTS) model_settle_gradients(m);
        model_fetch(m, to, from, bytes);
    });
}

void device_forward(const int32_t *tokens, int B, int T) {
    with_model([&](auto *m) { model_forward(m, tokens, B, T); });
}

void device_loss(const int32_t *targets, int64_t N, float gradient_scale) {
    with_model([&](auto *m) { model_loss(m, targets, N, gradient_scale); });
}

double device_loss_sum(void) {
    double sum = 0;
    with_model([&](auto *m) { sum = model_loss_sum(m); });
    return sum;
}

const char *device_note(char text[160]) {
    static bool is_returned;
    text[0] = '\0';
    if (!is_returned) timings_note(text, matmul_timings());
    is_returned = true;
    return text;
}

void device_backward(int B, int T) {
    with_model([&](auto *m) { model_backward(m, B, T); });
}

void device_logits(float *logits, int64_t n) {
    with_model([&](auto *m) { model_logits(m, logits, n); });
}

void device_zero_gradients(void) {
    with_model([&](auto *m) { model_zero_gradients(m); });
}

double device_gradient_squares(void) {
    double squares = 0;
    with_model([&](auto *m) { squares = model_gradient_squares(m); });
    return squares;
}

void device_update(int64_t begin, int64_t moments, int64_t count, const AdamWSettings *settings) {
    const AdamWStep step = adamw_step(*settings);
    with_model([&](auto *m) { model_update(m, begin, moments, count, step); });
}

bool device_has_collectives(void) { return collectives_available(); }

void device_join(const DeviceJob *job) {
    with_model([&](auto *m) { model_join(m, *job); });
}

void device_reduce_scatter_begin(void) {
    with_model([&](auto *m) { exchange_reduce_scatter_begin(m->exchange); });
}

void device_all_gather(DeviceArray array, int bucket) {
    with_model([&](auto *m) { model_all_gather(m, array == DEVICE_WEIGHTS, bucket); });
}

void device_collectives_wait(void) {
    with_model([&](auto *m) { exchange_wait(m->exchange, m->stream); });
}

double device_comm_overlap(void) {
    double hidden = NAN;
    with_model([&](auto *m) { hidden = m->exchange ? m->exchange->comm_overlap : NAN; });
    return hidden;
}
