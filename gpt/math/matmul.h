/* matmul.h: the three matrix products of a linear layer, float32 or bf16 operands, float32 sums.

   THE PRODUCTS. Matrices are row-major and contiguous, of any size, 0 included:

   matmul_forward         out (N, OC)     = addend + inp (N, C) . weight (OC, C)^T
   matmul_backward_input  dinp (N, C)     = addend + dout (N, OC) . weight (OC, C)
   matmul_backward_weight dweight (OC, C) += dout (N, OC)^T . inp (N, C)
       addend has the shape of the output, or is NULL for 0; it may be the output itself. No other arguments may
       overlap. With DTYPE_BF16 the operands are rounded to bf16 first (array.h); products and sums are float32 either
       way.

   The same products for the weight of a layer, with the same bits in the result:

   Linear w = {.values = weight, .C = C, .OC = OC, .dtype = dtype};
       values, floats (OC, C), belongs to the caller and must outlive w.
   linear_pack(&w)
       Optional: stores two copies of the weight, in the forms that linear_forward and linear_backward_input read.
       Without it each call makes the copy that it needs. Call it again after every change of the values. The first call
       allocates linear_packed_bytes(C, OC, dtype) bytes, which w owns until linear_free(&w). For bf16 the time saved is
       worth this memory, because packing also rounds; for float32 it hardly is.
   linear_pack_forward(&w)
       The same with only the copy that linear_forward reads, for a program that calls no backward. A product of one row
       then takes about as long as reading this copy from memory, in float32 too.
   linear_forward(to, inp, &w, N)            to (N, OC) = addend + inp (N, C) . weight^T
   linear_backward_input(to, dout, &w, N)    to (N, C)  = addend + dout (N, OC) . weight
   linear_backward_weight(dweight, dout, inp, &w, N)    dweight (OC, C) += dout^T . inp, where dweight is float32; only
                                             the sizes and the dtype of w are read
       inp and dout are Arrays (array.h), of floats or of bf16. `to` is a MatmulOutput {out, addend, finish, context}.
       out is an Array; if it is bf16, the float32 sums are rounded to it. finish, if not NULL, is called once for every
       tile of the output when its sums are complete, while it is still in the first-level cache. It may read and change
       the tile, and write other arrays from it. Several threads call it at the same time, for different tiles. If
       out.data is NULL, the sums are not stored, and only finish sees them. An example, where w1 is a Linear and hidden
       (N, OC) an Array:

       static void keep_relu(void *context, const MatmulTile *t) {
           for (int i = 0; i < t->rows; i++) {
               float *row = t->values + i * t->stride;
               for (int j = 0; j < t->columns; j++) row[j] = fmaxf(row[j], 0);
               array_write(*(Array *)context, (t->row + i) * OC + t->column, row, t->columns);
           }
       }
       linear_forward((MatmulOutput){.finish = keep_relu, .context = &hidden}, x, &w1, N);

   matmul_naive   what all of these functions compute, in twelve lines of float64. Read it first; the tests compare with
                  it.

   All functions may be called from several threads at once. Each uses OpenMP inside, unless it already runs in a
   parallel region. The result has the same bits for any number of threads: the index k over which a product sums, with
   K values, is cut into blocks, whose sizes depend only on K and the dtype and which are added in ascending order. The
   only possible error is that memory runs out; it ends the program with a message.

   HOW THEY ARE FAST, after Goto & van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), and BLIS, an
   open-source library of matrix products (Van Zee & van de Geijn, 2015). Every product is out (M, N) = addend + A (M,
   K) . B (K, N). The innermost function is the micro-kernel: it computes one tile of the output, of MR rows and NR
   columns, in registers. Around it there are five loops; KC, NC and MC are chosen so that a block fits into the cache
   that is named at its right:

       for blocks of KC elements of k                              between two blocks the output holds partial sums
         for blocks of NC columns of B: pack them                  all threads share this copy, in the last-level cache
           for blocks of MC rows of A: pack them                   each thread has its own, in its second-level cache
             for panels of NR columns in the block of B            matmul_block_times_block
               for panels of MR rows in the block of A             the panel of B stays in the first-level cache
                 micro-kernel: a tile of MR x NR                   matmul_isa.h

   "Pack" means to copy into panels, in the order in which the micro-kernel reads: matmul_pack.h. A tile is the MR x NR
   elements of the output that one panel of A and one panel of B make. BLIS always shares B between the threads. Here
   the smaller of A and B is shared, so A and B may change places in this scheme. The code therefore speaks of the
   shared and the private operand. There NC counts panels of the shared operand and MC panels of the private one, and
   not columns and rows as in the scheme above. */
