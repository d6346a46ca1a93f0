/* support/spec.c: see spec.h. The mathematics of a kind is its `pair` or its `features`; the rest is shared.
 */
#include "support/spec.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- numbers ----------------------------------------------------------------------------------------- */

static double size(num a)
{
    return fabs(creal(a.v));
}

num num_input(double value, double direction)
{
    return (num){value + (double complex)I * (direction * SPEC_STEP), 0, fabs(direction), 0};
}

num num_rounded(double value)
{
    return (num){value, fabs(value), 0, 0};
}

num num_add(num a, num b)
{
    return (num){a.v + b.v, a.m + b.m, a.t + b.t, a.mt + b.mt};
}

num num_sub(num a, num b)
{
    return (num){a.v - b.v, a.m + b.m, a.t + b.t, a.mt + b.mt};
}

/* Errors of the factors times the other factor, and the rounding of the product itself. */
num num_mul(num a, num b)
{
    double x = size(a), y = size(b), t = x * b.t + a.t * y;
    return (num){a.v * b.v, x * b.m + a.m * y + x * y, t, x * b.mt + a.mt * y + a.m * b.t + a.t * b.m + t};
}

/* n/d: m_n/|d| + |n| m_d/d^2. */
num num_div(num a, num b)
{
    double complex v = a.v / b.v;
    double q = fabs(creal(v)), d = size(b), m = (a.m + q * b.m) / d + q, t = (a.t + q * b.t) / d;
    return (num){v, m, t, (a.mt + m * b.t + q * b.mt + t * b.m) / d + t};
}

/* An exponential turns the absolute error of its argument into a relative one. */
num num_exp(num a)
{
    double complex v = cexp(a.v);
    double e = fabs(creal(v));
    return (num){v, e * (1 + a.m), e * a.t, e * (a.mt + (1 + a.m) * a.t)};
}

double num_value(num a)
{
    return creal(a.v);
}

double num_slope(num a)
{
    return cimag(a.v) / SPEC_STEP;
}

/* ---- tensors ----------------------------------------------------------------------------------------- */

static num at(const double *x, const double *way, int64_t index)
{
    return num_input(x[index], way != NULL ? way[index] : 0);
}

static num query(const spec *s, int64_t i, int64_t h, int64_t c)
{
    return at(s->q, s->q_way, (i * s->options.heads + h) * s->options.dim + c);
}

/* Query head h reads key/value head h G / H. */
static num key(const spec *s, int64_t j, int64_t h, int64_t c)
{
    int64_t g = h * s->options.kv_heads / s->options.heads;
    return at(s->k, s->k_way, (j * s->options.kv_heads + g) * s->options.dim + c);
}

static num value(const spec *s, int64_t j, int64_t h, int64_t c)
{
    int64_t g = h * s->options.kv_heads / s->options.heads;
    return at(s->v, s->v_way, (j * s->options.kv_heads + g) * s->options.value_dim + c);
}

/* query or key: which side features are taken of. */
typedef num (*reader)(const spec *s, int64_t token, int64_t h, int64_t c);

/* ---- kinds without features: one term a pair ----------------------------------------------------- */

/* exact: the logarithm of the entry is scale q_i.k_j. */
static num exact_pair(const spec *s, int64_t h, int64_t i, int64_t j)
{
    num sum = num_input(0, 0);
    for (int64_t c = 0; c < s->options.dim; c++)
        sum = num_add(sum, num_mul(query(s, i, h, c), key(s, j, h, c)));
    return num_mul(num_rounded(s->options.scale), sum);
}

/* identity: query i of a sequence sees its i-th key. */
static num identity_pair(const spec *s, int64_t h, int64_t i, int64_t j)
{
    (void)s, (void)h;
    return num_input(i == j, 0);
}

/* ---- favor+: phi(x)_f = exp(w_f.x - |x|^2/2) / sqrt(m), x = sqrt(scale) q ------------------------ */

