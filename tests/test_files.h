/* test_files.h: tests of gpt/io/files.h: what a path leads to (file, folder, pipe, device) is known before anything
   is read, files are read and written completely, and no program waits for a pipe that nobody writes into. */
#ifndef TESTS_TEST_FILES_H
#define TESTS_TEST_FILES_H

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "../gpt/io/files.h"
#include "harness.h"

enum {
    FILES_PATIENCE = 60
}; /* seconds after which a test that waits is killed rather than the whole suite */

static const char *files_put(const char *folder, const char *name, const char *text) {
    static char path[FILE_PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    test_write(folder, name, text);
    return path;
}

static void files_make_socket(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int made = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%.100s", path);
    if (made < 0 || bind(made, (struct sockaddr *)&address, sizeof address) != 0)
        die("cannot make the socket '%s': %s", path, strerror(errno));
    close(made);
}

/* A folder, pipe or device in place of a file must be reported as what it is; reading it would wait forever or give
   nonsense. */
static void test_files_kinds_are_told_apart(void) {
    static const struct {
        const char *name;
        int flags;
        FileAccept accept;
        const char *message; /* NULL: it opens */
    } cases[] = {{"file", O_RDONLY, FILE_REGULAR, NULL},
                 {"file", O_RDWR | O_APPEND, FILE_REGULAR, NULL},
                 {"link", O_RDONLY, FILE_REGULAR, NULL},
                 {"none", O_RDONLY, FILE_REGULAR, "cannot open '"},
                 {"dangling", O_RDONLY, FILE_STREAM, "cannot open '"},
                 {"folder", O_RDONLY, FILE_REGULAR, "is a folder, expected a regular file"},
                 {"folder", O_RDONLY, FILE_STREAM, "is a folder, expected a file or a pipe"},
                 {"folder", O_WRONLY, FILE_STREAM, "is a folder, expected a file or a pipe"},
                 {"pipe", O_RDONLY, FILE_REGULAR, "is a pipe (FIFO), expected a regular file"},
                 {"pipe", O_RDWR | O_APPEND, FILE_REGULAR, "is a pipe (FIFO), expected a regular file"},
                 {"pipe", O_WRONLY, FILE_REGULAR, "is a pipe (FIFO), expected a regular file"},
                 {"pipe", O_RDONLY, FILE_STREAM, "that no program writes into; start that program first"},
                 {"pipe", O_WRONLY, FILE_STREAM, "that no program reads; start that program first"},
                 {"socket", O_RDONLY, FILE_STREAM, "is a socket, expected a file or a pipe"},
                 {"device", O_RDONLY, FILE_REGULAR, "is a device, expected a regular file"},
                 {"device", O_RDONLY, FILE_STREAM, NULL}};
    const char *folder = test_folder();
    char path[FILE_PATH_SIZE], error[FILE_ERROR_SIZE], output[256];
    files_put(folder, "file", "text");
    int code =
        test_command(output, sizeof output,
                     "cd %s && ln -s file link && ln -s nowhere dangling && mkdir folder && mkfifo pipe "
                     "&& ln -s /dev/null device",
                     folder);
    REQUIRE(code == 0, "%s", output);
    snprintf(path, sizeof path, "%s/socket", folder);
    files_make_socket(path);
    file_writer_milliseconds = 10;
    alarm(FILES_PATIENCE);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, cases[i].name);
        error[0] = 0, errno = 0;
        int file = file_open(path, cases[i].flags, cases[i].accept, error);
        const int cause = errno;
        CHECK((file >= 0) == !cases[i].message, "case %zu: %d, %s", i, file, error);
        CHECK(!cases[i].message || (strstr(error, cases[i].message) && strstr(error, path)), "case %zu: %s",
              i, error);
        CHECK(file >= 0 || (cause == ENOENT) == (strstr("none dangling", cases[i].name) != NULL),
              "case %zu: %s", i, strerror(cause));
        if (file < 0) continue;
        CHECK((fcntl(file, F_GETFL) & (O_NONBLOCK | O_APPEND)) == (cases[i].flags & O_APPEND),
              "case %zu: flags %d", i, fcntl(file, F_GETFL));
        CHECK(fcntl(file, F_GETFD) == FD_CLOEXEC, "case %zu: not closed for other programs", i);
        close(file);
    }
    alarm(0);
    file_writer_milliseconds = 1000;
}

