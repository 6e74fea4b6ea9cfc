/* matmul.cuh: the three matrix products of a linear layer through cuBLASLt; in the emulator, plain loops on the host.

   matmul_forward(out, residual, x, w, N, K, M, stream)          out (N, M) = x (N, K) w^T [+ residual], w (M, K)
   matmul_backward_input(dx, dout, w, N, K, M, stream)           dx (N, K) = dout (N, M) w
   matmul_backward_weight(dw, dout, x, N, K, M, add, stream)     dw (M, K) = or, with `add`, += dout^T x, float32
   matmul_gelu_forward(hidden, up, x, w, N, K, M, stream)        hidden (N, M) = gelu(x w^T), up (N, M) = x w^T for
                                                                 backward
   matmul_gelu_backward_input(dup, up, dout, w, N, K, M, stream) dup (N, K) = (dout w) gelu'(up): backward of the
                                                                 product whose input is hidden
   matmul_has_gelu(K, M)                                         whether the two products with gelu exist for these
                                                                 sizes, with bf16
   Operands are float or bf16, both of one type; results are float or bf16; every sum is float32. The residual is
   added by the product's epilogue, and gelu is computed there: neither has a kernel of its own, and both take the sum
   before it is rounded. residual must not be out; NULL adds nothing.

   When a shape of some size comes for the first time, cuBLASLt's algorithms for it are timed, and the fastest of
   those that give the same bits is used from then on (choice.cuh):
   matmul_tuning                        when to do so; a caller whose products will not come again switches it off
   matmul_timings()                     what the timing found; nothing in the emulator
   matmul_count_calls()                 counts the calls of each product from here on */
#ifndef CUDA_MATMUL_CUH
#define CUDA_MATMUL_CUH

#include "choice.cuh"
#include "layers.cuh"

struct MatmulTuning {
    bool wanted;
    double least_flops; /* a smaller product is not timed: it cannot save as much as the timing costs */
    size_t
        spare; /* bytes that must stay free during the timing: CUDA needs memory when it first loads a kernel */
};
inline MatmulTuning matmul_tuning = {true, 1e9, (size_t)256 << 20};

#ifdef __CUDACC__
#include <cublasLt.h>

/* cublas_check(call) ends the program if a call of cuBLASLt fails. */
static inline void cublas_check_at(cublasStatus_t status, const char *call, const char *file, int line) {
    if (status != CUBLAS_STATUS_SUCCESS)
        check_die(file, line, "%s: %s", call, cublasLtGetStatusString(status));
}
#define cublas_check(call) cublas_check_at(call, #call, __FILE__, __LINE__)

template <typename S> cudaDataType_t cuda_type();
template <> inline cudaDataType_t cuda_type<float>() { return CUDA_R_32F; }
template <> inline cudaDataType_t cuda_type<bf16>() { return CUDA_R_16BF; }

/* A product in cuBLAS's column-major terms: D (m, n) = op(A) op(B) + beta C, with sums over k. The matrices have no
   gaps, so their sizes give their leading dimensions. */
enum MatmulAddend { ADDS_NOTHING, ADDS_C, ADDS_D /* C is D: D += op(A) op(B) */ };
struct MatmulShape {
    int64_t m, n, k;
    int transpose_a, transpose_b;
    cudaDataType_t in, out;
    cublasLtEpilogue_t epilogue;
    MatmulAddend addend;
    uint32_t
        alignment; /* in bytes, of all pointers, at most 256; cuBLASLt's list of algorithms may depend on it */
    bool operator==(const MatmulShape &s) const {
        return m == s.m && n == s.n && k == s.k && transpose_a == s.transpose_a &&
               transpose_b == s.transpose_b && in == s.in && out == s.out && epilogue == s.epilogue &&
               addend == s.addend && alignment == s.alignment;
    }
};

struct MatmulPlan { /* the algorithms that cuBLASLt lists for a shape, and the one in use */
    MatmulShape shape;
    const char *name;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, d;
    std::vector<cublasLtMatmulAlgo_t> candidates;
    bool tried; /* whether timing them has been tried */
    Choice choice;
    int64_t calls;
};