static num projected(const spec *s, reader read, int64_t token, int64_t h, int64_t f)
{
    num sum = num_input(0, 0), root = num_rounded(sqrt(s->options.scale));
    for (int64_t c = 0; c < s->options.dim; c++) {
        num w = num_input((double)s->projection[(h * s->m + f) * s->options.dim + c], 0);
        sum = num_add(sum, num_mul(w, read(s, token, h, c)));
    }
    return num_mul(root, sum);
}

static num half_square(const spec *s, reader read, int64_t token, int64_t h)
{
    num sum = num_input(0, 0);
    for (int64_t c = 0; c < s->options.dim; c++)
        sum = num_add(sum, num_mul(read(s, token, h, c), read(s, token, h, c)));
    return num_mul(num_rounded(s->options.scale / 2), sum);
}

/* Logarithms without the factor 1/sqrt(m), which the state leaves out too. */
static void favor_plus(const spec *s, reader read, int64_t token, int64_t h, num *logs)
{
    for (int64_t f = 0; f < s->r; f++)
        logs[f] = num_sub(projected(s, read, token, h, f), half_square(s, read, token, h));
}

/* ---- relu: phi(x) = max(u, 0) + epsilon, u = W x or x, x = sqrt(scale) q ------------------------- */

static void relu(const spec *s, reader read, int64_t token, int64_t h, num *phi)
{
    bool bare = s->options.projection == FV_PROJECTION_NONE;
    num root = num_rounded(sqrt(s->options.scale));
    for (int64_t f = 0; f < s->r; f++) {
        num u = bare ? num_mul(root, read(s, token, h, f)) : projected(s, read, token, h, f);
        if (creal(u.v) <= 0)
            u.v = 0, u.t = u.mt = 0;
        phi[f] = num_add(u, num_rounded(s->options.epsilon));
    }
}

/* ---- kinds --------------------------------------------------------------------------------------- */

typedef struct spec_kind {
    const char *name;
    bool exponential; /* pair and features give logarithms */
    num (*pair)(const spec *s, int64_t h, int64_t i, int64_t j);
    void (*features)(const spec *s, reader read, int64_t token, int64_t h, num *phi);
} spec_kind;

static const spec_kind kinds[] = {
    {"exact", true, exact_pair, NULL},
    {"identity", false, identity_pair, NULL},
    {"favor+", true, NULL, favor_plus},
    {"relu", false, NULL, relu},
};

