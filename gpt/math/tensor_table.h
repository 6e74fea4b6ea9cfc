/* tensor_table.h: many tensors in one allocation, described by a table. The parameters of a model are one table, its
   activations another, and everything that allocates, initialises, saves or prints tensors reads the table.

   The caller writes the rows of the table. A TensorRow has the name of a tensor, a letter for each dimension of its
   shape, and the offset of the field that will point to the tensor in a struct of the caller:

       {"model.layers.%d.self_attn.q_proj.weight", "AC", offsetof(LayerWeights, q)}

   A name with %d stands for one tensor in each layer. The number of the layer replaces the %d, and the field is in the
   struct of that layer. Fields of the other tensors are in the struct of the model. A name "NEW|OLD" means that the
   tensor is called NEW, and that files of older versions call it OLD. The caller has
   two functions: `size` returns the size that a letter of a shape stands for (a digit in a shape multiplies the
   dimension after it: "N3A" is (N, 3A)), and `flags` returns whether a row's tensor exists, and how it is stored: TENSOR_..., below. In memory the
   tensors of a layer lie in the order of their rows, without gaps, and the layers follow one another.

   TensorTable table = tensors_plan(rows, count, layers, size, flags, context);
                                       makes one Tensor for each row, or, if its name has a %d, for each row and layer;
                                       tensors_free(&table) frees them
   tensors_point(&table, memory, &model_fields, layer_fields, sizeof *layer_fields);
                                       sets the fields of the structs. memory (table.floats) holds the tensors and
                                       belongs to the caller; layer_fields is an array of one struct for each layer
   tensor_values(tensor, memory, &copy)
                                       the elements as floats, also where they are stored as bf16
   tensors_print(&table, layers)       prints for each row: name, shape, number of layers, number of elements
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
    size_t field; /* offset of the float pointer or Array in its struct */
    /* Two numbers to which the caller gives a meaning; this file does not read them. kind: how a parameter is
       initialised. when: the condition from which the caller's `flags` decides whether the tensor exists. */
    int kind, when;
} TensorRow;

/* What `flags` returns: how the tensor of a row is stored. */
enum {
    TENSOR_ABSENT = 0, /* this model has no such tensor */
    TENSOR_FLOATS = 1, /* the field is a float pointer */
    TENSOR_ARRAY = 2,  /* the field is an Array */
    TENSOR_BF16 = 4,   /* with TENSOR_ARRAY: it is stored as bfloat16 */
    TENSOR_SHARED = 8  /* all layers have it in the same memory: each overwrites that of another */
};

typedef struct {
    char name[64], old_name[64]; /* old_name: that in files of older versions; "" if it has none */
    int dimensions;
    int64_t shape[2];
    size_t count; /* number of elements */
    /* Where in memory the tensor begins and how much it takes, in units of 4 bytes, also where it is stored as bf16. */
    size_t offset, floats;
    const TensorRow *row;
    int layer, flags; /* flags: TENSOR_..., added */
    bool per_layer;   /* its name has a %d; if not, layer is 0 */
} Tensor;

typedef struct {
    Tensor *tensors; /* (count) in memory order */
    int count;
    size_t floats; /* the memory that all need together, in floats */
} TensorTable;

/* Returns the size of the dimension that `letter` stands for. */
typedef int64_t TensorSize(const void *context, char letter);
/* Returns the sum of the TENSOR_... flags of a row. */
typedef int TensorFlags(const void *context, const TensorRow *row);

/* The two names of a row, "NEW|OLD": writes number 0 or 1 to `name`, with `layer` in place of its %d. */
static inline void tensor_name(char name[64], const TensorRow *row, int which, const char *layer) {
    const char *from = row->name + (which ? strcspn(row->name, "|") : 0);
    from += which && *from;
    const int length = (int)strcspn(from, "|"), before = (int)strcspn(from, "%|");
    if (before == length)
        snprintf(name, 64, "%.*s", length, from);
    else
        snprintf(name, 64, "%.*s%s%.*s", before, from, layer, length - before - 2, from + before + 2);
}