#ifndef GPT_MATH_MATMUL_H
#define GPT_MATH_MATMUL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#include "../base/check.h"
#include "../base/memory.h"
#include "../base/processor.h"
#include "../base/threads.h"
#include "array.h"
#include "matmul_isa.h"
#include "matmul_pack.h"

/* out (M, N) = addend (M, N; NULL: 0) + A (M, K) . B (K, N). Element (i, k) of A is a[i * a_i + k * a_k], element (k,
   j) of B is b[k * b_k + j * b_j], so that one function serves all three products: a transposed matrix swaps its two
   strides. */
static inline void matmul_naive(double *out, const float *addend, const float *a, int64_t a_i, int64_t a_k,
                                const float *b, int64_t b_k, int64_t b_j, int64_t M, int64_t N, int64_t K,
                                Dtype dtype) {
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < N; j++) {
            double sum = addend ? addend[i * N + j] : 0;
            for (int64_t k = 0; k < K; k++)
                sum += (double)array_rounded(a[i * a_i + k * a_k], dtype) *
                       (double)array_rounded(b[k * b_k + j * b_j], dtype);
            out[i * N + j] = sum;
        }
}

static inline void matmul_forward(float *out, const float *addend, const float *inp, const float *weight,
                                  int64_t N, int64_t C, int64_t OC, Dtype dtype);
static inline void matmul_backward_input(float *dinp, const float *addend, const float *dout,
                                         const float *weight, int64_t N, int64_t C, int64_t OC, Dtype dtype);
static inline void matmul_backward_weight(float *dweight, const float *dout, const float *inp, int64_t N,
                                          int64_t C, int64_t OC, Dtype dtype);

/* A part of the output whose sums are complete: element (i, j) of the tile, values[i * stride + j], is element
   (row + i, column + j) of the output. */
typedef struct {
    float *values;
    int64_t stride, row, column;
    int rows, columns;
} MatmulTile;
enum { MATMUL_TILE = 32 * 32 }; /* a tile never has more elements */

typedef void MatmulFinish(void *context, const MatmulTile *tile);

/* Where the sums of a product go: to out, to finish, or to both. */
typedef struct {
    Array out;            /* (M, N); data NULL: the sums are not stored */
    const float *addend;  /* (M, N) is added to the sums; NULL stands for zeros */
    MatmulFinish *finish; /* is called for each complete tile, if not NULL */
    void *context;        /* the first argument of finish */
} MatmulOutput;

typedef struct MatmulWorkspace MatmulWorkspace;
/* The weight of a linear layer. */
typedef struct {
    const float *values; /* (OC, C); the memory belongs to the caller */
    int64_t C, OC;
    Dtype dtype; /* to which the operands of the products are rounded */
    /* The copies that linear_pack made for linear_forward and for linear_backward_input, and the memory that holds
       both. NULL before linear_pack. */
    const float *forward, *backward;
    MatmulWorkspace *memory;
} Linear;

static inline int64_t linear_packed_bytes(int64_t C, int64_t OC, Dtype dtype);
static inline void linear_pack(Linear *w);
static inline void linear_pack_forward(Linear *w);
static inline void linear_free(Linear *w);
static inline void linear_forward(MatmulOutput to, Array inp, const Linear *w, int64_t N);
static inline void linear_backward_input(MatmulOutput to, Array dout, const Linear *w, int64_t N);
static inline void linear_backward_weight(float *dweight, Array dout, Array inp, const Linear *w, int64_t N);

/* ---------------------------------------------------------------------------------------------------------
   A product and its sizes. */

/* One operand, A or B, cut into panels. */
typedef struct {
    MatmulOperand operand;
    int width;      /* the width of a panel: MR rows of A, or NR columns of B */
    int64_t size;   /* M, the rows of A, or N, the columns of B */
    int64_t panels; /* how many panels hold these rows or columns; the last may be filled up with zeros */
    int64_t panel_floats; /* how many floats lie between the beginnings of two packed panels */
} MatmulSide;

/* out (M, N) = addend + A (M, K) . B (K, N), with M = a.size and N = b.size */
typedef struct {
    const MatmulKernel *kernel;
    int64_t K, KC, k_blocks; /* k is cut into k_blocks blocks of KC elements; the last block may have fewer */
    MatmulSide a, b;
    const float *packed_b; /* all of B packed, as [k-block][panel], if linear_pack has done it; else NULL */
    MatmulOutput to;
} MatmulProduct;

