/* mma.cuh: products on tensor cores, tiles of bf16 in shared memory, and asynchronous copies into tiles. On a GPU of
   compute capability 8.0 and later these are PTX's instructions mma, ldmatrix and cp.async; in the emulator they are
   functions that use the same fragment layouts.

   mma_m16n8k16(c, a, b0, b1)     C (16, 8) += A (16, 16) B (16, 8), float32 += bf16 * bf16
   Each lane of a warp holds a fragment of each matrix. With g = lane / 4 and t = lane % 4 it holds:
       a[0], a[1], a[2], a[3]     A(g, 2t..), A(g + 8, 2t..), A(g, 2t + 8..), A(g + 8, 2t + 8..)
       b0, b1                     B(2t.., g), B(2t + 8.., g)
       c[0..3]                    C(g, 2t), C(g, 2t + 1), C(g + 8, 2t), C(g + 8, 2t + 1)
   A register of A or B holds two bf16: the element named, in the low half, and the next one, whose column of A or row
   of B is one larger. So the C of two products side by side, rounded to bf16, is in each lane the A of a next
   product.

   Tile<D>                        the layout of a tile: rows of D bf16 in shared memory, in 16-byte chunks. The chunks
                                  are permuted so that the same chunk of eight neighbouring rows is in different banks
   load_a(a, tile, row, column)   loads the fragment of A(i, k) = tile(row + i, column + k)
   load_b_rows(b, tile, row, column)     loads the fragments of B(k, n) = tile(row + n, column + k) for n = 0..15:
                                  b[0] and b[1] are those of n < 8, b[2] and b[3] those of the other n
   load_b_columns(b, tile, row, column)  the same for B(k, n) = tile(row + k, column + n)
   load_tile(tile, from, stride, inside)   starts the copy of rows to a tile; rows from `inside` on become zeros
   cp_async_commit()              ends a group of copies
   cp_async_wait<N>()             waits until all groups of this thread but the last N have arrived
   product_over_d, product_over_rows     products of a warp's rows with a whole tile */
#ifndef CUDA_MMA_CUH
#define CUDA_MMA_CUH

#include "device.h"

#ifdef __CUDACC__

__device__ __forceinline__ void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Loads four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8. */
template <bool TRANSPOSE> __device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], const bf16 *row) {
    const uint32_t address = (uint32_t)__cvta_generic_to_shared(row);
    if (TRANSPOSE)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(address)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(address)
                     : "memory");
}

/* Starts the copy of 16 bytes to shared memory, which uses no registers. If not `inside`, zeros are written. */
__device__ __forceinline__ void cp_async_16(void *to, const void *from, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from), "r"(inside ? 16 : 0)
                 : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#else

struct MmaOperands {
    float *c;
    const uint32_t *a;
    uint32_t b[2];
};

inline void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    MmaOperands mine = {c, a, {b0, b1}};
    emulate::warp_operation<MmaOperands>("mma_m16n8k16", &mine, [](MmaOperands **lanes) {
        float A[16][16], B[16][8];
        for (int lane = 0; lane < 32; lane++) {
            const int g = lane / 4, t = lane % 4;
            for (int r = 0; r < 4; r++) {
                A[g + r % 2 * 8][2 * t + r / 2 * 8] = bf16_low(lanes[lane]->a[r]);
                A[g + r % 2 * 8][2 * t + r / 2 * 8 + 1] = bf16_high(lanes[lane]->a[r]);
            }
            for (int r = 0; r < 2; r++) {
                B[2 * t + 8 * r][g] = bf16_low(lanes[lane]->b[r]);
                B[2 * t + 8 * r + 1][g] = bf16_high(lanes[lane]->b[r]);
            }
        }
        for (int lane = 0; lane < 32; lane++)
            for (int r = 0; r < 4; r++) {
                const int row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
                float sum = lanes[lane]->c[r];
                for (int k = 0; k < 16; k++) sum += A[row][k] * B[k][column];
                lanes[lane]->c[r] = sum;
            }
    });
}

struct LdmatrixOperands {
    uint32_t *r;
    const bf16 *row;
};

/* Returns how many pairs of rows are in the same banks. Eight rows of 16 bytes are read at a time, and each should be
   in four banks of its own. */
inline long ldmatrix_conflicts(LdmatrixOperands **lanes) {
    long conflicts = 0;
    for (int i = 0; i < 32; i++)
        for (int j = i / 8 * 8; j < i; j++)
            if (lanes[i]->row != lanes[j]->row &&
                ((uintptr_t)lanes[i]->row - (uintptr_t)lanes[j]->row) % 128 == 0)
                conflicts++;
    return conflicts;
}

template <bool TRANSPOSE> inline void ldmatrix(uint32_t (&r)[4], const bf16 *row) {
    if ((uintptr_t)row % 16 != 0)
        emulate::fail(emulate::state.current, "ldmatrix from an address that is no multiple of 16");
    LdmatrixOperands mine = {r, row};
    emulate::warp_operation<LdmatrixOperands>(
        TRANSPOSE ? "ldmatrix.trans" : "ldmatrix", &mine, [](LdmatrixOperands **lanes) {
            emulate::state.bank_conflicts += ldmatrix_conflicts(lanes);
            for (int lane = 0; lane < 32; lane++)
                for (int m = 0; m < 4; m++) {
                    const int g = lane / 4, t = lane % 4;
                    const uint16_t low =
                        TRANSPOSE ? lanes[8 * m + 2 * t]->row[g].bits : lanes[8 * m + g]->row[2 * t].bits;
                    const uint16_t high = TRANSPOSE ? lanes[8 * m + 2 * t + 1]->row[g].bits
                                                    : lanes[8 * m + g]->row[2 * t + 1].bits;
                    lanes[lane]->r[m] = low | (uint32_t)high << 16;
                }
        });
}

