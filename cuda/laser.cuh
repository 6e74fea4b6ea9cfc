/* laser.cuh: what LASER adds to attention on tensor cores, and the pass over rows with which the backward of both
   kinds of attention begins. The kernels of attention_mma.cuh and attention_hopper.cuh share it.

   LASER is standard attention on V' = exp(V), then a logarithm, so its matrix products are those of standard
   attention. A separate kernel computes V' once, instead of once for each tile of queries:
   - Shift. Column d is scaled by 2^-n_d. A power of two changes no digit. n_d is v_0d log2(e), rounded, where key 0
     is the one key that every row sees; with the paper's shift n_d follows the column's maximum over the sequence.
   - Precision. For small v, exp(v) rounded to bf16 would be 1 and little else. So forward multiplies the weights by
     V' less a center of each tile of keys, a difference that is as small as v, and adds the center times the row's
     sum of weights in the tile. The center depends on every value of its tile, so a row may use it only if it sees
     the whole tile. So the one tile that lies on the diagonal is multiplied without a center, as the sum of two bf16
     (17 bits).
     Backward multiplies by expm1(x) = exp(x) - 1 with x = v - m_d, where m_d is near the least v of the column; the
     result is as small as x and keeps its digits. Subtracting 1 changes dP by sum_d do exp(m - o), so the number that
     is subtracted from dP (the term of the row) is sum_d do (1 - exp(m - o)) instead of sum_d do.
   - Range. From the first key on whose v is farther than LASER_WINDOW from v_0d, a column is out of range
     (LaserColumn.out_of_range_from): the rows from there on are left to the plain kernels, which take each row's own
     maximum and are slow. Earlier rows do not see that key and keep their bits. In a healthy run no column is out of
     range, and the kernels that look for such rows end at once.

   laser_prepare(...)      forward, before the products: values, centers, and the ranges from which the columns follow
   laser_finish(...)       forward, after the products: columns, and the rows that are out of range
   attention_backward_rows(...)     backward, before the products: the numbers of each query's row that they need */
#ifndef CUDA_LASER_CUH
#define CUDA_LASER_CUH

#include "attention_plain.cuh"

/* In arrays with one number for each query, the row of each head begins at a multiple of this, so that tiles of
   queries can be copied whole. */
enum { ROW_PADDING = 128 };
__host__ __device__ __forceinline__ int padded_rows(const AttentionSizes &s) {
    return (s.T + ROW_PADDING - 1) / ROW_PADDING * ROW_PADDING;
}

/* AttentionWork.rows holds 64 lse, then the terms of the same 64 queries, then the next 64 lse, and so on. row_at(i) is
   where the lse of query i is (i numbers the queries of all heads, with padded rows); its term is ROW_TERM floats
   later. */
enum { ROW_TERM = 64 };
__host__ __device__ __forceinline__ int64_t row_at(int64_t i) { return i + i / ROW_TERM * ROW_TERM; }

/* The values of a column in one tile of keys. */
struct alignas(16) ColumnRange {
    float minimum, maximum; /* the least and the largest value within the window */
    int out_of_range_from;  /* the first key whose value is outside the window; T if there is none */
};

/* Scratch memory of one call of attention_forward or attention_backward. */
struct AttentionWork {
    ColumnRange *ranges; /* (B, H, tiles, D) forward */
    float *centers;      /* (B, H, tiles, D) forward: the centers of V' */
    float *rows; /* backward: for each 64 queries of (B, H, padded T), first 64 numbers lse log2(e), which are
                            infinite past the end, so that weights are zero there; then 64 terms that are subtracted
                            from dP, which are zero past the end */
    bf16 *values;      /* (N, A) LASER's forward: V' less its centers */
    bf16 *scaled_dout; /* (N, A) LASER's backward: do exp(m - o); the same memory as values */
    bf16 *centered_v;  /* (N, A) LASER's backward: expm1(v - m) */
};