static inline void matmul_plan_side(MatmulSide *side, const MatmulProduct *p, int width, int64_t size) {
    side->width = width;
    side->size = size;
    side->panels = matmul_ceil_div(size, width);
    side->panel_floats = matmul_panel_floats(p->kernel, p->KC, width);
}

/* Fills in everything but the operands and the output. Kernel and KC depend on K and dtype, not on M and N: k is cut
   into as few blocks as MATMUL_KC_WORDS allows, of equal size but for rounding up to whole vectors. */
static inline void matmul_plan(MatmulProduct *p, int64_t M, int64_t N, int64_t K, Dtype dtype) {
    p->kernel = matmul_kernel_for(dtype);
    const int64_t k_per_word = matmul_k_per_word(p->kernel->format), step = k_per_word * MATMUL_LANES;
    const int64_t blocks = matmul_max(1, matmul_ceil_div(K, MATMUL_KC_WORDS * k_per_word));
    p->K = K;
    p->KC = matmul_max(1, matmul_ceil_div(matmul_ceil_div(K, blocks), step)) * step;
    p->k_blocks = matmul_max(1, matmul_ceil_div(K, p->KC));
    matmul_plan_side(&p->a, p, p->kernel->MR, M);
    matmul_plan_side(&p->b, p, MATMUL_NR, N);
}

/* How many elements of k a k-block has: KC, or fewer in the last block. */
static inline int64_t matmul_depth(const MatmulProduct *p, int64_t k_block) {
    return matmul_min(p->KC, p->K - k_block * p->KC);
}

/* Packs panels [first, last) of one operand, for one k-block, into `to`. */
static inline void matmul_pack_panels(const MatmulProduct *p, const MatmulSide *side, float *to,
                                      int64_t k_block, int64_t first, int64_t last) {
    const int64_t i = first * side->width;
    const MatmulRegion region = {k_block * p->KC, matmul_depth(p, k_block), i, side->size - i, last - first};
    (side == &p->a ? matmul_pack_a : matmul_pack_b)(p->kernel, &side->operand, region, to,
                                                    side->panel_floats);
}

/* ---------------------------------------------------------------------------------------------------------
   Memory for packed panels. One workspace is kept from call to call in matmul_spare, since page faults on fresh memory
   cost as much as a small product. A call that acquires it takes it out of there and owns it until it releases it. A
   second call at the same time finds none and allocates its own. */

struct MatmulWorkspace {
    size_t bytes;
    char pad[64 - sizeof(size_t)];
    float data[];
};
static _Atomic(MatmulWorkspace *) matmul_spare;

/* The bytes of a workspace that holds so many floats, rounded up to whole huge pages. */
static inline size_t matmul_workspace_size(int64_t floats) {
    const size_t bytes = sizeof(MatmulWorkspace) + (size_t)floats * sizeof(float);
    return (bytes + MEMORY_HUGE_PAGE - 1) / MEMORY_HUGE_PAGE * MEMORY_HUGE_PAGE;
}

static inline MatmulWorkspace *matmul_workspace_new(int64_t floats) {
    const size_t bytes = matmul_workspace_size(floats);
    MatmulWorkspace *workspace = memory_reserve(bytes);
    workspace->bytes = bytes;
    return workspace;
}

static inline MatmulWorkspace *matmul_workspace_acquire(int64_t floats) {
    MatmulWorkspace *workspace = atomic_exchange(&matmul_spare, NULL);
    if (workspace && workspace->bytes >= matmul_workspace_size(floats)) return workspace;
    free(workspace);
    return matmul_workspace_new(floats);
}

static inline void matmul_workspace_release(MatmulWorkspace *workspace) {
    free(atomic_exchange(&matmul_spare, workspace));
}

/* ---------------------------------------------------------------------------------------------------------
   The inner two loops. */

/* The shared block, which all threads read: packed panels [first, last) of the shared operand, for the k-blocks
   [k_block, last_k_block). */
typedef struct {
    bool is_a; /* the shared operand is A, not B */
    int64_t first, last, k_block, last_k_block;
    const float *packed; /* [k-block][panel] */
} MatmulSharedBlock;

/* A packed panel of a block: `at` points to its numbers for the first k-block of the shared block; its numbers for the
   next k-block begin k_step floats later. */
