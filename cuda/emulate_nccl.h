/* emulate_nccl.h: the functions of NCCL that collectives.cuh calls, for the emulator. The processes of an MPI job
   exchange the emulated GPU memory through the host's MPI (DeviceJob's collect). So tests run the same source as GPUs
   do.

   Where NCCL would wait for ever, or compute wrong numbers without a message, this dies:
   - ranks do not make the same call with the same count and root
   - buffers overlap in another way than NCCL's "in place" operations allow
   Where NCCL leaves memory undefined, this writes NaN, so that a test notices when it is read. Sums are added in the
   order of the ranks. The calls of a group are carried out one after the other. On the emulator's clock of a stream an
   operation takes one nanosecond for each number. */
#ifndef CUDA_EMULATE_NCCL_H
#define CUDA_EMULATE_NCCL_H

#include "device.h"

typedef int ncclResult_t, ncclDataType_t, ncclRedOp_t;
enum { ncclSuccess, ncclRemoteError = 6, ncclInProgress = 7, ncclFloat = 7, ncclSum = 0 };
struct ncclUniqueId {
    char internal[128];
};
struct EmulatedComm {
    int rank, ranks;
    void (*collect)(void *all, const void *own, size_t n);
};
typedef EmulatedComm *ncclComm_t;

/* How the next communicator of ncclCommInitRank exchanges bytes with the other ranks. */
inline void (*emulated_collect)(void *all, const void *own, size_t n);
/* What ncclCommGetAsyncError returns; tests set it. */
inline ncclResult_t emulated_error;

inline const char *ncclGetErrorString(ncclResult_t) { return "emulated"; }
inline ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    memset(id, 'N', sizeof *id);
    return ncclSuccess;
}
inline ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank) {
    if (id.internal[0] != 'N') die("emulator: rank %d did not get the ncclUniqueId of rank 0", rank);
    *comm = new EmulatedComm{rank, ranks, emulated_collect};
    return ncclSuccess;
}
inline ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    delete comm;
    return ncclSuccess;
}
inline ncclResult_t ncclCommAbort(ncclComm_t comm) { return ncclCommDestroy(comm); }
inline ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t *error) {
    *error = emulated_error;
    return ncclSuccess;
}
inline ncclResult_t ncclGroupStart() { return ncclSuccess; }
inline ncclResult_t ncclGroupEnd() { return ncclSuccess; }

/* Returns (ranks, count): `from` of every rank. Dies when the ranks do not make the same call. */
inline std::vector<float> emulated_collective(const char *name, const float *from, size_t count, int root,
                                              ncclComm_t comm, cudaStream_t stream) {
    struct Call {
        char name[32];
        size_t count;
        int root;
    } own = Call();
    snprintf(own.name, sizeof own.name, "%s", name);
    own.count = count, own.root = root;
    std::vector<Call> calls((size_t)comm->ranks);
    comm->collect(calls.data(), &own, sizeof own);
    for (const Call &call : calls)
        if (memcmp(&call, &own, sizeof own) != 0)
            die("emulator: rank %d makes %s of %zu numbers, root %d, while another makes %s of %zu, root %d",
                comm->rank, name, count, root, call.name, call.count, call.root);
    std::vector<float> all((size_t)comm->ranks * count);
    comm->collect(all.data(), from, count * sizeof(float));
    emulate::advance_clock(stream, (double)count);
    return all;
}

/* Dies when [a, a + n) and [b, b + m) overlap, unless b is where an operation in place has it. */
inline void emulated_check_place(const char *name, const float *a, size_t n, const float *b, size_t m,
                                 const float *in_place) {
    if (b != in_place && a < b + m && b < a + n) die("emulator: %s: buffers overlap, but not in place", name);
}

inline ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t, ncclRedOp_t,
                                      ncclComm_t comm, cudaStream_t stream) {
    const size_t rank = (size_t)comm->rank, ranks = (size_t)comm->ranks, n = ranks * count;
    float *x = (float *)(uintptr_t)from, *sum = (float *)to;
    emulated_check_place("ncclReduceScatter", x, n, sum, count, x + rank * count);
    const std::vector<float> all = emulated_collective("ncclReduceScatter", x, n, -1, comm, stream);
    if (sum == x + rank * count)
        for (size_t i = 0; i < n; i++) x[i] = NAN;
    for (size_t i = 0; i < count; i++) {
        sum[i] = 0;
        for (size_t r = 0; r < ranks; r++) sum[i] += all[r * n + rank * count + i];
    }
    return ncclSuccess;
}

inline ncclResult_t ncclReduce(const void *from, void *to, size_t count, ncclDataType_t, ncclRedOp_t,
                               int root, ncclComm_t comm, cudaStream_t stream) {
    float *sum = (float *)to;
    emulated_check_place("ncclReduce", (const float *)from, count, sum, count, (const float *)from);
    const std::vector<float> all =
        emulated_collective("ncclReduce", (const float *)from, count, root, comm, stream);
    for (size_t i = 0; i < count; i++) {
        sum[i] = comm->rank == root ? 0 : NAN;
        for (size_t r = 0; r < (size_t)comm->ranks; r++) sum[i] += all[r * count + i];
    }
    return ncclSuccess;
}

inline ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t, ncclComm_t comm,
                                  cudaStream_t stream) {
    float *all = (float *)to;
    const size_t n = (size_t)comm->ranks * count;
    emulated_check_place("ncclAllGather", all, n, (const float *)from, count,
                         all + (size_t)comm->rank * count);
    const std::vector<float> got =
        emulated_collective("ncclAllGather", (const float *)from, count, -1, comm, stream);
    for (size_t i = 0; i < n; i++) all[i] = got[i];
    return ncclSuccess;
}

inline ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t, int root,
                                  ncclComm_t comm, cudaStream_t stream) {
    float *copy = (float *)to;
    emulated_check_place("ncclBroadcast", (const float *)from, count, copy, count, (const float *)from);
    const std::vector<float> all =
        emulated_collective("ncclBroadcast", (const float *)from, count, root, comm, stream);
    for (size_t i = 0; i < count; i++) copy[i] = all[(size_t)root * count + i];
    return ncclSuccess;
}

#endif