/* Returns where the arrays of AttentionWork lie in `memory`, and writes to `bytes`, unless it is NULL, how many bytes
   they take. */
static inline AttentionWork attention_work(void *memory, const AttentionSizes &s, size_t *bytes) {
    enum { LEAST_TILE = 64 };
    const size_t heads = (size_t)s.B * (size_t)s.H, rows = heads * (size_t)padded_rows(s),
                 columns = s.kind == ATTENTION_LASER ? heads * blocks_for(s.T, LEAST_TILE) * (size_t)s.D : 0,
                 values = s.kind == ATTENTION_LASER ? heads * (size_t)s.T * (size_t)s.D : 0;
    size_t used = 0;
    auto take = [&](size_t size) {
        char *at = memory ? (char *)memory + used : nullptr;
        used += (size + 255) / 256 * 256;
        return (void *)at;
    };
    AttentionWork w;
    w.ranges = (ColumnRange *)take(columns * sizeof(ColumnRange));
    w.centers = (float *)take(columns * sizeof(float));
    w.rows = (float *)take(2 * rows * sizeof(float));
    w.values = w.scaled_dout = (bf16 *)take(values * sizeof(bf16));
    w.centered_v = (bf16 *)take(values * sizeof(bf16));
    if (bytes) *bytes = used;
    return w;
}

/* Returns the bytes of scratch memory that one call needs. */
static inline size_t attention_work_bytes(const AttentionSizes &s) {
    size_t bytes;
    attention_work(nullptr, s, &bytes);
    return bytes;
}

/* ---- columns ---- */

/* Computes all of the LaserColumn of every column in one pass over V. Forward calls it for the paper's shift,
   which must be known before the products, and the plain kernels call it too. One block handles a head, each lane
   handles one column, and each of the WARPS warps reads every WARPS-th row. There are few heads, so blocks are as large
   as possible, and each thread starts four loads before it waits for the first. */
enum { LASER_COLUMN_WARPS = 32, LASER_COLUMN_THREADS = LASER_COLUMN_WARPS * WARP_SIZE };

template <typename S>
__global__ void __launch_bounds__(LASER_COLUMN_THREADS)
    laser_columns_kernel(LaserColumn *columns, const S *v, AttentionSizes s) {
    enum { WARPS = LASER_COLUMN_WARPS };
    float *low = shared_memory<float>(), *high = low + WARPS * WARP_SIZE; /* (WARPS, WARP_SIZE) */
    int *outside = (int *)(high + WARPS * WARP_SIZE);
    const int lane = (int)threadIdx.x % WARP_SIZE, warp = (int)threadIdx.x / WARP_SIZE, h = (int)blockIdx.x,
              b = (int)blockIdx.y;
    for (int first = 0; first < s.D; first += WARP_SIZE) {
        const int d = first + lane < s.D ? first + lane : s.D - 1;
        const S *column = v + (int64_t)b * s.T * s.qkv_row + h * s.D + d;
        const float v0 = to_float(column[0]);
        int out_of_range_from = s.T;
        float minimum = v0, maximum = v0; /* of the values within the window */
#pragma unroll 4
        for (int t = warp; t < s.T; t += WARPS) {
            const float x = to_float(column[t * s.qkv_row]);
            if (s.shift == LASER_SHIFT_CAUSAL && !(fabsf(x - v0) <= LASER_WINDOW))
                out_of_range_from = min(out_of_range_from, t);
            else
                minimum = fminf(minimum, x), maximum = fmaxf(maximum, x);
        }
        const int at = warp * WARP_SIZE + lane;
        low[at] = minimum, high[at] = maximum, outside[at] = out_of_range_from;
        __syncthreads();
        for (int w = 0; warp == 0 && w < WARPS; w++) {
            minimum = fminf(minimum, low[w * WARP_SIZE + lane]);
            maximum = fmaxf(maximum, high[w * WARP_SIZE + lane]);
            out_of_range_from = min(out_of_range_from, outside[w * WARP_SIZE + lane]);
        }
        if (warp == 0 && first + lane < s.D)
            columns[((int64_t)b * s.H + h) * s.D + d] =
                laser_column(v0, minimum, maximum, out_of_range_from, s);
        __syncthreads();
    }
}

