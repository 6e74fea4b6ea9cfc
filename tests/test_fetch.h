/* test_fetch.h: tests of scripts/fetch_c4.sh with a web server that the test starts on 127.0.0.1 and that breaks off
   transfers. */
#ifndef TESTS_TEST_FETCH_H
#define TESTS_TEST_FETCH_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include "harness.h"

/* What goes wrong with a file depends on how many times it was requested. */
typedef enum { FETCH_GOOD, FETCH_BROKEN, FETCH_DAMAGED, FETCH_UNAVAILABLE } FetchTrouble;

typedef struct {
    const char *name;
    FetchTrouble trouble;
} FetchFile;

typedef struct {
    int port;
    pid_t child;
    int *gets; /* shared with the server: GET requests for each file */
} FetchServer;

enum { FETCH_FILES = 5 };

static inline void fetch_send(int client, const char *bytes, size_t n) {
    while (n) {
        ssize_t sent = send(client, bytes, n, MSG_NOSIGNAL);
        if (sent <= 0) return;
        bytes += sent, n -= (size_t)sent;
    }
}

/* One request: HEAD or GET, with "Range: bytes=N-" or without. */
static inline void fetch_answer(int client, const char *folder, const FetchFile files[FETCH_FILES],
                                int *gets) {
    char request[4096] = "", path[512], header[512], name[256] = "", *range;
    size_t used = 0;
    while (used < sizeof request - 1 && !strstr(request, "\r\n\r\n")) {
        ssize_t got = recv(client, request + used, sizeof request - 1 - used, 0);
        if (got <= 0) return;
        request[used += (size_t)got] = 0;
    }
    bool head = strncmp(request, "HEAD", 4) == 0;
    sscanf(request, "%*s /en/%255[^ ]", name);
    snprintf(path, sizeof path, "%.200s/%s", folder, name);
    int f = 0;
    while (f < FETCH_FILES && strcmp(files[f].name, name) != 0) f++;
    FILE *file = f < FETCH_FILES ? fopen(path, "rb") : NULL;
    int asked = file && !head ? __atomic_add_fetch(&gets[f], 1, __ATOMIC_SEQ_CST) : 0;
    if (!file || (files[f].trouble == FETCH_UNAVAILABLE && asked == 1)) {
        int n =
            snprintf(header, sizeof header, "HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                     file ? "503 Busy" : "404 Not Found");
        fetch_send(client, header, (size_t)n);
        if (file) fclose(file);
        return;
    }
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file), from = 0;
    rewind(file);
    char *bytes = check_calloc(size + 1);
    check_fread(bytes, 1, size, file, path);
    fclose(file);
    if ((range = strstr(request, "\r\nRange: bytes="))) from = strtoul(range + 15, NULL, 10);
    if (files[f].trouble == FETCH_DAMAGED && asked == 1) bytes[size / 2] ^= 0x55;
    size_t send_now = size - from;
    if (files[f].trouble == FETCH_BROKEN && asked <= 3) send_now /= 2; /* then the connection is closed */
    int n = snprintf(header, sizeof header,
                     "HTTP/1.1 %s\r\nContent-Length: %zu\r\nAccept-Ranges: bytes\r\nContent-Range: bytes "
                     "%zu-%zu/%zu\r\nConnection: close\r\n\r\n",
                     range ? "206 Partial Content" : "200 OK", size - from, from, size - 1, size);
    fetch_send(client, header, (size_t)n);
    if (!head) fetch_send(client, bytes + from, send_now);
    free(bytes);
}

static inline FetchServer fetch_server_begin(const char *folder, const FetchFile files[FETCH_FILES]) {
    FetchServer server = {0};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    server.gets = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (listener < 0 || server.gets == MAP_FAILED ||
        bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 16) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0)
        die("no web server on 127.0.0.1: %s", strerror(errno));
    server.port = ntohs(address.sin_port);
    fflush(NULL);
    server.child = fork();
    if (server.child < 0) die("fork: %s", strerror(errno));
    if (server.child == 0) {
        signal(SIGCHLD, SIG_IGN);
        for (;;) {
            int client = accept(listener, NULL, NULL);
            if (client < 0) _exit(1);
            if (fork() == 0) {
                fetch_answer(client, folder, files, server.gets);
                shutdown(client, SHUT_RDWR);
                _exit(0);
            }
            close(client);
        }
    }
    close(listener);
    return server;
}

