/* evaluate_tasks.h: the questions of published test sets, for ./evaluate: how a line of JSON becomes a prompt and its
   choices.

     task_read(path, labels, kind, limit)   the items of a file of JSON lines, as a Task; task_free(&task) when done.
                                   kind: TASK_AUTO recognises it by the keys of the first line. labels: a file with the
                                   number of the right choice in each line, for files whose lines do not have it; "": the
                                   file NAME-labels.lst beside NAME.jsonl, if there is one (PIQA is published so).
                                   limit: how many items are read at most; 0: all
     task_shots(&examples, count)  the text of the first `count` items with their answers, which is put before each
                                   prompt; the caller frees it
     task_row(kind)                the row of the table

   Wrong input ends the program with a sentence that names the file and the line.

   An item is a question with several choices, of which the model should find one to be the likeliest. Choice i is
   scored by log p(continuation[i] | context[i]). The contexts of the choices are the same text, but for WinoGrande,
   where the choice stands in the context and the rest of the sentence is scored. LAMBADA has one continuation, which is
   right when the model finds each of its tokens the likeliest.

   Contexts and continuations are, byte for byte, those of the tasks of the same names in EleutherAI's
   lm-evaluation-harness 0.4 (boolq and copa: those of its SuperGLUE), so that numbers can be compared:

     kind         context                                   continuation
     hellaswag    activity_label: ctx_a Ctx_b               " " ending               both cleaned, see hellaswag_clean
     arc          Question: question\nAnswer:               " " choice               ARC-easy and ARC-challenge
     piqa         Question: goal\nAnswer:                   " " sol1
     winogrande   the sentence before _, then option1       " " the rest of the sentence
     boolq        passage\nQuestion: question?\nAnswer:     " no" or " yes"
     openbookqa   question_stem                             " " choice
     copa         premise without its full stop, because    "  " choice1             with a small first letter, and two
                                                                                     spaces, as it is there
     sciq         support\nQuestion: question\nAnswer:      " " distractor1          the right answer is the last choice
     lambada      the text without its last word            " " last word */
#ifndef TOOLS_EVALUATE_TASKS_H
#define TOOLS_EVALUATE_TASKS_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../gpt/base/check.h"
#include "../gpt/io/files.h"
#include "../gpt/io/json.h"
#include "../gpt/run/options.h"

#define TASK_CHOICES(X)                                                                                      \
    X(TASK_AUTO, "auto")                                                                                     \
    X(TASK_HELLASWAG, "hellaswag")                                                                           \
    X(TASK_ARC, "arc")                                                                                       \
    X(TASK_PIQA, "piqa")                                                                                     \
    X(TASK_WINOGRANDE, "winogrande")                                                                         \
    X(TASK_BOOLQ, "boolq")                                                                                   \
    X(TASK_OPENBOOKQA, "openbookqa")                                                                         \
    X(TASK_COPA, "copa")                                                                                     \
    X(TASK_SCIQ, "sciq")                                                                                     \
    X(TASK_LAMBADA, "lambada")
typedef enum { OPTION_ENUM(TASK_CHOICES) TASK_KINDS } TaskKind;

enum { TASK_MOST_CHOICES = 16 };
#define TASK_FILE_LIMIT ((size_t)1 << 31)

typedef struct {
    int line;                              /* of the file; the first is 1 */
    int count, label;                      /* how many choices there are; the right one */
    char *context[TASK_MOST_CHOICES];      /* (count) */
    char *continuation[TASK_MOST_CHOICES]; /* (count) with the spaces before it */
    size_t bytes[TASK_MOST_CHOICES];       /* (count) of the choice without these spaces, for acc_norm */
} TaskItem;

typedef struct {
    const char *path;
    TaskKind kind;
    TaskItem *items; /* (count) */
    int count;
} Task;

