/* emulate_hopper.h: emulates on the CPU what a GPU of compute capability 9.0 does beside its threads: products of
   warpgroups (wgmma), copies by the tensor memory accelerator (TMA), barriers in shared memory. It is part of
   emulate.h; kernels use it through cuda/hopper.cuh.

   Each of these operations takes effect at the latest moment that the hardware allows, so that a thread that does not
   wait finds NaN or old values:
   - a product is computed at the wgmma_wait that waits for it. Until then its accumulators are NaN. Operands in
     shared memory are read at that moment; an operand A in registers is read when the product is issued
   - a load first fills its destination with NaN, and brings its data when a barrier_wait waits for its phase
   - a store reads shared memory at the bulk_wait_read or bulk_wait that waits for it, and writes global memory at
     bulk_wait or when the block has ended
   On a GPU these units access shared memory through a proxy of their own, which need not see what threads have just
   written. Here the proxy is a second copy of shared memory (`view`). What threads write reaches the copy when a
   thread of the same warp then calls fence_async_proxy. To find out which warp wrote a word, the emulator compares
   shared memory with what it was before (`seen`) each time the threads of a warp have run until they wait (a turn of
   the warp). Writing the value that a word already has counts as not writing. Only blocks that use one of these units
   pay for the comparison.

   Errors, reported with kernel, block and thread: a product without a wgmma_fence since the last wgmma_wait; threads
   of a warpgroup that issue different products, or not all of which issue one; accumulators or A registers written
   before the product is done; products, stores and loads for which no thread waits; barriers that are never
   initialised, are overwritten, get more arrivals or bytes than they expect, or are never completed; addresses that
   the hardware does not accept.

   Not found: a missing fence_registers(), whose effect only a compiler for the GPU shows; a missing second
   wgmma_fence, where registers were written after a first one; a change of an A that was given as a value and not as
   a variable; what a thread wrote after another thread of its warp had called the fence in the same turn; memory
   behind a tensor map that the same kernel wrote; a barrier_wait for the wrong one of two phases of equal parity;
   more registers than there are. */
#ifndef CUDA_EMULATE_HOPPER_H
#define CUDA_EMULATE_HOPPER_H

#include <map>
#include <utility>
#include "emulate.h"

struct alignas(8) SharedBarrier {
    uint64_t word; /* barrier_word(its offset in shared memory), once it is initialised */
};

struct TensorMap { /* (batches, rows, columns) of 16-bit elements */
    uint16_t *at;
    int64_t columns, row_stride, rows, batches;
    int box_rows;
};

