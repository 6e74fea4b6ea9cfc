/* optimizer_state.h: the optimizer's state in a checkpoint: AdamW's first and second moment, m and v, of every
   parameter.

   Each rank keeps the moments of some ranges of the vector of all parameters (a shard, see dist/sharded_optimizer.h),
   and writes them to a file of its own, a part: optimizer-00000-of-00002.safetensors and so on. A part has, for both
   moments, a tensor for each parameter tensor: "mean.NAME" for m and "square.NAME" for v, with the shape of the
   parameter tensor. Of a parameter tensor that lies in this rank's ranges only in part, there is the piece
   "mean.NAME[begin:end]": elements begin to end - 1. So the names say what each part holds, and any number of ranks can
   read what any other number of ranks wrote.

     moments_part_name(name, part, parts)   the name of part number `part`, from 0
     moments_write(folder, part, parts, &moments, &sum, error)   writes this rank's part; sum: the checksum of its bytes
     moments_read(folder, parts, &moments, error)   fills m and v from whichever parts hold their elements; checks that
                                                    the parts hold every parameter exactly once
   All memory is the caller's. As in safetensors.h, a function that fails returns false and writes a sentence to
   error. */
#ifndef GPT_IO_OPTIMIZER_STATE_H
#define GPT_IO_OPTIMIZER_STATE_H

#include "safetensors.h"
#include "../math/tensor_table.h"

typedef struct {
    const TensorTable *parameters;
    const FloatRange *ranges; /* (range_count) in ascending order, without overlap */
    int range_count;
    float *m, *v; /* the elements of first and second moment in these ranges, one range after the other */
} Moments;

enum { MOMENTS_NAME_SIZE = 160 };
/* The first moment is called "mean" in files, the second "square". */
static const char *const moments_prefixes[2] = {"mean.", "square."};

static inline void moments_part_name(char name[64], int part, int parts) {
    snprintf(name, 64, "optimizer-%05d-of-%05d.safetensors", part, parts);
}

/* Lists, for one moment, the tensors and pieces of tensors that lie in the ranges: pieces and their names (both have
   room for parameters->count + range_count). kind: index of moments_prefixes; data: the moment, as m and v. The pieces
   point into data. Returns their number. */
static inline int moments_pieces(const Moments *moments, int kind, float *data, NamedTensor *pieces,
                                 char (*names)[MOMENTS_NAME_SIZE]) {
    int count = 0;
    for (int r = 0; r < moments->range_count; data += moments->ranges[r].end - moments->ranges[r].begin, r++)
        for (int i = 0; i < moments->parameters->count; i++) {
            const Tensor *t = &moments->parameters->tensors[i];
            FloatRange piece = range_intersection(moments->ranges[r], tensor_range(t));
            size_t floats = piece.end - piece.begin;
            if (floats == 0) continue;
            NamedTensor *to = &pieces[count];
            *to =
                (NamedTensor){.name = names[count], .data = data + (piece.begin - moments->ranges[r].begin)};
            if (floats == t->count) {
                to->dimensions = t->dimensions, to->shape[0] = t->shape[0], to->shape[1] = t->shape[1];
                snprintf(names[count], MOMENTS_NAME_SIZE, "%s%s", moments_prefixes[kind], t->name);
            } else {
                to->dimensions = 1, to->shape[0] = (int64_t)floats;
                snprintf(names[count], MOMENTS_NAME_SIZE, "%s%s[%zu:%zu]", moments_prefixes[kind], t->name,
                         piece.begin - t->offset, piece.end - t->offset);
            }
            count++;
        }
    return count;
}

static inline bool moments_write(const char *folder, int part, int parts, const Moments *moments,
                                 uint64_t *sum, char *error) {
    const size_t most = 2 * (size_t)(moments->parameters->count + moments->range_count);
    NamedTensor *pieces = check_calloc(most * sizeof *pieces);
    char(*names)[MOMENTS_NAME_SIZE] = check_calloc(most * sizeof *names), name[64],
    path[CHECKPOINT_PATH_SIZE];
    moments_part_name(name, part, parts);
    int count = moments_pieces(moments, 0, moments->m, pieces, names);
    count += moments_pieces(moments, 1, moments->v, pieces + count, names + count);
    bool ok = file_join(path, folder, name, error) && safetensors_write(path, pieces, count, sum, error);
    free(names);
    free(pieces);
    return ok;
}

/* ---- reading ---- */

/* Which elements of which moment a tensor of a part holds. */
typedef struct {
    int kind; /* index of moments_prefixes */
    FloatRange range;
} MomentsPlace;

typedef struct {
    MomentsPlace *places; /* (count, memory for room) of all tensors of all parts so far */
    int count, room;
    int tensor; /* the parameter tensor found last; the search begins there, as files mostly follow the table's order */
} MomentsReader;

static inline bool moments_name_is(const char *name, const char *begin, size_t length) {
    return length > 0 && strlen(name) == length && strncmp(name, begin, length) == 0;
}

/* Finds the place of a tensor of a part from its name, for example "square.model.embed_tokens.weight" or
   "mean.model.layers.0.self_attn.q_proj.weight[0:77]", and checks its shape. The name may be an old one. */
