/* device.h: the functions that every kernel and its caller use. Compiled by nvcc they are CUDA's; compiled by any
   other C++ compiler they are those of the emulator (emulate.h), which runs the same kernels on the CPU.

   Launches
   LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)   launches a kernel. A template with commas must
                                  stand in parentheses: LAUNCH((kernel<S, 4>), ...)
   launch_hook(name, stream)      if it is set, it is called after every launch and every matrix product with the name
                                  of the kernel or function in the code; measurements use it
   blocks_for(n, each)            the number of blocks for n elements, `each` in a block

   Memory
   shared_memory<T>()             in a kernel: the block's dynamic shared memory; kernels use no other
   shared_memory_most()           the largest number of bytes of shared memory that a block may have on this GPU
   device_malloc, device_free     memory of the GPU
   pinned_malloc, pinned_free     memory of the host from which copy_to_device copies without making the host wait
   device_zero(memory, bytes, stream)
   copy_to_device, copy_to_host, copy_on_device(to, from, bytes, stream)   copy_to_host waits until the bytes have
                                                                           arrived
   device_wait(stream)            the host waits until all work of the stream is done
   device_multiprocessors()       the number of multiprocessors of this GPU

   Streams and events
   stream_create(), stream_destroy(stream)
   stream_wait(later, earlier)    work that `later` is given from now on waits for the work that `earlier` has been
                                  given
   event_create(), event_destroy(event)
   event_record(event, stream)    the event happens when all work that the stream has been given is done
   event_done(event)              whether it has happened
   event_wait(event)              the host waits until it has happened
   event_seconds(from, to)        the time between two events that have happened
   seconds_now()                  the time on the host, of a clock that only goes forward (gpt/base/clock.h)

   Numbers, in kernels
   to_float(x), from_float<T>(x)  from and to float or bf16, rounding to nearest
   pack_bf16(low, high), bf16_low(pair), bf16_high(pair)   two bf16 in one register
   load(x, from), store(to, x)    one, four or eight neighbouring elements, as float
   join_split_float(high, rest)   a float32 from its rounded part and the rest (SplitFloats of layers.cuh)
   fast_exp2(x), fast_log2(x), power_of_two(k), float_to_bits(x), bits_to_float(bits)
   warp_sum, warp_max, block_sum, block_max   over a warp or a block, in a fixed order; every thread gets the result
   Every failure ends the program with one line that names file and line, as everywhere (gpt/base/check.h). */
#ifndef CUDA_DEVICE_H
#define CUDA_DEVICE_H

#include "../gpt/base/clock.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>
#include <vector>
#include "../gpt/base/check.h"

typedef __nv_bfloat16 bf16;

/* cuda_check(call) ends the program if a call of CUDA's runtime fails. */
static inline void cuda_check_at(cudaError_t error, const char *call, const char *file, int line) {
    if (error == cudaSuccess) return;
    check_die(file, line, "%s: %s (%s)%s", call, cudaGetErrorString(error), cudaGetErrorName(error),
              error == cudaErrorMemoryAllocation ? "; use a smaller --batch" : "");
}
#define cuda_check(call) cuda_check_at(call, #call, __FILE__, __LINE__)

template <typename T> __device__ __forceinline__ T *shared_memory() {
    extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];
    return reinterpret_cast<T *>(dynamic_shared_memory);
}

inline void (*launch_hook)(const char *name, cudaStream_t stream);

/* CUDA gives a block more than 48 KiB of shared memory only if this has been set for its kernel. It is set once for
   each device, and again if a later launch needs more. `granted` is shared by all kernels with the same parameters. */
template <typename... Parameters> cudaError_t shared_memory_ask(void (*kernel)(Parameters...), size_t bytes) {
    struct Granted {
        void (*kernel)(Parameters...);
        int device;
        size_t bytes;
    };
    static std::vector<Granted> granted;
    int device;
    cudaError_t error = cudaGetDevice(&device);
    if (error != cudaSuccess) return error;
    Granted *own = nullptr;
    for (Granted &g : granted)
        if (g.kernel == kernel && g.device == device) own = &g;
    if (own && own->bytes >= bytes) return cudaSuccess;
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (error != cudaSuccess) return error;
    if (own)
        own->bytes = bytes;
    else
        granted.push_back({kernel, device, bytes});
    return cudaSuccess;
}

/* LAUNCH calls this. name: the kernel, as it is written in the code. */
template <typename... Parameters, typename... Arguments>
void launch_at(const char *file, int line, const char *name, void (*kernel)(Parameters...), dim3 grid,
               dim3 block, size_t shared, cudaStream_t stream, Arguments... arguments) {
    cudaError_t error = shared > 48 << 10 ? shared_memory_ask(kernel, shared) : cudaSuccess;
    if (error == cudaSuccess) {
        kernel<<<grid, block, shared, stream>>>(arguments...);
        error = cudaGetLastError();
    }
    cuda_check_at(error, name, file, line);
    if (launch_hook) launch_hook(name, stream);
}

