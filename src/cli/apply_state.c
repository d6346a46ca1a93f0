/* cli/apply_state.c: the states of causal sequences in a safetensors file, so that a run can be continued.
 *
 *     tokens    I64 [sequences]         tokens seen
 *
 * Kernelized kinds: the sums over keys, true values times 2^-exponent:
 *
 *     S         F32 [sequences,H,r,dv]
 *     z         F32 [sequences,H,r]
 *     exponent  F32 [sequences,H,r]
 *     decayed   F64 [sequences,H]       where a gate or decay forgets: log2 of the factor on what came before
 *
 * Kinds that keep keys: rows of the sequences' states (fv_state_view), heads side by side, end to end: all tokens, or as many as a window
 * and global tokens want:
 *
 *     keys      F32 [rows,G,d]
 *     values    F32 [rows,G,dv]
 *
 * The metadata names the operator ("settings") and holds a fingerprint of its inputs ("projection", FNV-1a over the
 * bits of all but those that come token by token): a state means nothing under others, so a different pair is
 * refused. The guard of the denominator and the chunk do not shape a state and may change between runs.
 */
#include "apply.h"
#include <inttypes.h>
#include <string.h>

#define FORMAT "favor attention state 1"

/* Shape of one saved field for all sequences, [count][a][b][c], and where it lies in a view. */
typedef struct field {
    const char *name;
    fv_dtype dtype;
    int rank;     /* with the sequence or row dimension */
    bool in_rows; /* of keys */
    int64_t shape[3];
    int64_t count; /* of a sequence or row */
    char *data;    /* all sequences */
} field;

typedef struct store {
    field fields[4];
    int count;
    int64_t *tokens; /* [sequences] */
    int64_t most;    /* rows of keys a sequence, at most */
    int64_t total;   /* rows of all of them */
} store;

/* Rows of keys that sequence n has. */
static int64_t rows_of(const store *s, int64_t n)
{
    return s->tokens[n] < s->most ? s->tokens[n] : s->most;
}

/* Sizes that end at the first 0. */
static field make_field(const char *name, bool in_rows, int64_t x, int64_t y, int64_t z)
{
    field f = {.name = name, .dtype = FV_F32, .in_rows = in_rows, .shape = {x, y, z}, .count = 1};
    for (f.rank = 1; f.rank < 4 && f.shape[f.rank - 1] > 0; f.rank++)
        f.count *= f.shape[f.rank - 1];
    return f;
}

static size_t field_bytes(const field *f, int64_t count)
{
    return (size_t)(count * f->count) * fv_dtype_bytes(f->dtype);
}

static void *view_field(const fv_state_view *view, const char *name)
{
    void *fields[] = {view->S, view->z, view->exponent, view->decayed, view->keys, view->values};
    static const char *const names[] = {"S", "z", "exponent", "decayed", "keys", "values"};
    for (int i = 0; i < CLI_COUNT(names); i++)
        if (strcmp(names[i], name) == 0)
            return fields[i];
    return NULL;
}

/* Which fields the operator's states have. */
static fv_status plan_store(const apply *a, store *s)
{
    size_t bytes;
    CLI_TRY(fv_attention_state_bytes(a->op, 1, &bytes));
    void *probe = fv_alloc(a->ctx, bytes);
    if (probe == NULL)
        return FV_ERR_RESOURCE;
    fv_state_view view;
    fv_status status = fv_attention_state_init(a->op, 1, probe);
    if (status == FV_OK)
        status = fv_attention_state_view(a->op, probe, &view);
    fv_free(a->ctx, probe);
    CLI_TRY(status);
    s->count = 0;
    s->most = view.pinned < view.capacity ? view.capacity : INT64_MAX;
    if (view.S != NULL) {
        s->fields[s->count++] = make_field("S", false, a->H, view.features, a->dv);
        s->fields[s->count++] = make_field("z", false, a->H, view.features, 0);
        s->fields[s->count++] = make_field("exponent", false, a->H, view.features, 0);
        if (view.decayed != NULL && (a->info.options.gate || a->info.options.decay)) {
            s->fields[s->count] = make_field("decayed", false, a->H, 0, 0);
            s->fields[s->count++].dtype = FV_F64;
        }
    } else if (view.keys != NULL) {
        s->fields[s->count++] = make_field("keys", true, a->G, a->d, 0);
        s->fields[s->count++] = make_field("values", true, a->G, a->dv, 0);
    }
    return FV_OK;
}

