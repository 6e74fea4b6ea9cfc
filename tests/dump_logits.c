/* dump_logits.c: ./dump_logits CHECKPOINT TOKENS LOGITS writes the logits of a model in float32. TOKENS is a file of T
   int32, T at most the sequence length of the model; LOGITS becomes a file of (T, V) float32. tests/test_huggingface.py
   compares them with those of transformers. */
#define TRAIN_GPT_NO_MAIN
#include "../train_gpt.c"
#include "../tools/load_model.h"

int main(int argc, char **argv) {
    threads_configure(argv);
    if (argc != 4) die("usage: %s CHECKPOINT TOKENS LOGITS", argv[0]);
    Model model = checkpoint_load(argv[1], 1, DTYPE_FP32, NULL);
    const int T = model.config.seq_len, V = model.config.vocab_size;
    size_t size;
    char *bytes = check_file_read(argv[2], FILE_REGULAR, (size_t)T * sizeof(int32_t), &size, "");
    const int N = (int)(size / sizeof(int32_t));
    model_forward(&model, (int32_t *)bytes, 1, N);
    FILE *file = check_fopen(argv[3], "wb", "");
    for (int n = 0; n < N; n++) {
        const float *logits = model_logits(&model, n);
        check_fwrite(logits, sizeof *logits, (size_t)V, file, argv[3]);
    }
    check_fclose(file, argv[3]);
    free(bytes), model_free(&model);
    return 0;
}
