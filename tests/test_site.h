/* test_site.h: `make site` makes every page of the repository as HTML, with links that lead somewhere, and says what is
   wrong with a page or missing on the machine. */
#ifndef TESTS_TEST_SITE_H
#define TESTS_TEST_SITE_H

#include "harness.h"

/* Whether the tool is there that the site is made with; else the test is not run. */
static bool site_can_be_made(void) {
    char output[256];
    if (test_command(output, sizeof output, "command -v cmark-gfm") == 0) return true;
    test_not_run("there is no cmark-gfm (scripts/deps.sh --site installs it)");
    return false;
}

/* Checks that a file of the site has each of the texts, of which the last is NULL. */
static void site_check_texts(const char *folder, const char *file, const char *const *texts) {
    char path[300];
    size_t size;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    char *page = check_file_read_if(path, 1 << 24, &size, "");
    REQUIRE(page, "there is no %s", path);
    for (; *texts; texts++) CHECK(strstr(page, *texts), "%s has no '%s'", file, *texts);
    free(page);
}

/* A page that is left out, or cannot be reached, is lost to readers of the site. */
static void test_site_has_every_page(void) {
    if (!site_can_be_made()) return;
    char output[8192], folder[160];
    snprintf(folder, sizeof folder, "%s/site", test_folder());
    int code = test_command(output, sizeof output, "scripts/site.sh %s", folder);
    REQUIRE(code == 0 && strstr(output, "all links lead somewhere"), "code %d: %s", code, output);
    code =
        test_command(output, sizeof output,
                     "for page in *.md data/*.md docs/*.md docs/*/*.md; do html=$(echo ${page%%.md}.html | "
                     "sed 's/README.html/index.html/'); [ -s %s/$html ] || echo $html; done; "
                     "grep -rlE '<script|@import|url\\(' %s --include=*.css --include=*.html | grep -v "
                     "'\\.[a-z]*\\.html'",
                     folder, folder);
    CHECK(!*output, "these pages are not there, or need a network or scripts: %s", output);

    /* the contents with this page marked, its sections and neighbours; anchors as GitHub's; sources */
    static const char *const chapter[] = {
        "<title>Chapter 4: attention - laser.c</title>",
        "<a href=\"../../docs/course/4-attention.html\" aria-current=\"page\">4: attention</a>",
        "<a href=\"#the-online-form-a-row-in-one-pass\">",
        "<h2 id=\"the-online-form-a-row-in-one-pass\">",
        "<a class=\"previous\" href=\"../../docs/course/3-norm.html\">",
        "<a class=\"next\" href=\"../../docs/course/5-laser.html\">",
        "<a href=\"../../laser.h.html\"><code>laser.h</code></a>",
        "<a href=\"exercises/exercise_4.c.html\">",
        "<i><a href=\"../../docs/course/tiny_gpt.c.html#L",
        "<img src=\"pictures/attention.svg\"",
        "<b>for</b> (<b>int</b> j = 0; j &lt;= i; j++)",
        NULL};
    static const char *const course[] = {"<a href=\"tiny_gpt.c.html\">", "<div class=\"table\"", NULL};
    static const char *const using[] = {"<h2 id=\"measuring-it-evaluate\">",
                                        "<h2 id=\"starting-from-a-trained-model---init-from\">", NULL};
    static const char *const source[] = {"<a id=\"L1\" href=\"#L1\"></a>", "<b>static</b>", NULL};
    site_check_texts(folder, "docs/course/4-attention.html", chapter);
    site_check_texts(folder, "docs/course/index.html", course);
    site_check_texts(folder, "docs/using.html", using);
    site_check_texts(folder, "laser.h.html", source);
    code = test_command(output, sizeof output,
                        "cmp docs/course/pictures/attention.svg %s/docs/course/pictures/attention.svg && "
                        "cmp docs/demo_loss.png %s/docs/demo_loss.png",
                        folder, folder);
    CHECK(code == 0, "%s", output);
}

