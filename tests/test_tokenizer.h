/* test_tokenizer.h: tests of the tokenizer: the splitting rule against a naive matcher and against Perl's regular
   expressions, training and encoding against naive twins, round trips of any bytes, tokenizer.json written and read,
   damaged files. */
#ifndef TESTS_TEST_TOKENIZER_H
#define TESTS_TEST_TOKENIZER_H

#include "harness.h"
#include "trainer_files.h"
#include "../data/bpe_learner.h"
#include "../gpt/io/tokenizer.h"

static const char tokenizer_sample[] =
    "The cat sat on the mat, and the dog didn't. They're what we've got; I'll say it's 1999, or 2024!\n\n"
    "\tThe other cat wasn't there: the weather, the feather and the leather were. \n"
    "Zażółć gęślą jaźń \xF0\x9F\x98\x80\xF0\x9F\x98\x80 — naïve café, Привет мир, 今日は世界. aaaaaaaaaa "
    "aaaaaaaaaaaaaa  \n   \n"
    "the the the cat cat sat sat on on on a a a mat mat the cat the dog the weather the leather";

static inline uint64_t tokenizer_random(uint64_t *state, uint64_t n) {
    *state += 1;
    return rng_bits(1, RNG_STREAM_TEST, *state) % n;
}

/* Makes text that is difficult to split: letters, numbers, spaces of many kinds, apostrophes, code points from all of
   Unicode, and (when `bytes`) broken UTF-8. Returns its length, at most size. */
static inline size_t tokenizer_fuzz(char *text, size_t size, uint64_t *state, bool bytes) {
    static const char *const parts[] = {" ",
                                        " ",
                                        "  ",
                                        "\n",
                                        "\r\n",
                                        "\t",
                                        "'",
                                        "'s",
                                        "'ll",
                                        "'re",
                                        "'ve",
                                        "'t",
                                        "'x",
                                        "the",
                                        "a",
                                        "Z",
                                        "1",
                                        "42",
                                        "é",
                                        "ß",
                                        "Ж",
                                        "中文",
                                        "٣",
                                        "½",
                                        "\xC2\xA0",
                                        "\xE3\x80\x80",
                                        "\xC2\x85",
                                        "\xE2\x80\xA8",
                                        "\xE1\xA0\x8E",
                                        "\xE2\x80\x8B",
                                        "\xF0\x9F\x98\x80",
                                        "e\xCC\x81",
                                        "...",
                                        "-",
                                        "_",
                                        "aaaaaaaaaaaaaaaaaaaaaaaaa",
                                        "<|endoftext|>",
                                        "ing",
                                        " the",
                                        "\x1C"};
    size_t n = 0, wanted = tokenizer_random(state, size - 32);
    while (n < wanted) {
        uint64_t kind = tokenizer_random(state, bytes ? 8 : 6);
        if (kind < 4) {
            const char *part = parts[tokenizer_random(state, sizeof parts / sizeof *parts)];
            memcpy(text + n, part, strlen(part)), n += strlen(part);
        } else if (kind < 6) { /* a code point */
            uint32_t c = (uint32_t)tokenizer_random(state, kind == 4 ? 0x3000 : 0x110000);
            if (c >= 0xD800 && c < 0xE000) continue;
            if (c < 0x80)
                text[n++] = (char)c;
            else if (c < 0x800)
                text[n++] = (char)(0xC0 | c >> 6), text[n++] = (char)(0x80 | (c & 63));
            else if (c < 0x10000)
                text[n++] = (char)(0xE0 | c >> 12), text[n++] = (char)(0x80 | (c >> 6 & 63)),
                text[n++] = (char)(0x80 | (c & 63));
            else
                text[n++] = (char)(0xF0 | c >> 18), text[n++] = (char)(0x80 | (c >> 12 & 63)),
                text[n++] = (char)(0x80 | (c >> 6 & 63)), text[n++] = (char)(0x80 | (c & 63));
        } else
            text[n++] = (char)tokenizer_random(state, 256);
    }
    return n;
}

static inline Tokenizer *tokenizer_trained(const char *text, size_t n, int vocab_size) {
    BpeLearner *learner = bpe_learner_new(1);
    bpe_learner_add(learner, 0, text, n);
    return bpe_learner_finish(learner, vocab_size);
}

/* A tokenizer learned from the sample and some awkward text. Its size is at most about 440, because a merge must
   occur twice. */
static inline Tokenizer *tokenizer_of_sample(int vocab_size) {
    static char text[8000];
    uint64_t state = 99;
    size_t n = sizeof tokenizer_sample - 1;
    memcpy(text, tokenizer_sample, n);
    while (n < 6000) n += tokenizer_fuzz(text + n, 400, &state, false);
    return tokenizer_trained(text, n, vocab_size);
}

