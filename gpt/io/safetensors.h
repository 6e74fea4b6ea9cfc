/* safetensors.h: tensors in safetensors files.

   The format (huggingface.co/docs/safetensors): a 64-bit length; a JSON header of that length, which has the dtype of
   each tensor, its shape, and where its numbers begin and end in the data; then the data, the numbers of all tensors,
   little endian and without gaps. The dtypes F32, BF16 and F16 are read, and F32 and BF16 are written. The numbers in
   memory are always floats: every BF16 and F16 has the value of a float, and a float that is written as BF16 is rounded
   (math/array.h). The tensors are written in the order given, and the header is padded with spaces so that the data
   begins at a multiple of 64 bytes.

   A file that cannot be written or read does not end the program (only running out of memory does): the function
   returns false and leaves one sentence in `error` (char[CHECKPOINT_ERROR_SIZE]: what failed, where, what was found,
   what was expected, what to do).

     safetensors_write(path, tensors, count, &sum, error)
                                      writes a file and flushes it to the disk; `sum` gets the checksum (checksum.h)
                                      of its bytes, unless it is NULL
     safetensors_read(path, tensors, count, error)
                                      fills the memory at tensors[i].data, which the caller owns. The file must hold
                                      exactly tensors of these names (or old names), each with this shape, in any order
     safetensors_fits(path, tensors, count, error)
                                      whether safetensors_read could read the file: whether it holds exactly these
                                      tensors. Only the header is read
   Parts of tensors:
     SafetensorsFile f;
     safetensors_open(&f, path, error)   f.entries, in the order of the data, describe the tensors of a file. `path`
                                         must live as long as f
     safetensors_read_floats(&f, entry, first, n, to, error)
                                         n numbers of a tensor as floats, beginning with number `first` (0 is the first)
     safetensors_close(&f)               after safetensors_open, even if it failed */
#ifndef GPT_IO_SAFETENSORS_H
#define GPT_IO_SAFETENSORS_H

#include <inttypes.h>
#include "../math/array.h"
#include "checksum.h"
#include "files.h"
#include "json.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors.h writes numbers as they lie in memory, and safetensors files are little endian"
#endif

enum {
    CHECKPOINT_ERROR_SIZE = FILE_ERROR_SIZE,
    CHECKPOINT_PATH_SIZE = FILE_PATH_SIZE,
    CHECKPOINT_CHUNK = 1 << 20, /* bytes read or written at a time */
    SAFETENSORS_ALIGNMENT = 64,
    SAFETENSORS_MAX_HEADER = 100000000, /* the limit of the format's own library */
    SAFETENSORS_MAX_DIMENSIONS = 4
};
#define SAFETENSORS_MOST 0x1p53 /* whole numbers up to here are exact in JSON */

/* How numbers are stored in a file. */
typedef enum { SAFETENSORS_F32, SAFETENSORS_BF16, SAFETENSORS_F16 } SafetensorsDtype;
static const struct {
    const char *name;
    uint64_t bytes; /* of a number */
} safetensors_dtypes[] = {{"F32", 4}, {"BF16", 2}, {"F16", 2}};
enum { SAFETENSORS_DTYPES = sizeof safetensors_dtypes / sizeof *safetensors_dtypes };

typedef struct {
    const char *name;
    int dimensions; /* 0 to 4; a tensor without dimensions is a single number */
    int64_t shape[SAFETENSORS_MAX_DIMENSIONS];
    float *data;            /* (product of the shape) row-major */
    const char *old_name;   /* a second name under which it may be in a file that is read; NULL or "": none */
    SafetensorsDtype dtype; /* with which it is written, F32 or BF16; a file that is read may have another */
} NamedTensor;

/* ---- numbers of 16 bits ---- */

