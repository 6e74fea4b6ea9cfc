/* exchange.h: sums gradients over all ranks and sends new weights to them, bucket by bucket (buckets.h), while the step
   goes on computing. cuda/exchange.cuh does the same between GPUs. With one rank, or without MPI, nothing happens here.

   Two collective operations move the buckets:
     reduce-scatter   rank r gets slice r of the bucket, summed over all ranks
     all-gather       every rank gets the slices of all other ranks, so that it has the whole bucket
   In a reduce-scatter every rank sends its numbers of slice r to rank r, which adds them in float32, in the order of
   the ranks. So the bits of a sum depend on the number of ranks, but never on which message comes first. Over a step a
   rank sends and receives (ranks - 1) / ranks of the gradients and as much of the weights.

   All ranks call these functions in the same order, always from the thread that called parallel_start:
   exchange_open(&buckets, bf16, thread)   allocates buffers. buckets stay the caller's and must outlive the exchange.
                                bf16: gradients are rounded to bfloat16 before they are sent. thread: a second
                                thread moves the messages, if this MPI allows calls from another thread. Without it,
                                they move only inside exchange_progress and exchange_wait
   exchange_close()             ends the thread and frees the buffers
   exchange_buffer_floats(&buckets, bf16)   the size of these buffers in floats
   exchange_progress()          moves messages when there is no thread for it. The step must call it often, for example
                                between its layers
   reduce_scatter_begin(g)      backward is about to make gradients final, from the end of g (all parameters) to its
                                start
   reduce_scatter_ready(begin)  the gradients from element `begin` of g on are final. Starts to reduce-scatter their
                                buckets. These gradients must not be written before exchange_wait has returned. Then the
                                slices of this rank hold the sums; the other slices still hold its own gradients. Does
                                nothing before reduce_scatter_begin, so that backward can call it in every micro-step
   all_gather(x, bucket)        starts to all-gather bucket number `bucket` of x (all parameters)
   exchange_wait()              returns when all that has been started is done
   exchange_comm_overlap()      of the time that messages took since the last call, the fraction in which the step did
                                not wait for them, 0 to 1; NaN: there were no messages */
#ifndef GPT_DIST_EXCHANGE_H
#define GPT_DIST_EXCHANGE_H

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include "../base/check.h"
#include "../base/clock.h"
#include "../base/threads.h"
#include "../math/array.h"
#include "buckets.h"
#include "parallel.h"

#ifdef HAVE_MPI

enum { EXCHANGE_SLOTS = 4 }; /* so many operations are under way at the same time */
typedef enum { EXCHANGE_REDUCE_SCATTER, EXCHANGE_ALL_GATHER } ExchangeKind;

/* One operation on one bucket. */
typedef struct {
    ExchangeKind kind;
    float *x; /* all weights or all gradients */
    FloatRange bucket;
} ExchangeOrder;

/* The messages of an operation that is under way. */
typedef struct {
    ExchangeOrder order;
    bool busy;
    /* (ranks - 1, floats of a slice) with a reduce-scatter: this rank's slice as the other ranks sent it, in the order
       of the ranks; in bfloat16 the numbers take half of this memory. */
    float *received;
    uint16_t *rounded;     /* (floats of a bucket) with bf16: this rank's gradients as it sends them */
    MPI_Request *requests; /* (2 (ranks - 1)) */
    int request_count;
} ExchangeSlot;

