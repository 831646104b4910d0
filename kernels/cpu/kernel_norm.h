// Norms of the difference of two measures in a radial kernel, with what their gradients are made of.
#pragma once
#include "radial.h"

namespace otcore {

// One pair of measures. With w = (a, -b) on the points z = (x, y) and K_lm = sum_s k(|z_l - z_m|; blur_s):
// sums[l] = sum_m w_m K_lm and force[l][.] = sum_m w_m dK_lm/dz_l, in the order of z.
template <class T>
struct NormItem {
  const T *x, *a, *y, *b;
  long n, m;
  double* sums;   // [n + m]
  double* force;  // [n + m][d], null where not wanted
};

struct NormSettings {
  Kernel kernel;
  const double* blurs;  // [scales]; not read for energy
  int scales;
  bool unbiased;        // leave l = m out, and raise pairs within a cloud of n points by n / (n - 1)
  int threads;
};

// The same bits for every number of threads, in memory linear in the number of points.
template <class T>
void kernel_norms(const NormItem<T>* items, long count, int d, const NormSettings& settings);

}  // namespace otcore
