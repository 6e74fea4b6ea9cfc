/* test_reproduce.h: tests of scripts/reproduce_c4_301m.sh, at a scale that takes seconds. */
#ifndef TESTS_TEST_REPRODUCE_H
#define TESTS_TEST_REPRODUCE_H

#include "harness.h"

/* The script with the programs of the tests, on one thread: a tiny model is slower on several. */
#define REPRODUCE "REPRODUCE_PROGRAMS=%s OMP_NUM_THREADS=1 RESILIENT_PAUSE=0 scripts/reproduce_c4_301m.sh "

/* A folder with the file c4.json.gz, generated text in C4's format. */
static const char *reproduce_text(void) {
    const char *folder = test_folder();
    char output[2048];
    if (test_command(
            output, sizeof output,
            "cd %s && awk 'BEGIN { for (i = 0; i < 600; i++) { text = \"\"; for (k = 0; k < 40; k++) "
            "text = text \" word\" (i * 37 + k * k * 11) %% 97; print \"{\\\"text\\\": \\\"\" text "
            "\"\\\"}\" } }' | gzip > c4.json.gz",
            folder) != 0)
        die("%s", output);
    return folder;
}

/* Starts the script in the background and kills it with SIGKILL as soon as `when`, a shell condition, holds. With `all`
   everything that it has started is killed too, else goes on alone. Returns whether it was killed before it ended. */
static bool reproduce_killed(const char *folder, const char *when, bool all) {
    char output[8192];
    const int code = test_command(
        output, sizeof output,
        "o=%s/killed; tree() { echo $1; for c in $(pgrep -P $1); do tree $c; done; }; " REPRODUCE
        "--scale=1/100000 --on=cpu --text=%s/c4.json.gz --out=$o --yes > $o.txt 2>&1 < /dev/null & pid=$!; "
        "for i in $(seq 6000); do kill -0 $pid 2> /dev/null || exit 1; %s && break; sleep 0.01; done; "
        "kill -9 $(if %s; then tree $pid; else echo $pid; fi); wait $pid 2> /dev/null; exit 0",
        folder, test_binaries(), folder, when, all ? "true" : "false");
    return code == 0;
}

/* From text to the report. Then the same again, killed in every part: what comes out must have the same bits, or a user
   whose machine was switched off could not trust the curves. */
static void test_reproduce_survives_kills(void) {
    static const struct {
        const char *when;
        bool all;
    } kills[] = {
        {"[ -e $o/data/tokenizer.json ]", true},
        {"grep -qs '\"step\": 12,' $o/standard/log.jsonl", true},
        {"grep -qs '\"step\": 30,' $o/standard/log.jsonl", false},
        {"grep -qs '\"step\": 20,' $o/laser/log.jsonl", true},
    };
    static char output[1 << 16];
    char folder[128];
    if (test_command(output, sizeof output, "command -v pgrep && command -v gzip && command -v bash") != 0) {
        test_not_run("there is no pgrep, gzip or bash");
        return;
    }
    snprintf(folder, sizeof folder, "%s", reproduce_text());
    int code = test_command(output, sizeof output,
                            REPRODUCE "--scale=1/100000 --on=cpu --text=%s/c4.json.gz --out=%s/whole --yes",
                            test_binaries(), folder, folder);
    REQUIRE(code == 0, "code %d: %s", code, strlen(output) > 900 ? output + strlen(output) - 900 : output);
    static const char *const says[] = {"at scale 1/100000, on cpu",
                                       "51 steps of 96 tokens",
                                       "measured here, by ./train_gpt --dry-run",
                                       "   disk       ",
                                       "Training with standard attention",
                                       "Training with laser attention",
                                       "What came out",
                                       "the published losses (2.641 and 2.595) are not drawn"};
    for (size_t i = 0; i < sizeof says / sizeof *says; i++)
        CHECK(strstr(output, says[i]), "'%s' is not said", says[i]);
    for (size_t i = 0; i < sizeof kills / sizeof *kills; i++)
        CHECK(reproduce_killed(folder, kills[i].when, kills[i].all), "it ended before it was killed at: %s",
              kills[i].when);
    /* --yes is not needed a second time */
    code =
        test_command(output, sizeof output,
                     REPRODUCE "--scale=1/100000 --on=cpu --text=%s/c4.json.gz --out=%s/killed < /dev/null",
                     test_binaries(), folder, folder);
    CHECK(code == 0, "code %d: %s", code, strlen(output) > 900 ? output + strlen(output) - 900 : output);
    code = test_command(
        output, sizeof output,
        "cd %s && for a in standard laser; do cmp whole/$a/step-00000051/model.safetensors "
        "killed/$a/step-00000051/model.safetensors && for r in whole killed; do grep val_loss "
        "$r/$a/log.jsonl "
        "> $r.$a; done; diff whole.$a killed.$a || exit 1; done; ls killed/report.html killed/loss.png",
        folder);
    CHECK(code == 0, "after the kills: %s", output);
    code = test_command(output, sizeof output,
                        REPRODUCE "--scale=1/100000 --on=cpu --text=%s/c4.json.gz --seed=2 --out=%s/killed",
                        test_binaries(), folder, folder);
    CHECK(code == 1 && strstr(output, "seed=2") && strstr(output, "with other settings (above)"),
          "code %d: %s", code, output);
}

