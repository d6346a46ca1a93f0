/* exact_backward.c: softmax attention backward, one task a (sequence, key head), or a key head of all sequences
 * where they add to the same gradient of the position bias. A task owns the rows of dk and dv it adds to, and
 * those of dq of its query heads, and walks them in a fixed order: no sum depends on threads.
 *
 * Long heads that are too few for all threads are shared: a window of key tiles meets the blocks of queries in rounds.
 * First each key tile of the window, one task, takes the round's blocks in order and keeps their dS; then each block
 * takes these dS in the order of the tiles. Products and sums are those of a task a head, in the same order for each
 * element, so that the choice may depend on the number of threads.
 */
#include "attention/exact.h"
#include "attention/shared_heads.h"

/* A window: at least as many tiles and blocks as threads, so that they share them evenly; more of a few threads, so
 * that their meetings cost nothing (each is some 20 us, a tile and a block 200 us); fewer blocks of many, which
 * need memory and a fifth of the time only. */
enum { WINDOW_TILES = 8, WINDOW_BLOCKS = 4, MOST_BLOCKS = 16 };

/* What a head in hand is shared by; NULL where none is. */
typedef struct backward_window {
    int64_t tiles, blocks;
    float *k, *v; /* [tiles][keys][d], [tiles][keys][dv], dense */
    float *ds;    /* [tiles][blocks][rows][keys] */
} backward_window;

typedef struct backward_call {
    const fv_attention *op;
    const fv_layout *layout;
    fv_attention_io io;
    const fv_attention_grad *grad;
    const float *lse; /* [H][Tq] */
    float *delta;     /* [H][Tq], D_i = dy_i . y_i */
    fv_exact_tiles tiles;
    fv_exact_bias bias;
    float *d_bias;          /* [H][2N-1] or NULL */
    fv_shared_heads shared; /* key heads */
    backward_window window;
    char *workers;
    size_t worker_bytes;
} backward_call;

typedef struct backward_scratch {
    float *p, *ds;    /* [rows][keys] */
    float *k, *v;     /* [keys][d], [keys][dv]: a tile's keys and values, dense */
    int64_t *visible; /* [rows] */
    float *diagonals; /* [rows + keys] a tile's sums of dS, in the order of the table of biases */
    float *d_bias;    /* [2N-1] a head's, in that order */
} backward_scratch;

static backward_scratch push_scratch(fv_arena *arena, const fv_attention_options *o, fv_exact_tiles tiles)
{
    backward_scratch s;
    s.p = FV_PUSH(arena, float, tiles.rows *tiles.keys);
    s.ds = FV_PUSH(arena, float, tiles.rows *tiles.keys);
    s.k = FV_PUSH(arena, float, tiles.keys * o->dim);
    s.v = FV_PUSH(arena, float, tiles.keys * o->value_dim);
    s.visible = FV_PUSH(arena, int64_t, tiles.rows);
    s.diagonals = s.d_bias = NULL;
    if (o->position_bias == FV_POSITION_BIAS_KERNEL) {
        s.diagonals = FV_PUSH(arena, float, tiles.rows + tiles.keys);
        s.d_bias = FV_PUSH(arena, float, 2 * o->position_span - 1);
    }
    return s;
}

/* ---- which heads are shared ---------------------------------------------------------------------------- */

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* A gradient of position bias is one sum over all tiles of a head, in order: its heads stay whole. */
static fv_task_size size_of_head(const void *call, int64_t s)
{
    const backward_call *c = call;
    const int64_t *q = c->layout->offsets_q, *k = fv_layout_keys(c->layout);
    int64_t keys = k[s + 1] - k[s];
    return (fv_task_size){.work = (double)(q[s + 1] - q[s]) * (double)keys,
                          .pieces = c->d_bias == NULL ? divide_up(keys, c->tiles.keys) : 0};
}

static backward_window push_window(fv_arena *arena, const backward_call *c)
{
    const fv_attention_options *o = &c->op->options;
    const int64_t *offsets_q = c->layout->offsets_q, *offsets_k = fv_layout_keys(c->layout);
    int64_t threads = c->op->ctx->threads, tiles = 0, blocks = 0;
    for (int64_t s = 0; s < c->layout->sequences; s++) {
        if (!fv_is_shared(&c->shared, (s + 1) * o->kv_heads - 1))
            continue;
        tiles = FV_MAX(tiles, divide_up(offsets_k[s + 1] - offsets_k[s], c->tiles.keys));
        blocks = FV_MAX(blocks, divide_up(offsets_q[s + 1] - offsets_q[s], c->tiles.rows));
    }
    backward_window w = {
        .tiles = FV_MIN(tiles, divide_up(WINDOW_TILES, threads) * threads),
        .blocks = FV_MIN(blocks, FV_MIN(FV_MAX(WINDOW_BLOCKS, threads), MOST_BLOCKS)),
    };
    w.k = FV_PUSH(arena, float, w.tiles * c->tiles.keys * o->dim);
    w.v = FV_PUSH(arena, float, w.tiles * c->tiles.keys * o->value_dim);
    w.ds = FV_PUSH(arena, float, w.tiles *w.blocks * c->tiles.rows * c->tiles.keys);
    return w;
}

