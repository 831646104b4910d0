// sweep: row and column sums of the plan from one exponential a pair, which give both half-steps of the
// symmetric Sinkhorn update.
#include "tile.h"
#include "verbs.h"

namespace otcore {
namespace OTCORE_ISA {
namespace {

constexpr int kVectors = 2;  // columns of the register tile, in vectors
constexpr int kFlush = 64;   // tiles of columns between two flushes of the row sums into double

// Adds one tile pair to the sums: rows [kTile][lanes], columns [kTile]. UNIT: all weights are 1, and sums can use the
// adders where multiply-adds are what the time goes to.
template <class T, int P, int D, Clamp C, bool UNIT>
OTCORE_INLINE void add_tile(const Pair<T>& pair, const T* u, const T* v, const Offsets<T>& off, const T* wx, const T* wy,
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
          const Vec<T> e = exp2_clamped<C>(acc[r][q]);
          row += UNIT ? e : e * load(wy + c + q * L);
          sum[q] += UNIT ? e : e * wx[r0 + r];
        }
        store(rows + (r0 + r) * L, row);
      }
    }
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) store(cols + c + q * L, sum[q]);
  }
}

// The same for a tile of rows and `count` consecutive tiles of columns.
template <class T, int P, int D, Clamp C, bool DIRECT, bool UNIT>
void add_run(const Pair<T>& pair, const T* u, const T* v, Offsets<T> off, long count, const T* wx, const T* wy, T* rows,
             T* cols) {
  off.direct = DIRECT;  // as it is: known to the compiler, this saves a branch a register tile
  for (long j = 0; j < count; j++) {
    add_tile<T, P, D, C, UNIT>(pair, u, v, off, wx, wy, rows, cols);
    v += (D ? D : pair.y->d) * kTile, wy += kTile, cols += kTile, off = off.from(0, kTile);
  }
}

template <class T, int P, int D, bool UNIT>
OTCORE_INLINE void add_run(const Pair<T>& pair, const T* u, const T* v, const Offsets<T>& off, long count, const T* wx,
                           const T* wy, T* rows, T* cols) {
  if (off.direct) {
    add_run<T, P, D, Clamp::both, true, UNIT>(pair, u, v, off, count, wx, wy, rows, cols);
    return;
  }
  switch (off.clamp) {
    case Clamp::none: add_run<T, P, D, Clamp::none, false, UNIT>(pair, u, v, off, count, wx, wy, rows, cols); break;
    case Clamp::below: add_run<T, P, D, Clamp::below, false, UNIT>(pair, u, v, off, count, wx, wy, rows, cols); break;
    case Clamp::both: add_run<T, P, D, Clamp::both, false, UNIT>(pair, u, v, off, count, wx, wy, rows, cols);
  }
}

template <class T>
void flush(T* lanes, double* rows) {
  constexpr int L = Simd<T>::lanes;
  for (int r0 = 0; r0 < kTile; r0 += L) {
    Vec<T> own[L];
#pragma GCC unroll 16
    for (int r = 0; r < L; r++) {
      own[r] = load(lanes + (r0 + r) * L);
      store(lanes + (r0 + r) * L, Vec<T>{});
    }
    double sums[L];
    store_wide<T>(sums, lane_sums<T>(own));
    for (int r = 0; r < L; r++) rows[r0 + r] += sums[r];
  }
}

template <class T, int P, int D>
void sweep_rows(const Pair<T>& pair, long tile0, long tile1, double* rows, T* cols, bool* touched) {
  constexpr int L = Simd<T>::lanes;
  const Side<T>&x = *pair.x, &y = *pair.y;
  double few[kTile], *bound = y.tiles <= kTile ? few : new double[y.tiles];
  for (long j = 0; j < y.tiles; j++) touched[j] = false;
  alignas(64) T unused[kTile] = {};  // columns of a diagonal tile, which its rows already hold
  for (long i = tile0; i < tile1; i++) {
    alignas(64) T lanes[kTile * L] = {};
    double* row = rows + (i - tile0) * kTile;
    for (int r = 0; r < kTile; r++) row[r] = 0;
    const T *u = x.u + i * x.d * kTile, *wx = x.weight + i * kTile;
    long since = 0;
    visit(pair, i, pair.same ? i : 0, bound, kFlush, [&](long j, long count, const Offsets<T>& off) {
      const T *v = y.u + j * y.d * kTile, *wy = y.weight + j * kTile;
      T* col = pair.same && i == j ? unused : cols + j * kTile;
      const bool unit = x.unit[i] && y.unit[j];
      for (long t = j; t < j + count; t++) {
        if (touched[t] || (pair.same && i == t)) continue;
        touched[t] = true;
        for (int c = 0; c < kTile; c++) cols[t * kTile + c] = 0;
      }
      if (unit) add_run<T, P, D, true>(pair, u, v, off, count, wx, wy, lanes, col);
      else add_run<T, P, D, false>(pair, u, v, off, count, wx, wy, lanes, col);
      if ((since += count) >= kFlush) flush(lanes, row), since = 0;
    });
    flush(lanes, row);
  }
  if (bound != few) delete[] bound;
}

template <class T>
void sweep_any(const Pair<T>& pair, long tile0, long tile1, double* rows, T* cols, bool* touched) {
  if (pair.p == 1) {
    sweep_rows<T, 1, 0>(pair, tile0, tile1, rows, cols, touched);
    return;
  }
  switch (pair.x->d) {
    case 1: sweep_rows<T, 2, 1>(pair, tile0, tile1, rows, cols, touched); break;
    case 2: sweep_rows<T, 2, 2>(pair, tile0, tile1, rows, cols, touched); break;
    case 3: sweep_rows<T, 2, 3>(pair, tile0, tile1, rows, cols, touched); break;
    default: sweep_rows<T, 2, 0>(pair, tile0, tile1, rows, cols, touched);
  }
}

}  // namespace

void sweep(const Pair<float>& pair, long tile0, long tile1, double* rows, float* cols, bool* touched) {
  sweep_any(pair, tile0, tile1, rows, cols, touched);
}

void sweep(const Pair<double>& pair, long tile0, long tile1, double* rows, double* cols, bool* touched) {
  sweep_any(pair, tile0, tile1, rows, cols, touched);
}

}  // namespace OTCORE_ISA
}  // namespace otcore
