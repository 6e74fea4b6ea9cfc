/* attention_hopper_forward.cuh: the forward kernel of attention for compute capability 9.0. attention_hopper.cuh
   describes the roles of the warpgroups, tiles and fragments. */
#ifndef CUDA_ATTENTION_HOPPER_FORWARD_CUH
#define CUDA_ATTENTION_HOPPER_FORWARD_CUH

#include <type_traits>
#include "attention_hopper_tiles.cuh"
#include "laser.cuh"

#ifdef HOPPER_CODE

/* One step of the online softmax. x holds a consumer's scores of 64 queries and 2 R keys; each thread has R of them, of
   two rows (see Fragments in attention_hopper.cuh), not yet multiplied by scale. Each score becomes the weight 2^(x
   scale_log2e - shift), where shift is the row's running maximum `largest` times scale_log2e. Updates `largest`, writes
   the sum of this thread's weights of row h to weight[h], and to `rescale` the factor by which earlier results of the
   row must be multiplied. MASK: the tile is on the diagonal, and later keys are hidden. */
template <bool MASK, int R>
__device__ __forceinline__ void hopper_softmax(float (&x)[R], float (&largest)[2], float (&weight)[2],
                                               float (&rescale)[2], float scale_log2e, int row, int pair) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float maximum = largest[h];
#pragma unroll
        for (int n = 0; n < R / 4; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float &score = x[4 * n + 2 * h + e];
                if (MASK && 8 * n + pair + e > row + 8 * h) score = -INFINITY;
                maximum = fmaxf(maximum, score);
            }
        maximum = fmaxf(maximum, __shfl_xor_sync(0xFFFFFFFFu, maximum, 1));
        maximum = fmaxf(maximum, __shfl_xor_sync(0xFFFFFFFFu, maximum, 2));
        rescale[h] = fast_exp2((largest[h] - maximum) * scale_log2e);
        largest[h] = maximum;
        const float shift = maximum * scale_log2e;
        float even = 0, odd = 0;
#pragma unroll
        for (int n = 0; n < R / 4; n++) {
            float &left = x[4 * n + 2 * h], &right = x[4 * n + 2 * h + 1];
            left = fast_exp2(fmaf(left, scale_log2e, -shift)), even += left;
            right = fast_exp2(fmaf(right, scale_log2e, -shift)), odd += right;
        }
        weight[h] = even + odd;
    }
}

/* weight = the sum of a lane's weights, after they have been rounded, for each of its two rows. */
__device__ __forceinline__ void hopper_sum_rounded_weights(float (&weight)[2], const uint32_t (&pairs)[32]) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float even = 0, odd = 0;
#pragma unroll
        for (int n = 0; n < 16; n++) even += bf16_low(pairs[2 * n + h]), odd += bf16_high(pairs[2 * n + h]);
        weight[h] = even + odd;
    }
}

/* Returns the sum over the four lanes that hold a row. */
__device__ __forceinline__ float hopper_row_sum(float x) {
    x += __shfl_xor_sync(0xFFFFFFFFu, x, 1);
    return x + __shfl_xor_sync(0xFFFFFFFFu, x, 2);
}

/* o = o rescale + weight rescale center: rescales LASER's sums o and adds what the centers (D) of a tile contribute
   to them. */
template <int R>
__device__ __forceinline__ void hopper_add_center(float (&o)[R], const float (&weight)[2],
                                                  const float (&rescale)[2], const float *center, int pair) {
    const float top = weight[0] * rescale[0], bottom = weight[1] * rescale[1];
#pragma unroll
    for (int n = 0; n < R / 4; n++) {
        const float2 c = *(const float2 *)(const void *)(center + 8 * n + pair);
        o[4 * n] = fmaf(top, c.x, o[4 * n] * rescale[0]),
              o[4 * n + 1] = fmaf(top, c.y, o[4 * n + 1] * rescale[0]);
        o[4 * n + 2] = fmaf(bottom, c.x, o[4 * n + 2] * rescale[1]);
        o[4 * n + 3] = fmaf(bottom, c.y, o[4 * n + 3] * rescale[1]);
    }
}

/* Used for the tile on the diagonal. Once its v have been loaded, the threads of a consumer replace the v of 64 keys by
   high + low = exp(v) 2^-n in two bf16, and write n (D) to `shift`. `low` also holds the low bits of the results of the
   previous piece while they are copied to global memory, so the threads first wait until that copy has read it. */