/* Writes columns (B, H, D). */
template <typename S>
void laser_find_columns(LaserColumn *columns, const S *v, const AttentionSizes &s, cudaStream_t stream) {
    LAUNCH(laser_columns_kernel<S>, dim3((unsigned)s.H, (unsigned)s.B), dim3(LASER_COLUMN_THREADS),
           3 * LASER_COLUMN_THREADS * sizeof(float), stream, columns, v, s);
}

/* Returns the shift n of column d of a head. head_columns (D); head_v: the head's first row of v. */
__device__ __forceinline__ float laser_shift(const LaserColumn *head_columns, const bf16 *head_v, int d,
                                             const AttentionSizes &s) {
    return s.shift == LASER_SHIFT_SEQUENCE ? head_columns[d].shift
                                           : rintf(to_float(head_v[d]) * LASER_LOG2E_HIGH);
}

/* ---- values ---- */

/* Returns exp(v) 2^-n. A value that is out of range could overflow to infinity, and the weight 0 of a hidden key times
   infinity is NaN. So the result is limited to 2^limit. The rows that do see such a key are computed by the plain
   kernels, so the limited value is never used. With the paper's shift nothing is out of range, so there is no limit,
   and a NaN in v reaches the output. Because log2(e) is rounded to float32, the result is that of a v which is wrong
   by one part in 10^8. */
__device__ __forceinline__ float laser_value(float v, float n, float limit) {
    return fast_exp2(fminf(fmaf(v, LASER_LOG2E_HIGH, -n), limit));
}
__device__ __forceinline__ float laser_limit(const AttentionSizes &s) {
    return s.shift == LASER_SHIFT_CAUSAL ? 60.0f : INFINITY;
}

/* Replaces W neighbouring values of v by high + low = exp(v) 2^-n in two bf16; high takes the place of v. */
template <int W>
__device__ __forceinline__ void laser_split(bf16 *high, bf16 *low, const float (&n)[W], float limit) {
    float x[W], rounded[W];
    load(x, high);
    for (int c = 0; c < W; c++) x[c] = laser_value(x[c], n[c], limit);
    for (int c = 0; c < W; c += 2) {
        const uint32_t pair = pack_bf16(x[c], x[c + 1]);
        rounded[c] = bf16_low(pair), rounded[c + 1] = bf16_high(pair);
    }
    store(high, rounded);
    for (int c = 0; c < W; c++) x[c] -= rounded[c];
    store(low, x);
}

/* One block for each tile of TILE keys of a head. It writes centers (B, H, tiles, D), in each column a number around
   which the tile's V' = exp(v) 2^-n lie; values (N, A) = V' less its center; and, for the causal shift, ranges. A
   thread takes eight columns of every ROWS-th row and keeps them in registers. */
