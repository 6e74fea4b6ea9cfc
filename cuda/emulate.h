/* emulate.h: runs CUDA kernels on the CPU, so that their indices, tiles, fragments and arithmetic are tested where
   there is no GPU. Any C++17 compiler will do; the CUDA toolkit is not needed.

   The kernels are the very same source. This header defines the words that CUDA adds to C++ (__global__, threadIdx,
   __syncthreads, warp shuffles); cuda/device.h and cuda/mma.cuh include it when the compiler is not nvcc. The threads
   of a block are fibers: each runs until it comes to a barrier or to an operation of its whole warp, and waits there
   for the other threads. A mistake of a kernel that a GPU would not report ends the program here, with a message that
   names kernel, block and thread:
   - a barrier or a warp operation at which some threads do not arrive, or not all at the same one; a named barrier
     for which threads expect different numbers of threads
   - an access past the end of a block's shared memory, whose size the launch gave (rounded up to 16 bytes)
   - misaligned cp.async, ldmatrix and vector accesses; launches beyond the limits of the hardware
   - pinned memory that the host changes before it has waited for its copy
   - with -fsanitize=address,undefined: every access outside of shared or global memory
   - mistakes with what compute capability 9.0 adds, for example wgmma without its fence or its wait, accumulators
     that are written too early, or copies for which no thread waits (emulate_hopper.h has the list)
   Other mistakes show as wrong results, because the emulator chooses the least favourable of the allowed behaviours:
   - shared memory is filled with NaN at the start of every block
   - cp.async copies when a thread waits for it, not before. So do tensor_load and bulk_load, whose destination is NaN
     until then. wgmma reads shared memory and writes its sums at its wait; the accumulators are NaN until then.
     tensor_store reads shared memory when a thread waits for it
   - wgmma and tensor_store do not see what threads wrote to shared memory until a thread of the same warp has called
     fence_async_proxy
   - warps run in an order that changes after every barrier, and some run long before others, so that a missing
     barrier is noticed. The order is random, but it depends only on the launch (name, grid, block, shared memory):
     the same launch has the same order in every program, whatever ran before it

   emulate::hopper says whether the emulated GPU has compute capability 9.0; tests may set it to false.

   The emulator cannot show speed, nor the memory ordering between threads that run truly at the same time. One aspect
   of speed is visible: emulate::state.bank_conflicts counts the rows of ldmatrix that are in the same bank of shared
   memory.

   Blocks run one after the other, so a kernel must not wait for another block. A stream does its work at once. Each
   stream has a clock, which a launch advances by a nanosecond for each of its threads, so that tests can check what
   is measured between events. */
#ifndef CUDA_EMULATE_H
#define CUDA_EMULATE_H

#undef _FORTIFY_SOURCE /* its longjmp refuses to jump to another stack */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <functional>
#include <vector>
#include "../gpt/base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#define EMULATE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMULATE_ASAN 1
#endif
#endif
#ifdef EMULATE_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
typedef int cudaStream_t; /* 0, or 1 from stream_create */
struct EmulatedEvent {
    double time;
    cudaStream_t stream;
    long uploads; /* how many uploads had begun before the event */
};
typedef EmulatedEvent *cudaEvent_t;