static const spec_kind *find(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

bool spec_knows(const char *name)
{
    return find(name) != NULL;
}

/* Features of every token [tokens][H][r], or NULL. */
static num *all_features(const spec *s, reader read, int64_t tokens)
{
    const spec_kind *kind = find(s->options.kind);
    num *phi =
        kind->features != NULL ? malloc((size_t)(tokens * s->options.heads * s->r + 1) * sizeof *phi) : NULL;
    for (int64_t i = 0; phi != NULL && i < tokens * s->options.heads; i++)
        kind->features(s, read, i / s->options.heads, i % s->options.heads, phi + i * s->r);
    return phi;
}

/* Term f of the entry (i, j), with the factor 1/m of exponential features. */
static num term(const spec *s, const num *phi_q, const num *phi_k, int64_t h, int64_t i, int64_t j, int64_t f)
{
    const spec_kind *kind = find(s->options.kind);
    if (kind->pair != NULL)
        return kind->pair(s, h, i, j);
    num a = phi_q[(i * s->options.heads + h) * s->r + f], b = phi_k[(j * s->options.heads + h) * s->r + f];
    if (!kind->exponential)
        return num_mul(a, b);
    num sum = num_add(a, b);
    sum.v -= log((double)s->m);
    return sum;
}

/* ---- rows, output, state ------------------------------------------------------------------------------- */

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

static const int64_t *key_offsets(const spec *s)
{
    return s->layout.offsets_k != NULL ? s->layout.offsets_k : s->layout.offsets_q;
}

/* The keys that query i sees: [*begin, *end). */
static void visible(const spec *s, int64_t i, int64_t *begin, int64_t *end)
{
    const int64_t *oq = s->layout.offsets_q, *ok = key_offsets(s);
    int64_t n = 0;
    while (oq[n + 1] <= i)
        n++;
    *begin = ok[n];
    *end = s->options.causal ? i + 1 : ok[n + 1];
}

static void row_of(const spec *s, const num *phi_q, const num *phi_k, int64_t h, int64_t i, num *row)
{
    const spec_kind *kind = find(s->options.kind);
    const int64_t *ok = key_offsets(s);
    int64_t begin, end, count = kind->pair != NULL ? 1 : s->r;
    visible(s, i, &begin, &end);
    num *terms = malloc((size_t)((end - begin) * count + 1) * sizeof *terms), D = num_input(0, 0);
    double shift = 0;
    for (int64_t t = 0; t < (end - begin) * count; t++) {
        terms[t] = term(s, phi_q, phi_k, h, i, begin + t / count, t % count);
        if (kind->exponential)
            shift = t == 0 ? creal(terms[t].v) : fmax(shift, creal(terms[t].v));
    }
    for (int64_t j = 0; j < ok[s->layout.sequences]; j++)
        row[j] = num_input(0, 0);
    for (int64_t t = 0; t < (end - begin) * count; t++) {
        terms[t].v -= shift;
        num weight = kind->exponential ? num_exp(terms[t]) : terms[t];
        row[begin + t / count] = num_add(row[begin + t / count], weight);
    }
    for (int64_t j = begin; j < end; j++)
        D = num_add(D, row[j]);
    D = guarded(s, D, shift);
    for (int64_t j = begin; j < end; j++)
        row[j] = creal(D.v) != 0 ? num_div(row[j], D) : num_input(0, 0);
    free(terms);
}

void spec_row(const spec *s, int64_t h, int64_t i, num *row)
{
    num *phi_q = all_features(s, query, s->layout.offsets_q[s->layout.sequences]);
    num *phi_k = all_features(s, key, key_offsets(s)[s->layout.sequences]);
    row_of(s, phi_q, phi_k, h, i, row);
    free(phi_q);
    free(phi_k);
}

void spec_forward(const spec *s, num *y)
{
    int64_t keys = key_offsets(s)[s->layout.sequences], queries = s->layout.offsets_q[s->layout.sequences];
    int64_t H = s->options.heads, dv = s->options.value_dim, begin, end;
    num *phi_q = all_features(s, query, queries), *phi_k = all_features(s, key, keys);
    num *row = malloc((size_t)(keys + 1) * sizeof *row);
    for (int64_t i = 0; i < queries * H; i++) {
        row_of(s, phi_q, phi_k, i % H, i / H, row);
        visible(s, i / H, &begin, &end);
        for (int64_t c = 0; c < dv; c++) {
            y[i * dv + c] = num_input(0, 0);
            for (int64_t j = begin; j < end; j++)
                y[i * dv + c] = num_add(y[i * dv + c], num_mul(row[j], value(s, j, i % H, c)));
        }
    }
    free(row);
    free(phi_q);
    free(phi_k);
}

void spec_state(const spec *s, int64_t h, int64_t f, double exponent, num *S, num *z)
{
    const spec_kind *kind = find(s->options.kind);
    int64_t dv = s->options.value_dim, keys = key_offsets(s)[s->layout.sequences];
    num *phi = malloc((size_t)s->r * sizeof *phi);
    *z = num_input(0, 0);
    for (int64_t c = 0; c < dv; c++)
        S[c] = num_input(0, 0);
    for (int64_t j = 0; j < keys; j++) {
        kind->features(s, key, j, h, phi);
        phi[f].v -= exponent * log(2.0);
        num feature = kind->exponential ? num_exp(phi[f]) : phi[f];
        *z = num_add(*z, feature);
        for (int64_t c = 0; c < dv; c++)
            S[c] = num_add(S[c], num_mul(feature, value(s, j, h, c)));
    }
    free(phi);
}
