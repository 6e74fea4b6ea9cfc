/* options.h: ONE table of options; parsing, bounds, --help, presets, files and the config dump are views of it.

   A program describes its options in an array of Option rows over a struct of its own (Option.offset), then:

       static Options options;                       // the values, one field per row
       OptionSet set = options_begin("train_gpt", usage, train_options, COUNT, &options, presets);
       int count = options_parse(&set, argc, argv);  // fills `options`; leaves `count` others in argv[0..]
       cJSON *json = options_to_json(&set);          // every option by name; works as --config=FILE later

   Values are read as --name=value or --name value; a switch also as --name alone. Where a value comes from
   decides, not the order: command line > --config file > --preset > default. --help (or -h) prints the table,
   --version what program.h knows; both exit with 0. A wrong option ends the program with exit code 2 and one line: the option, what was found, its
   bounds, and the nearest valid spelling. The fields of the struct are, by type:
       OPTION_INT int64_t, OPTION_FLOAT double, OPTION_SWITCH bool, OPTION_CHOICE int: the index in `choices`,
       OPTION_STRING const char * (lives as long as the program).
   The first part of this file is the machinery, the second the trainer's table and its presets. */
#ifndef GPT_RUN_OPTIONS_H
#define GPT_RUN_OPTIONS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../io/files.h"
#include "../io/json.h"
#include "../base/program.h"

typedef enum { OPTION_INT, OPTION_FLOAT, OPTION_SWITCH, OPTION_CHOICE, OPTION_STRING } OptionType;

enum {
    OPTION_FIXED = 1, /* part of what a run is: resuming a checkpoint with another value is refused */
    OPTION_OWN = 2,   /* of several ranks each may have its own value */
    OPTION_ONCE = 4   /* asked for anew each time: no file that a program writes carries it on */
};

typedef struct {
    const char *group, *name;
    OptionType type;
    size_t offset;     /* of the field in the program's struct */
    const char *value; /* the default, as it would be typed */
    double min, max;   /* bounds of OPTION_INT and OPTION_FLOAT, both allowed */
    const char
        *choices; /* "standard|laser" for OPTION_CHOICE; for a string a word for --help such as "DIR" */
    const char *help;
    int flags; /* OPTION_FIXED, ... */
} Option;

typedef struct {
    const char *name;
    const char *values; /* "layers=32 heads=8": options as typed, separated by blanks */
    const char *help;
} OptionPreset;

typedef enum { OPTION_FROM_DEFAULT, OPTION_FROM_PRESET, OPTION_FROM_FILE, OPTION_FROM_COMMAND } OptionSource;

enum { OPTIONS_MAX = 96 };

typedef struct {
    const char *program, *usage; /* usage: the line after "usage: " */
    const Option *table;
    int count;
    void *target; /* the program's struct */
    const OptionPreset
        *presets; /* NULL, or rows chosen by the option called "preset", ended by a NULL name */
    unsigned char source[OPTIONS_MAX];
} OptionSet;

/* ------------------------------------------------------------------------------------------------ reading
 * values */

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

/* Number of single-character edits between two names: finds the nearest valid spelling. */
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

/* "; did you mean laser?" for the value of "a|b|c" that is nearest to what was typed, or nothing when none is near. */
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

static inline const Option *options_find_in(const Option *table, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (strcmp(table[i].name, name) == 0) return &table[i];
    return NULL;
}

static inline const Option *options_find(const OptionSet *set, const char *name) {
    return options_find_in(set->table, set->count, name);
}

__attribute__((noreturn)) static inline void options_unknown(const OptionSet *set, const char *name,
                                                             const char *where) {
    const Option *best = NULL;
    int distance = 4; /* farther than three edits is no spelling mistake */
    for (int i = 0; i < set->count; i++) {
        int d = options_distance(name, set->table[i].name);
        if (d < distance) distance = d, best = &set->table[i];
    }
    options_fail(set, "unknown option --%s%s%s%s%s", name, where, best ? "; did you mean --" : "",
                 best ? best->name : "", best ? "?" : "");
}

/* Whether the user gave it, on the command line or in a file, rather than a preset or the table. */
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