/* A line while it is read. */
typedef struct {
    const char *path;
    int number;
    const cJSON *json;
    TaskKind kind;
    const char *labels_path; /* NULL: there is no file of labels */
    const char *label;       /* the line of it, which is not ended by a zero byte; NULL: there is none */
    size_t label_length;
} TaskLine;

typedef struct {
    const char *name;
    const char *mark;   /* a line of this kind has these keys, with spaces between */
    const char *absent; /* and not this one; NULL: any other may be there */
    const char *keys;   /* all that are read, for error messages */
    void (*build)(const TaskLine *line, TaskItem *item);
    bool has_norm;           /* acc_norm is reported for it */
    const char *shot_spaces; /* between the context and the continuation of an example (task_shots) */
} TaskRow;

static const TaskRow *task_row(TaskKind kind);

/* ---- errors ---- */

/* Ends the program with a sentence about a line. */
#define task_die(line, format, ...) die("'%s', line %d: " format, (line)->path, (line)->number, __VA_ARGS__)

/* ---- text ---- */

/* The memory of a text that was made as by printf; the caller frees it. */
__attribute__((format(printf, 1, 2))) static inline char *task_text(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0) die("a text is too long to be put together: '%.40s'", format);
    char *text = check_calloc((size_t)length + 1);
    va_start(arguments, format);
    vsnprintf(text, (size_t)length + 1, format, arguments);
    va_end(arguments);
    return text;
}

/* Whether Python's str.strip removes the character. */
static inline bool task_is_space(uint32_t code) {
    return (code >= 9 && code <= 13) || (code >= 28 && code <= 32) || code == 0x85 || code == 0xA0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
           code == 0x202F || code == 0x205F || code == 0x3000;
}

/* How many of the n bytes of a UTF-8 text its leading white space has. */
static inline size_t task_space_before(const char *text, size_t n) {
    size_t at = 0, length;
    uint32_t code;
    while (at < n && (length = check_character(text + at, n - at, &code)) > 0 && task_is_space(code))
        at += length;
    return at;
}

/* How many of the n bytes are left without the white space at the end. */
static inline size_t task_space_end(const char *text, size_t n) {
    uint32_t code = 0;
    while (n > 0) {
        size_t at = n - 1;
        while (at > 0 && (text[at] & 0xC0) == 0x80) at--;
        if (check_character(text + at, n - at, &code) != n - at || !task_is_space(code)) break;
        n = at;
    }
    return n;
}

/* A copy without white space at either end; the caller frees it. */
static inline char *task_strip(const char *text) {
    const size_t end = task_space_end(text, strlen(text)), begin = task_space_before(text, end);
    return task_text("%.*s", (int)(end - begin), text + begin);
}

/* Replaces each occurrence of `from` by `to`, which is not longer. */
static inline void task_replace(char *text, const char *from, const char *to) {
    const size_t n = strlen(from), m = strlen(to);
    char *put = text;
    while (*text) {
        const bool here = strncmp(text, from, n) == 0;
        memmove(put, here ? to : text, here ? m : 1);
        put += here ? m : 1, text += here ? n : 1;
    }
    *put = 0;
}

/* Changes the case of the letter at p: of the letters A to Z and those of Latin-1 (À to Þ, à to þ), which are two bytes
   in UTF-8. Texts of these test sets begin with no others. */
static inline void task_case(char *p, bool upper) {
    unsigned char *q = (unsigned char *)p;
    const unsigned char first = upper ? 'a' : 'A', turn = 0x20;
    if (q[0] >= first && q[0] < first + 26) q[0] ^= turn;
    if (q[0] != 0xC3) return;
    const unsigned char low = upper ? 0xA0 : 0x80;
    if (q[1] >= low && q[1] < low + 0x1F && q[1] != low + 0x17) q[1] ^= turn; /* not the signs × and ÷ */
}

/* ---- the members of a line ---- */