static struct {
    const ParameterBuckets *buckets;
    bool bf16, threaded, ending;
    MPI_Comm comm;
    pthread_t thread;
    pthread_mutex_t lock; /* guards the orders, their counts, the slots, and the calls of MPI */
    pthread_cond_t work;  /* signalled when there are new orders, or when the thread is to end */
    pthread_cond_t done;  /* signalled when all orders are finished */
    ExchangeSlot slots[EXCHANGE_SLOTS]; /* order number i uses slot i modulo EXCHANGE_SLOTS */
    ExchangeOrder
        *orders; /* (2 * buckets->count) those since the last exchange_wait, the same on every rank */
    int ordered; /* how many orders there are */
    int started, finished; /* how many of them have been started, and how many are finished */
    float *gradients;      /* between reduce_scatter_begin and exchange_wait: those to be summed; else NULL */
    int not_final;         /* the buckets before this one wait for reduce_scatter_ready */
    double since;          /* when the first of the unfinished orders was given, in seconds (clock.h) */
    /* Since the last exchange_comm_overlap, in seconds: how long there were unfinished orders, and how long the step
       was in exchange_wait and exchange_progress. */
    double under_way, waited;
} exchange;

/* Starts to receive the messages of an order. Rank k receives from rank k - 1 first, then from k - 2, and so on: if all
   began with rank 0, that rank would be the bottleneck. */
static void exchange_receive(ExchangeSlot *s, const ExchangeOrder *order, size_t width) {
    const int rank = parallel_job.rank, ranks = parallel_job.ranks;
    const bool sums = order->kind == EXCHANGE_REDUCE_SCATTER;
    for (int k = 1; k < ranks; k++) {
        const int from = (rank + ranks - k) % ranks;
        const FloatRange in = bucket_slice(order->bucket, sums ? rank : from, ranks);
        const size_t n = in.end - in.begin, place = (size_t)(from < rank ? from : from - 1);
        void *to = sums ? (void *)((char *)s->received + place * n * width) : (void *)(order->x + in.begin);
        if (n)
            MPI_Irecv(to, (int)(n * width), MPI_BYTE, from, (int)order->kind, exchange.comm,
                      &s->requests[s->request_count++]);
    }
}

/* Starts to send the messages of an order, to the next rank first. `rounded` is NULL or the bucket in bfloat16. */
static void exchange_send(ExchangeSlot *s, const ExchangeOrder *order, const uint16_t *rounded,
                          size_t width) {
    const int rank = parallel_job.rank, ranks = parallel_job.ranks;
    const bool sums = order->kind == EXCHANGE_REDUCE_SCATTER;
    for (int k = 1; k < ranks; k++) {
        const int to = (rank + k) % ranks;
        const FloatRange out = bucket_slice(order->bucket, sums ? to : rank, ranks);
        const size_t n = out.end - out.begin;
        const void *from = rounded ? (const void *)(rounded + (out.begin - order->bucket.begin))
                                   : (const void *)(order->x + out.begin);
        if (n)
            MPI_Isend(from, (int)(n * width), MPI_BYTE, to, (int)order->kind, exchange.comm,
                      &s->requests[s->request_count++]);
    }
}

static void exchange_start(ExchangeSlot *s, const ExchangeOrder *order) {
    const bool half = order->kind == EXCHANGE_REDUCE_SCATTER && exchange.bf16;
    const size_t width = half ? sizeof(uint16_t) : sizeof(float), begin = order->bucket.begin;
    s->order = *order, s->busy = true, s->request_count = 0;
    if (half)
        for (size_t i = 0; i < order->bucket.end - begin; i++)
            s->rounded[i] = bf16_from_float(order->x[begin + i]);
    exchange_receive(s, order, width);
    exchange_send(s, order, half ? s->rounded : NULL, width);
}

/* The messages of a reduce-scatter are here: this rank's slice = the sum over all ranks, added in their order. */
static void exchange_add(const ExchangeSlot *s) {
    enum { BLOCK = 1024 };
    const int rank = parallel_job.rank, ranks = parallel_job.ranks;
    const FloatRange slice = bucket_slice(s->order.bucket, rank, ranks);
    const size_t n = slice.end - slice.begin;
    float *x = s->order.x + slice.begin, sum[BLOCK];
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t count = n - at < BLOCK ? n - at : BLOCK;
        for (size_t i = 0; i < count; i++) sum[i] = 0;
        for (int r = 0; r < ranks; r++) {
            const size_t place = (size_t)(r < rank ? r : r - 1) * n + at;
            if (r != rank && exchange.bf16) {
                const uint16_t *from = (const uint16_t *)s->received + place;
                for (size_t i = 0; i < count; i++) sum[i] += float_from_bf16(from[i]);
            } else {
                const float *from = r == rank ? x + at : s->received + place;
                for (size_t i = 0; i < count; i++) sum[i] += from[i];
            }
        }
        memcpy(x + at, sum, count * sizeof *sum);
    }
}