/* What is wrong must be said before hours of work begin. */
static void test_reproduce_refuses_clearly(void) {
    static const struct {
        int code;
        const char *arguments, *says;
    } cases[] = {
        {2, "--scale=0", "--scale=0: expected a number from 1/1000000 to 1"},
        {2, "--scale=2", "--scale=2: expected a number from"},
        {2, "--scale=1/0", "--scale=1/0: expected"},
        {2, "--scale=1/2/3", "--scale=1/2/3: expected"},
        {2, "--scale=half", "--scale=half: expected"},
        {2, "--scale=", "--scale=: expected"},
        {2, "--on=tpu", "--on=tpu: expected gpu, gpus=8, cpu, slurm-gpu or slurm-cpu"},
        {2, "--on=gpus=0", "--on=gpus=0: expected at least 1"},
        {1, "--on=gpus=7", "a step has 1024 sequences, which 7 processes cannot share"},
        {2, "--nodes=x", "--nodes=x: expected a whole number"},
        {2, "--batch=1.5", "--batch=1.5: expected a whole number"},
        {2, "--scales=1", "unknown option --scales=1; expected --on= "},
        {2, "c4.json.gz", "'c4.json.gz' is no option; files of text stand after --text="},
        {1, "--text=$d/c4.json.gz $d/none.json.gz", "none.json.gz'; name a file that exists"},
        {1, "--tokenizer=/nowhere.model", "there is no file '/nowhere.model'"},
        {1, "--data=$d", "there is no shards.json; ./prepare writes it last"},
        {2, "--data=$d --text=$d/c4.json.gz", "shards need no text"},
        {2, "--scale=1/100000 --on=cpu --text=$d/c4.json.gz --out=$d/o < /dev/null",
         "there is no terminal; give --yes"},
        {1, "--on=slurm-gpu --yes --out=$d/o", "there is not enough space in"},
    };
    char output[8192], folder[128];
    snprintf(folder, sizeof folder, "%s", reproduce_text());
    /* A disk with 100 GB free; C4 and its tokens need 688. */
    int code = test_command(output, sizeof output,
                            "mkdir %s/bin && printf '%%s\\n' '#!/bin/sh' 'echo Filesystem' 'echo disk 1 1 "
                            "100000000 1%%%% /' > %s/bin/df && chmod +x %s/bin/df",
                            folder, folder, folder);
    REQUIRE(code == 0, "%s", output);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        code = test_command(output, sizeof output, "d=%s; PATH=$d/bin:$PATH " REPRODUCE "%s", folder,
                            test_binaries(), cases[i].arguments);
        CHECK(code == cases[i].code && strstr(output, cases[i].says), "%s: code %d: %s", cases[i].arguments,
              code, output);
    }
    code = test_command(output, sizeof output, "ls %s", folder);
    CHECK(strcmp(output, "bin\nc4.json.gz\n") == 0, "it has left files: %s", output);
}

/* With Slurm the script submits one job for each attention, does not submit them twice while they are in the queue, and
   submits the one again that has left the queue without being done. */
static void test_reproduce_submits_jobs(void) {
    char output[8192], folder[128], command[1024];
    snprintf(folder, sizeof folder, "%s", reproduce_text());
    int code = test_command(
        output, sizeof output,
        "cd %s && mkdir bin && printf '%%s\\n' '#!/bin/sh' 'echo \"$OUT $*\" >> %s/jobs' 'wc -l < %s/jobs' > "
        "bin/sbatch && printf '%%s\\n' '#!/bin/sh' '[ $3 = 1 ] && echo running || true' > bin/squeue && "
        "chmod "
        "+x bin/*",
        folder, folder, folder);
    REQUIRE(code == 0, "%s", output);
    snprintf(command, sizeof command,
             "d=%s; PATH=$d/bin:$PATH " REPRODUCE
             "--scale=1/1000 --on=slurm-cpu --nodes=4 --text=$d/c4.json.gz --out=$d/o --yes",
             folder, test_binaries());
    code = test_command(output, sizeof output, "%s && %s && cat $d/jobs", command, command);
    CHECK(code == 0 && strstr(output, "job 1, not begun") && strstr(output, "same command writes the report"),
          "code %d: %s", code, output);
    code = test_command(
        output, sizeof output,
        "grep -c '^%s/o/standard --parsable --nodes=4 scripts/slurm_cpu.sh --preset=c4-301m "
        "--batch=2 .*--steps=1271 .*--attn=standard$' %s/jobs; grep -c 'o/laser .*--attn=laser$' "
        "%s/jobs",
        folder, folder, folder);
    CHECK(strcmp(output, "1\n2\n") == 0, "the jobs are %s", output);
}

#define REPRODUCE_TESTS(TEST)                                                                                \
    TEST(reproduce_survives_kills) TEST(reproduce_refuses_clearly) TEST(reproduce_submits_jobs)

#endif
