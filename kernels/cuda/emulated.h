// CUDA's threads on the host, for tests: the threads of a block are fibers that take turns at barriers, blocks run
// one after another. Shared memory starts as garbage (bytes of ones: NaN) in every block. OTCORE_EMULATED_ORDER=1
// runs the threads in the reverse order: a missing barrier then shows.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __noinline__

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace otcore::cuda::emulated {

constexpr int kLanes = 32;
constexpr std::size_t kStack = 64 * 1024;

struct Barrier {
  int arrived = 0;
  long generation = 0;
};

struct Fiber {
  std::unique_ptr<char[]> stack{new char[kStack]};
  jmp_buf at;
  ucontext_t start;
  bool begun = false, done = false;
};

struct Machine {
  std::vector<Fiber> fibers;
  std::vector<Barrier> warps;
  Barrier block;
  std::vector<std::uint64_t> lanes;  // what a shuffle exchanges
  std::vector<unsigned char> memory;
  jmp_buf scheduler;
  int threads = 0;
  dim3 thread, block_index, block_size, grid_size;
  std::function<void()> body;
};

inline Machine& machine() {
  static thread_local Machine one;
  return one;
}

inline void yield() {
  Machine& m = machine();
  const dim3 self = m.thread;
  if (_setjmp(m.fibers[self.x].at) == 0) _longjmp(m.scheduler, 1);
  m.thread = self;
}

inline void wait(Barrier& barrier, int parties) {
  const long mine = barrier.generation;
  if (++barrier.arrived == parties) {
    barrier.arrived = 0, barrier.generation++;
    return;
  }
  while (barrier.generation == mine) yield();
}

inline void block_barrier() { wait(machine().block, machine().threads); }

inline void warp_barrier() { wait(machine().warps[machine().thread.x / kLanes], kLanes); }

template <class T>
T shuffle(T v, int lane) {
  static_assert(sizeof(T) <= 8);
  Machine& m = machine();
  const int self = m.thread.x, first = self - self % kLanes;
  std::memcpy(&m.lanes[self], &v, sizeof v);
  warp_barrier();
  std::memcpy(&v, &m.lanes[first + lane], sizeof v);
  warp_barrier();
  return v;
}

inline unsigned ballot(bool vote) {
  unsigned bits = 0;
  Machine& m = machine();
  const int self = m.thread.x, first = self - self % kLanes;
  m.lanes[self] = vote;
  warp_barrier();
  for (int l = 0; l < kLanes; l++) bits |= m.lanes[first + l] ? 1u << l : 0u;
  warp_barrier();
  return bits;
}

inline unsigned char* shared() { return machine().memory.data(); }

inline void enter() {
  Machine& m = machine();
  const int self = m.thread.x;
  m.body();
  m.fibers[self].done = true;
  _longjmp(m.scheduler, 1);
}

inline void run_block() {
  Machine& m = machine();
  const char* order = std::getenv("OTCORE_EMULATED_ORDER");
  const bool reverse = order && *order == '1';
  for (Fiber& fiber : m.fibers) fiber.begun = fiber.done = false;
  volatile int left = m.threads;
  while (left > 0) {
    for (volatile int k = 0; k < m.threads; k = k + 1) {
      const int t = reverse ? m.threads - 1 - k : static_cast<int>(k);
      Fiber& fiber = m.fibers[t];
      if (fiber.done) continue;
      m.thread = dim3(t, 0, 0);
      if (_setjmp(m.scheduler) == 0) {
        if (fiber.begun) _longjmp(fiber.at, 1);
        fiber.begun = true;
        getcontext(&fiber.start);
        fiber.start.uc_stack.ss_sp = fiber.stack.get();
        fiber.start.uc_stack.ss_size = kStack;
        fiber.start.uc_link = nullptr;
        makecontext(&fiber.start, enter, 0);
        setcontext(&fiber.start);
      }
      const int ran = reverse ? m.threads - 1 - k : static_cast<int>(k);
      if (m.fibers[ran].done) left = left - 1;
    }
  }
}

inline void run(dim3 grid, int threads, std::size_t shared, std::function<void()> body) {
  Machine& m = machine();
  m.threads = threads, m.block_size = dim3(threads), m.grid_size = grid, m.body = std::move(body);
  if (static_cast<int>(m.fibers.size()) < threads) m.fibers.resize(threads);
  m.warps.assign((threads + kLanes - 1) / kLanes, {});
  m.block = {};
  m.lanes.assign(threads + kLanes, 0);
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        m.block_index = dim3(x, y, z);
        m.memory.assign(shared + 16, 0xff);
        run_block();
      }
}

}  // namespace otcore::cuda::emulated

#define threadIdx (otcore::cuda::emulated::machine().thread)
#define blockIdx (otcore::cuda::emulated::machine().block_index)
#define blockDim (otcore::cuda::emulated::machine().block_size)
#define gridDim (otcore::cuda::emulated::machine().grid_size)