/* The name of choice `index` in "a|b|c", written to `name`. */
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

static struct OptionText {
    struct OptionText *next;
    char text[];
} * options_texts;

/* A copy of a text that lives as long as the program, or until options_forget. */
static inline const char *options_keep(const char *value) {
    struct OptionText *copy = check_malloc(sizeof *copy + strlen(value) + 1);
    copy->next = options_texts;
    options_texts = copy;
    return strcpy(copy->text, value);
}

/* After it no OPTION_STRING of any struct is read any more. */
static inline void options_forget(void) {
    for (struct OptionText *next; options_texts; options_texts = next) {
        next = options_texts->next;
        free(options_texts);
    }
}

/* Sets one option unless a stronger source has set it already. `where` ends messages: "" or " in FILE". */
static inline void options_set(OptionSet *set, const char *name, const char *value, OptionSource source,
                               const char *where) {
    const Option *option = options_find(set, name);
    if (!option) options_unknown(set, name, where);
    unsigned char *set_by = &set->source[option - set->table];
    if (*set_by > source) return;
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
    }
}

/* ------------------------------------------------------------------------------------- help, files, presets,
 * dump */

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

static inline void options_help(const OptionSet *set) {
    printf("usage: %s\n", set->usage);
    const char *group = "";
    for (int i = 0; i < set->count; i++) {
        const Option *o = &set->table[i];
        if (strcmp(group, o->group) != 0) printf("\n%s\n", group = o->group);
        const char *word = o->type == OPTION_INT      ? "N"
                           : o->type == OPTION_FLOAT  ? "X"
                           : o->type == OPTION_SWITCH ? "yes|no"
                                                      : o->choices;
        char text[1024];
        int column = printf("  --%s=%s", o->name, word);
        if (column > 29) putchar('\n'), column = 0;
        printf("%*s", 30 - column, "");
        int length = snprintf(text, sizeof text, "%s", o->help);
        if (*o->value) snprintf(text + length, sizeof text - (size_t)length, " (default %s)", o->value);
        options_print_wrapped(text, 30);
    }
    printf("\n%-30s%s\n%-30s%s\n", "  --help, -h", "print this and exit", "  --version",
           "print commit, its date and compiler, and exit");
    if (!set->presets) return;
    printf("\nPresets (any option given beside one wins over it)\n");
    for (const OptionPreset *p = set->presets; p->name; p++) {
        printf("  %-28s", p->name);
        options_print_wrapped(p->help, 30);
        if (*p->values) printf("%30s", ""), options_print_wrapped(p->values, 30);
    }
}

/* Applies "name=value name=value"; modifies nothing that a stronger source has set. */
static inline void options_apply_preset(OptionSet *set, const char *name) {
    char list[512] = "";
    for (const OptionPreset *p = set->presets; p->name; p++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", used ? "|" : "", p->name);
        if (strcmp(p->name, name) != 0) continue;
        char *copy = strcpy(check_malloc(strlen(p->values) + 1), p->values);
        for (char *state = NULL, *word = strtok_r(copy, " ", &state); word;
             word = strtok_r(NULL, " ", &state)) {
            char *equals = strchr(word, '=');
            *equals = 0;
            options_set(set, word, equals + 1, OPTION_FROM_PRESET, " in the preset");
        }
        free(copy);
        return;
    }
    char hint[96];
    options_fail(set, "--preset=%s: expected one of %s%s", name, list, options_suggest(list, name, hint));
}

/* One value of a JSON object as it would be typed; NULL for what no option can be. */
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

/* Options: lines `name = value` with # comments, or JSON: an object of options, or one that holds such an object under
   "options" (the config.json of a run). text[length] is 0; `path` is where it is from. */
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

/* The value of an option as text, as it could be typed. */
static inline const char *options_text(const OptionSet *set, const Option *option, char text[64]) {
    const void *field = (const char *)set->target + option->offset;
    switch (option->type) {
    case OPTION_INT: snprintf(text, 64, "%lld", (long long)*(const int64_t *)field); break;
    case OPTION_FLOAT: json_number_text(text, 64, *(const double *)field, 17); break;
    case OPTION_SWITCH: snprintf(text, 64, "%s", *(const bool *)field ? "yes" : "no"); break;
    case OPTION_CHOICE: return options_choice_name(option->choices, *(const int *)field, text);
    case OPTION_STRING: return *(const char *const *)field;
    }
    return text;
}

