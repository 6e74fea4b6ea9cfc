/* attention_hopper_tiles.cuh: what the kernels of attention for compute capability 9.0 do with tiles: their layout in
   shared memory, copies, and the two kinds of products of a warpgroup. attention_hopper.cuh describes tiles and
   fragments. */
#ifndef CUDA_ATTENTION_HOPPER_TILES_CUH
#define CUDA_ATTENTION_HOPPER_TILES_CUH

#include "attention_hopper_work.cuh"

#ifdef HOPPER_CODE

/* Returns x, but hides its value from the compiler. Without this the compiler would compute what depends on x once,
   before the loop over the pieces of work, and keep it in registers that the accumulators need. */
__device__ __forceinline__ int hopper_opaque(int x) {
    uint32_t word[1] = {(uint32_t)x};
    fence_registers(word);
    return (int)word[0];
}

/* Returns the number of this thread's consumer, 0 or 1. Through the shuffle the compiler knows that all threads of a
   warp have the same: products in a branch that depends on it, which threads of a warp could otherwise take
   differently, would be serialized. */
__device__ __forceinline__ int hopper_consumer_number() {
    return __shfl_sync(0xFFFFFFFFu, (int)threadIdx.x / HOPPER_WARPGROUP - 1, 0);
}

/* Returns the position, in elements, of element (row, column) of a tile of ROWS rows. */
template <int ROWS> __device__ __forceinline__ int hopper_tile_offset(int row, int column) {
    return column / 64 * ROWS * 64 + (int)swizzle_128((uint32_t)(row * 128 + column % 64 * 2)) / 2;
}

/* Starts to load a tile: ROWS rows from `row` on, of the D columns from `column` on. */
template <int D, int ROWS>
__device__ __forceinline__ void hopper_load_tile(bf16 *tile, const TensorMap *map, int column, int row, int b,
                                                 SharedBarrier *full) {
    for (int panel = 0; panel < D / 64; panel++)
        tensor_load(tile + panel * ROWS * 64, map, column + panel * 64, row, b, full);
}

/* All lanes of a consumer's warp call this when they no longer need what was loaded: the warp arrives at the stage's
   empty barrier. */
__device__ __forceinline__ void hopper_release(SharedBarrier *empty) {
#ifdef EVERY_LANE_ARRIVES
    barrier_arrive(empty);
#else
    __syncwarp();
    if (threadIdx.x % WARP_SIZE == 0) barrier_arrive(empty);
#endif
}

/* Returns the descriptor of the operand at `to`, computed from the descriptor of the operand at `from`. Both operands
   must have the same leading_bytes (hopper.cuh), which matter only to transposed operands. */
__device__ __forceinline__ uint64_t hopper_descriptor_at(uint64_t descriptor, const bf16 *from,
                                                         const bf16 *to) {
    return descriptor + (uint64_t)((to - from) * (int)sizeof(bf16) / 16);
}

/* x (64, 2 R) = A B^T, where A is 64 rows of a tile of A_ROWS rows, B is 2 R rows of a tile of B_ROWS rows, and both
   have D columns. a and b are their descriptors. This computes scores q k^T, and dP = dO V^T. */
template <int D, int A_ROWS, int B_ROWS, int R>
__device__ __forceinline__ void hopper_scores(float (&x)[R], uint64_t a, uint64_t b) {
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        wgmma_from_shared<0, 0>(x, a + (uint64_t)(k / 4 * A_ROWS * 8 + k % 4 * 2),
                                b + (uint64_t)(k / 4 * B_ROWS * 8 + k % 4 * 2), k > 0);
}

/* x (64, 2 R) += weights (64, 4 W) B, where B is 4 W rows of a tile, whose descriptor is b. With FROM and TO only rows
   16 FROM to 16 TO - 1 of B, and the weights of these rows, are multiplied. */
template <int FROM = 0, int TO = 8, int R, int W>
__device__ __forceinline__ void hopper_weighted_sum(float (&x)[R], const uint32_t (&weights)[W], uint64_t b) {
#pragma unroll
    for (int k = FROM; k < TO && k < W / 4; k++)
        wgmma_from_registers<1>(x, weights[4 * k], weights[4 * k + 1], weights[4 * k + 2], weights[4 * k + 3],
                                b + (uint64_t)(k * 128), true);
}

/* Starts to store a consumer's 64 rows of a tile from shared memory to global memory. The consumer's own threads have
   written them. */
template <int D>
__device__ __forceinline__ void hopper_store_rows(const TensorMap *map, const bf16 *tile, int column, int row,
                                                  int b, int consumer) {
    for (int panel = 0; panel < D / 64; panel++)
        tensor_store(map, column + panel * 64, row + consumer * HOPPER_HALF_TILE, b,
                     tile + panel * HOPPER_TILE * 64 + consumer * HOPPER_HALF_TILE * 64);
}

/* Rounds the float32 values x of a fragment to bf16 and packs them in pairs: the left operand of the next product. */
template <int W>
__device__ __forceinline__ void hopper_pack_bf16(uint32_t (&pairs)[W], const float (&x)[2 * W]) {
#pragma unroll
    for (int i = 0; i < W; i++) pairs[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
}

#endif

#endif
