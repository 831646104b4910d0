// What the verbs of sliced transport read: the projections of two clouds on one direction.
#pragma once
#include <cstdint>

namespace otcore {

// Two measures on the line, and where their transport and its slopes go.
template <class T>
struct Line {
  T* x;          // [n] positions; replaced by d(cost)/dx where `slope_x`
  T* y;          // [m] likewise
  long n, m;
  const double* a;        // [n] weights of sum 1, null where uniform
  const double* b;        // [m]
  const double* level_x;  // [n] where uniform: 1 / n, 2 / n, ... 1
  const double* level_y;  // [m]
  double p;      // the cost is |x - y|^p, p >= 1
  bool slope_x, slope_y;
};

// Buffers of one thread, `kSliceSlack` elements longer than the larger cloud; which of them is for what is the
// business of slice.cpp.
constexpr long kSliceSlack = 64;
constexpr long kMostBuckets = 8192;
constexpr int kSortLevels = 4;

template <class T>
struct SliceScratch {
  int64_t* keys[3];
  T* sorted[2];
  T* slopes[2];
  double* levels[2];
  uint16_t* bucket;
  uint32_t* counts;  // [kSortLevels][stride], the latter more than there are points, or than kMostBuckets
  long stride;
};

// out[r][c] = (add ? out[r][c] : 0) + sum_k in[k][c] factors[k][r], for one tile of columns c.
template <class T>
struct TileProduct {
  const T* in;
  long in_stride;
  long inner;
  const T* factors;
  long factors_stride;
  long rows;
  T* out;
  long out_stride;
  bool add;
};

// out[c][r] = factor * in[r][c].
template <class T>
struct Transposition {
  const T* in;
  long in_stride;
  long rows, columns;
  T* out;
  long out_stride;
  T factor;
};

}  // namespace otcore
