/* matmul.cuh: the three matrix products of a linear layer through cuBLASLt; in the emulator, plain loops on the host.

   matmul_forward(out, residual, x, w, N, K, M, stream)          out (N, M) = x (N, K) w^T [+ residual], w (M, K)
   matmul_backward_input(dx, dout, w, N, K, M, stream)           dx (N, K) = dout (N, M) w
   matmul_backward_weight(dw, dout, x, N, K, M, stream)          dw (M, K) += dout^T x, float32
   Operands are float or bf16, both of one type; results float or bf16; every sum is float32. Adding the residual is
   the product's epilogue: no kernel of its own. residual may not be out; NULL adds nothing. */
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
    uint32_t alignment; /* of all pointers, 256 at most: cuBLASLt may choose by it */
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

static inline MatmulPlan matmul_plan(const MatmulShape &s) {
    MatmulState *state = matmul_state();
    MatmulPlan p;
    p.shape = s;
    const cublasOperation_t a = s.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                            b = s.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublas_check(cublasLtMatmulDescCreate(&p.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    cublas_check(cublasLtMatmulDescSetAttribute(p.operation, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a));
    cublas_check(cublasLtMatmulDescSetAttribute(p.operation, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b));
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
    const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (cublasLtMatmulPreferenceAttributes_t attribute : alignments)
        cublas_check(
            cublasLtMatmulPreferenceSetAttribute(preference, attribute, &s.alignment, sizeof s.alignment));
    cublas_check(cublasLtMatmulAlgoGetHeuristic(state->handle, p.operation, p.a, p.b, p.d, p.d, preference, 1,
                                                &result, &found));
    if (found == 0)
        die("cuBLASLt knows no product of %lld x %lld x %lld; sizes that are multiples of 8 are safe",
            (long long)s.m, (long long)s.n, (long long)s.k);
    p.algorithm = result.algo;
    cublas_check(cublasLtMatmulPreferenceDestroy(preference));
    state->plans.push_back(p);
    return p;
}

template <typename In, typename Out>
void matmul_run(Out *d, const Out *c, const In *a, int transpose_a, const In *b, int transpose_b, int64_t m,
                int64_t n, int64_t k, cudaStream_t stream) {
    MatmulState *state = matmul_state();
    const uintptr_t pointers = (uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)d | 256;
    const uint32_t alignment = (uint32_t)(pointers & (~pointers + 1)); /* the lowest bit that is set */
    const MatmulShape s = {m, n, k, transpose_a, transpose_b, cuda_type<In>(), cuda_type<Out>(), alignment};
    const MatmulPlan *plan = nullptr;
    for (const MatmulPlan &p : state->plans)
        if (p.shape.m == m && p.shape.n == n && p.shape.k == k && p.shape.transpose_a == transpose_a &&
            p.shape.transpose_b == transpose_b && p.shape.in == s.in && p.shape.out == s.out &&
            p.shape.alignment == alignment)
            plan = &p;
    const MatmulPlan p = plan ? *plan : matmul_plan(s);
    const float alpha = 1, beta = c ? 1 : 0;
    cublas_check(cublasLtMatmul(state->handle, p.operation, &alpha, a, p.a, b, p.b, &beta, c ? c : d, p.d, d,
                                p.d, &p.algorithm, state->workspace, MatmulState::WORKSPACE, stream));
}

/* Row by row is column by column of the transpose: out^T (M, N) = w (M, K) x^T, and so on. */
template <typename Out, typename In>
void matmul_forward(Out *out, const Out *residual, const In *x, const In *w, int64_t N, int64_t K, int64_t M,
                    cudaStream_t stream) {
    matmul_run(out, residual, w, 1, x, 0, M, N, K, stream);
}
template <typename Out, typename In>
void matmul_backward_input(Out *dx, const In *dout, const In *w, int64_t N, int64_t K, int64_t M,
                           cudaStream_t stream) {
    matmul_run(dx, (const Out *)nullptr, w, 0, dout, 0, K, N, M, stream);
}
template <typename In>
void matmul_backward_weight(float *dw, const In *dout, const In *x, int64_t N, int64_t K, int64_t M,
                            cudaStream_t stream) {
    matmul_run(dw, (const float *)dw, x, 0, dout, 1, K, M, N, stream);
}

#else

template <typename S> inline std::vector<float> host_matrix(const S *x, int64_t n) {
    std::vector<float> y((size_t)n);
    for (int64_t i = 0; i < n; i++) y[(size_t)i] = to_float(x[i]);
    return y;
}

template <typename Out, typename In>
void matmul_forward(Out *out, const Out *residual, const In *x, const In *w, int64_t N, int64_t K, int64_t M,
                    cudaStream_t) {
    const std::vector<float> a = host_matrix(x, N * K), b = host_matrix(w, M * K);
    for (int64_t n = 0; n < N; n++)
        for (int64_t m = 0; m < M; m++) {
            float sum = 0;
            for (int64_t k = 0; k < K; k++) sum += a[(size_t)(n * K + k)] * b[(size_t)(m * K + k)];
            out[n * M + m] = from_float<Out>(sum + (residual ? to_float(residual[n * M + m]) : 0.0f));
        }
}
template <typename Out, typename In>
void matmul_backward_input(Out *dx, const In *dout, const In *w, int64_t N, int64_t K, int64_t M,
                           cudaStream_t) {
    const std::vector<float> g = host_matrix(dout, N * M), b = host_matrix(w, M * K);
    std::vector<float> row((size_t)K);
    for (int64_t n = 0; n < N; n++) {
        for (int64_t k = 0; k < K; k++) row[(size_t)k] = 0;
        for (int64_t m = 0; m < M; m++)
            for (int64_t k = 0; k < K; k++) row[(size_t)k] += g[(size_t)(n * M + m)] * b[(size_t)(m * K + k)];
        for (int64_t k = 0; k < K; k++) dx[n * K + k] = from_float<Out>(row[(size_t)k]);
    }
}
template <typename In>
void matmul_backward_weight(float *dw, const In *dout, const In *x, int64_t N, int64_t K, int64_t M,
                            cudaStream_t) {
    const std::vector<float> g = host_matrix(dout, N * M), a = host_matrix(x, N * K);
    for (int64_t n = 0; n < N; n++)
        for (int64_t m = 0; m < M; m++)
            for (int64_t k = 0; k < K; k++) dw[m * K + k] += g[(size_t)(n * M + m)] * a[(size_t)(n * K + k)];
}

#endif
#endif
