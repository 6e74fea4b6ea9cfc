/* attention_hopper_backward.cuh: the two backward kernels of attention for compute capability 9.0: one computes dk
   and dv, the other dq. attention_hopper.cuh describes the roles of the warpgroups, tiles and fragments. */
#ifndef CUDA_ATTENTION_HOPPER_BACKWARD_CUH
#define CUDA_ATTENTION_HOPPER_BACKWARD_CUH

#include <type_traits>
#include "attention_hopper_tiles.cuh"
#include "laser.cuh"

#ifdef HOPPER_CODE

/* Writes a consumer's accumulators (64, D), times scale, to its rows of a tile in shared memory. With rope's table
   `rope_cos_sin` they are rotated back first; `token` is the first token of the tile. */
template <int D>
__device__ __forceinline__ void hopper_write_gradient(bf16 *tile, const float (&x)[D / 2], float scale,
                                                      int row, int pair, const float *rope_cos_sin, int token,
                                                      int T) {
    row = hopper_opaque(row), pair = hopper_opaque(pair);
#pragma unroll
    for (int n = 0; n < D / 16; n++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float left[2], right[2]; /* columns d and d + 1; columns d + D/2 and d + D/2 + 1 */
            for (int e = 0; e < 2; e++) {
                left[e] = x[4 * n + 2 * r + e] * scale;
                right[e] = x[4 * (n + D / 16) + 2 * r + e] * scale;
            }
            const int t = token + row + 8 * r;
            if (rope_cos_sin && t < T)
                rope_rotate_back(left, right, rope_cos_sin + (int64_t)t * D + 2 * (8 * n + pair));
            bf16 *at = tile + hopper_tile_offset<HOPPER_TILE>(row + 8 * r, 8 * n + pair);
            *(uint32_t *)(void *)at = pack_bf16(left[0], left[1]);
            at = tile + hopper_tile_offset<HOPPER_TILE>(row + 8 * r, 8 * n + pair + D / 2);
            *(uint32_t *)(void *)at = pack_bf16(right[0], right[1]);
        }
}

/* dv (64, D) *= exp(v - m), where the tile holds expm1(v - m): LASER's dv is dv' exp(v - m). */
template <int D>
__device__ __forceinline__ void hopper_multiply_by_exp(float (&dv)[D / 2], const bf16 *tile, int row,
                                                       int pair) {
    row = hopper_opaque(row), pair = hopper_opaque(pair);
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const uint32_t u = *(const uint32_t *)(const void *)(tile + hopper_tile_offset<HOPPER_TILE>(
                                                                            row + 8 * r, 8 * n + pair));
            dv[4 * n + 2 * r] *= 1 + bf16_low(u), dv[4 * n + 2 * r + 1] *= 1 + bf16_high(u);
        }
}

/* The shared memory of hopper_backward_dkdv_kernel: the tiles of a piece of work, a pipeline of queries with their
   rows, the queue, and a full and an empty barrier for each thing that is loaded. */
template <int D> struct HopperDkDvShared {
    enum { STAGES = 3, TILE = HOPPER_TILE * D, HALF = HOPPER_HALF_TILE * D };
    alignas(1024) bf16 k[TILE];
    alignas(1024) bf16 u[TILE];
    alignas(1024) bf16 dk[TILE];
    alignas(1024) bf16 dv[TILE];
    struct {
        alignas(1024) bf16 q[HALF];
        alignas(1024) bf16 g[HALF];
    } stage[STAGES];
    float rows[STAGES][2 * HOPPER_HALF_TILE]; /* 64 lse, then 64 terms, since ROW_TERM is HOPPER_HALF_TILE */
    HopperQueue queue;
    SharedBarrier k_full, k_empty, u_full, u_empty, full[STAGES], empty[STAGES];
};

