/* Tests of the whole GPU trainer (train_gpt.cu) against the CPU trainer (train_gpt.c): the losses and gradient norms
   of each step must be equal, a run that is repeated or resumed must give the same bits, and each program must
   continue the checkpoints of the other. On a GPU the program is train_gptcu, otherwise train_gpt_emulated. */
#ifndef TESTS_TEST_CUDA_TRAIN_H
#define TESTS_TEST_CUDA_TRAIN_H

#include "test_cuda.h"

#ifdef __CUDACC__
#define DEVICE_TRAINER "train_gptcu"
#else
#define DEVICE_TRAINER "build/train_gpt_emulated"
#endif
#define DEVICE_MODEL                                                                                         \
    "--vocab-size=61 --layers=2 --heads=2 --head-dim=32 --embd=24 --mlp-hidden=40 --seq-len=37 --batch=2 "   \
    "--steps=10 --warmup=2 --lr=0.01 --val-every=0 --val-tokens=74 --sample-every=0 --threads=1 "

/* Makes a folder with shards of tokens that a model can partly predict, and returns its path. */
static std::string device_test_data() {
    const std::string folder = test_folder();
    static const char *const names[] = {"train_0.bin", "val_0.bin"};
    for (int i = 0; i < 2; i++) {
        const int32_t n = i ? 500 : 5000;
        int32_t header[256] = {20240520, 1, n};
        std::vector<uint16_t> tokens((size_t)n);
        for (size_t t = 1; t < tokens.size(); t++)
            tokens[t] = (uint16_t)((tokens[t - 1] * 7u + rng_bits(3, RNG_STREAM_TEST, t) % 4) % 61);
        const std::string path = folder + "/" + names[i];
        FILE *file = check_fopen(path.c_str(), "wb", "");
        check_fwrite(header, 1, sizeof header, file, path.c_str());
        check_fwrite(tokens.data(), 2, tokens.size(), file, path.c_str());
        check_fclose(file, path.c_str());
    }
    return folder;
}

/* Returns the number after `key` in each line of a log that has it. */
static Doubles device_test_column(const std::string &path, const char *key) {
    Doubles numbers;
    FILE *file = fopen(path.c_str(), "r");
    char line[2000];
    while (file && fgets(line, sizeof line, file))
        if (const char *found = strstr(line, key)) numbers.push_back(atof(found + strlen(key)));
    if (file) fclose(file);
    return numbers;
}

/* Returns the training loss and the gradient norm of each step in a log. */
static Doubles device_test_log(const std::string &path, size_t steps = 10) {
    const Doubles losses = device_test_column(path, "\"loss\":"),
                  norms = device_test_column(path, "\"grad_norm\":");
    Doubles numbers;
    for (size_t i = 0; i < losses.size() && i < norms.size(); i++)
        numbers.push_back(losses[i]), numbers.push_back(norms[i]);
    CHECK(numbers.size() == 2 * steps, "%zu numbers in %s, expected those of %zu steps", numbers.size(),
          path.c_str(), steps);
    return numbers;
}

/* Runs a program with the output folder DATA/NAME and returns device_test_log of its log. */
static Doubles device_test_run(const char *program, const std::string &data, const char *name,
                               const std::string &arguments, size_t steps = 10) {
    char output[4096];
    const int code =
        test_command(output, sizeof output, "%s/%s " DEVICE_MODEL "--data=%s --out=%s/%s --steps=%zu %s",
                     test_binaries(), program, data.c_str(), data.c_str(), name, steps, arguments.c_str());
    CHECK(code == 0, "%s %s: exit code %d: %s", program, arguments.c_str(), code, output);
    return device_test_log(data + "/" + name + "/log.jsonl", steps);
}

/* Checks that the numbers of two logs differ at most by a factor of 1 + bound. */
static void check_same_curve(const Doubles &got, const Doubles &want, double bound, const std::string &what) {
    for (size_t i = 0; i < got.size() && i < want.size(); i++)
        CHECK(fabs(got[i] - want[i]) <= bound * fabs(want[i]), "%s: %s of step %zu is %.8g, expected %.8g",
              what.c_str(), i % 2 ? "gradient norm" : "loss", i / 2 + 1, got[i], want[i]);
}

