/* attention_plain.cuh: attention row by row, as the formulas stand: each row takes its own maximum, so any range of
   values is fine, and nothing is fast. It is the float32 path, the path of head sizes without tensor-core kernels, and
   what laser.cuh leaves to it: the rows of LASER's wild columns (see there), on top of what the fast kernels wrote.

   attention_plain_forward(out, exact, lse, q, k, v, columns, head_wild, blocks, sizes, stream)
   attention_plain_backward(dq, dk, dv, dout, q, k, v, out, exact, lse, columns, head_wild, blocks, sizes, stream)
   head_wild NULL: all rows of all columns, results are written (=). Else (B, H): only rows from head_wild on, and of
   those only columns with wild_from <= row: forward overwrites them, backward adds their share (+=).
   Shared memory holds a row of scores: T floats forward, 2 T backward. */
#ifndef CUDA_ATTENTION_PLAIN_CUH
#define CUDA_ATTENTION_PLAIN_CUH

#include "device.h"
extern "C" {
#include "../laser.h"
}

struct AttentionSizes {
    int B, T, H, D;
    int64_t qkv_row, out_row; /* elements from one token to the next */
    float scale;              /* of the scores */
    AttentionKind kind;
    LaserShift shift;
};

/* What LASER needs to know of a column of V of a head, (B, H, D) of them. */
struct alignas(16) Column {
    float shift;   /* n: forward scales exp(v) by 2^-n */
    float center;  /* m: backward takes exp(v - m) */
    float floor;   /* the least o that the paper's shift leaves; it passes no gradient */
    int wild_from; /* the first key that the fast path cannot hold; T if there is none */
};

/* Within exp(+-30) of v_0 the products of backward, exp(60) at most, stay far inside of float32. */
#define LASER_WINDOW 30.0f
#define LASER_LEAST 7.888609052e-31f /* 2^-100 */
#define LASER_LOG2E_HIGH 1.44269502f
#define LASER_LOG2E_LOW 1.92596303e-8f
#define LASER_LN2_HIGH_PART 0.693359375f
#define LASER_LN2_LOW_PART -2.12194440e-4f

/* log(x 2^n) */
__device__ __forceinline__ float laser_log(float x, float n) {
    return n * LASER_LN2_HIGH_PART + (n * LASER_LN2_LOW_PART + logf(x));
}

/* v0: the first value of the column; least, most: of those inside of the window (with the paper's shift, all). */
__device__ __forceinline__ Column laser_column(float v0, float least, float most, int wild_from,
                                               const AttentionSizes &s) {
    Column c = {rintf(v0 * LASER_LOG2E_HIGH), fminf(0.5f * least + 0.5f * most, least + 1), -INFINITY,
                wild_from};
    if (s.shift == LASER_SHIFT_SEQUENCE) {
        c.shift = ceilf(most * LASER_LOG2E_HIGH);
        c.center = fmaxf(c.center, most - 69);
        c.floor = laser_log(LASER_LEAST, c.shift);
        c.floor += 1e-5f + 1e-6f * fabsf(c.floor); /* more than its rounding */
    }
    return c;
}

template <typename T> __device__ __forceinline__ float attention_dot(const T *x, const T *y, int D) {
    float sum = 0;
    for (int d = 0; d < D; d++) sum += to_float(x[d]) * to_float(y[d]);
    return sum;
}

/* Scores of row i into score (i + 1) less their maximum; returns the sum of their exponentials. */
template <typename T>
__device__ __forceinline__ float plain_scores(float *score, float *scratch, const T *q, const T *k, int i,
                                              const AttentionSizes &s, float *largest) {
    float most = -INFINITY, sum = 0;
    for (int j = (int)threadIdx.x; j <= i; j += (int)blockDim.x) {
        score[j] = attention_dot(q + i * s.qkv_row, k + j * s.qkv_row, s.D) * s.scale;
        most = fmaxf(most, score[j]);
    }
    most = block_max(most, scratch);
    for (int j = (int)threadIdx.x; j <= i; j += (int)blockDim.x) {
        score[j] -= most;
        sum += expf(score[j]);
    }
    *largest = most;
    return block_sum(sum, scratch);
}

/* Whether the plain path has to do row i of a column. */
__device__ __forceinline__ bool plain_takes(const Column *column, bool whole, int i) {
    return whole || i >= column->wild_from;
}

