/* attention_measure.h: how a causal attention distributes its weights, and how large the gradient is that it passes to
   its scores: sums from which gpt/run/analysis.h computes the numbers of docs/analysis.md.

   attention_measure(sums, kind, q, k, v, dout, unit, &shape)
                               adds all rows of the call to sums (H), one for each head. The arrays are those that
                               attention_backward (attention.h) gets; dout is divided by `unit` first
   attention_is_measured(kind) whether the formulas below are those of the kind; attention_measure dies for another
   attention_sums_empty()      the sums of no row
   attention_sums_add(to, from)   adds sums to each other, for example those of the heads of a layer

   The letters are those of laser.h: s_ij is the score of query i and key j <= i, a_ij = exp(s_ij) / sum_j exp(s_ij) its
   attention weight, do_id the gradient of the output, divided by `unit`. Keys j > i are not visible and never counted.

   The gradient of a score is ds_ij = sum_d do_id J_ijd, where J_ijd = d o_id / d s_ij is row i's Jacobian:
       standard   o_id = sum_j a_ij v_jd              J_ijd = a_ij (v_jd - o_id)
       LASER      o_id = log sum_j a_ij exp(v_jd)     J_ijd = a_ij (exp(v_jd - o_id) - 1) = p_ijd - a_ij
   because d a_il / d s_ij = a_il ([l = j] - a_ij). The second line is laser.h's ds_ij, with p_ijd = a_ij exp(v_jd -
   o_id). Both Jacobians are computed from the same q, k and v, whichever kind the model has. A standard J_ijd is small
   where a_ij is near 0, and where it is near 1, because o_id is then near v_jd. LASER's is larger by about the factor
   (exp(x) - 1) / x with x = v_jd - o_id, which is 1 for small x and grows with it.

   Everything is computed in double from the float32 arrays, in the order of the tokens, so the result has the same bits
   for any number of threads. Time grows with T*T*H*D, as that of attention; there is no array of size T*T. */
#ifndef GPT_MATH_ATTENTION_MEASURE_H
#define GPT_MATH_ATTENTION_MEASURE_H

#include <math.h>
#include <stdbool.h>
#include "../base/check.h"
#include "../base/profile.h"
#include "attention.h"

/* Bin number n of the histogram holds the weights from 10^-(n+1) to below 10^-n; bin 0 also 1 itself, and the last one
   all below 10^-10. */
enum { ATTENTION_DECADES = 10, ATTENTION_BINS = ATTENTION_DECADES + 1 };
enum { JACOBIAN_STANDARD, JACOBIAN_LASER, JACOBIANS };

typedef struct {
    double pairs;                /* (i, j) with j <= i */
    double bins[ATTENTION_BINS]; /* of the pairs: how many have an a_ij in each decade */
    /* Of the pairs in each decade: the sum of sum_d J_ijd^2. */
    double bin_jacobians[JACOBIANS][ATTENTION_BINS];
    double largest_score;   /* of all s_ij */
    double score_gradients; /* sum of ds_ij^2 */
    /* Of the rows i >= 1: row 0 sees one key, so it has nothing to choose. */
    double rows;
    double entropy;              /* sum of -sum_j a_ij log a_ij */
    double entropy_share;        /* sum of the same divided by log(i + 1), the largest that it can be */
    double jacobians[JACOBIANS]; /* sum of sqrt(sum_jd J_ijd^2) */
    /* Of LASER's p_ijd, whichever kind the model has. */
    double p_count, p_below_1e3, p_below_1e7; /* how many there are, those below 1e-3 and below 1e-7 */
    double v_count, v_sum, v_squares, v_min, v_max;
    double v_range; /* the largest of max_j v_jd - min_j v_jd over all columns d and sequences */
} AttentionSums;

static inline AttentionSums attention_sums_empty(void) {
    return (AttentionSums){.largest_score = -INFINITY, .v_min = INFINITY, .v_max = -INFINITY};
}

