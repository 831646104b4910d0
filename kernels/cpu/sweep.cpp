// sweep: row and column sums of the plan from one exponential per pair (DESIGN of the solver: both
// half-steps of the symmetric Sinkhorn update).
#include "tile.h"
#include "verbs.h"

namespace otcore {
namespace OTCORE_ISA {
namespace {

constexpr int kVectors = 2;   // columns of the register tile, in vectors
constexpr int kFlush = 64;    // tiles of columns between two flushes of the row sums into double

template <class T, int P, int D>
OTCORE_INLINE void sums_general(const Pair<T>& pair, const T* u, const T* v, const Offsets<T>& off, const T* wx, const T* wy,
                                T* rows, T* cols) {
  constexpr int L = Simd<T>::lanes, Q = kVectors;
  for (int c = 0; c < kTile; c += Q * L) {
    Vec<T> sum[Q];
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) sum[q] = load(cols + c + q * L);
    for (int r0 = 0; r0 < kTile; r0 += kRows) {
      Vec<T> acc[kRows][Q];
      logit_tile<T, P, Q, D>(pair, u + r0, v + c, off.from(r0, c), acc);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
        Vec<T> row = load(rows + (r0 + r) * L);
#pragma GCC unroll 4
        for (int q = 0; q < Q; q++) {
          const Vec<T> e = exp2_clamped(acc[r][q]);
          row += e * load(wy + c + q * L);
          sum[q] += e * wx[r0 + r];
        }
        store(rows + (r0 + r) * L, row);
      }
    }
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) store(cols + c + q * L, sum[q]);
  }
}

// Exponentials of a compact tile pair split as 2^a 2^b 2^(u.v), which saves work for each pair of points; each
// factor and product stays far from over- and underflow, or the pair is not split.
template <class T>
struct Factors {
  alignas(64) T a[kTile], aw[kTile], b[kTile], bw[kTile];
};

template <class T>
OTCORE_INLINE bool factor(const Offsets<T>& off, const T* wx, const T* wy, long nx, long ny, Factors<T>& f) {
  constexpr int L = Simd<T>::lanes;
  T top_a = off.a[0], low_a = off.a[0], top_b = off.b[0], low_b = off.b[0];
  if (nx == kTile && ny == kTile) {
    Vec<T> ta = load(off.a), la = ta, tb = load(off.b), lb = tb;
    for (int r = L; r < kTile; r += L) {
      const Vec<T> va = load(off.a + r), vb = load(off.b + r);
      ta = vmax(ta, va), la = vmin(la, va), tb = vmax(tb, vb), lb = vmin(lb, vb);
    }
    top_a = lane_max<T>(ta), low_a = -lane_max<T>(-la), top_b = lane_max<T>(tb), low_b = -lane_max<T>(-lb);
  } else {
    for (int r = 1; r < nx; r++) top_a = off.a[r] > top_a ? off.a[r] : top_a, low_a = off.a[r] < low_a ? off.a[r] : low_a;
    for (int c = 1; c < ny; c++) top_b = off.b[c] > top_b ? off.b[c] : top_b, low_b = off.b[c] < low_b ? off.b[c] : low_b;
  }
  const T shift = top_a + top_b;
  if (top_a - low_a > kCompact<T> || top_b - low_b > kCompact<T> || shift > 2 * kCompact<T>) return false;
  const T scale = exp2_clamped(splat(shift))[0];
  for (int r = 0; r < kTile; r += L) {
    const Vec<T> ea = exp2_clamped(load(off.a + r) - top_a), eb = exp2_clamped(load(off.b + r) - top_b);
    store(f.a + r, ea * scale);
    store(f.aw + r, ea * load(wx + r));
    store(f.b + r, eb * scale);
    store(f.bw + r, eb * load(wy + r));
  }
  return true;
}