/* Finishes the orders whose messages have arrived, and starts the next ones in the slots that become free. Returns true
   when it has done any of this. The caller holds the lock, if there is a thread. */
static bool exchange_advance(void) {
    bool moved = false;
    for (int i = 0; i < EXCHANGE_SLOTS; i++) {
        ExchangeSlot *s = &exchange.slots[(exchange.finished + i) % EXCHANGE_SLOTS];
        int arrived = 0;
        if (!s->busy) continue;
        MPI_Testall(s->request_count, s->requests, &arrived, MPI_STATUSES_IGNORE);
        /* Orders are finished in the order in which they were given: order i must free slot i modulo EXCHANGE_SLOTS. */
        if (!arrived || i > 0) continue;
        if (s->order.kind == EXCHANGE_REDUCE_SCATTER) exchange_add(s);
        s->busy = false, moved = true;
        if (++exchange.finished == exchange.ordered) {
            exchange.under_way += seconds_now() - exchange.since;
            pthread_cond_broadcast(&exchange.done);
        }
        i = -1; /* the next one is the oldest now */
    }
    while (exchange.started < exchange.ordered && exchange.started < exchange.finished + EXCHANGE_SLOTS) {
        exchange_start(&exchange.slots[exchange.started % EXCHANGE_SLOTS],
                       &exchange.orders[exchange.started]);
        exchange.started++, moved = true;
    }
    return moved;
}

/* MPI moves messages only while the program is inside one of its functions, so this thread calls them. When nothing has
   arrived it sleeps for 50 microseconds, so that it takes almost no time from the threads that compute. */