/* ---- fingerprint --------------------------------------------------------------------------------- */

typedef struct fingerprint {
    char settings[512], projection[32];
} fingerprint;

/* What shapes a state beyond the kind, or says which of its keys a token sees, and only where it is used, so that
 * plain states keep their settings. */
static void add_modifiers(const fv_attention_options *o, char *text, size_t bytes)
{
    const struct {
        bool used;
        const char *name;
        double value;
    } extras[] = {
        {o->tau != 0, "tau", o->tau},
        {o->psi >= 0, "psi", o->psi},
        {o->max_tokens != 0, "max_tokens", (double)o->max_tokens},
        {o->window >= 0, "window", (double)o->window},
        {o->stride > 0, "stride", (double)o->stride},
        {o->block > 0, "block", (double)o->block},
        {o->globals >= 0, "globals", (double)o->globals},
        {o->random_blocks >= 0, "random_blocks", (double)o->random_blocks},
        {o->gate != 0, "gate", 1},
        {o->decay != 0, "decay", 1},
        {o->ppsbn != 0, "ppsbn", 1},
        {o->rotary != 0, "rotary", o->rotary_base},
    };
    for (int i = 0; i < CLI_COUNT(extras); i++) {
        size_t used = strlen(text);
        if (extras[i].used)
            snprintf(text + used, bytes - used, " %s %.9g", extras[i].name, extras[i].value);
    }
    size_t used = strlen(text);
    if (o->random_blocks > 0)
        snprintf(text + used, bytes - used, " pattern_seed %" PRIu64, o->pattern_seed);
}

static fingerprint fingerprint_of(const apply *a)
{
    const fv_attention_options *o = &a->info.options;
    fingerprint print;
    snprintf(print.settings, sizeof print.settings,
             "%s heads %" PRId64 "/%" PRId64 " dim %" PRId64 "/%" PRId64 " scale %.9g projections %" PRId64
             " epsilon %.9g",
             o->kind, a->H, a->G, a->d, a->dv, o->scale,
             a->info.drawn_floats > 0 ? a->info.projection_rows : 0,
             fv_attention_kind_find(o->kind)->generalized ? o->epsilon : 0.0);
    add_modifiers(o, print.settings, sizeof print.settings);
    uint64_t hash = 14695981039346656037u; /* FNV-1a, 64 bits */
    for (int n = 0; n < FV_INPUT_COUNT; n++) {
        const unsigned char *bytes = (const unsigned char *)a->input[n].values;
        if (bytes == NULL || a->input[n].info.role == FV_ROLE_TOKEN)
            continue;
        for (int64_t i = 0; i < a->input[n].info.floats * (int64_t)sizeof(float); i++)
            hash = (hash ^ bytes[i]) * 1099511628211u;
    }
    snprintf(print.projection, sizeof print.projection, "%016" PRIx64, hash);
    return print;
}

static fv_status check_metadata(const char *path, const fv_tensors *file, const char *key, const char *want)
{
    const char *value = fv_tensors_metadata(file, key);
    if (value != NULL && strcmp(value, want) == 0)
        return FV_OK;
    return cli_fail(FV_ERR_FILE, "%s: %s of the state: %s, expected %s", path, key,
                    value != NULL ? value : "missing", want);
}

static fv_status check_fingerprint(const apply *a, const char *path, const fv_tensors *file)
{
    fingerprint mine = fingerprint_of(a);
    CLI_TRY(check_metadata(path, file, "format", FORMAT));
    CLI_TRY(check_metadata(path, file, "settings", mine.settings));
    return check_metadata(path, file, "projection", mine.projection);
}

/* ---- reading ------------------------------------------------------------------------------------- */

