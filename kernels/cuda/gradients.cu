#include "rows.h"
#include "verbs.h"

namespace otcore::cuda {
namespace {

// A block takes the rows of a warp, of x or of y, and adds what those of the other cloud, or of their own, pull.
template <class T, int D, int P>
__global__ void __launch_bounds__(kRowThreads, 1)
    gradient_rows(OTCORE_CONSTANT Batch<T> batch, bool own, const double* potentials, const double* eps, OTCORE_CONSTANT Gradients<T> out,
                  const T* boxes, int tiles, int blocks_x, int blocks) {
  const int item = blockIdx.x / blocks, place = blockIdx.x % blocks;
  const bool second = place >= blocks_x;
  const int block = second ? place - blocks_x : place, pull = (second ? kCrossY : kCrossX) + (own ? kSelfX : 0);
  if (!out.weights[pull]) return;
  const Term<T> q = term_of(batch, item, pull);
  if (block * kWarp >= q.n) return;
  const Scale<T> scale = scale_at<T>(batch.cost, eps[item]);
  const int row = block * kWarp + threadIdx.x % kWarp;
  const auto sum = row_sums<T, D, P, SlopeParts<D>>(q, batch.d, block, scale, potentials + q.row, potentials + q.column, nullptr, 0, 0,
                                                    boxes_of(boxes, tiles, pull * batch.items + item));
  if (threadIdx.x >= kWarp || row >= q.n) return;
  // Its place among all points of its cloud.
  const long at = q.x - (second ? batch.y : batch.x) + static_cast<long>(row) * batch.d;
  const double weight = out.weights[pull][at / batch.d];
  const double factor = weight * (out.normalise ? 1.0 / static_cast<double>(sum.total) : factor_of(sum));
  const bool written = own && out.weights[second ? kCrossY : kCrossX];
  T* slopes = (second ? out.y : out.x) + at;
  // The frames of x and y differ by the slope of the shift: p = 2 only, where it is a constant times the row's sum.
  const double sign = own ? 0.0 : second ? -1.0 : 1.0;
#pragma unroll
  for (int k = 0; k < D; k++)
    if (k < batch.d) {
      const double part = static_cast<double>(sum.parts[k]) + sign * batch.offset[item * batch.d + k] * static_cast<double>(sum.total);
      const double slope = part == 0 || weight == 0 ? 0.0 : factor * part;
      slopes[k] = static_cast<T>(written ? slopes[k] + slope : slope);
    }
}

}  // namespace

template <class T>
void gradients(const Batch<T>& q, const double* potentials, const double* eps, const Gradients<T>& out, T* boxes, Stream stream) {
  dispatch<T>(q.d, q.cost.p, [&](auto d, auto p) {
    constexpr int D = decltype(d)::value, P = decltype(p)::value;
    const int blocks_x = out.x ? (q.n + kWarp - 1) / kWarp : 0, blocks_y = out.y ? (q.m + kWarp - 1) / kWarp : 0;
    const int pulls = q.kinds > 1 ? kPulls : kSelfX, blocks = blocks_x + blocks_y;
    const T* filled = boxes_for<T, D>(q, pulls, potentials, 0, eps, boxes, stream);
    for (const bool own : {false, true})
      if (out.weights[own ? kSelfX : kCrossX] || out.weights[own ? kSelfY : kCrossY])
        launch(gradient_rows<T, D, P>, dim3(blocks * q.items), kRowThreads, sizeof(RowMemory<T, D, SlopeParts<D>>), stream, q, own,
               potentials, eps, out, filled, box_count(q, pulls), blocks_x, blocks);
  });
}

template void gradients(const Batch<float>&, const double*, const double*, const Gradients<float>&, float*, Stream);
template void gradients(const Batch<double>&, const double*, const double*, const Gradients<double>&, double*, Stream);

}  // namespace otcore::cuda