/* A character in the wrong class would split words differently from every other tokenizer of this kind. */
static void test_tokenizer_unicode_classes(void) {
    unsigned char *classes = tokenizer_classes();
    size_t counts[4] = {0};
    for (int c = 0; c < TOKENIZER_CODE_POINTS; c++) counts[classes[c]]++;
    CHECK(counts[TOKENIZER_LETTER] == 141028, "%zu letters", counts[TOKENIZER_LETTER]); /* Unicode 16 */
    CHECK(counts[TOKENIZER_NUMBER] == 1911, "%zu numbers", counts[TOKENIZER_NUMBER]);
    CHECK(counts[TOKENIZER_SPACE] == 25, "%zu white spaces", counts[TOKENIZER_SPACE]);
    static const struct {
        int code, kind;
    } known[] = {{'a', TOKENIZER_LETTER},     {'_', TOKENIZER_OTHER},     {'9', TOKENIZER_NUMBER},
                 {'\v', TOKENIZER_SPACE},     {0x1C, TOKENIZER_OTHER},    {0x85, TOKENIZER_SPACE},
                 {0xA0, TOKENIZER_SPACE},     {0xAA, TOKENIZER_LETTER},   {0xB2, TOKENIZER_NUMBER},
                 {0x301, TOKENIZER_OTHER},    {0x180E, TOKENIZER_OTHER},  {0x200B, TOKENIZER_OTHER},
                 {0x2028, TOKENIZER_SPACE},   {0x3000, TOKENIZER_SPACE},  {0x4E2D, TOKENIZER_LETTER},
                 {0x1D7D8, TOKENIZER_NUMBER}, {0x1F600, TOKENIZER_OTHER}, {0x323AF, TOKENIZER_LETTER}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        CHECK(classes[known[i].code] == known[i].kind, "U+%04X is of class %d", (unsigned)known[i].code,
              classes[known[i].code]);
    free(classes);
}

/* The regular expression as it is written, alternative by alternative, on an array of classes. */
static inline size_t tokenizer_naive_match(const unsigned char *kind, const char *ascii, size_t n) {
    static const char *const contractions[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (int c = 0; c < 7; c++)
        if (n >= strlen(contractions[c]) && memcmp(ascii, contractions[c], strlen(contractions[c])) == 0)
            return strlen(contractions[c]);
    static const int runs[] = {TOKENIZER_LETTER, TOKENIZER_NUMBER, TOKENIZER_OTHER};
    for (int r = 0; r < 3; r++)
        for (size_t space = ascii[0] == ' '; space <= 1;
             space--) { /* the optional space: first it is taken */
            size_t i = space;
            while (i < n && kind[i] == runs[r]) i++;
            if (i > space) return i;
        }
    size_t white = 0;
    while (white < n && kind[white] == TOKENIZER_SPACE) white++;
    for (size_t i = white; i > 0; i--) /* \s+(?!\S), giving back one character at a time */
        if (i == n || kind[i] == TOKENIZER_SPACE) return i;
    return white;
}

/* The fast splitting must cut as the rule says: other pieces give other tokens, and another model's tokens would not
   fit. */
static void test_tokenizer_split_matches_naive(void) {
    enum { SIZE = 400 };
    Tokenizer *t = tokenizer_of_sample(300);
    char text[SIZE], ascii[SIZE];
    unsigned char kind[SIZE];
    size_t at[SIZE + 1], pieces = 0;
    uint64_t state = 1;
    for (int round = 0; round < 3000; round++) {
        size_t n = tokenizer_fuzz(text, SIZE, &state, round % 2 == 1), characters = 0;
        const unsigned char *p = (const unsigned char *)text, *end = p + n;
        for (int length; p < end; p += length, characters++) {
            at[characters] = (size_t)(p - (const unsigned char *)text);
            kind[characters] = (unsigned char)tokenizer_class(t->classes, p, end, &length);
            ascii[characters] = *p < 0x80 ? (char)*p : 0;
        }
        at[characters] = n;
        for (size_t c = 0; c < characters; pieces++) {
            size_t want = tokenizer_naive_match(kind + c, ascii + c, characters - c);
            size_t got = tokenizer_split(t, text + at[c], n - at[c]);
            REQUIRE(got == at[c + want] - at[c], "piece of %zu bytes instead of %zu in text %d at %zu", got,
                    at[c + want] - at[c], round, at[c]);
            c += want;
        }
    }
    CHECK(pieces > 50000, "only %zu pieces were compared", pieces);
    tokenizer_free(t);
}

/* Perl has the same regular expressions and its own Unicode tables. It makes texts of code points it knows, cuts
   them, and prints both; this must cut them in the same places. */
static void test_tokenizer_split_matches_perl(void) {
    static const char script[] =
        "use strict; use warnings; srand(5); my @parts = (' ', '  ', \"\\n\", \"\\t\", \"'\", \"'s\", "
        "\"'ll\", \"'ve\", 'the', 'A',\n"
        "  '1', chr(0xE9), chr(0x416), chr(0x661), chr(0xBD), chr(0xA0), chr(0x3000), chr(0x85), "
        "chr(0x2028), chr(0x180E), '...');\n"
        "binmode(STDOUT, ':raw');\n"
        "for my $round (1 .. 400) {\n"
        "  my $text = '';\n"
        "  for (1 .. 1 + int(rand(60))) {\n"
        "    if (rand() < 0.7) { $text .= $parts[int(rand(@parts))]; next; }\n"
        "    my $c = int(rand(rand() < 0.5 ? 0x3000 : 0x32000));\n"
        "    next if $c >= 0xD800 && $c < 0xE000;\n"
        "    $text .= chr($c) if chr($c) =~ /\\p{Assigned}/;\n"
        "  }\n"
        "  while ($text =~ /'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| "
        "?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+/gu) {\n"
        "    my $piece = $&; utf8::encode($piece); print pack('V', length($piece)), $piece;\n"
        "  }\n"
        "  print pack('V', 0);\n" /* the end of a text */
        "}\n";
    char output[256], name[256];
    /* Without Perl only the naive matcher can check. */
    if (test_command(output, sizeof output, "perl -v >/dev/null") != 0) return;
    snprintf(name, sizeof name, "%s", test_folder());
    char *path = check_calloc(sizeof name + 16);
    snprintf(path, sizeof name + 16, "%s/split.pl", name);
    FILE *file = check_fopen(path, "wb", "");
    check_fwrite(script, 1, sizeof script - 1, file, path);
    check_fclose(file, path);
    int code = test_command(output, sizeof output, "perl %s > %s/pieces", path, name);
    REQUIRE(code == 0, "perl ended with %d: %s", code, output);
    snprintf(path, sizeof name + 16, "%s/pieces", name);
    size_t n, pieces = 0, texts = 0, lengths[256], count = 0, length = 0;
    char *bytes = check_file_read(path, FILE_REGULAR, FILE_NO_LIMIT, &n, ""), text[8192];
    Tokenizer *t = tokenizer_of_sample(300);
    for (size_t i = 0; i + 4 <= n;) {
        const unsigned char *p = (const unsigned char *)bytes + i;
        size_t piece = p[0] | (size_t)p[1] << 8;
        i += 4;
        if (piece) { /* gather the text and where Perl cut it */
            memcpy(text + length, bytes + i, piece);
            length += piece, i += piece, lengths[count++] = piece;
            continue;
        }
        size_t at = 0;
        for (size_t k = 0; k < count; at += lengths[k++], pieces++) {
            size_t got = tokenizer_split(t, text + at, length - at);
            CHECK(got == lengths[k], "text %zu, piece at %zu: %zu bytes, Perl %zu", texts, at, got,
                  lengths[k]);
        }
        count = length = 0, texts++;
    }
    CHECK(texts == 400 && pieces > 5000, "%zu texts, %zu pieces", texts, pieces);
    tokenizer_free(t);
    free(bytes), free(path);
}

/* Learns merges by counting all pairs of the whole text again for each. */
static inline int tokenizer_naive_train(const char *text, size_t n, const Tokenizer *t, uint32_t *merges,
                                        int most) {
    uint16_t *ids = check_calloc(n * sizeof *ids);
    unsigned char *ends = check_calloc(n), *begins = check_calloc(n); /* a symbol at the end of a piece */
    uint32_t *counts = check_calloc((size_t)512 * 512 * sizeof *counts);
    size_t piece = 0;
    int learned = 0;
    for (size_t i = 0; i < n; i++) {
        if (i == piece) piece += tokenizer_split(t, text + i, n - i);
        ids[i] = t->byte_id[(unsigned char)text[i]], ends[i] = i + 1 == piece;
    }
    for (; learned < most; learned++) {
        uint32_t best = 0;
        memset(counts, 0, (size_t)512 * 512 * sizeof *counts);
        for (size_t i = 0; i + 1 < n; i++)
            if (!ends[i]) counts[(uint32_t)ids[i] << 9 | ids[i + 1]]++;
        for (uint32_t pair = 1; pair < 512 * 512; pair++)
            if (counts[pair] > counts[best]) best = pair;
        if (counts[best] < 2) break;
        uint32_t left = best >> 9, right = best & 511;
        merges[learned] = left << 16 | right;
        size_t to = 0;
        for (size_t i = 0; i < n; i++, to++) {
            bool join = i + 1 < n && !ends[i] && ids[i] == left && ids[i + 1] == right;
            ids[to] = join ? (uint16_t)(256 + learned) : ids[i];
            ends[to] = ends[i + join];
            i += join;
        }
        n = to;
    }
    free(ids), free(ends), free(begins), free(counts);
    return learned;
}

/* The fast learner must choose the merges that the definition of BPE gives. */
static void test_tokenizer_training_matches_naive(void) {
    char text[6000];
    uint64_t state = 77;
    for (int round = 0; round < 6; round++) {
        size_t n = 0;
        if (round == 0) memcpy(text, tokenizer_sample, n = sizeof tokenizer_sample - 1);
        while (round && n < 3000) n += tokenizer_fuzz(text + n, 300, &state, true);
        Tokenizer *t = tokenizer_trained(text, n, round == 0 ? 440 : 500);
        uint32_t merges[256];
        int learned = tokenizer_naive_train(text, n, t, merges, round == 0 ? 440 - 257 : 500 - 257);
        CHECK(learned == t->n_merges, "%d merges, naively %d", t->n_merges, learned);
        for (int i = 0; i < learned && i < t->n_merges; i++)
            CHECK(merges[i] == t->merges[i], "merge %d is %u %u, naively %u %u", i, t->merges[i] >> 16,
                  t->merges[i] & 0xFFFF, merges[i] >> 16, merges[i] & 0xFFFF);
        tokenizer_free(t);
    }
}

/* The same text must give the same vocabulary with any number of threads. */
static void test_tokenizer_training_is_independent_of_threads(void) {
    Tokenizer *one = tokenizer_trained(tokenizer_sample, sizeof tokenizer_sample - 1, 400);
    /* The same pieces, counted by three counters in reverse order. */
    BpeLearner *learner = bpe_learner_new(3);
    size_t ends[1024], count = 0;
    for (size_t i = 0; i < sizeof tokenizer_sample - 1;)
        ends[count++] = i += tokenizer_split(one, tokenizer_sample + i, sizeof tokenizer_sample - 1 - i);
    for (size_t k = count; k-- > 0;) {
        size_t begin = k ? ends[k - 1] : 0;
        tokenizer_word(&learner->words[k % 3], tokenizer_sample + begin, ends[k] - begin)->count++;
    }
    Tokenizer *three = bpe_learner_finish(learner, 400);
    CHECK(one->n_merges == three->n_merges &&
              memcmp(one->merges, three->merges, (size_t)one->n_merges * sizeof *one->merges) == 0,
          "%d and %d merges differ", one->n_merges, three->n_merges);
    tokenizer_free(one), tokenizer_free(three);
}

/* Encodes a piece by trying all merges in order, again and again. */
static inline size_t tokenizer_naive_piece(const Tokenizer *t, const char *p, size_t n, uint16_t *ids) {
    for (size_t i = 0; i < n; i++) ids[i] = t->byte_id[(unsigned char)p[i]];
    for (;;) {
        size_t best = n;
        int best_rank = t->n_merges;
        for (size_t i = 0; i + 1 < n; i++)
            for (int rank = 0; rank < best_rank; rank++)
                if (t->merges[rank] == ((uint32_t)ids[i] << 16 | ids[i + 1])) best = i, best_rank = rank;
        if (best == n) return n;
        ids[best] = (uint16_t)(256 + best_rank);
        memmove(ids + best + 1, ids + best + 2, (n - best - 2) * sizeof *ids);
        n--;
    }
}

static inline bool tokenizer_decodes_to(const Tokenizer *t, const uint16_t *ids, size_t count,
                                        const char *text, size_t n) {
    size_t at = 0, length;
    for (size_t i = 0; i < count; i++) {
        const char *bytes = tokenizer_decode_token(t, ids[i], &length);
        if (length > n - at || memcmp(text + at, bytes, length) != 0) return false;
        at += length;
    }
    return at == n;
}

/* The fast encoder must give the tokens that the merges define, or the model would see other tokens than it was
   trained on. */
static void test_tokenizer_encoding_matches_naive(void) {
    enum { SIZE = 600 };
    Tokenizer *t = tokenizer_of_sample(420);
    TokenizerCache *cache = tokenizer_cache_new();
    char text[SIZE];
    uint16_t ids[SIZE], plain[SIZE], naive[SIZE];
    uint64_t state = 2;
    for (int round = 0; round < 400; round++) {
        size_t n = tokenizer_fuzz(text, SIZE, &state, true), count = tokenizer_encode(t, cache, text, n, ids),
               k = 0;
        CHECK(tokenizer_encode(t, NULL, text, n, plain) == count &&
                  memcmp(ids, plain, count * sizeof *ids) == 0,
              "text %d: the cache changes the tokens", round);
        for (size_t i = 0; i < n;) {
            size_t length = tokenizer_split(t, text + i, n - i),
                   m = tokenizer_naive_piece(t, text + i, length, naive);
            REQUIRE(k + m <= count && memcmp(ids + k, naive, m * sizeof *ids) == 0,
                    "text %d, piece at %zu differs", round, i);
            k += m, i += length;
        }
        CHECK(k == count, "text %d: %zu tokens, naively %zu", round, count, k);
        CHECK(tokenizer_decodes_to(t, ids, count, text, n), "text %d does not come back", round);
    }
    tokenizer_free(t), free(cache);
}

/* Checks one case of the fixture; zeros are U+FDD0 in `in`, as cJSON would end the text at them. */
static inline void tokenizer_check_case(const Tokenizer *t, int number, char *in, const cJSON *ids) {
    size_t length = strlen(in), n = 0;
    for (size_t i = 0; i < length; n++) {
        bool zero = strncmp(in + i, "\xEF\xB7\x90", 3) == 0;
        in[n] = zero ? 0 : in[i];
        i += zero ? 3 : 1;
    }
    uint16_t *got = check_calloc((n + 1) * sizeof *got);
    const cJSON *id = ids->child;
    size_t count = tokenizer_encode(t, NULL, in, n, got);
    CHECK((int)count == cJSON_GetArraySize(ids), "case %d: %zu tokens, theirs %d", number, count,
          cJSON_GetArraySize(ids));
    for (size_t i = 0; i < count && id; i++, id = id->next)
        CHECK(got[i] == id->valueint, "case %d, token %zu: %d, theirs %d", number, i, got[i], id->valueint);
    free(got);
}

/* The same vocabulary must be learned from the same text, and the same ids must come out, as with Hugging Face and
   tiktoken (tests/make_tokenizer_fixture.py). */
static void test_tokenizer_matches_reference(void) {
    size_t n;
    char *file = check_file_read("tests/fixtures/tokenizer.json", FILE_REGULAR, FILE_NO_LIMIT, &n, ""),
         spelled[512];
    for (char *zero = file; (zero = strstr(zero, "\\u0000"));) memcpy(zero, "\\ufdd0", 6);
    cJSON *json = cJSON_ParseWithLength(file, n), *item;
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(json, "text"));
    REQUIRE(text, "the fixture is damaged");
    Tokenizer *t = tokenizer_trained(text, strlen(text), cJSON_GetObjectItem(json, "vocab_size")->valueint);
    int merge = 0, cases = 0, character[256], order[256];
    tokenizer_byte_characters(character, order);
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(json, "merges")) {
        REQUIRE(merge < t->n_merges, "only %d merges", t->n_merges);
        memset(spelled, 0, sizeof spelled);
        FILE *to = fmemopen(spelled, sizeof spelled, "w");
        tokenizer_write_text(to, &t->tokens[t->merges[merge] >> 16], character);
        fputc(' ', to);
        tokenizer_write_text(to, &t->tokens[t->merges[merge] & 0xFFFF], character);
        fclose(to);
        for (char *c = spelled; *c; c++) /* what JSON needs escaped */
            if (*c == '\\') memmove(c, c + 1, strlen(c));
        CHECK(strcmp(spelled, item->valuestring) == 0, "merge %d is '%s', theirs '%s'", merge, spelled,
              item->valuestring);
        merge++;
    }
    CHECK(merge == t->n_merges && merge > 150, "%d merges, theirs %d", t->n_merges, merge);
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(json, "cases"))
        tokenizer_check_case(t, cases++, cJSON_GetStringValue(cJSON_GetObjectItem(item, "text")),
                             cJSON_GetObjectItem(item, "ids"));
    CHECK(cases == 130, "%d cases", cases);
    cJSON_Delete(json), free(file), tokenizer_free(t);
}

