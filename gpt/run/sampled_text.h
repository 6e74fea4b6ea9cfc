/* sampled_text.h: prints a text while a model writes it, token by token. For the samples of a training run; ./generate
   has more to do.

   sampled_text_begin(tokenizer, prompt, T)   prints the prompt. Its tokens are the first of text.tokens (text.count),
                                              at most T - 1: the last ones of a longer prompt, and at least one token
   sampled_text_add(&text, token)             prints a token and adds it to text.tokens. When these are T, the older half
                                              of them is removed, so the model can always be asked for one more
   sampled_text_end(&text)                    ends the line, and frees the memory */
#ifndef GPT_RUN_SAMPLED_TEXT_H
#define GPT_RUN_SAMPLED_TEXT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../base/check.h"
#include "../base/program.h"
#include "../io/tokenizer.h"

typedef struct {
    const Tokenizer *tokenizer;
    int32_t *tokens; /* (T) what the model sees */
    int count, T;
    bool
        on_terminal; /* there control bytes are made visible, because they could change the terminal's state */
    char waiting[8]; /* of check_print_piece */
} SampledText;

static inline void sampled_text_print(SampledText *text, const char *bytes, size_t size) {
    if (text->on_terminal)
        check_print_piece(stdout, text->waiting, bytes, size);
    else
        fwrite(bytes, 1, size, stdout);
}

static inline SampledText sampled_text_begin(const Tokenizer *tokenizer, const char *prompt, int T) {
    SampledText text = {.tokenizer = tokenizer, .T = T, .on_terminal = program_on_terminal(stdout)};
    const size_t size = strlen(prompt), room = (size_t)T;
    const int end_of_text = tokenizer_end_of_text(tokenizer);
    uint16_t *ids = check_calloc(tokenizer_room(tokenizer, prompt, size) * sizeof *ids);
    const size_t count = tokenizer_encode(tokenizer, NULL, prompt, size, ids);
    text.tokens = check_calloc(room * sizeof *text.tokens);
    for (size_t i = count >= room ? count - room + 1 : 0; i < count; i++) text.tokens[text.count++] = ids[i];
    if (text.count == 0) /* every document begins after this token */
        text.tokens[text.count++] = end_of_text >= 0 ? end_of_text : 0;
    free(ids);
    sampled_text_print(&text, prompt, size);
    return text;
}

static inline void sampled_text_add(SampledText *text, int32_t token) {
    size_t size;
    const char *bytes = tokenizer_decode_token(text->tokenizer, token, &size);
    text->tokens[text->count++] = token;
    if (text->count == text->T) {
        text->count = text->T - text->T / 2;
        memmove(text->tokens, text->tokens + text->T / 2, (size_t)text->count * sizeof *text->tokens);
    }
    if (token == tokenizer_end_of_text(text->tokenizer))
        printf("\n\n");
    else
        sampled_text_print(text, bytes, size);
}

static inline void sampled_text_end(SampledText *text) {
    if (text->on_terminal) check_print_piece(stdout, text->waiting, "", 0);
    printf("\n");
    free(text->tokens);
}

#endif
