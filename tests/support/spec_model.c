#include "support/spec_model.h"
#include <math.h>
#include <string.h>

enum { T = SPEC_TOKENS, LAYERS = 2, WIDTH = 16, HEADS = 2, DIM = 8, INNER = 32, VOCABULARY = 29 };

typedef struct layer_arrays {
    double x[T][WIDTH], normed[T][WIDTH], qkv[T][3 * WIDTH], y[T][WIDTH];
    double between[T][WIDTH], normed2[T][WIDTH], u[T][INNER], a[T][INNER];
} layer_arrays;

typedef struct spec {
    const fv_model *model;
    const float *values;
    double (*keep)(double);
    double *gradient;
    bool exact;
    double epsilon; /* of relu's features */
    layer_arrays layers[LAYERS];
    double last[T][WIDTH], normed[T][WIDTH], dl[T][VOCABULARY];
} spec;

static double value(const spec *s, int64_t offset)
{
    return (double)s->values[offset];
}

/* ---- y = W x + b ------------------------------------------------------------------------------------- */

typedef struct matrix {
    int64_t weight, bias; /* offsets; bias -1: none */
    int out, in;
} matrix;

static void linear(const spec *s, matrix m, const double *x, double *y)
{
    for (int t = 0; t < T; t++)
        for (int o = 0; o < m.out; o++) {
            double sum = m.bias >= 0 ? value(s, m.bias + o) : 0;
            for (int i = 0; i < m.in; i++)
                sum += s->keep(value(s, m.weight + o * m.in + i)) * x[t * m.in + i];
            y[t * m.out + o] = s->keep(sum);
        }
}

static void linear_back(const spec *s, matrix m, const double *x, const double *dy, double *dx)
{
    for (int t = 0; t < T; t++) {
        for (int i = 0; i < m.in; i++) {
            double sum = 0;
            for (int o = 0; o < m.out; o++)
                sum += s->keep(value(s, m.weight + o * m.in + i)) * dy[t * m.out + o];
            dx[t * m.in + i] = s->keep(sum);
        }
        for (int o = 0; o < m.out; o++) {
            for (int i = 0; i < m.in; i++)
                s->gradient[m.weight + o * m.in + i] += dy[t * m.out + o] * x[t * m.in + i];
            if (m.bias >= 0)
                s->gradient[m.bias + o] += dy[t * m.out + o];
        }
    }
}

/* ---- layer norm -------------------------------------------------------------------------------------- */

/* Returns 1/deviation; xhat [WIDTH]. */
static double unit_row(const double *x, double *xhat)
{
    double mean = 0, variance = 1e-5;
    for (int i = 0; i < WIDTH; i++)
        mean += x[i] / WIDTH;
    for (int i = 0; i < WIDTH; i++)
        variance += (x[i] - mean) * (x[i] - mean) / WIDTH;
    for (int i = 0; i < WIDTH; i++)
        xhat[i] = (x[i] - mean) / sqrt(variance);
    return 1 / sqrt(variance);
}

static void norm(const spec *s, int64_t gain, int64_t bias, double (*x)[WIDTH], double (*y)[WIDTH])
{
    for (int t = 0; t < T; t++) {
        double xhat[WIDTH];
        unit_row(x[t], xhat);
        for (int i = 0; i < WIDTH; i++)
            y[t][i] = s->keep(xhat[i] * value(s, gain + i) + value(s, bias + i));
    }
}

/* dx is added to the gradient of the stream. */
static void norm_back(const spec *s, int64_t gain, int64_t bias, double (*x)[WIDTH], double (*dy)[WIDTH],
                      double (*dx)[WIDTH])
{
    for (int t = 0; t < T; t++) {
        double xhat[WIDTH], mean = 0, along = 0, rstd = unit_row(x[t], xhat);
        for (int i = 0; i < WIDTH; i++) {
            double g = dy[t][i] * value(s, gain + i);
            mean += g / WIDTH;
            along += g * xhat[i] / WIDTH;
            s->gradient[gain + i] += dy[t][i] * xhat[i];
            s->gradient[bias + i] += dy[t][i];
        }
        for (int i = 0; i < WIDTH; i++) {
            double g = dy[t][i] * value(s, gain + i);
            dx[t][i] = s->keep(dx[t][i] + s->keep(rstd * (g - mean - xhat[i] * along)));
        }
    }
}

/* ---- attention --------------------------------------------------------------------------------------- */

