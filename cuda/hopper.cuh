/* hopper.cuh: what compute capability 9.0 has beyond mma.cuh: products computed by whole warpgroups (four warps),
   copies of tiles that occupy no threads, and barriers in shared memory. Under nvcc this is PTX, in the emulator
   emulate_hopper.h.

   #define HOPPER_CODE            defined where a kernel may use this: in the emulator, and where nvcc compiles for
                                  sm_90a. The body of such a kernel stands under #ifdef HOPPER_CODE; elsewhere these
                                  functions do nothing
   hopper_is_available()          whether this GPU can run such a kernel and this program has code for it; if not, the
                                  kernel must not be launched

   Tiles. A tile is an array of rows of 64 bf16 elements, 128 bytes each, at a multiple of 1024 bytes in shared memory
   (which itself begins at one). The 16-byte chunks of a tile are permuted: the element that would be at byte
   o = row * 128 + column * 2 is at byte swizzle_128(o). A matrix of more columns is several tiles, one after the other.

   tensor_map(at, columns, row_stride, rows, batches, box_rows)   on the host: describes how an array (batches, rows,
                                  columns) of 16-bit elements lies in global memory, with `row_stride` elements from
                                  row to row and rows * row_stride from batch to batch, for copies of tiles of
                                  box_rows rows. A kernel takes it as `const __grid_constant__ TensorMap map`
   tensor_load(to, &map, column, row, batch, &barrier)    starts the copy of a tile to shared memory; elements past
                                  the last row or column become zeros. A single thread calls it, and the functions
                                  from here to bulk_wait
   bulk_load(to, from, bytes, &barrier)   starts the copy of plain bytes; addresses and sizes are multiples of 16
   tensor_store(&map, column, row, batch, from)   starts the copy of a tile to global memory; elements past the last
                                  row or column are not written
   bulk_commit()                  ends a group of stores
   bulk_wait_read()               waits until the committed stores have read shared memory, which may then be
                                  overwritten
   bulk_wait()                    waits until their data are in global memory

   Barriers. A SharedBarrier lies in shared memory and goes through phases, whose parity is 0, 1, 0, ... A phase ends
   when `arrivals` threads have arrived and all bytes announced for it have been loaded.
   barrier_init(b, arrivals), barrier_init_done(), __syncthreads()    one thread calls the first two, once
   barrier_expect(b, bytes)       arrives, and announces that so many bytes are loaded in this phase
   barrier_arrive(b)
   barrier_wait(b, parity)        waits until the phase of this parity has ended. The phase before the first one
                                  counts as ended: a thread that waits for parity 1 before anything else does not wait
   named_barrier_sync(id, threads), named_barrier_arrive(id, threads)    the barrier opens when so many threads (whole
                                  warps) have called one of the two; only the first waits for it. ids are 1..15: 0
                                  belongs to __syncthreads

   fence_async_proxy()            makes what this thread has written to shared memory visible to wgmma and
                                  tensor_store. It stands after the writes and before the barrier that the thread
                                  which issues those has passed. What loads have written needs no such fence

   Products: C (64, N) += A (64, 16) B (16, N), float32 += bf16 * bf16, N = 2 R. All 128 threads of a warpgroup call
   them.
   wgmma_from_shared<TRANSPOSE_A, TRANSPOSE_B>(c, a, b, add)      without `add`, C = A B
   wgmma_from_registers<TRANSPOSE_B>(c, a0, a1, a2, a3, b, add)
   Thread t of the warpgroup, lane l = t % 32, holds these elements of C and of an A in registers:
       c[i]      row t / 32 * 16 + l / 4 + i / 2 % 2 * 8, column i / 4 * 8 + l % 4 * 2 + i % 2
       a<i>      row t / 32 * 16 + l / 4 + i % 2 * 8, k = l % 4 * 2 + i / 2 * 8 in the low half, k + 1 in the high
                 half
   So the C of one product, rounded, can be the A of the next: its columns 16 k.. are the pairs 4 k..4 k + 3.
   wgmma_descriptor(shared, leading_bytes)    describes where an operand begins in shared memory:
       not transposed: a row of the tile is a row of A or a column of B, and holds its k side by side (as in the
       product of two matrices row by row). The next 16 k are 32 bytes further; leading_bytes is ignored
       transposed: a row of the tile is one k, and holds its rows of A or columns of B side by side. The next 16 k are
       2048 bytes further; leading_bytes is the distance to the next tile, which holds the next 64 rows or columns
   wgmma_fence()                  stands before the first product that uses registers written since (here: since
                                  wgmma_wait)
   wgmma_commit()                 ends a group of products
   wgmma_wait<N>()                waits until all groups but the last N are done. Until then neither the accumulators
                                  nor the A registers of a product may be read or written, nor its shared memory
                                  written
   fence_registers(registers)     forbids the compiler to move reads and writes of these registers across this place. It
                                  stands after a wait, and before a fence if the registers have been written

   registers_increase<N>, registers_decrease<N>   all threads of a warpgroup call it: each has N registers from here
                                  on */