static inline Tensor tensor_make(const TensorRow *row, int layer, size_t offset, TensorSize *size, int flags,
                                 const void *context) {
    Tensor t = {.row = row, .layer = layer, .flags = flags, .offset = offset, .count = 1};
    int64_t factor = 1;
    for (const char *letter = row->shape; *letter; letter++) {
        if (*letter >= '2' && *letter <= '9') {
            factor = *letter - '0';
            continue;
        }
        t.shape[t.dimensions] = factor * size(context, *letter);
        t.count *= (size_t)t.shape[t.dimensions++];
        factor = 1;
    }
    t.floats = t.flags & TENSOR_BF16 ? (t.count + 1) / 2 : t.count;
    t.per_layer = strstr(row->name, "%d") != NULL;
    char number[16];
    snprintf(number, sizeof number, "%d", layer);
    tensor_name(t.name, row, 0, number);
    tensor_name(t.old_name, row, 1, number);
    return t;
}

/* The tensor of a row; for a row with one tensor in each layer, that of layer 0. The row must have one. */
static inline const Tensor *tensors_first(const TensorTable *table, const TensorRow *row) {
    const Tensor *t = table->tensors;
    while (t->row != row) t++;
    return t;
}

static inline TensorTable tensors_plan(const TensorRow *rows, int row_count, int layers, TensorSize *size,
                                       TensorFlags *flags, const void *context) {
    TensorTable table = {.tensors = check_calloc((size_t)(row_count * layers) * sizeof(Tensor))};
    /* Rows first to last - 1 follow one another and all have one tensor in each layer, or all one in the model. */
    for (int first = 0, last; first < row_count; first = last) {
        bool per_layer = strstr(rows[first].name, "%d") != NULL;
        for (last = first; last < row_count && (strstr(rows[last].name, "%d") != NULL) == per_layer;) last++;
        for (int layer = 0; layer < (per_layer ? layers : 1); layer++)
            for (int r = first; r < last; r++) {
                const int row_flags = flags(context, &rows[r]);
                if (row_flags == TENSOR_ABSENT) continue;
                Tensor *t = &table.tensors[table.count++];
                *t = tensor_make(&rows[r], layer, table.floats, size, row_flags, context);
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

/* Returns the elements of a tensor as floats. If it is stored as floats, they are those in `memory`, and *copy is NULL.
   If it is stored as bf16, they are in *copy, which the caller frees. */
static inline const float *tensor_values(const Tensor *t, const float *memory, float **copy) {
    *copy = NULL;
    if (!(t->flags & TENSOR_BF16)) return memory + t->offset;
    const Array from = {(void *)(memory + t->offset), DTYPE_BF16};
    *copy = check_calloc(t->count * sizeof(float));
    for (size_t i = 0; i < t->count; i++) (*copy)[i] = array_get(from, (int64_t)i);
    return *copy;
}

static inline void tensors_print(const TensorTable *table, int layers) {
    printf("%-46s %-14s %5s %12s\n", "tensor", "shape", "count", "parameters");
    for (int i = 0; i < table->count; i++) {
        const Tensor *t = &table->tensors[i];
        if (t->layer > 0) continue;
        const int number = t->per_layer ? layers : 1;
        char shape[64], name[64];
        tensor_name(name, t->row, 0, "*");
        snprintf(shape, sizeof shape, t->dimensions == 2 ? "(%lld, %lld)" : "(%lld)", (long long)t->shape[0],
                 (long long)t->shape[1]);
        printf("%-46s %-14s %5d %12lld\n", name, shape, number, (long long)t->count * number);
    }
    printf("%-67s %12lld\n", "all", (long long)table->floats);
}

static inline FloatRange tensor_range(const Tensor *t) {
    return (FloatRange){t->offset, t->offset + t->count};
}

#endif
