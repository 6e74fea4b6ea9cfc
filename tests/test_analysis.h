/* test_analysis.h: tests of the analysis of attention: its numbers against float64 and finite differences, the option
   --analyze-every of the trainer, the program ./analyze, and the section of the report. */
#ifndef TESTS_TEST_ANALYSIS_H
#define TESTS_TEST_ANALYSIS_H

#include "harness.h"
#include "test_model.h"
#include "test_parallel.h"
#include "test_report.h"
#include "test_train.h"

/* ---- the numbers of a head, by other means ---- */

enum { ANALYSIS_T = 12, ANALYSIS_D = 5 };

/* o (D) of a row with scores s (count), by the definition of either kind; v (count, D). */
static void analysis_naive_output(double *o, const double *s, const double *v, int count, int jacobian) {
    double sum = 0;
    for (int j = 0; j < count; j++) sum += exp(s[j]);
    for (int d = 0; d < ANALYSIS_D; d++) {
        double most = -INFINITY, total = 0;
        for (int j = 0; j < count; j++) most = fmax(most, v[j * ANALYSIS_D + d]);
        for (int j = 0; j < count; j++) {
            const double x = v[j * ANALYSIS_D + d];
            total += exp(s[j]) / sum * (jacobian == JACOBIAN_LASER ? exp(x - most) : x);
        }
        o[d] = jacobian == JACOBIAN_LASER ? log(total) + most : total;
    }
}

/* d o_d / d s_j (count, D) of a row, by central differences. */
static void analysis_naive_jacobian(double *J, double *s, const double *v, int count, int jacobian) {
    const double h = 1e-5;
    double above[ANALYSIS_D], below[ANALYSIS_D];
    for (int j = 0; j < count; j++) {
        const double was = s[j];
        s[j] = was + h, analysis_naive_output(above, s, v, count, jacobian);
        s[j] = was - h, analysis_naive_output(below, s, v, count, jacobian);
        s[j] = was;
        for (int d = 0; d < ANALYSIS_D; d++) J[j * ANALYSIS_D + d] = (above[d] - below[d]) / (2 * h);
    }
}

/* The sums of one head, from q, k, v and dout (T, D) in double. */
static AttentionSums analysis_naive(const double *q, const double *k, const double *v, const double *dout,
                                    int own) {
    AttentionSums sums = attention_sums_empty();
    for (int i = 0; i < ANALYSIS_T; i++) {
        double s[ANALYSIS_T], sum = 0, entropy = 0, J[ANALYSIS_T * ANALYSIS_D];
        for (int j = 0; j <= i; j++) {
            s[j] = 0;
            for (int d = 0; d < ANALYSIS_D; d++) s[j] += q[i * ANALYSIS_D + d] * k[j * ANALYSIS_D + d];
            s[j] /= sqrt(ANALYSIS_D);
            sum += exp(s[j]), sums.largest_score = fmax(sums.largest_score, s[j]);
        }
        for (int jacobian = 0; jacobian < JACOBIANS; jacobian++) {
            double squares = 0, o[ANALYSIS_D];
            analysis_naive_jacobian(J, s, v, i + 1, jacobian);
            analysis_naive_output(o, s, v, i + 1, jacobian);
            for (int j = 0; j <= i; j++) {
                const double a = exp(s[j]) / sum;
                double ds = 0, of_pair = 0;
                int bin = 0;
                while (bin < ATTENTION_DECADES && a < pow(10, -bin - 1)) bin++;
                for (int d = 0; d < ANALYSIS_D; d++) {
                    const double slope = J[j * ANALYSIS_D + d];
                    const double p = a * exp(v[j * ANALYSIS_D + d] - o[d]);
                    of_pair += slope * slope, ds += dout[i * ANALYSIS_D + d] * slope;
                    if (jacobian == JACOBIAN_LASER)
                        sums.p_count++, sums.p_below_1e3 += p < 1e-3, sums.p_below_1e7 += p < 1e-7;
                }
                squares += of_pair, sums.bin_jacobians[jacobian][bin] += of_pair;
                if (jacobian == own) sums.score_gradients += ds * ds;
                if (jacobian == 0) sums.pairs++, sums.bins[bin]++, entropy -= a * log(a);
            }
            if (i > 0) sums.jacobians[jacobian] += sqrt(squares);
        }
        if (i > 0) sums.rows++, sums.entropy += entropy, sums.entropy_share += entropy / log(i + 1);
    }
    for (int d = 0; d < ANALYSIS_D; d++) {
        double least = INFINITY, most = -INFINITY;
        for (int t = 0; t < ANALYSIS_T; t++) {
            const double x = v[t * ANALYSIS_D + d];
            least = fmin(least, x), most = fmax(most, x);
            sums.v_count++, sums.v_sum += x, sums.v_squares += x * x;
        }
        sums.v_min = fmin(sums.v_min, least), sums.v_max = fmax(sums.v_max, most);
        sums.v_range = fmax(sums.v_range, most - least);
    }
    return sums;
}

