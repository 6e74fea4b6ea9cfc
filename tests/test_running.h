/* test_running.h: tests of every program in unusual surroundings: streams that are closed or cannot be written,
   terminals of a launcher, the user's language, limits of a container, libraries in unusual places; and of times as
   text, --help and --version. */
#ifndef TESTS_TEST_RUNNING_H
#define TESTS_TEST_RUNNING_H

#include <signal.h>
#include <sys/resource.h>
#include "harness.h"
#include "test_faults.h"
#include "test_model.h"
#include "test_parallel.h"
#include "test_train.h"

/* A short command for every program, which prints something. It runs in the folder that running_begin makes; $B is the
   folder of the programs. */
static const char *const running_programs[] = {
    "$B/train_gpt --data=. " TINY_MODEL "--steps=2 --batch=2 --warmup=1 --val-tokens=26 --threads=1",
    "$B/prepare --quiet --overwrite --vocab=300 --val-fraction=0 --threads=1 --out=tokens text.txt",
    "$B/report --out= run",
    "$B/generate --tokens=3 --threads=1 model",
    "$B/grammar --score=text.txt",
    "$B/analyze --data=text model",
    "$B/evaluate --text=text.txt model",
    "$B/explain --prompt=a --out= model",
    "$B/train_gpt --help",
    "$B/report --version",
};
enum { RUNNING_PROGRAMS = sizeof running_programs / sizeof *running_programs };

/* A folder with shards, a text, a run and a checkpoint that can write text. */
static void running_begin(char folder[256]) {
    static char output[8192];
    snprintf(folder, 256, "%s", write_test_data(600));
    const int code = test_command(
        output, sizeof output,
        "B=$(cd %s && pwd); cd %s && $B/grammar --bytes=20000 "
        "--out=text.txt && $B/prepare --quiet --vocab=300 --threads=1 --out=text --separator='<|endoftext|>' "
        "text.txt && "
        "$B/train_gpt --data=text --layers=1 --heads=1 --head-dim=8 --embd=8 --mlp-hidden=8 --seq-len=8 "
        "--batch=2 "
        "--steps=2 --warmup=1 --val-tokens=8 --threads=1 --out=run && cp -r run/step-00000002 model",
        test_binaries(), folder);
    if (code != 0) die("no folder to test with: %s", output);
}

/* ---- output that cannot be written ---- */

/* A program whose output could not be written, to a full disk or a closed pipe, must not exit with 0: a script would
   take the missing result for complete. */
static void test_lost_output_is_no_success(void) {
    char output[8192], folder[256];
    running_begin(folder);
    for (int i = 0; i < RUNNING_PROGRAMS; i++) {
        int code =
            test_command(output, sizeof output, "B=$(cd %s && pwd); cd %s && %s > printed && [ -s printed ]",
                         test_binaries(), folder, running_programs[i]);
        CHECK(code == 0, "'%s' prints nothing or fails: exit %d: %s", running_programs[i], code, output);
        if (access("/dev/full", W_OK) == 0) {
            code = test_command(output, sizeof output, "B=$(cd %s && pwd); cd %s && %s > /dev/full",
                                test_binaries(), folder, running_programs[i]);
            CHECK(code == 1 && strstr(output, "what was printed is lost") && strstr(output, strerror(ENOSPC)),
                  "'%s' to a full disk: exit %d: %s", running_programs[i], code, output);
        }
        /* A pipe whose reader has ended. The parent ignores SIGPIPE, as some programs do, so writing fails instead. */
        code = test_command(
            output, sizeof output,
            "B=$(cd %s && pwd); cd %s && rm -f p && mkfifo p && exec 3<>p 4>p && exec 3<&- && trap '' "
            "PIPE && %s >&4",
            test_binaries(), folder, running_programs[i]);
        CHECK(code == 1 && strstr(output, "what was printed is lost"), "'%s' to a closed pipe: exit %d: %s",
              running_programs[i], code, output);
    }
    /* the files in the folder of the run are complete nevertheless */
    int code = test_command(output, sizeof output,
                            "B=$(cd %s && pwd); cd %s && %s --out=kept > /dev/full; echo exit $?; ls kept",
                            test_binaries(), folder, running_programs[0]);
    CHECK(code == 0 && strstr(output, "exit 1") && strstr(output, "summary.json") &&
              strstr(output, "step-00000002"),
          "%s", output);
}

static void running_lose_early(void *folder) {
    char path[300];
    struct rlimit limit;
    snprintf(path, sizeof path, "%s/file", (const char *)folder);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    FILE *file = check_fopen(path, "w", "");
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){0, limit.rlim_max});
    fprintf(file, "the disk is full"), fflush(file);
    setrlimit(RLIMIT_FSIZE, &limit);
    check_fclose(file, path); /* the disk has space again, but the lost part is missing in the file */
}

/* A write that failed early must still be reported when the file is closed, even though the disk has space again:
   the lost part is missing. */
static void test_early_loss_shows_at_close(void) {
    char output[1024];
    const int code = test_death(running_lose_early, (void *)(uintptr_t)test_folder(), output, sizeof output);
    CHECK(code == 1 && strstr(output, "cannot write"), "code %d: %s", code, output);
}

/* When the caller has closed a standard stream, no file may get its descriptor: messages would be written into
   checkpoints. */