namespace emulate {

enum { WARP = 32, MAX_THREADS = 1024, MAX_SHARED = 227 << 10, STACK = 256 << 10, NAMED_BARRIERS = 16 };
static const size_t MEMORY = (size_t)16 << 30; /* bytes of the emulated GPU */

struct Copy { /* one cp.async, or the end of a group of them */
    void *to;
    const void *from; /* NULL: the copy writes zeros */
    bool end_of_group;
};

struct Thread {
    ucontext_t context;   /* where the fiber begins */
    void *jump_buffer[5]; /* where the fiber waits, for __builtin_longjmp */
    bool begun;
    char *stack;
    void *asan_stack;
    dim3 index;
    int number;
    bool done;
    const char *waits_at;  /* the operation at which it waits; NULL: it can run */
    const void *waits_for; /* the barrier in shared memory for which it waits, or NULL */
    std::vector<Copy> copies;
};

struct Warp {
    void *operands[WARP];
    const char *operation;
    int arrived;
};

struct NamedBarrier {
    int threads; /* how many are expected, as the first thread to arrive said */
    int arrived; /* how many have arrived */
};

struct State {
    const char *kernel;
    dim3 grid, block, block_index;
    int threads, at_barrier;
    Thread *current;
    std::vector<Thread *> pool;
    Warp warps[MAX_THREADS / WARP];
    NamedBarrier named[NAMED_BARRIERS]; /* number 0 is __syncthreads's */
    std::function<void()> body;
    unsigned char *shared;
    size_t shared_size;
    void *jump_buffer[5]; /* where the scheduler waits */
    void *asan_stack;
    const void *scheduler_stack;
    size_t scheduler_stack_size;
    uint64_t random; /* the state of next_random */
    long bank_conflicts;
};
inline State &state = *new State(); /* never destroyed: the program may end inside a fiber */

/* ---- fibers ---- */

/* The program jumps from one stack to another with the compiler's own setjmp and longjmp, because swapcontext costs a
   system call. The address sanitizer must be told which stack is in use. It also assumes that a function that does
   not return ends all frames of its stack, and forgets them. Here the frames remain in use, so the sanitizer must not
   notice that `jump` does not return: the volatile variable hides it. */
inline volatile bool jumps = true;
__attribute__((noinline, no_sanitize("address", "undefined"))) inline void jump(void **place) {
    if (jumps) __builtin_longjmp(place, 1);
}

/* The current thread's fiber stops here, and the scheduler goes on. */
inline void switch_to_scheduler(Thread *t) {
#ifdef EMULATE_ASAN
    __sanitizer_start_switch_fiber(&t->asan_stack, state.scheduler_stack, state.scheduler_stack_size);
#endif
    if (__builtin_setjmp(t->jump_buffer) == 0) jump(state.jump_buffer);
#ifdef EMULATE_ASAN
    __sanitizer_finish_switch_fiber(t->asan_stack, &state.scheduler_stack, &state.scheduler_stack_size);
#endif
}

/* The function that every fiber runs. */
inline void fiber_main() {
#ifdef EMULATE_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &state.scheduler_stack, &state.scheduler_stack_size);
#endif
    for (;;) { /* once for every block that uses this fiber */
        Thread *t = state.current;
        state.body();
        t->done = true;
        switch_to_scheduler(t);
    }
}

/* The scheduler runs a thread until it waits or ends. */
inline void run(Thread *t) {
    state.current = t;
#ifdef EMULATE_ASAN
    __sanitizer_start_switch_fiber(&state.asan_stack, t->stack, STACK);
#endif
    if (__builtin_setjmp(state.jump_buffer) == 0) {
        if (t->begun) jump(t->jump_buffer);
        t->begun = true;
        setcontext(&t->context);
    }
#ifdef EMULATE_ASAN
    __sanitizer_finish_switch_fiber(state.asan_stack, nullptr, nullptr);
#endif
}

/* Makes the fiber of a thread; later blocks use it again. */
inline Thread *new_thread(int number) {
    Thread *t = new Thread();
    t->number = number;
    t->stack = (char *)malloc(STACK);
    if (!t->stack || getcontext(&t->context) != 0)
        die("emulator: no memory for the stack of thread %d", number);
    t->context.uc_stack.ss_sp = t->stack;
    t->context.uc_stack.ss_size = STACK;
    t->context.uc_link = nullptr;
    makecontext(&t->context, fiber_main, 0);
    return t;
}

/* ---- barriers ---- */

/* Ends the program with a message that names the thread. */
[[noreturn]] inline void fail(const Thread *t, const char *what) {
    const dim3 b = state.block_index;
    die("emulator: kernel %s, block (%u, %u, %u), thread %d: %s", state.kernel, b.x, b.y, b.z, t->number,
        what);
}

/* The same for the current thread, with a format as printf has it. */
__attribute__((noreturn, format(printf, 1, 2))) inline void fail_here(const char *format, ...) {
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fail(state.current, text);
}

/* The current thread waits until another thread sets its waits_at to NULL. */
inline void wait_at(const char *what) {
    Thread *t = state.current;
    t->waits_at = what;
    while (t->waits_at) switch_to_scheduler(t);
}

/* __syncthreads */
inline void block_barrier() {
    if (state.named[0].arrived) fail_here("it comes to __syncthreads while others are at named barrier 0");
    if (++state.at_barrier < state.threads) return wait_at("__syncthreads");
    state.at_barrier = 0;
    for (int i = 0; i < state.threads; i++)
        if (state.pool[i] != state.current) state.pool[i]->waits_at = nullptr;
}

/* bar.sync and bar.arrive: the barrier opens when any `threads` threads have arrived. bar.sync `waits` for that. */
inline void named_barrier(int id, int threads, bool waits) {
    static const char *const names[NAMED_BARRIERS] = {
        "named barrier 0",  "named barrier 1",  "named barrier 2",  "named barrier 3",
        "named barrier 4",  "named barrier 5",  "named barrier 6",  "named barrier 7",
        "named barrier 8",  "named barrier 9",  "named barrier 10", "named barrier 11",
        "named barrier 12", "named barrier 13", "named barrier 14", "named barrier 15"};
    if (id < 0 || id >= NAMED_BARRIERS) fail_here("named barrier %d; there are 0..15", id);
    if (threads <= 0 || threads % WARP != 0 || threads > state.threads)
        fail_here("named barrier %d for %d threads; expected whole warps of the block", id, threads);
    if (id == 0 && state.at_barrier)
        fail_here("it comes to named barrier 0 while others are at __syncthreads");
    NamedBarrier *b = &state.named[id];
    if (b->arrived && b->threads != threads)
        fail_here("it comes to named barrier %d for %d threads while others are there for %d", id, threads,
                  b->threads);
    b->threads = threads;
    if (++b->arrived < threads) {
        if (waits) wait_at(names[id]);
        return;
    }
    b->arrived = 0;
    for (int i = 0; i < state.threads; i++)
        if (state.pool[i]->waits_at == names[id]) state.pool[i]->waits_at = nullptr;
}

/* An operation of a whole warp: each lane gives its operands and waits, and the last lane to arrive calls `all` with
   the operands of all lanes. */
template <typename Operands>
inline void warp_operation(const char *name, Operands *mine, void (*all)(Operands **lanes)) {
    Thread *t = state.current;
    Warp *w = &state.warps[t->number / WARP];
    if (w->arrived > 0 && w->operation != name && strcmp(w->operation, name) != 0) {
        char text[200];
        snprintf(text, sizeof text, "it comes to %s while others of its warp are at %s", name, w->operation);
        fail(t, text);
    }
    w->operation = name;
    w->operands[t->number % WARP] = mine;
    if (++w->arrived < WARP) return wait_at(name);
    w->arrived = 0;
    Operands *lanes[WARP];
    for (int i = 0; i < WARP; i++) lanes[i] = (Operands *)w->operands[i];
    all(lanes);
    for (int i = 0; i < WARP; i++) state.pool[t->number / WARP * WARP + i]->waits_at = nullptr;
}

/* ---- shared memory ---- */

/* After the last byte that the launch asked for comes memory that no thread may access. With the address sanitizer,
   shared memory is an array on the heap at a multiple of 1024 bytes. Without it, shared memory ends where its pages
   end, or up to 15 bytes before, so that it begins at a multiple of 16; the pages after it are protected. Where the
   hardware requires a larger alignment, the emulator checks the offset within shared memory in place of the address. */
#ifdef EMULATE_ASAN
inline void shared_begin(size_t bytes) {
    void *memory = nullptr;
    if (posix_memalign(&memory, 1024, bytes ? bytes : 1) != 0) die("emulator: out of memory");
    state.shared = (unsigned char *)memory;
}
inline void shared_end() { free(state.shared); }
#else
enum { SHARED_ROOM = 256 << 10, SHARED_GUARD = 1 << 20 };
inline unsigned char *shared_pages;

/* The handler of accesses to protected pages. */
inline void on_segmentation_fault(int signal_number, siginfo_t *info, void *) {
    const unsigned char *at = (const unsigned char *)info->si_addr;
    if (state.current && at >= shared_pages && at < shared_pages + SHARED_ROOM + SHARED_GUARD)
        fail_here("it reads or writes byte %td of the %zu bytes of its shared memory", at - state.shared,
                  state.shared_size);
    /* The fault is not a kernel's mistake: without a handler it happens again and ends the program. */
    signal(signal_number, SIG_DFL);
}

inline void shared_begin(size_t bytes) {
    if (!shared_pages) {
        void *pages =
            mmap(nullptr, SHARED_ROOM + SHARED_GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED) die("emulator: no memory for a block's shared memory");
        shared_pages = (unsigned char *)pages;
        struct sigaction action = {};
        action.sa_sigaction = on_segmentation_fault;
        action.sa_flags = SA_SIGINFO;
        sigaction(SIGSEGV, &action, nullptr);
        sigaction(SIGBUS, &action, nullptr);
    }
    const size_t page = (size_t)getpagesize(), begin = SHARED_ROOM - (bytes + 15) / 16 * 16;
    const size_t first = begin / page * page; /* the pages before it stay protected too */
    if (mprotect(shared_pages, SHARED_ROOM, PROT_NONE) != 0 ||
        mprotect(shared_pages + first, SHARED_ROOM - first, PROT_READ | PROT_WRITE) != 0)
        die("emulator: cannot protect shared memory: %s", strerror(errno));
    state.shared = shared_pages + begin;
}
inline void shared_end() {}
#endif

/* Returns the offset of `bytes` bytes in the block's shared memory; they must lie within it. */
inline uint32_t shared_offset(const void *at, uint32_t bytes, const char *what) {
    const uintptr_t offset = (uintptr_t)at - (uintptr_t)state.shared;
    if (offset > state.shared_size || bytes > state.shared_size - offset)
        fail_here("%s of %u bytes at byte %lld of the %zu bytes of its shared memory", what, bytes,
                  (long long)offset, state.shared_size);
    return (uint32_t)offset;
}

/* ---- launches ---- */

/* On compute capability 9.0 some units work at the same time as the threads. emulate_hopper.h, which includes this
   file, emulates them and defines these functions. */
void asynchronous_begin();        /* a block begins */
void asynchronous_turn(int warp); /* the threads of a warp have run until they all wait or have ended */
void asynchronous_end();          /* a block ends */
void describe_barrier(const void *barrier, char *text, size_t size);

inline uint64_t next_random() { /* xorshift64 */
    state.random ^= state.random << 13, state.random ^= state.random >> 7, state.random ^= state.random << 17;
    return state.random;
}

/* No thread can run. The message names a thread that waits, if possible one that waits for a barrier in shared
   memory, as the others often wait because of it. It also names a thread that waits elsewhere or has ended. */
[[noreturn]] inline void fail_deadlock() {
    const Thread *waiting = nullptr, *other = nullptr;
    for (int i = 0; i < state.threads; i++) {
        const Thread *t = state.pool[i];
        if (!t->done && (!waiting || !waiting->waits_for || t->waits_for)) waiting = t;
    }
    /* At wgmma_wait a thread waits for the others of its warpgroup. */
    const bool group = strcmp(waiting->waits_at, "wgmma_wait") == 0;
    const int first = group ? waiting->number / 128 * 128 : 0, end = group ? first + 128 : state.threads;
    for (int i = first; i < end; i++) {
        const Thread *t = state.pool[i];
        const bool elsewhere = t->waits_at != waiting->waits_at || t->waits_for != waiting->waits_for;
        if (t->done ? !waiting->waits_for : elsewhere && !(other && other->done)) other = t;
    }
    char text[600], why[200] = "";
    describe_barrier(waiting->waits_for, why, sizeof why);
    int n = snprintf(text, sizeof text, "it waits at %s for ever%s: ", waiting->waits_at, why);
    if (other) describe_barrier(other->waits_for, why, sizeof why);
    if (other && other->done)
        snprintf(text + n, sizeof text - (size_t)n, "thread %d has ended without coming there",
                 other->number);
    else if (other)
        snprintf(text + n, sizeof text - (size_t)n, "thread %d waits at %s%s", other->number, other->waits_at,
                 why);
    else
        snprintf(text + n, sizeof text - (size_t)n, "so do all that are left");
    fail(waiting, text);
}

/* Runs all threads of a block to their end. */
inline void run_block() {
    memset(state.shared, 0xFF, state.shared_size);
    state.at_barrier = 0;
    for (Warp &w : state.warps) w.arrived = 0;
    for (NamedBarrier &b : state.named) b.arrived = 0;
    asynchronous_begin();
    for (int i = 0; i < state.threads; i++) {
        Thread *t = state.pool[i];
        t->done = false, t->waits_at = nullptr, t->waits_for = nullptr;
        t->index = dim3((unsigned)i % state.block.x, (unsigned)i / state.block.x % state.block.y,
                        (unsigned)i / state.block.x / state.block.y);
    }
    /* One warpgroup (or one warp, in a block of at most four) is slow for a while: it runs only when no other can. So
       the others are as far ahead of it as its kernel's barriers allow. */
    const int warps = state.threads / WARP, together = warps > 4 ? 4 : 1;
    const uint64_t groups = (uint64_t)((warps + together - 1) / together);
    int slow = (int)(next_random() % (groups + 1)); /* `groups`: none is slow */
    for (int done = 0; done < state.threads;) {
        bool moved = false;
        const int first = (int)(next_random() % (uint64_t)warps), step = next_random() % 2 ? 1 : warps - 1;
        for (int with_slow = 0; with_slow < 2 && !moved; with_slow++)
            for (int w = 0, at = first; w < warps; w++, at = (at + step) % warps) {
                bool ran = false;
                if (!with_slow && at / together == slow) continue;
                for (int i = at * WARP; i < (at + 1) * WARP; i++) {
                    Thread *t = state.pool[i];
                    if (t->done || t->waits_at) continue;
                    run(t);
                    ran = true;
                    done += t->done;
                }
                if (ran) asynchronous_turn(at);
                moved = moved || ran;
            }
        if (next_random() % 256 == 0) slow = (int)(next_random() % (groups + 1));
        if (!moved) fail_deadlock();
    }
    for (int i = 0; i < state.threads; i++)
        if (!state.pool[i]->copies.empty()) fail(state.pool[i], "it ended without waiting for its cp.async");
    asynchronous_end();
}

/* FNV-1a, continued over some bytes. */
inline uint64_t launch_hash(uint64_t hash, const void *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) hash = (hash ^ ((const unsigned char *)bytes)[i]) * 1099511628211u;
    return hash;
}