/* One block: rows blockIdx.x, blockIdx.x + gridDim.x, ... of a head. */
template <typename T>
__global__ void plain_forward_kernel(T *out, float *exact, float *lse, const T *q, const T *k, const T *v,
                                     const Column *columns, const int *head_wild, AttentionSizes s) {
    float *scratch = shared_memory<float>(), *score = scratch + WARP_SIZE;
    const int h = (int)blockIdx.y, b = (int)blockIdx.z, D = s.D;
    const int64_t head = (int64_t)b * s.H + h, in = (int64_t)b * s.T * s.qkv_row + h * D;
    const bool laser = s.kind == ATTENTION_LASER, whole = head_wild == nullptr;
    for (int i = (whole ? 0 : head_wild[head]) + (int)blockIdx.x; i < s.T; i += (int)gridDim.x) {
        float largest;
        const float sum = plain_scores(score, scratch, q + in, k + in, i, s, &largest);
        if (whole && threadIdx.x == 0) lse[head * s.T + i] = largest + logf(sum);
        for (int d = (int)threadIdx.x; d < D; d += (int)blockDim.x) {
            const int64_t at = ((int64_t)b * s.T + i) * s.out_row + h * D + d;
            const T *column = v + in + d;
            float o = 0, most = -INFINITY;
            if (laser) {
                if (!plain_takes(columns + head * D + d, whole, i)) continue;
                for (int j = 0; j <= i; j++) most = fmaxf(most, score[j] + to_float(column[j * s.qkv_row]));
                for (int j = 0; j <= i; j++) o += expf(score[j] + to_float(column[j * s.qkv_row]) - most);
                o = most + (logf(o) - logf(sum));
                if (s.shift == LASER_SHIFT_SEQUENCE)
                    o = fmaxf(o, laser_log(LASER_LEAST, columns[head * D + d].shift));
                exact[at] = o;
            } else {
                for (int j = 0; j <= i; j++) o += expf(score[j]) * to_float(column[j * s.qkv_row]);
                o /= sum;
            }
            out[at] = from_float<T>(o);
        }
        __syncthreads();
    }
}

/* ds_ij / a_ij of one column is do expm1(v - o), LASER, or do (v - o); this is do times it and a, a = exp(log_a). */
__device__ __forceinline__ float plain_slope(float log_a, float distance, bool laser) {
    if (!laser) return expf(log_a) * distance;
    return distance < 60 ? expf(log_a) * expm1f(distance) : expf(log_a + distance) - expf(log_a);
}

/* ds_ij of a query, whose dout and out begin at `row`, and a key, whose v begins at `key`, over the columns (of the head,
   from `column` on) that the plain path does; and nothing from the floor. */
template <typename T>
__device__ __forceinline__ float plain_ds(const T *dout, const T *out, const float *exact, int64_t row,
                                          const T *v, int64_t key, const Column *columns, int64_t column,
                                          float log_a, int i, bool whole, const AttentionSizes &s) {
    const bool laser = s.kind == ATTENTION_LASER;
    float ds = 0;
    for (int d = 0; d < s.D; d++) {
        const float o = laser ? exact[row + d] : to_float(out[row + d]);
        if (laser && (!plain_takes(columns + column + d, whole, i) || o <= columns[column + d].floor))
            continue;
        ds += to_float(dout[row + d]) * plain_slope(log_a, to_float(v[key + d]) - o, laser);
    }
    return ds;
}

/* dq of some rows of a head. */
template <typename T>
__global__ void plain_queries_kernel(T *dq, const T *dout, const T *q, const T *k, const T *v, const T *out,
                                     const float *exact, const Column *columns, const int *head_wild,
                                     AttentionSizes s) {
    float *scratch = shared_memory<float>(), *score = scratch + WARP_SIZE, *ds = score + s.T;
    const int h = (int)blockIdx.y, b = (int)blockIdx.z, D = s.D;
    const int64_t head = (int64_t)b * s.H + h, in = (int64_t)b * s.T * s.qkv_row + h * D;
    const bool whole = head_wild == nullptr;
    for (int i = (whole ? 0 : head_wild[head]) + (int)blockIdx.x; i < s.T; i += (int)gridDim.x) {
        const int64_t row = ((int64_t)b * s.T + i) * s.out_row + h * D;
        float largest;
        const float log_sum = logf(plain_scores(score, scratch, q + in, k + in, i, s, &largest));
        for (int j = (int)threadIdx.x; j <= i; j += (int)blockDim.x)
            ds[j] = i == 0 ? 0
                           : plain_ds(dout, out, exact, row, v, in + j * s.qkv_row, columns, head * D,
                                      score[j] - log_sum, i, whole, s);
        __syncthreads();
        for (int d = (int)threadIdx.x; d < D; d += (int)blockDim.x) {
            T *to = dq + in + i * s.qkv_row + d;
            float sum = 0;
            for (int j = 0; j <= i; j++) sum += ds[j] * to_float(k[in + j * s.qkv_row + d]);
            *to = from_float<T>((whole ? 0 : to_float(*to)) + s.scale * sum);
        }
        __syncthreads();
    }
}