static inline const char *task_string_of(const TaskLine *line, const cJSON *object, const char *key) {
    const char *text = json_text(object, key);
    if (text) return text;
    const bool other = cJSON_GetObjectItemCaseSensitive(object, key) != NULL;
    task_die(line, "%s \"%s\"%s; lines of kind %s have %s: name another kind by --kind, or repair the line",
             other ? "the value of" : "there is no", key, other ? " is not a text" : "",
             task_row(line->kind)->name, task_row(line->kind)->keys);
}

static inline const char *task_string(const TaskLine *line, const char *key) {
    return task_string_of(line, line->json, key);
}

/* The number of the right choice, which the member counts from `base` on; as a number, a text or true and false. */
static inline int task_number(const TaskLine *line, const cJSON *item, const char *key, int base, int count) {
    char found[64] = "nothing";
    int64_t number = -1;
    const char *text = cJSON_GetStringValue(item);
    if (cJSON_IsBool(item)) number = cJSON_IsTrue(item);
    if (cJSON_IsNumber(item)) {
        snprintf(found, sizeof found, "%g", item->valuedouble);
        if (!json_whole(item, 1e6, &number)) number = -1;
    } else if (text) {
        snprintf(found, sizeof found, "\"%.40s\"", text);
        char *end;
        number = strtol(text, &end, 10);
        if (!*text || *end) number = -1;
    }
    if (number < base || number >= base + count)
        task_die(line,
                 "\"%s\" is %s, expected %d to %d, the number of the right choice; a test set whose "
                 "answers are not published cannot be evaluated",
                 key, found, base, base + count - 1);
    return (int)number - base;
}

/* The same from the member `key`, else from the file of labels. */
static inline int task_label(const TaskLine *line, const char *key, int base, int count) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(line->json, key);
    if (item) return task_number(line, item, key, base, count);
    if (!line->labels_path)
        task_die(line,
                 "there is no \"%s\", and no file of labels; name the file that has one for each line by "
                 "--labels=FILE (PIQA: valid-labels.lst)",
                 key);
    if (!line->label)
        task_die(line, "'%s' has no label for this line; it belongs to another file", line->labels_path);
    char *text = task_text("%.*s", (int)line->label_length, line->label);
    cJSON *value = cJSON_CreateString(text);
    const int label = task_number(line, value, line->labels_path, base, count);
    cJSON_Delete(value);
    free(text);
    return label;
}

/* ---- the kinds ---- */

/* Adds a choice; `context` and `continuation` are handed over. `choice` is what acc_norm counts the bytes of. */
static inline void task_add(const TaskLine *line, TaskItem *item, char *context, char *continuation,
                            const char *choice) {
    if (item->count == TASK_MOST_CHOICES) task_die(line, "more than %d choices", TASK_MOST_CHOICES);
    item->context[item->count] = context;
    item->continuation[item->count] = continuation;
    item->bytes[item->count++] = strlen(choice);
}

/* Adds a choice that follows the prompt after a space. */
static inline void task_add_choice(const TaskLine *line, TaskItem *item, const char *prompt,
                                   const char *choice) {
    task_add(line, item, task_text("%s", prompt), task_text(" %s", choice), choice);
}

/* The texts of HellaSwag from WikiHow have marks in brackets: "[header] How to plan [title] Pick a day. [step] Do". A
   copy without white space at its ends, with ". " in place of " [title]", without all other brackets and what is in
   them, and with one space in place of two. The caller frees it. */
static inline char *hellaswag_clean(const char *raw) {
    char *text = task_strip(raw), *put = text;
    task_replace(text, " [title]", ". ");
    for (const char *at = text; *at;) {
        const char *end = *at == '[' ? at + strcspn(at, "]\n") : at;
        if (*at == '[' && *end == ']')
            at = end + 1;
        else
            *put++ = *at++;
    }
    *put = 0;
    task_replace(text, "  ", " ");
    return text;
}

