static float q[16384 * 512], k[16384 * 512], v[16384 * 512], y[16384 * 512];
fv_context *ctx; fv_attention *op; fv_attention_options opt; fv_memory need;
fv_layout layout = {1, (int64_t[]){0, 16384}, NULL};
fv_attention_io io = {.q = q, .k = k, .v = v, .y = y};

fv_attention_options_init(&opt);
opt.kind = "relu", opt.heads = 8, opt.dim = 64, opt.causal = 1;
if (fv_context_create(&ctx, NULL) || fv_attention_create(&op, ctx, &opt) ||
    fv_attention_measure(op, &layout, &need) ||
    fv_attention_forward(op, &layout, &io, NULL, fv_alloc(ctx, need.scratch)))
    return 1;
