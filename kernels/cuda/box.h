// Bounding boxes of points, and what they say of the logits between them.
#pragma once
#include "pair.h"

namespace otcore::cuda {

// Columns whose logits stay below this, or this far below the largest of their row, are skipped: a row then misses less
// than that power of 2 of the mass of b.
template <class T>
constexpr T kCutoff = sizeof(T) == 4 ? -40 : -64;
template <int D>
constexpr bool kPruned = D <= 4;

// The bounding box of points, and their largest level.
template <class T, int D>
struct Box {
  T low[D], high[D], top;
};

// Of the points of a warp; every lane has it.
template <class T, int D, int R>
__device__ Box<T, D> box_of(const T (&u)[R][D], const T (&h)[R]) {
  Box<T, D> box;
  box.top = h[0];
  for (int r = 1; r < R; r++) box.top = h[r] > box.top ? h[r] : box.top;
  box.top = warp_max(box.top);
#pragma unroll
  for (int k = 0; k < D; k++) {
    T low = -kNever<T>, high = kNever<T>;
    for (int r = 0; r < R; r++)
      if (h[r] > kNever<T>) low = u[r][k] < low ? u[r][k] : low, high = u[r][k] > high ? u[r][k] : high;
    box.low[k] = -warp_max(-low), box.high[k] = warp_max(high);
  }
  return box;
}

// No logit between two boxes is larger.
template <class T, int D, int P>
__device__ T highest_logit(const Box<T, D>& one, const Box<T, D>& other, const Scale<T>& scale) {
  T square = 0;
#pragma unroll
  for (int k = 0; k < D; k++) {
    const T below = one.low[k] - other.high[k], above = other.low[k] - one.high[k];
    T gap = below > above ? below : above;
    gap = gap > 0 ? gap : 0;
    square += gap * gap;
  }
  return logit<T, P>(one.top + other.top, square, scale);
}

}  // namespace otcore::cuda