/* A piece of 100,000 letters must not take quadratic time: one such line would stop the preparation of the data. */
static void test_tokenizer_long_pieces(void) {
    enum { SIZE = 100000 };
    Tokenizer *t = tokenizer_of_sample(420);
    char *text = check_calloc(SIZE);
    uint16_t *ids = check_calloc(SIZE * sizeof *ids), naive[TOKENIZER_SHORT];
    uint64_t state = 3;
    for (int round = 0; round < 500;
         round++) { /* both ways of merging must agree on lengths that both can handle */
        size_t n = 1 + tokenizer_random(&state, TOKENIZER_SHORT);
        for (size_t i = 0; i < n; i++) text[i] = "the atca"[tokenizer_random(&state, round % 2 ? 8 : 3)];
        size_t count = tokenizer_merge_long(t, (unsigned char *)text, n, ids);
        size_t want = tokenizer_merge_short(t, (unsigned char *)text, n, naive);
        CHECK(count == want && memcmp(ids, naive, count * sizeof *ids) == 0,
              "piece %d of %zu bytes: %zu and %zu tokens", round, n, count, want);
    }
    memset(text, 'a', SIZE); /* one piece, for which quadratic time would take minutes */
    size_t count = tokenizer_encode(t, NULL, text, SIZE, ids);
    CHECK(tokenizer_decodes_to(t, ids, count, text, SIZE) && count < SIZE / 4, "%zu tokens", count);
    tokenizer_free(t), free(text), free(ids);
}

