/* attention_plain.cuh: attention row by row, directly from the formulas: each row takes its own maximum, so values of
   any range are allowed, but nothing is fast. It serves float32, the head sizes without tensor-core kernels, and what
   the fast kernels leave to it: the rows in which a column of LASER's values is out of range (see laser.cuh). In
   those, forward overwrites what the fast kernels wrote, and backward adds to it.

   attention_plain_forward(out, low_bits, lse, q, k, v, columns, sizes, stream)
   attention_plain_backward(dq, dk, dv, dout, q, k, v, out, low_bits, lse, columns, rope_cos_sin, only_out_of_range,
   sizes,
                            stream)
   only_out_of_range: only the rows and columns that LaserColumn.out_of_range_from names are computed, and what they
   contribute is added (+=). Otherwise all rows and columns are computed, and results are written (=). rope_cos_sin:
   rope's table (T, D/2, 2) = cos, sin: dq and dk are then the gradients of q and k before rope rotated them; NULL: of
   q and k as they are given.
   low_bits: see exact_output below.
   Shared memory holds rows of scores: T floats in forward, 2 T in backward. */
#ifndef CUDA_ATTENTION_PLAIN_CUH
#define CUDA_ATTENTION_PLAIN_CUH

#include "device.h"
#include "../gpt/math/attention.h"
#include "../laser.h"

struct AttentionSizes {
    int B, T, H, D;
    int64_t qkv_row, out_row; /* elements from one token to the next */
    float scale;              /* by which scores are multiplied */
    AttentionKind kind;
    LaserShift shift;
};

/* What LASER needs to know about a column of V of a head; there are (B, H, D) of them. */
struct alignas(16) LaserColumn {
    float shift;           /* n: forward scales exp(v) by 2^-n */
    float center;          /* m: backward takes exp(v - m) */
    float floor;           /* the least o that the paper's shift allows; there o passes no gradient */
    int out_of_range_from; /* the first key that the fast kernels cannot hold; T if there is none */
};

/* Where v is within 30 of v_0, the products of backward, exp(60) at most, stay far within the range of float32. */
#define LASER_WINDOW 30.0f
#define LASER_LEAST 7.888609052e-31f /* 2^-100 */
#define LASER_LOG2E_HIGH 1.44269502f
#define LASER_LN2_HIGH_PART 0.693359375f
#define LASER_LN2_LOW_PART -2.12194440e-4f

#define LASER_LN2 0.693147181f

/* Returns log(x 2^n). */
__device__ __forceinline__ float laser_log(float x, float n) {
    return n * LASER_LN2_HIGH_PART + (n * LASER_LN2_LOW_PART + logf(x));
}

/* The same, but with an error of about 2^-22 of the larger of its two terms, which is more than enough where x is a
   sum of bf16. */
__device__ __forceinline__ float fast_laser_log(float x, float n) { return (fast_log2(x) + n) * LASER_LN2; }
/* x, at least `least`; a NaN stays one, which fmaxf would hide. */
__device__ __forceinline__ float laser_at_least(float x, float least) { return x < least ? least : x; }

/* LASER's backward needs exp(-o), for which o in bf16 has too few digits. So beside its output in bf16, `out`,
   forward keeps `low_bits`, the lower 16 bits of the float32 that was rounded. Rounding to bf16 adds one to the upper
   16 bits where the lower ones are more than 2^15. So the float32 has the bits of out, followed by 16 zeros, plus
   low_bits as a signed number. Only lower bits of exactly 2^15 would be ambiguous, as they may be rounded up or down;
   so forward sets the last bit of the float32, a change far below the precision that is needed. */
__device__ __forceinline__ float set_last_bit(float x) { return bits_to_float(float_to_bits(x) | 1); }
/* Sets the last bits of two neighbouring elements and returns their low bits. */
__device__ __forceinline__ uint32_t cut_low_bits(float &x, float &y) {
    x = set_last_bit(x), y = set_last_bit(y);
    return (float_to_bits(x) & 0xFFFFu) | float_to_bits(y) << 16;
}
/* Returns element `at` of the output with the digits of float32. */
__device__ __forceinline__ float exact_output(const float *out, const uint16_t *, int64_t at) {
    return out[at];
}
__device__ __forceinline__ float exact_output(const bf16 *out, const uint16_t *low_bits, int64_t at) {
    return join_split_float(float_to_bits(to_float(out[at])), low_bits[at]);
}

