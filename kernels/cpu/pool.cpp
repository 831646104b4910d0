#include "pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

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
thread_local int own_seat = 0;

// Two cores may be as much as half a microsecond apart, so they share little: every thread has a list of its own of
// chunks, in a cache line of its own, and takes from those of others only when it is through with it.
struct alignas(64) List {
  std::atomic<uint64_t> left{0};  // (generation, chunks left): a late thread cannot claim a chunk of a newer job
};

class Pool {
 public:
  static constexpr int kMostThreads = 256;

  void run(int threads, long chunks, void (*task)(void*, long), void* arg) {
    threads = static_cast<int>(std::min<long>({threads, chunks, kMostThreads}));
    grow(threads - 1);
    task_ = task, arg_ = arg, chunks_ = chunks;
    threads_.store(threads, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    const uint64_t generation = generation_.load(std::memory_order_relaxed) + 1;
    for (int t = 0; t < threads; t++) lists_[t].left.store(generation << 32 | of(t), std::memory_order_release);
    bool wake;
    {
      std::lock_guard<std::mutex> lock(sleep_);
      generation_.store(generation, std::memory_order_release);
      wake = asleep_ > 0;
    }
    if (wake) woken_.notify_all();
    const long mine = work(0, generation);
    while (mine + done_.load(std::memory_order_acquire) < chunks) relax();
  }

  std::mutex use;

 private:
  // Chunks are dealt out to and fro, so that where they get smaller the lists come out alike: round r gives one of
  // r threads + (0, 1, 2, ...) to every thread, in every other round from the last to the first.
  long chunk(int t, long round) const { return round * threads_ + (round % 2 ? threads_ - 1 - t : t); }
  uint64_t of(int t) const {
    const long rounds = chunks_ / threads_;
    return static_cast<uint64_t>(rounds + (chunk(t, rounds) < chunks_ ? 1 : 0));
  }

  // How many chunks this thread has done, its own first.
  long work(int own, uint64_t generation) {
    long count = 0;
    const int threads = threads_.load(std::memory_order_relaxed);
    for (int turn = 0; turn < threads; turn++) {
      const int t = (own + turn) % threads;
      uint64_t left = lists_[t].left.load(std::memory_order_acquire);
      while (left >> 32 == (generation & 0xffffffff) && static_cast<uint32_t>(left) > 0) {
        if (!lists_[t].left.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel)) continue;
        task_(arg_, chunk(t, static_cast<long>(of(t) - static_cast<uint32_t>(left))));
        count++, left--;
      }
    }
    return count;
  }

  void grow(int wanted) {
    for (; workers_ < wanted; workers_++) std::thread([this, id = workers_ + 1] { serve(id); }).detach();
  }

  void serve(int id) {
    inside = true;
    own_seat = id;
    uint64_t seen = 0;
    for (;;) {
      const auto since = std::chrono::steady_clock::now();
      for (int turn = 1; generation_.load(std::memory_order_acquire) == seen; turn++) {
        relax();
        if (turn % 64 == 0 && std::chrono::steady_clock::now() - since > kSpin) {
          std::unique_lock<std::mutex> lock(sleep_);
          asleep_++;
          woken_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
          asleep_--;
          break;
        }
      }
      seen = generation_.load(std::memory_order_acquire);
      if (id >= threads_.load(std::memory_order_relaxed)) continue;
      if (const long count = work(id, seen)) done_.fetch_add(count, std::memory_order_release);
    }
  }

  List lists_[kMostThreads];
  alignas(64) std::atomic<uint64_t> generation_{0};
  void (*task_)(void*, long) = nullptr;
  void* arg_ = nullptr;
  long chunks_ = 0;
  std::atomic<int> threads_{0};
  alignas(64) std::atomic<long> done_{0};
  alignas(64) std::mutex sleep_;
  std::condition_variable woken_;
  int asleep_ = 0;
  int workers_ = 0;
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
  const int before = std::exchange(own_seat, 0);
  for (long chunk = 0; chunk < chunks; chunk++) task(arg, chunk);
  own_seat = before;
}

int seat() { return own_seat; }

}  // namespace otcore