/* The first letter large, all others small. */
static inline char *hellaswag_capitalize(const char *raw) {
    char *text = task_text("%s", raw);
    for (char *at = text; *at; at++)
        if ((*at & 0xC0) != 0x80) task_case(at, at == text);
    return text;
}

static inline void build_hellaswag(const TaskLine *line, TaskItem *item) {
    const cJSON *endings = cJSON_GetObjectItemCaseSensitive(line->json, "endings"), *ending;
    char *rest = hellaswag_capitalize(task_string(line, "ctx_b"));
    char *raw = task_text("%s: %s %s", task_string(line, "activity_label"), task_string(line, "ctx_a"), rest);
    char *prompt = hellaswag_clean(raw);
    cJSON_ArrayForEach(ending, endings) {
        const char *text = cJSON_GetStringValue(ending);
        if (!text) task_die(line, "number %d of \"endings\" is not a text", item->count + 1);
        char *choice = hellaswag_clean(text);
        task_add_choice(line, item, prompt, choice);
        free(choice);
    }
    if (item->count == 0) task_die(line, "\"%s\" is not a list of texts", "endings");
    item->label = task_label(line, "label", 0, item->count);
    free(rest), free(raw), free(prompt);
}

/* Adds the choices of `of`, and finds the right one by the letter or number that "answerKey" names. They are a list of
   objects, as AI2 publishes them, or two lists in an object, as in Hugging Face's copy:
   [{"text": "a", "label": "A"}, ...] or {"text": ["a", ...], "label": ["A", ...]}. */
static inline void task_add_labelled(const TaskLine *line, TaskItem *item, const cJSON *of,
                                     const char *prompt) {
    const cJSON *choices = cJSON_GetObjectItemCaseSensitive(of, "choices");
    const cJSON *texts = cJSON_GetObjectItemCaseSensitive(choices, "text");
    const cJSON *labels = cJSON_GetObjectItemCaseSensitive(choices, "label");
    const int count = cJSON_GetArraySize(texts ? texts : choices);
    const char *key = task_string(line, "answerKey");
    key += task_space_before(key, strlen(key));
    item->label = -1;
    for (int i = 0; i < count; i++) {
        const cJSON *one = texts ? NULL : cJSON_GetArrayItem(choices, i);
        const char *text =
            texts ? cJSON_GetStringValue(cJSON_GetArrayItem(texts, i)) : json_text(one, "text");
        const char *label =
            texts ? cJSON_GetStringValue(cJSON_GetArrayItem(labels, i)) : json_text(one, "label");
        if (!text || !label)
            task_die(line, "choice %d of \"choices\" has no %s", i + 1, text ? "label" : "text");
        if (item->label < 0 && strcmp(label, key) == 0) item->label = i;
        task_add_choice(line, item, prompt, text);
    }
    if (count == 0)
        task_die(line, "there are no \"%s\", expected {\"text\": [...], \"label\": [...]}", "choices");
    if (item->label < 0) task_die(line, "\"answerKey\" is \"%.20s\", which is no label of the choices", key);
}

static inline void build_arc(const TaskLine *line, TaskItem *item) {
    const cJSON *question = cJSON_GetObjectItemCaseSensitive(line->json, "question");
    const bool nested = cJSON_IsObject(question);
    char *prompt = task_text("Question: %s\nAnswer:",
                             nested ? task_string_of(line, question, "stem") : task_string(line, "question"));
    task_add_labelled(line, item, nested ? question : line->json, prompt);
    free(prompt);
}

static inline void build_openbookqa(const TaskLine *line, TaskItem *item) {
    const cJSON *question = cJSON_GetObjectItemCaseSensitive(line->json, "question");
    const bool nested = cJSON_IsObject(question);
    task_add_labelled(line, item, nested ? question : line->json,
                      nested ? task_string_of(line, question, "stem") : task_string(line, "question_stem"));
}