static inline void attention_sums_add(AttentionSums *to, const AttentionSums *from) {
    to->pairs += from->pairs, to->rows += from->rows;
    for (int n = 0; n < JACOBIANS; n++) to->jacobians[n] += from->jacobians[n];
    for (int bin = 0; bin < ATTENTION_BINS; bin++) {
        to->bins[bin] += from->bins[bin];
        for (int n = 0; n < JACOBIANS; n++) to->bin_jacobians[n][bin] += from->bin_jacobians[n][bin];
    }
    to->largest_score = fmax(to->largest_score, from->largest_score);
    to->score_gradients += from->score_gradients;
    to->entropy += from->entropy, to->entropy_share += from->entropy_share;
    to->p_count += from->p_count, to->p_below_1e3 += from->p_below_1e3, to->p_below_1e7 += from->p_below_1e7;
    to->v_count += from->v_count, to->v_sum += from->v_sum, to->v_squares += from->v_squares;
    to->v_min = fmin(to->v_min, from->v_min), to->v_max = fmax(to->v_max, from->v_max);
    to->v_range = fmax(to->v_range, from->v_range);
}

/* One head of one sequence, and work memory for a row of it. */
typedef struct {
    int T, D;
    double softcap;       /* 0: none */
    double *k, *v;        /* (T, D) */
    double *exp_v;        /* (T, D) exp(v_jd - most_d), unless `wide` */
    double *most;         /* (D) the largest v_jd of the sequence */
    double *row_most;     /* (D) with `wide`: the largest v_jd that the row sees */
    bool wide;            /* exp(v_jd - most_d) could be 0: each row computes exponentials of its own */
    double *a, *log_a;    /* (T) of the row */
    double *q, *d_out;    /* (D) of the row */
    double *o[JACOBIANS]; /* (D) what either kind of attention returns for the row */
    double *factor;       /* (D) exp(most_d - o_id) with LASER's o; with `wide` 1 */
    double *row_exp;      /* (D) with `wide`: exp(v_jd - o_id) of one key j */
    double *memory;       /* all of these arrays */
} MeasuredHead;

static inline MeasuredHead measured_head_create(int T, int D) {
    MeasuredHead m = {.T = T, .D = D};
    const size_t per_key = (size_t)T * (size_t)D;
    double **of_keys[] = {&m.k, &m.v, &m.exp_v}, **of_row[] = {&m.a, &m.log_a};
    double **of_columns[] = {&m.most, &m.row_most, &m.q, &m.d_out, &m.o[0], &m.o[1], &m.factor, &m.row_exp};
    double *next = m.memory =
        (double *)check_calloc((3 * per_key + 2 * (size_t)T + 8 * (size_t)D) * sizeof *next);
    for (int i = 0; i < 3; i++, next += per_key) *of_keys[i] = next;
    for (int i = 0; i < 2; i++, next += T) *of_row[i] = next;
    for (int i = 0; i < 8; i++, next += D) *of_columns[i] = next;
    return m;
}

/* Takes over the keys and values of a head, which begin at k and v, and adds what is known of the values. */
static inline void measure_values(MeasuredHead *m, AttentionSums *sums, const float *k, const float *v,
                                  ptrdiff_t row) {
    const int T = m->T, D = m->D;
    m->wide = false;
    for (int d = 0; d < D; d++) {
        double least = v[d];
        m->most[d] = m->row_most[d] = v[d];
        for (int t = 0; t < T; t++) {
            const double x = m->v[t * D + d] = v[t * row + d];
            m->k[t * D + d] = k[t * row + d];
            m->most[d] = fmax(m->most[d], x), least = fmin(least, x);
            sums->v_sum += x, sums->v_squares += x * x, sums->v_count++;
        }
        sums->v_max = fmax(sums->v_max, m->most[d]), sums->v_min = fmin(sums->v_min, least);
        sums->v_range = fmax(sums->v_range, m->most[d] - least);
        m->wide = m->wide || !(m->most[d] - least < 600); /* exp(-600) is far from double's smallest number */
    }
    for (int t = 0; t < T && !m->wide; t++)
        for (int d = 0; d < D; d++) m->exp_v[t * D + d] = exp(m->v[t * D + d] - m->most[d]);
}

