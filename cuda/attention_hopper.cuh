/* attention_hopper.cuh: attention's kernels for compute capability 9.0, for bf16 and heads of 64 and 128: flash
   attention with wgmma, products of a warpgroup (four warps) whose right operand, and in the products of scores also
   the left one, the tensor cores read from shared memory while the warps compute something else.

   A block has three warpgroups. Thread 0 of the first one is the producer: it starts the copies of tiles by the TMA
   unit into pipeline stages in shared memory. Barriers in shared memory tell the consumers when a tile has arrived
   (full), and the producer when both consumers no longer need it (empty). The two other warpgroups are the consumers.
   Each computes 64 rows of the block's tile of 128 and holds them as accumulators in its registers, so the two never
   exchange numbers.

   There are as many blocks as the GPU has multiprocessors, and each block takes one piece of work (a tile of 128 rows
   of a head) after the other from a queue, the longest pieces first. While the consumers write the results of one
   piece, the producer already loads the next one, which saves a third of the time for sequences of 1,024 tokens.
   Which block computes a piece changes no bit of the results.

   A tile of rows of D bf16 is stored as panels of 64 columns, each row of a panel 128 bytes, in the 128-byte swizzle
   (hopper.cuh). Rows past the end of a sequence are loaded as zeros and are not stored.

   hopper_forward_kernel   128 queries of a head against the keys up to them, from the diagonal down. Each step issues
                           two products together: the scores of the next tile, and this tile's weights times V. The
                           softmax of the next tile begins when its scores are there, while the second product still
                           runs. PINGPONG: the consumers issue their products in turns, so that one consumer computes
                           its softmax while the products of the other run. This is faster for short sequences.
   hopper_keys_kernel      dk and dv of 128 keys, from the queries at and after them, 64 at a time. Scores have a row
                           for each key and a column for each query, so that the weights and ds are left operands, in
                           registers.
   hopper_queries_kernel   dq of 128 queries, from the keys up to them.
   Backward consists of two kernels, each of which alone writes the sums that it computes. So a tile takes seven
   products instead of five, but every run gives the same bits.

   Fragments: of a warpgroup's accumulators (64, columns), thread t holds the rows row = t / 32 * 16 + t % 32 / 4 and
   row + 8, and in every eight columns 8 n.. the two from pair = t % 4 * 2 on: x[4 n + 2 h + e] is element (row + 8 h,
   8 n + pair + e). Four neighbouring registers of such values, packed in pairs, are a left operand of the next
   product as they are, without a shuffle. */
#ifndef CUDA_ATTENTION_HOPPER_CUH
#define CUDA_ATTENTION_HOPPER_CUH

#include <type_traits>
#include "hopper.cuh"
#include "laser.cuh"

enum {
    HOPPER_TILE = 128,
    HOPPER_HALF = 64 /* rows of a consumer */,
    HOPPER_GROUP = 128,
    HOPPER_THREADS = 3 * HOPPER_GROUP
};
/* How many arrivals of the two consumers end their use of a tile: one lane of each warp arrives. The racecheck of
   compute-sanitizer does not recognise that __syncwarp orders the other lanes before that one; for racecheck the
   program can be compiled with -DEVERY_LANE_ARRIVES. */
#ifdef EVERY_LANE_ARRIVES
enum { HOPPER_ARRIVALS = 2 * HOPPER_GROUP };
#else
enum { HOPPER_ARRIVALS = 2 * HOPPER_GROUP / WARP_SIZE };
#endif
inline int hopper_pingpong_most = 2048; /* the longest sequence with PINGPONG; tests change it */

/* Named barriers (0 is __syncthreads). */
enum {
    HOPPER_TURN = 2 /* and 3: a consumer's turn */,
    HOPPER_STAGED = 4 /* and 5: a consumer's results are in shared memory */
};

/* The order of the pieces of work. Heads form groups whose k and v fit into the L2 cache together; all tiles of a
   group come before the next group, and within a group the tiles with the longest rows come first. */
struct HopperOrder {
    int tiles, group, pieces;
};

static inline HopperOrder hopper_order(const AttentionSizes &s) {
    const int64_t bytes_of_head = (int64_t)s.T * s.D * 2 * (int64_t)sizeof(bf16), cache = 20 << 20;
    HopperOrder order = {(int)blocks_for(s.T, HOPPER_TILE), 1, 0};
    for (int group = 1; group <= 32; group++)
        if (s.B * s.H % group == 0 && group * bytes_of_head <= cache) order.group = group;
    order.pieces = order.tiles * s.B * s.H;
    return order;
}

/* Set by tests and measurements: attention_mma.cuh's kernels are used also where the kernels of this file could
   run. */
inline bool attention_without_hopper = false;

static inline bool attention_takes_hopper(const AttentionSizes &s) {
    return !attention_without_hopper && hopper_there() && s.qkv_row % 8 == 0 && s.out_row % 8 == 0;
}

static inline TensorMap hopper_map(const void *at, int64_t row, const AttentionSizes &s, int box_rows) {
    return tensor_map(at, (int64_t)s.H * s.D, row, s.T, s.B, box_rows);
}

/* How many pieces blocks have taken beyond their first, and how many blocks have ended. Both are zero between
   kernels; the kernels of a process that use them run one after the other. */
static __device__ unsigned hopper_taken, hopper_ended;

#ifdef HOPPER_CODE

/* A block of HOPPER_THREADS is launched with 168 registers a thread, the most that the 65,536 of a multiprocessor
   allow. The producer's warpgroup gives most of its registers back, and the consumers get them. A demand for more
   registers than there are would wait without end. */
enum { HOPPER_LAUNCHED = 65536 / HOPPER_THREADS / 8 * 8, HOPPER_OF_PRODUCER = 24 };
enum { HOPPER_OF_CONSUMER = (3 * HOPPER_LAUNCHED - HOPPER_OF_PRODUCER) / 2 / 8 * 8 };

/* ---- pieces of work ---- */

struct HopperPiece {
    int tile, head, h, b;
};

/* The piece with this number; its tile is -1 if there is none. last_is_longest: true for tiles of queries, the last
   of which have the most keys; false for tiles of keys, the first of which are seen by the most queries. */
