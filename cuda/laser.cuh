/* laser.cuh: causal multi-head attention on the GPU, standard and LASER, forward and backward, on tensor cores. It
   computes what laser.h computes; the formulas and their derivation stand in its manual.

   attention_forward(out, exact, lse, columns, q, k, v, work, shape, stream)
   attention_backward(dq, dk, dv, dout, q, k, v, out, exact, lse, columns, work, shape, stream)
   attention_columns(shape)         how many Column a forward call writes for its backward (LASER; else none)
   attention_work_bytes(shape)      scratch memory of one call

   q, k, v, dq, dk, dv: element (b, t, h, d) lies at ((b * T + t) * qkv_row + h * D + d); out, dout, exact likewise with
   out_row. So q, k, v may be thirds of one packed buffer. lse is (B, H, T). Gradients are written (=). Rows begin at
   multiples of 16 bytes.
   T = bf16: flash attention: tiles of 64 queries and 64 keys, cp.async into two stages of shared memory, online
   softmax, float32 accumulation; nothing of size T*T. Heads of 32, 64 and 128 (others, and T = float: attention_plain.cuh,
   which is slow and plain). exact (LASER only) is out in float32: backward needs exp(-o), and bf16 has too few digits.

   LASER is standard attention on V' = exp(V), then a logarithm, so the kernels are the same; V' is prepared by a kernel
   of its own, once, instead of once for each tile of queries:
   - Shift. Column d is scaled by 2^-n_d, a power of two, which changes no digit: n_d = v_0d log2(e) rounded, of the one
     key that every row sees; with the paper's shift it follows the column's maximum over the sequence.
   - Precision. Rounded to bf16, exp(v) of small v would be 1 and little else. Forward multiplies by V' less a center of
     each tile of keys, which is as small as v, and adds the center times the tile's weights, a number a row. What hangs on
     all values of a tile must not reach a row that does not see all of it: so the tile on the diagonal, one of each row,
     is multiplied as the sum of two bf16 (17 bits), without a center.
     Backward multiplies by expm1(v - m_d), which is as small as v - m_d and keeps its digits; m_d is near the least v of
     the column, and the row term sum_d do (1 - exp(m - o)) makes up for it.
   - Range. From the first key on whose v is farther than WINDOW from v_0d a column is "wild" (Column.wild_from): rows
     from there on are left to the plain kernels, which take each row's own maximum and are not fast; earlier rows do
     not see that key and keep their bits. Heads without wild columns, all of them in a healthy run, pay an empty
     launch.
   - Row 0 has one key: its dq and its share of dk are zero, and written so.

   Backward is two kernels, each of which owns what it sums: one the dk and dv of a tile of keys, one the dq of a tile
   of queries. Seven products of a tile instead of the five that atomic additions to dq would need; the same bits in
   every run. Later, where a GPU is at hand: wgmma and TMA on sm_90, two query fragments a warp, dq in the first kernel
   through an ordered sum. */
#ifndef CUDA_LASER_CUH
#define CUDA_LASER_CUH

#include "attention_plain.cuh"
#include "mma.cuh"

enum { ATTENTION_TILE = 64, ATTENTION_WARPS = 4, ATTENTION_THREADS = ATTENTION_WARPS * WARP_SIZE };
enum { ATTENTION_BLOCKS = ATTENTION_TILE / 8 }; /* of eight columns in a tile of scores */

/* ---- LASER's columns and values ---- */

/* One block a head, a lane a column, a warp some rows: shift, center, floor and wild_from of every column, and
   head_wild (B, H), the least wild_from of a head. Heads are few, so their blocks are as large as can
   be, and each lane has eight values on their way at a time. */
enum { LASER_COLUMN_WARPS = 32, LASER_COLUMN_THREADS = LASER_COLUMN_WARPS * WARP_SIZE };

template <typename T>
__global__ void __launch_bounds__(LASER_COLUMN_THREADS)
    laser_columns_kernel(Column *columns, int *head_wild, const T *v, AttentionSizes s) {
    enum { WARPS = LASER_COLUMN_WARPS };
    float *low = shared_memory<float>(), *high = low + WARPS * WARP_SIZE; /* (WARPS, WARP_SIZE) */
    int *wild = (int *)(high + WARPS * WARP_SIZE), head_least = s.T;
    const int lane = (int)threadIdx.x % WARP_SIZE, warp = (int)threadIdx.x / WARP_SIZE, h = blockIdx.x,
              b = blockIdx.y;
    for (int first = 0; first < s.D; first += WARP_SIZE) {
        const int d = first + lane < s.D ? first + lane : s.D - 1;
        const T *column = v + (int64_t)b * s.T * s.qkv_row + h * s.D + d;
        const float v0 = to_float(column[0]);
        int wild_from = s.T;
        float least = v0, most = v0; /* of the values inside of the window */
#pragma unroll 8
        for (int t = warp; t < s.T; t += WARPS) {
            const float x = to_float(column[t * s.qkv_row]);
            if (s.shift == LASER_SHIFT_CAUSAL && !(fabsf(x - v0) <= LASER_WINDOW))
                wild_from = min(wild_from, t);
            else
                least = fminf(least, x), most = fmaxf(most, x);
        }
        const int at = warp * WARP_SIZE + lane;
        low[at] = least, high[at] = most, wild[at] = wild_from;
        __syncthreads();
        for (int w = 0; warp == 0 && w < WARPS; w++) {
            least = fminf(least, low[w * WARP_SIZE + lane]);
            most = fmaxf(most, high[w * WARP_SIZE + lane]);
            wild_from = min(wild_from, wild[w * WARP_SIZE + lane]);
        }
        if (warp == 0 && first + lane < s.D)
            columns[((int64_t)b * s.H + h) * s.D + d] = laser_column(v0, least, most, wild_from, s);
        for (int mask = 1; mask < WARP_SIZE; mask *= 2)
            wild_from = min(wild_from, __shfl_xor_sync(0xFFFFFFFFu, wild_from, mask));
        head_least = min(head_least, wild_from); /* in the first warp, the only one that has seen all */
        __syncthreads();
    }
    if (threadIdx.x == 0) head_wild[b * s.H + h] = head_least;
}

