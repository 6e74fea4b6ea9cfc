/* hugging_face.h: what a checkpoint has besides the weights, so that Hugging Face's transformers, and the programs that
   read its folders, load the checkpoint as a model.

   Standard attention with rope is a model that transformers has: with swiglu it is LlamaForCausalLM, with the other
   activations ArceeForCausalLM, which is Llama with an MLP without a gate. Its config.json names that class. Every other
   model brings its own Python code, modeling_laser_gpt.py, which config.json names under "auto_map", and which
   transformers runs if its user allows it (trust_remote_code=True). The file is hf/modeling_laser_gpt.py of the sources;
   the program contains its text.

   hugging_face_config(fields, count, config, tokenizer, bf16)   the object of config.json, which the caller deletes.
                                       fields and config: as in model_files.h. tokenizer: NULL, there is none.
                                       bf16: model.safetensors has BF16
   hugging_face_write(checkpoint, model, error)   writes the files of the table hugging_face_files, and
                                       modeling_laser_gpt.py where it is needed. False with a sentence in `error` when
                                       one cannot be written */
#ifndef GPT_RUN_HUGGING_FACE_H
#define GPT_RUN_HUGGING_FACE_H

#include "../../hf/modeling_laser_gpt.h"
#include "../io/tokenizer.h"
#include "model_files.h"

/* ---- config.json ---- */

/* Whether transformers has this model: every field that Llama does not have is at its default. transformers refuses a
   width that is no multiple of the number of heads. */
static inline bool hugging_face_is_stock(const ConfigField *fields, int count, const void *config) {
    double embd = 0, heads = 1;
    for (int i = 0; i < count; i++) {
        const double value = config_get(&fields[i], config);
        if (strcmp(fields[i].option, "embd") == 0) embd = value;
        if (strcmp(fields[i].option, "heads") == 0) heads = value;
        /* Options of LASER change nothing in standard attention; LASER itself is the field of --attn. */
        if (!fields[i].own || strncmp(fields[i].option, "laser-", 6) == 0) continue;
        if (value != config_default(&fields[i])) return false;
    }
    return fmod(embd, heads) == 0;
}

/* Adds a copy of the member `from` of another object, or of the same. */
static inline void hugging_face_copy(cJSON *json, const char *key, const cJSON *other, const char *from) {
    cJSON_AddItemToObject(json, key, cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(other, from), true));
}

/* What Llama's config.json says in other words than ours, the object `model`. */
static inline void hugging_face_add_llama(cJSON *json, const cJSON *model) {
    const char *bias = json_text(model, "bias");
    cJSON_AddBoolToObject(json, "attention_bias", strcmp(bias, "all") == 0);
    cJSON_AddBoolToObject(json, "mlp_bias", strcmp(bias, "none") != 0);
    hugging_face_copy(json, "num_key_value_heads", model, "num_attention_heads");
}

/* The names of the classes; "model_type" is the key by which transformers finds its own. */
static inline void hugging_face_add_classes(cJSON *json, bool stock, bool gated) {
    const char *class = !stock ? "LaserGPTForCausalLM" : gated ? "LlamaForCausalLM" : "ArceeForCausalLM";
    cJSON_AddStringToObject(json, "model_type", !stock ? "laser_gpt" : gated ? "llama" : "arcee");
    cJSON_AddItemToArray(cJSON_AddArrayToObject(json, "architectures"), cJSON_CreateString(class));
    if (stock) return;
    cJSON *map = cJSON_AddObjectToObject(json, "auto_map");
    cJSON_AddStringToObject(map, "AutoConfig", "modeling_laser_gpt.LaserGPTConfig");
    cJSON_AddStringToObject(map, "AutoModelForCausalLM", "modeling_laser_gpt.LaserGPTForCausalLM");
}

/* Adds the number of the token between documents, or null: without these keys Llama has defaults, 1 and 2. */
static inline void hugging_face_add_end(cJSON *json, const char *key, const Tokenizer *tokenizer) {
    const int end = tokenizer ? tokenizer_end_of_text(tokenizer) : -1;
    if (end >= 0)
        json_add_number(json, key, end);
    else
        cJSON_AddNullToObject(json, key);
}

static inline cJSON *hugging_face_config(const ConfigField *fields, int count, const void *config,
                                         const Tokenizer *tokenizer, bool bf16) {
    const bool stock = hugging_face_is_stock(fields, count, config);
    cJSON *json = cJSON_CreateObject(), *model = config_to_json(fields, count, config);
    hugging_face_add_classes(json, stock, strcmp(json_text(model, "hidden_act"), "silu") == 0);
    config_add(json, fields, count, config, stock);
    hugging_face_add_llama(json, model);
    hugging_face_add_end(json, "bos_token_id", tokenizer);
    hugging_face_add_end(json, "eos_token_id", tokenizer);
    cJSON_AddStringToObject(json, "torch_dtype", bf16 ? "bfloat16" : "float32");
    cJSON_Delete(model);
    return json;
}