/* Both structs consist of doubles alone, in the same order. */
static void check_sums(const AttentionSums *got, const AttentionSums *want, double bound, const char *what) {
    const double *x = (const double *)got, *y = (const double *)want;
    for (size_t n = 0; n < sizeof *got / sizeof *x; n++)
        CHECK(fabs(x[n] - y[n]) <= bound * fabs(y[n]) + 1e-12,
              "%s: number %zu of AttentionSums is %.10g, not %.10g", what, n, x[n], y[n]);
}

/* Every number of the analysis must be what its formula says, or a reader would compare models by wrong numbers. The
   reference computes Jacobians by finite differences. In the last case values are so far apart that exp(v) leaves the
   range of double. */
static void test_analysis_matches_float64(void) {
    const int B = 2, H = 2, T = ANALYSIS_T, D = ANALYSIS_D, A = H * D;
    const size_t N = (size_t)(B * T);
    const AttentionShape shape = {.B = B, .T = T, .H = H, .D = D, .qkv_row = 3 * A, .out_row = A};
    for (int kind = 0; kind < 2; kind++)
        for (int far = 0; far < 2; far++) {
            float *qkv = test_normal(N * 3 * (size_t)A, 3, 1), *dout = test_normal(N * (size_t)A, 1, 2);
            if (far) qkv[7 * 3 * A + 2 * A + 1] = 900, qkv[2 * 3 * A + 2 * A + 1] = -800;
            AttentionSums got[2] = {attention_sums_empty(), attention_sums_empty()};
            attention_measure(got, kind ? ATTENTION_LASER : ATTENTION_STANDARD, qkv, qkv + A, qkv + 2 * A,
                              dout, 0.5, &shape);
            for (int h = 0; h < H; h++) {
                AttentionSums want = attention_sums_empty();
                for (int b = 0; b < B; b++) {
                    double part[4][ANALYSIS_T * ANALYSIS_D];
                    for (int t = 0; t < T; t++)
                        for (int d = 0; d < D; d++) {
                            for (int p = 0; p < 3; p++)
                                part[p][t * D + d] = qkv[(b * T + t) * 3 * A + p * A + h * D + d];
                            part[3][t * D + d] = dout[(b * T + t) * A + h * D + d] / 0.5;
                        }
                    const AttentionSums one = analysis_naive(part[0], part[1], part[2], part[3],
                                                             kind ? JACOBIAN_LASER : JACOBIAN_STANDARD);
                    attention_sums_add(&want, &one);
                }
                check_sums(&got[h], &want, far ? 1e-4 : 1e-7, far ? "values far apart" : "normal values");
            }
            free(qkv), free(dout);
        }
}

