// What the kernels take from CUDA, and how they are launched. Compiled for the host with OTCORE_EMULATED, the same
// sources run in emulated.h's threads: that is how they are tested where there is no GPU.
#pragma once
#include <cstddef>
#include <stdexcept>
#include <string>

#ifdef OTCORE_EMULATED
#include "emulated.h"
#else
#include <cuda_runtime.h>
#endif

namespace otcore::cuda {

constexpr int kWarp = 32;

#ifdef OTCORE_EMULATED

using Stream = void*;
#define OTCORE_CONSTANT const

inline unsigned char* shared_memory() { return emulated::shared(); }
inline void block_barrier() { emulated::block_barrier(); }
inline void warp_barrier() { emulated::warp_barrier(); }
template <class T>
T shuffle(T v, int lane) { return emulated::shuffle(v, lane); }
inline unsigned ballot(bool vote) { return emulated::ballot(vote); }
inline float exp2_of(float v) { return std::exp2(v); }
inline double exp2_of(double v) { return std::exp2(v); }
inline float sqrt_of(float v) { return std::sqrt(v); }
inline double sqrt_of(double v) { return std::sqrt(v); }
inline int first_bit(unsigned bits) { return __builtin_ctz(bits); }
inline int bit_count(unsigned bits) { return __builtin_popcount(bits); }
template <class T>
void add_atomically(T* to, T v) { *to += v; }

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, std::size_t shared, Stream, const Arguments&... arguments) {
  emulated::run(grid, threads, shared, [&] { kernel(Parameters(arguments)...); });
}

#else

using Stream = cudaStream_t;

// Throws what CUDA says, with a remedy where one is known.
void check(cudaError_t error);

#ifdef __CUDACC__

// A parameter of a kernel that may be passed on by reference without a copy.
#define OTCORE_CONSTANT const __grid_constant__

__device__ inline unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}
__device__ inline void block_barrier() { __syncthreads(); }
__device__ inline void warp_barrier() { __syncwarp(); }
template <class T>
__device__ T shuffle(T v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
__device__ inline unsigned ballot(bool vote) { return __ballot_sync(0xffffffffu, vote); }
__device__ inline float exp2_of(float v) {
  float e;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(v));
  return e;
}
__device__ inline double exp2_of(double v) { return exp2(v); }
__device__ inline float sqrt_of(float v) {
  float root;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(v));
  return root;
}
__device__ inline double sqrt_of(double v) { return sqrt(v); }
__device__ inline int first_bit(unsigned bits) { return __ffs(bits) - 1; }
__device__ inline int bit_count(unsigned bits) { return __popc(bits); }
template <class T>
__device__ void add_atomically(T* to, T v) { atomicAdd(to, v); }

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, std::size_t shared, Stream stream,
            const Arguments&... arguments) {
  if (shared > 48 * 1024)
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared)));
  kernel<<<grid, threads, shared, stream>>>(Parameters(arguments)...);
  check(cudaGetLastError());
}

#endif
#endif

#if defined(__CUDACC__) || defined(OTCORE_EMULATED)

// The sum over a warp, the same bits in every lane.
template <class T>
__device__ T warp_sum(T v) {
  const int lane = threadIdx.x % kWarp;
  for (int step = kWarp / 2; step > 0; step /= 2) v += shuffle(v, lane ^ step);
  return v;
}

template <class T>
__device__ T warp_max(T v) {
  const int lane = threadIdx.x % kWarp;
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const T other = shuffle(v, lane ^ step);
    v = other > v ? other : v;
  }
  return v;
}

#endif

}  // namespace otcore::cuda