static void test_closed_streams_stay_out_of_files(void) {
    static const char *const closed[] = {"<&- >&- 2>&-", ">&-"};
    char output[8192], folder[256];
    running_begin(folder);
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++) {
        const int code = test_command(
            output, sizeof output,
            "B=$(cd %s && pwd); cd %s; rm -rf a b t r\n"
            "$B/grammar --bytes=3000 --out=a > /dev/null; $B/grammar --bytes=3000 --out=b %s && cmp a b || "
            "exit 1\n"
            "%s --out=r %s || exit 2; grep -qv '^{\"step\": .*}$' r/log.jsonl && exit 3; [ -s r/log.jsonl ] "
            "|| exit 4\n"
            "$B/report --out=r.html r %s || exit 5; [ \"$(head -c 9 r.html)\" = '<!doctype' ] || exit 6\n"
            "$B/prepare --vocab=300 --threads=1 --separator='<|endoftext|>' --out=t text.txt %s || exit 7; "
            "$B/prepare --out=t --verify "
            "|| exit 8\n"
            "$B/generate --tokens=3 --threads=1 model %s || exit 9",
            test_binaries(), folder, closed[i], running_programs[0], closed[i], closed[i], closed[i],
            closed[i]);
        CHECK(code == 0, "closed %s: step %d: %s", closed[i], code, output);
    }
}

/* ---- terminals ---- */

/* Whether a program whose output is a terminal believes that a person looks at it: without a launcher, and with one
   whose own output goes to a terminal or to a file. */
static bool running_sees_terminal(bool launched, bool launcher_on_terminal) {
    int master = posix_openpt(O_RDWR | O_NOCTTY), status = 0;
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) die("no terminal: %s", strerror(errno));
    int terminal = open(ptsname(master), O_RDWR | O_NOCTTY), file = open("/dev/null", O_RDWR);
    fflush(NULL);
    pid_t launcher = fork();
    if (launcher == 0) {
        test_state.forked = true;
        dup2(launcher_on_terminal ? terminal : file, STDOUT_FILENO);
        pid_t program = fork();
        if (program == 0) {
            dup2(terminal, STDOUT_FILENO);
            setenv("TERM", "xterm", 1);
            unsetenv("OMPI_COMM_WORLD_SIZE"), unsetenv("PMI_SIZE"), unsetenv("PMI_RANK"),
                unsetenv("PMIX_RANK"), unsetenv("MPI_LOCALNRANKS");
            if (launched) setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
            _exit(program_on_terminal(stdout));
        }
        waitpid(program, &status, 0);
        _exit(WEXITSTATUS(status));
    }
    waitpid(launcher, &status, 0);
    close(terminal), close(master), close(file);
    return WEXITSTATUS(status) == 1;
}

/* mpirun gives its ranks a terminal of its own. A rank that took it for a person's would write progress lines with
   control characters into the log of the job. */
static void test_launched_rank_is_no_terminal(void) {
    char output[16384], data[256];
    CHECK(running_sees_terminal(false, false), "a terminal is not seen");
    CHECK(!running_sees_terminal(true, false),
          "the terminal that mpirun makes is taken for one that somebody sees");
#ifdef __linux__
    CHECK(running_sees_terminal(true, true), "the terminal of who started mpirun is not seen");
#endif
    const char *launcher = launch_ranks(2);
    if (!*launcher) return;
    snprintf(data, sizeof data, "%s", write_test_data(600));
    const int code =
        test_command(output, sizeof output,
                     "cd %s && TERM=xterm %s $OLDPWD/%s/train_gpt " TINY_RANKS "--batch=6 --data=. > said < "
                     "/dev/null; cat said",
                     data, launcher, test_binaries());
    CHECK(code == 0 && strstr(output, "12/12") && !strchr(output, '\r') && !strchr(output, '\033'),
          "exit %d: %s", code, output);
}

/* ---- texts ---- */

