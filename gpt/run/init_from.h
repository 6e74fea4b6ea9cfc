/* init_from.h: begins a new run with the weights of a trained model: --init-from=DIR.

   DIR is a checkpoint of ./train_gpt, a run, whose newest checkpoint is used, or a folder that Hugging Face's
   transformers saved, of a model whose "model_type" is llama, arcee or gpt2. Only weights are taken: the run has its own
   steps, rate, data and attention, and the moments of its optimizer start at 0.

   init_from_options(options, set, fields, count, config)
                          gives the options of the model that the user has not given the values of DIR/config.json, which
                          are also left in `config`. fields, count and config: as in model_files.h. Ends the program
                          when the model is of an unknown kind, or when a given option needs other tensors. The options
                          of init_from_free may differ
   init_from_weights(run, parameters, memory)
                          reads the weights into memory (parameters->floats); dies with the tensor, its file, what was
                          found and what was expected

   A run that goes on takes its options from the checkpoint from which it goes on, so DIR may be gone by then.

   What differs from our own files: several heads of Llama may share a key and value head (num_key_value_heads); such a
   head is copied for each of them. GPT-2 has other names, its matrices are (inputs, outputs), and one tensor holds q, k
   and v. The weights may be in several files, which model.safetensors.index.json names. */
#ifndef GPT_RUN_INIT_FROM_H
#define GPT_RUN_INIT_FROM_H

#include "resume.h"

/* ---- config.json ---- */

/* Dies when config.json has a value with which the model computes what this program cannot. `value` NULL: the member
   may only be missing, null or false. */
static inline void init_from_expect(const cJSON *json, const char *folder, const char *key,
                                    const char *value) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    const bool absent = !item || cJSON_IsNull(item) || cJSON_IsFalse(item);
    char number[64];
    const char *found = cJSON_IsObject(item) ? "{...}" : options_json_text(item, number);
    if (value ? !item || strcmp(config_choice(item), value) == 0 : absent) return;
    die("%s/config.json: \"%s\" is %s; of such models only those with %s can be read", folder, key,
        found ? found : "no value", value ? value : "none or false");
}

/* The whole number of a member; `otherwise` when it is missing or null. */
static inline int64_t init_from_whole(const cJSON *json, const char *folder, const char *key,
                                      int64_t otherwise) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    int64_t value = otherwise;
    const bool missing = !item || cJSON_IsNull(item);
    if ((!missing && !json_whole(item, INT_MAX, &value)) || value < 1)
        die("%s/config.json: \"%s\" is missing or wrong; expected a whole number above 0", folder, key);
    return value;
}

static inline void init_from_set(cJSON *json, const char *key, double value) {
    cJSON_DeleteItemFromObjectCaseSensitive(json, key);
    cJSON_AddNumberToObject(json, key, value);
}

/* How many query heads share a key and value head. */
static inline int64_t init_from_group(const cJSON *json, const char *folder) {
    const int64_t heads = init_from_whole(json, folder, "num_attention_heads", -1);
    const int64_t shared = init_from_whole(json, folder, "num_key_value_heads", heads);
    if (heads % shared)
        die("%s/config.json: \"num_key_value_heads\" is %lld, no divisor of the %lld heads", folder,
            (long long)shared, (long long)heads);
    return heads / shared;
}

/* Members that transformers may leave out, and values that this program does not compute. */
static inline void init_from_llama(cJSON *json, const char *folder, bool gated) {
    const cJSON *rope = cJSON_GetObjectItemCaseSensitive(json, "rope_parameters");
    const cJSON *tie = cJSON_GetObjectItemCaseSensitive(json, "tie_word_embeddings");
    const cJSON *head_dim = cJSON_GetObjectItemCaseSensitive(json, "head_dim");
    init_from_expect(json, folder, "attention_bias", NULL);
    init_from_expect(json, folder, "mlp_bias", NULL);
    init_from_expect(json, folder, "rope_scaling", NULL);
    init_from_expect(rope, folder, "rope_type", "default");
    if (gated) init_from_expect(json, folder, "hidden_act", "silu");
    if (!gated && strcmp(config_choice(cJSON_GetObjectItemCaseSensitive(json, "hidden_act")), "silu") == 0)
        die("%s/config.json: \"hidden_act\" is silu, which is read only with a gate, as llama has it",
            folder);
    if (!head_dim || cJSON_IsNull(head_dim))
        init_from_set(json, "head_dim",
                      (double)(init_from_whole(json, folder, "hidden_size", -1) /
                               init_from_whole(json, folder, "num_attention_heads", -1)));
    if (!tie) cJSON_AddFalseToObject(json, "tie_word_embeddings");
    if (!config_member(json, "rope_theta")) cJSON_AddNumberToObject(json, "rope_theta", 10000);
    if (!cJSON_HasObjectItem(json, "rms_norm_eps")) cJSON_AddNumberToObject(json, "rms_norm_eps", 1e-6);
}