static void lay_out(fv_arena *arena, backward_call *c)
{
    int64_t floats;
    c->tiles = fv_exact_backward_tiles(c->op, c->layout);
    c->shared =
        fv_share_heads(c->layout->sequences, c->op->options.kv_heads, c->op->ctx->threads, size_of_head, c);
    c->window = push_window(arena, c);
    bool fits = fv_mul(c->layout->offsets_q[c->layout->sequences], c->op->options.heads, &floats);
    c->delta = FV_PUSH(arena, float, fits ? floats : INT64_MAX);
    c->bias = fv_exact_bias_push(arena, c->op);
    fv_arena worker = fv_arena_measure();
    push_scratch(&worker, &c->op->options, c->tiles);
    c->worker_bytes = worker.used;
    c->workers = fv_arena_push(arena, c->op->ctx->threads, c->worker_bytes);
}

size_t fv_exact_backward_bytes(const fv_attention *op, const fv_layout *layout)
{
    fv_arena arena = fv_arena_measure();
    backward_call call = {.op = op, .layout = layout};
    lay_out(&arena, &call);
    return arena.used;
}

/* One head of one sequence. */
typedef struct head_view {
    fv_softmax_head at;
    const float *bias; /* of the first query and key, or NULL */
} head_view;

static head_view view_head(const backward_call *c, int64_t s, int64_t h)
{
    return (head_view){
        .at = fv_softmax_head_of(c->op, c->layout, &c->io, c->grad, c->lse, c->delta, s, h),
        .bias = fv_exact_bias_at(&c->bias, h, 0, 0),
    };
}

/* P [n][cols] of queries i.. and keys j.., and how many of the keys each query sees. */
static void probabilities(const backward_call *c, const head_view *x, int64_t i, int64_t n, int64_t j,
                          int64_t cols, const backward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t d = c->op->options.dim, ldq = c->io.q_stride;
    bool masked = c->op->options.causal && i + 1 < j + cols;
    for (int64_t row = 0; row < n; row++)
        t->visible[row] = masked ? FV_MAX(0, FV_MIN(cols, i + row + 1 - j)) : cols;
    kr->gemm('N', 'T', n, cols, d, fv_softmax_factor(c->op), x->at.q + i * ldq, ldq, t->k, d, 0.0f, t->p,
             cols);
    if (x->bias != NULL)
        fv_exact_bias_add(c->op, x->bias - i + j, n, cols, t->p);
    kr->softmax_probs(n, cols, t->p, cols, masked ? t->visible : NULL, x->at.lse + i);
}

/* The head's d b += dS summed along the diagonals of the tile: first there, so that no sum is long. */
static void add_diagonals(const backward_call *c, int64_t i, int64_t n, int64_t j, int64_t cols,
                          const backward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    float *out = t->d_bias + c->bias.span - 1 - (i + n - 1) + j;
    kr->fill(n + cols - 1, 0.0f, t->diagonals);
    for (int64_t row = 0; row < n; row++) {
        float *sums = t->diagonals + n - 1 - row;
        kr->add(t->visible[row], sums, t->ds + row * cols, sums);
    }
    kr->add(n + cols - 1, out, t->diagonals, out);
}

/* P and dS of a tile, and what they add to dv_j and dk_j. */
static void backward_keys(const backward_call *c, const head_view *x, int64_t i, int64_t n, int64_t j,
                          int64_t cols, const backward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    const fv_attention_io *io = &c->io;
    int64_t d = c->op->options.dim, width = c->op->options.value_dim;
    int64_t ldq = io->q_stride, ldk = io->k_stride, ldv = io->v_stride, ldy = io->y_stride;
    const float *dy = x->at.dy + i * ldy;

    probabilities(c, x, i, n, j, cols, t);
    if (x->at.dv != NULL) /* dv_j += sum_i P_ij dy_i */
        kr->gemm('T', 'N', cols, width, n, 1.0f, t->p, cols, dy, ldy, 1.0f, x->at.dv + j * ldv, ldv);
    if (x->at.dq == NULL && x->at.dk == NULL && c->d_bias == NULL)
        return;
    /* dS_ij = P_ij (dy_i.v_j - D_i) */
    kr->gemm('N', 'T', n, cols, width, 1.0f, dy, ldy, t->v, width, 0.0f, t->ds, cols);
    kr->softmax_back(n, cols, t->p, cols, t->ds, cols, x->at.delta + i, t->ds, cols);
    if (c->d_bias != NULL)
        add_diagonals(c, i, n, j, cols, t);
    if (x->at.dk != NULL) /* dk_j += scale sum_i dS_ij q_i */
        kr->gemm('T', 'N', cols, d, n, (float)c->op->options.scale, t->ds, cols, x->at.q + i * ldq, ldq, 1.0f,
                 x->at.dk + j * ldk, ldk);
}