typedef struct {
    const float *at;
    int64_t k_step;
} MatmulPanel;

/* Computes the tile of panel i of A and panel j of B, over the k-blocks of the shared block. The micro-kernel writes
   the tile directly to the output if the output is float32, all NR columns of the tile lie inside it, and all MR rows
   do as well (or the kernel can compute fewer rows: whole_tiles is false). Otherwise it writes to `scratch`, from which
   the tile is then copied or rounded to the output. */
static inline void matmul_tile(const MatmulProduct *p, const MatmulSharedBlock *shared, int64_t i, int64_t j,
                               MatmulPanel a, MatmulPanel b, MatmulPrefetch prefetch) {
    _Static_assert(MATMUL_MR * MATMUL_NR <= MATMUL_TILE && MATMUL_PAIRS_MR * MATMUL_NR <= MATMUL_TILE, "");
    const int64_t row = i * p->a.width, column = j * MATMUL_NR, stride = p->b.size;
    const int rows = (int)matmul_min(p->a.width, p->a.size - row);
    const int columns = (int)matmul_min(MATMUL_NR, stride - column);
    float *const floats = p->to.out.dtype == DTYPE_BF16 ? NULL : p->to.out.data;
    const bool direct = floats && columns == MATMUL_NR && (rows == p->a.width || !p->kernel->whole_tiles);
    float scratch[MATMUL_TILE] __attribute__((aligned(64)));
    float *const out = floats ? floats + row * stride + column : NULL, *const to = direct ? out : scratch;
    const float *addend = shared->k_block ? out : p->to.addend ? p->to.addend + row * stride + column : NULL;
    const int64_t to_stride = direct ? stride : MATMUL_NR;
    if (!direct && addend) {
        for (int r = 0; r < rows; r++)
            memcpy(scratch + r * MATMUL_NR, addend + r * stride, (size_t)columns * sizeof *addend);
        addend = scratch;
    }
    for (int64_t k_block = shared->k_block; k_block < shared->last_k_block; k_block++) {
        const int64_t words = matmul_panel_words(p->kernel, matmul_depth(p, k_block));
        matmul_micro_kernel(p->kernel, rows, words, a.at, b.at, prefetch, to, to_stride, addend);
        addend = to, a.at += a.k_step, b.at += b.k_step;
    }
    if (p->to.finish && shared->last_k_block == p->k_blocks)
        p->to.finish(p->to.context, &(MatmulTile){to, to_stride, row, column, rows, columns});
    for (int r = 0; r < rows && !direct && p->to.out.data; r++)
        array_write(p->to.out, (row + r) * stride + column, scratch + r * MATMUL_NR, columns);
}

/* Packs panels [first, last) of the private operand into `packed` and computes all tiles that they make with the shared
   panels [from, to). */
static inline void matmul_block_times_block(const MatmulProduct *p, const MatmulSharedBlock *shared,
                                            int64_t first, int64_t last, int64_t from, int64_t to,
                                            float *packed) {
    if (from == to) return; /* the last shared block may have fewer panels than parts */
    const MatmulSide *const private_side = shared->is_a ? &p->b : &p->a;
    const MatmulSide *const shared_side = shared->is_a ? &p->a : &p->b;
    const int64_t private_floats = private_side->panel_floats, shared_floats = shared_side->panel_floats;
    const int64_t private_k_step = (last - first) * private_floats;
    const int64_t shared_k_step = (shared->last - shared->first) * shared_floats;
    for (int64_t k_block = shared->k_block; k_block < shared->last_k_block; k_block++)
        matmul_pack_panels(p, private_side, packed + (k_block - shared->k_block) * private_k_step, k_block,
                           first, last);
    /* While the tiles of one shared panel are computed, the next shared panel is prefetched into the second-level
       cache, an equal part during each tile. */
    const int64_t fetches =
        matmul_ceil_div(shared_floats, MATMUL_PREFETCH_WORDS * (shared->is_a ? MATMUL_MR : MATMUL_NR));
    const int lines = (int)matmul_min(4, matmul_ceil_div(shared_floats, 16 * fetches * (last - first)));
    for (int64_t s = from; s < to; s++)
        for (int64_t t = first; t < last; t++) {
            const MatmulPanel mine = {packed + (t - first) * private_floats, private_k_step};
            const MatmulPanel theirs = {shared->packed + (s - shared->first) * shared_floats, shared_k_step};
            const MatmulPrefetch prefetch = {theirs.at + shared_floats + (t - first) * fetches * lines * 16,
                                             s + 1 < to ? lines : 0};
            if (shared->is_a)
                matmul_tile(p, shared, s, t, theirs, mine, prefetch);
            else
                matmul_tile(p, shared, t, s, mine, theirs, prefetch);
        }
}

