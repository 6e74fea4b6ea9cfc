/* optimizer_state.h: the optimizer's state on disk, in parts.

   The state, two moments of every parameter, lies in optimizer-00000-of-00002.safetensors and its like: a part for each
   process that holds some of it. A process holds ranges of the vector of all parameters; its part has, for both moments,
   each tensor that lies in one range under "mean.NAME" with its shape, and of a tensor that is cut the piece
   "mean.NAME[begin:end]", elements begin to end of it. So a part explains itself, and any number of processes can read
   what any other number wrote.

     moments_write(folder, part, parts, &moments, &sum, error)   this process's part, and the sum of its bytes
     moments_read(folder, parts, &moments, error)   fills mean and square from whichever parts hold them; checks that the parts
                                                    cover every parameter once
   As in safetensors.h, failing is returning false with a sentence in error. */
#ifndef GPT_IO_OPTIMIZER_STATE_H
#define GPT_IO_OPTIMIZER_STATE_H

#include "safetensors.h"
#include "../math/tensor_table.h"

typedef struct {
    const TensorTable *parameters;
    const FloatRange *ranges; /* (range_count) ascending, none of them meets another */
    int range_count;
    float *mean, *square; /* the ranges' floats, one range after the other */
} Moments;

enum { MOMENTS_NAME_SIZE = 160 };
static const char *const moments_kinds[2] = {"mean.", "square."};

static inline void moments_part_name(char name[64], int part, int parts) {
    snprintf(name, 64, "optimizer-%05d-of-%05d.safetensors", part, parts);
}

/* The tensors and pieces of tensors that the ranges hold of one moment, whose floats are `data`, appended to `pieces`;
   returns their number. */
static inline int moments_pieces(const Moments *m, int kind, float *data, NamedTensor *pieces,
                                 char (*names)[MOMENTS_NAME_SIZE]) {
    int count = 0;
    for (int r = 0; r < m->range_count; data += m->ranges[r].end - m->ranges[r].begin, r++)
        for (int i = 0; i < m->parameters->count; i++) {
            const Tensor *t = &m->parameters->tensors[i];
            FloatRange piece = range_meet(m->ranges[r], tensor_range(t));
            size_t floats = piece.end - piece.begin;
            if (floats == 0) continue;
            NamedTensor *to = &pieces[count];
            *to = (NamedTensor){.name = names[count], .data = data + (piece.begin - m->ranges[r].begin)};
            if (floats == t->count) {
                to->rank = t->rank, to->shape[0] = t->shape[0], to->shape[1] = t->shape[1];
                snprintf(names[count], MOMENTS_NAME_SIZE, "%s%s", moments_kinds[kind], t->name);
            } else {
                to->rank = 1, to->shape[0] = (int64_t)floats;
                snprintf(names[count], MOMENTS_NAME_SIZE, "%s%s[%zu:%zu]", moments_kinds[kind], t->name,
                         piece.begin - t->offset, piece.end - t->offset);
            }
            count++;
        }
    return count;
}

static inline bool moments_write(const char *folder, int part, int parts, const Moments *m, uint64_t *sum,
                                 char *error) {
    const size_t most = 2 * (size_t)(m->parameters->count + m->range_count);
    NamedTensor *pieces = check_calloc(most * sizeof *pieces);
    char(*names)[MOMENTS_NAME_SIZE] = check_calloc(most * sizeof *names), name[64],
    path[CHECKPOINT_PATH_SIZE];
    moments_part_name(name, part, parts);
    int count = moments_pieces(m, 0, m->mean, pieces, names);
    count += moments_pieces(m, 1, m->square, pieces + count, names + count);
    bool ok = file_join(path, folder, name, error) && safetensors_write(path, pieces, count, sum, error);
    free(names);
    free(pieces);
    return ok;
}

/* ---- reading ---- */

typedef struct {
    int kind; /* of moments_kinds */
    FloatRange range;
} MomentsPlace;

typedef struct {
    MomentsPlace *places;    /* (count) of all that was met in the parts */
    int count, room, tensor; /* the tensor met last: the next one mostly follows it */
} MomentsReader;