static inline void build_piqa(const TaskLine *line, TaskItem *item) {
    char *prompt = task_text("Question: %s\nAnswer:", task_string(line, "goal"));
    task_add_choice(line, item, prompt, task_string(line, "sol1"));
    task_add_choice(line, item, prompt, task_string(line, "sol2"));
    item->label = task_label(line, "label", 0, 2);
    free(prompt);
}

static inline void build_winogrande(const TaskLine *line, TaskItem *item) {
    const char *sentence = task_string(line, "sentence"), *gap = strchr(sentence, '_');
    if (!gap) task_die(line, "\"sentence\" has no _ in place of the missing word: %.60s", sentence);
    char *rest = task_strip(gap + 1);
    const char *options[] = {task_string(line, "option1"), task_string(line, "option2")};
    for (int i = 0; i < 2; i++)
        task_add(line, item, task_text("%.*s%s", (int)(gap - sentence), sentence, options[i]),
                 task_text(" %s", rest), options[i]);
    item->label = task_label(line, "answer", 1, 2);
    free(rest);
}

static inline void build_boolq(const TaskLine *line, TaskItem *item) {
    char *prompt =
        task_text("%s\nQuestion: %s?\nAnswer:", task_string(line, "passage"), task_string(line, "question"));
    task_add_choice(line, item, prompt, "no");
    task_add_choice(line, item, prompt, "yes");
    const bool answer = cJSON_GetObjectItemCaseSensitive(line->json, "answer") != NULL;
    item->label = task_label(line, answer ? "answer" : "label", 0, 2); /* SuperGLUE calls it label */
    free(prompt);
}

static inline void build_copa(const TaskLine *line, TaskItem *item) {
    const char *question = task_string(line, "question");
    const bool cause = strcmp(question, "cause") == 0;
    if (!cause && strcmp(question, "effect") != 0)
        task_die(line, "\"question\" is \"%.40s\", expected \"cause\" or \"effect\"", question);
    char *premise = task_strip(task_string(line, "premise"));
    size_t n = strlen(premise);
    if (n > 0) n--;
    while (n > 0 && (premise[n] & 0xC0) == 0x80) n--; /* the last character may have several bytes */
    for (int i = 0; i < 2; i++) {
        char *choice = task_text(" %s", task_string(line, i ? "choice2" : "choice1"));
        task_case(choice + 1, false);
        task_add(line, item, task_text("%.*s %s", (int)n, premise, cause ? "because" : "therefore"),
                 task_text(" %s", choice), choice);
        free(choice);
    }
    item->label = task_label(line, "label", 0, 2);
    free(premise);
}

static inline void build_sciq(const TaskLine *line, TaskItem *item) {
    static const char *const keys[] = {"distractor1", "distractor2", "distractor3", "correct_answer"};
    const char *support = task_string(line, "support");
    char *prompt =
        task_text("%s\nQuestion: %s\nAnswer:", support + task_space_before(support, strlen(support)),
                  task_string(line, "question"));
    for (int i = 0; i < 4; i++) task_add_choice(line, item, prompt, task_string(line, keys[i]));
    item->label = 3;
    free(prompt);
}

static inline void build_lambada(const TaskLine *line, TaskItem *item) {
    const char *text = task_string(line, "text"), *space = strrchr(text, ' ');
    if (!space || !space[1]) task_die(line, "\"text\" needs a last word after a space: '%.60s'", text);
    task_add(line, item, task_text("%.*s", (int)(space - text), text), task_text("%s", space), space + 1);
}

