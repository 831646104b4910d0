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

// e b over kRows rows and one tile of columns.
template <class T, int P>
OTCORE_INLINE void weigh(const Pair<T>& pair, const T* u, const T* v, const Offsets<T>& off, const T* wy,
                         T (&e)[kRows][kTile], Vec<T> (&sum)[kRows]) {
  constexpr int L = Simd<T>::lanes, Q = 2;
  for (int c = 0; c < kTile; c += Q * L) {
    Vec<T> acc[kRows][Q];
    logit_tile<T, P, Q, 0>(pair, u, v + c, off.from(0, c), acc);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 2
      for (int q = 0; q < Q; q++) {
        const Vec<T> w = exp2_clamped<Clamp::both>(acc[r][q]) * load(wy + c + q * L);
        sum[r] += w;
        store(e[r] + c + q * L, w);
      }
  }
}

// out[q] += the sum of lanes[q], for `count` vectors.
template <class T>
void add_lanes(const T* lanes, long count, double* out) {
  constexpr int L = Simd<T>::lanes;
  long q = 0;
  for (; q + L <= count; q += L) {
    Vec<T> rows[L];
#pragma GCC unroll 16
    for (int r = 0; r < L; r++) rows[r] = load(lanes + (q + r) * L);
    double sums[L];
    store_wide<T>(sums, lane_sums<T>(rows));
    for (int r = 0; r < L; r++) out[q + r] += sums[r];
  }
  for (; q < count; q++) out[q] += (double)lane_sum<T>(load(lanes + q * L));
}

// What a gather works in: sums since the last flush, and until then. Narrow: [kTile][1 + width] vectors, or as many as
// its rows need; wide: [kRows][stride] numbers.
template <class T>
struct Scratch {
  double* bound;
  T *sums, *shift;  // shift [width]
  double* flushed;
};

// Rows of a tile that a narrow gather takes at once: what it works in is to stay in the nearest cache.
constexpr int narrow_rows(int width) { return width <= 8 ? kTile : kRows; }

// Adds rows [first, last) of one tile pair to lanes [last - first][1 + width] of sums and of sums times values [width][kTile] + shift[width].
// D and W are the dimension and the width, or 0 where those are known at run time only.
template <class T, Gather G, int P, int D, int W, Clamp C>
OTCORE_INLINE void add_tile(const Pair<T>& pair, const T* u, const T* v, const Offsets<T>& off, const T* wy, const T* values,
                            const T* shift, int width, int first, int last, T* lanes) {
  constexpr int L = Simd<T>::lanes, Q = 2;
  constexpr bool kDifferences = G == Gather::gradient && P == 1;
  const int count = W ? W : width;
  for (int c = 0; c < kTile; c += Q * L) {
    Vec<T> column[W ? W : 1][Q];
    for (int k = 0; k < W; k++)
#pragma GCC unroll 2
      for (int q = 0; q < Q; q++) column[k][q] = load(values + k * kTile + c + q * L) + shift[k];
    for (int r0 = first; r0 < last; r0 += kRows) {
      Vec<T> e[kRows][Q], distance[kRows][Q];
      logit_tile<T, P, Q, D>(pair, u + r0, v + c, off.from(r0, c), e, kDifferences ? distance : nullptr);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
        T* lane = lanes + (long)(r0 - first + r) * (1 + count) * L;
        Vec<T> sum = load(lane);
#pragma GCC unroll 2
        for (int q = 0; q < Q; q++) {
          e[r][q] = exp2_clamped<C>(e[r][q]) * load(wy + c + q * L);
          sum += e[r][q];
          if (kDifferences) {
            const Vec<T> least = splat(pair.floor > 0 ? (T)__builtin_sqrt((double)pair.floor) : T(0));
            e[r][q] = distance[r][q] > least ? e[r][q] / distance[r][q] : Vec<T>{};
          }
        }
        store(lane, sum);
#pragma GCC unroll 3
        for (int k = 0; k < count; k++) {
          lane += L;
          Vec<T> acc = load(lane);
#pragma GCC unroll 2
          for (int q = 0; q < Q; q++) {
            const Vec<T> value = W ? column[W ? k : 0][q] : load(values + k * kTile + c + q * L) + shift[k];
            acc += e[r][q] * (kDifferences ? value - u[k * kTile + r0 + r] : value);
          }
          store(lane, acc);
        }
      }
    }
  }
}