namespace emulate {

inline bool hopper = true; /* what hopper_is_available() returns */

enum { GROUP = 128, MAX_REGISTERS = 128, BOX_COLUMNS = 64 };
static const size_t WORDS_A_PIECE = 64; /* shared memory is compared in pieces of this many words */
/* The writer of a word: the number of a warp; or NO_WARP, if the view has the latest value; or UNKNOWN_WARP, if the
   word was written before the block used one of these units. */
enum { NO_WARP = 255, UNKNOWN_WARP = 254 };

struct Product {          /* one wgmma, as one thread issued it */
    float *d;             /* (registers) the thread's accumulators */
    int registers, group; /* group: how many groups the thread had committed before */
    bool transpose_a, transpose_b, from_registers, add;
    uint32_t a[4];
    const uint32_t *a_at[4]; /* the variables that hold a[0..3]; NULL for a value that is in no variable */
    uint64_t a_tile, b_tile; /* descriptors */
};
struct Accumulators { /* the sums of products that are not done, while the thread's own variables are NaN */
    float *d;
    int registers, products; /* products: how many that are not done write these accumulators */
    float sums[MAX_REGISTERS];
};
struct Load {
    TensorMap map; /* if its `at` is NULL, plain bytes are loaded */
    const void *from;
    int column, row, batch, thread; /* thread: which one started the load */
    uint32_t to, bytes;             /* to: the offset in shared memory */
};
struct Store {
    TensorMap map;
    int column, row, batch;
    uint32_t from;
    bool committed, read;
    std::vector<uint16_t> box; /* (box_rows, BOX_COLUMNS) what was read */
};
struct Barrier {
    int arrivals, missing;       /* arrivals that a phase needs, and those that this phase still lacks */
    uint64_t announced, loading; /* bytes of this phase that barrier_expect announced, and that loads bring */
    uint32_t phase;              /* how many phases have ended */
    bool init_done;
    std::vector<Load> loads; /* the loads of this phase */
};
struct Unit {      /* the operations that one thread has issued */
    bool fenced;   /* it has called wgmma_fence since its last wgmma_wait */
    int committed; /* how many groups of products it has committed */
    std::vector<Product> products;
    std::vector<Accumulators> accumulators;
    std::vector<Store> stores;
};
struct Asynchronous {
    bool used;                            /* whether this block uses one of these units */
    std::vector<Unit> units;              /* one for each thread */
    std::map<uint32_t, Barrier> barriers; /* the key is the offset in shared memory */
    std::vector<uint32_t> view,
        seen; /* the proxy's copy of shared memory; the words when they were last compared */
    std::vector<uint8_t> writer;      /* of each word: see NO_WARP */
    std::vector<uint8_t> dirty;       /* for each piece: whether it has words with a writer */
    bool fenced[MAX_THREADS / WARP];  /* for each warp: a lane has called fence_async_proxy in this turn */
    int at_wait[MAX_THREADS / GROUP]; /* for each warpgroup: how many threads are at wgmma_wait */
    float a[16][64], b[16][256], d[64][256]; /* A(k, row), B(k, column), D(row, column) of one product */
};
inline Asynchronous &asynchronous = *new Asynchronous();

/* ---- the two views of shared memory ---- */

inline uint32_t *shared_words() { return (uint32_t *)(void *)state.shared; }

/* Called before every use of one of these units; the first call in a block prepares them. */
inline void asynchronous_use() {
    Asynchronous &s = asynchronous;
    if (s.used) return;
    s.used = true;
    s.barriers.clear();
    s.units.clear(), s.units.resize((size_t)state.threads);
    memset(s.fenced, 0, sizeof s.fenced), memset(s.at_wait, 0, sizeof s.at_wait);
    const size_t words = state.shared_size / 4;
    s.view.assign(words, 0xFFFFFFFFu);
    s.seen.assign(shared_words(), shared_words() + words);
    s.writer.assign(words, NO_WARP);
    s.dirty.assign(words / WORDS_A_PIECE + 1, 0);
    for (size_t i = 0; i < words; i++)
        if (s.seen[i] != 0xFFFFFFFFu) s.writer[i] = UNKNOWN_WARP, s.dirty[i / WORDS_A_PIECE] = 1;
}

/* The current thread's. */
inline Unit &unit_here() {
    asynchronous_use();
    return asynchronous.units[(size_t)state.current->number];
}

/* Finds the words that the warp has written since the last comparison. */
inline void record_writes(int warp) {
    Asynchronous &s = asynchronous;
    const uint32_t *now = shared_words();
    for (size_t begin = 0; begin < s.seen.size(); begin += WORDS_A_PIECE) {
        const size_t left = s.seen.size() - begin, n = left < WORDS_A_PIECE ? left : WORDS_A_PIECE;
        if (memcmp(now + begin, &s.seen[begin], n * 4) == 0) continue;
        s.dirty[begin / WORDS_A_PIECE] = 1;
        for (size_t i = begin; i < begin + n; i++)
            if (now[i] != s.seen[i]) s.seen[i] = now[i], s.writer[i] = (uint8_t)warp;
    }
}

/* Copies to the view what the warp has written. */
inline void publish_writes(int warp) {
    Asynchronous &s = asynchronous;
    for (size_t piece = 0; piece < s.dirty.size(); piece++) {
        if (!s.dirty[piece]) continue;
        const size_t begin = piece * WORDS_A_PIECE, left = s.seen.size() - begin;
        const size_t end = begin + (left < WORDS_A_PIECE ? left : WORDS_A_PIECE);
        bool others = false;
        for (size_t i = begin; i < end; i++)
            if (s.writer[i] == warp || s.writer[i] == UNKNOWN_WARP)
                s.view[i] = s.seen[i], s.writer[i] = NO_WARP;
            else
                others = others || s.writer[i] != NO_WARP;
        s.dirty[piece] = others;
    }
}

inline void asynchronous_turn(int warp) {
    if (!asynchronous.used) return;
    record_writes(warp);
    if (asynchronous.fenced[warp]) publish_writes(warp);
    asynchronous.fenced[warp] = false;
}

/* fence_async_proxy. The lanes of a warp call it one after the other. The call of the last lane publishes the writes
   of all lanes. If the last lane does not call it, they are published at the end of the warp's turn. */
inline void fence_proxy() {
    asynchronous_use();
    const int warp = state.current->number / WARP;
    asynchronous.fenced[warp] = true;
    if (state.current->number % WARP == WARP - 1) asynchronous_turn(warp);
}

/* A unit writes to shared memory: all copies get the bytes at once. If `from` is NULL, NaN is written. */
inline void write_both(uint32_t to, const void *from, uint32_t bytes) {
    Asynchronous &s = asynchronous;
    unsigned char *copies[3] = {state.shared, (unsigned char *)s.view.data(), (unsigned char *)s.seen.data()};
    const size_t tracked = s.view.size() * 4;
    for (int i = 0; i < 3; i++) {
        const size_t n = i == 0 || to + bytes <= tracked ? bytes : tracked > to ? tracked - to : 0;
        if (from)
            memcpy(copies[i] + to, from, n);
        else
            memset(copies[i] + to, 0xFF, n);
    }
    for (uint32_t i = to / 4; i < (to + bytes) / 4; i++) s.writer[i] = NO_WARP;
}

/* A unit reads `bytes` bytes of shared memory, through the view. */
inline const unsigned char *read_view(uint32_t from, uint32_t bytes, const char *what) {
    if ((size_t)from + bytes > asynchronous.view.size() * 4)
        fail_here("%s reads byte %u of the %zu bytes of its shared memory", what, from + bytes - 1,
                  state.shared_size);
    return (const unsigned char *)asynchronous.view.data() + from;
}

/* swizzle_128 of hopper.cuh */
inline uint32_t swizzled(uint32_t offset) { return offset ^ (offset >> 7 & 7) << 4; }

/* ---- barriers in shared memory ---- */

inline uint64_t barrier_word(uint32_t at) { return 0xBA221E2000000000u | at; }

/* The barrier at `b`; it must have been initialised and not been overwritten. */
inline Barrier &barrier_of(const SharedBarrier *b, const char *what) {
    asynchronous_use();
    const uint32_t at = shared_offset(b, sizeof *b, what);
    const auto found = asynchronous.barriers.find(at);
    if (found == asynchronous.barriers.end())
        fail_here("%s of a barrier that no thread has initialised, at byte %u of shared memory", what, at);
    if (b->word != barrier_word(at))
        fail_here("%s of a barrier that something has been written over, at byte %u of shared memory", what,
                  at);
    return found->second;
}

/* Writes to `text`, in brackets, what a barrier still lacks; the text is empty if barrier is NULL. */
inline void describe_barrier(const void *barrier, char *text, size_t size) {
    *text = 0;
    if (!barrier) return;
    const uint32_t at = (uint32_t)((const unsigned char *)barrier - state.shared);
    const Barrier &b = asynchronous.barriers[at];
    snprintf(text, size,
             " (byte %u of shared memory; it lacks %d of %d arrivals, loads bring %llu of %llu bytes)", at,
             b.missing, b.arrivals, (unsigned long long)b.loading, (unsigned long long)b.announced);
}

/* barrier_init */
inline void barrier_begin(SharedBarrier *b, int arrivals) {
    asynchronous_use();
    const uint32_t at = shared_offset(b, sizeof *b, "barrier_init");
    if (at % 8 != 0) fail_here("a barrier at byte %u of shared memory, which is no multiple of 8", at);
    if (arrivals < 1 || arrivals >= 1 << 20) fail_here("a barrier of %d arrivals", arrivals);
    asynchronous.barriers[at] = Barrier{arrivals, arrivals, 0, 0, 0, false, {}};
    b->word = barrier_word(at);
}

/* barrier_init_done */
inline void barriers_begun() {
    for (auto &b : asynchronous.barriers) b.second.init_done = true;
}

/* Brings the data of a load to shared memory. */
inline void perform_load(const Load &load) {
    if (!load.map.at) return write_both(load.to, load.from, load.bytes);
    const TensorMap &m = load.map;
    for (int r = 0; r < m.box_rows; r++) {
        uint16_t line[BOX_COLUMNS] = {0};
        const int64_t row = (int64_t)load.row + r;
        if (row >= 0 && row < m.rows && load.batch >= 0 && load.batch < m.batches)
            for (int c = 0; c < BOX_COLUMNS; c++) {
                const int64_t column = (int64_t)load.column + c;
                if (column >= 0 && column < m.columns)
                    line[c] = m.at[(load.batch * m.rows + row) * m.row_stride + column];
            }
        for (int c = 0; c < BOX_COLUMNS; c += 8)
            write_both(swizzled(load.to + (uint32_t)(r * 128 + c * 2)), line + c, 16);
    }
}

/* Ends the barrier's phase if it can end now, and returns whether it did. A phase with loads ends only when a thread
   waits for it (`asked`), so that the loads take effect as late as the hardware allows. */
inline bool end_phase(Barrier *b, bool asked) {
    if (b->missing > 0 || b->loading < b->announced || (!asked && b->announced + b->loading > 0))
        return false;
    if (b->loading > b->announced)
        fail_here("%llu bytes are loaded in a phase of a barrier that expects %llu",
                  (unsigned long long)b->loading, (unsigned long long)b->announced);
    for (const Load &load : b->loads) perform_load(load);
    b->loads.clear();
    b->loading = b->announced = 0, b->missing = b->arrivals, b->phase++;
    return true;
}

/* The threads that wait for a barrier check it again. */
inline void wake_waiters(const SharedBarrier *b) {
    for (int i = 0; i < state.threads; i++)
        if (state.pool[i]->waits_for == b) state.pool[i]->waits_at = nullptr;
}

/* barrier_arrive; barrier_expect if bytes is not 0 */
inline void barrier_arrival(SharedBarrier *at, uint32_t bytes, const char *what) {
    Barrier &b = barrier_of(at, what);
    if (b.missing == 0 && !b.loads.empty())
        fail_here("%s: an arrival more than the %d of a phase whose loads no thread has waited for", what,
                  b.arrivals);
    if (b.missing == 0)
        fail_here("%s: an arrival more than the %d of a phase that waits for %llu bytes", what, b.arrivals,
                  (unsigned long long)b.announced);
    b.missing--, b.announced += bytes;
    end_phase(&b, false);
    wake_waiters(at);
}

/* barrier_wait */
inline void barrier_await(SharedBarrier *at, uint32_t parity) {
    Barrier &b = barrier_of(at, "barrier_wait");
    if (parity > 1) fail_here("barrier_wait for parity %u", parity);
    while ((b.phase & 1) == parity) {
        if (end_phase(&b, true)) {
            wake_waiters(at);
            break;
        }
        state.current->waits_for = at;
        wait_at("barrier_wait");
        state.current->waits_for = nullptr;
    }
}

/* ---- copies ---- */

/* tensor_load and bulk_load: the destination becomes NaN; the data come at the end of the barrier's phase. */
inline void begin_load(Load load, void *to, SharedBarrier *at, const char *what) {
    Barrier &b = barrier_of(at, what);
    load.to = shared_offset(to, load.bytes, what);
    load.thread = state.current->number;
    if (load.to % (load.map.at ? 1024 : 16) != 0 || load.bytes % 16 != 0 || (uintptr_t)load.from % 16 != 0)
        fail_here("%s of %u bytes from %p to byte %u of shared memory: not aligned", what, load.bytes,
                  load.from, load.to);
    if (!b.init_done) fail_here("%s for a barrier for which barrier_init_done has not been called", what);
    asynchronous_turn(state.current->number / WARP);
    write_both(load.to, nullptr, load.bytes);
    b.loads.push_back(load), b.loading += load.bytes;
    wake_waiters(at);
}

/* tensor_store */
inline void begin_store(const TensorMap &map, int column, int row, int batch, const void *from) {
    Unit &u = unit_here();
    const uint32_t at = shared_offset(from, (uint32_t)map.box_rows * 128, "tensor_store");
    if (at % 1024 != 0) fail_here("tensor_store from byte %u of shared memory, no multiple of 1024", at);
    u.stores.push_back({map, column, row, batch, at, false, false, {}});
}

/* A store reads shared memory. */
inline void read_store(Store *s) {
    asynchronous_turn(state.current->number / WARP);
    s->box.resize((size_t)s->map.box_rows * BOX_COLUMNS);
    for (int r = 0; r < s->map.box_rows; r++)
        for (int c = 0; c < BOX_COLUMNS; c += 8)
            memcpy(&s->box[(size_t)r * BOX_COLUMNS + c],
                   read_view(swizzled(s->from + (uint32_t)(r * 128 + c * 2)), 16, "tensor_store"), 16);
    s->read = true;
}

/* A store writes global memory. */
inline void write_store(const Store &s) {
    const TensorMap &m = s.map;
    for (int r = 0; r < m.box_rows; r++)
        for (int c = 0; c < BOX_COLUMNS; c++) {
            const int64_t row = (int64_t)s.row + r, column = (int64_t)s.column + c;
            if (row >= 0 && row < m.rows && column >= 0 && column < m.columns && s.batch >= 0 &&
                s.batch < m.batches)
                m.at[(s.batch * m.rows + row) * m.row_stride + column] = s.box[(size_t)r * BOX_COLUMNS + c];
        }
}

/* bulk_commit */
inline void commit_stores() {
    for (Store &s : unit_here().stores) s.committed = true;
}

/* bulk_wait_read or, if `written`, bulk_wait */
inline void wait_stores(bool written) {
    std::vector<Store> &stores = unit_here().stores, rest;
    for (Store &s : stores) {
        if (s.committed && !s.read) read_store(&s);
        if (s.read && written)
            write_store(s);
        else
            rest.push_back(s);
    }
    stores.swap(rest);
}

/* ---- products of warpgroups ---- */

inline uint32_t nan_bits() { return 0xFFFFFFFFu; }

/* One thread issues a wgmma: the product is computed later, by finish_products. */
inline void issue_product(const Product &product) {
    Thread *t = state.current;
    Unit &u = unit_here();
    if (t->number / GROUP * GROUP + GROUP > state.threads)
        fail(t, "wgmma in a warpgroup of fewer than 128 threads");
    if (!u.fenced) fail(t, "wgmma without a wgmma_fence since its last wgmma_wait");
    u.products.push_back(product);
    u.products.back().group = u.committed;
    for (Accumulators &x : u.accumulators)
        if (x.d == product.d) {
            x.products++;
            return;
        }
    Accumulators x;
    x.d = product.d, x.registers = product.registers, x.products = 1;
    memcpy(x.sums, x.d, sizeof(float) * (size_t)x.registers);
    u.accumulators.push_back(x);
    memset((void *)product.d, 0xFF, sizeof(float) * (size_t)x.registers);
}

/* Returns the address of an A register, if it is a variable. When the product is done, the variable must still have the
   value that it had when the product was issued. */
inline const uint32_t *variable_address(const uint32_t &variable) { return &variable; }
inline const uint32_t *variable_address(const uint32_t &&) { return nullptr; }

/* Reads one operand, x(k, r) for k < 16 and r < n, from shared memory. There the k of each r are side by side; if
   transposed, the r of each k are. `tile` is the operand's descriptor. */
template <int WIDTH> inline void read_operand(float (*x)[WIDTH], uint64_t tile, bool transposed, int n) {
    const uint32_t start = (uint32_t)(tile & 0x3FFF) << 4, leading = (uint32_t)(tile >> 16 & 0x3FFF) << 4,
                   stride = (uint32_t)(tile >> 32 & 0x3FFF) << 4;
    if (tile >> 62 != 1 || (tile >> 49 & 7) != 0)
        fail_here("wgmma with a descriptor %016llx, not of the 128-byte swizzle", (unsigned long long)tile);
    uint16_t eight[8];
    for (int outer = 0; outer < (transposed ? 16 : n); outer++)
        for (int inner = 0; inner < (transposed ? n : 16); inner += 8) {
            const uint32_t o = start + (uint32_t)(outer / 8) * stride + (uint32_t)(outer % 8) * 128 +
                               (uint32_t)(inner / 64) * leading + (uint32_t)(inner % 64) * 2;
            memcpy(eight, read_view(swizzled(o), 16, "wgmma"), 16);
            for (int i = 0; i < 8; i++) {
                const uint32_t bits = (uint32_t)eight[i] << 16;
                memcpy(transposed ? &x[outer][inner + i] : &x[inner + i][outer], &bits, 4);
            }
        }
}

/* The row and the column of a thread's accumulator i. */
inline int fragment_row(int thread, int i) { return thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8; }
inline int fragment_column(int thread, int i) { return i / 4 * 8 + thread % 4 * 2 + i % 2; }

/* Returns the sums of a thread for its accumulators d; NULL if no product writes them. */
inline Accumulators *accumulators_of(int thread, const float *d) {
    for (Accumulators &x : asynchronous.units[(size_t)thread].accumulators)
        if (x.d == d) return &x;
    return nullptr;
}

/* Collects the sums of a warpgroup, whose first thread is `first`, in the matrix d. */
inline void gather_sums(int first, size_t product) {
    for (int t = 0; t < GROUP; t++) {
        const Accumulators *x =
            accumulators_of(first + t, asynchronous.units[(size_t)(first + t)].products[product].d);
        for (int i = 0; i < x->registers; i++)
            asynchronous.d[fragment_row(t, i)][fragment_column(t, i)] = x->sums[i];
    }
}

/* Gives the sums in the matrix d back to the threads. */
inline void scatter_sums(int first, size_t product) {
    for (int t = 0; t < GROUP; t++) {
        Accumulators *x =
            accumulators_of(first + t, asynchronous.units[(size_t)(first + t)].products[product].d);
        for (int i = 0; i < x->registers; i++)
            x->sums[i] = asynchronous.d[fragment_row(t, i)][fragment_column(t, i)];
    }
}

/* Computes product `number` of a warpgroup in the matrices a, b and d. Its threads must all have issued the same. */
inline void form_product(int first, size_t number) {
    Asynchronous &s = asynchronous;
    const Product &p = s.units[(size_t)first].products[number];
    const int n = 2 * p.registers;
    for (int t = 1; t < GROUP; t++) {
        const Product &q = s.units[(size_t)(first + t)].products[number];
        if (p.registers != q.registers || p.transpose_a != q.transpose_a || p.transpose_b != q.transpose_b ||
            p.from_registers != q.from_registers || p.add != q.add || p.group != q.group ||
            p.a_tile != q.a_tile || p.b_tile != q.b_tile)
            fail(state.pool[(size_t)(first + t)],
                 "its wgmma differs from that of the first thread of its warpgroup (size, descriptors, add)");
    }
    read_operand<256>(s.b, p.b_tile, p.transpose_b, n);
    if (!p.from_registers)
        read_operand<64>(s.a, p.a_tile, p.transpose_a, 64);
    else
        for (int t = 0; t < GROUP; t++)
            for (int i = 0; i < 4; i++) {
                const uint32_t pair = s.units[(size_t)(first + t)].products[number].a[i];
                const uint32_t low = pair << 16, high = pair & 0xFFFF0000u;
                const int row = t / 32 * 16 + t % 32 / 4 + i % 2 * 8, k = t % 4 * 2 + i / 2 * 8;
                memcpy(&s.a[k][row], &low, 4), memcpy(&s.a[k + 1][row], &high, 4);
            }
    for (int row = 0; row < 64; row++) {
        float *d = s.d[row];
        if (!p.add) memset((void *)d, 0, sizeof(float) * (size_t)n);
        for (int k = 0; k < 16; k++) {
            const float a = s.a[k][row], *b = s.b[k];
            for (int i = 0; i < n; i++) d[i] += a * b[i];
        }
    }
}

/* Called when all threads of the warpgroup have reached wgmma_wait: computes all products but those of the last
   `open` committed groups. */
inline void finish_products(int first, int open) {
    Asynchronous &s = asynchronous;
    const Unit &leader = s.units[(size_t)first];
    size_t count = 0;
    while (count < leader.products.size() && leader.products[count].group + open < leader.committed) count++;
    for (int t = 1; t < GROUP; t++) {
        const Unit &u = s.units[(size_t)(first + t)];
        if (u.committed != leader.committed || u.products.size() != leader.products.size())
            fail(state.pool[(size_t)(first + t)],
                 "its wgmma and commits differ from those of the first thread of its warpgroup");
    }
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || leader.products[i].d != leader.products[i - 1].d) gather_sums(first, i);
        form_product(first, i);
        if (i + 1 == count || leader.products[i].d != leader.products[i + 1].d) scatter_sums(first, i);
    }
    for (int t = 0; t < GROUP; t++) {
        Unit &u = s.units[(size_t)(first + t)];
        for (size_t i = 0; i < count; i++) {
            const Product &p = u.products[i];
            for (int r = 0; r < 4; r++)
                if (p.a_at[r] && *p.a_at[r] != p.a[r])
                    fail(state.pool[(size_t)(first + t)],
                         "it wrote an A register of a wgmma that was not done");
            accumulators_of(first + t, p.d)->products--;
        }
        u.products.erase(u.products.begin(), u.products.begin() + (long)count);
        std::vector<Accumulators> rest;
        for (const Accumulators &x : u.accumulators) {
            for (int i = 0; i < x.registers; i++) {
                uint32_t bits;
                memcpy(&bits, x.d + i, 4);
                if (bits != nan_bits())
                    fail(state.pool[(size_t)(first + t)],
                         "it wrote an accumulator of a wgmma that was not done");
            }
            if (x.products > 0)
                rest.push_back(x);
            else
                memcpy(x.d, x.sums, sizeof(float) * (size_t)x.registers);
        }
        u.accumulators.swap(rest);
    }
}

