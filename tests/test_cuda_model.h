/* Tests of cuda/model.cuh alone, for errors that whole runs (test_cuda_train.h) would not show: gradients that count as
   zero although their memory does not hold zeros. */
#ifndef TESTS_TEST_CUDA_MODEL_H
#define TESTS_TEST_CUDA_MODEL_H

#include "../cuda/model.cuh"
#include "test_cuda.h"

enum { MODEL_TEST_B = 2, MODEL_TEST_T = 37, MODEL_TEST_V = 64 };

/* A model of two layers on the GPU, with random weights. Its loss takes 64 tokens at a time. */
template <typename S> struct TestModel {
    std::vector<DeviceLayer> at;
    Floats rope;
    GpuModel<S> *m;
    explicit TestModel(bool learned_positions) {
        DeviceModel c = DeviceModel();
        c.layers = 2, c.heads = 2, c.head_dim = 32, c.embd = 24, c.mlp_hidden = 40;
        c.seq_len = MODEL_TEST_T, c.vocab_size = MODEL_TEST_V, c.batch = MODEL_TEST_B;
        c.attn = ATTENTION_LASER, c.bf16 = is_bf16((S *)nullptr), c.position = -1;
        const int64_t C = c.embd, A = (int64_t)c.heads * c.head_dim, F = c.mlp_hidden;
        auto take = [&](int64_t n) { return (c.count += n) - n; };
        c.embed = take(c.vocab_size * C);
        if (learned_positions) c.position = take(c.seq_len * C);
        for (int l = 0; l < c.layers; l++) {
            DeviceLayer layer;
            layer.attn_norm = take(C), layer.qkv = take(3 * A * C), layer.o = take(A * C);
            layer.mlp_norm = take(C), layer.up = take(F * C), layer.down = take(F * C);
            at.push_back(layer);
        }
        c.final_norm = take(C), c.moments = c.count, c.at = at.data();
        for (int i = 0; i < c.seq_len * c.head_dim; i++)
            rope.push_back(i % 2 ? sinf((float)i) : cosf(1.0f + (float)i));
        c.rope_cos_sin = learned_positions ? nullptr : rope.data();
        m = model_open<S>(c, 0);
        m->logits_least = m->logits_most = 64 * MODEL_TEST_V;
        const Floats weights = normal_floats((size_t)c.count, 0.2, 1);
        copy_to_device(m->weights, weights.data(), weights.size() * sizeof(float), 0);
        model_round_weights(m);
    }
    TestModel(const TestModel &) = delete;
    TestModel &operator=(const TestModel &) = delete;
    ~TestModel() { model_close(m); }

    void forward_and_loss(int micro_step, int T, float scale) {
        std::vector<int32_t> tokens((size_t)(MODEL_TEST_B * T + 1));
        for (size_t i = 0; i < tokens.size(); i++)
            tokens[i] = (int32_t)(rng_bits((uint64_t)micro_step, RNG_STREAM_TEST, i) % MODEL_TEST_V);
        model_forward(m, tokens.data(), MODEL_TEST_B, T);
        model_loss(m, tokens.data() + 1, MODEL_TEST_B * T, scale);
    }
    /* Fills the memory of the gradients with NaN. */
    void poison() {
        const Floats nans((size_t)m->c.count, NAN);
        copy_to_device(m->gradients, nans.data(), nans.size() * sizeof(float), 0);
        device_wait(0);
    }
    Floats gradients() {
        Floats g((size_t)m->c.count);
        model_settle_gradients(m);
        copy_to_host(g.data(), m->gradients, g.size() * sizeof(float), 0);
        return g;
    }
};

/* The gradients of two micro-steps, with a validation between them; the first has T tokens a sequence. If `marked`, the
   gradients at the start are NaN in memory and only marked as zero (embed_is_zero, others_are_zero). */
template <typename S> static Floats model_test_step(bool learned_positions, int T, bool marked) {
    TestModel<S> test(learned_positions);
    if (marked) test.poison(), model_zero_gradients(test.m);
    test.forward_and_loss(1, T, 0.01f);
    model_backward(test.m, MODEL_TEST_B, T);
    test.forward_and_loss(2, MODEL_TEST_T, 0);
    test.forward_and_loss(3, MODEL_TEST_T, 0.01f);
    model_backward(test.m, MODEL_TEST_B, MODEL_TEST_T);
    return test.gradients();
}

template <typename S> static void model_test_first_writers(bool learned_positions, int T) {
    const Floats want = model_test_step<S>(learned_positions, T, false),
                 got = model_test_step<S>(learned_positions, T, true);
    size_t differ = 0, nonzero = 0;
    for (size_t i = 0; i < want.size(); i++) differ += !(got[i] == want[i]), nonzero += want[i] != 0;
    CHECK(differ == 0 && nonzero > want.size() / 2,
          "%s, %d tokens: %zu of %zu gradients differ from those that were added to zeros; %zu are not 0",
          type_name<S>(), T, differ, want.size(), nonzero);
}

/* The first micro-step of a step writes all gradients instead of adding to those of the step before. */
static void test_cuda_model_writes_first_gradients(void) {
    for (bool learned : {false, true})
        for (int T = MODEL_TEST_T; T > 30; T -= 5)
            model_test_first_writers<float>(learned, T), model_test_first_writers<bf16>(learned, T);
}

/* Gradients that are read before backward has written them are zero; the loss writes that of embed. */
static void test_cuda_model_reads_zero_gradients(void) {
    TestModel<float> test(true);
    test.poison(), model_zero_gradients(test.m);
    const double before = model_gradient_squares(test.m);
    CHECK(before == 0, "gradients marked as zero have squares of %g", before);
    test.poison(), model_zero_gradients(test.m);
    test.forward_and_loss(1, MODEL_TEST_T, 0.01f);
    double of_embed = 0;
    const double all = model_gradient_squares(test.m);
    const Floats g = test.gradients();
    for (int i = 0; i < MODEL_TEST_V * test.m->c.embd; i++) of_embed += (double)g[(size_t)i] * g[(size_t)i];
    CHECK(of_embed > 0 && fabs(all - of_embed) <= 1e-12 * all,
          "after the loss: squares of %g, expected embed's %g alone", all, of_embed);
}

#define CUDA_MODEL_TESTS(TEST) TEST(cuda_model_writes_first_gradients) TEST(cuda_model_reads_zero_gradients)

#endif