/* A child that opens the pipe and writes `bytes` bytes in small pieces. */
static pid_t files_write_pipe(const char *path, size_t bytes) {
    fflush(NULL);
    pid_t child = fork();
    if (child != 0) return child;
    alarm(FILES_PATIENCE);
    int pipe = open(path, O_WRONLY);
    for (size_t done = 0; done < bytes; done += 1000) {
        char piece[1000];
        for (size_t k = 0; k < sizeof piece; k++) piece[k] = (char)('a' + (done + k) % 23);
        if (write(pipe, piece, sizeof piece) != sizeof piece) _exit(2);
    }
    _exit(0);
}

/* A pipe gives its content in pieces: what comes after the first piece must not be lost. */
static void test_files_streams_are_read_whole(void) {
    enum { BYTES = 200000 }; /* three times what a pipe holds */
    char path[FILE_PATH_SIZE], error[FILE_ERROR_SIZE] = "";
    int status;
    size_t size = 0, wrong = 0;
    snprintf(path, sizeof path, "%s/pipe", test_folder());
    REQUIRE(mkfifo(path, 0666) == 0, "%s", strerror(errno));
    alarm(FILES_PATIENCE);
    pid_t child = files_write_pipe(path, BYTES);
    char *text = file_read(path, FILE_STREAM, BYTES, &size, error);
    waitpid(child, &status, 0);
    REQUIRE(text && size == BYTES && WIFEXITED(status) && WEXITSTATUS(status) == 0, "%zu bytes: %s", size,
            error);
    for (size_t i = 0; i < size; i++) wrong += text[i] != (char)('a' + i % 23);
    CHECK(wrong == 0 && text[size] == 0, "%zu bytes of %zu are wrong", wrong, size);
    free(text);

    child = files_write_pipe(path, BYTES);
    text = file_read(path, FILE_STREAM, BYTES - 1, &size, error);
    CHECK(!text && strstr(error, "has more than 200000 bytes, at most 199999 are expected"), "%s", error);
    free(text);
    waitpid(child, &status, 0); /* it died of the closed pipe, or had written all */

    file_writer_milliseconds = 10; /* a writer that is there may take its time */
    char bytes[1000] = "late";
    int writer = open(path, O_RDWR | O_CLOEXEC), reader = file_open(path, O_RDONLY, FILE_STREAM, error);
    CHECK(reader >= 0, "%s", error);
    REQUIRE(write(writer, bytes, sizeof bytes) == sizeof bytes, "%s", strerror(errno));
    bytes[0] = 0;
    CHECK(file_read_bytes(reader, bytes, sizeof bytes) == sizeof bytes && strcmp(bytes, "late") == 0, "%s",
          bytes);
    close(reader), close(writer);
    alarm(0);
    file_writer_milliseconds = 1000;
}