/* Every option by name with its type in JSON; the caller owns the object. */
static inline cJSON *options_to_json(const OptionSet *set) {
    cJSON *json = cJSON_CreateObject();
    for (int i = 0; i < set->count; i++) {
        const Option *o = &set->table[i];
        const void *field = (const char *)set->target + o->offset;
        char text[64];
        if (o->flags & OPTION_ONCE) continue;
        if (o->type == OPTION_INT)
            json_add_number(json, o->name, (double)*(const int64_t *)field);
        else if (o->type == OPTION_FLOAT)
            json_add_number(json, o->name, *(const double *)field);
        else if (o->type == OPTION_SWITCH)
            cJSON_AddBoolToObject(json, o->name, *(const bool *)field);
        else
            cJSON_AddStringToObject(json, o->name, options_text(set, o, text));
    }
    return json;
}

/* ---------------------------------------------------------------------------------------------------- the
 * two calls */

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

/* Reads argv[1..]; returns how many arguments were no options, moved to argv[0..]. After "--" nothing is an
 * option. */
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
            if (strcmp(name, "help") == 0) options_help(set), exit(0);
            if (strcmp(name, "version") == 0) program_version(set->program), exit(0);
            const Option *option = options_find(set, name);
            if (!option) options_unknown(set, name, "");
            bool next_is_value = i + 1 < argc && strncmp(argv[i + 1], "--", 2) != 0;
            if (option->type == OPTION_SWITCH &&
                next_is_value) /* --dry-run FILE: a switch takes only yes or no */
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

/* ------------------------------------------------------------------------------------------- the trainer's
 * options */

enum { ACTIVATION_GELU, ACTIVATION_RELU, ACTIVATION_SWIGLU };
enum { POSITION_ROPE, POSITION_SINUSOIDAL, POSITION_LEARNED };
enum { RECOMPUTE_NONE, RECOMPUTE_ATTENTION, RECOMPUTE_BLOCK };
enum { COMM_AUTO, COMM_GPU, COMM_HOST };

typedef struct {
    const char *preset, *config;
    /* model */
    int attn, laser_shift, activation, position;
    int64_t layers, heads, head_dim, embd, mlp_hidden, seq_len, vocab_size;
    /* data and batch */
    const char *data;
    bool verify_data;
    int64_t batch, total_batch, steps, seed;
    /* optimizer */
    int schedule;
    int64_t warmup, cooldown;
    double lr, lr_min, beta1, beta2, adam_eps, weight_decay, clip, skip_spikes;
    int64_t max_skipped;
    /* evaluation, checkpoints, log */
    int64_t val_every, val_tokens, sample_every, sample_tokens, save_every, keep, keep_every;
    double temperature;
    const char *prompt, *out, *resume;
    int resume_data;
    /* the machine */
    int64_t threads, zero;
    int dtype, recompute, comm, comm_dtype;
    bool profile, comm_thread;
    bool dry_run;
} Options;

#define ROW(group, name, type, field, value, min, max, choices, flags, help)                                 \
    { group, name, type, offsetof(Options, field), value, min, max, choices, help, flags }

