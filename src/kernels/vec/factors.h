/* vec/factors.h: what tiles multiply, and how their sums reach C. */

/* Place (i, p) of op(A) is a[i row + p step], of op(B) (p, j) b[p ldb + j]; k places. */
typedef struct Factors {
    const float *a, *b;
    int64_t row, step, ldb;
    int64_t k;
    float alpha, beta;
} Factors;

static inline __attribute__((always_inline)) V combined(V sum, V alpha, float beta, const float *c, Part part)
{
    if (beta == 0.0f)
        return v_mul(alpha, sum);
    V old = get(c, part);
    return v_fma(alpha, sum, beta == 1.0f ? old : v_mul(v_set1(beta), old));
}
