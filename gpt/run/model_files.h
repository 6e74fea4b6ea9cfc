/* model_files.h: reads and writes the two files of a checkpoint folder that describe the model alone: config.json and
   model.safetensors.

   The caller keeps a model's configuration in a struct of its own whose fields are ints and doubles, and describes the
   fields in a table of ConfigFields. train_gpt.c has the only such struct, ModelConfig.

   config_from_options(fields, count, options, config)   fills the struct from the values of the trainer's options
   config_check(fields, count, config, error)      whether every field is within the bounds of its option
   config_to_json(fields, count, config)           an object with all fields; the caller deletes it. config.json of a
                                                   checkpoint is made by hugging_face.h
   config_add(json, fields, count, config, stock)  adds the fields to an object; with `stock` those that Llama has
   config_read(folder, fields, count, config)      fills the struct from FOLDER/config.json; dies with what is wrong
   config_read_json(json, folder, fields, count, config)   the same from an object that has been read
   named_tensors(parameters, memory)               the tensors as safetensors.h takes them. Their data is in `memory`
                                                   (parameters->floats), which stays the caller's; NULL: only names and
                                                   shapes. The caller frees the array
   weights_read(parameters, memory, folder, name, error)   reads the file FOLDER/NAME into memory (parameters->floats).
                                                   NAME is model.safetensors, or EXACT_WEIGHTS_NAME
   checkpoint_read_json(folder, name)              the object in a JSON file of the folder; the caller deletes it. Dies
                                                   when there is none
   A function that returns false has written a sentence to `error` (FILE_ERROR_SIZE). */
#ifndef GPT_RUN_MODEL_FILES_H
#define GPT_RUN_MODEL_FILES_H

#include "../io/checkpoint.h"
#include "../io/safetensors.h"
#include "../math/tensor_table.h"
#include "train_options.h"

typedef struct {
    const char *option; /* the option that sets the field; the bounds of the option are those of the field */
    const char *
        key; /* the name of the field in config.json, Hugging Face's where there is one; NULL: it is not there */
    size_t field; /* offset in the struct: a double where the option is OPTION_FLOAT, else an int */
    const char
        *choices; /* "a|b|c": the names in config.json of the values 0, 1, 2; NULL: the field is a number. The
                     names true and false are written as JSON's true and false */
    /* The key is this program's own: Hugging Face's Llama has none like it. Where it is missing, the option has its
       default: in the config.json of a model that is theirs (hugging_face.h), and of older versions. */
    bool own;
} ConfigField;

static inline const Option *config_option(const ConfigField *field) {
    return options_find_in(train_options, TRAIN_OPTION_COUNT, field->option);
}

static inline bool config_is_real(const ConfigField *field) {
    return config_option(field)->type == OPTION_FLOAT;
}

static inline double config_get(const ConfigField *field, const void *config) {
    const void *at = (const char *)config + field->field;
    return config_is_real(field) ? *(const double *)at : *(const int *)at;
}

static inline void config_set(const ConfigField *field, void *config, double value) {
    void *at = (char *)config + field->field;
    if (config_is_real(field))
        *(double *)at = value;
    else
        *(int *)at = (int)value;
}

static inline void config_from_options(const ConfigField *fields, int count, const Options *options,
                                       void *config) {
    for (int i = 0; i < count; i++)
        config_set(&fields[i], config, options_number(config_option(&fields[i]), options));
}

/* The bounds are such that no product of sizes overflows the 64-bit integers that hold it. */
static inline bool config_check(const ConfigField *fields, int count, const void *config, char *error) {
    for (int i = 0; i < count; i++) {
        const Option *option = config_option(&fields[i]);
        const double value = config_get(&fields[i], config);
        const double least = config_is_real(&fields[i]) ? option->min : fmax(option->min, 1);
        if (fields[i].choices || (value >= least && value <= option->max)) continue;
        return file_fail(error, "%s (--%s) is %.10g, expected %.10g to %.10g", fields[i].key, option->name,
                         value, least, option->max);
    }
    return true;
}

/* Adds a member with the name of a choice, which config_choice reads. */
static inline void config_add_choice(cJSON *json, const char *key, const char *name) {
    if (strcmp(name, "true") == 0 || strcmp(name, "false") == 0)
        cJSON_AddBoolToObject(json, key, *name == 't');
    else
        cJSON_AddStringToObject(json, key, name);
}

static inline const char *config_choice(const cJSON *item) {
    return cJSON_IsString(item)  ? item->valuestring
           : cJSON_IsTrue(item)  ? "true"
           : cJSON_IsFalse(item) ? "false"
                                 : "";
}

