/* report_marks.h: results from elsewhere, such as those of a paper, that are drawn into the plot of the validation loss
   as points: the option --mark.

   marks_read(text, error)     reads "STEP:LOSS:LABEL,STEP:LOSS:LABEL,..." into report_marks; a label has no comma.
                               False, with a sentence in error[MARKS_ERROR_SIZE], when it is something else
   marks_free()                frees the labels
   report_marks.at[count]      the marks */
#ifndef TOOLS_REPORT_MARKS_H
#define TOOLS_REPORT_MARKS_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../gpt/base/check.h"

/* More could not be told apart in the terminal, where a mark is one digit. */
enum { MARKS_MAX = 9, MARKS_ERROR_SIZE = 256 };

typedef struct {
    double step, loss;
    char *label;
} Mark;

/* One table for the whole report: every drawing shows the same marks. */
static struct {
    Mark at[MARKS_MAX];
    int count;
} report_marks;

/* Reads one mark from a text of n characters. */
static inline bool mark_read(Mark *mark, const char *text, size_t n) {
    char *end;
    mark->step = strtod(text, &end);
    if (end == text || *end != ':' || !(mark->step >= 0 && mark->step <= 1e12)) return false;
    const char *loss = end + 1;
    mark->loss = strtod(loss, &end);
    if (end == loss || *end != ':' || !(fabs(mark->loss) <= 1e6) || end >= text + n) return false;
    const size_t length = (size_t)(text + n - (end + 1)), room = 4 * length + 1;
    mark->label = check_calloc(room);
    check_printable(mark->label, room, end + 1, length, false);
    return true;
}

static inline bool marks_read(const char *text, char error[MARKS_ERROR_SIZE]) {
    while (*text) {
        const size_t n = strcspn(text, ",");
        if (report_marks.count == MARKS_MAX) {
            snprintf(error, MARKS_ERROR_SIZE, "there are more than %d marks", MARKS_MAX);
            return false;
        }
        if (!mark_read(&report_marks.at[report_marks.count], text, n)) {
            snprintf(error, MARKS_ERROR_SIZE,
                     "'%.*s' is no mark; expected STEP:LOSS:LABEL, such as "
                     "160000:2.641:paper",
                     n < 100 ? (int)n : 100, text);
            return false;
        }
        report_marks.count++;
        text += n + (text[n] == ',');
    }
    return true;
}

static inline void marks_free(void) {
    for (int i = 0; i < report_marks.count; i++) free(report_marks.at[i].label);
    report_marks.count = 0;
}

#endif