/* Which floats of which moment an entry of a part holds: "square.embed.weight", "mean.layers.0.attn.q.weight[0:77]". */
static inline bool moments_locate(MomentsReader *reader, const TensorTable *parameters,
                                  const SafetensorsFile *f, const SafetensorsEntry *e, MomentsPlace *place,
                                  char *error) {
    char found[128], expected[128];
    place->kind = strncmp(e->name, "mean.", 5) == 0 ? 0 : strncmp(e->name, "square.", 7) == 0 ? 1 : -1;
    const char *name = place->kind < 0 ? "" : e->name + strlen(moments_kinds[place->kind]);
    const size_t length = strcspn(name, "[");
    const Tensor *t = NULL;
    for (int i = 0; i < parameters->count && !t; i++) {
        int at = (reader->tensor + i) % parameters->count;
        const Tensor *candidate = &parameters->tensors[at];
        if (strlen(candidate->name) != length || strncmp(candidate->name, name, length) != 0) continue;
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
    bool fits =
        piece
            ? sscanf(name + length, "[%zu:%zu%c%c", &begin, &end, &bracket, &after) == 3 && bracket == ']' &&
                  begin < end && end <= t->count && e->rank == 1 && (size_t)e->shape[0] == end - begin
            : e->rank == t->rank && memcmp(e->shape, t->shape, (size_t)t->rank * sizeof *t->shape) == 0;
    if (!fits)
        return file_fail(
            error, "'%s': '%s' has shape %s, the model's tensor %s; it belongs to a model with other options",
            f->path, e->name, safetensors_shape_text(found, e->rank, e->shape),
            safetensors_shape_text(expected, t->rank, t->shape));
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

/* The floats of one entry that the ranges want. */
static inline bool moments_take(const Moments *m, const SafetensorsFile *f, const SafetensorsEntry *e,
                                MomentsPlace place, char *error) {
    float *to = place.kind ? m->square : m->mean;
    for (int r = 0; r < m->range_count; to += m->ranges[r].end - m->ranges[r].begin, r++) {
        FloatRange both = range_meet(m->ranges[r], place.range);
        if (both.begin < both.end &&
            !safetensors_read_floats(f, e, both.begin - place.range.begin, both.end - both.begin,
                                     to + (both.begin - m->ranges[r].begin), error))
            return false;
    }
    return true;
}

static inline bool moments_read_part(MomentsReader *reader, const char *path, const Moments *m, char *error) {
    SafetensorsFile f;
    bool ok = safetensors_open(&f, path, error);
    for (int i = 0; ok && i < f.count; i++) {
        MomentsPlace place = {0};
        ok = moments_locate(reader, m->parameters, &f, &f.entries[i], &place, error) &&
             moments_take(m, &f, &f.entries[i], place, error);
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

/* Every float of both moments once: parts of different checkpoints do not. */
static inline bool moments_check_cover(MomentsReader *reader, const Moments *m, const char *folder,
                                       char *error) {
    if (reader->count) qsort(reader->places, (size_t)reader->count, sizeof *reader->places, moments_by_place);
    int at = 0;
    for (int kind = 0; kind < 2; kind++) {
        size_t covered = 0;
        for (; at < reader->count && reader->places[at].kind == kind; at++) {
            if (reader->places[at].range.begin != covered) break;
            covered = reader->places[at].range.end;
        }
        if (covered == m->parameters->floats) continue;
        return file_fail(
            error,
            "the optimizer's parts in '%s' do not belong together: number %zu of %zu of '%.*s' is %s; resume "
            "from another checkpoint",
            folder, covered, m->parameters->floats, (int)strlen(moments_kinds[kind]) - 1, moments_kinds[kind],
            at < reader->count && reader->places[at].kind == kind && reader->places[at].range.begin < covered
                ? "there twice"
                : "missing");
    }
    return true;
}

static inline bool moments_read(const char *folder, int parts, const Moments *m, char *error) {
    MomentsReader reader = {0};
    bool ok = true;
    for (int part = 0; ok && part < parts; part++) {
        char name[64], path[CHECKPOINT_PATH_SIZE];
        moments_part_name(name, part, parts);
        ok = file_join(path, folder, name, error) && moments_read_part(&reader, path, m, error);
    }
    ok = ok && moments_check_cover(&reader, m, folder, error);
    free(reader.places);
    return ok;
}

#endif
