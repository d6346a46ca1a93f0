/* cli/apply_inputs.c: the tensors that `favor apply` reads, and everything that can be wrong with them.
 *
 * A file is checked whole before anything is computed: unknown names first, then presence, type and shape of q, k,
 * v, dy and the offsets, then the tensors of apply_extra.c. NaN and infinities are values like any other, except
 * where a tensor has a range.
 */
#include "apply.h"
#include <stdint.h>
#include <string.h>

/* Names beside those of the library's table of inputs. */
static const char *const names[] = {"q", "k", "v", "offsets_q", "offsets_k", "dy"};

apply_shape apply_shape_of(const int64_t *dims, int rank)
{
    apply_shape shape;
    int used = snprintf(shape.text, sizeof shape.text, "[");
    for (int i = 0; i < rank; i++)
        used += snprintf(shape.text + used, sizeof shape.text - (size_t)used, "%s%lld", i > 0 ? "," : "",
                         (long long)dims[i]);
    snprintf(shape.text + used, sizeof shape.text - (size_t)used, "]");
    return shape;
}

apply_shape apply_shape_text(const fv_tensor *tensor)
{
    return apply_shape_of(tensor->shape, tensor->rank);
}

void *apply_alloc(apply *a, int64_t count, size_t element)
{
    size_t bytes;
    if (count < 0 || __builtin_mul_overflow((size_t)count, element, &bytes))
        bytes = SIZE_MAX;
    void *memory = a->owned_count < APPLY_OWNED_MAX ? fv_alloc(a->ctx, bytes) : NULL;
    if (memory == NULL)
        return NULL;
    memset(memory, 0, bytes);
    a->owned[a->owned_count++] = memory;
    return memory;
}

/* ---- names --------------------------------------------------------------------------------------- */

/* Every name that a file may hold, for the nearest of them; NULL at the end. */
static const char *known_name(const void *arg, int index)
{
    (void)arg;
    return index < CLI_COUNT(names) ? names[index] : fv_input_name((fv_input)(index - CLI_COUNT(names)));
}

static fv_status check_name(const apply *a, const char *name)
{
    const char *known;
    for (int i = 0; (known = known_name(NULL, i)) != NULL; i++)
        if (strcmp(known, name) == 0)
            return FV_OK;
    const char *near = cli_nearest(name, known_name, NULL);
    return cli_fail(FV_ERR_FILE, "%s: tensor %s: unknown name; %s %s", a->path, name,
                    near != NULL ? "did you mean" : "expected",
                    near != NULL ? near : "q, k, v, dy, offsets_q, offsets_k or one that `favor info` lists");
}

static fv_status check_names(const apply *a)
{
    for (int64_t i = 0; i < fv_tensors_count(a->in); i++)
        CLI_TRY(check_name(a, fv_tensors_at(a->in, i)->name));
    return FV_OK;
}

/* ---- values -------------------------------------------------------------------------------------- */

fv_status apply_floats(apply *a, const fv_tensor *tensor, const float **values)
{
    if (tensor->dtype != FV_F32 && tensor->dtype != FV_F64 && tensor->dtype != FV_BF16)
        return cli_fail(FV_ERR_FILE, "%s: tensor %s: type %s, expected F32, F64 or BF16", a->path,
                        tensor->name, fv_dtype_name(tensor->dtype));
    *values = tensor->data;
    if (tensor->dtype == FV_F32)
        return FV_OK;
    float *copy = apply_alloc(a, tensor->count, sizeof *copy);
    if (copy == NULL)
        return FV_ERR_RESOURCE;
    *values = copy;
    return fv_tensor_to_f32(a->ctx, tensor, copy);
}

static fv_status missing(const apply *a, const char *name, const char *shape)
{
    return cli_fail(FV_ERR_FILE, "%s: tensor %s is missing, expected %s", a->path, name, shape);
}