template <int D>
__device__ __forceinline__ void hopper_split_values(bf16 *high, bf16 *low, float *shift,
                                                    const LaserColumn *head_columns, const bf16 *head_v,
                                                    int consumer, int thread, SharedBarrier *v_full,
                                                    uint32_t v_phase, const AttentionSizes &s) {
    enum { CHUNKS = D / 8, ROWS = HOPPER_WARPGROUP / CHUNKS };
    const int column = thread % CHUNKS * 8, first = consumer * HOPPER_HALF_TILE + thread / CHUNKS;
    float n[8];
    if (s.shift == LASER_SHIFT_CAUSAL) {
        load(n, head_v + column);
#pragma unroll
        for (int c = 0; c < 8; c++) n[c] = rintf(n[c] * LASER_LOG2E_HIGH);
    } else
#pragma unroll
        for (int c = 0; c < 8; c++) n[c] = head_columns[column + c].shift;
    if (thread == 0) bulk_wait_read();
    named_barrier_sync(HOPPER_RESULT_BARRIER + consumer, HOPPER_WARPGROUP);
    store(shift + column, n); /* several threads write the same numbers */
    barrier_wait(v_full, v_phase);
#pragma unroll 2
    for (int row = first; row < consumer * HOPPER_HALF_TILE + HOPPER_HALF_TILE; row += ROWS) {
        const int at = hopper_tile_offset<HOPPER_TILE>(row, column);
        laser_split(high + at, low + at, n, laser_limit(s));
    }
    fence_async_proxy();
}

/* The shared memory of hopper_forward_kernel: the tiles of a piece of work, its queue, and a full and an empty
   barrier for each thing that is loaded. */
template <int D, bool LASER> struct HopperForwardShared {
    enum { STAGES = 2, TILE = HOPPER_TILE * D };
    alignas(1024) bf16 q[TILE];
    alignas(1024) bf16 k[STAGES][TILE];
    alignas(1024) bf16 v[STAGES][TILE];
    alignas(1024) bf16 out[TILE];
    /* V' on the diagonal less its value rounded to bf16; then the low bits of out */
    alignas(1024) bf16 low[LASER ? TILE : 64];
    float center[STAGES][D];
    float shift[2][D]; /* of this piece of work and of the one before */
    HopperQueue queue;
    SharedBarrier q_full, q_empty, k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
    SharedBarrier split, low_empty; /* LASER: V' of the diagonal is split; both consumers have used it */
};

#endif

/* How q, k, v, V' and the results lie in global memory, for the TMA unit. */
struct HopperForwardMaps {
    TensorMap q, k, v, values, out, low_bits;
};

