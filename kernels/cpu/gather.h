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
  constexpr int L = Simd<T>::lanes, Q = 2;
  for (int c = 0; c < kTile; c += Q * L) {
    Vec<T> acc[kRows][Q], distance[kRows][Q];
    logit_tile<T, P, Q, 0>(pair, u, v + c, off.from(0, c), acc, P == 1 ? distance : nullptr);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 2
      for (int q = 0; q < Q; q++) {
        Vec<T> w = exp2_clamped<Clamp::both>(acc[r][q]) * load(wy + c + q * L);
        sum[r] += w;
        if (G == Gather::gradient && P == 1) {
          const Vec<T> least = splat(pair.floor > 0 ? (T)__builtin_sqrt((double)pair.floor) : T(0));
          w = distance[r][q] > least ? w / distance[r][q] : Vec<T>{};
        }
        store(e[r] + c + q * L, w);
      }
  }
}

// out[q] = the sum of lanes[q], for `count` vectors.
template <class T>
void add_lanes(const T* lanes, long count, double* out) {
  constexpr int L = Simd<T>::lanes;
  long q = 0;
  for (; q + L <= count; q += L) {
    Vec<T> rows[L];
#pragma GCC unroll 16
    for (int r = 0; r < L; r++) rows[r] = load(lanes + (q + r) * L);
    store_wide<T>(out + q, lane_sums<T>(rows));
  }
  for (; q < count; q++) out[q] = (double)lane_sum<T>(load(lanes + q * L));
}

// What a gather works in: [kRows][width] vectors when narrow, [kRows][stride] numbers and their sums so far when not.
template <class T>
struct Scratch {
  double* bound;
  T* sums;
  double* flushed;
};

// kRows rows of tile i from r0 on, few values a point: their sums are kept by lanes of columns.
template <class T, Gather G, int P>
void gather_narrow(const Pair<T>& pair, long i, int r0, const T* values, int width, Scratch<T> scratch, Vec<T> (&sum)[kRows],
                   double* out) {
  constexpr int L = Simd<T>::lanes;
  const Side<T>&x = *pair.x, &y = *pair.y;
  const T* u = x.u + i * x.d * kTile + r0;
  for (long q = 0; q < (long)kRows * width * L; q++) scratch.sums[q] = 0;
  visit(pair, i, 0, scratch.bound, 1, [&](long j, long, const Offsets<T>& off) {
    const T* v = y.u + j * y.d * kTile;
    const T* value = G == Gather::values ? values + j * width * kTile : v;
    alignas(64) T e[kRows][kTile];
    Vec<T> part[kRows] = {};
    weigh<T, G, P>(pair, u, v, off.from(r0, 0), y.weight + j * kTile, e, part);
    for (int r = 0; r < kRows; r++) sum[r] += part[r];
    for (int k = 0; k < width; k++) {
      const T shift = G == Gather::gradient && pair.framed ? (T)(y.frame[k * y.tiles + j] - x.frame[k * x.tiles + i]) : T(0);
      Vec<T> column[kTile / L];
#pragma GCC unroll 8
      for (int q = 0; q < kTile / L; q++) column[q] = load(value + k * kTile + q * L);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
        T* lane = scratch.sums + ((long)r * width + k) * L;
        Vec<T> acc = load(lane);
#pragma GCC unroll 8
        for (int q = 0; q < kTile / L; q++) {
          if (G == Gather::gradient && P == 1) acc += load(e[r] + q * L) * (column[q] - u[k * kTile + r]);
          else acc += load(e[r] + q * L) * column[q];
        }
        if (G == Gather::gradient && P == 2) acc += part[r] * shift;
        store(lane, acc);
      }
    }
  });
  add_lanes<T>(scratch.sums, (long)kRows * width, out);
}

