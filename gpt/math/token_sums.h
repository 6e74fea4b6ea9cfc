/* token_sums.h: sums over tokens, such as the gradient of a vector of weights, that have the same bits for any number of
   threads. The tokens are cut into chunks of a fixed size. One thread adds what the tokens of a chunk give, in their
   order, and at the end the sums of the chunks are added in theirs.

   token_sums_create(tokens, width)   `width` sums, all 0; token_sums_free(&sums) frees them
   sums.chunks                        how many chunks there are, for a loop of threads over them
   token_sums_begin(&sums, chunk)     the first token of a chunk; that of the next one is its end
   token_sums_of(&sums, chunk)        (width) where the thread adds what the tokens of this chunk give
   token_sums_total(&sums, i)         sum number i over all tokens, after the loop */
#ifndef GPT_MATH_TOKEN_SUMS_H
#define GPT_MATH_TOKEN_SUMS_H

#include <stdint.h>
#include <stdlib.h>
#include "../base/check.h"

enum { TOKEN_SUMS_CHUNK = 32 }; /* tokens */

typedef struct {
    int64_t tokens, chunks;
    int width;
    float *of_chunks; /* (chunks, width) */
} TokenSums;

static inline TokenSums token_sums_create(int64_t tokens, int width) {
    const int64_t chunks = (tokens + TOKEN_SUMS_CHUNK - 1) / TOKEN_SUMS_CHUNK;
    return (TokenSums){tokens, chunks, width,
                       (float *)check_calloc((size_t)chunks * (size_t)width * sizeof(float))};
}

static inline void token_sums_free(TokenSums *sums) { free(sums->of_chunks); }

static inline int64_t token_sums_begin(const TokenSums *sums, int64_t chunk) {
    const int64_t begin = chunk * TOKEN_SUMS_CHUNK;
    return begin < sums->tokens ? begin : sums->tokens;
}

static inline float *token_sums_of(const TokenSums *sums, int64_t chunk) {
    return sums->of_chunks + chunk * sums->width;
}

static inline float token_sums_total(const TokenSums *sums, int i) {
    float sum = 0;
    for (int64_t chunk = 0; chunk < sums->chunks; chunk++) sum += token_sums_of(sums, chunk)[i];
    return sum;
}

#endif