__device__ __forceinline__ HopperPiece hopper_piece(HopperOrder order, int number, bool last_is_longest,
                                                    const AttentionSizes &s) {
    if (number >= order.pieces) return HopperPiece{-1, 0, 0, 0};
    const unsigned each = (unsigned)(order.group * order.tiles), r = (unsigned)number % each;
    const int place = (int)(r / (unsigned)order.group),
              head = (int)((unsigned)number / each * (unsigned)order.group + r % (unsigned)order.group);
    return HopperPiece{last_is_longest ? order.tiles - 1 - place : place, head, head % s.H, head / s.H};
}

/* The number of the next piece, from the counter that all blocks share; and the producer's call at its end. */
__device__ __forceinline__ int hopper_take() { return (int)atomicAdd(&hopper_taken, 1u); }
__device__ __forceinline__ void hopper_end() {
    if (atomicAdd(&hopper_ended, 1u) + 1 < gridDim.x) return;
    hopper_taken = 0, hopper_ended = 0; /* the last block resets both; the next kernel begins later */
}

/* Passes pieces of work from the producer to the consumers' warps, in shared memory. The consumers read the piece
   there whenever they need it, since they have no registers to keep it in. */
struct HopperQueue {
    enum { SLOTS = 2 };
    HopperPiece piece[SLOTS];
    SharedBarrier full[SLOTS], empty[SLOTS];
};
__device__ __forceinline__ void hopper_queue_init(HopperQueue *queue) {
    for (int i = 0; i < HopperQueue::SLOTS; i++)
        barrier_init(&queue->full[i], 1), barrier_init(&queue->empty[i], HOPPER_ARRIVALS);
}
/* Puts the count-th piece of this block into the queue; hopper_get waits for it and returns it. Tile -1 ends the
   work. */
__device__ __forceinline__ void hopper_put(HopperQueue *queue, int count, const HopperPiece &piece) {
    const int slot = count % HopperQueue::SLOTS;
    barrier_wait(&queue->empty[slot], (uint32_t)(count / HopperQueue::SLOTS & 1) ^ 1);
    queue->piece[slot] = piece;
    barrier_arrive(&queue->full[slot]);
}
__device__ __forceinline__ const HopperPiece &hopper_get(HopperQueue *queue, int count) {
    const int slot = count % HopperQueue::SLOTS;
    barrier_wait(&queue->full[slot], (uint32_t)(count / HopperQueue::SLOTS & 1));
    return queue->piece[slot];
}

/* Which of STAGES pipeline stages is in use, and the parity of its barriers' phase; next() goes on to the next
   tile's. */
template <int STAGES> struct HopperStage {
    int at;
    uint32_t phase;
    __device__ __forceinline__ void next() {
        if (++at == STAGES) at = 0, phase ^= 1;
    }
};

/* ---- tiles and products ---- */

/* Returns x, but hides its value from the compiler, which then computes the values that depend on x here, for each
   piece, and not once before all pieces in registers that are needed for tiles. */
__device__ __forceinline__ int hopper_unknown(int x) {
    uint32_t word[1] = {(uint32_t)x};
    hold(word);
    return (int)word[0];
}

/* The number of this thread's consumer. Through the shuffle the compiler knows that all threads of a warp have the same:
   products in a branch that depends on it, which threads of a warp could otherwise take differently, would be serialized. */
__device__ __forceinline__ int hopper_consumer() {
    return __shfl_sync(0xFFFFFFFFu, (int)threadIdx.x / HOPPER_GROUP - 1, 0);
}

/* The position, in elements, of element (row, column) of a tile of ROWS rows. */
template <int ROWS> __device__ __forceinline__ int hopper_at(int row, int column) {
    return column / 64 * ROWS * 64 + (int)swizzle_128((uint32_t)(row * 128 + column % 64 * 2)) / 2;
}

/* Starts to load a tile: ROWS rows from `row` on, of the D columns from `column` on. */
template <int D, int ROWS>
__device__ __forceinline__ void hopper_load(bf16 *tile, const TensorMap *map, int column, int row, int b,
                                            SharedBarrier *full) {
    for (int panel = 0; panel < D / 64; panel++)
        tensor_load(tile + panel * ROWS * 64, map, column + panel * 64, row, b, full);
}

/* A consumer's warp arrives at an empty barrier when all its lanes no longer need what was loaded. */
__device__ __forceinline__ void hopper_release(SharedBarrier *empty) {
#ifdef EVERY_LANE_ARRIVES
    barrier_arrive(empty);
#else
    __syncwarp();
    if (threadIdx.x % WARP_SIZE == 0) barrier_arrive(empty);
#endif
}

/* The descriptor of the operand at `to`, from that of the operand at `from`. Both have the same leading bytes, which
   matter only to transposed operands. */
__device__ __forceinline__ uint64_t hopper_moved(uint64_t descriptor, const bf16 *from, const bf16 *to) {
    return descriptor + (uint64_t)((to - from) * (int)sizeof(bf16) / 16);
}

/* x (64, 2 R) = rows of a tile of A_ROWS times rows of a tile of B_ROWS, over D columns; a, b: their descriptors. */
template <int D, int A_ROWS, int B_ROWS, int R>
__device__ __forceinline__ void hopper_scores(float (&x)[R], uint64_t a, uint64_t b) {
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        wgmma_from_shared<0, 0>(x, a + (uint64_t)(k / 4 * A_ROWS * 8 + k % 4 * 2),
                                b + (uint64_t)(k / 4 * B_ROWS * 8 + k % 4 * 2), k > 0);
}

/* x (64, 2 R) += weights (64, 8 W) times 8 W rows of a tile, whose descriptor is b; or only the products with rows
   16 FROM to 16 TO - 1. */
template <int FROM = 0, int TO = 8, int R, int W>
__device__ __forceinline__ void hopper_sum(float (&x)[R], const uint32_t (&weights)[W], uint64_t b) {
#pragma unroll
    for (int k = FROM; k < TO && k < W / 4; k++)
        wgmma_from_registers<1>(x, weights[4 * k], weights[4 * k + 1], weights[4 * k + 2], weights[4 * k + 3],
                                b + (uint64_t)(k * 128), true);
}

