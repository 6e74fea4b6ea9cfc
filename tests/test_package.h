/* test_package.h: what makes a package of the programs: manual pages, `make install`, `make dist`, --version with a
   tag, and the names of packages in the files for containers. */
#ifndef TESTS_TEST_PACKAGE_H
#define TESTS_TEST_PACKAGE_H

#include "harness.h"
#include "../gpt/base/program.h"

/* A make that knows nothing of the make that runs the tests. */
#define PACKAGE_MAKE "env -i PATH=\"$PATH\" make "

/* The next line of a text that `strsep` would return, without empty ones; NULL at the end. */
static char *package_line(char **text) {
    char *line;
    while ((line = strsep(text, "\n")) && !*line) {}
    return line;
}

/* Checks that a manual page has every option and preset of a --help, and that it is correct for those of the programs
   mandoc and man that are here. */
static void package_check_manual(const char *path, const char *program, char *help) {
    char output[8192], *page = check_file_read(path, FILE_REGULAR, 1 << 20, &(size_t){0}, "");
    CHECK(strncmp(page, ".TH ", 4) == 0, "%s: %.60s", program, page);
    int count = 0;
    for (char *line; (line = package_line(&help));) {
        char option[128] = ".B ", *to = option + 3;
        if (strncmp(line, "  --", 4) != 0) continue;
        for (const char *c = line + 2; *c && *c != '=' && *c != ' ' && *c != ','; c++) {
            if (*c == '-') *to++ = '\\';
            *to++ = *c;
        }
        *to = 0, count++;
        CHECK(strstr(page, option), "%s: the manual page has no line %s", program, option);
    }
    CHECK(count > 4, "%s: %d options were found in --help", program, count);
    free(page);
    int code = test_command(output, sizeof output, "! command -v mandoc || mandoc -Tlint -W style %s", path);
    CHECK(code == 0, "mandoc says of the page of %s: %s", program, output);
    code =
        test_command(output, sizeof output,
                     "! command -v man > /dev/null || MANWIDTH=80 man --warnings -l %s > %s.txt", path, path);
    CHECK(code == 0 && !strstr(output, "warning"), "man says of the page of %s: %s", program, output);
}

/* Whoever installs the programs looks options up with man: each must be there, and roff must accept the page. */
static void test_package_has_manual_pages(void) {
    char folder[128], path[256], help[32768], output[1024];
    snprintf(folder, sizeof folder, "%s", test_folder());
    static const char *const programs[] = {"train_gpt", "prepare", "report",   "generate",
                                           "analyze",   "explain", "evaluate", "grammar"};
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        const char *name = programs[i], *binaries = test_binaries();
        snprintf(path, sizeof path, "%s/%s.1", folder, name);
        int code = test_command(output, sizeof output, "%s/%s --help=man > %s", binaries, name, path);
        CHECK(code == 0 && !*output, "%s --help=man: code %d: %s", name, code, output);
        code = test_command(help, sizeof help, "%s/%s --help", binaries, name);
        CHECK(code == 0, "%s --help: code %d", name, code);
        package_check_manual(path, name, help);
        code = test_command(output, sizeof output, "%s/%s --help=html", binaries, name);
        CHECK(code == 2 && strstr(output, "--help=html: expected --help, or --help=man"), "%s: code %d: %s",
              name, code, output);
    }
}

/* A program that the Makefile installs must have a line in the table of purposes, which its manual page begins with. */
static void test_package_knows_what_programs_are_for(void) {
    char output[1024];
    int code = test_command(output, sizeof output,
                            "sed -n 's/^PROGRAMS := //p' Makefile | sed 's/$(P)//g' | tr ' ' '\\n'");
    char *text = output;
    int count = 0;
    for (char *name; (name = package_line(&text)); count++)
        CHECK(strcmp(program_purpose(name), program_purpose("")) != 0,
              "program_purposes in gpt/base/program.h has no row for %s", name);
    CHECK(code == 0 && count > 4, "code %d, %d programs", code, count);
}

