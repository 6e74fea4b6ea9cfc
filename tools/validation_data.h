/* validation_data.h: the validation data for a model, for tools that measure it there. Include train_gpt.c before.

   open_validation(data, folder, config)   opens the validation windows of a folder of tokens (--data), for the model in
                                           the checkpoint `folder`. Dies when they were made with another tokenizer than
                                           the model's. dataset_close closes them */
#ifndef TOOLS_VALIDATION_DATA_H
#define TOOLS_VALIDATION_DATA_H

/* Dies when the data's tokenizer is another one than the model's: its tokens would mean other texts. */
static inline void check_same_tokenizer(const char *data, const char *folder) {
    char *first = dataset_first_folder(data), error[FILE_ERROR_SIZE], *texts[2];
    char *paths[] = {file_path(first, "tokenizer.json"), file_path(folder, "tokenizer.json")};
    size_t sizes[2] = {0};
    for (int i = 0; i < 2; i++) {
        texts[i] = file_read(paths[i], FILE_REGULAR, FILE_JSON_LIMIT, &sizes[i], error);
        if (!texts[i] && errno != ENOENT) die("%s", error);
    }
    if (texts[0] && texts[1] && (sizes[0] != sizes[1] || memcmp(texts[0], texts[1], sizes[0]) != 0))
        die("'%s' differs from '%s': the data was made with another tokenizer than the model's; name other "
            "data by --data=DIR, or prepare this text again with --tokenizer=%s",
            paths[0], paths[1], paths[1]);
    for (int i = 0; i < 2; i++)
        if (!texts[i]) warn("there is no '%s': cannot tell whether the data fits the model", paths[i]);
    for (int i = 0; i < 2; i++) free(texts[i]), free(paths[i]);
    free(first);
}

/* Opens the validation windows, for a model from this checkpoint. */
static inline Dataset open_validation(const char *data, const char *folder, const ModelConfig *c) {
    Dataset val;
    char *first = dataset_first_folder(data);
    if (access(first, R_OK | X_OK) != 0)
        die("cannot open the data folder '%s': %s; name a folder with val_*.bin by --data=DIR", first,
            strerror(errno));
    free(first);
    check_same_tokenizer(data, folder);
    dataset_open(&val, data, "val_", c->seq_len, c->vocab_size);
    return val;
}

#endif
