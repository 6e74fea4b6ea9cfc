/* attention_hopper.cuh: attention's kernels for compute capability 9.0, for bf16 and heads of 64 and 128. They compute
   softmax(QK^T)V tile by tile (flash attention), so no T x T array is stored. Their products use wgmma, an instruction
   with which four warps (a warpgroup) together start a matrix product on the tensor cores, the multiprocessor's units
   for such products. The tensor cores read the right operand, and in the products that give scores also the left
   operand, from shared memory while the warps compute something else. The TMA unit copies tiles between global and
   shared memory by itself. Read the manual of hopper.cuh first: it explains these instructions, barriers and their
   phases, descriptors, fences and the swizzle.

   attention_hopper_work.cuh      pieces of work, their order, and the queue that passes them to the consumers
   attention_hopper_tiles.cuh     tiles in shared memory and products of them
   attention_hopper_forward.cuh   hopper_forward_kernel
   attention_hopper_backward.cuh  hopper_backward_dkdv_kernel, hopper_backward_dq_kernel
   this file                      attention_forward_hopper and attention_backward_hopper, which launch the kernels

   Warpgroups. A block has three. Thread 0 of the first one is the producer: it starts the copies of tiles by the TMA
   unit into pipeline stages in shared memory. Barriers in shared memory tell the consumers when a tile has arrived
   (full), and tell the producer when both consumers no longer need it (empty). The two other warpgroups are the
   consumers. Each computes 64 rows of the block's tile of 128 and holds them as accumulators in its registers, so the
   consumers never exchange numbers.

   Work. There are as many blocks as the GPU has multiprocessors, and each block takes one piece of work (a tile of
   128 rows of a head) after the other from a queue, the longest pieces first. While the consumers write the results
   of one piece, the producer already loads the next one, which saves a third of the time for sequences of 1,024
   tokens. Which block computes a piece changes no bit of the results.

   Tiles. A tile of rows of D bf16 is stored as panels of 64 columns, each row of a panel 128 bytes, in the 128-byte
   swizzle, an order of the 16-byte pieces in which reading them causes no bank conflicts. (hopper.cuh calls one such
   panel a tile.) Rows past the end of a sequence are loaded as zeros and are not stored.

   hopper_forward_kernel         computes out and lse of 128 queries of a head, from the tiles of keys up to them. It
                                 begins with the tile on the diagonal and ends with key 0. Each step issues two
                                 products together: the scores of the next tile, and this tile's weights times V. The
                                 softmax of the next tile begins as soon as its scores are computed, while the second
                                 product still runs. With PINGPONG the consumers issue their products in turns, so
                                 that one consumer computes its softmax while the products of the other run. This is
                                 faster for short sequences.
   hopper_backward_dkdv_kernel   computes dk and dv of 128 keys, from the queries at and after them, 64 at a time.
                                 Scores have a row for each key and a column for each query, so that the weights and
                                 ds are left operands, which are in registers.
   hopper_backward_dq_kernel     computes dq of 128 queries, from the keys up to them.
   dq is a sum over keys, dk and dv are sums over queries. One kernel for all three would need atomic additions to dq,
   whose order varies from run to run. So there are two kernels, and both compute the scores and dP: seven products for
   each pair of tiles instead of five, but every run gives the same bits.

   Fragments. Thread t of a warpgroup holds a part of the accumulators (64, columns): of the rows `row` = t / 32 * 16
   + t % 32 / 4 and `row` + 8, two columns of every eight, the first of which is `pair` = t % 4 * 2. So x[4 n + 2 h +
   e] is element (row + 8 h, 8 n + pair + e). Four neighbouring registers of such values, rounded to bf16 and packed
   in pairs, are a left operand of the next product as they are, without a shuffle. */
#ifndef CUDA_ATTENTION_HOPPER_CUH
#define CUDA_ATTENTION_HOPPER_CUH

#include "attention_hopper_backward.cuh"
#include "attention_hopper_forward.cuh"

/* Tests and measurements set it: the kernels of attention_mma.cuh are then used on a GPU of compute capability 9.0
   too. */
inline bool attention_without_hopper = false;

/* Returns whether the kernels of attention_hopper.cuh compute attention of these sizes, for heads of 64 and 128. */
static inline bool attention_uses_hopper(const AttentionSizes &s) {
    return !attention_without_hopper && hopper_is_available() && s.qkv_row % 8 == 0 && s.out_row % 8 == 0;
}

/* Describes an array (B, T, H * D) of bf16, `row` elements from token to token, for copies of box_rows rows. */
static inline TensorMap hopper_map(const void *at, int64_t row, const AttentionSizes &s, int box_rows) {
    return tensor_map(at, (int64_t)s.H * s.D, row, s.T, s.B, box_rows);
}

/* The longest sequence for which the consumers issue their products in turns (PINGPONG); tests change it. */
inline int hopper_pingpong_max_tokens = 2048;

/* Upper bounds of the bytes of shared memory that the kernels use. The structs themselves do not exist when device
   code is compiled for an architecture below 9.0. */
