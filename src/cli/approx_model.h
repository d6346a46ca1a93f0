/* cli/approx_model.h: what the study of a trained model and its advice share. */
#ifndef FAVOR_APPROX_MODEL_H
#define FAVOR_APPROX_MODEL_H

#include "approx.h"

/* A layer of the model on its data. */
typedef struct approx_layer {
    fv_attention_options options; /* heads, widths, mask and modifiers; kind and features are the caller's */
    fv_layout layout;
    double length;     /* tokens of a sequence, averaged over tokens: what its attention costs by */
    double exact_flop; /* of exact attention on the layout */
} approx_layer;

/* An error measured over all heads. */
typedef struct approx_point {
    const char *map;
    fv_projection projection;
    int64_t features;
    double error;
    bool drawn, softmax; /* has random parts; estimates softmax attention */
} approx_point;

typedef struct approx_advice {
    char text[400];
    char map[32];     /* "exact" or a map */
    int64_t features; /* 0: exact */
    double crossover; /* tokens above which the best map is cheaper; NaN: none will do */
} approx_advice;

/* Where the number of effective features is asked for. */
typedef struct approx_place {
    approx *a;
    const approx_data *data;
    bool causal;
    int64_t n;           /* sampled rows */
    const int64_t *rows; /* [n]; a few of them are taken */
    double *effective;   /* [a->features.count][H], filled; NaN: features cannot be told apart */
} approx_place;

/* Means over a few queries of each head, for each number of features: the first of the projections drawn for the
 * most. */
FV_NODISCARD fv_status approx_effective(const approx_place *place, const fv_attention_options *options);

/* `own`: the model's kind. */
FV_NODISCARD fv_status approx_advise(approx *a, const approx_layer *layer, const approx_point *points,
                                     int count, const char *own, approx_advice *advice);

#endif
