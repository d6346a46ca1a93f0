/* support/spec.c: see spec.h. The mathematics of a kind is its row in spec_*.c; what all kinds share is here. */
#include "support/spec.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- kinds --------------------------------------------------------------------------------------- */

static const spec_kind *find(const char *name)
{
    static const spec_kind *const groups[] = {spec_base_kinds, spec_softmax_kinds, spec_general_kinds,
                                              spec_random_kinds, spec_sparse_kinds};
    for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++)
        for (const spec_kind *kind = groups[g]; kind->name != NULL; kind++)
            if (strcmp(kind->name, name) == 0)
                return kind;
    return NULL;
}

bool spec_knows(const char *name)
{
    return find(name) != NULL;
}

/* ---- tensors ----------------------------------------------------------------------------------------- */

static num at(const double *x, const double *way, int64_t index)
{
    return num_input(x[index], way != NULL ? way[index] : 0);
}

num spec_input(const spec *s, fv_input which, int64_t index)
{
    return at(s->input[which], s->input_way[which], index);
}

const int64_t *spec_key_offsets(const spec *s)
{
    return s->layout.offsets_k != NULL ? s->layout.offsets_k : s->layout.offsets_q;
}

int64_t spec_sequence_of_query(const spec *s, int64_t i)
{
    int64_t n = 0;
    while (s->layout.offsets_q[n + 1] <= i)
        n++;
    return n;
}

static num *widened(const double *x, const double *way, int64_t count)
{
    num *out = malloc((size_t)(count + 1) * sizeof *out);
    for (int64_t i = 0; i < count; i++)
        out[i] = at(x, way, i);
    return out;
}

/* Query head h reads key/value head h G / H. */
static const num *value(const spec *s, int64_t j, int64_t h)
{
    int64_t g = h * s->options.kv_heads / s->options.heads;
    return s->V + (j * s->options.kv_heads + g) * s->options.value_dim;
}

static spec_vector vector_of(const spec *s, bool key, int64_t sequence, int64_t token, int64_t h)
{
    const int64_t *oq = s->layout.offsets_q, *ok = spec_key_offsets(s);
    int64_t d = s->options.dim, g = h * s->options.kv_heads / s->options.heads;
    return (spec_vector){.x = key ? s->K + (token * s->options.kv_heads + g) * d
                                  : s->Q + (token * s->options.heads + h) * d,
                         .key = key,
                         .sequence = sequence,
                         .token = token,
                         .position = token - (key ? ok : oq)[sequence],
                         .queries = oq[sequence + 1] - oq[sequence],
                         .keys = ok[sequence + 1] - ok[sequence],
                         .head = h};
}

/* ---- shared pieces of features --------------------------------------------------------------------- */

num spec_projected(const spec *s, fv_input which, int64_t h, int64_t row, const num *x)
{
    int64_t d = s->options.dim, rows = which == FV_INPUT_PROJECTION_TRIG ? s->options.features_trig
                                       : which == FV_INPUT_ANGLE_ROWS    ? s->options.angle_rows
                                                                         : s->m;
    num sum = num_input(0, 0);
    for (int64_t c = 0; c < d; c++)
        sum = num_add(sum, num_mul(spec_input(s, which, (h * rows + row) * d + c), x[c]));
    return sum;
}

num spec_squares(const num *x, int64_t d)
{
    return num_dot(x, x, d);
}

/* Numbers a vector's features take. */
static int64_t width(const spec *s)
{
    return s->kind->signs ? 2 * s->r : s->r;
}

/* Features of every token, or NULL. */
static num *all_features(const spec *s, bool key)
{
    const spec_kind *kind = s->kind;
    const int64_t *offsets = key ? spec_key_offsets(s) : s->layout.offsets_q;
    int64_t tokens = offsets[s->layout.sequences], H = s->options.heads;
    if (kind->features == NULL)
        return NULL;
    num *phi = malloc((size_t)(tokens * H * width(s) + 1) * sizeof *phi);
    for (int64_t n = 0; n < s->layout.sequences; n++)
        for (int64_t i = offsets[n] * H; i < offsets[n + 1] * H; i++) {
            spec_vector v = vector_of(s, key, n, i / H, i % H);
            kind->features(s, &v, phi + i * width(s));
        }
    return phi;
}

/* What the mechanism sees, and its features. */
static spec begin(const spec *given)
{
    spec s = *given;
    s.kind = find(s.options.kind);
    int64_t tq = s.layout.offsets_q[s.layout.sequences], tk = spec_key_offsets(&s)[s.layout.sequences];
    s.Q = widened(s.q, s.q_way, tq * s.options.heads * s.options.dim);
    s.K = widened(s.k, s.k_way, tk * s.options.kv_heads * s.options.dim);
    s.V = widened(s.v, s.v_way, tk * s.options.kv_heads * s.options.value_dim);
    spec_around_inputs(&s, s.Q, s.K);
    s.phi_q = all_features(&s, false);
    s.phi_k = all_features(&s, true);
    return s;
}

