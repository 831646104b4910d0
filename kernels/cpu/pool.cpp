#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <new>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace otcore {
namespace {

// Waking a sleeping thread costs tens of microseconds, a sweep of a few hundred points less: workers spin this
// long after a job before they sleep, which covers the serial gaps inside a solve and from a forward to its backward.
constexpr auto kSpin = std::chrono::microseconds(200);

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

thread_local bool inside = false;

class Pool {
 public:
  void run(int threads, long chunks, void (*task)(void*, long), void* arg) {
    grow(threads - 1);
    task_ = task;
    arg_ = arg;
    helpers_ = threads - 1;
    chunks_.store(static_cast<uint32_t>(chunks), std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    const uint64_t generation = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    bool wake;
    {
      std::lock_guard<std::mutex> lock(sleep_);
      ticket_.store(generation << 32, std::memory_order_release);
      wake = asleep_ > 0;
    }
    if (wake) woken_.notify_all();
    work(generation);
    while (done_.load(std::memory_order_acquire) < chunks) relax();
  }

  std::mutex use;

 private:
  // The ticket holds (generation, next chunk): a late worker cannot claim a chunk of a newer job by mistake.
  bool claim(uint64_t generation, uint32_t& chunk) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    for (;;) {
      chunk = static_cast<uint32_t>(ticket);
      if (ticket >> 32 != generation || chunk >= chunks_.load(std::memory_order_relaxed)) return false;
      if (ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) return true;
    }
  }

  void work(uint64_t generation) {
    uint32_t chunk;
    while (claim(generation, chunk)) {
      task_(arg_, chunk);
      done_.fetch_add(1, std::memory_order_release);
    }
  }

  void grow(int wanted) {
    for (; workers_ < wanted; workers_++) std::thread([this, id = workers_] { serve(id); }).detach();
  }

  void serve(int id) {
    inside = true;
    uint64_t seen = 0;
    for (;;) {
      const auto since = std::chrono::steady_clock::now();
      for (int turn = 1; ticket_.load(std::memory_order_acquire) >> 32 == seen; turn++) {
        relax();
        if (turn % 64 == 0 && std::chrono::steady_clock::now() - since > kSpin) {
          std::unique_lock<std::mutex> lock(sleep_);
          asleep_++;
          woken_.wait(lock, [&] { return ticket_.load(std::memory_order_acquire) >> 32 != seen; });
          asleep_--;
          break;
        }
      }
      seen = ticket_.load(std::memory_order_acquire) >> 32;
      if (id < helpers_) work(seen);
    }
  }

  std::atomic<uint64_t> ticket_{0};
  std::atomic<uint32_t> chunks_{0};
  std::atomic<long> done_{0};
  void (*task_)(void*, long) = nullptr;
  void* arg_ = nullptr;
  std::atomic<int> helpers_{0};
  int workers_ = 0;
  std::mutex sleep_;
  std::condition_variable woken_;
  int asleep_ = 0;
};

// Never destroyed: its threads may outlive static destruction. A forked child has none of them and starts
// afresh in the same storage.
alignas(64) unsigned char storage[sizeof(Pool)];

Pool& pool() {
  static Pool* created = [] {
    Pool* p = new (storage) Pool;
#if defined(__unix__) || defined(__APPLE__)
    pthread_atfork(nullptr, nullptr, [] {
      new (storage) Pool;
      inside = false;
    });
#endif
    return p;
  }();
  return *created;
}

}  // namespace

void parallel(int threads, long chunks, void (*task)(void*, long), void* arg) {
  if (threads > 1 && chunks > 1 && !inside) {
    std::unique_lock<std::mutex> lock(pool().use, std::try_to_lock);
    if (lock.owns_lock()) {
      inside = true;
      pool().run(threads, chunks, task, arg);
      inside = false;
      return;
    }
  }
  for (long chunk = 0; chunk < chunks; chunk++) task(arg, chunk);
}

}  // namespace otcore
