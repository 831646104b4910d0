#include "exact.h"
#include "rows.h"
#include "verbs.h"

namespace otcore::cuda {
namespace {

template <class T, int D, int P>
__global__ void __launch_bounds__(kRowThreads, 1) 
    softmin_rows(Batch<T> batch, bool turned, const double* g, const double* eps, Reach reach, const T* boxes, int tiles, int blocks,
                 double* out) {
  const int z = blockIdx.x / blocks, block = blockIdx.x % blocks;
  const Term<T> straight = term_at(batch, z);
  if (turned && straight.same) return;
  const Term<T> q = turned ? straight.turned() : straight;
  if (block * kWarp >= q.n) return;
  const double own = eps[z];
  const double rho = turned || kind_of(batch, z) == 2 ? reach.y : reach.x;
  const Scale<T> scale = scale_at<T>(batch.cost, own);
  const double* potential = g ? g + (q.same ? q.row : q.column - batch.rows_x) : nullptr;
  const double unit = -1 / scale.rate / (1 + own / rho);
  if (is_flat(q, scale)) {
    const int last = q.n < (block + 1) * kWarp ? q.n : (block + 1) * kWarp;
    for (int i = block * kWarp + threadIdx.x / kWarp; i < last; i += kRowWarps) {
      const double log_sum = exact_log_sum<T, D, P>(q, batch.d, scale, nullptr, potential, i, true);
      if (threadIdx.x % kWarp == 0) out[q.row + i] = unit * kLog2E * log_sum;
    }
    return;
  }
  // The frames take their shift off a potential of zero, too.
  const RowSum<T, 0> sum = row_sums<T, D, P, NoParts>(q, batch.d, block, scale, nullptr, potential, nullptr, 0, 0,
                                                              boxes_of(boxes, tiles, z));
  const int row = block * kWarp + threadIdx.x % kWarp;
  if (threadIdx.x < kWarp && row < q.n)
    out[q.row + row] = unit * (static_cast<double>(sum.top) + log2(static_cast<double>(sum.total)));
}

}  // namespace

template <class T>
void softmin(const Batch<T>& q, bool turned, const double* g, const double* eps, Reach reach, T* boxes, double* out,
             Stream stream) {
  dispatch<T>(q.d, q.cost.p, [&](auto d, auto p) {
    constexpr int D = decltype(d)::value, P = decltype(p)::value;
    const int blocks = row_blocks(q, turned);
    const T* filled = boxes_for<T, D>(q, 1, g, q.rows_x, eps, boxes, stream);
    launch(softmin_rows<T, D, P>, dim3(blocks * q.terms()), kRowThreads, sizeof(RowMemory<T, D, NoParts>), stream, q, turned, g, eps, reach,
           filled, box_count(q, 1), blocks, out);
  });
}

template <class T>
std::size_t box_numbers(const Batch<T>& q, int pulls) {
  return static_cast<std::size_t>(pulls) * q.items * box_count(q, pulls) * kBoxNumbers<T>;
}

template std::size_t box_numbers(const Batch<float>&, int);
template std::size_t box_numbers(const Batch<double>&, int);
template void softmin(const Batch<float>&, bool, const double*, const double*, Reach, float*, double*, Stream);
template void softmin(const Batch<double>&, bool, const double*, const double*, Reach, double*, double*, Stream);

}  // namespace otcore::cuda
