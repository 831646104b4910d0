// Shared by apply and grad: sums over the plan's columns of a weight times a vector, for a few rows at a time.
#pragma once
#include "tile.h"

namespace otcore {
namespace OTCORE_ISA {
namespace {

enum class Gather {
  values,    // out_k = sum_j b_j e_ij v_jk
  gradient,  // out_k = sum_j b_j e_ij d(logit_ij)/du_k
};

// e b over kRows rows and one tile of columns; for the gradient of p = 1, divided by the distance (0 at 0).
template <class T, Gather G, int P>
OTCORE_INLINE void weigh(const Pair<T>& pair, const T* u, const T* v, const Offsets<T>& off, const T* wy,
                         T (&e)[kRows][kTile], Vec<T> (&sum)[kRows]) {
  constexpr int L = Simd<T>::lanes;
  for (int c = 0; c < kTile; c += L) {
    Vec<T> acc[kRows][1], distance[kRows][1];
    logit_tile<T, P, 1, 0>(pair, u, v + c, off.from(0, c), acc, P == 1 ? distance : nullptr);
    for (int r = 0; r < kRows; r++) {
      Vec<T> w = exp2_clamped(acc[r][0]) * load(wy + c);
      sum[r] += w;
      if (G == Gather::gradient && P == 1) {
        const Vec<T> least = splat(pair.floor > 0 ? (T)__builtin_sqrt((double)pair.floor) : T(0));
        w = distance[r][0] > least ? w / distance[r][0] : Vec<T>{};
      }
      store(e[r] + c, w);
    }
  }
}

// Rows of tile i; rows[] and out[][width] are written.
template <class T, Gather G, int P>
void gather_tile(const Pair<T>& pair, long i, const T* values, int width, double* bound, T* lanes, double* rows,
                               double* out) {
  constexpr int L = Simd<T>::lanes;
  const Side<T>&x = *pair.x, &y = *pair.y;
  for (int r0 = 0; r0 < kTile; r0 += kRows) {
    const T* u = x.u + i * x.d * kTile + r0;
    for (long q = 0; q < (long)kRows * width * L; q++) lanes[q] = 0;
    Vec<T> sum[kRows] = {};
    visit(pair, i, 0, bound, 1, [&](long j, long, const Offsets<T>& off) {
      const T* v = y.u + j * y.d * kTile;
      const T* value = G == Gather::values ? values + j * width * kTile : v;
      alignas(64) T e[kRows][kTile];
      Vec<T> part[kRows] = {};
      weigh<T, G, P>(pair, u, v, off.from(r0, 0), y.weight + j * kTile, e, part);
      for (int r = 0; r < kRows; r++) sum[r] += part[r];
      for (int k = 0; k < width; k++) {
        const T shift = G == Gather::gradient && pair.framed ? (T)(y.frame[k * y.tiles + j] - x.frame[k * x.tiles + i]) : T(0);
        for (int r = 0; r < kRows; r++) {
          T* lane = lanes + ((long)r * width + k) * L;
          Vec<T> acc = load(lane);
          if (G == Gather::gradient && P == 1)
            for (int c = 0; c < kTile; c += L) acc += load(e[r] + c) * (load(value + k * kTile + c) - u[k * kTile + r]);
          else
            for (int c = 0; c < kTile; c += L) acc += load(e[r] + c) * load(value + k * kTile + c);
          if (G == Gather::gradient && P == 2) acc += part[r] * shift;
          store(lane, acc);
        }
      }
    });
    for (int r = 0; r < kRows; r++) {
      const double total = (double)lane_sum<T>(sum[r]);
      rows[r0 + r] = total;
      for (int k = 0; k < width; k++) {
        double s = (double)lane_sum<T>(load(lanes + ((long)r * width + k) * L));
        if (G == Gather::gradient && P == 2) s -= (double)u[k * kTile + r] * total;
        out[(long)(r0 + r) * width + k] = s;
      }
    }
  }
}

template <Gather G, class T>
void gather_rows(const Pair<T>& pair, long tile0, long tile1, const T* values, int width, double* rows, double* out) {
  double* bound = new double[pair.y->tiles];
  T* lanes = new T[(long)kRows * width * Simd<T>::lanes];
  for (long i = tile0; i < tile1; i++)
    if (pair.p == 1) gather_tile<T, G, 1>(pair, i, values, width, bound, lanes, rows + (i - tile0) * kTile, out + (i - tile0) * kTile * width);
    else gather_tile<T, G, 2>(pair, i, values, width, bound, lanes, rows + (i - tile0) * kTile, out + (i - tile0) * kTile * width);
  delete[] lanes;
  delete[] bound;
}

}  // namespace
}  // namespace OTCORE_ISA
}  // namespace otcore