/* A number, not zero, with which the random order of a launch begins. It depends on nothing but the launch, so that
   what a test finds does not depend on the launches before it. */
inline uint64_t launch_seed(const char *kernel, dim3 grid, dim3 block, size_t shared) {
    const uint64_t sizes[] = {grid.x, grid.y, grid.z, block.x, block.y, block.z, shared};
    return launch_hash(launch_hash(14695981039346656037u, kernel, strlen(kernel)), sizes, sizeof sizes) | 1;
}

/* Runs a kernel: all blocks of the grid, one after the other. `body` calls the kernel with its arguments. */
inline void launch(const char *kernel, dim3 grid, dim3 block, size_t shared, std::function<void()> body) {
    const uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (threads == 0 || threads > MAX_THREADS || threads % WARP != 0)
        die("emulator: kernel %s: %llu threads in a block; expected whole warps, 1024 at most", kernel,
            (unsigned long long)threads);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7FFFFFFFu || grid.y > 65535 || grid.z > 65535)
        die("emulator: kernel %s: a grid of (%u, %u, %u) blocks", kernel, grid.x, grid.y, grid.z);
    if (shared > MAX_SHARED)
        die("emulator: kernel %s: %zu bytes of shared memory; a block of sm_90 has %d", kernel, shared,
            MAX_SHARED);
    state.kernel = kernel, state.grid = grid, state.block = block, state.threads = (int)threads;
    state.body = std::move(body);
    state.shared_size = shared;
    state.random = launch_seed(kernel, grid, block, shared);
    shared_begin(shared);
    while ((int)state.pool.size() < state.threads) state.pool.push_back(new_thread((int)state.pool.size()));
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                state.block_index = dim3(x, y, z);
                run_block();
            }
    shared_end();
    state.current = nullptr;
}

