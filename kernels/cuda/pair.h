// The logit of a pair of points, in units of log 2: h_i + k_j - C_ij log2(e) / eps, with h = f log2(e) / eps.
// Coordinates are subtracted before they are scaled: then only the difference is rounded.
#pragma once
#include <limits>

#include "batch.h"

namespace otcore::cuda {

constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;
template <class T>
constexpr T kNever = -std::numeric_limits<T>::infinity();  // the potential of padding

template <class T>
struct Scale {
  double rate;  // of potentials
  T cost;       // of |x - y|^2 (p = 2) or |x - y|
  T floor;
};

// The temperature is moved by less than a last place of T, so that what multiplies the cost is a number of T: rounding
// it would show in large costs, which potentials cancel.
template <class T>
__device__ Scale<T> scale_at(Cost cost, double eps) {
  const double rate = kLog2E / eps, half = cost.p == 2 ? 0.5 : 1;
  const T factor = static_cast<T>(half * rate);
  return {static_cast<double>(factor) / half, factor, static_cast<T>(cost.floor)};
}

// A potential (null: 0) in logit units, in the frames of the clouds.
template <class T>
__device__ double level(const Scale<T>& scale, const double* potential, const double* shift, int i) {
  const double own = potential ? potential[i] : 0.0;
  return (shift ? own - shift[i] : own) * scale.rate;
}

// A level in T, and what rounding it took off, as a factor of the exponentials: it goes into weights and sums.
template <class T>
struct Rounded {
  T level, factor;
};

template <class T>
__device__ Rounded<T> rounded(double level) {
  const T near = static_cast<T>(level);
  const double lost = level - static_cast<double>(near);
  // Infinite levels have lost nothing.
  return {near, sizeof(T) == 4 && lost - lost == 0 ? static_cast<T>(1 + kLn2 * lost * (1 + 0.5 * kLn2 * lost)) : T(1)};
}

template <class T, int D>
__device__ void load_point(const T* points, int i, int d, T (&u)[D]) {
#pragma unroll
  for (int k = 0; k < D; k++) u[k] = k < d ? points[static_cast<long>(i) * d + k] : T(0);
}

template <class T, int D>
__device__ T squared_distance(const T (&u)[D], const T (&v)[D]) {
  T square = 0;
#pragma unroll
  for (int k = 0; k < D; k++) {
    const T gap = u[k] - v[k];
    square = k ? gap * gap + square : gap * gap;
  }
  return square;
}

// `both` is h_i + k_j.
template <class T, int P>
__device__ T logit(T both, T square, const Scale<T>& scale) {
  if (P == 2) return both - scale.cost * square;
  return both - scale.cost * sqrt_of(square > scale.floor ? square : scale.floor);
}

template <int N>
struct Constant {
  static constexpr int value = N;
};

// Calls verb with the compiled dimension that d fits in, and p, as types.
template <class T, class Verb>
void dispatch(int d, int p, Verb&& verb) {
  const auto with = [&](auto dimension) { p == 1 ? verb(dimension, Constant<1>{}) : verb(dimension, Constant<2>{}); };
  if constexpr (sizeof(T) == 4) {
    if (d == 1) return with(Constant<1>{});
    if (d == 2) return with(Constant<2>{});
    if (d == 3) return with(Constant<3>{});
    if (d > 4 && d <= 8) return with(Constant<8>{});
  }
  if (d <= 4) return with(Constant<4>{});
  if (d <= 16) return with(Constant<16>{});
  throw std::invalid_argument("the CUDA kernels go up to 16 dimensions");
}

}  // namespace otcore::cuda