static const TaskRow task_rows[] = {
    [TASK_AUTO] = {"auto", "", NULL, "", NULL, false, ""},
    [TASK_HELLASWAG] = {"hellaswag", "endings", NULL, "activity_label, ctx_a, ctx_b, endings and label",
                        build_hellaswag, true, ""},
    [TASK_ARC] = {"arc", "question answerKey", NULL, "question, choices and answerKey", build_arc, true, ""},
    [TASK_PIQA] = {"piqa", "goal", NULL, "goal, sol1, sol2 and label", build_piqa, true, ""},
    [TASK_WINOGRANDE] = {"winogrande", "option1", NULL, "sentence, option1, option2 and answer",
                         build_winogrande, false, ""},
    [TASK_BOOLQ] = {"boolq", "passage", NULL, "passage, question and answer", build_boolq, false, ""},
    [TASK_OPENBOOKQA] = {"openbookqa", "question_stem", NULL, "question_stem, choices and answerKey",
                         build_openbookqa, true, ""},
    [TASK_COPA] = {"copa", "premise choice1", NULL, "premise, question, choice1, choice2 and label",
                   build_copa, false, ""},
    [TASK_SCIQ] = {"sciq", "correct_answer", NULL,
                   "support, question, distractor1, distractor2, distractor3 and correct_answer", build_sciq,
                   true, ""},
    /* its continuation has a space of its own, to which the examples of lm-evaluation-harness add one */
    [TASK_LAMBADA] = {"lambada", "text", "url", "text", build_lambada, false, " "},
};
_Static_assert(sizeof task_rows / sizeof *task_rows == TASK_KINDS, "a row for each kind");

static const TaskRow *task_row(TaskKind kind) { return &task_rows[kind]; }

/* ---- files ---- */

static inline bool task_has(const cJSON *json, const char *keys) {
    char key[32];
    int length = 0;
    for (; sscanf(keys, " %31s%n", key, &length) == 1; keys += length)
        if (!cJSON_HasObjectItem(json, key)) return false;
    return true;
}

/* The kind of a line, judged by its keys. */
static inline TaskKind task_recognise(const TaskLine *line) {
    if (cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(line->json, "question")))
        task_die(line, "ARC and OpenBookQA are published with these keys; add --kind=%s or --kind=%s",
                 task_row(TASK_ARC)->name, task_row(TASK_OPENBOOKQA)->name);
    for (int kind = TASK_AUTO + 1; kind < TASK_KINDS; kind++)
        if (task_has(line->json, task_rows[kind].mark) &&
            !(task_rows[kind].absent && task_has(line->json, task_rows[kind].absent)))
            return (TaskKind)kind;
    char keys[256] = "";
    const cJSON *member;
    cJSON_ArrayForEach(member, line->json) {
        const size_t used = strlen(keys);
        snprintf(keys + used, sizeof keys - used, "%s%s", used ? ", " : "", member->string);
    }
    task_die(line,
             "no kind of task has these keys: %s; expected the line of a test set, see --help for --kind",
             keys);
}

/* Dies when the text is not UTF-8, naming the line; lines are counted from `line` on. */
static inline void task_check_utf8(const char *path, const char *text, size_t n, int line) {
    size_t begin = 0, length;
    uint32_t code;
    for (size_t at = 0; at < n; at += length) {
        length = check_character(text + at, n - at, &code);
        if (length == 0)
            die("'%s', line %d: byte %zu of it (0x%02X) is not UTF-8; convert the file, for example by iconv "
                "-f LATIN1 -t UTF-8",
                path, line, at - begin + 1, (unsigned char)text[at]);
        if (text[at] == '\n') line++, begin = at + 1;
    }
}

/* The next line of a text, without its end; moves *text behind it. NULL: there is none. */
static inline const char *task_next_line(const char **text, const char *end, size_t *length) {
    const char *line = *text;
    if (line >= end) return NULL;
    const char *stop = memchr(line, '\n', (size_t)(end - line));
    *text = stop ? stop + 1 : end;
    if (!stop) stop = end;
    while (stop > line && stop[-1] == '\r') stop--;
    *length = (size_t)(stop - line);
    return line;
}

/* The path of a file of labels: the one that was named, or NAME-labels.lst beside NAME.jsonl; NULL: there is none. The
   caller frees it. */