template <int D, bool LASER> struct HopperBytes {
    enum {
        TILE = HOPPER_TILE * D * 2,
        FORWARD = (LASER ? 7 : 6) * TILE + 4 * D * 4 + 512,
        DKDV = 7 * TILE + 3 * 2 * HOPPER_HALF_TILE * 4 + 512,
        DQ = 3 * TILE + (D == 128 ? 2 : 3) * 2 * TILE + 512
    };
#ifdef HOPPER_CODE
    static_assert(sizeof(HopperForwardShared<D, LASER>) <= (FORWARD + 1023) / 1024 * 1024, "");
    static_assert(sizeof(HopperDkDvShared<D>) <= (DKDV + 1023) / 1024 * 1024, "");
    static_assert(sizeof(HopperDqShared<D>) <= (DQ + 1023) / 1024 * 1024, "");
#endif
};

/* The largest number of blocks; tests lower it, so that each block computes many pieces of work. */
inline int hopper_max_blocks = 1 << 20;

/* Returns the number of blocks with which a kernel is launched. */
static inline unsigned hopper_blocks(HopperOrder order) {
    return (unsigned)min(min(order.pieces, device_multiprocessors()), hopper_max_blocks);
}

/* Writes out, low_bits, lse and columns as attention_forward of attention.cuh does, for heads of D. */
template <int D, bool LASER>
void attention_forward_hopper(bf16 *out, uint16_t *low_bits, float *lse, LaserColumn *columns, const bf16 *q,
                              const bf16 *k, const bf16 *v, const AttentionWork &w, const AttentionSizes &s,
                              cudaStream_t stream) {
    const HopperOrder order = hopper_order(s);
    if (LASER) laser_prepare<D, HOPPER_TILE>(w, columns, v, s, stream);
    HopperForwardMaps maps = {};
    maps.q = hopper_map(q, s.qkv_row, s, HOPPER_TILE), maps.k = hopper_map(k, s.qkv_row, s, HOPPER_TILE);
    maps.v = hopper_map(v, s.qkv_row, s, HOPPER_TILE),
    maps.out = hopper_map(out, s.out_row, s, HOPPER_HALF_TILE);
    if (LASER) {
        maps.values = hopper_map(w.values, (int64_t)s.H * D, s, HOPPER_TILE);
        maps.low_bits = hopper_map(low_bits, s.out_row, s, HOPPER_HALF_TILE);
    }
    auto *kernel = s.T <= hopper_pingpong_max_tokens ? hopper_forward_kernel<D, LASER, true>
                                                     : hopper_forward_kernel<D, LASER, false>;
    launch_at(__FILE__, __LINE__, "hopper_forward_kernel", kernel, dim3(hopper_blocks(order)),
              dim3(HOPPER_THREADS), (size_t)HopperBytes<D, LASER>::FORWARD, stream, maps, lse,
              (const float *)w.centers, v, (const LaserColumn *)columns, order, s);
    if (LASER) laser_finish(out, low_bits, lse, columns, w, HOPPER_TILE, q, k, v, s, stream);
}

/* Writes dq, dk and dv as attention_backward of attention.cuh does, for heads of D. attention_backward_rows (laser.cuh)
   has filled `w`. */
template <int D, bool LASER>
void attention_backward_hopper(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const bf16 *q, const bf16 *k,
                               const bf16 *v, const float *rope_cos_sin, const AttentionWork &w,
                               const AttentionSizes &s, cudaStream_t stream) {
    const int64_t A = (int64_t)s.H * D, u_row = LASER ? A : s.qkv_row, g_row = LASER ? A : s.out_row;
    const bf16 *u = LASER ? w.centered_v : v, *g = LASER ? w.scaled_dout : dout;
    const HopperOrder order = hopper_order(s);
    const dim3 grid(hopper_blocks(order)), block(HOPPER_THREADS);
    const HopperDkDvMaps keys = {
        hopper_map(k, s.qkv_row, s, HOPPER_TILE),       hopper_map(u, u_row, s, HOPPER_TILE),
        hopper_map(q, s.qkv_row, s, HOPPER_HALF_TILE),  hopper_map(g, g_row, s, HOPPER_HALF_TILE),
        hopper_map(dk, s.qkv_row, s, HOPPER_HALF_TILE), hopper_map(dv, s.qkv_row, s, HOPPER_HALF_TILE)};
    const HopperDqMaps queries = {
        hopper_map(q, s.qkv_row, s, HOPPER_TILE), hopper_map(g, g_row, s, HOPPER_TILE),
        hopper_map(k, s.qkv_row, s, HOPPER_TILE), hopper_map(u, u_row, s, HOPPER_TILE),
        hopper_map(dq, s.qkv_row, s, HOPPER_HALF_TILE)};
    LAUNCH((hopper_backward_dkdv_kernel<D, LASER>), grid, block, (size_t)HopperBytes<D, LASER>::DKDV, stream,
           keys, (const float *)w.rows, rope_cos_sin, order, s);
    LAUNCH(hopper_backward_dq_kernel<D>, grid, block, (size_t)HopperBytes<D, LASER>::DQ, stream, queries,
           (const float *)w.rows, rope_cos_sin, order, s);
}

#endif