static void *exchange_thread(void *unused) {
    const struct timespec pause = {0, 50000};
    thread_unpin();
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

/* The floats of the largest bucket. */
static size_t exchange_largest(const ParameterBuckets *buckets) {
    size_t largest = 0;
    for (int i = 0; i < buckets->count; i++) {
        size_t n = buckets->ranges[i].end - buckets->ranges[i].begin;
        largest = n > largest ? n : largest;
    }
    return largest;
}

/* An upper bound for the numbers that this rank receives in the reduce-scatter of a bucket of `largest` floats. Slices
   begin at multiples of SLICE_ALIGN, so one may be longer than an equal share. */
static size_t exchange_received(size_t largest) {
    const size_t ranks = (size_t)parallel_job.ranks;
    return (ranks - 1) * (largest / ranks + 2 * SLICE_ALIGN);
}

static inline size_t exchange_buffer_floats(const ParameterBuckets *buckets, bool bf16) {
    if (parallel_job.ranks == 1) return 0;
    const size_t largest = exchange_largest(buckets), received = exchange_received(largest);
    return EXCHANGE_SLOTS * (bf16 ? (received + largest) / 2 : received);
}

static inline void exchange_open(const ParameterBuckets *buckets, bool bf16, bool thread) {
    const size_t ranks = (size_t)parallel_job.ranks, largest = exchange_largest(buckets);
    if (ranks == 1) return;
    exchange.buckets = buckets, exchange.bf16 = bf16, exchange.ending = false;
    exchange.orders = check_calloc(2 * (size_t)buckets->count * sizeof *exchange.orders);
    for (int i = 0; i < EXCHANGE_SLOTS; i++) {
        ExchangeSlot *s = &exchange.slots[i];
        s->received = check_calloc(exchange_received(largest) * (bf16 ? sizeof(uint16_t) : sizeof(float)));
        if (bf16) s->rounded = check_calloc(largest * sizeof *s->rounded);
        s->requests = check_calloc(2 * ranks * sizeof *s->requests);
    }
    MPI_Comm_dup(MPI_COMM_WORLD, &exchange.comm);
    pthread_mutex_init(&exchange.lock, NULL);
    pthread_cond_init(&exchange.work, NULL);
    pthread_cond_init(&exchange.done, NULL);
    exchange.threaded = thread && parallel_job.thread_support >= MPI_THREAD_SERIALIZED;
    if (!exchange.threaded) return;
    sigset_t all, before; /* only the main thread is to receive signals, so the new one blocks all */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    exchange.threaded = pthread_create(&exchange.thread, NULL, exchange_thread, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static inline void exchange_close(void) {
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

static inline void exchange_progress(void) {
    if (!exchange.orders || exchange.threaded || exchange.finished == exchange.ordered) return;
    const double start = seconds_now();
    while (exchange_advance()) {}
    exchange.waited += seconds_now() - start; /* the step does not compute meanwhile */
}

/* Appends an order. */
static void exchange_order(ExchangeKind kind, float *x, int bucket) {
    pthread_mutex_lock(&exchange.lock);
    if (exchange.finished == exchange.ordered) exchange.since = seconds_now();
    exchange.orders[exchange.ordered++] = (ExchangeOrder){kind, x, exchange.buckets->ranges[bucket]};
    pthread_cond_signal(&exchange.work);
    pthread_mutex_unlock(&exchange.lock);
    exchange_progress(); /* starts its messages now */
}

static inline void reduce_scatter_begin(float *gradients) {
    if (parallel_job.ranks == 1) return;
    exchange.gradients = gradients;
    exchange.not_final = exchange.buckets->count;
}

static inline void reduce_scatter_ready(size_t begin) {
    while (exchange.gradients && exchange.not_final > 0 &&
           exchange.buckets->ranges[exchange.not_final - 1].begin >= begin)
        exchange_order(EXCHANGE_REDUCE_SCATTER, exchange.gradients, --exchange.not_final);
}

static inline void all_gather(float *x, int bucket) {
    if (parallel_job.ranks > 1) exchange_order(EXCHANGE_ALL_GATHER, x, bucket);
}

static inline void exchange_wait(void) {
    if (parallel_job.ranks == 1) return;
    const double start = seconds_now();
    pthread_mutex_lock(&exchange.lock);
    while (exchange.finished < exchange.ordered) {
        if (exchange.threaded)
            pthread_cond_wait(&exchange.done, &exchange.lock);
        else
            exchange_advance();
    }
    exchange.ordered = exchange.started = exchange.finished = 0;
    exchange.gradients = NULL;
    pthread_mutex_unlock(&exchange.lock);
    exchange.waited += seconds_now() - start;
}

static inline double exchange_comm_overlap(void) {
    double overlap = exchange.under_way > 0 ? 1 - exchange.waited / exchange.under_way : NAN;
    exchange.under_way = exchange.waited = 0;
    return overlap < 0 ? 0 : overlap;
}

#else

static inline void exchange_open(const ParameterBuckets *buckets, bool bf16, bool thread) {
    (void)buckets, (void)bf16, (void)thread;
}
static inline size_t exchange_buffer_floats(const ParameterBuckets *buckets, bool bf16) {
    (void)buckets, (void)bf16;
    return 0;
}
static inline void exchange_close(void) {}
static inline void exchange_progress(void) {}
static inline void reduce_scatter_begin(float *gradients) { (void)gradients; }
static inline void reduce_scatter_ready(size_t begin) { (void)begin; }
static inline void all_gather(float *x, int bucket) { (void)x, (void)bucket; }
static inline void exchange_wait(void) {}
static inline double exchange_comm_overlap(void) { return NAN; }

#endif
#endif