/* Checks that the weights and the optimizer's moments that two runs saved at a step have the same bits. */
static void check_same_checkpoints(const std::string &data, const std::string &one, const std::string &other,
                                   const char *step) {
    char output[2000];
    const int code = test_command(
        output, sizeof output, "cd %s && for f in %s/%s/*.safetensors; do cmp $f %s/${f#%s/} || exit 1; done",
        data.c_str(), one.c_str(), step, other.c_str(), one.c_str());
    CHECK(code == 0, "%s", output);
}

/* With bf16 the CPU rounds other intermediate results than the GPU, so the bound is the difference that bf16 itself
   makes. The learning rate is low, so that this difference does not grow in the ten steps. */
static void test_cuda_trainer_matches_cpu_step_by_step(void) {
    static const char *const variants[] = {
        "--attn=standard --dtype=bf16 --lr=0.003",
        "--attn=laser --dtype=bf16 --lr=0.003 --total-batch=296",
        "--attn=laser --laser-shift=sequence --activation=swiglu --pos=learned --dtype=fp32",
        "--attn=standard --activation=relu --pos=sinusoidal --head-dim=20 --dtype=fp32",
#ifndef __CUDACC__
        "--attn=standard --mlp-hidden=44 --dtype=bf16 --lr=0.003", /* without the products with gelu */
#endif
    };
    const std::string data = device_test_data();
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        const Doubles want =
            device_test_run("train_gpt", data, ("cpu" + std::to_string(i)).c_str(), variants[i]);
        const Doubles got =
            device_test_run(DEVICE_TRAINER, data, ("gpu" + std::to_string(i)).c_str(), variants[i]);
        check_same_curve(got, want, strstr(variants[i], "bf16") ? 5e-3 : 2e-5, variants[i]);
    }
}

/* Ten steps in one run, ten steps again, and ten steps in two runs must give the same bits. */
static void test_cuda_trainer_repeats_and_resumes_bit_for_bit(void) {
    const std::string data = device_test_data(), arguments = "--attn=laser --dtype=bf16 --save-every=6";
    device_test_run(DEVICE_TRAINER, data, "whole", arguments);
    device_test_run(DEVICE_TRAINER, data, "again", arguments);
    char output[2000];
    test_command(output, sizeof output, "cp -r %s/again %s/parts && rm -r %s/parts/step-00000010",
                 data.c_str(), data.c_str(), data.c_str());
    device_test_run(DEVICE_TRAINER, data, "parts", arguments + " --resume=auto");
    for (const char *other : {"again", "parts"})
        check_same_checkpoints(data, "whole", other, "step-00000010");
}

/* Six steps on one of CPU and GPU and four on the other must be equal to ten on the CPU. */
static void test_cuda_trainer_shares_checkpoints_with_the_cpu(void) {
    const std::string data = device_test_data(), arguments = "--attn=laser --save-every=6 --dtype=fp32";
    const char *const programs[] = {"train_gpt", DEVICE_TRAINER};
    const Doubles want = device_test_run("train_gpt", data, "whole", arguments);
    for (int first = 0; first < 2; first++) {
        char output[2000], name[32];
        snprintf(name, sizeof name, "moved%d", first);
        device_test_run(programs[first], data, name, arguments);
        const int code = test_command(output, sizeof output, "rm -r %s/%s/step-00000010", data.c_str(), name);
        CHECK(code == 0, "%s", output);
        const Doubles got = device_test_run(programs[1 - first], data, name, arguments + " --resume=auto");
        check_same_curve(got, want, 2e-5, std::string("started by ") + programs[first]);
    }
}

/* scripts/compare_gpu_cpu.sh must find that the curves agree, and that they differ if the GPU trains with another
   activation. The test changes the sizes of the script's model, not its other options. */
static void test_cuda_trainer_is_compared_by_the_script(void) {
    const std::string data = device_test_data();
    for (const char *other : {"", " --activation=relu"}) {
        char output[4000];
        const int code =
            test_command(output, sizeof output,
                         "STEPS=12 CPU_STEPS=6 OUT=%s/out GPU='%s/" DEVICE_TRAINER
                         "%s' CPU=%s/train_gpt scripts/compare_gpu_cpu.sh %s --vocab-size=61 --layers=2 "
                         "--heads=2 --head-dim=32 --embd=24 --mlp-hidden=40 --seq-len=37 --batch=2 "
                         "--total-batch=74 --lr=0.003 --threads=1 --sample-every=0",
                         data.c_str(), test_binaries(), other, test_binaries(), data.c_str());
        CHECK(code == (*other != 0) && strstr(output, *other ? "error: they differ" : "agree: at most"),
              "%s: exit code %d: %s", other, code, output);
    }
}

