/* options.h: the options of a program as ONE table. Parsing, bounds, --help, presets, option files and the dump into
   config.json are all made from it. train_options.h has the trainer's table.

   A program describes its options in an array of Option rows. Each row names, by its offset, a field of a struct that
   the program defines:

       static Options options;                       // the values, one field for each row
       OptionSet set = options_begin("train_gpt", usage, train_options, COUNT, &options, presets);
       int count = options_parse(&set, argc, argv);  // fills `options`; leaves `count` other arguments in argv[0..]
       cJSON *json = options_to_json(&set);          // every option by name; can be read back with --config=FILE

   The type of an option decides which type its field must have:
       OPTION_INT int64_t, OPTION_FLOAT double, OPTION_SWITCH bool, OPTION_CHOICE int (the index of the chosen name),
       OPTION_STRING const char * (valid until the program ends), OPTION_TEXTS OptionTexts (the same for its texts)

   Values are written --name=value or --name value; a switch may stand alone, as --name. Of an option that is given
   twice the last value counts; only OPTION_TEXTS takes every one, in the order of the command. When an option is set in
   several places the strongest decides, whatever their order: command line, then --config file, then --preset, then
   default. --help (or -h) prints the table, --help=man prints it as a manual page for the command man, and --version
   what program_version prints; all three exit with 0. A wrong option
   ends the program with exit code 2 and a line that names the option, the value found, what is allowed, and the nearest
   valid spelling.

   The names of a choice and the enum of its values are written once, as a list of pairs:

       #define COLOUR_CHOICES(X) X(COLOUR_RED, "red") X(COLOUR_BLUE, "blue")
       enum { OPTION_ENUM(COLOUR_CHOICES) };         // COLOUR_RED, COLOUR_BLUE
       OPTION_CHOICES(COLOUR_CHOICES)                // "red|blue", for the row of the table
       OPTION_CHECK_ENUM(COLOUR_CHOICES)             // where the enum is defined elsewhere: does not compile unless its
                                                     // constants have the values 0, 1, ... in the order of the list

   Further calls:
   options_value(&set, name, text)   the current value of an option as a user would type it
   options_given(&set, name)         whether the user set it
   options_fail(&set, format, ...)   ends the program because of a wrong option */
#ifndef GPT_RUN_OPTIONS_H
#define GPT_RUN_OPTIONS_H

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../base/check.h"
#include "../base/program.h"
#include "../io/files.h"
#include "../io/json.h"

#define OPTION_ENUM(LIST) LIST(OPTION_CONSTANT)
#define OPTION_CONSTANT(constant, name) constant,
#define OPTION_CHOICES(LIST) (&LIST(OPTION_NAME)[1]) /* without the first | of "|red" "|blue" */
#define OPTION_NAME(constant, name) "|" name
#define OPTION_CHECK_ENUM(LIST)                                                                              \
    enum { LIST(OPTION_PLACE) };                                                                             \
    LIST(OPTION_CHECK_PLACE)
