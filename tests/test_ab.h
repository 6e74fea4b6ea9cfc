/* test_ab.h: tests of scripts/ab.sh with the real trainer and tiny models: what it checks before it trains, that it repeats
   nothing, that an interruption changes no result, the sweep, and runs that fail. */
#ifndef TESTS_TEST_AB_H
#define TESTS_TEST_AB_H

#include "test_model.h"
#include "test_parallel.h"

#define AB_TINY "--batch=4 --warmup=3 --val-every=4 --val-tokens=200 --dtype=fp32 "

/* Runs scripts/ab.sh with arguments of ab.sh, then "--" and the tiny model. */
static int ab_run(char *output, size_t size, const char *data, const char *arguments, const char *options) {
    return test_command(
        output, size,
        "export TMPDIR=%s AB_PAUSE=0.01; scripts/ab.sh --program=%s/train_gpt %s -- " TINY_MODEL AB_TINY
        "--data=%s %s",
        test_state.root, test_binaries(), arguments, data, options);
}

/* A mistake must be found before hours of training, and nothing may be written then. */
static void test_ab_checks_before_it_trains(void) {
    static const struct {
        const char *arguments, *options, *said;
    } cases[] = {
        {"", "", "--vary NAME=A,B is missing"},
        {"--vary=attn=standard", "", "expected 2 or more values"},
        {"--vary=attn=standard,standard", "", "the value standard is there twice"},
        {"--vary=attn", "", "expected the name of an option and its values"},
        {"--vary=attn=standard,lazer", "", "; did you mean laser?"},
        {"--vary=atn=standard,laser", "", "unknown option --atn; did you mean --attn?"},
        {"--vary=attn=standard,laser", "--stepps=3", "unknown option --stepps; did you mean --steps?"},
        {"--vary=attn=standard,laser", "--head-dim=3", "head_dim (--head-dim) is 3"},
        {"--vary=attn=standard,laser", "--attn=laser", "--attn=laser stands after --, but --vary"},
        {"--vary=attn=standard,laser", "--seed=3", "--seed=3 after --"},
        {"--vary=attn=standard,laser", "--out=x", "--out=x after --"},
        {"--vary=attn=standard,laser", "--data=/nowhere", "there is no folder /nowhere"},
        {"--vary=attn=standard,laser --seed=3", "", "unknown option --seed; did you mean --seeds?"},
        {"--vary=attn=standard,laser --seeds=0", "", "--seeds=0: expected a whole number from 1"},
        {"--vary=attn=standard,laser --seeds=1,1", "", "the value 1 is there twice"},
        {"--vary=attn=standard,laser --seeds=1,x", "", "'x' is not a whole number"},
        {"--vary=attn=standard,laser --jobs=two", "", "--jobs=two: expected a whole number"},
        {"--vary=attn=standard,laser --jobs=3 --gpus=2", "", "there are only 2 GPUs"},
        {"--vary=attn=standard,laser --jobs=2 --launcher=env", "", "needs --threads=N"},
        {"--vary=attn=standard,laser --sweep=attn=standard,laser", "",
         "--sweep and --vary are both of --attn"},
        {"--vary=attn=standard,laser --sweep=lr=1e-3,x", "", "--lr=x: not a number"},
        {"--vary=attn=standard,laser --program=/nowhere", "", "there is no program /nowhere"},
        {"--vary=attn=standard,laser --steps=3", "", "options of the trainer stand after --"},
    };
    char output[8192], data[256], arguments[1024];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(arguments, sizeof arguments, "--out=%s/ab %s", data, cases[i].arguments);
        const int code = ab_run(output, sizeof output, data, arguments, cases[i].options);
        CHECK((code == 2 || strstr(cases[i].said, "program")) && strstr(output, cases[i].said),
              "%s -- %s: code %d: %s", cases[i].arguments, cases[i].options, code, output);
    }
    snprintf(arguments, sizeof arguments, "--out=%s/ab --vary attn=standard,laser --seeds 2 --dry-run", data);
    int code = ab_run(output, sizeof output, data, arguments, "--steps=8");
    CHECK(code == 0 && strstr(output, "4 runs: --attn=standard,laser, seeds 1,2") &&
              count_of(output, " --out=") == 4 && strstr(output, "attn=laser, each run: "),
          "code %d: %s", code, output);
    code = test_command(output, sizeof output, "ls %s/ab", data);
    CHECK(code != 0, "something was written: %s", output);
    snprintf(arguments, sizeof arguments, "--out=%s --vary=attn=standard,laser", data);
    code = ab_run(output, sizeof output, data, arguments, "");
    CHECK(code == 2 && strstr(output, "holds other files already"), "code %d: %s", code, output);
}

