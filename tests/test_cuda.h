/* test_cuda.h: what the tests of the GPU's kernels share: buffers on the device, numbers rounded to the type in which
   they are stored, and measures of errors. The same tests run on a GPU (compiled by nvcc: make test_gpu) and,
   emulated, on the CPU. */
#ifndef TESTS_TEST_CUDA_H
#define TESTS_TEST_CUDA_H

#include "../cuda/device.h"
#include "harness.h"
#include <string>
#include <vector>

/* An array of n elements on the device, which is freed at the end of the object's life. */
template <typename T> struct Buffer {
    T *data;
    size_t n;
    explicit Buffer(size_t count) : data((T *)device_malloc(count * sizeof(T))), n(count) {}
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    ~Buffer() { device_free(data); }
};

/* On the host: returns x as it is stored in an array of T; and the value of an element of such an array. */
template <typename T> inline T host_round(float x);
template <> inline float host_round<float>(float x) { return x; }
template <> inline bf16 host_round<bf16>(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint16_t high = (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
    bf16 y;
    memcpy((void *)&y, &high, sizeof y);
    return y;
}
inline float host_float(float x) { return x; }
inline float host_float(bf16 x) {
    uint16_t high;
    memcpy(&high, (const void *)&x, sizeof high);
    const uint32_t bits = (uint32_t)high << 16;
    float y;
    memcpy(&y, &bits, sizeof y);
    return y;
}

typedef std::vector<float> Floats;
typedef std::vector<double> Doubles;

/* Returns n normally distributed numbers. */
inline Floats normal_floats(size_t n, double deviation, uint64_t seed) {
    Floats x(n);
    for (size_t i = 0; i < n; i++) x[i] = (float)(deviation * rng_normal(seed, RNG_STREAM_TEST, i));
    return x;
}

/* Rounds the numbers of x to T in place and copies them to the device. */
template <typename T> inline void upload(Buffer<T> &to, Floats &x) {
    if (x.empty()) return;
    std::vector<T> stored(x.size());
    for (size_t i = 0; i < x.size(); i++) {
        stored[i] = host_round<T>(x[i]);
        x[i] = host_float(stored[i]);
    }
    copy_to_device(to.data, stored.data(), x.size() * sizeof(T), 0);
    device_wait(0);
}

/* Returns the elements of a buffer as float. */
template <typename T> inline Floats download(const Buffer<T> &from) {
    std::vector<T> stored(from.n);
    copy_to_host(stored.data(), from.data, from.n * sizeof(T), 0);
    Floats x(from.n);
    for (size_t i = 0; i < from.n; i++) x[i] = host_float(stored[i]);
    return x;
}

/* Sets every byte to 0xFF, so that every element is NaN in any type. */
template <typename T> inline void poison(const Buffer<T> &buffer) {
    if (buffer.n == 0) return;
    const std::vector<char> bytes(buffer.n * sizeof(T), (char)0xFF);
    copy_to_device((void *)buffer.data, bytes.data(), bytes.size(), 0);
    device_wait(0);
}

/* A buffer that is filled with given numbers. x: the same numbers on the host, rounded to T. */
template <typename T> struct Input : Buffer<T> {
    Floats x;
    explicit Input(Floats values) : Buffer<T>(values.size()), x(values) { upload(*this, x); }
};

inline Doubles to_doubles(const Floats &x) { return Doubles(x.begin(), x.end()); }

/* Returns the normalised mean squared error. */
inline double error_of(const Floats &got, const Doubles &want) {
    return test_nmse(got.data(), want.data(), want.size());
}

template <typename T> inline const char *type_name();
template <> inline const char *type_name<float>() { return "fp32"; }
template <> inline const char *type_name<bf16>() { return "bf16"; }

#endif