#define OPTION_PLACE(constant, name) OPTION_PLACE_OF_##constant,
#define OPTION_CHECK_PLACE(constant, name)                                                                   \
    _Static_assert((int)OPTION_PLACE_OF_##constant == (int)constant,                                         \
                   #constant " is not at its place in the list of choices");

typedef enum {
    OPTION_INT,
    OPTION_FLOAT,
    OPTION_SWITCH,
    OPTION_CHOICE,
    OPTION_STRING,
    OPTION_TEXTS
} OptionType;

/* The texts of an option that may be given several times. Its default is to have none. */
typedef struct {
    const char **texts; /* (count) */
    size_t count, room;
} OptionTexts;

enum {
    OPTION_FIXED = 1, /* the same for the whole run: a checkpoint cannot be resumed with another value */
    OPTION_OWN =
        2, /* ranks (the processes that mpirun starts) may have different values; all others must agree */
    OPTION_ONCE =
        4 /* holds for this start of the program only, so options_to_json does not write it to a file */
};

typedef struct {
    const char *group, *name;
    OptionType type;
    size_t offset;     /* of its field in the program's struct */
    const char *value; /* the default, as a user would type it */
    double min, max;   /* smallest and largest value of OPTION_INT and OPTION_FLOAT */
    /* the names of OPTION_CHOICE's values, as in "standard|laser"; for OPTION_STRING and OPTION_TEXTS the word that
       --help shows, as "DIR" */
    const char *choices;
    const char *help;
    int flags; /* OPTION_FIXED, OPTION_OWN and OPTION_ONCE, added up */
} Option;

typedef struct {
    const char *name;
    const char *values; /* as in "layers=32 heads=8" */
    const char *help;
} OptionPreset;

/* Where a value comes from. The sources further to the right are stronger: their values replace those of the others. */
typedef enum { OPTION_FROM_DEFAULT, OPTION_FROM_PRESET, OPTION_FROM_FILE, OPTION_FROM_COMMAND } OptionSource;

enum { OPTIONS_MAX = 96 }; /* rows of a table */

typedef struct {
    const char *program, *usage; /* usage: the line after "usage: " */
    const Option *table;
    int count;                   /* of the rows of the table */
    void *target;                /* the program's struct */
    const OptionPreset *presets; /* what --preset chooses from, ended by a NULL name; NULL: no presets */
    unsigned char source[OPTIONS_MAX]; /* of each row's value: an OptionSource */
} OptionSet;

/* ---- reading values ---- */

/* Ends the program with exit code 2 and a message. */
__attribute__((noreturn, format(printf, 2, 3))) static inline void options_fail(const OptionSet *set,
                                                                                const char *format, ...) {
    char text[1024], where[64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(where, sizeof where, " (see ./%s --help)", set->program);
    if (check_hooks.before_error) check_hooks.before_error();
    check_say("error", text, where);
    if (check_hooks.end_job) check_hooks.end_job(2);
    exit(2);
}

/* How many characters must be inserted, deleted or replaced to make `a` of `b` (the Levenshtein distance). */
static inline int options_distance(const char *a, const char *b) {
    int row[128], n = (int)strlen(b);
    if (n > 126) return 127;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int replace = diagonal + (a[i - 1] != b[j - 1]), insert = row[j - 1] + 1, delete = row[j] + 1;
            diagonal = row[j];
            row[j] = replace < insert ? replace : insert;
            if (delete < row[j]) row[j] = delete;
        }
    }
    return row[n];
}

/* The end of an error message, "; did you mean laser?": the name of "a|b|c" that is nearest to `value`; "" when none is
   near. */
static inline const char *options_suggest(const char *choices, const char *value, char text[96]) {
    char name[64];
    text[0] = 0;
    for (int distance = 3; *choices; choices += strcspn(choices, "|"), choices += *choices == '|') {
        snprintf(name, sizeof name, "%.*s", (int)strcspn(choices, "|"), choices);
        const int d = options_distance(value, name);
        if (d < distance && d < (int)strlen(name)) {
            distance = d;
            snprintf(text, 96, "; did you mean %s?", name);
        }
    }
    return text;
}

/* The row of that name in a table of `count` rows; NULL when there is none. */
static inline const Option *options_find_in(const Option *table, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (strcmp(table[i].name, name) == 0) return &table[i];
    return NULL;
}

static inline const Option *options_find(const OptionSet *set, const char *name) {
    return options_find_in(set->table, set->count, name);
}

/* Ends the program because of a name that the table does not have. `where` as in options_set. */
__attribute__((noreturn)) static inline void options_unknown(const OptionSet *set, const char *name,
                                                             const char *where) {
    const Option *best = NULL;
    int distance = 4; /* a name more than three edits away was not meant */
    for (int i = 0; i < set->count; i++) {
        int d = options_distance(name, set->table[i].name);
        if (d < distance) distance = d, best = &set->table[i];
    }
    options_fail(set, "unknown option --%s%s%s%s%s", name, where, best ? "; did you mean --" : "",
                 best ? best->name : "", best ? "?" : "");
}