/* The float with the value of an F16 (IEEE 754 binary16): a sign bit, 5 bits of exponent, 10 bits of fraction. */
static inline float safetensors_float_from_f16(uint16_t x) {
    const uint32_t sign = (uint32_t)(x & 0x8000) << 16, exponent = x >> 10 & 0x1f, fraction = x & 0x3ff;
    uint32_t bits =
        sign | (exponent + 112) << 23 | fraction << 13; /* 112: the difference of the exponents' biases */
    if (exponent == 0x1f) bits = sign | 0x7f800000 | fraction << 13; /* infinity, NaN */
    float value;
    memcpy(&value, &bits, sizeof value);
    if (exponent == 0) value = (sign ? -1.0f : 1.0f) * (float)fraction * 0x1p-24f; /* 0, subnormal */
    return value;
}

/* The floats with the values of n BF16s or F16s. */
static inline void safetensors_widen(float *to, const uint16_t *from, size_t n, SafetensorsDtype dtype) {
    if (dtype == SAFETENSORS_BF16)
        array_read(to, array_of_bf16(from), 0, (int64_t)n);
    else
        for (size_t i = 0; i < n; i++) to[i] = safetensors_float_from_f16(from[i]);
}

/* ---- writing ---- */

/* Writes a shape (ndim) to `text`, which is returned, such as "(3, 4)". */
static inline const char *safetensors_shape_text(char text[128], int ndim, const int64_t *shape) {
    int n = snprintf(text, 128, "(");
    for (int i = 0; i < ndim; i++)
        n += snprintf(text + n, 128 - (size_t)n, i ? ", %" PRId64 : "%" PRId64, shape[i]);
    snprintf(text + n, 128 - (size_t)n, ")");
    return text;
}

/* How many bytes a tensor of this dtype and shape (ndim) has; false when a dimension is negative or the number of bytes
   does not fit into 63 bits. */
static inline bool safetensors_bytes(uint64_t *bytes, SafetensorsDtype dtype, int ndim,
                                     const int64_t *shape) {
    *bytes = safetensors_dtypes[dtype].bytes;
    bool empty = false;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0) return false;
        if (shape[i] == 0)
            empty = true;
        else if (*bytes > (uint64_t)INT64_MAX / (uint64_t)shape[i])
            return false;
        else
            *bytes *= (uint64_t)shape[i];
    }
    if (empty) *bytes = 0;
    return true;
}

/* The first *size bytes of a file: the length of the header, the header and its padding. The caller frees them. NULL,
   with the error set, when a shape is impossible. */
static inline char *safetensors_header(const NamedTensor *tensors, int count, size_t *size, const char *path,
                                       char *error) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(cJSON_AddObjectToObject(json, "__metadata__"), "format", "pt");
    uint64_t offset = 0, bytes;
    bool ok = true;
    for (int i = 0; ok && i < count; i++) {
        const NamedTensor *t = &tensors[i];
        ok = t->dimensions >= 0 && t->dimensions <= SAFETENSORS_MAX_DIMENSIONS &&
             safetensors_bytes(&bytes, t->dtype, t->dimensions, t->shape) &&
             (double)(offset + bytes) <= SAFETENSORS_MOST;
        if (!ok) {
            file_fail(error, "cannot write '%s': tensor '%s' has an impossible shape", path, t->name);
            break;
        }
        cJSON *entry = cJSON_AddObjectToObject(json, t->name);
        cJSON_AddStringToObject(entry, "dtype", safetensors_dtypes[t->dtype].name);
        cJSON *shape = cJSON_AddArrayToObject(entry, "shape");
        for (int k = 0; k < t->dimensions; k++)
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->shape[k]));
        cJSON *offsets = cJSON_AddArrayToObject(entry, "data_offsets");
        cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)offset));
        cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)(offset += bytes)));
    }
    char *text = ok ? cJSON_PrintUnformatted(json) : NULL, *header = NULL;
    cJSON_Delete(json);
    if (text) {
        size_t length = strlen(text), align = SAFETENSORS_ALIGNMENT;
        *size = (8 + length + align - 1) / align * align;
        header = memset(check_calloc(*size), ' ', *size);
        memcpy(header, &(uint64_t){*size - 8}, 8);
        memcpy(header + 8, text, length);
        cJSON_free(text);
    } else if (ok)
        file_fail(error, "cannot write '%s': no memory for its header", path);
    return header;
}

