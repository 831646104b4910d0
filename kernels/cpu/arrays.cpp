// Elementwise work: scaling points to a temperature, adding up column sums, their logarithms, and the inner products of Anderson acceleration.
#include "simd.h"
#include "verbs.h"

namespace otcore {
namespace OTCORE_ISA {

namespace {

constexpr int kLanes = Simd<double>::lanes;

template <class T>
void reduce_any(const T* parts, const bool* touched, long count, long stride, long tiles, double unit, double* sums) {
  for (long t = 0; t < tiles; t++, sums += kTile) {
    for (long part = 0; part < count; part++) {
      if (!touched[part * stride + t]) continue;
      const T* own = parts + (part * stride + t) * kTile;
      for (int c = 0; c < kTile; c++) sums[c] += (double)own[c];
    }
    for (int c = 0; c < kTile; c++) sums[c] *= unit;
  }
}

template <class T>
void scale_any(const double* __restrict points, long tiles, int d, double factor, const double* frame, T* __restrict u,
               double* __restrict exact, double* __restrict half, double* radius) {
  for (long t = 0; t < tiles; t++, half += kTile) {
    for (int r = 0; r < kTile; r++) half[r] = 0;
    for (int k = 0; k < d; k++, points += kTile, u += kTile) {
      if (frame) {
        const double origin = frame[k * tiles + t];
        for (int r = 0; r < kTile; r++) {
          const double v = factor * points[r] - origin;
          exact[r] = v;
          u[r] = (T)v;
          half[r] += 0.5 * v * v;
        }
        exact += kTile;
      } else {
        // Squares of the rounded coordinates: then rounding moves points a little, and near points stay near.
        for (int r = 0; r < kTile; r++) {
          const T v = (T)(factor * points[r]);
          u[r] = v;
          half[r] += 0.5 * (double)v * (double)v;
        }
      }
    }
    double furthest = 0;
#pragma omp simd reduction(max : furthest)
    for (int r = 0; r < kTile; r++) furthest = half[r] > furthest ? half[r] : furthest;
    radius[t] = __builtin_sqrt(2 * furthest);
  }
}

}  // namespace

void scale(const double* points, long tiles, int d, double factor, const double* frame, float* u, double* exact, double* half,
           double* radius) {
  scale_any(points, tiles, d, factor, frame, u, exact, half, radius);
}

void scale(const double* points, long tiles, int d, double factor, const double* frame, double* u, double* exact, double* half,
           double* radius) {
  scale_any(points, tiles, d, factor, frame, u, exact, half, radius);
}

void reduce(const float* parts, const bool* touched, long count, long stride, long tiles, double unit, double* sums) {
  reduce_any(parts, touched, count, stride, tiles, unit, sums);
}

void reduce(const double* parts, const bool* touched, long count, long stride, long tiles, double unit, double* sums) {
  reduce_any(parts, touched, count, stride, tiles, unit, sums);
}

void log2_array(const double* in, long n, double* out) {
  long i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, log2v(load(in + i)));
  for (; i < n; i++) out[i] = log2v(splat(in[i]))[0];
}

void dots(const double* const* history, int count, const double* w, const double* z, long n, double* dots) {
  for (int h = 0; h < count; h++) {
    const double* other = history[h];
    Vec<double> s0 = {}, s1 = {};
    long i = 0;
    for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
      s0 += load(other + i) * load(z + i) * load(w + i);
      s1 += load(other + i + kLanes) * load(z + i + kLanes) * load(w + i + kLanes);
    }
    double s = lane_sum<double>(s0 + s1);
    for (; i < n; i++) s += other[i] * z[i] * w[i];
    dots[h] = s;
  }
}

void combine(const double* const* history, int count, const double* gamma, long n, double* z) {
  long i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Vec<double> s = load(z + i);
    for (int h = 0; h < count; h++) s -= load(history[h] + i) * gamma[h];
    store(z + i, s);
  }
  for (; i < n; i++)
    for (int h = 0; h < count; h++) z[i] -= history[h][i] * gamma[h];
}

}  // namespace OTCORE_ISA
}  // namespace otcore
