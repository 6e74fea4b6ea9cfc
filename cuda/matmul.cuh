/* matmul.cuh: the three matrix products of a linear layer through cuBLASLt; in the emulator, plain loops on the host.

   matmul_forward(out, residual, x, w, N, K, M, stream)          out (N, M) = x (N, K) w^T [+ residual], w (M, K)
   matmul_backward_input(dx, dout, w, N, K, M, stream)           dx (N, K) = dout (N, M) w
   matmul_backward_weight(dw, dout, x, N, K, M, add, stream)     dw (M, K) = or, with `add`, += dout^T x, float32
   matmul_gelu_forward(hidden, up, x, w, N, K, M, stream)        hidden (N, M) = gelu(x w^T), up (N, M) = x w^T for backward
   matmul_gelu_backward_input(dup, up, dout, w, N, K, M, stream) dup (N, K) = (dout w) gelu'(up), hidden's product being
                                                                 the forward whose input it is
   matmul_has_gelu(K, M)                                         whether there are these two, for bf16
   Operands are float or bf16, both of one type; results float or bf16; every sum is float32. Adding the residual is
   the product's epilogue, as gelu is: no kernel of its own, and its argument is the sum before it is rounded. residual may
   not be out; NULL adds nothing. */
#ifndef CUDA_MATMUL_CUH
#define CUDA_MATMUL_CUH

#include "device.h"

#ifdef __CUDACC__
#include <cublasLt.h>
#include <vector>

static inline void cublas_check_at(cublasStatus_t status, const char *call, const char *file, int line) {
    if (status != CUBLAS_STATUS_SUCCESS)
        check_die(file, line, "%s: %s", call, cublasLtGetStatusString(status));
}
#define cublas_check(call) cublas_check_at(call, #call, __FILE__, __LINE__)

template <typename S> cudaDataType_t cuda_type();
template <> inline cudaDataType_t cuda_type<float>() { return CUDA_R_32F; }
template <> inline cudaDataType_t cuda_type<bf16>() { return CUDA_R_16BF; }

/* Column by column, as cuBLAS counts: D (m, n) = op(A) op(B) + beta C, sums over k. The leading dimensions are those of
   matrices without gaps. */
struct MatmulShape {
    int64_t m, n, k;
    int transpose_a, transpose_b;
    cudaDataType_t in, out;
    cublasLtEpilogue_t epilogue;
    uint32_t alignment; /* of all pointers, 256 at most: cuBLASLt may choose by it */
    bool operator==(const MatmulShape &s) const {
        return m == s.m && n == s.n && k == s.k && transpose_a == s.transpose_a &&
               transpose_b == s.transpose_b && in == s.in && out == s.out && epilogue == s.epilogue &&
               alignment == s.alignment;
    }
};

struct MatmulPlan { /* what cuBLASLt chose for a shape: asked once */
    MatmulShape shape;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algorithm;
};

struct MatmulState {
    enum { WORKSPACE = 64 << 20 };
    cublasLtHandle_t handle;
    void *workspace;
    std::vector<MatmulPlan> plans;
};

static inline MatmulState *matmul_state() {
    static MatmulState *state;
    if (!state) {
        state = new MatmulState();
        cublas_check(cublasLtCreate(&state->handle));
        state->workspace = device_malloc(MatmulState::WORKSPACE);
    }
    return state;
}

/* The other matrix (m, n) of gelu's epilogues, of D's type: the argument of gelu, which forward writes and backward reads. */
static inline void matmul_set_gelu(cublasLtMatmulDesc_t operation, const MatmulShape &s, void *up) {
    cublas_check(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &s.epilogue,
                                                sizeof s.epilogue));
    cublas_check(
        cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &s.m, sizeof s.m));
    cublas_check(
        cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &up, sizeof up));
}

static inline MatmulPlan matmul_plan(const MatmulShape &s, void *up) {
    MatmulState *state = matmul_state();
    MatmulPlan p;
    p.shape = s;
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
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    const size_t workspace = MatmulState::WORKSPACE;
    cublas_check(cublasLtMatmulPreferenceCreate(&preference));
    cublas_check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                      &workspace, sizeof workspace));
    /* A sum over k that is cut into parts: they stay float32 until they are added, in a step of its own. */
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    cublas_check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                      &reductions, sizeof reductions));
    const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (cublasLtMatmulPreferenceAttributes_t attribute : alignments)
        cublas_check(
            cublasLtMatmulPreferenceSetAttribute(preference, attribute, &s.alignment, sizeof s.alignment));
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(state->handle, p.operation, p.a, p.b, p.d,
                                                                 p.d, preference, 1, &result, &found);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) cublas_check(status);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || found == 0)
        die("cuBLASLt knows no product of %lld x %lld x %lld%s; sizes that are multiples of 8 are safe",
            (long long)s.m, (long long)s.n, (long long)s.k, up ? " with gelu" : "");
    p.algorithm = result.algo;
    cublas_check(cublasLtMatmulPreferenceDestroy(preference));
    state->plans.push_back(p);
    return p;
}

/* up: of the epilogue, which is gelu's; NULL without one. name: for launch_hook. */
template <typename In, typename Out>
void matmul_run(const char *name, Out *d, const Out *c, const In *a, int transpose_a, const In *b,
                int transpose_b, int64_t m, int64_t n, int64_t k, cudaStream_t stream,
                cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT, Out *up = nullptr) {
    MatmulState *state = matmul_state();
    const uintptr_t pointers =
        (uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)d | (uintptr_t)up | 256;
    const uint32_t alignment = (uint32_t)(pointers & (~pointers + 1)); /* the lowest bit that is set */
    const MatmulShape s = {m,        n,        k, transpose_a, transpose_b, cuda_type<In>(), cuda_type<Out>(),
                           epilogue, alignment};
    const MatmulPlan *plan = nullptr;
    /* training's plans are the first; sampling adds some for each length of its text */
    for (size_t i = 0; i < state->plans.size() && !plan; i++)
        if (state->plans[i].shape == s) plan = &state->plans[i];
    const MatmulPlan p = plan ? *plan : matmul_plan(s, up);
    if (up) matmul_set_gelu(p.operation, s, up);
    const float alpha = 1, beta = c ? 1 : 0;
    cublas_check(cublasLtMatmul(state->handle, p.operation, &alpha, a, p.a, b, p.b, &beta, c ? c : d, p.d, d,
                                p.d, &p.algorithm, state->workspace, MatmulState::WORKSPACE, stream));
    if (launch_hook) launch_hook(name, stream);
}

/* Row by row is column by column of the transpose: out^T (M, N) = w (M, K) x^T, and so on. */
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

#include "layers.cuh"

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
/* The same of dout (N, M) w, for the result (N, K). */
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
inline void host_product_done(const char *name, int64_t results, cudaStream_t stream) {
    emulate::pass(stream, (double)results);
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

/* What cuBLASLt asks of the other matrix of these epilogues; it says no more than "not supported". */
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

/* Leading dimensions are multiples of 8 in all matrices: what these epilogues ask, and tensor cores. */
static inline bool matmul_has_gelu(int64_t K, int64_t M) { return K % 8 == 0 && M % 8 == 0; }

#endif