/* Writes bytes in chunks and adds each to the checksum while it is in the processor's cache. */
static inline bool safetensors_put(int file, const void *bytes, size_t size, Checksum *sum, const char *path,
                                   char *error) {
    bool ok = true;
    for (const char *from = bytes; ok && size > 0;) {
        size_t n = size < CHECKPOINT_CHUNK ? size : CHECKPOINT_CHUNK;
        checksum_add(sum, from, n);
        ok = file_write(file, from, n, path, error);
        from += n, size -= n;
    }
    return ok;
}

/* Writes the numbers of a tensor; those of a BF16 tensor are rounded, a chunk at a time. */
static inline bool safetensors_put_tensor(int file, const NamedTensor *t, Checksum *sum, const char *path,
                                          char *error) {
    enum { NUMBERS = CHECKPOINT_CHUNK / 4 };
    uint64_t bytes;
    safetensors_bytes(&bytes, t->dtype, t->dimensions, t->shape);
    if (t->dtype == SAFETENSORS_F32) return safetensors_put(file, t->data, (size_t)bytes, sum, path, error);
    uint16_t *narrow = check_calloc(NUMBERS * sizeof *narrow);
    bool ok = true;
    for (size_t at = 0, count = (size_t)bytes / 2, n; ok && at < count; at += n) {
        n = count - at < NUMBERS ? count - at : NUMBERS;
        array_write(array_of_bf16(narrow), 0, t->data + at, (int64_t)n);
        ok = safetensors_put(file, narrow, n * sizeof *narrow, sum, path, error);
    }
    free(narrow);
    return ok;
}

static inline bool safetensors_write(const char *path, const NamedTensor *tensors, int count, uint64_t *sum,
                                     char *error) {
    size_t size;
    Checksum s = checksum_begin();
    char *header = safetensors_header(tensors, count, &size, path, error);
    int file;
    bool ok = header && file_create(&file, path, error);
    if (ok) {
        ok = safetensors_put(file, header, size, &s, path, error);
        for (int i = 0; ok && i < count; i++) {
            ok = safetensors_put_tensor(file, &tensors[i], &s, path, error);
        }
        ok = file_finish(file, ok, path, error);
    }
    if (sum) *sum = checksum_end(&s);
    free(header);
    return ok;
}

typedef struct {
    const char *name; /* owned by the parsed header, or that of a NamedTensor whose old name the file has */
    SafetensorsDtype dtype;
    int dimensions;
    int64_t shape[SAFETENSORS_MAX_DIMENSIONS];
    uint64_t begin, end; /* the tensor takes the bytes begin to end - 1 of the data */
} SafetensorsEntry;

typedef struct {
    const char *path;
    int file;
    cJSON *header;
    SafetensorsEntry *entries; /* (count) in the order of the data */
    int count;
    uint64_t data_start; /* the byte of the file at which the data begins */
    uint64_t data_size;  /* the number of bytes of the data */
} SafetensorsFile;

static inline void safetensors_close(SafetensorsFile *f) {
    if (f->file >= 0) close(f->file);
    cJSON_Delete(f->header);
    free(f->entries);
}