/* Starts to store a consumer's 64 rows of a tile from shared memory to global memory. The consumer's own threads have
   written them. */
template <int D>
__device__ __forceinline__ void hopper_store(const TensorMap *map, const bf16 *tile, int column, int row,
                                             int b, int consumer) {
    for (int panel = 0; panel < D / 64; panel++)
        tensor_store(map, column + panel * 64, row + consumer * HOPPER_HALF, b,
                     tile + panel * HOPPER_TILE * 64 + consumer * HOPPER_HALF * 64);
}

/* ---- forward ---- */

/* Turns a consumer's raw scores x (64, 2 R) into weights 2^(x scale_log2e - shift), updates each row's running maximum
   `largest`, and writes the sum of this lane's weights of each row to `weight`. rescale is the factor by which earlier
   results must be multiplied. MASK: the tile is on the diagonal. */
template <bool MASK, int R>
__device__ __forceinline__ void hopper_softmax(float (&x)[R], float (&largest)[2], float (&weight)[2],
                                               float (&rescale)[2], float scale_log2e, int row, int pair) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float most = largest[h];
#pragma unroll
        for (int n = 0; n < R / 4; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float &score = x[4 * n + 2 * h + e];
                if (MASK && 8 * n + pair + e > row + 8 * h) score = -INFINITY;
                most = fmaxf(most, score);
            }
        most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, 2));
        rescale[h] = fast_exp2((largest[h] - most) * scale_log2e);
        largest[h] = most;
        const float shift = most * scale_log2e;
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

template <int W> __device__ __forceinline__ void hopper_pack(uint32_t (&pairs)[W], const float (&x)[2 * W]) {
#pragma unroll
    for (int i = 0; i < W; i++) pairs[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
}

/* The sums of a lane's weights after rounding, for each of its two rows. */
__device__ __forceinline__ void hopper_rounded_weights(float (&weight)[2], const uint32_t (&pairs)[32]) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float even = 0, odd = 0;
#pragma unroll
        for (int n = 0; n < 16; n++) even += bf16_low(pairs[2 * n + h]), odd += bf16_high(pairs[2 * n + h]);
        weight[h] = even + odd;
    }
}

/* The sum over the four lanes that share a row. */
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

/* The tile on the diagonal: once its v have been loaded, the threads of a consumer turn the v of 64 keys in place
   into high + low = exp(v) 2^-n in two bf16, and write n (D) to `shift`. Before that they wait until the store of
   the previous results has read `low`. */
template <int D>
__device__ __forceinline__ void
hopper_split(bf16 *high, bf16 *low, float *shift, const Column *head_columns, const bf16 *head_v,
             int consumer, int thread, SharedBarrier *v_full, uint32_t v_phase, const AttentionSizes &s) {
    enum { CHUNKS = D / 8, ROWS = HOPPER_GROUP / CHUNKS };
    const int column = thread % CHUNKS * 8, first = consumer * HOPPER_HALF + thread / CHUNKS;
    float n[8];
    if (s.shift == LASER_SHIFT_CAUSAL) {
        load(n, head_v + column);
#pragma unroll
        for (int c = 0; c < 8; c++) n[c] = rintf(n[c] * LASER_LOG2E_HIGH);
    } else
#pragma unroll
        for (int c = 0; c < 8; c++) n[c] = head_columns[column + c].shift;
    if (thread == 0) bulk_wait_read();
    named_barrier_sync(HOPPER_STAGED + consumer, HOPPER_GROUP);
    store(shift + column, n); /* several threads write the same */
    barrier_wait(v_full, v_phase);
#pragma unroll 2
    for (int row = first; row < consumer * HOPPER_HALF + HOPPER_HALF; row += ROWS) {
        const int at = hopper_at<HOPPER_TILE>(row, column);
        laser_split(high + at, low + at, n, laser_limit(s));
    }
    fence_async_proxy();
}

template <int D, bool LASER> struct HopperForwardShared {
    enum { STAGES = 2, TILE = HOPPER_TILE * D };
    alignas(1024) bf16 q[TILE];
    alignas(1024) bf16 k[STAGES][TILE];
    alignas(1024) bf16 v[STAGES][TILE];
    alignas(1024) bf16 out[TILE];
    alignas(
        1024) bf16 low[LASER ? TILE : 64]; /* V' on the diagonal less its bf16; then the low bits of out */
    float center[STAGES][D], shift[2][D];  /* shift: of this piece and the one before */
    HopperQueue queue;
    SharedBarrier q_full, q_empty, k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
    SharedBarrier split, low_empty; /* LASER: V' of the diagonal is split; both consumers have used it */
};

#endif

struct HopperForwardMaps {
    TensorMap q, k, v, values, out, low_bits;
};

