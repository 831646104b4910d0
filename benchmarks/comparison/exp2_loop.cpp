// The bare exp2 loop `sweep` is judged against: load a value, take 2^value, add it up; nothing else.
// Polynomial and vector width are those of the native kernels (kernels/cpu/simd.h, exp2v). The values stay in
// the first-level cache; eight accumulators hide the latency of the addition and let independent exponentials
// overlap. Built by exp2_loop.py at benchmark time, for the instruction set in use.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "simd.h"

using namespace otcore::OTCORE_ISA;

namespace {

constexpr int kAccumulators = 8;
constexpr int kLanes = Simd<float>::lanes;
constexpr long kStep = long(kAccumulators) * kLanes;

// Sum of 2^values[k] over `passes` passes; count is a multiple of kStep.
__attribute__((noinline)) float sum_exp2(const float* values, long count, long passes) {
  Vec<float> sums[kAccumulators] = {};
  for (long pass = 0; pass < passes; pass++) {
    asm volatile("" : : "r"(values) : "memory");  // every pass loads and computes anew
    for (long k = 0; k < count; k += kStep)
      for (int u = 0; u < kAccumulators; u++) sums[u] += exp2v(load(values + k + u * kLanes));
  }
  float total = 0;
  for (int u = 0; u < kAccumulators; u++) total += lane_sum<float>(sums[u]);
  return total;
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

// The multiple of which `count` has to be.
extern "C" long exp2_step() { return kStep; }

// Median seconds, over `repeats`, to take `total` exponentials on `threads` threads that are already running.
// *mean receives the mean of 2^value, for a check. total is rounded up to whole passes per thread.
extern "C" double exp2_loop(const float* values, long count, long total, int threads, int repeats, float* mean) {
  const long passes = (total + threads * count - 1) / (threads * count);
  std::atomic<int> round{0}, finished{0};
  std::vector<float> sums(threads, 0.0f);
  auto share = [&](int thread) { sums[thread] = sum_exp2(values, count, passes); };
  std::vector<std::thread> helpers;
  for (int thread = 1; thread < threads; thread++)
    helpers.emplace_back([&, thread] {
      for (int r = 1; r <= repeats; r++) {
        while (round.load(std::memory_order_acquire) < r) {
        }
        share(thread);
        finished.fetch_add(1, std::memory_order_release);
      }
    });
  std::vector<double> times(repeats);
  for (int r = 1; r <= repeats; r++) {
    const double start = now();
    round.store(r, std::memory_order_release);
    share(0);
    while (finished.load(std::memory_order_acquire) < r * (threads - 1)) {
    }
    times[r - 1] = now() - start;
  }
  for (auto& helper : helpers) helper.join();
  *mean = sums[0] / (float(passes) * count);
  std::sort(times.begin(), times.end());
  return times[repeats / 2];
}