static void end(spec *s)
{
    free(s->Q), free(s->K), free(s->V);
    free(s->phi_q), free(s->phi_k);
}

/* ---- rows, output, state ------------------------------------------------------------------------------- */

static double size(num a)
{
    return fabs(creal(a.v));
}

/* The normaliser after its guard, all at scale exp(-shift). */
static num guarded(const spec *s, num D, double shift)
{
    double x = s->options.denominator_value * exp(-shift);
    num X = num_rounded(x);
    switch (s->options.denominator) {
    case FV_DENOMINATOR_OFF:
        return num_rounded(exp(-shift));
    case FV_DENOMINATOR_ADD:
        return num_add(D, X);
    case FV_DENOMINATOR_CLAMP:
        return creal(D.v) > x ? D : X;
    case FV_DENOMINATOR_ABS:
        return size(D) <= x ? X : creal(D.v) < 0 ? num_sub(num_input(0, 0), D) : D;
    case FV_DENOMINATOR_SIGN:
        return size(D) > x ? D : creal(D.v) < 0 ? num_rounded(-x) : X;
    default:
        return D;
    }
}

/* Whether query i sees key j of its sequence n, both counted in the whole call. */
static bool visible(const spec *s, int64_t h, int64_t n, int64_t i, int64_t j)
{
    const spec_kind *kind = s->kind;
    const int64_t *oq = s->layout.offsets_q, *ok = spec_key_offsets(s);
    int64_t a = i - oq[n], b = j - ok[n];
    if (s->options.causal && b > a)
        return false;
    return kind->sees == NULL || kind->sees(s, h, n, a, b, ok[n + 1] - ok[n]);
}

/* Row i of the matrix of head h, of a kind with pairs: entries of the keys that `seen` names, [first, last), times
 * exp(-shift); gives the shift. */
static double row_of_pairs(const spec *s, int64_t h, int64_t i, int64_t first, int64_t last, const bool *seen,
                           num *row)
{
    double shift = -HUGE_VAL;
    for (int64_t j = first; j < last; j++)
        if (seen[j]) {
            row[j] = s->kind->pair(s, h, i, j);
            shift = fmax(shift, creal(row[j].v));
        }
    shift = s->kind->exponential && isfinite(shift) ? shift : 0;
    for (int64_t j = first; j < last && s->kind->exponential; j++)
        if (seen[j]) {
            row[j].v -= shift;
            row[j] = num_exp(row[j]);
        }
    return shift;
}

/* phi(q).phi(k) of features that are logarithms, behind them the signed factors of kinds that have some. */
static num product_of_logs(const spec *s, const num *a, const num *b, double shift)
{
    num sum = num_input(0, 0);
    for (int64_t f = 0; f < s->r; f++) {
        num t = num_add(a[f], b[f]);
        t.v -= shift;
        t = num_exp(t);
        sum = num_add(sum, s->kind->signs ? num_mul(t, num_mul(a[s->r + f], b[s->r + f])) : t);
    }
    return sum;
}

static num product(const spec *s, const num *a, const num *b, double unit)
{
    num sum = num_input(0, 0);
    for (int64_t f = 0; f < s->r; f++)
        sum = num_add(sum, num_scaled(unit, num_mul(a[f], b[f])));
    return sum;
}

/* The same of a kind with features. */
static double row_of_features(const spec *s, int64_t h, int64_t i, int64_t first, int64_t last,
                              const bool *seen, num *row)
{
    int64_t H = s->options.heads;
    double unit = s->kind->unit != NULL ? s->kind->unit(s) : 1, shift = -HUGE_VAL;
    const num *a = s->phi_q + (i * H + h) * width(s);
    for (int64_t j = first; j < last && s->kind->exponential; j++)
        for (int64_t f = 0; f < s->r && seen[j]; f++)
            shift = fmax(shift, creal(a[f].v + s->phi_k[(j * H + h) * width(s) + f].v));
    shift = isfinite(shift) ? shift : 0;
    for (int64_t j = first; j < last; j++) {
        const num *b = s->phi_k + (j * H + h) * width(s);
        if (seen[j])
            row[j] = s->kind->exponential ? product_of_logs(s, a, b, shift) : product(s, a, b, unit);
    }
    return s->kind->exponential ? shift + log(unit) : 0;
}

