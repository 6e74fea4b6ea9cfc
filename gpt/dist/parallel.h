/* parallel.h: data parallelism over MPI ranks; without -DHAVE_MPI one rank, and every call a no-op.

   parallel_start(&argc, &argv)   before anything else; parallel_finish() last
   parallel_rank(), parallel_ranks()
   parallel_sum_double(x)         the sum of x over the ranks, the same bits on every rank
   parallel_any(flag)             true on every rank when it is true on one
   parallel_barrier()
   parallel_collect(all, own, n)  all (ranks, n bytes) := every rank's own (n bytes), in order
   An error on one rank names it and its host and ends the job on all (check.h's hooks).

   Buckets and owners. The flat vector of all parameters is cut into buckets, the units in which gradients are summed
   and weights handed round; the cuts depend on the model alone. Of every bucket each rank owns one slice: it sums that
   slice's gradients, keeps its moments (--zero=1) and updates its weights.
   parallel_buckets(starts, n, floats)      the buckets; free with parallel_buckets_free
   parallel_slice(bucket, owner, owners)    what one of so many owners has of a bucket; the slices cover it in order
   parallel_owned(buckets, owner, owners, &count)   all of an owner's slices, ascending; its arrays hold them one after
                                  another, ranges_floats(owned, count) floats

   The exchange moves buckets while the step computes.
   parallel_open(&buckets, bf16, thread)    once, all ranks; parallel_close() at the end. bf16: gradients travel rounded to
                                  bfloat16. thread: one of its own moves the messages; else parallel_progress() does,
                                  which must be called often
   parallel_buffer_floats(&buckets, bf16)   the memory that takes
   reduce_scatter_begin(g)          from here on gradients become final, from the end of g (all parameters) to its start:
   reduce_scatter_ready(begin)          those from float `begin` on are; nobody writes them until parallel_wait. Starts the sums
                                  of their buckets: afterwards each rank has the sums of the slices it owns. A no-op before
                                  reduce_scatter_begin, so that backward can call it always
   all_gather(x, bucket)      every rank gets the other ranks' slices of this bucket of x
   parallel_wait()                until all of that is done
   parallel_hidden()              of the time that buckets were on their way since the last call, the share in which
                                  nobody waited for them; NaN: none were
   Every rank sends its contribution to a slice to the slice's owner, who adds them in the order of the ranks in float32:
   the bits depend on the number of ranks, never on time. Over a step a rank sends and receives (ranks - 1) / ranks of
   the gradients and as much of the weights, which is the least there can be. */
#ifndef GPT_DIST_PARALLEL_H
#define GPT_DIST_PARALLEL_H

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>
#include "../base/check.h"
#include "../base/machine.h"
#include "../math/tensor_table.h"
#ifdef HAVE_MPI
#include <mpi.h>
#endif

typedef struct {
    FloatRange *ranges; /* (count) in memory order, without gaps */
    int count;
} ParallelBuckets;

/* Large enough that a message costs more than its start, small enough that the first is on its way early. Cuts inside of a
   group at multiples of a number that ranks divide: slices of one size are what NCCL is best at. */
enum { PARALLEL_LEAST = 1 << 18, PARALLEL_MOST = 1 << 22, PARALLEL_CUT = 1 << 14 };

/* Appends [begin, end), the highest piece first, in pieces of hardly more than PARALLEL_MOST floats. */
static inline void parallel_buckets_add(ParallelBuckets *b, size_t begin, size_t end) {
    const size_t n = end - begin, pieces = (n + PARALLEL_MOST - 1) / PARALLEL_MOST;
    for (size_t i = pieces; i-- > 0;) {
        size_t from = begin + n * i / pieces / PARALLEL_CUT * PARALLEL_CUT;
        size_t to = i + 1 < pieces ? begin + n * (i + 1) / pieces / PARALLEL_CUT * PARALLEL_CUT : end;
        b->ranges[b->count++] = (FloatRange){from, to};
    }
}

/* starts (n), ascending from 0: where groups of parameters begin whose gradients become final together, the last
   group first. Small neighbours share a bucket, except that the first group, final last, keeps to itself. */