static inline void fetch_server_end(FetchServer *server) {
    kill(server->child, SIGKILL);
    waitpid(server->child, NULL, 0);
    munmap(server->gets, 4096);
}

static inline bool fetch_is_there(const char *folder, const char *name) {
    char path[512];
    struct stat status;
    snprintf(path, sizeof path, "%.200s/%.200s", folder, name);
    return stat(path, &status) == 0;
}

/* A download that breaks off, or a server that sends errors, must not leave a damaged file in the data, nor end the
   download of the other files. */
static void test_fetch_c4_from_a_troubled_server(void) {
    static const FetchFile files[FETCH_FILES] = {{"c4-train.00000-of-01024.json.gz", FETCH_GOOD},
                                                 {"c4-train.00001-of-01024.json.gz", FETCH_BROKEN},
                                                 {"c4-train.00002-of-01024.json.gz", FETCH_DAMAGED},
                                                 {"c4-train.00017-of-01024.json.gz", FETCH_UNAVAILABLE},
                                                 {"c4-validation.00000-of-00008.json.gz", FETCH_GOOD}};
    char folder[128], output[8192], command[512];
    /* The script says so itself. */
    if (test_command(output, sizeof output, "command -v curl gzip >/dev/null") != 0) return;
    snprintf(folder, sizeof folder, "%s", test_folder());
    REQUIRE(test_command(output, sizeof output, "mkdir %s/en %s/out", folder, folder) == 0, "%s", output);
    for (int f = 0; f < FETCH_FILES; f++) /* some 70 kB each, different ones */
        REQUIRE(test_command(output, sizeof output,
                             "i=0; while [ $i -lt 3000 ]; do echo \"{\\\"text\\\": \\\"document $i of file "
                             "%d, $((i * 7919 %% 10007 * %d))\\\"}\"; i=$((i + 1)); done "
                             "| gzip -1 > %s/en/%s",
                             f, f + 3, folder, files[f].name) == 0,
                "%s", output);
    snprintf(command, sizeof command, "%s/en", folder);
    FetchServer server = fetch_server_begin(command, files);
    snprintf(
        command, sizeof command,
        "no_proxy=127.0.0.1 C4_PAUSE=0 scripts/fetch_c4.sh --url=http://127.0.0.1:%d/en --files=0-2,17,1-2 "
        "--validation=0,0 "
        "--jobs=3 '%s/out'",
        server.port, folder);
    int code = test_command(output, sizeof output, "%s --dry-run", command);
    CHECK(code == 0 && strstr(output, "c4: 5 files, about 0.00 GB") && strstr(output, "GB are free"),
          "dry run: code %d: %s", code, output);
    CHECK(!fetch_is_there(folder, "out/c4-train.00000-of-01024.json.gz"), "the dry run fetched a file");
    code = test_command(output, sizeof output, "%s", command);
    CHECK(code == 0 && strstr(output, "c4: 5 files are in"), "code %d: %s", code, output);
    CHECK(strstr(output, "00002-of-01024.json.gz is damaged"), "nothing about the damaged file: %s", output);
    code = test_command(output, sizeof output, "diff -r %s/en %s/out", folder, folder);
    CHECK(code == 0, "what was fetched differs: %s", output);
    CHECK(server.gets[1] == 4,
          "the broken file was asked for %d times, expected 4: each goes on from the last", server.gets[1]);
    int before = server.gets[0] + server.gets[1] + server.gets[2] + server.gets[3] + server.gets[4];
    code = test_command(output, sizeof output, "%s", command);
    CHECK(code == 0 &&
              server.gets[0] + server.gets[1] + server.gets[2] + server.gets[3] + server.gets[4] == before,
          "files that are there were fetched again: %s", output);
    /* After an interruption half of a file is there. Another file is longer than it should be. */
    code = test_command(output, sizeof output,
                        "cd %s/out && head -c 30000 c4-train.00000-of-01024.json.gz > "
                        "c4-train.00000-of-01024.json.gz.part && rm c4-train.00000-of-01024.json.gz && "
                        "cat c4-train.00017* c4-train.00017* > x && rm c4-train.00017* && mv x "
                        "c4-train.00017-of-01024.json.gz.part",
                        folder);
    CHECK(code == 0, "%s", output);
    code = test_command(output, sizeof output, "%s && diff -r %s/en %s/out", command, folder, folder);
    CHECK(code == 0, "code %d: %s", code, output);
    /* One file does not exist; the others must be fetched all the same. */
    snprintf(command, sizeof command,
             "no_proxy=127.0.0.1 C4_PAUSE=0 scripts/fetch_c4.sh --url=http://127.0.0.1:%d/en --files=0,3 "
             "--validation=none '%s/two'",
             server.port, folder);
    code = test_command(output, sizeof output, "%s", command);
    CHECK(code == 1 && strstr(output, "00003-of-01024.json.gz could not be fetched") &&
              fetch_is_there(folder, "two/c4-train.00000-of-01024.json.gz"),
          "code %d: %s", code, output);
    CHECK(!fetch_is_there(folder, "two/c4-train.00003-of-01024.json.gz"),
          "a file that the server does not have");
    fetch_server_end(&server);
    code = test_command(output, sizeof output, "%s", command);
    CHECK(code == 1 && strstr(output, "check --url and the network"), "no server: code %d: %s", code, output);
}

