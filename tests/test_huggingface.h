/* test_huggingface.h: a checkpoint is a folder that Hugging Face's programs load: its files, the names in them, its
   number formats. tests/test_huggingface.py loads such folders with transformers. */
#ifndef TESTS_TEST_HUGGINGFACE_H
#define TESTS_TEST_HUGGINGFACE_H

#include "harness.h"
#include "test_train.h"

/* Gives the tensors of a checkpoint's file the names that older versions wrote. */
static void huggingface_rename_old(const TensorTable *parameters, const char *folder, const char *file) {
    char path[512], error[CHECKPOINT_ERROR_SIZE];
    NamedTensor *tensors;
    int count, renamed = 0;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    if (!safetensors_load(path, &tensors, &count, error)) die("%s", error);
    for (int i = 0; i < count; i++)
        for (int k = 0; k < parameters->count; k++) {
            const Tensor *t = &parameters->tensors[k];
            char *at = strstr(tensors[i].name, t->name);
            if (!at || strlen(at) != strlen(t->name)) continue; /* after mean. or square. */
            memmove(at, t->old_name, strlen(t->old_name) + 1);
            renamed++;
            break;
        }
    CHECK(renamed == count, "%s: %d of %d tensors have an old name", file, renamed, count);
    if (!safetensors_write(path, tensors, count, NULL, error)) die("%s", error);
    safetensors_free(tensors, count);
}

/* Writes a checkpoint's DONE again, after its files have been changed. */
static void huggingface_write_done(const char *folder) {
    char path[512], error[CHECKPOINT_ERROR_SIZE];
    Checkpoint c = {.step = 0};
    snprintf(path, sizeof path, "%s/DONE", folder);
    snprintf(c.folder, sizeof c.folder, "%s", folder);
    if (unlink(path) != 0 || !checkpoint_write_done(&c, error)) die("'%s': %s", path, error);
}

/* Runs of older versions must go on, and their models be read: weights and moments under the old names. The result must
   have the same bits as that of a run that was never stopped. */
static void test_huggingface_old_names_are_read(void) {
    static const char *const all[] = {"", "--activation=swiglu --pos=learned --tie=no",
                                      "--qk-norm=yes --attn-scale=head --norm-place=peri"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char output[8192], data[256], folder[300], options[300];
        snprintf(data, sizeof data, "%s", write_test_data(600));
        int code = train_tiny(data, "whole", all[i], output, sizeof output);
        REQUIRE(code == 0, "%s: %s", all[i], output);
        snprintf(options, sizeof options, "%s --save-every=7 --keep=0", all[i]);
        train_tiny(data, "old", options, output, sizeof output);
        test_command(output, sizeof output, "rm -r %s/old/step-00000012", data);
        snprintf(folder, sizeof folder, "%s/old/step-00000007", data);
        Model model = model_load(folder, 1, DTYPE_FP32);
        const size_t bytes = model.parameters.floats * sizeof(float);
        float *weights = memcpy(check_calloc(bytes), model.weights.memory, bytes);
        huggingface_rename_old(&model.parameters, folder, "model.safetensors");
        huggingface_rename_old(&model.parameters, folder, "optimizer-00000-of-00001.safetensors");
        model_free(&model);
        model = model_load(folder, 1, DTYPE_FP32);
        CHECK(memcmp(weights, model.weights.memory, bytes) == 0, "%s: other weights", all[i]);
        free(weights), model_free(&model);
        huggingface_write_done(folder);
        snprintf(options, sizeof options, "%s --resume=auto", all[i]);
        code = train_tiny(data, "old", options, output, sizeof output);
        CHECK(code == 0 && strstr(output, "step-00000007"), "%s: exit %d: %s", all[i], code, output);
        check_same_run(data, "whole", "old");
    }
}

#define HUGGINGFACE_TESTS(TEST) TEST(huggingface_old_names_are_read)

#endif
