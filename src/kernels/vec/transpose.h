/* vec/transpose.h: the transpose of a matrix in SIMD words. Contract: kernels.def. */

static void KERNEL(transpose)(int64_t n, int64_t c, const float *x, int64_t ldx, float *y, int64_t ldy)
{
    enum { SIDE = 16 }; /* floats of a cache line: lines of x and y are done with before they are left */
    int64_t whole_n = n / 4 * 4, whole_c = c / 4 * 4;
    for (int64_t r0 = 0; r0 < whole_n; r0 += SIDE)
        for (int64_t f0 = 0; f0 < whole_c; f0 += SIDE)
            for (int64_t f = f0; f < f0 + SIDE && f < whole_c; f += 4)
                for (int64_t r = r0; r < r0 + SIDE && r < whole_n; r += 4)
                    v_transpose4(x + r * ldx + f, ldx, y + f * ldy + r, ldy);
    for (int64_t r = 0; r < n; r++)
        for (int64_t f = r < whole_n ? whole_c : 0; f < c; f++)
            y[f * ldy + r] = x[r * ldx + f];
}