/* exp(v) 2^-n. What is out of range is cut to it: no row that sees it uses it. */
__device__ __forceinline__ float laser_value(float v, float n) {
    const float power = fmaf(v, LASER_LOG2E_HIGH, -n) + v * LASER_LOG2E_LOW;
    return exp2f(fminf(fmaxf(power, -126.0f), 60.0f));
}

/* One block a tile of keys of a head: centers (B, H, tiles, D), what V' = exp(v) 2^-n of the tile lies around in each column,
   and values (N, A) = V' less them. A thread four columns of every ROWS-th row, which it keeps in registers. */
template <int D, typename T>
__global__ void laser_values_kernel(bf16 *values, float *centers, const T *v, const Column *columns,
                                    AttentionSizes s) {
    enum { ROWS = 256 / (D / 4), EACH = ATTENTION_TILE / ROWS };
    float *low = shared_memory<float>(), *high = low + ROWS * D; /* (ROWS, D) */
    const int d = (int)threadIdx.x % (D / 4) * 4, row = (int)threadIdx.x / (D / 4);
    const int tile = (int)blockIdx.x, h = (int)blockIdx.y, b = (int)blockIdx.z;
    const int64_t head = (int64_t)b * s.H + h, A = (int64_t)s.H * D;
    float x[EACH][4], least[4] = {INFINITY, INFINITY, INFINITY, INFINITY}, most[4] = {};
    for (int e = 0; e < EACH; e++) {
        const int key = tile * ATTENTION_TILE + e * ROWS + row;
        if (key >= s.T) break;
        load(x[e], v + ((int64_t)b * s.T + key) * s.qkv_row + h * D + d);
        for (int c = 0; c < 4; c++) {
            x[e][c] = laser_value(x[e][c], columns[head * D + d + c].shift);
            least[c] = fminf(least[c], x[e][c]), most[c] = fmaxf(most[c], x[e][c]);
        }
    }
    store(low + row * D + d, least), store(high + row * D + d, most);
    __syncthreads();
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < 4; c++) {
            least[c] = fminf(least[c], low[r * D + d + c]);
            most[c] = fmaxf(most[c], high[r * D + d + c]);
        }
    float center[4];
    for (int c = 0; c < 4; c++) center[c] = fminf(0.5f * (least[c] + most[c]), 2.7f * least[c]);
    if (row == 0) store(centers + (head * gridDim.x + tile) * D + d, center);
    for (int e = 0; e < EACH; e++) {
        const int key = tile * ATTENTION_TILE + e * ROWS + row;
        if (key >= s.T) break;
        for (int c = 0; c < 4; c++) x[e][c] -= center[c];
        store(values + ((int64_t)b * s.T + key) * A + h * D + d, x[e]);
    }
}

/* The tile on the diagonal, v in shared memory, becomes high + low = exp(v) 2^-n in two bf16; high in place of v. */
template <int D>
__device__ __forceinline__ void laser_split_tile(bf16 *high, bf16 *low, const Column *columns) {
    for (int i = (int)threadIdx.x; i < ATTENTION_TILE * Tile<D>::CHUNKS; i += ATTENTION_THREADS) {
        const int chunk = i % Tile<D>::CHUNKS, at = Tile<D>::at(i / Tile<D>::CHUNKS, chunk);
        for (int half = 0; half < 8; half += 4) {
            float x[4], rest[4];
            load(x, high + at + half);
            for (int c = 0; c < 4; c++) {
                x[c] = laser_value(x[c], columns[chunk * 8 + half + c].shift);
                rest[c] = x[c] - to_float(from_float<bf16>(x[c]));
            }
            store(high + at + half, x), store(low + at + half, rest);
        }
    }
}

/* centered (N, A) = exp(v - m) - 1, what backward multiplies by; 0 where no row of the fast path sees it. A thread four
   columns. */