/* The bin of a weight, whose logarithm is log_a. A NaN belongs to the last one. */
static inline int attention_bin(double log_a) {
    const double decades = -log_a / 2.302585092994046;
    return decades < ATTENTION_DECADES ? decades < 0 ? 0 : (int)decades : ATTENTION_DECADES;
}

/* a_ij and log a_ij of row i; adds its histogram, its entropy and its largest score. */
static inline void measure_weights(MeasuredHead *m, AttentionSums *sums, int i) {
    const double scale = 1 / sqrt(m->D);
    double largest = -INFINITY, sum = 0, entropy = 0;
    for (int j = 0; j <= i; j++) {
        const double *k = m->k + (ptrdiff_t)j * m->D;
        double score = 0;
#pragma omp simd reduction(+ : score)
        for (int d = 0; d < m->D; d++) score += m->q[d] * k[d];
        m->log_a[j] = m->softcap > 0 ? m->softcap * tanh(score * scale / m->softcap) : score * scale;
        largest = fmax(largest, m->log_a[j]);
    }
    for (int j = 0; j <= i; j++) sum += exp(m->log_a[j] - largest);
    const double lse = largest + log(sum);
    for (int j = 0; j <= i; j++) {
        m->log_a[j] -= lse, m->a[j] = exp(m->log_a[j]);
        sums->bins[attention_bin(m->log_a[j])]++;
        entropy -= m->a[j] * m->log_a[j];
    }
    sums->pairs += i + 1;
    sums->largest_score = fmax(sums->largest_score, largest);
    if (i == 0) return;
    sums->rows++;
    sums->entropy += entropy, sums->entropy_share += entropy / log(i + 1.0);
}

/* The outputs of row i of both kinds of attention. */
static inline void measure_outputs(MeasuredHead *m, int i) {
    const int D = m->D;
    double *o = m->o[JACOBIAN_STANDARD], *laser = m->o[JACOBIAN_LASER];
    const double *shift = m->wide ? m->row_most : m->most;
    for (int d = 0; d < D; d++) o[d] = laser[d] = 0;
    for (int d = 0; d < D; d++) m->row_most[d] = fmax(m->row_most[d], m->v[i * D + d]);
    for (int j = 0; j <= i; j++) {
        const double a = m->a[j], *v = m->v + (ptrdiff_t)j * D, *exp_v = m->exp_v + (ptrdiff_t)j * D;
        for (int d = 0; d < D; d++) o[d] += a * v[d];
        if (m->wide)
            for (int d = 0; d < D; d++) laser[d] += a * exp(v[d] - shift[d]);
        else
            for (int d = 0; d < D; d++) laser[d] += a * exp_v[d];
    }
    for (int d = 0; d < D; d++) laser[d] = log(laser[d]) + shift[d];
    for (int d = 0; d < D; d++) m->factor[d] = m->wide ? 1 : exp(m->most[d] - laser[d]);
}

/* Of one pair (i, j): sums over d of J_ijd^2 and of do_id J_ijd, for both kinds, and how many p_ijd are small. */
typedef struct {
    double squares[JACOBIANS], dots[JACOBIANS];
    double p_below_1e3, p_below_1e7;
} MeasuredPair;

