/* vec/transpose.h: the transpose of a matrix in SIMD words. Contract: kernels.def. */

static void KERNEL(transpose)(int64_t n, int64_t c, const float *x, int64_t ldx, float *y, int64_t ldy)
{
    int64_t whole_n = n / 4 * 4, whole_c = c / 4 * 4;
    for (int64_t r = 0; r < whole_n; r += 4)
        for (int64_t f = 0; f < whole_c; f += 4)
            v_transpose4(x + r * ldx + f, ldx, y + f * ldy + r, ldy);
    for (int64_t r = 0; r < n; r++)
        for (int64_t f = r < whole_n ? whole_c : 0; f < c; f++)
            y[f * ldy + r] = x[r * ldx + f];
}
