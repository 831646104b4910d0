#include "pair.h"
#include "reduce.h"
#include "verbs.h"

namespace otcore::cuda {
namespace {

constexpr int kThreads = 1024, kDimensions = 4, kBits = 15;  // of a coordinate: 60 of a code
constexpr int kSlice = 4096;  // points of a block

// The place of a cell on the Hilbert curve. Source: Skilling, "Programming the Hilbert curve", AIP Conference
// Proceedings 707 (2004).
__device__ long long hilbert_code(unsigned (&cell)[kDimensions], int d) {
  for (unsigned bit = 1u << (kBits - 1); bit > 1; bit >>= 1)
#pragma unroll
    for (int k = 0; k < kDimensions; k++) {
      if (k >= d) continue;
      const unsigned below = bit - 1, swapped = (cell[0] ^ cell[k]) & below;
      if (cell[k] & bit) cell[0] ^= below;
      else cell[0] ^= swapped, cell[k] ^= swapped;
    }
  unsigned last = cell[0], flip = 0;
#pragma unroll
  for (int k = 1; k < kDimensions; k++)
    if (k < d) cell[k] ^= cell[k - 1], last = cell[k];
  for (unsigned bit = 1u << (kBits - 1); bit > 1; bit >>= 1)
    if (last & bit) flip ^= bit - 1;
  long long code = 0;
  for (int bit = kBits - 1; bit >= 0; bit--)
#pragma unroll
    for (int k = 0; k < kDimensions; k++)
      if (k < d) code = code << 1 | ((cell[k] ^ flip) >> bit & 1u);
  return code;
}

// One block a (cloud, slice of it): items of x, then items of y. Each looks at the whole cloud for its bounding box.
template <class T>
__global__ void __launch_bounds__(kThreads) code_cloud(Batch<T> batch, long long* codes) {
  const bool second = static_cast<int>(blockIdx.x) >= batch.items;
  const Term<T> straight = term_at(batch, static_cast<int>(blockIdx.x) % batch.items);
  const Term<T> q = second ? straight.turned() : straight;
  double* scratch = reinterpret_cast<double*>(shared_memory());
  double low[kDimensions], scale[kDimensions];
#pragma unroll
  for (int k = 0; k < kDimensions; k++) {
    if (k >= batch.d) continue;
    double extremes[2] = {kNever<double>, kNever<double>};
    for (int i = threadIdx.x; i < q.n; i += kThreads) {
      const double v = q.x[static_cast<long>(i) * batch.d + k];
      extremes[0] = -v > extremes[0] ? -v : extremes[0], extremes[1] = v > extremes[1] ? v : extremes[1];
    }
    block_maxima(extremes, scratch);
    const double width = extremes[0] + extremes[1];
    low[k] = -extremes[0], scale[k] = width > 0 ? ((1 << kBits) - 1) / width : 0;
  }
  for (int i = blockIdx.y * kThreads + threadIdx.x; i < q.n; i += gridDim.y * kThreads) {
    unsigned cell[kDimensions];
#pragma unroll
    for (int k = 0; k < kDimensions; k++)
      cell[k] = k < batch.d ? static_cast<unsigned>((q.x[static_cast<long>(i) * batch.d + k] - low[k]) * scale[k]) : 0;
    codes[q.row + i] = hilbert_code(cell, batch.d);
  }
}

}  // namespace

template <class T>
void order_codes(const Batch<T>& q, long long* codes, Stream stream) {
  const int longest = q.n > q.m ? q.n : q.m;
  launch(code_cloud<T>, dim3(2 * q.items, (longest + kSlice - 1) / kSlice), kThreads, (kThreads / kWarp + 1) * 2 * sizeof(double), stream, q, codes);
}

template void order_codes(const Batch<float>&, long long*, Stream);
template void order_codes(const Batch<double>&, long long*, Stream);

}  // namespace otcore::cuda
