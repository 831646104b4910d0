// Sums of single rows, whatever their range and as exact as the points are, by a warp each.
#pragma once
#include "pair.h"

namespace otcore::cuda {

// Far above the costs within the clouds every e_ij is near 1, and what its rounding takes off, times eps, shows.
template <class T>
__device__ bool is_flat(const Term<T>& q, const Scale<T>& scale) {
  return kLog2E / scale.rate > q.flat;
}

// log sum_j b_j e_ij of row i, with exponentials in U; by a whole warp.
template <class U, class T, int D, int P>
__device__ double row_log_sum(const Term<T>& q, int d, const Scale<T>& scale, const double* f, const double* g, int i) {
  const int lane = threadIdx.x % kWarp;
  const Scale<U> own = {scale.rate, static_cast<U>(scale.cost), static_cast<U>(scale.floor)};
  U u[D], v[D];
  load_point<T, D>(q.x, i, d, u);
  const double h = level(scale, f, q.shift_x, i);
  U top = kNever<U>;
  double sum = 0;
  for (int j = lane; j < q.m; j += kWarp) {
    const double weight = q.template weight_y<double>(j);
    if (!(weight > 0)) continue;
    load_point<T, D>(q.y, j, d, v);
    const U s = logit<U, P>(static_cast<U>(h + level(scale, g, q.shift_y, j)), squared_distance<U, D>(u, v), own);
    if (s > top) sum *= top > kNever<U> ? exp2_of(top - s) : U(0), top = s;
    sum += weight * (s > kNever<U> ? exp2_of(s - top) : s == s ? U(0) : s);
  }
  const U highest = warp_max(top);
  sum *= top > kNever<U> ? exp2_of(top - highest) : U(0);
  return kLn2 * (static_cast<double>(highest) + log2(warp_sum(sum)));
}

template <class T, int D, int P>
__device__ double exact_log_sum(const Term<T>& q, int d, const Scale<T>& scale, const double* f, const double* g, int i, bool flat) {
  return flat ? row_log_sum<double, T, D, P>(q, d, scale, f, g, i) : row_log_sum<T, T, D, P>(q, d, scale, f, g, i);
}

}  // namespace otcore::cuda