fv_status apply_misfit(const apply *a, const fv_tensor *tensor, const char *expected)
{
    return cli_fail(FV_ERR_FILE, "%s: tensor %s: shape %s, expected %s", a->path, tensor->name,
                    apply_shape_text(tensor).text, expected);
}

/* Finds `name` and checks its shape against `want`, where -1 stands for any positive size (the first may be
 * 0). */
static fv_status read_heads(apply *a, const char *name, const char *symbols, const int64_t want[3],
                            const fv_tensor **found, const float **values)
{
    const fv_tensor *tensor = fv_tensors_find(a->in, name);
    *found = tensor;
    if (tensor == NULL)
        return missing(a, name, symbols);
    bool fits = tensor->rank == 3;
    for (int i = 0; fits && i < 3; i++)
        fits = want[i] < 0 ? tensor->shape[i] >= (i > 0) : tensor->shape[i] == want[i];
    if (fits)
        return apply_floats(a, tensor, values);
    char expected[160];
    int used = snprintf(expected, sizeof expected, "%s", symbols);
    if (want[0] >= 0 || want[2] >= 0)
        for (int i = 0; i < 3; i++)
            used += want[i] < 0
                        ? snprintf(expected + used, sizeof expected - (size_t)used, "%s*", i ? "," : " = [")
                        : snprintf(expected + used, sizeof expected - (size_t)used, "%s%lld",
                                   i ? "," : " = [", (long long)want[i]);
    snprintf(expected + used, sizeof expected - (size_t)used, "%s", want[0] >= 0 || want[2] >= 0 ? "]" : "");
    return apply_misfit(a, tensor, expected);
}

/* A kind whose query is the key too (it hashes q) needs no k: zeros, shaped as v, stand for it. */
static fv_status shared_keys(apply *a)
{
    const fv_tensor *v = fv_tensors_find(a->in, "v");
    if (v == NULL || v->rank != 3 || v->shape[1] < 1)
        return missing(a, "v", "[Tk,G,dv]");
    a->Tk = v->shape[0], a->G = v->shape[1];
    int64_t count;
    if (__builtin_mul_overflow(a->Tk * a->G, a->d, &count))
        count = -1;
    a->k = apply_alloc(a, count, sizeof *a->k);
    return a->k != NULL ? FV_OK : FV_ERR_RESOURCE;
}

static fv_status read_keys(apply *a)
{
    const fv_tensor *k;
    const int64_t like_q[3] = {-1, -1, a->d};
    bool hashed = fv_attention_kind_input(a->kind, FV_INPUT_LSH_ROTATIONS) != 0;
    if (hashed && fv_tensors_find(a->in, "k") == NULL) {
        CLI_TRY(shared_keys(a));
    } else {
        CLI_TRY(read_heads(a, "k", "[Tk,G,d]", like_q, &k, &a->k));
        a->Tk = k->shape[0], a->G = k->shape[1];
    }
    if (a->H % a->G == 0)
        return FV_OK;
    return cli_fail(FV_ERR_FILE, "%s: tensor k: %lld heads, expected a divisor of q's %lld", a->path,
                    (long long)a->G, (long long)a->H);
}

static fv_status read_qkv(apply *a)
{
    const fv_tensor *q, *v;
    const int64_t any[3] = {-1, -1, -1};
    CLI_TRY(read_heads(a, "q", "[Tq,H,d]", any, &q, &a->q));
    a->Tq = q->shape[0], a->H = q->shape[1], a->d = q->shape[2];
    CLI_TRY(read_keys(a));
    const int64_t like_k[3] = {a->Tk, a->G, -1};
    CLI_TRY(read_heads(a, "v", "[Tk,G,dv]", like_k, &v, &a->v));
    a->dv = v->shape[2];
    if (fv_tensors_find(a->in, "dy") == NULL)
        return FV_OK;
    const fv_tensor *dy;
    const int64_t like_y[3] = {a->Tq, a->H, a->dv};
    return read_heads(a, "dy", "[Tq,H,dv]", like_y, &dy, &a->dy);
}

