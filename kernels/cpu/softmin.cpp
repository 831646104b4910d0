// softmin: log-sum-exp of the logits, safe in any range. In double: it starts solves, repairs rows whose sums
// left the range of `sweep`, and extends potentials to new points; it is not what the time goes to.
#include "tile.h"
#include "verbs.h"

namespace otcore {
namespace OTCORE_ISA {
namespace {

constexpr int kLanes = Simd<double>::lanes;

// Logits of one point against one tile of y, and their maximum.
template <int P>
OTCORE_INLINE Vec<double> point_logits(const Pair<double>& pair, const double* points, long count, long i, long j, double* t) {
  const Side<double>& y = *pair.y;
  const double *v = y.u + j * y.d * kTile, *flat = y.flat + j * kTile;
  Vec<double> top = splat(-1e300);
  for (int c = 0; c < kTile; c += kLanes) {
    Vec<double> acc = {};
    for (int k = 0; k < y.d; k++) {
      const double u = points[k * count + i];
      if (P == 2) {
        acc += load(v + k * kTile + c) * u;
      } else {
        const Vec<double> diff = load(v + k * kTile + c) - u;
        acc += diff * diff;
      }
    }
    if (P == 1) {
      acc = vmax(acc, splat(pair.floor));
      sqrt_lanes<double>(acc);
      acc = -acc;
    }
    acc += load(flat + c);
    top = vmax(top, acc);
    store(t + c, acc);
  }
  return top;
}

template <int P>
void softmin_points(const Pair<double>& pair, const double* points, long count, double* out) {
  const Side<double>& y = *pair.y;
  double* t = new double[y.tiles * kTile];
  for (long i = 0; i < count; i++) {
    Vec<double> tops = splat(-1e300);
    for (long j = 0; j < y.tiles; j++) tops = vmax(tops, point_logits<P>(pair, points, count, i, j, t + j * kTile));
    const double top = lane_max<double>(tops);
    Vec<double> sum = {};
    for (long q = 0; q < y.tiles * kTile; q += kLanes) sum += exp2_clamped<Clamp::below>(load(t + q) - top) * load(y.weight + q);
    double square = 0;
    if (P == 2)
      for (int k = 0; k < y.d; k++) square += points[k * count + i] * points[k * count + i];
    const double total = lane_sum<double>(sum);
    out[i] = top + log2v(splat(total > 1e-300 ? total : 1e-300))[0] - 0.5 * square;
  }
  delete[] t;
}

}  // namespace

void softmin(const Pair<double>& pair, const double* points, long count, double* out) {
  if (pair.p == 1) softmin_points<1>(pair, points, count, out);
  else softmin_points<2>(pair, points, count, out);
}

}  // namespace OTCORE_ISA
}  // namespace otcore