template <typename T>
__global__ void laser_centered_kernel(bf16 *centered, const T *v, const Column *columns, AttentionSizes s) {
    const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4, A = (int64_t)s.H * s.D, t = i / A;
    if (t >= (int64_t)s.B * s.T) return;
    float x[4];
    load(x, v + t * s.qkv_row + i % A);
    for (int i4 = 0; i4 < 4; i4++) {
        const Column c = columns[t / s.T * A + i % A + i4];
        x[i4] = t % s.T < c.wild_from ? expm1f(x[i4] - c.center) : 0.0f;
    }
    store(centered + i, x);
}

/* ---- forward ---- */

/* The state of the online softmax of a lane's two rows, g and g + 8 of the warp's sixteen. */
struct SoftmaxRows {
    float
        shift[2]; /* K: the running maximum of s log2(e), rounded to an integer, so that rescaling is exact */
    float sum[2]; /* of 2^(s - K), this lane's columns */
    float weight[2];      /* as rounded to bf16: by it a row is normalised, so that its weights sum to one */
    float tile_weight[2]; /* the latest tile's part of it */
};

/* Scores (16, 64) of a warp into weights, rounded, as the left operand of the product with V; moves the rows' shifts
   and rescales what was summed before. hidden(row, column): whether a query does not see a key. */
template <int D>
__device__ __forceinline__ void softmax_step(uint32_t (&a)[ATTENTION_BLOCKS][2], float (&o)[D / 8][4],
                                             SoftmaxRows &rows, float (&s)[ATTENTION_BLOCKS][4],
                                             float scale_log2e, bool diagonal, int row) {
    const int lane = lane_of_warp(), g = lane / 4, t = lane % 4;
    float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < ATTENTION_BLOCKS; n++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const bool hidden = diagonal && n * 8 + 2 * t + c % 2 > row + g + c / 2 * 8;
            s[n][c] = hidden ? -INFINITY : s[n][c] * scale_log2e;
            top[c / 2] = fmaxf(top[c / 2], s[n][c]);
        }
    float rescale[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xFFFFFFFFu, top[r], 1));
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xFFFFFFFFu, top[r], 2));
        const float moved = fmaxf(rows.shift[r], rintf(top[r]));
        rescale[r] = power_of_two(rows.shift[r] - moved);
        rows.shift[r] = moved, rows.sum[r] *= rescale[r], rows.weight[r] *= rescale[r];
        rows.tile_weight[r] = 0;
    }
    if (__any_sync(0xFFFFFFFFu, rescale[0] != 1 || rescale[1] != 1))
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) o[n][c] *= rescale[c / 2];
#pragma unroll
    for (int n = 0; n < ATTENTION_BLOCKS; n++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float left = fast_exp2(s[n][2 * r] - rows.shift[r]),
                        right = fast_exp2(s[n][2 * r + 1] - rows.shift[r]);
            a[n][r] = pack_bf16(left, right);
            rows.sum[r] += left + right;
            rows.tile_weight[r] += bf16_low(a[n][r]) + bf16_high(a[n][r]);
        }
    for (int r = 0; r < 2; r++) rows.weight[r] += rows.tile_weight[r];
}

/* Writes o and lse of a warp's rows; LASER: the logarithm. row: the warp's first, in the sequence. */
template <int D, bool LASER>
__device__ __forceinline__ void write_rows(bf16 *out, float *exact, float *lse, float (&o)[D / 8][4],
                                           SoftmaxRows &rows, const Column *columns, const AttentionSizes &s,
                                           int b, int h, int row) {
    const int lane = lane_of_warp(), t = lane % 4;
    float inverse[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        for (int mask = 1; mask <= 2; mask *= 2) {
            rows.sum[r] += __shfl_xor_sync(0xFFFFFFFFu, rows.sum[r], mask);
            rows.weight[r] += __shfl_xor_sync(0xFFFFFFFFu, rows.weight[r], mask);
        }
        inverse[r] = 1 / rows.weight[r];
        const int i = row + lane / 4 + 8 * r;
        if (t == 0 && i < s.T) lse[((int64_t)b * s.H + h) * s.T + i] = laser_log(rows.sum[r], rows.shift[r]);
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        float shift[2] = {0, 0};
        if (LASER)
            for (int c = 0; c < 2; c++)
                shift[c] = columns[((int64_t)b * s.H + h) * D + n * 8 + 2 * t + c].shift;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int i = row + lane / 4 + 8 * r;
            if (i >= s.T) continue;
            float x = o[n][2 * r] * inverse[r], y = o[n][2 * r + 1] * inverse[r];
            const int64_t at = ((int64_t)b * s.T + i) * s.out_row + h * D + n * 8 + 2 * t;
            if (LASER) {
                const float least = s.shift == LASER_SHIFT_SEQUENCE ? LASER_LEAST : 1e-37f;
                x = laser_log(fmaxf(x, least), shift[0]), y = laser_log(fmaxf(y, least), shift[1]);
                *(float2 *)(exact + at) = float2{x, y};
            }
            *(uint32_t *)(void *)(out + at) = pack_bf16(x, y);
        }
    }
}