/* A file that is written must be there completely or not at all; half a file would be taken for a whole one. */
static void test_files_read_and_write_whole(void) {
    const char *folder = test_folder();
    char path[FILE_PATH_SIZE], other[FILE_PATH_SIZE], error[FILE_ERROR_SIZE], output[256];
    size_t size;
    snprintf(path, sizeof path, "%s", files_put(folder, "five", "12345"));
    char *text = file_read(path, FILE_REGULAR, 5, &size, error);
    REQUIRE(text && size == 5 && strcmp(text, "12345") == 0, "%s", text ? text : error);
    free(text);
    text = file_read(path, FILE_REGULAR, 4, &size, error);
    CHECK(!text && strstr(error, "has 5 bytes, at most 4 are expected"), "%s", error);
    text = file_read(files_put(folder, "empty", ""), FILE_REGULAR, 0, &size, error);
    CHECK(text && size == 0 && !*text, "%s", error);
    free(text);
    snprintf(other, sizeof other, "%s", files_put(folder, "huge", ""));
    REQUIRE(truncate(other, (off_t)1 << 40) == 0, "%s", strerror(errno)); /* nothing is allocated for it */
    text = file_read(other, FILE_REGULAR, FILE_JSON_LIMIT, &size, error);
    CHECK(!text && strstr(error, "has 1099511627776 bytes, at most 268435456 are expected"), "%s", error);
    unlink(other);

    snprintf(other, sizeof other, "%.4000s.part",
             path); /* what is in the place of the temporary file is removed */
    CHECK(mkfifo(other, 0666) == 0 && file_write_whole(path, "new", 3, error), "%s", error);
    text = file_read(path, FILE_REGULAR, 5, &size, error);
    CHECK(text && strcmp(text, "new") == 0 && access(other, F_OK) != 0, "%s", text ? text : error);
    free(text);
    snprintf(other, sizeof other, "%s/folder", folder);
    REQUIRE(mkdir(other, 0777) == 0, "%s", strerror(errno));
    CHECK(!file_write_whole(other, "new", 3, error) && strstr(error, "cannot rename"), "%s", error);
    CHECK(!file_write_output(other, "new", 3, error) &&
              strstr(error, "/folder' is a folder, expected a file"),
          "%s", error);
    test_command(output, sizeof output, "ls %s", folder);
    CHECK(strcmp(output, "empty\nfive\nfolder\n") == 0, "left: %s", output);

    snprintf(other, sizeof other, "%s/a//b/c/", folder);
    CHECK(file_make_folders(other, error) && file_make_folders(other, error) && access(other, W_OK) == 0,
          "%s", error);
    snprintf(other, sizeof other, "%s/five/b", folder);
    CHECK(!file_make_folders(other, error) && strstr(error, "/five': a file is in its way"), "%s", error);
}

/* A file that is renamed to a link or a device would take its place: root's --out=/dev/null would remove the device. */
static void test_files_links_and_devices_stay(void) {
    const char *folder = test_folder();
    char file[FILE_PATH_SIZE], link[FILE_PATH_SIZE], error[FILE_ERROR_SIZE];
    struct stat about;
    size_t size;
    snprintf(file, sizeof file, "%s", files_put(folder, "file", "old"));
    snprintf(link, sizeof link, "%s/link", folder);
    REQUIRE(symlink("file", link) == 0, "%s", strerror(errno));
    CHECK(file_write_output(link, "new", 3, error), "%s", error);
    char *text = file_read(file, FILE_REGULAR, 5, &size, error);
    CHECK(text && strcmp(text, "new") == 0, "%s", text ? text : error);
    free(text);
    CHECK(lstat(link, &about) == 0 && S_ISLNK(about.st_mode), "the link was replaced");
#ifdef __linux__
    char full[FILE_PATH_SIZE];
    snprintf(full, sizeof full, "%s/full", folder);
    REQUIRE(symlink("/dev/full", full) == 0, "%s", strerror(errno));
    CHECK(!file_write_output(full, "new", 3, error) && strstr(error, "/full': No space left on device"), "%s",
          error);
    CHECK(stat(full, &about) == 0 && S_ISCHR(about.st_mode), "the device was replaced");
#endif
}

#define FILES_TESTS(TEST)                                                                                    \
    TEST(files_kinds_are_told_apart)                                                                         \
    TEST(files_streams_are_read_whole)                                                                       \
    TEST(files_read_and_write_whole)                                                                         \
    TEST(files_links_and_devices_stay)

#endif
