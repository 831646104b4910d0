#include "pair.h"
#include "reduce.h"
#include "verbs.h"

namespace otcore::cuda {
namespace {

constexpr int kThreads = 1024, kLargest = 16;
constexpr double kFlat = 30;  // times the costs within the clouds, about: a logit of which float32 rounds 2^-19

struct Memory {
  double scratch[(kThreads / kWarp + 1) * 4];
  double mean_x[kLargest], mean_y[kLargest], delta[kLargest];
};

// With Delta the distance between the frames, |x - y|^2 / 2 of p = 2 is |u - v|^2 / 2 + (u - v).Delta + |Delta|^2 / 2.
template <class T>
__device__ void place(const T* points, int n, int d, const double* mean, const double* delta, double sign, double constant,
                      bool moved, T* out, double* shift) {
  for (int i = threadIdx.x; i < n; i += kThreads) {
    double linear = constant;
    for (int k = 0; k < d; k++) {
      const long at = static_cast<long>(i) * d + k;
      const double u = moved ? points[at] - mean[k] : static_cast<double>(points[at]);
      if (moved) linear += sign * delta[k] * u;
      out[at] = static_cast<T>(u);
    }
    shift[i] = moved ? linear : 0.0;
  }
}

// One block an item. Clouds are centred, each by its mean, where they are further apart than they are wide: elsewhere
// rounding the centred coordinates would lose more than the potentials gain.
template <class T>
__global__ void __launch_bounds__(kThreads) prepare_item(Batch<T> batch, Prepared<T> out) {
  const Term<T> q = term_at(batch, blockIdx.x);
  Memory& memory = *reinterpret_cast<Memory*>(shared_memory());
  const int d = batch.d;
  double separation = 0, spread_x = 0, spread_y = 0, diagonal = 0;
  for (int k = 0; k < d; k++) {
    double sums[2] = {0, 0}, extremes[4] = {kNever<double>, kNever<double>, kNever<double>, kNever<double>};
    const auto see = [&](const T* points, int n, double& sum, double& low, double& high) {
      for (int i = threadIdx.x; i < n; i += kThreads) {
        const double v = points[static_cast<long>(i) * d + k];
        sum += v;
        low = -v > low ? -v : low, high = v > high ? v : high;
      }
    };
    see(q.x, q.n, sums[0], extremes[0], extremes[1]);
    see(q.y, q.m, sums[1], extremes[2], extremes[3]);
    block_sums(sums, memory.scratch);
    block_maxima(extremes, memory.scratch);
    const double x = sums[0] / q.n, y = sums[1] / q.m;
    if (threadIdx.x == 0) memory.mean_x[k] = x, memory.mean_y[k] = y;
    const double wide_x = extremes[0] + extremes[1], wide_y = extremes[2] + extremes[3];
    const double low = extremes[0] > extremes[2] ? extremes[0] : extremes[2];
    const double high = extremes[1] > extremes[3] ? extremes[1] : extremes[3];
    separation += (x - y) * (x - y), spread_x += wide_x * wide_x, spread_y += wide_y * wide_y;
    diagonal += (low + high) * (low + high);
  }
  block_barrier();
  const bool moved = batch.cost.p == 2 && separation > spread_x && separation > spread_y;
  if (threadIdx.x == 0) {
    const double square = 0.25 * (spread_x > spread_y ? spread_x : spread_y);
    out.diameters[blockIdx.x] = sqrt(diagonal);
    out.flat[blockIdx.x] = sizeof(T) == 8 || !(square > 0) ? HUGE_VAL : kFlat * (batch.cost.p == 2 ? square : sqrt(square));
  }
  if (static_cast<int>(threadIdx.x) < d) {
    const int k = threadIdx.x;
    memory.delta[k] = moved ? memory.mean_x[k] - memory.mean_y[k] : 0.0;
    out.offset[blockIdx.x * d + k] = memory.delta[k];
  }
  block_barrier();
  const long first_x = q.x - batch.x, first_y = q.y - batch.y;
  place(q.x, q.n, d, memory.mean_x, memory.delta, 1.0, 0.5 * separation, moved, out.x + first_x, out.shift + q.row);
  place(q.y, q.m, d, memory.mean_y, memory.delta, -1.0, 0.0, moved, out.y + first_y, out.shift + q.column);
}

}  // namespace

template <class T>
void prepare(const Batch<T>& raw, const Prepared<T>& out, Stream stream) {
  Batch<T> q = raw;
  q.first_kind = 0, q.kinds = 1;
  launch(prepare_item<T>, dim3(q.items), kThreads, sizeof(Memory), stream, q, out);
}

template void prepare(const Batch<float>&, const Prepared<float>&, Stream);
template void prepare(const Batch<double>&, const Prepared<double>&, Stream);

}  // namespace otcore::cuda
