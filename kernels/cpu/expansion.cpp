// Expansions of the Gaussian between boxes in the plane (expansion.h): fitting a box's potentials, collecting its
// points at nodes, translating from box to box and evaluating at points.
#include "expansion.h"

#include "simd.h"
#include "verbs.h"

namespace otcore {
namespace OTCORE_ISA {
namespace {

template <class T>
constexpr int kGroup = sizeof(T) == 4 ? 4 * kTile : 2 * kTile;  // points worked on at once

constexpr double kRidge = 1e-6;  // of the spread of a box: slopes across points on a line are any

// Least squares of h on (1, u) over the points of a box; then the largest residual, and 2^residual.
template <class T>
void fit_any(const Boxed<T>& q, long box) {
  const double c0 = q.centre[2 * box], c1 = q.centre[2 * box + 1], base = q.h[q.first[box] * kTile];
  double n = 0, s0 = 0, s1 = 0, s00 = 0, s01 = 0, s11 = 0, sh = 0, sh0 = 0, sh1 = 0;
  for (long t = q.first[box]; t < q.first[box + 1]; t++) {
    const double *x = q.points + t * kPlane * kTile, *y = x + kTile, *h = q.h + t * kTile;
#pragma omp simd reduction(+ : s0, s1, s00, s01, s11, sh, sh0, sh1)
    for (int r = 0; r < kTile; r++) {
      const double u = q.factor * x[r] - c0, v = q.factor * y[r] - c1, e = h[r] - base;
      s0 += u, s1 += v, s00 += u * u, s01 += u * v, s11 += v * v, sh += e, sh0 += e * u, sh1 += e * v;
    }
    n += kTile;
  }
  s00 -= s0 * s0 / n, s01 -= s0 * s1 / n, s11 -= s1 * s1 / n, sh0 -= s0 * sh / n, sh1 -= s1 * sh / n;
  const double ridge = kRidge * (s00 + s11) + 1e-30;
  s00 += ridge, s11 += ridge;
  const double det = s00 * s11 - s01 * s01;
  const double a = (s11 * sh0 - s01 * sh1) / det, b = (s00 * sh1 - s01 * sh0) / det;
  double top = -1e300;
  for (long t = q.first[box]; t < q.first[box + 1]; t++) {
    const double *x = q.points + t * kPlane * kTile, *y = x + kTile, *h = q.h + t * kTile;
#pragma omp simd reduction(max : top)
    for (int r = 0; r < kTile; r++) {
      const double rest = h[r] - a * (q.factor * x[r] - c0) - b * (q.factor * y[r] - c1);
      top = rest > top ? rest : top;
    }
  }
  for (long t = q.first[box]; t < q.first[box + 1]; t++) {
    const double *x = q.points + t * kPlane * kTile, *y = x + kTile, *h = q.h + t * kTile;
    alignas(64) T rest[kTile];
    for (int r = 0; r < kTile; r++) rest[r] = (T)(h[r] - a * (q.factor * x[r] - c0) - b * (q.factor * y[r] - c1) - top);
    for (int r = 0; r < kTile; r += Simd<T>::lanes)
      store(q.level + t * kTile + r, exp2_clamped<Clamp::below>(load(rest + r)));
  }
  q.slope[2 * box] = a, q.slope[2 * box + 1] = b, q.top[box] = top;
}

// out = a b, all [kOrder][kOrder].
template <class T>
OTCORE_INLINE void product(const T* a, const T* b, T* out) {
  constexpr int L = Simd<T>::lanes, Q = kOrder >= L ? kOrder / L : 1, R = 4 * Q > 8 ? 4 : 8;
  static_assert(kOrder % L == 0, "a row of nodes is whole vectors");
  for (int r0 = 0; r0 < kOrder; r0 += R) {
    for (int q0 = 0; q0 < Q; q0 += 2) {
      constexpr int P = Q < 2 ? 1 : 2;
      Vec<T> acc[R][P] = {};
#pragma GCC unroll 4
      for (int k = 0; k < kOrder; k++) {
        Vec<T> row[P];
#pragma GCC unroll 2
        for (int q = 0; q < P; q++) row[q] = load(b + k * kOrder + (q0 + q) * L);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 2
          for (int q = 0; q < P; q++) acc[r][q] += row[q] * a[(r0 + r) * kOrder + k];
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int q = 0; q < P; q++) store(out + (r0 + r) * kOrder + (q0 + q) * L, acc[r][q]);
    }
  }
}

// The coordinate in units of half-widths, [-1, 1], of one tile in one dimension.
template <class T>
OTCORE_INLINE void relative(const Boxed<T>& q, long box, long tile, int k, T* out) {
  const double scale = q.factor / q.nodes->half, shift = q.centre[2 * box + k] / q.nodes->half;
  const double* x = q.points + (tile * kPlane + k) * kTile;
  for (int r = 0; r < kTile; r++) out[r] = (T)(scale * x[r] - shift);
}

// The polynomials T_0..T_15 times `start` at a vector of points.
template <class T>
OTCORE_INLINE void polynomials(Vec<T> t, Vec<T> start, Vec<T> (&out)[kOrder]) {
  out[0] = start;
  out[1] = start * t;
  const Vec<T> twice = t + t;
#pragma GCC unroll 16
  for (int k = 2; k < kOrder; k++) out[k] = twice * out[k - 1] - out[k - 2];
}

// moments[k][l] += sum_j xs[k][j] ys[l][j] over `points` of them, a multiple of the lanes.
template <class T>
OTCORE_INLINE void add_moments(const T* xs, const T* ys, int points, T* moments) {
  constexpr int L = Simd<T>::lanes, B = 4;
  for (int k0 = 0; k0 < kOrder; k0 += B)
    for (int l0 = 0; l0 < kOrder; l0 += B) {
      Vec<T> acc[B * B] = {};
      for (int j = 0; j < points; j += L) {
        Vec<T> y[B];
#pragma GCC unroll 4
        for (int l = 0; l < B; l++) y[l] = load(ys + (l0 + l) * kGroup<T> + j);
#pragma GCC unroll 4
        for (int k = 0; k < B; k++) {
          const Vec<T> x = load(xs + (k0 + k) * kGroup<T> + j);
#pragma GCC unroll 4
          for (int l = 0; l < B; l++) acc[k * B + l] += x * y[l];
        }
      }
      alignas(64) T sums[B * B];
#pragma GCC unroll 8
      for (int g = 0; g < B * B; g += L) {
        Vec<T> rows[L];
#pragma GCC unroll 16
        for (int r = 0; r < L; r++) rows[r] = acc[g + r];
        store(sums + g, lane_sums<T>(rows));
      }
      for (int k = 0; k < B; k++)
        for (int l = 0; l < B; l++) moments[(k0 + k) * kOrder + l0 + l] += sums[k * B + l];
    }
}

// nodes [1 + width][kNodes]: the weights of a box as if they were at the nodes, and times each value.
template <class T>
void collect_any(const Boxed<T>& q, long box, Sums sums, const double* values, int width, T* nodes) {
  constexpr int L = Simd<T>::lanes;
  alignas(64) T xs[kOrder * kGroup<T>], ys[kOrder * kGroup<T>], moments[kNodes], half[kNodes];
  const int columns = sums == Sums::gradient ? kPlane : width;
  for (int k = 0; k <= columns; k++) {
    for (int a = 0; a < kNodes; a++) moments[a] = 0;
    for (long t0 = q.first[box]; t0 < q.first[box + 1]; t0 += kGroup<T> / kTile) {
      const long left = q.first[box + 1] - t0, tiles = left < kGroup<T> / kTile ? left : kGroup<T> / kTile;
      for (long t = 0; t < tiles; t++) {
        alignas(64) T x[kTile], y[kTile], w[kTile];
        relative(q, box, t0 + t, 0, x);
        relative(q, box, t0 + t, 1, y);
        const long first = (t0 + t) * kTile;
        for (int r = 0; r < kTile; r++) w[r] = q.weight[first + r] * q.level[first + r];
        if (k > 0 && sums == Sums::gradient)
          for (int r = 0; r < kTile; r++) w[r] *= (T)q.nodes->half * (k == 1 ? x[r] : y[r]);
        if (k > 0 && sums == Sums::values)
          for (int r = 0; r < kTile; r++) w[r] *= first + r < q.n ? (T)values[(first + r) * width + k - 1] : T(0);
        for (int r = 0; r < kTile; r += L) {
          Vec<T> px[kOrder], py[kOrder];
          polynomials<T>(load(x + r), load(w + r), px);
          polynomials<T>(load(y + r), splat(T(1)), py);
#pragma GCC unroll 16
          for (int a = 0; a < kOrder; a++) {
            store(xs + a * kGroup<T> + t * kTile + r, px[a]);
            store(ys + a * kGroup<T> + t * kTile + r, py[a]);
          }
        }
      }
      add_moments(xs, ys, (int)(tiles * kTile), moments);
    }
    product(q.nodes->to_nodes, moments, half);
    product(half, q.nodes->from_nodes, nodes + k * kNodes);
  }
}

// 2^(slope u - u^2 / 2 - most) at the nodes; returns most, an upper bound of slope u - u^2 / 2 there.
template <class T>
OTCORE_INLINE double profile(const Chebyshev<T>& nodes, double slope, T* out) {
  constexpr int L = Simd<T>::lanes;
  const double at = slope > nodes.half ? nodes.half : slope < -nodes.half ? -nodes.half : slope;
  const double most = slope * at - 0.5 * at * at;
  const Vec<T> s = splat((T)slope), m = splat((T)most);
  for (int a = 0; a < kOrder; a += L) {
    const Vec<T> u = load(nodes.node + a);
    store(out + a, exp2_clamped<Clamp::below>((s - u * T(0.5)) * u - m));
  }
  return most;
}

template <class T>
T exp2_scalar(double x) {
  return exp2_clamped<Clamp::both>(splat((T)x))[0];
}

// local [1 + width][kNodes] += what the boxes of `from` listed give at the nodes of box `to`.
template <class T>
void translate_any(const Boxed<T>& x, long to, const Boxed<T>& y, const long* from, long count, Sums sums, int width,
                   const T* nodes, T* local) {
  constexpr int L = Simd<T>::lanes;
  const Chebyshev<T>& c = *x.nodes;
  const int columns = 1 + (sums == Sums::gradient ? kPlane : width);
  alignas(64) T a0[kOrder], a1[kOrder], b0[kOrder], b1[kOrder], work[kNodes], half[kNodes], first[kNodes];
  for (long q = 0; q < count; q++) {
    const long box = from[q];
    const double d0 = x.centre[2 * to] - y.centre[2 * box], d1 = x.centre[2 * to + 1] - y.centre[2 * box + 1];
    double size = x.top[to] + y.top[box] - 0.5 * (d0 * d0 + d1 * d1);
    size += profile(c, x.slope[2 * to] - d0, a0) + profile(c, x.slope[2 * to + 1] - d1, a1);
    size += profile(c, y.slope[2 * box] + d0, b0) + profile(c, y.slope[2 * box + 1] + d1, b1);
    const T factor = exp2_scalar<T>(size);
    for (int a = 0; a < kOrder; a++) a0[a] *= factor;
    for (int k = 0; k < columns; k++) {
      const T* w = nodes + (box * columns + k) * kNodes;
      for (int r = 0; r < kOrder; r++)
        for (int l = 0; l < kOrder; l += L) store(work + r * kOrder + l, load(w + r * kOrder + l) * load(b1 + l) * b0[r]);
      product(c.kernel, work, half);
      product(half, c.kernel, work);
      T* out = local + k * kNodes;
      const T shift = sums == Sums::gradient && k > 0 ? (T)(k == 1 ? -d0 : -d1) : T(0);
      for (int r = 0; r < kOrder; r++)
        for (int l = 0; l < kOrder; l += L) {
          Vec<T> v = load(work + r * kOrder + l) * load(a1 + l) * a0[r];
          if (sums == Sums::gradient && k == 0) store(first + r * kOrder + l, v);
          if (sums == Sums::gradient && k > 0) v += load(first + r * kOrder + l) * shift;
          store(out + r * kOrder + l, load(out + r * kOrder + l) + v);
        }
    }
  }
}

// rows[i] += the expansion at the points of a box, out[i][k] += that of each value; for the gradient less u_i times
// the first. rows and out start at tile 0.
template <class T>
void evaluate_any(const Boxed<T>& q, long box, Sums sums, int width, const T* local, double* rows, double* out) {
  constexpr int L = Simd<T>::lanes;
  const int values = sums == Sums::gradient ? kPlane : width;
  alignas(64) T half[kNodes], modes[kNodes];
  for (int k = 0; k <= values; k++) {
    product(q.nodes->from_nodes, local + k * kNodes, half);
    product(half, q.nodes->to_nodes, modes);
    for (long t = q.first[box]; t < q.first[box + 1]; t++) {
      alignas(64) T x[kTile], y[kTile];
      relative(q, box, t, 0, x);
      relative(q, box, t, 1, y);
      for (int r = 0; r < kTile; r += L) {
        Vec<T> px[kOrder], py[kOrder], total = {};
        polynomials<T>(load(x + r), load(q.level + t * kTile + r), px);
        polynomials<T>(load(y + r), splat(T(1)), py);
        for (int a = 0; a < kOrder; a += 4) {
          Vec<T> inner[4] = {};
#pragma GCC unroll 16
          for (int l = 0; l < kOrder; l++)
#pragma GCC unroll 4
            for (int s = 0; s < 4; s++) inner[s] += py[l] * modes[(a + s) * kOrder + l];
#pragma GCC unroll 4
          for (int s = 0; s < 4; s++) total += px[a + s] * inner[s];
        }
        double sum[L];
        store_wide<T>(sum, total);
        const long place = t * kTile + r;
        if (k == 0) {
          for (int l = 0; l < L; l++) rows[place + l] += sum[l];
          if (sums == Sums::gradient)
            for (int l = 0; l < L; l++) {
              out[(place + l) * kPlane] -= q.nodes->half * (double)x[r + l] * sum[l];
              out[(place + l) * kPlane + 1] -= q.nodes->half * (double)y[r + l] * sum[l];
            }
        } else {
          for (int l = 0; l < L; l++) out[(place + l) * values + k - 1] += sum[l];
        }
      }
    }
  }
}

}  // namespace

void fit(const Boxed<float>& q, long box) { fit_any(q, box); }
void fit(const Boxed<double>& q, long box) { fit_any(q, box); }

void collect(const Boxed<float>& q, long box, Sums sums, const double* values, int width, float* nodes) {
  collect_any(q, box, sums, values, width, nodes);
}

void collect(const Boxed<double>& q, long box, Sums sums, const double* values, int width, double* nodes) {
  collect_any(q, box, sums, values, width, nodes);
}

void translate(const Boxed<float>& x, long to, const Boxed<float>& y, const long* from, long count, Sums sums, int width,
               const float* nodes, float* local) {
  translate_any(x, to, y, from, count, sums, width, nodes, local);
}

void translate(const Boxed<double>& x, long to, const Boxed<double>& y, const long* from, long count, Sums sums, int width,
               const double* nodes, double* local) {
  translate_any(x, to, y, from, count, sums, width, nodes, local);
}

void evaluate(const Boxed<float>& q, long box, Sums sums, int width, const float* local, double* rows, double* out) {
  evaluate_any(q, box, sums, width, local, rows, out);
}

void evaluate(const Boxed<double>& q, long box, Sums sums, int width, const double* local, double* rows, double* out) {
  evaluate_any(q, box, sums, width, local, rows, out);
}

}  // namespace OTCORE_ISA
}  // namespace otcore