/* The same command must give the same numbers on a machine with more cores. */
static void test_analysis_has_the_same_bits_for_any_threads(void) {
#ifdef _OPENMP
    enum { B = 3, T = 33, H = 3, D = 8, A = H * D };
    const AttentionShape shape = {.B = B, .T = T, .H = H, .D = D, .qkv_row = 3 * A, .out_row = A};
    float *qkv = test_normal(B * T * 3 * A, 2, 1), *dout = test_normal(B * T * A, 1, 2);
    AttentionSums sums[2][H];
    const int threads = omp_get_max_threads();
    for (int many = 0; many < 2; many++) {
        omp_set_num_threads(many ? 5 : 1);
        for (int h = 0; h < H; h++) sums[many][h] = attention_sums_empty();
        attention_measure(sums[many], ATTENTION_LASER, qkv, qkv + A, qkv + 2 * A, dout, 1, &shape);
    }
    omp_set_num_threads(threads);
    CHECK(memcmp(sums[0], sums[1], sizeof sums[0]) == 0, "entropy %.17g with one thread, %.17g with five",
          sums[0][0].entropy, sums[1][0].entropy);
    free(qkv), free(dout);
#else
    test_not_run("the compiler has no OpenMP");
#endif
}

/* Known weights: with equal scores each row's weights are 1 / (i + 1), its entropy is log(i + 1), and with equal values
   no score has a gradient. */
static void test_analysis_of_equal_scores(void) {
    enum { T = 20 };
    float q[T] = {0}, k[T] = {0}, v[T], dout[T];
    const AttentionShape shape = {.B = 1, .T = T, .H = 1, .D = 1, .qkv_row = 1, .out_row = 1};
    for (int t = 0; t < T; t++) v[t] = 2, dout[t] = 1;
    AttentionSums sums = attention_sums_empty();
    attention_measure(&sums, ATTENTION_LASER, q, k, v, dout, 1, &shape);
    CHECK(sums.pairs == T * (T + 1) / 2.0, "%g pairs", sums.pairs);
    CHECK(sums.rows == T - 1 && fabs(sums.entropy_share / sums.rows - 1) < 1e-12, "entropy %.15g of %g rows",
          sums.entropy_share, sums.rows);
    /* 1/1 to 1/9 are above 0.1, 1/11 to 1/20 below */
    CHECK(sums.bins[0] + sums.bins[1] == sums.pairs && sums.bins[1] >= 155 && sums.bins[1] <= 165,
          "%g and %g of %g pairs", sums.bins[0], sums.bins[1], sums.pairs);
    CHECK(sums.score_gradients < 1e-28 && sums.jacobians[0] < 1e-13 && sums.jacobians[1] < 1e-13,
          "ds^2 %g, Jacobians %g and %g", sums.score_gradients, sums.jacobians[0], sums.jacobians[1]);
    CHECK(sums.v_min == 2 && sums.v_max == 2 && sums.v_range == 0, "v from %g to %g", sums.v_min, sums.v_max);
}

/* ---- the numbers of a model ---- */

