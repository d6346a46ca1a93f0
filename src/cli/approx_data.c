/* cli/approx_data.c: q, k and v of an approximation study.
 *
 * Random inputs, the recipe: directions of queries and keys are uniform (normal vectors, divided by their
 * length), their length is such that x = sqrt(scale) q has the norm asked for; values are N(0, 1). Number i of
 * a tensor is a function of (seed, tensor, i), so that longer inputs begin like shorter ones.
 */
#include "apply.h"
#include "approx.h"
#include <math.h>
#include <string.h>

/* ---- random numbers -------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t z) /* splitmix64 */
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t approx_bits(uint64_t seed, uint64_t stream, uint64_t index)
{
    const uint64_t golden = 0x9e3779b97f4a7c15u;
    return mix(mix(mix(seed + golden) + (stream + 1) * golden) + (index + 1) * golden);
}

static double uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    return ((double)(approx_bits(seed, stream, index) >> 11) + 0.5) * 0x1p-53;
}

double approx_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    double radius = sqrt(-2 * log(uniform(seed, stream, 2 * index)));
    return radius * cos(6.283185307179586 * uniform(seed, stream, 2 * index + 1));
}

/* ---- drawn inputs ------------------------------------------------------------------------------------ */

/* `count` vectors of d normals, each brought to the length `norm`. */
static void fill_directions(float *x, int64_t count, int64_t d, double norm, uint64_t seed, uint64_t stream)
{
    for (int64_t i = 0; i < count; i++, x += d) {
        double squares = 0;
        for (int64_t c = 0; c < d; c++) {
            double value = approx_normal(seed, stream, (uint64_t)(i * d + c));
            x[c] = (float)value;
            squares += value * value;
        }
        for (int64_t c = 0; c < d; c++)
            x[c] = (float)((double)x[c] * norm / sqrt(squares));
    }
}

static void *hold(approx *a, approx_data *data, int slot, double count, size_t element)
{
    if (count * (double)element > (double)fv_available_memory()) {
        cli_note("out of memory: the study needs %s for one tensor", cli_bytes(count * (double)element).text);
        return NULL;
    }
    return data->owned[slot] = fv_alloc(a->ctx, (size_t)count * element);
}

fv_status approx_data_draw(approx *a, approx_data *data, int64_t length, int64_t heads, int64_t d,
                           double scale, double norm)
{
    double count = (double)length * (double)heads * (double)d;
    float *q = hold(a, data, 0, count, sizeof *q), *k = q != NULL ? hold(a, data, 1, count, sizeof *k) : NULL,
          *v = k != NULL ? hold(a, data, 2, count, sizeof *v) : NULL;
    int64_t *offsets = v != NULL ? hold(a, data, 3, 2, sizeof *offsets) : NULL;
    if (offsets == NULL)
        return FV_ERR_RESOURCE;
    offsets[0] = 0, offsets[1] = length;
    fill_directions(q, length * heads, d, norm / sqrt(scale), a->seed, 0);
    fill_directions(k, length * heads, d, norm / sqrt(scale), a->seed, 1);
    for (int64_t i = 0; i < length * heads * d; i++)
        v[i] = (float)approx_normal(a->seed, 2, (uint64_t)i);
    data->Tq = data->Tk = length;
    data->H = data->G = heads;
    data->d = data->dv = d;
    data->sequences = 1;
    data->offsets_q = data->offsets_k = offsets;
    data->q = q, data->k = k, data->v = v;
    return FV_OK;
}

/* ---- a file ------------------------------------------------------------------------------------------ */

static fv_status check_finite(const char *path, const char *name, const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(x[i]))
            return cli_fail(FV_ERR_FILE,
                            "%s: tensor %s: value %lld is not finite; errors against exact attention need "
                            "finite numbers",
                            path, name, (long long)i);
    return FV_OK;
}

static fv_status copy_floats(approx *a, approx_data *data, int slot, const float *from, int64_t count,
                             const float **to)
{
    float *copy = hold(a, data, slot, (double)count, sizeof *copy);
    if (copy == NULL)
        return FV_ERR_RESOURCE;
    memcpy(copy, from, (size_t)count * sizeof *copy);
    *to = copy;
    return FV_OK;
}