/* GPT-2's config.json in our words; the caller deletes it. */
static inline cJSON *init_from_gpt2(const cJSON *json, const char *folder) {
    static const char *const whole[][2] = {{"n_embd", "hidden_size"},
                                           {"n_layer", "num_hidden_layers"},
                                           {"n_head", "num_attention_heads"},
                                           {"n_positions", "max_position_embeddings"},
                                           {"vocab_size", "vocab_size"}};
    const int64_t embd = init_from_whole(json, folder, "n_embd", -1);
    const int64_t heads = init_from_whole(json, folder, "n_head", -1);
    const cJSON *activation = cJSON_GetObjectItemCaseSensitive(json, "activation_function");
    const cJSON *eps = cJSON_GetObjectItemCaseSensitive(json, "layer_norm_epsilon");
    const cJSON *tie = cJSON_GetObjectItemCaseSensitive(json, "tie_word_embeddings");
    cJSON *ours = cJSON_CreateObject();
    const char *name = cJSON_IsString(activation) ? activation->valuestring : "gelu_new";
    init_from_expect(json, folder, "scale_attn_weights", "true");
    init_from_expect(json, folder, "scale_attn_by_inverse_layer_idx", NULL);
    init_from_expect(json, folder, "add_cross_attention", NULL);
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        cJSON_AddNumberToObject(ours, whole[i][1], (double)init_from_whole(json, folder, whole[i][0], -1));
    if (embd % heads)
        die("%s/config.json: \"n_embd\" is %lld, no multiple of the %lld heads", folder, (long long)embd,
            (long long)heads);
    cJSON_AddNumberToObject(ours, "head_dim", (double)(embd / heads));
    cJSON_AddNumberToObject(ours, "intermediate_size",
                            (double)init_from_whole(json, folder, "n_inner", 4 * embd));
    if (strcmp(name, "gelu_new") != 0 && strcmp(name, "gelu_pytorch_tanh") != 0 && strcmp(name, "relu") != 0)
        die("%s/config.json: \"activation_function\" is %s; of such models only those with gelu_new, "
            "gelu_pytorch_tanh or relu can be read",
            folder, name);
    cJSON_AddStringToObject(ours, "hidden_act", *name == 'r' ? "relu" : "gelu_pytorch_tanh");
    cJSON_AddStringToObject(ours, "position_embedding", "learned");
    cJSON_AddStringToObject(ours, "norm", "layernorm");
    cJSON_AddStringToObject(ours, "bias", "all");
    cJSON_AddBoolToObject(ours, "tie_word_embeddings", !cJSON_IsFalse(tie));
    cJSON_AddNumberToObject(ours, "rms_norm_eps", cJSON_IsNumber(eps) ? eps->valuedouble : 1e-5);
    cJSON_AddNumberToObject(ours, "rope_theta", 10000);
    return ours;
}

static inline bool init_from_is_gpt2(const cJSON *json) {
    const char *type = json_text(json, "model_type");
    return type && strcmp(type, "gpt2") == 0;
}

/* The config.json of the folder, with the members that config_read_json expects; the caller deletes it. */
static inline cJSON *init_from_config(const char *folder) {
    cJSON *json = checkpoint_read_json(folder, "config.json");
    const char *type = json_text(json, "model_type");
    if (init_from_is_gpt2(json)) {
        cJSON *ours = init_from_gpt2(json, folder);
        cJSON_Delete(json);
        return ours;
    }
    if (type && strcmp(type, "llama") != 0 && strcmp(type, "arcee") != 0 && strcmp(type, "laser_gpt") != 0)
        die("%s/config.json: \"model_type\" is %s; models of the kinds laser_gpt, llama, arcee and gpt2 can "
            "be "
            "read",
            folder, type);
    if (type && strcmp(type, "laser_gpt") != 0) init_from_llama(json, folder, strcmp(type, "llama") == 0);
    return json;
}