/* Whether the user set this option, on the command line or in a file; a preset or the default do not count. */
static inline bool options_given(const OptionSet *set, const char *name) {
    const Option *option = options_find(set, name);
    return option && set->source[option - set->table] >= OPTION_FROM_FILE;
}

/* The index of `value` in "a|b|c", or -1. */
static inline int options_choice_index(const char *choices, const char *value) {
    size_t length = strlen(value);
    for (int index = 0; length; index++) {
        size_t n = strcspn(choices, "|");
        if (n == length && strncmp(choices, value, n) == 0) return index;
        if (!choices[n]) break;
        choices += n + 1;
    }
    return -1;
}

/* The name number `index` of "a|b|c", copied to `name`, which is returned. */
static inline const char *options_choice_name(const char *choices, int index, char name[64]) {
    while (index-- > 0) choices += strcspn(choices, "|") + 1;
    snprintf(name, 64, "%.*s", (int)strcspn(choices, "|"), choices);
    return name;
}

static inline void options_set_number(const OptionSet *set, const Option *option, const char *value,
                                      const char *where) {
    char *end;
    errno = 0;
    double number = option->type == OPTION_INT ? (double)strtoll(value, &end, 10) : strtod(value, &end);
    if (end == value || *end || errno == ERANGE || !isfinite(number))
        options_fail(set, "--%s=%s%s: not %s; expected %s from %.10g to %.10g", option->name, value, where,
                     option->type == OPTION_INT ? "a whole number" : "a number",
                     option->type == OPTION_INT ? "a whole number" : "a number", option->min, option->max);
    if (number < option->min || number > option->max)
        options_fail(set, "--%s=%s%s: out of bounds; expected %.10g to %.10g", option->name, value, where,
                     option->min, option->max);
    void *field = (char *)set->target + option->offset;
    if (option->type == OPTION_INT)
        *(int64_t *)field = strtoll(value, NULL, 10);
    else
        *(double *)field = number;
}

/* Copies of all texts that OPTION_STRING fields have pointed to. They stay until the program ends, because other code
   may have kept such a pointer. A tool that looks for memory leaks reports memory to which no pointer leads: this list
   leads to every copy. */
static struct OptionText {
    struct OptionText *next;
    char text[];
} * options_texts;

/* Returns a copy of `value`, which is added to that list. */
static inline const char *options_keep(const char *value) {
    struct OptionText *copy = check_calloc(sizeof *copy + strlen(value) + 1);
    copy->next = options_texts;
    options_texts = copy;
    return strcpy(copy->text, value);
}

/* Adds a value to the texts, which are first emptied when their source is weaker than this one. */
static inline void options_add_text(OptionTexts *texts, const char *value, bool stronger) {
    if (stronger) texts->count = 0;
    texts->texts = check_grow(texts->texts, &texts->room, texts->count + 1, sizeof *texts->texts);
    texts->texts[texts->count++] = options_keep(value);
}

/* Sets one option, unless a stronger source has already set it. `where` tells error messages where the value stands: ""
   or " in FILE". */
static inline void options_set(OptionSet *set, const char *name, const char *value, OptionSource source,
                               const char *where) {
    const Option *option = options_find(set, name);
    if (!option) options_unknown(set, name, where);
    unsigned char *set_by = &set->source[option - set->table];
    if (*set_by > source) return;
    const bool stronger = *set_by < source;
    *set_by = (unsigned char)source;
    void *field = (char *)set->target + option->offset;
    char hint[96];
    int choice;
    switch (option->type) {
    case OPTION_INT:
    case OPTION_FLOAT: options_set_number(set, option, value, where); break;
    case OPTION_SWITCH:
        choice = options_choice_index("no|yes|false|true|0|1", value);
        if (choice < 0) options_fail(set, "--%s=%s%s: expected yes or no", name, value, where);
        *(bool *)field = choice % 2 == 1;
        break;
    case OPTION_CHOICE:
        choice = options_choice_index(option->choices, value);
        if (choice < 0)
            options_fail(set, "--%s=%s%s: expected one of %s%s", name, value, where, option->choices,
                         options_suggest(option->choices, value, hint));
        *(int *)field = choice;
        break;
    case OPTION_STRING: *(const char **)field = options_keep(value); break;
    case OPTION_TEXTS:
        if (source == OPTION_FROM_DEFAULT)
            *(OptionTexts *)field = (OptionTexts){0};
        else
            options_add_text(field, value, stronger);
        break;
    }
}