/* A link that leads nowhere must be found when the site is made, not by a reader. */
static void test_site_finds_what_leads_nowhere(void) {
    if (!site_can_be_made()) return;
    static const char page[] =
        "# Title\n\n## A `part` & more\n\n[right](docs/gpu.md#right), [right](#a-part--more), "
        "[right](a.c#L2), [right](./docs/./gpu.md#right), `/usr/include/stdio.h`, "
        "`--first-option=1 --second-option=2`, "
        "[no file](docs/gone.md), [no anchor](docs/gpu.md#gone), [no anchor](#part)\n"
        "![no picture](gone.png) ![elsewhere](https://example.org/x.png) `a.c` `gone.c` [left](a.c#L3)\n";
    static const char *const said[] = {
        "index.html: there is no file for docs/gone.html\n",
        "index.html: there is no anchor for docs/gpu.html#gone\n",
        "index.html: there is no anchor for #part\n",
        "index.html: there is no file for gone.png\n",
        "index.html: there is no anchor for a.c.html#L3\n",
        "index.html: needs the network to be shown: https://example.org/x.png\n"};
    char output[4096], folder[128];
    snprintf(folder, sizeof folder, "%s", test_folder());
    int code = test_command(output, sizeof output, "mkdir %s/docs", folder);
    test_write(folder, "README.md", page);
    test_write(folder, "docs/gpu.md", "# GPU\n\n## Right\n");
    test_write(folder, "a.c", "int a;\nint b;\n");
    code = test_command(output, sizeof output, "ROOT=%s scripts/site.sh %s/site", folder, folder);
    int lines = 0;
    for (const char *c = output; *c; c++) lines += *c == '\n';
    const int count = sizeof said / sizeof *said;
    CHECK(code == 1 && lines == count + 1, "code %d, %d lines: %s", code, lines, output);
    for (int i = 0; i < count; i++) CHECK(strstr(output, said[i]), "'%s' is not in: %s", said[i], output);
    static const char *const shown[] = {
        "<code class=\"short\">/usr/include/stdio.h</code>", /* a file of this machine is not part of the site */
        "<code><span>--first-option=1</span> <span>--second-option=2</span></code>", NULL};
    char site[160];
    snprintf(site, sizeof site, "%s/site", folder);
    site_check_texts(site, "index.html", shown);
    test_write(folder, "docs/new.md", "# New\n");
    code = test_command(output, sizeof output, "ROOT=%s scripts/site.sh %s/site", folder, folder);
    CHECK(code == 1 && strstr(output, "no group in scripts/site.sh has the page docs/new.md"), "code %d: %s",
          code, output);

    /* a folder of the user is not emptied, also if it is a site of another kind; what an interruption has left is */
    test_command(output, sizeof output, "mkdir %s/mine", folder);
    test_write(folder, "mine/index.html", "a page of the user\n");
    test_write(folder, "mine/site.css", "a style of the user\n");
    code = test_command(output, sizeof output, "ROOT=%s scripts/site.sh %s/mine; ls %s/mine", folder, folder,
                        folder);
    CHECK(strstr(output, "has files that site.sh did not write") && strstr(output, "\nindex.html\n"), "%s",
          output);
    code = test_command(output, sizeof output,
                        "rm %s/docs/new.md %s/site/index.html && ROOT=%s scripts/site.sh %s/site; ls %s/site",
                        folder, folder, folder, folder, folder);
    CHECK(strstr(output, "\nindex.html\n"), "%s", output);
}

/* Without its tool the site cannot be made: a message says what to install. */
static void test_site_says_what_is_missing(void) {
    char output[2048], folder[128];
    snprintf(folder, sizeof folder, "%s", test_folder());
    int code =
        test_command(output, sizeof output,
                     "mkdir %s/bin && ln -s $(command -v dirname) %s/bin && bash=$(command -v bash) && "
                     "PATH=%s/bin $bash scripts/site.sh %s/site",
                     folder, folder, folder, folder);
    CHECK(code == 1 && strstr(output, "error: there is no cmark-gfm") &&
              strstr(output, "'scripts/deps.sh --site' installs it"),
          "code %d: %s", code, output);
}

#define SITE_TESTS(TEST)                                                                                     \
    TEST(site_has_every_page)                                                                                \
    TEST(site_finds_what_leads_nowhere)                                                                      \
    TEST(site_says_what_is_missing)

#endif