/* Double buffering: starts the copy of tile `next` if there is one, and waits until all threads have this one's. */
template <class Fetch> __device__ __forceinline__ void turn_stage(bool more, int next, Fetch fetch) {
    if (more) fetch(next);
    if (more)
        cp_async_wait<1>();
    else
        cp_async_wait<0>();
    __syncthreads();
}

/* o += what the center (D) of a tile of keys contributes: the tile's weights, of which a lane has those of its columns, times
   the center. */
template <int D>
__device__ __forceinline__ void add_centers(float (&o)[D / 8][4], const float (&weight)[2],
                                            const float *center) {
    float row[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        row[r] = weight[r];
        for (int mask = 1; mask <= 2; mask *= 2) row[r] += __shfl_xor_sync(0xFFFFFFFFu, row[r], mask);
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        const float2 c = *(const float2 *)(const void *)(center + n * 8 + lane_of_warp() % 4 * 2);
#pragma unroll
        for (int r = 0; r < 2; r++) o[n][2 * r] += row[r] * c.x, o[n][2 * r + 1] += row[r] * c.y;
    }
}

/* One block: 64 queries of a head against the keys up to them. LASER: `values` (N, A) and `centers` of the tiles before the
   diagonal; there, v itself. */
template <int D, bool LASER>
__global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_forward_kernel(bf16 *out, float *exact, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                             const bf16 *values, const float *centers, const Column *columns,
                             AttentionSizes s) {
    enum { TILE = ATTENTION_TILE * D, STAGE = TILE * 2 };
    bf16 *q_tile = shared_memory<bf16>(), *stages = q_tile + TILE;        /* two of k and v */
    float *center_stages = (float *)(void *)(stages + 2 * STAGE);         /* LASER: two of D */
    const int tiles = (int)gridDim.x, last = tiles - 1 - (int)blockIdx.x; /* the longest rows first */
    const int h = (int)blockIdx.y, b = (int)blockIdx.z, row = (int)threadIdx.x / WARP_SIZE * 16;
    const int64_t token = (int64_t)b * s.T, head = (int64_t)b * s.H + h, A = (int64_t)s.H * D;
    auto fetch = [&](int tile) {
        const int key = tile * ATTENTION_TILE;
        const bool centered = LASER && tile < last;
        bf16 *stage = stages + tile % 2 * STAGE;
        load_tile<D, ATTENTION_TILE, ATTENTION_THREADS>(stage, k + (token + key) * s.qkv_row + h * D,
                                                        s.qkv_row, s.T - key);
        load_tile<D, ATTENTION_TILE, ATTENTION_THREADS>(
            stage + TILE, (centered ? values + (token + key) * A : v + (token + key) * s.qkv_row) + h * D,
            centered ? A : s.qkv_row, s.T - key);
        if (centered && threadIdx.x < D / 4)
            cp_async_16(center_stages + tile % 2 * D + threadIdx.x * 4,
                        centers + (head * tiles + tile) * D + threadIdx.x * 4, true);
        cp_async_commit();
    };
    load_tile<D, ATTENTION_TILE, ATTENTION_THREADS>(q_tile,
                                                    q + (token + last * ATTENTION_TILE) * s.qkv_row + h * D,
                                                    s.qkv_row, s.T - last * ATTENTION_TILE);
    fetch(0);
    float o[D / 8][4] = {};
    SoftmaxRows rows = {{-INFINITY, -INFINITY}, {0, 0}, {0, 0}, {0, 0}};
    for (int tile = 0; tile <= last; tile++) {
        turn_stage(tile < last, tile + 1, fetch);
        bf16 *stage = stages + tile % 2 * STAGE,
             *low = stages + (tile + 1) % 2 * STAGE; /* free at the last tile */
        float score[ATTENTION_BLOCKS][4] = {};
        uint32_t a[ATTENTION_BLOCKS][2];
        if (LASER && tile == last) laser_split_tile<D>(stage + TILE, low, columns + head * D);
        product_over_d<D>(score, q_tile, row, stage, 0);
        softmax_step<D>(a, o, rows, score, s.scale * LASER_LOG2E_HIGH, tile == last, row);
        if (LASER && tile == last) __syncthreads(); /* V' is split */
        product_over_rows<D>(o, a, stage + TILE, 0);
        if (LASER && tile == last) product_over_rows<D>(o, a, low, 0);
        if (LASER && tile < last) add_centers<D>(o, rows.tile_weight, center_stages + tile % 2 * D);
        __syncthreads();
    }
    write_rows<D, LASER>(out, exact, lse, o, rows, columns, s, b, h, last * ATTENTION_TILE + row);
}

/* ---- backward ---- */

/* Scores of a tile that are held at a time, in blocks of eight columns: what fits into registers beside the sums. */
template <int D> struct AttentionStep {
    enum { BLOCKS = D < 128 ? ATTENTION_BLOCKS : ATTENTION_BLOCKS / 2 };
};