static Analysis analysis_of_run(const char *data, const char *arguments, float **gradients) {
    TestRun *run = test_run_open(data, arguments);
    Trainer *t = &run->trainer;
    for (size_t i = 0; i < t->model.weights.count; i++) t->model.weights.memory[i] *= 4;
    /* Gradients and sums of an earlier analysis must not be in a later one. */
    Analysis earlier = model_analyze(&t->model, &t->run.val, 5, t->inputs, t->targets);
    Analysis a = model_analyze(&t->model, &t->run.val, 5, t->inputs, t->targets);
    const AnalysisSums sums[] = {analysis_of_all(&earlier), analysis_of_all(&a)};
    CHECK(memcmp(&sums[0], &sums[1], sizeof *sums) == 0, "a second analysis differs: dWq^2 %g and %g",
          sums[0].gradient_squares[0], sums[1].gradient_squares[0]);
    analysis_free(&earlier);
    if (gradients) {
        const size_t bytes = t->model.gradients.count * sizeof(float);
        *gradients = memcpy(check_calloc(bytes), t->model.gradients.memory, bytes);
        for (int i = 0; i < t->model.parameters.count; i++) { /* against the tensors of the table */
            const Tensor *tensor = &t->model.parameters.tensors[i];
            const char *letter = strstr(tensor->name, ".self_attn.");
            if (!letter) continue;
            const double want =
                sqrt(gradient_squares(*gradients + tensor->offset, tensor->count) / (double)tensor->count);
            const AnalysisSums layer = analysis_of_layer(&a, tensor->layer);
            const int matrix = (int)(strchr("qkvo", letter[11]) - "qkvo");
            const double got = analysis_numbers[ANALYSIS_GRADIENT_Q + matrix].value(&layer);
            CHECK(want > 0 && fabs(got / want - 1) < 1e-6, "%s: %.9g, expected %.9g", tensor->name, got,
                  want);
        }
    }
    test_run_close(run);
    return a;
}

/* The analysis of a model must be the same whatever --recompute and the size of a micro-batch are, and its gradients
   those that backward has left. */
static void test_analysis_of_a_model(void) {
    const char *data = write_test_data(600);
    float *gradients;
    Analysis whole = analysis_of_run(data, "--attn=laser --batch=5", &gradients);
    Analysis again = analysis_of_run(data, "--attn=laser --batch=5 --recompute=block", NULL);
    Analysis small = analysis_of_run(data, "--attn=laser --batch=2", NULL);
    CHECK(whole.windows == 5 && whole.mean_loss > 1, "%d windows, loss %g", whole.windows, whole.mean_loss);
    const AnalysisSums a = analysis_of_all(&whole), b = analysis_of_all(&again), c = analysis_of_all(&small);
    CHECK(memcmp(&a, &b, sizeof a) == 0, "--recompute=block changes the analysis: ds %.17g and %.17g",
          a.attention.score_gradients, b.attention.score_gradients);
    check_sums(&c.attention, &a.attention, 1e-4, "micro-batches of 2");
    CHECK(a.attention.pairs == 2 * 3 * 5 * (13 * 14 / 2.0), "%g pairs", a.attention.pairs);
    free(gradients), analysis_free(&whole), analysis_free(&again), analysis_free(&small);
}

/* ---- the trainer ---- */

/* The lines of a log without the analyses, and the analyses alone. */
static void split_log(const char *data, const char *run) {
    char output[1024];
    const int code =
        test_command(output, sizeof output,
                     "cd %s/%s && grep '\"analysis\"' log.jsonl > ../%s.analyses; mkdir -p ../%s-rest && "
                     "grep -v '\"analysis\"' log.jsonl > ../%s-rest/log.jsonl",
                     data, run, run, run, run);
    if (code != 0) die("%s", output);
}

/* --analyze-every must not change the training by a bit, with no kind of --recompute; and a run that is resumed must log
   each analysis once, with the same numbers. */