/* dq_i += scale sum_j dS_ij k_j */
static void backward_queries(const backward_call *c, const head_view *x, int64_t i, int64_t n, int64_t cols,
                             const float *ds, const float *k)
{
    int64_t d = c->op->options.dim, ldq = c->io.q_stride;
    if (x->at.dq != NULL)
        c->op->ctx->kernels->gemm('N', 'N', n, d, cols, (float)c->op->options.scale, ds, cols, k, d, 1.0f,
                                  x->at.dq + i * ldq, ldq);
}

/* Products take a dense tile a tenth faster than one of rows far apart, and many query blocks use it. */
static void copy_keys(const backward_call *c, const head_view *x, int64_t j, float *k, float *v)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t n = FV_MIN(c->tiles.keys, x->at.keys - j), d = c->op->options.dim, dv = c->op->options.value_dim;
    kr->copy_rows(n, d, x->at.k + j * c->io.k_stride, c->io.k_stride, k, d);
    kr->copy_rows(n, dv, x->at.v + j * c->io.v_stride, c->io.v_stride, v, dv);
}

/* The block of queries i.. and the key tile j..: its rows, and its columns; those above the diagonal do not exist. */
static int64_t block_rows(const backward_call *c, const head_view *x, int64_t i)
{
    return FV_MIN(c->tiles.rows, x->at.queries - i);
}

static int64_t tile_columns(const backward_call *c, const head_view *x, int64_t i, int64_t n, int64_t j)
{
    int64_t end = FV_MIN(j + c->tiles.keys, x->at.keys);
    return (c->op->options.causal ? FV_MIN(end, i + n) : end) - j;
}

/* The first block of queries that key j is seen by. */
static int64_t first_block(const backward_call *c, int64_t j)
{
    return c->op->options.causal ? j / c->tiles.rows * c->tiles.rows : 0;
}

static void backward_head(const backward_call *c, const head_view *x, const backward_scratch *t)
{
    for (int64_t j = 0; j < x->at.keys; j += c->tiles.keys) {
        copy_keys(c, x, j, t->k, t->v);
        for (int64_t i = first_block(c, j); i < x->at.queries; i += c->tiles.rows) {
            int64_t n = block_rows(c, x, i), cols = tile_columns(c, x, i, n, j);
            backward_keys(c, x, i, n, j, cols, t);
            backward_queries(c, x, i, n, cols, t->ds, t->k);
        }
    }
}

static backward_scratch worker_scratch(const backward_call *c, int worker)
{
    fv_arena arena = fv_arena_over(c->workers + (size_t)worker * c->worker_bytes, c->worker_bytes);
    return push_scratch(&arena, &c->op->options, c->tiles);
}

/* ---- heads that all threads share ---------------------------------------------------------------------- */

/* A round: the key tiles from `j` to `end_j`, the query blocks from `i` to `end_i`. */
typedef struct backward_round {
    const backward_call *c;
    head_view x;
    int64_t first_i, i, end_i, j, end_j; /* first_i: of the window's first round */
} backward_round;

static float *window_k(const backward_call *c, int64_t tile)
{
    return c->window.k + tile * c->tiles.keys * c->op->options.dim;
}

static float *window_ds(const backward_call *c, int64_t tile, int64_t block)
{
    return c->window.ds + (tile * c->window.blocks + block) * c->tiles.rows * c->tiles.keys;
}

static void keys_task(void *arg, int64_t tile, int worker)
{
    const backward_round *r = arg;
    const backward_call *c = r->c;
    int64_t j = r->j + tile * c->tiles.keys;
    backward_scratch t = worker_scratch(c, worker);
    t.k = window_k(c, tile);
    t.v = c->window.v + tile * c->tiles.keys * c->op->options.value_dim;
    if (r->i == r->first_i)
        copy_keys(c, &r->x, j, t.k, t.v);
    for (int64_t i = FV_MAX(r->i, first_block(c, j)); i < r->end_i; i += c->tiles.rows) {
        int64_t n = block_rows(c, &r->x, i);
        t.ds = window_ds(c, tile, (i - r->i) / c->tiles.rows);
        backward_keys(c, &r->x, i, n, j, tile_columns(c, &r->x, i, n, j), &t);
    }
}