/* wgmma_wait<open> */
inline void wait_products(int open) {
    Thread *t = state.current;
    unit_here().fenced = false;
    const int group = t->number / GROUP, first = group * GROUP;
    if (first + GROUP > state.threads) fail(t, "wgmma_wait in a warpgroup of fewer than 128 threads");
    if (++asynchronous.at_wait[group] < GROUP) return wait_at("wgmma_wait");
    asynchronous.at_wait[group] = 0;
    asynchronous_turn(t->number / WARP);
    finish_products(first, open);
    for (int i = first; i < first + GROUP; i++) state.pool[(size_t)i]->waits_at = nullptr;
}

/* ---- the begin and the end of a block ---- */

inline void asynchronous_begin() { asynchronous.used = false; }

inline void asynchronous_end() {
    if (!asynchronous.used) return;
    for (int i = 0; i < state.threads; i++) {
        Unit &u = asynchronous.units[(size_t)i];
        if (!u.products.empty()) fail(state.pool[(size_t)i], "it ended without waiting for its wgmma");
        for (const Store &s : u.stores) {
            if (!s.read) fail(state.pool[(size_t)i], "it ended without waiting for its tensor_store");
            write_store(s);
        }
    }
    for (const auto &b : asynchronous.barriers)
        for (const Load &load : b.second.loads)
            fail(state.pool[(size_t)load.thread], "the block ended without waiting for a load of it");
}

} // namespace emulate

#endif
