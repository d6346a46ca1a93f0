/* cli/apply.c: `favor apply`: one attention operator on tensors of a file. The way another program, in any
 * language, checks favor.
 *
 * Read and check the input (apply_inputs.c); make the operator and its other inputs (apply_extra.c); forward, backward and rows over all sequences
 * at once, or sequence by sequence where each has a state (apply_state.c); write the outputs.
 */
#include "apply.h"
#include <string.h>

static const cli_option options[] = {
    {.name = "input",
     .letter = 'i',
     .required = true,
     .type = CLI_FILE,
     .help = "safetensors file with q, k, v"},
    {.name = "output",
     .letter = 'o',
     .required = true,
     .type = CLI_FILE,
     .help = "safetensors file to write"},
    {.name = "write", .type = CLI_LIST, .choices = "projection", .help = "what to write besides the outputs"},
    {.name = "rows",
     .type = CLI_LIST,
     .metavar = "I,J,...",
     .help = "query tokens whose rows of the attention matrix are written as `weights`"},
    {.name = "state-in",
     .type = CLI_FILE,
     .help = "continue the causal sequences whose states this file holds"},
    {.name = "state-out", .type = CLI_FILE, .help = "write the states the sequences end with"},
};
static const cli_group own = {"Files", options, CLI_COUNT(options)};
static const cli_group *const groups[] = {&own, &cli_attention_group, &cli_common_group, NULL};

/* ---- the operator -------------------------------------------------------------------------------- */

static fv_status make_operator(apply *a)
{
    a->options.heads = a->H, a->options.kv_heads = a->G;
    a->options.dim = a->d, a->options.value_dim = a->dv;
    CLI_TRY(apply_extra_options(a));
    CLI_TRY(cli_attention_choose(a->ctx, cli_text(a->args, "attention"), a->Tk, a->dy != NULL, &a->options));
    CLI_TRY(fv_attention_create(&a->op, a->ctx, &a->options));
    fv_attention_get_info(a->op, &a->info);
    return apply_extra_read(a);
}

/* ---- rows and states asked for ------------------------------------------------------------------- */

static fv_status read_rows(apply *a)
{
    a->row_count = cli_count(a->args, "rows");
    int64_t *rows = apply_alloc(a, a->row_count, sizeof *rows);
    if (rows == NULL)
        return FV_ERR_RESOURCE;
    for (int i = 0; i < a->row_count; i++) {
        const char *text = cli_item(a->args, "rows", i);
        if (!cli_parse_int(text, &rows[i]) || rows[i] < 0 || rows[i] >= a->Tq)
            return cli_fail(FV_ERR_USAGE, "--rows %s: expected a query token from 0 to %lld", text,
                            (long long)a->Tq - 1);
    }
    a->rows = rows;
    return FV_OK;
}

static fv_status check_lengths(const apply *a)
{
    const int64_t *q = a->layout.offsets_q, *k = a->offsets_k;
    for (int64_t s = 0; a->options.causal && s < a->layout.sequences; s++)
        if (q[s + 1] - q[s] != k[s + 1] - k[s])
            return cli_fail(
                FV_ERR_USAGE,
                "--causal: sequence %lld has %lld queries and %lld keys, causal attention needs equally "
                "many",
                (long long)s, (long long)(q[s + 1] - q[s]), (long long)(k[s + 1] - k[s]));
    return FV_OK;
}

static fv_status check_streaming(const apply *a)
{
    bool in = cli_given(a->args, "state-in");
    const char *option = in ? "--state-in" : "--state-out";
    if (!in && !cli_given(a->args, "state-out"))
        return FV_OK;
    if (!a->options.causal || !a->info.can_stream)
        return cli_fail(FV_ERR_USAGE, "%s: needs --causal and an attention that can stream", option);
    if (in && a->dy != NULL)
        return cli_fail(FV_ERR_USAGE,
                        "--state-in: gradients of a continued run cannot be taken; remove the tensor dy");
    if (in && a->row_count > 0)
        return cli_fail(FV_ERR_USAGE, "--state-in: --rows needs the whole sequence in one file");
    return FV_OK;
}

/* ---- running ------------------------------------------------------------------------------------- */

static bool allocate_gradients(apply *a)
{
    a->dq = apply_alloc(a, a->Tq * a->H * a->d, sizeof *a->dq);
    a->dk = apply_alloc(a, a->Tk * a->G * a->d, sizeof *a->dk);
    a->dv_out = apply_alloc(a, a->Tk * a->G * a->dv, sizeof *a->dv_out);
    bool ok = a->dq != NULL && a->dk != NULL && a->dv_out != NULL;
    for (int i = 0; i < FV_INPUT_COUNT && ok; i++) {
        apply_input *input = &a->input[i];
        if (!input->taken || !input->info.has_gradient || input->values == NULL)
            continue;
        int64_t tokens = input->info.role == FV_ROLE_TOKEN ? a->Tk : 1;
        input->gradient = apply_alloc(a, tokens * input->info.floats, sizeof *input->gradient);
        ok = input->gradient != NULL;
    }
    return ok;
}

