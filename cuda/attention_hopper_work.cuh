/* attention_hopper_work.cuh: how the blocks of attention's kernels for compute capability 9.0 divide their work. The
   kernels are in attention_hopper_forward.cuh and attention_hopper_backward.cuh; attention_hopper.cuh describes how a
   block's warpgroups work together.

   A piece of work is a tile of 128 rows of a head. The producer of each block takes the number of the next piece from a
   counter in global memory and passes the piece to its consumers through a queue in shared memory. */
#ifndef CUDA_ATTENTION_HOPPER_WORK_CUH
#define CUDA_ATTENTION_HOPPER_WORK_CUH

#include "attention_plain.cuh"
#include "hopper.cuh"

enum {
    HOPPER_TILE = 128 /* rows of a tile */,
    HOPPER_HALF_TILE = 64 /* rows of a tile that one consumer computes */,
    HOPPER_WARPGROUP = 128 /* threads of a warpgroup */,
    HOPPER_THREADS = 3 * HOPPER_WARPGROUP /* threads of a block: a producer and two consumers */
};
/* The number of arrivals at an empty barrier that end a phase: one lane of each warp of the two consumers arrives.
   The racecheck of compute-sanitizer does not recognise that __syncwarp orders the other lanes before that one; for
   racecheck the program can be compiled with -DEVERY_LANE_ARRIVES. */
#ifdef EVERY_LANE_ARRIVES
enum { HOPPER_ARRIVALS = 2 * HOPPER_WARPGROUP };
#else
enum { HOPPER_ARRIVALS = 2 * HOPPER_WARPGROUP / WARP_SIZE };
#endif
/* Numbers of named barriers; number 0 belongs to __syncthreads. Each name stands for two barriers: consumer c uses the
   number of the name plus c. */
enum {
    HOPPER_TURN_BARRIER = 2 /* the consumer may issue its products (PINGPONG) */,
    HOPPER_RESULT_BARRIER = 4 /* the consumer's results are in shared memory */
};

/* The order in which the blocks take the pieces of work. Heads form groups whose k and v fit into the L2 cache
   together. All tiles of one group of heads come before those of the next group, and within a group the tiles with
   the longest rows come first. */
struct HopperOrder {
    int tiles;  /* tiles of each head */
    int group;  /* heads of each group */
    int pieces; /* pieces of work in all */
};

/* Returns the order for attention of these sizes: the largest group of at most 32 heads whose k and v take at most
   20 MiB of the L2 cache. */
static inline HopperOrder hopper_order(const AttentionSizes &s) {
    const int64_t bytes_of_head = (int64_t)s.T * s.D * 2 * (int64_t)sizeof(bf16), cache = 20 << 20;
    HopperOrder order = {(int)blocks_for(s.T, HOPPER_TILE), 1, 0};
    for (int group = 1; group <= 32; group++)
        if (s.B * s.H % group == 0 && group * bytes_of_head <= cache) order.group = group;
    order.pieces = order.tiles * s.B * s.H;
    return order;
}

/* How many pieces of work the blocks of the running kernel have taken, and how many of its blocks have ended. Both are
   zero between kernels. The kernels of a process that use them run one after the other. */
static __device__ unsigned hopper_pieces_taken, hopper_blocks_done;

#ifdef HOPPER_CODE

/* A block of HOPPER_THREADS is launched with 168 registers a thread, the most that the 65,536 of a multiprocessor
   allow. The producer's warpgroup gives most of its registers back, and the consumers get them. A demand for more
   registers than there are would wait without end. */
enum { HOPPER_LAUNCH_REGISTERS = 65536 / HOPPER_THREADS / 8 * 8, HOPPER_PRODUCER_REGISTERS = 24 };
enum { HOPPER_CONSUMER_REGISTERS = (3 * HOPPER_LAUNCH_REGISTERS - HOPPER_PRODUCER_REGISTERS) / 2 / 8 * 8 };

/* ---- pieces of work, and the queue from the producer to the consumers ---- */

/* A piece of work: a tile of a head. */
struct HopperPiece {
    int tile; /* of queries or of keys, within the head; -1: there is no more work */
    int head; /* b * H + h */
    int h, b; /* the head within its sequence, and the sequence */
};

/* Returns the piece of work with this number; its tile is -1 if there is none. last_is_longest is true for tiles of
   queries, of which the last one sees the most keys, and false for tiles of keys, of which the first one is seen by the
   most queries. */
__device__ __forceinline__ HopperPiece hopper_piece(HopperOrder order, int number, bool last_is_longest,
                                                    const AttentionSizes &s) {
    if (number >= order.pieces) return HopperPiece{-1, 0, 0, 0};
    const unsigned each = (unsigned)(order.group * order.tiles), r = (unsigned)number % each;
    const int place = (int)(r / (unsigned)order.group),
              head = (int)((unsigned)number / each * (unsigned)order.group + r % (unsigned)order.group);
    return HopperPiece{last_is_longest ? order.tiles - 1 - place : place, head, head % s.H, head / s.H};
}

/* Returns the number of the next piece of work, from the counter that all blocks share. */
__device__ __forceinline__ int hopper_next_number() { return (int)atomicAdd(&hopper_pieces_taken, 1u); }

/* The producer of each block calls this at its end. */
__device__ __forceinline__ void hopper_producer_done() {
    if (atomicAdd(&hopper_blocks_done, 1u) + 1 < gridDim.x) return;
    /* Only the last block comes here and resets the counters, before the next kernel begins. */
    hopper_pieces_taken = 0, hopper_blocks_done = 0;
}

/* Passes pieces of work from the producer to the consumers' warps, in shared memory. The consumers read the piece
   there whenever they need it, since they have no registers to keep it in. */
struct HopperQueue {
    enum { SLOTS = 2 };
    HopperPiece piece[SLOTS];
    SharedBarrier full[SLOTS];  /* the slot holds a piece */
    SharedBarrier empty[SLOTS]; /* the consumers no longer need the piece */
};

/* One thread of the block calls this, before barrier_init_done. */
__device__ __forceinline__ void hopper_queue_init(HopperQueue *queue) {
    for (int i = 0; i < HopperQueue::SLOTS; i++)
        barrier_init(&queue->full[i], 1), barrier_init(&queue->empty[i], HOPPER_ARRIVALS);
}

/* The producer puts the count-th piece of its block into the queue, once the consumers no longer need the piece that
   the slot holds. A piece with tile -1 tells the consumers that no more pieces follow. */
__device__ __forceinline__ void hopper_queue_put(HopperQueue *queue, int count, const HopperPiece &piece) {
    const int slot = count % HopperQueue::SLOTS;
    barrier_wait(&queue->empty[slot], (uint32_t)(count / HopperQueue::SLOTS & 1) ^ 1);
    queue->piece[slot] = piece;
    barrier_arrive(&queue->full[slot]);
}

/* A consumer waits for the count-th piece of its block and returns it. */
__device__ __forceinline__ const HopperPiece &hopper_queue_get(HopperQueue *queue, int count) {
    const int slot = count % HopperQueue::SLOTS;
    barrier_wait(&queue->full[slot], (uint32_t)(count / HopperQueue::SLOTS & 1));
    return queue->piece[slot];
}

/* A position in a pipeline of STAGES stages, each of which holds one tile. next() goes on to the stage of the next
   tile. */
template <int STAGES> struct HopperStage {
    int at;         /* the number of the stage */
    uint32_t phase; /* the parity of the phase of the stage's barriers */
    __device__ __forceinline__ void next() {
        if (++at == STAGES) at = 0, phase ^= 1;
    }
};

#endif

#endif