/* ---- help, presets, files ---- */

/* Prints `text`, whose first line begins in `column`, and breaks it into lines of 80 columns that all begin there. */
static inline void options_print_wrapped(const char *text, int column) {
    enum { WIDTH = 80 };
    for (int at = column; *text;) {
        int word = (int)strcspn(text, " ");
        if (at + 1 + word > WIDTH && at > column) printf("\n%*s", column, ""), at = column;
        if (at > column) putchar(' '), at++;
        printf("%.*s", word, text);
        at += word;
        text += word;
        text += strspn(text, " ");
    }
    putchar('\n');
}

/* What stands behind the = of an option in --help. */
static inline const char *options_value_word(const Option *o) {
    return o->type == OPTION_INT      ? "N"
           : o->type == OPTION_FLOAT  ? "X"
           : o->type == OPTION_SWITCH ? "yes|no"
                                      : o->choices;
}

/* What --help says of an option, with its default. */
static inline const char *options_help_text(const Option *o, char text[1024]) {
    int length = snprintf(text, 1024, "%s", o->help);
    if (*o->value) snprintf(text + length, 1024 - (size_t)length, " (default %s)", o->value);
    return text;
}

/* The options that every program has besides those of its table. */
static const struct {
    const char *spelling, *help;
} options_of_all[] = {{"--help, -h", "print this and exit; --help=man prints it as a manual page"},
                      {"--version", "print commit, its date and compiler, and exit"}};
enum { OPTIONS_OF_ALL = sizeof options_of_all / sizeof *options_of_all };
static const char options_presets_title[] = "Presets (any option given beside one wins over it)";

/* Prints usage, options and presets. */
static inline void options_help(const OptionSet *set) {
    printf("usage: %s\n", set->usage);
    const char *group = "";
    for (int i = 0; i < set->count; i++) {
        const Option *o = &set->table[i];
        if (strcmp(group, o->group) != 0) printf("\n%s\n", group = o->group);
        char text[1024];
        int column = printf("  --%s=%s", o->name, options_value_word(o));
        if (column > 29) putchar('\n'), column = 0;
        printf("%*s", 30 - column, "");
        options_print_wrapped(options_help_text(o, text), 30);
    }
    putchar('\n');
    for (int i = 0; i < OPTIONS_OF_ALL; i++)
        printf("  %-28s", options_of_all[i].spelling), options_print_wrapped(options_of_all[i].help, 30);
    if (!set->presets) return;
    printf("\n%s\n", options_presets_title);
    for (const OptionPreset *p = set->presets; p->name; p++) {
        printf("  %-28s", p->name);
        options_print_wrapped(p->help, 30);
        if (*p->values) printf("%30s", ""), options_print_wrapped(p->values, 30);
    }
}

/* Prints `before`, then the text in roff, the language of manual pages, and a newline. Characters to which roff gives a
   meaning of its own are written by their names. The argument of a macro (`before` ends in a space) stays on one line;
   other text is broken into lines, none of which begins with a full stop, as macros do. */
static inline void options_roff(const char *before, const char *text) {
    static const char meant[] = "-\\'^~`\"";
    static const char *const names[] = {"\\-", "\\e", "\\(aq", "\\(ha", "\\(ti", "\\(ga", "\\(dq"};
    const size_t length = strlen(before);
    const bool argument = length > 0 && before[length - 1] == ' ';
    int column = printf("%s", before);
    for (const char *word = text; *text; text++) {
        const char *special = strchr(meant, *text);
        if (text == word && *text == '.') printf("\\&");
        if (*text == ' ' && !argument && column > 60)
            putchar('\n'), word = text + 1, column = 0;
        else if (special)
            column += printf("%s", names[special - meant]);
        else
            putchar(*text), column++;
        if (*text == '|') printf("\\:"); /* a long list of choices may be broken into lines here */
    }
    putchar('\n');
}