/* A warp a row of a head: row_term (B, H, T), what is subtracted from dP: standard sum_d do o; LASER sum_d do (1 -
   exp(m - o)), and scaled (N, A) = do exp(m - o). Wild columns and those at the floor of the paper's shift pass no
   gradient here. */
template <bool LASER>
__global__ void attention_rows_kernel(float *row_term, bf16 *scaled, const bf16 *dout, const bf16 *out,
                                      const float *exact, const Column *columns, AttentionSizes s) {
    const int64_t row =
        (int64_t)blockIdx.x * (blockDim.x / WARP_SIZE) + threadIdx.x / WARP_SIZE; /* (b, t, h) */
    if (row >= (int64_t)s.B * s.T * s.H) return;
    const int h = (int)(row % s.H), t = (int)(row / s.H % s.T), b = (int)(row / s.H / s.T);
    float sum = 0, g[4], o[4];
    for (int d = lane_of_warp() * 4; d < s.D; d += WARP_SIZE * 4) {
        const int64_t at = (row / s.H) * s.out_row + h * s.D + d;
        load(g, dout + at);
        if (LASER)
            load(o, exact + at);
        else
            load(o, out + at);
        for (int i = 0; i < 4; i++) {
            if (!LASER) {
                sum += g[i] * o[i];
                continue;
            }
            const Column c = columns[((int64_t)b * s.H + h) * s.D + d + i];
            const bool passes = t < c.wild_from && o[i] > c.floor;
            if (passes) sum -= g[i] * expm1f(c.center - o[i]);
            g[i] = passes ? g[i] * expf(c.center - o[i]) : 0.0f;
        }
        if (LASER) store(scaled + row * s.D + d, g);
    }
    sum = warp_sum(sum);
    if (lane_of_warp() == 0) row_term[((int64_t)b * s.H + h) * s.T + t] = sum;
}

/* Writes (16, D) of a warp as bf16, times a factor a column or one for all. */
template <int D, typename Factor>
__device__ __forceinline__ void write_gradient(bf16 *to, int64_t stride, float (&x)[D / 8][4], int row, int T,
                                               Factor factor) {
    const int lane = lane_of_warp();
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int i = row + lane / 4 + 8 * r, d = n * 8 + lane % 4 * 2;
            if (i >= T) continue;
            *(uint32_t *)(void *)(to + i * stride + d) =
                pack_bf16(x[n][2 * r] * factor(i, d), x[n][2 * r + 1] * factor(i, d + 1));
        }
}

/* One block: dk and dv of 64 keys of a head, from the queries at and after them. Scores lie key by query, so that their
   weights are the left operand of both sums over queries. g: do, or LASER's scaled; u: v, or LASER's centered. */