template <int D, bool LASER, bool PINGPONG>
__global__ void __launch_bounds__(HOPPER_THREADS, 1)
    hopper_forward_kernel(const __grid_constant__ HopperForwardMaps maps, float *lse, const float *centers,
                          const bf16 *v, const Column *columns, HopperOrder order, AttentionSizes s) {
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
    if (threadIdx.x < HOPPER_GROUP) {
        registers_decrease<HOPPER_OF_PRODUCER>();
        HopperStage<STAGES> stage = {0, 0};
        if (threadIdx.x == 0) {
            const uint32_t bytes = Shared::TILE * sizeof(bf16);
            for (int count = 0, number = hopper_take();; count++) {
                const HopperPiece piece = hopper_piece(order, number, true, s);
                hopper_put(&sh.queue, count, piece);
                if (piece.tile < 0) break;
                number = hopper_take();
                for (int tile = piece.tile; tile >= 0; tile--) { /* of keys, from the diagonal down */
                    const int key = tile * HOPPER_TILE;
                    barrier_wait(&sh.k_empty[stage.at], stage.phase ^ 1);
                    barrier_expect(&sh.k_full[stage.at], bytes);
                    hopper_load<D, HOPPER_TILE>(sh.k[stage.at], &maps.k, piece.h * D, key, piece.b,
                                                &sh.k_full[stage.at]);
                    if (tile == piece.tile) {
                        barrier_wait(&sh.q_empty, (uint32_t)(count & 1) ^ 1);
                        barrier_expect(&sh.q_full, bytes);
                        hopper_load<D, HOPPER_TILE>(sh.q, &maps.q, piece.h * D, key, piece.b, &sh.q_full);
                    }
                    SharedBarrier *full = &sh.v_full[stage.at];
                    barrier_wait(&sh.v_empty[stage.at], stage.phase ^ 1);
                    if (LASER && tile < piece.tile) {
                        barrier_expect(full, bytes + D * sizeof(float));
                        hopper_load<D, HOPPER_TILE>(sh.v[stage.at], &maps.values, piece.h * D, key, piece.b,
                                                    full);
                        bulk_load(sh.center[stage.at],
                                  centers + ((int64_t)piece.head * order.tiles + tile) * D, D * sizeof(float),
                                  full);
                    } else {
                        barrier_expect(full, bytes);
                        hopper_load<D, HOPPER_TILE>(sh.v[stage.at], &maps.v, piece.h * D, key, piece.b, full);
                    }
                    stage.next();
                }
            }
            hopper_end();
        }
    } else {
        registers_increase<HOPPER_OF_CONSUMER>();
        const int consumer = hopper_consumer(), thread = (int)threadIdx.x % HOPPER_GROUP;
        const int lane = thread % WARP_SIZE, pair = lane % 4 * 2;
        const int row = consumer * HOPPER_HALF + thread / WARP_SIZE * 16 + lane / 4; /* of the tile */
        const float scale_log2e = s.scale * LASER_LOG2E_HIGH;
        /* Descriptors differ only by the distances between their tiles. */
        const uint64_t k_tile = wgmma_descriptor(sh.k, HOPPER_TILE * 128),
                       q_rows = hopper_moved(k_tile, sh.k[0], sh.q + consumer * HOPPER_HALF * 64),
                       v_tile = hopper_moved(k_tile, sh.k[0], sh.v[0]),
                       low_tile = hopper_moved(k_tile, sh.k[0], sh.low);
        const uint64_t next_stage = Shared::TILE * sizeof(bf16) / 16; /* between descriptors of stages */
        HopperStage<STAGES> stage = {0, 0};
        if (PINGPONG && consumer == 0) named_barrier_arrive(HOPPER_TURN, 2 * HOPPER_GROUP);
        for (int count = 0;; count++) {
            const HopperPiece &piece = hopper_get(&sh.queue, count);
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
                hold(d), wgmma_fence();
                hopper_scores<D, HOPPER_TILE, HOPPER_TILE>(d, q_rows,
                                                           k_tile + (uint64_t)stage.at * next_stage);
                wgmma_commit();
                if (LASER) { /* meanwhile, split V' of this consumer's keys */
                    const bf16 *head_v = v + (int64_t)piece.b * s.T * s.qkv_row + piece.h * D;
                    hopper_split<D>(sh.v[stage.at], sh.low, sh.shift[phase],
                                    columns + (int64_t)piece.head * D, head_v, consumer, thread,
                                    &sh.v_full[stage.at], stage.phase, s);
                    hopper_release(&sh.split);
                }
                wgmma_wait<0>(), hold(d);
                hopper_release(&sh.k_empty[stage.at]);
                hopper_softmax<true>(d, largest, sum, rescale, scale_log2e, row, pair);
#pragma unroll
                for (int i = 0; i < 32; i++)
                    p[i] = i < KEYS / 4 ? pack_bf16(d[2 * i % (KEYS / 2)], d[2 * i % (KEYS / 2) + 1]) : 0;
            };
            if (consumer == 0)
                diagonal(std::integral_constant<int, HOPPER_HALF>());
            else
                diagonal(std::integral_constant<int, HOPPER_TILE>());
            /* V' has no center here, so the sums of LASER's weights must be those of the product. With a center, exact
               sums are better: they multiply the larger part of V'. */
            if (LASER) hopper_rounded_weights(sum, p);

            /* Issues the scores of the next tile and the product of the previous tile's weights with V, and computes
               the softmax of the next tile while that product runs. */
            auto next_tile = [&](auto diagonal_before) {
                constexpr bool DIAGONAL = decltype(diagonal_before)::value, SPLIT = LASER && DIAGONAL;
                const HopperStage<STAGES> before = stage;
                stage.next();
                barrier_wait(&sh.k_full[stage.at], stage.phase);
                if (PINGPONG) named_barrier_sync(HOPPER_TURN + consumer, 2 * HOPPER_GROUP);
                hold(x), hold(o), hold(p), wgmma_fence();
                hopper_scores<D, HOPPER_TILE, HOPPER_TILE>(x, q_rows,
                                                           k_tile + (uint64_t)stage.at * next_stage);
                wgmma_commit();
                barrier_wait(SPLIT ? &sh.split : &sh.v_full[before.at], SPLIT ? phase : before.phase);
                const uint64_t v_before = v_tile + (uint64_t)before.at * next_stage;
                hopper_sum<0, DIAGONAL ? 4 : 8>(o, p, v_before);
                if constexpr (SPLIT) hopper_sum<0, 4>(o, p, low_tile);
                if (DIAGONAL && consumer == 1) {
                    hopper_sum<4>(o, p, v_before);
                    if constexpr (SPLIT) hopper_sum<4>(o, p, low_tile);
                }
                wgmma_commit();
                if (PINGPONG) named_barrier_arrive(HOPPER_TURN + 1 - consumer, 2 * HOPPER_GROUP);
                wgmma_wait<1>(), hold(x);
                hopper_release(&sh.k_empty[stage.at]);
                float next_weight[2];
                hopper_softmax<false>(x, largest, next_weight, rescale, scale_log2e, row, pair);
                wgmma_wait<0>(), hold(o), hold(p);
                if constexpr (LASER && !SPLIT) {
                    hopper_add_center(o, weight, rescale, sh.center[before.at], pair);
                } else {
#pragma unroll
                    for (int i = 0; i < D / 2; i++) o[i] *= rescale[i / 2 % 2];
                }
                hopper_release(&sh.v_empty[before.at]);
                if constexpr (SPLIT) hopper_release(&sh.low_empty);
                hopper_pack(p, x);
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
            hold(o), hold(p), wgmma_fence();
            hopper_sum(o, p, v_tile + (uint64_t)stage.at * next_stage);
            wgmma_commit(), wgmma_wait<0>(), hold(o), hold(p);
            if (split) {
                hold(o), hold(p), wgmma_fence();
                hopper_sum(o, p, low_tile);
                wgmma_commit(), wgmma_wait<0>(), hold(o), hold(p);
                hopper_release(&sh.low_empty);
            } else if (LASER) {
                const float same[2] = {1, 1};
                hopper_add_center(o, weight, same, sh.center[stage.at], pair);
            }
            hopper_release(&sh.v_empty[stage.at]);
            stage.next();

            /* The results go through shared memory, once the store of the previous results has read it (LASER has
               waited for that before it split V'), and once both consumers have used `low`. */
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
                named_barrier_sync(HOPPER_STAGED + consumer, HOPPER_GROUP);
            }
            const float least = s.shift == LASER_SHIFT_SEQUENCE ? LASER_LEAST : 1e-37f;
            const int own_row = hopper_unknown(row), own_pair = hopper_unknown(pair);
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
                    const int at = hopper_at<HOPPER_TILE>(own_row + 8 * r, 8 * n + own_pair);
                    if (LASER) *(uint32_t *)(void *)(sh.low + at) = cut_low_bits(y[0], y[1]);
                    *(uint32_t *)(void *)(sh.out + at) = pack_bf16(y[0], y[1]);
                }
            }
            fence_async_proxy();
            named_barrier_sync(HOPPER_STAGED + consumer, HOPPER_GROUP);
            if (thread == 0) {
                const int column = piece.h * D, query = piece.tile * HOPPER_TILE;
                hopper_store<D>(&maps.out, sh.out, column, query, piece.b, consumer);
                if (LASER) hopper_store<D>(&maps.low_bits, sh.low, column, query, piece.b, consumer);
                bulk_commit();
            }
            hopper_release(&sh.queue.empty[count % HopperQueue::SLOTS]);
        }
        if (thread == 0) bulk_wait_read();
        if (PINGPONG && consumer == 0) /* receives the last turn that the other consumer gave */
            named_barrier_sync(HOPPER_TURN, 2 * HOPPER_GROUP);
    }