static bool allocate_outputs(apply *a)
{
    int64_t count = a->Tq * a->H * a->dv, entries;
    a->y = apply_alloc(a, count, sizeof *a->y);
    if (a->row_count > 0 && __builtin_mul_overflow(a->H * a->row_count, a->Tk, &entries))
        return false;
    if (a->row_count > 0)
        a->weights = apply_alloc(a, entries, sizeof *a->weights);
    return a->y != NULL && (a->dy == NULL || allocate_gradients(a)) &&
           (a->row_count == 0 || a->weights != NULL);
}

/* Forward over one layout whose first tokens are q0 and k0; backward too, where no state is kept. */
static fv_status run_layout(apply *a, const fv_layout *layout, int64_t q0, int64_t k0, void *state)
{
    fv_memory need;
    CLI_TRY(fv_attention_measure(a->op, layout, &need));
    bool backward = a->dy != NULL && state == NULL;
    void *saved = backward ? fv_alloc(a->ctx, need.saved) : NULL;
    void *scratch = fv_alloc(a->ctx, need.scratch);
    fv_status status = scratch == NULL || (backward && saved == NULL) ? FV_ERR_RESOURCE : FV_OK;
    int64_t q_at = q0 * a->H * a->d, k_at = k0 * a->G * a->d, v_at = k0 * a->G * a->dv,
            y_at = q0 * a->H * a->dv;
    fv_attention_io io = {
        .q = a->q + q_at, .k = a->k + k_at, .v = a->v + v_at, .y = a->y + y_at, .state = state};
    fv_attention_grad grad = {0};
    apply_extra_bind(a, k0, &io, &grad);
    if (status == FV_OK)
        status = fv_attention_forward(a->op, layout, &io, saved, scratch);
    if (status == FV_OK && backward) {
        grad.dy = a->dy + y_at, grad.dq = a->dq + q_at;
        grad.dk = a->dk + k_at, grad.dv = a->dv_out + v_at;
        status = fv_attention_backward(a->op, layout, &io, &grad, saved, scratch);
    }
    fv_free(a->ctx, saved);
    fv_free(a->ctx, scratch);
    return status;
}

/* States differ in size where keys are kept, so each sequence runs with its own. */
static fv_status run_streams(apply *a)
{
    for (int64_t s = 0; s < a->layout.sequences; s++) {
        const int64_t *at = a->layout.offsets_q + s;
        int64_t offsets[2] = {0, at[1] - at[0]};
        CLI_TRY(run_layout(a, &(fv_layout){1, offsets, NULL}, at[0], a->offsets_k[s], a->states[s]));
    }
    return FV_OK;
}

static fv_status run_rows(apply *a)
{
    fv_memory need;
    CLI_TRY(fv_attention_measure(a->op, &a->layout, &need));
    void *scratch = fv_alloc(a->ctx, need.scratch);
    fv_attention_io io = {.q = a->q, .k = a->k, .v = a->v};
    apply_extra_bind(a, 0, &io, NULL);
    fv_status status = scratch == NULL ? FV_ERR_RESOURCE
                                       : fv_attention_weights(a->op, &a->layout, &io, a->rows, a->row_count,
                                                              a->weights, scratch);
    fv_free(a->ctx, scratch);
    return status;
}

/* Kernels that are power series (rmf-*) end at a radius: the numbers beyond it are finite and mean nothing. */
static fv_status note_domain(apply *a)
{
    double radius = fv_attention_radius(a->op), reach = 0;
    fv_attention_io io = {.q = a->q, .k = a->k};
    if (radius > 1e30)
        return FV_OK;
    CLI_TRY(fv_attention_reach(a->op, &a->layout, &io, &reach));
    if (reach >= radius)
        cli_note("%s: |q.k scale| may reach %.4g, the kernel of %s ends at %g: make q and k smaller with "
                 "--scale or "
                 "--ppsbn",
                 a->path, reach, a->options.kind, radius);
    double rest = fv_attention_truncation(a->op, reach < radius ? reach : 0);
    if (rest > 0)
        cli_note("%s: degrees beyond %lld are left out: the kernel lacks at most %.3g", a->path,
                 (long long)a->info.options.rmf_max_degree, rest);
    return FV_OK;
}

static fv_status compute(apply *a)
{
    CLI_TRY(note_domain(a));
    if (!allocate_outputs(a))
        return cli_fail(FV_ERR_RESOURCE, "out of memory for the outputs");
    if (a->states != NULL)
        CLI_TRY(run_streams(a));
    /* Gradients are of the whole sequences, which begin here: --state-in and dy exclude each other. */
    if (a->states == NULL || a->dy != NULL)
        CLI_TRY(run_layout(a, &a->layout, 0, 0, NULL));
    return a->row_count > 0 ? run_rows(a) : FV_OK;
}