/* ---- offsets ------------------------------------------------------------------------------------- */

static fv_status check_offsets(const apply *a, const fv_tensor *tensor, const int64_t *offsets,
                               int64_t tokens, const char *of)
{
    int64_t last = tensor->count - 1;
    if (offsets[0] != 0)
        return cli_fail(FV_ERR_FILE, "%s: tensor %s: begins with %lld, expected 0", a->path, tensor->name,
                        (long long)offsets[0]);
    for (int64_t s = 0; s < last; s++)
        if (offsets[s + 1] < offsets[s])
            return cli_fail(
                FV_ERR_FILE, "%s: tensor %s: entry %lld is %lld after %lld, expected it not to decrease",
                a->path, tensor->name, (long long)s + 1, (long long)offsets[s + 1], (long long)offsets[s]);
    if (offsets[last] != tokens)
        return cli_fail(FV_ERR_FILE, "%s: tensor %s: ends with %lld, expected %lld, the tokens of %s",
                        a->path, tensor->name, (long long)offsets[last], (long long)tokens, of);
    return FV_OK;
}

/* The offsets of `name`, or {0, tokens} when it is absent and so is offsets_q. */
static fv_status read_offsets(apply *a, const char *name, int64_t tokens, const char *of, const int64_t **out,
                              int64_t *sequences)
{
    const fv_tensor *tensor = fv_tensors_find(a->in, name);
    int64_t *offsets = apply_alloc(a, tensor != NULL ? tensor->count : 2, sizeof *offsets);
    if (offsets == NULL)
        return FV_ERR_RESOURCE;
    *out = offsets;
    if (tensor == NULL) {
        offsets[1] = tokens;
        *sequences = 1;
        return FV_OK;
    }
    if (tensor->dtype != FV_I64 && tensor->dtype != FV_I32)
        return cli_fail(FV_ERR_FILE, "%s: tensor %s: type %s, expected I64", a->path, name,
                        fv_dtype_name(tensor->dtype));
    if (tensor->rank != 1 || tensor->count < 1)
        return apply_misfit(a, tensor, "[sequences+1]");
    CLI_TRY(fv_tensor_to_i64(a->ctx, tensor, offsets));
    *sequences = tensor->count - 1;
    return check_offsets(a, tensor, offsets, tokens, of);
}

static fv_status read_layout(apply *a)
{
    CLI_TRY(read_offsets(a, "offsets_q", a->Tq, "q", &a->layout.offsets_q, &a->layout.sequences));
    bool same = fv_tensors_find(a->in, "offsets_q") != NULL && fv_tensors_find(a->in, "offsets_k") == NULL;
    if (same && a->Tq != a->Tk)
        return cli_fail(
            FV_ERR_FILE,
            "%s: tensor offsets_k is missing: q has %lld tokens and k %lld, so offsets_q cannot serve both",
            a->path, (long long)a->Tq, (long long)a->Tk);
    a->offsets_k = a->layout.offsets_q;
    if (same)
        return FV_OK;
    int64_t sequences;
    CLI_TRY(read_offsets(a, "offsets_k", a->Tk, "k", &a->offsets_k, &sequences));
    if (sequences != a->layout.sequences)
        return cli_fail(FV_ERR_FILE, "%s: tensor offsets_k: %lld sequences, expected %lld as in offsets_q",
                        a->path, (long long)sequences, (long long)a->layout.sequences);
    a->layout.offsets_k = a->offsets_k;
    return FV_OK;
}

fv_status apply_read(apply *a)
{
    CLI_TRY(fv_tensors_open(&a->in, a->ctx, a->path));
    CLI_TRY(check_names(a));
    CLI_TRY(read_qkv(a));
    return read_layout(a);
}