/* Row i of the normalised matrix of head h, and which keys it sees: row and seen [Tk]. */
static void row_of(const spec *s, int64_t h, int64_t i, num *row, bool *seen)
{
    int64_t n = spec_sequence_of_query(s, i), first = spec_key_offsets(s)[n],
            last = spec_key_offsets(s)[n + 1];
    num D = num_input(0, 0);
    double shift = 0;
    for (int64_t j = 0; j < spec_key_offsets(s)[s->layout.sequences]; j++) {
        row[j] = num_input(0, 0);
        seen[j] = j >= first && j < last && visible(s, h, n, i, j);
    }
    if (s->kind->row != NULL)
        s->kind->row(s, h, i, row);
    else if (s->kind->pair != NULL)
        shift = row_of_pairs(s, h, i, first, last, seen, row);
    else
        shift = row_of_features(s, h, i, first, last, seen, row);
    if (spec_has_pair_factors(s))
        spec_pair_factors(s, h, i, row);
    for (int64_t j = first; j < last; j++)
        D = seen[j] ? num_add(D, row[j]) : D;
    D = guarded(s, D, shift);
    for (int64_t j = first; j < last; j++)
        if (seen[j])
            row[j] = creal(D.v) != 0 ? num_div(row[j], D) : num_input(0, 0);
}

void spec_rows(const spec *given, int64_t h, const int64_t *which, int64_t count, num *out)
{
    spec s = begin(given);
    int64_t keys = spec_key_offsets(&s)[s.layout.sequences];
    bool *seen = malloc((size_t)(keys + 1) * sizeof *seen);
    for (int64_t n = 0; n < count; n++)
        row_of(&s, h, which[n], out + n * keys, seen);
    free(seen);
    end(&s);
}

static void by_rows(const spec *s, num *y)
{
    const int64_t *ok = spec_key_offsets(s);
    int64_t keys = ok[s->layout.sequences], queries = s->layout.offsets_q[s->layout.sequences];
    int64_t H = s->options.heads, dv = s->options.value_dim;
    num *row = malloc((size_t)(keys + 1) * sizeof *row);
    bool *seen = malloc((size_t)(keys + 1) * sizeof *seen);
    for (int64_t i = 0; i < queries * H; i++) {
        int64_t n = spec_sequence_of_query(s, i / H);
        row_of(s, i % H, i / H, row, seen);
        for (int64_t c = 0; c < dv; c++) {
            y[i * dv + c] = num_input(0, 0);
            for (int64_t j = ok[n]; j < ok[n + 1]; j++)
                if (seen[j])
                    y[i * dv + c] = num_add(y[i * dv + c], num_mul(row[j], value(s, j, i % H)[c]));
        }
    }
    free(row), free(seen);
}

void spec_forward(const spec *given, num *y)
{
    spec s = begin(given);
    if (s.kind->forward != NULL)
        s.kind->forward(&s, y);
    else
        by_rows(&s, y);
    spec_around_output(&s, y);
    end(&s);
}

/* Feature f of key j of head h times 2^-exponent. */
static num feature_at(const spec *s, int64_t j, int64_t h, int64_t f, double exponent)
{
    const num *phi = s->phi_k + (j * s->options.heads + h) * width(s);
    num feature = phi[f];
    if (!s->kind->exponential) /* the exponent of one that no key has may be -FLT_MAX: 0 stays 0 */
        return num_scaled(exp2(fmin(-exponent, 1000)), feature);
    feature.v -= exponent * log(2.0);
    return s->kind->signs ? num_mul(num_exp(feature), phi[s->r + f]) : num_exp(feature);
}

/* S [dv] and z of feature f of head h, of keys [0, keys) times their factors (NULL: 1). */
static void sums_of(const spec *s, int64_t keys, int64_t h, int64_t f, double exponent, const num *factor,
                    num *S, num *z)
{
    int64_t dv = s->options.value_dim;
    *z = num_input(0, 0);
    for (int64_t c = 0; c < dv; c++)
        S[c] = num_input(0, 0);
    for (int64_t j = 0; j < keys; j++) {
        num feature = feature_at(s, j, h, f, exponent);
        feature = factor != NULL ? num_mul(feature, factor[j]) : feature;
        *z = num_add(*z, feature);
        for (int64_t c = 0; c < dv; c++)
            S[c] = num_add(S[c], num_mul(feature, value(s, j, h)[c]));
    }
}

void spec_state(const spec *given, const float *exponent, num *S, num *z)
{
    spec s = begin(given);
    int64_t keys = spec_key_offsets(&s)[1]; /* a state is of one sequence */
    num *factor = spec_has_pair_factors(&s) ? malloc((size_t)(keys + 1) * sizeof *factor) : NULL;
    for (int64_t h = 0; h < s.options.heads; h++) {
        for (int64_t j = 0; j < keys && factor != NULL; j++)
            factor[j] = num_input(1, 0);
        if (keys > 0 && factor != NULL)
            spec_pair_factors(&s, h, keys - 1, factor);
        for (int64_t i = h * s.r; i < (h + 1) * s.r; i++)
            sums_of(&s, keys, h, i % s.r, (double)exponent[i], factor, S + i * s.options.value_dim, z + i);
    }
    free(factor);
    end(&s);
}