/* Empty text, zero bytes and broken UTF-8 must come back as they were. */
static void test_tokenizer_edge_cases(void) {
    Tokenizer *t = tokenizer_of_sample(300);
    uint16_t ids[64];
    size_t length;
    CHECK(tokenizer_encode(t, NULL, "", 0, ids) == 0, "an empty text has tokens");
    CHECK(tokenizer_encode(t, NULL, "\0", 1, ids) == 1 && ids[0] == t->byte_id[0], "a zero byte: %d", ids[0]);
    for (int byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        CHECK(tokenizer_encode(t, NULL, &text, 1, ids) == 1 && tokenizer_decodes_to(t, ids, 1, &text, 1),
              "byte %d", byte);
    }
    CHECK(tokenizer_vocab_size(t) == 300 && tokenizer_end_of_text(t) == 299, "%d tokens, end %d",
          tokenizer_vocab_size(t), tokenizer_end_of_text(t));
    CHECK(strcmp(tokenizer_decode_token(t, 299, &length), "<|endoftext|>") == 0 && length == 13,
          "end of text");
    CHECK(*tokenizer_decode_token(t, -1, &length) == 0 && length == 0, "id -1");
    CHECK(*tokenizer_decode_token(t, 300, &length) == 0 && length == 0, "id 300");
    static const char text[] = "a<|endoftext|>b";
    size_t count = tokenizer_encode(t, NULL, text, sizeof text - 1, ids);
    for (size_t i = 0; i < count; i++) CHECK(ids[i] != 299, "a text cannot make the end-of-text token");
    CHECK(tokenizer_decodes_to(t, ids, count, text, sizeof text - 1), "it comes back");
    tokenizer_free(t);
    t = tokenizer_trained("ab ab", 5, 1000); /* at most three pairs occur twice */
    CHECK(tokenizer_vocab_size(t) == 258, "%d tokens", tokenizer_vocab_size(t));
    tokenizer_free(t);
    t = tokenizer_trained("", 0, 257);
    CHECK(tokenizer_vocab_size(t) == 257, "%d tokens", tokenizer_vocab_size(t));
    tokenizer_free(t);
}

