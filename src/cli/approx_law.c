/* cli/approx_law.c: which closed form belongs to which kind. A kind without a row has none, and its variance is
 * only measured. */
#include "approx.h"
#include <math.h>
#include <string.h>

enum { PSI_KEYS = 64 };

typedef enum coefficients { NO_SERIES, EXP, INV, LOGI, SQRT } coefficients;

static const struct {
    const char *kind;
    approx_family family;
    bool sqrt_d; /* norms sqrt(d) whatever the options say */
    coefficients series;
    bool softmax; /* its target is exp(scale q.k) */
} known[] = {
    {"favor+", APPROX_POSITIVE, false, NO_SERIES, true},
    {"favor+hyp", APPROX_HYPERBOLIC, false, NO_SERIES, true},
    {"favor-trig", APPROX_TRIG, false, NO_SERIES, true},
    {"favor+reg", APPROX_POSITIVE, true, NO_SERIES, true},
    {"favor+reghyp", APPROX_HYPERBOLIC, true, NO_SERIES, true},
    {"favor++", APPROX_OPRF, false, NO_SERIES, true},
    {"favor#", APPROX_UNKNOWN, false, NO_SERIES, true},
    {"favor-hybrid", APPROX_UNKNOWN, false, NO_SERIES, true},
    {"taylor", APPROX_UNKNOWN, false, NO_SERIES, true},
    {"rfa", APPROX_RFA, false, NO_SERIES, false},
    {"rfa-arccos", APPROX_ARCCOS, false, NO_SERIES, false},
    {"rmf-exp", APPROX_MACLAURIN, false, EXP, true},
    {"rmf-trigh", APPROX_MACLAURIN, false, EXP, true}, /* sinh + cosh */
    {"rmf-inv", APPROX_MACLAURIN, false, INV, false},
    {"rmf-logi", APPROX_MACLAURIN, false, LOGI, false},
    {"rmf-sqrt", APPROX_MACLAURIN, false, SQRT, false},
    {"reformer", APPROX_UNKNOWN, false, NO_SERIES, false}, /* its keys are its queries */
};

static int find(const char *kind)
{
    for (int i = 0; i < CLI_COUNT(known); i++)
        if (strcmp(known[i].kind, kind) == 0)
            return i;
    return -1;
}

bool approx_targets_softmax(const char *kind)
{
    int row = find(kind);
    if (row >= 0)
        return known[row].softmax;
    /* Sparse, hashed and low-rank attention leave entries of the softmax matrix out; other maps have kernels of
     * their own. */
    return !fv_attention_kind_find(kind)->kernelized && strcmp(kind, "identity") != 0;
}

/* ---- random Maclaurin features ------------------------------------------------------------------------ */

/* a_n of exp(t), 1/(1-t), 1 - ln(1-t), 2 - sqrt(1-t). */
static void fill_series(coefficients series, approx_law *law)
{
    law->a[0] = 1;
    for (int n = 1; n < law->degrees; n++) {
        if (series == EXP)
            law->a[n] = law->a[n - 1] / n;
        else if (series == INV)
            law->a[n] = 1;
        else if (series == LOGI)
            law->a[n] = 1.0 / n;
        else
            law->a[n] = n == 1 ? 0.5 : law->a[n - 1] * (2 * n - 3) / (2 * n);
    }
}

/* p_n, of mass 1 up to the largest degree. */
static void fill_degrees(const fv_attention_options *o, approx_law *law)
{
    double sum = 0, P = o->rmf_parameter;
    for (int n = 0; n < law->degrees; n++) {
        if (o->rmf_law == FV_RMF_GEOMETRIC)
            law->p[n] = (P - 1) * pow(P, -(n + 1));
        else if (o->rmf_law == FV_RMF_POISSON)
            law->p[n] = exp(n * log(P) - P - lgamma(n + 1.0));
        else
            law->p[n] = law->a[n] * pow(P, n / 2.0);
        sum += law->p[n];
    }
    for (int n = 0; n < law->degrees; n++)
        law->p[n] /= sum;
}

/* ---- laws ---------------------------------------------------------------------------------------------- */