/* The same of hopper_backward_dq_kernel, with a pipeline of keys. */
template <int D> struct HopperDqShared {
    enum { STAGES = D == 128 ? 2 : 3, TILE = HOPPER_TILE * D };
    alignas(1024) bf16 q[TILE];
    alignas(1024) bf16 g[TILE];
    alignas(1024) bf16 dq[TILE];
    struct {
        alignas(1024) bf16 k[TILE];
        alignas(1024) bf16 u[TILE];
    } stage[STAGES];
    HopperQueue queue;
    SharedBarrier q_full, q_empty, g_full, g_empty, full[STAGES], empty[STAGES];
};

#endif

/* How the operands and the results lie in global memory, for the TMA unit. u is v or, for LASER, expm1(v - m); g is
   dout or, for LASER, dout exp(m - o). */
struct HopperDkDvMaps {
    TensorMap k, u, q, g, dk, dv;
};
struct HopperDqMaps {
    TensorMap q, g, k, u, dq;
};

/* Writes dk and dv through maps. rows: AttentionWork.rows (laser.cuh). rope_cos_sin (T, D/2, 2) or NULL. */
template <int D, bool LASER>
__global__ void __launch_bounds__(HOPPER_THREADS, 1)
    hopper_backward_dkdv_kernel(const __grid_constant__ HopperDkDvMaps maps, const float *rows,
                                const float *rope_cos_sin, HopperOrder order, AttentionSizes s) {
#ifdef HOPPER_CODE
    typedef HopperDkDvShared<D> Shared;
    enum { STAGES = Shared::STAGES };
    Shared &sh = *shared_memory<Shared>();
    const int tiles_of_queries = (s.T + HOPPER_HALF_TILE - 1) / HOPPER_HALF_TILE;
    if (threadIdx.x == 0) {
        hopper_queue_init(&sh.queue);
        barrier_init(&sh.k_full, 1), barrier_init(&sh.k_empty, HOPPER_ARRIVALS);
        barrier_init(&sh.u_full, 1), barrier_init(&sh.u_empty, HOPPER_ARRIVALS);
        for (int i = 0; i < STAGES; i++)
            barrier_init(&sh.full[i], 1), barrier_init(&sh.empty[i], HOPPER_ARRIVALS);
        barrier_init_done();
    }
    __syncthreads();
    if (threadIdx.x < HOPPER_WARPGROUP) {
        registers_decrease<HOPPER_PRODUCER_REGISTERS>();
        if (threadIdx.x == 0) {
            HopperStage<STAGES> stage = {0, 0};
            const uint32_t bytes = Shared::TILE * sizeof(bf16);
            for (int count = 0, number = hopper_next_number();; count++) {
                const HopperPiece piece = hopper_piece(order, number, false, s);
                hopper_queue_put(&sh.queue, count, piece);
                if (piece.tile < 0) break;
                const int column = piece.h * D, b = piece.b, key = piece.tile * HOPPER_TILE;
                const uint32_t free = (uint32_t)(count & 1) ^ 1;
                const float *head_rows = rows + row_at((int64_t)piece.head * padded_rows(s));
                number = hopper_next_number();
                barrier_wait(&sh.k_empty, free);
                barrier_expect(&sh.k_full, bytes);
                hopper_load_tile<D, HOPPER_TILE>(sh.k, &maps.k, column, key, b, &sh.k_full);
                for (int tile = 2 * piece.tile; tile < tiles_of_queries; tile++) {
                    const int query = tile * HOPPER_HALF_TILE;
                    SharedBarrier *full = &sh.full[stage.at];
                    barrier_wait(&sh.empty[stage.at], stage.phase ^ 1);
                    barrier_expect(full, bytes + 2 * HOPPER_HALF_TILE * sizeof(float));
                    hopper_load_tile<D, HOPPER_HALF_TILE>(sh.stage[stage.at].q, &maps.q, column, query, b,
                                                          full);
                    bulk_load(sh.rows[stage.at], head_rows + 2 * query, 2 * HOPPER_HALF_TILE * sizeof(float),
                              full);
                    if (tile == 2 * piece.tile) {
                        barrier_wait(&sh.u_empty, free);
                        barrier_expect(&sh.u_full, bytes);
                        hopper_load_tile<D, HOPPER_TILE>(sh.u, &maps.u, column, key, b, &sh.u_full);
                    }
                    hopper_load_tile<D, HOPPER_HALF_TILE>(sh.stage[stage.at].g, &maps.g, column, query, b,
                                                          full);
                    stage.next();
                }
            }
            hopper_producer_done();
        }
    } else {
        registers_increase<HOPPER_CONSUMER_REGISTERS>();
        const int consumer = hopper_consumer_number(), thread = (int)threadIdx.x % HOPPER_WARPGROUP;
        const int lane = thread % WARP_SIZE, pair = lane % 4 * 2;
        const int row =
            consumer * HOPPER_HALF_TILE + thread / WARP_SIZE * 16 + lane / 4; /* key of the tile */
        const float scale_log2e = s.scale * LASER_LOG2E_HIGH;
        const uint64_t q_tile = wgmma_descriptor(sh.stage[0].q, HOPPER_HALF_TILE * 128),
                       g_tile = hopper_descriptor_at(q_tile, sh.stage[0].q, sh.stage[0].g),
                       k_rows = hopper_descriptor_at(q_tile, sh.stage[0].q,
                                                     sh.k + consumer * HOPPER_HALF_TILE * 64),
                       u_rows = hopper_descriptor_at(k_rows, sh.k, sh.u);
        const uint64_t next_stage = sizeof(sh.stage[0]) / 16;
        HopperStage<STAGES> stage = {0, 0};
        for (int count = 0;; count++) {
            const HopperPiece &piece = hopper_queue_get(&sh.queue, count);
            const int own_tile = piece.tile;
            if (own_tile < 0) break;
            float dk[D / 2], dv[D / 2], x[32];
#pragma unroll
            for (int i = 0; i < D / 2; i++) dk[i] = dv[i] = 0;
            const int queries_from_here = (tiles_of_queries - 2 * own_tile) * HOPPER_HALF_TILE;
            barrier_wait(&sh.k_full, (uint32_t)(count & 1));
            barrier_wait(&sh.full[stage.at], stage.phase);
            int query = 0;
            if (consumer == 1 &&
                queries_from_here > HOPPER_HALF_TILE) { /* the first queries are before its keys */
                hopper_release(&sh.empty[stage.at]);
                stage.next();
                barrier_wait(&sh.full[stage.at], stage.phase);
                query = HOPPER_HALF_TILE;
            }
            fence_registers(x), wgmma_fence();
            hopper_scores<D, HOPPER_TILE, HOPPER_HALF_TILE>(x, k_rows,
                                                            q_tile + (uint64_t)stage.at * next_stage);
            wgmma_commit(), wgmma_wait<0>(), fence_registers(x);
            barrier_wait(&sh.u_full, (uint32_t)(count & 1));

            /* One step: 64 queries, the first of which is `query` after the tile's first key, and whose scores x have
               been computed. The product dP runs while the weights are computed, and the product for dv while ds is.
               The product for dk is issued together with the scores of the next step, if there is one (`more`). */
            auto queries = [&](auto more, int query) {
                float dp[32];
                uint32_t p[16], ds[16];
                const HopperStage<STAGES> now = stage;
                const uint64_t q = q_tile + (uint64_t)now.at * next_stage,
                               g = g_tile + (uint64_t)now.at * next_stage;
                stage.next();
                fence_registers(dp), wgmma_fence();
                hopper_scores<D, HOPPER_TILE, HOPPER_HALF_TILE>(dp, u_rows, g);
                wgmma_commit();
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    const float2 lse = *(const float2 *)(const void *)&sh.rows[now.at][8 * n + pair];
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        float &weight = x[4 * n + i];
                        weight = fast_exp2(fmaf(weight, scale_log2e, i % 2 ? -lse.y : -lse.x));
                    }
                }
                if (query < HOPPER_TILE) /* on the diagonal */
#pragma unroll
                    for (int i = 0; i < 32; i++)
                        if (row + 8 * (i / 2 % 2) > query + i / 4 * 8 + pair + i % 2) x[i] = 0;
                hopper_pack_bf16(p, x);
                fence_registers(p), fence_registers(dv), wgmma_fence();
                hopper_weighted_sum(dv, p, g);
                wgmma_commit();
                wgmma_wait<1>(), fence_registers(dp);
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    const float2 term =
                        *(const float2 *)(const void *)&sh.rows[now.at][ROW_TERM + 8 * n + pair];
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        dp[4 * n + i] = x[4 * n + i] * (dp[4 * n + i] - (i % 2 ? term.y : term.x));
                }
                if (own_tile == 0 && query == 0 && pair == 0) dp[0] = dp[2] = 0; /* row 0 has one key */
                hopper_pack_bf16(ds, dp);
                fence_registers(ds), fence_registers(dk), fence_registers(x), wgmma_fence();
                hopper_weighted_sum(dk, ds, q);
                wgmma_commit();
                if constexpr (decltype(more)::value) {
                    barrier_wait(&sh.full[stage.at], stage.phase);
                    hopper_scores<D, HOPPER_TILE, HOPPER_HALF_TILE>(x, k_rows,
                                                                    q_tile + (uint64_t)stage.at * next_stage);
                    wgmma_commit();
                }
                wgmma_wait<0>(), fence_registers(dk), fence_registers(dv), fence_registers(p),
                    fence_registers(ds), fence_registers(x);
                hopper_release(&sh.empty[now.at]);
            };
            for (; query < queries_from_here - HOPPER_HALF_TILE; query += HOPPER_HALF_TILE)
                queries(std::true_type(), query);
            queries(std::false_type(), query);
            hopper_release(&sh.k_empty);
            if (LASER) hopper_multiply_by_exp<D>(dv, sh.u, row, pair);
            hopper_release(&sh.u_empty);

            if (thread == 0) bulk_wait_read(); /* the store of the previous results has read them */
            named_barrier_sync(HOPPER_RESULT_BARRIER + consumer, HOPPER_WARPGROUP);
            const int key = piece.tile * HOPPER_TILE;
            hopper_write_gradient<D>(sh.dk, dk, s.scale, row, pair, rope_cos_sin, key, s.T);
            hopper_write_gradient<D>(sh.dv, dv, 1, row, pair, nullptr, key, s.T);
            fence_async_proxy();
            named_barrier_sync(HOPPER_RESULT_BARRIER + consumer, HOPPER_WARPGROUP);
            if (thread == 0) {
                hopper_store_rows<D>(&maps.dk, sh.dk, piece.h * D, key, piece.b, consumer);
                hopper_store_rows<D>(&maps.dv, sh.dv, piece.h * D, key, piece.b, consumer);
                bulk_commit();
            }
            hopper_release(&sh.queue.empty[count % HopperQueue::SLOTS]);
        }
        if (thread == 0) bulk_wait_read();
    }
