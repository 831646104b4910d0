#include "pair.h"
#include "verbs.h"

namespace otcore::cuda {
namespace {

constexpr int kThreads = 256, kDimensions = 4, kBits = 15;  // of a coordinate: 60 of a code
constexpr int kSlice = 1024, kMostSlices = 1024;  // points of a block, at first

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

// One block a (cloud, slice of it): items of x, then items of y.
template <class T>
__global__ void __launch_bounds__(kThreads) code_cloud(Batch<T> batch, const double* boxes, long long* codes) {
  const bool second = static_cast<int>(blockIdx.x) >= batch.items;
  const Term<T> straight = term_at(batch, static_cast<int>(blockIdx.x) % batch.items);
  const Term<T> q = second ? straight.turned() : straight;
  const double *low = boxes + static_cast<long>(blockIdx.x) * 2 * batch.d, *high = low + batch.d;
  for (int i = blockIdx.y * kThreads + threadIdx.x; i < q.n; i += gridDim.y * kThreads) {
    unsigned cell[kDimensions];
#pragma unroll
    for (int k = 0; k < kDimensions; k++) {
      cell[k] = 0;
      if (k >= batch.d || !(high[k] > low[k])) continue;
      const double share = (q.x[static_cast<long>(i) * batch.d + k] - low[k]) / (high[k] - low[k]);
      cell[k] = static_cast<unsigned>(share * ((1 << kBits) - 1));
    }
    codes[q.row + i] = hilbert_code(cell, batch.d);
  }
}

}  // namespace

template <class T>
void order_codes(const Batch<T>& q, const double* boxes, long long* codes, Stream stream) {
  const int longest = q.n > q.m ? q.n : q.m, slices = (longest + kSlice - 1) / kSlice;
  launch(code_cloud<T>, dim3(2 * q.items, slices < kMostSlices ? slices : kMostSlices), kThreads, 0, stream, q, boxes, codes);
}

template void order_codes(const Batch<float>&, const double*, long long*, Stream);
template void order_codes(const Batch<double>&, const double*, long long*, Stream);

}  // namespace otcore::cuda