static inline ParallelBuckets parallel_buckets(const size_t *starts, int n, size_t floats) {
    ParallelBuckets b = {.ranges =
                             check_malloc(((size_t)n + floats / PARALLEL_MOST + 1) * 2 * sizeof *b.ranges)};
    size_t end = floats;
    for (int i = n - 1; i >= 0; i--) {
        if (i > 1 && end - starts[i] < PARALLEL_LEAST) continue;
        parallel_buckets_add(&b, starts[i], end);
        end = starts[i];
    }
    for (int i = 0; i < b.count / 2; i++) {
        FloatRange swap = b.ranges[i];
        b.ranges[i] = b.ranges[b.count - 1 - i], b.ranges[b.count - 1 - i] = swap;
    }
    return b;
}

static inline void parallel_buckets_free(ParallelBuckets *b) { free(b->ranges); }

/* Its slices in order, one of each bucket (some may be empty); a single owner has one range, everything. free() them. */
static inline FloatRange *parallel_owned(const ParallelBuckets *b, int owner, int owners, int *count) {
    FloatRange *owned = check_malloc((size_t)b->count * sizeof *owned);
    *count = owners == 1 ? 1 : b->count;
    for (int i = 0; i < *count; i++) owned[i] = parallel_slice(b->ranges[i], owner, owners);
    if (owners == 1) owned[0] = (FloatRange){0, b->ranges[b->count - 1].end};
    return owned;
}

#ifdef HAVE_MPI

/* ---- start, end, small sums ---- */

static struct {
    int rank, ranks, threads; /* threads: the support for them that MPI provides */
    char host[MPI_MAX_PROCESSOR_NAME];
    int host_number;    /* 0: that of rank 0; others in the order of their first ranks */
    atomic_int *spoken; /* shared by the ranks of a host: whether one of them has named an error */
    MPI_Win window;     /* where it lies */
} parallel_job = {.ranks = 1};

static inline int parallel_rank(void) { return parallel_job.rank; }
static inline int parallel_ranks(void) { return parallel_job.ranks; }
static inline const char *parallel_host(void) { return parallel_job.host; }

static void parallel_end_job(int code) {
    if (parallel_job.ranks > 1) MPI_Abort(MPI_COMM_WORLD, code);
}

static inline void parallel_collect(void *all, const void *own, size_t n) {
    if (parallel_job.ranks > 1)
        MPI_Allgather(own, (int)n, MPI_BYTE, all, (int)n, MPI_BYTE, MPI_COMM_WORLD);
    else
        memcpy(all, own, n);
}

/* Not shortened by signals: launchers send one to those they are about to end. */
static void parallel_sleep(double seconds) {
    struct timespec left = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

/* What goes wrong mostly goes wrong on all ranks at once, and one message says it. Of a host's ranks the first speaks;
   other hosts let that of rank 0 speak before them, and those between. Whoever speaks ends the job. */
static void parallel_let_others_speak(void) {
    if (atomic_exchange(parallel_job.spoken, 1)) {
        parallel_sleep(10);
        parallel_end_job(1);
    }
    if (parallel_job.host_number > 0)
        parallel_sleep(0.5 + 0.5 * (parallel_job.host_number < 7 ? parallel_job.host_number : 7));
}

/* Which of the hosts this is. */
static void parallel_number_hosts(void) {
    const size_t ranks = (size_t)parallel_job.ranks;
    char(*hosts)[MPI_MAX_PROCESSOR_NAME] = check_malloc(ranks * sizeof *hosts);
    parallel_collect(hosts, parallel_job.host, sizeof *hosts);
    for (int r = 0; r < parallel_job.ranks && strcmp(hosts[r], parallel_job.host) != 0; r++) {
        int before = 0; /* of this host, among the ranks before r */
        for (int k = 0; k < r; k++) before += strcmp(hosts[k], hosts[r]) == 0;
        parallel_job.host_number += before == 0;
    }
    free(hosts);
}

/* parallel_job.spoken: memory that the ranks of a host share, and that outlives any of them. */
static void parallel_share_spoken(void) {
    MPI_Comm on_host;
    MPI_Aint size;
    int rank, unit;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &on_host);
    MPI_Comm_rank(on_host, &rank);
    MPI_Win_allocate_shared(rank == 0 ? sizeof *parallel_job.spoken : 0, 1, MPI_INFO_NULL, on_host,
                            &parallel_job.spoken, &parallel_job.window);
    MPI_Win_shared_query(parallel_job.window, 0, &size, &unit, &parallel_job.spoken);
    if (rank == 0) atomic_store(parallel_job.spoken, 0);
    MPI_Barrier(on_host);
    MPI_Comm_free(&on_host);
}

