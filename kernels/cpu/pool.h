// Threads for loops of independent chunks.
#pragma once

namespace otcore {

// Runs task(arg, chunk) for every chunk in [0, chunks) on at most `threads` threads, the caller among them,
// and returns when all are done. Chunks are claimed from a counter, so the caller finishes alone when no
// worker wakes, and after a fork. A call from inside a task, or while another thread uses the pool, is serial.
// Results may not depend on which thread runs which chunk. Tasks must not throw.
void parallel(int threads, long chunks, void (*task)(void* arg, long chunk), void* arg);

template <class F>
void parallel_for(int threads, long chunks, const F& f) {
  parallel(
      threads, chunks, [](void* arg, long chunk) { (*static_cast<const F*>(arg))(chunk); }, const_cast<F*>(&f));
}

}  // namespace otcore