/* Opens the file, compares the length of the header with the size of the file, and parses the header. */
static inline bool safetensors_parse(SafetensorsFile *f, char *error) {
    struct stat about;
    uint64_t length;
    f->file = file_open(f->path, O_RDONLY, FILE_REGULAR, error);
    if (f->file < 0) return false;
    if (fstat(f->file, &about) != 0)
        return file_fail(error, "cannot read '%s': %s", f->path, strerror(errno));
    uint64_t size = (uint64_t)about.st_size;
    if (size < 8 || file_read_bytes(f->file, &length, 8) != 8)
        return file_fail(error,
                         "'%s' has %" PRIu64 " bytes, a safetensors file has at least 8; it was cut short",
                         f->path, size);
    if (length > SAFETENSORS_MAX_HEADER)
        return file_fail(error,
                         "'%s' is not a safetensors file: it begins with a header length of %" PRIu64
                         ", at most %d is allowed",
                         f->path, length, SAFETENSORS_MAX_HEADER);
    if (length > size - 8)
        return file_fail(error,
                         "'%s' was cut short: its header takes %" PRIu64 " bytes, the file has %" PRIu64,
                         f->path, length + 8, size);
    char *text = check_calloc(length + 1); /* zeroed: the text ends with 0 */
    errno = 0;
    if (file_read_bytes(f->file, text, length) != (int64_t)length) {
        free(text);
        return file_fail(error, "cannot read the header of '%s': %s", f->path,
                         errno ? strerror(errno) : "the file ended early");
    }
    size_t used = 0;
    if (text[0] == '{') f->header = json_parse_at(text, length, &used);
    free(text);
    if (!f->header)
        return file_fail(error,
                         "the header of '%s' is not JSON (byte %zu of %" PRIu64 "); the file is damaged",
                         f->path, used + 8, length + 8);
    f->data_start = 8 + length, f->data_size = size - f->data_start;
    return true;
}

/* Reads and checks one member of the header, the description of one tensor. */
static inline bool safetensors_entry(const SafetensorsFile *f, SafetensorsEntry *e, const cJSON *item,
                                     char *error) {
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype"), *dimension;
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape");
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    int64_t number, begin, end;
    uint64_t bytes;
    char text[128];
    int known = 0;
    e->name = item->string, e->dimensions = 0;
    if (!cJSON_IsString(dtype) || !cJSON_IsArray(shape) || !cJSON_IsArray(offsets) ||
        cJSON_GetArraySize(offsets) != 2)
        return file_fail(
            error, "'%s': the header's entry '%s' lacks dtype, shape or data_offsets; the file is damaged",
            f->path, e->name);
    while (known < SAFETENSORS_DTYPES && strcmp(dtype->valuestring, safetensors_dtypes[known].name) != 0)
        known++;
    if (known == SAFETENSORS_DTYPES)
        return file_fail(
            error, "'%s': tensor '%s' has dtype %.16s, expected F32, BF16 or F16; convert the file first",
            f->path, e->name, dtype->valuestring);
    e->dtype = (SafetensorsDtype)known;
    cJSON_ArrayForEach(dimension, shape) {
        if (e->dimensions == SAFETENSORS_MAX_DIMENSIONS || !json_whole(dimension, SAFETENSORS_MOST, &number))
            return file_fail(error, "'%s': tensor '%s' has a shape that is not 0 to %d whole numbers",
                             f->path, e->name, SAFETENSORS_MAX_DIMENSIONS);
        e->shape[e->dimensions++] = number;
    }
    if (!json_whole(offsets->child, SAFETENSORS_MOST, &begin) ||
        !json_whole(offsets->child->next, SAFETENSORS_MOST, &end) || begin > end ||
        (uint64_t)end > f->data_size)
        return file_fail(error,
                         "'%s': tensor '%s' lies outside the %" PRIu64
                         " bytes of data (data_offsets); the file is damaged or cut short",
                         f->path, e->name, f->data_size);
    e->begin = (uint64_t)begin, e->end = (uint64_t)end;
    if (!safetensors_bytes(&bytes, e->dtype, e->dimensions, e->shape) || bytes != e->end - e->begin)
        return file_fail(error,
                         "'%s': tensor '%s' of shape %s has %" PRIu64
                         " bytes of data, which does not fit; the file is damaged",
                         f->path, e->name, safetensors_shape_text(text, e->dimensions, e->shape),
                         e->end - e->begin);
    return true;
}

static inline int safetensors_by_name(const void *a, const void *b) {
    return strcmp(((const SafetensorsEntry *)a)->name, ((const SafetensorsEntry *)b)->name);
}

