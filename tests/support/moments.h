/* support/moments.h: moments of the rows of random projections, for closed forms of means and variances. */
#ifndef MOMENTS_H
#define MOMENTS_H

/* (a)_n = a (a+1) ... (a+n-1) */
double moment_rising(double a, int n);
/* 0F1(;b;u); sqrt(d) times a uniform direction: E exp(w.z) = 0F1(;d/2; d|z|^2/4) */
double moment_0f1(double b, double u);
/* E[n^p] of n ~ chi_d */
double moment_chi(double d, int p);
/* E exp((w_1 + w_2).z) of two rows at a fixed angle of cosine c, otherwise Haar, with norms chi_d, w = |z|^2/2: the
 * mean of 0F1(;d/2; w s/2) over s = n_1^2 + n_2^2 + 2 c n_1 n_2. For imaginary z (sines and cosines) w < 0. */
double moment_pair(double d, double w, double c);

#endif
