/* support/moments.c: see moments.h. */
#include "support/moments.h"
#include <math.h>

double moment_rising(double a, int n)
{
    double product = 1;
    for (int i = 0; i < n; i++)
        product *= a + i;
    return product;
}

double moment_0f1(double b, double u)
{
    double term = 1, sum = 1;
    for (int k = 1; k < 80; k++)
        sum += term *= u / (k * (b + k - 1));
    return sum;
}

double moment_chi(double d, int p)
{
    return exp(p * log(2) / 2 + lgamma((d + p) / 2) - lgamma(d / 2));
}

double moment_pair(double d, double w, double c)
{
    double sum = 0;
    for (int k = 0; k < 40; k++) {
        double power = 0; /* E[s^k] / k!, by the multinomial theorem */
        for (int a = 0; a <= k; a++)
            for (int b = 0; a + b <= k; b++) {
                int both = k - a - b;
                power += pow(2 * c, both) * moment_chi(d, 2 * a + both) * moment_chi(d, 2 * b + both) /
                         (tgamma(a + 1) * tgamma(b + 1) * tgamma(both + 1));
            }
        sum += pow(w / 2, k) / moment_rising(d / 2, k) * power;
    }
    return sum;
}
