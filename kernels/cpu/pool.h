// Threads for loops of independent chunks.
#pragma once

namespace otcore {

// Runs task(arg, chunk) for every chunk in [0, chunks) on at most `threads` threads, the caller among them,
// and returns when all are done. Threads take chunks from one another, so the caller finishes alone when no worker
// wakes, and after a fork. A call from inside a task, or while another thread uses the pool, is serial.
// Results may not depend on which thread runs which chunk. Tasks must not throw.
// seat(): inside a task, which of the `threads` threads this is; 0 is the caller.
int seat();
void parallel(int threads, long chunks, void (*task)(void* arg, long chunk), void* arg);

template <class F>
void parallel_for(int threads, long chunks, const F& f) {
  parallel(
      threads, chunks, [](void* arg, long chunk) { (*static_cast<const F*>(arg))(chunk); }, const_cast<F*>(&f));
}

// f(first, last, block) for blocks of [0, n): sums added up block by block are the same for every number of threads.
constexpr long kElements = 8192;

inline long blocks_of(long n) { return (n + kElements - 1) / kElements; }

template <class F>
void each_block_of(long n, int threads, const F& f) {
  if (n <= kElements) {
    f(0L, n, 0L);
    return;
  }
  parallel_for(threads, blocks_of(n), [&](long block) {
    const long first = block * kElements, last = first + kElements;
    f(first, last < n ? last : n, block);
  });
}

}  // namespace otcore