// Rows [first, last) of tile i, few values a point: their sums are kept by lanes of columns.
template <class T, Gather G, int P, int D, int W>
void gather_narrow(const Pair<T>& pair, long i, int first, int last, const T* values, int width, Scratch<T> scratch,
                   double* rows, double* out) {
  constexpr int L = Simd<T>::lanes;
  constexpr int kFlush = 64;  // tiles between two flushes into double
  const Side<T>&x = *pair.x, &y = *pair.y;
  const long size = (long)(last - first) * (1 + width);
  const T* u = x.u + i * x.d * kTile;
  T *lanes = scratch.sums, *shift = scratch.shift;
  for (int k = 0; k < width; k++) shift[k] = 0;
  for (long q = 0; q < size * L; q++) lanes[q] = 0;
  for (long q = 0; q < size; q++) scratch.flushed[q] = 0;
  int since = 0;
  const auto flush = [&] {
    add_lanes<T>(lanes, size, scratch.flushed);
    for (long q = 0; q < size * L; q++) lanes[q] = 0;
    since = 0;
  };
  visit(pair, i, 0, scratch.bound, 1, [&](long j, long, const Offsets<T>& off) {
    const T *v = y.u + j * y.d * kTile, *wy = y.weight + j * kTile;
    const T* value = G == Gather::values ? values + j * width * kTile : v;
    if (G == Gather::gradient && pair.framed)
      for (int k = 0; k < width; k++) shift[k] = (T)(y.frame[k * y.tiles + j] - x.frame[k * x.tiles + i]);
    if (off.clamp == Clamp::none) add_tile<T, G, P, D, W, Clamp::none>(pair, u, v, off, wy, value, shift, width, first, last, lanes);
    else add_tile<T, G, P, D, W, Clamp::both>(pair, u, v, off, wy, value, shift, width, first, last, lanes);
    if (++since == kFlush) flush();
  });
  flush();
  for (int r = 0; r < last - first; r++) {
    const double* own = scratch.flushed + (long)r * (1 + width);
    rows[first + r] = own[0];
    for (int k = 0; k < width; k++) out[(long)(first + r) * width + k] = own[1 + k];
  }
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

// kRows rows of tile i from r0 on, many values a point: a product of matrices, values [tiles][kTile][stride].
template <class T, Gather G, int P>
void gather_wide(const Pair<T>& pair, long i, int r0, const T* values, int width, Scratch<T> scratch, double* rows,
                 double* out) {
  constexpr int L = Simd<T>::lanes;
  constexpr int kFlush = 16;  // tiles between two flushes into double
  const Side<T>&x = *pair.x, &y = *pair.y;
  const T* u = x.u + i * x.d * kTile + r0;
  const int stride = gather_stride(width, L);
  const long size = (long)kRows * stride;
  T* sums = scratch.sums;
  Vec<T> sum[kRows] = {};
  for (long q = 0; q < size; q++) sums[q] = 0, scratch.flushed[q] = 0;
  int since = 0;
  const auto flush = [&] {
    for (long q = 0; q < size; q++) scratch.flushed[q] += (double)sums[q], sums[q] = 0;
    since = 0;
  };
  visit(pair, i, 0, scratch.bound, 1, [&](long j, long, const Offsets<T>& off) {
    alignas(64) T e[kRows][kTile];
    Vec<T> part[kRows] = {};
    weigh<T, P>(pair, u, y.u + j * y.d * kTile, off.from(r0, 0), y.weight + j * kTile, e, part);
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
  for (int r = 0; r < kRows; r++) {
    rows[r] = (double)lane_sum<T>(sum[r]);
    for (int k = 0; k < width; k++) out[(long)r * width + k] = scratch.flushed[(long)r * stride + k];
  }
}

// The rows of tile i; rows[] and out[][width] are written.
template <class T, Gather G, int P, int D>
void gather_tile(const Pair<T>& pair, long i, const T* values, int width, Scratch<T> scratch, double* rows, double* out) {
  if (gathers_narrow(width, G == Gather::gradient, P)) {
    const int at_once = narrow_rows(width);
    for (int r0 = 0; r0 < kTile; r0 += at_once)
      gather_narrow<T, G, P, D, G == Gather::gradient ? D : 0>(pair, i, r0, r0 + at_once, values, width, scratch, rows, out);
  } else {
    for (int r0 = 0; r0 < kTile; r0 += kRows)
      gather_wide<T, G, P>(pair, i, r0, values, width, scratch, rows + r0, out + (long)r0 * width);
  }
  if (G == Gather::values || P == 1) return;
  const T* u = pair.x->u + i * pair.x->d * kTile;
  for (int r = 0; r < kTile; r++)
    for (int k = 0; k < width; k++) out[(long)r * width + k] -= (double)u[k * kTile + r] * rows[r];
}

template <class T, Gather G, int P, int D>
void gather_tiles(const Pair<T>& pair, long tile0, long tile1, const T* values, int width, double* rows, double* out) {
  constexpr int L = Simd<T>::lanes;
  const bool narrow = gathers_narrow(width, G == Gather::gradient, P);
  const long size = narrow ? (long)narrow_rows(width) * (1 + width) : (long)kRows * gather_stride(width, L);
  const Scratch<T> scratch{new double[pair.y->tiles], new T[narrow ? size * L : size], new T[width + 1], new double[size]};
  for (long i = tile0; i < tile1; i++)
    gather_tile<T, G, P, D>(pair, i, values, width, scratch, rows + (i - tile0) * kTile, out + (i - tile0) * kTile * width);
  delete[] scratch.bound;
  delete[] scratch.sums;
  delete[] scratch.shift;
  delete[] scratch.flushed;
}

template <Gather G, class T>
void gather_rows(const Pair<T>& pair, long tile0, long tile1, const T* values, int width, double* rows, double* out) {
  if (pair.p == 1) {
    gather_tiles<T, G, 1, 0>(pair, tile0, tile1, values, width, rows, out);
    return;
  }
  switch (pair.x->d) {
    case 1: gather_tiles<T, G, 2, 1>(pair, tile0, tile1, values, width, rows, out); break;
    case 2: gather_tiles<T, G, 2, 2>(pair, tile0, tile1, values, width, rows, out); break;
    case 3: gather_tiles<T, G, 2, 3>(pair, tile0, tile1, values, width, rows, out); break;
    default: gather_tiles<T, G, 2, 0>(pair, tile0, tile1, values, width, rows, out);
  }
}

}  // namespace
}  // namespace OTCORE_ISA
}  // namespace otcore
