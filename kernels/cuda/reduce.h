// Sums over a block, with the same bits for the same block size.
#pragma once
#include "device.h"

namespace otcore::cuda {

// Every v[k] becomes its sum over the threads of the block. `scratch` holds (warps + 1) * K numbers.
template <int K>
__device__ void block_sums(double (&v)[K], double* scratch) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  for (int k = 0; k < K; k++) {
    const double sum = warp_sum(v[k]);
    if (lane == 0) scratch[warp * K + k] = sum;
  }
  block_barrier();
  if (static_cast<int>(threadIdx.x) < K) {
    double sum = 0;
    for (int w = 0; w < warps; w++) sum += scratch[w * K + threadIdx.x];
    scratch[warps * K + threadIdx.x] = sum;
  }
  block_barrier();
  for (int k = 0; k < K; k++) v[k] = scratch[warps * K + k];
  block_barrier();
}

// Likewise their maxima.
template <int K>
__device__ void block_maxima(double (&v)[K], double* scratch) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  for (int k = 0; k < K; k++) {
    const double top = warp_max(v[k]);
    if (lane == 0) scratch[warp * K + k] = top;
  }
  block_barrier();
  for (int k = 0; k < K; k++)
    for (int w = 0; w < warps; w++) v[k] = scratch[w * K + k] > v[k] ? scratch[w * K + k] : v[k];
  block_barrier();
}

// sum_i exp(v_i) as exp(top) * sum.
struct LogSum {
  double top, sum;
};

__device__ inline LogSum joined(LogSum one, LogSum other) {
  if (other.top > one.top) {
    const LogSum swap = one;
    one = other, other = swap;
  }
  if (other.sum > 0) one.sum += other.sum * exp(other.top - one.top);
  return one;
}

__device__ inline LogSum block_log_sum(LogSum own, double* scratch) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const double top = shuffle(own.top, lane ^ step), sum = shuffle(own.sum, lane ^ step);
    own = joined(own, {top, sum});
  }
  if (lane == 0) scratch[2 * warp] = own.top, scratch[2 * warp + 1] = own.sum;
  block_barrier();
  LogSum all = {scratch[0], scratch[1]};
  for (int w = 1; w < warps; w++) all = joined(all, {scratch[2 * w], scratch[2 * w + 1]});
  block_barrier();
  return all;
}

}  // namespace otcore::cuda
