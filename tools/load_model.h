/* load_model.h: the model of a checkpoint, for tools that use it rather than train it. Include train_gpt.c before.

   model_load(folder, B, dtype)   the model with the weights of the checkpoint folder, and room for B sequences.
                                  model_free frees it
   checkpoint_load(folder, B, dtype, &tokenizer)   the same, after the folder's files were compared with the checksums
                                  in DONE, if there is one; and the model's tokenizer, which tokenizer_free frees.
                                  tokenizer NULL: the model alone
   model_load_as(folder, B, &how), checkpoint_load_as(folder, B, &how, &tokenizer)
                                  the same with the dtype, recompute and forward_only of a ModelConfig
   checkpoint_find(name, folder)  the folder of the checkpoint that a user named: `name` itself, or, when it is the
                                  folder of a run, that of its newest checkpoint
   json_option_write(path, json)  writes the file of a tool's --json, and frees `json`
   dtype is one of Dtype, the operands of matrix products. All die with what is wrong. */
#ifndef TOOLS_LOAD_MODEL_H
#define TOOLS_LOAD_MODEL_H

/* Dies when this machine cannot hold the model. A config.json of unknown origin may state any size within the bounds.
   */
static void check_model_memory(const Model *model, const char *folder) {
    const bool forward_only = model->config.forward_only;
    double need = 4.0 * ((forward_only ? 1 : 2) * (double)model->parameters.floats +
                         (double)model->activation_table.floats);
    for (int i = 0; i < model_linear_count(model) && forward_only; i++) {
        const Linear *w = model_linear_at(model, i); /* packed for forward, which is about half of both */
        need += (double)linear_packed_bytes(w->C, w->OC, w->dtype) / 2;
    }
    if (forward_only) {
        const AttentionShape shape = attention_shape(&model->config, 1, model->config.seq_len);
        need +=
            (double)attention_cache_bytes((AttentionKind)model->config.attn, model->config.layers, &shape);
    }
    const int64_t have = memory_available();
    if (need > (double)have)
        die("the model in %s needs %.1f GiB, this machine has %.1f GiB free", folder, need / 0x1p30,
            (double)have / 0x1p30);
}

/* Memory is allocated only after config.json and the header of model.safetensors were found to agree. */
Model model_load_as(const char *folder, int B, const ModelConfig *how) {
    ModelConfig config = *how;
    config.attn_grad_scale = 1;
    char path[CHECKPOINT_PATH_SIZE], error[CHECKPOINT_ERROR_SIZE];
    config_read(folder, model_fields, MODEL_FIELDS, &config);
    if (!model_config_check(&config, error)) die("%s/config.json: %s", folder, error);
    Model model = model_plan(&config, B);
    NamedTensor *tensors = named_tensors(&model.parameters, NULL);
    if (!file_join(path, folder, "model.safetensors", error) ||
        !safetensors_fits(path, tensors, model.parameters.count, error))
        die("%s", error);
    free(tensors);
    check_model_memory(&model, folder);
    model_allocate(&model);
    if (!weights_read(&model.parameters, model.weights.memory, folder, "model.safetensors", error))
        die("%s", error);
    model_repack(&model);
    return model;
}

Model model_load(const char *folder, int B, int dtype) {
    return model_load_as(folder, B, &(ModelConfig){.dtype = dtype});
}

/* Dies when the tokenizer has more tokens than the model: their numbers would be looked up beyond the end of the
   embeddings. */
static void check_tokenizer_fits(const Tokenizer *tokenizer, int vocab_size, const char *path) {
    if (tokenizer_vocab_size(tokenizer) > vocab_size)
        die("'%s' has tokens up to number %d, but the model has only %d tokens; it belongs to another model",
            path, tokenizer_vocab_size(tokenizer) - 1, vocab_size);
}

/* Compares the files that tools read with their checksums in DONE; dies when one differs. A run whose data has no
   tokenizer.json writes checkpoints without one. A tokenizer.json that was added later has no checksum: the user is
   told. */
static void check_checksums(const char *folder, const char *tokenizer_path) {
    char error[CHECKPOINT_ERROR_SIZE];
    int count;
    CheckpointFile *files = checkpoint_read_done(folder, &count, error);
    const bool has_tokenizer = files && checkpoint_find_file(files, count, "tokenizer.json");
    const char *needed[] = {"config.json", "model.safetensors", has_tokenizer ? "tokenizer.json" : NULL,
                            NULL};
    if (!files || !checkpoint_verify_needed(folder, needed, error)) die("%s", error);
    if (!has_tokenizer && access(tokenizer_path, F_OK) == 0)
        warn("'%s' was not written with the checkpoint: whether it is the right one cannot be checked",
             tokenizer_path);
    free(files);
}

Model checkpoint_load_as(const char *folder, int B, const ModelConfig *how, Tokenizer **tokenizer) {
    char path[CHECKPOINT_PATH_SIZE], done[CHECKPOINT_PATH_SIZE], error[CHECKPOINT_ERROR_SIZE];
    if (!file_join(path, folder, "tokenizer.json", error) || !file_join(done, folder, "DONE", error))
        die("%s", error);
    if (access(done, F_OK) == 0) check_checksums(folder, path);
    Model model = model_load_as(folder, B, how);
    if (!tokenizer) return model;
    *tokenizer = tokenizer_load(path);
    check_tokenizer_fits(*tokenizer, model.config.vocab_size, path);
    return model;
}

Model checkpoint_load(const char *folder, int B, int dtype, Tokenizer **tokenizer) {
    return checkpoint_load_as(folder, B, &(ModelConfig){.dtype = dtype}, tokenizer);
}

void checkpoint_find(const char *name, char folder[CHECKPOINT_PATH_SIZE]) {
    char path[CHECKPOINT_PATH_SIZE + 32], torn[64] = "";
    long step = -1;
    if (!checkpoint_latest(name, -1, folder, CHECKPOINT_PATH_SIZE, &step))
        snprintf(folder, CHECKPOINT_PATH_SIZE, "%s", name);
    const bool newer_is_torn = checkpoint_newest_torn(name, torn) > step;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    if (access(path, R_OK) != 0)
        die("'%s' holds no checkpoint%s%s%s; ./train_gpt writes one at its end, and every N steps with "
            "--save-every=N",
            name, newer_is_torn ? " (" : "", torn, newer_is_torn ? " has no DONE)" : "");
    if (newer_is_torn) warn("%s/%s has no DONE: it is passed over for %s", name, torn, folder);
}

/* Writes the file of --json, and frees `json`. */
static inline void json_option_write(const char *path, cJSON *json) {
    char error[FILE_ERROR_SIZE], *text = cJSON_Print(json);
    if (!text) die("no memory to write '%s'", path);
    if (!file_write_output(path, text, strlen(text), error))
        die("%s; name a file in a folder that exists: --json=FILE", error);
    cJSON_free(text), cJSON_Delete(json);
}

#endif