/* A second call must repeat nothing, seeds may be added, and a folder must not mix runs with different settings. */
static void test_ab_repeats_nothing_and_mixes_nothing(void) {
    char output[32768], data[256], arguments[1024];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    snprintf(arguments, sizeof arguments, "--out=%s/ab --vary=attn=standard,laser --seeds=2 --jobs=2", data);
    int code = ab_run(output, sizeof output, data, arguments, "--steps=8");
    CHECK(code == 0 && count_of(output, ": started") == 4 && strstr(output, "(4 of 4 runs)") &&
              strstr(output, "laser minus standard: ") && strstr(output, "2 pairs)") &&
              strstr(output, "one run took "),
          "code %d: %s", code, output);
    code = ab_run(output, sizeof output, data, arguments, "--steps=8 --threads=1 --save-every=4");
    CHECK(code == 0 && count_of(output, ": started") == 0 && strstr(output, "2 pairs)"), "code %d: %s", code,
          output);
    snprintf(arguments, sizeof arguments, "--out=%s/ab --vary=attn=standard,laser --seeds=1,2,7 --jobs=2",
             data);
    code = ab_run(output, sizeof output, data, arguments, "--steps=8");
    CHECK(code == 0 && strstr(output, "standard-seed-7: started") &&
              strstr(output, "laser-seed-7: started") && count_of(output, ": started") == 2 &&
              strstr(output, "3 pairs)"),
          "code %d: %s", code, output);
    code = ab_run(output, sizeof output, data, arguments, "--steps=9 --lr=1e-3");
    CHECK(code == 2 &&
              strstr(output,
                     "was made with other settings: --steps is 9 here, and was 8; --lr is 1e-3 here, and was "
                     "not given. Give the same ones"),
          "code %d: %s", code, output);
    test_command(output, sizeof output, "echo ' ' >> %s/shards.json", data);
    code = ab_run(output, sizeof output, data, arguments, "--steps=8");
    CHECK(code == 2 && strstr(output, "has changed"), "code %d: %s", code, output);
    code =
        test_command(output, sizeof output, "cd %s/ab && ls && head -n 1 arms.csv && wc -l < arms.csv", data);
    CHECK(code == 0 && strstr(output, "report.html") && strstr(output, "arm,seeds,val_loss") &&
              strstr(output, "\n3\n"),
          "%s", output);
}

/* However often an experiment is interrupted, its runs must end with the same weights. */
static void test_ab_goes_on_after_an_interruption(void) {
    char output[32768], data[256], arguments[1024];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    const char *options = "--steps=120 --val-every=0 --threads=1";
    snprintf(arguments, sizeof arguments, "--out=%s/whole --vary=attn=standard,laser --seeds=1", data);
    int code = ab_run(output, sizeof output, data, arguments, options);
    REQUIRE(code == 0 && strstr(output, "One run each cannot tell"), "code %d: %s", code, output);
    for (int jobs = 1; jobs <= 2; jobs++) {
        /* the first time it is interrupted when the first run has done 9 steps */
        test_command(
            output, sizeof output,
            "AB_PAUSE=0.01 scripts/ab.sh --program=%s/train_gpt --jobs=%d --out=%s/parts%d "
            "--vary=attn=standard,laser "
            "--seeds=1 -- " TINY_MODEL AB_TINY
            "--data=%s %s & pid=$!; for i in $(seq 3000); do grep -q '\"step\": 9,' "
            "%s/parts%d/standard-seed-1/log.jsonl 2> /dev/null && break; sleep 0.003; done; kill -TERM $pid; "
            "wait $pid; echo exit $?",
            test_binaries(), jobs, data, jobs, data, options, data, jobs);
        CHECK(strstr(output, "exit 130") &&
                  strstr(output, "of 2 runs are finished. This goes on:\n  scripts/ab.sh --program="),
              "%d jobs: %s", jobs, output);
        snprintf(arguments, sizeof arguments,
                 "--jobs=%d --out=%s/parts%d --vary=attn=standard,laser --seeds=1", jobs, data, jobs);
        code = ab_run(output, sizeof output, data, arguments, options);
        CHECK(code == 0, "%d jobs: code %d: %s", jobs, code, output);
        for (int laser = 0; laser < 2; laser++) {
            const char *run = laser ? "laser-seed-1" : "standard-seed-1";
            code = test_command(output, sizeof output,
                                "cd %s && cmp whole/%s/step-00000120/model.safetensors "
                                "parts%d/%s/step-00000120/model.safetensors",
                                data, run, jobs, run);
            CHECK(code == 0, "%s with %d jobs: %s", run, jobs, output);
        }
    }
}