static inline int safetensors_by_offset(const void *a, const void *b) {
    const SafetensorsEntry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name); /* empty tensors begin and end at the same byte */
}

/* Also checks the whole header: all names differ, and the tensors cover the data without gaps and overlaps. */
static inline bool safetensors_open(SafetensorsFile *f, const char *path, char *error) {
    *f = (SafetensorsFile){.path = path, .file = -1};
    if (!safetensors_parse(f, error)) return false;
    f->entries = check_calloc((size_t)cJSON_GetArraySize(f->header) * sizeof *f->entries);
    const cJSON *item;
    cJSON_ArrayForEach(item, f->header) {
        if (strcmp(item->string, "__metadata__") == 0) continue;
        if (!safetensors_entry(f, &f->entries[f->count++], item, error)) return false;
    }
    qsort(f->entries, (size_t)f->count, sizeof *f->entries, safetensors_by_name);
    for (int i = 1; i < f->count; i++)
        if (strcmp(f->entries[i - 1].name, f->entries[i].name) == 0)
            return file_fail(error, "'%s' holds tensor '%s' twice; the file is damaged", path,
                             f->entries[i].name);
    qsort(f->entries, (size_t)f->count, sizeof *f->entries, safetensors_by_offset);
    uint64_t covered = 0;
    for (int i = 0; i < f->count; i++) {
        if (f->entries[i].begin != covered)
            return file_fail(error,
                             "'%s': tensor '%s' begins at byte %" PRIu64 " of the data, expected %" PRIu64
                             " (%s); the file is damaged",
                             path, f->entries[i].name, f->entries[i].begin, covered,
                             f->entries[i].begin < covered ? "tensors overlap" : "a gap");
        covered = f->entries[i].end;
    }
    if (covered != f->data_size)
        return file_fail(error, "'%s' has %" PRIu64 " bytes after its last tensor; the file is damaged", path,
                         f->data_size - covered);
    return true;
}

static inline bool safetensors_read_bytes(const SafetensorsFile *f, const SafetensorsEntry *e, uint64_t first,
                                          size_t bytes, void *to, char *error) {
    errno = 0;
    if (lseek(f->file, (off_t)(f->data_start + e->begin + first), SEEK_SET) < 0 ||
        file_read_bytes(f->file, to, bytes) != (int64_t)bytes)
        return file_fail(error, "cannot read tensor '%s' of '%s': %s", e->name, f->path,
                         errno ? strerror(errno) : "the file ended early");
    return true;
}

static inline bool safetensors_read_floats(const SafetensorsFile *f, const SafetensorsEntry *e,
                                           uint64_t first, size_t n, float *to, char *error) {
    const uint64_t size = safetensors_dtypes[e->dtype].bytes;
    if (e->dtype == SAFETENSORS_F32) return safetensors_read_bytes(f, e, first * size, n * size, to, error);
    enum { NUMBERS = CHECKPOINT_CHUNK / 4 };
    uint16_t *narrow = check_calloc(NUMBERS * sizeof *narrow);
    bool ok = true;
    for (size_t at = 0, count; ok && at < n; at += count) {
        count = n - at < NUMBERS ? n - at : NUMBERS;
        ok = safetensors_read_bytes(f, e, (first + at) * size, count * size, narrow, error);
        if (ok) safetensors_widen(to + at, narrow, count, e->dtype);
    }
    free(narrow);
    return ok;
}

/* All numbers of a tensor. */
static inline bool safetensors_read_data(const SafetensorsFile *f, const SafetensorsEntry *e, float *data,
                                         char *error) {
    const uint64_t size = safetensors_dtypes[e->dtype].bytes;
    return safetensors_read_floats(f, e, 0, (size_t)((e->end - e->begin) / size), data, error);
}

/* Whether an entry of the file and a tensor of the model have the same name and shape. The caller walks through both
   lists side by side, each sorted by name; NULL: that list has ended. */
