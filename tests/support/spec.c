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

/* What the mechanism sees. */
static spec begin(const spec *given)
{
    spec s = *given;
    s.kind = find(s.options.kind);
    int64_t tq = s.layout.offsets_q[s.layout.sequences], tk = spec_key_offsets(&s)[s.layout.sequences];
    s.Q = widened(s.q, s.q_way, tq * s.options.heads * s.options.dim);
    s.K = widened(s.k, s.k_way, tk * s.options.kv_heads * s.options.dim);
    s.V = widened(s.v, s.v_way, tk * s.options.kv_heads * s.options.value_dim);
    spec_around_inputs(&s, s.Q, s.K);
    return s;
}

static void end(spec *s)
{
    free(s->Q);
    free(s->K);
    free(s->V);
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
    return find(s->options.kind)->signs ? 2 * s->r : s->r;
}

/* Features of every token [tokens][H][width], or NULL. */
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

/* Term f of the entry (i, j), with the factor that the features leave outside. */
static num term(const spec *s, const num *phi_q, const num *phi_k, int64_t h, int64_t i, int64_t j, int64_t f)
{
    const spec_kind *kind = s->kind;
    if (kind->pair != NULL)
        return kind->pair(s, h, i, j);
    double unit = kind->unit != NULL ? kind->unit(s) : 1;
    num a = phi_q[(i * s->options.heads + h) * width(s) + f],
        b = phi_k[(j * s->options.heads + h) * width(s) + f];
    if (!kind->exponential)
        return num_scaled(unit, num_mul(a, b));
    num sum = num_add(a, b);
    sum.v += log(unit);
    return sum;
}

/* The signed factor of term f. */
static num sign(const spec *s, const num *phi_q, const num *phi_k, int64_t h, int64_t i, int64_t j, int64_t f)
{
    int64_t at = s->r + f;
    return num_mul(phi_q[(i * s->options.heads + h) * width(s) + at],
                   phi_k[(j * s->options.heads + h) * width(s) + at]);
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

static void row_of(const spec *s, const num *phi_q, const num *phi_k, int64_t h, int64_t i, num *row)
{
    const spec_kind *kind = s->kind;
    const int64_t *ok = spec_key_offsets(s);
    int64_t n = spec_sequence_of_query(s, i), first = ok[n], last = ok[n + 1];
    int64_t count = kind->pair != NULL ? 1 : s->r;
    num *terms = malloc((size_t)((last - first) * count + 1) * sizeof *terms), D = num_input(0, 0);
    double shift = -HUGE_VAL;
    for (int64_t j = 0; j < ok[s->layout.sequences]; j++)
        row[j] = num_input(0, 0);
    if (kind->row != NULL)
        kind->row(s, h, i, row);
    for (int64_t j = first; j < last; j++)
        for (int64_t f = 0; f < count && visible(s, h, n, i, j); f++) {
            num *t = &terms[(j - first) * count + f];
            *t = term(s, phi_q, phi_k, h, i, j, f);
            shift = fmax(shift, creal(t->v));
        }
    shift = kind->exponential && isfinite(shift) ? shift : 0;
    for (int64_t j = first; j < last; j++) {
        if (!visible(s, h, n, i, j))
            continue;
        for (int64_t f = 0; f < count; f++) {
            num t = terms[(j - first) * count + f];
            t.v -= shift;
            num weight = kind->exponential ? num_exp(t) : t;
            if (kind->signs)
                weight = num_mul(weight, sign(s, phi_q, phi_k, h, i, j, f));
            row[j] = num_add(row[j], weight);
        }
        if (spec_has_pair_factor(s))
            row[j] = num_mul(row[j], spec_pair_factor(s, h, i, j));
        D = num_add(D, row[j]);
    }
    D = guarded(s, D, shift);
    for (int64_t j = first; j < last; j++)
        if (visible(s, h, n, i, j))
            row[j] = creal(D.v) != 0 ? num_div(row[j], D) : num_input(0, 0);
    free(terms);
}

void spec_row(const spec *given, int64_t h, int64_t i, num *row)
{
    spec s = begin(given);
    num *phi_q = all_features(&s, false), *phi_k = all_features(&s, true);
    row_of(&s, phi_q, phi_k, h, i, row);
    free(phi_q);
    free(phi_k);
    end(&s);
}

static void by_rows(const spec *s, num *y)
{
    const int64_t *ok = spec_key_offsets(s);
    int64_t keys = ok[s->layout.sequences], queries = s->layout.offsets_q[s->layout.sequences];
    int64_t H = s->options.heads, dv = s->options.value_dim;
    num *phi_q = all_features(s, false), *phi_k = all_features(s, true);
    num *row = malloc((size_t)(keys + 1) * sizeof *row);
    for (int64_t i = 0; i < queries * H; i++) {
        int64_t n = spec_sequence_of_query(s, i / H);
        row_of(s, phi_q, phi_k, i % H, i / H, row);
        for (int64_t c = 0; c < dv; c++) {
            y[i * dv + c] = num_input(0, 0);
            for (int64_t j = ok[n]; j < ok[n + 1]; j++)
                if (visible(s, i % H, n, i / H, j))
                    y[i * dv + c] = num_add(y[i * dv + c], num_mul(row[j], value(s, j, i % H)[c]));
        }
    }
    free(row);
    free(phi_q);
    free(phi_k);
}

void spec_forward(const spec *given, num *y)
{
    spec s = begin(given);
    const spec_kind *kind = s.kind;
    if (kind->forward != NULL)
        kind->forward(&s, y);
    else
        by_rows(&s, y);
    spec_around_output(&s, y);
    end(&s);
}

void spec_state(const spec *given, int64_t h, int64_t f, double exponent, num *S, num *z)
{
    spec s = begin(given);
    const spec_kind *kind = s.kind;
    int64_t dv = s.options.value_dim, keys = spec_key_offsets(&s)[s.layout.sequences];
    num *phi = malloc((size_t)width(&s) * sizeof *phi);
    *z = num_input(0, 0);
    for (int64_t c = 0; c < dv; c++)
        S[c] = num_input(0, 0);
    for (int64_t j = 0; j < keys; j++) {
        spec_vector v = vector_of(&s, true, 0, j, h); /* a state is of one sequence */
        kind->features(&s, &v, phi);
        num feature = phi[f];
        if (kind->exponential)
            feature.v -= exponent * log(2.0);
        feature = kind->exponential ? num_exp(feature) : num_scaled(exp2(-exponent), feature);
        if (kind->signs)
            feature = num_mul(feature, phi[s.r + f]);
        if (spec_has_pair_factor(&s))
            feature = num_mul(feature, spec_pair_factor(&s, h, keys - 1, j));
        *z = num_add(*z, feature);
        for (int64_t c = 0; c < dv; c++)
            S[c] = num_add(S[c], num_mul(feature, value(&s, j, h)[c]));
    }
    free(phi);
    end(&s);
}