/* ---- shuffles and votes ---- */

template <typename T> struct Shuffle {
    T value, result;
    int from;
};

/* Returns the value of lane `from`. */
template <typename T> inline T shuffle(const char *name, T value, int from) {
    Shuffle<T> mine = {value, value, from};
    warp_operation<Shuffle<T>>(name, &mine, [](Shuffle<T> **lanes) {
        for (int i = 0; i < WARP; i++) lanes[i]->result = lanes[lanes[i]->from & (WARP - 1)]->value;
    });
    return mine.result;
}

struct Vote {
    unsigned ballot;
    bool mine;
};

/* Returns a bit for each lane: whether its `mine` is true. */
inline unsigned vote(bool mine) {
    Vote operands = {0, mine};
    warp_operation<Vote>("vote", &operands, [](Vote **lanes) {
        unsigned ballot = 0;
        for (int i = 0; i < WARP; i++) ballot |= (unsigned)lanes[i]->mine << i;
        for (int i = 0; i < WARP; i++) lanes[i]->ballot = ballot;
    });
    return operands.ballot;
}

/* The current thread's lane in its warp. */
inline int lane() { return state.current->number % WARP; }

/* ---- streams ---- */

inline double clock[2]; /* the time of each stream, in seconds */
inline int unfinished;  /* how many more times event_done returns false */
/* A stream has run so many threads. */
inline void advance_clock(cudaStream_t stream, double threads) { clock[stream] += 1e-9 * threads; }

