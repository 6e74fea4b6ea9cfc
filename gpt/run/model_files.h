/* model_files.h: reads and writes the two files of a checkpoint folder that describe the model alone: config.json and
   model.safetensors.

   The caller keeps a model's configuration in a struct of its own whose fields are ints, or doubles where the option is
   an OPTION_FLOAT, and describes the fields in a table of ConfigFields. train_gpt.c has the only such struct, ModelConfig.

   config_check(fields, count, config, error)      whether every field is within the bounds of its option
   config_to_json(fields, count, config)           the object of config.json; the caller deletes it
   config_read(folder, fields, count, config)      fills the struct from FOLDER/config.json; dies with what is wrong
   named_tensors(parameters, memory)               the tensors as safetensors.h takes them. Their data is in `memory`
                                                   (parameters->floats), which stays the caller's; NULL: only names and
                                                   shapes. The caller frees the array
   weights_read(parameters, memory, folder, error) reads FOLDER/model.safetensors into memory (parameters->floats)
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
    const char *key;    /* the name of the field in config.json, Hugging Face's where there is one */
    size_t field;       /* offset of the int or double in the struct */
    const char
        *choices; /* "a|b|c": the names in config.json of the values 0, 1, 2; NULL: the field is a number */
    bool later;   /* checkpoints of older versions lack the key; it then has the option's default */
} ConfigField;

static inline int *config_field(const ConfigField *field, const void *config) {
    return (int *)((uintptr_t)config + field->field);
}

static inline const Option *config_option(const ConfigField *field) {
    return options_find_in(train_options, TRAIN_OPTION_COUNT, field->option);
}

static inline double *config_double(const ConfigField *field, const void *config) {
    return (double *)((uintptr_t)config + field->field);
}

/* Whether a number with a fraction is within the bounds of its option. */
static inline bool config_check_double(const ConfigField *field, const void *config, char *error) {
    const Option *option = config_option(field);
    const double value = *config_double(field, config);
    if (value >= option->min && value <= option->max) return true;
    return file_fail(error, "%s (--%s) is %g, expected %g to %g", field->key, option->name, value,
                     option->min, option->max);
}

/* The bounds are such that no product of sizes overflows the 64-bit integers that hold it. */
static inline bool config_check(const ConfigField *fields, int count, const void *config, char *error) {
    for (int i = 0; i < count; i++) {
        const Option *option = config_option(&fields[i]);
        if (option->type == OPTION_FLOAT) {
            if (!config_check_double(&fields[i], config, error)) return false;
            continue;
        }
        const int value = *config_field(&fields[i], config);
        if (fields[i].choices || (value >= option->min && value <= option->max && value > 0)) continue;
        return file_fail(error, "%s (--%s) is %d, expected %.0f to %.0f", fields[i].key, option->name, value,
                         fmax(option->min, 1), option->max);
    }
    return true;
}

/* Values that are the same for every model of this program. They are written for programs that read any model. */
static const struct {
    const char *key;
    double value;
} config_constants[] = {{"rms_norm_eps", 1e-6}, {"rope_theta", 10000}};
enum { CONFIG_CONSTANTS = sizeof config_constants / sizeof *config_constants };

static inline cJSON *config_to_json(const ConfigField *fields, int count, const void *config) {
    char text[64];
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "model_type", "laser_gpt");
    for (int i = 0; i < count; i++) {
        if (config_option(&fields[i])->type == OPTION_FLOAT) {
            json_add_number(json, fields[i].key, *config_double(&fields[i], config));
            continue;
        }
        const int value = *config_field(&fields[i], config);
        if (!fields[i].choices)
            json_add_number(json, fields[i].key, value);
        else
            cJSON_AddStringToObject(json, fields[i].key, options_choice_name(fields[i].choices, value, text));
    }
    for (int i = 0; i < CONFIG_CONSTANTS; i++)
        json_add_number(json, config_constants[i].key, config_constants[i].value);
    cJSON_AddBoolToObject(json, "tie_word_embeddings", true);
    cJSON_AddStringToObject(json, "torch_dtype", "float32");
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

/* Dies when config.json has another value for one of the constants: this program cannot compute that model. */
static inline void config_check_constants(const cJSON *json, const char *folder) {
    for (int i = 0; i < CONFIG_CONSTANTS; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, config_constants[i].key);
        if (item && !(cJSON_IsNumber(item) && item->valuedouble == config_constants[i].value))
            die("%s/config.json: \"%s\" is not %g, the only value that is known here", folder,
                config_constants[i].key, config_constants[i].value);
    }
    if (cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(json, "tie_word_embeddings")))
        die("%s/config.json: \"tie_word_embeddings\" is false; the only models known here are tied", folder);
}

/* The field becomes the default of its option; for a choice the names in config.json are those of the option. */
static inline void config_set_default(const ConfigField *field, void *config) {
    const Option *option = config_option(field);
    if (option->type == OPTION_FLOAT)
        *config_double(field, config) = strtod(option->value, NULL);
    else
        *config_field(field, config) = field->choices ? options_choice_index(field->choices, option->value)
                                                      : (int)strtol(option->value, NULL, 10);
}

static inline void config_read(const char *folder, const ConfigField *fields, int count, void *config) {
    cJSON *json = checkpoint_read_json(folder, "config.json");
    for (int i = 0; i < count; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, fields[i].key);
        const char *choices = fields[i].choices;
        int64_t number = -1;
        if (!item && fields[i].later) {
            config_set_default(&fields[i], config);
            continue;
        }
        if (config_option(&fields[i])->type == OPTION_FLOAT) {
            if (!cJSON_IsNumber(item))
                die("%s/config.json: \"%s\" is missing or wrong; expected a number", folder, fields[i].key);
            *config_double(&fields[i], config) = item->valuedouble;
            continue;
        }
        if (choices && cJSON_IsString(item)) number = options_choice_index(choices, item->valuestring);
        if (number < 0 && (choices || !json_whole(item, INT_MAX, &number)))
            die("%s/config.json: \"%s\" is missing or wrong; expected %s", folder, fields[i].key,
                choices ? choices : "a whole number above 0");
        *config_field(&fields[i], config) = (int)number;
    }
    config_check_constants(json, folder);
    cJSON_Delete(json);
}

static inline NamedTensor *named_tensors(const TensorTable *parameters, const float *memory) {
    NamedTensor *tensors = check_calloc((size_t)parameters->count * sizeof *tensors);
    for (int i = 0; i < parameters->count; i++) {
        const Tensor *t = &parameters->tensors[i];
        tensors[i] = (NamedTensor){.name = t->name,
                                   .dimensions = t->dimensions,
                                   .shape = {t->shape[0], t->shape[1]},
                                   .data = (float *)((uintptr_t)memory + t->offset * sizeof(float))};
    }
    return tensors;
}

static inline bool weights_read(const TensorTable *parameters, float *memory, const char *folder,
                                char *error) {
    char path[CHECKPOINT_PATH_SIZE];
    NamedTensor *tensors = named_tensors(parameters, memory);
    bool ok = file_join(path, folder, "model.safetensors", error) &&
              safetensors_read(path, tensors, parameters->count, error);
    free(tensors);
    return ok;
}

#endif
