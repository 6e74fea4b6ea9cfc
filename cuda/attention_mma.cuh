/* attention_mma.cuh: attention's kernels on the tensor cores of compute capability 8.0 and later (mma.sync), for bf16
   and heads of 32, 64 and 128: flash attention with tiles of 64 queries and 64 keys, copies by cp.async into two
   pipeline stages of shared memory, online softmax and float32 accumulation. No array has a size of T*T.

   Backward consists of two kernels, each of which alone writes the sums that it computes: one the dk and dv of a tile
   of keys, one the dq of a tile of queries. So a tile takes seven products instead of the five that atomic additions
   to dq would need, but every run gives the same bits. Row 0 has one key, so its dq and its share of dk are zero, and
   are set to exactly zero. */
#ifndef CUDA_ATTENTION_MMA_CUH
#define CUDA_ATTENTION_MMA_CUH

#include "laser.cuh"
#include "mma.cuh"

enum { ATTENTION_TILE = 64, ATTENTION_WARPS = 4, ATTENTION_THREADS = ATTENTION_WARPS * WARP_SIZE };
enum { ATTENTION_BLOCKS = ATTENTION_TILE / 8 }; /* blocks of eight columns in a tile of scores */

/* Replaces the v of the tile on the diagonal, in shared memory, by high + low = exp(v) 2^-n in two bf16; high takes
   the place of v. */
template <int D>
__device__ __forceinline__ void laser_split_tile(bf16 *high, bf16 *low, const LaserColumn *head_columns,
                                                 const bf16 *head_v, const AttentionSizes &s) {
    for (int i = (int)threadIdx.x; i < ATTENTION_TILE * Tile<D>::CHUNKS; i += ATTENTION_THREADS) {
        const int chunk = i % Tile<D>::CHUNKS, at = Tile<D>::at(i / Tile<D>::CHUNKS, chunk);
        float n[8];
        for (int c = 0; c < 8; c++) n[c] = laser_shift(head_columns, head_v, chunk * 8 + c, s);
        laser_split(high + at, low + at, n, laser_limit(s));
    }
}

/* ---- forward ---- */

/* The state of the online softmax of a lane's two rows, g and g + 8 of the warp's sixteen. */
struct SoftmaxRows {
    /* K: the running maximum of s log2(e), rounded to an integer, so that rescaling is exact */
    float shift[2];
    float sum[2]; /* of 2^(s log2(e) - K) over this lane's columns */
    float weight
        [2]; /* the same sum of the weights after rounding: the normaliser, so that weights sum to one */
    float tile_weight[2]; /* the latest tile's part of `weight` */
};

/* Turns a warp's scores (16, 64) into weights, rounded, as the left operand of the product with V; updates the rows'
   shifts and rescales the earlier sums. On the diagonal a query does not see the keys after it. row: the warp's first
   row in the tile. */
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

/* Writes a warp's rows of out and lse; for LASER, out is the logarithm of o. row: the warp's first row in the
   sequence. */
template <int D, bool LASER>
__device__ __forceinline__ void
write_output_rows(bf16 *out, uint16_t *low_bits, float *lse, float (&o)[D / 8][4], SoftmaxRows &rows,
                  const bf16 *v, const LaserColumn *columns, const AttentionSizes &s, int b, int h, int row) {
    const int lane = lane_of_warp(), t = lane % 4;
    const LaserColumn *head_columns = columns + ((int64_t)b * s.H + h) * D;
    const bf16 *head_v = v + (int64_t)b * s.T * s.qkv_row + h * D;
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
            for (int c = 0; c < 2; c++) shift[c] = laser_shift(head_columns, head_v, n * 8 + 2 * t + c, s);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int i = row + lane / 4 + 8 * r;
            if (i >= s.T) continue;
            float x = o[n][2 * r] * inverse[r], y = o[n][2 * r + 1] * inverse[r];
            const int64_t at = ((int64_t)b * s.T + i) * s.out_row + h * D + n * 8 + 2 * t;
            if (LASER) {
                const float least = s.shift == LASER_SHIFT_SEQUENCE ? LASER_LEAST : 1e-37f;
                x = laser_log(laser_at_least(x, least), shift[0]);
                y = laser_log(laser_at_least(y, least), shift[1]);
            }
            if (LASER) *(uint32_t *)(void *)(low_bits + at) = cut_low_bits(x, y);
            *(uint32_t *)(void *)(out + at) = pack_bf16(x, y);
        }
    }
}

/* Double buffering: starts the copy of tile `next` if there is one, and waits until the current tile has been copied
   for all threads. */
template <class Fetch> __device__ __forceinline__ void advance_stage(bool more, int next, Fetch fetch) {
    if (more) fetch(next);
    if (more)
        cp_async_wait<1>();
    else
        cp_async_wait<0>();
    __syncthreads();
}

/* o += what the center (D) of a tile of keys contributes: a row's sum of weights in the tile, times the center. Each
   lane has the sum over its own columns in `weight`. */
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