/* ---------------------------------------------------------------------------------------------------------
   The outer three loops, over threads. */

/* The first panel of part number `part` when n panels are cut into `parts` parts. The larger parts come first, so that
   threads which take the parts one after the other finish at nearly the same time. */
static inline int64_t matmul_part_begin(int64_t n, int64_t parts, int64_t part) {
    return part * (n / parts) + matmul_min(part, n % parts);
}

/* How the work on one shared block is divided into pieces, which threads take one after the other. The panels of the
   private operand are cut into private_blocks blocks, the shared block into shared_parts parts; a piece is one private
   block times one part of the shared block. */
typedef struct {
    int64_t private_blocks, shared_parts;
} MatmulPartition;

/* The partition with the shortest estimated time of the thread that has the most work, among those whose private blocks
   have at most MC panels.
   The time of a piece is estimated in units of the time of one tile: 1 for each of its tiles; 1/2 for each private
   panel, because the piece packs it; 1/4 for each shared panel, because the piece reads it from the last-level cache.
   For shared_parts only powers of two are tried, each with every number of private blocks from the fewest that fit MC
   up to 2 * threads more; a finer search would hardly find a better partition. */
static inline MatmulPartition matmul_partition(int64_t private_panels, int64_t shared_panels, int64_t MC,
                                               int threads) {
    const int64_t least = matmul_ceil_div(private_panels, MC);
    MatmulPartition best = {least, 1};
    int64_t best_time = INT64_MAX; /* in quarters of the time of a tile */
    for (int64_t parts = 1; parts <= matmul_min(shared_panels, 2 * threads); parts *= 2)
        for (int64_t blocks = least; blocks <= matmul_min(private_panels, least + 2 * threads); blocks++) {
            const int64_t rounds = matmul_ceil_div(blocks * parts, threads);
            const int64_t part = matmul_ceil_div(shared_panels, parts);
            const int64_t panels = rounds * (private_panels / blocks) +
                                   matmul_ceil_div(private_panels % blocks * parts, threads);
            const int64_t time = panels * (4 * part + 2) + rounds * part;
            if (time < best_time) best = (MatmulPartition){blocks, parts}, best_time = time;
        }
    return best;
}

static inline int matmul_threads(double flops) {
#ifdef _OPENMP
    if (omp_in_parallel()) return 1;
    int64_t useful = 1 + (int64_t)(flops / 2e6); /* fewer operations are not worth waking a thread for */
    return (int)matmul_min(omp_get_max_threads(), useful);
#else
    (void)flops;
    return 1;
#endif
}