// sums[r][] += sum_c e[r][c] value[c][], Q vectors of values wide.
template <class T, int Q>
OTCORE_INLINE void multiply(const T (&e)[kRows][kTile], const T* value, int stride, T* sums) {
  constexpr int L = Simd<T>::lanes;
  Vec<T> acc[kRows][Q];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 2
    for (int q = 0; q < Q; q++) acc[r][q] = load(sums + (long)r * stride + q * L);
  for (int c = 0; c < kTile; c++) {
    Vec<T> v[Q];
#pragma GCC unroll 2
    for (int q = 0; q < Q; q++) v[q] = load(value + (long)c * stride + q * L);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 2
      for (int q = 0; q < Q; q++) acc[r][q] += v[q] * e[r][c];
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 2
    for (int q = 0; q < Q; q++) store(sums + (long)r * stride + q * L, acc[r][q]);
}

// The same, many values a point: a product of matrices, values [tiles][kTile][stride].
template <class T, Gather G, int P>
void gather_wide(const Pair<T>& pair, long i, int r0, const T* values, int width, Scratch<T> scratch, Vec<T> (&sum)[kRows],
                 double* out) {
  constexpr int L = Simd<T>::lanes;
  constexpr int kFlush = 16;  // tiles between two flushes into double
  const Side<T>&x = *pair.x, &y = *pair.y;
  const T* u = x.u + i * x.d * kTile + r0;
  const int stride = gather_stride(width, L);
  const long size = (long)kRows * stride;
  T* sums = scratch.sums;
  for (long q = 0; q < size; q++) sums[q] = 0, scratch.flushed[q] = 0;
  int since = 0;
  const auto flush = [&] {
    for (long q = 0; q < size; q++) scratch.flushed[q] += (double)sums[q], sums[q] = 0;
    since = 0;
  };
  visit(pair, i, 0, scratch.bound, 1, [&](long j, long, const Offsets<T>& off) {
    alignas(64) T e[kRows][kTile];
    Vec<T> part[kRows] = {};
    weigh<T, G, P>(pair, u, y.u + j * y.d * kTile, off.from(r0, 0), y.weight + j * kTile, e, part);
    for (int r = 0; r < kRows; r++) sum[r] += part[r];
    const T* value = values + j * kTile * stride;
    int w = 0;
    for (; w + 2 * L <= stride; w += 2 * L) multiply<T, 2>(e, value + w, stride, sums + w);
    if (w < stride) multiply<T, 1>(e, value + w, stride, sums + w);
    if (G == Gather::gradient && pair.framed)
      for (int r = 0; r < kRows; r++) {
        const T total = lane_sum<T>(part[r]);
        for (int k = 0; k < width; k++)
          sums[(long)r * stride + k] += total * (T)(y.frame[k * y.tiles + j] - x.frame[k * x.tiles + i]);
      }
    if (++since == kFlush) flush();
  });
  flush();
  for (int r = 0; r < kRows; r++)
    for (int k = 0; k < width; k++) out[(long)r * width + k] = scratch.flushed[(long)r * stride + k];
}

// Rows of tile i; rows[] and out[][width] are written.
template <class T, Gather G, int P>
void gather_tile(const Pair<T>& pair, long i, const T* values, int width, Scratch<T> scratch, double* rows, double* out) {
  for (int r0 = 0; r0 < kTile; r0 += kRows) {
    Vec<T> sum[kRows] = {};
    double* own = out + (long)r0 * width;
    if (gathers_narrow(width, G == Gather::gradient, P)) gather_narrow<T, G, P>(pair, i, r0, values, width, scratch, sum, own);
    else gather_wide<T, G, P>(pair, i, r0, values, width, scratch, sum, own);
    const T* u = pair.x->u + i * pair.x->d * kTile + r0;
    for (int r = 0; r < kRows; r++) {
      rows[r0 + r] = (double)lane_sum<T>(sum[r]);
      if (G == Gather::gradient && P == 2)
        for (int k = 0; k < width; k++) own[(long)r * width + k] -= (double)u[k * kTile + r] * rows[r0 + r];
    }
  }
}

template <Gather G, class T>
void gather_rows(const Pair<T>& pair, long tile0, long tile1, const T* values, int width, double* rows, double* out) {
  const int stride = gather_stride(width, Simd<T>::lanes);
  const bool narrow = gathers_narrow(width, G == Gather::gradient, pair.p);
  const Scratch<T> scratch{new double[pair.y->tiles], new T[(long)kRows * (narrow ? width * Simd<T>::lanes : stride)],
                           new double[narrow ? 1 : (long)kRows * stride]};
  for (long i = tile0; i < tile1; i++) {
    double *row = rows + (i - tile0) * kTile, *own = out + (i - tile0) * kTile * width;
    if (pair.p == 1) gather_tile<T, G, 1>(pair, i, values, width, scratch, row, own);
    else gather_tile<T, G, 2>(pair, i, values, width, scratch, row, own);
  }
  delete[] scratch.bound;
  delete[] scratch.sums;
  delete[] scratch.flushed;
}

}  // namespace
}  // namespace OTCORE_ISA
}  // namespace otcore