/* Writes out (and low_bits) through maps, and lse (B, H, T). LASER: centers (B, H, tiles, D) and columns (B, H, D). */
template <int D, bool LASER, bool PINGPONG>
__global__ void __launch_bounds__(HOPPER_THREADS, 1)
    hopper_forward_kernel(const __grid_constant__ HopperForwardMaps maps, float *lse, const float *centers,
                          const bf16 *v, const LaserColumn *columns, HopperOrder order, AttentionSizes s) {
#ifdef HOPPER_CODE
    typedef HopperForwardShared<D, LASER> Shared;
    enum { STAGES = Shared::STAGES };
    Shared &sh = *shared_memory<Shared>();
    if (threadIdx.x == 0) {
        hopper_queue_init(&sh.queue);
        barrier_init(&sh.q_full, 1), barrier_init(&sh.q_empty, HOPPER_ARRIVALS);
        barrier_init(&sh.split, HOPPER_ARRIVALS), barrier_init(&sh.low_empty, HOPPER_ARRIVALS);
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&sh.k_full[i], 1), barrier_init(&sh.k_empty[i], HOPPER_ARRIVALS);
            barrier_init(&sh.v_full[i], 1), barrier_init(&sh.v_empty[i], HOPPER_ARRIVALS);
        }
        barrier_init_done();
    }
    __syncthreads();
    if (threadIdx.x < HOPPER_WARPGROUP) {
        registers_decrease<HOPPER_PRODUCER_REGISTERS>();
        HopperStage<STAGES> stage = {0, 0};
        if (threadIdx.x == 0) {
            const uint32_t bytes = Shared::TILE * sizeof(bf16);
            for (int count = 0, number = hopper_next_number();; count++) {
                const HopperPiece piece = hopper_piece(order, number, true, s);
                hopper_queue_put(&sh.queue, count, piece);
                if (piece.tile < 0) break;
                number = hopper_next_number();
                for (int tile = piece.tile; tile >= 0; tile--) { /* of keys, from the diagonal down */
                    const int key = tile * HOPPER_TILE;
                    barrier_wait(&sh.k_empty[stage.at], stage.phase ^ 1);
                    barrier_expect(&sh.k_full[stage.at], bytes);
                    hopper_load_tile<D, HOPPER_TILE>(sh.k[stage.at], &maps.k, piece.h * D, key, piece.b,
                                                     &sh.k_full[stage.at]);
                    if (tile == piece.tile) {
                        barrier_wait(&sh.q_empty, (uint32_t)(count & 1) ^ 1);
                        barrier_expect(&sh.q_full, bytes);
                        hopper_load_tile<D, HOPPER_TILE>(sh.q, &maps.q, piece.h * D, key, piece.b,
                                                         &sh.q_full);
                    }
                    SharedBarrier *full = &sh.v_full[stage.at];
                    barrier_wait(&sh.v_empty[stage.at], stage.phase ^ 1);
                    if (LASER && tile < piece.tile) {
                        barrier_expect(full, bytes + D * sizeof(float));
                        hopper_load_tile<D, HOPPER_TILE>(sh.v[stage.at], &maps.values, piece.h * D, key,
                                                         piece.b, full);
                        bulk_load(sh.center[stage.at],
                                  centers + ((int64_t)piece.head * order.tiles + tile) * D, D * sizeof(float),
                                  full);
                    } else {
                        barrier_expect(full, bytes);
                        hopper_load_tile<D, HOPPER_TILE>(sh.v[stage.at], &maps.v, piece.h * D, key, piece.b,
                                                         full);
                    }
                    stage.next();
                }
            }
            hopper_producer_done();
        }
    } else {
        registers_increase<HOPPER_CONSUMER_REGISTERS>();
        const int consumer = hopper_consumer_number(), thread = (int)threadIdx.x % HOPPER_WARPGROUP;
        const int lane = thread % WARP_SIZE, pair = lane % 4 * 2;
        const int row = consumer * HOPPER_HALF_TILE + thread / WARP_SIZE * 16 + lane / 4; /* of the tile */
        const float scale_log2e = s.scale * LASER_LOG2E_HIGH;
        /* Descriptors differ only by the distances between their tiles. */
        const uint64_t k_tile = wgmma_descriptor(sh.k, HOPPER_TILE * 128),
                       q_rows =
                           hopper_descriptor_at(k_tile, sh.k[0], sh.q + consumer * HOPPER_HALF_TILE * 64),
                       v_tile = hopper_descriptor_at(k_tile, sh.k[0], sh.v[0]),
                       low_tile = hopper_descriptor_at(k_tile, sh.k[0], sh.low);
        const uint64_t next_stage = Shared::TILE * sizeof(bf16) / 16; /* between descriptors of stages */
        HopperStage<STAGES> stage = {0, 0};
        /* With PINGPONG the first turn is that of consumer 0: it needs no arrival of the other one. */
        if (PINGPONG && consumer == 0) named_barrier_arrive(HOPPER_TURN_BARRIER, 2 * HOPPER_WARPGROUP);
        for (int count = 0;; count++) {
            const HopperPiece &piece = hopper_queue_get(&sh.queue, count);
            const int own_tile = piece.tile;
            if (own_tile < 0) break;
            const uint32_t phase = (uint32_t)(count & 1); /* of barriers that have one phase for each piece */
            float o[D / 2], x[64], largest[2] = {-INFINITY, -INFINITY}, rescale[2];
            float sum[2],
                weight[2] = {0, 0}; /* of this lane's weights: all so far, and those of the last tile */
            uint32_t p[32];
#pragma unroll
            for (int i = 0; i < D / 2; i++) o[i] = 0;

            /* Weights of the tile on the diagonal, of whose keys the first consumer's queries see only 64. */
            barrier_wait(&sh.q_full, phase);
            barrier_wait(&sh.k_full[stage.at], stage.phase);
            auto diagonal = [&](auto count_of_keys) {
                constexpr int KEYS = decltype(count_of_keys)::value;
                float d[KEYS / 2];
                fence_registers(d), wgmma_fence();
                hopper_scores<D, HOPPER_TILE, HOPPER_TILE>(d, q_rows,
                                                           k_tile + (uint64_t)stage.at * next_stage);
                wgmma_commit();
                if (LASER) { /* while the product runs, split V' of this consumer's keys */
                    const bf16 *head_v = v + (int64_t)piece.b * s.T * s.qkv_row + piece.h * D;
                    hopper_split_values<D>(sh.v[stage.at], sh.low, sh.shift[phase],
                                           columns + (int64_t)piece.head * D, head_v, consumer, thread,
                                           &sh.v_full[stage.at], stage.phase, s);
                    hopper_release(&sh.split);
                }
                wgmma_wait<0>(), fence_registers(d);
                hopper_release(&sh.k_empty[stage.at]);
                hopper_softmax<true>(d, largest, sum, rescale, scale_log2e, row, pair);
#pragma unroll
                for (int i = 0; i < 32; i++)
                    p[i] = i < KEYS / 4 ? pack_bf16(d[2 * i % (KEYS / 2)], d[2 * i % (KEYS / 2) + 1]) : 0;
            };
            if (consumer == 0)
                diagonal(std::integral_constant<int, HOPPER_HALF_TILE>());
            else
                diagonal(std::integral_constant<int, HOPPER_TILE>());
            /* The product uses weights that were rounded to bf16. In this tile it multiplies the whole of V', so the
               row must be divided by the sum of the rounded weights. In the other tiles the product multiplies only the
               small difference V' - center; the center, the larger part of V', is multiplied by the sum of the weights,
               which must therefore be the sum before rounding. */
            if (LASER) hopper_sum_rounded_weights(sum, p);

            /* Issues the scores of the next tile and the product of the previous tile's weights with V, and computes
               the softmax of the next tile while that product runs. */
            auto next_tile = [&](auto diagonal_before) {
                constexpr bool DIAGONAL = decltype(diagonal_before)::value, SPLIT = LASER && DIAGONAL;
                const HopperStage<STAGES> before = stage;
                stage.next();
                barrier_wait(&sh.k_full[stage.at], stage.phase);
                if (PINGPONG) named_barrier_sync(HOPPER_TURN_BARRIER + consumer, 2 * HOPPER_WARPGROUP);
                fence_registers(x), fence_registers(o), fence_registers(p), wgmma_fence();
                hopper_scores<D, HOPPER_TILE, HOPPER_TILE>(x, q_rows,
                                                           k_tile + (uint64_t)stage.at * next_stage);
                wgmma_commit();
                barrier_wait(SPLIT ? &sh.split : &sh.v_full[before.at], SPLIT ? phase : before.phase);
                const uint64_t v_before = v_tile + (uint64_t)before.at * next_stage;
                hopper_weighted_sum<0, DIAGONAL ? 4 : 8>(o, p, v_before);
                if constexpr (SPLIT) hopper_weighted_sum<0, 4>(o, p, low_tile);
                if (DIAGONAL && consumer == 1) {
                    hopper_weighted_sum<4>(o, p, v_before);
                    if constexpr (SPLIT) hopper_weighted_sum<4>(o, p, low_tile);
                }
                wgmma_commit();
                if (PINGPONG) named_barrier_arrive(HOPPER_TURN_BARRIER + 1 - consumer, 2 * HOPPER_WARPGROUP);
                wgmma_wait<1>(), fence_registers(x);
                hopper_release(&sh.k_empty[stage.at]);
                float next_weight[2];
                hopper_softmax<false>(x, largest, next_weight, rescale, scale_log2e, row, pair);
                wgmma_wait<0>(), fence_registers(o), fence_registers(p);
                if constexpr (LASER && !SPLIT) {
                    hopper_add_center(o, weight, rescale, sh.center[before.at], pair);
                } else {
#pragma unroll
                    for (int i = 0; i < D / 2; i++) o[i] *= rescale[i / 2 % 2];
                }
                hopper_release(&sh.v_empty[before.at]);
                if constexpr (SPLIT) hopper_release(&sh.low_empty);
                hopper_pack_bf16(p, x);
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    sum[h] = sum[h] * rescale[h] + next_weight[h];
                    weight[h] = LASER ? hopper_row_sum(next_weight[h]) : 0;
                }
            };
            if (own_tile > 0) next_tile(std::true_type());
            for (int tile = own_tile - 2; tile >= 0; tile--) next_tile(std::false_type());
            hopper_release(&sh.q_empty);

            /* The product of the last tile's weights with V. If there is only one tile, it is the one on the
               diagonal. */
            const bool split = LASER && own_tile == 0;
            barrier_wait(split ? &sh.split : &sh.v_full[stage.at], split ? phase : stage.phase);
            fence_registers(o), fence_registers(p), wgmma_fence();
            hopper_weighted_sum(o, p, v_tile + (uint64_t)stage.at * next_stage);
            wgmma_commit(), wgmma_wait<0>(), fence_registers(o), fence_registers(p);
            if (split) {
                fence_registers(o), fence_registers(p), wgmma_fence();
                hopper_weighted_sum(o, p, low_tile);
                wgmma_commit(), wgmma_wait<0>(), fence_registers(o), fence_registers(p);
                hopper_release(&sh.low_empty);
            } else if (LASER) {
                const float same[2] = {1, 1};
                hopper_add_center(o, weight, same, sh.center[stage.at], pair);
            }
            hopper_release(&sh.v_empty[stage.at]);
            stage.next();

            /* The results are first written to shared memory (`out`, `low`) and copied from there. Two things must be
               over before: the copy of the previous results (LASER has waited for it in hopper_split_values), and for
               LASER the products of both consumers that read `low`. */
            const int first = piece.tile * HOPPER_TILE + row; /* query */
            float inverse[2];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                sum[r] = hopper_row_sum(sum[r]);
                inverse[r] = 1 / sum[r];
                if (pair == 0 && first + 8 * r < s.T)
                    lse[(int64_t)piece.head * s.T + first + 8 * r] =
                        (largest[r] * scale_log2e + log2f(sum[r])) * LASER_LN2;
            }
            if (LASER) {
                barrier_wait(&sh.low_empty, phase);
            } else {
                if (thread == 0) bulk_wait_read();
                named_barrier_sync(HOPPER_RESULT_BARRIER + consumer, HOPPER_WARPGROUP);
            }
            const float least = s.shift == LASER_SHIFT_SEQUENCE ? LASER_LEAST : 1e-37f;
            const int own_row = hopper_opaque(row), own_pair = hopper_opaque(pair);
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                float2 shift = {0, 0};
                if (LASER) shift = *(const float2 *)(const void *)&sh.shift[phase][8 * n + own_pair];
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    float y[2];
                    for (int e = 0; e < 2; e++) {
                        y[e] = o[4 * n + 2 * r + e] * inverse[r];
                        if (LASER) y[e] = fast_laser_log(laser_at_least(y[e], least), e ? shift.y : shift.x);
                    }
                    const int at = hopper_tile_offset<HOPPER_TILE>(own_row + 8 * r, 8 * n + own_pair);
                    if (LASER) *(uint32_t *)(void *)(sh.low + at) = cut_low_bits(y[0], y[1]);
                    *(uint32_t *)(void *)(sh.out + at) = pack_bf16(y[0], y[1]);
                }
            }
            fence_async_proxy();
            named_barrier_sync(HOPPER_RESULT_BARRIER + consumer, HOPPER_WARPGROUP);
            if (thread == 0) {
                const int column = piece.h * D, query = piece.tile * HOPPER_TILE;
                hopper_store_rows<D>(&maps.out, sh.out, column, query, piece.b, consumer);
                if (LASER) hopper_store_rows<D>(&maps.low_bits, sh.low, column, query, piece.b, consumer);
                bulk_commit();
            }
            hopper_release(&sh.queue.empty[count % HopperQueue::SLOTS]);
        }
        if (thread == 0) bulk_wait_read();
        if (PINGPONG && consumer == 0) /* takes the last turn, which the other consumer has passed to it */
            named_barrier_sync(HOPPER_TURN_BARRIER, 2 * HOPPER_WARPGROUP);
    }
#endif
}

#endif
