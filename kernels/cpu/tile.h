// Shared by the verbs: which tile pairs to visit, and the logits of a register tile inside one.
#pragma once
#include "side.h"
#include "simd.h"

namespace otcore {
namespace OTCORE_ISA {
namespace {

// Tile pairs in frames, of radii whose product is below this, expand |u - v|^2 / 2 into u.v and squares; wider
// ones take differences, as rounding of the large squares would show.
template <class T>
constexpr double kCompact = sizeof(T) == 4 ? 40 : 300;

constexpr long kFewTiles = 2;

// The logits of one tile pair are a[r] + b[c] + u_r.v_c, or - |u_r - v_c|^2 / 2 where `direct` (p = 2);
// a[r] + b[c] - |u_r - v_c| (p = 1). a and b carry what remains: potentials, and the offset between frames.
// Across a wide tile they are large and cancel, so where `direct` what rounding them lost is added back.
template <class T>
struct Offsets {
  const T *a, *b;
  const T *lost_a, *lost_b;
  bool direct;
  Clamp clamp;

  Offsets<T> from(int row, int column) const {
    return {a + row, b + column, lost_a + row, lost_b + column, direct, clamp};
  }
};

template <class T>
struct OffsetStorage {
  alignas(64) T a[kTile], b[kTile], lost_a[kTile], lost_b[kTile];
};

// Upper bounds on the logits of points in a box, of potentials up to `top`, against the tiles [j0, j1) of y: from
// potentials and, where there are enough tiles for skipping some to pay, boxes. Coordinate k of the box is
// lo[k * stride] to hi[k * stride].
template <class T>
void box_bounds(const Side<T>& y, int p, const double* lo, const double* hi, long stride, double top, long j0, long j1,
                double* bound) {
  if (y.tiles <= kFewTiles) {
    for (long j = j0; j < j1; j++) bound[j] = top + y.top[j];
    return;
  }
  for (long j = j0; j < j1; j++) bound[j] = 0;
  for (int k = 0; k < y.d; k++) {
    const double xlo = lo[k * stride], xhi = hi[k * stride];
    const double *ylo = y.lo + k * y.tiles, *yhi = y.hi + k * y.tiles;
    for (long j = j0; j < j1; j++) {
      const double below = xlo - yhi[j], above = ylo[j] - xhi;
      double gap = below > above ? below : above;
      gap = gap > 0 ? gap : 0;
      bound[j] += gap * gap;
    }
  }
  if (p == 2)
    for (long j = j0; j < j1; j++) bound[j] = top + y.top[j] - 0.5 * bound[j];
  else
    for (long j = j0; j < j1; j++) bound[j] = top + y.top[j] - __builtin_sqrt(bound[j]);
}

template <class T>
void tile_bounds(const Pair<T>& pair, long i, long j0, long j1, double* bound) {
  const Side<T>& x = *pair.x;
  box_bounds(*pair.y, pair.p, x.lo + i, x.hi + i, x.tiles, x.top[i], j0, j1, bound);
}

struct Range {
  double low, top;
};

// Offsets in the tiles' own frames: with D the distance between the frames,
// |D + u - v|^2 / 2 = |D|^2 / 2 + D.u - D.v + |u - v|^2 / 2. In double and from unrounded coordinates, so that
// what cancels does. `a` is shifted to have maximum 0 and `b` takes the shift. Returns the range of a + b.
template <class T>
OTCORE_INLINE Range frame_offsets(const Pair<T>& pair, long i, long j, bool direct, OffsetStorage<T>& out) {
  const Side<T>&x = *pair.x, &y = *pair.y;
  const double *u = x.exact + i * x.d * kTile, *v = y.exact + j * y.d * kTile;
  const double *xh = x.h + i * kTile, *yh = y.h + j * kTile;
  const double *xs = x.half + i * kTile, *ys = y.half + j * kTile;
  double wide_a[kTile], wide_b[kTile], square = 0;
  if (direct) {
    for (int r = 0; r < kTile; r++) wide_a[r] = xh[r], wide_b[r] = yh[r];
  } else {
    for (int r = 0; r < kTile; r++) wide_a[r] = xh[r] - xs[r], wide_b[r] = yh[r] - ys[r];
  }
  for (int k = 0; k < x.d; k++) {
    const double delta = x.frame[k * x.tiles + i] - y.frame[k * y.tiles + j];
    square += delta * delta;
    for (int r = 0; r < kTile; r++) wide_a[r] -= delta * u[k * kTile + r];
    for (int c = 0; c < kTile; c++) wide_b[c] += delta * v[k * kTile + c];
  }
  double top_a = wide_a[0], top_b = wide_b[0], low_a = top_a, low_b = top_b;
#pragma omp simd reduction(max : top_a, top_b) reduction(min : low_a, low_b)
  for (int r = 0; r < kTile; r++) {
    top_a = wide_a[r] > top_a ? wide_a[r] : top_a;
    top_b = wide_b[r] > top_b ? wide_b[r] : top_b;
    low_a = wide_a[r] < low_a ? wide_a[r] : low_a;
    low_b = wide_b[r] < low_b ? wide_b[r] : low_b;
  }
  const double shift = top_a - 0.5 * square;
  for (int r = 0; r < kTile; r++) {
    out.a[r] = (T)(wide_a[r] - top_a);
    out.b[r] = (T)(wide_b[r] + shift);
  }
  if (direct)
    for (int r = 0; r < kTile; r++) {
      out.lost_a[r] = (T)(wide_a[r] - top_a - (double)out.a[r]);
      out.lost_b[r] = (T)(wide_b[r] + shift - (double)out.b[r]);
    }
  return {low_a + low_b - 0.5 * square, top_b + shift};
}

// What is certain of logits between `low` and `top`.
template <class T>
OTCORE_INLINE Clamp clamping(double low, double top) {
  return !(top < kHighest<T>) ? Clamp::both : low > kLowest<T> ? Clamp::none : Clamp::below;
}

// `visit` for the tiles [j0, j1) of y.
template <class T, class F>
OTCORE_INLINE void visit_tiles(const Pair<T>& pair, long i, long j0, long j1, double* bound, long longest, F&& f) {
  const Side<T>&x = *pair.x, &y = *pair.y;
  tile_bounds(pair, i, j0, j1, bound);
  const double low = x.low[i], radius = x.radius[i];
  if (!pair.framed) {
    const T* a = x.flat + i * kTile;
    const auto clamp_for = [&](long j) {
      return clamping<T>(pair.p == 2 ? low + y.low[j] - radius * y.radius[j] : -1e300, bound[j]);
    };
    for (long j = j0, end; j < j1; j = end) {
      end = j + 1;
      if (bound[j] < -pair.cutoff) continue;
      const Clamp clamp = clamp_for(j);
      const bool unit = y.unit[j];
      const long last = pair.same && i == j ? end : j + longest < j1 ? j + longest : j1;
      while (end < last && bound[end] >= -pair.cutoff && clamp_for(end) == clamp && y.unit[end] == unit) end++;
      const T* b = y.flat + j * kTile;
      f(j, end - j, Offsets<T>{a, b, a, b, false, clamp});
    }
    return;
  }
  OffsetStorage<T> o;
  for (long j = j0; j < j1; j++) {
    if (bound[j] < -pair.cutoff) continue;
    const double reach = radius * y.radius[j];
    const bool direct = reach >= kCompact<T>;
    const Range range = frame_offsets(pair, i, j, direct, o);
    const double top = range.top + (direct ? 0 : reach);
    if (top < -pair.cutoff) continue;
    const Clamp clamp = clamping<T>(direct ? -1e300 : range.low - reach, top);
    f(j, 1, Offsets<T>{o.a, o.b, o.lost_a, o.lost_b, direct, clamp});
  }
}

// Calls f(j, count, offsets) for the tiles j >= j0 of y that are not certainly negligible to tile i of x: for runs
// of at most `longest` tiles which are alike in what the offsets say and in having unit weights, the diagonal tile
// of a symmetric pair by itself. `bound` is scratch of y.tiles doubles.
template <class T, class F>
OTCORE_INLINE void visit(const Pair<T>& pair, long i, long j0, double* bound, long longest, F&& f) {
  const Tiles all{0, pair.y->tiles}, *run = &all, *end = run + 1;
  if (pair.near) {
    const long box = pair.box_of[i];
    run = pair.near + pair.near_from[box], end = pair.near + pair.near_from[box + 1];
  }
  for (; run < end; run++) {
    const long first = run->first > j0 ? run->first : j0;
    if (first < run->last) visit_tiles(pair, i, first, run->last, bound, longest, f);
  }
}

template <class T>
OTCORE_INLINE void sqrt_lanes(Vec<T>& v) {
  T s[Simd<T>::lanes];
  store(s, v);
  for (int l = 0; l < Simd<T>::lanes; l++) s[l] = sizeof(T) == 4 ? (T)__builtin_sqrtf((float)s[l]) : (T)__builtin_sqrt((double)s[l]);
  v = load(s);
}

// acc[r][q] += sum_k u_kr v_kc, for kRows rows and Q vectors of columns; D = 0 reads the dimension at run time.
template <class T, int Q, int D>
OTCORE_INLINE void dot_tile(const T* u, const T* v, int d, Vec<T> (&acc)[kRows][Q]) {
  constexpr int L = Simd<T>::lanes;
  const int dim = D ? D : d;
#pragma GCC unroll 4
  for (int k = 0; k < dim; k++) {
    Vec<T> col[Q];
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) col[q] = load(v + k * kTile + q * L);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 4
      for (int q = 0; q < Q; q++) acc[r][q] += col[q] * u[k * kTile + r];
  }
}

// acc[r][q] += |u_r - v_c|^2
template <class T, int Q>
OTCORE_INLINE void square_tile(const T* u, const T* v, int d, Vec<T> (&acc)[kRows][Q]) {
  constexpr int L = Simd<T>::lanes;
  for (int k = 0; k < d; k++) {
    Vec<T> col[Q];
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) col[q] = load(v + k * kTile + q * L);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 4
      for (int q = 0; q < Q; q++) {
        const Vec<T> diff = col[q] - u[k * kTile + r];
        acc[r][q] += diff * diff;
      }
  }
}

// acc = the logits of kRows x (Q vectors); u, v and the offsets start at the first row and column. For p = 1,
// `distance` also receives the scaled distances where it is not null.
template <class T, int P, int Q, int D>
OTCORE_INLINE void logit_tile(const Pair<T>& pair, const T* u, const T* v, const Offsets<T>& off, Vec<T> (&acc)[kRows][Q],
                              Vec<T> (*distance)[Q] = nullptr) {
  constexpr int L = Simd<T>::lanes;
  const T *a = off.a, *b = off.b;
  // Few dimensions are added to the offsets, which saves an addition; many would each round at their size.
  const bool onto = P == 2 && D > 0 && !off.direct;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) acc[r][q] = onto ? load(b + q * L) + a[r] : Vec<T>{};
  if (P == 2 && off.direct) {
    square_tile<T, Q>(u, v, pair.x->d, acc);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 4
      for (int q = 0; q < Q; q++) {
        const Vec<T> lost = load(off.lost_b + q * L) + off.lost_a[r];
        acc[r][q] = ((load(b + q * L) + a[r]) - acc[r][q] * T(0.5)) + lost;
      }
  } else if (P == 2) {
    dot_tile<T, Q, D>(u, v, pair.x->d, acc);
    if (onto) return;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 4
      for (int q = 0; q < Q; q++) acc[r][q] = (load(b + q * L) + a[r]) + acc[r][q];
  } else {
    square_tile<T, Q>(u, v, pair.x->d, acc);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 4
      for (int q = 0; q < Q; q++) {
        acc[r][q] = vmax(acc[r][q], splat(pair.floor));
        sqrt_lanes<T>(acc[r][q]);
        if (distance) distance[r][q] = acc[r][q];
        acc[r][q] = (load(b + q * L) + a[r]) - acc[r][q];
      }
  }
}

}  // namespace
}  // namespace OTCORE_ISA
}  // namespace otcore