/* A block computes 64 queries of a head, from the keys up to them. LASER: tiles before the diagonal are read from
   `values` (N, A) and `centers`, the tile on the diagonal from v itself. */
template <int D, bool LASER>
__global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_forward_kernel(bf16 *out, uint16_t *low_bits, float *lse, const bf16 *q, const bf16 *k,
                             const bf16 *v, const bf16 *values, const float *centers,
                             const LaserColumn *columns, AttentionSizes s) {
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
        advance_stage(tile < last, tile + 1, fetch);
        bf16 *stage = stages + tile % 2 * STAGE,
             *low = stages + (tile + 1) % 2 * STAGE; /* free at the last tile */
        float score[ATTENTION_BLOCKS][4] = {};
        uint32_t a[ATTENTION_BLOCKS][2];
        if (LASER && tile == last)
            laser_split_tile<D>(stage + TILE, low, columns + head * D, v + token * s.qkv_row + h * D, s);
        product_over_d<D>(score, q_tile, row, stage, 0);
        softmax_step<D>(a, o, rows, score, s.scale * LASER_LOG2E_HIGH, tile == last, row);
        if (LASER && tile == last) __syncthreads(); /* all threads have split V' */
        product_over_rows<D>(o, a, stage + TILE, 0);
        if (LASER && tile == last) product_over_rows<D>(o, a, low, 0);
        if (LASER && tile < last) add_centers<D>(o, rows.tile_weight, center_stages + tile % 2 * D);
        __syncthreads();
    }
    write_output_rows<D, LASER>(out, low_bits, lse, o, rows, v, columns, s, b, h,
                                last * ATTENTION_TILE + row);
}

/* ---- backward ---- */

/* How many scores of a tile are computed at a time, in blocks of eight columns: as many as fit into registers beside
   the sums. */
template <int D> struct AttentionStep {
    enum { BLOCKS = D < 128 ? ATTENTION_BLOCKS : ATTENTION_BLOCKS / 2 };
};

/* Writes a warp's rows (16, D) as bf16, each element times factor(row, column). With rope's table `rope_cos_sin` they
   are rotated back first; one thread holds both elements of each pair (d, d + D/2). */
template <int D, typename Factor>
__device__ __forceinline__ void write_gradient(bf16 *to, int64_t stride, float (&x)[D / 8][4], int row, int T,
                                               const float *rope_cos_sin, Factor factor) {
    const int lane = lane_of_warp();
#pragma unroll
    for (int n = 0; n < D / 16; n++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int i = row + lane / 4 + 8 * r, d = n * 8 + lane % 4 * 2;
            if (i >= T) continue;
            float left[2], right[2]; /* columns d, d + 1 and those D/2 later */
            for (int c = 0; c < 2; c++) {
                left[c] = x[n][2 * r + c] * factor(i, d + c);
                right[c] = x[n + D / 16][2 * r + c] * factor(i, d + c + D / 2);
            }
            if (rope_cos_sin) rope_rotate_back(left, right, rope_cos_sin + (int64_t)i * D + 2 * d);
            *(uint32_t *)(void *)(to + i * stride + d) = pack_bf16(left[0], left[1]);
            *(uint32_t *)(void *)(to + i * stride + d + D / 2) = pack_bf16(right[0], right[1]);
        }
}

/* A block computes dk and dv of 64 keys of a head, from the queries at and after them. Scores have a row for each key
   and a column for each query, so that the weights are the left operand of both sums over queries. g is dout or, for
   LASER, dout exp(m - o); u is v or, for LASER, expm1(v - m). */
template <int D, bool LASER>
__global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_backward_dkdv_kernel(bf16 *dk, bf16 *dv, const bf16 *q, const bf16 *k, const bf16 *v,
                                   const bf16 *u, int64_t u_row, const bf16 *g, int64_t g_row,
                                   const float *rows, const LaserColumn *columns, const float *rope_cos_sin,
                                   AttentionSizes s) {
    enum { TILE = ATTENTION_TILE * D, BLOCKS = AttentionStep<D>::BLOCKS };
    bf16 *k_tile = shared_memory<bf16>(), *u_tile = k_tile + TILE,
         *stages = u_tile + TILE;                        /* two of q and g */
    float *stats = (float *)(void *)(stages + 4 * TILE); /* two of lse log2(e) and term of each query */
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
        if (i < ATTENTION_TILE) {
            const float *at = rows + row_at(head * padded_rows(s) + query + i);
            stat[i] = at[0], stat[ATTENTION_TILE + i] = at[ROW_TERM];
        }
    };
    load_tile<D, ATTENTION_TILE, ATTENTION_THREADS>(k_tile, k + (token + key) * s.qkv_row + h * D, s.qkv_row,
                                                    s.T - key);
    load_tile<D, ATTENTION_TILE, ATTENTION_THREADS>(u_tile, u + (token + key) * u_row + h * D, u_row,
                                                    s.T - key);
    fetch(first);
    float dk_sum[D / 8][4] = {}, dv_sum[D / 8][4] = {};
    for (int tile = first; tile < tiles; tile++) {
        advance_stage(tile + 1 < tiles, tile + 1, fetch);
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
    write_gradient<D>(dk_head, s.qkv_row, dk_sum, key + row, s.T, rope_cos_sin,
                      [&](int, int) { return s.scale; });
    write_gradient<D>(dv_head, s.qkv_row, dv_sum, key + row, s.T, nullptr,
                      [&](int t, int d) { /* dv = dv' exp(v - m) */
                                          if (!LASER) return 1.0f;
                                          const LaserColumn c = columns[head * D + d];
                                          return t < c.out_of_range_from
                                                     ? expf(to_float(v[(token + t) * s.qkv_row + h * D + d]) -
                                                            c.center)
                                                     : 0.0f;
                      });
}