static const Option train_options[] = {
    ROW("Start", "preset", OPTION_STRING, preset, "", 0, 0, "NAME", OPTION_OWN,
        "a named set of options, listed below"),
    ROW("Start", "config", OPTION_STRING, config, "", 0, 0, "FILE", OPTION_OWN,
        "read options from a file: lines name = value, or the config.json of a run"),
    ROW("Start", "dry-run", OPTION_SWITCH, dry_run, "no", 0, 0, "", 0,
        "print configuration, parameters, memory and an estimate of the time from a second or two of work, "
        "then exit"),

    ROW("Model", "attn", OPTION_CHOICE, attn, "standard", 0, 0, "standard|laser", OPTION_FIXED,
        "attention: softmax(QK')V, or LASER's log(softmax(QK')exp(V))"),
    ROW("Model", "laser-shift", OPTION_CHOICE, laser_shift, "causal", 0, 0, "causal|sequence", OPTION_FIXED,
        "by what LASER scales exp(V) to keep it in range. causal: by the values of the first key, and where "
        "others are far from them each row by its own; sequence: by the maximum over the whole sequence, as "
        "in the paper, so that what is 69 below it is lost"),
    ROW("Model", "layers", OPTION_INT, layers, "6", 1, 1024, "", OPTION_FIXED, "transformer blocks, L"),
    ROW("Model", "heads", OPTION_INT, heads, "4", 1, 1024, "", OPTION_FIXED, "attention heads, H"),
    ROW("Model", "head-dim", OPTION_INT, head_dim, "64", 1, 1024, "", OPTION_FIXED, "size of a head, D"),
    ROW("Model", "embd", OPTION_INT, embd, "256", 1, 65536, "", OPTION_FIXED,
        "width of the residual stream, C"),
    ROW("Model", "mlp-hidden", OPTION_INT, mlp_hidden, "768", 1, 262144, "", OPTION_FIXED,
        "hidden units of the MLP, F"),
    ROW("Model", "activation", OPTION_CHOICE, activation, "gelu", 0, 0, "gelu|relu|swiglu", OPTION_FIXED,
        "of the MLP; gelu is the tanh form"),
    ROW("Model", "pos", OPTION_CHOICE, position, "rope", 0, 0, "rope|sinusoidal|learned", OPTION_FIXED,
        "how the model knows positions"),
    ROW("Model", "seq-len", OPTION_INT, seq_len, "256", 2, 1048576, "", OPTION_FIXED,
        "tokens of a sequence, T"),
    ROW("Model", "vocab-size", OPTION_INT, vocab_size, "0", 0, 65536, "", OPTION_FIXED,
        "tokens of the vocabulary, V; 0, or from a preset: as many as the data's tokenizer.json has"),

    ROW("Data and batch", "data", OPTION_STRING, data, "", 0, 0, "DIR", OPTION_OWN,
        "folder with train_*.bin, val_*.bin and tokenizer.json, as ./prepare writes it"),
    ROW("Data and batch", "verify-data", OPTION_SWITCH, verify_data, "no", 0, 0, "", 0,
        "read all shards before the first step and compare them with the checksums of their manifest; their "
        "names and sizes are compared always"),
    ROW("Data and batch", "batch", OPTION_INT, batch, "16", 1, 65536, "", 0,
        "sequences per micro-step and rank, B; bounds the memory, does not change the result"),
    ROW("Data and batch", "total-batch", OPTION_INT, total_batch, "0", 0, 1e12, "", OPTION_FIXED,
        "tokens per optimizer step; 0: one micro-step of every rank"),
    ROW("Data and batch", "steps", OPTION_INT, steps, "300", 1, 1e9, "", OPTION_FIXED,
        "optimizer steps of the whole run"),
    ROW("Data and batch", "seed", OPTION_INT, seed, "1", 0, 1e14, "", OPTION_FIXED,
        "decides initial weights, order of the data and samples"),

    ROW("Optimizer (AdamW)", "lr", OPTION_FLOAT, lr, "3e-3", 0, 10, "", OPTION_FIXED, "peak learning rate"),
    ROW("Optimizer (AdamW)", "lr-min", OPTION_FLOAT, lr_min, "0", 0, 1, "", OPTION_FIXED,
        "learning rate at the end as a fraction of the peak"),
    ROW("Optimizer (AdamW)", "schedule", OPTION_CHOICE, schedule, "cosine", 0, 0,
        "cosine|linear|constant|wsd", OPTION_FIXED,
        "course of the rate after the warmup; wsd is constant, then falls linearly over --cooldown steps"),
    ROW("Optimizer (AdamW)", "warmup", OPTION_INT, warmup, "40", 0, 1e9, "", OPTION_FIXED,
        "steps in which the rate rises linearly from zero"),
    ROW("Optimizer (AdamW)", "cooldown", OPTION_INT, cooldown, "0", 0, 1e9, "", OPTION_FIXED,
        "last steps of --schedule=wsd; 0: a fifth of all"),
    ROW("Optimizer (AdamW)", "beta1", OPTION_FLOAT, beta1, "0.9", 0, 0.999999, "", OPTION_FIXED,
        "decay of the mean gradient"),
    ROW("Optimizer (AdamW)", "beta2", OPTION_FLOAT, beta2, "0.95", 0, 0.999999, "", OPTION_FIXED,
        "decay of the mean squared gradient"),
    ROW("Optimizer (AdamW)", "adam-eps", OPTION_FLOAT, adam_eps, "1e-8", 0, 1, "", OPTION_FIXED,
        "added to the denominator"),
    ROW("Optimizer (AdamW)", "weight-decay", OPTION_FLOAT, weight_decay, "0.1", 0, 10, "", OPTION_FIXED,
        "decoupled, on matrices only, times the learning rate"),
    ROW("Optimizer (AdamW)", "clip", OPTION_FLOAT, clip, "1", 0, 1e9, "", OPTION_FIXED,
        "largest global norm of the gradient; 0: never clipped"),
    ROW("Optimizer (AdamW)", "skip-spikes", OPTION_FLOAT, skip_spikes, "0", 0, 1e6, "", 0,
        "skip a step whose loss lies this many standard deviations above the mean of the last 128; 0: skip "
        "none, report those beyond 6"),
    ROW("Optimizer (AdamW)", "max-skipped", OPTION_INT, max_skipped, "5", 1, 1e9, "", 0,
        "steps skipped in a row (a loss or gradient that is no number, a spike) after which the run stops "
        "with "
        "a diagnosis"),

    ROW("Evaluation", "val-every", OPTION_INT, val_every, "40", 0, 1e9, "", 0,
        "steps between validations; 0: only after the last step"),
    ROW("Evaluation", "val-tokens", OPTION_INT, val_tokens, "65536", 0, 1e12, "", 0,
        "tokens of a validation, always the same ones; 0: all there are"),
    ROW("Evaluation", "sample-every", OPTION_INT, sample_every, "0", 0, 1e9, "", 0,
        "steps between printed samples; 0: none"),
    ROW("Evaluation", "sample-tokens", OPTION_INT, sample_tokens, "128", 1, 1e6, "", 0, "tokens of a sample"),
    ROW("Evaluation", "temperature", OPTION_FLOAT, temperature, "0.8", 0, 100, "", 0,
        "of samples; 0: the likeliest token always"),
    ROW("Evaluation", "prompt", OPTION_STRING, prompt, "", 0, 0, "TEXT", 0, "how samples begin"),

    ROW("Checkpoints", "out", OPTION_STRING, out, "", 0, 0, "DIR", 0,
        "folder of the run: config.json, log.jsonl, checkpoints; none: nothing is written"),
    ROW("Checkpoints", "save-every", OPTION_INT, save_every, "0", 0, 1e9, "", 0,
        "steps between checkpoints; 0: at the end, and when interrupted"),
    ROW("Checkpoints", "keep", OPTION_INT, keep, "2", 0, 1e9, "", 0, "newest checkpoints to keep; 0: all"),
    ROW("Checkpoints", "keep-every", OPTION_INT, keep_every, "0", 0, 1e9, "", 0,
        "keep the checkpoints of steps divisible by this for good as well; 0: none"),
    ROW("Checkpoints", "resume", OPTION_STRING, resume, "no", 0, 0, "auto|no|DIR", 0,
        "go on from the newest whole checkpoint of --out if there is one (auto), from none (no), or from "
        "DIR"),

    ROW("Checkpoints", "resume-data", OPTION_CHOICE, resume_data, "same", 0, 0, "same|changed", OPTION_ONCE,
        "whether a resumed run may read other data (text, tokenizer, shards, weights of a mixture) than its "
        "checkpoint did: same refuses it, changed goes on with what --data holds now"),

    ROW("Machine", "threads", OPTION_INT, threads, "0", 0, 4096, "", OPTION_OWN,
        "OpenMP threads per rank; 0: all cores"),
    ROW("Machine", "dtype", OPTION_CHOICE, dtype, "auto", 0, 0, "auto|fp32|bf16", OPTION_FIXED,
        "of the operands of matrix products; sums, norms, softmax and weights are always float32; auto: bf16 "
        "where the processors of all ranks multiply it faster"),
    ROW("Machine", "recompute", OPTION_CHOICE, recompute, "none", 0, 0, "none|attention|block", 0,
        "what backward computes again to save memory: nothing, attention, or all of a block but its input; "
        "the results stay the same to the bit"),
    ROW("Machine", "profile", OPTION_SWITCH, profile, "no", 0, 0, "", OPTION_OWN,
        "print at the end where the time went, by part of the model"),
    ROW("Several ranks (MPI)", "zero", OPTION_INT, zero, "1", 0, 1, "", 0,
        "1: each rank keeps AdamW's moments of its share of the parameters only; 0: of all; the "
        "result is the same"),
    ROW("Several ranks (MPI)", "comm", OPTION_CHOICE, comm, "auto", 0, 0, "auto|gpu|host", 0,
        "how gradients and weights go from rank to rank: from GPU to GPU through NCCL (gpu), or from host to "
        "host through MPI (host); auto: gpu where that is there"),
    ROW("Several ranks (MPI)", "comm-dtype", OPTION_CHOICE, comm_dtype, "fp32", 0, 0, "fp32|bf16", 0,
        "of gradients on their way from host to host; they are added in float32"),
    ROW("Several ranks (MPI)", "comm-thread", OPTION_SWITCH, comm_thread, "yes", 0, 0, "", 0,
        "a thread of its own moves gradients and weights from host to host while the step computes; no: "
        "they move between its operators"),
};
#undef ROW
enum { TRAIN_OPTION_COUNT = sizeof train_options / sizeof *train_options };
_Static_assert((int)TRAIN_OPTION_COUNT <= (int)OPTIONS_MAX, "raise OPTIONS_MAX");