static void test_analyze_every_changes_no_bit(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    static const char *const runs[][2] = {{"plain", ""},
                                          {"analysed", "--analyze-every=5"},
                                          {"recomputed", "--analyze-every=5 --recompute=block"},
                                          {"parts", "--analyze-every=5 --save-every=5"}};
    for (size_t r = 0; r < sizeof runs / sizeof *runs; r++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "--attn=laser %s", runs[r][1]);
        const int code = train_tiny(data, runs[r][0], arguments, output, sizeof output);
        REQUIRE(code == 0, "%s: exit %d: %s", runs[r][0], code, output);
    }
    test_command(output, sizeof output, "rm -r %s/parts/step-00000012", data);
    int code =
        train_tiny(data, "parts", "--attn=laser --analyze-every=5 --resume=auto", output, sizeof output);
    CHECK(code == 0 && strstr(output, "step-00000010"), "exit %d: %s", code, output);
    for (size_t r = 0; r < sizeof runs / sizeof *runs; r++) {
        split_log(data, runs[r][0]);
        code = test_command(output, sizeof output,
                            "cd %s && cmp plain/step-00000012/model.safetensors "
                            "%s/step-00000012/model.safetensors && "
                            "cmp plain/step-00000012/optimizer-00000-of-00001.safetensors "
                            "%s/step-00000012/optimizer-00000-of-00001.safetensors",
                            data, runs[r][0], runs[r][0]);
        CHECK(code == 0, "%s: %s", runs[r][0], output);
    }
    check_same_curve(data, "plain-rest", "analysed-rest");
    code = test_command(output, sizeof output,
                        "cd %s && cmp analysed.analyses parts.analyses && cmp analysed.analyses "
                        "recomputed.analyses && sed 's/,.*//' analysed.analyses | tr '\\n' ' '",
                        data);
    CHECK(code == 0 && strcmp(output, "{\"step\": 0 {\"step\": 5 {\"step\": 10 {\"step\": 12 ") == 0, "%s",
          output);
}

/* With several ranks rank 0 analyses alone; the others must neither wait forever nor get other weights. */
static void test_analyze_every_with_two_ranks(void) {
    char output[8192], data[256];
    const char *launcher = mpi_launcher();
    if (!launcher) return;
    snprintf(data, sizeof data, "%s", write_test_data(600));
    for (int analysed = 0; analysed < 2; analysed++) {
        const int code = test_command(
            output, sizeof output, "%s -np 2 %s/train_gpt " TINY_RUN "--threads=1 --data=%s --out=%s/%d %s",
            launcher, test_binaries(), data, data, analysed, analysed ? "--analyze-every=4" : "");
        REQUIRE(code == 0, "exit %d: %s", code, output);
    }
    const int code =
        test_command(output, sizeof output,
                     "cd %s && cmp 0/step-00000012/model.safetensors 1/step-00000012/model.safetensors && "
                     "grep -c '\"analysis\"' 1/log.jsonl",
                     data);
    CHECK(code == 0 && atoi(output) == 4, "exit %d: %s", code, output);
}

/* Where an analysis is not possible the option must be refused by name before the run starts. */
static void test_analyze_every_is_refused(void) {
    char output[8192], data[256], path[300];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_tiny(data, "wide", "--layers=1024 --heads=1024 --head-dim=2 --analyze-every=1 --dry-run",
                          output, sizeof output);
    CHECK(code == 2 && strstr(output, "--analyze-every=1: a line of the log would be too long"),
          "exit %d: %s", code, output);
    snprintf(path, sizeof path, "%s/build/train_gpt_emulated", test_binaries());
    if (access(path, X_OK) != 0) return; /* not part of every build */
    code = test_command(output, sizeof output, "%s " TINY_RUN "--data=%s --analyze-every=1", path, data);
    CHECK(code == 2 && strstr(output, "--analyze-every=1 needs activations that a GPU does not copy back"),
          "exit %d: %s", code, output);
}

/* ---- ./analyze ---- */

/* A number of an analysis in JSON. */
static double analysis_member(const cJSON *json, const char *part, const char *key) {
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(json, part);
    return json_number(object, key);
}

