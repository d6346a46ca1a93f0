/* reference_walsh.c: the scalar reference of the fast Walsh-Hadamard transform. */
#include "kernels/kernels.h"

void fv_walsh_reference(int64_t n, int64_t c, const float *w, const float *x, int64_t ldx, float *y,
                        int64_t ldy)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t f = 0; f < c; f++)
            y[i * ldy + f] = w[i] * x[i * ldx + f];
    for (int64_t half = 1; half < n; half *= 2) {
        for (int64_t i = 0; i < n; i++) {
            float *upper = y + i * ldy, *lower = upper + half * ldy;
            for (int64_t f = 0; (i & half) == 0 && f < c; f++) {
                float a = upper[f], b = lower[f];
                upper[f] = a + b, lower[f] = a - b;
            }
        }
    }
}