static inline bool tokenizer_same(const Tokenizer *a, const Tokenizer *b) {
    if (a->vocab_size != b->vocab_size || a->n_merges != b->n_merges || a->end_of_text != b->end_of_text)
        return false;
    for (int id = 0; id < a->vocab_size; id++)
        if (a->tokens[id].length != b->tokens[id].length || a->tokens[id].special != b->tokens[id].special ||
            memcmp(a->tokens[id].bytes, b->tokens[id].bytes, a->tokens[id].length) != 0)
            return false;
    return memcmp(a->merges, b->merges, (size_t)a->n_merges * sizeof *a->merges) == 0;
}

static inline char *tokenizer_test_file(const char *folder, const char *name, const char *text, size_t n) {
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = check_calloc(size);
    snprintf(path, size, "%s/%s", folder, name);
    FILE *file = check_fopen(path, "wb", "");
    check_fwrite(text, 1, n, file, path);
    check_fclose(file, path);
    return path;
}

/* A tokenizer.json that is written and read must encode as before, and other programs must be able to read it. */
static void test_tokenizer_json_round_trip(void) {
    char folder[128], *path;
    snprintf(folder, sizeof folder, "%s", test_folder());
    Tokenizer *t = tokenizer_of_sample(420);
    path = tokenizer_test_file(folder, "tokenizer.json", "", 0);
    tokenizer_save(t, path);
    Tokenizer *loaded = tokenizer_load(path), *of_folder = tokenizer_load(folder);
    CHECK(tokenizer_same(t, loaded), "tokenizer.json changes the tokenizer");
    CHECK(tokenizer_same(t, of_folder), "the folder's tokenizer.json is another");
    size_t n;
    char *text = check_file_read(path, FILE_REGULAR, FILE_NO_LIMIT, &n, "");
    cJSON *json = cJSON_ParseWithLength(text, n), *model = cJSON_GetObjectItem(json, "model"), *pair;
    REQUIRE(model && cJSON_GetArraySize(cJSON_GetObjectItem(model, "vocab")) == 420 &&
                t->n_merges == 420 - 257,
            "the file: %.200s", text);
    int i = 0; /* merges as pairs, as newer files of Hugging Face have them */
    cJSON *pairs = cJSON_CreateArray(), *merges = cJSON_DetachItemFromObject(model, "merges");
    cJSON_ArrayForEach(pair, merges) {
        char *space = strchr(pair->valuestring, ' ');
        *space = 0;
        const char *both[2] = {pair->valuestring, space + 1};
        cJSON_AddItemToArray(pairs, cJSON_CreateStringArray(both, 2));
        i++;
    }
    CHECK(i == t->n_merges, "%d merges", i);
    cJSON_AddItemToObject(model, "merges", pairs);
    char *printed = cJSON_PrintUnformatted(json);
    Tokenizer *of_pairs = tokenizer_parse("pairs", printed, strlen(printed), NULL);
    CHECK(tokenizer_same(t, of_pairs), "merges as pairs change the tokenizer");
    cJSON_Delete(json), cJSON_Delete(merges), cJSON_free(printed), free(text), free(path);
    tokenizer_free(t), tokenizer_free(loaded), tokenizer_free(of_folder), tokenizer_free(of_pairs);
}

