// radial: sums of a radial kernel over weighted points and, with them, of its gradients. Differences of coordinates
// throughout: an expanded square would lose near pairs, which weigh most where the kernel has a kink.
#include "radial.h"

#include "tile.h"
#include "verbs.h"

namespace otcore {
namespace OTCORE_ISA {
namespace {

constexpr int kVectors = 2;  // columns of the register tile, in vectors
constexpr int kFlush = 16;   // tiles of columns between two flushes of the row sums into double

template <class T>
OTCORE_INLINE Vec<T> exp2_or_zero(Vec<T> x) {
  const Vec<T> least = splat(kLowest<T>);
  return x > least ? exp2v(vmax(x, least)) : Vec<T>{};
}

// k and h = 2 dk/d(square), so that the gradient of k in u is h (u - v); 0 where k has a kink.
template <class T, Kernel K>
OTCORE_INLINE void profile(const Radial<T>& q, Vec<T> square, Vec<T>& k, Vec<T>& h) {
  const Vec<T> one = splat(T(1));
  k = h = Vec<T>{};
  if constexpr (K == Kernel::gaussian) {
    for (int s = 0; s < q.scales; s++) {
      const Vec<T> e = exp2_or_zero<T>(square * -q.rate[s]);
      k += e, h -= e * q.slope[s];
    }
  } else if constexpr (K == Kernel::inverse_multiquadric) {
    for (int s = 0; s < q.scales; s++) {
      const Vec<T> e = one / (square * q.rate[s] + T(1));
      k += e, h -= e * e * q.slope[s];
    }
  } else {
    Vec<T> distance = square;
    sqrt_lanes<T>(distance);
    const Vec<T> inverse = square > Vec<T>{} ? one / distance : Vec<T>{};
    if constexpr (K == Kernel::energy) {
      k = -distance, h = -inverse;
    } else {
      for (int s = 0; s < q.scales; s++) {
        const Vec<T> e = exp2_or_zero<T>(distance * -q.rate[s]);
        k += e, h -= e * q.slope[s];
      }
      h *= inverse;
    }
  }
}

// Row sums of a tile are kept in vectors, [kTile][width][lanes], until they are flushed into double.
template <class T>
void flush(T* lanes, int width, double factor, double* sums, double* force) {
  constexpr int L = Simd<T>::lanes;
  for (int r = 0; r < kTile; r++)
    for (int k = 0; k < width; k++) {
      T* lane = lanes + ((long)r * width + k) * L;
      const double sum = factor * (double)lane_sum<T>(load(lane));
      store(lane, Vec<T>{});
      if (k == 0) sums[r] += sum;
      else force[(k - 1) * kTile + r] += sum;
    }
}

template <class T>
OTCORE_INLINE void add_scaled(const T* from, long n, double factor, double* to) {
  for (long c = 0; c < n; c++) to[c] += factor * (double)from[c];
}

// In few dimensions differences, kernel and sums stay in registers: lanes [kTile][1 + D][L] and columns
// [1 + D][kTile] are added to.
template <class T, Kernel K, int D>
void small_tile(const Radial<T>& q, const T* u, const T* v, const T* wx, const T* wy, T* lanes, T* cols) {
  constexpr int L = Simd<T>::lanes, Q = kVectors;
  for (int c = 0; c < kTile; c += Q * L) {
    Vec<T> to[D][Q], weight[Q], sum[1 + D][Q] = {};
#pragma GCC unroll 4
    for (int w = 0; w < Q; w++) {
      weight[w] = load(wy + c + w * L);
#pragma GCC unroll 4
      for (int k = 0; k < D; k++) to[k][w] = load(v + k * kTile + c + w * L);
    }
    for (int r = 0; r < kTile; r++) {
      T* lane = lanes + (long)r * (1 + D) * L;
      Vec<T> row[1 + D];
#pragma GCC unroll 4
      for (int k = 0; k <= D; k++) row[k] = load(lane + k * L);
#pragma GCC unroll 4
      for (int w = 0; w < Q; w++) {
        Vec<T> diff[D], square = {}, kernel, h;
#pragma GCC unroll 4
        for (int k = 0; k < D; k++) {
          diff[k] = to[k][w] - u[k * kTile + r];
          square += diff[k] * diff[k];
        }
        profile<T, K>(q, square, kernel, h);
        row[0] += kernel * weight[w];
        sum[0][w] += kernel * wx[r];
        const Vec<T> pull = h * weight[w], push = h * wx[r];
#pragma GCC unroll 4
        for (int k = 0; k < D; k++) {
          row[1 + k] -= pull * diff[k];
          sum[1 + k][w] += push * diff[k];
        }
      }
#pragma GCC unroll 4
      for (int k = 0; k <= D; k++) store(lane + k * L, row[k]);
    }
#pragma GCC unroll 4
    for (int k = 0; k <= D; k++)
#pragma GCC unroll 4
      for (int w = 0; w < Q; w++) store(cols + k * kTile + c + w * L, sum[k][w]);
  }
}

// Kernel sums of one tile pair in any dimension: row lanes [kTile][L] added to, columns [kTile] written, and h kept
// as [row][column].
template <class T, Kernel K>
void kernel_tile(const Radial<T>& q, const T* u, const T* v, const T* wx, const T* wy, T* lanes, T* cols, T* h) {
  constexpr int L = Simd<T>::lanes, Q = kVectors;
  for (int c = 0; c < kTile; c += Q * L) {
    Vec<T> sum[Q] = {};
    for (int r0 = 0; r0 < kTile; r0 += kRows) {
      Vec<T> square[kRows][Q] = {};
      square_tile<T, Q>(u + r0, v + c, q.d, square);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
        Vec<T> row = load(lanes + (r0 + r) * L);
#pragma GCC unroll 4
        for (int w = 0; w < Q; w++) {
          Vec<T> kernel, slope;
          profile<T, K>(q, square[r][w], kernel, slope);
          row += kernel * load(wy + c + w * L);
          sum[w] += kernel * wx[r0 + r];
          store(h + (r0 + r) * kTile + c + w * L, slope);
        }
        store(lanes + (r0 + r) * L, row);
      }
    }
#pragma GCC unroll 4
    for (int w = 0; w < Q; w++) store(cols + c + w * L, sum[w]);
  }
}

// force[k][p] += factor sum_o h[o][p] (point_kp - other_ko), for M dimensions; h holds the weights of the others.
template <class T, int M>
OTCORE_INLINE void pull_dimensions(const T* h, const T* point, const T* other, double factor, double* force) {
  constexpr int L = Simd<T>::lanes, Q = kVectors;
  for (int c = 0; c < kTile; c += Q * L) {
    Vec<T> at[M][Q], sum[M][Q] = {};
#pragma GCC unroll 4
    for (int k = 0; k < M; k++)
#pragma GCC unroll 4
      for (int w = 0; w < Q; w++) at[k][w] = load(point + k * kTile + c + w * L);
    for (int o = 0; o < kTile; o++)
#pragma GCC unroll 4
      for (int w = 0; w < Q; w++) {
        const Vec<T> weight = load(h + o * kTile + c + w * L);
#pragma GCC unroll 4
        for (int k = 0; k < M; k++) sum[k][w] += weight * (at[k][w] - other[k * kTile + o]);
      }
    T part[Q * L];
    for (int k = 0; k < M; k++) {
      for (int w = 0; w < Q; w++) store(part + w * L, sum[k][w]);
      add_scaled(part, Q * L, factor, force + k * kTile + c);
    }
  }
}

template <class T>
void pull(const T* h, const T* point, const T* other, int d, double factor, double* force) {
  constexpr int M = kRows / 2;
  int k = 0;
  for (; k + M <= d; k += M) pull_dimensions<T, M>(h, point + k * kTile, other + k * kTile, factor, force + k * kTile);
  for (; k < d; k++) pull_dimensions<T, 1>(h, point + k * kTile, other + k * kTile, factor, force + k * kTile);
}

// One tile of rows against tiles [first, last) of columns, all in one cloud: sums [tiles][kTile] and force
// [tiles][d][kTile] are added to, on both sides. D = 0: any dimension.
template <class T, Kernel K, int D>
void radial_row(const Radial<T>& q, long i, long first, long last, double factor, T* lanes, double* sums,
                double* force) {
  const long size = (long)q.d * kTile;
  const T *u = q.u + i * size, *wx = q.weight + i * kTile;
  alignas(64) T cols[(1 + D) * kTile], h[D ? 1 : kTile * kTile], turned[D ? 1 : kTile * kTile];
  double unused[3 * kTile];
  double* own = q.grad ? force + i * size : unused;
  for (long j = first; j < last; j++) {
    const T *v = q.u + j * size, *wy = q.weight + j * kTile;
    if constexpr (D > 0) small_tile<T, K, D>(q, u, v, wx, wy, lanes, cols);
    else kernel_tile<T, K>(q, u, v, wx, wy, lanes, cols, h);
    // The rows of a diagonal tile hold its columns.
    if (j != i) add_scaled(cols, kTile, factor, sums + j * kTile);
    if (D > 0 && q.grad && j != i) add_scaled(cols + kTile, size, factor, force + j * size);
    if (D == 0 && q.grad) {
      for (int c = 0; c < kTile; c++)
        for (int r = 0; r < kTile; r++) turned[c * kTile + r] = h[r * kTile + c] * wy[c];
      pull(turned, u, v, q.d, factor, own);
      if (j != i) {
        for (int r = 0; r < kTile; r++)
          for (int c = 0; c < kTile; c++) h[r * kTile + c] *= wx[r];
        pull(h, v, u, q.d, factor, force + j * size);
      }
    }
    if ((j - first) % kFlush == kFlush - 1 || j == last - 1) flush(lanes, 1 + D, factor, sums + i * kTile, own);
  }
}

template <class T, Kernel K, int D>
void radial_block(const Radial<T>& q, Block rows, Block columns, double* sums, double* force) {
  alignas(64) T lanes[kTile * (1 + D) * Simd<T>::lanes] = {};
  for (long i = rows.first; i < rows.last; i++) {
    const bool second = i >= q.split;
    const long first = rows.first == columns.first ? i : columns.first, last = columns.last;
    // Within the first cloud or across to it, then the rest.
    const long middle = q.split < first ? first : q.split > last ? last : q.split;
    radial_row<T, K, D>(q, i, first, middle, second ? 1 : q.within[0], lanes, sums, force);
    radial_row<T, K, D>(q, i, middle, last, second ? q.within[1] : 1, lanes, sums, force);
  }
}

template <class T, Kernel K>
void radial_kernel(const Radial<T>& q, Block rows, Block columns, double* sums, double* force) {
  switch (q.d) {
    case 1: radial_block<T, K, 1>(q, rows, columns, sums, force); break;
    case 2: radial_block<T, K, 2>(q, rows, columns, sums, force); break;
    case 3: radial_block<T, K, 3>(q, rows, columns, sums, force); break;
    default: radial_block<T, K, 0>(q, rows, columns, sums, force);
  }
}

template <class T>
void radial_any(const Radial<T>& q, Block rows, Block columns, double* sums, double* force) {
  switch (q.kernel) {
    case Kernel::gaussian: radial_kernel<T, Kernel::gaussian>(q, rows, columns, sums, force); break;
    case Kernel::laplacian: radial_kernel<T, Kernel::laplacian>(q, rows, columns, sums, force); break;
    case Kernel::energy: radial_kernel<T, Kernel::energy>(q, rows, columns, sums, force); break;
    default: radial_kernel<T, Kernel::inverse_multiquadric>(q, rows, columns, sums, force);
  }
}

}  // namespace

void radial(const Radial<float>& q, Block rows, Block columns, double* sums, double* force) {
  radial_any(q, rows, columns, sums, force);
}

void radial(const Radial<double>& q, Block rows, Block columns, double* sums, double* force) {
  radial_any(q, rows, columns, sums, force);
}

}  // namespace OTCORE_ISA
}  // namespace otcore
