/* run_folder.h: the files of a run's folder (--out) beside its checkpoints.

   run_folder_open(run, parameters)   makes the folder, opens and locks log.jsonl (a second trainer in the same folder
                        ends with a message), removes the log's lines of steps after the present one and unfinished
                        checkpoints, and writes config.json. Without --out it only warns that nothing is kept
   run_folder_write_summary(run, parameters)   writes summary.json, at the end of a complete run
   run_folder_has_summary(run)   whether a complete summary.json is there; the same answer on every rank
   `parameters` is the table of the model's parameters. Every rank calls each of these; rank 0 writes, and dies when it
   cannot. */
#ifndef GPT_RUN_RUN_FOLDER_H
#define GPT_RUN_RUN_FOLDER_H

#include <time.h>
#include "../base/memory.h"
#include "../base/processor.h"
#include "../base/program.h"
#include "../base/threads.h"
#include "../dist/device.h"
#include "../dist/parallel.h"
#include "../io/checkpoint.h"
#include "../math/tensor_table.h"
#include "run.h"

/* Replaces a JSON file of the folder, whole or not at all, and frees `json`. */
static inline void run_folder_write(const Run *run, const char *name, cJSON *json) {
    char path[CHECKPOINT_PATH_SIZE], error[CHECKPOINT_ERROR_SIZE], *text = cJSON_Print(json);
    if (!text) die("no memory to write %s", name);
    if (!file_join(path, run->options->out, name, error) ||
        !file_write_whole(path, text, strlen(text), error))
        die("%s", error);
    cJSON_free(text);
    cJSON_Delete(json);
}

/* Adds which program writes the file, when and where. */
static inline void add_provenance(cJSON *json) {
    char text[256] = "";
    const time_t now = time(NULL);
    struct tm utc;
    cJSON_AddStringToObject(json, "commit", BUILD_COMMIT);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    cJSON_AddStringToObject(json, "date", text);
    gethostname(text, sizeof text - 1);
    cJSON_AddStringToObject(json, "host", text);
}

/* Writes config.json: the options, the machine and the program. */
static inline void run_folder_write_config(const Run *run, const TensorTable *parameters) {
    char text[128];
    cJSON *json = cJSON_CreateObject(), *machine = cJSON_AddObjectToObject(json, "machine");
    cJSON_AddItemToObject(json, "options", options_to_json(run->option_set));
    cJSON_AddStringToObject(machine, "processor", processor_name(text));
    if (device_on()) cJSON_AddStringToObject(machine, "gpu", device_name(text));
    cJSON_AddStringToObject(machine, "instruction_set", processor_isa());
    json_add_number(machine, "threads", threads_count());
    json_add_number(machine, "ranks", parallel_ranks());
    json_add_number(machine, "peak_flops", run->peak_flops);
    cJSON_AddStringToObject(json, "compiler", BUILD_COMPILER);
    add_provenance(json);
    json_add_number(json, "parameters", (double)parameters->floats);
    run_folder_write(run, "config.json", json);
}

static inline void run_folder_open(Run *run, const TensorTable *parameters) {
    const char *out = run->options->out;
    char error[FILE_ERROR_SIZE];
    log_several_ranks = parallel_ranks() > 1;
    if (parallel_rank() != 0) return;
    if (*out && !file_make_folders(out, error)) die("--out: %s", error);
    /* The log comes first: a second trainer fails at its lock, before it has changed anything in the folder. */
    log_open(&run->log, *out ? out : NULL, (long)run->step, (long)run->options->steps, false);
    if (!*out) {
        warn("nothing of this run will be kept, neither weights nor losses: there is no --out=DIR");
        return;
    }
    /* A killed run may have left a checkpoint half written or half removed. */
    if (!checkpoint_clean(out, error)) die("%s", error);
    run_folder_write_config(run, parameters);
}

/* Returns false also if summary.json is empty or incomplete, as a full disk or a crash can leave it. */
static inline bool run_folder_has_summary(const Run *run) {
    char path[CHECKPOINT_PATH_SIZE], error[FILE_ERROR_SIZE];
    size_t size;
    char *text = NULL;
    if (parallel_rank() == 0 && file_join(path, run->options->out, "summary.json", error))
        text = file_read(path, FILE_REGULAR, 1 << 20, &size, error);
    cJSON *json = text ? json_parse(text, size) : NULL;
    const bool has = cJSON_HasObjectItem(json, "final_val_loss");
    cJSON_Delete(json);
    free(text);
    return parallel_any(has);
}

/* Adds the numbers of the last validation. */
static inline void add_validation(cJSON *json, LogValidation v) {
    for (int i = 0; i < LOG_VALIDATION_FIELDS; i++) {
        const LogValidationField *field = &log_validation_fields[i];
        const double x = *log_validation_number(field, &v);
        char key[64];
        snprintf(key, sizeof key, "final_%s", field->key);
        if (!field->optional || isfinite(x)) json_add_number(json, key, x);
    }
}

/* The numbers that a table of results needs. */
static inline void run_folder_write_summary(const Run *run, const TensorTable *parameters) {
    if (!*run->options->out || parallel_rank() != 0) return;
    LogSmooth smooth = run->log.smooth;
    cJSON *json = cJSON_CreateObject();
    json_add_number(json, "final_train_loss", log_smooth(&smooth, NAN));
    add_validation(json, run->last_validation);
    json_add_number(json, "seconds", run->seconds);
    json_add_number(json, "tokens_per_s", (double)(run->step * run_tokens_per_step(run)) / run->seconds);
    json_add_number(json, "peak_memory_bytes", (double)memory_peak());
    json_add_number(json, "parameters", (double)parameters->floats);
    char error[FILE_ERROR_SIZE];
    if (!checkpoint_clean(run->options->out, error)) warn("%s", error);
    run_folder_write(run, "summary.json", json);
}

#endif