template <int D, int TILE> struct LaserValues {
    enum { THREADS = 128, CHUNKS = D / 8, ROWS = THREADS / CHUNKS, EACH = TILE / ROWS };
    /* How many blocks should run on a multiprocessor at once. With more of them each thread would get too few
       registers, and on some architecture the compiler would have to keep some of its numbers in memory. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ != 900
    enum { BLOCKS = TILE == 64 ? 4 : 3 };
#else
    enum { BLOCKS = TILE == 64 ? 6 : 4 };
#endif
    static_assert(TILE % ROWS == 0, "every thread has as many rows");
};

/* Returns the range of keys first..end - 1 of a column; `column` points to the column's first value. */
__device__ __forceinline__ ColumnRange laser_range(const bf16 *column, int first, int end,
                                                   const AttentionSizes &s) {
    const float v0 = to_float(column[0]);
    ColumnRange range = {INFINITY, -INFINITY, s.T};
    for (int t = end - 1; t >= first; t--) {
        const float x = to_float(column[t * s.qkv_row]);
        if (fabsf(x - v0) <= LASER_WINDOW)
            range.minimum = fminf(range.minimum, x), range.maximum = fmaxf(range.maximum, x);
        else
            range.out_of_range_from = t;
    }
    return range;
}

template <int D, int TILE>
__global__ void __launch_bounds__(LaserValues<D, TILE>::THREADS, LaserValues<D, TILE>::BLOCKS)
    laser_values_kernel(bf16 *values, float *centers, ColumnRange *ranges, const bf16 *v,
                        const LaserColumn *columns, AttentionSizes s) {
    enum { ROWS = LaserValues<D, TILE>::ROWS, EACH = LaserValues<D, TILE>::EACH };
    float *low = shared_memory<float>(), *high = low + ROWS * D; /* (ROWS, D) */
    int *some_outside = (int *)(high + ROWS * D);                /* (1) whether a value is out of range */
    const int d = (int)threadIdx.x % (D / 8) * 8, row = (int)threadIdx.x / (D / 8);
    const int tile = (int)blockIdx.x, h = (int)blockIdx.y, b = (int)blockIdx.z;
    const int64_t head = (int64_t)b * s.H + h, A = (int64_t)s.H * D;
    const bf16 *head_v = v + (int64_t)b * s.T * s.qkv_row + h * D;
    uint4 packed[EACH];
#pragma unroll
    for (int e = 0; e < EACH;
         e++) { /* past the end of the sequence the tile's first key is taken again, which changes no range */
        const int key = tile * TILE + e * ROWS + row;
        packed[e] = *(const uint4 *)(const void *)(head_v + (key < s.T ? key : tile * TILE) * s.qkv_row + d);
    }
    const int column = (int)threadIdx.x; /* for the first D threads */
    const float limit = laser_limit(s);
    const float own_shift = column < D ? laser_shift(columns + head * D, head_v, column, s) : 0;
    if (threadIdx.x == 0) *some_outside = 0;
    __syncthreads();
    float minimum[8], maximum[8], v0[8];
    load(v0, head_v + d);
    /* The bits of the largest distance from v0, as an integer: positive floats have the order of their bits, and those
       of NaN are larger than all others. */
    uint32_t far = 0;
#pragma unroll
    for (int c = 0; c < 8; c++) minimum[c] = INFINITY, maximum[c] = -INFINITY;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        float x[8];
        unpack(x, packed[e]);
#pragma unroll
        for (int c = 0; c < 8; c++) {
            minimum[c] = fminf(minimum[c], x[c]), maximum[c] = fmaxf(maximum[c], x[c]);
            far = max(far, float_to_bits(fabsf(x[c] - v0[c])));
        }
    }
    if (s.shift == LASER_SHIFT_CAUSAL && far > float_to_bits(LASER_WINDOW)) *some_outside = 1;
#pragma unroll
    for (int c = 0; c < 8; c += 4) {
        *(float4 *)(void *)(low + row * D + d + c) =
            float4{minimum[c], minimum[c + 1], minimum[c + 2], minimum[c + 3]};
        *(float4 *)(void *)(high + row * D + d + c) =
            float4{maximum[c], maximum[c + 1], maximum[c + 2], maximum[c + 3]};
    }
    __syncthreads();
    float center = 0;
    if (column < D) {
        ColumnRange range = {INFINITY, -INFINITY, s.T};
        for (int r = 0; r < ROWS; r++) {
            range.minimum = fminf(range.minimum, low[r * D + column]);
            range.maximum = fmaxf(range.maximum, high[r * D + column]);
        }
        if (*some_outside) range = laser_range(head_v + column, tile * TILE, min(s.T, tile * TILE + TILE), s);
        const float smallest = laser_value(range.minimum, own_shift, limit),
                    largest = laser_value(range.maximum, own_shift, limit);
        if (range.minimum <= range.maximum) center = fminf(0.5f * (smallest + largest), 2.7f * smallest);
        centers[(head * gridDim.x + tile) * D + column] = center;
        if (s.shift == LASER_SHIFT_CAUSAL) ranges[(head * gridDim.x + tile) * D + column] = range;
    }
    __syncthreads();
    if (column < D) low[column] = center, high[column] = own_shift;
    __syncthreads();
    float own_center[8], n[8];
#pragma unroll
    for (int c = 0; c < 8; c++) own_center[c] = low[d + c], n[c] = high[d + c];
    /* For every row that sees a key of the last tile, that tile is the one on the diagonal, where V' is computed from v
       itself. So the values of the last tile are never read. */
    if (tile + 1 == (int)gridDim.x) return;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        const int key = tile * TILE + e * ROWS + row;
        if (key >= s.T) break;
        float x[8];
        unpack(x, packed[e]);
#pragma unroll
        for (int c = 0; c < 8; c++) x[c] = laser_value(x[c], n[c], limit) - own_center[c];
        store(values + ((int64_t)b * s.T + key) * A + h * D + d, x);
    }
}