/* GPT-2's own files, vocab.json and merges.txt in one folder, must be readable. */
static void test_tokenizer_gpt2_files(void) {
    char folder[128];
    size_t n;
    snprintf(folder, sizeof folder, "%s", test_folder());
    Tokenizer *t = tokenizer_of_sample(420);
    char *path = tokenizer_test_file(folder, "all.json", "", 0);
    tokenizer_save(t, path);
    char *text = check_file_read(path, FILE_REGULAR, FILE_NO_LIMIT, &n, "");
    cJSON *json = cJSON_ParseWithLength(text, n), *model = cJSON_GetObjectItem(json, "model"), *merge;
    char *vocab = cJSON_PrintUnformatted(cJSON_GetObjectItem(model, "vocab"));
    char *merges = check_calloc(n);
    size_t used = (size_t)sprintf(merges, "#version: 0.2\n");
    cJSON_ArrayForEach(merge, cJSON_GetObjectItem(model, "merges")) used +=
        (size_t)sprintf(merges + used, "%s\n", merge->valuestring);
    char *vocab_path = tokenizer_test_file(folder, "vocab.json", vocab, strlen(vocab));
    char *merges_path = tokenizer_test_file(folder, "merges.txt", merges, used);
    Tokenizer *of_folder = tokenizer_load(folder), *of_file = tokenizer_load(vocab_path);
    CHECK(tokenizer_same(t, of_folder), "the folder holds another tokenizer");
    CHECK(tokenizer_same(t, of_file), "vocab.json and merges.txt are another tokenizer");
    cJSON_Delete(json), cJSON_free(vocab), free(merges), free(text), free(path), free(vocab_path),
        free(merges_path);
    tokenizer_free(t), tokenizer_free(of_folder), tokenizer_free(of_file);
}

/* The tokens of a SentencePiece vocabulary must give the text back, or samples could not be read. This program
   cannot encode with such a vocabulary and must say so. */
static void test_tokenizer_sentencepiece_decodes(void) {
    static const char json[] = "{\"added_tokens\":[{\"id\":1,\"content\":\"</"
                               "s>\",\"special\":true}],\"decoder\":{\"type\":\"Metaspace\"},"
                               "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"</"
                               "s>\",0],[\"\xE2\x96\x81the\",-1.5],"
                               "[\"<0x0A>\",-2],[\"\xE2\x96\x81\xE2\x96\x81\",-3]]}}";
    Tokenizer *t = tokenizer_parse("unigram", json, sizeof json - 1, NULL);
    size_t n;
    CHECK(strcmp(tokenizer_decode_token(t, 2, &n), " the") == 0 && n == 4, "'%s'",
          tokenizer_decode_token(t, 2, &n));
    CHECK(strcmp(tokenizer_decode_token(t, 3, &n), "\n") == 0 && n == 1, "'%s'",
          tokenizer_decode_token(t, 3, &n));
    CHECK(strcmp(tokenizer_decode_token(t, 4, &n), "  ") == 0 && n == 2, "'%s'",
          tokenizer_decode_token(t, 4, &n));
    CHECK(tokenizer_end_of_text(t) == 1 && tokenizer_vocab_size(t) == 5, "end %d of %d",
          tokenizer_end_of_text(t), tokenizer_vocab_size(t));
    CHECK(*t->why_not, "it claims to encode");
    tokenizer_free(t);
}

typedef struct {
    const char *json, *merges;
} TokenizerDamage;

static void tokenizer_parse_and_encode(void *argument) {
    const TokenizerDamage *d = argument;
    uint16_t ids[8];
    Tokenizer *t = tokenizer_parse("damaged.json", d->json, strlen(d->json), d->merges);
    tokenizer_encode(t, NULL, "text", 4, ids);
    tokenizer_free(t);
}

static void tokenizer_load_path(void *path) { tokenizer_free(tokenizer_load(path)); }