/* The paper's runs on C4 (arXiv:2411.03493).
   Published: 32 layers, 8 heads of 128, C = 1024, ungated hidden 2048, T = 1024, tied, 1024 sequences a step, 160,000
   steps, AdamW, linear warmup, cosine to zero; a model of 16 layers; the smallest model has 234 million parameters.
   Inferred: the model of 16 layers is that smallest one. With a hidden size of 4096 it has 234,094,592 parameters in
   matrices; with 2048 it would have 167 million.
   Defaults of the authors' framework for C4: gelu, V = 32000, betas 0.9/0.99, eps 1e-6.
   Our choice: rope, the peak rate 1e-3, weight decay 0.1, clip 1, warmup 2,000. */
#define PRESET_C4                                                                                            \
    "heads=8 head-dim=128 embd=1024 activation=gelu pos=rope seq-len=1024 vocab-size=32000 "                 \
    "batch=8 total-batch=1048576 steps=160000 lr=1e-3 lr-min=0 schedule=cosine warmup=2000 beta1=0.9 "       \
    "beta2=0.99 "                                                                                            \
    "adam-eps=1e-6 weight-decay=0.1 clip=1 val-every=500 val-tokens=1048576 save-every=500"

static const OptionPreset train_presets[] = {
    {"demo", "", "the defaults: 4.5 million parameters, minutes on two cores"},
    {"c4-301m", "layers=32 mlp-hidden=2048 " PRESET_C4,
     "the LASER paper's main model, 301 million parameters"},
    {"c4-16l", "layers=16 mlp-hidden=4096 " PRESET_C4, "its model of 16 layers, 234 million parameters"},
    {"gpt2-124m",
     "layers=12 heads=12 head-dim=64 embd=768 mlp-hidden=3072 activation=gelu pos=learned seq-len=1024 "
     "vocab-size=50257 batch=4 total-batch=524288 steps=19073 lr=6e-4 lr-min=0.1 warmup=700 beta2=0.95 "
     "weight-decay=0.1 val-every=250 val-tokens=1048576 save-every=500",
     "the shape of GPT-2 124M (without biases), 10B tokens"},
    {NULL, NULL, NULL},
};

#endif