#ifndef CUDA_HOPPER_CUH
#define CUDA_HOPPER_CUH

#include "device.h"

/* Where byte `offset` of a tile lies. */
__host__ __device__ __forceinline__ uint32_t swizzle_128(uint32_t offset) {
    return offset ^ ((offset >> 7 & 7) << 4);
}

#ifdef __CUDACC__
#include <cuda.h> /* CUtensorMap and its constants; no function of libcuda is called by name */

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define HOPPER_CODE
#define HOPPER_ASM(...) asm volatile(__VA_ARGS__)
#else
#define HOPPER_ASM(...) ((void)0)
#endif

struct alignas(8) SharedBarrier {
    uint64_t word;
};
struct TensorMap {
    CUtensorMap map; /* has the alignment that the hardware requires */
};

/* ---- on the host ---- */

static __global__ void hopper_code_kernel(int *there) {
#ifdef HOPPER_CODE
    *there = 1;
#else
    *there = 0;
#endif
}

/* The first call launches a kernel to find out: a program compiled for sm_90 without the `a` runs on such a GPU too,
   but has no such code. */
static inline bool hopper_is_available() {
    static int answer = -1;
    if (answer < 0) {
        int device, major, found = 0;
        cuda_check(cudaGetDevice(&device));
        cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
        if (major == 9) {
            int *there = (int *)device_malloc(sizeof *there);
            LAUNCH(hopper_code_kernel, dim3(1), dim3(1), 0, 0, there);
            copy_to_host(&found, there, sizeof found, 0);
            device_free(there);
        }
        answer = found;
    }
    return answer != 0;
}

/* Described at the top of this file. cuTensorMapEncodeTiled belongs to the driver, so its address is asked for, and the
   program need not be linked with libcuda. */
static inline TensorMap tensor_map(const void *at, int64_t columns, int64_t row_stride, int64_t rows,
                                   int64_t batches, int box_rows) {
    typedef CUresult (*Encode)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                               const cuuint64_t *, const cuuint32_t *, const cuuint32_t *,
                               CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                               CUtensorMapFloatOOBfill);
    static void *encode;
    if (!encode) {
        cudaDriverEntryPointQueryResult status;
#if CUDART_VERSION >= 12050
        cuda_check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000,
                                                    cudaEnableDefault, &status));
#else
        cuda_check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &encode, cudaEnableDefault, &status));
#endif
        if (status != cudaDriverEntryPointSuccess || !encode)
            die("the NVIDIA driver has no cuTensorMapEncodeTiled; expected one for CUDA 12 or later");
    }
    if ((uintptr_t)at % 16 != 0 || row_stride % 8 != 0)
        die("a tensor map of %p, rows %lld elements apart; expected multiples of 16 bytes", at,
            (long long)row_stride);
    const cuuint64_t sizes[3] = {(cuuint64_t)columns, (cuuint64_t)rows, (cuuint64_t)batches};
    const cuuint64_t strides[2] = {(cuuint64_t)row_stride * 2, (cuuint64_t)(rows * row_stride) * 2};
    const cuuint32_t box[3] = {64, (cuuint32_t)box_rows, 1}, steps[3] = {1, 1, 1};
    TensorMap map;
    const CUresult error =
        ((Encode)encode)(&map.map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)at, sizes, strides, box,
                         steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                         CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (error != CUDA_SUCCESS)
        die("no tensor map of %lld x %lld x %lld elements, rows %lld apart, boxes of %d rows: error %d",
            (long long)batches, (long long)rows, (long long)columns, (long long)row_stride, box_rows,
            (int)error);
    return map;
}