static fv_status read_tokens(apply *a, const char *path, const fv_tensors *file, store *s)
{
    const fv_tensor *tensor = fv_tensors_find(file, "tokens");
    s->tokens = apply_alloc(a, a->layout.sequences, sizeof *s->tokens);
    if (s->tokens == NULL)
        return FV_ERR_RESOURCE;
    if (tensor == NULL || tensor->dtype != FV_I64 || tensor->rank != 1 ||
        tensor->count != a->layout.sequences)
        return cli_fail(FV_ERR_FILE, "%s: tensor tokens: expected I64 [%lld], one for each sequence of %s",
                        path, (long long)a->layout.sequences, a->path);
    CLI_TRY(fv_tensor_to_i64(a->ctx, tensor, s->tokens));
    for (int64_t i = 0; i < a->layout.sequences; i++)
        if (s->tokens[i] < 0 || __builtin_add_overflow(s->total, rows_of(s, i), &s->total))
            return cli_fail(FV_ERR_FILE, "%s: tensor tokens: entry %lld is %lld, expected a count", path,
                            (long long)i, (long long)s->tokens[i]);
    return FV_OK;
}

static fv_status read_field(apply *a, const char *path, const fv_tensors *file, const store *s, field *f)
{
    const fv_tensor *tensor = fv_tensors_find(file, f->name);
    bool fits = tensor != NULL && tensor->dtype == f->dtype && tensor->rank == f->rank &&
                tensor->shape[0] == (f->in_rows ? s->total : a->layout.sequences);
    for (int i = 1; fits && i < f->rank; i++)
        fits = tensor->shape[i] == f->shape[i - 1];
    if (!fits)
        return cli_fail(FV_ERR_FILE, "%s: tensor %s: %s %s, expected %s for %lld %s of this operator", path,
                        f->name, tensor != NULL ? "shape" : "missing",
                        tensor != NULL ? apply_shape_text(tensor).text : "", fv_dtype_name(f->dtype),
                        (long long)(f->in_rows ? s->total : a->layout.sequences),
                        f->in_rows ? "rows" : "sequences");
    f->data = apply_alloc(a, tensor->count, fv_dtype_bytes(f->dtype));
    if (f->data != NULL && tensor->count > 0)
        memcpy(f->data, tensor->data, field_bytes(f, tensor->shape[0]));
    return f->data != NULL ? FV_OK : FV_ERR_RESOURCE;
}

static fv_status read_store(apply *a, const char *path, fv_tensors *file, store *s)
{
    CLI_TRY(check_fingerprint(a, path, file));
    CLI_TRY(read_tokens(a, path, file, s));
    for (int i = 0; i < s->count; i++)
        CLI_TRY(read_field(a, path, file, s, &s->fields[i]));
    return FV_OK;
}

/* ---- states and fields --------------------------------------------------------------------------- */

static void copy_bytes(char *inside, char *outside, size_t bytes, bool to_state)
{
    if (bytes > 0)
        memcpy(to_state ? inside : outside, to_state ? outside : inside, bytes);
}

/* `rows` rows of keys of a field: a state has a head's together, [G][capacity][d]. */
static void move_rows(const field *f, int64_t capacity, int64_t rows, char *inside, char *outside,
                      bool to_state)
{
    int64_t heads = f->shape[0];
    size_t row = field_bytes(f, 1) / (size_t)heads;
    for (int64_t n = 0; n < rows * heads; n++) {
        int64_t r = n / heads, g = n % heads;
        copy_bytes(inside + (size_t)(g * capacity + r) * row, outside + (size_t)n * row, row, to_state);
    }
}

/* Copies every field of sequence n between its state and the store. */
static fv_status move_state(apply *a, store *s, int64_t n, int64_t rows_before, bool to_state)
{
    fv_state_view view;
    CLI_TRY(fv_attention_state_view(a->op, a->states[n], &view));
    for (int i = 0; i < s->count; i++) {
        const field *f = &s->fields[i];
        char *outside = f->data + field_bytes(f, f->in_rows ? rows_before : n);
        char *inside = view_field(&view, f->name);
        if (f->in_rows)
            move_rows(f, view.capacity, rows_of(s, n), inside, outside, to_state);
        else
            copy_bytes(inside, outside, field_bytes(f, 1), to_state);
    }
    return to_state ? fv_attention_state_set_tokens(a->op, a->states[n], s->tokens[n]) : FV_OK;
}