static inline int matmul_thread(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* A product of one row takes as long as reading B, like one of a few rows; so it is worth as many threads. */
static inline int matmul_product_threads(const MatmulProduct *p) {
    return matmul_threads(2.0 * (double)matmul_max(p->a.size, 4) * (double)p->b.size * (double)p->K);
}

/* Which operand is shared, and the sizes of the blocks. */
typedef struct {
    const MatmulSide *shared_side, *private_side;
    int threads;
    int64_t NC; /* how many panels of the shared operand a shared block holds */
    /* How many k-blocks the shared block and the private blocks hold: 1 if the product has a float32 output, because
       that array can keep the partial sums from one k-block to the next; else all of them, so that each sum is finished
       in `scratch`. */
    int64_t k_blocks;
    /* How many panels a thread packs into the shared block at a time: many, so that it reads long stretches of memory,
       but few enough that there is work for all threads. */
    int64_t chunk;
    /* The memory of the shared block, and of the private block of each thread. */
    int64_t shared_floats, private_floats;
    MatmulPartition partition;
} MatmulBlocking;

static inline MatmulBlocking matmul_blocking(const MatmulProduct *p) {
    const bool share_a = !p->packed_b && p->a.size < p->b.size; /* the smaller operand */
    MatmulBlocking b = {.shared_side = share_a ? &p->a : &p->b, .private_side = share_a ? &p->b : &p->a};
    b.threads = matmul_product_threads(p);
    const int64_t panels = b.shared_side->panels, panel_floats = b.shared_side->panel_floats;
    const int64_t room = matmul_max(1, MATMUL_SHARED_FLOATS / panel_floats);
    b.NC = p->packed_b ? panels : matmul_ceil_div(panels, matmul_ceil_div(panels, room));
    b.k_blocks = p->to.out.data && p->to.out.dtype != DTYPE_BF16 ? 1 : p->k_blocks;
    b.chunk = matmul_max(1, matmul_min(256 / b.shared_side->width, b.NC * b.k_blocks / (4 * b.threads)));
    const int64_t private_panel = b.k_blocks * b.private_side->panel_floats;
    const int64_t MC = matmul_max(1, MATMUL_PRIVATE_FLOATS / private_panel);
    b.partition = matmul_partition(b.private_side->panels, b.NC, MC, b.threads);
    const int64_t block = matmul_ceil_div(b.private_side->panels, b.partition.private_blocks);
    b.private_floats = matmul_ceil_div(block * private_panel, 1024) * 1024;
    if (!p->packed_b) b.shared_floats = matmul_ceil_div(b.NC * b.k_blocks * panel_floats, 1024) * 1024;
    return b;
}

/* ---- products of few rows ----

   When all rows of A fit into one panel and B is packed, reading B from memory is nearly all of the work. Then each
   thread packs A for itself, as narrow as its rows need, and multiplies it with one chunk of panels of B after the
   other, which it reads from front to back. Threads wait for each other only at the end. Each sum has the same order,
   and so the same bits, as in matmul_compute. */
enum { MATMUL_CHUNK = 16 }; /* the most panels of B in a chunk */

typedef struct {
    int rows, width;  /* of A; a packed panel of A has `width` rows */
    int64_t a_k_step; /* floats between two k-blocks of A */
    int64_t tile;     /* floats of a tile, (rows, NR) */
    int64_t b_k_step; /* floats between two k-blocks of B */
    const float *a;   /* [k-block] panels */
    float *tiles;     /* [panel of the chunk] sums */
} MatmulFewRows;

static inline bool matmul_has_few_rows(const MatmulProduct *p) {
    return p->packed_b && p->a.panels == 1 && !p->kernel->is_amx;
}

/* Computes the tiles of panels [first, last) of B. */
static inline void matmul_few_rows_chunk(const MatmulProduct *p, const MatmulFewRows *m, int64_t first,
                                         int64_t last) {
    const int64_t stride = p->b.size;
    for (int64_t j = first; j < last && p->to.addend; j++)
        for (int r = 0; r < m->rows; r++)
            memcpy(m->tiles + (j - first) * m->tile + r * MATMUL_NR,
                   p->to.addend + r * stride + j * MATMUL_NR,
                   (size_t)matmul_min(MATMUL_NR, stride - j * MATMUL_NR) * sizeof(float));
    for (int64_t k_block = 0; k_block < p->k_blocks; k_block++) {
        const int64_t words = matmul_panel_words(p->kernel, matmul_depth(p, k_block));
        for (int64_t j = first; j < last; j++) {
            float *const tile = m->tiles + (j - first) * m->tile;
            matmul_narrow_kernel(p->kernel, m->rows, words, m->a + k_block * m->a_k_step,
                                 p->packed_b + k_block * m->b_k_step + j * p->b.panel_floats, tile, MATMUL_NR,
                                 k_block || p->to.addend ? tile : NULL);
        }
    }
    for (int64_t j = first; j < last; j++) {
        float *const tile = m->tiles + (j - first) * m->tile;
        const int64_t column = j * MATMUL_NR;
        const int columns = (int)matmul_min(MATMUL_NR, stride - column);
        if (p->to.finish)
            p->to.finish(p->to.context, &(MatmulTile){tile, MATMUL_NR, 0, column, m->rows, columns});
        for (int r = 0; r < m->rows && p->to.out.data; r++)
            array_write(p->to.out, r * stride + column, tile + r * MATMUL_NR, columns);
    }
}

static inline void matmul_few_rows(const MatmulProduct *p) {
    const int width = matmul_computed_rows((int)p->a.size), threads = matmul_product_threads(p);
    const int64_t chunk = matmul_max(1, matmul_min(MATMUL_CHUNK, p->b.panels / (4 * threads)));
    const int64_t chunks = matmul_ceil_div(p->b.panels, chunk);
    const int64_t a_panel = matmul_panel_floats(p->kernel, p->KC, width), tile = width * MATMUL_NR;
    const int64_t room = matmul_ceil_div(p->k_blocks * a_panel + chunk * tile, 1024) * 1024;
    MatmulWorkspace *workspace = matmul_workspace_acquire(threads * room);

#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *const a = workspace->data + matmul_thread() * room;
        const MatmulFewRows m = {.rows = (int)p->a.size,
                                 .width = width,
                                 .a_k_step = a_panel,
                                 .tile = tile,
                                 .b_k_step = p->b.panels * p->b.panel_floats,
                                 .a = a + chunk * tile,
                                 .tiles = a};
        for (int64_t k_block = 0; k_block < p->k_blocks; k_block++)
            matmul_pack_narrow(p->kernel, &p->a.operand, width,
                               (MatmulRegion){k_block * p->KC, matmul_depth(p, k_block), 0, p->a.size, 1},
                               a + chunk * tile + k_block * a_panel, a_panel);
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t i = 0; i < chunks; i++)
            matmul_few_rows_chunk(p, &m, i * chunk, matmul_min((i + 1) * chunk, p->b.panels));
    }
    matmul_workspace_release(workspace);
}