/* A wrong option of fetch_c4.sh must be reported before hours of downloading begin. */
static void test_fetch_c4_options(void) {
    static const struct {
        const char *arguments, *words;
    } cases[] = {{"", "name the folder"},
                 {"--files=0-1024 out", "from 0 to 1023"},
                 {"--files=7-5 out", "--files=7-5"},
                 {"--files=a out", "--files=a"},
                 {"--validation=8 out", "from 0 to 7"},
                 {"--jobs=0 out", "--jobs=0"},
                 {"--flies=0 out", "unknown option --flies=0"},
                 {"--files=none --validation=none out", "nothing to fetch"}};
    char output[4096], folder[128];
    snprintf(folder, sizeof folder, "%s", test_folder());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code = test_command(output, sizeof output, "script=$PWD/scripts/fetch_c4.sh; cd %s && $script %s",
                                folder, cases[i].arguments);
        CHECK(code == 2 && strstr(output, cases[i].words), "fetch_c4.sh %s: code %d: %s", cases[i].arguments,
              code, output);
    }
}

/* A book without a blank line must be joined line by line as it is read. If each line were joined to a copy of all
   text before it, this would take ten times the limit of time. */
static void test_fetch_joins_lines_of_a_book(void) {
    enum { LINES = 60000, LINE = 50 };
    char folder[128], output[2048];
    if (test_command(output, sizeof output, "command -v curl") != 0) {
        test_not_run("there is no curl");
        return;
    }
    snprintf(folder, sizeof folder, "%s", test_folder());
    int code = test_command(output, sizeof output,
                            "cd %s && mkdir -p cache/epub/2600 && { echo '*** START OF THE BOOK ***' && "
                            "awk 'BEGIN { for (i = 0; i < %d; i++) printf \"%%0%dd\\r\\n\", i }' && echo "
                            "'*** END OF THE BOOK ***'; } > "
                            "cache/epub/2600/pg2600.txt",
                            folder, LINES, LINE);
    REQUIRE(code == 0, "%s", output);
    code = test_command(output, sizeof output,
                        "ulimit -t 5 && TEXT= TEXT_SOURCES=2 GUTENBERG=file://%s GUTENBERG_PAUSE=0 "
                        "scripts/get_text.sh %s/text",
                        folder, folder);
    CHECK(code == 0 && strstr(output, "novels from Project Gutenberg"), "code %d: %s", code, output);
    code = test_command(output, sizeof output, "wc -lc < %s/text/gutenberg-2600.txt", folder);
    int lines = 0, bytes = 0;
    CHECK(sscanf(output, "%d %d", &lines, &bytes) == 2 && lines == 1 && bytes == LINES * (LINE + 1),
          "%d lines, %d bytes", lines, bytes);
}

#define FETCH_TESTS(TEST)                                                                                    \
    TEST(fetch_c4_from_a_troubled_server) TEST(fetch_c4_options) TEST(fetch_joins_lines_of_a_book)

#endif