static inline MeasuredPair measure_pair(MeasuredHead *m, int j) {
    const int D = m->D;
    const double a = m->a[j], *v = m->v + (ptrdiff_t)j * D, *o = m->o[JACOBIAN_STANDARD], *d_out = m->d_out;
    const double *exp_v = m->exp_v + (ptrdiff_t)j * D,
                 *factor = m->factor; /* exp(v_jd - o_id) is their product */
    double squares = 0, dot = 0, laser_squares = 0, laser_dot = 0, below_1e3 = 0, below_1e7 = 0;
    if (m->wide) {
        for (int d = 0; d < D; d++) m->row_exp[d] = exp(v[d] - m->o[JACOBIAN_LASER][d]);
        exp_v = m->row_exp;
    }
#pragma omp simd reduction(+ : squares, dot, laser_squares, laser_dot, below_1e3, below_1e7)
    for (int d = 0; d < D; d++) {
        const double p = a * exp_v[d] * factor[d];
        const double J = a * (v[d] - o[d]), laser_J = p - a;
        squares += J * J, dot += d_out[d] * J;
        laser_squares += laser_J * laser_J, laser_dot += d_out[d] * laser_J;
        below_1e3 += p < 1e-3 ? 1.0 : 0.0, below_1e7 += p < 1e-7 ? 1.0 : 0.0;
    }
    return (MeasuredPair){{squares, laser_squares}, {dot, laser_dot}, below_1e3, below_1e7};
}

/* Adds the Jacobians of row i, its ds_ij, and the sizes of its p_ijd. `own` is the Jacobian of the model's own kind. */
static inline void measure_jacobians(MeasuredHead *m, AttentionSums *sums, int i, int own) {
    double squares[JACOBIANS] = {0};
    for (int j = 0; j <= i; j++) {
        const MeasuredPair pair = measure_pair(m, j);
        const int bin = attention_bin(m->log_a[j]);
        for (int n = 0; n < JACOBIANS; n++) {
            squares[n] += pair.squares[n];
            sums->bin_jacobians[n][bin] += pair.squares[n];
        }
        sums->score_gradients += pair.dots[own] * pair.dots[own];
        sums->p_below_1e3 += pair.p_below_1e3, sums->p_below_1e7 += pair.p_below_1e7, sums->p_count += m->D;
    }
    for (int n = 0; n < JACOBIANS && i > 0; n++) sums->jacobians[n] += sqrt(squares[n]);
}

static inline bool attention_is_measured(AttentionKind kind) {
    return kind == ATTENTION_STANDARD || kind == ATTENTION_LASER;
}

/* Adds head h of sequence b. */
static inline void measure_head(MeasuredHead *m, AttentionSums *sums, AttentionKind kind, const float *q,
                                const float *k, const float *v, const float *dout, double unit,
                                const AttentionShape *shape, int b, int h) {
    const ptrdiff_t first = attention_q_row(shape, b, 0, h);
    const int own = kind == ATTENTION_LASER ? JACOBIAN_LASER : JACOBIAN_STANDARD;
    measure_values(m, sums, k + first, v + first, shape->qkv_row);
    for (int i = 0; i < m->T; i++) {
        const float *q_row = q + attention_q_row(shape, b, i, h);
        const float *d_row = dout + attention_out_row(shape, b, i, h);
        for (int d = 0; d < m->D; d++) m->q[d] = q_row[d], m->d_out[d] = d_row[d] / unit;
        measure_weights(m, sums, i);
        measure_outputs(m, i);
        measure_jacobians(m, sums, i, own);
    }
}

static inline void attention_measure(AttentionSums *sums, AttentionKind kind, const float *q, const float *k,
                                     const float *v, const float *dout, double unit,
                                     const AttentionShape *shape) {
    const int H = shape->H, heads = shape->B * H;
    if (!attention_is_measured(kind)) die("%s attention cannot be measured", attention_name(kind));
    AttentionSums *of_heads = (AttentionSums *)check_calloc((size_t)heads * sizeof *of_heads);
    profile(PROFILE_OTHER);
#pragma omp parallel
    {
        MeasuredHead m = measured_head_create(shape->T, shape->D);
        m.softcap = (double)shape->softcap;
#pragma omp for schedule(dynamic)
        for (int n = 0; n < heads; n++) {
            of_heads[n] = attention_sums_empty();
            measure_head(&m, &of_heads[n], kind, q, k, v, dout, unit, shape, n / H, n % H);
        }
        free(m.memory);
    }
    for (int n = 0; n < heads; n++) attention_sums_add(&sums[n % H], &of_heads[n]);
    free(of_heads);
}

#endif