/* Forward, before the products. With the paper's shift this writes columns; with the causal shift laser_finish
   does. */
template <int D, int TILE>
void laser_prepare(const AttentionWork &w, LaserColumn *columns, const bf16 *v, const AttentionSizes &s,
                   cudaStream_t stream) {
    if (s.shift == LASER_SHIFT_SEQUENCE) laser_find_columns(columns, v, s, stream);
    LAUNCH((laser_values_kernel<D, TILE>), dim3(blocks_for(s.T, TILE), (unsigned)s.H, (unsigned)s.B),
           dim3(LaserValues<D, TILE>::THREADS), (2 * LaserValues<D, TILE>::ROWS * D + 1) * sizeof(float),
           stream, w.values, w.centers, w.ranges, v, (const LaserColumn *)columns, s);
}

/* After the products, for the causal shift: computes a head's columns from the ranges of its tiles; then the blocks
   of a head compute, by the plain formulas, the rows in which a column is out of range. */
static __global__ void __launch_bounds__(PLAIN_FEW_THREADS)
    laser_finish_kernel(bf16 *out, uint16_t *low_bits, float *lse, LaserColumn *columns,
                        const ColumnRange *ranges, int tiles, const bf16 *q, const bf16 *k, const bf16 *v,
                        AttentionSizes s) {
    const int h = (int)blockIdx.y, b = (int)blockIdx.z;
    const int64_t head = (int64_t)b * s.H + h;
    int first = s.T; /* the first row with a column out of range */
    for (int d = (int)threadIdx.x; d < s.D; d += (int)blockDim.x) {
        const float v0 = to_float(v[(int64_t)b * s.T * s.qkv_row + h * s.D + d]);
        ColumnRange all = {v0, v0, s.T};
#pragma unroll 8
        for (int tile = 0; tile < tiles; tile++) {
            const ColumnRange range = ranges[(head * tiles + tile) * s.D + d];
            all.minimum = fminf(all.minimum, range.minimum), all.maximum = fmaxf(all.maximum, range.maximum);
            all.out_of_range_from = min(all.out_of_range_from, range.out_of_range_from);
        }
        /* All blocks of a head write the same numbers. */
        columns[head * s.D + d] = laser_column(v0, all.minimum, all.maximum, all.out_of_range_from, s);
        first = min(first, all.out_of_range_from);
    }
    first = block_min(first, shared_memory<float>());
    plain_forward_rows(out, low_bits, lse, q, k, v, (const LaserColumn *)columns, false, b, h,
                       first + (int)blockIdx.x, (int)gridDim.x, s);
}