/* Stores element `at` of the output so that exact_output returns it. */
__device__ __forceinline__ void store_exact(float *out, uint16_t *, int64_t at, float x) { out[at] = x; }
__device__ __forceinline__ void store_exact(bf16 *out, uint16_t *low_bits, int64_t at, float x) {
    x = set_last_bit(x);
    out[at] = from_float<bf16>(x);
    low_bits[at] = (uint16_t)float_to_bits(x);
}

/* Returns the LaserColumn of a column whose first value is v0. minimum, maximum: the least and the largest of its
   values within the window or, with the paper's shift, of all its values. */
__device__ __forceinline__ LaserColumn laser_column(float v0, float minimum, float maximum,
                                                    int out_of_range_from, const AttentionSizes &s) {
    LaserColumn c = {rintf(v0 * LASER_LOG2E_HIGH), fminf(0.5f * minimum + 0.5f * maximum, minimum + 1),
                     -INFINITY, out_of_range_from};
    if (s.shift == LASER_SHIFT_SEQUENCE) {
        c.shift = ceilf(maximum * LASER_LOG2E_HIGH);
        c.center = fmaxf(c.center, maximum - 69);
        c.floor = laser_log(LASER_LEAST, c.shift);
        c.floor += 1e-5f + 1e-6f * fabsf(c.floor); /* more than its rounding error */
    }
    return c;
}

/* Returns the number of floats of shared memory that a row of scores takes. Compilers read such rows as vectors, also
   beyond the last number that a loop needs; so each row ends with some unused floats, and the next begins at a
   multiple of 16 bytes. */
__host__ __device__ __forceinline__ int plain_row(const AttentionSizes &s) { return (s.T + 3) / 4 * 4 + 4; }

/* Returns the dot product of x (D) and y (D). */
template <typename S> __device__ __forceinline__ float attention_dot(const S *x, const S *y, int D) {
    float sum = 0;
    for (int d = 0; d < D; d++) sum += to_float(x[d]) * to_float(y[d]);
    return sum;
}

/* Writes the scores of row i less their maximum to score (i + 1); returns the sum of their exponentials. */
template <typename S>
__device__ __forceinline__ float plain_scores(float *score, float *scratch, const S *q, const S *k, int i,
                                              const AttentionSizes &s, float *largest) {
    float maximum = -INFINITY, sum = 0;
    for (int j = (int)threadIdx.x; j <= i; j += (int)blockDim.x) {
        score[j] = attention_dot(q + i * s.qkv_row, k + j * s.qkv_row, s.D) * s.scale;
        maximum = fmaxf(maximum, score[j]);
    }
    maximum = block_max(maximum, scratch);
    for (int j = (int)threadIdx.x; j <= i; j += (int)blockDim.x) {
        score[j] -= maximum;
        sum += expf(score[j]);
    }
    *largest = maximum;
    return block_sum(sum, scratch);
}

/* Returns the least of all threads' x. scratch has one element for each warp. A float holds every row number up to 2^24
   exactly. */
__device__ __forceinline__ int block_min(int x, float *scratch) {
    return -(int)block_max((float)-x, scratch);
}

/* Returns the first row of a head in which some column is out of range; T if there is none. All threads of the block
   call it; scratch has one element for each warp. */
__device__ __forceinline__ int first_out_of_range(const LaserColumn *head_columns, float *scratch,
                                                  const AttentionSizes &s) {
    int first = s.T;
    for (int d = (int)threadIdx.x; d < s.D; d += (int)blockDim.x)
        first = min(first, head_columns[d].out_of_range_from);
    return block_min(first, scratch);
}

/* Returns whether row i of a column is to be computed here. */
__device__ __forceinline__ bool plain_computes(const LaserColumn *column, bool whole, int i) {
    return whole || i >= column->out_of_range_from;
}

/* Computes forward's rows first, first + step, ... of head (b, h), by all threads of a block. If `whole`, all columns
   and lse are written, otherwise only the columns that are out of range. */