/* The sweep must take the value with the lowest loss for each arm, warn at an end of the list, and go on when a run fails;
   a failure before the first step must end everything. */
static void test_ab_sweeps_and_survives_failures(void) {
    char output[32768], data[256], arguments[1024], program[1024];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    /* the trainer, but it fails with a learning rate of 9: after a step, or with the prompt "early" before it */
    snprintf(program, sizeof program,
             "#!/bin/sh\nout=; for a; do case $a in --out=*) out=${a#--out=} ;; esac; done\ncase \" $* \" in "
             "*--help*|*--dry-run*) "
             ";;\n*early*--lr=9\\ *) echo error: too early >&2; exit 1 ;;\n*--lr=9\\ *) mkdir -p $out; echo "
             "'{\"step\": 1, "
             "\"loss\": 9}' > $out/log.jsonl; echo error: diverged >&2; exit 1 ;;\nesac\nexec $B/train_gpt "
             "\"$@\"\n");
    test_write(data, "fails", program);
    test_command(output, sizeof output, "chmod +x %s/fails", data);
    char binaries[2048];
    if (!realpath(test_binaries(), binaries)) die("cannot find '%s'", test_binaries());
    setenv("B", binaries, 1);
    snprintf(arguments, sizeof arguments,
             "--program=%s/fails --jobs=2 --out=%s/ab --vary=attn=standard,laser --seeds=4,5 "
             "--sweep=lr=1e-3,2e-2,9",
             data, data);
    int code = ab_run(output, sizeof output, data, arguments, "--steps=12");
    CHECK(code == 1 && strstr(output, "8 runs: ") &&
              strstr(output, "laser-lr=9-seed-4 failed (exit code 1); the other runs go on") &&
              strstr(output, "2 of 8 runs failed: ") &&
              strstr(output, "standard-lr=2e-2-seed-5: validation loss") &&
              strstr(output, "laser-lr=2e-2-seed-5: validation loss") && strstr(output, "2 pairs)"),
          "code %d: %s", code, output);
    const char *table = strstr(output, "* is taken for its arm"),
               *row = table ? strstr(table, "\nlaser ") : NULL;
    CHECK(row && strstr(row, "*") < strstr(row, "failed") && strstr(row, "failed") < strchr(row + 1, '\n'),
          "%s", output);
    CHECK(!strstr(output, "is at an end"), "%s", output);
    snprintf(arguments, sizeof arguments,
             "--program=%s/fails --jobs=2 --out=%s/end --vary=attn=standard,laser --seeds=4,5 "
             "--sweep=lr=1e-3,2e-2",
             data, data);
    code = ab_run(output, sizeof output, data, arguments, "--steps=12");
    CHECK(code == 0 && strstr(output, "the best --lr of laser, 2e-2, is at an end of the list"),
          "code %d: %s", code, output);
    snprintf(arguments, sizeof arguments,
             "--program=%s/fails --out=%s/early --vary=attn=standard,laser --seeds=4,5 --sweep=lr=9,1e-3",
             data, data);
    code = ab_run(output, sizeof output, data, arguments, "--steps=12 --prompt=early");
    CHECK(code == 1 && strstr(output, "error: too early") && strstr(output, "failed before its first step") &&
              !strstr(output, "run 2 of"),
          "code %d: %s", code, output);
    unsetenv("B");
}

/* Runs side by side must not share a GPU, and must take only those that the user allows. */
static void test_ab_gives_each_run_its_gpus(void) {
    static const struct {
        const char *visible, *arguments, *standard, *laser;
    } cases[] = {{"", "--gpus=2", "GPU 0\n", "GPU 1\n"},
                 {"", "--gpus=4 --jobs=2", "GPU 0,1\n", "GPU 2,3\n"},
                 {"CUDA_VISIBLE_DEVICES=5,6", "--gpus=2", "GPU 5\n", "GPU 6\n"}};
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    test_write(data, "gpu", "#!/bin/sh\necho GPU $CUDA_VISIBLE_DEVICES\nexec $B/train_gpt \"$@\"\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int code = test_command(
            output, sizeof output,
            "chmod +x %s/gpu; export B=$(cd %s && pwd); env AB_PAUSE=0.01 %s scripts/ab.sh --program=%s/gpu "
            "--out=%s/ab%zu "
            "--vary=attn=standard,laser --seeds=1 %s -- " TINY_MODEL AB_TINY "--data=%s --steps=4 || exit 1; "
            "head -qn 1 %s/ab%zu/output/standard-seed-1.txt %s/ab%zu/output/laser-seed-1.txt",
            data, test_binaries(), cases[i].visible, data, data, i, cases[i].arguments, data, data, i, data,
            i);
        const char *standard = strstr(output, cases[i].standard), *laser = strstr(output, cases[i].laser);
        CHECK(code == 0 && standard && laser && standard < laser, "%s %s: code %d: %s", cases[i].visible,
              cases[i].arguments, code, output);
    }
}