template <int D, bool LASER>
__global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_keys_kernel(bf16 *dk, bf16 *dv, const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *u,
                          int64_t u_row, const bf16 *g, int64_t g_row, const float *lse,
                          const float *row_term, const Column *columns, AttentionSizes s) {
    enum { TILE = ATTENTION_TILE * D, BLOCKS = AttentionStep<D>::BLOCKS };
    bf16 *k_tile = shared_memory<bf16>(), *u_tile = k_tile + TILE,
         *stages = u_tile + TILE;                        /* two of q and g */
    float *stats = (float *)(void *)(stages + 4 * TILE); /* two of lse log2(e) and row_term, a query each */
    const int first = (int)blockIdx.x, tiles = (int)gridDim.x, h = (int)blockIdx.y, b = (int)blockIdx.z;
    const int lane = lane_of_warp(), row = (int)threadIdx.x / WARP_SIZE * 16, key = first * ATTENTION_TILE;
    const int64_t token = (int64_t)b * s.T, head = (int64_t)b * s.H + h;
    auto fetch = [&](int tile) {
        const int query = tile * ATTENTION_TILE, i = (int)threadIdx.x;
        bf16 *stage = stages + tile % 2 * 2 * TILE;
        float *stat = stats + tile % 2 * 2 * ATTENTION_TILE;
        load_tile<D, ATTENTION_TILE, ATTENTION_THREADS>(stage, q + (token + query) * s.qkv_row + h * D,
                                                        s.qkv_row, s.T - query);
        load_tile<D, ATTENTION_TILE, ATTENTION_THREADS>(stage + TILE, g + (token + query) * g_row + h * D,
                                                        g_row, s.T - query);
        cp_async_commit();
        if (i < ATTENTION_TILE) { /* beyond the last query: weights of zero */
            stat[i] = query + i < s.T ? lse[head * s.T + query + i] * LASER_LOG2E_HIGH : INFINITY;
            stat[ATTENTION_TILE + i] = query + i < s.T ? row_term[head * s.T + query + i] : 0;
        }
    };
    load_tile<D, ATTENTION_TILE, ATTENTION_THREADS>(k_tile, k + (token + key) * s.qkv_row + h * D, s.qkv_row,
                                                    s.T - key);
    load_tile<D, ATTENTION_TILE, ATTENTION_THREADS>(u_tile, u + (token + key) * u_row + h * D, u_row,
                                                    s.T - key);
    fetch(first);
    float dk_sum[D / 8][4] = {}, dv_sum[D / 8][4] = {};
    for (int tile = first; tile < tiles; tile++) {
        turn_stage(tile + 1 < tiles, tile + 1, fetch);
        const bf16 *q_tile = stages + tile % 2 * 2 * TILE, *g_tile = q_tile + TILE;
        const float *stat = stats + tile % 2 * 2 * ATTENTION_TILE;
#pragma unroll 1
        for (int part = 0; part < ATTENTION_TILE; part += BLOCKS * 8) { /* queries of the tile */
            float score[BLOCKS][4] = {}, dp[BLOCKS][4] = {};
            uint32_t a[BLOCKS][2], ds[BLOCKS][2];
            product_over_d<D>(score, k_tile, row, q_tile, part);
            product_over_d<D>(dp, u_tile, row, g_tile, part);
#pragma unroll
            for (int n = 0; n < BLOCKS; n++) {
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    const int query = part + n * 8 + lane % 4 * 2 + c % 2, own = row + lane / 4 + c / 2 * 8;
                    const float exponent = score[n][c] * (s.scale * LASER_LOG2E_HIGH) - stat[query];
                    score[n][c] = tile == first && own > query ? 0 : fast_exp2(exponent);
                    dp[n][c] =
                        tile + query == 0 ? 0 : score[n][c] * (dp[n][c] - stat[ATTENTION_TILE + query]);
                }
                for (int r = 0; r < 2; r++) {
                    a[n][r] = pack_bf16(score[n][2 * r], score[n][2 * r + 1]);
                    ds[n][r] = pack_bf16(dp[n][2 * r], dp[n][2 * r + 1]);
                }
            }
            product_over_rows<D>(dv_sum, a, g_tile, part);
            product_over_rows<D>(dk_sum, ds, q_tile, part);
        }
        __syncthreads();
    }
    bf16 *dk_head = dk + token * s.qkv_row + h * D, *dv_head = dv + token * s.qkv_row + h * D;
    write_gradient<D>(dk_head, s.qkv_row, dk_sum, key + row, s.T, [&](int, int) { return s.scale; });
    write_gradient<D>(dv_head, s.qkv_row, dv_sum, key + row, s.T,
                      [&](int t, int d) { /* dv = dv' exp(v - m) */
                                          if (!LASER) return 1.0f;
                                          const Column c = columns[head * D + d];
                                          return t < c.wild_from
                                                     ? expf(to_float(v[(token + t) * s.qkv_row + h * D + d]) -
                                                            c.center)
                                                     : 0.0f;
                      });
}

/* One block: dq of 64 queries of a head, from the keys up to them. With heads of 128 shared memory holds two blocks at
   most, so the compiler need not save registers for a third. */
template <int D>
__global__ void __launch_bounds__(ATTENTION_THREADS, D < 128 ? 0 : 2)
    attention_queries_kernel(bf16 *dq, const bf16 *q, const bf16 *k, const bf16 *u, int64_t u_row,
                             const bf16 *g, int64_t g_row, const float *lse, const float *row_term,
                             AttentionSizes s) {
    enum { TILE = ATTENTION_TILE * D, BLOCKS = AttentionStep<D>::BLOCKS };
    bf16 *q_tile = shared_memory<bf16>(), *g_tile = q_tile + TILE,
         *stages = g_tile + TILE; /* two of k and u */
    const int last = (int)(gridDim.x - 1 - blockIdx.x), h = (int)blockIdx.y, b = (int)blockIdx.z;
    const int lane = lane_of_warp(), row = (int)threadIdx.x / WARP_SIZE * 16, query = last * ATTENTION_TILE;
    const int64_t token = (int64_t)b * s.T, head = (int64_t)b * s.H + h;
    auto fetch = [&](int tile) {
        const int key = tile * ATTENTION_TILE;
        bf16 *stage = stages + tile % 2 * 2 * TILE;
        load_tile<D, ATTENTION_TILE, ATTENTION_THREADS>(stage, k + (token + key) * s.qkv_row + h * D,
                                                        s.qkv_row, s.T - key);
        load_tile<D, ATTENTION_TILE, ATTENTION_THREADS>(stage + TILE, u + (token + key) * u_row + h * D,
                                                        u_row, s.T - key);
        cp_async_commit();
    };
    load_tile<D, ATTENTION_TILE, ATTENTION_THREADS>(q_tile, q + (token + query) * s.qkv_row + h * D,
                                                    s.qkv_row, s.T - query);
    load_tile<D, ATTENTION_TILE, ATTENTION_THREADS>(g_tile, g + (token + query) * g_row + h * D, g_row,
                                                    s.T - query);
    fetch(0);
    float row_lse[2], term[2], dq_sum[D / 8][4] = {};
    for (int r = 0; r < 2; r++) {
        const int i = query + row + lane / 4 + 8 * r;
        row_lse[r] = i < s.T ? lse[head * s.T + i] * LASER_LOG2E_HIGH : INFINITY;
        term[r] = i < s.T ? row_term[head * s.T + i] : 0;
    }
    for (int tile = 0; tile <= last; tile++) {
        turn_stage(tile < last, tile + 1, fetch);
        const bf16 *k_tile = stages + tile % 2 * 2 * TILE, *u_tile = k_tile + TILE;
#pragma unroll 1
        for (int part = 0; part < ATTENTION_TILE; part += BLOCKS * 8) { /* keys of the tile */
            float score[BLOCKS][4] = {}, dp[BLOCKS][4] = {};
            uint32_t ds[BLOCKS][2];
            product_over_d<D>(score, q_tile, row, k_tile, part);
            product_over_d<D>(dp, g_tile, row, u_tile, part);
#pragma unroll
            for (int n = 0; n < BLOCKS; n++) {
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    const int key = part + n * 8 + lane % 4 * 2 + c % 2, own = row + lane / 4 + c / 2 * 8;
                    const bool hidden = tile == last && (key > own || query + own == 0);
                    const float exponent = score[n][c] * (s.scale * LASER_LOG2E_HIGH) - row_lse[c / 2];
                    dp[n][c] = hidden ? 0 : fast_exp2(exponent) * (dp[n][c] - term[c / 2]);
                }
                for (int r = 0; r < 2; r++) ds[n][r] = pack_bf16(dp[n][2 * r], dp[n][2 * r + 1]);
            }
            product_over_rows<D>(dq_sum, ds, k_tile, part);
        }
        __syncthreads();
    }
    write_gradient<D>(dq + token * s.qkv_row + h * D, s.qkv_row, dq_sum, query + row, s.T,
                      [&](int, int) { return s.scale; });
}