/* ---- options ---- */

/* Options of the model that change what is computed, but not which tensors there are: the new run may have others. */
static const char init_from_free[] =
    "attn|laser-shift|laser-beta|attn-softcap|logit-softcap|seq-len|rope-theta|norm-eps";

/* Whether the option may have the value `given` where the model has `value`. */
static inline bool init_from_may_differ(const char *option, double given, double value) {
    if (strcmp(option, "attn") == 0 && (attention_has_weights((AttentionKind)(int)given) ||
                                        attention_has_weights((AttentionKind)(int)value)))
        return false;
    return options_choice_index(init_from_free, option) >= 0;
}

/* The folder of the model that --init-from names: that folder, or when it is the folder of a run, its newest
   checkpoint. */
static inline void init_from_folder(const Options *o, char folder[CHECKPOINT_PATH_SIZE]) {
    long step;
    if (!checkpoint_latest(o->init_from, -1, folder, CHECKPOINT_PATH_SIZE, &step))
        snprintf(folder, CHECKPOINT_PATH_SIZE, "%s", o->init_from);
}

/* The folder whose config.json has the model: that of --init-from or, for a run that goes on, of its checkpoint. */
static inline void init_from_config_folder(const Options *o, char folder[CHECKPOINT_PATH_SIZE]) {
    long step;
    const bool automatic = strcmp(o->resume, "auto") == 0, no = strcmp(o->resume, "no") == 0;
    if (automatic && *o->out && checkpoint_latest(o->out, -1, folder, CHECKPOINT_PATH_SIZE, &step)) return;
    if (automatic || no)
        init_from_folder(o, folder);
    else
        snprintf(folder, CHECKPOINT_PATH_SIZE, "%s", o->resume);
}

/* The value of a field as a user would type it. */
static inline const char *init_from_text(const ConfigField *field, double value, char text[64]) {
    const Option *option = config_option(field);
    if (option->type == OPTION_SWITCH) return value > 0 ? "yes" : "no";
    if (option->type == OPTION_CHOICE) return options_choice_name(option->choices, (int)value, text);
    json_number_text(text, 64, value, 17);
    return text;
}

/* Learned positions end at the model's last one. */
static inline void init_from_check_length(const Options *o, const OptionSet *set, int64_t most,
                                          const char *folder) {
    if (o->position == POSITION_LEARNED && o->seq_len > most)
        options_fail(
            set, "--seq-len=%lld: the model in %s has learned positions for %lld tokens; give at most that",
            (long long)o->seq_len, folder, (long long)most);
}

static inline void init_from_options(Options *o, OptionSet *set, const ConfigField *fields, int count,
                                     void *config) {
    char folder[CHECKPOINT_PATH_SIZE], where[FILE_PATH_SIZE + 64], text[64], given[64];
    init_from_config_folder(o, folder);
    cJSON *json = init_from_config(folder);
    config_read_json(json, folder, fields, count, config);
    int64_t most = 0;
    for (int i = 0; i < count; i++) {
        const ConfigField *field = &fields[i];
        const double value = config_get(field, config);
        const Option *option = config_option(field);
        if (strcmp(field->option, "seq-len") == 0) most = (int64_t)value;
        if (options_given(set, field->option)) {
            const double other = options_number(option, o);
            if (other != value && !init_from_may_differ(field->option, other, value))
                options_fail(set, "--%s=%s, but the model in %s has %s; leave it out", field->option,
                             options_value(set, field->option, given), folder,
                             init_from_text(field, value, text));
            continue;
        }
        snprintf(where, sizeof where, " in %.4000s/config.json", folder);
        options_set(set, field->option, init_from_text(field, value, text), OPTION_FROM_FILE, where);
    }
    cJSON_Delete(json);
    init_from_check_length(o, set, most, folder);
}

/* ---- weights ---- */

/* The files with the tensors of a model. */
typedef struct {
    const char *folder;
    SafetensorsFile *files; /* (count) */
    char (*paths)[CHECKPOINT_PATH_SIZE];
    bool **used; /* (count) for each entry of each file: a tensor was read from it */
    int count;
} InitFiles;

