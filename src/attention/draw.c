/* draw.c: the random inputs of an operator, drawn from (seed, draw), one behind the other in the order of
 * fv_input. Every input has a stream of its own for each head. */
#include "attention/mechanism.h"
#include "features/projection.h"

typedef struct drawing {
    const fv_attention *op;
    fv_input which;
    fv_input_info info;
    uint64_t seed;
    uint32_t draw;
    double *work;
} drawing;

/* Rows omega of a projection: those of favor-hybrid's second estimator follow the first's heads. */
static bool draw_rows(const drawing *d, int kind, int norms, uint32_t set, float *out)
{
    bool known = true;
    int64_t heads = d->info.shape[0], rows = d->info.shape[1], cols = d->info.shape[2];
    for (int64_t h = 0; h < heads; h++)
        known &= fv_projection_draw(kind, norms, rows, cols, d->seed, d->draw, (uint32_t)h + set,
                                    out + h * rows * cols, d->work);
    return known;
}

/* Heads are fewer than 2^16 (operator.c): sets of streams beside the first begin there. */
enum { TRIG_SET = 1 << 16, ANGLE_SET = 2 << 16 };

static bool draw_input(const drawing *d, float *out)
{
    const fv_attention_options *o = &d->op->options;
    switch (d->which) {
    case FV_INPUT_PROJECTION:
        return draw_rows(d, (int)o->projection, (int)o->row_norms, 0, out);
    case FV_INPUT_PROJECTION_TRIG:
        return draw_rows(d, (int)o->projection, (int)o->row_norms, TRIG_SET, out);
    case FV_INPUT_ANGLE_ROWS:
        return draw_rows(d, FV_PROJECTION_IID, FV_ROW_NORMS_CHI, ANGLE_SET, out);
    default:
        if (d->op->mechanism->draw != NULL)
            return d->op->mechanism->draw(d->op, d->which, d->seed, d->draw, out);
        return d->op->mechanism->map != NULL && d->op->mechanism->map->draw != NULL &&
               d->op->mechanism->map->draw(d->op->mechanism->map, &d->op->options, d->which, d->seed, d->draw,
                                           out);
    }
}

/* For the largest of the projections; -1 when it cannot be addressed. */
static int64_t work_doubles(const fv_attention *op)
{
    const fv_attention_options *o = &op->options;
    int64_t iid = fv_projection_work(FV_PROJECTION_IID, o->angle_rows, o->dim);
    int64_t blocks = fv_projection_work((int)o->projection, FV_MAX(op->m, o->features_trig), o->dim);
    return blocks < 0 ? blocks : FV_MAX(iid, blocks);
}

fv_status fv_attention_draw(const fv_attention *op, uint64_t seed, uint64_t draw, float *drawn)
{
    drawing d = {.op = op, .seed = seed, .draw = (uint32_t)draw};
    fv_attention_info info;
    fv_attention_get_info(op, &info);
    if (info.drawn_floats == 0)
        return fv_fail(op->ctx, FV_ERR_USAGE,
                       "attention %s takes no projection and no other random numbers here", op->options.kind);
    if (draw > UINT32_MAX)
        return fv_fail(op->ctx, FV_ERR_USAGE, "attention: draw %llu is too large", (unsigned long long)draw);
    d.work = fv_alloc_array(op->ctx, work_doubles(op), sizeof *d.work);
    if (d.work == NULL)
        return FV_ERR_RESOURCE;
    bool known = true;
    for (int i = 0; i < FV_INPUT_COUNT; i++) {
        d.which = (fv_input)i;
        if (!fv_attention_input(op, d.which, &d.info) || d.info.role != FV_ROLE_DRAWN)
            continue;
        known &= draw_input(&d, drawn);
        drawn += d.info.floats;
    }
    fv_free(op->ctx, d.work);
    return known ? FV_OK
                 : fv_fail(op->ctx, FV_ERR_INTERNAL, "attention %s: nothing draws %s", op->options.kind,
                           fv_input_name(d.which));
}