static inline bool safetensors_match(const SafetensorsFile *f, const SafetensorsEntry *have,
                                     const NamedTensor *want, char *error) {
    char found[128], expected[128];
    int order = !have ? 1 : !want ? -1 : strcmp(have->name, want->name);
    if (order > 0)
        return file_fail(error, "'%s' has no tensor '%s'; it belongs to a model with other options", f->path,
                         want->name);
    if (order < 0)
        return file_fail(error,
                         "'%s' holds tensor '%s', which this model does not have; it belongs to a model "
                         "with other options",
                         f->path, have->name);
    if (have->dimensions != want->dimensions ||
        memcmp(have->shape, want->shape, (size_t)want->dimensions * sizeof *want->shape) != 0)
        return file_fail(
            error, "'%s': tensor '%s' has shape %s, expected %s; it belongs to a model with other options",
            f->path, have->name, safetensors_shape_text(found, have->dimensions, have->shape),
            safetensors_shape_text(expected, want->dimensions, want->shape));
    return true;
}

static inline int safetensors_tensor_by_name(const void *a, const void *b) {
    return strcmp((*(NamedTensor *const *)a)->name, (*(NamedTensor *const *)b)->name);
}

static inline int safetensors_tensor_by_old_name(const void *a, const void *b) {
    const char *x = (*(NamedTensor *const *)a)->old_name, *y = (*(NamedTensor *const *)b)->old_name;
    return strcmp(x ? x : "", y ? y : "");
}

/* Gives each entry that has the old name of a tensor the tensor's name. `want` (count) is left in another order. */
static inline void safetensors_rename_old(SafetensorsFile *f, NamedTensor **want, int count) {
    qsort(want, (size_t)count, sizeof *want, safetensors_tensor_by_old_name);
    for (int i = 0; i < f->count; i++) {
        const NamedTensor *key = &(NamedTensor){.old_name = f->entries[i].name};
        NamedTensor *const *found =
            bsearch(&key, want, (size_t)count, sizeof *want, safetensors_tensor_by_old_name);
        if (found && *f->entries[i].name) f->entries[i].name = (*found)->name;
    }
}

/* Opens a file that must hold exactly these tensors. Afterwards f->entries and *want, an array (count) of pointers to
   the tensors that the caller frees, are both in the order of the names. */
static inline bool safetensors_open_as(SafetensorsFile *f, const char *path, NamedTensor *tensors, int count,
                                       NamedTensor ***want, char *error) {
    bool ok = safetensors_open(f, path, error);
    *want = check_calloc((size_t)count * sizeof(NamedTensor *));
    for (int i = 0; i < count; i++) (*want)[i] = &tensors[i];
    if (ok) safetensors_rename_old(f, *want, count);
    qsort(*want, (size_t)count, sizeof **want, safetensors_tensor_by_name);
    if (ok) qsort(f->entries, (size_t)f->count, sizeof *f->entries, safetensors_by_name);
    for (int i = 0; ok && i < (f->count > count ? f->count : count); i++)
        ok = safetensors_match(f, i < f->count ? &f->entries[i] : NULL, i < count ? (*want)[i] : NULL, error);
    return ok;
}

static inline bool safetensors_fits(const char *path, NamedTensor *tensors, int count, char *error) {
    SafetensorsFile f;
    NamedTensor **want;
    bool ok = safetensors_open_as(&f, path, tensors, count, &want, error);
    free(want);
    safetensors_close(&f);
    return ok;
}

static inline bool safetensors_read(const char *path, NamedTensor *tensors, int count, char *error) {
    SafetensorsFile f;
    NamedTensor **want;
    /* All names and shapes are compared first: a wrong file changes no tensor. */
    bool ok = safetensors_open_as(&f, path, tensors, count, &want, error);
    for (int i = 0; ok && i < count; i++) ok = safetensors_read_data(&f, &f.entries[i], want[i]->data, error);
    free(want);
    safetensors_close(&f);
    return ok;
}

#endif