inline void cp_async_16(void *to, const void *from, bool inside) {
    emulate::Thread *t = emulate::state.current;
    if ((uintptr_t)to % 16 != 0 || (uintptr_t)from % 16 != 0)
        emulate::fail(t, "cp.async between addresses that are no multiples of 16");
    t->copies.push_back({to, inside ? from : nullptr, false});
}
inline void cp_async_commit() { emulate::state.current->copies.push_back({nullptr, nullptr, true}); }
template <int N> inline void cp_async_wait() {
    std::vector<emulate::Copy> &copies = emulate::state.current->copies;
    int groups = 0;
    for (const emulate::Copy &copy : copies) groups += copy.end_of_group;
    size_t done = 0;
    for (; groups > N; done++) {
        const emulate::Copy &copy = copies[done];
        if (copy.end_of_group)
            groups--;
        else if (copy.from)
            memcpy(copy.to, copy.from, 16);
        else
            memset(copy.to, 0, 16);
    }
    copies.erase(copies.begin(), copies.begin() + (long)done);
}

#endif

/* ---- tiles ---- */

template <int D> struct Tile {
    static_assert(D % 16 == 0 && (D & (D - 1)) == 0, "rows of 16, 32, 64, 128... elements");
    enum { CHUNKS = D / 8, SPREAD = CHUNKS < 8 ? CHUNKS : 8, ROWS_PER_LINE = 8 / SPREAD };

    /* Returns the position, in elements, of a 16-byte chunk of a row. The same chunk of eight neighbouring rows has
       eight different positions modulo 128 bytes, so that ldmatrix reads the eight from different banks. */
    static __device__ __forceinline__ int at(int row, int chunk) {
        return row * D + (chunk ^ (row / ROWS_PER_LINE % SPREAD)) * 8;
    }
};

/* All THREADS threads of a block start the copy of ROWS rows of D elements, `stride` elements apart, to a tile. Rows
   from `inside` on become zeros. */
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_tile(bf16 *tile, const bf16 *from, int64_t stride, int inside) {
#pragma unroll
    for (int i = (int)threadIdx.x; i < ROWS * Tile<D>::CHUNKS; i += THREADS) {
        const int row = i / Tile<D>::CHUNKS, chunk = i % Tile<D>::CHUNKS;
        cp_async_16(tile + Tile<D>::at(row, chunk), from + (row < inside ? row : 0) * stride + chunk * 8,
                    row < inside);
    }
}

/* The thread's lane in its warp. */
__device__ __forceinline__ int lane_of_warp() { return (int)threadIdx.x % WARP_SIZE; }

template <int D>
__device__ __forceinline__ void load_a(uint32_t (&a)[4], const bf16 *tile, int row, int column) {
    const int lane = lane_of_warp();
    ldmatrix<false>(a, tile + Tile<D>::at(row + lane % 16, column / 8 + lane / 16));
}
template <int D>
__device__ __forceinline__ void load_b_rows(uint32_t (&b)[4], const bf16 *tile, int row, int column) {
    const int lane = lane_of_warp();
    ldmatrix<false>(b, tile + Tile<D>::at(row + lane % 8 + lane / 16 * 8, column / 8 + lane / 8 % 2));
}
template <int D>
__device__ __forceinline__ void load_b_columns(uint32_t (&b)[4], const bf16 *tile, int row, int column) {
    const int lane = lane_of_warp();
    ldmatrix<true>(b, tile + Tile<D>::at(row + lane % 16, column / 8 + lane / 16));
}

/* C (16, 8 * BLOCKS) += A (16, D) B, where A(i, d) = a_tile(row + i, d) and B(d, n) = b_tile(first + n, d). This
   computes scores q k^T, and dP = dO V^T. */
template <int D, int BLOCKS>
__device__ __forceinline__ void product_over_d(float (&c)[BLOCKS][4], const bf16 *a_tile, int row,
                                               const bf16 *b_tile, int first) {
#pragma unroll
    for (int d = 0; d < D; d += 16) {
        uint32_t a[4];
        load_a<D>(a, a_tile, row, d);
#pragma unroll
        for (int n = 0; n < BLOCKS; n += 2) {
            uint32_t b[4];
            load_b_rows<D>(b, b_tile, first + n * 8, d);
            mma_m16n8k16(c[n], a, b[0], b[1]);
            mma_m16n8k16(c[n + 1], a, b[2], b[3]);
        }
    }
}

/* C (16, D) += A (16, 8 * BLOCKS) B, where B(n, d) = b_tile(first + n, d). A is the C of an earlier product, rounded
   to bf16: a[n][0] holds c[n][0] and c[n][1], a[n][1] holds c[n][2] and c[n][3]. */
template <int D, int BLOCKS>
__device__ __forceinline__ void product_over_rows(float (&c)[D / 8][4], const uint32_t (&a)[BLOCKS][2],
                                                  const bf16 *b_tile, int first) {
#pragma unroll
    for (int n = 0; n < BLOCKS; n += 2) {
        const uint32_t left[4] = {a[n][0], a[n][1], a[n + 1][0], a[n + 1][1]};
#pragma unroll
        for (int d = 0; d < D / 8; d += 2) {
            uint32_t b[4];
            load_b_columns<D>(b, b_tile, first + n * 8, d * 8);
            mma_m16n8k16(c[d], left, b[0], b[1]);
            mma_m16n8k16(c[d + 1], left, b[2], b[3]);
        }
    }
}

#endif