/* Computes the product. Each `omp for` hands its pieces to the threads and waits until all are done. */
static inline void matmul_compute(const MatmulProduct *p) {
    if (p->a.size <= 0 || p->b.size <= 0) return;
    if (matmul_has_few_rows(p)) {
        matmul_few_rows(p);
        return;
    }
    const MatmulBlocking m = matmul_blocking(p);
    const MatmulPartition parts = m.partition;
    const MatmulSide *const side = m.shared_side;
    MatmulWorkspace *workspace = matmul_workspace_acquire(m.shared_floats + m.threads * m.private_floats);
    float *const packed = workspace->data; /* the shared block */

#pragma omp parallel num_threads(m.threads) if (m.threads > 1)
    {
        float *const private_block = workspace->data + m.shared_floats + matmul_thread() * m.private_floats;
        matmul_kernel_begin(p->kernel);
        for (int64_t k_block = 0; k_block < p->k_blocks; k_block += m.k_blocks)
            for (int64_t first = 0; first < side->panels; first += m.NC) {
                const int64_t last = matmul_min(side->panels, first + m.NC), width = last - first;
                const int64_t last_k_block = matmul_min(p->k_blocks, k_block + m.k_blocks);
                MatmulSharedBlock shared = {side == &p->a, first, last, k_block, last_k_block, packed};
                if (p->packed_b) {
                    shared.packed = p->packed_b + k_block * side->panels * side->panel_floats;
                } else {
#pragma omp for collapse(2) schedule(dynamic, 1)
                    for (int64_t k = k_block; k < last_k_block; k++)
                        for (int64_t i = first; i < last; i += m.chunk)
                            matmul_pack_panels(
                                p, side, packed + ((k - k_block) * width + i - first) * side->panel_floats, k,
                                i, matmul_min(i + m.chunk, last));
                }
#pragma omp for collapse(2) schedule(dynamic, 1)
                for (int64_t block = 0; block < parts.private_blocks; block++)
                    for (int64_t part = 0; part < parts.shared_parts; part++)
                        matmul_block_times_block(
                            p, &shared,
                            matmul_part_begin(m.private_side->panels, parts.private_blocks, block),
                            matmul_part_begin(m.private_side->panels, parts.private_blocks, block + 1),
                            first + matmul_part_begin(width, parts.shared_parts, part),
                            first + matmul_part_begin(width, parts.shared_parts, part + 1), private_block);
            }
        matmul_kernel_end(p->kernel);
    }
    matmul_workspace_release(workspace);
}

/* ---------------------------------------------------------------------------------------------------------
   The public functions. */

/* How many floats all of B takes when it is packed. */
static inline int64_t matmul_packed_floats(const MatmulProduct *p) {
    return matmul_ceil_div(p->k_blocks * p->b.panels * p->b.panel_floats, 16) * 16;
}

static inline int64_t linear_packed_bytes(int64_t C, int64_t OC, Dtype dtype) {
    MatmulProduct forward = {0}, backward = {0};
    matmul_plan(&forward, 1, OC, C, dtype);
    matmul_plan(&backward, 1, C, OC, dtype);
    return (int64_t)matmul_workspace_size(matmul_packed_floats(&forward) + matmul_packed_floats(&backward));
}

static inline void linear_free(Linear *w) {
    free(w->memory);
    w->memory = NULL, w->forward = NULL, w->backward = NULL;
}

