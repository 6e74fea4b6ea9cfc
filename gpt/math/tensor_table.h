/* tensor_table.h: many tensors in one piece of memory, described by a table: the parameters of a model are one table,
   its activations another, and everything that allocates, initialises, saves or prints them reads the table.

   A TensorRow names a tensor, gives its shape in letters and the field of a struct that will point to it:

       {"layers.%d.attn.q.weight", "AC", offsetof(LayerWeights, q)}

   %d stands for the layer: there is one such tensor in each, and the field is of the layer's struct, else of the
   model's. What a letter means is up to the caller's `size` function; '3' triples the size after it. Rows of one
   layer lie together, in the order of the table, so neighbours in the table are neighbours in memory. `size` also tells
   whether the field is a float pointer or an Array, and whether all layers share one piece of memory.

   TensorTable table = tensors_plan(rows, count, layers, size, context);   free with tensors_free
   tensors_point(&table, memory, &model_fields, layer_fields, sizeof *layer_fields);
   tensor_values(tensor, memory, &copy);   floats, whatever the storage
   tensors_print(&table, layers);      one line a row: name, shape, how many, elements
   tensor_range(tensor)                the part of that memory which is its own, a FloatRange (ranges.h) */
#ifndef GPT_MATH_TENSOR_TABLE_H
#define GPT_MATH_TENSOR_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "../base/check.h"
#include "array.h"
#include "ranges.h"

typedef struct {
    const char *name, *shape;
    size_t field; /* offset of the float pointer or Array */
    int kind;     /* free for the caller: how a parameter is initialised */
    int when;     /* free for the caller: `size` may leave a row out, see there */
} TensorRow;

/* What `size` answers for the letter 0. */
enum {
    TENSOR_ABSENT = 0,
    TENSOR_FLOATS = 1, /* the field is a float pointer */
    TENSOR_ARRAY = 2,
    TENSOR_BF16 = 4,  /* with TENSOR_ARRAY: stored as bfloat16 */
    TENSOR_SHARED = 8 /* all layers use the same memory, one after the other */
};

typedef struct {
    char name[64];
    int rank;
    int64_t shape[2];
    size_t count;          /* elements */
    size_t offset, floats; /* where it lies in the piece of memory, and how much of it it takes, in floats */
    const TensorRow *row;
    int layer, flags; /* TENSOR_... */
    bool per_layer;
} Tensor;

typedef struct {
    Tensor *tensors; /* (count) in memory order */
    int count;
    size_t floats; /* of the piece of memory */
} TensorTable;

/* The size that `letter` stands for; with letter 0: TENSOR_... of the row in this model. */
typedef int64_t TensorSize(const void *context, const TensorRow *row, char letter);

static inline Tensor tensor_make(const TensorRow *row, int layer, size_t offset, TensorSize *size,
                                 const void *context) {
    Tensor t = {.row = row, .layer = layer, .offset = offset, .count = 1};
    int64_t factor = 1;
    for (const char *letter = row->shape; *letter; letter++) {
        if (*letter == '3') {
            factor = 3;
            continue;
        }
        t.shape[t.rank] = factor * size(context, row, *letter);
        t.count *= (size_t)t.shape[t.rank++];
        factor = 1;
    }
    t.flags = (int)size(context, row, 0);
    t.floats = t.flags & TENSOR_BF16 ? (t.count + 1) / 2 : t.count;
    const char *number = strstr(row->name, "%d");
    t.per_layer = number != NULL;
    if (!number)
        snprintf(t.name, sizeof t.name, "%s", row->name);
    else
        snprintf(t.name, sizeof t.name, "%.*s%d%s", (int)(number - row->name), row->name, layer, number + 2);
    return t;
}

/* Layer 0's tensor of a row. */
static inline const Tensor *tensors_first(const TensorTable *table, const TensorRow *row) {
    const Tensor *t = table->tensors;
    while (t->row != row) t++;
    return t;
}

static inline TensorTable tensors_plan(const TensorRow *rows, int row_count, int layers, TensorSize *size,
                                       const void *context) {
    TensorTable table = {.tensors = check_calloc((size_t)(row_count * layers) * sizeof(Tensor))};
    for (int first = 0, last; first < row_count;
         first = last) { /* a run of rows that all are, or are not, per layer */
        bool per_layer = strstr(rows[first].name, "%d") != NULL;
        for (last = first; last < row_count && (strstr(rows[last].name, "%d") != NULL) == per_layer;) last++;
        for (int layer = 0; layer < (per_layer ? layers : 1); layer++)
            for (int r = first; r < last; r++) {
                if (!size(context, &rows[r], 0)) continue;
                Tensor *t = &table.tensors[table.count++];
                *t = tensor_make(&rows[r], layer, table.floats, size, context);
                if (layer > 0 && t->flags & TENSOR_SHARED)
                    t->offset = tensors_first(&table, &rows[r])->offset;
                else
                    table.floats += t->floats;
            }
    }
    return table;
}

static inline void tensors_free(TensorTable *table) { free(table->tensors); }

static inline void tensors_point(const TensorTable *table, float *memory, void *model_fields,
                                 void *layer_fields, size_t layer_size) {
    for (int i = 0; i < table->count; i++) {
        const Tensor *t = &table->tensors[i];
        char *fields = t->per_layer ? (char *)layer_fields + (size_t)t->layer * layer_size : model_fields;
        if (t->flags & TENSOR_ARRAY)
            *(Array *)(fields + t->row->field) =
                (Array){memory + t->offset, t->flags & TENSOR_BF16 ? DTYPE_BF16 : DTYPE_FP32};
        else
            *(float **)(fields + t->row->field) = memory + t->offset;
    }
}

/* The values of a tensor as floats: in `memory`, or in a copy that the caller frees (*copy, else NULL). */
static inline const float *tensor_values(const Tensor *t, const float *memory, float **copy) {
    *copy = NULL;
    if (!(t->flags & TENSOR_BF16)) return memory + t->offset;
    const Array from = {(void *)(memory + t->offset), DTYPE_BF16};
    *copy = check_calloc(t->count * sizeof(float));
    for (size_t i = 0; i < t->count; i++) (*copy)[i] = array_get(from, (int64_t)i);
    return *copy;
}

static inline void tensors_print(const TensorTable *table, int layers) {
    printf("%-30s %-16s %6s %14s\n", "tensor", "shape", "number", "parameters");
    for (int i = 0; i < table->count; i++) {
        const Tensor *t = &table->tensors[i];
        if (t->layer > 0) continue;
        char shape[64], name[96];
        const char *number = strstr(t->row->name, "%d");
        snprintf(shape, sizeof shape, t->rank == 2 ? "(%lld, %lld)" : "(%lld)", (long long)t->shape[0],
                 (long long)t->shape[1]);
        if (number)
            snprintf(name, sizeof name, "%.*s*%s", (int)(number - t->row->name), t->row->name, number + 2);
        printf("%-30s %-16s %6d %14lld\n", number ? name : t->name, shape, number ? layers : 1,
               (long long)t->count * (number ? layers : 1));
    }
    printf("%-54s %14lld\n", "all", (long long)table->floats);
}

static inline FloatRange tensor_range(const Tensor *t) {
    return (FloatRange){t->offset, t->offset + t->count};
}

#endif