static fv_status copy_offsets(approx *a, approx_data *data, int slot, const int64_t *from, const int64_t **to)
{
    int64_t *copy = hold(a, data, slot, (double)data->sequences + 1, sizeof *copy);
    if (copy == NULL)
        return FV_ERR_RESOURCE;
    memcpy(copy, from, (size_t)(data->sequences + 1) * sizeof *copy);
    *to = copy;
    return FV_OK;
}

/* `favor apply`'s reader checks names, types, shapes and offsets. */
static fv_status take(approx *a, approx_data *data, const apply *in)
{
    *data = (approx_data){.Tq = in->Tq,
                          .Tk = in->Tk,
                          .H = in->H,
                          .G = in->G,
                          .d = in->d,
                          .dv = in->dv,
                          .sequences = in->layout.sequences};
    if (data->Tq < 1 || data->Tk < 1)
        return cli_fail(FV_ERR_FILE, "%s: no tokens, expected at least one query and one key", in->path);
    CLI_TRY(check_finite(in->path, "q", in->q, in->Tq * in->H * in->d));
    CLI_TRY(check_finite(in->path, "k", in->k, in->Tk * in->G * in->d));
    CLI_TRY(check_finite(in->path, "v", in->v, in->Tk * in->G * in->dv));
    CLI_TRY(copy_floats(a, data, 0, in->q, in->Tq * in->H * in->d, &data->q));
    CLI_TRY(copy_floats(a, data, 1, in->k, in->Tk * in->G * in->d, &data->k));
    CLI_TRY(copy_floats(a, data, 2, in->v, in->Tk * in->G * in->dv, &data->v));
    CLI_TRY(copy_offsets(a, data, 3, in->layout.offsets_q, &data->offsets_q));
    return copy_offsets(a, data, 4, in->offsets_k, &data->offsets_k);
}

/* Tensors that would change the operator: here every kind gets its own random parts. */
static fv_status check_names(const apply *in)
{
    static const char *const known[] = {"q", "k", "v", "offsets_q", "offsets_k"};
    for (int64_t i = 0; i < fv_tensors_count(in->in); i++) {
        const char *name = fv_tensors_at(in->in, i)->name;
        bool found = false;
        for (int n = 0; n < CLI_COUNT(known); n++)
            found = found || strcmp(known[n], name) == 0;
        if (!found)
            return cli_fail(FV_ERR_FILE,
                            "%s: tensor %s is not used here; expected q, k, v, offsets_q and offsets_k",
                            in->path, name);
    }
    return FV_OK;
}

fv_status approx_data_read(approx *a, approx_data *data, const char *path)
{
    apply in = {.ctx = a->ctx, .args = a->args, .path = path, .kind = fv_attention_kind_find("exact")};
    fv_status status = apply_read(&in);
    if (status == FV_OK)
        status = check_names(&in);
    if (status == FV_OK)
        status = take(a, data, &in);
    for (int i = 0; i < in.owned_count; i++)
        fv_free(a->ctx, in.owned[i]);
    fv_tensors_close(in.in);
    return status;
}

void approx_data_free(approx *a, approx_data *data)
{
    for (int i = 0; i < CLI_COUNT(data->owned); i++)
        fv_free(a->ctx, data->owned[i]);
    *data = (approx_data){0};
}

void approx_visible(const approx_data *data, bool causal, int64_t row, int64_t *first, int64_t *count)
{
    int64_t low = 0, high = data->sequences - 1;
    while (low < high) { /* the last sequence that begins at or before the row, empty ones passed over */
        int64_t middle = (low + high + 1) / 2;
        if (data->offsets_q[middle] <= row)
            low = middle;
        else
            high = middle - 1;
    }
    *first = data->offsets_k[low];
    *count = causal ? row - data->offsets_q[low] + 1 : data->offsets_k[low + 1] - *first;
}