/* `make install` must put everything where other programs look for it, below DESTDIR, and `make uninstall` must remove
   it again. */
static void test_package_installs(void) {
    static const char *const installed[] = {"bin/train_gpt",
                                            "bin/report",
                                            "share/man/man1/train_gpt.1",
                                            "share/man/man1/grammar.1",
                                            "include/laser.h",
                                            "share/pkgconfig/laser.pc"};
    char folder[128], output[8192], path[512];
    snprintf(folder, sizeof folder, "%s", test_folder());
    /* Programs that are built already are copied, and -o keeps make from building them anew. */
    int code = test_command(output, sizeof output,
                            "cp -R Makefile scripts laser.h %s && for p in train_gpt prepare report generate "
                            "analyze explain evaluate grammar; do cp %s/$p %s || exit 1; done",
                            folder, test_binaries(), folder);
    REQUIRE(code == 0, "%s", output);
    code = test_command(output, sizeof output,
                        "cd %s && " PACKAGE_MAKE "-s -o all MPI=no install PREFIX=/opt/l DESTDIR=$PWD/to",
                        folder);
    CHECK(code == 0 && strstr(output, "installed in "), "code %d: %s", code, output);
    for (size_t i = 0; i < sizeof installed / sizeof *installed; i++) {
        snprintf(path, sizeof path, "%s/to/opt/l/%s", folder, installed[i]);
        CHECK(access(path, R_OK) == 0, "%s is not there", path);
    }
    code = test_command(output, sizeof output, "%s/to/opt/l/bin/train_gpt --version", folder);
    CHECK(code == 0 && strstr(output, "train_gpt of laser.c"), "code %d: %s", code, output);
    code = test_command(output, sizeof output,
                        "! command -v pkg-config > /dev/null || PKG_CONFIG_PATH=%s/to/opt/l/share/pkgconfig "
                        "pkg-config --cflags laser",
                        folder);
    CHECK(code == 0 && (!*output || strncmp(output, "-I/opt/l/include", 16) == 0), "code %d: %s", code,
          output);
    code = test_command(output, sizeof output,
                        "cd %s && " PACKAGE_MAKE "-s uninstall PREFIX=/opt/l DESTDIR=$PWD/to && "
                        "find to ! -type d",
                        folder);
    CHECK(code == 0 && !*output, "code %d; what is left: %s", code, output);
    code =
        test_command(output, sizeof output, "cd %s && " PACKAGE_MAKE "-s -o all install PREFIX=here", folder);
    CHECK(code != 0 && strstr(output, "PREFIX=here: expected a path that begins with /"), "code %d: %s", code,
          output);
}

/* Makes a repository of a few files in `folder`, with one commit, whose number is copied to `commit`. */
static bool package_repository(const char *folder, char commit[64]) {
    char output[8192];
    const int code =
        test_command(output, sizeof output,
                     "cp -R Makefile scripts .gitattributes train_gpt.c laser.h gpt %s && cd %s && "
                     "git init -q . && git config user.name n && git config user.email e && "
                     "git add . && git commit -q -m one && git rev-parse --short=12 HEAD",
                     folder, folder);
    CHECK(code == 0 && strlen(output) == 13, "code %d: %s", code, output);
    snprintf(commit, 64, "%.12s", output);
    return code == 0;
}

/* A user who reports an error names the version: a tag must be shown, changes must be told, and an archive must know
   both without git. */