static inline void parallel_start(int *argc, char ***argv) {
    /* Without a launcher there is one rank, and MPI's own start-up, a good part of a second, is not needed. */
    if (!program_launched()) return;
    int length;
    MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &parallel_job.threads);
    MPI_Comm_rank(MPI_COMM_WORLD, &parallel_job.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &parallel_job.ranks);
    MPI_Get_processor_name(parallel_job.host, &length);
    const char *size = getenv("OMPI_COMM_WORLD_SIZE");
    if (parallel_job.ranks == 1 && size && atoi(size) > 1)
        die("the launcher started %s ranks, but this program's MPI sees one; use the mpirun of the MPI it "
            "was built with",
            size);
    if (parallel_job.ranks == 1) return;
    snprintf(check_hooks.prefix, sizeof check_hooks.prefix, "rank %d on %.100s: ", parallel_job.rank,
             parallel_job.host);
    parallel_number_hosts();
    parallel_share_spoken();
    check_hooks.before_error = parallel_let_others_speak;
    check_hooks.end_job = parallel_end_job;
}

static inline void parallel_finish(void) {
    int initialized;
    MPI_Initialized(&initialized);
    if (parallel_job.spoken) MPI_Win_free(&parallel_job.window);
    if (initialized) MPI_Finalize();
}

static inline void parallel_barrier(void) {
    if (parallel_job.ranks > 1) MPI_Barrier(MPI_COMM_WORLD);
}

static inline double parallel_sum_double(double x) {
    if (parallel_job.ranks == 1) return x;
    double *all = check_malloc((size_t)parallel_job.ranks * sizeof *all), sum = 0;
    parallel_collect(all, &x, sizeof x);
    for (int r = 0; r < parallel_job.ranks; r++) sum += all[r]; /* in one order, whatever MPI would choose */
    free(all);
    return sum;
}

static inline bool parallel_any(bool flag) { return parallel_sum_double(flag) > 0; }

/* ---- the exchange ---- */

enum { EXCHANGE_SLOTS = 4 }; /* buckets on their way at once */
typedef enum { EXCHANGE_SUM, EXCHANGE_SHARE } ExchangeKind;

typedef struct {
    ExchangeKind kind;
    float *x; /* all parameters or their gradients */
    FloatRange bucket;
} ExchangeOrder;

typedef struct {
    ExchangeOrder order;
    bool busy;
    float *received;       /* (ranks - 1, slice): contributions of the others; bfloat16 takes half of it */
    uint16_t *rounded;     /* (bucket): what the others get; only with bf16 */
    MPI_Request *requests; /* (2 (ranks - 1)) */
    int request_count;
} ExchangeSlot;

static struct {
    const ParallelBuckets *buckets;
    bool bf16, threaded, ending;
    MPI_Comm comm;
    pthread_t thread;
    pthread_mutex_t lock; /* of everything here, and of MPI while orders are under way */
    pthread_cond_t work, done;
    ExchangeSlot slots[EXCHANGE_SLOTS];
    ExchangeOrder *orders;           /* (2 buckets) of this phase, carried out in this order on every rank */
    int ordered, started, finished;  /* of them */
    float *summing;                  /* gradients between reduce_scatter_begin and parallel_wait, else NULL */
    int not_final;                   /* buckets before this one wait for reduce_scatter_ready */
    double since, under_way, waited; /* seconds: when the first of the orders under way began; sums */
} exchange;