/* ---- writing ------------------------------------------------------------------------------------- */

static fv_tensor tensor_of(const char *name, const float *data, int64_t a, int64_t b, int64_t c)
{
    return (fv_tensor){
        .name = name, .dtype = FV_F32, .rank = 3, .shape = {a, b, c}, .count = a * b * c, .data = data};
}

static json_t *shape_json(const fv_tensor *tensor)
{
    json_t *shape = json_array();
    for (int i = 0; i < tensor->rank; i++)
        json_array_append_new(shape, json_integer(tensor->shape[i]));
    return shape;
}

static fv_status print_json(const apply *a, const fv_tensor *outputs, int count)
{
    json_t *list = json_object();
    for (int i = 0; i < count; i++)
        json_object_set_new(list, outputs[i].name, shape_json(&outputs[i]));
    const fv_attention_options *o = &a->info.options;
    return cli_json_print(
        json_pack("{s:s, s:b, s:f, s:I, s:I, s:I, s:s, s:o}", "attention", o->kind, "causal", o->causal,
                  "scale", o->scale, "projection_rows", (json_int_t)a->info.projection_rows, "features",
                  (json_int_t)a->info.feature_count, "sequences", (json_int_t)a->layout.sequences, "output",
                  cli_text(a->args, "output"), "tensors", list));
}

static fv_status write_outputs(apply *a)
{
    fv_tensor outputs[APPLY_OUTPUT_MAX];
    int count = 0;
    outputs[count++] = tensor_of("y", a->y, a->Tq, a->H, a->dv);
    if (a->dy != NULL) {
        outputs[count++] = tensor_of("dq", a->dq, a->Tq, a->H, a->d);
        outputs[count++] = tensor_of("dk", a->dk, a->Tk, a->G, a->d);
        outputs[count++] = tensor_of("dv", a->dv_out, a->Tk, a->G, a->dv);
    }
    CLI_TRY(apply_extra_outputs(a, outputs, &count));
    if (a->row_count > 0)
        outputs[count++] = tensor_of("weights", a->weights, a->H, a->row_count, a->Tk);
    CLI_TRY(fv_tensors_write(a->ctx, cli_text(a->args, "output"), outputs, count, NULL, 0));
    return cli_flag(a->args, "json") ? print_json(a, outputs, count) : FV_OK;
}

static fv_status apply_run(apply *a)
{
    CLI_TRY(cli_attention_options(a->args, NULL, &a->options));
    a->kind = fv_attention_kind_find(a->options.kind);
    CLI_TRY(apply_read(a));
    CLI_TRY(check_lengths(a));
    CLI_TRY(make_operator(a));
    CLI_TRY(read_rows(a));
    CLI_TRY(check_streaming(a));
    CLI_TRY(apply_states_make(a));
    CLI_TRY(compute(a));
    CLI_TRY(apply_states_write(a));
    return write_outputs(a);
}

static fv_status run(fv_context *ctx, const cli_args *args)
{
    apply a = {.ctx = ctx, .args = args, .path = cli_text(args, "input")};
    fv_status status = apply_run(&a);
    fv_attention_destroy(a.op);
    for (int64_t s = 0; a.states != NULL && s < a.layout.sequences; s++)
        fv_free(ctx, a.states[s]);
    for (int i = 0; i < a.owned_count; i++)
        fv_free(ctx, a.owned[i]);
    fv_tensors_close(a.in);
    return status;
}

const cli_command cli_apply = {
    .name = "apply",
    .summary = "run one attention operator on the tensors of a file",
    .description =
        "Reads q [Tq,H,d], k [Tk,G,d] and v [Tk,G,dv] from a safetensors file (F32; F64 and BF16 are "
        "converted), runs "
        "the attention and writes y [Tq,H,dv]. Query head h reads key and value head h*G/H.\n"
        "\n"
        "Optional tensors: offsets_q and offsets_k (I64, where packed sequences begin, and the end); dy "
        "(gradients are "
        "computed and dq, dk, dv written); and those of the kind and its modifiers, as `favor info` lists "
        "them: "
        "projection [m,d] or [H,m,d] and other random numbers (used instead of drawn ones), gate [Tk,H], "
        "decay [H], "
        "position_bias [H,2N-1] and the like. A tensor switches its modifier on; one that has a head "
        "dimension may "
        "come without it and serves all heads. With dy, d_NAME is the gradient of the tensor NAME.\n"
        "\n"
        "--state-out and --state-in continue a causal run where another one stopped, given the same "
        "projection. A "
        "tensor that does not fit is a bad file, exit code 3; a combination that cannot be is wrong use, 2.",
    .examples = "favor apply -i in.safetensors -o out.safetensors --attention favor+ --features 256\n"
                "favor apply -i in.safetensors -o out.safetensors --attention exact --causal --rows 0,5",
    .groups = groups,
    .run = run,
};