static inline void config_add(cJSON *json, const ConfigField *fields, int count, const void *config,
                              bool stock) {
    char text[64];
    for (int i = 0; i < count; i++) {
        const double value = config_get(&fields[i], config);
        if (stock && fields[i].own) continue;
        if (!fields[i].choices)
            json_add_number(json, fields[i].key, value);
        else
            config_add_choice(json, fields[i].key, options_choice_name(fields[i].choices, (int)value, text));
    }
}

static inline cJSON *config_to_json(const ConfigField *fields, int count, const void *config) {
    cJSON *json = cJSON_CreateObject();
    config_add(json, fields, count, config, false);
    return json;
}

static inline cJSON *checkpoint_read_json(const char *folder, const char *name) {
    char path[CHECKPOINT_PATH_SIZE], error[CHECKPOINT_ERROR_SIZE];
    size_t length;
    if (!file_join(path, folder, name, error)) die("%s", error);
    char *text =
        check_file_read(path, FILE_REGULAR, 1 << 20, &length, "a checkpoint folder is expected here");
    cJSON *json = json_parse(text, length);
    if (!cJSON_IsObject(json)) die("'%s' is no JSON object: it is damaged; take another checkpoint", path);
    free(text);
    return json;
}

/* The value of the field's option when nobody gives one. */
static inline double config_default(const ConfigField *field) {
    const Option *option = config_option(field);
    if (option->type == OPTION_SWITCH) return strcmp(option->value, "yes") == 0;
    if (option->type == OPTION_CHOICE) return options_choice_index(option->choices, option->value);
    return strtod(option->value, NULL);
}

/* The value of a field in config.json, where its member is `item`, NULL if there is none. False when it is wrong. */
static inline bool config_read_field(const ConfigField *field, const cJSON *item, double *value) {
    const char *choices = field->choices;
    int64_t whole = -1;
    if (!item && field->own) return *value = config_default(field), true;
    if (!choices && config_is_real(field)) {
        if (cJSON_IsNumber(item)) *value = item->valuedouble;
        return cJSON_IsNumber(item);
    }
    if (choices) whole = options_choice_index(choices, config_choice(item));
    if (!choices && !json_whole(item, INT_MAX, &whole)) return false;
    *value = (double)whole;
    return whole >= 0;
}

/* The member of config.json for a field; NULL: there is none. transformers 5 has rope_theta in an object of its own. */
static inline const cJSON *config_member(const cJSON *json, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    if (item || strcmp(key, "rope_theta") != 0) return item;
    return cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(json, "rope_parameters"), key);
}

static inline void config_read_json(const cJSON *json, const char *folder, const ConfigField *fields,
                                    int count, void *config) {
    for (int i = 0; i < count; i++) {
        const ConfigField *field = &fields[i];
        double value = 0;
        if (!config_read_field(field, config_member(json, field->key), &value))
            die("%s/config.json: \"%s\" is missing or wrong; expected %s", folder, field->key,
                field->choices          ? field->choices
                : config_is_real(field) ? "a number"
                                        : "a whole number above 0");
        config_set(field, config, value);
    }
}

static inline void config_read(const char *folder, const ConfigField *fields, int count, void *config) {
    cJSON *json = checkpoint_read_json(folder, "config.json");
    config_read_json(json, folder, fields, count, config);
    cJSON_Delete(json);
}

static inline NamedTensor *named_tensors(const TensorTable *parameters, const float *memory) {
    NamedTensor *tensors = check_calloc((size_t)parameters->count * sizeof *tensors);
    for (int i = 0; i < parameters->count; i++) {
        const Tensor *t = &parameters->tensors[i];
        tensors[i] = (NamedTensor){.name = t->name,
                                   .old_name = t->old_name,
                                   .dimensions = t->dimensions,
                                   .shape = {t->shape[0], t->shape[1]},
                                   .data = (float *)((uintptr_t)memory + t->offset * sizeof(float))};
    }
    return tensors;
}

/* The file with the weights in float32 of a checkpoint whose model.safetensors has them in bfloat16. */
#define EXACT_WEIGHTS_NAME "optimizer-weights.safetensors"

static inline bool weights_read(const TensorTable *parameters, float *memory, const char *folder,
                                const char *name, char *error) {
    char path[CHECKPOINT_PATH_SIZE];
    NamedTensor *tensors = named_tensors(parameters, memory);
    bool ok =
        file_join(path, folder, name, error) && safetensors_read(path, tensors, parameters->count, error);
    free(tensors);
    return ok;
}

#endif