static inline bool moments_locate(MomentsReader *reader, const TensorTable *parameters,
                                  const SafetensorsFile *f, const SafetensorsEntry *e, MomentsPlace *place,
                                  char *error) {
    char found[128], expected[128];
    place->kind = strncmp(e->name, "mean.", 5) == 0 ? 0 : strncmp(e->name, "square.", 7) == 0 ? 1 : -1;
    const char *name = place->kind < 0 ? "" : e->name + strlen(moments_prefixes[place->kind]);
    const size_t length = strcspn(name, "[");
    const Tensor *t = NULL;
    for (int i = 0; i < parameters->count && !t; i++) {
        int at = (reader->tensor + i) % parameters->count;
        const Tensor *candidate = &parameters->tensors[at];
        if (!moments_name_is(candidate->name, name, length) &&
            !moments_name_is(candidate->old_name, name, length))
            continue;
        t = candidate, reader->tensor = at;
    }
    if (!t)
        return file_fail(
            error,
            "'%s' holds '%s', which this model does not have; it belongs to a model with other options",
            f->path, e->name);
    size_t begin = 0, end = t->count;
    char bracket = ']', after = 0;
    bool piece = name[length] == '[';
    bool fits = piece ? sscanf(name + length, "[%zu:%zu%c%c", &begin, &end, &bracket, &after) == 3 &&
                            bracket == ']' && begin < end && end <= t->count && e->dimensions == 1 &&
                            (size_t)e->shape[0] == end - begin
                      : e->dimensions == t->dimensions &&
                            memcmp(e->shape, t->shape, (size_t)t->dimensions * sizeof *t->shape) == 0;
    if (!fits)
        return file_fail(
            error, "'%s': '%s' has shape %s, the model's tensor %s; it belongs to a model with other options",
            f->path, e->name, safetensors_shape_text(found, e->dimensions, e->shape),
            safetensors_shape_text(expected, t->dimensions, t->shape));
    place->range = (FloatRange){t->offset + begin, t->offset + end};
    return true;
}

static inline void moments_remember(MomentsReader *reader, MomentsPlace place) {
    if (reader->count == reader->room) {
        reader->room = reader->room ? 2 * reader->room : 256;
        MomentsPlace *larger = check_calloc((size_t)reader->room * sizeof *larger);
        if (reader->count) memcpy(larger, reader->places, (size_t)reader->count * sizeof *larger);
        free(reader->places);
        reader->places = larger;
    }
    reader->places[reader->count++] = place;
}

/* Copies those elements of a tensor of a part that lie in the ranges of *moments. */
static inline bool moments_take(const Moments *moments, const SafetensorsFile *f, const SafetensorsEntry *e,
                                MomentsPlace place, char *error) {
    float *to = place.kind ? moments->v : moments->m;
    for (int r = 0; r < moments->range_count; to += moments->ranges[r].end - moments->ranges[r].begin, r++) {
        FloatRange both = range_intersection(moments->ranges[r], place.range);
        if (both.begin < both.end &&
            !safetensors_read_floats(f, e, both.begin - place.range.begin, both.end - both.begin,
                                     to + (both.begin - moments->ranges[r].begin), error))
            return false;
    }
    return true;
}

static inline bool moments_read_part(MomentsReader *reader, const char *path, const Moments *moments,
                                     char *error) {
    SafetensorsFile f;
    bool ok = safetensors_open(&f, path, error);
    for (int i = 0; ok && i < f.count; i++) {
        MomentsPlace place = {0};
        ok = moments_locate(reader, moments->parameters, &f, &f.entries[i], &place, error) &&
             moments_take(moments, &f, &f.entries[i], place, error);
        if (ok) moments_remember(reader, place);
    }
    safetensors_close(&f);
    return ok;
}

static inline int moments_by_place(const void *a, const void *b) {
    const MomentsPlace *x = a, *y = b;
    if (x->kind != y->kind) return x->kind - y->kind;
    return (x->range.begin > y->range.begin) - (x->range.begin < y->range.begin);
}

/* Checks that the parts hold every element of both moments exactly once. Parts of different checkpoints, mixed in one
   folder, usually do not. */
static inline bool moments_check_cover(MomentsReader *reader, const Moments *moments, const char *folder,
                                       char *error) {
    if (reader->count) qsort(reader->places, (size_t)reader->count, sizeof *reader->places, moments_by_place);
    int at = 0;
    for (int kind = 0; kind < 2; kind++) {
        size_t covered = 0;
        for (; at < reader->count && reader->places[at].kind == kind; at++) {
            if (reader->places[at].range.begin != covered) break;
            covered = reader->places[at].range.end;
        }
        if (covered == moments->parameters->floats) continue;
        return file_fail(
            error,
            "the optimizer's parts in '%s' do not belong together: number %zu of %zu of '%.*s' is %s; resume "
            "from another checkpoint",
            folder, covered, moments->parameters->floats, (int)strlen(moments_prefixes[kind]) - 1,
            moments_prefixes[kind],
            at < reader->count && reader->places[at].kind == kind && reader->places[at].range.begin < covered
                ? "there twice"
                : "missing");
    }
    return true;
}

static inline bool moments_read(const char *folder, int parts, const Moments *moments, char *error) {
    MomentsReader reader = {0};
    bool ok = true;
    for (int part = 0; ok && part < parts; part++) {
        char name[64], path[CHECKPOINT_PATH_SIZE];
        moments_part_name(name, part, parts);
        ok = file_join(path, folder, name, error) && moments_read_part(&reader, path, moments, error);
    }
    ok = ok && moments_check_cover(&reader, moments, folder, error);
    free(reader.places);
    return ok;
}

#endif
