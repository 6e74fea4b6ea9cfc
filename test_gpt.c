/* test_gpt.c: every test of the trainer, in one table.

   ./test_gpt                  all of them; `make test` builds and runs this, `make test SAN=1` under sanitizers
   ./test_gpt --filter=laser   those whose name contains "laser"; several words with commas between
   ./test_gpt --list           their names

   A check that fails prints a line with the values it found. The last line is `N passed, N failed`; the exit code is 1
   when a test has failed, 3 when no name matches the filter. A test that this machine cannot run, for example without
   MPI, says so and counts neither as passed nor as failed.

   The tests of each part are in tests/test_PART.h; tests/harness.h says how to write one. Tests that run programs look
   for them in $TEST_BINARY_DIR (default: this folder). */
#define TRAIN_GPT_NO_MAIN
#include "train_gpt.c"
#include "tools/load_model.h"

#include "gpt/base/filter.h"
#include "tests/harness.h"
#include "tests/trainer_files.h"
#include "tests/test_files.h"
#include "tests/test_options.h"
#include "tests/test_optimizer.h"
#include "tests/test_layers.h"
#include "tests/test_matmul.h"
#include "tests/test_laser.h"
#include "tests/test_model.h"
#include "tests/test_shards.h"
#include "tests/test_tokenizer.h"
#include "tests/test_checkpoint.h"
#include "tests/test_log.h"
#include "tests/test_prepare.h"
#include "tests/test_inputs.h"
#include "tests/test_grammar.h"
#include "tests/test_report.h"
#include "tests/test_report_arms.h"
#include "tests/test_report_tensorboard.h"
#include "tests/test_statistics.h"
#include "tests/test_train.h"
#include "tests/test_huggingface.h"
#include "tests/test_init_from.h"
#include "tests/test_analysis.h"
#include "tests/test_evaluate.h"
#include "tests/test_attention_kinds.h"
#include "tests/test_ablations.h"
#include "tests/test_diff.h"
#include "tests/test_faults.h"
#include "tests/test_parallel.h"
#include "tests/test_hostile.h"
#include "tests/test_generate.h"
#include "tests/test_state.h"
#include "tests/test_running.h"
#include "tests/test_ab.h"
#include "tests/test_reproduce.h"
#include "tests/test_formats.h"
#include "tests/test_house.h"
#include "tests/test_package.h"
#include "tests/test_course.h"
#include "tests/test_site.h"

typedef struct {
    const char *name;
    void (*function)(void);
} Test;

#define ROW(name) {#name, test_##name},
static const Test tests[] = {
#ifdef TEST_ROWS /* `make test FILTER=...` compiles only the parts that it needs */
    TEST_ROWS
#else
    FILES_TESTS(ROW) OPTIONS_TESTS(ROW) OPTIMIZER_TESTS(ROW) LAYERS_TESTS(ROW) MATMUL_TESTS(ROW)
        LASER_TESTS(ROW) MODEL_TESTS(ROW) SHARDS_TESTS(ROW) TOKENIZER_TESTS(ROW) CHECKPOINT_TESTS(ROW)
            LOG_TESTS(ROW) PREPARE_TESTS(ROW) INPUTS_TESTS(ROW) GRAMMAR_TESTS(ROW) REPORT_TESTS(ROW)
                REPORT_ARMS_TESTS(ROW) STATISTICS_TESTS(ROW) TRAIN_TESTS(ROW) FAULTS_TESTS(ROW)
                    PARALLEL_TESTS(ROW) HOSTILE_TESTS(ROW) STATE_TESTS(ROW) RUNNING_TESTS(ROW) AB_TESTS(ROW)
                        ATTENTION_KINDS_TESTS(ROW) REPRODUCE_TESTS(ROW) HOUSE_TESTS(ROW) ANALYSIS_TESTS(ROW)
                            PACKAGE_TESTS(ROW) REPORT_TENSORBOARD_TESTS(ROW) FORMATS_TESTS(ROW)
                                GENERATE_TESTS(ROW) ABLATIONS_TESTS(ROW) EVALUATE_TESTS(ROW) COURSE_TESTS(ROW)
                                    HUGGINGFACE_TESTS(ROW) INIT_FROM_TESTS(ROW) SITE_TESTS(ROW)
                                        DIFF_TESTS(ROW)
#endif
};
#undef ROW

int main(int argc, char **argv) {
    threads_configure(argv);
    const char *filter = "";
    bool list = false;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--filter=", 9) == 0)
            filter = argv[i] + 9;
        else if (strcmp(argv[i], "--list") == 0)
            list = true;
        else {
            fprintf(stderr, "error: unknown option '%s'; expected --filter=TEXT[,TEXT...] or --list\n",
                    argv[i]);
            return 2;
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_begin();
    int results[TEST_RESULTS] = {0};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (!filter_takes(filter, tests[i].name)) continue;
        if (list)
            puts(tests[i].name);
        else
            results[test_run(tests[i].name, tests[i].function)]++;
    }
    test_end();
    if (list) return 0;
    const int passed = results[TEST_PASSED], failed = results[TEST_FAILED], not_run = results[TEST_NOT_RUN];
    if (passed + failed + not_run == 0) printf("no test's name contains '%s'\n", filter);
    if (not_run) printf("%d not run on this machine, see above\n", not_run);
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0 ? 1 : passed + not_run == 0 ? 3 : 0;
}