#endif
}

/* ---- backward ---- */

#ifdef HOPPER_CODE

/* Writes a consumer's accumulators (64, D), times scale, to its rows of a tile in shared memory. With rope's table
   `turn` they are rotated back first; `token` is the first token of the tile. */
template <int D>
__device__ __forceinline__ void hopper_stage(bf16 *tile, const float (&x)[D / 2], float scale, int row,
                                             int pair, const float *turn, int token, int T) {
    row = hopper_unknown(row), pair = hopper_unknown(pair);
#pragma unroll
    for (int n = 0; n < D / 16; n++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float left[2], right[2]; /* columns d, d + 1 and those D/2 later */
            for (int e = 0; e < 2; e++) {
                left[e] = x[4 * n + 2 * r + e] * scale;
                right[e] = x[4 * (n + D / 16) + 2 * r + e] * scale;
            }
            const int t = token + row + 8 * r;
            if (turn && t < T) turn_back(left, right, turn + (int64_t)t * D + 2 * (8 * n + pair));
            bf16 *at = tile + hopper_at<HOPPER_TILE>(row + 8 * r, 8 * n + pair);
            *(uint32_t *)(void *)at = pack_bf16(left[0], left[1]);
            at = tile + hopper_at<HOPPER_TILE>(row + 8 * r, 8 * n + pair + D / 2);
            *(uint32_t *)(void *)at = pack_bf16(right[0], right[1]);
        }
}

/* LASER's dv = dv' exp(v - m), where the tile holds expm1(v - m). */
template <int D>
__device__ __forceinline__ void hopper_times_exp(float (&dv)[D / 2], const bf16 *tile, int row, int pair) {
    row = hopper_unknown(row), pair = hopper_unknown(pair);
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const uint32_t u =
                *(const uint32_t *)(const void *)(tile + hopper_at<HOPPER_TILE>(row + 8 * r, 8 * n + pair));
            dv[4 * n + 2 * r] *= 1 + bf16_low(u), dv[4 * n + 2 * r + 1] *= 1 + bf16_high(u);
        }
}

template <int D> struct HopperKeysShared {
    enum { STAGES = 3, TILE = HOPPER_TILE * D, HALF = HOPPER_HALF * D };
    alignas(1024) bf16 k[TILE];
    alignas(1024) bf16 u[TILE];
    alignas(1024) bf16 dk[TILE];
    alignas(1024) bf16 dv[TILE];
    struct {
        alignas(1024) bf16 q[HALF];
        alignas(1024) bf16 g[HALF];
    } stage[STAGES];
    float rows[STAGES][2 * HOPPER_HALF]; /* 64 lse, then 64 terms: ROW_TERM is HOPPER_HALF */
    HopperQueue queue;
    SharedBarrier k_full, k_empty, u_full, u_empty, full[STAGES], empty[STAGES];
};