/* Prints a manual page of the program, from the same table as options_help. */
static inline void options_manual(const OptionSet *set) {
    const char *group = "", *usage = set->usage + (strncmp(set->usage, "./", 2) == 0 ? 2 : 0);
    char text[1024];
    printf(".TH ");
    for (const char *c = set->program; *c; c++) putchar(toupper((unsigned char)*c));
    printf(" 1 \"%s\" \"laser.c%s%s\" \"laser.c\"\n.nh\n.ad l\n.SH NAME\n", BUILD_DATE, *BUILD_TAG ? " " : "",
           BUILD_TAG);
    printf("%s \\-", set->program);
    options_roff(" ", program_purpose(set->program));
    options_roff(".SH SYNOPSIS\n.B ", usage);
    printf(".SH OPTIONS\nA value is written \\-\\-name=value or \\-\\-name value.\n");
    for (int i = 0; i < set->count; i++) {
        const Option *o = &set->table[i];
        if (strcmp(group, o->group) != 0) options_roff(".SS ", group = o->group);
        snprintf(text, sizeof text, "--%s=%s", o->name, options_value_word(o));
        options_roff(".TP\n.B ", text);
        options_roff("", options_help_text(o, text));
    }
    options_roff(".SS ", "Every program");
    for (int i = 0; i < OPTIONS_OF_ALL; i++)
        options_roff(".TP\n.B ", options_of_all[i].spelling), options_roff("", options_of_all[i].help);
    if (set->presets) options_roff(".SH PRESETS\n", options_presets_title);
    for (const OptionPreset *p = set->presets; p && p->name; p++) {
        options_roff(".TP\n.B ", p->name);
        options_roff("", p->help);
        if (*p->values) options_roff(".br\n", p->values);
    }
    printf(".SH EXIT STATUS\n0 after success, 2 after a wrong option, 1 after any other error.\n");
}

/* Sets the options in `words`, as "layers=32 heads=8". */
static inline void options_set_words(OptionSet *set, const char *words, OptionSource source,
                                     const char *where) {
    char *copy = strcpy(check_calloc(strlen(words) + 1), words);
    for (char *state = NULL, *word = strtok_r(copy, " ", &state); word; word = strtok_r(NULL, " ", &state)) {
        char *equals = strchr(word, '=');
        *equals = 0;
        options_set(set, word, equals + 1, source, where);
    }
    free(copy);
}

/* Sets the options of the preset called `name`, except those that a stronger source has set. */
static inline void options_apply_preset(OptionSet *set, const char *name) {
    char list[512] = "";
    for (const OptionPreset *p = set->presets; p->name; p++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", used ? "|" : "", p->name);
        if (strcmp(p->name, name) != 0) continue;
        options_set_words(set, p->values, OPTION_FROM_PRESET, " in the preset");
        return;
    }
    char hint[96];
    options_fail(set, "--preset=%s: expected one of %s%s", name, list, options_suggest(list, name, hint));
}

/* A JSON value as a user would type it; NULL for an array, an object or null. */
static inline const char *options_json_text(const cJSON *item, char text[64]) {
    if (cJSON_IsString(item)) return item->valuestring;
    if (cJSON_IsBool(item)) return cJSON_IsTrue(item) ? "yes" : "no";
    if (!cJSON_IsNumber(item)) return NULL;
    if (item->valuedouble == floor(item->valuedouble) && fabs(item->valuedouble) < 1e15)
        snprintf(text, 64, "%.0f", item->valuedouble);
    else
        json_number_text(text, 64, item->valuedouble, 17);
    return text;
}