template <class T, int D>
OTCORE_INLINE void sums_split(const T* u, const T* v, int d, const Factors<T>& f, T* rows, T* cols) {
  constexpr int L = Simd<T>::lanes, Q = kVectors;
  for (int c = 0; c < kTile; c += Q * L) {
    Vec<T> sum[Q], weight[Q];
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) sum[q] = Vec<T>{}, weight[q] = load(f.bw + c + q * L);
    for (int r0 = 0; r0 < kTile; r0 += kRows) {
      Vec<T> acc[kRows][Q];
      if (!D)
#pragma GCC unroll 8
        for (int r = 0; r < kRows; r++)
#pragma GCC unroll 4
          for (int q = 0; q < Q; q++) acc[r][q] = Vec<T>{};
      dot_tile<T, Q, D>(u + r0, v + c, d, acc);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
        Vec<T> row = Vec<T>{};
#pragma GCC unroll 4
        for (int q = 0; q < Q; q++) {
          const Vec<T> e = exp2v(acc[r][q]);
          row += e * weight[q];
          sum[q] += e * f.aw[r0 + r];
        }
        store(rows + (r0 + r) * L, load(rows + (r0 + r) * L) + row * f.a[r0 + r]);
      }
    }
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) store(cols + c + q * L, load(cols + c + q * L) + sum[q] * load(f.b + c + q * L));
  }
}

template <class T>
void flush(T* lanes, double* rows) {
  constexpr int L = Simd<T>::lanes;
  for (int r = 0; r < kTile; r++) {
    rows[r] += (double)lane_sum<T>(load(lanes + r * L));
    store(lanes + r * L, Vec<T>{});
  }
}

template <class T, int P, int D>
void sweep_rows(const Pair<T>& pair, long tile0, long tile1, double* rows, T* cols) {
  constexpr int L = Simd<T>::lanes;
  const Side<T>&x = *pair.x, &y = *pair.y;
  double* bound = new double[y.tiles];
  for (long i = tile0; i < tile1; i++) {
    alignas(64) T lanes[kTile * L] = {};
    double* row = rows + (i - tile0) * kTile;
    for (int r = 0; r < kTile; r++) row[r] = 0;
    const T *u = x.u + i * x.d * kTile, *wx = x.weight + i * kTile;
    const long nx = x.n - i * kTile < kTile ? x.n - i * kTile : kTile;
    long since = 0;
    visit(pair, i, pair.same ? i : 0, bound, [&](long j, const Offsets<T>& off) {
      const T *v = y.u + j * y.d * kTile, *wy = y.weight + j * kTile;
      alignas(64) T unused[kTile] = {};
      T* col = pair.same && i == j ? unused : cols + j * kTile;
      Factors<T> f;
      const long ny = y.n - j * kTile < kTile ? y.n - j * kTile : kTile;
      if (P == 2 && x.radius[i] * y.radius[j] < kCompact<T> && factor<T>(off, wx, wy, nx, ny, f))
        sums_split<T, D>(u, v, x.d, f, lanes, col);
      else
        sums_general<T, P, D>(pair, u, v, off, wx, wy, lanes, col);
      if (++since == kFlush) flush(lanes, row), since = 0;
    });
    flush(lanes, row);
  }
  delete[] bound;
}

template <class T>
void sweep_any(const Pair<T>& pair, long tile0, long tile1, double* rows, T* cols) {
  if (pair.p == 1) return sweep_rows<T, 1, 0>(pair, tile0, tile1, rows, cols);
  switch (pair.x->d) {
    case 1: return sweep_rows<T, 2, 1>(pair, tile0, tile1, rows, cols);
    case 2: return sweep_rows<T, 2, 2>(pair, tile0, tile1, rows, cols);
    case 3: return sweep_rows<T, 2, 3>(pair, tile0, tile1, rows, cols);
    default: return sweep_rows<T, 2, 0>(pair, tile0, tile1, rows, cols);
  }
}

}  // namespace

void sweep(const Pair<float>& pair, long tile0, long tile1, double* rows, float* cols) {
  sweep_any(pair, tile0, tile1, rows, cols);
}

void sweep(const Pair<double>& pair, long tile0, long tile1, double* rows, double* cols) {
  sweep_any(pair, tile0, tile1, rows, cols);
}

}  // namespace OTCORE_ISA
}  // namespace otcore