static inline double parallel_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* To nearest, ties to even; a NaN stays one. */
static inline uint16_t parallel_round(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

/* Messages of an order: to and from every other rank, the next one first, so that no rank is everybody's first. */
static void exchange_start(ExchangeSlot *s, const ExchangeOrder *order) {
    const int rank = parallel_job.rank, ranks = parallel_job.ranks;
    const bool sums = order->kind == EXCHANGE_SUM, half = sums && exchange.bf16;
    const FloatRange own = parallel_slice(order->bucket, rank, ranks);
    const size_t width = half ? sizeof(uint16_t) : sizeof(float), begin = order->bucket.begin;
    s->order = *order, s->busy = true, s->request_count = 0;
    if (half)
        for (size_t i = 0; i < order->bucket.end - begin; i++)
            s->rounded[i] = parallel_round(order->x[begin + i]);
    for (int k = 1; k < ranks; k++) {
        const int from = (rank + ranks - k) % ranks;
        const FloatRange theirs = parallel_slice(order->bucket, from, ranks), in = sums ? own : theirs;
        const size_t n = in.end - in.begin, place = (size_t)(from < rank ? from : from - 1);
        void *to = sums ? (void *)((char *)s->received + place * n * width) : (void *)(order->x + in.begin);
        if (n)
            MPI_Irecv(to, (int)(n * width), MPI_BYTE, from, (int)order->kind, exchange.comm,
                      &s->requests[s->request_count++]);
    }
    for (int k = 1; k < ranks; k++) {
        const int to = (rank + k) % ranks;
        const FloatRange theirs = parallel_slice(order->bucket, to, ranks), out = sums ? theirs : own;
        const size_t n = out.end - out.begin;
        const void *from =
            half ? (const void *)(s->rounded + (out.begin - begin)) : (const void *)(order->x + out.begin);
        if (n)
            MPI_Isend(from, (int)(n * width), MPI_BYTE, to, (int)order->kind, exchange.comm,
                      &s->requests[s->request_count++]);
    }
}

/* All contributions to the own slice are here: adds them in the order of the ranks. */
static void exchange_add(const ExchangeSlot *s) {
    enum { BLOCK = 1024 };
    const int rank = parallel_job.rank, ranks = parallel_job.ranks;
    const FloatRange own = parallel_slice(s->order.bucket, rank, ranks);
    const size_t n = own.end - own.begin;
    float *x = s->order.x + own.begin, sum[BLOCK];
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t count = n - at < BLOCK ? n - at : BLOCK;
        for (size_t i = 0; i < count; i++) sum[i] = 0;
        for (int r = 0; r < ranks; r++) {
            const size_t place = (size_t)(r < rank ? r : r - 1) * n + at;
            if (r != rank && exchange.bf16) {
                const uint16_t *from = (const uint16_t *)s->received + place;
                for (size_t i = 0; i < count; i++) {
                    uint32_t bits = (uint32_t)from[i] << 16;
                    float value;
                    memcpy(&value, &bits, sizeof value);
                    sum[i] += value;
                }
            } else {
                const float *from = r == rank ? x + at : s->received + place;
                for (size_t i = 0; i < count; i++) sum[i] += from[i];
            }
        }
        memcpy(x + at, sum, count * sizeof *sum);
    }
}

/* Starts what can be started and ends what has arrived, under the lock; true when there was anything to do. */
static bool exchange_advance(void) {
    bool moved = false;
    for (int i = 0; i < EXCHANGE_SLOTS; i++) {
        ExchangeSlot *s = &exchange.slots[(exchange.finished + i) % EXCHANGE_SLOTS];
        int arrived = 0;
        if (!s->busy) continue;
        MPI_Testall(s->request_count, s->requests, &arrived, MPI_STATUSES_IGNORE);
        if (!arrived || i) continue; /* ended in order: slots are used in turn */
        if (s->order.kind == EXCHANGE_SUM) exchange_add(s);
        s->busy = false, moved = true;
        if (++exchange.finished == exchange.ordered) {
            exchange.under_way += parallel_seconds() - exchange.since;
            pthread_cond_broadcast(&exchange.done);
        }
        i = -1;
    }
    while (exchange.started < exchange.ordered && exchange.started < exchange.finished + EXCHANGE_SLOTS) {
        exchange_start(&exchange.slots[exchange.started % EXCHANGE_SLOTS],
                       &exchange.orders[exchange.started]);
        exchange.started++, moved = true;
    }
    return moved;
}