template <typename S>
__device__ void plain_forward_rows(S *out, uint16_t *low_bits, float *lse, const S *q, const S *k, const S *v,
                                   const LaserColumn *columns, bool whole, int b, int h, int first, int step,
                                   const AttentionSizes &s) {
    float *scratch = shared_memory<float>(), *score = scratch + WARP_SIZE;
    const int D = s.D;
    const int64_t head = (int64_t)b * s.H + h, in = (int64_t)b * s.T * s.qkv_row + h * D;
    const bool laser = s.kind == ATTENTION_LASER;
    for (int i = first; i < s.T; i += step) {
        float largest;
        const float sum = plain_scores(score, scratch, q + in, k + in, i, s, &largest);
        if (whole && threadIdx.x == 0) lse[head * s.T + i] = largest + logf(sum);
        for (int d = (int)threadIdx.x; d < D; d += (int)blockDim.x) {
            const int64_t at = ((int64_t)b * s.T + i) * s.out_row + h * D + d;
            const S *column = v + in + d;
            float o = 0, maximum = -INFINITY;
            if (laser) {
                if (!plain_computes(columns + head * D + d, whole, i)) continue;
                for (int j = 0; j <= i; j++)
                    maximum = fmaxf(maximum, score[j] + to_float(column[j * s.qkv_row]));
                for (int j = 0; j <= i; j++) o += expf(score[j] + to_float(column[j * s.qkv_row]) - maximum);
                o = maximum + (logf(o) - logf(sum));
                if (s.shift == LASER_SHIFT_SEQUENCE)
                    o = fmaxf(o, laser_log(LASER_LEAST, columns[head * D + d].shift));
                store_exact(out, low_bits, at, o);
            } else {
                for (int j = 0; j <= i; j++) o += expf(score[j]) * to_float(column[j * s.qkv_row]);
                out[at] = from_float<S>(o / sum);
            }
        }
        __syncthreads();
    }
}

/* A block computes rows blockIdx.x, blockIdx.x + gridDim.x, ... of a head. */
template <typename S>
__global__ void plain_forward_kernel(S *out, uint16_t *low_bits, float *lse, const S *q, const S *k,
                                     const S *v, const LaserColumn *columns, AttentionSizes s) {
    plain_forward_rows(out, low_bits, lse, q, k, v, columns, true, (int)blockIdx.z, (int)blockIdx.y,
                       (int)blockIdx.x, (int)gridDim.x, s);
}

/* One column's part of ds_ij / a_ij is do expm1(v - o) for LASER, else do (v - o). This returns a times the factor of
   do, where a = exp(log_a) and distance = v - o. */
__device__ __forceinline__ float plain_slope(float log_a, float distance, bool laser) {
    if (!laser) return expf(log_a) * distance;
    return distance < 60 ? expf(log_a) * expm1f(distance) : expf(log_a + distance) - expf(log_a);
}

/* Returns ds_ij of a query, whose dout and out begin at `row`, and of a key, whose v begins at `key`: the sum over
   the columns that are computed here. The head's LaserColumns begin at `column`. Outputs at the floor contribute
   nothing. */
template <typename S>
__device__ __forceinline__ float plain_ds(const S *dout, const S *out, const uint16_t *low_bits, int64_t row,
                                          const S *v, int64_t key, const LaserColumn *columns, int64_t column,
                                          float log_a, int i, bool whole, const AttentionSizes &s) {
    const bool laser = s.kind == ATTENTION_LASER;
    float ds = 0;
    for (int d = 0; d < s.D; d++) {
        const float o = laser ? exact_output(out, low_bits, row + d) : to_float(out[row + d]);
        if (laser && (!plain_computes(columns + column + d, whole, i) || o <= columns[column + d].floor))
            continue;
        ds += to_float(dout[row + d]) * plain_slope(log_a, to_float(v[key + d]) - o, laser);
    }
    return ds;
}

/* Rope's backward. Rope has rotated the pair (d, d + D/2) of token t; of(d) is element d of the gradient after the
   rotation. Returns element d of the gradient before the rotation. */
template <typename Of>
__device__ __forceinline__ float rope_rotated_back(Of of, int d, const float *rope_cos_sin, int t, int D) {
    if (!rope_cos_sin) return of(d);
    const int half = D / 2, pair = d % half;
    const float cosine = rope_cos_sin[(int64_t)t * D + 2 * pair],
                sine = rope_cos_sin[(int64_t)t * D + 2 * pair + 1];
    return d < half ? of(d) * cosine + of(d + half) * sine : of(d) * cosine - of(d - half) * sine;
}

/* The same for two neighbouring pairs in one thread: left[i] is element d + i, right[i] is element d + i + D/2; table
   points to the entry of `rope_cos_sin` for the token and d. */