/* A count that is rounded wrongly ("1000k") or too wide would make tables hard to read. */
static void test_counts_are_readable(void) {
    static const struct {
        double value;
        const char *shortest, *fixed, *grouped;
    } cases[] = {{0, "0", "0.0", "0"},
                 {9.5, "10", "9.5", "10"},
                 {950, "950", "950", "950"},
                 {16384, "16.4k", "16.4k", "16,384"},
                 {999960, "1.00M", "1.0M", "999,960"},
                 {301203456, "301M", "301.2M", "301,203,456"},
                 {1.678e11, "168B", "167.8B", "167,800,000,000"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char a[FORMAT_SIZE], b[FORMAT_SIZE], c[FORMAT_SIZE];
        count_short(a, cases[i].value), count_fixed(b, cases[i].value, 1, 0),
            count_grouped(c, cases[i].value);
        CHECK(strcmp(a, cases[i].shortest) == 0 && strcmp(b, cases[i].fixed) == 0 &&
                  strcmp(c, cases[i].grouped) == 0,
              "%g is '%s', '%s' and '%s'", cases[i].value, a, b, c);
    }
}

/* A duration that is rounded wrongly ("1:60") would mislead whoever plans by it. */
static void test_durations_are_readable(void) {
    static const struct {
        double seconds;
        const char *clock, *words;
    } cases[] = {
        {0, "0:00", "0.0 s"},
        {9.94, "0:10", "9.9 s"},
        {59.4, "0:59", "59 s"},
        {83, "1:23", "1 min 23 s"},
        {3599.6, "1:00:00", "1 h 00 min"},
        {4000, "1:06:40", "1 h 06 min"},
        {35999, "9:59:59", "9 h 59 min"},
        {36000, "10h00m", "10 h 00 min"},
        {359999, "99h59m", "4 days 3 hours"},
        {3 * 86400 + 3600, "73h00m", "3 days 1 hour"},
        {11 * 86400.0, "11d00h", "11 days 0 hours"},
        {364 * 86400.0, "364d00h", "364 days 0 hours"},
        {365 * 86400.0, "1y000d", "1 year 0 days"},
        {11574 * 86400.0, "31y259d", "31 years 259 days"},
        {366 * 86400.0, "1y001d", "1 year 1 day"},
        {365e3 * 86400, "1000y", "1000 years 0 days"},
        {1e300, "9999y", "9999 years 0 days"},
        {INFINITY, "9999y", "9999 years 0 days"},
        {NAN, "-", "-"},
        {-1, "-", "-"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char clock[FORMAT_SIZE], words[FORMAT_SIZE];
        duration_clock(clock, cases[i].seconds), duration_words(words, cases[i].seconds);
        CHECK(strcmp(clock, cases[i].clock) == 0 && strcmp(words, cases[i].words) == 0, "%g s: '%s' and '%s'",
              cases[i].seconds, clock, words);
        CHECK(strlen(clock) <= 7, "'%s' is too wide for its column", clock);
    }
}

/* Every program must answer --help and --version: bug reports need the version. */
static void test_every_program_tells_what_it_is(void) {
    static const char *const programs[] = {"train_gpt",
                                           "prepare",
                                           "report",
                                           "generate",
                                           "grammar",
                                           "analyze",
                                           "explain",
                                           "evaluate",
                                           "build/bench",
                                           "build/train_gpt_emulated",
                                           "build/bench_gpu_emulated"};
    static char output[32768], help[32768];
    char path[300];
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        snprintf(path, sizeof path, "%s/%s", test_binaries(), programs[i]);
        if (i > 7 && access(path, X_OK) != 0) continue; /* not part of every build */
        int code = test_command(output, sizeof output, "%s --version", path);
        CHECK(code == 0 && strstr(output, " of laser.c") && strstr(output, ", commit ") &&
                  strstr(output, ", compiled by ") && count_of(output, "\n") == 1,
              "%s --version: exit %d: %s", programs[i], code, output);
        code = test_command(help, sizeof help, "%s --help", path);
        CHECK(code == 0 && strstr(help, "--version"), "%s --help: exit %d: %s", programs[i], code, help);
        code = test_command(output, sizeof output, "%s -h", path);
        CHECK(code == 0 && strcmp(output, help) == 0, "%s -h: exit %d: %s", programs[i], code, output);
    }
    char data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    train_tiny(data, "run", "--threads=1", output, sizeof output);
    test_command(output, sizeof output, "%s/train_gpt --version; uname -n", test_binaries());
    snprintf(path, sizeof path, "%s/run", data);
    cJSON *config = checkpoint_read_json(path, "config.json");
    const char *const keys[] = {"commit", "compiler", "host"};
    for (int i = 0; i < 3; i++) {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(config, keys[i]));
        CHECK(text && *text && strstr(output, text), "the run's %s is '%s', not that of: %s", keys[i],
              text ? text : "missing", output);
    }
    const char *date = cJSON_GetStringValue(cJSON_GetObjectItem(config, "date"));
    int year = 0, month = 0, second = -1;
    CHECK(date && strlen(date) == 20 &&
              sscanf(date, "%d-%d-%*2dT%*2d:%*2d:%dZ", &year, &month, &second) == 3 && year > 2020 &&
              month >= 1 && month <= 12 && second >= 0,
          "the run's date is '%s'", date ? date : "missing");
    cJSON_Delete(config);
}

/* ---- limits of a container ---- */

/* Writes files into a folder, and makes the folders they are in. */
static void running_tree(const char *folder, const char *const files[][2]) {
    char output[512], path[300];
    for (; (*files)[0]; files++) {
        snprintf(path, sizeof path, "%s/%s", folder, (*files)[0]);
        *strrchr(path, '/') = 0;
        if (test_command(output, sizeof output, "mkdir -p '%s'", path) != 0) die("%s", output);
        test_write(folder, (*files)[0], (*files)[1]);
    }
}

/* In a container the program must use the cores and the memory of its limits, not those of the machine; with too
   many threads it is slow, with too much memory it is killed. */