/* Makes the first `copies` copies: that of linear_forward, then that of linear_backward_input. */
static inline void linear_pack_copies(Linear *w, int copies) {
    const Array values = array_of_floats(w->values);
    MatmulProduct products[2] = {{.b.operand = {values, w->C, true}}, {.b.operand = {values, w->C, false}}};
    matmul_plan(&products[0], 1, w->OC, w->C, w->dtype);
    matmul_plan(&products[1], 1, w->C, w->OC, w->dtype);
    const int64_t forward_floats = matmul_packed_floats(&products[0]);
    const int64_t floats = forward_floats + (copies == 2 ? matmul_packed_floats(&products[1]) : 0);
    if (w->memory && w->memory->bytes < matmul_workspace_size(floats)) linear_free(w);
    if (!w->memory) w->memory = matmul_workspace_new(floats);
    float *const to[2] = {w->memory->data, copies == 2 ? w->memory->data + forward_floats : NULL};
    w->forward = to[0], w->backward = to[1];
    const int chunk = 8; /* panels that a thread packs at a time */
#pragma omp parallel if (w->C * w->OC > 100000)
    for (int direction = 0; direction < copies; direction++) {
        const MatmulProduct *p = &products[direction];
#pragma omp for collapse(2) schedule(dynamic, 1) nowait
        for (int64_t k_block = 0; k_block < p->k_blocks; k_block++)
            for (int64_t i = 0; i < p->b.panels; i += chunk)
                matmul_pack_panels(p, &p->b, to[direction] + (k_block * p->b.panels + i) * p->b.panel_floats,
                                   k_block, i, matmul_min(i + chunk, p->b.panels));
    }
}

static inline void linear_pack(Linear *w) { linear_pack_copies(w, 2); }
static inline void linear_pack_forward(Linear *w) { linear_pack_copies(w, 1); }

/* to (N, OC) = addend + inp (N, C) . weight (OC, C)^T: the sum runs over C */
static inline void linear_forward(MatmulOutput to, Array inp, const Linear *w, int64_t N) {
    MatmulProduct p = {.to = to,
                       .packed_b = w->forward,
                       .a.operand = {inp, w->C, true},
                       .b.operand = {array_of_floats(w->values), w->C, true}};
    matmul_plan(&p, N, w->OC, w->C, w->dtype);
    matmul_compute(&p);
}

/* to (N, C) = addend + dout (N, OC) . weight (OC, C): the sum runs over OC */
static inline void linear_backward_input(MatmulOutput to, Array dout, const Linear *w, int64_t N) {
    MatmulProduct p = {.to = to,
                       .packed_b = w->backward,
                       .a.operand = {dout, w->OC, true},
                       .b.operand = {array_of_floats(w->values), w->C, false}};
    matmul_plan(&p, N, w->C, w->OC, w->dtype);
    matmul_compute(&p);
}

/* dweight (OC, C) += dout (N, OC)^T . inp (N, C): the sum runs over N */
static inline void linear_backward_weight(float *dweight, Array dout, Array inp, const Linear *w, int64_t N) {
    MatmulProduct p = {.to = {array_of_floats(dweight), dweight, NULL, NULL},
                       .a.operand = {dout, w->OC, false},
                       .b.operand = {inp, w->C, false}};
    matmul_plan(&p, w->OC, w->C, N, w->dtype);
    matmul_compute(&p);
}

static inline void matmul_forward(float *out, const float *addend, const float *inp, const float *weight,
                                  int64_t N, int64_t C, int64_t OC, Dtype dtype) {
    const Linear w = {.values = weight, .C = C, .OC = OC, .dtype = dtype};
    linear_forward((MatmulOutput){array_of_floats(out), addend, NULL, NULL}, array_of_floats(inp), &w, N);
}

static inline void matmul_backward_input(float *dinp, const float *addend, const float *dout,
                                         const float *weight, int64_t N, int64_t C, int64_t OC, Dtype dtype) {
    const Linear w = {.values = weight, .C = C, .OC = OC, .dtype = dtype};
    linear_backward_input((MatmulOutput){array_of_floats(dinp), addend, NULL, NULL}, array_of_floats(dout),
                          &w, N);
}

static inline void matmul_backward_weight(float *dweight, const float *dout, const float *inp, int64_t N,
                                          int64_t C, int64_t OC, Dtype dtype) {
    const Linear w = {.C = C, .OC = OC, .dtype = dtype};
    linear_backward_weight(dweight, array_of_floats(dout), array_of_floats(inp), &w, N);
}

#endif