/* dk and dv of some keys of a head. */
template <typename T>
__global__ void plain_keys_kernel(T *dk, T *dv, const T *dout, const T *q, const T *k, const T *v,
                                  const T *out, const float *exact, const float *lse, const Column *columns,
                                  const int *head_wild, AttentionSizes s) {
    float *log_a = shared_memory<float>(), *ds = log_a + s.T;
    const int h = (int)blockIdx.y, b = (int)blockIdx.z, D = s.D;
    const int64_t head = (int64_t)b * s.H + h, in = (int64_t)b * s.T * s.qkv_row + h * D;
    const int64_t out_head = (int64_t)b * s.T * s.out_row + h * D;
    const bool whole = head_wild == nullptr, laser = s.kind == ATTENTION_LASER;
    const int start = whole ? 0 : head_wild[head];
    if (start >= s.T) return;
    for (int j = (int)blockIdx.x; j < s.T; j += (int)gridDim.x) {
        const int first = max(j, start); /* query */
        for (int i = first + (int)threadIdx.x; i < s.T; i += (int)blockDim.x) {
            const int64_t row = out_head + i * s.out_row;
            log_a[i] = attention_dot(q + in + i * s.qkv_row, k + in + j * s.qkv_row, D) * s.scale -
                       lse[head * s.T + i];
            ds[i] = i == 0 ? 0
                           : plain_ds(dout, out, exact, row, v, in + j * s.qkv_row, columns, head * D,
                                      log_a[i], i, whole, s);
        }
        __syncthreads();
        for (int d = (int)threadIdx.x; d < D; d += (int)blockDim.x) {
            const int64_t at = in + j * s.qkv_row + d;
            float dk_sum = 0, dv_sum = 0;
            for (int i = first; i < s.T; i++) {
                const int64_t row = out_head + i * s.out_row + d;
                dk_sum += ds[i] * to_float(q[in + i * s.qkv_row + d]);
                if (!laser) dv_sum += to_float(dout[row]) * expf(log_a[i]);
                if (!laser || !plain_takes(columns + head * D + d, whole, i)) continue;
                if (exact[row] <= columns[head * D + d].floor) continue;
                dv_sum += to_float(dout[row]) * expf(fminf(log_a[i] + to_float(v[at]) - exact[row], 0.0f));
            }
            dk[at] = from_float<T>((whole ? 0 : to_float(dk[at])) + s.scale * dk_sum);
            dv[at] = from_float<T>((whole ? 0 : to_float(dv[at])) + dv_sum);
        }
        __syncthreads();
    }
}

enum { PLAIN_THREADS = 128 };

static inline size_t plain_bytes(const AttentionSizes &s, int rows) {
    return ((size_t)rows * s.T + WARP_SIZE) * sizeof(float);
}

/* Whether this GPU can do both directions. */
static inline bool plain_fits(const AttentionSizes &s) { return plain_bytes(s, 2) <= shared_memory_most(); }

static inline size_t plain_shared(const AttentionSizes &s, int rows) {
    const size_t bytes = plain_bytes(s, rows), most = shared_memory_most();
    if (bytes > most)
        die("attention without tensor cores (--dtype=fp32, a head size other than 32, 64, 128, or values "
            "beyond LASER's "
            "window) holds a row of scores in shared memory: --seq-len=%d needs %zu bytes, there are %zu; "
            "use a shorter one",
            s.T, bytes, most);
    return bytes;
}

template <typename T>
void attention_plain_forward(T *out, float *exact, float *lse, const T *q, const T *k, const T *v,
                             const Column *columns, const int *head_wild, int blocks, const AttentionSizes &s,
                             cudaStream_t stream) {
    LAUNCH(plain_forward_kernel<T>, dim3((unsigned)blocks, (unsigned)s.H, (unsigned)s.B), dim3(PLAIN_THREADS),
           plain_shared(s, 1), stream, out, exact, lse, q, k, v, columns, head_wild, s);
}

template <typename T>
void attention_plain_backward(T *dq, T *dk, T *dv, const T *dout, const T *q, const T *k, const T *v,
                              const T *out, const float *exact, const float *lse, const Column *columns,
                              const int *head_wild, int blocks, const AttentionSizes &s,
                              cudaStream_t stream) {
    const dim3 grid((unsigned)blocks, (unsigned)s.H, (unsigned)s.B);
    LAUNCH(plain_queries_kernel<T>, grid, dim3(PLAIN_THREADS), plain_shared(s, 2), stream, dq, dout, q, k, v,
           out, exact, columns, head_wild, s);
    LAUNCH(plain_keys_kernel<T>, grid, dim3(PLAIN_THREADS), plain_shared(s, 2), stream, dk, dv, dout, q, k, v,
           out, exact, lse, columns, head_wild, s);
}

#endif