__device__ __forceinline__ void rope_rotate_back(float (&left)[2], float (&right)[2], const float *table) {
    const float4 angle = *(const float4 *)(const void *)table; /* cos, sin, cos, sin */
    const float l0 = left[0], l1 = left[1];
    left[0] = l0 * angle.x + right[0] * angle.y, right[0] = right[0] * angle.x - l0 * angle.y;
    left[1] = l1 * angle.z + right[1] * angle.w, right[1] = right[1] * angle.z - l1 * angle.w;
}

/* Computes dq of rows first, first + step, ... of head (b, h), by all threads of a block. */
template <typename S>
__device__ void plain_queries(S *dq, const S *dout, const S *q, const S *k, const S *v, const S *out,
                              const uint16_t *low_bits, const LaserColumn *columns, const float *rope_cos_sin,
                              bool whole, int b, int h, int first, int step, const AttentionSizes &s) {
    float *scratch = shared_memory<float>(), *score = scratch + WARP_SIZE, *ds = score + plain_row(s);
    const int D = s.D;
    const int64_t head = (int64_t)b * s.H + h, in = (int64_t)b * s.T * s.qkv_row + h * D;
    for (int i = first; i < s.T; i += step) {
        const int64_t row = ((int64_t)b * s.T + i) * s.out_row + h * D;
        float largest;
        const float log_sum = logf(plain_scores(score, scratch, q + in, k + in, i, s, &largest));
        for (int j = (int)threadIdx.x; j <= i; j += (int)blockDim.x)
            ds[j] = i == 0 ? 0
                           : plain_ds(dout, out, low_bits, row, v, in + j * s.qkv_row, columns, head * D,
                                      score[j] - log_sum, i, whole, s);
        __syncthreads();
        auto sum_over_keys = [&](int d) {
            float sum = 0;
            for (int j = 0; j <= i; j++) sum += ds[j] * to_float(k[in + j * s.qkv_row + d]);
            return s.scale * sum;
        };
        for (int d = (int)threadIdx.x; d < D; d += (int)blockDim.x) {
            S *to = dq + in + i * s.qkv_row + d;
            *to = from_float<S>((whole ? 0 : to_float(*to)) +
                                rope_rotated_back(sum_over_keys, d, rope_cos_sin, i, D));
        }
        __syncthreads();
    }
}

/* Computes dk and dv of keys first, first + step, ... of head (b, h), from queries `start` on, by all threads of a
   block. */
template <typename S>
__device__ void plain_keys(S *dk, S *dv, const S *dout, const S *q, const S *k, const S *v, const S *out,
                           const uint16_t *low_bits, const float *lse, const LaserColumn *columns,
                           const float *rope_cos_sin, bool whole, int b, int h, int start, int first,
                           int step, const AttentionSizes &s) {
    float *log_a = shared_memory<float>() + WARP_SIZE, *ds = log_a + plain_row(s);
    const int D = s.D;
    const int64_t head = (int64_t)b * s.H + h, in = (int64_t)b * s.T * s.qkv_row + h * D;
    const int64_t out_head = (int64_t)b * s.T * s.out_row + h * D;
    const bool laser = s.kind == ATTENTION_LASER;
    for (int j = first; j < s.T; j += step) {
        const int query = max(j, start);
        for (int i = query + (int)threadIdx.x; i < s.T; i += (int)blockDim.x) {
            const int64_t row = out_head + i * s.out_row;
            log_a[i] = attention_dot(q + in + i * s.qkv_row, k + in + j * s.qkv_row, D) * s.scale -
                       lse[head * s.T + i];
            ds[i] = i == 0 ? 0
                           : plain_ds(dout, out, low_bits, row, v, in + j * s.qkv_row, columns, head * D,
                                      log_a[i], i, whole, s);
        }
        __syncthreads();
        auto sum_over_queries = [&](int d) {
            float sum = 0;
            for (int i = query; i < s.T; i++) sum += ds[i] * to_float(q[in + i * s.qkv_row + d]);
            return s.scale * sum;
        };
        for (int d = (int)threadIdx.x; d < D; d += (int)blockDim.x) {
            const int64_t at = in + j * s.qkv_row + d;
            float dv_sum = 0;
            for (int i = query; i < s.T; i++) {
                const int64_t row = out_head + i * s.out_row + d;
                if (!laser) {
                    dv_sum += to_float(dout[row]) * expf(log_a[i]);
                    continue;
                }
                const float o = exact_output(out, low_bits, row);
                if (!plain_computes(columns + head * D + d, whole, i) || o <= columns[head * D + d].floor)
                    continue;
                dv_sum += to_float(dout[row]) * expf(fminf(log_a[i] + to_float(v[at]) - o, 0.0f));
            }
            dk[at] = from_float<S>((whole ? 0 : to_float(dk[at])) +
                                   rope_rotated_back(sum_over_queries, d, rope_cos_sin, j, D));
            dv[at] = from_float<S>((whole ? 0 : to_float(dv[at])) + dv_sum);
        }
        __syncthreads();
    }
}

