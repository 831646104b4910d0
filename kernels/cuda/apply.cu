#include "rows.h"
#include "verbs.h"

namespace otcore::cuda {
namespace {

constexpr int kWidth = 4;  // columns of v at a time

template <class T, int D, int P>
__global__ void __launch_bounds__(kRowThreads, 1)
    apply_rows(Batch<T> batch, const double* f, const double* g, const double* eps, const double* v, int width, const T* boxes,
               int tiles, int blocks, T* out) {
  const int z = blockIdx.x / blocks, block = blockIdx.x % blocks;
  const Term<T> q = term_at(batch, z);
  if (block * kWarp >= q.n) return;
  const Scale<T> scale = scale_at<T>(batch.cost, eps[z]);
  const long other = q.same ? q.row : q.column - batch.rows_x;
  const int row = block * kWarp + threadIdx.x % kWarp, first = blockIdx.y * kWidth;
  const auto sum = row_sums<T, D, P, ValueParts<kWidth>>(q, batch.d, block, scale, f + q.row, g + other,
                                                         v + other * width + first, width, width - first,
                                                         boxes_of(boxes, tiles, z));
  if (threadIdx.x >= kWarp || row >= q.n) return;
  const double factor = q.weight_x(row) * factor_of(sum);
  for (int k = 0; k < kWidth && first + k < width; k++)
    out[(q.row + row) * width + first + k] = static_cast<T>(sum.parts[k] == 0 ? 0.0 : factor * sum.parts[k]);
}

}  // namespace

template <class T>
void apply(const Batch<T>& q, const double* f, const double* g, const double* eps, const double* v, int width, T* boxes,
           T* out, Stream stream) {
  dispatch<T>(q.d, q.cost.p, [&](auto d, auto p) {
    constexpr int D = decltype(d)::value, P = decltype(p)::value;
    const int blocks = row_blocks(q);
    const dim3 grid(blocks * q.terms(), (width + kWidth - 1) / kWidth);
    const T* filled = boxes_for<T, D>(q, 1, g, q.rows_x, eps, boxes, stream);
    launch(apply_rows<T, D, P>, grid, kRowThreads, sizeof(RowMemory<T, D, ValueParts<kWidth>>), stream, q, f, g, eps, v, width,
           filled, box_count(q, 1), blocks, out);
  });
}

template void apply(const Batch<float>&, const double*, const double*, const double*, const double*, int, float*, float*,
                    Stream);
template void apply(const Batch<double>&, const double*, const double*, const double*, const double*, int, double*,
                    double*, Stream);

}  // namespace otcore::cuda