/* The thread: MPI moves messages only while somebody calls it. Between two looks it sleeps, so that it takes next to
   nothing from the threads that compute. */
static void *exchange_thread(void *unused) {
    const struct timespec pause = {0, 50000};
    machine_unpin_thread();
    pthread_mutex_lock(&exchange.lock);
    while (!exchange.ending) {
        if (exchange.finished == exchange.ordered) {
            pthread_cond_wait(&exchange.work, &exchange.lock);
        } else if (!exchange_advance()) {
            pthread_mutex_unlock(&exchange.lock);
            nanosleep(&pause, NULL);
            pthread_mutex_lock(&exchange.lock);
        }
    }
    pthread_mutex_unlock(&exchange.lock);
    return unused;
}

static size_t exchange_largest(const ParallelBuckets *buckets) {
    size_t largest = 0;
    for (int i = 0; i < buckets->count; i++) {
        size_t n = buckets->ranges[i].end - buckets->ranges[i].begin;
        largest = n > largest ? n : largest;
    }
    return largest;
}

/* Numbers that the others contribute to a slice, at most. */
static size_t exchange_received(size_t largest) {
    const size_t ranks = (size_t)parallel_job.ranks;
    return (ranks - 1) * (largest / ranks + 2 * PARALLEL_ALIGN);
}

static inline size_t parallel_buffer_floats(const ParallelBuckets *buckets, bool bf16) {
    if (parallel_job.ranks == 1) return 0;
    const size_t largest = exchange_largest(buckets), received = exchange_received(largest);
    return EXCHANGE_SLOTS * (bf16 ? (received + largest) / 2 : received);
}