/* ---- the two functions ---- */

struct AttentionWork {
    int *head_wild;     /* (B, H) */
    float *row_term;    /* (B, H, T) */
    float *centers;     /* (B, H, tiles, D) forward: of V' */
    bf16 *left, *right; /* (N, A) forward: V' less its centers; backward: scaled and centered */
};

static inline size_t attention_columns(const AttentionSizes &s) {
    return s.kind == ATTENTION_LASER ? (size_t)s.B * s.H * s.D : 0;
}

static inline AttentionWork attention_work(void *memory, const AttentionSizes &s, size_t *bytes) {
    const size_t heads = (size_t)s.B * s.H, values = heads * s.T * s.D;
    size_t used = 0;
    auto take = [&](size_t size) {
        char *at = memory ? (char *)memory + used : nullptr;
        used += (size + 255) / 256 * 256;
        return (void *)at;
    };
    AttentionWork w;
    w.head_wild = (int *)take(heads * sizeof(int));
    w.row_term = (float *)take(heads * s.T * sizeof(float));
    w.centers = (float *)take(heads * blocks_for(s.T, ATTENTION_TILE) * s.D * sizeof(float));
    w.left = (bf16 *)take(values * sizeof(bf16));
    w.right = (bf16 *)take(values * sizeof(bf16));
    if (bytes) *bytes = used;
    return w;
}

static inline size_t attention_work_bytes(const AttentionSizes &s) {
    size_t bytes;
    attention_work(nullptr, s, &bytes);
    return bytes;
}

template <typename T>
void laser_find_columns(Column *columns, const AttentionWork &w, const T *v, const AttentionSizes &s,
                        cudaStream_t stream) {
    LAUNCH(laser_columns_kernel<T>, dim3((unsigned)s.H, (unsigned)s.B), dim3(LASER_COLUMN_THREADS),
           3 * LASER_COLUMN_THREADS * sizeof(float), stream, columns, w.head_wild, v, s);
}

/* The plain kernels on top of the others: only the rows of wild columns. */
enum { WILD_BLOCKS = 16 }; /* blocks a head; they go over its rows in turn */

template <int D, bool LASER>
void attention_forward_fast(bf16 *out, float *exact, float *lse, Column *columns, const bf16 *q,
                            const bf16 *k, const bf16 *v, const AttentionWork &w, const AttentionSizes &s,
                            cudaStream_t stream) {
    const dim3 grid(blocks_for(s.T, ATTENTION_TILE), (unsigned)s.H, (unsigned)s.B);
    const size_t shared = 5 * ATTENTION_TILE * D * sizeof(bf16) + (LASER ? 2 * D * sizeof(float) : 0);
    if (LASER) {
        laser_find_columns(columns, w, v, s, stream);
        LAUNCH((laser_values_kernel<D, bf16>), grid, dim3(256), 2 * 256 * 4 * sizeof(float), stream, w.left,
               w.centers, v, (const Column *)columns, s);
    }
    LAUNCH((attention_forward_kernel<D, LASER>), grid, dim3(ATTENTION_THREADS), shared, stream, out, exact,
           lse, q, k, v, (const bf16 *)w.left, (const float *)w.centers, (const Column *)columns, s);
    if (LASER && s.shift == LASER_SHIFT_CAUSAL)
        attention_plain_forward(out, exact, lse, q, k, v, columns, w.head_wild, WILD_BLOCKS, s, stream);
}