/* Lines `name = value`; what follows a # is a comment. */
static inline void options_apply_lines(OptionSet *set, char *text, const char *path) {
    int line_number = 0;
    for (char *line; (line = strsep(&text, "\n"));) {
        char where[512];
        snprintf(where, sizeof where, " in %s line %d", path, ++line_number);
        line[strcspn(line, "#\r")] = 0;
        line += strspn(line, " \t-");
        char *equals = strchr(line, '=');
        if (!*line) continue;
        if (!equals) options_fail(set, "'%s'%s: expected name = value", line, where);
        char *name_end = equals, *value = equals + 1 + strspn(equals + 1, " \t");
        while (name_end > line && strchr(" \t", name_end[-1])) name_end--;
        *name_end = 0;
        for (char *end = value + strlen(value); end > value && strchr(" \t", end[-1]);) *--end = 0;
        options_set(set, line, value, OPTION_FROM_FILE, where);
    }
}

/* A JSON object of options, or one that holds such an object under "options". */
static inline void options_apply_json(OptionSet *set, const cJSON *json, const char *where) {
    const cJSON *options = cJSON_GetObjectItemCaseSensitive(json, "options"), *item;
    if (!options) options = json;
    if (!cJSON_IsObject(options))
        options_fail(set, "the options%s are no JSON object; expected {\"name\": value, ...}", where);
    cJSON_ArrayForEach(item, options) {
        char number[64];
        const char *value = options_json_text(item, number);
        if (!value)
            options_fail(set, "option '%s'%s: expected a number, a text or true/false", item->string, where);
        if (strcmp(item->string, "config") != 0)
            options_set(set, item->string, value, OPTION_FROM_FILE, where);
    }
}

/* The options in the text of a --config file: lines, or JSON such as the config.json of a run. text[length] is 0;
   `path` is named in error messages. */
static inline void options_apply_text(OptionSet *set, char *text, size_t length, const char *path) {
    char where[512];
    snprintf(where, sizeof where, " in %s", path);
    if (strlen(text) != length)
        options_fail(set, "--config=%s: it is no text, byte %zu is 0", path, strlen(text));
    const char first = text[strspn(text, " \t\r\n")];
    if (first != '{' && first != '[') {
        options_apply_lines(set, text, path);
        return;
    }
    cJSON *json = json_parse(text, length);
    if (!json)
        options_fail(set, "--config=%s: the JSON is damaged near '%.20s'", path,
                     cJSON_GetErrorPtr() ? cJSON_GetErrorPtr() : "its end");
    options_apply_json(set, json, where);
    cJSON_Delete(json);
}

static inline void options_apply_file(OptionSet *set, const char *path) {
    char error[FILE_ERROR_SIZE];
    size_t length;
    char *text = file_read(path, FILE_STREAM, 1 << 20, &length, error);
    if (!text) options_fail(set, "--config: %s", error);
    options_apply_text(set, text, length, path);
    free(text);
}

/* The value of an option that is no string, in a struct of its table: the index of a choice, 1 for a switch that is on. */
static inline double options_number(const Option *option, const void *options) {
    const void *field = (const char *)options + option->offset;
    switch (option->type) {
    case OPTION_INT: return (double)*(const int64_t *)field;
    case OPTION_FLOAT: return *(const double *)field;
    case OPTION_SWITCH: return *(const bool *)field;
    case OPTION_CHOICE: return *(const int *)field;
    case OPTION_STRING:
    case OPTION_TEXTS: break;
    }
    die("--%s is no number", option->name);
}

/* The current value of an option as a user would type it. Returns `text` or, for OPTION_STRING, the value itself. */
static inline const char *options_text(const OptionSet *set, const Option *option, char text[64]) {
    const void *field = (const char *)set->target + option->offset;
    switch (option->type) {
    case OPTION_INT: snprintf(text, 64, "%lld", (long long)*(const int64_t *)field); break;
    case OPTION_FLOAT: json_number_text(text, 64, *(const double *)field, 17); break;
    case OPTION_SWITCH: snprintf(text, 64, "%s", *(const bool *)field ? "yes" : "no"); break;
    case OPTION_CHOICE: return options_choice_name(option->choices, *(const int *)field, text);
    case OPTION_STRING: return *(const char *const *)field;
    case OPTION_TEXTS: die("--%s may have several values", option->name);
    }
    return text;
}

/* The current value of the option called `name`, for messages: options_value(set, "pos", text) is "rope" under
   --pos=rope. */