template <int D> struct HopperQueriesShared {
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

/* u is v or, for LASER, expm1(v - m); g is dout or, for LASER, dout exp(m - o). */
struct HopperKeysMaps {
    TensorMap k, u, q, g, dk, dv;
};
struct HopperQueriesMaps {
    TensorMap q, g, k, u, dq;
};

template <int D, bool LASER>
__global__ void __launch_bounds__(HOPPER_THREADS, 1)
    hopper_keys_kernel(const __grid_constant__ HopperKeysMaps maps, const float *rows, const float *turn,
                       HopperOrder order, AttentionSizes s) {
#ifdef HOPPER_CODE
    typedef HopperKeysShared<D> Shared;
    enum { STAGES = Shared::STAGES };
    Shared &sh = *shared_memory<Shared>();
    const int tiles_of_queries = (s.T + HOPPER_HALF - 1) / HOPPER_HALF;
    if (threadIdx.x == 0) {
        hopper_queue_init(&sh.queue);
        barrier_init(&sh.k_full, 1), barrier_init(&sh.k_empty, HOPPER_ARRIVALS);
        barrier_init(&sh.u_full, 1), barrier_init(&sh.u_empty, HOPPER_ARRIVALS);
        for (int i = 0; i < STAGES; i++)
            barrier_init(&sh.full[i], 1), barrier_init(&sh.empty[i], HOPPER_ARRIVALS);
        barrier_init_done();
    }
    __syncthreads();
    if (threadIdx.x < HOPPER_GROUP) {
        registers_decrease<HOPPER_OF_PRODUCER>();
        if (threadIdx.x == 0) {
            HopperStage<STAGES> stage = {0, 0};
            const uint32_t bytes = Shared::TILE * sizeof(bf16);
            for (int count = 0, number = hopper_take();; count++) {
                const HopperPiece piece = hopper_piece(order, number, false, s);
                hopper_put(&sh.queue, count, piece);
                if (piece.tile < 0) break;
                const int column = piece.h * D, b = piece.b, key = piece.tile * HOPPER_TILE;
                const uint32_t free = (uint32_t)(count & 1) ^ 1;
                const float *head_rows = rows + row_at((int64_t)piece.head * padded_rows(s));
                number = hopper_take();
                barrier_wait(&sh.k_empty, free);
                barrier_expect(&sh.k_full, bytes);
                hopper_load<D, HOPPER_TILE>(sh.k, &maps.k, column, key, b, &sh.k_full);
                for (int tile = 2 * piece.tile; tile < tiles_of_queries; tile++) {
                    const int query = tile * HOPPER_HALF;
                    SharedBarrier *full = &sh.full[stage.at];
                    barrier_wait(&sh.empty[stage.at], stage.phase ^ 1);
                    barrier_expect(full, bytes + 2 * HOPPER_HALF * sizeof(float));
                    hopper_load<D, HOPPER_HALF>(sh.stage[stage.at].q, &maps.q, column, query, b, full);
                    bulk_load(sh.rows[stage.at], head_rows + 2 * query, 2 * HOPPER_HALF * sizeof(float),
                              full);
                    if (tile == 2 * piece.tile) {
                        barrier_wait(&sh.u_empty, free);
                        barrier_expect(&sh.u_full, bytes);
                        hopper_load<D, HOPPER_TILE>(sh.u, &maps.u, column, key, b, &sh.u_full);
                    }
                    hopper_load<D, HOPPER_HALF>(sh.stage[stage.at].g, &maps.g, column, query, b, full);
                    stage.next();
                }
            }
            hopper_end();
        }
    } else {
        registers_increase<HOPPER_OF_CONSUMER>();
        const int consumer = hopper_consumer(), thread = (int)threadIdx.x % HOPPER_GROUP;
        const int lane = thread % WARP_SIZE, pair = lane % 4 * 2;
        const int row = consumer * HOPPER_HALF + thread / WARP_SIZE * 16 + lane / 4; /* key of the tile */
        const float scale_log2e = s.scale * LASER_LOG2E_HIGH;
        const uint64_t q_tile = wgmma_descriptor(sh.stage[0].q, HOPPER_HALF * 128),
                       g_tile = hopper_moved(q_tile, sh.stage[0].q, sh.stage[0].g),
                       k_rows = hopper_moved(q_tile, sh.stage[0].q, sh.k + consumer * HOPPER_HALF * 64),
                       u_rows = hopper_moved(k_rows, sh.k, sh.u);
        const uint64_t next_stage = sizeof(sh.stage[0]) / 16;
        HopperStage<STAGES> stage = {0, 0};
        for (int count = 0;; count++) {
            const HopperPiece &piece = hopper_get(&sh.queue, count);
            const int own_tile = piece.tile;
            if (own_tile < 0) break;
            float dk[D / 2], dv[D / 2], x[32];
#pragma unroll
            for (int i = 0; i < D / 2; i++) dk[i] = dv[i] = 0;
            const int queries_from_here = (tiles_of_queries - 2 * own_tile) * HOPPER_HALF;
            barrier_wait(&sh.k_full, (uint32_t)(count & 1));
            barrier_wait(&sh.full[stage.at], stage.phase);
            int query = 0;
            if (consumer == 1 &&
                queries_from_here > HOPPER_HALF) { /* the first queries are before its keys */
                hopper_release(&sh.empty[stage.at]);
                stage.next();
                barrier_wait(&sh.full[stage.at], stage.phase);
                query = HOPPER_HALF;
            }
            hold(x), wgmma_fence();
            hopper_scores<D, HOPPER_TILE, HOPPER_HALF>(x, k_rows, q_tile + (uint64_t)stage.at * next_stage);
            wgmma_commit(), wgmma_wait<0>(), hold(x);
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
                hold(dp), wgmma_fence();
                hopper_scores<D, HOPPER_TILE, HOPPER_HALF>(dp, u_rows, g);
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
                hopper_pack(p, x);
                hold(p), hold(dv), wgmma_fence();
                hopper_sum(dv, p, g);
                wgmma_commit();
                wgmma_wait<1>(), hold(dp);
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    const float2 term =
                        *(const float2 *)(const void *)&sh.rows[now.at][ROW_TERM + 8 * n + pair];
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        dp[4 * n + i] = x[4 * n + i] * (dp[4 * n + i] - (i % 2 ? term.y : term.x));
                }
                if (own_tile == 0 && query == 0 && pair == 0) dp[0] = dp[2] = 0; /* row 0 has one key */
                hopper_pack(ds, dp);
                hold(ds), hold(dk), hold(x), wgmma_fence();
                hopper_sum(dk, ds, q);
                wgmma_commit();
                if constexpr (decltype(more)::value) {
                    barrier_wait(&sh.full[stage.at], stage.phase);
                    hopper_scores<D, HOPPER_TILE, HOPPER_HALF>(x, k_rows,
                                                               q_tile + (uint64_t)stage.at * next_stage);
                    wgmma_commit();
                }
                wgmma_wait<0>(), hold(dk), hold(dv), hold(p), hold(ds), hold(x);
                hopper_release(&sh.empty[now.at]);
            };
            for (; query < queries_from_here - HOPPER_HALF; query += HOPPER_HALF)
                queries(std::true_type(), query);
            queries(std::false_type(), query);
            hopper_release(&sh.k_empty);
            if (LASER) hopper_times_exp<D>(dv, sh.u, row, pair);
            hopper_release(&sh.u_empty);

            if (thread == 0) bulk_wait_read(); /* the previous results have been read */
            named_barrier_sync(HOPPER_STAGED + consumer, HOPPER_GROUP);
            const int key = piece.tile * HOPPER_TILE;
            hopper_stage<D>(sh.dk, dk, s.scale, row, pair, turn, key, s.T);
            hopper_stage<D>(sh.dv, dv, 1, row, pair, nullptr, key, s.T);
            fence_async_proxy();
            named_barrier_sync(HOPPER_STAGED + consumer, HOPPER_GROUP);
            if (thread == 0) {
                hopper_store<D>(&maps.dk, sh.dk, piece.h * D, key, piece.b, consumer);
                hopper_store<D>(&maps.dv, sh.dv, piece.h * D, key, piece.b, consumer);
                bulk_commit();
            }
            hopper_release(&sh.queue.empty[count % HopperQueue::SLOTS]);
        }
        if (thread == 0) bulk_wait_read();
    }