/* Published vocabularies lack rare bytes. As in `tokenizers`, a text is then encoded without them, also where its pieces are long;
   one that names an unknown token is refused, because there it would stand for them. */
static void test_tokenizer_without_some_bytes(void) {
    static const char text[] = "ab\x04 ab\xff", without[] = "ab ab";
    for (int unknown = 0; unknown < 2; unknown++) {
        char json[8192];
        int n = snprintf(
            json, sizeof json,
            "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"decoder\":{\"type\":\"ByteLevel\"},"
            "\"model\":{\"type\":\"BPE\",\"unk_token\":%s,\"merges\":[\"a b\"],\"vocab\":{\"\\u010a\":0,"
            "\"\\u0120\":1,\"ab\":2",
            unknown ? "\"?\"" : "null");
        for (int byte = '!'; byte <= '~'; byte++)
            n += snprintf(json + n, sizeof json - (size_t)n, ",\"%s%c\":%d",
                          byte == '"' || byte == '\\' ? "\\" : "", byte, byte);
        snprintf(json + n, sizeof json - (size_t)n, "}}}");
        Tokenizer *t = tokenizer_parse("lacking", json, strlen(json), NULL);
        CHECK(t->n_lacking == 256 - 96 && (*t->why_not != 0) == (unknown != 0), "%d bytes are lacking; '%s'",
              t->n_lacking, t->why_not);
        if (!unknown) {
            uint16_t ids[16], expected[16];
            const size_t count = tokenizer_encode(t, NULL, text, sizeof text - 1, ids),
                         known = tokenizer_encode(t, NULL, without, sizeof without - 1, expected);
            CHECK(count == known && memcmp(ids, expected, count * sizeof *ids) == 0,
                  "%zu tokens instead of %zu", count, known);
            enum { LONG = 4 * TOKENIZER_SHORT };
            char piece[LONG];
            uint16_t of_piece[LONG];
            for (int i = 0; i < LONG; i++) piece[i] = i % 4 == 1 ? '\x04' : '!';
            CHECK(tokenizer_encode(t, NULL, piece, LONG, of_piece) == LONG / 4 * 3 &&
                      of_piece[LONG / 2] == '!',
                  "the bytes of a long piece");
        }
        tokenizer_free(t);
    }
}

/* A damaged tokenizer must be named with what is wrong; read as it is, it would encode wrong tokens. */
static void test_tokenizer_damaged_files(void) {
    static const struct {
        TokenizerDamage damage;
        const char *word;
    } cases[] = {
        {{"", NULL}, "not valid JSON"},
        {{"{\"model\": {\"type\": \"BPE\", \"vocab\"", NULL}, "not valid JSON"},
        {{"{}", NULL}, "no model"},
        {{"{\"model\": {\"type\": \"WordPiece\"}}", NULL}, "'WordPiece'"},
        {{"{\"model\": {\"type\": \"BPE\"}}", NULL}, "no vocabulary"},
        {{"{\"model\": {\"type\": \"BPE\", \"vocab\": {}}}", NULL}, "empty vocabulary"},
        {{"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 65536}}}", NULL}, "65535"},
        {{"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}}}", NULL}, "'a'"},
        {{"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0.5}}}", NULL}, "0.5"},
        {{"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": \"0\"}}}", NULL}, "'a'"},
        {{"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 0}}}", NULL}, "'a' and 'b'"},
        {{"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"a\": 1}}}", NULL}, "two ids"},
        {{"{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": "
          "0, \"b\": 1}, \"merges\": [\"a b\"]}}",
          NULL},
         "'ab'"},
        {{"{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": "
          "0, \"b\": 1}, \"merges\": [3]}}",
          NULL},
         "merge 0"},
        {{"{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": "
          "{\"type\": \"BPE\", \"vocab\": {\"\\u4e2d\": 0}}}",
          NULL},
         "byte alphabet"},
        {{"{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": "
          "{\"type\": \"BPE\", \"vocab\": {\"a\": 0}}}",
          NULL},
         "byte 0x0a"},
        {{"{\"pre_tokenizer\": {\"type\": \"Sequence\"}, \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": "
          "{\"type\": \"BPE\", \"vocab\": {\"a\": 0}}}",
          NULL},
         "'Sequence'"},
        {{"{\"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"decoder\": "
          "{\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}}",
          NULL},
         "normalizer"},
        {{"{\"added_tokens\": [{\"id\": 0}], \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}}", NULL},
         "added token"},
        {{"{\"a\": 0}", "#version: 0.2\nab\n"}, "merge 0, 'ab'"},
        {{"{\"a\": 0}", "#version: 0.2\na a\n"}, "'aa'"},
    };
    char output[1024];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        TokenizerDamage damage = cases[i].damage;
        int code = test_death(tokenizer_parse_and_encode, &damage, output, sizeof output);
        CHECK(code == 1 && strstr(output, cases[i].word), "case %zu, no '%s': code %d, '%s'", i,
              cases[i].word, code, output);
    }
    int code =
        test_death(tokenizer_load_path, (char *)(uintptr_t) "/nowhere/tokenizer.json", output, sizeof output);
    CHECK(code == 1 && strstr(output, "/nowhere/tokenizer.json"), "code %d: '%s'", code, output);
    char folder[128];
    snprintf(folder, sizeof folder, "%s", test_folder());
    code = test_death(tokenizer_load_path, folder, output, sizeof output);
    CHECK(code == 1 && strstr(output, "vocab.json"), "code %d: '%s'", code, output);
}

/* Of added tokens that are not special, the first in the text and the longest there must be found, as looking at
   each place for each token finds them. A text full of them would take an hour if the rest of it were searched again
   after each. */