static inline void *device_malloc(size_t bytes) {
    void *memory = nullptr;
    cuda_check(cudaMalloc(&memory, bytes ? bytes : 1));
    return memory;
}
static inline void device_free(void *memory) { cuda_check(cudaFree(memory)); }
static inline void *pinned_malloc(size_t bytes) {
    void *memory = nullptr;
    cuda_check(cudaMallocHost(&memory, bytes));
    return memory;
}
static inline void pinned_free(void *memory) { cuda_check(cudaFreeHost(memory)); }
static inline void device_zero(void *memory, size_t bytes, cudaStream_t stream) {
    cuda_check(cudaMemsetAsync(memory, 0, bytes, stream));
}
static inline void copy_to_device(void *to, const void *from, size_t bytes, cudaStream_t stream) {
    cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream));
}
/* The host waits for the stream, so the bytes have arrived when this returns. */
static inline void copy_to_host(void *to, const void *from, size_t bytes, cudaStream_t stream) {
    cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream));
    cuda_check(cudaStreamSynchronize(stream));
}
static inline void copy_on_device(void *to, const void *from, size_t bytes, cudaStream_t stream) {
    cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream));
}
static inline void device_wait(cudaStream_t stream) { cuda_check(cudaStreamSynchronize(stream)); }
static inline size_t shared_memory_most() {
    int device, bytes;
    cuda_check(cudaGetDevice(&device));
    cuda_check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    return (size_t)bytes;
}

static inline int device_multiprocessors() {
    static int count;
    int device;
    if (count > 0) return count;
    cuda_check(cudaGetDevice(&device));
    cuda_check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    return count;
}

/* Returns a stream of the highest priority: where kernels of two streams could run, its kernels go first. It is for
   short kernels for which others wait. */
static inline cudaStream_t stream_create() {
    cudaStream_t stream;
    int lowest, highest;
    cuda_check(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
    cuda_check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, highest));
    return stream;
}
static inline void stream_destroy(cudaStream_t stream) { cuda_check(cudaStreamDestroy(stream)); }
static inline void stream_wait(cudaStream_t later, cudaStream_t earlier) {
    cudaEvent_t event; /* may be destroyed at once, since CUDA keeps it until it has happened */
    cuda_check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    cuda_check(cudaEventRecord(event, earlier));
    cuda_check(cudaStreamWaitEvent(later, event, 0));
    cuda_check(cudaEventDestroy(event));
}

