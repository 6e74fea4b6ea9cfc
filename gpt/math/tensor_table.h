/* tensor_table.h: many tensors in one allocation, described by a table. The parameters of a model are one table, its
   activations another, and everything that allocates, initialises, saves or prints tensors reads the table.

   The caller writes rows. A TensorRow has the name of a tensor, a letter for each dimension of its shape, and the field
   of a struct that will point to the tensor:

       {"layers.%d.attn.q.weight", "AC", offsetof(LayerWeights, q)}

   A name with %d stands for one tensor in each layer, whose number replaces the %d; its field is in the struct of that
   layer. Other fields are in the struct of the model. The caller's function `size` says how many elements a letter
   means; a '3' in a shape triples the dimension after it. For the letter 0 it says how the tensor is stored
   (TENSOR_..., below). In memory a layer's tensors lie in the order of their rows, without gaps, and the layers follow
   one another.

   TensorTable table = tensors_plan(rows, count, layers, size, context);
                                       one Tensor for each row, or for each row and layer; tensors_free(&table) frees it
   tensors_point(&table, memory, &model_fields, layer_fields, sizeof *layer_fields);
                                       sets the fields of the structs: memory (table.floats) holds the tensors and is
                                       the caller's, layer_fields is an array of one struct a layer
   tensor_values(tensor, memory, &copy)    the elements as floats, whatever the storage
   tensors_print(&table, layers)       prints name, shape, number of layers and elements of each row
   tensor_range(tensor)                where in memory the elements of a float32 tensor are: a FloatRange (ranges.h) */
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
    int kind;     /* the caller's: how a parameter is initialised */
    int when;     /* the caller's: under which condition `size` does not answer TENSOR_ABSENT */
} TensorRow;

/* What `size` answers for the letter 0: how the tensor of a row is stored. */
enum {
    TENSOR_ABSENT = 0, /* this model has no such tensor */
    TENSOR_FLOATS = 1, /* the field is a float pointer */
    TENSOR_ARRAY = 2,
    TENSOR_BF16 = 4,  /* with TENSOR_ARRAY: stored as bfloat16 */
    TENSOR_SHARED = 8 /* the tensors of all layers are in the same memory */
};

typedef struct {
    char name[64];
    int rank;
    int64_t shape[2];
    size_t count; /* elements */
    size_t offset,
        floats; /* where in memory it begins and how much it takes, in floats, whatever the storage */
    const TensorRow *row;
    int layer, flags; /* TENSOR_... */
    bool per_layer;
} Tensor;

typedef struct {
    Tensor *tensors; /* (count) in memory order */
    int count;
    size_t floats; /* of memory that all need together */
} TensorTable;

/* The dimension that `letter` stands for in this row; for the letter 0: TENSOR_..., flags that are added. */
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

/* The tensor of a row in layer 0. */
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

/* The elements of a tensor as floats. They are in `memory`, and *copy is NULL; or, where the tensor is stored as bf16,
   they are in *copy, which the caller frees. */
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