/* ---- barriers ---- */

/* Returns the address within shared memory, which the instructions below take. */
__device__ __forceinline__ uint32_t shared_address(const void *x) {
    return (uint32_t)__cvta_generic_to_shared(x);
}

__device__ __forceinline__ void barrier_init(SharedBarrier *b, int arrivals) {
    HOPPER_ASM("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_init_done() {
    HOPPER_ASM("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void barrier_expect(SharedBarrier *b, uint32_t bytes) {
    HOPPER_ASM("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void barrier_arrive(SharedBarrier *b) {
    HOPPER_ASM("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}
/* A wait that takes too long is not ended by a trap: with a trap in the kernel, ptxas ignores registers_increase. */
__device__ __forceinline__ void barrier_wait(SharedBarrier *b, uint32_t parity) {
    uint32_t ended = 1;
    do {
        HOPPER_ASM("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                   "selp.u32 %0, 1, 0, p;\n}"
                   : "=r"(ended)
                   : "r"(shared_address(b)), "r"(parity)
                   : "memory");
    } while (!ended);
}
__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
    HOPPER_ASM("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
    HOPPER_ASM("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* ---- copies ---- */

__device__ __forceinline__ void tensor_load(void *to, const TensorMap *map, int column, int row, int batch,
                                            SharedBarrier *b) {
    HOPPER_ASM("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
               "[%1, {%2, %3, %4}], [%5];" ::"r"(shared_address(to)),
               "l"(&map->map), "r"(column), "r"(row), "r"(batch), "r"(shared_address(b))
               : "memory");
}
__device__ __forceinline__ void bulk_load(void *to, const void *from, uint32_t bytes, SharedBarrier *b) {
    HOPPER_ASM(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            shared_address(to)),
        "l"(from), "r"(bytes), "r"(shared_address(b))
        : "memory");
}
__device__ __forceinline__ void tensor_store(const TensorMap *map, int column, int row, int batch,
                                             const void *from) {
    HOPPER_ASM(
        "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%1, %2, %3}], [%4];" ::"l"(&map->map),
        "r"(column), "r"(row), "r"(batch), "r"(shared_address(from))
        : "memory");
}
__device__ __forceinline__ void bulk_commit() { HOPPER_ASM("cp.async.bulk.commit_group;" ::: "memory"); }
__device__ __forceinline__ void bulk_wait_read() {
    HOPPER_ASM("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
__device__ __forceinline__ void bulk_wait() { HOPPER_ASM("cp.async.bulk.wait_group 0;" ::: "memory"); }
__device__ __forceinline__ void fence_async_proxy() {
    HOPPER_ASM("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ---- products ---- */

template <int N> __device__ __forceinline__ void registers_increase() {
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "setmaxnreg takes multiples of 8");
    HOPPER_ASM("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ __forceinline__ void registers_decrease() {
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "setmaxnreg takes multiples of 8");
    HOPPER_ASM("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* Bits 0..13: address / 16; 16..29: leading bytes / 16; 32..45: stride / 16, here of eight rows; 62..63: 1, the
   128-byte swizzle. */
__device__ __forceinline__ uint64_t wgmma_descriptor(const void *shared, uint32_t leading_bytes) {
    return (uint64_t)((shared_address(shared) & 0x3FFFF) >> 4) | (uint64_t)(leading_bytes >> 4) << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
__device__ __forceinline__ void wgmma_fence() { HOPPER_ASM("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() {
    HOPPER_ASM("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N> __device__ __forceinline__ void wgmma_wait() {
    HOPPER_ASM("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
template <int N> __device__ __forceinline__ void fence_registers(float (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(x[i])::"memory");
}
template <int N> __device__ __forceinline__ void fence_registers(uint32_t (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+r"(x[i])::"memory");
}

/* The accumulators as asm takes them: their operand numbers in the text, and the list of operands. */
// clang-format off
#define WGMMA_0_31 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_32_63 \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_64_127 \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_D8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), \
                    "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define WGMMA_D32(i) WGMMA_D8(i), WGMMA_D8(i + 8), WGMMA_D8(i + 16), WGMMA_D8(i + 24)
#define WGMMA_D64(i) WGMMA_D32(i), WGMMA_D32(i + 32)

/* The instruction. The operand numbers after those of the accumulators are: whether to add, A (a descriptor or
   registers), B, and whether they are transposed. A constant `add` costs nothing, since ptxas then knows the
   predicate. */
#define WGMMA(n, accumulators, add, a, b, transposed) \
    "{\n.reg .pred p;\nsetp.ne.b32 p, " add ", 0;\n" \
    "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" accumulators "}, " a ", " b ", p, 1, 1, " \
    transposed ";\n}"
#define WGMMA_INPUTS_SHARED "r"((int)add), "l"(a), "l"(b), "n"(TRANSPOSE_A), "n"(TRANSPOSE_B)
#define WGMMA_INPUTS_REGISTERS "r"((int)add), "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "n"(TRANSPOSE_B)

template <int TRANSPOSE_A, int TRANSPOSE_B, int R>
__device__ __forceinline__ void wgmma_from_shared(float (&d)[R], uint64_t a, uint64_t b, bool add) {
    static_assert(R == 32 || R == 64 || R == 128, "64, 128 or 256 columns");
    if constexpr (R == 32)
        HOPPER_ASM(WGMMA("64", WGMMA_0_31, "%32", "%33", "%34", "%35, %36")
                   : WGMMA_D32(0) : WGMMA_INPUTS_SHARED);
    else if constexpr (R == 64)
        HOPPER_ASM(WGMMA("128", WGMMA_0_31 ", " WGMMA_32_63, "%64", "%65", "%66", "%67, %68")
                   : WGMMA_D64(0) : WGMMA_INPUTS_SHARED);
    else
        HOPPER_ASM(WGMMA("256", WGMMA_0_31 ", " WGMMA_32_63 ", " WGMMA_64_127, "%128", "%129", "%130", "%131, %132")
                   : WGMMA_D64(0), WGMMA_D64(64) : WGMMA_INPUTS_SHARED);
}
template <int TRANSPOSE_B, int R>
__device__ __forceinline__ void wgmma_from_registers(float (&d)[R], uint32_t a0, uint32_t a1, uint32_t a2,
                                                     uint32_t a3, uint64_t b, bool add) {
    static_assert(R == 32 || R == 64 || R == 128, "64, 128 or 256 columns");
    if constexpr (R == 32)
        HOPPER_ASM(WGMMA("64", WGMMA_0_31, "%32", "{%33, %34, %35, %36}", "%37", "%38")
                   : WGMMA_D32(0) : WGMMA_INPUTS_REGISTERS);
    else if constexpr (R == 64)
        HOPPER_ASM(WGMMA("128", WGMMA_0_31 ", " WGMMA_32_63, "%64", "{%65, %66, %67, %68}", "%69", "%70")
                   : WGMMA_D64(0) : WGMMA_INPUTS_REGISTERS);
    else
        HOPPER_ASM(WGMMA("256", WGMMA_0_31 ", " WGMMA_32_63 ", " WGMMA_64_127, "%128", "{%129, %130, %131, %132}",
                         "%133", "%134")
                   : WGMMA_D64(0), WGMMA_D64(64) : WGMMA_INPUTS_REGISTERS);
}
// clang-format on

#else

#define HOPPER_CODE

inline bool hopper_is_available() { return emulate::hopper; }

inline TensorMap tensor_map(const void *at, int64_t columns, int64_t row_stride, int64_t rows,
                            int64_t batches, int box_rows) {
    if ((uintptr_t)at % 16 != 0 || row_stride % 8 != 0)
        die("a tensor map of %p, rows %lld elements apart; expected multiples of 16 bytes", at,
            (long long)row_stride);
    if (columns < 1 || rows < 1 || batches < 1 || box_rows < 1 || box_rows > 256)
        die("no tensor map of %lld x %lld x %lld elements, boxes of %d rows", (long long)batches,
            (long long)rows, (long long)columns, box_rows);
    return TensorMap{(uint16_t *)at, columns, row_stride, rows, batches, box_rows};
}

inline void barrier_init(SharedBarrier *b, int arrivals) { emulate::barrier_begin(b, arrivals); }
inline void barrier_init_done() { emulate::barriers_begun(); }
inline void barrier_expect(SharedBarrier *b, uint32_t bytes) {
    emulate::barrier_arrival(b, bytes, "barrier_expect");
}
inline void barrier_arrive(SharedBarrier *b) { emulate::barrier_arrival(b, 0, "barrier_arrive"); }
inline void barrier_wait(SharedBarrier *b, uint32_t parity) { emulate::barrier_await(b, parity); }
inline void named_barrier_sync(int id, int threads) { emulate::named_barrier(id, threads, true); }
inline void named_barrier_arrive(int id, int threads) { emulate::named_barrier(id, threads, false); }

inline void tensor_load(void *to, const TensorMap *map, int column, int row, int batch, SharedBarrier *b) {
    emulate::begin_load({*map, nullptr, column, row, batch, 0, 0, (uint32_t)map->box_rows * 128}, to, b,
                        "tensor_load");
}
inline void bulk_load(void *to, const void *from, uint32_t bytes, SharedBarrier *b) {
    emulate::begin_load({TensorMap(), from, 0, 0, 0, 0, 0, bytes}, to, b, "bulk_load");
}
inline void tensor_store(const TensorMap *map, int column, int row, int batch, const void *from) {
    emulate::begin_store(*map, column, row, batch, from);
}
inline void bulk_commit() { emulate::commit_stores(); }
inline void bulk_wait_read() { emulate::wait_stores(false); }
inline void bulk_wait() { emulate::wait_stores(true); }
inline void fence_async_proxy() { emulate::fence_proxy(); }

template <int N> inline void registers_increase() {
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "setmaxnreg takes multiples of 8");
}
template <int N> inline void registers_decrease() {
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "setmaxnreg takes multiples of 8");
}

inline uint64_t wgmma_descriptor(const void *shared, uint32_t leading_bytes) {
    return (uint64_t)(emulate::shared_offset(shared, 16, "wgmma_descriptor") >> 4) |
           (uint64_t)(leading_bytes >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
inline void wgmma_fence() { emulate::unit_here().fenced = true; }
inline void wgmma_commit() { emulate::unit_here().committed++; }
template <int N> inline void wgmma_wait() { emulate::wait_products(N); }
template <int N> inline void fence_registers(float (&)[N]) {}
template <int N> inline void fence_registers(uint32_t (&)[N]) {}

template <int TRANSPOSE_A, int TRANSPOSE_B, int R>
inline void wgmma_from_shared(float (&d)[R], uint64_t a, uint64_t b, bool add) {
    static_assert(R == 32 || R == 64 || R == 128, "64, 128 or 256 columns");
    emulate::issue_product({d, R, 0, TRANSPOSE_A, TRANSPOSE_B, false, add, {}, {}, a, b});
}
template <int TRANSPOSE_B, int R, typename A0, typename A1, typename A2, typename A3>
inline void wgmma_from_registers(float (&d)[R], A0 &&a0, A1 &&a1, A2 &&a2, A3 &&a3, uint64_t b, bool add) {
    static_assert(R == 32 || R == 64 || R == 128, "64, 128 or 256 columns");
    const uint32_t *const at[4] = {
        emulate::variable_address(std::forward<A0>(a0)), emulate::variable_address(std::forward<A1>(a1)),
        emulate::variable_address(std::forward<A2>(a2)), emulate::variable_address(std::forward<A3>(a3))};
    emulate::issue_product(
        {d, R, 0, false, TRANSPOSE_B, true, add, {a0, a1, a2, a3}, {at[0], at[1], at[2], at[3]}, 0, b});
}

#endif

#endif