/* A block computes dq of 64 queries of a head, from the keys up to them. With heads of 128 at most two blocks fit into
   shared memory, so the compiler need not save registers for a third. */
template <int D>
__global__ void __launch_bounds__(ATTENTION_THREADS, D < 128 ? 0 : 2)
    attention_backward_dq_kernel(bf16 *dq, const bf16 *q, const bf16 *k, const bf16 *u, int64_t u_row,
                                 const bf16 *g, int64_t g_row, const float *rows, const float *rope_cos_sin,
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
    float lse[2], term[2], dq_sum[D / 8][4] = {};
    for (int r = 0; r < 2; r++) {
        const float *at = rows + row_at(head * padded_rows(s) + query + row + lane / 4 + 8 * r);
        lse[r] = at[0], term[r] = at[ROW_TERM];
    }
    for (int tile = 0; tile <= last; tile++) {
        advance_stage(tile < last, tile + 1, fetch);
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
                    const float exponent = score[n][c] * (s.scale * LASER_LOG2E_HIGH) - lse[c / 2];
                    dp[n][c] = hidden ? 0 : fast_exp2(exponent) * (dp[n][c] - term[c / 2]);
                }
                for (int r = 0; r < 2; r++) ds[n][r] = pack_bf16(dp[n][2 * r], dp[n][2 * r + 1]);
            }
            product_over_rows<D>(dq_sum, ds, k_tile, part);
        }
        __syncthreads();
    }
    write_gradient<D>(dq + token * s.qkv_row + h * D, s.qkv_row, dq_sum, query + row, s.T, rope_cos_sin,
                      [&](int, int) { return s.scale; });
}

/* ---- one call ---- */

/* Writes out, low_bits, lse and columns as attention_forward of attention.cuh does, for heads of D. */
template <int D, bool LASER>
void attention_forward_mma(bf16 *out, uint16_t *low_bits, float *lse, LaserColumn *columns, const bf16 *q,
                           const bf16 *k, const bf16 *v, const AttentionWork &w, const AttentionSizes &s,
                           cudaStream_t stream) {
    const dim3 grid(blocks_for(s.T, ATTENTION_TILE), (unsigned)s.H, (unsigned)s.B);
    const size_t shared = 5 * ATTENTION_TILE * D * sizeof(bf16) + (LASER ? 2 * D * sizeof(float) : 0);
    if (LASER) laser_prepare<D, ATTENTION_TILE>(w, columns, v, s, stream);
    LAUNCH((attention_forward_kernel<D, LASER>), grid, dim3(ATTENTION_THREADS), shared, stream, out, low_bits,
           lse, q, k, v, (const bf16 *)w.values, (const float *)w.centers, (const LaserColumn *)columns, s);
    if (LASER) laser_finish(out, low_bits, lse, columns, w, ATTENTION_TILE, q, k, v, s, stream);
}

/* Writes dq, dk and dv as attention_backward of attention.cuh does, for heads of D. attention_backward_rows (laser.cuh)
   has filled `w`. */
template <int D, bool LASER>
void attention_backward_mma(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const bf16 *q, const bf16 *k,
                            const bf16 *v, const LaserColumn *columns, const float *rope_cos_sin,
                            const AttentionWork &w, const AttentionSizes &s, cudaStream_t stream) {
    const dim3 grid(blocks_for(s.T, ATTENTION_TILE), (unsigned)s.H, (unsigned)s.B);
    const int64_t A = (int64_t)s.H * D;
    const bf16 *u = LASER ? w.centered_v : v, *g = LASER ? w.scaled_dout : dout;
    const int64_t u_row = LASER ? A : s.qkv_row, g_row = LASER ? A : s.out_row;
    const size_t tile = ATTENTION_TILE * D * sizeof(bf16), stats = 4 * ATTENTION_TILE * sizeof(float);
    LAUNCH((attention_backward_dkdv_kernel<D, LASER>), grid, dim3(ATTENTION_THREADS), 6 * tile + stats,
           stream, dk, dv, q, k, v, u, u_row, g, g_row, (const float *)w.rows, columns, rope_cos_sin, s);
    LAUNCH(attention_backward_dq_kernel<D>, grid, dim3(ATTENTION_THREADS), 6 * tile, stream, dq, q, k, u,
           u_row, g, g_row, (const float *)w.rows, rope_cos_sin, s);
}

#endif