/* Returns the MiB that a model needs on the GPU, as --dry-run prints them. */
static double device_test_memory(const std::string &arguments) {
    char output[8192];
    const int code = test_command(output, sizeof output, "%s/" DEVICE_TRAINER " " DEVICE_MODEL "--dry-run %s",
                                  test_binaries(), arguments.c_str());
    const char *line = strstr(output, "on the GPU");
    CHECK(code == 0 && line, "exit code %d: %s", code, output);
    return line ? atof(line + strlen("on the GPU")) : 0;
}

/* --recompute must change no bit of the result, and must save memory. */
static void test_cuda_trainer_recomputes_to_the_same_bits(void) {
    static const char *const variants[] = {"--attn=standard --dtype=bf16", "--attn=laser --dtype=bf16",
                                           "--attn=standard --dtype=fp32",
                                           "--attn=laser --dtype=fp32 --activation=swiglu"};
    static const char *const ways[] = {"none", "attention", "block"};
    const std::string data = device_test_data();
    double before = INFINITY;
    for (const char *way : ways) {
        const std::string arguments =
            std::string("--heads=1 --batch=1 --seq-len=20 --val-tokens=1 --recompute=") + way;
        for (int i = 0; i < 4; i++) {
            const std::string run = way + std::to_string(i);
            device_test_run(DEVICE_TRAINER, data, run.c_str(), arguments + " " + variants[i], 3);
            check_same_checkpoints(data, "none" + std::to_string(i), run, "step-00000003");
        }
        const double memory = device_test_memory(arguments + " --layers=12 --seq-len=37 --attn=laser");
        CHECK(memory < before, "%s needs %g MiB, and with less recomputation %g MiB", arguments.c_str(),
              memory, before);
        before = memory;
    }
}

#ifdef TEST_MPI
/* Returns whether so many ranks can exchange data from GPU to GPU. In the emulator they always can. */
static bool device_test_has_gpus(int ranks) {
#if !defined(__CUDACC__)
    return ranks > 0;
#elif defined(HAVE_NCCL)
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess && count >= ranks;
#else
    return ranks == 0;
#endif
}

/* Runs the GPU trainer on so many ranks. Writes what it prints to `output` and returns its exit code. */
static int device_test_mpirun(char *output, size_t size, int ranks, const std::string &data, const char *name,
                              const std::string &arguments) {
    return test_command(output, size,
                        "ASAN_OPTIONS=detect_leaks=0 " /* MPI itself leaks memory */
                        "mpirun -n %d --oversubscribe --allow-run-as-root %s/" DEVICE_TRAINER " " DEVICE_MODEL
                        "--data=%s --out=%s/%s %s",
                        ranks, test_binaries(), data.c_str(), data.c_str(), name, arguments.c_str());
}

/* The same as device_test_run for the GPU trainer on so many ranks. */
static Doubles device_test_ranks(int ranks, const std::string &data, const char *name,
                                 const std::string &arguments, size_t steps = 10) {
    char output[4000];
    const int code = device_test_mpirun(output, sizeof output, ranks, data, name,
                                        arguments + " --steps=" + std::to_string(steps));
    CHECK(code == 0, "%d ranks, %s: exit code %d: %s", ranks, arguments.c_str(), code, output);
    return device_test_log(data + "/" + name + "/log.jsonl", steps);
}

/* Two ranks, each with half of the sequences, must give the losses of one rank, with both kinds of --comm. All slices
   of the gradients have the same size. */
static void test_cuda_trainer_with_two_ranks_matches_one(void) {
    const std::string data = device_test_data(),
                      arguments = "--attn=laser --embd=32 --vocab-size=64 --batch=1 --seq-len=12 "
                                  "--total-batch=48 --val-tokens=1 --dtype=fp32 ";
    const Doubles want = device_test_run("train_gpt", data, "one", arguments, 4);
    for (const char *way : {"--comm=host", "--comm=gpu"})
        if (strcmp(way, "--comm=host") == 0 || device_test_has_gpus(2))
            check_same_curve(device_test_ranks(2, data, way, arguments + way, 4), want, 2e-5, way);
    if (!device_test_has_gpus(2)) return;
    const Doubles overlaps = device_test_column(data + "/--comm=gpu/log.jsonl", "\"comm_overlap\":");
    CHECK(overlaps.size() == 4, "%zu steps have comm_overlap, expected 4", overlaps.size());
    for (double overlap : overlaps) CHECK(overlap > 0 && overlap < 1, "comm_overlap is %g", overlap);
}

