// softmin: log-sum-exp of the logits, safe in any range. In double: it starts solves, repairs rows whose sums
// left the range of `sweep`, and extends potentials to new points.
#include "tile.h"
#include "verbs.h"

namespace otcore {
namespace OTCORE_ISA {
namespace {

constexpr int kLanes = Simd<double>::lanes;

constexpr double kLeast = 1e-300;  // of sums before their logarithm

// The log-sum-exp of one point as far as tiles have been added, up to the part of its own in every logit: `top` is the
// largest so far.
struct Running {
  double top = -1e300, own = 0;
  Vec<double> sum = {};

  double log_sum() const {
    const double total = lane_sum<double>(sum);
    return top + log2v(splat(total > kLeast ? total : kLeast))[0] + own;
  }
};

// Adds tile j of y to point i of [d][count].
template <int P>
OTCORE_INLINE void add_tile(const Pair<double>& pair, const double* points, long count, long i, long j, Running& at) {
  const Side<double>& y = *pair.y;
  const double *v = y.u + j * y.d * kTile, *flat = y.flat + j * kTile, *weight = y.weight + j * kTile;
  Vec<double> logits[kTile / kLanes], tops = splat(-1e300);
  for (int q = 0; q < kTile / kLanes; q++) {
    Vec<double> acc = {};
    for (int k = 0; k < y.d; k++) {
      const double u = points[k * count + i];
      if (P == 2) {
        acc += load(v + k * kTile + q * kLanes) * u;
      } else {
        const Vec<double> diff = load(v + k * kTile + q * kLanes) - u;
        acc += diff * diff;
      }
    }
    if (P == 1) {
      acc = vmax(acc, splat(pair.floor));
      sqrt_lanes<double>(acc);
      acc = -acc;
    }
    logits[q] = acc + load(flat + q * kLanes);
    tops = vmax(tops, logits[q]);
  }
  const double top = lane_max<double>(tops);
  if (top > at.top) {
    at.sum *= exp2_clamped<Clamp::below>(splat(at.top - top));
    at.top = top;
  }
  for (int q = 0; q < kTile / kLanes; q++)
    at.sum += exp2_clamped<Clamp::below>(logits[q] - at.top) * load(weight + q * kLanes);
}

// The points go through the tiles of y together: first through the one that promises most, then through those that are
// not certainly below 2^-cutoff of what every point has by then.
template <int P>
void softmin_points(const Pair<double>& pair, const double* points, long count, double* out) {
  const Side<double>& y = *pair.y;
  double* scratch = new double[y.tiles + 2 * y.d];
  double *bound = scratch, *lo = bound + y.tiles, *hi = lo + y.d;
  for (int k = 0; k < y.d; k++) {
    const double* own = points + k * count;
    lo[k] = hi[k] = own[0];
    for (long i = 1; i < count; i++) lo[k] = own[i] < lo[k] ? own[i] : lo[k], hi[k] = own[i] > hi[k] ? own[i] : hi[k];
  }
  box_bounds(y, P, lo, hi, 1, 0, 0, y.tiles, bound);
  long first = 0;
  for (long j = 1; j < y.tiles; j++) first = bound[j] > bound[first] ? j : first;
  Running* at = new Running[count];
  double least = 1e300;
  for (long i = 0; i < count; i++) {
    for (int k = 0; P == 2 && k < y.d; k++) at[i].own -= 0.5 * points[k * count + i] * points[k * count + i];
    add_tile<P>(pair, points, count, i, first, at[i]);
    const double sum = at[i].log_sum();
    least = sum < least ? sum : least;
  }
  for (long j = 0; j < y.tiles; j++) {
    if (j == first || bound[j] < least - pair.cutoff) continue;
    for (long i = 0; i < count; i++) add_tile<P>(pair, points, count, i, j, at[i]);
  }
  for (long i = 0; i < count; i++) out[i] = at[i].log_sum();
  delete[] at;
  delete[] scratch;
}

}  // namespace

void softmin(const Pair<double>& pair, const double* points, long count, double* out) {
  if (pair.p == 1) softmin_points<1>(pair, points, count, out);
  else softmin_points<2>(pair, points, count, out);
}

}  // namespace OTCORE_ISA
}  // namespace otcore