#endif
}

template <int D>
__global__ void __launch_bounds__(HOPPER_THREADS, 1)
    hopper_queries_kernel(const __grid_constant__ HopperQueriesMaps maps, const float *rows,
                          const float *turn, HopperOrder order, AttentionSizes s) {
#ifdef HOPPER_CODE
    typedef HopperQueriesShared<D> Shared;
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
    if (threadIdx.x < HOPPER_GROUP) {
        registers_decrease<HOPPER_OF_PRODUCER>();
        if (threadIdx.x == 0) {
            HopperStage<STAGES> stage = {0, 0};
            const uint32_t bytes = Shared::TILE * sizeof(bf16);
            for (int count = 0, number = hopper_take();; count++) {
                const HopperPiece piece = hopper_piece(order, number, true, s);
                hopper_put(&sh.queue, count, piece);
                if (piece.tile < 0) break;
                const int column = piece.h * D, b = piece.b, query = piece.tile * HOPPER_TILE;
                const uint32_t free = (uint32_t)(count & 1) ^ 1;
                number = hopper_take();
                barrier_wait(&sh.q_empty, free);
                barrier_expect(&sh.q_full, bytes);
                hopper_load<D, HOPPER_TILE>(sh.q, &maps.q, column, query, b, &sh.q_full);
                for (int tile = 0; tile <= piece.tile; tile++) { /* of keys, up to the diagonal */
                    SharedBarrier *full = &sh.full[stage.at];
                    barrier_wait(&sh.empty[stage.at], stage.phase ^ 1);
                    barrier_expect(full, 2 * bytes);
                    hopper_load<D, HOPPER_TILE>(sh.stage[stage.at].k, &maps.k, column, tile * HOPPER_TILE, b,
                                                full);
                    if (tile == 0) {
                        barrier_wait(&sh.g_empty, free);
                        barrier_expect(&sh.g_full, bytes);
                        hopper_load<D, HOPPER_TILE>(sh.g, &maps.g, column, query, b, &sh.g_full);
                    }
                    hopper_load<D, HOPPER_TILE>(sh.stage[stage.at].u, &maps.u, column, tile * HOPPER_TILE, b,
                                                full);
                    stage.next();
                }
            }
            hopper_end();
        }
    } else {
        registers_increase<HOPPER_OF_CONSUMER>();
        const int consumer = hopper_consumer(), thread = (int)threadIdx.x % HOPPER_GROUP;
        const int lane = thread % WARP_SIZE, pair = lane % 4 * 2;
        const int row = consumer * HOPPER_HALF + thread / WARP_SIZE * 16 + lane / 4; /* query of the tile */
        const float scale_log2e = s.scale * LASER_LOG2E_HIGH;
        const uint64_t k_tile = wgmma_descriptor(sh.stage[0].k, HOPPER_TILE * 128),
                       u_tile = hopper_moved(k_tile, sh.stage[0].k, sh.stage[0].u),
                       q_rows = hopper_moved(k_tile, sh.stage[0].k, sh.q + consumer * HOPPER_HALF * 64),
                       g_rows = hopper_moved(q_rows, sh.q, sh.g);
        const uint64_t next_stage = sizeof(sh.stage[0]) / 16;
        HopperStage<STAGES> stage = {0, 0};
        for (int count = 0;; count++) {
            const HopperPiece &piece = hopper_get(&sh.queue, count);
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
            hold(x), wgmma_fence();
            hopper_scores<D, HOPPER_TILE, HOPPER_TILE>(x, q_rows, k_tile + (uint64_t)stage.at * next_stage);
            wgmma_commit(), wgmma_wait<0>(), hold(x);
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
                hold(dp), wgmma_fence();
                hopper_scores<D, HOPPER_TILE, HOPPER_TILE>(dp, g_rows, u);
                wgmma_commit();
#pragma unroll
                for (int i = 0; i < KEYS / 2; i++) x[i] = fast_exp2(fmaf(x[i], scale_log2e, -lse[i / 2 % 2]));
                if (DIAGONAL)
#pragma unroll
                    for (int i = 0; i < KEYS / 2; i++)
                        if (i / 4 * 8 + pair + i % 2 > row + 8 * (i / 2 % 2)) x[i] = 0;
                wgmma_wait<0>(), hold(dp);
#pragma unroll
                for (int i = 0; i < KEYS / 2; i++) dp[i] = x[i] * (dp[i] - term[i / 2 % 2]);
                if (DIAGONAL && own_tile == 0 && row == 0) dp[0] = dp[1] = 0; /* row 0 has one key */
                hopper_pack(ds, dp);
                hold(ds), hold(dq), hold(x), wgmma_fence();
                hopper_sum(dq, ds, k);
                wgmma_commit();
                if constexpr (!DIAGONAL) {
                    barrier_wait(&sh.full[stage.at], stage.phase);
                    hopper_scores<D, HOPPER_TILE, HOPPER_TILE>(x, q_rows,
                                                               k_tile + (uint64_t)stage.at * next_stage);
                    wgmma_commit();
                }
                wgmma_wait<0>(), hold(dq), hold(ds), hold(x);
                hopper_release(&sh.empty[now.at]);
            };
            typedef std::integral_constant<int, HOPPER_TILE> Tile;
            for (int tile = 0; tile < own_tile; tile++) keys(std::false_type(), Tile());
            if (consumer == 0)
                keys(std::true_type(), std::integral_constant<int, HOPPER_HALF>());
            else
                keys(std::true_type(), Tile());
            hopper_release(&sh.q_empty), hopper_release(&sh.g_empty);

            if (thread == 0) bulk_wait_read(); /* the previous results have been read */
            named_barrier_sync(HOPPER_STAGED + consumer, HOPPER_GROUP);
            hopper_stage<D>(sh.dq, dq, s.scale, row, pair, turn, piece.tile * HOPPER_TILE, s.T);
            fence_async_proxy();
            named_barrier_sync(HOPPER_STAGED + consumer, HOPPER_GROUP);
            if (thread == 0) {
                hopper_store<D>(&maps.dq, sh.dq, piece.h * D, piece.tile * HOPPER_TILE, piece.b, consumer);
                bulk_commit();
            }
            hopper_release(&sh.queue.empty[count % HopperQueue::SLOTS]);
        }
        if (thread == 0) bulk_wait_read();
    }