/* If a rank fails on the GPU's side of the program, its message names the rank, and all ranks end. */
static void test_cuda_trainer_names_the_rank_that_fails(void) {
    const std::string data = device_test_data();
    char output[20000];
    const int code = device_test_mpirun(output, sizeof output, 2, data, "large",
                                        "--comm=host --layers=1000 --batch=65536 --dtype=bf16");
    const char *line = strstr(output, "error: rank ");
    CHECK(code == 1 && line && strstr(line, "use a smaller --batch (device.h:"), "exit code %d: %s", code,
          line ? line : output);
}

/* With a bucket for each layer and slices of different sizes, three ranks must give the losses of one rank. --zero=0
   (every rank has all moments) must give the same bits as --zero=1. */
static void test_cuda_trainer_divides_odd_buckets(void) {
    const std::string data = device_test_data(),
                      arguments = "--layers=3 --heads=1 --embd=248 --mlp-hidden=504 --batch=1 --seq-len=8 "
                                  "--total-batch=24 --val-tokens=1 --dtype=bf16 ";
    if (!device_test_has_gpus(3)) return test_not_run("it needs three GPUs and NCCL");
    const Doubles want = device_test_run(DEVICE_TRAINER, data, "one", arguments, 2);
    const Doubles got = device_test_ranks(3, data, "three", arguments + "--zero=1", 2);
    check_same_curve(got, want, 1e-4, "three ranks");
    device_test_ranks(3, data, "all", arguments + "--zero=0", 2);
    char output[2000];
    const int code = test_command(output, sizeof output,
                                  "cd %s && cmp three/step-00000002/model.safetensors "
                                  "all/step-00000002/model.safetensors",
                                  data.c_str());
    CHECK(code == 0, "--zero=0 and --zero=1 differ: %s", output);
}

/* Two steps on two ranks, then two steps on three ranks, then two steps on one rank must be equal to six steps on one
   rank. */
static void test_cuda_trainer_resumes_with_other_ranks(void) {
    const std::string data = device_test_data(),
                      arguments =
                          "--heads=1 --batch=1 --seq-len=12 --total-batch=72 --val-tokens=1 --dtype=fp32 "
                          "--save-every=2 --resume=auto ";
    if (!device_test_has_gpus(3)) return test_not_run("it needs three GPUs and NCCL");
    const Doubles want = device_test_run(DEVICE_TRAINER, data, "whole", arguments, 6);
    const int ranks[] = {2, 3, 1};
    for (int part = 0; part < 3; part++) {
        const Doubles got = device_test_ranks(ranks[part], data, "parts", arguments, 6);
        check_same_curve(got, want, 2e-5, std::to_string(ranks[part]) + " ranks");
        char output[2000];
        const int code = test_command(output, sizeof output, "cd %s/parts && rm -r step-00000006%s",
                                      data.c_str(), part ? "" : " step-00000004");
        CHECK(code == 0, "%s", output);
    }
}
#define CUDA_TRAIN_MPI_TESTS(TEST)                                                                           \
    TEST(cuda_trainer_with_two_ranks_matches_one)                                                            \
    TEST(cuda_trainer_names_the_rank_that_fails)                                                             \
    TEST(cuda_trainer_divides_odd_buckets)                                                                   \
    TEST(cuda_trainer_resumes_with_other_ranks)
#else
#define CUDA_TRAIN_MPI_TESTS(TEST)
#endif

#define CUDA_TRAIN_TESTS(TEST)                                                                               \
    TEST(cuda_trainer_matches_cpu_step_by_step)                                                              \
    TEST(cuda_trainer_repeats_and_resumes_bit_for_bit)                                                       \
    TEST(cuda_trainer_shares_checkpoints_with_the_cpu)                                                       \
    TEST(cuda_trainer_recomputes_to_the_same_bits)                                                           \
    TEST(cuda_trainer_is_compared_by_the_script)                                                             \
    CUDA_TRAIN_MPI_TESTS(TEST)

#endif