#endif
}

/* Writes dq through maps. rows and rope_cos_sin: see above. */
template <int D>
__global__ void __launch_bounds__(HOPPER_THREADS, 1)
    hopper_backward_dq_kernel(const __grid_constant__ HopperDqMaps maps, const float *rows,
                              const float *rope_cos_sin, HopperOrder order, AttentionSizes s) {
#ifdef HOPPER_CODE
    typedef HopperDqShared<D> Shared;
    enum { STAGES = Shared::STAGES };
    Shared &sh = *shared_memory<Shared>();
    if (threadIdx.x == 0) {
        hopper_queue_init(&sh.queue);
        barrier_init(&sh.q_full, 1), barrier_init(&sh.q_empty, HOPPER_ARRIVALS);
        barrier_init(&sh.g_full, 1), barrier_init(&sh.g_empty, HOPPER_ARRIVALS);
        for (int i = 0; i < STAGES; i++)
            barrier_init(&sh.full[i], 1), barrier_init(&sh.empty[i], HOPPER_ARRIVALS);
        barrier_init_done();
    }
    __syncthreads();
    if (threadIdx.x < HOPPER_WARPGROUP) {
        registers_decrease<HOPPER_PRODUCER_REGISTERS>();
        if (threadIdx.x == 0) {
            HopperStage<STAGES> stage = {0, 0};
            const uint32_t bytes = Shared::TILE * sizeof(bf16);
            for (int count = 0, number = hopper_next_number();; count++) {
                const HopperPiece piece = hopper_piece(order, number, true, s);
                hopper_queue_put(&sh.queue, count, piece);
                if (piece.tile < 0) break;
                const int column = piece.h * D, b = piece.b, query = piece.tile * HOPPER_TILE;
                const uint32_t free = (uint32_t)(count & 1) ^ 1;
                number = hopper_next_number();
                barrier_wait(&sh.q_empty, free);
                barrier_expect(&sh.q_full, bytes);
                hopper_load_tile<D, HOPPER_TILE>(sh.q, &maps.q, column, query, b, &sh.q_full);
                for (int tile = 0; tile <= piece.tile; tile++) { /* of keys, up to the diagonal */
                    SharedBarrier *full = &sh.full[stage.at];
                    barrier_wait(&sh.empty[stage.at], stage.phase ^ 1);
                    barrier_expect(full, 2 * bytes);
                    hopper_load_tile<D, HOPPER_TILE>(sh.stage[stage.at].k, &maps.k, column,
                                                     tile * HOPPER_TILE, b, full);
                    if (tile == 0) {
                        barrier_wait(&sh.g_empty, free);
                        barrier_expect(&sh.g_full, bytes);
                        hopper_load_tile<D, HOPPER_TILE>(sh.g, &maps.g, column, query, b, &sh.g_full);
                    }
                    hopper_load_tile<D, HOPPER_TILE>(sh.stage[stage.at].u, &maps.u, column,
                                                     tile * HOPPER_TILE, b, full);
                    stage.next();
                }
            }
            hopper_producer_done();
        }
    } else {
        registers_increase<HOPPER_CONSUMER_REGISTERS>();
        const int consumer = hopper_consumer_number(), thread = (int)threadIdx.x % HOPPER_WARPGROUP;
        const int lane = thread % WARP_SIZE, pair = lane % 4 * 2;
        const int row =
            consumer * HOPPER_HALF_TILE + thread / WARP_SIZE * 16 + lane / 4; /* query of the tile */
        const float scale_log2e = s.scale * LASER_LOG2E_HIGH;
        const uint64_t k_tile = wgmma_descriptor(sh.stage[0].k, HOPPER_TILE * 128),
                       u_tile = hopper_descriptor_at(k_tile, sh.stage[0].k, sh.stage[0].u),
                       q_rows = hopper_descriptor_at(k_tile, sh.stage[0].k,
                                                     sh.q + consumer * HOPPER_HALF_TILE * 64),
                       g_rows = hopper_descriptor_at(q_rows, sh.q, sh.g);
        const uint64_t next_stage = sizeof(sh.stage[0]) / 16;
        HopperStage<STAGES> stage = {0, 0};
        for (int count = 0;; count++) {
            const HopperPiece &piece = hopper_queue_get(&sh.queue, count);
            const int own_tile = piece.tile;
            if (own_tile < 0) break;
            float dq[D / 2], x[64], lse[2], term[2];
            for (int r = 0; r < 2; r++) {
                const float *at = rows + row_at((int64_t)piece.head * padded_rows(s) +
                                                own_tile * HOPPER_TILE + row + 8 * r);
                lse[r] = at[0], term[r] = at[ROW_TERM];
            }
#pragma unroll
            for (int i = 0; i < D / 2; i++) dq[i] = 0;
            barrier_wait(&sh.q_full, (uint32_t)(count & 1));
            barrier_wait(&sh.full[stage.at], stage.phase);
            fence_registers(x), wgmma_fence();
            hopper_scores<D, HOPPER_TILE, HOPPER_TILE>(x, q_rows, k_tile + (uint64_t)stage.at * next_stage);
            wgmma_commit(), wgmma_wait<0>(), fence_registers(x);
            barrier_wait(&sh.g_full, (uint32_t)(count & 1));

            /* One step: 128 keys, whose scores x have been computed. The last step's keys are those on the
               diagonal; there the first consumer needs only 64 of them. */
            auto keys = [&](auto diagonal, auto count_of_keys) {
                constexpr bool DIAGONAL = decltype(diagonal)::value;
                constexpr int KEYS = decltype(count_of_keys)::value;
                float dp[KEYS / 2];
                uint32_t ds[KEYS / 4];
                const HopperStage<STAGES> now = stage;
                const uint64_t k = k_tile + (uint64_t)now.at * next_stage,
                               u = u_tile + (uint64_t)now.at * next_stage;
                stage.next();
                fence_registers(dp), wgmma_fence();
                hopper_scores<D, HOPPER_TILE, HOPPER_TILE>(dp, g_rows, u);
                wgmma_commit();
#pragma unroll
                for (int i = 0; i < KEYS / 2; i++) x[i] = fast_exp2(fmaf(x[i], scale_log2e, -lse[i / 2 % 2]));
                if (DIAGONAL)
#pragma unroll
                    for (int i = 0; i < KEYS / 2; i++)
                        if (i / 4 * 8 + pair + i % 2 > row + 8 * (i / 2 % 2)) x[i] = 0;
                wgmma_wait<0>(), fence_registers(dp);
#pragma unroll
                for (int i = 0; i < KEYS / 2; i++) dp[i] = x[i] * (dp[i] - term[i / 2 % 2]);
                if (DIAGONAL && own_tile == 0 && row == 0) dp[0] = dp[1] = 0; /* row 0 has one key */
                hopper_pack_bf16(ds, dp);
                fence_registers(ds), fence_registers(dq), fence_registers(x), wgmma_fence();
                hopper_weighted_sum(dq, ds, k);
                wgmma_commit();
                if constexpr (!DIAGONAL) {
                    barrier_wait(&sh.full[stage.at], stage.phase);
                    hopper_scores<D, HOPPER_TILE, HOPPER_TILE>(x, q_rows,
                                                               k_tile + (uint64_t)stage.at * next_stage);
                    wgmma_commit();
                }
                wgmma_wait<0>(), fence_registers(dq), fence_registers(ds), fence_registers(x);
                hopper_release(&sh.empty[now.at]);
            };
            typedef std::integral_constant<int, HOPPER_TILE> Tile;
            for (int tile = 0; tile < own_tile; tile++) keys(std::false_type(), Tile());
            if (consumer == 0)
                keys(std::true_type(), std::integral_constant<int, HOPPER_HALF_TILE>());
            else
                keys(std::true_type(), Tile());
            hopper_release(&sh.q_empty), hopper_release(&sh.g_empty);

            if (thread == 0) bulk_wait_read(); /* the store of the previous results has read them */
            named_barrier_sync(HOPPER_RESULT_BARRIER + consumer, HOPPER_WARPGROUP);
            hopper_write_gradient<D>(sh.dq, dq, s.scale, row, pair, rope_cos_sin, piece.tile * HOPPER_TILE,
                                     s.T);
            fence_async_proxy();
            named_barrier_sync(HOPPER_RESULT_BARRIER + consumer, HOPPER_WARPGROUP);
            if (thread == 0) {
                hopper_store_rows<D>(&maps.dq, sh.dq, piece.h * D, piece.tile * HOPPER_TILE, piece.b,
                                     consumer);
                bulk_commit();
            }
            hopper_release(&sh.queue.empty[count % HopperQueue::SLOTS]);
        }
        if (thread == 0) bulk_wait_read();
    }
#endif
}

#endif