static void test_tokenizer_added_tokens(void) {
    enum { ADDED = 30, TEXT = 400, LARGE = 1 << 20 };
    static const char letters[] = "ab <>|";
    char json[8192], *at = json, text[TEXT];
    at += sprintf(at, "{\"added_tokens\":[");
    for (int i = 0; i < ADDED; i++) { /* one to four letters each, all different */
        char token[8];
        for (int l = 0, code = i * 7 + 8; l < 5; l++, code /= 6) token[l] = code ? letters[code % 6] : 0;
        at += sprintf(at, "%s{\"id\":%d,\"content\":\"%s\",\"special\":%s}", i ? "," : "", 300 + i, token,
                      i % 3 ? "false" : "true");
    }
    sprintf(at,
            "],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"decoder\":{\"type\":"
            "\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}");
    Tokenizer *t = tokenizer_parse("added", json, strlen(json), NULL);
    for (int round = 0; round < 200; round++) {
        size_t place = 0, want_place = TEXT;
        int want = -1;
        for (int i = 0; i < TEXT; i++)
            text[i] =
                letters[rng_bits(7, RNG_STREAM_TEST, (uint64_t)(round * TEXT + i)) % (round % 4 ? 6 : 2)];
        for (int id = 300; id < 300 + ADDED; id++) {
            const Token *token = &t->tokens[id];
            for (size_t i = 0; i + token->length <= TEXT && !token->special; i++)
                if (memcmp(text + i, token->bytes, token->length) == 0) {
                    if (i < want_place || (i == want_place && token->length > t->tokens[want].length))
                        want = id, want_place = i;
                    break;
                }
        }
        int found = tokenizer_find_added(t, text, TEXT, &place);
        CHECK(found == want && (found < 0 || place == want_place),
              "round %d: token %d at %zu, expected %d at %zu", round, found, place, want, want_place);
    }
    char *large = check_calloc(LARGE);
    uint16_t *ids = check_calloc(LARGE * sizeof *ids);
    for (int i = 0; i < LARGE; i++) large[i] = letters[rng_bits(8, RNG_STREAM_TEST, (uint64_t)i) % 6];
    snprintf(t->why_not, sizeof t->why_not, "%s",
             ""); /* about the missing bytes, which no token here needs */
    size_t found = 0, left = LARGE, next;
    for (const char *p = large; tokenizer_find_added(t, p, left, &next) >= 0; found++)
        p += next + 1, left -= next + 1;
    CHECK(found > LARGE / 8, "%zu tokens", found);
    free(large), free(ids), tokenizer_free(t);
}

/* A piece longer than any that is learned from must be used in parts: a text whose lines have 5,000 letters must
   still give a vocabulary. */
static void test_tokenizer_learns_from_long_pieces(void) {
    enum { LINES = 40, LENGTH = 5000 };
    BpeLearner *learner = bpe_learner_new(1);
    char *line = check_calloc(LENGTH + 1);
    for (int l = 0; l < LINES; l++) {
        for (int i = 0; i < LENGTH; i++)
            line[i] = "ACGT"[rng_bits(9, RNG_STREAM_TEST, (uint64_t)(l * LENGTH + i)) % 4];
        line[LENGTH] = '\n';
        bpe_learner_add(learner, 0, line, LENGTH + 1);
    }
    Tokenizer *t = bpe_learner_finish(learner, 400);
    CHECK(tokenizer_vocab_size(t) == 400, "%d tokens, expected 400", tokenizer_vocab_size(t));
    free(line), tokenizer_free(t);
}

/* Spaces at the end of a text are removed only after they have been written. The pass that counts the bytes must
   count them, or the second pass would write beyond its memory. */
static void test_tokenizer_normalised_text_fits(void) {
    enum { SPACES = 200 };
    char text[1 + 3 * SPACES] = "a";
    for (int i = 0; i < SPACES; i++) memcpy(text + 1 + 3 * i, PIECES_SPACE, 3);
    const TokenizerPieces pieces = {.squeeze = true};
    const size_t most = pieces_normalize(&pieces, text, sizeof text, NULL);
    CHECK(most == sizeof text, "%zu bytes, expected %zu", most, sizeof text);
    char *out = check_calloc(most);
    const size_t length = pieces_normalize(&pieces, text, sizeof text, out);
    CHECK(length == 1 && *out == 'a', "%zu bytes are left, expected 1", length);
    free(out);
}

#define TOKENIZER_TESTS(TEST)                                                                                \
    TEST(tokenizer_unicode_classes)                                                                          \
    TEST(tokenizer_split_matches_naive)                                                                      \
    TEST(tokenizer_split_matches_perl)                                                                       \
    TEST(tokenizer_training_matches_naive)                                                                   \
    TEST(tokenizer_training_is_independent_of_threads)                                                       \
    TEST(tokenizer_encoding_matches_naive)                                                                   \
    TEST(tokenizer_matches_reference)                                                                        \
    TEST(tokenizer_long_pieces)                                                                              \
    TEST(tokenizer_edge_cases)                                                                               \
    TEST(tokenizer_json_round_trip)                                                                          \
    TEST(tokenizer_gpt2_files)                                                                               \
    TEST(tokenizer_sentencepiece_decodes)                                                                    \
    TEST(tokenizer_added_tokens)                                                                             \
    TEST(tokenizer_learns_from_long_pieces)                                                                  \
    TEST(tokenizer_without_some_bytes)                                                                       \
    TEST(tokenizer_damaged_files)                                                                            \
    TEST(tokenizer_normalised_text_fits)

#endif