static void test_package_tells_its_version(void) {
    char folder[128], output[16384], commit[64], want[256];
    if (test_command(output, sizeof output, "command -v git") != 0) {
        test_not_run("there is no git");
        return;
    }
    snprintf(folder, sizeof folder, "%s", test_folder());
    if (!package_repository(folder, commit)) return;
    const struct {
        const char *before, *tag, *changes;
    } cases[] = {{"true", "", ""},
                 {"git tag v9.8", "v9.8", ""},
                 {"echo >> laser.h", "", " with changes"},
                 {"git checkout -q laser.h", "v9.8", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code =
            test_command(output, sizeof output, "cd %s && %s && SOURCE_DATE_EPOCH=86400 scripts/version.sh",
                         folder, cases[i].before);
        snprintf(want, sizeof want,
                 "-DBUILD_TAG='\"%s\"' -DBUILD_COMMIT='\"%s%s\"' -DBUILD_DATE='\"1970-01-02\"'\n",
                 cases[i].tag, commit, cases[i].changes);
        CHECK(code == 0 && strcmp(output, want) == 0, "after %s: code %d: %s, expected %s", cases[i].before,
              code, output, want);
    }
    /* The archive, unpacked where there is no git: the same version, and make knows how to build from it. */
    int code = test_command(output, sizeof output,
                            "cd %s && mkdir out && " PACKAGE_MAKE "-s dist DIST=out && cd out && "
                            "tar -xzf laser.c-9.8.tar.gz && cd laser.c-9.8 && "
                            "scripts/version.sh --name && " PACKAGE_MAKE "-n MPI=no train_gpt",
                            folder);
    snprintf(want, sizeof want, "-DBUILD_TAG='\"v9.8\"' -DBUILD_COMMIT='\"%s\"' -DBUILD_DATE='\"2", commit);
    CHECK(code == 0 && strncmp(output, "out/laser.c-9.8.tar.gz\n9.8\n", 27) == 0 && strstr(output, want) &&
              strstr(output, " train_gpt.c -o train_gpt"),
          "code %d: %s, expected %s", code, output, want);
    code = test_command(output, sizeof output, "cd %s/out/laser.c-9.8 && " PACKAGE_MAKE "-s dist", folder);
    CHECK(code != 0 && strstr(output, "error: make dist needs a clone with git"), "code %d: %s", code,
          output);
}

/* The Containerfile installs packages by name: each must be one that scripts/deps.sh knows, that holds a library that a
   program was linked with, or git. A file that COPY needs must not be in .dockerignore. */
static void test_package_container_names_known_packages(void) {
    char output[8192], command[512];
    int code = test_command(
        output, sizeof output,
        "sed -n 's/.*--no-install-recommends//p' Containerfile | sed 's/&&.*//' | tr -s ' ' '\\n'");
    char *text = output;
    int count = 0;
    for (char *name; (name = package_line(&text)); count++) {
        char found[256];
        if (strcmp(name, "git") == 0 || strcmp(name, "libgomp1") == 0) continue; /* libgomp1: OpenMP of gcc */
        snprintf(command, sizeof command, "grep -qw -e '%s' scripts/deps.sh", name);
        CHECK(test_command(found, sizeof found, "%s", command) == 0,
              "Containerfile: scripts/deps.sh does not know the package %s", name);
    }
    CHECK(code == 0 && count >= 4, "code %d, %d packages were found", code, count);
    code = test_command(
        output, sizeof output,
        "git ls-files 2> /dev/null | grep -E \"^($(grep -v '^#' .dockerignore | paste -sd '|'))/\"");
    CHECK(!*output, "a file of the repository is in .dockerignore: %s", output);
    code = test_command(output, sizeof output,
                        "grep -c -e '^FROM ' -e '^COPY . /src$' -e '^CMD ' Containerfile");
    CHECK(strcmp(output, "4\n") == 0, "the Containerfile lacks a step: %s", output);
}

#define PACKAGE_TESTS(TEST)                                                                                  \
    TEST(package_has_manual_pages)                                                                           \
    TEST(package_knows_what_programs_are_for)                                                                \
    TEST(package_installs)                                                                                   \
    TEST(package_tells_its_version) TEST(package_container_names_known_packages)

#endif