struct MatmulState {
    enum { WORKSPACE = 64 << 20 };
    cublasLtHandle_t handle;
    void *workspace;
    std::vector<MatmulPlan> plans;
    double seconds; /* that all timing has taken */
};

/* Returns the state; the first call creates it. */
static inline MatmulState *matmul_state() {
    static MatmulState *state;
    if (!state) {
        state = new MatmulState();
        cublas_check(cublasLtCreate(&state->handle));
        state->workspace = device_malloc(MatmulState::WORKSPACE);
    }
    return state;
}

/* Sets the epilogue of a product with gelu and the epilogue's own matrix `up` (m, n), of D's type: the argument of
   gelu, which forward writes and backward reads. */
static inline void matmul_set_gelu(cublasLtMatmulDesc_t operation, const MatmulShape &s, void *up) {
    cublas_check(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &s.epilogue,
                                                sizeof s.epilogue));
    cublas_check(
        cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &s.m, sizeof s.m));
    cublas_check(
        cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &up, sizeof up));
}

/* Adds to the plan's candidates the first `most` algorithms that cuBLASLt lists for a workspace of so many bytes. Its
   list begins with those that it expects to be fast. */
static inline void matmul_candidates(MatmulPlan *p, size_t workspace, int most) {
    cublasLtMatmulPreference_t preference;
    cublas_check(cublasLtMatmulPreferenceCreate(&preference));
    cublas_check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                      &workspace, sizeof workspace));
    /* Where an algorithm cuts the sum over k into parts, these must stay float32 until a separate step adds them. */
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    cublas_check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                      &reductions, sizeof reductions));
    const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (cublasLtMatmulPreferenceAttributes_t attribute : alignments)
        cublas_check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &p->shape.alignment,
                                                          sizeof p->shape.alignment));
    std::vector<cublasLtMatmulHeuristicResult_t> results((size_t)most);
    int found = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(matmul_state()->handle, p->operation, p->a, p->b, p->d, p->d,
                                       preference, most, results.data(), &found);
    cublas_check(cublasLtMatmulPreferenceDestroy(preference));
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return;
    cublas_check(status);
    for (int i = 0; i < found; i++) {
        const cublasLtMatmulAlgo_t &algorithm = results[(size_t)i].algo;
        bool known = results[(size_t)i].state != CUBLAS_STATUS_SUCCESS;
        for (const cublasLtMatmulAlgo_t &other : p->candidates)
            known = known || memcmp(&other, &algorithm, sizeof other) == 0;
        if (!known) p->candidates.push_back(algorithm);
    }
}

/* The number of parts into which the algorithm cuts the sum over k; 1: the sum is whole. Zero or less: cuBLASLt
   decides (as with stream-K). */
static inline int matmul_splits(const cublasLtMatmulAlgo_t &algorithm) {
    int32_t splits = 1;
    size_t got;
    cublas_check(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits,
                                                      sizeof splits, &got));
    return splits;
}