static inline cudaEvent_t event_create() {
    cudaEvent_t event;
    cuda_check(cudaEventCreate(&event));
    return event;
}
static inline void event_destroy(cudaEvent_t event) { cuda_check(cudaEventDestroy(event)); }
static inline void event_record(cudaEvent_t event, cudaStream_t stream) {
    cuda_check(cudaEventRecord(event, stream));
}
static inline bool event_done(cudaEvent_t event) {
    const cudaError_t state = cudaEventQuery(event);
    if (state == cudaErrorNotReady)
        cudaGetLastError(); /* CUDA should not record this as an error; if it does, this call clears it */
    else
        cuda_check(state);
    return state == cudaSuccess;
}
static inline void event_wait(cudaEvent_t event) { cuda_check(cudaEventSynchronize(event)); }
static inline double event_seconds(cudaEvent_t from, cudaEvent_t to) {
    float milliseconds;
    cuda_check(cudaEventElapsedTime(&milliseconds, from, to));
    return 1e-3 * (double)milliseconds;
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

/* Returns two numbers, rounded to bf16, in one register, `low` in the low half. */
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
__device__ __forceinline__ float bits_to_float(uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ uint32_t float_to_bits(float x) { return __float_as_uint(x); }

/* Returns 2^x with an error of at most two units in the last place; 0 if x is minus infinity or below -126. */
__device__ __forceinline__ float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Returns log2(x). The absolute error is 2^-22 for x near 1, the relative error 2^-22 for other x. */
__device__ __forceinline__ float fast_log2(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#else

#include "emulate_hopper.h" /* and emulate.h with it */

struct bf16 {
    uint16_t bits;
};

template <typename T> inline T *shared_memory() { return (T *)(void *)emulate::state.shared; }

inline void (*launch_hook)(const char *name, cudaStream_t stream);

template <typename... Parameters, typename... Arguments>
void launch_at(const char *, int, const char *name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
               size_t shared, cudaStream_t stream, Arguments... arguments) {
    emulate::launch(name, grid, block, shared, [=]() { kernel(arguments...); });
    emulate::advance_clock(stream, (double)grid.x * grid.y * grid.z * block.x * block.y * block.z);
    if (launch_hook) launch_hook(name, stream);
}

/* The memory is filled with NaN, so that results show whether a kernel read what has not been written. */
inline void *device_malloc(size_t bytes) {
    void *memory = bytes > emulate::MEMORY ? nullptr : malloc(bytes ? bytes : 1);
    if (!memory) die("emulator: out of memory: %zu bytes; use a smaller --batch", bytes);
    return memset(memory, 0xFF, bytes);
}
inline void device_free(void *memory) { free(memory); }
inline void *pinned_malloc(size_t bytes) {
    emulate::pinned.push_back({(char *)device_malloc(bytes), bytes});
    return emulate::pinned.back().first;
}
inline void pinned_free(void *memory) {
    std::vector<std::pair<char *, size_t>> &all = emulate::pinned;
    for (size_t i = 0; i < all.size(); i++)
        if (all[i].first == memory) all.erase(all.begin() + (long)i--);
    free(memory);
}
inline void device_zero(void *memory, size_t bytes, cudaStream_t) { memset(memory, 0, bytes); }
inline void device_wait(cudaStream_t stream) { emulate::uploads_done(stream, emulate::uploads_begun); }
inline size_t shared_memory_most() { return emulate::MAX_SHARED; }
inline int device_multiprocessors() { return 3; }
inline void copy_to_device(void *to, const void *from, size_t bytes, cudaStream_t stream) {
    emulate::upload(from, bytes, stream);
    memcpy(to, from, bytes);
}
inline void copy_to_host(void *to, const void *from, size_t bytes, cudaStream_t stream) {
    device_wait(stream);
    memcpy(to, from, bytes);
}
inline void copy_on_device(void *to, const void *from, size_t bytes, cudaStream_t) {
    memcpy(to, from, bytes);
}
inline cudaStream_t stream_create() { return 1; }
inline void stream_destroy(cudaStream_t) {}
inline void stream_wait(cudaStream_t later, cudaStream_t earlier) {
    emulate::clock[later] = fmax(emulate::clock[later], emulate::clock[earlier]);
}
inline cudaEvent_t event_create() { return new EmulatedEvent{NAN, 0, 0}; }
inline void event_destroy(cudaEvent_t event) { delete event; }
inline void event_record(cudaEvent_t event, cudaStream_t stream) {
    *event = EmulatedEvent{emulate::clock[stream], stream, emulate::uploads_begun};
}
inline void event_wait(cudaEvent_t event) { emulate::uploads_done(event->stream, event->uploads); }
inline bool event_done(cudaEvent_t event) {
    if (emulate::unfinished > 0) {
        emulate::unfinished--;
        return false;
    }
    event_wait(event);
    return true;
}
inline double event_seconds(cudaEvent_t from, cudaEvent_t to) { return to->time - from->time; }

inline float bits_to_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline uint32_t float_to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline uint16_t round_to_bf16(float x) { /* to the nearest, ties to even, as the hardware does */
    const uint32_t bits = float_to_bits(x);
    if (x != x) return 0x7FFF;
    return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}
inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return bits_to_float((uint32_t)x.bits << 16); }
template <typename T> inline T from_float(float x);
template <> inline float from_float<float>(float x) { return x; }
template <> inline bf16 from_float<bf16>(float x) { return bf16{round_to_bf16(x)}; }
inline uint32_t pack_bf16(float low, float high) {
    return round_to_bf16(low) | (uint32_t)round_to_bf16(high) << 16;
}
inline float fast_exp2(float x) { return x < -126 ? 0 : exp2f(x); }
inline float fast_log2(float x) { return log2f(x); }

#endif

#define LAUNCH(kernel, grid, block, shared, stream, ...)                                                     \
    launch_at(__FILE__, __LINE__, #kernel, kernel, grid, block, shared, stream, __VA_ARGS__)

enum { WARP_SIZE = 32 };

__device__ __forceinline__ float bf16_low(uint32_t pair) { return bits_to_float(pair << 16); }
__device__ __forceinline__ float bf16_high(uint32_t pair) { return bits_to_float(pair & 0xFFFF0000u); }

/* x = WIDTH neighbouring elements, as float; WIDTH is 1, 4 or 8. A kernel is written for any WIDTH. It is launched with
   WIDTH 4 if the length of rows is a multiple of 4, so that a row begins at a multiple of 16 bytes (float) or 8 bytes
   (bf16), and with WIDTH 8 if the length is a multiple of 8, so that a row of bf16 begins at a multiple of 16 bytes. */
template <int WIDTH> __device__ __forceinline__ void load(float (&x)[WIDTH], const float *from) {
    if constexpr (WIDTH == 1)
        x[0] = *from;
    else
        for (int i = 0; i < WIDTH; i += 4) {
            const float4 y = *(const float4 *)(const void *)(from + i);
            x[i] = y.x, x[i + 1] = y.y, x[i + 2] = y.z, x[i + 3] = y.w;
        }
}
/* x = four or eight neighbouring bf16, given as the registers into which they were loaded. */
__device__ __forceinline__ void unpack(float (&x)[4], const uint2 &y) {
    x[0] = bf16_low(y.x), x[1] = bf16_high(y.x), x[2] = bf16_low(y.y), x[3] = bf16_high(y.y);
}
__device__ __forceinline__ void unpack(float (&x)[8], const uint4 &y) {
    x[0] = bf16_low(y.x), x[1] = bf16_high(y.x), x[2] = bf16_low(y.y), x[3] = bf16_high(y.y);
    x[4] = bf16_low(y.z), x[5] = bf16_high(y.z), x[6] = bf16_low(y.w), x[7] = bf16_high(y.w);
}
template <int WIDTH> __device__ __forceinline__ void load(float (&x)[WIDTH], const bf16 *from) {
    if constexpr (WIDTH == 8)
        unpack(x, *(const uint4 *)(const void *)from);
    else if constexpr (WIDTH == 4)
        unpack(x, *(const uint2 *)(const void *)from);
    else
        x[0] = to_float(*from);
}
template <int WIDTH> __device__ __forceinline__ void store(float *to, const float (&x)[WIDTH]) {
    if constexpr (WIDTH == 1)
        *to = x[0];
    else
        for (int i = 0; i < WIDTH; i += 4)
            *(float4 *)(void *)(to + i) = float4{x[i], x[i + 1], x[i + 2], x[i + 3]};
}
template <int WIDTH> __device__ __forceinline__ void store(bf16 *to, const float (&x)[WIDTH]) {
    if constexpr (WIDTH == 8)
        *(uint4 *)(void *)to =
            uint4{pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7])};
    else if constexpr (WIDTH == 4)
        *(uint2 *)(void *)to = uint2{pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3])};
    else
        *to = from_float<bf16>(x[0]);
}