static fv_status make_state(apply *a, store *s, int64_t n, int64_t rows_before)
{
    int64_t length = a->layout.offsets_q[n + 1] - a->layout.offsets_q[n], capacity;
    size_t bytes;
    if (__builtin_add_overflow(length, s->tokens != NULL ? s->tokens[n] : 0, &capacity))
        return cli_fail(FV_ERR_RESOURCE, "sequence %lld: too many tokens", (long long)n);
    capacity = capacity > 0 ? capacity : 1;
    CLI_TRY(fv_attention_state_bytes(a->op, capacity, &bytes));
    a->states[n] = fv_alloc(a->ctx, bytes);
    if (a->states[n] == NULL)
        return FV_ERR_RESOURCE;
    CLI_TRY(fv_attention_state_init(a->op, capacity, a->states[n]));
    return s->tokens != NULL ? move_state(a, s, n, rows_before, true) : FV_OK;
}

fv_status apply_states_make(apply *a)
{
    const char *path = cli_text(a->args, "state-in");
    if (path == NULL && !cli_given(a->args, "state-out"))
        return FV_OK;
    store s = {0};
    CLI_TRY(plan_store(a, &s));
    if (path != NULL) {
        fv_tensors *file;
        CLI_TRY(fv_tensors_open(&file, a->ctx, path));
        fv_status status = read_store(a, path, file, &s);
        fv_tensors_close(file);
        CLI_TRY(status);
    }
    a->states = apply_alloc(a, a->layout.sequences, sizeof *a->states);
    if (a->states == NULL)
        return FV_ERR_RESOURCE;
    for (int64_t n = 0, before = 0; n < a->layout.sequences; n++) {
        CLI_TRY(make_state(a, &s, n, before));
        before += s.tokens != NULL ? rows_of(&s, n) : 0;
    }
    return FV_OK;
}

/* ---- writing ------------------------------------------------------------------------------------- */

static fv_status gather(apply *a, store *s)
{
    s->tokens = apply_alloc(a, a->layout.sequences, sizeof *s->tokens);
    if (s->tokens == NULL)
        return FV_ERR_RESOURCE;
    for (int64_t n = 0; n < a->layout.sequences; n++) {
        fv_state_view view;
        CLI_TRY(fv_attention_state_view(a->op, a->states[n], &view));
        s->tokens[n] = view.tokens;
        s->total += rows_of(s, n);
    }
    for (int i = 0; i < s->count; i++) {
        field *f = &s->fields[i];
        int64_t first = f->in_rows ? s->total : a->layout.sequences;
        f->data = apply_alloc(a, first * f->count, fv_dtype_bytes(f->dtype));
        if (f->data == NULL)
            return FV_ERR_RESOURCE;
    }
    for (int64_t n = 0, before = 0; n < a->layout.sequences; before += rows_of(s, n++))
        CLI_TRY(move_state(a, s, n, before, false));
    return FV_OK;
}

fv_status apply_states_write(apply *a)
{
    const char *path = cli_text(a->args, "state-out");
    if (path == NULL)
        return FV_OK;
    store s = {0};
    CLI_TRY(plan_store(a, &s));
    CLI_TRY(gather(a, &s));
    fv_tensor tensors[5] = {{.name = "tokens",
                             .dtype = FV_I64,
                             .rank = 1,
                             .shape = {a->layout.sequences},
                             .count = a->layout.sequences,
                             .data = s.tokens}};
    for (int i = 0; i < s.count; i++) {
        const field *f = &s.fields[i];
        int64_t first = f->in_rows ? s.total : a->layout.sequences;
        tensors[i + 1] = (fv_tensor){.name = f->name,
                                     .dtype = f->dtype,
                                     .rank = f->rank,
                                     .shape = {first, f->shape[0], f->shape[1], f->shape[2]},
                                     .count = first * f->count,
                                     .data = f->data};
    }
    fingerprint mine = fingerprint_of(a);
    const fv_metadata metadata[] = {
        {"format", FORMAT}, {"settings", mine.settings}, {"projection", mine.projection}};
    return fv_tensors_write(a->ctx, path, tensors, s.count + 1, metadata, CLI_COUNT(metadata));
}