/* exact: the vector itself; relu: max(x, 0) + epsilon. */
static double feature(const spec *s, double x)
{
    return s->exact ? x : s->keep(fmax(x, 0) + s->epsilon);
}

static double slope(const spec *s, double x)
{
    return s->exact || x > 0 ? 1 : 0;
}

/* Weights of row i over keys 0 .. i of a head, and their sum. qkv of the head's first channel. */
static double weigh(const spec *s, double (*qkv)[3 * WIDTH], int head, int i, double *a)
{
    double largest = -HUGE_VAL, sum = 0;
    for (int j = 0; j <= i; j++) {
        a[j] = 0;
        for (int c = head * DIM; c < (head + 1) * DIM; c++)
            a[j] += feature(s, qkv[i][c]) * feature(s, qkv[j][WIDTH + c]);
        a[j] = s->keep(s->exact ? a[j] / sqrt(DIM) : a[j]);
        largest = fmax(largest, a[j]);
    }
    for (int j = 0; j <= i; j++) {
        a[j] = s->exact ? s->keep(exp(a[j] - largest)) : a[j];
        sum += a[j];
    }
    return s->keep(sum);
}

static void attend(const spec *s, double (*qkv)[3 * WIDTH], double (*y)[WIDTH])
{
    for (int h = 0; h < HEADS; h++)
        for (int i = 0; i < T; i++) {
            double a[T], normaliser = weigh(s, qkv, h, i, a);
            for (int c = h * DIM; c < (h + 1) * DIM; c++) {
                double sum = 0;
                for (int j = 0; j <= i; j++)
                    sum += a[j] * qkv[j][2 * WIDTH + c];
                y[i][c] = s->keep(s->keep(sum) / normaliser);
            }
        }
}

static void attend_back(const spec *s, double (*qkv)[3 * WIDTH], double (*y)[WIDTH], double (*dy)[WIDTH],
                        double (*dqkv)[3 * WIDTH])
{
    memset(dqkv, 0, T * sizeof *dqkv);
    for (int h = 0; h < HEADS; h++)
        for (int i = 0; i < T; i++) {
            double a[T], normaliser = weigh(s, qkv, h, i, a), mean = 0;
            for (int c = h * DIM; c < (h + 1) * DIM; c++)
                mean += dy[i][c] * y[i][c];
            for (int j = 0; j <= i; j++) {
                double toward = 0; /* dL/d(weight), times the weight for exact */
                for (int c = h * DIM; c < (h + 1) * DIM; c++) {
                    toward += dy[i][c] * qkv[j][2 * WIDTH + c];
                    dqkv[j][2 * WIDTH + c] += dy[i][c] * a[j] / normaliser;
                }
                toward = (s->keep(toward) - s->keep(mean)) / normaliser;
                toward = s->keep(toward * (s->exact ? a[j] / sqrt(DIM) : 1));
                for (int c = h * DIM; c < (h + 1) * DIM; c++) {
                    double q = qkv[i][c], k = qkv[j][WIDTH + c];
                    dqkv[i][c] += toward * feature(s, k) * slope(s, q);
                    dqkv[j][WIDTH + c] += toward * feature(s, q) * slope(s, k);
                }
            }
        }
    for (int t = 0; t < T; t++)
        for (int c = 0; c < 3 * WIDTH; c++)
            dqkv[t][c] = s->keep(dqkv[t][c]);
}

/* ---- layers ------------------------------------------------------------------------------------------ */

static double normal(double u)
{
    return 0.5 * erfc(-u / sqrt(2));
}

static void add(const spec *s, double (*x)[WIDTH], double (*m)[WIDTH], double (*y)[WIDTH])
{
    for (int t = 0; t < T; t++)
        for (int i = 0; i < WIDTH; i++)
            y[t][i] = s->keep(x[t][i] + m[t][i]);
}

static matrix projections(const fv_layer *l)
{
    return (matrix){l->query, -1, 3 * WIDTH, WIDTH};
}

static void layer(const spec *s, const fv_layer *l, layer_arrays *a, double (*next)[WIDTH])
{
    double m[T][WIDTH];
    norm(s, l->norm1_gain, l->norm1_bias, a->x, a->normed);
    linear(s, projections(l), a->normed[0], a->qkv[0]);
    attend(s, a->qkv, a->y);
    linear(s, (matrix){l->output, -1, WIDTH, WIDTH}, a->y[0], m[0]);
    add(s, a->x, m, a->between);
    norm(s, l->norm2_gain, l->norm2_bias, a->between, a->normed2);
    linear(s, (matrix){l->up, l->up_bias, INNER, WIDTH}, a->normed2[0], a->u[0]);
    for (int t = 0; t < T; t++)
        for (int i = 0; i < INNER; i++)
            a->a[t][i] = s->keep(a->u[t][i] * normal(a->u[t][i]));
    linear(s, (matrix){l->down, l->down_bias, WIDTH, INNER}, a->a[0], m[0]);
    add(s, a->between, m, next);
}