/* Returns a float32 from its two parts. high: the bits of the float32 after rounding to bf16. The lower 16 bits of
   `rest`, a signed number: the bits of the float32 less `high`. */
__device__ __forceinline__ float join_split_float(uint32_t high, uint32_t rest) {
    return bits_to_float(high + (uint32_t)(int32_t)(int16_t)(rest & 0xFFFFu));
}

/* Returns 2^k for an integer k <= 127; 0 if k < -126. */
__device__ __forceinline__ float power_of_two(float k) {
    return bits_to_float((uint32_t)((int)fmaxf(k, -127.0f) + 127) << 23);
}

/* The sum, or the maximum, over the lanes of a warp; every lane gets it. */
__device__ __forceinline__ float warp_sum(float x) {
    for (int mask = WARP_SIZE / 2; mask > 0; mask /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, mask);
    return x;
}
__device__ __forceinline__ double warp_sum(double x) {
    for (int mask = WARP_SIZE / 2; mask > 0; mask /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, mask);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
    for (int mask = WARP_SIZE / 2; mask > 0; mask /= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, mask));
    return x;
}

/* The sum, or the maximum, over the threads of a block; every thread gets it. `scratch`, in shared memory, has one
   element for each warp and may be used again after the call. */
template <typename T> __device__ __forceinline__ T block_sum(T x, T *scratch) {
    const int warp = (int)threadIdx.x / WARP_SIZE, warps = (int)blockDim.x / WARP_SIZE;
    x = warp_sum(x);
    if (threadIdx.x % WARP_SIZE == 0) scratch[warp] = x;
    __syncthreads();
    T sum = 0;
    for (int i = 0; i < warps; i++) sum += scratch[i];
    __syncthreads();
    return sum;
}
__device__ __forceinline__ float block_max(float x, float *scratch) {
    const int warp = (int)threadIdx.x / WARP_SIZE, warps = (int)blockDim.x / WARP_SIZE;
    x = warp_max(x);
    if (threadIdx.x % WARP_SIZE == 0) scratch[warp] = x;
    __syncthreads();
    float largest = scratch[0];
    for (int i = 1; i < warps; i++) largest = fmaxf(largest, scratch[i]);
    __syncthreads();
    return largest;
}

/* Launches kernel<S, 4> if `wide`, else kernel<S, 1>: see load above. */
#define LAUNCH_WIDE(wide, kernel, S, ...)                                                                    \
    do {                                                                                                     \
        if (wide)                                                                                            \
            LAUNCH((kernel<S, 4>), __VA_ARGS__);                                                             \
        else                                                                                                 \
            LAUNCH((kernel<S, 1>), __VA_ARGS__);                                                             \
    } while (0)

/* Returns n / each, rounded up. */
static inline unsigned blocks_for(int64_t n, int64_t each) { return (unsigned)((n + each - 1) / each); }

#endif