/* Runs scripts/ablations.sh with the tiny model. */
static int ablations_run(char *output, size_t size, const char *data, const char *arguments) {
    return test_command(
        output, size,
        "scripts/ablations.sh --program=%s/train_gpt --data=%s --out=%s/runs --steps=8 --seeds=2 "
        "%s %s " TINY_MODEL AB_TINY,
        test_binaries(), data, data, arguments, strstr(arguments, "-- ") ? "" : "--");
}

/* Writes data/NAME, a program that is the real trainer, except that the branches `instead` of a `case` over its arguments
   come first, with $out the folder of the run. With --dry-run it does nothing. */
static void ablations_trainer(const char *data, const char *name, const char *instead) {
    char program[4096], binaries[2048], output[256];
    if (!realpath(test_binaries(), binaries)) die("cannot find '%s'", test_binaries());
    snprintf(program, sizeof program,
             "#!/bin/sh\nfor a; do case $a in --out=*) out=${a#--out=} ;; --dry-run) exit 0 ;; esac; done\n"
             "begin() { mkdir -p $out && echo '{\"step\": 1, \"loss\": 9}' > $out/log.jsonl; }\n"
             "case \" $* \" in\n%s\nesac\nexec %s/train_gpt \"$@\"\n",
             instead, binaries);
    test_write(data, name, program);
    test_command(output, sizeof output, "cd %s && chmod +x %s && ln -sf %s/report .", data, name, binaries);
}

/* scripts/ablations.sh: rates are swept with the first seed, the best serves the others and the rows without rates; nothing is
   repeated, nothing mixed, and the table is that of ./report. */
static void test_ablations_are_compared(void) {
    char output[8192], data[256], arguments[512];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = ablations_run(output, sizeof output, data, "--only=laser-clamp,qk-norm --jobs=2");
    CHECK(code == 0 && count_of(output, "-seed-1: ") == 10 && count_of(output, "-seed-2: ") == 4 &&
              count_of(output, "\n| ") == 6 && strstr(output, "\n| `--qk-norm=yes` | ") &&
              strstr(output, "\n| `--attn=laser --laser-shift=clamp` | ") && strstr(output, " | laser | ") &&
              count_of(output, " to ") == 3,
          "code %d: %s", code, output);
    code = ablations_run(output, sizeof output, data, "--only=qk-norm");
    CHECK(code == 0 && count_of(output, "-seed-") == 0 && count_of(output, "\n| ") == 3, "code %d: %s", code,
          output);
    code = ablations_run(output, sizeof output, data, "--table --only=laser");
    CHECK(code == 0 && count_of(output, "\n| ") == 3 && strstr(output, " to "), "code %d: %s", code, output);

    static const struct {
        const char *arguments, *says;
        int code;
    } wrong[] = {
        {"--only=lazer", "there is no row 'lazer'; the rows are standard laser ", 2},
        {"--seeds=1", "--seeds=1: expected a whole number from 2", 2},
        {"--steps=9", "was made with other settings (--steps=8", 2},
        {"--sedes=3", "unknown option '--sedes=3'", 2},
        {"--data=/nowhere", "there is no such folder", 2},
        {"--only=,", "--only=, names no row", 2},
        {"--table --out=/nowhere", "--out=/nowhere: there is no such folder", 2},
        {"-- --lr=1e-3", "--lr=1e-3 after --: scripts/ablations.sh gives each run its own", 2},
        {"-- --steps 8", "--steps after --: it stands before --", 2},
        /* of a row that would be trained last, and before anything is written */
        {"--out=/nowhere/x --only=diff", "the row diff: num_attention_heads (--heads) is 3", 2},
        {"--program=/nowhere", "there is no program /nowhere", 1},
        {"--out=/proc/self/none --only=standard", "--out=/proc/self/none: cannot write there", 1},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        code = ablations_run(output, sizeof output, data, wrong[i].arguments);
        CHECK(code == wrong[i].code && strstr(output, wrong[i].says), "%s: code %d: %s", wrong[i].arguments,
              code, output);
    }
    snprintf(arguments, sizeof arguments, "--out=%s --only=laser", data); /* holds shards */
    code = ablations_run(output, sizeof output, data, arguments);
    CHECK(code == 2 && strstr(output, "holds other files already"), "code %d: %s", code, output);
}

