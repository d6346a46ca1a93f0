/* support/stream.h: one sequence through a state, for the tests of streams and of merging. */
#ifndef STREAM_H
#define STREAM_H

#include "support/problem.h"

/* A case is a kind; behind them come the kernelized kinds with a gate, with decay, with both. */
int stream_cases(void);
int stream_kind(int which);
bool stream_runs(int which); /* it is there, and streams */
/* Causal, so small that short sequences pass a window. */
fv_attention_options stream_options(int which, int64_t chunk);
problem *stream_make(fv_context *ctx, int which, int64_t L, int64_t chunk, double spread);

/* An empty state, in the problem's context. */
char *stream_state(const problem *p, int64_t capacity, size_t *bytes);
/* The problem's tensors from a token on. */
fv_attention_io stream_io(const problem *p, int64_t token);
/* Runs tokens [from, to) of the problem through the state, `size` at a time; 0: by step. */
void stream_run(problem *p, void *state, size_t bytes, int64_t from, int64_t to, int64_t size);
/* How far back a kind with a window sees, and its global tokens; INT64_MAX: the kind keeps every key. */
int64_t stream_ring(const problem *p, int64_t *globals);
/* Fails when the state does not hold what the first `tokens` of the problem leave, by the specification. */
void stream_check(const problem *p, void *state, int64_t tokens);

#endif
