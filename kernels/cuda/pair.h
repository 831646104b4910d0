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
__device__ T rounded_loss(double lost) {
  // Infinite levels have lost nothing.
  return sizeof(T) == 4 && lost - lost == 0 ? static_cast<T>(1 + kLn2 * lost * (1 + 0.5 * kLn2 * lost)) : T(1);
}

template <class T>
__device__ Rounded<T> rounded(double level) {
  const T near = static_cast<T>(level);
  return {near, rounded_loss<T>(level - static_cast<double>(near))};
}

template <class T, int D, class U>
__device__ void load_point(const T* points, int i, int d, U (&u)[D]) {
#pragma unroll
  for (int k = 0; k < D; k++) u[k] = k < d ? points[static_cast<long>(i) * d + k] : U(0);
}

// |u - v|^2 + start, of the first D numbers of v.
template <class T, int D, int V>
__device__ T squared_distance(const T (&u)[D], const T (&v)[V], T start = 0) {
  T square = start;
#pragma unroll
  for (int k = 0; k < D; k++) {
    const T gap = u[k] - v[k];
    square = gap * gap + square;
  }
  return square;
}

// `both` is h_i + k_j.
template <class T, int P>
__device__ T logit(T both, T square, const Scale<T>& scale) {
  if (P == 2) return both - scale.cost * square;
  return both - scale.cost * sqrt_of(square > scale.floor ? square : scale.floor);
}

// The level of a column as `pair_logit` wants it: where p = 2 in squared lengths, so that it joins their sum.
template <class T, int P>
__device__ Rounded<T> rounded_column(double level, const Scale<T>& scale) {
  if (P == 1) return rounded<T>(level);
  const double factor = -static_cast<double>(scale.cost);
  const Rounded<T> lengths = rounded<T>(level / factor);
  return {lengths.level, rounded_loss<T>(level - factor * static_cast<double>(lengths.level))};
}
template <class T, int P>
constexpr T kNoColumn = P == 1 ? kNever<T> : -kNever<T>;  // of padding
// The logit of a row (u, h) and a column whose first numbers are its coordinates and then its level.
template <class T, int D, int P, int V>
__device__ T pair_logit(const T (&u)[D], T h, const T (&column)[V], const Scale<T>& scale) {
  // In few dimensions the sum starts with the level, at no cost; in many it would be rounded as often.
  if (P == 2 && D <= 4) return h - scale.cost * squared_distance<T, D>(u, column, column[D]);
  if (P == 2) return h - scale.cost * (squared_distance<T, D>(u, column) + column[D]);
  return logit<T, P>(h + column[D], squared_distance<T, D>(u, column), scale);
}

// N columns with V numbers each in shared memory, four at a time: a read of a column takes an instruction for every four.
template <class T>
struct alignas(16) Four {
  T at[4];
};

template <class T, int V, int N>
struct Columns {
  static constexpr int kFours = V / 4, kRest = V % 4;
  Four<T> fours[kFours > 0 ? kFours : 1][N];
  T rest[kRest > 0 ? kRest : 1][N];

  __device__ void store(int c, const T (&values)[V]) {
#pragma unroll
    for (int k = 0; k < kFours; k++) {
      Four<T> four;
      for (int i = 0; i < 4; i++) four.at[i] = values[4 * k + i];
      fours[k][c] = four;
    }
#pragma unroll
    for (int k = 0; k < kRest; k++) rest[k][c] = values[4 * kFours + k];
  }
  __device__ void load(int c, T (&values)[V]) const {
#pragma unroll
    for (int k = 0; k < kFours; k++) {
      const Four<T> four = fours[k][c];
#pragma unroll
      for (int i = 0; i < 4; i++) values[4 * k + i] = four.at[i];
    }
#pragma unroll
    for (int k = 0; k < kRest; k++) values[4 * kFours + k] = rest[k][c];
  }
};

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