/* ---- the other files ---- */

/* What the files are made of. */
typedef struct {
    const cJSON *config;
    const Tokenizer *tokenizer; /* NULL: the data has none */
    const TensorTable *parameters;
} HuggingFaceModel;

/* How generate() begins, ends and pads a text. */
static inline cJSON *hugging_face_generation(const HuggingFaceModel *model) {
    static const char *const keys[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
    cJSON *json = cJSON_CreateObject();
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        hugging_face_add_end(json, keys[i], model->tokenizer);
    return json;
}

/* How tokenizer.json is used. */
static inline cJSON *hugging_face_tokenizer(const HuggingFaceModel *model) {
    static const char *const keys[] = {"bos_token", "eos_token", "pad_token"};
    if (!model->tokenizer) return NULL;
    cJSON *json = cJSON_CreateObject();
    size_t length;
    const char *end =
        tokenizer_decode_token(model->tokenizer, tokenizer_end_of_text(model->tokenizer), &length);
    char text[64];
    snprintf(text, sizeof text, "%.*s", (int)length, end);
    cJSON_AddStringToObject(json, "tokenizer_class", "PreTrainedTokenizerFast");
    for (size_t i = 0; i < sizeof keys / sizeof *keys && length; i++)
        cJSON_AddStringToObject(json, keys[i], text);
    cJSON_AddStringToObject(json, "padding_side", "left");
    const char *const inputs[] = {"input_ids", "attention_mask"};
    cJSON_AddItemToObject(json, "model_input_names", cJSON_CreateStringArray(inputs, 2));
    hugging_face_copy(json, "model_max_length", model->config, "max_position_embeddings");
    cJSON_AddFalseToObject(json, "clean_up_tokenization_spaces");
    return json;
}

/* Which file has which tensor. Without it vLLM would read every file *.safetensors as weights, also the optimizer's. */
static inline cJSON *hugging_face_index(const HuggingFaceModel *model) {
    cJSON *json = cJSON_CreateObject();
    const char *dtype = json_text(model->config, "torch_dtype");
    const double bytes = dtype && strcmp(dtype, "bfloat16") == 0 ? 2 : 4;
    json_add_number(cJSON_AddObjectToObject(json, "metadata"), "total_size",
                    bytes * (double)model->parameters->floats);
    cJSON *map = cJSON_AddObjectToObject(json, "weight_map");
    for (int i = 0; i < model->parameters->count; i++)
        cJSON_AddStringToObject(map, model->parameters->tensors[i].name, "model.safetensors");
    return json;
}

/* The files of JSON; a function returns NULL when the model has no such file. */
static const struct {
    const char *name;
    cJSON *(*make)(const HuggingFaceModel *model);
} hugging_face_files[] = {
    {"generation_config.json", hugging_face_generation},
    {"tokenizer_config.json", hugging_face_tokenizer},
    {"model.safetensors.index.json", hugging_face_index},
};
enum { HUGGING_FACE_FILES = sizeof hugging_face_files / sizeof *hugging_face_files };

/* The text of modeling_laser_gpt.py, which the caller frees. */
static inline char *hugging_face_code(size_t *size) {
    const int lines = sizeof modeling_laser_gpt / sizeof *modeling_laser_gpt;
    *size = 0;
    for (int i = 0; i < lines; i++) *size += strlen(modeling_laser_gpt[i]);
    char *text = check_calloc(*size + 1), *end = text;
    for (int i = 0; i < lines; i++) end += sprintf(end, "%s", modeling_laser_gpt[i]);
    return text;
}

static inline bool hugging_face_write(const Checkpoint *c, const HuggingFaceModel *model, char *error) {
    bool ok = true;
    for (int i = 0; i < HUGGING_FACE_FILES && ok; i++) {
        cJSON *json = hugging_face_files[i].make(model);
        if (json) ok = checkpoint_write_json(c, hugging_face_files[i].name, json, error);
        cJSON_Delete(json);
    }
    if (!ok || !cJSON_GetObjectItemCaseSensitive(model->config, "auto_map")) return ok;
    size_t size;
    char *code = hugging_face_code(&size);
    ok = checkpoint_write_bytes(c, "modeling_laser_gpt.py", code, size, error);
    free(code);
    return ok;
}

#endif