/* ./analyze must find what the trainer logged at the same step, fit a terminal, and write JSON of every head. */
static void test_analyze_program(void) {
    char output[16384], data[256], error[FILE_ERROR_SIZE];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_tiny(data, "run", "--attn=laser --dtype=fp32 --analyze-every=12", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    split_log(data, "run");
    code = test_command(output, sizeof output, "%s/analyze --heads --json=%s/a.json %s/run 2> /dev/null",
                        test_binaries(), data, data);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    for (char *line = strtok(output, "\n"); line; line = strtok(NULL, "\n"))
        CHECK(strlen(line) <= 80 || strstr(line, data), "%zu columns: %s", strlen(line), line);
    char path[300];
    size_t size;
    snprintf(path, sizeof path, "%s/a.json", data);
    char *text = file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, &size, error);
    REQUIRE(text, "%s", error);
    cJSON *json = json_parse(text, size);
    const cJSON *mine = cJSON_GetObjectItem(json, "analysis");
    snprintf(path, sizeof path, "%s/run.analyses", data);
    char *lines = file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, &size, error);
    REQUIRE(mine && lines, "%s %s", text, error);
    lines[size - 1] = 0;
    cJSON *line = cJSON_Parse(strrchr(lines, '\n') + 1);
    const cJSON *logged = cJSON_GetObjectItem(line, "analysis");
    for (int n = 0; n < ANALYSIS_NUMBERS; n++) {
        const char *key = analysis_numbers[n].key;
        const double x = analysis_member(mine, "all", key), y = analysis_member(logged, "all", key);
        CHECK(fabs(x - y) <= 1e-3 * fabs(y), "%s: %.9g, the log has %.9g", key, x, y);
        const cJSON *layers = cJSON_GetObjectItem(cJSON_GetObjectItem(mine, "layers"), key);
        CHECK(cJSON_GetArraySize(layers) == 2 && cJSON_IsNumber(cJSON_GetArrayItem(layers, 1)), "%s by layer",
              key);
        const cJSON *heads =
            cJSON_GetArrayItem(cJSON_GetObjectItem(cJSON_GetObjectItem(mine, "heads"), key), 1);
        if (n < ANALYSIS_GRADIENT_Q || n > ANALYSIS_GRADIENT_O)
            CHECK(cJSON_GetArraySize(heads) == 3 && cJSON_IsNumber(cJSON_GetArrayItem(heads, 2)),
                  "%s by head", key);
    }
    const cJSON *shares = cJSON_GetObjectItem(cJSON_GetObjectItem(mine, "histogram"), "share"), *share;
    double sum = 0;
    cJSON_ArrayForEach(share, shares) sum += share->valuedouble;
    CHECK(cJSON_GetArraySize(shares) == ATTENTION_BINS && fabs(sum - 1) < 1e-3, "the shares add up to %g",
          sum);
    cJSON_Delete(json), cJSON_Delete(line), free(text), free(lines);
}

/* Wrong input of ./analyze must be named in one line that says what to do. */
static void test_analyze_refuses_wrong_input(void) {
    static const struct {
        const char *prepare, *arguments;
        int code;
        const char *says;
    } cases[] = {
        {"", "", 2, "give one checkpoint"},
        {"", "run run", 2, "give one checkpoint"},
        {"", "--sequence=1 run", 2, "did you mean --sequences?"},
        {"", "--sequences=0 run", 2, "--sequences=0: out of bounds; expected 1"},
        {"", "nowhere", 1, "'nowhere' holds no checkpoint; ./train_gpt writes one"},
        {"", "--data=nowhere run", 1, "cannot open the data folder 'nowhere'"},
        {"mkdir empty", "--data=empty run", 1, "no shards 'val_*.bin' in 'empty'"},
        {"mkdir a; cp *.bin a; echo '{}' > a/tokenizer.json; cp -r run/step-00000012 b; rm b/DONE; echo '[]' "
         "> "
         "b/tokenizer.json",
         "--data=a b", 1, "the data was made with another tokenizer than the model's"},
        {"cp -r run/step-00000012 c; rm c/DONE c/trainer_state.json", "c", 1,
         "'c/trainer_state.json' does not tell which data"},
        {"cp -r run/step-00000012 d; printf x >> d/config.json", "--data=. d", 1,
         "'d/config.json' is damaged"},
        {"", "--data=. --json=nowhere/a.json run", 1, "name a file in a folder that exists: --json=FILE"},
    };
    char output[16384], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_tiny(data, "run", "", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        code = test_command(output, sizeof output, "B=$(cd %s && pwd); cd %s; %s\n$B/analyze %s",
                            test_binaries(), data, cases[i].prepare, cases[i].arguments);
        CHECK(code == cases[i].code && strstr(output, cases[i].says), "%s: exit %d, expected %d and '%s': %s",
              cases[i].arguments, code, cases[i].code, cases[i].says, output);
    }
}