/* Forward, after the products. tile: the rows of the tiles with which laser_prepare was called. */
static inline void laser_finish(bf16 *out, uint16_t *low_bits, float *lse, LaserColumn *columns,
                                const AttentionWork &w, int tile, const bf16 *q, const bf16 *k, const bf16 *v,
                                const AttentionSizes &s, cudaStream_t stream) {
    if (s.shift == LASER_SHIFT_SEQUENCE) return;
    LAUNCH(laser_finish_kernel, dim3(PLAIN_FEW_BLOCKS, (unsigned)s.H, (unsigned)s.B), dim3(PLAIN_FEW_THREADS),
           plain_shared(s, 1), stream, out, low_bits, lse, columns, (const ColumnRange *)w.ranges,
           (int)blocks_for(s.T, tile), q, k, v, s);
}

/* ---- what backward needs of each query's row ---- */

/* Returns exp(x); the relative error grows with x, since log2(e) is rounded. */
__device__ __forceinline__ float fast_exp(float x) { return fast_exp2(x * LASER_LOG2E_HIGH); }
/* Returns exp(x) - 1 with a relative error below 2^-13, where exp(x) is given. Near zero, where the difference would
   lose digits, it is x + x^2/2. */
__device__ __forceinline__ float fast_expm1(float x, float exp_x) {
    return fabsf(x) < 1.0f / 256 ? fmaf(0.5f * x, x, x) : exp_x - 1;
}

/* Writes for every query, to `rows`, lse log2(e) and the term that is subtracted from dP: sum_d do o for standard
   attention, sum_d do (1 - exp(m - o)) for LASER. For LASER it also writes scaled (N, A) = do exp(m - o) and centered
   (N, A) = expm1(v - m). scaled is 0 in two cases: where a column is out of range for this row, because the plain
   kernels compute that gradient; and where o is at the floor of the paper's shift, where the gradient is zero. centered
   is 0 for keys that no row of the fast kernels sees.
   A block takes ROWS_COLUMNS neighbouring columns of ROWS_EACH tokens for each of its warps. A lane takes eight
   columns, so a head takes D / 8 lanes. */
enum { ROWS_EACH = 2, ROWS_WARPS = 8, ROWS_THREADS = ROWS_WARPS * WARP_SIZE, ROWS_COLUMNS = 8 * WARP_SIZE };
enum { ROWS_TOKENS = ROWS_EACH * ROWS_WARPS };