/* dx: the gradient of the stream behind the layer becomes the one before it. */
static void layer_back(const spec *s, const fv_layer *l, layer_arrays *a, double (*dx)[WIDTH])
{
    double da[T][INNER], dn[T][WIDTH], dy[T][WIDTH], dqkv[T][3 * WIDTH];
    linear_back(s, (matrix){l->down, l->down_bias, WIDTH, INNER}, a->a[0], dx[0], da[0]);
    for (int t = 0; t < T; t++)
        for (int i = 0; i < INNER; i++) {
            double u = a->u[t][i];
            da[t][i] = s->keep(da[t][i] * (normal(u) + u * exp(-u * u / 2) / sqrt(2 * M_PI)));
        }
    linear_back(s, (matrix){l->up, l->up_bias, INNER, WIDTH}, a->normed2[0], da[0], dn[0]);
    norm_back(s, l->norm2_gain, l->norm2_bias, a->between, dn, dx);
    linear_back(s, (matrix){l->output, -1, WIDTH, WIDTH}, a->y[0], dx[0], dy[0]);
    attend_back(s, a->qkv, a->y, dy, dqkv);
    linear_back(s, projections(l), a->normed[0], dqkv[0], dn[0]);
    norm_back(s, l->norm1_gain, l->norm1_bias, a->x, dn, dx);
}

/* ---- the model --------------------------------------------------------------------------------------- */

static void embed(spec *s, const fv_batch *batch)
{
    for (int t = 0; t < T; t++)
        for (int i = 0; i < WIDTH; i++)
            s->layers[0].x[t][i] = s->keep(value(s, s->model->token + batch->inputs[t] * WIDTH + i) +
                                           value(s, s->model->place + t * WIDTH + i));
}

static matrix head(const spec *s)
{
    return (matrix){s->model->head, s->model->head_bias, VOCABULARY, WIDTH};
}

/* The loss; dl = softmax - onehot. */
static double loss_of(spec *s, const fv_batch *batch)
{
    double loss = 0;
    linear(s, head(s), s->normed[0], s->dl[0]);
    for (int t = 0; t < T; t++) {
        double sum = 0, target = s->dl[t][batch->targets[t]];
        for (int c = 0; c < VOCABULARY; c++)
            sum += exp(s->dl[t][c]);
        loss += log(sum) - target;
        for (int c = 0; c < VOCABULARY; c++)
            s->dl[t][c] = s->keep(exp(s->dl[t][c]) / sum - (c == batch->targets[t]));
    }
    return loss;
}

double spec_model(const fv_model *model, const fv_batch *batch, double (*keep)(double), double *gradient)
{
    static spec s;
    double dx[T][WIDTH] = {{0}}, dn[T][WIDTH];
    s = (spec){.model = model, .values = model->values, .keep = keep, .gradient = gradient};
    fv_attention_info info;
    fv_attention_get_info(model->ops.of[FV_USE_SELF][0].op, &info);
    s.exact = strcmp(info.options.kind, "exact") == 0;
    s.epsilon = info.options.epsilon;
    embed(&s, batch);
    for (int l = 0; l < LAYERS; l++)
        layer(&s, &model->layers[l], &s.layers[l], l + 1 < LAYERS ? s.layers[l + 1].x : s.last);
    norm(&s, model->norm_gain, model->norm_bias, s.last, s.normed);
    double loss = loss_of(&s, batch);
    linear_back(&s, head(&s), s.normed[0], s.dl[0], dn[0]);
    norm_back(&s, model->norm_gain, model->norm_bias, s.last, dn, dx);
    for (int l = LAYERS - 1; l >= 0; l--)
        layer_back(&s, &model->layers[l], &s.layers[l], dx);
    for (int t = 0; t < T; t++)
        for (int i = 0; i < WIDTH; i++) {
            gradient[model->token + batch->inputs[t] * WIDTH + i] += dx[t][i];
            gradient[model->place + t * WIDTH + i] += dx[t][i];
        }
    return loss;
}