/* Where one of our tensors is in the files. */
typedef struct {
    char name[128];
    bool transposed;     /* (inputs, outputs) */
    int64_t part, parts; /* our rows are part number `part` of `parts` equal parts of its rows */
    int64_t group,
        width;   /* rows of heads of `width` rows, each of which is copied for `group` heads; group 1: none */
    bool longer; /* it may have more rows than ours, which are then left out */
} InitSource;

/* GPT-2's names for ours: of what stands before ".weight" or ".bias". */
static const struct {
    const char *ours, *theirs;
    bool matrix;
    int64_t part, parts;
} init_gpt2_names[] = {
    {"model.embed_tokens", "wte", false, 0, 1},
    {"model.embed_positions", "wpe", false, 0, 1},
    {"model.layers.%d.input_layernorm", "h.%d.ln_1", false, 0, 1},
    {"model.layers.%d.self_attn.q_proj", "h.%d.attn.c_attn", true, 0, 3},
    {"model.layers.%d.self_attn.k_proj", "h.%d.attn.c_attn", true, 1, 3},
    {"model.layers.%d.self_attn.v_proj", "h.%d.attn.c_attn", true, 2, 3},
    {"model.layers.%d.self_attn.o_proj", "h.%d.attn.c_proj", true, 0, 1},
    {"model.layers.%d.post_attention_layernorm", "h.%d.ln_2", false, 0, 1},
    {"model.layers.%d.mlp.up_proj", "h.%d.mlp.c_fc", true, 0, 1},
    {"model.layers.%d.mlp.down_proj", "h.%d.mlp.c_proj", true, 0, 1},
    {"model.norm", "ln_f", false, 0, 1},
};

/* Tensors that a folder may have, but that are no weights: masks and angles of older versions of transformers, and the
   output matrix where it is the embedding. */