#endif
}

/* ---- one call ---- */

/* Upper bounds of the sizes in shared memory. The structs themselves do not exist when device code is compiled for an
   architecture below 9.0. */
template <int D, bool LASER> struct HopperBytes {
    enum {
        TILE = HOPPER_TILE * D * 2,
        FORWARD = (LASER ? 7 : 6) * TILE + 4 * D * 4 + 512,
        KEYS = 7 * TILE + 3 * 2 * HOPPER_HALF * 4 + 512,
        QUERIES = 3 * TILE + (D == 128 ? 2 : 3) * 2 * TILE + 512
    };
#ifdef HOPPER_CODE
    static_assert(sizeof(HopperForwardShared<D, LASER>) <= (FORWARD + 1023) / 1024 * 1024, "");
    static_assert(sizeof(HopperKeysShared<D>) <= (KEYS + 1023) / 1024 * 1024, "");
    static_assert(sizeof(HopperQueriesShared<D>) <= (QUERIES + 1023) / 1024 * 1024, "");
#endif
};

inline int hopper_blocks_most = 1 << 20; /* tests lower it, so that each block computes many pieces */

static inline unsigned hopper_blocks(HopperOrder order) {
    return (unsigned)min(min(order.pieces, device_multiprocessors()), hopper_blocks_most);
}

template <int D, bool LASER>
void attention_forward_hopper(bf16 *out, uint16_t *low_bits, float *lse, Column *columns, const bf16 *q,
                              const bf16 *k, const bf16 *v, const AttentionWork &w, const AttentionSizes &s,
                              cudaStream_t stream) {
    const HopperOrder order = hopper_order(s);
    if (LASER) laser_prepare<D, HOPPER_TILE>(w, columns, v, s, stream);
    HopperForwardMaps maps = {};
    maps.q = hopper_map(q, s.qkv_row, s, HOPPER_TILE), maps.k = hopper_map(k, s.qkv_row, s, HOPPER_TILE);
    maps.v = hopper_map(v, s.qkv_row, s, HOPPER_TILE), maps.out = hopper_map(out, s.out_row, s, HOPPER_HALF);
    if (LASER) {
        maps.values = hopper_map(w.left, (int64_t)s.H * D, s, HOPPER_TILE);
        maps.low_bits = hopper_map(low_bits, s.out_row, s, HOPPER_HALF);
    }
    auto *kernel = s.T <= hopper_pingpong_most ? hopper_forward_kernel<D, LASER, true>
                                               : hopper_forward_kernel<D, LASER, false>;
    launch_at(__FILE__, __LINE__, "hopper_forward_kernel", kernel, dim3(hopper_blocks(order)),
              dim3(HOPPER_THREADS), (size_t)HopperBytes<D, LASER>::FORWARD, stream, maps, lse,
              (const float *)w.centers, v, (const Column *)columns, order, s);
    if (LASER) laser_finish(out, low_bits, lse, columns, w, HOPPER_TILE, q, k, v, s, stream);
}

template <int D, bool LASER>
void attention_backward_hopper(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const bf16 *q, const bf16 *k,
                               const bf16 *v, const float *turn, const AttentionWork &w,
                               const AttentionSizes &s, cudaStream_t stream) {
    const int64_t A = (int64_t)s.H * D, u_row = LASER ? A : s.qkv_row, g_row = LASER ? A : s.out_row;
    const bf16 *u = LASER ? w.right : v, *g = LASER ? w.left : dout;
    const HopperOrder order = hopper_order(s);
    const dim3 grid(hopper_blocks(order)), block(HOPPER_THREADS);
    const HopperKeysMaps keys = {
        hopper_map(k, s.qkv_row, s, HOPPER_TILE),  hopper_map(u, u_row, s, HOPPER_TILE),
        hopper_map(q, s.qkv_row, s, HOPPER_HALF),  hopper_map(g, g_row, s, HOPPER_HALF),
        hopper_map(dk, s.qkv_row, s, HOPPER_HALF), hopper_map(dv, s.qkv_row, s, HOPPER_HALF)};
    const HopperQueriesMaps queries = {
        hopper_map(q, s.qkv_row, s, HOPPER_TILE), hopper_map(g, g_row, s, HOPPER_TILE),
        hopper_map(k, s.qkv_row, s, HOPPER_TILE), hopper_map(u, u_row, s, HOPPER_TILE),
        hopper_map(dq, s.qkv_row, s, HOPPER_HALF)};
    LAUNCH((hopper_keys_kernel<D, LASER>), grid, block, (size_t)HopperBytes<D, LASER>::KEYS, stream, keys,
           (const float *)w.rows, turn, order, s);
    LAUNCH(hopper_queries_kernel<D>, grid, block, (size_t)HopperBytes<D, LASER>::QUERIES, stream, queries,
           (const float *)w.rows, turn, order, s);
}

#endif