static void queries_task(void *arg, int64_t block, int worker)
{
    const backward_round *r = arg;
    const backward_call *c = r->c;
    int64_t i = r->i + block * c->tiles.rows, n = block_rows(c, &r->x, i);
    (void)worker;
    for (int64_t j = r->j, tile = 0; j < r->end_j && first_block(c, j) <= i; j += c->tiles.keys, tile++)
        backward_queries(c, &r->x, i, n, tile_columns(c, &r->x, i, n, j), window_ds(c, tile, block),
                         window_k(c, tile));
}

static void backward_shared(const backward_call *c, int64_t s, int64_t h)
{
    backward_round r = {.c = c, .x = view_head(c, s, h)};
    int64_t tiles = c->window.tiles * c->tiles.keys, blocks = c->window.blocks * c->tiles.rows;
    for (r.j = 0; r.j < r.x.at.keys; r.j = r.end_j) {
        r.end_j = FV_MIN(r.j + tiles, r.x.at.keys);
        r.first_i = first_block(c, r.j);
        for (r.i = r.first_i; r.i < r.x.at.queries; r.i = r.end_i) {
            r.end_i = FV_MIN(r.i + blocks, r.x.at.queries);
            fv_parallel(c->op->ctx, divide_up(r.end_j - r.j, c->tiles.keys), keys_task, &r);
            if (r.x.at.dq != NULL)
                fv_parallel(c->op->ctx, divide_up(r.end_i - r.i, c->tiles.rows), queries_task, &r);
        }
    }
}

/* ---- all heads ----------------------------------------------------------------------------------------- */

/* Query head h of every sequence, and d b of the head. */
static void backward_biased(const backward_call *c, int64_t h, const backward_scratch *t)
{
    int64_t all = 2 * c->bias.span - 1;
    float *d_bias = c->d_bias + h * all;
    c->op->ctx->kernels->fill(all, 0.0f, t->d_bias);
    for (int64_t s = 0; s < c->layout->sequences; s++) {
        head_view x = view_head(c, s, h);
        backward_head(c, &x, t);
    }
    for (int64_t i = 0; t->d_bias != NULL && i < all; i++)
        d_bias[i] += t->d_bias[all - 1 - i];
}

static void backward_task(void *arg, int64_t index, int worker)
{
    const backward_call *c = arg;
    const fv_attention_options *o = &c->op->options;
    int64_t s = index / o->kv_heads, g = index % o->kv_heads, group = o->heads / o->kv_heads;
    backward_scratch scratch = worker_scratch(c, worker);
    if (fv_is_shared(&c->shared, index))
        return;
    for (int64_t h = g * group; h < (g + 1) * group; h++) {
        if (c->d_bias != NULL) {
            backward_biased(c, h, &scratch);
            continue;
        }
        head_view x = view_head(c, s, h);
        backward_head(c, &x, &scratch);
    }
}

static void delta_task(void *arg, int64_t h, int worker)
{
    const backward_call *c = arg;
    int64_t all = c->layout->offsets_q[c->layout->sequences], dv = c->op->options.value_dim;
    int64_t ldy = c->io.y_stride;
    (void)worker;
    c->op->ctx->kernels->row_dots(all, dv, 1.0f, c->grad->dy + h * dv, ldy, c->io.y + h * dv, ldy, 0.0f,
                                  c->delta + h * all);
}

fv_status fv_exact_backward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                            const fv_attention_grad *grad, const void *saved, void *scratch)
{
    backward_call call = {
        .op = op, .layout = layout, .io = fv_softmax_resolve(op, io), .grad = grad, .lse = saved};
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    TRY(fv_bias_check_span(op, layout));
    call.d_bias = grad->d_input[FV_INPUT_POSITION_BIAS];
    lay_out(&arena, &call);
    fv_exact_bias_load(op, io, &call.bias);
    fv_parallel(op->ctx, op->options.heads, delta_task, &call);
    int64_t kv_heads = op->options.kv_heads, group = op->options.heads / kv_heads;
    for (int64_t i = 0; i < layout->sequences * kv_heads; i++)
        for (int64_t h = 0; h < group && fv_is_shared(&call.shared, i); h++)
            backward_shared(&call, i / kv_heads, i % kv_heads * group + h);
    fv_parallel(op->ctx, (call.d_bias != NULL ? 1 : layout->sequences) * kv_heads, backward_task, &call);
    return FV_OK;
}