static inline const char *options_value(const OptionSet *set, const char *name, char text[64]) {
    const Option *option = options_find(set, name);
    if (!option) die("%s has no option --%s", set->program, name);
    return options_text(set, option, text);
}

/* The current values of all options without the flag OPTION_ONCE, by name. The caller owns the object. */
static inline cJSON *options_to_json(const OptionSet *set) {
    cJSON *json = cJSON_CreateObject();
    for (int i = 0; i < set->count; i++) {
        const Option *o = &set->table[i];
        char text[64];
        if (o->flags & OPTION_ONCE) continue;
        if (o->type == OPTION_INT || o->type == OPTION_FLOAT)
            json_add_number(json, o->name, options_number(o, set->target));
        else if (o->type == OPTION_SWITCH)
            cJSON_AddBoolToObject(json, o->name, options_number(o, set->target) > 0);
        else
            cJSON_AddStringToObject(json, o->name, options_text(set, o, text));
    }
    return json;
}

/* ---- the table and the command line ---- */

/* Sets every option to its default. */
static inline OptionSet options_begin(const char *program, const char *usage, const Option *table, int count,
                                      void *target, const OptionPreset *presets) {
    OptionSet set = {.program = program,
                     .usage = usage,
                     .table = table,
                     .count = count,
                     .target = target,
                     .presets = presets};
    if (count > OPTIONS_MAX)
        die("options.h holds at most %d options, %s has %d", OPTIONS_MAX, program, count);
    for (int i = 0; i < count; i++) options_set(&set, table[i].name, table[i].value, OPTION_FROM_DEFAULT, "");
    return set;
}

/* --help=FORM; without a value FORM is "". */
static inline void options_print_help(const OptionSet *set, const char *form) {
    if (*form && strcmp(form, "man") != 0)
        options_fail(set, "--help=%s: expected --help, or --help=man for a manual page", form);
    if (*form)
        options_manual(set);
    else
        options_help(set);
}

/* Reads argv[1..], then the file of --config and the preset. Returns how many arguments were not options; these are
   moved to argv[0..]. No argument after "--" is read as an option. */
static inline int options_parse(OptionSet *set, int argc, char **argv) {
    int others = 0;
    bool only_others = false;
    for (int i = 1; i < argc; i++) {
        if (!only_others && strcmp(argv[i], "-h") == 0) options_help(set), exit(0);
        if (only_others || strncmp(argv[i], "--", 2) != 0) {
            argv[others++] = argv[i];
        } else if (!argv[i][2]) {
            only_others = true;
        } else {
            char name[64], *equals = strchr(argv[i], '=');
            snprintf(name, sizeof name, "%.*s", equals ? (int)(equals - argv[i] - 2) : 63, argv[i] + 2);
            if (strcmp(name, "help") == 0) options_print_help(set, equals ? equals + 1 : ""), exit(0);
            if (strcmp(name, "version") == 0) program_version(set->program), exit(0);
            const Option *option = options_find(set, name);
            if (!option) options_unknown(set, name, "");
            bool next_is_value = i + 1 < argc && strncmp(argv[i + 1], "--", 2) != 0;
            if (option->type == OPTION_SWITCH &&
                next_is_value) /* in "--dry-run FILE" FILE is not its value */
                next_is_value = options_choice_index("no|yes|false|true|0|1", argv[i + 1]) >= 0;
            const char *value = equals                          ? equals + 1
                                : next_is_value                 ? argv[++i]
                                : option->type == OPTION_SWITCH ? "yes"
                                                                : NULL;
            if (!value) options_fail(set, "--%s: a value is missing; write --%s=VALUE", name, name);
            options_set(set, name, value, OPTION_FROM_COMMAND, "");
        }
    }
    const Option *config = options_find(set, "config"), *preset = options_find(set, "preset");
    char text[64];
    if (config && *options_text(set, config, text)) options_apply_file(set, options_text(set, config, text));
    if (preset && *options_text(set, preset, text))
        options_apply_preset(set, options_text(set, preset, text));
    return others;
}

#endif