static void test_control_groups_limit(void) {
    enum { FILES = 12 };
    static const struct {
        const char *what, *list, *files[FILES][2];
        double cores, memory;
    } cases[] = {
        {"no groups", NULL, {{"x/y", ""}}, INFINITY, INFINITY},
        {"version 2, without limits",
         "0::/\n",
         {{"memory.max", "max\n"}, {"cpu.max", "max 100000\n"}},
         INFINITY,
         INFINITY},
        {"version 2, the page cache gives way",
         "0::/a/b\n",
         {{"a/b/memory.max", "1000000\n"},
          {"a/b/memory.current", "700000\n"},
          {"a/b/memory.stat", "anon 1\nfile 5\ninactive_file 100000\nactive_file 50000\n"},
          {"a/b/cpu.max", "150000 100000\n"}},
         1.5,
         450000},
        {"version 2, the parent limits",
         "0::/a/b\n",
         {{"a/b/memory.max", "max\n"},
          {"a/memory.max", "5000\n"},
          {"a/memory.current", "6000\n"},
          {"a/cpu.max", "50000 100000\n"},
          {"a/b/cpu.max", "max 100000\n"}},
         0.5,
         0},
        {"version 2, the path is that outside of the container",
         "0::/docker/0123\n",
         {{"memory.max", "4000\n"}, {"memory.current", "1000\n"}, {"cpu.max", "300000 100000\n"}},
         3,
         3000},
        {"version 1",
         "4:memory:/job\n3:cpu,cpuacct:/job\n1:name=systemd:/x\n",
         {{"memory/job/memory.limit_in_bytes", "1000000\n"},
          {"memory/job/memory.usage_in_bytes", "400000\n"},
          {"memory/job/memory.stat", "total_inactive_file 7\n"},
          {"memory/memory.limit_in_bytes", "9223372036854771712\n"},
          {"cpu/job/cpu.cfs_quota_us", "200000\n"},
          {"cpu/job/cpu.cfs_period_us", "100000\n"},
          {"cpu/cpu.cfs_quota_us", "-1\n"},
          {"cpu/cpu.cfs_period_us", "100000\n"}},
         2,
         600007},
        {"both versions",
         "4:memory:/job\n0::/job\n",
         {{"memory/job/memory.limit_in_bytes", "1000\n"},
          {"memory/job/memory.usage_in_bytes", "0\n"},
          {"unified/job/cpu.max", "400000 100000\n"}},
         4,
         1000},
        {"damaged", "0::\nx\n\n:::\n", {{"memory.max", "\n"}, {"cpu.max", "lots\n"}}, INFINITY, INFINITY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char list[300], mount[200];
        snprintf(mount, sizeof mount, "%s", test_folder());
        running_tree(mount, cases[i].files);
        if (cases[i].list) test_write(mount, "list", cases[i].list);
        snprintf(list, sizeof list, "%s/list", mount);
        const CgroupLimits limits = cgroup_limits(list, mount);
        CHECK(limits.cores == cases[i].cores && limits.memory == cases[i].memory,
              "%s: %g cores, expected %g, %g bytes, expected %g", cases[i].what, limits.cores, cases[i].cores,
              limits.memory, cases[i].memory);
    }
    const CgroupLimits own = cgroup_own_limits();
    CHECK(cores_available() >= 1 && cores_available() <= fmax(1, ceil(own.cores)) &&
              (double)memory_available() <= own.memory,
          "%d cores of a quota of %g, %lld bytes of %g", cores_available(), own.cores,
          (long long)memory_available(), own.memory);
#ifdef _OPENMP
    const int threads = omp_get_max_threads();
    threads_set(3);
    CHECK(omp_get_max_threads() == 3, "%d threads, 3 were asked for", omp_get_max_threads());
    threads_set(0);
    CHECK(getenv("OMP_NUM_THREADS") || omp_get_max_threads() <= cores_available(), "%d threads on %d cores",
          omp_get_max_threads(), cores_available());
    omp_set_num_threads(threads);
#endif
}

/* ---- the dry run ---- */

/* The dry run must take about DRY_RUN_SECONDS for a micro-step, whatever the model, and the parts of its estimate
   must add up to the whole: users plan weeks of computing by it. */
static void test_dry_run_times_a_piece(void) {
    static const char *const models[] = {"--preset=c4-301m", "--preset=c4-301m --batch=64 --attn=laser",
                                         "--preset=gpt2-124m", "--vocab-size=2048",
                                         "--vocab-size=65536 --embd=4096 --mlp-hidden=16384 --layers=3"};
    static const double peaks[] = {3e9, 1e11, 1e12, 8e14};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        for (size_t k = 0; k < sizeof peaks / sizeof *peaks; k++) {
            Options o, small;
            OptionSet set;
            parse_options(&o, &set, models[i]);
            o.dry_run = true;
            Trainer t = trainer_plan(&o, &set);
            t.run.peak_flops = peaks[k];
            const int64_t layers = o.layers, batch = o.batch, length = o.seq_len;
            small = dry_run_piece(&t.run, dry_run_work);
            Trainer piece = trainer_plan(&small, &set);
            const DryRunWork all = dry_run_work(&t.run, &o), part_of_it = dry_run_work(&t.run, &small);
            const double seconds = part_of_it.operations / peaks[k], whole = all.operations / peaks[k];
            const bool least = small.batch == 1 && small.layers == 1 && small.seq_len <= 64;
            CHECK(seconds <= DRY_RUN_SECONDS || least, "%s: %.1f s at the peak of %g are timed", models[i],
                  seconds, peaks[k]);
            CHECK(seconds >= 0.1 * DRY_RUN_SECONDS || seconds == whole, "%s: %g s of %g are too few to tell",
                  models[i], seconds, whole);
            CHECK(o.layers == layers && o.batch == batch && o.seq_len == length, "the options have changed");
            double sum = 0, want = 0;
            for (int part = 0; part < PROFILE_PARTS; part++) {
                const double factor = dry_run_factor(&all, &part_of_it, (ProfilePart)part);
                sum += model_part_operations(&piece.model, part) * factor;
                want += model_part_operations(&t.model, part);
                CHECK(factor >= 1, "a part of the whole is less than that of a piece");
            }
            CHECK(fabs(sum / want - 1) < 1e-12,
                  "%s: the parts of the piece make %g of the whole's operations", models[i], sum / want);
            trainer_free(&piece), trainer_free(&t);
        }
}

/* Ranks on one machine share its memory: a run that fits once need not fit for each of several ranks. */
static void test_dry_run_divides_the_memory(void) {
    char output[16384];
    const char *launcher = launch_ranks(2);
    const char *huge =
        "--dry-run --layers=1024 --embd=65536 --mlp-hidden=262144 --vocab-size=65536 --batch=1 --threads=1";
    int code = test_command(output, sizeof output, "%s/train_gpt %s", test_binaries(), huge);
    CHECK(code == 0 && strstr(output, "It does not fit: ") && strstr(output, " GiB are free here; lower") &&
              strstr(output, "No step was timed"),
          "exit %d: %s", code, output);
    if (!*launcher) return;
    code = test_command(output, sizeof output, "%s %s/train_gpt %s", launcher, test_binaries(), huge);
    CHECK(code == 0 && strstr(output, " GiB are free here for each of 2 ranks; lower"), "exit %d: %s", code,
          output);
}

/* ---- killed and hanging runs ---- */

/* A checkpoint that a killed run had removed in part must be removed when the run has finished, and also when it is
   started again and is finished already: half a checkpoint only takes room. */
static void test_finished_run_leaves_no_temporary(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_tiny(data, "run", "--threads=1", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    for (int finished = 0; finished < 2; finished++) {
        test_command(output, sizeof output,
                     "cd %s/run && mkdir step-00000004.tmp && echo x > step-00000004.tmp/x && %s", data,
                     finished ? "true" : "rm summary.json");
        code = train_tiny(data, "run", "--resume=auto --threads=1", output, sizeof output);
        CHECK(code == 0, "exit %d: %s", code, output);
        test_command(output, sizeof output, "ls %s/run", data);
        CHECK(strstr(output, "summary.json") && strstr(output, "step-00000012") && !strstr(output, ".tmp"),
              "the folder holds %s", output);
    }
}

/* Without --out nothing is kept. The user must be told before the first step, not after days. */
static void test_run_without_folder_says_so(void) {
    char output[8192];
    const int code =
        test_command(output, sizeof output,
                     "%s/train_gpt --data=%s " TINY_MODEL "--steps=2 --warmup=1 --val-tokens=26 --threads=1",
                     test_binaries(), write_test_data(600));
    const char *warning = strstr(output, "nothing of this run will be kept"),
               *first = strstr(output, "\n 1/2 ");
    CHECK(code == 0 && warning && first && warning < first, "exit %d: %s", code, output);
}

/* Programs that watch the age of the log must not take a long step for a run that hangs, and end it. */
static void test_log_is_touched_within_steps(void) {
    Log log;
    struct stat about;
    const struct timespec old[2] = {{1000000, 0}, {1000000, 0}};
    log_open(&log, test_folder(), 0, 10, true);
    futimens(log.file, old);
    log_touch(&log);
    fstat(log.file, &about);
    CHECK(about.st_mtime > 1000000, "the log was not touched");
    futimens(log.file, old);
    log.touched = time(NULL) + 3600; /* a clock that was set back */
    log_touch(&log);
    fstat(log.file, &about);
    CHECK(about.st_mtime > 1000000 && log.touched <= time(NULL),
          "the log was not touched after the clock was set back");
    log_close(&log);
    log_touch(&log);
}

/* A job that hangs together with its child, and ignores SIGTERM, must be killed, so that the next start works:
   otherwise the machines would stand idle all night. */
static void test_resilient_ends_what_hangs(void) {
    char output[8192], folder[256];
    snprintf(folder, sizeof folder, "%s", test_folder());
    write_program(folder, "[ $n -ge 2 ] && exit 0; trap '' TERM; mkdir -p run; echo > run/log.jsonl; sleep "
                          "1000 & echo $! > pid; "
                          "while :; do sleep 1; done");
    int code = test_command(
        output, sizeof output,
        "RESILIENT_PAUSE=0 RESILIENT_GRACE=0 scripts/run_resilient.sh --stall=1 %s/program --out=%s/run; "
        "echo exit $?; cat %s/calls; case $(ps -o stat= -p $(cat %s/pid)) in '' | Z*) ;; *) echo "
        "alive ;; esac",
        folder, folder, folder, folder);
    CHECK(strstr(output, "exit 0") && strstr(output, "log.jsonl has not changed for") &&
              strstr(output, "starting again") && !strstr(output, "alive"),
          "%s", output);
    /* finished, but its output was lost */
    snprintf(folder, sizeof folder, "%s", test_folder());
    write_program(folder, "mkdir run; echo {} > run/summary.json; exit 1");
    code =
        test_command(output, sizeof output,
                     "scripts/run_resilient.sh --stall=0 %s/program --out=%s/run; echo exit $?; cat %s/calls",
                     folder, folder, folder);
    CHECK(strstr(output, "exit 1") && strstr(output, "is finished") && count_of(output, "ran ") == 1, "%s",
          output);
    /* with --verify-data the log may stay as it is for longer than --stall before the first step, not after it */
    snprintf(folder, sizeof folder, "%s", test_folder());
    write_program(folder, "[ $n -ge 2 ] && exit 0; mkdir -p run; sleep 3; echo > run/log.jsonl; sleep 1000");
    code = test_command(
        output, sizeof output,
        "RESILIENT_PAUSE=0 RESILIENT_GRACE=0 scripts/run_resilient.sh --stall=1 %s/program --out=%s/run "
        "--verify-data; echo exit $?; test -s %s/run/log.jsonl && echo verified",
        folder, folder, folder);
    CHECK(strstr(output, "exit 0") && strstr(output, "verified") && strstr(output, "starting again"), "%s",
          output);
    code = test_command(output, sizeof output, "scripts/run_resilient.sh --stall=-1 true --out=x");
    CHECK(code == 2 && strstr(output, "--stall=-1"), "exit %d: %s", code, output);
}

/* --verify-data may stand in the file of --config: then the log may stay as it is for longer than --stall before the first
   step. The command line is stronger. All cases run at the same time, because each takes some seconds. */
static void test_resilient_sees_verify_data_in_config(void) {
    static const struct {
        const char *text, *option;
        bool verifies;
    } cases[] = {{"steps = 9\\n  verify-data = yes # all of it\\n", "", true},
                 {"{\"options\": {\"verify-data\": true, \"steps\": 9}}", "", true},
                 {"{\"options\": {\"steps\": 9, \"verify-data\": \"no\"}}", "", false},
                 {"verify-data = yes\\n", "--verify-data=no", false}};
    enum { CASES = sizeof cases / sizeof *cases };
    char output[8192], *folder[CASES];
    for (int i = 0; i < CASES; i++) {
        const char *made = test_folder();
        folder[i] = strcpy(check_calloc(strlen(made) + 1), made);
        write_program(folder[i],
                      "[ $n -ge 2 ] && exit 0; mkdir -p run; sleep 3; echo > run/log.jsonl; exit 0");
        test_command(
            output, sizeof output,
            "cd %s && printf '%s' > options; { RESILIENT_PAUSE=0 RESILIENT_GRACE=0 "
            "\"$OLDPWD/scripts/run_resilient.sh\" --stall=1 ./program --out=run --config=options %s && "
            "echo ended; } > said 2>&1 &",
            folder[i], cases[i].text, cases[i].option);
    }
    for (int i = 0; i < CASES; i++) {
        test_command(output, sizeof output,
                     "for i in $(seq 1000); do grep -q ended %s/said && break; sleep 0.02; done; cat %s/said",
                     folder[i], folder[i]);
        CHECK(strstr(output, "ended") && !strstr(output, "starting again") == cases[i].verifies, "%s %s: %s",
              cases[i].text, cases[i].option, output);
        free(folder[i]);
    }
}

/* ---- the user's language ---- */

/* An environment in which awk writes numbers with a decimal comma; NULL, after test_not_run, where there is none. */
static const char *running_comma(void) {
    static char environment[1024];
    char output[1024], folder[256];
    snprintf(folder, sizeof folder, "%s", test_folder());
    test_command(
        output, sizeof output,
        "cd %s && mkdir bin locales && awk=$(command -v mawk) && ln -s $awk bin/awk; locale -a | grep -qi "
        "'^de_DE.utf-\\?8$' || localedef -i de_DE -f UTF-8 locales/de_DE.UTF-8 && ls locales",
        folder);
    snprintf(environment, sizeof environment, "PATH=%s/bin:$PATH LC_ALL=de_DE.UTF-8 %s%s%s", folder,
             strstr(output, "de_DE") ? "LOCPATH=" : "", strstr(output, "de_DE") ? folder : "",
             strstr(output, "de_DE") ? "/locales" : "");
    test_command(output, sizeof output, "%s sh -c 'printf %%.1f 1,5; awk \"BEGIN { printf 1.5 }\"'",
                 environment);
    if (strstr(output, "1,5")) return environment;
    test_not_run("there is no language with a decimal comma (package locales)");
    return NULL;
}

/* Scripts must compute with a decimal point, whatever the language of the user: "0,5" would be read as 0. */
static void test_scripts_compute_in_any_language(void) {
    char output[16384], want[16384], data[256], folder[256];
    int code = test_command(output, sizeof output,
                            "for s in $(grep -lE '(awk|sort|bc) ' scripts/*.sh); do grep -q '^export "
                            "LC_ALL=C' $s || echo $s; done");
    CHECK(code == 0 && !*output, "these scripts compute in the user's language: %s", output);
    const char *comma = running_comma();
    if (!comma) return;
    static const char *const commands[] = {"scripts/scaling_model.sh", "scripts/scaling_model.sh gpus"};
    for (int i = 0; i < 2; i++) {
        test_command(want, sizeof want, "%s", commands[i]);
        test_command(output, sizeof output, "%s %s", comma, commands[i]);
        CHECK(strstr(want, ".") && strcmp(output, want) == 0, "%s: %.300s, expected %.300s", commands[i],
              output, want);
    }
    /* the GPU's program is the CPU's, once with the same seed, once with another */
    snprintf(data, sizeof data, "%s", write_test_data(600));
    snprintf(folder, sizeof folder, "%s", test_folder());
    test_write(folder, "other", "#!/bin/sh\nexec $B/train_gpt \"$@\" --seed=2\n");
    test_command(output, sizeof output, "chmod +x %s/other", folder);
    for (int other = 0; other < 2; other++) {
        code = test_command(
            output, sizeof output,
            "export B=$(cd %s && pwd); %s CPU=$B/train_gpt GPU=%s%s STEPS=12 CPU_STEPS=2 OUT=%s/compare "
            "MODEL='" TINY_MODEL "--batch=4 --threads=1 --lr=3e-2 --warmup=0' scripts/compare_gpu_cpu.sh %s",
            test_binaries(), comma, other ? folder : "$B", other ? "/other" : "/train_gpt", folder, data);
        CHECK((code == 0) == !other && strstr(output, other ? "they differ" : "agree: at most 0.00e+00"),
              "exit %d: %s", code, output);
    }
}

/* ---- libraries in unusual places ---- */

/* A copy of deps.sh with replacements of the programs it calls: a user who may not install packages, a compiler that
   finds cJSON, zlib, xxhash and stb only where it is told to look, and a package manager whose packages contain
   links, as those of Debian do. */
static void running_fake_system(const char *folder) {
    static const struct {
        const char *name, *text;
    } programs[] = {
        {"id", "echo 1000"},
        {"uname", "[ \"$MAC\" ] && echo Darwin || echo Linux"},
        {"cc",
         "case \"$*\" in *-I*/usr/include*|*-I*/given/include*|*-idirafter*) exit 0 ;; esac\n"
         "for a; do case $a in *.c) grep -qE 'cJSON|zlib|xxhash|stb/' $a && exit 1 ;; esac; done; exit 0"},
        {"apt-cache", "exit 0"},
        {"apt-get", "[ \"$NO_NETWORK\" ] && echo 'E: no network' && exit 1; for a; do :; done; echo $a >> "
                    "$FAKE/asked; : > ${a}_1_all.deb"},
        {"dpkg-deb", "mkdir -p $3/usr/include/cjson $3/usr/lib/x86_64-linux-gnu $3/lib/x86_64-linux-gnu; : > "
                     "$3/usr/include/cjson/cJSON.h; : > $3/lib/x86_64-linux-gnu/libz.so.1.2; ln -sf "
                     "/lib/x86_64-linux-gnu/libz.so.1.2 $3/usr/lib/x86_64-linux-gnu/libz.so"},
    };
    char output[1024], path[300], text[1024];
    test_command(output, sizeof output,
                 "mkdir -p %s/bin %s/scripts && cp scripts/deps.sh scripts/packages.sh %s/scripts", folder,
                 folder, folder);
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        snprintf(path, sizeof path, "bin/%s", programs[i].name);
        snprintf(text, sizeof text, "#!/bin/sh\n%s\n", programs[i].text);
        test_write(folder, path, text);
    }
    static const char *const needed[] = {"sh",   "mktemp", "rm",   "dirname", "basename", "tr",
                                         "cat",  "mkdir",  "cp",   "find",    "readlink", "ln",
                                         "tail", "grep",   "make", "head"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed;
         i++) /* only these programs of the system can be called */
        test_command(output, sizeof output, "ln -s $(command -v %s) %s/bin/%s", needed[i], folder, needed[i]);
    test_command(output, sizeof output, "chmod +x %s/bin/*", folder);
}

/* A user who may not install packages must get the libraries into a folder, or a message that says what to ask for. */
static void test_libraries_without_root(void) {
    char output[8192], folder[256];
    snprintf(folder, sizeof folder, "%s", test_folder());
    running_fake_system(folder);
    const char *deps =
        "cd %s && unset DEPS CJSON CONDA_PREFIX; FAKE=$PWD PATH=$PWD/bin CC=cc %s scripts/deps.sh%s";
    int code = test_command(output, sizeof output, deps, folder, "NO_NETWORK=1", "");
    CHECK(code == 1 && strstr(output, "conda install -c conda-forge cjson zlib xxhash") &&
              strstr(output, "no network"),
          "exit %d: %s", code, output);
    code = test_command(output, sizeof output, deps, folder, "", "");
    CHECK(code == 0 && strstr(output, "all there now"), "exit %d: %s", code, output);
    code = test_command(
        output, sizeof output,
        "cd %s && cat asked && ls packages/usr/lib/x86_64-linux-gnu && readlink packages/usr/lib/*/libz.so",
        folder);
    CHECK(strstr(output, "libcjson-dev\nlibcjson1\nzlib1g-dev\nzlib1g\nlibxxhash-dev\n") &&
              strstr(output, "\nlibz.so.1.2\nlibz.so.1.2\n"),
          "%s", output);
    code = test_command(output, sizeof output, deps, folder, "", " --flags");
    CHECK(code == 0 && strstr(output, "-idirafter/") && strstr(output, "/packages/usr/include -L/") &&
              strstr(output, " -Wl,-rpath,/"),
          "%s", output);
    /* the order is CJSON=DIR first, the environment of conda last */
    test_command(output, sizeof output,
                 "cd %s && mkdir -p given/include/cjson given/lib env/include/stb && : > "
                 "given/include/cjson/cJSON.h && : > given/lib/libcjson.so",
                 folder);
    code = test_command(output, sizeof output, deps, folder, "CJSON=given CONDA_PREFIX=$PWD/env", " --flags");
    const char *given = strstr(output, "/given/include -L/"),
               *packages = strstr(output, "/packages/usr/include"), *env = strstr(output, "/env/include");
    CHECK(code == 0 && strncmp(output, "-I/", 3) == 0 && given && packages && env && given < packages &&
              packages < env,
          "%s", output);
    code = test_command(output, sizeof output, deps, folder, "CJSON=nowhere", " --flags");
    CHECK(strstr(output, "CJSON=nowhere is no folder"), "%s", output);
    /* Homebrew, whether it is in PATH or not */
    test_write(folder, "bin/brew", "#!/bin/sh\necho $FAKE/brew\n");
    test_command(
        output, sizeof output,
        "cd %s && chmod +x bin/brew && rm -r packages && mkdir -p brew/include/cjson brew/lib "
        "brew/opt/libomp/include "
        "brew/opt/libomp/lib && : > brew/include/cjson/cJSON.h && : > brew/lib/libcjson.dylib && : > "
        "brew/opt/libomp/include/omp.h && : > brew/opt/libomp/lib/libomp.dylib",
        folder);
    code = test_command(output, sizeof output, deps, folder, "MAC=1", " --flags");
    CHECK(strstr(output, "/brew/include -L/") && strstr(output, "/brew/opt/libomp/include -L/"), "%s",
          output);
    code = test_command(output, sizeof output,
                        "cd %s && rm bin/brew && sed 's|=/opt/homebrew|='$PWD/brew'|' scripts/deps.sh > d && "
                        "mv d scripts/deps.sh && unset DEPS CJSON CONDA_PREFIX; FAKE=$PWD MAC=1 "
                        "PATH=$PWD/bin sh scripts/deps.sh --flags",
                        folder);
    CHECK(strstr(output, "/brew/opt/libomp/lib -Wl,-rpath,/"), "%s", output);
}

/* make must pass CJSON=DIR to the compiler and the linker, and end with a message when cJSON is not there. On a Mac
   it must find the OpenMP of Homebrew, for which Apple's compiler needs other options. */
static void test_make_takes_a_folder_of_libraries(void) {
    char output[8192], folder[256];
    snprintf(folder, sizeof folder, "%s", test_folder());
    test_command(output, sizeof output,
                 "cd %s && mkdir -p include/cjson lib && : > include/cjson/cJSON.h && : > lib/libcjson.a",
                 folder);
    const char *make = "env -u MAKEFLAGS -u SAN make -W data/grammar.c -n MPI=no CJSON=%s grammar";
    int code = test_command(output, sizeof output, make, folder);
    CHECK(code == 2 && strstr(output, "is missing (also in CJSON="), "exit %d: %s", code, output);
    test_write(folder, "include/cjson/cJSON.h", "int cJSON_CreateObject(void);\n");
    test_write(folder, "c.c", "int cJSON_CreateObject(void) { return 1; }\n");
    test_command(output, sizeof output,
                 "cd %s && cc -c c.c -o c.o && rm lib/libcjson.a && ar r lib/libcjson.a c.o", folder);
    code = test_command(output, sizeof output, make, folder);
    CHECK(code == 0 && strstr(output, "/include ") && strstr(output, "/lib -lcjson"), "exit %d: %s", code,
          output);
    test_command(output, sizeof output,
                 "cd %s && mkdir -p bin opt/libomp/include opt/libomp/lib && : > opt/libomp/include/omp.h && "
                 ": > opt/libomp/lib/libomp.dylib",
                 folder);
    test_write(folder, "bin/brew", "#!/bin/sh\necho $BREW\n");
    test_write(folder, "bin/apple",
               "#!/bin/sh\ncase \"$*\" in *-Xpreprocessor\\ -fopenmp\\ -lomp*) case \"$*\" in "
               "*-L*/opt/libomp/lib*) exit 0 ;; "
               "esac; exit 1 ;; *-fopenmp*) exit 1 ;; esac\nexec cc \"$@\"\n");
    code = test_command(output, sizeof output,
                        "cd %s && chmod +x bin/* && cd - > /dev/null && export BREW=%s PATH=%s/bin:$PATH && "
                        "env -u MAKEFLAGS -u SAN "
                        "SOURCE_DATE_EPOCH=86400 make -W data/grammar.c -n MPI=no CC=apple grammar",
                        folder, folder, folder);
    CHECK(code == 0 && strstr(output, "/opt/libomp/include -L/") &&
              strstr(output, " -Xpreprocessor -fopenmp -lomp") && !strstr(output, "has no OpenMP"),
          "exit %d: %s", code, output);
    CHECK(strstr(output, "-DBUILD_DATE='\"1970-01-02\"'"), "the date is not that of SOURCE_DATE_EPOCH: %s",
          output);
}

#define RUNNING_TESTS(TEST)                                                                                  \
    TEST(lost_output_is_no_success)                                                                          \
    TEST(early_loss_shows_at_close)                                                                          \
    TEST(closed_streams_stay_out_of_files)                                                                   \
    TEST(launched_rank_is_no_terminal)                                                                       \
    TEST(counts_are_readable)                                                                                \
    TEST(durations_are_readable)                                                                             \
    TEST(every_program_tells_what_it_is)                                                                     \
    TEST(control_groups_limit)                                                                               \
    TEST(dry_run_times_a_piece)                                                                              \
    TEST(dry_run_divides_the_memory)                                                                         \
    TEST(finished_run_leaves_no_temporary)                                                                   \
    TEST(run_without_folder_says_so)                                                                         \
    TEST(log_is_touched_within_steps)                                                                        \
    TEST(resilient_ends_what_hangs)                                                                          \
    TEST(resilient_sees_verify_data_in_config)                                                               \
    TEST(scripts_compute_in_any_language)                                                                    \
    TEST(libraries_without_root)                                                                             \
    TEST(make_takes_a_folder_of_libraries)

#endif