/* Blocks with an even x compute the queries x / 2, x / 2 + gridDim.x / 2, ... of a head, blocks with an odd x the
   keys. */
template <typename S>
__global__ void plain_backward_kernel(S *dq, S *dk, S *dv, const S *dout, const S *q, const S *k, const S *v,
                                      const S *out, const uint16_t *low_bits, const float *lse,
                                      const LaserColumn *columns, const float *rope_cos_sin, bool whole,
                                      AttentionSizes s) {
    const int h = (int)blockIdx.y, b = (int)blockIdx.z, block = (int)blockIdx.x / 2,
              blocks = (int)gridDim.x / 2;
    const int start =
        whole ? 0 : first_out_of_range(columns + ((int64_t)b * s.H + h) * s.D, shared_memory<float>(), s);
    if (start >= s.T) return;
    if (blockIdx.x % 2 == 0)
        plain_queries(dq, dout, q, k, v, out, low_bits, columns, rope_cos_sin, whole, b, h, start + block,
                      blocks, s);
    else
        plain_keys(dk, dv, dout, q, k, v, out, low_bits, lse, columns, rope_cos_sin, whole, b, h, start,
                   block, blocks, s);
}

enum { PLAIN_THREADS = 128 };
/* Where only rows out of range are computed, of which there are usually none: the number of blocks for a head, and the
   number of their threads. */
enum { PLAIN_FEW_BLOCKS = 4, PLAIN_FEW_THREADS = 128 };

/* Returns the bytes of shared memory for so many rows of scores. */
static inline size_t plain_bytes(const AttentionSizes &s, int rows) {
    return ((size_t)rows * (size_t)plain_row(s) + WARP_SIZE) * sizeof(float);
}

/* Returns whether this GPU has the shared memory for forward and backward. */
static inline bool plain_fits(const AttentionSizes &s) { return plain_bytes(s, 2) <= shared_memory_most(); }

/* The same as plain_bytes, but ends the program if this GPU does not have so much shared memory. */
static inline size_t plain_shared(const AttentionSizes &s, int rows) {
    const size_t bytes = plain_bytes(s, rows), maximum = shared_memory_most();
    if (bytes > maximum)
        die("attention without tensor cores (--dtype=fp32, a head size other than 32, 64, 128, or values "
            "beyond LASER's range) holds a row of scores in shared memory: --seq-len=%d needs %zu bytes, "
            "there are %zu; use a shorter one",
            s.T, bytes, maximum);
    return bytes;
}

template <typename S>
void attention_plain_forward(S *out, uint16_t *low_bits, float *lse, const S *q, const S *k, const S *v,
                             const LaserColumn *columns, const AttentionSizes &s, cudaStream_t stream) {
    LAUNCH(plain_forward_kernel<S>, dim3((unsigned)s.T, (unsigned)s.H, (unsigned)s.B), dim3(PLAIN_THREADS),
           plain_shared(s, 1), stream, out, low_bits, lse, q, k, v, columns, s);
}

template <typename S>
void attention_plain_backward(S *dq, S *dk, S *dv, const S *dout, const S *q, const S *k, const S *v,
                              const S *out, const uint16_t *low_bits, const float *lse,
                              const LaserColumn *columns, const float *rope_cos_sin, bool only_out_of_range,
                              const AttentionSizes &s, cudaStream_t stream) {
    const unsigned blocks = 2 * (unsigned)(only_out_of_range ? PLAIN_FEW_BLOCKS : s.T);
    LAUNCH(plain_backward_kernel<S>, dim3(blocks, (unsigned)s.H, (unsigned)s.B),
           dim3(only_out_of_range ? (unsigned)PLAIN_FEW_THREADS : (unsigned)PLAIN_THREADS),
           plain_shared(s, 2), stream, dq, dk, dv, dout, q, k, v, out, low_bits, lse, columns, rope_cos_sin,
           !only_out_of_range, s);
}

#endif