void approx_law_of(const fv_attention_info *info, approx_law *law)
{
    const fv_attention_options *o = &info->options;
    int row = find(o->kind);
    *law = (approx_law){.d = o->dim, .m = info->projection_rows, .tau = o->tau > 0 ? o->tau : 1};
    if (row < 0 || known[row].family == APPROX_UNKNOWN)
        return;
    law->family = known[row].family;
    law->sqrt_d = known[row].sqrt_d || o->row_norms == FV_ROW_NORMS_SQRT_D;
    law->orthogonal = o->projection == FV_PROJECTION_ORTHOGONAL;
    if (law->family == APPROX_MACLAURIN) {
        law->cut = o->rmf_max_degree > 0 && o->rmf_max_degree < APPROX_DEGREES_MAX;
        law->degrees = law->cut ? (int)o->rmf_max_degree + 1 : APPROX_DEGREES_MAX;
        law->m = info->feature_count;
        law->orthogonal = false;
        fill_series(known[row].series, law);
        fill_degrees(o, law);
        return;
    }
    if (!law->orthogonal && o->projection != FV_PROJECTION_IID)
        law->family = APPROX_UNKNOWN; /* couplings without a closed form */
    if (law->family == APPROX_OPRF && o->psi < 0)
        law->family = APPROX_UNKNOWN; /* every sequence has its own A */
    if (law->family == APPROX_OPRF)
        law->oprf_a = approx_oprf_a(o->psi, law->d);
}

/* ---- vectors as the maps see them ---------------------------------------------------------------------- */

/* ppSBN's pre-scaling: centred, divided by the standard deviation, made a unit vector; 0 for equal channels. */
static double ppsbn_factor(const float *x, int64_t d, double *centre)
{
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < d; i++)
        mean += (double)x[i] / (double)d;
    for (int64_t i = 0; i < d; i++)
        variance += ((double)x[i] - mean) * ((double)x[i] - mean);
    *centre = mean;
    return variance > 0 ? 1 / sqrt(variance) : 0;
}

approx_pair approx_pair_of(const fv_attention_options *o, const float *q, const float *k)
{
    double q0 = 0, k0 = 0, root = sqrt(o->scale), fq = root, fk = root;
    approx_pair pair = {0};
    if (o->ppsbn) {
        fq *= ppsbn_factor(q, o->dim, &q0);
        fk *= ppsbn_factor(k, o->dim, &k0);
    }
    for (int64_t i = 0; i < o->dim; i++) {
        double x = ((double)q[i] - q0) * fq, y = ((double)k[i] - k0) * fk;
        pair.xx += x * x;
        pair.yy += y * y;
        pair.xy += x * y;
        pair.x2y2 += x * x * y * y;
    }
    return pair;
}

/* psi = mean over pairs of |x + y|^2; of each query's keys 64 are taken, at even distances. */
void approx_freeze(fv_attention_options *o, const approx_data *data, int64_t head)
{
    int row = find(o->kind);
    bool measures = strcmp(o->kind, "favor#") == 0 || (row >= 0 && known[row].family == APPROX_OPRF);
    if (!measures || o->psi >= 0)
        return;
    double sum = 0, count = 0;
    int64_t d = data->d, first_head = head >= 0 ? head : 0, last_head = head >= 0 ? head + 1 : data->H;
    for (int64_t h = first_head; h < last_head; h++)
        for (int64_t i = 0; i < data->Tq; i++) {
            int64_t first, keys, g = h * data->G / data->H;
            approx_visible(data, false, i, &first, &keys);
            for (int64_t n = 0; n < keys && n < PSI_KEYS; n++) {
                int64_t j = first + (i + n * (keys / PSI_KEYS + 1)) % keys;
                approx_pair pair =
                    approx_pair_of(o, data->q + (i * data->H + h) * d, data->k + (j * data->G + g) * d);
                sum += pair.xx + pair.yy + 2 * pair.xy;
                count++;
            }
        }
    o->psi = count > 0 ? sum / count : 0;
}

void approx_freeze_causal(fv_attention_options *o, const approx_data *data)
{
    fv_attention_options scaled = *o;
    scaled.scale = o->scale > 0 ? o->scale : 1 / sqrt((double)o->dim);
    approx_freeze(&scaled, data, -1);
    o->psi = scaled.psi;
}