/* A copy from pinned memory to the device. On a GPU it may still be under way until the host has waited for an event
   after it. */
struct Upload {
    const void *from;
    std::vector<char> sent; /* the bytes as they were when the copy began */
    cudaStream_t stream;
    long number;
};
inline std::vector<Upload> &uploads = *new std::vector<Upload>();
inline long uploads_begun;
inline std::vector<std::pair<char *, size_t>> &pinned = *new std::vector<std::pair<char *, size_t>>();

/* Records a copy of bytes at `from`, if they are pinned. */
inline void upload(const void *from, size_t bytes, cudaStream_t stream) {
    const char *x = (const char *)from;
    for (const auto &piece : pinned)
        if (x >= piece.first && x < piece.first + piece.second)
            uploads.push_back({from, std::vector<char>(x, x + bytes), stream, ++uploads_begun});
}

/* The host has waited for the copies of a stream up to `number`. If the host has changed their source before, a GPU
   might have copied the changed bytes: an error. */
inline void uploads_done(cudaStream_t stream, long number) {
    std::vector<Upload> rest;
    for (const Upload &u : uploads) {
        if (u.stream != stream || u.number > number)
            rest.push_back(u);
        else if (memcmp(u.from, u.sent.data(), u.sent.size()) != 0)
            die("emulator: the host changed %zu bytes of pinned memory before their copy was waited for",
                u.sent.size());
    }
    uploads.swap(rest);
}

} // namespace emulate

#define threadIdx (emulate::state.current->index)
#define blockIdx (emulate::state.block_index)
#define blockDim (emulate::state.block)
#define gridDim (emulate::state.grid)

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline uint32_t max(uint32_t a, uint32_t b) { return a > b ? a : b; }

/* Each thread runs until it waits, so no other thread can come between the read and the write. */
inline unsigned atomicAdd(unsigned *x, unsigned more) { return (*x += more) - more; }

inline void __syncthreads() { emulate::block_barrier(); }
inline void __syncwarp() { emulate::vote(true); }
template <typename T> inline T __shfl_sync(unsigned, T value, int from) {
    return emulate::shuffle("__shfl_sync", value, from);
}
template <typename T> inline T __shfl_xor_sync(unsigned, T value, int mask) {
    return emulate::shuffle("__shfl_xor_sync", value, emulate::lane() ^ mask);
}
inline unsigned __ballot_sync(unsigned, bool vote) { return emulate::vote(vote); }
inline bool __any_sync(unsigned, bool vote) { return emulate::vote(vote) != 0; }
inline bool __all_sync(unsigned, bool vote) { return emulate::vote(vote) == 0xFFFFFFFFu; }

#endif
