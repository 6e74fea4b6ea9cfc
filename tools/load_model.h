/* load_model.h: the model of a checkpoint, for tools that use it rather than train it. Included after train_gpt.c.

   model_load(folder, B, dtype)        the model with its weights, and room for B sequences
   checkpoint_load(folder, B, dtype, &tokenizer)   the same with its tokenizer; the files are compared with the checksums in
                                       DONE. tokenizer_free and model_free release them
   Both die with what is wrong. */
#ifndef TOOLS_LOAD_MODEL_H
#define TOOLS_LOAD_MODEL_H

/* Dies when this machine cannot hold the model: a hostile file may state any size within the bounds. */
static void check_model_memory(const Model *model, const char *folder) {
    const double need = 4.0 * (2 * (double)model->parameters.floats + (double)model->activation_table.floats);
    const int64_t have = machine_memory_available();
    if (need > (double)have)
        die("the model in %s needs %.1f GiB, this machine has %.1f GiB free", folder, need / 0x1p30,
            (double)have / 0x1p30);
}

/* A model with the weights of a checkpoint folder and room for B sequences; dies with what is wrong. Nothing is allocated
   before the header of the weights has been found to agree with config.json. */
Model model_load(const char *folder, int B, int dtype) {
    ModelConfig config = {.dtype = dtype};
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
    if (!weights_read(&model.parameters, model.weights.memory, folder, error)) die("%s", error);
    model_repack(&model);
    return model;
}

/* An id that the tokenizer knows and the model does not would be looked up behind the model's embeddings. */
static void check_tokenizer_fits(const Tokenizer *tokenizer, int vocab_size, const char *path) {
    if (tokenizer_vocab_size(tokenizer) > vocab_size)
        die("'%s' has tokens up to number %d, but the model only %d tokens; it is another model's", path,
            tokenizer_vocab_size(tokenizer) - 1, vocab_size);
}

/* The files that tools read, compared with their sums in DONE. A run without a tokenizer.json has none in its
   checkpoints; whoever puts one there later has no sum to compare. */
static void check_sums(const char *folder, const char *tokenizer_path) {
    char error[CHECKPOINT_ERROR_SIZE];
    int count;
    CheckpointFile *files = checkpoint_read_done(folder, &count, error);
    const bool has_tokenizer = files && checkpoint_find_file(files, count, "tokenizer.json");
    const char *needed[] = {"config.json", "model.safetensors", has_tokenizer ? "tokenizer.json" : NULL,
                            NULL};
    if (!files || !checkpoint_verify_needed(folder, needed, error)) die("%s", error);
    if (!has_tokenizer && access(tokenizer_path, F_OK) == 0)
        warn("'%s' was not written with the checkpoint: whether it is the right one cannot be told",
             tokenizer_path);
    free(files);
}

/* A checkpoint as tools use it: its model and its tokenizer, which agree; files with sums in DONE are compared with them. */
Model checkpoint_load(const char *folder, int B, int dtype, Tokenizer **tokenizer) {
    char path[CHECKPOINT_PATH_SIZE], done[CHECKPOINT_PATH_SIZE], error[CHECKPOINT_ERROR_SIZE];
    if (!file_join(path, folder, "tokenizer.json", error) || !file_join(done, folder, "DONE", error))
        die("%s", error);
    if (access(done, F_OK) == 0) check_sums(folder, path);
    Model model = model_load(folder, B, dtype);
    *tokenizer = tokenizer_load(path);
    check_tokenizer_fits(*tokenizer, model.config.vocab_size, path);
    return model;
}

#endif