static inline bool init_from_ignores(const char *name, bool tied) {
    static const char *const ends[] = {".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (strlen(name) > strlen(ends[i]) && strcmp(name + strlen(name) - strlen(ends[i]), ends[i]) == 0)
            return true;
    return tied && strcmp(name, "lm_head.weight") == 0;
}

static inline void init_files_add(InitFiles *f, const char *name) {
    char error[CHECKPOINT_ERROR_SIZE];
    for (int i = 0; i < f->count; i++)
        if (strcmp(check_basename(f->paths[i]), name) == 0) return;
    if (strchr(name, '/'))
        die("%s/model.safetensors.index.json: '%s' is no name of a file in the folder", f->folder, name);
    SafetensorsFile *file = &f->files[f->count];
    char *path = f->paths[f->count];
    if (!file_join(path, f->folder, name, error) || !safetensors_open(file, path, error)) die("%s", error);
    f->used[f->count++] = check_calloc((size_t)(file->count + 1) * sizeof(bool));
}

/* Room for `count` files. */
static inline InitFiles init_files_begin(const char *folder, int count) {
    InitFiles f = {.folder = folder};
    f.files = check_calloc((size_t)count * sizeof *f.files);
    f.paths = check_calloc((size_t)count * sizeof *f.paths);
    f.used = check_calloc((size_t)count * sizeof *f.used);
    return f;
}

static inline bool init_from_has(const char *folder, const char *name) {
    char path[CHECKPOINT_PATH_SIZE], error[CHECKPOINT_ERROR_SIZE];
    return file_join(path, folder, name, error) && access(path, F_OK) == 0;
}

/* A checkpoint of ours whose model.safetensors is rounded has the weights in float32 as well. */
static inline InitFiles init_files_open(const char *folder) {
    if (init_from_has(folder, "model.safetensors") || init_from_has(folder, EXACT_WEIGHTS_NAME)) {
        InitFiles f = init_files_begin(folder, 1);
        init_files_add(&f,
                       init_from_has(folder, EXACT_WEIGHTS_NAME) ? EXACT_WEIGHTS_NAME : "model.safetensors");
        return f;
    }
    if (!init_from_has(folder, "model.safetensors.index.json"))
        die("'%s' has no model.safetensors%s", folder,
            init_from_has(folder, "pytorch_model.bin")
                ? ", only pytorch_model.bin; save it again with transformers' save_pretrained()"
                : "; a checkpoint or a folder of a Hugging Face model is expected");
    cJSON *json = checkpoint_read_json(folder, "model.safetensors.index.json");
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(json, "weight_map"), *item;
    if (!cJSON_IsObject(map) || !map->child)
        die("%s/model.safetensors.index.json: \"weight_map\" is missing; it names the file of each tensor",
            folder);
    InitFiles f = init_files_begin(folder, cJSON_GetArraySize(map));
    cJSON_ArrayForEach(item, map) {
        if (!cJSON_IsString(item))
            die("%s/model.safetensors.index.json: the file of '%s' is missing", folder, item->string);
        init_files_add(&f, item->valuestring);
    }
    cJSON_Delete(json);
    return f;
}

static inline void init_files_close(InitFiles *f) {
    for (int i = 0; i < f->count; i++) safetensors_close(&f->files[i]), free(f->used[i]);
    free(f->files), free(f->paths), free(f->used);
}

/* Finds a tensor by its name, or by the same name after "transformer.". False: no file has it. */
static inline bool init_files_find(const InitFiles *f, const char *name, int *file, int *entry) {
    static const char before[] = "transformer.";
    for (int i = 0; i < f->count; i++)
        for (int j = 0; j < f->files[i].count; j++) {
            const char *has = f->files[i].entries[j].name;
            if (strncmp(has, before, strlen(before)) == 0) has += strlen(before);
            if (strcmp(has, name) != 0) continue;
            *file = i, *entry = j;
            return true;
        }
    return false;
}

static inline InitSource init_from_source(const Tensor *t, bool gpt2, int64_t group, int64_t head_dim) {
    InitSource source = {.parts = 1, .group = 1, .width = head_dim};
    const char *last = strrchr(t->name, '.');
    source.longer = strncmp(t->name, "model.embed_positions.", 22) == 0;
    snprintf(source.name, sizeof source.name, "%s", t->name);
    if (strstr(t->name, ".k_proj.") || strstr(t->name, ".v_proj.")) source.group = group;
    for (size_t i = 0; gpt2 && i < sizeof init_gpt2_names / sizeof *init_gpt2_names; i++) {
        char number[16], ours[64], theirs[64];
        snprintf(number, sizeof number, "%d", t->layer);
        tensor_name(ours, &(TensorRow){.name = init_gpt2_names[i].ours}, 0, number);
        tensor_name(theirs, &(TensorRow){.name = init_gpt2_names[i].theirs}, 0, number);
        if (strlen(ours) != (size_t)(last - t->name) || strncmp(ours, t->name, strlen(ours)) != 0) continue;
        snprintf(source.name, sizeof source.name, "%s%s", theirs, last);
        source.transposed = init_gpt2_names[i].matrix && t->dimensions == 2;
        source.part = init_gpt2_names[i].part, source.parts = init_gpt2_names[i].parts;
    }
    return source;
}

/* Dies unless the tensor of the file has the shape from which ours can be made. */
static inline void init_from_check_shape(const SafetensorsFile *file, const SafetensorsEntry *e,
                                         const Tensor *t, const InitSource *source) {
    int64_t want[2] = {t->shape[0] * source->parts / source->group, t->dimensions == 2 ? t->shape[1] : 1};
    char found[128], expected[128];
    bool fits = e->dimensions == t->dimensions;
    if (source->transposed) want[1] = want[0], want[0] = t->shape[1];
    for (int d = 0; d < t->dimensions && fits; d++)
        fits = e->shape[d] == want[d] || (source->longer && d == 0 && e->shape[d] > want[d]);
    if (!fits)
        die("'%s': tensor '%s' has shape %s, expected %s%s by the model's config.json", file->path, e->name,
            safetensors_shape_text(found, e->dimensions, e->shape),
            safetensors_shape_text(expected, t->dimensions, want), source->longer ? " or more rows" : "");
}

/* to (the tensor) = its rows and columns in `from`, which has all numbers of the source. */
static inline void init_from_copy(float *to, const float *from, const Tensor *t, const InitSource *source) {
    const int64_t rows = t->shape[0], columns = t->dimensions == 2 ? t->shape[1] : 1;
    const int64_t all = rows * source->parts, first = rows * source->part;
    for (int64_t r = 0; r < rows; r++) {
        const int64_t head = r / source->width / source->group;
        const int64_t at = source->group > 1 ? head * source->width + r % source->width : first + r;
        for (int64_t c = 0; c < columns; c++)
            to[r * columns + c] = source->transposed ? from[c * all + at] : from[at * columns + c];
    }
}

static inline void init_from_tensor(const InitFiles *f, const Tensor *t, const InitSource *source,
                                    float *to) {
    char error[CHECKPOINT_ERROR_SIZE];
    int file, entry;
    if (!init_files_find(f, source->name, &file, &entry) &&
        !(*t->old_name && init_files_find(f, t->old_name, &file, &entry)))
        die("%s has no tensor '%s', which a model of its config.json has",
            f->count == 1 ? f->paths[0] : f->folder, source->name);
    const SafetensorsFile *from = &f->files[file];
    const SafetensorsEntry *e = &from->entries[entry];
    init_from_check_shape(from, e, t, source);
    f->used[file][entry] = true;
    const size_t n = (size_t)((e->end - e->begin) / safetensors_dtypes[e->dtype].bytes);
    float *numbers = check_calloc((n + 1) * sizeof *numbers);
    if (!safetensors_read_floats(from, e, 0, n, numbers, error)) die("%s", error);
    init_from_copy(to, numbers, t, source);
    free(numbers);
}

/* The files of a checkpoint of ours have checksums. */
static inline void init_from_verify(const char *folder) {
    char error[CHECKPOINT_ERROR_SIZE];
    const bool exact = init_from_has(folder, EXACT_WEIGHTS_NAME);
    const char *needed[] = {"config.json", exact ? EXACT_WEIGHTS_NAME : "model.safetensors", NULL};
    if (init_from_has(folder, "DONE") && !checkpoint_verify_needed(folder, needed, error))
        die("--init-from: %s", error);
}

/* Tokens of one tokenizer mean nothing to a model of another. */
static inline void init_from_check_tokenizer(const Run *run, const char *folder) {
    char path[CHECKPOINT_PATH_SIZE], error[FILE_ERROR_SIZE];
    size_t size;
    if (parallel_rank() != 0 || !run->tokenizer_text || !init_from_has(folder, "tokenizer.json")) return;
    char *text = file_join(path, folder, "tokenizer.json", error)
                     ? file_read(path, FILE_REGULAR, FILE_JSON_LIMIT, &size, error)
                     : NULL;
    if (!text || size != run->tokenizer_size || memcmp(text, run->tokenizer_text, size) != 0)
        warn("the tokenizer.json of --data is not that of %s: if a number stands for another text there, "
             "what the "
             "model has learned is lost; ./prepare --tokenizer=%s/tokenizer.json makes data with that of the "
             "model",
             folder, folder);
    free(text);
}

static inline void init_from_weights(const Run *run, const TensorTable *parameters, float *memory) {
    const Options *o = run->options;
    char name[CHECK_TEXT_SIZE], folder[CHECKPOINT_PATH_SIZE];
    init_from_folder(o, folder);
    init_from_verify(folder);
    init_from_check_tokenizer(run, folder);
    cJSON *json = checkpoint_read_json(folder, "config.json");
    const bool gpt2 = init_from_is_gpt2(json);
    const int64_t group = gpt2 ? 1 : init_from_group(json, folder);
    const char *type = json_text(json, "model_type");
    InitFiles f = init_files_open(folder);
    for (int i = 0; i < parameters->count; i++) {
        const Tensor *t = &parameters->tensors[i];
        const InitSource source = init_from_source(t, gpt2, group, o->head_dim);
        init_from_tensor(&f, t, &source, memory + t->offset);
    }
    for (int i = 0; i < f.count; i++)
        for (int j = 0; j < f.files[i].count; j++)
            if (!f.used[i][j] && !init_from_ignores(f.files[i].entries[j].name, o->tie == TIE_YES))
                die("'%s' holds tensor '%s', which a model of %s/config.json does not have", f.paths[i],
                    f.files[i].entries[j].name, folder);
    if (parallel_rank() == 0)
        printf("weights    of %s (%s)\n", check_shown(name, folder), type ? type : "an older checkpoint");
    init_files_close(&f);
    cJSON_Delete(json);
}

#endif