static inline char *task_labels_path(const char *path, const char *named) {
    if (*named) return task_text("%s", named);
    const size_t n = strlen(path);
    if (n < 6 || strcmp(path + n - 6, ".jsonl") != 0) return NULL;
    char *beside = task_text("%.*s-labels.lst", (int)(n - 6), path);
    if (access(beside, R_OK) == 0) return beside;
    free(beside);
    return NULL;
}

static inline cJSON *task_parse_line(const TaskLine *line, char *text, size_t n) {
    size_t stop;
    char *copy = task_text("%.*s", (int)n, text);
    task_check_utf8(line->path, text, n, line->number);
    cJSON *json = json_parse_at(copy, strlen(copy), &stop);
    if (!json)
        task_die(line, "it is not JSON from byte %zu on; expected one object in each line%s", stop + 1,
                 *copy == '[' ? " (jq -c '.[]' FILE makes them of a list)" : "");
    if (!cJSON_IsObject(json))
        task_die(line, "it is %s, expected an object in each line%s",
                 cJSON_IsArray(json) ? "a list" : "a single value",
                 cJSON_IsArray(json) ? " (jq -c '.[]' FILE makes them of a list)" : "");
    free(copy);
    return json;
}

static inline Task task_read(const char *path, const char *labels, TaskKind kind, int limit) {
    static const char hint[] = "name a file of JSON lines: --task=FILE";
    Task task = {.path = path, .kind = kind};
    size_t size, labels_size = 0, n, room = 0;
    char *text = check_file_read(path, FILE_STREAM, TASK_FILE_LIMIT, &size, hint);
    char *labels_path = task_labels_path(path, labels), *labels_text = NULL;
    if (labels_path)
        labels_text = check_file_read(labels_path, FILE_STREAM, TASK_FILE_LIMIT, &labels_size,
                                      "name the file that has the labels: --labels=FILE");
    const char *at = text, *label_at = labels_text;
    if (size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) at += 3; /* a byte order mark */
    TaskLine line = {.path = path, .labels_path = labels_path};
    for (const char *raw;
         (limit == 0 || task.count < limit) && (raw = task_next_line(&at, text + size, &n));) {
        line.number++;
        line.label =
            labels_text ? task_next_line(&label_at, labels_text + labels_size, &line.label_length) : NULL;
        if (task_space_before(raw, n) == n) continue;
        cJSON *json = task_parse_line(&line, text + (raw - text), n);
        line.json = json;
        if (task.kind == TASK_AUTO) task.kind = task_recognise(&line);
        line.kind = task.kind;
        task.items = check_grow(task.items, &room, (size_t)task.count + 1, sizeof *task.items);
        task.items[task.count] = (TaskItem){.line = line.number};
        task_row(task.kind)->build(&line, &task.items[task.count++]);
        cJSON_Delete(json);
    }
    if (task.count == 0) die("'%s' has no item; expected a file with an object of JSON in each line", path);
    free(text), free(labels_path), free(labels_text);
    return task;
}

static inline void task_free(Task *task) {
    for (int i = 0; i < task->count; i++)
        for (int c = 0; c < task->items[i].count; c++)
            free(task->items[i].context[c]), free(task->items[i].continuation[c]);
    free(task->items);
    *task = (Task){0};
}

/* Each example is followed by an empty line. */
static inline char *task_shots(const Task *examples, int count) {
    if (count > examples->count)
        die("'%s' has %d items, but --shots=%d asks for %d examples; name a larger file by --shots-file",
            examples->path, examples->count, count, count);
    char *text = task_text("%s", "");
    for (int i = 0; i < count; i++) {
        const TaskItem *item = &examples->items[i];
        char *longer = task_text("%s%s%s%s\n\n", text, item->context[item->label],
                                 task_row(examples->kind)->shot_spaces, item->continuation[item->label]);
        free(text), text = longer;
    }
    return text;
}

#endif