/* ---- ./report ---- */

/* The report must show the analyses of a log, and of runs without one nothing; the data of its panels must be JSON, or
   the page's script would end at it. Lines that are damaged, but JSON, are no reason to fail. */
static void test_analysis_in_the_report(void) {
    static const char *const damaged[] = {
        "{\"step\": 13, \"analysis\": 3}", "{\"step\": 13, \"analysis\": {\"layers\": [1, 2], \"all\": 1}}",
        ("{\"step\": 14, \"analysis\": {\"layers\": {\"entropy\": [\"a\", null], \"v_range\": [1e999, "
         "-1e308]}}}"),
        "{\"step\": 15, \"analysis\": {\"layers\": {\"entropy\": [1, 2, 3]}}}"};
    char output[16384], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_tiny(data, "run", "--attn=laser --analyze-every=4", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    code = train_tiny(data, "none", "", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    code = report_run(output, sizeof output, data, "LC_ALL=C", "--out=none.html none");
    CHECK(code == 0 && !strstr(output, "Attention"), "code %d: %s", code, output);
    char path[300];
    for (size_t i = 0; i <= sizeof damaged / sizeof *damaged; i++) {
        if (i > 0) {
            snprintf(path, sizeof path, "%s/run/log.jsonl", data);
            FILE *log = check_fopen(path, "a", "");
            fprintf(log, "%s\n", damaged[i - 1]), fclose(log);
        }
        code = report_run(output, sizeof output, data, "LC_ALL=C", "--out=r.html none run");
        REQUIRE(code == 0, "code %d: %s", code, output);
        const char *table = strstr(output, "  Attention at the last analysis");
        CHECK(table && strstr(table, "\no run  ") && !strstr(table, "\n* none") && strstr(table, "80%"), "%s",
              output);
        for (char *line = strtok(output, "\n"); line; line = strtok(NULL, "\n"))
            CHECK(strlen(line) <= 80, "%zu columns: %s", strlen(line), line);
        size_t size;
        char *page = report_read(data, "r.html", &size);
        int panels = 0;
        CHECK(strstr(page, "Attention at the last analysis") && !strstr(page, ">nan<"), "%.200s", page);
        for (char *at = page; (at = strstr(at, "data-own='")); at++) {
            cJSON *json = cJSON_ParseWithOpts(at + strlen("data-own='"), NULL, false);
            CHECK(cJSON_GetArraySize(cJSON_GetObjectItem(json, "runs")) == 2, "panel %d: %.200s", panels, at);
            panels++;
            cJSON_Delete(json);
        }
        CHECK(panels == 10, "%d panels", panels);
        free(page);
    }
    size_t size;
    char *page = report_read(data, "none.html", &size);
    CHECK(!strstr(page, "data-own='") && !strstr(page, "Attention at"),
          "a run without analyses has panels of them");
    free(page);
}

#define ANALYSIS_TESTS(TEST)                                                                                 \
    TEST(analysis_matches_float64)                                                                           \
    TEST(analysis_has_the_same_bits_for_any_threads)                                                         \
    TEST(analysis_of_equal_scores)                                                                           \
    TEST(analysis_of_a_model)                                                                                \
    TEST(analyze_every_changes_no_bit)                                                                       \
    TEST(analyze_every_with_two_ranks)                                                                       \
    TEST(analyze_every_is_refused)                                                                           \
    TEST(analyze_program)                                                                                    \
    TEST(analyze_refuses_wrong_input)                                                                        \
    TEST(analysis_in_the_report)

#endif