template <int D, bool LASER>
__global__ void __launch_bounds__(ROWS_THREADS, 3)
    attention_backward_rows_kernel(float *rows, bf16 *scaled, bf16 *centered, const bf16 *dout,
                                   const bf16 *out, const uint16_t *low_bits, const bf16 *v, const float *lse,
                                   const LaserColumn *columns, AttentionSizes s) {
    enum { LANES = D / 8 };
    float *center = shared_memory<float>(),
          *floor = center + ROWS_COLUMNS; /* (ROWS_COLUMNS), of this block's columns */
    int *outside = (int *)(floor + ROWS_COLUMNS), *special = outside + ROWS_COLUMNS;
    const int padded = padded_rows(s), A = s.H * D, b = (int)blockIdx.z, lane = (int)threadIdx.x % WARP_SIZE;
    const int own = lane * 8, column = (int)blockIdx.y * ROWS_COLUMNS + own, h = column / D;
    const int first = (int)blockIdx.x * ROWS_TOKENS + (int)threadIdx.x / WARP_SIZE * ROWS_EACH;
    const bool there = column < A;
    uint4 g_packed[ROWS_EACH], o_packed[ROWS_EACH], low_packed[ROWS_EACH], v_packed[ROWS_EACH];
    float head_lse[ROWS_EACH];
    const uint4 zero = {0, 0, 0, 0};
#pragma unroll
    for (int r = 0; r < ROWS_EACH; r++) {
        const bool inside = there && first + r < s.T;
        const int64_t token = (int64_t)b * s.T + first + r, at = token * s.out_row + column;
        g_packed[r] = inside ? *(const uint4 *)(const void *)(dout + at) : zero;
        o_packed[r] = inside ? *(const uint4 *)(const void *)(out + at) : zero;
        low_packed[r] = LASER && inside ? *(const uint4 *)(const void *)(low_bits + at) : zero;
        v_packed[r] = LASER && inside ? *(const uint4 *)(const void *)(v + token * s.qkv_row + column) : zero;
        head_lse[r] = inside ? lse[((int64_t)b * s.H + h) * s.T + first + r] : INFINITY;
    }
    if (LASER) { /* one thread for each column; special: whether some column may pass no gradient */
        if (threadIdx.x == 0) *special = 0;
        __syncthreads();
        const int at = (int)blockIdx.y * ROWS_COLUMNS + (int)threadIdx.x;
        if (at < A) {
            const LaserColumn c = columns[(int64_t)b * A + at];
            center[threadIdx.x] = c.center, floor[threadIdx.x] = c.floor,
            outside[threadIdx.x] = c.out_of_range_from;
            if (c.out_of_range_from < s.T || c.floor > -INFINITY) *special = 1;
        }
        __syncthreads();
    }
    const bool careful = LASER && *special != 0;
#pragma unroll
    for (int r = 0; r < ROWS_EACH; r++) {
        const int t = first + r;
        float g[8], o[8], sum = 0;
        unpack(g, g_packed[r]), unpack(o, o_packed[r]);
        if (!LASER) {
#pragma unroll
            for (int i = 0; i < 8; i++) sum += g[i] * o[i];
        } else if (there && t < s.T) {
            const uint32_t low[4] = {low_packed[r].x, low_packed[r].y, low_packed[r].z, low_packed[r].w};
            float x[8], m[8];
            unpack(x, v_packed[r]);
#pragma unroll
            for (int i = 0; i < 8; i++) m[i] = center[own + i];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const float exact =
                    join_split_float(float_to_bits(o[i]), i % 2 ? low[i / 2] >> 16 : low[i / 2]);
                const bool seen = !careful || t < outside[own + i],
                           passes = !careful || (seen && exact > floor[own + i]);
                const float distance = m[i] - exact, factor = fast_exp(distance), above = x[i] - m[i];
                sum -= passes ? g[i] * fast_expm1(distance, factor) : 0.0f;
                g[i] = passes ? g[i] * factor : 0.0f;
                x[i] = seen ? fast_expm1(above, fast_exp(above)) : 0.0f;
            }
            const int64_t at = ((int64_t)b * s.T + t) * A + column;
            store(scaled + at, g);
            store(centered + at, x);
        }
        for (int mask = 1; mask < LANES; mask *= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, mask);
        if (there && lane % LANES == 0) {
            const int64_t at = row_at(((int64_t)b * s.H + h) * padded + t);
            rows[at] = head_lse[r] * LASER_LOG2E_HIGH;
            rows[at + ROW_TERM] = sum;
        }
    }
}

/* Fills w.rows and, for LASER, w.scaled_dout and w.centered_v, for the kernels of backward. */
template <int D, bool LASER>
void attention_backward_rows(const AttentionWork &w, const bf16 *dout, const bf16 *out,
                             const uint16_t *low_bits, const bf16 *v, const float *lse,
                             const LaserColumn *columns, const AttentionSizes &s, cudaStream_t stream) {
    const dim3 grid((unsigned)(padded_rows(s) / ROWS_TOKENS), blocks_for((int64_t)s.H * D, ROWS_COLUMNS),
                    (unsigned)s.B);
    LAUNCH((attention_backward_rows_kernel<D, LASER>), grid, dim3(ROWS_THREADS),
           LASER ? (3 * ROWS_COLUMNS + 1) * sizeof(float) : 0, stream, w.rows, w.scaled_dout, w.centered_v,
           dout, out, low_bits, v, lse, columns, s);
}

#endif