/* A SIGTERM lets the runs save; the same command goes on and ends as if there had been none. */
static void test_ablations_go_on_after_an_interruption(void) {
    char output[8192], whole[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    static const char *const command = "scripts/ablations.sh --program=%s/train_gpt --data=%s --out=%s/%s "
                                       "--steps=200 --seeds=2 --only=standard "
                                       "-- " TINY_MODEL AB_TINY "--threads=1 --batch=1 ";
    char begin[1024];
    snprintf(begin, sizeof begin, command, test_binaries(), data, data, "parts");
    /* interrupted when the first run has done 20 steps */
    int code =
        test_command(output, sizeof output,
                     "log=%s/parts/standard-lr-1e-3-seed-1/log.jsonl; %s & "
                     "until grep -qs '\"step\": 20,' $log; do sleep 0.02; done; kill -TERM $!; wait $!; "
                     "code=$?; tail -n 1 $log; exit $code",
                     data, begin);
    CHECK(code == 1 && strstr(output, "interrupted") && !strstr(output, "\"step\": 200,"), "code %d: %s",
          code, output);
    test_command(whole, sizeof whole, command, test_binaries(), data, data, "whole");
    code = test_command(output, sizeof output, "%s", begin);
    const char *table = strstr(whole, "\n| "), *again = strstr(output, "\n| ");
    CHECK(code == 0 && table && again && strcmp(table, again) == 0, "code %d: %s\n%s", code, whole, output);
}

/* A run that is killed has not diverged: the script says so and ends, and the same command goes on with it. One that has
   diverged is a result, also where every rate does so. */
static void test_ablations_tell_killed_from_diverged(void) {
    char output[8192], data[256], arguments[512];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    ablations_trainer(data, "fails",
                      "*attn=laser*) begin; echo error: the run has diverged >&2; exit 1 ;;\n"
                      "*--lr=1e-3\\ *) [ -e $out.killed ] || { begin; > $out.killed; kill -9 $$; } ;;");
    snprintf(arguments, sizeof arguments, "--only=laser --program=%s/fails", data);
    int code = ablations_run(output, sizeof output, data, arguments);
    CHECK(code == 1 && strstr(output, "standard-lr-1e-3-seed-1 ended with exit code 137") &&
              strstr(output, "the same command goes on") && count_of(output, ": failed") == 0,
          "code %d: %s", code, output);
    code = ablations_run(output, sizeof output, data, arguments);
    CHECK(code == 0 && strstr(output, "standard-lr-1e-3-seed-1: ") && count_of(output, ": failed") == 4 &&
              strstr(output, "note: laser: no run with seed 1") &&
              strstr(output, "| failed failed failed failed | standard | | |"),
          "code %d: %s", code, output);
}

/* A job scheduler kills what is left when the script ends, so it must not end before its runs have saved; and two
   scripts in one folder would disturb each other. */
static void test_ablations_wait_until_runs_have_saved(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    ablations_trainer(
        data, "saves",
        "*) trap 'sleep 0.5; > $out/saved; exit 0' TERM; begin; while :; do sleep 0.02; done ;;");
    const bool locks = test_command(output, sizeof output, "command -v flock") == 0;
    const int code = test_command(
        output, sizeof output,
        "command=\"$PWD/scripts/ablations.sh --program=./saves --data=. --out=runs --only=standard\"; cd %s; "
        "$command & pid=$!; until [ -s runs/standard-lr-5e-4-seed-1/log.jsonl ]; do sleep 0.02; done; "
        "%s; kill -TERM $pid; wait $pid; echo code $?; ls runs/standard-lr-5e-4-seed-1/saved",
        data, locks ? "$command; echo other $?" : ":");
    CHECK(code == 0 && strstr(output, "code 1"), "code %d: %s", code, output);
    CHECK(!locks ||
              (strstr(output, "another scripts/ablations.sh trains in runs") && strstr(output, "other 1")),
          "%s", output);
}

#define AB_TESTS(TEST)                                                                                       \
    TEST(ab_checks_before_it_trains)                                                                         \
    TEST(ab_repeats_nothing_and_mixes_nothing)                                                               \
    TEST(ab_gives_each_run_its_gpus)                                                                         \
    TEST(ab_goes_on_after_an_interruption)                                                                   \
    TEST(ab_sweeps_and_survives_failures)                                                                    \
    TEST(ablations_are_compared)                                                                             \
    TEST(ablations_tell_killed_from_diverged)                                                                \
    TEST(ablations_wait_until_runs_have_saved)                                                               \
    TEST(ablations_go_on_after_an_interruption)

#endif
