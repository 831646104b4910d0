#include "rows.h"
#include "verbs.h"

namespace otcore::cuda {
namespace {

template <class T, int D, int P>
__global__ void __launch_bounds__(kRowThreads, 1)
    grad_rows(Batch<T> batch, const double* f, const double* g, const double* eps, bool normalise, const T* boxes, int tiles, int blocks,
              T* out) {
  const int z = blockIdx.x / blocks, block = blockIdx.x % blocks;
  const Term<T> q = term_at(batch, z);
  if (block * kWarp >= q.n) return;
  const Scale<T> scale = scale_at<T>(batch.cost, eps[z]);
  const long other = q.same ? q.row : q.column - batch.rows_x;
  const int row = block * kWarp + threadIdx.x % kWarp;
  const auto sum = row_sums<T, D, P, SlopeParts<D>>(q, batch.d, block, scale, f + q.row, g + other, nullptr, 0, 0,
                                                      boxes_of(boxes, tiles, z));
  if (threadIdx.x >= kWarp || row >= q.n) return;
  const double factor = normalise ? 1.0 / static_cast<double>(sum.total) : q.weight_x(row) * factor_of(sum);
  // The frames of x and y differ by the slope of the shift: p = 2 only, where it is a constant times the row's sum.
#pragma unroll
  for (int k = 0; k < D; k++)
    if (k < batch.d) {
      const double frame = batch.offset ? batch.offset[(z % batch.items) * batch.d + k] : 0.0;
      const double part = static_cast<double>(sum.parts[k]) + (q.same ? 0.0 : frame * static_cast<double>(sum.total));
      out[(q.row + row) * batch.d + k] = static_cast<T>(part == 0 ? 0.0 : factor * part);
    }
}

}  // namespace

template <class T>
void grad(const Batch<T>& q, const double* f, const double* g, const double* eps, bool normalise, T* boxes, T* out,
          Stream stream) {
  dispatch<T>(q.d, q.cost.p, [&](auto d, auto p) {
    constexpr int D = decltype(d)::value, P = decltype(p)::value;
    const int blocks = row_blocks(q);
    const T* filled = boxes_for<T, D>(q, g, eps, boxes, stream);
    launch(grad_rows<T, D, P>, dim3(blocks * q.terms()), kRowThreads, sizeof(RowMemory<T, D, SlopeParts<D>>), stream, q, f, g, eps, normalise,
           filled, box_count(q), blocks, out);
  });
}

template void grad(const Batch<float>&, const double*, const double*, const double*, bool, float*, float*, Stream);
template void grad(const Batch<double>&, const double*, const double*, const double*, bool, double*, double*, Stream);

}  // namespace otcore::cuda