static inline void parallel_open(const ParallelBuckets *buckets, bool bf16, bool thread) {
    const size_t ranks = (size_t)parallel_job.ranks, largest = exchange_largest(buckets);
    if (ranks == 1) return;
    exchange.buckets = buckets, exchange.bf16 = bf16, exchange.ending = false;
    exchange.orders = check_malloc(2 * (size_t)buckets->count * sizeof *exchange.orders);
    for (int i = 0; i < EXCHANGE_SLOTS; i++) {
        ExchangeSlot *s = &exchange.slots[i];
        s->received = check_malloc(exchange_received(largest) * (bf16 ? sizeof(uint16_t) : sizeof(float)));
        if (bf16) s->rounded = check_malloc(largest * sizeof *s->rounded);
        s->requests = check_malloc(2 * ranks * sizeof *s->requests);
    }
    MPI_Comm_dup(MPI_COMM_WORLD, &exchange.comm);
    pthread_mutex_init(&exchange.lock, NULL);
    pthread_cond_init(&exchange.work, NULL);
    pthread_cond_init(&exchange.done, NULL);
    exchange.threaded = thread && parallel_job.threads >= MPI_THREAD_SERIALIZED;
    if (!exchange.threaded) return;
    sigset_t all, before; /* signals are the main thread's */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    exchange.threaded = pthread_create(&exchange.thread, NULL, exchange_thread, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static inline void parallel_close(void) {
    if (!exchange.orders) return;
    pthread_mutex_lock(&exchange.lock);
    exchange.ending = true;
    pthread_cond_signal(&exchange.work);
    pthread_mutex_unlock(&exchange.lock);
    if (exchange.threaded) pthread_join(exchange.thread, NULL);
    for (int i = 0; i < EXCHANGE_SLOTS; i++) {
        ExchangeSlot *s = &exchange.slots[i];
        free(s->received), free(s->rounded), free(s->requests);
        *s = (ExchangeSlot){0};
    }
    free(exchange.orders);
    exchange.orders = NULL;
    MPI_Comm_free(&exchange.comm);
}

static inline void parallel_progress(void) {
    if (!exchange.orders || exchange.threaded || exchange.finished == exchange.ordered) return;
    const double start = parallel_seconds();
    while (exchange_advance()) {}
    exchange.waited += parallel_seconds() - start; /* the step does not go on meanwhile */
}

static void exchange_order(ExchangeKind kind, float *x, int bucket) {
    pthread_mutex_lock(&exchange.lock);
    if (exchange.finished == exchange.ordered) exchange.since = parallel_seconds();
    exchange.orders[exchange.ordered++] = (ExchangeOrder){kind, x, exchange.buckets->ranges[bucket]};
    pthread_cond_signal(&exchange.work);
    pthread_mutex_unlock(&exchange.lock);
    parallel_progress();
}

static inline void reduce_scatter_begin(float *gradients) {
    if (parallel_job.ranks == 1) return;
    exchange.summing = gradients;
    exchange.not_final = exchange.buckets->count;
}

static inline void reduce_scatter_ready(size_t begin) {
    while (exchange.summing && exchange.not_final > 0 &&
           exchange.buckets->ranges[exchange.not_final - 1].begin >= begin)
        exchange_order(EXCHANGE_SUM, exchange.summing, --exchange.not_final);
}

static inline void all_gather(float *x, int bucket) {
    if (parallel_job.ranks > 1) exchange_order(EXCHANGE_SHARE, x, bucket);
}

static inline void parallel_wait(void) {
    if (parallel_job.ranks == 1) return;
    const double start = parallel_seconds();
    pthread_mutex_lock(&exchange.lock);
    while (exchange.finished < exchange.ordered) {
        if (exchange.threaded)
            pthread_cond_wait(&exchange.done, &exchange.lock);
        else
            exchange_advance();
    }
    exchange.ordered = exchange.started = exchange.finished = 0;
    exchange.summing = NULL;
    pthread_mutex_unlock(&exchange.lock);
    exchange.waited += parallel_seconds() - start;
}

static inline double parallel_hidden(void) {
    double hidden = exchange.under_way > 0 ? 1 - exchange.waited / exchange.under_way : NAN;
    exchange.under_way = exchange.waited = 0;
    return hidden < 0 ? 0 : hidden;
}

#else

static inline int parallel_rank(void) { return 0; }
static inline int parallel_ranks(void) { return 1; }
static inline const char *parallel_host(void) { return ""; }
static inline void parallel_start(int *argc, char ***argv) {
    (void)argc, (void)argv;
    const char *size = getenv("OMPI_COMM_WORLD_SIZE");
    if (!size) size = getenv("PMI_SIZE");
    if (size && atoi(size) > 1)
        die("started as one of %s ranks, but built without MPI, so each would train alone; install an MPI "
            "with mpicc "
            "and run make again",
            size);
}
static inline void parallel_finish(void) {}
static inline void parallel_barrier(void) {}
static inline double parallel_sum_double(double x) { return x; }
static inline bool parallel_any(bool flag) { return flag; }
static inline void parallel_collect(void *all, const void *own, size_t n) { memcpy(all, own, n); }
static inline void parallel_open(const ParallelBuckets *buckets, bool bf16, bool thread) {
    (void)buckets, (void)bf16, (void)thread;
}
static inline size_t parallel_buffer_floats(const ParallelBuckets *buckets, bool bf16) {
    (void)buckets, (void)bf16;
    return 0;
}
static inline void parallel_close(void) {}
static inline void parallel_progress(void) {}
static inline void reduce_scatter_begin(float *gradients) { (void)gradients; }
static inline void reduce_scatter_ready(size_t begin) { (void)begin; }
static inline void all_gather(float *x, int bucket) { (void)x, (void)bucket; }
static inline void parallel_wait(void) {}
static inline double parallel_hidden(void) { return NAN; }

#endif
#endif