/* Makes a plan for a shape: cuBLASLt's algorithms for it, with the reference as the choice. */
static inline MatmulPlan *matmul_plan(const char *name, const MatmulShape &s, void *up) {
    /* For a workspace of no bytes cuBLASLt lists some algorithms that it does not list otherwise and that are
       sometimes faster. */
    enum { WITH_WORKSPACE = 16, WITHOUT = 8 };
    MatmulState *state = matmul_state();
    MatmulPlan p = MatmulPlan();
    p.shape = s, p.name = name;
    const cublasOperation_t a = s.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                            b = s.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublas_check(cublasLtMatmulDescCreate(&p.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    cublas_check(cublasLtMatmulDescSetAttribute(p.operation, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a));
    cublas_check(cublasLtMatmulDescSetAttribute(p.operation, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b));
    if (up) matmul_set_gelu(p.operation, s, up);
    const int64_t a_rows = s.transpose_a ? s.k : s.m, a_columns = s.transpose_a ? s.m : s.k;
    const int64_t b_rows = s.transpose_b ? s.n : s.k, b_columns = s.transpose_b ? s.k : s.n;
    cublas_check(cublasLtMatrixLayoutCreate(&p.a, s.in, (uint64_t)a_rows, (uint64_t)a_columns, a_rows));
    cublas_check(cublasLtMatrixLayoutCreate(&p.b, s.in, (uint64_t)b_rows, (uint64_t)b_columns, b_rows));
    cublas_check(cublasLtMatrixLayoutCreate(&p.d, s.out, (uint64_t)s.m, (uint64_t)s.n, s.m));
    matmul_candidates(&p, MatmulState::WORKSPACE, WITH_WORKSPACE);
    matmul_candidates(&p, 0, WITHOUT);
    if (p.candidates.empty())
        die("cuBLASLt knows no product of %lld x %lld x %lld%s; sizes that are multiples of 8 are safe",
            (long long)s.m, (long long)s.n, (long long)s.k, up ? " with gelu" : "");
    /* The reference is the first algorithm whose sums over k are whole, since most candidates share its bits. Its
       place in the list is the same in every run. cuBLASLt makes the list without knowing whether the product adds to
       something, so the sums have the same bits in both cases. */
    p.choice = Choice{0, 0, NAN, NAN};
    for (size_t i = p.candidates.size(); i-- > 0;)
        if (matmul_splits(p.candidates[i]) == 1) p.choice.candidate = (int)i;
    state->plans.push_back(p);
    return &state->plans.back();
}

/* Starts the product with one of the plan's candidates. */
static inline cublasStatus_t matmul_launch(const MatmulPlan &p, int candidate, const void *a, const void *b,
                                           const void *c, void *d, cudaStream_t stream) {
    MatmulState *state = matmul_state();
    const float alpha = 1, beta = p.shape.addend == ADDS_NOTHING ? 0 : 1;
    return cublasLtMatmul(state->handle, p.operation, &alpha, a, p.a, b, p.b, &beta, c ? c : d, p.d, d, p.d,
                          &p.candidates[(size_t)candidate], state->workspace, MatmulState::WORKSPACE, stream);
}

/* x (n) = different numbers between -size and size. */
static inline void matmul_fill(void *x, int64_t n, cudaDataType_t type, float size, uint32_t seed,
                               cudaStream_t stream) {
    if (type == CUDA_R_16BF)
        fill((bf16 *)x, n, size, seed, stream);
    else
        fill((float *)x, n, size, seed, stream);
}

/* The matrices with which a plan is timed. They are not the model's own, which must keep their numbers, but have the
   same alignment, since an algorithm may depend on it. All lie in one piece of memory; `memory` is NULL where there
   is not enough. */
struct MatmulScratch {
    char *memory;
    uint64_t *partial;        /* scratch of fingerprint() */
    char *a, *b, *c, *d, *up; /* c is d where the product adds to d, and NULL where it adds nothing */
    size_t d_bytes;
};

/* Allocates the matrices for a shape, if enough memory is free. */
static inline MatmulScratch matmul_scratch(const MatmulShape &s) {
    MatmulScratch x = MatmulScratch();
    const size_t in = s.in == CUDA_R_16BF ? sizeof(bf16) : sizeof(float),
                 out = s.out == CUDA_R_16BF ? sizeof(bf16) : sizeof(float);
    x.d_bytes = (size_t)(s.m * s.n) * out;
    size_t used = 0;
    auto place = [&](size_t bytes,
                     size_t offset) { /* where it begins; 256 are the bytes that cudaMalloc aligns to */
                                      const size_t at = used + offset;
                                      used = (at + bytes + 255) / 256 * 256;
                                      return at;
    };
    const size_t offset = s.alignment % 256, partial = place(FINGERPRINT_BLOCKS * sizeof(uint64_t), 0),
                 a = place((size_t)(s.m * s.k) * in, offset), b = place((size_t)(s.n * s.k) * in, offset),
                 d = place(x.d_bytes, offset), c = s.addend == ADDS_C ? place(x.d_bytes, offset) : d,
                 up = s.epilogue == CUBLASLT_EPILOGUE_DEFAULT ? d : place(x.d_bytes, offset);
    size_t free_bytes, all_bytes;
    void *memory = nullptr;
    cuda_check(cudaMemGetInfo(&free_bytes, &all_bytes));
    if (free_bytes < used || free_bytes - used < matmul_tuning.spare) return x;
    if (cudaMalloc(&memory, used) != cudaSuccess) {
        cudaGetLastError(); /* clears the error, which otherwise the next launch would report */
        return x;
    }
    x.memory = (char *)memory, x.partial = (uint64_t *)(void *)(x.memory + partial);
    x.a = x.memory + a, x.b = x.memory + b, x.d = x.memory + d, x.up = x.memory + up;
    x.c = s.addend == ADDS_NOTHING ? nullptr : x.memory + c;
    return x;
}

#define MATMUL_TURN 5e-3 /* seconds for which a candidate computes its product before the next one does */

/* Chooses one of the plan's candidates; the operands are bf16. The candidates compute the product in turns, each
   again and again for some milliseconds, without a pause between the turns. The reason: a GPU that computes products
   without a pause reaches its power limit and lowers its clock rate, as it does in training, and then the algorithm
   that needs the least energy is the fastest. When products were timed one at a time with pauses between them,
   another algorithm won (on an H200, for 8192 x 8192 matrices: one that is 10 % slower in training). The timing takes
   about a quarter of a second for a shape, once in a process, during its first step. */
static inline void matmul_time(MatmulPlan *p, cudaStream_t stream) {
    const double start = seconds_now();
    const MatmulShape &s = p->shape;
    const bool writes_up = s.epilogue == CUBLASLT_EPILOGUE_GELU_AUX;
    void (*const hook)(const char *, cudaStream_t) = launch_hook; /* must not see launches of the timing */
    launch_hook = nullptr;
    device_wait(stream); /* so that nothing else runs on the GPU during the timing */
    const MatmulScratch x = matmul_scratch(s);
    std::vector<cudaEvent_t> events(2 * p->candidates.size());
    for (cudaEvent_t &event : events) event = event_create();
    if (x.memory && s.epilogue != CUBLASLT_EPILOGUE_DEFAULT) matmul_set_gelu(p->operation, s, x.up);
    uint32_t seed = 0;
    auto prepare = [&](int set) {
        if (!x.memory) return false;
        seed = 10 * (uint32_t)set;
        /* The sums are about 1, where gelu is curved; those of the second set cancel. */
        const float mirror = (float)set;
        choice_operand((bf16 *)(void *)x.a, s.m, s.k, s.transpose_a, 1, mirror, seed + 1, stream);
        choice_operand((bf16 *)(void *)x.b, s.n, s.k, !s.transpose_b, 4 / sqrtf((float)s.k), -mirror,
                       seed + 2, stream);
        if (s.addend == ADDS_C) matmul_fill(x.c, s.m * s.n, s.out, 4, seed + 3, stream);
        if (x.up != x.d && !writes_up) matmul_fill(x.up, s.m * s.n, s.out, 4, seed + 4, stream);
        return true;
    };
    auto bits = [&](int i, uint64_t *print) {
        if (s.addend == ADDS_D)
            matmul_fill(x.d, s.m * s.n, s.out, 4, seed + 3, stream);
        else /* NaN, as an algorithm must write all results, and read none where it adds nothing */
            cuda_check(cudaMemsetAsync(x.d, 0xFF, x.d_bytes, stream));
        if (writes_up) cuda_check(cudaMemsetAsync(x.up, 0xFF, x.d_bytes, stream));
        if (matmul_launch(*p, i, x.a, x.b, x.c, x.d, stream) != CUBLAS_STATUS_SUCCESS) {
            cudaGetLastError();
            return false;
        }
        *print = fingerprint(x.partial, x.d, x.d_bytes, stream);
        if (writes_up) *print = 31 * *print + fingerprint(x.partial, x.up, x.d_bytes, stream);
        return true;
    };
    int repeats = 1; /* of the product in one turn; the first round, which is not counted, sets it */
    auto time = [&](const std::vector<int> &which, double *seconds) {
        for (size_t w = 0; w < which.size(); w++) {
            event_record(events[2 * w], stream);
            for (int i = 0; i < repeats; i++)
                cublas_check(matmul_launch(*p, which[w], x.a, x.b, x.c, x.d, stream));
            event_record(events[2 * w + 1], stream);
        }
        device_wait(stream);
        double least = INFINITY;
        for (size_t w = 0; w < which.size(); w++) {
            seconds[w] = event_seconds(events[2 * w], events[2 * w + 1]) / repeats;
            least = fmin(least, seconds[w]);
        }
        if (repeats == 1) repeats = (int)fmin(fmax(MATMUL_TURN / least, 2), 200);
    };
    p->choice = choose_candidate((int)p->candidates.size(), p->choice.candidate, prepare, bits, time);
    p->tried = true;
    device_wait(stream);
    for (cudaEvent_t event : events) event_destroy(event);
    if (x.memory) device_free(x.memory);
    launch_hook = hook;
    matmul_state()->seconds += seconds_now() - start;
}

/* Computes D with the plan's chosen algorithm; a plan that has not been timed yet is timed first where this is worth
   it. up: the matrix of an epilogue with gelu; NULL without gelu. name: for launch_hook. */
template <typename In, typename Out>
void matmul_run(const char *name, Out *d, const Out *c, const In *a, int transpose_a, const In *b,
                int transpose_b, int64_t m, int64_t n, int64_t k, cudaStream_t stream,
                cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT, Out *up = nullptr) {
    MatmulState *state = matmul_state();
    const uintptr_t pointers =
        (uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)d | (uintptr_t)up | 256;
    const uint32_t alignment = (uint32_t)(pointers & (~pointers + 1)); /* the lowest bit that is set */
    const MatmulAddend addend = !c ? ADDS_NOTHING : c == d ? ADDS_D : ADDS_C;
    const MatmulShape s = {
        m, n, k, transpose_a, transpose_b, cuda_type<In>(), cuda_type<Out>(), epilogue, addend, alignment};
    MatmulPlan *p = nullptr;
    /* The plans of training come first in the list; sampling adds some for each length of its text. */
    for (size_t i = 0; i < state->plans.size() && !p; i++)
        if (state->plans[i].shape == s) p = &state->plans[i];
    if (!p) p = matmul_plan(name, s, up);
    /* Products with float32 operands are not timed, since only tests use them. */
    if (!p->tried && matmul_tuning.wanted && s.in == CUDA_R_16BF &&
        2.0 * (double)m * (double)n * (double)k >= matmul_tuning.least_flops)
        matmul_time(p, stream);
    if (up) matmul_set_gelu(p->operation, s, up);
    cublas_check(matmul_launch(*p, p->choice.candidate, a, b, c, d, stream));
    p->calls++;
    if (launch_hook) launch_hook(name, stream);
}

static inline void matmul_count_calls() {
    for (MatmulPlan &p : matmul_state()->plans) p.calls = 0;
}
static inline ProductTimings matmul_timings() {
    ProductTimings all = {{}, matmul_state()->seconds};
    for (const MatmulPlan &p : matmul_state()->plans) {
        const MatmulShape &s = p.shape;
        const char *epilogue = s.epilogue == CUBLASLT_EPILOGUE_GELU_AUX ? "gelu"
                               : s.epilogue == CUBLASLT_EPILOGUE_DGELU  ? "dgelu"
                               : s.addend == ADDS_C                     ? "+ c"
                               : s.addend == ADDS_D                     ? "+="
                                                                        : "";
        if (p.tried)
            all.products.push_back({p.name, epilogue, s.m, s.n, s.k, (int)p.candidates.size(),
                                    matmul_splits(p.candidates[(size_t)p.choice.candidate]), p.calls,
                                    p.choice});
    }
    return all;
}

/* A row-major matrix is, in column-major terms, its transpose. So matmul_forward computes out^T (M, N) = w (M, K)
   x^T, and the other functions likewise. */
template <typename Out, typename In>
void matmul_forward(Out *out, const Out *residual, const In *x, const In *w, int64_t N, int64_t K, int64_t M,
                    cudaStream_t stream) {
    matmul_run(__func__, out, residual, w, 1, x, 0, M, N, K, stream);
}
template <typename Out, typename In>
void matmul_backward_input(Out *dx, const In *dout, const In *w, int64_t N, int64_t K, int64_t M,
                           cudaStream_t stream) {
    matmul_run(__func__, dx, (const Out *)nullptr, w, 0, dout, 0, K, N, M, stream);
}
template <typename In>
void matmul_backward_weight(float *dw, const In *dout, const In *x, int64_t N, int64_t K, int64_t M, bool add,
                            cudaStream_t stream) {
    matmul_run(__func__, dw, add ? (const float *)dw : nullptr, x, 0, dout, 1, K, M, N, stream);
}
template <typename S>
void matmul_gelu_forward(S *hidden, S *up, const S *x, const S *w, int64_t N, int64_t K, int64_t M,
                         cudaStream_t stream) {
    matmul_run(__func__, hidden, (const S *)nullptr, w, 1, x, 0, M, N, K, stream, CUBLASLT_EPILOGUE_GELU_AUX,
               up);
}
template <typename S>
void matmul_gelu_backward_input(S *dup, const S *up, const S *dout, const S *w, int64_t N, int64_t K,
                                int64_t M, cudaStream_t stream) {
    matmul_run(__func__, dup, (const S *)nullptr, w, 0, dout, 0, K, N, M, stream, CUBLASLT_EPILOGUE_DGELU,
               (S *)up);
}

#else

static inline void matmul_count_calls() {}
static inline ProductTimings matmul_timings() { return {{}, 0}; }

/* Returns n elements as float. */
template <typename S> inline std::vector<float> host_matrix(const S *x, int64_t n) {
    std::vector<float> y((size_t)n);
    for (int64_t i = 0; i < n; i++) y[(size_t)i] = to_float(x[i]);
    return y;
}

/* finish(i, sum) takes the sum of x (N, K) w^T for element i of the result (N, M). */
template <typename In, typename Finish>
void host_product(const In *x, const In *w, int64_t N, int64_t K, int64_t M, Finish finish) {
    const std::vector<float> a = host_matrix(x, N * K), b = host_matrix(w, M * K);
    for (int64_t n = 0; n < N; n++)
        for (int64_t m = 0; m < M; m++) {
            float sum = 0;
            for (int64_t k = 0; k < K; k++) sum += a[(size_t)(n * K + k)] * b[(size_t)(m * K + k)];
            finish(n * M + m, sum);
        }
}
/* The same for the product dout (N, M) w, whose result is (N, K). */
template <typename In, typename Finish>
void host_product_of_input(const In *dout, const In *w, int64_t N, int64_t K, int64_t M, Finish finish) {
    const std::vector<float> g = host_matrix(dout, N * M), b = host_matrix(w, M * K);
    std::vector<float> row((size_t)K);
    for (int64_t n = 0; n < N; n++) {
        for (int64_t k = 0; k < K; k++) row[(size_t)k] = 0;
        for (int64_t m = 0; m < M; m++)
            for (int64_t k = 0; k < K; k++) row[(size_t)k] += g[(size_t)(n * M + m)] * b[(size_t)(m * K + k)];
        for (int64_t k = 0; k < K; k++) finish(n * K + k, row[(size_t)k]);
    }
}

/* What an emulated launch of a product does besides: it advances the stream's clock and calls launch_hook. */
inline void host_product_done(const char *name, int64_t results, cudaStream_t stream) {
    emulate::advance_clock(stream, (double)results);
    if (launch_hook) launch_hook(name, stream);
}

template <typename Out, typename In>
void matmul_forward(Out *out, const Out *residual, const In *x, const In *w, int64_t N, int64_t K, int64_t M,
                    cudaStream_t stream) {
    host_product(x, w, N, K, M, [=](int64_t i, float sum) {
        out[i] = from_float<Out>(sum + (residual ? to_float(residual[i]) : 0.0f));
    });
    host_product_done(__func__, N * M, stream);
}
template <typename Out, typename In>
void matmul_backward_input(Out *dx, const In *dout, const In *w, int64_t N, int64_t K, int64_t M,
                           cudaStream_t stream) {
    host_product_of_input(dout, w, N, K, M, [=](int64_t i, float sum) { dx[i] = from_float<Out>(sum); });
    host_product_done(__func__, N * K, stream);
}
template <typename In>
void matmul_backward_weight(float *dw, const In *dout, const In *x, int64_t N, int64_t K, int64_t M, bool add,
                            cudaStream_t stream) {
    for (int64_t i = 0; i < M * K && !add; i++) dw[i] = 0;
    const std::vector<float> g = host_matrix(dout, N * M), a = host_matrix(x, N * K);
    for (int64_t n = 0; n < N; n++)
        for (int64_t m = 0; m < M; m++)
            for (int64_t k = 0; k < K; k++) dw[m * K + k] += g[(size_t)(n * M + m)] * a[(size_t)(n * K + k)];
    host_product_done(__func__, M * K, stream);
}

/* Checks what cuBLASLt requires of `up` in the epilogues with gelu; cuBLASLt itself would report no more than "not
   supported". */
template <typename S> void host_check_gelu(const S *up, int64_t rows) {
    if (rows % 8 != 0 || (uintptr_t)up % 16 != 0)
        die("emulator: a product with gelu: rows of %lld, at %p; expected multiples of 8, at 16 bytes",
            (long long)rows, (const void *)up);
}
template <typename S>
void matmul_gelu_forward(S *hidden, S *up, const S *x, const S *w, int64_t N, int64_t K, int64_t M,
                         cudaStream_t stream) {
    host_check_gelu(up, M);
    host_product(x, w, N, K, M, [=](int64_t i, float sum) {
        up[i] = from_float<S>(sum);
        hidden[i] = from_float<S>(sum * gelu_sigmoid(sum));
    });
    host_product_done(__func__, N * M, stream);
}
template <typename S>
void matmul_gelu_backward_input(S *dup, const S *up, const S *dout, const S *w, int64_t N, int64_t K,
                                int64_t M, cudaStream_t stream) {
    host_check_gelu(up, K);
    host_product_of_input(dout, w, N, K, M, [=](int64_t i, float sum) {
        const float x = to_float(up[i]);
        dup[i] = from_float<S>(sum * gelu_slope(x, gelu_sigmoid(x)));
    });
    host_product_done(__func__, N * K, stream);
}

#endif

/* The peak rate of which MFU is a fraction, in floating-point operations a second: the rate of products of two square
   matrices (n, n) with the reference algorithm, in the fastest of several rows of products. The rows are short, so
   this is the rate of a card that has not yet reached its power limit, as it does in training: a product that is
   repeated for seconds is a tenth slower on an H200. */
template <typename S> double matmul_peak(int64_t n, cudaStream_t stream) {
    enum { ROWS = 4, PRODUCTS = 4 };
    S *x = (S *)device_malloc((size_t)(n * n) * sizeof(S)),
      *y = (S *)device_malloc((size_t)(n * n) * sizeof(S));
    fill(x, n * n, 1, 1, stream);
    const MatmulTuning before = matmul_tuning;
    matmul_tuning.wanted = false;
    double best = 0;
    for (int row = 0; row < ROWS; row++) {
        device_wait(stream);
        const double start = seconds_now();
        for (int i = 0; i < PRODUCTS; i++) matmul_forward(y, (const S *)nullptr, x, x, n, n, n, stream);
        device_wait(stream);
        const double rate = PRODUCTS * 2.0 * (double)n * (double)n * (double)n / (seconds_now() - start);
        if (row > 0) best = fmax(best, rate);
    }
    matmul_tuning = before;
    device_free(x), device_free(y);
    return best;
}

/* All leading dimensions must be multiples of 8: the epilogues with gelu require it, and so do tensor cores. */
static inline bool matmul_has_gelu(int64_t K, int64_t M) { return K % 8 == 0 && M % 8 == 0; }

#endif