template <int D, bool LASER>
void attention_backward_fast(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const bf16 *q, const bf16 *k,
                             const bf16 *v, const bf16 *out, const float *exact, const float *lse,
                             const Column *columns, const AttentionWork &w, const AttentionSizes &s,
                             cudaStream_t stream) {
    const dim3 grid(blocks_for(s.T, ATTENTION_TILE), (unsigned)s.H, (unsigned)s.B);
    const int64_t A = (int64_t)s.H * D, rows = (int64_t)s.B * s.T * s.H;
    const bf16 *u = LASER ? w.right : v, *g = LASER ? w.left : dout;
    const int64_t u_row = LASER ? A : s.qkv_row, g_row = LASER ? A : s.out_row;
    const size_t tile = ATTENTION_TILE * D * sizeof(bf16), stats = 4 * ATTENTION_TILE * sizeof(float);
    LAUNCH(attention_rows_kernel<LASER>, dim3(blocks_for(rows, 4)), dim3(4 * WARP_SIZE), 0, stream,
           w.row_term, w.left, dout, out, exact, columns, s);
    if (LASER)
        LAUNCH(laser_centered_kernel<bf16>, dim3(blocks_for(rows * D, 1024)), dim3(256), 0, stream, w.right,
               v, columns, s);
    LAUNCH((attention_keys_kernel<D, LASER>), grid, dim3(ATTENTION_THREADS), 6 * tile + stats, stream, dk, dv,
           q, k, v, u, u_row, g, g_row, lse, (const float *)w.row_term, columns, s);
    LAUNCH(attention_queries_kernel<D>, grid, dim3(ATTENTION_THREADS), 6 * tile, stream, dq, q, k, u, u_row,
           g, g_row, lse, (const float *)w.row_term, s);
    if (LASER && s.shift == LASER_SHIFT_CAUSAL)
        attention_plain_backward(dq, dk, dv, dout, q, k, v, out, exact, lse, columns, w.head_wild,
                                 WILD_BLOCKS, s, stream);
}

static inline bool attention_is_fast(int D) { return D == 32 || D == 64 || D == 128; }

static inline void attention_forward(bf16 *out, float *exact, float *lse, Column *columns, const bf16 *q,
                                     const bf16 *k, const bf16 *v, void *work, const AttentionSizes &s,
                                     cudaStream_t stream) {
    const AttentionWork w = attention_work(work, s, nullptr);
    const bool laser = s.kind == ATTENTION_LASER;
    if (attention_is_fast(s.D)) {
        auto *run = s.D == 32 ? (laser ? attention_forward_fast<32, true> : attention_forward_fast<32, false>)
                    : s.D == 64
                        ? (laser ? attention_forward_fast<64, true> : attention_forward_fast<64, false>)
                        : (laser ? attention_forward_fast<128, true> : attention_forward_fast<128, false>);
        return run(out, exact, lse, columns, q, k, v, w, s, stream);
    }
    if (laser) laser_find_columns(columns, w, v, s, stream);
    attention_plain_forward(out, exact, lse, q, k, v, columns, nullptr, s.T, s, stream);
}

static inline void attention_backward(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const bf16 *q,
                                      const bf16 *k, const bf16 *v, const bf16 *out, const float *exact,
                                      const float *lse, const Column *columns, void *work,
                                      const AttentionSizes &s, cudaStream_t stream) {
    const AttentionWork w = attention_work(work, s, nullptr);
    const bool laser = s.kind == ATTENTION_LASER;
    if (attention_is_fast(s.D)) {
        auto *run =
            s.D == 32   ? (laser ? attention_backward_fast<32, true> : attention_backward_fast<32, false>)
            : s.D == 64 ? (laser ? attention_backward_fast<64, true> : attention_backward_fast<64, false>)
                        : (laser ? attention_backward_fast<128, true> : attention_backward_fast<128, false>);
        return run(dq, dk, dv, dout, q, k, v, out, exact, lse, columns, w, s, stream);
    }
    attention_plain_backward(dq, dk, dv, dout, q, k, v, out, exact, lse, columns, nullptr, s.T, s, stream);
}

/* float32: out is exact itself. */
static inline void attention_forward(float *out, float *, float *lse, Column *columns, const float *q,
                                     const float *k, const float *v, void *work, const AttentionSizes &s,
                                     cudaStream_t stream) {
    if (s.kind == ATTENTION_LASER)
        laser_find_columns(columns, attention_work(work, s, nullptr), v, s, stream);
    attention_plain_forward(out, out, lse, q, k, v, columns, nullptr, s.T, s, stream);
}

static inline void attention_backward(float *dq, float *dk, float *dv, const float *dout, const float *q,
                                      const float *k, const float *v, const float *out, const float *,
                                      const float *lse, const Column *columns, void *,
                                      const AttentionSizes &s, cudaStream_t stream) {
    attention_plain_backward(dq, dk, dv, dout, q, k, v, out, out, lse, columns, nullptr, s.T, s, stream);
}

#endif
